//! Figures against step, epoch, training time, energy and CO₂: the mean over an arm's seeds with its band, each seed behind it.
//!
//! The mean is taken on a common grid between the last first point and the first last point of the seeds, each seed's value on
//! the straight line between its logged points. Where a run logged more than [`POINTS`] points, neighbors are averaged.

use super::curve::{Against, Curve, interpolate};
use super::figure::{Axis, Better, Level, LineChart, Mark, MarkKind, Point, Series, View};
use super::group::{Arm, Goal, Study};
use super::number::{energy_unit, mass_unit, signed, time_unit};
use super::read::{RunRecord, Status};
use super::savings::{Reaching, in_sentence, reaching};
use super::stats::Summary;
use super::table_one::{CONFIDENCE, Measure, name};
use super::{Band, Options};

/// Points of a curve in a chart.
const POINTS: usize = 300;
/// Arms in a chart; of more, the baselines and the best.
const ARMS: usize = 8;
/// Savings are written into charts of so few arms.
const MARKED: usize = 3;
/// A loss whose values span this factor has a logarithmic axis.
const DECADES: f64 = 5.0;

type Points = Vec<(f64, f64)>;

/// The chart of a figure; `None` where no run has it.
pub fn chart(study: &Study, goal: &Goal, options: &Options) -> Option<LineChart> {
    let arms = shown(study, goal);
    let reached = if study.goals.contains(goal) { reaching(study, goal) } else { Vec::new() };
    let mut thinned = false;
    let mut views = Vec::new();
    for against in Against::ALL {
        let scale = scale(study, &arms, goal, against);
        let mut series = Vec::new();
        for i in &arms {
            let lines = lines(&study.arms[*i], goal, against, scale.1, &mut thinned);
            let mut one = one_series(&study.arms[*i], *i, &lines, options.band);
            if arms.len() <= MARKED {
                let of_arm = reached.iter().find(|one| one.arm == *i);
                one.marks.extend(of_arm.and_then(|reached| saving_mark(study, goal, reached, against, scale.1)));
            }
            if !one.points.is_empty() || !one.runs.is_empty() {
                series.push(one);
            }
        }
        if !series.is_empty() {
            views.push(View { x: scale.0, series });
        }
    }
    let values =
        || views.iter().flat_map(|view| &view.series).flat_map(|one| one.runs.iter().flatten()).map(|(_, y)| *y);
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    if views.is_empty() {
        return None;
    }
    let y = Axis::new(&in_sentence(&name(&goal.figure)), "");
    let log = goal.better == Better::Lower && low > 0.0 && high / low >= DECADES;
    let chart = LineChart {
        title: name(&goal.figure),
        caption: caption(study, &arms, options.band, thinned),
        y: if log { y.logarithmic() } else { y },
        views,
        levels: levels(study, goal),
    };
    (!chart.is_empty()).then_some(chart)
}

fn caption(study: &Study, arms: &[usize], band: Band, thinned: bool) -> String {
    let counts: Vec<usize> = arms.iter().map(|i| study.arms[*i].counted().len()).collect();
    let (low, high) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let mut text = match (low, high) {
        (_, 0 | 1) => "One seed each.".to_owned(),
        (low, high) => {
            let n = if low == high { format!("{high}") } else { format!("{low} to {high}") };
            let band = match band {
                Band::Sd => "one standard deviation",
                Band::Ci => "the 95 % confidence interval of the mean",
            };
            format!("Mean of {n} seeds, each behind it; the band is {band}.")
        }
    };
    if arms.len() < study.arms.len() {
        text += &format!(" Of {} arms, the baselines and the best.", study.arms.len());
    }
    if thinned {
        text += " Neighboring points of long runs are averaged.";
    }
    text
}

