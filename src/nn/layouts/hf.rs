//! What Hugging Face's vision models have in common: how a block's tensors are called, in version 4, which the hub has and
//! version 5 still writes, and inside version 5.

use super::Place;

/// Ours, theirs in files, theirs inside version 5.
const BLOCK: [(&str, &str, &str); 5] = [
    ("norm1", "layernorm_before", "layernorm_before"),
    ("attn.proj", "attention.output.dense", "attention.o_proj"),
    ("norm2", "layernorm_after", "layernorm_after"),
    ("mlp.fc1", "intermediate.dense", "mlp.fc1"),
    ("mlp.fc2", "output.dense", "mlp.fc2"),
];

/// The three maps that are one with us, in its order: in files, inside version 5.
const QKV: [(&str, &str); 3] = [
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
];

/// Where `3.attention.output.dense.weight` of a list of blocks goes, below `prefix`.
pub(super) fn block(prefix: &str, rest: &str) -> Option<Place> {
    let (number, part) = rest.split_once('.')?;
    number.parse::<u32>().ok()?;
    let (layer, last) = part.rsplit_once('.')?;
    if let Some(which) = QKV.iter().position(|(file, inside)| layer == *file || layer == *inside) {
        return Some(Place::Third(format!("{prefix}.{number}.attn.qkv.{last}"), which));
    }
    let (ours, ..) = BLOCK.iter().find(|(_, file, inside)| layer == *file || layer == *inside)?;
    Some(Place::Whole(format!("{prefix}.{number}.{ours}.{last}")))
}

/// What `3.attn.proj.weight` is called below `prefix`.
pub(super) fn block_names(prefix: &str, rest: &str) -> Option<Vec<String>> {
    let (number, part) = rest.split_once('.')?;
    let (layer, last) = part.rsplit_once('.')?;
    let name = |theirs: &str| format!("{prefix}.{number}.{theirs}.{last}");
    if layer == "attn.qkv" {
        return Some(QKV.iter().map(|(file, _)| name(file)).collect());
    }
    let (_, file, _) = BLOCK.iter().find(|(ours, ..)| *ours == layer)?;
    Some(vec![name(file)])
}

/// The pair whose side `from` begins `name`, put over to its other side.
pub(super) fn renamed(pairs: &[(&str, &str)], name: &str, from: Side) -> Option<String> {
    pairs.iter().find_map(|(first, second)| {
        let (before, after) = if from == Side::First { (first, second) } else { (second, first) };
        name.strip_prefix(before).map(|rest| format!("{after}{rest}"))
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}
