//! How correlated a layer's inputs are: the paper's decorrelation loss, and figures that do not depend on their scale.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::NnResult;

/// Figures of one layer's sampled z: of its raw inputs, where it is not decorrelated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMetrics {
    /// `Σ_{i≠j} C_ij² / d²`, within blocks where R has them; lower is better. κ = 0 also shrinks variances, which flatters it.
    pub decor_loss: f64,
    /// Mean over i ≠ j of |correlation|, between 0 and 1, lower is better: free of scale. It does not fall below
    /// about √(2/πn) for n sampled rows.
    pub mean_abs_corr: f64,
    /// ‖R‖₂; absent for a layer without R.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r_norm: Option<f64>,
    /// λmax/λmin of `E[z zᵀ]`, at most 1e16, which stands for a matrix that lacks rank; only on request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<f64>,
}

impl LayerMetrics {
    /// Of sampled rows. Shapes: `z [n, d]`, or `[k, n, b]` for blocks.
    pub fn of(z: &Tensor, condition: bool) -> NnResult<Self> {
        tch::no_grad(|| {
            let second = second_moment(z)?;
            let variance = second.f_diagonal(0, -2, -1)?;
            let (blocks, width) = (blocks_of(&second), second.size()[second.dim() - 1]);
            let off = |matrix: &Tensor, diagonal: &Tensor| -> NnResult<f64> {
                Ok(scalar(&matrix.f_sum(matrix.kind())?)? - scalar(&diagonal.f_sum(diagonal.kind())?)?)
            };
            let decor_loss = off(&second.f_square()?, &variance.f_square()?)? / (blocks * width * width) as f64;
            let correlation = correlation(&second)?.f_abs()?;
            let pairs = (blocks * width * (width - 1)).max(1) as f64;
            let mean_abs_corr = off(&correlation, &correlation.f_diagonal(0, -2, -1)?)? / pairs;
            let condition = if condition { Some(condition_number(&second)?) } else { None };
            Ok(Self { decor_loss, mean_abs_corr, r_norm: None, condition })
        })
    }

    /// Whether every figure is.
    pub fn is_finite(&self) -> bool {
        [Some(self.decor_loss), Some(self.mean_abs_corr), self.r_norm, self.condition]
            .iter()
            .all(|figure| figure.is_none_or(f64::is_finite))
    }
}

/// What a checkpoint keeps of a layer's last sample, so that lines before the next one read the same after resuming.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFigures {
    /// As [`decor_loss`] computes it.
    pub quick_loss: f64,
    pub metrics: LayerMetrics,
}

/// The decorrelation loss alone, left on the device. With fewer rows than columns it takes the smaller Gram matrix:
/// `‖ZZᵀ‖²_F/n² − Σ diag²`. Shapes: `z [n, d]` or `[k, n, b]`.
pub fn decor_loss(z: &Tensor) -> NnResult<Tensor> {
    tch::no_grad(|| {
        let size = z.size();
        let (rows, width) = (size[size.len() - 2], size[size.len() - 1]);
        let (squares, variance) = if rows < width {
            let gram = z.f_matmul(&z.f_transpose(-2, -1)?)?.f_square()?.f_sum(z.kind())?;
            (gram.f_div_scalar((rows * rows) as f64)?, z.f_square()?.f_mean_dim(-2i64, false, z.kind())?)
        } else {
            let second = second_moment(z)?;
            (second.f_square()?.f_sum(second.kind())?, second.f_diagonal(0, -2, -1)?)
        };
        let diagonal = variance.f_square()?.f_sum(variance.kind())?;
        Ok(squares.f_sub(&diagonal)?.f_div_scalar((blocks_of(z) * width * width) as f64)?)
    })
}

