//! `models`: vision transformers and masked autoencoders, and what every model can do.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map, NativeCallContext};
use tch::{Kind, Tensor};

use super::custom::frame::{Frame, Open, Training};
use super::custom::{self, Custom, Simple};
use super::data::BatchHandle;
use super::tensor::{TensorHandle, size};
use super::{classification, segmentation};
use crate::host::convert::{MaybeInt, MaybeMap, MaybePair};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::options::{ImageSize, OptionMap};
use crate::host::session::Session;
use crate::host::suggest::did_you_mean;
use crate::nn::upernet::cross_entropy;
use crate::nn::{
    Architecture, Classifier, Conv2d, Conv2dConfig, Linear, Mae, MaeConfig, NnError, Pass, Place, Registry, Upernet,
    Vit, VitConfig,
};
use crate::train::TrainError;
use crate::train::pictures::Picture;

impl From<NnError> for Failure {
    fn from(err: NnError) -> Self {
        match err {
            NnError::Torch(err) => err.into(),
            err => Self::script(err.to_string()),
        }
    }
}

impl From<TrainError> for Failure {
    fn from(err: TrainError) -> Self {
        match err {
            TrainError::Nn(err) => err.into(),
            TrainError::Torch(err) => err.into(),
            TrainError::Io { .. } => Self::machine(err.to_string()),
            TrainError::Diverged(_) => Self::new(crate::host::errors::Kind::Diverged, err.to_string()),
            TrainError::Broken { .. } | TrainError::Config(_) => Self::script(err.to_string()),
        }
    }
}

/// What a model handle stands for.
pub enum Network {
    Mae(Box<Mae>),
    Vit(Box<Vit>),
    /// With the weights of its classes in the loss.
    Upernet(Box<Upernet>, Option<Tensor>),
    /// With the label smoothing of its loss.
    Classifier(Box<Classifier>, f64),
    Linear(Rc<Linear>),
    Conv2d(Rc<Conv2d>),
    /// A part of a custom model.
    Simple(Simple),
    Custom(Box<Custom>),
}

pub struct Model {
    network: Network,
    registry: Rc<Registry>,
    /// The loss of the last step, added up over its micro-batches; left on the device.
    last_loss: RefCell<Option<Tensor>>,
    /// Which pass is under way: a model and its parts share it.
    frame: Rc<Frame>,
    /// The name of what is a part of another model.
    part: Option<String>,
}

/// A model as scripts hold it: copies are the same model.
#[derive(Clone)]
pub struct ModelHandle(pub Rc<Model>);

impl ModelHandle {
    pub fn new(network: Network, registry: Rc<Registry>) -> Self {
        Self(Rc::new(Model { network, registry, last_loss: RefCell::default(), frame: Rc::default(), part: None }))
    }

    /// A part of this model, by its whole name.
    pub fn part(&self, name: &str, network: Network) -> Self {
        let Model { registry, frame, .. } = &*self.0;
        let (registry, frame, part) = (Rc::clone(registry), Rc::clone(frame), Some(name.to_owned()));
        Self(Rc::new(Model { network, registry, last_loss: RefCell::default(), frame, part }))
    }

    /// The name of a part; `None` for a whole model.
    pub fn part_name(&self) -> Option<&str> {
        self.0.part.as_deref()
    }

    /// What the names of its tensors begin with.
    pub fn prefix(&self) -> String {
        self.0.part.as_ref().map_or(String::new(), |part| format!("{part}."))
    }

    /// The training pass that a call belongs to; `None` is evaluation.
    fn current(&self) -> Option<Rc<Training>> {
        self.0.frame.current(self.registry())
    }

    /// Makes one pass of everything until what is returned is dropped.
    pub fn open_pass(&self) -> Open {
        self.0.frame.open(self.current())
    }

    /// The same for a batch's pass.
    pub fn open_pass_at(&self, place: Place) -> Open {
        self.0.frame.open(Some(Training::new(place, self.registry().device())))
    }

    /// Adds a micro-batch's loss to that of its step.
    fn note_loss(&self, loss: &Tensor, micro: u64) -> Result<(), tch::TchError> {
        let mut last = self.0.last_loss.borrow_mut();
        let sum = match last.take() {
            Some(before) if micro > 0 => before.f_add(&loss.f_detach()?)?,
            _ => loss.f_detach()?,
        };
        *last = Some(sum);
        Ok(())
    }

