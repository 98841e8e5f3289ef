//! How an error looks: message, place, the source line with a caret, what would fix it, and who called.
//!
//! Rhai reports the outermost call; here the chain is followed to the innermost frame that has a place, and each step's
//! source is tracked, because a position alone does not say in which file it lies.

use std::borrow::Cow;
use std::fmt;

use rhai::{Dynamic, Engine, EvalAltResult, Map, ParseErrorType, Position};

use super::errors::{Failure, Kind, Stop};
use super::reference::{Reference, Role};
use super::session::Session;
use super::suggest::did_you_mean;

/// `called from` lines shown at most.
const MAX_CALLERS: usize = 8;
/// Signatures in a hint at most.
const MAX_SIGNATURES: usize = 4;
/// Columns of a source line shown at most.
const MAX_WIDTH: usize = 100;
const TAB: usize = 4;

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As [`super::session::Source::key`].
    pub key: String,
    /// As messages name the source.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters; 0 if only the line is known.
    pub column: usize,
    /// The source line.
    pub text: String,
}

/// An error with everything there is to say about it.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
    pub place: Option<Place>,
    /// The calls that led there, innermost first.
    pub callers: Vec<Place>,
}

impl From<Failure> for Diagnosis {
    fn from(err: Failure) -> Self {
        Self { kind: err.kind, message: err.message, hint: err.hint, place: None, callers: Vec::new() }
    }
}

impl Diagnosis {
    pub fn of(mut err: EvalAltResult, session: &Session, engine: &Engine) -> Self {
        let mut source = session.library.store.script_key().to_owned();
        let mut places = Vec::new();
        loop {
            places.push((source.clone(), err.position()));
            match err {
                EvalAltResult::ErrorInFunctionCall(_, callee, inner, _) => {
                    if !callee.is_empty() {
                        source = callee;
                    }
                    err = *inner;
                }
                EvalAltResult::ErrorInModule(key, inner, _) => {
                    source = key;
                    err = *inner;
                }
                _ => break,
            }
        }
        let mut places: Vec<Place> =
            places.into_iter().filter_map(|(key, position)| Place::new(session, &key, position)).rev().collect();
        places.dedup_by(|a, b| (a.line, &a.key) == (b.line, &b.key));
        let failure = explain(err, &source, session, engine);
        let place = (!places.is_empty()).then(|| places.remove(0));
        Self { place, callers: places, ..failure.into() }
    }
}

impl Place {
    fn new(session: &Session, key: &str, position: Position) -> Option<Self> {
        let line = position.line()?;
        let text = session.source_text(key).and_then(|text| Some(text.lines().nth(line - 1)?.to_owned()));
        Some(Self {
            key: key.to_owned(),
            file: session.library.store.shown(key),
            line,
            column: position.position().unwrap_or(0),
            text: text.unwrap_or_default(),
        })
    }
}

