//! Rhai's errors in the words of the person who wrote the script, each with what would fix it where that can be told.

use std::any::type_name;
use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::rc::Rc;

use rhai::{Dynamic, Engine, EvalAltResult, INT, Map, ParseErrorType, Position};

use super::captures;
use super::errors::{Failure, Stop, in_words};
use super::reference::{Function, Reference, Role};
use super::resolver::Library;
use super::scan::{self, Open, Scan};
use super::signatures::{Call, Callable, got as got_in_words, judge, natives, readable_type, wanted as type_in_words};
use super::suggest::{did_you_mean, nearest};
use super::unset::{self, Meant};
use super::{slips, stdlib, syntax};

/// The error itself in words, with a hint where one can be found.
pub(super) fn explain(mut err: EvalAltResult, source: &str, library: &Library, engine: &Engine) -> Failure {
    let names = || declared_names(&library.text(source).unwrap_or_default());
    let script = |text: String| Failure::script(text);
    match &err {
        EvalAltResult::ErrorRuntime(value, _) => thrown(value, engine),
        EvalAltResult::ErrorTerminated(token, _) => match token.clone().try_cast::<Stop>() {
            Some(Stop::Failed(failure)) => failure,
            Some(Stop::Interrupted | Stop::Restart | Stop::CellEnded) | None => script("the script was stopped".into()),
        },
        EvalAltResult::ErrorFunctionNotFound(signature, position) => {
            unknown_function(signature, *position, source, library, engine)
        }
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            let words = words(&library.text(source).unwrap_or_default());
            with_near(script(format!("the map has no entry `{name}`")), name, &words)
        }
        EvalAltResult::ErrorDataRace(text, _) if text.contains("of function") => captures::explain(text),
        EvalAltResult::ErrorModuleNotFound(name, _) => {
            let text = library.text(source).unwrap_or_default();
            let hint = module_hint(name, &text, &module_names(engine, imported_names(&text)));
            Failure { hint, ..script(format!("unknown module: {name}")) }
        }
        EvalAltResult::ErrorFor(_) => script("`for` goes through a range, an array or steps".into())
            .with_hint("numbers from 0 to n - 1 are `0..n`; a map has keys() and values()"),
        EvalAltResult::ErrorStackOverflow(_) => {
            script(format!("functions call each other too deeply (limit {})", engine.max_call_levels()))
                .with_hint("a function that calls itself needs a case in which it does not")
        }
        // At a prompt, names inside of functions are first looked up when they are called.
        EvalAltResult::ErrorVariableNotFound(name, position)
        | EvalAltResult::ErrorParsing(ParseErrorType::VariableUndefined(name), position) => {
            let text = library.text(source).unwrap_or_default();
            let hint = if module_names(engine, imported_names(&text)).contains(name) {
                Some(format!("`{name}` holds functions, which are called as `{name}::…`"))
            } else if names().contains(name) && in_function(&text, *position) {
                Some(outside(name, text.contains(&format!("const {name} "))))
            } else {
                variable_hint(name, *position, &text, &names(), &Reference::of(engine))
            };
            Failure { hint, ..script(format!("unknown variable: {name}")) }
        }
        EvalAltResult::ErrorParsing(ParseErrorType::ModuleUndefined(name), _) => {
            let text = library.text(source).unwrap_or_default();
            let hint = module_hint(name, &text, &module_names(engine, imported_names(&text)));
            Failure { hint, ..script(format!("unknown module: {name}")) }
        }
        EvalAltResult::ErrorParsing(problem, position) => {
            syntax::explain(problem, *position, &library.text(source).unwrap_or_default()).0
        }
        EvalAltResult::ErrorMismatchDataType(wanted, got, _)
        | EvalAltResult::ErrorMismatchOutputType(wanted, got, _) => {
            let name = |kind: &str| readable_type(&readable_types(kind, engine), engine);
            let (wanted, got) = (name(wanted), name(got));
            let role = role_of(&library.text(source).unwrap_or_default(), err.position());
            let failure = script(format!("{role}expected {}, got {}", type_in_words(&wanted), got_in_words(&got)));
            match (wanted.as_str(), got.as_str()) {
                ("bool", "Tensor") => {
                    failure.with_hint("comparisons of tensors are elementwise: end with .all(), .any() or .item()")
                }
                ("bool", "int" | "float") => failure.with_hint("numbers are no conditions: compare, as in `x != 0`"),
                ("bool", _) => failure.with_hint("a condition is true or false: compare, as in `x == …`"),
                _ => failure,
            }
        }
        EvalAltResult::ErrorDotExpr(text, _) => match property(text) {
            Some((name, owner, set)) => unknown_property(name, owner, set, engine),
            None => script(text.clone()),
        },
        _ => {
            err.clear_position();
            script(readable_types(&err.to_string(), engine))
        }
    }
}

