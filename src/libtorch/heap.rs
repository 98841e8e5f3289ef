//! Freed memory stays with the process: a step frees what the next one asks for again.
//!
//! Left to itself, glibc gives blocks of more than some MiB back to the system at once, and takes them anew, page by page, each
//! filled with zeros, in the next operation: a tenth of a step's time at `nano`.
#![allow(unsafe_code)]

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::ffi::c_int;

    // malloc.h
    pub const M_TRIM_THRESHOLD: c_int = -1;
    pub const M_TOP_PAD: c_int = -2;
    pub const M_MMAP_THRESHOLD: c_int = -3;
    pub const M_ARENA_MAX: c_int = -8;

    unsafe extern "C" {
        pub fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
}

/// Tells the system's allocator to keep what is freed. For the start of a program that trains.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use glibc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD, mallopt};
        const NEVER: i32 = -1;
        // A larger block, of which a step has few, is mapped by itself: in the heap it would leave a hole that nothing else fits.
        const LARGE: i32 = 1 << 30;
        const GROWTH: i32 = 64 << 20;
        // SAFETY: mallopt takes two numbers and locks what it changes; a value that it refuses changes nothing.
        unsafe {
            mallopt(M_TRIM_THRESHOLD, NEVER);
            mallopt(M_MMAP_THRESHOLD, LARGE);
            mallopt(M_TOP_PAD, GROWTH);
            mallopt(M_ARENA_MAX, 1); // Scripts have a thread of their own, and other arenas are too small for a batch.
        }
    }
}
