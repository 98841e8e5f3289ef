//! Every function that scripts can call, read off what is registered with the engine: name, parameters, documentation.
//!
//! Suggestions, `check`, `api`, help and completion all work on this one list, so that none of them can know a function that
//! does not exist. What a doc comment may hold beside its text:
//!
//! - options, so that `check` knows the keys a map may have: a line that begins with `Options:`, maybe naming functions whose
//!   options are taken too (``Options: those of `models::vit`, and``), then a list, ``- `key` (type, default): meaning``;
//! - an example, in a fence of ```` ```rhai ````, that is run as a test, behind the setup of its subject ([`topics`]).

use rhai::{Engine, FnAccess};

use super::convert;

pub mod command;
mod definitions;
mod markdown;
pub mod pages;
mod signatures;
mod standard;
pub mod std_modules;
pub mod subjects;
pub mod topics;

/// What a function is to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `ns::name(…)`, `name(…)` or `value.name(…)`.
    Function,
    /// `value.name`.
    Getter,
    /// `value.name = x`.
    Setter,
    /// `value[i]`.
    IndexGetter,
    /// `value[i] = x`.
    IndexSetter,
    /// `a + b`.
    Operator,
}

/// A parameter; of a method the first is the value it is called on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: String,
    /// As scripts know the type; empty if anything goes.
    pub kind: String,
}

/// One key of an option map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDoc {
    pub key: String,
    /// All behind the key: type, default and meaning.
    pub text: String,
}

/// A doc comment, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docs {
    /// Markdown, without the example.
    pub text: String,
    pub options: Vec<OptionDoc>,
    /// Functions whose options are taken too.
    pub options_of: Vec<String>,
    pub example: Option<String>,
}

/// One signature; functions that share a name are several of these.
#[derive(Clone, Debug)]
pub struct Function {
    /// Empty for methods, operators and functions without a namespace.
    pub namespace: String,
    pub name: String,
    pub role: Role,
    pub params: Vec<Param>,
    /// As scripts know the type; empty for nothing, and for what depends.
    pub returns: String,
    /// Whether what it returns depends on what it is given.
    pub returns_any: bool,
    pub docs: Docs,
    /// Whether it comes with Rhai itself.
    pub standard: bool,
}

impl Function {
    /// `nn::linear`, `reshape`.
    pub fn full_name(&self) -> String {
        match self.namespace.as_str() {
            "" => self.name.clone(),
            namespace => format!("{namespace}::{}", self.name),
        }
    }

    /// `nn::linear(in_features: int, out_features: int)`.
    pub fn signature(&self) -> String {
        let params: Vec<String> = self.params.iter().map(ToString::to_string).collect();
        format!("{}({})", self.full_name(), params.join(", "))
    }
}

impl std::fmt::Display for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind.as_str() {
            "" => f.write_str(&self.name),
            kind => write!(f, "{}: {kind}", self.name),
        }
    }
}

/// All functions of an engine.
pub struct Reference {
    pub functions: Vec<Function>,
}

impl Reference {
    /// What `engine` has registered, in the order of namespace, name and number of parameters. Some milliseconds.
    pub fn of(engine: &Engine) -> Self {
        let all = |standard| engine.collect_fn_metadata(None, |info| read(engine, &info, standard), standard);
        let mut functions = all(false);
        // What we have registered hides what is Rhai's.
        let ours: std::collections::HashSet<String> = functions.iter().map(key).collect();
        functions.extend(all(true).into_iter().filter(|function| !ours.contains(&key(function))));
        // Names of parameters and all the rest decide between equal ones, so that the choice is always the same.
        functions.sort_by_cached_key(|f| (key(f), f.signature(), f.returns.clone(), f.docs.text.clone()));
        functions.dedup_by_key(|function| key(function));
        functions.sort_by_cached_key(|f| (f.namespace.clone(), f.name.clone(), f.role, f.params.len(), key(f)));
        Self { functions }
    }

