//! Schedule-free AdamW (Defazio et al. 2024, arXiv:2405.15682): an average of the iterates in place of a falling rate.
//!
//! Three points: z, where plain steps go; x, the average of all z, which is evaluated and saved; and `y = (1 − β₁) z + β₁ x`
//! between them, where gradients are taken. One step, with g the gradient at y over the root of its second moment, + λ y:
//! `z ← z − γ g`, `x ← (1 − c) x + c z`, where c is γ²'s share of the sum of all γ² so far, γ the highest rate so far.
//! The arithmetic is that of the authors' package `schedulefree`: y and z are kept, x is `y + (1 − 1/β₁)(z − y)`.
//!
//! The model holds y while it trains and x while it is evaluated; y waits meanwhile as it was, so that looking changes nothing.
//! A checkpoint's weights are x; its optimizer state has z, the second moments, and y, because y from x and z would be rounded.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tch::Tensor;

use super::groups::Group;
use super::memory::{Memory, refuse_strangers};
use super::{Method, above_0, at_least_0, below_1, check, layer_decay};
use crate::libtorch::{ScheduleFreeStep, guarded, lerp, schedule_free_adamw};
use crate::nn::{Parameter, Registry};
use crate::train::checkpoint::State;
use crate::train::{TrainError, TrainResult};

/// Prefix of y in a checkpoint, and the name of what is not of a parameter: steps, the sum of weights, the highest rate.
const Y: &str = "y.";
const PROGRESS: &str = "schedule_free";

/// Between x as saved and x from the saved y and z: rounding, on another device maybe. Relative to the largest weight.
const SAME_AVERAGE: f64 = 1e-4;

/// Hyper-parameters of schedule-free AdamW.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduleFreeConfig {
    /// The rate after warm-up, absolute.
    pub lr: f64,
    /// How near y is to the average.
    pub beta1: f64,
    pub beta2: f64,
    /// Decoupled, at y; not of biases, norms and tokens.
    pub weight_decay: f64,
    pub eps: f64,
    /// Steps in which the rate rises from one increment to the one that is asked for.
    pub warmup_steps: u64,
    /// Power of the step's number in its weight in the average.
    pub r: f64,
    /// Power of the highest rate so far in that weight.
    pub weight_lr_power: f64,
    /// See [`super::AdamWConfig::layer_decay`].
    pub layer_decay: f64,
}

impl Default for ScheduleFreeConfig {
    /// The package's values; decay is that of AdamW here, where the package has none.
    fn default() -> Self {
        Self {
            lr: 2.5e-3,
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 0.05,
            eps: 1e-8,
            warmup_steps: 0,
            r: 0.0,
            weight_lr_power: 2.0,
            layer_decay: 1.0,
        }
    }
}

/// Where the average stands.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    steps: u64,
    weight_sum: f64,
    highest_lr: f64,
}

pub(super) struct ScheduleFree {
    config: ScheduleFreeConfig,
    /// z and the second moment.
    memory: Memory,
    progress: Cell<Progress>,
    /// y by parameter, while the model holds x.
    waiting: RefCell<Option<HashMap<String, Tensor>>>,
    /// How often the model's weights had been replaced when they were last this optimizer's own.
    seen: Cell<Option<u64>>,
}

impl ScheduleFree {
    pub fn new(config: ScheduleFreeConfig) -> TrainResult<Self> {
        check(&[
            at_least_0("lr", config.lr),
            // At 0, x could not be told from y and z.
            ("beta1", config.beta1, 0.0 < config.beta1 && config.beta1 < 1.0, "above 0 to below 1"),
            below_1("beta2", config.beta2),
            at_least_0("weight_decay", config.weight_decay),
            above_0("eps", config.eps),
            at_least_0("r", config.r),
            at_least_0("weight_lr_power", config.weight_lr_power),
            layer_decay(config.layer_decay),
        ])?;
        Ok(Self {
            config,
            memory: Memory::new(&["z", "exp_avg_sq"], &[]),
            progress: Cell::default(),
            waiting: RefCell::default(),
            seen: Cell::default(),
        })
    }

