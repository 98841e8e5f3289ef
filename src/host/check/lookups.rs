//! What the sources of a script define, and which names they look up without `::` in code that may come to run.
//!
//! Whatever the script has may run; of a module, its top level and the functions that such code reaches. So a module's function that
//! nobody calls, like a training loop that the script has its own version of, looks nothing up.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rhai::{AST, ASTNode, Expr, FnPtr, Position, Stmt};

use super::calls::KEYWORDS;
use super::project::{Own, bodies, entries, functions};
use crate::host::resolver::Library;
use crate::host::sources::key_of_import;

/// A name as it is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Look {
    pub name: String,
    /// Arguments, the value of a method not counted; `None` where a function is only named: `values.map(helper)`.
    pub count: Option<usize>,
    pub method: bool,
}

/// What a function's body does, or a file's top level.
#[derive(Default)]
struct Unit {
    looks: Vec<(Look, Position)>,
    /// Calls into modules: the first name of the namespace, whether more follow, the function, its arguments.
    qualified: Vec<(String, bool, String, usize)>,
    /// Variables, functions and closures by name.
    names: HashSet<String>,
}

/// Which part of a file: a function by name and number of parameters, or its top level.
type UnitKey = Option<(String, usize)>;

/// A source that takes part.
pub struct Part {
    pub key: String,
    pub functions: Vec<Own>,
    /// Where each name is looked up first in code that may run.
    pub looks: HashMap<Look, Position>,
    /// Keys of the sources that it imports.
    pub imports: HashSet<String>,
    units: HashMap<UnitKey, Unit>,
    /// Keys by the name an import gives them; two functions may import different modules as the same.
    modules: Vec<(String, String)>,
    /// Keys of maps: a function in a map comes before all others.
    entries: HashSet<String>,
}

/// All sources of `library` that were compiled, the script first.
pub fn parts(library: &Library) -> Vec<Part> {
    let sources = library.sources().into_iter();
    let mut parts: Vec<Part> =
        sources.filter_map(|(key, text)| Some(Part::new(&key, &library.compiled(&key)?, &text))).collect();
    follow(&mut parts, library.store.script_key());
    parts
}

impl Part {
    fn new(key: &str, ast: &Rc<AST>, text: &str) -> Self {
        let functions = functions(ast, text);
        let bodies = bodies(ast);
        let mut modules = Vec::new();
        let mut units = HashMap::new();
        let mut variables: HashSet<String> = functions.iter().flat_map(|own| own.params.iter().cloned()).collect();
        variables.extend(ast.iter_fn_def().flat_map(|function| function.params.iter().map(ToString::to_string)));
        let top: &[Stmt] = (**ast).as_ref();
        let all = bodies.iter().map(|(key, body)| (Some(key.clone()), body.as_slice()));
        for (unit, statements) in all.chain([(None, top)]) {
            units.insert(unit, Unit::of(statements, &mut variables, &mut modules));
        }
        // A variable of the name comes first. Whether it is seen at that place is not followed.
        for unit in units.values_mut() {
            let named = |name: &str| !variables.contains(name) && functions.iter().any(|own| own.name == name);
            unit.looks.retain(|(look, _)| look.count.is_some() || named(&look.name));
        }
        let modules: Vec<(String, String)> =
            modules.into_iter().filter_map(|(name, path)| Some((name, key_of_import(&path, key).ok()?))).collect();
        let imports = modules.iter().map(|(_, key)| key.clone()).collect();
        let (key, looks, entries) = (key.to_owned(), HashMap::new(), entries(ast));
        Self { key, functions, looks, imports, units, modules, entries }
    }

    /// The function that a call without `::` of so many arguments means in this file.
    pub fn own(&self, name: &str, count: usize) -> Option<&Own> {
        let plain = |own: &&Own| own.this_type.is_none() && own.name == name && own.params.len() == count;
        self.functions.iter().find(plain)
    }

    /// Where the function of that name is looked up with so many arguments.
    pub fn look(&self, name: &str, count: usize) -> Option<(&Look, Position)> {
        let is_it = |look: &Look| {
            let hidden = look.method && self.entries.contains(name);
            look.name == name && look.count.is_none_or(|own| own == count) && !hidden
        };
        let found = self.looks.iter().filter(|(look, _)| is_it(look)).map(|(look, place)| (look, *place));
        found.min_by_key(|(_, place)| *place)
    }

    fn units_named(&self, name: &str) -> Vec<UnitKey> {
        self.units.keys().filter(|key| key.as_ref().is_some_and(|(own, _)| own == name)).cloned().collect()
    }
}