/// `Σ_{i≠j} ρ_ij² / d` of uncentered correlations ρ, within blocks, less what n rows of independent inputs would show. It is
/// the variance of ρ's eigenvalues, whose mean is 1: 0 for inputs without correlation, d − 1 for d copies of one. Left on
/// the device. Shapes: `z [n, d]` or `[k, n, b]`.
pub fn excess_correlation(z: &Tensor) -> NnResult<Tensor> {
    tch::no_grad(|| {
        let size = z.size();
        let (rows, width) = (size[size.len() - 2], size[size.len() - 1]);
        let squares = correlation(&second_moment(z)?)?.f_square()?;
        let off = squares.f_sum(z.kind())?.f_sub(&squares.f_diagonal(0, -2, -1)?.f_sum(z.kind())?)?;
        let inputs = (blocks_of(z) * width) as f64;
        let chance = (width - 1) as f64 / rows as f64;
        Ok(off.f_div_scalar(inputs)?.f_sub_scalar(chance)?.f_clamp_min(0.0)?)
    })
}

/// `E[z zᵀ]`. Shapes: `[n, d]` → `[d, d]`, or `[k, n, b]` → `[k, b, b]`.
pub fn second_moment(z: &Tensor) -> NnResult<Tensor> {
    let rows = z.size()[z.dim() - 2];
    Ok(z.f_transpose(-2, -1)?.f_matmul(z)?.f_mul_scalar(1.0 / rows as f64)?)
}

/// Uncentered correlations. Two inputs that never vary have none: 0/0 becomes 0.
fn correlation(second: &Tensor) -> NnResult<Tensor> {
    let deviation = second.f_diagonal(0, -2, -1)?.f_sqrt()?;
    let scale = deviation.f_unsqueeze(-2)?.f_mul(&deviation.f_unsqueeze(-1)?)?;
    Ok(second.f_div(&scale.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?)
}

/// The largest of the blocks' condition numbers.
fn condition_number(second: &Tensor) -> NnResult<f64> {
    const SINGULAR: f64 = 1e16;
    let eigenvalues = second.f_to_kind(Kind::Double)?.f_linalg_eigvalsh("L")?; // Ascending.
    let last = eigenvalues.size()[eigenvalues.dim() - 1] - 1;
    let (low, high) = (eigenvalues.f_select(-1, 0)?, eigenvalues.f_select(-1, last)?);
    let floor = high.f_div_scalar(SINGULAR)?.f_clamp_min(f64::MIN_POSITIVE)?;
    scalar(&high.f_div(&low.f_maximum(&floor)?)?.f_max()?)
}

fn blocks_of(matrices: &Tensor) -> i64 {
    if matrices.dim() == 3 { matrices.size()[0] } else { 1 }
}

fn scalar(value: &Tensor) -> NnResult<f64> {
    Ok(value.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const KIND: (Kind, Device) = (Kind::Double, Device::Cpu);

    #[test]
    fn both_ways_to_the_loss_agree() {
        for size in [&[5, 12][..], &[40, 12], &[3, 5, 8], &[3, 40, 8]] {
            let z = Tensor::randn(size, KIND);
            let full = LayerMetrics::of(&z, false).unwrap().decor_loss;
            let quick = decor_loss(&z).unwrap().double_value(&[]);
            assert!((full - quick).abs() < 1e-12 * full.abs().max(1.0), "{full} {quick}");
        }
    }

    #[test]
    fn equal_columns_are_fully_correlated() {
        let column = Tensor::randn([64, 1], KIND).expand([64, 4], false).contiguous();
        let metrics = LayerMetrics::of(&column, true).unwrap();
        assert!((metrics.mean_abs_corr - 1.0).abs() < 1e-12);
        assert!(metrics.condition.unwrap() >= 1e15);
        let excess = excess_correlation(&column).unwrap().double_value(&[]);
        assert!((excess - 3.0 * (1.0 - 1.0 / 64.0)).abs() < 1e-9);
    }

    #[test]
    fn condition_numbers_have_a_closed_form() {
        // E[z zᵀ] is diag(4, 1) over these rows.
        let z = Tensor::from_slice(&[2.0f64, 1.0, -2.0, 1.0, 2.0, -1.0, -2.0, -1.0]).view([4, 2]);
        let metrics = LayerMetrics::of(&z, true).unwrap();
        assert!((metrics.condition.unwrap() - 4.0).abs() < 1e-12);
        assert!(metrics.mean_abs_corr < 1e-12);
    }
}
