//! Files of JSON lines that a resumed run can cut back to its checkpoint.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::error::At;
use super::{TrainError, TrainResult};

/// An append-only file, a JSON object per line, each written at once.
pub struct LineLog {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LineLog {
    /// Opens the file, cut to its first `keep` bytes: 0 starts anew.
    ///
    /// Errors: a file shorter than `keep` has lost lines that a checkpoint counts on.
    pub fn open(path: &Path, keep: u64) -> TrainResult<Self> {
        let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(path).at(path)?;
        let length = file.metadata().at(path)?.len();
        if length < keep {
            let problem = format!("{length} bytes long, but the checkpoint was saved when it had {keep}");
            return Err(TrainError::broken(path, problem));
        }
        file.set_len(keep).at(path)?;
        file.seek(SeekFrom::End(0)).at(path)?;
        Ok(Self { path: path.to_owned(), file, bytes: keep })
    }

    /// The file has been moved to `path`, with the directory it lies in.
    pub fn set_path(&mut self, path: PathBuf) {
        self.path = path;
    }

    pub fn append(&mut self, line: &impl Serialize) -> TrainResult<()> {
        let mut text = serde_json::to_vec(line).map_err(|err| TrainError::broken(&self.path, err))?;
        text.push(b'\n');
        self.file.write_all(&text).at(&self.path)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Every line so far.
    ///
    /// Errors: the file cannot be read, or has a line that is not JSON.
    pub fn lines(&self) -> TrainResult<Vec<Value>> {
        let text = fs::read_to_string(&self.path).at(&self.path)?;
        text.lines().map(|line| serde_json::from_str(line).map_err(|err| TrainError::broken(&self.path, err))).collect()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts everything on the disk, so that a checkpoint may count on it.
    pub fn sync(&self) -> TrainResult<()> {
        self.file.sync_data().at(&self.path)
    }
}

/// The number under `key` in the last line of a file of JSON lines that has one.
pub fn last_value(path: &Path, key: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().rev().find_map(|line| serde_json::from_str::<Value>(line).ok()?[key].as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_back_and_continued() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = LineLog::open(&path, 0).unwrap();
        log.append(&serde_json::json!({ "step": 1 })).unwrap();
        let keep = log.bytes();
        log.append(&serde_json::json!({ "step": 2 })).unwrap();
        drop(log);
        let mut log = LineLog::open(&path, keep).unwrap();
        log.append(&serde_json::json!({ "step": 3 })).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"step\":1}\n{\"step\":3}\n");
        assert_eq!((last_value(&path, "step"), last_value(&path, "energy_kwh")), (Some(3.0), None));
        assert!(LineLog::open(&path, 1000).is_err());
    }
}
