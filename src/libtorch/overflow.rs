//! A script's thread that runs out of stack ends the process with a message, where Rust's own handler would abort it.
//!
//! Rhai clones, shows, compares and drops values by recursion: a closure that captures the variable it is put into, or
//! arrays a hundred thousand deep, have no end that a stack reaches, and no check of a script's depth of calls sees it.

#![allow(unsafe_code)] // A handler of signals is.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use nix::libc::{STDERR_FILENO, siginfo_t, write};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::exit_now;

/// How far from the computed end of a stack a fault still counts as running over it.
const NEAR: usize = 1 << 20;

thread_local! {
    /// Where this thread's stack ends; 0 if it is not guarded.
    static END: Cell<usize> = const { Cell::new(0) };
}

/// What is said, and with which code the process ends then.
static LAST_WORDS: OnceLock<(&'static str, i32)> = OnceLock::new();
/// Whose signal it is otherwise.
static BEFORE: OnceLock<SigAction> = OnceLock::new();

/// From now on, if this thread, which has just begun with a stack of `bytes`, runs over its end, the process says `words` and ends
/// with `code`. Threads of Rust's standard library have the other stack that the handler runs on.
pub fn guard_stack(bytes: usize, words: &'static str, code: i32) {
    let here = 0_u8;
    END.set((&raw const here as usize).saturating_sub(bytes));
    LAST_WORDS.get_or_init(|| (words, code));
    BEFORE.get_or_init(|| {
        let flags = SaFlags::SA_ONSTACK | SaFlags::SA_SIGINFO;
        let action = SigAction::new(SigHandler::SigAction(faulted), flags, SigSet::empty());
        let usual = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler calls `write`, `_exit` and `sigaction` alone, which may be called in one; a thread's END is a plain
        // number that is there from the thread's beginning.
        unsafe { sigaction(Signal::SIGSEGV, &action) }.unwrap_or(usual)
    });
}

extern "C" fn faulted(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the system hands over a valid `siginfo_t` of a fault, which has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let end = END.get();
    if let (true, Some((words, code))) = (end > 0 && address.abs_diff(end) < NEAR, LAST_WORDS.get()) {
        // SAFETY: the text is as long as it says.
        unsafe { write(STDERR_FILENO, words.as_ptr().cast(), words.len()) };
        exit_now(*code);
    }
    // Another fault: with the handler of before, the same instruction is tried again.
    if let Some(before) = BEFORE.get() {
        // SAFETY: the action is what `sigaction` itself gave.
        let _ = unsafe { sigaction(Signal::SIGSEGV, before) };
    }
}
