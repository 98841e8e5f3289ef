//! Dot charts: a row for each setting with its mean, the interval around it, and each seed below.
//!
//! Drawn twice, for wide and for narrow places: names stand beside the rows in one and above them in the other, and the style
//! sheet shows the one that fits.

use super::scale::{Scale, Ticks, alike, short};
use super::{Margins, arm_class, axis_text, escape, marker_at, open, percent, pixels, text_width, x_axis};
use crate::report::figure::{Axis, DotChart, DotRow, Level};

const MAX_LEFT: f64 = 230.0;

/// Both drawings; `None` where no row has a value.
pub fn draw(chart: &DotChart) -> Option<String> {
    let values = chart.rows.iter().flat_map(row_values).chain(chart.levels.iter().map(|level| level.value));
    let scale = Scale::over(values, chart.value.log)?.padded(0.05);
    Some([false, true].map(|narrow| draw_one(chart, &scale, narrow)).concat())
}

fn row_values(row: &DotRow) -> impl Iterator<Item = f64> {
    let interval = row.interval.into_iter().flat_map(|(low, high)| [low, high]);
    row.mean.into_iter().chain(interval).chain(row.dots.iter().copied())
}

fn draw_one(chart: &DotChart, scale: &Scale, narrow: bool) -> String {
    let row_height = if narrow { 44.0 } else { 32.0 };
    let height = chart.rows.len() as f64 * row_height;
    let decimals = scale.decimals();
    let names = chart.rows.iter().map(|row| text_width(&row.name)).fold(0.0, f64::max);
    let figures = chart.rows.iter().map(|row| text_width(&figure_of(row, decimals))).fold(0.0, f64::max);
    let (left, right) = if narrow { (8.0, 8.0) } else { (16.0 + names.min(MAX_LEFT), 20.0 + figures) };
    let ticks = scale.ticks_within(220.0);
    let about = format!("{}: {} by setting", chart.title, chart.value.caption());
    let top = if chart.levels.is_empty() { 4.0 } else { 22.0 };
    let margins = Margins { top, right, bottom: 46.0, left };
    let mut out = open(if narrow { "dots narrow" } else { "dots wide" }, height, &margins, &about, "");
    for (i, row) in chart.rows.iter().enumerate() {
        let top = i as f64 * row_height;
        let class = arm_class(row.arm);
        let (name_x, anchor) = if narrow { (pixels(-left), "start") } else { ("-12".to_owned(), "end") };
        let y = pixels(top + if narrow { 13.0 } else { 19.0 });
        out.push_str(&format!(
            r#"<text class="name {class}" x="{name_x}" y="{y}" text-anchor="{anchor}">{}</text><text class="figure" x="100%" dx="{}" y="{y}" text-anchor="end">{}</text>"#,
            escape(&cut(&row.name)),
            pixels(right),
            escape(&figure_of(row, decimals))
        ));
    }
    let axis = Axis { label: axis_text(&chart.value, &ticks), ..Default::default() };
    out.push_str(&x_axis(&axis, &Ticks { exponent: 0, ..ticks }, |v| scale.at(v), height));
    chart.levels.iter().for_each(|level| out.push_str(&draw_level(level, scale, height)));
    for (i, row) in chart.rows.iter().enumerate() {
        let middle = i as f64 * row_height + if narrow { 27.0 } else { 14.0 };
        out.push_str(&draw_row(row, scale, middle));
    }
    out + "</svg>"
}

/// The mean and what else is to be said, at the row's end.
fn figure_of(row: &DotRow, decimals: Option<usize>) -> String {
    let mean = row.mean.map_or_else(|| "–".to_owned(), |mean| alike(mean, decimals));
    if row.note.is_empty() { mean } else { format!("{mean} · {}", row.note) }
}

fn cut(name: &str) -> String {
    if text_width(name) <= MAX_LEFT {
        return name.to_owned();
    }
    let mut width = 8.0;
    let fits = |c: &char| {
        width += text_width(c.encode_utf8(&mut [0; 4]));
        width <= MAX_LEFT
    };
    name.chars().take_while(fits).chain(['…']).collect()
}

fn draw_row(row: &DotRow, scale: &Scale, middle: f64) -> String {
    let class = arm_class(row.arm);
    let mut out = String::new();
    if let Some((low, high)) = row.interval.filter(|(low, high)| scale.holds(*low) && scale.holds(*high)) {
        let (x1, x2, y) = (percent(scale.at(low)), percent(scale.at(high)), pixels(middle));
        let title = escape(&format!("{}: {} to {}", row.name, short(low), short(high)));
        out.push_str(&format!(
            r#"<line class="bar {class}" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"><title>{title}</title></line>"#
        ));
    }
    for value in row.dots.iter().filter(|value| scale.holds(**value)) {
        let (x, y) = (percent(scale.at(*value)), pixels(middle + 9.0));
        let title = escape(&format!("{}: {}", row.name, short(*value)));
        out.push_str(&format!(
            r#"<circle class="seed {class}" cx="{x}" cy="{y}" r="3"><title>{title}</title></circle>"#
        ));
    }
    if let Some(mean) = row.mean.filter(|mean| scale.holds(*mean)) {
        let title = format!("{}: mean {}", row.name, short(mean));
        out.push_str(&marker_at(row.arm, scale.at(mean), middle, "mark", &title));
    }
    out
}

fn draw_level(level: &Level, scale: &Scale, height: f64) -> String {
    if !scale.holds(level.value) {
        return String::new();
    }
    let at = scale.at(level.value);
    let (x, class) = (percent(at), level.arm.map_or_else(|| "plain".to_owned(), arm_class));
    let anchor = if at > 0.66 { "end" } else { "start" };
    format!(
        r#"<line class="level {class}" x1="{x}" x2="{x}" y1="-4" y2="{}"/><text class="note {class}" x="{x}" y="-9" text-anchor="{anchor}">{}</text>"#,
        pixels(height),
        escape(&format!("{}: {}", level.label, short(level.value)))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_show_every_row_and_none_without_values() {
        let row = |name: &str, mean| DotRow { name: name.into(), mean, note: "n = 3".into(), ..DotRow::default() };
        let mut chart = DotChart {
            title: "t".into(),
            caption: String::new(),
            value: Axis::new("loss", ""),
            better: crate::report::figure::Better::Lower,
            rows: vec![row("bp", Some(0.7)), row("diverged", None)],
            levels: Vec::new(),
        };
        chart.rows[0].dots = vec![0.69, 0.71, f64::NAN];
        let drawing = draw(&chart).unwrap();
        for (part, count) in [(">diverged</text>", 2), (">– · n = 3<", 2), ("<circle", 4), ("class=\"mark a0\"", 2)]
        {
            assert_eq!(drawing.matches(part).count(), count, "{part} in {drawing}");
        }
        assert!(!drawing.contains("NaN"));
        (chart.rows[0].mean, chart.rows[0].dots) = (None, Vec::new());
        assert_eq!(draw(&chart), None);
    }
}
