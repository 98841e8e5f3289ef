//! Option maps of script functions: typed reading, and an error for every key nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::errors::{Failure, ScriptResult, script_error};
use super::suggest::{did_you_mean, nearest};

thread_local! {
    /// What was asked for on this thread, while somebody wants to know.
    static ASKED: RefCell<Option<BTreeSet<Asked>>> = const { RefCell::new(None) };
}

/// The function that asked for an option, and the key.
pub type Asked = (&'static str, &'static str);

/// Keeps a list of the options that functions ask for while `work` runs on this thread: what there is to document.
pub fn recorded<T>(work: impl FnOnce() -> T) -> (T, BTreeSet<Asked>) {
    ASKED.set(Some(BTreeSet::new()));
    let result = work();
    (result, ASKED.take().unwrap_or_default())
}

/// Reads a map key by key; [`OptionMap::finish`] refuses what is left.
pub struct OptionMap<'a> {
    ctx: &'a NativeCallContext<'a>,
    what: &'static str,
    map: Map,
    known: Vec<&'static str>,
}

impl<'a> OptionMap<'a> {
    /// `what` is the function the options belong to, for messages.
    pub fn new(ctx: &'a NativeCallContext<'a>, what: &'static str, map: Map) -> Self {
        Self { ctx, what, map, known: Vec::new() }
    }

    /// The value of `key`; `None` if it is not there or `()`.
    pub fn get<T: FromOption>(&mut self, key: &'static str) -> ScriptResult<Option<T>> {
        self.known.push(key);
        ASKED.with_borrow_mut(|asked| {
            if let Some(asked) = asked {
                asked.insert((self.what, key));
            }
        });
        match self.map.remove(key) {
            None => Ok(None),
            Some(value) if value.is_unit() => Ok(None),
            Some(value) => {
                let got = self.ctx.engine().map_type_name(value.type_name()).to_owned();
                let shown = value.to_string();
                T::from_option(value)
                    .map(Some)
                    .ok_or_else(|| self.error(format!("{key}: expected {}, got {shown} ({got})", T::EXPECTED)))
            }
        }
    }

    pub fn or<T: FromOption>(&mut self, key: &'static str, default: T) -> ScriptResult<T> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// The value of a key that has no default.
    pub fn need<T: FromOption>(&mut self, key: &'static str) -> ScriptResult<T> {
        let what = self.what;
        if let Some(value) = self.get(key)? {
            return Ok(value);
        }
        // A key that was meant to be this one says more than that it is missing.
        let slip = self.map.keys().find(|given| nearest(given, [key]).is_some());
        Err(self.error(match slip {
            Some(given) => Failure::script(format!("{what}: no option is named {given}"))
                .with_hint(format!("did you mean `{key}`?")),
            None => Failure::script(format!("{what}: the option {key} is missing")),
        }))
    }

    /// A whole number that cannot be negative.
    pub fn count(&mut self, key: &'static str) -> ScriptResult<Option<u64>> {
        match self.get::<i64>(key)? {
            None => Ok(None),
            Some(n) => match u64::try_from(n) {
                Ok(n) => Ok(Some(n)),
                Err(_) => Err(self.error(format!("{key}: expected 0 or more, got {n}"))),
            },
        }
    }

    /// The call these options were given to.
    pub fn context(&self) -> &'a NativeCallContext<'a> {
        self.ctx
    }

    /// An error at the call these options were given to.
    pub fn error(&self, err: impl Into<Failure>) -> Box<rhai::EvalAltResult> {
        script_error(self.ctx, err)
    }

    /// Refuses keys that nobody read, naming the nearest one that exists.
    pub fn finish(self) -> ScriptResult<()> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        let hint = did_you_mean(key, self.known.iter().copied())
            .unwrap_or_else(|| format!("{} takes {}", self.what, self.known.join(", ")));
        Err(script_error(self.ctx, Failure::script(format!("{}: no option is named {key}", self.what)).with_hint(hint)))
    }
}

/// What an option's value can be read as.
pub trait FromOption: Sized {
    /// How messages name the type.
    const EXPECTED: &'static str;
    fn from_option(value: Dynamic) -> Option<Self>;
}

impl FromOption for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.as_int().ok()
    }
}

impl FromOption for f64 {
    const EXPECTED: &'static str = "a number";
    fn from_option(value: Dynamic) -> Option<Self> {
        number(&value)
    }
}

impl FromOption for bool {
    const EXPECTED: &'static str = "true or false";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.as_bool().ok()
    }
}

impl FromOption for String {
    const EXPECTED: &'static str = "text";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.into_string().ok()
    }
}

impl FromOption for Map {
    const EXPECTED: &'static str = "a map";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.try_cast()
    }
}

impl FromOption for Array {
    const EXPECTED: &'static str = "an array";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.try_cast()
    }
}

impl FromOption for Dynamic {
    const EXPECTED: &'static str = "a value";
    fn from_option(value: Dynamic) -> Option<Self> {
        Some(value)
    }
}

/// Height and width: a whole number for squares, or an array of two.
#[derive(Clone, Copy)]
pub struct ImageSize(pub i64, pub i64);

impl FromOption for ImageSize {
    const EXPECTED: &'static str = "a side in pixels, or [height, width]";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Ok(side) = value.as_int() {
            return Some(Self(side, side));
        }
        match value.try_cast::<Array>()?.as_slice() {
            [h, w] => Some(Self(h.as_int().ok()?, w.as_int().ok()?)),
            _ => None,
        }
    }
}

/// A number, integers included.
pub fn number(value: &Dynamic) -> Option<f64> {
    value.as_float().ok().or_else(|| value.as_int().ok().map(|n| n as f64))
}
