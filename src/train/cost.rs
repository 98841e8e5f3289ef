//! What a run costs: its meter, and where the figures go: `metrics.jsonl`, `run.json`, `emissions.csv`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::TrainResult;
use super::error::At;
use crate::energy::config::Config;
use crate::energy::emissions::{self, About};
use crate::energy::meter::Meter;
use crate::energy::reading::Reading;
use crate::energy::summary::{self, Of};
use crate::energy::units::Joules;

/// The meter of one run.
pub struct Cost {
    meter: Meter,
    /// What it said last: every file that is written at one time has the same figures.
    reading: Reading,
    ended: bool,
}

impl Cost {
    /// Starts the meter, paused; gives the run the id that its row of `emissions.csv` has, if it has none yet.
    pub fn start(config: &Config, before: Option<Reading>, record: &mut Map<String, Value>) -> Self {
        record.entry("run_id").or_insert_with(|| json!(emissions::run_id()));
        let meter = Meter::start(config, before);
        let reading = meter.reading();
        Self { meter, reading, ended: false }
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Asks the meter anew.
    pub fn read(&mut self) -> &Reading {
        if !self.ended {
            self.reading = self.meter.reading();
        }
        &self.reading
    }

    /// The last word of a run that has ended.
    pub fn stop(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.reading = self.meter.stop();
        }
    }

    /// What was read last, for a line of `metrics.jsonl`. While a sensor's answer is awaited there are none: the sum would lack its part, and the
    /// curve would jump when it comes.
    pub fn figures(&self) -> Map<String, Value> {
        let reading = &self.reading;
        let mut figures = Map::new();
        if !reading.waiting
            && let (Some(energy), Some(kg)) = (reading.energy(), reading.co2_kg())
        {
            figures.insert("energy_kwh".to_owned(), json!(digits(energy.kwh())));
            figures.insert("co2_kg".to_owned(), json!(digits(kg)));
        }
        figures
    }

    /// For `run.json`.
    pub fn record(&self, images: u64) -> Value {
        let reading = &self.reading;
        let mut record = reading.to_json();
        record.insert("intensity".to_owned(), json!(self.meter.carbon().describe()));
        if let (Some(kwh), true) = (reading.energy().map(Joules::kwh), images > 0) {
            record.insert("kwh_per_1000_images".to_owned(), json!(kwh / images as f64 * 1e3));
        }
        let problems = self.problems();
        if !problems.is_empty() {
            record.insert("problems".to_owned(), json!(problems));
        }
        Value::Object(record)
    }

    /// Sensors that cannot be read, and why there is no live intensity.
    pub fn problems(&self) -> Vec<String> {
        self.meter.machine().problems.iter().cloned().chain(self.meter.carbon().problem()).collect()
    }

    /// Writes `emissions.csv`.
    ///
    /// Errors: the disk's.
    pub fn write(&self, dir: &Path, record: &Map<String, Value>) -> TrainResult<()> {
        let path = dir.join("emissions.csv");
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = About {
            project: text("name"),
            run_id: text("run_id"),
            experiment_id: text("script"),
            ..About::now(self.meter.config())
        };
        emissions::write(&path, &emissions::row(&about, &self.reading, self.meter.machine())).at(&path)
    }

    /// What is said at the end.
    pub fn summary(&self, images: u64) -> Vec<String> {
        summary::lines(&self.reading, &self.meter.carbon().describe(), Of::Training { images })
    }
}

/// Nine digits: files stay readable, and nothing is lost that a sensor could tell.
fn digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}
