//! `run::start`: from a map of options to a run with its directory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rhai::{Dynamic, Map, NativeCallContext};
use serde_json::{Value, json};

use super::{RunHandle, is_the_runs_own};
use crate::data::Dataset;
use crate::host::api::custom::refuse_part;
use crate::host::api::data::{LoaderHandle, ValLoaderHandle};
use crate::host::api::models::ModelHandle;
use crate::host::api::optim::OptimizerHandle;
use crate::host::args::to_json;
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};
use crate::host::options::OptionMap;
use crate::host::runs;
use crate::host::say::say;
use crate::host::session::Session;
use crate::nn::{Registry, TrainedOn};
use crate::train::checkpoint::replace_file;
use crate::train::experiment::write_sources;
use crate::train::run::{Carried, Goal, Run, Setup};
use crate::train::{Optimizer, TrainError};

/// What `run.json` will hold.
type Record = serde_json::Map<String, Value>;

/// The run that the options ask for.
pub fn start(ctx: &NativeCallContext, options: Map) -> ScriptResult<RunHandle> {
    let session = Session::of(ctx);
    let mut options = OptionMap::new(ctx, "run::start", options);
    let model = typed::<ModelHandle>(&mut options, "model", "a model")?;
    refuse_part(ctx, "run::start", &model)?;
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
        check_arg(ctx, value != Some(0), || format!("{name}: expected 1 or more, got 0"))?;
    }
    let recipe = options.get::<Map>("recipe")?;
    let name = options.or("name", runs::script_name(&session))?;
    let validate_every = options.count("validate_every")?.unwrap_or(0);
    let log_every = options.count("log_every")?.unwrap_or(10);
    let save_every = options.count("save_every")?.unwrap_or(if validate_every > 0 { validate_every } else { 100 });
    // Before it has a directory: one that never began is not to count as the script's first, second, … run.
    for (name, value) in [("log_every", log_every), ("save_every", save_every)] {
        check_arg(ctx, value > 0, || format!("{name}: expected 1 or more steps, got 0"))?;
    }
    let figure = options.or("best", Goal::default().figure)?;
    if is_the_runs_own(&figure) {
        return Err(options.error(format!("best: {figure} is logged by the run itself; name a figure of run.log")));
    }
    let energy = crate::host::api::energy::of_run(&session, &mut options)?;
    let goal = Goal { higher: !figure.ends_with("loss"), figure };
    options.finish()?;

    let place = |err: Failure| script_error(ctx, err);
    let dir = session.runs.next_directory(&session, &name).map_err(place)?;
    let mut record = Record::new();
    let cell = session.runs.cell_name();
    let name = cell.as_ref().map_or(name, |(cell, _)| cell.clone());
    record.insert("name".to_owned(), json!(name));
    record.extend(runs::about(&session));
    record.extend(cell.map(|(_, cell)| ("cell".to_owned(), cell)));
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
    let run = started().map_err(|err| script_error(ctx, err))?;
    for dataset in &datasets {
        dataset.restore_skipped(run.skipped());
    }
    match run.resumed_at() {
        Some(step) => say(&format!("{}: carrying on from step {step}", dir.display())),
        None => session.tell(&dir.display().to_string()),
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
        version: Rc::new(Cell::new(session.version())),
        progress: Rc::default(),
    };
    handle.note_choice().map_err(|err| script_error(ctx, err))?;
    Ok(handle)
}

/// Under `watch --continue`: weights, moments and step of the run that an edit has stopped at this place of the script.
fn carried(session: &Session, model: &Registry, optimizer: Option<&Optimizer>, record: &mut Record) -> Option<Carried> {
    if session.runs.cell_name().is_some() {
        return None; // A cell is what its address says, and no more.
    }
    let from = session.warm.carried(session.runs.count())?;
    match Carried::take(&from, model, optimizer) {
        Ok(carried) => {
            let carried = carried?;
            say(&format!("going on from step {} of {}", carried.step(), from.display()));
            if let Some(problem) = carried.moments_lost() {
                say(&format!("the optimizer's moments begin anew: {problem}"));
            }
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
