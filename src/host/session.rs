//! What one run of `dbp-host SCRIPT` knows beside the script: its options, its device, its parameters, its sources.
//!
//! Native functions reach it through the engine's default tag: `let session = Session::of(&ctx);`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use rhai::{Dynamic, Engine, ImmutableString, Locked, NativeCallContext, Shared};

use super::api::custom::Homes;
use super::args::{Given, to_json};
use super::energy::EnergyOptions;
use super::errors::{Failure, Stop};
use super::resolver::Library;
use super::runs::Runs;
use super::sandbox::Sandbox;
use super::say::{print_line, say};
use super::signals;
use super::sources::SourceStore;
use super::warm::Warm;
use super::watch::Watching;
use crate::data::{DataError, Dataset, Spec};

/// The command line of a run, already validated.
#[derive(Clone, Debug)]
pub struct Options {
    pub script: PathBuf,
    /// `--set name=value`, in order.
    pub set: Vec<(String, String)>,
    /// Folder that run directories are made in.
    pub runs: PathBuf,
    pub device: tch::Device,
    /// `--seed`; `None` leaves the seed to the script's own default.
    pub seed: Option<u64>,
    /// A run directory to carry on with.
    pub resume: Option<PathBuf>,
    pub threads: Option<usize>,
    /// Whether products of float32 on CUDA may take TF32.
    pub tf32: bool,
    /// Cells of a grid that are run at once.
    pub jobs: usize,
    /// The one cell of a grid that this process is to run.
    pub cell: Option<TheCell>,
    pub allow_read: Vec<PathBuf>,
    /// Folders that the script may write to, beside its run directory.
    pub allow_write: Vec<PathBuf>,
    /// Whether this only tries the script out: see [`super::smoke`].
    pub smoke: bool,
    /// Script operations allowed from one step boundary to the next.
    pub max_operations: u64,
    /// Largest tensor a script may make, in bytes.
    pub max_tensor_bytes: u64,
    /// How every run's energy is accounted for.
    pub energy: EnergyOptions,
}

/// What a worker is told of the grid that it works for.
#[derive(Clone, Debug)]
pub struct TheCell {
    pub address: String,
    /// The grid's directory, whose saved sources it runs.
    pub root: PathBuf,
}

impl Options {
    /// `--max-operations` where it is not given.
    pub const MAX_OPERATIONS: u64 = 50_000_000;
    /// `--max-tensor-bytes` where it is not given: 8 GiB.
    pub const MAX_TENSOR_BYTES: u64 = 8 << 30;

    /// The options of `dbp-host SCRIPT` on the CPU.
    pub fn new(script: impl Into<PathBuf>) -> Self {
        Self {
            script: script.into(),
            set: Vec::new(),
            runs: "runs".into(),
            device: tch::Device::Cpu,
            seed: None,
            resume: None,
            threads: None,
            tf32: false,
            jobs: 1,
            cell: None,
            allow_read: Vec::new(),
            allow_write: Vec::new(),
            smoke: false,
            max_operations: Self::MAX_OPERATIONS,
            max_tensor_bytes: Self::MAX_TENSOR_BYTES,
            energy: EnergyOptions::default(),
        }
    }
}

/// One script parameter: `arg(name, default)` and, where `--set` names it, the value given.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    /// `()` until `arg` is called if the default is not a constant.
    pub default: Dynamic,
    pub given: Option<Dynamic>,
}

impl Parameter {
    pub fn value(&self) -> &Dynamic {
        self.given.as_ref().unwrap_or(&self.default)
    }
}

/// A script's constants, as its functions see them: `global::NAME`.
pub(super) type Constants = Shared<Locked<BTreeMap<ImmutableString, Dynamic>>>;

/// Where the script's output goes.
type Printer = Box<dyn Fn(&str)>;

pub struct Session {
    pub options: Options,
    pub parameters: RefCell<Vec<Parameter>>,
    /// The values of `--set` and of a resumed run, by parameter.
    pub(super) given: Given,
    pub(super) library: Library,
    sandbox: Sandbox,
    engine: RefCell<Weak<Engine>>,
    operations: Cell<u64>,
    in_training: Cell<bool>,
    pending: RefCell<Option<Stop>>,
    seed: Cell<u64>,
    draws: Cell<u64>,
    /// While the script runs.
    constants: RefCell<Option<Constants>>,
    /// The datasets that were opened, in order.
    opened: RefCell<Vec<Spec>>,
    /// The training runs this script has made.
    pub(super) runs: Runs,
    /// What functions of custom models see.
    pub(super) homes: Homes,
    /// What outlives this session.
    pub(super) warm: Rc<Warm>,
    /// Under `watch`.
    pub(super) watching: Option<Rc<Watching>>,
    printer: RefCell<Printer>,
}

impl Session {
    /// # Errors
    /// If a folder named on the command line cannot be read, or the run to resume is not one.
    pub fn new(options: Options) -> Result<Rc<Self>, Failure> {
        Self::within(options, Rc::default(), None)
    }

