//! Hugging Face's `UperNetForSemanticSegmentation` (transformers `models/upernet`) on a `BeitBackbone` with absolute positions
//! and without layer scale: the backbone of theirs that is a plain vision transformer with the pyramid's neck.
//!
//! - BEiT has no bias for keys. It adds the same number to all scores of a query, which the softmax does not see: leaving
//!   it out is exact; when reading it is zero.
//! - Their batch norms count batches, which nothing reads: dropped, and written as 0.
//! - Dropout of the head is not in their model: it only matters in training.
//! - Written are the names of version 4, which version 5 loads and saves too; read are also those that it has inside.

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::hf::{Side, block, block_names, renamed};
use super::{Place, State};
use crate::nn::NnResult;
use crate::nn::upernet::UpernetConfig;

/// (ours, theirs)
const PAIRS: [(&str, &str); 9] = [
    ("encoder.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
    ("encoder.cls_token", "backbone.embeddings.cls_token"),
    ("encoder.pos_embed", "backbone.embeddings.position_embeddings"),
    ("neck.fpn1.conv_transpose1.", "backbone.fpn1.0."),
    ("neck.fpn1.normalization.", "backbone.fpn1.1."),
    ("neck.fpn1.conv_transpose2.", "backbone.fpn1.3."),
    ("neck.fpn2.", "backbone.fpn2.0."),
    ("decode_head.", "decode_head."),
    ("auxiliary_head.", "auxiliary_head."),
];

/// (theirs inside version 5, theirs in files)
const INSIDE: [(&str, &str); 7] = [
    ("backbone.beit.layers.", "backbone.encoder.layer."),
    ("backbone.beit.encoder.", "backbone.encoder."),
    ("backbone.beit.embeddings.", "backbone.embeddings."),
    ("backbone.fpn.fpn1.conv_transpose1.", "backbone.fpn1.0."),
    ("backbone.fpn.fpn1.normalization.", "backbone.fpn1.1."),
    ("backbone.fpn.fpn1.conv_transpose2.", "backbone.fpn1.3."),
    ("backbone.fpn.fpn2.", "backbone.fpn2.0."),
];

const THEIR_BLOCKS: &str = "backbone.encoder.layer";
const OUR_BLOCKS: &str = "encoder.blocks";

pub(super) fn ours(theirs: &str) -> Option<Place> {
    let name = renamed(&INSIDE, theirs, Side::First).unwrap_or_else(|| theirs.to_owned());
    match name.strip_prefix(THEIR_BLOCKS).and_then(|rest| rest.strip_prefix('.')) {
        Some(rest) => block(OUR_BLOCKS, rest),
        None => renamed(&PAIRS, &name, Side::Second).map(Place::Whole),
    }
}

/// An empty name is a part that they do not have.
pub(super) fn theirs(ours: &str) -> Option<Vec<String>> {
    let Some(rest) = ours.strip_prefix(OUR_BLOCKS).and_then(|rest| rest.strip_prefix('.')) else {
        return renamed(&PAIRS, ours, Side::First).map(|name| vec![name]);
    };
    let mut names = block_names(THEIR_BLOCKS, rest)?;
    for name in &mut names {
        if name.ends_with(".key.bias") {
            name.clear();
        }
    }
    Some(names)
}

/// The counters of batch norms.
pub(super) fn add_counters(state: &mut State) -> NnResult<()> {
    let norms: Vec<String> =
        state.iter().filter_map(|(name, _)| Some(name.strip_suffix("running_mean")?.to_owned())).collect();
    for norm in norms {
        let zero = Tensor::f_zeros([0i64; 0], (Kind::Int64, Device::Cpu))?;
        state.push((format!("{norm}num_batches_tracked"), zero));
    }
    Ok(())
}

pub(super) fn config(model: &UpernetConfig) -> Value {
    let encoder = &model.encoder;
    let labels = |forward: bool| -> Value {
        let pair = |i: i64| {
            let (id, label) = (i.to_string(), format!("LABEL_{i}"));
            if forward { (id, json!(label)) } else { (label, json!(i)) }
        };
        Value::Object((0..model.classes).map(pair).collect())
    };
    // Their stage k is what block k - 1 puts out.
    let stages: Vec<i64> = model.taps.iter().map(|tap| tap + 1).collect();
    json!({
        "architectures": ["UperNetForSemanticSegmentation"],
        "auxiliary_channels": model.aux_channels,
        "auxiliary_concat_input": false,
        "auxiliary_in_channels": encoder.embed_dim,
        "auxiliary_loss_weight": model.aux_weight,
        "auxiliary_num_convs": 1,
        "backbone_config": {
            "add_fpn": true,
            "attention_probs_dropout_prob": 0.0,
            "batch_norm_eps": 1e-5, // Version 4 asks for it without a default of its own.
            "drop_path_rate": 0.0,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": encoder.embed_dim,
            "image_size": encoder.image_size.0,
            "intermediate_size": (encoder.embed_dim as f64 * encoder.mlp_ratio) as i64,
            "layer_norm_eps": 1e-6,
            "layer_scale_init_value": 0.0,
            "model_type": "beit",
            "num_attention_heads": encoder.num_heads,
            "num_channels": encoder.channels,
            "num_hidden_layers": encoder.depth,
            "out_features": stages.iter().map(|stage| format!("stage{stage}")).collect::<Vec<_>>(),
            "out_indices": stages,
            "patch_size": encoder.patch_size,
            "reshape_hidden_states": true,
            "use_absolute_position_embeddings": true,
            "use_mask_token": false,
            "use_relative_position_bias": false,
            "use_shared_relative_position_bias": false,
        },
        "hidden_size": model.channels,
        "id2label": labels(true),
        "initializer_range": 0.02,
        "label2id": labels(false),
        "loss_ignore_index": 255,
        "model_type": "upernet",
        "pool_scales": model.pool_scales,
        "torch_dtype": "float32",
        "use_auxiliary_head": model.aux_weight > 0.0,
    })
}
