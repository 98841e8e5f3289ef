//! Indexing: `x[i]`, `x[-1]`, `x[1..3]`, `x[[0, 1..3]]` for several dimensions, masks and index tensors; and writing there.
//!
//! Ranges and integers give views: writing to them writes to the tensor. `()` in a list of indexes takes a whole dimension.

use std::ops::{Range, RangeInclusive};

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, EvalAltResult, INT, ImmutableString, NativeCallContext};
use tch::{Kind, TchError, Tensor};

use super::shape::PROPERTIES;
use super::{TensorHandle, guarded, is_floating, made, size};
use crate::host::convert::{self, Fill, Index};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::suggest::did_you_mean;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(indexing).into());
}

#[export_module]
mod indexing {
    /// Part of a tensor: an integer takes one slice of the first dimension, a range several, an array goes through the
    /// dimensions one by one (`()` takes a whole one), a bool tensor selects, an int tensor gathers rows. Integers and ranges
    /// give views.
    ///
    /// Errors: a position or a dimension that is not there, a mask of another shape, a floating index tensor.
    ///
    /// ```rhai
    /// let x = tensor::arange(12).reshape([3, 4]);
    /// assert(x[1].to_array() == [4, 5, 6, 7] && x[-1][0].item() == 8);
    /// assert(x[1..3].shape == [2, 4] && x[[(), 1]].to_array() == [1, 5, 9]);
    /// assert(x[x > 9].to_array() == [10, 11]);
    /// assert(x[tensor::from([2, 0])][[(), 0]].to_array() == [8, 0]);
    /// ```
    #[rhai_fn(index_get, return_raw, pure)]
    pub fn get(ctx: NativeCallContext, x: &mut TensorHandle, index: Index) -> ScriptResult<TensorHandle> {
        if let Some(index) = index.clone().try_cast::<TensorHandle>() {
            check_index_tensor(&ctx, x, &index)?;
            return made(&ctx, x.f_index(&[Some(index.tensor())]));
        }
        Ok(view(&ctx, x, &index)?.into())
    }

    /// Writes a number or a tensor, which is broadcast, to part of a tensor. Every copy of the tensor sees it.
    ///
    /// Errors: those of reading there, and a tensor whose shape does not fit.
    ///
    /// ```rhai
    /// let x = tensor::zeros([2, 2]);
    /// x[0] = tensor::from([1.0, 2.0]);
    /// x[[1, 0]] = 7;
    /// assert(x.to_array() == [[1.0, 2.0], [7.0, 0.0]]);
    /// ```
    #[rhai_fn(index_set, return_raw)]
    pub fn set(ctx: NativeCallContext, x: &mut TensorHandle, index: Index, value: Fill) -> ScriptResult<()> {
        // After `x.shape.len()` Rhai offers the shape back, in case the method changed it; this says that it need not.
        if index.read_lock::<ImmutableString>().is_some_and(|name| PROPERTIES.contains(&name.as_str())) {
            return Err(EvalAltResult::ErrorIndexingType("Tensor".to_owned(), ctx.call_position()).into());
        }
        let value = match value.clone().try_cast::<TensorHandle>() {
            Some(value) => value.shallow_clone(),
            None => {
                let number = match value.as_bool() {
                    Ok(truth) => f64::from(truth),
                    Err(_) => convert::float(&ctx, "value", &value)?,
                };
                guarded(&ctx, || Tensor::f_full([0_i64; 0], number, (x.kind(), x.device())))?.shallow_clone()
            }
        };
        if let Some(index) = index.clone().try_cast::<TensorHandle>() {
            check_index_tensor(&ctx, x, &index)?;
            let write = |value: Tensor| -> Result<(), TchError> {
                let value = value.f_to_kind(x.kind())?;
                let _ = x.shallow_clone().f_index_put_(&[Some(index.tensor())], &value, false)?;
                Ok(())
            };
            return write(value).map_err(|err| script_error(&ctx, err));
        }
        let mut target = view(&ctx, x, &index)?;
        let (from, to) = (value.size(), target.size());
        if size::common(&from, &to).as_ref() != Some(&to) {
            return Err(script_error(
                &ctx,
                format!("tensor shapes do not match: {from:?} cannot be written to {to:?}"),
            ));
        }
        target.f_copy_(&value).map_err(|err| script_error(&ctx, err))
    }

