//! What a session has: variables, functions, imports; and how an input changes them.
//!
//! Every input is compiled behind as many line breaks as there were lines before it, so that places are those of the session's
//! one source ([`super::transcript`]). On the first line, which the first input alone has to itself, stand the imports so far,
//! because Rhai forgets them, and the constants, for `global::NAME` in functions. An error leaves everything as it was; an
//! interrupt keeps what was done until then.

use std::path::Path;
use std::rc::Rc;

use rhai::{AST, Dynamic, Engine, EvalAltResult, Expr, Scope, Stmt};

use super::input::Inputs;
use super::transcript::{LAST, Transcript, mentions};
use crate::host::errors::{Failure, ScriptResult};
use crate::host::reference::Reference;
use crate::host::scan::Scan;
use crate::host::session::{Options, Session};
use crate::host::sources::{Loaded, SourceStore};
use crate::host::{Outcome, args, caught, comments, engine, outcome, signals};

/// A module under the name it was imported as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// From the session's folder, or `std/…`.
    pub path: String,
    pub alias: String,
}

impl Import {
    /// As [`crate::host::resolver::Source::key`].
    pub fn key(&self) -> String {
        format!("{}.rhai", self.path)
    }
}

pub struct State {
    pub session: Rc<Session>,
    pub engine: Rc<Engine>,
    pub reference: Reference,
    pub inputs: Inputs,
    /// Each name once.
    pub scope: Scope<'static>,
    /// No statements, only what was defined by `fn`.
    pub functions: AST,
    pub imports: Vec<Import>,
    transcript: Transcript,
    /// The entry of the transcript that made the last value.
    last: Option<usize>,
    /// Whether whoever ended the last input has said why.
    pub explained: bool,
}

impl State {
    /// # Errors
    /// If a folder named on the command line cannot be read.
    pub fn new(options: Options) -> Result<Self, Failure> {
        let session = Session::at_prompt(options)?;
        let engine = engine::build(&session);
        session.library.set_script(String::new(), None);
        Ok(Self {
            reference: Reference::of(&engine),
            inputs: Inputs::new(),
            scope: Scope::new(),
            functions: AST::empty(),
            imports: Vec::new(),
            transcript: Transcript::default(),
            last: None,
            explained: false,
            session,
            engine,
        })
    }

    /// Runs an input and says what its value is; that is `it` from then on, unless it is `()`.
    ///
    /// # Errors
    /// What ended it; then nothing has changed, unless it was interrupted.
    pub fn evaluate(&mut self, text: &str) -> Result<Dynamic, Outcome> {
        self.transcript.begin(text, self.last, &self.inputs);
        self.run(text)
    }

    /// Runs a file as an input. Its imports start from its own folder, if that is in the session's.
    ///
    /// # Errors
    /// As [`Self::evaluate`]; or if it cannot be read.
    pub fn load(&mut self, file: &str) -> Result<(), Outcome> {
        let refuse = |err: std::io::Error| Failure::script(format!("cannot read {file}: {err}"));
        let text = std::fs::read_to_string(file).map_err(refuse)?;
        let real = Path::new(file).canonicalize().map_err(refuse)?;
        // Outside the session's folder nothing can be imported.
        let folder = real.strip_prefix(self.session.script_folder()).ok().and_then(Path::parent).and_then(Path::to_str);
        let text = importing_from(folder.unwrap_or_default(), &text);
        let first = self.transcript.next_line();
        let lines = first..first + text.trim_end().lines().count().max(1);
        if let SourceStore::Prompt { loaded, .. } = &self.session.library.store {
            loaded.borrow_mut().push(Loaded { lines, file: file.to_owned() });
        }
        self.transcript.begin(&text, self.last, &self.inputs);
        self.run(&text).map(|_| ())
    }

    /// Forgets all variables, functions and imports; runs that they held have ended.
    ///
    /// # Errors
    /// If a run's record cannot be written.
    pub fn clear(&mut self) -> Result<(), Failure> {
        self.scope.clear();
        self.functions = AST::empty();
        self.imports.clear();
        self.transcript.clear();
        self.last = None;
        self.session.homes.clear();
        self.session.runs.end_input(&self.session, &Outcome::Done)
    }

    /// Takes note of a line that is no input.
    pub fn note(&mut self, text: &str) {
        self.transcript.note(text);
    }

    /// The inputs that went well, as a script.
    pub fn script(&self) -> String {
        self.transcript.script()
    }

    /// Compiles `text` as it would be run next, without running it.
    ///
    /// # Errors
    /// If it does not parse.
    pub fn compile(&self, text: &str) -> ScriptResult<AST> {
        let first = self.transcript.next_line();
        let used = |import: &&Import| mentions(text, &import.alias);
        let source = behind(first, prefix(self.imports.iter().filter(used)), text);
        let ast = self.engine.compile_with_scope(&self.scope, source).map_err(EvalAltResult::from)?;
        let mut ast = self.functions.merge(&ast);
        ast.set_source(self.session.library.store.script_key());
        Ok(ast)
    }

    /// An error as it is to be shown.
    pub fn failed(&self, err: Box<EvalAltResult>) -> Outcome {
        outcome(Err(err), &self.session, &self.engine)
    }

