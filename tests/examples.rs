//! Every example runs, small.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use common::{dbp_host, end, json};

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
    assert_eq!(names, ["attention", "encoder", "plain"]);
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
