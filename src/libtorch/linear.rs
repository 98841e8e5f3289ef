//! A linear map of float32 rows on the CPU through oneDNN.
//!
//! libtorch multiplies matrices with the BLAS that it was built with: MKL, which leaves AVX-512 unused on processors that are
//! not Intel's. oneDNN, also inside libtorch, writes its kernels for the processor it finds. `benches/README.md` says what was
//! measured.
#![allow(unsafe_code)]

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::TorchResult;
use super::bf16::{has_bf16, product};
use super::shim::call;

unsafe extern "C" {
    fn dbp_has_linear() -> i32;
    fn dbp_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// `y = x Wᵀ + b`. Its gradient has no gradient of its own on the CPU. Shapes: `x [.., d]`, `weight [o, d]`, `bias [o]` →
/// `[.., o]`.
///
/// Errors: libtorch's, for shapes, kinds or devices that do not agree.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> TorchResult<Tensor> {
    if x.kind() == Kind::BFloat16 && !has_bf16(x.device()) {
        return product([x, weight, bias], |[x, weight, bias]| linear(&x, &weight, &bias));
    }
    let float = |tensor: &Tensor| tensor.kind() == Kind::Float && tensor.device() == Device::Cpu;
    // SAFETY: it takes nothing and answers with a number.
    if ![x, weight, bias].into_iter().all(float) || x.dim() < 2 || x.numel() == 0 || unsafe { dbp_has_linear() } == 0 {
        return Ok(x.f_linear(weight, Some(bias))?);
    }
    let mut out = std::ptr::null_mut();
    // SAFETY: three live tensors, borrowed for the whole call, and room for the address of a fourth; the shim catches exceptions.
    call(|error, capacity| unsafe {
        dbp_linear(x.as_ptr(), weight.as_ptr(), bias.as_ptr(), &mut out, error, capacity)
    })?;
    // SAFETY: the call succeeded, so that `out` is a tensor made for us, which no one else frees.
    Ok(unsafe { Tensor::from_ptr(out) })
}
