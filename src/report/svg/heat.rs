//! Heat maps: values by color, on a scale of sixteen levels that the style sheet fills in.
//!
//! Small maps have a rectangle, a read-out and, where asked, a printed value for each cell; large ones one path per level, which is
//! a hundredth of the size.

use super::scale::{Scale, alike, short};
use super::{Margins, escape, open, percent, pixels, text_width};
use crate::report::figure::{Better, Cell, HeatMap, Stops};

pub const LEVELS: usize = 16;
const MAX_LEFT: f64 = 150.0;
/// Maps of more cells than this are drawn by level.
const MAX_SINGLE: usize = 400;
const MAX_MAP_HEIGHT: f64 = 640.0;
/// More columns than this are not all named.
const MAX_NAMED: usize = 8;
/// The area is at least this wide, on a phone.
const NARROW: f64 = 190.0;
/// What a small phone leaves for names and area together.
const NARROWEST: f64 = 270.0;
const FOOTNOTES: [&str; 6] = ["*", "†", "‡", "§", "¶", "‖"];

struct Map<'a> {
    map: &'a HeatMap,
    scale: Scale,
    rows: usize,
    columns: usize,
    row_height: f64,
    notes: Vec<Note<'a>>,
}

/// A word that some cells bear, and the sign that stands for it.
struct Note<'a> {
    text: &'a str,
    sign: &'static str,
}

/// From the lowest value to the highest; `None` where no cell has one.
pub fn scale(map: &HeatMap) -> Option<Scale> {
    Scale::over(map.cells.iter().flatten().filter_map(|cell| cell.value), map.value.log)
}

/// The drawing, and what its signs mean; `None` where no cell has a value. Colors span `range`, or the map's own values.
pub fn draw(map: &HeatMap, range: Option<(f64, f64)>) -> Option<(String, String)> {
    let (rows, columns) = (map.rows.len(), map.columns.len());
    let own = scale(map)?;
    let scale = range.map_or(own, |(low, high)| Scale { low, high, log: own.log });
    let row_height = match () {
        () if map.print_values => 34.0,
        () => (MAX_MAP_HEIGHT / rows.max(1) as f64).floor().clamp(6.0, 17.0),
    };
    let map = Map { map, scale, rows, columns, row_height, notes: notes(map) };
    let legend = map.notes.iter().map(|note| format!("{} {}", note.sign, note.text)).collect::<Vec<_>>().join(" · ");
    Some((map.draw(), legend))
}

/// A cell without a value is crossed out by its first note; others have footnotes.
fn notes(map: &HeatMap) -> Vec<Note<'_>> {
    let mut notes: Vec<Note> = Vec::new();
    let mut signs = FOOTNOTES.iter().copied().chain(std::iter::repeat("⁂"));
    for cell in map.cells.iter().flatten().filter(|cell| !cell.note.is_empty()) {
        if notes.iter().any(|note| note.text == cell.note) {
            continue;
        }
        let crossed = cell.value.is_none() && notes.iter().all(|note| note.sign != "×");
        let sign = if crossed { "×" } else { signs.next().unwrap_or("⁂") };
        notes.push(Note { text: &cell.note, sign });
    }
    notes
}

