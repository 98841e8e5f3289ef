//! Errors of syntax in the words of the person who made the slip, and where that was: Rhai reports the place at which it could
//! not go on, which is often the line below.

use rhai::{LexError, ParseErrorType, Position};

use super::errors::Failure;
use super::scan::{self, Open, Scan};
use super::slips;

/// For a `#` that begins no map.
const HASH: &str = "comments begin with `//`, maps with `#{`";

/// What an error of parsing says, and where it belongs. `text` is the source.
pub fn explain(problem: &ParseErrorType, position: Position, text: &str) -> (Failure, Position) {
    let at = At::new(text, position);
    if problem.to_string().contains("'eval' is disabled") {
        let hint = "what varies can be a function, a closure or a parameter".to_owned();
        return (say("`eval` is switched off", hint), position);
    }
    let failure = match problem {
        ParseErrorType::MismatchedType(wanted, got) if wanted.contains("iterable") => {
            let hint = "numbers from 0 to n - 1 are `0..n`".to_owned();
            say(format!("`for` goes through a range, an array or steps, got {got}"), hint)
        }
        ParseErrorType::MissingToken(token, purpose) => return missing(token, purpose, &at, position),
        ParseErrorType::BadInput(LexError::UnterminatedString) => return unclosed_text(&at, position),
        ParseErrorType::BadInput(err) => bad_input(err, &at),
        ParseErrorType::UnexpectedEOF => say("the script ends in the middle of something", at.unclosed()),
        ParseErrorType::Reserved(word) if word == "#!" => {
            say("a script has no `#!` line", "leave it out: `dbp-host SCRIPT` runs it".to_owned())
        }
        ParseErrorType::Reserved(word) if word == "#" => say("`#` begins nothing here", HASH.to_owned()),
        ParseErrorType::Reserved(word) if !word.contains(char::is_alphanumeric) => {
            say(format!("there is no operator `{word}`"), at.of_another_language())
        }
        ParseErrorType::Reserved(word) => say(
            format!("'{word}' is a reserved keyword"),
            "Rhai keeps this word for itself; choose another name".to_owned(),
        ),
        ParseErrorType::UnknownOperator(operator) => {
            let hint = match operator.as_str() {
                "#" => Some(HASH),
                "++" => Some("write `i += 1`"),
                "--" => Some("write `i -= 1`"),
                "===" => Some("write `==`"),
                "!==" => Some("write `!=`"),
                _ => None,
            };
            let hint = hint.map(str::to_owned).or_else(|| at.of_another_language());
            say(format!("there is no operator `{operator}`"), hint)
        }
        ParseErrorType::DuplicatedProperty(key) => say(format!("the map has the key `{key}` twice"), None),
        ParseErrorType::FnDuplicatedParam(function, name) => {
            say(format!("{function}: two parameters are called `{name}`"), None)
        }
        ParseErrorType::FnDuplicatedDefinition(name, count) => {
            let params = match count {
                0 => "no parameters".to_owned(),
                1 => "1 parameter".to_owned(),
                n => format!("{n} parameters"),
            };
            let hint = "functions may share a name if they take different numbers of parameters".to_owned();
            say(format!("there are two functions `{name}` with {params}"), hint)
        }
        ParseErrorType::WrongFnDefinition => {
            let hint = "write it below, outside of all braces; inside, a closure does: `let f = |x| x + 1;`".to_owned();
            say("a function cannot stand inside a block or another function", hint)
        }
        ParseErrorType::FnMissingBody(name) if !name.is_empty() => {
            say(format!("{name}: expected the function's body, `{{ … }}`"), at.of_another_language())
        }
        ParseErrorType::AssignmentToConstant(name) if !name.is_empty() => {
            say(format!("`{name}` is a constant"), "declare it with `let` if it is to change".to_owned())
        }
        ParseErrorType::AssignmentToInvalidLHS(_) => {
            let hint = "left of `=` stands a variable, an element or a property; a comparison is `==`".to_owned();
            say("this cannot be set", hint)
        }
        ParseErrorType::LoopBreak => say("`break` and `continue` stand inside a loop", None),
        ParseErrorType::ExprTooDeep => {
            say("this is nested too deeply", "take a part of it into a variable or a function".to_owned())
        }
        ParseErrorType::PropertyExpected => say("expected the name of a property", at.of_another_language()),
        ParseErrorType::VariableExpected => say("expected the name of a variable", at.of_another_language()),
        ParseErrorType::FnMissingName => say("expected the name of the function", None),
        ParseErrorType::FnMissingParams(name) => say(format!("{name}: expected its parameters, `(…)`"), None),
        ParseErrorType::WrongExport => say("`export` stands outside of all braces", None),
        other => {
            let text = lower_first(&other.to_string());
            match text.as_str() {
                "possibly a typo of '=='?" => say("`=` sets a variable; a comparison is `==`", None),
                _ => say(text, at.of_another_language()),
            }
        }
    };
    (failure, position)
}

