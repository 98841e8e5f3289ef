//! Weights of timm, of the MAE release and of Hugging Face in their own layouts against what they compute there
//! (`tests/reference/weights.py`), and what an export makes of them again.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::collections::HashMap;

use dbp_host::nn::layouts::{adapt_channels, export, import, resize};
use dbp_host::nn::{Architecture, Built, Format, Hints, Imported, Layout, Mae, Pass, Vit};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

type State = Vec<(String, Tensor)>;

struct Case {
    config: Value,
    values: HashMap<String, Tensor>,
    weights: State,
}

impl Case {
    fn load(name: &str) -> Self {
        let (config, tensors) = common::reference(name);
        let (mut values, mut weights) = (HashMap::new(), Vec::new());
        for (name, tensor) in tensors {
            match name.strip_prefix("weights.") {
                Some(weight) => weights.push((weight.to_owned(), tensor)),
                None => drop(values.insert(name, tensor)),
            }
        }
        Self { config, values, weights }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.values.get(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    fn import(&self, layout: Layout, hints: &Hints) -> Imported {
        assert_eq!(Layout::detect(self.weights.iter().map(|(name, _)| name.as_str())), Some(layout));
        let imported = import(layout, &self.weights, hints).unwrap();
        imported.complete().unwrap();
        imported
    }
}

fn vit(architecture: &Architecture, state: &[(String, Tensor)]) -> Box<Vit> {
    let (built, registry) = architecture.build(0, Kind::Float, Device::Cpu).unwrap();
    registry.load_state(state).unwrap();
    match built {
        Built::Vit(vit) => vit,
        _ => panic!("not a vision transformer"),
    }
}

fn mae(imported: &Imported) -> Box<Mae> {
    let (built, registry) = imported.architecture.build(0, Kind::Float, Device::Cpu).unwrap();
    registry.load_state(&imported.state).unwrap();
    match built {
        Built::Mae(mae) => mae,
        _ => panic!("not a masked autoencoder"),
    }
}

fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{name}");
    let difference = (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]);
    eprintln!("{name}: {difference:.1e}");
    assert!(difference <= tolerance, "{name} differs by {difference:e}");
}

