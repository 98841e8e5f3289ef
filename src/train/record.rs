//! `run.json`: which of its entries are whose, and what a resumed run takes over from the one before.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::TrainResult;
use super::checkpoint::replace_file;
use super::metrics::last_line;

/// Whether an entry of this name is the run's own, and not a note of the script.
pub fn is_reserved(key: &str) -> bool {
    OF_THE_RUN.contains(&key) || OF_THE_START.contains(&key)
}

/// What a run keeps up to date.
const OF_THE_RUN: [&str; 7] = ["status", "step", "steps", "wall_s", "elapsed_s", "best", "lost_s"];

/// What a run is started with; resuming and grouping rely on it.
const OF_THE_START: [&str; 15] = [
    "name",
    "script",
    "arguments",
    "options",
    "seed",
    "device",
    "versions",
    "git_commit",
    "started",
    "recipe",
    "parameters",
    "decorrelated",
    "auto",
    "images",
    "normalization",
];

/// Seconds of training that a kill has lost, this time and before: they were logged, but no checkpoint holds them.
pub fn account_for_loss(dir: &Path, saved_wall_s: f64, record: &mut Map<String, Value>) -> f64 {
    let before: Value =
        fs::read(dir.join("run.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    // When it started, and what `Run::note` said before the checkpoint: the steps that said it are not run again.
    for (key, value) in before.as_object().into_iter().flatten() {
        let own = OF_THE_RUN.contains(&key.as_str());
        if ["started", "git_commit"].contains(&key.as_str()) || (!own && !record.contains_key(key)) {
            record.insert(key.clone(), value.clone());
        }
    }
    let logged = last_line(&dir.join("metrics.jsonl")).and_then(|line| line["wall_s"].as_f64()).unwrap_or(0.0);
    let lost = before["lost_s"].as_f64().unwrap_or(0.0) + (logged - saved_wall_s).max(0.0);
    (lost * 1e3).round() / 1e3
}

/// Writes `skipped.csv`: files that could not be read, with the reason. Nothing is written where there are none.
pub fn write_skipped(dir: &Path, skipped: &[(String, String)]) -> TrainResult<()> {
    if skipped.is_empty() {
        return Ok(());
    }
    let mut text = String::from("file,reason\n");
    for (file, reason) in skipped {
        text.push_str(&format!("{},{}\n", csv_field(file), csv_field(reason)));
    }
    replace_file(&dir.join("skipped.csv"), text.as_bytes())
}

fn csv_field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
