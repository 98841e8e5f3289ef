//! What it takes to be as good as the baseline: the first step, second, kWh and kg at which a run's figure is at or better than
//! the baseline's best, over what the baseline itself took to get there. The saving is 1 − ratio.
//!
//! Seeds pair where both arms have them: a run is held against the best of the baseline's run with its seed. Where none
//! pair, it is held against the mean of the baseline's bests. A level counts as reached at a logged point; a run that
//! never reaches it has no ratio, and none is made up: the mean is over those that did, and says how many. Ratios multiply, so their
//! mean is the geometric one, its interval that of the logarithms, and the test the paired t-test of the logarithms.

use super::curve::{Against, Curve};
use super::figure::Headline;
use super::group::{Arm, Goal, Study};
use super::number::{decimals, energy_unit, fixed, mass_unit, plain, signed, time_unit};
use super::read::{Line, RunRecord, Status};
use super::stats::{Kind, Summary, Test, holm, paired};
use super::table::{Cell, Column, Format, Table};
use super::table_one::{CONFIDENCE, Measure, id, name, p_words};

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
    let (own, other): (Vec<&RunRecord>, Vec<&RunRecord>) =
        (own.counted().into_iter().filter(has).collect(), other.counted().into_iter().filter(has).collect());
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
        if let Some(line) = curve(run).first_at(level) {
            made.reached.push((line, at_best));
        }
    }
    if !made.paired {
        let bests: Vec<f64> = other.iter().filter_map(|run| Measure::Best.of(run, goal)).collect();
        made.tried = own.len();
        if let Some(level) = Summary::of(&bests).map(|summary| summary.mean) {
            made.own_lines = own.iter().filter_map(|run| curve(run).first_at(level)).collect();
            made.base_lines = other.iter().filter_map(|run| curve(run).first_at(level)).collect();
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
        Some(Saving {
            against,
            base: Summary::of(&base)?.mean,
            own: Summary::of(&own)?.mean,
            ratio: log.mean.exp(),
            interval: log.interval(CONFIDENCE).map(|(low, high)| (low.exp(), high.exp())),
            test: if self.count() == self.tried { paired(&logs(&own), &logs(&base)) } else { None },
        })
    }
}

const AXES: [Against; 4] = [Against::Seconds, Against::Kwh, Against::Kg, Against::Step];