    /// Positions `start` up to, not including, `end` of dimension `dim`; negative ones count from the end.
    ///
    /// ```rhai
    /// let x = tensor::arange(5);
    /// assert(x.slice(0, 1, 3).to_array() == [1, 2] && x.slice(0, -2, 5).to_array() == [3, 4]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn slice(
        ctx: NativeCallContext,
        x: TensorHandle,
        dim: INT,
        start: INT,
        end: INT,
    ) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_slice(dim, start, end, 1))
    }

    /// `length` positions of dimension `dim` from `start` on.
    ///
    /// ```rhai
    /// assert(tensor::arange(5).narrow(0, 1, 3).to_array() == [1, 2, 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn narrow(
        ctx: NativeCallContext,
        x: TensorHandle,
        dim: INT,
        start: INT,
        length: INT,
    ) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_narrow(dim, start, length))
    }

    /// Position `index` of dimension `dim`, without that dimension.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 2], [3, 4]]);
    /// assert(x.select(1, 0).to_array() == [1, 3] && x.select(0, -1).to_array() == [3, 4]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn select(ctx: NativeCallContext, x: TensorHandle, dim: INT, index: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_select(dim, index))
    }

    /// The positions of dimension `dim` that an int tensor of one dimension lists.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 2, 3], [4, 5, 6]]);
    /// assert(x.index_select(1, tensor::from([2, 0])).to_array() == [[3, 1], [6, 4]]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn index_select(
        ctx: NativeCallContext,
        x: TensorHandle,
        dim: INT,
        index: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        let mut shape = x.size();
        let at = if dim < 0 { dim + shape.len() as i64 } else { dim };
        if let Some(size) = usize::try_from(at).ok().and_then(|at| shape.get_mut(at)) {
            *size = index.numel() as i64;
        }
        size::check(&ctx, &shape, x.kind())?;
        made(&ctx, x.f_index_select(dim, &index))
    }

    /// Values picked along `dim`: `y[i, j] = x[i, index[i, j]]` for `dim` 1. Shapes: the result has that of `index`, which has
    /// as many dimensions as `x`.
    ///
    /// ```rhai
    /// let x = tensor::from([[1, 2, 3], [4, 5, 6]]);
    /// assert(x.gather(1, tensor::from([[2], [0]])).to_array() == [[3], [4]]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn gather(
        ctx: NativeCallContext,
        x: TensorHandle,
        dim: INT,
        index: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &index.size(), x.kind())?;
        made(&ctx, x.f_gather(dim, &index, false))
    }

    /// The values where `mask` is true, in one dimension; the mask is broadcast.
    ///
    /// ```rhai
    /// let x = tensor::from([1, 2, 3]);
    /// assert(x.masked_select(x > 1).to_array() == [2, 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn masked_select(ctx: NativeCallContext, x: TensorHandle, mask: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &size::broadcast(&ctx, &x.size(), &mask.size())?, x.kind())?;
        made(&ctx, x.f_masked_select(&mask))
    }
}

/// Bounds the result, and refuses what libtorch would take for something else.
fn check_index_tensor(ctx: &NativeCallContext, x: &Tensor, index: &Tensor) -> ScriptResult<()> {
    if index.kind() == Kind::Bool {
        let (mask, shape) = (index.size(), x.size());
        if shape.starts_with(&mask) {
            return Ok(());
        }
        return Err(script_error(ctx, format!("tensor shapes do not match: mask {mask:?} on a tensor {shape:?}")));
    }
    if is_floating(index.kind()) {
        let failure = Failure::script("index: expected integers or bools, got a floating tensor");
        return Err(script_error(ctx, failure.with_hint("`to_int()` makes integers, a comparison makes bools")));
    }
    let Some((_, rest)) = x.size().split_first().map(|(first, rest)| (*first, rest.to_vec())) else {
        return Err(script_error(ctx, "a single value has no dimension to index"));
    };
    size::check(ctx, &[index.size(), rest].concat(), x.kind())
}

/// The view that integers, ranges and arrays of them name.
fn view(ctx: &NativeCallContext, x: &Tensor, index: &Dynamic) -> ScriptResult<Tensor> {
    let Some(indexes) = index.read_lock::<Array>() else { return step(ctx, x, 0, index, 0).map(|(x, _)| x) };
    let mut x = x.shallow_clone();
    let mut dim = 0;
    for (nth, index) in indexes.iter().enumerate() {
        let kept;
        (x, kept) = step(ctx, &x, dim, index, nth)?;
        dim += i64::from(kept);
    }
    Ok(x)
}

/// One index at dimension `dim`, which was the `nth` of the whole tensor; and whether the dimension is still there.
fn step(ctx: &NativeCallContext, x: &Tensor, dim: i64, index: &Dynamic, nth: usize) -> ScriptResult<(Tensor, bool)> {
    if let Some(name) = index.read_lock::<ImmutableString>() {
        // Rhai asks the indexer for properties that have no getter.
        let hint = did_you_mean(&name, PROPERTIES);
        return Err(script_error(
            ctx,
            Failure { hint, ..Failure::script(format!("Tensor has no property `{}`", *name)) },
        ));
    }
    let Some(size) = x.size().get(dim as usize).copied() else {
        return Err(script_error(ctx, format!("the tensor has no dimension {nth} to index")));
    };
    let torch = |result: Result<Tensor, TchError>| result.map_err(|err| script_error(ctx, err));
    if let Ok(at) = index.as_int() {
        if at < -size || at >= size {
            return Err(script_error(ctx, format!("index {at} is out of range for dimension {nth} of size {size}")));
        }
        return Ok((torch(x.f_select(dim, at))?, false));
    }
    if index.is_unit() {
        return Ok((x.shallow_clone(), true));
    }
    let (start, end) = if let Some(range) = index.clone().try_cast::<Range<INT>>() {
        (range.start, range.end)
    } else if let Some(range) = index.clone().try_cast::<RangeInclusive<INT>>() {
        // The last position, included: -1 + 1 would be the first.
        (*range.start(), if *range.end() == -1 { INT::MAX } else { range.end().saturating_add(1) })
    } else {
        let got = ctx.engine().map_type_name(index.type_name());
        let expected = "an integer, a range, `()`, an array of these, or a tensor";
        return Err(script_error(ctx, format!("index: expected {expected}, got {got}")));
    };
    Ok((torch(x.f_slice(dim, start, end, 1))?, true))
}
