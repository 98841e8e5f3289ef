//! Masked autoencoder (He et al. 2022, arXiv:2111.06377): the encoder sees visible patches only, a small decoder predicts
//! the pixels of the removed ones. The loss predicts removed patches only, so it skips the decoder's head for the others.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::architecture::Architecture;
use super::block::Block;
use super::linear::Linear;
use super::masking::{self, Masking, kept_tokens};
use super::norm::LayerNorm;
use super::registry::Registry;
use super::rows::{Pass, Place, RowSampler};
use super::vit::{Vit, VitConfig, check_width};
use super::{NnError, NnResult, patch, pos_embed};

/// eps under the root of a patch's variance, for normalized targets.
const NORM_PIX_EPS: f64 = 1e-6;

/// The shape of a masked autoencoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaeConfig {
    pub encoder: VitConfig,
    pub decoder_embed_dim: i64,
    pub decoder_depth: i64,
    pub decoder_num_heads: i64,
    /// Fraction of patches removed.
    pub mask_ratio: f64,
    /// Predict each patch normalized by its own mean and deviation.
    pub norm_pix: bool,
}

pub struct Mae {
    config: MaeConfig,
    registry: Rc<Registry>,
    encoder: Vit,
    decoder_embed: Rc<Linear>,
    mask_token: Tensor,        // [1, 1, D']
    decoder_pos_embed: Tensor, // [1, 1 + L, D']
    decoder_blocks: Vec<Rc<Block>>,
    decoder_norm: LayerNorm,
    decoder_pred: Rc<Linear>,
}

/// What a model makes of images whose patches were partly removed. Shapes: `[N, C, H, W]`, `mask [N, L]`.
pub struct Reconstruction {
    /// The images with every removed patch replaced by its prediction.
    pub pasted: Tensor,
    /// 1 where a patch was removed.
    pub mask: Tensor,
}

impl Mae {
    /// A freshly initialized model: weights are drawn from (seed, name).
    pub fn new(config: &MaeConfig, seed: u64, kind: Kind, device: Device) -> NnResult<Self> {
        config.encoder.check()?;
        kept_tokens(config.encoder.patches(), config.mask_ratio)?;
        let (d, p) = (config.decoder_embed_dim, config.encoder.patch_size);
        check_width("decoder_embed_dim", d, config.decoder_num_heads)?;
        if !(1..=1024).contains(&config.decoder_depth) {
            return Err(NnError::Config(format!("decoder_depth: expected 1 to 1024, got {}", config.decoder_depth)));
        }
        let registry = Registry::new(seed, device, kind);
        let root = registry.root();
        let encoder = Vit::new(&root.sub("encoder"), &config.encoder)?;
        let decoder_embed = Linear::new(&root.sub("decoder_embed"), config.encoder.embed_dim, d)?;
        decoder_embed.behind(encoder.norm());
        let model = Self {
            encoder,
            decoder_embed,
            mask_token: root.token("mask_token", d)?,
            decoder_pos_embed: root.fixed("decoder_pos_embed", &pos_embed::sin_cos(d, config.encoder.grid())?)?,
            decoder_blocks: (0..config.decoder_depth)
                .map(|i| {
                    let scope = root.sub("decoder_blocks").sub(i);
                    Block::new(&scope, d, config.decoder_num_heads, config.encoder.mlp_ratio, 0.0)
                })
                .collect::<NnResult<_>>()?,
            decoder_norm: LayerNorm::new(&root.sub("decoder_norm"), d)?,
            decoder_pred: Linear::new(&root.sub("decoder_pred"), d, p * p * config.encoder.channels)?,
            config: config.clone(),
            registry,
        };
        model.decoder_pred.behind(&model.decoder_norm);
        model.registry.set_architecture(Architecture::Mae(config.clone()));
        Ok(model)
    }

    pub fn config(&self) -> &MaeConfig {
        &self.config
    }

    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    pub fn encoder(&self) -> &Vit {
        &self.encoder
    }

    /// A micro-batch's share of its step's training loss: mean squared error over removed patches, divided by the number of
    /// micro-batches, so that their gradients add up to the step's. Masks and sampled rows are drawn by `place`;
    /// decorrelated layers keep their rows for the update. Shapes: `images [N, C, H, W]` → a scalar.
    pub fn loss(&self, images: &Tensor, place: &Place) -> NnResult<Tensor> {
        let sampler = RowSampler::new(place, self.registry.device());
        let noise = self.noise(place, images)?;
        let loss = self.loss_with(images, &noise, Pass::train(place, &sampler))?;
        Ok(if place.micro_batches > 1 { loss.f_div_scalar(place.micro_batches as f64)? } else { loss })
    }

    /// The same without gradients, and without a trace in the decorrelated layers.
    pub fn evaluate(&self, images: &Tensor, place: &Place) -> NnResult<Tensor> {
        let noise = self.noise(place, images)?;
        tch::no_grad(|| self.loss_with(images, &noise, Pass::EVALUATE))
    }

    /// The loss for given masking noise. Shapes: `noise [N, L]`.
    pub fn loss_with(&self, images: &Tensor, noise: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let masking = Masking::from_noise(noise, self.config.mask_ratio)?;
        let latent = self.encoder.forward(images, Some(&masking.ids_keep), pass)?;
        let decoded = self.decode(&latent, &masking, pass)?; // [N, L, D']
        let (_, kept) = masking.ids_keep.size2()?;
        let removed = decoded.f_narrow(1, kept, decoded.size()[1] - kept)?;
        let predicted = self.decoder_pred.forward(&self.decoder_norm.forward(&removed)?, pass)?;
        let target = masking::take(&patch::patchify(images, self.config.encoder.patch_size)?, &masking.ids_removed)?;
        let target = if self.config.norm_pix { normalized(&target)?.0 } else { target };
        Ok(predicted.f_to_kind(target.kind())?.f_mse_loss(&target, tch::Reduction::Mean)?)
    }

