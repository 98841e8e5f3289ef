//! Script parameters: `arg("name", default)`, found without running, given by `--set name=value`.
//!
//! The script and everything it imports are walked for calls of `arg`, inside functions too; so an unknown name or a value
//! of the wrong type is refused before anything runs. A default that is not a constant is known only when `arg` is called:
//! its parameter is checked then. Values are text where the default is text, else JSON; an integer does for a float. A map
//! or array replaces the default as a whole.

use std::collections::HashSet;
use std::path::Path;

use rhai::{
    AST, ASTNode, Array, Dynamic, Engine, EvalAltResult, Expr, FnCallExpr, ImmutableString, Map, Position, Stmt,
};
use serde_json::Value;

use super::check::mixups;
use super::errors::{Failure, ScriptResult};
use super::session::{Parameter, Session};
use super::suggest::did_you_mean;

/// Name of the function that makes a parameter.
const ARG: &str = "arg";

/// The values given for parameters, before their types are known.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// From `--set`, the last one of a name wins.
    texts: Vec<(String, String)>,
    /// From the `arguments` of a resumed run's `run.json`; `--set` wins over them.
    saved: serde_json::Map<String, Value>,
}

impl Given {
    /// # Errors
    /// If the resumed run's `run.json` cannot be read.
    pub fn new(set: &[(String, String)], resume: Option<&Path>) -> Result<Self, Failure> {
        let saved = match resume {
            Some(run) => match read_run_json(run)?.remove("arguments") {
                Some(Value::Object(saved)) => saved,
                _ => serde_json::Map::new(),
            },
            None => serde_json::Map::new(),
        };
        Ok(Self { texts: set.to_vec(), saved })
    }

    /// What was given for `name`, whatever type it is to have.
    pub fn raw(&self, name: &str) -> Option<Value> {
        match self.texts.iter().rev().find(|(given, _)| given == name) {
            Some((_, text)) => Some(serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())),
            None => self.saved.get(name).cloned(),
        }
    }

    /// All text in the values, which may be paths.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = self.texts.iter().map(|(_, text)| text.clone()).collect();
        let parsed = self.texts.iter().filter_map(|(_, text)| serde_json::from_str(text).ok());
        for value in parsed.chain(self.saved.values().cloned()) {
            collect_texts(&value, &mut texts);
        }
        texts
    }

    /// The value given for `name`, if any, with the type of `default`.
    fn value(&self, name: &str, default: &Dynamic) -> Result<Option<Dynamic>, Failure> {
        if let Some((_, text)) = self.texts.iter().rev().find(|(given, _)| given == name) {
            let value = parse(text, default).map_err(|why| Failure::usage(format!("--set {name}={text}: {why}")))?;
            return Ok(Some(value));
        }
        let Some(saved) = self.saved.get(name) else { return Ok(None) };
        let value = convert(saved, default).map_err(|why| Failure::usage(format!("saved argument {name}: {why}")))?;
        Ok(Some(value))
    }
}

/// `run.json` of a run directory; empty if there is none.
///
/// # Errors
/// If it cannot be read as a JSON object.
pub fn read_run_json(run: &Path) -> Result<serde_json::Map<String, Value>, Failure> {
    for name in ["run.json", "index.json"] {
        let path = run.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                return serde_json::from_str(&text).map_err(|err| Failure::usage(format!("{}: {err}", path.display())));
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(Failure::usage(format!("cannot read {}: {err}", path.display()))),
        }
    }
    Ok(serde_json::Map::new())
}

fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(map) => map.values().for_each(|item| collect_texts(item, texts)),
        _ => {}
    }
}

