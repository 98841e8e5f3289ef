//! What comes with Rhai itself: names alone, by the type they are called on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Function, Reference, Role};

/// Types in the order in which readers look for them; what is on none of these stands by itself.
const TYPES: [&str; 10] = ["array", "string", "char", "map", "int", "float", "blob", "range", "timestamp", "function"];

/// Functions and properties of a type of Rhai's, and the last of the list: those that stand by themselves.
pub fn by_type(reference: &Reference) -> Vec<(&'static str, BTreeSet<String>)> {
    let mut found: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for function in reference.functions.iter().filter(|function| function.standard && is_shown(function)) {
        let kind = function.params.first().map_or("", |param| param.kind.as_str());
        let kind = if kind.contains("Range") { "range" } else { kind };
        let place = TYPES.iter().position(|known| *known == kind).unwrap_or(TYPES.len());
        found.entry(place).or_default().insert(function.name.clone());
    }
    found.into_iter().map(|(place, names)| (TYPES.get(place).copied().unwrap_or_default(), names)).collect()
}

/// Names that people write: no operators, none of the host's own words under another number's type.
pub fn is_shown(function: &Function) -> bool {
    matches!(function.role, Role::Function | Role::Getter) && function.name != "eval"
}
