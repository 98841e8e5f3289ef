//! Fine-tuning as a user does it: pre-train, fine-tune for segmentation, predict; classify and probe; stop and resume.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ended, dbp_host, end, json, json_lines, only_run, set};

/// A script of the program with these parameters; its runs go to `folder/runs`.
fn run(folder: &Path, script: &str, runs: &str, parameters: &[(&str, &str)]) -> Ended {
    let mut command = dbp_host(folder);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script)).args(["--runs", runs]);
    set(&mut command, parameters);
    end(command)
}

/// Pictures of two kinds, dark and light, in folders named by them.
fn fill_with_kinds(folder: &Path) {
    for (kind, shade) in [("dark", 30), ("light", 180)] {
        fs::create_dir_all(folder.join(kind)).unwrap();
        for number in 0..12_u32 {
            let value = |x: u32, y: u32| shade + ((x * 7 + y * 3 + number * 11) % 50) as u8;
            let picture = image::RgbImage::from_fn(40, 36, |x, y| image::Rgb([value(x, y), value(y, x), value(x, x)]));
            picture.save(folder.join(kind).join(format!("{number}.png"))).unwrap();
        }
    }
}

const SMALL: [(&str, &str); 4] = [
    ("data", r#"{"name": "wirebond", "size": 32, "count": 20}"#),
    ("image_size", "32"),
    ("long_edge", "[32, 48]"),
    ("channels", "8"),
];

#[test]
fn from_pretraining_to_masks() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(
        folder.path(),
        "pretrain.rhai",
        "pre",
        &[("steps", "2"), ("image_size", "32"), ("batch", "16"), ("subset", "40")],
    )
    .expect(0);
    let pretrained = only_run(&at("pre"));

    let from = pretrained.display().to_string();
    let more = [("from", from.as_str()), ("steps", "4"), ("every", "2"), ("batch", "4"), ("val_fraction", "0.2")];
    let ended = run(folder.path(), "finetune.rhai", "fine", &[&SMALL[..], &more].concat()).expect(0);
    for said in ["class           IoU %", "mIoU            ", "brightness      "] {
        assert!(ended.stdout.contains(said), "{}", ended.stdout);
    }
    let finetuned = only_run(&at("fine"));
    let record = json(&finetuned.join("run.json"));
    let best = record["best"]["miou"].as_f64().unwrap();
    let logged: Vec<f64> =
        json_lines(&finetuned.join("metrics.jsonl")).iter().filter_map(|line| line["miou"].as_f64()).collect();
    assert_eq!(logged.len(), 2);
    assert_eq!(best, logged.iter().copied().fold(0.0, f64::max), "the best is the highest");
    let scores = &record["scores"];
    assert_eq!(scores["step"], record["best"]["step"]);
    assert_eq!(scores["confusion"].as_array().unwrap().len(), 5);
    assert!(record["intensity_miou"].as_f64().unwrap() > 0.0 && scores["iou"]["wire"].is_number());
    assert!(finetuned.join("pictures/segmentation-000004.png").exists());

    let from = finetuned.display().to_string();
    let three = ("data", r#"{"name": "wirebond", "size": 40, "count": 3}"#);
    let parameters = [("from", from.as_str()), three, ("window", "32")];
    run(folder.path(), "predict.rhai", "masks", &parameters).expect(0);
    let predicted = only_run(&at("masks"));
    let told = json(&predicted.join("run.json"));
    assert_eq!((told["status"].as_str(), told["classes"][1].as_str()), (Some("done"), Some("wire")));
    for i in 0..3 {
        let mask = image::open(predicted.join(format!("masks/wirebond/{i:06}.png"))).unwrap();
        assert_eq!((mask.width(), mask.height(), mask.color()), (40, 40, image::ColorType::L8));
        assert!(mask.to_luma8().pixels().all(|pixel| pixel.0[0] < 5));
        assert!(predicted.join(format!("pictures/wirebond/{i:06}.png")).exists());
    }
    // A pre-trained encoder has no classes to predict.
    let from = pretrained.display().to_string();
    let ended = run(folder.path(), "predict.rhai", "none", &[("from", &from), three]).expect(1);
    assert!(ended.stderr.contains("predict: only a UperNet"), "{}", ended.stderr);
    assert_eq!(json(&only_run(&at("none")).join("run.json"))["status"], "failed");
}

#[test]
fn other_channels_are_refused_by_name_and_adapted_on_request() {
    let folder = tempfile::tempdir().unwrap();
    fill_with_kinds(&folder.path().join("kinds"));
    let small = [("steps", "1"), ("image_size", "32"), ("batch", "16")];
    run(folder.path(), "pretrain.rhai", "pre", &[&small[..], &[("data", "kinds")]].concat()).expect(0);
    let from = only_run(&folder.path().join("pre")).display().to_string();
    let more = [("from", from.as_str()), ("steps", "1"), ("batch", "4")];
    let ended = run(folder.path(), "finetune.rhai", "fine", &[&SMALL[..], &more].concat()).expect(1);
    assert!(ended.stderr.contains("the encoder takes images of 3 channels, these have 2"), "{}", ended.stderr);
    let adapted = [&SMALL[..], &more, &[("adapt_channels", "true")]].concat();
    run(folder.path(), "finetune.rhai", "adapted", &adapted).expect(0);
}

#[test]
fn classes_of_images_are_learned_and_probed() {
    let folder = tempfile::tempdir().unwrap();
    fill_with_kinds(&folder.path().join("kinds"));
    let data = [("data", "kinds"), ("val_fraction", "0.25")];
    let more = [("steps", "30"), ("image_size", "32"), ("batch", "8"), ("every", "15"), ("layer_decay", "0.9")];
    let ended = run(folder.path(), "classify.rhai", "runs", &[&data[..], &more].concat()).expect(0);
    assert!(ended.stdout.contains("accuracy        "), "{}", ended.stdout);
    let trained = only_run(&folder.path().join("runs"));
    assert!(json(&trained.join("run.json"))["best"]["accuracy"].as_f64().unwrap() > 0.5);

    // A classifier's features are probed like any encoder's.
    let from = trained.display().to_string();
    let ended = run(folder.path(), "probe.rhai", "probes", &[&data[..], &[("from", &from), ("steps", "50")]].concat());
    let ended = ended.expect(0);
    for said in ["linear probe    ", "neighbors       ", "largest class   "] {
        assert!(ended.stdout.contains(said), "{}", ended.stdout);
    }
    let record = json(&only_run(&folder.path().join("probes")).join("run.json"));
    assert!(record["linear_accuracy"].as_f64().unwrap() > 0.5, "{record}");
}

/// Dropout, stochastic depth, running statistics and random crops all come out as if nothing had happened.
#[test]
fn a_resumed_run_ends_in_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
        import "std/segment" as segment;
        run::seed(3);
        let pairs = data::open(#{ name: "wirebond", size: 32, count: 16 });
        let loader = data::pair_loader(pairs, #{ batch: 4, micro_batches: 2, image_size: 32, long_edge: [32, 64] });
        let recipe = segment::recipe("nano", #{ image_size: 32, channels: 8, drop_path: 0.2, dropout: 0.3 });
        let model = segment::build(recipe, segment::scratch(recipe, pairs), pairs);
        model.decorrelate(["encoder.blocks.*.attn.*"], #{ lr: 0.01 });
        let opt = optim::adamw(model, #{ lr: 0.001, layer_decay: 0.75 });
        let run = run::start(#{ model: model, opt: opt, loader: loader });
        for step in run.steps(arg("steps", 5)) {
            for batch in loader.micro(step) { model.loss(batch).backward(); }
            opt.step();
            model.update_decorrelation();
            run.log(#{ train_loss: model.last_loss() });
        }
    "#;
    fs::write(folder.path().join("a.rhai"), script).unwrap();
    let start = |runs: &str, steps: &str| -> PathBuf {
        let mut command = dbp_host(folder.path());
        command.args(["a.rhai", "--runs", runs]);
        set(&mut command, &[("steps", steps)]);
        end(command).expect(0);
        only_run(&folder.path().join(runs))
    };
    let (whole, halted) = (start("whole", "5"), start("halted", "2"));
    let mut command = dbp_host(folder.path());
    command.arg("--resume").arg(&halted);
    set(&mut command, &[("steps", "5")]);
    end(command).expect(0);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| fs::read(run.join("checkpoints/last").join(file)).unwrap();
        assert!(read(&whole) == read(&halted), "{file} differs");
    }
}
