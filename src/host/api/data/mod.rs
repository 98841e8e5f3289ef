//! `data`: where images come from, and the batches they become.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use tch::{Kind, Tensor};

mod inspect;
mod open;
mod options;
use options::{Edges, config, jitter, normalization, normalized};

use super::tensor::TensorHandle;
use crate::data::classes::palette_color;
use crate::data::{self, Crop, DataError, Dataset, Loader, Segmentation, ValLoader};
use crate::host::convert;
use crate::host::errors::{self, Failure, ScriptResult, check_arg, script_error, unplaced};
use crate::host::options::OptionMap;
use crate::host::session::Session;
use crate::host::smoke;
use crate::nn::Place;

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

/// Images on the device, with the address of their randomness and what their normalization was.
#[derive(Clone)]
pub struct BatchHandle {
    /// `[N, C, H, W]`, normalized.
    pub images: TensorHandle,
    /// `[N, H, W]`, 64-bit labels, 255 for none; of pairs alone. In validation, `H` and `W` are the annotations' own.
    pub masks: Option<TensorHandle>,
    /// `[N]`, 64-bit: classes of whole images.
    pub labels: Option<TensorHandle>,
    /// Names of the files, in validation.
    pub names: Rc<Vec<String>>,
    /// Height and width of the annotations; without any, of the images before they were resized. Only of whole images.
    pub own_size: Option<(i64, i64)>,
    /// How many classes its dataset has.
    pub classes: Option<i64>,
    /// Of the classes.
    pub colors: Rc<Vec<[u8; 3]>>,
    pub place: Place,
    pub normalization: Rc<data::Normalization>,
}

impl BatchHandle {
    fn new(
        batch: data::Batch,
        place: Place,
        normalization: Rc<data::Normalization>,
        dataset: &Dataset,
        device: tch::Device,
    ) -> Result<Self, Failure> {
        let shape = batch.shape.map(|n| n as i64);
        let images = Tensor::f_from_slice(&batch.pixels)?.f_view(shape)?.f_to_device(device)?;
        // Bytes travel to the device; numbers are widened there.
        let (height, width) = batch.mask_size;
        let masks = batch.masks.map(|masks| -> Result<TensorHandle, Failure> {
            let shape = [shape[0], height as i64, width as i64];
            let masks = Tensor::f_from_slice(&masks)?.f_view(shape)?.f_to_device(device)?;
            Ok(masks.f_to_kind(Kind::Int64)?.into())
        });
        let labels = batch.labels.map(|labels| -> Result<TensorHandle, Failure> {
            let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
            Ok(Tensor::f_from_slice(&labels)?.f_to_device(device)?.into())
        });
        let (masks, labels) = (masks.transpose()?, labels.transpose()?);
        let own_size = (!batch.names.is_empty() && height > 0).then_some((height as i64, width as i64));
        let colors =
            dataset.classes().map_or_else(|| (0..255).map(palette_color).collect(), |table| table.colors.clone());
        let (names, colors) = (Rc::new(batch.names), Rc::new(colors));
        let classes = dataset.classes().map(|table| table.len() as i64);
        Ok(Self { images: images.into(), masks, labels, names, own_size, classes, colors, place, normalization })
    }

    /// Images in the batch.
    pub fn size(&self) -> i64 {
        self.images.tensor().size()[0]
    }
}

/// The micro-batches of one step, made as they are asked for.
#[derive(Clone)]
pub struct MicroBatches {
    loader: LoaderHandle,
    step: u64,
    next: u64,
    device: tch::Device,
}

impl Iterator for MicroBatches {
    type Item = ScriptResult<BatchHandle>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = &self.loader.loader;
        let micro_batches = loader.config().micro_batches as u64;
        (self.next < micro_batches).then(|| {
            let micro = self.next;
            self.next += 1;
            let place = Place {
                seed: self.loader.seed,
                step: self.step,
                epoch: loader.epoch_of(self.step),
                micro,
                micro_batches,
            };
            let normalization = Rc::new(loader.normalization().clone());
            let made = loader.micro(self.step, micro).map_err(Failure::from);
            made.and_then(|batch| BatchHandle::new(batch, place, normalization, loader.dataset(), self.device))
                .map_err(unplaced)
        })
    }
}

