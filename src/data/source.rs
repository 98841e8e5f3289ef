//! What a dataset is drawn from: a numbered list of images that can be loaded from any thread.

use std::path::{Path, PathBuf};

use super::classes::ClassTable;
use super::folder::Layout;
use super::image::Image;
use super::mask::Mask;
use super::wirebond;

/// A fixed, numbered list of images.
pub trait Source: Send + Sync {
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A name that tells this image from all others; subsets and splits are drawn by it.
    fn name(&self, index: usize) -> String;

    /// How many channels every image has.
    fn channels(&self) -> usize;

    /// Reads or makes the image, the same at every call; the error is the reason for `skipped.csv`.
    fn load(&self, index: usize) -> Result<Image, String>;

    /// The file of an image as it is stored, for who wants to decode no more of it than is needed; `None` where an image is not
    /// one file. [`load`](Self::load) is then [`decode_as`](super::decode::decode_as) of it.
    fn bytes(&self, _index: usize) -> Option<Result<Vec<u8>, String>> {
        None
    }

    /// The split that the source itself prescribes.
    fn layout(&self) -> Option<&Layout> {
        None
    }

    /// The classes of masks or labels; `None` if images are all there is.
    fn classes(&self) -> Option<&ClassTable> {
        None
    }

    /// Whether images have masks.
    fn has_masks(&self) -> bool {
        false
    }

    /// The image with its mask, of the same size; labels lie within [`classes`](Self::classes).
    fn load_pair(&self, index: usize) -> Result<(Image, Mask), String> {
        Err(format!("{} has no mask", self.name(index)))
    }

    /// The files that an image is read from; none for one that is made.
    fn paths(&self, _index: usize) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The archive that an image lies in.
    fn archive(&self, _index: usize) -> Option<&Path> {
        None
    }

    /// The archives that images are read from, where they are no files of their own.
    fn archives(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// The class of a whole image.
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }
}

/// The built-in data set: generated wire-bond pictures with two channels.
///
/// Each image is made when it is first asked for, in parallel by the loader's workers, and then kept by the dataset's cache:
/// `2 · size²` bytes an image (75 MB for the defaults), never more than the cache's limit; beyond it, images are made anew.
#[derive(Clone, Debug)]
pub struct Wirebond {
    size: usize,
    count: usize,
    seed: u64,
    classes: ClassTable,
}

impl Wirebond {
    /// `size` is pixels on a side.
    pub fn new(size: usize, count: usize, seed: u64) -> Self {
        Self { size, count, seed, classes: ClassTable::of(&wirebond::CLASSES) }
    }
}

impl Source for Wirebond {
    fn len(&self) -> usize {
        self.count
    }

    fn name(&self, index: usize) -> String {
        format!("wirebond/{index:06}")
    }

    fn channels(&self) -> usize {
        2
    }

    fn load(&self, index: usize) -> Result<Image, String> {
        Ok(wirebond::generate(self.seed, index as u64, self.size).image)
    }
    fn classes(&self) -> Option<&ClassTable> {
        Some(&self.classes)
    }

    fn has_masks(&self) -> bool {
        true
    }

    fn load_pair(&self, index: usize) -> Result<(Image, Mask), String> {
        let sample = wirebond::generate(self.seed, index as u64, self.size);
        Ok((sample.image, Mask { width: self.size, height: self.size, labels: sample.mask }))
    }
}
