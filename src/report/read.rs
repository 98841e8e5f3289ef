//! A run directory as data: `run.json`, `metrics.jsonl`, `layers.jsonl`, and the names of its pictures.
//!
//! The layout is that of `train/run.rs` and the energy meter; other programs' directories of the same layout do as well. A run
//! that is still going may have its last line half written: it is dropped. Everything else that cannot be read is an error,
//! in words for the person who asked for the report.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};

/// Sums of squares of anything larger overflow; a figure like that says no more than that it is off all bounds.
const LARGEST: f64 = 1e150;

/// How a run ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Done,
    /// Or killed: a report does not ask which processes there are.
    Running,
    Interrupted,
    Diverged,
    Failed,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Diverged => "diverged",
            Self::Failed => "failed",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Done, Self::Running, Self::Interrupted, Self::Diverged, Self::Failed]
            .into_iter()
            .find(|status| status.word() == word)
    }
}

/// Numbers by name. Names are shared between lines, of which there may be hundreds of thousands.
pub type Numbers = Vec<(Rc<str>, f64)>;

/// A line of `metrics.jsonl`: finite numbers by name, `step` aside.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub step: u64,
    pub values: Numbers,
}

impl Line {
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(key, _)| **key == *name).map(|(_, value)| *value)
    }
}

/// A line of `layers.jsonl`: figures of each layer, in the model's order.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerLine {
    pub step: u64,
    pub layers: Vec<(Rc<str>, Numbers)>,
}

/// Which cell of a grid a run fills.
#[derive(Clone, Debug, PartialEq)]
pub struct GridCell {
    pub grid: String,
    pub setting: Map<String, Value>,
    /// How the setting is called, and what the cell was made from; absent in hand-made runs.
    pub label: Option<String>,
    pub address: Option<String>,
}

/// A training run.
#[derive(Clone, Debug)]
pub struct RunRecord {
    pub dir: PathBuf,
    /// All of `run.json`.
    pub record: Map<String, Value>,
    pub name: String,
    pub status: Status,
    /// Why it failed, where that is known.
    pub error: Option<String>,
    pub seed: Option<u64>,
    pub cell: Option<GridCell>,
    pub lines: Vec<Line>,
    pub layers: Vec<LayerLine>,
    /// The script that ran, where it was kept.
    pub script: Option<Vec<u8>>,
    /// In order of their names, which end in the step.
    pub pictures: Vec<PathBuf>,
    /// Files that could not be read, and are left out of an otherwise whole run.
    pub problems: Vec<String>,
}

impl RunRecord {
    /// When it was started, as `run.json` has it; nothing sorts first.
    pub fn started(&self) -> &str {
        self.text("started").unwrap_or_default()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.record.get(key).and_then(Value::as_str)
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        self.record.get(key).and_then(bounded)
    }

    /// A number in an object of `run.json`.
    pub fn inner_number(&self, object: &str, key: &str) -> Option<f64> {
        self.inner(object, key).and_then(bounded)
    }

    /// An entry of an object in `run.json`, such as `energy`, `co2_kg`.
    pub fn inner(&self, object: &str, key: &str) -> Option<&Value> {
        self.record.get(object)?.get(key)
    }

    /// The script's file name without its extension.
    pub fn script_stem(&self) -> String {
        let script = self.text("script").map(Path::new).and_then(Path::file_stem);
        script.map_or_else(|| self.name.clone(), |stem| stem.to_string_lossy().into_owned())
    }

    /// Whether any layer is decorrelated.
    pub fn is_decorrelated(&self) -> bool {
        self.record.get("decorrelated").and_then(Value::as_array).is_some_and(|layers| !layers.is_empty())
    }

    /// The name of the figure that decides which of its checkpoints is the best.
    pub fn goal(&self) -> Option<&str> {
        self.record.get("best")?.as_object()?.keys().map(String::as_str).find(|key| *key != "step")
    }

    pub fn is_smoke(&self) -> bool {
        self.record.get("smoke") == Some(&Value::Bool(true))
    }
}

