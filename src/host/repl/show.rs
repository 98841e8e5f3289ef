//! Values as the prompt prints them: what they are, and as much of what is in them as a person can take in.

use rhai::{Array, Dynamic, Engine, FnPtr, ImmutableString, Map, Scope};
use tch::{Kind, Tensor};

use super::state::State;
use crate::host::api::data::DatasetHandle;
use crate::host::api::models::ModelHandle;
use crate::host::api::tensor::TensorHandle;
use crate::host::reference::{Function, Role};
use crate::libtorch::TorchError;

/// Columns that lines may fill.
pub const WIDTH: usize = 100;
/// Values of a tensor that are printed.
const MAX_VALUES: usize = 100;
/// Entries of an array or a map that are printed, and characters of a text inside one.
const MAX_ENTRIES: usize = 60;
const MAX_TEXT: usize = 60;
/// Names of decorrelated layers.
const MAX_LAYERS: usize = 24;
/// Names of layers or classes in a line.
const MAX_NAMES: usize = 8;
/// Arrays inside arrays.
const MAX_DEPTH: usize = 8;

/// A value on as many lines as it takes; nothing for `()`.
pub fn full(state: &State, value: &Dynamic) -> Option<String> {
    if value.is_unit() {
        return None;
    }
    if let Some(tensor) = value.read_lock::<TensorHandle>() {
        return Some(tensor_text(state, value, tensor.tensor()));
    }
    if let Some(model) = value.read_lock::<ModelHandle>() {
        return Some(model_text(&model));
    }
    if let Some(dataset) = value.read_lock::<DatasetHandle>() {
        return Some(dataset_text(&dataset));
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Some(format!("{:?}", text.as_str()));
    }
    if value.is_array() || value.is_map() {
        return Some(pretty(state, value, 0, 0));
    }
    Some(object(state, value).unwrap_or_else(|| short(state, value)))
}

/// A value on one line, without its content where there may be much.
pub fn short(state: &State, value: &Dynamic) -> String {
    if value.is_unit() {
        return "()".to_owned();
    }
    if let Some(tensor) = value.read_lock::<TensorHandle>() {
        return format!("Tensor {:?} {}", tensor.size(), property_text(state, value, "dtype"));
    }
    if let Some(model) = value.read_lock::<ModelHandle>() {
        let registry = model.registry();
        let what = registry.architecture().map_or("layers", |architecture| architecture.kind());
        return format!("Model ({what}, {} parameters)", grouped(registry.parameter_count()));
    }
    if let Some(dataset) = value.read_lock::<DatasetHandle>() {
        return format!("Dataset ({} images)", grouped(dataset.0.len() as i64));
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return match text.char_indices().nth(MAX_TEXT) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{:?}", text.as_str()),
        };
    }
    if let Some(function) = value.read_lock::<FnPtr>() {
        return function_text(state, &function);
    }
    if let Some(items) = value.read_lock::<Array>() {
        return one_line(state, value, MAX_TEXT, 0).unwrap_or_else(|| format!("array of {}", items.len()));
    }
    if let Some(entries) = value.read_lock::<Map>() {
        return one_line(state, value, MAX_TEXT, 0).unwrap_or_else(|| format!("map of {}", entries.len()));
    }
    if value.is_char() {
        return format!("{:?}", value.as_char().unwrap_or_default());
    }
    if value.is_blob() {
        return format!("blob of {} bytes", value.as_blob_ref().map_or(0, |bytes| bytes.len()));
    }
    let kind = kind_of(&state.engine, value);
    if is_object(state, kind) { kind.to_owned() } else { value.to_string() }
}

/// A value's type, as scripts know it.
pub fn kind_of<'a>(engine: &'a Engine, value: &'a Dynamic) -> &'a str {
    engine.map_type_name(value.type_name())
}

/// 1234567 as `1,234,567`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Whether values of this type are objects of ours, with properties and methods.
fn is_object(state: &State, kind: &str) -> bool {
    let methods = &state.reference.functions;
    methods.iter().any(|f| !f.standard && f.namespace.is_empty() && is_of(f, kind))
        && kind.starts_with(char::is_uppercase)
}

fn is_of(function: &Function, kind: &str) -> bool {
    function.params.first().is_some_and(|param| param.kind == kind)
}

/// What `value.name` is, if that goes well.
fn property(state: &State, value: &Dynamic, name: &str) -> Option<Dynamic> {
    let mut scope = Scope::new();
    scope.push_dynamic("value", value.clone());
    state.engine.eval_expression_with_scope(&mut scope, &format!("value.{name}")).ok()
}

fn property_text(state: &State, value: &Dynamic, name: &str) -> String {
    property(state, value, name).map_or_else(String::new, |value| value.to_string())
}

