//! Lines for the person at the terminal. A reader that went away (`dbp-host … | head`) is no reason to stop training.

use std::cell::RefCell;
use std::io::Write;

use indicatif::ProgressBar;

thread_local! {
    /// The bar that this thread's messages go above.
    static BAR: RefCell<Option<ProgressBar>> = const { RefCell::new(None) };
}

/// A message, on stderr; above the bar of a run, if this thread has one.
pub fn say(text: &str) {
    let write = || _ = writeln!(std::io::stderr().lock(), "{text}");
    let bar = BAR.with_borrow(Clone::clone);
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Sets the bar that messages are not to be mixed with.
pub fn set_bar(bar: Option<ProgressBar>) {
    BAR.set(bar);
}

/// A result, on stdout.
pub fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
