//! Table 1 of the paper, per arm: the best figure, the final one, and the one after equal training time; and the differences
//! to the baseline with their tests.

use super::compare::{self, Compared, Value};
use super::curve::{Against, Curve};
use super::figure::Better;
use super::group::{Goal, Study};
use super::number::{self, decimals, fixed, time_unit};
use super::overview::plural;
use super::read::{RunRecord, Status};
use super::stats::{Kind, Summary, holm};
use super::table::{Cell, Column, Format, Table};
use super::{Band, Options};

/// Confidence of all intervals.
pub const CONFIDENCE: f64 = 0.95;

/// What is read off each run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Measure {
    Best,
    Final,
    /// After so many seconds of training.
    EqualTime(f64),
}

impl Measure {
    pub fn title(self) -> String {
        match self {
            Self::Best => "best".to_owned(),
            Self::Final => "final".to_owned(),
            Self::EqualTime(seconds) => {
                let unit = time_unit(seconds);
                let time = seconds / unit.size;
                format!("at {} {}", fixed(time, decimals([time], 3)), unit.name)
            }
        }
    }

    pub fn of(self, run: &RunRecord, goal: &Goal) -> Option<f64> {
        let curve = Curve::of(run, &goal.figure, goal.better);
        match self {
            Self::Best => curve.best().map(|(_, value)| value),
            // What a run that has not ended has is no final figure.
            Self::Final => curve.last().filter(|_| run.status == Status::Done).map(|(_, value)| value),
            Self::EqualTime(seconds) => curve.at(Against::Seconds, seconds),
        }
    }
}

/// The measures that the study's runs allow. The equal time is that at which the first run ended.
pub fn measures(study: &Study, goal: &Goal) -> Vec<Measure> {
    let done = study.arms.iter().flat_map(|arm| arm.counted()).filter(|run| run.status == Status::Done);
    let ends: Vec<f64> = done
        .filter_map(|run| Curve::of(run, &goal.figure, goal.better).points(Against::Seconds).last().map(|(x, _)| *x))
        .collect();
    let mut measures = vec![Measure::Best, Measure::Final];
    if study.arms.len() > 1 {
        measures.extend(ends.into_iter().reduce(f64::min).map(Measure::EqualTime));
    }
    measures
}

/// Mean with what stands behind ±.
pub fn cell(values: &[f64], band: Band) -> Cell {
    let Some(summary) = Summary::of(values) else { return Cell::Absent };
    Cell::with_spread(summary.mean, spread(&summary, band))
}

pub fn spread(summary: &Summary, band: Band) -> Option<f64> {
    match band {
        Band::Sd => summary.sd,
        Band::Ci => summary.half_width(CONFIDENCE),
    }
}

/// What ± is, in words.
pub fn spread_words(band: Band) -> &'static str {
    match band {
        Band::Sd => "the standard deviation over seeds",
        Band::Ci => "half the 95 % confidence interval of the mean (Student's t)",
    }
}

/// Decimals that show a figure to a tenth of a percent or better.
pub fn figure_decimals(study: &Study, goal: &Goal) -> usize {
    let bests = study.arms.iter().flat_map(|arm| arm.counted()).filter_map(|run| Measure::Best.of(run, goal));
    decimals(bests, 4)
}

/// Each arm's figures.
pub fn table(study: &Study, goal: &Goal, options: &Options) -> Table {
    let measures = measures(study, goal);
    let digits = figure_decimals(study, goal);
    let compared = study.arms.iter().any(|arm| arm.baseline.is_some());
    let mut columns = vec![Column::text("arm"), Column::number("n", "", Format::Fixed(0))];
    for measure in &measures {
        columns.push(Column::number(measure.title(), "", Format::Fixed(digits)).better(goal.better));
        if *measure == Measure::Best {
            columns.push(Column::number("at step", "", Format::Fixed(0)));
        }
        if compared {
            columns.push(Column::number(format!("Δ {}", measure.title()), "", Format::SignedPercent(1)));
        }
    }
    let mut table = Table::new(&id("figures", study, goal), heading(goal, &measures), columns);
    for (i, arm) in study.arms.iter().enumerate() {
        let counted = arm.counted();
        let n = compare::values(arm, |run| Measure::Best.of(run, goal)).len();
        let mut cells = vec![Cell::text(&arm.label), Cell::count(n)];
        for measure in &measures {
            let own = compare::plain(&compare::values(arm, |run| measure.of(run, goal)));
            cells.push(cell(&own, options.band));
            if *measure == Measure::Best {
                let step = |run: &RunRecord| {
                    Curve::of(run, &goal.figure, goal.better).best().map(|(line, _)| line.step as f64)
                };
                cells.push(cell(&counted.iter().filter_map(|run| step(run)).collect::<Vec<_>>(), options.band));
            }
            if compared {
                let base = arm.baseline.map(|base| &study.arms[base]).filter(|base| base.is_final() && arm.is_final());
                let base = base.map(|base| compare::plain(&compare::values(base, |run| measure.of(run, goal))));
                let change = base.as_deref().and_then(Summary::of).zip(Summary::of(&own));
                cells.push(Cell::number(change.map(|(base, own)| (own.mean - base.mean) / base.mean.abs())));
            }
        }
        table.push(Some(i), cells);
    }
    notes(&mut table, study, goal, &measures, options);
    table
}