/// The error itself in words, with a hint where one can be found.
fn explain(mut err: EvalAltResult, source: &str, session: &Session, engine: &Engine) -> Failure {
    let names = || declared_names(&session.source_text(source).unwrap_or_default());
    let script = |text: String| Failure::script(text);
    match &err {
        EvalAltResult::ErrorRuntime(value, _) => thrown(value),
        EvalAltResult::ErrorTerminated(token, _) => match token.clone().try_cast::<Stop>() {
            Some(Stop::Failed(failure)) => failure,
            Some(Stop::Interrupted) | None => script("the script was stopped".into()),
        },
        EvalAltResult::ErrorFunctionNotFound(signature, _) => unknown_function(signature, source, session, engine),
        EvalAltResult::ErrorVariableNotFound(name, _) => {
            with_near(script(format!("unknown variable: {name}")), name, &names())
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            let words = words(&session.source_text(source).unwrap_or_default());
            with_near(script(format!("the map has no entry `{name}`")), name, &words)
        }
        EvalAltResult::ErrorDotExpr(text, _) => match unknown_property(text) {
            Some((name, owner)) => {
                let known = function_names(engine, |name| name.strip_prefix("get$").map(str::to_owned));
                with_near(script(format!("{owner} has no property `{name}`")), name, &known)
            }
            None => script(text.clone()),
        },
        EvalAltResult::ErrorModuleNotFound(name, _) => {
            with_near(script(format!("unknown module: {name}")), name, &module_names(engine, names()))
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            script(format!("functions call each other too deeply (limit {})", engine.max_call_levels()))
                .with_hint("a function that calls itself needs a case in which it does not")
        }
        EvalAltResult::ErrorParsing(ParseErrorType::VariableUndefined(name), _) => {
            let hint = "functions see no variables from outside; hand them over as arguments";
            let failure = with_near(script(format!("unknown variable: {name}")), name, &names());
            if module_names(engine, Vec::new()).contains(name) {
                return failure.with_hint(format!("`{name}` holds functions, which are called as `{name}::…`"));
            }
            if names().contains(name) { failure.with_hint(hint) } else { failure }
        }
        EvalAltResult::ErrorParsing(ParseErrorType::ModuleUndefined(name), _) => {
            with_near(script(format!("unknown module: {name}")), name, &module_names(engine, names()))
        }
        EvalAltResult::ErrorParsing(problem, _) => {
            let text = problem.to_string();
            let failure = script(text.clone());
            if text.contains("is a reserved") {
                failure.with_hint("Rhai keeps this word for itself; choose another name")
            } else {
                failure
            }
        }
        EvalAltResult::ErrorMismatchDataType(wanted, got, _)
        | EvalAltResult::ErrorMismatchOutputType(wanted, got, _) => {
            let (wanted, got) = (readable_types(wanted, engine), readable_types(got, engine));
            let failure = script(format!("expected {wanted}, got {got}"));
            match (wanted.as_str(), got.as_str()) {
                ("bool", "Tensor") => {
                    failure.with_hint("comparisons of tensors are elementwise: end with .all(), .any() or .item()")
                }
                _ => failure,
            }
        }
        _ => {
            err.clear_position();
            script(readable_types(&err.to_string(), engine))
        }
    }
}

/// The message of `throw value`.
fn thrown(value: &Dynamic) -> Failure {
    if let Some(failure) = value.clone().try_cast::<Failure>() {
        return failure;
    }
    // What `catch` makes of Rhai's own errors, thrown again.
    let message = value.read_lock::<Map>().and_then(|map| map.get("message").map(ToString::to_string));
    let message = message.unwrap_or_else(|| value.to_string());
    Failure::script(if message.is_empty() { "the script threw an error without a message".into() } else { message })
}

fn with_near(failure: Failure, name: &str, names: &[String]) -> Failure {
    Failure { hint: did_you_mean(name, names.iter().map(String::as_str)).or(failure.hint), ..failure }
}

/// Rhai's text for a getter that is missing, taken apart: property and type.
fn unknown_property(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = text.strip_prefix("Unknown property '")?.split_once('\'')?;
    let owner = rest.split_once("for type '")?.1.split('\'').next()?;
    Some((name, owner))
}

