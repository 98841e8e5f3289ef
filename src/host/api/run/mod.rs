//! `run`: one training run, its steps, its figures, its directory.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, EvalAltResult, FLOAT, FnPtr, INT, ImmutableString, Map, NativeCallContext};
use serde_json::{Value, json};

use super::data::{LoaderHandle, ValLoaderHandle};
use super::models::{ModelHandle, PictureHandle};
use super::optim::OptimizerHandle;
use super::tensor::TensorHandle;
use crate::data::Dataset;
use crate::host::args::to_json;
use crate::host::convert::MaybeMap;
use crate::host::errors::{Failure, ScriptResult, script_error, unplaced};
use crate::host::options::{OptionMap, number};
use crate::host::preflight;
use crate::host::progress::Progress;
use crate::host::runs::{self, SharedRun};
use crate::host::say::{print_line, say};
use crate::host::session::Session;
use crate::host::smoke;
use crate::nn::{Registry, TrainedOn};
use crate::train::checkpoint::replace_file;
use crate::train::experiment::write_sources;
use crate::train::run::{Carried, Goal, Run, Setup, Status, read_scalar};
use crate::train::{AdamW, TrainError};

mod output;
mod steps;
use steps::Steps;

/// What `run.json` will hold.
type Record = serde_json::Map<String, Value>;

/// A run as scripts hold it: copies are the same run.
#[derive(Clone)]
pub struct RunHandle {
    run: SharedRun,
    session: Weak<Session>,
    model: ModelHandle,
    optimizer: OptimizerHandle,
    /// Whose unreadable files are this run's.
    datasets: runs::Datasets,
    name: Rc<str>,
    /// While its steps run.
    progress: Rc<RefCell<Option<Progress>>>,
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_iterator_result::<Steps, INT>();
    let mut functions = exported_module!(functions);
    output::register(engine, &mut functions);
    engine.register_static_module("run", functions.into());
    engine.register_global_module(exported_module!(methods).into());
}

impl RunHandle {
    /// Learning rates and the decorrelation loss, if this step's line is due.
    fn add_automatic_figures(&self) -> Result<(), TrainError> {
        let mut run = self.run.borrow_mut();
        if !run.log_due(run.step()) {
            return Ok(());
        }
        let mut fields = serde_json::Map::new();
        let model = self.model.registry();
        fields.insert("lr".to_owned(), json!(self.optimizer.0.last_lr()));
        if let Some(rate) = model.decor_rate() {
            fields.insert("decor_lr".to_owned(), json!(rate));
        }
        if let Some(loss) = model.decor_loss()? {
            fields.insert("decor_loss".to_owned(), read_scalar(&loss)?);
        }
        run.log(fields);
        Ok(())
    }

    /// What `"auto"` chose, once it has: the run was started before.
    fn note_choice(&self) -> Result<(), TrainError> {
        let Some(choice) = self.model.registry().auto_choice() else { return Ok(()) };
        let names: Vec<&str> = choice.iter().filter(|c| c.chosen).map(|c| c.name.as_str()).collect();
        let mut run = self.run.borrow_mut();
        for (key, value) in [("decorrelated", json!(names)), ("auto", json!(choice))] {
            if run.noted(key) != Some(&value) {
                run.note(key, value)?;
            }
        }
        Ok(())
    }

    fn note_skipped(&self) -> Result<(), TrainError> {
        self.run.borrow_mut().set_skipped(runs::skipped(&self.datasets))
    }

    /// A run that diverged says where its last good checkpoint is.
    fn diverged_or(&self, err: TrainError) -> Box<EvalAltResult> {
        let failure = Failure::from(err);
        if failure.kind != crate::host::errors::Kind::Diverged {
            return unplaced(failure);
        }
        let mut run = self.run.borrow_mut();
        let last = run.dir().join("checkpoints/last");
        // Said at once, because a script may catch this and go on to its next run.
        if let Err(err) = run.finish(Status::Diverged) {
            return unplaced(err);
        }
        let hint = format!("the last good checkpoint is {}; try a smaller lr or decor_lr", last.display());
        unplaced(Failure { message: format!("training diverged: {}", failure.message), ..failure.with_hint(hint) })
    }
}

