//! `dbp-host runs`: what ran, read off the run directories alone; and, with `--keep`, which checkpoints go.
//!
//! A run that says `running` and whose lock nobody holds was killed. What is no run, or is broken, is named on stderr and left
//! out: one bad directory hides no other.

use std::path::{Path, PathBuf};

use chrono::DateTime;
use serde::Serialize;
use serde_json::{Map, Value};

use super::errors::Failure;
use super::say::{print_line, say};
use super::{Outcome, report, runs};
use crate::train::lock;

mod prune;
mod table;

/// The command line of `dbp-host runs`.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Folder of run directories, or one of them.
    pub dir: PathBuf,
    /// How many finished runs keep their checkpoints.
    pub keep: Option<usize>,
    /// Removes nothing.
    pub dry_run: bool,
    /// Those of `--smoke` too.
    pub all: bool,
    pub json: bool,
}

/// What became of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    /// It says that it is running, and no process is.
    Stopped,
    Done,
    Interrupted,
    Diverged,
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
        }
    }

    /// Of several runs, the one that says how it stands with all.
    fn weight(self) -> u8 {
        match self {
            Self::Running => 5,
            Self::Stopped => 4,
            Self::Interrupted => 3,
            Self::Failed => 2,
            Self::Diverged => 1,
            Self::Done => 0,
        }
    }
}

/// A run, or the parent of several. What is not known is absent.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    pub dir: PathBuf,
    pub name: String,
    pub status: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Steps done, and in all; a directory of results has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The figure that decided which checkpoint is the best, with its step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_kwh: Option<f64>,
    /// The most of the device's memory that it used; on the CPU, that its process did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub co2_kg: Option<f64>,
    /// How many layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decorrelated: Option<usize>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub smoke: bool,
    /// Whether `--keep` has removed its checkpoints.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pruned: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<Entry>,
}

/// Runs `dbp-host runs`. Returns the exit code.
pub fn runs(options: &ListOptions) -> i32 {
    match list(options) {
        Ok(()) => report(&Outcome::Done),
        Err(err) => report(&err.into()),
    }
}

fn list(options: &ListOptions) -> Result<(), Failure> {
    let (mut entries, left_out) = scan(&options.dir)?;
    for problem in left_out {
        say(&format!("left out: {problem}"));
    }
    let smoke = entries.iter().filter(|entry| entry.smoke).count();
    if !options.all {
        entries.retain(|entry| !entry.smoke);
    }
    if let Some(keep) = options.keep {
        return prune::prune(&entries, keep, options.dry_run);
    }
    if options.json {
        // Text, names and finite numbers: this cannot fail.
        print_line(&serde_json::to_string_pretty(&entries).unwrap_or_default());
        return Ok(());
    }
    if entries.is_empty() {
        say(&format!("no runs in {}", options.dir.display()));
    } else {
        for line in table::lines(&entries, table::width()) {
            print_line(&line);
        }
    }
    if smoke > 0 && !options.all {
        say(&format!("{smoke} of --smoke left out; --all lists them"));
    }
    for entry in entries.iter().filter(|entry| matches!(entry.status, State::Stopped | State::Interrupted)) {
        say(&format!("{}: carry on with dbp-host --resume {}", entry.status.word(), entry.dir.display()));
    }
    Ok(())
}

/// The runs in `dir` by when they started, the oldest first, and what is not one, with the reason.
fn scan(dir: &Path) -> Result<(Vec<Entry>, Vec<String>), Failure> {
    let failed = |err: std::io::Error| Failure::usage(format!("cannot list {}: {err}", dir.display()));
    if ["run.json", "index.json"].iter().any(|name| dir.join(name).exists()) {
        let entry = read(dir, None).map_err(|why| Failure::script(format!("{}: {why}", dir.display())))?;
        return Ok((vec![entry], Vec::new()));
    }
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
            folders.push(path);
        }
    }
    folders.sort();
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for folder in folders {
        match read(&folder, None) {
            Ok(entry) => entries.push(entry),
            Err(why) => left_out.push(format!("{}: {why}", folder.display())),
        }
    }
    // Their names begin with it too, in whole seconds.
    let started = |entry: &Entry| {
        entry.started.as_deref().and_then(|text| DateTime::parse_from_rfc3339(text).ok()).map(|time| time.to_utc())
    };
    entries.sort_by_cached_key(started);
    Ok((entries, left_out))
}

/// The run in `dir`; `parent` holds whether its parent's lock is held. The error says why it is none.
fn read(dir: &Path, parent: Option<bool>) -> Result<Entry, String> {
    let index = dir.join("index.json");
    if index.exists() { parent_of(dir, &object(&index)?) } else { single(dir, parent) }
}