/// `signature` is Rhai's, like `tensor::zeros (int, map)`.
fn unknown_function(signature: &str, source: &str, session: &Session, engine: &Engine) -> Failure {
    let signature = readable_types(signature, engine);
    let full = signature.split(" (").next().unwrap_or(&signature);
    let arguments = signature.strip_prefix(full).unwrap_or("").trim_start();
    if rhai_names_closure(full) {
        let failure = Failure::script(format!("the function given cannot be called with {arguments}"));
        return failure.with_hint("it takes another number of arguments: compare what stands between its bars");
    }
    let mut known = signatures(engine);
    known.extend(session.library.functions(source));
    let mut same: Vec<&[String]> =
        known.iter().filter(|(name, _)| name == full).map(|(_, params)| params.as_slice()).collect();
    if same.is_empty() {
        let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
        let hint = did_you_mean(full, names);
        return Failure { hint, ..Failure::script(format!("unknown function: {full}{arguments}")) };
    }
    let failure = Failure::script(format!("wrong arguments: {full}{arguments}"));
    if !full.contains(char::is_alphanumeric) {
        return failure; // An operator.
    }
    // Of functions that share a name, those for the first argument's type are meant.
    let first = arguments.trim_matches(['(', ')']).split(", ").next().unwrap_or_default();
    let fits = |params: &[String]| params.first().is_some_and(|param| param.ends_with(&format!(": {first}")));
    if same.iter().any(|params| fits(params)) {
        same.retain(|params| fits(params));
    }
    let mut written: Vec<String> = same.iter().map(|params| format!("{full}({})", params.join(", "))).collect();
    written.sort_unstable_by_key(|text| (text.matches(", ").count(), text.clone()));
    written.dedup();
    let more = if written.len() > MAX_SIGNATURES { " …" } else { "" };
    written.truncate(MAX_SIGNATURES);
    failure.with_hint(format!("it takes {}{more}", written.join(" or ")))
}

/// Rhai's names for functions written as `|x| …`.
fn rhai_names_closure(name: &str) -> bool {
    name.starts_with("anon$")
}

/// Every native function: qualified name and parameters.
fn signatures(engine: &Engine) -> Vec<(String, Vec<String>)> {
    let called =
        Reference::of(engine).functions.into_iter().filter(|f| matches!(f.role, Role::Function | Role::Operator));
    called.map(|f| (f.full_name(), f.params.iter().map(ToString::to_string).collect())).collect()
}

/// Types in Rhai's messages as a script's author knows them.
fn readable_types(text: &str, engine: &Engine) -> String {
    let text = text.replace("&str | ImmutableString | String", "string");
    let mut readable = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !in_path(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(if end == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { end });
        let is_type = matches!(word, "i64" | "f64") || word.starts_with(concat!(env!("CARGO_CRATE_NAME"), "::"));
        readable.push_str(if is_type { engine.map_type_name(word) } else { word });
        rest = after;
    }
    readable
}

fn function_names(engine: &Engine, pick: impl Fn(&str) -> Option<String> + Copy) -> Vec<String> {
    engine.collect_fn_metadata(None, |info| pick(&info.metadata.name), true)
}

fn module_names(engine: &Engine, mut names: Vec<String>) -> Vec<String> {
    let spaces = engine.collect_fn_metadata(None, |info| Some(info.namespace.to_string()), false);
    names.extend(spaces.into_iter().filter(|name| !name.is_empty()));
    names
}

/// All identifiers of a source.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_')).map(str::to_owned).collect()
}

