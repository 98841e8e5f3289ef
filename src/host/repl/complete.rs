//! What may stand where the cursor is: names in view, methods and properties by the type of what stands before the dot,
//! functions of a namespace or an import, options of the function whose map is open, file names inside strings, commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rhai::{AST, FnAccess};

use super::commands;
use super::kinds::{self, before_dot};
use super::state::State;
use crate::host::reference::{Function, Role};
use crate::host::scan::{Open, Scan};
use crate::host::stdlib;

/// One of the things that may stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As it is listed.
    pub shown: String,
    /// What is put in.
    pub text: String,
}

impl Candidate {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { shown: text.clone(), text }
    }
}

/// What is collected: by the text that is put in, so that each is there once and in order.
#[derive(Default)]
struct Found(BTreeMap<String, String>);

impl Found {
    fn add(&mut self, shown: &str, text: String) {
        self.0.insert(text, shown.to_owned());
    }

    /// A function, with the bracket that follows its name, or with both if it takes nothing.
    fn call(&mut self, name: &str, takes_nothing: bool) {
        let (open, closed) = (format!("{name}("), format!("{name}()"));
        if takes_nothing && !self.0.contains_key(&open) {
            self.add(name, closed);
        } else if !takes_nothing {
            self.0.remove(&closed);
            self.add(name, open);
        }
    }

    fn starting_with(self, word: &str) -> Vec<Candidate> {
        let fitting = self.0.into_iter().filter(|(text, _)| text.starts_with(word));
        fitting.map(|(text, shown)| Candidate { shown, text }).collect()
    }
}

/// What may stand at byte `at` of `input`, and where the part of it begins that is typed already.
pub fn complete(state: &State, input: &str, at: usize) -> (usize, Vec<Candidate>) {
    let text = &input[..at];
    if let Some(found) = command(state, text) {
        return found;
    }
    let scan = Scan::of(text);
    if let Some(start) = scan.string() {
        return string(state, text, start);
    }
    let word = trailing_word(text);
    let (start, before) = (at - word.len(), &text[..at - word.len()]);
    if !scan.in_code() || word.starts_with(|c: char| c.is_ascii_digit()) {
        return (at, Vec::new());
    }
    let mut found = Found::default();
    if let Some(before) = before.strip_suffix("::") {
        namespace(state, trailing_word(before), &mut found);
    } else if let Some(receiver) = before_dot(before) {
        members(state, receiver, &mut found);
    } else if before.ends_with('.') && !before.ends_with("..") {
        return (at, Vec::new()); // Of a number.
    } else {
        options(state, text, before, &scan, &mut found);
        names(state, word, &mut found);
    }
    (start, found.starting_with(word))
}

/// The parameters of the call that the cursor has just opened.
pub fn hint(state: &State, input: &str) -> Option<String> {
    let scan = Scan::of(input);
    let (Open::Round, at) = scan.open.last().copied()? else { return None };
    if !input[at + 1..].trim().is_empty() {
        return None;
    }
    let signatures = signatures(state, input[..at].trim_end());
    let (first, more) = signatures.split_first()?;
    Some(if more.is_empty() { first.clone() } else { format!("{first}  or …") })
}

fn command(state: &State, text: &str) -> Option<(usize, Vec<Candidate>)> {
    let name = text.strip_prefix(':')?;
    let Some((name, argument)) = name.split_once(' ') else {
        let fitting = commands::NAMES.iter().filter(|command| command.starts_with(name));
        return Some((1, fitting.map(|name| Candidate::new(*name)).collect()));
    };
    match name {
        "time" => None,
        "load" | "save" | "save!" => {
            let start = text.len() - argument.trim_start().len();
            Some((start, files(Path::new("."), &text[start..])))
        }
        "help" => {
            let start = text.len() - argument.trim_start().len();
            let word = &text[start..];
            let mut all = Found::default();
            for function in state.reference.functions.iter().filter(|f| f.role == Role::Function && !f.standard) {
                all.add(&function.full_name(), function.full_name());
            }
            for name in kinds::namespaces(state).into_iter().chain(kinds::types(state)) {
                all.add(&name, name.clone());
            }
            Some((start, all.starting_with(word)))
        }
        _ => Some((text.len(), Vec::new())),
    }
}

