//! The steps of a run, for a `for` loop. Between two of them everything happens that is not training.
//!
//! Under `watch`, edits are looked for first: a hook that was edited during a step is called at that step's end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rhai::{Dynamic, EvalAltResult, GlobalRuntimeState, INT, NativeCallContext, Position, Shared};
use serde_json::{Value, json};

use super::RunHandle;
use crate::host::energy::tell_cost;
use crate::host::errors::{ScriptResult, Stop, unplaced};
use crate::host::oom;
use crate::host::preflight::Timing;
use crate::host::say::say;
use crate::host::session::Session;
use crate::host::watch::Revision;
use crate::host::{Diagnosis, Kind, stop_of};
use crate::train::run::{Goal, Status};

/// The functions of a script that a run calls by itself, with the run as their argument.
const ON_STEP: &str = "on_step";
const ON_EPOCH: &str = "on_epoch";
const ON_VALIDATION: &str = "on_validation";

/// What a `for` loop iterates over.
#[derive(Clone)]
pub struct Steps {
    state: Rc<State>,
    /// The caller's modules and functions, for hooks.
    global: Rc<GlobalRuntimeState>,
}

/// Ends with the loop, however that is left: `break`, `return` and errors drop the iterator and with it this.
struct State {
    handle: RunHandle,
    /// Whether a step has been handed out and not ended yet.
    in_step: Cell<bool>,
    ended: Cell<bool>,
    timing: Timing,
    hooks: RefCell<Hooks>,
}

/// A version of the script, and what its hooks are called with.
#[derive(Clone)]
struct Hooks {
    /// As [`Session::version`] has it.
    version: usize,
    global: Rc<GlobalRuntimeState>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn end(&self) {
        if self.ended.replace(true) {
            return;
        }
        if let Ok(mut run) = self.handle.run.try_borrow_mut() {
            run.pause();
            // Whatever comes after the loop evaluates. Where gradients are left over, `untimed` says what is wrong.
            let _ = run.set_averaged(true);
        }
        if let Some(session) = self.handle.session.upgrade() {
            session.set_in_training(false);
        }
        oom::set_pass(None);
        if let Some(progress) = self.handle.progress.borrow_mut().take() {
            progress.finish();
        }
    }
}

impl Iterator for Steps {
    type Item = ScriptResult<INT>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state.ended.get() {
            return None;
        }
        let next = self.advance();
        if !matches!(next, Ok(Some(_))) {
            self.state.end();
        }
        next.transpose()
    }
}

impl Steps {
    pub fn new(handle: RunHandle, mut global: GlobalRuntimeState) -> Self {
        // Hooks are the script's, whoever runs the loop: they see its constants.
        if let Some(constants) = handle.session.upgrade().and_then(|session| session.constants()) {
            global.constants = Some(constants);
        }
        let global = Rc::new(global);
        // Where another version has been patched in by now, the first step takes it over.
        let hooks = RefCell::new(Hooks { version: 0, global: Rc::clone(&global) });
        let (in_step, ended) = (Cell::new(false), Cell::new(false));
        let state = State { handle, in_step, ended, hooks, timing: Timing::default() };
        Self { state: Rc::new(state), global }
    }

    /// Ends the step before, if there is one, and begins the next.
    fn advance(&self) -> ScriptResult<Option<INT>> {
        let handle = &self.state.handle;
        let Some(session) = handle.session.upgrade() else { return Ok(None) };
        session.reset_operations();
        let restart = session.edited();
        self.take_over_hooks(&session)?;
        if self.state.in_step.replace(false) {
            self.end_step()?;
        }
        let mut run = handle.run.borrow_mut();
        if session.interrupted() {
            let saved = run.save("last").and_then(|()| run.finish(Status::Interrupted));
            saved.map_err(unplaced)?;
            let (dir, cost) = (run.dir().display().to_string(), run.summary());
            drop(run);
            self.state.end();
            tell_cost(&session, &cost);
            say(&format!("interrupted: saved; carry on with\n    dbp-host --resume {dir}"));
            // A loop with an empty body drops what its iterator returns; the next operation would meet this instead.
            session.request_stop(Stop::Interrupted);
            return Err(Stop::Interrupted.error());
        }
        if restart && run.step() < run.total() {
            let saved = run.save("last").and_then(|()| run.finish(Status::Interrupted));
            saved.map_err(unplaced)?;
            let stopped = format!("{}: stopped at step {} for the next version", run.dir().display(), run.step());
            drop(run);
            self.state.end();
            say(&stopped);
            session.request_stop(Stop::Restart);
            return Err(Stop::Restart.error());
        }
        if run.step() >= run.total() {
            run.finish(Status::Done).map_err(unplaced)?;
            let cost = run.summary();
            drop(run);
            self.state.end();
            tell_cost(&session, &cost);
            return Ok(None);
        }
        session.set_in_training(true);
        self.state.in_step.set(true);
        run.begin_step().map_err(unplaced)?;
        Ok(Some(run.step() as INT))
    }

