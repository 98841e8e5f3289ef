//! `--smoke` and `new`: every script that is shipped, and every one that `new` writes, works from its first line to its last.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{dbp_host, end, fill_with_pictures, json, json_lines};

/// Every directory below `runs` that holds a `run.json`.
fn records(runs: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(runs).unwrap().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        match entry.join("run.json").exists() {
            true => found.push(entry),
            false => found.extend(records(&entry)),
        }
    }
    found.sort();
    found
}

/// Runs a script with `--smoke` in `folder`; returns what it made, each done, marked, and of no more than two steps.
fn smoke(folder: &Path, script: &Path, set: &[(&str, &str)]) -> Vec<PathBuf> {
    let runs = folder.join("runs");
    let before = if runs.exists() { records(&runs) } else { Vec::new() };
    let mut command = dbp_host(folder);
    command.arg(script).arg("--smoke");
    for (name, value) in set {
        command.args(["--set", &format!("{name}={value}")]);
    }
    end(command).expect(0);
    let made: Vec<PathBuf> = records(&runs).into_iter().filter(|run| !before.contains(run)).collect();
    assert!(!made.is_empty(), "{} made no run", script.display());
    for run in &made {
        let record = json(&run.join("run.json"));
        assert_eq!((&record["status"], &record["smoke"]), (&"done".into(), &true.into()), "{}", run.display());
        assert!(record["step"].as_u64().is_none_or(|step| step == 2), "{record}");
        let top = run.strip_prefix(&runs).unwrap().components().next().unwrap().as_os_str().to_str().unwrap();
        assert!(top.contains("-smoke"), "{top}");
    }
    made
}

/// A folder with a folder of pictures for each of two classes.
fn workplace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("photos/good"), 12, 0);
    fill_with_pictures(&folder.path().join("photos/bad"), 12, 0);
    folder
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What a script needs beside its own defaults, if it is not to be run with these alone.
fn needs<'a>(script: &str, on_photos: &'a str, finetuned: &'a str) -> Vec<(&'static str, &'a str)> {
    match script {
        "predict" => vec![("from", finetuned)],
        "classify" | "probe" => vec![("data", "photos"), ("from", on_photos)],
        _ => Vec::new(),
    }
}

#[test]
fn every_script_that_is_shipped_works() {
    let folder = workplace();
    let pretrained = smoke(folder.path(), &shipped("scripts/pretrain.rhai"), &[])[0].display().to_string();
    let on_photos = smoke(folder.path(), &shipped("scripts/pretrain.rhai"), &[("data", "photos")])[0].clone();
    let on_photos = on_photos.display().to_string();
    let finetuned = smoke(folder.path(), &shipped("scripts/finetune.rhai"), &[("from", &pretrained)])[0].clone();
    let finetuned = finetuned.display().to_string();
    let mut tried = 2;
    for place in ["scripts", "examples"] {
        for entry in fs::read_dir(shipped(place)).unwrap().flatten() {
            let path = entry.path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            if path.extension().is_some_and(|extension| extension == "rhai")
                && !["pretrain", "finetune"].contains(&stem)
            {
                if makes_no_run(&path) {
                    let mut command = dbp_host(folder.path());
                    command.arg(&path).arg("--smoke");
                    end(command).expect(0);
                } else {
                    smoke(folder.path(), &path, &needs(stem, &on_photos, &finetuned));
                }
                tried += 1;
            }
        }
    }
    assert!(tried >= 8, "{tried}");
}

/// Scripts that only print, or that a reader imports from.
fn makes_no_run(script: &Path) -> bool {
    let text = fs::read_to_string(script).unwrap();
    !["run::start", "run::output", "pretrain(", "finetune("].iter().any(|call| text.contains(call))
}

#[test]
fn what_new_writes_runs_at_once_and_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    for template in ["pretrain", "ablation", "finetune", "blank"] {
        let mut command = dbp_host_alone(folder.path());
        command.args(["new", template, "--template", template]);
        let ended = end(command).expect(0);
        assert_eq!(ended.stdout, format!("{template}.rhai\n"));
        assert!(ended.stderr.contains(&format!("dbp-host {template}.rhai --smoke")), "{}", ended.stderr);
        let script = folder.path().join(format!("{template}.rhai"));
        let text = fs::read_to_string(&script).unwrap();
        assert!((20..=45).contains(&text.lines().count()), "{template}: {} lines", text.lines().count());
        assert!(text.contains(template) && !text.contains("NAME"), "{text}");
        let made = smoke(folder.path(), &script, &[]);
        assert_eq!(made.len(), if template == "ablation" { 5 } else { 1 });

        fs::write(&script, "mine").unwrap();
        let mut again = dbp_host_alone(folder.path());
        again.args(["new", template]);
        end(again).expect(2);
        assert_eq!(fs::read_to_string(&script).unwrap(), "mine");
    }
}

/// Without options of a run, which subcommands do not take.
fn dbp_host_alone(folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    command
}

/// A loop of one's own, none of the library's recipes: nothing of the script has to change.
#[test]
fn a_script_that_knows_nothing_of_it_is_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        let images = data::open(#{ name: "wirebond", size: 32, count: 500 });
        let few = images.subset(0.001);
        let parts = images.split(0.5);
        let model = models::mae(#{
            channels: 2, image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2,
            decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
        });
        let loader = data::loader(parts.train, #{ batch: 200, micro_batches: 4, image_size: 32 });
        let val = loader.validation(parts.val);
        let opt = optim::adamw(model, #{ lr: 0.001 });
        let run = run::start(#{ model: model, opt: opt, loader: loader, val: val, validate_every: 50 });
        for step in run.steps(100000) {
            let pieces = 0;
            for batch in loader.micro(step) { model.loss(batch).backward(); pieces += 1; }
            opt.step();
            if run.validation_due(step) {
                let seen = 0;
                for batch in val.batches() { seen += 1; }
                run.log(#{ val_loss: 1.0, pieces: pieces, seen: seen, images: images.len(), few: few.len() });
            }
        }
        assert(run::is_smoke());
    "#;
    fs::write(folder.path().join("own.rhai"), script).unwrap();
    let run = smoke(folder.path(), Path::new("own.rhai"), &[]).remove(0);
    let lines = json_lines(&run.join("metrics.jsonl"));
    let last = lines.last().unwrap();
    let figures = ["step", "pieces", "seen", "images", "few"].map(|name| last[name].as_u64().unwrap());
    assert_eq!(figures, [2, 2, 2, 48, 8]);

    let mut resumed = dbp_host(folder.path());
    resumed.args(["--resume", run.to_str().unwrap()]);
    end(resumed).expect(0);
    let mut wrong = dbp_host(folder.path());
    wrong.args(["--resume", run.to_str().unwrap(), "--smoke"]);
    end(wrong).expect(2);
}
