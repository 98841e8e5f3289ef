//! Images with masks: two folders whose files are matched by their path without extension.

mod layouts;
mod matching;

use std::path::PathBuf;

use super::classes::{ClassTable, MAX_MASK_CLASSES};
use super::decode::decode_mask;
use super::error::DataError;
use super::folder::{Layout, load_image, read};
use super::image::Image;
use super::mask::{Coding, Mask};
use super::source::Source;
use matching::Pair;

pub use layouts::recognize;

/// What belongs together, and how its masks are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairsSpec {
    pub train: Folders,
    /// A validation set of its own. Without it, `train/` and `val/` (or `training/` and `validation/`) at the top of the image
    /// folder are the split.
    pub val: Option<Folders>,
    pub classes: ClassTable,
    pub coding: Coding,
    /// 1 to 3.
    pub channels: usize,
    /// What images end in, where masks lie beside them; `None` finds out.
    pub image_extension: Option<String>,
    pub mask_extension: Option<String>,
}

/// Where images are, and where their masks; the same folder may be both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    pub images: PathBuf,
    pub masks: PathBuf,
}

/// Images with masks, sorted by name.
#[derive(Debug)]
pub struct Pairs {
    pairs: Vec<Pair>,
    layout: Option<Layout>,
    classes: ClassTable,
    coding: Coding,
    channels: usize,
}

impl Pairs {
    /// Lists and matches the files; none is read yet.
    ///
    /// Errors: a missing folder, an image without a mask or a mask without an image, two of one name.
    pub fn open(spec: &PairsSpec) -> Result<Self, DataError> {
        if spec.classes.len() > MAX_MASK_CLASSES {
            let expected = format!("at most {MAX_MASK_CLASSES} of them for masks");
            return Err(DataError::range("classes", expected, spec.classes.len()));
        }
        let (pairs, layout) = match &spec.val {
            None => {
                let pairs = matching::pairs(&spec.train, spec)?;
                let layout = matching::layout(&pairs);
                (pairs, layout)
            }
            Some(val) => {
                let named = |prefix: &str, folders: &Folders| -> Result<Vec<Pair>, DataError> {
                    let pairs = matching::pairs(folders, spec)?;
                    Ok(pairs.into_iter().map(|pair| Pair { name: format!("{prefix}/{}", pair.name), ..pair }).collect())
                };
                let (mut pairs, val) = (named("train", &spec.train)?, named("val", val)?);
                let layout = ((0..pairs.len() as u32).collect(), (pairs.len() as u32..).take(val.len()).collect());
                pairs.extend(val);
                (pairs, Some(layout))
            }
        };
        let PairsSpec { classes, coding, channels, .. } = spec.clone();
        Ok(Self { pairs, layout, classes, coding, channels })
    }

    fn load_mask(&self, pair: &Pair) -> Result<Mask, String> {
        let raw = read(&pair.mask)
            .and_then(|bytes| decode_mask(&bytes, self.coding.wants_colors()).map_err(|error| error.to_string()));
        let raw = raw.map_err(|reason| format!("mask {}: {reason}", pair.mask.display()))?;
        self.coding.labels(raw, self.classes.len())
    }
}

impl Source for Pairs {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The image's path relative to the image folder, after `train/` or `val/` if these are folders of their own.
    fn name(&self, index: usize) -> String {
        self.pairs[index].name.clone()
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn load(&self, index: usize) -> Result<Image, String> {
        load_image(&self.pairs[index].image, self.channels)
    }

    fn paths(&self, index: usize) -> Vec<PathBuf> {
        vec![self.pairs[index].image.clone(), self.pairs[index].mask.clone()]
    }

    fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }

    fn classes(&self) -> Option<&ClassTable> {
        Some(&self.classes)
    }

    fn has_masks(&self) -> bool {
        true
    }

    fn load_pair(&self, index: usize) -> Result<(Image, Mask), String> {
        let image = self.load(index)?;
        let mask = self.load_mask(&self.pairs[index])?;
        if (image.width, image.height) != (mask.width, mask.height) {
            return Err(format!(
                "the image has {}×{} pixels, its mask {}×{}",
                image.width, image.height, mask.width, mask.height
            ));
        }
        Ok((image, mask))
    }
}
