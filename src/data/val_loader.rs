//! Validation batches: every readable file once, in file order, the same at every pass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::augment::{Crop, Transform};
use super::dataset::Dataset;
use super::error::DataError;
use super::loader::{Batch, check_eval_edge, check_image_size, pixels_per_image};
use super::normalization::Normalization;
use super::pass::PairPass;
use super::picture::Part;
use super::prefetch::{Prefetch, pool};
use super::segment::Segmentation;
use super::skips::Skip;
use crate::libtorch::buffer::Buffer;

/// Cropped and resized images are kept if all of them together take no more than this: 512 MiB.
const KEEP_BYTES: usize = 512 << 20;

/// Batches for validation; `iter` may be called any number of times.
///
/// The last batch is partial, and unreadable files are left out of theirs. The key of a batch is constant (seed 0, its number
/// as step), so masks are the same at every validation.
pub struct ValLoader {
    plan: Arc<Plan>,
    pool: Arc<rayon::ThreadPool>,
}

impl ValLoader {
    /// `image_size` is height and width; `crop` decides as in [`Transform::eval`].
    ///
    /// Normalizes as the dataset says, which for the second part of a split means by its training files.
    pub fn new(
        dataset: Dataset,
        batch: usize,
        image_size: (usize, usize),
        crop: Crop,
        workers: usize,
    ) -> Result<Self, DataError> {
        if batch == 0 {
            return Err(DataError::range("batch", "at least 1", batch));
        }
        let (height, width) = image_size;
        check_image_size(height, width)?;
        let pool = Arc::new(pool(workers)?);
        let normalization = pool.install(|| dataset.normalization())?;
        let bytes = dataset.len().saturating_mul(height * width * dataset.channels());
        let kept = if bytes <= KEEP_BYTES { dataset.len() } else { 0 };
        let kept = (0..kept).map(|_| OnceLock::new()).collect();
        let transform = Transform { size: image_size, crop, flip: false };
        Ok(Self { plan: Arc::new(Plan { dataset, batch, transform, normalization, kept, whole: None }), pool })
    }

    /// Whole images for evaluation, never cropped or distorted, with their masks at their own size if there are any. Images of
    /// equal sizes that follow each other share a batch.
    pub fn whole(dataset: Dataset, batch: usize, pairs: Segmentation, workers: usize) -> Result<Self, DataError> {
        if batch == 0 {
            return Err(DataError::range("batch", "at least 1", batch));
        }
        check_eval_edge(pairs.eval_edge)?;
        let pool = Arc::new(pool(workers)?);
        let normalization = pool.install(|| dataset.normalization())?;
        let transform = Transform { size: (0, 0), crop: Crop::None, flip: false };
        let plan = Plan { dataset, batch, transform, normalization, kept: Vec::new(), whole: Some(pairs) };
        Ok(Self { plan: Arc::new(plan), pool })
    }

    /// How many batches there are, if every file is readable and, for whole images, all are of one size.
    pub fn len(&self) -> usize {
        self.plan.dataset.len().div_ceil(self.plan.batch)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn dataset(&self) -> &Dataset {
        &self.plan.dataset
    }

    pub fn normalization(&self) -> &Normalization {
        &self.plan.normalization
    }

    /// One pass, prepared ahead by a thread that ends with the iterator. A batch without any readable file is left out; after
    /// an error nothing follows.
    pub fn iter(&self) -> ValBatches {
        let (plan, pool) = (self.plan.clone(), self.pool.clone());
        let mut steps = 0..self.len();
        let mut pass = plan.whole.as_ref().map(|pairs| PairPass::new(&plan.dataset, pairs, plan.batch));
        let ahead = Prefetch::start("validation loader", move |stop| {
            if let Some(pass) = &mut pass {
                return pool.install(|| pass.next(&plan.normalization, stop)).map(Ok);
            }
            let step = steps.next()?;
            pool.install(|| plan.prepare(step, stop)).map(Ok)
        });
        ValBatches { dataset: self.plan.dataset.clone(), state: Some(ahead) }
    }
}

impl IntoIterator for &ValLoader {
    type Item = Result<Batch, DataError>;
    type IntoIter = ValBatches;

    fn into_iter(self) -> ValBatches {
        self.iter()
    }
}

/// One pass over the validation files.
pub struct ValBatches {
    dataset: Dataset,
    /// `None` after an error.
    state: Option<Result<Prefetch<Prepared>, DataError>>,
}

impl ValBatches {
    /// The next batch with an image in it.
    fn advance(&self, ahead: &Prefetch<Prepared>) -> Option<Result<Batch, DataError>> {
        loop {
            let prepared = match ahead.next()? {
                Ok(prepared) => prepared,
                Err(error) => return Some(Err(error)),
            };
            if let Err(error) = self.dataset.note_skipped(prepared.skips) {
                return Some(Err(error));
            }
            if prepared.batch.shape[0] > 0 {
                return Some(Ok(prepared.batch));
            }
        }
    }
}

impl Iterator for ValBatches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let ahead = match self.state.take()? {
            Ok(ahead) => ahead,
            Err(error) => return Some(Err(error)),
        };
        let item = self.advance(&ahead);
        if matches!(item, Some(Ok(_))) {
            self.state = Some(Ok(ahead));
        }
        item
    }
}

