//! Tensors for scripts: the type `Tensor` with its operators and methods, and the namespace `tensor` that makes them.
//!
//! Names and meanings are PyTorch's. Differences: `max`, `min` and the like give values only; a tensor copied by `let b = a`
//! is the same tensor, so `b[0] = 1` changes `a` too, as in Python; comparisons are elementwise and give bool tensors, so a
//! condition needs `.all()`, `.any()` or `.item()`. Everything goes through libtorch's fallible calls, and a result's size
//! is checked before it is made.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, NativeCallContext};
use tch::{Kind, TchError, Tensor};

use crate::host::errors::{ScriptResult, script_error};
use crate::libtorch;

mod create;
mod gradient;
mod index;
mod math;
mod operators;
mod reduce;
mod shape;
mod show;
pub mod size;

/// A tensor as scripts hold it; copies share the tensor.
#[derive(Clone, Debug)]
pub struct TensorHandle(pub Rc<Tensor>);

impl TensorHandle {
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }
}

impl From<Tensor> for TensorHandle {
    fn from(tensor: Tensor) -> Self {
        Self(Rc::new(tensor))
    }
}

impl std::ops::Deref for TensorHandle {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    create::register(engine);
    operators::register(engine);
    index::register(engine);
    shape::register(engine);
    reduce::register(engine);
    math::register(engine);
    gradient::register(engine);
    show::register(engine);
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// Numbers, or truth values, of one kind in any number of dimensions; names and meanings are PyTorch's.
    ///
    /// `let b = a` makes another name for the same tensor: `b[0] = 1` changes `a` too; `a.copy()` has values of its own.
    /// Comparisons are elementwise and give bool tensors, so that a condition needs `all()`, `any()` or `item()`. `max`, `min` and
    /// their kin give values alone. Integers meet floats as in PyTorch.
    pub type Tensor = TensorHandle;
}

/// What libtorch answered, as a script's value or as an error at the call.
fn made(ctx: &NativeCallContext, result: Result<Tensor, TchError>) -> ScriptResult<TensorHandle> {
    result.map(TensorHandle::from).map_err(|err| script_error(ctx, err))
}

/// As [`made`], for calls that take numbers.
fn guarded(ctx: &NativeCallContext, call: impl FnOnce() -> Result<Tensor, TchError>) -> ScriptResult<TensorHandle> {
    libtorch::guarded(call).map(TensorHandle::from).map_err(|err| script_error(ctx, err))
}

/// Integers and bools as float32, for functions that have no meaning on them.
fn floating(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<Tensor> {
    if is_floating(x.kind()) {
        return Ok(x.shallow_clone());
    }
    size::check(ctx, &x.size(), Kind::Float)?;
    x.f_to_kind(Kind::Float).map_err(|err| script_error(ctx, err))
}

fn is_floating(kind: Kind) -> bool {
    matches!(kind, Kind::Half | Kind::Float | Kind::Double | Kind::BFloat16)
}

/// All values in order, whatever the kind and the device.
fn values(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<Vec<f64>> {
    let copy = || -> Result<Vec<f64>, TchError> {
        let x = x.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?;
        let mut values = vec![0.0; x.numel()];
        x.f_copy_data(&mut values, x.numel())?;
        Ok(values)
    };
    copy().map_err(|err| script_error(ctx, err))
}

/// All values in order, exactly: whole numbers as `int`, truth values as `bool`, the rest as `float`.
fn elements(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<Vec<Dynamic>> {
    if is_floating(x.kind()) {
        return Ok(values(ctx, x)?.into_iter().map(Dynamic::from_float).collect());
    }
    let copy = || -> Result<Vec<i64>, TchError> {
        let x = x.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Int64)?.f_contiguous()?;
        let mut values = vec![0; x.numel()];
        x.f_copy_data(&mut values, x.numel())?;
        Ok(values)
    };
    let values = copy().map_err(|err| script_error(ctx, err))?;
    let is_bool = x.kind() == Kind::Bool;
    Ok(values.into_iter().map(|value| if is_bool { (value != 0).into() } else { value.into() }).collect())
}
