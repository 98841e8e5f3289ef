//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on libtorch's fused in-place kernel.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::groups::{Group, Part};
use super::memory::{Memory, refuse_strangers};
use super::{Method, above_0, at_least_0, below_1, check, layer_decay};
use crate::libtorch::{AdamWStep, fused_adamw};
use crate::nn::{Parameter, Registry};
use crate::train::TrainResult;
use crate::train::checkpoint::State;

/// Hyper-parameters of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak learning rate, absolute: never scaled by the batch.
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// Not applied to biases, norms and tokens.
    pub weight_decay: f64,
    pub eps: f64,
    /// Layer-wise decay of the learning rate for fine-tuning (Bao et al. 2022, arXiv:2106.08254): each block learns at this
    /// fraction of the rate of the one after it, the embedding slowest, heads at the full rate. 1 is none.
    pub layer_decay: f64,
}

impl Default for AdamWConfig {
    /// MAE's pre-training values (He et al. 2022, Table 8), learning rate aside.
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.95, weight_decay: 0.05, eps: 1e-8, layer_decay: 1.0 }
    }
}

impl AdamWConfig {
    /// Errors: [`crate::train::TrainError::Config`] naming the first value outside its range.
    pub fn check(&self) -> TrainResult<()> {
        check(&[
            at_least_0("lr", self.lr),
            below_1("beta1", self.beta1),
            below_1("beta2", self.beta2),
            at_least_0("weight_decay", self.weight_decay),
            above_0("eps", self.eps),
            layer_decay(self.layer_decay),
        ])
    }
}

pub(super) struct AdamW {
    config: AdamWConfig,
    /// Both moments, and updates so far, a float scalar as libtorch wants it.
    pub memory: Memory,
}

impl AdamW {
    pub fn new(config: AdamWConfig) -> TrainResult<Self> {
        config.check()?;
        Ok(Self { config, memory: Memory::new(&["exp_avg", "exp_avg_sq"], &["step"]) })
    }

    /// One update of some parts of a group, as one kernel.
    pub fn apply<'a>(&self, group: &Group, parts: impl Iterator<Item = &'a Part>, lr: f64) -> TrainResult<()> {
        let mut lists: [Vec<Tensor>; 5] = Default::default();
        for part in parts {
            let own = self.memory.of(part)?;
            let whole = [part.tensor.shallow_clone(), part.gradient.shallow_clone()].into_iter().chain(own);
            lists.iter_mut().zip(whole).for_each(|(list, tensor)| list.push(tensor));
        }
        let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = self.config;
        let weight_decay = if group.decay { weight_decay } else { 0.0 };
        let with = AdamWStep { lr: lr * group.scale, beta1, beta2, weight_decay, eps };
        let [params, grads, exp_avgs, exp_avg_sqs, steps] = &lists;
        if params.is_empty() {
            return Ok(());
        }
        Ok(fused_adamw(params, grads, exp_avgs, exp_avg_sqs, steps, with)?)
    }
}

impl Method for AdamW {
    fn update(&self, _model: &Registry, groups: &[Group], lr: f64) -> TrainResult<()> {
        groups.iter().try_for_each(|group| self.apply(group, group.parts.iter(), lr))
    }

    fn state(&self, _model: &Registry) -> State {
        self.memory.state()
    }

    fn load(&self, model: &Registry, state: &[(String, Tensor)]) -> TrainResult<()> {
        let found = self.memory.find(model, state, |_| true)?;
        refuse_strangers(state, found.count)?;
        self.memory.put(found);
        Ok(())
    }

    fn values(&self, _parameter: &Parameter) -> u64 {
        2
    }
}
