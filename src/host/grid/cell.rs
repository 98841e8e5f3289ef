//! One cell of a grid: a setting and a seed. Its outcome is read off its run directory, whoever ran it.

use std::path::{Path, PathBuf};

use rhai::{Dynamic, Map as ScriptMap};
use serde_json::{Map, Value, json};

use crate::host::args::{free, read_run_json};
use crate::train::run::Status;

/// The key of a setting that says how it is called, where its values would make a poor name.
pub const LABEL: &str = "label";

#[derive(Clone, Debug)]
pub struct Cell {
    /// `bp seed=0`, `lr=0.006 seed=1`: what tells it from the others of its grid.
    pub name: String,
    /// The same without the grid's name and the seed.
    pub label: String,
    pub setting: Map<String, Value>,
    pub seed: u64,
    pub address: String,
    /// Once it has one.
    pub dir: Option<PathBuf>,
}

impl Cell {
    /// What `run.json` says of it.
    pub fn record(&self, grid: &str) -> Value {
        let Self { name, label, .. } = self;
        json!({ "grid": grid, "name": name, "label": label, "setting": self.setting, "seed": self.seed, "address": self.address })
    }

    /// What its function is called with: the setting, with `seed` and `name`.
    pub fn argument(&self) -> Dynamic {
        let mut argument: ScriptMap =
            self.setting.iter().map(|(key, value)| (key.as_str().into(), free(value))).collect();
        argument.insert("seed".into(), (self.seed as i64).into());
        argument.insert("name".into(), self.name.as_str().into());
        argument.into()
    }

    /// How it stands. What cannot be read is as if it had never begun.
    pub fn standing(&self) -> Standing {
        let record = self.dir.as_deref().and_then(|dir| read_run_json(dir).ok()).unwrap_or_default();
        match record.get("status") {
            Some(status) if *status == json!(Status::Done) => Standing::Done,
            // The same numbers would diverge again.
            Some(status) if *status == json!(Status::Diverged) => Standing::Diverged,
            Some(status) if *status == json!(Status::Failed) => Standing::Failed,
            Some(_) => Standing::Begun,
            None => Standing::New,
        }
    }

    /// For the script: its setting and seed, how it ended, and what `run.json` says.
    pub fn result(&self) -> Dynamic {
        let record = self.dir.as_deref().and_then(|dir| read_run_json(dir).ok()).unwrap_or_default();
        let mut result = ScriptMap::new();
        let status = record.get("status").and_then(Value::as_str).unwrap_or("missing");
        let setting = free(&Value::Object(self.setting.clone()));
        result.insert("name".into(), self.name.as_str().into());
        result.insert("label".into(), self.label.as_str().into());
        result.insert("setting".into(), setting);
        result.insert("seed".into(), (self.seed as i64).into());
        result.insert("status".into(), status.into());
        result.insert("address".into(), self.address.as_str().into());
        result.insert("dir".into(), self.dir.as_deref().map_or("".into(), |dir| whole(dir).into()));
        result.insert("best".into(), record.get("best").map_or(Dynamic::UNIT, free));
        result.insert("wall_s".into(), record.get("wall_s").map_or(Dynamic::UNIT, free));
        result.insert("record".into(), free(&Value::Object(record)));
        result.into()
    }
}

/// The whole path: it is the same in every process, so that a setting may hold it.
fn whole(dir: &Path) -> String {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()).display().to_string()
}

/// How far a cell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    New,
    /// It was interrupted or killed, or runs in another process.
    Begun,
    /// By an error: it is tried again.
    Failed,
    Diverged,
    Done,
}

impl Standing {
    /// Whether running it again would change nothing.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Diverged)
    }
}

/// How a setting is called: by its label, or by the values that differ among all.
pub fn label(setting: &Map<String, Value>, all: &[Map<String, Value>]) -> String {
    if let Some(label) = setting.get(LABEL).and_then(Value::as_str) {
        return label.to_owned();
    }
    let mut parts = Vec::new();
    for (key, value) in setting {
        let differs = all.iter().any(|other| other.get(key) != Some(value));
        match value {
            _ if !differs => {}
            Value::String(text) => parts.push(text.clone()),
            value => parts.push(format!("{key}={}", short(value))),
        }
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join(" ") }
}

/// A value without what makes JSON hard to read.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join("+"),
        Value::Null => "unset".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_show_what_differs() {
        let maps = |texts: &[&str]| -> Vec<Map<String, Value>> {
            texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
        };
        let all = maps(&[r#"{"arm": "bp", "lr": 0.1}"#, r#"{"arm": "dbp", "lr": 0.1}"#]);
        assert_eq!(label(&all[1], &all), "dbp");
        let all = maps(&[r#"{"modules": []}"#, r#"{"modules": ["encoder.**", "!a"]}"#, r#"{"lr": null}"#]);
        assert_eq!(label(&all[0], &all), "modules=none");
        assert_eq!(label(&all[1], &all), "modules=encoder.**+!a");
        assert_eq!(label(&all[2], &all), "lr=unset");
        let labeled = maps(&[r#"{"label": "attention", "modules": ["x"]}"#]);
        assert_eq!(label(&labeled[0], &labeled), "attention");
        assert_eq!(label(&all[0], &all[..1]), "all", "nothing differs");
    }
}
