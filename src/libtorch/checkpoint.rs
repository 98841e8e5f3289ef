//! Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): a stretch of a model keeps its input alone, and its inside is
//! computed again in the backward pass.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, ThreadId};

use tch::Tensor;
use torch_sys::C_tensor;

use super::TorchResult;
use super::shim::call;

type Run = extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor, *mut c_char, usize) -> i32;
type Release = extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn dbp_checkpoint(
        x: *const C_tensor,
        y: *const C_tensor,
        run: Run,
        release: Release,
        context: *mut c_void,
        out: *mut *mut C_tensor,
        error: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// What computes the inside again: the same function of x as the first time, errors in words.
type Again = Box<dyn Fn(&Tensor) -> Result<Tensor, String>>;

/// With the thread whose it is.
struct Context {
    again: Again,
    owner: ThreadId,
}

/// `y`, which was computed from `x` without gradients, as if it had been computed with them: the backward pass calls `again(x)`.
///
/// On CUDA that happens on a thread of libtorch's, while this one waits inside `backward`.
///
/// Errors: libtorch's.
pub fn checkpoint(
    x: &Tensor,
    y: &Tensor,
    again: impl Fn(&Tensor) -> Result<Tensor, String> + 'static,
) -> TorchResult<Tensor> {
    let context = Box::new(Context { again: Box::new(again), owner: thread::current().id() });
    let context = Box::into_raw(context).cast::<c_void>();
    let mut out = std::ptr::null_mut();
    // SAFETY: two live tensors, borrowed for the whole call, room for the address of a third, and a context of the type that
    // `run` and `release` expect; the shim calls `release` once, when nothing can call `run` any more, and catches exceptions.
    call(|error, capacity| unsafe {
        dbp_checkpoint(x.as_ptr(), y.as_ptr(), run, release, context, &mut out, error, capacity)
    })?;
    // SAFETY: the call succeeded, so that `out` is a tensor made for us, which no one else frees.
    Ok(unsafe { Tensor::from_ptr(out) })
}

/// `context` is that of [`checkpoint`], `x` a tensor made for this call, `error` has `capacity` bytes.
extern "C" fn run(
    context: *mut c_void,
    x: *mut C_tensor,
    out: *mut *mut C_tensor,
    error: *mut c_char,
    capacity: usize,
) -> i32 {
    // SAFETY: the shim made this tensor for us; it is freed at the end of this function.
    let x = unsafe { Tensor::from_ptr(x) };
    // SAFETY: the shim holds the context until `release`. Only one thread is in it: the one that called `backward` waits.
    let context = unsafe { &*context.cast::<Context>() };
    let made =
        catch_unwind(AssertUnwindSafe(|| (context.again)(&x))).unwrap_or_else(|_| Err("it failed unexpectedly".into()));
    match made {
        Ok(mut y) => {
            // SAFETY: `out` has room for an address; the shim copies the tensor and deletes this handle, so that ours is
            // given up.
            unsafe { *out = y.as_mut_ptr() };
            std::mem::forget(y);
            0
        }
        Err(message) => {
            let bytes = &message.as_bytes()[..message.len().min(capacity - 1)];
            // SAFETY: `error` has `capacity` bytes, of which the message and its end take no more.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr().cast::<c_char>(), error, bytes.len());
                *error.add(bytes.len()) = 0;
            }
            1
        }
    }
}

extern "C" fn release(context: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `checkpoint`, and the shim calls this once.
    let context = unsafe { Box::from_raw(context.cast::<Context>()) };
    // A backward pass that failed on CUDA may leave the end of its graph to a thread of libtorch's, while the owner goes on: what is
    // shared with the owner must not be touched there, and stays.
    if context.owner == thread::current().id() {
        drop(context);
    } else {
        std::mem::forget(context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(w: &Tensor) -> impl Fn(&Tensor) -> Tensor + 'static {
        let w = w.shallow_clone();
        move |x| (x * &w).exp()
    }

    #[test]
    fn gradients_are_those_of_the_whole_graph() {
        for tracked in [true, false] {
            let gradients = |checkpointed: bool| {
                let w = Tensor::from_slice(&[2.0f32, 3.0]).set_requires_grad(true);
                let x = Tensor::from_slice(&[0.5f32, -0.5]).set_requires_grad(tracked);
                let (inside, again) = (inside(&w), inside(&w));
                let y = match checkpointed {
                    true => checkpoint(&x, &tch::no_grad(|| inside(&x)), move |x| Ok(again(x))).unwrap(),
                    false => inside(&x),
                };
                y.sum(tch::Kind::Float).backward();
                assert_eq!(x.grad().defined(), tracked);
                let of_x = tracked.then(|| Vec::<f32>::try_from(x.grad()).unwrap());
                (Vec::<f32>::try_from(w.grad()).unwrap(), of_x)
            };
            assert_eq!(gradients(true), gradients(false));
        }
    }

    #[test]
    fn what_fails_inside_is_an_error_of_the_backward_pass() {
        let x = Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
        let y = checkpoint(&x, &x.detach().exp(), |_| Err("no room for the block".into())).unwrap();
        let message = crate::libtorch::TorchError::from(y.sum(tch::Kind::Float).f_backward().unwrap_err()).0;
        assert_eq!(message, "no room for the block");
    }

    #[test]
    fn what_is_kept_goes_with_the_graph() {
        let kept = std::rc::Rc::new(());
        let x = Tensor::from_slice(&[1.0f32]).set_requires_grad(true);
        let held = kept.clone();
        let y = checkpoint(&x, &x.detach().exp(), move |x| {
            let _ = &held;
            Ok(x.exp())
        });
        assert_eq!(std::rc::Rc::strong_count(&kept), 2);
        drop(y);
        assert_eq!(std::rc::Rc::strong_count(&kept), 1);
    }
}
