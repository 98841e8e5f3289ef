//! The list for people: a line per run, children below their parent. Where a terminal is narrow, columns go, the least
//! important first, and then the ends of names.

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use serde_json::Value;

use super::Entry;
use crate::host::progress::duration;

/// Between columns.
const GAP: &str = "  ";
/// A name keeps so much.
const SHORTEST_NAME: usize = 16;

struct Column {
    title: &'static str,
    alignment: Alignment,
    /// The higher, the sooner it goes; 0 stays.
    dispensable: u8,
    of: fn(&Entry) -> String,
}

const COLUMNS: [Column; 9] = [
    Column { title: "run", alignment: Alignment::Left, dispensable: 0, of: name },
    Column { title: "started", alignment: Alignment::Left, dispensable: 5, of: started },
    Column { title: "status", alignment: Alignment::Left, dispensable: 0, of: status },
    Column { title: "steps", alignment: Alignment::Right, dispensable: 2, of: steps },
    Column { title: "best", alignment: Alignment::Left, dispensable: 1, of: best },
    Column { title: "training", alignment: Alignment::Right, dispensable: 3, of: training },
    Column { title: "kWh", alignment: Alignment::Right, dispensable: 4, of: energy },
    Column { title: "kg CO₂", alignment: Alignment::Right, dispensable: 6, of: co2 },
    Column { title: "layers", alignment: Alignment::Right, dispensable: 7, of: layers },
];

/// Columns of the terminal that stdout is; `None` if it is none.
pub fn width() -> Option<usize> {
    let term = Term::stdout();
    term.is_term().then(|| usize::from(term.size().1)).filter(|width| *width > 0)
}

