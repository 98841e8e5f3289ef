//! The tables of a report as CSV (RFC 4180): a file for each, a column more for what stands behind ±.

use super::number::plain;
use super::table::{Cell, Format, Table};
use super::{Block, Report, Section};

impl Report {
    /// Every table as a file's name and text; names begin with the section's.
    pub fn csv(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for section in &self.sections {
            add(section, &section.id, &mut files);
        }
        files
    }
}

fn add(section: &Section, prefix: &str, files: &mut Vec<(String, String)>) {
    for block in &section.blocks {
        if let Block::Table(table) = block {
            files.push((format!("{prefix}-{}.csv", table.id), text(table)));
        }
    }
    for inner in &section.sections {
        add(inner, prefix, files);
    }
}

/// Numbers with all their digits, percentages as shares of 1; what is absent is empty.
fn text(table: &Table) -> String {
    let spread = |column: usize| {
        table.rows.iter().any(|row| matches!(row.cells.get(column), Some(Cell::Number { spread: Some(_), .. })))
    };
    let spreads: Vec<bool> = (0..table.columns.len()).map(spread).collect();
    let mut header = Vec::new();
    for (column, spread) in table.columns.iter().zip(&spreads) {
        header.push(field(&column.heading()));
        if *spread {
            header.push(field(&format!("{} ±", column.heading())));
        }
    }
    let mut lines = vec![header.join(",")];
    for row in &table.rows {
        let mut fields = Vec::new();
        for (i, column) in table.columns.iter().enumerate() {
            let (value, behind) = match row.cells.get(i) {
                None | Some(Cell::Absent) => (String::new(), None),
                Some(Cell::Text(text)) => (field(text), None),
                Some(Cell::Number { value, spread }) => (number(*value, column.format), *spread),
            };
            fields.push(value);
            if spreads[i] {
                fields.push(behind.map(|value| number(value, column.format)).unwrap_or_default());
            }
        }
        lines.push(fields.join(","));
    }
    lines.push(String::new());
    lines.join("\r\n")
}

/// Ten digits that count: more would be those of rounding.
fn number(value: f64, format: Format) -> String {
    if format == Format::Fixed(0) && value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    format!("{value:.9e}").parse().map_or_else(|_| plain(value), plain)
}

fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
