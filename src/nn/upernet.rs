//! UperNet (Xiao et al. 2018, arXiv:1807.10221) on a vision transformer, for semantic segmentation.
//!
//! Features of four blocks, before any final norm, become a pyramid (×4, ×2, ×1, ×½ of the patch grid); the coarsest is pooled at
//! several scales; a feature pyramid network joins them; a classifier labels every pixel. A fully convolutional head on the
//! third feature is trained beside it (Zhao et al. 2017, arXiv:1612.01105). Layers are named as in Hugging Face's
//! `UperNetForSemanticSegmentation`, the neck as in its BEiT backbone.
//!
//! Departures: images of any size (padded to whole patches, labels cut back); the loss is the mean over labeled pixels, and 0
//! where there are none.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use super::architecture::Architecture;
use super::batch_norm::BatchNorm;
use super::conv::{Conv2d, Conv2dConfig};
use super::dropout::Dropout;
use super::registry::{Registry, Scope};
use super::rows::{Pass, Place, RowSampler};
use super::up_conv::UpConv;
use super::vit::{Trunk, VitConfig};
use super::{NnError, NnResult};

/// The label of pixels that do not count.
pub const IGNORE: i64 = 255;

/// The shape of a UperNet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpernetConfig {
    pub encoder: VitConfig,
    pub classes: i64,
    /// Four blocks of the encoder, from 0, ascending.
    pub taps: Vec<i64>,
    /// Width of the head.
    pub channels: i64,
    /// Sides of the pooled grids.
    pub pool_scales: Vec<i64>,
    /// Width of the auxiliary head.
    pub aux_channels: i64,
    /// Weight of the auxiliary loss; 0 leaves that head out.
    pub aux_weight: f64,
    /// Probability that a channel is dropped before a classifier.
    pub dropout: f64,
}

impl UpernetConfig {
    /// The paper's choice on this encoder (blocks 3, 5, 7 and 11 of 12, and in proportion for other depths).
    pub fn new(encoder: VitConfig, classes: i64) -> Self {
        let depth = encoder.depth;
        let tap = |twelfths: i64| ((depth * twelfths + 6) / 12 - 1).max(0);
        let taps = if depth == 4 { vec![0, 1, 2, 3] } else { [4, 6, 8, 12].map(tap).to_vec() };
        Self {
            encoder,
            classes,
            taps,
            channels: 512,
            pool_scales: vec![1, 2, 3, 6],
            aux_channels: 256,
            aux_weight: 0.4,
            dropout: 0.1,
        }
    }

    /// Errors: [`NnError::Config`] naming the first field that cannot work.
    pub fn check(&self) -> NnResult<()> {
        self.encoder.check()?;
        let fail = |message: String| Err(NnError::Config(message));
        let widths = [("channels", self.channels, 65_536), ("aux_channels", self.aux_channels, 65_536)];
        for (name, value, most) in widths.into_iter().chain([("classes", self.classes, IGNORE)]) {
            if !(1..=most).contains(&value) {
                return fail(format!("{name}: expected 1 to {most}, got {value}"));
            }
        }
        let depth = self.encoder.depth;
        let ascending = self.taps.is_sorted() && self.taps.iter().all(|tap| (0..depth).contains(tap));
        if self.taps.len() != 4 || !ascending {
            return fail(format!("taps: expected 4 ascending blocks from 0 to {}, got {:?}", depth - 1, self.taps));
        }
        if self.pool_scales.is_empty() || self.pool_scales.iter().any(|scale| !(1..=1024).contains(scale)) {
            return fail(format!("pool_scales: expected sides of 1 to 1024, got {:?}", self.pool_scales));
        }
        if !(self.aux_weight.is_finite() && self.aux_weight >= 0.0) {
            return fail(format!("aux_weight: expected 0 or more, got {}", self.aux_weight));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!("dropout: expected 0 or more, below 1, got {}", self.dropout));
        }
        Ok(())
    }
}

pub struct Upernet {
    config: UpernetConfig,
    registry: Rc<Registry>,
    encoder: Trunk,
    neck: Neck,
    decode_head: UperHead,
    auxiliary_head: Option<FcnHead>,
}

