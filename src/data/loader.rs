//! Training batches. Each is a pure function of (dataset, config, step, micro-batch), whatever was asked for before.
//!
//! An epoch is ⌊files / batch⌋ steps through a permutation with the key (seed, order, epoch); the rest is dropped. Crop and flip
//! of an image have the key (seed, augment, step, micro-batch, position). An unreadable file is replaced by one drawn with the
//! key (seed, order, step, micro-batch, position and attempt), no matter what is already known to be unreadable.
//!
//! A thread prepares the following micro-batches on a pool of workers while the caller computes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::augment::{Crop, Transform};
use super::dataset::Dataset;
use super::error::DataError;
use super::normalization::Normalization;
use super::prefetch::{Prefetch, pool};
use super::segment::Segmentation;
use super::skips::Skip;
use crate::libtorch::buffer::Buffer;
use crate::random::{Key, Rng, Stream};

/// So many files are tried for one place in a batch.
const ATTEMPTS: u64 = 64;

/// How a dataset becomes batches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Images per step (the effective batch size).
    pub batch: usize,
    /// How many micro-batches a step is computed in; divides `batch`.
    pub micro_batches: usize,
    /// Height and width.
    pub image_size: (usize, usize),
    pub crop: Crop,
    pub flip: bool,
    pub seed: u64,
    /// Threads that read and augment.
    pub workers: usize,
}

/// Normalized images with the address of their randomness.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[N, C, H, W]`, row-major.
    pub pixels: Buffer,
    /// `[N, C, H, W]`.
    pub shape: [usize; 4],
    /// With `step` and `micro`, the key for masks and whatever else is drawn per batch.
    pub seed: u64,
    pub step: u64,
    pub micro: u64,
    /// `[N, H, W]`: labels, 255 for none; of pairs alone.
    pub masks: Option<Vec<u8>>,
    /// Height and width of the masks. In evaluation these are the annotations' own, whatever the images' are.
    pub mask_size: (usize, usize),
    /// `[N]`: classes of whole images.
    pub labels: Option<Vec<u32>>,
    /// Names of the files, in batches that are not for training.
    pub names: Vec<String>,
}

/// As many workers as the machine has processors.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Batches by position. Asking in order is fast; any other position starts the preparation anew from there.
pub struct Loader {
    plan: Arc<Plan>,
    pool: Arc<rayon::ThreadPool>,
    running: Mutex<Option<Running>>,
}

/// The thread at work and what it will deliver next.
struct Running {
    next: Position,
    ahead: Prefetch<Prepared>,
    /// How many batches in a row had to be waited for.
    waits: u32,
}

/// So many batches in a row that had to be waited for: the loader is what takes the time, and images are kept from then on. While
/// steps take it, keeping them would buy nothing.
const WAITS: u32 = 4;

impl Loader {
    /// Errors: fewer files than a batch, a batch that does not divide, an empty image size, or unreadable statistics.
    pub fn new(dataset: Dataset, config: LoaderConfig) -> Result<Self, DataError> {
        Self::with(dataset, config, None)
    }

    /// Batches of images with masks; `config.crop` says nothing here.
    ///
    /// Errors: as [`new`](Self::new), a dataset without masks, or lengths outside 1 to 8192.
    pub fn pairs(dataset: Dataset, config: LoaderConfig, pairs: Segmentation) -> Result<Self, DataError> {
        let (shortest, longest) = pairs.long_edge;
        if !dataset.has_masks() {
            return Err(DataError::NoMasks);
        }
        if !(1..=longest).contains(&shortest) || longest > MAX_SIDE {
            let got = format!("[{shortest}, {longest}]");
            return Err(DataError::range("long_edge", format!("two lengths in order, 1 to {MAX_SIDE} pixels"), got));
        }
        check_eval_edge(pairs.eval_edge)?;
        Self::with(dataset, config, Some(pairs))
    }

