//! Patterns that choose layers by dotted name: `*` is one part, `**` any number of parts, `!` subtracts wherever it stands;
//! a list of only `!` starts from all layers. `"encoder.**"` is every layer below `encoder`.

use super::{NnError, NnResult};

/// The names that `patterns` choose, in the order of `names`.
///
/// Errors: [`NnError::NoMatch`] for a pattern that matches nothing, with the nearest names.
pub fn select<'a>(names: &[&'a str], patterns: &[String]) -> NnResult<Vec<&'a str>> {
    for pattern in patterns {
        let bare = pattern.strip_prefix('!').unwrap_or(pattern);
        if !names.iter().any(|name| matches(bare, name)) {
            return Err(NnError::NoMatch { pattern: pattern.clone(), nearest: nearest(bare, names) });
        }
    }
    let (subtract, add): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
    let chosen = |name: &&&str| {
        let added = add.iter().any(|pattern| matches(pattern, name)) || (add.is_empty() && !subtract.is_empty());
        added && !subtract.iter().any(|pattern| matches(&pattern[1..], name))
    };
    Ok(names.iter().filter(chosen).copied().collect())
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), name.split('.').collect());
    match_parts(&pattern, &name)
}

fn match_parts(pattern: &[&str], name: &[&str]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ["**", rest @ ..] => (0..=name.len()).any(|skip| match_parts(rest, &name[skip..])),
        [part, rest @ ..] => {
            name.first().is_some_and(|first| *part == "*" || part == first) && match_parts(rest, &name[1..])
        }
    }
}

fn nearest(pattern: &str, names: &[&str]) -> String {
    if names.is_empty() {
        return "the model has none".to_owned();
    }
    let mut ranked: Vec<&str> = names.to_vec();
    ranked.sort_by_key(|name| strsim::damerau_levenshtein(pattern, name));
    ranked.truncate(3);
    let whole = |part: &str| matches!(part, "*" | "**") || !part.contains('*');
    let stars = match pattern.split('.').all(whole) {
        true => "",
        false => " (`*` stands for one whole part of a name, between two dots)",
    };
    format!("the nearest are {}{stars}", ranked.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "encoder.patch_embed.proj",
        "encoder.blocks.0.attn.qkv",
        "encoder.blocks.0.mlp.fc1",
        "encoder.blocks.11.attn.qkv",
        "decoder_embed",
        "decoder_blocks.0.attn.qkv",
    ];

    fn chosen(patterns: &[&str]) -> Vec<&'static str> {
        select(&NAMES, &patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn stars_match_parts() {
        assert_eq!(chosen(&["encoder.**"]), NAMES[..4]);
        assert_eq!(chosen(&["encoder.blocks.*.attn.*"]), [NAMES[1], NAMES[3]]);
        assert_eq!(chosen(&["**.qkv"]), [NAMES[1], NAMES[3], NAMES[5]]);
        assert_eq!(chosen(&["**"]), NAMES);
        assert_eq!(chosen(&[]), [""; 0]);
    }

    #[test]
    fn exclamation_subtracts_wherever_it_stands() {
        assert_eq!(chosen(&["!encoder.blocks.11.**", "encoder.**"]), NAMES[..3]);
        assert_eq!(chosen(&["!encoder.**"]), NAMES[4..]);
    }

    #[test]
    fn a_pattern_without_a_match_names_the_nearest() {
        let err = select(&NAMES, &["encoder.blocks.0.atn.qkv".to_owned()]).unwrap_err().to_string();
        assert!(err.contains("the nearest are encoder.blocks.0.attn.qkv") && !err.contains("stands for"), "{err}");
        let err = select(&NAMES, &["block*.qkv".to_owned()]).unwrap_err().to_string();
        assert!(err.contains("`*` stands for one whole part of a name"), "{err}");
        assert!(select(&NAMES, &["!nothing".to_owned()]).is_err());
    }
}
