//! Calls held against the functions there are: what is wrong with one, in words, with the nearest name and its signature.
//!
//! A script's errors and `check` both speak through this file, so that a slip reads the same before a run and in one.

use rhai::Engine;

use super::errors::{Failure, short};
use super::reference::{Function, Param, Reference, Role};
use super::slips;
use super::suggest::nearest;

/// Signatures in a hint at most.
const MAX_SIGNATURES: usize = 4;

/// Letters up to which a method's name is rather that of a part, like `fc1` or `head`.
const SHORT: usize = 4;

/// Types that [`Reference`] and Rhai name alike; of others it is not known what fits them.
const PLAIN: [&str; 12] =
    ["range", "range=", "int", "float", "bool", "char", "string", "array", "map", "blob", "function", "()"];

/// A function as calls meet it.
#[derive(Clone, Debug)]
pub struct Callable {
    /// With its namespace: `nn::linear`, `reshape`.
    pub name: String,
    pub params: Vec<Param>,
    /// What it returns; empty if that is not known, or nothing.
    pub returns: String,
    /// Whether it comes with Rhai, which takes more than is listed: `print` takes everything.
    pub standard: bool,
    /// Whether it is written in Rhai: as a method it gets its value as `this`, beside its parameters.
    pub scripted: bool,
}

impl Callable {
    pub fn native(function: &Function) -> Self {
        let (params, returns) = (function.params.clone(), function.returns.clone());
        Self { name: function.full_name(), params, returns, standard: function.standard, scripted: false }
    }

    pub fn scripted(name: String, params: impl IntoIterator<Item = String>) -> Self {
        let params = params.into_iter().map(|name| Param { name, kind: String::new() }).collect();
        Self { name, params, returns: String::new(), standard: false, scripted: true }
    }

    /// Arguments that a call must have, the value of a method included.
    fn arity(&self, method: bool) -> usize {
        self.params.len() + usize::from(self.scripted && method)
    }

    /// The parameter that argument `at` goes to; `None` for `this`.
    fn param(&self, at: usize, method: bool) -> Option<&Param> {
        if self.scripted && method { self.params.get(at.checked_sub(1)?) } else { self.params.get(at) }
    }

    /// How the signature is written where it is called like this.
    pub fn shown(&self, method: bool) -> String {
        let skip = usize::from(method && !self.scripted);
        let params: Vec<String> = self.params.iter().skip(skip).map(ToString::to_string).collect();
        format!("{}({})", self.name, params.join(", "))
    }

    fn namespace(&self) -> &str {
        self.name.rsplit_once("::").map_or("", |(namespace, _)| namespace)
    }

    fn last_name(&self) -> &str {
        self.name.rsplit("::").next().unwrap_or(&self.name)
    }

    /// Whether its first parameter is a value of ours, as methods have it.
    fn is_method(&self) -> bool {
        let first = self.params.first().filter(|_| self.namespace().is_empty() && !self.scripted);
        first.is_some_and(|param| param.kind.starts_with(char::is_uppercase))
    }
}

/// Every native function that is called by its name.
pub fn natives(reference: &Reference) -> Vec<Callable> {
    reference.functions.iter().filter(|f| f.role == Role::Function).map(Callable::native).collect()
}

/// A call as it was written.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// With its namespace.
    pub name: &'a str,
    /// Whether it was called on a value, which is then the first of `args`.
    pub method: bool,
    /// Types of the arguments; empty where one is not known.
    pub args: Vec<String>,
}

/// What is wrong with a call.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: &'static str,
    pub failure: Failure,
    /// The argument that is to blame; a method's value is 0.
    pub argument: Option<usize>,
}

impl Fault {
    /// With the hint that `name` is a property of `receiver`, if it is one that was called as a method; an empty type may be any.
    pub fn with_property(self, name: &str, receiver: &str, reference: &Reference) -> Self {
        let owns = |f: &Function| f.params.first().is_some_and(|own| receiver.is_empty() || own.kind == receiver);
        let is_it = |f: &Function| f.role == Role::Getter && f.name == name && owns(f);
        // What another language has by that name says more than a property of some type.
        let elsewhere = receiver.is_empty() && slips::method(name).is_some();
        if self.code != "unknown-method" || elsewhere || !reference.functions.iter().any(is_it) {
            return self;
        }
        let hint = format!("`{name}` is a property: leave out the parentheses");
        Self { failure: Failure { hint: Some(hint), ..self.failure }, ..self }
    }
}

