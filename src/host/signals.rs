//! SIGINT and SIGTERM: the first is a request that the script or the training loop answers, the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

use super::errors::EXIT_INTERRUPTED;
use super::say::say;
use crate::libtorch;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal came in.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Takes over the signals. Call once; a second call changes nothing.
pub fn install() {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            libtorch::exit_now(EXIT_INTERRUPTED);
        }
        say("interrupted: stopping at the next step boundary (again to stop at once)");
    };
    // Fails only if handlers are set already, which is the state wanted.
    let _ = ctrlc::set_handler(handler);
}
