//! What makes a run of training: optimizers, and the run directory with its checkpoints,
//! metrics and pictures. The loop itself is a script's (`stdlib/mae.rhai`).

pub mod checkpoint;
pub mod cost;
pub mod error;
pub mod experiment;
pub mod goal;
pub mod lock;
pub mod metrics;
pub mod optimizer;
pub mod pictures;
pub mod record;
pub mod run;
pub mod segmentation;
pub mod setup;
mod state;
pub mod tensorboard;
pub mod weights;

pub use error::{TrainError, TrainResult};
pub use optimizer::{AdamWConfig, AdjustLr, MuonConfig, Optimizer, OptimizerConfig, ScheduleFreeConfig, SgdConfig};