/// What an export holds against the file that was read: the same names, the same values but for what `differs`.
fn assert_same(exported: &State, file: &State, differs: impl Fn(&str) -> bool) {
    let names = |state: &State| {
        let mut names: Vec<String> = state.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(names(exported), names(file));
    let file: HashMap<&str, &Tensor> = file.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    for (name, tensor) in exported.iter().filter(|(name, _)| !differs(name)) {
        assert_eq!(&tensor, &file[name.as_str()], "{name}");
    }
}

#[test]
fn timm_features_agree_and_go_back_unchanged() {
    let case = Case::load("weights_timm");
    let hints = Hints { num_heads: Some(2), ..Hints::default() };
    let imported = case.import(Layout::Timm, &hints);
    assert_eq!(imported.left_out.len(), 2, "{:?}", imported.left_out); // The head's weight and bias.
    let model = vit(&imported.architecture, &imported.state);
    assert_close(
        "features",
        &model.forward(case.get("images"), None, Pass::EVALUATE).unwrap(),
        case.get("features"),
        1e-5,
    );
    let exported = export(Format::Timm, &imported.architecture, &imported.state).unwrap();
    let without_head = case.weights.into_iter().filter(|(name, _)| !name.starts_with("head.")).collect();
    assert_same(&exported.state, &without_head, |_| false);
}

#[test]
fn timm_classifiers_agree_and_go_back_unchanged() {
    let mut case = Case::load("weights_timm");
    let hints = Hints { num_heads: Some(2), head: true, ..Hints::default() };
    for pool in ["class", "mean"] {
        if pool == "mean" {
            // timm names the norm so where it stands behind the pooling.
            case.weights.iter_mut().for_each(|(name, _)| {
                if let Some(rest) = name.strip_prefix("norm.") {
                    *name = format!("fc_norm.{rest}");
                }
            });
            let encoder = import(Layout::Timm, &case.weights, &Hints { head: false, ..hints.clone() }).unwrap();
            let message = encoder.complete().unwrap_err().to_string();
            assert!(message.contains("head: true"), "{message}");
        }
        let imported = case.import(Layout::Timm, &hints);
        let (built, registry) = imported.architecture.build(0, Kind::Float, Device::Cpu).unwrap();
        registry.load_state(&imported.state).unwrap();
        let Built::Classifier(model) = built else { panic!("not a classifier") };
        let logits = model.logits(case.get("images"), Pass::EVALUATE).unwrap();
        assert_close(&format!("logits of {pool}"), &logits, case.get(&format!("logits.{pool}")), 1e-5);
        let exported = export(Format::Timm, &imported.architecture, &imported.state).unwrap();
        assert_same(&exported.state, &case.weights, |_| false);
    }
}

#[test]
fn positions_are_resampled_as_timm_does() {
    let case = Case::load("weights_timm");
    let hints = Hints { num_heads: Some(2), ..Hints::default() };
    for (rows, columns) in [(5, 5), (2, 5), (3, 2)] {
        let Imported { mut architecture, mut state, .. } = case.import(Layout::Timm, &hints);
        assert!(resize(&mut architecture, &mut state, (8 * rows, 8 * columns)).unwrap());
        let key = format!("{rows}x{columns}");
        let positions = &state.iter().find(|(name, _)| name == "pos_embed").unwrap().1;
        assert_close(&format!("positions {key}"), positions, case.get(&format!("pos_embed.{key}")), 1e-6);
        let features = vit(&architecture, &state).forward(case.get(&format!("images.{key}")), None, Pass::EVALUATE);
        assert_close(&format!("features {key}"), &features.unwrap(), case.get(&format!("features.{key}")), 1e-5);
    }
}

#[test]
fn channels_are_adapted_as_timm_does() {
    let case = Case::load("weights_timm");
    let hints = Hints { num_heads: Some(2), ..Hints::default() };
    for channels in [1, 2, 5] {
        let Imported { mut architecture, mut state, .. } = case.import(Layout::Timm, &hints);
        assert!(adapt_channels(&mut architecture, &mut state, channels).unwrap());
        let weight = &state.iter().find(|(name, _)| name == "patch_embed.proj.weight").unwrap().1;
        assert_close(&format!("{channels} channels"), weight, case.get(&format!("proj.{channels}")), 1e-6);
        vit(&architecture, &state);
    }
}

#[test]
fn the_mae_release_agrees_and_goes_back_unchanged() {
    let case = Case::load("weights_mae");
    let hints = Hints { num_heads: Some(2), decoder_num_heads: Some(2), norm_pix: Some(true), ..Hints::default() };
    let imported = case.import(Layout::Mae, &hints);
    let model = mae(&imported);
    let loss = model.loss_with(case.get("images"), case.get("noise"), Pass::EVALUATE).unwrap();
    assert_close("loss", &loss, case.get("loss"), 1e-5);
    let features = model.encoder().forward(case.get("images"), None, Pass::EVALUATE).unwrap();
    assert_close("features", &features, case.get("features"), 1e-5);
    let exported = export(Format::Mae, &imported.architecture, &imported.state).unwrap();
    assert_same(&exported.state, &case.weights, |_| false);
}

#[test]
fn hugging_face_mae_agrees_and_goes_back_unchanged() {
    let mut case = Case::load("weights_hf_mae");
    let hints = Hints { config: Some(case.config.clone()), ..Hints::default() };
    let imported = case.import(Layout::HfMae, &hints);
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    let model = mae(&imported);
    assert_eq!((model.config().norm_pix, model.config().mask_ratio), (true, 0.7));
    let loss = model.loss_with(case.get("images"), case.get("noise"), Pass::EVALUATE).unwrap();
    assert_close("loss", &loss, case.get("loss"), 1e-5);
    let features = model.encoder().forward(case.get("images"), None, Pass::EVALUATE).unwrap();
    assert_close("features", &features, case.get("features"), 1e-5);
    let exported = export(Format::Hf, &imported.architecture, &imported.state).unwrap();
    assert_same(&exported.state, &case.weights, |_| false);
    let config = exported.config.unwrap();
    for (key, value) in config.as_object().unwrap().iter().filter(|(key, _)| *key != "torch_dtype") {
        assert_eq!(value, &case.config[key], "{key}");
    }
    // The names that version 5 has inside.
    rename_inside(&mut case, |name| name.replace("vit.encoder.layer.", "vit.layers."));
    assert_eq!(case.import(Layout::HfMae, &hints).state, imported.state);
    // The encoder alone, as `ViTMAEModel` saves it.
    case.weights.retain(|(name, _)| name.starts_with("vit."));
    case.weights.iter_mut().for_each(|(name, _)| *name = name.replace("vit.", ""));
    let alone = case.import(Layout::HfMae, &hints);
    let features = vit(&alone.architecture, &alone.state).forward(case.get("images"), None, Pass::EVALUATE).unwrap();
    assert_close("features alone", &features, case.get("features"), 1e-5);
}

/// Renames as version 5 does when it loads; what comes out must be exactly what it has inside.
fn rename_inside(case: &mut Case, also: impl Fn(&str) -> String) {
    for (name, _) in &mut case.weights {
        *name = also(name);
        for (from, to) in [
            (".attention.attention.query.", ".attention.q_proj."),
            (".attention.attention.key.", ".attention.k_proj."),
            (".attention.attention.value.", ".attention.v_proj."),
            (".attention.output.dense.", ".attention.o_proj."),
            (".intermediate.dense.", ".mlp.fc1."),
            (".output.dense.", ".mlp.fc2."),
        ] {
            *name = name.replace(from, to);
        }
    }
    let mut renamed: Vec<&str> = case.weights.iter().map(|(name, _)| name.as_str()).collect();
    let mut inside: Vec<&str> = case.config["inside"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    renamed.sort();
    inside.sort();
    assert_eq!(renamed, inside);
}

#[test]
fn hugging_face_upernet_agrees_and_goes_back() {
    let mut case = Case::load("weights_hf_upernet");
    let hints = Hints { config: Some(case.config.clone()), ..Hints::default() };
    let imported = case.import(Layout::HfUpernet, &hints);
    assert!(imported.notes.is_empty(), "{:?}", imported.notes);
    let Architecture::Upernet(config) = &imported.architecture else { panic!("{:?}", imported.architecture) };
    assert_eq!((config.classes, &config.taps[..], &config.pool_scales[..]), (3, &[0, 1, 2, 3][..], &[1, 2, 3][..]));
    for (name, tensor) in imported.state.iter().filter(|(name, _)| name.ends_with("attn.qkv.bias")) {
        assert_eq!(tensor.narrow(0, 16, 16).abs().max().double_value(&[]), 0.0, "{name}: keys have none");
        assert!(tensor.narrow(0, 0, 16).abs().max().double_value(&[]) > 0.0, "{name}");
    }
    let exported = export(Format::Hf, &imported.architecture, &imported.state).unwrap();
    assert_same(&exported.state, &case.weights, |name| name.ends_with("num_batches_tracked"));
    let (built, registry) = imported.architecture.build(0, Kind::Float, Device::Cpu).unwrap();
    registry.load_state(&imported.state).unwrap();
    let Built::Upernet(model) = built else { panic!("not a UperNet") };
    assert_close("logits", &model.logits(case.get("images"), Pass::EVALUATE).unwrap(), case.get("logits"), 1e-5);
    // Names that version 5 has inside.
    rename_inside(&mut case, |name| {
        name.replace("backbone.encoder.layer.", "backbone.beit.layers.")
            .replace("backbone.embeddings.", "backbone.beit.embeddings.")
            .replace("backbone.fpn1.0.", "backbone.fpn.fpn1.conv_transpose1.")
            .replace("backbone.fpn1.1.", "backbone.fpn.fpn1.normalization.")
            .replace("backbone.fpn1.3.", "backbone.fpn.fpn1.conv_transpose2.")
            .replace("backbone.fpn2.0.", "backbone.fpn.fpn2.")
    });
    assert_eq!(case.import(Layout::HfUpernet, &hints).state, imported.state);
    // The encoder, for timm.
    let encoder = export(Format::Timm, &imported.architecture, &imported.state).unwrap();
    assert!(encoder.state.iter().all(|(name, _)| !name.starts_with("norm.")));
}

#[test]
fn half_precision_becomes_float32() {
    let mut case = Case::load("weights_timm");
    case.weights.iter_mut().for_each(|(_, tensor)| *tensor = tensor.to_kind(Kind::BFloat16));
    let imported = case.import(Layout::Timm, &Hints { num_heads: Some(2), ..Hints::default() });
    assert!(imported.state.iter().all(|(_, tensor)| tensor.kind() == Kind::Float));
    let model = vit(&imported.architecture, &imported.state);
    assert_close(
        "features",
        &model.forward(case.get("images"), None, Pass::EVALUATE).unwrap(),
        case.get("features"),
        0.1,
    );
}
