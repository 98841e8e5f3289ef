//! `optim`: optimizers.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, FLOAT, FnPtr, Map, NativeCallContext};

use super::custom::refuse_part;
use super::decorrelation::patterns_of;
use super::models::ModelHandle;
use super::tensor::TensorHandle;
use crate::host::convert::{self, Number};
use crate::host::errors::{ScriptResult, script_error};
use crate::host::options::OptionMap;
use crate::train::{
    AdamWConfig, AdjustLr, MuonConfig, Optimizer as Method, OptimizerConfig, ScheduleFreeConfig, SgdConfig, TrainResult,
};

/// An optimizer as scripts hold it.
#[derive(Clone)]
pub struct OptimizerHandle(pub Rc<Method>);

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_static_module("optim", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
}

/// The optimizer of a whole model.
fn made(
    ctx: &NativeCallContext,
    what: &str,
    model: &ModelHandle,
    config: impl Into<OptimizerConfig>,
    mut options: OptionMap,
) -> ScriptResult<OptimizerHandle> {
    let clip_norm = options.get::<f64>("clip_norm")?;
    options.finish()?;
    refuse_part(ctx, what, model)?;
    let made: TrainResult<Method> =
        Method::new(Rc::clone(model.registry()), config).and_then(|made| made.with_clip_norm(clip_norm));
    Ok(OptimizerHandle(Rc::new(made.map_err(|err| script_error(ctx, err))?)))
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// An optimizer: updates a model's parameters from their gradients.
    ///
    /// ```rhai
    /// let model = nn::linear(4, 2);
    /// let opt = optim::adamw(model, #{ lr: 0.1 });
    /// ```
    pub type Optimizer = OptimizerHandle;
}

