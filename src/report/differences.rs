//! How the arms were set: the keys that differ between them as a table, and what all of them share.

use serde_json::{Map, Value};

use super::group::{Arm, Study};
use super::label::short;
use super::setting::flatten;
use super::table::{Cell, Column, Table};

/// Stands for values that differ within an arm.
const VARIES: &str = "varies";
/// Values longer than this are cut: a list of fifty layers is no use in a table.
const LONGEST: usize = 48;

/// A row for each key that differs and a column for every arm, or the other way round where there are more arms than keys;
/// `None` where nothing differs.
pub fn table(study: &Study) -> Option<Table> {
    let all: Vec<Map<String, Value>> = study.arms.iter().map(configuration).collect();
    let keys: Vec<&String> = keys(&all).into_iter().filter(|key| !shared(&all, key)).collect();
    let cell =
        |one: &Map<String, Value>, key: &str| one.get(key).map_or(Cell::Absent, |value| Cell::text(cut(&short(value))));
    let title = "What differs between the arms";
    let mut table = if study.arms.len() > keys.len() {
        let mut columns = vec![Column::text("arm")];
        columns.extend(keys.iter().map(|key| Column::text(key.as_str())));
        let mut table = Table::new("settings", title, columns);
        for (i, (arm, one)) in study.arms.iter().zip(&all).enumerate() {
            let start = std::iter::once(Cell::text(&arm.label));
            table.push(Some(i), start.chain(keys.iter().map(|key| cell(one, key))).collect());
        }
        table
    } else {
        let mut columns = vec![Column::text("setting")];
        columns.extend(study.arms.iter().map(|arm| Column::text(&arm.label)));
        let mut table = Table::new("settings", title, columns);
        for key in &keys {
            let start = std::iter::once(Cell::text(key.as_str()));
            table.push(None, start.chain(all.iter().map(|one| cell(one, key))).collect());
        }
        table
    };
    if keys.is_empty() {
        return None;
    }
    if all.iter().flat_map(Map::values).any(|value| value == VARIES) {
        table.note(format!("“{VARIES}”: not the same in all runs of the arm."));
    }
    Some(table)
}

/// What all arms have in common, in one line; empty where there is nothing.
pub fn in_common(study: &Study) -> String {
    let all: Vec<Map<String, Value>> = study.arms.iter().map(configuration).collect();
    let entry = |key: &&String| Some(format!("{key} {}", cut(&short(all.first()?.get(*key)?))));
    let entries: Vec<String> = keys(&all).iter().filter(|key| shared(&all, key)).filter_map(entry).collect();
    entries.join(" · ")
}

/// Keys of all, in order of their first appearance.
fn keys(all: &[Map<String, Value>]) -> Vec<&String> {
    let mut keys: Vec<&String> = Vec::new();
    for key in all.iter().flat_map(Map::keys) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn shared(all: &[Map<String, Value>], key: &str) -> bool {
    all.iter().all(|one| one.get(key).is_some() && one.get(key) == all[0].get(key))
}

/// Arguments, recipe and what the model was, as far as an arm's runs agree.
fn configuration(arm: &Arm) -> Map<String, Value> {
    let mut made: Option<Map<String, Value>> = None;
    for run in &arm.runs {
        let mut one = Map::new();
        for (key, value) in run.cell.iter().flat_map(|cell| &cell.setting) {
            one.insert(key.clone(), value.clone());
        }
        for (object, prefix) in [("arguments", "--set "), ("recipe", "recipe.")] {
            if let Some(Value::Object(map)) = run.record.get(object) {
                flatten(map, prefix, &mut one);
            }
        }
        if let Some(list) = run.record.get("decorrelated").and_then(Value::as_array) {
            one.insert("decorrelated layers".to_owned(), Value::from(list.len()));
        }
        for key in ["parameters", "images", "steps"] {
            if let Some(value) = run.record.get(key) {
                one.insert(key.to_owned(), value.clone());
            }
        }
        one.insert("device".to_owned(), run.record.get("device").cloned().unwrap_or_default());
        for (object, key, name) in [
            ("options", "threads", "threads"),
            ("options", "tf32", "TF32"),
            ("versions", "dbp_host", "dbp-host"),
            ("versions", "libtorch", "libtorch"),
        ] {
            if let Some(value) = run.inner(object, key) {
                one.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(commit) = run.text("git_commit") {
            one.insert("commit".to_owned(), commit.chars().take(10).collect::<String>().into());
        }
        made = Some(match made {
            None => one,
            // Seeds of one arm may differ in what they chose by themselves.
            Some(known) => {
                let varies = |key: &String, value: &Value| {
                    if one.get(key) == Some(value) { value.clone() } else { Value::from(VARIES) }
                };
                known.iter().map(|(key, value)| (key.clone(), varies(key, value))).collect()
            }
        });
    }
    made.unwrap_or_default()
}

fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}
