//! What runs found out: tables, figures and statistics, read from run directories alone.
//!
//! `find` and `read` turn directories into runs, `group` puts runs into studies and arms, a file per table or figure computes what it
//! shows, and [`Report`] holds it all as data: as text and CSV here, as a page elsewhere. The same runs give the same bytes,
//! in whatever order they are named: no clock is read.

use std::path::PathBuf;

use figure::{Figure, Headline};
use table::Table;

mod commands;
mod compare;
mod costs;
mod csv;
mod curve;
mod curves;
mod differences;
pub mod figure;
mod find;
mod group;
mod html;
mod label;
mod layers;
#[cfg(test)]
mod made;
mod number;
mod overview;
mod pictures;
mod read;
mod render;
mod savings;
mod segmentation;
mod setting;
mod stats;
mod study;
pub mod svg;
mod sweep;
pub mod table;
mod table_one;
mod text;
mod winner;

/// What a report is to hold.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keys that arms are made by; none for all that differ.
    pub by: Vec<String>,
    /// Label of the arm that others are compared with.
    pub baseline: Option<String>,
    /// The figure of interest, over what the runs themselves took for their best.
    pub figure: Option<String>,
    pub band: Band,
    pub title: Option<String>,
}

/// What stands behind ± and around curves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Band {
    /// One standard deviation over seeds.
    #[default]
    Sd,
    /// The 95 % confidence interval of the mean.
    Ci,
}

/// A report as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub title: String,
    /// How much there is, and from when.
    pub summary: String,
    pub sections: Vec<Section>,
    /// What was left out, and why.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// Letters, digits and hyphens, the section's own.
    pub id: String,
    pub heading: String,
    /// Labels of the arms, by number; empty where none has to be told from another.
    pub arms: Vec<String>,
    /// What to read first.
    pub headlines: Vec<Headline>,
    pub blocks: Vec<Block>,
    pub sections: Vec<Section>,
}

// A report has dozens of blocks, so their size matters less than an indirection would.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    Paragraph(String),
    /// Small print that belongs to what is above it.
    Note(String),
    Table(Table),
    Figure(Figure),
    /// Lines for a shell.
    Commands(Vec<String>),
}

impl Report {
    /// Reads the runs of `paths`. The error is one of `options`; what cannot be read is among the problems.
    ///
    /// # Errors
    /// If no run has the baseline or the key that is asked for.
    pub fn read(paths: &[PathBuf], options: &Options) -> Result<Self, String> {
        let found = find::find(paths);
        let studies = group::group(&found, options)?;
        let title = options.title.clone().unwrap_or_else(|| overview::title(&studies));
        let summary = overview::summary(&found);
        let mut sections: Vec<Section> = Vec::new();
        for study in &studies {
            let mut section = study::section(study, options);
            let taken = sections.iter().filter(|other| other.heading == section.heading).count();
            section.id = slug(&section.heading);
            if taken > 0 {
                section.id = format!("{}-{}", section.id, taken + 1);
            }
            sections.push(section);
        }
        Ok(Self { title, summary, sections, problems: found.problems })
    }

    /// Whether there was no run to report on.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }
}

/// Letters and digits of a heading with hyphens between.
pub fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    if words.is_empty() { "section".to_owned() } else { words.join("-") }
}
