//! Names and shapes of published sizes against those of timm and Hugging Face themselves (`tests/reference/weights.py`), and
//! what is said of files that fit nothing.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::nn::mae::MaeConfig;
use crate::nn::upernet::UpernetConfig;
use crate::nn::vit::VitConfig;

const SHAPES: &str = include_str!("../../../tests/reference/weights_shapes.json");

fn vit(text: &str) -> VitConfig {
    serde_json::from_str(text).unwrap()
}

fn sized(width: i64, depth: i64, heads: i64, patch: i64, image: i64) -> VitConfig {
    vit(&format!(
        r#"{{"image_size": [{image}, {image}], "patch_size": {patch}, "channels": 3, "embed_dim": {width}, "depth": {depth},
        "num_heads": {heads}}}"#
    ))
}

/// Their names and shapes of an architecture, the blocks' numbers as N.
fn theirs(layout: Layout, architecture: &Architecture) -> BTreeMap<String, Vec<i64>> {
    let mut found = BTreeMap::new();
    for (ours, shape) in architecture.tensors() {
        let Some(names) = layout.theirs(&full(architecture, &ours)) else { continue };
        for name in names.iter().filter(|name| !name.is_empty()) {
            let mut shape = shape.clone();
            shape[0] /= names.len() as i64;
            let mut parts: Vec<&str> = name.split('.').collect();
            if let Some(at) =
                parts.iter().position(|p| ["blocks", "decoder_blocks", "layer", "decoder_layers"].contains(p))
            {
                parts[at + 1] = "N";
            }
            found.insert(parts.join("."), shape);
        }
    }
    found
}

#[test]
fn published_sizes_have_the_names_and_shapes_of_timm_and_hugging_face() {
    let listed: BTreeMap<String, BTreeMap<String, Vec<i64>>> = serde_json::from_str(SHAPES).unwrap();
    let base = || sized(768, 12, 12, 16, 224);
    for (name, config) in [
        ("vit_tiny_patch16_224", sized(192, 12, 3, 16, 224)),
        ("vit_small_patch16_224", sized(384, 12, 6, 16, 224)),
        ("vit_base_patch16_224", base()),
        ("vit_large_patch16_224", sized(1024, 24, 16, 16, 224)),
        ("vit_huge_patch14_224", sized(1280, 32, 16, 14, 224)),
    ] {
        assert_eq!(theirs(Layout::Timm, &Architecture::Vit(config)), listed[name], "{name}");
    }
    let mae = Architecture::Mae(MaeConfig {
        encoder: base(),
        decoder_embed_dim: 512,
        decoder_depth: 8,
        decoder_num_heads: 16,
        mask_ratio: 0.75,
        norm_pix: false,
    });
    assert_eq!(theirs(Layout::HfMae, &mae), listed["vit_mae_base"]);
    assert_eq!(theirs(Layout::Timm, &mae), listed["vit_base_patch16_224"]);
    let upernet = Architecture::Upernet(UpernetConfig::new(sized(768, 12, 12, 16, 512), 150));
    assert_eq!(theirs(Layout::HfUpernet, &upernet), listed["upernet_base"]);
}

fn tensors(architecture: &Architecture) -> State {
    let make = |(name, shape): (String, Vec<i64>)| (name, Tensor::ones(shape.as_slice(), (Kind::Float, Device::Cpu)));
    architecture.tensors().into_iter().map(make).collect()
}

fn small() -> Architecture {
    Architecture::Vit(sized(64, 2, 1, 8, 32))
}

fn message(state: &State, hints: &Hints) -> String {
    match import(Layout::Timm, state, hints).and_then(|imported| imported.complete()) {
        Ok(()) => "fine".to_owned(),
        Err(err) => err.to_string(),
    }
}

