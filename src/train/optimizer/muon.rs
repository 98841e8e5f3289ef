//! Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon): the momentum of each hidden matrix is orthogonalized before
//! it is applied; everything else — embeddings, heads, norms, biases, tokens, convolutions — is AdamW's.
//!
//! Update, as `torch.optim.Muon` has it: `B ← μ B + (1 − μ) G`, `O = orthogonalize(B)`, with Nesterov of `μ B + (1 − μ) G`;
//! `W ← (1 − lr λ) W − lr s O`. The scale s is by the matrix's shape `[r, c]`: `√max(1, r/c)`, the author's, or
//! `0.2 √max(r, c)`, which gives O the size of AdamW's updates, so that its rates and decays can be taken over
//! (Liu et al. 2025, arXiv:2502.16982). A fused q, k, v is three linear maps, each orthogonalized and scaled by itself,
//! as if it were stored so; PyTorch's takes it as it is stored.
//! Departures: Newton–Schulz in float32; matrices of one shape in one batch.

use std::collections::HashSet;

use tch::Tensor;

use super::adamw::{AdamW, AdamWConfig};
use super::groups::{Group, Part};
use super::memory::{Memory, refuse_strangers};
use super::newton_schulz::orthogonalize;
use super::{Method, at_least_0, below_1, check};
use crate::libtorch::guarded;
use crate::nn::{Parameter, Registry};
use crate::train::checkpoint::State;
use crate::train::{TrainError, TrainResult};

/// The layers of transformer blocks: q, k, v, projections and perceptrons.
const HIDDEN: [&str; 2] = ["**.attn.*", "**.mlp.*"];

/// How the size of an orthogonal update follows the matrix's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdjustLr {
    /// `√max(1, r/c)`, Jordan's.
    Original,
    /// `0.2 √max(r, c)`, Moonshot's.
    MatchRmsAdamW,
}

impl AdjustLr {
    fn scale(self, rows: i64, columns: i64) -> f64 {
        let (rows, columns) = (rows as f64, columns as f64);
        match self {
            Self::Original => (rows / columns).max(1.0).sqrt(),
            Self::MatchRmsAdamW => 0.2 * rows.max(columns).sqrt(),
        }
    }
}

/// Hyper-parameters of Muon.
#[derive(Clone, Debug, PartialEq)]
pub struct MuonConfig {
    /// Peak learning rate of the hidden matrices, absolute.
    pub lr: f64,
    pub momentum: f64,
    pub nesterov: bool,
    /// Decoupled, of the hidden matrices.
    pub weight_decay: f64,
    /// Rounds of Newton–Schulz.
    pub ns_steps: u32,
    pub adjust_lr: AdjustLr,
    /// Whether a fused q, k, v is three matrices.
    pub split_qkv: bool,
    /// Patterns of the hidden layers; empty are those of transformer blocks.
    pub hidden: Vec<String>,
    /// See [`AdamWConfig::layer_decay`]; of both halves.
    pub layer_decay: f64,
    /// Of everything else. Its rate keeps its proportion to Muon's on every schedule.
    pub adamw: AdamWConfig,
}

impl Default for MuonConfig {
    fn default() -> Self {
        let adamw = AdamWConfig::default();
        Self {
            lr: adamw.lr,
            momentum: 0.95,
            nesterov: true,
            weight_decay: adamw.weight_decay,
            ns_steps: 5,
            adjust_lr: AdjustLr::MatchRmsAdamW,
            split_qkv: true,
            hidden: Vec::new(),
            layer_decay: 1.0,
            adamw,
        }
    }
}

pub(super) struct Muon {
    config: MuonConfig,
    /// Names of the hidden matrices.
    hidden: HashSet<String>,
    memory: Memory,
    adamw: AdamW,
}

impl Muon {
    pub fn new(model: &Registry, config: MuonConfig) -> TrainResult<Self> {
        check(&[
            at_least_0("lr", config.lr),
            below_1("momentum", config.momentum),
            at_least_0("weight_decay", config.weight_decay),
            ("ns_steps", f64::from(config.ns_steps), (1..100).contains(&config.ns_steps), "1 to 99"),
            super::layer_decay(config.layer_decay),
        ])?;
        let adamw = AdamW::new(config.adamw.clone()).map_err(|err| match err {
            TrainError::Config(message) => TrainError::Config(format!("adamw: {message}")),
            err => err,
        })?;
        let hidden = hidden(model, &config.hidden)?;
        Ok(Self { config, hidden, memory: Memory::new(&["momentum_buffer"], &[]), adamw })
    }

