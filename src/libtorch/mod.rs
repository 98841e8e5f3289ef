//! What tch lacks: errors without C++ frames, in-place updates of many tensors, and CUDA that is loaded when it is first asked for.

mod allocator;
mod attention;
mod bf16;
pub mod buffer;
mod checkpoint;
mod cuda;
mod heap;
mod linear;
pub mod memory;
mod overflow;
mod shim;
mod updates;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use thiserror::Error;

pub use attention::attention;
pub use bf16::{has_bf16, product};
pub use checkpoint::checkpoint;
pub use cuda::{cuda_bus_id, exit_now, load as load_cuda};
pub use heap::keep_freed_memory;
pub use linear::linear;
pub use overflow::guard_stack;
pub use shim::{AdamWStep, clear_grads, fused_adamw, grad_enabled};
pub use updates::{ScheduleFreeStep, SgdStep, clip_norm, fused_sgd, lerp, schedule_free_adamw};

/// A failed libtorch operation: the first line of its message, without the C++ stack that follows.
#[derive(Clone, Debug, Error)]
#[error("{0}")]
pub struct TorchError(pub String);

impl From<tch::TchError> for TorchError {
    fn from(err: tch::TchError) -> Self {
        let text = match &err {
            tch::TchError::Torch(text) | tch::TchError::FileFormat(text) | tch::TchError::Kind(text) => text.clone(),
            other => other.to_string(),
        };
        let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("libtorch failed");
        Self(first.to_owned())
    }
}

pub type TorchResult<T> = Result<T, TorchError>;

/// Makes a call of tch that takes a number (`Scalar`) fallible.
///
/// tch's `f_…` functions panic instead of returning the error when they take a number: the number is dropped first, and its
/// destructor meets the error. Calls without a number need no guard.
pub fn guarded<T>(call: impl FnOnce() -> Result<T, tch::TchError>) -> TorchResult<T> {
    let payload = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => return result.map_err(TorchError::from),
        Err(payload) => payload,
    };
    // The text is `called `Result::unwrap()` on an `Err` value: Torch("…")`, with line breaks escaped.
    let text =
        payload.downcast_ref::<String>().and_then(|text| text.split_once("Err` value: Torch(\"")).map(|(_, text)| text);
    match text {
        Some(text) => {
            let first = text.split("\\n").next().unwrap_or(text).trim_end_matches("\")");
            Err(TorchError(first.replace("\\\"", "\"")))
        }
        None => resume_unwind(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_call_with_a_number_is_an_error() {
        let x = tch::Tensor::from_slice(&[1_i64]);
        assert_eq!(guarded(|| x.f_remainder(0)).unwrap_err().0, "ZeroDivisionError");
        assert!(guarded(|| x.f_remainder(2)).is_ok());
        assert!(guarded(|| x.f_reshape([7])).is_err());
    }
}