    /// All that are called `name`, like `nn::linear` or `reshape`, in a call; not properties and operators.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Function> {
        self.functions.iter().filter(move |f| f.role == Role::Function && f.full_name() == name)
    }

    /// Keys that the options of `name` may have, those it takes over from others included; `None` if it documents none.
    pub fn option_keys(&self, name: &str) -> Option<Vec<String>> {
        let mut keys = Vec::new();
        self.collect_keys(name, &mut Vec::new(), &mut keys);
        (!keys.is_empty()).then_some(keys)
    }

    fn collect_keys(&self, name: &str, seen: &mut Vec<String>, keys: &mut Vec<String>) {
        if seen.iter().any(|known| known == name) {
            return;
        }
        seen.push(name.to_owned());
        for function in self.named(name) {
            for option in &function.docs.options {
                if !keys.contains(&option.key) {
                    keys.push(option.key.clone());
                }
            }
            for other in &function.docs.options_of {
                self.collect_keys(other, seen, keys);
            }
        }
    }
}

fn key(function: &Function) -> String {
    let kinds: Vec<&str> = function.params.iter().map(|param| param.kind.as_str()).collect();
    // The number too: of one untyped parameter the list is as empty as of none.
    format!("{}::{}/{:?}/{}/{}", function.namespace, function.name, function.role, kinds.len(), kinds.join(","))
}

fn read(engine: &Engine, info: &rhai::FuncInfo, standard: bool) -> Option<Function> {
    let data = &info.metadata;
    if data.access == FnAccess::Private {
        return None;
    }
    let (role, name) = role_of(&data.name)?;
    if data.params_info.iter().any(|text| out_of_reach(text)) {
        return None;
    }
    let params = (0..data.num_params).map(|at| match data.params_info.get(at) {
        Some(text) => param(engine, text, at),
        None => Param { name: format!("arg{}", at + 1), kind: String::new() },
    });
    Some(Function {
        namespace: info.namespace.to_string(),
        name: name.to_owned(),
        role,
        params: params.collect(),
        returns: type_name(engine, &data.return_type),
        returns_any: ["Dynamic", "RhaiResult"].contains(&rust_type(&data.return_type)),
        docs: Docs::parse(data.comments.iter().map(|line| line.as_str())),
        standard,
    })
}

/// Whether a parameter is of a kind of number that no script has: all of theirs are `int` and `float`.
fn out_of_reach(param: &str) -> bool {
    const KINDS: [&str; 12] = ["i8", "u8", "i16", "u16", "i32", "u32", "u64", "i128", "u128", "isize", "usize", "f32"];
    let mut words = param.split(|c: char| !c.is_alphanumeric() && c != '_');
    param.contains("Range<FLOAT") || words.any(|word| KINDS.contains(&word))
}

/// What Rhai's name of a function says it is; `None` for names no script can write.
fn role_of(name: &str) -> Option<(Role, &str)> {
    if let Some(property) = name.strip_prefix("get$") {
        return Some((Role::Getter, property));
    }
    if let Some(property) = name.strip_prefix("set$") {
        return Some((Role::Setter, property));
    }
    match name {
        "index$get$" => Some((Role::IndexGetter, "[]")),
        "index$set$" => Some((Role::IndexSetter, "[]=")),
        name if name.contains('$') => None,
        name if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => Some((Role::Function, name)),
        name => Some((Role::Operator, name)),
    }
}

fn param(engine: &Engine, text: &str, at: usize) -> Param {
    let (name, kind) = text.split_once(':').map_or((text, ""), |(name, kind)| (name.trim(), kind.trim()));
    let name = name.rsplit(' ').next().unwrap_or(name); // `mut x`
    let name = if name == "_" { format!("arg{}", at + 1) } else { name.to_owned() };
    Param { name, kind: type_name(engine, kind) }
}

/// The last word of a Rust type behind references and results: `&mut api::TensorHandle` is `TensorHandle`.
fn rust_type(rust: &str) -> &str {
    let mut kind = rust.trim();
    loop {
        let inner =
            ["ScriptResult<", "RhaiResultOf<", "Result<", "&mut "].iter().find_map(|prefix| kind.strip_prefix(prefix));
        let Some(inner) = inner.or_else(|| kind.strip_prefix('&')) else { break };
        kind = inner.split(", Box<").next().unwrap_or(inner).trim_end_matches('>').trim();
    }
    kind.rsplit("::").next().unwrap_or(kind)
}