    fn with(dataset: Dataset, config: LoaderConfig, pairs: Option<Segmentation>) -> Result<Self, DataError> {
        let LoaderConfig { batch, micro_batches, image_size: (height, width), .. } = config;
        if batch == 0 {
            return Err(DataError::range("batch", "at least 1", batch));
        }
        if dataset.len() < batch {
            return Err(DataError::FewerThanBatch { files: dataset.len(), batch });
        }
        if micro_batches == 0 || batch % micro_batches != 0 {
            return Err(DataError::MicroBatches { batch, micro_batches });
        }
        check_image_size(height, width)?;
        let pool = Arc::new(pool(config.workers)?);
        let normalization = pool.install(|| dataset.normalization())?;
        let plan = Arc::new(Plan { dataset, config, pairs, normalization, order: Mutex::new(None) });
        Ok(Self { plan, pool, running: Mutex::new(None) })
    }

    pub fn config(&self) -> &LoaderConfig {
        &self.plan.config
    }

    /// What pairs are made of; `None` where images come alone.
    pub fn segmentation(&self) -> Option<&Segmentation> {
        self.plan.pairs.as_ref()
    }

    pub fn dataset(&self) -> &Dataset {
        &self.plan.dataset
    }

    pub fn normalization(&self) -> &Normalization {
        &self.plan.normalization
    }

    pub fn steps_per_epoch(&self) -> u64 {
        self.plan.steps_per_epoch()
    }

    /// The epoch, from 0, that a step belongs to.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch()
    }

    /// One micro-batch of a step. Files found unreadable are listed in the dataset when the batch is handed over, so the list
    /// does not depend on how far the preparation is ahead.
    ///
    /// Errors: too many unreadable files, a failed worker, or no such micro-batch.
    pub fn micro(&self, step: u64, micro: u64) -> Result<Batch, DataError> {
        let micro_batches = self.plan.config.micro_batches as u64;
        if micro >= micro_batches {
            return Err(DataError::range("micro-batch", format!("0 to {}", micro_batches - 1), micro));
        }
        let position = Position { step, micro };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let current = match running.take() {
            Some(current) if current.next == position => current,
            other => {
                drop(other); // Ends its thread before another starts.
                self.start(position)?
            }
        };
        let ended = || (Err(DataError::Worker("it ended early".into())), true);
        let (prepared, waited) = current.ahead.next_or_wait().unwrap_or_else(ended);
        let (prepared, waits) = (prepared?, if waited { current.waits + 1 } else { 0 });
        if waits >= WAITS {
            self.plan.dataset.keep_images();
        }
        *running = Some(Running { next: position.following(micro_batches), waits, ..current });
        drop(running);
        self.plan.dataset.note_skipped(prepared.skips)?;
        prepared.batch
    }

    fn start(&self, from: Position) -> Result<Running, DataError> {
        let (plan, pool) = (self.plan.clone(), self.pool.clone());
        let mut position = from;
        let ahead = Prefetch::start("data loader", move |stop| {
            let prepared = pool.install(|| plan.prepare(position, stop))?;
            position = position.following(plan.config.micro_batches as u64);
            Some(Ok(prepared))
        })?;
        Ok(Running { next: from, ahead, waits: 0 })
    }
}

/// The longest side of what images become.
const MAX_SIDE: usize = 8192;

pub(super) fn check_eval_edge(edge: usize) -> Result<(), DataError> {
    if edge > MAX_SIDE {
        return Err(DataError::range("eval_edge", format!("0 to {MAX_SIDE} pixels"), edge));
    }
    Ok(())
}

pub(super) fn check_image_size(height: usize, width: usize) -> Result<(), DataError> {
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(DataError::range(
            "image size",
            format!("1 to {MAX_SIDE} pixels on a side"),
            format!("{height}×{width}"),
        ));
    }
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    step: u64,
    micro: u64,
}

impl Position {
    fn following(self, micro_batches: u64) -> Self {
        if self.micro + 1 < micro_batches {
            Self { micro: self.micro + 1, ..self }
        } else {
            Self { step: self.step.wrapping_add(1), micro: 0 }
        }
    }
}