/// Reads a run. `None` is a directory of results that no training made.
///
/// # Errors
/// What is missing or broken.
pub fn read_run(dir: &Path) -> Result<Option<RunRecord>, String> {
    let record = read_object(&dir.join("run.json"))?;
    let status = match record.get("status").and_then(Value::as_str) {
        Some(word) => Status::parse(word).ok_or_else(|| {
            format!("run.json: status: expected done, running, interrupted, diverged or failed, got {word}")
        })?,
        None => return Err("run.json: it has no status".to_owned()),
    };
    if !record.contains_key("step")
        && !record.contains_key("steps")
        && !dir.join("metrics.jsonl").exists()
        && status != Status::Failed
    {
        return Ok(None);
    }
    let metrics = dir.join("metrics.jsonl");
    let mut names = HashSet::new();
    // One that failed early may not have come to its first line.
    let lines = if status == Status::Done || metrics.exists() {
        read_lines(&metrics, status, |map| metric_line(map, &mut names))?
    } else {
        Vec::new()
    };
    let steps = lines.iter().map(|line| line.step);
    if let Some((before, after)) = steps.clone().zip(steps.skip(1)).find(|(before, after)| before >= after) {
        return Err(format!("metrics.jsonl: steps go from {before} to {after}"));
    }
    let mut problems = Vec::new();
    let layers = dir.join("layers.jsonl");
    let layers =
        if layers.exists() { read_lines(&layers, status, |map| layer_line(map, &mut names)) } else { Ok(Vec::new()) };
    let layers = layers.unwrap_or_else(|problem| {
        problems.push(problem);
        Vec::new()
    });
    let text = |key: &str| record.get(key).and_then(Value::as_str).map(str::to_owned);
    let cell = record.get("cell").and_then(grid_cell);
    let cell_seed = record.get("cell").and_then(|cell| cell.get("seed")?.as_u64());
    let name = text("name").unwrap_or_else(|| dir.file_name().unwrap_or_default().to_string_lossy().into_owned());
    Ok(Some(RunRecord {
        dir: dir.to_owned(),
        name,
        status,
        error: text("error"),
        seed: cell_seed.or_else(|| record.get("seed").and_then(Value::as_u64)),
        cell,
        lines,
        layers,
        script: fs::read(dir.join("script.rhai")).ok(),
        pictures: pictures(&dir.join("pictures")),
        problems,
        record,
    }))
}

/// A file that holds one JSON object.
///
/// # Errors
/// Why it cannot be read.
pub fn read_object(path: &Path) -> Result<Map<String, Value>, String> {
    let name = file_name(path);
    let text = fs::read(path).map_err(|err| match err.kind() {
        ErrorKind::NotFound => format!("no {name}: it was stopped before its first step, or is no run"),
        _ => format!("{name}: {err}"),
    })?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(format!("{name}: expected an object")),
        Err(err) => Err(format!("{name}: it is no JSON ({err})")),
    }
}

fn read_lines<T>(
    path: &Path,
    status: Status,
    mut parse: impl FnMut(&Map<String, Value>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let name = file_name(path);
    let bytes = fs::read(path).map_err(|err| match err.kind() {
        ErrorKind::NotFound => format!("no {name}"),
        _ => format!("{name}: {err}"),
    })?;
    let mut rows = Vec::new();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let torn = lines.peek().is_none() && !line.ends_with(b"\n");
        let row = match serde_json::from_slice(line) {
            Ok(Value::Object(map)) => parse(&map),
            Ok(_) => Err("expected an object".to_owned()),
            Err(_) if torn && status == Status::Running => break,
            Err(_) => Err(if torn { "it is cut off" } else { "it is no JSON" }.to_owned()),
        };
        rows.push(row.map_err(|why| format!("{name}, line {}: {why}", number + 1))?);
    }
    Ok(rows)
}

/// Names that were seen, each held once.
type Names = HashSet<Rc<str>>;

fn shared(name: &str, names: &mut Names) -> Rc<str> {
    if let Some(known) = names.get(name) {
        return Rc::clone(known);
    }
    let name: Rc<str> = name.into();
    names.insert(Rc::clone(&name));
    name
}

/// The numbers of a map, `step` aside.
fn numbers(map: &Map<String, Value>, names: &mut Names) -> Numbers {
    let own = map.iter().filter(|(key, _)| *key != "step");
    own.filter_map(|(key, value)| Some((shared(key, names), bounded(value)?))).collect()
}

fn metric_line(map: &Map<String, Value>, names: &mut Names) -> Result<Line, String> {
    Ok(Line { step: step_of(map)?, values: numbers(map, names) })
}

/// A number that can be squared, summed and divided by.
pub fn bounded(value: &Value) -> Option<f64> {
    let number = value.as_f64().filter(|number| number.abs() < LARGEST)?;
    Some(if number.abs() < 1.0 / LARGEST { 0.0 } else { number })
}

fn layer_line(map: &Map<String, Value>, names: &mut Names) -> Result<LayerLine, String> {
    let step = step_of(map)?;
    let Some(Value::Object(layers)) = map.get("layers") else { return Err("it has no layers".to_owned()) };
    let figures = |(name, value): (&String, &Value)| Some((shared(name, names), numbers(value.as_object()?, names)));
    Ok(LayerLine { step, layers: layers.iter().filter_map(figures).collect() })
}

fn step_of(map: &Map<String, Value>) -> Result<u64, String> {
    map.get("step").and_then(Value::as_u64).ok_or_else(|| "it has no step".to_owned())
}

fn grid_cell(value: &Value) -> Option<GridCell> {
    let grid = value.get("grid")?.as_str()?.to_owned();
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let (label, address) = (text("label"), text("address"));
    Some(GridCell { grid, setting: value.get("setting")?.as_object()?.clone(), label, address })
}

fn pictures(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut pictures: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "png")).collect();
    pictures.sort();
    pictures
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