fn say(message: impl Into<String>, hint: impl Into<Option<String>>) -> Failure {
    Failure { hint: hint.into(), ..Failure::script(message) }
}

/// Text without its end, by the quote that opens it.
fn unclosed_text(at: &At, position: Position) -> (Failure, Position) {
    let what = "this text is never closed";
    let backtick = || say(what, "it ends with another backtick".to_owned());
    if at.rest().starts_with('`') {
        return (backtick(), position);
    }
    // Behind a `${…}` Rhai's place is in the middle of the text.
    match Scan::of(at.text).open.last() {
        Some((Open::Template, from)) => (backtick(), scan::position(at.text, *from).unwrap_or(position)),
        Some((Open::Raw(hashes), from)) => {
            let end = format!("it ends with `\"{}`", "#".repeat(*hashes));
            (say(what, end), scan::position(at.text, *from).unwrap_or(position))
        }
        _ => {
            let hint = "it ends with `\"` on its own line; text over several lines stands between backticks";
            (say(what, hint.to_owned()), position)
        }
    }
}

fn bad_input(err: &LexError, at: &At) -> Failure {
    match err {
        LexError::MalformedChar(text) => {
            say(format!("'{text}' is not one character"), format!("text stands in double quotes: \"{text}\""))
        }
        LexError::MalformedEscapeSequence(sequence) => {
            let hint = "known are \\n, \\t, \\r, \\\\, \\\" and \\u0041; a backslash itself is \\\\".to_owned();
            say(format!("text has no escape `{sequence}`"), hint)
        }
        LexError::UnexpectedInput(symbol) if symbol == "#" => say("`#` begins nothing here", HASH.to_owned()),
        LexError::UnexpectedInput(symbol) => say(format!("expected a value, got `{symbol}`"), at.of_another_language()),
        LexError::MalformedNumber(text) => say(format!("`{text}` is not a number"), None),
        LexError::ImproperSymbol(symbol, _) if symbol == "=" => say("`=` sets a variable; a comparison is `==`", None),
        LexError::ImproperSymbol(symbol, _) if symbol == "++" || symbol == "--" => {
            say(format!("there is no operator `{symbol}`"), format!("write `i {}= 1`", &symbol[..1]))
        }
        err => say(lower_first(&err.to_string()), None),
    }
}

/// What should have been there, said where it should have been.
fn missing(token: &str, purpose: &str, at: &At, position: Position) -> (Failure, Position) {
    if at.is_in_open_template() {
        return (say("this `${` is never closed", "it ends with `}`: `${x}`".to_owned()), at.template());
    }
    if token == ";" {
        if let Some(hint) = at.of_another_language() {
            return (say("expected `;` at the end of this statement", hint), position);
        }
        return match at.end_of_line_before() {
            // It is the first on its line: the line before it lacks its end.
            Some(place) => (say("expected `;` at the end of this statement", None), place),
            None => (say(format!("expected `;` before {}", at.here()), at.one_too_many()), position),
        };
    }
    let what = purpose.replace(" literal", "").replace("object map", "map").replace("this block", "the block");
    let what = what.replace("arguments to function call", "arguments of").replace("function '", "`").replace('\'', "`");
    let closing = match () {
        () if token != "," => None,
        () if what.contains("array") => Some("]"),
        () if what.contains("map") => Some("}"),
        () if what.contains("arguments") || what.contains("parameters of `") => Some(")"),
        () => None,
    };
    let what = match what.as_str() {
        what if what.contains("items of this array") => "in this array",
        what if what.contains("items of this map") => "in this map",
        what if what.starts_with("to separate the ") => what.strip_prefix("to separate ").unwrap_or(what),
        what if what.contains("in this index") => "behind the index",
        what if what.contains("( in this expression") => "behind the expression",
        "to terminate the block" => "at the end of the block",
        "to start a statement block" => "to begin a block",
        what => what,
    };
    let what = if what.starts_with("the ") { format!("in {what}") } else { what.to_owned() };
    let expected = match closing {
        Some(closing) => format!("`,` or `{closing}`"),
        None => format!("`{token}`"),
    };
    let hint = at.of_another_language().or_else(|| at.unclosed().filter(|_| at.is_end()));
    (say(format!("expected {expected} {what}, got {}", at.here()), hint), position)
}