/// Identifiers that a source declares: variables, loop variables, parameters, imports.
fn declared_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        let words = words(line);
        for pair in words.windows(2) {
            if matches!(pair[0].as_str(), "let" | "const" | "for" | "as") {
                names.push(pair[1].clone());
            }
        }
        let parameters = line
            .split_once("fn ")
            .and_then(|(_, rest)| rest.split_once('('))
            .and_then(|(_, rest)| rest.split_once(')'));
        let closure = line.split_once('|').and_then(|(_, rest)| rest.split_once('|'));
        for (list, _) in [parameters, closure].into_iter().flatten() {
            names.extend(self::words(list));
        }
    }
    names
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(place) = &self.place {
            let number = place.line.to_string();
            let margin = " ".repeat(number.len());
            write!(f, "\n{margin}--> {}:{}", place.file, place.line)?;
            if place.column > 0 {
                write!(f, ":{}", place.column)?;
            }
            let (text, caret) = excerpt(&place.text, place.column);
            write!(f, "\n{margin} |\n{number} | {text}\n{margin} |")?;
            if place.column > 0 {
                write!(f, " {}^", " ".repeat(caret))?;
            }
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        for caller in self.callers.iter().take(MAX_CALLERS) {
            write!(f, "\ncalled from {}:{}", caller.file, caller.line)?;
        }
        match self.callers.len().saturating_sub(MAX_CALLERS) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

/// The part of a source line around `column` (from 1) that fits, tabs as spaces, and how far right the caret stands.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    // A line may be a whole file: only what could be shown is measured.
    let first = column.saturating_sub(1 + MAX_WIDTH);
    let clipped = line.chars().skip(first).take(3 * MAX_WIDTH);
    let cells: Vec<(Cow<'static, str>, usize)> = clipped.map(cell).collect();
    let cut = line.chars().nth(first + 3 * MAX_WIDTH).is_some();
    let at = column.saturating_sub(1 + first).min(cells.len());
    let width = |cells: &[(Cow<str>, usize)]| cells.iter().map(|(_, width)| width).sum::<usize>();
    // Whole lines where they fit; otherwise a window with the caret in its middle.
    let (mut from, mut to) = (0, cells.len());
    if width(&cells) > MAX_WIDTH {
        while width(&cells[from..at]) > MAX_WIDTH / 2 {
            from += 1;
        }
        while width(&cells[from..to]) > MAX_WIDTH {
            to -= 1;
        }
    }
    let mut text: String = cells[from..to].iter().map(|(text, _)| text.as_ref()).collect();
    let mut caret = width(&cells[from..at.min(to)]);
    if from + first > 0 {
        text.insert(0, '…');
        caret += 1;
    }
    if to < cells.len() || cut {
        text.push('…');
    }
    (text.trim_end().to_owned(), caret)
}

/// A character as it is shown, and how many columns it takes in a terminal.
fn cell(c: char) -> (Cow<'static, str>, usize) {
    match c as u32 {
        0x09 => (" ".repeat(TAB).into(), TAB),
        0..0x20 | 0x7f..0xa0 => (" ".into(), 1),
        // Combining marks, joiners, variation selectors.
        0x300..=0x36f | 0x200b..=0x200f | 0xfe00..=0xfe0f | 0x1ab0..=0x1aff | 0x20d0..=0x20ff => {
            (c.to_string().into(), 0)
        }
        // East Asian wide and full-width forms, emoji.
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1f64f
        | 0x1f900..=0x1f9ff
        | 0x20000..=0x3fffd => (c.to_string().into(), 2),
        _ => (c.to_string().into(), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_what_they_mean() {
        assert_eq!(excerpt("\tlet x = y;", 10), ("    let x = y;".into(), 12));
        assert_eq!(excerpt("let s = \"日本\"; f()", 15), ("let s = \"日本\"; f()".into(), 16));
        let long = format!("{}f(){}", "a".repeat(500), "b".repeat(500));
        let (text, caret) = excerpt(&long, 501);
        assert_eq!(text.chars().nth(caret), Some('f'));
        assert!(text.chars().count() <= MAX_WIDTH + 2);
        assert_eq!(excerpt("short", 99), ("short".into(), 5));
    }

    #[test]
    fn a_rendered_error_reads_from_the_message_down() {
        let place =
            Place { key: "a.rhai".into(), file: "lib/a.rhai".into(), line: 12, column: 3, text: "  f(x)".into() };
        let caller = Place { line: 40, ..place.clone() };
        let err = Diagnosis {
            kind: Kind::Script,
            message: "unknown function: f(int)".into(),
            hint: Some("did you mean `g`?".into()),
            place: Some(place),
            callers: vec![caller],
        };
        let want = "error: unknown function: f(int)\n  --> lib/a.rhai:12:3\n   |\n12 |   f(x)\n   |   ^\n\
            hint: did you mean `g`?\ncalled from lib/a.rhai:40";
        assert_eq!(err.to_string(), want);
    }
}
