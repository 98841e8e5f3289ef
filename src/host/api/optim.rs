//! `optim`: optimizers.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Engine, FLOAT, Map, NativeCallContext};

use super::custom::refuse_part;
use super::models::ModelHandle;
use crate::host::convert::{self, Number};
use crate::host::errors::{ScriptResult, script_error};
use crate::host::options::OptionMap;
use crate::train::{AdamW, AdamWConfig};

/// An optimizer as scripts hold it.
#[derive(Clone)]
pub struct OptimizerHandle(pub Rc<AdamW>);

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_static_module("optim", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
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
        options.finish()?;
        refuse_part(&ctx, "optim::adamw", &model)?;
        let made = AdamW::new(Rc::clone(model.registry()), config);
        Ok(OptimizerHandle(Rc::new(made.map_err(|err| script_error(&ctx, err))?)))
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
        optimizer.0.step(optimizer.0.config().lr).map_err(|err| script_error(&ctx, err))
    }

    /// The peak learning rate.
    ///
    /// ```rhai
    /// assert(opt.lr == 0.1);
    /// ```
    #[rhai_fn(get = "lr", pure)]
    pub fn lr(optimizer: &mut OptimizerHandle) -> FLOAT {
        optimizer.0.config().lr
    }
}