/// An object by its own text if its type has one, else by its properties.
fn object(state: &State, value: &Dynamic) -> Option<String> {
    let kind = kind_of(&state.engine, value).to_owned();
    let own = || state.reference.functions.iter().filter(|f| !f.standard && is_of(f, &kind));
    if own().any(|f| f.name == "to_string") {
        return property(state, value, "to_string()").map(|text| text.to_string());
    }
    if !is_object(state, &kind) {
        return None;
    }
    let names = own().filter(|f| f.role == Role::Getter).map(|f| f.name.clone());
    let known: Vec<(String, Dynamic)> =
        names.filter_map(|name| Some((name.clone(), property(state, value, &name)?))).collect();
    let known: Vec<String> = known
        .iter()
        .filter(|(_, value)| !value.is_unit())
        .map(|(name, value)| format!("{name}: {}", short(state, value)))
        .collect();
    let text = format!("{kind} {{ {} }}", known.join(", "));
    Some(match known.len() {
        0 => kind,
        _ if text.chars().count() <= WIDTH => text,
        _ => format!("{kind} {{\n  {}\n}}", known.join(",\n  ")),
    })
}

fn function_text(state: &State, function: &FnPtr) -> String {
    let name = function.fn_name();
    let found = state.functions.iter_functions().find(|known| known.name == name);
    match found {
        Some(known) if function.is_anonymous() => {
            // What it takes from around it comes first.
            let own = known.params.get(function.curry().len()..).unwrap_or_default();
            format!("|{}| …", own.join(", "))
        }
        None if function.is_anonymous() => "a function".to_owned(),
        _ => format!("Fn(\"{name}\")"),
    }
}

/// An array or a map, over several lines where one is too short.
fn pretty(state: &State, value: &Dynamic, indent: usize, depth: usize) -> String {
    if let Some(line) = one_line(state, value, WIDTH.saturating_sub(indent), depth) {
        return line;
    }
    let (inner, outer) = (" ".repeat(indent + 2), " ".repeat(indent));
    let entry = |value: &Dynamic, behind: usize| match depth < MAX_DEPTH && (value.is_array() || value.is_map()) {
        true => pretty(state, value, indent + 2 + behind, depth + 1),
        false => short(state, value),
    };
    let more = |length: usize| match length.saturating_sub(MAX_ENTRIES) {
        0 => String::new(),
        more => format!("{inner}… {} more\n", grouped(more as i64)),
    };
    if let Some(items) = value.read_lock::<Array>() {
        let shown: Vec<String> = items.iter().take(MAX_ENTRIES).map(|item| entry(item, 0)).collect();
        return format!("[\n{}{}{outer}]", filled(&shown, &inner), more(items.len()));
    }
    let Some(entries) = value.read_lock::<Map>() else { return short(state, value) };
    let line = |(key, value): (&rhai::Identifier, &Dynamic)| {
        let key = key_text(key);
        format!("{inner}{key}: {},\n", entry(value, 0))
    };
    format!("#{{\n{}{}{outer}}}", entries.iter().take(MAX_ENTRIES).map(line).collect::<String>(), more(entries.len()))
}

/// Items with commas: small ones side by side, others a line each.
fn filled(items: &[String], indent: &str) -> String {
    let small = items.iter().all(|item| item.chars().count() <= WIDTH / 2 && !item.contains('\n'));
    let mut lines = vec![String::new()];
    for item in items {
        let width = |text: &str| text.chars().count();
        let full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && (!small || indent.len() + width(line) + width(item) + 2 > WIDTH));
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(item);
            line.push(',');
        }
    }
    lines.iter().map(|line| format!("{indent}{line}\n")).collect()
}

/// An array or a map on one line, if that is no longer than `width`.
fn one_line(state: &State, value: &Dynamic, width: usize, depth: usize) -> Option<String> {
    let entry = |value: &Dynamic, left: usize| -> Option<String> {
        match value.is_array() || value.is_map() {
            true if depth < MAX_DEPTH => one_line(state, value, left, depth + 1),
            true => None,
            false => Some(short(state, value)),
        }
    };
    let join = |entries: &mut dyn Iterator<Item = (String, Dynamic)>, open: &str, close: &str| -> Option<String> {
        let mut text = open.to_owned();
        for (at, (key, value)) in entries.enumerate() {
            text.push_str(if at > 0 { ", " } else { "" });
            text.push_str(&key);
            text.push_str(&entry(&value, width.saturating_sub(text.chars().count()))?);
            if text.chars().count() + close.chars().count() > width {
                return None;
            }
        }
        Some(text + close)
    };
    if let Some(items) = value.read_lock::<Array>() {
        return join(&mut items.iter().map(|item| (String::new(), item.clone())), "[", "]");
    }
    let entries = value.read_lock::<Map>()?;
    match entries.is_empty() {
        true => Some("#{}".to_owned()),
        false => {
            let mut entries = entries.iter().map(|(key, value)| (format!("{}: ", key_text(key)), value.clone()));
            join(&mut entries, "#{ ", " }")
        }
    }
}

fn key_text(key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain { key.to_owned() } else { format!("{key:?}") }
}

