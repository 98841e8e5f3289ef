//! Attention, by libtorch's fused kernel or, over few tokens on the CPU, by one of our own.
//!
//! libtorch's kernel for the CPU multiplies small blocks with a BLAS that is made for large ones: masked autoencoders of small images
//! have 17 and 65 tokens, and would spend a quarter of a step there. `benches/RESULTS.md` says what was measured.
#![allow(unsafe_code)]

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::TorchResult;
use super::bf16::product;
use super::shim::call;

/// Beyond so many tokens a head's scores leave the caches, and libtorch's kernel is as fast.
const MOST_TOKENS: i64 = 256;

unsafe extern "C" {
    fn dbp_has_attention() -> i32;
    fn dbp_attention(qkv: *const C_tensor, out: *mut *mut C_tensor, error: *mut c_char, capacity: usize) -> i32;
}

/// `softmax(q kᵀ / √d) v` of every head. Its gradient has no gradient of its own on the CPU. Shapes: `[N, L, 3, heads, d]` →
/// `[N, L, heads · d]`.
///
/// Errors: libtorch's.
pub fn attention(qkv: &Tensor) -> TorchResult<Tensor> {
    product([qkv], |[qkv]| {
        let (size, on_cpu) = (qkv.size(), qkv.device() == Device::Cpu);
        let [n, tokens, 3, heads, width] = size[..] else { return libtorchs(&qkv) };
        let few = n > 0 && heads > 0 && width > 0 && width % 8 == 0 && (1..=MOST_TOKENS).contains(&tokens);
        // SAFETY: it takes nothing and answers with a number.
        if !on_cpu || qkv.kind() != Kind::Float || !few || unsafe { dbp_has_attention() } == 0 {
            return libtorchs(&qkv);
        }
        let mut out = std::ptr::null_mut();
        // SAFETY: a live tensor of the shape that the kernel wants, borrowed for the whole call, and room for the address of
        // another; the shim catches exceptions.
        call(|error, capacity| unsafe { dbp_attention(qkv.as_ptr(), &mut out, error, capacity) })?;
        // SAFETY: the call succeeded, so that `out` is a tensor made for us, which no one else frees.
        Ok(unsafe { Tensor::from_ptr(out) })
    })
}

/// The same by libtorch's kernel.
fn libtorchs(qkv: &Tensor) -> TorchResult<Tensor> {
    let parts = qkv.f_permute([2, 0, 3, 1, 4])?.f_unbind(0)?; // 3 × [N, heads, L, d]
    let [q, k, v] = &parts[..] else { unreachable!("unbind of a dimension of 3") };
    let (n, heads, tokens, width) = q.size4()?;
    let mixed = Tensor::f_scaled_dot_product_attention(q, k, v, None::<&Tensor>, 0.0, false, None, false)?;
    Ok(mixed.f_transpose(1, 2)?.f_reshape([n, tokens, heads * width])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without pattern. Shapes: `shape`.
    fn numbers(shape: &[i64], size: f64) -> Tensor {
        let count: i64 = shape.iter().product();
        let values = Tensor::arange(count, (Kind::Double, Device::Cpu));
        ((&values * &values * 0.37 + values * 1.7).sin() * size).to_kind(Kind::Float).reshape(shape)
    }

    /// Outputs and the gradient of a weighted sum of them, in float64.
    fn answers(qkv: &Tensor, attention: fn(&Tensor) -> TorchResult<Tensor>) -> [Tensor; 2] {
        let qkv = qkv.detach().set_requires_grad(true);
        let out = attention(&qkv).unwrap();
        let weights = numbers(&out.size(), 1.0).to_kind(out.kind());
        (&out * weights).sum(Kind::Float).backward();
        [out, qkv.grad()].map(|tensor| tensor.detach().to_kind(Kind::Double))
    }

    fn error(a: &Tensor, b: &Tensor) -> f64 {
        ((a - b).norm() / b.norm()).double_value(&[])
    }

    #[test]
    fn it_is_attention_in_float64_rounded() {
        // Tokens and widths that fill vectors and that do not; one head, one token; scores far from 0.
        for (n, tokens, heads, width, size) in
            [(3, 17, 4, 32, 1.0), (2, 65, 4, 16, 3.0), (1, 1, 1, 8, 1.0), (2, 24, 3, 64, 1.0), (1, 7, 2, 24, 8.0)]
        {
            let qkv = numbers(&[n, tokens, 3, heads, width], size);
            let exact = answers(&qkv.to_kind(Kind::Double), libtorchs);
            let (ours, theirs) = (answers(&qkv, attention), answers(&qkv, libtorchs));
            for (i, exact) in exact.iter().enumerate() {
                let (own, other) = (error(&ours[i], exact), error(&theirs[i], exact));
                assert!(
                    own < 1e-6_f64.max(4.0 * other),
                    "{tokens} × {heads} × {width}, {i}: {own:e}, theirs {other:e}"
                );
            }
        }
    }

    #[test]
    fn views_threads_and_what_is_not_a_number() {
        let qkv = numbers(&[2, 9, 6, 2, 16], 1.0);
        let view = qkv.slice(2, None, None, 2); // Not contiguous.
        assert!(error(&attention(&view).unwrap(), &libtorchs(&view).unwrap()) < 1e-6);
        let own = numbers(&[5, 33, 3, 2, 8], 1.0);
        let many = attention(&own).unwrap();
        tch::set_num_threads(1); // Of this test's thread.
        assert!(attention(&own).unwrap().equal(&many));
        let spoilt = own.shallow_clone();
        let _ = spoilt.get(0).get(3).get(0).get(1).fill_(f64::NAN); // A query of the second head.
        let out = attention(&spoilt).unwrap();
        let is_nan = out.isnan().reshape([5, 33, 2, 8]);
        assert_eq!(is_nan.sum(Kind::Int64).int64_value(&[]), 8);
        assert_eq!(is_nan.get(0).get(3).get(1).sum(Kind::Int64).int64_value(&[]), 8);
    }

    #[test]
    fn what_the_kernel_does_not_take_goes_to_libtorch() {
        for qkv in [numbers(&[2, 4, 3, 2, 4], 1.0), numbers(&[1, 300, 3, 1, 8], 1.0), numbers(&[0, 4, 3, 2, 8], 1.0)] {
            assert!(attention(&qkv).unwrap().equal(&libtorchs(&qkv).unwrap()));
        }
    }
}