#[test]
fn what_is_wrong_is_named_with_both_shapes() {
    let hints = Hints::default();
    assert_eq!(message(&tensors(&small()), &hints), "fine");
    let mut state = tensors(&small());
    state.retain(|(name, _)| name != "blocks.1.attn.qkv.bias");
    assert_eq!(message(&state, &hints), "blocks.1.attn.qkv.bias: not in the checkpoint");
    let mut state = tensors(&small());
    state.retain(|(name, _)| name != "norm.weight");
    assert_eq!(message(&state, &hints), "norm.weight: not in the checkpoint");
    state.push(("fc_norm.weight".to_owned(), Tensor::ones([64], (Kind::Float, Device::Cpu))));
    assert!(message(&state, &hints).contains("norms after pooling"));
    let mut state = tensors(&small());
    state.push(("blocks.0.ls1.gamma".to_owned(), Tensor::ones([64], (Kind::Float, Device::Cpu))));
    assert_eq!(message(&state, &hints), "blocks.0.ls1.gamma: in the checkpoint, but not in the model");
    let mut state = tensors(&small());
    state.iter_mut().filter(|(name, _)| name == "norm.bias").for_each(|(_, tensor)| *tensor = tensor.narrow(0, 0, 3));
    assert_eq!(message(&state, &hints), "norm.bias: the checkpoint has shape [3], the model [64]");
    // A name with a huge number is no reason to make that many blocks.
    let mut state = tensors(&small());
    state.push(("blocks.99999999999.norm1.weight".to_owned(), Tensor::ones([64], (Kind::Float, Device::Cpu))));
    assert!(message(&state, &hints).starts_with("depth: expected 1 to 1024"));
}

#[test]
fn files_of_other_architectures_are_not_taken_for_ours() {
    for names in [
        &["conv1.weight", "layer1.0.conv1.weight", "fc.weight"][..],
        &["stages.0.blocks.0.conv_dw.weight", "stem.0.weight"],
        &["features.0.weight"],
        &["layers.0.blocks.0.attn.qkv.weight", "patch_embed.proj.weight"],
        &[],
    ] {
        assert_eq!(Layout::detect(names.iter().copied()), None, "{names:?}");
    }
}

#[test]
fn heads_come_from_the_file_the_caller_or_the_published_width() {
    let heads =
        |hints: Hints| import(Layout::Timm, &tensors(&small()), &hints).unwrap().architecture.encoder().num_heads;
    assert_eq!(heads(Hints::default()), 1);
    assert_eq!(heads(Hints { num_heads: Some(4), ..Hints::default() }), 4);
    let said = Architecture::Vit(sized(64, 2, 2, 8, 32));
    assert_eq!(heads(Hints { architecture: Some(said), ..Hints::default() }), 2);
    let narrow = Architecture::Vit(sized(16, 2, 2, 8, 32));
    assert!(message(&tensors(&narrow), &Hints::default()).starts_with("num_heads: not in the file"));
}

#[test]
fn a_grid_that_is_not_square_needs_a_size() {
    let wide =
        vit(r#"{"image_size": [16, 24], "patch_size": 8, "channels": 3, "embed_dim": 64, "depth": 2, "num_heads": 1}"#);
    let state = tensors(&Architecture::Vit(wide.clone()));
    assert!(message(&state, &Hints::default()).contains("6 positions are no square of patches"));
    let hints = Hints { image_size: Some((16, 24)), ..Hints::default() };
    assert_eq!(import(Layout::Timm, &state, &hints).unwrap().architecture, Architecture::Vit(wide));
}

#[test]
fn formats_that_do_not_know_a_model_are_refused() {
    let said = |format| export(format, &small(), &tensors(&small())).err().unwrap().to_string();
    assert_eq!(said(Format::Hf), "a vision transformer: can be exported as timm only");
    assert_eq!(said(Format::Mae), "a vision transformer: can be exported as timm only");
    let mut state = tensors(&small());
    state.push(("blocks.0.attn.qkv.decorrelation".to_owned(), Tensor::eye(64, (Kind::Float, Device::Cpu))));
    let message = export(Format::Timm, &small(), &state).err().unwrap().to_string();
    assert!(message.contains("fold R"), "{message}");
}
