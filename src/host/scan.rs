//! What is open at the end of a text: brackets, strings of all kinds, comments. It reads characters, not grammar, so that it can
//! say something of texts that do not parse.

use rhai::Position;

/// What a text is inside of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    Round,
    Square,
    Curly,
    /// `#{`
    Map,
    /// `"…`, which ends with its line.
    Quote,
    /// `#"…`, with so many `#`.
    Raw(usize),
    /// A back-ticked string.
    Template,
    /// `${` inside one.
    Inserted,
    LineComment,
    /// With so many comments inside each other.
    BlockComment(usize),
}

/// What a look at a text's characters tells.
#[derive(Debug, Default)]
pub struct Scan {
    /// What is open at the end, outermost first, with the byte at which it begins.
    pub open: Vec<(Open, usize)>,
    /// Where the last thing ends that is neither space nor comment.
    pub code_end: usize,
    /// Whether a bracket does not fit, or a string ends with its line.
    pub broken: bool,
}

impl Scan {
    pub fn of(text: &str) -> Self {
        let mut scan = Self::default();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let next = scan.step(bytes, at);
            let is_comment =
                matches!(scan.open.last(), Some((Open::LineComment | Open::BlockComment(_), _))) || next.in_comment;
            if !is_comment && !bytes[at].is_ascii_whitespace() {
                scan.code_end = next.at.min(bytes.len());
            }
            at = next.at;
        }
        scan
    }

    /// Whether code could stand at the end, as opposed to a string or a comment.
    pub fn in_code(&self) -> bool {
        !matches!(
            self.open.last(),
            Some((Open::Quote | Open::Raw(_) | Open::Template | Open::LineComment | Open::BlockComment(_), _))
        )
    }

    /// The innermost string that is open at the end, and where it begins.
    pub fn string(&self) -> Option<usize> {
        self.open.last().and_then(|(open, at)| matches!(open, Open::Quote).then_some(*at))
    }

    fn step(&mut self, bytes: &[u8], at: usize) -> Next {
        let starts = |what: &[u8]| bytes[at..].starts_with(what);
        let byte = bytes[at];
        match self.open.last_mut() {
            Some((Open::LineComment, _)) => {
                if byte == b'\n' {
                    self.open.pop();
                }
                return Next { at: at + 1, in_comment: true };
            }
            Some((Open::BlockComment(depth), _)) => {
                if starts(b"/*") {
                    *depth += 1;
                    return Next::code(at + 2);
                }
                if starts(b"*/") {
                    *depth -= 1;
                    if *depth == 0 {
                        self.open.pop();
                    }
                    return Next { at: at + 2, in_comment: true };
                }
                return Next::code(at + 1);
            }
            Some((Open::Quote, _)) => {
                match byte {
                    b'\\' => return Next::code(at + 2), // A line break behind it is no end either.
                    b'\n' => {
                        self.broken = true;
                        self.open.pop();
                    }
                    b'"' => {
                        self.open.pop();
                    }
                    _ => {}
                }
                return Next::code(at + 1);
            }
            Some((Open::Raw(hashes), _)) => {
                let end = *hashes;
                if byte == b'"' && bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count() >= end {
                    self.open.pop();
                    return Next::code(at + 1 + end);
                }
                return Next::code(at + 1);
            }
            Some((Open::Template, _)) => {
                if starts(b"``") {
                    return Next::code(at + 2);
                }
                if starts(b"${") {
                    self.open.push((Open::Inserted, at));
                    return Next::code(at + 2);
                }
                if byte == b'`' {
                    self.open.pop();
                }
                return Next::code(at + 1);
            }
            _ => {}
        }
        if starts(b"//") || starts(b"/*") {
            let opened = if starts(b"//") { Open::LineComment } else { Open::BlockComment(1) };
            self.open.push((opened, at));
            return Next::code(at + 2);
        }
        match byte {
            b'(' => self.open.push((Open::Round, at)),
            b'[' => self.open.push((Open::Square, at)),
            b'{' => self.open.push((Open::Curly, at)),
            b'"' => self.open.push((Open::Quote, at)),
            b'`' => self.open.push((Open::Template, at)),
            b'#' => {
                let hashes = bytes[at..].iter().take_while(|byte| **byte == b'#').count();
                match bytes.get(at + hashes) {
                    Some(b'"') => self.open.push((Open::Raw(hashes), at)),
                    Some(b'{') if hashes == 1 => self.open.push((Open::Map, at)),
                    _ => return Next::code(at + hashes),
                }
                return Next::code(at + hashes + 1);
            }
            b'\'' => return Next::code(at + character(&bytes[at..])),
            b')' => self.close(&[Open::Round]),
            b']' => self.close(&[Open::Square]),
            b'}' => self.close(&[Open::Curly, Open::Map, Open::Inserted]),
            _ => {}
        }
        Next::code(at + 1)
    }

    fn close(&mut self, fitting: &[Open]) {
        match self.open.last() {
            Some((open, _)) if fitting.contains(open) => {
                self.open.pop();
            }
            _ => self.broken = true,
        }
    }
}

/// The byte of `text` at a position; `None` if it has no such line.
pub fn offset(text: &str, position: Position) -> Option<usize> {
    let line = text.split_inclusive('\n').take(position.line()? - 1).map(str::len).sum::<usize>();
    let rest = text.get(line..)?;
    let columns = position.position().unwrap_or(1).max(1) - 1;
    Some(line + rest.char_indices().nth(columns).map_or(rest.len(), |(at, _)| at))
}

/// The position of a byte of `text`.
pub fn position(text: &str, at: usize) -> Option<Position> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next().unwrap_or_default();
    let (line, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
    Some(Position::new(u16::try_from(line).ok()?, u16::try_from(column).ok()?))
}

struct Next {
    at: usize,
    /// Whether a comment ended with it.
    in_comment: bool,
}

impl Next {
    fn code(at: usize) -> Self {
        Self { at, in_comment: false }
    }
}

/// Bytes of the character literal that `text` begins with; 1 if it does not end on its line.
fn character(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\'' => return at + 1,
            b'\n' => break,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_positions_are_the_same_places() {
        let text = "é = 1;\n\n  ü";
        for (at, line, column) in [(0, 1, 1), (2, 1, 2), (7, 1, 7), (8, 2, 1), (9, 3, 1), (11, 3, 3), (13, 3, 4)] {
            assert_eq!(offset(text, Position::new(line, column)), Some(at));
            assert_eq!(position(text, at), Some(Position::new(line, column)));
        }
        assert_eq!(position(text, 1), None);
    }

    #[test]
    fn the_end_of_code_lies_before_a_last_comment() {
        let end = |text: &str| Scan::of(text).code_end;
        assert_eq!(end("a + b  // c"), 5);
        assert_eq!(end("a /* b */ "), 1);
        assert_eq!(end("a /* b */ c"), 11);
        assert_eq!(end("\"// a\""), 6);
        assert_eq!(end("// a\n"), 0);
        assert_eq!(end("f(\n1) // x\n// y"), 5);
    }
}
