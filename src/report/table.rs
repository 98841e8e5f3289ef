//! A table as data, and as text: columns with unit and direction, rows, notes below.
//!
//! What is not known is [`Cell::Absent`] and printed as a dash, never as 0. Decimals are a column's, so that numbers align.

use super::figure::Better;
use super::number;
use super::text::{self, wrap};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names the CSV file: letters, digits, hyphens.
    pub id: String,
    pub title: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
    /// Whole sentences: what was computed and how, what is missing.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub title: String,
    /// Empty for a pure number or text.
    pub unit: String,
    /// Which values stand out as the best.
    pub better: Better,
    pub format: Format,
}

/// How the numbers of a column are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Fixed(usize),
    /// So many digits that count, each number by itself: rows of different units.
    Significant(i32),
    /// With a plus or minus, for differences.
    Signed(usize),
    /// A share of 1 as a percentage, with its sign.
    SignedPercent(usize),
    /// A probability: no more digits than it is worth, `<0.001` below.
    P,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Which arm the row is about; gives it that arm's color.
    pub arm: Option<usize>,
    pub cells: Vec<Cell>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Absent,
    Text(String),
    /// `spread` is what stands behind ±.
    Number {
        value: f64,
        spread: Option<f64>,
    },
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn number(value: impl Into<Option<f64>>) -> Self {
        Self::with_spread(value, None)
    }

    pub fn with_spread(value: impl Into<Option<f64>>, spread: Option<f64>) -> Self {
        let spread = spread.filter(|spread| spread.is_finite());
        value.into().filter(|value| value.is_finite()).map_or(Self::Absent, |value| Self::Number { value, spread })
    }

    pub fn count(count: usize) -> Self {
        Self::number(count as f64)
    }

    pub fn value(&self) -> Option<f64> {
        if let Self::Number { value, .. } = self { Some(*value) } else { None }
    }
}

impl Format {
    /// The cell as it is printed, and what stands behind its number.
    pub fn parts(self, cell: &Cell) -> (String, Option<String>) {
        match cell {
            Cell::Absent => ("–".to_owned(), None),
            Cell::Text(text) => (text.clone(), None),
            Cell::Number { value, spread } => {
                (self.print(*value), spread.map(|spread| format!(" ± {}", self.width_of(spread))))
            }
        }
    }

    fn print(self, value: f64) -> String {
        match self {
            Self::Text => number::plain(value),
            Self::Fixed(decimals) => number::fixed(value, decimals),
            // A whole number is one, as steps are.
            Self::Significant(_) if value.fract() == 0.0 && value.abs() >= 1.0 => number::fixed(value, 0),
            Self::Significant(digits) => number::fixed(value, number::decimals([value], digits)),
            Self::Signed(decimals) => number::signed(value, decimals),
            Self::SignedPercent(decimals) => format!("{} %", number::signed(value * 100.0, decimals)),
            Self::P => number::p_value(value),
        }
    }

    fn width_of(self, spread: f64) -> String {
        match self {
            Self::Text | Self::P => number::plain(spread),
            Self::Fixed(decimals) | Self::Signed(decimals) => number::fixed(spread, decimals),
            Self::Significant(digits) => number::fixed(spread, number::decimals([spread], digits)),
            Self::SignedPercent(decimals) => number::fixed(spread * 100.0, decimals),
        }
    }
}

impl Column {
    pub fn text(title: impl Into<String>) -> Self {
        Self { title: title.into(), unit: String::new(), better: Better::Neither, format: Format::Text }
    }

    pub fn number(title: impl Into<String>, unit: &str, format: Format) -> Self {
        Self { title: title.into(), unit: unit.to_owned(), better: Better::Neither, format }
    }

    #[must_use]
    pub fn better(self, better: Better) -> Self {
        Self { better, ..self }
    }

    /// Title and unit in one.
    pub fn heading(&self) -> String {
        if self.unit.is_empty() { self.title.clone() } else { format!("{} ({})", self.title, self.unit) }
    }
}

impl Table {
    pub fn new(id: &str, title: impl Into<String>, columns: Vec<Column>) -> Self {
        Self { id: id.to_owned(), title: title.into(), columns, ..Self::default() }
    }

