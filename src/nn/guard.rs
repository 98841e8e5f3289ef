//! Keeps an R finite that its rule does not: looks at it every [`EVERY`] updates, and halves its η where it must.
//!
//! Two things go wrong. η above 2/λmax of C overshoots at every step. And R grows without bound in directions that no input
//! has (arXiv:2510.14657 reports instability late in training): rows beyond a limit halve η, and the limit doubles.
//! Long before that, what has grown where no input is drowns the rest of `A = W R` in bfloat16's rounding: such a layer goes on
//! in float32. The same look serves `patience`. What it reads from the device, it reads for all layers at once.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::NnResult;
use super::factor::{Factor, largest_eigenvalue};
use super::metrics::decor_loss;

/// Updates between two looks.
pub const EVERY: u64 = 50;

/// Rows of R longer than this, 1 at the start, are the first sign of growth without bound.
const FIRST_LIMIT: f64 = 8.0;

/// A layer whose rounded product is off by more than this share computes in float32 from then on: three times what
/// bfloat16's rounding of well-conditioned inputs and weights costs, and less than 1 % by the time of the next look.
const COARSE: f64 = 0.008;

/// Rows that tell how far a rounded product is off.
const ROWS: i64 = 256;

/// A decorrelation loss within 1 % of the lowest has not fallen.
const FALLEN: f64 = 0.99;

/// What a layer's guard has decided so far; a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// η is multiplied by this: 1, or a power of ½.
    pub scale: f64,
    /// Length of R's rows that halves η next.
    limit: f64,
    /// The lowest decorrelation loss seen, and its step.
    lowest: Option<(f64, u64)>,
    /// Whether products of the layer stay in float32 when those of other layers are rounded.
    #[serde(default)]
    pub exact: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self { scale: 1.0, limit: FIRST_LIMIT, lowest: None, exact: false }
    }
}

/// What a look found; read from the device for all layers at once.
pub struct Look {
    pub loss: f64,
    pub longest_row: f64,
    pub largest_eigenvalue: f64,
    /// Relative error of the layer's product; not a number where it is not rounded.
    pub rounding: f64,
}

impl Look {
    pub const FIGURES: usize = 4;

    /// The figures in the order of the fields, left on the device. `rounded` is `A = W R` if it is rounded, and what to. Shapes:
    /// `rows [n, groups · d]`, `A [groups, o, d]` → `[4]`.
    pub fn take(factor: &Factor, rows: &Tensor, kappa: f64, rounded: Option<(&Tensor, Kind)>) -> NnResult<Tensor> {
        let z = factor.rows_by_block(rows)?;
        let rounding = match rounded {
            Some((a, kind)) => rounding_error(rows, a, kind)?,
            None => rows.f_new_full([1i64; 0], f64::NAN, (rows.kind(), rows.device()))?,
        };
        let figures = [decor_loss(&z)?, factor.longest_row()?, largest_eigenvalue(&z, kappa)?, rounding];
        let scalars = figures.iter().map(|figure| figure.f_reshape([])).collect::<Result<Vec<_>, _>>()?;
        Ok(Tensor::f_stack(&scalars, 0)?)
    }
}

/// `‖x̃ Ãᵀ − x Aᵀ‖ / ‖x Aᵀ‖` of the first [`ROWS`] rows, where x̃ and Ã are rounded to `kind` and sums are not; left on the
/// device. Shapes: `x [n, groups · d]`, `A [groups, o, d]`.
fn rounding_error(rows: &Tensor, a: &Tensor, kind: Kind) -> NnResult<Tensor> {
    let (groups, width) = (a.size()[0], a.size()[2]);
    let x = rows.f_narrow(0, 0, ROWS.min(rows.size()[0]))?.f_reshape([-1, groups, width])?.f_transpose(0, 1)?;
    let product = |x: &Tensor, a: &Tensor| x.f_matmul(&a.f_transpose(1, 2)?);
    let round = |tensor: &Tensor| tensor.f_to_kind(kind)?.f_to_kind(tensor.kind());
    let exact = product(&x, a)?;
    let error = product(&round(&x)?, &round(a)?)?.f_sub(&exact)?;
    Ok(error.f_norm()?.f_div(&exact.f_norm()?)?)
}

/// What follows from a look.
#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// For the person who watches the run.
    pub notices: Vec<String>,
    /// Its loss falls no longer: freeze R.
    pub freeze: bool,
}

