//! A grid: settings × seeds, each cell of it one run. `run::grid` and, on top of it, `std/ablate`.
//!
//! | file | idea |
//! | --- | --- |
//! | `cell` | a setting and a seed; its outcome, read off its directory |
//! | `address` | what a cell is made from, so that one that is done is not run again |
//! | `workers` | several cells at once, each in a process of its own |
//! | this one | which cells are to be run, and what is said of them |
//!
//! All cells lie in one parent, found by the address of script and arguments: the same command goes on where an earlier one
//! stopped, and adds the cells that are new. A cell that fails is told and counted; the others run.

use std::rc::Rc;
use std::time::Instant;

use rhai::{Array, Dynamic, EvalAltResult, FnPtr, NativeCallContext};
use serde_json::{Map, Value, json};

use super::diagnosis::Diagnosis;
use super::errors::{Failure, Kind, ScriptResult, Stop, script_error};
use super::progress::duration;
use super::say::say;
use super::session::Session;
use super::{Outcome, stop_of};
use crate::train::lock::{RunLock, Taken};

mod address;
mod cell;
mod workers;

pub use address::find;
use cell::Standing;
pub use cell::{Cell, LABEL};

/// What a script asks for.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    /// For the report.
    pub title: String,
    pub text: String,
    pub settings: Vec<Map<String, Value>>,
    pub seeds: Vec<u64>,
    /// The part of a setting that the others are compared with.
    pub baseline: Option<Map<String, Value>>,
    /// Arguments that only say which cells there are.
    pub over: Vec<String>,
    /// Seeds and addresses of other grids' cells that this one's read.
    pub after: Vec<(u64, String)>,
}

impl Plan {
    /// For `index.json`; `cells` are those that belong to it now, whatever else lies beside them.
    fn about(&self, cells: &[Cell]) -> Value {
        let Self { name, title, text, settings, seeds, baseline, .. } = self;
        let mut about = json!({ "name": name, "title": title });
        for (key, value) in [("text", json!(text)), ("baseline", json!(baseline))] {
            if !value.is_null() && value != "" {
                about[key] = value;
            }
        }
        about["settings"] = json!(settings);
        about["seeds"] = json!(seeds);
        about["cells"] = cells.iter().map(|cell| Value::from(cell.address.as_str())).collect();
        about
    }

    fn cells(&self, script: &str, datasets: &[u64]) -> Result<Vec<Cell>, Failure> {
        let mut cells: Vec<Cell> = Vec::with_capacity(self.settings.len() * self.seeds.len());
        // Seed by seed, so that a grid that is stopped has compared something.
        for seed in &self.seeds {
            for setting in &self.settings {
                let label = cell::label(setting, &self.settings);
                let of = if self.name == ONLY { String::new() } else { format!("{} ", self.name) };
                let name = format!("{of}{label} seed={seed}");
                if cells.iter().any(|cell| cell.name == name) {
                    return Err(Failure::script(format!("grid: two cells are called \"{name}\""))
                        .with_hint(format!("settings and seeds must differ; a setting may have a `{LABEL}`")));
                }
                let after: Vec<&str> =
                    self.after.iter().filter(|(of, _)| of == seed).map(|(_, address)| address.as_str()).collect();
                let address = address::of_cell(script, &self.name, setting, *seed, datasets, &after);
                cells.push(Cell { name, label, setting: setting.clone(), seed: *seed, address, dir: None });
            }
        }
        Ok(cells)
    }
}

/// The name of a grid that was given none.
pub const ONLY: &str = "grid";

/// How one cell came out.
enum Ended {
    Done,
    /// It is told already.
    Failed(Kind),
    /// Another process is running it.
    Elsewhere,
}

