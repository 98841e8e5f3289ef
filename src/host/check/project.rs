//! A script and all that it imports, parsed: what each file brings, and where its imports lead.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use rhai::{AST, ASTNode, Engine, EvalAltResult, Expr, FnAccess, LexError, ParseErrorType, Position, Stmt};

use super::finding::{Finding, Severity};
use crate::host::comments::neutralize;
use crate::host::diagnosis::Diagnosis;
use crate::host::engine::parser;
use crate::host::errors::Failure;
use crate::host::reference::Docs;
use crate::host::resolver::{Library, circle};
use crate::host::session::Session;
use crate::host::sources::is_std;

/// What an import means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The file with this key.
    File(String),
    /// Not to be known: its path is computed, or it could not be read.
    Unknown,
}

/// A function of a file.
#[derive(Clone, Debug)]
pub struct Own {
    pub name: String,
    pub params: Vec<String>,
    pub private: bool,
    /// Where its name stands.
    pub place: Position,
    /// Where its body begins.
    pub body: Position,
    /// Keys that its last parameter may have, if its comment lists them.
    pub options: Vec<String>,
    /// The type of values that it is a method of, if it says so.
    pub this_type: Option<String>,
}

/// The statements of functions by name and number of parameters.
pub type Bodies = HashMap<(String, usize), Vec<Stmt>>;

/// One source, parsed.
pub struct File {
    pub key: String,
    pub ast: Rc<AST>,
    /// By the place of their path.
    pub targets: HashMap<Position, Target>,
    pub functions: Vec<Own>,
    /// Of closures too.
    pub bodies: Bodies,
    /// What other files see of it: variables, and modules by name.
    pub exports: HashSet<String>,
    pub modules: HashMap<String, Target>,
}

impl File {
    /// Whether it comes with the program.
    pub fn is_std(&self) -> bool {
        is_std(&self.key)
    }

    pub fn statements(&self) -> &[Stmt] {
        (*self.ast).as_ref()
    }
}

/// An import as it was written.
#[derive(Clone, Debug)]
pub struct Import {
    pub path: String,
    /// Key of the file that has it, and the line there.
    pub from: String,
    pub line: usize,
    pub target: Target,
}

pub struct Project<'a> {
    session: &'a Rc<Session>,
    pub library: &'a Library,
    pub engine: &'a Engine,
    /// The script first, then its imports in order.
    pub files: Vec<File>,
    pub imports: Vec<Import>,
    pub findings: Vec<Finding>,
    /// Variables that are set again somewhere: what they hold then is not followed.
    pub assigned: HashSet<String>,
    /// Names of entries that maps have somewhere: a function in a map is called like a method.
    pub entries: HashSet<String>,
    /// Files whose imports are being followed, outermost first.
    following: Vec<String>,
}

impl<'a> Project<'a> {
    /// Reads and parses the script and what it imports; what fails is a finding.
    pub fn load(session: &'a Rc<Session>, engine: &'a Engine) -> Self {
        let library = &session.library;
        let mut project = Self {
            session,
            library,
            engine,
            files: Vec::new(),
            imports: Vec::new(),
            findings: Vec::new(),
            assigned: HashSet::new(),
            entries: HashSet::new(),
            following: Vec::new(),
        };
        match library.script(engine) {
            Ok(ast) => project.add(library.store.script_key().to_owned(), &ast),
            Err(err) => project.failed(*err, "syntax"),
        }
        project
    }

    pub fn file(&self, key: &str) -> Option<&File> {
        self.files.iter().find(|file| file.key == key)
    }

    fn failed(&mut self, err: EvalAltResult, code: &'static str) {
        let err = self.as_a_run(err, self.library.store.script_key().to_owned());
        let diagnosis = Diagnosis::of(err, self.library, self.engine);
        let diagnosis = Diagnosis { callers: Vec::new(), ..diagnosis };
        self.findings.push(Finding { severity: Severity::Error, code, diagnosis, end_column: None });
    }

