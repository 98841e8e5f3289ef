//! Setting a variable that there is not: what it was probably to be, a new variable or an argument by its name.

use super::reference::Reference;
use super::scan::{Open, Scan};
use super::signatures::Callable;

/// Characters of a value that a hint repeats, at most.
const LONGEST_VALUE: usize = 30;

/// What stands around the name.
pub enum Meant {
    /// A statement that should have declared the variable.
    Variable(String),
    /// An argument that was given by its name.
    Argument(String),
}

/// `before` is the source up to the name, `behind` what follows it.
pub fn meant(name: &str, before: &str, behind: &str, reference: &Reference) -> Option<Meant> {
    let behind = behind.trim_start();
    let line = behind.lines().next().unwrap_or_default();
    if let Some(rest) = line.strip_prefix(['+', '-', '*', '/'])
        && rest.starts_with('=')
    {
        return Some(Meant::Variable(format!("a variable has a value first: `let {name} = …`")));
    }
    let value = line.strip_prefix('=').filter(|rest| !rest.starts_with('='))?.trim();
    match Scan::of(before).open.last() {
        None | Some((Open::Curly | Open::Inserted, _)) => {
            let value = statement(value).unwrap_or("…");
            Some(Meant::Variable(format!("a new variable begins with `let`: `let {name} = {value}`")))
        }
        Some((Open::Round, at)) => {
            let first = before[at + 1..].trim().is_empty();
            argument(name, path(&before[..*at])?, value, first, reference).map(Meant::Argument)
        }
        _ => None,
    }
}

/// The value, if it is short and ends on the line.
fn statement(value: &str) -> Option<&str> {
    let value = match value.split_once([';', '}']) {
        Some((value, _)) => value.trim(),
        None => value.trim().strip_suffix(|c: char| !c.is_alphanumeric() && !")]\"".contains(c)).map_or(value, |_| ""),
    };
    let balanced = |open, close| value.matches(open).count() == value.matches(close).count();
    let whole = balanced('(', ')') && balanced('[', ']') && balanced('{', '}') && value.matches('"').count() % 2 == 0;
    (whole && !value.is_empty() && value.chars().count() <= LONGEST_VALUE && !value.contains(['`', '/']))
        .then_some(value)
}

/// What is called, at the end of `before`: `x.sum`, `nn::linear`.
fn path(before: &str) -> Option<&str> {
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':');
    before.rsplit(|c| !in_path(c)).next().filter(|path| path.contains(char::is_alphanumeric))
}

/// How the argument of a call is written; nothing is known of functions of scripts.
fn argument(name: &str, called: &str, value: &str, first: bool, reference: &Reference) -> Option<String> {
    if ["if", "while", "until", "switch", "return", "in"].contains(&called) {
        return None;
    }
    let function = if called.contains("::") { called } else { called.rsplit('.').next().unwrap_or(called) };
    let simple = |value: &str| !value.is_empty() && !value.contains([',', '(', '[', '{', '"', '`']);
    let alone = value.split_once(')').map(|(value, _)| value.trim()).filter(|value| first && simple(value));
    let names = |text: &str| text == name;
    if reference.option_keys(function).is_some_and(|keys| keys.iter().any(|key| names(key))) {
        return Some(match alone {
            Some(value) => format!("options stand in a map: `{called}(#{{ {name}: {value} }})`"),
            None => format!("options stand in a map: `#{{ {name}: … }}`"),
        });
    }
    let native = reference.named(function).find(|f| f.params.iter().any(|param| names(&param.name)));
    Some(match (native, alone) {
        (Some(_), Some(value)) => format!("arguments have no names: `{called}({value})`"),
        (Some(native), None) => {
            let method = native.namespace.is_empty() && called.contains('.');
            format!("arguments have no names: it takes {}", Callable::native(native).shown(method))
        }
        (None, _) => {
            format!("arguments have no names: leave out `{name} =`; options stand in a map: `#{{ {name}: … }}`")
        }
    })
}
