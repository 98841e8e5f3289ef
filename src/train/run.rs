//! A run: its directory, its clock, its checkpoints. Everything a training loop does between two steps.
//!
//! The clock counts training alone: it runs from [`Run::begin_step`] to [`Run::end_step`], less what happens under
//! [`Run::pause`] (validation, pictures). A checkpoint holds how long each log was when it was saved, so that resuming
//! cuts them back to it and the files end as if the run had never stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tch::Tensor;

use super::checkpoint::{Slot, replace_file};
use super::cost::Cost;
use super::error::At;
pub use super::goal::{Best, Goal};
use super::metrics::LineLog;
use super::pictures::{self, Picture};
use super::record;
pub use super::record::Status;
pub use super::setup::Setup;
pub use super::state::Carried;
use super::state::State;
use super::tensorboard::{self, EventWriter};
use super::{TrainError, TrainResult, weights};
use crate::energy::reading::Reading;
use crate::libtorch::memory;
use crate::nn::Registry;

/// Names of the logs in a run's directory.
const METRICS: &str = "metrics.jsonl";
const LAYERS: &str = "layers.jsonl";

pub struct Run {
    setup: Setup,
    step: u64,
    total: u64,
    wall: Duration,
    since: Option<Instant>,
    best: Option<Best>,
    /// This step's line of `metrics.jsonl`, as it collects.
    line: Map<String, Value>,
    metrics: LineLog,
    layers: LineLog,
    events: EventWriter,
    skipped: Vec<(String, String)>,
    draws: u64,
    /// See [`State`].
    carried: u64,
    cost: Cost,
    /// Step and clock of the line before, for images per second.
    last_logged: (u64, Duration),
    started: Instant,
    resumed_at: Option<u64>,
    status: Status,
    /// Whether a step has begun and not ended.
    in_step: bool,
}

