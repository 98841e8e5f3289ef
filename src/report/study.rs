//! A study's section: which tables and figures there are, and in which order they are read.

use super::figure::{Better, Figure};
use super::group::{Goal, Study};
use super::table_one::{self, name};
use super::{
    Block, Options, Section, commands, costs, curves, differences, layers, overview, pictures, savings, segmentation,
    sweep, winner,
};

pub fn section(study: &Study, options: &Options) -> Section {
    let mut section = Section {
        heading: study.heading.clone(),
        arms: study.arms.iter().map(|arm| arm.label.clone()).collect(),
        ..Section::default()
    };
    if !study.text.is_empty() {
        section.blocks.push(Block::Paragraph(study.text.clone()));
    }
    section.blocks.push(Block::Paragraph(what_is_compared(study)));
    section.blocks.extend(study.notes.iter().cloned().map(Block::Note));
    section.blocks.extend(overview::fate(study).map(Block::Table));
    for goal in &study.goals {
        let mut results = Section {
            id: format!("results-{}", super::slug(&goal.figure)),
            heading: name(&goal.figure),
            ..Section::default()
        };
        if section.headlines.is_empty() {
            section.headlines = savings::headlines(study, goal);
            section.headlines.extend(winner::headline(study, goal));
        }
        results.blocks.push(Block::Table(table_one::table(study, goal, options)));
        results.blocks.extend(savings::table(study, goal).map(Block::Table));
        results.blocks.extend(table_one::tests(study, goal).map(Block::Table));
        results.blocks.extend(sweep::blocks(study, goal));
        results.blocks.extend(curves::chart(study, goal, options).map(|chart| Block::Figure(Figure::Line(chart))));
        section.sections.push(results);
    }
    section.sections.extend(training_loss(study, options));
    if study.goals.is_empty() {
        section.blocks.push(Block::Note("No run has a figure yet.".to_owned()));
    }
    if let Some(table) = costs::table(study, options) {
        section.sections.push(part("costs", "Time, energy and CO₂", vec![Block::Table(table)]));
    }
    for (id, heading, blocks) in [
        ("classes", "Classes", segmentation::table(study, options).map(Block::Table).into_iter().collect()),
        ("layers", "Layers", layers::blocks(study)),
        ("pictures", "Pictures", pictures::blocks(study)),
    ] {
        if !blocks.is_empty() {
            section.sections.push(part(id, heading, blocks));
        }
    }
    let mut setup: Vec<Block> = differences::table(study).map(Block::Table).into_iter().collect();
    let shared = differences::in_common(study);
    if !shared.is_empty() {
        setup.push(Block::Note(format!("All runs: {shared}.")));
    }
    let commands = commands::lines(study);
    if !commands.is_empty() {
        setup.push(Block::Commands(commands));
    }
    if !setup.is_empty() {
        section.sections.push(part("settings", "Settings, and how to run this again", setup));
    }
    section
}

/// The loss that is trained on, where it is not judged by itself.
fn training_loss(study: &Study, options: &Options) -> Option<Section> {
    let goal = Goal { figure: "train_loss".to_owned(), better: Better::Lower };
    if study.goals.contains(&goal) {
        return None;
    }
    let chart = curves::chart(study, &goal, options)?;
    Some(part("training", &chart.title.clone(), vec![Block::Figure(Figure::Line(chart))]))
}

fn part(id: &str, heading: &str, blocks: Vec<Block>) -> Section {
    Section { id: id.to_owned(), heading: heading.to_owned(), blocks, ..Section::default() }
}

/// `2 arms of 3 seeds; compared with bp.`
fn what_is_compared(study: &Study) -> String {
    let counts: Vec<usize> = study.arms.iter().map(|arm| arm.runs.len()).collect();
    let (low, high) = (counts.iter().min().copied().unwrap_or(0), counts.iter().max().copied().unwrap_or(0));
    let seeds = if low == high { overview::plural(low, "run") } else { format!("{low} to {high} runs") };
    let arms = overview::plural(study.arms.len(), "arm");
    let each = if study.arms.len() > 1 { " each" } else { "" };
    let baselines: Vec<&str> = study.baselines().into_iter().map(|base| study.arms[base].label.as_str()).collect();
    match baselines.as_slice() {
        [] => format!("{arms} of {seeds}{each}."),
        [one] => format!("{arms} of {seeds}{each}, compared with {one}."),
        several => {
            format!("{arms} of {seeds}{each}, compared with {} baselines: {}.", several.len(), several.join("; "))
        }
    }
}
