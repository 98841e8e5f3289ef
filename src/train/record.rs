//! `run.json`: which of its entries are whose, and what a resumed run takes over from the one before.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::checkpoint::replace_file;
use super::metrics::last_value;
use super::{TrainError, TrainResult};
use crate::energy::emissions::field;
use crate::energy::reading::Reading;
use crate::energy::units::Joules;

/// How a run ended, or that it has not; as `run.json` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Done,
    Interrupted,
    Diverged,
    Failed,
}

/// Whether an entry of this name is the run's own, and not a note of the script.
pub fn is_reserved(key: &str) -> bool {
    OF_THE_RUN.contains(&key) || OF_THE_START.contains(&key)
}

/// What a run keeps up to date.
const OF_THE_RUN: [&str; 12] = [
    "status",
    "error",
    "step",
    "steps",
    "wall_s",
    "elapsed_s",
    "best",
    "lost_s",
    "lost_kwh",
    "energy",
    "peak_memory_bytes",
    "pruned",
];

/// What a run is started with; resuming and grouping rely on it.
const OF_THE_START: [&str; 20] = [
    "run_id",
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
    "continued_from",
    "patches",
    "smoke",
    "cell",
];

/// Takes over what `run.json` said before, and adds what a kill has lost, this time and earlier: seconds and energy that were
/// logged and that no checkpoint holds. Call it before the logs are cut back.
///
/// Errors: the disk's.
pub fn account_for_loss(
    dir: &Path,
    saved_wall_s: f64,
    saved: Option<&Reading>,
    record: &mut Map<String, Value>,
) -> TrainResult<()> {
    let path = dir.join("run.json");
    let before: Option<Map<String, Value>> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Some(mut before) = before else { return Ok(()) };
    // When it started, and what `Run::note` said before the checkpoint: the steps that said it are not run again.
    for (key, value) in &before {
        let own = OF_THE_RUN.contains(&key.as_str());
        if ["started", "git_commit", "run_id"].contains(&key.as_str()) || (!own && !record.contains_key(key)) {
            record.insert(key.clone(), value.clone());
        }
    }
    // The most memory that it ever took on this device.
    if before.get("device") == record.get("device")
        && let Some(peak) = before.get("peak_memory_bytes")
    {
        record.insert("peak_memory_bytes".to_owned(), peak.clone());
    }
    let saved_kwh = saved.and_then(Reading::energy).map_or(0.0, Joules::kwh);
    let mut lost_now = false;
    for (key, logged, saved, scale) in
        [("lost_s", "wall_s", saved_wall_s, 1e3), ("lost_kwh", "energy_kwh", saved_kwh, 1e9)]
    {
        let lost = (last_value(&dir.join("metrics.jsonl"), logged).unwrap_or(0.0) - saved).max(0.0);
        let all = before.get(key).and_then(Value::as_f64).unwrap_or(0.0) + lost;
        let all = (all * scale).round() / scale;
        if all > 0.0 {
            let rounded = json!(all);
            record.insert(key.to_owned(), rounded.clone());
            lost_now |= before.insert(key.to_owned(), rounded.clone()) != Some(rounded);
        }
    }
    // The logs are about to lose what this was counted from.
    if lost_now {
        let text = serde_json::to_vec_pretty(&before).map_err(|err| TrainError::broken(&path, err))?;
        replace_file(&path, &text)?;
    }
    Ok(())
}

/// Writes `skipped.csv`: files that could not be read, with the reason. Nothing is written where there are none.
pub fn write_skipped(dir: &Path, skipped: &[(String, String)]) -> TrainResult<()> {
    if skipped.is_empty() {
        return Ok(());
    }
    let mut text = String::from("file,reason\n");
    for (file, reason) in skipped {
        text.push_str(&format!("{},{}\n", field(file), field(reason)));
    }
    replace_file(&dir.join("skipped.csv"), text.as_bytes())
}
