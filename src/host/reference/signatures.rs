//! Signatures as a script writes the call: `model.forward(x: Tensor) -> Tensor`, `Tensor + number -> Tensor`.

use super::subjects::Kind;
use super::{Function, Param, Role};

/// The signature of `function` as it is found on the page of a `kind`.
pub fn shown(function: &Function, kind: Kind) -> String {
    let list = |params: &[Param]| params.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (receiver, rest) = match function.params.split_first() {
        Some((first, rest)) => (first.name.as_str(), rest),
        None => ("", &[][..]),
    };
    let name = &function.name;
    let call = match function.role {
        Role::Function if kind == Kind::Type => format!("{receiver}.{name}({})", list(rest)),
        Role::Function => function.signature(),
        Role::Getter => format!("{receiver}.{name}"),
        Role::Setter => format!("{receiver}.{name} = {}", list(rest)),
        Role::IndexGetter => format!("{receiver}[{}]", list(rest)),
        Role::IndexSetter => match rest {
            [index, value, ..] => format!("{receiver}[{index}] = {value}"),
            _ => format!("{receiver}[…] = …"),
        },
        Role::Operator => match &function.params[..] {
            [a, b] => format!("{} {name} {}", side(&a.kind), side(&b.kind)),
            [a] => format!("{name}{}", side(&a.kind)),
            _ => function.signature(),
        },
    };
    match function.returns.as_str() {
        "" if function.returns_any => format!("{call} -> any"),
        "" => call,
        returns => format!("{call} -> {returns}"),
    }
}

/// A type beside an operator.
fn side(kind: &str) -> String {
    match kind {
        "" => "any".into(),
        kind if kind.contains(' ') => format!("({kind})"),
        kind => kind.into(),
    }
}
