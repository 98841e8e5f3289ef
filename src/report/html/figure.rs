//! A figure on the page: caption, legend, the switch between x-axes, and the drawing.
//!
//! The switch is made of radio buttons and style alone, so that it works where scripts do not run.

use super::embed::Budget;
use crate::report::Block;
use crate::report::figure::{Axis, Better, DotChart, Figure, HeatMap, LineChart, Picture, Series, View};
use crate::report::svg::{arm_class, dots, escape, heat, lines, swatch};

/// More x-axes than the style sheet switches between are left out.
const MAX_VIEWS: usize = 8;

/// Heat maps of one quantity in one section: their values share a scale of colors, so that maps compare.
pub struct Shared {
    value: Axis,
    better: Better,
    low: f64,
    high: f64,
    maps: usize,
}

/// What the heat maps among these blocks share.
pub fn ranges(blocks: &[Block]) -> Vec<Shared> {
    let mut ranges: Vec<Shared> = Vec::new();
    for block in blocks {
        let Block::Figure(Figure::Heat(map)) = block else { continue };
        let Some(scale) = heat::scale(map) else { continue };
        match ranges.iter_mut().find(|range| range.value == map.value && range.better == map.better) {
            Some(range) => {
                (range.low, range.high) = (range.low.min(scale.low), range.high.max(scale.high));
                range.maps += 1;
            }
            None => ranges.push(Shared {
                value: map.value.clone(),
                better: map.better,
                low: scale.low,
                high: scale.high,
                maps: 1,
            }),
        }
    }
    ranges
}

/// The figure with this number; `pictures` is what the page can still hold.
pub fn figure(figure: &Figure, number: usize, ranges: &[Shared], pictures: &mut Budget) -> String {
    match figure {
        Figure::Line(chart) => line_chart(chart, number),
        Figure::Heat(map) => heat_map(map, number, ranges),
        Figure::Dots(chart) => dot_chart(chart, number),
        Figure::Picture(picture) => embedded(picture, number, pictures),
    }
}

fn frame(class: &str, number: usize, title: &str, caption: &str, body: &str) -> String {
    format!(
        "<figure class=\"{class}\" id=\"figure-{number}\">\n<figcaption><b>Figure {number}. {}.</b> {}</figcaption>\n{body}\n</figure>\n",
        escape(title.trim_end_matches('.')),
        escape(caption)
    )
}

fn nothing() -> String {
    r#"<p class="nothing">nothing was recorded yet</p>"#.to_owned()
}

fn line_chart(chart: &LineChart, number: usize) -> String {
    let drawings = lines::draw(chart);
    let views: Vec<(&View, String)> = chart.views.iter().zip(drawings).take(MAX_VIEWS).collect();
    let body = match views.len() {
        0 => nothing(),
        1 => format!("<div class=\"views\">{}</div>", view(views[0].0, &views[0].1)),
        _ => switched(&views, number),
    };
    frame("lines", number, &chart.title, &chart.caption, &body)
}

fn switched(views: &[(&View, String)], number: usize) -> String {
    let (mut picks, mut labels, mut drawings) = (String::new(), String::new(), String::new());
    for (i, (shown, drawing)) in views.iter().enumerate() {
        let name = escape(&shown.x.label);
        let id = format!("figure-{number}-x{i}");
        let checked = if i == 0 { " checked=\"\"" } else { "" };
        picks.push_str(&format!(
            "<input class=\"pick\" type=\"radio\" name=\"figure-{number}-x\" id=\"{id}\" data-axis=\"{name}\"{checked}/>"
        ));
        labels.push_str(&format!("<label for=\"{id}\">{name}</label>"));
        drawings.push_str(&view(shown, drawing));
    }
    format!("{picks}\n<div class=\"switch\"><span>against</span>{labels}</div>\n<div class=\"views\">{drawings}</div>")
}

fn view(view: &View, drawing: &str) -> String {
    let direct = if drawing.contains("class=\"chart plot labeled\"") { " direct" } else { "" };
    format!("<div class=\"view{direct}\">{}{drawing}</div>\n", legend(view))
}

/// Names with the strokes of their curves; a single curve is named as well, since a caption may not do so.
fn legend(view: &View) -> String {
    let line = |series: &Series| format!("<li>{}<span>{}</span></li>", swatch(series.arm), escape(&series.name));
    let lines: String = view.series.iter().filter(|series| !series.name.is_empty()).map(line).collect();
    if lines.is_empty() { lines } else { format!("<ul class=\"legend\">{lines}</ul>") }
}

fn heat_map(map: &HeatMap, number: usize, ranges: &[Shared]) -> String {
    let shared = ranges.iter().find(|range| range.value == map.value && range.better == map.better);
    let range = shared.map(|range| (range.low, range.high));
    let Some((drawing, signs)) = heat::draw(map, range) else {
        return frame("heat-map", number, &map.title, &map.caption, &nothing());
    };
    let mut caption = map.caption.clone();
    if let Some(shared) = shared.filter(|shared| shared.maps > 1) {
        let words = format!(" The {} maps of {} here share one scale of colors.", shared.maps, map.value.label);
        caption.push_str(&words);
    }
    if !signs.is_empty() {
        caption.push_str(&format!(" {signs}."));
    }
    frame("heat-map", number, &map.title, caption.trim_start(), &drawing)
}

fn dot_chart(chart: &DotChart, number: usize) -> String {
    let drawing = dots::draw(chart).unwrap_or_else(nothing);
    frame("dot-chart", number, &chart.title, &chart.caption, &drawing)
}

fn embedded(picture: &Picture, number: usize, pictures: &mut Budget) -> String {
    let body = match pictures.embed(&picture.path) {
        Ok(image) => format!(
            "<img alt=\"{}\" width=\"{}\" height=\"{}\" src=\"{}\"/>",
            escape(&picture.title),
            image.width,
            image.height,
            image.uri
        ),
        Err(why) => {
            format!("<p class=\"nothing\">{} {}</p>", escape(&picture.path.display().to_string()), escape(&why))
        }
    };
    let class = picture.arm.map_or_else(|| "picture".to_owned(), |arm| format!("picture {}", arm_class(arm)));
    frame(&class, number, &picture.title, &picture.caption, &body)
}
