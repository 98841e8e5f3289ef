//! Reductions: over everything, or over the dimensions named (`dim`: an integer or an array; negative counts from the end).
//!
//! `keepdim` keeps reduced dimensions with size 1. Values only: where the greatest value stands is `argmax`'s answer.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, Map, NativeCallContext};
use tch::{Kind, TchError, Tensor};

use super::{TensorHandle, elements, floating, guarded, made};
use crate::host::convert::{self, Ints, Scalar};
use crate::host::errors::{ScriptResult, check_arg, script_error};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(reductions).into());
}

#[export_module]
mod reductions {
    /// Sum of all values; of integers and bools an int64.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 2, 3], [4, 5, 6]]);
    /// assert(x.sum().item() == 21 && x.sum(0).to_array() == [5, 7, 9]);
    /// assert(x.sum([0, 1]).item() == 21 && x.sum(1, true).shape == [2, 1]);
    /// ```
    #[rhai_fn(name = "sum", return_raw)]
    pub fn sum_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_sum(None::<Kind>))
    }

    /// Sum over `dim`, one dimension or several; negative ones count from the last.
    #[rhai_fn(name = "sum", return_raw)]
    pub fn sum_dim(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, false, |x, dims, keep| x.f_sum_dim_intlist(dims, keep, None::<Kind>))
    }

    /// Sum over `dim`; `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn sum(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, keepdim, |x, dims, keep| x.f_sum_dim_intlist(dims, keep, None::<Kind>))
    }

    /// Mean of all values; of none NaN.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 2], [3, 6]]);
    /// assert(x.mean().item() == 3.0 && x.mean(0).to_array() == [2.0, 4.0] && x.mean(1, true).shape == [2, 1]);
    /// ```
    #[rhai_fn(name = "mean", return_raw)]
    pub fn mean_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_mean(None::<Kind>))
    }

    /// Mean over `dim`, one dimension or several; negative ones count from the last.
    #[rhai_fn(name = "mean", return_raw)]
    pub fn mean_dim(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, false, |x, dims, keep| x.f_mean_dim(dims, keep, None::<Kind>))
    }

    /// Mean over `dim`; `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn mean(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, keepdim, |x, dims, keep| x.f_mean_dim(dims, keep, None::<Kind>))
    }

    /// Standard deviation of all values, unbiased (divided by n − 1); of one value NaN.
    ///
    /// ```rhai
    /// let x = tensor::from([[1.0, 3.0], [1.0, 3.0]]);
    /// assert(x.std(0).to_array() == [0.0, 0.0] && x.std(0, true).shape == [1, 2]);
    /// assert(x.std().allclose(tensor::from(1.1547005)));
    /// ```
    #[rhai_fn(name = "std", return_raw)]
    pub fn std_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_std(true))
    }

    /// Unbiased standard deviation over `dim`, one dimension or several.
    #[rhai_fn(name = "std", return_raw)]
    pub fn std_over(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, false, |x, dims, keep| x.f_std_dim(dims, true, keep))
    }

    /// Unbiased standard deviation over `dim`; `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(name = "std", return_raw)]
    pub fn std_keep(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, keepdim, |x, dims, keep| x.f_std_dim(dims, true, keep))
    }

    /// Variance of all values, unbiased (divided by n − 1); of one value NaN.
    ///
    /// ```rhai
    /// let x = tensor::from([[1.0, 3.0], [1.0, 3.0]]);
    /// assert(x.variance(1).to_array() == [2.0, 2.0] && x.variance(1, true).shape == [2, 1]);
    /// assert(x.variance().allclose(tensor::from(4.0 / 3.0)));
    /// ```
    #[rhai_fn(name = "variance", return_raw)]
    pub fn var_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_var(true))
    }

    /// Unbiased variance over `dim`, one dimension or several.
    #[rhai_fn(name = "variance", return_raw)]
    pub fn var_over(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, false, |x, dims, keep| x.f_var_dim(dims, true, keep))
    }

    /// Unbiased variance over `dim`; `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(name = "variance", return_raw)]
    pub fn var_keep(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, keepdim, |x, dims, keep| x.f_var_dim(dims, true, keep))
    }

    /// The greatest value. Errors: a tensor without values.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 5], [7, 2]]);
    /// assert(x.max().item() == 7 && x.max(0).to_array() == [7, 5] && x.max(1, true).to_array() == [[5], [7]]);
    /// ```
    #[rhai_fn(name = "max", return_raw)]
    pub fn max_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        not_empty(&ctx, &x)?;
        made(&ctx, x.f_max())
    }

    /// The greatest values along `dim`; ties share the gradient.
    #[rhai_fn(name = "max", return_raw)]
    pub fn max_dim(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, false, |x, dims, keep| x.f_amax(dims, keep))
    }

    /// The greatest values along `dim`; ties share the gradient. `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn max(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, keepdim, |x, dims, keep| x.f_amax(dims, keep))
    }

    /// The smallest value. Errors: a tensor without values.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 5], [7, 2]]);
    /// assert(x.min().item() == 1 && x.min(0).to_array() == [1, 2] && x.min(1, true).to_array() == [[1], [2]]);
    /// ```
    #[rhai_fn(name = "min", return_raw)]
    pub fn min_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        not_empty(&ctx, &x)?;
        made(&ctx, x.f_min())
    }

    /// The smallest values along `dim`; ties share the gradient.
    #[rhai_fn(name = "min", return_raw)]
    pub fn min_dim(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, false, |x, dims, keep| x.f_amin(dims, keep))
    }

    /// The smallest values along `dim`; ties share the gradient. `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn min(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &x, &dim, keepdim, |x, dims, keep| x.f_amin(dims, keep))
    }

    /// Where the greatest value stands, counted through the flattened tensor. Errors: a tensor without values.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 5], [7, 2]]);
    /// assert(x.argmax().item() == 2 && x.argmax(1).to_array() == [1, 0] && x.argmax(1, true).shape == [2, 1]);
    /// ```
    #[rhai_fn(name = "argmax", return_raw)]
    pub fn argmax_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        not_empty(&ctx, &x)?;
        made(&ctx, x.f_argmax(None, false))
    }

    /// Where the greatest values stand along `dim`.
    #[rhai_fn(name = "argmax", return_raw)]
    pub fn argmax_dim(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_argmax(dim, false))
    }

    /// Where the greatest values stand along `dim`. `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn argmax(ctx: NativeCallContext, x: TensorHandle, dim: INT, keepdim: bool) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_argmax(dim, keepdim))
    }

    /// The `count` greatest values along the last dimension, greatest first, and where they stand: `#{ values, indices }`.
    ///
    /// Errors: a count that is not 1 to the size of that dimension.
    ///
    /// ```rhai
    /// let top = tensor::from([3, 9, 4]).topk(2);
    /// assert(top.values.to_array() == [9, 4] && top.indices.to_array() == [1, 2]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn topk(ctx: NativeCallContext, x: TensorHandle, count: INT) -> ScriptResult<Map> {
        let last = x.tensor().size().last().copied().unwrap_or(0);
        check_arg(&ctx, (1..=last).contains(&count), || format!("count: expected 1 to {last}, got {count}"))?;
        let (values, indices) = x.tensor().f_topk(count, -1, true, true).map_err(|err| script_error(&ctx, err))?;
        let tensor = |tensor: Tensor| Dynamic::from(TensorHandle::from(tensor));
        Ok(Map::from([("values".into(), tensor(values)), ("indices".into(), tensor(indices))]))
    }

    /// Where the smallest value stands, counted through the flattened tensor. Errors: a tensor without values.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 5], [7, 2]]);
    /// assert(x.argmin().item() == 0 && x.argmin(1).to_array() == [0, 1] && x.argmin(1, true).shape == [2, 1]);
    /// ```
    #[rhai_fn(name = "argmin", return_raw)]
    pub fn argmin_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        not_empty(&ctx, &x)?;
        made(&ctx, x.f_argmin(None, false))
    }

    /// Where the smallest values stand along `dim`.
    #[rhai_fn(name = "argmin", return_raw)]
    pub fn argmin_dim(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_argmin(dim, false))
    }

    /// Where the smallest values stand along `dim`. `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn argmin(ctx: NativeCallContext, x: TensorHandle, dim: INT, keepdim: bool) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_argmin(dim, keepdim))
    }

    /// Euclidean norm of all values.
    ///
    /// ```rhai
    /// let x = tensor::from([[3.0, 4.0], [0.0, 5.0]]);
    /// assert(x.norm(1).to_array() == [5.0, 5.0] && x.norm(1, true).shape == [2, 1]);
    /// assert(x[0].norm().item() == 5.0);
    /// ```
    #[rhai_fn(name = "norm", return_raw)]
    pub fn norm_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, floating(&ctx, &x)?.f_norm())
    }

    /// Euclidean norm over `dim`, one dimension or several.
    #[rhai_fn(name = "norm", return_raw)]
    pub fn norm_dim(ctx: NativeCallContext, x: TensorHandle, dim: Ints) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, false, |x, dims, keep| x.f_norm_scalaropt_dim(2, dims, keep))
    }

    /// Euclidean norm over `dim`; `keepdim` keeps reduced dimensions with size 1.
    #[rhai_fn(return_raw)]
    pub fn norm(ctx: NativeCallContext, x: TensorHandle, dim: Ints, keepdim: bool) -> ScriptResult<TensorHandle> {
        over(&ctx, &floating(&ctx, &x)?, &dim, keepdim, |x, dims, keep| x.f_norm_scalaropt_dim(2, dims, keep))
    }

    /// Whether every value is true (not zero); of no values true. Waits for the device.
    ///
    /// ```rhai
    /// let x = tensor::from([1, 2, 3]);
    /// assert((x > 0).all() && !(x > 1).all());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<bool> {
        truth(&ctx, x.f_all())
    }

    /// Whether any value is true (not zero); of no values false. Waits for the device.
    ///
    /// ```rhai
    /// let x = tensor::from([1, 2, 3]);
    /// assert((x > 2).any() && !(x > 3).any());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn any(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<bool> {
        truth(&ctx, x.f_any())
    }

    /// The one value of a tensor that has one: a float, an int or a bool. Waits for the device.
    ///
    /// Errors: more values, or none.
    ///
    /// ```rhai
    /// assert(tensor::from([[2.5]]).item() == 2.5);
    /// assert(type_of(tensor::from(3).item()) == "int" && (tensor::from(1) == 1).item());
    /// ```
    #[rhai_fn(return_raw)]
    pub fn item(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<Scalar> {
        check_arg(&ctx, x.numel() == 1, || {
            format!("item: expected a tensor with one value, got shape {:?}", x.size())
        })?;
        Ok(elements(&ctx, &x)?.remove(0))
    }
}

/// A reduction over the dimensions that `dim` names.
fn over(
    ctx: &NativeCallContext,
    x: &Tensor,
    dim: &Dynamic,
    keepdim: bool,
    reduce: impl Fn(&Tensor, &[i64], bool) -> Result<Tensor, TchError>,
) -> ScriptResult<TensorHandle> {
    let dims = convert::ints(ctx, "dim", dim)?;
    // libtorch takes an empty list for "all", which is never what an empty array in a script is meant to say.
    check_arg(ctx, !dims.is_empty(), || "dim: expected at least one dimension, got []".into())?;
    guarded(ctx, || reduce(x, &dims, keepdim))
}

fn not_empty(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<()> {
    check_arg(ctx, x.numel() > 0, || format!("expected a tensor with values, got shape {:?}", x.size()))
}

fn truth(ctx: &NativeCallContext, result: Result<Tensor, TchError>) -> ScriptResult<bool> {
    result.and_then(|x| x.f_int64_value(&[])).map(|value| value != 0).map_err(|err| script_error(ctx, err))
}
