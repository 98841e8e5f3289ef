//! The line editor of a terminal: completion, multi-line input, what was typed before.

use std::borrow::Cow;
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use rustyline::completion::{Candidate as Listed, Completer};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{ColorMode, CompletionType, Config, Context, EditMode, Editor as Line, Helper};

use super::complete::{Candidate, complete, hint};
use super::state::State;
use crate::host::errors::Failure;

const PROMPT: &str = "dbp> ";
/// Inputs that are remembered.
const HISTORY: usize = 2000;

/// What a person typed.
pub enum Typed {
    Text(String),
    /// Ctrl-C: the line is dropped.
    Dropped,
    /// Ctrl-D, or the terminal is gone.
    End,
}

pub struct Editor {
    line: Line<Assistant, DefaultHistory>,
    /// `None` where there is no place for it.
    history: Option<PathBuf>,
    colors: bool,
}

impl Editor {
    /// # Errors
    /// If the terminal cannot be used.
    pub fn new(state: &Rc<RefCell<State>>, colors: bool) -> Result<Self, Failure> {
        let failed = |err: ReadlineError| Failure::machine(format!("cannot read from the terminal: {err}"));
        let config = Config::builder()
            .max_history_size(HISTORY)
            .map_err(failed)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .edit_mode(EditMode::Emacs)
            .color_mode(if colors { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let mut line = Line::with_config(config).map_err(failed)?;
        line.set_helper(Some(Assistant { state: Rc::clone(state), colors }));
        let history = history_file();
        if let Some(file) = &history {
            // A first session has none; a file that cannot be read is no reason not to start.
            let _ = line.load_history(file);
        }
        Ok(Self { line, history, colors })
    }

    /// # Errors
    /// If the terminal fails.
    pub fn read(&mut self) -> Result<Typed, Failure> {
        let styled = if self.colors { format!("\x1b[1;32m{PROMPT}\x1b[0m") } else { PROMPT.to_owned() };
        match self.line.readline(&(PROMPT, styled)) {
            Ok(text) => {
                self.remember(&text);
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Dropped),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(ReadlineError::Io(err)) if err.raw_os_error() == Some(5) => Ok(Typed::End), // EIO: it hung up.
            Err(err) => Err(Failure::machine(format!("cannot read from the terminal: {err}"))),
        }
    }

    /// Writes every input at once, so that none is lost; a disk that refuses is no reason to stop.
    fn remember(&mut self, text: &str) {
        let added = self.line.add_history_entry(text.trim_end()).unwrap_or(false);
        if let (true, Some(file)) = (added, &self.history) {
            let _ = self.line.append_history(file);
        }
    }
}

/// Where inputs are kept, by the XDG base directories; its folder is made.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    let folder = state.join("dbp-host");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("repl-history"))
}

/// Helps while a line is typed. The state is not borrowed then: inputs run between two lines.
struct Assistant {
    state: Rc<RefCell<State>>,
    colors: bool,
}

impl Helper for Assistant {}

impl Listed for Candidate {
    fn display(&self) -> &str {
        &self.shown
    }

    fn replacement(&self) -> &str {
        &self.text
    }
}

impl Completer for Assistant {
    type Candidate = Candidate;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Candidate>)> {
        let Ok(state) = self.state.try_borrow() else { return Ok((at, Vec::new())) };
        Ok(complete(&state, line, at))
    }
}

impl Validator for Assistant {
    fn validate(&self, ctx: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let complete = self.state.try_borrow().map_or(true, |state| state.inputs.is_complete(ctx.input()));
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Text behind the cursor that is not put in.
struct Shown(String);

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Shown;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<Shown> {
        // Without colors it could not be told from what was typed.
        if !self.colors || at < line.len() {
            return None;
        }
        hint(&*self.state.try_borrow().ok()?, line).map(Shown)
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.colors { Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }
}
