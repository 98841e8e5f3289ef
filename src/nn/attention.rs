//! Multi-head self-attention with one fused q, k, v map, laid out as timm's: `[3, heads, head_dim]` along its outputs.

use std::rc::Rc;

use tch::Tensor;

use super::NnResult;
use super::linear::Linear;
use super::registry::Scope;
use super::rows::Pass;

pub struct Attention {
    qkv: Rc<Linear>,
    proj: Rc<Linear>,
    num_heads: i64,
}

impl Attention {
    pub fn new(scope: &Scope, width: i64, num_heads: i64) -> NnResult<Self> {
        let qkv = Linear::new(&scope.sub("qkv"), width, 3 * width)?;
        Ok(Self { qkv, proj: Linear::new(&scope.sub("proj"), width, width)?, num_heads })
    }

    /// Shapes: `[N, L, D]` → `[N, L, D]`.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let (n, l, d) = x.size3()?;
        let qkv = self.qkv.forward(x, pass)?.f_view([n, l, 3, self.num_heads, d / self.num_heads])?;
        let qkv = qkv.f_permute([2, 0, 3, 1, 4])?.f_unbind(0)?; // 3 × [N, heads, L, head_dim]
        let [q, k, v] = &qkv[..] else { unreachable!("unbind of a dimension of 3") };
        let mixed = Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)?;
        self.proj.forward(&mixed.f_transpose(1, 2)?.f_reshape([n, l, d])?, pass)
    }
}