    pub fn registry(&self) -> &Rc<Registry> {
        &self.0.registry
    }

    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// The shape of the vision transformer in it.
    pub fn encoder_config(&self) -> Option<&VitConfig> {
        match &self.0.network {
            Network::Mae(mae) => Some(&mae.config().encoder),
            Network::Vit(vit) => Some(vit.config()),
            Network::Upernet(upernet, _) => Some(&upernet.config().encoder),
            Network::Classifier(classifier, _) => Some(&classifier.config().encoder),
            Network::Linear(_) | Network::Conv2d(_) | Network::Simple(_) | Network::Custom(_) => None,
        }
    }

    fn mae(&self, ctx: &NativeCallContext, what: &str) -> ScriptResult<&Mae> {
        match &self.0.network {
            Network::Mae(mae) => Ok(mae),
            _ => Err(script_error(ctx, format!("{what}: only a masked autoencoder (models::mae) has it"))),
        }
    }
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    let mut functions = exported_module!(functions);
    custom::register(engine, &mut functions);
    segmentation::register(engine, &mut functions);
    classification::register(engine, &mut functions);
    combine_with_exported_module!(&mut functions, "weights", super::weights::functions);
    engine.register_static_module("models", functions.into());
    engine.register_global_module(exported_module!(methods).into());
}

/// A picture as scripts hold it.
#[derive(Clone)]
pub struct PictureHandle(pub Rc<Picture>);

/// The annotations of a batch.
pub fn masks(ctx: &NativeCallContext, what: &str, batch: &BatchHandle) -> ScriptResult<TensorHandle> {
    batch.masks.clone().ok_or_else(|| {
        let hint = "data::pair_loader makes batches of images and masks";
        script_error(ctx, Failure::script(format!("{what}: the batch has no masks")).with_hint(hint))
    })
}

/// The classes of a batch's images.
pub fn labels(ctx: &NativeCallContext, what: &str, batch: &BatchHandle) -> ScriptResult<TensorHandle> {
    batch.labels.clone().ok_or_else(|| {
        let hint = "open the images with data::open(#{ folder: …, labels: \"folders\" })";
        script_error(ctx, Failure::script(format!("{what}: the batch has no labels")).with_hint(hint))
    })
}

/// Refuses labels that the model has no class for: a GPU would not recover from them.
pub fn check_classes(ctx: &NativeCallContext, what: &str, batch: &BatchHandle, classes: i64) -> ScriptResult<()> {
    match batch.classes.filter(|given| *given > classes) {
        Some(given) => {
            Err(script_error(ctx, format!("{what}: the images have {given} classes, expected at most {classes}")))
        }
        None => Ok(()),
    }
}

fn no_batch(ctx: &NativeCallContext, what: &str, got: &Dynamic) -> Box<rhai::EvalAltResult> {
    let got = ctx.engine().map_type_name(got.type_name());
    script_error(ctx, format!("{what}: expected a batch of a loader, got {got}"))
}

/// The share of one of several micro-batches.
fn divided(loss: Tensor, micro_batches: u64) -> Result<Tensor, tch::TchError> {
    if micro_batches > 1 { loss.f_div_scalar(micro_batches as f64) } else { Ok(loss) }
}

fn no_loss(ctx: &NativeCallContext, what: &str) -> Box<rhai::EvalAltResult> {
    script_error(ctx, format!("{what}: this model has no loss of its own; compute one from forward(x)"))
}

/// The options of a vision transformer, out of a map that may hold others.
fn vit_config(options: &mut OptionMap) -> ScriptResult<VitConfig> {
    let ImageSize(height, width) = options.need("image_size")?;
    Ok(VitConfig {
        image_size: (height, width),
        patch_size: options.need("patch_size")?,
        channels: options.or("channels", 3)?,
        embed_dim: options.need("embed_dim")?,
        depth: options.need("depth")?,
        num_heads: options.need("num_heads")?,
        mlp_ratio: options.or("mlp_ratio", 4.0)?,
        drop_path: 0.0,
    })
}