/// A batch, perhaps without any image, and the files that were left out of it.
pub(super) struct Prepared {
    pub batch: Batch,
    pub skips: Vec<Skip>,
}

struct Plan {
    dataset: Dataset,
    batch: usize,
    transform: Transform,
    normalization: Normalization,
    /// One slot per file if all fit, else none. Bytes are kept rather than numbers: a quarter of the memory.
    kept: Vec<OnceLock<Result<Part, String>>>,
    /// Images are taken whole, by [`PairPass`].
    whole: Option<Segmentation>,
}

impl Plan {
    /// `None` once `stop` is set.
    fn prepare(&self, step: usize, stop: &AtomicBool) -> Option<Prepared> {
        let files = step * self.batch..((step + 1) * self.batch).min(self.dataset.len());
        let (height, width) = self.transform.size;
        let mut shape = [files.len(), self.dataset.channels(), height, width];
        let per_image = pixels_per_image(shape);
        let mut pixels = Buffer::zeros(shape.iter().product());
        let filled: Option<Vec<Result<(), Skip>>> = pixels
            .par_chunks_exact_mut(per_image)
            .zip(files)
            .map(|(out, index)| (!stop.load(Ordering::Relaxed)).then(|| self.fill(index, out)))
            .collect();

        let (mut skips, mut count, mut names, mut labels) = (Vec::new(), 0, Vec::new(), Vec::new());
        for (place, result) in filled?.into_iter().enumerate() {
            match result {
                Ok(()) => {
                    let file = step * self.batch + place;
                    names.push(self.dataset.name(file));
                    labels.extend(self.dataset.label(file));
                    pixels.copy_within(place * per_image..(place + 1) * per_image, count * per_image);
                    count += 1;
                }
                Err(skip) => skips.push(skip),
            }
        }
        pixels.truncate(count * per_image);
        shape[0] = count;
        let labels = (labels.len() == count).then_some(labels);
        Some(Prepared { batch: Batch { pixels, shape, step: step as u64, labels, names, ..Batch::default() }, skips })
    }

    fn fill(&self, index: usize, out: &mut [f32]) -> Result<(), Skip> {
        let failed = |reason: String| Skip { index, reason };
        match self.kept.get(index) {
            Some(slot) => {
                // Past the dataset's cache: keeping an image twice gains nothing.
                let made = slot.get_or_init(|| self.dataset.eval_part(index, &self.transform, false));
                made.as_ref().map_err(|reason| failed(reason.clone()))?.write(&self.normalization, out);
            }
            None => {
                let part = self.dataset.eval_part(index, &self.transform, true).map_err(failed)?;
                part.write(&self.normalization, out);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Shades;

    fn loader(count: usize, bad: impl Fn(usize) -> bool + Send + Sync + 'static, workers: usize) -> ValLoader {
        let dataset = Dataset::from_source(Box::new(Shades { count, size: 10, bad }), 0).unwrap();
        ValLoader::new(dataset, 4, (8, 8), Crop::Random, workers).unwrap()
    }

    fn batches(loader: &ValLoader) -> Vec<Batch> {
        loader.iter().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn every_file_once_in_order_at_every_pass() {
        let loader = loader(10, |_| false, 2);
        let first = batches(&loader);
        let shapes: Vec<usize> = first.iter().map(|batch| batch.shape[0]).collect();
        assert_eq!((shapes, loader.len()), (vec![4, 4, 2], 3));
        assert_eq!(first[2].pixels.len(), 2 * 3 * 64);
        assert_eq!((first[2].seed, first[2].step, first[2].micro), (0, 2, 0));
        assert!(first[0].pixels[0] < first[0].pixels[3 * 64] && first[1].pixels[0] < first[2].pixels[0]);
        assert_eq!(batches(&loader), first);
        assert_eq!(batches(&self::loader(10, |_| false, 1)), first);
    }

    #[test]
    fn unreadable_files_are_left_out() {
        let loader = loader(12, |i| i == 1 || (4..8).contains(&i), 2);
        for _ in 0..2 {
            let steps: Vec<_> = batches(&loader).iter().map(|batch| (batch.step, batch.shape[0])).collect();
            assert_eq!(steps, [(0, 3), (2, 4)]);
            assert_eq!(loader.dataset().skipped().len(), 5);
        }
        let broken = self::loader(40, |i| i > 2, 2);
        let results: Vec<_> = broken.iter().collect();
        assert!(matches!(results.last(), Some(Err(DataError::TooManyUnreadable { .. }))));
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    }

    #[test]
    fn a_pass_can_be_left_early() {
        let loader = loader(400, |_| false, 2);
        for _ in 0..20 {
            assert!(loader.iter().next().unwrap().is_ok());
        }
    }

    #[test]
    fn nothing_depends_on_what_is_kept() {
        let dataset = Dataset::from_source(Box::new(Shades { count: 5, size: 30, bad: |i| i == 2 }), 1 << 20).unwrap();
        let kept = ValLoader::new(dataset.clone(), 2, (8, 8), Crop::Center, 2).unwrap();
        let mut plan = Arc::into_inner(ValLoader::new(dataset, 2, (8, 8), Crop::Center, 2).unwrap().plan).unwrap();
        plan.kept.clear();
        let fresh = ValLoader { plan: Arc::new(plan), pool: Arc::new(pool(2).unwrap()) };
        assert_eq!(batches(&fresh), batches(&kept));
    }
}
