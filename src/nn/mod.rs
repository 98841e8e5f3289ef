//! Layers and models, one file per idea. Names, shapes and initial values follow timm and the MAE paper, so that weights
//! travel. Nothing here opens a file, reads a clock or knows a script.

mod attention;
mod block;
pub mod decorrelated;
pub mod error;
pub mod linear;
pub mod mae;
pub mod masking;
pub mod metrics;
mod norm;
pub mod options;
pub mod patch;
pub mod pattern;
pub mod pos_embed;
pub mod registry;
pub mod rows;
pub mod vit;

pub use decorrelated::Decorrelation;
pub use error::{NnError, NnResult};
pub use linear::Linear;
pub use mae::{Mae, MaeConfig, Reconstruction};
pub use metrics::{LastFigures, LayerMetrics};
pub use options::{DecorOptions, DecorSchedule, Sample, StopAt};
pub use registry::{Parameter, Registry, Scope};
pub use rows::{Pass, Path, Place, RowSampler};
pub use vit::{Vit, VitConfig};
