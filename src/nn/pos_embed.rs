//! Fixed two-dimensional sine-cosine position embeddings, in the layout of the MAE release: the first half of the width
//! encodes the column, the second the row, each as [sines, cosines]; the class token's row is zero. And the same positions
//! on another grid, for images of another size.

use tch::{Device, Kind, Tensor};

use super::{NnError, NnResult};

/// Shapes: `[1, 1 + rows·columns, width]` (float64), class token first.
pub fn sin_cos(width: i64, (rows, columns): (i64, i64)) -> NnResult<Tensor> {
    let quarter = width / 4;
    let half = |position: i64, out: &mut Vec<f64>| {
        let angle = |i: i64| position as f64 / 10_000f64.powf(i as f64 / quarter as f64);
        out.extend((0..quarter).map(|i| angle(i).sin()));
        out.extend((0..quarter).map(|i| angle(i).cos()));
    };
    let mut values = vec![0.0; width as usize];
    for row in 0..rows {
        for column in 0..columns {
            half(column, &mut values);
            half(row, &mut values);
        }
    }
    Ok(Tensor::f_from_slice(&values)?
        .f_view([1, 1 + rows * columns, width])?
        .f_to_device(Device::Cpu)?
        .f_to_kind(Kind::Double)?)
}

/// Positions of one grid for another: bicubic with antialiasing, as timm's `resample_abs_pos_embed`; the class token's stays.
/// Shapes: `[1, 1 + rows·columns, D]` → `[1, 1 + rows'·columns', D]`.
///
/// Errors: [`NnError::Config`] if there are not so many positions as `from` has places.
pub fn resample(positions: &Tensor, from: (i64, i64), to: (i64, i64)) -> NnResult<Tensor> {
    let size = positions.size();
    let [1, count, width] = size[..] else {
        return Err(NnError::Config(format!("pos_embed: expected shape [1, 1 + L, D], got {size:?}")));
    };
    if count != 1 + from.0 * from.1 {
        let message =
            format!("pos_embed: {count} positions are not a class token and a grid of {} x {}", from.0, from.1);
        return Err(NnError::Config(message));
    }
    if from == to {
        return Ok(positions.shallow_clone());
    }
    let grid = positions.f_narrow(1, 1, count - 1)?.f_to_kind(Kind::Float)?;
    let grid = grid.f_view([1, from.0, from.1, width])?.f_permute([0, 3, 1, 2])?;
    let grid = grid.f_internal_upsample_bicubic2d_aa([to.0, to.1], false, None, None)?;
    let grid = grid.f_permute([0, 2, 3, 1])?.f_reshape([1, to.0 * to.1, width])?.f_to_kind(positions.kind())?;
    Ok(Tensor::f_cat(&[positions.f_narrow(1, 0, 1)?, grid], 1)?)
}