/// All arms, or the baselines and the best.
fn shown(study: &Study, goal: &Goal) -> Vec<usize> {
    let all: Vec<usize> = (0..study.arms.len()).collect();
    if all.len() <= ARMS {
        return all;
    }
    // Another figure's chart has the same arms.
    let judge = study.goals.first().unwrap_or(goal);
    let mean = |i: usize| {
        let values: Vec<f64> =
            study.arms[i].counted().into_iter().filter_map(|run| Measure::Best.of(run, judge)).collect();
        let mean = Summary::of(&values).map_or(f64::MAX, |summary| summary.mean);
        if judge.better == Better::Higher && mean < f64::MAX { -mean } else { mean }
    };
    let baselines = study.baselines();
    let mut ranked = all;
    ranked.sort_by(|a, b| (!baselines.contains(a)).cmp(&!baselines.contains(b)).then(mean(*a).total_cmp(&mean(*b))));
    ranked.truncate(ARMS);
    ranked.sort_unstable();
    ranked
}

/// The axis with a unit that fits, and the size of that unit.
fn scale(study: &Study, arms: &[usize], goal: &Goal, against: Against) -> (Axis, f64) {
    let runs = arms.iter().flat_map(|i| study.arms[*i].runs.iter());
    let ends = runs.filter_map(|run| Curve::of(run, &goal.figure, goal.better).points(against).last().map(|(x, _)| *x));
    let end = ends.fold(0.0, f64::max);
    match against {
        Against::Step => (Axis::new("step", ""), 1.0),
        Against::Epoch => (Axis::new("epoch", ""), 1.0),
        Against::Seconds => (Axis::new("training time", time_unit(end).name), time_unit(end).size),
        Against::Kwh => (Axis::new("energy", energy_unit(end).name), energy_unit(end).size),
        Against::Kg => (Axis::new("CO₂", &format!("{} CO₂e", mass_unit(end).name)), mass_unit(end).size),
    }
}

/// Each run's points, with whether the mean counts it and whether it diverged.
struct Run {
    points: Points,
    counted: bool,
    status: Status,
}

fn lines(arm: &Arm, goal: &Goal, against: Against, size: f64, thinned: &mut bool) -> Vec<Run> {
    let counted = arm.counted();
    let mut lines = Vec::new();
    for run in &arm.runs {
        let points: Points =
            Curve::of(run, &goal.figure, goal.better).points(against).into_iter().map(|(x, y)| (x / size, y)).collect();
        *thinned |= points.len() > POINTS;
        let is_counted = counted.iter().any(|other| std::ptr::eq::<RunRecord>(*other, *run));
        if !points.is_empty() {
            lines.push(Run { points: thin(&points), counted: is_counted, status: run.status });
        }
    }
    lines
}

fn one_series(arm: &Arm, number: usize, lines: &[Run], band: Band) -> Series {
    let counted: Vec<&Points> = lines.iter().filter(|line| line.counted).map(|line| &line.points).collect();
    let points = mean(&counted, band);
    let cross = |line: &Run| {
        let (x, y) = *line.points.last()?;
        let ended = matches!(line.status, Status::Diverged | Status::Failed);
        ended.then(|| Mark { x, y, text: line.status.word().to_owned(), kind: MarkKind::Cross })
    };
    Series {
        name: arm.label.clone(),
        arm: number,
        markers: points.len() < 3,
        points,
        runs: lines.iter().map(|line| line.points.clone()).collect(),
        marks: lines.iter().filter_map(cross).collect(),
    }
}

/// The mean of several curves where all of them are known.
fn mean(lines: &[&Points], band: Band) -> Vec<Point> {
    let start = lines.iter().filter_map(|line| line.first()).map(|(x, _)| *x).fold(f64::MIN, f64::max);
    let end = lines.iter().filter_map(|line| line.last()).map(|(x, _)| *x).fold(f64::MAX, f64::min);
    let count = lines.iter().map(|line| line.len()).max().unwrap_or(0);
    let Some(first) = lines.first().filter(|_| start <= end) else { return Vec::new() };
    let same = lines.iter().all(|line| line.len() == first.len() && line.iter().zip(*first).all(|(a, b)| a.0 == b.0));
    // Steps are the same for all seeds, as a rule: then nothing needs to be interpolated.
    let grid: Vec<f64> = if same {
        first.iter().map(|(x, _)| *x).collect()
    } else {
        let last = count.max(2) - 1;
        (0..=last).map(|i| if i == last { end } else { start + (end - start) * i as f64 / last as f64 }).collect()
    };
    let mut points = Vec::new();
    for x in grid {
        let values: Vec<f64> = lines.iter().filter_map(|line| interpolate(line, x)).collect();
        let Some(summary) = Summary::of(&values).filter(|summary| summary.n == lines.len()) else { continue };
        let half = super::table_one::spread(&summary, band);
        points.push(Point { x, y: summary.mean, band: half.map(|half| (summary.mean - half, summary.mean + half)) });
    }
    points.dedup_by(|b, a| a.x == b.x);
    points
}

