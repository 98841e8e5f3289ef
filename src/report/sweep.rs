//! The best figure over the axes of a grid: a dot for each arm; a line where one number varies; a heat map where two do.
//!
//! Arms that differ in words (an arm's name, a schedule) are parted first; what numbers vary within a part decides its figure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::figure::{Axis, Cell, DotChart, DotRow, Figure, HeatMap, Level, LineChart, Point, Series, Stops, View};
use super::group::{Arm, Goal, Study};
use super::label::{brief_axis, labels};
use super::number::{fixed, plain};
use super::overview::plural;
use super::read::{Status, bounded};
use super::savings::in_sentence;
use super::stats::Summary;
use super::table_one::{CONFIDENCE, Measure, figure_decimals, name};
use super::{Block, curves, winner};

/// More rows than this are no chart.
const ROWS: usize = 48;
/// An axis whose values span this factor is logarithmic.
const DECADE: f64 = 10.0;

/// All that there is to show; nothing for a single arm.
pub fn blocks(study: &Study, goal: &Goal) -> Vec<Block> {
    if study.arms.len() < 2 || study.arms.iter().all(|arm| bests(arm, goal).is_empty()) {
        return Vec::new();
    }
    let mut blocks = Vec::new();
    let parts = parts(study);
    let mut of_one_axis: Vec<&Part> = Vec::new();
    for part in &parts {
        match part.axes.as_slice() {
            [_] => of_one_axis.push(part),
            [x, y] => blocks.extend(heat(study, goal, part, x, y)),
            _ => {}
        }
    }
    let mut done: Vec<&str> = Vec::new();
    for part in &of_one_axis {
        let axis = part.axes[0].as_str();
        if !done.contains(&axis) {
            let alike: Vec<&Part> = of_one_axis.iter().copied().filter(|other| other.axes[0] == axis).collect();
            let still: Vec<usize> =
                parts.iter().filter(|part| part.axes.is_empty()).flat_map(|part| part.arms.clone()).collect();
            blocks.push(Block::Figure(Figure::Line(line(study, goal, axis, &alike, &still))));
            blocks.extend(alike.iter().filter_map(|part| best_of_line(study, goal, part)).map(Block::Paragraph));
            done.push(axis);
        }
    }
    // What a line or a heat map shows already needs no dots.
    if blocks.is_empty() && study.arms.len() <= ROWS {
        blocks.push(Block::Figure(Figure::Dots(dots(study, goal))));
    }
    blocks
}

/// Arms that differ in numbers alone.
struct Part {
    arms: Vec<usize>,
    /// At most two, which vary.
    axes: Vec<String>,
    name: String,
}

fn bests(arm: &Arm, goal: &Goal) -> Vec<f64> {
    arm.counted().into_iter().filter_map(|run| Measure::Best.of(run, goal)).collect()
}

fn parts(study: &Study) -> Vec<Part> {
    let value = |arm: usize, axis: &String| study.arms[arm].setting.get(axis);
    let numeric = |axis: &&String| {
        let present: Vec<&Value> = (0..study.arms.len()).filter_map(|arm| value(arm, axis)).collect();
        !present.is_empty() && present.iter().all(|value| value.is_number())
    };
    let numbers: Vec<String> = study.axes.iter().filter(numeric).cloned().collect();
    // Of more than two numbers, the last ones part the arms as words do. The learning rate goes to the right, as in the paper.
    let mut varying: Vec<String> = numbers.iter().take(2).cloned().collect();
    varying.sort_by_key(|axis| axis != "lr");
    let words: Vec<String> = study.axes.iter().filter(|axis| !varying.contains(axis)).cloned().collect();
    let mut parts: Vec<Part> = Vec::new();
    for arm in 0..study.arms.len() {
        let same = |part: &&mut Part| words.iter().all(|axis| value(part.arms[0], axis) == value(arm, axis));
        match parts.iter_mut().find(same) {
            Some(part) => part.arms.push(arm),
            None => parts.push(Part { arms: vec![arm], axes: Vec::new(), name: String::new() }),
        }
    }
    let settings: Vec<_> = parts.iter().map(|part| study.arms[part.arms[0]].setting.clone()).collect();
    for (part, name) in parts.iter_mut().zip(labels(&settings, &words)) {
        let distinct = |axis: &&String| {
            let values: Vec<_> = part.arms.iter().map(|arm| value(*arm, axis)).collect();
            values.iter().all(Option::is_some) && values.iter().any(|value| *value != values[0])
        };
        part.axes = varying.iter().filter(distinct).cloned().collect();
        part.name = name;
    }
    parts
}

