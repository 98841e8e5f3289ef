//! `dbp-host api`: writes the reference, or says which pages of a written one are stale.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::pages::{MARK, pages};
use crate::host::errors::Failure;
use crate::host::say::{print_line, say};
use crate::host::{Outcome, engine, on_script_thread, quiet_panics, report};

/// Where the reference goes if nobody says.
pub const USUAL_FOLDER: &str = "docs/reference";

/// `dbp-host api [--check] DIR`. Returns the exit code: 1 where pages are stale.
pub fn api(folder: &Path, check: bool) -> i32 {
    quiet_panics();
    report(&on_script_thread(|| match all_pages().and_then(|pages| done(folder, check, &pages)) {
        Ok(()) => Outcome::Done,
        Err(err) => err.into(),
    }))
}

/// Text of every page by its path in the folder.
///
/// Errors: a module of the binary that does not parse.
pub fn all_pages() -> Result<BTreeMap<String, String>, Failure> {
    pages(&engine::described())
}

fn done(folder: &Path, check: bool, pages: &BTreeMap<String, String>) -> Result<(), Failure> {
    if !check {
        write(folder, pages)?;
        print_line(&format!("{}: {} files", folder.join("index.md").display(), pages.len()));
        return Ok(());
    }
    if !folder.is_dir() {
        return Err(Failure::script(format!("{}: no such folder", folder.display()))
            .with_hint("name the one with the pages: dbp-host api --check DIR"));
    }
    let stale = stale(folder, pages)?;
    if stale.is_empty() {
        say(&format!("{}: up to date", folder.display()));
        return Ok(());
    }
    let hint = format!("dbp-host api {} writes them anew", folder.display());
    let list = stale.iter().map(|path| format!("\n    {path}")).collect::<String>();
    Err(Failure::script(format!("{}: stale pages:{list}", folder.display())).with_hint(hint))
}

/// Paths of pages that are missing, differ, or are there and should not be.
///
/// Errors: the disk's.
pub fn stale(folder: &Path, pages: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    let mut stale: Vec<String> = Vec::new();
    for (path, text) in pages {
        if fs::read_to_string(folder.join(path)).ok().as_ref() != Some(text) {
            stale.push(path.clone());
        }
    }
    stale.extend(left_over(folder, pages)?);
    stale.sort();
    Ok(stale)
}

fn write(folder: &Path, pages: &BTreeMap<String, String>) -> Result<(), Failure> {
    for (path, text) in pages {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|err| failed(parent, &err))?;
        }
        fs::write(&path, text).map_err(|err| failed(&path, &err))?;
    }
    for path in left_over(folder, pages)? {
        let path = folder.join(path);
        fs::remove_file(&path).map_err(|err| failed(&path, &err))?;
    }
    Ok(())
}

/// Pages of an earlier reference, told by their mark, that this one does not have.
fn left_over(folder: &Path, pages: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    let mut left = Vec::new();
    for part in ["", "definitions/"] {
        let Ok(entries) = fs::read_dir(folder.join(part)) else { continue };
        for entry in entries {
            let entry = entry.map_err(|err| failed(folder, &err))?;
            let path = format!("{part}{}", entry.file_name().to_string_lossy());
            let ours = |file: PathBuf| {
                fs::read_to_string(file).is_ok_and(|text| text.lines().take(2).any(|line| line.contains(MARK)))
            };
            if !pages.contains_key(&path) && entry.path().is_file() && ours(entry.path()) {
                left.push(path);
            }
        }
    }
    left.sort();
    Ok(left)
}

fn failed(path: &Path, err: &std::io::Error) -> Failure {
    Failure::machine(format!("{}: {err}", path.display()))
}