/// Finds the parameters of the script and its imports and gives them the values of the command line.
///
/// # Errors
/// In the script: a name that is not a literal, two defaults for one name, an import that fails, functions that Rhai would mix up. In the command line: a
/// name that does not exist, a value of the wrong type.
pub fn prepare(session: &Session, engine: &Engine, script: &AST) -> ScriptResult<()> {
    let key = session.library.store.script_key().to_owned();
    let mut found = Vec::new();
    collect(session, engine, script, &key, &mut HashSet::from([key.clone()]), &mut found)?;
    mixups::refuse(&session.library, engine)?;
    let at_command_line = |err: Failure| err.at(Position::NONE);
    for (name, _) in &session.given.texts {
        if !found.iter().any(|parameter| parameter.name == *name) {
            return Err(at_command_line(unknown(name, &found)));
        }
    }
    let mut parameters = Vec::new();
    for Found { name, default } in found {
        let given = match &default {
            Some(default) => session.given.value(&name, default).map_err(at_command_line)?,
            None => None, // Its type is known when `arg` is called.
        };
        parameters.push(Parameter { name, default: default.unwrap_or(Dynamic::UNIT), given });
    }
    *session.parameters.borrow_mut() = parameters;
    Ok(())
}

/// A call of `arg`.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub name: String,
    /// `None` if it is not a constant.
    pub default: Option<Dynamic>,
}

fn unknown(name: &str, found: &[Found]) -> Failure {
    let lines = found.iter().map(|Found { name, default }| match default {
        Some(default) => format!("\n  {name} = {}", describe(default)),
        None => format!("\n  {name} (default is computed)"),
    });
    let list = match found {
        [] => "the script has no parameters".to_owned(),
        _ => format!("the script's parameters:{}", lines.collect::<String>()),
    };
    let near = did_you_mean(name, found.iter().map(|parameter| parameter.name.as_str()));
    let hint = near.map_or(list.clone(), |near| format!("{near} {list}"));
    Failure::usage(format!("--set {name}: the script has no such parameter")).with_hint(hint)
}

fn collect(
    session: &Session,
    engine: &Engine,
    ast: &AST,
    key: &str,
    seen: &mut HashSet<String>,
    found: &mut Vec<Found>,
) -> ScriptResult<()> {
    let mut result = Ok(());
    ast.walk(&mut |path: &[ASTNode]| {
        let step = match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, pos)) | ASTNode::Stmt(Stmt::FnCall(call, pos))) => {
                parameter(call, *pos).and_then(|parameter| parameter.map_or(Ok(()), |new| add(found, new, *pos)))
            }
            Some(ASTNode::Stmt(Stmt::Import(import, _))) => match &import.0 {
                Expr::StringConstant(path, pos) => {
                    session.library.import(engine, key, path, *pos).and_then(|(module, ast)| {
                        if !seen.insert(module.clone()) {
                            return Ok(());
                        }
                        let inside = collect(session, engine, &ast, &module, seen, found);
                        inside.map_err(|err| EvalAltResult::ErrorInModule(module, err, *pos).into())
                    })
                }
                _ => Ok(()), // A computed import: its parameters cannot be known.
            },
            _ => Ok(()),
        };
        result = step;
        result.is_ok()
    });
    result
}

/// The parameter that `call` makes, if it is a call of `arg`.
pub(super) fn parameter(call: &FnCallExpr, pos: Position) -> ScriptResult<Option<Found>> {
    if call.name != ARG || call.is_qualified() || call.args.len() != 2 {
        return Ok(None);
    }
    let Expr::StringConstant(name, _) = &call.args[0] else {
        let problem =
            Failure::script("arg: the name must be a literal text, so that parameters are known without running");
        return Err(problem.at(call.args[0].position().or_else(pos)));
    };
    Ok(Some(Found { name: name.to_string(), default: call.args[1].get_literal_value(None) }))
}

