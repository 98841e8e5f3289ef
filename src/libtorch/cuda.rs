//! CUDA is loaded when it is first asked for, so that one binary serves machines with and without it.
//!
//! The linker drops `libtorch_cuda` from the binary because nothing refers to it by name; opened with global symbols, it
//! registers its kernels with libtorch. This must come before libtorch is first asked about CUDA: it remembers the answer.

#![allow(unsafe_code)] // `dlopen` and `_exit` are C.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::{TorchError, TorchResult};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn _exit(code: c_int) -> !;
}

const RTLD_NOW: c_int = 2;
const RTLD_GLOBAL: c_int = 0x100; // Linux; there is no CUDA elsewhere that libtorch supports in this way.

/// Loads libtorch's CUDA half, once.
///
/// # Errors
/// If it is not installed beside libtorch, or the CUDA libraries it names are missing.
pub fn load() -> TorchResult<()> {
    static LOADED: OnceLock<TorchResult<()>> = OnceLock::new();
    LOADED.get_or_init(|| open(c"libtorch_cuda.so")).clone()
}

#[cfg(target_os = "linux")]
fn open(name: &CStr) -> TorchResult<()> {
    // SAFETY: `name` ends in NUL; the library is libtorch's own, whose initializers are made for being loaded this way.
    let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW | RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(());
    }
    // SAFETY: after a failed `dlopen`, `dlerror` gives a text that lives until the next call on this thread.
    let reason = unsafe {
        let text = dlerror();
        if text.is_null() { "unknown reason".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    };
    Err(TorchError(reason))
}

#[cfg(not(target_os = "linux"))]
fn open(_: &CStr) -> TorchResult<()> {
    Err(TorchError("CUDA is supported on Linux only".into()))
}

/// Ends the process without running destructors: libtorch's crash while another thread is inside libtorch.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { _exit(code) }
}
