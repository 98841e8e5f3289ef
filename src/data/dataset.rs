//! A dataset: a view of a [`Source`]'s files, cheap to clone, to subset and to split.
//!
//! Every file has a rank drawn from the key (seed, split, name); a subset takes the files of lowest rank and a split validates
//! on those of lowest rank of another draw. So a smaller subset lies within a larger one of the same seed, a file's fate does
//! not depend on how many others there are, and the order of two operations draws nothing anew.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::cache::Cache;
use super::classes::ClassTable;
use super::error::DataError;
use super::fetch::Stores;
use super::image::Image;
use super::mask::Mask;
use super::normalization::{Normalization, SAMPLE};
use super::picture::Picture;
use super::skips::{Skip, SkipLog};
use super::source::Source;
use super::spec::Spec;
use crate::random::{Key, Stream, hash_name};

/// How many bytes of decoded images a dataset keeps, unless told otherwise: 1 GiB.
pub const DEFAULT_CACHE_BYTES: u64 = 1 << 30;

/// The files of a source, or some of them. Clones and views share the source, its cache and its list of skipped files.
#[derive(Clone)]
pub struct Dataset {
    shared: Arc<Shared>,
    /// Indices into the source, ascending.
    files: Arc<[u32]>,
    /// The validation files, where the source prescribes them.
    val: Option<Arc<[u32]>>,
    /// The training files' statistics, measured when first asked for; a validation view has its training view's.
    statistics: Arc<Statistics>,
}

struct Shared {
    source: Box<dyn Source>,
    cache: Arc<Cache<Picture>>,
    /// Within the limit of `cache`.
    masks: Arc<Cache<Mask>>,
    skips: SkipLog,
    /// Which files [`Baseline`](super::decode::Baseline) has read to their end.
    sound: Box<[AtomicBool]>,
}

struct Statistics {
    files: Arc<[u32]>,
    measured: OnceLock<Normalization>,
}

impl Statistics {
    fn of(files: &Arc<[u32]>) -> Arc<Self> {
        Arc::new(Self { files: files.clone(), measured: OnceLock::new() })
    }
}

impl Dataset {
    /// Opens with a cache of [`DEFAULT_CACHE_BYTES`]: for images that are made from the start, for files once a
    /// [`Loader`](super::Loader) is waited for.
    pub fn open(spec: &Spec) -> Result<Self, DataError> {
        let dataset = Self::open_with_cache(spec, DEFAULT_CACHE_BYTES)?;
        let source = &dataset.shared.source;
        let is_made = source.paths(0).is_empty() && source.archive(0).is_none();
        dataset.shared.cache.set_open(is_made);
        Ok(dataset)
    }

    /// Keeps images in memory from now on, within the limit.
    pub fn keep_images(&self) {
        self.shared.cache.set_open(true);
    }

    /// Opens; at most `cache_bytes` of decoded images are kept in memory. No result depends on them.
    pub fn open_with_cache(spec: &Spec, cache_bytes: u64) -> Result<Self, DataError> {
        Self::from_source(spec.open()?, cache_bytes)
    }

    /// Any source. With a prescribed layout, the dataset is its training part, and [`split`](Self::split) gives the other.
    pub fn from_source(source: Box<dyn Source>, cache_bytes: u64) -> Result<Self, DataError> {
        if source.is_empty() || source.len() > u32::MAX as usize {
            return Err(DataError::range("number of images", "1 to 4294967295", source.len()));
        }
        let (files, val): (Arc<[u32]>, _) = match source.layout() {
            Some((train, val)) => (train.as_slice().into(), Some(Arc::from(val.as_slice()))),
            None => ((0..source.len() as u32).collect(), None),
        };
        let cache = Cache::new(source.len(), cache_bytes);
        let masks = Cache::beside(if source.has_masks() { source.len() } else { 0 }, &cache);
        let sound = (0..source.len()).map(|_| AtomicBool::new(false)).collect();
        let (cache, masks) = (Arc::new(cache), Arc::new(masks));
        let shared = Shared { cache, masks, skips: SkipLog::default(), sound, source };
        Ok(Self { shared: Arc::new(shared), statistics: Statistics::of(&files), files, val })
    }

