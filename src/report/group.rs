//! Runs that belong together: studies, their arms, and which arm each is compared with.
//!
//! A study is a grid of a script, or all other runs of one script with one goal. An arm is one setting over seeds. Runs of a grid know
//! their setting; others are told apart by arguments, recipe, decorrelated layers and name, seeds aside.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Options;
use super::figure::Better;
use super::find::{Found, Grid};
use super::label::{differing, key_of, labels, short, telling};
use super::read::{RunRecord, Status};
use super::setting::settings_of;

/// A figure and which way is better.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    pub figure: String,
    pub better: Better,
}

/// Runs that are compared with each other.
#[derive(Clone, Debug)]
pub struct Study<'a> {
    pub heading: String,
    pub text: String,
    /// What labels are made of.
    pub axes: Vec<String>,
    /// Those that others are compared with come first.
    pub arms: Vec<Arm<'a>>,
    /// The figures of interest, the main one first.
    pub goals: Vec<Goal>,
    /// Whole sentences on how runs were put together.
    pub notes: Vec<String>,
}

/// One setting over seeds.
#[derive(Clone, Debug)]
pub struct Arm<'a> {
    pub label: String,
    pub setting: Map<String, Value>,
    /// In order of their seeds.
    pub runs: Vec<&'a RunRecord>,
    /// Which arm it is compared with.
    pub baseline: Option<usize>,
}

impl<'a> Arm<'a> {
    /// Runs whose figures are final; of an arm that has none, those that are on their way.
    pub fn counted(&self) -> Vec<&'a RunRecord> {
        let with = |wanted: &[Status]| -> Vec<&'a RunRecord> {
            let fits = |run: &&&RunRecord| wanted.contains(&run.status) && !run.lines.is_empty();
            self.runs.iter().filter(fits).copied().collect()
        };
        let done = with(&[Status::Done]);
        if done.is_empty() { with(&[Status::Running, Status::Interrupted]) } else { done }
    }

    /// Whether [`Arm::counted`] are finished runs.
    pub fn is_final(&self) -> bool {
        self.runs.iter().any(|run| run.status == Status::Done && !run.lines.is_empty())
    }

    pub fn count(&self, status: Status) -> usize {
        self.runs.iter().filter(|run| run.status == status).count()
    }

    pub fn is_decorrelated(&self) -> bool {
        self.runs.iter().any(|run| run.is_decorrelated())
    }
}

impl Study<'_> {
    /// The arms that others are compared with.
    pub fn baselines(&self) -> BTreeSet<usize> {
        self.arms.iter().filter_map(|arm| arm.baseline).collect()
    }
}

/// Puts runs together: grids first, in their scripts' order, then the rest by script.
///
/// # Errors
/// If no study has the baseline or the key that was asked for.
pub fn group<'a>(found: &'a Found, options: &Options) -> Result<Vec<Study<'a>>, String> {
    let mut grids: Vec<Grid> = found.grids.clone();
    for (run, cell) in found.runs.iter().filter_map(|run| Some((run, run.cell.as_ref()?))) {
        let script = run.script_stem();
        if !grids.iter().any(|grid| grid.is(&cell.grid, &script)) {
            grids.push(Grid::bare(&cell.grid, &script));
        }
    }
    let mut studies = Vec::new();
    for grid in &grids {
        let of_grid = |run: &&RunRecord| run.cell.as_ref().is_some_and(|cell| grid.is(&cell.grid, &run.script_stem()));
        let runs: Vec<&RunRecord> = found.runs.iter().filter(of_grid).collect();
        // Of two grids with one name, the later one has its title; its runs are told apart by nothing else.
        if !runs.is_empty() && grids.iter().find(|other| other.is(&grid.name, &grid.script)) == Some(grid) {
            studies.push(study(grid.title.clone(), grid.text.clone(), runs, Some(grid), options));
        }
    }
    let mut kinds: Vec<(String, Option<&str>)> = Vec::new();
    for run in found.runs.iter().filter(|run| run.cell.is_none()) {
        let kind = kind_of(run, found);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (stem, goal) in &kinds {
        let fits = |run: &&RunRecord| run.cell.is_none() && kind_of(run, found) == (stem.clone(), *goal);
        let shared = kinds.iter().filter(|(other, _)| other == stem).count() > 1;
        let heading = if shared { format!("{stem}, {}", goal.unwrap_or("no goal")) } else { stem.clone() };
        studies.push(study(heading, String::new(), found.runs.iter().filter(fits).collect(), None, options));
    }
    check_keys(found, options)?;
    if let Some(wanted) = &options.baseline {
        let mut any = false;
        for study in &mut studies {
            any |= study.take_baseline(wanted);
        }
        if !any {
            let labels: Vec<&str> =
                studies.iter().flat_map(|study| &study.arms).map(|arm| arm.label.as_str()).collect();
            return Err(format!("baseline: expected one of {}, got {wanted}", labels.join("; ")));
        }
    }
    Ok(studies)
}

