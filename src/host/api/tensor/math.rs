//! Elementwise functions, softmax, and the matrix product. Integers and bools count as float32 where they must.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, NativeCallContext};
use tch::{Kind, Tensor};

use super::{TensorHandle, floating, guarded, is_floating, made, size};
use crate::host::convert::{self, Bound, Number};
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(math).into());
}

#[export_module]
mod math {
    /// e to the power of each value.
    ///
    /// ```rhai
    /// assert(tensor::from([0.0]).exp().to_array() == [1.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn exp(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_exp())
    }

    /// Natural logarithm; of 0 minus infinity, of less NaN.
    ///
    /// ```rhai
    /// assert(tensor::from([1.0]).log().to_array() == [0.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn log(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_log())
    }

    /// Square root; of less than 0 NaN.
    ///
    /// ```rhai
    /// assert(tensor::from([4, 9]).sqrt().to_array() == [2.0, 3.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sqrt(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sqrt())
    }

    /// Absolute value.
    ///
    /// ```rhai
    /// assert(tensor::from([-2, 3]).abs().to_array() == [2, 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn abs(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_abs())
    }

    /// Sine, of radians.
    ///
    /// ```rhai
    /// assert(tensor::from([0.0]).sin().to_array() == [0.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sin(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sin())
    }

    /// Cosine, of radians.
    ///
    /// ```rhai
    /// assert(tensor::from([0.0]).cos().to_array() == [1.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn cos(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_cos())
    }

    /// Hyperbolic tangent.
    ///
    /// ```rhai
    /// assert(tensor::from([0.0, 100.0]).tanh().to_array() == [0.0, 1.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn tanh(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_tanh())
    }

    /// The greatest whole number that is not greater.
    ///
    /// ```rhai
    /// assert(tensor::from([1.7, -0.5]).floor().to_array() == [1.0, -1.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn floor(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_floor())
    }

    /// The nearest whole number; halves go to the even one.
    ///
    /// ```rhai
    /// assert(tensor::from([0.5, 1.5, 1.2]).round().to_array() == [0.0, 2.0, 1.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn round(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_round())
    }

    /// Each value, negative ones as 0.
    ///
    /// ```rhai
    /// assert(tensor::from([-1.0, 2.0]).relu().to_array() == [0.0, 2.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn relu(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_relu())
    }

    /// Gaussian error linear unit, exact: x · Φ(x).
    ///
    /// ```rhai
    /// assert(tensor::from([0.0, 1.0]).gelu().allclose(tensor::from([0.0, 0.8413447])));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn gelu(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_gelu("none"))
    }

    /// 1 / (1 + exp(−x)).
    ///
    /// ```rhai
    /// assert(tensor::from([0.0]).sigmoid().to_array() == [0.5]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sigmoid(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_sigmoid())
    }

    /// Exponentials along `dim`, divided by their sum.
    ///
    /// ```rhai
    /// let p = tensor::from([[0.0, 0.0], [0.0, 100.0]]).softmax(1);
    /// assert(p.to_array() == [[0.5, 0.5], [0.0, 1.0]]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn softmax(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_softmax(dim, None::<Kind>))
    }

    /// Logarithm of the softmax along `dim`, without going through small numbers.
    ///
    /// ```rhai
    /// let x = tensor::randn([2, 3]);
    /// assert(x.log_softmax(1).allclose(x.softmax(1).log(), 1e-4, 1e-5));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn log_softmax(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_log_softmax(dim, None::<Kind>))
    }

    /// Values below `low` as `low`, above `high` as `high`; `()` leaves a side open.
    ///
    /// ```rhai
    /// let x = tensor::from([-2, 0, 5]);
    /// assert(x.clamp(-1, 3).to_array() == [-1, 0, 3] && x.clamp(0, ()).to_array() == [0, 0, 5]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn clamp(ctx: NativeCallContext, x: TensorHandle, low: Bound, high: Bound) -> ScriptResult<TensorHandle> {
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
    ///
    /// ```rhai
    /// assert(tensor::from([1.0, 1.0 / 0.0]).isfinite().to_array() == [true, false]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn isfinite(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_isfinite())
    }

    /// A copy with `value` where `mask` is true; the mask is broadcast.
    ///
    /// ```rhai
    /// let x = tensor::from([1.0, 2.0, 3.0]);
    /// assert(x.masked_fill(x > 1, 0).to_array() == [1.0, 0.0, 0.0] && x.sum().item() == 6.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn masked_fill(
        ctx: NativeCallContext,
        x: TensorHandle,
        mask: TensorHandle,
        value: Number,
    ) -> ScriptResult<TensorHandle> {
        let value = convert::float(&ctx, "value", &value)?;
        size::check(&ctx, &size::broadcast(&ctx, &x.size(), &mask.size())?, x.kind())?;
        guarded(&ctx, || x.f_masked_fill(&mask, value))
    }

    /// Matrix product: `[n, k]` with `[k, m]` gives `[n, m]`; a `[k]` is a row on the left and a column on the right. Leading
    /// dimensions are batches and are broadcast.
    ///
    /// Errors: inner dimensions that differ, a single value, integers with bools.
    ///
    /// ```rhai
    /// let a = tensor::from([[1.0, 2.0]]);
    /// let b = tensor::from([[3.0], [4.0]]);
    /// assert(a.matmul(b).to_array() == [[11.0]] && b.matmul(a).shape == [2, 2]);
    /// assert(tensor::ones([5, 2, 3]).matmul(tensor::ones([3])).shape == [5, 2]);
    /// ```
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

    /// Whether all values agree within 1e-5 of each other's size plus 1e-8. NaN agrees with nothing.
    ///
    /// ```rhai
    /// let x = tensor::from([1.0, 2.0]);
    /// assert(x.allclose(x + 1e-7) && !x.allclose(x + 0.1) && x.allclose(x + 0.1, 0, 0.2));
    /// ```
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
        rtol: Number,
        atol: Number,
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
