//! One number per run, compared between two arms: paired where seeds pair, and Welch's test.

use super::group::Arm;
use super::read::RunRecord;
use super::stats::{self, Test};

/// A number of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    pub seed: Option<u64>,
    pub value: f64,
}

/// The number of each counted run that has one.
pub fn values<'a>(arm: &Arm<'a>, of: impl Fn(&'a RunRecord) -> Option<f64>) -> Vec<Value> {
    arm.counted().into_iter().filter_map(|run| Some(Value { seed: run.seed, value: of(run)? })).collect()
}

pub fn plain(values: &[Value]) -> Vec<f64> {
    values.iter().map(|value| value.value).collect()
}

/// What the seeds allow to be said of a difference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// How many seeds both have.
    pub pairs: usize,
    /// Over these, from two on.
    pub paired: Option<Test>,
    pub welch: Option<Test>,
}

impl Compared {
    /// The test whose p-value counts: the paired one where seeds pair.
    pub fn main(&self) -> Option<Test> {
        if self.pairs > 1 { self.paired } else { self.welch }
    }
}

pub fn compare(a: &[Value], b: &[Value]) -> Compared {
    let (first, second): (Vec<f64>, Vec<f64>) = pairs(a, b).into_iter().unzip();
    let welch = stats::welch(&plain(a), &plain(b));
    Compared {
        pairs: first.len(),
        paired: stats::paired(&first, &second).filter(has_spread),
        welch: welch.filter(has_spread),
    }
}

/// Whether the difference varies by more than rounding does. Seeds that differ by exactly the same, as steps do where
/// validations are rare, show how coarse the figure is, and no significance.
pub fn has_spread(test: &Test) -> bool {
    test.t.abs() < 1e9
}

/// Values of the same seed, in order of seeds; none where a seed stands for several values.
pub fn pairs(a: &[Value], b: &[Value]) -> Vec<(f64, f64)> {
    let unique = |values: &[Value]| {
        let mut seeds: Vec<u64> = values.iter().filter_map(|value| value.seed).collect();
        let count = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        seeds.len() == count
    };
    if !unique(a) || !unique(b) {
        return Vec::new();
    }
    let partner = |value: &Value| b.iter().find(|other| value.seed.is_some() && other.seed == value.seed);
    a.iter().filter_map(|value| Some((value.value, partner(value)?.value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(u64, f64)]) -> Vec<Value> {
        pairs.iter().map(|(seed, value)| Value { seed: Some(*seed), value: *value }).collect()
    }

    #[test]
    fn seeds_pair_where_both_have_them() {
        let a = values(&[(0, 1.0), (1, 2.0), (2, 4.0)]);
        assert_eq!(pairs(&a, &values(&[(2, 5.0), (0, 1.5), (7, 9.0)])), [(1.0, 1.5), (4.0, 5.0)]);
        assert_eq!(pairs(&a, &values(&[(0, 1.0), (0, 2.0)])), []);
        let compared = compare(&a, &values(&[(0, 1.5), (1, 3.0), (9, 5.0)]));
        assert_eq!(compared.main().map(|test| (test.kind, test.n)), Some((stats::Kind::Paired, (2, 2))));
        // One common seed is no pair of samples.
        let compared = compare(&a, &values(&[(0, 1.5), (8, 3.0)]));
        assert_eq!(compared.main().map(|test| (test.kind, test.n)), Some((stats::Kind::Welch, (3, 2))));
        assert_eq!(compare(&a, &values(&[(0, 1.5)])).main(), None);
    }

    #[test]
    fn a_constant_shift_is_no_evidence() {
        let a = values(&[(0, 0.7), (1, 0.71), (2, 0.73)]);
        let shifted = values(&[(0, 0.65), (1, 0.66), (2, 0.68)]);
        let compared = compare(&a, &shifted);
        assert_eq!((compared.pairs, compared.main()), (3, None));
        assert!(compared.welch.is_some());
    }
}