/// One pass over the validation images.
#[derive(Clone)]
pub struct ValPass {
    batches: Rc<RefCell<data::val_loader::ValBatches>>,
    normalization: Rc<data::Normalization>,
    dataset: Dataset,
    device: tch::Device,
    /// Batches that it ends after, under `--smoke`.
    left: Option<usize>,
}

impl Iterator for ValPass {
    type Item = ScriptResult<BatchHandle>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let batch = self.batches.borrow_mut().next()?;
        let made = batch.map_err(Failure::from).and_then(|batch| {
            // A constant key: every validation masks alike, so curves compare.
            let place = Place { seed: batch.seed, step: batch.step, epoch: 0, micro: batch.micro, micro_batches: 1 };
            BatchHandle::new(batch, place, Rc::clone(&self.normalization), &self.dataset, self.device)
        });
        Some(made.map_err(unplaced))
    }
}

pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<DatasetHandle>("Dataset");
    engine.register_type_with_name::<LoaderHandle>("Loader");
    engine.register_type_with_name::<ValLoaderHandle>("ValLoader");
    engine.register_type_with_name::<BatchHandle>("Batch");
    engine.register_iterator_result::<MicroBatches, BatchHandle>();
    engine.register_iterator_result::<ValPass, BatchHandle>();
    engine.register_static_module("data", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
    inspect::register(engine);
}

fn whole(ctx: &NativeCallContext, name: &str, value: INT) -> ScriptResult<usize> {
    usize::try_from(value).map_err(|_| script_error(ctx, format!("{name}: expected 0 or more, got {value}")))
}

#[export_module]
mod functions {
    /// Opens a dataset: `"wirebond"`, the generated wire-bond photographs, or a folder of images (JPEG, PNG, BMP, TIFF,
    /// NPY) at any depth.
    /// A folder with `train/` and `val/` in it is split as they say. The folders of ADE20K (`ADEChallengeData2016`) and of CamVid
    /// (`train`, `trainannot`, `val`, `valannot`) are recognized and come with masks, as the generated photographs do.
    ///
    /// Errors: no such folder, or no images in it.
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_named(ctx: NativeCallContext, spec: ImmutableString) -> ScriptResult<DatasetHandle> {
        open::named(&ctx, &spec).map(|opened| smoke::few(&Session::of(&ctx), opened))
    }

    /// Opens a dataset by options: `#{ folder: "photos" }`, or `#{ name: "wirebond", size: 128, count: 2304, seed: 0 }`
    /// (size in pixels, up to 2048).
    ///
    /// For a folder also: `channels` (3; 1 or 2), `pair` (`["_a", "_b"]`: endings of the two gray files that make one image of two
    /// channels), `labels` (`"folders"`: the class of an image is its folder; `"prefix"`: its name up to the first `_`),
    /// `image_extension` (where other files lie among the images).
    ///
    /// Images with masks, matched by name: `#{ images: "photos", masks: "labels", classes: ["background", "defect"] }`. Further
    /// options: `ignore` (255; a label, or several, that are no class), `binary_threshold` (a gray level from which on a pixel
    /// is of the second class), `colors` (a map of names to `[r, g, b]`, or an array), `val_images` and `val_masks`, `channels`
    /// (3), `image_extension` and `mask_extension`.
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_map(ctx: NativeCallContext, spec: Map) -> ScriptResult<DatasetHandle> {
        open::by_options(&ctx, spec).map(|opened| smoke::few(&Session::of(&ctx), opened))
    }

