//! Intersection over union per class, as `run.json` has it from the last evaluation (`scores.iou`).

use serde_json::{Map, Value};

use super::Options;
use super::group::{Arm, Study};
use super::number::decimals;
use super::read::{RunRecord, bounded};
use super::table::{Cell, Column, Format, Table};
use super::table_one::{cell, spread_words};

/// A row for each class, a column for each arm; `None` where no run was scored by class.
pub fn table(study: &Study, options: &Options) -> Option<Table> {
    let scored = |arm: &Arm| arm.counted().iter().any(|run| iou(run).is_some());
    let arms: Vec<&Arm> = study.arms.iter().filter(|arm| scored(arm)).collect();
    let mut classes: Vec<String> = Vec::new();
    for class in arms.iter().flat_map(|arm| arm.counted()).filter_map(iou).flat_map(|scores| scores.into_iter()) {
        if !classes.contains(&class.0) {
            classes.push(class.0);
        }
    }
    if classes.is_empty() {
        return None;
    }
    let format = Format::Fixed(decimals([0.5], 3));
    let mut columns = vec![Column::text("class")];
    // The best of a column would be the easiest class.
    columns.extend(arms.iter().map(|arm| Column::number(&arm.label, "", format)));
    let mut table = Table::new("iou", "Intersection over union per class", columns);
    for class in &classes {
        let mut cells = vec![Cell::text(class)];
        for arm in &arms {
            let values: Vec<f64> =
                arm.counted().into_iter().filter_map(|run| iou(run)?.get(class).and_then(bounded)).collect();
            cells.push(cell(&values, options.band));
        }
        table.push(None, cells);
    }
    let several = arms.iter().any(|arm| arm.counted().len() > 1);
    let spread = if several { format!(" ± is {}.", spread_words(options.band)) } else { String::new() };
    table.note(format!(
        "From the last evaluation, one confusion matrix over all its images. A dash: the class is not in them.{spread}"
    ));
    Some(table)
}

/// Scores by class name, or by number where classes have none.
fn iou(run: &RunRecord) -> Option<Map<String, Value>> {
    match run.inner("scores", "iou").or_else(|| run.record.get("iou"))? {
        Value::Object(map) => Some(map.clone()),
        Value::Array(list) => {
            Some(list.iter().enumerate().map(|(i, value)| (format!("class {i}"), value.clone())).collect())
        }
        _ => None,
    }
}
