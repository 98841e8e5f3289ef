//! Real photographs, in the folder that `DBP_TEST_DATA` names. They may not be redistributed, so they are no part of the
//! repository: without the variable each test says so and ends; with it, a set that is missing is a failure.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

mod common;
use common::{dbp_host, end, json, json_lines, only_run, set, val_losses};

/// A set of the folder; `None`, and a word about it, if no folder is named.
fn data(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("DBP_TEST_DATA") else {
        eprintln!("skipped: DBP_TEST_DATA names no folder of real images");
        return None;
    };
    let set = Path::new(&folder).join(name);
    Some(set.canonicalize().unwrap_or_else(|err| panic!("{}: {err}", set.display())))
}

/// Pre-trains on `data` and returns the run, with the folder that holds it.
fn pretrain(data: &Path, changes: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dbp_host(folder.path());
    command.arg(common::pretrain());
    set(set(&mut command, &[("data", data.to_str().unwrap()), ("recipe", "nano")]), changes);
    end(command).expect(0);
    let run = only_run(&folder.path().join("runs"));
    assert_eq!(json(&run.join("run.json"))["status"], "done");
    for line in json_lines(&run.join("metrics.jsonl")) {
        assert!(line["train_loss"].as_f64().is_some_and(f64::is_finite), "{line}");
    }
    assert!(val_losses(&run).last().is_some_and(|loss| loss.is_finite()));
    (folder, run)
}

/// How many files went into training and into validation.
fn files(run: &Path) -> (usize, usize) {
    let text = fs::read_to_string(run.join("files.txt")).unwrap();
    let count = |part: &str| text.lines().filter(|line| line.starts_with(part)).count();
    (count("train\t"), count("val\t"))
}

/// The names in `skipped.csv` with their reasons; none if there is no such file.
fn skipped(run: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(run.join("skipped.csv")).unwrap_or_default();
    let pairs = text.lines().skip(1).filter_map(|line| line.split_once(','));
    pairs.map(|(file, reason)| (file.to_owned(), reason.to_owned())).collect()
}

#[test]
fn tiny_imagenet_some_of_it_gray() {
    let Some(data) = data("tiny_imagenet") else { return };
    let (_folder, run) = pretrain(&data, &[("steps", "2"), ("batch", "64"), ("image_size", "32")]);
    assert_eq!(files(&run), (9000, 1000));
    assert_eq!(skipped(&run), []);
}

#[test]
fn photographs_of_all_sizes_gray_and_rotated() {
    let Some(data) = data("imagenet_sample") else { return };
    let (_folder, run) = pretrain(&data, &[("steps", "2"), ("batch", "32"), ("image_size", "64"), ("crop", "random")]);
    assert_eq!(files(&run), (429, 47));
    assert_eq!(skipped(&run), []);
}

#[test]
fn files_that_break_readers() {
    let Some(data) = data("oddities") else { return };
    // Small pictures of a few dozen pixels beside photographs; some cannot be read, and fewer than 21 of them.
    let (_folder, run) = pretrain(&data, &[("steps", "30"), ("batch", "8"), ("every", "30"), ("image_size", "32")]);
    let skipped = skipped(&run);
    assert!(skipped.len() >= 8, "{skipped:?}");
    assert!(skipped.iter().all(|(_, reason)| reason.len() > 10), "{skipped:?}");
    // PngSuite's corrupt files begin with x, every other one of it is fine.
    let (bad, fine): (Vec<_>, Vec<_>) = fs::read_to_string(run.join("files.txt"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split('\t').nth(1))
        .filter(|file| file.contains("pngsuite/"))
        .map(str::to_owned)
        .partition(|file| file.rsplit('/').next().unwrap().starts_with('x'));
    assert!(bad.iter().any(|file| skipped.iter().any(|(name, _)| name == file)), "{skipped:?}");
    assert!(fine.iter().all(|file| !skipped.iter().any(|(name, _)| name == file)), "{skipped:?}");
}

#[test]
fn industrial_pictures_gray_in_nested_folders() {
    let Some(data) = data("magnetic_tile") else { return };
    let (_folder, run) = pretrain(&data, &[("steps", "2"), ("batch", "32"), ("subset", "300"), ("image_size", "32")]);
    assert_eq!(files(&run), (270, 30));
    assert!(fs::read_to_string(run.join("files.txt")).unwrap().contains("/Imgs/"));
    assert_eq!(skipped(&run), []);
}

#[test]
fn street_scenes_as_png() {
    let Some(data) = data("camvid/train") else { return };
    let (_folder, run) = pretrain(&data, &[("steps", "2"), ("batch", "32")]);
    assert_eq!(files(&run), (111, 12));
    assert_eq!(skipped(&run), []);
}

#[test]
fn the_validation_loss_falls_under_decorrelation() {
    let Some(data) = data("tiny_imagenet") else { return };
    let changes =
        [("steps", "30"), ("batch", "64"), ("every", "5"), ("subset", "1500"), ("image_size", "32"), ("lr", "3e-3")];
    let (_folder, run) = pretrain(&data, &changes);
    let losses = val_losses(&run);
    assert_eq!(losses.len(), 6);
    assert!(losses[5] < 0.75 * losses[0], "{losses:?}");
    let decorrelation: Vec<f64> =
        json_lines(&run.join("metrics.jsonl")).iter().filter_map(|line| line["decor_loss"].as_f64()).collect();
    assert!(decorrelation.len() >= 6 && decorrelation.iter().all(|loss| loss.is_finite()), "{decorrelation:?}");
}
