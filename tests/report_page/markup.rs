//! A reader of the page's own kind of HTML: tags closed as in XML, attributes quoted, one root; and what it refers to.

/// What is wrong with the page, if anything; else its elements, in order.
pub fn read(page: &str) -> Result<Vec<Element>, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>\n").ok_or("no doctype")?;
    let mut open: Vec<String> = Vec::new();
    let mut elements: Vec<Element> = Vec::new();
    let at = |rest: &str| format!("at byte {}", page.len() - rest.len());
    loop {
        let Some(start) = rest.find('<') else {
            check_text(rest).map_err(|what| format!("{what} {}", at(rest)))?;
            return match rest.trim() {
                "" if open.is_empty() => Ok(elements),
                "" => Err(format!("not closed: {open:?}")),
                _ => Err("text after the root".to_owned()),
            };
        };
        check_text(&rest[..start]).map_err(|what| format!("{what} {}", at(rest)))?;
        if start > 0 && open.is_empty() && !rest[..start].trim().is_empty() {
            return Err(format!("text outside the root {}", at(rest)));
        }
        rest = &rest[start + 1..];
        if let Some(closing) = rest.strip_prefix('/') {
            let end = closing.find('>').ok_or("a tag without end")?;
            let name = &closing[..end];
            if open.pop().as_deref() != Some(name) {
                return Err(format!("</{name}> closes nothing {}", at(rest)));
            }
            rest = &closing[end + 1..];
            continue;
        }
        let (element, after, empty) = tag(rest).map_err(|what| format!("{what} {}", at(rest)))?;
        rest = after;
        // Script and style are text up to their ends.
        if ["script", "style"].contains(&element.name.as_str()) {
            let end = format!("</{}>", element.name);
            let length = rest.find(&end).ok_or("a script or style without end")?;
            rest = &rest[length + end.len()..];
        } else if !empty {
            open.push(element.name.clone());
        }
        elements.push(element);
    }
}

#[derive(Debug)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
}

impl Element {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The element behind a `<`, what follows it, and whether it closes itself.
fn tag(text: &str) -> Result<(Element, &str, bool), String> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).ok_or("a tag without end")?;
    let name = text[..end].to_owned();
    if name.is_empty() {
        return Err("a `<` that opens nothing".to_owned());
    }
    let mut attributes = Vec::new();
    let mut rest = &text[end..];
    loop {
        if let Some(after) = rest.strip_prefix("/>") {
            return Ok((Element { name, attributes }, after, true));
        }
        if let Some(after) = rest.strip_prefix('>') {
            return Ok((Element { name, attributes }, after, false));
        }
        let attribute = rest.strip_prefix(' ').ok_or_else(|| format!("in <{name}: no space before an attribute"))?;
        let (key, value) =
            attribute.split_once("=\"").ok_or_else(|| format!("in <{name}: an attribute without value"))?;
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("in <{name}: `{key}` is no attribute's name"));
        }
        let (value, after) = value.split_once('"').ok_or_else(|| format!("in <{name}: {key} does not end"))?;
        check_text(value)?;
        if value.contains('<') || attributes.iter().any(|(other, _)| other == key) {
            return Err(format!("in <{name}: {key} twice, or with `<`"));
        }
        attributes.push((key.to_owned(), value.to_owned()));
        rest = after;
    }
}

/// Every `&` begins one of the five entities that XML knows.
fn check_text(text: &str) -> Result<(), String> {
    for (i, _) in text.match_indices('&') {
        if !["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"].iter().any(|entity| text[i..].starts_with(entity)) {
            return Err(format!("a bare & in {:?}", text[i..].chars().take(20).collect::<String>()));
        }
    }
    if text.contains('>') { Err("a bare >".to_owned()) } else { Ok(()) }
}

#[test]
fn the_reader_finds_what_is_wrong() {
    let page = |body: &str| read(&format!("<!DOCTYPE html>\n{body}"));
    assert!(page("<a><b c=\"d\"/><script>if (a < b && c) {}</script>&lt;</a>\n").is_ok());
    for bad in [
        "<a>",
        "<a></b></a>",
        "</a>",
        "<a b=c></a>",
        "<a b=\"1\" b=\"2\"></a>",
        "<a>&nbsp;</a>",
        "<a> > </a>",
        "<a></a>x",
        "<br>",
    ] {
        assert!(page(bad).is_err(), "{bad}");
    }
}
