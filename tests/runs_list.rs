//! `dbp-host runs`, the lock that it relies on, what is said before training, and what shells know of the command line.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ended, Guarded, dbp_host, end, json, only_run};
use dbp_host::train::lock::{RunLock, Taken};
use serde_json::{Value, json};

/// A script whose steps take no time at all, or wait in the third one until they are interrupted.
fn script(steps: u64, waits: bool) -> String {
    let wait = if waits { "if step == 2 { print(\"waiting\"); sleep(600); }" } else { "" };
    format!(
        r#"
        let images = data::open(#{{ name: "wirebond", size: 32, count: 24 }});
        let model = models::mae(#{{
            channels: 2, image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2,
            decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
        }});
        let loader = data::loader(images, #{{ batch: 8, image_size: 32 }});
        for name in arg("names", ["only"]) {{
            let opt = optim::adamw(model, #{{ lr: 0.001 }});
            let run = run::start(#{{ model: model, opt: opt, loader: loader, name: name, save_every: 1 }});
            for step in run.steps({steps}) {{
                for batch in loader.micro(step) {{ model.loss(batch).backward(); }}
                opt.step();
                run.log(#{{ val_loss: 0.5 }});
                {wait}
            }}
        }}
    "#
    )
}

fn train(folder: &Path, name: &str, text: &str, args: &[&str]) -> Ended {
    fs::write(folder.join(format!("{name}.rhai")), text).unwrap();
    let mut command = dbp_host(folder);
    command.arg(format!("{name}.rhai")).args(args);
    end(command).expect(0)
}

fn list(folder: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped()).arg("runs").args(args);
    end(command)
}

/// The list as JSON.
fn listed(folder: &Path, args: &[&str]) -> Vec<Value> {
    let ended = list(folder, &[args, &["--json"]].concat()).expect(0);
    serde_json::from_str::<Value>(&ended.stdout).unwrap().as_array().unwrap().clone()
}

/// Starts the script and comes back once it waits in its third step.
fn start_waiting(folder: &Path) -> (Guarded, PathBuf) {
    fs::write(folder.join("long.rhai"), script(10, true)).unwrap();
    let mut child = Guarded::new(dbp_host(folder).arg("long.rhai"));
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "waiting\n");
    (child, only_run(&folder.join("runs")))
}

#[test]
fn a_run_is_one_processs_and_its_death_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, run) = start_waiting(folder.path());
    assert_eq!(listed(folder.path(), &[])[0]["status"], "running");
    let mut second = dbp_host(folder.path());
    second.args(["--resume", run.to_str().unwrap()]);
    let refused = end(second).expect(2);
    let want = format!("process {} is running it", child.id());
    assert!(refused.stderr.contains(&want) && refused.stdout.is_empty(), "{}", refused.stderr);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(json(&run.join("run.json"))["status"], "running", "a kill leaves no word");
    let seen = list(folder.path(), &[]).expect(0);
    assert!(seen.stdout.contains("stopped"), "{}", seen.stdout);
    assert!(seen.stderr.contains("dbp-host --resume runs/"), "{}", seen.stderr);
    assert_eq!(listed(folder.path(), &[])[0]["status"], "stopped");
    // Nothing is removed of what can be carried on with.
    let kept = list(folder.path(), &["--keep", "0"]).expect(0);
    assert_eq!(kept.stdout, "nothing to remove\n");
    assert!(run.join("checkpoints/last/state.json").exists());
}

