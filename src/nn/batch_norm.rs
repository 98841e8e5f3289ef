//! Batch normalization of images (Ioffe and Szegedy 2015, arXiv:1502.03167), eps 1e-5, running statistics with momentum 0.1 as
//! PyTorch keeps them. Statistics are those of one forward pass: of a micro-batch, where a step has several.

use tch::Tensor;

use super::registry::Scope;
use super::rows::Pass;
use super::{NnError, NnResult};

const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

pub struct BatchNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    /// Saved with the weights, moved by training passes.
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub fn new(scope: &Scope, channels: i64) -> NnResult<Self> {
        let filled = |value| Tensor::f_full([channels], value, (tch::Kind::Float, tch::Device::Cpu));
        Ok(Self {
            name: scope.name().to_owned(),
            weight: scope.constant("weight", channels, 1.0)?,
            bias: scope.constant("bias", channels, 0.0)?,
            running_mean: scope.fixed("running_mean", &filled(0.0)?)?,
            running_var: scope.fixed("running_var", &filled(1.0)?)?,
        })
    }

    /// Shapes: `[N, C, H, W]` → the same.
    ///
    /// Errors: [`NnError::Config`] for a training pass with one value per channel, which has no variance.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let training = pass.observe.is_some();
        let (n, _, h, w) = x.size4()?;
        if training && n * h * w < 2 {
            let message =
                format!("{}: batch normalization needs 2 or more images in a micro-batch, got {n}", self.name);
            return Err(NnError::Config(message));
        }
        let (mean, var) = (&self.running_mean, &self.running_var);
        let x = x.f_to_kind(self.weight.kind())?; // Products may be in less.
        Ok(x.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(mean),
            Some(var),
            training,
            MOMENTUM,
            EPS,
            x.device().is_cuda(),
        )?)
    }
}
