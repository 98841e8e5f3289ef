//! The figures of a report as plain data: what is drawn, in units, with no position or color.
//!
//! `svg` draws them for the page. Numbers that are not known or not finite do not belong in a figure: a point that is
//! missing is left out, a cell without a value is `None`. An *arm* is a number that stands for one setting throughout a report;
//! it gives the setting its color, dash and marker wherever it shows up, in figures, tables and headlines alike. The baseline
//! should be arm 0.

use std::path::PathBuf;

/// One number worth reading first, for the top of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Headline {
    /// What it is: `Training time to the baseline's best`.
    pub label: String,
    /// The number as it is printed: `−38 %`, or `not reached in 3 of 5`.
    pub value: String,
    /// What it rests on: `paper against bp · 95 % CI −41 to −35 % · n = 5 · p = 0.003 (paired t)`.
    pub detail: String,
    pub arm: Option<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    Line(LineChart),
    Heat(HeatMap),
    Dots(DotChart),
    Picture(Picture),
}

/// What a length or a color measures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// `training time`
    pub label: String,
    /// `h`; empty for a pure number.
    pub unit: String,
    /// Decades instead of equal steps. Values that are not positive have no place on such an axis and are left out.
    pub log: bool,
}

/// Curves over one axis, or over several to choose from; the page shows the first and switches between them.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart {
    pub title: String,
    /// What is shown and how: `Mean of 5 seeds; the band is one standard deviation.`
    pub caption: String,
    pub y: Axis,
    pub views: Vec<View>,
    /// Values of y that curves are read against, such as the baseline's best.
    pub levels: Vec<Level>,
}

/// One choice of x-axis, with all that is drawn over it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub x: Axis,
    pub series: Vec<Series>,
}

/// One curve, its band, and the runs behind it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub name: String,
    pub arm: usize,
    /// In ascending order of x.
    pub points: Vec<Point>,
    /// Whether each point has a marker: for few points that are measurements by themselves, not samples of a curve.
    pub markers: bool,
    /// Thin lines behind the curve, one for each seed: points (x, y).
    pub runs: Vec<Vec<(f64, f64)>>,
    /// Places worth naming, such as the first at the baseline's best.
    pub marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
    /// Lower and upper end of the band at this place.
    pub band: Option<(f64, f64)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    pub x: f64,
    pub y: f64,
    /// A few words beside the mark.
    pub text: String,
    pub kind: MarkKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// A ring: the best value, a level that was reached.
    Ring,
    /// A cross: the run ended here without an answer.
    Cross,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub value: f64,
    /// `best of bp`
    pub label: String,
    pub arm: Option<usize>,
}

/// Values by color, over two axes.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatMap {
    pub title: String,
    pub caption: String,
    pub x: Axis,
    pub columns: Stops,
    pub y: Axis,
    /// From top to bottom.
    pub rows: Stops,
    /// What the color measures.
    pub value: Axis,
    pub better: Better,
    /// `cells[row][column]`
    pub cells: Vec<Vec<Cell>>,
    /// Row and column of the cell to frame.
    pub best: Option<(usize, usize)>,
    /// Whether the value stands in each cell; for grids that are small enough to read.
    pub print_values: bool,
}

/// What the rows or columns of a heat map are.
#[derive(Clone, Debug, PartialEq)]
pub enum Stops {
    Labels(Vec<String>),
    /// Ascending; labels are thinned out where there are many.
    Numbers(Vec<f64>),
}

/// Which end of a scale stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Better {
    Lower,
    Higher,
    /// The color says how much, not how good.
    #[default]
    Neither,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub value: Option<f64>,
    /// A word for the cell, such as `diverged` or `2 of 3 diverged`; empty for none.
    pub note: String,
}

/// One row for each setting: its mean, the interval around it, and each seed.
#[derive(Clone, Debug, PartialEq)]
pub struct DotChart {
    pub title: String,
    pub caption: String,
    pub value: Axis,
    pub better: Better,
    /// From top to bottom.
    pub rows: Vec<DotRow>,
    /// Values to read the rows against.
    pub levels: Vec<Level>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DotRow {
    pub name: String,
    pub arm: usize,
    pub mean: Option<f64>,
    pub interval: Option<(f64, f64)>,
    pub dots: Vec<f64>,
    /// What stands to the right, such as `n = 5` or `2 diverged`.
    pub note: String,
}

/// A PNG file, embedded as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub title: String,
    pub path: PathBuf,
    pub caption: String,
    pub arm: Option<usize>,
}

impl LineChart {
    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.views
            .iter()
            .all(|view| view.series.iter().all(|s| s.points.is_empty() && s.runs.iter().all(Vec::is_empty)))
    }
}

impl Axis {
    pub fn new(label: &str, unit: &str) -> Self {
        Self { label: label.to_owned(), unit: unit.to_owned(), log: false }
    }

    #[must_use]
    pub fn logarithmic(self) -> Self {
        Self { log: true, ..self }
    }

    /// `training time (h)`, as it stands at an axis.
    pub fn caption(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }
}

impl Stops {
    pub fn len(&self) -> usize {
        match self {
            Self::Labels(labels) => labels.len(),
            Self::Numbers(numbers) => numbers.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
