//! Makes calls one after another and judges what comes out.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dbp_host::host::reference::Reference;
use dbp_host::host::{Diagnosis, Stop};
use rhai::{Dynamic, EvalAltResult};

use super::calls::{Call, Calls};
use super::dice::Dice;
use super::world::World;

/// The longest that one call may take.
const LONGEST: Duration = Duration::from_secs(20);
/// Results of calls that later calls find as variables.
const KEPT: usize = 16;
/// Longer messages tell nobody anything.
const LONGEST_MESSAGE: usize = 8100;

/// What messages for people do not hold.
const UGLY: [&str; 27] = [
    "dbp_host::",
    "alloc::",
    "core::",
    "std::",
    "rhai::",
    "tch::",
    "torch::",
    "c10::",
    " at::",
    "Handle",
    "INTERNAL ASSERT",
    "Exception raised",
    "internal error",
    "frame #",
    ".cpp",
    ".rs:",
    "panicked",
    "unwrap()",
    "already borrowed",
    "already mutably borrowed",
    "poisoned",
    "Err(",
    "Some(",
    "Dynamic",
    "FnPtr",
    "ImmutableString",
    "Captured",
];

/// Where a panic outside of the call's own thread, and the place of the last one, are noted.
#[derive(Default)]
pub struct Panics {
    place: Option<String>,
    elsewhere: Option<String>,
}

pub type SharedPanics = Arc<Mutex<Panics>>;

/// Keeps panics off the screen and notes them.
pub fn note_panics() -> SharedPanics {
    let panics = SharedPanics::default();
    let noted = Arc::clone(&panics);
    let own = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let text = format!("{info}").replace('\n', " ");
        let mut noted = noted.lock().unwrap();
        if thread.id() == own {
            noted.place = Some(text);
        } else {
            noted.elsewhere = Some(format!("thread {}: {text}", thread.name().unwrap_or("?")));
        }
    }));
    panics
}

/// Files through which the parent learns what happened, even if this process is ended by what it called.
pub struct Log {
    folder: PathBuf,
    last: File,
    since: Arc<Mutex<(Instant, String)>>,
}

impl Log {
    pub fn new(folder: &Path) -> Self {
        let last = File::create(folder.join("last.txt")).unwrap();
        let since = Arc::new(Mutex::new((Instant::now(), String::new())));
        let watched = Arc::clone(&since);
        let findings = folder.join("findings.txt");
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let (began, text) = watched.lock().unwrap().clone();
                if began.elapsed() > LONGEST && !text.is_empty() {
                    append(&findings, &format!("hang: {text}"));
                    std::process::abort();
                }
            }
        });
        Self { folder: folder.to_owned(), last, since }
    }

    /// Notes what is about to be done.
    pub fn begin(&mut self, text: &str) {
        *self.since.lock().unwrap() = (Instant::now(), text.to_owned());
        self.last.rewind().unwrap();
        self.last.set_len(0).unwrap();
        self.last.write_all(text.as_bytes()).unwrap();
    }

    pub fn end(&mut self) -> Duration {
        let mut since = self.since.lock().unwrap();
        since.1.clear();
        since.0.elapsed()
    }

    pub fn finding(&self, text: &str) {
        append(&self.folder.join("findings.txt"), &text.replace('\n', " ⏎ "));
    }
}