/// Whether a line of `metrics.jsonl` has this figure from the run itself.
fn is_the_runs_own(figure: &str) -> bool {
    ["step", "epoch", "wall_s", "images_per_s", "energy_kwh", "co2_kg"].contains(&figure)
}

/// Reads one logged value: numbers, text and flags as they are, tensors from the device. Not finite is `null`.
fn logged(ctx: &NativeCallContext, name: &str, value: Dynamic) -> ScriptResult<Value> {
    if let Some(tensor) = value.read_lock::<TensorHandle>() {
        return read_scalar(tensor.tensor()).map_err(|err| script_error(ctx, err));
    }
    if let Ok(int) = value.as_int() {
        return Ok(json!(int));
    }
    if let Some(float) = number(&value) {
        return Ok(json!(float));
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(json!(flag));
    }
    let shown = value.type_name().to_owned();
    value.into_string().map(Value::String).map_err(|_| {
        script_error(ctx, format!("log: {name}: expected a number, text or a tensor of one value, got {shown}"))
    })
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// A training run: copies are the same run.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// let model = models::mae(#{
    ///     image_size: 32, patch_size: 8, channels: images.channels, embed_dim: 16, depth: 1, num_heads: 2,
    ///     decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
    /// });
    /// let opt = optim::adamw(model, #{});
    /// let run = run::start(#{ model: model, opt: opt, loader: loader, log_every: 1 });
    /// ```
    pub type Run = RunHandle;

    /// What `run.steps(total)` gives, for a `for` loop.
    pub type Steps = super::Steps;
}

/// Training runs: their steps, their figures, their directories.
#[export_module]
mod functions {
    /// Starts a run: makes its directory, or, under `--resume`, restores model, optimizer and step from its last checkpoint.
    ///
    /// Options:
    /// - `model` (Model): what is trained
    /// - `opt` (Optimizer): by which; checkpoints hold both
    /// - `loader` (Loader): on what
    /// - `val` (ValLoader): a validation loader, for the list of files
    /// - `recipe` (map): kept in `run.json`
    /// - `name` (string, the script's): in `run.json`, and of the directory where a script makes several
    /// - `log_every` (int, 10): steps between two lines of `metrics.jsonl`
    /// - `validate_every` (int, 0): steps between two validations; 0 is at the end only
    /// - `save_every` (int, as often as it validates, else 100): steps between two checkpoints
    /// - `best` (string, `"val_loss"`): the logged figure that decides which checkpoint is the best; less is better where its name
    ///   ends in `loss`, else more
    /// - `energy` (map, Meter or bool): how its energy is metered: options of `energy::meter`, a meter of that, or `false` for not at
    ///   all
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// let model = models::mae(#{
    ///     image_size: 32, patch_size: 8, channels: images.channels, embed_dim: 16, depth: 1, num_heads: 2,
    ///     decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
    /// });
    /// let opt = optim::adamw(model, #{ lr: 1e-3 });
    /// let run = run::start(#{ model: model, opt: opt, loader: loader, name: "short", energy: #{ country: "NL" } });
    /// for step in run.steps(2) {
    ///     for batch in loader.micro(step) { model.loss(batch).backward(); }
    ///     opt.step();
    ///     run.log(#{ train_loss: model.last_loss() });
    /// }
    /// assert(run.step == 2);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn start(ctx: NativeCallContext, options: Map) -> ScriptResult<RunHandle> {
        let session = Session::of(&ctx);
        let mut options = OptionMap::new(&ctx, "run::start", options);
        let model = typed::<ModelHandle>(&mut options, "model", "a model")?;
        let optimizer = typed::<OptimizerHandle>(&mut options, "opt", "an optimizer")?;
        let loader = typed::<LoaderHandle>(&mut options, "loader", "a loader")?;
        let val = match options.get::<Dynamic>("val")? {
            Some(val) => Some(
                val.try_cast::<ValLoaderHandle>().ok_or_else(|| options.error("val: expected a validation loader"))?,
            ),
            None => None,
        };
        let recipe = options.get::<Map>("recipe")?;
        let name = options.or("name", runs::script_name(&session))?;
        let validate_every = options.count("validate_every")?.unwrap_or(0);
        let log_every = options.count("log_every")?.unwrap_or(10);
        let save_every = options.count("save_every")?.unwrap_or(if validate_every > 0 { validate_every } else { 100 });
        let figure = options.or("best", Goal::default().figure)?;
        if is_the_runs_own(&figure) {
            return Err(options.error(format!("best: {figure} is logged by the run itself; name a figure of run.log")));
        }
        let energy = crate::host::api::energy::of_run(&session, &mut options)?;
        let goal = Goal { higher: !figure.ends_with("loss"), figure };
        options.finish()?;

