//! `nn`: layers and functions on tensors that the models are made of, for checking an idea.

use rhai::plugin::*;
use rhai::{Engine, INT, NativeCallContext};
use tch::Kind;

use super::models::ModelHandle;
use super::tensor::{TensorHandle, size};
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::host::session::Session;
use crate::nn::{Linear, Registry, patch, pos_embed};

pub fn register(engine: &mut Engine) {
    engine.register_static_module("nn", exported_module!(functions).into());
}

fn check_patch_size(ctx: &NativeCallContext, patch_size: INT) -> ScriptResult<()> {
    check_arg(ctx, (1..=8192).contains(&patch_size), || format!("patch_size: expected 1 to 8192, got {patch_size}"))
}

#[export_module]
mod functions {
    /// A linear layer named `linear`, `in_features → out_features`, Xavier-uniform, bias 0: a model that `optim` and
    /// `decorrelate("linear", …)` take.
    #[rhai_fn(return_raw)]
    pub fn linear(ctx: NativeCallContext, in_features: INT, out_features: INT) -> ScriptResult<ModelHandle> {
        for (name, value) in [("in_features", in_features), ("out_features", out_features)] {
            check_arg(&ctx, value > 0, || format!("{name}: expected 1 or more, got {value}"))?;
        }
        let session = Session::of(&ctx);
        size::check(&ctx, &[in_features, out_features], Kind::Float)?;
        let registry = Registry::new(session.seed(), session.options.device, Kind::Float);
        let layer = Linear::new(&registry.root().sub("linear"), in_features, out_features);
        Ok(ModelHandle::linear(layer.map_err(|err| script_error(&ctx, err))?, registry))
    }

    /// Mean squared difference.
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
        let loss = prediction.f_mse_loss(target, tch::Reduction::Mean).map_err(|err| script_error(&ctx, err))?;
        Ok(loss.into())
    }

    /// Images as rows of flattened patches, pixels in (row, column, channel) order. Shapes: `[N, C, H, W]` → `[N, L, p·p·C]`.
    #[rhai_fn(return_raw)]
    pub fn patchify(ctx: NativeCallContext, images: TensorHandle, patch_size: INT) -> ScriptResult<TensorHandle> {
        check_patch_size(&ctx, patch_size)?;
        let rows = patch::patchify(images.tensor(), patch_size).map_err(|err| script_error(&ctx, err))?;
        Ok(rows.into())
    }

    /// Undoes `patchify` for a grid of `rows × columns` patches.
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
    #[rhai_fn(return_raw)]
    pub fn sin_cos(ctx: NativeCallContext, width: INT, rows: INT, columns: INT) -> ScriptResult<TensorHandle> {
        check_arg(&ctx, width > 0 && width % 4 == 0, || format!("width: expected a multiple of 4, got {width}"))?;
        check_arg(&ctx, rows > 0 && columns > 0, || format!("grid: expected 1 or more, got {rows} x {columns}"))?;
        size::check(&ctx, &[width, rows, columns], Kind::Double)?;
        let made = pos_embed::sin_cos(width, (rows, columns)).and_then(|t| Ok(t.f_to_kind(Kind::Float)?));
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }
}
