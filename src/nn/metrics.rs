//! How correlated a layer's inputs are: the paper's decorrelation loss, and a figure that does not depend on their scale.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::NnResult;

/// Figures of one layer's sampled z.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMetrics {
    /// `Σ_{i≠j} C_ij² / d²`, lower is better. κ = 0 also shrinks variances, which flatters it.
    pub decor_loss: f64,
    /// Mean over i ≠ j of |correlation|, between 0 and 1, lower is better: free of scale.
    pub mean_abs_corr: f64,
}

impl LayerMetrics {
    /// Of one step's samples, one `[n, d]` tensor per micro-batch, second moments averaged over them.
    pub fn of(samples: &[Tensor]) -> NnResult<Self> {
        tch::no_grad(|| {
            let second = second_moment(samples)?;
            let variance = second.f_diagonal(0, 0, 1)?;
            let width = second.size()[0] as f64;
            let off = |matrix: &Tensor, diagonal: &Tensor| -> NnResult<f64> {
                Ok(scalar(&matrix.f_sum(matrix.kind())?)? - scalar(&diagonal.f_sum(diagonal.kind())?)?)
            };
            let decor_loss = off(&second.f_square()?, &variance.f_square()?)? / (width * width);
            let deviation = variance.f_sqrt()?;
            // Two inputs that never vary have no correlation: 0/0 becomes 0.
            let scale = deviation.f_unsqueeze(0)?.f_mul(&deviation.f_unsqueeze(1)?)?;
            let scale = scale.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
            let correlation = second.f_abs()?.f_div(&scale)?;
            let pairs = (width * (width - 1.0)).max(1.0);
            let mean_abs_corr = off(&correlation, &correlation.f_diagonal(0, 0, 1)?)? / pairs;
            Ok(Self { decor_loss, mean_abs_corr })
        })
    }
}

/// What a checkpoint keeps of a layer's last update, so that lines before the next one read the same after resuming.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFigures {
    /// As [`decor_loss`] computes it.
    pub quick_loss: f64,
    pub metrics: LayerMetrics,
}

/// The decorrelation loss alone, left on the device. With fewer rows than columns it takes the smaller Gram matrix:
/// `‖ZZᵀ‖²_F/n² − Σ diag²`.
pub fn decor_loss(samples: &[Tensor]) -> NnResult<Tensor> {
    tch::no_grad(|| {
        let (rows, width) = samples[0].size2()?;
        let (squares, variance) = match samples {
            [z] if rows < width => {
                let gram = z.f_matmul(&z.f_tr()?)?.f_square()?.f_sum(z.kind())?;
                let variance = z.f_square()?.f_mean_dim(0i64, false, z.kind())?;
                (gram.f_div_scalar((rows * rows) as f64)?, variance)
            }
            _ => {
                let second = second_moment(samples)?;
                (second.f_square()?.f_sum(second.kind())?, second.f_diagonal(0, 0, 1)?)
            }
        };
        let diagonal = variance.f_square()?.f_sum(variance.kind())?;
        Ok(squares.f_sub(&diagonal)?.f_div_scalar((width * width) as f64)?)
    })
}

/// `E[z zᵀ]`, averaged over micro-batches. Shapes: `[n, d]` each → `[d, d]`.
pub fn second_moment(samples: &[Tensor]) -> NnResult<Tensor> {
    let share = 1.0 / samples.len() as f64;
    let mut second = Tensor::new();
    for z in samples {
        let moment = z.f_tr()?.f_matmul(z)?.f_mul_scalar(share / z.size()[0] as f64)?;
        second = if second.defined() { second.f_add(&moment)? } else { moment };
    }
    Ok(second)
}

fn scalar(value: &Tensor) -> NnResult<f64> {
    Ok(value.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn both_ways_to_the_loss_agree() {
        for rows in [5, 40] {
            let z = Tensor::randn([rows, 12], (Kind::Double, Device::Cpu));
            let full = LayerMetrics::of(&[z.shallow_clone()]).unwrap().decor_loss;
            let quick = decor_loss(&[z]).unwrap().double_value(&[]);
            assert!((full - quick).abs() < 1e-12 * full.abs().max(1.0), "{full} {quick}");
        }
    }

    #[test]
    fn equal_columns_are_fully_correlated() {
        let column = Tensor::randn([64, 1], (Kind::Double, Device::Cpu));
        let metrics = LayerMetrics::of(&[column.expand([64, 4], false).contiguous()]).unwrap();
        assert!((metrics.mean_abs_corr - 1.0).abs() < 1e-12);
    }
}
