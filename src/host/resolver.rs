//! The sources of a session: read and compiled once, by key, and kept, so that a run directory can hold everything that ran.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use rhai::{
    AST, ASTNode, Engine, EvalAltResult, Expr, LexError, Module, ModuleResolver, Position, Scope, Shared, Stmt,
};

use super::check::mixups;
use super::comments;
use super::errors::{Failure, ScriptResult};
use super::session::Session;
use super::sources::{SourceStore, is_std, key_of_import};
use super::suggest::did_you_mean;

/// A source text as it was compiled.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the script's folder with its extension, or `std/....rhai` for modules out of the binary.
    pub key: String,
    pub text: String,
}

/// All sources of a session, compiled.
pub struct Library {
    pub store: SourceStore,
    /// The script first, then its imports in the order of their resolution.
    sources: RefCell<Vec<Source>>,
    /// Later texts of the script whose functions were patched in.
    patches: RefCell<Vec<Source>>,
    /// Which source the script's code says it is from.
    script_source: String,
    asts: RefCell<HashMap<String, Rc<AST>>>,
    modules: RefCell<HashMap<String, Shared<Module>>>,
    /// Keys of the modules whose top level runs right now, outermost first.
    loading: RefCell<Vec<String>>,
}

impl Library {
    pub fn new(store: SourceStore) -> Self {
        let script_source = store.script_key().to_owned();
        Self::with_source(store, script_source)
    }

    /// A later version of the script, whose errors are told from those of the one before by the source `script_source`.
    pub fn later(store: SourceStore, script_source: String) -> Self {
        Self::with_source(store, script_source)
    }

    fn with_source(store: SourceStore, script_source: String) -> Self {
        Self {
            store,
            sources: RefCell::default(),
            patches: RefCell::default(),
            script_source,
            asts: RefCell::default(),
            modules: RefCell::default(),
            loading: RefCell::default(),
        }
    }

    /// Takes note of functions that were patched in, for the places of their errors.
    pub fn add_patch(&self, later: &Self) {
        let text = later.text(later.store.script_key()).unwrap_or_default();
        self.patches.borrow_mut().push(Source { key: later.script_source.clone(), text });
    }

    /// What was compiled for a key, if it could be.
    pub fn compiled(&self, key: &str) -> Option<Rc<AST>> {
        self.asts.borrow().get(key).cloned()
    }

    /// The files that were read or would be by imports of a literal path, whether they exist or not.
    pub fn files(&self) -> Vec<(String, PathBuf)> {
        let mut keys = vec![self.store.script_key().to_owned()];
        keys.extend(self.sources.borrow().iter().map(|source| source.key.clone()));
        for (importer, ast) in self.asts.borrow().iter() {
            keys.extend(literal_imports(ast).into_iter().filter_map(|(path, _)| key_of_import(&path, importer).ok()));
        }
        keys.sort();
        keys.dedup();
        keys.into_iter().filter_map(|key| self.store.path(&key).map(|path| (key, path))).collect()
    }

    /// What was read so far, by key: the script first.
    pub fn sources(&self) -> Vec<(String, String)> {
        self.sources.borrow().iter().map(|source| (source.key.clone(), source.text.clone())).collect()
    }

    /// The text of a source, if it was read.
    pub fn text(&self, key: &str) -> Option<String> {
        let (sources, patches) = (self.sources.borrow(), self.patches.borrow());
        sources.iter().chain(patches.iter()).find(|source| source.key == key).map(|source| source.text.clone())
    }

    /// The compiled script.
    ///
    /// # Errors
    /// If it cannot be read or parsed.
    pub fn script(&self, engine: &Engine) -> ScriptResult<Rc<AST>> {
        let key = self.store.script_key();
        let missing = || Failure::usage(format!("cannot read the script {}", self.store.shown(key)));
        self.compile(engine, key)?.ok_or_else(|| missing().at(Position::NONE))
    }

    /// The script's text and what it was compiled to, as it stands now: at a prompt it grows.
    pub fn set_script(&self, text: String, ast: Option<Rc<AST>>) {
        let key = self.store.script_key();
        let mut sources = self.sources.borrow_mut();
        match sources.iter_mut().find(|source| source.key == key) {
            Some(script) => script.text = text,
            None => sources.insert(0, Source { key: key.to_owned(), text }),
        }
        if let Some(ast) = ast {
            self.asts.borrow_mut().insert(key.to_owned(), ast);
        }
    }

    /// Forgets the modules whose files are not what they were, and what was made of them; the next import reads them again.
    pub fn forget_changed(&self) {
        let changed = |source: &Source| {
            let read_anew = source.key != self.store.script_key() && !is_std(&source.key);
            read_anew && self.store.read(&source.key).ok().flatten().is_none_or(|text| text != source.text)
        };
        let changed: Vec<String> =
            self.sources.borrow().iter().filter(|source| changed(source)).map(|source| source.key.clone()).collect();
        if !changed.is_empty() {
            self.sources.borrow_mut().retain(|source| !changed.contains(&source.key));
            self.asts.borrow_mut().retain(|key, _| !changed.contains(key));
            self.modules.borrow_mut().clear();
        }
    }

