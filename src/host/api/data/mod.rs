//! `data`: where images come from, and the batches they become.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};

mod batch;
mod inspect;
mod open;
mod options;
mod shards;
pub use batch::{BatchHandle, MicroBatches, ValPass};
use options::{Edges, config, jitter, normalization, normalized};

use crate::data::{self, Crop, DataError, Dataset, Loader, Segmentation, ValLoader};
use crate::host::convert::{self, Number};
use crate::host::errors::{self, Failure, ScriptResult, check_arg, script_error};
use crate::host::options::OptionMap;
use crate::host::say::while_slow;
use crate::host::session::Session;
use crate::host::smoke;

impl From<DataError> for Failure {
    fn from(err: DataError) -> Self {
        let kind = if matches!(err, DataError::Worker(_)) { errors::Kind::Machine } else { errors::Kind::Script };
        Self::new(kind, err.to_string())
    }
}

/// A dataset as scripts hold it.
#[derive(Clone)]
pub struct DatasetHandle(pub Dataset);

/// A training loader as scripts hold it.
#[derive(Clone)]
pub struct LoaderHandle {
    pub loader: Rc<Loader>,
    seed: u64,
}

/// A validation loader as scripts hold it.
#[derive(Clone)]
pub struct ValLoaderHandle {
    pub loader: Rc<ValLoader>,
}

/// What a loader does before its first batch, where it has to know how bright images are.
const LOOKING: &str = "data: reading images for their mean and deviation";

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_static_module("data", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
    batch::register(engine);
    inspect::register(engine);
}

fn whole(ctx: &NativeCallContext, name: &str, value: INT) -> ScriptResult<usize> {
    usize::try_from(value).map_err(|_| script_error(ctx, format!("{name}: expected 0 or more, got {value}")))
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// Images, maybe with masks or classes, of which none is read before it is needed.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// ```
    pub type Dataset = DatasetHandle;

    /// Batches for training, each a function of the seed and the step alone.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// ```
    pub type Loader = LoaderHandle;

    /// The micro-batches of one step, for a `for` loop.
    pub type MicroBatches = super::MicroBatches;

    /// One pass over validation batches, for a `for` loop.
    pub type ValBatches = ValPass;

    /// Batches in file order, for validation and prediction.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// let val = loader.validation(images);
    /// ```
    pub type ValLoader = ValLoaderHandle;
}

/// Where images come from, and the batches they become.
#[export_module]
mod functions {
    /// Opens a dataset: `"wirebond"`, the generated wire-bond photographs, or a folder of images (JPEG, PNG, BMP, TIFF,
    /// NPY) at any depth.
    /// A folder with `train/` and `val/` in it is split as they say. Tar archives of images in WebDataset's layout are opened by
    /// their folder, by the path of one (`"train-000.tar"`), or in braces (`"train-{000..009}.tar"`). The folders of ADE20K (`ADEChallengeData2016`) and of CamVid
    /// (`train`, `trainannot`, `val`, `valannot`) are recognized and come with masks, as the generated photographs do.
    ///
    /// Errors: no such folder, or no images in it.
    ///
    /// ```rhai
    /// let images = data::open("wirebond");
    /// assert(images.len() == 2304 && images.channels == 2);
    /// ```
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_named(ctx: NativeCallContext, spec: ImmutableString) -> ScriptResult<DatasetHandle> {
        open::named(&ctx, &spec).map(|opened| smoke::few(&Session::of(&ctx), opened))
    }