/// Optimizers.
#[export_module]
mod functions {
    /// AdamW on libtorch's fused kernel. Biases, norms and tokens are not decayed.
    ///
    /// Options:
    /// - `lr` (number, 1e-3): the peak rate
    /// - `beta1` (number, 0.9): how slowly the mean of gradients moves
    /// - `beta2` (number, 0.95): how slowly the mean of their squares moves
    /// - `weight_decay` (number, 0.05): of weights alone
    /// - `eps` (number, 1e-8): added to the root of that mean
    /// - `layer_decay` (number, 1): for fine-tuning, each encoder block learns at this fraction of the rate of the one after it
    /// - `clip_norm` (number, none): all gradients together, if longer than this, are scaled back to it
    ///
    /// ```rhai
    /// let model = nn::linear(4, 2);
    /// let opt = optim::adamw(model, #{ lr: 0.01, weight_decay: 0 });
    /// model.forward(tensor::ones([3, 4])).mean().backward();
    /// opt.step();
    /// assert(model.tensor("linear.bias").max().item() < 0.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn adamw(ctx: NativeCallContext, model: ModelHandle, options: Map) -> ScriptResult<OptimizerHandle> {
        let mut options = OptionMap::new(&ctx, "optim::adamw", options);
        let usual = AdamWConfig::default();
        let config = AdamWConfig {
            lr: options.or("lr", usual.lr)?,
            beta1: options.or("beta1", usual.beta1)?,
            beta2: options.or("beta2", usual.beta2)?,
            weight_decay: options.or("weight_decay", usual.weight_decay)?,
            eps: options.or("eps", usual.eps)?,
            layer_decay: options.or("layer_decay", usual.layer_decay)?,
        };
        made(&ctx, "optim::adamw", &model, config, options)
    }

    /// Stochastic gradient descent with momentum, as PyTorch's `SGD`. Weight decay is L2: it is added to the gradient, and so goes
    /// through the momentum. Biases, norms and tokens are not decayed.
    ///
    /// Options:
    /// - `lr` (number, 0.1): the peak rate
    /// - `momentum` (number, 0.9): how slowly the sum of gradients forgets; 0 is none
    /// - `nesterov` (bool, false): steps from where the momentum would lead
    /// - `weight_decay` (number, 0): of weights alone
    /// - `layer_decay` (number, 1): for fine-tuning, each encoder block learns at this fraction of the rate of the one after it
    /// - `clip_norm` (number, none): all gradients together, if longer than this, are scaled back to it
    ///
    /// ```rhai
    /// let model = nn::linear(1, 1);
    /// let opt = optim::sgd(model, #{ lr: 0.5, momentum: 0 });
    /// nn::mse_loss(model.forward(tensor::zeros([1, 1])), tensor::ones([1, 1])).backward();
    /// opt.step();
    /// assert(model.tensor("linear.bias").item() == 1.0); // 0 − 0.5 · 2 (0 − 1)
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sgd(ctx: NativeCallContext, model: ModelHandle, options: Map) -> ScriptResult<OptimizerHandle> {
        let mut options = OptionMap::new(&ctx, "optim::sgd", options);
        let usual = SgdConfig::default();
        let config = SgdConfig {
            lr: options.or("lr", usual.lr)?,
            momentum: options.or("momentum", usual.momentum)?,
            nesterov: options.or("nesterov", usual.nesterov)?,
            weight_decay: options.or("weight_decay", usual.weight_decay)?,
            layer_decay: options.or("layer_decay", usual.layer_decay)?,
        };
        made(&ctx, "optim::sgd", &model, config, options)
    }

    /// Muon: the momentum of every hidden matrix is orthogonalized before it is applied, so that each of its directions moves alike.
    /// Hidden are the matrices of attention and perceptrons in transformer blocks; everything else (embeddings, heads,
    /// convolutions, norms, biases, tokens) is AdamW's.
    ///
    /// Options:
    /// - `lr` (number, 1e-3): the peak rate of the hidden matrices
    /// - `momentum` (number, 0.95): how slowly the mean of gradients moves
    /// - `nesterov` (bool, true): orthogonalizes a mix of that mean and the gradient
    /// - `weight_decay` (number, 0.05): of the hidden matrices, not through the momentum
    /// - `ns_steps` (int, 5): rounds of Newton–Schulz
    /// - `adjust_lr` (string, "match_rms_adamw"): how large an update is. This one makes it as large as AdamW's are, whose rates
    ///   then serve; `"original"`, the author's, wants rates near 0.02, and an `adamw.lr` of its own
    /// - `split_qkv` (bool, true): whether a fused q, k, v is three matrices
    /// - `hidden` (string or array, those of blocks): patterns of the hidden layers, as `decorrelate` takes them
    /// - `layer_decay` (number, 1): for fine-tuning, each encoder block learns at this fraction of the rate of the one after it
    /// - `clip_norm` (number, none): all gradients together, if longer than this, are scaled back to it
    /// - `adamw` (map, see below): options of `optim::adamw` for everything else
    ///
    /// In `adamw`, `lr` and `weight_decay` are by default those above; its rate follows `opt.step(lr)` in proportion. `layer_decay`
    /// is shared.
    ///
    /// ```rhai
    /// let model = nn::linear(4, 4);
    /// let opt = optim::muon(model, #{ hidden: "linear", lr: 0.1, weight_decay: 0, adamw: #{ lr: 0.01 } });
    /// let before = model.tensor("linear.weight");
    /// model.forward(tensor::ones([3, 4])).mean().backward();
    /// opt.step();
    /// assert(model.tensor("linear.bias").allclose(-0.01 * tensor::ones(4), 1e-4, 1e-6));
    /// assert(!model.tensor("linear.weight").allclose(before));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn muon(ctx: NativeCallContext, model: ModelHandle, options: Map) -> ScriptResult<OptimizerHandle> {
        let mut options = OptionMap::new(&ctx, "optim::muon", options);
        let usual = MuonConfig::default();
        let (lr, weight_decay) = (options.or("lr", usual.lr)?, options.or("weight_decay", usual.weight_decay)?);
        let ns_steps = options.count("ns_steps")?.map_or(usual.ns_steps, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let adjust_lr = match options.get::<String>("adjust_lr")?.as_deref() {
            None => usual.adjust_lr,
            Some("original") => AdjustLr::Original,
            Some("match_rms_adamw") => AdjustLr::MatchRmsAdamW,
            Some(other) => {
                let message = format!("adjust_lr: expected \"original\" or \"match_rms_adamw\", got \"{other}\"");
                return Err(options.error(message));
            }
        };
        let hidden = match options.get::<Dynamic>("hidden")? {
            None => usual.hidden,
            Some(patterns) => patterns_of(&ctx, "hidden", patterns)?,
        };
        let mut own = OptionMap::new(&ctx, "adamw", options.get::<Map>("adamw")?.unwrap_or_default());
        let adamw = AdamWConfig {
            lr: own.or("lr", lr)?,
            beta1: own.or("beta1", usual.adamw.beta1)?,
            beta2: own.or("beta2", usual.adamw.beta2)?,
            weight_decay: own.or("weight_decay", weight_decay)?,
            eps: own.or("eps", usual.adamw.eps)?,
            layer_decay: 1.0,
        };
        own.finish()?;
        let config = MuonConfig {
            lr,
            momentum: options.or("momentum", usual.momentum)?,
            nesterov: options.or("nesterov", usual.nesterov)?,
            weight_decay,
            ns_steps,
            adjust_lr,
            split_qkv: options.or("split_qkv", usual.split_qkv)?,
            hidden,
            layer_decay: options.or("layer_decay", usual.layer_decay)?,
            adamw,
        };
        made(&ctx, "optim::muon", &model, config, options)
    }

    /// Schedule-free AdamW: an average of the weights takes the place of a falling rate. Give it a warm-up and then a constant rate.
    ///
    /// Gradients are taken at one point, the average is another: it is what validation under `run.untimed` and hooks see, what
    /// checkpoints and exports hold, and what is left in the model after the loop. Elsewhere, `opt.averaged` asks for it.
    ///
    /// Options:
    /// - `lr` (number, 2.5e-3): the rate after warm-up
    /// - `beta1` (number, 0.9): how near the average gradients are taken
    /// - `beta2` (number, 0.999): how slowly the mean of squared gradients moves
    /// - `weight_decay` (number, 0.05): of weights alone
    /// - `eps` (number, 1e-8): added to the root of that mean
    /// - `warmup_steps` (int, 0): steps in which the rate rises to what `opt.step` is given; 0 where a schedule does that
    /// - `r` (number, 0): step `k` counts `k` to this power in the average
    /// - `weight_lr_power` (number, 2): and the highest rate so far to this power
    /// - `layer_decay` (number, 1): for fine-tuning, each encoder block learns at this fraction of the rate of the one after it
    /// - `clip_norm` (number, none): all gradients together, if longer than this, are scaled back to it
    ///
    /// ```rhai
    /// let model = nn::linear(4, 2);
    /// let opt = optim::schedule_free_adamw(model, #{ lr: 0.1 });
    /// for i in 0..3 {
    ///     model.forward(tensor::ones([3, 4])).mean().backward();
    ///     opt.step();
    /// }
    /// let trained = model.tensor("linear.bias").max().item();
    /// opt.averaged(|| assert(model.tensor("linear.bias").max().item() > trained));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn schedule_free_adamw(
        ctx: NativeCallContext,
        model: ModelHandle,
        options: Map,
    ) -> ScriptResult<OptimizerHandle> {
        let mut options = OptionMap::new(&ctx, "optim::schedule_free_adamw", options);
        let usual = ScheduleFreeConfig::default();
        let config = ScheduleFreeConfig {
            lr: options.or("lr", usual.lr)?,
            beta1: options.or("beta1", usual.beta1)?,
            beta2: options.or("beta2", usual.beta2)?,
            weight_decay: options.or("weight_decay", usual.weight_decay)?,
            eps: options.or("eps", usual.eps)?,
            warmup_steps: options.count("warmup_steps")?.unwrap_or(usual.warmup_steps),
            r: options.or("r", usual.r)?,
            weight_lr_power: options.or("weight_lr_power", usual.weight_lr_power)?,
            layer_decay: options.or("layer_decay", usual.layer_decay)?,
        };
        made(&ctx, "optim::schedule_free_adamw", &model, config, options)
    }
}