/// What each arm took to the baseline's best; `None` where nothing is compared.
pub fn table(study: &Study, goal: &Goal) -> Option<Table> {
    let all = reaching(study, goal);
    if all.iter().all(|one| one.tried == 0) {
        return None;
    }
    let mut columns = vec![
        Column::text("arm"),
        Column::text("against"),
        Column::text("in"),
        Column::text("baseline"),
        Column::text("arm's own"),
        Column::number("saving", "", Format::SignedPercent(1)),
        Column::text("95 % interval"),
        Column::text("reached"),
        Column::number("p", "", Format::P),
    ];
    let family = |against: Against| -> Vec<Option<f64>> {
        let ps: Vec<Option<f64>> = all.iter().map(|one| Some(one.saving(against)?.test?.p)).collect();
        let mut adjusted = holm(&ps.iter().copied().flatten().collect::<Vec<_>>()).into_iter();
        ps.into_iter().map(|p| p.and_then(|_| adjusted.next())).collect()
    };
    let several =
        all.iter().filter(|one| one.saving(Against::Step).is_some_and(|saving| saving.test.is_some())).count();
    if several > 1 {
        columns.push(Column::number("p, Holm", "", Format::P));
    }
    let better = if goal.better == super::figure::Better::Higher { "best" } else { "lowest" };
    let title = format!("To the baseline's {better} {}", in_sentence(&name(&goal.figure)));
    let mut table = Table::new(&id("savings", study, goal), title, columns);
    for (k, one) in all.iter().enumerate() {
        let start = [Cell::text(&study.arms[one.arm].label), Cell::text(&study.arms[one.base].label)];
        let reached = Cell::text(format!("{} of {}", one.count(), one.tried));
        let savings: Vec<Saving> = AXES.into_iter().filter_map(|against| one.saving(against)).collect();
        if savings.is_empty() {
            let mut cells = start.to_vec();
            cells.extend([Cell::Absent, Cell::Absent, Cell::text("not reached"), Cell::Absent, Cell::Absent, reached]);
            cells.resize(table.columns.len(), Cell::Absent);
            table.push(Some(one.arm), cells);
            continue;
        }
        for saving in savings {
            let (base, own) = amounts(saving.against, saving.base, saving.own);
            let interval = saving.interval.map(|(low, high)| {
                format!("{} to {} %", signed(100.0 * (1.0 - high), 1), signed(100.0 * (1.0 - low), 1))
            });
            let mut cells = start.to_vec();
            cells.extend([
                Cell::text(what(saving.against)),
                Cell::text(base),
                Cell::text(own),
                Cell::number(1.0 - saving.ratio),
                interval.map_or(Cell::Absent, Cell::Text),
                reached.clone(),
                Cell::number(saving.test.map(|test| test.p)),
            ]);
            if several > 1 {
                cells.push(Cell::number(family(saving.against)[k]));
            }
            table.push(Some(one.arm), cells);
        }
    }
    table.drop_empty();
    table.note(
        "First logged point at or better than the baseline's best, against where the baseline itself had it first; saving = 1 − \
         ratio, so a negative one cost more.",
    );
    if all.iter().any(|one| one.paired) {
        let several = all.iter().any(|one| one.reached.len() > 1);
        let mean = if several {
            " The ratio is the geometric mean over pairs; interval and p are those of a paired t-test of the logarithms."
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
    let partly = |one: &&Reaching| one.count() > 0 && one.count() < one.tried;
    for one in all.iter().filter(partly) {
        table.note(format!(
            "{}: {} of {} reached it. The saving is that of these alone, which flatters, and has no p-value.",
            study.arms[one.arm].label,
            one.count(),
            one.tried
        ));
    }
    Some(table)
}

/// The numbers to read first: time, energy and CO₂ of every arm that is compared, as far as they fit.
pub fn headlines(study: &Study, goal: &Goal) -> Vec<Headline> {
    let all = reaching(study, goal);
    // Of many arms, the quickest.
    let ratio = |one: &Reaching| {
        let complete = one.count() == one.tried;
        one.saving(Against::Seconds).filter(|_| complete).map_or(f64::MAX, |saving| saving.ratio)
    };
    let Some(one) = all.iter().filter(|one| one.tried > 0).min_by(|a, b| ratio(a).total_cmp(&ratio(b))) else {
        return Vec::new();
    };
    let (arm, base) = (&study.arms[one.arm].label, &study.arms[one.base].label);
    let quickest = if all.len() > 1 { ", the quickest of the arms" } else { "" };
    let mut headlines = Vec::new();
    for against in [Against::Seconds, Against::Kwh, Against::Kg] {
        let label = format!("{} to the best {} of {base}", sentence(what(against)), in_sentence(&name(&goal.figure)));
        let Some(saving) = one.saving(against) else {
            if against == Against::Seconds {
                let value = format!("not reached in {} of {}", one.tried - one.count(), one.tried);
                headlines.push(Headline { label, value, detail: format!("{arm} against {base}"), arm: Some(one.arm) });
            }
            continue;
        };
        let mut detail = vec![format!("{arm} against {base}{quickest}")];
        if let Some((low, high)) = saving.interval {
            detail.push(format!("95 % CI {} to {} %", signed(100.0 * (low - 1.0), 0), signed(100.0 * (high - 1.0), 0)));
        }
        if one.count() < one.tried {
            detail.push(format!("of the {} in {} that reached it", one.count(), one.tried));
        } else {
            detail.push(format!("n = {}", one.tried));
        }
        detail.extend(saving.test.map(|test| p_words(test.p, Kind::Paired)));
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

fn amounts(against: Against, base: f64, own: f64) -> (String, String) {
    let largest = base.max(own);
    let (size, unit) = match against {
        Against::Step | Against::Epoch => (1.0, ""),
        Against::Seconds => (time_unit(largest).size, time_unit(largest).name),
        Against::Kwh => (energy_unit(largest).size, energy_unit(largest).name),
        Against::Kg => (mass_unit(largest).size, mass_unit(largest).name),
    };
    let digits = if unit.is_empty() { 0 } else { decimals([largest / size], 3) };
    let print = |value: f64| {
        let number = if unit.is_empty() { plain((value / size).round()) } else { fixed(value / size, digits) };
        format!("{number} {unit}").trim_end().to_owned()
    };
    (print(base), print(own))
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