/// What runs without a grid are put together by. One that came to no figure goes with others of its script.
fn kind_of<'a>(run: &'a RunRecord, found: &'a Found) -> (String, Option<&'a str>) {
    let stem = run.script_stem();
    let like = |other: &&RunRecord| other.cell.is_none() && other.script_stem() == stem;
    let goal = run.goal().or_else(|| found.runs.iter().filter(like).find_map(RunRecord::goal));
    (stem, goal)
}

/// Runs with their places in the study's list.
type Members<'a> = Vec<(usize, &'a RunRecord)>;

fn study<'a>(
    heading: String,
    text: String,
    mut runs: Vec<&'a RunRecord>,
    grid: Option<&Grid>,
    options: &Options,
) -> Study<'a> {
    let mut notes = Vec::new();
    let settings = settings_of(&runs);
    let by_full: Vec<String> = settings.iter().map(|setting| key_of(setting, &all_keys(setting))).collect();
    // Under --by, an arm holds runs of several settings.
    let chosen = |setting: &Map<String, Value>| -> Map<String, Value> {
        if options.by.is_empty() {
            return setting.clone();
        }
        let pick = |key: &String| Some((key.clone(), lookup(setting, key)?.clone()));
        options.by.iter().filter_map(pick).collect()
    };
    let mut arms: Vec<(Map<String, Value>, Members)> = Vec::new();
    for (i, run) in runs.drain(..).enumerate() {
        let setting = chosen(&settings[i]);
        match arms.iter_mut().find(|(known, _)| *known == setting) {
            Some((_, members)) => members.push((i, run)),
            None => arms.push((setting, vec![(i, run)])),
        }
    }
    if let Some(grid) = grid {
        let place = |run: &RunRecord| {
            let cell = run.cell.as_ref()?;
            grid.settings.iter().position(|known| *known == cell.setting)
        };
        arms.sort_by_key(|(_, members)| members.first().and_then(|(_, run)| place(run)).unwrap_or(usize::MAX));
    }
    let settings: Vec<Map<String, Value>> = arms.iter().map(|(setting, _)| setting.clone()).collect();
    let axes = differing(&settings);
    let told_by = telling(&settings, &axes);
    let labels = labels(&settings, &told_by);
    // A grid's axes are few and meant; the many keys of a recipe are cut down to what tells arms apart.
    let axes = if grid.is_some() || !options.by.is_empty() { axes } else { told_by };
    let mut made: Vec<Arm> = Vec::new();
    for ((setting, members), label) in arms.into_iter().zip(labels) {
        let runs = once_per_seed(members, &by_full, &label, &mut notes);
        made.push(Arm { label, setting, runs, baseline: None });
    }
    if let Some(grid) = grid {
        notes.extend(not_run(grid, &made));
    }
    let goals = goals(&made, options);
    let mut study = Study { heading, text, axes, arms: made, goals, notes };
    match grid.and_then(|grid| grid.baseline.as_ref()) {
        Some(partial) => study.compare_with(partial),
        None => study.compare_with_plain(grid.is_some()),
    }
    study
}

fn all_keys(setting: &Map<String, Value>) -> Vec<String> {
    setting.keys().cloned().collect()
}

/// A key as it is, or below one of the maps of `run.json`.
fn lookup<'v>(setting: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    setting.get(key).or_else(|| setting.get(&format!("recipe.{key}")))
}

fn check_keys(found: &Found, options: &Options) -> Result<(), String> {
    let runs: Vec<&RunRecord> = found.runs.iter().collect();
    let settings = settings_of(&runs);
    for key in &options.by {
        if !settings.iter().any(|setting| lookup(setting, key).is_some()) {
            let mut known: Vec<String> = differing(&settings);
            known.truncate(12);
            return Err(format!("by: expected a key that runs differ in ({}), got {key}", known.join(", ")));
        }
    }
    Ok(())
}