    /// Batches for training, prepared ahead by threads; each is a function of the seed and the step alone.
    ///
    /// Options: `batch` (images per step), `micro_batches` (1), `image_size` (pixels, or `[height, width]`), `crop`
    /// (`"random"`, `"center"`, `"none"`), `flip` (true), `normalization` (the dataset's; `model.normalization` is that of a
    /// trained model), `workers` (the number of processors).
    #[rhai_fn(return_raw)]
    pub fn loader(ctx: NativeCallContext, dataset: DatasetHandle, options: Map) -> ScriptResult<LoaderHandle> {
        let mut options = OptionMap::new(&ctx, "data::loader", options);
        let crop = options.or("crop", Crop::Random)?;
        let config = config(&mut options, "data::loader", crop)?;
        let known = options.get::<Map>("normalization")?.map(|given| normalization(&ctx, given)).transpose()?;
        options.finish()?;
        let seed = config.seed;
        let loader = Loader::new(normalized(&ctx, dataset.0, known)?, config).map_err(|err| script_error(&ctx, err))?;
        Ok(LoaderHandle { loader: Rc::new(loader), seed })
    }

    /// Batches of images with their masks for training: the long edge resized to a random length, a random crop, flips and
    /// changes of color. `validation` then gives whole images, with masks at their own size.
    ///
    /// Options: `batch`, `micro_batches`, `image_size`, `flip`, `workers` as for `loader`; `long_edge` (`[256, 1024]`, pixels),
    /// `jitter` (true; or a map of `brightness`, `contrast`, `saturation`, `value`: fractions, 0.25, and `hue`: degrees, 15),
    /// `eval_edge` (the long edge in validation; the larger side of `image_size`; 0 leaves images as they are).
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
        let loader = Loader::pairs(dataset.0, config, pairs).map_err(|err| script_error(&ctx, err))?;
        Ok(LoaderHandle { loader: Rc::new(loader), seed })
    }

    /// Whole images for prediction or evaluation, once, in file order, never cropped or distorted; with their masks where
    /// there are any. Call `batches()` on it.
    ///
    /// Options: `batch` (1; images of equal sizes share one), `eval_edge` (0; the long edge in pixels, 0 leaves images as they
    /// are), `normalization` (the dataset's; `model.normalization` is that of a trained model), `workers`.
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
        let made = ValLoader::whole(dataset, batch, pairs, workers);
        Ok(ValLoaderHandle { loader: Rc::new(made.map_err(|err| script_error(&ctx, err))?) })
    }
}

#[export_module]
mod methods {
    /// Images in the dataset.
    #[rhai_fn(name = "len", pure)]
    pub fn dataset_len(dataset: &mut DatasetHandle) -> INT {
        dataset.0.len() as INT
    }

    /// Channels of its images.
    #[rhai_fn(get = "channels", pure)]
    pub fn channels(dataset: &mut DatasetHandle) -> INT {
        dataset.0.channels() as INT
    }

    /// The names of its classes, in the order of their labels; empty if it has none.
    #[rhai_fn(get = "classes", pure)]
    pub fn classes(dataset: &mut DatasetHandle) -> Array {
        let names = dataset.0.classes().map_or(Vec::new(), |table| table.names.clone());
        names.into_iter().map(Dynamic::from).collect()
    }

    /// The names of its files.
    #[rhai_fn(pure)]
    pub fn files(dataset: &mut DatasetHandle) -> Array {
        dataset.0.files().into_iter().map(Dynamic::from).collect()
    }

    /// A reproducible part: a fraction of the images (a float, rounded down) or a number of them. It does not depend on the
    /// run's seed, so that runs over several seeds share their images.
    #[rhai_fn(return_raw, pure)]
    pub fn subset(ctx: NativeCallContext, dataset: &mut DatasetHandle, part: Dynamic) -> ScriptResult<DatasetHandle> {
        subset_with_seed(ctx, dataset, part, 0)
    }

