//! UperNets, their predictions, and the scores of these: `models::upernet`, `model.predict`, `models::scores`.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map, Module, NativeCallContext};
use tch::{Kind, Tensor};

use super::data::BatchHandle;
use super::models::{ModelHandle, Network, PictureHandle, check_classes, check_size, masks};
use super::tensor::{TensorHandle, size};
use crate::confusion::Confusion;
use crate::host::convert::{self, Classes, MaybeFloat};
use crate::host::errors::{ScriptResult, check_arg, in_words, script_error};
use crate::host::options::{ImageSize, OptionMap};
use crate::host::session::Session;
use crate::nn::{NnResult, Prediction, Upernet, UpernetConfig, VitConfig, pos_embed};
use crate::train::pictures::Picture;
use crate::train::segmentation;

/// How well label maps agree with their annotation, as scripts hold it: copies are the same.
#[derive(Clone)]
pub struct ScoresHandle {
    names: Rc<[ImmutableString]>,
    confusion: Rc<RefCell<Confusion>>,
}

impl ScoresHandle {
    pub fn new(names: Vec<ImmutableString>, confusion: Confusion) -> Self {
        Self { names: names.into(), confusion: Rc::new(RefCell::new(confusion)) }
    }
}

pub fn register(engine: &mut Engine, models: &mut Module) {
    engine.register_global_module(exported_module!(types).into());
    models.combine_flatten(exported_module!(functions));
    engine.register_global_module(exported_module!(methods).into());
}

/// Names of classes: an array of them, or how many there are.
pub fn class_names(ctx: &NativeCallContext, classes: &Dynamic) -> ScriptResult<Vec<ImmutableString>> {
    if let Ok(count) = classes.as_int() {
        return Ok((0..count.clamp(0, 1_000_000)).map(|class| class.to_string().into()).collect());
    }
    let names = classes.read_lock::<Array>().map(|names| names.to_vec());
    let names = names.ok_or_else(|| script_error(ctx, "classes: expected their names, or how many there are"))?;
    let name = |name: Dynamic| {
        let got = in_words(ctx.engine(), &name);
        name.into_immutable_string().map_err(|_| script_error(ctx, format!("classes: expected names, got {got}")))
    };
    names.into_iter().map(name).collect()
}

/// The shape of `encoder`'s vision transformer, with the changes that fine-tuning may make.
pub fn tuned_config(
    ctx: &NativeCallContext,
    encoder: &ModelHandle,
    options: &mut OptionMap,
) -> ScriptResult<VitConfig> {
    let Some(config) = encoder.encoder_config() else {
        return Err(script_error(ctx, "encoder: expected a model with a vision transformer in it"));
    };
    let mut config = config.clone();
    if let Some(ImageSize(height, width)) = options.get("image_size")? {
        config.image_size = (height, width);
    }
    config.drop_path = options.or("drop_path", 0.0)?;
    check_size(ctx, &config, config.embed_dim)?;
    Ok(config)
}

/// The encoder's tensors under the names that a model built on it has, every R folded in, positions on the new grid.
pub fn encoder_state(encoder: &ModelHandle, config: &VitConfig) -> NnResult<Vec<(String, Tensor)>> {
    let bare = matches!(encoder.network(), Network::Vit(_));
    let mut state = encoder.registry().fused_state()?;
    let before = encoder.encoder_config().map_or(config.grid(), VitConfig::grid);
    for (name, tensor) in &mut state {
        if bare {
            *name = format!("encoder.{name}");
        }
        if name == "encoder.pos_embed" {
            *tensor = pos_embed::resample(tensor, before, config.grid())?;
        }
    }
    Ok(state)
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// How well label maps agree with their annotation, as a confusion matrix: copies are the same. Prints as a table.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 4 });
    /// let scores = models::scores(images.classes);
    /// for batch in data::batches(images, #{}).batches() {
    ///     scores.add(batch, batch.masks); // a prediction that is right everywhere
    /// }
    /// ```
    pub type Scores = ScoresHandle;
}