    /// The session of a script that is run again whenever it is saved: `warm` is what it shares with those before and after.
    pub(super) fn watched(options: Options, warm: Rc<Warm>, watching: Rc<Watching>) -> Result<Rc<Self>, Failure> {
        Self::within(options, warm, Some(watching))
    }

    fn within(options: Options, warm: Rc<Warm>, watching: Option<Rc<Watching>>) -> Result<Rc<Self>, Failure> {
        let saved = options.cell.as_ref().map(|cell| &cell.root).or(options.resume.as_ref());
        let store = match saved {
            Some(run) => SourceStore::saved(run)?,
            None => SourceStore::disk(&options.script)?,
        };
        Self::on(store, options, warm, watching)
    }

    /// The session of a prompt in the current folder; `options.script` is what its runs are called after.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at_prompt(options: Options) -> Result<Rc<Self>, Failure> {
        Self::on(SourceStore::prompt()?, options, Rc::default(), None)
    }

    fn on(
        store: SourceStore,
        options: Options,
        warm: Rc<Warm>,
        watching: Option<Rc<Watching>>,
    ) -> Result<Rc<Self>, Failure> {
        let given = Given::new(&options.set, options.resume.as_deref())?;
        let sandbox = Sandbox::new(&options, &store, &given)?;
        Ok(Rc::new(Self {
            parameters: RefCell::default(),
            given,
            library: Library::new(store),
            sandbox,
            engine: RefCell::default(),
            operations: Cell::new(0),
            in_training: Cell::new(false),
            pending: RefCell::default(),
            seed: Cell::new(options.seed.unwrap_or(0)),
            draws: Cell::new(0),
            constants: RefCell::default(),
            opened: RefCell::default(),
            runs: Runs::default(),
            homes: Homes::default(),
            warm,
            watching,
            printer: RefCell::new(Box::new(print_line)),
            options,
        }))
    }

    /// The session of the engine that makes this call.
    ///
    /// # Panics
    /// If the engine was made without one; [`super::engine::build`] always sets it.
    pub fn of(ctx: &NativeCallContext) -> Rc<Self> {
        let tag = ctx.tag().and_then(|tag| tag.clone().try_cast::<Rc<Self>>());
        tag.expect("engine::build sets the session as default tag")
    }

    /// The engine that runs this session's script.
    ///
    /// # Panics
    /// Outside [`super::engine::build`]'s lifetime.
    pub fn engine(&self) -> Rc<Engine> {
        self.engine.borrow().upgrade().expect("the engine outlives the script it runs")
    }

    pub(super) fn set_engine(&self, engine: &Rc<Engine>) {
        *self.engine.borrow_mut() = Rc::downgrade(engine);
    }

    /// Looks for edits of a watched script, and patches its functions where that will do. Whether the script is to end here,
    /// for its next version to start.
    pub(super) fn edited(&self) -> bool {
        self.watching.as_ref().is_some_and(|watching| watching.look(self))
    }

    /// The sources that a run directory is to hold: what runs now, by key, the script first.
    pub fn running_sources(&self) -> Vec<(String, String)> {
        let mut sources = self.library.sources();
        let patched = self.watching.as_ref().and_then(|watching| watching.revision());
        if let (Some(script), Some(patched)) = (sources.first_mut(), patched) {
            script.1 = patched.text();
        }
        sources
    }

    /// The number of the version whose functions were patched in last; 0 for those that the script began with.
    pub(super) fn version(&self) -> usize {
        self.watching.as_ref().and_then(|watching| watching.revision()).map_or(0, |revision| revision.number)
    }

    /// The script's constants so far, while it runs.
    pub(super) fn constants(&self) -> Option<Constants> {
        self.constants.borrow().clone()
    }

    pub(super) fn set_constants(&self, constants: Option<Constants>) {
        let before = self.constants.replace(constants);
        drop(before); // What they hold may ask the session when it goes.
    }

    /// Whether SIGINT or SIGTERM came in. Long native calls poll it.
    pub fn interrupted(&self) -> bool {
        signals::interrupted()
    }

    /// While training, an interrupt waits for the step boundary, where the training loop answers it.
    pub fn set_in_training(&self, in_training: bool) {
        self.in_training.set(in_training);
    }

    pub(super) fn in_training(&self) -> bool {
        self.in_training.get()
    }

    /// Ends the script at its next operation. An iterator that answers with [`Stop::error`] calls this too, because Rhai
    /// drops such an error where the loop's body is empty.
    pub fn request_stop(&self, stop: Stop) {
        *self.pending.borrow_mut() = Some(stop);
    }

    /// Takes back what [`Self::request_stop`] asked for: the next script is not to meet it.
    pub(super) fn clear_stop(&self) {
        *self.pending.borrow_mut() = None;
    }

    pub(super) fn pending_stop(&self) -> Option<Stop> {
        self.pending.borrow().clone()
    }

    /// Starts the count of script operations anew: at every step boundary.
    pub fn reset_operations(&self) {
        self.operations.set(0);
    }

    /// Counts one script operation; `false` once there are too many.
    pub(super) fn count_operation(&self) -> bool {
        let count = self.operations.get() + 1;
        self.operations.set(count);
        count <= self.options.max_operations
    }

    /// The seed of this session's draws: `--seed`, else what the script set, else 0.
    pub fn seed(&self) -> u64 {
        self.seed.get()
    }

    /// Sets the seed for a script that has its own; `--seed` wins.
    pub fn set_seed(&self, seed: u64) {
        self.seed.set(self.options.seed.unwrap_or(seed));
    }

    /// The number of this draw by the script, for the key of its random numbers.
    pub(super) fn next_draw(&self) -> u64 {
        self.draws.replace(self.draws.get() + 1)
    }

    /// How many draws the script has made: checkpoints keep it.
    pub fn draws(&self) -> u64 {
        self.draws.get()
    }

    /// Goes on behind `draws` draws, as a resumed run does.
    pub fn set_draws(&self, draws: u64) {
        self.draws.set(draws);
    }

    /// Writes a line of the script's output. That of a grid's cell is put beside its run.
    pub fn print(&self, text: &str) {
        if !self.runs.write_aside(text) {
            (self.printer.borrow())(text);
        }
    }

    /// A message about one run. Of a grid's cell nobody wants to see it: it is put beside the run as well.
    pub(super) fn tell(&self, text: &str) {
        if !self.runs.write_aside(text) {
            say(text);
        }
    }

    /// Sends the script's output elsewhere: above a progress bar, into a test.
    pub fn set_printer(&self, printer: impl Fn(&str) + 'static) {
        *self.printer.borrow_mut() = Box::new(printer);
    }

    /// The real path behind `path` if the script may read it. Values of `--set` are taken from the current folder, all
    /// else from the script's folder (`datasets/…` from either).
    ///
    /// # Errors
    /// If it does not exist, or lies where scripts may not read; the hint names the flag that would allow it.
    pub fn readable(&self, path: &str) -> Result<PathBuf, Failure> {
        let runs: Vec<PathBuf> = self.runs.current_directory().into_iter().chain(self.runs.root()).collect();
        self.sandbox.readable(path, &runs)
    }

    /// The real paths behind a text with braces that stands for several.
    ///
    /// # Errors
    /// As [`readable`](Self::readable), of any of them; braces that say nothing.
    pub fn readable_all(&self, pattern: &str) -> Result<Vec<PathBuf>, Failure> {
        let runs: Vec<PathBuf> = self.runs.current_directory().into_iter().chain(self.runs.root()).collect();
        self.sandbox.readable_all(pattern, &runs)
    }

    /// Where `path` is to be written, if the script may: in the directory of its last run, or below `--allow-write`.
    ///
    /// # Errors
    /// If it lies elsewhere, or is one of the run's own files; the hint names the flag that would allow it.
    pub fn writable(&self, path: &str) -> Result<PathBuf, Failure> {
        self.sandbox.writable(path, self.runs.current_directory().as_deref())
    }

    /// Counts bytes that the script is about to write by itself.
    ///
    /// # Errors
    /// Once there are more than all its files may have.
    pub fn count_written(&self, bytes: usize) -> Result<(), Failure> {
        self.sandbox.count_written(bytes)
    }

    /// Opens a dataset.
    ///
    /// # Errors
    /// Those of [`Dataset::open`].
    pub fn open(&self, spec: &Spec) -> Result<Dataset, DataError> {
        self.opened.borrow_mut().push(spec.clone());
        self.warm.open(spec)
    }

    /// How many datasets were opened so far.
    pub(super) fn opened_count(&self) -> usize {
        self.opened.borrow().len()
    }

    /// Forgets those that were opened since there were `count`.
    pub(super) fn forget_opened(&self, count: usize) {
        self.opened.borrow_mut().truncate(count);
    }

    /// The stamps of the datasets that were opened so far, in order: the files as they are now.
    ///
    /// # Errors
    /// Those of opening them again.
    pub(super) fn opened(&self) -> Result<Vec<u64>, DataError> {
        // Only grids ask, and of large folders it takes seconds: so not when they are opened.
        self.opened.borrow().iter().map(|spec| Ok(Dataset::open(spec)?.stamp())).collect()
    }

    /// The script as its first run was given it: a resumed one remembers where it lay.
    pub fn origin(&self) -> PathBuf {
        self.library.store.origin(&self.options.script)
    }

    /// The parameters' values as JSON, for `run.json`; one that is `()` is absent. What was given for one whose default is not
    /// computed yet is there as it was given.
    pub fn arguments(&self) -> serde_json::Map<String, serde_json::Value> {
        let parameters = self.parameters.borrow();
        let value = |parameter: &Parameter| match parameter.value() {
            value if value.is_unit() => self.given.raw(&parameter.name),
            value => Some(to_json(value)),
        };
        parameters.iter().filter_map(|parameter| Some((parameter.name.clone(), value(parameter)?))).collect()
    }

    /// The folder of the script.
    pub fn script_folder(&self) -> PathBuf {
        self.sandbox.script_folder().to_owned()
    }
}
