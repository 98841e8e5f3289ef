//! Names and where they are seen: variables, imports, functions, walked as Rhai would look them up.
//!
//! A function sees its parameters, the imports above it, and constants as `global::NAME`; a closure sees what is around it too,
//! which Rhai hands over as parameters of its own. Calls are judged by [`super::calls`] on the way.

use std::collections::HashSet;

use rhai::{ASTFlags, Expr, FnCallExpr, FnPtr, Position, Stmt, StmtBlock};

use super::calls::Known;
use super::finding::{Finding, Severity};
use super::project::{File, Project, Target};
use crate::host::errors::Failure;
use crate::host::explain::{outside, variable_hint};

/// What a name stands for.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Variable,
    Constant,
    /// A parameter, a loop's variable, a caught error: they may go unused.
    Given,
    Import(Target),
}

#[derive(Clone, Debug)]
struct Name {
    name: String,
    place: Position,
    kind: Kind,
    /// The type of what it holds; empty if that is not plain to see.
    holds: String,
    read: bool,
    assigned: bool,
}

/// What stops looking for a variable further out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wall {
    None,
    Closure,
    Function,
}

struct Frame {
    names: Vec<Name>,
    wall: Wall,
}

/// Goes through one file.
pub struct Walker<'a> {
    pub project: &'a Project<'a>,
    pub file: &'a File,
    pub known: &'a Known,
    pub findings: Vec<Finding>,
    frames: Vec<Frame>,
    /// Functions of the file that something calls or names.
    pub used: HashSet<String>,
    /// Where the body begins of the function that is being looked at.
    function: Option<Position>,
}

impl<'a> Walker<'a> {
    pub fn new(project: &'a Project<'a>, file: &'a File, known: &'a Known) -> Self {
        let (findings, frames, used) = (Vec::new(), Vec::new(), HashSet::new());
        Self { project, file, known, findings, frames, used, function: None }
    }

    /// The whole file: its statements, then its functions.
    pub fn walk(&mut self) {
        let file = self.file;
        self.enter(Wall::None);
        file.statements().iter().for_each(|stmt| self.statement(stmt));
        for function in &file.functions {
            self.function = Some(function.body);
            self.enter(Wall::Function);
            function.params.iter().for_each(|name| self.declare(name, Position::NONE, Kind::Given));
            if let Some(body) = file.bodies.get(&(function.name.clone(), function.params.len())) {
                body.iter().for_each(|stmt| self.statement(stmt));
            }
            self.leave();
        }
        self.function = None;
        let top = self.frames.last_mut().map(|frame| frame.names.iter_mut());
        for name in top.into_iter().flatten() {
            name.read |= file.exports.contains(&name.name);
        }
        self.leave();
        for function in file.functions.iter().filter(|f| f.private && !is_exempt(&f.name)) {
            if !self.used.contains(&function.name) {
                let what = Failure::script(format!("nothing calls the private function `{}`", function.name));
                self.find(Severity::Warning, "unused-function", what, function.place, Some(&function.name));
            }
        }
    }

