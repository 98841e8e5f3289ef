//! How big a result will be, before libtorch makes it: one tensor may take `--max-tensor-bytes`.

use rhai::NativeCallContext;
use tch::Kind;

use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::session::Session;

/// An error unless a tensor of this shape may be made.
pub fn check(ctx: &NativeCallContext, shape: &[i64], kind: Kind) -> ScriptResult<()> {
    let bytes = shape
        .iter()
        .fold(kind.elt_size_in_bytes() as u128, |bytes, size| bytes.saturating_mul(u128::try_from(*size).unwrap_or(0)));
    let limit = Session::of(ctx).options.max_tensor_bytes;
    if bytes <= u128::from(limit) {
        return Ok(());
    }
    let (needed, limit) = (human(bytes), human(u128::from(limit)));
    let failure =
        Failure::script(format!("a tensor of shape {shape:?} takes {needed}, more than the limit of {limit}"));
    Err(script_error(ctx, failure.with_hint("--max-tensor-bytes N raises the limit")))
}

/// The shape that two shapes are broadcast to, if they can be.
pub fn common(a: &[i64], b: &[i64]) -> Option<Vec<i64>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[i64], at: usize| (at + shape.len()).checked_sub(rank).map_or(1, |at| shape[at]);
    let merged = (0..rank).map(|at| match (size(a, at), size(b, at)) {
        (a, b) if a == b => Some(a),
        (1, size) | (size, 1) => Some(size),
        _ => None,
    });
    merged.collect()
}

/// The shape of an elementwise result.
///
/// # Errors
/// If the shapes cannot be broadcast to one.
pub fn broadcast(ctx: &NativeCallContext, a: &[i64], b: &[i64]) -> ScriptResult<Vec<i64>> {
    common(a, b).ok_or_else(|| {
        let failure =
            Failure::script(format!("tensor shapes do not match: {a:?} and {b:?} cannot be broadcast together"));
        script_error(
            ctx,
            failure.with_hint("counted from the last, each dimension must be equal in both, 1, or missing"),
        )
    })
}

fn human(bytes: u128) -> String {
    const UNITS: [&str; 6] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value >= 1024.0 {
        return "over 1024 PiB".into();
    }
    let digits = if value.fract() == 0.0 { 0 } else { 1 };
    format!("{value:.digits$} {}", UNITS[unit])
}
