//! Whether the peer computes what the host does: three steps from the same weights, on the same images, with the same masks
//! and rows, and what came of them. A peer that computes something else measures nothing.

use dbp_host::nn::{DecorOptions, Mae, Pass, Place, RowSampler, masking};
use dbp_host::train::{AdamWConfig, Optimizer};
use serde_json::Value;
use tch::{Device, Tensor};

use crate::child::Peer;
use crate::trainer::{Size, decorrelate};
use crate::{FLOAT, Result, Setting};

/// Tensors as a file holds them.
type Named = Vec<(String, Tensor)>;

const BATCH: i64 = 16;
const STEPS: u64 = 3;
/// Far above the usual η, so that R moves.
const DECOR_LR: f64 = 1e-2;

/// Relative differences that rounding alone explains. Weights differ most: AdamW divides by the root of the gradient's square, so
/// that a gradient of nothing but rounding moves a weight as far as any other.
const LOSS_TOLERANCE: f64 = 1e-5;
const R_TOLERANCE: f64 = 1e-3;
const WEIGHT_TOLERANCE: f64 = 3e-2;

/// Prints by how much the two differ.
///
/// Errors: that they differ by more than rounding, or that R did not move.
pub fn check(size: &Size, options: Option<&DecorOptions>, mode: &str, setting: &Setting) -> Result<()> {
    // The two bounds that keep R finite are the host's alone.
    let options =
        options.map(|options| DecorOptions { lr: DECOR_LR, project: false, max_norm: 0.0, ..options.clone() });
    let (tensors, losses) = host(size, options.as_ref())?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("check.safetensors");
    Tensor::write_safetensors(&tensors, &file)?;
    let mut asked = ["--size", size.name, "--batch", &BATCH.to_string()].map(str::to_owned).to_vec();
    asked.extend(options.iter().map(|_| "--decorrelate".to_owned()));
    let answer: Value =
        serde_json::from_str(&Peer::start(setting, &asked)?.ask(&format!("check {}", file.display()))?)?;
    let figure = |name: &str| answer[name].as_f64().ok_or_else(|| format!("check: the answer has no {name}: {answer}"));
    let theirs: Vec<f64> = answer["losses"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    if theirs.len() != losses.len() {
        return Err(format!("check: expected {STEPS} losses, got {answer}").into());
    }
    let loss = losses.iter().zip(&theirs).map(|(a, b)| (a - b).abs() / a).fold(0.0, f64::max);
    let (weights, r) = (figure("weights")?, figure("R")?);
    println!(
        "check step/{}/{mode} loss {loss:.1e} weights {weights:.1e}{}   \
         relative differences, {STEPS} steps of {BATCH} images from the same weights, masks and rows",
        size.name,
        if options.is_some() { format!(" R {r:.1e}") } else { String::new() },
    );
    // Written so that NaN fails.
    if loss <= LOSS_TOLERANCE && weights <= WEIGHT_TOLERANCE && r <= R_TOLERANCE {
        return Ok(());
    }
    Err(format!("check: the two differ by more than rounding: losses {losses:?} and {theirs:?}").into())
}

/// What the peer must know to repeat the steps, and the losses.
fn host(size: &Size, options: Option<&DecorOptions>) -> Result<(Named, Vec<f64>)> {
    let model = size.model()?;
    let registry = model.registry();
    if let Some(options) = options {
        decorrelate(&model, options)?;
    }
    let mut tensors = parameters(&model, "init")?;
    let optimizer = Optimizer::new(registry.clone(), AdamWConfig::default())?;
    let images = size.images(BATCH)?;
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let place = Place { seed: 0, step, epoch: 0, micro: 0, micro_batches: 1 };
        let sampler = RowSampler::new(&place, Device::Cpu);
        let noise = masking::noise(&place, BATCH, model.config().encoder.patches(), Device::Cpu)?;
        let loss = model.loss_with(&images, &noise, Pass::train(&place, &sampler))?;
        loss.f_backward()?;
        optimizer.step(optimizer.lr())?;
        registry.update_decorrelation()?;
        losses.push(loss.f_double_value(&[])?);
        tensors.push((format!("noise.{step}"), noise));
        for layer in registry.plan()?.layers {
            let rows = if layer.name.contains("patch_embed") { "patch_rows" } else { "token_rows" };
            let name = format!("{rows}.{step}");
            if !tensors.iter().any(|(known, _)| *known == name) {
                tensors.push((name, sampler.rows(layer.rows, layer.sampled)?));
            }
        }
    }
    for (name, r) in registry.layers().iter().flat_map(|layer| layer.r_tensors()) {
        let eye = Tensor::f_eye(r.size()[0], FLOAT)?;
        if r.f_sub(&eye)?.f_norm()?.f_double_value(&[])? < 1e-3 {
            return Err(format!("check: {name} did not move, so nothing can be said of its update").into());
        }
        tensors.push((format!("R.{}", name.trim_end_matches(".decorrelation")), r));
    }
    tensors.extend(parameters(&model, "after")?);
    tensors.push(("images".to_owned(), images));
    tensors.push(("steps".to_owned(), Tensor::from_slice(&[STEPS as i64])));
    tensors.push(("decor_lr".to_owned(), Tensor::from_slice(&[DECOR_LR])));
    Ok((tensors, losses))
}

/// Copies of all parameters, under `<prefix>.<name>`.
fn parameters(model: &Mae, prefix: &str) -> Result<Named> {
    let mut tensors = Vec::new();
    model.registry().each_parameter(|parameter| -> Result<()> {
        let values = parameter.tensor.f_detach()?;
        let mut copy = values.f_zeros_like()?;
        copy.f_copy_(&values)?;
        tensors.push((format!("{prefix}.{}", parameter.name), copy));
        Ok(())
    })?;
    Ok(tensors)
}