/// What an unknown variable was probably to be.
pub(super) fn variable_hint(
    name: &str,
    position: Position,
    text: &str,
    names: &[String],
    reference: &Reference,
) -> Option<String> {
    let near = || did_you_mean(name, names.iter().map(String::as_str));
    let Some((before, rest)) = scan::offset(text, position).and_then(|at| text.split_at_checked(at)) else {
        return near();
    };
    let from = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text[from..].lines().next().unwrap_or_default();
    if let Some(hint) = slips::variable(name, line, line.get(before.len() - from..).unwrap_or_default()) {
        return Some(hint);
    }
    match rest.strip_prefix(name).and_then(|behind| unset::meant(name, before, behind, reference)) {
        Some(Meant::Argument(hint)) => Some(hint),
        Some(Meant::Variable(hint)) => Some(near().map_or(hint.clone(), |near| format!("{near} If not, {hint}"))),
        None => near(),
    }
}

/// How a function comes by a name from outside of it.
pub(super) fn outside(name: &str, is_constant: bool) -> String {
    match is_constant {
        true => format!("functions see a constant of the script as `global::{name}`"),
        false => "functions see no variables from outside; hand them over as arguments".to_owned(),
    }
}

/// Whether `position` is inside of a function of the source.
fn in_function(text: &str, position: Position) -> bool {
    let Some(at) = scan::offset(text, position) else { return false };
    let scan = Scan::of(&text[..at]);
    scan.open.iter().any(|(open, from)| *open == Open::Curly && is_signature(&text[..*from]))
}

/// Whether a text ends with `fn name(…)`.
fn is_signature(text: &str) -> bool {
    let head = text.trim_end().strip_suffix(')').and_then(|text| text.rsplit_once('('));
    head.is_some_and(|(head, _)| head.split_whitespace().rev().nth(1) == Some("fn"))
}

/// What an unknown module was probably to be, or how it is brought in.
pub(super) fn module_hint(name: &str, text: &str, names: &[String]) -> Option<String> {
    let nameless = |line: &str| {
        let path =
            line.trim_start().strip_prefix("import \"")?.split_once('"').filter(|(_, rest)| !rest.contains(" as "))?.0;
        (path.rsplit('/').next() == Some(name))
            .then(|| format!("give the import its name: import \"{path}\" as {name};"))
    };
    if let Some(hint) = text.lines().find_map(nameless) {
        return Some(hint);
    }
    if stdlib::text(name).is_some() {
        return Some(format!("bring it in with: import \"std/{name}\" as {name};"));
    }
    slips::library(name).or_else(|| did_you_mean(name, names.iter().map(String::as_str)))
}

/// The names that a source gives to its imports.
fn imported_names(text: &str) -> Vec<String> {
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("import ")?.rsplit_once(" as "));
    named.filter_map(|(_, rest)| words(rest).into_iter().next()).collect()
}

/// The message of `throw value`.
fn thrown(value: &Dynamic, engine: &Engine) -> Failure {
    if let Some(failure) = value.clone().try_cast::<Failure>() {
        return failure;
    }
    // `throw #{ message: …, hint: … }`, or what `catch` makes of Rhai's own errors, thrown again.
    let entry = |name: &str| value.read_lock::<Map>().and_then(|map| map.get(name).map(ToString::to_string));
    let message = entry("message").unwrap_or_else(|| match value.is_string() {
        true => value.to_string(),
        false => in_words(engine, value),
    });
    let message = if message.is_empty() { "the script threw an error without a message".into() } else { message };
    Failure { hint: entry("hint").filter(|hint| !hint.is_empty()), ..Failure::script(message) }
}