/// A position in a text.
struct At<'a> {
    text: &'a str,
    /// From 0.
    line: usize,
    column: usize,
}

impl<'a> At<'a> {
    fn new(text: &'a str, position: Position) -> Self {
        let line = position.line().unwrap_or(1) - 1;
        Self { text, line, column: position.position().unwrap_or(1).max(1) - 1 }
    }

    fn source_line(&self) -> &'a str {
        self.text.lines().nth(self.line).unwrap_or_default()
    }

    /// The line from the position on.
    fn rest(&self) -> &'a str {
        let line = self.source_line();
        let from = line.char_indices().nth(self.column).map_or(line.len(), |(at, _)| at);
        &line[from..]
    }

    /// Whether nothing follows.
    fn is_end(&self) -> bool {
        self.rest().trim().is_empty() && self.text.lines().skip(self.line + 1).all(|line| line.trim().is_empty())
    }

    /// What stands there.
    fn here(&self) -> String {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return "the end of the script".into() };
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        let word: String =
            if in_word(first) { rest.chars().take_while(|c| in_word(*c)).collect() } else { first.into() };
        format!("`{word}`")
    }

    /// The line up to the position.
    fn before(&self) -> String {
        self.source_line().chars().take(self.column).collect()
    }

    /// Whether it stands in a `${` of a text, on its line, that should have ended before.
    fn is_in_open_template(&self) -> bool {
        let before = self.before();
        let open = before.rfind("${").map(|at| &before[at..]);
        open.is_some_and(|rest| !rest.contains('}') && before.matches('`').count() % 2 == 1)
    }

    /// Where that begins.
    fn template(&self) -> Position {
        let before = self.before();
        let column = before.rfind("${").map_or(self.column, |at| before[..at].chars().count()) + 1;
        let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Position::new(number(self.line + 1), number(column))
    }

    /// A closing bracket that closes nothing.
    fn one_too_many(&self) -> Option<String> {
        let bracket = self.rest().chars().next().filter(|c| matches!(c, ')' | ']' | '}'))?;
        Some(format!("there is a `{bracket}` too many, or what it closes was not opened or has ended before"))
    }

    /// Behind the last line that says something, if the position is the first thing on its own line.
    fn end_of_line_before(&self) -> Option<Position> {
        let before = self.source_line().chars().take(self.column);
        if !before.into_iter().all(char::is_whitespace) {
            return None;
        }
        let lines: Vec<&str> = self.text.lines().take(self.line).collect();
        let code = |line: &str| line.split("//").next().unwrap_or_default().trim_end().to_owned();
        let (at, line) =
            lines.iter().enumerate().rev().map(|(at, line)| (at, code(line))).find(|(_, line)| !line.is_empty())?;
        let number = |n: usize| u16::try_from(n).ok();
        Some(Position::new(number(at + 1)?, number(line.chars().count() + 1)?))
    }

    /// What habits from other languages make of what stands there.
    fn of_another_language(&self) -> Option<String> {
        slips::syntax(self.source_line(), self.rest())
    }

    /// Where a bracket may be that nothing closes: the last whose closing one stands under another.
    fn unclosed(&self) -> Option<String> {
        let mut open: Vec<(char, usize, usize)> = Vec::new();
        let mut suspect = None;
        for (at, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.split("//").next().unwrap_or_default();
            let mut in_text = false;
            for c in code.chars() {
                match c {
                    '"' => in_text = !in_text,
                    _ if in_text => {}
                    '{' | '(' | '[' => open.push((c, at + 1, indent)),
                    '}' | ')' | ']' => {
                        if let Some((opener, line, own)) = open.pop()
                            && c == '}'
                            && own != indent
                            && line != at + 1
                            && suspect.is_none()
                        {
                            suspect = Some((opener, line));
                        }
                    }
                    _ => {}
                }
            }
        }
        let (bracket, line) = suspect.or(open.last().map(|(c, line, _)| (*c, *line)))?;
        Some(format!("the `{bracket}` of line {line} seems not to be closed"))
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    // `Script` becomes `script`, `'x'` and `LR` stay.
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &text[first.len_utf8()..])
        }
        _ => text.to_owned(),
    }
}
