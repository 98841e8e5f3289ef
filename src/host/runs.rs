//! The runs that a script makes: where each goes, what `run.json` says of it, and how they end when the script does.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use chrono::Local;
use serde_json::{Map, Value, json};

use super::Outcome;
use super::args::read_run_json;
use super::energy::{EnergyOptions, tell_cost};
use super::errors::{Failure, Kind};
use super::say::say;
use super::session::{Options, Session};
use super::smoke;
use super::warm::Trained;
use crate::data::Dataset;
use crate::train::TrainError;
use crate::train::checkpoint::replace_file;
use crate::train::experiment::{self, Experiment, Locks};
use crate::train::lock::{RunLock, Taken};
use crate::train::record::write_skipped;
use crate::train::run::{Run, Status};

mod cells;
pub use cells::{OUTPUT, output};

/// The datasets a run reads: training, and validation if it has one.
pub type Datasets = Rc<Vec<Dataset>>;

/// A run while it is open, shared by the script's handle, its iterator and this list.
pub type SharedRun = Rc<RefCell<Run>>;

/// Entry of `run.json` and `index.json`: when its checkpoints were removed.
pub const PRUNED: &str = "pruned";

/// Kept in the session.
#[derive(Default)]
pub struct Runs {
    experiment: RefCell<Option<Experiment>>,
    made: RefCell<Vec<Made>>,
    /// At a prompt: what earlier inputs have made and a variable still holds.
    earlier: RefCell<Vec<Made>>,
    /// Of a grid, while it is run.
    cell: RefCell<Option<cells::Current>>,
    failed_cells: RefCell<Vec<(String, Kind)>>,
    /// The names of the grids that were begun.
    grids: RefCell<Vec<String>>,
}

/// What this script has made a directory for.
enum Made {
    Run {
        /// The script may still hold it.
        run: Weak<RefCell<Run>>,
        /// While it has not ended: its record is written when the script ends.
        open: Option<Open>,
    },
    Output(SharedOutput),
}

/// A run that has not ended.
struct Open {
    run: SharedRun,
    datasets: Datasets,
    /// At a prompt a later input may go on with it: until it ends its directory is this process's.
    _locks: Locks,
}

/// A directory for results without training, shared by the script's handle and this list.
pub type SharedOutput = Rc<RefCell<Output>>;

/// Such a directory: `run.json` and whatever the script puts beside it.
pub struct Output {
    dir: PathBuf,
    record: Map<String, Value>,
    datasets: Vec<Dataset>,
    _locks: Locks,
}

