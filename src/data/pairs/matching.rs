//! Which mask belongs to which image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Folders, PairsSpec};
use crate::data::error::DataError;
use crate::data::folder::{Layout, ends_in, list};

/// An image and its mask, as paths that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The image's path relative to its folder.
    pub name: String,
    pub image: PathBuf,
    pub mask: PathBuf,
}

const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 2] = ["val", "validation"];

/// All pairs of two folders, in the images' bytewise order.
pub fn pairs(folders: &Folders, spec: &PairsSpec) -> Result<Vec<Pair>, DataError> {
    let Folders { images, masks } = folders;
    let same = fs::canonicalize(images).ok() == fs::canonicalize(masks).ok();
    let filtered = |wanted: &Option<String>, mut files: Vec<PathBuf>| {
        files.retain(|file| wanted.as_deref().is_none_or(|wanted| ends_in(file, wanted)));
        files
    };
    let (image_files, mask_files) = if same && spec.image_extension.is_none() && spec.mask_extension.is_none() {
        let (mask_files, image_files): (Vec<_>, Vec<_>) =
            list(images)?.into_iter().partition(|file| ends_in(file, "png"));
        if image_files.is_empty() || mask_files.is_empty() {
            return Err(DataError::Mixed { folder: images.clone() });
        }
        (image_files, mask_files)
    } else if same {
        let (mut image_files, mut mask_files) =
            (filtered(&spec.image_extension, list(images)?), filtered(&spec.mask_extension, list(masks)?));
        // One extension given: the other kind is the rest.
        match (&spec.image_extension, &spec.mask_extension) {
            (None, Some(masks)) => image_files.retain(|file| !ends_in(file, masks)),
            (Some(images), None) => mask_files.retain(|file| !ends_in(file, images)),
            _ => {}
        }
        (image_files, mask_files)
    } else {
        (filtered(&spec.image_extension, list(images)?), filtered(&spec.mask_extension, list(masks)?))
    };
    let (image_count, mask_count) = (image_files.len(), mask_files.len());
    let mut masks_by_stem = by_stem("masks", masks, mask_files)?;
    by_stem("images", images, image_files.clone())?;
    let (mut pairs, mut alone) = (Vec::with_capacity(image_count), Vec::new());
    for file in image_files {
        match masks_by_stem.remove(&stem(&file)) {
            Some(mask) => pairs.push(Pair {
                name: file.to_string_lossy().into_owned(),
                image: images.join(&file),
                mask: masks.join(mask),
            }),
            None => alone.push(file),
        }
    }
    // A test set without annotations may lie beside the two that have them.
    if layout(&pairs).is_some() {
        alone.retain(|file| !top(file).is_some_and(|top| top.starts_with("test")));
    }
    let unpaired = |what, partner, folder: &Path, partners: &Path, of, alone: &[PathBuf]| {
        alone.first().map_or(Ok(()), |first| {
            Err(DataError::Unpaired {
                count: alone.len(),
                of,
                what,
                partner,
                folder: folder.into(),
                partners: partners.into(),
                first: first.display().to_string(),
            })
        })
    };
    unpaired("images", "mask", images, masks, image_count, &alone)?;
    let left: Vec<PathBuf> = masks_by_stem.into_values().collect();
    unpaired("masks", "image", masks, images, mask_count, &left)?;
    if pairs.is_empty() {
        return Err(DataError::Mixed { folder: images.clone() });
    }
    Ok(pairs)
}

/// The split that folders called `train` and `val` make; what lies elsewhere is no part of the dataset.
pub fn layout(pairs: &[Pair]) -> Option<Layout> {
    let under = |names: &[&str]| -> Vec<u32> {
        let inside = |pair: &Pair| top(Path::new(&pair.name)).is_some_and(|top| names.contains(&top.as_str()));
        (0..pairs.len() as u32).filter(|&i| inside(&pairs[i as usize])).collect()
    };
    let (train, val) = (under(&TRAIN), under(&VAL));
    (!train.is_empty() && !val.is_empty()).then_some((train, val))
}

/// The first folder of a relative path.
fn top(file: &Path) -> Option<String> {
    let mut parts = file.components();
    let first = parts.next()?.as_os_str().to_string_lossy().into_owned();
    parts.next().is_some().then_some(first)
}

fn stem(file: &Path) -> PathBuf {
    file.with_extension("")
}

fn by_stem(what: &'static str, folder: &Path, files: Vec<PathBuf>) -> Result<BTreeMap<PathBuf, PathBuf>, DataError> {
    let mut found = BTreeMap::new();
    for file in files {
        if let Some(first) = found.insert(stem(&file), file.clone()) {
            let (first, second) = (first.display().to_string(), file.display().to_string());
            return Err(DataError::TwoOfOneName { what, folder: folder.into(), first, second });
        }
    }
    Ok(found)
}
