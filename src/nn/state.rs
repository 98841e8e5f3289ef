//! What a checkpoint keeps of decorrelation beside the tensors, so that a resumed run decides as an uninterrupted one.

use serde::{Deserialize, Serialize};

use super::auto::Progress;
use super::guard::Guard;
use super::metrics::{LastFigures, LayerMetrics};
use super::options::DecorOptions;

/// Of one layer that is decorrelated or probed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerState {
    pub name: String,
    #[serde(default)]
    pub frozen: bool,
    #[serde(default)]
    pub guard: Guard,
    /// Of the last update.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<LastFigures>,
    /// How it is probed, and whether condition numbers are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<(DecorOptions, bool)>,
    /// Of the last probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<LayerMetrics>,
}

/// Of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecorState {
    pub layers: Vec<LayerState>,
    /// How far `"auto"` has come, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<Progress>,
}