    /// Predicts removed patches for looking at. Under `norm_pix` the prediction takes each true patch's mean and
    /// deviation, as the authors' pictures do.
    pub fn reconstruct(&self, images: &Tensor, place: &Place) -> NnResult<Reconstruction> {
        let noise = self.noise(place, images)?;
        tch::no_grad(|| {
            let masking = Masking::from_noise(&noise, self.config.mask_ratio)?;
            let latent = self.encoder.forward(images, Some(&masking.ids_keep), Pass::EVALUATE)?;
            let decoded = self.decoder_norm.forward(&self.decode(&latent, &masking, Pass::EVALUATE)?)?;
            let decoded = masking::take(&decoded, &masking.ids_restore()?)?;
            let mut predicted = self.decoder_pred.forward(&decoded, Pass::EVALUATE)?.f_to_kind(images.kind())?;
            let (p, grid) = (self.config.encoder.patch_size, self.config.encoder.grid());
            let target = patch::patchify(images, p)?;
            if self.config.norm_pix {
                let (_, mean, deviation) = normalized(&target)?;
                predicted = predicted.f_mul(&deviation)?.f_add(&mean)?;
            }
            let mask = masking.mask(self.registry.kind())?;
            let removed = mask.f_unsqueeze(-1)?;
            let pasted = target.f_add(&predicted.f_sub(&target)?.f_mul(&removed)?)?;
            Ok(Reconstruction { pasted: patch::unpatchify(&pasted, p, grid)?, mask })
        })
    }

    /// The loss of predicting, for every removed patch, its image's mean of visible pixels, per channel: what a model must
    /// beat to have learned anything. Same masks as [`Mae::evaluate`].
    pub fn mean_baseline(&self, images: &Tensor, place: &Place) -> NnResult<Tensor> {
        let noise = self.noise(place, images)?;
        tch::no_grad(|| {
            let masking = Masking::from_noise(&noise, self.config.mask_ratio)?;
            let (p, c) = (self.config.encoder.patch_size, self.config.encoder.channels);
            let patches = patch::patchify(images, p)?;
            let n = patches.size()[0];
            let visible = masking::take(&patches, &masking.ids_keep)?.f_reshape([n, -1, c])?;
            let mean = visible.f_mean_dim(1i64, true, visible.kind())?.f_repeat([1, 1, p * p])?; // [N, 1, p²·C]
            let target = masking::take(&patches, &masking.ids_removed)?;
            let target = if self.config.norm_pix { normalized(&target)?.0 } else { target };
            let guess = if self.config.norm_pix { mean.f_zeros_like()? } else { mean };
            Ok(target.f_sub(&guess)?.f_square()?.f_mean(target.kind())?)
        })
    }

    /// A forward pass over one empty image, so that layers know how many rows an image has.
    pub fn measure(&self) -> NnResult<()> {
        let VitConfig { channels, image_size: (h, w), .. } = self.config.encoder;
        let image = Tensor::f_zeros([1, channels, h, w], (self.registry.kind(), self.registry.device()))?;
        let noise =
            Tensor::f_zeros([1, self.config.encoder.patches()], (self.registry.kind(), self.registry.device()))?;
        tch::no_grad(|| self.loss_with(&image, &noise, Pass::MEASURE)).map(|_| ())
    }

    fn noise(&self, place: &Place, images: &Tensor) -> NnResult<Tensor> {
        let tokens = self.config.encoder.patches();
        masking::noise(place, images.size().first().copied().unwrap_or(0), tokens, self.registry.device())
    }

    /// Decoder features of every patch, before the final norm, in the order (kept, removed): attention knows a token's place by its
    /// position alone, so nothing has to be put back in order. Shapes: `[N, 1 + K, D]` → `[N, L, D']`.
    fn decode(&self, latent: &Tensor, masking: &Masking, pass: Pass) -> NnResult<Tensor> {
        let x = self.decoder_embed.forward(latent, pass)?;
        let (n, seen, width) = x.size3()?;
        let tokens = self.config.encoder.patches();
        let removed = self.mask_token.f_expand([n, tokens + 1 - seen, -1], false)?;
        let (class, patches) =
            (self.decoder_pos_embed.f_narrow(1, 0, 1)?, self.decoder_pos_embed.f_narrow(1, 1, tokens)?);
        let positions = patches.f_view([tokens, width])?.f_index_select(0, &masking.order.f_view([-1])?)?;
        let positions =
            Tensor::f_cat(&[class.f_expand([n, -1, -1], false)?, positions.f_view([n, tokens, width])?], 1)?;
        let mut x = Tensor::f_cat(&[x, removed], 1)?.f_add(&positions)?;
        for block in &self.decoder_blocks {
            x = block.forward(&x, pass)?;
        }
        Ok(x.f_narrow(1, 1, tokens)?)
    }
}

/// Each patch by its own mean and (unbiased) deviation, and these. Shapes: `[N, K, P]` → `[N, K, P]`, `[N, K, 1]` twice.
fn normalized(patches: &Tensor) -> NnResult<(Tensor, Tensor, Tensor)> {
    let mean = patches.f_mean_dim(-1i64, true, patches.kind())?;
    let deviation = patches.f_var_dim(-1i64, true, true)?.f_add_scalar(NORM_PIX_EPS)?.f_sqrt()?;
    Ok((patches.f_sub(&mean)?.f_div(&deviation)?, mean, deviation))
}