    fn end_step(&self) -> ScriptResult<()> {
        let handle = &self.state.handle;
        let epoch_before = handle.run.borrow().epoch();
        handle.add_automatic_figures().map_err(unplaced)?;
        handle.note_skipped().map_err(unplaced)?;
        handle.note_choice().map_err(unplaced)?;
        let ended = handle.run.borrow_mut().end_step();
        let line = ended.map_err(|err| handle.diverged_or(err))?;
        let step = handle.run.borrow().step();
        if let Some(progress) = handle.progress.borrow().as_ref() {
            progress.step(step, line.as_ref());
            if let (Some(left), Some(session)) =
                (self.state.timing.after_step(&handle.run.borrow()), handle.session.upgrade())
            {
                session.tell(&format!("{}: {left}", handle.name));
            }
        }
        let validated = line.is_some_and(|line| handle.run.borrow().is_validation(&line));
        let new_epoch = handle.run.borrow().epoch() > epoch_before;
        for (hook, due) in [(ON_STEP, true), (ON_EPOCH, new_epoch), (ON_VALIDATION, validated)] {
            if due {
                self.call_hook(hook)?;
            }
        }
        let mut run = handle.run.borrow_mut();
        if step == run.total() && run.best().is_none() && run.figure() != Goal::default().figure {
            let figure = run.figure();
            say(&format!("{}: {figure} was never logged, so there is no best checkpoint", handle.name));
        }
        if let Some(session) = handle.session.upgrade() {
            run.set_draws(session.draws());
        }
        let saved = run.save_if_due();
        drop(run);
        saved.map_err(|err| handle.diverged_or(err))
    }

    /// Puts functions of a newer version in the place of the script's own, if `watch` has patched some in since the step before.
    fn take_over_hooks(&self, session: &Session) -> ScriptResult<()> {
        let number = session.version();
        if self.state.hooks.borrow().version == number {
            return Ok(());
        }
        let revision = session.watching.as_ref().and_then(|watching| watching.revision());
        *self.state.hooks.borrow_mut() = self.hooks_of(session, revision.as_deref());
        let known = self.state.handle.version.replace(number);
        // One that is known, or that another loop has gone back to.
        let Some(revision) = revision.filter(|_| number > known) else { return Ok(()) };
        let step = self.state.handle.run.borrow().step() + u64::from(self.state.in_step.get());
        let there = |name: &&String| revision.ast.iter_functions().any(|function| function.name == name.as_str());
        let (kept, gone): (Vec<&String>, Vec<&String>) = revision.changed.iter().partition(there);
        for (names, what) in [(kept, "patched, in force"), (gone, "removed")] {
            if !names.is_empty() {
                let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
                say(&format!("{}: {what} from the end of step {}", names.join(", "), step.max(1)));
            }
        }
        self.note_patch(session, json!({ "step": step, "functions": revision.changed }))
    }

    /// What the hooks of a version are called with: the caller's modules, with the functions of that version for the script's.
    fn hooks_of(&self, session: &Session, revision: Option<&Revision>) -> Hooks {
        let Some(revision) = revision else { return Hooks { version: 0, global: Rc::clone(&self.global) } };
        let mut global = (*self.global).clone();
        let script = session.library.compiled(session.library.store.script_key());
        for module in global.lib.iter_mut() {
            // The module's own functions stay; it is the script's that were saved anew.
            if script.as_ref().is_some_and(|script| Shared::ptr_eq(module, script.shared_lib())) {
                *module = Shared::clone(revision.ast.shared_lib());
            }
        }
        global.source = revision.ast.source().map(Into::into);
        Hooks { version: revision.number, global: Rc::new(global) }
    }

    /// Puts the version before back, because a hook of the one that was patched in has failed: an edit does not cost the run.
    fn take_back(&self, session: &Session, name: &str, err: EvalAltResult) -> ScriptResult<()> {
        let Some(watching) = session.watching.as_ref().filter(|watching| watching.take_back(name)) else {
            return Err(err.into());
        };
        *self.state.hooks.borrow_mut() = self.hooks_of(session, watching.revision().as_deref());
        self.state.handle.version.set(session.version());
        // A hook without an end has used them up.
        session.reset_operations();
        let step = self.state.handle.run.borrow().step();
        let failed = Diagnosis::of(err, &session.library, &session.engine());
        say(&format!("{failed}\n{name}: failed at step {step}; the version before is back, and the run goes on"));
        self.note_patch(session, json!({ "step": step, "failed": name }))
    }

    /// Says in `run.json` what happened to the script, and puts the text that runs now into the run's directory.
    fn note_patch(&self, session: &Session, patch: Value) -> ScriptResult<()> {
        let sources = session.running_sources();
        let text = sources.first().map_or("", |(_, text)| text.as_str());
        let mut run = self.state.handle.run.borrow_mut();
        let mut patches = run.noted("patches").and_then(|known| known.as_array().cloned()).unwrap_or_default();
        patches.push(patch);
        run.note("patches", patches.into()).map_err(unplaced)?;
        session.runs.patch(run.dir(), text).map_err(unplaced)
    }

    /// Calls `fn NAME(run)` of the script, if it has one.
    fn call_hook(&self, name: &str) -> ScriptResult<()> {
        let Some(session) = self.state.handle.session.upgrade() else { return Ok(()) };
        let Hooks { version, global } = self.state.hooks.borrow().clone();
        let defined = global.lib.iter().any(|module| module.get_script_fn(name, 1).is_some());
        if !defined {
            return Ok(());
        }
        self.state.handle.run.borrow().set_averaged(true).map_err(unplaced)?;
        let engine = session.engine();
        let source = global.source.as_deref();
        let ctx = NativeCallContext::new_with_all_fields(&engine, name, source, &global, Position::NONE);
        match ctx.call_fn::<Dynamic>(name, (self.state.handle.clone(),)) {
            Err(err) if version > 0 && is_a_slip(&err) => self.take_back(&session, name, *err),
            ended => ended.map(|_| ()),
        }
    }
}

/// Whether an error is the script's own, endless loops included: not a signal, a want of memory, or a wish to end.
fn is_a_slip(err: &EvalAltResult) -> bool {
    match stop_of(err) {
        Some(Stop::Failed(failure)) => failure.kind == Kind::Script,
        Some(_) => false,
        None => !matches!(err, EvalAltResult::Exit(..)),
    }
}
