//! Runs the cases in `tests/scripts/*.rhai` and compares errors with their markers: line, column, message and hint.
//!
//! A file holds cases; each is a script of its own in an empty folder:
//!
//! ```text
//! //# name-of-the-case
//! let x = tensor::ones([2]) + tensor::ones([3]);
//! //                        ^ error: tensor shapes do not match: …
//! // hint: exact text of the hint (may be left out)
//! ```
//!
//! `//@1 error: …` marks a column that a caret cannot reach. `//> fails: …` is an error without a place. `//> prints …` is
//! a line of output, in order. `//> set a=1`, `//> max-operations N` and `//> max-tensor-bytes N` are options.
//! `//> file lib/a.rhai` begins another file of the case. A case without markers must run to its end.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::path::Path;
use std::sync::{Arc, Mutex};

use dbp_host::host::{self, Options, Outcome, Session};

/// The script's name in the case's folder.
const MAIN: &str = "case.rhai";

/// File, line and column.
type Place = (String, usize, usize);

#[derive(Default)]
struct Case {
    name: String,
    files: Vec<(String, String)>,
    /// Place and message of the error; some have no place.
    error: Option<(Option<Place>, String)>,
    hint: Option<String>,
    prints: Vec<String>,
    options: Vec<(String, String)>,
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("//# ") {
            let files = vec![(MAIN.to_owned(), String::new())];
            cases.push(Case { name: name.trim().to_owned(), files, ..Case::default() });
            continue;
        }
        let Some(case) = cases.last_mut() else { continue };
        if let Some(file) = line.strip_prefix("//> file ") {
            case.files.push((file.trim().to_owned(), String::new()));
            continue;
        }
        let (file, source) = case.files.last_mut().expect("a case has its script");
        if let Some((place, message)) = marker(line) {
            // Markers are lines too, but belong to the line above them.
            case.error = Some((place.map(|column| (file.clone(), last_code_line(source), column)), message));
        } else if let Some(hint) = line.strip_prefix("// hint: ") {
            case.hint = Some(hint.to_owned());
        } else if let Some(directive) = line.strip_prefix("//> ") {
            let (key, value) = directive.split_once(' ').unwrap_or((directive, ""));
            match key {
                "prints" => case.prints.push(value.to_owned()),
                "fails:" => case.error = Some((None, value.to_owned())),
                _ => case.options.push((key.to_owned(), value.to_owned())),
            }
        }
        source.push_str(line);
        source.push('\n');
    }
    cases
}

/// Number of the last line that is not a comment.
fn last_code_line(source: &str) -> usize {
    source.lines().enumerate().filter(|(_, line)| !line.starts_with("//")).map(|(at, _)| at + 1).last().unwrap_or(0)
}

/// Column and message of `//   ^ error: …` or `//@2 error: …`.
fn marker(line: &str) -> Option<(Option<usize>, String)> {
    let (before, message) = line.split_once(" error: ")?;
    let marks = before.strip_prefix("//")?;
    if let Some(column) = marks.strip_prefix('@') {
        return Some((Some(column.parse().expect("a column")), message.to_owned()));
    }
    let caret = before.find('^')?;
    marks.trim().chars().all(|c| c == '^').then(|| (Some(caret + 1), message.to_owned()))
}

/// What is wrong with a case, if anything.
fn check(case: &Case) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|err| err.to_string())?;
    for (name, text) in &case.files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in the folder")).map_err(|err| err.to_string())?;
        std::fs::write(path, text).map_err(|err| err.to_string())?;
    }
    let mut options = Options::new(folder.path().join(MAIN));
    options.runs = folder.path().join("runs");
    for (key, value) in &case.options {
        let number = || value.parse().map_err(|_| format!("{key}: not a number: {value}"));
        match key.as_str() {
            "set" => {
                let (name, value) = value.split_once('=').ok_or("set: expected name=value")?;
                options.set.push((name.to_owned(), value.to_owned()));
            }
            "max-operations" => options.max_operations = number()?,
            "max-tensor-bytes" => options.max_tensor_bytes = number()?,
            "seed" => options.seed = Some(number()?),
            _ => return Err(format!("unknown directive: {key}")),
        }
    }
    let printed = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::clone(&printed);
    let outcome = host::on_script_thread(move || match Session::new(options) {
        Ok(session) => {
            session
                .set_printer(move |text| collected.lock().expect("no panic").extend(text.lines().map(str::to_owned)));
            host::execute(&session)
        }
        Err(err) => err.into(),
    });
    let printed = printed.lock().expect("no panic").clone();
    if !case.prints.is_empty() && printed != case.prints {
        return Err(format!("printed {printed:#?}, expected {:#?}", case.prints));
    }
    match (&case.error, outcome) {
        (None, Outcome::Done) => Ok(()),
        (None, Outcome::Failed(err)) => Err(format!("failed:\n{err}")),
        (_, Outcome::Interrupted | Outcome::Restart) => Err("stopped".into()),
        (Some((_, message)), Outcome::Done) => Err(format!("expected an error: {message}")),
        (Some((place, message)), Outcome::Failed(err)) => {
            let folder_name = folder.path().display().to_string();
            let got_message = err.message.replace(&folder_name, "FOLDER");
            let got = err.place.as_ref().map(|place| (place.key.clone(), place.line, place.column));
            if (&got, &got_message) != (place, message) {
                return Err(format!("expected {place:?} {message}\ngot {got:?}\n{err}"));
            }
            match &case.hint {
                Some(hint) if err.hint.as_ref() != Some(hint) => Err(format!("expected hint: {hint}\ngot:\n{err}")),
                _ => Ok(()),
            }
        }
    }
}

#[test]
fn scripts_do_what_they_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "rhai")) {
        let cases = parse(&std::fs::read_to_string(file).unwrap());
        assert!(!cases.is_empty(), "{}: no cases", file.display());
        for case in cases {
            count += 1;
            if let Err(problem) = check(&case) {
                failures.push(format!("{}: {}: {problem}", file.file_stem().unwrap().display(), case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} cases:\n\n{}", failures.len(), failures.join("\n\n"));
}
