//! Laying out text for a terminal: widths, padding, wrapping.

use console::measure_text_width;

/// Lines of prose are no wider than this, however wide the terminal.
pub const PROSE: usize = 100;

/// Columns of a terminal that the text takes.
pub fn width(text: &str) -> usize {
    measure_text_width(text)
}

pub fn left(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(self::width(text))))
}

pub fn right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(self::width(text))))
}

/// Lines of whole words, none wider than `width` unless a word is.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("it begins with one line and only grows");
        if line.is_empty() {
            line.push_str(word);
        } else if self::width(line) + 1 + self::width(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}
