//! What a script says, without where it says it: whether two versions differ, and in which functions.
//!
//! Rhai's syntax tree can be hashed, positions included; a position is all that it hashes as a `u16`, so a hasher that skips
//! those sees the same in code that only moved. Closures are functions whose names are made from their positions: they are
//! hashed by what is in them, as part of the function they stand in.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};

use rhai::{AST, ASTNode, Expr, FnPtr, ScriptFnMetadata, Stmt};

/// How Rhai's names of closures begin.
const CLOSURE: &[u8] = b"anon$";

/// The key of the statements outside of functions.
const TOP: &str = "";

/// A script, reduced to what tells it from another.
pub struct Fingerprint {
    top: u64,
    /// By name and number of parameters, as `on_step/1`.
    functions: BTreeMap<String, u64>,
    /// All names that stand in a function, by its name.
    mentions: HashMap<String, BTreeSet<String>>,
}

/// How a version differs from the one before.
#[derive(Debug, PartialEq, Eq)]
pub enum Edit {
    /// In nothing that runs.
    None,
    /// In these functions alone, which only the host and each other call: hooks, and what they use.
    Hooks(Vec<String>),
    /// In something that has run already.
    Other,
}

/// A function by itself: a syntax tree with nothing else in it.
struct Alone {
    name: String,
    params: Vec<String>,
    tree: AST,
}

impl Fingerprint {
    pub fn of(ast: &AST) -> Self {
        let functions: Vec<Alone> = ast.iter_functions().map(|function| Alone::out_of(ast, &function)).collect();
        let statements = ast.clone_statements_only();
        let mut closures = HashMap::new();
        for closure in functions.iter().filter(|function| is_closure(&function.name)) {
            hash_closure(closure, &functions, &mut closures);
        }
        let mut mentions: HashMap<String, BTreeSet<String>> = HashMap::new();
        mentions.insert(TOP.to_owned(), mentioned(&statements));
        for function in &functions {
            mentions.entry(function.name.clone()).or_default().extend(mentioned(&function.tree));
        }
        let top = hash(&[], &statements, &closures);
        let own = functions.iter().filter(|function| !is_closure(&function.name));
        let functions =
            own.map(|function| (function.key(), hash(&function.params, &function.tree, &closures))).collect();
        Self { top, functions, mentions }
    }

    /// How `self` differs from `before`. A function that nothing but the host calls can be exchanged while the script runs.
    pub fn edit(&self, before: &Self) -> Edit {
        if self.top != before.top {
            return Edit::Other;
        }
        let keys: BTreeSet<&String> = self.functions.keys().chain(before.functions.keys()).collect();
        let changed: Vec<&String> =
            keys.into_iter().filter(|key| self.functions.get(*key) != before.functions.get(*key)).collect();
        if changed.is_empty() {
            return Edit::None;
        }
        let (now, then) = (self.reached_from(TOP), before.reached_from(TOP));
        let name = |key: &str| key.rsplit_once('/').map_or(key, |(name, _)| name).to_owned();
        let names: Vec<String> = changed.into_iter().map(|key| name(key)).collect();
        if names.iter().any(|name| now.contains(name) || then.contains(name)) {
            Edit::Other
        } else {
            Edit::Hooks(names)
        }
    }

    /// All names that are mentioned where a function leads.
    pub fn reached_from(&self, function: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![function.to_owned()];
        while let Some(name) = open.pop() {
            for next in self.mentions.get(&name).into_iter().flatten() {
                if reached.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        reached
    }
}

fn is_closure(name: &str) -> bool {
    name.as_bytes().starts_with(CLOSURE)
}

impl Alone {
    fn out_of(ast: &AST, function: &ScriptFnMetadata) -> Self {
        let mut tree = ast.clone_functions_only();
        tree.retain_functions(|_, _, name, params| name == function.name && params == function.params.len());
        let params = function.params.iter().map(|param| (*param).to_owned()).collect();
        Self { name: function.name.to_owned(), params, tree }
    }

    fn key(&self) -> String {
        format!("{}/{}", self.name, self.params.len())
    }
}

/// The tree's statements, those of its functions included, and names of parameters.
fn hash(params: &[String], tree: &AST, closures: &HashMap<String, u64>) -> u64 {
    let mut hasher = Positionless { inner: DefaultHasher::new(), closures };
    params.hash(&mut hasher);
    tree.walk(&mut |path: &[ASTNode]| {
        if let [ASTNode::Stmt(statement)] = path {
            statement.hash(&mut hasher);
        }
        true
    });
    hasher.finish()
}

/// Hashes a closure after those that stand in it.
fn hash_closure(closure: &Alone, functions: &[Alone], closures: &mut HashMap<String, u64>) {
    if closures.contains_key(&closure.name) {
        return;
    }
    for name in mentioned(&closure.tree).iter().filter(|name| is_closure(name) && **name != closure.name) {
        if let Some(inner) = functions.iter().find(|function| function.name == *name) {
            hash_closure(inner, functions, closures);
        }
    }
    let own = hash(&closure.params, &closure.tree, closures);
    closures.insert(closure.name.clone(), own);
}

/// Every name that might be a function's: called, pointed to, or written as text.
fn mentioned(tree: &AST) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    tree.walk(&mut |path: &[ASTNode]| {
        match path.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)),
            ) => names.extend([call.name.to_string()]),
            Some(ASTNode::Expr(Expr::Variable(variable, ..))) => names.extend([variable.1.to_string()]),
            Some(ASTNode::Expr(Expr::StringConstant(text, _))) => names.extend([text.to_string()]),
            Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => {
                names.extend(value.read_lock::<FnPtr>().map(|function| function.fn_name().to_owned()));
            }
            _ => {}
        }
        true
    });
    names
}