fn notes(table: &mut Table, study: &Study, goal: &Goal, measures: &[Measure], options: &Options) {
    let compared = study.arms.iter().any(|arm| arm.baseline.is_some());
    let several = study.arms.iter().any(|arm| arm.counted().len() > 1);
    let better = if goal.better == Better::Higher { "Higher is better" } else { "Lower is better" };
    let spread = if several { format!("; ± is {}", spread_words(options.band)) } else { String::new() };
    let (_, baseline) = against(study);
    let change = if compared { format!("; Δ is the difference to {baseline}") } else { String::new() };
    table.note(format!("{better}; n counts seeds{spread}{change}."));
    if let Some(time) = measures.iter().find(|measure| matches!(measure, Measure::EqualTime(_))) {
        table.note(format!(
            "“{}”: after equal training time, that at which the first run ended; between logged points along a straight line.",
            time.title()
        ));
        let late = |run: &&RunRecord| run.status == Status::Done && time.of(run, goal).is_none();
        let late = study.arms.iter().flat_map(|arm| arm.counted()).filter(late).count();
        if late > 0 {
            table.note(format!("{} had no value by then.", plural(late, "run")));
        }
    }
    let going: Vec<&str> = study
        .arms
        .iter()
        .filter(|arm| !arm.is_final() && !arm.counted().is_empty())
        .map(|arm| arm.label.as_str())
        .collect();
    if !going.is_empty() {
        table.note(format!("No run has finished yet, so the figures are those so far: {}.", going.join("; ")));
    }
}

/// The id of a study's table about a goal; that of the main goal stands alone.
pub fn id(name: &str, study: &Study, goal: &Goal) -> String {
    let main = study.goals.first() == Some(goal);
    if main { name.to_owned() } else { format!("{name}-{}", super::slug(&goal.figure)) }
}

pub fn title(goal: &Goal) -> String {
    name(&goal.figure)
}

/// Which figures there are.
fn heading(goal: &Goal, measures: &[Measure]) -> String {
    let time = if measures.iter().any(|measure| matches!(measure, Measure::EqualTime(_))) {
        ", and after equal time"
    } else {
        ""
    };
    format!("{}: best, final{time}", title(goal))
}

/// A figure's name for people.
pub fn name(figure: &str) -> String {
    match figure {
        "val_loss" => "Validation loss".to_owned(),
        "train_loss" => "Training loss".to_owned(),
        "miou" => "mIoU".to_owned(),
        "mean_accuracy" => "Mean accuracy".to_owned(),
        "pixel_accuracy" => "Pixel accuracy".to_owned(),
        other => other.to_owned(),
    }
}

/// A difference to the baseline, with its tests.
#[derive(Clone, Debug)]
pub struct Difference {
    pub arm: usize,
    pub base: usize,
    pub measure: Measure,
    pub own: Vec<Value>,
    pub other: Vec<Value>,
    pub compared: Compared,
    /// Holm's, over the arms of one measure.
    pub adjusted: Option<f64>,
}

/// All arms with a baseline, measure by measure. Figures of runs that are on their way are not tested.
pub fn differences(study: &Study, goal: &Goal) -> Vec<Difference> {
    let mut all = Vec::new();
    for measure in measures(study, goal) {
        let mut family: Vec<Difference> = Vec::new();
        for (i, arm) in study.arms.iter().enumerate() {
            let Some(base) = arm.baseline else { continue };
            if !arm.is_final() || !study.arms[base].is_final() {
                continue;
            }
            let own = compare::values(arm, |run| measure.of(run, goal));
            let other = compare::values(&study.arms[base], |run| measure.of(run, goal));
            let compared = compare::compare(&own, &other);
            family.push(Difference { arm: i, base, measure, own, other, compared, adjusted: None });
        }
        let ps: Vec<f64> = family.iter().filter_map(|one| one.compared.main()).map(|test| test.p).collect();
        let mut adjusted = holm(&ps).into_iter();
        for one in family.iter_mut().filter(|one| one.compared.main().is_some()) {
            one.adjusted = adjusted.next();
        }
        all.extend(family);
    }
    all
}

/// Studies that compare more arms than this say less of each.
pub const MANY: usize = 4;

/// What a study compares with: a column where there is more than one, for a table's title where there is one.
pub fn against(study: &Study) -> (bool, String) {
    let baselines = study.baselines();
    match baselines.first().filter(|_| baselines.len() == 1) {
        Some(only) => (false, study.arms[*only].label.clone()),
        None => (true, "the baseline".to_owned()),
    }
}

