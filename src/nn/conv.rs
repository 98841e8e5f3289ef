//! A 2-D convolution that can be decorrelated: R acts on flattened patches, `C/groups · kh · kw` inputs of each group.
//!
//! `y = conv(x; W R) + b`: the fused kernel `A = W R` costs nothing per pixel. The bias is added after, so that it is honored
//! with and without R. Only the sampled patches are ever unfolded.

use std::rc::Rc;

use tch::Tensor;

use super::layer::Layer;
use super::registry::Scope;
use super::rows::Pass;
use super::{NnError, NnResult};
use crate::libtorch;

/// The shape of a convolution; pairs are (height, width).
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2dConfig {
    pub in_channels: i64,
    pub out_channels: i64,
    pub kernel: (i64, i64),
    pub stride: (i64, i64),
    /// Zeros on both sides.
    pub padding: (i64, i64),
    pub dilation: (i64, i64),
    pub groups: i64,
    pub bias: bool,
}

impl Conv2dConfig {
    /// A square kernel at stride 1, without padding, in one group, with a bias.
    pub fn new(in_channels: i64, out_channels: i64, kernel: i64) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel: (kernel, kernel),
            stride: (1, 1),
            padding: (0, 0),
            dilation: (1, 1),
            groups: 1,
            bias: true,
        }
    }

    /// Errors: [`NnError::Config`] naming the first field that cannot work.
    pub fn check(&self) -> NnResult<()> {
        const MOST: i64 = 65_536;
        let pair = |name, (h, w): (i64, i64), least| [(name, h, least), (name, w, least)];
        let single =
            [("in_channels", self.in_channels, 1), ("out_channels", self.out_channels, 1), ("groups", self.groups, 1)];
        let pairs = [
            pair("kernel", self.kernel, 1),
            pair("stride", self.stride, 1),
            pair("padding", self.padding, 0),
            pair("dilation", self.dilation, 1),
        ];
        for (name, value, least) in single.into_iter().chain(pairs.into_iter().flatten()) {
            if !(least..=MOST).contains(&value) {
                return Err(NnError::Config(format!("{name}: expected {least} to {MOST}, got {value}")));
            }
        }
        for (name, channels) in [("in_channels", self.in_channels), ("out_channels", self.out_channels)] {
            if channels % self.groups != 0 {
                let message = format!("{name}: {channels} does not divide into {} groups", self.groups);
                return Err(NnError::Config(message));
            }
        }
        Ok(())
    }

    /// Height and width of the output for an input of this size.
    ///
    /// Errors: [`NnError::Config`] if the kernel is larger than the padded input.
    pub fn output(&self, (h, w): (i64, i64)) -> NnResult<(i64, i64)> {
        let side = |size, kernel, stride, padding, dilation| {
            let spare = size + 2 * padding - dilation * (kernel - 1) - 1;
            if spare < 0 {
                let message = format!("x: an image of {h} x {w} is smaller than the kernel, padding included");
                return Err(NnError::Config(message));
            }
            Ok(spare / stride + 1)
        };
        let Self { kernel, stride, padding, dilation, .. } = self;
        Ok((side(h, kernel.0, stride.0, padding.0, dilation.0)?, side(w, kernel.1, stride.1, padding.1, dilation.1)?))
    }

    /// Shapes: `x [N, C, H, W]`, `weight [o, C/groups, kh, kw]`, `bias [o]` → `[N, o, H', W']`.
    fn convolve(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> NnResult<Tensor> {
        let pair = |(h, w): (i64, i64)| [h, w];
        let (stride, padding, dilation) = (pair(self.stride), pair(self.padding), pair(self.dilation));
        Ok(libtorch::product([x, weight], |[x, weight]| {
            let bias = bias.map(|bias| bias.f_to_kind(x.kind())).transpose()?;
            Ok(x.f_conv2d(&weight, bias.as_ref(), stride, padding, dilation, self.groups)?)
        })?)
    }
}

pub struct Conv2d {
    config: Conv2dConfig,
    layer: Rc<Layer>,
    bias: Option<Tensor>, // [o]
}

