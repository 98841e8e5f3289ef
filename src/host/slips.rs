//! Habits from other languages, and what Rhai writes instead.

/// Characters of a value that a hint repeats, at most.
const LONGEST_VALUE: usize = 30;

/// Words that are no names here.
const WORDS: [(&str, &str); 24] = [
    ("None", "nothing is written `()`"),
    ("null", "nothing is written `()`"),
    ("nil", "nothing is written `()`"),
    ("undefined", "nothing is written `()`"),
    ("True", "it is written `true`"),
    ("False", "it is written `false`"),
    ("elif", "it is written `else if`"),
    ("elseif", "it is written `else if`"),
    ("and", "it is written `&&`"),
    ("or", "it is written `||`"),
    ("not", "it is written `!`"),
    ("def", "a function is written `fn name(x) { … }`"),
    ("func", "a function is written `fn name(x) { … }`"),
    ("function", "a function is written `fn name(x) { … }`"),
    ("lambda", "a function without a name is written `|x| …`"),
    ("var", "a variable is declared with `let`"),
    ("int", "types are not written: `let x = 1;`"),
    ("float", "types are not written: `let x = 1.0;`"),
    ("self", "in a method the value is `this`"),
    ("pass", "an empty block is written `{ }`"),
    ("raise", "an error is made with `throw`"),
    ("except", "it is written `try { … } catch (err) { … }`"),
    ("len", "length is a method: `x.len()`"),
    ("range", RANGE),
];

/// For `range(n)`, which Rhai has with a beginning alone.
pub const RANGE: &str = "numbers from 0 to n - 1 are written `0..n`";

/// Methods that others have, and where that is here.
const METHODS: [(&str, &str); 12] = [
    ("to", "all tensors live where `--device` says; types change with `to_float()` and its kin"),
    ("to_device", "all tensors live where `--device` says"),
    ("cuda", "all tensors live where `--device` says"),
    ("cpu", "all tensors live where `--device` says; `to_array()` makes numbers of them"),
    ("numpy", "`to_array()` makes numbers of a tensor"),
    ("tolist", "`to_array()` makes numbers of a tensor"),
    ("view", "`reshape(shape)` does it"),
    ("size", "`shape` is a property: `x.shape[0]`"),
    ("append", "`push(item)` does it"),
    ("length", "`len()` does it"),
    ("format", "values stand in text between backticks: `${x}`"),
    ("items", "a map has `keys()` and `values()`"),
];

/// Libraries that scripts of other languages import.
const LIBRARIES: [&str; 8] = ["np", "numpy", "torch", "tf", "jax", "jnp", "F", "os"];

fn find(table: &[(&str, &str)], name: &str) -> Option<String> {
    table.iter().find(|(word, _)| *word == name).map(|(_, hint)| (*hint).to_owned())
}

/// What an unknown variable was probably to be, by its name and by `rest`, its line from there on.
pub fn variable(name: &str, line: &str, rest: &str) -> Option<String> {
    let behind = rest.strip_prefix(name).unwrap_or_default();
    if line.trim_start().starts_with("import ") && !LIBRARIES.contains(&name) {
        return Some(format!("an import names a file in quotes: import \"lib/{name}\" as {name};"));
    }
    if behind.trim_start().starts_with(':') && line.contains('{') && !line.contains("#{") {
        return Some("a map begins with `#{`".into());
    }
    if name == "f" && behind.starts_with(['"', '\'']) {
        return Some("values stand in text between backticks: `steps ${n}`".into());
    }
    find(&WORDS, name).or_else(|| library(name))
}

/// What setting a variable that there is not was probably to be: a new one, or an argument by its name. `before` and `behind` are
/// the parts of the line on both sides of the name.
pub fn assigned(name: &str, before: &str, behind: &str) -> Option<String> {
    let value = behind.trim_start().strip_prefix('=').filter(|rest| !rest.starts_with('='))?.trim();
    match before.trim_end().chars().next_back() {
        None | Some(';' | '{' | '}') => {
            let value = value.split([';', '}']).next().unwrap_or_default().trim();
            let short =
                value.chars().count() <= LONGEST_VALUE && value.matches('(').count() == value.matches(')').count();
            let value = if short && !value.is_empty() && !value.contains("//") { value } else { "…" };
            Some(format!("a new variable begins with `let`: `let {name} = {value}`"))
        }
        Some('(' | ',') => Some(named_argument(name, before.trim_end(), value)),
        _ => None,
    }
}

/// How an argument is written that was given by its name.
fn named_argument(name: &str, before: &str, value: &str) -> String {
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':');
    let called = before.strip_suffix('(').map(|before| before.rsplit(|c| !in_path(c)).next().unwrap_or_default());
    let alone = value.split_once(')').map(|(value, _)| value).filter(|value| !value.contains([',', '(', '[', '{']));
    match (called, alone) {
        (Some(called), Some(value)) if !called.is_empty() => format!("arguments have no names: `{called}({value})`"),
        _ => format!("arguments have no names, their order says which is which: leave out `{name} =`"),
    }
}

/// The index of another language that stands around `rest`, as it is written here.
fn index(line: &str, rest: &str) -> Option<String> {
    let before = &line[..line.len() - rest.len()];
    let (owner, first) = before.rsplit_once('[')?;
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let owner = owner.rsplit(|c| !in_path(c)).next().filter(|owner| !owner.is_empty())?;
    let (second, _) = rest[1..].split_once(']')?;
    let (first, second) = (first.trim(), second.trim());
    let is_plain = |text: &str| !text.contains(['(', '[', '{', '"', ':']);
    if !is_plain(first) || !is_plain(second) {
        return None;
    }
    match rest.chars().next()? {
        ',' => Some(format!("an element of a tensor is `{owner}[[{first}, {second}]]`")),
        ':' if !second.contains(',') && !first.is_empty() && !second.is_empty() => {
            Some(format!("a part is a range: `{owner}[{first}..{second}]`"))
        }
        ':' => Some("a part is a range: `x[0..2]`".into()),
        _ => None,
    }
}

/// What a function of this name is here, that is none.
pub fn function(name: &str) -> Option<String> {
    find(&WORDS, name)
}

/// What a method of this name is here, that is none.
pub fn method(name: &str) -> Option<String> {
    find(&METHODS, name)
}

/// Where the functions of a library are here.
pub fn library(name: &str) -> Option<String> {
    LIBRARIES
        .contains(&name)
        .then(|| "there are no libraries to import; `tensor::` and `nn::` have the functions".into())
}

/// What a line that does not parse was probably to be; `rest` is the part that could not be read.
pub fn syntax(line: &str, rest: &str) -> Option<String> {
    let start = line.trim_start();
    let first =
        |text: &str| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default().to_owned();
    if start.starts_with("fn ") && rest.starts_with('=') {
        return Some("parameters have no defaults: write a second function that takes fewer and calls this one".into());
    }
    if let Some(hint) = index(line, rest) {
        return Some(hint);
    }
    if rest.starts_with('@') {
        return Some("matrices are multiplied by `x.matmul(y)`".into());
    }
    // Behind `=` stands a value, and none has a type.
    let before = &line[..line.len() - rest.len()];
    let declares = start.starts_with("let ") || start.starts_with("const ");
    if (declares && !before.contains('=') || start.starts_with("fn ")) && rest.starts_with(':') {
        return Some("types are not written".into());
    }
    if rest.starts_with("++") || rest.starts_with("--") {
        return Some(format!("write `i {}= 1`", &rest[..1]));
    }
    find(&WORDS, &first(rest)).or_else(|| find(&WORDS, &first(start)))
}
