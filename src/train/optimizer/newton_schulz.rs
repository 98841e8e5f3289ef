//! Orthogonalization by a quintic Newton–Schulz iteration: `U S Vᵀ` becomes about `U Vᵀ`, by matrix products alone.
//!
//! From `X = M / ‖M‖_F`, repeat `X ← a X + (b A + c A²) X` with `A = X Xᵀ`: each singular value σ moves by
//! `σ ← a σ + b σ³ + c σ⁵`. The coefficients are Jordan et al.'s (2024, Muon): steep at 0, so that five rounds suffice, at the price
//! that singular values end between 0.68 and 1.20 rather than at 1 (those that begin above 0.002 of the norm).
//! Departure: in the matrix's own kind, float32, where the reference rounds to bfloat16 first.

use tch::Tensor;

use crate::libtorch::guarded;
use crate::train::TrainResult;

/// a, b, c.
const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.7750, 2.0315);

/// Below this norm a matrix counts as one of this norm.
const EPS: f64 = 1e-7;

/// Orthogonalizes each matrix of a batch in so many `rounds`. Shapes: `[n, r, c]` → `[n, r, c]`.
pub fn orthogonalize(matrices: &Tensor, rounds: u32) -> TrainResult<Tensor> {
    let (a, b, c) = COEFFICIENTS;
    // The Gram matrix of the shorter side is the smaller one.
    let is_tall = matrices.size()[1] > matrices.size()[2];
    let turned = |x: &Tensor| if is_tall { x.f_transpose(1, 2) } else { Ok(x.shallow_clone()) };
    let done = guarded(|| {
        let mut x = turned(matrices)?;
        let norms = x.f_norm_scalaropt_dim(2, [1, 2], true)?.f_clamp_min(EPS)?;
        x = x.f_div(&norms)?;
        for _ in 0..rounds {
            let gram = x.f_bmm(&x.f_transpose(1, 2)?)?; // [n, s, s], s the shorter side
            let factor = gram.f_baddbmm(&gram, &gram, b, c)?;
            x = x.f_baddbmm(&factor, &x, a, 1.0)?;
        }
        turned(&x)
    })?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn random(shape: &[i64]) -> Tensor {
        let count: i64 = shape.iter().product();
        let mut rng = crate::random::Key::new(3, crate::random::Stream::Init).rng();
        let values: Vec<f64> = (0..count).map(|_| rng.normal()).collect();
        Tensor::from_slice(&values).reshape(shape)
    }

    /// An orthogonal matrix has one singular value, 1: divided by the norm √d, it takes the polynomial's way and the matrix is
    /// scaled as a whole.
    #[test]
    fn an_orthogonal_matrix_is_scaled_as_its_singular_value_is() {
        let (q, _) = Tensor::linalg_qr(&random(&[6, 6]), "reduced");
        let mut sigma = 1.0 / 6.0_f64.sqrt();
        for _ in 0..5 {
            let (a, b, c) = COEFFICIENTS;
            sigma = a * sigma + b * sigma.powi(3) + c * sigma.powi(5);
        }
        let got = orthogonalize(&q.unsqueeze(0), 5).unwrap();
        let off = (got.get(0) - q * sigma).abs().max().double_value(&[]);
        assert!(off < 1e-12 && (0.6..1.2).contains(&sigma), "{off} {sigma}");
    }

    /// Singular vectors stay, singular values come near 1, wide or tall, whatever the matrix's size.
    #[test]
    fn singular_values_come_near_one() {
        for shape in [[2, 5, 12], [2, 12, 5], [1, 7, 7]] {
            for size in [1e-4, 1.0, 1e4] {
                let m = random(&shape) * size;
                let got = orthogonalize(&m, 5).unwrap();
                assert_eq!(got.size(), shape);
                let (_, values, _) = got.svd(true, false);
                let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
                assert!(low > 0.3 && high < 1.3, "{shape:?}: {low} to {high}");
                // U Vᵀ from the decomposition points the same way.
                let (u, _, v) = m.svd(true, true);
                let polar = u.bmm(&v.transpose(1, 2));
                let cosine = (&polar * &got).sum(Kind::Double) / (got.norm() * polar.norm());
                assert!(cosine.double_value(&[]) > 0.95);
            }
        }
    }

    #[test]
    fn a_matrix_of_zeros_stays() {
        let zeros = Tensor::zeros([1, 3, 4], (Kind::Float, Device::Cpu));
        assert_eq!(orthogonalize(&zeros, 5).unwrap(), zeros);
    }
}