/// A micro-batch and the files that had to be replaced in it.
struct Prepared {
    batch: Result<Batch, DataError>,
    skips: Vec<Skip>,
}

/// Everything a batch is a function of.
struct Plan {
    dataset: Dataset,
    config: LoaderConfig,
    /// With masks, if there is something.
    pairs: Option<Segmentation>,
    normalization: Normalization,
    /// The last epoch's permutation, because the next batch needs it again.
    order: Mutex<Option<(u64, Arc<[u32]>)>>,
}

impl Plan {
    fn steps_per_epoch(&self) -> u64 {
        (self.dataset.len() / self.config.batch) as u64
    }

    /// `None` once `stop` is set.
    fn prepare(&self, position: Position, stop: &AtomicBool) -> Option<Prepared> {
        let Position { step, micro } = position;
        let (height, width) = self.config.image_size;
        let count = self.config.batch / self.config.micro_batches;
        let shape = [count, self.dataset.channels(), height, width];
        let order = self.order(step / self.steps_per_epoch());
        let first = (step % self.steps_per_epoch()) as usize * self.config.batch + micro as usize * count;

        let mut pixels = Buffer::zeros(shape.iter().product());
        // Without masks there is an empty piece of them for every image.
        let mask_pixels = if self.pairs.is_some() { height * width } else { 0 };
        let mut masks = vec![0; count * mask_pixels];
        let mut mask_of: Vec<&mut [u8]> = masks.chunks_exact_mut(mask_pixels.max(1)).collect();
        mask_of.resize_with(count, Default::default);
        let places: Option<Vec<Place>> = pixels
            .par_chunks_exact_mut(pixels_per_image(shape))
            .zip(mask_of)
            .zip(&order[first..first + count])
            .enumerate()
            .map(|(index, (out, &file))| {
                (!stop.load(Ordering::Relaxed)).then(|| self.fill(position, index as u64, file as usize, out))
            })
            .collect();

        let (mut skips, mut error, mut labels) = (Vec::new(), None, Some(Vec::new()));
        for place in places? {
            skips.extend(place.skips);
            error = error.or(place.error);
            labels = labels.zip(self.dataset.label(place.file)).map(|(mut labels, label)| {
                labels.push(label);
                labels
            });
        }
        let batch = Batch {
            pixels,
            shape,
            seed: self.config.seed,
            step,
            micro,
            masks: self.pairs.is_some().then_some(masks),
            mask_size: (height, width),
            labels,
            names: Vec::new(),
        };
        Some(Prepared { batch: error.map_or(Ok(batch), Err), skips })
    }

    /// Fills one place of a batch from `file`, or from a replacement.
    fn fill(
        &self,
        Position { step, micro }: Position,
        index: u64,
        file: usize,
        (out, mask): (&mut [f32], &mut [u8]),
    ) -> Place {
        let key = |stream| Key::new(self.config.seed, stream).step(step).micro(micro).index(index);
        let mut skips = Vec::new();
        let mut file = file;
        for attempt in 1..=ATTEMPTS {
            match self.load_into(file, &mut key(Stream::Augment).rng(), (out, mask)) {
                Ok(()) => return Place { file, skips, error: None },
                Err(reason) => skips.push(Skip { index: file, reason }),
            }
            // Attempts start at 1, which keeps these keys apart from that of an epoch's order.
            let replacement = key(Stream::Order).index(index | attempt << 32);
            file = replacement.rng().below(self.dataset.len() as u64) as usize;
        }
        let error = skips.last().map(|skip| DataError::NoReadable {
            attempts: skips.len(),
            name: self.dataset.name(skip.index),
            reason: skip.reason.clone(),
        });
        Place { file, skips, error }
    }