/// What is wrong with `call`, if anything, where `known` is all that can be called.
pub fn judge(call: &Call, known: &[&Callable]) -> Option<Fault> {
    let same: Vec<&Callable> = known.iter().filter(|callable| callable.name == call.name).copied().collect();
    if same.is_empty() {
        return Some(unknown(call, known));
    }
    let arity = call.args.len();
    let fitting: Vec<&Callable> = same.iter().filter(|c| c.arity(call.method) == arity).copied().collect();
    if fitting.is_empty() {
        return Some(wrong_number(call, &same));
    }
    wrong_type(call, &fitting)
}

fn unknown(call: &Call, known: &[&Callable]) -> Fault {
    let receiver = call.args.first().filter(|kind| call.method && !kind.is_empty());
    let message = match receiver {
        Some(kind) => format!("{kind} has no method `{}`", call.name),
        None if call.method => format!("unknown method: {}", call.name),
        None => format!("unknown function: {}", short(call.name)),
    };
    let failure = Failure { hint: meant(call, known), ..Failure::script(message) };
    Fault { code: if call.method { "unknown-method" } else { "unknown-function" }, failure, argument: None }
}

/// "did you mean …?" with the signature.
fn meant(call: &Call, known: &[&Callable]) -> Option<String> {
    let (space, last) = call.name.rsplit_once("::").unwrap_or(("", call.name));
    let receiver = call.args.first().filter(|_| call.method).map_or("", String::as_str);
    let beside = |c: &&&Callable| {
        let takes = c.param(0, call.method).is_none_or(|p| receiver.is_empty() || fits(&p.kind, receiver));
        c.namespace() == space && (!call.method || takes && c.arity(true) > 0)
    };
    let pick = |name: &str, inside: bool| {
        let named = known.iter().filter(|c| c.last_name() == name && (!inside || beside(c)));
        // Of functions that share a name, one that takes as many arguments, and for the receiver's own type.
        named.min_by_key(|c| {
            let own = !receiver.is_empty() && c.params.first().is_some_and(|p| p.kind == receiver);
            (c.arity(call.method) != call.args.len(), !own, c.scripted && call.method)
        })
    };
    // Parts of a model have short names, to which some method is always near.
    let part = (is_part(call) && slips::method(last).is_none()).then(|| part_called(last));
    let near = nearest(last, known.iter().filter(beside).map(|c| c.last_name()));
    if let Some(found) = near.filter(|_| part.is_none() || last.len() > SHORT).and_then(|near| pick(near, true)) {
        return Some(format!("did you mean `{}`?", found.shown(call.method)));
    }
    if part.is_some() {
        return part;
    }
    let Some(found) = pick(last, false) else {
        return if call.method { slips::method(last) } else { slips::function(last) };
    };
    if call.method && !found.namespace().is_empty() {
        return Some(format!("it is a function: `{}`", found.shown(false)));
    }
    if found.is_method() && !call.method {
        let kind = found.params.first().map_or("", |param| param.kind.as_str());
        return Some(format!("it is a method of {kind}: `x.{}`", found.shown(true)));
    }
    match (call.method, found.params.first()) {
        (true, Some(first)) => {
            Some(format!("{} has it: `{}`", first.kind, found.shown(true))).filter(|_| !first.kind.is_empty())
        }
        _ => Some(format!("did you mean `{}`?", found.shown(call.method))),
    }
}

/// Whether a call may be meant for a part of a model: it is given one tensor, as far as can be seen.
fn is_part(call: &Call) -> bool {
    call.method && matches!(call.args.as_slice(), [owner, x] if owner == "Model" && matches!(x.as_str(), "" | "Tensor"))
}

fn part_called(name: &str) -> String {
    format!("a part of a model is called with `m.{name}.forward(x)`")
}

fn wrong_number(call: &Call, same: &[&Callable]) -> Fault {
    let value = usize::from(call.method);
    // Of methods that share a name, those of the value's type.
    let receiver = call.args.first().filter(|kind| call.method && !kind.is_empty());
    let takes = |c: &&&Callable| receiver.is_none_or(|kind| c.param(0, true).is_none_or(|p| fits(&p.kind, kind)));
    let own: Vec<&Callable> = same.iter().filter(takes).copied().collect();
    let same = if own.is_empty() { same } else { &own };
    let mut counts: Vec<usize> = same.iter().filter_map(|c| c.arity(call.method).checked_sub(value)).collect();
    counts.sort_unstable();
    counts.dedup();
    let noun = if counts == [1] { "argument" } else { "arguments" };
    let expected = match counts.as_slice() {
        [0] => "no".to_owned(),
        counts => alternatives(counts.iter().map(ToString::to_string)),
    };
    let message = format!("{}: expected {expected} {noun}, got {}", call.name, call.args.len() - value);
    let hint = match call.name {
        "range" if counts.len() > 1 && call.args.len() == 1 => slips::RANGE.to_owned(),
        "print" | "debug" if call.args.len() > 1 => slips::PRINT.to_owned(),
        _ => takes_hint(call, same),
    };
    let failure = Failure::script(message).with_hint(hint);
    Fault { code: "wrong-number-of-arguments", failure, argument: None }
}

