//! CUDA is loaded when it is first asked for, so that one binary serves machines with and without it.
//!
//! The linker drops `libtorch_cuda` from the binary because nothing refers to it by name; opened with global symbols, it
//! registers its kernels with libtorch. This must come before libtorch is first asked about CUDA: it remembers the answer.

#![allow(unsafe_code)] // `dlopen`, `_exit` and CUDA are C.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use super::{TorchError, TorchResult};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlerror() -> *const c_char;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
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

type GetPciBusId = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
type GetLastError = unsafe extern "C" fn() -> c_int;

/// Where CUDA's device `index` sits on the PCI bus (`0000:65:00.0`), which tells other libraries which GPU is meant. `None`
/// where CUDA cannot be loaded or has no such device.
pub fn cuda_bus_id(index: usize) -> Option<String> {
    let index = c_int::try_from(index).ok()?;
    load().ok()?;
    bus_id(index)
}

fn bus_id(index: c_int) -> Option<String> {
    let by_index = runtime_symbol(c"cudaDeviceGetPCIBusId")?;
    let last_error = runtime_symbol(c"cudaGetLastError")?;
    const SIZE: usize = 32; // 13 with the NUL, by CUDA's documentation.
    let mut text = [0_u8; SIZE];
    // SAFETY: these are the types of the CUDA runtime's functions of these names in every version of it (`cudaError_t` is an
    // enumeration of C, 0 for success); the first writes no more than `SIZE` bytes, all ours.
    let status = unsafe {
        let by_index = std::mem::transmute::<*mut c_void, GetPciBusId>(by_index);
        by_index(text.as_mut_ptr().cast(), SIZE as c_int, index)
    };
    if status != 0 {
        // CUDA keeps the error for whoever asks next, which would be libtorch, after a kernel of its own.
        // SAFETY: as above; it takes nothing and changes only that record.
        unsafe { std::mem::transmute::<*mut c_void, GetLastError>(last_error)() };
        return None;
    }
    let id = CStr::from_bytes_until_nul(&text).ok()?.to_str().ok()?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// A function of libcudart, which libtorch has brought into the process.
#[cfg(target_os = "linux")]
fn runtime_symbol(name: &CStr) -> Option<*mut c_void> {
    const RTLD_DEFAULT: *mut c_void = std::ptr::null_mut();
    // SAFETY: `name` ends in NUL; the handle stands for everything that is loaded with global symbols.
    let symbol = unsafe { dlsym(RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

#[cfg(not(target_os = "linux"))]
fn runtime_symbol(_: &CStr) -> Option<*mut c_void> {
    None
}

/// Ends the process without running destructors: libtorch's crash while another thread is inside libtorch.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { _exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_there_is_no_place_on_the_bus() {
        assert_eq!(cuda_bus_id(usize::MAX), None);
        assert_eq!(cuda_bus_id(1000), None, "no machine has so many");
        if !std::path::Path::new("/dev/nvidiactl").exists() {
            assert_eq!(cuda_bus_id(0), None);
            assert_eq!(bus_id(0), None, "by the runtime itself, which is there without the rest of CUDA");
        }
    }

    #[test]
    fn the_runtime_is_in_the_process() {
        // `libtorch_cpu` names it.
        if cfg!(target_os = "linux") {
            assert!(runtime_symbol(c"cudaDeviceGetPCIBusId").is_some());
            assert!(runtime_symbol(c"cudaGetLastError").is_some());
        }
        assert!(runtime_symbol(c"cudaDeviceGetNoSuchThing").is_none());
    }
}