    /// An error of parsing as a run meets it: there a name that nothing declares may come first.
    fn as_a_run(&self, err: EvalAltResult, key: String) -> EvalAltResult {
        match err {
            EvalAltResult::ErrorInModule(module, inner, place) => {
                let inner = self.as_a_run(*inner, module.clone());
                EvalAltResult::ErrorInModule(module, inner.into(), place)
            }
            EvalAltResult::ErrorParsing(ParseErrorType::BadInput(LexError::Runtime(_)), _) => err,
            EvalAltResult::ErrorParsing(..) => {
                let text = neutralize(&self.library.text(&key).unwrap_or_default());
                parser(self.session).compile(text).map_or_else(EvalAltResult::from, |_| err)
            }
            err => err,
        }
    }

    fn add(&mut self, key: String, ast: &Rc<AST>) {
        let statements: &[Stmt] = (**ast).as_ref();
        let bodies = bodies(ast);
        let imports = imports(ast, &bodies);
        let at = self.files.len();
        self.files.push(File {
            key: key.clone(),
            ast: Rc::clone(ast),
            targets: HashMap::new(),
            functions: functions(ast, &self.library.text(&key).unwrap_or_default()),
            bodies,
            exports: exports(statements),
            modules: HashMap::new(),
        });
        self.entries.extend(entries(ast));
        self.assigned.extend(assigned(ast));
        self.following.push(key.clone());
        let mut targets = HashMap::new();
        let mut modules = HashMap::new();
        for import in imports {
            let target = self.follow(&key, &import);
            if let (true, Some(name)) = (import.top, import.name) {
                modules.insert(name, target.clone());
            }
            targets.insert(import.place, target);
        }
        self.following.pop();
        self.files[at].targets = targets;
        self.files[at].modules = modules;
    }

    fn follow(&mut self, key: &str, import: &Found) -> Target {
        let Some(path) = &import.path else {
            let what = Failure::script("this import's path is computed: what it brings is not looked at");
            let place = (self.library, key, import.place);
            self.findings.push(Finding::new((Severity::Note, "computed-import"), what, place, None));
            return Target::Unknown;
        };
        let line = import.place.line().unwrap_or(0);
        let target = match self.library.import(self.engine, key, path, import.place) {
            Ok((module, ast)) => {
                let again = self.following.iter().position(|outer| *outer == module);
                // Inside a function it is met when that is called, and not by loading.
                if let Some(at) = again.filter(|at| import.top || *at == 0) {
                    let chain: Vec<&str> = self.following[at..].iter().map(String::as_str).collect();
                    let failure = circle(&chain, &module);
                    let place = (self.library, key, import.place);
                    self.findings.push(Finding::new((Severity::Error, "import"), failure, place, None));
                } else if self.file(&module).is_none() {
                    self.add(module.clone(), &ast);
                }
                Target::File(module)
            }
            Err(err) => {
                let code = if matches!(*err, EvalAltResult::ErrorInModule(..)) { "syntax" } else { "import" };
                let err = match key == self.library.store.script_key() {
                    true => err,
                    false => EvalAltResult::ErrorInModule(key.to_owned(), err, Position::NONE).into(),
                };
                self.failed(*err, code);
                Target::Unknown
            }
        };
        self.imports.push(Import { path: path.clone(), from: key.to_owned(), line, target: target.clone() });
        target
    }
}

/// An import statement.
struct Found {
    /// `None` if it is computed.
    path: Option<String>,
    /// Place of the path.
    place: Position,
    name: Option<String>,
    /// Whether it is met when the file is loaded.
    top: bool,
}

fn imports(ast: &AST, bodies: &Bodies) -> Vec<Found> {
    let mut found = Vec::new();
    let mut look = |stmt: &Stmt, top: bool| {
        stmt.walk(&mut Vec::new(), &mut |nodes: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = nodes.last() {
                let (path, name) = &**import;
                found.push(Found {
                    path: if let Expr::StringConstant(text, _) = path { Some(text.to_string()) } else { None },
                    place: path.position(),
                    name: Some(name.as_str().to_owned()).filter(|name| !name.is_empty()),
                    top,
                });
            }
            true
        });
    };
    let statements: &[Stmt] = ast.as_ref();
    statements.iter().for_each(|stmt| look(stmt, true));
    bodies.values().flatten().for_each(|stmt| look(stmt, false));
    // Functions come in the order of their hashes.
    found.sort_by_key(|import| import.place);
    found
}

