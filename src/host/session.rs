//! What one run of `dbp-host SCRIPT` knows beside the script: its options, its device, its parameters, its sources.
//!
//! Native functions reach it through the engine's default tag: `let session = Session::of(&ctx);`.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use rhai::{Dynamic, NativeCallContext};

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
    pub allow_read: Vec<PathBuf>,
    /// Script operations allowed from one step boundary to the next.
    pub max_operations: u64,
    /// Largest tensor a script may make, in bytes.
    pub max_tensor_bytes: u64,
}

/// One script parameter: `arg(name, default)` and, where `--set` names it, the value given.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub default: Dynamic,
    pub given: Option<Dynamic>,
}

impl Parameter {
    pub fn value(&self) -> &Dynamic {
        self.given.as_ref().unwrap_or(&self.default)
    }
}

/// A source text as it was compiled: the script itself first, then its imports in the order of their resolution.
#[derive(Clone, Debug)]
pub struct Source {
    /// Path from the script's folder, or `std/...` for modules out of the binary.
    pub key: String,
    pub text: String,
}

pub struct Session {
    pub options: Options,
    pub parameters: RefCell<Vec<Parameter>>,
    pub sources: RefCell<Vec<Source>>,
}

impl Session {
    /// The session of the engine that makes this call.
    ///
    /// # Panics
    /// If the engine was made without one; [`super::engine::build`] always sets it.
    pub fn of(ctx: &NativeCallContext) -> Rc<Self> {
        let tag = ctx.tag().and_then(|tag| tag.clone().try_cast::<Rc<Self>>());
        tag.expect("engine::build sets the session as default tag")
    }
}