        let place = |err: Failure| script_error(&ctx, err);
        let dir = session.runs.next_directory(&session, &name).map_err(place)?;
        let mut record = Record::new();
        record.insert("name".to_owned(), json!(name));
        record.extend(runs::about(&session));
        if let Some(mut recipe) = recipe {
            recipe.retain(|_, value| !value.is_unit());
            record.insert("recipe".to_owned(), to_json(&Dynamic::from(recipe)));
        }
        let registry = model.registry();
        record.insert("parameters".to_owned(), json!(registry.parameter_count()));
        let decorrelated: Vec<String> = registry.decorrelated().iter().map(|l| l.name().to_owned()).collect();
        record.insert("decorrelated".to_owned(), json!(decorrelated));
        record.insert("images".to_owned(), json!(loader.loader.dataset().len()));
        let normalization = loader.loader.normalization();
        record.insert("normalization".to_owned(), json!(normalization));
        let table = loader.loader.dataset().classes();
        let (classes, colors) =
            table.map_or_else(Default::default, |table| (table.names.clone(), table.colors.clone()));
        let (mean, std) = (normalization.mean.clone(), normalization.std.clone());
        registry.set_trained_on(Some(TrainedOn { mean, std, classes, colors }));

        let carried = carried(&session, registry, &optimizer.0, &mut record);
        let mut datasets = vec![loader.loader.dataset().clone()];
        datasets.extend(val.as_ref().map(|val| val.loader.dataset().clone()));
        let started = || -> Result<Run, TrainError> {
            write_sources(&dir, &session.running_sources())?;
            write_files(&dir, &datasets)?;
            Run::start(Setup {
                dir: dir.clone(),
                model: Rc::clone(registry),
                optimizer: Rc::clone(&optimizer.0),
                record,
                images_per_step: loader.loader.config().batch as u64,
                steps_per_epoch: loader.loader.steps_per_epoch(),
                log_every,
                validate_every,
                save_every,
                goal,
                energy,
                carried,
            })
        };
        let run = started().map_err(|err| script_error(&ctx, err))?;
        for dataset in &datasets {
            dataset.restore_skipped(run.skipped());
        }
        match run.resumed_at() {
            Some(step) => say(&format!("{}: carrying on from step {step}", dir.display())),
            None => say(&dir.display().to_string()),
        }
        for problem in run.energy_problems() {
            say(&format!("energy: {problem}"));
        }
        let run = Rc::new(RefCell::new(run));
        let datasets = Rc::new(datasets);
        session.runs.add(Rc::clone(&run), Rc::clone(&datasets));
        let handle = RunHandle {
            run,
            session: Rc::downgrade(&session),
            model,
            optimizer,
            datasets,
            name: name.into(),
            progress: Rc::default(),
        };
        handle.note_choice().map_err(|err| script_error(&ctx, err))?;
        Ok(handle)
    }

    /// Whether this is `--smoke`: a run of two steps on few images, to see that a script works. Loops of a script's own, other
    /// than over `run.steps`, can be shortened by it.
    ///
    /// ```rhai
    /// let rounds = if run::is_smoke() { 2 } else { 500 };
    /// assert(rounds == 500);
    /// ```
    pub fn is_smoke(ctx: NativeCallContext) -> bool {
        Session::of(&ctx).options.smoke
    }

    /// Sets the seed of everything that is made after this call: weights, order, crops, masks. `--seed` wins.
    ///
    /// ```rhai
    /// run::seed(7);
    /// let first = nn::linear(4, 2).tensor("linear.weight");
    /// assert(nn::linear(4, 2).tensor("linear.weight").allclose(first));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn seed(ctx: NativeCallContext, seed: INT) -> ScriptResult<()> {
        let seed =
            u64::try_from(seed).map_err(|_| script_error(&ctx, format!("seed: expected 0 or more, got {seed}")))?;
        Session::of(&ctx).set_seed(seed);
        Ok(())
    }
}

