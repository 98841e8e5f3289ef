//! The script reference: what is committed is what is registered, everything is documented, every example runs, and the
//! options that are documented are those that functions ask for.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use dbp_host::host::options::{Asked, recorded};
use dbp_host::host::reference::command::{all_pages, stale};
use dbp_host::host::reference::subjects::{Kind, Subject};
use dbp_host::host::reference::topics::Topics;
use dbp_host::host::reference::{Reference, Role, std_modules};
use dbp_host::host::{self, Options, Outcome, Session, engine};

#[test]
fn the_committed_reference_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference");
    let stale = stale(&folder, &all_pages().unwrap()).unwrap();
    assert!(stale.is_empty(), "stale pages in docs/reference: {stale:?}\n`make reference` writes them anew");
}

#[test]
fn everything_is_documented() {
    let engine = engine::described();
    let reference = Reference::of(&engine);
    let mut missing = Vec::new();
    for subject in reference.subjects(&Topics::of(&engine)) {
        let page = shown(&subject);
        if subject.kind != Kind::Globals && subject.docs.text.is_empty() {
            let place = if subject.kind == Kind::Type { "`pub type` in a `mod types`" } else { "exported `mod`" };
            missing.push(format!("{page}: a doc comment on its {place}, where it is registered"));
        }
        for group in &subject.groups {
            for function in group.functions.iter().filter(|function| function.docs.text.is_empty()) {
                missing.push(format!("{page}: a doc comment on {}", function.signature()));
            }
            if group.role != Role::Operator && group.examples().next().is_none() {
                missing.push(format!("{page}: an example of {}", group.name));
            }
        }
    }
    for module in std_modules::all(&engine).unwrap() {
        if module.header.is_empty() {
            missing.push(format!("std/{}: a comment at the top", module.name));
        }
        for function in module.functions.iter().filter(|function| function.docs.text.is_empty()) {
            let signature = function.signature();
            missing.push(format!("std/{}: a doc comment on {signature}, or `private` before it", module.name));
        }
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

#[test]
fn every_example_runs_and_every_option_is_documented() {
    let engine = engine::described();
    let reference = Reference::of(&engine);
    tch::set_num_threads(1);
    let (mut count, mut failures, mut asked) = (0, Vec::new(), BTreeSet::new());
    for subject in reference.subjects(&Topics::of(&engine)) {
        let setup = subject.docs.example.as_deref().unwrap_or_default();
        let mut examples: Vec<(&str, &str)> = Vec::new();
        if !setup.is_empty() {
            examples.push(("its setup", ""));
        }
        examples.extend(subject.groups.iter().flat_map(|group| group.examples().map(|example| (group.name, example))));
        for (name, example) in examples {
            count += 1;
            let (result, options) = run(&format!("{setup}\n{example}\n"));
            asked.extend(options);
            if let Err(problem) = result {
                failures.push(format!("{}: {name}: {problem}", shown(&subject)));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} examples:\n\n{}", failures.len(), failures.join("\n\n"));
    assert!(count > 100, "{count} examples: are they still found?");
    let wrong = undocumented(&reference, &asked);
    assert!(wrong.is_empty(), "options:\n{}", wrong.join("\n"));
}

fn shown(subject: &Subject) -> String {
    if subject.kind == Kind::Globals { "functions without a namespace".into() } else { subject.name.clone() }
}

/// Runs `text` as the only script of an empty folder, which is the current one too.
fn run(text: &str) -> (Result<(), String>, BTreeSet<Asked>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("example.rhai"), text).unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    let options = Options::new("example.rhai");
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let collected = Arc::clone(&asked);
    let outcome = host::on_script_thread(move || match Session::new(options) {
        Ok(session) => {
            session.set_printer(|_| {});
            let (outcome, options) = recorded(|| host::execute(&session));
            *collected.lock().unwrap() = options;
            outcome
        }
        Err(err) => err.into(),
    });
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let result = match outcome {
        Outcome::Done => Ok(()),
        Outcome::Interrupted | Outcome::Restart => Err("it did not run to its end".to_owned()),
        Outcome::Failed(err) => Err(err.to_string()),
    };
    let asked = asked.lock().unwrap().clone();
    (result, asked)
}

/// Where the options that functions asked for are not those in their documentation.
fn undocumented(reference: &Reference, asked: &BTreeSet<Asked>) -> Vec<String> {
    let mut by_function: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (function, key) in asked {
        by_function.entry(function).or_default().insert(key);
    }
    let mut wrong = Vec::new();
    for (name, keys) in &by_function {
        if reference.named(name).next().is_none() {
            wrong.extend(
                keys.iter()
                    .filter(|key| !is_told(reference, name, key))
                    .map(|key| format!("`{key}` of the map `{name}` is in no documentation of an option `{name}`")),
            );
            continue;
        }
        let documented = reference.option_keys(name).unwrap_or_default();
        let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
        wrong.extend(
            keys.difference(&documented).map(|key| format!("{name} asks for `{key}`, which is not documented")),
        );
        wrong.extend(
            documented.difference(keys).map(|key| format!("{name} never asks for `{key}`, which is documented")),
        );
    }
    let with_options =
        reference.functions.iter().filter(|function| !function.standard && !function.docs.options.is_empty());
    let never = with_options.map(dbp_host::host::reference::Function::full_name);
    let never = never.filter(|name| !by_function.contains_key(name.as_str()));
    wrong.extend(never.map(|name| format!("{name} documents options, and no example shows it asking for any")));
    wrong
}

/// Whether the key of a map that is itself an option, called `map`, is in that option's text, or among the options of a
/// function that the text names.
fn is_told(reference: &Reference, map: &str, key: &str) -> bool {
    let options = reference.functions.iter().flat_map(|function| &function.docs.options);
    options.filter(|option| option.key == map).any(|option| {
        let mut named = option.text.split('`').skip(1).step_by(2);
        named.any(|name| {
            let inside = name.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == key);
            inside || reference.option_keys(name).is_some_and(|keys| keys.iter().any(|known| known == key))
        })
    })
}
