//! "Did you mean": the nearest of the names that exist.

use strsim::damerau_levenshtein;

/// The candidate nearest to `name`, if any is near enough to be a slip: a third of its letters, swaps counting as one.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| (damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, candidate)| (*distance, unshared(&lower, &candidate.to_lowercase()), candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// Letters that only one of two words has: a letter left out differs less than one in place of another.
fn unshared(a: &str, b: &str) -> usize {
    let mut rest: Vec<char> = b.chars().collect();
    let missing = a.chars().filter(|c| match rest.iter().position(|other| other == c) {
        Some(at) => {
            rest.swap_remove(at);
            false
        }
        None => true,
    });
    missing.count() + rest.len()
}

/// "did you mean `x`?" for the nearest candidate.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn swapped_letters_are_one_slip() {
        assert_eq!(nearest("adma", ["adamw", "adam", "sgd"]), Some("adam"));
        assert_eq!(nearest("Zeros", ["zeros", "zeros_like"]), Some("zeros"));
        assert_eq!(nearest("fixd", ["find", "fixed"]), Some("fixed"));
        assert_eq!(nearest("x", ["y_long", "tensor"]), None);
        assert_eq!(nearest("frobnicate", ["matmul", "transpose"]), None);
    }
}