/// Under `watch --continue`: weights, moments and step of the run that an edit has stopped at this place of the script.
fn carried(session: &Session, model: &Registry, optimizer: &AdamW, record: &mut Record) -> Option<Carried> {
    let from = session.warm.carried(session.runs.count())?;
    match Carried::take(&from, model, optimizer) {
        Ok(carried) => {
            let carried = carried?;
            say(&format!("going on from step {} of {}", carried.step(), from.display()));
            record.insert("continued_from".to_owned(), json!({ "run": from, "step": carried.step() }));
            Some(carried)
        }
        Err(err) => {
            say(&format!("starting anew: the weights of {} do not fit any more: {err}", from.display()));
            None
        }
    }
}

fn typed<T: Clone + 'static>(options: &mut OptionMap, key: &'static str, what: &str) -> ScriptResult<T> {
    let value = options.need::<Dynamic>(key)?;
    let got = options.context().engine().map_type_name(value.type_name()).to_owned();
    value.try_cast::<T>().ok_or_else(|| options.error(format!("{key}: expected {what}, got {got}")))
}

/// `files.txt`: which set each file went into, and its name.
///
/// Errors: a resumed run whose files are others than they were.
fn write_files(dir: &std::path::Path, datasets: &[Dataset]) -> Result<(), TrainError> {
    let mut text = String::new();
    for (part, dataset) in ["train", "val"].iter().zip(datasets) {
        for file in dataset.files() {
            text.push_str(&format!("{part}\t{file}\n"));
        }
    }
    let path = dir.join("files.txt");
    match std::fs::read_to_string(&path) {
        Ok(before) if before == text => Ok(()),
        Ok(before) => {
            let (then, now) = (before.lines().count(), text.lines().count());
            let problem = format!(
                "the images are not those that this run began with ({then} files then, {now} now), so it cannot be resumed"
            );
            Err(TrainError::broken(&path, problem))
        }
        Err(_) => replace_file(&path, text.as_bytes()),
    }
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
            preflight::check(&session, &inner, &run.optimizer.0, &run.name).map_err(|err| script_error(&ctx, err))?;
            match inner.resumed_at() {
                // What the steps before drew is not drawn again.
                Some(_) => session.set_draws(session.draws().max(inner.draws())),
                None => inner.set_draws(session.draws()),
            }
            // A checkpoint from before the first step, so that there is always one to go back to.
            if inner.step() == inner.carried() && inner.step() < total && inner.resumed_at().is_none() {
                inner.save("last").map_err(|err| script_error(&ctx, err))?;
            }
            inner.step()
        };
        let progress = Rc::clone(&run.progress);
        let figure = run.run.borrow().figure().to_owned();
        *progress.borrow_mut() = (first < total).then(|| Progress::new(&run.name, &figure, first, total));
        Session::of(&ctx).set_printer(move |text| match progress.borrow().as_ref() {
            Some(progress) => progress.print(|| print_line(text)),
            None => print_line(text),
        });
        Ok(Steps::new(run.clone(), ctx.global_runtime_state().clone()))
    }

    /// Adds figures to this step's line of `metrics.jsonl`: numbers, text, flags, tensors of one value. A line is written for every
    /// `log_every`-th step and at every validation; at other steps this costs nothing, and tensors are not read from the device.
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
            if super::is_the_runs_own(&name) {
                return Err(script_error(&ctx, format!("log: {name} is logged by the run itself; take another name")));
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

    /// Calls `work(run)` with the clock stopped: it does not count as training.
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
        let result = work.call_within_context::<Dynamic>(&ctx, (run.clone(),));
        let mut inner = run.run.borrow_mut();
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
