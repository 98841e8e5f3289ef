//! More of `nn`: functions of tensors that models written in a script are made with.

use rhai::plugin::*;
use rhai::{FLOAT, INT, ImmutableString, NativeCallContext};
use tch::Tensor;

use super::tensor::{TensorHandle, size};
use crate::host::convert::Pair;
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::libtorch::guarded;

/// LayerNorm's, as everywhere in our models.
const EPS: FLOAT = 1e-6;

fn images(ctx: &NativeCallContext, x: &Tensor) -> ScriptResult<[i64; 4]> {
    let size = x.size();
    <[i64; 4]>::try_from(&size[..])
        .map_err(|_| script_error(ctx, format!("x: expected shape [N, C, H, W], got {size:?}")))
}

fn window(ctx: &NativeCallContext, x: &Tensor, side: INT) -> ScriptResult<[i64; 2]> {
    let [_, _, h, w] = images(ctx, x)?;
    check_arg(ctx, side > 0 && side <= h.min(w), || {
        format!("side: expected 1 to {}, the image's, got {side}", h.min(w))
    })?;
    Ok([side, side])
}

/// Norms and losses are computed in float32, whatever the precision of the products before them.
pub(super) fn single(x: &Tensor) -> Result<Tensor, tch::TchError> {
    if x.kind() == tch::Kind::BFloat16 { x.f_to_kind(tch::Kind::Float) } else { Ok(x.shallow_clone()) }
}

fn same_but_length(a: &[i64], b: &[i64]) -> bool {
    let n = a.len();
    n >= 2 && n == b.len() && a[..n - 2] == b[..n - 2]
}

#[export_module]
pub mod functions {
    /// Scaled dot-product attention: `softmax(q kᵀ / √d) v`, in one kernel. Shapes: `q [N, heads, L, d]`, `k` and `v`
    /// `[N, heads, S, d]` → `[N, heads, L, d]`; without the heads too.
    ///
    /// ```rhai
    /// let q = tensor::randn([2, 4, 5, 8]);
    /// let kv = tensor::randn([2, 4, 7, 8]);
    /// assert(nn::attention(q, kv, kv).shape == [2, 4, 5, 8]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn attention(
        ctx: NativeCallContext,
        q: TensorHandle,
        k: TensorHandle,
        v: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        let sizes = (q.size(), k.size(), v.size());
        let fits = same_but_length(&sizes.0, &sizes.1)
            && same_but_length(&sizes.1, &sizes.2)
            && sizes.0.last() == sizes.1.last()
            && sizes.1[sizes.1.len() - 2] == sizes.2[sizes.2.len() - 2];
        check_arg(&ctx, fits, || {
            format!("tensor shapes do not match: q {:?}, k {:?}, v {:?}", sizes.0, sizes.1, sizes.2)
        })?;
        let n = sizes.0.len();
        size::check(&ctx, &[&sizes.0[..n - 1], &sizes.1[n - 2..n - 1]].concat(), q.kind())?; // The table of weights, at most.
        let mixed = Tensor::f_scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false);
        Ok(mixed.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// Normalizes the last dimension to mean 0 and variance 1, eps 1e-6, without weights; a model's part `layer_norm` has them.
    ///
    /// ```rhai
    /// assert(nn::layer_norm(tensor::from([[1.0, 3.0]])).allclose(tensor::from([[-1.0, 1.0]])));
    /// ```
    #[rhai_fn(return_raw)]
    pub fn layer_norm(ctx: NativeCallContext, x: TensorHandle) -> ScriptResult<TensorHandle> {
        let width = x.size().last().copied();
        let width = width.ok_or_else(|| script_error(&ctx, "x: expected at least one dimension, got one value"))?;
        let made = single(&x).and_then(|x| x.f_layer_norm([width], None::<&Tensor>, None::<&Tensor>, EPS, false));
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// The largest of each `side × side` pixels. Shapes: `[N, C, H, W]` → `[N, C, ⌊H/side⌋, ⌊W/side⌋]`.
    ///
    /// ```rhai
    /// assert(nn::max_pool2d(tensor::arange(4).to_float().reshape([1, 1, 2, 2]), 2).item() == 3.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn max_pool2d(ctx: NativeCallContext, x: TensorHandle, side: INT) -> ScriptResult<TensorHandle> {
        let side = window(&ctx, &x, side)?;
        let made = x.f_max_pool2d(side, side, [0, 0], [1, 1], false);
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// The mean of each `side × side` pixels. Shapes: `[N, C, H, W]` → `[N, C, ⌊H/side⌋, ⌊W/side⌋]`.
    ///
    /// ```rhai
    /// assert(nn::avg_pool2d(tensor::arange(4).to_float().reshape([1, 1, 2, 2]), 2).item() == 1.5);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn avg_pool2d(ctx: NativeCallContext, x: TensorHandle, side: INT) -> ScriptResult<TensorHandle> {
        let side = window(&ctx, &x, side)?;
        let made = x.f_avg_pool2d(side, side, [0, 0], false, true, None);
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// Images of another size: `"nearest"`, `"bilinear"` or `"bicubic"`, not antialiased. `to` is a side in pixels, or `[height, width]`.
    /// Shapes: `[N, C, H, W]` → `[N, C, height, width]`.
    ///
    /// ```rhai
    /// assert(nn::resize(tensor::ones([1, 3, 4, 6]), [8, 12], "bilinear").shape == [1, 3, 8, 12]);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn resize(
        ctx: NativeCallContext,
        x: TensorHandle,
        to: Pair,
        how: ImmutableString,
    ) -> ScriptResult<TensorHandle> {
        use crate::host::options::{FromOption, ImageSize};
        let [n, c, ..] = images(&ctx, &x)?;
        let to = ImageSize::from_option(to).filter(|ImageSize(h, w)| *h > 0 && *w > 0);
        let ImageSize(h, w) = to.ok_or_else(|| script_error(&ctx, format!("to: expected {}", ImageSize::EXPECTED)))?;
        size::check(&ctx, &[n, c, h, w], x.kind())?;
        let made = match how.as_str() {
            "nearest" => guarded(|| x.f_upsample_nearest2d([h, w], None, None)),
            "bilinear" => guarded(|| x.f_upsample_bilinear2d([h, w], false, None, None)),
            "bicubic" => guarded(|| x.f_upsample_bicubic2d([h, w], false, None, None)),
            _ => {
                let message = format!("how: expected \"nearest\", \"bilinear\" or \"bicubic\", got \"{how}\"");
                return Err(script_error(&ctx, message));
            }
        };
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }

    /// Mean absolute difference.
    ///
    /// ```rhai
    /// assert(nn::l1_loss(tensor::from([1.0, 2.0]), tensor::from([0.0, 4.0])).item() == 1.5);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn l1_loss(
        ctx: NativeCallContext,
        prediction: TensorHandle,
        target: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        check_arg(&ctx, prediction.size() == target.size(), || {
            format!("tensor shapes do not match: prediction {:?}, target {:?}", prediction.size(), target.size())
        })?;
        let made =
            single(&prediction).and_then(|prediction| prediction.f_l1_loss(&single(&target)?, tch::Reduction::Mean));
        Ok(made.map_err(|err| script_error(&ctx, err))?.into())
    }
}
