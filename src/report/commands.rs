//! Command lines that run a study's scripts again: one per distinct script, arguments and options.

use serde_json::Value;

use super::group::Study;
use super::read::RunRecord;

/// In order of the arms and their runs, a `cd` in front where the folder is known.
pub fn lines(study: &Study) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for run in study.arms.iter().flat_map(|arm| arm.runs.iter()) {
        let line = line(run);
        if !line.is_empty() && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// As it was given: arguments as `--set`, a seed only where the command line had one.
fn line(run: &RunRecord) -> String {
    let Some(script) = run.text("script") else { return String::new() };
    let option = |key: &str| run.inner("options", key).filter(|value| !value.is_null());
    let folder = option("folder").and_then(Value::as_str);
    let relative = |path: &str| {
        let inside = folder.and_then(|folder| path.strip_prefix(folder)?.strip_prefix('/'));
        inside.unwrap_or(path).to_owned()
    };
    let mut words = vec!["dbp-host".to_owned(), quoted(&relative(script))];
    if let Some(Value::Object(arguments)) = run.record.get("arguments") {
        for (name, value) in arguments {
            // Text is taken as it stands, everything else as JSON.
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            words.extend(["--set".to_owned(), quoted(&format!("{name}={value}"))]);
        }
    }
    for (key, flag) in [
        ("seed", "--seed"),
        ("threads", "--threads"),
        ("country", "--country"),
        ("region", "--region"),
        ("pue", "--pue"),
        ("carbon_intensity", "--carbon-intensity"),
    ] {
        if let Some(value) = option(key) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            words.extend([flag.to_owned(), quoted(&value)]);
        }
    }
    if let Some(device) = run.text("device") {
        words.extend(["--device".to_owned(), quoted(device)]);
    }
    if option("tf32").is_some() {
        words.push("--tf32".to_owned());
    }
    for (key, flag) in [("allow_read", "--allow-read"), ("allow_write", "--allow-write")] {
        for path in option(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            words.extend([flag.to_owned(), quoted(path)]);
        }
    }
    if run.is_smoke() {
        words.push("--smoke".to_owned());
    }
    let command = words.join(" ");
    folder.map_or(command.clone(), |folder| format!("cd {} && {command}", quoted(folder)))
}

/// A word for a POSIX shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("lr=0.006"), "lr=0.006");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted(r#"modules=["it's"]"#), r#"'modules=["it'\''s"]'"#);
        assert_eq!([quoted(""), quoted("~/x"), quoted("$(x)")], ["''", "'~/x'", "'$(x)'"]);
    }
}