fn dots(study: &Study, goal: &Goal) -> DotChart {
    let rows = study.arms.iter().enumerate().map(|(i, arm)| {
        let values = bests(arm, goal);
        DotRow {
            name: arm.label.clone(),
            arm: i,
            mean: Summary::of(&values).map(|summary| summary.mean),
            interval: curves::interval(&values),
            dots: values.clone(),
            note: note(arm, values.len()),
        }
    });
    DotChart {
        title: format!("Best {}", in_sentence(&name(&goal.figure))),
        caption: "Mean of the seeds' best, its 95 % confidence interval, and each seed.".to_owned(),
        value: Axis::new(&in_sentence(&name(&goal.figure)), ""),
        better: goal.better,
        rows: rows.collect(),
        levels: Vec::new(),
    }
}

fn note(arm: &Arm, n: usize) -> String {
    let mut parts = if n > 0 { vec![format!("n = {n}")] } else { Vec::new() };
    parts.extend(lost(arm));
    parts.join(", ")
}

/// `2 diverged`, `1 failed`.
fn lost(arm: &Arm) -> Vec<String> {
    let count = |status: Status| Some(arm.count(status)).filter(|count| *count > 0);
    [Status::Diverged, Status::Failed, Status::Running]
        .into_iter()
        .filter_map(|status| Some(format!("{} {}", count(status)?, status.word())))
        .collect()
}

fn number(study: &Study, arm: usize, axis: &str) -> Option<f64> {
    study.arms[arm].setting.get(axis).and_then(bounded)
}

fn axis_of(study: &Study, axis: &str, values: &[f64]) -> Axis {
    let (low, high) =
        values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
    let made = Axis::new(brief_axis(axis, &study.axes), "");
    if low > 0.0 && high / low >= DECADE { made.logarithmic() } else { made }
}

/// `still` are arms that have no place on the axis: levels to read the others against.
fn line(study: &Study, goal: &Goal, axis: &str, parts: &[&Part], still: &[usize]) -> LineChart {
    let mut series: Vec<Series> = Vec::new();
    for part in parts {
        let mut points: Vec<Point> = Vec::new();
        for arm in &part.arms {
            let values = bests(&study.arms[*arm], goal);
            if let (Some(x), Some(summary)) = (number(study, *arm, axis), Summary::of(&values)) {
                points.push(Point { x, y: summary.mean, band: summary.interval(CONFIDENCE) });
            }
        }
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let arm = part.arms[0];
        let name = if parts.len() > 1 { part.name.clone() } else { name(&goal.figure) };
        series.push(Series { name, arm, points, markers: true, runs: Vec::new(), marks: Vec::new() });
    }
    let places: Vec<f64> = series.iter().flat_map(|one| &one.points).map(|point| point.x).collect();
    let what = in_sentence(&name(&goal.figure));
    LineChart {
        title: format!("Best {what} over {}", brief_axis(axis, &study.axes)),
        caption: "Mean of the seeds' best; the band is its 95 % confidence interval.".to_owned(),
        y: Axis::new(&what, ""),
        views: vec![View { x: axis_of(study, axis, &places), series }],
        levels: still.iter().filter_map(|arm| level(study, goal, *arm)).collect(),
    }
}

fn level(study: &Study, goal: &Goal, arm: usize) -> Option<Level> {
    let value = Summary::of(&bests(&study.arms[arm], goal))?.mean;
    Some(Level { value, label: study.arms[arm].label.clone(), arm: Some(arm) })
}