    /// x is this far from y to z.
    fn to_x(&self) -> f64 {
        1.0 - 1.0 / self.config.beta1
    }

    fn average_of(&self, y: &Tensor, z: &Tensor) -> TrainResult<Tensor> {
        Ok(guarded(|| y.f_lerp(z, self.to_x()))?)
    }

    /// Begins anew where weights were loaded or fused since: y and z would undo it.
    fn forget_if_replaced(&self, model: &Registry) {
        if self.seen.replace(Some(model.replaced())).is_some_and(|seen| seen != model.replaced()) {
            self.memory.forget();
            self.progress.take();
            self.waiting.take();
        }
    }

    /// Counts a step at rate `lr`; returns the share of its z in the average.
    fn advance(&self, lr: f64) -> Progress {
        let mut progress = self.progress.get();
        progress.steps += 1;
        progress.highest_lr = progress.highest_lr.max(lr);
        let weight = self.weight(&progress);
        progress.weight_sum += weight;
        self.progress.set(progress);
        progress
    }

    fn weight(&self, progress: &Progress) -> f64 {
        (progress.steps as f64).powf(self.config.r) * progress.highest_lr.powf(self.config.weight_lr_power)
    }
}

impl Method for ScheduleFree {
    fn rate(&self, lr: f64) -> f64 {
        let (next, warmup) = (self.progress.get().steps + 1, self.config.warmup_steps);
        if next < warmup { lr * next as f64 / warmup as f64 } else { lr }
    }

