//! Line charts: curves with bands, single runs behind them, levels and marks.
//!
//! The y-scale is the same in all views of a chart, so that a change of the x-axis moves nothing up or down.

use super::scale::{Scale, Ticks, alike, short};
use super::{Margins, arm_class, axis_text, escape, marker_at, open, percent, pixels, text_width, x_axis};
use crate::report::figure::{Level, LineChart, Mark, MarkKind, Point, Series, View};

const HEIGHT: f64 = 270.0;
/// The side of the inner drawing that is stretched to the area; whole numbers in it are fine enough for any screen.
const INNER: f64 = 10_000.0;
/// Names longer than this, in pixels, or more curves than fit beside each other, stay in the legend.
const MAX_LABEL: f64 = 130.0;
const MAX_LABELED: usize = 6;
const LINE_HEIGHT: f64 = 15.0;
const MAX_SHIFT: f64 = 22.0;
/// How wide an area usually is; words are placed for that, and shown at any width.
const USUAL_WIDTH: f64 = 600.0;

/// The drawings of all views, in order; empty where nothing in the chart can be drawn.
pub fn draw(chart: &LineChart) -> Vec<String> {
    let series = || chart.views.iter().flat_map(|view| &view.series);
    let heights = series().flat_map(heights).chain(chart.levels.iter().map(|level| level.value));
    let Some(y) = Scale::over(heights, chart.y.log) else { return Vec::new() };
    let y = y.padded(0.04);
    chart.views.iter().map(|view| draw_view(chart, view, &y)).collect()
}

/// All values of y that a series shows.
fn heights(series: &Series) -> impl Iterator<Item = f64> {
    let points = series.points.iter().flat_map(|p| [Some(p.y), p.band.map(|b| b.0), p.band.map(|b| b.1)]).flatten();
    points.chain(series.runs.iter().flatten().map(|p| p.1)).chain(series.marks.iter().map(|m| m.y))
}

fn places(series: &Series) -> impl Iterator<Item = f64> {
    series
        .points
        .iter()
        .map(|p| p.x)
        .chain(series.runs.iter().flatten().map(|p| p.0))
        .chain(series.marks.iter().map(|m| m.x))
}

struct Area<'a> {
    x: &'a Scale,
    y: &'a Scale,
}