/// Adds a parameter, unless it is there.
pub(super) fn add(found: &mut Vec<Found>, new: Found, pos: Position) -> ScriptResult<()> {
    let Some(known) = found.iter_mut().find(|known| known.name == new.name) else {
        found.push(new);
        return Ok(());
    };
    match (&known.default, new.default) {
        (Some(old), Some(default)) if describe(old) != describe(&default) => {
            let (old, default) = (describe(old), describe(&default));
            Err(Failure::script(format!("arg: \"{}\" has two defaults, {old} and {default}", new.name)).at(pos))
        }
        (None, Some(default)) => {
            known.default = Some(default);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What `arg(name, default)` answers while the script runs.
///
/// # Errors
/// If the value given does not have the type of `default`.
pub fn value(session: &Session, name: &str, default: Dynamic) -> Result<Dynamic, Failure> {
    let mut parameters = session.parameters.borrow_mut();
    let Some(parameter) = parameters.iter_mut().find(|parameter| parameter.name == name) else {
        return Err(Failure::script(format!("arg: \"{name}\" was not found beforehand"))
            .with_hint("call `arg` by its name, not through a function pointer or a computed import"));
    };
    if parameter.given.is_none() {
        parameter.given = session.given.value(name, &default)?;
    }
    parameter.default = default;
    Ok(parameter.value().clone())
}

/// A text from the command line as a value of `default`'s type.
fn parse(text: &str, default: &Dynamic) -> Result<Dynamic, String> {
    if default.is_string() {
        return Ok(text.into());
    }
    match serde_json::from_str(text) {
        Ok(value) => convert(&value, default),
        Err(_) if default.is_unit() => Ok(text.into()),
        Err(_) => Err(format!("expected {}, got text that is not JSON", expected(default))),
    }
}

fn expected(default: &Dynamic) -> String {
    let name = type_name(default);
    let article = if name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {name} like {}", describe(default))
}

/// A JSON value as a value of `default`'s type; anything goes where the default is `()`.
fn convert(value: &Value, default: &Dynamic) -> Result<Dynamic, String> {
    let mismatch = || Err(format!("expected {}, got {value}", expected(default)));
    match value {
        _ if default.is_unit() => Ok(free(value)),
        Value::Bool(value) if default.is_bool() => Ok((*value).into()),
        Value::String(text) if default.is_string() => Ok(text.into()),
        Value::Number(number) if default.is_int() => number.as_i64().map_or_else(mismatch, |number| Ok(number.into())),
        Value::Number(number) if default.is_float() => {
            number.as_f64().map_or_else(mismatch, |number| Ok(number.into()))
        }
        Value::Array(items) if default.is_array() => {
            // A list of floats stays one when whole numbers are given.
            let default: Array = default.clone().cast();
            let floats = !default.is_empty() && default.iter().all(Dynamic::is_float);
            Ok(items
                .iter()
                .map(|item| if floats { as_float(free(item)) } else { free(item) })
                .collect::<Array>()
                .into())
        }
        Value::Object(entries) if default.is_map() => {
            let default: Map = default.clone().cast();
            let convert = |(key, item): (&String, &Value)| {
                let known = default.get(key.as_str()).is_some_and(Dynamic::is_float);
                (key.as_str().into(), if known { as_float(free(item)) } else { free(item) })
            };
            Ok(Dynamic::from_map(entries.iter().map(convert).collect()))
        }
        _ => mismatch(),
    }
}

fn as_float(value: Dynamic) -> Dynamic {
    value.as_int().map_or(value, |number| (number as f64).into())
}

/// A JSON value as it is.
pub fn free(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => items.iter().map(free).collect::<Array>().into(),
        Value::Object(entries) => {
            Dynamic::from_map(entries.iter().map(|(key, item)| (key.as_str().into(), free(item))).collect())
        }
    }
}

/// A parameter's value for `run.json`; what JSON cannot say becomes text.
pub fn to_json(value: &Dynamic) -> Value {
    if value.is_unit() {
        return Value::Null;
    }
    if let Ok(value) = value.as_bool() {
        return value.into();
    }
    if let Ok(value) = value.as_int() {
        return value.into();
    }
    if let Ok(value) = value.as_float() {
        return serde_json::Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number);
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return text.as_str().into();
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(to_json).collect();
    }
    if let Some(entries) = value.read_lock::<Map>() {
        return Value::Object(entries.iter().map(|(key, item)| (key.to_string(), to_json(item))).collect());
    }
    value.to_string().into()
}

/// A default as a person would write it for `--set`.
pub(super) fn describe(value: &Dynamic) -> String {
    if value.is_unit() { "()".into() } else { to_json(value).to_string() }
}

/// The type of a default as scripts name it.
pub(super) fn type_name(value: &Dynamic) -> &'static str {
    match () {
        () if value.is_int() => "int",
        () if value.is_float() => "float",
        () if value.is_bool() => "bool",
        () if value.is_string() => "string",
        () if value.is_array() => "array",
        () if value.is_map() => "map",
        () => "value",
    }
}
