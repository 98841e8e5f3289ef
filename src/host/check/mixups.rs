//! Functions that Rhai 1.27 would take for one another: told before anything runs, because what comes of it looks like a result.
//!
//! A call without `::` is looked up by name and number of parameters, and methods by their name are such calls. Three things go wrong:
//! - What was found is kept in a cache that a module's function shares with whoever called it (rhai `func/script.rs` pushes the
//!   function's environment and no cache). Of two files that have and call a `helper()`, both get the one that was kept first.
//! - Functions of the script, and of modules that import, are in sight of the module that is called, before everything of the host
//!   (`func/func_call.rs`): a script's `fn loss(batch)` is what `model.loss(batch)` of std/mae calls.
//! - A function that is only named, `values.map(helper)`, is the outermost of that name (`eval/expr.rs`).

use std::cell::OnceCell;
use std::collections::HashSet;

use rhai::{Engine, EvalAltResult, Position};

use super::finding::{Finding, Severity};
use super::lookups::{Look, Part, parts};
use super::project::Own;
use crate::host::errors::{Failure, ScriptResult};
use crate::host::reference::{Reference, Role};
use crate::host::resolver::Library;
use crate::host::sources::is_std;

/// Two functions under one name, told at one of them.
struct Mixup {
    /// Source and place of the function that is to be renamed.
    key: String,
    place: Position,
    name: String,
    failure: Failure,
}

/// What `check` says of the sources of `library`.
pub fn findings(library: &Library, engine: &Engine) -> Vec<Finding> {
    let code = (Severity::Error, "mixed-up");
    let found = mixups(library, engine).into_iter();
    found.map(|it| Finding::new(code, it.failure, (library, &it.key, it.place), Some(&it.name))).collect()
}

/// Refuses sources of which a function would be taken for another.
///
/// # Errors
/// At the function, if there is one.
pub fn refuse(library: &Library, engine: &Engine) -> ScriptResult<()> {
    let Some(first) = mixups(library, engine).into_iter().next() else { return Ok(()) };
    let err = first.failure.at(first.place);
    // The key says where that is, whoever imports right now.
    Err(EvalAltResult::ErrorInModule(first.key, err, Position::NONE).into())
}

fn mixups(library: &Library, engine: &Engine) -> Vec<Mixup> {
    let parts = parts(library);
    let script = library.store.script_key();
    let natives = Natives { engine, names: OnceCell::new() };
    let mut found = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        for own in part.functions.iter().filter(|own| own.this_type.is_none()) {
            for (other_at, other) in parts.iter().enumerate().filter(|(other, _)| *other != at) {
                let Some((look, place)) = other.look(&own.name, own.params.len()) else { continue };
                let in_sight = part.key == script || imports(&parts, other, part);
                let looked_up = part.look(&own.name, own.params.len()).is_some();
                match other.own(&own.name, own.params.len()) {
                    // Both are found from both sides; a function that is only named is found on one.
                    Some(theirs) if look.count.is_none() && in_sight => {
                        found.push(both(library, (part, own), (other, theirs)));
                    }
                    Some(theirs) if looked_up && at < other_at => {
                        found.push(both(library, (part, own), (other, theirs)));
                    }
                    None if (looked_up || in_sight) && natives.have(look) => {
                        found.push(taken(library, (part, own), (other, place), look));
                    }
                    _ => {}
                }
            }
        }
    }
    found
}

/// Whether `part`, by itself or through others, imports `module`.
fn imports(parts: &[Part], module: &Part, part: &Part) -> bool {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut waiting: Vec<&str> = vec![&part.key];
    while let Some(key) = waiting.pop() {
        let imported = parts.iter().filter(|part| part.key == key).flat_map(|part| &part.imports);
        for key in imported {
            if *key == module.key {
                return true;
            }
            if seen.insert(key) {
                waiting.push(key);
            }
        }
    }
    false
}

/// The host's functions and Rhai's by name and number of arguments, asked for if they are needed.
struct Natives<'a> {
    engine: &'a Engine,
    names: OnceCell<HashSet<(String, usize)>>,
}

impl Natives<'_> {
    fn have(&self, look: &Look) -> bool {
        let names = self.names.get_or_init(|| {
            let all = Reference::of(self.engine).functions.into_iter().filter(|f| f.role == Role::Function);
            all.map(|function| (function.full_name(), function.params.len())).collect()
        });
        look.count.is_some_and(|count| names.contains(&(look.name.clone(), count + usize::from(look.method))))
    }
}

/// A place for a message: `lib/metrics.rhai:3`.
fn shown(library: &Library, key: &str, place: Position) -> String {
    let (file, line) = library.store.shown_line(key, place.line().unwrap_or(0));
    format!("{file}:{line}")
}

fn signature(own: &Own) -> String {
    format!("{}({})", own.name, own.params.join(", "))
}

/// Both files have the function and call it.
fn both(library: &Library, one: (&Part, &Own), other: (&Part, &Own)) -> Mixup {
    // What comes with the program cannot be renamed.
    let (one, other) = if is_std(&one.0.key) { (other, one) } else { (one, other) };
    let places = [one, other].map(|(part, own)| shown(library, &part.key, own.place));
    let what = format!("{}: Rhai would mix up those of {} and {}", signature(one.1), places[0], places[1]);
    let which = if is_std(&other.0.key) { "yours" } else { "one of them" };
    let hint = format!(
        "rename {which}: called without `::`, functions of all files are told apart by name and number of parameters alone"
    );
    mixup(one, Failure::script(what).with_hint(hint))
}

/// One file has the function, and the other calls the host's.
fn taken(library: &Library, (part, own): (&Part, &Own), (other, place): (&Part, Position), look: &Look) -> Mixup {
    let call = if look.method { format!(".{}(…)", look.name) } else { format!("{}(…)", look.name) };
    let (own_place, call_place) = (shown(library, &part.key, own.place), shown(library, &other.key, place));
    let what = format!("{}: Rhai would call that of {own_place} for `{call}` at {call_place}", signature(own));
    let hint = "rename it: a function comes before the host's of its name and number of parameters, in other files too";
    mixup((part, own), Failure::script(what).with_hint(hint))
}

fn mixup((part, own): (&Part, &Own), failure: Failure) -> Mixup {
    Mixup { key: part.key.clone(), place: own.place, name: own.name.clone(), failure }
}
