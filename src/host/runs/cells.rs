//! The cells of a grid among a script's runs: where each goes, and how it ends before the script does.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Made, Runs, about, finish_run, start_experiment, status_of};
use crate::host::errors::{Failure, Kind};
use crate::host::session::Session;
use crate::host::{Outcome, grid};
use crate::train::TrainError;
use crate::train::checkpoint::replace_file;
use crate::train::experiment::Experiment;
use crate::train::lock::{RunLock, Taken};
use crate::train::run::Status;

/// The cell that is being run.
pub(super) struct Current {
    dir: PathBuf,
    /// `[3/10] `
    prefix: String,
    name: String,
    record: Value,
    /// Whether it has started its run.
    pub(super) used: bool,
    /// How many directories the script had made before.
    made_before: usize,
    /// What is said of it meanwhile; `None` in a worker, all of whose output goes there.
    output: Option<File>,
}

/// The file of a cell's directory that holds what its run printed.
pub const OUTPUT: &str = "output.txt";

/// Opens that file, behind what it holds.
///
/// # Errors
/// The disk's.
pub fn output(dir: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).open(dir.join(OUTPUT))
}

impl Runs {
    /// Makes this script's directory a parent with a grid in it: that of an earlier process where there is one for this address.
    ///
    /// # Errors
    /// The disk's; or another process is at it.
    pub fn begin_grid(&self, session: &Session, address: &str, name: &str, grid: Value) -> Result<(), Failure> {
        if self.grids.borrow().iter().any(|known| known == name) {
            return Err(Failure::script(format!("grid: there is one called \"{name}\" already"))
                .with_hint("give each grid of a script a `name` of its own: its cells are found by it"));
        }
        let is_first = self.grids.borrow().is_empty();
        let mut experiment = self.experiment.borrow_mut();
        let experiment = match experiment.as_mut() {
            Some(experiment) => experiment,
            None => experiment.insert(match grid::find(&session.options.runs, address) {
                Some(root) if session.options.resume.is_none() && session.options.cell.is_none() => {
                    go_on(session, &root)?
                }
                _ => start_experiment(session)?,
            }),
        };
        // A worker's parent is another process's to write.
        if session.options.cell.is_none() {
            if is_first && experiment.address().is_some_and(|known| known != address) {
                return Err(Failure::usage(format!(
                    "cannot resume {}: its cells were made from other arguments, or by another version",
                    experiment.root().display()
                ))
                .with_hint("run the script itself with these arguments: that makes a directory of its own"));
            }
            experiment.begin_grid(address, name, grid)?;
        }
        self.grids.borrow_mut().push(name.to_owned());
        self.follow(experiment);
        Ok(())
    }

    /// The parent, or the directory of a single run.
    pub fn root(&self) -> Option<PathBuf> {
        self.experiment.borrow().as_ref().map(|experiment| experiment.root().to_owned())
    }

    /// The directory of the cell with this address, if it has one.
    pub fn known_cell(&self, address: &str) -> Option<PathBuf> {
        self.experiment.borrow().as_ref()?.known_cell(address)
    }

    /// A new directory for a cell.
    ///
    /// # Errors
    /// The disk's.
    pub fn new_cell(&self, name: &str, address: &str) -> Result<PathBuf, Failure> {
        let mut experiment = self.experiment.borrow_mut();
        let experiment = experiment.as_mut().ok_or_else(|| Failure::machine("a cell without a grid"))?;
        Ok(experiment.new_cell(name, address)?)
    }

    /// The next run is this cell's.
    pub fn begin_cell(&self, session: &Session, dir: &Path, prefix: &str, name: &str, record: Value) {
        // Where it cannot be written the run itself will say so.
        let output = if session.options.cell.is_none() { output(dir).ok() } else { None };
        let (dir, prefix, name) = (dir.to_owned(), prefix.to_owned(), name.to_owned());
        let made_before = self.made.borrow().len();
        *self.cell.borrow_mut() = Some(Current { dir, prefix, name, record, used: false, made_before, output });
    }

    /// Puts a line beside the cell's run. `false` outside of cells, and in workers.
    pub fn write_aside(&self, text: &str) -> bool {
        let cell = self.cell.borrow();
        let Some(output) = cell.as_ref().and_then(|cell| cell.output.as_ref()) else { return false };
        // Words that are lost with a full disk are the least that is.
        let _ = writeln!(&*output, "{text}");
        true
    }

    /// The name of the cell that is being run, and what `run.json` is to say of it.
    pub fn cell_name(&self) -> Option<(String, Value)> {
        self.cell.borrow().as_ref().map(|cell| (cell.name.clone(), cell.record.clone()))
    }

    /// What a progress bar is to show of a run of this name.
    pub fn shown_name(&self, name: &str) -> String {
        let cell = self.cell.borrow();
        format!("{}{name}", cell.as_ref().map_or("", |cell| &cell.prefix))
    }

