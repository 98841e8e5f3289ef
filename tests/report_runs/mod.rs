//! Run directories as training leaves them, made up for tests of reports.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(dead_code)] // Every test program compiles this file and uses its own part of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// A run to be written: what differs from the usual one.
pub struct Made {
    pub name: String,
    pub seed: u64,
    pub status: &'static str,
    /// `val_loss` or `miou`.
    pub figure: &'static str,
    /// Its values at steps 50, 100, …
    pub losses: Vec<f64>,
    pub seconds_per_step: f64,
    /// Entries over the usual ones of `run.json`.
    pub record: Value,
    /// Layers of `layers.jsonl` with their loss at the first step of a line.
    pub layers: Vec<(&'static str, f64)>,
}

impl Made {
    pub fn new(name: &str, seed: u64, losses: &[f64]) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            status: "done",
            figure: "val_loss",
            losses: losses.to_vec(),
            seconds_per_step: 0.5,
            record: json!({}),
            layers: Vec::new(),
        }
    }

    /// The cell of a grid with this setting.
    pub fn cell(grid: &str, setting: Value, seed: u64, losses: &[f64]) -> Self {
        let name = format!("{grid} {setting} {seed}");
        let cell = json!({ "grid": grid, "setting": setting, "seed": seed, "name": name, "address": name });
        Self { record: json!({ "cell": cell }), ..Self::new(&name, seed, losses) }
    }

    /// Adds entries to `run.json`.
    pub fn with(mut self, entries: Value) -> Self {
        let (Value::Object(record), Value::Object(entries)) = (&mut self.record, entries) else { panic!("no objects") };
        record.extend(entries);
        self
    }

    pub fn write(&self, dir: &Path) -> PathBuf {
        fs::create_dir_all(dir).unwrap();
        let step = self.losses.len() * 50;
        let wall = step as f64 * self.seconds_per_step;
        let better = |a: f64, b: f64| if self.figure == "miou" { a > b } else { a < b };
        let losses = self.losses.iter().copied().enumerate();
        let best = losses.reduce(|best, at| if better(at.1, best.1) { at } else { best });
        let mut record = json!({
            "name": self.name,
            "script": "/home/ada/work/scripts/study.rhai",
            "arguments": { "data": "photos", "steps": 200, "seeds": [0, 1, 2] },
            "seed": self.seed,
            "device": "cpu",
            "options": { "seed": null, "threads": 2, "folder": "/home/ada/work" },
            "versions": { "dbp_host": "0.1.0", "libtorch": "2.11.0" },
            "started": format!("2026-03-0{}T10:00:0{}+00:00", 1 + self.seed % 3, self.seed % 10),
            "recipe": { "lr": 0.006, "steps": 200, "split_seed": self.seed },
            "decorrelated": self.layers.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            "status": self.status,
            "step": step,
            "steps": 200,
            "wall_s": wall,
            "energy": {
                "energy_kwh": wall * 1e-5, "co2_kg": wall * 4.75e-6, "measured_share": 0.0,
                "intensity_g_per_kwh": 475.0, "intensity": "world average, 2018 (IEA)",
            },
        });
        let map = record.as_object_mut().unwrap();
        if let Some((at, value)) = best {
            map.insert("best".to_owned(), json!({ self.figure: value, "step": (at + 1) * 50 }));
        }
        map.extend(self.record.as_object().unwrap().clone());
        map.retain(|_, value| !value.is_null());
        fs::write(dir.join("run.json"), serde_json::to_string_pretty(&record).unwrap()).unwrap();
        fs::write(dir.join("metrics.jsonl"), self.metrics()).unwrap();
        fs::write(dir.join("layers.jsonl"), self.layer_lines()).unwrap();
        dir.to_owned()
    }

    /// Lines every 25 steps, every second one with a validation.
    fn metrics(&self) -> String {
        let mut text = String::new();
        for at in 1..=2 * self.losses.len() {
            let (step, seconds) = (at * 25, (at * 25) as f64 * self.seconds_per_step);
            let mut line = Map::new();
            line.insert("step".to_owned(), json!(step));
            line.insert("epoch".to_owned(), json!(step as f64 / 100.0));
            line.insert("wall_s".to_owned(), json!(seconds));
            line.insert("train_loss".to_owned(), json!(1.0 / at as f64));
            if at % 2 == 0 {
                line.insert(self.figure.to_owned(), json!(self.losses[at / 2 - 1]));
            }
            line.insert("energy_kwh".to_owned(), json!(seconds * 1e-5));
            line.insert("co2_kg".to_owned(), json!(seconds * 4.75e-6));
            text += &format!("{}\n", Value::Object(line));
        }
        text
    }

    fn layer_lines(&self) -> String {
        let line = |at: usize| {
            let figures = |loss: f64| json!({ "decor_loss": loss / at as f64, "mean_abs_corr": 0.5 / at as f64 });
            let layers: Map<String, Value> =
                self.layers.iter().map(|(name, loss)| ((*name).to_owned(), figures(*loss))).collect();
            format!("{}\n", json!({ "step": at * 50, "epoch": at, "layers": layers }))
        };
        if self.layers.is_empty() { String::new() } else { (1..=self.losses.len()).map(line).collect() }
    }
}

/// A parent of runs, named by their order, with the grids that its script went through.
pub fn parent(dir: &Path, runs: &[Made], grids: Value) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let mut list = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let child = format!("{}-{}", i + 1, run.name.split(' ').next().unwrap());
        run.write(&dir.join(&child));
        list.push(json!({ "name": run.name, "dir": child }));
    }
    let index = json!({ "runs": list, "grids": grids, "started": "2026-03-01T10:00:00+00:00" });
    fs::write(dir.join("index.json"), serde_json::to_string_pretty(&index).unwrap()).unwrap();
    dir.to_owned()
}