impl Unit {
    fn of(statements: &[Stmt], variables: &mut HashSet<String>, modules: &mut Vec<(String, String)>) -> Self {
        let mut unit = Self::default();
        for statement in statements {
            statement.walk(&mut Vec::new(), &mut |nodes: &[ASTNode]| {
                match nodes.last() {
                    Some(ASTNode::Stmt(statement)) => unit.statement(statement, variables, modules),
                    Some(ASTNode::Expr(expr)) => unit.expression(expr),
                    _ => {}
                }
                true
            });
        }
        unit
    }

    fn statement(&mut self, statement: &Stmt, variables: &mut HashSet<String>, modules: &mut Vec<(String, String)>) {
        match statement {
            Stmt::FnCall(call, place) => self.call(call, *place),
            Stmt::Import(import, _) => {
                if let Expr::StringConstant(path, _) = &import.0 {
                    modules.push((import.1.as_str().to_owned(), path.to_string()));
                }
            }
            Stmt::Var(var, ..) => drop(variables.insert(var.0.as_str().to_owned())),
            Stmt::For(parts, _) => {
                variables.insert(parts.0.as_str().to_owned());
                variables.extend(parts.1.iter().map(|counter| counter.as_str().to_owned()));
            }
            Stmt::TryCatch(flow, _) => {
                if let Expr::Variable(caught, ..) = &flow.expr {
                    variables.insert(caught.1.to_string());
                }
            }
            _ => {}
        }
    }

    fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::FnCall(call, place) => self.call(call, *place),
            Expr::MethodCall(call, place) if !KEYWORDS.contains(&call.name.as_str()) => {
                self.look(&call.name, Some(call.args.len()), true, *place);
            }
            Expr::Variable(variable, _, place) if variable.2.is_empty() => self.named(&variable.1, *place),
            Expr::DynamicConstant(value, place) => {
                if let Some(pointer) = value.read_lock::<FnPtr>() {
                    self.named(pointer.fn_name(), *place);
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, call: &rhai::FnCallExpr, place: Position) {
        if call.is_operator_call() {
            return;
        }
        if let Some(first) = call.namespace.path.first() {
            let more = call.namespace.path.len() > 1;
            self.qualified.push((first.as_str().to_owned(), more, call.name.to_string(), call.args.len()));
        } else if let ("Fn", [Expr::StringConstant(name, _)]) = (call.name.as_str(), call.args.as_slice()) {
            self.named(name, place);
        } else if !KEYWORDS.contains(&call.name.as_str()) {
            self.look(&call.name, Some(call.args.len()), false, place);
        }
    }

    fn named(&mut self, name: &str, place: Position) {
        self.names.insert(name.to_owned());
        self.look(name, None, false, place);
    }

    fn look(&mut self, name: &str, count: Option<usize>, method: bool, place: Position) {
        self.looks.push((Look { name: name.to_owned(), count, method }, place));
    }
}

/// Goes from the script through all that may run, and takes note of what is looked up there.
fn follow(parts: &mut [Part], script: &str) {
    let mut waiting: Vec<(usize, UnitKey)> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        match part.key == script {
            // The host calls hooks, and whatever it is handed.
            true => waiting.extend(part.units.keys().map(|key| (at, key.clone()))),
            false => waiting.push((at, None)),
        }
    }
    let mut seen: HashSet<(usize, UnitKey)> = HashSet::new();
    while let Some((at, key)) = waiting.pop() {
        if !seen.insert((at, key.clone())) {
            continue;
        }
        let Some(unit) = parts[at].units.get(&key) else { continue };
        for name in &unit.names {
            waiting.extend(parts[at].units_named(name).into_iter().map(|key| (at, key)));
        }
        for (look, _) in &unit.looks {
            let Some(count) = look.count else { continue };
            let call = Some((look.name.clone(), count));
            waiting.push((at, call.clone()));
            if look.method {
                // A function for a type is seen everywhere.
                let typed = |own: &Own| own.this_type.is_some() && own.name == look.name;
                let others = parts.iter().enumerate().filter(|(_, part)| part.functions.iter().any(typed));
                waiting.extend(others.map(|(other, _)| (other, call.clone())));
            }
        }
        for (first, more, name, count) in &unit.qualified {
            let keys: Vec<&String> =
                parts[at].modules.iter().filter(|(own, _)| own == first).map(|(_, key)| key).collect();
            // A module of a module, or one by a computed path: any that has the function.
            let any = *more || keys.is_empty();
            let others = parts.iter().enumerate().filter(|(_, part)| any || keys.contains(&&part.key));
            waiting.extend(others.map(|(other, _)| (other, Some((name.clone(), *count)))));
        }
        let looks = unit.looks.clone();
        for (look, place) in looks {
            let first = parts[at].looks.entry(look).or_insert(place);
            *first = place.min(*first);
        }
    }
}
