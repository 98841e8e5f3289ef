//! Pictures that runs left: of each arm, the last of each kind, from its first seed.

use std::path::{Path, PathBuf};

use super::Block;
use super::figure::{Figure, Picture};
use super::group::Study;

/// Of more arms than these, pictures differ by less than the eye sees, and a page with all of them is too large for a phone.
const ARMS: usize = 3;

pub fn blocks(study: &Study) -> Vec<Block> {
    let mut blocks = Vec::new();
    if study.arms.len() > ARMS {
        if study.arms.iter().flat_map(|arm| &arm.runs).any(|run| !run.pictures.is_empty()) {
            let note = format!("Pictures of more than {ARMS} arms are not shown: each run has its own in `pictures/`.");
            blocks.push(Block::Note(note));
        }
        return blocks;
    }
    for (i, arm) in study.arms.iter().enumerate() {
        let Some(run) = arm.runs.iter().find(|run| !run.pictures.is_empty()) else { continue };
        for path in last_of_each(&run.pictures) {
            let (kind, step) = kind_and_step(&path);
            let seed = run.seed.map(|seed| format!(", seed {seed}")).unwrap_or_default();
            let step = step.map(|step| format!(", step {step}")).unwrap_or_default();
            let caption = format!("{}{seed}{step}", arm.label);
            blocks.push(Block::Figure(Figure::Picture(Picture { title: kind, path, caption, arm: Some(i) })));
        }
    }
    blocks
}

/// Names end in the step, so that the last of a kind is the latest.
fn last_of_each(pictures: &[PathBuf]) -> Vec<PathBuf> {
    let mut last: Vec<(String, PathBuf)> = Vec::new();
    for path in pictures {
        let (kind, _) = kind_and_step(path);
        match last.iter_mut().find(|(known, _)| *known == kind) {
            Some(slot) => slot.1.clone_from(path),
            None => last.push((kind, path.clone())),
        }
    }
    last.into_iter().map(|(_, path)| path).collect()
}

/// `reconstruction-000060.png` is a reconstruction of step 60.
fn kind_and_step(path: &Path) -> (String, Option<u64>) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let (kind, step) = match stem.rsplit_once('-') {
        Some((kind, step)) => (kind.to_owned(), step.parse().ok()),
        None => (stem.clone(), None),
    };
    let kind = if step.is_some() { kind } else { stem };
    let mut chars = kind.chars();
    let title = chars.next().map(|first| format!("{}{}", first.to_uppercase(), chars.as_str()));
    (title.unwrap_or_default(), step)
}