    /// Tells whether the files of two datasets that were opened alike are the same: by names, sizes and times.
    pub fn stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let source = &self.shared.source;
        let state = |path: PathBuf, hasher: &mut DefaultHasher| {
            let data = std::fs::metadata(path).ok();
            data.map(|data| (data.len(), data.modified().ok())).hash(hasher);
        };
        for index in 0..source.len() {
            source.name(index).hash(&mut hasher);
            source.paths(index).into_iter().for_each(|path| state(path, &mut hasher));
        }
        source.archives().into_iter().for_each(|path| state(path, &mut hasher));
        hasher.finish()
    }

    /// The same with the images that `earlier`, a dataset of the same [`stamp`](Self::stamp), has in memory.
    pub fn warmed_by(self, earlier: &Self) -> Self {
        let Ok(own) = Arc::try_unwrap(self.shared) else { return earlier.clone() };
        let (cache, masks) = (Arc::clone(&earlier.shared.cache), Arc::clone(&earlier.shared.masks));
        Self { shared: Arc::new(Shared { cache, masks, ..own }), ..self }
    }

    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Never: a view without files is an error where it would be made.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub fn channels(&self) -> usize {
        self.shared.source.channels()
    }

    /// The name of the `index`-th file of this view.
    pub fn name(&self, index: usize) -> String {
        self.name_of(self.files[index])
    }

    /// All names, in the source's order, which is also the order of this view's indices.
    pub fn files(&self) -> Vec<String> {
        self.files.iter().map(|&file| self.name_of(file)).collect()
    }

    /// The `index`-th image of this view, through the cache; the error is the reason why it cannot be read.
    pub fn load(&self, index: usize) -> Result<Arc<Image>, String> {
        self.load_file(self.files[index]).map_err(|reason| reason.to_string())
    }

    /// The classes of masks or labels; `None` if images are all there is.
    pub fn classes(&self) -> Option<&ClassTable> {
        self.shared.source.classes()
    }

    /// The archives that images are read from; none where images are files of their own.
    pub fn archives(&self) -> Vec<PathBuf> {
        self.shared.source.archives()
    }

    pub fn has_masks(&self) -> bool {
        self.shared.source.has_masks()
    }

    /// The class of the `index`-th image as a whole.
    pub fn label(&self, index: usize) -> Option<u32> {
        self.shared.source.label(self.files[index] as usize)
    }

    /// The `index`-th image of this view with its mask, through the cache; the error is the reason why one of them cannot be
    /// read, or why they do not belong together.
    pub fn load_pair(&self, index: usize) -> Result<(Arc<Image>, Arc<Mask>), String> {
        let Shared { source, cache, masks, .. } = &*self.shared;
        let index = self.files[index] as usize;
        let image = cache.get(index).and_then(|picture| match &*picture.ok()? {
            Picture::Pixels(image) => Some(image.clone()),
            Picture::Planes(_) => None,
        });
        match (image, masks.get(index)) {
            (_, Some(Err(reason))) => Err(reason.to_string()),
            (Some(image), Some(Ok(mask))) => Ok((image, mask)),
            _ => {
                let (image, mask) = source.load_pair(index).inspect_err(|reason| {
                    // The image alone may still be readable.
                    let _ = masks.keep(index, Err(reason.clone()));
                })?;
                let image = Arc::new(image);
                cache.keep(index, Ok(Picture::Pixels(image.clone()))).map_err(|reason| reason.to_string())?;
                Ok((image, masks.keep(index, Ok(mask)).map_err(|reason| reason.to_string())?))
            }
        }
    }

    /// A random `⌊f · len⌋` of the files, `0 < f ≤ 1`. (A millionth is added before flooring: 0.29 · 100 is 29.)
    pub fn subset_fraction(&self, f: f64, seed: u64) -> Result<Self, DataError> {
        if !(f > 0.0 && f <= 1.0) {
            return Err(DataError::range("subset", "a fraction above 0, at most 1", f));
        }
        let count = (self.len() as f64 * f + 1e-6) as usize;
        if count == 0 {
            return Err(DataError::range("subset", format!("at least 1/{} to keep one image", self.len()), f));
        }
        self.subset_count(count, seed)
    }

    /// A random `n` of the files.
    pub fn subset_count(&self, n: usize, seed: u64) -> Result<Self, DataError> {
        if n == 0 || n > self.len() {
            return Err(DataError::range("subset", format!("1 to {} images", self.len()), n));
        }
        let (files, _) = self.lowest_ranked(n, Key::new(seed, Stream::Split).micro(SUBSET));
        Ok(Self { statistics: self.statistics_for(&files), files, ..self.clone() })
    }

    /// Training and validation files: those that the source prescribes, else a random `⌊fraction · len⌋`, at least 1, for
    /// validation.
    ///
    /// Errors: `fraction` outside 0 to 1, or a single image.
    pub fn split(&self, fraction: f64, seed: u64) -> Result<(Self, Self), DataError> {
        if let Some(val) = &self.val {
            let train = Self { val: None, ..self.clone() };
            return Ok((train.clone(), Self { files: val.clone(), ..train }));
        }
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(DataError::range("split", "a fraction between 0 and 1", fraction));
        }
        if self.len() < 2 {
            return Err(DataError::range("split", "at least 2 images", self.len()));
        }
        let count = ((self.len() as f64 * fraction + 1e-6) as usize).clamp(1, self.len() - 1);
        let (val, train) = self.lowest_ranked(count, Key::new(seed, Stream::Split).micro(SPLIT));
        let train = Self { statistics: self.statistics_for(&train), files: train, ..self.clone() };
        Ok((train.clone(), Self { files: val, ..train }))
    }

    /// What pixels are normalized with: ImageNet's statistics for 3 channels, else those of the training files, measured once
    /// on at most [`SAMPLE`] of them, evenly spaced in file order.
    ///
    /// Errors: [`DataError::NoReadable`] if none of these can be read.
    pub fn normalization(&self) -> Result<Normalization, DataError> {
        if let Some(known) = self.statistics.measured.get() {
            return Ok(known.clone());
        }
        let channels = self.channels();
        if channels == 3 {
            return Ok(Normalization::imagenet());
        }
        let files = &self.statistics.files;
        let count = files.len().min(SAMPLE);
        let image = |i: usize| self.load_file(files[i * files.len() / count]).ok();
        let measured = Normalization::measure((0..count).into_par_iter().map(image), channels).ok_or_else(|| {
            let reason = self.load_file(files[0]).err().map_or_else(String::new, |reason| reason.to_string());
            DataError::NoReadable { attempts: count, name: self.name_of(files[0]), reason }
        })?;
        Ok(self.statistics.measured.get_or_init(|| measured).clone())
    }

    /// The same files under a given normalization, such as the one a run has stored; its subsets and splits keep it.
    pub fn with_normalization(&self, normalization: Normalization) -> Self {
        let statistics = Statistics { files: Arc::from([]), measured: OnceLock::from(normalization) };
        Self { statistics: Arc::new(statistics), ..self.clone() }
    }

    /// Files that were asked for and could not be read, with the reason, by name. All views of one opened dataset share it.
    pub fn skipped(&self) -> Vec<(String, String)> {
        let mut list: Vec<_> =
            self.shared.skips.entries().into_iter().map(|(file, reason)| (self.name_of(file), reason)).collect();
        list.sort();
        list
    }

    /// Puts back what [`skipped`](Self::skipped) said when a run was saved; names that no longer exist are dropped.
    pub fn restore_skipped(&self, list: &[(String, String)]) {
        let reasons: std::collections::HashMap<&str, &str> =
            list.iter().map(|(name, reason)| (name.as_str(), reason.as_str())).collect();
        if !reasons.is_empty() {
            let known = (0..self.shared.source.len() as u32)
                .filter_map(|file| Some((file, (*reasons.get(self.name_of(file).as_str())?).to_owned())));
            self.shared.skips.add(known);
        }
    }

    /// Lists unreadable files.
    ///
    /// Errors: [`DataError::TooManyUnreadable`] if more than 1 % of this view's files and more than 20 are listed by now.
    pub(super) fn note_skipped(&self, skips: Vec<Skip>) -> Result<(), DataError> {
        if skips.is_empty() {
            return Ok(());
        }
        let file_and_reason = |Skip { index, reason }: Skip| {
            let file = self.files[index];
            let archive = self.shared.source.archive(file as usize).and_then(Path::file_name);
            (file, archive.map_or(reason.clone(), |archive| format!("{reason} (in {})", archive.display())))
        };
        self.shared.skips.add(skips.into_iter().map(file_and_reason));
        match self.shared.skips.too_many(&self.files) {
            None => Ok(()),
            Some((skipped, first, reason)) => {
                Err(DataError::TooManyUnreadable { skipped, files: self.len(), name: self.name_of(first), reason })
            }
        }
    }

    /// The file of the `index`-th image of this view.
    pub(super) fn file(&self, index: usize) -> usize {
        self.files[index] as usize
    }

    pub(super) fn stores(&self) -> Stores<'_> {
        Stores { source: &*self.shared.source, cache: &self.shared.cache, sound: &self.shared.sound }
    }

    /// The statistics of a part of this view: its own, unless this view's are not of its own files.
    fn statistics_for(&self, files: &Arc<[u32]>) -> Arc<Statistics> {
        let own = Arc::ptr_eq(&self.files, &self.statistics.files);
        if own { Statistics::of(files) } else { self.statistics.clone() }
    }

    fn name_of(&self, file: u32) -> String {
        self.shared.source.name(file as usize)
    }

    /// The `count` files whose draws are lowest, and the others; both in file order.
    fn lowest_ranked(&self, count: usize, key: Key) -> (Arc<[u32]>, Arc<[u32]>) {
        let rank = |&file: &u32| (key.index(hash_name(&self.name_of(file))).rng().next_u64(), file);
        let mut ranked: Vec<(u64, u32)> = self.files.par_iter().map(rank).collect();
        ranked.par_sort_unstable();
        let in_order = |part: &[(u64, u32)]| {
            let mut files: Vec<u32> = part.iter().map(|&(_, file)| file).collect();
            files.sort_unstable();
            Arc::from(files)
        };
        (in_order(&ranked[..count]), in_order(&ranked[count..]))
    }
}

