//! What a run costs: its meter, and where the figures go: `metrics.jsonl`, `run.json`, `emissions.csv`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::energy::config::Config;
use crate::energy::emissions::{self, About};
use crate::energy::meter::Meter;
use crate::energy::reading::Reading;
use crate::energy::summary::{self, Of};

/// The account of one run.
pub struct Cost {
    /// `None` where this process does not meter it.
    meter: Option<Meter>,
    /// What was read last, or what the run had come to before: every file that is written at one time has the same figures.
    reading: Option<Reading>,
    /// Seconds that `emissions.csv` covers: a finished run that is looked at again stays as it is.
    written_s: f64,
    /// Why `emissions.csv` could not be written.
    unwritten: Option<String>,
}

impl Cost {
    /// Starts the meter, paused; gives the run the id that its row of `emissions.csv` has, if it has none yet. `before` is what
    /// the run had come to in `trained` time.
    pub fn start(
        config: Option<&Config>,
        mut before: Option<Reading>,
        trained: Duration,
        record: &mut Map<String, Value>,
    ) -> Self {
        let written_s = before.as_ref().map_or(0.0, |before| before.totals.active_s);
        let Some(config) = config else {
            return Self { meter: None, reading: before, written_s, unwritten: None };
        };
        record.entry("run_id").or_insert_with(|| json!(emissions::run_id()));
        let known = before.as_ref().map_or(0.0, |before| before.totals.active_s + before.totals.unmetered_s);
        let trained = trained.as_secs_f64();
        let unmetered = trained - known;
        // The clock and the meter of a run that was metered all along differ by microseconds a step.
        if unmetered > 0.01 * (1.0 + trained) {
            before.get_or_insert_default().totals.unmetered_s += unmetered;
        }
        let meter = Meter::start(config, before);
        let reading = Some(meter.reading());
        Self { meter: Some(meter), reading, written_s, unwritten: None }
    }

    pub fn resume(&self) {
        if let Some(meter) = &self.meter {
            meter.resume();
        }
    }

    pub fn pause(&self) {
        if let Some(meter) = &self.meter {
            meter.pause();
        }
    }

    /// See [`Meter::mark`].
    pub fn mark(&self) {
        if let Some(meter) = &self.meter {
            meter.mark();
        }
    }

    /// Asks the meter anew; `None` where the run was never metered.
    pub fn read(&mut self) -> Option<&Reading> {
        if let Some(meter) = &self.meter {
            self.reading = Some(meter.reading());
        }
        self.reading.as_ref()
    }

    /// At the end of a loop: gives slow sensors more time. The meter goes on, since another loop may follow.
    pub fn settle(&mut self) {
        if let Some(meter) = &self.meter {
            self.reading = Some(meter.stop());
        }
    }

    /// What was read last, for a line of `metrics.jsonl`. While a sensor's answer is awaited there is nothing: the sum would
    /// lack its part, and the curve would jump when it comes.
    pub fn figures(&self) -> Map<String, Value> {
        let mut figures = Map::new();
        if let (Some(reading), Some(_)) = (&self.reading, &self.meter)
            && !reading.waiting
            && let (Some(energy), Some(kg)) = (reading.energy(), reading.co2_kg())
        {
            figures.insert("energy_kwh".to_owned(), json!(digits(energy.kwh())));
            figures.insert("co2_kg".to_owned(), json!(digits(kg)));
        }
        figures
    }

    /// For `run.json`; `None` where the run was never metered.
    pub fn record(&self, images: u64) -> Option<Value> {
        let reading = self.reading.as_ref()?;
        let mut record = reading.to_json();
        if let Some(kwh) = summary::per_thousand(reading, images) {
            record.insert("kwh_per_1000_images".to_owned(), json!(kwh));
        }
        let problems = self.problems();
        if !problems.is_empty() {
            record.insert("problems".to_owned(), json!(problems));
        }
        Some(Value::Object(record))
    }

    /// Sensors that cannot be read, why there is no live intensity, and what could not be written.
    pub fn problems(&self) -> Vec<String> {
        let Some(meter) = &self.meter else { return Vec::new() };
        let machine = meter.machine();
        machine.problems.iter().cloned().chain(meter.carbon().problem()).chain(self.unwritten.clone()).collect()
    }

    /// Writes `emissions.csv`, which only repeats what other files say: that it cannot be written ends no run.
    pub fn write(&mut self, dir: &Path, record: &Map<String, Value>) {
        let (Some(meter), Some(reading)) = (&self.meter, &self.reading) else { return };
        if reading.totals.active_s == self.written_s {
            return;
        }
        self.written_s = reading.totals.active_s;
        let path = dir.join("emissions.csv");
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let about = About {
            project: text("name"),
            run_id: text("run_id"),
            experiment_id: text("script"),
            ..About::now(meter.config())
        };
        let written = emissions::write(&path, &emissions::row(&about, reading, &meter.machine()));
        self.unwritten = written.err().map(|err| format!("{}: {err}", path.display()));
    }

    /// What is said at the end.
    pub fn summary(&self, images: u64) -> Vec<String> {
        let Some(reading) = &self.reading else { return Vec::new() };
        let mut lines = summary::lines(reading, Of::Training { images });
        lines.extend(self.unwritten.clone());
        lines
    }
}

/// Nine digits: files stay readable, and nothing is lost that a sensor could tell.
fn digits(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}
