//! Tensors as text: small ones with their values, as PyTorch prints them, big ones as shape, type and statistics.

use rhai::plugin::*;
use rhai::{Engine, NativeCallContext};
use tch::{Kind, Tensor};

use super::shape::kind_name;
use super::{TensorHandle, is_floating, values};
use crate::host::errors::ScriptResult;

/// Values shown at most.
const MAX_SHOWN: usize = 400;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(showing).into());
}

#[export_module]
mod showing {
    /// The tensor as text, as PyTorch writes it; of more than 400 values shape, type, least, mean and greatest value, and
    /// standard deviation. `print(x)` and `${x}` use it.
    ///
    /// ```rhai
    /// assert(tensor::from([1.0, 2.0]).to_string() == "tensor([1., 2.])");
    /// assert(tensor::zeros([1000]).to_string().contains("shape=[1000]"));
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", return_raw)]
    pub fn to_text(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<String> {
        text(&ctx, &x)
    }
}

/// The tensor as text: `tensor([1., 2.])`, or its statistics if it is big.
pub fn text(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<String> {
    let kind = x.kind();
    if x.numel() > MAX_SHOWN {
        return summary(ctx, x);
    }
    let values = values(ctx, x)?;
    let cells = if kind == Kind::Bool {
        values.iter().map(|value| if *value != 0.0 { "true" } else { "false" }.to_owned()).collect()
    } else if is_floating(kind) {
        float_cells(&values)
    } else {
        values.iter().map(|value| format!("{value:.0}")).collect()
    };
    let width = if x.dim() == 0 { 0 } else { cells.iter().map(String::len).max().unwrap_or(0) };
    let mut text = String::from("tensor(");
    match x.numel() {
        0 => text += &format!("[], shape={:?}", x.size()),
        _ => write_nested(&mut text, &mut cells.iter(), &x.size(), width, "tensor(".len()),
    }
    if !matches!(kind, Kind::Float | Kind::Int64 | Kind::Bool) {
        text += &format!(", dtype={}", kind_name(kind));
    }
    Ok(text + ")")
}

fn summary(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<String> {
    let head = format!("Tensor(shape={:?}, dtype={}", x.size(), kind_name(x.kind()));
    let statistics = |x: &Tensor| -> Result<[f64; 4], tch::TchError> {
        let x = x.f_detach()?.f_to_kind(if x.kind() == Kind::Double { Kind::Double } else { Kind::Float })?;
        let one = |x: Tensor| x.f_double_value(&[]);
        Ok([one(x.f_min()?)?, one(x.f_mean(None::<Kind>)?)?, one(x.f_max()?)?, one(x.f_std(true)?)?])
    };
    let [min, mean, max, std] = statistics(x).map_err(|err| crate::host::errors::script_error(ctx, err))?;
    Ok(format!("{head}, min={min:.4}, mean={mean:.4}, max={max:.4}, std={std:.4})"))
}

/// Floats as PyTorch writes them: `1.` if all are whole, four digits, or with an exponent where sizes differ too much.
fn float_cells(values: &[f64]) -> Vec<String> {
    let sizes = || values.iter().map(|value| value.abs()).filter(|value| value.is_finite() && *value != 0.0);
    let (smallest, largest) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let whole = values.iter().filter(|value| value.is_finite()).all(|value| value.fract() == 0.0);
    let spread = largest / smallest > 1000.0 && !whole || largest > 1e8 || smallest < 1e-4;
    let cell = |value: &f64| match value {
        value if value.is_nan() => "nan".into(),
        value if value.is_infinite() => if *value > 0.0 { "inf" } else { "-inf" }.into(),
        value if spread => exponent(*value),
        value if whole => format!("{value:.0}."),
        value => format!("{value:.4}"),
    };
    values.iter().map(cell).collect()
}

/// `1.5e-5` as `1.5000e-05`.
fn exponent(value: f64) -> String {
    let text = format!("{value:.4e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
    format!("{digits}e{sign}{power:0>2}")
}

fn write_nested<'a>(
    text: &mut String,
    cells: &mut impl Iterator<Item = &'a String>,
    shape: &[i64],
    width: usize,
    indent: usize,
) {
    let [length, rest @ ..] = shape else {
        text.push_str(&cells.next().map_or(String::new(), |cell| format!("{cell:>width$}")));
        return;
    };
    text.push('[');
    for at in 0..*length {
        if at > 0 {
            // A line per row, an empty line more for every dimension above.
            match rest.len() {
                0 => text.push_str(", "),
                rows => {
                    text.push(',');
                    text.push_str(&"\n".repeat(rows));
                    text.push_str(&" ".repeat(indent + 1));
                }
            }
        }
        write_nested(text, cells, rest, width, indent + 1);
    }
    text.push(']');
}