/// Adds a line to a file.
pub fn append(path: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Figures of a round.
#[derive(Default)]
pub struct Tally {
    pub calls: usize,
    pub successes: usize,
    pub called: BTreeSet<String>,
    pub succeeded: BTreeSet<String>,
    /// The slowest call, in milliseconds.
    pub slowest: (u128, String),
}

/// A round: a new world, and `count` calls in it.
pub fn round(folder: &Path, seed: u64, count: usize, log: &mut Log, panics: &SharedPanics) -> Tally {
    let mut tally = Tally::default();
    log.begin("the set-up");
    let mut world = match World::new(folder, seed) {
        Ok(world) => world,
        Err(problem) => {
            log.finding(&format!("set-up: {problem}"));
            return tally;
        }
    };
    log.end();
    let calls = Calls::new(Reference::of(&world.engine));
    let mut dice = Dice::new(seed);
    for number in 0..count {
        let call = calls.random(&mut dice, &world.by_kind);
        let name = call.function.map_or("(language)".to_owned(), |at| calls.functions[at].signature());
        let wrapped = wrap(&mut dice, &call);
        let text = format!("round {seed} call {number}: {wrapped}");
        log.begin(&text);
        world.session.reset_operations();
        let result = attempt(&mut world, &wrapped);
        tally.calls += 1;
        let took = log.end().as_millis();
        if took > tally.slowest.0 {
            tally.slowest = (took, text.clone());
        }
        tally.called.insert(name.clone());
        if let Some(elsewhere) = panics.lock().unwrap().elsewhere.take() {
            log.finding(&format!("panic elsewhere: {elsewhere} in {text}"));
        }
        let value = match result {
            Outcome::Value(value) => value,
            Outcome::Panic => {
                let place = panics.lock().unwrap().place.take().unwrap_or_default();
                log.finding(&format!("panic: {place} in {text}"));
                return tally; // What it left half done is no matter.
            }
            Outcome::Error(message) => {
                if let Some(problem) = problem_of(&message) {
                    log.finding(&format!("{problem}: {message} in {text}"));
                }
                continue;
            }
            Outcome::Stopped => break,
        };
        tally.successes += 1;
        tally.succeeded.insert(name);
        log.begin(&format!("{text}, shown"));
        world.session.reset_operations();
        world.scope.set_or_push("result", value.clone());
        world.listen();
        match attempt(&mut world, "{ debug(result); print(result); `${result}`.len() }") {
            Outcome::Panic => {
                let place = panics.lock().unwrap().place.take().unwrap_or_default();
                log.finding(&format!("panic when shown: {place} in {text}"));
                return tally;
            }
            Outcome::Value(shown) => {
                let length = shown.as_int().unwrap_or_default();
                let shown = world.printed.borrow().clone();
                if let Some(ugly) =
                    ["dbp_host::", "rhai::", "alloc::", "Handle"].iter().find(|part| shown.contains(*part))
                {
                    log.finding(&format!("shown with {ugly}: {shown} in {text}"));
                }
                if length < 100_000 {
                    let name = format!("r{}", dice.below(KEPT));
                    world.keep(&name, value);
                }
            }
            Outcome::Error(message) => {
                // Such as a text that is too long to be shown.
                if let Some(problem) = problem_of(&message) {
                    log.finding(&format!("{problem} when shown: {message} in {text}"));
                }
            }
            Outcome::Stopped => break,
        }
        log.end();
    }
    tally
}

/// The call as a statement of its own, in a `try`, or under a loop.
fn wrap(dice: &mut Dice, call: &Call) -> String {
    let text = &call.text;
    match dice.below(30) {
        0 => {
            format!("{{ let value = (); try {{ value = {{ {text} }}; }} catch (err) {{ value = `${{err}}`; }} value }}")
        }
        1 => format!("{{ let n = 0; for x in {{ {text} }} {{ print(x); n += 1; if n > 2 {{ break; }} }} n }}"),
        2 => format!("{{ let work = || {{ {text} }}; work.call() }}"),
        3 if dice.percent(50) => format!("for step in run.steps(run.step + 1) {{ {text} }}"),
        3 => format!("run.untimed(|r| {{ for step in r.steps(r.step + 1) {{ {text} }} }})"),
        4 if dice.percent(50) => format!("no_grad(|| {{ {text} }})"),
        4 => format!("for batch in loader.micro(run.step) {{ {text} }}"),
        _ => text.clone(),
    }
}

enum Outcome {
    Value(Dynamic),
    Error(String),
    /// The whole script would have ended.
    Stopped,
    Panic,
}

fn attempt(world: &mut World, text: &str) -> Outcome {
    let mut scope = world.scope.clone();
    let engine = std::rc::Rc::clone(&world.engine);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let ast = engine.compile_with_scope(&scope, text).map_err(|err| Box::new(EvalAltResult::from(err)))?;
        engine.eval_ast_with_scope::<Dynamic>(&mut scope, &ast)
    }));
    let Ok(result) = result else { return Outcome::Panic };
    let err = match result {
        Ok(value) => return Outcome::Value(value),
        Err(err) => err,
    };
    if let Some(Stop::Interrupted) = dbp_host::host::stop_of(&err) {
        return Outcome::Stopped;
    }
    let explained = catch_unwind(AssertUnwindSafe(|| {
        let diagnosis = Diagnosis::of(*err, &world.library, &engine);
        // All of it must be writable; what is judged is what we say ourselves.
        let _ = diagnosis.to_string();
        match diagnosis.hint {
            Some(hint) => format!("{} (hint: {hint})", diagnosis.message),
            None => diagnosis.message,
        }
    }));
    explained.map_or(Outcome::Panic, Outcome::Error)
}

fn problem_of(message: &str) -> Option<String> {
    if let Some(part) = UGLY.iter().find(|part| message.contains(*part)) {
        return Some(format!("ugly ({})", part.trim()));
    }
    let word = |word: &str| message.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word);
    if let Some(rust) = ["i64", "f64", "u64", "usize", "i32", "u32", "str", "isize"].iter().find(|name| word(name)) {
        return Some(format!("ugly ({rust})"));
    }
    let allocator = ["can't allocate memory", "DefaultCPUAllocator", "not enough memory"];
    if allocator.iter().any(|part| message.contains(part)) {
        return Some("refused by the allocator".to_owned());
    }
    if message.is_empty() {
        return Some("no message".to_owned());
    }
    (message.len() > LONGEST_MESSAGE).then(|| format!("long ({} bytes)", message.len()))
}
