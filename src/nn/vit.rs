//! Vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) as the MAE paper sets it up: class token, fixed 2-D
//! sine-cosine positions, pre-norm blocks, final norm. Any number of channels; images need not be square, nor of the size that
//! the model was made for: then positions are interpolated.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::block::Block;
use super::linear::Linear;
use super::norm::LayerNorm;
use super::registry::Scope;
use super::rows::Pass;
use super::{NnError, NnResult};
use super::{masking, patch, pos_embed};

/// Bounds far beyond any model, so that sizes multiply without overflow.
const MAX_SIDE: i64 = 8192;
const MAX_WIDTH: i64 = 65_536;
const MAX_DEPTH: i64 = 1024;

/// The shape of a vision transformer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VitConfig {
    /// Height and width in pixels; multiples of `patch_size`.
    pub image_size: (i64, i64),
    pub patch_size: i64,
    pub channels: i64,
    pub embed_dim: i64,
    pub depth: i64,
    pub num_heads: i64,
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Stochastic depth: the probability that a training pass leaves out a branch of the last block; it rises linearly from
    /// 0 at the first. For fine-tuning.
    #[serde(default)]
    pub drop_path: f64,
}

fn default_mlp_ratio() -> f64 {
    4.0
}

impl VitConfig {
    /// Rows and columns of patches.
    pub fn grid(&self) -> (i64, i64) {
        (self.image_size.0 / self.patch_size, self.image_size.1 / self.patch_size)
    }

    /// Patches of an image, `L`.
    pub fn patches(&self) -> i64 {
        self.grid().0 * self.grid().1
    }

    /// Errors: [`NnError::Config`] naming the first field that cannot work.
    pub fn check(&self) -> NnResult<()> {
        let fail = |message: String| Err(NnError::Config(message));
        let (h, w) = self.image_size;
        for (name, value, most) in [
            ("image_size", h.min(w), MAX_SIDE),
            ("image_size", h.max(w), MAX_SIDE),
            ("patch_size", self.patch_size, MAX_SIDE),
            ("channels", self.channels, MAX_SIDE),
            ("embed_dim", self.embed_dim, MAX_WIDTH),
            ("depth", self.depth, MAX_DEPTH),
            ("num_heads", self.num_heads, MAX_WIDTH),
        ] {
            if !(1..=most).contains(&value) {
                return fail(format!("{name}: expected 1 to {most}, got {value}"));
            }
        }
        if h % self.patch_size != 0 || w % self.patch_size != 0 {
            return fail(format!("image_size: {h} x {w} is not a multiple of patch_size {}", self.patch_size));
        }
        check_width("embed_dim", self.embed_dim, self.num_heads)?;
        let hidden = self.mlp_ratio * self.embed_dim as f64;
        if !(1.0..=4.0 * MAX_WIDTH as f64).contains(&hidden) {
            return fail(format!("mlp_ratio: {} makes a hidden width of {hidden}", self.mlp_ratio));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return fail(format!("drop_path: expected 0 or more, below 1, got {}", self.drop_path));
        }
        Ok(())
    }

    /// Stochastic depth of block `i`.
    fn drop_path_of(&self, i: i64) -> f64 {
        self.drop_path * i as f64 / (self.depth - 1).max(1) as f64
    }
}

/// A width must divide into heads, and into four for the positions.
pub(super) fn check_width(name: &str, width: i64, heads: i64) -> NnResult<()> {
    if !(1..=MAX_WIDTH).contains(&width) {
        return Err(NnError::Config(format!("{name}: expected 1 to {MAX_WIDTH}, got {width}")));
    }
    if heads < 1 || width % heads != 0 {
        return Err(NnError::Config(format!("{name}: {width} does not divide into {heads} heads")));
    }
    if width % 4 != 0 {
        return Err(NnError::Config(format!("{name}: {width} is not a multiple of 4, which 2-D positions need")));
    }
    Ok(())
}

/// A vision transformer up to its last block, without the final norm.
pub struct Trunk {
    config: VitConfig,
    patch_embed: Rc<Linear>,
    cls_token: Tensor, // [1, 1, D]
    pos_embed: Tensor, // [1, 1 + L, D]
    blocks: Vec<Rc<Block>>,
}

