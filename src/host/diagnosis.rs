//! How an error looks: message, place, the source line with a caret, what would fix it, and who called.
//!
//! Rhai reports the outermost call; here the chain is followed to the innermost frame that has a place, and each step's
//! source is tracked, because a position alone does not say in which file it lies.

use std::borrow::Cow;
use std::fmt;

use rhai::{Engine, EvalAltResult, Position};

use super::captures;
use super::errors::{Failure, Kind};
use super::explain::explain;
use super::resolver::Library;
use super::sources::is_std;
use super::syntax;

/// `called from` lines shown at most.
const MAX_CALLERS: usize = 8;
/// Characters of a message at most: it may quote a text of the script.
const MAX_MESSAGE: usize = 2000;
/// Columns of a source line shown at most.
const MAX_WIDTH: usize = 100;
const TAB: usize = 4;

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// As [`super::resolver::Source::key`].
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
    pub fn of(mut err: EvalAltResult, library: &Library, engine: &Engine) -> Self {
        let mut source = library.store.script_key().to_owned();
        let mut places = Vec::new();
        loop {
            places.push((source.clone(), position_of(&err, &source, library)));
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
        if let EvalAltResult::ErrorDataRace(text, Position::NONE) = &err
            && let Some(position) = library.text(&source).and_then(|all| captures::place(text, &all))
        {
            places.push((source.clone(), position));
        }
        let mut places: Vec<Place> =
            places.into_iter().filter_map(|(key, position)| Place::new(library, &key, position)).rev().collect();
        places.dedup_by(|a, b| (a.line, &a.key) == (b.line, &b.key));
        let thrown_by_script =
            matches!(&err, EvalAltResult::ErrorRuntime(value, _) if !value.is::<Failure>()) && is_std(&source);
        let mut failure = explain(err, &source, library, engine);
        if let Some((at, _)) = failure.message.char_indices().nth(MAX_MESSAGE) {
            failure.message.truncate(at);
            failure.message.push('…');
        }
        // What a module of the program refuses is the caller's slip, and is shown there.
        if let Some(own) = places.iter().position(|place| !is_std(&place.key)).filter(|_| thrown_by_script) {
            places.drain(..own);
        }
        let place = (!places.is_empty()).then(|| places.remove(0));
        Self { place, callers: places, ..failure.into() }
    }
}

impl Place {
    /// `None` for a position that is none.
    pub(super) fn new(library: &Library, key: &str, position: Position) -> Option<Self> {
        let line = position.line()?;
        let text = library.text(key).and_then(|text| Some(text.lines().nth(line - 1)?.to_owned()));
        let (file, line) = library.store.shown_line(key, line);
        Some(Self {
            key: key.to_owned(),
            file,
            line,
            column: position.position().unwrap_or(0),
            text: text.unwrap_or_default(),
        })
    }
}

/// Where an error is, for people: an error of syntax may be where the line before ends.
fn position_of(err: &EvalAltResult, source: &str, library: &Library) -> Position {
    match err {
        EvalAltResult::ErrorParsing(problem, position) => {
            syntax::explain(problem, *position, &library.text(source).unwrap_or_default()).1
        }
        err => err.position(),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.draw("error", f)
    }
}

impl Diagnosis {
    /// Writes it as an `error`, a `warning` or a `note`.
    pub(super) fn draw(&self, word: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{word}: {}", self.message)?;
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