#[export_module]
mod methods {
    /// One update at learning rate `lr`: folds the gradients of decorrelated layers, steps, clears all gradients.
    ///
    /// ```rhai
    /// model.forward(tensor::ones([3, 4])).mean().backward();
    /// opt.step(0.05);
    /// assert(model.tensor("linear.bias").max().item() < 0.0);
    /// ```
    #[rhai_fn(name = "step", return_raw, pure)]
    pub fn step_at(ctx: NativeCallContext, optimizer: &mut OptimizerHandle, lr: Number) -> ScriptResult<()> {
        let lr = convert::float(&ctx, "lr", &lr)?;
        optimizer.0.step(lr).map_err(|err| script_error(&ctx, err))
    }

    /// One update at the optimizer's own learning rate.
    #[rhai_fn(name = "step", return_raw, pure)]
    pub fn step(ctx: NativeCallContext, optimizer: &mut OptimizerHandle) -> ScriptResult<()> {
        optimizer.0.step(optimizer.0.lr()).map_err(|err| script_error(&ctx, err))
    }

    /// Calls `work()` with the weights to evaluate at in the model: the average of schedule-free AdamW; other optimizers know one
    /// kind of weights. `run.untimed` and hooks do this by themselves. Before it and after it a gradient is taken at the others.
    ///
    /// ```rhai
    /// let x = tensor::ones([3, 4]);
    /// model.forward(x).mean().backward();
    /// opt.step();
    /// assert(opt.averaged(|| no_grad(|| model.forward(x).mean().item())) < 1e6);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn averaged(ctx: NativeCallContext, optimizer: &mut OptimizerHandle, work: FnPtr) -> ScriptResult<Dynamic> {
        let optimizer = Rc::clone(&optimizer.0);
        let before = optimizer.is_averaged();
        optimizer.set_averaged(true).map_err(|err| script_error(&ctx, err))?;
        let result = work.call_within_context::<Dynamic>(&ctx, ());
        optimizer.set_averaged(before).map_err(|err| script_error(&ctx, err))?;
        result
    }

    /// The peak learning rate.
    ///
    /// ```rhai
    /// assert(opt.lr == 0.1);
    /// ```
    #[rhai_fn(get = "lr", pure)]
    pub fn lr(optimizer: &mut OptimizerHandle) -> FLOAT {
        optimizer.0.lr()
    }
    /// How long all gradients together were at the last update, before they were clipped: a tensor, left on the device. `()`
    /// without `clip_norm`, and before the first update.
    ///
    /// ```rhai
    /// let model = nn::linear(2, 1);
    /// let opt = optim::sgd(model, #{ lr: 1.0, momentum: 0, clip_norm: 0.5 });
    /// model.forward(tensor::ones([1, 2])).mean().backward();
    /// opt.step();
    /// assert(abs(opt.grad_norm().item() - sqrt(3.0)) < 1e-6);
    /// assert(abs(model.tensor("linear.bias").item() + 0.5 / sqrt(3.0)) < 1e-5);
    /// ```
    #[rhai_fn(pure)]
    pub fn grad_norm(optimizer: &mut OptimizerHandle) -> Dynamic {
        optimizer.0.grad_norm().map_or(Dynamic::UNIT, |norm| Dynamic::from(TensorHandle::from(norm)))
    }
}
