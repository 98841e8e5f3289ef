//! In-place updates of many tensors as one call each: SGD, schedule-free AdamW, and moving tensors towards others.
#![allow(unsafe_code)]

use std::ffi::c_char;

use tch::Tensor;
use torch_sys::C_tensor;

use super::TorchResult;
use super::shim::{TensorList, call, pointers};

unsafe extern "C" {
    fn dbp_fused_sgd(
        count: usize,
        params: TensorList,
        grads: TensorList,
        buffers: TensorList,
        buffer_count: usize,
        lr: f64,
        momentum: f64,
        nesterov: i32,
        weight_decay: f64,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn dbp_schedule_free_adamw(
        count: usize,
        ys: TensorList,
        grads: TensorList,
        exp_avg_sqs: TensorList,
        zs: TensorList,
        lr: f64,
        beta1: f64,
        beta2: f64,
        bias_correction2: f64,
        weight_decay: f64,
        eps: f64,
        share: f64,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn dbp_clip_norm(
        count: usize,
        tensors: TensorList,
        most: f64,
        norm: *mut *mut C_tensor,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn dbp_lerp(
        count: usize,
        tensors: TensorList,
        ends: TensorList,
        weight: f64,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// The hyper-parameters of one SGD step, as PyTorch names them.
#[derive(Clone, Copy, Debug)]
pub struct SgdStep {
    pub lr: f64,
    pub momentum: f64,
    pub nesterov: bool,
    pub weight_decay: f64,
}

/// One SGD step in place, as one kernel over all tensors; `buffers`, one per parameter, is empty without momentum.
///
/// Errors: libtorch's, for shapes, kinds or devices that do not agree.
///
/// # Panics
/// If the slices differ in length.
pub fn fused_sgd(params: &[Tensor], grads: &[Tensor], buffers: &[Tensor], with: SgdStep) -> TorchResult<()> {
    assert_eq!(grads.len(), params.len(), "one gradient per parameter");
    assert_eq!(buffers.len(), if with.momentum > 0.0 { params.len() } else { 0 }, "one buffer per parameter");
    let lists = [params, grads, buffers].map(pointers);
    call(|error, capacity| {
        // SAFETY: the lists hold as many pointers as is said, to live tensors, borrowed for the whole call; the shim catches
        // exceptions.
        unsafe {
            dbp_fused_sgd(
                lists[0].len(),
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[2].len(),
                with.lr,
                with.momentum,
                i32::from(with.nesterov),
                with.weight_decay,
                error,
                capacity,
            )
        }
    })
}

/// What one step of schedule-free AdamW (Defazio et al. 2024) is taken with.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleFreeStep {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    /// `1 − β₂^steps`.
    pub bias_correction2: f64,
    pub weight_decay: f64,
    pub eps: f64,
    /// Of this step's z in the average.
    pub share: f64,
}

/// One step of schedule-free AdamW in place; the gradients are used up. The slices run in parallel, one entry per parameter.
///
/// Errors: libtorch's, for shapes, kinds or devices that do not agree.
///
/// # Panics
/// If the slices differ in length.
pub fn schedule_free_adamw(
    ys: &[Tensor],
    grads: &[Tensor],
    exp_avg_sqs: &[Tensor],
    zs: &[Tensor],
    with: ScheduleFreeStep,
) -> TorchResult<()> {
    let count = ys.len();
    for other in [grads, exp_avg_sqs, zs] {
        assert_eq!(other.len(), count, "one entry per parameter");
    }
    let lists = [ys, grads, exp_avg_sqs, zs].map(pointers);
    call(|error, capacity| {
        // SAFETY: each list holds `count` pointers to live tensors, borrowed for the whole call; the shim catches exceptions.
        unsafe {
            dbp_schedule_free_adamw(
                count,
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                with.lr,
                with.beta1,
                with.beta2,
                with.bias_correction2,
                with.weight_decay,
                with.eps,
                with.share,
                error,
                capacity,
            )
        }
    })
}

/// Scales tensors down, in place, so that all together are no longer than `most`: PyTorch's `clip_grad_norm_`. How long they were
/// stays on the device; `None` for no tensors.
///
/// Errors: libtorch's, for kinds or devices that do not agree.
pub fn clip_norm(tensors: &[Tensor], most: f64) -> TorchResult<Option<Tensor>> {
    if tensors.is_empty() {
        return Ok(None);
    }
    let (list, mut norm) = (pointers(tensors), std::ptr::null_mut());
    // SAFETY: the list holds `len` pointers to live tensors, borrowed for the whole call, and there is room for the address of
    // one more; the shim catches exceptions.
    call(|error, capacity| unsafe { dbp_clip_norm(list.len(), list.as_ptr(), most, &mut norm, error, capacity) })?;
    // SAFETY: the call succeeded, so that `norm` is a tensor made for us, which no one else frees.
    Ok(Some(unsafe { Tensor::from_ptr(norm) }))
}

/// `t ← t + weight · (end − t)`, in place, for each tensor and its end.
///
/// Errors: libtorch's, for shapes, kinds or devices that do not agree.
///
/// # Panics
/// If the slices differ in length.
pub fn lerp(tensors: &[Tensor], ends: &[Tensor], weight: f64) -> TorchResult<()> {
    assert_eq!(tensors.len(), ends.len(), "one end per tensor");
    if tensors.is_empty() {
        return Ok(());
    }
    let (from, to) = (pointers(tensors), pointers(ends));
    call(|error, capacity| {
        // SAFETY: both lists hold `len` pointers to live tensors, borrowed for the whole call; the shim catches exceptions.
        unsafe { dbp_lerp(from.len(), from.as_ptr(), to.as_ptr(), weight, error, capacity) }
    })
}
