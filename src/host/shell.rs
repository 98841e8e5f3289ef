//! `dbp-host completions` and `dbp-host man`: what shells and manuals know of the command line, made from clap's own types; and
//! the subcommand that a misspelled word is near to.

use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::errors::Failure;
use super::suggest::nearest;
use super::{Outcome, report};

const NAME: &str = "dbp-host";

/// Prints the completions of `shell`. Returns the exit code.
pub fn completions(mut command: Command, shell: Shell) -> i32 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, NAME, &mut script);
    if shell == Shell::Bash {
        // clap_complete 4.6 names a state of a program with a hyphen in two ways, so that none of its subcommands would be completed.
        script = String::from_utf8_lossy(&script).replace("dbp__subcmd__host", "dbp__host").into_bytes();
    }
    print(&script)
}

/// Prints the manual page, or writes those of all subcommands into `dir`. Returns the exit code.
pub fn man(command: Command, dir: Option<&Path>) -> i32 {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        return match Man::new(command).render(&mut page) {
            Ok(()) => print(&page),
            Err(err) => report(&Failure::machine(format!("cannot write the manual page: {err}")).into()),
        };
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    match written {
        Ok(()) => report(&Outcome::Done),
        Err(err) => report(&Failure::machine(format!("cannot write into {}: {err}", dir.display())).into()),
    }
}

/// What a first word is told that names no script and is nearly a subcommand.
pub fn subcommand_meant(command: &Command, word: &Path) -> Option<Failure> {
    let name = word.to_str().filter(|name| !name.starts_with('-') && !word.exists())?;
    let known: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    let near = nearest(name, known.iter().copied()).filter(|_| !known.contains(&name))?;
    let failure = Failure::usage(format!("there is no script {name}"));
    Some(failure.with_hint(format!("did you mean the subcommand `{near}`?")))
}

fn print(bytes: &[u8]) -> i32 {
    // A reader that went away is no error.
    let _ = std::io::stdout().lock().write_all(bytes);
    report(&Outcome::Done)
}
