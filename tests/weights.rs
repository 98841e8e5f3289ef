//! Weights from and for others, through the program: `models::load`, `model.init` and `dbp-host export` on files in every layout.
//!
//! With EXPORTS=FOLDER the exports stay there, for `tests/reference/check_exports.py`, which loads them with timm and Hugging Face.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::Ended;
use dbp_host::nn::{Architecture, Built, DecorOptions, Pass, Place, RowSampler};
use dbp_host::train::checkpoint::{read_tensors, write_described, write_tensors};
use dbp_host::train::weights::metadata;
use tch::{Device, Kind, Tensor};

/// Writes a reference's weights as a file of their own, with `config.json` beside it where they have one.
fn lay_down(reference: &str, folder: &Path, config: bool) -> PathBuf {
    let (text, tensors) = common::reference(reference);
    let weights: Vec<_> = tensors
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("weights.")?.to_owned(), tensor)))
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("model.safetensors");
    write_tensors(&path, &weights).unwrap();
    if config {
        std::fs::write(folder.join("config.json"), text.to_string()).unwrap();
    }
    path
}

/// Runs a script in a folder.
fn script(folder: &Path, text: &str) -> Ended {
    std::fs::write(folder.join("a.rhai"), text).unwrap();
    let mut command = common::dbp_host(folder);
    command.arg("a.rhai");
    common::end(command)
}

fn export(args: &[&str], folder: &Path) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).arg("export").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    common::end(command)
}

const ENCODER: &str =
    r#""image_size": [32, 32], "patch_size": 8, "channels": 2, "embed_dim": 16, "depth": 4, "num_heads": 4"#;

/// A model that has been decorrelated for a few updates, and its file.
fn trained(text: &str, path: &Path) -> (Built, Architecture) {
    let architecture: Architecture = serde_json::from_str(text).unwrap();
    let (built, registry) = architecture.build(3, Kind::Float, Device::Cpu).unwrap();
    let options = DecorOptions { lr: 0.05, ..Default::default() };
    registry
        .decorrelate(&["encoder.blocks.*.attn.*".to_owned(), "encoder.patch_embed.proj".to_owned()], &options)
        .unwrap();
    let images = Tensor::randn([8, 2, 32, 32], (Kind::Float, Device::Cpu));
    for step in 0..5 {
        let place = Place { seed: 0, step, epoch: 0, micro: 0, micro_batches: 1 };
        let sampler = RowSampler::new(&place, Device::Cpu);
        let pass = Pass::train(&place, &sampler);
        tch::no_grad(|| match &built {
            Built::Vit(vit) => vit.forward(&images, None, pass).map(drop),
            Built::Mae(mae) => mae.loss(&images, &place).map(drop),
            Built::Upernet(model) => model.logits(&images, pass).map(drop),
            Built::Classifier(model) => model.logits(&images, pass).map(drop),
        })
        .unwrap();
        registry.update_decorrelation().unwrap();
    }
    // No weight is left at what it began with.
    let state = registry.state();
    for (name, tensor) in &state {
        let noise = tensor.randn_like() * 0.1;
        match name.contains("decorrelation") || name.ends_with("pos_embed") {
            true => {}
            false if name.ends_with("running_var") => drop(tensor.shallow_clone().g_add_(&noise.square())),
            false => drop(tensor.shallow_clone().g_add_(&noise)),
        }
    }
    registry.load_state(&registry.state()).unwrap(); // So that nothing computed of the weights before stays.
    assert!(registry.state().iter().any(|(name, r)| {
        name.ends_with(".decorrelation")
            && (r - Tensor::eye(r.size()[0], (Kind::Float, Device::Cpu))).abs().max().double_value(&[]) > 1e-3
    }));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_described(path, &registry.state(), Some(metadata(&architecture, None))).unwrap();
    (built, architecture)
}

