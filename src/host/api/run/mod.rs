//! `run`: one training run, its steps, its figures, its directory.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use rhai::plugin::*;
use rhai::{Dynamic, Engine, EvalAltResult, INT, Map, NativeCallContext};
use serde_json::{Value, json};

use super::models::ModelHandle;
use super::optim::OptimizerHandle;
use super::tensor::TensorHandle;
use crate::host::errors::{Failure, ScriptResult, in_words, script_error, unplaced};
use crate::host::options::number;
use crate::host::progress::Progress;
use crate::host::runs::{self, SharedRun};
use crate::host::session::Session;
use crate::train::TrainError;
use crate::train::run::{Status, read_scalar};

mod grid;
mod methods;
mod output;
mod start;
mod steps;
use steps::Steps;

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
    /// Of the script, as [`Session::version`] has it, as the run's directory has it.
    version: Rc<Cell<usize>>,
    /// While its steps run.
    progress: Rc<RefCell<Option<Progress>>>,
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_iterator_result::<Steps, INT>();
    let mut functions = exported_module!(functions);
    output::register(engine, &mut functions);
    grid::register(&mut functions);
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

    /// The steps of a run that are left, for a `for` loop.
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
        super::start::start(&ctx, options)
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
