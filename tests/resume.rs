//! A run that was killed, at any moment, and resumed ends as one that was never stopped: the same weights, R, optimizer
//! state and metrics, bit for bit, on the CPU; only time and energy differ.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

mod common;
use common::{Ended, copy_folder, dbp_host, end, files_of, fill_with_pictures, json, json_lines, only_run, set};

/// Time, and what follows from it: two runs need not agree on these.
const OF_TIME: [&str; 9] =
    ["wall_s", "images_per_s", "energy", "energy_kwh", "co2_kg", "lost_s", "lost_kwh", "metrics_bytes", "elapsed_s"];

/// A folder to work in: pictures, some of them unreadable, and the scripts of these tests.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), 60, 6);
    fs::write(folder.path().join("own.rhai"), OWN_SCRIPT).unwrap();
    fs::write(folder.path().join("two.rhai"), TWO_RUNS).unwrap();
    fs::write(folder.path().join("auto.rhai"), AUTO).unwrap();
    folder
}

/// The script that comes with the program, small: saved and validated every third step.
fn small(folder: &Path, runs: &str, steps: &str) -> Command {
    let mut command = dbp_host(folder);
    command.arg(common::pretrain()).args(["--runs", runs]);
    let sizes = [("recipe", "nano"), ("steps", steps), ("batch", "16"), ("every", "3"), ("image_size", "32")];
    set(set(&mut command, &sizes), &[("data", "pictures")]);
    command
}

/// A loop of its own that saves between validations, draws random numbers, updates R at every third step only, and changes
/// the model in a hook: all of it has to come back.
const OWN_SCRIPT: &str = r#"
import "std/mae" as mae;
run::seed(7);
let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16, steps: 12 });
recipe.dbp.every = 3;
let images = data::open(arg("data", ""));
let model = mae::build(recipe, images);
model.decorrelate(["encoder.**", "!encoder.blocks.2.**"], recipe.dbp);
let parts = images.split(0.2);
let loader = data::loader(parts.train, #{ batch: 16, micro_batches: 2, image_size: 32 });
let val = loader.validation(parts.val);
let rate = schedule::cosine(#{ lr: 0.006, warmup: 4, total: 12 });
let opt = optim::adamw(model, #{ lr: 0.006 });
let run = run::start(#{
    model: model, opt: opt, loader: loader, val: val, validate_every: 4, save_every: 2, log_every: 1,
});
let shift = tensor::rand([1]).item();
for step in run.steps(12) {
    for batch in loader.micro(step) { model.loss(batch).backward(); }
    opt.step(rate.at(step) * (1.0 + 0.1 * tensor::rand([1]).item() * shift));
    model.update_decorrelation();
    run.log(#{ train_loss: model.last_loss() });
    if run.validation_due(step) { run.untimed(|r| mae::validate(r, model, val)); }
}
run.note("after", tensor::rand([1]).item());
fn on_step(run) {
    tensor::rand([2]);
    if run.step == 8 { run.model.freeze_decorrelation(); run.note("frozen_at", run.step); }
}
"#;

/// Two runs of one script.
const TWO_RUNS: &str = r#"
import "std/mae" as mae;
let images = data::open(arg("data", ""));
for name in ["plain", "decorrelated"] {
    let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16, steps: 6, every: 2 });
    let model = mae::build(recipe, images);
    model.decorrelate(if name == "plain" { [] } else { ["encoder.**"] }, recipe.dbp);
    mae::pretrain(model, images, recipe, name);
}
"#;

/// Measures five steps, then decorrelates what `"auto"` chooses; a probe goes on beside it.
const AUTO: &str = r#"
import "std/mae" as mae;
let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16, steps: 12, every: 2 });
let images = data::open(arg("data", ""));
let model = mae::build(recipe, images);
model.decorrelate("auto", recipe.dbp + #{ lr: 0.01, budget: 0.3, measure: 5, preset: "lean", kappa: 0.1 });
mae::pretrain(model, images, recipe);
"#;

fn script(folder: &Path, runs: &str, name: &str) -> Command {
    let mut command = dbp_host(folder);
    command.arg(name).args(["--runs", runs]);
    set(&mut command, &[("data", "pictures")]);
    command
}

fn resume(folder: &Path, run: &Path) -> Ended {
    let mut command = dbp_host(folder);
    command.arg("--resume").arg(run);
    end(command)
}

/// Panics unless both runs hold the same, time aside, and nothing half-done is left in `found`.
fn assert_same(wanted: &Path, found: &Path, when: &str) {
    for slot in ["last", "best"] {
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let path = Path::new("checkpoints").join(slot).join(file);
            let (wanted, found) = (fs::read(wanted.join(&path)).unwrap(), fs::read(found.join(&path)).unwrap());
            assert!(wanted == found, "{when}: {} differs", path.display());
        }
        let path = Path::new("checkpoints").join(slot).join("state.json");
        assert_eq!(timeless(json(&wanted.join(&path))), timeless(json(&found.join(&path))), "{when}: {slot}");
    }
    for file in ["metrics.jsonl", "layers.jsonl"] {
        let lines = |run: &Path| json_lines(&run.join(file)).into_iter().map(timeless).collect::<Vec<_>>();
        assert_eq!(lines(wanted), lines(found), "{when}: {file}");
    }
    for file in ["skipped.csv", "files.txt", "script.rhai"] {
        let text = |run: &Path| fs::read_to_string(run.join(file)).unwrap();
        assert_eq!(text(wanted), text(found), "{when}: {file}");
    }
    assert!(files_of(&wanted.join("pictures")) == files_of(&found.join("pictures")), "{when}: pictures");
    let record = json(&found.join("run.json"));
    let reference = json(&wanted.join("run.json"));
    for field in
        ["status", "step", "steps", "best", "seed", "arguments", "after", "frozen_at", "mean_baseline", "recipe"]
    {
        assert_eq!(record[field], reference[field], "{when}: {field} in run.json");
    }
    let names = |folder: &str| -> Vec<PathBuf> {
        let mut names: Vec<_> =
            fs::read_dir(found.join(folder)).unwrap().map(|entry| entry.unwrap().file_name().into()).collect();
        names.sort();
        names
    };
    assert_eq!(names("checkpoints"), [Path::new("best"), Path::new("last")], "{when}");
    assert_eq!(names("tensorboard").len(), 1, "{when}");
}

