//! What it takes to be as good as the baseline: the first step, second, kWh and kg at which a run's figure is at or better than
//! the baseline's best, over what the baseline itself took to get there. The saving is 1 − ratio.
//!
//! Seeds pair where both arms have them: a run is held against the best of the baseline's run with its seed. Where none
//! pair, it is held against the mean of the baseline's bests. A level counts as reached at a logged point; a run that
//! never reaches it has no ratio, and none is made up: the mean is over those that did, and says how many. Ratios multiply, so their
//! mean is the geometric one, its interval that of the logarithms, and the test the paired t-test of the logarithms.

use super::compare::has_spread;
use super::curve::{Against, Curve};
use super::figure::{Better, Headline};
use super::group::{Arm, Goal, Study};
use super::number::{energy_unit, mass_unit, signed, time_unit};
use super::read::{Line, RunRecord, Status};
use super::stats::{Kind, Summary, Test, holm, paired};
use super::table::{Cell, Column, Format, Table};
use super::table_one::{CONFIDENCE, MANY, Measure, against, id, name, p_words};

/// Who reached the level: what each pair's two runs took, on every axis.
#[derive(Clone, Debug)]
pub struct Reaching<'a> {
    pub arm: usize,
    pub base: usize,
    pub paired: bool,
    /// How many were held against the level.
    pub tried: usize,
    /// The lines at which the arm's run and the baseline's first had the level.
    pub reached: Vec<(&'a Line, &'a Line)>,
    /// Unpaired, the baseline's own lines, which have no partners.
    base_lines: Vec<&'a Line>,
    own_lines: Vec<&'a Line>,
}

/// What it took on one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Saving {
    pub against: Against,
    /// Means over those that reached the level.
    pub base: f64,
    pub own: f64,
    /// Of the arm's to the baseline's.
    pub ratio: f64,
    /// Of the ratio, where two pairs or more reached the level.
    pub interval: Option<(f64, f64)>,
    /// Only where all pairs reached the level.
    pub test: Option<Test>,
}

/// Every arm with a baseline, of finished runs.
pub fn reaching<'a>(study: &Study<'a>, goal: &Goal) -> Vec<Reaching<'a>> {
    let mut all = Vec::new();
    for (i, arm) in study.arms.iter().enumerate() {
        let Some(base) = arm.baseline else { continue };
        if arm.is_final() && study.arms[base].is_final() {
            all.push(hold(i, base, &study.arms[i], &study.arms[base], goal));
        }
    }
    all
}

fn hold<'a>(arm: usize, base: usize, own: &Arm<'a>, other: &Arm<'a>, goal: &Goal) -> Reaching<'a> {
    let curve = |run: &'a RunRecord| Curve::of(run, &goal.figure, goal.better);
    let has = |run: &&'a RunRecord| run.status == Status::Done && !curve(run).is_empty();
    // One that diverged was tried and got nowhere: leaving it out would flatter.
    let own: Vec<&RunRecord> =
        own.runs.iter().copied().filter(|run| has(run) || run.status == Status::Diverged).collect();
    let other: Vec<&RunRecord> = other.runs.iter().copied().filter(has).collect();
    let first_at = |run: &'a RunRecord, level: f64| if has(&run) { curve(run).first_at(level) } else { None };
    let mut made = Reaching {
        arm,
        base,
        paired: false,
        tried: 0,
        reached: Vec::new(),
        base_lines: Vec::new(),
        own_lines: Vec::new(),
    };
    for run in &own {
        let mut partners = other.iter().filter(|partner| run.seed.is_some() && partner.seed == run.seed);
        let (Some(partner), None) = (partners.next(), partners.next()) else { continue };
        made.paired = true;
        made.tried += 1;
        let Some((at_best, level)) = curve(partner).best() else { continue };
        if let Some(line) = first_at(run, level) {
            made.reached.push((line, at_best));
        }
    }
    if !made.paired {
        let bests: Vec<f64> = other.iter().filter_map(|run| Measure::Best.of(run, goal)).collect();
        made.tried = own.len();
        if let Some(level) = Summary::of(&bests).map(|summary| summary.mean) {
            made.own_lines = own.iter().filter_map(|run| first_at(run, level)).collect();
            made.base_lines = other.iter().filter_map(|run| first_at(run, level)).collect();
        }
    }
    made
}

