//! `schedule`: learning rates by step.

use rhai::plugin::*;
use rhai::{Engine, FLOAT, INT, Map, NativeCallContext};

use crate::host::errors::{ScriptResult, script_error};
use crate::host::options::OptionMap;
use crate::train::schedule::WarmupCosine;

/// A schedule as scripts hold it.
#[derive(Clone)]
pub struct ScheduleHandle(WarmupCosine);

pub fn register(engine: &mut Engine) {
    engine.register_type_with_name::<ScheduleHandle>("Schedule");
    engine.register_static_module("schedule", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
}

#[export_module]
mod functions {
    /// Linear warm-up over `warmup` steps, then half a cosine down to `min_lr` (0) at step `total`.
    ///
    /// Options: `lr` (the peak), `total`, `warmup` (0), `min_lr` (0).
    #[rhai_fn(return_raw)]
    pub fn cosine(ctx: NativeCallContext, options: Map) -> ScriptResult<ScheduleHandle> {
        let mut options = OptionMap::new(&ctx, "schedule::cosine", options);
        let (lr, min_lr) = (options.need::<f64>("lr")?, options.or("min_lr", 0.0)?);
        let warmup = options.count("warmup")?.unwrap_or(0);
        let total = options.count("total")?;
        let total = total.ok_or_else(|| options.error("schedule::cosine: the option total is missing"))?;
        options.finish()?;
        WarmupCosine::new(lr, min_lr, warmup, total).map(ScheduleHandle).map_err(|err| script_error(&ctx, err))
    }
}

#[export_module]
mod methods {
    /// The learning rate of a step, counted from 0.
    #[rhai_fn(pure)]
    pub fn at(schedule: &mut ScheduleHandle, step: INT) -> FLOAT {
        schedule.0.at(u64::try_from(step).unwrap_or(0))
    }
}