fn with_near(failure: Failure, name: &str, names: &[String]) -> Failure {
    Failure { hint: did_you_mean(name, names.iter().map(String::as_str)).or(failure.hint), ..failure }
}

/// Rhai's text for a property that is missing, taken apart: its name, the type, and whether it was to be set.
fn property(text: &str) -> Option<(&str, &str, bool)> {
    let set = text.starts_with("No writable property '");
    let rest = text.strip_prefix("Unknown property '").or_else(|| text.strip_prefix("No writable property '"))?;
    let (name, rest) = rest.split_once('\'')?;
    let owner = rest.split_once("for type '")?.1.split('\'').next()?;
    Some((name, owner, set))
}

fn unknown_property(name: &str, owner: &str, set: bool, engine: &Engine) -> Failure {
    let reference = Reference::of(engine);
    let owner = readable_type(owner, engine);
    let owns = |function: &&Function| function.params.first().is_some_and(|first| first.kind == owner);
    let own: Vec<&Function> = reference.functions.iter().filter(owns).collect();
    let called = |role: Role| own.iter().filter(move |f| f.role == role).map(|f| f.name.as_str());
    if set && called(Role::Getter).any(|known| known == name) {
        return Failure::script(format!("{owner}: `{name}` can be read, but not set"));
    }
    let failure = Failure::script(format!("{owner} has no property `{name}`"));
    if called(Role::Function).any(|known| known == name) {
        return failure.with_hint(format!("it is a method: `x.{name}(…)`"));
    }
    let near = nearest(name, called(if set { Role::Setter } else { Role::Getter }))
        .map(|near| format!("did you mean `{near}`?"));
    let near = near.or_else(|| nearest(name, called(Role::Function)).map(|near| format!("did you mean `{near}(…)`?")));
    Failure { hint: near.or_else(|| slips::method(name)), ..failure }
}

/// `signature` is Rhai's, like `tensor::zeros (int, map)`.
fn unknown_function(signature: &str, position: Position, source: &str, library: &Library, engine: &Engine) -> Failure {
    let signature = readable_types(signature, engine);
    let (name, arguments) = signature.split_once(" (").unwrap_or((&signature, ""));
    let arguments = arguments.strip_suffix(')').unwrap_or(arguments);
    if rhai_names_closure(name) {
        let failure = Failure::script(format!("the function given cannot be called with ({arguments})"));
        return failure.with_hint("it takes another number of arguments: compare what stands between its bars");
    }
    let args: Vec<String> =
        arguments.split(", ").filter(|kind| !kind.is_empty()).map(|kind| readable_type(kind, engine)).collect();
    if !name.contains(char::is_alphanumeric) {
        let failure = Failure::script(match args.as_slice() {
            [a, b] => format!("cannot compute {a} {name} {b}"),
            args => format!("cannot compute {name}{}", args.join(", ")),
        });
        let nothing = args.iter().any(|kind| kind == "()");
        let hint = "`()` is nothing: a function returned no value, or a variable was never set";
        return if nothing { failure.with_hint(hint) } else { failure };
    }
    let text = library.text(source).unwrap_or_default();
    let reference = Reference::of(engine);
    let mut known = natives(&reference);
    known.extend(library.functions(source).into_iter().map(|(name, params)| Callable::scripted(name, params)));
    let method = is_method_call(&text, position);
    match judge(&Call { name, method, args: args.clone() }, &known.iter().collect::<Vec<_>>()) {
        Some(fault) if fault.code == "unknown-function" && declared_names(&text).iter().any(|own| own == name) => {
            fault.failure.with_hint(variable_called(name))
        }
        Some(fault) if fault.code == "unknown-function" => {
            let near = nearer_variable(name, &declared_names(&text), &known.iter().collect::<Vec<_>>());
            Failure { hint: near.or(fault.failure.hint), ..fault.failure }
        }
        Some(fault) => fault.with_property(name, args.first().map_or("", String::as_str), &reference).failure,
        // The name and the number are right: it is not to be called from outside.
        None if name.contains("::") => private(name),
        None => Failure::script(format!("wrong arguments: {name}({arguments})")),
    }
}