    /// Loads and augments one file.
    fn load_into(&self, file: usize, rng: &mut Rng, (out, mask): (&mut [f32], &mut [u8])) -> Result<(), String> {
        let LoaderConfig { image_size: size, crop, flip, .. } = self.config;
        let Some(pairs) = &self.pairs else {
            let part = self.dataset.train_part(file, &Transform { size, crop, flip }, rng)?;
            part.write(&self.normalization, out);
            return Ok(());
        };
        let (image, labels) = self.dataset.load_pair(file)?;
        if labels.is_all_ignored() {
            return Err("every pixel of the mask is ignored: there is nothing to learn from it".into());
        }
        pairs.train_into((&image, &labels), (size, flip), rng, &self.normalization, (out, mask));
        Ok(())
    }

    fn order(&self, epoch: u64) -> Arc<[u32]> {
        let mut kept = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, order)) = &*kept
            && *of == epoch
        {
            return order.clone();
        }
        let mut order: Vec<u32> = (0..self.dataset.len() as u32).collect();
        Key::new(self.config.seed, Stream::Order).step(epoch).rng().shuffle(&mut order);
        let order: Arc<[u32]> = order.into();
        *kept = Some((epoch, order.clone()));
        order
    }
}

/// What happened at one place of a batch.
struct Place {
    /// The file that is there, in the view.
    file: usize,
    skips: Vec<Skip>,
    error: Option<DataError>,
}

