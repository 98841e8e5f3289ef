//! Products of bfloat16 tensors on processors that have no instructions for them.
//!
//! libtorch multiplies there element by element. Float32 products of the same rounded numbers, rounded once more, are what such
//! instructions compute: sums are in float32 either way.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use super::TorchResult;

unsafe extern "C" {
    fn dbp_has_bf16() -> i32;
}

/// Whether products of bfloat16 on this device are products of its own.
pub fn has_bf16(device: Device) -> bool {
    static OF_CPU: OnceLock<bool> = OnceLock::new();
    // SAFETY: it takes nothing, catches what libtorch throws, and answers with a number.
    device != Device::Cpu || *OF_CPU.get_or_init(|| unsafe { dbp_has_bf16() } == 1)
}

/// `product` of tensors of one kind, through float32 where they are bfloat16 and the processor has nothing for that.
pub fn product<const N: usize>(
    inputs: [&Tensor; N],
    product: impl FnOnce([Tensor; N]) -> TorchResult<Tensor>,
) -> TorchResult<Tensor> {
    let own = inputs[0].kind();
    if own != Kind::BFloat16 || has_bf16(inputs[0].device()) {
        return product(inputs.map(Tensor::shallow_clone));
    }
    let mut widened = inputs.map(Tensor::shallow_clone);
    for input in &mut widened {
        *input = input.f_to_kind(Kind::Float)?;
    }
    Ok(product(widened)?.f_to_kind(own)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y` and the gradients of its sum of squares in float32.
    fn answers(linear: impl Fn(&Tensor, &Tensor) -> Tensor) -> Vec<Tensor> {
        let ramp = |rows: i64, columns: i64, by: f64| {
            let values = Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) * by;
            values.sin().reshape([rows, columns]).to_kind(Kind::BFloat16).set_requires_grad(true)
        };
        let (x, w) = (ramp(40, 24, 0.7), ramp(16, 24, 1.3));
        let y = linear(&x, &w);
        assert_eq!(y.kind(), Kind::BFloat16);
        y.to_kind(Kind::Float).square().sum(Kind::Float).backward();
        [y, x.grad(), w.grad()].map(|tensor| tensor.to_kind(Kind::Float)).into()
    }

    #[test]
    fn through_float32_products_are_those_of_bfloat16() {
        let own = answers(|x, w| x.linear(w, None::<&Tensor>));
        let ours = answers(|x, w| product([x, w], |[x, w]| Ok(x.f_linear(&w, None::<&Tensor>)?)).unwrap());
        for (a, b) in own.iter().zip(&ours) {
            // One rounding apart at most; gradients begin at y's.
            let error = (a - b).norm() / a.norm();
            assert!(error.double_value(&[]) < 0.004, "{error}");
        }
    }
}