/// Runs what is not done of a grid, by calling `function` with each cell, and answers with all cells' results.
///
/// # Errors
/// Of the whole: a plan that cannot be, the disk, a signal. What goes wrong in a cell is that cell's.
pub fn run(ctx: &NativeCallContext, mut plan: Plan, function: &FnPtr) -> ScriptResult<Array> {
    let session = Session::of(ctx);
    let place = |err: Failure| script_error(ctx, err);
    if session.runs.cell_name().is_some() {
        return Err(place(Failure::script("grid: a cell of a grid cannot run a grid")));
    }
    if session.options.seed.is_some() {
        return Err(place(
            Failure::usage("--seed: a grid has seeds of its own")
                .with_hint("leave it out; scripts take them as a parameter, --set seeds=[0,1,2]"),
        ));
    }
    if session.options.smoke {
        plan.seeds.truncate(1);
    }
    let script = address::of_script(&session, &plan.over);
    let datasets = session.opened().map_err(|err| place(err.into()))?;
    let mut cells = plan.cells(&script, &datasets).map_err(place)?;
    session.runs.begin_grid(&session, &script, &plan.name, plan.about(&cells)).map_err(place)?;
    for cell in &mut cells {
        cell.dir = session.runs.known_cell(&cell.address);
    }
    if let Some(wanted) = &session.options.cell {
        let Some(cell) = cells.iter_mut().find(|cell| cell.address == wanted.address) else {
            return Ok(results(&cells));
        };
        return Err(match run_or_wait(ctx, &session, &plan, cell, function, "")? {
            None => Stop::CellEnded.error(),
            Some(kind) => Stop::Failed(Failure::new(kind, format!("{} failed", cell.name))).error(),
        });
    }
    let todo: Vec<usize> = (0..cells.len()).filter(|&at| !cells[at].standing().has_ended()).collect();
    let mut tally = Tally::new(&plan.name, cells.len(), todo.len());
    tally.begin();
    // A worker comes to its cell by the script: it would meet runs that this process is at.
    let is_alone = session.runs.count() == 0;
    if session.options.jobs > 1 && !is_alone {
        say("--jobs: runs stand before this grid, so its cells run one after another");
    }
    match session.options.jobs {
        jobs if jobs > 1 && todo.len() > 1 && session.watching.is_none() && is_alone => {
            workers::run(&session, &mut cells, &todo, jobs, &mut tally).map_err(|err| err.into_script_error(ctx))?;
        }
        _ => {
            for at in todo {
                let begun = Instant::now();
                match run_or_wait(ctx, &session, &plan, &mut cells[at], function, &tally.next())? {
                    None => tally.ended(&cells[at], begun, 1),
                    Some(kind) => tally.failed(&cells[at], kind),
                }
            }
        }
    }
    tally.end();
    session.runs.note_failed_cells(tally.failed);
    Ok(results(&cells))
}

fn results(cells: &[Cell]) -> Array {
    cells.iter().map(Cell::result).collect()
}

/// Runs one cell, or waits for the process that is at it. `Some` is how it failed.
fn run_or_wait(
    ctx: &NativeCallContext,
    session: &Rc<Session>,
    plan: &Plan,
    cell: &mut Cell,
    function: &FnPtr,
    prefix: &str,
) -> ScriptResult<Option<Kind>> {
    let mut told = false;
    loop {
        match run_cell(ctx, session, plan, cell, function, prefix)? {
            Ended::Done => return Ok(None),
            Ended::Failed(kind) => return Ok(Some(kind)),
            Ended::Elsewhere => {
                if !std::mem::replace(&mut told, true) {
                    say(&format!("{}: another process is running it; waiting", cell.name));
                }
                if session.interrupted() {
                    return Err(Stop::Interrupted.error());
                }
                std::thread::sleep(workers::LOOK);
            }
        }
    }
}

/// Runs one cell here. An error that is not the cell's own (a signal, an edit, `exit()`) ends the grid.
fn run_cell(
    ctx: &NativeCallContext,
    session: &Rc<Session>,
    plan: &Plan,
    cell: &mut Cell,
    function: &FnPtr,
    prefix: &str,
) -> ScriptResult<Ended> {
    let place = |err: Failure| script_error(ctx, err);
    let dir = match cell.dir.clone().filter(|dir| dir.is_dir()) {
        Some(dir) => dir,
        None => session.runs.new_cell(&cell.name, &cell.address).map_err(place)?,
    };
    cell.dir = Some(dir.clone());
    let _lock = match RunLock::take(&dir) {
        Ok(Taken::Held(lock)) => lock,
        Ok(Taken::Busy(_)) => return Ok(Ended::Elsewhere),
        Err(err) => return Err(place(Failure::machine(format!("{}: {err}", dir.display())))),
    };
    // What another process did meanwhile is not done again.
    if cell.standing().has_ended() {
        return Ok(Ended::Done);
    }
    let (seed, draws, opened) = (session.seed(), session.draws(), session.opened_count());
    session.set_seed(cell.seed);
    session.set_draws(0);
    session.reset_operations();
    session.runs.begin_cell(session, &dir, prefix, &cell.name, cell.record(&plan.name));
    let called = function.call_within_context::<Dynamic>(ctx, (cell.argument(),)).map(drop);
    session.set_seed(seed);
    session.set_draws(draws);
    session.forget_opened(opened);
    session.set_in_training(false);
    let (outcome, ends_grid) = match called {
        Ok(()) if session.runs.cell_is_unused() => {
            let why = Failure::script("grid: this cell started no run")
                .with_hint("its function must come to `run::start`, or to a loop that does, such as `mae::pretrain`");
            (why.into(), None)
        }
        Ok(()) => (Outcome::Done, None),
        Err(err) => match stop_of(&err) {
            Some(Stop::Interrupted | Stop::Restart | Stop::CellEnded) => (Outcome::Interrupted, Some(err)),
            // What is left of the cell is not done.
            None if matches!(*err, EvalAltResult::Exit(..)) => (Outcome::Interrupted, Some(err)),
            _ => {
                session.clear_stop();
                session.reset_operations();
                (Outcome::Failed(Box::new(Diagnosis::of(*err, &session.library, &session.engine()))), None)
            }
        },
    };
    session.runs.end_cell(session, &outcome).map_err(place)?;
    match (ends_grid, outcome) {
        (Some(err), _) => Err(err),
        (None, Outcome::Failed(why)) => {
            say(&why.to_string());
            // A rate that is too high is a result.
            Ok(if why.kind == Kind::Diverged { Ended::Done } else { Ended::Failed(why.kind) })
        }
        (None, _) => Ok(Ended::Done),
    }
}