    /// Opens a dataset by options, which say what it is: a folder, generated photographs, or images with masks that are matched by
    /// name.
    ///
    /// Options:
    /// - `folder` (string): a folder of images, at any depth
    /// - `shards` (string or [string]): tar archives of images: a folder of them, one, or several as `"train-{000..009}.tar"`
    /// - `labels` (string): with `folder` or `shards`, where classes come from: `"folders"`, the folder an image lies in;
    ///   `"prefix"`, its name up to the first `_`; `"cls"`, the number in the `.cls` file beside it in an archive
    /// - `pair` ([string, string]): with `folder` or `shards`, what the names of the two gray files end in that make one image of two channels
    /// - `channels` (int, 3): with `folder`, `shards` or `images`, 1 to 3
    /// - `image_extension` (string): with `folder`, `shards` or `images`, where other files lie among the images
    /// - `name` (string): `"wirebond"`, generated photographs
    /// - `size` (int, 128): with `name`, pixels of a side, up to 2048
    /// - `count` (int, 2304): with `name`, how many
    /// - `seed` (int, 0): with `name`, of their random numbers
    /// - `images`, `masks` (string): folders of images and of their masks
    /// - `classes` (int or [string]): with `masks`, names in the order of their labels, or how many
    /// - `ignore` (int, [int], or colors, 255): labels that are no class; beside `colors`, one `[r, g, b]` or several
    /// - `binary_threshold` (int): the gray level from which on a pixel of a mask is of the second of two classes
    /// - `colors` (map or array): `[r, g, b]` by name, or in the order of the classes, of masks in color
    /// - `val_images`, `val_masks` (string): folders for validation
    /// - `mask_extension` (string): where other files lie among the masks
    /// - `cache` (int or string, "1 GiB"): how much memory decoded images may take, in bytes or as `"500 MiB"`, `"2 GiB"`; 0 for none. They are
    ///   kept from the first on; without this option, files are kept once steps wait for images. It changes no result
    ///
    /// ```rhai
    /// let generated = data::open(#{ name: "wirebond", size: 32, count: 2 });
    /// for path in ["photos/a_1.png", "photos/b_1.png", "masks/a_1.png", "masks/b_1.png"] { generated.preview(path); }
    /// let labeled = data::open(#{ folder: "previews/photos", labels: "prefix" });
    /// let segmented = data::open(#{ images: "previews/photos", masks: "previews/masks", classes: 2 });
    /// assert(labeled.classes == ["a", "b"] && segmented.len() == 2);
    /// ```
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_map(ctx: NativeCallContext, spec: Map) -> ScriptResult<DatasetHandle> {
        open::by_options(&ctx, spec).map(|opened| smoke::few(&Session::of(&ctx), opened))
    }

    /// Batches for training, prepared ahead by threads; each is a function of the seed and the step alone.
    ///
    /// Options:
    /// - `batch` (int): images per step
    /// - `micro_batches` (int, 1): pieces that a step's batch comes in; divides it
    /// - `image_size` (int or [int, int]): pixels: a side, or `[height, width]`
    /// - `crop` (string, `"random"`): `"random"`, `"center"` or `"none"`
    /// - `flip` (bool, true): whether half of the images are mirrored
    /// - `normalization` (map, the dataset's): `#{ mean, std }`, a number per channel; `model.normalization` is that of a trained model
    /// - `workers` (int, the processors): threads
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 64, count: 8 });
    /// let known = #{ mean: [0.5, 0.5], std: [0.25, 0.25] };
    /// let loader = data::loader(images, #{ batch: 8, micro_batches: 2, image_size: 32, normalization: known });
    /// for batch in loader.micro(0) {
    ///     assert(batch.images.shape == [4, 2, 32, 32]);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn loader(ctx: NativeCallContext, dataset: DatasetHandle, options: Map) -> ScriptResult<LoaderHandle> {
        let mut options = OptionMap::new(&ctx, "data::loader", options);
        let crop = options.or("crop", Crop::Random)?;
        let config = config(&mut options, "data::loader", crop)?;
        let known = options.get::<Map>("normalization")?.map(|given| normalization(&ctx, given)).transpose()?;
        options.finish()?;
        let seed = config.seed;
        let dataset = normalized(&ctx, dataset.0, known)?;
        let loader = while_slow(LOOKING, || Loader::new(dataset, config)).map_err(|err| script_error(&ctx, err))?;
        Ok(LoaderHandle { loader: Rc::new(loader), seed })
    }

    /// Batches of images with their masks for training: the long edge resized to a random length, a random crop, flips and
    /// changes of color. `validation` then gives whole images, with masks at their own size.
    ///
    /// Options:
    /// - `batch` (int): images per step
    /// - `micro_batches` (int, 1): pieces that a step's batch comes in; divides it
    /// - `image_size` (int or [int, int]): of the crop, in pixels: a side, or `[height, width]`
    /// - `flip` (bool, true): whether half of the images are mirrored
    /// - `long_edge` (int or [int, int], `[256, 1024]`): pixels: a length, or the shortest and the longest
    /// - `jitter` (bool or map, true): changes of color: fractions `brightness` (0.25), `contrast` (0.25), `saturation` (0.25) and
    ///   `value` (0.25), and `hue` (15) in degrees; what a map does not name stays as it is
    /// - `eval_edge` (int, the larger side of `image_size`): the long edge in validation; 0 leaves images as they are
    /// - `workers` (int, the processors): threads
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 64, count: 4 });
    /// let loader = data::pair_loader(images, #{
    ///     batch: 4, image_size: 32, long_edge: [32, 64], jitter: #{ brightness: 0.1, hue: 5 },
    /// });
    /// for batch in loader.micro(0) {
    ///     assert(batch.masks.shape == [4, 32, 32]);
    /// }
    /// ```
    #[rhai_fn(return_raw)]
    pub fn pair_loader(ctx: NativeCallContext, dataset: DatasetHandle, options: Map) -> ScriptResult<LoaderHandle> {
        let mut options = OptionMap::new(&ctx, "data::pair_loader", options);
        let config = config(&mut options, "data::pair_loader", Crop::None)?;
        let (height, width) = config.image_size;
        let Edges(shortest, longest) = options.or("long_edge", Edges(256, 1024))?;
        let pairs = Segmentation {
            long_edge: (shortest.max(0) as usize, longest.max(0) as usize),
            jitter: jitter(&ctx, &mut options)?,
            eval_edge: options.count("eval_edge")?.map_or(height.max(width), |n| n as usize),
        };
        options.finish()?;
        let seed = config.seed;
        let made = while_slow(LOOKING, || Loader::pairs(dataset.0, config, pairs));
        let loader = made.map_err(|err| script_error(&ctx, err))?;
        Ok(LoaderHandle { loader: Rc::new(loader), seed })
    }

    /// Whole images for prediction or evaluation, once, in file order, never cropped or distorted; with their masks where
    /// there are any. Call `batches()` on it.
    ///
    /// Options:
    /// - `batch` (int, 1): images of equal sizes that follow each other share one
    /// - `eval_edge` (int, 0): the long edge in pixels; 0 leaves images as they are
    /// - `normalization` (map, the dataset's): `#{ mean, std }`, a number per channel; `model.normalization` is that of a trained model
    /// - `workers` (int, the processors): threads
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 64, count: 3 });
    /// for batch in data::batches(images, #{ batch: 3, eval_edge: 32 }).batches() {
    ///     assert(batch.images.shape == [3, 2, 32, 32] && batch.masks.shape == [3, 64, 64]);
    /// }
    /// ```
    #[rhai_fn(name = "batches", return_raw)]
    pub fn whole_images(ctx: NativeCallContext, dataset: DatasetHandle, options: Map) -> ScriptResult<ValLoaderHandle> {
        let mut options = OptionMap::new(&ctx, "data::batches", options);
        let batch = options.count("batch")?.unwrap_or(1) as usize;
        let eval_edge = options.count("eval_edge")?.unwrap_or(0) as usize;
        let known = options.get::<Map>("normalization")?.map(|given| normalization(&ctx, given)).transpose()?;
        let workers = options.count("workers")?.map_or_else(data::default_workers, |n| n.max(1) as usize);
        options.finish()?;
        let dataset = normalized(&ctx, dataset.0, known)?;
        let pairs = Segmentation { long_edge: (1, 1), jitter: None, eval_edge };
        let made = while_slow(LOOKING, || ValLoader::whole(dataset, batch, pairs, workers));
        Ok(ValLoaderHandle { loader: Rc::new(made.map_err(|err| script_error(&ctx, err))?) })
    }
}

