//! A vision transformer with a linear head for image classification, named as timm's (`head`, `fc_norm`).
//!
//! `Pool::Mean` averages the patch tokens and normalizes the average, as MAE fine-tunes (He et al. 2022, arXiv:2111.06377,
//! appendix A.2; timm's `global_pool="avg"`); `Pool::Class` takes the normalized class token.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::architecture::Architecture;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::registry::Registry;
use super::rows::{Pass, Place, RowSampler};
use super::upernet::cross_entropy;
use super::vit::{Trunk, VitConfig};
use super::{NnError, NnResult};

/// What becomes of an image's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    Mean,
    Class,
}

impl Pool {
    /// Shapes: `[N, 1 + L, D]`, class token first → `[N, D]`.
    pub fn apply(self, tokens: &Tensor) -> NnResult<Tensor> {
        Ok(match self {
            Self::Mean => tokens.f_narrow(1, 1, tokens.size()[1] - 1)?.f_mean_dim(1i64, false, tokens.kind())?,
            Self::Class => tokens.f_select(1, 0)?,
        })
    }
}

/// The shape of a classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    pub encoder: VitConfig,
    pub classes: i64,
    pub pool: Pool,
}

pub struct Classifier {
    config: ClassifierConfig,
    registry: Rc<Registry>,
    encoder: Trunk,
    norm: LayerNorm,
    head: Rc<Linear>,
}

impl Classifier {
    /// A freshly initialized model: weights are drawn from (seed, name).
    pub fn new(config: &ClassifierConfig, seed: u64, kind: Kind, device: Device) -> NnResult<Self> {
        config.encoder.check()?;
        if !(1..=1_000_000).contains(&config.classes) {
            return Err(NnError::Config(format!("classes: expected 1 to 1000000, got {}", config.classes)));
        }
        let registry = Registry::new(seed, device, kind);
        let (root, width) = (registry.root(), config.encoder.embed_dim);
        let encoder = Trunk::new(&root.sub("encoder"), &config.encoder)?;
        let norm = match config.pool {
            Pool::Mean => LayerNorm::new(&root.sub("fc_norm"), width)?,
            Pool::Class => LayerNorm::new(&root.sub("encoder").sub("norm"), width)?,
        };
        let head = Linear::new(&root.sub("head"), width, config.classes)?;
        head.behind(&norm);
        registry.set_architecture(Architecture::Classifier(config.clone()));
        Ok(Self { encoder, norm, head, config: config.clone(), registry })
    }

    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    /// What the head sees. Shapes: `[N, C, H, W]` → `[N, D]`.
    pub fn features(&self, images: &Tensor, pass: Pass) -> NnResult<Tensor> {
        self.norm.forward(&self.config.pool.apply(&self.encoder.forward(images, None, pass)?)?)
    }

    /// A score for every class. Shapes: `[N, C, H, W]` → `[N, classes]`.
    pub fn logits(&self, images: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let logits = self.head.forward(&self.features(images, pass)?, pass)?;
        Ok(logits.f_to_kind(self.registry.kind())?)
    }

    /// A micro-batch's share of its step's training loss: cross-entropy, `smoothing` of it spread over all classes (Szegedy et
    /// al. 2016, arXiv:1512.00567). Shapes: `images [N, C, H, W]`, `labels [N]` (int64) → a scalar.
    pub fn loss(&self, images: &Tensor, labels: &Tensor, smoothing: f64, place: &Place) -> NnResult<Tensor> {
        let sampler = RowSampler::new(place, self.registry.device());
        let logits = self.logits(images, Pass::train(place, &sampler))?;
        let loss = cross_entropy(&logits, labels, None, smoothing)?;
        Ok(if place.micro_batches > 1 { loss.f_div_scalar(place.micro_batches as f64)? } else { loss })
    }

    /// A forward pass over one empty image, so that layers know how many rows an image has.
    pub fn measure(&self) -> NnResult<()> {
        let VitConfig { channels, image_size: (h, w), .. } = self.config.encoder;
        let image = Tensor::f_zeros([1, channels, h, w], (self.registry.kind(), self.registry.device()))?;
        tch::no_grad(|| self.logits(&image, Pass::MEASURE)).map(|_| ())
    }
}