/// The table, no line of it wider than `width` if that can be.
pub fn lines(entries: &[Entry], width: Option<usize>) -> Vec<String> {
    let mut rows: Vec<(bool, &Entry)> = Vec::new();
    for entry in entries {
        rows.push((false, entry));
        rows.extend(entry.runs.iter().map(|run| (true, run)));
    }
    let mut columns: Vec<(&Column, Vec<String>)> = Vec::new();
    for column in &COLUMNS {
        let cell = |(child, entry): &(bool, &Entry)| match (child, column.title) {
            (true, "run") => format!("  {}", name(entry)),
            (true, "started") => String::new(), // Its parent's is enough.
            _ => (column.of)(entry),
        };
        let cells: Vec<String> = rows.iter().map(cell).collect();
        if column.dispensable == 0 || cells.iter().any(|cell| !cell.is_empty()) {
            columns.push((column, cells));
        }
    }
    let widest = |title: &str, cells: &[String]| {
        cells.iter().map(|cell| measure_text_width(cell)).chain([measure_text_width(title)]).max().unwrap_or(0)
    };
    let total = |columns: &[(&Column, Vec<String>)]| {
        columns.iter().map(|(column, cells)| widest(column.title, cells)).sum::<usize>()
            + GAP.len() * columns.len().saturating_sub(1)
    };
    let mut name_width = columns.first().map_or(0, |(column, cells)| widest(column.title, cells));
    if let Some(width) = width {
        let excess = |columns: &[(&Column, Vec<String>)], name_width: usize| {
            let short = name_width.min(SHORTEST_NAME);
            (total(columns) - name_width + short).saturating_sub(width)
        };
        while excess(&columns, name_width) > 0 {
            let least = columns.iter().map(|(column, _)| column.dispensable).max().unwrap_or(0);
            if least == 0 {
                break;
            }
            columns.retain(|(column, _)| column.dispensable != least);
        }
        name_width -= total(&columns).saturating_sub(width).min(name_width.saturating_sub(SHORTEST_NAME));
    }
    let line = |at: Option<usize>| {
        let cells = columns.iter().enumerate().map(|(number, (column, cells))| {
            let text = at.map_or(column.title, |at| &cells[at]);
            let width = if number == 0 { name_width } else { widest(column.title, cells) };
            pad_str(&truncate_str(text, width, "…"), width, column.alignment, None).into_owned()
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    std::iter::once(None).chain((0..rows.len()).map(Some)).map(line).collect()
}

/// A directory's name has when it started; that of a child is short.
fn name(entry: &Entry) -> String {
    super::file_name(&entry.dir)
}

fn started(entry: &Entry) -> String {
    // RFC 3339: day and minute.
    let text = entry.started.as_deref().unwrap_or_default();
    text.get(..16).map_or_else(String::new, |minute| minute.replace('T', " "))
}

fn status(entry: &Entry) -> String {
    let pruned = if entry.pruned { ", no checkpoints" } else { "" };
    match entry.runs.len() {
        0 => format!("{}{pruned}", entry.status.word()),
        1 => format!("{}, 1 run{pruned}", entry.status.word()),
        n => format!("{}, {n} runs{pruned}", entry.status.word()),
    }
}

fn steps(entry: &Entry) -> String {
    match (entry.step, entry.steps) {
        (Some(step), Some(steps)) if step == steps => step.to_string(),
        (Some(step), Some(steps)) => format!("{step}/{steps}"),
        _ => String::new(),
    }
}

fn best(entry: &Entry) -> String {
    let figures = entry.best.as_ref().and_then(Value::as_object).into_iter().flatten();
    let figure = figures.filter(|(name, _)| *name != "step").find_map(|(name, value)| Some((name, value.as_f64()?)));
    figure.map_or_else(String::new, |(name, value)| format!("{name} {value:.4}"))
}

fn training(entry: &Entry) -> String {
    entry.wall_s.map_or_else(String::new, duration)
}

fn energy(entry: &Entry) -> String {
    entry.energy_kwh.map_or_else(String::new, significant)
}

fn co2(entry: &Entry) -> String {
    entry.co2_kg.map_or_else(String::new, significant)
}

fn layers(entry: &Entry) -> String {
    entry.decorrelated.map_or_else(String::new, |count| count.to_string())
}

/// Three digits that count.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::super::State;
    use super::*;

    fn run(dir: &str, status: State) -> Entry {
        Entry {
            dir: PathBuf::from(dir),
            name: "pretrain".into(),
            status,
            started: Some("2026-01-31T14:05:09.1+00:00".into()),
            step: Some(120),
            steps: Some(400),
            best: Some(json!({ "val_loss": 0.66312, "step": 100 })),
            wall_s: Some(95.0),
            energy_kwh: Some(0.00123456),
            co2_kg: Some(0.000586),
            peak_memory_bytes: None,
            decorrelated: Some(17),
            smoke: false,
            pruned: false,
            runs: Vec::new(),
        }
    }

    #[test]
    fn a_wide_table_has_everything() {
        let child = run("runs/2026-01-31T15-00-00-ablation/1-plain", State::Done);
        let parent = Entry {
            runs: vec![child],
            best: None,
            step: None,
            steps: None,
            decorrelated: None,
            ..run("runs/2026-01-31T15-00-00-ablation", State::Done)
        };
        let lines = lines(&[run("runs/2026-01-31T14-05-09-pretrain", State::Running), parent], None);
        let want = [
            "run                           started           status         steps  best             training      kWh    kg CO₂  layers",
            "2026-01-31T14-05-09-pretrain  2026-01-31 14:05  running      120/400  val_loss 0.6631      95 s  0.00123  0.000586      17",
            "2026-01-31T15-00-00-ablation  2026-01-31 14:05  done, 1 run                                95 s  0.00123  0.000586",
            "  1-plain                                       done         120/400  val_loss 0.6631      95 s  0.00123  0.000586      17",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn a_narrow_terminal_loses_columns_and_then_ends_of_names() {
        let entries = [run("runs/2026-01-31T14-05-09-pretrain", State::Running)];
        for width in [200, 100, 80, 60, 40, 30] {
            let lines = lines(&entries, Some(width));
            assert!(lines.iter().all(|line| measure_text_width(line) <= width), "{width}: {lines:?}");
            assert!(lines[1].contains("running"), "{lines:?}");
        }
        assert!(lines(&entries, Some(80))[0].contains("best"), "the best figure stays longest");
        assert!(lines(&entries, Some(30))[1].starts_with("2026-01-31T14-0"), "{:?}", lines(&entries, Some(30)));
        assert_eq!(lines(&entries, Some(5)).len(), 2, "no width is too small to end in an error");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([1234.5, 12.345, 0.012345, 0.0].map(significant), ["1234", "12.3", "0.0123", "0"]);
    }
}
