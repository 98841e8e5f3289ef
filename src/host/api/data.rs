//! `data`: where images come from, and the batches they become.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use tch::Tensor;

use super::tensor::TensorHandle;
use crate::data::{self, Crop, DataError, Dataset, Loader, LoaderConfig, Spec, ValLoader};
use crate::host::convert;
use crate::host::errors::{Failure, Kind, ScriptResult, check_arg, script_error, unplaced};
use crate::host::options::{FromOption, ImageSize, OptionMap};
use crate::host::session::Session;
use crate::nn::Place;

impl From<DataError> for Failure {
    fn from(err: DataError) -> Self {
        let kind = if matches!(err, DataError::Worker(_)) { Kind::Machine } else { Kind::Script };
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
    pub images: TensorHandle,
    pub place: Place,
    pub normalization: Rc<data::Normalization>,
}

impl BatchHandle {
    fn new(
        batch: data::Batch,
        place: Place,
        normalization: Rc<data::Normalization>,
        device: tch::Device,
    ) -> Result<Self, Failure> {
        let shape = batch.shape.map(|n| n as i64);
        let images = Tensor::f_from_slice(&batch.pixels)?.f_view(shape)?.f_to_device(device)?;
        Ok(Self { images: images.into(), place, normalization })
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
            made.and_then(|batch| BatchHandle::new(batch, place, normalization, self.device)).map_err(unplaced)
        })
    }
}

/// One pass over the validation images.
#[derive(Clone)]
pub struct ValPass {
    batches: Rc<RefCell<data::val_loader::ValBatches>>,
    normalization: Rc<data::Normalization>,
    device: tch::Device,
}

impl Iterator for ValPass {
    type Item = ScriptResult<BatchHandle>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.borrow_mut().next()?;
        let made = batch.map_err(Failure::from).and_then(|batch| {
            // A constant key: every validation masks alike, so curves compare.
            let place = Place { seed: batch.seed, step: batch.step, epoch: 0, micro: batch.micro, micro_batches: 1 };
            BatchHandle::new(batch, place, Rc::clone(&self.normalization), self.device)
        });
        Some(made.map_err(unplaced))
    }
}

impl FromOption for Crop {
    const EXPECTED: &'static str = "\"random\", \"center\" or \"none\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        match value.into_string().ok()?.as_str() {
            "random" => Some(Self::Random),
            "center" => Some(Self::Center),
            "none" => Some(Self::None),
            _ => None,
        }
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
}

fn open(ctx: &NativeCallContext, text: &str) -> ScriptResult<DatasetHandle> {
    let session = Session::of(ctx);
    let spec = match Spec::parse(text) {
        Ok(Spec::Folder(_)) => session.readable(text).map(Spec::Folder),
        // A relative path of the script's own folder is no folder from here; the sandbox knows both.
        Err(err) => {
            let found = session.readable(text).map(Spec::Folder);
            found.map_err(|denied| if text.contains('/') { denied } else { err.into() })
        }
        Ok(spec) => Ok(spec),
    };
    let dataset = spec.and_then(|spec| Dataset::open(&spec).map_err(Failure::from));
    dataset.map(DatasetHandle).map_err(|err| script_error(ctx, err))
}

fn whole(ctx: &NativeCallContext, name: &str, value: INT) -> ScriptResult<usize> {
    usize::try_from(value).map_err(|_| script_error(ctx, format!("{name}: expected 0 or more, got {value}")))
}

#[export_module]
mod functions {
    /// Opens a dataset: `"wirebond"`, the generated wire-bond photographs, or a folder of JPEG and PNG images at any depth.
    /// A folder with `train/` and `val/` in it is split as they say.
    ///
    /// Errors: no such folder, or no images in it.
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_named(ctx: NativeCallContext, spec: ImmutableString) -> ScriptResult<DatasetHandle> {
        open(&ctx, &spec)
    }

