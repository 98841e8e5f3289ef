//! The arm with the best figure, for the top of a section.
//!
//! An arm of which a run has diverged or failed only counts where all have lost one.

use super::compare::{plain, values};
use super::figure::{Better, Headline};
use super::group::{Goal, Study};
use super::number::{fixed, signed};
use super::overview::plural;
use super::read::Status;
use super::savings::in_sentence;
use super::stats::Summary;
use super::table_one::{Measure, differences, figure_decimals, name, p_words};

/// Of arms that are compared, the best of them against its baseline; else the best of all. Nothing for a single arm.
pub fn headline(study: &Study, goal: &Goal) -> Option<Headline> {
    let compared: Vec<usize> = (0..study.arms.len()).filter(|i| study.arms[*i].baseline.is_some()).collect();
    let among = if compared.is_empty() { (0..study.arms.len()).collect() } else { compared };
    if study.arms.len() < 2 {
        return None;
    }
    let (arm, mean) = best(study, goal, &among)?;
    let digits = figure_decimals(study, goal);
    let label = format!("Best {}", in_sentence(&name(&goal.figure)));
    let own = values(&study.arms[arm], |run| Measure::Best.of(run, goal));
    let winner = &study.arms[arm].label;
    let of = if among.len() > 1 { format!(", the best of {} arms", among.len()) } else { String::new() };
    let baseline = study.arms[arm].baseline.map(|base| &study.arms[base]).filter(|base| base.is_final());
    let Some(base) = baseline.filter(|_| study.arms[arm].is_final()) else {
        let detail = format!("{winner}{of} · {}", mean_of(own.len()));
        return Some(Headline { label, value: fixed(mean, digits), detail, arm: Some(arm) });
    };
    let other = values(base, |run| Measure::Best.of(run, goal));
    let level = Summary::of(&plain(&other))?.mean;
    let mut detail =
        vec![format!("{winner}{of}: {} against {} of {}", fixed(mean, digits), fixed(level, digits), base.label)];
    detail.push(format!("n = {}", own.len()));
    let differences = differences(study, goal);
    let own_difference = differences.iter().find(|one| one.arm == arm && one.measure == Measure::Best);
    let test = own_difference.and_then(|one| Some((one.compared.main()?, one.adjusted)));
    detail.extend(test.map(|(test, adjusted)| p_words(test.p, adjusted.filter(|_| among.len() > 1), test.kind)));
    let change = (mean - level) / level.abs();
    // Near a level of 0 a percentage says nothing.
    let value =
        if change.abs() < 100.0 { format!("{} %", signed(100.0 * change, 1)) } else { signed(mean - level, digits) };
    Some(Headline { label, value, detail: detail.join(" · "), arm: Some(arm) })
}

fn mean_of(n: usize) -> String {
    if n == 1 { "1 seed".to_owned() } else { format!("mean of {}", plural(n, "seed")) }
}

/// The best of these arms, with its mean.
pub fn best(study: &Study, goal: &Goal, among: &[usize]) -> Option<(usize, f64)> {
    let whole = |i: usize| study.arms[i].count(Status::Diverged) + study.arms[i].count(Status::Failed) == 0;
    let mean =
        |i: usize| Some((i, Summary::of(&plain(&values(&study.arms[i], |run| Measure::Best.of(run, goal))))?.mean));
    let means: Vec<(usize, f64)> = among.iter().filter_map(|i| mean(*i)).collect();
    let any_whole = means.iter().any(|(i, _)| whole(*i));
    let better = |a: f64, b: f64| if goal.better == Better::Higher { a > b } else { a < b };
    let candidates = means.into_iter().filter(|(i, _)| whole(*i) || !any_whole);
    candidates.reduce(|best, one| if better(one.1, best.1) { one } else { best })
}
