//! Classifiers, and features of frozen encoders: `models::classifier`, `model.features`, `nn::cross_entropy`.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, ImmutableString, Map, Module, NativeCallContext};
use tch::{Kind, Tensor};

use super::data::BatchHandle;
use super::models::{ModelHandle, Network};
use super::segmentation::{class_names, encoder_state, tuned_config};
use super::tensor::{TensorHandle, size};
use crate::host::convert::Classes;
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::host::options::{FromOption, OptionMap};
use crate::host::session::Session;
use crate::nn::upernet::{IGNORE, cross_entropy};
use crate::nn::{Classifier, ClassifierConfig, Pass, Pool};

pub fn register(engine: &mut Engine, models: &mut Module) {
    models.combine_flatten(exported_module!(functions));
    engine.register_global_module(exported_module!(methods).into());
}

impl FromOption for Pool {
    const EXPECTED: &'static str = "\"mean\" or \"class\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        match value.into_string().ok()?.as_str() {
            "mean" => Some(Self::Mean),
            "class" => Some(Self::Class),
            _ => None,
        }
    }
}

#[export_module]
mod functions {
    /// A classifier of images into `classes` on a copy of `encoder`'s vision transformer; every R is folded into its weight, and the
    /// encoder itself stays as it is.
    ///
    /// Options:
    /// - `image_size` (int or [int, int], the encoder's): positions are interpolated
    /// - `pool` (string, `"mean"`): what the head sees: `"mean"` of the patch tokens, or `"class"`, the class token
    /// - `drop_path` (number, 0): stochastic depth
    /// - `label_smoothing` (number, 0): of the loss, below 1
    ///
    /// ```rhai
    /// let encoder = models::vit(#{ image_size: 32, patch_size: 8, embed_dim: 16, depth: 4, num_heads: 2 });
    /// let model = models::classifier(encoder, ["cat", "dog"], #{ pool: "class", label_smoothing: 0.1 });
    /// assert(model.forward(tensor::zeros([2, 3, 32, 32])).shape == [2, 2]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn classifier(
        ctx: NativeCallContext,
        encoder: ModelHandle,
        classes: Classes,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "models::classifier", options);
        let config = ClassifierConfig {
            encoder: tuned_config(&ctx, &encoder, &mut options)?,
            classes: class_names(&ctx, &classes)?.len() as i64,
            pool: options.or("pool", Pool::Mean)?,
        };
        let smoothing = options.or("label_smoothing", 0.0)?;
        options.finish()?;
        size::check(&ctx, &[config.classes, config.encoder.embed_dim], Kind::Float)?;
        check_arg(&ctx, (0.0..1.0).contains(&smoothing), || {
            format!("label_smoothing: expected 0 or more, below 1, got {smoothing}")
        })?;
        let session = Session::of(&ctx);
        let made = Classifier::new(&config, session.seed(), Kind::Float, session.options.device).and_then(|model| {
            let state = encoder_state(&encoder, &config.encoder)?;
            // The norm behind pooled tokens is a new one; only the class token keeps the encoder's.
            for part in ["encoder.patch_embed.", "encoder.cls_token", "encoder.pos_embed", "encoder.blocks."] {
                model.registry().load_part(part, &state)?;
            }
            if config.pool == Pool::Class && state.iter().any(|(name, _)| name == "encoder.norm.weight") {
                model.registry().load_part("encoder.norm.", &state)?;
            }
            Ok(model)
        });
        let model = made.map_err(|err| script_error(&ctx, err))?;
        let registry = Rc::clone(model.registry());
        Ok(ModelHandle::new(Network::Classifier(Box::new(model), smoothing), registry))
    }
}

/// Cross-entropy of scores. Shapes: `logits [N, K]` or `[N, K, H, W]`, `labels [N]` or `[N, H, W]`, int64; 255 does not count.
pub fn entropy(ctx: &NativeCallContext, logits: &Tensor, labels: &Tensor) -> ScriptResult<TensorHandle> {
    let (scores, expected) = (logits.size(), labels.size());
    let fits = scores.len() >= 2 && !expected.is_empty() && scores[0] == expected[0] && scores[2..] == expected[1..];
    check_arg(ctx, fits, || format!("labels: {expected:?} does not fit logits of shape {scores:?}"))?;
    check_arg(ctx, labels.kind() == Kind::Int64, || "labels: expected whole numbers".to_owned())?;
    // Checked here, because a GPU would not recover from it.
    let beyond = |labels: &Tensor| -> Result<bool, tch::TchError> {
        let outside = labels.f_lt(0)?.f_logical_or(&labels.f_ge(scores[1])?.f_logical_and(&labels.f_ne(IGNORE)?)?)?;
        Ok(outside.f_any()?.f_int64_value(&[])? != 0)
    };
    let beyond = beyond(labels).map_err(|err| script_error(ctx, err))?;
    check_arg(ctx, !beyond, || format!("labels: expected 0 to {}, or 255 for none", scores[1] - 1))?;
    Ok(cross_entropy(logits, labels, None, 0.0).map_err(|err| script_error(ctx, err))?.into())
}

#[export_module]
mod methods {
    /// What an encoder makes of each image, without gradients: the mean of its patch tokens (`"mean"`) or its class token
    /// (`"class"`), after the final norm. Of a classifier: what its head sees. Shapes: `[N, D]`.
    ///
    /// ```rhai
    /// assert(model.features(batch, "mean").shape == [4, 16]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn features(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        batch: BatchHandle,
        pool: ImmutableString,
    ) -> ScriptResult<TensorHandle> {
        let name = pool;
        let Some(pool) = Pool::from_option(Dynamic::from(name.clone())) else {
            return Err(script_error(&ctx, format!("pool: expected {}, got \"{name}\"", Pool::EXPECTED)));
        };
        let images = batch.images.tensor();
        let made = tch::no_grad(|| match model.network() {
            Network::Mae(mae) => pool.apply(&mae.encoder().forward(images, None, Pass::EVALUATE)?),
            Network::Vit(vit) => pool.apply(&vit.forward(images, None, Pass::EVALUATE)?),
            Network::Classifier(classifier, _) if classifier.config().pool == pool => {
                classifier.features(images, Pass::EVALUATE)
            }
            Network::Classifier(..) => {
                let message = format!("pool: this classifier was made for the other kind of features than \"{name}\"");
                Err(crate::nn::NnError::Config(message))
            }
            _ => {
                let message = "features: expected a masked autoencoder, a vision transformer or a classifier";
                Err(crate::nn::NnError::Config(message.to_owned()))
            }
        });
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }
}
