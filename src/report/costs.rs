//! What training cost, per arm: time, energy and CO₂ of a run, with their sources; and whether seconds compare at all.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Options;
use super::compare::{plain, values};
use super::group::Study;
use super::number::{decimals, energy_unit, fixed, mass_unit, time_unit};
use super::overview::plural;
use super::read::RunRecord;
use super::table::{Cell, Column, Format, Table};
use super::table_one::{cell, spread_words};

fn seconds(run: &RunRecord) -> Option<f64> {
    run.number("wall_s").or_else(|| run.lines.last()?.get("wall_s"))
}

fn kwh(run: &RunRecord) -> Option<f64> {
    run.inner_number("energy", "energy_kwh").or_else(|| run.lines.last()?.get("energy_kwh"))
}

fn kg(run: &RunRecord) -> Option<f64> {
    run.inner_number("energy", "co2_kg").or_else(|| run.lines.last()?.get("co2_kg"))
}

/// Seconds of a step of training.
fn per_step(run: &RunRecord) -> Option<f64> {
    let line = run.lines.last()?;
    (line.step > 0).then(|| line.get("wall_s").map(|seconds| seconds / line.step as f64))?
}

/// `None` where no run knows even its time.
pub fn table(study: &Study, options: &Options) -> Option<Table> {
    let all: Vec<&RunRecord> = study.arms.iter().flat_map(|arm| arm.runs.iter().copied()).collect();
    let largest = |of: fn(&RunRecord) -> Option<f64>| all.iter().filter_map(|run| of(run)).reduce(f64::max);
    let time = time_unit(largest(seconds)?);
    let step = largest(per_step).map_or(1.0, |seconds| if seconds < 1.0 { 1e-3 } else { 1.0 });
    let (energy, mass) = (energy_unit(largest(kwh).unwrap_or(0.0)), mass_unit(largest(kg).unwrap_or(0.0)));
    let digits = |of: fn(&RunRecord) -> Option<f64>, unit: f64| decimals(largest(of).map(|value| value / unit), 3);
    let compared = study.arms.iter().any(|arm| arm.baseline.is_some());
    let mut columns = vec![
        Column::text("arm"),
        Column::number("n", "", Format::Fixed(0)),
        Column::number("training", time.name, Format::Fixed(digits(seconds, time.size))),
        Column::number("per step", if step < 1.0 { "ms" } else { "s" }, Format::Fixed(digits(per_step, step))),
    ];
    if compared {
        columns.push(Column::number("× baseline", "", Format::Fixed(2)));
    }
    columns.extend([
        Column::number("energy", energy.name, Format::Fixed(digits(kwh, energy.size))),
        Column::number("CO₂", &format!("{} CO₂e", mass.name), Format::Fixed(digits(kg, mass.size))),
        Column::text("source"),
    ]);
    let mut table = Table::new("costs", "What a run cost", columns);
    for (i, arm) in study.arms.iter().enumerate() {
        let amounts = |of: fn(&RunRecord) -> Option<f64>, unit: f64| {
            let values: Vec<f64> = plain(&values(arm, of)).into_iter().map(|value| value / unit).collect();
            // A mean over those that were metered would stand for all.
            if values.len() == arm.counted().len() { cell(&values, options.band) } else { Cell::Absent }
        };
        let speed = amounts(per_step, step);
        let mut cells =
            vec![Cell::text(&arm.label), Cell::count(arm.counted().len()), amounts(seconds, time.size), speed.clone()];
        if compared {
            let base = arm.baseline.and_then(|base| {
                let values: Vec<f64> = plain(&self::values(&study.arms[base], per_step));
                super::stats::Summary::of(&values).map(|summary| summary.mean / step)
            });
            cells.push(Cell::number(speed.value().zip(base).map(|(own, base)| own / base)));
        }
        cells.extend([
            amounts(kwh, energy.size),
            amounts(kg, mass.size),
            source(&arm.counted()).map_or(Cell::Absent, Cell::Text),
        ]);
        table.push(Some(i), cells);
    }
    table.note(format!(
        "Training alone, without validation and checkpoints; means over runs{}.",
        if study.arms.iter().any(|arm| arm.counted().len() > 1) {
            format!(", ± is {}", spread_words(options.band))
        } else {
            String::new()
        }
    ));
    if let Some(text) = total(&all).filter(|_| all.len() > 1) {
        table.note(text);
    }
    let intensities: BTreeSet<String> = all.iter().filter_map(|run| intensity(run)).collect();
    if !intensities.is_empty() {
        table.note(format!("Carbon intensity: {}.", intensities.into_iter().collect::<Vec<_>>().join("; ")));
    }
    if let Some(text) = mixed(&all) {
        table.note(text);
    }
    Some(table)
}

