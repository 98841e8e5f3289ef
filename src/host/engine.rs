//! The Rhai engine as every script gets it: limits, language options, output, the API.
//!
//! Limits are the same in debug and release builds. Sizes of arrays, strings and maps are not limited by Rhai, because it
//! would measure a growing value anew at every push; operations bound growth, and functions that make big values at once
//! check for themselves. Operations are counted by the session, from one step boundary to the next, over all modules.

use std::borrow::Cow;
use std::rc::Rc;

use rhai::{Dynamic, Engine, OptimizationLevel};

use super::api;
use super::errors::{self, Failure, Stop};
use super::explain::readable_types;
use super::memory;
use super::resolver::Resolver;
use super::session::Session;

/// Stack of the thread that runs scripts: deep recursion ends in an error, never in an overflow.
pub const STACK_BYTES: usize = 64 << 20;
const MAX_CALL_LEVELS: usize = 128;
const MAX_EXPR_DEPTH: usize = 64;

/// The engine of `session`. Keep it alive for as long as the script runs.
pub fn build(session: &Rc<Session>) -> Rc<Engine> {
    build_with(session, |_| {})
}

/// The same with functions of one's own on top.
pub fn build_with(session: &Rc<Session>, extend: impl FnOnce(&mut Engine)) -> Rc<Engine> {
    let mut engine = new(session);
    extend(&mut engine);
    keep(session, engine)
}

/// The same for looking at scripts without running them: code that can never run stays, and a name that nothing declares is no
/// error of parsing, which would be the last one.
pub fn build_to_check(session: &Rc<Session>) -> Rc<Engine> {
    let mut engine = new(session);
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_strict_variables(false);
    keep(session, engine)
}

/// Parses as [`build`]'s engine does, for the errors that a run would show.
pub fn parser(session: &Rc<Session>) -> Engine {
    new(session)
}

fn keep(session: &Session, engine: Engine) -> Rc<Engine> {
    let engine = Rc::new(engine);
    session.set_engine(&engine);
    engine
}

fn new(session: &Rc<Session>) -> Engine {
    let mut engine = Engine::new();
    engine.set_module_resolver(Resolver(Rc::downgrade(session)));
    engine.set_default_tag(Dynamic::from(Rc::clone(session)));
    engine.set_max_call_levels(MAX_CALL_LEVELS);
    engine.set_max_expr_depths(MAX_EXPR_DEPTH, MAX_EXPR_DEPTH);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    // Folds `64 * 4`, so that it is a constant default of `arg`.
    engine.set_optimization_level(OptimizationLevel::Simple);
    engine.disable_symbol("eval");

    let printing = Rc::downgrade(session);
    engine.on_print(move |text| {
        if let Some(session) = printing.upgrade() {
            session.print(&readable(text, &session));
        }
    });
    let debugging = Rc::downgrade(session);
    engine.on_debug(move |text, source, position| {
        if let Some(session) = debugging.upgrade() {
            let key = source.unwrap_or(session.library.store.script_key());
            let text = readable(text, &session);
            session.print(&format!("{}:{}: {text}", session.library.store.shown(key), position.line().unwrap_or(0)));
        }
    });
    let counting = Rc::downgrade(session);
    engine.on_progress(move |_| counting.upgrade().and_then(|session| progress(&session)).map(Dynamic::from));

    register(&mut engine);
    engine
}

/// An engine that knows everything scripts can call and has no session to run any of it in: for reference pages.
pub fn described() -> Engine {
    let mut engine = Engine::new();
    engine.set_optimization_level(OptimizationLevel::None);
    register(&mut engine);
    engine
}

/// Types and functions.
fn register(engine: &mut Engine) {
    engine.register_type_with_name::<i64>("int");
    engine.register_type_with_name::<f64>("float");
    errors::register(engine);
    api::register(engine);
}

/// What is printed, with types as scripts know them: what `catch` makes of Rhai's own errors names them as Rust does.
fn readable<'a>(text: &'a str, session: &Session) -> Cow<'a, str> {
    match text.contains(concat!(env!("CARGO_CRATE_NAME"), "::")) {
        true => readable_types(text, &session.engine()).into(),
        false => text.into(),
    }
}

/// Asked at every script operation: whether to stop.
fn progress(session: &Session) -> Option<Stop> {
    if !session.count_operation() {
        let limit = session.options.max_operations;
        let failure = Failure::script(format!("the script ran for {limit} operations without a training step"));
        return Some(Stop::Failed(
            failure.with_hint("is there a loop that never ends? --max-operations N raises the limit"),
        ));
    }
    if session.interrupted() && !session.in_training() {
        return Some(Stop::Interrupted);
    }
    if !session.in_training() && session.edited() {
        return Some(Stop::Restart);
    }
    if memory::is_low() && !session.in_training() {
        let failure = Failure::machine("the machine's memory is nearly used up, most of it by this script");
        return Some(Stop::Failed(failure.with_hint("make smaller tensors, arrays or texts, or keep fewer of them")));
    }
    session.pending_stop()
}
