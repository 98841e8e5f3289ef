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
use safetensors::SafeTensors;

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
        Self::start_with(script, &[("part.rhai", &part(steps))], flags)
    }

    fn start_with(script: &str, modules: &[(&str, &str)], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("exp.rhai"), script).unwrap();
        for (name, text) in modules {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
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

    /// Run directories, oldest first; of several runs of one script their parent.
    fn runs(&self) -> Vec<PathBuf> {
        let mut runs: Vec<PathBuf> =
            fs::read_dir(self.folder.path().join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let record =
            |run: &Path| ["index.json", "run.json"].map(|name| run.join(name)).into_iter().find(|path| path.exists());
        runs.retain(|run| record(run).is_some());
        runs.sort_by_key(|run| json(&record(run).unwrap())["started"].as_str().unwrap().to_owned());
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
    // Slips that only `check` sees, in a hook and where another edit would start anew.
    fs::write(&script, with_letter("Q").replace("print(`", "prind(`")).unwrap();
    watch.until_told("unknown function: prind");
    fs::write(&script, with_letter("J").replace("mae::build(", "mae::biuld(")).unwrap();
    watch.until_told("unknown function: mae::biuld");
    watch.until("both refusals", || watch.err().iter().filter(|line| line.contains("the run goes on")).count() == 3);
    fs::write(&script, with_letter("J")).unwrap();
    watch.until_told("no errors any more");
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
fn a_patched_hook_that_fails_gives_way_to_the_one_before() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    watch.until_said("A 2");
    fs::write(watch.script(), with_letter("B")).unwrap();
    watch.until_said("B");
    let broken = format!("// one line more\n{}", with_letter("C").replace("sleep(0.02);", "throw \"so\";"));
    fs::write(watch.script(), &broken).unwrap();
    watch.until_told("the version before is back");
    let line = 1 + broken.lines().position(|line| line.contains("throw")).unwrap();
    let err = watch.err();
    assert!(err.iter().any(|text| text.contains("error: so")), "{err:#?}");
    assert!(err.iter().any(|text| text.contains(&format!("exp.rhai:{line}:"))), "{err:#?}");
    assert!(err.iter().any(|text| text.contains("throw \"so\"")), "{err:#?}");
    // The hook of the failed version was called once; then that of the one before is.
    let failed = watch.steps().iter().find(|(letter, _)| letter == "C").unwrap().1;
    watch.until_said(&format!("B {}", failed + 1));
    // Undoing the slip is no news; its correction is.
    fs::write(watch.script(), with_letter("B")).unwrap();
    fs::write(watch.script(), with_letter("D")).unwrap();
    watch.until_said("D");
    let (code, watch) = watch.interrupt();
    assert_eq!(code, Some(130));
    let steps = watch.steps();
    assert!(steps.iter().enumerate().all(|(at, (_, step))| *step == at as u64 + 1), "{steps:?}");
    assert_eq!(steps.iter().filter(|(letter, _)| letter == "C").count(), 1);
    let runs = watch.runs();
    assert_eq!(runs.len(), 1);
    let patches = json(&runs[0].join("run.json"))["patches"].clone();
    assert_eq!(patches[2]["failed"], "on_step", "{patches:#?}");
    assert_eq!(patches[2]["step"], failed);
    assert_eq!(fs::read_to_string(runs[0].join("script.rhai")).unwrap(), with_letter("D"));
}

#[test]
fn what_is_taken_back_is_what_failed_and_it_is_not_run_by_itself() {
    let hooks = |step: &str, validation: &str| {
        let script = SCRIPT.replace("say(\"A\", run.step);", step);
        format!("{script}fn on_validation(run) {{ {validation} }}")
    };
    let said = |letter: &str| format!("say(\"{letter}\", run.step);");
    let watch = Watch::start(&hooks(&said("A"), ""), "150", &[]);
    let save = |step: &str, validation: &str| fs::write(watch.script(), hooks(step, validation)).unwrap();
    watch.until_said("A 2");
    // The validation's slip shows at the next validation, when another edit has been made since.
    save(&said("B"), "");
    watch.until_said("B");
    save(&said("B"), "if run.step > 40 { throw \"late\"; }");
    watch.until_told("on_validation: patched");
    save(&said("C"), "if run.step > 40 { throw \"late\"; }");
    watch.until_said("C");
    watch.until_told("on_validation: failed");
    let back = 1 + watch.steps().iter().rfind(|(letter, _)| letter == "C").unwrap().1;
    watch.until_said(&format!("B {back}"));
    // A loop without an end.
    save("while true { }", "");
    watch.until_told("on_step: failed");
    watch.until_said("B 100");
    watch.until_told("an edit runs it again");
    // The version that lies there has failed: it is not started for that.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(watch.runs().len(), 1, "{:#?}", watch.err());
    save("if run.step == 3 { print(\"over\"); exit(); }", "");
    watch.until_said("over");
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(0), 2));
    assert_eq!(json(&watch.runs()[0].join("run.json"))["status"], "done");
}

