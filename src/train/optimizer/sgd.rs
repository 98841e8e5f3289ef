//! Stochastic gradient descent with momentum, as `torch.optim.SGD` has it, on libtorch's fused in-place kernel.
//!
//! Update: `g ← g + λ w`, `b ← μ b + g`, `w ← w − lr · b`, with Nesterov `w ← w − lr · (g + μ b)` (Sutskever et al. 2013).
//! Weight decay is coupled, an L2 penalty that goes through the momentum, because published settings are for that.

use tch::Tensor;

use super::groups::Group;
use super::memory::{Memory, refuse_strangers};
use super::{Method, at_least_0, below_1, check, layer_decay};
use crate::libtorch::{SgdStep, fused_sgd};
use crate::nn::{Parameter, Registry};
use crate::train::checkpoint::State;
use crate::train::{TrainError, TrainResult};

/// Hyper-parameters of SGD.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdConfig {
    /// Peak learning rate, absolute.
    pub lr: f64,
    /// 0 is none.
    pub momentum: f64,
    pub nesterov: bool,
    /// L2, added to the gradient; not of biases, norms and tokens.
    pub weight_decay: f64,
    /// See [`super::AdamWConfig::layer_decay`].
    pub layer_decay: f64,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.0, layer_decay: 1.0 }
    }
}

pub(super) struct Sgd {
    config: SgdConfig,
    memory: Memory,
}

impl Sgd {
    pub fn new(config: SgdConfig) -> TrainResult<Self> {
        check(&[
            at_least_0("lr", config.lr),
            below_1("momentum", config.momentum),
            at_least_0("weight_decay", config.weight_decay),
            layer_decay(config.layer_decay),
        ])?;
        if config.nesterov && config.momentum == 0.0 {
            return Err(TrainError::Config("nesterov: expected a momentum above 0 with it, got 0".to_owned()));
        }
        Ok(Self { config, memory: Memory::new(&["momentum_buffer"], &[]) })
    }
}

impl Method for Sgd {
    fn update(&self, _model: &Registry, groups: &[Group], lr: f64) -> TrainResult<()> {
        let SgdConfig { momentum, nesterov, weight_decay, .. } = self.config;
        for group in groups {
            let (mut params, mut grads, mut buffers) = (Vec::new(), Vec::new(), Vec::new());
            for part in &group.parts {
                params.push(part.tensor.shallow_clone());
                grads.push(part.gradient.shallow_clone());
                if momentum > 0.0 {
                    // From zero, the first update is PyTorch's, which takes the gradient for the buffer.
                    buffers.extend(self.memory.of(part)?);
                }
            }
            let weight_decay = if group.decay { weight_decay } else { 0.0 };
            fused_sgd(&params, &grads, &buffers, SgdStep { lr: lr * group.scale, momentum, nesterov, weight_decay })?;
        }
        Ok(())
    }

    fn state(&self, _model: &Registry) -> State {
        self.memory.state()
    }

    fn load(&self, model: &Registry, state: &[(String, Tensor)]) -> TrainResult<()> {
        let found = self.memory.find(model, state, |_| self.config.momentum > 0.0)?;
        refuse_strangers(state, found.count)?;
        self.memory.put(found);
        Ok(())
    }

    fn values(&self, _parameter: &Parameter) -> u64 {
        u64::from(self.config.momentum > 0.0)
    }
}