/// The same setting with the same seed twice is one result, not two: the one that got furthest counts, of equals the newest.
fn once_per_seed<'a>(
    members: Members<'a>,
    full: &[String],
    label: &str,
    notes: &mut Vec<String>,
) -> Vec<&'a RunRecord> {
    let mut kept: Vec<(usize, &RunRecord)> = Vec::new();
    let mut repeated = 0;
    for (i, run) in members {
        let same =
            |(k, other): &&mut (usize, &RunRecord)| full[*k] == full[i] && run.seed.is_some() && other.seed == run.seed;
        match kept.iter_mut().find(same) {
            None => kept.push((i, run)),
            Some(slot) => {
                repeated += 1;
                if run.status <= slot.1.status {
                    *slot = (i, run);
                }
            }
        }
    }
    if repeated > 0 {
        let (times, were) =
            if repeated == 1 { ("A run".to_owned(), "was") } else { (format!("{repeated} runs"), "were") };
        notes
            .push(format!("{times} of {label} {were} left out: the same setting and seed ran again, and counts once."));
    }
    let mut runs: Vec<&RunRecord> = kept.into_iter().map(|(_, run)| run).collect();
    runs.sort_by_key(|run| run.seed);
    runs
}

fn not_run(grid: &Grid, arms: &[Arm]) -> Option<String> {
    let planned = grid.settings.len() * grid.seeds.len();
    let planned_run = |run: &&&RunRecord| run.cell.as_ref().is_some_and(|cell| grid.settings.contains(&cell.setting));
    let there = arms.iter().flat_map(|arm| &arm.runs).filter(planned_run).count();
    let missing = planned.saturating_sub(there);
    let are = if missing == 1 { "is" } else { "are" };
    (missing > 0).then(|| format!("{missing} of the {planned} runs of this grid {are} not here."))
}

/// The figure asked for, or else what decides which checkpoint is best, and the validation loss where it is another.
fn goals(arms: &[Arm], options: &Options) -> Vec<Goal> {
    let runs: Vec<&RunRecord> = arms.iter().flat_map(|arm| arm.runs.iter().copied()).collect();
    let has = |figure: &str| runs.iter().any(|run| run.lines.iter().any(|line| line.get(figure).is_some()));
    let mut names: Vec<&str> = Vec::new();
    match &options.figure {
        Some(figure) => names.push(figure),
        None => {
            names.extend(runs.iter().find_map(|run| run.goal()));
            names.push("val_loss");
            names.retain(|name| has(name));
            if names.is_empty() {
                names.push("train_loss");
            }
        }
    }
    names.dedup();
    let goal = |name: &str| Goal { figure: name.to_owned(), better: direction(name, &runs) };
    names.into_iter().filter(|name| has(name)).map(goal).collect()
}

/// Which way is better: what a run took for its best says it, or else the figure's name.
fn direction(figure: &str, runs: &[&RunRecord]) -> Better {
    for run in runs.iter().filter(|run| run.goal() == Some(figure)) {
        let values: Vec<f64> = run.lines.iter().filter_map(|line| line.get(figure)).collect();
        let (low, high) =
            values.iter().fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(*value), high.max(*value)));
        let best = run.inner("best", figure).and_then(Value::as_f64);
        if let Some(best) = best.filter(|_| low < high) {
            if best == high {
                return Better::Higher;
            }
            if best == low {
                return Better::Lower;
            }
        }
    }
    let rising = ["iou", "acc", "dice", "score", "f1", "psnr", "ssim", "top1", "top5"];
    if rising.iter().any(|part| figure.to_lowercase().contains(part)) { Better::Higher } else { Better::Lower }
}

