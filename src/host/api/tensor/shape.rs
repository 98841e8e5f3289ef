//! What a tensor looks like, and the same values in another shape, type or place.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, INT, NativeCallContext};
use tch::{Device, Kind, Tensor};

use super::{TensorHandle, elements, made, size};
use crate::host::convert::{self, Ints, Nested, Shape};
use crate::host::errors::{ScriptResult, check_arg};

/// Names of a tensor's properties.
pub const PROPERTIES: [&str; 6] = ["shape", "ndim", "numel", "dtype", "device", "requires_grad"];

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(shapes).into());
}

#[export_module]
mod shapes {
    /// Sizes of all dimensions.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3]).shape == [2, 3]);
    /// ```
    #[rhai_fn(get = "shape", pure)]
    pub fn shape(x: &mut TensorHandle) -> Array {
        x.size().into_iter().map(Dynamic::from_int).collect()
    }

    /// Number of dimensions.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3]).ndim == 2 && tensor::from(1.0).ndim == 0);
    /// ```
    #[rhai_fn(get = "ndim", pure)]
    pub fn ndim(x: &mut TensorHandle) -> INT {
        x.dim() as INT
    }

    /// Number of values.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3]).numel == 6);
    /// ```
    #[rhai_fn(get = "numel", pure)]
    pub fn numel(x: &mut TensorHandle) -> INT {
        x.numel() as INT
    }

    /// Type of the values: "float32", "float64", "bfloat16", "int64", "bool", …
    ///
    /// ```rhai
    /// assert(tensor::zeros([2]).dtype == "float32" && tensor::arange(3).dtype == "int64");
    /// ```
    #[rhai_fn(get = "dtype", pure)]
    pub fn dtype(x: &mut TensorHandle) -> String {
        kind_name(x.kind()).into()
    }

    /// Where the values live: "cpu", "cuda:0", …
    ///
    /// ```rhai
    /// assert(tensor::zeros([2]).device == "cpu");
    /// ```
    #[rhai_fn(get = "device", pure)]
    pub fn device(x: &mut TensorHandle) -> String {
        match x.device() {
            Device::Cuda(index) => format!("cuda:{index}"),
            Device::Mps => "mps".into(),
            Device::Vulkan => "vulkan".into(),
            Device::Cpu => "cpu".into(),
        }
    }

