//! Runs and studies made by hand, for unit tests.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::figure::Better;
use super::group::{Arm, Goal, Study};
use super::read::{Line, RunRecord, Status};

/// A finished run with a point every 10 steps of `seconds` each.
pub fn run(seed: Option<u64>, seconds: f64, figure: &str, values: &[f64]) -> RunRecord {
    let line = |(i, value): (usize, &f64)| {
        let step = 10 * (i as u64 + 1);
        Line { step, values: vec![("wall_s".into(), step as f64 * seconds), (figure.into(), *value)] }
    };
    RunRecord {
        dir: PathBuf::new(),
        record: Map::new(),
        name: String::new(),
        status: Status::Done,
        error: None,
        seed,
        cell: None,
        lines: values.iter().enumerate().map(line).collect(),
        layers: Vec::new(),
        script: None,
        pictures: Vec::new(),
        problems: Vec::new(),
    }
}

pub fn arm<'a>(label: &str, setting: Value, runs: &'a [RunRecord], baseline: Option<usize>) -> Arm<'a> {
    let setting = setting.as_object().cloned().unwrap_or_default();
    Arm { label: label.to_owned(), setting, runs: runs.iter().collect(), baseline }
}

pub fn study(arms: Vec<Arm>) -> Study {
    Study {
        heading: "made".to_owned(),
        text: String::new(),
        axes: Vec::new(),
        arms,
        goals: vec![loss()],
        notes: Vec::new(),
    }
}

pub fn loss() -> Goal {
    Goal { figure: "val_loss".to_owned(), better: Better::Lower }
}
