//! What can go wrong in a run, by whose it is to mend.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::libtorch::TorchError;
use crate::nn::NnError;

pub type TrainResult<T> = Result<T, TrainError>;

#[derive(Debug, Error)]
pub enum TrainError {
    #[error(transparent)]
    Nn(#[from] NnError),
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The disk, or what is on it: a machine failure.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A run directory or checkpoint that cannot be carried on with; names the file.
    #[error("{}: {problem}", path.display())]
    Broken { path: PathBuf, problem: String },
    #[error("{0}")]
    Config(String),
    /// A loss or a weight is no longer finite.
    #[error("{0}")]
    Diverged(String),
}

impl TrainError {
    pub fn broken(path: &Path, problem: impl std::fmt::Display) -> Self {
        Self::Broken { path: path.to_owned(), problem: problem.to_string() }
    }
}

impl From<tch::TchError> for TrainError {
    fn from(err: tch::TchError) -> Self {
        Self::Torch(err.into())
    }
}

/// Attaches the path to an input or output error.
pub trait At<T> {
    fn at(self, path: &Path) -> TrainResult<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &Path) -> TrainResult<T> {
        self.map_err(|source| TrainError::Io { path: path.to_owned(), source })
    }
}