    pub fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        failure: Failure,
        place: Position,
        name: Option<&str>,
    ) {
        let place = (self.project.library, self.file.key.as_str(), place);
        self.findings.push(Finding::new((severity, code), failure, place, name));
    }

    pub fn error(&mut self, code: &'static str, failure: Failure, place: Position, name: Option<&str>) {
        self.find(Severity::Error, code, failure, place, name);
    }

    fn enter(&mut self, wall: Wall) {
        self.frames.push(Frame { names: Vec::new(), wall });
    }

    /// Ends a scope; what was declared in it and never read is said.
    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        for name in frame.names.into_iter().filter(|name| !name.read && !is_exempt(&name.name)) {
            let (code, what) = match name.kind {
                Kind::Given | Kind::Import(Target::Unknown) => continue,
                Kind::Import(_) => ("unused-import", format!("nothing uses the import `{}`", name.name)),
                Kind::Constant => ("unused-variable", format!("nothing reads the constant `{}`", name.name)),
                Kind::Variable if name.assigned => {
                    ("unused-variable", format!("the variable `{}` is set, but nothing reads it", name.name))
                }
                Kind::Variable => ("unused-variable", format!("nothing reads the variable `{}`", name.name)),
            };
            let hint = match name.kind {
                Kind::Import(_) => "leave it out, or only its `as …` if it is there for what it does".to_owned(),
                _ => format!("leave it out, or call it `_{}`", name.name),
            };
            self.find(Severity::Warning, code, Failure::script(what).with_hint(hint), name.place, Some(&name.name));
        }
    }

    fn declare(&mut self, name: &str, place: Position, kind: Kind) {
        let name = Name { name: name.to_owned(), place, kind, holds: String::new(), read: false, assigned: false };
        if let Some(frame) = self.frames.last_mut() {
            frame.names.push(name);
        }
    }

    /// The variable that `name` is here.
    fn variable(&mut self, name: &str) -> Option<&mut Name> {
        let mut wall = false;
        for frame in self.frames.iter_mut().rev() {
            if wall {
                return None;
            }
            let found =
                frame.names.iter_mut().rev().find(|own| own.name == name && !matches!(own.kind, Kind::Import(_)));
            if found.is_some() {
                return found;
            }
            wall = frame.wall != Wall::None;
        }
        None
    }

    /// Whether something further out is called `name`, though it is not seen here.
    fn is_hidden_variable(&self, name: &str) -> bool {
        let is_it = |own: &&Name| own.name == name && !matches!(own.kind, Kind::Import(_));
        self.frames.iter().any(|frame| frame.names.iter().any(|own| is_it(&own)))
    }

    /// What the module `name` is here, if an import brought it.
    pub fn import(&mut self, name: &str) -> Option<Target> {
        let function = self.function;
        let outermost = 0;
        let mut wall = false;
        for (at, frame) in self.frames.iter_mut().enumerate().rev() {
            let wall_here = frame.wall == Wall::Function;
            if !wall || at == outermost {
                let seen = |own: &&mut Name| {
                    let above = function.is_none_or(|body| at != outermost || own.place < body);
                    own.name == name && matches!(own.kind, Kind::Import(_)) && above
                };
                if let Some(own) = frame.names.iter_mut().rev().find(seen) {
                    own.read = true;
                    let Kind::Import(target) = &own.kind else { continue };
                    return Some(target.clone());
                }
            }
            wall |= wall_here;
        }
        None
    }

    /// Whether `name` is imported below the function that is being looked at.
    pub fn is_imported_below(&self, name: &str) -> bool {
        let top = self.frames.first().filter(|_| self.function.is_some());
        top.is_some_and(|frame| frame.names.iter().any(|own| own.name == name && matches!(own.kind, Kind::Import(_))))
    }

    /// The type of an expression; empty if it is not plain to see.
    pub fn kind_of(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Variable(variable, ..)
                if variable.2.is_empty() && !self.project.assigned.contains(variable.1.as_str()) =>
            {
                self.variable(&variable.1).map(|own| own.holds.clone()).unwrap_or_default()
            }
            Expr::Dot(pair, ..) => match &pair.rhs {
                Expr::MethodCall(call, _) if !self.kind_of(&pair.lhs).is_empty() => {
                    self.known.returned(&call.name, call.args.len() + 1)
                }
                _ => String::new(),
            },
            expr => self.known.kind_of(expr),
        }
    }

    pub fn is_variable(&mut self, name: &str) -> bool {
        self.variable(name).is_some()
    }

    /// The source of the file.
    pub fn text(&self) -> String {
        self.project.library.text(&self.file.key).unwrap_or_default()
    }

    /// Names of variables and modules that can be seen here.
    pub fn visible(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut wall = false;
        for (at, frame) in self.frames.iter().enumerate().rev() {
            let seen = |own: &&Name| !wall || (at == 0 && matches!(own.kind, Kind::Import(_)));
            names.extend(frame.names.iter().filter(seen).map(|own| own.name.clone()));
            wall |= frame.wall == Wall::Function;
        }
        names
    }

    /// Names of variables alone.
    pub fn variables(&self) -> Vec<String> {
        let is_import = |name: &String| {
            self.frames
                .iter()
                .flat_map(|frame| &frame.names)
                .any(|own| own.name == *name && matches!(own.kind, Kind::Import(_)))
        };
        self.visible().into_iter().filter(|name| !is_import(name)).collect()
    }

    /// Marks a constant of the file's top level, which `global::` reads.
    pub fn read_global(&mut self, name: &str) -> bool {
        let top = self.frames.first_mut().into_iter().flat_map(|frame| frame.names.iter_mut());
        let mut known = false;
        for own in top.filter(|own| own.name == name && own.kind == Kind::Constant) {
            own.read = true;
            known = true;
        }
        known
    }

    fn block(&mut self, block: &StmtBlock) {
        self.enter(Wall::None);
        block.iter().for_each(|stmt| self.statement(stmt));
        self.leave();
    }

    fn statement(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::If(flow, _) => {
                self.expression(&flow.expr);
                self.block(&flow.body);
                self.block(&flow.branch);
            }
            Stmt::While(flow, _) | Stmt::Do(flow, ..) => {
                self.expression(&flow.expr);
                self.block(&flow.body);
            }
            Stmt::Switch(switch, _) => {
                let (value, cases) = &**switch;
                self.expression(value);
                for case in &cases.expressions {
                    self.expression(&case.lhs);
                    self.expression(&case.rhs);
                }
            }
            Stmt::For(parts, _) => {
                let (name, counter, flow) = &**parts;
                self.expression(&flow.expr);
                self.enter(Wall::None);
                self.declare(name.as_str(), name.pos, Kind::Given);
                if let Some(counter) = counter {
                    self.declare(counter.as_str(), counter.pos, Kind::Given);
                }
                self.block(&flow.body);
                self.leave();
            }
            Stmt::Var(var, flags, _) => {
                let (name, value, _) = &**var;
                self.expression(value);
                let kind = if flags.contains(ASTFlags::CONSTANT) { Kind::Constant } else { Kind::Variable };
                let holds = self.kind_of(value);
                self.declare(name.as_str(), name.pos, kind);
                if let Some(own) = self.frames.last_mut().and_then(|frame| frame.names.last_mut()) {
                    own.holds = holds;
                }
            }
            Stmt::Assignment(assignment) => {
                self.expression(&assignment.1.rhs);
                match &assignment.1.lhs {
                    Expr::Variable(variable, _, place) if variable.2.is_empty() => match self.variable(&variable.1) {
                        Some(own) => own.assigned = true,
                        None => self.unknown_variable(&variable.1, *place),
                    },
                    target => self.expression(target),
                }
            }
            Stmt::FnCall(call, place) => self.call(call, *place),
            Stmt::Block(block) => self.block(block),
            Stmt::TryCatch(flow, _) => {
                self.block(&flow.body);
                self.enter(Wall::None);
                if let Expr::Variable(caught, _, place) = &flow.expr {
                    self.declare(&caught.1, *place, Kind::Given);
                }
                self.block(&flow.branch);
                self.leave();
            }
            Stmt::Expr(expr) => self.expression(expr),
            Stmt::BreakLoop(Some(expr), ..) | Stmt::Return(Some(expr), ..) => self.expression(expr),
            Stmt::Import(import, _) => {
                let (path, name) = &**import;
                self.expression(path);
                if !name.is_empty() {
                    let target = self.file.targets.get(&path.position()).cloned().unwrap_or(Target::Unknown);
                    self.declare(name.as_str(), name.pos, Kind::Import(target));
                }
            }
            Stmt::Export(export, _) => self.read(export.0.as_str(), export.0.pos),
            Stmt::Share(captured) => captured.iter().for_each(|(name, _)| self.read(name.as_str(), name.pos)),
            _ => {}
        }
    }

    pub fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::DynamicConstant(value, _) => {
                if let Some(pointer) = value.read_lock::<FnPtr>() {
                    self.closure(pointer.fn_name());
                }
            }
            Expr::InterpolatedString(parts, _) | Expr::Array(parts, _) => {
                parts.iter().for_each(|part| self.expression(part));
            }
            Expr::Map(map, _) => map.0.iter().for_each(|(_, value)| self.expression(value)),
            Expr::Variable(variable, _, place) => match variable.2.is_empty() {
                true => self.read(&variable.1, *place),
                false => self.qualified_variable(&variable.2, &variable.1, *place),
            },
            Expr::Stmt(block) => self.block(block),
            Expr::FnCall(call, place) => self.call(call, *place),
            Expr::MethodCall(call, place) => self.method(call, *place, ""),
            Expr::Dot(pair, ..) => {
                self.expression(&pair.lhs);
                let kind = self.kind_of(&pair.lhs);
                self.chain(&pair.rhs, &kind);
            }
            Expr::Index(pair, flags, _) => {
                self.expression(&pair.lhs);
                self.index(&pair.rhs, *flags);
            }
            Expr::And(parts, _) | Expr::Or(parts, _) | Expr::Coalesce(parts, _) => {
                parts.iter().for_each(|part| self.expression(part));
            }
            Expr::Custom(custom, _) => custom.inputs.iter().for_each(|part| self.expression(part)),
            _ => {}
        }
    }

    /// What follows a dot behind a value of type `kind`.
    fn chain(&mut self, expr: &Expr, kind: &str) {
        match expr {
            Expr::MethodCall(call, place) => self.method(call, *place, kind),
            Expr::Dot(pair, ..) => {
                self.chain(&pair.lhs, kind);
                let next = match &pair.lhs {
                    Expr::MethodCall(call, _) => self.known.returned(&call.name, call.args.len() + 1),
                    _ => String::new(),
                };
                self.chain(&pair.rhs, &next);
            }
            Expr::Index(pair, flags, _) => {
                self.chain(&pair.lhs, kind);
                self.index(&pair.rhs, *flags);
            }
            other => self.expression(other),
        }
    }

    /// An index and, where the chain goes on, what follows it: `x[i].f()` is x indexed by "i, then f".
    fn index(&mut self, expr: &Expr, flags: ASTFlags) {
        match expr {
            Expr::Dot(pair, ..) if !flags.contains(ASTFlags::BREAK) => {
                self.expression(&pair.lhs);
                self.chain(&pair.rhs, "");
            }
            Expr::Index(pair, inner, _) if !flags.contains(ASTFlags::BREAK) => {
                self.expression(&pair.lhs);
                self.index(&pair.rhs, *inner);
            }
            expr => self.expression(expr),
        }
    }

    fn closure(&mut self, name: &str) {
        let file = self.file;
        let Some(closure) = file.ast.iter_fn_def().find(|function| function.name == name) else {
            self.used.insert(name.to_owned()); // `Fn("name")`.
            return;
        };
        self.enter(Wall::Closure);
        closure.params.iter().for_each(|param| self.declare(param, Position::NONE, Kind::Given));
        if let Some(body) = file.bodies.get(&(name.to_owned(), closure.params.len())) {
            body.iter().for_each(|stmt| self.statement(stmt));
        }
        self.leave();
    }

    /// A variable is read, or a function is named.
    fn read(&mut self, name: &str, place: Position) {
        if let Some(own) = self.variable(name) {
            own.read = true;
            return;
        }
        let named = self.file.functions.iter().any(|function| function.name == name && function.body < place);
        if !named {
            return self.unknown_variable(name, place);
        }
        self.used.insert(name.to_owned());
        if self.frames.iter().any(|frame| frame.wall == Wall::Closure) && self.is_hidden_variable(name) {
            let what = format!("in a closure, `{name}` is the function of that name, and not the variable");
            let failure = Failure::script(what).with_hint("give one of the two another name");
            self.find(Severity::Warning, "function-for-variable", failure, place, Some(name));
        }
    }

    fn unknown_variable(&mut self, name: &str, place: Position) {
        let failure = Failure::script(format!("unknown variable: {name}"));
        let visible = self.visible();
        let hint = if self.known.has_namespace(name) || self.import(name).is_some() {
            Some(format!("`{name}` holds functions, which are called as `{name}::…`"))
        } else if self.function.is_some() && self.is_hidden_variable(name) {
            // It was meant to be read.
            let is_constant = self.read_global(name);
            Some(outside(name, is_constant))
        } else {
            variable_hint(name, place, &self.text(), &visible, &self.known.reference)
        };
        self.error("unknown-variable", Failure { hint, ..failure }, place, Some(name));
    }

    fn call(&mut self, call: &FnCallExpr, place: Position) {
        call.args.iter().for_each(|argument| self.expression(argument));
        self.judge_call(call, place);
    }

    fn method(&mut self, call: &FnCallExpr, place: Position, kind: &str) {
        call.args.iter().for_each(|argument| self.expression(argument));
        self.judge_method(call, place, kind);
    }
}

/// Whether a name says by itself that it may go unused.
fn is_exempt(name: &str) -> bool {
    name.starts_with('_')
}
