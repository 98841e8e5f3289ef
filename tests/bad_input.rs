//! Wrong scripts, wrong data, wrong options, broken checkpoints: each ends with its exit code and a message that names
//! the thing, and nothing that was there before is lost.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use tempfile::TempDir;

mod common;
use common::{Ended, copy_folder, dbp_host, end, files_of, fill_with_pictures, jpeg, json, only_run, set};

/// Parameters and their values, for `--set`.
type Pairs = &'static [(&'static str, &'static str)];

/// A folder to work in, with `good` readable pictures and `bad` others.
fn workplace(good: u32, bad: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), good, bad);
    folder
}

/// The script that comes with the program at its smallest; `changes` win over what is set here.
fn small(folder: &Path, changes: &[(&str, &str)]) -> Command {
    let mut command = dbp_host(folder);
    command.arg(common::pretrain());
    let sizes = [("data", "pictures"), ("steps", "3"), ("batch", "8"), ("every", "2"), ("image_size", "32")];
    set(set(&mut command, &sizes), changes);
    command
}

/// Panics unless it ended with `code` and its message has every one of `parts`.
fn check(ended: Ended, code: i32, parts: &[&str]) {
    let ended = ended.expect(code);
    assert!(ended.stderr.contains("error: "), "{}", ended.stderr);
    for part in parts {
        assert!(ended.stderr.contains(part), "no {part:?} in:\n{}", ended.stderr);
    }
}

#[test]
fn a_wrong_script_is_shown_where_it_is_wrong() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("syntax", "let x = 1;\nlet y = (2;\n", &["syntax.rhai:2:"]),
        ("unknown", "let x = tensr::ones([2]);", &["unknown.rhai:1:", "tensr"]),
        ("function", "\nlet x = tensor::onez([2]);", &["function.rhai:2:", "onez", "did you mean", "ones"]),
        (
            "option",
            "let images = data::open(#{ name: \"wirebond\", size: 32, count: 8 });\n\
             let loader = data::loader(images, #{ batch: 4, imagesize: 32, image_size: 32 });",
            &["option.rhai:2:", "imagesize", "did you mean", "`image_size`"],
        ),
        (
            "kind",
            "let images = data::open(#{ name: \"wirebond\", size: 32, count: 8 });\n\
             let loader = data::loader(images, #{ batch: \"four\", image_size: 32 });",
            &["kind.rhai:2:", "batch", "a whole number", "four"],
        ),
        ("import", "import \"std/mea\" as mae;", &["import.rhai:1:", "std/mea", "std/mae"]),
        ("recipe", "import \"std/mae\" as mae;\nmae::recipe(\"nano\", #{ bacth: 3 });", &["recipe.rhai:2", "bacth"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, text, parts) in cases {
        fs::write(folder.path().join(format!("{name}.rhai")), text).unwrap();
        let mut command = dbp_host(folder.path());
        command.arg(format!("{name}.rhai"));
        check(end(command), 1, parts);
    }
    assert!(!folder.path().join("runs").exists(), "no run was made");
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let place = workplace(1, 0);
    check(end(small(place.path(), &[("stpes", "3")])), 2, &["stpes", "did you mean `steps`?", "image_size"]);
    let mut command = dbp_host(place.path());
    command.arg("missing.rhai");
    check(end(command), 2, &["missing.rhai"]);
    assert!(!place.path().join("runs").exists(), "no run was made");
}

