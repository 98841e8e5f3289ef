//! Calls: whether there is such a function, and whether it takes what it is given.

use std::collections::{HashMap, HashSet};

use rhai::{Expr, FnCallExpr, FnPtr, Namespace, Position};

use super::keys::Answers;
use super::names::Walker;
use super::project::{File, Target};
use crate::host::errors::Failure;
use crate::host::explain::{module_hint, nearer_variable, private, variable_called};
use crate::host::reference::Reference;
use crate::host::signatures::{Call, Callable, Fault, is_single, judge, natives};
use crate::host::suggest::did_you_mean;

/// What Rhai calls without a function of that name.
pub(super) const KEYWORDS: [&str; 8] =
    ["Fn", "call", "curry", "type_of", "is_shared", "is_def_var", "is_def_fn", "eval"];
/// Where constants of the script's top level are.
const GLOBAL: &str = "global";

/// What scripts can call without writing it themselves.
pub struct Known {
    pub reference: Reference,
    natives: Vec<Callable>,
    namespaces: HashSet<String>,
    /// What functions return that always return the same, by name and number of arguments.
    returns: HashMap<(String, usize), String>,
    pub answers: Answers,
}

impl Known {
    pub fn new(reference: Reference) -> Self {
        let natives = natives(&reference);
        let mut namespaces = HashSet::new();
        for function in &reference.functions {
            let mut space = function.namespace.as_str();
            while !space.is_empty() {
                namespaces.insert(space.to_owned());
                space = space.rsplit_once("::").map_or("", |(outer, _)| outer);
            }
        }
        let mut returns: HashMap<(String, usize), String> = HashMap::new();
        for native in &natives {
            let kind =
                returns.entry((native.name.clone(), native.params.len())).or_insert_with(|| native.returns.clone());
            if *kind != native.returns {
                kind.clear();
            }
        }
        Self { reference, natives, namespaces, returns, answers: Answers::default() }
    }

    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// The keys that the map at argument `at` may have, if that is a map of options; the value of a method is no argument.
    pub fn option_keys(&self, name: &str, arguments: usize, at: usize) -> Option<Vec<String>> {
        let is_map = |callable: &&Callable, extra: usize| {
            callable.params.len() == arguments + extra
                && callable.params.get(at + extra).is_some_and(|param| param.kind == "map" || param.kind.is_empty())
        };
        let mut named = self.natives.iter().filter(|callable| callable.name == name);
        // A method's first parameter is its value.
        let takes_map = named.any(|callable| is_map(&callable, 0) || is_map(&callable, 1));
        if takes_map { self.reference.option_keys(name) } else { None }
    }

    /// The type that a call returns; empty if that depends.
    pub fn returned(&self, name: &str, arguments: usize) -> String {
        // Only our own types are certain: scripts may have functions of the same names.
        let kind = self.returns.get(&(name.to_owned(), arguments));
        kind.filter(|kind| kind.starts_with(char::is_uppercase) && is_single(kind)).cloned().unwrap_or_default()
    }

    /// The type of an expression; empty if it is not plain to see.
    pub fn kind_of(&self, expr: &Expr) -> String {
        let kind = match expr {
            Expr::BoolConstant(..) => "bool",
            Expr::IntegerConstant(..) => "int",
            Expr::FloatConstant(..) => "float",
            Expr::CharConstant(..) => "char",
            Expr::StringConstant(..) | Expr::InterpolatedString(..) => "string",
            Expr::Array(..) => "array",
            Expr::Map(..) => "map",
            Expr::Unit(_) => "()",
            Expr::DynamicConstant(value, _) if value.is::<FnPtr>() => "function",
            Expr::FnCall(call, _) if call.is_qualified() => {
                return self.returned(&full_name(&call.namespace, &call.name), call.args.len());
            }
            _ => "",
        };
        kind.to_owned()
    }
}

fn full_name(namespace: &Namespace, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}::{name}") }
}

/// The functions of a file that others see, under the name that it has there.
fn exported(file: &File, prefix: &str) -> Vec<Callable> {
    let public = file.functions.iter().filter(|function| !function.private);
    public.map(|f| Callable::scripted(format!("{prefix}::{}", f.name), f.params.iter().cloned())).collect()
}

/// Where a namespace leads.
enum Space<'a> {
    Native,
    Global,
    File(&'a File),
    /// To nothing that can be looked at; said already, if it is to be said.
    Unknown,
}

impl<'a> Walker<'a> {
    pub fn judge_call(&mut self, call: &FnCallExpr, place: Position) {
        if call.is_operator_call() {
            return;
        }
        if call.is_qualified() {
            return self.judge_qualified(call, place);
        }
        self.used.insert(call.name.to_string());
        if call.name == "Fn"
            && let [Expr::StringConstant(name, _)] = call.args.as_slice()
        {
            self.used.insert(name.to_string());
        }
        if KEYWORDS.contains(&call.name.as_str()) {
            return;
        }
        let own = self.own_functions(false);
        let fault = self.judge_among(&call.name, call, false, "", &own);
        let Some(mut fault) = fault else { return self.check_keys(call, &call.name) };
        if fault.code == "unknown-function" && self.is_variable(&call.name) {
            fault.failure.hint = Some(variable_called(&call.name));
        } else if fault.code == "unknown-function" {
            let known: Vec<&Callable> = self.known.natives.iter().chain(&own).collect();
            fault.failure.hint = nearer_variable(&call.name, &self.variables(), &known).or(fault.failure.hint);
        }
        self.report(fault, call, place, 0);
    }

