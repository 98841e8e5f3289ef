//! Rust's side of `shim.cpp`.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use tch::Tensor;
use torch_sys::C_tensor;

use super::{TorchError, TorchResult};

pub(super) type TensorList = *const *const C_tensor;

unsafe extern "C" {
    fn dbp_fused_adamw(
        count: usize,
        params: TensorList,
        grads: TensorList,
        exp_avgs: TensorList,
        exp_avg_sqs: TensorList,
        steps: TensorList,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn dbp_clear_grads(count: usize, params: TensorList, error: *mut c_char, capacity: usize) -> i32;
}

/// Room for a libtorch message; longer ones are cut.
const ERROR_CAPACITY: usize = 4096;

pub(super) fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

/// Runs a shim function with a buffer for its message.
pub(super) fn call(function: impl FnOnce(*mut c_char, usize) -> i32) -> TorchResult<()> {
    let mut error = [0 as c_char; ERROR_CAPACITY];
    if function(error.as_mut_ptr(), ERROR_CAPACITY) == 0 {
        return Ok(());
    }
    // SAFETY: the shim always ends the message with a zero byte within the buffer.
    let message = unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned();
    Err(TorchError::from(tch::TchError::Torch(message)))
}

/// Whether operations of this thread are tracked for gradients right now.
pub fn grad_enabled() -> bool {
    // SAFETY: sets a flag of this thread and answers with what it was; nothing happens between the two calls.
    unsafe {
        let was = torch_sys::at_grad_set_enabled(0);
        torch_sys::at_grad_set_enabled(was);
        was != 0
    }
}

/// The hyper-parameters of one AdamW step (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub weight_decay: f64,
    pub eps: f64,
}

/// One AdamW step in place, as one kernel over all tensors. The slices run in parallel, one entry per parameter; `steps`
/// holds float scalars that count the updates and are incremented.
///
/// Errors: libtorch's, for shapes, kinds or devices that do not agree.
///
/// # Panics
/// If the slices differ in length.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    exp_avgs: &[Tensor],
    exp_avg_sqs: &[Tensor],
    steps: &[Tensor],
    with: AdamWStep,
) -> TorchResult<()> {
    let count = params.len();
    for other in [grads, exp_avgs, exp_avg_sqs, steps] {
        assert_eq!(other.len(), count, "one entry per parameter");
    }
    let lists = [params, grads, exp_avgs, exp_avg_sqs, steps].map(pointers);
    call(|error, capacity| {
        // SAFETY: each list holds `count` pointers to live tensors, borrowed for the whole call; the shim catches exceptions.
        unsafe {
            dbp_fused_adamw(
                count,
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                lists[4].as_ptr(),
                with.lr,
                with.beta1,
                with.beta2,
                with.weight_decay,
                with.eps,
                error,
                capacity,
            )
        }
    })
}

/// Sets the gradients to "none".
pub fn clear_grads(params: &[Tensor]) -> TorchResult<()> {
    let list = pointers(params);
    call(|error, capacity| {
        // SAFETY: the list holds `len` pointers to live tensors, borrowed for the whole call; the shim catches exceptions.
        unsafe { dbp_clear_grads(list.len(), list.as_ptr(), error, capacity) }
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    /// The first AdamW step from zero moments has a closed form: w ← w(1 − lr·decay) − lr·g / (|g| + eps).
    #[test]
    fn first_step_matches_its_closed_form() {
        let w = Tensor::from_slice(&[1.0f64, -2.0, 0.5]);
        let g = Tensor::from_slice(&[0.3f64, -0.1, 2.0]);
        let moments =
            [Tensor::zeros([3], (Kind::Double, Device::Cpu)), Tensor::zeros([3], (Kind::Double, Device::Cpu))];
        let [m, v] = moments;
        let step = Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu));
        let with = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.05, eps: 1e-8 };
        let want: Vec<f64> = [(1.0, 0.3), (-2.0, -0.1), (0.5, 2.0f64)]
            .iter()
            .map(|(w, g)| w * 0.995 - 0.1 * g / (g.abs() + 1e-8))
            .collect();
        fused_adamw(&[w.shallow_clone()], &[g], &[m], &[v], &[step.shallow_clone()], with).unwrap();
        let got = Vec::<f64>::try_from(&w).unwrap();
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} {want:?}");
        assert_eq!(step.double_value(&[]), 1.0);
    }

    #[test]
    fn libtorch_errors_come_back_as_one_line() {
        let a = [Tensor::zeros([2], (Kind::Float, Device::Cpu))];
        let b = [Tensor::zeros([3], (Kind::Int64, Device::Cpu))];
        let steps = [Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu))];
        let with = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.0, eps: 1e-8 };
        let message = fused_adamw(&a, &b, &a, &a, &steps, with).unwrap_err().to_string();
        assert!(!message.is_empty() && !message.contains('\n') && !message.contains("frame #"), "{message}");
    }

    #[test]
    fn cleared_gradients_are_undefined() {
        let w = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        w.sum(Kind::Float).backward();
        assert!(w.grad().defined());
        clear_grads(&[w.shallow_clone()]).unwrap();
        assert!(!w.grad().defined());
    }
}
