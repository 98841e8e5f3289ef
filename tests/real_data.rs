//! Real photographs, in the folder that `DBP_TEST_DATA` names. They may not be redistributed, so they are no part of the
//! repository: without the variable each test says so and ends; with it, a set that is missing is a failure.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
fn tiny_imagenet_in_archives_is_the_same_run() {
    let Some(data) = data("tiny_imagenet") else { return };
    let shards = tempfile::tempdir().unwrap();
    let names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 10_000);
    for (number, part) in names.chunks(3000).enumerate() {
        let archive = shards.path().join(format!("tiny-{number:06}.tar"));
        let status = Command::new("tar").current_dir(&data).arg("-chf").arg(archive).args(part).status();
        assert!(status.unwrap().success());
    }
    let changes = [("steps", "2"), ("batch", "64"), ("every", "2"), ("image_size", "32"), ("crop", "random")];
    let ((_a, folder), (_b, archives)) = (pretrain(&data, &changes), pretrain(shards.path(), &changes));
    assert_eq!(val_losses(&folder), val_losses(&archives));
    let read = |run: &Path| fs::read_to_string(run.join("files.txt")).unwrap();
    assert_eq!(read(&folder), read(&archives));
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

/// Runs a script of these lines, which may read `folder`, and returns what it printed.
fn script(folder: &Path, text: &str) -> String {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("test.rhai"), text).unwrap();
    let mut command = dbp_host(place.path());
    command.arg("test.rhai").arg("--allow-read").arg(folder);
    end(command).expect(0).stdout
}

/// Panics unless every one of `parts` is in `text`.
fn check(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// A training batch and a pass over the validation part of `d`.
const BATCHES: &str = "let parts = d.split(0.34);
    let l = data::pair_loader(parts.train, #{ batch: 2, image_size: [96, 128], long_edge: [100, 200], eval_edge: 128 });
    for b in l.micro(0) { print(`train ${b.images.shape} ${b.masks.shape}`); }
    let images = 0;
    for b in l.validation(parts.val).batches() {
        images += b.size;
        if b.masks.shape[0] != b.size { throw \"masks\" }
    }
    print(`val ${images}`); print(`skipped ${d.skipped().len()}`); d.describe();";

#[test]
fn street_scenes_with_masks() {
    let Some(data) = data("camvid") else { return };
    let text = script(&data, &format!("let d = data::open({data:?});\n{BATCHES}"));
    check(&text, &["train [2, 3, 96, 128] [2, 96, 128]", "val 34", "skipped 0", "images      123", "bicyclist"]);
}

#[test]
fn ade20k_in_its_own_layout() {
    let Some(data) = data("ade20k_mini") else { return };
    let text = script(&data, &format!("let d = data::open({data:?});\n{BATCHES}"));
    check(&text, &["val 1", "skipped 0", "images      2", "149  flag"]);
}

#[test]
fn defects_beside_their_pictures() {
    let Some(data) = data("magnetic_tile") else { return };
    let open = format!(
        "let d = data::open(#{{ images: {data:?}, masks: {data:?}, classes: [\"background\", \"defect\"], \
         binary_threshold: 128 }});\n"
    );
    // 392 with defects, four of whose masks are empty, and 318 without any.
    check(&script(&data, &(open + BATCHES)), &["val 241", "skipped 0", "images      710", "empty masks 322", "388"]);
    let labels = format!(
        "let d = data::open(#{{ folder: {data:?}, labels: \"folders\", image_extension: \"jpg\", channels: 1 }});
         d.describe();"
    );
    check(&script(&data, &labels), &["images      710", "MT_Uneven", "channels    1"]);
}

#[test]
fn palette_masks_are_indices() {
    let Some(data) = data("labelme_voc/data_dataset_voc") else { return };
    let (images, masks) = (data.join("JPEGImages"), data.join("SegmentationClass"));
    let text = format!("let d = data::open(#{{ images: {images:?}, masks: {masks:?}, classes: 21 }});\n{BATCHES}");
    check(&script(&data, &text), &["skipped 0", "images      3", "15  class 15", "ignored     1.91 %"]);
}

#[test]
fn classes_in_file_names() {
    let Some(data) = data("imagenet_sample") else { return };
    let text = format!(
        "let d = data::open(#{{ folder: {data:?}, labels: \"prefix\" }});
         let l = data::loader(d, #{{ batch: 8, image_size: 32 }});
         for b in l.micro(0) {{ print(b.labels.shape); }} print(d.classes.len());"
    );
    check(&script(&data, &text), &["[8]", "476"]);
}

#[test]
fn odd_files_as_masks_never_panic() {
    let Some(data) = data("oddities/pngsuite") else { return };
    // Every picture is its own mask: most are no label maps, and all of them are summed up or named.
    let text = format!(
        "for options in [#{{ binary_threshold: 128 }}, #{{ classes: 4 }}, #{{ classes: 255 }}, #{{ colors: [[0, 0, 0], [255, 0, 0]] }}] {{
            try {{ let d = data::open(options + #{{ images: {data:?}, masks: {data:?} + \"/.\", image_extension: \"png\",
                mask_extension: \"png\" }}); d.describe(); }} catch (err) {{ print(err.message); }}
         }} print(\"done\");"
    );
    check(&script(&data, &text), &["done", "images      "]);
}

/// `scripts/finetune.rhai`, a few steps: the table of scores, and the figure that brightness alone reaches.
fn finetune(changes: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = dbp_host(folder.path());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/finetune.rhai"));
    let small = [("steps", "2"), ("batch", "2"), ("image_size", "64"), ("long_edge", "[64, 96]"), ("eval_edge", "64")];
    set(&mut command, &[&small[..], changes].concat());
    end(command).expect(0).stdout
}

#[test]
fn street_scenes_are_segmented() {
    let Some(camvid) = data("camvid") else { return };
    let said = finetune(&[("data", &camvid.display().to_string())]);
    assert!(said.contains("pedestrian") && said.contains("brightness      12.83 %"), "{said}");
}

#[test]
fn defects_are_segmented_from_antialiased_masks() {
    let Some(tiles) = data("magnetic_tile") else { return };
    let tiles = tiles.display().to_string();
    let spec = serde_json::json!({
        "images": tiles, "masks": tiles, "classes": ["background", "defect"], "binary_threshold": 128,
    });
    let said =
        finetune(&[("data", &spec.to_string()), ("subset", "60"), ("val_fraction", "0.05"), ("balance", "true")]);
    assert!(said.contains("defect") && said.contains("mIoU            "), "{said}");
}