impl Map<'_> {
    fn draw(&self) -> String {
        let HeatMap { title, x, y, value, .. } = self.map;
        let height = self.rows as f64 * self.row_height;
        let names = stop_names(&self.map.rows);
        let prefix = shared_prefix(&names);
        let names: Vec<String> = names.iter().map(|name| fit(&name[prefix.len()..], MAX_LEFT)).collect();
        let left = 12.0 + names.iter().map(|name| text_width(name)).fold(20.0, f64::max);
        let about = format!("{title}: {} by {} and {}", value.caption(), y.caption(), x.caption());

        let margins = Margins { top: 26.0, right: 14.0, bottom: 84.0, left };
        let mut out = open("heat", height, &margins, &about, "");
        let of = if prefix.is_empty() { String::new() } else { format!(" of {}", prefix.trim_end_matches('.')) };
        out.push_str(&format!(
            r#"<text class="words" x="-{}" y="-12">{}</text>"#,
            pixels(left),
            escape(&format!("{}{of}", y.caption()))
        ));
        // Labels are thinned out where rows are lower than text.
        let stride = (12.0 / self.row_height).ceil() as usize;
        for (i, name) in names.iter().enumerate().step_by(stride) {
            let middle = (i as f64 + 0.5) * self.row_height + 4.0;
            out.push_str(&format!(
                r#"<text class="tick" x="-7" y="{}" text-anchor="end">{}</text>"#,
                pixels(middle),
                escape(name)
            ));
        }
        out.push_str(&if self.rows * self.columns > MAX_SINGLE { self.by_level() } else { self.one_by_one() });
        out.push_str(&self.column_names(height));
        out.push_str(&self.color_bar(height + 56.0, left));
        out + "</svg>"
    }

    /// Cells in reading order, as far as rows and columns have names.
    fn cells(&self) -> impl Iterator<Item = (usize, usize, &Cell)> {
        let rows = self.map.cells.iter().take(self.rows).enumerate();
        rows.flat_map(|(i, row)| row.iter().take(self.columns).enumerate().map(move |(k, cell)| (i, k, cell)))
    }

    /// The level of a value: the highest is the one that stands out.
    fn level(&self, value: f64) -> Option<usize> {
        if !self.scale.holds(value) {
            return None;
        }
        let at = self.scale.at(value).clamp(0.0, 1.0);
        let at = if self.map.better == Better::Lower { 1.0 - at } else { at };
        Some(((at * LEVELS as f64) as usize).min(LEVELS - 1))
    }

    fn one_by_one(&self) -> String {
        let wide = 1.0 / self.columns as f64;
        let (rows, columns) = (stop_names(&self.map.rows), stop_names(&self.map.columns));
        let decimals = self.scale.decimals();
        let mut out = String::new();
        for (i, k, cell) in self.cells() {
            let level = cell.value.and_then(|value| self.level(value));
            let (x, y) = (k as f64 * wide, i as f64 * self.row_height);
            let figure = cell.value.map_or_else(|| "no value".to_owned(), short);
            let note = if cell.note.is_empty() { String::new() } else { format!(" ({})", cell.note) };
            let title =
                format!("{} {}, {} {}: {figure}{note}", self.map.y.label, rows[i], self.map.x.label, columns[k]);
            let class = level.map_or_else(|| "h-none".to_owned(), |level| format!("h{level}"));
            out.push_str(&format!(
                r#"<rect class="cell {class}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>"#,
                percent(x),
                pixels(y),
                percent(wide),
                pixels(self.row_height),
                escape(&title)
            ));
            let sign = self.notes.iter().find(|note| note.text == cell.note).map_or("", |note| note.sign);
            let printed = match cell.value {
                Some(value) if self.map.print_values => format!("{}{sign}", alike(value, decimals)),
                _ => sign.to_owned(),
            };
            if !printed.is_empty() {
                let shade = level.map_or("t-none", |level| if level < LEVELS / 2 { "t-low" } else { "t-high" });
                let shade = if self.map.best == Some((i, k)) { format!("{shade} t-best") } else { shade.to_owned() };
                let (x, y) = (percent(x + wide / 2.0), pixels(y + self.row_height / 2.0 + 4.0));
                out.push_str(&format!(
                    r#"<text class="value {shade}" x="{x}" y="{y}" text-anchor="middle">{}</text>"#,
                    escape(&printed)
                ));
            }
        }
        if let Some((i, k)) = self.map.best.filter(|(i, k)| *i < self.rows && *k < self.columns) {
            out.push_str(&format!(
                r#"<rect class="best" x="{}" y="{}" width="{}" height="{}"/>"#,
                percent(k as f64 * wide),
                pixels(i as f64 * self.row_height),
                percent(wide),
                pixels(self.row_height)
            ));
        }
        out
    }

    /// One path per level; neighbors of one level are one stretch.
    fn by_level(&self) -> String {
        let mut paths = vec![String::new(); LEVELS];
        let mut open: Option<(usize, usize, usize, usize)> = None; // Row, first column, columns, level.
        let mut close = |stretch: Option<(usize, usize, usize, usize)>| {
            if let Some((row, from, count, level)) = stretch {
                paths[level].push_str(&format!("M{from} {row}h{count}v1h-{count}z"));
            }
        };
        for (i, k, cell) in self.cells() {
            let level = cell.value.and_then(|value| self.level(value));
            match (&mut open, level) {
                (Some((row, from, count, last)), Some(level)) if *row == i && *last == level && *from + *count == k => {
                    *count += 1;
                }
                (_, level) => {
                    close(open.take());
                    open = level.map(|level| (i, k, 1, level));
                }
            }
        }
        close(open);
        let paths = paths.iter().enumerate().filter(|(_, path)| !path.is_empty());
        let paths: String = paths.map(|(level, path)| format!(r#"<path class="h{level}" d="{path}"/>"#)).collect();
        format!(
            r#"<rect class="h-none" width="100%" height="100%"/><svg width="100%" height="100%" viewBox="0 0 {} {}" preserveAspectRatio="none" shape-rendering="crispEdges">{paths}</svg>"#,
            self.columns, self.rows
        )
    }

    fn column_names(&self, height: f64) -> String {
        let mut out = String::new();
        for (at, name) in self.column_labels() {
            out.push_str(&format!(
                r#"<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>"#,
                percent(at),
                pixels(height + 16.0),
                escape(&name)
            ));
        }
        let words = escape(&self.map.x.caption());
        let y = pixels(height + 34.0);
        out.push_str(&format!(r#"<text class="words" x="50%" y="{y}" text-anchor="middle">{words}</text>"#));
        out
    }

    /// Places and labels below the columns: each one's name, round numbers where many stand at equal distances, else as many
    /// names as fit.
    fn column_labels(&self) -> Vec<(f64, String)> {
        let count = self.columns as f64;
        if let Stops::Numbers(numbers) = &self.map.columns
            && let [first, second, .., last] = numbers[..]
            && numbers.len() > MAX_NAMED
        {
            let step = (last - first) / (count - 1.0);
            let even = step > 0.0 && (second - first - step).abs() < 0.01 * step;
            let even = even && numbers.windows(2).all(|pair| (pair[1] - pair[0] - step).abs() < 0.01 * step);
            if even {
                let place = |value: f64| ((value - first) / step + 0.5) / count;
                let ticks = Scale { low: first, high: last, log: false }.ticks_within(NARROW);
                if ticks.exponent == 0 {
                    return ticks.major.into_iter().map(|(value, label)| (place(value), label)).collect();
                }
            }
        }
        let names = stop_names(&self.map.columns);
        let widest = names.iter().map(|name| text_width(name)).fold(10.0, f64::max);
        let stride =
            if self.columns <= MAX_NAMED { 1 } else { ((widest + 8.0) * count / NARROW).ceil().max(1.0) as usize };
        let room = if stride == 1 { (1.4 * NARROW / count).max(28.0) } else { MAX_LEFT };
        let label = |(k, name): (usize, &String)| ((k as f64 + 0.5) / count, fit(name, room));
        names.iter().enumerate().step_by(stride).map(label).collect()
    }

    /// The levels from the lowest value to the highest, with both and the middle one named.
    fn color_bar(&self, top: f64, left: f64) -> String {
        let reversed = self.map.better == Better::Lower;
        let wide = 1.0 / LEVELS as f64;
        let mut out = String::new();
        for i in 0..LEVELS {
            let level = if reversed { LEVELS - 1 - i } else { i };
            let (x, wide) = (percent(i as f64 * wide), percent(wide));
            out.push_str(&format!(r#"<rect class="h{level}" x="{x}" y="{top}" width="{wide}" height="8"/>"#));
        }
        let middle = if self.scale.log {
            (self.scale.low.ln() / 2.0 + self.scale.high.ln() / 2.0).exp()
        } else {
            self.scale.low / 2.0 + self.scale.high / 2.0
        };
        for (at, value, anchor) in
            [("0", self.scale.low, "start"), ("50%", middle, "middle"), ("100%", self.scale.high, "end")]
        {
            let (y, text) = (pixels(top + 22.0), escape(&alike(value, self.scale.decimals())));
            out.push_str(&format!(r#"<text class="tick" x="{at}" y="{y}" text-anchor="{anchor}">{text}</text>"#));
        }
        let log = if self.scale.log { ", logarithmic" } else { "" };
        let words = format!("{}{log}", self.map.value.caption());
        // Long words end with the bar instead, and may begin below the names of rows.
        let (x, anchor) = if left + text_width(&words) < NARROWEST { ("0", "start") } else { ("100%", "end") };
        let (y, words) = (pixels(top - 6.0), escape(&words));
        out.push_str(&format!(r#"<text class="words" x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>"#));
        out
    }
}

fn stop_names(stops: &Stops) -> Vec<String> {
    match stops {
        Stops::Labels(labels) => labels.clone(),
        Stops::Numbers(numbers) => numbers.iter().map(|number| stop_name(*number)).collect(),
    }
}

/// A setting as people write it: `0.0005` rather than `5×10⁻⁴`, but `10⁻⁷`.
fn stop_name(number: f64) -> String {
    let text = number.to_string();
    if text.len() <= 7 {
        return text.replace('-', "−");
    }
    short(number)
}

/// What all names begin with, up to and including a dot; at least three names must share it.
fn shared_prefix(names: &[String]) -> String {
    let Some((first, rest)) = names.split_first().filter(|(_, rest)| rest.len() >= 2) else { return String::new() };
    let mut prefix = first.rfind('.').map_or("", |end| &first[..=end]);
    while !prefix.is_empty() && !rest.iter().all(|name| name.starts_with(prefix)) {
        prefix = prefix[..prefix.len() - 1].rfind('.').map_or("", |end| &prefix[..=end]);
    }
    // Numbers share beginnings too, but `0.` is no name.
    if prefix.chars().any(char::is_alphabetic) { prefix.to_owned() } else { String::new() }
}

/// The end of a name is what tells it apart, so the beginning gives way.
fn fit(name: &str, room: f64) -> String {
    if text_width(name) <= room {
        return name.to_owned();
    }
    let mut kept: Vec<char> = Vec::new();
    let mut width = text_width("…");
    for c in name.chars().rev() {
        width += text_width(c.encode_utf8(&mut [0; 4]));
        if width > room {
            break;
        }
        kept.push(c);
    }
    std::iter::once('…').chain(kept.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Axis;

    fn map(rows: usize, columns: usize, better: Better) -> HeatMap {
        let value = |i: usize, k: usize| Cell { value: Some((i * columns + k) as f64), note: String::new() };
        HeatMap {
            title: "t".into(),
            caption: String::new(),
            x: Axis::new("step", ""),
            columns: Stops::Numbers((0..columns).map(|k| k as f64).collect()),
            y: Axis::new("layer", ""),
            rows: Stops::Labels((0..rows).map(|i| format!("encoder.blocks.{i}.attn")).collect()),
            value: Axis::new("loss", ""),
            better,
            cells: (0..rows).map(|i| (0..columns).map(|k| value(i, k)).collect()).collect(),
            best: None,
            print_values: true,
        }
    }

    #[test]
    fn the_better_end_stands_out() {
        for (better, lowest, highest) in [(Better::Lower, 15, 0), (Better::Higher, 0, 15), (Better::Neither, 0, 15)] {
            let (drawing, _) = draw(&map(1, 2, better), None).unwrap();
            let cells: Vec<&str> =
                drawing.split("class=\"cell ").skip(1).map(|s| s.split('"').next().unwrap()).collect();
            assert_eq!(cells, [format!("h{lowest}"), format!("h{highest}")]);
        }
    }

    #[test]
    fn large_maps_cover_every_cell_once() {
        let mut map = map(30, 40, Better::Neither);
        map.cells[3][5].value = None;
        let (drawing, _) = draw(&map, None).unwrap();
        let covered: usize = drawing
            .split('M')
            .filter_map(|part| part.split_once('h').and_then(|(_, rest)| rest.split_once("v1h-")))
            .map(|(count, _)| count.parse::<usize>().unwrap())
            .sum();
        assert_eq!(covered, 30 * 40 - 1);
    }

    #[test]
    fn cells_without_values_are_crossed_and_explained() {
        let mut map = map(2, 2, Better::Lower);
        map.cells[0][1] = Cell { value: None, note: "diverged".into() };
        map.cells[1][0].note = "1 of 3 diverged".into();
        let (drawing, legend) = draw(&map, None).unwrap();
        assert_eq!(legend, "× diverged · * 1 of 3 diverged");
        assert!(drawing.contains(">×</text>") && drawing.contains(">2.00*</text>"), "{drawing}");
        map.cells.iter_mut().flatten().for_each(|cell| cell.value = None);
        assert_eq!(draw(&map, None), None);
    }

    #[test]
    fn names_lose_what_all_of_them_share() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            shared_prefix(&names(&["encoder.blocks.0.fc1", "encoder.blocks.1.fc1", "encoder.patch"])),
            "encoder."
        );
        assert_eq!(shared_prefix(&names(&["0.001", "0.002", "0.003"])), "");
        assert_eq!(shared_prefix(&names(&["a.b", "a.c"])), "");
        assert_eq!(fit("abcdefghij", 40.0), "…ghij");
    }
}
