//! What a run says of memory, what it says when there is too little, and `--tf32` where there is no CUDA.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::Path;
use std::process::Command;

mod common;
use common::{Ended, dbp_host, end, json, only_run, set};

const PRETRAIN: [(&str, &str); 5] =
    [("recipe", "nano"), ("steps", "2"), ("batch", "8"), ("image_size", "32"), ("subset", "40")];

fn script(folder: &Path, text: &str, options: &[&str]) -> Ended {
    fs::write(folder.join("test.rhai"), text).unwrap();
    let mut command = dbp_host(folder);
    command.arg("test.rhai").args(options);
    end(command)
}

#[test]
fn a_run_says_how_much_memory_it_takes() {
    let place = tempfile::tempdir().unwrap();
    let mut command = dbp_host(place.path());
    command.arg(common::pretrain());
    set(&mut command, &PRETRAIN);
    let ended = end(command).expect(0);
    if !Path::new("/proc/self/status").exists() {
        return;
    }
    let last = ended.stderr.lines().rfind(|line| line.contains(" 2/2 ")).unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(last.contains(" · memory ") && last.contains("B, peak "), "{last}");
    let peak = json(&only_run(&place.path().join("runs")).join("run.json"))["peak_memory_bytes"].as_u64().unwrap();
    assert!((50 << 20..64 << 30).contains(&peak), "{peak}");
    let mut list = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    list.current_dir(place.path()).args(["runs", "--json"]);
    let listed = end(list).expect(0).stdout;
    assert!(listed.contains(&format!("\"peak_memory_bytes\": {peak}")), "{listed}");
}

#[test]
fn refused_memory_ends_with_the_numbers_and_a_suggestion() {
    let place = tempfile::tempdir().unwrap();
    let unbounded = ["--max-tensor-bytes", "9000000000000000000"];
    let ended = script(place.path(), "let x = tensor::zeros([1000000, 1000000, 1000]);", &unbounded).expect(4);
    let expected = "error: the machine is out of memory: 4000000.0 GB were asked for at once";
    assert!(ended.stderr.starts_with(expected), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: a smaller model, image or batch"), "{}", ended.stderr);
    let in_training = "let images = data::open(#{ name: \"wirebond\", size: 32, count: 8 });\n\
        let loader = data::loader(images, #{ batch: 8, micro_batches: 2, image_size: 32 });\n\
        for batch in loader.micro(0) {\n\
            tensor::zeros([1000000, 1000000, 1000]);\n\
        }";
    let ended = script(place.path(), in_training, &unbounded).expect(4);
    for part in
        ["a pass takes 4 images, a step 2 times as many", "test.rhai:4:", "micro_batch: 2 (gradients accumulate"]
    {
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn tf32_is_recorded_and_says_where_it_has_no_effect() {
    let place = tempfile::tempdir().unwrap();
    let mut command = dbp_host(place.path());
    command.arg(common::pretrain()).arg("--tf32");
    set(&mut command, &PRETRAIN);
    let ended = end(command).expect(0);
    assert!(ended.stderr.contains("--tf32 changes nothing here: it is for CUDA"), "{}", ended.stderr);
    let run = only_run(&place.path().join("runs"));
    assert_eq!(json(&run.join("run.json"))["options"]["tf32"], true);
    // The most that there ever was stays when a run goes on.
    let (path, most) = (run.join("run.json"), 1_u64 << 50);
    let mut record = json(&path);
    record["peak_memory_bytes"] = most.into();
    fs::write(&path, record.to_string()).unwrap();
    let mut command = dbp_host(place.path());
    command.arg("--resume").arg(&run);
    set(&mut command, &[("steps", "3")]);
    end(command).expect(0);
    assert_eq!(json(&path)["options"]["tf32"], true);
    assert_eq!(json(&path)["peak_memory_bytes"], most);
}