/// Blames one argument where all overloads that come nearest agree on it.
fn wrong_type(call: &Call, fitting: &[&Callable]) -> Option<Fault> {
    let misses = |c: &Callable| -> Vec<usize> {
        let misfit = |(at, kind): (usize, &String)| {
            let param = c.param(at, call.method)?;
            (!fits(&param.kind, kind)).then_some(at)
        };
        call.args.iter().enumerate().filter_map(misfit).collect()
    };
    let all: Vec<(Vec<usize>, &Callable)> = fitting.iter().map(|c| (misses(c), *c)).collect();
    let fewest = all.iter().map(|(misses, _)| misses.len()).min().filter(|fewest| *fewest > 0)?;
    let mut nearest: Vec<&(Vec<usize>, &Callable)> = all.iter().filter(|(misses, _)| misses.len() == fewest).collect();
    // The value of a method is what it is: an overload for it says more than one for another type.
    if call.method && nearest.iter().any(|(misses, _)| misses[0] > 0) {
        nearest.retain(|(misses, _)| misses[0] > 0);
    }
    let blamed = nearest[0].0[0];
    let same: Vec<&Callable> = nearest.iter().map(|(_, c)| *c).collect();
    let hint = takes_hint(call, &same);
    let code = "wrong-type";
    if nearest.iter().any(|(misses, _)| misses[0] != blamed) {
        let failure = Failure::script(format!("wrong arguments: {}({})", call.name, call.args.join(", ")));
        return Some(Fault { code, failure: failure.with_hint(hint), argument: None });
    }
    let params: Vec<&Param> = same.iter().filter_map(|c| c.param(blamed, call.method)).collect();
    let mut kinds: Vec<&str> = params.iter().map(|param| param.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let got = got(&call.args[blamed]);
    let message = if call.method && blamed == 0 {
        let owners = alternatives(kinds.iter().map(|kind| (*kind).to_owned()));
        let part = if is_part(call) { format!("; {}", part_called(call.name)) } else { String::new() };
        return Some(Fault {
            code: "unknown-method",
            failure: Failure::script(format!("{} has no method `{}`", call.args[0], call.name))
                .with_hint(format!("{owners} has it{part}")),
            argument: Some(0),
        });
    } else {
        let expected = alternatives(kinds.iter().map(|kind| wanted(kind)));
        format!("{}: expected {expected}, got {got}", params[0].name)
    };
    Some(Fault { code, failure: Failure::script(message).with_hint(hint), argument: Some(blamed) })
}

fn takes_hint(call: &Call, same: &[&Callable]) -> String {
    let mut written: Vec<String> = same.iter().map(|c| c.shown(call.method)).collect();
    written.sort_unstable_by_key(|text| (text.matches(", ").count(), text.clone()));
    written.dedup();
    let more = if written.len() > MAX_SIGNATURES { " …" } else { "" };
    written.truncate(MAX_SIGNATURES);
    format!("it takes {}{more}", written.join(" or "))
}

/// Whether an argument of type `got` may go to a parameter of type `kind`; what is not known fits.
fn fits(kind: &str, got: &str) -> bool {
    let known = |name: &str| PLAIN.contains(&name) || name.starts_with(char::is_uppercase);
    if kind.is_empty() || !known(got) {
        return true;
    }
    choices(kind).into_iter().any(|choice| match choice {
        "number" => matches!(got, "int" | "float"),
        "shape" => matches!(got, "int" | "array"),
        choice if choice.starts_with('[') || choice == "nested array" => got == "array",
        choice => choice == got || !known(choice),
    })
}

/// The types of which an argument may be one: `Tensor` and `number` of `Tensor or number`.
fn choices(kind: &str) -> Vec<&str> {
    kind.split(" or ")
        .flat_map(|part| if part.starts_with('[') { vec![part] } else { part.split(", ").collect() })
        .collect()
}

/// Whether a type is one, and not one of several.
pub fn is_single(kind: &str) -> bool {
    !kind.is_empty() && choices(kind).len() == 1
}

/// A type as what is expected: `an integer`, `a Tensor`.
pub fn wanted(kind: &str) -> String {
    alternatives(choices(kind).into_iter().map(|choice| match choice {
        "int" => "an integer".into(),
        "float" => "a float such as 1.0".into(),
        "number" => "a number".into(),
        "shape" => "an integer or an array of integers".into(),
        "bool" => "true or false".into(),
        "string" => "text".into(),
        "char" => "a character such as 'a'".into(),
        "()" => "nothing, `()`".into(),
        "[int]" => "an array of integers".into(),
        "[string]" => "an array of text".into(),
        choice if choice.starts_with(['a', 'e', 'i', 'o', 'A', 'E', 'I', 'O']) => format!("an {choice}"),
        choice if choice.starts_with('[') => choice.to_owned(),
        choice => format!("a {choice}"),
    }))
}

/// A type as what there was.
pub fn got(kind: &str) -> &str {
    if kind == "()" { "nothing, `()`" } else { kind }
}

/// `a`, `a or b`, `a, b or c`.
pub fn alternatives(items: impl IntoIterator<Item = String>) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} or {last}", items.join(", ")),
    }
}

