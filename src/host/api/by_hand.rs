//! What an optimizer needs that is written in a script: a model's weights and their gradients by name, and writing to them.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, Map, NativeCallContext};

use super::models::ModelHandle;
use super::tensor::{TensorHandle, size};
use crate::host::convert::{self, Fill};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::libtorch::{grad_enabled, guarded};
use crate::nn::NnError;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

#[export_module]
mod methods {
    /// All trained tensors by their checkpoint names, to read or, under `no_grad`, to change with `assign`; of a part its own.
    ///
    /// ```rhai
    /// assert(nn::linear(2, 3).named_parameters().keys() == ["linear.bias", "linear.weight"]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn named_parameters(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<Map> {
        let mut all = Map::new();
        let prefix = model.prefix();
        let visited = model.registry().each_parameter(|parameter| -> Result<(), NnError> {
            if parameter.name.starts_with(&prefix) {
                let tensor = TensorHandle::from(parameter.tensor.shallow_clone());
                all.insert(parameter.name.as_str().into(), Dynamic::from(tensor));
            }
            Ok(())
        });
        visited.map_err(|err| script_error(&ctx, err))?;
        Ok(all)
    }

    /// The gradients that `backward` has left, by the names of `named_parameters`; what none has reached is absent. A decorrelated
    /// layer's is that of W, although the layer computes with `W R`.
    ///
    /// ```rhai
    /// let layer = nn::linear(2, 1);
    /// layer.forward(tensor::ones([4, 2])).sum().backward();
    /// assert(layer.gradients()["linear.weight"].to_array() == [[4.0, 4.0]]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn gradients(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<Map> {
        let mut all = Map::new();
        let prefix = model.prefix();
        let visited = model.registry().each_parameter(|parameter| -> Result<(), NnError> {
            if parameter.name.starts_with(&prefix)
                && let Some(gradient) = parameter.gradient()?
            {
                all.insert(parameter.name.as_str().into(), Dynamic::from(TensorHandle::from(gradient)));
            }
            Ok(())
        });
        visited.map_err(|err| script_error(&ctx, err))?;
        Ok(all)
    }

    /// Clears all gradients, and what decorrelated layers had computed from the old weights: ends a step that changes the weights
    /// by hand, as `opt.step` does by itself.
    ///
    /// ```rhai
    /// let layer = nn::linear(2, 1);
    /// layer.forward(tensor::ones([4, 2])).mean().backward();
    /// let weights = layer.named_parameters();
    /// let gradients = layer.gradients();
    /// no_grad(|| { for name in gradients.keys() { weights[name].assign(weights[name] - 0.1 * gradients[name]); } });
    /// layer.zero_grad();
    /// assert(layer.gradients().is_empty());
    /// ```
    #[rhai_fn(name = "zero_grad", return_raw, pure)]
    pub fn model_zero_grad(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<()> {
        model.registry().after_step().map_err(|err| script_error(&ctx, err))
    }

    /// Writes a number or a tensor, which is broadcast, over all values. Every copy of the tensor sees it. A trained tensor is
    /// written to under `no_grad`.
    ///
    /// ```rhai
    /// let x = tensor::zeros([2, 2]);
    /// x.assign(tensor::from([1.0, 2.0]));
    /// assert(x.to_array() == [[1.0, 2.0], [1.0, 2.0]]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn assign(ctx: NativeCallContext, x: &mut TensorHandle, values: Fill) -> ScriptResult<()> {
        if grad_enabled() && x.requires_grad() && x.is_leaf() {
            let failure =
                Failure::script("assign: gradients are wanted for this tensor, so writing to it is no operation");
            return Err(script_error(&ctx, failure.with_hint("write under no_grad: no_grad(|| w.assign(…))")));
        }
        let mut target = x.tensor().shallow_clone();
        let written = match values.read_lock::<TensorHandle>() {
            Some(values) => {
                let (from, to) = (values.size(), target.size());
                if size::common(&from, &to).as_ref() != Some(&to) {
                    let message = format!("tensor shapes do not match: {from:?} cannot be written to {to:?}");
                    return Err(script_error(&ctx, message));
                }
                target.f_copy_(values.tensor()).map_err(Failure::from)
            }
            None => {
                let value = convert::float(&ctx, "values", &values)?;
                guarded(|| target.f_fill_(value)).map(|_| ()).map_err(Failure::from)
            }
        };
        written.map_err(|err| script_error(&ctx, err))
    }
}