/// Refuses a model with a tensor beyond `--max-tensor-bytes`, before it is made.
pub(super) fn check_size(ctx: &NativeCallContext, config: &VitConfig, decoder_width: i64) -> ScriptResult<()> {
    config.check().map_err(|err| script_error(ctx, err))?;
    let hidden = (config.embed_dim as f64 * config.mlp_ratio) as i64;
    let widest = config.embed_dim.max(decoder_width);
    size::check(ctx, &[widest, hidden.max(3 * widest)], Kind::Float)?;
    size::check(ctx, &[config.embed_dim, config.channels, config.patch_size, config.patch_size], Kind::Float)?;
    size::check(ctx, &[config.patches() + 1, widest], Kind::Double)
}

/// Refuses a convolution whose padded input or output is beyond `--max-tensor-bytes`; shapes that do not fit are its own matter.
fn check_conv_size(ctx: &NativeCallContext, config: &Conv2dConfig, x: &Tensor) -> ScriptResult<()> {
    let [n, c, h, w] = x.size()[..] else { return Ok(()) };
    let Ok((rows, columns)) = config.output((h, w)) else { return Ok(()) };
    size::check(ctx, &[n, c, h + 2 * config.padding.0, w + 2 * config.padding.1], x.kind())?;
    size::check(ctx, &[n, config.out_channels, rows, columns], x.kind())
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// A model or a layer on its own: copies are the same model.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// let model = models::mae(#{
    ///     image_size: 32, patch_size: 8, channels: images.channels, embed_dim: 16, depth: 1, num_heads: 2,
    ///     decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
    /// });
    /// let batch = ();
    /// for first in loader.micro(0) { batch = first; }
    /// ```
    pub type Model = ModelHandle;

    /// A picture that a model made, for `run.picture(name, picture)` and `output.picture(name, picture)`.
    pub type Picture = PictureHandle;
}

/// Vision transformers, masked autoencoders, and what is fine-tuned from them.
#[export_module]
mod functions {
    /// A masked autoencoder on a vision transformer (He et al. 2022), freshly initialized from the seed.
    ///
    /// Options: those of `models::vit`, and
    /// - `decoder_embed_dim` (int): width of a token in the decoder
    /// - `decoder_depth` (int): blocks of the decoder
    /// - `decoder_num_heads` (int): attention heads in each of these
    /// - `mask_ratio` (number, 0.75): the fraction of patches removed, between 0 and 1
    /// - `norm_pix` (bool, false): whether each patch's pixels are normalized before they are compared
    ///
    /// ```rhai
    /// let model = models::mae(#{
    ///     image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2,
    ///     decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2, mask_ratio: 0.5,
    /// });
    /// assert(model.layers().contains("encoder.blocks.0.attn.qkv"));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn mae(ctx: NativeCallContext, options: Map) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "models::mae", options);
        let config = MaeConfig {
            encoder: vit_config(&mut options)?,
            decoder_embed_dim: options.need("decoder_embed_dim")?,
            decoder_depth: options.need("decoder_depth")?,
            decoder_num_heads: options.need("decoder_num_heads")?,
            mask_ratio: options.or("mask_ratio", 0.75)?,
            norm_pix: options.or("norm_pix", false)?,
        };
        options.finish()?;
        check_size(&ctx, &config.encoder, config.decoder_embed_dim)?;
        let session = Session::of(&ctx);
        let model = Mae::new(&config, session.seed(), Kind::Float, session.options.device);
        let model = model.map_err(|err| script_error(&ctx, err))?;
        let registry = Rc::clone(model.registry());
        Ok(ModelHandle::new(Network::Mae(Box::new(model)), registry))
    }

    /// A vision transformer: class token, fixed 2-D sine-cosine positions, pre-norm blocks.
    ///
    /// Options:
    /// - `image_size` (int or [int, int]): pixels: a side, or `[height, width]`
    /// - `patch_size` (int): pixels; divides the image's sides
    /// - `channels` (int, 3): of the images
    /// - `embed_dim` (int): width of a token
    /// - `depth` (int): blocks
    /// - `num_heads` (int): attention heads in each; divides `embed_dim`
    /// - `mlp_ratio` (number, 4): width inside a block's MLP over `embed_dim`
    ///
    /// ```rhai
    /// let model = models::vit(#{ image_size: [32, 64], patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2 });
    /// assert(model.forward(tensor::zeros([2, 3, 32, 64])).shape == [2, 1 + 4 * 8, 16]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn vit(ctx: NativeCallContext, options: Map) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "models::vit", options);
        let config = vit_config(&mut options)?;
        options.finish()?;
        check_size(&ctx, &config, config.embed_dim)?;
        let session = Session::of(&ctx);
        let registry = Registry::new(session.seed(), session.options.device, Kind::Float);
        let model = Vit::new(&registry.root(), &config).map_err(|err| script_error(&ctx, err))?;
        registry.set_architecture(Architecture::Vit(config));
        Ok(ModelHandle::new(Network::Vit(Box::new(model)), registry))
    }
}

