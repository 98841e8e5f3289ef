//! Memory that the system refuses ends the process with a message and exit code 4, where Rust alone would abort.
//!
//! Scripts can ask for any amount by one operation (a text appended to itself), and Rust's collections have no other way
//! to fail.

#![allow(unsafe_code)] // An allocator is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write;

struct Guarded;

#[global_allocator]
static ALLOCATOR: Guarded = Guarded;

// SAFETY: every call is handed to the system's allocator as it is; a null answer never comes back to the caller.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this function's contract, which is the same.
        given(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps this function's contract, which is the same.
        given(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps this function's contract, which is the same.
        given(unsafe { System.realloc(pointer, layout, size) }, size)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps this function's contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn given(pointer: *mut u8, size: usize) -> *mut u8 {
    if pointer.is_null() {
        refused(size);
    }
    pointer
}

/// Says so without allocating: standard error is not buffered, and numbers are formatted in place.
#[cold]
fn refused(size: usize) -> ! {
    let _ = writeln!(std::io::stderr(), "error: out of memory: {} MiB were asked for at once", size >> 20);
    super::exit_now(4)
}
