//! Fixed two-dimensional sine-cosine position embeddings, in the layout of the MAE release: the first half of the width
//! encodes the column, the second the row, each as [sines, cosines]; the class token's row is zero.

use tch::{Device, Kind, Tensor};

use super::NnResult;

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
