//! `dbp-host watch SCRIPT`: runs a script, and runs it again whenever it is saved.
//!
//! | file | idea |
//! | --- | --- |
//! | `files` | which files are watched, and what is in them |
//! | `fingerprint` | what an edit changed |
//! | `compare` | what it did to loss, time and energy |
//! | this one | what is done about it |
//!
//! At a step boundary the sources are read if anything was heard. A version that does not compile is reported, and the run
//! goes on. One that differs in functions that only the host calls is patched in: its functions take the place of those that
//! run, from this boundary on. Any other ends the script there; its run is saved and keeps its directory, and the new version
//! starts in the same process, with libtorch, the device and decoded images as they are.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use rhai::{AST, Engine, EvalAltResult};

use super::errors::{EXIT_INTERRUPTED, Failure, ScriptResult};
use super::resolver::{Library, literal_imports};
use super::say::say;
use super::session::{Options, Session};
use super::sources::SourceStore;
use super::warm::Warm;
use super::{Diagnosis, Outcome, check};

mod compare;
mod files;
mod fingerprint;

use compare::Ended;
use files::{Files, Texts};
use fingerprint::{Edit, Fingerprint};

/// How many patched versions are kept, to go back to when one fails.
const MAX_REVISIONS: usize = 32;
/// What follows from a version that cannot be used.
const GOES_ON: &str = "the run goes on with the version before";
/// How long a look at signals and files is apart while nothing runs.
const IDLE: Duration = Duration::from_millis(20);

/// What a watched session asks about the files it came from.
pub struct Watching {
    files: RefCell<Files>,
    /// What was last looked at, whatever came of it.
    seen: RefCell<Texts>,
    /// Whether the version that was looked at last could not be used.
    broken: Cell<bool>,
    /// Set once the script is to end for its next version.
    restart: Cell<bool>,
    /// Versions whose functions have taken the place of the script's own, the one in force last.
    revisions: RefCell<Vec<Rc<Revision>>>,
    /// How many versions there were since the script began.
    versions: Cell<usize>,
    /// Whether the version that was saved last is not the one in force, because of a slip in it.
    refused: Cell<bool>,
}

/// A version of the script whose functions were patched in.
pub struct Revision {
    pub library: Library,
    pub ast: Rc<AST>,
    /// The names of what differs from the version before.
    pub changed: Vec<String>,
    /// From 2: the script began with the first.
    pub number: usize,
}

impl Revision {
    /// The script as it was saved.
    pub fn text(&self) -> String {
        self.library.text(self.library.store.script_key()).unwrap_or_default()
    }
}