pub(super) fn pixels_per_image([_, channels, height, width]: [usize; 4]) -> usize {
    channels * height * width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::Shades;

    fn config(batch: usize, micro_batches: usize, workers: usize) -> LoaderConfig {
        LoaderConfig { batch, micro_batches, image_size: (6, 8), crop: Crop::Random, flip: true, seed: 9, workers }
    }

    fn shades(count: usize, cache: u64, bad: impl Fn(usize) -> bool + Send + Sync + 'static) -> Dataset {
        Dataset::from_source(Box::new(Shades { count, size: 10, bad }), cache).unwrap()
    }

    /// The files in a batch of shades: image `i` has the value `i` everywhere.
    fn files_in(batch: &Batch) -> Vec<usize> {
        let Normalization { mean, std } = Normalization::imagenet();
        let first = batch.pixels.iter().step_by(pixels_per_image(batch.shape));
        first.map(|x| ((x * std[0] + mean[0]) * 255.0).round() as usize).collect()
    }

    #[test]
    fn batches_depend_on_their_position_alone() {
        let bad = |i| i % 10 == 3;
        let reference = Loader::new(shades(50, 0, bad), config(12, 3, 1)).unwrap();
        let positions: Vec<(u64, u64)> = (0..6).flat_map(|step| (0..3).map(move |micro| (step, micro))).collect();
        let expected: Vec<Batch> = positions.iter().map(|&(s, m)| reference.micro(s, m).unwrap()).collect();
        assert_eq!(expected[0].shape, [4, 3, 6, 8]);
        let other = Loader::new(shades(50, 1 << 20, bad), config(12, 3, 3)).unwrap();
        for &i in &[17, 0, 1, 2, 3, 9, 10, 4, 4, 16] {
            let (step, micro) = positions[i];
            assert_eq!(other.micro(step, micro).unwrap(), expected[i]);
        }
    }

    #[test]
    fn an_epoch_visits_every_file_once() {
        let loader = Loader::new(shades(50, 0, |_| false), config(12, 2, 2)).unwrap();
        assert_eq!((loader.steps_per_epoch(), loader.epoch_of(3), loader.epoch_of(4)), (4, 0, 1));
        let epoch = |steps: std::ops::Range<u64>| -> Vec<usize> {
            let batches = steps.flat_map(|step| [(step, 0), (step, 1)]);
            batches.flat_map(|(step, micro)| files_in(&loader.micro(step, micro).unwrap())).collect()
        };
        let (first, second) = (epoch(0..4), epoch(4..8));
        assert_ne!(first, second);
        for mut files in [first, second] {
            assert_eq!(files.len(), 48);
            files.sort_unstable();
            files.dedup();
            assert_eq!(files.len(), 48);
        }
    }

    #[test]
    fn unreadable_files_are_replaced_and_listed_when_handed_over() {
        let dataset = shades(60, 1 << 20, |i| i < 6);
        let loader = Loader::new(dataset.clone(), config(20, 1, 2)).unwrap();
        let mut seen = 0;
        for step in 0..3 {
            let batch = loader.micro(step, 0).unwrap();
            assert!(files_in(&batch).iter().all(|&file| file >= 6));
            assert!(dataset.skipped().len() >= seen);
            seen = dataset.skipped().len();
        }
        let names: Vec<String> = dataset.skipped().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["00000", "00001", "00002", "00003", "00004", "00005"]);
        let alone = Loader::new(shades(60, 0, |i| i < 6), config(20, 1, 1)).unwrap();
        assert_eq!(alone.micro(2, 0).unwrap(), loader.micro(2, 0).unwrap());
    }

    #[test]
    fn too_many_unreadable_files_end_it() {
        let loader = Loader::new(shades(100, 0, |i| i < 21), config(100, 1, 2)).unwrap();
        let error = loader.micro(0, 0).unwrap_err();
        assert!(matches!(error, DataError::TooManyUnreadable { skipped: 21, files: 100, .. }), "{error}");
        let none = Loader::new(shades(10, 0, |_| true), config(2, 1, 2)).unwrap();
        assert!(matches!(none.micro(0, 0), Err(DataError::NoReadable { attempts: 64, .. })));
    }

    #[test]
    fn a_panic_is_an_error_and_no_hang() {
        let loader = Loader::new(shades(10, 0, |i| i == 5 && panic!("on purpose")), config(10, 2, 2)).unwrap();
        let results: Vec<_> = (0..2).map(|micro| loader.micro(0, micro)).collect();
        let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert!(matches!(failed[..], [DataError::Worker(text)] if text == "on purpose"), "{failed:?}");
    }

    #[test]
    fn dropping_ends_the_threads() {
        let dataset = shades(1000, 0, |_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            false
        });
        let loader = Loader::new(dataset.clone(), config(200, 100, 2)).unwrap();
        loader.micro(0, 0).unwrap();
        let start = std::time::Instant::now();
        drop(loader);
        assert!(start.elapsed().as_millis() < 500);
        let big = Loader::new(dataset, config(1000, 1, 2)).unwrap(); // Seconds of work, given up in its middle.
        let start = std::time::Instant::now();
        drop(big.start(Position { step: 0, micro: 0 }).unwrap());
        assert!(start.elapsed().as_millis() < 1000);
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let error = |batch, micro_batches| Loader::new(shades(8, 0, |_| false), config(batch, micro_batches, 1)).err();
        assert!(matches!(error(9, 1), Some(DataError::FewerThanBatch { files: 8, batch: 9 })));
        assert!(matches!(error(8, 3), Some(DataError::MicroBatches { .. })));
        assert!(matches!(error(0, 1), Some(DataError::Range { .. })));
        let loader = Loader::new(shades(8, 0, |_| false), config(4, 2, 1)).unwrap();
        assert!(matches!(loader.micro(0, 2), Err(DataError::Range { .. })));
    }

    #[test]
    fn images_are_kept_once_batches_are_waited_for() {
        let slow = |_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            false
        };
        let dataset = shades(12, 1 << 20, slow);
        dataset.stores().cache.set_open(false);
        let held = |dataset: &Dataset| (0..12).filter(|&file| dataset.stores().cache.get(file).is_some()).count();
        let loader = Loader::new(dataset.clone(), config(4, 1, 1)).unwrap();
        for step in 0..u64::from(WAITS) - 1 {
            loader.micro(step, 0).unwrap();
        }
        assert_eq!(held(&dataset), 0);
        for step in u64::from(WAITS) - 1..12 {
            loader.micro(step, 0).unwrap();
        }
        assert_eq!(held(&dataset), 12);
    }
}
