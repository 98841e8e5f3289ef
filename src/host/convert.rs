//! Arguments out of Rhai's dynamic values, with messages that name the argument: `dim: expected an integer, got string`.
//!
//! An integer does wherever a float is meant.

use rhai::{Array, Dynamic, NativeCallContext};

use super::errors::{ScriptResult, script_error};

fn mismatch<T>(ctx: &NativeCallContext, name: &str, expected: &str, value: &Dynamic) -> ScriptResult<T> {
    let got = ctx.engine().map_type_name(value.type_name());
    let got = if got == "()" { "nothing, `()`" } else { got };
    Err(script_error(ctx, format!("{name}: expected {expected}, got {got}")))
}

/// A float or an integer.
pub fn float(ctx: &NativeCallContext, name: &str, value: &Dynamic) -> ScriptResult<f64> {
    match (value.as_float(), value.as_int()) {
        (Ok(value), _) => Ok(value),
        (_, Ok(value)) => Ok(value as f64),
        _ => mismatch(ctx, name, "a number", value),
    }
}

/// An integer.
pub fn int(ctx: &NativeCallContext, name: &str, value: &Dynamic) -> ScriptResult<i64> {
    value.as_int().or_else(|_| mismatch(ctx, name, "an integer", value))
}

/// An array of integers; a single one counts as an array of one.
pub fn ints(ctx: &NativeCallContext, name: &str, value: &Dynamic) -> ScriptResult<Vec<i64>> {
    if let Ok(value) = value.as_int() {
        return Ok(vec![value]);
    }
    let Some(items) = value.read_lock::<Array>() else {
        return mismatch(ctx, name, "an integer or an array of integers", value);
    };
    items.iter().map(|item| int(ctx, name, item)).collect()
}

/// Sizes of a tensor: `[2, 3]`, or `3` for one dimension.
pub fn shape(ctx: &NativeCallContext, name: &str, value: &Dynamic) -> ScriptResult<Vec<i64>> {
    let sizes = ints(ctx, name, value)?;
    match sizes.iter().find(|size| **size < 0) {
        Some(size) => Err(script_error(ctx, format!("{name}: expected sizes of at least 0, got {size}"))),
        None => Ok(sizes),
    }
}
