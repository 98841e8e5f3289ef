//! What decorrelation costs per step, layer by layer: `model.decorrelation_plan()`.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, INT, ImmutableString, Map, NativeCallContext};

use super::models::{ModelHandle, Network};
use crate::host::errors::{ScriptResult, script_error};
use crate::nn::{LayerCost, NnError, Plan};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_global_module(exported_module!(methods).into());
}

/// What decorrelation costs, as scripts hold it.
#[derive(Clone)]
pub struct PlanHandle(Rc<Plan>);

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// What decorrelation costs per step, layer by layer. Prints as a table.
    ///
    /// ```rhai
    /// let model = models::mae(#{
    ///     image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2,
    ///     decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2,
    /// });
    /// model.decorrelate("encoder.**");
    /// let plan = model.decorrelation_plan(64);
    /// ```
    pub type Plan = PlanHandle;
}

#[export_module]
mod methods {
    /// What decorrelation costs per step, from the size of the last step: prints as a table of layer, rows, sampled rows,
    /// inputs, outputs, form of R, path (`x (W R)ᵀ` is fused), extra multiply-adds and memory.
    #[rhai_fn(return_raw, pure)]
    pub fn decorrelation_plan(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<PlanHandle> {
        let plan = model.registry().plan().map_err(|err| script_error(&ctx, err))?;
        Ok(PlanHandle(Rc::new(plan)))
    }

    /// The same for steps of so many images, before the first one.
    #[rhai_fn(name = "decorrelation_plan", return_raw, pure)]
    pub fn decorrelation_plan_for(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        images: INT,
    ) -> ScriptResult<PlanHandle> {
        decorrelation_plan_in_pieces(ctx, model, images, 1)
    }

    /// The same for steps of so many images in micro-batches.
    ///
    /// ```rhai
    /// model.decorrelate("encoder.**");
    /// print(model.decorrelation_plan(256, 4)); // steps of 256 images in four pieces
    /// ```
    #[rhai_fn(name = "decorrelation_plan", return_raw, pure)]
    pub fn decorrelation_plan_in_pieces(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        images: INT,
        micro_batches: INT,
    ) -> ScriptResult<PlanHandle> {
        const MOST: INT = 1 << 24;
        for (name, value) in [("images", images), ("micro_batches", micro_batches)] {
            if !(1..=MOST).contains(&value) {
                return Err(script_error(&ctx, format!("{name}: expected 1 to {MOST}, got {value}")));
            }
        }
        if images % micro_batches != 0 {
            let message = format!("micro_batches: {images} images do not divide into {micro_batches} equal ones");
            return Err(script_error(&ctx, message));
        }
        let handle = model.clone();
        let plan = model.registry().plan_for(images, micro_batches as u64, || match handle.network() {
            Network::Mae(mae) => mae.measure(),
            Network::Upernet(upernet, _) => upernet.measure(),
            Network::Classifier(classifier, _) => classifier.measure(),
            Network::Vit(_) | Network::Linear(_) | Network::Conv2d(_) | Network::Simple(_) | Network::Custom(_) => {
                let message =
                    "decorrelation_plan: the rows of this model are known after a forward pass; call it without images";
                Err(NnError::Config(message.to_owned()))
            }
        });
        Ok(PlanHandle(Rc::new(plan.map_err(|err| script_error(&ctx, err))?)))
    }

    /// The table.
    ///
    /// ```rhai
    /// print(plan);
    /// assert(plan.to_string().contains("encoder.blocks.0.mlp.fc2"));
    /// ```
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn plan_text(plan: &mut PlanHandle) -> ImmutableString {
        plan.0.to_string().into()
    }

    /// Extra multiply-adds per step.
    ///
    /// ```rhai
    /// assert(plan.extra > 0.0);
    /// ```
    #[rhai_fn(get = "extra", pure)]
    pub fn extra(plan: &mut PlanHandle) -> FLOAT {
        plan.0.extra()
    }

    /// Extra multiply-adds as a fraction of back-propagation's.
    ///
    /// ```rhai
    /// print(`${fixed(100 * plan.share, 1)} % on top of back-propagation`);
    /// ```
    #[rhai_fn(get = "share", pure)]
    pub fn share(plan: &mut PlanHandle) -> FLOAT {
        plan.0.share()
    }

    /// Bytes of memory on top.
    ///
    /// ```rhai
    /// assert(plan.memory_bytes > 4 * 64 * 64); // the R of fc2, and more
    /// ```
    #[rhai_fn(get = "memory_bytes", pure)]
    pub fn memory_bytes(plan: &mut PlanHandle) -> INT {
        plan.0.memory()
    }

    /// The lines of the table: an array of `#{ layer, rows, sampled, inputs, outputs, form, path, plain, extra, memory_bytes }`.
    ///
    /// ```rhai
    /// assert(plan.layers.map(|line| line.layer).contains("encoder.patch_embed.proj"));
    /// assert(plan.rows().len() == plan.layers.len()); // the same, by its other name
    /// ```
    #[rhai_fn(name = "rows", get = "layers", pure)]
    pub fn plan_layers(plan: &mut PlanHandle) -> Array {
        plan.0.layers.iter().map(|layer| Dynamic::from(line(layer))).collect()
    }
}

fn line(layer: &LayerCost) -> Map {
    Map::from([
        ("layer".into(), layer.name.clone().into()),
        ("rows".into(), layer.rows.into()),
        ("sampled".into(), layer.sampled.into()),
        ("inputs".into(), layer.inputs.into()),
        ("outputs".into(), layer.outputs.into()),
        ("form".into(), layer.form.clone().into()),
        ("path".into(), if layer.fused { "fused" } else { "two-step" }.into()),
        ("plain".into(), layer.plain.into()),
        ("extra".into(), layer.extra.into()),
        ("memory_bytes".into(), layer.memory.into()),
    ])
}
