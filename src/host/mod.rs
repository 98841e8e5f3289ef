//! The Rhai side: everything between the command line and the experiment.
//!
//! [`run`] reads a script, finds its parameters, runs it on a thread of its own, and turns whatever comes out into an
//! exit code and, where something is wrong, a message for the person who wrote the script.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use rhai::{AST, Caches, Engine, EvalAltResult, Position, Scope, Shared};

use crate::libtorch::{self, guard_stack, keep_freed_memory};

pub mod api;
pub mod args;
mod captures;
pub mod check;
mod comments;
pub mod convert;
pub mod device;
pub mod diagnosis;
pub mod energy;
pub mod engine;
pub mod errors;
mod explain;
pub mod export;
mod grid;
pub mod list;
mod memory;
pub mod new;
mod oom;
pub mod options;
mod preflight;
pub mod progress;
pub mod reference;
pub mod repl;
pub mod report_command;
pub mod resolver;
pub mod runs;
mod sandbox;
pub mod say;
mod scan;
pub mod session;
pub mod shell;
mod signals;
mod signatures;
mod slips;
pub mod smoke;
pub mod sources;
mod stdlib;
mod suggest;
mod syntax;
mod unset;
mod warm;
mod watch;
mod weights;

pub use diagnosis::Diagnosis;
pub use errors::{EXIT_INTERRUPTED, Failure, Kind, ScriptResult, Stop, check_arg, script_error};
use session::Constants;
pub use session::{Options, Session, TheCell};
pub use watch::watch;

/// Name of the thread that runs scripts, by which its panics are told from others.
const SCRIPT_THREAD: &str = "script";

/// Said when the script's thread runs out of stack.
const OVERFLOW: &str = "error: a value is nested too deeply, or holds itself\n\
    hint: a closure that is put into a variable must not use that variable\n";

/// How a script ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done,
    Interrupted,
    /// Ended for its next version: under `watch` alone.
    Restart,
    Failed(Box<Diagnosis>),
}

impl Outcome {
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Done | Self::Restart => 0,
            Self::Interrupted => EXIT_INTERRUPTED,
            Self::Failed(err) => err.kind.exit_code(),
        }
    }
}

impl From<Failure> for Outcome {
    fn from(err: Failure) -> Self {
        Self::Failed(Box::new(err.into()))
    }
}

/// Runs `dbp-host SCRIPT`: signals, script, messages. Returns the exit code.
pub fn run(mut options: Options) -> i32 {
    if let Err(err) = begin(&mut options) {
        return report(&err.into());
    }
    let _resumed = match runs::lock_resumed(&options) {
        Ok(lock) => lock,
        Err(err) => return report(&err.into()),
    };
    let outcome = on_script_thread(move || match Session::new(options) {
        Ok(session) => execute(&session),
        Err(err) => err.into(),
    });
    report(&outcome)
}

