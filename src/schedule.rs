//! Rates by step. Pure functions of the step, so that resuming needs no replay.

use std::f64::consts::PI;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A learning rate, or a decorrelation rate, by step counted from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant(f64),
    /// Linear warm-up, then half a cosine down to `end` (Loshchilov and Hutter 2017, arXiv:1608.03983).
    Cosine(Ramp),
    /// Linear warm-up, then `(1 − progress)^power` down to `end`; power 1 is a straight line.
    Polynomial {
        ramp: Ramp,
        power: f64,
    },
    /// A rate for each step; the last one stays.
    Table(Table),
}

/// Rates by step, at least one; copies share them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub struct Table(Arc<[f64]>);

impl From<Vec<f64>> for Table {
    fn from(rates: Vec<f64>) -> Self {
        Self(rates.into())
    }
}

impl From<Table> for Vec<f64> {
    fn from(table: Table) -> Self {
        table.0.to_vec()
    }
}

/// Warm-up to a peak, and the steps it comes down in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ramp {
    pub peak: f64,
    /// The rate at step `total` and after it.
    pub end: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps in all, warm-up included.
    pub total: u64,
}

impl Schedule {
    /// Errors: the name and value of the first number that cannot be a rate or a power.
    pub fn check(&self) -> Result<(), String> {
        let fine = |name: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(format!("{name}: expected 0 or more, got {value}")),
        };
        match self {
            Self::Constant(rate) => fine("lr", *rate),
            Self::Cosine(ramp) => fine("lr", ramp.peak).and_then(|()| fine("min_lr", ramp.end)),
            Self::Polynomial { ramp, power } => {
                fine("lr", ramp.peak).and_then(|()| fine("min_lr", ramp.end)).and_then(|()| fine("power", *power))
            }
            Self::Table(Table(rates)) if rates.is_empty() => Err("total: expected 1 or more steps, got 0".to_owned()),
            Self::Table(Table(rates)) => {
                rates.iter().enumerate().try_for_each(|(step, rate)| fine(&format!("step {step}"), *rate))
            }
        }
    }

    /// The rate of step `step`. Warm-up starts at one increment above zero, so that no step is wasted.
    pub fn at(&self, step: u64) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::Cosine(ramp) => ramp.at(step, |progress| 0.5 * (1.0 + (PI * progress).cos())),
            Self::Polynomial { ramp, power } => ramp.at(step, |progress| (1.0 - progress).powf(*power)),
            Self::Table(Table(rates)) => {
                let at = usize::try_from(step).map_or(usize::MAX, |step| step).min(rates.len().saturating_sub(1));
                rates.get(at).copied().unwrap_or(0.0) // `check` refuses an empty one.
            }
        }
    }
}

impl Ramp {
    /// `left` maps progress after the warm-up, 0 to 1, to the share of `peak − end` that is left.
    fn at(&self, step: u64, left: impl Fn(f64) -> f64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        self.end + (self.peak - self.end) * left(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp() -> Ramp {
        Ramp { peak: 1.0, end: 0.1, warmup: 10, total: 110 }
    }

    #[test]
    fn cosine_warms_up_then_decays_to_its_end() {
        let schedule = Schedule::Cosine(ramp());
        for (step, want) in [(0, 0.1), (9, 1.0), (60, 0.55), (110, 0.1), (5000, 0.1)] {
            assert!((schedule.at(step) - want).abs() < 1e-12, "{step}");
        }
        assert_eq!(Schedule::Cosine(Ramp { end: 0.0, warmup: 0, ..ramp() }).at(0), 1.0);
    }

    #[test]
    fn polynomial_falls_by_its_power() {
        for (power, middle) in [(1.0, 0.55), (2.0, 0.325)] {
            let schedule = Schedule::Polynomial { ramp: ramp(), power };
            assert!((schedule.at(60) - middle).abs() < 1e-12);
            assert!((schedule.at(110) - 0.1).abs() < 1e-12);
        }
    }

    #[test]
    fn a_table_keeps_its_last_rate() {
        let schedule = Schedule::Table(vec![0.1, 0.2].into());
        assert_eq!([0, 1, 2, u64::MAX].map(|step| schedule.at(step)), [0.1, 0.2, 0.2, 0.2]);
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
    }

    #[test]
    fn rates_that_are_none_are_refused() {
        assert!(Schedule::Table(vec![].into()).check().is_err());
        assert!(Schedule::Table(vec![0.1, -0.1].into()).check().unwrap_err().starts_with("step 1"));
        assert!(Schedule::Constant(f64::NAN).check().is_err());
        assert!(Schedule::Cosine(Ramp { peak: -1.0, ..ramp() }).check().unwrap_err().starts_with("lr"));
        assert!(Schedule::Polynomial { ramp: ramp(), power: -1.0 }.check().unwrap_err().starts_with("power"));
    }
}
