//! Elementwise functions, softmax, and the matrix product. Integers and bools count as float32 where they must.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, NativeCallContext};
use tch::{Kind, Tensor};

use super::{TensorHandle, floating, guarded, is_floating, made, size};
use crate::host::convert;
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(math).into());
}

#[export_module]
mod math {
    /// e to the power of each value.
    #[rhai_fn(return_raw)]
    pub fn exp(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_exp())
    }

    /// Natural logarithm.
    #[rhai_fn(return_raw)]
    pub fn log(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_log())
    }

    /// Square root.
    #[rhai_fn(return_raw)]
    pub fn sqrt(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sqrt())
    }

    /// Absolute value.
    #[rhai_fn(return_raw)]
    pub fn abs(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_abs())
    }

    /// Sine, of radians.
    #[rhai_fn(return_raw)]
    pub fn sin(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sin())
    }

    /// Cosine, of radians.
    #[rhai_fn(return_raw)]
    pub fn cos(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_cos())
    }

    /// Hyperbolic tangent.
    #[rhai_fn(return_raw)]
    pub fn tanh(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_tanh())
    }

    /// The greatest whole number that is not greater.
    #[rhai_fn(return_raw)]
    pub fn floor(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_floor())
    }

    /// The nearest whole number; halves go to the even one.
    #[rhai_fn(return_raw)]
    pub fn round(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_round())
    }

    /// Each value, negative ones as 0.
    #[rhai_fn(return_raw)]
    pub fn relu(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_relu())
    }

    /// Gaussian error linear unit, exact: x · Φ(x).
    #[rhai_fn(return_raw)]
    pub fn gelu(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_gelu("none"))
    }

    /// 1 / (1 + exp(−x)).
    #[rhai_fn(return_raw)]
    pub fn sigmoid(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sigmoid())
    }

    /// Exponentials along `dim`, divided by their sum.
    #[rhai_fn(return_raw)]
    pub fn softmax(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_softmax(dim, None::<Kind>))
    }

    /// Logarithm of the softmax along `dim`, without going through small numbers.
    #[rhai_fn(return_raw)]
    pub fn log_softmax(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_log_softmax(dim, None::<Kind>))
    }

    /// Values below `low` as `low`, above `high` as `high`; `()` leaves a side open.
    #[rhai_fn(return_raw)]
    pub fn clamp(ctx: NativeCallContext, x: TensorHandle, low: Dynamic, high: Dynamic) -> ScriptResult<TensorHandle> {
        let bound = |name: &str, value: &Dynamic| -> ScriptResult<Option<tch::Scalar>> {
            if value.is_unit() {
                return Ok(None);
            }
            let number = convert::float(&ctx, name, value)?;
            Ok(Some(value.as_int().map_or_else(|_| tch::Scalar::float(number), tch::Scalar::int)))
        };
        let (low, high) = (bound("low", &low)?, bound("high", &high)?);
        guarded(&ctx, || match (low, high) {
            (Some(low), Some(high)) => x.f_clamp(low, high),
            (Some(low), None) => x.f_clamp_min(low),
            (None, Some(high)) => x.f_clamp_max(high),
            (None, None) => Ok(x.shallow_clone()),
        })
    }

    /// Where values are neither infinite nor NaN.
    #[rhai_fn(return_raw)]
    pub fn isfinite(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_isfinite())
    }

    /// A copy with `value` where `mask` is true; the mask is broadcast.
    #[rhai_fn(return_raw)]
    pub fn masked_fill(
        ctx: NativeCallContext,
        x: TensorHandle,
        mask: TensorHandle,
        value: Dynamic,
    ) -> ScriptResult<TensorHandle> {
        let value = convert::float(&ctx, "value", &value)?;
        size::check(&ctx, &size::broadcast(&ctx, &x.size(), &mask.size())?, x.kind())?;
        guarded(&ctx, || x.f_masked_fill(&mask, value))
    }

    /// Matrix product: `[n, k]` with `[k, m]` gives `[n, m]`; leading dimensions are batches and are broadcast.
    #[rhai_fn(return_raw)]
    pub fn matmul(ctx: NativeCallContext, a: TensorHandle, b: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &product_shape(&ctx, &a.size(), &b.size())?, a.kind())?;
        let (left, right) = match (is_floating(a.kind()), is_floating(b.kind())) {
            (true, false) => (a.shallow_clone(), to_kind(&ctx, &b, a.kind())?),
            (false, true) => (to_kind(&ctx, &a, b.kind())?, b.shallow_clone()),
            _ => (a.shallow_clone(), b.shallow_clone()),
        };
        made(&ctx, left.f_matmul(&right))
    }

    /// Whether all values agree within 1e-5 of each other's size plus 1e-8.
    #[rhai_fn(name = "allclose", return_raw)]
    pub fn allclose_default(ctx: NativeCallContext, a: TensorHandle, b: TensorHandle) -> ScriptResult<bool> {
        close(&ctx, &a, &b, 1e-5, 1e-8)
    }

    /// Whether all values agree: |a − b| ≤ atol + rtol · |b|.
    #[rhai_fn(return_raw)]
    pub fn allclose(
        ctx: NativeCallContext,
        a: TensorHandle,
        b: TensorHandle,
        rtol: Dynamic,
        atol: Dynamic,
    ) -> ScriptResult<bool> {
        let (rtol, atol) = (convert::float(&ctx, "rtol", &rtol)?, convert::float(&ctx, "atol", &atol)?);
        check_arg(&ctx, rtol >= 0.0 && atol >= 0.0, || "allclose: tolerances must not be negative".into())?;
        close(&ctx, &a, &b, rtol, atol)
    }
}

fn to_kind(ctx: &NativeCallContext, x: &Tensor, kind: Kind) -> ScriptResult<Tensor> {
    x.f_to_kind(kind).map_err(|err| script_error(ctx, err))
}

fn close(ctx: &NativeCallContext, a: &Tensor, b: &Tensor, rtol: f64, atol: f64) -> ScriptResult<bool> {
    size::check(ctx, &size::broadcast(ctx, &a.size(), &b.size())?, Kind::Double)?;
    let (a, b) = (to_kind(ctx, a, Kind::Double)?, to_kind(ctx, b, Kind::Double)?);
    a.f_allclose(&b, rtol, atol, false).map_err(|err| script_error(ctx, err))
}

/// The shape of a matrix product.
fn product_shape(ctx: &NativeCallContext, a: &[i64], b: &[i64]) -> ScriptResult<Vec<i64>> {
    let mismatch = || {
        let failure = Failure::script(format!("tensor shapes do not match: matmul of {a:?} and {b:?}"));
        script_error(ctx, failure.with_hint("the last dimension of the first must be the second to last of the second"))
    };
    let (rows, inner_a) = match a {
        [] => return Err(mismatch()),
        [k] => (None, *k),
        [.., n, k] => (Some(*n), *k),
    };
    let (inner_b, columns) = match b {
        [] => return Err(mismatch()),
        [k] => (*k, None),
        [.., k, m] => (*k, Some(*m)),
    };
    if inner_a != inner_b {
        return Err(mismatch());
    }
    let batch = |shape: &[i64]| shape[..shape.len().saturating_sub(2)].to_vec();
    let mut shape = size::broadcast(ctx, &batch(a), &batch(b))?;
    shape.extend(rows.into_iter().chain(columns));
    Ok(shape)
}
