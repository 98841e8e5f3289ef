//! Where source texts come from: the script's folder, the binary (`std/…`), a saved run, or a prompt.
//!
//! Every text has a key: its path from the script's folder, or `std/NAME.rhai`. Imports are relative to the importing file
//! and stay inside the folder: `..`, absolute paths, backslashes, colons and symbolic links are refused. A text is read
//! and compiled once; what was read is kept in the session, so that a run directory can hold everything that ran.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use rhai::{
    AST, ASTNode, Engine, EvalAltResult, Expr, LexError, Module, ModuleResolver, Position, Scope, Shared, Stmt,
};

use super::comments;
use super::errors::{Failure, ScriptResult};
use super::session::Session;
use super::stdlib;
use super::suggest::did_you_mean;

/// Extension of scripts and modules; imports leave it out.
const EXTENSION: &str = "rhai";

/// A script or module of more is a mistake: parsing takes some thousand times its bytes.
const MAX_SOURCE_BYTES: u64 = 4 << 20;

/// Where the script and the modules beside it are read from.
#[derive(Clone, Debug)]
pub enum SourceStore {
    /// A script and its folder; `shown` is the folder as the command line named it.
    Disk { folder: PathBuf, shown: PathBuf, script: String },
    /// A run directory with `script.rhai` and `modules/<key>`; `folder` is where the script lay when the run began.
    Saved { run: PathBuf, folder: PathBuf },
    /// What is typed at a prompt in `folder`, as one text; parts of it came out of files.
    Prompt { folder: PathBuf, loaded: RefCell<Vec<Loaded>> },
}

/// Lines of a prompt's text that stand in a file too.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub lines: Range<usize>,
    /// The file as it was named.
    pub file: String,
}

/// Key of what is typed at a prompt.
const PROMPT: &str = "repl";

impl SourceStore {
    /// # Errors
    /// If there is no such script.
    pub fn disk(script: &Path) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::usage(format!("cannot read the script {}: {why}", script.display()));
        if !script.metadata().map_err(|err| refuse(describe_io(&err)))?.is_file() {
            return Err(refuse("not a file".into()));
        }
        let name =
            script.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("its name is not text".into()))?;
        let shown = script.parent().unwrap_or(Path::new("")).to_owned();
        let folder = or_current(&shown).canonicalize().map_err(|err| refuse(describe_io(&err)))?;
        Ok(Self::Disk { folder, shown, script: name.to_owned() })
    }

    /// # Errors
    /// If `run` is not a run directory.
    pub fn saved(run: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| Failure::usage(format!("cannot resume {}: {why}", run.display()));
        let real = run.canonicalize().map_err(|err| refuse(&describe_io(&err)))?;
        if !real.join("script.rhai").is_file() {
            return Err(
                refuse("it holds no script.rhai").with_hint("name a folder that an earlier run made, like runs/2026-…")
            );
        }
        let origin = super::args::read_run_json(&real)?;
        if origin.is_empty() {
            return Err(refuse("it holds no run.json, so its arguments are not known")
                .with_hint("it was stopped before its first step: start it anew"));
        }
        let script = origin.get("script").and_then(|script| script.as_str()).map(Path::new);
        let folder = script.and_then(Path::parent).and_then(|folder| or_current(folder).canonicalize().ok());
        Ok(Self::Saved { folder: folder.unwrap_or_else(|| real.clone()), run: real })
    }

    /// A prompt in the current folder.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn prompt() -> Result<Self, Failure> {
        let refuse = |err: std::io::Error| Failure::machine(format!("cannot tell the current folder: {err}"));
        let folder = Path::new(".").canonicalize().map_err(refuse)?;
        Ok(Self::Prompt { folder, loaded: RefCell::default() })
    }

    /// Where the script lay when its first run began, if this is a saved one; else `script`.
    pub fn origin(&self, script: &Path) -> PathBuf {
        match self {
            Self::Disk { .. } | Self::Prompt { .. } => {
                std::path::absolute(script).unwrap_or_else(|_| script.to_owned())
            }
            Self::Saved { run, .. } => {
                let saved = super::args::read_run_json(run).ok();
                let origin = saved.and_then(|json| json.get("script")?.as_str().map(PathBuf::from));
                origin.unwrap_or_else(|| script.to_owned())
            }
        }
    }

    /// The key of the script itself.
    pub fn script_key(&self) -> &str {
        match self {
            Self::Disk { script, .. } => script,
            Self::Saved { .. } => "script.rhai",
            Self::Prompt { .. } => PROMPT,
        }
    }

    /// The folder of the script; of a saved one, where it lay when its run began.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Disk { folder, .. } | Self::Saved { folder, .. } | Self::Prompt { folder, .. } => folder,
        }
    }

    /// The file of a source; `None` for those in the binary.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        match self {
            Self::Disk { .. } | Self::Prompt { .. } if is_std(key) => None,
            Self::Disk { folder, .. } | Self::Prompt { folder, .. } => Some(folder.join(key)),
            Self::Saved { run, .. } if key == self.script_key() => Some(run.join(key)),
            Self::Saved { run, .. } => Some(run.join("modules").join(key)),
        }
    }

    /// How messages name a source.
    pub fn shown(&self, key: &str) -> String {
        if let Self::Prompt { .. } = self {
            return key.to_owned();
        }
        let key = if key.starts_with(self.script_key()) { self.script_key() } else { key }; // `script.rhai@2`
        match self {
            _ if is_std(key) => key.to_owned(),
            Self::Disk { shown, .. } => shown.join(key).display().to_string(),
            Self::Saved { run, .. } if key == self.script_key() => run.join(key).display().to_string(),
            Self::Saved { run, .. } => run.join("modules").join(key).display().to_string(),
            Self::Prompt { .. } => key.to_owned(),
        }
    }

    /// How messages name a line of a source: its file, and the line there.
    pub fn shown_line(&self, key: &str, line: usize) -> (String, usize) {
        match self.loaded(key, line) {
            Some(Loaded { lines, file }) => (file, line + 1 - lines.start),
            None => (self.shown(key), line),
        }
    }

    /// What a line was loaded from, if it stands at a prompt and was.
    fn loaded(&self, key: &str, line: usize) -> Option<Loaded> {
        let Self::Prompt { loaded, .. } = self else { return None };
        loaded.borrow().iter().find(|part| key == PROMPT && part.lines.contains(&line)).cloned()
    }

    /// `None` if there is no such source.
    fn read(&self, key: &str) -> Result<Option<String>, Failure> {
        let (folder, key) = match self {
            Self::Saved { run, .. } if key == self.script_key() => (run.clone(), key),
            Self::Saved { run, .. } => (run.join("modules"), key),
            Self::Disk { folder, .. } | Self::Prompt { folder, .. } => (folder.clone(), key),
        };
        if let (true, Self::Disk { .. } | Self::Prompt { .. }) = (is_std(key), self) {
            return Ok(stdlib::text(module_name(key)).map(str::to_owned));
        }
        let mut path = folder;
        for part in key.split('/') {
            path.push(part);
            // The script itself may be a link: it was named on the command line.
            if key != self.script_key() && path.is_symlink() {
                return Err(Failure::script(format!("imports do not follow symbolic links: {}", path.display())));
            }
        }
        // A pipe may never end.
        if path.metadata().is_ok_and(|found| !found.is_file() || found.len() > MAX_SOURCE_BYTES) {
            let most = format!("a script is a file of at most {} MiB", MAX_SOURCE_BYTES >> 20);
            return Err(Failure::script(format!("cannot read {}: {most}", path.display())));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(err) => Err(Failure::script(format!("cannot read {}: {}", path.display(), describe_io(&err)))),
        }
    }

    /// Names that an import from the folder of `key` could have meant.
    fn siblings(&self, key: &str) -> Vec<String> {
        if is_std(key) {
            return stdlib::MODULES.iter().map(|(name, _)| format!("std/{name}")).collect();
        }
        let (Self::Disk { folder, .. } | Self::Prompt { folder, .. }) = self else { return Vec::new() };
        let (folder, prefix) = match key.rsplit_once('/') {
            Some((parent, _)) => (folder.join(parent), format!("{parent}/")),
            None => (folder.clone(), String::new()),
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rhai")?.to_owned()))
            .map(|name| format!("{prefix}{name}"))
            .collect()
    }
}

fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether a source comes with the program.
pub fn is_std(key: &str) -> bool {
    key.starts_with("std/")
}

fn module_name(key: &str) -> &str {
    key.trim_start_matches("std/").trim_end_matches(".rhai")
}

fn describe_io(err: &std::io::Error) -> String {
    match err.kind() {
        ErrorKind::NotFound => "no such file or folder".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::InvalidData => "not UTF-8 text".into(),
        _ => err.to_string(),
    }
}

/// The key that `import "path"` means in the source `importer`.
///
/// # Errors
/// If the path could lead out of the script's folder.
pub fn key_of_import(path: &str, importer: &str) -> Result<String, Failure> {
    let refuse = |why: &str| {
        Err(Failure::script(format!("import \"{path}\": {why}"))
            .with_hint("an import names a file below the script's folder, like \"lib/augment\", or \"std/…\""))
    };
    let mut parts: Vec<&str> = Vec::new();
    if path.starts_with('/') {
        return refuse("absolute paths are not allowed");
    }
    if path.contains(['\\', ':', '\0']) {
        return refuse("backslashes and colons are not allowed");
    }
    for part in path.split('/') {
        match part {
            ".." => return refuse("`..` is not allowed"),
            "" => return refuse("an empty name is not allowed"),
            "." => {}
            part => parts.push(part),
        }
    }
    let Some(last) = parts.last_mut() else { return refuse("it names no file") };
    *last = last.strip_suffix(".rhai").unwrap_or(last);
    let path = parts.join("/");
    let folder = importer.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(match folder {
        "" => format!("{path}.{EXTENSION}"),
        _ if is_std(&path) => format!("{path}.{EXTENSION}"),
        _ => format!("{folder}/{path}.{EXTENSION}"),
    })
}

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
        let (key, ast) = self.import(engine, importer, path, pos)?;
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

#[cfg(test)]
mod tests {
    use super::key_of_import;

    #[test]
    fn imports_are_relative_and_stay_inside() {
        assert_eq!(key_of_import("lib/a", "main.rhai").unwrap(), "lib/a.rhai");
        assert_eq!(key_of_import("./b.rhai", "lib/a.rhai").unwrap(), "lib/b.rhai");
        assert_eq!(key_of_import("std/mae", "lib/a.rhai").unwrap(), "std/mae.rhai");
        assert_eq!(key_of_import("dbp", "std/mae.rhai").unwrap(), "std/dbp.rhai");
        for refused in ["../a", "a/../b", "/etc/passwd", "a\\b", "C:a", "", "a//b", "."] {
            assert!(key_of_import(refused, "main.rhai").is_err(), "{refused}");
        }
    }
}