/// Where figures of energy come from; `None` without runs.
fn source(runs: &[&RunRecord]) -> Option<String> {
    if runs.is_empty() {
        return None;
    }
    let shares: Vec<f64> = runs
        .iter()
        .filter_map(|run| run.inner_number("energy", "measured_share"))
        .filter(|share| (0.0..=1.0).contains(share))
        .collect();
    let (low, high) =
        shares.iter().fold((f64::MAX, f64::MIN), |(low, high), share| (low.min(*share), high.max(*share)));
    let percent = |share: f64| fixed(100.0 * share, 0);
    Some(if shares.is_empty() {
        "not metered".to_owned()
    } else if high == 0.0 {
        "estimated".to_owned()
    } else if low == 1.0 {
        "measured".to_owned()
    } else if percent(low) == percent(high) {
        format!("{} % measured, else estimated", percent(low))
    } else {
        format!("{} to {} % measured, else estimated", percent(low), percent(high))
    })
}

fn intensity(run: &RunRecord) -> Option<String> {
    let grams = run.inner_number("energy", "intensity_g_per_kwh")?;
    let name = run.inner("energy", "intensity").and_then(Value::as_str).unwrap_or("unknown source");
    Some(format!("{} g CO₂e/kWh, {name}", fixed(grams, 0)))
}

/// All runs together, those that failed too; lost work is what a kill cost.
fn total(runs: &[&RunRecord]) -> Option<String> {
    let sum = |of: &dyn Fn(&RunRecord) -> Option<f64>| -> f64 { runs.iter().filter_map(|run| of(run)).sum() };
    let time = sum(&seconds) + sum(&|run| run.number("lost_s"));
    let unit = time_unit(time);
    let mut text = format!(
        "All {} together: {} {} of training",
        plural(runs.len(), "run"),
        fixed(time / unit.size, decimals([time / unit.size], 3)),
        unit.name
    );
    let metered = runs.iter().filter(|run| kwh(run).is_some()).count();
    // Each of several processes at once has metered the whole machine.
    let at_once = runs.iter().filter_map(|run| run.inner_number("options", "jobs")).fold(1.0, f64::max);
    if at_once > 1.0 && metered > 0 {
        text += &format!(
            "; no sum of their energy: up to {} ran at once, and each metered the whole machine",
            fixed(at_once, 0)
        );
    } else if metered > 0 {
        let energy = sum(&kwh) + sum(&|run| run.number("lost_kwh"));
        let unit = energy_unit(energy);
        text += &format!(", {} {}", fixed(energy / unit.size, decimals([energy / unit.size], 3)), unit.name);
        let mass = sum(&kg);
        if mass > 0.0 {
            let unit = mass_unit(mass);
            text += &format!(", {} {} CO₂e", fixed(mass / unit.size, decimals([mass / unit.size], 3)), unit.name);
        }
        if metered < runs.len() {
            text += &format!(" ({metered} of them metered)");
        }
    }
    (time > 0.0).then(|| format!("{text}."))
}

/// What differs between runs that decides how long a step takes.
fn mixed(runs: &[&RunRecord]) -> Option<String> {
    let differs = |of: &dyn Fn(&RunRecord) -> Option<String>| {
        let values: BTreeSet<Option<String>> = runs.iter().map(|run| of(run)).collect();
        (values.len() > 1)
            .then(|| values.into_iter().map(|value| value.unwrap_or_else(|| "unknown".to_owned())).collect::<Vec<_>>())
    };
    let inner = |object: &'static str, key: &'static str| {
        move |run: &RunRecord| run.inner(object, key).map(super::label::short)
    };
    let commit = |run: &RunRecord| run.text("git_commit").map(|commit| commit.chars().take(10).collect());
    let found: Vec<String> = [
        ("device", differs(&|run: &RunRecord| run.text("device").map(str::to_owned))),
        ("threads", differs(&inner("options", "threads"))),
        ("libtorch", differs(&inner("versions", "libtorch"))),
        ("dbp-host", differs(&inner("versions", "dbp_host"))),
        ("commit", differs(&commit)),
    ]
    .into_iter()
    .filter_map(|(name, values)| Some(format!("{name} {}", values?.join(", "))))
    .collect();
    (!found.is_empty()).then(|| format!("Seconds and energy do not compare: runs differ in {}.", found.join("; ")))
}
