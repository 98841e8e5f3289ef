//! SIGINT and SIGTERM: the first is a request that the script or the training loop answers, the second ends the process.
//!
//! At a prompt a request ends what runs, not the prompt; while nothing runs there is nothing to ask for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::errors::EXIT_INTERRUPTED;
use super::say::say;
use crate::libtorch;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static AT_PROMPT: AtomicBool = AtomicBool::new(false);
/// At a prompt: whether an input runs.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// At a prompt, how long an input may take to stop before that is explained.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether a signal came in.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Takes over the signals. Call once; a second call changes nothing.
pub fn install() {
    let handler = || {
        if AT_PROMPT.load(Ordering::Relaxed) {
            return at_prompt();
        }
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            libtorch::exit_now(EXIT_INTERRUPTED);
        }
        say("interrupted: stopping at the next step boundary (again to stop at once)");
    };
    // Fails only if handlers are set already, which is the state wanted.
    let _ = ctrlc::set_handler(handler);
}

/// As [`install`], for a prompt.
pub fn install_for_prompt() {
    AT_PROMPT.store(true, Ordering::Relaxed);
    install();
}

/// At a prompt: an input begins, and only signals from now on are meant for it.
pub fn begin_input() {
    INTERRUPTED.store(false, Ordering::Relaxed);
    RUNNING.store(true, Ordering::Relaxed);
}

/// At a prompt: the input has ended, and with it what was asked of it.
pub fn end_input() {
    RUNNING.store(false, Ordering::Relaxed);
    INTERRUPTED.store(false, Ordering::Relaxed);
}

fn at_prompt() {
    if !RUNNING.load(Ordering::Relaxed) {
        return;
    }
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        libtorch::exit_now(EXIT_INTERRUPTED);
    }
    // What stops soon needs no words. This thread is the signals' own, and a second one waits meanwhile.
    thread::sleep(PATIENCE);
    if RUNNING.load(Ordering::Relaxed) && interrupted() {
        say("interrupted: stopping when this operation or training step ends (again to end dbp-host at once)");
    }
}
