//! Decorrelation layer by layer: loss and mean absolute correlation over time as heat maps, and where they began and ended.
//!
//! Values are means over an arm's seeds at steps that all of them logged. The loss is Σ C_ij² / d² off the diagonal, which shrinks with the
//! inputs' variance too; the correlation is free of scale.

use super::Block;
use super::figure::{Axis, Better, Cell, Figure, HeatMap, Stops};
use super::group::{Arm, Study};
use super::read::RunRecord;
use super::stats::Summary;
use super::table::{Cell as Entry, Column, Format, Table};

/// Arms with maps of their own.
const ARMS: usize = 6;
/// Columns of a map; of more steps, every second, third, …
const COLUMNS: usize = 120;

struct Measure {
    key: &'static str,
    name: &'static str,
    log: bool,
}

const MEASURES: [Measure; 2] = [
    Measure { key: "decor_loss", name: "decorrelation loss", log: true },
    Measure { key: "mean_abs_corr", name: "mean |correlation|", log: false },
];

/// Maps and a table; nothing where no run has layers.
pub fn blocks(study: &Study) -> Vec<Block> {
    let with: Vec<usize> =
        (0..study.arms.len()).filter(|i| study.arms[*i].counted().iter().any(|run| !run.layers.is_empty())).collect();
    let mut blocks: Vec<Block> = table(study, &with).map(Block::Table).into_iter().collect();
    for i in with.iter().take(ARMS) {
        for measure in &MEASURES {
            blocks.extend(map(&study.arms[*i], measure).map(|map| Block::Figure(Figure::Heat(map))));
        }
    }
    if with.len() > ARMS {
        blocks.push(Block::Note(format!("Maps of the first {ARMS} of {} arms with such layers.", with.len())));
    }
    blocks
}

fn runs<'a>(arm: &Arm<'a>) -> Vec<&'a RunRecord> {
    arm.counted().into_iter().filter(|run| !run.layers.is_empty()).collect()
}

/// Names in order of their first appearance, and the steps that every run logged.
fn layout(runs: &[&RunRecord]) -> (Vec<String>, Vec<u64>) {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.layers).flat_map(|line| &line.layers) {
        if !names.iter().any(|known| **known == **name) {
            names.push(name.to_string());
        }
    }
    let has = |run: &RunRecord, step: u64| run.layers.iter().any(|line| line.step == step);
    let first = runs.first().into_iter().flat_map(|run| &run.layers).map(|line| line.step);
    (names, first.filter(|step| runs.iter().all(|run| has(run, *step))).collect())
}

fn value(run: &RunRecord, step: u64, layer: &str, key: &str) -> Option<f64> {
    let line = run.layers.iter().find(|line| line.step == step)?;
    let (_, figures) = line.layers.iter().find(|(name, _)| **name == *layer)?;
    figures.iter().find(|(name, _)| **name == *key).map(|(_, value)| *value)
}

/// The mean over the runs that have it.
fn mean(runs: &[&RunRecord], step: u64, layer: &str, key: &str) -> Option<f64> {
    let values: Vec<f64> = runs.iter().filter_map(|run| value(run, step, layer, key)).collect();
    Summary::of(&values).map(|summary| summary.mean)
}

fn map(arm: &Arm, measure: &Measure) -> Option<HeatMap> {
    let runs = runs(arm);
    let (names, mut steps) = layout(&runs);
    if steps.len() > COLUMNS {
        let every = steps.len().div_ceil(COLUMNS);
        // The last step stays.
        steps = steps.iter().rev().step_by(every).rev().copied().collect();
    }
    let cell = |step: &u64, layer: &str| Cell { value: mean(&runs, *step, layer, measure.key), note: String::new() };
    let cells: Vec<Vec<Cell>> =
        names.iter().map(|layer| steps.iter().map(|step| cell(step, layer)).collect()).collect();
    if !cells.iter().flatten().any(|cell| cell.value.is_some()) {
        return None;
    }
    let axis = Axis::new(measure.name, "");
    let seeds = if runs.len() == 1 { "One seed".to_owned() } else { format!("Mean of {} seeds", runs.len()) };
    Some(HeatMap {
        title: format!("{}{} per layer: {}", measure.name[..1].to_uppercase(), &measure.name[1..], arm.label),
        caption: format!("{seeds}."),
        x: Axis::new("step", ""),
        columns: Stops::Numbers(steps.iter().map(|step| *step as f64).collect()),
        y: Axis::new("layer", ""),
        rows: Stops::Labels(names),
        value: if measure.log { axis.logarithmic() } else { axis },
        better: Better::Neither,
        cells,
        best: None,
        print_values: false,
    })
}

/// Means over layers, at the first and the last step.
fn table(study: &Study, with: &[usize]) -> Option<Table> {
    let mut rows = Vec::new();
    for i in with {
        let runs = runs(&study.arms[*i]);
        let (names, steps) = layout(&runs);
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { continue };
        let over_layers = |step: u64, key: &str| {
            let values: Vec<f64> = names.iter().filter_map(|layer| mean(&runs, step, layer, key)).collect();
            Summary::of(&values).map(|summary| summary.mean)
        };
        let ends =
            MEASURES.iter().flat_map(|measure| [over_layers(*first, measure.key), over_layers(*last, measure.key)]);
        rows.push((*i, names.len(), *first, *last, ends.collect::<Vec<_>>()));
    }
    let mut columns = vec![
        Column::text("arm"),
        Column::number("layers", "", Format::Fixed(0)),
        Column::number("first step", "", Format::Fixed(0)),
        Column::number("last step", "", Format::Fixed(0)),
    ];
    // Arms differ by orders of magnitude, which is what the table is for.
    for measure in &MEASURES {
        columns.push(Column::number(format!("{}, first", measure.name), "", Format::Significant(3)));
        columns.push(Column::number(format!("{}, last", measure.name), "", Format::Significant(3)));
    }
    let mut table = Table::new("layers", "Decorrelation, mean over layers", columns);
    for (i, layers, first, last, ends) in rows {
        let mut cells = vec![Entry::text(&study.arms[i].label), Entry::count(layers)];
        cells.extend([Entry::number(first as f64), Entry::number(last as f64)]);
        cells.extend(ends.into_iter().map(Entry::number));
        table.push(Some(i), cells);
    }
    (!table.rows.is_empty()).then_some(table)
}
