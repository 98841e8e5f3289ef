//! What a dataset is drawn from: a numbered list of images that can be loaded from any thread.

use super::folder::Layout;
use super::image::Image;
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

    /// The split that the source itself prescribes.
    fn layout(&self) -> Option<&Layout> {
        None
    }
}

/// The built-in data set: generated wire-bond pictures with two channels.
///
/// Each image is made when it is first asked for, in parallel by the loader's workers, and then kept by the dataset's cache:
/// `2 · size²` bytes an image (75 MB for the defaults), never more than the cache's limit; beyond it, images are made anew.
#[derive(Clone, Copy, Debug)]
pub struct Wirebond {
    /// Pixels on a side.
    pub size: usize,
    pub count: usize,
    pub seed: u64,
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
}
