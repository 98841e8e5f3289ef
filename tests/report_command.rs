//! `dbp-host report` as a program: where it writes, what it says, and how it ends.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;
mod report_runs;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Ended, end};
use report_runs::Made;
use serde_json::json;

fn report(folder: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.arg("report").args(args);
    end(command)
}

#[test]
fn text_goes_to_stdout_and_files_where_they_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let one = Made::new("bp-0", 0, &[0.9, 0.8]).write(&folder.path().join("runs/one"));
    Made::new("bp-1", 1, &[0.9, 0.7]).write(&folder.path().join("runs/two"));
    let ended = report(folder.path(), &["runs/one", "--csv", "tables/new"]).expect(0);
    assert!(ended.stdout.starts_with("study\n═════\n") && ended.stdout.contains("0.8000"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "2 tables as CSV: tables/new\npage: runs/one/report.html\n");
    assert!(fs::read_to_string(one.join("report.html")).unwrap().contains("0.8000"));
    let csv = fs::read_to_string(folder.path().join("tables/new/study-figures.csv")).unwrap();
    assert_eq!(csv, "arm,n,best,at step,final\r\nbp,1,0.8,100,0.8\r\n");
    // Several go into the current folder, and one elsewhere if asked; without a page nothing is written.
    let ended = report(folder.path(), &["runs/one", "runs/two"]).expect(0);
    assert_eq!(ended.stderr, "page: report.html\n");
    let page = fs::read(folder.path().join("report.html")).unwrap();
    report(folder.path(), &["runs/two", "runs/one", "--out", "else/where.html"]).expect(0);
    assert_eq!(fs::read(folder.path().join("else/where.html")).unwrap(), page);
    let ended = report(folder.path(), &["runs", "--no-html"]).expect(0);
    assert!(ended.stderr.is_empty() && !folder.path().join("runs/report.html").exists(), "{}", ended.stderr);
}

#[test]
fn it_fails_only_where_there_is_nothing_to_report() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    Made::new("bp-0", 0, &[0.9, 0.8]).write(&runs.join("good"));
    fs::create_dir_all(runs.join("bad")).unwrap();
    let ended = report(folder.path(), &["runs"]).expect(0);
    assert!(ended.stdout.contains("left out: runs/bad: no run.json"), "{}", ended.stdout);
    let ended = report(folder.path(), &["runs/bad", "nowhere"]).expect(1);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    for part in [
        "left out: nowhere: there is no such directory",
        "left out: runs/bad: it holds no runs",
        "error: no run could be read",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    for args in [&[][..], &["runs", "--band", "se"], &["runs", "--no-html", "--out", "x"]] {
        report(folder.path(), args).expect(2);
    }
    let ended = report(folder.path(), &["runs", "--baseline", "adam"]).expect(2);
    assert_eq!(ended.stderr, "error: baseline: expected one of bp, got adam\n");
    let ended = report(folder.path(), &["runs", "--by", "speed"]).expect(2);
    assert!(ended.stderr.starts_with("error: by: expected a key that runs differ in"), "{}", ended.stderr);
}

#[test]
fn options_reach_the_report() {
    let folder = tempfile::tempdir().unwrap();
    for (name, lr, seed) in [("a", 0.1, 0), ("a", 0.1, 1), ("b", 0.2, 0), ("b", 0.2, 1)] {
        let loss = lr + 0.01 * seed as f64;
        let made = Made::new(&format!("{name}-{seed}"), seed, &[0.9, loss]);
        made.with(json!({ "recipe": { "lr": lr } })).write(&folder.path().join(format!("runs/{name}{seed}")));
    }
    let args = [
        "runs",
        "--no-html",
        "--by",
        "lr",
        "--baseline",
        "lr 0.2",
        "--band",
        "ci",
        "--figure",
        "train_loss",
        "--title",
        "Mine",
    ];
    let text = report(folder.path(), &args).expect(0).stdout;
    for part in
        ["Mine\n════\n", "compared with lr 0.2", "Training loss: best", "confidence interval of the mean", "lr 0.1"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}
