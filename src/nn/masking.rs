//! Random masking by sorting noise (He et al. 2022, arXiv:2111.06377).

use tch::{Device, Kind, Tensor};

use super::rows::Place;
use super::{NnError, NnResult};
use crate::libtorch::buffer::to_device;
use crate::random::Stream;

/// Which tokens of each image stay. `K = ⌊L · (1 − mask_ratio)⌋`.
pub struct Masking {
    /// `[N, L]`, int64: the tokens in the order (kept, removed).
    pub order: Tensor,
    /// `[N, K]`, int64.
    pub ids_keep: Tensor,
    /// `[N, L − K]`, int64.
    pub ids_removed: Tensor,
}

impl Masking {
    /// Keeps the tokens with the smallest noise. Shapes: `noise [N, L]`.
    ///
    /// Errors: [`NnError::MaskRatio`] if nothing would be kept or nothing removed.
    pub fn from_noise(noise: &Tensor, mask_ratio: f64) -> NnResult<Self> {
        let (_, tokens) = noise.size2()?;
        let kept = kept_tokens(tokens, mask_ratio)?;
        let shuffled = noise.f_argsort_stable(true, 1, false)?;
        Ok(Self {
            ids_keep: shuffled.f_narrow(1, 0, kept)?,
            ids_removed: shuffled.f_narrow(1, kept, tokens - kept)?,
            order: shuffled,
        })
    }

    /// Where each token went in the order (kept, removed). Training has no need of it. Shapes: `[N, L]`, int64.
    pub fn ids_restore(&self) -> NnResult<Tensor> {
        Ok(self.order.f_argsort_stable(true, 1, false)?)
    }

    /// 1 where a token was removed. Shapes: `[N, L]`.
    pub fn mask(&self, kind: Kind) -> NnResult<Tensor> {
        let kept = self.ids_keep.size()[1];
        Ok(self.ids_restore()?.f_ge(kept)?.f_to_kind(kind)?)
    }
}

/// `K = ⌊L · (1 − mask_ratio)⌋`, checked.
pub fn kept_tokens(tokens: i64, mask_ratio: f64) -> NnResult<i64> {
    // The tolerance keeps 0.9 of 10 at one token: 10 · (1 − 0.9) is 0.9999….
    let kept = (tokens as f64 * (1.0 - mask_ratio) + 1e-9).floor() as i64;
    if kept < 1 || kept >= tokens {
        return Err(NnError::MaskRatio { ratio: mask_ratio, patches: tokens, kept });
    }
    Ok(kept)
}

/// The noise of a micro-batch, keyed by its place. Shapes: `[images, tokens]`.
pub fn noise(place: &Place, images: i64, tokens: i64, device: Device) -> NnResult<Tensor> {
    let mut rng = place.key(Stream::Mask).rng();
    let values: Vec<f32> = (0..images * tokens).map(|_| rng.uniform()).collect();
    Ok(to_device(&Tensor::f_from_slice(&values)?.f_view([images, tokens])?, device)?)
}

/// Rows of `tokens [N, L, D]` by number. Shapes: `ids [N, K]` → `[N, K, D]`.
pub fn take(tokens: &Tensor, ids: &Tensor) -> NnResult<Tensor> {
    let width = tokens.size()[2];
    Ok(tokens.f_gather(1, &ids.f_unsqueeze(-1)?.f_expand([-1, -1, width], false)?, false)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_smallest_noise() {
        let noise = Tensor::from_slice(&[0.5f32, 0.1, 0.9, 0.3]).view([1, 4]);
        let masking = Masking::from_noise(&noise, 0.5).unwrap();
        assert_eq!(Vec::<i64>::try_from(masking.ids_keep.view([-1])).unwrap(), [1, 3]);
        let mask = masking.mask(Kind::Float).unwrap();
        assert_eq!(Vec::<f32>::try_from(mask.view([-1])).unwrap(), [1., 0., 1., 0.]);
    }

    #[test]
    fn a_ratio_that_leaves_nothing_is_refused() {
        assert_eq!(kept_tokens(64, 0.75).unwrap(), 16);
        assert_eq!(kept_tokens(10, 0.9).unwrap(), 1);
        assert!(kept_tokens(4, 0.9).is_err());
        assert!(kept_tokens(4, 0.0).is_err());
    }
}