/// Inside a string that begins at byte `quote`.
fn string(state: &State, text: &str, quote: usize) -> (usize, Vec<Candidate>) {
    let (start, typed) = (quote + 1, &text[quote + 1..]);
    let before = text[..quote].trim_end();
    let folder = state.session.script_folder();
    if trailing_word(before) != "import" {
        let mut found = files(&folder, typed);
        if before.ends_with("data::open(") && "wirebond".starts_with(typed) {
            found.insert(0, Candidate::new("wirebond\""));
        }
        return (start, found);
    }
    let modules = stdlib::MODULES.iter().map(|(name, _)| format!("std/{name}")).filter(|name| name.starts_with(typed));
    let mut found: Vec<Candidate> = modules.map(|name| Candidate { text: format!("{name}\""), shown: name }).collect();
    for file in files(&folder, typed) {
        match file.text.strip_suffix(".rhai") {
            Some(module) => found.push(Candidate { text: format!("{module}\""), shown: module.to_owned() }),
            None if file.text.ends_with('/') => found.push(file),
            None => {}
        }
    }
    (start, found)
}

/// Files and folders whose path begins with `typed`; hidden ones only if that says so.
fn files(folder: &Path, typed: &str) -> Vec<Candidate> {
    let (parent, name) = typed.rsplit_once('/').map_or(("", typed), |(parent, name)| (&typed[..=parent.len()], name));
    let place: PathBuf = folder.join(parent);
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut found: Vec<Candidate> = entries
        .filter_map(|entry| {
            let own = entry.file_name().into_string().ok()?;
            let hidden = own.starts_with('.') && !name.starts_with('.');
            let fits = own.starts_with(name) && !hidden;
            let end = if entry.path().is_dir() { "/" } else { "" };
            fits.then(|| Candidate { shown: format!("{own}{end}"), text: format!("{parent}{own}{end}") })
        })
        .collect();
    found.sort_by(|a, b| a.text.cmp(&b.text));
    found
}

fn namespace(state: &State, name: &str, found: &mut Found) {
    for function in state.reference.functions.iter().filter(|f| f.namespace == name && f.role == Role::Function) {
        found.call(&function.name, function.params.is_empty());
    }
    if let Some(import) = state.imports.iter().find(|import| import.alias == name)
        && let Some(module) = state.session.library.compiled(&import.key())
    {
        script_functions(&module, found);
    }
}

fn script_functions(ast: &AST, found: &mut Found) {
    for function in ast.iter_functions() {
        if function.access == FnAccess::Public && !function.name.contains('$') {
            found.call(function.name, function.params.is_empty());
        }
    }
}

/// Properties and methods of what stands before a dot; of all our types if its type is not known.
fn members(state: &State, receiver: &str, found: &mut Found) {
    let known = kinds::of_expression(state, receiver);
    if let Some(keys) = known.as_ref().and_then(kinds::Known::keys) {
        keys.iter().for_each(|key| found.add(key, key.clone()));
    }
    let types = kinds::types(state);
    let fits = |function: &&Function| match (function.params.first(), &known) {
        (Some(first), Some(known)) => first.kind == known.kind,
        (Some(first), None) => types.contains(&first.kind),
        (None, _) => false,
    };
    let own = state.reference.functions.iter().filter(|f| f.namespace.is_empty() && f.name != "to_debug");
    for function in own.filter(fits) {
        match function.role {
            Role::Getter => found.add(&function.name, function.name.clone()),
            Role::Function => found.call(&function.name, function.params.len() == 1),
            _ => {}
        }
    }
}

/// Keys of the options of the call in whose map the cursor is, if a key may stand there.
fn options(state: &State, text: &str, before: &str, scan: &Scan, found: &mut Found) {
    let [.., (Open::Round, call), (Open::Map, map)] = scan.open[..] else { return };
    if !before.trim_end().ends_with(['{', ',']) {
        return;
    }
    let there = &text[map..];
    for name in callees(state, text[..call].trim_end()) {
        for key in state.reference.option_keys(&name).unwrap_or_default() {
            if !there.contains(&format!("{key}:")) {
                found.add(&key, format!("{key}: "));
            }
        }
    }
}

