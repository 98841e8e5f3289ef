//! Numbers that threads write and that become a tensor without a copy; page-locked where they go on to a GPU, so that they
//! travel there while it computes.

#![allow(unsafe_code)] // A tensor's memory is reached by its address.

use std::ffi::c_char;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::shim::call;
use super::{TorchResult, load_cuda};

unsafe extern "C" {
    fn dbp_host_buffer(len: i64, pinned: i32, made: *mut *mut C_tensor, error: *mut c_char, capacity: usize) -> i32;
}

static PINNED: AtomicBool = AtomicBool::new(false);

/// Whether buffers are page-locked from now on: where tensors live on a GPU.
pub fn pin_buffers(pinned: bool) {
    PINNED.store(pinned && load_cuda().is_ok(), Ordering::Relaxed);
}

/// 32-bit floats in the host's memory.
pub struct Buffer {
    memory: Memory,
    /// No more than the memory holds.
    len: usize,
}

enum Memory {
    /// Of 32-bit floats in a row, on the host; nobody else has it.
    Tensor(Tensor),
    Plain(Vec<f32>),
}

impl Buffer {
    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        if len == 0 {
            return Self::default(); // An empty tensor has no address.
        }
        let pinned = PINNED.load(Ordering::Relaxed);
        // The system gives less memory that is page-locked; what libtorch is refused altogether, Rust's allocator reports.
        let made = (pinned.then(|| zeros(len, true))).and_then(Result::ok).map_or_else(|| zeros(len, false), Ok);
        let memory = made.map_or_else(|_| Memory::Plain(vec![0.0; len]), Memory::Tensor);
        Self { memory, len }
    }

    /// Keeps the first `len` numbers.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The numbers as a tensor on the host. Shapes: `[len]`.
    pub fn into_tensor(self) -> TorchResult<Tensor> {
        Ok(match self.memory {
            Memory::Tensor(tensor) => tensor.f_narrow(0, 0, self.len as i64)?,
            Memory::Plain(numbers) => Tensor::f_from_slice(&numbers[..self.len])?,
        })
    }
}

fn zeros(len: usize, pinned: bool) -> TorchResult<Tensor> {
    let mut made = std::ptr::null_mut();
    // SAFETY: the shim writes one pointer and, within the buffer, its message.
    call(|error, capacity| unsafe { dbp_host_buffer(len as i64, i32::from(pinned), &raw mut made, error, capacity) })?;
    // SAFETY: after success the pointer is to a tensor of its own, which is handed over.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// A tensor of the host on another device. To a GPU it is copied while the program goes on; what comes after on the GPU waits.
pub fn to_device(tensor: &Tensor, device: Device) -> TorchResult<Tensor> {
    if !matches!(device, Device::Cuda(_)) {
        return Ok(tensor.f_to_device(device)?);
    }
    let pinned = if tensor.f_is_pinned(device)? { tensor.shallow_clone() } else { tensor.f_pin_memory(device)? };
    Ok(pinned.f_to_device_(device, tensor.f_kind()?, true, false)?)
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.memory {
            // SAFETY: the shim made a contiguous tensor of at least `len` initialized 32-bit floats, which lives as long as
            // `self`, and which nobody writes to but through `self`.
            Memory::Tensor(tensor) => unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), self.len) },
            Memory::Plain(numbers) => &numbers[..self.len],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            // SAFETY: as above; `self` is borrowed alone.
            Memory::Tensor(tensor) => unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), self.len) },
            Memory::Plain(numbers) => &mut numbers[..self.len],
        }
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self { memory: Memory::Plain(Vec::new()), len: 0 }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn numbers_become_a_tensor_where_they_are() {
        let mut buffer = Buffer::zeros(6);
        assert_eq!(*buffer, [0.0; 6]);
        buffer.iter_mut().zip(1_u8..).for_each(|(place, i)| *place = i.into());
        let copy = buffer.clone();
        buffer.truncate(4);
        assert!(copy != buffer && copy[..4] == *buffer);
        let place = buffer.as_ptr();
        let tensor = buffer.into_tensor().unwrap();
        assert_eq!((tensor.size(), tensor.kind()), (vec![4], Kind::Float));
        assert_eq!(tensor.data_ptr().cast_const().cast(), place);
        let moved = to_device(&tensor, Device::Cpu).unwrap();
        assert_eq!(Vec::<f32>::try_from(&moved).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(Buffer::default().into_tensor().unwrap().numel(), 0);
        assert_eq!(Buffer::zeros(0).len(), 0);
    }

    #[test]
    fn large_buffers_are_zeros_again() {
        for len in [1 << 19, 1 << 19, 1 << 20, 1 << 19, 1 << 20] {
            let mut buffers: Vec<Buffer> = (0..4).map(|_| Buffer::zeros(len)).collect();
            assert!(buffers.iter().all(|buffer| buffer.iter().all(|number| *number == 0.0)));
            buffers.iter_mut().for_each(|buffer| buffer.fill(1.0));
            let tensor = buffers.pop().unwrap().into_tensor().unwrap();
            drop(buffers);
            assert_eq!(tensor.sum(Kind::Double).double_value(&[]), len as f64); // Nobody took its memory.
        }
    }

    #[test]
    fn refused_memory_is_an_error_of_the_shim() {
        assert!(zeros(1 << 60, false).unwrap_err().0.contains("allocate"));
    }
}