impl Reaching<'_> {
    /// How many reached it.
    pub fn count(&self) -> usize {
        if self.paired { self.reached.len() } else { self.own_lines.len() }
    }

    /// Where the one run that was tried had the level first.
    pub fn single(&self) -> Option<&Line> {
        match (self.reached.as_slice(), self.own_lines.as_slice()) {
            ([(line, _)], _) | ([], [line]) => Some(line),
            _ => None,
        }
    }

    /// On one axis; `None` where nobody reached the level, or the axis is not known of all who did.
    pub fn saving(&self, against: Against) -> Option<Saving> {
        let places = |lines: &[&Line]| {
            lines.iter().map(|line| against.of(line).filter(|x| *x > 0.0)).collect::<Option<Vec<_>>>()
        };
        if !self.paired {
            let (own, base) =
                (Summary::of(&places(&self.own_lines)?)?.mean, Summary::of(&places(&self.base_lines)?)?.mean);
            return Some(Saving { against, base, own, ratio: own / base, interval: None, test: None });
        }
        let (own, base): (Vec<&Line>, Vec<&Line>) = self.reached.iter().copied().unzip();
        let (own, base) = (places(&own)?, places(&base)?);
        let logs = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
        let ratios: Vec<f64> = own.iter().zip(&base).map(|(own, base)| (own / base).ln()).collect();
        let log = Summary::of(&ratios)?;
        let test = paired(&logs(&own), &logs(&base));
        let varies = test.as_ref().is_some_and(has_spread);
        Some(Saving {
            against,
            base: Summary::of(&base)?.mean,
            own: Summary::of(&own)?.mean,
            ratio: log.mean.exp(),
            // Ratios that are all the same show how coarse the points are, and no precision.
            interval: log.interval(CONFIDENCE).filter(|_| varies).map(|(low, high)| (low.exp(), high.exp())),
            test: test.filter(|_| self.count() == self.tried && varies),
        })
    }
}

/// Ratios beyond this are not spelled out in headlines.
const WIDEST: f64 = 11.0;
/// Epochs say something of their own only where arms differ in what an epoch is.
const AXES: [Against; 5] = [Against::Seconds, Against::Kwh, Against::Kg, Against::Step, Against::Epoch];

/// Holm's p-values over the arms; none where only one is tested.
fn adjusted(all: &[Reaching], against: Against) -> Vec<Option<f64>> {
    let ps: Vec<Option<f64>> = all.iter().map(|one| Some(one.saving(against)?.test?.p)).collect();
    let known: Vec<f64> = ps.iter().copied().flatten().collect();
    let mut adjusted = holm(&known).into_iter().filter(|_| known.len() > 1);
    ps.into_iter().map(|p| p.and_then(|_| adjusted.next())).collect()
}

/// What each arm took to the baseline's best; `None` where nothing is compared.
pub fn table(study: &Study, goal: &Goal) -> Option<Table> {
    let all = reaching(study, goal);
    if all.iter().all(|one| one.tried == 0) {
        return None;
    }
    let (column, baseline) = against(study);
    let axes = if all.len() > MANY { &AXES[..1] } else { &AXES[..] };
    let mut columns = vec![Column::text("arm"), Column::text("against"), Column::text("in")];
    columns.retain(|one| column || one.title != "against");
    columns.extend([
        Column::number(if column { "baseline" } else { baseline.as_str() }, "", Format::Significant(3)),
        Column::number("arm", "", Format::Significant(3)),
        Column::number("saving", "", Format::SignedPercent(1)),
        Column::number("95 % from", "", Format::SignedPercent(1)),
        Column::number("95 % to", "", Format::SignedPercent(1)),
        Column::text("reached"),
        Column::number("p", "", Format::P),
        Column::number("p, Holm", "", Format::P),
    ]);
    let best = format!(
        "{} {}",
        if goal.better == Better::Higher { "highest" } else { "lowest" },
        in_sentence(&name(&goal.figure))
    );
    let title = if column { format!("To the baseline's {best}") } else { format!("To the {best} of {baseline}") };
    let mut table = Table::new(&id("savings", study, goal), title, columns);
    for (k, one) in all.iter().enumerate() {
        let mut start = vec![Cell::text(&study.arms[one.arm].label)];
        if column {
            start.push(Cell::text(&study.arms[one.base].label));
        }
        let reached = Cell::text(format!("{} of {}", one.count(), one.tried));
        let mut savings: Vec<Saving> = axes.iter().filter_map(|against| one.saving(*against)).collect();
        let steps = savings.iter().find(|saving| saving.against == Against::Step).map(|saving| saving.ratio);
        savings.retain(|saving| {
            saving.against != Against::Epoch || steps.is_none_or(|steps| (saving.ratio / steps - 1.0).abs() > 1e-3)
        });
        if savings.is_empty() {
            start.push(Cell::text("not reached"));
            start.resize(table.columns.len() - 3, Cell::Absent);
            start.extend([reached, Cell::Absent, Cell::Absent]);
            table.push(Some(one.arm), start);
            continue;
        }
        for saving in savings {
            let (size, unit) = unit(saving.against, saving.base.max(saving.own));
            let mut cells = start.clone();
            cells.push(Cell::text(if unit.is_empty() {
                what(saving.against).to_owned()
            } else {
                format!("{} ({unit})", what(saving.against))
            }));
            cells.extend([saving.base / size, saving.own / size, 1.0 - saving.ratio].map(Cell::number));
            // A high ratio is a low saving.
            cells.push(Cell::number(saving.interval.map(|(_, high)| 1.0 - high)));
            cells.push(Cell::number(saving.interval.map(|(low, _)| 1.0 - low)));
            cells.extend([
                reached.clone(),
                Cell::number(saving.test.map(|test| test.p)),
                Cell::number(adjusted(&all, saving.against)[k]),
            ]);
            table.push(Some(one.arm), cells);
        }
    }
    table.drop_empty();
    notes(&mut table, study, goal, &all);
    Some(table)
}