    fn update(&self, model: &Registry, groups: &[Group], lr: f64) -> TrainResult<()> {
        self.set_averaged(model, false)?;
        self.forget_if_replaced(model);
        let progress = self.advance(lr);
        let share = if progress.weight_sum > 0.0 { self.weight(&progress) / progress.weight_sum } else { 0.0 };
        let ScheduleFreeConfig { beta1, beta2, weight_decay, eps, .. } = self.config;
        let bias_correction2 = 1.0 - beta2.powf(progress.steps as f64);
        for group in groups {
            let (mut ys, mut grads, mut zs, mut squares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for part in &group.parts {
                let new = || Ok(vec![part.tensor.f_detach_copy()?, part.tensor.f_zeros_like()?]);
                let mut own = self.memory.of_or(part, new)?.into_iter();
                let (Some(z), Some(square)) = (own.next(), own.next()) else { continue };
                ys.push(part.tensor.shallow_clone());
                grads.push(part.gradient.shallow_clone());
                zs.push(z);
                squares.push(square);
            }
            let weight_decay = if group.decay { weight_decay } else { 0.0 };
            let lr = lr * group.scale;
            let with = ScheduleFreeStep { lr, beta1, beta2, bias_correction2, weight_decay, eps, share };
            schedule_free_adamw(&ys, &grads, &squares, &zs, with)?;
        }
        Ok(())
    }

    fn state(&self, model: &Registry) -> State {
        let mut state = self.memory.state();
        if state.is_empty() {
            return state;
        }
        let waiting = self.waiting.borrow();
        let visited = model.each_parameter(|parameter| -> Result<(), std::convert::Infallible> {
            if self.memory.get(&parameter.name).is_some() {
                let y = match waiting.as_ref().and_then(|all| all.get(&parameter.name)) {
                    Some(y) => y.shallow_clone(),
                    None => parameter.tensor.detach(),
                };
                state.push((format!("{Y}{}", parameter.name), y));
            }
            Ok(())
        });
        let Ok(()) = visited;
        let Progress { steps, weight_sum, highest_lr } = self.progress.get();
        state.push((PROGRESS.to_owned(), Tensor::from_slice(&[steps as f64, weight_sum, highest_lr])));
        state
    }

    fn load(&self, model: &Registry, state: &[(String, Tensor)]) -> TrainResult<()> {
        let found = self.memory.find(model, state, |_| true)?;
        if found.is_empty() {
            refuse_strangers(state, 0)?;
            self.memory.forget();
            self.progress.take();
            self.waiting.take();
            return Ok(());
        }
        let by_name: HashMap<&str, &Tensor> = state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut ys = HashMap::new();
        model.each_parameter(|parameter| -> TrainResult<()> {
            let name = &parameter.name;
            let (Some(z), Some(y)) = (found.get(name, 0), by_name.get(format!("{Y}{name}").as_str())) else {
                return Ok(());
            };
            let y = y.f_to_device(model.device())?;
            if y.size() != parameter.tensor.size() {
                let message = format!("optimizer state of {name}: expected shape {:?}, found {:?}", z.size(), y.size());
                return Err(TrainError::Config(message));
            }
            let x = parameter.tensor.f_detach()?;
            let off = self.average_of(&y, z)?.f_sub(&x)?.f_abs()?.f_max()?.f_double_value(&[])?;
            if off > SAME_AVERAGE * x.f_abs()?.f_max()?.f_double_value(&[])?.max(SAME_AVERAGE) {
                let message = format!("optimizer state of {name}: its average is not the weights of the model");
                return Err(TrainError::Config(message));
            }
            ys.insert(name.clone(), y);
            Ok(())
        })?;
        let progress = by_name.get(PROGRESS).filter(|tensor| tensor.size() == [3]);
        refuse_strangers(state, found.count + ys.len() + usize::from(progress.is_some()))?;
        let progress = progress.ok_or_else(|| TrainError::Config(format!("optimizer state: {PROGRESS} is missing")))?;
        let at = |i: i64| progress.f_double_value(&[i]);
        self.progress.set(Progress { steps: at(0)? as u64, weight_sum: at(1)?, highest_lr: at(2)? });
        self.memory.put(found);
        *self.waiting.borrow_mut() = Some(ys);
        self.seen.set(Some(model.replaced()));
        Ok(())
    }

    fn values(&self, _parameter: &Parameter) -> u64 {
        3
    }

    fn set_averaged(&self, model: &Registry, averaged: bool) -> TrainResult<()> {
        if averaged == self.is_averaged() || self.seen.get().is_none() {
            return Ok(());
        }
        self.forget_if_replaced(model);
        if averaged {
            model.refuse_pending_gradients("evaluating at the average")?;
            let (mut weights, mut zs, mut ys) = (Vec::new(), Vec::new(), HashMap::new());
            model.each_parameter(|parameter| -> TrainResult<()> {
                if let Some(own) = self.memory.get(&parameter.name) {
                    weights.push(parameter.tensor.f_detach()?);
                    ys.insert(parameter.name.clone(), parameter.tensor.f_detach_copy()?);
                    zs.extend(own.into_iter().next());
                }
                Ok(())
            })?;
            lerp(&weights, &zs, self.to_x())?;
            *self.waiting.borrow_mut() = Some(ys);
        } else if let Some(ys) = self.waiting.borrow_mut().as_ref() {
            model.refuse_pending_gradients("training on")?;
            model.each_parameter(|parameter| -> TrainResult<()> {
                if let Some(y) = ys.get(&parameter.name) {
                    parameter.tensor.f_detach()?.f_copy_(y)?;
                }
                Ok(())
            })?;
        }
        if !averaged {
            self.waiting.take();
        }
        model.forget_products();
        Ok(())
    }

    fn is_averaged(&self) -> bool {
        self.waiting.borrow().is_some()
    }

    fn average(&self, model: &Registry, mut weights: State) -> TrainResult<State> {
        self.forget_if_replaced(model);
        if !self.is_averaged() {
            for (name, tensor) in &mut weights {
                if let Some(z) = self.memory.get(name).and_then(|own| own.into_iter().next()) {
                    *tensor = self.average_of(tensor, &z)?;
                }
            }
        }
        Ok(weights)
    }
}
