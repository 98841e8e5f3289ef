//! Multi-head self-attention with one fused q, k, v map, laid out as timm's: `[3, heads, head_dim]` along its outputs.

use std::cell::Cell;
use std::rc::Rc;

use tch::Tensor;

use super::NnResult;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::registry::Scope;
use super::rows::Pass;
use crate::libtorch;

pub struct Attention {
    qkv: Rc<Linear>,
    proj: Rc<Linear>,
    num_heads: i64,
    /// Multiply-adds of `q kᵀ` and of the weighted sum of v, forward and backward, in the last training pass.
    products: Rc<Cell<i64>>,
}

impl Attention {
    /// Attention over tokens that come straight from `norm`.
    pub fn new(scope: &Scope, width: i64, num_heads: i64, norm: &LayerNorm) -> NnResult<Self> {
        let qkv = Linear::new(&scope.sub("qkv"), width, 3 * width)?;
        qkv.behind(norm);
        let proj = Linear::new(&scope.sub("proj"), width, width)?;
        Ok(Self { qkv, proj, num_heads, products: scope.products() })
    }

    /// Shapes: `[N, L, D]` → `[N, L, D]`.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let (n, l, d) = x.size3()?;
        if pass.tally {
            self.products.set(6 * n * l * l * d);
        }
        let qkv = self.qkv.forward(x, pass)?.f_view([n, l, 3, self.num_heads, d / self.num_heads])?;
        self.proj.forward(&libtorch::attention(&qkv)?, pass)
    }
}