#[export_module]
mod functions {
    /// A UperNet (Xiao et al. 2018) for `classes` on a copy of `encoder`'s vision transformer: a masked autoencoder, a vision
    /// transformer, or another UperNet. Every R is folded into its weight; the encoder itself stays as it is.
    ///
    /// Options:
    /// - `image_size` (int or [int, int], the encoder's): positions are interpolated
    /// - `channels` (int, 512): the head's width
    /// - `taps` ([int], four even ones): blocks whose tokens the head sees; `[3, 5, 7, 11]` of 12
    /// - `pool_scales` ([int], `[1, 2, 3, 6]`): of the pooling pyramid
    /// - `aux_channels` (int, 256): the auxiliary head's width
    /// - `aux_weight` (number, 0.4): of its loss; 0 leaves the head out
    /// - `dropout` (number, 0.1): before the last layer
    /// - `drop_path` (number, 0): stochastic depth
    /// - `class_weights` ([number], equal ones): of the loss, one per class; `images.class_weights()` has some
    ///
    /// ```rhai
    /// let encoder = models::vit(#{ image_size: 32, patch_size: 8, embed_dim: 16, depth: 4, num_heads: 2 });
    /// let model = models::upernet(encoder, ["wire", "other"], #{ channels: 8, aux_channels: 8 });
    /// assert(model.forward(tensor::zeros([1, 3, 32, 32])).shape == [1, 2, 32, 32]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn upernet(
        ctx: NativeCallContext,
        encoder: ModelHandle,
        classes: Classes,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "models::upernet", options);
        let classes = super::class_names(&ctx, &classes)?.len() as i64;
        let usual = UpernetConfig::new(super::tuned_config(&ctx, &encoder, &mut options)?, classes);
        let mut whole = |key: &'static str, usual: Vec<i64>| -> ScriptResult<Vec<i64>> {
            options.get::<Dynamic>(key)?.map_or(Ok(usual), |given| convert::ints(&ctx, key, &given))
        };
        let (taps, pool_scales) = (whole("taps", usual.taps)?, whole("pool_scales", usual.pool_scales)?);
        let config = UpernetConfig {
            taps,
            pool_scales,
            channels: options.or("channels", usual.channels)?,
            aux_channels: options.or("aux_channels", usual.aux_channels)?,
            aux_weight: options.or("aux_weight", usual.aux_weight)?,
            dropout: options.or("dropout", usual.dropout)?,
            encoder: usual.encoder,
            classes,
        };
        let weights = options.get::<Dynamic>("class_weights")?;
        options.finish()?;
        config.check().map_err(|err| script_error(&ctx, err))?;
        let joined = config.encoder.embed_dim + config.pool_scales.len() as i64 * config.channels;
        size::check(&ctx, &[config.channels, joined.max(4 * config.channels), 9], Kind::Float)?;
        size::check(&ctx, &[config.aux_channels, config.encoder.embed_dim, 9], Kind::Float)?;
        let session = Session::of(&ctx);
        let device = session.options.device;
        let weights = weights.map(|given| super::class_weights(&ctx, &given, classes, device)).transpose()?;
        let model = Upernet::new(&config, session.seed(), Kind::Float, device).and_then(|model| {
            model.registry().load_part("encoder.", &super::encoder_state(&encoder, &config.encoder)?)?;
            Ok(model)
        });
        let model = model.map_err(|err| script_error(&ctx, err))?;
        let registry = Rc::clone(model.registry());
        Ok(ModelHandle::new(Network::Upernet(Box::new(model), weights), registry))
    }

    /// An empty confusion matrix for `classes`, 1 to 4096.
    ///
    /// ```rhai
    /// let scores = models::scores(["background", "wire"]);
    /// assert(scores.pixels == 0 && scores.miou == ());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn scores(ctx: NativeCallContext, classes: Classes) -> ScriptResult<ScoresHandle> {
        let names = super::class_names(&ctx, &classes)?;
        if !(1..=4096).contains(&names.len()) {
            return Err(script_error(&ctx, format!("classes: expected 1 to 4096, got {}", names.len())));
        }
        let confusion = Confusion::new(names.len());
        Ok(ScoresHandle::new(names, confusion))
    }
}

fn class_weights(ctx: &NativeCallContext, given: &Dynamic, classes: i64, device: tch::Device) -> ScriptResult<Tensor> {
    let fail = || script_error(ctx, format!("class_weights: expected {classes} numbers, 0 or more, one per class"));
    let given = given.read_lock::<Array>().ok_or_else(fail)?;
    let weights: Option<Vec<f32>> =
        given.iter().map(|weight| crate::host::options::number(weight).map(|weight| weight as f32)).collect();
    let weights = weights.filter(|weights| weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0));
    let weights = weights.filter(|weights| weights.len() as i64 == classes).ok_or_else(fail)?;
    let tensor = Tensor::f_from_slice(&weights).and_then(|weights| weights.f_to_device(device));
    tensor.map_err(|err| script_error(ctx, err))
}

