//! `:help`: what a name means, out of the doc comments that everything a script can call has.

use rhai::{AST, FnAccess};

use super::kinds;
use super::show::{WIDTH, kind_of};
use super::state::State;
use crate::host::errors::Failure;
use crate::host::reference::{Docs, Function, Role};
use crate::host::suggest::did_you_mean;

/// Columns of names in a list.
const NAME_WIDTH: usize = 34;

const GENERAL: &str = "\
Type an expression to see its value; `it` is the last one. `let x = …`, `fn f(x) { … }` and `import \"std/mae\" as mae` stay.
An input goes on over several lines while a bracket is open. Tab completes, Ctrl-R searches what was typed before.
Ctrl-C drops a line or ends what runs; Ctrl-D ends the session.

  :help NAME     what a function, a namespace, a type or a variable is: :help tensor::zeros, :help data, :help Tensor
  :vars          variables, functions and imports
  :time EXPR     how long an expression takes
  :load FILE     run a script here
  :save FILE     write what went well as a script; :save! overwrites
  :clear         forget all variables, functions and imports
  :quit          end the session";

/// What to print for `:help NAME`.
///
/// # Errors
/// If there is nothing of that name; the hint has the nearest.
pub fn help(state: &State, name: &str) -> Result<String, Failure> {
    let name = name.trim().trim_end_matches("()").trim_end_matches("::").trim_end_matches(';');
    if name.is_empty() {
        return Ok(general(state));
    }
    let command = name.trim_start_matches(':');
    if name.starts_with(':') && super::commands::NAMES.contains(&command) {
        let line = GENERAL.lines().find(|line| line.trim_start().starts_with(&format!(":{command}")));
        return Ok(line.unwrap_or(GENERAL).trim().to_owned());
    }
    let found = functions(state, name).or_else(|| of_scripts(state, name));
    let found =
        found.or_else(|| namespace(state, name)).or_else(|| of_type(state, name)).or_else(|| variable(state, name));
    found.ok_or_else(|| unknown(state, name))
}

fn general(state: &State) -> String {
    let (spaces, types) = (kinds::namespaces(state).join(", "), kinds::types(state).join(", "));
    format!("{GENERAL}\n\nnamespaces: {spaces}\ntypes: {types}")
}

/// The functions, methods and properties of this name; `Type.name` and `variable.name` are those of one type.
fn functions(state: &State, name: &str) -> Option<String> {
    let all = &state.reference.functions;
    let named = |f: &&Function| matches!(f.role, Role::Function | Role::Getter | Role::Setter);
    let found: Vec<&Function> = match name.rsplit_once('.') {
        Some((owner, member)) => {
            let kind = kinds::of_expression(state, owner).map_or_else(|| owner.to_owned(), |known| known.kind);
            let own = |f: &&Function| f.name == member && f.params.first().is_some_and(|first| first.kind == kind);
            all.iter().filter(named).filter(own).collect()
        }
        None => all.iter().filter(named).filter(|f| f.full_name() == name || f.name == name).collect(),
    };
    // A script's author means ours where Rhai has one of the same name for its own types.
    let ours: Vec<&Function> = found.iter().copied().filter(|f| !f.standard).collect();
    let found = if ours.is_empty() { found } else { ours };
    (!found.is_empty()).then(|| entries(&found, state))
}

/// Signatures with the text below them; forms that share a text share it here too.
fn entries(functions: &[&Function], state: &State) -> String {
    let mut parts: Vec<(Vec<String>, &Docs)> = Vec::new();
    for function in functions {
        let signature = signature(function, state);
        match parts.last_mut() {
            Some((signatures, docs)) if **docs == function.docs => signatures.push(signature),
            _ => parts.push((vec![signature], &function.docs)),
        }
    }
    let parts: Vec<String> =
        parts.into_iter().map(|(signatures, docs)| format!("{}\n{}", signatures.join("\n"), body(docs))).collect();
    parts.iter().map(|part| part.trim_end()).collect::<Vec<_>>().join("\n\n")
}

/// `tensor::zeros(shape) -> Tensor`, `Tensor.reshape(shape) -> Tensor`, `Tensor.shape -> array`.
fn signature(function: &Function, state: &State) -> String {
    let types = kinds::types(state);
    let owner = function.params.first().filter(|first| {
        let is_method = function.role != Role::Function || types.contains(&first.kind) || function.standard;
        function.namespace.is_empty() && is_method && !first.kind.is_empty()
    });
    let params = |from: usize| function.params[from..].iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = match (owner, function.role) {
        (Some(owner), Role::Getter) => format!("{}.{}", owner.kind, function.name),
        (Some(owner), Role::Setter) => format!("{}.{} = {}", owner.kind, function.name, params(1)),
        (Some(owner), _) => format!("{}.{}({})", owner.kind, function.name, params(1)),
        (None, _) => function.signature(),
    };
    if function.returns.is_empty() { text } else { format!("{text} -> {}", function.returns) }
}

fn body(docs: &Docs) -> String {
    let indented = |text: &str, by: &str| -> String {
        text.trim_end().lines().map(|line| format!("{by}{line}").trim_end().to_owned() + "\n").collect()
    };
    let mut text = indented(&docs.text, "    ");
    if let Some(example) = &docs.example {
        text += &format!("\n{}", indented(example, "        "));
    }
    text
}