impl Upernet {
    /// A freshly initialized model: weights are drawn from (seed, name).
    pub fn new(config: &UpernetConfig, seed: u64, kind: Kind, device: Device) -> NnResult<Self> {
        config.check()?;
        let registry = Registry::new(seed, device, kind);
        let (root, width) = (registry.root(), config.encoder.embed_dim);
        let auxiliary_head = match config.aux_weight {
            0.0 => None,
            _ => Some(FcnHead::new(&root.sub("auxiliary_head"), width, config)?),
        };
        registry.set_architecture(Architecture::Upernet(config.clone()));
        Ok(Self {
            encoder: Trunk::new(&root.sub("encoder"), &config.encoder)?,
            neck: Neck::new(&root.sub("neck"), width)?,
            decode_head: UperHead::new(&root.sub("decode_head"), width, config)?,
            auxiliary_head,
            config: config.clone(),
            registry,
        })
    }

    pub fn config(&self) -> &UpernetConfig {
        &self.config
    }

    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    /// A score for every class at every pixel. Shapes: `[N, C, H, W]` → `[N, classes, H, W]`.
    pub fn logits(&self, images: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let (h, w) = sides(images)?;
        let features = self.features(images, pass)?;
        enlarged(&self.decode_head.forward(&self.neck.forward(features, pass)?, pass)?, images, self.patch())?
            .f_narrow(2, 0, h)?
            .f_narrow(3, 0, w)
            .map_err(NnError::from)
    }

    /// A micro-batch's share of its step's training loss: cross-entropy of both heads, averaged over labeled pixels, divided
    /// by the number of micro-batches. Masks of another size than the images' are compared at their own.
    /// Shapes: `images [N, C, H, W]`, `masks [N, H', W']` (int64, 255 is left out), `weights [classes]` → a scalar.
    pub fn loss(&self, images: &Tensor, masks: &Tensor, weights: Option<&Tensor>, place: &Place) -> NnResult<Tensor> {
        let sampler = RowSampler::new(place, self.registry.device());
        let loss = self.loss_with(images, masks, weights, Pass::train(place, &sampler))?;
        Ok(if place.micro_batches > 1 { loss.f_div_scalar(place.micro_batches as f64)? } else { loss })
    }

    /// The same loss for a given pass, undivided. Evaluation leaves the auxiliary head out.
    pub fn loss_with(&self, images: &Tensor, masks: &Tensor, weights: Option<&Tensor>, pass: Pass) -> NnResult<Tensor> {
        let (h, w) = sides(images)?;
        let [n, mask_h, mask_w] = masks.size()[..] else {
            return Err(NnError::Config(format!("masks: expected shape [N, H, W], got {:?}", masks.size())));
        };
        if n != images.size()[0] {
            return Err(NnError::Config(format!("masks: {n} for {} images", images.size()[0])));
        }
        let features = self.features(images, pass)?;
        let entropy = |coarse: &Tensor| -> NnResult<Tensor> {
            let logits = enlarged(coarse, images, self.patch())?.f_narrow(2, 0, h)?.f_narrow(3, 0, w)?;
            cross_entropy(&resize(&logits, [mask_h, mask_w])?, masks, weights, 0.0)
        };
        let auxiliary = match &self.auxiliary_head {
            Some(head) if pass.observe.is_some() => Some(entropy(&head.forward(&features[2], pass)?)?),
            _ => None,
        };
        let loss = entropy(&self.decode_head.forward(&self.neck.forward(features, pass)?, pass)?)?;
        Ok(match auxiliary {
            Some(auxiliary) => loss.f_add(&auxiliary.f_mul_scalar(self.config.aux_weight)?)?,
            None => loss,
        })
    }

    fn features(&self, images: &Tensor, pass: Pass) -> NnResult<Vec<Tensor>> {
        let (h, w) = sides(images)?;
        let missing = |side: i64| (self.patch() - side % self.patch()) % self.patch();
        let padded = images.f_constant_pad_nd([0, missing(w), 0, missing(h)])?; // 0 is the mean.
        self.encoder.features(&padded, &self.config.taps, pass)
    }

    fn patch(&self) -> i64 {
        self.config.encoder.patch_size
    }

    /// A forward pass over an empty image, so that layers know how many rows an image has.
    pub fn measure(&self) -> NnResult<()> {
        let VitConfig { channels, image_size: (h, w), .. } = self.config.encoder;
        let images = Tensor::f_zeros([1, channels, h, w], (self.registry.kind(), self.registry.device()))?;
        tch::no_grad(|| self.logits(&images, Pass::MEASURE)).map(|_| ())
    }
}

