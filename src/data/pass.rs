//! One evaluation pass over whole images, with their masks where there are any.
//!
//! Images keep their aspect, so their sizes differ; a batch takes images that follow each other as long as both the images'
//! and the masks' sizes are equal. How they are grouped depends on the files alone.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use super::augment::normalize_into;
use super::dataset::Dataset;
use super::image::Image;
use super::loader::{Batch, pixels_per_image};
use super::mask::Mask;
use super::normalization::Normalization;
use super::segment::Segmentation;
use super::skips::Skip;
use super::val_loader::Prepared;
use crate::libtorch::buffer::Buffer;

/// Where a pass stands.
pub struct PairPass {
    dataset: Dataset,
    pairs: Segmentation,
    batch: usize,
    files: Range<usize>,
    /// Loaded, in file order, and not yet in a batch.
    waiting: VecDeque<Loaded>,
    step: u64,
}

struct Loaded {
    file: usize,
    image: Image,
    /// Height and width before it was resized.
    own_size: (usize, usize),
    mask: Option<Arc<Mask>>,
}

impl Loaded {
    /// Height and width of the image, and those that labels are wanted at.
    fn sizes(&self) -> (usize, usize, (usize, usize)) {
        (self.image.height, self.image.width, self.own_size)
    }
}

impl PairPass {
    pub fn new(dataset: &Dataset, pairs: &Segmentation, batch: usize) -> Self {
        let files = 0..dataset.len();
        Self { dataset: dataset.clone(), pairs: pairs.clone(), batch, files, waiting: VecDeque::new(), step: 0 }
    }

    /// The next batch; `None` at the end or once `stop` is set.
    pub fn next(&mut self, normalization: &Normalization, stop: &AtomicBool) -> Option<Prepared> {
        let wanted = (self.batch - self.waiting.len().min(self.batch)).min(self.files.len());
        let files = self.files.start..self.files.start + wanted;
        self.files.start = files.end;
        let load = |file| (!stop.load(Ordering::Relaxed)).then(|| self.load(file));
        let loaded: Option<Vec<Result<Loaded, Skip>>> = files.into_par_iter().map(load).collect();
        let mut skips = Vec::new();
        for result in loaded? {
            match result {
                Ok(loaded) => self.waiting.push_back(loaded),
                Err(skip) => skips.push(skip),
            }
        }
        if self.waiting.is_empty() && self.files.is_empty() && skips.is_empty() {
            return None;
        }
        let sizes = self.waiting.front().map(Loaded::sizes);
        let alike = self.waiting.iter().take(self.batch).take_while(|loaded| Some(loaded.sizes()) == sizes).count();
        let taken: Vec<Loaded> = self.waiting.drain(..alike).collect();
        Some(Prepared { batch: self.batch_of(&taken, normalization), skips })
    }

    fn load(&self, file: usize) -> Result<Loaded, Skip> {
        let failed = |reason| Skip { index: file, reason };
        if self.dataset.has_masks() {
            let (image, mask) = self.dataset.load_pair(file).map_err(failed)?;
            let own_size = (mask.height, mask.width);
            return Ok(Loaded { file, image: self.pairs.eval(&image), own_size, mask: Some(mask) });
        }
        let image = self.dataset.load(file).map_err(failed)?;
        let own_size = (image.height, image.width);
        Ok(Loaded { file, image: self.pairs.eval(&image), own_size, mask: None })
    }

    /// Empty, if nothing was taken: every file of a group may be unreadable.
    fn batch_of(&mut self, taken: &[Loaded], normalization: &Normalization) -> Batch {
        let Some(first) = taken.first() else { return Batch::default() };
        let (height, width, mask_size) = first.sizes();
        let shape = [taken.len(), self.dataset.channels(), height, width];
        let mut pixels = Buffer::zeros(shape.iter().product());
        let places = pixels.par_chunks_exact_mut(pixels_per_image(shape)).zip(taken);
        places.for_each(|(out, loaded)| normalize_into(&loaded.image, normalization, out));
        let masks: Option<Vec<&[u8]>> =
            taken.iter().map(|loaded| loaded.mask.as_ref().map(|mask| mask.labels.as_slice())).collect();
        let labels: Option<Vec<u32>> = taken.iter().map(|loaded| self.dataset.label(loaded.file)).collect();
        let step = self.step;
        self.step += 1;
        Batch {
            pixels,
            shape,
            step,
            masks: masks.map(|masks| masks.concat()),
            mask_size,
            labels,
            names: taken.iter().map(|loaded| self.dataset.name(loaded.file)).collect(),
            ..Batch::default()
        }
    }
}
