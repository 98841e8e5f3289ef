//! What a script does with a run: its steps, its figures, its pictures.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, FnPtr, INT, ImmutableString, Map, NativeCallContext};
use serde_json::Value;

use super::steps::Steps;
use super::{RunHandle, is_the_runs_own, logged};
use crate::host::api::models::{ModelHandle, PictureHandle};
use crate::host::args::to_json;
use crate::host::convert::MaybeMap;
use crate::host::errors::{ScriptResult, script_error};
use crate::host::preflight;
use crate::host::progress::Progress;
use crate::host::say::say;
use crate::host::session::Session;
use crate::host::smoke;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

#[export_module]
mod methods {
    /// The steps that are left until there are `total`, for a `for` loop; numbers count from 0. Between two steps the run
    /// logs, saves, answers Ctrl-C, and calls the script's `on_step(run)`, `on_epoch(run)` and `on_validation(run)`.
    ///
    /// ```rhai
    /// for step in run.steps(2) {
    ///     for batch in loader.micro(step) { model.loss(batch).backward(); }
    ///     opt.step();
    /// }
    /// assert(run.step == 2);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn steps(ctx: NativeCallContext, run: &mut RunHandle, total: INT) -> ScriptResult<Steps> {
        let total =
            u64::try_from(total).map_err(|_| script_error(&ctx, format!("steps: expected 0 or more, got {total}")))?;
        let session = Session::of(&ctx);
        let total = smoke::steps(&session, total);
        let first = {
            let mut inner = run.run.borrow_mut();
            inner.set_total(total);
            let optimizer = run.optimizer.as_ref().map(|optimizer| &*optimizer.0);
            preflight::check(&session, &inner, optimizer, &run.name).map_err(|err| script_error(&ctx, err))?;
            if inner.resumed_at().is_some() || inner.carried() > 0 {
                // What the steps before drew is not drawn again.
                session.set_draws(session.draws().max(inner.draws()));
            }
            inner.set_draws(session.draws());
            let begins = inner.step() == inner.carried() && inner.resumed_at().is_none();
            if begins && inner.carried() >= total && total > 0 {
                say(&format!(
                    "{}: it had {} steps already and is to have {total}: nothing is trained",
                    run.name,
                    inner.step()
                ));
            }
            // A checkpoint from before the first step, so that there is always one to go back to.
            if begins && (inner.step() < total || inner.carried() > 0) {
                inner.save("last").map_err(|err| script_error(&ctx, err))?;
            }
            inner.step()
        };
        let figure = run.run.borrow().figure().to_owned();
        let device = session.options.device;
        *run.progress.borrow_mut() =
            (first < total).then(|| Progress::new(&session.runs.shown_name(&run.name), &figure, first, total, device));
        Ok(Steps::new(run.clone(), ctx.global_runtime_state().clone()))
    }

    /// Adds figures to this step's line of `metrics.jsonl`: numbers, text, flags, tensors of one value. A line is written for every
    /// `log_every`-th step and at every validation; at other steps this costs nothing, and tensors are not read from the device.
    /// What is `()` is left out.
    ///
    /// ```rhai
    /// for step in run.steps(2) { run.log(#{ train_loss: 1.0 / (step + 1) }); }
    /// assert(run.history("train_loss").len() == 2);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn log(ctx: NativeCallContext, run: &mut RunHandle, fields: Map) -> ScriptResult<()> {
        let mut inner = run.run.borrow_mut();
        if !inner.log_due(inner.step()) {
            return Ok(());
        }
        let mut read = serde_json::Map::new();
        for (name, value) in fields {
            if is_the_runs_own(&name) {
                return Err(script_error(&ctx, format!("log: {name} is logged by the run itself; take another name")));
            }
            if value.is_unit() {
                continue; // What does not apply has no field.
            }
            let value = logged(&ctx, &name, value)?;
            read.insert(name.to_string(), value);
        }
        inner.log(read);
        Ok(())
    }

    /// Adds a line to `layers.jsonl`: decorrelation loss and correlation of every decorrelated and every probed layer.
    ///
    /// ```rhai
    /// model.probe_correlation("encoder.**");
    /// for step in run.steps(1) {
    ///     for batch in loader.micro(step) { model.loss(batch).backward(); }
    ///     opt.step();
    ///     run.log_layers();
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn log_layers(ctx: NativeCallContext, run: &mut RunHandle) -> ScriptResult<()> {
        run.run.borrow_mut().log_layers().map_err(|err| script_error(&ctx, err))
    }

    /// Whether a step is to be validated: every `validate_every` steps, and the last one.
    ///
    /// ```rhai
    /// for step in run.steps(3) {
    ///     assert(run.validation_due(step) == (step == 2));
    /// }
    /// ```
    #[rhai_fn(pure)]
    pub fn validation_due(run: &mut RunHandle, step: INT) -> bool {
        run.run.borrow().validation_due(u64::try_from(step).unwrap_or(0))
    }

    /// Calls `work(run)` with the clock stopped: it does not count as training. The model has the weights to evaluate at meanwhile,
    /// if they are others than those to train at (`optim::schedule_free_adamw`).
    ///
    /// ```rhai
    /// let val = loader.validation(images);
    /// for step in run.steps(1) {
    ///     let loss = run.untimed(|run| {
    ///         let sum = 0.0;
    ///         for batch in val.batches() { sum += model.evaluate(batch); }
    ///         sum
    ///     });
    ///     run.log(#{ val_loss: loss });
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn untimed(ctx: NativeCallContext, run: &mut RunHandle, work: FnPtr) -> ScriptResult<Dynamic> {
        let was_running = run.run.borrow_mut().pause();
        run.run.borrow().mark();
        let was_averaged = run.run.borrow().set_averaged(true).map_err(|err| script_error(&ctx, err))?;
        let result = work.call_within_context::<Dynamic>(&ctx, (run.clone(),));
        let mut inner = run.run.borrow_mut();
        inner.set_averaged(was_averaged).map_err(|err| script_error(&ctx, err))?;
        inner.mark();
        if was_running {
            inner.resume_clock();
        }
        drop(inner);
        result
    }

    /// Saves a picture as `pictures/NAME-STEP.png`; returns its path.
    ///
    /// ```rhai
    /// for batch in loader.micro(0) {
    ///     print(run.picture("masked", model.reconstruct(batch)));
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn picture(
        ctx: NativeCallContext,
        run: &mut RunHandle,
        name: ImmutableString,
        picture: PictureHandle,
    ) -> ScriptResult<ImmutableString> {
        let plain = name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) && !name.is_empty();
        if !plain {
            return Err(script_error(&ctx, format!("name: expected letters, digits, - and _, got \"{name}\"")));
        }
        let path = run.run.borrow_mut().picture(&name, &picture.0).map_err(|err| script_error(&ctx, err))?;
        Ok(path.display().to_string().into())
    }

    /// Adds a fact to `run.json`: a number, text, an array or a map.
    ///
    /// ```rhai
    /// run.note("lesson", #{ learned: "nothing yet", after: 0 });
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn note(
        ctx: NativeCallContext,
        run: &mut RunHandle,
        name: ImmutableString,
        value: Dynamic,
    ) -> ScriptResult<()> {
        let mut run = run.run.borrow_mut();
        if run.is_reserved(&name) {
            return Err(script_error(&ctx, format!("note: {name} is the run's own; take another name")));
        }
        run.note(&name, to_json(&value)).map_err(|err| script_error(&ctx, err))
    }

    /// Steps done.
    ///
    /// ```rhai
    /// assert(run.step == 0);
    /// ```
    #[rhai_fn(get = "step", pure)]
    pub fn step(run: &mut RunHandle) -> INT {
        run.run.borrow().step() as INT
    }

    /// Whole epochs done.
    ///
    /// ```rhai
    /// for step in run.steps(5) { run.log(#{ at: step }); }
    /// assert(run.epoch == 2); // of two steps each
    /// ```
    #[rhai_fn(get = "epoch", pure)]
    pub fn epoch(run: &mut RunHandle) -> INT {
        run.run.borrow().epoch() as INT
    }

    /// Seconds of training so far, validation excluded.
    ///
    /// ```rhai
    /// assert(run.wall_s == 0.0);
    /// ```
    #[rhai_fn(get = "wall_s", pure)]
    pub fn wall_s(run: &mut RunHandle) -> FLOAT {
        run.run.borrow().wall_s()
    }

    /// What training has cost so far, as `energy::meter`'s `reading` gives it; `()` where energy is not metered.
    ///
    /// ```rhai
    /// assert(run.energy.seconds >= 0.0);
    /// ```
    #[rhai_fn(get = "energy", pure)]
    pub fn energy(run: &mut RunHandle) -> MaybeMap {
        run.run.borrow_mut().cost().map_or(Dynamic::UNIT, crate::host::api::energy::reading_map)
    }

    /// The best validation so far, `#{ val_loss, step }`, or with the name of `run::start`'s `best` in the place of
    /// `val_loss`; `()` before the first one.
    ///
    /// ```rhai
    /// for step in run.steps(1) { run.log(#{ val_loss: 0.5 }); }
    /// assert(run.best.val_loss == 0.5 && run.best.step == 1);
    /// ```
    #[rhai_fn(get = "best", pure)]
    pub fn best(run: &mut RunHandle) -> MaybeMap {
        run.run.borrow().best().map_or(Dynamic::UNIT, |best| {
            let figure = (best.figure.as_str().into(), best.value.into());
            Map::from([figure, ("step".into(), (best.step as INT).into())]).into()
        })
    }

    /// What was logged under a name so far, oldest first: an array of `#{ step, wall_s, value }`, lines without it left out.
    ///
    /// ```rhai
    /// for step in run.steps(2) { run.log(#{ train_loss: 1.0 / (step + 1) }); }
    /// assert(run.history("train_loss").map(|point| point.value) == [1.0, 0.5]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn history(ctx: NativeCallContext, run: &mut RunHandle, name: ImmutableString) -> ScriptResult<Array> {
        let lines = run.run.borrow().lines().map_err(|err| script_error(&ctx, err))?;
        let point = |line: &Value| {
            let value = line.get(name.as_str())?.as_f64()?;
            let (step, wall_s) = (line["step"].as_i64()?, line["wall_s"].as_f64()?);
            let point = Map::from([
                ("step".into(), step.into()),
                ("wall_s".into(), wall_s.into()),
                ("value".into(), value.into()),
            ]);
            Some(Dynamic::from(point))
        };
        Ok(lines.iter().filter_map(point).collect())
    }

    /// The run's directory.
    ///
    /// ```rhai
    /// print(`everything is in ${run.dir}`);
    /// ```
    #[rhai_fn(get = "dir", pure)]
    pub fn dir(run: &mut RunHandle) -> ImmutableString {
        run.run.borrow().dir().display().to_string().into()
    }

    /// The model that is trained.
    ///
    /// ```rhai
    /// assert(run.model.parameters == model.parameters);
    /// ```
    #[rhai_fn(get = "model", pure)]
    pub fn model(run: &mut RunHandle) -> ModelHandle {
        run.model.clone()
    }
}
