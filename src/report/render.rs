//! A report as text: headings, paragraphs and tables, for a terminal or a file. Figures are the page's.

use super::text::{PROSE, width as width_of, wrap};
use super::{Block, Report, Section};

impl Report {
    /// The report for a terminal so many columns wide; without one, tables are as wide as they are.
    pub fn text(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(usize::MAX);
        let mut out = vec![self.title.clone(), "═".repeat(width_of(&self.title).min(width)), String::new()];
        out.extend(wrap(&self.summary, width.min(PROSE)));
        for problem in &self.problems {
            out.extend(indented(&format!("left out: {problem}"), width.min(PROSE), "  "));
        }
        for section in &self.sections {
            // A report of one section has its heading for a title.
            let named = self.sections.len() > 1 || section.heading != self.title;
            add(section, if named { 1 } else { 0 }, width, &mut out);
        }
        let mut text: String = out.join("\n");
        text.push('\n');
        // Names come from scripts: none of them moves the cursor.
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }
}

fn add(section: &Section, depth: usize, width: usize, out: &mut Vec<String>) {
    if !has_text(section) {
        return;
    }
    if depth > 0 {
        let rule = if depth == 1 { "━" } else { "─" };
        out.extend([String::new(), section.heading.clone(), rule.repeat(width_of(&section.heading).min(width))]);
    }
    for headline in &section.headlines {
        out.push(String::new());
        out.extend(wrap(&format!("{}: {}", headline.label, headline.value), width.min(PROSE)));
        out.extend(indented(&headline.detail, width.min(PROSE), "  "));
    }
    for block in &section.blocks {
        let lines = match block {
            Block::Paragraph(text) => wrap(text, width.min(PROSE)),
            Block::Note(text) => indented(text, width.min(PROSE), "  "),
            Block::Table(table) => table.lines(width),
            Block::Commands(commands) => commands.iter().map(|command| format!("  {command}")).collect(),
            Block::Figure(_) => continue,
        };
        out.push(String::new());
        out.extend(lines);
    }
    for inner in &section.sections {
        add(inner, depth.max(1) + 1, width, out);
    }
}

fn has_text(section: &Section) -> bool {
    let text = |block: &Block| !matches!(block, Block::Figure(_));
    !section.headlines.is_empty() || section.blocks.iter().any(text) || section.sections.iter().any(has_text)
}

fn indented(text: &str, width: usize, by: &str) -> Vec<String> {
    wrap(text, width.saturating_sub(by.len())).into_iter().map(|line| format!("{by}{line}")).collect()
}
