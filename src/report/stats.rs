//! Statistics of a handful of seeds: intervals of a mean, Welch's and the paired t-test, effect sizes, Holm's correction.
//!
//! Sources: Student 1908; Welch 1947 (degrees of freedom of Satterthwaite 1946); Hedges 1981, eq. 6e, for the exact
//! correction of g; Holm 1979. d_z is the mean of the paired differences over their standard deviation (Cohen 1988).
//! The distribution is that of `statrs`; results agree with scipy to 1e-9 (`tests/reference/scipy_tests.py`).
//!
//! Without any spread there is no test: as scipy has it, equal means give no t (here: nothing, there: NaN), and unequal ones
//! an infinite t with p = 0.

use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::gamma::ln_gamma;

/// Values of one figure, a number per seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    pub n: usize,
    pub mean: f64,
    /// Of the sample (n − 1); `None` for one value.
    pub sd: Option<f64>,
}

impl Summary {
    /// `None` for no values.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len();
        let mean = mean(values);
        // Two passes: values far from zero keep their spread.
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some(Self { n, mean, sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()) })
    }

    /// The interval that covers the mean with this confidence, from Student's t; `None` for one value.
    pub fn interval(&self, confidence: f64) -> Option<(f64, f64)> {
        let half = self.half_width(confidence)?;
        Some((self.mean - half, self.mean + half))
    }

    /// Half the width of [`Summary::interval`].
    pub fn half_width(&self, confidence: f64) -> Option<f64> {
        let error = self.sd? / (self.n as f64).sqrt();
        Some(quantile(confidence, (self.n - 1) as f64) * error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two samples, variances not taken to be equal.
    Welch,
    /// Pairs of one seed each.
    Paired,
}

/// A two-sided t-test of a difference of means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    pub kind: Kind,
    /// Sizes of the two samples; of pairs, twice their number.
    pub n: (usize, usize),
    /// Mean of the first sample less that of the second.
    pub difference: f64,
    /// Infinite for a difference without spread.
    pub t: f64,
    pub df: f64,
    pub p: f64,
    /// Standard error of the difference.
    pub error: f64,
    /// Hedges' g (Welch) or d_z (pairs); `None` without spread.
    pub effect: Option<f64>,
}

impl Test {
    /// The interval that covers the difference with this confidence.
    pub fn interval(&self, confidence: f64) -> (f64, f64) {
        let half = if self.error == 0.0 { 0.0 } else { quantile(confidence, self.df) * self.error };
        (self.difference - half, self.difference + half)
    }
}

/// Welch's test; `None` for fewer than two values on a side, and for equal means without spread.
pub fn welch(a: &[f64], b: &[f64]) -> Option<Test> {
    let (first, second) = (Summary::of(a)?, Summary::of(b)?);
    let share = |summary: &Summary| Some(summary.sd?.powi(2) / summary.n as f64);
    let (va, vb) = (share(&first)?, share(&second)?);
    let error = (va + vb).sqrt();
    let difference = first.mean - second.mean;
    let (na, nb) = ((first.n - 1) as f64, (second.n - 1) as f64);
    // Shares of the variance, so that tiny variances do not vanish in their squares.
    let (wa, wb) = (va / (va + vb), vb / (va + vb));
    let df = if error > 0.0 { 1.0 / (wa * wa / na + wb * wb / nb) } else { 1.0 };
    let pooled = ((na * first.sd?.powi(2) + nb * second.sd?.powi(2)) / (na + nb)).sqrt();
    let effect = (pooled > 0.0).then(|| difference / pooled * hedges_correction(na + nb));
    test(Kind::Welch, (first.n, second.n), difference, error, df, effect)
}

/// The paired test of `a[i] − b[i]`; `None` for fewer than two pairs, and where the differences are all zero.
pub fn paired(a: &[f64], b: &[f64]) -> Option<Test> {
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let summary = Summary::of(&differences)?;
    let sd = summary.sd?;
    let effect = (sd > 0.0).then(|| summary.mean / sd);
    let error = sd / (summary.n as f64).sqrt();
    test(Kind::Paired, (summary.n, summary.n), summary.mean, error, (summary.n - 1) as f64, effect)
}

fn test(kind: Kind, n: (usize, usize), difference: f64, error: f64, df: f64, effect: Option<f64>) -> Option<Test> {
    // Sums of huge values may overflow.
    if (error == 0.0 && difference == 0.0) || !error.is_finite() || !difference.is_finite() || !df.is_finite() {
        return None;
    }
    let t = if error > 0.0 { difference / error } else { difference.signum() * f64::INFINITY };
    Some(Test { kind, n, difference, t, df, p: two_sided(t, df), error, effect })
}

/// Holm's adjusted p-values, in the order of `ps`.
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&i, &j| ps[i].total_cmp(&ps[j]));
    let mut adjusted = vec![0.0; ps.len()];
    let mut floor = 0.0_f64;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max(((ps.len() - rank) as f64 * ps[i]).min(1.0));
        adjusted[i] = floor;
    }
    adjusted
}

fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let rough = values.iter().sum::<f64>() / n;
    rough + values.iter().map(|value| value - rough).sum::<f64>() / n
}

/// P(|T| > |t|) of Student's t with `df` degrees of freedom.
fn two_sided(t: f64, df: f64) -> f64 {
    2.0 * student(df).sf(t.abs())
}

/// The t that |T| stays below with this probability, `0 < confidence < 1`.
fn quantile(confidence: f64, df: f64) -> f64 {
    student(df).inverse_cdf((1.0 + confidence) / 2.0)
}

fn student(df: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, df).expect("degrees of freedom are positive: there are two values or more")
}

/// J of Hedges 1981, by which g is smaller than the plain standardized difference. `df` is at least 2.
fn hedges_correction(df: f64) -> f64 {
    (ln_gamma(df / 2.0) - ln_gamma((df - 1.0) / 2.0)).exp() / (df / 2.0).sqrt()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Written by `tests/reference/scipy_tests.py`.
    const EXPECTED: &str = include_str!("../../tests/reference/statistics.json");

    fn expected() -> Value {
        serde_json::from_str(EXPECTED).unwrap()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|value| number(value).unwrap()).collect()
    }

    fn number(value: &Value) -> Option<f64> {
        match value.as_str() {
            Some("inf") => Some(f64::INFINITY),
            Some("-inf") => Some(f64::NEG_INFINITY),
            _ => value.as_f64(),
        }
    }

    /// Within 1e-9 of the larger of the number and `scale`: an interval's end may lie at zero.
    #[track_caller]
    fn close(what: &str, got: f64, want: f64, scale: f64) {
        let near = (got - want).abs() <= 1e-9 * want.abs().max(scale);
        assert!(got == want || near, "{what}: expected {want}, got {got}");
    }

    fn check(what: &str, got: Option<Test>, want: &Value, effect: &Value) {
        let Some(t) = number(&want["t"]) else {
            assert_eq!(got, None, "{what}");
            return;
        };
        let got = got.unwrap_or_else(|| panic!("{what}: no test"));
        close(&format!("{what}, t"), got.t, t, 0.0);
        close(&format!("{what}, df"), got.df, number(&want["df"]).unwrap(), 0.0);
        close(&format!("{what}, p"), got.p, number(&want["p"]).unwrap(), 0.0);
        assert!((0.0..=1.0).contains(&got.p), "{what}: p = {}", got.p);
        let (low, high) = got.interval(0.95);
        let ends = numbers(&want["interval"]);
        close(&format!("{what}, lower end"), low, ends[0], got.error);
        close(&format!("{what}, upper end"), high, ends[1], got.error);
        match (got.effect, number(effect)) {
            (Some(got), Some(want)) => close(&format!("{what}, effect"), got, want, 0.0),
            (got, want) => assert_eq!(got, want, "{what}, effect"),
        }
    }

    #[test]
    fn tests_and_intervals_agree_with_scipy() {
        let expected = expected();
        let cases = expected["cases"].as_array().unwrap();
        assert!(cases.len() >= 24);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let (a, b) = (numbers(&case["a"]), numbers(&case["b"]));
            let summary = Summary::of(&a).unwrap();
            close(name, summary.mean, number(&case["mean"]).unwrap(), 0.0);
            close(name, summary.sd.unwrap(), number(&case["sd"]).unwrap(), 0.0);
            for (confidence, ends) in case["interval"].as_object().unwrap() {
                let (low, high) = summary.interval(confidence.parse().unwrap()).unwrap();
                let ends = numbers(ends);
                close(&format!("{name}, {confidence}, lower end"), low, ends[0], summary.sd.unwrap());
                close(&format!("{name}, {confidence}, upper end"), high, ends[1], summary.sd.unwrap());
            }
            check(&format!("{name}, Welch"), welch(&a, &b), &case["welch"], &case["hedges_g"]);
            if let Some(want) = case.get("paired") {
                check(&format!("{name}, paired"), paired(&a, &b), want, &want["d_z"]);
            }
        }
    }

    #[test]
    fn holm_agrees_with_the_reference() {
        let expected = expected();
        let families = expected["holm"].as_array().unwrap();
        assert!(families.len() >= 5);
        for family in families {
            let (got, want) = (holm(&numbers(&family["p"])), numbers(&family["adjusted"]));
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                close(&family.to_string(), *got, *want, 0.0);
            }
        }
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn one_value_has_a_mean_and_no_more() {
        assert_eq!(Summary::of(&[]), None);
        let one = Summary::of(&[0.5]).unwrap();
        assert_eq!((one.n, one.mean, one.sd, one.interval(0.95)), (1, 0.5, None, None));
        assert_eq!(welch(&[0.5], &[0.25, 0.5]), None);
        assert_eq!(paired(&[0.5], &[0.25]), None);
    }
}