impl Guard {
    /// Judges a look at `step` of a layer whose η is `rate` at most, before this guard's own scale.
    pub fn judge(&mut self, look: &Look, name: &str, rate: f64, patience: u64, step: u64) -> Verdict {
        let mut verdict = Verdict::default();
        let stable = 2.0 / look.largest_eigenvalue;
        let before = rate * self.scale;
        if stable.is_finite() && stable > 0.0 && before > stable {
            while rate * self.scale > stable {
                self.scale *= 0.5;
            }
            verdict.notices.push(format!(
                "decorrelation of {name}: a rate of {before:.2e} is above 2/λmax = {stable:.2e} of its inputs, where R \
                 diverges; it goes on with {:.2e}",
                rate * self.scale
            ));
        } else if look.longest_row.is_finite() && look.longest_row > self.limit {
            self.scale *= 0.5;
            verdict.notices.push(format!(
                "decorrelation of {name}: R keeps growing, its longest row is {:.1}; the rate is halved to {:.2e}",
                look.longest_row,
                rate * self.scale
            ));
            while look.longest_row > self.limit {
                self.limit *= 2.0;
            }
        }
        if !self.exact && look.rounding > COARSE {
            self.exact = true;
            verdict.notices.push(format!(
                "decorrelation of {name}: with its R, bfloat16 puts outputs off by {:.1} %; the layer goes on in float32",
                100.0 * look.rounding
            ));
        }
        match self.lowest {
            // Steps that count from 0 again are another run's, and its patience is whole.
            Some((lowest, at)) if step >= at && (look.loss.is_nan() || look.loss >= FALLEN * lowest) => {
                verdict.freeze = patience > 0 && step - at >= patience;
            }
            _ if look.loss.is_finite() => self.lowest = Some((look.loss, step)),
            _ => {}
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(loss: f64, longest_row: f64, largest_eigenvalue: f64) -> Look {
        Look { loss, longest_row, largest_eigenvalue, rounding: f64::NAN }
    }

    #[test]
    fn a_rate_beyond_stability_is_halved_until_it_is_not() {
        let mut guard = Guard::default();
        let verdict = guard.judge(&look(1.0, 1.0, 100.0), "fc1", 0.05, 0, 0);
        assert_eq!(guard.scale, 0.25); // 0.0125 < 2/100
        let [notice] = verdict.notices.as_slice() else { panic!("{verdict:?}") };
        assert!(notice.starts_with("decorrelation of fc1: a rate of 5.00e-2 is above 2/λmax = 2.00e-2"), "{notice}");
        assert_eq!(guard.judge(&look(1.0, 1.0, 100.0), "fc1", 0.05, 0, 50), Verdict::default());
        assert_eq!(guard.judge(&look(1.0, 1.0, 0.0), "fc1", 0.05, 0, 50), Verdict::default());
    }

    #[test]
    fn growth_halves_the_rate_once_per_doubling() {
        let mut guard = Guard::default();
        let grown = |guard: &mut Guard, row| guard.judge(&look(1.0, row, 1.0), "fc1", 0.1, 0, 0).notices.len() == 1;
        assert!(!grown(&mut guard, 7.9));
        assert!(grown(&mut guard, 8.1) && guard.scale == 0.5);
        assert!(!grown(&mut guard, 15.9));
        assert!(grown(&mut guard, 50.0) && guard.scale == 0.25);
        assert!(!grown(&mut guard, 63.0));
    }

    #[test]
    fn a_coarse_product_goes_on_in_float32() {
        let mut guard = Guard::default();
        let mut notices =
            |rounding| guard.judge(&Look { rounding, ..look(1.0, 1.0, 1.0) }, "fc1", 0.1, 0, 0).notices.concat();
        assert_eq!((notices(f64::NAN), notices(0.004)), (String::new(), String::new()));
        let expected =
            "decorrelation of fc1: with its R, bfloat16 puts outputs off by 0.9 %; the layer goes on in float32";
        assert_eq!((notices(0.0094).as_str(), notices(0.0094).as_str()), (expected, ""));
        assert!(guard.exact);
    }

    #[test]
    fn patience_counts_steps_without_a_fall() {
        let mut guard = Guard::default();
        let freeze = |guard: &mut Guard, loss, step| guard.judge(&look(loss, 1.0, 1.0), "fc1", 0.1, 100, step).freeze;
        assert!(!freeze(&mut guard, 1.0, 0));
        assert!(!freeze(&mut guard, 0.995, 50)); // Not 1 % lower.
        assert!(!freeze(&mut guard, 0.9, 100));
        assert!(!freeze(&mut guard, 0.95, 150));
        assert!(freeze(&mut guard, 0.95, 200));
    }
}