#[export_module]
mod methods {
    /// Images in the dataset.
    ///
    /// ```rhai
    /// assert(images.len() == 8);
    /// ```
    #[rhai_fn(name = "len", pure)]
    pub fn dataset_len(dataset: &mut DatasetHandle) -> INT {
        dataset.0.len() as INT
    }

    /// Channels of its images.
    ///
    /// ```rhai
    /// assert(images.channels == 2);
    /// ```
    #[rhai_fn(get = "channels", pure)]
    pub fn channels(dataset: &mut DatasetHandle) -> INT {
        dataset.0.channels() as INT
    }

    /// The names of its classes, in the order of their labels; empty if it has none.
    ///
    /// ```rhai
    /// assert(images.classes.contains("wire"));
    /// ```
    #[rhai_fn(get = "classes", pure)]
    pub fn classes(dataset: &mut DatasetHandle) -> Array {
        let names = dataset.0.classes().map_or(Vec::new(), |table| table.names.clone());
        names.into_iter().map(Dynamic::from).collect()
    }

    /// The names of its files.
    ///
    /// ```rhai
    /// assert(images.files().len() == images.len());
    /// ```
    #[rhai_fn(pure)]
    pub fn files(dataset: &mut DatasetHandle) -> Array {
        dataset.0.files().into_iter().map(Dynamic::from).collect()
    }