/// A Rust type as scripts know it: `&mut TensorHandle` is `Tensor`, `Dynamic` is empty.
pub fn type_name(engine: &Engine, rust: &str) -> String {
    match rust_type(rust) {
        "" | "Dynamic" | "RhaiResult" | "()" => String::new(),
        "INT" | "i64" => "int".into(),
        "FLOAT" | "f64" => "float".into(),
        "str" | "String" | "ImmutableString" => "string".into(),
        "Array" | "Vec<Dynamic>" => "array".into(),
        "Map" => "map".into(),
        "Blob" => "blob".into(),
        "FnPtr" => "function".into(),
        range if range.starts_with("Range<") => "range".into(),
        range if range.starts_with("RangeInclusive<") => "range=".into(),
        "Failure" => "error".into(),
        "ValPass" => "ValBatches".into(),
        other => match (convert::shown(other), other.strip_suffix("Handle")) {
            (Some(shown), _) => shown.to_owned(),
            (None, Some(ours)) => ours.to_owned(),
            (None, None) => engine.map_type_name(other).to_owned(),
        },
    }
}

impl Docs {
    /// Takes `///` lines and `/** */` blocks apart.
    pub fn parse<'a>(comments: impl Iterator<Item = &'a str>) -> Self {
        let lines: Vec<String> = comments.flat_map(plain_lines).collect();
        let mut docs = Self::default();
        let mut text: Vec<&str> = Vec::new();
        let mut example: Option<Vec<&str>> = None;
        let mut in_example = false;
        let mut in_options = false;
        let mut together = 0; // Keys that share the last item of the list.
        for line in &lines {
            let trimmed = line.trim();
            if in_example {
                match trimmed {
                    "```" => in_example = false,
                    _ => example.get_or_insert_default().push(line),
                }
                continue;
            }
            if trimmed == "```rhai" {
                in_example = true;
                if let Some(before) = example.as_mut() {
                    before.push("");
                }
                continue;
            }
            text.push(line);
            if trimmed.starts_with("Options:") {
                in_options = true;
                let others = backticked(trimmed).filter(|name| !name.contains(['"', '[', ' ']));
                docs.options_of.extend(others.map(str::to_owned));
            } else if let Some(item) = trimmed.strip_prefix("- ").filter(|_| in_options) {
                let keys = item.split(" (").next().unwrap_or(item);
                let rest = item[keys.len()..].trim().to_owned();
                let option = |key: &str| OptionDoc { key: key.to_owned(), text: rest.clone() };
                docs.options.extend(backticked(keys).map(option));
                together = backticked(keys).count();
            } else if trimmed.is_empty() {
                in_options = in_options && docs.options.is_empty();
            } else if in_options && !docs.options.is_empty() {
                let first = docs.options.len() - together;
                docs.options[first..].iter_mut().for_each(|option| option.text.extend([" ", trimmed]));
            } else if in_options {
                docs.options_of.extend(backticked(trimmed).map(str::to_owned));
            }
        }
        docs.text = text.join("\n").trim().to_owned();
        docs.example = example.map(|lines| lines.join("\n"));
        docs
    }
}

/// What stands between single backticks.
fn backticked(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn plain_lines(comment: &str) -> Vec<String> {
    if let Some(block) = comment.strip_prefix("/**") {
        let block = block.trim_end_matches("*/");
        let strip = |line: &str| line.trim().strip_prefix('*').unwrap_or(line.trim()).trim_start().to_owned();
        return block.lines().map(strip).collect();
    }
    let strip = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("///").unwrap_or(line);
        line.strip_prefix(' ').unwrap_or(line).to_owned()
    };
    comment.lines().map(strip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_comment_comes_apart() {
        let lines = [
            "/// A layer.",
            "///",
            "/// Options: those of `models::vit`, and",
            "/// - `stride`, `padding` (int, 1): how far,",
            "///   and how much",
            "/// - `bias` (bool, true): whether it has one",
            "///",
            "/// More.",
            "///",
            "/// ```rhai",
            "/// let x = 1;",
            "/// ```",
        ];
        let docs = Docs::parse(lines.into_iter());
        let keys: Vec<&str> = docs.options.iter().map(|option| option.key.as_str()).collect();
        assert_eq!(keys, ["stride", "padding", "bias"]);
        assert_eq!(docs.options[0].text, "(int, 1): how far, and how much");
        assert_eq!(docs.options_of, ["models::vit"]);
        assert_eq!(docs.example.as_deref(), Some("let x = 1;"));
        assert!(docs.text.ends_with("More.") && !docs.text.contains("```"));
    }
}
