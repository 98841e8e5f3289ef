//! Gradients: which tensors have them, and computing them.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, FnPtr, NativeCallContext};
use tch::{Kind, TchError};

use super::{TensorHandle, made, size};
use crate::host::convert::MaybeTensor;
use crate::host::errors::{ScriptResult, check_arg, script_error};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(gradients).into());
}

#[export_module]
mod gradients {
    /// Marks the tensor as one that gradients are wanted for, and answers with it.
    ///
    /// Errors: integers and bools have no gradients.
    ///
    /// ```rhai
    /// let w = tensor::from([1.0, 2.0]).requires_grad();
    /// (w * w).sum().backward();
    /// assert(w.grad().to_array() == [2.0, 4.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn requires_grad(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        let _ = x.f_set_requires_grad(true).map_err(|err| script_error(&ctx, err))?;
        Ok(x)
    }

    /// Whether gradients are tracked for this tensor.
    ///
    /// ```rhai
    /// let w = tensor::ones([2]);
    /// assert(!w.requires_grad);
    /// w.requires_grad();
    /// assert(w.requires_grad && (w * 2).requires_grad);
    /// ```
    #[rhai_fn(get = "requires_grad", pure)]
    pub fn is_tracked(x: &mut TensorHandle) -> bool {
        x.tensor().requires_grad()
    }

    /// Computes the gradients of this value; they add to those that are there.
    ///
    /// Errors: more than one value, or one that depends on no tensor with `requires_grad()`.
    ///
    /// ```rhai
    /// let w = tensor::from(3.0).requires_grad();
    /// (w * w).backward();
    /// assert(w.grad().item() == 6.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn backward(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<()> {
        check_arg(&ctx, x.numel() == 1, || {
            format!("backward: expected one value, got shape {:?}; use mean() or sum()", x.size())
        })?;
        x.f_backward().map_err(|err| script_error(&ctx, err))
    }

    /// The gradient, or `()` if there is none yet.
    ///
    /// ```rhai
    /// let w = tensor::from([3.0]).requires_grad();
    /// assert(w.grad() == ());
    /// (w * 2).sum().backward();
    /// assert(w.grad().to_array() == [2.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn grad(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<MaybeTensor> {
        let gradient = x.f_grad().map_err(|err| script_error(&ctx, err))?;
        Ok(if gradient.defined() { Dynamic::from(TensorHandle::from(gradient)) } else { Dynamic::UNIT })
    }

    /// Sets the gradient to zero, if there is one.
    ///
    /// ```rhai
    /// let w = tensor::from([3.0]).requires_grad();
    /// w.sum().backward();
    /// w.zero_grad();
    /// assert(w.grad().to_array() == [0.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn zero_grad(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<()> {
        let zero = || -> Result<(), TchError> {
            let gradient = x.f_grad()?;
            if gradient.defined() {
                let _ = gradient.f_detach()?.f_zero_()?;
            }
            Ok(())
        };
        zero().map_err(|err| script_error(&ctx, err))
    }

    /// The same values without the history that gradients follow. The values are shared: writing to one writes to both.
    ///
    /// ```rhai
    /// let w = tensor::ones([2]).requires_grad();
    /// assert(!(w * 2).detach().requires_grad);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn detach(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_detach())
    }

    /// A copy with its own values; gradients flow through it.
    ///
    /// ```rhai
    /// let a = tensor::zeros([2]);
    /// let b = a.copy();
    /// b[0] = 1;
    /// assert(a.to_array() == [0.0, 0.0] && b.to_array() == [1.0, 0.0]);
    /// ```
    #[rhai_fn(name = "copy", return_raw)]
    pub fn copied(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &x.size(), x.kind())?;
        made(
            &ctx,
            x.f_zeros_like()
                .and_then(|zeros| if x.kind() == Kind::Bool { x.f_logical_or(&zeros) } else { x.f_add(&zeros) }),
        )
    }

    /// Calls `work` without tracking gradients and answers with its result.
    ///
    /// ```rhai
    /// let w = tensor::ones([2]).requires_grad();
    /// let y = no_grad(|| w * 2);
    /// assert(!y.requires_grad);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn no_grad(ctx: NativeCallContext, work: FnPtr) -> ScriptResult<Dynamic> {
        let _guard = tch::no_grad_guard();
        work.call_within_context(&ctx, ())
    }
}
