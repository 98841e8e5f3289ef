//! What an edit did: the lines that changed, and a table of a run's figures beside those of the run before.
//!
//! Everything is read from the run directories, so that a run that was stopped compares like one that ended.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::host::progress::duration;
use crate::host::session::Session;

/// Lines of a difference shown at most.
const MAX_DIFF: usize = 16;
const LABEL: usize = 24;
const CELL: usize = 12;

/// What a script left when it ended or was stopped.
pub struct Ended {
    /// Texts by key, as they were at the end.
    sources: Vec<(String, String)>,
    runs: Vec<Run>,
}

/// A run directory's figures; absent is what it does not say.
struct Run {
    name: String,
    status: String,
    step: u64,
    steps: u64,
    /// Steps that it took over from another run.
    carried: u64,
    wall_s: Option<f64>,
    kwh: Option<f64>,
    /// What the best checkpoint is the best of.
    figure: String,
    best: Option<f64>,
    /// The figure by step.
    curve: Curve,
    train_loss: Curve,
}

/// Values by step.
type Curve = Vec<(u64, f64)>;

impl Ended {
    /// Reads what the session's runs left.
    pub fn of(session: &Session) -> Self {
        let dirs = session.runs.directories();
        Self { sources: session.running_sources(), runs: dirs.iter().filter_map(|dir| Run::read(dir)).collect() }
    }

    pub fn has_runs(&self) -> bool {
        !self.runs.is_empty()
    }

    /// What is different from `before`, for people; `None` if there is nothing to compare.
    pub fn against(&self, before: &Self) -> Option<String> {
        if self.runs.is_empty() || before.runs.is_empty() {
            return None;
        }
        let mut text = String::from("\n");
        text += &difference(&before.sources, &self.sources);
        for (place, now) in self.runs.iter().enumerate() {
            let Some(then) = before.runs.get(place) else { continue };
            let name = if self.runs.len() > 1 { now.name.as_str() } else { "" };
            // Writing to a String does not fail.
            let _ = writeln!(text, "\n{name:<LABEL$}{:>CELL$}{:>CELL$}", "before", "now");
            for row in rows(then, now) {
                let _ = writeln!(text, "{}", row.trim_end());
            }
        }
        Some(text)
    }
}

impl Run {
    fn read(dir: &Path) -> Option<Self> {
        let record: Value = serde_json::from_slice(&std::fs::read(dir.join("run.json")).ok()?).ok()?;
        let best = record["best"].as_object();
        // `best` is `{ FIGURE: value, step }`.
        let figure = best.and_then(|best| best.keys().find(|key| *key != "step").cloned());
        let figure = figure.unwrap_or_else(|| "val_loss".to_owned());
        let lines = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
        // The last line may be half written.
        let lines: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let curve = |name: &str| -> Curve {
            lines.iter().filter_map(|line| Some((line["step"].as_u64()?, line[name].as_f64()?))).collect()
        };
        Some(Self {
            name: record["name"].as_str()?.to_owned(),
            status: record["status"].as_str()?.to_owned(),
            step: record["step"].as_u64()?,
            steps: record["steps"].as_u64()?,
            carried: record["continued_from"]["step"].as_u64().unwrap_or(0),
            wall_s: record["wall_s"].as_f64(),
            kwh: record["energy"]["energy_kwh"].as_f64(),
            best: best.and_then(|best| best.get(&figure)?.as_f64()),
            curve: curve(&figure),
            train_loss: curve("train_loss"),
            figure,
        })
    }
}

/// The last step that both curves have, with both values.
fn common(then: &Curve, now: &Curve) -> Option<(u64, f64, f64)> {
    let at = |curve: &Curve, wanted: u64| curve.iter().find(|(step, _)| *step == wanted).map(|(_, value)| *value);
    now.iter().rev().find_map(|(step, value)| Some((*step, at(then, *step)?, *value)))
}