    /// The compiled module that `import "path"` means in `importer`, with its key.
    ///
    /// # Errors
    /// At `pos` if there is no such module or it is refused; inside the module if it does not parse.
    pub fn import(
        &self,
        engine: &Engine,
        importer: &str,
        path: &str,
        pos: Position,
    ) -> ScriptResult<(String, Rc<AST>)> {
        let key = key_of_import(path, importer).map_err(|err| err.at(pos))?;
        let ast = self.compile(engine, &key).map_err(|err| match *err {
            EvalAltResult::ErrorRuntime(failure, _) => EvalAltResult::ErrorRuntime(failure, pos).into(),
            _ => Box::new(EvalAltResult::ErrorInModule(key.clone(), err, pos)),
        })?;
        ast.map(|ast| (key.clone(), ast)).ok_or_else(|| {
            let siblings = self.store.siblings(&key);
            let meant = key.trim_end_matches(".rhai");
            let hint = did_you_mean(meant, siblings.iter().map(String::as_str))
                .or_else(|| is_std(&key).then(|| format!("modules in the binary: {}", siblings.join(", "))));
            let shown = self.store.shown(&key);
            Failure { hint, ..Failure::script(format!("no module \"{path}\" (looked for {shown})")) }.at(pos)
        })
    }

    fn compile(&self, engine: &Engine, key: &str) -> ScriptResult<Option<Rc<AST>>> {
        if let Some(ast) = self.asts.borrow().get(key) {
            return Ok(Some(Rc::clone(ast)));
        }
        let Some(text) = self.store.read(key).map_err(|err| err.at(Position::NONE))? else { return Ok(None) };
        let plain = comments::neutralize(&text);
        let unclosed = comments::unclosed(&text);
        let mut sources = self.sources.borrow_mut();
        sources.retain(|source| source.key != key); // One that did not compile, at a prompt.
        sources.push(Source { key: key.to_owned(), text });
        drop(sources);
        if let Some(place) = unclosed {
            return Err(unclosed_comment(place).into());
        }
        let mut ast = engine.compile(plain).map_err(EvalAltResult::from)?;
        ast.set_source(if key == self.store.script_key() { &self.script_source } else { key });
        let ast = Rc::new(ast);
        self.asts.borrow_mut().insert(key.to_owned(), Rc::clone(&ast));
        Ok(Some(ast))
    }

    /// Functions that the source `key` can call by script: its own and, qualified, those of its imports; with parameters.
    pub fn functions(&self, key: &str) -> Vec<(String, Vec<String>)> {
        let asts = self.asts.borrow();
        let Some(ast) = asts.get(key) else { return Vec::new() };
        let mut modules = vec![(String::new(), Rc::clone(ast))];
        ast.walk(&mut |path: &[ASTNode]| {
            if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last()
                && let Expr::StringConstant(module, _) = &import.0
                && let Some(ast) = key_of_import(module, key).ok().and_then(|key| asts.get(&key))
            {
                modules.push((format!("{}::", import.1.as_str()), Rc::clone(ast)));
            }
            true
        });
        let functions = modules.iter().flat_map(|(prefix, ast)| {
            ast.iter_functions().map(move |function| {
                let params = function.params.iter().map(|param| (*param).to_owned()).collect();
                (format!("{prefix}{}", function.name), params)
            })
        });
        functions.collect()
    }

    fn module(&self, engine: &Engine, importer: &str, path: &str, pos: Position) -> ScriptResult<Shared<Module>> {
        let before = self.asts.borrow().len();
        let (key, ast) = self.import(engine, importer, path, pos)?;
        if self.asts.borrow().len() > before {
            mixups::refuse(self, engine)?; // Its path was computed: all others were looked at before anything ran.
        }
        if let Some(module) = self.modules.borrow().get(&key) {
            return Ok(Rc::clone(module));
        }
        let script = self.store.script_key();
        let circle = {
            let loading = self.loading.borrow();
            let chain: Vec<&str> = std::iter::once(script).chain(loading.iter().map(String::as_str)).collect();
            chain.iter().position(|entry| *entry == key).map(|at| circle(&chain[at..], &key))
        };
        if let Some(failure) = circle {
            return Err(failure.at(pos));
        }
        self.loading.borrow_mut().push(key.clone());
        let module = Module::eval_ast_as_new(Scope::new(), &ast, engine);
        self.loading.borrow_mut().pop();
        let mut module = module.map_err(|mut err| {
            if err.is_system_exception() {
                err.set_position(pos);
                return err;
            }
            EvalAltResult::ErrorInModule(key.clone(), err, pos).into()
        })?;
        module.set_id(key.as_str());
        module.build_index();
        let module: Shared<Module> = module.into();
        self.modules.borrow_mut().insert(key, Rc::clone(&module));
        Ok(module)
    }
}

/// Rhai says nothing of it.
fn unclosed_comment((line, column): (usize, usize)) -> EvalAltResult {
    let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let problem = LexError::Runtime("this comment is never closed: the rest of the script is in it".into());
    EvalAltResult::ErrorParsing(problem.into(), Position::new(number(line), number(column)))
}

/// What is wrong with importing `key`, whose import led to this file by `chain`.
pub fn circle(chain: &[&str], key: &str) -> Failure {
    Failure::script(format!("imports form a circle: {} → {key}", chain.join(" → ")))
        .with_hint("move what both need into a third file that imports neither")
}

/// The paths that a source imports by a literal text, and where it does.
pub fn literal_imports(ast: &AST) -> Vec<(String, Position)> {
    let mut imports = Vec::new();
    ast.walk(&mut |path: &[ASTNode]| {
        if let Some(ASTNode::Stmt(Stmt::Import(import, _))) = path.last()
            && let Expr::StringConstant(path, pos) = &import.0
        {
            imports.push((path.to_string(), *pos));
        }
        true
    });
    imports
}

/// Hands Rhai the session's modules.
pub struct Resolver(pub Weak<Session>);

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        source: Option<&str>,
        path: &str,
        pos: Position,
    ) -> ScriptResult<Shared<Module>> {
        let session = self.0.upgrade().expect("the engine's tag keeps the session");
        let importer = source.unwrap_or(session.library.store.script_key());
        session.library.module(engine, importer, path, pos)
    }
}
