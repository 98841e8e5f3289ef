//! What a run is started with.

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::goal::Goal;
use super::optimizer::Optimizer;
use super::state::Carried;
use crate::energy::config::Config;
use crate::nn::Registry;

/// What a run is started with.
pub struct Setup {
    /// The run directory; it exists.
    pub dir: PathBuf,
    pub model: Rc<Registry>,
    /// `None` where the script updates the weights itself.
    pub optimizer: Option<Rc<Optimizer>>,
    /// Facts for `run.json`: name, arguments, recipe, seed, versions, device.
    pub record: Map<String, Value>,
    /// `None` where nobody said.
    pub images_per_step: Option<u64>,
    /// `None` where there are no epochs.
    pub steps_per_epoch: Option<u64>,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between two validations; 0 validates at the end only.
    pub validate_every: u64,
    /// Steps between two saves of `checkpoints/last`.
    pub save_every: u64,
    /// What `checkpoints/best` is the best of.
    pub goal: Goal,
    /// How its energy is metered; `None` is not at all.
    pub energy: Option<Config>,
    /// What a new run goes on from.
    pub carried: Option<Carried>,
}
