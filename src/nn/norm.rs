//! Layer normalization over the last dimension, with MAE's eps of 1e-6 (libtorch's default is 1e-5).

use tch::Tensor;

use super::NnResult;
use super::registry::Scope;

const EPS: f64 = 1e-6;

pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub fn new(scope: &Scope, width: i64) -> NnResult<Self> {
        Ok(Self { weight: scope.constant("weight", width, 1.0)?, bias: scope.constant("bias", width, 0.0)? })
    }

    /// γ. Shapes: `[D]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Shapes: `[…, D]` → `[…, D]`.
    pub fn forward(&self, x: &Tensor) -> NnResult<Tensor> {
        let x = x.f_to_kind(self.weight.kind())?; // Products may be in less.
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), EPS, false)?)
    }
}
