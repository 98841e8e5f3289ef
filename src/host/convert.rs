//! Arguments out of Rhai's dynamic values, with messages that name the argument: `dim: expected an integer, got string`.
//!
//! An integer does wherever a float is meant. Parameters and results that may be of several types are registered as [`Dynamic`];
//! the names below say in a signature what they are, and [`shown`] is how the reference says it to readers.

use rhai::{Array, Dynamic, NativeCallContext};

use super::errors::{ScriptResult, script_error};

/// Other names of [`Dynamic`], whose text Rhai's macro keeps, and what a reader is shown for each.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $shown:literal;)*) => {
        $($(#[$doc])* pub type $name = Dynamic;)*

        /// What a reader is shown for `alias`, one of the names of `Dynamic` in this file.
        pub fn shown(alias: &str) -> Option<&'static str> {
            match alias {
                $(stringify!($name) => Some($shown),)*
                _ => None,
            }
        }
    };
}

kinds! {
    /// An integer or a float.
    Number = "number";
    /// Sizes of a tensor: an array of integers, or one for a single dimension.
    Shape = "shape";
    /// Dimensions and the like: one or several.
    Ints = "int or [int]";
    /// Height and width: one integer for both, or two.
    Pair = "int or [int, int]";
    /// A bound, or none.
    Bound = "number or ()";
    /// What stands between the brackets of `x[…]`.
    Index = "index";
    /// The other side of an elementwise operation.
    Operand = "Tensor or number";
    /// What is written to a part of a tensor.
    Fill = "Tensor, number or bool";
    /// What a tensor can be made of.
    Nested = "number, bool or nested array";
    /// One value out of a tensor.
    Scalar = "int, float or bool";
    /// A pattern or several.
    Patterns = "string or [string]";
    /// Classes: how many, or their names.
    Classes = "int or [string]";
    /// The initial values of a parameter.
    Initial = "string, number or map";
    /// Elementwise results; text is what a tensor and a text add up to.
    SomeTensor = "Tensor";
    TensorOrText = "Tensor or string";
    TensorOrBool = "Tensor or bool";
    MaybeTensor = "Tensor or ()";
    MaybeFloat = "float or ()";
    MaybeInt = "int or ()";
    MaybePair = "int, [int, int] or ()";
    MaybeMap = "map or ()";
    /// A part of a custom model.
    SomePart = "Model or Tensor";
    /// Figures by name.
    Figures = "map";
}

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