#[export_module]
mod methods {
    /// Trained values in all.
    ///
    /// ```rhai
    /// assert(nn::linear(4, 2).parameters == 4 * 2 + 2);
    /// ```
    #[rhai_fn(get = "parameters", pure)]
    pub fn parameters(model: &mut ModelHandle) -> INT {
        model.registry().parameter_count()
    }

    /// What the pixels of its training images were normalized with, `#{ mean, std }`, for `data::batches`; `()` if nobody said.
    ///
    /// ```rhai
    /// assert(model.normalization == ()); // until it was trained or loaded
    /// ```
    #[rhai_fn(get = "normalization", pure)]
    pub fn normalization(model: &mut ModelHandle) -> MaybeMap {
        let numbers = |values: Vec<f32>| -> Array { values.into_iter().map(|x| Dynamic::from(f64::from(x))).collect() };
        model.registry().trained_on().map_or(Dynamic::UNIT, |said| {
            Map::from([("mean".into(), numbers(said.mean).into()), ("std".into(), numbers(said.std).into())]).into()
        })
    }

    /// The names of the classes it was trained on; empty if it has none.
    ///
    /// ```rhai
    /// assert(model.classes.is_empty());
    /// ```
    #[rhai_fn(get = "classes", pure)]
    pub fn classes(model: &mut ModelHandle) -> Array {
        let names = model.registry().trained_on().map_or(Vec::new(), |said| said.classes);
        names.into_iter().map(Dynamic::from).collect()
    }

    /// The side of the images it was made for, in pixels: a number, or `[height, width]`; `()` for a layer on its own.
    ///
    /// ```rhai
    /// assert(model.image_size == 32);
    /// ```
    #[rhai_fn(get = "image_size", pure)]
    pub fn image_size(model: &mut ModelHandle) -> MaybePair {
        model.encoder_config().map_or(Dynamic::UNIT, |config| match config.image_size {
            (height, width) if height == width => height.into(),
            (height, width) => Dynamic::from_array(vec![height.into(), width.into()]),
        })
    }

    /// Channels of the images it takes; `()` for a layer on its own.
    ///
    /// ```rhai
    /// assert(model.channels == images.channels);
    /// ```
    #[rhai_fn(get = "channels", pure)]
    pub fn channels(model: &mut ModelHandle) -> MaybeInt {
        model.encoder_config().map_or(Dynamic::UNIT, |config| config.channels.into())
    }

