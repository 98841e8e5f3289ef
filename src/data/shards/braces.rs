//! WebDataset's brace notation for several paths in one text: `train-{000000..000009}.tar`, `{train,val}-0.tar`.

use crate::data::error::DataError;

/// More paths than this are taken for a mistake.
const MAX_PATHS: usize = 100_000;

/// The paths that a text stands for, in order; a text without braces stands for itself.
///
/// A range counts up or down; where a bound begins with 0, numbers are as long as the longer bound, as in a shell.
///
/// Errors: braces that do not close, hold neither a range nor a list, or stand for more than 100,000 paths.
pub fn expand(text: &str) -> Result<Vec<String>, DataError> {
    let mut paths = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let wrong = || DataError::range("braces", "a range {000..009} or a list {a,b}", format!("\"{text}\""));
        let close = open + rest[open..].find('}').ok_or_else(wrong)?;
        let choices = choices(&rest[open + 1..close]).ok_or_else(wrong)?;
        if paths.len().saturating_mul(choices.len()) > MAX_PATHS {
            return Err(DataError::range("braces", format!("at most {MAX_PATHS} paths"), format!("\"{text}\"")));
        }
        let before = &rest[..open];
        let with = |path: &String| choices.iter().map(|choice| format!("{path}{before}{choice}")).collect::<Vec<_>>();
        paths = paths.iter().flat_map(with).collect();
        rest = &rest[close + 1..];
    }
    paths.iter_mut().for_each(|path| path.push_str(rest));
    Ok(paths)
}

fn choices(inside: &str) -> Option<Vec<String>> {
    let Some((first, last)) = inside.split_once("..") else {
        return inside.contains(',').then(|| inside.split(',').map(str::to_owned).collect());
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return None;
    }
    let padded = [first, last].iter().any(|bound| bound.len() > 1 && bound.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    // One more than is allowed, so that it is refused without being made.
    let steps = first.abs_diff(last).min(MAX_PATHS as u64);
    let number = |i: u64| if first <= last { first + i } else { first - i };
    Some((0..=steps).map(|i| format!("{:0width$}", number(i))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists_multiply() {
        assert_eq!(expand("a/x.tar").unwrap(), ["a/x.tar"]);
        assert_eq!(expand("x-{008..010}.tar").unwrap(), ["x-008.tar", "x-009.tar", "x-010.tar"]);
        assert_eq!(expand("{2..0}").unwrap(), ["2", "1", "0"]);
        assert_eq!(expand("{a,b}/{0..1}.tar").unwrap(), ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for wrong in ["{", "x{1}", "{..3}", "{a..c}", "{1..}", "x-{0..99999999999999999999}", "{}", "{-1..3}"] {
            let error = expand(wrong).unwrap_err().to_string();
            assert!(error.starts_with("braces: expected a range"), "{error}");
        }
        for endless in ["{0..100000}", "{0..18446744073709551615}", "{0..999}{0..999}"] {
            assert!(expand(endless).unwrap_err().to_string().contains("at most 100000 paths"), "{endless}");
        }
    }
}
