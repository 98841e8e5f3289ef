//! Where a forward pass stands, and which rows of it the decorrelation update sees.
//!
//! One index set per (step, micro-batch) serves every layer with that many rows and is drawn without
//! replacement on the CPU from its own stream, so it costs no device synchronization and disturbs no other draw.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Device, Tensor};

use super::NnResult;
use crate::libtorch::buffer::to_device;
use crate::random::{Key, Stream};

/// The place of a micro-batch in a run: what its randomness is keyed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub seed: u64,
    pub step: u64,
    pub epoch: u64,
    pub micro: u64,
    /// Micro-batches that make up one step; 1 without accumulation.
    pub micro_batches: u64,
}

impl Place {
    /// The key of a stream at this place.
    pub fn key(&self, stream: Stream) -> Key {
        Key::new(self.seed, stream).step(self.step).micro(self.micro)
    }
}

/// Draws the sampled rows of one forward pass and keeps them, so that layers of equal length share them.
pub struct RowSampler {
    key: Key,
    device: Device,
    drawn: RefCell<HashMap<(i64, i64), Tensor>>,
}

impl RowSampler {
    pub fn new(place: &Place, device: Device) -> Self {
        Self { key: place.key(Stream::Decor), device, drawn: RefCell::default() }
    }

    /// Uses `rows` (int64) wherever a layer has `total` rows: for checks against a reference that drew its own.
    pub fn with_fixed(self, total: i64, rows: Tensor) -> Self {
        let wanted = rows.size()[0];
        self.drawn.borrow_mut().insert((total, wanted), rows);
        self
    }

    /// `wanted` different row numbers below `total`. Shapes: `[wanted]`, int64.
    pub fn rows(&self, total: i64, wanted: i64) -> NnResult<Tensor> {
        if let Some(rows) = self.drawn.borrow().get(&(total, wanted)) {
            return Ok(rows.shallow_clone());
        }
        let drawn = self.key.index(total as u64).rng().sample(total as usize, wanted as usize);
        let rows = to_device(&Tensor::f_from_slice(&drawn)?, self.device)?;
        self.drawn.borrow_mut().insert((total, wanted), rows.shallow_clone());
        Ok(rows)
    }
}

/// The sampled rows of one step.
#[derive(Default)]
pub struct Kept {
    /// One entry per micro-batch: `[n, d]` each.
    passes: Vec<Tensor>,
}

impl Kept {
    /// Adds the rows of one pass; a step's first micro-batch drops what was there. Shapes: `[n, d]`.
    pub fn add(&mut self, place: &Place, rows: Tensor) {
        if place.micro == 0 {
            self.passes.clear();
        }
        self.passes.push(rows);
    }

    /// The rows of all passes; `None` if there are none. Shapes: `[n, d]`.
    pub fn rows(&self) -> NnResult<Option<Tensor>> {
        Ok(match &self.passes[..] {
            [] => None,
            [rows] => Some(rows.shallow_clone()),
            passes => Some(Tensor::f_cat(passes, 0)?),
        })
    }

    pub fn clear(&mut self) {
        self.passes.clear();
    }
}

/// How one forward pass treats decorrelated layers.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Where the pass stands, and its row sampler: rows are kept for the update. `None`: evaluation, nothing is kept.
    pub observe: Option<(&'a Place, &'a RowSampler)>,
    pub path: Path,
    /// Whether layers remember the size of the pass, for the cost of a step.
    pub tally: bool,
    /// A stretch of a training pass that the backward pass computes again: what it observes was observed before.
    pub again: bool,
}

/// How R is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// Whichever costs fewer multiply-adds.
    #[default]
    Cheaper,
    /// `x (W R)ᵀ`
    Fused,
    /// `(x Rᵀ) Wᵀ`
    TwoStep,
}

impl<'a> Pass<'a> {
    /// A pass that leaves no trace. It reuses one `W R` for many batches, so there fusing always pays.
    pub const EVALUATE: Self = Self { observe: None, path: Path::Fused, tally: false, again: false };

    /// A pass that is only made to learn its size.
    pub const MEASURE: Self = Self { tally: true, ..Self::EVALUATE };

    /// A training pass: decorrelated layers keep their sampled rows.
    pub fn train(place: &'a Place, sampler: &'a RowSampler) -> Self {
        Self { observe: Some((place, sampler)), path: Path::Cheaper, tally: true, again: false }
    }
}
