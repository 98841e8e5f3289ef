//! Doc comments before anything but a function are parse errors in Rhai; people write them all the same.
//!
//! [`neutralize`] turns such comments into plain ones of equal length, so that every position stays as it was.

/// `text` with `///` and `/** */` made plain wherever no function follows.
pub fn neutralize(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut scan = Scanner { bytes: text.as_bytes(), at: 0, templates: Vec::new(), depth: 0 };
    while let Some((start, end)) = scan.next_comment() {
        let third = start + 2;
        let is_doc = match &text.as_bytes()[start..end] {
            [b'/', b'/', b'/', rest @ ..] => rest.first() != Some(&b'/'),
            [b'/', b'*', b'*', rest @ ..] => !matches!(rest.first(), Some(b'*' | b'/')),
            _ => false,
        };
        if is_doc && !function_follows(text, end) {
            bytes[third] = b' ';
        }
    }
    String::from_utf8(bytes).expect("only ASCII was replaced by ASCII")
}

/// What `text` says to the machine: without comments and empty lines.
pub fn without(text: &str) -> String {
    let mut scan = Scanner { bytes: text.as_bytes(), at: 0, templates: Vec::new(), depth: 0 };
    let (mut code, mut end) = (String::with_capacity(text.len()), 0);
    while let Some((start, after)) = scan.next_comment() {
        code.push_str(&text[end..start]);
        code.push(' '); // `a/**/b` is two words.
        end = after.min(text.len());
    }
    code.push_str(&text[end..]);
    code.lines().map(str::trim_end).filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

/// Where a block comment begins that is never closed: line and column, from 1. Rhai would take the rest of the script for one.
pub fn unclosed(text: &str) -> Option<(usize, usize)> {
    let mut scan = Scanner { bytes: text.as_bytes(), at: 0, templates: Vec::new(), depth: 0 };
    while let Some((start, end)) = scan.next_comment() {
        if end >= text.len() && text[start..].starts_with("/*") && !is_closed(&text[start..]) {
            let before = &text[..start];
            let line = before.rsplit('\n').next().unwrap_or_default();
            return Some((before.matches('\n').count() + 1, line.chars().count() + 1));
        }
    }
    None
}

/// Whether a block comment ends; they nest.
fn is_closed(comment: &str) -> bool {
    comment.matches("/*").count() <= comment.matches("*/").count()
}

/// Whether the next thing behind `at` that is neither space nor comment is a function.
fn function_follows(text: &str, at: usize) -> bool {
    let mut scan = Scanner { bytes: text.as_bytes(), at, templates: Vec::new(), depth: 0 };
    scan.skip_space();
    while scan.starts_with(b"//") || scan.starts_with(b"/*") {
        scan.next_comment();
        scan.skip_space();
    }
    let rest = &text[scan.at.min(text.len())..];
    ["fn", "private"]
        .iter()
        .any(|word| rest.strip_prefix(word).is_some_and(|rest| rest.starts_with(char::is_whitespace)))
}

/// Finds comments, stepping over strings of all kinds and over code inside `${…}`.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Brace depths at which the open template strings continue.
    templates: Vec<usize>,
    depth: usize,
}

impl Scanner<'_> {
    fn starts_with(&self, what: &[u8]) -> bool {
        self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(what))
    }

    fn skip_space(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// The next comment's range, without the line break that ends a line comment.
    fn next_comment(&mut self) -> Option<(usize, usize)> {
        while let Some(&byte) = self.bytes.get(self.at) {
            let start = self.at;
            if self.starts_with(b"//") {
                while self.bytes.get(self.at).is_some_and(|&byte| byte != b'\n') {
                    self.at += 1;
                }
                return Some((start, self.at));
            }
            if self.starts_with(b"/*") {
                self.skip_block_comment();
                return Some((start, self.at));
            }
            self.at += 1;
            match byte {
                b'"' | b'\'' => self.skip_quoted(byte),
                b'`' => self.skip_template(),
                b'#' => self.skip_raw_string(),
                b'{' => self.depth += 1,
                b'}' if self.templates.last() == Some(&self.depth) => {
                    self.templates.pop();
                    self.skip_template();
                }
                b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        None
    }

    fn skip_block_comment(&mut self) {
        let mut open = 0;
        while self.at < self.bytes.len() {
            if self.starts_with(b"/*") {
                open += 1;
                self.at += 2;
            } else if self.starts_with(b"*/") {
                open -= 1;
                self.at += 2;
                if open == 0 {
                    return;
                }
            } else {
                self.at += 1;
            }
        }
    }

    fn skip_quoted(&mut self, quote: u8) {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == quote || byte == b'\n' {
                return;
            }
        }
    }

    fn skip_template(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.starts_with(b"``") {
                self.at += 2;
            } else if self.starts_with(b"${") {
                self.at += 2;
                self.templates.push(self.depth);
                return;
            } else {
                self.at += 1;
                if byte == b'`' {
                    return;
                }
            }
        }
    }

    /// `#"…"#`, with any number of `#`; the first one is behind us.
    fn skip_raw_string(&mut self) {
        let hashes = 1 + self.bytes[self.at..].iter().take_while(|&&byte| byte == b'#').count();
        let quote = self.at + hashes - 1;
        if self.bytes.get(quote) != Some(&b'"') {
            return;
        }
        self.at = quote + 1;
        let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        while self.at < self.bytes.len() && !self.starts_with(&end) {
            self.at += 1;
        }
        self.at = (self.at + end.len()).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::{neutralize, unclosed};

    #[test]
    fn comments_that_never_end_are_found() {
        assert_eq!(unclosed("let a = 1;\n  /* one\n/* two */"), Some((2, 3)));
        for closed in ["/* one /* two */ */", "let a = \"/*\";", "// /*", "/**/"] {
            assert_eq!(unclosed(closed), None, "{closed}");
        }
    }

    #[test]
    fn only_comments_before_other_things_than_functions_change() {
        assert_eq!(neutralize("/// x\nlet a = 1;"), "//  x\nlet a = 1;");
        assert_eq!(neutralize("/** x */ let a = 1;"), "/*  x */ let a = 1;");
        for same in [
            "/// about f\n/// more\n\nfn f() {}",
            "/** f */ private fn f() {}",
            "/**/ let a = 1;",
            "//// rule\nlet a = 1;",
            "let a = \"/// text\";",
            "let a = `/// ${ `/// ${1}` } ///`;",
            "let a = #\"/// \"#;",
            "let a = '\\''; let b = \"\\\"/// \";",
        ] {
            assert_eq!(neutralize(same), same);
        }
        assert_eq!(neutralize("let a = `${ #{ b: 1 } /// c\n}`;"), "let a = `${ #{ b: 1 } //  c\n}`;");
    }
}
