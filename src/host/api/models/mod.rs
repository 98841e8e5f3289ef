//! `models`: vision transformers and masked autoencoders, and what every model can do.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Engine, Map, NativeCallContext};
use tch::{Kind, Tensor};

use super::custom::frame::{Frame, Open, Training};
use super::custom::{self, Custom, Simple};
use super::data::BatchHandle;
use super::tensor::{TensorHandle, size};
use super::{classification, segmentation};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::options::{ImageSize, OptionMap};
use crate::host::session::Session;
use crate::nn::{
    Architecture, Classifier, Conv2d, Linear, Mae, MaeConfig, NnError, Place, Registry, Upernet, Vit, VitConfig,
};
use crate::train::TrainError;
use crate::train::pictures::Picture;

mod methods;

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
    methods::register(engine);
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
