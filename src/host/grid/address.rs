//! What a cell of a grid is made from, as one number: equal addresses, equal results.
//!
//! An address is the SHA-256 of everything that a cell's outcome depends on: the script and its modules (without comments), its
//! arguments, the datasets opened so far, the device, the version of this program, and the cell itself. So a cell that is
//! done is told from one that has to be run again, whatever was edited in between. The number of threads is left out: it
//! changes the last digits and the seconds, and the report says where it differs.

use std::path::Path;

use ring::digest::{Context, SHA256};
use serde_json::{Map, Value, json};

use crate::host::comments;
use crate::host::runs;
use crate::host::session::Session;
use crate::train::experiment::ADDRESS;

/// How scripts call the argument that lists a grid's seeds.
const SEEDS: &str = "seeds";

/// What all grids of a script have in common: by it a later process finds the directory of an earlier one. Arguments named in `over`,
/// and one called `seeds`, only say which cells there are, so they do not count.
pub fn of_script(session: &Session, over: &[String]) -> String {
    let mut arguments = session.arguments();
    arguments.retain(|name, _| name != SEEDS && !over.contains(name));
    let sources = session.running_sources();
    // A resumed script is read from another place than where it was first, so its own key does not count.
    let mut texts: Vec<(&str, String)> =
        sources.iter().map(|(key, text)| (key.as_str(), comments::without(text))).collect();
    if let Some((key, _)) = texts.first_mut() {
        *key = "";
    }
    texts.sort();
    let mut parts = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": runs::device_name(session.options.device),
        "smoke": session.options.smoke,
        "sources": texts,
        "arguments": sorted(&Value::Object(arguments)),
    });
    if session.options.tf32 {
        parts["tf32"] = json!(true);
    }
    digest(&parts)
}

/// Of one cell: of the script at `script`, in the grid `grid`, when these datasets are open and it reads the cells `after`.
pub fn of_cell(
    script: &str,
    grid: &str,
    setting: &Map<String, Value>,
    seed: u64,
    datasets: &[u64],
    after: &[&str],
) -> String {
    let setting = sorted(&Value::Object(setting.clone()));
    let mut parts = json!({ "script": script, "grid": grid, "setting": setting, "seed": seed, "datasets": datasets });
    if !after.is_empty() {
        parts["after"] = json!(after);
    }
    digest(&parts)
}

/// The newest parent in `runs` that goes by this address.
pub fn find(runs: &Path, address: &str) -> Option<std::path::PathBuf> {
    let folders = std::fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path());
    let of_this = |folder: &std::path::PathBuf| {
        let text = std::fs::read(folder.join("index.json")).ok()?;
        let index: Map<String, Value> = serde_json::from_slice(&text).ok()?;
        // One whose checkpoints were removed has its results still, but cannot go on with what was interrupted.
        (index.get(ADDRESS)?.as_str()? == address && !index.contains_key(runs::PRUNED)).then_some(())
    };
    folders.filter(|folder| of_this(folder).is_some()).max()
}

fn digest(value: &Value) -> String {
    let mut context = Context::new(&SHA256);
    context.update(value.to_string().as_bytes());
    context.finish().as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same with the keys of every map in order: how a map was written does not count.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> =
                map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_depends_on_every_part_and_on_no_order() {
        let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let setting = map(r#"{"lr": 0.1, "arm": "bp"}"#);
        let address = of_cell("s", "compare", &setting, 0, &[7], &[]);
        assert_eq!(address.len(), 32);
        assert_eq!(address, of_cell("s", "compare", &map(r#"{"arm": "bp", "lr": 0.1}"#), 0, &[7], &[]));
        let others = [
            of_cell("t", "compare", &setting, 0, &[7], &[]),
            of_cell("s", "other", &setting, 0, &[7], &[]),
            of_cell("s", "compare", &map(r#"{"arm": "bp", "lr": 0.2}"#), 0, &[7], &[]),
            of_cell("s", "compare", &setting, 1, &[7], &[]),
            of_cell("s", "compare", &setting, 0, &[8], &[]),
            of_cell("s", "compare", &setting, 0, &[], &[]),
            of_cell("s", "compare", &setting, 0, &[7], &["other"]),
        ];
        assert!(others.iter().all(|other| *other != address));
    }
}