fn prediction(ctx: &NativeCallContext, model: &ModelHandle, batch: &BatchHandle, options: Map) -> ScriptResult<Tensor> {
    let mut options = OptionMap::new(ctx, "predict", options);
    let usual = Prediction::default();
    let how = Prediction {
        window: options.get::<ImageSize>("window")?.map(|ImageSize(height, width)| (height, width)),
        overlap: options.or("overlap", usual.overlap)?,
        flip: options.or("flip", usual.flip)?,
        size: match options.get::<ImageSize>("size")? {
            Some(ImageSize(height, width)) => Some((height, width)),
            None => batch.own_size,
        },
    };
    options.finish()?;
    let images = batch.images.tensor();
    let made = match model.network() {
        Network::Upernet(upernet, _) => {
            if let Some((height, width)) = how.size {
                check_arg(ctx, height > 0 && width > 0, || format!("size: expected pixels, got [{height}, {width}]"))?;
                size::check(ctx, &[batch.size(), upernet.config().classes, height, width], images.kind())?;
            }
            upernet.predict(images, &how)
        }
        Network::Classifier(classifier, _) => {
            tch::no_grad(|| Ok(classifier.logits(images, crate::nn::Pass::EVALUATE)?.f_argmax(1, false)?))
        }
        _ => {
            let message = "predict: only a UperNet (models::upernet) or a classifier (models::classifier) has it";
            return Err(script_error(ctx, message));
        }
    };
    made.map_err(|err| script_error(ctx, err))
}

fn optional(figure: Option<f64>) -> Dynamic {
    figure.map_or(Dynamic::UNIT, Dynamic::from)
}

#[export_module]
mod methods {
    /// The likeliest class of every pixel, `[N, H, W]` int64, at the size of the annotation or, without one, of the original
    /// image; of a classifier, of every image, `[N]`.
    ///
    /// Options:
    /// - `window` (int or [int, int], the image): pixels; labels are made window by window, in memory bounded by it
    /// - `overlap` (number, 1/3): of a window with the next
    /// - `flip` (bool, false): averages with the mirrored image
    /// - `size` (int or [int, int]): of the labels
    ///
    /// ```rhai
    /// let tuned = models::upernet(model, images.classes, #{ channels: 8, aux_channels: 8, taps: [0, 0, 0, 0] });
    /// assert(tuned.predict(batch, #{ window: 16, flip: true, size: 64 }).shape == [4, 64, 64]);
    /// ```
    #[rhai_fn(name = "predict", return_raw, pure)]
    pub fn predict_with(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        batch: BatchHandle,
        options: Map,
    ) -> ScriptResult<TensorHandle> {
        Ok(super::prediction(&ctx, model, &batch, options)?.into())
    }

    /// The same for whole images at once.
    #[rhai_fn(return_raw, pure)]
    pub fn predict(ctx: NativeCallContext, model: &mut ModelHandle, batch: BatchHandle) -> ScriptResult<TensorHandle> {
        Ok(super::prediction(&ctx, model, &batch, Map::new())?.into())
    }

