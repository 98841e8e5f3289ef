//! `"auto"`: which layers to decorrelate, decided by what each would bring and cost.
//!
//! For the first few steps every candidate's inputs are probed. Then the set is chosen that holds the most correlation for
//! multiply-adds within a budget: a 0-1 knapsack, solved exactly on costs rounded up to a two-thousandth of the budget.
//! Benefit: `Σ_{i≠j} ρ_ij² / d` of the layer's inputs beyond chance, over the pairs that its R can reach (within blocks):
//! the variance of the eigenvalues of their correlation matrix, that is how unevenly gradient descent moves along the
//! inputs' directions. Without the division by d the wide layers' many pairs swallow the budget, and the choice is worse
//! than chance (docs/decorrelation.md). Cost: [`super::cost`]. The paper (arXiv:2510.14657) leaves automatic selection as
//! future work.

use serde::{Deserialize, Serialize};

use super::options::DecorOptions;
use super::{NnError, NnResult};

/// What `"auto"` was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoConfig {
    /// Of every layer that is chosen.
    pub options: DecorOptions,
    /// Multiply-adds that decorrelation may add, as a fraction of back-propagation's.
    pub budget: f64,
    /// Steps that are measured before the choice.
    pub steps: u64,
}

impl AutoConfig {
    /// Errors: [`NnError::Config`] naming the first value outside its range.
    pub fn check(&self) -> NnResult<()> {
        self.options.check()?;
        if !(self.budget.is_finite() && self.budget > 0.0) {
            let message = format!("budget: expected a fraction of a step above 0, got {}", self.budget);
            return Err(NnError::Config(message));
        }
        if self.steps == 0 {
            return Err(NnError::Config("measure: expected 1 or more steps, got 0".to_owned()));
        }
        Ok(())
    }
}

/// How far the choice has come; a checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Steps measured.
    pub steps: u64,
    /// Correlation measured so far, summed over them, by layer.
    pub sums: Vec<(String, f64)>,
    /// The layers, once they are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Vec<Candidate>>,
}

/// A layer that could be decorrelated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub name: String,
    /// Correlation that there is to remove: squared, summed over pairs of inputs, per input.
    pub benefit: f64,
    /// Extra multiply-adds as a fraction of a step.
    pub cost: f64,
    pub chosen: bool,
}

/// Marks the candidates whose benefits sum up highest while their costs stay within the budget.
pub fn choose(candidates: &mut [Candidate], budget: f64) {
    const BINS: usize = 2000;
    let bin = |cost: f64| (cost / budget * BINS as f64 - 1e-9).ceil().max(0.0) as usize;
    // best[c]: the highest benefit for cost c or less, and taken[i][c]: whether candidate i is part of it.
    let mut best = vec![0.0; BINS + 1];
    let mut taken = vec![vec![false; BINS + 1]; candidates.len()];
    for (candidate, taken) in candidates.iter().zip(&mut taken) {
        let cost = bin(candidate.cost);
        if candidate.benefit <= 0.0 || cost > BINS {
            continue;
        }
        for limit in (cost..=BINS).rev() {
            let with = best[limit - cost] + candidate.benefit;
            if with > best[limit] {
                (best[limit], taken[limit]) = (with, true);
            }
        }
    }
    let mut left = BINS;
    for (candidate, taken) in candidates.iter_mut().zip(&taken).rev() {
        candidate.chosen = taken[left];
        if candidate.chosen {
            left -= bin(candidate.cost);
        }
    }
}

/// The choice and its reasons, for the person who watches the run.
pub fn explain(candidates: &[Candidate], config: &AutoConfig) -> String {
    let total: f64 = candidates.iter().map(|c| c.benefit).sum::<f64>().max(f64::MIN_POSITIVE);
    let chosen = || candidates.iter().filter(|c| c.chosen);
    let mut text = format!(
        "auto: {} of {} layers for {:.1} % of a step (budget {:.1} %), which hold {:.0} % of the correlation that {} steps \
         showed",
        chosen().count(),
        candidates.len(),
        100.0 * chosen().map(|c| c.cost).sum::<f64>(),
        100.0 * config.budget,
        100.0 * chosen().map(|c| c.benefit).sum::<f64>() / total,
        config.steps,
    );
    let mut ranked: Vec<&Candidate> = candidates.iter().collect();
    ranked.sort_by(|a, b| (b.benefit / b.cost).total_cmp(&(a.benefit / a.cost)));
    let name = ranked.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for candidate in ranked {
        text.push_str(&format!(
            "\n  {} {:name$}  {:5.1} % of the correlation for {:5.2} % of a step",
            if candidate.chosen { "+" } else { "-" },
            candidate.name,
            100.0 * candidate.benefit / total,
            100.0 * candidate.cost,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(figures: &[(f64, f64)]) -> Vec<Candidate> {
        let candidate = |(i, &(benefit, cost)): (usize, &(f64, f64))| Candidate {
            name: format!("layer{i}"),
            benefit,
            cost,
            chosen: false,
        };
        figures.iter().enumerate().map(candidate).collect()
    }

    /// The best sum by trying all subsets.
    fn brute_force(candidates: &[Candidate], budget: f64) -> f64 {
        (0..1_u32 << candidates.len())
            .map(|set| candidates.iter().enumerate().filter(move |(i, _)| set >> i & 1 == 1))
            .filter(|set| set.clone().map(|(_, c)| c.cost).sum::<f64>() <= budget)
            .map(|set| set.map(|(_, c)| c.benefit).sum())
            .fold(0.0, f64::max)
    }

    #[test]
    fn the_best_set_is_found_where_the_best_ratio_is_not_it() {
        let mut all = candidates(&[(10.0, 0.06), (8.0, 0.05), (8.0, 0.05)]); // By ratio the first, then nothing fits.
        choose(&mut all, 0.10);
        assert_eq!(all.iter().map(|c| c.chosen).collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn sets_are_the_best_there_are() {
        let mut rng = crate::random::Key::new(7, crate::random::Stream::Script).rng();
        for _ in 0..50 {
            let drawn: Vec<(f64, f64)> =
                (0..10).map(|_| (rng.uniform_f64(), (1.0 + 40.0 * rng.uniform_f64()).floor() / 200.0)).collect();
            let mut all = candidates(&drawn);
            choose(&mut all, 0.2);
            let cost: f64 = all.iter().filter(|c| c.chosen).map(|c| c.cost).sum();
            let benefit: f64 = all.iter().filter(|c| c.chosen).map(|c| c.benefit).sum();
            assert!(cost <= 0.2 + 1e-9);
            assert!((benefit - brute_force(&all, 0.2 + 1e-9)).abs() < 1e-9);
        }
    }

    #[test]
    fn nothing_within_the_budget_is_nothing_chosen() {
        let mut all = candidates(&[(1.0, 0.3), (0.0, 0.01)]);
        choose(&mut all, 0.1);
        assert!(all.iter().all(|c| !c.chosen));
    }
}