/// Cross-entropy averaged over the labels that count, each by its class's weight; 0 if there are none.
/// Shapes: `logits [N, K, …]`, `labels [N, …]` (int64), `weights [K]` → a scalar.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, weights: Option<&Tensor>, smoothing: f64) -> NnResult<Tensor> {
    let sum = logits.f_cross_entropy_loss(labels, weights, Reduction::Sum, IGNORE, smoothing)?;
    let counted = labels.f_ne(IGNORE)?;
    let total = match weights {
        // What PyTorch divides by: the weight of every label that counts.
        Some(weights) => {
            let of_label = weights.f_index_select(0, &labels.f_mul(&counted)?.f_reshape([-1])?)?;
            of_label.f_mul(&counted.f_reshape([-1])?)?.f_sum(logits.kind())?
        }
        None => counted.f_sum(logits.kind())?,
    };
    Ok(sum.f_div(&total.f_clamp_min(f64::from(f32::MIN_POSITIVE))?)?)
}

/// Height and width of a batch of images.
fn sides(images: &Tensor) -> NnResult<(i64, i64)> {
    match images.size()[..] {
        [_, _, h, w] => Ok((h, w)),
        ref size => Err(NnError::Config(format!("images: expected shape [N, C, H, W], got {size:?}"))),
    }
}

/// Scores at the size of the padded images.
fn enlarged(coarse: &Tensor, images: &Tensor, patch: i64) -> NnResult<Tensor> {
    let (h, w) = sides(images)?;
    resize(coarse, [h, w].map(|side| (side + patch - 1) / patch * patch))
}

fn resize(x: &Tensor, size: [i64; 2]) -> NnResult<Tensor> {
    if x.size()[2..] == size {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_upsample_bilinear2d(size, false, None, None)?)
}

/// The four features at ×4, ×2, ×1 and ×½ of the patch grid.
struct Neck {
    up1: UpConv,
    norm: BatchNorm,
    up2: UpConv,
    up: UpConv,
}

impl Neck {
    fn new(scope: &Scope, width: i64) -> NnResult<Self> {
        let fpn1 = scope.sub("fpn1");
        Ok(Self {
            up1: UpConv::new(&fpn1.sub("conv_transpose1"), width)?,
            norm: BatchNorm::new(&fpn1.sub("normalization"), width)?,
            up2: UpConv::new(&fpn1.sub("conv_transpose2"), width)?,
            up: UpConv::new(&scope.sub("fpn2"), width)?,
        })
    }

    fn forward(&self, features: Vec<Tensor>, pass: Pass) -> NnResult<Vec<Tensor>> {
        let [first, second, third, fourth] = &features[..] else { unreachable!("check() wants four taps") };
        let half = self.norm.forward(&self.up1.forward(first)?, pass)?.f_gelu("none")?;
        // A grid of one patch cannot be halved.
        let (h, w) = sides(fourth)?;
        let halved = if h < 2 || w < 2 {
            fourth.shallow_clone()
        } else {
            fourth.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?
        };
        Ok(vec![self.up2.forward(&half)?, self.up.forward(second)?, third.shallow_clone(), halved])
    }
}

/// A convolution without bias, a batch norm and a ReLU.
struct ConvModule {
    conv: Rc<Conv2d>,
    norm: BatchNorm,
}