#[test]
fn a_wrong_value_is_named_with_what_was_expected() {
    let place = workplace(40, 0);
    fs::create_dir(place.path().join("empty")).unwrap();
    fs::create_dir(place.path().join("texts")).unwrap();
    fs::write(place.path().join("texts/a.txt"), "").unwrap();
    let cases: [(Pairs, &[&str]); 17] = [
        (&[("data", "empty")], &["no images in", "empty", ".jpg", "no files at all"]),
        (&[("data", "texts")], &["no images in", "texts", "1 .txt file"]),
        (&[("data", "nowhere")], &["named \"nowhere\"", "built in: wirebond"]),
        (&[("data", "no/where")], &["no such file or folder: no/where"]),
        (&[("batch", "37")], &["36 images are fewer than a batch of 37"]),
        (&[("batch", "5000")], &["36 images are fewer than a batch of 5000"]),
        (&[("batch", "0")], &["batch: expected 1 or more", "got 0"]),
        (&[("batch", "-8")], &["batch: expected 1 or more", "got -8"]),
        (&[("batch", "many")], &["batch: expected 1 or more", "got many"]),
        (&[("steps", "-3")], &["steps: expected 1 or more", "got -3"]),
        (&[("epochs", "1")], &["steps or epochs"]),
        (&[("image_size", "33")], &["image_size: 33 x 33", "multiple of patch_size 8"]),
        (&[("val_fraction", "2")], &["a fraction between 0 and 1, got 2"]),
        (&[("modules", r#"["encoder.blocs.**"]"#)], &["\"encoder.blocs.**\" matches no", "encoder.blocks.0."]),
        (&[("recipe", "huge")], &["huge", "nano", "base"]),
        (&[("crop", "sideways")], &["crop", "\"random\", \"center\" or \"none\"", "sideways"]),
        (&[("lr", "fast")], &["lr: expected a number, got fast"]),
    ];
    for (changes, parts) in cases {
        check(end(small(place.path(), changes)), 1, parts);
    }
    assert!(!place.path().join("runs").exists(), "no run was made");
}

#[test]
fn a_few_unreadable_pictures_are_left_out_and_listed() {
    let place = workplace(30, 0);
    let whole = jpeg(5);
    for number in 0..6 {
        fs::write(place.path().join(format!("pictures/cut-{number}.jpg")), &whole[..whole.len() / 2]).unwrap();
    }
    end(small(place.path(), &[("steps", "12")])).expect(0);
    let run = only_run(&place.path().join("runs"));
    let listed = fs::read_to_string(run.join("skipped.csv")).unwrap();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!((lines[0], lines.len()), ("file,reason", 7), "{listed}");
    assert!(lines[1..].iter().all(|line| line.starts_with("cut-") && line.contains("truncated")), "{listed}");
    assert_eq!(json(&run.join("run.json"))["status"], "done");
}

#[test]
fn too_many_unreadable_pictures_end_the_run() {
    let place = workplace(30, 60);
    let ended = end(small(place.path(), &[("steps", "50")]));
    check(ended, 1, &["images could not be read, more than 1 % and more than 20", "skipped.csv"]);
    let run = only_run(&place.path().join("runs"));
    assert_eq!(json(&run.join("run.json"))["status"], "failed");
    let listed = fs::read_to_string(run.join("skipped.csv")).unwrap();
    assert!(listed.lines().count() > 21 && listed.contains(".png,") && listed.contains("web page"), "{listed}");
}

/// Its name, what breaks it, changes on the command line, the exit code, what the message has.
type Broken = (&'static str, fn(&Path), Pairs, i32, &'static [&'static str]);

/// Cuts a file in half.
fn cut(path: PathBuf) {
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_broken_checkpoint_is_named_and_left_as_it_is() {
    let place = workplace(40, 0);
    end(small(place.path(), &[])).expect(0);
    let good = only_run(&place.path().join("runs"));
    let cases: [Broken; 8] = [
        (
            "model",
            |run| cut(run.join("checkpoints/last/model.safetensors")),
            &[],
            1,
            &["model.safetensors", "cut short"],
        ),
        (
            "optimizer",
            |run| cut(run.join("checkpoints/last/optimizer.safetensors")),
            &[],
            1,
            &["optimizer.safetensors", "cut short"],
        ),
        ("state", |run| fs::write(run.join("checkpoints/last/state.json"), "no").unwrap(), &[], 1, &["state.json"]),
        ("record", |run| fs::write(run.join("run.json"), "{ \"name\": ").unwrap(), &[], 2, &["run.json"]),
        ("log", |run| fs::write(run.join("metrics.jsonl"), "").unwrap(), &[], 1, &["metrics.jsonl", "0 bytes long"]),
        ("size", |_| (), &[("image_size", "40")], 1, &["model.safetensors", "pos_embed", "the checkpoint has shape"]),
        ("plain", |_| (), &[("modules", "[]")], 1, &["model.safetensors", ".decorrelation"]),
        ("script", |run| fs::remove_file(run.join("script.rhai")).unwrap(), &[], 2, &["script.rhai"]),
    ];
    for (name, break_it, changes, code, parts) in cases {
        let run = place.path().join(name);
        copy_folder(&good, &run);
        break_it(&run);
        let before = files_of(&run);
        let mut command = dbp_host(place.path());
        command.args(["--resume", name]);
        set(&mut command, changes);
        check(end(command), code, parts);
        let after = files_of(&run);
        // The lock says which process holds it: that one file is not the run's.
        let changed = before.iter().filter(|file| !after.contains(file)).map(|(path, _)| path);
        let changed: Vec<_> = changed.filter(|path| !path.ends_with(".lock")).collect();
        assert!(changed.is_empty(), "{name}: changed {changed:?}");
    }
}

#[test]
fn divergence_keeps_the_last_good_checkpoint() {
    let place = workplace(40, 0);
    let runs = place.path().join("runs");
    let ended = end(small(place.path(), &[("lr", "1e6"), ("steps", "60"), ("every", "5")]));
    check(ended, 3, &["training diverged", "not finite at step", "checkpoints/last", "smaller lr or decor_lr"]);
    let run = only_run(&runs);
    assert_eq!(json(&run.join("run.json"))["status"], "diverged");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = fs::read(run.join("checkpoints/last").join(file)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors.tensors() {
            let finite = tensor.data().as_chunks().0.iter().all(|value| f32::from_le_bytes(*value).is_finite());
            assert!(finite, "{name}");
        }
    }
    // It is there to go on with, more carefully: with weights learning at 0 and R as it is, nothing can diverge.
    let mut command = dbp_host(place.path());
    command.arg("--resume").arg(&run);
    set(&mut command, &[("lr", "0"), ("decor_lr", "1e-9"), ("steps", "7")]);
    end(command).expect(0);
    assert_eq!(json(&run.join("run.json"))["status"], "done");
}

/// A thousand times what is stable: every layer's guard says so and halves it, and training goes on.
#[test]
fn a_decorrelation_rate_far_too_large_is_survived() {
    let place = workplace(40, 0);
    let ended = end(small(place.path(), &[("decor_lr", "50"), ("steps", "20"), ("every", "5")])).expect(0);
    let said = "decorrelation of encoder.patch_embed.proj: a rate of 5.00e1 is above 2/λmax";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert_eq!(json(&only_run(&place.path().join("runs")).join("run.json"))["status"], "done");
}

#[test]
fn a_place_where_no_run_can_be_written_ends_with_4() {
    let place = workplace(40, 0);
    fs::write(place.path().join("file"), "keep").unwrap();
    let mut command = small(place.path(), &[]);
    command.args(["--runs", "file/runs"]); // Below a file: not even root can write there.
    check(end(command), 4, &["file/runs"]);
    assert_eq!(fs::read_to_string(place.path().join("file")).unwrap(), "keep");
}