    /// A parameter or R by its name in checkpoints, as a copy.
    ///
    /// ```rhai
    /// assert(model.tensor("encoder.blocks.0.attn.qkv.weight").shape == [3 * 16, 16]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn tensor(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
    ) -> ScriptResult<TensorHandle> {
        let state = model.registry().state();
        let found = state.iter().find(|(own, _)| *own == name.as_str());
        let (_, tensor) = found.ok_or_else(|| {
            let hint = did_you_mean(&name, state.iter().map(|(own, _)| own.as_str()));
            script_error(&ctx, Failure { hint, ..Failure::script(format!("the model has no tensor {name}")) })
        })?;
        Ok(tensor.f_detach_copy().map_err(|err| script_error(&ctx, err))?.into())
    }

    /// The training loss of a batch, a tensor to call `backward` on, divided by the number of micro-batches of its step. Of a
    /// masked autoencoder: mean squared error over removed patches; of a UperNet: cross-entropy over labeled pixels, with
    /// the auxiliary head's; of a classifier: cross-entropy.
    ///
    /// ```rhai
    /// let loss = model.loss(batch);
    /// loss.backward();
    /// assert(loss.item() > 0.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn loss(ctx: NativeCallContext, model: &mut ModelHandle, batch: BatchHandle) -> ScriptResult<TensorHandle> {
        let (images, place) = (batch.images.shallow_clone(), batch.place);
        let (images, place) = (&images, &place);
        let loss = match model.network() {
            Network::Mae(mae) => mae.loss(images, place),
            Network::Upernet(upernet, weights) => {
                let masks = masks(&ctx, "loss", &batch)?;
                check_classes(&ctx, "loss", &batch, upernet.config().classes)?;
                upernet.loss(images, masks.tensor(), weights.as_ref(), place)
            }
            Network::Classifier(classifier, smoothing) => {
                let labels = labels(&ctx, "loss", &batch)?;
                check_classes(&ctx, "loss", &batch, classifier.config().classes)?;
                classifier.loss(images, labels.tensor(), *smoothing, place)
            }
            Network::Custom(own) => {
                let place = batch.place;
                let loss = custom::loss(&ctx, model, own, Dynamic::from(batch), place)?;
                divided(loss, place.micro_batches).map_err(NnError::from)
            }
            Network::Vit(_) | Network::Linear(_) | Network::Conv2d(_) | Network::Simple(_) => {
                return Err(no_loss(&ctx, "loss"));
            }
        };
        let loss = loss.map_err(|err| script_error(&ctx, err))?;
        model.note_loss(&loss, place.micro).map_err(|err| script_error(&ctx, err))?;
        Ok(loss.into())
    }

    /// The same for a custom model and whatever its loss takes for a batch. Outside of a run every call is a step, inside of one
    /// all calls of a step are its micro-batches; they are not divided.
    #[rhai_fn(name = "loss", return_raw, pure)]
    pub fn loss_of_any(ctx: NativeCallContext, model: &mut ModelHandle, batch: Dynamic) -> ScriptResult<TensorHandle> {
        let Network::Custom(own) = model.network() else { return Err(no_batch(&ctx, "loss", &batch)) };
        let place = model.registry().next_place();
        let loss = custom::loss(&ctx, model, own, batch, place)?;
        model.note_loss(&loss, place.micro).map_err(|err| script_error(&ctx, err))?;
        Ok(loss.into())
    }

    /// The loss of the last step, over all its micro-batches; not read from the device until somebody looks.
    ///
    /// ```rhai
    /// let loss = model.loss(batch);
    /// assert(model.last_loss().item() == loss.item());
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn last_loss(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<TensorHandle> {
        let last = model.0.last_loss.borrow();
        let last = last.as_ref().ok_or_else(|| script_error(&ctx, "last_loss: loss(batch) has not been called yet"))?;
        Ok(last.shallow_clone().into())
    }

    /// The loss of a batch without gradients, auxiliary heads and label smoothing; decorrelated layers do not notice.
    ///
    /// ```rhai
    /// assert(model.evaluate(batch) > 0.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn evaluate(ctx: NativeCallContext, model: &mut ModelHandle, batch: BatchHandle) -> ScriptResult<FLOAT> {
        let images = &batch.images.shallow_clone();
        let loss = match model.network() {
            Network::Mae(mae) => mae.evaluate(images, &batch.place),
            Network::Upernet(upernet, weights) => {
                let masks = masks(&ctx, "evaluate", &batch)?;
                check_classes(&ctx, "evaluate", &batch, upernet.config().classes)?;
                tch::no_grad(|| upernet.loss_with(images, masks.tensor(), weights.as_ref(), Pass::EVALUATE))
            }
            Network::Classifier(classifier, _) => {
                let labels = labels(&ctx, "evaluate", &batch)?;
                check_classes(&ctx, "evaluate", &batch, classifier.config().classes)?;
                tch::no_grad(|| cross_entropy(&classifier.logits(images, Pass::EVALUATE)?, labels.tensor(), None, 0.0))
            }
            Network::Custom(own) => {
                let _guard = tch::no_grad_guard();
                let place = batch.place;
                Ok(custom::loss(&ctx, model, own, Dynamic::from(batch), place)?)
            }
            Network::Vit(_) | Network::Linear(_) | Network::Conv2d(_) | Network::Simple(_) => {
                return Err(no_loss(&ctx, "evaluate"));
            }
        };
        let loss = loss.map_err(|err| script_error(&ctx, err))?;
        loss.f_double_value(&[]).map_err(|err| script_error(&ctx, err))
    }

    /// The same for a custom model and whatever its loss takes for a batch.
    #[rhai_fn(name = "evaluate", return_raw, pure)]
    pub fn evaluate_any(ctx: NativeCallContext, model: &mut ModelHandle, batch: Dynamic) -> ScriptResult<FLOAT> {
        let Network::Custom(own) = model.network() else { return Err(no_batch(&ctx, "evaluate", &batch)) };
        let _guard = tch::no_grad_guard();
        let loss = custom::loss(&ctx, model, own, batch, Place::default())?;
        loss.f_double_value(&[]).map_err(|err| script_error(&ctx, err))
    }

    /// The loss of predicting, for every removed patch, its image's mean of visible pixels, with the masks of `evaluate`.
    ///
    /// ```rhai
    /// print(`${model.evaluate(batch)}, and ${model.mean_baseline(batch)} by means alone`);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn mean_baseline(ctx: NativeCallContext, model: &mut ModelHandle, batch: BatchHandle) -> ScriptResult<FLOAT> {
        let mae = model.mae(&ctx, "mean_baseline")?;
        let loss = mae.mean_baseline(batch.images.tensor(), &batch.place).map_err(|err| script_error(&ctx, err))?;
        loss.f_double_value(&[]).map_err(|err| script_error(&ctx, err))
    }

    /// A picture with a row per image: original, visible patches, reconstruction.
    ///
    /// ```rhai
    /// let output = run::output(#{});
    /// output.picture("first", model.reconstruct(batch));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn reconstruct(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        batch: BatchHandle,
    ) -> ScriptResult<PictureHandle> {
        let mae = model.mae(&ctx, "reconstruct")?;
        let images = batch.images.tensor();
        let made = mae.reconstruct(images, &batch.place).map_err(|err| script_error(&ctx, err))?;
        let normalization = (&batch.normalization.mean[..], &batch.normalization.std[..]);
        let patch_size = mae.config().encoder.patch_size;
        let picture = Picture::reconstruction(images, &made.pasted, &made.mask, patch_size, normalization);
        Ok(PictureHandle(Rc::new(picture.map_err(|err| script_error(&ctx, err))?)))
    }

    /// Outputs for a tensor: features of all tokens, class token first, for images; scores of the classes, of a UperNet
    /// `[N, K, H, W]`, of a classifier `[N, K]`; `y` for the `x` of a layer on its own; of a custom model whatever its function
    /// makes of it. A vision transformer, a layer on its own and a custom model train here: what is decorrelated keeps sampled
    /// rows for `update_decorrelation`, and dropout drops. Not so under `no_grad`, which is evaluation.
    ///
    /// ```rhai
    /// let tokens = model.forward(batch.images);
    /// assert(tokens.shape == [4, 1 + 16, 16]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn forward(ctx: NativeCallContext, model: &mut ModelHandle, x: TensorHandle) -> ScriptResult<Dynamic> {
        if let Network::Custom(own) = model.network() {
            return custom::forward(&ctx, model, own, Dynamic::from(x));
        }
        let x = x.tensor();
        let training = match model.network() {
            Network::Mae(_) | Network::Upernet(..) | Network::Classifier(..) => None,
            _ => model.current(),
        };
        let pass = training.as_ref().map_or(Pass::EVALUATE, |training| training.pass());
        let y = match model.network() {
            Network::Mae(mae) => mae.encoder().forward(x, None, pass),
            Network::Upernet(upernet, _) => upernet.logits(x, pass),
            Network::Classifier(classifier, _) => classifier.logits(x, pass),
            Network::Conv2d(layer) => {
                check_conv_size(&ctx, layer.config(), x)?;
                layer.forward(x, pass)
            }
            Network::Linear(layer) => layer.forward(x, pass),
            Network::Vit(vit) => vit.forward(x, None, pass),
            Network::Simple(part) => part.forward(x, pass),
            Network::Custom(_) => unreachable!("returned above"),
        };
        Ok(Dynamic::from(TensorHandle::from(y.map_err(|err| script_error(&ctx, err))?)))
    }

    /// The same for a custom model whose function takes something else, an array of tensors for example.
    #[rhai_fn(name = "forward", return_raw, pure)]
    pub fn forward_any(ctx: NativeCallContext, model: &mut ModelHandle, x: Dynamic) -> ScriptResult<Dynamic> {
        if let Network::Custom(own) = model.network() {
            return custom::forward(&ctx, model, own, x);
        }
        let got = ctx.engine().map_type_name(x.type_name());
        Err(script_error(&ctx, format!("forward: expected a tensor, got {got}")))
    }
}
