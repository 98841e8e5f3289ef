//! The parameters of a script, `arg("name", default)`, and where they stand.

use rhai::{ASTNode, Engine, EvalAltResult, Expr, OptimizationLevel, Position, Scope, Stmt};
use serde_json::{Map, Value, json};

use super::finding::{Finding, Severity};
use super::project::Project;
use crate::host::args::{Found, add, describe, parameter, to_json, type_name};
use crate::host::diagnosis::Diagnosis;

/// A parameter of the script or of a module of it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub name: String,
    /// `None` if it is computed.
    pub default: Option<Value>,
    /// As a person would write the default.
    pub shown: String,
    /// As scripts name the type; `any` where the default does not say it.
    pub kind: &'static str,
    /// The file as messages name it.
    pub file: String,
    pub line: usize,
}

impl Listed {
    fn new(found: Found, (file, line): (String, usize)) -> Self {
        let Found { name, default } = found;
        let kind = default.as_ref().filter(|default| !default.is_unit()).map_or("any", type_name);
        let shown = default.as_ref().map_or("computed".into(), describe);
        Self { name, default: default.as_ref().map(to_json), shown, kind, file, line }
    }

    pub fn json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("name".into(), json!(self.name));
        if let Some(default) = &self.default {
            fields.insert("default".into(), default.clone());
        }
        fields.insert("type".into(), json!(self.kind));
        fields.insert("file".into(), json!(self.file));
        fields.insert("line".into(), json!(self.line));
        Value::Object(fields)
    }
}

/// All parameters in the order in which they are found, and what is wrong with them.
pub fn collect(project: &Project, engine: &Engine) -> (Vec<Listed>, Vec<Finding>) {
    let (mut found, mut places, mut findings) = (Vec::new(), Vec::new(), Vec::new());
    for file in &project.files {
        // As a run has it: `64 * 4` is a constant, and code that can never run has no parameters.
        let ast = engine.optimize_ast(&Scope::new(), (*file.ast).clone(), OptimizationLevel::Simple);
        let mut calls = Vec::new();
        ast.walk(&mut |nodes: &[ASTNode]| {
            if let Some(ASTNode::Expr(Expr::FnCall(call, place)) | ASTNode::Stmt(Stmt::FnCall(call, place))) =
                nodes.last()
            {
                calls.push((*place, parameter(call, *place)));
            }
            true
        });
        // Functions come in the order of their hashes.
        calls.sort_by_key(|(place, _)| *place);
        for (place, call) in calls {
            let known = found.len();
            let result = call.and_then(|new| new.map_or(Ok(()), |new| add(&mut found, new, place)));
            if found.len() > known {
                places.push((project.library.store.shown(&file.key), place.line().unwrap_or(0)));
            }
            if let Err(err) = result {
                let err = EvalAltResult::ErrorInModule(file.key.clone(), err, Position::NONE);
                let diagnosis = Diagnosis::of(err, project.library, engine);
                findings.push(Finding { severity: Severity::Error, code: "parameter", diagnosis, end_column: None });
            }
        }
    }
    (found.into_iter().zip(places).map(|(found, place)| Listed::new(found, place)).collect(), findings)
}