/// A hasher that skips positions, and takes closures by what is in them.
struct Positionless<'a> {
    inner: DefaultHasher,
    closures: &'a HashMap<String, u64>,
}

impl Hasher for Positionless<'_> {
    fn finish(&self) -> u64 {
        self.inner.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        let closure = bytes.starts_with(CLOSURE).then(|| self.closures.get(std::str::from_utf8(bytes).ok()?)).flatten();
        match closure {
            Some(hash) => self.inner.write_u64(*hash),
            None if bytes.starts_with(CLOSURE) => {}
            None => self.inner.write(bytes),
        }
    }

    fn write_u16(&mut self, _position: u16) {}
}

#[cfg(test)]
mod tests {
    use super::{Edit, Fingerprint};

    const SCRIPT: &str = r#"
        import "std/mae" as mae;
        const K = 3;
        let total = 10;
        let f = |x| x + 1;
        for step in 0..total { print(f.call(step)); work(step); }
        fn work(n) { n * 2 }
        fn on_step(run) { note(run.step); [1, 2].map(|x| x * 2); }
        fn note(step) { print(`step ${step}`); }
        fn on_epoch(run) { print("epoch"); }
    "#;

    fn edit(before: &str, after: &str) -> Edit {
        let mut engine = rhai::Engine::new();
        engine.set_optimization_level(rhai::OptimizationLevel::Simple);
        let of = |text: &str| Fingerprint::of(&engine.compile(text).unwrap());
        of(after).edit(&of(before))
    }

    fn edited(from: &str, to: &str) -> Edit {
        assert!(SCRIPT.contains(from), "{from}");
        edit(SCRIPT, &SCRIPT.replace(from, to))
    }

    fn hooks(names: &[&str]) -> Edit {
        Edit::Hooks(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn moving_code_changes_nothing() {
        assert_eq!(edit(SCRIPT, SCRIPT), Edit::None);
        assert_eq!(edit(SCRIPT, &format!("// a comment\n\n\n{SCRIPT}")), Edit::None);
        assert_eq!(edited("print(f.call(step));", "\n   print( f.call(step) ) ; /* so */"), Edit::None);
        assert_eq!(edited("fn on_step(run) {", "/// About it.\nfn on_step(run) {\n\n"), Edit::None);
    }

    #[test]
    fn hooks_and_what_only_they_call_can_be_exchanged() {
        assert_eq!(edited("\"epoch\"", "\"an epoch\""), hooks(&["on_epoch"]));
        assert_eq!(edited("x * 2);", "x * 3);"), hooks(&["on_step"]));
        assert_eq!(edited("`step ${step}`", "`at ${step}`"), hooks(&["note"]));
        assert_eq!(edited("fn on_epoch(run) { print(\"epoch\"); }", ""), hooks(&["on_epoch"]));
        assert_eq!(
            edited("fn on_epoch(run)", "fn on_validation(run) { helper(); } fn helper() {} fn on_epoch(run)"),
            hooks(&["helper", "on_validation"])
        );
        assert_eq!(edited("fn on_epoch(run)", "fn on_epoch(r)"), hooks(&["on_epoch"]));
    }

    #[test]
    fn everything_else_needs_a_restart() {
        for (from, to) in [
            ("total = 10", "total = 11"),
            ("const K = 3", "const K = 4"),
            ("|x| x + 1", "|x| x + 2"),
            ("n * 2", "n * 3"),
            ("\"std/mae\"", "\"std/dbp\""),
            ("work(step);", ""),
            ("work(step);", "work(step); note(step);"),
            ("fn work(n) { n * 2 }", "fn work(n) { note(n) }"),
            ("let total", "on_step(()); let total"),
        ] {
            assert_eq!(edited(from, to), Edit::Other, "{from} -> {to}");
        }
        // A hook that the script calls itself has run already.
        let called = SCRIPT.replace("work(step);", "work(step); note(step);");
        assert_eq!(edit(&called, &called.replace("`step ${step}`", "`at ${step}`")), Edit::Other);
        let pointed = SCRIPT.replace("work(step);", "[1].map(note);");
        assert_eq!(edit(&pointed, &pointed.replace("`step ${step}`", "`at ${step}`")), Edit::Other);
        let named = SCRIPT.replace("work(step);", "Fn(\"note\").call(1);");
        assert_eq!(edit(&named, &named.replace("`step ${step}`", "`at ${step}`")), Edit::Other);
    }
}