/// Why calling what a variable holds does not work like this.
pub(super) fn variable_called(name: &str) -> String {
    format!(
        "`{name}` is a variable; a function in it is called with `{name}.call(…)`, a model with `{name}.forward(…)`"
    )
}

/// A variable that is nearer to the `name` of an unknown function than any function is.
pub(super) fn nearer_variable(name: &str, variables: &[String], known: &[&Callable]) -> Option<String> {
    let functions = known.iter().map(|callable| callable.name.as_str()).filter(|known| !known.contains("::"));
    let near = nearest(name, functions.clone().chain(variables.iter().map(String::as_str)))?;
    if functions.clone().any(|known| known == near) {
        return None;
    }
    Some(format!("did you mean `{near}`? {}", variable_called(near)))
}

/// A call of a function that a module keeps for itself.
pub(super) fn private(name: &str) -> Failure {
    let last = name.rsplit("::").next().unwrap_or(name);
    Failure::script(format!("{name} is private to its module"))
        .with_hint(format!("leave out `private` before `fn {last}` to call it from elsewhere"))
}

/// Whether the name at `position` is called on a value.
pub(super) fn is_method_call(text: &str, position: Position) -> bool {
    let (Some(line), Some(column)) = (position.line(), position.position()) else { return false };
    let Some(line) = text.lines().nth(line - 1) else { return false };
    let before: String = line.chars().take(column - 1).collect();
    before.trim_end().ends_with('.')
}

/// Rhai's names for functions written as `|x| …`.
fn rhai_names_closure(name: &str) -> bool {
    name.starts_with("anon$")
}

/// What a value is for, where its place says it: the path of an import, an index.
fn role_of(text: &str, position: Position) -> &'static str {
    let line = position.line().and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
    let before: String = line.chars().take(position.position().unwrap_or(1).max(1) - 1).collect();
    match before.trim_end() {
        "import" => "import: ",
        before if before.ends_with('[') => "index: ",
        _ => "",
    }
}

/// Types in Rhai's messages as a script's author knows them.
pub(super) fn readable_types(text: &str, engine: &Engine) -> String {
    let text = text
        .replace("&str | ImmutableString | String", "string")
        .replace(type_name::<Rc<RefCell<Dynamic>>>(), "a value that a closure shares")
        .replace(type_name::<Range<INT>>(), "range")
        .replace(type_name::<RangeInclusive<INT>>(), "range=");
    let mut readable = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let end = rest.find(|c| !in_path(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(if end == 0 { rest.chars().next().map_or(1, char::len_utf8) } else { end });
        let is_type = matches!(word, "i64" | "f64") || word.starts_with(concat!(env!("CARGO_CRATE_NAME"), "::"));
        readable.push_str(match word.rsplit_once("::") {
            _ if is_type => engine.map_type_name(word),
            Some((path, own))
                if ["rhai", "core", "alloc", "std"].contains(&path.split("::").next().unwrap_or(path)) =>
            {
                own
            }
            _ => word,
        });
        rest = after;
    }
    readable
}

fn module_names(engine: &Engine, mut names: Vec<String>) -> Vec<String> {
    let spaces = engine.collect_fn_metadata(None, |info| Some(info.namespace.to_string()), false);
    names.extend(spaces.into_iter().filter(|name| !name.is_empty()));
    names
}

/// All identifiers of a source.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_')).map(str::to_owned).collect()
}

/// Identifiers that a source declares: variables, loop variables, parameters, imports.
fn declared_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines() {
        let words = words(line);
        for pair in words.windows(2) {
            if matches!(pair[0].as_str(), "let" | "const" | "for" | "as") {
                names.push(pair[1].clone());
            }
        }
        let parameters = line
            .split_once("fn ")
            .and_then(|(_, rest)| rest.split_once('('))
            .and_then(|(_, rest)| rest.split_once(')'));
        let closure = line.split_once('|').and_then(|(_, rest)| rest.split_once('|'));
        for (list, _) in [parameters, closure].into_iter().flatten() {
            names.extend(self::words(list));
        }
    }
    names
}
