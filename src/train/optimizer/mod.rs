//! Optimizers: what all have in common. Each is a file of its own with a [`Method`]: what it does to parameters that share a
//! rate, and what it remembers of them.
//!
//! One step folds the gradients of decorrelated layers into those of their weights (`dW = dA Rᵀ`), hands parameters over in
//! groups, and clears all gradients. R is no parameter: no method sees it.

mod adamw;
mod groups;
mod memory;
mod muon;
mod newton_schulz;
mod schedule_free;
mod sgd;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tch::Tensor;

pub use adamw::AdamWConfig;
pub use muon::{AdjustLr, MuonConfig};
pub use newton_schulz::orthogonalize;
pub use schedule_free::ScheduleFreeConfig;
pub use sgd::SgdConfig;

use super::checkpoint::State;
use super::{TrainError, TrainResult};
use crate::libtorch::clip_norm;
use crate::nn::{Parameter, Registry};
use groups::{Group, LayerDecay};

/// Which optimizer, with its hyper-parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerConfig {
    AdamW(AdamWConfig),
    Sgd(SgdConfig),
    Muon(MuonConfig),
    ScheduleFree(ScheduleFreeConfig),
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(config: AdamWConfig) -> Self {
        Self::AdamW(config)
    }
}

impl From<SgdConfig> for OptimizerConfig {
    fn from(config: SgdConfig) -> Self {
        Self::Sgd(config)
    }
}

impl From<MuonConfig> for OptimizerConfig {
    fn from(config: MuonConfig) -> Self {
        Self::Muon(config)
    }
}

impl From<ScheduleFreeConfig> for OptimizerConfig {
    fn from(config: ScheduleFreeConfig) -> Self {
        Self::ScheduleFree(config)
    }
}

/// What one optimizer does differently from the others.
trait Method {
    /// The rate of the coming update, where `lr` is asked for.
    fn rate(&self, lr: f64) -> f64 {
        lr
    }

    /// One update of all parameters that a gradient has reached.
    fn update(&self, model: &Registry, groups: &[Group], lr: f64) -> TrainResult<()>;

    /// What a checkpoint keeps, by name.
    fn state(&self, model: &Registry) -> State;

    /// Takes over such a state, as a whole or not at all.
    fn load(&self, model: &Registry, state: &[(String, Tensor)]) -> TrainResult<()>;

    /// Values that are remembered for each value of a parameter, at most.
    fn values(&self, parameter: &Parameter) -> u64;

    /// Puts the weights to evaluate at into the model, or those to train at.
    fn set_averaged(&self, _model: &Registry, _averaged: bool) -> TrainResult<()> {
        Ok(())
    }

    fn is_averaged(&self) -> bool {
        false
    }

    /// Puts the weights to evaluate at in the place of those that are in `weights`, a state of the model.
    fn average(&self, _model: &Registry, weights: State) -> TrainResult<State> {
        Ok(weights)
    }
}

/// Updates a model's parameters from their gradients.
pub struct Optimizer {
    model: Rc<Registry>,
    method: Box<dyn Method>,
    layers: LayerDecay,
    lr: f64,
    last_lr: Cell<f64>,
    /// All gradients together are no longer than this.
    clip_norm: Option<f64>,
    grad_norm: RefCell<Option<Tensor>>,
}

impl Optimizer {
    /// Errors: [`TrainError::Config`] naming the first value outside its range.
    pub fn new(model: Rc<Registry>, config: impl Into<OptimizerConfig>) -> TrainResult<Self> {
        let (lr, layer_decay, method): (f64, f64, Box<dyn Method>) = match config.into() {
            OptimizerConfig::AdamW(config) => (config.lr, config.layer_decay, Box::new(adamw::AdamW::new(config)?)),
            OptimizerConfig::Sgd(config) => (config.lr, config.layer_decay, Box::new(sgd::Sgd::new(config)?)),
            OptimizerConfig::Muon(config) => {
                (config.lr, config.layer_decay, Box::new(muon::Muon::new(&model, config)?))
            }
            OptimizerConfig::ScheduleFree(config) => {
                (config.lr, config.layer_decay, Box::new(schedule_free::ScheduleFree::new(config)?))
            }
        };
        Ok(Self {
            layers: LayerDecay::new(&model, layer_decay)?,
            last_lr: Cell::new(lr),
            clip_norm: None,
            grad_norm: RefCell::default(),
            lr,
            method,
            model,
        })
    }

