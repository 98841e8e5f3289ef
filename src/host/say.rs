//! Lines for the person at the terminal. A reader that went away (`dbp-host … | head`) is no reason to stop training.

use std::cell::RefCell;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;

thread_local! {
    /// The bar that this thread's messages go above.
    static BAR: RefCell<Option<ProgressBar>> = const { RefCell::new(None) };
}

/// A message, on stderr; above the bar of a run, if this thread has one.
pub fn say(text: &str) {
    above_the_bar(|| _ = writeln!(std::io::stderr().lock(), "{text}"));
}

/// A result, on stdout; above the bar as well.
pub fn print_line(text: &str) {
    above_the_bar(|| _ = writeln!(std::io::stdout().lock(), "{text}"));
}

/// Does `work`; says `text` if that takes more than a second.
pub fn while_slow<T>(text: &str, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, waiting) = channel::<()>();
        let bar = BAR.with_borrow(Clone::clone);
        // Without a thread nothing is said.
        let _ = thread::Builder::new().spawn_scoped(scope, move || {
            if waiting.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                set_bar(bar);
                say(text);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Sets the bar that lines are not to be mixed with.
pub fn set_bar(bar: Option<ProgressBar>) {
    BAR.set(bar);
}

/// `write` must not come here again: a bar that is suspended cannot be suspended.
fn above_the_bar(write: impl FnOnce()) {
    match BAR.with_borrow(Clone::clone) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