/// A folder that is no run is left as it is, and so is what a link in the lock's place leads to.
#[test]
fn what_is_no_run_is_neither_resumed_nor_locked() {
    let folder = tempfile::tempdir().unwrap();
    let resumed = |dir: &Path| {
        let mut command = dbp_host(folder.path());
        command.arg("--resume").arg(dir);
        end(command).expect(2)
    };
    let plain = folder.path().join("photos");
    fs::create_dir(&plain).unwrap();
    let refused = resumed(&plain);
    assert!(
        refused.stderr.contains("photos: it is no run: it has neither run.json nor index.json"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 0, "nothing is left in it");
    let missing = resumed(&folder.path().join("missing"));
    assert!(missing.stderr.contains("no such file or folder"), "{}", missing.stderr);

    train(folder.path(), "short", &script(2, false), &[]);
    let run = only_run(&folder.path().join("runs"));
    let precious = folder.path().join("precious.txt");
    fs::write(&precious, "keep").unwrap();
    fs::remove_file(run.join(".lock")).unwrap();
    std::os::unix::fs::symlink(&precious, run.join(".lock")).unwrap();
    let refused = resumed(&run);
    assert!(refused.stderr.contains("its .lock is a link"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&precious).unwrap(), "keep");
}

#[test]
fn parents_have_their_children_and_what_is_broken_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), "two", &script(2, false), &["--set", "names=[\"a\",\"b\"]", "--country", "NLD"]);
    train(folder.path(), "tried", &script(2, false), &["--smoke"]);
    let runs = folder.path().join("runs");
    for (name, text) in [("2020-cut", Some("{\"status\": \"do")), ("2020-empty", None), ("2020-list", Some("[1]"))] {
        fs::create_dir(runs.join(name)).unwrap();
        if let Some(text) = text {
            fs::write(runs.join(name).join("run.json"), text).unwrap();
        }
    }
    fs::write(runs.join("notes.txt"), "not a run").unwrap();
    let ended = list(folder.path(), &[]).expect(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{}", ended.stdout);
    assert!(lines[1].contains("-two") && lines[1].contains("done, 2 runs"), "{}", lines[1]);
    assert!(lines[2].starts_with("  1-a ") && lines[2].contains("val_loss 0.5000"), "{}", lines[2]);
    assert!(!ended.stdout.contains('\u{1b}'), "no colors in a pipe");
    for left_out in ["2020-cut: run.json", "2020-empty: no run.json", "2020-list: run.json: expected an object"] {
        assert!(ended.stderr.contains(left_out), "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("1 of --smoke left out"), "{}", ended.stderr);
    assert_eq!(listed(folder.path(), &[]).len(), 1);
    let all = listed(folder.path(), &["--all"]);
    assert_eq!((all.len(), &all[1]["smoke"]), (2, &json!(true)));
    assert_eq!(all[0]["runs"].as_array().unwrap().len(), 2);
    assert_eq!(all[0]["runs"][1]["best"]["val_loss"], 0.5);
    let sum: f64 = all[0]["runs"].as_array().unwrap().iter().map(|run| run["wall_s"].as_f64().unwrap()).sum();
    assert_eq!(all[0]["wall_s"], sum);

    assert_eq!(
        listed(
            folder.path(),
            &[runs.join(all[0]["dir"].as_str().unwrap().trim_start_matches("runs/")).to_str().unwrap()]
        )
        .len(),
        1
    );
    list(folder.path(), &["nowhere"]).expect(2);
    list(folder.path(), &["--dry-run"]).expect(2);
}

#[test]
fn keep_removes_checkpoints_of_the_oldest_that_are_done() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["first", "second", "third"] {
        train(folder.path(), name, &script(2, false), &[]);
    }
    train(folder.path(), "family", &script(2, false), &["--set", "names=[\"a\",\"b\"]"]);
    let dirs: Vec<PathBuf> =
        listed(folder.path(), &[]).iter().map(|entry| folder.path().join(entry["dir"].as_str().unwrap())).collect();
    let by_name = |name: &str| dirs.iter().find(|dir| dir.to_str().unwrap().ends_with(name)).unwrap().clone();
    let has = |dir: &Path| dir.join("checkpoints").exists();
    // One of two children that is not done: the whole family may be carried on with.
    let child = by_name("family").join("2-b");
    let mut record = json(&child.join("run.json"));
    record["status"] = json!("interrupted");
    fs::write(child.join("run.json"), record.to_string()).unwrap();

    let said = list(folder.path(), &["--keep", "1", "--dry-run"]).expect(0).stdout;
    assert!(
        said.contains("would remove the checkpoints of runs/") && said.contains("of 2 runs would be free"),
        "{said}"
    );
    assert!(["first", "second", "third"].iter().all(|name| has(&by_name(name))), "a dry run removes nothing");

    // One that a process has taken up again in the meantime is left alone.
    let Taken::Held(lock) = RunLock::take(&by_name("second")).unwrap() else { panic!("nobody has it") };
    list(folder.path(), &["--keep", "1"]).expect(4);
    assert!(!has(&by_name("first")) && has(&by_name("second")) && has(&by_name("third")));
    drop(lock);
    let said = list(folder.path(), &["--keep", "1"]).expect(0).stdout;
    assert!(said.contains("-second, ") && said.contains("of 1 run free now"), "{said}");
    assert!(!has(&by_name("second")) && has(&by_name("third")) && has(&child));
    assert!(by_name("first").join("metrics.jsonl").exists());
    assert_eq!(list(folder.path(), &["--keep", "1"]).expect(0).stdout, "nothing to remove\n");
    assert!(list(folder.path(), &[]).stdout.contains("done, no checkpoints"));

    let mut resumed = dbp_host(folder.path());
    resumed.args(["--resume", by_name("first").to_str().unwrap()]);
    let refused = end(resumed).expect(2);
    assert!(refused.stderr.contains("its checkpoints were removed"), "{}", refused.stderr);
}

/// What is said before and soon after the first step.
#[test]
fn a_run_says_what_it_will_take() {
    let folder = tempfile::tempdir().unwrap();
    let ended = train(folder.path(), "long", &script(12, false), &[]);
    let needs = "only: 66 kB of weights, 199 kB of gradients and moments, activations on top; checkpoints of 199 kB";
    let said: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("activations on top")).collect();
    assert_eq!(said.len(), 1, "{}", ended.stderr);
    let shape = |line: &str| line.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    assert_eq!(shape(said[0]), shape(needs));
    let left: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("left: 8 steps of ")).collect();
    assert_eq!(left.len(), 1, "{}", ended.stderr);
    assert!(left[0].starts_with("only: about ") && left[0].ends_with(", and 1 validation on top"), "{}", left[0]);
}

