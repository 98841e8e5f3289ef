//! What a run was set to, as one flat map without seeds: the axes along which runs may differ.

use serde_json::{Map, Value, json};

use super::read::RunRecord;

/// The setting of a run's grid cell; or else its name, arguments, recipe (`recipe.lr`) and decorrelated layers. `all` are the runs
/// that it is compared with: which layers a run chose by itself is no setting.
pub fn setting_of(run: &RunRecord, all: &[&RunRecord]) -> Map<String, Value> {
    if let Some(cell) = &run.cell {
        return cell.setting.clone();
    }
    let mut setting = declared(run);
    let layers = |run: &RunRecord| run.record.get("decorrelated").cloned().unwrap_or_default();
    // With everything else the same, even the seed, other layers are another setting.
    let twin =
        |other: &&&RunRecord| other.seed == run.seed && declared(other) == setting && layers(other) != layers(run);
    let kind = match run.record.get("decorrelated").and_then(Value::as_array) {
        Some(list) if all.iter().any(|other| twin(&other)) => json!(list),
        Some(list) if list.is_empty() => json!("no layers"),
        Some(_) => json!("layers"),
        None => return setting,
    };
    setting.insert("decorrelated".to_owned(), kind);
    setting
}

fn declared(run: &RunRecord) -> Map<String, Value> {
    let mut setting = Map::new();
    setting.insert("name".to_owned(), json!(name_without_seed(run)));
    for (object, prefix) in [("arguments", ""), ("recipe", "recipe.")] {
        if let Some(Value::Object(map)) = run.record.get(object) {
            flatten(map, prefix, &mut setting);
        }
    }
    setting
}

/// Adds all entries under dotted names.
pub fn flatten(map: &Map<String, Value>, prefix: &str, into: &mut Map<String, Value>) {
    for (key, value) in map {
        let name = format!("{prefix}{key}");
        match value {
            Value::Object(inner) if !inner.is_empty() => flatten(inner, &format!("{name}."), into),
            _ if is_seed(key) => {}
            _ => _ = into.insert(name, value.clone()),
        }
    }
}

fn is_seed(key: &str) -> bool {
    ["seed", "seeds", "split_seed"].contains(&key)
}

/// `bp-0` is `bp` for seed 0.
pub fn name_without_seed(run: &RunRecord) -> String {
    let Some(seed) = run.seed else { return run.name.clone() };
    let Some(rest) = run.name.strip_suffix(&seed.to_string()) else { return run.name.clone() };
    if rest.ends_with(|c: char| c.is_ascii_digit() || c == '.') {
        return run.name.clone();
    }
    let rest = rest.trim_end_matches(SEPARATORS);
    let rest = ["seed", "s"]
        .iter()
        .find_map(|word| rest.strip_suffix(word).filter(|rest| rest.ends_with(SEPARATORS)))
        .unwrap_or(rest);
    let rest = rest.trim_end_matches(SEPARATORS);
    if rest.is_empty() { run.name.clone() } else { rest.to_owned() }
}

const SEPARATORS: [char; 5] = ['-', '_', ' ', '=', ','];