    /// The same with another seed for the choice.
    #[rhai_fn(name = "subset", return_raw, pure)]
    pub fn subset_with_seed(
        ctx: NativeCallContext,
        dataset: &mut DatasetHandle,
        part: Dynamic,
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
    #[rhai_fn(return_raw, pure)]
    pub fn split(ctx: NativeCallContext, dataset: &mut DatasetHandle, fraction: Dynamic) -> ScriptResult<Map> {
        split_with_seed(ctx, dataset, fraction, 0)
    }

    /// The same with another seed for the split.
    #[rhai_fn(name = "split", return_raw, pure)]
    pub fn split_with_seed(
        ctx: NativeCallContext,
        dataset: &mut DatasetHandle,
        fraction: Dynamic,
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

    /// The micro-batches of step `step`, for a `for` loop.
    #[rhai_fn(return_raw, pure)]
    pub fn micro(ctx: NativeCallContext, loader: &mut LoaderHandle, step: INT) -> ScriptResult<MicroBatches> {
        let step = whole(&ctx, "step", step)? as u64;
        Ok(MicroBatches { loader: loader.clone(), step, next: 0, device: Session::of(&ctx).options.device })
    }

    /// Steps that one epoch has: ⌊images / batch⌋.
    #[rhai_fn(get = "steps_per_epoch", pure)]
    pub fn steps_per_epoch(loader: &mut LoaderHandle) -> INT {
        loader.loader.steps_per_epoch() as INT
    }

    /// All validation batches once, for a `for` loop.
    #[rhai_fn(pure)]
    pub fn batches(ctx: NativeCallContext, loader: &mut ValLoaderHandle) -> ValPass {
        ValPass {
            batches: Rc::new(RefCell::new(loader.loader.iter())),
            normalization: Rc::new(loader.loader.normalization().clone()),
            dataset: loader.loader.dataset().clone(),
            device: Session::of(&ctx).options.device,
            left: smoke::validation_batches(&Session::of(&ctx)),
        }
    }

    /// The images. Shapes: `[N, C, H, W]`, normalized.
    #[rhai_fn(get = "images", pure)]
    pub fn images(batch: &mut BatchHandle) -> TensorHandle {
        batch.images.clone()
    }

    /// The masks. Shapes: `[N, H, W]`, whole numbers: a label per pixel, 255 for none. In validation, H and W are those of the
    /// annotations, whatever the images' are.
    #[rhai_fn(get = "masks", return_raw, pure)]
    pub fn masks(ctx: NativeCallContext, batch: &mut BatchHandle) -> ScriptResult<TensorHandle> {
        batch.masks.clone().ok_or_else(|| {
            let hint = "open images with their masks, and take batches from data::pair_loader";
            script_error(&ctx, Failure::script("this batch has no masks").with_hint(hint))
        })
    }

    /// The classes of whole images. Shapes: `[N]`, whole numbers.
    #[rhai_fn(get = "labels", return_raw, pure)]
    pub fn labels(ctx: NativeCallContext, batch: &mut BatchHandle) -> ScriptResult<TensorHandle> {
        batch.labels.clone().ok_or_else(|| {
            let hint = "open a folder whose images are labeled, as data::open(#{ folder: …, labels: \"folders\" })";
            script_error(&ctx, Failure::script("this batch has no labels").with_hint(hint))
        })
    }

    /// Whether the batch has masks.
    #[rhai_fn(get = "has_masks", pure)]
    pub fn has_masks(batch: &mut BatchHandle) -> bool {
        batch.masks.is_some()
    }

    /// The names of its files; of a training batch, none.
    #[rhai_fn(get = "names", pure)]
    pub fn names(batch: &mut BatchHandle) -> Array {
        batch.names.iter().cloned().map(Dynamic::from).collect()
    }

    /// Images in the batch.
    #[rhai_fn(get = "size", pure)]
    pub fn size(batch: &mut BatchHandle) -> INT {
        batch.size()
    }

    /// The first `count` images of the batch.
    #[rhai_fn(return_raw, pure)]
    pub fn first(ctx: NativeCallContext, batch: &mut BatchHandle, count: INT) -> ScriptResult<BatchHandle> {
        let count = count.clamp(1, batch.size());
        let narrow = |all: &TensorHandle| -> ScriptResult<TensorHandle> {
            Ok(all.tensor().f_narrow(0, 0, count).map_err(|err| script_error(&ctx, err))?.into())
        };
        Ok(BatchHandle {
            images: narrow(&batch.images)?,
            masks: batch.masks.as_ref().map(narrow).transpose()?,
            labels: batch.labels.as_ref().map(narrow).transpose()?,
            names: Rc::new(batch.names.iter().take(count as usize).cloned().collect()),
            ..batch.clone()
        })
    }
}