impl Study<'_> {
    /// Part of a setting names the baseline: of several that have it, the one that is like the arm otherwise.
    fn compare_with(&mut self, partial: &Map<String, Value>) {
        let has = |arm: &Arm| partial.iter().all(|(axis, value)| arm.setting.get(axis) == Some(value));
        let (base, rest): (Vec<Arm>, Vec<Arm>) = std::mem::take(&mut self.arms).into_iter().partition(has);
        let count = base.len();
        self.arms = base.into_iter().chain(rest).collect();
        let mut alone = 0;
        for i in count..self.arms.len() {
            let other_axes_equal = |base: &Map<String, Value>| {
                let mut others = base.iter().filter(|(axis, _)| !partial.contains_key(*axis));
                others.all(|(axis, value)| self.arms[i].setting.get(axis) == Some(value))
            };
            let alike: Vec<usize> = (0..count).filter(|k| other_axes_equal(&self.arms[*k].setting)).collect();
            self.arms[i].baseline = match (alike.as_slice(), count) {
                ([one], _) => Some(*one),
                (_, 1) => Some(0),
                _ => None,
            };
            alone += usize::from(self.arms[i].baseline.is_none());
        }
        let named =
            partial.iter().map(|(axis, value)| format!("{axis} {}", short(value))).collect::<Vec<_>>().join(", ");
        if count == 0 {
            self.notes.push(format!("No comparison: the baseline ({named}) has not run."));
        } else if alone > 0 {
            let are = if alone == 1 { "arm is" } else { "arms are" };
            self.notes.push(format!(
                "{alone} {are} compared with nothing: of {count} baselines ({named}) not exactly one is like it otherwise."
            ));
        }
    }

    /// Where no baseline is named, it is the only arm that decorrelates nothing.
    fn compare_with_plain(&mut self, of_grid: bool) {
        if self.arms.len() < 2 {
            return;
        }
        let plain: Vec<usize> = (0..self.arms.len()).filter(|i| !self.arms[*i].is_decorrelated()).collect();
        match plain.as_slice() {
            [one] => self.put_baseline(*one),
            // Its script knew what it wanted.
            _ if of_grid => {
                self.notes.push("No comparison: this grid has no baseline; --baseline names one.".to_owned())
            }
            [] => self
                .notes
                .push("No comparison: no arm is without decorrelated layers; --baseline names one.".to_owned()),
            several => self.notes.push(format!(
                "No comparison: {} arms are without decorrelated layers; --baseline names the one to compare with.",
                several.len()
            )),
        }
    }

    /// Takes the arm that is called so; whether there is one.
    fn take_baseline(&mut self, wanted: &str) -> bool {
        let plain =
            |text: &str| text.chars().filter(|c| c.is_alphanumeric() || *c == '.').collect::<String>().to_lowercase();
        let wanted = plain(wanted);
        let Some(found) = self.arms.iter().position(|arm| plain(&arm.label) == wanted) else { return false };
        self.notes.retain(|note| !note.contains("compar"));
        self.put_baseline(found);
        true
    }

    fn put_baseline(&mut self, found: usize) {
        let arm = self.arms.remove(found);
        self.arms.insert(0, arm);
        for (i, arm) in self.arms.iter_mut().enumerate() {
            arm.baseline = (i > 0).then_some(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::made::{arm, study};
    use super::*;

    /// Labels of arms with that of what each is compared with.
    fn check(settings: &[Value], partial: Value, want: &[(&str, Option<&str>)], notes: usize) {
        let arms =
            settings.iter().map(|setting| arm(&setting.to_string().replace('"', ""), setting.clone(), &[], None));
        let mut made = study(arms.collect());
        made.compare_with(partial.as_object().unwrap());
        let label = |base: usize| made.arms[base].label.as_str();
        let got: Vec<_> = made.arms.iter().map(|arm| (arm.label.as_str(), arm.baseline.map(label))).collect();
        assert_eq!(got, want);
        assert_eq!(made.notes.len(), notes, "{:?}", made.notes);
    }

    #[test]
    fn arms_are_compared_with_the_baseline_that_is_like_them() {
        let bp = |lr: f64| json!({ "arm": "bp", "lr": lr });
        let dbp = |lr: f64| json!({ "arm": "dbp", "lr": lr, "eta": 1 });
        // One baseline serves all.
        check(
            &[dbp(0.5), bp(0.1)],
            json!({ "arm": "bp" }),
            &[("{arm:bp,lr:0.1}", None), ("{arm:dbp,lr:0.5,eta:1}", Some("{arm:bp,lr:0.1}"))],
            0,
        );
        // Of two, that of the same rate; an arm with a rate of its own has none.
        check(
            &[bp(0.1), dbp(0.1), bp(0.2), dbp(0.2), dbp(0.3)],
            json!({ "arm": "bp" }),
            &[
                ("{arm:bp,lr:0.1}", None),
                ("{arm:bp,lr:0.2}", None),
                ("{arm:dbp,lr:0.1,eta:1}", Some("{arm:bp,lr:0.1}")),
                ("{arm:dbp,lr:0.2,eta:1}", Some("{arm:bp,lr:0.2}")),
                ("{arm:dbp,lr:0.3,eta:1}", None),
            ],
            1,
        );
        check(&[dbp(0.1)], json!({ "arm": "bp" }), &[("{arm:dbp,lr:0.1,eta:1}", None)], 1);
    }
}
