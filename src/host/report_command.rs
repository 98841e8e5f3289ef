//! `dbp-host report`: what runs found out, as text on stdout, as a page, and as CSV.
//!
//! Everything is computed in `crate::report`, which knows run directories alone; here is where files are written and people are told.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use console::Term;

use super::errors::Failure;
use super::say::{print_line, say};
use super::{Outcome, report};
pub use crate::report::Options as Contents;
use crate::report::{Band, Report};
use crate::train::checkpoint::replace_file;

/// The command line of `dbp-host report`.
#[derive(Clone, Debug)]
pub struct ReportOptions {
    /// Run directories, parents of several, folders of both.
    pub runs: Vec<PathBuf>,
    /// Where the page goes; by default into the one directory that is named, else here.
    pub out: Option<PathBuf>,
    /// Folder for the tables.
    pub csv: Option<PathBuf>,
    /// Writes no page.
    pub no_html: bool,
    pub contents: Contents,
}

/// What stands behind ± and around curves.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum BandChoice {
    /// One standard deviation over seeds
    Sd,
    /// The 95 % confidence interval of the mean
    Ci,
}

impl From<BandChoice> for Band {
    fn from(choice: BandChoice) -> Self {
        match choice {
            BandChoice::Sd => Self::Sd,
            BandChoice::Ci => Self::Ci,
        }
    }
}

const PAGE: &str = "report.html";

/// Runs `dbp-host report`. Returns the exit code.
pub fn write(options: &ReportOptions) -> i32 {
    match make(options) {
        Ok(()) => report(&Outcome::Done),
        Err(err) => report(&err.into()),
    }
}

fn make(options: &ReportOptions) -> Result<(), Failure> {
    let made = Report::read(&options.runs, &options.contents).map_err(Failure::usage)?;
    if made.is_empty() {
        for problem in &made.problems {
            say(&format!("left out: {problem}"));
        }
        let hint = "name a folder that a run made, like runs/2026-…, or the folder of them; `dbp-host runs` lists what there is";
        return Err(Failure::script("no run could be read").with_hint(hint));
    }
    print_line(made.text(width()).trim_end());
    if let Some(folder) = &options.csv {
        let files = made.csv();
        for (name, text) in &files {
            put(&folder.join(name), text)?;
        }
        say(&format!("{} tables as CSV: {}", files.len(), folder.display()));
    }
    if !options.no_html {
        let path = options.out.clone().unwrap_or_else(|| match options.runs.as_slice() {
            [one] => one.join(PAGE),
            _ => PathBuf::from(PAGE),
        });
        put(&path, &made.html())?;
        say(&format!("page: {}", path.display()));
    }
    Ok(())
}

/// Writes the page of an experiment into its directory. Returns where it lies.
///
/// # Errors
/// The disk's.
pub fn write_page(root: &Path) -> Result<PathBuf, Failure> {
    let made = Report::read(&[root.to_owned()], &Contents::default()).map_err(Failure::machine)?;
    let path = root.join(PAGE);
    put(&path, &made.html())?;
    Ok(path)
}

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)
            .map_err(|err| Failure::machine(format!("cannot make {}: {err}", folder.display())))?;
    }
    replace_file(path, text.as_bytes()).map_err(Failure::from)
}

/// Columns of the terminal that stdout is; `None` if it is none.
fn width() -> Option<usize> {
    let term = Term::stdout();
    term.is_term().then(|| usize::from(term.size().1)).filter(|width| *width > 0)
}
