//! `schedule`: learning rates by step.

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, FnPtr, INT, Map, NativeCallContext};

use crate::host::convert::{self, Number};
use crate::host::errors::{ScriptResult, check_arg, script_error};
use crate::host::options::OptionMap;
use crate::schedule::{Ramp, Schedule};

/// A schedule as scripts hold it.
#[derive(Clone)]
pub struct ScheduleHandle(pub Schedule);

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    let mut schedules = exported_module!(functions);
    schedules.combine_flatten(exported_module!(custom));
    engine.register_static_module("schedule", schedules.into());
    engine.register_global_module(exported_module!(methods).into());
}

fn checked(ctx: &NativeCallContext, schedule: Schedule) -> ScriptResult<ScheduleHandle> {
    schedule.check().map_err(|err| script_error(ctx, err))?;
    Ok(ScheduleHandle(schedule))
}

/// The options that every falling schedule has.
fn ramp(options: &mut OptionMap) -> ScriptResult<Ramp> {
    let (peak, end) = (options.need::<f64>("lr")?, options.or("min_lr", 0.0)?);
    let warmup = options.count("warmup")?.unwrap_or(0);
    let total = options.count("total")?;
    let total = total.ok_or_else(|| options.error("schedule: the option total, the steps in all, is missing"))?;
    Ok(Ramp { peak, end, warmup, total })
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// A learning rate for every step: for `opt.step(rate.at(step))`, and for the option `schedule` of `decorrelate`.
    ///
    /// ```rhai
    /// let rate = schedule::cosine(#{ lr: 0.1, total: 100, warmup: 10 });
    /// ```
    pub type Schedule = ScheduleHandle;
}

/// Learning rates by step.
#[export_module]
mod functions {
    /// One rate for every step.
    ///
    /// ```rhai
    /// assert(schedule::constant(0.1).at(7) == 0.1);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn constant(ctx: NativeCallContext, lr: Number) -> ScriptResult<ScheduleHandle> {
        let lr = convert::float(&ctx, "lr", &lr)?;
        checked(&ctx, Schedule::Constant(lr))
    }

    /// Linear warm-up, then half a cosine down to `min_lr`.
    ///
    /// Options:
    /// - `lr` (number): the peak
    /// - `total` (int): steps in all; `min_lr` is reached there
    /// - `warmup` (int, 0): steps of warm-up
    /// - `min_lr` (number, 0): the last rate
    ///
    /// ```rhai
    /// let rate = schedule::cosine(#{ lr: 0.1, total: 100, warmup: 10, min_lr: 0.01 });
    /// assert(rate.at(0) < rate.at(9) && rate.at(99) < rate.at(50) && rate.at(100) == 0.01);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn cosine(ctx: NativeCallContext, options: Map) -> ScriptResult<ScheduleHandle> {
        let mut options = OptionMap::new(&ctx, "schedule::cosine", options);
        let ramp = ramp(&mut options)?;
        options.finish()?;
        checked(&ctx, Schedule::Cosine(ramp))
    }

    /// Linear warm-up, then `(1 − progress)^power` down to `min_lr`.
    ///
    /// Options: those of `schedule::cosine`, and
    /// - `power` (number, 1): 1 is a straight line
    ///
    /// ```rhai
    /// let rate = schedule::polynomial(#{ lr: 0.1, total: 100, power: 0.9 });
    /// assert(rate.at(0) == 0.1 && rate.at(100) == 0.0);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn polynomial(ctx: NativeCallContext, options: Map) -> ScriptResult<ScheduleHandle> {
        let mut options = OptionMap::new(&ctx, "schedule::polynomial", options);
        let (ramp, power) = (ramp(&mut options)?, options.or("power", 1.0)?);
        options.finish()?;
        checked(&ctx, Schedule::Polynomial { ramp, power })
    }
}

/// The most steps of a table.
const MOST_STEPS: INT = 10_000_000;

#[export_module]
mod custom {
    /// A schedule of one's own: `rate` gives the rate of each step, counted from 0, and is asked for all `total` steps at once; from
    /// then on the last rate stays. `decorrelate` takes it too, as its `schedule`.
    ///
    /// ```rhai
    /// let warm_restarts = schedule::custom(60, |step| 0.1 * (1.0 - (step % 20) / 20.0));
    /// assert(warm_restarts.at(0) == 0.1 && warm_restarts.at(20) == 0.1 && warm_restarts.at(10) == 0.05);
    /// ```
    #[rhai_fn(name = "custom", return_raw)]
    pub fn custom_schedule(ctx: NativeCallContext, total: INT, rate: FnPtr) -> ScriptResult<ScheduleHandle> {
        check_arg(&ctx, (1..=MOST_STEPS).contains(&total), || {
            format!("total: expected 1 to {MOST_STEPS} steps, got {total}")
        })?;
        let mut rates = Vec::with_capacity(total as usize);
        for step in 0..total {
            let value: Dynamic = rate.call_within_context(&ctx, (step,))?;
            rates.push(convert::float(&ctx, &format!("rate at step {step}"), &value)?);
        }
        checked(&ctx, Schedule::Table(rates.into()))
    }

    /// A rate from each of some steps on: `[[0, 1e-3], [1000, 1e-4]]`, in order, the first from step 0.
    ///
    /// ```rhai
    /// let rate = schedule::piecewise([[0, 0.1], [100, 0.01]]);
    /// assert(rate.at(99) == 0.1 && rate.at(100) == 0.01);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn piecewise(ctx: NativeCallContext, pieces: Array) -> ScriptResult<ScheduleHandle> {
        let wrong = || script_error(&ctx, "pieces: expected [step, rate] pairs in order, the first from step 0");
        let mut rates: Vec<f64> = Vec::new();
        let mut last = None;
        for piece in pieces {
            let piece = piece.try_cast::<Array>().ok_or_else(wrong)?;
            let [from, rate] = &piece[..] else { return Err(wrong()) };
            let from = from.as_int().map_err(|_| wrong())?;
            let in_order = match last {
                None => from == 0,
                Some(_) => from > rates.len() as INT - 1 && from <= MOST_STEPS,
            };
            if !in_order {
                return Err(wrong());
            }
            rates.resize(from as usize, last.unwrap_or(0.0));
            let rate = convert::float(&ctx, "rate", rate)?;
            rates.push(rate);
            last = Some(rate);
        }
        checked(&ctx, Schedule::Table(rates.into()))
    }
}

#[export_module]
mod methods {
    /// The learning rate of a step, counted from 0.
    ///
    /// ```rhai
    /// assert(rate.at(9) == 0.1);
    /// ```
    #[rhai_fn(pure)]
    pub fn at(schedule: &mut ScheduleHandle, step: INT) -> FLOAT {
        schedule.0.at(u64::try_from(step).unwrap_or(0))
    }
}
