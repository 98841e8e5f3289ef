//! A table on the page: numbers aligned on the decimal, the best value of a column in bold, arms by their color.
//!
//! Alignment is text that takes room and is not seen: the decimals and the spread that other rows of the column have.

use crate::report::svg::{arm_class, escape};
use crate::report::table::{Cell, Column, Format, Table};

/// A column's printed cells: number, what stands behind it, and what is missing to the widest.
struct Printed {
    head: String,
    tail: Option<String>,
    pad_head: String,
    pad_tail: String,
}

/// Text longer than this wraps.
const MAX_LINE: usize = 40;

/// The table with this number on the page.
pub fn table(table: &Table, number: usize) -> String {
    let columns: Vec<Vec<Printed>> = (0..table.columns.len()).map(|index| print(table, index)).collect();
    let best: Vec<Vec<usize>> = (0..table.columns.len()).map(|index| table.best_rows(index)).collect();
    let title = escape(&table.title);
    let mut out = format!(
        "<div class=\"table\" id=\"table-{number}\">\n<p class=\"table-title\"><b>{title}</b></p>\n\
         <div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table>\n<thead><tr>"
    );
    table.columns.iter().for_each(|column| out.push_str(&heading(column)));
    out.push_str("</tr></thead>\n<tbody>\n");
    for (i, row) in table.rows.iter().enumerate() {
        out.push_str("<tr>");
        for (k, cells) in columns.iter().enumerate() {
            let cell = written(&cells[i], best[k].contains(&i));
            let class = class(table.columns[k].format, &cells[i].head);
            if k == 0 {
                let dot = row.arm.map_or_else(String::new, |arm| format!("<i class=\"{}\"></i>", arm_class(arm)));
                out.push_str(&format!("<th scope=\"row\"{class}>{dot}{cell}</th>"));
            } else {
                out.push_str(&format!("<td{class}>{cell}</td>"));
            }
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if !table.notes.is_empty() {
        let notes: String = table.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
        out.push_str(&format!("<ul class=\"table-notes\">{notes}</ul>\n"));
    }
    out + "</div>\n"
}

fn class(format: Format, text: &str) -> &'static str {
    match format {
        Format::Text if text.chars().count() > MAX_LINE => " class=\"long\"",
        Format::Text => "",
        _ => " class=\"number\"",
    }
}

fn heading(column: &Column) -> String {
    let unit = match column.unit.as_str() {
        "" => String::new(),
        unit => format!("<span class=\"unit\">{}</span>", escape(unit)),
    };
    format!(
        "<th scope=\"col\"{}><span class=\"head\">{}</span>{unit}</th>",
        class(column.format, ""),
        escape(&column.title)
    )
}

fn written(cell: &Printed, best: bool) -> String {
    let pad = |text: &str| match text {
        "" => String::new(),
        text => format!("<span class=\"pad\" aria-hidden=\"true\">{}</span>", escape(text)),
    };
    let head = if best { format!("<b>{}</b>", escape(&cell.head)) } else { escape(&cell.head) };
    let tail =
        cell.tail.as_deref().map_or_else(String::new, |tail| format!("<span class=\"spread\">{}</span>", escape(tail)));
    format!("{head}{}{tail}{}", pad(&cell.pad_head), pad(&cell.pad_tail))
}

fn print(table: &Table, index: usize) -> Vec<Printed> {
    let format = table.columns[index].format;
    let cells = table.rows.iter().map(|row| row.cells.get(index).unwrap_or(&Cell::Absent));
    let parts: Vec<(String, Option<String>)> = cells.map(|cell| format.parts(cell)).collect();
    let numbers = format != Format::Text;
    let longest = |texts: &mut dyn Iterator<Item = &str>| {
        texts.max_by_key(|text| text.chars().count()).unwrap_or_default().to_owned()
    };
    let fraction = longest(&mut parts.iter().map(|(head, _)| fraction(head)));
    let tail = longest(&mut parts.iter().filter_map(|(_, tail)| tail.as_deref()));
    let missing = |text: &str, all: &str| all.chars().skip(text.chars().count()).collect::<String>();
    let padded = |(head, rest): (String, Option<String>)| {
        let known = numbers && head != "–";
        Printed {
            pad_head: if known { missing(self::fraction(&head), &fraction) } else { String::new() },
            pad_tail: if numbers && rest.is_none() { tail.clone() } else { String::new() },
            head,
            tail: rest,
        }
    };
    parts.into_iter().map(padded).collect()
}

/// The point of a number and what follows; nothing of a whole number.
fn fraction(head: &str) -> &str {
    head.find('.').map_or("", |at| &head[at..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::figure::Better;

    #[test]
    fn numbers_align_and_the_best_is_bold() {
        let columns = vec![
            Column::text("setting"),
            Column::number("loss", "", Format::Fixed(2)).better(Better::Lower),
            Column::number("p", "", Format::P),
        ];
        let mut made = Table::new("t", "<T>", columns);
        made.push(Some(0), vec![Cell::text("a & b"), Cell::with_spread(0.7, Some(0.01)), Cell::Absent]);
        made.push(Some(1), vec![Cell::text("c"), Cell::number(0.6), Cell::number(0.5)]);
        made.push(None, vec![Cell::text("d"), Cell::Absent, Cell::number(0.0001)]);
        let html = table(&made, 1);
        for part in [
            "<b>&lt;T&gt;</b>",
            "<i class=\"a0\"></i>a &amp; b</th>",
            "<td class=\"number\">0.70<span class=\"spread\"> ± 0.01</span></td>",
            "<td class=\"number\"><b>0.60</b><span class=\"pad\" aria-hidden=\"true\"> ± 0.01</span></td>",
            "<td class=\"number\">0.50<span class=\"pad\" aria-hidden=\"true\">1</span></td>",
            "<td class=\"number\">&lt;0.001</td>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
}
