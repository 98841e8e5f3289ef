//! The report as one HTML page that needs nothing beside it: style, script, figures and pictures are inside.
//!
//! The same report gives the same bytes. Everything that comes from runs is escaped; tags are closed as in XML, so that a
//! simple reader can check them.

mod embed;
mod figure;
mod page;
mod table;

use super::figure::{Figure, Headline};
use super::svg::{arm_class, escape, swatch};
use super::{Block, Report, Section};
use embed::Budget;
use figure::{Shared, ranges};

/// Pages with at least so many headings have a table of contents.
const MIN_CONTENTS: usize = 3;
/// Longer values of headlines are words, and set smaller than figures.
const MAX_FIGURE: usize = 14;
/// Characters of a note that stands open, and of what is shown of one that does not.
const MAX_NOTE: usize = 320;
const SHOWN_NOTE: usize = 90;
/// More arms than have a look of their own are no key.
const MAX_KEY: usize = 8;

impl Report {
    /// The whole page; reads the pictures that the report names.
    pub fn html(&self) -> String {
        let contents = contents(&self.sections);
        let with_contents = if contents.is_empty() { "" } else { " with-nav" };
        let mut body = format!(
            "<div class=\"sheet{with_contents}\">\n<header>\n<h1>{}</h1>\n<p class=\"soft\">{}</p>\n</header>\n",
            escape(&self.title),
            escape(&self.summary)
        );
        body.push_str(&contents);
        body.push_str(&problems(&self.problems));
        body.push_str("<main>\n");
        let mut writer = Writer { body, figures: 0, tables: 0, pictures: Budget::new() };
        for section in &self.sections {
            // One section by itself is what the title says already.
            let titled = self.sections.len() == 1 && section.heading == self.title;
            writer.section(section, "", if titled { None } else { Some(2) });
        }
        writer.body.push_str("</main>\n</div>\n");
        page::page(&self.title, &writer.body)
    }
}

/// Links to the sections, and to theirs; nothing where a page is short.
fn contents(sections: &[Section]) -> String {
    let all: usize = sections.iter().map(|section| 1 + section.sections.len()).sum();
    if all < MIN_CONTENTS {
        return String::new();
    }
    let link = |id: &str, section: &Section| format!("<a href=\"#{}\">{}</a>", escape(id), escape(&section.heading));
    let inner = |outer: &Section| {
        let item = |inner: &Section| format!("<li>{}</li>\n", link(&anchor(&outer.id, inner), inner));
        outer.sections.iter().map(item).collect::<String>()
    };
    let outer = |section: &Section| match inner(section).as_str() {
        "" => format!("<li>{}</li>\n", link(&section.id, section)),
        inner => format!("<li>{}<ol>{inner}</ol></li>\n", link(&section.id, section)),
    };
    let items = if let [only] = sections { inner(only) } else { sections.iter().map(outer).collect() };
    format!("<nav aria-label=\"Contents\"><ol>\n{items}</ol></nav>\n")
}

/// A section's name in the page; sections of different sections may have the same id.
fn anchor(outer: &str, section: &Section) -> String {
    if outer.is_empty() { section.id.clone() } else { format!("{outer}--{}", section.id) }
}

/// What could not be read comes before what was, so that nobody takes the rest for the whole.
fn problems(problems: &[String]) -> String {
    if problems.is_empty() {
        return String::new();
    }
    let items: String = problems.iter().map(|problem| format!("<li>{}</li>", escape(problem))).collect();
    format!("<div class=\"problems\"><b>Left out</b><ul>{items}</ul></div>\n")
}

/// The page so far, and what is counted through it.
struct Writer {
    body: String,
    figures: usize,
    tables: usize,
    pictures: Budget,
}

impl Writer {
    /// A section and those within it, with a heading of this level; without one if the page's title says it.
    fn section(&mut self, section: &Section, outer: &str, level: Option<usize>) {
        let id = anchor(outer, section);
        self.body.push_str(&format!("<section id=\"{}\">\n", escape(&id)));
        if let Some(level) = level {
            self.body.push_str(&format!("<h{level}>{}</h{level}>\n", escape(&section.heading)));
        }
        self.body.push_str(&key(&section.arms));
        self.body.push_str(&headlines(&section.headlines));
        let ranges = ranges(&section.blocks);
        let mut in_pictures = false;
        for block in &section.blocks {
            // Pictures that follow each other stand side by side.
            let picture = matches!(block, Block::Figure(Figure::Picture(_)));
            if picture != in_pictures {
                self.body.push_str(if picture { "<div class=\"pictures\">\n" } else { "</div>\n" });
                in_pictures = picture;
            }
            self.block(block, &ranges);
        }
        if in_pictures {
            self.body.push_str("</div>\n");
        }
        let inner_level = level.map_or(2, |level| (level + 1).min(6));
        section.sections.iter().for_each(|inner| self.section(inner, &id, Some(inner_level)));
        self.body.push_str("</section>\n");
    }

    fn block(&mut self, block: &Block, ranges: &[Shared]) {
        let written = match block {
            Block::Paragraph(text) => format!("<p>{}</p>\n", escape(text)),
            Block::Note(text) => note(text),
            Block::Table(table) => {
                self.tables += 1;
                table::table(table, self.tables)
            }
            Block::Figure(figure) => {
                self.figures += 1;
                figure::figure(figure, self.figures, ranges, &mut self.pictures)
            }
            Block::Commands(commands) => commands.iter().map(|command| shell(command)).collect(),
        };
        self.body.push_str(&written);
    }
}

/// Small print; what is too long for a glance opens on request, and on paper.
fn note(text: &str) -> String {
    if text.chars().count() <= MAX_NOTE {
        return format!("<p class=\"small\">{}</p>\n", escape(text));
    }
    // Cut behind a whole word, or anywhere in one that goes on and on.
    let end = text.char_indices().nth(SHOWN_NOTE).map_or(text.len(), |(at, _)| at);
    let end = text[..end].rfind(' ').unwrap_or(end);
    let (shown, rest) = text.split_at(end);
    format!(
        "<details class=\"small\"><summary>{}<span class=\"more\"> …</span></summary><p>{}</p></details>\n",
        escape(shown),
        escape(rest.trim_start())
    )
}

fn shell(command: &str) -> String {
    format!("<div class=\"command\"><pre>{}</pre></div>\n", escape(command))
}

/// The arms' colors, dashes and markers, as they are in all that follows.
fn key(arms: &[String]) -> String {
    if arms.len() < 2 || arms.len() > MAX_KEY {
        return String::new();
    }
    let arms = arms.iter().enumerate();
    let arms: String =
        arms.map(|(arm, label)| format!("<li>{}<span>{}</span></li>", swatch(arm), escape(label))).collect();
    format!("<ul class=\"legend key\">{arms}</ul>\n")
}

/// `n = 5` and `95 %` stay on one line.
fn unbroken(text: &str) -> String {
    [" = ", " < ", " %"].iter().fold(text.to_owned(), |text, part| text.replace(part, &part.replace(' ', "\u{a0}")))
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
            escape(&unbroken(&line.detail))
        )
    };
    format!("<div class=\"headlines\">\n{}</div>\n", headlines.iter().map(one).collect::<String>())
}
