//! `dbp-host new NAME`: a script to start from, which runs at once on built-in data.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::errors::Failure;
use super::say::{print_line, say};
use super::{Outcome, report};

/// What the script is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Pre-trains one model
    Pretrain,
    /// Compares several choices of modules
    Ablation,
    /// Trains masks on a pre-trained encoder
    Finetune,
    /// The training loop in the open
    Blank,
}

impl Template {
    fn text(self) -> &'static str {
        match self {
            Self::Pretrain => include_str!("templates/pretrain.rhai"),
            Self::Ablation => include_str!("templates/ablation.rhai"),
            Self::Finetune => include_str!("templates/finetune.rhai"),
            Self::Blank => include_str!("templates/blank.rhai"),
        }
    }
}

/// Writes the script and says how to go on. Returns the exit code.
pub fn new(name: &Path, template: Template) -> i32 {
    match write(name, template) {
        Ok(path) => {
            print_line(&path.display().to_string());
            let shown = quoted(&path);
            say(&format!(
                "try it in seconds:   dbp-host {shown} --smoke\n\
                 run it:              dbp-host {shown}\n\
                 see what came out:   dbp-host runs"
            ));
            report(&Outcome::Done)
        }
        Err(err) => report(&err.into()),
    }
}

fn write(name: &Path, template: Template) -> Result<PathBuf, Failure> {
    let path = place(name)?;
    let failed = |err: std::io::Error| Failure::machine(format!("cannot write {}: {err}", path.display()));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let title = path.file_stem().unwrap_or_default().to_string_lossy().replace(['\n', '\r'], " ");
    let text = template.text().replace("NAME", &title);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file.write_all(text.as_bytes()).map_err(failed)?,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            return Err(Failure::usage(format!("{} is there already", path.display())).with_hint("take another name"));
        }
        Err(err) => return Err(failed(err)),
    }
    Ok(path)
}

/// `NAME.rhai`; NAME itself if it ends so; `experiment.rhai` in it if it is a folder, or says so by a slash at its end.
fn place(name: &Path) -> Result<PathBuf, Failure> {
    let text = name.to_string_lossy();
    if name.is_dir() || text.ends_with(std::path::MAIN_SEPARATOR) {
        return Ok(name.join("experiment.rhai"));
    }
    let Some(file) = name.file_name() else {
        return Err(Failure::usage(format!("NAME: expected a name, got \"{text}\"")));
    };
    if name.extension().is_some_and(|extension| extension == "rhai") {
        return Ok(name.to_owned());
    }
    let mut file = file.to_owned();
    file.push(".rhai");
    Ok(name.with_file_name(file))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "-_./+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_a_script_and_a_folder_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| place(&folder.path().join(name)).unwrap();
        assert_eq!(at("a"), folder.path().join("a.rhai"));
        assert_eq!(at("a.rhai"), folder.path().join("a.rhai"));
        assert_eq!(at("v1.5"), folder.path().join("v1.5.rhai"));
        assert_eq!(at("new/"), folder.path().join("new/experiment.rhai"));
        assert_eq!(at(""), folder.path().join("experiment.rhai"));
        assert!(place(Path::new("..")).is_ok(), "a folder that is there");
        assert_eq!(quoted(Path::new("it's.rhai")), r"'it'\''s.rhai'");
    }
}
