//! What can go wrong in a script, and how a script ends.
//!
//! A [`Failure`] is what a native function reports; [`script_error`] gives it the place of the call, because Rhai forgets
//! the place of errors out of native modules. A [`Stop`] ends a script from inside, past every `try`. Which exit code
//! follows is decided here; how an error looks on screen is decided in [`super::diagnosis`].

use std::borrow::Cow;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, EvalAltResult, NativeCallContext, Position};

use super::oom;
use crate::libtorch::TorchError;

/// Who has to act on an error, and with that the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The script or its data is wrong.
    Script,
    /// The command line is wrong.
    Usage,
    /// Training diverged.
    Diverged,
    /// The machine failed: disk, memory, device, libtorch.
    Machine,
}

impl Kind {
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Script => 1,
            Self::Usage => 2,
            Self::Diverged => 3,
            Self::Machine => 4,
        }
    }
}

/// The exit code of a run that was interrupted, as a shell gives it for Ctrl-C.
pub const EXIT_INTERRUPTED: i32 = 130;

/// An error for the person who wrote the script: what is wrong and, where it is known, what would fix it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
    pub kind: Kind,
}

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, kind }
    }

    pub fn script(message: impl Into<String>) -> Self {
        Self::new(Kind::Script, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn machine(message: impl Into<String>) -> Self {
        Self::new(Kind::Machine, message)
    }

    /// The same, of the command line.
    pub fn into_usage(self) -> Self {
        Self { kind: Kind::Usage, ..self }
    }

    /// Adds what would fix it.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// This failure as an error at a place of the script.
    pub fn at(self, position: Position) -> Box<EvalAltResult> {
        EvalAltResult::ErrorRuntime(Dynamic::from(self), position).into()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::script(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::script(message)
    }
}

impl From<TorchError> for Failure {
    /// Shape mismatches get a plain opening; running out of memory and device faults are the machine's, not the script's.
    fn from(err: TorchError) -> Self {
        const MACHINE: [&str; 3] = ["CUDA error", "cuDNN error", "CUBLAS_STATUS"];
        const SHAPES: [&str; 4] = [
            "shapes cannot be multiplied",
            "must match the size of tensor",
            "Sizes of tensors must match",
            "size mismatch",
        ];
        let text = err.0;
        if let Some(failure) = oom::reworded(&text).or_else(|| reworded(&text)) {
            return failure;
        }
        if MACHINE.iter().any(|part| text.contains(part)) {
            return Self::machine(text);
        }
        match SHAPES.iter().any(|part| text.contains(part)) {
            true => Self::script(format!("tensor shapes do not match: {text}")),
            false => Self::script(text),
        }
    }
}

/// libtorch's sentences that say too little in a script.
fn reworded(text: &str) -> Option<Failure> {
    if text.contains("does not require grad and does not have a grad_fn") {
        return Some(
            Failure::script("backward: nothing that this value came from takes gradients")
                .with_hint("a model's loss does; of tensors, call x.requires_grad() before computing with them"),
        );
    }
    if text.contains("backward through the graph a second time") {
        return Some(
            Failure::script("backward: the gradients of this value have been computed already")
                .with_hint("compute it anew before each backward()"),
        );
    }
    let range = text.split_once("Dimension out of range (expected to be in range of [")?.1;
    let (least, rest) = range.split_once(", ")?;
    let (most, rest) = rest.split_once("], but got ")?;
    let got = rest.split(')').next()?;
    Some(Failure::script(format!("dimension {got} is out of range: expected {least} to {most}")))
}

impl From<tch::TchError> for Failure {
    fn from(err: tch::TchError) -> Self {
        TorchError::from(err).into()
    }
}

/// What native functions return to a script.
pub type ScriptResult<T> = Result<T, Box<EvalAltResult>>;

/// `err` as an error at the place in the script that made this call.
pub fn script_error(ctx: &NativeCallContext, err: impl Into<Failure>) -> Box<EvalAltResult> {
    err.into().at(ctx.call_position())
}

/// `err` without a place: of an iterator, whose loop Rhai fills in.
pub fn unplaced(err: impl Into<Failure>) -> Box<EvalAltResult> {
    err.into().at(Position::NONE)
}

/// An error with `message` at the place of this call unless `ok`.
pub fn check_arg(ctx: &NativeCallContext, ok: bool, message: impl FnOnce() -> String) -> ScriptResult<()> {
    if ok { Ok(()) } else { Err(script_error(ctx, message())) }
}

/// A value for a message: what is long is cut.
pub fn short(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]).into(),
        None => text.into(),
    }
}

/// A script's value for a message: as text, or, of types whose text would be a name in Rust, their name.
pub fn in_words(engine: &Engine, value: &Dynamic) -> String {
    const RUST: &str = concat!(env!("CARGO_CRATE_NAME"), "::");
    let text = value.to_string();
    match text.contains(RUST) || ["core::", "rhai::"].iter().any(|path| text.starts_with(path)) {
        true => {
            let name = engine.map_type_name(value.type_name());
            let own = name.split('<').next().unwrap_or(name);
            format!("a value of type {}", own.rsplit("::").next().unwrap_or(own))
        }
        false => short(&text).into_owned(),
    }
}

/// Why a script is ended from inside; no `catch` of the script sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal came in; what was to be saved is saved.
    Interrupted,
    /// The script was edited, and its next version is to start.
    Restart,
    /// The one cell that this process was to run has ended.
    CellEnded,
    /// A limit was reached.
    Failed(Failure),
}

impl Stop {
    /// The error that carries this through the script to the host. Return it from a native function or an iterator.
    pub fn error(self) -> Box<EvalAltResult> {
        EvalAltResult::ErrorTerminated(Dynamic::from(self), Position::NONE).into()
    }
}

/// Makes [`Failure`] pleasant in `catch (err)`: `err.message`, `err.hint`, `print(err)`.
pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_global_module(exported_module!(failure_api).into());
}

#[allow(dead_code, non_camel_case_types)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// What `catch (err)` gets where a function of the host failed. What a script throws itself is what it threw.
    ///
    /// ```rhai
    /// let problem = ();
    /// try {
    ///     models::vit(#{ image_sise: 32 });
    /// } catch (err) {
    ///     problem = err;
    /// }
    /// ```
    pub type error = Failure;
}

#[allow(clippy::unwrap_used)] // Rhai's macro makes them for `&mut` parameters, after it has checked the types.
#[export_module]
mod failure_api {
    /// What went wrong.
    ///
    /// ```rhai
    /// assert(problem.message.contains("image_sise"));
    /// ```
    #[rhai_fn(get = "message", pure)]
    pub fn message(err: &mut Failure) -> String {
        err.message.clone()
    }

    /// What would fix it; empty where nothing is known.
    ///
    /// ```rhai
    /// assert(problem.hint.contains("image_size"));
    /// ```
    #[rhai_fn(get = "hint", pure)]
    pub fn hint(err: &mut Failure) -> String {
        err.hint.clone().unwrap_or_default()
    }

    /// The message as text.
    ///
    /// ```rhai
    /// assert(problem.to_string() == problem.message);
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn to_text(err: &mut Failure) -> String {
        err.message.clone()
    }
}
