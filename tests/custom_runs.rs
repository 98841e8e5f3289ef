//! Runs over tensors of a script's own, with a model, a loss, a schedule and an optimizer of its own: what their files say, and
//! that resuming them gives what an uninterrupted run gives, bit for bit.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{dbp_host, end, json, json_lines, only_run};
use serde_json::Value;

/// Everything that a checkpoint has to bring back: weights, R, dropout's and the sampled rows' places, the script's draws, the
/// momentum in buffers; and, with `own` false, AdamW's moments and a schedule that R follows.
const SCRIPT: &str = r#"
let own = arg("own", true);
let net = models::custom();
let body = net.child("body");
body.layer_norm("norm", 6);
body.linear("fc", 6, 12, #{ behind: "norm" });
body.dropout("drop", 0.3);
body.forward = |m, x| m.drop.forward(m.fc.forward(m.norm.forward(x)).gelu());
net.linear("head", 12, 1);
net.parameter("scale", [1], "ones");
net.forward = |m, x| m.head.forward(m.body.forward(x)) * m.scale;
net.loss = |m, batch| nn::mse_loss(m.forward(batch.x), batch.y);
let rate = schedule::custom(40, |step| 0.02 / (step + 1));
net.decorrelate(["**"], #{ lr: 0.01, sample: 5, every: 2, schedule: if own { rate } else { "follow" } });

let velocity = #{};
let opt = ();
if own {
    for (name, i) in net.named_parameters().keys() {
        velocity[name] = net.buffer(`velocity${i}`, net.named_parameters()[name].zeros_like());
    }
} else {
    opt = optim::adamw(net, #{ lr: 0.02 });
}

let x = tensor::randn([32, 6]);
let run = run::start(#{ model: net, opt: opt, log_every: 1, save_every: 3, steps_per_epoch: if own { () } else { 4 } });
for step in run.steps(arg("steps", 10)) {
    for half in 0..2 {
        let part = x.slice(0, 16 * half, 16 * half + 16);
        net.loss(#{ x: part + 0.1 * tensor::randn([16, 6]), y: part.sum(1, true) }).backward();
    }
    if own {
        let weights = net.named_parameters();
        let gradients = net.gradients();
        no_grad(|| {
            for name in gradients.keys() {
                velocity[name].assign(0.9 * velocity[name] + gradients[name]);
                weights[name].assign(weights[name] - rate.at(step) * velocity[name]);
            }
        });
        net.zero_grad();
    } else {
        opt.step(rate.at(step));
    }
    net.update_decorrelation();
    run.log(#{ train_loss: net.last_loss() });
}
"#;

/// Figures of time and energy.
const OF_TIME: [&str; 4] = ["wall_s", "images_per_s", "energy_kwh", "co2_kg"];

fn start(folder: &Path, runs: &str, own: bool, steps: u32) -> PathBuf {
    fs::write(folder.join("own.rhai"), SCRIPT).unwrap();
    let mut command = dbp_host(folder);
    command.args(["own.rhai", "--runs", runs, "--set", &format!("own={own}"), "--set", &format!("steps={steps}")]);
    end(command).expect(0);
    only_run(&folder.join(runs))
}

fn lines(run: &Path) -> Vec<Value> {
    let mut lines = json_lines(&run.join("metrics.jsonl"));
    for line in &mut lines {
        OF_TIME.iter().for_each(|name| {
            line.as_object_mut().unwrap().remove(*name);
        });
    }
    lines
}

#[test]
fn a_run_without_a_loader_resumes_bit_for_bit() {
    for own in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let whole = start(folder.path(), "whole", own, 10);
        let parted = start(folder.path(), "parted", own, 5);
        let mut command = dbp_host(folder.path());
        command.arg("--resume").arg(&parted).args(["--set", "steps=10"]);
        end(command).expect(0);
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &Path| fs::read(run.join("checkpoints/last").join(file)).unwrap();
            assert!(read(&whole) == read(&parted), "own {own}: {file} differs");
        }
        assert_eq!(lines(&whole), lines(&parted), "own {own}");
        assert_eq!(lines(&whole).len(), 10);
        let losses: Vec<f64> = lines(&whole).iter().map(|line| line["train_loss"].as_f64().unwrap()).collect();
        assert!(losses[9] < losses[0], "{losses:?}");
        let draws = json(&parted.join("checkpoints/last/state.json"))["draws"].as_u64().unwrap();
        assert!(draws > 20, "the noise of every step is drawn: {draws}");
    }
}

#[test]
fn what_does_not_apply_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let own = start(folder.path(), "own", true, 2);
    let first = &json_lines(&own.join("metrics.jsonl"))[0];
    for name in ["epoch", "images_per_s", "lr"] {
        assert!(first.get(name).is_none(), "{name}: {first}");
    }
    assert!(first["train_loss"].is_number() && first["decor_loss"].is_number());
    let record = json(&own.join("run.json"));
    for name in ["images", "normalization"] {
        assert!(record.get(name).is_none(), "{name}");
    }
    assert!(record["energy"].get("kwh_per_thousand_images").is_none());
    assert!(!own.join("files.txt").exists());
    assert_eq!(record["decorrelated"], serde_json::json!(["body.fc", "head"]));

    let adamw = start(folder.path(), "adamw", false, 5);
    let last = json_lines(&adamw.join("metrics.jsonl")).pop().unwrap();
    assert_eq!(last["epoch"], 1.25);
    assert!(last["lr"].is_number() && last.get("images_per_s").is_none());
}

/// A checkpoint of a custom model goes back into one that is built in the same way, and into no other.
#[test]
fn a_custom_model_is_loaded_by_its_names() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        fn build(width) {
            let net = models::custom();
            net.linear("fc", 3, width);
            net.parameter("scale", [width], "normal");
            net.forward = |m, x| m.fc.forward(x) * m.scale;
            net
        }
        run::seed(1);
        let net = build(4);
        let run = run::start(#{ model: net, name: "first", energy: false });
        for step in run.steps(1) { }
        run::seed(2);
        let other = build(4);
        let x = tensor::ones([2, 3]);
        assert(!other.forward(x).allclose(net.forward(x)));
        other.load(arg("from", ""));
        assert(other.forward(x).allclose(net.forward(x)));
        build(5).load(arg("from", ""));
    "#;
    fs::write(folder.path().join("load.rhai"), script).unwrap();
    fs::create_dir(folder.path().join("earlier")).unwrap();
    let mut command = dbp_host(folder.path());
    command.arg("load.rhai");
    end(command).expect(1);
    let run = only_run(&folder.path().join("runs"));
    fs::rename(run, folder.path().join("earlier/run")).unwrap();
    let mut command = dbp_host(folder.path());
    command.args(["load.rhai", "--set", "from=earlier/run"]);
    let ended = end(command).expect(1);
    let wanted = "fc.weight: the checkpoint has shape [4, 3], the model [5, 3]";
    assert!(ended.stderr.contains(wanted), "{}", ended.stderr);
}
