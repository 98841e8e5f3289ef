//! Functions that a run calls by itself: whether one was meant that is never called. A run says so too, because it would be
//! missed only when all is over.

use std::rc::Rc;

use rhai::AST;

use super::calls::Known;
use super::finding::{Finding, Severity};
use super::names::Walker;
use super::project::Project;
use crate::host::errors::Failure;
use crate::host::reference::Reference;
use crate::host::say::say;
use crate::host::session::Session;
use crate::host::suggest::nearest;

/// The hooks of a run, each with the run as its only argument.
pub const HOOKS: [&str; 3] = ["on_step", "on_epoch", "on_validation"];

/// The code of what is found here.
const CODE: &str = "hook";

/// Says which functions of the script that is about to run look like hooks, and are none. `script` is what it was compiled to.
pub fn warn(session: &Session, script: &AST) {
    let functions: Vec<(&str, usize)> = script.iter_functions().map(|f| (f.name, f.params.len())).collect();
    if !functions.iter().any(|function| mistaken(*function, &functions).is_some()) {
        return;
    }
    // Whether something of the script calls it by itself takes the whole look.
    let Some((own, engine)) = super::apart(session) else { return };
    for finding in of_script(&own, &engine) {
        say(&finding.to_string());
    }
}

fn of_script(session: &Rc<Session>, engine: &rhai::Engine) -> Vec<Finding> {
    let project = Project::load(session, engine);
    let known = Known::new(Reference::of(engine));
    let Some(file) = project.file(session.library.store.script_key()) else { return Vec::new() };
    let mut walker = Walker::new(&project, file, &known);
    walker.walk();
    walker.check_hooks();
    walker.findings.retain(|finding| finding.code == CODE);
    walker.findings
}

/// Why a function, by name and number of parameters, is a hook that nothing calls, with what would fix it; `all` are the script's.
fn mistaken((name, takes): (&str, usize), all: &[(&str, usize)]) -> Option<(String, String)> {
    if HOOKS.contains(&name) {
        let hint = format!("write it as: fn {name}(run) {{ … }}");
        return (!all.contains(&(name, 1)))
            .then(|| (format!("{name}: a run calls it with 1 argument, it takes {takes}"), hint));
    }
    // `on_steps` and `onstep`, but no function that only happens to be spelled alike.
    let near = nearest(name, HOOKS).filter(|_| name.starts_with("on") && takes < 2)?;
    Some((format!("nothing calls `{name}`"), format!("a run calls `{near}(run)` by itself")))
}

impl Walker<'_> {
    /// Hooks are the script's own functions: in a module nothing calls them.
    pub fn check_hooks(&mut self) {
        let file = self.file;
        if file.key != self.project.library.store.script_key() {
            return;
        }
        let all: Vec<(&str, usize)> = file.functions.iter().map(|f| (f.name.as_str(), f.params.len())).collect();
        for (function, signature) in file.functions.iter().zip(&all) {
            if self.used.contains(&function.name) {
                continue;
            }
            if let Some((message, hint)) = mistaken(*signature, &all) {
                let failure = Failure::script(message).with_hint(hint);
                self.find(Severity::Warning, CODE, failure, function.place, Some(&function.name));
            }
        }
    }
}
