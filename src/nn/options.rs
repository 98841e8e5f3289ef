//! How a layer is decorrelated: the options of `model.decorrelate`, checked.

use serde::{Deserialize, Serialize};

use super::{NnError, NnResult};

/// How η moves through a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecorSchedule {
    #[default]
    Constant,
    /// η is scaled by the weight learning rate over its peak, warm-up included.
    Follow,
}

/// When R is frozen; it is still applied afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopAt {
    Step(u64),
    Epoch(u64),
}

/// How many rows the update of R sees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sample {
    Rows(i64),
    /// Of all rows, in (0, 1].
    Fraction(f64),
}

/// The options of a decorrelated layer, as `model.decorrelate` takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecorOptions {
    /// η of eq. 4. Must stay below 2/λmax of the inputs' correlation, which shrinks with width: 5e-2 diverges within 100
    /// steps at width 128 to 512.
    pub lr: f64,
    /// Rows the update sees.
    pub sample: Sample,
    /// Most rows the update sees, whatever `sample` says; 0 is no bound.
    pub max_rows: i64,
    /// Share of the variance term: 0 is the paper's rule, 1 only normalizes each row's variance.
    pub kappa: f64,
    /// Update R at every `every`-th step.
    pub every: u64,
    pub schedule: DecorSchedule,
    pub stop_at: Option<StopAt>,
}

impl Default for DecorOptions {
    /// The paper's tuned values for ViT-Base (arXiv:2510.14657, §4.1 and Appendices A and C).
    fn default() -> Self {
        Self {
            lr: 5e-4,
            sample: Sample::Fraction(0.10),
            max_rows: 0,
            kappa: 0.0,
            every: 1,
            schedule: DecorSchedule::Constant,
            stop_at: None,
        }
    }
}

impl DecorOptions {
    /// Errors: [`NnError::Config`] naming the first option outside its range.
    pub fn check(&self) -> NnResult<()> {
        let fail = |message: String| Err(NnError::Config(message));
        if !(self.lr.is_finite() && self.lr >= 0.0) {
            return fail(format!("lr: expected a decorrelation rate of 0 or more, got {}", self.lr));
        }
        match self.sample {
            Sample::Rows(rows) if rows < 1 => {
                return fail(format!("sample: expected 1 or more rows, or a fraction up to 1.0, got {rows}"));
            }
            Sample::Fraction(fraction) if !(fraction > 0.0 && fraction <= 1.0) => {
                return fail(format!(
                    "sample: expected a fraction above 0 up to 1.0, or a whole number of rows, got {fraction}"
                ));
            }
            _ => {}
        }
        if self.max_rows < 0 {
            return fail(format!("max_rows: expected 0 (no bound) or a number of rows, got {}", self.max_rows));
        }
        if !(0.0..=1.0).contains(&self.kappa) {
            return fail(format!("kappa: expected a number between 0 and 1, got {}", self.kappa));
        }
        if self.every == 0 {
            return fail("every: expected 1 or more steps, got 0".to_owned());
        }
        Ok(())
    }

    /// How many of `total` rows the update sees: at least one.
    pub fn rows(&self, total: i64) -> i64 {
        let wanted = match self.sample {
            Sample::Rows(rows) => rows,
            Sample::Fraction(fraction) => (total as f64 * fraction) as i64,
        };
        let bound = if self.max_rows == 0 { total } else { self.max_rows.min(total) };
        wanted.clamp(1, bound.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_sample_and_bound() {
        let options = DecorOptions::default();
        assert_eq!(options.rows(4352), 435);
        assert_eq!(options.rows(3), 1);
        assert_eq!(DecorOptions { sample: Sample::Rows(64), ..options.clone() }.rows(4352), 64);
        assert_eq!(DecorOptions { sample: Sample::Rows(64), ..options.clone() }.rows(32), 32);
        assert_eq!(DecorOptions { max_rows: 100, ..options.clone() }.rows(4352), 100);
        assert_eq!(DecorOptions { sample: Sample::Rows(1), ..options.clone() }.rows(4352), 1);
        assert_eq!(DecorOptions { sample: Sample::Fraction(1.0), ..options }.rows(4352), 4352);
    }

    #[test]
    fn values_outside_their_range_are_named() {
        for (options, name) in [
            (DecorOptions { lr: -1.0, ..Default::default() }, "lr"),
            (DecorOptions { sample: Sample::Rows(0), ..Default::default() }, "sample"),
            (DecorOptions { sample: Sample::Fraction(1.5), ..Default::default() }, "sample"),
            (DecorOptions { kappa: 1.1, ..Default::default() }, "kappa"),
            (DecorOptions { kappa: f64::NAN, ..Default::default() }, "kappa"),
            (DecorOptions { every: 0, ..Default::default() }, "every"),
        ] {
            assert!(options.check().unwrap_err().to_string().starts_with(name));
        }
    }
}