fn notes(table: &mut Table, study: &Study, goal: &Goal, all: &[Reaching]) {
    table.note(
        "First logged point at or better than the baseline's best, against where the baseline itself had it first; saving = 1 − \
         ratio, so a negative one cost more.",
    );
    if all.iter().any(|one| one.paired) {
        let several = all.iter().any(|one| one.reached.len() > 1);
        let mean = if several {
            " The ratio is the geometric mean over pairs; interval and p are those of a paired t-test of the logarithms, and absent \
             where all ratios are the same."
        } else {
            ""
        };
        table.note(format!("Seeds pair: each run is held against the best of its own seed.{mean}"));
    }
    if all.iter().any(|one| !one.paired && one.tried > 0) {
        table.note(
            "Where no seeds pair, runs are held against the mean of the baseline's bests, and there is no interval.",
        );
    }
    let apart = study.arms.iter().flat_map(|arm| arm.counted()).filter_map(|run| spacing(run, goal)).max();
    if let Some(steps) = apart.filter(|steps| *steps > 1) {
        table
            .note(format!("Points are {steps} steps apart: a level is reached up to so many steps before it is seen."));
    }
    let diverged = |one: &&Reaching| study.arms[one.arm].count(Status::Diverged) > 0;
    if all.iter().any(|one| diverged(&one)) {
        table.note("A run that diverged has not reached it.");
    }
    let partly = |one: &&Reaching| one.count() > 0 && one.count() < one.tried;
    for one in all.iter().filter(partly) {
        table.note(format!(
            "{}: {} of {} reached it. The saving is that of these alone, which flatters, and has no p-value.",
            study.arms[one.arm].label,
            one.count(),
            one.tried
        ));
    }
}

/// The longest way between two points of a run.
fn spacing(run: &RunRecord, goal: &Goal) -> Option<u64> {
    let points = Curve::of(run, &goal.figure, goal.better).points(Against::Step);
    points.windows(2).map(|pair| (pair[1].0 - pair[0].0) as u64).max()
}

/// The numbers to read first: time, energy and CO₂ to the baseline's best, as far as they are known.
pub fn headlines(study: &Study, goal: &Goal) -> Vec<Headline> {
    let all = reaching(study, goal);
    // Of several arms, the quickest of those whose seeds all got there; else the one of which most did.
    let share = |one: &Reaching| one.count() as f64 / one.tried as f64;
    let ratio = |one: &Reaching| one.saving(Against::Seconds).map_or(f64::MAX, |saving| saving.ratio);
    let tried = all.iter().filter(|one| one.tried > 0);
    let Some(one) = tried.min_by(|a, b| share(b).total_cmp(&share(a)).then(ratio(a).total_cmp(&ratio(b)))) else {
        return Vec::new();
    };
    let (arm, base) = (&study.arms[one.arm].label, &study.arms[one.base].label);
    let who = match all.len() {
        1 => format!("{arm} against {base}"),
        count if one.count() == one.tried => format!("{arm}, the quickest of {count} arms, against {base}"),
        count => format!("{arm}, which reached it most often of {count} arms, against {base}"),
    };
    let mut headlines = Vec::new();
    for against in [Against::Seconds, Against::Kwh, Against::Kg] {
        let label = format!("{} to the best {} of {base}", sentence(what(against)), in_sentence(&name(&goal.figure)));
        let Some(saving) = one.saving(against) else {
            if against == Against::Seconds && one.count() < one.tried {
                let value = format!("not reached in {} of {}", one.tried - one.count(), one.tried);
                headlines.push(Headline { label, value, detail: who.clone(), arm: Some(one.arm) });
            }
            continue;
        };
        let mut detail = vec![who.clone()];
        if let Some((low, high)) = saving.interval {
            let percent = |ratio: f64| signed(100.0 * (ratio - 1.0), 0);
            // Two seeds that differ have an interval without end, for all that it says.
            let end = if high < WIDEST {
                format!("to {} %", percent(high))
            } else {
                format!("to beyond {} %", percent(WIDEST))
            };
            detail.push(format!("95 % CI {} {end}", percent(low)));
        }
        if one.count() < one.tried {
            detail.push(format!("of the {} in {} that reached it", one.count(), one.tried));
        } else {
            detail.push(format!("n = {}", one.tried));
        }
        let holm = all.iter().position(|other| other.arm == one.arm).and_then(|k| adjusted(&all, against)[k]);
        detail.extend(saving.test.map(|test| p_words(test.p, holm, Kind::Paired)));
        let value = format!("{} %", signed(100.0 * (saving.ratio - 1.0), 0));
        headlines.push(Headline { label, value, detail: detail.join(" · "), arm: Some(one.arm) });
    }
    headlines
}