#[test]
fn a_patched_hook_may_end_the_script() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    watch.until_said("A 2");
    fs::write(watch.script(), SCRIPT.replace("say(\"A\", run.step);", "print(\"over\"); exit();")).unwrap();
    watch.until_said("over");
    watch.until_told("an edit runs it again");
    assert!(!watch.err().iter().any(|line| line.contains("failed")), "{:#?}", watch.err());
    watch.interrupt();
}

#[test]
fn a_script_that_failed_is_tried_again_at_any_save() {
    let script = SCRIPT.replace("sleep(0.02);", "if step == 3 && !exists() { throw \"so\"; }")
        + "fn exists() { try { read_text(\"there.txt\"); return true; } catch { return false; } }";
    let watch = Watch::start(&script, "5", &[]);
    watch.until_told("error: so");
    watch.until_told("save it to run it again");
    assert_eq!(json(&watch.runs()[0].join("run.json"))["status"], "failed");
    // What was wrong lay outside.
    fs::write(watch.folder.path().join("there.txt"), "yes").unwrap();
    fs::write(watch.script(), &script).unwrap();
    watch.until_said("A 5");
    watch.until_told("an edit runs it again");
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(0), 2));
}

#[test]
fn imports_in_folders_and_every_run_of_a_script_are_watched() {
    let script = r#"
import "lib/steps" as lib;
let images = data::open(#{ name: "wirebond", size: 16, count: 16 });
for name in ["a", "b"] {
    let model = models::mae(#{ image_size: 16, patch_size: 8, channels: 2, embed_dim: 16, depth: 1, num_heads: 2,
        decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2 });
    let opt = optim::adamw(model, #{ lr: 1e-3 });
    let loader = data::loader(images, #{ batch: 8, image_size: 16 });
    let run = run::start(#{ name: name, model: model, opt: opt, loader: loader });
    for step in run.steps(lib::steps()) {
        for batch in loader.micro(step) { model.loss(batch).backward(); }
        opt.step();
    }
}
fn on_step(run) { print(`A ${run.step}`); sleep(0.02); }
"#;
    let watch = Watch::start_with(script, &[("lib/steps.rhai", "fn steps() { 100000 }")], &[]);
    watch.until_said("A 3");
    // The first version that runs has not been edited yet: its imports are watched all the same.
    replace(&watch.folder.path().join("lib/steps.rhai"), "fn steps() { 30 }");
    watch.until_told("stopped at step");
    watch.until("the second start", || watch.runs().len() == 2);
    let again = watch.out().len();
    watch.until("a step of it", || watch.out().len() > again + 2);
    fs::write(watch.script(), script.replace("`A ", "`B ")).unwrap();
    watch.until_said("B");
    watch.until_told("an edit runs it again");
    let (_, watch) = watch.interrupt();
    // The first run was patched on its way; the second began with what was patched in.
    let parent = &watch.runs()[1];
    let index = json(&parent.join("index.json"));
    let of = |place: usize| parent.join(index["runs"][place]["dir"].as_str().unwrap());
    assert_eq!(json(&of(0).join("run.json"))["patches"].as_array().map(Vec::len), Some(1));
    assert_eq!(json(&of(1).join("run.json"))["patches"].as_array(), None);
    for script in [of(0), of(1), parent.clone()].map(|dir| fs::read_to_string(dir.join("script.rhai")).unwrap()) {
        assert!(script.contains("`B "), "{script}");
    }
}

#[test]
fn other_edits_start_anew_and_are_compared() {
    let watch = Watch::start(SCRIPT, "100000", &[]);
    watch.until_said("A 7");
    // In an imported module.
    replace(&watch.folder.path().join("part.rhai"), &part("12"));
    watch.until_told("stopped at step");
    watch.until_told("an edit runs it again");
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
        watch.err().iter().filter(|line| line.contains("an edit runs it again")).count() == 2
    });
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(0), 3), "waiting is no work that could be lost");
}