impl Trunk {
    pub fn new(scope: &Scope, config: &VitConfig) -> NnResult<Self> {
        config.check()?;
        let (d, p) = (config.embed_dim, config.patch_size);
        let block = |i| {
            let scope = scope.sub("blocks").sub(i);
            Block::new(&scope, d, config.num_heads, config.mlp_ratio, config.drop_path_of(i))
        };
        let blocks = (0..config.depth).map(block).collect::<NnResult<_>>()?;
        Ok(Self {
            patch_embed: Linear::shaped(&scope.sub("patch_embed").sub("proj"), &[d, config.channels, p, p])?,
            cls_token: scope.token("cls_token", d)?,
            pos_embed: scope.fixed("pos_embed", &pos_embed::sin_cos(d, config.grid())?)?,
            blocks,
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Features of all tokens, or, with `ids_keep [N, K]`, of the kept ones only: the others cost nothing, the patch
    /// embedding included. Shapes: `images [N, C, H, W]` → `[N, 1 + K, D]`, class token first.
    ///
    /// Errors: those of [`Trunk::grid_of`]; with `ids_keep`, images must have the model's own size.
    pub fn forward(&self, images: &Tensor, ids_keep: Option<&Tensor>, pass: Pass) -> NnResult<Tensor> {
        let mut x = self.embed(images, ids_keep, pass)?;
        for block in &self.blocks {
            x = block.forward(&x, pass)?;
        }
        Ok(x)
    }

    /// What the blocks `taps` (from 0, ascending) put out, laid out as images without the class token.
    /// Shapes: `[N, C, H, W]` → `[N, D, H/p, W/p]` each.
    pub fn features(&self, images: &Tensor, taps: &[i64], pass: Pass) -> NnResult<Vec<Tensor>> {
        let (rows, columns) = self.grid_of(images)?;
        let mut x = self.embed(images, None, pass)?;
        let (n, mut features) = (x.size()[0], Vec::new());
        for (block, i) in self.blocks.iter().zip(0..) {
            if features.len() == taps.len() {
                break; // Nobody asks for what follows.
            }
            x = block.forward(&x, pass)?;
            for _ in taps.iter().filter(|tap| **tap == i) {
                let tokens = x.f_narrow(1, 1, rows * columns)?.f_transpose(1, 2)?;
                features.push(tokens.f_reshape([n, -1, rows, columns])?);
            }
        }
        Ok(features)
    }

    /// Rows and columns of patches of a batch of images.
    ///
    /// Errors: [`NnError::Config`] for another number of channels, or sides that are not multiples of the patch.
    pub fn grid_of(&self, images: &Tensor) -> NnResult<(i64, i64)> {
        let (c, p) = (self.config.channels, self.config.patch_size);
        match images.size()[..] {
            [_, channels, h, w] if channels == c && h > 0 && w > 0 && h % p == 0 && w % p == 0 => Ok((h / p, w / p)),
            ref size => {
                let (h, w) = self.config.image_size;
                let message = format!(
                    "images: expected shape [N, {c}, {h}, {w}], or other multiples of the patch size {p}, got {size:?}"
                );
                Err(NnError::Config(message))
            }
        }
    }

    fn embed(&self, images: &Tensor, ids_keep: Option<&Tensor>, pass: Pass) -> NnResult<Tensor> {
        let grid = self.grid_of(images)?;
        if ids_keep.is_some() && grid != self.config.grid() {
            let (h, w) = self.config.image_size;
            let message = format!("images: expected {h} x {w} pixels for masking, got {:?}", &images.size()[2..]);
            return Err(NnError::Config(message));
        }
        let n = images.size()[0];
        let patches = patch::patches(images, self.config.patch_size)?;
        let all = pos_embed::resample(&self.pos_embed, self.config.grid(), grid)?;
        let positions = all.f_narrow(1, 1, grid.0 * grid.1)?;
        let (patches, positions) = match ids_keep {
            Some(ids) => (masking::take(&patches, ids)?, masking::take(&positions.f_expand([n, -1, -1], false)?, ids)?),
            None => (patches, positions),
        };
        let tokens = self.patch_embed.forward(&patches, pass)?.f_add(&positions)?;
        let class = self.cls_token.f_add(&all.f_narrow(1, 0, 1)?)?.f_expand([n, -1, -1], false)?;
        Ok(Tensor::f_cat(&[class, tokens], 1)?) // [N, 1 + K, D]
    }
}

/// The whole: a trunk and its final norm.
pub struct Vit {
    trunk: Trunk,
    norm: LayerNorm,
}

impl Vit {
    pub fn new(scope: &Scope, config: &VitConfig) -> NnResult<Self> {
        let trunk = Trunk::new(scope, config)?;
        Ok(Self { trunk, norm: LayerNorm::new(&scope.sub("norm"), config.embed_dim)? })
    }

    pub fn config(&self) -> &VitConfig {
        &self.trunk.config
    }

    /// The norm after the last block.
    pub fn norm(&self) -> &LayerNorm {
        &self.norm
    }

    /// [`Trunk::forward`], normalized. Shapes: `images [N, C, H, W]` → `[N, 1 + K, D]`, class token first.
    pub fn forward(&self, images: &Tensor, ids_keep: Option<&Tensor>, pass: Pass) -> NnResult<Tensor> {
        self.norm.forward(&self.trunk.forward(images, ids_keep, pass)?)
    }
}
