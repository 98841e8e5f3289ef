//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on libtorch's fused in-place kernel, with a state that can be saved.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{TrainError, TrainResult};
use crate::libtorch::{AdamWStep, fused_adamw};
use crate::nn::Registry;

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
    /// Errors: [`TrainError::Config`] naming the first value outside its range.
    pub fn check(&self) -> TrainResult<()> {
        const BETA: &str = "0 to below 1";
        let ranges = [
            ("lr", self.lr, self.lr >= 0.0, "0 or more"),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), BETA),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), BETA),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "0 or more"),
            ("eps", self.eps, self.eps > 0.0, "more than 0"),
            ("layer_decay", self.layer_decay, self.layer_decay > 0.0 && self.layer_decay <= 1.0, "above 0 up to 1"),
        ];
        match ranges.iter().find(|(_, value, fine, _)| !fine || !value.is_finite()) {
            Some((name, value, _, expected)) => {
                Err(TrainError::Config(format!("{name}: expected {expected}, got {value}")))
            }
            None => Ok(()),
        }
    }
}

/// Moments of one parameter.
struct Moments {
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Updates so far, a float scalar as libtorch wants it.
    step: Tensor,
}

pub struct AdamW {
    config: AdamWConfig,
    model: Rc<Registry>,
    moments: RefCell<HashMap<String, Moments>>,
    last_lr: Cell<f64>,
    /// Blocks of the encoder, for the layer-wise decay.
    depth: i32,
}

impl AdamW {
    pub fn new(model: Rc<Registry>, config: AdamWConfig) -> TrainResult<Self> {
        config.check()?;
        let mut depth = 0;
        model.each_parameter(|parameter| -> TrainResult<()> {
            depth = depth.max(block_of(&parameter.name).map_or(0, |block| block + 1));
            Ok(())
        })?;
        Ok(Self { last_lr: Cell::new(config.lr), config, model, moments: RefCell::default(), depth })
    }

    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// The learning rate of the last update.
    pub fn last_lr(&self) -> f64 {
        self.last_lr.get()
    }

    /// One update at learning rate `lr`: folds the gradients of fused layers, steps, and clears all gradients. Parameters
    /// that no gradient reached stay as they are.
    pub fn step(&self, lr: f64) -> TrainResult<()> {
        let mut groups: Vec<(Rate, Group)> = Vec::new();
        let mut moments = self.moments.borrow_mut();
        self.model.each_parameter(|parameter| -> TrainResult<()> {
            let Some(gradient) = parameter.gradient()? else { return Ok(()) };
            let own = match moments.entry(parameter.name.clone()) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Moments {
                    exp_avg: parameter.tensor.detach().f_zeros_like()?,
                    exp_avg_sq: parameter.tensor.detach().f_zeros_like()?,
                    step: Tensor::f_zeros([] as [i64; 0], (Kind::Float, parameter.tensor.device()))?,
                }),
            };
            let rate = self.rate_of(&parameter.name, parameter.decay);
            let place = groups.iter().position(|(other, _)| *other == rate).unwrap_or_else(|| {
                groups.push((rate, Group::default()));
                groups.len() - 1
            });
            groups[place].1.push(&parameter.tensor, gradient, own);
            Ok(())
        })?;
        for (rate, group) in &groups {
            let AdamWConfig { beta1, beta2, eps, .. } = self.config;
            let with = AdamWStep { lr: lr * rate.scale, beta1, beta2, weight_decay: rate.weight_decay, eps };
            fused_adamw(&group.params, &group.grads, &group.exp_avgs, &group.exp_avg_sqs, &group.steps, with)?;
        }
        self.last_lr.set(lr);
        self.model.set_lr_fraction(if self.config.lr > 0.0 { lr / self.config.lr } else { 1.0 });
        Ok(self.model.after_step()?)
    }

    fn rate_of(&self, name: &str, decay: bool) -> Rate {
        let below_the_top = match (block_of(name), is_embedding(name)) {
            (Some(block), _) => self.depth - block,
            (None, true) => self.depth + 1,
            (None, false) => 0,
        };
        Rate {
            scale: self.config.layer_decay.powi(below_the_top),
            weight_decay: if decay { self.config.weight_decay } else { 0.0 },
        }
    }

    /// What a checkpoint holds: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>` and `step.<parameter>`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for (name, own) in self.moments.borrow().iter() {
            state.push((format!("exp_avg.{name}"), own.exp_avg.shallow_clone()));
            state.push((format!("exp_avg_sq.{name}"), own.exp_avg_sq.shallow_clone()));
            state.push((format!("step.{name}"), own.step.shallow_clone()));
        }
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    }

    /// Takes over a saved state.
    ///
    /// Errors: a name without its parameter, or a shape that is not the parameter's.
    pub fn load_state(&self, state: &[(String, Tensor)]) -> TrainResult<()> {
        let find = |name: String| state.iter().find(|(other, _)| *other == name).map(|(_, tensor)| tensor);
        let device = self.model.device();
        let mut loaded = HashMap::new();
        self.model.each_parameter(|parameter| -> TrainResult<()> {
            let name = &parameter.name;
            let parts =
                (find(format!("exp_avg.{name}")), find(format!("exp_avg_sq.{name}")), find(format!("step.{name}")));
            let (Some(exp_avg), Some(exp_avg_sq), Some(step)) = parts else { return Ok(()) };
            if exp_avg.size() != parameter.tensor.size() || exp_avg_sq.size() != parameter.tensor.size() {
                let message = format!(
                    "optimizer state of {name}: expected shape {:?}, found {:?}",
                    parameter.tensor.size(),
                    exp_avg.size()
                );
                return Err(TrainError::Config(message));
            }
            let own = Moments {
                exp_avg: exp_avg.f_to_device(device)?,
                exp_avg_sq: exp_avg_sq.f_to_device(device)?,
                step: step.f_to_device(device)?,
            };
            loaded.insert(name.clone(), own);
            Ok(())
        })?;
        if 3 * loaded.len() != state.len() {
            let message =
                format!("optimizer state: {} tensors do not belong to this model", state.len() - 3 * loaded.len());
            return Err(TrainError::Config(message));
        }
        *self.moments.borrow_mut() = loaded;
        Ok(())
    }
}

/// What the parameters of one call of the fused kernel share.
#[derive(Clone, Copy, PartialEq)]
struct Rate {
    /// Of the learning rate.
    scale: f64,
    weight_decay: f64,
}

/// The encoder block that a parameter belongs to.
fn block_of(name: &str) -> Option<i32> {
    name.strip_prefix("encoder.").unwrap_or(name).strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

/// Whether a parameter comes before the first block.
fn is_embedding(name: &str) -> bool {
    let name = name.strip_prefix("encoder.").unwrap_or(name);
    name.starts_with("patch_embed.") || name == "cls_token"
}

/// Parallel lists for the fused kernel.
#[derive(Default)]
struct Group {
    params: Vec<Tensor>,
    grads: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl Group {
    fn push(&mut self, parameter: &Tensor, gradient: Tensor, own: &Moments) {
        self.params.push(parameter.detach());
        self.grads.push(gradient);
        self.exp_avgs.push(own.exp_avg.shallow_clone());
        self.exp_avg_sqs.push(own.exp_avg_sq.shallow_clone());
        self.steps.push(own.step.shallow_clone());
    }
}
