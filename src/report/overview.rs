//! What a report is about, and what became of its runs.

use std::collections::BTreeSet;

use super::find::Found;
use super::group::Study;
use super::read::{RunRecord, Status};
use super::table::{Cell, Column, Format, Table};

const STATUSES: [Status; 5] = [Status::Done, Status::Running, Status::Interrupted, Status::Diverged, Status::Failed];

/// The study's heading, or of several the names of their scripts.
pub fn title(studies: &[Study]) -> String {
    if let [one] = studies {
        return one.heading.clone();
    }
    let runs = studies.iter().flat_map(|study| &study.arms).flat_map(|arm| &arm.runs);
    let stems: BTreeSet<String> = runs.map(|run| run.script_stem()).collect();
    match stems.len() {
        0 => "No runs".to_owned(),
        1..=3 => stems.into_iter().collect::<Vec<_>>().join(", "),
        _ => format!("{} studies", studies.len()),
    }
}

/// How many runs, how they ended, and when they began.
pub fn summary(found: &Found) -> String {
    let runs = &found.runs;
    if runs.is_empty() {
        return "No run could be read.".to_owned();
    }
    let count = |status: Status| runs.iter().filter(|run| run.status == status).count();
    let parts: Vec<String> = STATUSES
        .into_iter()
        .filter(|status| count(*status) > 0)
        .map(|status| format!("{} {}", count(status), status.word()))
        .collect();
    let days: BTreeSet<&str> = runs.iter().filter_map(|run| run.started().get(..10)).collect();
    let when = match (days.first(), days.last()) {
        (Some(first), Some(last)) if first == last => format!(", started on {first}"),
        (Some(first), Some(last)) => format!(", started from {first} to {last}"),
        _ => String::new(),
    };
    format!("{}: {}{when}.", plural(runs.len(), "run"), parts.join(", "))
}

pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// What became of the runs of each arm, where not all are done; each run that has no final figure is named.
pub fn fate(study: &Study) -> Option<Table> {
    let other = |run: &&&RunRecord| run.status != Status::Done;
    if !study.arms.iter().any(|arm| arm.runs.iter().any(|run| other(&run))) {
        return None;
    }
    let present: Vec<Status> =
        STATUSES.into_iter().filter(|status| study.arms.iter().any(|arm| arm.count(*status) > 0)).collect();
    let mut columns = vec![Column::text("arm"), Column::number("runs", "", Format::Fixed(0))];
    columns.extend(present.iter().map(|status| Column::number(status.word(), "", Format::Fixed(0))));
    let mut table = Table::new("runs", "How the runs ended", columns);
    for (i, arm) in study.arms.iter().enumerate() {
        let mut cells = vec![Cell::text(&arm.label), Cell::count(arm.runs.len())];
        cells.extend(present.iter().map(|status| Cell::count(arm.count(*status))));
        table.push(Some(i), cells);
        for run in arm.runs.iter().filter(other) {
            table.note(format!("{}: {}", arm.label, fate_of(run)));
        }
    }
    table.note(
        "Figures are means over finished runs; diverged and failed ones have none, and n says how many there are.",
    );
    Some(table)
}

/// A run that has not ended well, in a sentence.
fn fate_of(run: &RunRecord) -> String {
    let seed = run.seed.map_or_else(|| run.name.clone(), |seed| format!("seed {seed}"));
    let step = match (run.record.get("step"), run.record.get("steps")) {
        (Some(step), Some(steps)) if steps != step => format!(" at step {step} of {steps}"),
        (Some(step), _) => format!(" at step {step}"),
        _ => String::new(),
    };
    let why = run.error.as_ref().map(|error| format!(": {}", error.trim())).unwrap_or_default();
    format!("{seed} {}{step}{why}.", if run.status == Status::Running { "is running" } else { run.status.word() })
}