#[test]
fn weights_and_step_are_carried_over_while_they_fit() {
    let drawing = |letter: &str| with_letter(letter).replace("sleep(0.02);", "sleep(0.02); tensor::randn([1]);");
    let watch = Watch::start(&drawing("A"), "100000", &["--continue"]);
    watch.until_said("A 7");
    // At a rate of 0 weights stay what they were handed over as.
    let next = drawing("B").replace("warmup_steps: 1,", "warmup_steps: 2, lr: 0.0,");
    // What is handed over outlives a version that comes to no training.
    fs::write(watch.script(), format!("throw \"a slip\";\n{next}")).unwrap();
    watch.until_told("error: a slip");
    fs::write(watch.script(), next).unwrap();
    watch.until_said("B");
    let stopped = watch.steps().iter().rfind(|(letter, _)| letter == "A").unwrap().1;
    let first = watch.steps().iter().find(|(letter, _)| letter == "B").unwrap().1;
    assert_eq!(first, stopped + 1);
    let runs = watch.runs();
    let second = json(&runs[1].join("run.json"));
    assert_eq!(second["continued_from"]["step"], stopped);
    assert!(runs[0].ends_with(second["continued_from"]["run"].as_str().unwrap().trim_start_matches("runs/")));
    // A version that is to have fewer steps than there were trains nothing, and takes nothing away.
    let steps = watch.folder.path().join("part.rhai");
    fs::write(&steps, part("1")).unwrap();
    watch.until_told("nothing is trained");
    watch.until_told("an edit runs it again");
    let before = watch.steps().len();
    fs::write(&steps, part("100000")).unwrap();
    watch.until("a step of the next", || watch.steps().len() > before);
    let steps = watch.steps();
    assert_eq!(steps[before].1, steps[before - 1].1 + 1, "{steps:?}");
    // A wider model has other weights.
    fs::write(watch.script(), drawing("C").replace("embed_dim: 16, depth", "embed_dim: 32, depth")).unwrap();
    watch.until_said("C 1");
    watch.until_told("starting anew");
    let trained = json(&runs[1].join("run.json"))["step"].as_u64().unwrap();
    let saved = |run: &Path, file: &str| fs::read(run.join("checkpoints/last").join(file)).unwrap();
    let (then, now) = (saved(&runs[0], "model.safetensors"), saved(&runs[1], "model.safetensors"));
    let (then, now) = (SafeTensors::deserialize(&then).unwrap(), SafeTensors::deserialize(&now).unwrap());
    assert!(!then.is_empty());
    for (name, weight) in then.tensors() {
        assert!(weight.data() == now.tensor(&name).unwrap().data(), "{name} is not what it was");
    }
    // The moments' count of steps goes on, and so do the script's own draws, one a step.
    let moments = saved(&runs[1], "optimizer.safetensors");
    let moments = SafeTensors::deserialize(&moments).unwrap();
    let count = moments.tensors().into_iter().find(|(name, _)| name.starts_with("step.")).unwrap().1;
    assert_eq!(f32::from_le_bytes(count.data().try_into().unwrap()), trained as f32);
    assert_eq!(json(&runs[1].join("checkpoints/last/state.json"))["draws"], trained);
    let (code, watch) = watch.interrupt();
    assert_eq!((code, watch.runs().len()), (Some(130), 5));
}