    /// Size of the first dimension. Errors: a single value, which has none.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3]).len() == 2);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn len(ctx: NativeCallContext, x: &mut TensorHandle) -> ScriptResult<INT> {
        check_arg(&ctx, x.dim() > 0, || "len: expected a tensor with dimensions, got a single value".into())?;
        Ok(x.size()[0])
    }

    /// The same values as float32.
    ///
    /// ```rhai
    /// assert(tensor::from([1, 2]).to_float().to_array() == [1.0, 2.0]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_float(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        cast(&ctx, &x, Kind::Float)
    }

    /// The same values as float64.
    ///
    /// ```rhai
    /// assert(tensor::from([1, 2]).to_double().dtype == "float64");
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_double(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        cast(&ctx, &x, Kind::Double)
    }

    /// The same values as int64, fractions cut off.
    ///
    /// ```rhai
    /// assert(tensor::from([1.7, -1.7]).to_int().to_array() == [1, -1]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_int(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        cast(&ctx, &x, Kind::Int64)
    }

    /// Whether each value is not zero.
    ///
    /// ```rhai
    /// assert(tensor::from([0.0, 0.5]).to_bool().to_array() == [false, true]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_bool(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        cast(&ctx, &x, Kind::Bool)
    }

    /// Nested arrays of floats, ints or bools; of a tensor without dimensions, its value. Waits for the device.
    ///
    /// ```rhai
    /// assert(tensor::from([[1, 2], [3, 4]]).to_array() == [[1, 2], [3, 4]]);
    /// assert(tensor::from(0.5).to_array() == 0.5);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn to_array(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<Nested> {
        // A value in an array takes 16 bytes, and empty rows take room too.
        let mut room: Vec<i64> = x.size().into_iter().map(|size| size.max(1)).collect();
        room.push(2);
        size::check(&ctx, &room, Kind::Int64)?;
        Ok(nested(&mut elements(&ctx, &x)?.into_iter(), &x.size()))
    }

    /// The same values in another shape; one size may be -1.
    ///
    /// Errors: a shape with another number of values.
    ///
    /// ```rhai
    /// let x = tensor::arange(6);
    /// assert(x.reshape([2, 3]).to_array() == [[0, 1, 2], [3, 4, 5]] && x.reshape([3, -1]).shape == [3, 2]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn reshape(ctx: NativeCallContext, x: TensorHandle, shape: Shape) -> ScriptResult<TensorHandle> {
        let shape = convert::ints(&ctx, "shape", &shape)?;
        made(&ctx, x.f_reshape(&shape))
    }

    /// The dimensions in another order, which names each once.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3, 4]).permute([2, 0, 1]).shape == [4, 2, 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn permute(ctx: NativeCallContext, x: TensorHandle, dims: Ints) -> ScriptResult<TensorHandle> {
        let dims = convert::ints(&ctx, "dims", &dims)?;
        made(&ctx, x.f_permute(&dims))
    }

    /// A matrix with rows and columns swapped. Errors: more than two dimensions.
    ///
    /// ```rhai
    /// assert(tensor::from([[1, 2], [3, 4]]).t().to_array() == [[1, 3], [2, 4]]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn t(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        let rank = x.dim();
        check_arg(&ctx, rank <= 2, || format!("t: expected a matrix, got {rank} dimensions; use transpose(a, b)"))?;
        if rank < 2 { Ok(x) } else { made(&ctx, x.f_transpose(0, 1)) }
    }

    /// Two dimensions swapped.
    ///
    /// ```rhai
    /// assert(tensor::zeros([2, 3, 4]).transpose(0, -1).shape == [4, 3, 2]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn transpose(ctx: NativeCallContext, x: TensorHandle, a: INT, b: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_transpose(a, b))
    }

    /// Without dimensions of size 1.
    ///
    /// ```rhai
    /// let x = tensor::zeros([1, 3, 1]);
    /// assert(x.squeeze().shape == [3] && x.squeeze(0).shape == [3, 1] && x.squeeze(1).shape == [1, 3, 1]);
    /// ```
    #[rhai_fn(name = "squeeze", return_raw)]
    pub fn squeeze_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_squeeze())
    }

    /// Without dimension `dim` if its size is 1.
    #[rhai_fn(return_raw)]
    pub fn squeeze(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_squeeze_dim(dim))
    }

    /// With a new dimension of size 1 at `dim`.
    ///
    /// ```rhai
    /// let x = tensor::zeros([2, 3]);
    /// assert(x.unsqueeze(0).shape == [1, 2, 3] && x.unsqueeze(-1).shape == [2, 3, 1]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn unsqueeze(ctx: NativeCallContext, x: TensorHandle, dim: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_unsqueeze(dim))
    }

    /// Dimensions of size 1 repeated without copying; -1 keeps a size, and new dimensions come first.
    ///
    /// Errors: a size other than 1 that would change.
    ///
    /// ```rhai
    /// let x = tensor::from([[1], [2]]);
    /// assert(x.expand([-1, 3]).to_array() == [[1, 1, 1], [2, 2, 2]] && x.expand([4, 2, 1]).shape == [4, 2, 1]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn expand(ctx: NativeCallContext, x: TensorHandle, shape: Shape) -> ScriptResult<TensorHandle> {
        let shape = convert::ints(&ctx, "shape", &shape)?;
        let sizes = x.size();
        let offset = shape.len().saturating_sub(sizes.len());
        let kept = |at: usize| at.checked_sub(offset).and_then(|at| sizes.get(at)).copied().unwrap_or(1);
        let full: Vec<i64> =
            shape.iter().enumerate().map(|(at, size)| if *size < 0 { kept(at) } else { *size }).collect();
        // The view costs nothing, but whatever is computed from it has this size.
        size::check(&ctx, &full, x.kind())?;
        made(&ctx, x.f_expand(&shape, false))
    }

    /// All values in one dimension.
    ///
    /// ```rhai
    /// let x = tensor::zeros([2, 3, 4]);
    /// assert(x.flatten().shape == [24] && x.flatten(1, -1).shape == [2, 12]);
    /// ```
    #[rhai_fn(name = "flatten", return_raw)]
    pub fn flatten_all(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_flatten(0, -1))
    }

    /// Dimensions `start` to `end` (included) as one.
    #[rhai_fn(return_raw)]
    pub fn flatten(ctx: NativeCallContext, x: TensorHandle, start: INT, end: INT) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_flatten(start, end))
    }
}

fn cast(ctx: &NativeCallContext, x: &Tensor, kind: Kind) -> ScriptResult<TensorHandle> {
    size::check(ctx, &x.size(), kind)?;
    made(ctx, x.f_to_kind(kind))
}

fn nested(values: &mut impl Iterator<Item = Dynamic>, shape: &[i64]) -> Dynamic {
    match shape {
        [] => values.next().unwrap_or_default(),
        [length, rest @ ..] => (0..*length).map(|_| nested(values, rest)).collect::<Array>().into(),
    }
}

/// PyTorch's name of a kind.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Uint8 => "uint8",
        Kind::Int8 => "int8",
        Kind::Int16 => "int16",
        Kind::Int => "int32",
        Kind::Int64 => "int64",
        Kind::Half => "float16",
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Bool => "bool",
        Kind::BFloat16 => "bfloat16",
        _ => "other",
    }
}