#[test]
fn exports_load_again_and_compute_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("EXPORTS").map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let upernet = format!(
        r#"{{"model": "upernet", "encoder": {{{ENCODER}}}, "classes": 3, "taps": [0, 1, 2, 3], "channels": 8,
        "pool_scales": [1, 2], "aux_channels": 4, "aux_weight": 0.4, "dropout": 0.1}}"#
    );
    let mae = format!(
        r#"{{"model": "mae", "encoder": {{{ENCODER}}}, "decoder_embed_dim": 8, "decoder_depth": 2, "decoder_num_heads": 2,
        "mask_ratio": 0.6, "norm_pix": true}}"#
    );
    let classifier =
        |pool: &str| format!(r#"{{"model": "classifier", "encoder": {{{ENCODER}}}, "classes": 5, "pool": "{pool}"}}"#);
    for (name, text, formats) in [
        ("mae", mae, &["timm", "mae", "hf"][..]),
        ("upernet", upernet, &["timm", "hf"]),
        ("classifier-mean", classifier("mean"), &["timm"]),
        ("classifier-class", classifier("class"), &["timm"]),
    ] {
        let folder = root.join(name);
        let run = folder.join("run");
        let (built, _) = trained(&text, &run.join("checkpoints/last/model.safetensors"));
        let images = Tensor::randn([2, 2, 32, 32], (Kind::Float, Device::Cpu));
        let mut expected = vec![("images".to_owned(), images.shallow_clone())];
        let mut keep = |name: &str, tensor: Tensor| expected.push((name.to_owned(), tensor.detach()));
        match &built {
            Built::Mae(mae) => {
                let noise = Tensor::rand([2, 16], (Kind::Float, Device::Cpu));
                keep("loss", mae.loss_with(&images, &noise, Pass::EVALUATE).unwrap());
                keep("features", mae.encoder().forward(&images, None, Pass::EVALUATE).unwrap());
                keep("noise", noise);
            }
            Built::Upernet(model) => keep("logits", model.logits(&images, Pass::EVALUATE).unwrap()),
            Built::Classifier(model) => keep("logits", model.logits(&images, Pass::EVALUATE).unwrap()),
            Built::Vit(_) => {}
        }
        write_tensors(&folder.join("expected.safetensors"), &expected).unwrap();
        for format in ["timm", "mae", "hf"] {
            let out = folder.join(format);
            let args = [run.to_str().unwrap(), "--format", format, "--out", out.to_str().unwrap()];
            if !formats.contains(&format) {
                let ended = export(&args, &root).expect(1);
                assert!(ended.stderr.contains("can be exported as"), "{}", ended.stderr);
                continue;
            }
            let ended = export(&args, &root).expect(0);
            assert!(ended.stdout.contains("Python"), "{}", ended.stdout);
            let written = read_tensors(&out.join("model.safetensors")).unwrap();
            assert!(written.iter().all(|(name, _)| !name.contains("decorrelation")));
            if (name, format) == ("upernet", "timm") {
                continue; // An encoder without its final norm is for `init` alone.
            }
            // Back again: what the program loads and writes is what it wrote.
            let again = folder.join("again").join(format);
            let from = out.join("model.safetensors");
            export(&[from.to_str().unwrap(), "--format", format, "--out", again.to_str().unwrap()], &root).expect(0);
            let again: HashMap<String, Tensor> =
                read_tensors(&again.join("model.safetensors")).unwrap().into_iter().collect();
            assert_eq!(again.len(), written.len());
            written.iter().for_each(|(name, tensor)| assert_eq!(tensor, &again[name], "{name}"));
        }
    }
}

