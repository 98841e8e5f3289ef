//! Layers and models, one file per idea. Names, shapes and initial values follow timm and the MAE paper, so that weights
//! travel. Nothing here opens a file, reads a clock or knows a script.

pub mod architecture;
mod attention;
pub mod auto;
mod block;
mod blocks;
pub mod conv;
pub mod cost;
pub mod decorrelated;
pub mod error;
pub mod factor;
pub mod guard;
pub mod layer;
pub mod layouts;
pub mod linear;
mod low_rank;
pub mod mae;
pub mod masking;
pub mod metrics;
pub mod norm;
pub mod options;
pub mod patch;
pub mod pattern;
pub mod pos_embed;
pub mod registry;
pub mod rows;
pub mod state;
pub mod vit;

pub use architecture::{Architecture, Built, UpernetConfig};
pub use auto::{AutoConfig, Candidate};
pub use conv::{Conv2d, Conv2dConfig};
pub use cost::{LayerCost, Plan};
pub use decorrelated::Decorrelation;
pub use error::{NnError, NnResult};
pub use layer::Layer;
pub use layouts::{Exported, Format, Hints, Imported, Layout, Taken};
pub use linear::Linear;
pub use mae::{Mae, MaeConfig, Reconstruction};
pub use metrics::{LastFigures, LayerMetrics};
pub use norm::LayerNorm;
pub use options::{BlockWidth, DecorOptions, DecorSchedule, MaxRows, Sample, StopAt};
pub use registry::{Parameter, Registry, Scope};
pub use rows::{Pass, Path, Place, RowSampler};
pub use state::DecorState;
pub use vit::{Vit, VitConfig};