/// The differences as a table; `None` where nothing can be tested.
pub fn tests(study: &Study, goal: &Goal) -> Option<Table> {
    let mut differences = differences(study, goal);
    let compared = differences.iter().filter(|one| one.measure == Measure::Best).count();
    if compared > MANY {
        differences.retain(|one| one.measure == Measure::Best);
    }
    if !differences.iter().any(|one| one.compared.main().is_some()) {
        return None;
    }
    let digits = figure_decimals(study, goal) + 1;
    let (column, baseline) = against(study);
    let several =
        differences.iter().filter(|one| one.measure == Measure::Best && one.compared.main().is_some()).count();
    let mut columns = vec![Column::text("arm"), Column::text("against"), Column::text("figure")];
    columns.retain(|one| column || one.title != "against");
    columns.extend([
        Column::number("difference", "", Format::Signed(digits)),
        Column::number("95 % from", "", Format::Signed(digits)),
        Column::number("95 % to", "", Format::Signed(digits)),
        Column::text("test"),
        Column::number("t", "", Format::Signed(2)),
        Column::number("df", "", Format::Fixed(1)),
        Column::number("p", "", Format::P),
        Column::number("p, Holm", "", Format::P),
        Column::number("effect size", "", Format::Signed(2)),
        Column::number("p, Welch", "", Format::P),
    ]);
    let title = format!("{}: differences to {baseline}", self::title(goal));
    let mut table = Table::new(&id("tests", study, goal), title, columns);
    for one in &differences {
        let mut cells = vec![Cell::text(&study.arms[one.arm].label)];
        if column {
            cells.push(Cell::text(&study.arms[one.base].label));
        }
        cells.push(Cell::text(one.measure.title()));
        match one.compared.main() {
            Some(test) => {
                let (low, high) = test.interval(CONFIDENCE);
                cells.extend([test.difference, low, high].map(Cell::number));
                cells.push(Cell::text(test_words(test.kind, test.n)));
                cells.extend([test.t, test.df, test.p].map(Cell::number));
                cells.push(Cell::number(one.adjusted.filter(|_| several > 1)));
                cells.push(Cell::number(test.effect));
            }
            None => {
                let few = one.own.len().min(one.other.len()) < 2;
                let change = Summary::of(&compare::plain(&one.own)).zip(Summary::of(&compare::plain(&one.other)));
                cells.push(Cell::number(change.map(|(own, other)| own.mean - other.mean)));
                cells.extend([Cell::Absent, Cell::Absent]);
                cells.push(Cell::text(if few { "none: one seed" } else { "none: no spread" }));
                cells.resize(table.columns.len() - 1, Cell::Absent);
            }
        }
        cells.push(Cell::number(one.compared.welch.map(|test| test.p)));
        table.push(Some(one.arm), cells);
    }
    table.drop_empty();
    notes_on_tests(&mut table, &differences, several);
    Some(table)
}

fn notes_on_tests(table: &mut Table, differences: &[Difference], several: usize) {
    table.note(
        "Two-sided t-tests. p is that of the test named: paired where both arms have two or more seeds in common, over these, \
         else Welch's, which stands last in either case.",
    );
    if several > 1 {
        table.note("“p, Holm” is corrected over the arms that are compared in one figure.");
    }
    if differences.iter().any(|one| one.compared.pairs > 1 && one.compared.paired.is_none()) {
        table.note("“No spread”: the seeds differ by exactly the same, of which nothing can be inferred.");
    }
    let has = |kind: Kind| differences.iter().filter_map(|one| one.compared.main()).any(|test| test.kind == kind);
    let paired = "d_z, the mean of the paired differences over their standard deviation";
    let welch = "Hedges' g, the difference of means over the pooled standard deviation, corrected for few seeds";
    match (has(Kind::Paired), has(Kind::Welch)) {
        (true, true) => table.note(format!("Effect size: {paired}; of Welch's test {welch}.")),
        (true, false) => table.note(format!("Effect size: {paired}.")),
        (false, true) => table.note(format!("Effect size: {welch}.")),
        (false, false) => {}
    }
}

/// `paired, 5 pairs`; `Welch, n = 5 and 4`.
pub fn test_words(kind: Kind, n: (usize, usize)) -> String {
    match kind {
        Kind::Paired => format!("paired, {} pairs", n.0),
        Kind::Welch => format!("Welch, n = {} and {}", n.0, n.1),
    }
}

/// `p = 0.013 (paired t)`; of several comparisons the corrected one, which says so.
pub fn p_words(p: f64, adjusted: Option<f64>, kind: Kind) -> String {
    let kind = if kind == Kind::Paired { "paired t" } else { "Welch's t" };
    match adjusted {
        Some(adjusted) => format!("{} ({kind}, Holm)", number::p_equals(adjusted)),
        None => format!("{} ({kind})", number::p_equals(p)),
    }
}
