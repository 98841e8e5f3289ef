//! What every model can do: its loss, its outputs, what it says of itself.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map, NativeCallContext};
use tch::Tensor;

use super::{ModelHandle, Network, PictureHandle, check_classes, labels, masks};
use crate::host::api::custom;
use crate::host::api::data::BatchHandle;
use crate::host::api::tensor::{TensorHandle, size};
use crate::host::convert::{MaybeInt, MaybeMap, MaybePair};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::suggest::did_you_mean;
use crate::nn::upernet::cross_entropy;
use crate::nn::{Conv2dConfig, NnError, Pass, Place};
use crate::train::pictures::Picture;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
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

/// Refuses a convolution whose padded input or output is beyond `--max-tensor-bytes`; shapes that do not fit are its own matter.
fn check_conv_size(ctx: &NativeCallContext, config: &Conv2dConfig, x: &Tensor) -> ScriptResult<()> {
    let [n, c, h, w] = x.size()[..] else { return Ok(()) };
    let Ok((rows, columns)) = config.output((h, w)) else { return Ok(()) };
    size::check(ctx, &[n, c, h + 2 * config.padding.0, w + 2 * config.padding.1], x.kind())?;
    size::check(ctx, &[n, config.out_channels, rows, columns], x.kind())
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