impl Output {
    /// Errors: the disk's.
    pub fn start(
        dir: PathBuf,
        record: Map<String, Value>,
        datasets: Vec<Dataset>,
        locks: Locks,
    ) -> Result<SharedOutput, TrainError> {
        let output = Self { dir, record, datasets, _locks: locks };
        output.write(Status::Running)?;
        Ok(Rc::new(RefCell::new(output)))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds a fact to `run.json`.
    pub fn note(&mut self, key: &str, value: Value) -> Result<(), TrainError> {
        self.record.insert(key.to_owned(), value);
        self.write(Status::Running)
    }

    fn finish(&self, status: Status) -> Result<(), TrainError> {
        write_skipped(&self.dir, &skipped(&self.datasets))?;
        self.write(status)
    }

    fn write(&self, status: Status) -> Result<(), TrainError> {
        let mut record = self.record.clone();
        record.insert("status".to_owned(), json!(status));
        let path = self.dir.join("run.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|err| TrainError::broken(&path, err))?;
        replace_file(&path, &text)
    }
}

impl Runs {
    /// The directory of the script's next run.
    pub fn next_directory(&self, session: &Session, name: &str) -> Result<PathBuf, Failure> {
        if let Some(dir) = self.take_cell_directory() {
            return dir;
        }
        let mut experiment = self.experiment.borrow_mut();
        let experiment = match experiment.as_mut() {
            Some(experiment) => experiment,
            None => experiment.insert(start_experiment(session)?),
        };
        let (dir, _) = experiment.next(name)?;
        self.follow(experiment);
        Ok(dir)
    }

    /// The first run's directory has moved where it is one of several now.
    fn follow(&self, experiment: &Experiment) {
        for (place, made) in self.made.borrow().iter().enumerate() {
            match made {
                Made::Run { run, .. } => {
                    if let Some(run) = run.upgrade() {
                        run.borrow_mut().set_dir(experiment.path_of(place));
                    }
                }
                Made::Output(output) => output.borrow_mut().dir = experiment.path_of(place),
            }
        }
    }

    /// What keeps other processes out of the directories made so far: what has not ended holds these, too.
    pub fn locks(&self) -> Locks {
        self.experiment.borrow().as_ref().map(Experiment::locks).unwrap_or_default()
    }

    /// The directory of the run that was started last.
    pub fn current_directory(&self) -> Option<PathBuf> {
        let (made, earlier) = (self.made.borrow(), self.earlier.borrow());
        match made.last().or(earlier.last())? {
            Made::Run { run, .. } => Some(run.upgrade()?.try_borrow().ok()?.dir().to_path_buf()),
            Made::Output(output) => Some(output.try_borrow().ok()?.dir().to_path_buf()),
        }
    }

    /// How many directories the script has made.
    pub fn count(&self) -> usize {
        self.made.borrow().len()
    }

    /// The directories of its training runs, in order.
    pub fn directories(&self) -> Vec<PathBuf> {
        self.placed().into_iter().map(|(_, dir)| dir).collect()
    }

    /// Its runs that have a checkpoint.
    pub fn trained(&self) -> Vec<Trained> {
        let stopped = [json!(Status::Interrupted), json!(Status::Failed)];
        let trained = |(place, dir): (usize, PathBuf)| {
            let record = read_run_json(&dir).ok()?;
            let state = std::fs::read(dir.join("checkpoints/last/state.json")).ok()?;
            let state: Value = serde_json::from_slice(&state).ok()?;
            let steps = state["step"].as_u64()?.saturating_sub(state["carried"].as_u64().unwrap_or(0));
            let stopped = record.get("status").is_some_and(|status| stopped.contains(status));
            Some(Trained { place, dir, steps, stopped })
        };
        self.placed().into_iter().filter_map(trained).collect()
    }

    fn placed(&self) -> Vec<(usize, PathBuf)> {
        let experiment = self.experiment.borrow();
        let Some(experiment) = experiment.as_ref() else { return Vec::new() };
        let made = self.made.borrow();
        let runs = made.iter().enumerate().filter(|(_, made)| matches!(made, Made::Run { .. }));
        runs.map(|(place, _)| (place, experiment.path_of(place))).collect()
    }

    /// Puts a patched script beside the one that a run began with, here and in the parent of several runs: resuming goes on
    /// with what ran last.
    pub fn patch(&self, run: &Path, text: &str) -> Result<(), Failure> {
        experiment::patch_script(run, text)?;
        if let Some(experiment) = self.experiment.borrow_mut().as_mut() {
            experiment.set_script(text);
            if experiment.root() != run {
                experiment::patch_script(experiment.root(), text)?;
            }
        }
        Ok(())
    }

    /// Lets go of all runs: their models take memory, and their directories are locked.
    pub fn release(&self) {
        self.made.borrow_mut().clear();
        *self.experiment.borrow_mut() = None;
    }

    /// Takes note of a new run, and lets go of those that have ended: their models take memory.
    pub fn add(&self, run: SharedRun, datasets: Datasets) {
        let mut made = self.made.borrow_mut();
        for earlier in made.iter_mut() {
            if let Made::Run { open, .. } = earlier {
                open.take_if(|open| open.run.borrow().status() != Status::Running);
            }
        }
        made.push(Made::Run { run: Rc::downgrade(&run), open: Some(Open { run, datasets, _locks: self.locks() }) });
    }

    /// Takes note of a directory of results.
    pub fn add_output(&self, output: SharedOutput) {
        self.made.borrow_mut().push(Made::Output(output));
    }

    /// Says in every run's `run.json` how it ended, a step left by `break` included.
    pub fn finish(&self, session: &Session, outcome: &Outcome) -> Result<(), Failure> {
        let status = status_of(outcome);
        let (made, earlier) = (self.made.borrow(), self.earlier.borrow());
        let all = || earlier.iter().chain(made.iter());
        for output in all().filter_map(|made| if let Made::Output(output) = made { Some(output) } else { None }) {
            output.borrow().finish(status)?;
        }
        let mut open = all().filter_map(|made| if let Made::Run { open, .. } = made { open.as_ref() } else { None });
        open.try_for_each(|open| finish_run(session, open, status))
    }

    /// An input at a prompt has ended: with it every run that no variable holds. What the next one starts is another
    /// experiment.
    pub fn end_input(&self, session: &Session, outcome: &Outcome) -> Result<(), Failure> {
        let status = status_of(outcome);
        *self.experiment.borrow_mut() = None;
        let mut earlier = self.earlier.borrow_mut();
        earlier.append(&mut self.made.borrow_mut());
        let mut result = Ok(());
        earlier.retain(|made| {
            let ended = match made {
                Made::Run { open: Some(open), .. } if Rc::strong_count(&open.run) == 1 => {
                    finish_run(session, open, status)
                }
                Made::Run { open: Some(open), .. } => {
                    return open.run.try_borrow().map_or(true, |run| run.status() == Status::Running);
                }
                Made::Output(output) if Rc::strong_count(output) == 1 => {
                    output.borrow().finish(status).map_err(Failure::from)
                }
                Made::Output(_) => return true,
                Made::Run { open: None, .. } => return false,
            };
            result = std::mem::replace(&mut result, Ok(())).and(ended);
            false
        });
        result
    }
}

fn status_of(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Done => Status::Done,
        Outcome::Interrupted | Outcome::Restart => Status::Interrupted,
        Outcome::Failed(err) if err.kind == Kind::Diverged => Status::Diverged,
        Outcome::Failed(_) => Status::Failed,
    }
}

/// Writes a run's record, unless it has ended already, as those before the one that failed had.
fn finish_run(session: &Session, Open { run, datasets, .. }: &Open, status: Status) -> Result<(), Failure> {
    let Ok(mut run) = run.try_borrow_mut() else { return Ok(()) };
    if status == Status::Done {
        run.settle()?;
    }
    if run.status() == Status::Running {
        run.set_skipped(skipped(datasets))?;
        run.finish(status)?;
        tell_cost(session, &run.summary());
    }
    Ok(())
}

/// The files of these datasets that could not be read, with the reason, by name.
pub fn skipped(datasets: &[Dataset]) -> Vec<(String, String)> {
    let mut skipped: Vec<(String, String)> = datasets.iter().flat_map(Dataset::skipped).collect();
    skipped.sort();
    skipped.dedup();
    skipped
}

fn start_experiment(session: &Session) -> Result<Experiment, Failure> {
    let about = about(session);
    let sources = session.running_sources();
    let root = session.options.cell.as_ref().map(|cell| &cell.root).or(session.options.resume.as_ref());
    let started = match root {
        Some(root) => Experiment::resume(root, about, sources)?,
        None => {
            let stamp = Local::now().format("%Y-%m-%dT%H-%M-%S").to_string();
            let ending = if session.options.smoke { smoke::ENDING } else { "" };
            let stem = format!("{}{ending}", script_name(session));
            Experiment::new(&session.options.runs, &stamp, &stem, about, sources)?
        }
    };
    Ok(started)
}

/// The script's name without folder and extension: what its runs are called.
pub fn script_name(session: &Session) -> String {
    session.origin().file_stem().map_or_else(|| "run".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// Completes the options of `--resume RUN`: all but the device as they were, unless they are given anew, and the parent where
/// RUN is one of several.
///
/// # Errors
/// If the run's record cannot be read.
pub fn restore_options(options: &mut Options) -> Result<(), Failure> {
    let Some(run) = options.resume.as_mut() else { return Ok(()) };
    experiment::recover(run)?;
    if let (Ok(real), false) = (run.canonicalize(), run.join("index.json").exists())
        && let Some(parent) = real.parent().filter(|parent| parent.join("index.json").exists())
    {
        *run = parent.to_owned();
    }
    options.script = run.join("script.rhai");
    let given = read_run_json(run)?.remove("options").unwrap_or_default();
    if let Some(folder) = given["folder"].as_str() {
        return_to(Path::new(folder), options);
    }
    options.seed = options.seed.or_else(|| given["seed"].as_u64());
    let folders = given["allow_read"].as_array().into_iter().flatten();
    options.allow_read.extend(folders.filter_map(|folder| folder.as_str().map(PathBuf::from)));
    let folders = given["allow_write"].as_array().into_iter().flatten();
    options.allow_write.extend(folders.filter_map(|folder| folder.as_str().map(PathBuf::from)));
    options.tf32 |= given["tf32"].as_bool().unwrap_or(false);
    options.smoke = given["smoke"].as_bool().unwrap_or(false);
    for (limit, key, usual) in [
        (&mut options.max_operations, "max_operations", Options::MAX_OPERATIONS),
        (&mut options.max_tensor_bytes, "max_tensor_bytes", Options::MAX_TENSOR_BYTES),
    ] {
        if *limit == usual {
            *limit = given[key].as_u64().unwrap_or(usual);
        }
    }
    let energy = &mut options.energy;
    if !energy.names_grid() && !energy.live {
        energy.country = given["country"].as_str().map(str::to_owned);
        energy.region = energy.region.take().or_else(|| given["region"].as_str().map(str::to_owned));
        energy.intensity = given["carbon_intensity"].as_f64();
        if given["carbon_live"].as_bool() == Some(true) {
            say("the carbon intensity was a live one before; --carbon-live asks for that again");
        }
    }
    energy.pue = energy.pue.or_else(|| given["pue"].as_f64());
    options.threads = options.threads.or_else(|| given["threads"].as_u64().map(|n| n as usize));
    Ok(())
}

/// Keeps other processes out of the run to be resumed, for as long as what is returned lives. Call it after
/// [`restore_options`], which may turn to the run's parent.
///
/// # Errors
/// If it is no run, if another process has it, or if its checkpoints were removed.
pub fn lock_resumed(options: &Options) -> Result<Option<RunLock>, Failure> {
    let Some(run) = &options.resume else { return Ok(None) };
    if options.cell.is_some() {
        return Ok(None); // It is held by the process that started this one.
    }
    let refuse = |why: String| Failure::usage(format!("cannot resume {}: {why}", run.display()));
    if !run.exists() {
        return Ok(None); // Said when its script is looked for.
    }
    let record = read_run_json(run)?;
    if record.is_empty() {
        return Err(refuse("it is no run: it has neither run.json nor index.json".into()).with_hint(
            "name a folder that an earlier run made, like runs/2026-…; one that was stopped before its first step starts anew",
        ));
    }
    if record.contains_key(PRUNED) {
        return Err(refuse("its checkpoints were removed by `dbp-host runs --keep`".into()).with_hint("start it anew"));
    }
    match RunLock::take(run) {
        Ok(Taken::Held(lock)) => Ok(Some(lock)),
        Ok(Taken::Busy(process)) => {
            let who = process.map_or("another process".to_owned(), |id| format!("process {id}"));
            Err(refuse(format!("{who} is running it")).with_hint("wait until it has ended, or stop it"))
        }
        // What cannot be written is said where that matters.
        Err(err) if matches!(err.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => Ok(None),
        Err(err) if err.kind() == ErrorKind::Other => Err(refuse(err.to_string())),
        Err(err) => Err(Failure::machine(format!("cannot resume {}: {err}", run.display()))),
    }
}

/// Goes where the run was started, if that folder is still there: relative paths among its arguments start from it, and those
/// of a `--set` that is given anew. The other paths of this command line keep their meaning.
fn return_to(folder: &Path, options: &mut Options) {
    let allowed = options.allow_read.iter_mut().chain(&mut options.allow_write);
    let paths = options.resume.iter_mut().chain([&mut options.script, &mut options.runs]).chain(allowed);
    for path in paths {
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    }
    // A folder that is gone leaves relative paths unfound, which is said where they are needed.
    let _ = std::env::set_current_dir(folder);
}

/// What every run of a script has in common: what is needed to run it again.
pub fn about(session: &Session) -> Map<String, Value> {
    let mut about = Map::new();
    about.insert("script".to_owned(), json!(session.origin()));
    about.insert("arguments".to_owned(), Value::Object(session.arguments()));
    about.insert("seed".to_owned(), json!(session.seed()));
    about.insert("device".to_owned(), json!(device_name(session.options.device)));
    let options = &session.options;
    let EnergyOptions { country, region, pue, intensity, live } = &options.energy;
    let mut given = json!({
        "seed": options.seed,
        "threads": tch::get_num_threads(),
        "folder": std::env::current_dir().ok(),
        "tf32": options.tf32.then_some(true),
        "jobs": (options.jobs > 1).then_some(options.jobs),
        "allow_read": options.allow_read,
        "allow_write": (!options.allow_write.is_empty()).then_some(&options.allow_write),
        "smoke": options.smoke.then_some(true),
        "max_operations": options.max_operations,
        "max_tensor_bytes": options.max_tensor_bytes,
        "country": country,
        "region": region,
        "pue": pue,
        "carbon_intensity": intensity,
        "carbon_live": live.then_some(true),
    });
    if let Some(given) = given.as_object_mut() {
        given.retain(|key, value| !value.is_null() || key == "seed");
    }
    about.insert("options".to_owned(), given);
    if options.smoke {
        about.insert("smoke".to_owned(), json!(true));
    }
    about.insert(
        "versions".to_owned(),
        json!({ "dbp_host": env!("CARGO_PKG_VERSION"), "libtorch": env!("DBP_LIBTORCH_VERSION") }),
    );
    if let Some(commit) = git_commit(&session.script_folder()) {
        about.insert("git_commit".to_owned(), json!(commit));
    }
    about.insert("started".to_owned(), json!(Local::now().to_rfc3339()));
    about
}

pub fn device_name(device: tch::Device) -> String {
    match device {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// The commit that the repository around `folder` is at, read from its files: nothing is started for it.
fn git_commit(folder: &Path) -> Option<String> {
    let git = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.exists())?;
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
    if let Ok(commit) = std::fs::read_to_string(git.join(name)) {
        return Some(commit.trim().to_owned());
    }
    let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
    packed.lines().find_map(|line| line.strip_suffix(name).map(|commit| commit.trim().to_owned()))
}