#[test]
fn scripts_load_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    for (reference, place, config) in [
        ("weights_timm", "timm", false),
        ("weights_mae", "release", false),
        ("weights_hf_mae", "hf", true),
        ("weights_hf_upernet", "segmentation", true),
    ] {
        lay_down(reference, &folder.path().join(place), config);
    }
    let ended = script(
        folder.path(),
        r#"
        let images = tensor::ones([1, 3, 32, 32]);
        let timm = models::load("timm/model.safetensors", #{ num_heads: 2 });
        print(timm.forward(images).shape);
        let larger = models::load("timm", #{ num_heads: 2, image_size: [48, 32], channels: 1 });
        print(larger.forward(tensor::ones([1, 1, 48, 32])).shape);
        let release = models::load("release", #{ num_heads: 2, decoder_num_heads: 2, norm_pix: true });
        print(release.forward(images).shape);
        print(models::load("hf").forward(images).shape);
        print(models::load("segmentation").parameters > 10000);
        let mae = models::mae(#{ image_size: 16, patch_size: 8, channels: 3, embed_dim: 16, depth: 2, num_heads: 2,
            mlp_ratio: 2.5, decoder_embed_dim: 8, decoder_depth: 1, decoder_num_heads: 2 });
        let before = mae.tensor("decoder_embed.weight");
        mae.decorrelate(["encoder.**"]);
        let report = mae.init("timm");
        print(report.taken); print(report.kept); print(report.adapted);
        print((mae.tensor("encoder.blocks.1.attn.qkv.weight") - timm.tensor("blocks.1.attn.qkv.weight")).abs().max().item());
        print((mae.tensor("decoder_embed.weight") - before).abs().max().item());
        "#,
    )
    .expect(0);
    let want = "[1, 17, 16]\n[1, 25, 16]\n[1, 17, 16]\n[1, 17, 16]\ntrue\n[\"encoder\"]\n[\"decoder\"]\n[\"positions interpolated \
                from 4 x 4 patches to 2 x 2\"]\n0.0\n0.0\n";
    assert_eq!(ended.stdout, want);
    assert!(ended.stderr.contains("left out: head."), "{}", ended.stderr);
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    lay_down("weights_timm", &folder.path().join("timm"), false);
    let stranger = vec![("conv1.weight".to_owned(), Tensor::ones([4, 3, 7, 7], (Kind::Float, Device::Cpu)))];
    write_tensors(&folder.path().join("resnet.safetensors"), &stranger).unwrap();
    std::fs::write(folder.path().join("model.pth"), b"PK\x03\x04rest").unwrap();
    std::fs::write(folder.path().join("broken.safetensors"), b"\x08\0\0\0\0\0\0\0{}").unwrap();
    let mae = "models::mae(#{ image_size: 32, patch_size: 8, channels: 2, embed_dim: 16, depth: 2, num_heads: 2, \
               decoder_embed_dim: 8, decoder_depth: 1, decoder_num_heads: 2, mlp_ratio: 2.5 })";
    for (text, says) in [
        ("models::load(\"timm\");".to_owned(), &["num_heads: not in the file"][..]),
        (
            "models::load(\"resnet.safetensors\");".to_owned(),
            &["weights of no model that is known here", "conv1.weight", "hint"],
        ),
        ("models::load(\"model.pth\");".to_owned(), &["torch.save", "save_file"]),
        ("models::load(\"broken.safetensors\");".to_owned(), &["not a whole safetensors file"]),
        ("models::load(\"nothing\");".to_owned(), &["no such file or folder"]),
        ("models::load(\"timm\", #{ heads: 2 });".to_owned(), &["no option is named heads"]),
        (
            format!("{mae}.init(\"timm\");"),
            &["encoder.patch_embed.proj.weight", "[16, 3, 8, 8]", "[16, 2, 8, 8]", "channels: 2"],
        ),
        (format!("{mae}.init(\"timm\", #{{ channels: 3 }});"), &["channels: expected the model's own, 2, got 3"]),
        (
            mae.replace("depth: 2, num", "depth: 3, num").replace("channels: 2", "channels: 3") + ".init(\"timm\");",
            &["encoder.blocks.2.", "not in the checkpoint"],
        ),
        (
            mae.replace("channels: 2", "channels: 3") + ".load(\"timm\");",
            &["weights of a vision transformer, the model is a masked autoencoder", "init(path)"],
        ),
    ] {
        let ended = script(folder.path(), &text).expect(1);
        for part in says {
            assert!(ended.stderr.contains(part), "{text}: expected {part}\n{}", ended.stderr);
        }
    }
    script(folder.path(), &format!("let m = {mae}; m.init(\"timm\", #{{ channels: 2 }});")).expect(0);
    // The command line.
    let root = folder.path();
    assert!(export(&["nothing", "--format", "timm"], root).expect(2).stderr.contains("no such run"));
    export(&["timm", "--format", "onnx"], root).expect(2);
    export(&["timm"], root).expect(2);
    assert!(export(&["resnet.safetensors", "--format", "timm"], root).expect(1).stderr.contains("conv1.weight"));
}
