//! Operators: tensors with tensors and with numbers on either side, broadcast as in PyTorch.
//!
//! Comparisons are elementwise and give bool tensors; `==` and `!=` with anything but tensors and numbers answer false and
//! true, so that `x == ()` works. `&`, `|` and `!` combine bool tensors.

use rhai::plugin::*;
use rhai::{Dynamic, Engine, ImmutableString, NativeCallContext};
use tch::{Kind, Scalar, TchError, Tensor};

use super::{TensorHandle, guarded, is_floating, made, size};
use crate::host::convert::{Operand, SomeTensor, TensorOrBool, TensorOrText};
use crate::host::errors::{ScriptResult, script_error};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(operators).into());
}

/// Two functions for each operator: tensor on the left with anything, and anything with a tensor on the right.
#[export_module]
mod operators {
    /// Elementwise sum; with text, the tensor's own text is appended.
    #[rhai_fn(name = "+", return_raw)]
    pub fn add(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<TensorOrText> {
        binary(&ctx, Op::Add, a.into(), Side::of(b))
    }

    /// Elementwise sum; text before a tensor is continued by the tensor's own.
    #[rhai_fn(name = "+", return_raw)]
    pub fn add_to(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<TensorOrText> {
        binary(&ctx, Op::Add, Side::of(a), b.into())
    }

    /// Elementwise difference.
    #[rhai_fn(name = "-", return_raw)]
    pub fn subtract(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Subtract, a.into(), Side::of(b))
    }

    /// Elementwise difference.
    #[rhai_fn(name = "-", return_raw)]
    pub fn subtract_from(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Subtract, Side::of(a), b.into())
    }

