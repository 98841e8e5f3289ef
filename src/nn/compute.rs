//! How a model computes, whatever it is made of: shared by all its layers, changed at any time.

use std::cell::Cell;

use tch::Kind;

/// What the products of linear maps, convolutions and attention are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    Float32,
    /// bfloat16 products of float32 weights. Residual streams, norms, losses, gradients of weights, R and its update stay in
    /// float32: what PyTorch's autocast does, without its state.
    Bf16,
}

impl Precision {
    pub const NAMES: [&str; 2] = ["float32", "bf16"];

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Float32, Self::Bf16].into_iter().find(|precision| precision.name() == text)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => Self::NAMES[0],
            Self::Bf16 => Self::NAMES[1],
        }
    }
}

#[derive(Default)]
pub struct Compute {
    precision: Cell<Precision>,
    checkpointing: Cell<bool>,
}

impl Compute {
    pub fn precision(&self) -> Precision {
        self.precision.get()
    }

    pub fn set_precision(&self, precision: Precision) {
        self.precision.set(precision);
    }

    /// Whether transformer blocks keep their inputs alone and compute the rest again in the backward pass.
    pub fn checkpointing(&self) -> bool {
        self.checkpointing.get()
    }

    pub fn set_checkpointing(&self, checkpointing: bool) {
        self.checkpointing.set(checkpointing);
    }

    /// What a product with inputs of this kind is computed in.
    pub fn kind(&self, inputs: Kind) -> Kind {
        match (self.precision.get(), inputs) {
            (Precision::Bf16, Kind::Float) => Kind::BFloat16,
            _ => inputs,
        }
    }
}
