//! The namespace `tensor`: tensors out of numbers, and out of the script's own random stream.
//!
//! Random numbers are counter-based: the n-th draw of a script depends on the seed and n alone, not on the device or the
//! number of threads.

use rayon::prelude::*;
use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, NativeCallContext};
use tch::{Kind, Tensor};

use super::{TensorHandle, guarded, made, size};
use crate::host::convert;
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};
use crate::host::session::Session;
use crate::random::{Key, Rng, Stream};

pub fn register(engine: &mut Engine) {
    engine.register_static_module("tensor", exported_module!(tensor).into());
    engine.register_global_module(exported_module!(likes).into());
}

/// Tensors out of numbers, and out of the script's own random stream.
#[export_module]
mod tensor {
    /// A tensor of nested arrays, or of one number. All integers make an int64 tensor, all bools a bool tensor, anything
    /// with a float a float32 one.
    #[rhai_fn(return_raw)]
    pub fn from(ctx: NativeCallContext, values: Dynamic) -> ScriptResult<TensorHandle> {
        let mut flat = Flat::default();
        flat.read(&ctx, &values, 0)?;
        size::check(&ctx, &flat.shape, Kind::Int64)?;
        let made_on_cpu = match (flat.floats, flat.ints, flat.bools) {
            (false, false, true) => {
                Tensor::f_from_slice(&flat.values.iter().map(|value| *value != 0.0).collect::<Vec<_>>())
            }
            (false, true, false) => Tensor::f_from_slice(&flat.whole),
            (_, _, false) => Tensor::f_from_slice(&flat.values.iter().map(|value| *value as f32).collect::<Vec<_>>()),
            _ => return Err(script_error(&ctx, "values: bools and numbers cannot be mixed")),
        };
        let device = Session::of(&ctx).options.device;
        made(&ctx, made_on_cpu.and_then(|x| x.f_reshape(&flat.shape)?.f_to_device(device)))
    }

    /// Zeros, float32.
    #[rhai_fn(return_raw)]
    pub fn zeros(ctx: NativeCallContext, shape: Dynamic) -> ScriptResult<TensorHandle> {
        filled(&ctx, &shape, 0.0)
    }

    /// Ones, float32.
    #[rhai_fn(return_raw)]
    pub fn ones(ctx: NativeCallContext, shape: Dynamic) -> ScriptResult<TensorHandle> {
        filled(&ctx, &shape, 1.0)
    }

    /// `value` everywhere, float32.
    #[rhai_fn(return_raw)]
    pub fn full(ctx: NativeCallContext, shape: Dynamic, value: Dynamic) -> ScriptResult<TensorHandle> {
        let value = convert::float(&ctx, "value", &value)?;
        filled(&ctx, &shape, value)
    }

    /// The identity matrix `[n, n]`, float32.
    #[rhai_fn(return_raw)]
    pub fn eye(ctx: NativeCallContext, n: INT) -> ScriptResult<TensorHandle> {
        check_arg(&ctx, n >= 0, || format!("n: expected at least 0, got {n}"))?;
        size::check(&ctx, &[n, n], Kind::Float)?;
        made(&ctx, Tensor::f_eye(n, (Kind::Float, Session::of(&ctx).options.device)))
    }

    /// `0, 1, …` below `end`.
    #[rhai_fn(name = "arange", return_raw)]
    pub fn arange_to(ctx: NativeCallContext, end: Dynamic) -> ScriptResult<TensorHandle> {
        stepped(&ctx, &Dynamic::from_int(0), &end, &Dynamic::from_int(1))
    }

    /// `start, start + 1, …` below `end`.
    #[rhai_fn(name = "arange", return_raw)]
    pub fn arange_between(ctx: NativeCallContext, start: Dynamic, end: Dynamic) -> ScriptResult<TensorHandle> {
        stepped(&ctx, &start, &end, &Dynamic::from_int(1))
    }

