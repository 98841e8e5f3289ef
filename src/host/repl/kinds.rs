//! Which type an expression has, as far as its text, the variables and the functions' return types tell.

use rhai::{Array, Dynamic, Map};

use super::complete::trailing_word;
use super::show::kind_of;
use super::state::State;
use crate::host::reference::{Function, Role};
use crate::host::scan::Scan;

/// What is known of an expression.
pub struct Known {
    /// As the reference names types.
    pub kind: String,
    /// Its value, where that is at hand.
    value: Option<Dynamic>,
}

impl Known {
    fn of_kind(kind: impl Into<String>) -> Option<Self> {
        Some(Self { kind: kind.into(), value: None }).filter(|known| !known.kind.is_empty())
    }

    fn of_value(state: &State, value: Dynamic) -> Self {
        Self { kind: kind_of(&state.engine, &value).to_owned(), value: Some(value) }
    }

    /// The keys of a map.
    pub fn keys(&self) -> Option<Vec<String>> {
        let map = self.value.as_ref()?.read_lock::<Map>()?;
        Some(map.keys().map(ToString::to_string).collect())
    }
}

/// All namespaces of native functions.
pub fn namespaces(state: &State) -> Vec<String> {
    let mut spaces: Vec<String> = state.reference.functions.iter().map(|function| function.namespace.clone()).collect();
    spaces.sort();
    spaces.dedup();
    spaces.retain(|space| !space.is_empty());
    spaces
}

/// Our own types, that is those that functions of ours are methods of.
pub fn types(state: &State) -> Vec<String> {
    let ours = state.reference.functions.iter().filter(|function| !function.standard && function.namespace.is_empty());
    let mut types: Vec<String> = ours.filter_map(|function| Some(function.params.first()?.kind.clone())).collect();
    types.sort();
    types.dedup();
    types.retain(|kind| kind.starts_with(char::is_uppercase) && !kind.contains(' ')); // Not `Tensor or number`.
    types
}

/// The expression before a dot that `text` ends in; `None` if it ends in none, or in that of a number or a range.
pub fn before_dot(text: &str) -> Option<&str> {
    let receiver = text.strip_suffix('.')?;
    let receiver = receiver.strip_suffix('?').unwrap_or(receiver);
    let word = trailing_word(receiver);
    let is_number = word.starts_with(|c: char| c.is_ascii_digit());
    (!receiver.ends_with('.') && !is_number).then_some(receiver)
}

/// The type of the expression that `text` ends in.
pub fn of_expression(state: &State, text: &str) -> Option<Known> {
    let text = text.trim_end();
    let first = |open: char| matching(text, open);
    if text.ends_with(')') {
        let open = first('(')?;
        let callee = text[..open].trim_end();
        let name = trailing_word(callee);
        let before = &callee[..callee.len() - name.len()];
        if name.is_empty() {
            return of_expression(state, &text[open + 1..text.len() - 1]);
        }
        if let Some(space) = before.strip_suffix("::") {
            return returned(state, |f| {
                f.namespace == trailing_word(space) && f.name == name && f.role == Role::Function
            });
        }
        return match before_dot(before) {
            Some(receiver) => {
                let receiver = of_expression(state, receiver)?;
                member(state, &receiver.kind, name, Role::Function)
            }
            None => returned(state, |f| f.namespace.is_empty() && f.name == name && f.role == Role::Function),
        };
    }
    if text.ends_with(']') {
        let open = first('[')?;
        let indexed = text[..open].trim_end();
        if !indexed.ends_with(|c: char| c.is_alphanumeric() || "_)]".contains(c)) {
            return Known::of_kind("array");
        }
        let indexed = of_expression(state, indexed)?;
        return match indexed.kind.as_str() {
            "array" => element(state, &indexed, text[open + 1..text.len() - 1].trim()),
            kind => member(state, kind, "[]", Role::IndexGetter),
        };
    }
    if text.ends_with('}') {
        let open = first('{')?;
        return text[..open].ends_with('#').then(|| Known::of_kind("map"))?;
    }
    if text.ends_with(['"', '`']) {
        return Known::of_kind("string");
    }
    let name = trailing_word(text);
    match before_dot(&text[..text.len() - name.len()]) {
        Some(receiver) => {
            let receiver = of_expression(state, receiver)?;
            let entry = receiver.value.as_ref().and_then(|value| value.read_lock::<Map>()?.get(name).cloned());
            match entry {
                Some(value) => Some(Known::of_value(state, value)),
                None => member(state, &receiver.kind, name, Role::Getter),
            }
        }
        None => state.scope.get(name).map(|value| Known::of_value(state, value.clone())),
    }
}

/// What a property, a method or an index of a type answers with.
fn member(state: &State, kind: &str, name: &str, role: Role) -> Option<Known> {
    let of_kind = |f: &Function| f.params.first().is_some_and(|first| first.kind == kind);
    returned(state, |f| f.namespace.is_empty() && f.name == name && f.role == role && of_kind(f))
}

fn returned(state: &State, fits: impl Fn(&Function) -> bool) -> Option<Known> {
    let function = state.reference.functions.iter().filter(|f| fits(f)).find(|f| !f.returns.is_empty())?;
    Known::of_kind(function.returns.clone())
}

fn element(state: &State, array: &Known, index: &str) -> Option<Known> {
    let items = array.value.as_ref()?.read_lock::<Array>()?;
    let value = items.get(index.parse::<usize>().unwrap_or(0))?.clone();
    Some(Known::of_value(state, value))
}

/// Where the bracket begins that `text` ends with; `open` is how it looks.
fn matching(text: &str, open: char) -> Option<usize> {
    // What is still open without the last character is innermost what it closes.
    let (_, at) = *Scan::of(&text[..text.len() - 1]).open.last()?;
    let at = at + usize::from(text[at..].starts_with("#{"));
    text[at..].starts_with(open).then_some(at)
}
