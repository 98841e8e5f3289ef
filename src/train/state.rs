//! What a checkpoint holds beside its tensors, and how a new run goes on from another's.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::Tensor;

use super::TrainResult;
use super::checkpoint::Slot;
use super::optimizer::Optimizer;
use crate::energy::reading::Reading;
use crate::nn::{DecorState, Registry};

/// `state.json` of a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Updates done.
    pub step: u64,
    pub wall_s: f64,
    /// See [`Best`].
    pub best: Option<Value>,
    pub metrics_bytes: u64,
    pub layers_bytes: u64,
    pub lr_fraction: f64,
    /// What decorrelation has come to beside the tensors.
    #[serde(default)]
    pub decorrelation: DecorState,
    /// Random draws that the script itself has made.
    #[serde(default)]
    pub draws: u64,
    /// What hooks have logged for the line to come.
    #[serde(default)]
    pub line: Map<String, Value>,
    /// Files that could not be read up to here, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Updates that another run had done before this one went on from it.
    #[serde(default)]
    pub carried: u64,
    /// What it has cost.
    #[serde(default)]
    pub energy: Option<Reading>,
}

/// What a new run takes over from one that was stopped: weights and moments are in place already.
pub struct Carried {
    pub(super) state: State,
    /// Why moments are not, if they did not fit.
    lost: Option<String>,
}

impl Carried {
    /// Puts the last checkpoint of the run in `from` into a model that may have changed: it is to have the same weights; R is
    /// taken over where both have one, and folded in where only the checkpoint does. Moments that do not fit start anew.
    ///
    /// Errors: [`super::TrainError::Nn`] for weights that do not fit; then all are as they were. `None` where nothing was trained.
    pub fn take(from: &Path, model: &Registry, optimizer: Option<&Optimizer>) -> TrainResult<Option<Self>> {
        let Some((weights, moments, state)) = Slot::new(&from.join("checkpoints"), "last").load::<State>()? else {
            return Ok(None);
        };
        if state.step == 0 {
            return Ok(None);
        }
        let own: Vec<(String, Tensor)> = tch::no_grad(|| {
            model
                .state()
                .into_iter()
                .map(|(name, tensor)| Ok((name, tensor.f_detach_copy()?)))
                .collect::<TrainResult<_>>()
        })?;
        // The first shows that it fits; the second fills the Rs of layers that `"auto"` had chosen.
        let loaded = model
            .load_state(&weights)
            .and_then(|()| model.restore_decor_state(&state.decorrelation))
            .and_then(|()| model.load_state(&weights));
        if let Err(err) = loaded {
            model.load_state(&own)?;
            return Err(err.into());
        }
        let lost = optimizer.and_then(|optimizer| optimizer.load_state(&moments).err()).map(|err| err.to_string());
        model.set_lr_fraction(state.lr_fraction);
        let State { step, lr_fraction, decorrelation, draws, .. } = state;
        let state = State { step, carried: step, lr_fraction, decorrelation, draws, ..State::default() };
        Ok(Some(Self { state, lost }))
    }

    /// Updates done before.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Why the optimizer's moments begin anew, if they do.
    pub fn moments_lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }
}