    /// `start, start + step, …` before `end`. Integers make an int64 tensor, floats a float32 one.
    #[rhai_fn(return_raw)]
    pub fn arange(ctx: NativeCallContext, start: Dynamic, end: Dynamic, step: Dynamic) -> ScriptResult<TensorHandle> {
        stepped(&ctx, &start, &end, &step)
    }

    /// `count` equally spaced numbers from `start` to `end`, both included, float32.
    #[rhai_fn(return_raw)]
    pub fn linspace(ctx: NativeCallContext, start: Dynamic, end: Dynamic, count: INT) -> ScriptResult<TensorHandle> {
        let (start, end) = (convert::float(&ctx, "start", &start)?, convert::float(&ctx, "end", &end)?);
        check_arg(&ctx, count >= 0, || format!("count: expected at least 0, got {count}"))?;
        size::check(&ctx, &[count], Kind::Float)?;
        guarded(&ctx, || Tensor::f_linspace(start, end, count, (Kind::Float, Session::of(&ctx).options.device)))
    }

    /// Uniform random numbers in [0, 1), float32.
    #[rhai_fn(return_raw)]
    pub fn rand(ctx: NativeCallContext, shape: Dynamic) -> ScriptResult<TensorHandle> {
        let shape = convert::shape(&ctx, "shape", &shape)?;
        drawn(&ctx, &shape, Rng::uniform)
    }

    /// Standard normal random numbers, float32.
    #[rhai_fn(return_raw)]
    pub fn randn(ctx: NativeCallContext, shape: Dynamic) -> ScriptResult<TensorHandle> {
        let shape = convert::shape(&ctx, "shape", &shape)?;
        drawn(&ctx, &shape, |rng| rng.normal() as f32)
    }

    /// The numbers 0 to n - 1 in random order, int64.
    #[rhai_fn(return_raw)]
    pub fn randperm(ctx: NativeCallContext, n: INT) -> ScriptResult<TensorHandle> {
        check_arg(&ctx, n >= 0, || format!("n: expected at least 0, got {n}"))?;
        size::check(&ctx, &[n], Kind::Int64)?;
        let session = Session::of(&ctx);
        let order = next_key(&session).rng().sample(n as usize, n as usize);
        made(&ctx, Tensor::f_from_slice(&order).and_then(|x| x.f_to_device(session.options.device)))
    }

    /// Joins tensors along dimension 0.
    #[rhai_fn(name = "cat", return_raw)]
    pub fn cat_first(ctx: NativeCallContext, tensors: Array) -> ScriptResult<TensorHandle> {
        joined(&ctx, tensors, 0)
    }

    /// Joins tensors along dimension `dim`; all other dimensions must agree.
    #[rhai_fn(return_raw)]
    pub fn cat(ctx: NativeCallContext, tensors: Array, dim: INT) -> ScriptResult<TensorHandle> {
        joined(&ctx, tensors, dim)
    }

    /// Stacks tensors of one shape along a new dimension 0.
    #[rhai_fn(name = "stack", return_raw)]
    pub fn stack_first(ctx: NativeCallContext, tensors: Array) -> ScriptResult<TensorHandle> {
        stacked(&ctx, tensors, 0)
    }

    /// Stacks tensors of one shape along a new dimension `dim`.
    #[rhai_fn(return_raw)]
    pub fn stack(ctx: NativeCallContext, tensors: Array, dim: INT) -> ScriptResult<TensorHandle> {
        stacked(&ctx, tensors, dim)
    }
}

