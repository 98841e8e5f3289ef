//! `run`: one training run, its steps, its figures, its directory.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use rhai::plugin::*;
use rhai::{Dynamic, Engine, EvalAltResult, INT, Map, NativeCallContext};
use serde_json::{Value, json};

use super::custom::refuse_part;
use super::data::{LoaderHandle, ValLoaderHandle};
use super::models::ModelHandle;
use super::optim::OptimizerHandle;
use super::tensor::TensorHandle;
use crate::data::Dataset;
use crate::host::args::to_json;
use crate::host::errors::{Failure, ScriptResult, check_arg, in_words, script_error, unplaced};
use crate::host::options::{OptionMap, number};
use crate::host::progress::Progress;
use crate::host::runs::{self, SharedRun};
use crate::host::say::say;
use crate::host::session::Session;
use crate::nn::{Registry, TrainedOn};
use crate::train::checkpoint::replace_file;
use crate::train::experiment::write_sources;
use crate::train::run::{Carried, Goal, Run, Setup, Status, read_scalar};
use crate::train::{AdamW, TrainError};

mod methods;
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
    /// `None` where the script updates the weights itself.
    optimizer: Option<OptimizerHandle>,
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
    methods::register(engine);
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
        if let Some(optimizer) = &self.optimizer {
            fields.insert("lr".to_owned(), json!(optimizer.0.last_lr()));
        }
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
    let shown = in_words(ctx.engine(), &value);
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
    /// What is handed over is what checkpoints hold. A loop over tensors of one's own needs no loader, and one that updates the
    /// weights by itself no optimizer.
    ///
    /// Options:
    /// - `model` (Model): what is trained
    /// - `opt` (Optimizer, none): what trains it
    /// - `loader` (Loader, none): its training images, for epochs, images per second and the list of files
    /// - `val` (ValLoader, none): its validation images, for the list of files
    /// - `batch` (int, none): without a loader, the images or examples of a step, for images per second
    /// - `steps_per_epoch` (int, none): without a loader, how many steps are an epoch
    /// - `recipe` (map, none): kept in `run.json`
    /// - `name` (string, the script's): the end of the directory's name
    /// - `validate_every` (int, 0): steps between two validations; 0 is at the end only
    /// - `log_every` (int, 10): steps between two lines of `metrics.jsonl`
    /// - `save_every` (int, as often as it validates, 100 if it does not): steps between two checkpoints
    /// - `best` (string, "val_loss"): the logged figure that decides which checkpoint is the best; less is better where its name
    ///   ends in `loss`, else more
    /// - `energy` (map, Meter or false, metered): how its energy is metered: options of `energy::meter`, a meter of that, or
    ///   `false` for not at all
    ///
    /// ```rhai
    /// let layer = nn::linear(1, 1);
    /// let opt = optim::adamw(layer, #{ lr: 0.1 });
    /// let x = tensor::linspace(0, 1, 8).reshape([8, 1]);
    /// let run = run::start(#{ model: layer, opt: opt, energy: false });
    /// for step in run.steps(2) {
    ///     let loss = nn::mse_loss(layer.forward(x), 2 * x);
    ///     loss.backward();
    ///     opt.step();
    ///     run.log(#{ train_loss: loss });
    /// }
    /// assert(run.history("train_loss").len() == 2);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn start(ctx: NativeCallContext, options: Map) -> ScriptResult<RunHandle> {
        let session = Session::of(&ctx);
        let mut options = OptionMap::new(&ctx, "run::start", options);
        let model = typed::<ModelHandle>(&mut options, "model", "a model")?;
        refuse_part(&ctx, "run::start", &model)?;
        let optimizer = typed_if_given::<OptimizerHandle>(&mut options, "opt", "an optimizer")?;
        let loader = typed_if_given::<LoaderHandle>(&mut options, "loader", "a loader")?;
        let val = typed_if_given::<ValLoaderHandle>(&mut options, "val", "a validation loader")?;
        let own = (options.count("batch")?, options.count("steps_per_epoch")?);
        let (images_per_step, steps_per_epoch) = match (&loader, own) {
            (None, own) => own,
            (Some(loader), (None, None)) => {
                (Some(loader.loader.config().batch as u64), Some(loader.loader.steps_per_epoch()))
            }
            (Some(_), _) => return Err(options.error("run::start: batch and steps_per_epoch are the loader's to say")),
        };
        for (name, value) in [("batch", images_per_step), ("steps_per_epoch", steps_per_epoch)] {
            check_arg(&ctx, value != Some(0), || format!("{name}: expected 1 or more, got 0"))?;
        }
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
        if let Some(loader) = &loader {
            record.insert("images".to_owned(), json!(loader.loader.dataset().len()));
            record.insert("normalization".to_owned(), json!(loader.loader.normalization()));
            registry.set_trained_on(Some(trained_on(loader)));
        }
        let carried = carried(&session, registry, optimizer.as_ref().map(|optimizer| &*optimizer.0), &mut record);
        let train = loader.as_ref().map(|train| ("train", train.loader.dataset().clone()));
        let val = val.as_ref().map(|val| ("val", val.loader.dataset().clone()));
        let parts: Vec<(&str, Dataset)> = train.into_iter().chain(val).collect();
        let datasets: Vec<Dataset> = parts.iter().map(|(_, dataset)| dataset.clone()).collect();
        let started = || -> Result<Run, TrainError> {
            write_sources(&dir, &session.running_sources())?;
            write_files(&dir, &parts)?;
            Run::start(Setup {
                dir: dir.clone(),
                model: Rc::clone(registry),
                optimizer: optimizer.as_ref().map(|optimizer| Rc::clone(&optimizer.0)),
                record,
                images_per_step,
                steps_per_epoch,
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
fn carried(session: &Session, model: &Registry, optimizer: Option<&AdamW>, record: &mut Record) -> Option<Carried> {
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

fn typed_if_given<T: Clone + 'static>(
    options: &mut OptionMap,
    key: &'static str,
    what: &str,
) -> ScriptResult<Option<T>> {
    let Some(value) = options.get::<Dynamic>(key)? else { return Ok(None) };
    value.try_cast::<T>().map(Some).ok_or_else(|| options.error(format!("{key}: expected {what}")))
}

/// What a file of the model says of the images it was trained on.
fn trained_on(loader: &LoaderHandle) -> TrainedOn {
    let (normalization, table) = (loader.loader.normalization(), loader.loader.dataset().classes());
    let (classes, colors) = table.map_or_else(Default::default, |table| (table.names.clone(), table.colors.clone()));
    TrainedOn { mean: normalization.mean.clone(), std: normalization.std.clone(), classes, colors }
}

/// `files.txt`: which set each file went into, and its name; none without files.
///
/// Errors: a resumed run whose files are others than they were.
fn write_files(dir: &std::path::Path, parts: &[(&str, Dataset)]) -> Result<(), TrainError> {
    let mut text = String::new();
    for (part, dataset) in parts {
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
        Err(_) if text.is_empty() => Ok(()),
        Err(_) => replace_file(&path, text.as_bytes()),
    }
}
