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
    use crate::data::image::Image;
    use crate::data::source::Source;
    use crate::data::testing::{gradient, jpeg_bytes, png_bytes};

    #[test]
    fn class_tables_are_whole() {
        let folder = Path::new("x");
        for (spec, count, last) in [(ade20k(folder), 150, "flag"), (camvid(folder), 11, "bicyclist")] {
            let ClassTable { names, colors } = spec.classes;
            assert_eq!((names.len(), names.last().unwrap().as_str()), (count, last));
            assert!(ClassTable::with_colors(names, colors).is_ok());
        }
    }

    /// An image of 6×4 pixels, and a mask of one value everywhere.
    fn fill(folder: &Path, image: &str, mask: &str, value: u8) {
        for (name, bytes) in
            [(image, jpeg_bytes(&gradient(6, 4, 3))), (mask, png_bytes(&Image::filled(6, 4, 1, value)))]
        {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    #[test]
    fn ade20k_is_recognized_from_within_and_from_above() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join(ADE20K);
        assert!(recognize(dir.path()).unwrap().is_none());
        fill(&inner, "images/training/1.jpg", "annotations/training/1.png", 150);
        fill(&inner, "images/training/2.jpg", "annotations/training/2.png", 0);
        fill(&inner, "images/validation/3.jpg", "annotations/validation/3.png", 1);
        for folder in [dir.path(), &inner] {
            let found = recognize(folder).unwrap().unwrap();
            assert_eq!(found.layout(), Some(&(vec![0, 1], vec![2])));
            let first = |i: usize| found.load_pair(i).unwrap().1.labels[0];
            assert_eq!([first(0), first(1), first(2)], [149, 255, 0]);
        }
    }

    #[test]
    fn camvid_is_recognized_and_its_void_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for (part, value) in [("train", 10), ("val", 11)] {
            fill(dir.path(), &format!("{part}/x.jpg"), &format!("{part}annot/x.png"), value);
        }
        let found = recognize(dir.path()).unwrap().unwrap();
        assert_eq!([found.name(0), found.name(1)], ["train/x.jpg", "val/x.jpg"]);
        assert_eq!(found.load_pair(0).unwrap().1.labels[0], 10);
        assert!(found.load_pair(1).unwrap().1.is_all_ignored());
        fill(dir.path(), "train/y.jpg", "trainannot/y.png", 12);
        let error = recognize(dir.path()).unwrap().unwrap().load_pair(1).unwrap_err();
        assert_eq!(error, "the mask has the label 12 at x 0, y 0, but there are 11 classes (0 to 10)");
    }
}