fn what(against: Against) -> &'static str {
    match against {
        Against::Step => "steps",
        Against::Epoch => "epochs",
        Against::Seconds => "training time",
        Against::Kwh => "energy",
        Against::Kg => "CO₂",
    }
}

/// A unit's size and name for an amount.
fn unit(against: Against, largest: f64) -> (f64, &'static str) {
    match against {
        Against::Step | Against::Epoch => (1.0, ""),
        Against::Seconds => (time_unit(largest).size, time_unit(largest).name),
        Against::Kwh => (energy_unit(largest).size, energy_unit(largest).name),
        Against::Kg => (mass_unit(largest).size, mass_unit(largest).name),
    }
}

/// A name in the middle of a sentence: `Validation loss` is lower case there, `mIoU` as it is.
pub fn in_sentence(name: &str) -> String {
    let mut chars = name.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            format!("{}{}", first.to_lowercase(), &name[first.len_utf8()..])
        }
        _ => name.to_owned(),
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}", first.to_uppercase(), chars.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::made::{arm, loss, run, study};
    use super::*;

    /// Runs of an arm: seed, seconds of a step, values every 10 steps.
    type Runs<'a> = &'a [(u64, f64, &'a [f64])];

    fn runs(made: Runs) -> Vec<RunRecord> {
        made.iter().map(|(seed, seconds, values)| run(Some(*seed), *seconds, "val_loss", values)).collect()
    }

    /// What comes out for the second arm, and the saving of seconds.
    fn hold_against(base: Runs, own: Runs, then: impl FnOnce(&Reaching, Option<Saving>)) {
        let (base, own) = (runs(base), runs(own));
        let study = study(vec![arm("bp", json!({}), &base, None), arm("dbp", json!({}), &own, Some(0))]);
        let all = reaching(&study, &loss());
        assert_eq!(all.len(), 1);
        then(&all[0], all[0].saving(Against::Seconds));
        assert!(table(&study, &loss()).is_some());
    }

    const FALLING: &[f64] = &[4.0, 3.0, 2.0, 1.0];

    #[test]
    fn a_level_is_reached_at_a_logged_point() {
        // Half the steps, each half as long again.
        hold_against(&[(0, 1.0, FALLING)], &[(0, 1.5, &[3.0, 1.0, 0.5, 0.25])], |one, saving| {
            let saving = saving.unwrap();
            assert_eq!((one.count(), one.tried, saving.base, saving.own), (1, 1, 40.0, 30.0));
            assert!((saving.ratio - 0.75).abs() < 1e-12 && saving.interval.is_none() && saving.test.is_none());
        });
        // A plateau counts from its first point; the baseline's best may be its first point.
        hold_against(&[(0, 1.0, &[2.0, 1.0, 1.0, 1.0])], &[(0, 1.0, &[1.0, 1.0])], |_, saving| {
            assert_eq!(saving.unwrap().ratio, 0.5);
        });
        hold_against(&[(0, 1.0, &[1.0, 2.0, 3.0])], &[(0, 1.0, &[2.0, 1.5, 1.0])], |_, saving| {
            assert!((saving.unwrap().ratio - 3.0).abs() < 1e-12); // It cost three times as much.
        });
        hold_against(&[(0, 1.0, &[1.0])], &[(0, 1.0, &[1.0])], |_, saving| assert_eq!(saving.unwrap().ratio, 1.0));
    }

    #[test]
    fn what_is_not_reached_is_counted_and_not_made_up() {
        hold_against(&[(0, 1.0, FALLING)], &[(0, 1.0, &[4.0, 3.0, 2.0])], |one, saving| {
            assert_eq!((one.count(), one.tried, saving), (0, 1, None));
        });
        // Of three pairs two: their ratios are 1/2 and 1, and no test is made of them.
        let base: Runs = &[(0, 1.0, FALLING), (1, 1.0, FALLING), (2, 1.0, FALLING)];
        hold_against(base, &[(0, 1.0, &[2.0, 1.0]), (1, 1.0, FALLING), (2, 1.0, &[9.0])], |one, saving| {
            let saving = saving.unwrap();
            assert_eq!((one.count(), one.tried, saving.test), (2, 3, None));
            assert!((saving.ratio - 0.5_f64.sqrt()).abs() < 1e-12 && saving.interval.is_some());
        });
        // One that diverged counts as not reached, however low it was.
        let (base, mut own) =
            (runs(&[(0, 1.0, FALLING), (1, 1.0, FALLING)]), runs(&[(0, 1.0, &[1.0]), (1, 1.0, &[0.5])]));
        own[1].status = Status::Diverged;
        let study = study(vec![arm("bp", json!({}), &base, None), arm("dbp", json!({}), &own, Some(0))]);
        let one = &reaching(&study, &loss())[0];
        assert_eq!((one.count(), one.tried), (1, 2));
        // A run without a point was not tried.
        hold_against(&[(0, 1.0, FALLING), (1, 1.0, &[])], &[(0, 1.0, FALLING), (1, 1.0, FALLING)], |one, _| {
            assert_eq!((one.count(), one.tried), (1, 1));
        });
    }

    #[test]
    fn each_seed_is_held_against_its_own_baseline() {
        let base: Runs = &[(0, 1.0, FALLING), (1, 1.0, &[4.0, 3.0, 2.5, 2.0])];
        let own: Runs = &[(1, 1.0, &[2.0, 1.0]), (0, 1.0, &[3.0, 2.0, 1.0])];
        hold_against(base, own, |one, saving| {
            let (saving, ratio) = (saving.unwrap(), (0.25_f64 * 0.75).sqrt());
            assert!(one.paired && (saving.ratio - ratio).abs() < 1e-12);
            let test = saving.test.unwrap();
            assert_eq!(test.n, (2, 2));
            // The interval of the logarithms: t(1) at 97.5 % is 12.7062…
            let half = 12.706_204_736_174_7 * (3.0_f64.ln() / 2.0_f64.sqrt()) / 2.0_f64.sqrt();
            let (low, high) = saving.interval.unwrap();
            assert!((low.ln() - (ratio.ln() - half)).abs() < 1e-9 && (high.ln() - (ratio.ln() + half)).abs() < 1e-9);
        });
        // Equal ratios are no evidence.
        hold_against(&[(0, 1.0, FALLING), (1, 1.0, FALLING)], &[(0, 1.0, &[1.0]), (1, 1.0, &[1.0])], |_, saving| {
            let saving = saving.unwrap();
            assert_eq!((saving.ratio, saving.interval, saving.test), (0.25, None, None));
        });
    }

    #[test]
    fn without_common_seeds_the_mean_of_the_bests_is_the_level() {
        // Bests 1 and 2: the level is 1.5, which only the first baseline run reaches itself.
        let base: Runs = &[(0, 1.0, FALLING), (1, 1.0, &[4.0, 2.0])];
        hold_against(base, &[(8, 1.0, &[1.5]), (9, 1.0, &[2.0, 1.0])], |one, saving| {
            let saving = saving.unwrap();
            assert!(!one.paired);
            assert_eq!((one.count(), one.tried, saving.base, saving.own), (2, 2, 40.0, 15.0));
            assert_eq!((saving.interval, saving.test), (None, None));
        });
    }

    #[test]
    fn headlines_say_what_a_saving_rests_on() {
        let (base, own) = (runs(&[(0, 1.0, FALLING)]), runs(&[(0, 1.0, &[5.0, 4.0])]));
        let study = study(vec![arm("bp", json!({}), &base, None), arm("dbp", json!({}), &own, Some(0))]);
        let headlines = headlines(&study, &loss());
        let said: Vec<(&str, &str)> = headlines.iter().map(|line| (line.label.as_str(), line.value.as_str())).collect();
        assert_eq!(said, [("Training time to the best validation loss of bp", "not reached in 1 of 1")]);
    }
}
