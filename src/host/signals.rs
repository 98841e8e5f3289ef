//! SIGINT and SIGTERM: the first is a request that the script or the training loop answers, the second ends the process.
//!
//! At a prompt SIGINT ends what runs, not the prompt; while nothing runs there is nothing to ask for. SIGTERM ends both.

use std::io::stdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};

use super::errors::EXIT_INTERRUPTED;
use super::say::say;
use crate::libtorch;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// Whether nothing runs that would have to be stopped.
static IDLE: AtomicBool = AtomicBool::new(false);
static AT_PROMPT: AtomicBool = AtomicBool::new(false);
/// At a prompt: whether an input runs.
static RUNNING: AtomicBool = AtomicBool::new(false);
/// At a prompt: whether SIGTERM or SIGHUP came in.
static ENDING: AtomicBool = AtomicBool::new(false);

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
        if !IDLE.load(Ordering::Relaxed) {
            say("interrupted: stopping at the next step boundary (again to stop at once)");
        }
    };
    // Fails only if handlers are set already, which is the state wanted.
    let _ = ctrlc::set_handler(handler);
}

/// For a worker: the end of its standard input, which its parent holds, is a signal to stop.
pub fn end_with_parent() {
    // Without a thread it ends when its cell does.
    let _ = thread::Builder::new().name("parent".into()).spawn(|| {
        let _ = std::io::copy(&mut stdin(), &mut std::io::sink());
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
}

/// Says whether anything runs: a signal that ends a wait needs no words.
pub fn set_idle(idle: bool) {
    IDLE.store(idle, Ordering::Relaxed);
}

/// As [`install`], for a prompt. Call before there are other threads: they inherit that SIGTERM and SIGHUP are not theirs.
pub fn install_for_prompt() {
    AT_PROMPT.store(true, Ordering::Relaxed);
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP]);
    // Where that is not possible they are as SIGINT is.
    if ends.thread_block().is_ok() {
        let terminal = tcgetattr(stdin()).ok();
        let _ = thread::Builder::new().name("signals".into()).spawn(move || {
            while ends.wait().is_ok() {
                let again = ENDING.swap(true, Ordering::Relaxed);
                if RUNNING.load(Ordering::Relaxed) && !again {
                    INTERRUPTED.store(true, Ordering::Relaxed);
                    continue;
                }
                // The line editor has the terminal, and nothing else can be going on.
                if let Some(terminal) = &terminal {
                    let _ = tcsetattr(stdin(), SetArg::TCSANOW, terminal);
                }
                libtorch::exit_now(EXIT_INTERRUPTED);
            }
        });
    }
    install();
}

/// At a prompt: whether to end.
pub fn ending() -> bool {
    ENDING.load(Ordering::Relaxed)
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
