//! Habits from other languages, and what Rhai writes instead.

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

/// For `print(a, b)`.
pub const PRINT: &str = "several values stand in one text, between backticks: print(`loss ${x} at ${step}`)";

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

/// The index of another language that stands around the beginning of `rest`, as it is written here.
fn index(line: &str, rest: &str) -> Option<String> {
    if !rest.starts_with([',', ':', '.']) {
        return None;
    }
    let (owner, first) = line[..line.len() - rest.len()].rsplit_once('[')?;
    let in_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    let owner = owner.rsplit(|c| !in_path(c)).next().filter(|owner| !owner.is_empty())?;
    let inside = format!("{first}{}", rest.split_once(']')?.0);
    if inside.contains(['(', ')', '[', ']', '{', '}', '"', '`', ';']) {
        return None;
    }
    if inside.contains("...") {
        return Some(format!("there is no `...`: each whole dimension is `()`, as in `{owner}[[(), 0]]`"));
    }
    let parts = inside.split(',').enumerate().map(|(at, part)| dimension(owner, at, part.trim()));
    let parts: Vec<String> = parts.collect::<Option<_>>()?;
    let several = parts.len() > 1;
    let said = [
        several.then_some("several dimensions stand in an array"),
        parts.iter().any(|part| part.contains("..")).then_some("a part of a tensor is a range"),
        parts.iter().any(|part| part == "()").then_some("a whole dimension is `()`"),
    ];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    let parts = parts.join(", ");
    let parts = if several { format!("[{parts}]") } else { parts };
    Some(format!("{}: `{owner}[{parts}]`", said.join(", "))).filter(|_| !said.is_empty())
}

/// What is taken of dimension `at`: `a:b` is `a..b`, and `:` is `()`. `None` for what there is not, as steps.
fn dimension(owner: &str, at: usize, part: &str) -> Option<String> {
    if part.is_empty() {
        return None;
    }
    let Some((from, to)) = part.split_once(':') else { return Some(part.to_owned()) };
    let (from, to) = (from.trim(), to.trim());
    match (from, to) {
        ("", "") => Some("()".to_owned()),
        (_, to) if to.contains(':') => None,
        (from, "") => Some(format!("{from}..{owner}.shape[{at}]")),
        ("", to) => Some(format!("0..{to}")),
        (from, to) => Some(format!("{from}..{to}")),
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
