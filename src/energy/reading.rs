//! What a meter says: energy by component with where each figure came from, emissions, and what is missing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::account::{Account, Mean};
use super::units::Joules;

/// What is added up, and what checkpoints keep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Seconds of training that were metered.
    pub active_s: f64,
    /// Seconds of training before that were not: the run was started without a meter.
    pub unmetered_s: f64,
    pub cpu: Account,
    pub gpu: Account,
    pub ram: Account,
    /// kg of CO₂ equivalent, data center overhead included, each interval at the intensity of its time.
    pub co2_kg: f64,
    /// Where the intensity came from; several if a run was carried on elsewhere.
    pub grids: Vec<String>,
    /// Memory in use.
    pub memory_gib: Mean,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    pub totals: Totals,
    /// Power usage effectiveness now: what the building draws for each joule of the machine.
    pub pue: f64,
    /// A read has just failed and may be made up for: the sum lacks energy that the next may bring.
    #[serde(skip)]
    pub waiting: bool,
    /// What keeps the whole meter from working.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Reading {
    /// The components by name, those without any source included.
    pub fn components(&self) -> [(&'static str, &Account); 3] {
        [("cpu", &self.totals.cpu), ("gpu", &self.totals.gpu), ("ram", &self.totals.ram)]
    }

    /// All components, data center overhead included; `None` where none could be read.
    pub fn energy(&self) -> Option<Joules> {
        if self.problem.is_some() {
            return None;
        }
        let known: Vec<Joules> = self.components().iter().filter_map(|(_, account)| account.with_overhead()).collect();
        (!known.is_empty()).then(|| known.into_iter().sum())
    }

    /// kg of CO₂ equivalent; `None` where no energy is known.
    pub fn co2_kg(&self) -> Option<f64> {
        self.energy().map(|_| self.totals.co2_kg)
    }

    /// The mean power usage effectiveness over the energy so far: a run may be carried on at another.
    pub fn mean_pue(&self) -> f64 {
        let joules: Joules = self.components().iter().filter_map(|(_, account)| account.joules()).sum();
        let overhead: Joules = self.components().iter().map(|(_, account)| account.overhead).sum();
        // Sums of many polls end in digits that nobody gave.
        if joules.0 > 0.0 { ((1.0 + overhead.0 / joules.0) * 1e6).round() / 1e6 } else { self.pue }
    }

    /// The mean intensity over the energy so far, in g/kWh; `None` before there is any.
    pub fn mean_intensity(&self) -> Option<f64> {
        let kwh = self.energy()?.kwh();
        (kwh > 0.0).then(|| self.totals.co2_kg * 1e3 / kwh)
    }

    /// The share of the energy that sensors measured, 0 to 1; the rest is estimated. `None` before there is any.
    pub fn measured_share(&self) -> Option<f64> {
        let all: Joules = self.components().iter().filter_map(|(_, account)| account.joules()).sum();
        let measured: Joules = self.components().iter().map(|(_, account)| account.measured()).sum();
        (all.0 > 0.0).then(|| measured.0 / all.0)
    }

    /// The sensors have not answered for the last `time` of training: it is a gap of every component.
    pub(super) fn uncovered(&mut self, time: Duration) {
        self.waiting = true;
        self.totals.active_s += time.as_secs_f64();
        for account in [&mut self.totals.cpu, &mut self.totals.gpu, &mut self.totals.ram] {
            if account.joules().is_some() {
                account.gap_s += time.as_secs_f64();
                account.problem = Some("the sensors do not answer".to_owned());
            }
        }
    }

    /// For `run.json` and `energy --json`: only what is known.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                all.insert(key.to_owned(), value);
            }
        };
        put("energy_kwh", self.energy().map(|joules| json!(joules.kwh())));
        put("co2_kg", self.co2_kg().map(|kg| json!(kg)));
        put("seconds", Some(json!((self.totals.active_s * 1e3).round() / 1e3)));
        put("unmetered_s", (self.totals.unmetered_s > 0.0).then(|| json!(self.totals.unmetered_s)));
        put("pue", Some(json!(self.mean_pue())));
        put("intensity_g_per_kwh", self.mean_intensity().map(|grams| json!(grams)));
        put("measured_share", self.measured_share().map(|share| json!(share)));
        let components: Map<String, Value> = self
            .components()
            .into_iter()
            .filter(|(_, account)| account.joules().is_some() || account.problem.is_some())
            .map(|(name, account)| (name.to_owned(), component_json(account)))
            .collect();
        put("intensity", (!self.totals.grids.is_empty()).then(|| json!(self.intensity())));
        put("components", Some(Value::Object(components)));
        put("problem", self.problem.as_ref().map(|why| json!(why)));
        all
    }

    /// Where the intensity comes from.
    pub fn intensity(&self) -> String {
        self.totals.grids.join("; then ")
    }
}

fn component_json(account: &Account) -> Value {
    let mut all = Map::new();
    if let (Some(joules), Some(with_overhead)) = (account.joules(), account.with_overhead()) {
        all.insert("kwh".to_owned(), json!(with_overhead.kwh()));
        all.insert("joules".to_owned(), json!(joules.0));
    }
    all.insert("sources".to_owned(), json!(account.parts));
    if account.gap_s > 0.0 {
        all.insert("gap_s".to_owned(), json!((account.gap_s * 1e3).round() / 1e3));
    }
    for (key, count) in [("missed_reads", account.missed_reads), ("resets", account.resets)] {
        if count > 0 {
            all.insert(key.to_owned(), json!(count));
        }
    }
    if let Some(problem) = &account.problem {
        all.insert("problem".to_owned(), json!(problem));
    }
    Value::Object(all)
}