    /// Whether the cell that is being run has not started its run.
    pub fn cell_is_unused(&self) -> bool {
        self.cell.borrow().as_ref().is_some_and(|cell| !cell.used)
    }

    /// The directory of the current cell's run; `None` outside of cells.
    pub(super) fn take_cell_directory(&self) -> Option<Result<PathBuf, Failure>> {
        let mut cell = self.cell.borrow_mut();
        let cell = cell.as_mut()?;
        Some(match std::mem::replace(&mut cell.used, true) {
            false => Ok(cell.dir.clone()),
            true => Err(Failure::script("grid: a cell is one run, and this one starts a second").with_hint(
                "make the second part a grid of its own, which takes what it needs from the first one's results",
            )),
        })
    }

    /// The cell that was begun last has ended: says so in its `run.json`, and lets go of its model.
    ///
    /// # Errors
    /// The disk's.
    pub fn end_cell(&self, session: &Session, outcome: &Outcome) -> Result<(), Failure> {
        let ended = self.end_runs_of_cell(session, outcome);
        *self.cell.borrow_mut() = None;
        ended
    }

    fn end_runs_of_cell(&self, session: &Session, outcome: &Outcome) -> Result<(), Failure> {
        let cell = self.cell.borrow();
        let Some(cell) = cell.as_ref() else { return Ok(()) };
        let made = self.made.borrow_mut().split_off(cell.made_before);
        let error = match outcome {
            Outcome::Failed(why) => Some(why.to_string()),
            _ => None,
        };
        if made.is_empty() && error.is_none() {
            return Ok(());
        }
        for made in &made {
            match made {
                Made::Run { open: Some(open), .. } => {
                    finish_run(session, open, status_of(outcome))?;
                    if let (Some(error), Ok(mut run)) = (&error, open.run.try_borrow_mut()) {
                        run.note("error", json!(error))?;
                        // What failed behind the last step is not done either.
                        if run.status() == Status::Done {
                            run.finish(status_of(outcome))?;
                        }
                    }
                }
                Made::Output(output) => {
                    if let Some(error) = &error {
                        output.borrow_mut().note("error", json!(error))?;
                    }
                    output.borrow().finish(status_of(outcome))?;
                }
                Made::Run { open: None, .. } => {}
            }
        }
        if made.is_empty() && !cell.dir.join("run.json").exists() {
            write_record(session, cell, status_of(outcome), error)?;
        }
        Ok(())
    }

    /// Remembers cells that failed: the script's exit code says so.
    pub fn note_failed_cells(&self, failed: Vec<(String, Kind)>) {
        self.failed_cells.borrow_mut().extend(failed);
    }

    /// The directory of this script's grids, if it has any.
    pub fn grids(&self) -> Option<PathBuf> {
        if self.grids.borrow().is_empty() { None } else { self.root() }
    }

    /// What is to be said of cells that failed, once the script has ended.
    pub fn cells_failed(&self) -> Option<Failure> {
        let failed = self.failed_cells.borrow();
        let (_, kind) = failed.first()?;
        let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
        let (these, them) = if names.len() == 1 { ("cell", "it") } else { ("cells", "them") };
        let message = format!("{} {these} of the grid failed: {}", names.len(), names.join(", "));
        Some(
            Failure::new(*kind, message)
                .with_hint(format!("the same command tries {them} once more, and nothing else")),
        )
    }
}

/// Goes on with the grid in `root`.
fn go_on(session: &Session, root: &Path) -> Result<Experiment, Failure> {
    let failed = |err: std::io::Error| Failure::machine(format!("{}: {err}", root.display()));
    let lock = match RunLock::take(root).map_err(failed)? {
        Taken::Held(lock) => lock,
        Taken::Busy(process) => {
            let who = process.map_or("another process".to_owned(), |id| format!("process {id}"));
            return Err(Failure::machine(format!("{who} is running this grid in {}", root.display()))
                .with_hint("wait for it, or name another folder with --runs"));
        }
    };
    let experiment = Experiment::resume(root, about(session), session.running_sources())?;
    experiment.locks().borrow_mut().push(lock);
    Ok(experiment)
}

/// Of a cell that came to no run.
fn write_record(session: &Session, cell: &Current, status: Status, error: Option<String>) -> Result<(), Failure> {
    let mut record = Map::new();
    record.insert("name".to_owned(), json!(cell.name));
    record.extend(about(session));
    record.insert("cell".to_owned(), cell.record.clone());
    record.insert("status".to_owned(), json!(status));
    record.extend(error.map(|error| ("error".to_owned(), json!(error))));
    let path = cell.dir.join("run.json");
    let text = serde_json::to_vec_pretty(&record).map_err(|err| TrainError::broken(&path, err))?;
    Ok(replace_file(&path, &text)?)
}
