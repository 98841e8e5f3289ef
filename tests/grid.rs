//! Grids as a user meets them: what is done is not done again, what fails stops nothing, and a stop loses nothing.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Ended, Guarded, dbp_host, end, json, only_run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Two rates and as many seeds as it is told, each of five steps whose losses the cell alone decides. With `slow`, a cell of the second seed
/// says that it has come to its third step and waits there for the file `go`.
const SCRIPT: &str = r#"
let fails = arg("fails", 0.0);
let scale = arg("scale", 1.0);
let slow = arg("slow", false);
let plan = #{ settings: [#{ lr: 0.1 }, #{ lr: 0.2 }], seeds: arg("seeds", [0, 1]), over: ["slow"], baseline: #{ lr: 0.1 } };
let results = run::grid(plan, |cell| {
    let model = nn::linear(2, 1);
    let opt = optim::adamw(model, #{ lr: cell.lr });
    let run = run::start(#{ model: model, opt: opt, log_every: 1, save_every: 1 });
    for step in run.steps(5) {
        if step == 2 && cell.lr == fails { throw "no luck with this one"; }
        if step == 2 && slow && cell.seed == 1 {
            print("waiting");
            while true { sleep_a_while(); }
        }
        model.forward(tensor::ones([3, 2])).mean().backward();
        opt.step();
        run.log(#{ val_loss: cell.lr * (scale + tensor::rand([1]).item()) });
    }
});
for r in results {
    let loss = if type_of(r.best) == "()" { "none" } else { fixed(r.best.val_loss, 9) };
    print(`${r.name} ${r.status} ${loss}`);
}
fn sleep_a_while() { let x = 0; for i in 0..100 { x += i; } }
"#;

fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("g.rhai"), SCRIPT).unwrap();
    folder
}

fn grid(folder: &Path, args: &[&str]) -> Ended {
    let mut command = dbp_host(folder);
    command.arg("g.rhai").args(args);
    end(command)
}

fn parents(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(folder.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// What a grid's directory holds of every cell that does not depend on clocks, by cell.
fn results(parent: &Path) -> Vec<(String, String)> {
    let index = json(&parent.join("index.json"));
    let mut all: Vec<(String, String)> = Vec::new();
    for run in index["runs"].as_array().unwrap() {
        let dir = parent.join(run["dir"].as_str().unwrap());
        let record = json(&dir.join("run.json"));
        let lines = fs::read_to_string(dir.join("metrics.jsonl")).unwrap_or_default();
        let losses: Vec<String> = lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["val_loss"].to_string())
            .collect();
        let facts = format!("{} {} {} {losses:?}", record["status"], record["cell"], record["best"]);
        all.push((run["name"].as_str().unwrap().to_owned(), facts));
    }
    all.sort();
    all
}

#[test]
fn what_is_done_is_not_done_again_and_new_seeds_join_it() {
    let folder = place();
    let first = grid(folder.path(), &[]).expect(0);
    assert_eq!(first.stdout.lines().count(), 4, "{}", first.stdout);
    let parent = only_run(&folder.path().join("runs"));
    let before = results(&parent);
    let stamp = |name: &str| fs::metadata(parent.join(name).join("run.json")).unwrap().modified().unwrap();
    let touched = stamp("lr-0.1-seed-0");

    let again = grid(folder.path(), &[]).expect(0);
    assert!(again.stderr.contains("grid: 4 cells, 4 of them done already"), "{}", again.stderr);
    assert_eq!(again.stdout, first.stdout);
    let more = grid(folder.path(), &["--set", "seeds=[0,1,2]"]).expect(0);
    assert!(more.stderr.contains("grid: 6 cells, 4 of them done already"), "{}", more.stderr);
    assert!(more.stdout.starts_with(&first.stdout), "{}", more.stdout);
    assert_eq!(parents(folder.path()), std::slice::from_ref(&parent));
    let after = results(&parent);
    assert!(after.len() == 6 && before.iter().all(|cell| after.contains(cell)), "{after:#?}");
    assert_eq!(stamp("lr-0.1-seed-0"), touched, "what is done is not even written to");
    assert_eq!(json(&parent.join("index.json"))["grids"][0]["seeds"], serde_json::json!([0, 1, 2]));

    // A comment is nothing that runs; an argument and a number are.
    fs::write(folder.path().join("g.rhai"), format!("// Said differently.\n{SCRIPT}")).unwrap();
    grid(folder.path(), &[]).expect(0);
    assert_eq!(parents(folder.path()).len(), 1);
    grid(folder.path(), &["--set", "scale=2"]).expect(0);
    assert_eq!(parents(folder.path()).len(), 2);
    fs::write(folder.path().join("g.rhai"), SCRIPT.replace("run.steps(5)", "run.steps(4)")).unwrap();
    grid(folder.path(), &[]).expect(0);
    assert_eq!(parents(folder.path()).len(), 3);
}

#[test]
fn several_at_once_come_to_the_same_as_one_after_another() {
    let (one, many) = (place(), place());
    let first = grid(one.path(), &[]).expect(0);
    let second = grid(many.path(), &["--jobs", "3"]).expect(0);
    assert_eq!(first.stdout, second.stdout);
    let parent = only_run(&many.path().join("runs"));
    assert_eq!(results(&only_run(&one.path().join("runs"))), results(&parent));
    assert!(parent.join("lr-0.1-seed-0/output.txt").exists());
}

#[test]
fn a_cell_that_fails_is_told_counted_and_tried_again() {
    for jobs in ["1", "2"] {
        let folder = place();
        let ended = grid(folder.path(), &["--set", "fails=0.2", "--jobs", jobs]).expect(1);
        assert!(ended.stderr.contains("no luck with this one"), "{}", ended.stderr);
        assert!(ended.stderr.contains(".rhai:11:44"), "its place is told, too: {}", ended.stderr);
        assert!(
            ended.stderr.contains("error: 2 cells of the grid failed: lr=0.2 seed=0, lr=0.2 seed=1"),
            "{}",
            ended.stderr
        );
        assert!(ended.stdout.contains("lr=0.1 seed=1 done") && ended.stdout.contains("lr=0.2 seed=1 failed"));
        let parent = only_run(&folder.path().join("runs"));
        let record = json(&parent.join("lr-0.2-seed-1/run.json"));
        assert_eq!(record["status"], "failed");
        assert!(record["error"].as_str().unwrap().contains("no luck"), "{record}");
        let again = grid(folder.path(), &["--set", "fails=0.2", "--jobs", jobs]).expect(1);
        assert!(again.stderr.contains("4 cells, 2 of them done already"), "{}", again.stderr);
    }
}

/// What `dbp-host report` says of a grid, clocks aside: settings, best and final figures, and their tests.
fn reported(parent: &Path) -> String {
    let tables = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.arg("report").arg(parent).args(["--no-html", "--csv"]).arg(tables.path());
    Ended::of(command.output().unwrap()).expect(0);
    let read = |name: &str| {
        let all: Vec<PathBuf> = fs::read_dir(tables.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let found = all.iter().find(|path| path.to_string_lossy().ends_with(name));
        fs::read_to_string(found.unwrap_or_else(|| panic!("no {name} among {all:?}"))).unwrap()
    };
    let figures = read("figures.csv");
    let columns = figures.lines().next().unwrap().split(',').take_while(|column| !column.starts_with("at 0")).count();
    assert!(columns >= 9, "{figures}");
    let cut = |line: &str| line.split(',').take(columns).collect::<Vec<_>>().join(",") + "\n";
    let tests = read("tests.csv");
    let untimed = tests.lines().filter(|line| line.contains(",best,") || line.contains(",final,"));
    let untimed: Vec<&str> = untimed.collect();
    assert_eq!(untimed.len(), 2, "{tests}");
    [figures.lines().map(cut).collect::<String>(), read("settings.csv"), untimed.join("\n")].concat()
}

/// Waits until `path` holds `text`.
fn wait_for(path: &Path, text: &str) {
    let begun = Instant::now();
    while !fs::read_to_string(path).is_ok_and(|found| found.contains(text)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} never came to hold {text}", path.display());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stopped_grid_ends_as_one_that_was_not() {
    let whole = place();
    let want = grid(whole.path(), &[]).expect(0);
    let report = reported(&only_run(&whole.path().join("runs")));
    for (jobs, signal) in [("1", Signal::SIGINT), ("1", Signal::SIGKILL), ("2", Signal::SIGINT), ("2", Signal::SIGKILL)]
    {
        let folder = place();
        let mut command = dbp_host(folder.path());
        command.args(["g.rhai", "--set", "slow=true", "--jobs", jobs]);
        let mut child = Guarded::new(&mut command);
        let mut first = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
        let parent = only_run(&folder.path().join("runs"));
        wait_for(&parent.join("lr-0.1-seed-1/output.txt"), "waiting");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        if signal == Signal::SIGINT {
            // The script is not at a step's boundary and never will be: a second signal is needed, as a person would find out.
            thread::sleep(Duration::from_millis(300));
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        }
        let _ = child.wait();
        // Workers go with the one that started them; what they held is free again.
        let again = grid(folder.path(), &[]).expect(0);
        assert!(again.stderr.contains("of them done already"), "{}", again.stderr);
        assert_eq!(again.stdout, want.stdout, "{jobs} {signal}");
        assert_eq!(results(&parent), results(&only_run(&whole.path().join("runs"))), "{jobs} {signal}");
        assert_eq!(reported(&parent), report, "{jobs} {signal}");
        assert!(parent.join("report.html").exists(), "a page lies beside the runs");
    }
}

#[test]
fn ctrl_c_saves_the_cell_that_runs() {
    let folder = place();
    fs::write(
        folder.path().join("g.rhai"),
        SCRIPT.replace("while true { sleep_a_while(); }", "for i in 0..40000 { sleep_a_while(); }"),
    )
    .unwrap();
    for jobs in ["1", "2"] {
        let mut command = dbp_host(folder.path());
        let scale = format!("scale={jobs}");
        command.args([
            "g.rhai",
            "--set",
            "slow=true",
            "--set",
            &scale,
            "--jobs",
            jobs,
            "--max-operations",
            "1000000000",
        ]);
        let mut child = Guarded::new(&mut command);
        let mut first = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
        let parent = parents(folder.path()).pop().unwrap();
        wait_for(&parent.join("lr-0.1-seed-1/output.txt"), "waiting");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let output = Ended::of(child.output());
        assert_eq!(output.code, Some(130), "{}", output.stderr);
        let record = json(&parent.join("lr-0.1-seed-1/run.json"));
        assert_eq!((&record["status"], &record["step"]), (&"interrupted".into(), &3.into()), "{record}");
    }
}

/// A grid whose cells read what another grid's came to.
#[test]
fn a_cell_is_made_anew_where_what_it_reads_was() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
let lr = arg("lr", 0.1);
fn train(cell, loss) {
    let run = run::start(#{ model: nn::linear(1, 1) });
    for step in run.steps(1) { run.log(#{ val_loss: loss }); }
}
let rate = if files_say_so() { 0.5 } else { 0.25 };
let before = run::grid(#{ name: "before", settings: [#{ label: "a", lr: rate }], over: ["lr"] }, |cell| train(cell, cell.lr));
let after = run::grid(#{ name: "after", settings: [#{ label: "b" }], after: before }, |cell| {
    train(cell, 10.0 * before[0].best.val_loss)
});
print(after[0].best.val_loss);
fn files_say_so() { data::open("photos").len() > 1 }
"#;
    fs::write(folder.path().join("g.rhai"), text).unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();
    let photo = |name: &str| fs::write(folder.path().join("photos").join(name), common::png(1)).unwrap();
    photo("1.png");
    assert_eq!(grid(folder.path(), &[]).expect(0).stdout, "2.5\n");
    photo("2.png");
    let again = grid(folder.path(), &[]).expect(0);
    assert_eq!(again.stdout, "5.0\n", "{}", again.stderr);
    let parent = only_run(&folder.path().join("runs"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.arg("report").arg(&parent).arg("--no-html");
    let report = Ended::of(command.output().unwrap()).expect(0);
    assert!(report.stdout.contains("2 runs: 2 done"), "{}", report.stdout);
    assert_eq!(report.stdout.matches("its grid has made this").count(), 2, "{}", report.stdout);
}

#[test]
fn workers_see_what_the_process_that_started_them_sees() {
    let folder = tempfile::tempdir().unwrap();
    let (project, secret) = (folder.path().join("project"), folder.path().join("secret"));
    for place in [project.join("photos"), secret.clone()] {
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("1.png"), common::png(1)).unwrap();
    }
    // A folder beside the script, by a relative default; a computed default; and one that no default makes readable.
    let text = |data: &str| {
        format!(
            r#"
let images = data::open(arg("data", "{data}"));
let base = 2.0;
let results = run::grid(#{{ settings: [#{{ a: 1 }}, #{{ a: 2 }}] }}, |cell| {{
    let k = arg("k", base * 2.0);
    let run = run::start(#{{ model: nn::linear(1, 1) }});
    for step in run.steps(1) {{ run.log(#{{ val_loss: k * cell.a }}); }}
}});
for r in results {{ print(r.best.val_loss); }}
"#
        )
    };
    fs::write(project.join("g.rhai"), text("photos")).unwrap();
    let run = |args: &[&str]| {
        let mut command = dbp_host(folder.path());
        command.arg("project/g.rhai").args(args);
        end(command)
    };
    for jobs in ["1", "2"] {
        assert_eq!(run(&["--jobs", jobs, "--runs", &format!("runs{jobs}")]).expect(0).stdout, "4.0\n8.0\n");
        let k = run(&["--jobs", jobs, "--runs", &format!("runs{jobs}"), "--set", "k=5.0"]).expect(0);
        assert_eq!(k.stdout, "5.0\n10.0\n");
    }
    fs::write(project.join("g.rhai"), text(secret.to_str().unwrap())).unwrap();
    for jobs in ["1", "2"] {
        let refused = run(&["--jobs", jobs]).expect(1);
        assert!(refused.stderr.contains("may not read"), "{}", refused.stderr);
    }
}

#[test]
fn what_fails_behind_the_last_step_has_failed() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"
let results = run::grid(#{ settings: [#{ a: 1 }] }, |cell| {
    let run = run::start(#{ model: nn::linear(1, 1) });
    for step in run.steps(1) { run.log(#{ val_loss: 1.0 }); }
    throw "afterwards";
});
"#;
    fs::write(folder.path().join("g.rhai"), text).unwrap();
    for _ in 0..2 {
        let failed = grid(folder.path(), &[]).expect(1);
        assert!(failed.stderr.contains("afterwards"), "{}", failed.stderr);
    }
    let parent = only_run(&folder.path().join("runs"));
    assert_eq!(json(&parent.join("all-seed-0/run.json"))["status"], "failed");
}

#[test]
fn a_resumed_grid_keeps_its_arguments() {
    let folder = place();
    grid(folder.path(), &[]).expect(0);
    let parent = only_run(&folder.path().join("runs"));
    let resume = |args: &[&str]| {
        let mut command = dbp_host(folder.path());
        command.arg("--resume").arg(&parent).args(args);
        end(command)
    };
    let same = resume(&[]).expect(0);
    assert!(same.stderr.contains("4 cells, 4 of them done already"), "{}", same.stderr);
    let more = resume(&["--set", "seeds=[0,1,2]", "--jobs", "2"]).expect(0);
    assert!(more.stderr.contains("6 cells, 4 of them done already"), "{}", more.stderr);
    let other = resume(&["--set", "scale=2.0"]).expect(2);
    assert!(other.stderr.contains("its cells were made from other arguments"), "{}", other.stderr);
}

#[test]
fn what_cannot_be_a_grid_is_an_error_of_the_script() {
    let folder = place();
    let refused = |text: &str, code: i32, args: &[&str]| {
        fs::write(folder.path().join("bad.rhai"), text).unwrap();
        let mut command = dbp_host(folder.path());
        command.arg("bad.rhai").args(args);
        end(command).expect(code).stderr
    };
    let run = "let m = nn::linear(1, 1); let run = run::start(#{ model: m }); for s in run.steps(1) { run.log(#{ val_loss: 1 }); }";
    let of = |options: &str| format!("run::grid(#{{ {options} }}, |cell| {{ {run} }});");
    for (options, says) in [
        ("settings: []", "settings: expected one or more"),
        ("settings: [1]", "settings: expected a list of maps"),
        ("settings: [#{ seed: 1 }]", "settings: `seed` is the cell's own"),
        ("settings: [#{ m: nn::linear(1, 1) }]", "settings: m: expected a number, text, a flag, a list or a map"),
        ("settings: [#{ a: 1 }], seeds: [-1]", "seeds: expected numbers from 0, got -1"),
        ("settings: [#{ a: 1 }, #{ a: 1 }]", "grid: two cells are called \"all seed=0\""),
        ("settings: [#{ a: 1 }], baseline: #{ a: 2 }", "baseline: no setting has these entries"),
        ("settings: [#{ a: 1 }], over: [\"sedes\"]", "over: the script has no parameter sedes"),
    ] {
        let said = refused(&of(options), 1, &[]);
        assert!(said.contains(says), "{options}: {said}");
    }
    let twice = of("settings: [#{ a: 1 }]").repeat(2);
    let said = refused(&twice, 1, &[]);
    assert!(said.contains("there is one called \"grid\" already"), "{said}");
    let said = refused(&of("settings: [#{ a: 1 }]"), 2, &["--seed", "1"]);
    assert!(said.contains("a grid has seeds of its own"), "{said}");
    let said = refused("run::grid(#{ settings: [#{ a: 1 }] }, |cell| 1);", 1, &[]);
    assert!(said.contains("this cell started no run"), "{said}");
    let said = refused(&format!("run::grid(#{{ settings: [#{{ a: 1 }}] }}, |cell| {{ {run} {run} }});"), 1, &[]);
    assert!(said.contains("a cell is one run, and this one starts a second"), "{said}");
}
