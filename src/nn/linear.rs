//! A linear map `y = x Wᵀ + b` that can be decorrelated: then `y = (x Rᵀ) Wᵀ + b`.
//!
//! A patch embedding is the same map on flattened patches; its weight keeps the convolution's shape, so that checkpoints
//! agree with timm's.

use std::rc::Rc;

use tch::Tensor;

use super::layer::Layer;
use super::norm::LayerNorm;
use super::registry::Scope;
use super::rows::Pass;
use super::{NnError, NnResult};
use crate::libtorch;

pub struct Linear {
    layer: Rc<Layer>,
    bias: Tensor, // [o]
}

impl Linear {
    /// `d → o` features, Xavier-uniform, bias 0.
    pub fn new(scope: &Scope, in_features: i64, out_features: i64) -> NnResult<Rc<Self>> {
        Self::shaped(scope, &[out_features, in_features])
    }

    /// The same with a weight of shape `[o, …]`, whose other dimensions are the flattened input.
    pub fn shaped(scope: &Scope, shape: &[i64]) -> NnResult<Rc<Self>> {
        let layer = Layer::new(scope, shape, 1)?;
        Ok(Rc::new(Self { bias: scope.constant("bias", shape[0], 0.0)?, layer }))
    }

    /// Tells that the inputs come straight from this norm.
    pub fn behind(&self, norm: &LayerNorm) {
        self.layer.behind(norm);
    }

    pub fn layer(&self) -> &Rc<Layer> {
        &self.layer
    }

    /// Shapes: `[…, d]` → `[…, o]`.
    ///
    /// Errors: [`NnError::Config`] for another last dimension.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let width = self.layer.inputs();
        if x.size().last() != Some(&width) {
            let message = format!("x: a layer of {width} inputs was given shape {:?}", x.size());
            return Err(NnError::Config(message));
        }
        let rows = x.numel() as i64 / width;
        let flat = |x: &Tensor| x.f_reshape([rows, width]);
        let kind = self.layer.kind(x);
        let applied = self.layer.pass(pass, rows, kind, |ids| Ok(flat(&x.f_detach()?)?.f_index_select(0, ids)?))?;
        let bias = self.bias.f_to_kind(kind)?;
        // Under mixed precision W and R stay in float32 and their product is rounded once.
        let z = match applied.two_step {
            true => self.layer.rotate(&flat(x)?.f_to_kind(self.bias.kind())?)?.f_view_as(x)?,
            false => x.shallow_clone(),
        };
        Ok(libtorch::linear(&z.f_to_kind(kind)?, &applied.weight, &bias)?)
    }
}