/// What is said of a grid as it goes on.
pub struct Tally {
    grid: String,
    all: usize,
    todo: usize,
    ended: usize,
    /// Seconds of cells that this process has seen from beginning to end.
    seconds: Vec<f64>,
    failed: Vec<(String, Kind)>,
}

impl Tally {
    fn new(grid: &str, all: usize, todo: usize) -> Self {
        Self { grid: grid.to_owned(), all, todo, ended: 0, seconds: Vec::new(), failed: Vec::new() }
    }

    fn begin(&self) {
        let done = self.all - self.todo;
        let of = if done == 0 { String::new() } else { format!(", {done} of them done already") };
        let cells = if self.all == 1 { "cell" } else { "cells" };
        say(&format!("{}: {} {cells}{of}", self.grid, self.all));
    }

    /// What stands before the name of the cell that runs next.
    fn next(&self) -> String {
        format!("[{}/{}] ", self.all - self.todo + self.ended + 1, self.all)
    }

    /// How far the grid is, for a bar: `7/20`.
    fn count(&self) -> String {
        format!("{}/{}", self.all - self.todo + self.ended, self.all)
    }

    fn ended(&mut self, cell: &Cell, begun: Instant, jobs: usize) {
        let prefix = self.next();
        self.ended += 1;
        self.seconds.push(begun.elapsed().as_secs_f64());
        let left = self.left(jobs).map_or_else(String::new, |left| format!("; about {left} left"));
        say(&format!("{prefix}{}: {}{left}", cell.name, came_out(cell)));
    }

    fn failed(&mut self, cell: &Cell, kind: Kind) {
        let prefix = self.next();
        self.ended += 1;
        let goes_on = if self.ended < self.todo { "; the others go on" } else { "" };
        say(&format!("{prefix}{}: failed{goes_on}", cell.name));
        self.failed.push((cell.name.clone(), kind));
    }

    /// How long the cells that are left will take.
    fn left(&self, jobs: usize) -> Option<String> {
        let left = self.todo - self.ended;
        let mean = self.seconds.iter().sum::<f64>() / self.seconds.len() as f64;
        (left > 0 && !self.seconds.is_empty()).then(|| duration(mean * left as f64 / jobs.min(left) as f64))
    }

    fn end(&self) {
        if !self.failed.is_empty() {
            say(&format!("{}: {} of {} cells failed", self.grid, self.failed.len(), self.all));
        }
    }
}

/// `val_loss 0.6121 at step 300, 143 s`.
fn came_out(cell: &Cell) -> String {
    if cell.standing() == Standing::Diverged {
        return "diverged".to_owned();
    }
    let record = cell.dir.as_deref().and_then(|dir| super::args::read_run_json(dir).ok()).unwrap_or_default();
    let mut parts = Vec::new();
    if let Some(best) = record.get("best").and_then(Value::as_object)
        && let Some((figure, value)) = best.iter().find(|(key, _)| *key != "step")
        && let Some(value) = value.as_f64()
    {
        parts.push(format!("{figure} {value:.4} at step {}", best.get("step").unwrap_or(&Value::Null)));
    }
    if let Some(seconds) = record.get("wall_s").and_then(Value::as_f64) {
        parts.push(duration(seconds));
    }
    if parts.is_empty() { "done".to_owned() } else { parts.join(", ") }
}
