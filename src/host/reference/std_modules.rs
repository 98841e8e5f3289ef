//! The modules inside the binary, read for their documentation: `import "std/mae"`.

use rhai::{Engine, FnAccess};

use super::Docs;
use crate::host::comments::neutralize;
use crate::host::errors::Failure;
use crate::host::stdlib;

pub struct StdModule {
    /// `mae` of `std/mae`.
    pub name: &'static str,
    /// The comment that the file begins with, as Markdown.
    pub header: String,
    /// What scripts can call, by name and number of parameters.
    pub functions: Vec<StdFunction>,
}

pub struct StdFunction {
    pub name: String,
    pub params: Vec<String>,
    pub docs: Docs,
}

impl StdFunction {
    /// `recipe(size)`.
    pub fn signature(&self) -> String {
        format!("{}({})", self.name, self.params.join(", "))
    }
}

/// All of them, by name.
///
/// Errors: a module that does not parse, which is a slip of ours.
pub fn all(engine: &Engine) -> Result<Vec<StdModule>, Failure> {
    let mut modules: Vec<&(&str, &str)> = stdlib::MODULES.iter().collect();
    modules.sort();
    modules.into_iter().map(|(name, text)| read(engine, name, text)).collect()
}

fn read(engine: &Engine, name: &'static str, text: &str) -> Result<StdModule, Failure> {
    let ast = engine.compile(neutralize(text)).map_err(|err| Failure::machine(format!("std/{name}: {err}")))?;
    let public = ast.iter_functions().filter(|function| function.access == FnAccess::Public);
    let mut functions: Vec<StdFunction> = public
        .filter(|function| !function.name.starts_with("anon$"))
        .map(|function| StdFunction {
            name: function.name.to_owned(),
            params: function.params.iter().map(|param| (*param).to_owned()).collect(),
            docs: Docs::parse(function.comments.iter().copied()),
        })
        .collect();
    functions.sort_by_key(|function| (function.name.clone(), function.params.len()));
    Ok(StdModule { name, header: header(text), functions })
}

/// The comment at the top, up to the first line that is none.
fn header(text: &str) -> String {
    let comment = text.lines().map_while(|line| line.strip_prefix("//"));
    let plain =
        comment.map(|line| line.trim_start_matches(['!', '/'])).map(|line| line.strip_prefix(' ').unwrap_or(line));
    plain.collect::<Vec<_>>().join("\n").trim().to_owned()
}
