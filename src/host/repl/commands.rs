//! Commands: lines that begin with a colon.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use rhai::FnAccess;

use super::help::help;
use super::show::{kind_of, short};
use super::state::State;
use super::timing::time;
use crate::host::Outcome;
use crate::host::errors::Failure;
use crate::host::say::print_line;
use crate::host::suggest::did_you_mean;

/// All of them, as completion and suggestions know them.
pub const NAMES: [&str; 8] = ["clear", "help", "load", "quit", "save", "save!", "time", "vars"];

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    Quit,
}

/// Runs a line that begins with a colon.
///
/// # Errors
/// What is wrong with it.
pub fn run(state: &mut State, line: &str) -> Result<Then, Outcome> {
    let line = line.trim();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let name = name.trim_start_matches(':');
    state.note(line);
    match name {
        "help" | "h" | "?" => print_line(&help(state, argument)?),
        "vars" => print_line(&variables(state)),
        "time" => {
            need(argument, "an expression, as in :time x.matmul(x)")?;
            print_line(&time(state, argument)?);
        }
        "load" => state.load(need(argument, "a file, as in :load experiment.rhai")?)?,
        "save" | "save!" => {
            let file = need(argument, "a file, as in :save experiment.rhai")?;
            save(file, &state.script(), name == "save!")?;
        }
        "clear" => state.clear()?,
        "quit" | "q" | "exit" => return Ok(Then::Quit),
        _ => {
            let hint = did_you_mean(name, NAMES).unwrap_or_else(|| ":help lists the commands".to_owned());
            return Err(Failure::script(format!("no command is named :{name}")).with_hint(hint).into());
        }
    }
    Ok(Then::GoOn)
}

fn need<'a>(argument: &'a str, what: &str) -> Result<&'a str, Failure> {
    if argument.is_empty() { Err(Failure::script(format!("expected {what}"))) } else { Ok(argument) }
}

fn save(file: &str, script: &str, overwrite: bool) -> Result<(), Failure> {
    if script.is_empty() {
        return Err(Failure::script("there is nothing to save yet"));
    }
    let opened = match overwrite {
        true => OpenOptions::new().write(true).create(true).truncate(true).open(file),
        false => OpenOptions::new().write(true).create_new(true).open(file),
    };
    opened.and_then(|mut opened| opened.write_all(script.as_bytes())).map_err(|err| match err.kind() {
        ErrorKind::AlreadyExists => {
            Failure::script(format!("{file} exists")).with_hint(format!(":save! {file} overwrites it"))
        }
        _ => Failure::script(format!("cannot write {file}: {err}")),
    })
}

fn variables(state: &State) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut variables: Vec<_> = state.scope.iter_raw().collect();
    variables.sort_by_key(|(name, ..)| *name);
    for (name, constant, value) in variables {
        let kind = kind_of(&state.engine, value);
        let value = short(state, value);
        let value = if value.starts_with(kind) { value } else { format!("{value}  ({kind})") };
        lines.push(format!("{}{name} = {value}", if constant { "const " } else { "" }));
    }
    let mut functions: Vec<String> = state
        .functions
        .iter_functions()
        .filter(|f| f.access == FnAccess::Public && !f.name.contains('$'))
        .map(|f| format!("fn {}({})", f.name, f.params.join(", ")))
        .collect();
    functions.sort();
    lines.extend(functions);
    lines.extend(state.imports.iter().map(|import| format!("import \"{}\" as {}", import.path, import.alias)));
    if lines.is_empty() { "nothing yet".to_owned() } else { lines.join("\n") }
}
