//! Batches: what a loader's steps and a validation pass hand out.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, NativeCallContext};
use tch::{Kind, Tensor};

use super::LoaderHandle;
use crate::data::classes::palette_color;
use crate::data::{self, Dataset, ValLoader};
use crate::host::api::tensor::TensorHandle;
use crate::host::errors::{Failure, ScriptResult, script_error, unplaced};
use crate::host::oom::{self, Pass};
use crate::libtorch::buffer::to_device;
use crate::nn::Place;

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
        let images = to_device(&batch.pixels.into_tensor()?.f_view(shape)?, device)?;
        // Bytes travel to the device; numbers are widened there.
        let (height, width) = batch.mask_size;
        let masks = batch.masks.map(|masks| -> Result<TensorHandle, Failure> {
            let shape = [shape[0], height as i64, width as i64];
            let masks = to_device(&Tensor::f_from_slice(&masks)?.f_view(shape)?, device)?;
            Ok(masks.f_to_kind(Kind::Int64)?.into())
        });
        let labels = batch.labels.map(|labels| -> Result<TensorHandle, Failure> {
            let labels: Vec<i64> = labels.into_iter().map(i64::from).collect();
            Ok(to_device(&Tensor::f_from_slice(&labels)?, device)?.into())
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

impl MicroBatches {
    pub fn new(loader: LoaderHandle, step: u64, device: tch::Device) -> Self {
        Self { loader, step, next: 0, device }
    }
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
            let images = (loader.config().batch / loader.config().micro_batches) as i64;
            oom::set_pass(Some(Pass { device: self.device, images, of_step: micro_batches }));
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
    /// Batches that it ends after; `None` is all.
    left: Option<usize>,
}

impl ValPass {
    pub fn new(loader: &ValLoader, device: tch::Device, left: Option<usize>) -> Self {
        Self {
            batches: Rc::new(RefCell::new(loader.iter())),
            normalization: Rc::new(loader.normalization().clone()),
            dataset: loader.dataset().clone(),
            device,
            left,
        }
    }
}

impl Iterator for ValPass {
    type Item = ScriptResult<BatchHandle>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        oom::set_pass(None); // Not a pass of training: a smaller micro-batch need not help.
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
    engine.register_global_module(exported_module!(types).into());
    engine.register_iterator_result::<MicroBatches, BatchHandle>();
    engine.register_iterator_result::<ValPass, BatchHandle>();
    engine.register_global_module(exported_module!(methods).into());
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// Images on the device, with their masks or classes, if they have any.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::pair_loader(images, #{ batch: 4, image_size: 32, long_edge: [32, 48] });
    /// let batch = ();
    /// for first in loader.micro(0) { batch = first; }
    /// ```
    pub type Batch = BatchHandle;

    /// What `loader.micro(step)` gives, for a `for` loop.
    pub type MicroBatches = super::MicroBatches;

    /// What `batches()` of a `ValLoader` gives, for a `for` loop.
    pub type ValBatches = ValPass;
}

#[export_module]
mod methods {
    /// The images. Shapes: `[N, C, H, W]`, normalized.
    ///
    /// ```rhai
    /// assert(batch.images.shape == [4, 2, 32, 32]);
    /// ```
    #[rhai_fn(get = "images", pure)]
    pub fn images(batch: &mut BatchHandle) -> TensorHandle {
        batch.images.clone()
    }

    /// The masks. Shapes: `[N, H, W]`, whole numbers: a label per pixel, 255 for none. In validation, H and W are those of the
    /// annotations, whatever the images' are.
    ///
    /// ```rhai
    /// assert(batch.masks.shape == [4, 32, 32]);
    /// ```
    #[rhai_fn(get = "masks", return_raw, pure)]
    pub fn masks(ctx: NativeCallContext, batch: &mut BatchHandle) -> ScriptResult<TensorHandle> {
        batch.masks.clone().ok_or_else(|| {
            let hint = "open images with their masks, and take batches from data::pair_loader";
            script_error(&ctx, Failure::script("this batch has no masks").with_hint(hint))
        })
    }

    /// The classes of whole images. Shapes: `[N]`, whole numbers.
    ///
    /// ```rhai
    /// images.preview("cat_1.png");
    /// images.preview("dog_1.png");
    /// let pets = data::open(#{ folder: "previews", labels: "prefix" });
    /// for batch in data::batches(pets, #{ batch: 2 }).batches() {
    ///     assert(batch.labels.to_array() == [0, 1]);
    /// }
    /// ```
    #[rhai_fn(get = "labels", return_raw, pure)]
    pub fn labels(ctx: NativeCallContext, batch: &mut BatchHandle) -> ScriptResult<TensorHandle> {
        batch.labels.clone().ok_or_else(|| {
            let hint = "open a folder whose images are labeled, as data::open(#{ folder: …, labels: \"folders\" })";
            script_error(&ctx, Failure::script("this batch has no labels").with_hint(hint))
        })
    }

    /// Whether the batch has masks.
    ///
    /// ```rhai
    /// assert(batch.has_masks);
    /// ```
    #[rhai_fn(get = "has_masks", pure)]
    pub fn has_masks(batch: &mut BatchHandle) -> bool {
        batch.masks.is_some()
    }

    /// The names of its files; of a training batch, none.
    ///
    /// ```rhai
    /// for whole in data::batches(images, #{ batch: 8 }).batches() {
    ///     assert(whole.names == images.files());
    /// }
    /// assert(batch.names.is_empty());
    /// ```
    #[rhai_fn(get = "names", pure)]
    pub fn names(batch: &mut BatchHandle) -> Array {
        batch.names.iter().cloned().map(Dynamic::from).collect()
    }

    /// Images in the batch.
    ///
    /// ```rhai
    /// assert(batch.size == 4);
    /// ```
    #[rhai_fn(get = "size", pure)]
    pub fn size(batch: &mut BatchHandle) -> INT {
        batch.size()
    }

    /// The first `count` images of the batch.
    ///
    /// ```rhai
    /// assert(batch.first(2).images.shape == [2, 2, 32, 32]);
    /// ```
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