/// Everything that can begin an expression. Rhai's own functions only where some of the name is typed.
fn names(state: &State, word: &str, found: &mut Found) {
    for (name, ..) in state.scope.iter_raw() {
        found.add(name, name.to_owned());
    }
    for name in kinds::namespaces(state).into_iter().chain(state.imports.iter().map(|import| import.alias.clone())) {
        found.add(&name, format!("{name}::"));
    }
    script_functions(&state.functions, found);
    let types = kinds::types(state);
    for function in &state.reference.functions {
        let is_method = function.params.first().is_some_and(|first| types.contains(&first.kind));
        let is_free = function.role == Role::Function && function.namespace.is_empty() && !is_method;
        if is_free && (!function.standard || !word.is_empty()) {
            found.call(&function.name, function.params.is_empty());
        }
    }
}

/// What is called by an expression that ends in a function's name: full names in the reference.
fn callees(state: &State, callee: &str) -> Vec<String> {
    let name = trailing_word(callee);
    let before = &callee[..callee.len() - name.len()];
    match before.strip_suffix("::") {
        Some(space) => vec![format!("{}::{name}", trailing_word(space))],
        None if name.is_empty() => Vec::new(),
        None => vec![name.to_owned(); usize::from(state.reference.named(name).next().is_some())],
    }
}

/// The parameters of what an expression that ends in a function's name calls, one text for each of its forms.
fn signatures(state: &State, callee: &str) -> Vec<String> {
    let name = trailing_word(callee);
    let before = &callee[..callee.len() - name.len()];
    let space = before.strip_suffix("::").map(trailing_word);
    let script = |ast: &AST| -> Vec<String> {
        let own = ast.iter_functions().filter(|function| function.name == name && function.access == FnAccess::Public);
        own.map(|function| format!("{})", function.params.join(", "))).collect()
    };
    let receiver = before_dot(before);
    let of_scripts = match space {
        None if receiver.is_none() => script(&state.functions),
        None => Vec::new(),
        Some(space) => {
            let import = state.imports.iter().find(|import| import.alias == space);
            import
                .and_then(|import| state.session.library.compiled(&import.key()))
                .map_or_else(Vec::new, |ast| script(&ast))
        }
    };
    if !of_scripts.is_empty() {
        return of_scripts;
    }
    let kind = receiver.and_then(|receiver| kinds::of_expression(state, receiver)).map(|known| known.kind);
    let behind = usize::from(receiver.is_some());
    let full = space.map_or_else(|| name.to_owned(), |space| format!("{space}::{name}"));
    let fits = |function: &&Function| match (behind, &kind) {
        (1, Some(kind)) => function.params.first().is_some_and(|first| first.kind == *kind),
        (1, None) => !function.params.is_empty() && !function.standard,
        _ => true,
    };
    let forms = state.reference.named(&full).filter(fits);
    forms
        .map(|function| {
            let params: Vec<String> = function.params[behind..].iter().map(ToString::to_string).collect();
            format!("{})", params.join(", "))
        })
        .collect()
}