    /// A reproducible part: a fraction of the images (a float, rounded down) or a number of them. It does not depend on the
    /// run's seed, so that runs over several seeds share their images.
    ///
    /// ```rhai
    /// assert(images.subset(0.5).len() == 4 && images.subset(3).len() == 3);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn subset(ctx: NativeCallContext, dataset: &mut DatasetHandle, part: Number) -> ScriptResult<DatasetHandle> {
        subset_with_seed(ctx, dataset, part, 0)
    }

    /// The same with another seed for the choice.
    #[rhai_fn(name = "subset", return_raw, pure)]
    pub fn subset_with_seed(
        ctx: NativeCallContext,
        dataset: &mut DatasetHandle,
        part: Number,
        seed: INT,
    ) -> ScriptResult<DatasetHandle> {
        let seed = whole(&ctx, "seed", seed)? as u64;
        let part = smoke::part(&Session::of(&ctx), &dataset.0, part);
        let chosen = match part.as_int() {
            Ok(count) => dataset.0.subset_count(whole(&ctx, "part", count)?, seed),
            Err(_) => dataset.0.subset_fraction(convert::float(&ctx, "part", &part)?, seed),
        };
        chosen.map(DatasetHandle).map_err(|err| script_error(&ctx, err))
    }

    /// `#{ train, val }`: a fraction held out for validation, at least one image. Folders named `train` and `val` are
    /// taken as they are. The split does not depend on the run's seed: runs over several seeds share a validation set.
    ///
    /// ```rhai
    /// let parts = images.split(0.25);
    /// assert(parts.train.len() == 6 && parts.val.len() == 2);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn split(ctx: NativeCallContext, dataset: &mut DatasetHandle, fraction: Number) -> ScriptResult<Map> {
        split_with_seed(ctx, dataset, fraction, 0)
    }

    /// The same with another seed for the split.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_with_seed(
        ctx: NativeCallContext,
        dataset: &mut DatasetHandle,
        fraction: Number,
        seed: INT,
    ) -> ScriptResult<Map> {
        let fraction = convert::float(&ctx, "fraction", &fraction)?;
        let seed = whole(&ctx, "seed", seed)? as u64;
        let (train, val) = dataset.0.split(fraction, seed).map_err(|err| script_error(&ctx, err))?;
        Ok(Map::from([
            ("train".into(), Dynamic::from(DatasetHandle(train))),
            ("val".into(), Dynamic::from(smoke::few(&Session::of(&ctx), DatasetHandle(val)))),
        ]))
    }

    /// Batches of `dataset` for validation, with this loader's size, batch and normalization: whole files in order, no
    /// flips. Of a `pair_loader`, images keep their aspect (the long edge becomes `eval_edge`) and masks their own size; images of
    /// equal sizes that follow each other share a batch, and a dataset without masks gives images alone.
    ///
    /// ```rhai
    /// let parts = images.split(0.5);
    /// for batch in loader.validation(parts.val).batches() {
    ///     assert(batch.size == 4);
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn validation(
        ctx: NativeCallContext,
        loader: &mut LoaderHandle,
        dataset: DatasetHandle,
    ) -> ScriptResult<ValLoaderHandle> {
        let config = loader.loader.config();
        let batch = config.batch / config.micro_batches;
        let (channels, expected) = (dataset.0.channels(), loader.loader.dataset().channels());
        check_arg(&ctx, channels == expected, || {
            format!("validation images have {channels} channels, training images {expected}")
        })?;
        let (given, known) = (dataset.0.classes(), loader.loader.dataset().classes());
        check_arg(&ctx, given.is_none() || known.is_none() || given == known, || {
            "validation images have other classes than training images".to_owned()
        })?;
        let dataset = dataset.0.with_normalization(loader.loader.normalization().clone());
        let made = match loader.loader.segmentation() {
            Some(pairs) => ValLoader::whole(dataset, batch, pairs.clone(), config.workers),
            None => ValLoader::new(dataset, batch, config.image_size, config.crop, config.workers),
        };
        Ok(ValLoaderHandle { loader: Rc::new(made.map_err(|err| script_error(&ctx, err))?) })
    }

    /// The micro-batches of a step, for a `for` loop.
    ///
    /// ```rhai
    /// for batch in loader.micro(0) {
    ///     assert(batch.images.shape == [4, images.channels, 32, 32]);
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn micro(ctx: NativeCallContext, loader: &mut LoaderHandle, step: INT) -> ScriptResult<MicroBatches> {
        let step = whole(&ctx, "step", step)? as u64;
        Ok(MicroBatches::new(loader.clone(), step, Session::of(&ctx).options.device))
    }

    /// Steps that one epoch has: ⌊images / batch⌋.
    ///
    /// ```rhai
    /// assert(loader.steps_per_epoch == 2);
    /// ```
    #[rhai_fn(get = "steps_per_epoch", pure)]
    pub fn steps_per_epoch(loader: &mut LoaderHandle) -> INT {
        loader.loader.steps_per_epoch() as INT
    }

    /// All validation batches once, for a `for` loop.
    ///
    /// ```rhai
    /// let seen = 0;
    /// for batch in val.batches() { seen += batch.size; }
    /// assert(seen == images.len());
    /// ```
    #[rhai_fn(pure)]
    pub fn batches(ctx: NativeCallContext, loader: &mut ValLoaderHandle) -> ValPass {
        ValPass::new(&loader.loader, Session::of(&ctx).options.device, smoke::validation_batches(&Session::of(&ctx)))
    }
}
