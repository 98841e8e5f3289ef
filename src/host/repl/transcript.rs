//! All that was typed in a session, as one source: error places count its lines, runs save it as their script.
//!
//! What failed, and commands, stay in it as comments, so that lines keep their numbers and the rest can run again. An input
//! that a later one calls `it` gets the name it had then.

use super::input::Inputs;
use crate::host::scan::Scan;

/// The name of the last value.
pub const LAST: &str = "it";

#[derive(Default)]
pub struct Transcript {
    entries: Vec<Entry>,
}

struct Entry {
    /// As it stands in the source.
    text: String,
    good: bool,
    /// Whether a later input uses its value.
    named: bool,
}

impl Transcript {
    /// The line (from 1) at which the next input begins.
    pub fn next_line(&self) -> usize {
        1 + self.entries.iter().map(|entry| lines(&entry.text)).sum::<usize>()
    }

    /// An input that is about to run; [`Self::good`] or [`Self::failed`] says how it went. `last` is the entry that made the
    /// last value.
    pub fn begin(&mut self, text: &str, last: Option<usize>, inputs: &Inputs) {
        if let Some(entry) = last.and_then(|at| self.entries.get_mut(at))
            && !entry.named
            && mentions(text, LAST)
            && inputs.is_expression(code(&entry.text).trim_end_matches(';'))
        {
            entry.text = format!("let {LAST} = {}", entry.text);
            entry.named = true;
        }
        self.entries.push(Entry { text: text.trim_end().to_owned(), good: false, named: false });
    }

    /// The last input did what it should. Says which entry it is.
    pub fn good(&mut self) -> Option<usize> {
        let entry = self.entries.last_mut()?;
        entry.good = true;
        entry.text = ended(&entry.text);
        Some(self.entries.len() - 1)
    }

    /// The last input left nothing behind.
    pub fn failed(&mut self) {
        if let Some(entry) = self.entries.last_mut() {
            entry.text = commented(&entry.text);
        }
    }

    /// A line that is no input.
    pub fn note(&mut self, text: &str) {
        self.entries.push(Entry { text: commented(text), good: false, named: false });
    }

    /// Nothing that was good so far counts any longer.
    pub fn clear(&mut self) {
        for entry in &mut self.entries {
            if entry.good {
                entry.text = commented(&entry.text);
                entry.good = false;
            }
        }
    }

    /// The session as one source.
    pub fn source(&self) -> String {
        self.entries.iter().map(|entry| format!("{}\n", entry.text)).collect()
    }

    /// The good inputs alone, as a script.
    pub fn script(&self) -> String {
        self.entries.iter().filter(|entry| entry.good).map(|entry| format!("{}\n", entry.text)).collect()
    }
}

fn lines(text: &str) -> usize {
    text.lines().count().max(1)
}

/// Without space and comments at the end.
fn code(text: &str) -> &str {
    &text[..Scan::of(text).code_end]
}

/// With a `;` behind the last thing that is no comment.
fn ended(text: &str) -> String {
    let code = code(text);
    let rest = &text[code.len()..];
    if code.is_empty() || code.ends_with(';') { text.to_owned() } else { format!("{code};{rest}") }
}

fn commented(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(|line| format!("// {line}")).collect();
    if lines.is_empty() { "//".to_owned() } else { lines.join("\n") }
}

/// Whether the word `name` stands in `text`.
pub fn mentions(text: &str, name: &str) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_keeps_its_lines_and_does_not_run_again() {
        let (mut transcript, inputs) = (Transcript::default(), Inputs::new());
        let mut last = None;
        for (text, good) in [("let a = 1", true), ("f(\n1)", false), ("a + 1 // two", true), ("let b = it * it", true)]
        {
            transcript.begin(text, last, &inputs);
            if good {
                last = transcript.good();
            } else {
                transcript.failed();
            }
        }
        transcript.note(":vars");
        let want = "let a = 1;\n// f(\n// 1)\nlet it = a + 1; // two\nlet b = it * it;\n// :vars\n";
        assert_eq!(transcript.source(), want);
        assert_eq!(transcript.next_line(), 7);
        assert_eq!(transcript.script(), "let a = 1;\nlet it = a + 1; // two\nlet b = it * it;\n");
        transcript.clear();
        assert_eq!((transcript.script(), transcript.next_line()), (String::new(), 7));
    }
}