    /// Runs `work` as an input is run: signals and operations count from here, and a panic is an outcome.
    pub fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Outcome>) -> Result<T, Outcome> {
        let session = Rc::clone(&self.session);
        session.reset_operations();
        session.clear_stop();
        signals::begin_input();
        let result = caught(|| work(self)).unwrap_or_else(|bug| Err(bug.into()));
        signals::end_input();
        session.set_in_training(false);
        self.explained = session.pending_stop().is_some();
        session.clear_stop();
        result
    }

    /// Runs what the transcript was told of last.
    fn run(&mut self, text: &str) -> Result<Dynamic, Outcome> {
        let library = &self.session.library;
        library.set_script(self.transcript.source(), None);
        if mentions(text, "import") {
            library.forget_changed();
        }
        let before = self.scope.clone();
        let result = self.guarded(|state| state.compile_and_run(text));
        let ended = match &result {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome.clone(),
        };
        if matches!(ended, Outcome::Failed(_)) {
            self.scope = before;
            self.transcript.failed();
        } else {
            drop(before);
            self.scope = each_once(&self.scope);
            let entry = self.transcript.good();
            if let Some(value) = result.as_ref().ok().filter(|value| !value.is_unit()) {
                self.scope.set_or_push(LAST, value.clone());
                self.last = entry;
            }
        }
        self.session.library.set_script(self.transcript.source(), None);
        self.session.runs.end_input(&self.session, &ended)?;
        result
    }

    fn compile_and_run(&mut self, text: &str) -> Result<Dynamic, Outcome> {
        let constants: String =
            self.scope.iter_raw().filter(|entry| entry.1).map(|(name, ..)| format!("const {name} = {name};")).collect();
        // The transcript holds the text already.
        let first = self.transcript.next_line() - text.trim_end().lines().count().max(1);
        let source = behind(first, prefix(self.imports.iter()) + constants.as_str(), text);
        let compiled = self.engine.compile_with_scope(&self.scope, source).map_err(EvalAltResult::from);
        let own = compiled.map_err(|err| self.failed(err.into()))?;
        let mut ast = self.functions.merge(&own);
        ast.set_source(self.session.library.store.script_key());
        let ast = Rc::new(ast);
        self.session.library.set_script(self.transcript.source(), Some(Rc::clone(&ast)));
        let result = args::prepare(&self.session, &self.engine, &ast)
            .and_then(|()| self.engine.eval_ast_with_scope::<Dynamic>(&mut self.scope, &ast))
            .map_err(|err| self.failed(err));
        if !matches!(result, Err(Outcome::Failed(_))) {
            self.functions = ast.clone_functions_only();
            self.imports = self.imports_of(&own);
        }
        result.map(Dynamic::flatten)
    }

    /// The imports at the top of a compiled input. One whose path is computed is forgotten after its input.
    fn imports_of(&self, ast: &AST) -> Vec<Import> {
        let mut imports: Vec<Import> = Vec::new();
        for statement in ast.statements() {
            let Stmt::Import(import, _) = statement else { continue };
            let (Expr::StringConstant(path, position), alias) = (&import.0, import.1.as_str()) else { continue };
            let library = &self.session.library;
            let Ok((key, _)) = library.import(&self.engine, library.store.script_key(), path, *position) else {
                continue;
            };
            imports.retain(|known| known.alias != alias);
            if !alias.is_empty() {
                let path = key.trim_end_matches(".rhai").to_owned();
                imports.push(Import { path, alias: alias.to_owned() });
            }
        }
        imports
    }
}

/// `text` so that it begins at line `first`, with something before it on the first line.
fn behind(first: usize, prefix: String, text: &str) -> String {
    format!("{prefix}{}{}", "\n".repeat(first - 1), comments::neutralize(text))
}

fn prefix<'a>(imports: impl Iterator<Item = &'a Import>) -> String {
    imports.map(|Import { path, alias }| format!("import {path:?} as {alias};")).collect()
}

/// `text` with its literal imports made to start from the folder above `folder`, as what is typed does.
fn importing_from(folder: &str, text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("import") {
        let (before, after) = rest.split_at(at + "import".len());
        made.push_str(before);
        rest = after;
        let path = rest.trim_start().strip_prefix('"');
        let is_word = !before[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some(path) = path.filter(|path| !folder.is_empty() && is_word && !path.starts_with("std/"))
            && Scan::of(&made).in_code()
        {
            let quote = rest.len() - path.len();
            made.push_str(&format!("{}{folder}/", &rest[..quote]));
            rest = path;
        }
    }
    made + rest
}

/// The variables without those that others of the same name hide: they would hold their memory.
fn each_once(scope: &Scope<'static>) -> Scope<'static> {
    let entries: Vec<(&str, bool, &Dynamic)> = scope.iter_raw().collect();
    let mut visible = Scope::new();
    for (at, (name, constant, value)) in entries.iter().enumerate() {
        if entries[at + 1..].iter().any(|(later, ..)| later == name) {
            continue;
        }
        if *constant {
            visible.push_constant_dynamic((*name).to_owned(), (*value).clone());
        } else {
            visible.push_dynamic((*name).to_owned(), (*value).clone());
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::engine::STACK_BYTES;

    #[test]
    fn imports_of_a_file_start_from_its_folder() {
        let text = "import \"a\" as a;\nimport \"std/mae\" as mae; // import \"b\"\nlet s = \"import \\\"c\\\"\"; import  \"./d\" as d;";
        let want = text.replace("\"a\"", "\"lib/a\"").replace("./d", "lib/./d");
        assert_eq!(importing_from("lib", text), want);
        assert_eq!(importing_from("", text), text);
    }

    #[test]
    fn a_panic_costs_its_input_alone() {
        let work = || {
            let mut state = State::new(Options::new("repl.rhai")).unwrap();
            assert!(state.evaluate("let x = 1").is_ok());
            let outcome = state.guarded(|_| -> Result<(), _> { panic!("as a bug would") }).unwrap_err();
            assert_eq!(outcome.exit_code(), 4);
            assert_eq!(state.evaluate("x + 1").unwrap().as_int().unwrap(), 2);
        };
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap().join().unwrap();
    }
}
