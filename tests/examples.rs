//! Every example runs, small; and what the example of the design leans on: hooks, several runs, loops left early.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use common::{dbp_host, end, fill_with_pictures, json, json_lines, only_run};

#[test]
fn experiment_compares_three_choices() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{}/examples/experiment.rhai", env!("CARGO_MANIFEST_DIR"));
    let mut command = dbp_host(folder.path());
    command.arg(script).args(["--set", "steps=1", "--runs", "runs"]);
    let ended = end(command).expect(0);
    for choice in ["plain", "attention", "encoder"] {
        assert!(ended.stdout.contains(&format!("    {choice}: ")), "{}", ended.stdout);
    }
    let runs: Vec<_> = std::fs::read_dir(folder.path().join("runs")).unwrap().flatten().collect();
    assert_eq!(runs.len(), 1, "one parent for the three runs");
    let index = json(&runs[0].path().join("index.json"));
    let names: Vec<&str> = index["runs"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain", "attention", "encoder"]);
    for run in index["runs"].as_array().unwrap() {
        let record = json(&runs[0].path().join(run["dir"].as_str().unwrap()).join("run.json"));
        assert_eq!(record["status"], "done");
        let decorrelated = record["decorrelated"].as_array().unwrap().len();
        assert_eq!(
            decorrelated,
            match run["name"].as_str().unwrap() {
                "plain" => 0,
                "attention" => 8,
                _ => 17,
            }
        );
    }
}

/// The example's output, with these parameters.
fn example(name: &str, set: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dbp_host(folder.path());
    command.arg(format!("{}/examples/{name}.rhai", env!("CARGO_MANIFEST_DIR")));
    common::set(&mut command, set);
    end(command).expect(0).stdout
}

/// The first number behind `before` in `text`.
fn number(text: &str, before: &str) -> f64 {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {text}")).1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && !"-.".contains(c)).unwrap_or(rest.len());
    rest[..end].parse().unwrap_or_else(|_| panic!("no number behind {before:?} in {text}"))
}

#[test]
fn linear_regression_finds_its_line() {
    let said = example("linear_regression", &[]);
    assert!((number(&said, "slope ") - 3.0).abs() < 0.15 && (number(&said, "offset ") + 1.0).abs() < 0.15, "{said}");
}

#[test]
fn custom_layer_divides_the_spiral() {
    let said = example("custom_layer", &[]);
    assert!(number(&said, "parameters, ") > 95.0, "{said}");
}

#[test]
fn custom_loop_learns_a_sine() {
    let said = example("custom_loop", &[]);
    assert!(number(&said, "loss ") < 0.05, "{said}");
}

#[test]
fn autoencoder_learns() {
    let loss =
        |steps| number(&example("autoencoder", &[("steps", steps), ("batch", "8"), ("image_size", "16")]), "loss ");
    let (before, after) = (loss("1"), loss("20"));
    assert!(after < 0.8 * before, "{before} to {after}");
}

#[test]
fn ablation_grid_has_a_row_per_setting() {
    let said = example("ablation_grid", &[("steps", "1"), ("seeds", "[0, 1]"), ("sample", "[0.5]")]);
    let rows: Vec<&str> = said.lines().filter(|line| line.starts_with("decor_lr=")).collect();
    assert_eq!(rows.len(), 2, "{said}");
    for row in rows {
        let (_, figures) = row.rsplit_once("  2  ").expect("two seeds");
        let cells: Vec<f64> = figures.split(" ± ").map(|cell| cell.trim().parse().unwrap()).collect();
        assert!(cells.len() == 2 && cells.iter().all(|cell| *cell > 0.0), "two seeds, so a mean and a spread: {row}");
    }
    assert!(said.contains("best: decor_lr="), "{said}");
}

/// What a run calls by itself, with its loop in a module; and that its clock stands still when it has ended.
#[test]
fn hooks_are_called_and_the_clock_stops() {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), 40, 0);
    let script = r#"
        import "std/mae" as mae;
        let images = data::open("pictures");
        let recipe = mae::recipe("nano", #{ image_size: 32, batch: 16, steps: 4, every: 3 });
        let seen = [];
        for name in ["first", "second"] {
            let model = mae::build(recipe, images);
            model.decorrelate(["encoder.**"], recipe.dbp);
            let run = mae::pretrain(model, images, recipe, name);
            let ended = run.wall_s;
            run.untimed(|r| sleep(0.2));
            assert(run.wall_s == ended, "the clock ran on");
        }
        fn on_step(run) { print(`step ${run.step}`); }
        fn on_epoch(run) { print(`epoch ${run.epoch}`); if run.epoch == 1 { run.model.freeze_decorrelation(); } }
        fn on_validation(run) { print(`validated ${run.step}`); }
    "#;
    std::fs::write(folder.path().join("hooks.rhai"), script).unwrap();
    let mut command = dbp_host(folder.path());
    command.arg("hooks.rhai");
    let ended = end(command).expect(0);
    let said = |line: &&str| ["step ", "epoch ", "validated "].iter().any(|word| line.starts_with(word));
    let hooks: Vec<&str> = ended.stdout.lines().filter(said).collect();
    let once = ["step 1", "step 2", "epoch 1", "step 3", "validated 3", "step 4", "epoch 2", "validated 4"];
    assert_eq!(hooks, [once, once].concat());
    let parent = std::fs::read_dir(folder.path().join("runs")).unwrap().flatten().next().unwrap().path();
    let lines = json_lines(&parent.join("1-first/metrics.jsonl"));
    assert!(lines[0].get("decor_loss").is_some());
    // Frozen at step 2: a rate and a loss of long ago would pass for today's.
    assert!(lines.last().unwrap().get("decor_loss").is_none() && lines.last().unwrap().get("decor_lr").is_none());
}

/// A loop that is left by `break` counts the step it left, and leaves the rest of the script as it found it.
#[test]
fn a_loop_may_be_left_early() {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), 40, 0);
    let script = r#"
        import "std/mae" as mae;
        let images = data::open("pictures");
        let model = mae::build(mae::recipe("nano", #{ image_size: 32 }), images);
        let loader = data::loader(images, #{ batch: 8, image_size: 32 });
        let opt = optim::adamw(model, #{ lr: 0.001 });
        let run = run::start(#{ model: model, opt: opt, loader: loader });
        for step in run.steps(10) {
            for batch in loader.micro(step) { model.loss(batch).backward(); }
            opt.step();
            if step == 2 { break; }
        }
    "#;
    std::fs::write(folder.path().join("early.rhai"), script).unwrap();
    let mut command = dbp_host(folder.path());
    command.arg("early.rhai");
    end(command).expect(0);
    let run = only_run(&folder.path().join("runs"));
    let record = json(&run.join("run.json"));
    assert_eq!((record["status"].as_str(), record["step"].as_u64()), (Some("done"), Some(3)));
    assert_eq!(json(&run.join("checkpoints/last/state.json"))["step"], 3);
}