/// Prepares this process for running scripts, and completes their options.
fn begin(options: &mut Options) -> Result<(), Failure> {
    keep_freed_memory();
    signals::install();
    memory::watch();
    quiet_panics();
    if options.cell.is_some() {
        signals::end_with_parent();
    }
    runs::restore_options(options)?;
    complete_energy(options)?;
    if let Some(threads) = options.threads {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
    match options.device {
        // Said either way: libtorch's own choice is yes for convolutions and no for products.
        tch::Device::Cuda(_) => libtorch::memory::allow_tf32(options.tf32)?,
        _ if options.tf32 => say::say("--tf32 changes nothing here: it is for CUDA"),
        _ => {}
    }
    Ok(())
}

/// What the environment says of energy, behind the command line and a resumed run; wrong values end here, before anything runs.
fn complete_energy(options: &mut Options) -> Result<(), Failure> {
    options.energy = std::mem::take(&mut options.energy).or_env()?;
    options.energy.check()
}

/// Tells the person at the terminal how it ended, after all output of the script. Returns the exit code.
pub fn report(outcome: &Outcome) -> i32 {
    // Output that cannot be written has no reader to tell.
    let _ = std::io::stdout().flush();
    if let Outcome::Failed(err) = outcome {
        say::say(&err.to_string());
    }
    outcome.exit_code()
}

/// Runs the session's script on this thread, which needs [`engine::STACK_BYTES`] of stack: see [`on_script_thread`].
pub fn execute(session: &Rc<Session>) -> Outcome {
    execute_with(session, &engine::build(session))
}

/// The same with the session's engine.
fn execute_with(session: &Rc<Session>, engine: &Engine) -> Outcome {
    let result = session.library.script(engine).and_then(|ast| {
        args::prepare(session, engine, &ast)?;
        if let Some(watching) = &session.watching {
            watching.compiled(&session.library).map_err(|err| err.at(Position::NONE))?;
        }
        check::hooks::warn(session, &ast);
        run_script(session, engine, &ast)
    });
    session.set_constants(None); // They may hold what holds the session.
    let outcome = outcome(result, session, engine);
    // What ended the script matters more than a record that could not be written.
    match (session.runs.finish(session, &outcome), &outcome) {
        (Err(err), Outcome::Done) => err.into(),
        (Ok(()), Outcome::Done) => {
            write_page(session);
            session.runs.cells_failed().map_or(outcome, Outcome::from)
        }
        _ => outcome,
    }
}

/// Puts a page beside the grids that the script has run.
fn write_page(session: &Session) {
    let Some(root) = session.runs.grids() else { return };
    match report_command::write_page(&root) {
        Ok(path) => say::say(&format!("report: {}", path.display())),
        // The runs are there all the same, and `dbp-host report` can be asked once more.
        Err(err) => say::say(&format!("the report could not be written: {err}")),
    }
}

/// Runs the script; its constants are the session's meanwhile, for hooks that are called from a module's loop.
#[allow(deprecated)] // Nothing else takes the state that a script runs with, and Rhai's version is fixed.
fn run_script(session: &Session, engine: &Engine, ast: &AST) -> ScriptResult<()> {
    let mut global = engine.new_global_runtime_state();
    global.source = ast.source().map(Into::into);
    global.lib.push(Shared::clone(ast.shared_lib()));
    let constants = Constants::default();
    session.set_constants(Some(Shared::clone(&constants)));
    global.constants = Some(constants);
    engine.eval_statements_raw(&mut global, &mut Caches::new(), &mut Scope::new(), ast.statements()).map(|_| ())
}

fn outcome(result: ScriptResult<()>, session: &Session, engine: &Engine) -> Outcome {
    let Err(err) = result else {
        return match session.options.cell {
            Some(_) => Failure::machine("the script did not come to the cell that it was to run").into(),
            None => Outcome::Done,
        };
    };
    match stop_of(&err) {
        Some(Stop::Interrupted) => Outcome::Interrupted,
        Some(Stop::Restart) => Outcome::Restart,
        Some(Stop::CellEnded) => Outcome::Done,
        _ => Outcome::Failed(Box::new(Diagnosis::of(*err, &session.library, engine))),
    }
}

/// The [`Stop`] that ended a script, if one did, below the calls it passed through.
pub fn stop_of(err: &EvalAltResult) -> Option<Stop> {
    match err {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            stop_of(inner)
        }
        EvalAltResult::ErrorTerminated(token, _) => token.clone().try_cast(),
        _ => None,
    }
}

/// Runs `work` on a thread with the stack that scripts need. A panic inside becomes an outcome: it is a bug in dbp-host,
/// never something a script may cause.
pub fn on_script_thread(work: impl FnOnce() -> Outcome + Send) -> Outcome {
    on_deep_stack(|| guarded(work)).unwrap_or_else(Into::into)
}

/// Runs `work` on a thread with the stack that scripts need.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(SCRIPT_THREAD.into()).stack_size(engine::STACK_BYTES);
        let begin = || {
            guard_stack(engine::STACK_BYTES, OVERFLOW, Kind::Script.exit_code());
            catch_unwind(AssertUnwindSafe(work))
        };
        match builder.spawn_scoped(scope, begin) {
            Ok(handle) => handle.join().unwrap_or_else(Err).map_err(|payload| bug(payload.as_ref())),
            Err(err) => Err(Failure::machine(format!("cannot start a thread: {err}"))),
        }
    })
}

/// Runs `work`; a panic becomes an outcome.
fn guarded(work: impl FnOnce() -> Outcome) -> Outcome {
    caught(work).unwrap_or_else(Into::into)
}

/// What `work` answers, or what is said of a panic inside.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| bug(payload.as_ref()))
}

/// What is said of a panic.
fn bug(payload: &(dyn Any + Send)) -> Failure {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    let place = PANIC_PLACE.lock().ok().and_then(|mut place| place.take());
    let place = place.map_or(String::new(), |at| format!(" ({at})"));
    let first = text.unwrap_or("no message").lines().next().unwrap_or_default();
    Failure::machine(format!("internal error: {first}{place}"))
        .with_hint("this is a bug in dbp-host, not in your script; please report it with the script that shows it")
}

/// Where the script's thread panicked.
static PANIC_PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Keeps Rust's own report of a panic on the script's thread off the screen; [`on_script_thread`] says what is to say.
fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        match thread::current().name() {
            Some(SCRIPT_THREAD) => {}
            // Their panics come back as errors, with the file's name.
            Some(name) if name.starts_with("data ") || name == "validation loader" => return,
            _ => return usual(info),
        }
        if let (Ok(mut place), Some(location)) = (PANIC_PLACE.lock(), info.location()) {
            *place = Some(location.to_string());
        }
    }));
}