    /// One update of the hidden matrices of a group.
    fn apply(&self, group: &Group, lr: f64) -> TrainResult<()> {
        let MuonConfig { momentum, nesterov, .. } = self.config;
        let lr = lr * group.scale;
        let weight_decay = if group.decay { self.config.weight_decay } else { 0.0 };
        // Matrices of one shape: where each is in the model, and its momentum.
        let mut batches: Vec<(Vec<i64>, Vec<Tensor>, Vec<Tensor>)> = Vec::new();
        for part in group.parts.iter().filter(|part| self.hidden.contains(&part.name)) {
            let mut buffers = self.memory.of(part)?;
            let Some(buffer) = buffers.first_mut() else { continue };
            let direction = guarded(|| {
                let _ = buffer.f_lerp_(&part.gradient, 1.0 - momentum)?;
                if nesterov { part.gradient.f_lerp(buffer, momentum) } else { Ok(buffer.shallow_clone()) }
            })?;
            let pieces = self.pieces(part);
            let places = part.tensor.f_chunk(pieces, 0)?;
            for (place, direction) in places.into_iter().zip(direction.f_chunk(pieces, 0)?) {
                let shape = place.size();
                match batches.iter_mut().find(|(other, ..)| *other == shape) {
                    Some((_, places, directions)) => {
                        places.push(place);
                        directions.push(direction);
                    }
                    None => batches.push((shape, vec![place], vec![direction])),
                }
            }
        }
        for (shape, places, directions) in batches {
            let updates = orthogonalize(&Tensor::f_stack(&directions, 0)?, self.config.ns_steps)?;
            let scale = self.config.adjust_lr.scale(shape[0], shape[1]);
            let updates = guarded(|| updates.f_mul_scalar(-lr * scale))?;
            for (mut place, update) in places.into_iter().zip(updates.f_unbind(0)?) {
                if weight_decay > 0.0 {
                    let _ = guarded(|| place.f_mul_scalar_(1.0 - lr * weight_decay))?;
                }
                let _ = place.f_add_(&update)?;
            }
        }
        Ok(())
    }

    /// How many matrices a parameter is.
    fn pieces(&self, part: &Part) -> i64 {
        if self.config.split_qkv && part.name.ends_with(".qkv.weight") { 3 } else { 1 }
    }
}

/// The names of the weights of the layers that `patterns` choose.
///
/// Errors: a pattern that matches nothing; a layer whose weight is no matrix; a model without blocks, and no patterns.
fn hidden(model: &Registry, patterns: &[String]) -> TrainResult<HashSet<String>> {
    let chosen = if patterns.is_empty() {
        let chosen = HIDDEN.map(|pattern| model.select(&[pattern.to_owned()]));
        chosen.into_iter().filter_map(Result::ok).flatten().collect()
    } else {
        model.select(patterns)?
    };
    if chosen.is_empty() {
        let message = "hidden: expected patterns of layers, got none, and this model has no transformer blocks to take";
        return Err(TrainError::Config(message.to_owned()));
    }
    let names: HashSet<String> = chosen.iter().map(|layer| format!("{}.weight", layer.name())).collect();
    model.each_parameter(|parameter| match parameter.tensor.size() {
        shape if names.contains(&parameter.name) && shape.len() != 2 => Err(TrainError::Config(format!(
            "hidden: expected layers whose weight is a matrix, got {} of shape {shape:?}",
            parameter.name
        ))),
        _ => Ok(()),
    })?;
    Ok(names)
}

impl Method for Muon {
    fn update(&self, _model: &Registry, groups: &[Group], lr: f64) -> TrainResult<()> {
        let share = if self.config.lr > 0.0 { self.config.adamw.lr / self.config.lr } else { 1.0 };
        for group in groups {
            self.apply(group, lr)?;
            let others = group.parts.iter().filter(|part| !self.hidden.contains(&part.name));
            self.adamw.apply(group, others, lr * share)?;
        }
        Ok(())
    }

    fn state(&self, _model: &Registry) -> State {
        let mut state = self.memory.state();
        state.extend(self.adamw.memory.state());
        state
    }

    fn load(&self, model: &Registry, state: &[(String, Tensor)]) -> TrainResult<()> {
        let matrices = self.memory.find(model, state, |name| self.hidden.contains(name))?;
        let others = self.adamw.memory.find(model, state, |name| !self.hidden.contains(name))?;
        refuse_strangers(state, matrices.count + others.count)?;
        self.memory.put(matrices);
        self.adamw.memory.put(others);
        Ok(())
    }

    fn values(&self, parameter: &Parameter) -> u64 {
        if self.hidden.contains(&parameter.name) { 1 } else { 2 }
    }
}