fn object(path: &Path) -> Result<Map<String, Value>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(path).map_err(|err| match err.kind() {
        std::io::ErrorKind::NotFound => format!("no {name}: it was stopped before its first step, or is no run"),
        _ => format!("{name}: {err}"),
    })?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(format!("{name}: expected an object")),
        Err(err) => Err(format!("{name}: {err}")),
    }
}

fn single(dir: &Path, parent: Option<bool>) -> Result<Entry, String> {
    let record = object(&dir.join("run.json"))?;
    let number = |key: &str| record.get(key).and_then(Value::as_f64);
    let count = |key: &str| record.get(key).and_then(Value::as_u64);
    let status = match record.get("status").and_then(Value::as_str) {
        Some("running") if parent == Some(true) => State::Running,
        // Where locks cannot be told, its word is all there is.
        Some("running") if lock::is_held(dir).unwrap_or(true) => State::Running,
        Some("running") => State::Stopped,
        Some("done") => State::Done,
        Some("interrupted") => State::Interrupted,
        Some("diverged") => State::Diverged,
        Some("failed") => State::Failed,
        other => return Err(format!("run.json: its status is {}", other.unwrap_or("missing"))),
    };
    let energy = record.get("energy");
    let of_energy = |key: &str| energy.and_then(|energy| energy.get(key)).and_then(Value::as_f64);
    Ok(Entry {
        dir: dir.to_owned(),
        name: text(&record, "name").unwrap_or_else(|| file_name(dir)),
        status,
        started: text(&record, "started"),
        step: count("step"),
        steps: count("steps"),
        best: record.get("best").filter(|best| best.is_object()).cloned(),
        wall_s: number("wall_s"),
        energy_kwh: of_energy("energy_kwh"),
        peak_memory_bytes: count("peak_memory_bytes"),
        co2_kg: of_energy("co2_kg"),
        decorrelated: record.get("decorrelated").and_then(Value::as_array).map(Vec::len),
        smoke: record.get("smoke") == Some(&Value::Bool(true)),
        pruned: record.contains_key(runs::PRUNED),
        runs: Vec::new(),
    })
}

/// Children that are not there yet, or are broken, are left out.
fn parent_of(dir: &Path, index: &Map<String, Value>) -> Result<Entry, String> {
    let list = index.get("runs").and_then(Value::as_array).ok_or("index.json: it lists no runs")?;
    let held = lock::is_held(dir);
    let folders = list.iter().filter_map(|entry| entry.get("dir")?.as_str()).map(|name| dir.join(name));
    let runs: Vec<Entry> = folders.filter_map(|folder| single(&folder, held).ok()).collect();
    let mut status = runs.iter().map(|run| run.status).max_by_key(|status| status.weight()).unwrap_or(State::Stopped);
    if status == State::Done && !is_whole(index, list, &runs) {
        status = State::Interrupted;
    }
    if held == Some(true) {
        status = State::Running; // Between two of its runs.
    }
    let sum = |of: fn(&Entry) -> Option<f64>| {
        // One that is not known makes the sum unknown.
        let all: Option<Vec<f64>> = runs.iter().filter(|run| run.steps.is_some()).map(of).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.into_iter().sum())
    };
    Ok(Entry {
        dir: dir.to_owned(),
        name: index
            .get("script")
            .and_then(Value::as_str)
            .and_then(|script| Path::new(script).file_stem())
            .map_or_else(|| file_name(dir), |stem| stem.to_string_lossy().into_owned()),
        status,
        started: text(index, "started"),
        step: None,
        steps: None,
        best: None,
        wall_s: sum(|run| run.wall_s),
        energy_kwh: sum(|run| run.energy_kwh),
        peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
        co2_kg: sum(|run| run.co2_kg),
        decorrelated: None,
        smoke: index.get("smoke") == Some(&Value::Bool(true)),
        pruned: index.contains_key(runs::PRUNED),
        runs,
    })
}

/// Whether every cell that the grids of a parent are to have has come to its end.
fn is_whole(index: &Map<String, Value>, list: &[Value], runs: &[Entry]) -> bool {
    let ended = runs.iter().filter(|run| matches!(run.status, State::Done | State::Diverged)).count();
    let grids = index.get("grids").and_then(Value::as_array).into_iter().flatten();
    let planned = grids.filter_map(|grid| grid.get("cells")?.as_array()).flatten();
    let missing = planned.filter(|address| !list.iter().any(|entry| entry.get("cell") == Some(address))).count();
    missing == 0 && ended == list.len()
}

fn text(record: &Map<String, Value>, key: &str) -> Option<String> {
    record.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn file_name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
