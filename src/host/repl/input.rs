//! Where an input ends: what is still open in it, and how pasted or piped text falls into inputs.
//!
//! An input goes on while a bracket, a back-ticked or raw string or a block comment is open, and while Rhai's parser stops at
//! its end because something must follow (`let x =`, `fn f(x)`). Anything else that is wrong ends it: the error is shown at
//! once. Names are not looked at, so that this needs no variables.

use rhai::{Engine, OptimizationLevel, Position};

use crate::host::comments;
use crate::host::scan::{Open, Scan};

/// Tells whole inputs from those that go on.
pub struct Inputs(Engine);

impl Inputs {
    pub fn new() -> Self {
        let mut parser = Engine::new_raw();
        parser.set_optimization_level(OptimizationLevel::None);
        parser.set_max_expr_depths(64, 64); // As scripts have it, whether this build is a debug one or not.
        Self(parser)
    }

    /// Whether `text` parses; which names it uses does not matter.
    pub fn parses(&self, text: &str) -> bool {
        self.0.compile(comments::neutralize(text)).is_ok()
    }

    /// Whether `text` is one expression.
    pub fn is_expression(&self, text: &str) -> bool {
        self.0.compile_expression(text).is_ok()
    }

    /// Whether nothing must follow.
    pub fn is_complete(&self, text: &str) -> bool {
        let text = text.trim_start();
        if let Some(rest) = text.strip_prefix(":time ") {
            return self.is_complete(rest);
        }
        if is_command(text) {
            return true;
        }
        let scan = Scan::of(text);
        if scan.broken {
            return true;
        }
        if scan.open.iter().any(|(open, _)| *open != Open::LineComment) {
            // A string in quotes cannot go on; that error is for now.
            return matches!(scan.open.last(), Some((Open::Quote, _)));
        }
        let code = &text[..scan.code_end];
        match self.0.compile(comments::neutralize(code)) {
            Ok(_) => true,
            Err(err) => !lies_behind(code, err.1),
        }
    }

    /// The inputs that the lines of `text` are, with the line (from 0) at which each begins. Every line is in one of them.
    pub fn split(&self, text: &str) -> Vec<(usize, String)> {
        let lines: Vec<&str> = text.lines().collect();
        let mut inputs = Vec::new();
        let mut first = 0;
        for at in 0..lines.len() {
            let input = lines[first..=at].join("\n");
            let next = lines[at + 1..].iter().map(|line| line.trim()).find(|line| !line.is_empty());
            let last = at + 1 == lines.len();
            if last || self.is_complete(&input) && !next.is_some_and(|next| goes_on(&input, next)) {
                inputs.push((first, input));
                first = at + 1;
            }
        }
        inputs
    }
}

/// `:help` and the like.
pub fn is_command(text: &str) -> bool {
    text.trim_start()
        .strip_prefix(':')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '?'))
}

/// Whether `next`, the line behind a whole input, belongs to it: it can begin no statement.
fn goes_on(input: &str, next: &str) -> bool {
    const OPERATORS: [&str; 15] = [".", "?.", "+", "*", "/", "%", "==", "!=", "<", ">", "&&", "||", "??", "&", "^"];
    let scan = Scan::of(input);
    let code = &input[..scan.code_end];
    if code.is_empty() || is_command(code) || code.ends_with(';') {
        return false;
    }
    let word = next.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let is_comment = next.starts_with("//") || next.starts_with("/*");
    ["else", "catch"].contains(&word) || !is_comment && OPERATORS.iter().any(|operator| next.starts_with(operator))
}

/// Whether a parser's position is that of the end of `code`.
fn lies_behind(code: &str, position: Position) -> bool {
    let Some(line) = position.line() else { return true };
    let lines: Vec<&str> = code.split('\n').collect();
    let last = lines.last().map_or(0, |line| line.chars().count());
    line > lines.len() || line == lines.len() && position.position().is_none_or(|column| column > last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_goes_on_while_something_must_follow() {
        let inputs = Inputs::new();
        for open in [
            "let x =",
            "x +",
            "x.",
            "x = [1,",
            "f(1",
            "#{ a: 1",
            "fn f(x) {",
            "fn f(x)",
            "fn",
            "if a",
            "if a {",
            "while a",
            "if a { 1 } else",
            "do { 1 }",
            "for i in",
            "for i in 0..3",
            "`text",
            "`text ${ 1 +",
            "`a ${ #{ b: 1 }",
            "#\"raw",
            "##\"raw\"#",
            "/* a /* b */",
            "import \"a\" as",
            "switch x {",
            "try { 1 }",
            "let",
            ":time [1,",
            "return f(",
            "x[",
            "let x = 1; let y =",
            "nn::",
            "// about\nfn f() {",
            "1 + // plus",
            "const K =",
            "f(|x| x",
            "!",
            "throw (",
        ] {
            assert!(!inputs.is_complete(open), "{open}");
        }
        for whole in [
            "",
            "  ",
            "1",
            "let x = 1",
            "let x = 1;",
            "fn f(x) { x }",
            "if a { 1 }",
            "f(unknown)",
            "// only words",
            "1 // (",
            "\"a ( b\"",
            "'('",
            "'\\''",
            "`a ${ 1 } b`",
            "#\"raw ( \"#",
            "/* ( */ 1",
            "import \"a\" as b",
            "return",
            "loop { break }",
            ":help (",
            ":time 1",
            "x.y",
            "#{}",
            "[]",
            "/// about x\nlet x = 1",
            "\"a \\\" b\"",
            "a::b",
        ] {
            assert!(inputs.is_complete(whole), "{whole}");
        }
        // Wrong, and more lines would not help.
        for wrong in ["f(]", ")", "let 1 = 2", "\"no end", "f(\"no end", "x y", "let x = ;", "1 +* 2", "go"] {
            assert!(inputs.is_complete(wrong), "{wrong}");
        }
    }

    #[test]
    fn text_falls_into_inputs_by_lines() {
        let inputs = Inputs::new();
        let split = |text: &str| inputs.split(text).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(split("let a = 1\nlet b = 2;\n\na + b"), [0, 1, 2, 3]);
        assert_eq!(split("fn f(x) {\n  x\n}\nf(1)"), [0, 3]);
        assert_eq!(split("if a { 1 }\nelse { 2 }\n3"), [0, 2]);
        assert_eq!(split("x\n  .sum()\n  + 1\n-1\n"), [0, 3]);
        assert_eq!(split("x;\n+ 1"), [0, 1]);
        assert_eq!(split(":help f\n.x"), [0, 1]);
        assert_eq!(split("let a = [\n1,\n"), [0]);
        assert_eq!(split("1\n// about\n2"), [0, 1, 2]);
        assert!(split("").is_empty());
    }
}