    /// Elementwise product; `matmul` is the matrix product.
    #[rhai_fn(name = "*", return_raw)]
    pub fn multiply(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Multiply, a.into(), Side::of(b))
    }

    /// Elementwise product; `matmul` is the matrix product.
    #[rhai_fn(name = "*", return_raw)]
    pub fn multiply_by(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Multiply, Side::of(a), b.into())
    }

    /// Elementwise quotient, always floating.
    #[rhai_fn(name = "/", return_raw)]
    pub fn divide(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Divide, a.into(), Side::of(b))
    }

    /// Elementwise quotient, always floating.
    #[rhai_fn(name = "/", return_raw)]
    pub fn divide_by(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Divide, Side::of(a), b.into())
    }

    /// Elementwise remainder, with the sign of the divisor.
    #[rhai_fn(name = "%", return_raw)]
    pub fn remainder(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Remainder, a.into(), Side::of(b))
    }

    /// Elementwise remainder, with the sign of the divisor.
    #[rhai_fn(name = "%", return_raw)]
    pub fn remainder_by(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Remainder, Side::of(a), b.into())
    }

    /// Elementwise power.
    ///
    /// ```rhai
    /// let x = tensor::from([1.0, 2.0, 3.0]);
    /// assert(x.pow(2).to_array() == [1.0, 4.0, 9.0] && (2 ** x).to_array() == [2.0, 4.0, 8.0]);
    /// ```
    #[rhai_fn(name = "**", name = "pow", return_raw)]
    pub fn power(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Power, a.into(), Side::of(b))
    }

    /// Elementwise power.
    #[rhai_fn(name = "**", return_raw)]
    pub fn power_of(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Power, Side::of(a), b.into())
    }

    /// Where values are equal.
    #[rhai_fn(name = "==", return_raw)]
    pub fn equal(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<TensorOrBool> {
        binary(&ctx, Op::Equal, a.into(), Side::of(b))
    }

    /// Where values are equal.
    #[rhai_fn(name = "==", return_raw)]
    pub fn equal_to(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<TensorOrBool> {
        binary(&ctx, Op::Equal, Side::of(a), b.into())
    }

    /// Where values differ.
    #[rhai_fn(name = "!=", return_raw)]
    pub fn unequal(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<TensorOrBool> {
        binary(&ctx, Op::Unequal, a.into(), Side::of(b))
    }

    /// Where values differ.
    #[rhai_fn(name = "!=", return_raw)]
    pub fn unequal_to(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<TensorOrBool> {
        binary(&ctx, Op::Unequal, Side::of(a), b.into())
    }

    /// Where the left value is smaller.
    #[rhai_fn(name = "<", return_raw)]
    pub fn less(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Less, a.into(), Side::of(b))
    }

    /// Where the left value is smaller.
    #[rhai_fn(name = "<", return_raw)]
    pub fn less_than(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Less, Side::of(a), b.into())
    }

    /// Where the left value is not greater.
    #[rhai_fn(name = "<=", return_raw)]
    pub fn at_most(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::AtMost, a.into(), Side::of(b))
    }

    /// Where the left value is not greater.
    #[rhai_fn(name = "<=", return_raw)]
    pub fn at_most_than(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::AtMost, Side::of(a), b.into())
    }

    /// Where the left value is greater.
    #[rhai_fn(name = ">", return_raw)]
    pub fn greater(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Greater, a.into(), Side::of(b))
    }

    /// Where the left value is greater.
    #[rhai_fn(name = ">", return_raw)]
    pub fn greater_than(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Greater, Side::of(a), b.into())
    }

    /// Where the left value is not smaller.
    #[rhai_fn(name = ">=", return_raw)]
    pub fn at_least(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::AtLeast, a.into(), Side::of(b))
    }

    /// Where the left value is not smaller.
    #[rhai_fn(name = ">=", return_raw)]
    pub fn at_least_than(ctx: NativeCallContext, a: Operand, b: TensorHandle) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::AtLeast, Side::of(a), b.into())
    }

    /// Where both are true.
    #[rhai_fn(name = "&", return_raw)]
    pub fn both(ctx: NativeCallContext, a: TensorHandle, b: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &size::broadcast(&ctx, &a.size(), &b.size())?, Kind::Bool)?;
        made(&ctx, a.f_logical_and(&b))
    }

    /// Where at least one is true.
    #[rhai_fn(name = "|", return_raw)]
    pub fn either(ctx: NativeCallContext, a: TensorHandle, b: TensorHandle) -> ScriptResult<TensorHandle> {
        size::check(&ctx, &size::broadcast(&ctx, &a.size(), &b.size())?, Kind::Bool)?;
        made(&ctx, a.f_logical_or(&b))
    }

    /// Where it is false (or zero).
    #[rhai_fn(name = "!", return_raw)]
    pub fn not(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_logical_not())
    }

    /// The same values with their signs turned, before a tensor alone.
    #[rhai_fn(name = "-", return_raw)]
    pub fn negate(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        made(&ctx, x.f_neg())
    }

    /// The same tensor, before one alone.
    #[rhai_fn(name = "+")]
    pub fn plus(x: TensorHandle) -> TensorHandle {
        x
    }

    /// The greater of two values, elementwise.
    ///
    /// ```rhai
    /// let x = tensor::from([1, 5]);
    /// assert(x.maximum(3).to_array() == [3, 5] && x.maximum(tensor::from([2, 2])).to_array() == [2, 5]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn maximum(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Maximum, a.into(), Side::of(b))
    }

    /// The smaller of two values, elementwise.
    ///
    /// ```rhai
    /// assert(tensor::from([1, 5]).minimum(3).to_array() == [1, 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn minimum(ctx: NativeCallContext, a: TensorHandle, b: Operand) -> ScriptResult<SomeTensor> {
        binary(&ctx, Op::Minimum, a.into(), Side::of(b))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Maximum,
    Minimum,
}

