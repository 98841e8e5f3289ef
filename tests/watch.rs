//! `dbp-host watch`, driven as editors drive it: every way of saving, while a run is on its way.
//!
//! The hook prints a letter and its step, so that what was in force at each step can be read off the output.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod common;

use common::{json, json_lines};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far beyond what anything here takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of tiny steps, slow enough to be edited.
const SCRIPT: &str = r#"
import "std/mae" as mae;
import "part" as part;
let recipe = mae::recipe("nano", #{
    image_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, decoder_embed_dim: 16, decoder_depth: 1,
    decoder_num_heads: 2, batch: 8, steps: 100000, warmup_steps: 1, every: 5, pictures: 1, energy: #{ source: "estimated" },
});
recipe.steps = part::steps();
let images = data::open(#{ name: "wirebond", size: 16, count: 64 });
let model = mae::build(recipe, images);
mae::pretrain(model, images, recipe);

fn on_step(run) { say("A", run.step); }
fn say(letter, step) { print(`${letter} ${step}`); sleep(0.02); }
"#;

struct Watch {
    child: Child,
    folder: tempfile::TempDir,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watch {
    fn start(script: &str, steps: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("exp.rhai"), script).unwrap();
        fs::write(folder.path().join("part.rhai"), part(steps)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
        command.current_dir(folder.path()).args(["watch", "exp.rhai", "--device", "cpu", "--threads", "1"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = lines_of(child.stdout.take().unwrap());
        let err = lines_of(child.stderr.take().unwrap());
        Self { child, folder, out, err }
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("exp.rhai")
    }

    fn out(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    fn err(&self) -> Vec<String> {
        self.err.lock().unwrap().clone()
    }

    /// Waits until a line of stdout is `what`, or begins with it and a space.
    fn until_said(&self, what: &str) {
        self.until(what, || self.out().iter().any(|line| line == what || line.starts_with(&format!("{what} "))));
    }

    /// Waits until a line of stderr contains `what`.
    fn until_told(&self, what: &str) {
        self.until(what, || self.err().iter().any(|line| line.contains(what)));
    }

    fn until(&self, what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "{what} never came:\n{:#?}\n{:#?}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn interrupt(mut self) -> (Option<i32>, Self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).unwrap();
        let code = self.child.wait().unwrap().code();
        for inside in ["panicked", "internal error"] {
            assert!(!self.err().iter().any(|line| line.contains(inside)), "{:#?}", self.err());
        }
        (code, self)
    }

    /// Run directories, oldest first.
    fn runs(&self) -> Vec<PathBuf> {
        let mut runs: Vec<PathBuf> =
            fs::read_dir(self.folder.path().join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        runs.sort_by_key(|run| json(&run.join("run.json"))["started"].as_str().unwrap().to_owned());
        runs
    }

    /// Letters and steps that the hook printed.
    fn steps(&self) -> Vec<(String, u64)> {
        let said = self.out();
        let words = said.iter().filter_map(|line| line.split_once(' '));
        words
            .filter(|(letter, _)| letter.len() == 1)
            .map(|(letter, step)| (letter.into(), step.parse().unwrap()))
            .collect()
    }
}

fn part(steps: &str) -> String {
    format!("fn steps() {{ {steps} }}")
}

fn lines_of(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let filled = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            filled.lock().unwrap().push(line);
        }
    });
    lines
}

fn with_letter(letter: &str) -> String {
    SCRIPT.replace("\"A\"", &format!("\"{letter}\""))
}

/// As vim and others do: a new file takes the old one's place.
fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("rhai.swp");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

#[test]
fn hooks_are_patched_into_the_run_however_they_are_saved() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    let script = watch.script();
    watch.until_said("A 3");

    // In place.
    fs::write(&script, with_letter("B")).unwrap();
    watch.until_said("B");
    // By a rename.
    replace(&script, &with_letter("C"));
    watch.until_said("C");
    // Several times at once: the last one counts.
    for letter in ["D", "E", "F", "G"] {
        fs::write(&script, with_letter(letter)).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    fs::write(&script, with_letter("H")).unwrap();
    watch.until_said("H");
    // A slip, then its correction.
    fs::write(&script, with_letter("I").replace("run.step);", "run.step;")).unwrap();
    watch.until_told("the run goes on with the version before");
    fs::write(&script, with_letter("J")).unwrap();
    watch.until_said("J");
    assert!(!watch.out().iter().any(|line| line.starts_with("I ")), "a version that does not compile never runs");
    // Deleted, and back.
    fs::remove_file(&script).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::write(&script, with_letter("K")).unwrap();
    watch.until_said("K");
    // What a hook calls, and a hook that is new.
    let more = with_letter("L") + "\nfn on_validation(run) { print(\"validated\"); }";
    fs::write(&script, &more).unwrap();
    watch.until_said("validated");
    // A comment changes nothing.
    fs::write(&script, format!("// about it\n\n{more}")).unwrap();
    std::thread::sleep(Duration::from_millis(200));

    let (code, watch) = watch.interrupt();
    assert_eq!(code, Some(130));
    let steps = watch.steps();
    for (at, (letter, step)) in steps.iter().enumerate() {
        assert_eq!(*step, at as u64 + 1, "at {letter}: a step is lost or repeated: {steps:?}");
    }
    // A patch says from which step on it is in force, and from there on it is.
    let run = &watch.runs()[..];
    assert_eq!(run.len(), 1, "one run from beginning to end");
    let record = json(&run[0].join("run.json"));
    assert_eq!(record["status"], "interrupted");
    let patches = record["patches"].as_array().unwrap();
    let mut letters: Vec<&str> = steps.iter().map(|(letter, _)| letter.as_str()).collect();
    letters.dedup();
    assert_eq!(letters.len(), patches.len() + 1, "{letters:?} {patches:#?}");
    for patch in patches {
        let step = patch["step"].as_u64().unwrap();
        let letter = |step: u64| &steps.iter().find(|(_, at)| *at == step).unwrap().0;
        assert_ne!(letter(step - 1), letter(step), "step {step}");
    }
    // What ran last is what resuming would run, and what ran before is kept.
    assert_eq!(fs::read_to_string(run[0].join("script.rhai")).unwrap(), more);
    assert_eq!(fs::read_to_string(run[0].join("revisions/1.rhai")).unwrap(), SCRIPT);
    assert_eq!(json(&run[0].join("checkpoints/last/state.json"))["step"], steps.last().unwrap().1);
}

#[test]
fn an_error_in_a_patched_hook_shows_the_saved_line() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    watch.until_said("A 2");
    let broken = format!("// one line more\n{}", SCRIPT.replace("sleep(0.02);", "sleep(0.02); throw \"so\";"));
    fs::write(watch.script(), &broken).unwrap();
    watch.until_told("error: so");
    watch.until_told("save it to run it again");
    let line = 1 + broken.lines().position(|line| line.contains("throw")).unwrap();
    let err = watch.err();
    assert!(err.iter().any(|text| text.contains(&format!("exp.rhai:{line}:"))), "{err:#?}");
    assert!(err.iter().any(|text| text.contains("throw \"so\"")), "{err:#?}");
    // The script failed: what is saved next is run, from its beginning.
    fs::write(watch.script(), with_letter("B")).unwrap();
    watch.until_said("B 1");
    let (code, watch) = watch.interrupt();
    assert_eq!(code, Some(130));
    assert_eq!(json(&watch.runs()[0].join("run.json"))["status"], "failed");
}

#[test]
fn other_edits_start_anew_and_are_compared() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    watch.until_said("A 7");
    // In an imported module.
    replace(&watch.folder.path().join("part.rhai"), &part("12"));
    watch.until_told("stopped at step");
    watch.until_told("save it to run it again");
    let runs = watch.runs();
    assert_eq!(runs.len(), 2);
    let (first, second) = (json(&runs[0].join("run.json")), json(&runs[1].join("run.json")));
    assert_eq!((first["status"].as_str(), second["status"].as_str()), (Some("interrupted"), Some("done")));
    assert_eq!(json(&runs[0].join("checkpoints/last/state.json"))["step"], first["step"]);
    assert_eq!(second["step"], 12);
    let steps: Vec<u64> =
        json_lines(&runs[1].join("metrics.jsonl")).iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps.first(), Some(&1));
    watch.until_told("changed in part.rhai");
    let err = watch.err();
    for line in ["  - fn steps() { 100000 }", "  + fn steps() { 12 }"] {
        assert!(err.iter().any(|told| told == line), "{line}: {err:#?}");
    }
    let row = |name: &str| err.iter().find(|line| line.starts_with(name)).cloned().unwrap_or_default();
    assert!(row("steps").contains(&format!("{}/100000", first["step"])), "{err:#?}");
    assert!(row("val_loss at step 5").ends_with('%') && row("training time").ends_with('%'), "{err:#?}");
    assert!(row("energy, Wh").ends_with('%'), "{err:#?}");
    // A comment is no reason to run again; a letter is.
    fs::write(watch.script(), format!("{SCRIPT}// the end\n")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(watch.runs().len(), 2);
    fs::write(watch.script(), with_letter("B")).unwrap();
    watch.until_said("B 12");
    watch.until("the third run's end", || {
        watch.err().iter().filter(|line| line.contains("save it to run")).count() == 2
    });
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(0), 3), "waiting is no work that could be lost");
}

#[test]
fn weights_and_step_are_carried_over_while_they_fit() {
    let watch = Watch::start(SCRIPT, "100000", &["--continue"]);
    watch.until_said("A 7");
    fs::write(watch.script(), with_letter("B").replace("warmup_steps: 1,", "warmup_steps: 2,")).unwrap();
    watch.until_said("B");
    let stopped = watch.steps().iter().rfind(|(letter, _)| letter == "A").unwrap().1;
    let first = watch.steps().iter().find(|(letter, _)| letter == "B").unwrap().1;
    assert_eq!(first, stopped + 1);
    let runs = watch.runs();
    let second = json(&runs[1].join("run.json"));
    assert_eq!(second["continued_from"]["step"], stopped);
    assert!(runs[0].ends_with(second["continued_from"]["run"].as_str().unwrap().trim_start_matches("runs/")));
    // A wider model has other weights.
    fs::write(watch.script(), with_letter("C").replace("embed_dim: 16, depth", "embed_dim: 32, depth")).unwrap();
    watch.until_said("C 1");
    watch.until_told("starting anew");
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(130), 3));
}
