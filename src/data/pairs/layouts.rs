//! Public datasets that are known by their folders: ADE20K and CamVid.

use std::path::Path;

use super::{Folders, Pairs, PairsSpec};
use crate::data::classes::ClassTable;
use crate::data::error::DataError;
use crate::data::mask::Coding;

/// The folder of ADE20K's scene parsing benchmark, inside which its own layout begins.
const ADE20K: &str = "ADEChallengeData2016";

/// Opens `path` if it holds the folders of ADE20K or of CamVid; `None` if not.
///
/// - ADE20K: `images/` and `annotations/` with `training/` and `validation/`, and `objectInfo150.txt`, or below a folder called
///   `ADEChallengeData2016`. 0 in a mask is no label, `k` is class `k − 1`.
/// - CamVid in SegNet's form: `train/`, `trainannot/`, `val/`, `valannot/`; 11 in a mask is no label.
pub fn recognize(path: &Path) -> Result<Option<Pairs>, DataError> {
    let has = |folder: &Path, parts: &[&str]| parts.iter().all(|part| folder.join(part).is_dir());
    let inner = path.join(ADE20K);
    for folder in [path, &inner] {
        let named = folder.join("objectInfo150.txt").is_file() || folder.ends_with(ADE20K);
        if named && has(folder, &["images/training", "annotations/training"]) {
            return Pairs::open(&ade20k(folder)).map(Some);
        }
    }
    if has(path, &["train", "trainannot", "val", "valannot"]) {
        return Pairs::open(&camvid(path)).map(Some);
    }
    Ok(None)
}

fn ade20k(folder: &Path) -> PairsSpec {
    let train = Folders { images: folder.join("images"), masks: folder.join("annotations") };
    let classes = ClassTable::built_in(include_str!("../../../datasets/ade20k.csv"));
    spec(train, None, classes, Coding::IndexFromOne)
}

fn camvid(folder: &Path) -> PairsSpec {
    let folders = |name: &str| Folders { images: folder.join(name), masks: folder.join(format!("{name}annot")) };
    let classes = ClassTable::built_in(include_str!("../../../datasets/camvid.csv"));
    let void = classes.len() as u32;
    spec(folders("train"), Some(folders("val")), classes, Coding::Index { ignore: vec![void, 255] })
}

fn spec(train: Folders, val: Option<Folders>, classes: ClassTable, coding: Coding) -> PairsSpec {
    PairsSpec { train, val, classes, coding, channels: 3, image_extension: None, mask_extension: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_tables_are_whole() {
        let folder = Path::new("x");
        for (spec, count, last) in [(ade20k(folder), 150, "flag"), (camvid(folder), 11, "bicyclist")] {
            let ClassTable { names, colors } = spec.classes;
            assert_eq!((names.len(), names.last().unwrap().as_str()), (count, last));
            assert!(ClassTable::with_colors(names, colors).is_ok());
        }
    }
}
