//! A script's stack that is used up ends the process with a message, not with an abort.
//!
//! Calls and expressions are bounded, but a value may be nested as deeply as a script has the patience to nest it, and then
//! cloning, printing and dropping it recurse that deeply. The system tells by a signal, on a stack that Rust keeps for that;
//! all that may be done there is to write a line and to end.
#![allow(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::os::raw::{c_int, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What is said, and the code that the process ends with.
pub struct StackNote {
    pub line: &'static &'static str,
    pub code: i32,
}

/// Guard pages below a stack, and how far a frame may reach beyond them.
const BELOW: usize = 1 << 20;

static TOP: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static LINE: AtomicPtr<&'static str> = AtomicPtr::new(std::ptr::null_mut());
static CODE: AtomicI32 = AtomicI32::new(1);

/// Watches the stack of the calling thread, which has `bytes` of it and has used next to none. Of several, the last counts.
pub fn watch_stack(bytes: usize, note: StackNote) {
    let here = 0u8;
    TOP.store(std::ptr::from_ref(&here) as usize, Ordering::Relaxed);
    BYTES.store(bytes, Ordering::Relaxed);
    LINE.store(std::ptr::from_ref(note.line).cast_mut(), Ordering::Relaxed);
    CODE.store(note.code, Ordering::Relaxed);
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty());
        for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
            // SAFETY: the handler does only what is allowed in one: it reads atomics, writes, and ends the process.
            // Where it cannot be installed, Rust's own stays, which aborts.
            let _ = unsafe { sigaction(signal, &action) };
        }
    });
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands over a valid `siginfo_t` with SA_SIGINFO.
    let at = unsafe { (*info).si_addr() } as usize;
    let top = TOP.load(Ordering::Relaxed);
    let bottom = top.saturating_sub(BYTES.load(Ordering::Relaxed) + BELOW);
    let line = LINE.load(Ordering::Relaxed);
    if (bottom..top).contains(&at) && !line.is_null() {
        // SAFETY: `line` is a static, and stderr is open or the write fails.
        let (line, stderr) = unsafe { (*line, BorrowedFd::borrow_raw(2)) };
        let _ = nix::unistd::write(stderr, line.as_bytes());
        // SAFETY: ends the process without running anything of it.
        unsafe { libc::_exit(CODE.load(Ordering::Relaxed)) };
    }
    // Some other fault: it happens again, and ends the process as it would have.
    // SAFETY: `signal` is one that this was installed for.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}