impl ConvModule {
    fn new(scope: &Scope, in_channels: i64, out_channels: i64, kernel: i64) -> NnResult<Self> {
        let pad = kernel / 2;
        let config =
            Conv2dConfig { padding: (pad, pad), bias: false, ..Conv2dConfig::new(in_channels, out_channels, kernel) };
        Ok(Self {
            conv: Conv2d::new(&scope.sub("conv"), &config)?,
            norm: BatchNorm::new(&scope.sub("batch_norm"), out_channels)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        Ok(self.norm.forward(&self.conv.forward(x, pass)?, pass)?.f_relu()?)
    }
}

struct UperHead {
    pool_scales: Vec<i64>,
    psp_modules: Vec<ConvModule>,
    bottleneck: ConvModule,
    lateral_convs: Vec<ConvModule>,
    fpn_convs: Vec<ConvModule>,
    fpn_bottleneck: ConvModule,
    dropout: Dropout,
    classifier: Rc<Conv2d>,
}

impl UperHead {
    fn new(scope: &Scope, width: i64, config: &UpernetConfig) -> NnResult<Self> {
        let channels = config.channels;
        let several = |name: &str, inputs: i64, kernel: i64| -> NnResult<Vec<_>> {
            (0..3).map(|i| ConvModule::new(&scope.sub(name).sub(i), inputs, channels, kernel)).collect()
        };
        // The pool comes first in each of these, so that its convolution is number 1.
        let pooled = |i| ConvModule::new(&scope.sub("psp_modules").sub(i).sub(1), width, channels, 1);
        let scales = config.pool_scales.len();
        let joined = width + scales as i64 * channels;
        Ok(Self {
            pool_scales: config.pool_scales.clone(),
            psp_modules: (0..scales).map(pooled).collect::<NnResult<_>>()?,
            bottleneck: ConvModule::new(&scope.sub("bottleneck"), joined, channels, 3)?,
            lateral_convs: several("lateral_convs", width, 1)?,
            fpn_convs: several("fpn_convs", channels, 3)?,
            fpn_bottleneck: ConvModule::new(&scope.sub("fpn_bottleneck"), 4 * channels, channels, 3)?,
            dropout: Dropout::new(&scope.sub("dropout"), config.dropout),
            classifier: Conv2d::new(&scope.sub("classifier"), &Conv2dConfig::new(channels, config.classes, 1))?,
        })
    }

    /// Scores at the size of the finest feature. Shapes: four `[N, D, h, w]`, fine to coarse → `[N, classes, h₀, w₀]`.
    fn forward(&self, pyramid: &[Tensor], pass: Pass) -> NnResult<Tensor> {
        let size_of = |x: &Tensor| -> NnResult<[i64; 2]> { sides(x).map(|(h, w)| [h, w]) };
        let coarsest = &pyramid[3];
        let mut pooled = vec![coarsest.shallow_clone()];
        for (scale, conv) in self.pool_scales.iter().zip(&self.psp_modules) {
            let small = conv.forward(&coarsest.f_adaptive_avg_pool2d([*scale, *scale])?, pass)?;
            pooled.push(resize(&small, size_of(coarsest)?)?);
        }
        let mut levels = Vec::new();
        for (x, conv) in pyramid.iter().zip(&self.lateral_convs) {
            levels.push(conv.forward(x, pass)?);
        }
        levels.push(self.bottleneck.forward(&Tensor::f_cat(&pooled, 1)?, pass)?);
        for i in (1..4).rev() {
            levels[i - 1] = levels[i - 1].f_add(&resize(&levels[i], size_of(&levels[i - 1])?)?)?;
        }
        let finest = size_of(&levels[0])?;
        let mut joined = Vec::new();
        for (i, level) in levels.iter().enumerate() {
            let level = match self.fpn_convs.get(i) {
                Some(conv) => conv.forward(level, pass)?,
                None => level.shallow_clone(), // The pooled one has its convolution behind it.
            };
            joined.push(resize(&level, finest)?);
        }
        let x = self.fpn_bottleneck.forward(&Tensor::f_cat(&joined, 1)?, pass)?;
        Ok(self.classifier.forward(&self.dropout.channels(&x, pass)?, pass)?.f_to_kind(x.kind())?)
    }
}

/// One convolution and a classifier.
struct FcnHead {
    conv: ConvModule,
    dropout: Dropout,
    classifier: Rc<Conv2d>,
}

impl FcnHead {
    fn new(scope: &Scope, width: i64, config: &UpernetConfig) -> NnResult<Self> {
        let classifier = Conv2dConfig::new(config.aux_channels, config.classes, 1);
        Ok(Self {
            conv: ConvModule::new(&scope.sub("convs").sub(0), width, config.aux_channels, 3)?,
            dropout: Dropout::new(&scope.sub("dropout"), config.dropout),
            classifier: Conv2d::new(&scope.sub("classifier"), &classifier)?,
        })
    }

    fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let x = self.conv.forward(x, pass)?;
        Ok(self.classifier.forward(&self.dropout.channels(&x, pass)?, pass)?.f_to_kind(x.kind())?)
    }
}
