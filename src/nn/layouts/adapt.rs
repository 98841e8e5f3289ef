//! Weights for images of another size or with other channels, by timm's rules.
//!
//! - Positions: bicubic with antialiasing (`resample_abs_pos_embed`). Hugging Face's own interpolation has no antialiasing.
//! - Channels: one channel takes the sum over all; more repeat them in order, scaled by old / new, so that the sum over
//!   channels keeps its size (`adapt_input_conv`).

use tch::{Kind, Tensor};

use super::State;
use crate::nn::architecture::Architecture;
use crate::nn::{NnError, NnResult, pos_embed};

/// Interpolates positions for images of `size` pixels. Returns whether anything had to change.
///
/// Errors: a size that is not a multiple of the patch size.
pub fn resize(architecture: &mut Architecture, state: &mut State, size: (i64, i64)) -> NnResult<bool> {
    let from = architecture.encoder().grid();
    if architecture.encoder().image_size == size {
        return Ok(false);
    }
    let encoder = architecture.encoder_mut();
    encoder.image_size = size;
    encoder.check()?;
    let to = encoder.grid();
    for (name, tensor) in state.iter_mut() {
        if matches!(name.as_str(), "pos_embed" | "encoder.pos_embed" | "decoder_pos_embed") {
            *tensor = pos_embed::resample(tensor, from, to)?;
        }
    }
    Ok(true)
}

/// Gives the patch embedding another number of channels. A decoder's prediction of pixels has no such rule: it is taken out
/// of `state`. Returns whether anything had to change.
pub fn adapt_channels(architecture: &mut Architecture, state: &mut State, channels: i64) -> NnResult<bool> {
    let before = architecture.encoder().channels;
    if before == channels {
        return Ok(false);
    }
    architecture.encoder_mut().channels = channels;
    architecture.encoder().check()?;
    let name = format!("{}patch_embed.proj", architecture.prefix());
    if state.iter().any(|(other, _)| other.starts_with(&format!("{name}.decorrelation"))) {
        let message = format!("channels: {name} is decorrelated, and its R belongs to {before} channels");
        return Err(NnError::Config(message));
    }
    for (other, weight) in state.iter_mut() {
        if *other == format!("{name}.weight") {
            *weight = adapted(weight, channels)?;
        }
    }
    state.retain(|(other, _)| !other.starts_with("decoder_pred."));
    Ok(true)
}

/// Shapes: `[D, C, p, p]` → `[D, C', p, p]`.
fn adapted(weight: &Tensor, channels: i64) -> NnResult<Tensor> {
    let before = weight.size()[1];
    if channels == 1 {
        return Ok(weight.f_sum_dim_intlist(1i64, true, Kind::Float)?);
    }
    let repeats = (channels + before - 1) / before;
    let repeated = weight.f_repeat([1, repeats, 1, 1])?.f_narrow(1, 0, channels)?;
    Ok(repeated.f_mul_scalar(before as f64 / channels as f64)?)
}
