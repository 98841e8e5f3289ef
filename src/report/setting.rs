//! What a run was set to, as one flat map without seeds: the axes along which runs may differ.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::read::RunRecord;

/// The setting of each run: that of its grid cell; or else its name, arguments, recipe (`recipe.lr`) and decorrelated layers.
pub fn settings_of(runs: &[&RunRecord]) -> Vec<Map<String, Value>> {
    let all: Vec<Map<String, Value>> = runs.iter().map(|run| declared(run)).collect();
    let apart = between_parents(runs, &all);
    let mut settings = Vec::new();
    for (run, own) in runs.iter().zip(&all) {
        let setting = match &run.cell {
            Some(cell) => {
                let mut setting = cell.setting.clone();
                for key in apart.iter().filter(|key| !cell.setting.contains_key(*key)) {
                    setting.extend(own.get(key).map(|value| (key.clone(), value.clone())));
                }
                setting
            }
            None => {
                let mut setting = own.clone();
                let alike: Vec<&RunRecord> =
                    runs.iter().zip(&all).filter(|(_, declared)| *declared == own).map(|(other, _)| *other).collect();
                setting.extend(decorrelated(run, &alike));
                setting.extend(version(run, &alike));
                setting
            }
        };
        settings.push(setting);
    }
    settings
}

/// Arguments by which the parents of a grid's runs differ. Those that vary within a parent only say which cells there are.
fn between_parents(runs: &[&RunRecord], all: &[Map<String, Value>]) -> Vec<String> {
    let cells: Vec<(Option<&Path>, &Map<String, Value>)> = runs
        .iter()
        .zip(all)
        .filter(|(run, _)| run.cell.is_some())
        .map(|(run, declared)| (run.dir.parent(), declared))
        .collect();
    let Some((_, first)) = cells.first() else { return Vec::new() };
    let settled = |key: &&String| {
        cells.iter().all(|(dir, one)| cells.iter().all(|(other, two)| dir != other || one.get(*key) == two.get(*key)))
    };
    let differs = |key: &&String| cells.iter().any(|(_, one)| one.get(*key) != first.get(*key));
    // What a recipe makes of the setting is no axis of its own.
    let own = |key: &&String| *key != "name" && !key.starts_with("recipe.");
    first.keys().filter(|key| own(key) && differs(key)).filter(settled).cloned().collect()
}

/// Whether layers are decorrelated. Which ones a run chose by itself is no setting; but with everything else the same, even the
/// seed, other layers are another one. `alike` are the runs whose arguments and recipe are the same.
fn decorrelated(run: &RunRecord, alike: &[&RunRecord]) -> Option<(String, Value)> {
    let layers = run.record.get("decorrelated")?.as_array()?;
    let mut twins = alike.iter().filter(|other| other.seed == run.seed);
    let kind = match layers.len() {
        _ if twins.any(|twin| twin.record.get("decorrelated") != run.record.get("decorrelated")) => json!(layers),
        0 => json!("plain"),
        _ => json!("decorrelated"),
    };
    Some(("decorrelated".to_owned(), kind))
}

/// Which version of the script ran, where the same seed ran with several and nothing else differs: what was edited shows
/// nowhere else.
fn version(run: &RunRecord, alike: &[&RunRecord]) -> Option<(String, Value)> {
    let edited = |one: &&&RunRecord| alike.iter().any(|other| other.seed == one.seed && other.script != one.script);
    alike.iter().find(edited)?;
    let mut versions: Vec<&Option<Vec<u8>>> = Vec::new();
    for one in alike {
        if !versions.contains(&&one.script) {
            versions.push(&one.script);
        }
    }
    let place = versions.iter().position(|version| **version == run.script)?;
    Some(("script".to_owned(), json!(format!("script {}", place + 1))))
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
