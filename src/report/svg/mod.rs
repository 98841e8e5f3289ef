//! Figures as inline SVG.
//!
//! Drawings have no size of their own: places along x are fractions of whatever width the page gives, places along y are
//! pixels, and text has one size everywhere, on a phone as on a desk. The area of the data is the SVG's content box; axes
//! stand in its padding, at places below 0 and beyond 100 %. Curves lie in an inner drawing that is stretched to that box; its
//! strokes are not. Colors are names of classes (`a3` for arm 3, `h11` for a level of heat) that the page's
//! style sheet fills in, so that dark mode and print need no second drawing.

pub mod dots;
pub mod heat;
pub mod lines;
pub mod scale;

use crate::report::figure::Axis;
use scale::{Ticks, ten_to};

/// Arms with a look of their own; more begin again.
pub const ARMS: usize = 8;

/// Text inside an element or a quoted attribute. Characters that XML cannot hold become `�`.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' | '\r' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            // Marks that turn the direction of what follows would reorder the page around a name.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The classes that give an arm its color and dash, and its stroke and filling where colors begin again.
pub fn arm_class(arm: usize) -> String {
    match arm / ARMS {
        0 => format!("a{arm}"),
        round => format!("a{} r{}", arm % ARMS, 1 + (round - 1) % 2),
    }
}

/// The outline of an arm's marker, around (0, 0).
pub fn marker(arm: usize) -> &'static str {
    const MARKERS: [&str; ARMS] = [
        "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        "M-3.5-3.5h7v7h-7z",
        "M0-4.6L4.4 3.4h-8.8z",
        "M0-5L5 0L0 5L-5 0z",
        "M0 4.6L4.4-3.4h-8.8z",
        "M-4.5-1.5h3v-3h3v3h3v3h-3v3h-3v-3h-3z",
        "M0-5L1.4-1.6L5-1.4L2.2 .9L3.1 4.4L0 2.4L-3.1 4.4L-2.2 .9L-5-1.4L-1.4-1.6z",
        "M-4.6-2.6h9.2v5.2h-9.2z",
    ];
    MARKERS[arm % ARMS]
}

/// What surrounds the area of the data, in pixels.
struct Margins {
    top: f64,
    right: f64,
    bottom: f64,
    left: f64,
}

/// The beginning of a drawing whose area is so high.
fn open(class: &str, height: f64, margins: &Margins, about: &str, data: &str) -> String {
    format!(
        r#"<svg class="chart {class}" role="img" style="--height:{}px;--top:{}px;--right:{}px;--bottom:{}px;--left:{}px"{data}><title>{}</title>"#,
        pixels(margins.top + height + margins.bottom),
        pixels(margins.top),
        pixels(margins.right),
        pixels(margins.bottom),
        pixels(margins.left),
        escape(about)
    )
}

/// A marker at a fraction of the width and a height in pixels.
fn marker_at(arm: usize, x: f64, y: f64, class: &str, title: &str) -> String {
    let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
    format!(
        r#"<svg x="{}" y="{}" overflow="visible"><path class="{class} {}" d="{}">{title}</path></svg>"#,
        percent(x),
        pixels(y),
        arm_class(arm),
        marker(arm)
    )
}

/// A short line as it stands in a legend: the arm's stroke and its marker.
pub fn swatch(arm: usize) -> String {
    format!(
        concat!(
            r#"<svg class="swatch" width="30" height="12" aria-hidden="true"><path class="line {0}" d="M1 6h28"/>"#,
            r#"<svg x="15" y="6" overflow="visible"><path class="mark {0}" d="{1}"/></svg></svg>"#
        ),
        arm_class(arm),
        marker(arm)
    )
}

/// A fraction of the width.
fn percent(fraction: f64) -> String {
    format!("{}%", trimmed(fraction * 100.0, 2))
}

fn pixels(value: f64) -> String {
    trimmed(value, 1)
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The width of text at 12 px, in pixels, within a tenth or so.
fn text_width(text: &str) -> f64 {
    text.chars().map(|c| if c.is_uppercase() || c == 'm' || c == 'w' { 8.6 } else { 6.7 }).sum()
}

/// The words of an axis, with the power of ten that its labels leave out.
fn axis_text(axis: &Axis, ticks: &Ticks) -> String {
    if ticks.exponent == 0 {
        return axis.caption();
    }
    let unit = [ten_to(ticks.exponent), axis.unit.clone()].join(" ");
    format!("{} ({})", axis.label, unit.trim_end())
}

/// A scale's ticks along x, in an area of this height: grid lines, labels below, and the axis's words.
fn x_axis(axis: &Axis, ticks: &Ticks, at: impl Fn(f64) -> f64, height: f64) -> String {
    let mut out = String::new();
    for value in &ticks.minor {
        let x = percent(at(*value));
        out.push_str(&format!(r#"<line class="minor" x1="{x}" x2="{x}" y1="{height}" y2="{}"/>"#, height + 3.0));
    }
    for (value, label) in &ticks.major {
        let x = percent(at(*value));
        out.push_str(&format!(
            r#"<line class="grid" x1="{x}" x2="{x}" y2="{}"/><text class="tick" x="{x}" y="{}" text-anchor="middle">{}</text>"#,
            height + 4.0,
            height + 18.0,
            escape(label)
        ));
    }
    let words = escape(&axis_text(axis, ticks));
    let y = pixels(height + 37.0);
    out.push_str(&format!(r#"<text class="words" x="50%" y="{y}" text-anchor="middle">{words}</text>"#));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<b a=\"x\" b='y'>&amp;"), "&lt;b a=&quot;x&quot; b=&#39;y&#39;&gt;&amp;amp;");
        assert_eq!(escape("a\u{0}b\u{1b}[1m\u{202e}c"), "a\u{fffd}b\u{fffd}[1m\u{fffd}c");
        assert_eq!(escape("κ 0,5 – 学习率"), "κ 0,5 – 学习率");
    }

    #[test]
    fn arms_look_different_for_three_rounds_of_colors() {
        assert_eq!([0, 7, 8, 17].map(arm_class), ["a0", "a7", "a0 r1", "a1 r2"]);
        let all: std::collections::BTreeSet<String> = (0..3 * ARMS).map(arm_class).collect();
        assert_eq!(all.len(), 3 * ARMS);
    }

    #[test]
    fn numbers_have_no_idle_zeros() {
        assert_eq!(percent(0.5), "50%");
        assert_eq!(percent(1.0 / 3.0), "33.33%");
        assert_eq!(pixels(-0.01), "0");
        assert_eq!(pixels(12.25), "12.2");
    }
}