    /// Adds the labeled pixels of a batch.
    ///
    /// ```rhai
    /// let before = scores.pixels;
    /// for batch in data::batches(images, #{}).batches() {
    ///     scores.add(batch, batch.masks);
    /// }
    /// assert(scores.pixels == 2 * before);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn add(
        ctx: NativeCallContext,
        scores: &mut ScoresHandle,
        batch: BatchHandle,
        prediction: TensorHandle,
    ) -> ScriptResult<()> {
        let masks = masks(&ctx, "add", &batch)?;
        check_classes(&ctx, "add", &batch, scores.names.len() as i64)?;
        let mut confusion = scores.confusion.borrow_mut();
        segmentation::add(&mut confusion, masks.tensor(), prediction.tensor()).map_err(|err| script_error(&ctx, err))
    }

    /// Mean over classes of intersection over union; a class neither annotated nor predicted is left out. `()` without pixels.
    ///
    /// ```rhai
    /// assert(scores.miou == 1.0);
    /// ```
    #[rhai_fn(get = "miou", pure)]
    pub fn miou(scores: &mut ScoresHandle) -> MaybeFloat {
        super::optional(scores.confusion.borrow().miou())
    }

    /// Share of labeled pixels that are right; `()` without pixels.
    ///
    /// ```rhai
    /// assert(scores.pixel_accuracy == 1.0);
    /// ```
    #[rhai_fn(get = "pixel_accuracy", pure)]
    pub fn pixel_accuracy(scores: &mut ScoresHandle) -> MaybeFloat {
        super::optional(scores.confusion.borrow().pixel_accuracy())
    }

    /// Mean over annotated classes of the share of their pixels that are found; `()` without pixels.
    ///
    /// ```rhai
    /// assert(scores.mean_accuracy == 1.0);
    /// ```
    #[rhai_fn(get = "mean_accuracy", pure)]
    pub fn mean_accuracy(scores: &mut ScoresHandle) -> MaybeFloat {
        super::optional(scores.confusion.borrow().mean_accuracy())
    }

    /// Intersection over union by name of class; without the classes that are neither annotated nor predicted.
    ///
    /// ```rhai
    /// assert(scores.iou.contains("background") && scores.iou.values().all(|iou| iou == 1.0));
    /// ```
    #[rhai_fn(get = "iou", pure)]
    pub fn iou(scores: &mut ScoresHandle) -> Map {
        let confusion = scores.confusion.borrow();
        let of = |(class, name): (usize, &ImmutableString)| Some((name.as_str().into(), confusion.iou(class)?.into()));
        scores.names.iter().enumerate().filter_map(of).collect()
    }

    /// Pixels by (annotation, prediction): an array with a row per annotated class.
    ///
    /// ```rhai
    /// let matrix = scores.confusion;
    /// assert(matrix.len() == images.classes.len() && matrix[0][1] == 0);
    /// ```
    #[rhai_fn(get = "confusion", pure)]
    pub fn confusion(scores: &mut ScoresHandle) -> Array {
        let confusion = scores.confusion.borrow();
        let classes = 0..confusion.classes();
        let row = |annotation| -> Array {
            classes.clone().map(|prediction| Dynamic::from(confusion.count(annotation, prediction) as INT)).collect()
        };
        classes.clone().map(|annotation| Dynamic::from(row(annotation))).collect()
    }

    /// Labeled pixels so far.
    ///
    /// ```rhai
    /// assert(scores.pixels == 4 * 32 * 32);
    /// ```
    #[rhai_fn(get = "pixels", pure)]
    pub fn pixels(scores: &mut ScoresHandle) -> INT {
        scores.confusion.borrow().total() as INT
    }

    /// A table: IoU, accuracy and share of pixels of each class, and the means.
    ///
    /// ```rhai
    /// assert(scores.to_string().contains("pixel accuracy"));
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn table(scores: &mut ScoresHandle) -> String {
        let confusion = scores.confusion.borrow();
        let total = confusion.total(); // Of all cells: once, not for every class.
        let percent = |figure: Option<f64>| match figure {
            Some(figure) => format!("{:6.2}", 100.0 * figure),
            None => "     –".to_owned(),
        };
        let width = scores.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(14);
        let mut text = format!("{:width$}  IoU %   accuracy %  pixels %\n", "class");
        for (class, name) in scores.names.iter().enumerate() {
            let share = (total > 0).then(|| confusion.annotated(class) as FLOAT / total as FLOAT);
            let (iou, accuracy) = (percent(confusion.iou(class)), percent(confusion.accuracy(class)));
            text.push_str(&format!("{name:width$}  {iou}  {accuracy}      {}\n", percent(share)));
        }
        let (miou, accuracy) = (percent(confusion.miou()), percent(confusion.mean_accuracy()));
        text.push_str(&format!("{:width$}  {miou}  {accuracy}\n", "mean"));
        text.push_str(&format!("{:width$}          {}", "pixel accuracy", percent(confusion.pixel_accuracy())));
        text
    }

    /// A picture with each image, its annotation if it has one, and the prediction laid over it in the colors of the classes
    /// that the model was trained on.
    ///
    /// ```rhai
    /// let tuned = models::upernet(model, images.classes, #{ channels: 8, aux_channels: 8, taps: [0, 0, 0, 0] });
    /// let output = run::output(#{});
    /// output.picture("labels", tuned.overlay(batch, tuned.predict(batch)));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn overlay(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        batch: BatchHandle,
        prediction: TensorHandle,
    ) -> ScriptResult<PictureHandle> {
        let normalization = (&batch.normalization.mean[..], &batch.normalization.std[..]);
        let mut maps: Vec<&Tensor> = batch.masks.iter().map(TensorHandle::tensor).collect();
        maps.push(prediction.tensor());
        let known = model.registry().trained_on().map(|said| said.colors).filter(|colors| !colors.is_empty());
        let colors = known.as_deref().unwrap_or(&batch.colors);
        let picture = Picture::segmentation(batch.images.tensor(), &maps, colors, normalization);
        Ok(PictureHandle(Rc::new(picture.map_err(|err| script_error(&ctx, err))?)))
    }
}