// The micro-batch part of the key keeps the two draws apart; stored runs depend on the numbers.
const SPLIT: u64 = 0;
const SUBSET: u64 = 1;

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dataset({} images, {} channels)", self.len(), self.channels())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Shades, fill_folder};

    fn shades(count: usize) -> Dataset {
        Dataset::from_source(Box::new(Shades { count, size: 4, bad: |_| false }), 0).unwrap()
    }

    #[test]
    fn subsets_floor_nest_and_keep_file_order() {
        let all = shades(100);
        let tenth = all.subset_fraction(0.107, 5).unwrap();
        assert_eq!(tenth.len(), 10);
        assert_eq!(all.subset_fraction(0.29, 0).unwrap().len(), 29);
        let half = all.subset_count(50, 5).unwrap();
        let names = half.files();
        assert!(names.is_sorted() && tenth.files().iter().all(|name| names.contains(name)));
        assert_eq!(all.subset_count(50, 5).unwrap().files(), names);
        assert_ne!(all.subset_count(50, 6).unwrap().files(), names);
        assert_eq!(all.subset_count(100, 6).unwrap().files(), all.files());
        for wrong in [all.subset_fraction(0.001, 0), all.subset_fraction(1.5, 0), all.subset_fraction(f64::NAN, 0)] {
            assert!(matches!(wrong, Err(DataError::Range { .. })));
        }
        assert!(all.subset_count(101, 0).is_err() && all.subset_count(0, 0).is_err());
    }

    #[test]
    fn a_split_shares_no_file_and_is_drawn_apart_from_subsets() {
        let all = shades(200);
        let (train, val) = all.split(0.105, 3).unwrap();
        assert_eq!((train.len(), val.len()), (179, 21));
        let mut both = [train.files(), val.files()].concat();
        both.sort();
        assert_eq!(both, all.files());
        assert_ne!(val.files(), all.subset_count(21, 3).unwrap().files());
        assert_eq!(all.split(0.001, 3).unwrap().1.len(), 1);
        assert!(all.split(0.0, 3).is_err() && shades(1).split(0.5, 3).is_err());
    }

    #[test]
    fn train_and_val_folders_are_the_split() {
        let dir = tempfile::tempdir().unwrap();
        fill_folder(&dir.path().join("train"), 10);
        fill_folder(&dir.path().join("val"), 3);
        let all = Dataset::open(&Spec::Folder(dir.path().into())).unwrap();
        assert_eq!(all.len(), 10);
        let (train, val) = all.subset_fraction(0.5, 1).unwrap().split(0.5, 1).unwrap();
        assert_eq!((train.len(), val.files()[0].as_str(), val.len()), (5, "val/000.png", 3));
        assert!(train.split(0.5, 1).unwrap().1.files().iter().all(|name| name.starts_with("train/")));
    }

    #[test]
    fn normalization_is_of_the_training_files() {
        assert_eq!(shades(3).normalization().unwrap(), Normalization::imagenet());
        let all = Dataset::open(&Spec::Wirebond { size: 32, count: 6, seed: 1 }).unwrap();
        let (train, val) = all.split(0.5, 0).unwrap();
        let measured = train.normalization().unwrap();
        assert_eq!(measured.mean.len(), 2);
        assert_eq!(val.normalization().unwrap(), measured);
        assert_eq!(val.subset_count(1, 0).unwrap().normalization().unwrap(), measured);
        assert_ne!(train.subset_count(1, 0).unwrap().normalization().unwrap(), measured);
        let given = Normalization { mean: vec![0.0; 2], std: vec![1.0; 2] };
        let (train, val) = all.with_normalization(given.clone()).split(0.5, 0).unwrap();
        assert_eq!([train.normalization().unwrap(), val.normalization().unwrap()], [given.clone(), given]);
    }

    #[test]
    fn skips_are_shared_sorted_and_restored() {
        let all = shades(10);
        let (train, _) = all.split(0.2, 0).unwrap();
        train.note_skipped(vec![Skip { index: 7, reason: "b".into() }, Skip { index: 1, reason: "a".into() }]).unwrap();
        let list = vec![(train.name(1), "a".to_owned()), (train.name(7), "b".to_owned())];
        assert_eq!(all.skipped(), list);
        let again = shades(10);
        again.restore_skipped(&[list.clone(), vec![("gone".into(), "x".into())]].concat());
        assert_eq!(again.skipped(), list);
    }
}
