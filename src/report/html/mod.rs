//! The report as one HTML page that needs nothing beside it: style, script, figures and pictures are inside.
//!
//! The same report gives the same bytes. Everything that comes from runs is escaped; tags are closed as in XML, so that a
//! simple reader can check them.

mod embed;
mod figure;
mod page;
mod table;

use super::figure::{Figure, Headline};
use super::svg::{arm_class, escape};
use super::{Report, Section};
use embed::Budget;

/// Pages with at least so many sections have a table of contents.
const MIN_CONTENTS: usize = 3;

/// Longer values of headlines are words, and set smaller than figures.
const MAX_FIGURE: usize = 14;

/// The whole page; reads the pictures that the report names.
pub fn html(report: &Report) -> String {
    let contents = report.sections.len() >= MIN_CONTENTS;
    let mut body = format!(
        "<div class=\"sheet{}\">\n<header>\n<h1>{}</h1>\n",
        if contents { " with-nav" } else { "" },
        escape(&report.title)
    );
    report.summary.iter().for_each(|text| body.push_str(&paragraph(text)));
    body.push_str(&headlines(&report.headlines));
    body.push_str("</header>\n");
    if contents {
        body.push_str(&navigation(&report.sections));
    }
    body.push_str(&problems(&report.problems));
    body.push_str("<main>\n");
    let mut number = 0;
    let mut budget = Budget::new();
    for (i, section) in report.sections.iter().enumerate() {
        body.push_str(&written(section, i, &mut number, &mut budget));
    }
    body.push_str("</main>\n</div>\n");
    page::page(&report.title, &body)
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escape(text))
}

fn headlines(headlines: &[Headline]) -> String {
    if headlines.is_empty() {
        return String::new();
    }
    let one = |line: &Headline| {
        format!(
            "<div class=\"headline {}\"><div class=\"label\">{}</div><div class=\"value{}\">{}</div><div class=\"detail\">{}</div></div>\n",
            line.arm.map_or_else(|| "plain".to_owned(), arm_class),
            escape(&line.label),
            if line.value.chars().count() > MAX_FIGURE { " words" } else { "" },
            escape(&line.value),
            escape(&line.detail)
        )
    };
    format!("<div class=\"headlines\">\n{}</div>\n", headlines.iter().map(one).collect::<String>())
}

fn navigation(sections: &[Section]) -> String {
    let item = |(i, section): (usize, &Section)| {
        format!("<li><a href=\"#section-{}\">{}</a></li>\n", i + 1, escape(&section.heading))
    };
    let items: String = sections.iter().enumerate().map(item).collect();
    format!("<nav aria-label=\"Contents\"><ol>\n{items}</ol></nav>\n")
}

/// What could not be read comes before what was, so that nobody takes the rest for the whole.
fn problems(problems: &[String]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let items: String = problems.iter().map(|problem| format!("<li>{}</li>", escape(problem))).collect();
    format!("<div class=\"problems\"><b>Left out</b><ul>{items}</ul></div>\n")
}

fn written(section: &Section, index: usize, number: &mut usize, budget: &mut Budget) -> String {
    let mut out = format!("<section id=\"section-{}\">\n<h2>{}</h2>\n", index + 1, escape(&section.heading));
    section.paragraphs.iter().for_each(|text| out.push_str(&paragraph(text)));
    section.tables.iter().for_each(|table| out.push_str(&table::table(table)));
    let mut in_pictures = false;
    for figure in &section.figures {
        // Pictures that follow each other stand side by side.
        let picture = matches!(figure, Figure::Picture(_));
        if picture != in_pictures {
            out.push_str(if picture { "<div class=\"pictures\">\n" } else { "</div>\n" });
            in_pictures = picture;
        }
        *number += 1;
        out.push_str(&figure::figure(figure, *number, budget));
    }
    if in_pictures {
        out.push_str("</div>\n");
    }
    for command in &section.commands {
        out.push_str(&format!("<div class=\"command\"><pre>{}</pre></div>\n", escape(command)));
    }
    out + "</section>\n"
}