impl Watching {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            files: RefCell::new(Files::new()?),
            seen: RefCell::default(),
            broken: Cell::new(false),
            restart: Cell::new(false),
            revisions: RefCell::default(),
            versions: Cell::new(1),
            refused: Cell::new(false),
        })
    }

    /// For a new session: nothing is patched, nothing asked for.
    fn begin(&self, library: &Library) -> Result<(), Failure> {
        self.restart.set(false);
        self.revisions.borrow_mut().clear();
        self.versions.set(1);
        self.refused.set(false);
        self.watch_sources(library)
    }

    /// The script has been compiled: its imports are known now, and where they lie.
    pub fn compiled(&self, library: &Library) -> Result<(), Failure> {
        self.watch_sources(library)?;
        // What was saved in a folder before it was watched was not heard of.
        self.files.borrow().set_changed();
        Ok(())
    }

    fn watch_sources(&self, library: &Library) -> Result<(), Failure> {
        let paths = library.files();
        self.files.borrow_mut().watch(paths.iter().map(|(_, path)| path.as_path()))
    }

    /// The functions to call hooks of, where they are not the script's own any more.
    pub fn revision(&self) -> Option<Rc<Revision>> {
        self.revisions.borrow().last().cloned()
    }

    /// A hook has failed: gives up the patch that it comes from, and those after it. `false` if it is the script's own.
    pub fn take_back(&self, hook: &str) -> bool {
        let Some(now) = self.revision() else { return false };
        let mut reached = Fingerprint::of(&now.ast).reached_from(hook);
        reached.insert(hook.to_owned());
        let mut revisions = self.revisions.borrow_mut();
        let Some(place) = revisions.iter().rposition(|patch| patch.changed.iter().any(|name| reached.contains(name)))
        else {
            return false;
        };
        revisions.truncate(place);
        self.refused.set(true);
        true
    }

    /// Looks at the sources if anything was heard. Says whether the script is to end here.
    pub fn look(&self, session: &Session) -> bool {
        if self.restart.get() || !self.files.borrow().take_changed() {
            return self.restart.get();
        }
        let revision = self.revision();
        let running = revision.as_deref().map_or(&session.library, |revision| &revision.library);
        let number = self.versions.get() + 1;
        let engine = session.engine();
        let Some(next) = self.saved(running, number, &engine, GOES_ON) else {
            return false;
        };
        let edit = edit(running, &next);
        // Nothing may have begun that a new start would cost.
        let begun = session.in_training() || session.runs.count() > 0;
        if begun && edit != Edit::None && !self.is_sound(session) {
            return false;
        }
        self.accept(&next);
        match edit {
            Edit::None => {}
            // A cell's address says what all of it was made from.
            Edit::Hooks(_) if !begun || session.runs.cell_name().is_some() => self.restart.set(true),
            Edit::Hooks(changed) => {
                let Some(ast) = next.compiled(next.store.script_key()) else { return false };
                session.library.add_patch(&next);
                check::hooks::warn(session, &ast);
                self.versions.set(number);
                let mut revisions = self.revisions.borrow_mut();
                if revisions.len() == MAX_REVISIONS {
                    revisions.remove(0);
                }
                revisions.push(Rc::new(Revision { library: next, ast, changed, number }));
            }
            Edit::Other => self.restart.set(true),
        }
        self.restart.get()
    }

    /// Whether `check` finds nothing in the version on disk that would end it: a slip is not to cost a run. It is told if it does.
    fn is_sound(&self, session: &Session) -> bool {
        let errors = check::errors(session);
        if !errors.is_empty() {
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            say(&format!("{}\n{GOES_ON}", told.join("\n")));
            self.broken.set(true);
            self.refused.set(true);
        }
        errors.is_empty()
    }

    /// The version on disk, if it is news and compiles; one that does not is reported, with what follows from that.
    fn saved(&self, running: &Library, number: usize, engine: &Engine, consequence: &str) -> Option<Library> {
        // A broken version may import what the running one does not: both count.
        let mut files = running.files();
        for key in self
            .seen
            .borrow()
            .keys()
            .filter(|key| !files.iter().any(|(known, _)| known == *key))
            .cloned()
            .collect::<Vec<_>>()
        {
            files.extend(running.store.path(&key).map(|path| (key, path)));
        }
        let Some(mut texts) = files::read(files.iter().map(|(key, path)| (key.as_str(), path.clone()))) else {
            // Still being written: at the next look.
            self.files.borrow().set_changed();
            return None;
        };
        let script = running.store.script_key();
        let emptied = texts.get(script).is_some_and(|text| text.as_ref().is_some_and(|text| text.trim().is_empty()));
        if texts == *self.seen.borrow() || emptied {
            return None; // What is empty is about to be written, or was emptied by a slip.
        }
        let (next, broken) = compile(&running.store, number, engine);
        for (key, _) in next.files() {
            texts.entry(key.clone()).or_insert_with(|| next.text(&key));
        }
        *self.seen.borrow_mut() = texts;
        // What is new may lie in folders that are new.
        if let Err(err) = self.watch_sources(&next) {
            say(&format!("watch: {err}"));
        }
        let Some(broken) = broken else { return Some(next) };
        say(&format!("{broken}\n{consequence}"));
        self.broken.set(true);
        None
    }

    /// A version will do, at last if one before did not.
    fn accept(&self, version: &Library) {
        self.refused.set(false);
        if self.broken.replace(false) {
            say(&format!("{}: no errors any more", version.store.shown(version.store.script_key())));
        }
    }

    /// Waits until the script differs from what ran last, and compiles. `false` if Ctrl-C came first.
    fn wait(&self, last: &Library, failed: bool, engine: &Engine) -> bool {
        let patched = self.revision();
        let last = patched.as_deref().map_or(last, |revision| &revision.library);
        // What was saved while the script ended is news as well; what ran is not, nor what was refused.
        if !self.refused.get() {
            *self.seen.borrow_mut() = last.files().into_iter().map(|(key, _)| (key.clone(), last.text(&key))).collect();
        }
        self.files.borrow().set_changed();
        let paths = last.files();
        let mut written = files::written(&paths);
        while !super::signals::interrupted() {
            std::thread::sleep(IDLE);
            if !self.files.borrow().take_changed() {
                continue;
            }
            if failed {
                // What went wrong may lie outside: a mere save asks for another try.
                let now = files::written(&paths);
                if std::mem::replace(&mut written, now) != written {
                    self.seen.borrow_mut().clear();
                }
            }
            if let Some(next) = self.saved(last, 1, engine, "waiting for the next save") {
                self.accept(&next);
                if failed || edit(last, &next) != Edit::None {
                    return true;
                }
            }
        }
        false
    }
}

