//! Learning rates by step.

use std::f64::consts::PI;

use super::{TrainError, TrainResult};

/// Linear warm-up, then half a cosine down to `min_lr` at `total` (Loshchilov and Hutter 2017), by step.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmupCosine {
    pub lr: f64,
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps in all, warm-up included.
    pub total: u64,
}

impl WarmupCosine {
    /// Errors: [`TrainError::Config`] for rates that are negative or not finite.
    pub fn new(lr: f64, min_lr: f64, warmup: u64, total: u64) -> TrainResult<Self> {
        for (name, value) in [("lr", lr), ("min_lr", min_lr)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(TrainError::Config(format!("{name}: expected 0 or more, got {value}")));
            }
        }
        Ok(Self { lr, min_lr, warmup, total })
    }

    /// The rate of step `step`, counted from 0; its first value is one warm-up increment, so that no step is wasted.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        self.min_lr + (self.lr - self.min_lr) * 0.5 * (1.0 + (PI * progress).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warms_up_then_decays_to_the_minimum() {
        let schedule = WarmupCosine::new(1.0, 0.1, 10, 110).unwrap();
        assert!((schedule.at(0) - 0.1).abs() < 1e-12);
        assert!((schedule.at(9) - 1.0).abs() < 1e-12);
        assert!((schedule.at(60) - 0.55).abs() < 1e-12);
        assert!((schedule.at(110) - 0.1).abs() < 1e-12);
        assert!((schedule.at(5000) - 0.1).abs() < 1e-12);
        assert_eq!(WarmupCosine::new(1.0, 0.0, 0, 10).unwrap().at(0), 1.0);
        assert!(WarmupCosine::new(-1.0, 0.0, 0, 10).is_err());
    }
}
