//! How a model computes: its precision, and what it keeps for the backward pass.

use rhai::plugin::*;
use rhai::{Engine, ImmutableString, NativeCallContext};

use super::custom::refuse_part;
use super::models::ModelHandle;
use crate::host::errors::{ScriptResult, script_error};
use crate::nn::Precision;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

#[export_module]
mod methods {
    /// What the products of linear maps, convolutions and attention are computed in: `"float32"` or `"bf16"`. It can be changed at
    /// any time. Under `"bf16"` weights, R and its update, residual streams, norms and losses stay in float32; recipes set it by
    /// `precision`. It pays on GPUs, and on processors with AVX-512 BF16 or AMX.
    ///
    /// ```rhai
    /// assert(model.precision == "float32");
    /// let layer = nn::linear(4, 2);
    /// layer.precision = "bf16";
    /// let y = layer.forward(tensor::ones([3, 4]));
    /// assert(y.dtype == "bfloat16");
    /// nn::mse_loss(y, tensor::zeros([3, 2])).backward();
    /// assert(layer.tensor("linear.weight").dtype == "float32");
    /// ```
    #[rhai_fn(get = "precision", pure)]
    pub fn precision(model: &mut ModelHandle) -> ImmutableString {
        model.registry().compute().precision().name().into()
    }

    /// Computes products in `"float32"` or `"bf16"` from now on.
    #[rhai_fn(set = "precision", return_raw, pure)]
    pub fn set_precision(ctx: NativeCallContext, model: &mut ModelHandle, name: &str) -> ScriptResult<()> {
        refuse_part(&ctx, "precision", model)?;
        let precision = Precision::parse(name).ok_or_else(|| {
            let [first, second] = Precision::NAMES;
            script_error(&ctx, format!("precision: expected \"{first}\" or \"{second}\", got \"{name}\""))
        })?;
        model.registry().compute().set_precision(precision);
        Ok(())
    }

    /// Whether transformer blocks keep their inputs alone in a training pass and compute the rest again in the backward pass: much
    /// less memory for about a third more work, and the same gradients. Recipes set it by `activation_checkpointing`.
    ///
    /// ```rhai
    /// model.activation_checkpointing = true;
    /// ```
    #[rhai_fn(get = "activation_checkpointing", pure)]
    pub fn activation_checkpointing(model: &mut ModelHandle) -> bool {
        model.registry().compute().checkpointing()
    }

    /// Keeps less for the backward pass from now on, or all.
    #[rhai_fn(set = "activation_checkpointing", return_raw, pure)]
    pub fn set_activation_checkpointing(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        value: bool,
    ) -> ScriptResult<()> {
        refuse_part(&ctx, "activation_checkpointing", model)?;
        model.registry().compute().set_checkpointing(value);
        Ok(())
    }
}
