//! A transposed convolution that doubles height and width: kernel 2, stride 2.

use tch::Tensor;

use super::NnResult;
use super::registry::Scope;

pub struct UpConv {
    weight: Tensor, // [C, C, 2, 2]
    bias: Tensor,   // [C]
}

impl UpConv {
    /// Xavier-uniform, bias 0.
    pub fn new(scope: &Scope, channels: i64) -> NnResult<Self> {
        Ok(Self {
            weight: scope.xavier("weight", &[channels, channels, 2, 2], channels, 4 * channels)?,
            bias: scope.constant("bias", channels, 0.0)?,
        })
    }

    /// Shapes: `[N, C, H, W]` → `[N, C, 2H, 2W]`.
    pub fn forward(&self, x: &Tensor) -> NnResult<Tensor> {
        let x = x.f_to_kind(self.weight.kind())?; // Products may be in less.
        Ok(x.f_conv_transpose2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])?)
    }
}
