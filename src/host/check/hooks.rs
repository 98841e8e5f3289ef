//! Functions that a run calls by itself: whether one was meant that is never called.

use super::finding::Severity;
use super::names::Walker;
use crate::host::errors::Failure;
use crate::host::suggest::nearest;

/// The hooks of a run, each with the run as its only argument.
pub const HOOKS: [&str; 3] = ["on_step", "on_epoch", "on_validation"];

impl Walker<'_> {
    /// Hooks are the script's own functions: in a module nothing calls them.
    pub fn check_hooks(&mut self) {
        let file = self.file;
        let is_script = file.key == self.project.library.store.script_key();
        for function in &file.functions {
            if self.used.contains(&function.name) {
                continue;
            }
            let (name, takes) = (function.name.as_str(), function.params.len());
            let (message, hint) = if HOOKS.contains(&name) {
                let has_hook = file.functions.iter().any(|other| other.name == name && other.params.len() == 1);
                if has_hook {
                    continue;
                }
                let hint = format!("write it as: fn {name}(run) {{ … }}");
                (format!("{name}: a run calls it with 1 argument, it takes {takes}"), hint)
            } else {
                // `on_steps` and `onstep`, but no function that only happens to be spelled alike.
                let begins = name.starts_with("on");
                let Some(near) = nearest(name, HOOKS).filter(|_| begins && takes < 2) else { continue };
                let hint = format!("a run calls `{near}(run)` by itself");
                (format!("nothing calls `{name}`"), hint)
            };
            if is_script {
                let failure = Failure::script(message).with_hint(hint);
                self.find(Severity::Warning, "hook", failure, function.place, Some(name));
            }
        }
    }
}
