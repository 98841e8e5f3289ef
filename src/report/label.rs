//! Short names of arms: only what differs, and as little of it as tells them apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::number::plain;

/// A value in a few characters.
pub fn short(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), plain),
        Value::Bool(value) => value.to_string(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(short).collect::<Vec<_>>().join(" "),
        Value::Object(_) => value.to_string(),
    }
}

/// Axes whose values differ between the settings, in their order there; a value that is missing is one too.
pub fn differing(settings: &[Map<String, Value>]) -> Vec<String> {
    let mut keys: Vec<&String> = Vec::new();
    for key in settings.iter().flat_map(Map::keys) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let differs = |key: &&String| settings.iter().any(|setting| setting.get(*key) != settings[0].get(*key));
    keys.into_iter().filter(differs).cloned().collect()
}

/// The fewest of the axes that tell all settings apart that the others tell apart, found one after the other: the one that
/// parts most comes first, of equals the first. Axes that every setting has come before those that some lack.
pub fn telling(settings: &[Map<String, Value>], axes: &[String]) -> Vec<String> {
    let classes = |chosen: &[String]| {
        let keys = settings.iter().map(|setting| key_of(setting, chosen));
        keys.collect::<BTreeSet<_>>().len()
    };
    let (whole, partial): (Vec<&String>, Vec<&String>) =
        axes.iter().partition(|axis| settings.iter().all(|setting| setting.contains_key(*axis)));
    let mut chosen: Vec<String> = Vec::new();
    for some in [whole, partial] {
        loop {
            let before = classes(&chosen);
            let mut best: Option<(usize, &String)> = None;
            for axis in &some {
                let count = classes(&[&chosen[..], std::slice::from_ref(*axis)].concat());
                if count > best.map_or(before, |(most, _)| most) {
                    best = Some((count, axis));
                }
            }
            let Some((_, axis)) = best else { break };
            chosen.push(axis.clone());
        }
    }
    // In the settings' own order.
    axes.iter().filter(|axis| chosen.contains(axis)).cloned().collect()
}

/// What two settings share if they are the same on these axes.
pub fn key_of(setting: &Map<String, Value>, axes: &[String]) -> String {
    let values: BTreeMap<&str, Option<&Value>> = axes.iter().map(|axis| (axis.as_str(), setting.get(axis))).collect();
    values
        .into_iter()
        .map(|(axis, value)| format!("{axis}={};", value.map(Value::to_string).unwrap_or_default()))
        .collect()
}

/// A label for each setting, all different.
pub fn labels(settings: &[Map<String, Value>], axes: &[String]) -> Vec<String> {
    if let [only] = settings
        && axes.is_empty()
    {
        return vec![only.get("name").and_then(Value::as_str).unwrap_or("all runs").to_owned()];
    }
    let brief: Vec<String> = settings.iter().map(|setting| label(setting, axes, false)).collect();
    let unique = brief.iter().collect::<BTreeSet<_>>().len() == brief.len();
    let labels: Vec<String> =
        if unique { brief } else { settings.iter().map(|setting| label(setting, axes, true)).collect() };
    let mut seen: HashMap<String, usize> = HashMap::new();
    labels
        .into_iter()
        .map(|label| {
            let count = seen.entry(label.clone()).or_default();
            *count += 1;
            if *count > 1 { format!("{label} ({count})") } else { label }
        })
        .collect()
}

/// Text stands for itself, numbers behind their axis.
fn label(setting: &Map<String, Value>, axes: &[String], full: bool) -> String {
    let parts: Vec<String> = axes
        .iter()
        .filter_map(|axis| {
            let value = setting.get(axis)?;
            let alone = !full && (value.is_string() || value.is_array()) && *value != "";
            Some(if alone { short(value) } else { format!("{} {}", brief_axis(axis, axes), short(value)) })
        })
        .collect();
    let text = if parts.is_empty() { "default".to_owned() } else { parts.join(", ") };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An axis without the map that it is in, where no other ends like it.
pub fn brief_axis<'a>(axis: &'a str, axes: &[String]) -> &'a str {
    let last = |axis: &'a str| axis.rsplit('.').next().unwrap_or(axis);
    let shared = axes.iter().filter(|other| other.rsplit('.').next() == Some(last(axis))).count() > 1;
    if shared { axis } else { last(axis) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(values: Value) -> Vec<Map<String, Value>> {
        values.as_array().unwrap().iter().map(|value| value.as_object().unwrap().clone()).collect()
    }

    fn check(values: Value, want: &[&str]) {
        let settings = settings(values);
        let axes = telling(&settings, &differing(&settings));
        assert_eq!(labels(&settings, &axes), want);
    }

    #[test]
    fn labels_say_what_differs_and_no_more() {
        check(json!([{"arm": "bp", "lr": 0.1}, {"arm": "dbp", "lr": 0.1}]), &["bp", "dbp"]);
        // One of two axes that part alike is enough.
        check(json!([{"lr": 0.1, "recipe.lr": 0.1}, {"lr": 0.2, "recipe.lr": 0.2}]), &["lr 0.1", "lr 0.2"]);
        check(
            json!([{"arm": "bp"}, {"arm": "dbp", "eta": 1e-5}, {"arm": "dbp", "eta": 0.01}]),
            &["bp", "dbp, eta 1e-5", "dbp, eta 0.01"],
        );
        check(json!([{"modules": []}, {"modules": ["a", "b"]}]), &["none", "a b"]);
        check(json!([{"x": true}, {"x": false}, {}]), &["x true", "x false", "default"]);
        check(
            json!([{"a": "1", "b": "2"}, {"a": "2", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1", "b": "1"}]),
            &["1, 2", "2, 2", "2, 1", "1, 1"],
        );
        check(json!([{"x": "a"}]), &["all runs"]);
        check(json!([{"name": "probe", "x": "a"}]), &["probe"]);
    }
}