    /// The same with gradients clipped by their common norm (Pascanu et al. 2013, arXiv:1211.5063), as PyTorch's
    /// `clip_grad_norm_` does it; `None` leaves them as they are. Decorrelated layers count with the gradients of their weights.
    ///
    /// Errors: [`TrainError::Config`] unless it is above 0.
    pub fn with_clip_norm(mut self, clip_norm: Option<f64>) -> TrainResult<Self> {
        if let Some(norm) = clip_norm {
            check(&[above_0("clip_norm", norm)])?;
        }
        self.clip_norm = clip_norm;
        Ok(self)
    }

    /// The norm of all gradients at the last update, before they were clipped; left on the device. `None` without clipping.
    pub fn grad_norm(&self) -> Option<Tensor> {
        self.grad_norm.borrow().as_ref().map(Tensor::shallow_clone)
    }

    /// The peak learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// The learning rate of the last update.
    pub fn last_lr(&self) -> f64 {
        self.last_lr.get()
    }

    /// One update at learning rate `lr`: folds the gradients of fused layers, steps, and clears all gradients. Parameters
    /// that no gradient reached stay as they are.
    pub fn step(&self, lr: f64) -> TrainResult<()> {
        let lr = self.method.rate(lr);
        let groups = self.layers.groups(&self.model)?;
        if let Some(most) = self.clip_norm {
            let gradients = groups.iter().flat_map(|group| &group.parts).map(|part| part.gradient.shallow_clone());
            *self.grad_norm.borrow_mut() = clip_norm(&gradients.collect::<Vec<_>>(), most)?;
        }
        self.method.update(&self.model, &groups, lr)?;
        self.last_lr.set(lr);
        self.model.set_lr_fraction(if self.lr > 0.0 { lr / self.lr } else { 1.0 });
        Ok(self.model.after_step()?)
    }

    /// What a checkpoint holds, as `<what>.<parameter>`.
    pub fn state(&self) -> State {
        let mut state = self.method.state(&self.model);
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    }

    /// Takes over a saved state; the model has the weights that were saved with it.
    ///
    /// Errors: a name without its parameter, or a shape that is not the parameter's. Then nothing has changed.
    pub fn load_state(&self, state: &[(String, Tensor)]) -> TrainResult<()> {
        self.method.load(&self.model, state)
    }

    /// Bytes that the state will take at most.
    pub fn state_bytes(&self) -> TrainResult<u64> {
        let mut bytes = 0;
        self.model.each_parameter(|parameter| -> TrainResult<()> {
            let tensor = &parameter.tensor;
            bytes += self.method.values(parameter) * (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Puts the weights to evaluate at into the model (`true`) or those to train at. Only schedule-free methods know two; for
    /// the others, and where they are in place already, nothing happens. There and back is exact.
    ///
    /// Errors: [`crate::nn::NnError::Config`] between a backward pass and the step, for a decorrelated layer.
    pub fn set_averaged(&self, averaged: bool) -> TrainResult<()> {
        self.method.set_averaged(&self.model, averaged)
    }

    /// Whether the weights to evaluate at are in the model, and others to train at are not.
    pub fn is_averaged(&self) -> bool {
        self.method.is_averaged()
    }

    /// The model's state as others should have it: with the weights to evaluate at, whichever are in the model.
    pub fn average(&self, weights: State) -> TrainResult<State> {
        self.method.average(&self.model, weights)
    }
}

impl Drop for Optimizer {
    /// A model that outlives its optimizer is there to be evaluated.
    fn drop(&mut self) {
        // It fails where gradients wait for a step that will not come; then the weights stay those that were trained at.
        let _ = self.set_averaged(true);
    }
}

/// A hyper-parameter: name, value, whether it is in its range, and that range in words.
type Range = (&'static str, f64, bool, &'static str);

/// Ranges that several optimizers have.
fn at_least_0(name: &'static str, value: f64) -> Range {
    (name, value, value >= 0.0, "0 or more")
}

fn below_1(name: &'static str, value: f64) -> Range {
    (name, value, (0.0..1.0).contains(&value), "0 to below 1")
}

fn above_0(name: &'static str, value: f64) -> Range {
    (name, value, value > 0.0, "more than 0")
}

fn layer_decay(value: f64) -> Range {
    ("layer_decay", value, value > 0.0 && value <= 1.0, "above 0 up to 1")
}

/// Errors: [`TrainError::Config`] naming the first value outside its range.
fn check(ranges: &[Range]) -> TrainResult<()> {
    match ranges.iter().find(|(_, value, fine, _)| !fine || !value.is_finite()) {
        Some((name, value, _, expected)) => {
            Err(TrainError::Config(format!("{name}: expected {expected}, got {value}")))
        }
        None => Ok(()),
    }
}
