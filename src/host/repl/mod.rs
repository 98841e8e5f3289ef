//! `dbp-host repl`: tensors at a prompt.
//!
//! With a terminal, a line editor asks for inputs one by one and errors are shown; without one, all of standard input is run
//! statement by statement, and the first error ends it. The session lives on the script's thread, and every input is
//! guarded, so that a panic costs that input only.

use std::cell::RefCell;
use std::io::{IsTerminal, Read, stderr, stdin, stdout};
use std::rc::Rc;

use commands::Then;
use editor::{Editor, Typed};
use state::State;

use super::device::DeviceChoice;
use super::errors::Failure;
use super::say::{print_line, say};
use super::session::Options;
use super::{Outcome, begin, on_script_thread, report, signals};

mod commands;
mod complete;
mod editor;
mod help;
mod input;
mod kinds;
mod show;
mod state;
mod timing;
mod transcript;

/// Runs `dbp-host repl` on `device`. Returns the exit code.
pub fn repl(mut options: Options, device: DeviceChoice) -> i32 {
    signals::install_for_prompt();
    let begun = device.resolve().and_then(|device| {
        options.device = device;
        begin(&mut options)
    });
    if let Err(err) = begun {
        return report(&err.into());
    }
    let outcome = on_script_thread(move || {
        let state = match State::new(options) {
            Ok(state) => Rc::new(RefCell::new(state)),
            Err(err) => return err.into(),
        };
        let session = Rc::clone(&state.borrow().session);
        let outcome = match stdin().is_terminal() && stdout().is_terminal() {
            true => converse(&state).unwrap_or_else(Outcome::from),
            false => read_all(&mut state.borrow_mut()),
        };
        match (session.runs.finish(&session, &outcome), &outcome) {
            (Err(err), Outcome::Done) => err.into(),
            _ => outcome,
        }
    });
    report(&outcome)
}

/// Asks until the person has enough, or a signal ends it.
fn converse(state: &Rc<RefCell<State>>) -> Result<Outcome, Failure> {
    let colors = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    say(&greeting(&state.borrow()));
    let mut editor = Editor::new(state, colors)?;
    loop {
        let text = match editor.read()? {
            Typed::Text(text) => text,
            Typed::Dropped => continue,
            Typed::End => return Ok(Outcome::Done),
        };
        let mut state = state.borrow_mut();
        for input in inputs(&state, &text) {
            match answer(&mut state, &input) {
                Ok(Then::GoOn) => {}
                Ok(Then::Quit) => return Ok(Outcome::Done),
                Err(outcome) if signals::ending() => return Ok(outcome),
                Err(Outcome::Interrupted) if state.explained => break,
                Err(outcome) => {
                    if let Some(text) = described(&outcome, colors) {
                        say(&text);
                    }
                    break;
                }
            }
        }
    }
}

/// Runs all of standard input; the first error ends it.
fn read_all(state: &mut State) -> Outcome {
    let mut text = String::new();
    if let Err(err) = stdin().read_to_string(&mut text) {
        return Failure::usage(format!("cannot read standard input: {err}")).into();
    }
    for (_, input) in state.inputs.split(&text) {
        match answer(state, &input) {
            Ok(Then::GoOn) => {}
            Ok(Then::Quit) => break,
            Err(outcome) => return outcome,
        }
    }
    Outcome::Done
}

/// What was typed as inputs: one if it can be read as one, else, as pasted lines may be, several.
fn inputs(state: &State, text: &str) -> Vec<String> {
    if input::is_command(text) || !text.trim_end().contains('\n') || state.inputs.parses(text) {
        return vec![text.to_owned()];
    }
    state.inputs.split(text).into_iter().map(|(_, input)| input).collect()
}

/// Runs one input or command, and prints what it is.
fn answer(state: &mut State, input: &str) -> Result<Then, Outcome> {
    let word = input.trim().trim_end_matches("()");
    if input.trim().is_empty() {
        state.note("");
        return Ok(Then::GoOn);
    }
    if input::is_command(input) {
        return commands::run(state, input);
    }
    // What people type before they have read how it is called here.
    if ["help", "quit", "exit"].contains(&word) && state.scope.get(word).is_none() {
        return commands::run(state, &format!(":{word}"));
    }
    let value = state.evaluate(input)?;
    let text = state.guarded(|state| Ok(show::full(state, &value)))?;
    if let Some(text) = text {
        print_line(&text);
    }
    Ok(Then::GoOn)
}

fn greeting(state: &State) -> String {
    let device = match state.session.options.device {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let (own, libtorch) = (env!("CARGO_PKG_VERSION"), env!("DBP_LIBTORCH_VERSION"));
    format!("dbp-host {own}, libtorch {libtorch}, {device}. :help says what there is, Tab completes, Ctrl-D ends.")
}

/// How an input ended, for the person at the terminal.
fn described(outcome: &Outcome, colors: bool) -> Option<String> {
    let text = match outcome {
        Outcome::Done | Outcome::Restart => return None,
        Outcome::Interrupted => "interrupted".to_owned(),
        Outcome::Failed(err) => err.to_string(),
    };
    if !colors {
        return Some(text);
    }
    let paint = |line: &str| match line.split_once(':') {
        Some(("error", rest)) => format!("\x1b[1;31merror:\x1b[0m{rest}"),
        Some(("hint", rest)) => format!("\x1b[1;36mhint:\x1b[0m{rest}"),
        _ => line.to_owned(),
    };
    Some(text.lines().map(paint).collect::<Vec<_>>().join("\n"))
}
