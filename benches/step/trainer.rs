//! The models that are timed: the recipes' sizes, and a step of their training loop.

use dbp_host::nn::{DecorOptions, Mae, MaeConfig, Pass, Path, Place, Plan, RowSampler, VitConfig, masking};
use dbp_host::train::{AdamWConfig, Optimizer};
use tch::{Device, Kind, Tensor};

use crate::{FLOAT, Result};

/// A recipe's size, from `stdlib/mae.rhai`.
pub struct Size {
    pub name: &'static str,
    image_size: i64,
    patch_size: i64,
    embed_dim: i64,
    depth: i64,
    num_heads: i64,
    decoder_embed_dim: i64,
    decoder_num_heads: i64,
    /// Pairs of its steps that are timed.
    pub pairs: usize,
}

#[rustfmt::skip]
pub const SIZES: &[Size] = &[
    Size { name: "nano", image_size: 64, patch_size: 8, embed_dim: 128, depth: 4, num_heads: 4,
           decoder_embed_dim: 64, decoder_num_heads: 4, pairs: 15 },
    Size { name: "tiny", image_size: 64, patch_size: 8, embed_dim: 192, depth: 12, num_heads: 3,
           decoder_embed_dim: 96, decoder_num_heads: 3, pairs: 7 },
    Size { name: "small", image_size: 224, patch_size: 16, embed_dim: 384, depth: 12, num_heads: 6,
           decoder_embed_dim: 256, decoder_num_heads: 8, pairs: 3 },
];

/// Counted, never run.
#[rustfmt::skip]
pub const BASE: Size = Size { name: "base", image_size: 224, patch_size: 16, embed_dim: 768, depth: 12, num_heads: 12,
                              decoder_embed_dim: 512, decoder_num_heads: 16, pairs: 0 };

impl Size {
    fn config(&self) -> MaeConfig {
        MaeConfig {
            encoder: VitConfig {
                image_size: (self.image_size, self.image_size),
                patch_size: self.patch_size,
                channels: 3,
                embed_dim: self.embed_dim,
                depth: self.depth,
                num_heads: self.num_heads,
                mlp_ratio: 4.0,
                drop_path: 0.0,
            },
            decoder_embed_dim: self.decoder_embed_dim,
            decoder_depth: 2,
            decoder_num_heads: self.decoder_num_heads,
            mask_ratio: 0.75,
            norm_pix: false,
        }
    }

    pub fn model(&self) -> Result<Mae> {
        Ok(Mae::new(&self.config(), 0, Kind::Float, Device::Cpu)?)
    }

    pub fn images(&self, batch: i64) -> Result<Tensor> {
        Ok(Tensor::f_randn([batch, 3, self.image_size, self.image_size], FLOAT)?)
    }
}

/// Gives the encoder its R's.
pub fn decorrelate(model: &Mae, options: &DecorOptions) -> Result<()> {
    model.registry().decorrelate(&["encoder.**".to_owned()], options)?;
    Ok(())
}

/// A model in training.
pub struct Trainer {
    model: Mae,
    optimizer: Optimizer,
    images: Tensor,
    path: Path,
    step: u64,
}

impl Trainer {
    pub fn new(size: &Size, images: &Tensor, decor: Option<&DecorOptions>, path: Path) -> Result<Self> {
        let model = size.model()?;
        if let Some(options) = decor {
            decorrelate(&model, options)?;
        }
        let optimizer = Optimizer::new(model.registry().clone(), AdamWConfig::default())?;
        Ok(Self { model, optimizer, images: images.shallow_clone(), path, step: 0 })
    }

    /// One step of `stdlib/mae.rhai`; what is [`Mae::loss`] there is spelled out, for the sake of `path`.
    pub fn step(&mut self) -> Result<()> {
        let place = Place { seed: 0, step: self.step, epoch: 0, micro: 0, micro_batches: 1 };
        let sampler = RowSampler::new(&place, Device::Cpu);
        let tokens = self.model.config().encoder.patches();
        let noise = masking::noise(&place, self.images.size()[0], tokens, Device::Cpu)?;
        let pass = Pass { path: self.path, ..Pass::train(&place, &sampler) };
        self.model.loss_with(&self.images, &noise, pass)?.f_backward()?; // The graph ends with this line.
        self.optimizer.step(self.optimizer.lr())?;
        self.model.registry().update_decorrelation()?;
        self.step += 1;
        Ok(())
    }

    pub fn plan(&self) -> Result<Plan> {
        Ok(self.model.registry().plan()?)
    }
}
