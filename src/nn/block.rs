//! A pre-norm transformer block: attention and a two-layer perceptron with exact GELU, each behind a norm and a skip.

use std::rc::Rc;

use tch::Tensor;

use super::NnResult;
use super::attention::Attention;
use super::compute::Compute;
use super::dropout::Dropout;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::registry::Scope;
use super::rows::{Pass, RowSampler};
use crate::libtorch::{checkpoint, grad_enabled};

pub struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    fc1: Rc<Linear>,
    fc2: Rc<Linear>,
    /// Stochastic depth of the two branches.
    drops: [Dropout; 2],
    compute: Rc<Compute>,
}

impl Block {
    /// `drop_path` is the probability that a training pass leaves out a branch of an image.
    pub fn new(scope: &Scope, width: i64, num_heads: i64, mlp_ratio: f64, drop_path: f64) -> NnResult<Rc<Self>> {
        let hidden = (width as f64 * mlp_ratio) as i64;
        let norm1 = LayerNorm::new(&scope.sub("norm1"), width)?;
        let attn = Attention::new(&scope.sub("attn"), width, num_heads, &norm1)?;
        let norm2 = LayerNorm::new(&scope.sub("norm2"), width)?;
        let fc1 = Linear::new(&scope.sub("mlp").sub("fc1"), width, hidden)?;
        fc1.behind(&norm2);
        let fc2 = Linear::new(&scope.sub("mlp").sub("fc2"), hidden, width)?;
        let drops = ["attn", "mlp"].map(|branch| Dropout::new(&scope.sub(branch), drop_path));
        let compute = Rc::clone(scope.registry().compute());
        Ok(Rc::new(Self { norm1, attn, norm2, fc1, fc2, drops, compute }))
    }

    /// Under activation checkpointing a training pass keeps x alone. Shapes: `[N, L, D]` → `[N, L, D]`.
    pub fn forward(self: &Rc<Self>, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let Some((&place, _)) = pass.observe.filter(|_| self.compute.checkpointing() && grad_enabled()) else {
            return self.inside(x, pass);
        };
        let y = tch::no_grad(|| self.inside(x, pass))?;
        let (block, path) = (Rc::clone(self), pass.path);
        let again = move |x: &Tensor| {
            let sampler = RowSampler::new(&place, x.device()); // Draws nothing.
            let pass = Pass { observe: Some((&place, &sampler)), path, tally: false, again: true };
            block.inside(x, pass).map_err(|err| err.to_string())
        };
        Ok(checkpoint(x, &y, again)?)
    }

    fn inside(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let [drop_attn, drop_mlp] = &self.drops;
        let x = x.f_add(&drop_attn.branches(&self.attn.forward(&self.norm1.forward(x)?, pass)?, pass)?)?;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)?, pass)?.f_gelu("none")?;
        Ok(x.f_add(&drop_mlp.branches(&self.fc2.forward(&hidden, pass)?, pass)?)?)
    }
}
