//! A function that uses the very value it is given to, as in `net.forward = |m, x| net.fc.forward(x)`. Rhai notices when the
//! value is changed and used at once, in words of its own and without a place: both are mended here.

use rhai::Position;

use super::errors::Failure;

/// What is wrong, in our words; `text` is Rhai's, like `argument #1 of function 'set$forward'`.
pub fn explain(text: &str) -> Failure {
    let function = function(text).unwrap_or("this call");
    let name = property(function).unwrap_or(function);
    Failure::script(format!("{name}: the function uses the value that it is given to"))
        .with_hint("it gets that value as its first argument: use it, as in |m, x| m.…")
}

/// The place of the first `value.property = |…| …`, or `value.method(|…| …)`, in a source whose function uses `value`.
pub fn place(text: &str, source: &str) -> Option<Position> {
    let function = function(text)?;
    let (name, before) = property(function).map_or((function, '('), |property| (property, '='));
    let dotted = format!(".{name}");
    for (at, _) in source.match_indices(&dotted) {
        let after = source[at + dotted.len()..].trim_start();
        let Some(body) = after.strip_prefix(before).map(str::trim_start).filter(|body| body.starts_with('|')) else {
            continue;
        };
        let value = source[..at].rsplit(|c: char| !is_word(c)).next().unwrap_or_default();
        if !value.is_empty() && uses(statement(body), value) {
            let before = &source[..=at];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            return Some(Position::new(line.try_into().ok()?, column.try_into().ok()?));
        }
    }
    None
}

fn function(text: &str) -> Option<&str> {
    text.split_once("of function '")?.1.strip_suffix('\'')
}

fn property(function: &str) -> Option<&str> {
    function.strip_prefix("set$")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Up to the semicolon that ends it.
fn statement(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth > 0 => depth -= 1,
            ';' | ')' | '}' if depth <= 0 => return &text[..at],
            _ => {}
        }
    }
    text
}

/// Whether `name` is a word of the text and no property.
fn uses(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_that_uses_its_owner_is_found() {
        let source =
            "net.forward = |m, x| m.net.forward(x);\nlet a = 1; net.forward = |m, x| {\n  let y = net.fc; y };\n";
        let text = "argument #1 of function 'set$forward'";
        assert_eq!(place(text, source), Some(Position::new(2, 16)));
        assert_eq!(place(text, "net.forward = |m, x| m.fc.forward(x); net.x"), None);
        let source = "run.untimed(|r| validate(r));\nrun.untimed(|r| run.step);";
        assert_eq!(place("argument #1 of function 'untimed'", source), Some(Position::new(2, 5)));
        assert!(explain(text).message.starts_with("forward: "));
    }
}