impl Run {
    /// Starts in an empty directory, or restores what its last checkpoint holds: model, optimizer, step, clock.
    ///
    /// Errors: [`TrainError::Broken`] for a checkpoint that is not whole or does not fit the model.
    pub fn start(mut setup: Setup) -> TrainResult<Self> {
        for (name, value) in [("log_every", setup.log_every), ("save_every", setup.save_every)] {
            if value == 0 {
                return Err(TrainError::Config(format!("{name}: expected 1 or more steps, got 0")));
            }
        }
        for folder in ["checkpoints", "tensorboard", "pictures"] {
            let path = setup.dir.join(folder);
            fs::create_dir_all(&path).at(&path)?;
        }
        let found = Slot::new(&setup.dir.join("checkpoints"), "last").load::<State>()?;
        let resumed_at = found.as_ref().map(|(.., state)| state.step);
        let state = match found {
            Some((model, optimizer, state)) => {
                let place = setup.dir.join("checkpoints/last/model.safetensors");
                setup.model.restore_decor_state(&state.decorrelation)?;
                setup.model.resume_state(&model).map_err(|err| TrainError::broken(&place, err))?;
                if let Some(own) = &setup.optimizer {
                    own.load_state(&optimizer)?;
                }
                setup.model.set_lr_fraction(state.lr_fraction);
                state
            }
            None => match setup.carried.take() {
                Some(carried) => carried.state,
                None => State { lr_fraction: 1.0, ..State::default() },
            },
        };
        record::account_for_loss(&setup.dir, state.wall_s, state.energy.as_ref(), &mut setup.record)?;
        let metrics = LineLog::open(&setup.dir.join(METRICS), state.metrics_bytes)?;
        let layers = LineLog::open(&setup.dir.join(LAYERS), state.layers_bytes)?;
        let events = tensorboard::open(&setup.dir.join("tensorboard"), state.step)?;
        let wall = Duration::from_secs_f64(state.wall_s);
        memory::reset_peak(setup.model.device());
        let cost = Cost::start(setup.energy.as_ref(), state.energy, wall, &mut setup.record);
        let mut run = Self {
            step: state.step,
            total: state.step,
            wall,
            since: None,
            best: state.best.as_ref().and_then(Best::from_json),
            line: state.line,
            metrics,
            layers,
            events,
            skipped: state.skipped,
            draws: state.draws,
            carried: state.carried,
            cost,
            last_logged: (state.step, wall),
            started: Instant::now(),
            resumed_at,
            status: Status::Running,
            in_step: false,
            setup,
        };
        run.write_record(Status::Running)?;
        Ok(run)
    }

    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// The directory has been moved: the first of several runs becomes a child of their parent.
    pub fn set_dir(&mut self, dir: PathBuf) {
        self.metrics.set_path(dir.join(METRICS));
        self.layers.set_path(dir.join(LAYERS));
        self.setup.dir = dir;
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.step
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// Steps this run is to have in all.
    pub fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// Whole epochs done; 0 where there are none.
    pub fn epoch(&self) -> u64 {
        self.setup.steps_per_epoch.map_or(0, |steps| self.step / steps.max(1))
    }

    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// The step a checkpoint was found at, if the run was resumed.
    pub fn resumed_at(&self) -> Option<u64> {
        self.resumed_at
    }

    pub fn model(&self) -> &Rc<Registry> {
        &self.setup.model
    }

    /// Seconds of training so far.
    pub fn wall_s(&self) -> f64 {
        (self.wall + self.since.map_or(Duration::ZERO, |since| since.elapsed())).as_secs_f64()
    }

    /// Files left out so far, as the last checkpoint had them: hand them back to the dataset when resuming.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// Random draws that the script had made when the last checkpoint was saved.
    pub fn draws(&self) -> u64 {
        self.draws
    }

    /// For the next checkpoint: how many random draws the script has made.
    pub fn set_draws(&mut self, draws: u64) {
        self.draws = draws;
    }

    /// Whether the line of step `step` (counted from 0) will be written, so that its figures are worth reading.
    pub fn log_due(&self, step: u64) -> bool {
        step == 0 || (step + 1).is_multiple_of(self.setup.log_every) || self.validation_due(step)
    }

    /// Whether step `step` (counted from 0) is to be validated: every so many steps, and the last.
    pub fn validation_due(&self, step: u64) -> bool {
        step + 1 == self.total
            || (self.setup.validate_every > 0 && (step + 1).is_multiple_of(self.setup.validate_every))
    }

    /// Whether a line is that of a validation: it has a validation loss, or what decides which checkpoint is the best.
    pub fn is_validation(&self, line: &Map<String, Value>) -> bool {
        line.contains_key("val_loss") || line.contains_key(&self.setup.goal.figure)
    }

    /// The name of the figure that decides which checkpoint is the best.
    pub fn figure(&self) -> &str {
        &self.setup.goal.figure
    }

    /// Errors: those of [`Optimizer::set_averaged`].
    pub fn begin_step(&mut self) -> TrainResult<()> {
        self.set_averaged(false)?;
        self.in_step = true;
        self.setup.model.begin_step(self.step, self.epoch());
        self.resume_clock();
        Ok(())
    }

    /// Puts the weights to evaluate at into the model, or those to train at; which of them were there.
    ///
    /// Errors: those of [`Optimizer::set_averaged`].
    pub fn set_averaged(&self, averaged: bool) -> TrainResult<bool> {
        let Some(optimizer) = &self.setup.optimizer else { return Ok(averaged) };
        let before = optimizer.is_averaged();
        optimizer.set_averaged(averaged)?;
        Ok(before)
    }

    /// Ends and saves a step that the loop left by `break`.
    pub fn settle(&mut self) -> TrainResult<()> {
        if self.in_step {
            self.end_step()?;
            self.save("last")?;
        }
        Ok(())
    }

    pub fn status(&self) -> Status {
        self.status
    }

    /// Stops the clock; the device has finished first, so that its work is counted where it belongs. Says whether it ran.
    pub fn pause(&mut self) -> bool {
        let Some(since) = self.since.take() else { return false };
        if let tch::Device::Cuda(index) = self.setup.model.device() {
            tch::Cuda::synchronize(index as i64);
        }
        self.wall += since.elapsed();
        self.cost.pause();
        true
    }

    /// Starts the clock again after [`Run::pause`].
    pub fn resume_clock(&mut self) {
        self.since = Some(Instant::now());
        self.cost.resume();
    }

    /// Between training and something long that is not, or back: the sensors are read here, so that they tell one from the
    /// other.
    pub fn mark(&self) {
        self.cost.mark();
    }

    /// What it has cost so far, if that is metered.
    pub fn cost(&mut self) -> Option<&Reading> {
        self.cost.read()
    }

    /// What keeps its energy from being known better, a sentence each.
    pub fn energy_problems(&self) -> Vec<String> {
        self.cost.problems()
    }

    /// What it has cost, for people; nothing before the first step.
    pub fn summary(&self) -> Vec<String> {
        if self.step > self.carried { self.cost.summary(self.images()) } else { Vec::new() }
    }

    /// Updates that another run had done before this one went on from it.
    pub fn carried(&self) -> u64 {
        self.carried
    }

    /// Images trained on so far.
    fn images(&self) -> u64 {
        (self.step - self.carried) * self.setup.images_per_step.unwrap_or(0)
    }

    /// Adds figures to this step's line.
    pub fn log(&mut self, fields: Map<String, Value>) {
        self.line.extend(fields);
    }

    /// Adds a line to `layers.jsonl`: figures of every decorrelated and every probed layer.
    pub fn log_layers(&mut self) -> TrainResult<()> {
        let metrics = self.setup.model.layer_metrics()?;
        if metrics.is_empty() {
            return Ok(());
        }
        let layers: Map<String, Value> = metrics.into_iter().map(|(name, metrics)| (name, json!(metrics))).collect();
        let mut line = Map::from_iter([("step".to_owned(), json!(self.step + 1))]);
        line.extend(self.epoch_at(self.step + 1).map(|epoch| ("epoch".to_owned(), epoch)));
        line.insert("layers".to_owned(), layers.into());
        self.layers.append(&line)
    }

    /// Saves a picture under `pictures/` and in TensorBoard.
    pub fn picture(&mut self, name: &str, picture: &Picture) -> TrainResult<PathBuf> {
        let (png, width, height) = picture.png()?;
        let path = self.setup.dir.join("pictures").join(format!("{name}-{:06}.png", self.step));
        pictures::write(&path, &png)?;
        let at = self.setup.dir.join("tensorboard");
        self.events.image(name, &png, width, height, 3, self.step, tensorboard::now()).at(&at)?;
        Ok(path)
    }

    /// Ends a step: stops the clock, writes its line if it is due, saves it if it is the best. Returns the line that was
    /// written. [`Run::save_if_due`] comes after the script's hooks.
    ///
    /// Errors: [`TrainError::Diverged`] for a loss or a weight that is not finite; the last good checkpoint is kept.
    pub fn end_step(&mut self) -> TrainResult<Option<Map<String, Value>>> {
        self.pause();
        self.in_step = false;
        let due = self.log_due(self.step);
        self.step += 1;
        let fields = std::mem::take(&mut self.line);
        let written = if due { Some(self.write_line(fields)?) } else { None };
        let Goal { figure, higher } = &self.setup.goal;
        let better = |value: f64, best: &Best| if *higher { value > best.value } else { value < best.value };
        let improved = match written.as_ref().and_then(|line| line.get(figure)).and_then(Value::as_f64) {
            Some(value) if self.best.as_ref().is_none_or(|best| better(value, best)) => {
                self.best = Some(Best { figure: figure.clone(), value, step: self.step });
                true
            }
            _ => false,
        };
        if improved {
            self.save("best")?;
        }
        Ok(written)
    }

    /// Saves `checkpoints/last` if it is time. What hooks did at this step is in it: they are not called again when resuming.
    pub fn save_if_due(&mut self) -> TrainResult<()> {
        if self.step == self.total || self.step.is_multiple_of(self.setup.save_every) {
            self.save("last")?;
        }
        Ok(())
    }

    fn write_line(&mut self, fields: Map<String, Value>) -> TrainResult<Map<String, Value>> {
        for (name, value) in &fields {
            if value.is_null() {
                // JSON has no NaN: a figure that is not finite arrives as null.
                return Err(TrainError::Diverged(format!("{name} is not finite at step {}", self.step)));
            }
        }
        let (step_before, wall_before) = self.last_logged;
        let seconds = (self.wall - wall_before).as_secs_f64();
        let images = (self.step - step_before) * self.setup.images_per_step.unwrap_or(0);
        self.last_logged = (self.step, self.wall);
        let mut line = Map::new();
        line.insert("step".to_owned(), json!(self.step));
        line.extend(self.epoch_at(self.step).map(|epoch| ("epoch".to_owned(), epoch)));
        line.insert("wall_s".to_owned(), json!(rounded(self.wall.as_secs_f64(), 1e3)));
        line.extend(fields);
        if seconds > 0.0 && images > 0 {
            line.insert("images_per_s".to_owned(), json!(rounded(images as f64 / seconds, 1e1)));
        }
        self.cost.read();
        line.extend(self.cost.figures());
        self.metrics.append(&line)?;
        self.cost.write(&self.setup.dir, &self.setup.record);
        let (wall_time, at) = (tensorboard::now(), self.setup.dir.join("tensorboard"));
        for (name, value) in line.iter().filter(|(name, _)| *name != "step") {
            if let Some(value) = value.as_f64() {
                self.events.scalar(name, value as f32, self.step, wall_time).at(&at)?;
            }
        }
        self.events.flush().at(&at)?;
        Ok(line)
    }

    /// Epochs done after so many steps, for a line; `None` where there are none.
    fn epoch_at(&self, step: u64) -> Option<Value> {
        self.setup.steps_per_epoch.map(|steps| json!(rounded(step as f64 / steps.max(1) as f64, 1e4)))
    }

    /// Saves a checkpoint under `name`.
    ///
    /// Errors: [`TrainError::Diverged`] if a value is not finite: nothing is saved.
    pub fn save(&mut self, name: &str) -> TrainResult<()> {
        self.metrics.sync()?;
        self.layers.sync()?;
        let model = &self.setup.model;
        let state = State {
            step: self.step,
            wall_s: self.wall.as_secs_f64(),
            best: self.best.as_ref().map(Best::to_json),
            metrics_bytes: self.metrics.bytes(),
            layers_bytes: self.layers.bytes(),
            lr_fraction: model.lr_fraction(),
            decorrelation: model.decor_state()?,
            draws: self.draws,
            carried: self.carried,
            line: self.line.clone(),
            skipped: self.skipped.clone(),
            energy: self.cost.read().cloned(),
        };
        let trained_on = model.trained_on();
        let metadata = model.architecture().map(|said| weights::metadata(&said, trained_on.as_ref()));
        let slot = Slot::new(&self.setup.dir.join("checkpoints"), name).describing(metadata);
        let (weights, optimizer) = match &self.setup.optimizer {
            Some(optimizer) => (optimizer.average(model.state())?, optimizer.state()),
            None => (model.state(), Vec::new()),
        };
        slot.save(&weights, &optimizer, &state).map_err(|err| match err {
            TrainError::Diverged(what) => TrainError::Diverged(format!("{what} at step {}", self.step)),
            err => err,
        })?;
        // What a kill leaves says what it had cost by then.
        self.write_record(self.status)
    }

    /// Writes `skipped.csv`, and remembers the files for the next checkpoint.
    pub fn set_skipped(&mut self, skipped: Vec<(String, String)>) -> TrainResult<()> {
        if skipped != self.skipped {
            record::write_skipped(&self.setup.dir, &skipped)?;
            self.skipped = skipped;
        }
        Ok(())
    }

    /// Whether `run.json` has an entry of this name that is not a note.
    pub fn is_reserved(&self, key: &str) -> bool {
        record::is_reserved(key)
    }

    /// An entry of `run.json`.
    pub fn noted(&self, key: &str) -> Option<&Value> {
        self.setup.record.get(key)
    }

    /// The lines of `metrics.jsonl` so far.
    pub fn lines(&self) -> TrainResult<Vec<Value>> {
        self.metrics.lines()
    }

    /// Adds a fact to `run.json`.
    pub fn note(&mut self, key: &str, value: Value) -> TrainResult<()> {
        self.setup.record.insert(key.to_owned(), value);
        self.write_record(self.status)
    }

    /// Ends the run and says how.
    pub fn finish(&mut self, status: Status) -> TrainResult<()> {
        self.pause();
        self.cost.settle();
        self.cost.write(&self.setup.dir, &self.setup.record);
        self.write_record(status)
    }

    fn write_record(&mut self, status: Status) -> TrainResult<()> {
        self.status = status;
        let mut record = self.setup.record.clone();
        record.insert("status".to_owned(), json!(status));
        record.insert("step".to_owned(), json!(self.step));
        record.insert("steps".to_owned(), json!(self.total));
        record.insert("wall_s".to_owned(), json!(rounded(self.wall.as_secs_f64(), 1e3)));
        record.insert("elapsed_s".to_owned(), json!(rounded(self.started.elapsed().as_secs_f64(), 1e3)));
        if let Some(best) = &self.best {
            record.insert("best".to_owned(), best.to_json());
        }
        if let Some(energy) = self.cost.record(self.images()) {
            record.insert("energy".to_owned(), energy);
        }
        if let Some(used) = memory::used(self.setup.model.device()) {
            let earlier = record.get("peak_memory_bytes").and_then(Value::as_u64).unwrap_or(0);
            record.insert("peak_memory_bytes".to_owned(), json!(used.peak.max(earlier)));
        }
        let path = self.setup.dir.join("run.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|err| TrainError::broken(&path, err))?;
        replace_file(&path, &text)
    }
}

/// A loss still on the device, read now; `null` if it is not finite.
pub fn read_scalar(value: &Tensor) -> TrainResult<Value> {
    Ok(json!(value.f_double_value(&[])?))
}

fn rounded(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
