//! The Rhai side: everything between the command line and the experiment.
//!
//! [`run`] reads a script, finds its parameters, runs it on a thread of its own, and turns whatever comes out into an
//! exit code and, where something is wrong, a message for the person who wrote the script.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use rhai::{Engine, EvalAltResult};

pub mod api;
pub mod args;
mod comments;
pub mod convert;
pub mod device;
pub mod diagnosis;
pub mod energy;
pub mod engine;
pub mod errors;
pub mod export;
pub mod list;
mod memory;
pub mod new;
pub mod options;
mod preflight;
pub mod progress;
pub mod reference;
pub mod resolver;
pub mod runs;
mod sandbox;
pub mod say;
pub mod session;
pub mod shell;
mod signals;
pub mod smoke;
mod stdlib;
mod suggest;
mod weights;

pub use diagnosis::Diagnosis;
pub use errors::{EXIT_INTERRUPTED, Failure, Kind, ScriptResult, Stop, check_arg, script_error};
pub use session::{Options, Session};

/// Name of the thread that runs scripts, by which its panics are told from others.
const SCRIPT_THREAD: &str = "script";

/// How a script ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Done,
    Interrupted,
    Failed(Box<Diagnosis>),
}

impl Outcome {
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Done => 0,
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
    signals::install();
    memory::watch();
    quiet_panics();
    if let Err(err) = runs::restore_options(&mut options).and_then(|()| complete_energy(&mut options)) {
        return report(&err.into());
    }
    let _resumed = match runs::lock_resumed(&options) {
        Ok(lock) => lock,
        Err(err) => return report(&err.into()),
    };
    if let Some(threads) = options.threads {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
    let outcome = on_script_thread(move || match Session::new(options) {
        Ok(session) => execute(&session),
        Err(err) => err.into(),
    });
    report(&outcome)
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
    let engine = engine::build(session);
    let result = session.library.script(session, &engine).and_then(|ast| {
        args::prepare(session, &engine, &ast)?;
        engine.run_ast(&ast)
    });
    let outcome = outcome(result, session, &engine);
    // What ended the script matters more than a record that could not be written.
    match (session.runs.finish(&outcome), &outcome) {
        (Err(err), Outcome::Done) => err.into(),
        _ => outcome,
    }
}

fn outcome(result: ScriptResult<()>, session: &Session, engine: &Engine) -> Outcome {
    let Err(err) = result else { return Outcome::Done };
    match stop_of(&err) {
        Some(Stop::Interrupted) => Outcome::Interrupted,
        _ => Outcome::Failed(Box::new(Diagnosis::of(*err, session, engine))),
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
    thread::scope(|scope| {
        let spawned = thread::Builder::new()
            .name(SCRIPT_THREAD.into())
            .stack_size(engine::STACK_BYTES)
            .spawn_scoped(scope, || catch_unwind(AssertUnwindSafe(work)));
        let result = match spawned {
            Ok(handle) => handle.join().unwrap_or_else(Err),
            Err(err) => return Failure::machine(format!("cannot start a thread: {err}")).into(),
        };
        result.unwrap_or_else(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
            let place = PANIC_PLACE
                .lock()
                .ok()
                .and_then(|mut place| place.take())
                .map_or(String::new(), |at| format!(" ({at})"));
            let first = text.unwrap_or("no message").lines().next().unwrap_or_default().to_owned();
            Failure::machine(format!("internal error: {first}{place}"))
                .with_hint(
                    "this is a bug in dbp-host, not in your script; please report it with the script that shows it",
                )
                .into()
        })
    })
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