/// The identifier that `text` ends in; may be empty.
pub fn trailing_word(text: &str) -> &str {
    let start = text
        .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine::STACK_BYTES;
    use crate::host::session::Options;

    /// Runs `inputs` in a session of its own, then `check`, on a thread with the stack that scripts need.
    fn after(inputs: &'static [&str], check: impl FnOnce(&State) + Send + 'static) {
        let work = move || {
            let mut state = State::new(Options::new("repl.rhai")).unwrap();
            for input in inputs {
                assert!(state.evaluate(input).is_ok(), "{input}");
            }
            check(&state);
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap();
    }

    /// What is put in where `|` stands.
    fn texts(state: &State, input: &str) -> Vec<String> {
        let at = input.find('|').unwrap();
        let (start, found) = complete(state, &input.replace('|', ""), at);
        assert!(start <= at);
        found.into_iter().map(|candidate| candidate.text).collect()
    }

    const INPUTS: &[&str] = &[
        "let x = tensor::ones([2, 3])",
        "let recipe = #{ width: 1, dbp: #{ lr: 0.1 } }",
        "fn shrink(by) { by }",
        "import \"std/mae\" as mae",
        "let numbers = [x]",
    ];

    #[test]
    fn names_in_view_are_offered() {
        after(INPUTS, |state| {
            assert_eq!(texts(state, "tensor::on|"), ["ones("]);
            assert_eq!(texts(state, "reci|"), ["recipe"]);
            assert_eq!(texts(state, "1 + shr|"), ["shrink("]);
            assert_eq!(texts(state, "mae|"), ["mae::"]);
            assert_eq!(texts(state, "tens|"), ["tensor::"]);
            assert_eq!(texts(state, "mae::pretr|"), ["pretrain("]);
            assert_eq!(texts(state, "asse|"), ["assert("]);
            assert!(texts(state, "|").contains(&"x".to_owned()));
            assert_eq!(texts(state, ":he|"), ["help"]);
            assert_eq!(texts(state, ":help tensor::zer|"), ["tensor::zeros"]);
            assert_eq!(texts(state, ":time x.resh|"), ["reshape("]);
            for nothing in ["no_such_na|", "// tens|", "1.|", "12|", "`tens|", "f(1.|"] {
                assert_eq!(texts(state, nothing), [""; 0], "{nothing}");
            }
        });
    }

    #[test]
    fn behind_a_dot_stands_what_the_type_has() {
        after(INPUTS, |state| {
            assert_eq!(texts(state, "x.resh|"), ["reshape("]);
            assert_eq!(texts(state, "x.shap|"), ["shape"]);
            assert_eq!(texts(state, "x.reshape([3, 2]).shap|"), ["shape"]);
            assert_eq!(texts(state, "tensor::zeros([2]).resh|"), ["reshape("]);
            assert_eq!(texts(state, "x[0].resh|"), ["reshape("]);
            assert_eq!(texts(state, "numbers[0].resh|"), ["reshape("]);
            assert_eq!(texts(state, "(x).resh|"), ["reshape("]);
            assert_eq!(texts(state, "recipe.wi|"), ["width"]);
            assert_eq!(texts(state, "recipe.dbp.l|")[0], "len()");
            assert!(texts(state, "recipe.dbp.l|").contains(&"lr".to_owned()));
            assert_eq!(texts(state, "recipe.resh|"), [""; 0], "a map has no shape");
            assert_eq!(texts(state, "\"a\".to_upp|"), ["to_upper()"]);
            assert_eq!(texts(state, "unknown.resh|"), ["reshape("]);
            assert_eq!(texts(state, "data::open(\"wirebond\").subs|"), ["subset("]);
        });
    }

    #[test]
    fn maps_of_options_have_their_keys() {
        after(INPUTS, |state| {
            assert_eq!(texts(state, "models::vit(#{ image_s|"), ["image_size: "]);
            assert_eq!(texts(state, "models::vit(#{ image_size: 32, patch|"), ["patch_size: "]);
            assert_eq!(texts(state, "models::vit(#{ patch_size: 8, patch_s|"), [""; 0], "it is there already");
            assert_eq!(texts(state, "models::vit(#{ image_size: rec|"), ["recipe"], "a value, not a key");
        });
    }

    #[test]
    fn strings_hold_files_and_modules() {
        after(&[], |state| {
            assert_eq!(texts(state, "import \"std/ma|"), ["std/mae\""]);
            assert_eq!(texts(state, "data::open(\"src/ho|"), ["src/host/"]);
            assert_eq!(texts(state, "data::open(\"wir|"), ["wirebond\""]);
            assert_eq!(texts(state, ":load scripts/pretrain.r|"), ["scripts/pretrain.rhai"]);
            assert_eq!(texts(state, "import \"scripts/pretr|"), ["scripts/pretrain\""]);
        });
    }

    #[test]
    fn an_open_call_shows_its_parameters() {
        after(INPUTS, |state| {
            assert_eq!(hint(state, "nn::linear(").as_deref(), Some("in_features: int, out_features: int)"));
            assert_eq!(hint(state, "1 + shrink( ").as_deref(), Some("by)"));
            assert!(hint(state, "x.matmul(").is_some_and(|hint| hint.ends_with(": Tensor)")));
            for none in ["nn::linear(1", "(", "x", "no_such(", "\"nn::linear("] {
                assert_eq!(hint(state, none), None, "{none}");
            }
        });
    }
}
