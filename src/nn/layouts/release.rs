//! timm's `VisionTransformer` and the official MAE release: the names that ours follow, without `encoder.`.
//!
//! Sources: timm `models/vision_transformer.py`; the MAE release's `models_mae.py`, for the names alone.

use super::{ENCODER, Place};

/// What the MAE release adds to an encoder.
const DECODER: [&str; 6] =
    ["decoder_embed.", "mask_token", "decoder_pos_embed", "decoder_blocks.", "decoder_norm.", "decoder_pred."];

fn is_decoder(name: &str) -> bool {
    DECODER.iter().any(|prefix| name.starts_with(prefix))
}

/// What timm's classifiers add, and fine-tuned weights of the MAE release.
pub(super) fn is_head(name: &str) -> bool {
    ["head.", "fc_norm."].iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn ours(theirs: &str) -> Option<Place> {
    Some(Place::Whole(if is_decoder(theirs) || is_head(theirs) {
        theirs.to_owned()
    } else {
        format!("{ENCODER}{theirs}")
    }))
}

pub(super) fn theirs(ours: &str) -> Option<Vec<String>> {
    match ours.strip_prefix(ENCODER) {
        Some(name) => Some(vec![name.to_owned()]),
        None => (is_decoder(ours) || is_head(ours)).then(|| vec![ours.to_owned()]),
    }
}