    pub fn push(&mut self, arm: Option<usize>, cells: Vec<Cell>) {
        self.rows.push(Row { arm, cells });
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Leaves out columns in which no row has anything.
    pub fn drop_empty(&mut self) {
        let full =
            |column: usize| self.rows.iter().any(|row| row.cells.get(column).is_some_and(|cell| *cell != Cell::Absent));
        let keep: Vec<bool> = (0..self.columns.len()).map(full).collect();
        let kept = |i: usize| keep.get(i).copied().unwrap_or(false);
        let mut place = 0..;
        self.columns.retain(|_| place.next().is_some_and(kept));
        for row in &mut self.rows {
            let mut place = 0..;
            row.cells.retain(|_| place.next().is_some_and(kept));
        }
    }

    /// Rows that hold a column's best value; none where there is only one value, or no better direction.
    pub fn best_rows(&self, column: usize) -> Vec<usize> {
        let Some(better) = self.columns.get(column).map(|column| column.better) else { return Vec::new() };
        let value = |row: &Row| row.cells.get(column).and_then(Cell::value);
        let values: Vec<f64> = self.rows.iter().filter_map(value).collect();
        let best = match better {
            Better::Lower => values.iter().copied().reduce(f64::min),
            Better::Higher => values.iter().copied().reduce(f64::max),
            Better::Neither => None,
        };
        let Some(best) = best.filter(|_| values.len() > 1) else { return Vec::new() };
        (0..self.rows.len()).filter(|row| value(&self.rows[*row]) == Some(best)).collect()
    }

    /// The table as lines; where it is wider than `width`, its columns follow in blocks, each behind the first column.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let mut out = vec![self.title.clone()];
        let columns: Vec<Printed> = (0..self.columns.len()).map(|index| self.print(index)).collect();
        let Some((first, rest)) = columns.split_first() else { return out };
        let mut blocks: Vec<Vec<&Printed>> = vec![vec![first]];
        let mut used = first.width;
        for column in rest {
            if used + GAP + column.width > width && blocks.last().is_some_and(|block| block.len() > 1) {
                blocks.push(vec![first]);
                used = first.width;
            }
            used += GAP + column.width;
            if let Some(block) = blocks.last_mut() {
                block.push(column);
            }
        }
        for block in blocks {
            out.extend(block_lines(&block));
        }
        for note in &self.notes {
            out.extend(
                wrap(note, width.min(text::PROSE).saturating_sub(2)).into_iter().map(|line| format!("  {line}")),
            );
        }
        out
    }

    fn print(&self, index: usize) -> Printed {
        let column = &self.columns[index];
        let absent = Cell::Absent;
        let parts: Vec<(String, Option<String>)> =
            self.rows.iter().map(|row| column.format.parts(row.cells.get(index).unwrap_or(&absent))).collect();
        let numbers = column.format != Format::Text;
        let tail = parts.iter().filter_map(|(_, tail)| tail.as_deref().map(text::width)).max().unwrap_or(0);
        let body: Vec<String> = parts
            .into_iter()
            .map(
                |(head, rest)| {
                    if numbers { format!("{head}{}", text::right(&rest.unwrap_or_default(), tail)) } else { head }
                },
            )
            .collect();
        let body_width = body.iter().map(|cell| text::width(cell)).max().unwrap_or(0);
        // A heading may take several lines, but no word is broken.
        let heading = wrap(&column.heading(), body_width.max(HEADING));
        let width = heading.iter().map(|line| text::width(line)).max().unwrap_or(0).max(body_width);
        Printed { heading, body, width, numbers }
    }
}

const GAP: usize = 2;
/// Headings wrap at so many characters, or at their column's width.
const HEADING: usize = 14;

struct Printed {
    heading: Vec<String>,
    body: Vec<String>,
    width: usize,
    numbers: bool,
}

fn block_lines(columns: &[&Printed]) -> Vec<String> {
    let height = columns.iter().map(|column| column.heading.len()).max().unwrap_or(0);
    let line = |cell: &dyn Fn(&Printed) -> String| {
        let cells = columns.iter().map(|column| {
            let cell = cell(column);
            if column.numbers { text::right(&cell, column.width) } else { text::left(&cell, column.width) }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    // Headings stand on the line below them.
    let heading = |at: usize| {
        move |column: &Printed| {
            (at + column.heading.len()).checked_sub(height).map_or_else(String::new, |at| column.heading[at].clone())
        }
    };
    let rule = columns.iter().map(|column| "─".repeat(column.width)).collect::<Vec<_>>().join("  ");
    let rows = columns.first().map_or(0, |column| column.body.len());
    let mut out: Vec<String> = (0..height).map(|at| line(&heading(at))).collect();
    out.push(rule);
    out.extend((0..rows).map(|row| line(&|column: &Printed| column.body[row].clone())));
    out
}
