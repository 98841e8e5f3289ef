//! R as one matrix, or as a chain of blocks on its diagonal: inputs of different blocks are left correlated.
//!
//! A block costs `b²` where the whole matrix costs `d²`; a convolution with groups has blocks by its nature. One block is the
//! full R of the paper.

use tch::{Device, Kind, Tensor};

use super::NnResult;
use super::factor::Rule;

/// Shapes: `[d, d]`, or `[k, b, b]` with `k·b = d` for k > 1 blocks.
pub struct Blocks {
    r: Tensor,
    count: i64,
    width: i64,
}

/// How `S R` of the update is multiplied out: three orders of the same product, for n rows and blocks of width b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// `Zᵀ (Z R)`: 3·n·b². For fewer rows than columns.
    Thin,
    /// `(ZᵀZ) R`: 2·n·b² + b³.
    Moment,
    /// `(R (XᵀX) Rᵀ) R`, which needs no z: n·b² + 3·b³. For many rows.
    Gram,
}

impl Order {
    fn cost(self, rows: i64, width: i64) -> i64 {
        width
            * width
            * match self {
                Self::Thin => 3 * rows,
                Self::Moment => 2 * rows + width,
                Self::Gram => rows + 3 * width,
            }
    }

    fn cheapest(rows: i64, width: i64) -> Self {
        let mut best = Self::Thin;
        for order in [Self::Moment, Self::Gram] {
            if order.cost(rows, width) < best.cost(rows, width) {
                best = order;
            }
        }
        best
    }
}

impl Blocks {
    /// R = I for `inputs` in blocks of `width`, which divides them.
    pub fn identity(inputs: i64, width: i64, kind: Kind, device: Device) -> NnResult<Self> {
        let count = inputs / width;
        let mut r = Tensor::f_eye(width, (kind, device))?;
        if count > 1 {
            r = r.f_repeat([count, 1, 1])?;
        }
        Ok(Self { r, count, width })
    }

    /// Of a given `[d, d]` or `[k, b, b]`.
    pub fn from_matrix(r: Tensor) -> Self {
        let size = r.size();
        let (count, width) = (if size.len() == 3 { size[0] } else { 1 }, size[size.len() - 1]);
        Self { r, count, width }
    }

    pub fn matrix(&self) -> &Tensor {
        &self.r
    }

    pub fn width(&self) -> i64 {
        self.width
    }

    /// Rows by block. Shapes: `[n, d]` → `[n, d]`, or `[k, n, b]` (a view).
    pub fn split(&self, rows: &Tensor) -> NnResult<Tensor> {
        if self.count == 1 {
            return Ok(rows.shallow_clone());
        }
        Ok(rows.f_view([-1, self.count, self.width])?.f_transpose(0, 1)?)
    }

    /// `z = x Rᵀ`, still by block. Shapes: `[n, d]` → `[n, d]` or `[k, n, b]`.
    pub fn rows_by_block(&self, rows: &Tensor) -> NnResult<Tensor> {
        Ok(self.split(rows)?.f_matmul(&self.r.f_transpose(-2, -1)?)?)
    }

    /// `z = x Rᵀ`. Shapes: `[n, d]` → `[n, d]`.
    pub fn apply(&self, rows: &Tensor) -> NnResult<Tensor> {
        let z = self.rows_by_block(rows)?;
        if self.count == 1 {
            return Ok(z);
        }
        Ok(z.f_transpose(0, 1)?.f_reshape([-1, self.count * self.width])?)
    }

    /// `W R`. Shapes: `[o, d]` → `[o, d]`, d of one group.
    pub fn compose(&self, weight: &Tensor, groups: i64) -> NnResult<Tensor> {
        self.times(weight, groups, &self.r)
    }

    /// `dA Rᵀ`. Shapes: `[o, d]` → `[o, d]`, d of one group.
    pub fn fold(&self, gradient: &Tensor, groups: i64) -> NnResult<Tensor> {
        self.times(gradient, groups, &self.r.f_transpose(-2, -1)?)
    }

    fn times(&self, weight: &Tensor, groups: i64, r: &Tensor) -> NnResult<Tensor> {
        if self.count == 1 {
            return Ok(weight.f_matmul(r)?);
        }
        let (outputs, inputs) = weight.size2()?;
        let (per_group, outputs_per_group, width) = (self.count / groups, outputs / groups, self.width);
        let split = weight.f_view([groups, outputs_per_group, per_group, width])?.f_transpose(1, 2)?;
        let product = split.f_reshape([self.count, outputs_per_group, width])?.f_matmul(r)?;
        let joined = product.f_view([groups, per_group, outputs_per_group, width])?.f_transpose(1, 2)?;
        Ok(joined.f_reshape([outputs, inputs])?)
    }