/// A type in Rhai's messages as scripts know it.
pub fn readable_type(text: &str, engine: &Engine) -> String {
    match engine.map_type_name(text) {
        "Fn" => "function".into(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(name: &str, params: &[(&str, &str)]) -> Callable {
        let param = |(name, kind): &(&str, &str)| Param { name: (*name).into(), kind: (*kind).into() };
        Callable {
            name: name.into(),
            params: params.iter().map(param).collect(),
            returns: String::new(),
            standard: false,
            scripted: false,
        }
    }

    fn known() -> Vec<Callable> {
        vec![
            native("tensor::eye", &[("n", "int")]),
            native("tensor::zeros", &[("shape", "")]),
            native("nn::linear", &[("in_features", "int"), ("out_features", "int")]),
            native("reshape", &[("x", "Tensor"), ("shape", "array")]),
            native("sum", &[("x", "Tensor")]),
            native("sum", &[("x", "Tensor"), ("dim", "int or [int]")]),
            Callable::scripted("validate".into(), ["x".to_owned()]),
        ]
    }

    fn said(name: &str, method: bool, args: &[&str]) -> (String, String) {
        let call = Call { name, method, args: args.iter().map(|arg| (*arg).to_owned()).collect() };
        let known = known();
        let fault = judge(&call, &known.iter().collect::<Vec<_>>())
            .map(|fault| fault.failure)
            .unwrap_or(Failure::script("fine"));
        (fault.message, fault.hint.unwrap_or_default())
    }

    #[test]
    fn what_is_wrong_with_a_call() {
        let cases = [
            (said("tensor::eye", false, &["int"]), "fine", ""),
            (said("tensor::eye", false, &[""]), "fine", ""),
            (
                said("tensor::eye", false, &["string"]),
                "n: expected an integer, got string",
                "it takes tensor::eye(n: int)",
            ),
            (
                said("tensor::zeors", false, &["array"]),
                "unknown function: tensor::zeors",
                "did you mean `tensor::zeros(shape)`?",
            ),
            (
                said("tensor::linear", false, &["int"]),
                "unknown function: tensor::linear",
                "did you mean `nn::linear(in_features: int, out_features: int)`?",
            ),
            (
                said("tensor::reshape", false, &["", "array"]),
                "unknown function: tensor::reshape",
                "it is a method of Tensor: `x.reshape(shape: array)`",
            ),
            (
                said("rehsape", true, &["Tensor", "array"]),
                "Tensor has no method `rehsape`",
                "did you mean `reshape(shape: array)`?",
            ),
            (said("reshape", true, &["int", "array"]), "int has no method `reshape`", "Tensor has it"),
            (
                said("sum", true, &["Tensor", "int", "int"]),
                "sum: expected 0 or 1 arguments, got 2",
                "it takes sum() or sum(dim: int or [int])",
            ),
            (said("validate", false, &["", ""]), "validate: expected 1 argument, got 2", "it takes validate(x)"),
            (said("validate", true, &["int", ""]), "fine", ""),
            (
                said("sum", true, &["Tensor", "string"]),
                "dim: expected an integer or an array of integers, got string",
                "it takes sum(dim: int or [int])",
            ),
        ];
        for ((message, hint), want, wanted_hint) in cases {
            assert_eq!((message.as_str(), hint.as_str()), (want, wanted_hint));
        }
    }
}
