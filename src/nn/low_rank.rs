//! R as a correction of low rank: `R = I + U Vᵀ` with U, V `[d, r]`, which costs `2·d·r` where the full R costs `d²`.
//!
//! One step of the rule is `M = U Vᵀ − η S R`, never formed, then the nearest subspace by one round of block power
//! iteration (a projector-splitting step as in Lubich and Oseledets 2014): `Q = orth(M V)`, `U ← Q`, `V ← Mᵀ Q`. It starts
//! from U = 0 and random orthonormal columns V, and is exact at rank d.

use tch::{Device, Kind, Tensor};

use super::NnResult;
use super::factor::Rule;
use crate::random::{Key, Stream, hash_name};

pub struct LowRank {
    pub(super) u: Tensor, // [d, r]
    pub(super) v: Tensor, // [d, r]
}

impl LowRank {
    /// R = I for `inputs`; the directions that V starts with are drawn from the layer's name.
    pub fn identity(name: &str, inputs: i64, rank: i64, kind: Kind, device: Device) -> NnResult<Self> {
        let rank = rank.min(inputs);
        let mut rng = Key::new(0, Stream::Decor).index(hash_name(name)).rng();
        let drawn: Vec<f64> = (0..inputs * rank).map(|_| rng.normal()).collect();
        let (v, _) = Tensor::f_linalg_qr(&Tensor::f_from_slice(&drawn)?.f_reshape([inputs, rank])?, "reduced")?;
        let v = v.f_to_kind(kind)?.f_to_device(device)?;
        Ok(Self { u: v.f_zeros_like()?, v })
    }

    /// `z = x Rᵀ`. Shapes: `[n, d]` → `[n, d]`.
    pub fn apply(&self, rows: &Tensor) -> NnResult<Tensor> {
        plus_product(rows, &self.v, &self.u)
    }

    /// `W R`. Shapes: `[o, d]` → `[o, d]`.
    pub fn compose(&self, weight: &Tensor) -> NnResult<Tensor> {
        plus_product(weight, &self.u, &self.v)
    }

    /// `dA Rᵀ`. Shapes: `[o, d]` → `[o, d]`.
    pub fn fold(&self, gradient: &Tensor) -> NnResult<Tensor> {
        plus_product(gradient, &self.v, &self.u)
    }

    /// R as one matrix. Shapes: `[d, d]`.
    pub fn dense(&self) -> NnResult<Tensor> {
        Ok(Tensor::f_eye(self.u.size()[0], (self.u.kind(), self.u.device()))?
            .f_add(&self.u.f_matmul(&self.v.f_tr()?)?)?)
    }

    /// One step of the rule from n sampled raw rows. Shapes: `[n, d]`. A row that has reached the bound no
    /// longer moves: it shares V with all others, so it cannot be put back by itself after the move.
    pub fn update(&mut self, rows: &Tensor, rule: Rule) -> NnResult<()> {
        let z = self.apply(rows)?;
        let variance = z.f_square()?.f_mean_dim(0i64, false, z.kind())?;
        // η S y = η (1−κ) Zᵀ(Z y)/n + η [(2κ−1) v − κ] ⊙ y
        let own = variance.f_mul_scalar(rule.rate * (2.0 * rule.kappa - 1.0))?;
        let own = own.f_sub_scalar(rule.rate * rule.kappa)?.f_unsqueeze(1)?;
        let share = rule.rate * (1.0 - rule.kappa) / z.size()[0] as f64;
        let step = |y: &Tensor| -> NnResult<Tensor> {
            let through = z.f_tr()?.f_matmul(&z.f_matmul(y)?.f_mul_scalar(share)?)?;
            Ok(through.f_add(&own.f_mul(y)?)?)
        };
        let moves = self.rows_below(rule.max_norm)?;
        let drop_unseen = |y: Tensor| -> NnResult<Tensor> {
            match rule.unseen {
                Some(u) => Ok(y.f_addr(u, &y.f_tr()?.f_mv(u)?.f_neg()?)?), // (I − uuᵀ) y
                None => Ok(y),
            }
        };
        // M V = U (VᵀV) − η S R P V
        let turned = drop_unseen(self.v.shallow_clone())?; // P V
        let turned = turned.f_add(&self.u.f_matmul(&self.v.f_tr()?.f_matmul(&turned)?)?)?; // R P V
        let kept = self.u.f_matmul(&self.v.f_tr()?.f_matmul(&self.v)?)?;
        let (q, _) = Tensor::f_linalg_qr(&kept.f_sub(&step(&turned)?.f_mul(&moves)?)?, "reduced")?;
        // Mᵀ Q = V (UᵀQ) − η P Rᵀ S Q
        let pulled = step(&q.f_mul(&moves)?)?;
        let pulled = pulled.f_add(&self.v.f_matmul(&self.u.f_tr()?.f_matmul(&pulled)?)?)?; // Rᵀ S Q
        let v = self.v.f_matmul(&self.u.f_tr()?.f_matmul(&q)?)?.f_sub(&drop_unseen(pulled)?)?;
        // Not finite anywhere: stay. No comparison with NaN holds.
        let fine = v.f_abs()?.f_sum(v.kind())?.f_add(&q.f_abs()?.f_sum(q.kind())?)?.f_le(f64::from(f32::MAX))?;
        (self.u, self.v) = (q.f_where_self(&fine, &self.u)?, v.f_where_self(&fine, &self.v)?);
        Ok(())
    }

    /// 1 for rows of R shorter than `bound`, 0 for others; without forming R. Shapes: `[d, 1]`.
    fn rows_below(&self, bound: f64) -> NnResult<Tensor> {
        if bound == 0.0 {
            return Ok(self.u.f_narrow(1, 0, 1)?.f_ones_like()?);
        }
        let squares = self.squared_lengths()?;
        Ok(squares.f_lt(bound * bound)?.f_to_kind(self.u.kind())?.f_unsqueeze(1)?)
    }

    /// `‖R_i‖² = 1 + 2 U_i·V_i + U_i (VᵀV) U_iᵀ`. Shapes: `[d]`.
    pub fn squared_lengths(&self) -> NnResult<Tensor> {
        let inner = self.u.f_matmul(&self.v.f_tr()?.f_matmul(&self.v)?)?.f_add(&self.v.f_mul_scalar(2.0)?)?;
        Ok(inner.f_mul(&self.u)?.f_sum_dim_intlist(1i64, false, self.u.kind())?.f_add_scalar(1.0)?)
    }

    /// Multiply-adds of an update from `rows` rows.
    pub fn update_cost(&self, rows: i64) -> i64 {
        let (inputs, rank) = (self.u.size()[0], self.u.size()[1]);
        6 * rows * inputs * rank + 8 * inputs * rank * rank
    }

    /// Multiply-adds of `z = x Rᵀ`, per row.
    pub fn row_cost(&self) -> i64 {
        2 * self.u.numel() as i64
    }
}

/// `x + (x a) bᵀ`.
fn plus_product(x: &Tensor, a: &Tensor, b: &Tensor) -> NnResult<Tensor> {
    Ok(x.f_add(&x.f_matmul(a)?.f_matmul(&b.f_tr()?)?)?)
}
