//! Images as rows of patches, in the two orders that weights and targets use.

use tch::Tensor;

use super::NnResult;

/// Flattened patches in the order of a convolution's weight, (channel, row, column): what the patch embedding takes.
/// Shapes: `[N, C, H, W]` → `[N, L, C·p²]`.
pub fn patches(images: &Tensor, patch_size: i64) -> NnResult<Tensor> {
    split(images, patch_size, [0, 2, 4, 1, 3, 5])
}

/// Flattened patches in MAE's order, (row, column, channel): what the decoder predicts.
/// Shapes: `[N, C, H, W]` → `[N, L, p²·C]`.
pub fn patchify(images: &Tensor, patch_size: i64) -> NnResult<Tensor> {
    split(images, patch_size, [0, 2, 4, 3, 5, 1])
}

fn split(images: &Tensor, p: i64, order: [i64; 6]) -> NnResult<Tensor> {
    let (n, c, h, w) = images.size4()?;
    let grid = images.f_view([n, c, h / p, p, w / p, p])?.f_permute(order)?;
    Ok(grid.f_reshape([n, (h / p) * (w / p), c * p * p])?)
}

/// Undoes [`patchify`] for a grid of `rows × columns` patches. Shapes: `[N, L, p²·C]` → `[N, C, H, W]`.
pub fn unpatchify(patches: &Tensor, patch_size: i64, (rows, columns): (i64, i64)) -> NnResult<Tensor> {
    let (n, _, d) = patches.size3()?;
    let (p, c) = (patch_size, d / (patch_size * patch_size));
    let grid = patches.f_view([n, rows, columns, p, p, c])?.f_permute([0, 5, 1, 3, 2, 4])?;
    Ok(grid.f_reshape([n, c, rows * p, columns * p])?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn unpatchify_undoes_patchify() {
        let images = Tensor::randn([2, 3, 8, 12], (Kind::Float, Device::Cpu));
        let there = patchify(&images, 4).unwrap();
        assert_eq!(there.size(), [2, 6, 48]);
        assert_eq!(unpatchify(&there, 4, (2, 3)).unwrap(), images);
    }

    #[test]
    fn the_two_orders_hold_the_same_pixels() {
        let images = Tensor::arange(2 * 2 * 2, (Kind::Float, Device::Cpu)).view([1, 2, 2, 2]);
        let rows = |t: Tensor| Vec::<f32>::try_from(t.view([-1])).unwrap();
        assert_eq!(rows(patches(&images, 2).unwrap()), [0., 1., 2., 3., 4., 5., 6., 7.]);
        assert_eq!(rows(patchify(&images, 2).unwrap()), [0., 4., 1., 5., 2., 6., 3., 7.]);
    }
}