    pub fn judge_method(&mut self, call: &FnCallExpr, place: Position, kind: &str) {
        self.used.insert(call.name.to_string());
        if KEYWORDS.contains(&call.name.as_str()) {
            return;
        }
        let own = self.own_functions(true);
        match self.judge_among(&call.name, call, true, kind, &own) {
            None => self.check_keys(call, &call.name),
            // A map's own function.
            Some(_) if self.project.entries.contains(call.name.as_str()) && (kind.is_empty() || kind == "map") => {}
            Some(fault) => {
                let fault = fault.with_property(&call.name, kind, &self.known.reference);
                self.report(fault, call, place, 1);
            }
        }
    }

    /// The file's functions; as methods also those that imported modules have for a type.
    fn own_functions(&self, method: bool) -> Vec<Callable> {
        let scripted =
            |function: &super::project::Own| Callable::scripted(function.name.clone(), function.params.iter().cloned());
        let mut functions: Vec<Callable> = self.file.functions.iter().map(scripted).collect();
        if method {
            let others = self.project.files.iter().filter(|file| file.key != self.file.key);
            let typed = others.flat_map(|file| file.functions.iter()).filter(|function| function.this_type.is_some());
            functions.extend(typed.map(scripted));
        }
        functions
    }

    fn judge_among(
        &mut self,
        name: &str,
        call: &FnCallExpr,
        method: bool,
        kind: &str,
        own: &[Callable],
    ) -> Option<Fault> {
        let mut args: Vec<String> = call.args.iter().map(|argument| self.kind_of(argument)).collect();
        if method {
            args.insert(0, kind.to_owned());
        }
        let known: Vec<&Callable> = self.known.natives.iter().chain(own).collect();
        let fault = judge(&Call { name, method, args }, &known)?;
        let standard = || self.known.natives.iter().any(|native| native.standard && native.name == name);
        (fault.argument.is_none() || !standard()).then_some(fault)
    }

    fn judge_qualified(&mut self, call: &FnCallExpr, place: Position) {
        let name = full_name(&call.namespace, &call.name);
        let (own, file) = match self.space(&call.namespace) {
            Space::Native => (Vec::new(), None),
            Space::File(file) => {
                if file.functions.iter().any(|f| f.private && f.name == call.name.as_str()) {
                    return self.error("unknown-function", private(&name), place, Some(&call.name));
                }
                (exported(file, &call.namespace.to_string()), Some(file))
            }
            Space::Global | Space::Unknown => return,
        };
        match (self.judge_among(&name, call, false, "", &own), file) {
            (Some(fault), _) => self.report(fault, call, place, 0),
            (None, Some(file)) => {
                self.check_recipe(call, file);
                self.check_own_keys(call, file, &name);
            }
            (None, None) => self.check_keys(call, &name),
        }
    }

    fn report(&mut self, fault: Fault, call: &FnCallExpr, place: Position, values: usize) {
        let argument = fault.argument.and_then(|at| at.checked_sub(values)).and_then(|at| call.args.get(at));
        match argument {
            Some(argument) => self.error(fault.code, fault.failure, argument.start_position().or_else(place), None),
            None => self.error(fault.code, fault.failure, place, Some(&call.name)),
        }
    }

    pub fn qualified_variable(&mut self, namespace: &Namespace, name: &str, place: Position) {
        match self.space(namespace) {
            Space::Global => {
                if !self.read_global(name) {
                    let failure = Failure::script(format!("unknown constant: global::{name}"));
                    let hint = "`global::` sees constants of the script's top level: `const NAME = …`";
                    self.error("unknown-variable", failure.with_hint(hint), place, Some(name));
                }
            }
            Space::File(file) if !file.exports.contains(name) => {
                let shown = self.project.library.store.shown(&file.key);
                let mut near: Vec<&str> = file.exports.iter().map(String::as_str).collect();
                near.sort_unstable();
                let failure = Failure::script(format!("{shown} exports no variable `{name}`"));
                let called = file.functions.iter().any(|function| function.name == name && !function.private);
                let hint = match called {
                    true => Some(format!("it is a function: `{namespace}::{name}(…)`")),
                    false => did_you_mean(name, near),
                };
                self.error("unknown-variable", Failure { hint, ..failure }, place, Some(name));
            }
            Space::File(_) | Space::Native | Space::Unknown => {}
        }
    }

    /// The file that `namespace` leads to, if it does.
    pub fn file_of(&mut self, namespace: &Namespace) -> Option<&'a File> {
        let mut parts = namespace.path.iter();
        let mut target = self.import(parts.next()?.as_str())?;
        for part in parts {
            let Target::File(key) = &target else { return None };
            target = self.project.file(key)?.modules.get(part.as_str())?.clone();
        }
        let Target::File(key) = target else { return None };
        self.project.file(&key)
    }

    fn space(&mut self, namespace: &Namespace) -> Space<'a> {
        let Some(root) = namespace.path.first() else { return Space::Unknown };
        let root = root.as_str().to_owned();
        if self.import(&root).is_some() {
            return self.file_of(namespace).map_or(Space::Unknown, Space::File);
        }
        if self.known.has_namespace(&root) {
            return Space::Native;
        }
        if root == GLOBAL {
            return Space::Global;
        }
        let failure = Failure::script(format!("unknown module: {root}"));
        let mut names = self.visible();
        names.extend(self.known.namespaces.iter().cloned());
        names.sort_unstable();
        let hint = if self.is_imported_below(&root) {
            Some(format!("functions see the imports above them: move `import … as {root}` up"))
        } else {
            module_hint(&root, &self.text(), &names)
        };
        self.error("unknown-module", Failure { hint, ..failure }, namespace.position(), Some(&root));
        Space::Unknown
    }
}