    /// Opens a dataset by options: `#{ folder: "photos" }`, or `#{ name: "wirebond", size: 128, count: 2304, seed: 0 }`
    /// (size in pixels, up to 2048).
    #[rhai_fn(name = "open", return_raw)]
    pub fn open_map(ctx: NativeCallContext, spec: Map) -> ScriptResult<DatasetHandle> {
        let mut options = OptionMap::new(&ctx, "data::open", spec);
        let (folder, name) = (options.get::<String>("folder")?, options.get::<String>("name")?);
        let Spec::Wirebond { size, count, seed } = Spec::wirebond() else { unreachable!("wirebond() is a Wirebond") };
        let (size_given, count_given, seed_given) =
            (options.count("size")?, options.count("count")?, options.count("seed")?);
        let for_wirebond = size_given.or(count_given).or(seed_given).is_some();
        if for_wirebond && name.as_deref() != Some("wirebond") {
            return Err(options.error("data::open: size, count and seed belong to name: \"wirebond\""));
        }
        options.finish()?;
        match (folder, name.as_deref()) {
            (Some(folder), None) => open(&ctx, &folder),
            (None, Some("wirebond")) => {
                let spec = Spec::Wirebond {
                    size: size_given.map_or(size, |n| n as usize),
                    count: count_given.map_or(count, |n| n as usize),
                    seed: seed_given.unwrap_or(seed),
                };
                Dataset::open(&spec).map(DatasetHandle).map_err(|err| script_error(&ctx, err))
            }
            (None, Some(name)) => open(&ctx, name),
            _ => Err(script_error(&ctx, "data::open: expected either folder or name")),
        }
    }

    /// Batches for training, prepared ahead by threads; each is a function of the seed and the step alone.
    ///
    /// Options: `batch` (images per step), `micro_batches` (1), `image_size` (pixels, or `[height, width]`), `crop`
    /// (`"random"`, `"center"`, `"none"`), `flip` (true), `workers` (the number of processors).
    #[rhai_fn(return_raw)]
    pub fn loader(ctx: NativeCallContext, dataset: DatasetHandle, options: Map) -> ScriptResult<LoaderHandle> {
        let mut options = OptionMap::new(&ctx, "data::loader", options);
        let seed = Session::of(&ctx).seed();
        let ImageSize(height, width) = options.need("image_size")?;
        let config = LoaderConfig {
            batch: options.count("batch")?.ok_or_else(|| options.error("data::loader: the option batch is missing"))?
                as usize,
            micro_batches: options.count("micro_batches")?.unwrap_or(1) as usize,
            image_size: (height.max(0) as usize, width.max(0) as usize),
            crop: options.or("crop", Crop::Random)?,
            flip: options.or("flip", true)?,
            seed,
            workers: options.count("workers")?.map_or_else(data::default_workers, |n| n.max(1) as usize),
        };
        options.finish()?;
        let loader = Loader::new(dataset.0, config).map_err(|err| script_error(&ctx, err))?;
        Ok(LoaderHandle { loader: Rc::new(loader), seed })
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
            ("val".into(), Dynamic::from(DatasetHandle(val))),
        ]))
    }

    /// Batches of `dataset` for validation, with this loader's size, batch and normalization: whole files in order, no
    /// flips.
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
        let dataset = dataset.0.with_normalization(loader.loader.normalization().clone());
        let made = ValLoader::new(dataset, batch, config.image_size, config.crop, config.workers);
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
            device: Session::of(&ctx).options.device,
        }
    }

    /// The images. Shapes: `[N, C, H, W]`, normalized.
    #[rhai_fn(get = "images", pure)]
    pub fn images(batch: &mut BatchHandle) -> TensorHandle {
        batch.images.clone()
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
        let images = batch.images.tensor().f_narrow(0, 0, count).map_err(|err| script_error(&ctx, err))?;
        Ok(BatchHandle { images: images.into(), ..batch.clone() })
    }
}