fn rows(then: &Run, now: &Run) -> Vec<String> {
    let steps = |run: &Run| match run.status.as_str() {
        "done" => run.step.to_string(),
        _ => format!("{}/{}", run.step, run.steps),
    };
    let mut rows = vec![format!("{:<LABEL$}{:>CELL$}{:>CELL$}", "steps", steps(then), steps(now))];
    if then.carried + now.carried > 0 {
        rows.push(format!("{:<LABEL$}{:>CELL$}{:>CELL$}", "going on from step", then.carried, now.carried));
    }
    let mut row = |label: &str, then: Option<f64>, now: Option<f64>, shown: &dyn Fn(f64) -> String| {
        if then.is_none() && now.is_none() {
            return;
        }
        let cell = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
        let change = match (then, now) {
            (Some(then), Some(now)) if then != 0.0 => format!("{:+9.1} %", 100.0 * (now - then) / then.abs()),
            _ => String::new(),
        };
        rows.push(format!("{label:<LABEL$}{:>CELL$}{:>CELL$}{change}", cell(then), cell(now)));
    };
    let digits = |value: f64| format!("{value:.4}");
    if then.figure == now.figure {
        row(&format!("{}, best", now.figure), then.best, now.best, &digits);
        // Runs of unequal length compare where both were measured last.
        if let Some((step, before, value)) = common(&then.curve, &now.curve).filter(|_| then.step != now.step) {
            row(&format!("{} at step {step}", now.figure), Some(before), Some(value), &digits);
        }
    }
    if let Some((step, before, value)) = common(&then.train_loss, &now.train_loss) {
        row(&format!("train_loss at step {step}"), Some(before), Some(value), &digits);
    }
    row("training time", then.wall_s, now.wall_s, &duration);
    let done = |run: &Run| run.step.saturating_sub(run.carried);
    let per_step = |run: &Run| run.wall_s.filter(|_| done(run) > 0).map(|wall| 1000.0 * wall / done(run) as f64);
    if done(then) != done(now) {
        row("ms a step", per_step(then), per_step(now), &|ms| format!("{ms:.1}"));
    }
    row("energy, Wh", then.kwh.map(|kwh| 1000.0 * kwh), now.kwh.map(|kwh| 1000.0 * kwh), &|wh| format!("{wh:.3}"));
    rows
}

/// Lines that went and came, file by file.
fn difference(before: &[(String, String)], now: &[(String, String)]) -> String {
    let text_of = |sources: &[(String, String)], key: &str| {
        sources.iter().find(|(known, _)| known == key).map_or(String::new(), |(_, text)| text.clone())
    };
    let mut keys: Vec<&String> = before.iter().chain(now).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let mut lines = Vec::new();
    for key in keys {
        let (old, new) = (text_of(before, key), text_of(now, key));
        if old == new {
            continue;
        }
        lines.push(format!("changed in {key}"));
        for change in TextDiff::from_lines(old.as_str(), new.as_str()).iter_all_changes() {
            let sign = match change.tag() {
                ChangeTag::Equal => continue,
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            let line = change.value().trim_end();
            if !line.trim().is_empty() {
                lines.push(format!("  {sign} {line}"));
            }
        }
    }
    if lines.is_empty() {
        return "nothing changed in the script\n".to_owned();
    }
    let more = lines.len().saturating_sub(MAX_DIFF);
    lines.truncate(MAX_DIFF);
    if more > 0 {
        lines.push(format!("  … and {more} lines more"));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, record: &str, lines: &str) -> Run {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("run.json"), record).unwrap();
        std::fs::write(dir.join("metrics.jsonl"), lines).unwrap();
        Run::read(dir).unwrap()
    }

    #[test]
    fn a_stopped_run_is_compared_where_both_were_measured() {
        let folder = tempfile::tempdir().unwrap();
        let before = run(
            &folder.path().join("a"),
            r#"{"name":"a","status":"done","step":4,"steps":4,"wall_s":8.0,"best":{"val_loss":0.5,"step":4},"energy":{"energy_kwh":0.002}}"#,
            "{\"step\":2,\"val_loss\":0.8}\n{\"step\":4,\"val_loss\":0.5}\n",
        );
        let now = run(
            &folder.path().join("b"),
            r#"{"name":"a","status":"interrupted","step":2,"steps":4,"wall_s":2.0,"best":{"val_loss":0.6,"step":2}}"#,
            "{\"step\":2,\"val_loss\":0.6}\n{\"step\":3",
        );
        let source = |text: &str| vec![("a.rhai".to_owned(), text.to_owned())];
        let before = Ended { sources: source("let lr = 1;\nrun();\n"), runs: vec![before] };
        let now = Ended { sources: source("let lr = 2;\nrun();\n"), runs: vec![now] };
        let table = now.against(&before).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1..4], ["changed in a.rhai", "  - let lr = 1;", "  + let lr = 2;"]);
        let cells = |label: &str| -> Vec<&str> {
            let row = lines.iter().find(|line| line.starts_with(label)).unwrap();
            row[LABEL..].split_whitespace().collect()
        };
        assert_eq!(cells("steps"), ["4", "2/4"]);
        assert_eq!(cells("val_loss, best"), ["0.5000", "0.6000", "+20.0", "%"]);
        assert_eq!(cells("val_loss at step 2"), ["0.8000", "0.6000", "-25.0", "%"]);
        assert_eq!(cells("ms a step"), ["2000.0", "1000.0", "-50.0", "%"]);
        assert_eq!(cells("energy, Wh"), ["2.000", "-"]);
    }
}
