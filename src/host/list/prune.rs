//! `dbp-host runs --keep N`: removes checkpoints of runs that are done. What remains of them, figures, pictures and exports, stays.
//!
//! A parent counts as one run, and only if all of its runs are done: resuming it needs the checkpoints of every one. A run that
//! lost its checkpoints says so in its record, so that it is not taken up again as if it had never begun.

use std::fs;
use std::path::{Path, PathBuf};

use chrono::Local;
use serde_json::{Value, json};

use super::{Entry, State, object};
use crate::host::errors::Failure;
use crate::host::preflight::{bytes_below, size};
use crate::host::runs::PRUNED;
use crate::host::say::{print_line, say};
use crate::train::checkpoint::replace_file;
use crate::train::lock::{RunLock, Taken};

/// Removes the checkpoints of all done runs but the `keep` newest; of `entries`, the last is the newest.
///
/// # Errors
/// The disk's, after what could be removed is.
pub fn prune(entries: &[Entry], keep: usize, dry_run: bool) -> Result<(), Failure> {
    // A cell of a grid that diverged is a result, and not tried again.
    let ended = |run: &Entry| matches!(run.status, State::Done | State::Diverged);
    let done = |entry: &&Entry| match entry.runs.as_slice() {
        [] => entry.status == State::Done,
        runs => ended(entry) && runs.iter().all(ended),
    };
    let mut old: Vec<&Entry> = entries.iter().filter(done).collect();
    old.truncate(old.len().saturating_sub(keep));
    let (mut freed, mut runs, mut failed) = (0, 0, None);
    for entry in old {
        match remove(entry, dry_run) {
            Ok(0) => {}
            Ok(bytes) => {
                let verb = if dry_run { "would remove" } else { "removed" };
                print_line(&format!("{verb} the checkpoints of {}, {}", entry.dir.display(), size(bytes)));
                freed += bytes;
                runs += 1;
            }
            Err(err) => {
                say(&format!("{}: {err}", entry.dir.display()));
                failed = Some(err);
            }
        }
    }
    let verb = if dry_run { "would be free" } else { "free now" };
    print_line(&match runs {
        0 => "nothing to remove".to_owned(),
        1 => format!("{} of 1 run {verb}", size(freed)),
        n => format!("{} of {n} runs {verb}", size(freed)),
    });
    match failed {
        Some(err) => Err(err),
        None => Ok(()),
    }
}

/// The bytes that went, or would go.
fn remove(entry: &Entry, dry_run: bool) -> Result<u64, Failure> {
    let single = std::slice::from_ref(entry);
    let dirs = if entry.runs.is_empty() { single } else { &entry.runs };
    let folders: Vec<PathBuf> = dirs.iter().map(|run| run.dir.join("checkpoints")).filter(|f| is_folder(f)).collect();
    let bytes = folders.iter().map(|folder| bytes_below(folder)).sum();
    if dry_run || bytes == 0 {
        return Ok(bytes);
    }
    let failed = |err: &dyn std::fmt::Display| Failure::machine(format!("cannot remove its checkpoints: {err}"));
    // Someone may have taken it up since it was looked at.
    let _held = match RunLock::take(&entry.dir).map_err(|err| failed(&err))? {
        Taken::Held(lock) => lock,
        Taken::Busy(_) => return Err(failed(&"a process is running it")),
    };
    // The word first: checkpoints without it would pass for a run that can be resumed.
    for run in dirs {
        mark(&run.dir.join("run.json")).map_err(|err| failed(&err))?;
    }
    if !entry.runs.is_empty() {
        mark(&entry.dir.join("index.json")).map_err(|err| failed(&err))?;
    }
    for folder in folders {
        fs::remove_dir_all(&folder).map_err(|err| failed(&err))?;
    }
    Ok(bytes)
}

/// Whether it is one itself, and not a link to one elsewhere.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn mark(path: &Path) -> Result<(), String> {
    let mut record = object(path)?;
    record.insert(PRUNED.to_owned(), json!(Local::now().to_rfc3339()));
    let text = serde_json::to_vec_pretty(&Value::Object(record)).map_err(|err| err.to_string())?;
    replace_file(path, &text).map_err(|err| err.to_string())
}
