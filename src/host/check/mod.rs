//! `dbp-host check SCRIPT`: what is wrong with a script, found without running it.
//!
//! The script and its imports are parsed, then every name and every call is held against what there is. Nothing of the user's
//! runs; recipes are asked for their settings' names, which are functions of the standard library.

use std::path::Path;
use std::rc::Rc;

use rhai::Engine;
use serde_json::{Value, json};

mod calls;
mod finding;
pub(super) mod hooks;
mod keys;
mod lookups;
pub(super) mod mixups;
mod names;
mod parameters;
mod project;

pub use finding::{Finding, Severity};
pub use parameters::Listed;

use super::errors::Failure;
use super::reference::Reference;
use super::say::{print_line, say};
use super::{Diagnosis, Options, Outcome, Session, engine, on_script_thread};
use calls::Known;
use names::Walker;
use project::{Project, Target};

/// What `check` found.
#[derive(Clone, Debug)]
pub struct Report {
    pub script: String,
    /// Ordered by file, as they are imported, and by place.
    pub findings: Vec<Finding>,
    pub parameters: Vec<Listed>,
    /// The files that belong to it, the script first.
    pub files: Vec<String>,
    imports: Vec<Value>,
}

impl Report {
    /// Whether the script may run.
    pub fn is_ok(&self) -> bool {
        self.count(Severity::Error) == 0
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub fn json(&self) -> Value {
        json!({
            "script": self.script,
            "ok": self.is_ok(),
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "parameters": self.parameters.iter().map(Listed::json).collect::<Vec<_>>(),
            "imports": self.imports,
        })
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut blocks: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        if !self.parameters.is_empty() {
            blocks.push(parameter_table(&self.parameters));
        }
        let counted = |severity: Severity| match self.count(severity) {
            0 => None,
            1 => Some(format!("1 {}", severity.word())),
            n => Some(format!("{n} {}s", severity.word())),
        };
        let counts: Vec<String> =
            [Severity::Error, Severity::Warning, Severity::Note].into_iter().filter_map(counted).collect();
        let verdict = if counts.is_empty() { "nothing found".to_owned() } else { counts.join(", ") };
        let files = match self.files.len() {
            0 | 1 => String::new(),
            n => format!(" and {} more files", n - 1).replace(" 1 more files", " 1 more file"),
        };
        blocks.push(format!("{}{files}: {verdict}", self.script));
        blocks.join("\n\n")
    }
}

fn parameter_table(parameters: &[Listed]) -> String {
    let widest = |text: fn(&Listed) -> &str| parameters.iter().map(|p| text(p).chars().count()).max().unwrap_or(0);
    let (name, default, kind) = (widest(|p| &p.name), widest(|p| &p.shown).min(40), widest(|p| p.kind));
    let lines = parameters
        .iter()
        .map(|p| format!("\n    {:name$} = {:default$}  {:kind$}  {}:{}", p.name, p.shown, p.kind, p.file, p.line));
    format!("parameters, for --set NAME=VALUE:{}", lines.collect::<String>())
}

/// Looks at the session's script. Needs the stack that running it would need.
pub fn inspect(session: &Rc<Session>, engine: &Engine) -> Report {
    let project = Project::load(session, engine);
    let known = Known::new(Reference::of(engine));
    let script = session.library.store.script_key();
    let mut findings = project.findings.clone();
    findings.extend(mixups::findings(&session.library, engine));
    // Modules of the program are the program's business, unless one is what is to be looked at.
    for file in project.files.iter().filter(|file| file.key == script || !file.is_std()) {
        let mut walker = Walker::new(&project, file, &known);
        walker.walk();
        walker.check_hooks();
        findings.extend(walker.findings);
    }
    let (parameters, wrong) = parameters::collect(&project, engine);
    findings.extend(wrong);
    let order: Vec<&str> = project.files.iter().map(|file| file.key.as_str()).collect();
    findings.sort_by_key(|finding| {
        let place = finding.diagnosis.place.as_ref();
        let file = place.and_then(|place| order.iter().position(|key| *key == place.key));
        (file.unwrap_or(order.len()), place.map_or((0, 0), |place| (place.line, place.column)), finding.severity)
    });
    findings.dedup_by(|a, b| a.is_same(b));
    let shown = |key: &str| session.library.store.shown(key);
    let imports = project.imports.iter().map(|import| {
        let mut entry = json!({ "path": import.path, "file": shown(&import.from), "line": import.line });
        if let Target::File(key) = &import.target {
            entry["resolved"] = json!(shown(key));
        }
        entry
    });
    Report {
        script: shown(script),
        findings,
        parameters,
        files: order.iter().map(|key| shown(key)).collect(),
        imports: imports.collect(),
    }
}

/// A session of the same script to look at it while it runs: what is compiled for that is not what runs. `None` if the script
/// cannot be had any more, which is then said elsewhere.
fn apart(session: &Session) -> Option<(Rc<Session>, Rc<Engine>)> {
    let own = Session::new(session.options.clone()).ok()?;
    let engine = engine::build_to_check(&own);
    Some((own, engine))
}

/// What would end the script as it lies on disk now, for a session that is running it.
pub fn errors(session: &Session) -> Vec<Finding> {
    let Some((own, engine)) = apart(session) else { return Vec::new() };
    let mut findings = inspect(&own, &engine).findings;
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

/// Runs `dbp-host check SCRIPT`. Returns the exit code.
pub fn check(script: &Path, as_json: bool) -> i32 {
    match report(script) {
        Ok(report) => {
            match as_json {
                true => print_line(&report.json().to_string()),
                false => print_line(&report.text()),
            }
            i32::from(!report.is_ok())
        }
        Err(outcome) => {
            if let Outcome::Failed(err) = &outcome {
                say(&err.to_string());
            }
            outcome.exit_code()
        }
    }
}

/// What there is to say about a script.
///
/// # Errors
/// If it cannot be read.
pub fn report(script: &Path) -> Result<Report, Outcome> {
    let options = Options::new(script);
    let mut report = None;
    let outcome = on_script_thread(|| match Session::new(options) {
        Ok(session) => {
            let engine = engine::build_to_check(&session);
            report = Some(inspect(&session, &engine));
            Outcome::Done
        }
        Err(err) => Outcome::Failed(Box::new(Diagnosis::from(err))),
    });
    match (report, outcome) {
        (Some(report), Outcome::Done) => Ok(report),
        (_, Outcome::Done) => Err(Failure::machine("check ended without a report").into()),
        (_, outcome) => Err(outcome),
    }
}