#[export_module]
mod likes {
    /// Zeros of the same shape and type.
    #[rhai_fn(return_raw)]
    pub fn zeros_like(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &x.size(), x.kind())?;
        made(&ctx, x.f_zeros_like())
    }

    /// Ones of the same shape and type.
    #[rhai_fn(return_raw)]
    pub fn ones_like(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &x.size(), x.kind())?;
        made(&ctx, x.f_ones_like())
    }

    /// `value` everywhere, with the same shape and type.
    #[rhai_fn(return_raw)]
    pub fn full_like(ctx: NativeCallContext, x: TensorHandle, value: Dynamic) -> ScriptResult<TensorHandle> {
        let value = convert::float(&ctx, "value", &value)?;
        size::check(&ctx, &x.size(), x.kind())?;
        guarded(&ctx, || x.f_full_like(value))
    }

    /// Uniform random numbers in [0, 1) of the same shape, float32.
    #[rhai_fn(return_raw)]
    pub fn rand_like(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        drawn(&ctx, &x.size(), Rng::uniform)
    }

    /// Standard normal random numbers of the same shape, float32.
    #[rhai_fn(return_raw)]
    pub fn randn_like(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        drawn(&ctx, &x.size(), |rng| rng.normal() as f32)
    }
}

fn filled(ctx: &NativeCallContext, shape: &Dynamic, value: f64) -> ScriptResult<TensorHandle> {
    let shape = convert::shape(ctx, "shape", shape)?;
    size::check(ctx, &shape, Kind::Float)?;
    guarded(ctx, || Tensor::f_full(&shape, value, (Kind::Float, Session::of(ctx).options.device)))
}

fn stepped(ctx: &NativeCallContext, start: &Dynamic, end: &Dynamic, step: &Dynamic) -> ScriptResult<TensorHandle> {
    let device = Session::of(ctx).options.device;
    let [from, to, by] =
        [convert::float(ctx, "start", start)?, convert::float(ctx, "end", end)?, convert::float(ctx, "step", step)?];
    let steps = (to - from) / by;
    check_arg(ctx, by != 0.0 && steps >= 0.0 && steps.is_finite(), || {
        format!("arange: {from} never reaches {to} in steps of {by}")
    })?;
    // Beyond 2^53 a float is no exact count, but then the size is refused anyway.
    size::check(ctx, &[steps.ceil() as i64], Kind::Int64)?;
    match (start.as_int(), end.as_int(), step.as_int()) {
        (Ok(start), Ok(end), Ok(step)) => {
            guarded(ctx, || Tensor::f_arange_start_step(start, end, step, (Kind::Int64, device)))
        }
        _ => guarded(ctx, || Tensor::f_arange_start_step(from, to, by, (Kind::Float, device))),
    }
}

fn next_key(session: &Session) -> Key {
    Key::new(session.seed(), Stream::Script).step(session.next_draw())
}

/// Numbers drawn in pieces, each with its own key, so that threads can share the work.
fn drawn(ctx: &NativeCallContext, shape: &[i64], draw: fn(&mut Rng) -> f32) -> ScriptResult<TensorHandle> {
    const PIECE: usize = 1 << 16;
    size::check(ctx, shape, Kind::Float)?;
    let session = Session::of(ctx);
    let key = next_key(&session);
    let mut values = vec![0_f32; shape.iter().product::<i64>() as usize];
    values.par_chunks_mut(PIECE).enumerate().for_each(|(index, piece)| {
        let mut rng = key.index(index as u64).rng();
        piece.iter_mut().for_each(|value| *value = draw(&mut rng));
    });
    made(ctx, Tensor::f_from_slice(&values).and_then(|x| x.f_reshape(shape)?.f_to_device(session.options.device)))
}

fn tensors_of(ctx: &NativeCallContext, items: Array) -> ScriptResult<Vec<TensorHandle>> {
    check_arg(ctx, !items.is_empty(), || "tensors: expected at least one, got an empty array".into())?;
    let mut tensors = Vec::with_capacity(items.len());
    for item in items {
        let name = ctx.engine().map_type_name(item.type_name()).to_owned();
        let tensor = item.try_cast::<TensorHandle>();
        tensors.push(tensor.ok_or_else(|| script_error(ctx, format!("tensors: expected tensors, got {name}")))?);
    }
    let bytes: i64 = tensors.iter().map(|x| x.numel() as i64).fold(0, i64::saturating_add);
    size::check(ctx, &[bytes], tensors[0].kind())?;
    Ok(tensors)
}