/// The key of a patched version of the script, so that its errors show its own lines.
pub fn revised(key: &str, number: usize) -> String {
    format!("{key}@{number}")
}

/// Reads the script and everything it imports by name anew; what is wrong with it, if anything.
fn compile(store: &SourceStore, number: usize, engine: &Engine) -> (Library, Option<Diagnosis>) {
    let source = if number > 1 { revised(store.script_key(), number) } else { store.script_key().to_owned() };
    let library = Library::later(store.clone(), source);
    let all = || -> ScriptResult<()> {
        let script = library.script(engine)?;
        compile_imports(&library, engine, &script, store.script_key())
    };
    let broken = all().err().map(|err| Diagnosis::of(*err, &library, engine));
    (library, broken)
}

fn compile_imports(library: &Library, engine: &Engine, ast: &AST, key: &str) -> ScriptResult<()> {
    for (path, pos) in literal_imports(ast) {
        let known = library.sources().len();
        let (inner, ast) = library.import(engine, key, &path, pos)?;
        if library.sources().len() > known {
            let compiled = compile_imports(library, engine, &ast, &inner);
            compiled.map_err(|err| Box::new(EvalAltResult::ErrorInModule(inner, err, pos)))?;
        }
    }
    Ok(())
}

/// How `next` differs from what runs.
fn edit(running: &Library, next: &Library) -> Edit {
    let modules = |library: &Library| -> Vec<(String, String)> {
        let script = library.store.script_key();
        let mut modules: Vec<_> = library.sources().into_iter().filter(|(key, _)| key != script).collect();
        modules.sort();
        modules
    };
    let (then, now) = (modules(running), modules(next));
    let fingerprint = |library: &Library, key: &str| library.compiled(key).map(|ast| Fingerprint::of(&ast));
    // What the running version imports from within a function may not have been read yet.
    for (key, text) in &now {
        let same = match then.iter().find(|(known, _)| known == key) {
            Some((_, before)) if before == text => true,
            Some(_) => match (fingerprint(next, key), fingerprint(running, key)) {
                (Some(now), Some(then)) => now.edit(&then) == Edit::None,
                _ => false,
            },
            None => true,
        };
        if !same {
            return Edit::Other;
        }
    }
    let script = running.store.script_key();
    match (fingerprint(next, script), fingerprint(running, script)) {
        (Some(now), Some(then)) => now.edit(&then),
        _ => Edit::Other,
    }
}

/// Runs `dbp-host watch SCRIPT` until Ctrl-C; `carry_on` lets runs go on from those that an edit stopped. Returns the exit code.
pub fn watch(mut options: Options, carry_on: bool) -> i32 {
    if let Err(err) = super::begin(&mut options) {
        return super::report(&err.into());
    }
    let ended = super::on_deep_stack(|| run_again_and_again(&options, carry_on)).and_then(|ended| ended);
    ended.unwrap_or_else(|err| super::report(&err.into()))
}

fn run_again_and_again(options: &Options, carry_on: bool) -> Result<i32, Failure> {
    let watching = Rc::new(Watching::new()?);
    let warm = Rc::new(Warm::keeping());
    let mut before: Option<Ended> = None;
    loop {
        let session = Session::watched(options.clone(), Rc::clone(&warm), Rc::clone(&watching))?;
        let engine = super::engine::build(&session);
        watching.begin(&session.library)?;
        warm.begin();
        let outcome = super::guarded(|| super::execute_with(&session, &engine));
        if let Outcome::Interrupted = outcome {
            return Ok(EXIT_INTERRUPTED);
        }
        super::report(&outcome);
        if carry_on {
            warm.carry(session.runs.trained(), matches!(outcome, Outcome::Done));
        }
        let ended = Ended::of(&session);
        if let Some(table) = before.as_ref().and_then(|before| ended.against(before)) {
            say(&table);
        }
        if ended.has_runs() {
            before = Some(ended);
        }
        // What runs next needs the memory, and others may resume what has ended.
        session.runs.release();
        if !matches!(outcome, Outcome::Restart) {
            watching.watch_sources(&session.library)?;
            let failed = matches!(outcome, Outcome::Failed(_));
            let how = if failed { "save it to run it again" } else { "an edit runs it again" };
            say(&format!("watching {}: {how}, Ctrl-C to end", options.script.display()));
            super::signals::set_idle(true);
            let again = watching.wait(&session.library, failed, &engine);
            super::signals::set_idle(false);
            if !again {
                return Ok(0);
            }
        }
    }
}
