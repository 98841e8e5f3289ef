//! Definition files (`.d.rhai`) for editors with Rhai's language server: signatures and doc comments, nothing else.
//!
//! Rhai can write such files by itself, but with the types of Rust.

use std::collections::BTreeMap;

use super::pages::MARK;
use super::standard;
use super::std_modules::StdModule;
use super::subjects::{Kind, Subject};
use super::{Docs, Function, Reference, Role};

/// Text of each file by its path.
pub fn files(reference: &Reference, subjects: &[Subject], modules: &[StdModule]) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut file = |name: &str, module: &str, items: Vec<String>| {
        let text = format!("// {MARK}; edit the doc comments instead.\nmodule {module};\n\n{}\n", items.join("\n\n"));
        files.insert(format!("definitions/{name}.d.rhai"), text);
    };
    let mut globals = Vec::new();
    for subject in subjects {
        let functions = subject.groups.iter().flat_map(|group| &group.functions);
        let items: Vec<String> = functions.filter_map(|function| item(function, true)).collect();
        match subject.kind {
            Kind::Namespace => file(&subject.name, &subject.name, items),
            Kind::Type | Kind::Globals => globals.extend(items),
        }
    }
    file("__static__", "static", globals);
    let standard = reference.functions.iter().filter(|function| function.standard && standard::is_shown(function));
    file("__rhai__", "static", standard.filter_map(|function| item(function, false)).collect());
    for module in modules {
        let items = module.functions.iter().map(|function| {
            let params: Vec<String> = function.params.iter().map(|param| format!("{param}: ?")).collect();
            format!("{}fn {}({}) -> ?;", comment(&function.docs), function.name, params.join(", "))
        });
        file(&format!("std-{}", module.name), &format!("\"std/{}\"", module.name), items.collect());
    }
    files
}

/// One function; indexing has no form of its own.
fn item(function: &Function, with_docs: bool) -> Option<String> {
    let params = function.params.iter().map(|param| (param.name.as_str(), kind(&param.kind)));
    let named = |params: &mut dyn Iterator<Item = (&str, String)>| {
        params.map(|(name, kind)| format!("{name}: {kind}")).collect::<Vec<_>>().join(", ")
    };
    let call = match function.role {
        Role::Function => format!("fn {}({})", function.name, named(&mut params.into_iter())),
        Role::Getter => format!("fn get {}({})", function.name, named(&mut params.into_iter())),
        Role::Setter => format!("fn set {}({})", function.name, named(&mut params.into_iter())),
        Role::Operator => {
            let kinds: Vec<String> = params.map(|(_, kind)| kind).collect();
            format!("op {}({})", function.name, kinds.join(", "))
        }
        Role::IndexGetter | Role::IndexSetter => return None,
    };
    let returns = if function.returns_any { "?".to_owned() } else { result(&function.returns) };
    let docs = if with_docs { comment(&function.docs) } else { String::new() };
    Some(format!("{docs}{call} -> {returns};"))
}

fn comment(docs: &Docs) -> String {
    let mut lines: Vec<String> = docs.text.lines().map(|line| format!("/// {line}").trim_end().to_owned()).collect();
    if let Some(example) = &docs.example {
        lines.extend(["///".to_owned(), "/// ```rhai".to_owned()]);
        lines.extend(example.lines().map(|line| format!("/// {line}").trim_end().to_owned()));
        lines.push("/// ```".to_owned());
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn result(shown: &str) -> String {
    if shown.is_empty() { "()".to_owned() } else { kind(shown) }
}

/// A type as definition files write it: `int or [int]` is `int | [int]`.
fn kind(shown: &str) -> String {
    let one = |name: &str| match name {
        "number" => "int | float".to_owned(),
        "shape" => "int | [int]".to_owned(),
        "string" => "String".to_owned(),
        "array" => "Array".to_owned(),
        "map" => "Map".to_owned(),
        "blob" => "Blob".to_owned(),
        "function" => "FnPtr".to_owned(),
        "[string]" => "[String]".to_owned(),
        name if name.is_empty() || name.contains([' ', '<', '&', ':']) || name == "index" => "?".to_owned(),
        name => name.to_owned(),
    };
    match shown.contains("[int, int]") || shown.contains("nested") {
        true => "?".to_owned(),
        false => shown.split(" or ").flat_map(|part| part.split(", ")).map(one).collect::<Vec<_>>().join(" | "),
    }
}