impl Op {
    fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Power => "**",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
            Self::Maximum => "maximum",
            Self::Minimum => "minimum",
        }
    }

    fn between(self, a: &Tensor, b: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Add => a.f_add(b),
            Self::Subtract => a.f_sub(b),
            Self::Multiply => a.f_mul(b),
            Self::Divide => a.f_div(b),
            Self::Remainder => a.f_remainder_tensor(b),
            Self::Power => a.f_pow(b),
            Self::Equal => a.f_eq_tensor(b),
            Self::Unequal => a.f_ne_tensor(b),
            Self::Less => a.f_lt_tensor(b),
            Self::AtMost => a.f_le_tensor(b),
            Self::Greater => a.f_gt_tensor(b),
            Self::AtLeast => a.f_ge_tensor(b),
            Self::Maximum => a.f_maximum(b),
            Self::Minimum => a.f_minimum(b),
        }
    }

    fn with_number(self, a: &Tensor, b: Number) -> Result<Tensor, TchError> {
        match self {
            Self::Add => a.f_add_scalar(b),
            Self::Subtract => a.f_sub_scalar(b),
            Self::Multiply => a.f_mul_scalar(b),
            Self::Divide => a.f_div_scalar(b),
            Self::Remainder => a.f_remainder(b),
            Self::Power => a.f_pow_tensor_scalar(b),
            Self::Equal => a.f_eq(b),
            Self::Unequal => a.f_ne(b),
            Self::Less => a.f_lt(b),
            Self::AtMost => a.f_le(b),
            Self::Greater => a.f_gt(b),
            Self::AtLeast => a.f_ge(b),
            Self::Maximum | Self::Minimum => self.between(a, &b.beside(a)?),
        }
    }

    fn on_number(self, a: Number, b: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Add | Self::Multiply | Self::Equal | Self::Unequal => self.with_number(b, a),
            Self::Subtract => b.f_rsub_scalar(a),
            Self::Remainder => Tensor::f_remainder_scalar_tensor(a, b),
            Self::Power => Tensor::f_pow_scalar(a, b),
            Self::Less => b.f_gt(a),
            Self::AtMost => b.f_ge(a),
            Self::Greater => b.f_lt(a),
            Self::AtLeast => b.f_le(a),
            Self::Divide | Self::Maximum | Self::Minimum => self.between(&a.beside(b)?, b),
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl From<Number> for Scalar {
    fn from(number: Number) -> Self {
        match number {
            Number::Int(value) => Self::int(value),
            Number::Float(value) => Self::float(value),
        }
    }
}

impl Number {
    /// As a tensor without dimensions whose kind does not change what the result's kind will be.
    fn beside(self, x: &Tensor) -> Result<Tensor, TchError> {
        let kind = match self {
            _ if is_floating(x.kind()) => x.kind(),
            Self::Int(_) => Kind::Int64,
            Self::Float(_) => Kind::Float,
        };
        Tensor::f_full([0_i64; 0], self, (kind, x.device()))
    }
}

/// One side of an operator.
enum Side {
    Tensor(TensorHandle),
    Number(Number),
    Text(ImmutableString),
    Other(Dynamic),
}

impl From<TensorHandle> for Side {
    fn from(x: TensorHandle) -> Self {
        Self::Tensor(x)
    }
}

impl Side {
    fn of(value: Dynamic) -> Self {
        if let Ok(value) = value.as_int() {
            return Self::Number(Number::Int(value));
        }
        if let Ok(value) = value.as_float() {
            return Self::Number(Number::Float(value));
        }
        match value.try_cast_result::<TensorHandle>() {
            Ok(tensor) => Self::Tensor(tensor),
            Err(value) => value.try_cast_result::<ImmutableString>().map_or_else(Self::Other, Self::Text),
        }
    }

    fn type_name<'a>(&'a self, ctx: &'a NativeCallContext) -> &'a str {
        match self {
            Self::Tensor(_) => "Tensor",
            Self::Number(Number::Int(_)) => "int",
            Self::Number(Number::Float(_)) => "float",
            Self::Text(_) => "string",
            Self::Other(value) => ctx.engine().map_type_name(value.type_name()),
        }
    }
}

fn binary(ctx: &NativeCallContext, op: Op, a: Side, b: Side) -> ScriptResult<Dynamic> {
    let result = match (&a, &b) {
        (Side::Tensor(a), Side::Tensor(b)) => {
            let kind = if b.kind().elt_size_in_bytes() > a.kind().elt_size_in_bytes() { b.kind() } else { a.kind() };
            size::check(ctx, &size::broadcast(ctx, &a.size(), &b.size())?, kind)?;
            guarded(ctx, || op.between(a, b))
        }
        (Side::Tensor(a), Side::Number(b)) => guarded(ctx, || op.with_number(a, *b)),
        (Side::Number(a), Side::Tensor(b)) => guarded(ctx, || op.on_number(*a, b)),
        (Side::Tensor(a), Side::Text(b)) if op == Op::Add => {
            return Ok(format!("{}{b}", super::show::text(ctx, a)?).into());
        }
        (Side::Text(a), Side::Tensor(b)) if op == Op::Add => {
            return Ok(format!("{a}{}", super::show::text(ctx, b)?).into());
        }
        _ if op == Op::Equal => return Ok(false.into()),
        _ if op == Op::Unequal => return Ok(true.into()),
        _ => {
            let (a, b) = (a.type_name(ctx), b.type_name(ctx));
            let symbol = op.symbol();
            return Err(script_error(ctx, format!("`{symbol}` takes tensors and numbers, got {a} {symbol} {b}")));
        }
    };
    result.map(Dynamic::from)
}