fn alone(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).args(args);
    command
}

#[test]
fn shells_and_manuals_know_every_subcommand() {
    let help = end(alone(&["--help"])).expect(0).stdout;
    let list = help.split("Commands:").nth(1).unwrap().split("Arguments:").next().unwrap();
    let names: Vec<&str> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert!(names.len() >= 8 && names.contains(&"runs") && names.contains(&"help"), "{names:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = end(alone(&["completions", shell])).expect(0).stdout;
        for name in &names {
            assert!(script.contains(name), "{shell}: {name}");
        }
        assert!(script.contains("allow-write"), "{shell}");
    }
    end(alone(&["completions", "tcsh"])).expect(2);
    let page = end(alone(&["man"])).expect(0).stdout;
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    end(alone(&["man", pages.to_str().unwrap()])).expect(0);
    assert!(pages.join("dbp-host.1").exists());
    for name in names.iter().filter(|name| **name != "help") {
        assert!(
            page.contains(&format!("dbp\\-host\\-{name}(1)")) || page.contains(&format!("dbp-host-{name}(1)")),
            "{name}"
        );
        assert!(pages.join(format!("dbp-host-{name}.1")).exists(), "{name}");
    }
}

#[test]
fn bash_completes_the_options_of_a_subcommand() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    std::fs::write(&script, end(alone(&["completions", "bash"])).expect(0).stdout).unwrap();
    for (words, expected) in [("dbp-host n", "new"), ("dbp-host new x --te", "--template"), ("dbp-host ru", "runs")] {
        // As bash calls it: the command, the word in progress, the word before.
        let ask = "source \"$1\"; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
            call=$(complete -p dbp-host | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
            \"$call\" dbp-host \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[@]}\"";
        let mut bash = std::process::Command::new("bash");
        bash.args(["-c", ask, "bash"]).arg(&script).args(words.split(' '));
        let said = end(bash).expect(0).stdout;
        assert_eq!(said.trim(), expected, "{words}");
    }
}