/// At most [`POINTS`] points: the means of neighbors, the ends' too, so that no single noisy point stands out.
fn thin(points: &[(f64, f64)]) -> Points {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let average = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|(x, _)| x).sum::<f64>() / n, part.iter().map(|(_, y)| y).sum::<f64>() / n)
    };
    points.chunks(points.len().div_ceil(POINTS)).map(average).collect()
}

/// The best of each baseline, for a figure that is judged.
fn levels(study: &Study, goal: &Goal) -> Vec<Level> {
    if !study.goals.contains(goal) || study.baselines().len() > MARKED {
        return Vec::new();
    }
    let level = |base: usize| {
        let arm = &study.arms[base];
        let bests: Vec<f64> = arm.counted().into_iter().filter_map(|run| Measure::Best.of(run, goal)).collect();
        let label = format!("best of {}", arm.label);
        Some(Level { value: Summary::of(&bests)?.mean, label, arm: Some(base) })
    };
    study.baselines().into_iter().filter_map(level).collect()
}

/// Where the only seed of an arm is as good as its baseline's best; of several seeds, the mean curve has no such point.
fn saving_mark(study: &Study, goal: &Goal, one: &Reaching, against: Against, size: f64) -> Option<Mark> {
    if study.arms[one.arm].counted().len() != 1 {
        return None;
    }
    let line = one.single()?;
    let text = format!("{} %", signed(100.0 * (one.saving(against)?.ratio - 1.0), 0));
    Some(Mark { x: against.of(line)? / size, y: line.get(&goal.figure)?, text, kind: MarkKind::Ring })
}

/// Half the width of an interval that a dot chart shows.
pub fn interval(values: &[f64]) -> Option<(f64, f64)> {
    Summary::of(values)?.interval(CONFIDENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_taken_where_all_curves_are_known() {
        let (a, b) = (vec![(0.0, 1.0), (2.0, 3.0)], vec![(1.0, 4.0), (3.0, 6.0)]);
        let points = mean(&[&a, &b], Band::Sd);
        let xy: Vec<(f64, f64)> = points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(xy, [(1.0, 3.0), (2.0, 4.0)]);
        assert!(points.iter().all(|point| point.band.is_some()));
        // The same places: exactly these.
        let points = mean(&[&a, &vec![(0.0, 3.0), (2.0, 5.0)]], Band::Ci);
        assert_eq!(points.iter().map(|point| (point.x, point.y)).collect::<Vec<_>>(), [(0.0, 2.0), (2.0, 4.0)]);
        assert!(mean(&[&a, &vec![(5.0, 1.0)]], Band::Sd).is_empty());
        assert!(mean(&[], Band::Sd).is_empty());
        let one = mean(&[&vec![(7.0, 1.0)]], Band::Sd);
        assert_eq!(one, [Point { x: 7.0, y: 1.0, band: None }]);
    }

    #[test]
    fn long_curves_are_averaged() {
        let long: Points = (0..10_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let short = thin(&long);
        assert!(short.len() <= POINTS && short.len() > POINTS / 2);
        assert!(short.iter().all(|(_, y)| (y - 0.5).abs() < 0.05));
        assert!(short.is_sorted_by(|a, b| a.0 < b.0) && short[0].0 < 20.0 && short[short.len() - 1].0 > 9_970.0);
        assert_eq!(thin(&long[..POINTS]), long[..POINTS]);
    }
}