    /// Each group's R as one matrix. Shapes: `[groups, d, d]`, d of one group.
    pub fn dense(&self, groups: i64) -> NnResult<Tensor> {
        let per_group = self.count / groups;
        let blocks = self.r.f_view([groups, per_group, self.width, self.width])?;
        if per_group == 1 {
            return Ok(blocks.f_squeeze_dim(1)?);
        }
        let side = per_group * self.width;
        let dense = blocks.f_new_zeros([groups, side, side], (self.r.kind(), self.r.device()))?;
        for block in 0..per_group {
            let at = block * self.width;
            let place = dense.f_narrow(1, at, self.width)?.f_narrow(2, at, self.width)?;
            place.shallow_clone().f_copy_(&blocks.f_select(1, block)?)?;
        }
        Ok(dense)
    }

    /// One step of the rule from n sampled raw rows. Shapes: `[n, d]`.
    pub fn update(&mut self, rows: &Tensor, rule: Rule) -> NnResult<()> {
        let (n, kappa) = (rows.size()[0], rule.kappa);
        let order = Order::cheapest(n, self.width);
        // R − η S R, with S = (1−κ) C + κ diag(v − 1) and v the diagonal of E = ZᵀZ/n. Each pass over R counts: the products
        // add onto it.
        let mut moved = if order == Order::Thin {
            let z = self.rows_by_block(rows)?;
            let variance = z.f_square()?.f_mean_dim(-2i64, false, z.kind())?;
            let own = variance.f_mul_scalar(rule.rate * (1.0 - 2.0 * kappa))?.f_add_scalar(1.0 + rule.rate * kappa)?;
            let product = z.f_matmul(&self.r)?.f_mul_scalar(-rule.rate * (1.0 - kappa) / n as f64)?;
            plus_product(&self.r.f_mul(&own.f_unsqueeze(-1)?)?, &z.f_transpose(-2, -1)?, &product)?
        } else {
            let mut second = if order == Order::Gram {
                let x = self.split(rows)?;
                let gram = x.f_transpose(-2, -1)?.f_matmul(&x)?;
                self.r.f_matmul(&gram)?.f_matmul(&self.r.f_transpose(-2, -1)?)?
            } else {
                let z = self.rows_by_block(rows)?;
                z.f_transpose(-2, -1)?.f_matmul(&z)?
            };
            let variance = second.f_diagonal(0, -2, -1)?.f_mul_scalar(1.0 / n as f64)?;
            let excess = variance.f_sub_scalar(1.0)?.f_mul_scalar(-rule.rate * kappa)?;
            let _ = second.f_mul_scalar_(-rule.rate * (1.0 - kappa) / n as f64)?;
            second.f_diagonal(0, -2, -1)?.f_copy_(&excess)?;
            plus_product(&self.r, &second, &self.r)?
        };
        if let Some(unseen) = rule.unseen
            && self.count == 1
        {
            // What moved along u goes back: (R u − R' u) uᵀ.
            let back = self.r.f_mv(unseen)?.f_sub(&moved.f_mv(unseen)?)?;
            moved = moved.f_addr_(&back, unseen)?;
        }
        // A row that would pass the bound, or is not finite (no comparison with NaN holds), stays as it is.
        let length = moved.f_linalg_norm(2.0, [-1].as_slice(), true, None)?;
        let bound = if rule.max_norm > 0.0 { rule.max_norm } else { f64::from(f32::MAX) };
        self.r = moved.f_where_self(&length.f_le(bound)?, &self.r)?;
        Ok(())
    }

    /// Multiply-adds of an update from `rows` rows.
    pub fn update_cost(&self, rows: i64) -> i64 {
        self.count * Order::cheapest(rows, self.width).cost(rows, self.width)
    }

    /// Multiply-adds of `z = x Rᵀ`, per row.
    pub fn row_cost(&self) -> i64 {
        self.count * self.width * self.width
    }
}

/// `onto + a b`, in one pass, by block or whole.
fn plus_product(onto: &Tensor, a: &Tensor, b: &Tensor) -> NnResult<Tensor> {
    Ok(if onto.dim() == 2 { onto.f_addmm(a, b)? } else { onto.f_baddbmm(a, b, 1.0, 1.0)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_order_follows_the_rows() {
        assert_eq!(Order::cheapest(100, 128), Order::Thin);
        assert_eq!(Order::cheapest(200, 128), Order::Moment);
        assert_eq!(Order::cheapest(300, 128), Order::Gram);
    }

    #[test]
    fn dense_blocks_give_the_same_product() {
        let kind = (Kind::Double, Device::Cpu);
        let mut blocks = Blocks::identity(12, 3, kind.0, kind.1).unwrap();
        blocks.r = Tensor::randn([4, 3, 3], kind);
        let weight = Tensor::randn([10, 6], kind); // Two groups of six inputs, five outputs each.
        let dense = blocks.dense(2).unwrap();
        for (group, part) in weight.split(5, 0).iter().enumerate() {
            let want = part.matmul(&dense.get(group as i64));
            let got = blocks.compose(&weight, 2).unwrap().narrow(0, 5 * group as i64, 5);
            assert!((got - want).abs().max().double_value(&[]) < 1e-12);
        }
        let x = Tensor::randn([7, 12], kind);
        let whole = blocks.dense(1).unwrap().get(0);
        let difference = blocks.apply(&x).unwrap() - x.matmul(&whole.tr());
        assert!(difference.abs().max().double_value(&[]) < 1e-12);
    }
}