/// The statements of every function of a file, closures included, by name and number of parameters.
pub(super) fn bodies(ast: &AST) -> Bodies {
    let of = |(name, count): &(String, usize)| {
        let mut alone = ast.clone_functions_only();
        alone.retain_functions(|_, _, own, params| own == name && params == *count);
        let mut statements = Vec::new();
        alone.walk(&mut |nodes: &[ASTNode]| {
            if let [ASTNode::Stmt(stmt)] = nodes {
                statements.push((*stmt).clone());
            }
            true
        });
        statements
    };
    let names = ast.iter_fn_def().map(|function| (function.name.to_string(), function.params.len()));
    names.map(|name| (name.clone(), of(&name))).collect()
}

/// Whether it was written as `|x| …`.
pub fn is_closure(name: &str) -> bool {
    name.starts_with("anon$")
}

pub(super) fn functions(ast: &AST, text: &str) -> Vec<Own> {
    let named = ast.iter_fn_def().filter(|function| !is_closure(&function.name));
    let mut functions: Vec<Own> = named
        .map(|function| Own {
            name: function.name.to_string(),
            params: function.params.iter().map(ToString::to_string).collect(),
            private: function.access == FnAccess::Private,
            place: name_place(&function.name, function.body.start_position(), text),
            body: function.body.start_position(),
            options: options(&function.comments),
            this_type: function.this_type.as_ref().map(ToString::to_string),
        })
        .collect();
    functions.sort_by_key(|function| function.body);
    functions
}

/// Options that take over those of other functions are not looked at.
fn options(comments: &[impl AsRef<str>]) -> Vec<String> {
    let docs = Docs::parse(comments.iter().map(AsRef::as_ref));
    if docs.options_of.is_empty() { docs.options.into_iter().map(|option| option.key).collect() } else { Vec::new() }
}

/// Where the name of a function stands whose body begins at `body`; there, if its name is not found.
fn name_place(name: &str, body: Position, text: &str) -> Position {
    let Some(last) = body.line() else { return body };
    let lines: Vec<&str> = text.lines().take(last).collect();
    let declares = |line: &str| -> Option<usize> {
        let mut found = None;
        for (at, _) in line.match_indices(name) {
            let after = line[at + name.len()..].trim_start().starts_with('(');
            let before = line[..at].trim_end();
            if after && (before.ends_with("fn") || before.ends_with('.')) {
                found = Some(line[..at].chars().count() + 1);
            }
        }
        found
    };
    let found = lines.iter().enumerate().rev().find_map(|(at, line)| Some((at + 1, declares(line)?)));
    let number = |n: usize| u16::try_from(n).ok();
    found.and_then(|(line, column)| Some(Position::new(number(line)?, number(column)?))).unwrap_or(body)
}

fn exports(statements: &[Stmt]) -> HashSet<String> {
    let name = |stmt: &Stmt| match stmt {
        Stmt::Var(var, flags, _) if flags.contains(rhai::ASTFlags::EXPORTED) => Some(var.0.as_str().to_owned()),
        Stmt::Export(export, _) => {
            let (name, alias) = &**export;
            Some(if alias.is_empty() { name.as_str() } else { alias.as_str() }.to_owned())
        }
        _ => None,
    };
    statements.iter().filter_map(name).collect()
}

/// Keys of all map literals, and properties that are assigned.
pub(super) fn entries(ast: &AST) -> HashSet<String> {
    let mut entries = HashSet::new();
    ast.walk(&mut |nodes: &[ASTNode]| {
        match nodes.last() {
            Some(ASTNode::Expr(Expr::Map(map, _))) => {
                entries.extend(map.0.iter().map(|(key, _)| key.as_str().to_owned()))
            }
            Some(ASTNode::Stmt(Stmt::Assignment(assignment))) => entries.extend(last_property(&assignment.1.lhs)),
            _ => {}
        }
        true
    });
    entries
}

fn last_property(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Property(property, _) => Some(property.2.to_string()),
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => last_property(&pair.rhs),
        Expr::StringConstant(text, _) => Some(text.to_string()),
        _ => None,
    }
}

/// Variables that are set after they were declared.
fn assigned(ast: &AST) -> HashSet<String> {
    let mut names = HashSet::new();
    ast.walk(&mut |nodes: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Assignment(assignment))) = nodes.last()
            && let Expr::Variable(variable, ..) = &assignment.1.lhs
        {
            names.insert(variable.1.to_string());
        }
        true
    });
    names
}