fn timeless(mut value: Value) -> Value {
    let fields = value.as_object_mut().unwrap();
    fields.retain(|name, _| !OF_TIME.contains(&name.as_str()));
    value
}

/// A moment in a run's life, as its directory shows it.
type Moment = (&'static str, fn(&Path) -> bool);

/// What a kill leaves, and how to make it of a killed run's directory.
type Tear = (&'static str, fn(&Path));

fn logged(run: &Path, step: u64) -> bool {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().any(|line| line.starts_with(&format!("{{\"step\":{step},")))
}

/// Waits for the moment, then kills; `false` if the process ended before.
fn stop_at(child: &mut Child, runs: &Path, moment: fn(&Path) -> bool, signal: &str) -> bool {
    let began = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let run = fs::read_dir(runs).ok().and_then(|mut entries| entries.next()?.ok());
        if run.is_some_and(|run| moment(&run.path())) {
            if signal == "-KILL" {
                return child.kill().is_ok(); // At once: nothing in the process runs after it.
            }
            return Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success();
        }
        assert!(began.elapsed() < Duration::from_secs(300), "the moment never came");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Starts, kills at the moment, and says whether the kill was what ended it.
fn killed(mut command: Command, runs: &Path, moment: fn(&Path) -> bool) -> bool {
    let mut child = command.spawn().unwrap();
    stop_at(&mut child, runs, moment, "-KILL");
    let output = child.wait_with_output().unwrap();
    let killed = killed_by_signal(&output.status);
    Ended::of(output);
    killed
}

#[cfg(unix)]
fn killed_by_signal(status: &ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(status) == Some(9)
}

#[test]
fn a_run_killed_at_any_moment_ends_as_one_never_stopped() {
    let moments: [Moment; 13] = [
        ("before its first checkpoint", |run| run.join("run.json").exists()),
        ("while the first is written", |run| run.join("checkpoints/last.new").exists()),
        ("when the first is there", |run| run.join("checkpoints/last/state.json").exists()),
        ("after one step", |run| logged(run, 1)),
        ("when a file was skipped", |run| run.join("skipped.csv").exists()),
        ("while the best is written", |run| run.join("checkpoints/best.new").exists()),
        ("between best and last", |run| run.join("checkpoints/best/state.json").exists()),
        ("while the model of a later one is written", |run| {
            logged(run, 3) && run.join("checkpoints/last.new/model.safetensors").exists()
        }),
        ("while its optimizer is written", |run| {
            logged(run, 6) && run.join("checkpoints/last.new/optimizer.safetensors").exists()
        }),
        ("while old and new change places", |run| logged(run, 3) && run.join("checkpoints/last.old").exists()),
        ("between two checkpoints", |run| logged(run, 10)),
        ("before the last checkpoint", |run| logged(run, 12)),
        ("after the last step", |run| fs::read_dir(run.join("pictures")).is_ok_and(|mut all| all.next().is_some())),
    ];
    let place = workplace();
    end(small(place.path(), "reference", "12")).expect(0);
    let reference = only_run(&place.path().join("reference"));
    assert!(fs::read_to_string(reference.join("skipped.csv")).unwrap().lines().count() > 1);
    let mut kills = 0;
    for (i, (when, moment)) in moments.into_iter().enumerate() {
        let runs = place.path().join(format!("killed-{i}"));
        kills += usize::from(killed(small(place.path(), runs.to_str().unwrap(), "12"), &runs, moment));
        let run = only_run(&runs);
        resume(place.path(), &run).expect(0);
        assert_same(&reference, &run, when);
        fs::remove_dir_all(runs).unwrap();
    }
    assert!(kills >= 10, "{kills} of the kills came in time");
}

#[test]
fn a_run_killed_again_and_again_ends_as_one_never_stopped() {
    let place = workplace();
    end(script(place.path(), "reference", "own.rhai")).expect(0);
    let reference = only_run(&place.path().join("reference"));
    let runs = place.path().join("killed");
    // Between saves, after validations, and right after the hook froze R.
    let moments: [fn(&Path) -> bool; 5] =
        [|run| logged(run, 3), |run| logged(run, 5), |run| logged(run, 8), |run| logged(run, 9), |run| logged(run, 11)];
    assert!(killed(script(place.path(), "killed", "own.rhai"), &runs, moments[0]));
    let run = only_run(&runs);
    let mut kills = 1;
    for moment in moments.into_iter().skip(1) {
        // The log still has the lines that were lost with the kill: the moment is one of the new process.
        let state = json(&run.join("checkpoints/last/state.json"));
        let keep = usize::try_from(state["metrics_bytes"].as_u64().unwrap()).unwrap();
        let text = fs::read(run.join("metrics.jsonl")).unwrap();
        fs::write(run.join("metrics.jsonl"), &text[..keep]).unwrap();
        let mut command = dbp_host(place.path());
        command.arg("--resume").arg(&run);
        kills += usize::from(killed(command, &runs, moment));
    }
    resume(place.path(), &run).expect(0);
    assert!(kills >= 3, "{kills} of the kills came in time");
    assert_same(&reference, &run, "killed again and again");
}

#[test]
fn states_that_a_kill_within_a_save_leaves_are_mended() {
    let place = workplace();
    end(script(place.path(), "reference", "own.rhai")).expect(0);
    let reference = only_run(&place.path().join("reference"));
    let killed_runs = place.path().join("killed");
    assert!(killed(script(place.path(), "killed", "own.rhai"), &killed_runs, |run| logged(run, 7)));
    let killed = only_run(&killed_runs);

    // What else a kill can leave, in the order in which a save comes to it. Each is given the killed run's checkpoints.
    let torn: [Tear; 5] = [
        ("half a model beside, half a line in every log", |run| {
            let aside = run.join("checkpoints/last.new");
            fs::create_dir_all(&aside).unwrap();
            let model = fs::read(run.join("checkpoints/last/model.safetensors")).unwrap();
            fs::write(aside.join("model.safetensors"), &model[..model.len() / 2]).unwrap();
            let events = only_run(&run.join("tensorboard"));
            for (log, half) in [
                (run.join("metrics.jsonl"), &b"{\"step\":8,\"tra"[..]),
                (run.join("layers.jsonl"), b"{\"st"),
                (events, &[24, 0, 0, 0, 0, 0, 0, 0, 1, 2]),
            ] {
                fs::OpenOptions::new().append(true).open(log).unwrap().write_all(half).unwrap();
            }
            fs::write(run.join("run.tmp"), b"{ \"na").unwrap();
        }),
        ("a checkpoint beside that lacks its state, the best between its renames", |run| {
            copy_folder(&run.join("checkpoints/last"), &run.join("checkpoints/last.new"));
            fs::remove_file(run.join("checkpoints/last.new/state.json")).unwrap();
            fs::write(run.join("checkpoints/last.new/state.tmp"), b"{").unwrap();
            copy_folder(&run.join("checkpoints/best"), &run.join("checkpoints/best.new"));
            fs::rename(run.join("checkpoints/best"), run.join("checkpoints/best.old")).unwrap();
        }),
        ("a whole checkpoint beside, the old one moved away", |run| {
            copy_folder(&run.join("checkpoints/last"), &run.join("checkpoints/last.new"));
            fs::rename(run.join("checkpoints/last"), run.join("checkpoints/last.old")).unwrap();
        }),
        ("the new one in place, the old one half removed", |run| {
            copy_folder(&run.join("checkpoints/last"), &run.join("checkpoints/last.old"));
            fs::remove_file(run.join("checkpoints/last.old/state.json")).unwrap();
        }),
        ("the very first one half written", |run| {
            fs::rename(run.join("checkpoints/last"), run.join("checkpoints/last.new")).unwrap();
            fs::remove_file(run.join("checkpoints/last.new/state.json")).unwrap();
            fs::remove_dir_all(run.join("checkpoints/best")).unwrap();
        }),
    ];
    for (i, (when, tear)) in torn.into_iter().enumerate() {
        let run = place.path().join(format!("torn-{i}"));
        copy_folder(&killed, &run);
        tear(&run);
        resume(place.path(), &run).expect(0);
        assert_same(&reference, &run, when);
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn a_run_that_a_signal_interrupts_says_how_to_go_on() {
    let place = workplace();
    end(small(place.path(), "reference", "12")).expect(0);
    let reference = only_run(&place.path().join("reference"));
    let cases: [Moment; 3] = [
        ("-INT", |run| logged(run, 1)),
        ("-TERM", |run| logged(run, 6)),
        ("-INT", |run| run.join("checkpoints/last/state.json").exists()),
    ];
    for (i, (signal, moment)) in cases.into_iter().enumerate() {
        let runs = place.path().join(format!("stopped-{i}"));
        let mut child = small(place.path(), runs.to_str().unwrap(), "12").spawn().unwrap();
        assert!(stop_at(&mut child, &runs, moment, signal), "{signal}");
        let ended = Ended::of(child.wait_with_output().unwrap()).expect(130);
        let run = only_run(&runs);
        let advice = format!("dbp-host --resume {}", run.display());
        assert!(ended.stderr.contains(&advice), "{signal}: {}", ended.stderr);
        assert_eq!(json(&run.join("run.json"))["status"], "interrupted");
        resume(place.path(), &run).expect(0);
        assert_same(&reference, &run, signal);
    }
}

#[test]
fn a_finished_run_goes_on_when_it_is_given_more_steps() {
    let place = workplace();
    // Both are within the warm-up, whose rates do not depend on the number of steps.
    end(small(place.path(), "reference", "9")).expect(0);
    end(small(place.path(), "short", "6")).expect(0);
    let (reference, run) = (only_run(&place.path().join("reference")), only_run(&place.path().join("short")));
    let logs = |run: &Path| ["metrics.jsonl", "layers.jsonl"].map(|file| fs::read(run.join(file)).unwrap());
    let (before, checkpoints) = (logs(&run), files_of(&run.join("checkpoints")));

    resume(place.path(), &run).expect(0);
    assert!(logs(&run) == before && files_of(&run.join("checkpoints")) == checkpoints, "there was nothing left to do");
    assert_eq!(json(&run.join("run.json"))["status"], "done");

    let mut command = dbp_host(place.path());
    command.arg("--resume").arg(&run);
    set(&mut command, &[("steps", "9")]);
    end(command).expect(0);
    assert!(logs(&run)[0].starts_with(&before[0]), "what was logged stays");
    // The shorter run's last picture is the one thing more that it has.
    fs::remove_file(run.join("pictures/reconstruction-000006.png")).unwrap();
    assert_same(&reference, &run, "9 steps after 6");
}

#[test]
fn every_optimizer_comes_back_as_it_was() {
    let place = workplace();
    let moments: [fn(&Path) -> bool; 2] = [|run| logged(run, 6), |run| logged(run, 10)];
    let mut kills = 0;
    for (optimizer, lr) in [("sgd", "0.02"), ("muon", "0.006"), ("schedule_free", "0.006")] {
        let of = |runs: &str| {
            let mut command = small(place.path(), runs, "12");
            set(&mut command, &[("optimizer", optimizer), ("lr", lr)]);
            command
        };
        end(of(optimizer)).expect(0);
        let reference = only_run(&place.path().join(optimizer));
        for (i, moment) in moments.into_iter().enumerate() {
            let runs = place.path().join(format!("{optimizer}-{i}"));
            kills += usize::from(killed(of(runs.to_str().unwrap()), &runs, moment));
            let run = only_run(&runs);
            resume(place.path(), &run).expect(0);
            assert_same(&reference, &run, optimizer);
        }
    }
    assert!(kills >= 4, "{kills} of the kills came in time");
}

#[test]
fn of_two_runs_the_finished_one_is_left_alone() {
    let place = workplace();
    end(script(place.path(), "reference", "two.rhai")).expect(0);
    let reference = only_run(&place.path().join("reference"));
    let runs = place.path().join("killed");
    let in_second: fn(&Path) -> bool = |root| logged(&root.join("2-decorrelated"), 2);
    assert!(killed(script(place.path(), "killed", "two.rhai"), &runs, in_second));
    let root = only_run(&runs);
    let children = |root: &Path| (root.join("1-plain"), root.join("2-decorrelated"));
    let kept = |run: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = files_of(run);
        files.retain(|(path, _)| !path.starts_with("tensorboard") && path != Path::new("run.json"));
        files
    };
    let before = kept(&children(&root).0);

    // The same as if the kill had come while the first run was given its parent.
    let torn = place.path().join("torn");
    copy_folder(&root, &place.path().join("torn.moving"));
    fs::remove_dir_all(place.path().join("torn.moving/2-decorrelated")).unwrap();
    let mut index = json(&root.join("index.json"));
    index["runs"].as_array_mut().unwrap().truncate(1);
    fs::write(place.path().join("torn.moving/index.json"), index.to_string()).unwrap();

    // By its own name or by the parent's: what is resumed is the script.
    for (name, root) in [(children(&root).1, &root), (torn.clone(), &torn)] {
        resume(place.path(), &name).expect(0);
        assert!(kept(&children(root).0) == before, "{}: the first run changed", name.display());
        assert_eq!(json(&children(root).0.join("run.json"))["status"], "done");
        assert_same(&children(&reference).1, &children(root).1, "the second run");
        let names = |root: &Path| json(&root.join("index.json"))["runs"].clone();
        assert_eq!(names(root), names(&reference));
    }
}

#[test]
fn what_auto_measured_and_chose_survives_a_kill() {
    let place = workplace();
    end(script(place.path(), "whole", "auto.rhai")).expect(0);
    let whole = only_run(&place.path().join("whole"));
    let chosen = json(&whole.join("run.json"))["decorrelated"].clone();
    assert!((1..27).contains(&chosen.as_array().unwrap().len()), "{chosen}");
    let moments: [Moment; 2] = [("measuring", |run| logged(run, 2)), ("chosen", |run| logged(run, 8))];
    for (when, moment) in moments {
        let runs = place.path().join(when);
        killed(script(place.path(), runs.to_str().unwrap(), "auto.rhai"), &runs, moment);
        let run = only_run(&runs);
        resume(place.path(), &run).expect(0);
        assert_same(&whole, &run, when);
        let record = json(&run.join("run.json"));
        assert_eq!((&record["decorrelated"], record["auto"].is_array()), (&chosen, true));
    }
}

#[test]
fn a_run_that_never_began_is_refused() {
    let place = workplace();
    let run = place.path().join("begun");
    fs::create_dir(&run).unwrap();
    fs::copy(place.path().join("own.rhai"), run.join("script.rhai")).unwrap();
    let ended = resume(place.path(), &run).expect(2);
    assert!(ended.stderr.contains("run.json") && ended.stderr.contains("starts anew"), "{}", ended.stderr);
}
