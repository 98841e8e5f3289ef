//! `nn`: layers and functions on tensors that the models are made of, for checking an idea.

use rhai::plugin::*;
use rhai::{Engine, INT, Map, NativeCallContext};
use tch::Kind;

use super::classification::entropy;
use super::decorrelation::decorrelate_all;
use super::functional::single;
use super::models::{ModelHandle, Network};
use super::tensor::{TensorHandle, size};
use crate::host::convert::Pair;
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::host::options::{FromOption, ImageSize, OptionMap};
use crate::host::session::Session;
use crate::nn::{Conv2d, Conv2dConfig, Linear, Registry, patch, pos_embed};

pub fn register(engine: &mut Engine) {
    let mut functions = exported_module!(functions);
    combine_with_exported_module!(&mut functions, "functional", super::functional::functions);
    engine.register_static_module("nn", functions.into());
}

fn new_linear(ctx: &NativeCallContext, in_features: INT, out_features: INT) -> ScriptResult<ModelHandle> {
    for (name, value) in [("in_features", in_features), ("out_features", out_features)] {
        check_arg(ctx, value > 0, || format!("{name}: expected 1 or more, got {value}"))?;
    }
    let session = Session::of(ctx);
    size::check(ctx, &[in_features, out_features], Kind::Float)?;
    let registry = Registry::new(session.seed(), session.options.device, Kind::Float);
    let layer = Linear::new(&registry.root().sub("linear"), in_features, out_features);
    Ok(ModelHandle::new(Network::Linear(layer.map_err(|err| script_error(ctx, err))?), registry))
}

/// The shape of a convolution, out of a map that may hold other options.
pub fn conv_config(
    ctx: &NativeCallContext,
    (in_channels, out_channels): (INT, INT),
    kernel: Pair,
    options: &mut OptionMap,
) -> ScriptResult<Conv2dConfig> {
    let kernel = ImageSize::from_option(kernel)
        .ok_or_else(|| options.error("kernel: expected a side in pixels, or [height, width]"))?;
    let mut pair = |name, usual| {
        let ImageSize(h, w) = options.or(name, ImageSize(usual, usual))?;
        ScriptResult::Ok((h, w))
    };
    let config = Conv2dConfig {
        in_channels,
        out_channels,
        kernel: (kernel.0, kernel.1),
        stride: pair("stride", 1)?,
        padding: pair("padding", 0)?,
        dilation: pair("dilation", 1)?,
        groups: options.or("groups", 1)?,
        bias: options.or("bias", true)?,
    };
    config.check().map_err(|err| script_error(ctx, err))?;
    size::check(ctx, &[out_channels, in_channels / config.groups, kernel.0, kernel.1], Kind::Float)?;
    Ok(config)
}

fn new_conv2d(
    ctx: &NativeCallContext,
    channels: (INT, INT),
    kernel: Dynamic,
    options: &mut OptionMap,
) -> ScriptResult<ModelHandle> {
    let config = conv_config(ctx, channels, kernel, options)?;
    let session = Session::of(ctx);
    let registry = Registry::new(session.seed(), session.options.device, Kind::Float);
    let layer = Conv2d::new(&registry.root().sub("conv"), &config).map_err(|err| script_error(ctx, err))?;
    Ok(ModelHandle::new(Network::Conv2d(layer), registry))
}

fn check_patch_size(ctx: &NativeCallContext, patch_size: INT) -> ScriptResult<()> {
    check_arg(ctx, (1..=8192).contains(&patch_size), || format!("patch_size: expected 1 to 8192, got {patch_size}"))
}

