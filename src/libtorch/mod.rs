//! What tch lacks: errors without C++ frames, in-place fused AdamW, and CUDA that is loaded when it is first asked for.

mod allocator;
mod cuda;

use thiserror::Error;

pub use cuda::{exit_now, load as load_cuda};

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

mod shim;
pub use shim::{AdamWStep, clear_grads, fused_adamw};
