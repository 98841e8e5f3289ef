//! Lines for the person at the terminal. A reader that went away (`dbp-host … | head`) is no reason to stop training.

use std::io::Write;

/// A message, on stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A result, on stdout.
pub fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