/// A function of the session or of an import, or all functions of one.
fn of_scripts(state: &State, name: &str) -> Option<String> {
    if let Some((alias, function)) = name.split_once("::") {
        let import = state.imports.iter().find(|import| import.alias == alias)?;
        return script_functions(&*state.session.library.compiled(&import.key())?, alias, Some(function));
    }
    if let Some(import) = state.imports.iter().find(|import| import.alias == name) {
        let functions =
            script_functions(&*state.session.library.compiled(&import.key())?, name, None).unwrap_or_default();
        return Some(format!("{name} is \"{}\"\n\n{functions}", import.path));
    }
    script_functions(&state.functions, "", Some(name))
}

fn script_functions(ast: &AST, alias: &str, name: Option<&str>) -> Option<String> {
    let space = if alias.is_empty() { String::new() } else { format!("{alias}::") };
    let mut functions: Vec<_> = ast
        .iter_functions()
        .filter(|f| f.access == FnAccess::Public && !f.name.contains('$') && name.is_none_or(|name| f.name == name))
        .collect();
    functions.sort_by_key(|f| (f.name, f.params.len()));
    let parts = functions.iter().map(|f| {
        let docs = Docs::parse(f.comments.iter().copied());
        format!("{space}{}({})\n{}", f.name, f.params.join(", "), body(&docs))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("\n").trim_end().to_owned())
}

/// The functions of a namespace, a line each.
fn namespace(state: &State, name: &str) -> Option<String> {
    let own = state.reference.functions.iter().filter(|f| f.namespace == name && f.role == Role::Function);
    let lines = listed(own, 0);
    (!lines.is_empty()).then(|| format!("namespace {name}\n\n{}", lines.join("\n")))
}

/// The properties, methods and operators of a type.
fn of_type(state: &State, name: &str) -> Option<String> {
    let of = |roles: &'static [Role]| {
        let all = state.reference.functions.iter().filter(|f| f.namespace.is_empty() && roles.contains(&f.role));
        listed(all.filter(|f| f.params.first().is_some_and(|first| first.kind == name)), 1)
    };
    let operators = state.reference.functions.iter().filter(|f| f.role == Role::Operator);
    let operators = operators.filter(|f| f.params.iter().any(|param| param.kind == name));
    let mut operators: Vec<&str> = operators.map(|f| f.name.as_str()).collect();
    operators.dedup();
    let mut parts = vec![format!("type {name}")];
    let (properties, methods) = (of(&[Role::Getter]), of(&[Role::Function]));
    if properties.is_empty() && methods.is_empty() {
        return None;
    }
    for (title, lines) in [("properties", properties), ("methods", methods)] {
        if !lines.is_empty() {
            parts.push(format!("{title}\n{}", lines.join("\n")));
        }
    }
    if !operators.is_empty() {
        parts.push(format!("operators\n  {}", operators.join(" ")));
    }
    Some(parts.join("\n\n"))
}

fn variable(state: &State, name: &str) -> Option<String> {
    let kind = kind_of(&state.engine, state.scope.get(name)?).to_owned();
    let about = of_type(state, &kind).unwrap_or_default();
    Some(format!("{name} is a variable, {kind}\n\n{about}").trim_end().to_owned())
}

/// Name, parameters behind the first `skip`, and the first sentence of what is said of it; forms of one name share a line.
fn listed<'a>(functions: impl Iterator<Item = &'a Function>, skip: usize) -> Vec<String> {
    let mut lines: Vec<(String, &Function)> = Vec::new();
    for function in functions.filter(|f| f.name != "to_debug") {
        if lines.last().is_some_and(|(_, last)| last.name == function.name) {
            continue;
        }
        let params: Vec<&str> = function.params.iter().skip(skip).map(|param| param.name.as_str()).collect();
        let head = match function.role {
            Role::Getter => function.name.clone(),
            _ => format!("{}({})", function.name, params.join(", ")),
        };
        lines.push((head, function));
    }
    let line = |(head, function): (String, &Function)| {
        let about = wrapped(&first_sentence(&function.docs.text), WIDTH - NAME_WIDTH - 2);
        let mut about = about.iter();
        // A long name has the first line to itself.
        let first = if head.chars().count() < NAME_WIDTH { about.next().map_or("", String::as_str) } else { "" };
        let mut text = format!("  {head:<NAME_WIDTH$}{first}").trim_end().to_owned();
        about.for_each(|line| text += &format!("\n  {:NAME_WIDTH$}{line}", ""));
        text
    };
    lines.into_iter().map(line).collect()
}

fn first_sentence(text: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    match paragraph.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => paragraph,
    }
}

/// Lines of at most `width` columns, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn unknown(state: &State, name: &str) -> Failure {
    let mut names: Vec<String> = kinds::namespaces(state);
    names.extend(kinds::types(state));
    names.extend(state.scope.iter_raw().map(|(name, ..)| name.to_owned()));
    names.extend(state.imports.iter().map(|import| import.alias.clone()));
    for function in &state.reference.functions {
        if matches!(function.role, Role::Function | Role::Getter) {
            names.push(function.full_name());
            names.push(function.name.clone());
        }
    }
    let near = did_you_mean(name, names.iter().map(String::as_str));
    let hint = near.unwrap_or_else(|| format!("namespaces: {}", kinds::namespaces(state).join(", ")));
    Failure::script(format!("nothing is called {name}")).with_hint(hint)
}