/// Values if they are few, then shape, type, device and what there is to say of them all.
fn tensor_text(state: &State, value: &Dynamic, tensor: &Tensor) -> String {
    let mut facts = vec![
        format!("Tensor {:?}", tensor.size()),
        property_text(state, value, "dtype"),
        property_text(state, value, "device"),
    ];
    if tensor.requires_grad() {
        facts.push("requires_grad".to_owned());
    }
    let mut line = facts.join(" ");
    match statistics(tensor) {
        Ok(statistics) => statistics.iter().for_each(|statistic| line += &format!(", {statistic}")),
        Err(err) => line += &format!(" ({err})"),
    }
    if tensor.numel() > MAX_VALUES {
        return line;
    }
    format!("{}\n{line}", property_text(state, value, "to_string()"))
}

/// Figures over the finite values of more than one, and how many others there are.
fn statistics(tensor: &Tensor) -> Result<Vec<String>, TorchError> {
    let count = tensor.numel();
    if count < 2 {
        return Ok(Vec::new());
    }
    let values = tensor.f_detach()?;
    let one = |x: Tensor| -> Result<f64, TorchError> { Ok(x.f_double_value(&[])?) };
    if values.kind() == Kind::Bool {
        let set = one(values.f_sum(Kind::Int64)?)?;
        return Ok(vec![format!("{} true, {} false", grouped(set as i64), grouped(count as i64 - set as i64))]);
    }
    let kind = if values.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let mut values = values.f_to_kind(kind)?;
    let nan = one(values.f_isnan()?.f_sum(Kind::Int64)?)? as i64;
    let infinite = one(values.f_isinf()?.f_sum(Kind::Int64)?)? as i64;
    if nan + infinite > 0 {
        values = values.f_masked_select(&values.f_isfinite()?)?;
    }
    let mut figures = Vec::new();
    if values.numel() > 0 {
        for (name, figure) in
            [("min", one(values.f_min()?)?), ("mean", one(values.f_mean(kind)?)?), ("max", one(values.f_max()?)?)]
        {
            figures.push(format!("{name} {}", figure_text(figure)));
        }
    }
    if values.numel() > 1 {
        figures.push(format!("std {}", figure_text(one(values.f_std(true)?)?)));
    }
    for (name, count) in [("nan", nan), ("inf", infinite)] {
        if count > 0 {
            figures.push(format!("{} {name}", grouped(count)));
        }
    }
    Ok(figures)
}

/// Four digits behind the point without zeros at the end, or an exponent.
pub fn figure_text(figure: f64) -> String {
    let size = figure.abs();
    if size != 0.0 && size.is_finite() && !(1e-3..1e6).contains(&size) {
        return format!("{figure:.3e}");
    }
    let text = format!("{figure:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn model_text(model: &ModelHandle) -> String {
    let registry = model.registry();
    let what = match registry.architecture() {
        Some(architecture) => {
            let encoder = architecture.encoder();
            let (height, width) = encoder.image_size;
            format!(
                "{}: {height}×{width} images, {} channels, patch {}, {} wide, {} blocks, {} heads",
                architecture.kind(),
                encoder.channels,
                encoder.patch_size,
                encoder.embed_dim,
                encoder.depth,
                encoder.num_heads
            )
        }
        None => format!("layers on their own: {}", listed(&names(&registry.layers()))),
    };
    let decorrelated = registry.decorrelated();
    let chosen = match decorrelated.len() {
        0 => "no layer is decorrelated".to_owned(),
        count => {
            let mut shown = names(&decorrelated);
            if count > MAX_LAYERS {
                shown.truncate(MAX_LAYERS - 1);
                shown.push(format!("… {} more", count + 1 - MAX_LAYERS));
            }
            let shown = filled(&shown, "  ");
            let all = registry.layers().len();
            format!("{count} of {all} layers are decorrelated:\n{}", shown.trim_end_matches([',', '\n']))
        }
    };
    let device = match registry.device() {
        tch::Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    format!("Model, {what}\n{} parameters on {device}; {chosen}", grouped(registry.parameter_count()))
}

fn names(layers: &[std::rc::Rc<crate::nn::Layer>]) -> Vec<String> {
    layers.iter().map(|layer| layer.name().to_owned()).collect()
}

fn dataset_text(dataset: &DatasetHandle) -> String {
    let dataset = &dataset.0;
    let plural =
        |count: usize, what: &str| format!("{} {what}{}", grouped(count as i64), if count == 1 { "" } else { "s" });
    let mut facts = vec![plural(dataset.len(), "image"), plural(dataset.channels(), "channel")];
    if dataset.has_masks() {
        facts.push("masks".to_owned());
    }
    if let Some(table) = dataset.classes() {
        facts.push(format!("{} classes: {}", table.names.len(), listed(&table.names)));
    }
    format!("Dataset, {}", facts.join(", "))
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(MAX_NAMES)].join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown,
        more => format!("{shown}, … {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown: Vec<String> = [0.0, 1.0, -0.25, 1234.5678, 1e-9, 2.5e7, f64::NAN].map(figure_text).into();
        assert_eq!(shown, ["0", "1", "-0.25", "1234.5678", "1.000e-9", "2.500e7", "NaN"]);
        assert_eq!((grouped(0), grouped(-1_234_567), grouped(100)), ("0".into(), "-1,234,567".into(), "100".into()));
    }
}
