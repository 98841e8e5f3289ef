//! What a training pass leaves out at random: values (Srivastava et al. 2014), channels (Tompson et al. 2015,
//! arXiv:1411.4280) and whole residual branches (stochastic depth, Huang et al. 2016, arXiv:1603.09382). Drawn on the CPU by
//! the key (seed, dropout, step, micro-batch, name), so that nothing has to be stored for resuming; evaluation leaves nothing
//! out.

use tch::Tensor;

use super::NnResult;
use super::registry::Scope;
use super::rows::Pass;
use crate::libtorch::buffer::to_device;
use crate::random::{Stream, hash_name};

/// One place in a model where something is dropped.
pub struct Dropout {
    rate: f64,
    index: u64,
}

impl Dropout {
    /// `rate` is the probability of being dropped, `0 ≤ rate < 1`; `scope` names the place.
    pub fn new(scope: &Scope, rate: f64) -> Self {
        Self { rate, index: hash_name(scope.name()) }
    }

    /// Drops whole channels, and scales the others up. Shapes: `[N, C, H, W]` → the same.
    pub fn channels(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let size = x.size();
        self.apply(x, &[size[0], size[1], 1, 1], pass)
    }

    /// Drops whole images' branches, and scales the others up. Shapes: `[N, L, D]` → the same.
    pub fn branches(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        self.apply(x, &[x.size()[0], 1, 1], pass)
    }

    /// Drops single values, and scales the others up. Shapes: any → the same.
    pub fn values(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        self.apply(x, &x.size(), pass)
    }

    fn apply(&self, x: &Tensor, shape: &[i64], pass: Pass) -> NnResult<Tensor> {
        let Some((place, _)) = pass.observe.filter(|_| self.rate > 0.0) else { return Ok(x.shallow_clone()) };
        let mut rng = place.key(Stream::Dropout).index(self.index).rng();
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let draw = |_| if f64::from(rng.uniform()) < self.rate { 0.0 } else { kept };
        let mask: Vec<f32> = (0..shape.iter().product::<i64>()).map(draw).collect();
        let mask = to_device(&Tensor::f_from_slice(&mask)?.f_view(shape)?, x.device())?.f_to_kind(x.kind())?;
        Ok(x.f_mul(&mask)?)
    }
}
