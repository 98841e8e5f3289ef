//! No function that a module of the standard library calls without `::` shares its name and number of parameters with another
//! module's, or with what another one calls of the host: Rhai would mix them up (`src/host/check/mixups.rs`).
//!
//! The sources are read here once more, without what `check` knows of them.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rhai::{AST, ASTNode, Engine, Expr, FnCallExpr, FnPtr, Stmt};

/// A function by name and number of parameters.
type Signature = (String, usize);

struct Names {
    defined: BTreeSet<Signature>,
    /// Without `::`, methods too.
    called: BTreeSet<Signature>,
    /// Functions that are only named, as arguments are.
    named: BTreeSet<String>,
    /// Parameters too. They come before functions of their name.
    variables: BTreeSet<String>,
}

fn parse(text: &str) -> AST {
    let mut engine = Engine::new_raw();
    engine.set_max_expr_depths(0, 0);
    let plain: String =
        text.lines().map(|line| format!("{}\n", line.strip_prefix("//!").map_or(line, |_| ""))).collect();
    engine.compile(plain).unwrap()
}

fn names(text: &str) -> Names {
    let ast = parse(text);
    let defined: BTreeSet<Signature> =
        ast.iter_functions().map(|function| (function.name.to_owned(), function.params.len())).collect();
    let variables = ast.iter_functions().flat_map(|function| function.params).map(str::to_owned).collect();
    let mut names = Names { defined, called: BTreeSet::new(), named: BTreeSet::new(), variables };
    ast.walk(&mut |nodes: &[ASTNode]| {
        match nodes.last() {
            Some(
                ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _)) | ASTNode::Stmt(Stmt::FnCall(call, _)),
            ) => {
                names.call(call);
            }
            Some(ASTNode::Expr(Expr::DynamicConstant(value, _))) => {
                names.named.extend(value.read_lock::<FnPtr>().map(|pointer| pointer.fn_name().to_owned()));
            }
            Some(ASTNode::Stmt(Stmt::Var(variable, ..))) => {
                names.variables.insert(variable.0.as_str().to_owned());
            }
            Some(ASTNode::Stmt(Stmt::For(parts, _))) => {
                names.variables.insert(parts.0.as_str().to_owned());
            }
            _ => {}
        }
        true
    });
    names
}

impl Names {
    fn call(&mut self, call: &FnCallExpr) {
        if !call.is_qualified() && !call.is_operator_call() {
            self.called.insert((call.name.to_string(), call.args.len()));
        }
        if let ("Fn", [Expr::StringConstant(name, _)]) = (call.name.as_str(), call.args.as_slice()) {
            self.named.insert(name.to_string());
        }
        // A variable of the name of a function of this file may be that function.
        for argument in &call.args {
            if let Expr::Variable(variable, ..) = argument {
                self.named.insert(variable.1.to_string());
            }
        }
    }

    /// What this file calls of its own.
    fn own(&self) -> BTreeSet<&Signature> {
        self.defined.intersection(&self.called).collect()
    }
}

/// Every function that two of these would share, as `function of file, other file`.
fn mixed_up(sources: &BTreeMap<String, String>) -> Vec<String> {
    let all: BTreeMap<&String, Names> = sources.iter().map(|(file, text)| (file, names(text))).collect();
    let mut wrong = Vec::new();
    for (file, names) in &all {
        for (other_file, other) in all.iter().filter(|(other, _)| other != &file) {
            for own in names.own() {
                if other.defined.contains(own) || other.called.contains(own) {
                    wrong.push(format!("{}/{} of {file}, {other_file}", own.0, own.1));
                }
            }
        }
    }
    wrong
}

fn standard() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("stdlib");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "rhai"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn what_modules_call_themselves_has_a_name_of_its_own() {
    let sources = standard();
    assert!(sources.len() >= 9, "{:?}", sources.keys());
    let called: usize = sources.values().map(|text| names(text).own().len()).sum();
    assert!(called >= 30, "{called} functions are called by their own module");
    assert_eq!(mixed_up(&sources), [] as [String; 0]);
}

/// Rhai takes the outermost function of the name, whatever its parameters.
#[test]
fn no_module_hands_on_a_function_by_its_name() {
    let by_name = |text: &str| {
        let names = names(text);
        let functions = names.defined.iter().map(|(name, _)| name);
        let bare = functions.filter(|name| names.named.contains(*name) && !names.variables.contains(*name));
        bare.filter(|name| !name.starts_with("anon$")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(by_name("fn f(x) { x } fn g() { [1].map(f) }"), ["f"]);
    assert_eq!(by_name("fn f(x) { x } fn g() { [1].map(Fn(\"f\")) }"), ["f"]);
    assert_eq!(by_name("fn f(x) { x } fn g(f) { [1].map(f) }"), [] as [String; 0]);
    for (file, text) in standard() {
        assert_eq!(by_name(&text), [] as [String; 0], "{file}");
    }
}

#[test]
fn made_up_offenders_are_found() {
    let of = |one: &str, other: &str| {
        mixed_up(&BTreeMap::from([("a".to_owned(), one.to_owned()), ("b".to_owned(), other.to_owned())]))
    };
    let helper = "fn helper(x) { x } fn f() { helper(1) }";
    assert_eq!(of(helper, "fn helper(y) { y }"), ["helper/1 of a, b"]);
    assert_eq!(of(helper, helper), ["helper/1 of a, b", "helper/1 of b, a"]);
    assert_eq!(of("fn helper(x) { x } fn f() { [1].map(|x| helper(x)) }", "fn helper(y) { y }"), ["helper/1 of a, b"]);
    assert_eq!(of("fn helper(x) { x } fn f() { `${helper(1)}` }", "fn g(x) { x.helper(1) }"), ["helper/1 of a, b"]);
    assert_eq!(of(helper, "fn helper(x, y) { x + y } fn g() { helper(1, 2) }"), [] as [String; 0]);
    assert_eq!(of("fn helper(x) { x }", "import \"a\" as a; fn helper(x) { a::helper(x) }"), [] as [String; 0]);
}