fn joined(ctx: &NativeCallContext, tensors: Array, dim: INT) -> ScriptResult<TensorHandle> {
    let tensors = tensors_of(ctx, tensors)?;
    let first = tensors[0].size();
    let along = if dim < 0 { dim + first.len() as i64 } else { dim };
    let fits = |shape: &[i64]| {
        let differs = |at: usize| at as i64 != along && shape[at] != first[at];
        shape.len() == first.len() && !(0..shape.len()).any(differs)
    };
    // libtorch lets an empty tensor of one dimension join anything.
    let other = tensors.iter().map(|x| x.size()).find(|shape| !fits(shape) && *shape != [0] && first != [0]);
    if let Some(other) = other {
        let message = format!("tensor shapes do not match: cat along dimension {dim} of {first:?} and {other:?}");
        return Err(script_error(ctx, Failure::script(message).with_hint("all other dimensions must be equal")));
    }
    let tensors: Vec<&Tensor> = tensors.iter().map(TensorHandle::tensor).collect();
    made(ctx, Tensor::f_cat(&tensors, dim))
}

fn stacked(ctx: &NativeCallContext, tensors: Array, dim: INT) -> ScriptResult<TensorHandle> {
    let tensors = tensors_of(ctx, tensors)?;
    let first = tensors[0].size();
    if let Some(other) = tensors.iter().map(|x| x.size()).find(|shape| *shape != first) {
        return Err(script_error(ctx, format!("tensor shapes do not match: stack got {first:?} and {other:?}")));
    }
    let tensors: Vec<&Tensor> = tensors.iter().map(TensorHandle::tensor).collect();
    made(ctx, Tensor::f_stack(&tensors, dim))
}

/// Nested arrays, flattened.
#[derive(Default)]
struct Flat {
    shape: Vec<i64>,
    /// Everything, as a float; bools as 0 and 1.
    values: Vec<f64>,
    /// The integers, exactly.
    whole: Vec<i64>,
    floats: bool,
    ints: bool,
    bools: bool,
}

impl Flat {
    fn read(&mut self, ctx: &NativeCallContext, value: &Dynamic, depth: usize) -> ScriptResult<()> {
        let ragged = |what: String| {
            Err(script_error(ctx, Failure::script(format!("values: expected rows of equal length, got {what}"))))
        };
        if let Some(items) = value.read_lock::<Array>() {
            let length = items.len() as i64;
            // Depth first: a deeper level is first met while nothing has been read.
            match self.shape.get(depth) {
                None if self.values.is_empty() => self.shape.push(length),
                None => return ragged("an array beside a number".into()),
                Some(known) if *known != length => return ragged(format!("{known} and {length}")),
                Some(_) => {}
            }
            return items.iter().try_for_each(|item| self.read(ctx, item, depth + 1));
        }
        if depth != self.shape.len() {
            return ragged("a number beside an array".into());
        }
        if let Ok(value) = value.as_int() {
            self.ints = true;
            self.whole.push(value);
            self.values.push(value as f64);
        } else if let Ok(value) = value.as_float() {
            self.floats = true;
            self.values.push(value);
        } else if let Ok(value) = value.as_bool() {
            self.bools = true;
            self.values.push(f64::from(value));
        } else {
            let name = ctx.engine().map_type_name(value.type_name());
            let failure = Failure::script(format!("values: expected numbers, bools or arrays of them, got {name}"));
            let is_tensor = name == "Tensor";
            return Err(script_error(
                ctx,
                if is_tensor { failure.with_hint("tensor::stack joins tensors") } else { failure },
            ));
        }
        Ok(())
    }
}