/// The map, and in words which cell is the best.
fn heat(study: &Study, goal: &Goal, part: &Part, x: &str, y: &str) -> Vec<Block> {
    let stops = |axis: &str| {
        let mut values: Vec<f64> = part.arms.iter().filter_map(|arm| number(study, *arm, axis)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values
    };
    let (columns, rows) = (stops(x), stops(y));
    let mut cells = vec![vec![Cell::default(); columns.len()]; rows.len()];
    let mut places: Vec<(usize, usize, usize)> = Vec::new();
    for arm in &part.arms {
        let place = |stops: &[f64], axis: &str| {
            number(study, *arm, axis).and_then(|at| stops.iter().position(|stop| *stop == at))
        };
        let (Some(row), Some(column)) = (place(&rows, y), place(&columns, x)) else { continue };
        let one = &study.arms[*arm];
        let mean = Summary::of(&bests(one, goal)).map(|summary| summary.mean);
        cells[row][column] = Cell { value: mean, note: cell_note(one) };
        places.push((*arm, row, column));
    }
    let best = winner::best(study, goal, &part.arms);
    let best = best.and_then(|(arm, mean)| places.iter().find(|place| place.0 == arm).map(|place| (mean, *place)));
    let what = in_sentence(&name(&goal.figure));
    let seeds: BTreeSet<usize> = part.arms.iter().map(|arm| study.arms[*arm].counted().len()).collect();
    let (least, most) = (seeds.first().copied().unwrap_or(0), seeds.last().copied().unwrap_or(0));
    let n = if least == most { plural(most, "seed") } else { format!("{least} to {most} seeds") };
    let of_part = if part.arms.len() == study.arms.len() { String::new() } else { format!(": {}", part.name) };
    let map = HeatMap {
        title: format!("Best {what} by {} and {}{of_part}", brief_axis(x, &study.axes), brief_axis(y, &study.axes)),
        caption: if most == 1 {
            "The best of one seed per cell; the best cell is framed.".to_owned()
        } else {
            format!("Mean of the best of {n} per cell; the best cell is framed.")
        },
        x: axis_of(study, x, &columns),
        y: axis_of(study, y, &rows),
        value: Axis::new(&what, ""),
        better: goal.better,
        print_values: columns.len() <= 10 && rows.len() <= 16,
        best: best.map(|(_, (_, row, column))| (row, column)),
        columns: Stops::Numbers(columns.clone()),
        rows: Stops::Numbers(rows.clone()),
        cells,
    };
    let mut blocks = vec![Block::Figure(Figure::Heat(map))];
    blocks.extend(best.map(|(mean, (arm, ..))| Block::Paragraph(best_in_words(study, goal, part, arm, mean))));
    blocks
}

fn best_of_line(study: &Study, goal: &Goal, part: &Part) -> Option<String> {
    let (arm, mean) = winner::best(study, goal, &part.arms)?;
    Some(best_in_words(study, goal, part, arm, mean))
}

/// Which arm of a part is the best, and whether it lies where nothing was tried beyond.
fn best_in_words(study: &Study, goal: &Goal, part: &Part, arm: usize, mean: f64) -> String {
    let what = in_sentence(&name(&goal.figure));
    let digits = figure_decimals(study, goal);
    let mut text =
        format!("Best of {}: {} with {what} {}.", part.arms.len(), study.arms[arm].label, fixed(mean, digits));
    let mut edges: Vec<String> = Vec::new();
    for axis in &part.axes {
        let values: Vec<f64> = part.arms.iter().filter_map(|arm| number(study, *arm, axis)).collect();
        let Some(at) = number(study, arm, axis) else { continue };
        let (low, high) = (values.iter().all(|value| *value >= at), values.iter().all(|value| *value <= at));
        if low != high {
            let end = if low { "lowest" } else { "highest" };
            edges.push(format!("{} {} is the {end} tried", brief_axis(axis, &study.axes), plain(at)));
        }
    }
    if !edges.is_empty() {
        text += &format!(" It lies on the edge ({}): it may be better beyond.", edges.join(", "));
    }
    text
}

fn cell_note(arm: &Arm) -> String {
    let all = arm.runs.len();
    for status in [Status::Diverged, Status::Failed] {
        let count = arm.count(status);
        if count > 0 {
            return if count == all { status.word().to_owned() } else { format!("{count} of {all} {}", status.word()) };
        }
    }
    if arm.count(Status::Done) < all { "running".to_owned() } else { String::new() }
}
