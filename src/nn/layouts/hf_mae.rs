//! Hugging Face's `ViTMAEForPreTraining` (transformers `models/vit_mae`), and `ViTMAEModel`, its encoder alone.
//!
//! Written are the names of the hub (`vit.encoder.layer.0.attention.attention.query.weight`), which versions 4 and 5 load with
//! nothing missing; read are also those that version 5 has inside, and those it saves (`decoder.decoder_encoder.layer.…`).
//! Their heads and mask ratio are in `config.json`.

use serde_json::{Value, json};

use super::Place;
use super::hf::{Side, block, block_names, renamed};
use crate::nn::mae::MaeConfig;

/// (ours, theirs)
const PAIRS: [(&str, &str); 9] = [
    ("encoder.patch_embed.proj.", "vit.embeddings.patch_embeddings.projection."),
    ("encoder.cls_token", "vit.embeddings.cls_token"),
    ("encoder.pos_embed", "vit.embeddings.position_embeddings"),
    ("encoder.norm.", "vit.layernorm."),
    ("decoder_embed.", "decoder.decoder_embed."),
    ("mask_token", "decoder.mask_token"),
    ("decoder_pos_embed", "decoder.decoder_pos_embed"),
    ("decoder_norm.", "decoder.decoder_norm."),
    ("decoder_pred.", "decoder.decoder_pred."),
];

/// (ours, theirs); the first of each is what is written.
const BLOCKS: [(&str, &str); 4] = [
    ("encoder.blocks", "vit.encoder.layer"),
    ("decoder_blocks", "decoder.decoder_layers"),
    ("encoder.blocks", "vit.layers"),
    ("decoder_blocks", "decoder.decoder_encoder.layer"),
];

pub(super) fn ours(theirs: &str) -> Option<Place> {
    // `ViTMAEModel` goes without `vit.`.
    let alone = ["embeddings.", "encoder.", "layers.", "layernorm."].iter().any(|start| theirs.starts_with(start));
    let theirs = if alone { format!("vit.{theirs}") } else { theirs.to_owned() };
    for (ours, prefix) in BLOCKS {
        if let Some(rest) = theirs.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            return block(ours, rest);
        }
    }
    renamed(&PAIRS, &theirs, Side::Second).map(Place::Whole)
}

pub(super) fn theirs(ours: &str) -> Option<Vec<String>> {
    for (prefix, theirs) in BLOCKS {
        if let Some(rest) = ours.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) {
            return block_names(theirs, rest);
        }
    }
    renamed(&PAIRS, ours, Side::First).map(|name| vec![name])
}

pub(super) fn config(model: &MaeConfig) -> Value {
    let encoder = &model.encoder;
    let hidden = |width: i64| (width as f64 * encoder.mlp_ratio) as i64;
    json!({
        "architectures": ["ViTMAEForPreTraining"],
        "attention_probs_dropout_prob": 0.0,
        "decoder_hidden_size": model.decoder_embed_dim,
        "decoder_intermediate_size": hidden(model.decoder_embed_dim),
        "decoder_num_attention_heads": model.decoder_num_heads,
        "decoder_num_hidden_layers": model.decoder_depth,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": encoder.embed_dim,
        "image_size": encoder.image_size.0,
        "initializer_range": 0.02,
        "intermediate_size": hidden(encoder.embed_dim),
        "layer_norm_eps": 1e-6,
        "mask_ratio": model.mask_ratio,
        "model_type": "vit_mae",
        "norm_pix_loss": model.norm_pix,
        "num_attention_heads": encoder.num_heads,
        "num_channels": encoder.channels,
        "num_hidden_layers": encoder.depth,
        "patch_size": encoder.patch_size,
        "qkv_bias": true,
        "torch_dtype": "float32",
    })
}