/// Layers and functions on tensors that the models are made of, for checking an idea.
#[export_module]
mod functions {
    /// A linear layer named `linear`, `in_features → out_features`, Xavier-uniform, bias 0: a model that `optim` and
    /// `decorrelate("linear", …)` take.
    ///
    /// ```rhai
    /// let layer = nn::linear(4, 2);
    /// assert(layer.forward(tensor::ones([3, 4])).shape == [3, 2]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn linear(ctx: NativeCallContext, in_features: INT, out_features: INT) -> ScriptResult<ModelHandle> {
        super::new_linear(&ctx, in_features, out_features)
    }

    /// The same layer, decorrelated: `z = x Rᵀ`, `y = z Wᵀ + b`. Train it with `optim::adamw(layer, …)`, and call
    /// `layer.update_decorrelation()` after each step.
    ///
    /// Options: those of `decorrelate`.
    ///
    /// ```rhai
    /// let layer = nn::decor_linear(4, 2, #{ lr: 1e-2, sample: 1.0 });
    /// let opt = optim::adamw(layer, #{});
    /// layer.forward(tensor::randn([8, 4])).sum().backward();
    /// opt.step();
    /// layer.update_decorrelation();
    /// assert(layer.decorrelated() == ["linear"]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn decor_linear(
        ctx: NativeCallContext,
        in_features: INT,
        out_features: INT,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut layer = super::new_linear(&ctx, in_features, out_features)?;
        decorrelate_all(&ctx, &mut layer, OptionMap::new(&ctx, "nn::decor_linear", options))?;
        Ok(layer)
    }

    /// A convolution named `conv`, Xavier-uniform over a patch, bias 0. Shapes: `[N, C, H, W]` → `[N, out_channels, H', W']`.
    ///
    /// Options:
    /// - `stride` (int or [int, int], 1): pixels between two patches
    /// - `padding` (int or [int, int], 0): zeros on both sides
    /// - `dilation` (int or [int, int], 1): pixels between two of a patch
    /// - `groups` (int, 1): divides the channels
    /// - `bias` (bool, true): whether it has one
    ///
    /// ```rhai
    /// let layer = nn::conv2d(3, 8, [3, 5], #{ stride: 2, padding: [1, 2] });
    /// assert(layer.forward(tensor::zeros([1, 3, 16, 16])).shape == [1, 8, 8, 8]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn conv2d(
        ctx: NativeCallContext,
        in_channels: INT,
        out_channels: INT,
        kernel: Pair,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "nn::conv2d", options);
        let layer = super::new_conv2d(&ctx, (in_channels, out_channels), kernel, &mut options)?;
        options.finish()?;
        Ok(layer)
    }

    /// The same convolution, decorrelated: R acts on flattened patches, on each group's by itself; the bias is added after.
    ///
    /// Options: those of `nn::conv2d` and of `decorrelate`.
    ///
    /// ```rhai
    /// let layer = nn::decor_conv2d(3, 8, 3, #{ padding: 1, lr: 1e-2 });
    /// assert(layer.tensor("conv.decorrelation").shape == [27, 27]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn decor_conv2d(
        ctx: NativeCallContext,
        in_channels: INT,
        out_channels: INT,
        kernel: Pair,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "nn::decor_conv2d", options);
        let mut layer = super::new_conv2d(&ctx, (in_channels, out_channels), kernel, &mut options)?;
        decorrelate_all(&ctx, &mut layer, options)?;
        Ok(layer)
    }

    /// Mean squared difference.
    ///
    /// ```rhai
    /// let loss = nn::mse_loss(tensor::from([1.0, 3.0]), tensor::from([1.0, 1.0]));
    /// assert(loss.item() == 2.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn mse_loss(
        ctx: NativeCallContext,
        prediction: TensorHandle,
        target: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        let (prediction, target) = (prediction.tensor(), target.tensor());
        check_arg(&ctx, prediction.size() == target.size(), || {
            format!("tensor shapes do not match: prediction {:?}, target {:?}", prediction.size(), target.size())
        })?;
        let loss = single(prediction)
            .and_then(|prediction| prediction.f_mse_loss(&single(target)?, tch::Reduction::Mean))
            .map_err(|err| script_error(&ctx, err))?;
        Ok(loss.into())
    }

    /// Cross-entropy, averaged over the labels. Shapes: `logits [N, K]` or `[N, K, H, W]`, `labels [N]` or `[N, H, W]`, int64
    /// below K; 255 does not count.
    ///
    /// ```rhai
    /// let loss = nn::cross_entropy(tensor::zeros([2, 4]), tensor::from([0, 3]));
    /// assert((loss.item() - 4.0.ln()).abs() < 1e-6);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn cross_entropy(
        ctx: NativeCallContext,
        logits: TensorHandle,
        labels: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        let logits = single(logits.tensor()).map_err(|err| script_error(&ctx, err))?;
        super::entropy(&ctx, &logits, labels.tensor())
    }

    /// Images as rows of flattened patches, pixels in (row, column, channel) order. Shapes: `[N, C, H, W]` → `[N, L, p·p·C]`.
    ///
    /// ```rhai
    /// assert(nn::patchify(tensor::zeros([2, 3, 32, 64]), 16).shape == [2, 2 * 4, 16 * 16 * 3]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn patchify(ctx: NativeCallContext, images: TensorHandle, patch_size: INT) -> ScriptResult<TensorHandle> {
        check_patch_size(&ctx, patch_size)?;
        let rows = patch::patchify(images.tensor(), patch_size).map_err(|err| script_error(&ctx, err))?;
        Ok(rows.into())
    }

    /// Undoes `patchify` for a grid of `rows × columns` patches.
    ///
    /// ```rhai
    /// let images = tensor::randn([2, 3, 32, 64]);
    /// assert(nn::unpatchify(nn::patchify(images, 16), 16, 2, 4).allclose(images));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn unpatchify(
        ctx: NativeCallContext,
        patches: TensorHandle,
        patch_size: INT,
        rows: INT,
        columns: INT,
    ) -> ScriptResult<TensorHandle> {
        check_patch_size(&ctx, patch_size)?;
        let images = patch::unpatchify(patches.tensor(), patch_size, (rows, columns));
        Ok(images.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// Fixed 2-D sine-cosine positions, class token first. Shapes: `[1, 1 + rows·columns, width]`.
    ///
    /// ```rhai
    /// assert(nn::sin_cos(16, 2, 3).shape == [1, 7, 16]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn sin_cos(ctx: NativeCallContext, width: INT, rows: INT, columns: INT) -> ScriptResult<TensorHandle> {
        check_arg(&ctx, width > 0 && width % 4 == 0, || format!("width: expected a multiple of 4, got {width}"))?;
        check_arg(&ctx, rows > 0 && columns > 0, || format!("grid: expected 1 or more, got {rows} x {columns}"))?;
        size::check(&ctx, &[width, rows, columns], Kind::Double)?;
        let made = pos_embed::sin_cos(width, (rows, columns)).and_then(|t| Ok(t.f_to_kind(Kind::Float)?));
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }
}