impl Conv2d {
    /// Xavier-uniform over a patch, bias 0.
    ///
    /// Errors: [`NnError::Config`] for a shape that cannot work.
    pub fn new(scope: &Scope, config: &Conv2dConfig) -> NnResult<Rc<Self>> {
        config.check()?;
        let Conv2dConfig { in_channels, out_channels, kernel, groups, bias, .. } = *config;
        let layer = Layer::new(scope, &[out_channels, in_channels / groups, kernel.0, kernel.1], groups)?;
        let bias = if bias { Some(scope.constant("bias", out_channels, 0.0)?) } else { None };
        Ok(Rc::new(Self { config: config.clone(), layer, bias }))
    }

    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }

    pub fn layer(&self) -> &Rc<Layer> {
        &self.layer
    }

    /// Shapes: `[N, C, H, W]` → `[N, o, H', W']`.
    ///
    /// Errors: [`NnError::Config`] for another number of channels, or images smaller than the kernel.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        let size = x.size();
        let [n, c, h, w] = size[..] else {
            return Err(NnError::Config(format!("x: expected shape [N, C, H, W], got {size:?}")));
        };
        if c != self.config.in_channels {
            let message = format!("x: a convolution of {} channels was given shape {size:?}", self.config.in_channels);
            return Err(NnError::Config(message));
        }
        let (rows, columns) = self.config.output((h, w))?;
        let kind = self.layer.kind(x);
        let applied = self.layer.pass(pass, n * rows * columns, kind, |ids| self.patches(x, (rows, columns), ids))?;
        let bias = self.bias.as_ref().map(|bias| bias.f_to_kind(kind)).transpose()?;
        let (kernel, groups) = (self.config.kernel, self.config.groups);
        let dense = if applied.two_step { self.layer.dense_r()? } else { None };
        let Some(r) = dense else {
            let weight = applied.weight.f_view([-1, c / groups, kernel.0, kernel.1])?;
            return self.config.convolve(&x.f_to_kind(kind)?, &weight, bias.as_ref());
        };
        // z = R · patch is a convolution with the rows of R as its kernels; W then sees one pixel.
        // Under mixed precision R stays in float32, and z is rounded once.
        let r = r.f_reshape([-1, c / groups, kernel.0, kernel.1])?;
        let z = self.config.convolve(&x.f_to_kind(r.kind())?, &r, None)?.f_to_kind(kind)?;
        let weight = applied.weight.f_view([self.config.out_channels, -1, 1, 1])?;
        let pointwise =
            Conv2dConfig { kernel: (1, 1), stride: (1, 1), padding: (0, 0), dilation: (1, 1), ..self.config };
        pointwise.convolve(&z, &weight, bias.as_ref())
    }

    /// The patches at the positions `ids`, which count (image, output row, output column). Shapes: `[n, C · kh · kw]`.
    fn patches(&self, x: &Tensor, (rows, columns): (i64, i64), ids: &Tensor) -> NnResult<Tensor> {
        let Conv2dConfig { kernel, stride, padding, dilation, .. } = self.config;
        let x = x.f_detach()?.f_constant_pad_nd([padding.1, padding.1, padding.0, padding.0])?;
        let reach = |kernel: i64, dilation: i64| dilation * (kernel - 1) + 1;
        let windows = x
            .f_unfold(2, reach(kernel.0, dilation.0), stride.0)?
            .f_unfold(3, reach(kernel.1, dilation.1), stride.1)? // [N, C, H', W', kh, kw], a view
            .f_slice(4, None, None, dilation.0)?
            .f_slice(5, None, None, dilation.1)?
            .f_permute([0, 2, 3, 1, 4, 5])?;
        let image = ids.f_div_scalar_mode(rows * columns, "floor")?;
        let row = ids.f_div_scalar_mode(columns, "floor")?.f_remainder(rows)?;
        let picked = windows.f_index(&[Some(image), Some(row), Some(ids.f_remainder(columns)?)])?;
        Ok(picked.f_reshape([ids.size()[0], -1])?)
    }
}
