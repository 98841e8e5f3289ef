//! What can go wrong in a model, said to the person who configured it.

use thiserror::Error;

use crate::libtorch::TorchError;

pub type NnResult<T> = Result<T, NnError>;

#[derive(Debug, Error)]
pub enum NnError {
    #[error("{0}")]
    Torch(#[from] TorchError),
    /// A number of a configuration that cannot work; the message names the field, what was expected and what was given.
    #[error("{0}")]
    Config(String),
    #[error("modules: pattern \"{pattern}\" matches no decorrelatable layer; {nearest}")]
    NoMatch { pattern: String, nearest: String },
    #[error("{name}: the checkpoint has shape {found:?}, the model {expected:?}")]
    Shape { name: String, expected: Vec<i64>, found: Vec<i64> },
    #[error("{name}: not in the checkpoint")]
    Missing { name: String },
    #[error("{name}: in the checkpoint, but not in the model")]
    Unexpected { name: String },
    #[error(
        "mask_ratio: {ratio} of {patches} patches leaves {kept}; both the kept and the removed part need at least one"
    )]
    MaskRatio { ratio: f64, patches: i64, kept: i64 },
}

impl From<tch::TchError> for NnError {
    fn from(err: tch::TchError) -> Self {
        Self::Torch(err.into())
    }
}