fn draw_view(chart: &LineChart, view: &View, y: &Scale) -> String {
    let Some(x) = Scale::over(view.series.iter().flat_map(places), view.x.log) else {
        let words = format!("nothing was recorded against {}", view.x.label);
        return format!(r#"<p class="nothing">{}</p>"#, escape(&words));
    };
    // A few points with markers need room at the ends; a curve starts at the axis.
    let x = if view.series.iter().any(|s| s.markers) { x.padded(0.03) } else { x };
    let area = Area { x: &x, y };
    let (x_ticks, y_ticks) = (x.ticks_within(280.0), y.ticks(6));
    let left = 14.0 + y_ticks.major.iter().map(|(_, label)| text_width(label)).fold(20.0, f64::max);
    let labels = direct_labels(view, &area);
    let right = labels.iter().map(|label| text_width(label.name) + 14.0).fold(18.0, f64::max);
    let about = format!("{}, {} against {}", chart.title, chart.y.caption(), view.x.caption());

    let margins = Margins { top: 26.0, right, bottom: 46.0, left };
    // Dashes tell curves apart; one curve by itself needs none.
    let class = match (view.series.len(), labels.is_empty()) {
        (..=1, _) => "plot solo",
        (_, true) => "plot",
        (_, false) => "plot labeled",
    };
    let mut out = open(class, HEIGHT, &margins, &about, &data(&area, view, chart));
    out.push_str(&y_axis(&axis_text(&chart.y, &y_ticks), &y_ticks, y, left));
    out.push_str(&x_axis(&view.x, &x_ticks, |v| x.at(v), HEIGHT));
    for (value, _) in y_ticks.major {
        let place = pixels(area.height(value));
        out.push_str(&format!(r#"<line class="grid" x2="100%" y1="{place}" y2="{place}"/>"#));
    }
    out.push_str(&format!(
        r#"<svg width="100%" height="100%" viewBox="0 0 {INNER} {INNER}" preserveAspectRatio="none" overflow="visible">"#
    ));
    view.series.iter().for_each(|series| out.push_str(&back(series, &area)));
    view.series.iter().for_each(|series| out.push_str(&front(series, &area)));
    out.push_str("</svg>");
    chart.levels.iter().for_each(|level| out.push_str(&draw_level(level, view, &area)));
    for series in &view.series {
        out.push_str(&markers(series, &area, chart, view));
    }
    out.push_str(&draw_marks(view, &area));
    for label in &labels {
        out.push_str(&format!(
            r#"<text class="direct {}" x="100%" dx="8" y="{}">{}</text>"#,
            arm_class(label.arm),
            pixels(label.y + 4.0),
            escape(label.name)
        ));
    }
    out + "</svg>"
}

/// What a script of the page needs to read values off the drawing.
fn data(area: &Area, view: &View, chart: &LineChart) -> String {
    let range = |scale: &Scale| format!("{:e} {:e} {}", scale.low, scale.high, u8::from(scale.log));
    format!(
        r#" data-x="{}" data-y="{}" data-xname="{}" data-yname="{}""#,
        range(area.x),
        range(area.y),
        escape(&view.x.caption()),
        escape(&chart.y.caption())
    )
}

fn y_axis(words: &str, ticks: &Ticks, scale: &Scale, left: f64) -> String {
    let mut out = format!(r#"<text class="words" x="-{}" y="-14">{}</text>"#, pixels(left), escape(words));
    for (value, label) in &ticks.major {
        let place = (1.0 - scale.at(*value)) * HEIGHT;
        out.push_str(&format!(
            r#"<text class="tick" x="-8" y="{}" text-anchor="end">{}</text>"#,
            pixels(place + 4.0),
            escape(label)
        ));
    }
    out
}

impl Area<'_> {
    fn holds(&self, x: f64, y: f64) -> bool {
        self.x.holds(x) && self.y.holds(y)
    }

    fn height(&self, y: f64) -> f64 {
        (1.0 - self.y.at(y)) * HEIGHT
    }

    /// A place in the inner drawing.
    fn inner(&self, (x, y): (f64, f64)) -> (i64, i64) {
        ((self.x.at(x) * INNER).round() as i64, ((1.0 - self.y.at(y)) * INNER).round() as i64)
    }
}

/// Path data through these places, relative after the first; repeated places are left out.
fn path(places: &[(i64, i64)]) -> String {
    let mut out = String::new();
    let mut last = None;
    for &(x, y) in places {
        match last {
            None => out.push_str(&format!("M{x} {y}")),
            Some((a, b)) if (a, b) == (x, y) => continue,
            Some((a, b)) => out.push_str(&format!("l{} {}", x - a, y - b)),
        }
        last = Some((x, y));
    }
    if out.is_empty() || out.contains('l') { out } else { out + "h0" } // A single place is a dot, by its round cap.
}

/// The band and the runs, behind all curves.
fn back(series: &Series, area: &Area) -> String {
    let class = arm_class(series.arm);
    let mut out = String::new();
    // A band exists where both of its ends have a place; its two sides are one outline.
    let ends = |p: &Point| p.band.filter(|b| area.holds(p.x, b.0) && area.holds(p.x, b.1)).map(|b| (p.x, b));
    let band: Vec<(f64, (f64, f64))> = series.points.iter().filter_map(ends).collect();
    if band.len() > 1 && !series.markers {
        let upper = band.iter().map(|(x, b)| area.inner((*x, b.1)));
        let lower = band.iter().rev().map(|(x, b)| area.inner((*x, b.0)));
        let outline: Vec<(i64, i64)> = upper.chain(lower).collect();
        out.push_str(&format!(r#"<path class="band {class}" d="{}z"/>"#, path(&outline)));
    }
    for run in &series.runs {
        let places: Vec<(i64, i64)> =
            run.iter().filter(|(x, y)| area.holds(*x, *y)).map(|&place| area.inner(place)).collect();
        if !places.is_empty() {
            out.push_str(&format!(r#"<path class="run {class}" d="{}"/>"#, path(&places)));
        }
    }
    out
}

fn front(series: &Series, area: &Area) -> String {
    let held = series.points.iter().filter(|p| area.holds(p.x, p.y));
    let places: Vec<(i64, i64)> = held.map(|p| area.inner((p.x, p.y))).collect();
    if places.is_empty() {
        return String::new();
    }
    let (class, name) = (arm_class(series.arm), escape(&series.name));
    format!(r#"<path class="line {class}" data-name="{name}" d="{}"><title>{name}</title></path>"#, path(&places))
}

/// Markers at every point, or one at the last place: print in black and white needs a shape.
fn markers(series: &Series, area: &Area, chart: &LineChart, view: &View) -> String {
    let held: Vec<&Point> = series.points.iter().filter(|p| area.holds(p.x, p.y)).collect();
    let shown = if series.markers { &held[..] } else { &held[held.len().saturating_sub(1)..] };
    let mut out = String::new();
    for p in shown {
        let unit = |unit: &str| if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let title = format!(
            "{}: {}{} at {} {}{}",
            series.name,
            short(p.y),
            unit(&chart.y.unit),
            view.x.label,
            short(p.x),
            unit(&view.x.unit)
        );
        if series.markers
            && let Some((low, high)) = p.band.filter(|b| area.holds(p.x, b.0) && area.holds(p.x, b.1))
        {
            let (x, low, high) = (percent(area.x.at(p.x)), pixels(area.height(low)), pixels(area.height(high)));
            let class = arm_class(series.arm);
            out.push_str(&format!(r#"<line class="bar {class}" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>"#));
        }
        out.push_str(&marker_at(series.arm, area.x.at(p.x), area.height(p.y), "mark", &title));
    }
    out
}

fn draw_level(level: &Level, view: &View, area: &Area) -> String {
    if !area.y.holds(level.value) {
        return String::new();
    }
    let line = area.height(level.value);
    let class = level.arm.map_or_else(|| "plain".to_owned(), arm_class);
    let words = format!("{}: {}", level.label, alike(level.value, area.y.decimals()));
    let place = free_place(line, text_width(&words), view, area);
    format!(
        r#"<line class="level {class}" x2="100%" y1="{0}" y2="{0}"/><text class="note {class}" x="{1}" dx="{2}" y="{3}" text-anchor="{4}">{5}</text>"#,
        pixels(line),
        percent(place.x),
        place.dx,
        pixels(place.y),
        place.anchor,
        escape(&words)
    )
}

/// Where words about a level stand.
struct Place {
    x: f64,
    dx: i32,
    y: f64,
    anchor: &'static str,
}

/// The end or middle of the line, above or below it, where the fewest curves pass; the first of equals.
fn free_place(line: f64, width: f64, view: &View, area: &Area) -> Place {
    let share = (width + 8.0) / USUAL_WIDTH;
    let mut best: Option<(usize, Place)> = None;
    for (x, anchor, dx, from) in
        [(0.0, "start", 4, 0.0), (1.0, "end", -4, 1.0 - share), (0.5, "middle", 0, 0.5 - share / 2.0)]
    {
        for (y, top) in [(line - 5.0, line - 18.0), (line + 14.0, line + 3.0)] {
            if top < 0.0 || top + 15.0 > HEIGHT {
                continue;
            }
            let curves =
                view.series.iter().map(|series| crossings(series, (from, from + share), (top, top + 15.0), area));
            let crossed = curves.sum();
            if best.as_ref().is_none_or(|(least, _)| crossed < *least) {
                best = Some((crossed, Place { x, dx, y, anchor }));
            }
        }
    }
    best.map_or(Place { x: 0.0, dx: 4, y: line - 5.0, anchor: "start" }, |(_, place)| place)
}

/// At how many of some places across `xs` the curve is within `ys`, in fractions of the width and in pixels.
fn crossings(series: &Series, xs: (f64, f64), ys: (f64, f64), area: &Area) -> usize {
    const PROBES: usize = 16;
    let places: Vec<(f64, f64)> =
        series.points.iter().filter(|p| area.holds(p.x, p.y)).map(|p| (area.x.at(p.x), area.height(p.y))).collect();
    let probe = |i: usize| xs.0 + (xs.1 - xs.0) * i as f64 / (PROBES - 1) as f64;
    let within = |at: &f64| {
        places.windows(2).any(|pair| {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let share = if x1 > x0 { (at - x0) / (x1 - x0) } else { 0.0 };
            (x0..=x1).contains(at) && (ys.0..=ys.1).contains(&(y0 + (y1 - y0) * share))
        })
    };
    (0..PROBES).map(probe).filter(within).count()
}

/// Marks with their words, each in the one of four corners where the fewest curves and words before it are.
fn draw_marks(view: &View, area: &Area) -> String {
    let mut taken: Vec<Words> = Vec::new();
    let mut out = String::new();
    let marks = view.series.iter().flat_map(|series| series.marks.iter().map(move |mark| (series.arm, mark)));
    for (arm, mark) in marks.filter(|(_, mark)| area.holds(mark.x, mark.y)) {
        let (x, y) = (area.x.at(mark.x), area.height(mark.y));
        let share = (text_width(&mark.text) + 12.0) / USUAL_WIDTH;
        let mut best: Option<(usize, Words)> = None;
        for (anchor, dx, from) in [("start", 10, x), ("end", -10, x - share)] {
            for (dy, top) in [(-8, y - 20.0), (17, y + 5.0)] {
                let words = Words { anchor, dx, dy, x: (from, from + share), y: (top, top + 15.0) };
                let outside = from < 0.0 || from + share > 1.0 || top < -8.0 || top + 15.0 > HEIGHT;
                let crossed: usize = view.series.iter().map(|series| crossings(series, words.x, words.y, area)).sum();
                let over = taken.iter().filter(|other| words.overlaps(other)).count();
                let cost = crossed + 100 * over + 1000 * usize::from(outside);
                if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                    best = Some((cost, words));
                }
            }
        }
        if let Some((_, words)) = best {
            out.push_str(&draw_mark(arm, mark, (x, y), &words));
            taken.push(words);
        }
    }
    out
}

/// Where a mark's words are set, and the room that they take: fractions of the width, pixels of the height.
struct Words {
    anchor: &'static str,
    dx: i32,
    dy: i32,
    x: (f64, f64),
    y: (f64, f64),
}

impl Words {
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: (f64, f64), b: (f64, f64)| a.0 < b.1 && b.0 < a.1;
        meet(self.x, other.x) && meet(self.y, other.y)
    }
}

fn draw_mark(arm: usize, mark: &Mark, (x, y): (f64, f64), words: &Words) -> String {
    let class = arm_class(arm);
    let shape = match mark.kind {
        MarkKind::Ring => "M-6.5 0a6.5 6.5 0 1 0 13 0a6.5 6.5 0 1 0-13 0z",
        MarkKind::Cross => "M-4.5-4.5l9 9m0-9l-9 9",
    };
    format!(
        r#"<svg x="{0}" y="{1}" overflow="visible"><path class="sign {class}" d="{shape}"><title>{2}</title></path><text class="note {class}" x="{3}" y="{4}" text-anchor="{5}">{2}</text></svg>"#,
        percent(x),
        pixels(y),
        escape(&mark.text),
        words.dx,
        words.dy,
        words.anchor
    )
}

struct Label<'a> {
    name: &'a str,
    arm: usize,
    y: f64,
}

/// Names beside the ends of the curves, moved apart; none where they would not fit, or would stand away from an end.
fn direct_labels<'a>(view: &'a View, area: &Area) -> Vec<Label<'a>> {
    let mut labels = Vec::new();
    for series in &view.series {
        let Some(end) = series.points.iter().rev().find(|p| area.holds(p.x, p.y)) else { continue };
        if area.x.at(end.x) < 0.9 || text_width(&series.name) > MAX_LABEL {
            return Vec::new();
        }
        labels.push(Label { name: &series.name, arm: series.arm, y: area.height(end.y) });
    }
    if labels.len() > MAX_LABELED || labels.len() < 2 {
        return Vec::new();
    }
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    let ends: Vec<f64> = labels.iter().map(|label| label.y).collect();
    for i in 1..labels.len() {
        labels[i].y = labels[i].y.max(labels[i - 1].y + LINE_HEIGHT);
    }
    // What was pushed below the area moves up again, and pushes those above it.
    let mut limit = HEIGHT;
    for label in labels.iter_mut().rev() {
        label.y = label.y.min(limit);
        limit = label.y - LINE_HEIGHT;
    }
    // A name that stands by another curve's end misleads.
    if labels.iter().zip(ends).any(|(label, end)| (label.y - end).abs() > MAX_SHIFT) {
        return Vec::new();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Axis;

    /// Curves from (0, 1) to (100, end).
    fn chart(ends: &[f64]) -> LineChart {
        let series = ends.iter().enumerate().map(|(arm, end)| Series {
            name: format!("arm {arm}"),
            arm,
            points: [(0.0, 1.0), (100.0, *end)].map(|(x, y)| Point { x, y, band: Some((y - 0.05, y + 0.05)) }).to_vec(),
            ..Series::default()
        });
        LineChart {
            title: "t".into(),
            caption: String::new(),
            y: Axis::new("loss", ""),
            views: vec![View { x: Axis::new("step", ""), series: series.collect() }],
            levels: Vec::new(),
        }
    }

    fn drawn(chart: &LineChart) -> String {
        draw(chart).concat()
    }

    #[test]
    fn paths_are_relative_and_skip_what_repeats() {
        assert_eq!(path(&[(0, 5), (0, 5), (3, 1), (3, 2)]), "M0 5l3 -4l0 1");
        assert_eq!(path(&[(7, 7)]), "M7 7h0");
        assert_eq!(path(&[]), "");
    }

    #[test]
    fn curves_end_where_their_values_are() {
        let mut made = chart(&[0.5]);
        made.views[0].series[0].points.iter_mut().for_each(|p| p.band = None);
        // The range 0.5 to 1 has a twenty-fifth more at each end: 0.48 to 1.02.
        assert!(drawn(&made).contains(r#"d="M0 370l10000 9260""#), "{}", drawn(&made));
        made.y.log = true;
        made.views[0].series[0].points[0].y = 0.0; // No place on a logarithmic axis.
        assert!(drawn(&made).contains(r#"d="M10000 5000h0""#), "{}", drawn(&made));
    }

    #[test]
    fn names_stand_by_their_curves_or_not_at_all() {
        let places = |ends: &[f64]| -> Vec<f64> {
            let drawing = drawn(&chart(ends));
            let labels = drawing.split(r#"<text class="direct"#).skip(1);
            labels
                .map(|label| label.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
                .collect()
        };
        assert_eq!(places(&[0.5, 0.8]).len(), 2);
        let near = places(&[0.5, 0.501]);
        assert!(near.len() == 2 && near[1] - near[0] >= LINE_HEIGHT - 0.1, "{near:?}");
        assert_eq!(places(&[0.5, 0.501, 0.502, 0.503, 0.504]).len(), 0);
        assert_eq!(places(&[0.5]).len(), 0);
        let mut early = chart(&[0.5, 0.8]);
        early.views[0].series[1].points[1].x = 40.0;
        assert!(!drawn(&early).contains("direct"));
    }

    #[test]
    fn words_of_marks_do_not_cover_each_other() {
        let mut made = chart(&[0.5, 0.52, 0.54]);
        for (i, series) in made.views[0].series.iter_mut().enumerate() {
            let text = "reached".to_owned();
            series.marks.push(Mark { x: 50.0 + 2.0 * i as f64, y: 0.75, text, kind: MarkKind::Ring });
        }
        let drawing = drawn(&made);
        let places: Vec<&str> =
            drawing.split(r#"<text class="note"#).skip(1).map(|note| note.split('>').next().unwrap()).collect();
        let corner = |place: &&str| place.split_once(" x=").unwrap().1.to_owned();
        let corners: std::collections::BTreeSet<String> = places.iter().map(corner).collect();
        assert_eq!((places.len(), corners.len()), (3, 3), "{places:?}");
    }

    #[test]
    fn words_about_a_level_stand_clear_of_curves() {
        // A curve runs along the level's left half, just above it, then leaves it: the right end is free.
        let mut made = chart(&[0.9]);
        let places = [(0.0, 0.52), (50.0, 0.52), (60.0, 1.0), (100.0, 1.0)];
        made.views[0].series[0].points = places.map(|(x, y)| Point { x, y, band: None }).to_vec();
        made.levels = vec![Level { value: 0.5, label: "best".into(), arm: None }];
        assert!(drawn(&made).contains(r#"<text class="note plain" x="100%" dx="-4""#), "{}", drawn(&made));
    }
}
