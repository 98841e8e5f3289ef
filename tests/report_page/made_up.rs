//! A report that no run wrote: every kind of block and figure, and names that try to leave their places.

use std::path::Path;

use dbp_host::report::figure::{
    Axis, Better, Cell, DotChart, DotRow, Figure, Headline, HeatMap, Level, LineChart, Mark, MarkKind, Picture, Point,
    Series, Stops, View,
};
use dbp_host::report::table::{Cell as Entry, Column, Format, Table};
use dbp_host::report::{Block, Report, Section};

/// A setting's name as a script might make it.
pub const HOSTILE: &str = "</title><script>document.title = 'taken'</script> & \"x\" onload='y' ]]> <!-- \u{202e}";

pub fn report(picture: &Path) -> Report {
    let arms = ["bp".to_owned(), "paper".to_owned(), HOSTILE.to_owned()];
    let mut table = Table::new(
        "losses",
        "Validation loss, with a title that says what was measured and how",
        vec![
            Column::text("setting"),
            Column::number("best", "", Format::Fixed(4)).better(Better::Lower),
            Column::number("training time", "min", Format::Fixed(1)),
            Column::number("against bp", "", Format::SignedPercent(1)),
            Column::number("a column with many words", "kWh", Format::Fixed(6)),
            Column::number("p", "", Format::P),
        ],
    );
    for (arm, name) in arms.iter().enumerate() {
        let best = Entry::with_spread(0.7 - 0.01 * arm as f64, Some(0.003));
        let p = if arm == 0 { Entry::Absent } else { Entry::number(0.0123) };
        let cells = vec![Entry::text(name), best, Entry::number(12.5), Entry::number(-0.1), Entry::number(0.000123), p];
        table.push(Some(arm), cells);
    }
    table.note("Mean ± standard deviation of 3 seeds.");
    let headline = Headline {
        label: "Training time to the baseline's best".into(),
        value: "−38 %".into(),
        detail: "paper against bp · n = 3 · p = 0.012 (paired t)".into(),
        arm: Some(1),
    };
    let pictures = [picture, Path::new("/nowhere/at-all.png")].map(|path| {
        let title = "Reconstruction".to_owned();
        Block::Figure(Figure::Picture(Picture { title, path: path.into(), caption: HOSTILE.into(), arm: Some(1) }))
    });
    let inner = |id: &str, heading: &str, blocks: Vec<Block>| Section {
        id: id.into(),
        heading: heading.into(),
        blocks,
        ..Section::default()
    };
    let layers = "encoder.blocks.0.attn.qkv";
    Report {
        title: format!("Made up {HOSTILE}"),
        summary: "9 runs that never ran".into(),
        sections: vec![Section {
            id: "all".into(),
            heading: "BP against DBP".into(),
            arms: arms.to_vec(),
            headlines: vec![headline],
            blocks: vec![Block::Paragraph(HOSTILE.into()), Block::Note("Small print.".into())],
            sections: vec![
                inner("curves", "Curves", vec![Block::Figure(Figure::Line(curves(&arms)))]),
                inner("table", "Table 1", vec![Block::Table(table), Block::Figure(Figure::Dots(dots(&arms)))]),
                inner(
                    "maps",
                    "Maps",
                    vec![grid(), over_time(layers)].into_iter().map(Figure::Heat).map(Block::Figure).collect(),
                ),
                inner("pictures", "Pictures", pictures.to_vec()),
                inner(
                    "repeat",
                    "To repeat",
                    vec![Block::Commands(vec![format!("dbp-host x.rhai --set 'a={HOSTILE}'")])],
                ),
            ],
        }],
        problems: vec![format!("/runs/{HOSTILE}: run.json: expected an object, got half a line")],
    }
}

/// Losses that fall to different ends, against two axes.
pub fn curves(arms: &[String]) -> LineChart {
    let view = |x: Axis, scale: f64| View {
        x,
        series: arms
            .iter()
            .enumerate()
            .map(|(arm, name)| {
                let loss = |i: i32| 0.6 + 0.4 / f64::from(i + arm as i32) + 0.001 * f64::from(i % 3);
                let place = |i: i32| f64::from(i * 25) * scale * (1.0 + 0.1 * arm as f64);
                let point = |i: i32| Point { x: place(i), y: loss(i), band: Some((loss(i) - 0.01, loss(i) + 0.01)) };
                Series {
                    name: name.clone(),
                    arm,
                    points: (1..=20).map(point).collect(),
                    runs: vec![(1..=20).map(|i| (place(i), loss(i) + 0.005)).collect()],
                    marks: vec![Mark { x: place(9), y: loss(9), text: "reached".into(), kind: MarkKind::Ring }],
                    ..Series::default()
                }
            })
            .collect(),
    };
    LineChart {
        title: "Validation loss".into(),
        caption: "Mean of 3 seeds; the band is one standard deviation.".into(),
        y: Axis::new("validation loss", "").logarithmic(),
        views: vec![view(Axis::new("step", ""), 1.0), view(Axis::new("training time", "h"), 0.001)],
        levels: vec![Level { value: 0.65, label: "best of bp".into(), arm: Some(0) }],
    }
}

fn dots(arms: &[String]) -> DotChart {
    let row = |(arm, name): (usize, &String)| {
        let mean = 0.7 - 0.01 * arm as f64;
        DotRow {
            name: name.clone(),
            arm,
            mean: Some(mean),
            interval: Some((mean - 0.004, mean + 0.004)),
            dots: vec![mean - 0.003, mean, mean + 0.003],
            note: "n = 3".into(),
        }
    };
    DotChart {
        title: "Best validation loss".into(),
        caption: String::new(),
        value: Axis::new("best validation loss", ""),
        better: Better::Lower,
        rows: arms.iter().enumerate().map(row).collect(),
        levels: vec![Level { value: 0.7, label: "bp".into(), arm: Some(0) }],
    }
}

fn grid() -> HeatMap {
    let value = |i: usize, k: usize| Cell { value: Some(0.7 + 0.01 * (i * k) as f64), note: String::new() };
    let mut cells: Vec<Vec<Cell>> = (0..3).map(|i| (0..4).map(|k| value(i, k)).collect()).collect();
    cells[2][3] = Cell { value: None, note: "diverged".into() };
    HeatMap {
        title: "Best validation loss by rates".into(),
        caption: "The framed cell is the best.".into(),
        x: Axis::new("learning rate", ""),
        columns: Stops::Numbers(vec![0.003, 0.006, 0.012, 0.024]),
        y: Axis::new("decorrelation rate", ""),
        rows: Stops::Numbers(vec![5e-4, 5e-3, 5e-2]),
        value: Axis::new("best validation loss", ""),
        better: Better::Lower,
        cells,
        best: Some((0, 0)),
        print_values: true,
    }
}

fn over_time(layer: &str) -> HeatMap {
    let columns: Vec<f64> = (1..=40).map(|k| f64::from(k) * 25.0).collect();
    let cell = |i: usize, step: f64| Cell { value: Some((i + 1) as f64 * 0.01 / step), note: String::new() };
    HeatMap {
        title: "Decorrelation loss per layer".into(),
        caption: String::new(),
        x: Axis::new("step", ""),
        cells: (0..20).map(|i| columns.iter().map(|step| cell(i, *step)).collect()).collect(),
        columns: Stops::Numbers(columns),
        y: Axis::new("layer", ""),
        rows: Stops::Labels((0..20).map(|i| format!("{layer}.{i}")).collect()),
        value: Axis::new("decorrelation loss", "").logarithmic(),
        better: Better::Neither,
        best: None,
        print_values: false,
    }
}
