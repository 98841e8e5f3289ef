//! `energy`: what a part of a script costs. Runs meter themselves.

use std::cell::RefCell;
use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, Map, NativeCallContext};
use serde_json::Value;

use crate::energy::config::Config;
use crate::energy::meter::Meter;
use crate::energy::reading::Reading;
use crate::host::args::free;
use crate::host::convert::Figures;
use crate::host::energy::{Asked, gpus_of};
use crate::host::errors::{ScriptResult, script_error};
use crate::host::options::OptionMap;
use crate::host::say::say;
use crate::host::session::Session;

/// A meter as scripts hold it: copies are the same meter.
#[derive(Clone)]
pub struct MeterHandle {
    config: Rc<Config>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    /// From the first `start` on.
    meter: Option<Meter>,
    /// What it said when it was stopped.
    last: Option<Reading>,
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(types).into());
    engine.register_static_module("energy", exported_module!(functions).into());
    engine.register_global_module(exported_module!(methods).into());
}

/// A reading as scripts see it.
pub fn reading_map(reading: &Reading) -> Dynamic {
    free(&Value::Object(reading.to_json()))
}

/// The configuration of a run's meter: `run::start`'s option `energy`. `None` is not metered.
pub fn of_run(session: &Session, options: &mut OptionMap) -> ScriptResult<Option<Config>> {
    let usual = |asked: Asked, options: &OptionMap| {
        let gpus = gpus_of(session.options.device);
        session.options.energy.config(asked, gpus).map(Some).map_err(|err| options.error(err))
    };
    let Some(value) = options.get::<Dynamic>("energy")? else { return usual(Asked::default(), options) };
    if let Ok(metered) = value.as_bool() {
        return if metered { usual(Asked::default(), options) } else { Ok(None) };
    }
    if let Some(meter) = value.clone().try_cast::<MeterHandle>() {
        return Ok(Some((*meter.config).clone()));
    }
    let Some(map) = value.try_cast::<Map>() else {
        return Err(options.error("energy: expected options of energy::meter, a meter, or false"));
    };
    let asked = asked(OptionMap::new(options.context(), "energy", map))?;
    usual(asked, options)
}

fn asked(mut options: OptionMap) -> ScriptResult<Asked> {
    let asked = Asked {
        country: options.get("country")?,
        region: options.get("region")?,
        pue: options.get("pue")?,
        intensity: options.get("intensity")?,
        interval: options.get("interval")?,
        sources: options.get("source")?,
        cpu_power: options.get("cpu_power")?,
        ram_power: options.get("ram_power")?,
    };
    options.finish()?;
    Ok(asked)
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// A meter of this machine's energy: copies are the same meter.
    ///
    /// ```rhai
    /// let meter = energy::meter(#{ source: "estimated" });
    /// meter.start();
    /// ```
    pub type Meter = MeterHandle;
}

/// What a part of a script costs in energy and CO₂. Runs meter themselves.
#[export_module]
mod functions {
    /// A meter of this machine's energy, at rest until `start()`: the device of the script, all processors, all memory. `--country`,
    /// `--region`, `--pue` and `--carbon-intensity` win over the options.
    ///
    /// Options:
    /// - `country` (string): the grid's, as ISO code or English name; without one, the world's average intensity
    /// - `region` (string): the grid's state, province or bidding zone, where the tables have it
    /// - `intensity` (number): g CO₂e/kWh, over the tables
    /// - `pue` (number, 1): power usage effectiveness of the data center
    /// - `interval` (number, 1): seconds between two polls of the sensors
    /// - `source` (string, `"auto"`): `"auto"`, sensors, and models where there are none; `"measured"`, sensors only; `"estimated"`,
    ///   models only
    /// - `cpu_power` (number): watts, design power of all processors, for the model
    /// - `ram_power` (number): watts, of all memory
    ///
    /// ```rhai
    /// let meter = energy::meter(#{ country: "France", source: "estimated" });
    /// meter.start();
    /// let cost = meter.stop();
    /// print(`${cost.energy_kwh} kWh, ${cost.co2_kg} kg of CO₂`);
    /// ```
    #[rhai_fn(name = "meter", return_raw)]
    pub fn meter_with(ctx: NativeCallContext, options: Map) -> ScriptResult<MeterHandle> {
        let asked = asked(OptionMap::new(&ctx, "energy::meter", options))?;
        let session = Session::of(&ctx);
        let config = session.options.energy.config(asked, gpus_of(session.options.device));
        let config = config.map_err(|err| script_error(&ctx, err))?;
        Ok(MeterHandle { config: Rc::new(config), state: Rc::default() })
    }

    /// A meter with the usual options.
    #[rhai_fn(return_raw)]
    pub fn meter(ctx: NativeCallContext) -> ScriptResult<MeterHandle> {
        meter_with(ctx, Map::new())
    }
}

#[export_module]
mod methods {
    /// Starts the meter, from zero if it was stopped.
    ///
    /// ```rhai
    /// meter.stop();
    /// meter.start(); // from zero
    /// ```
    #[rhai_fn(pure)]
    pub fn start(meter: &mut MeterHandle) {
        let mut state = meter.state.borrow_mut();
        let made = match (state.meter.take(), state.last.take()) {
            (Some(meter), None) => meter,
            _ => {
                let made = Meter::start(&meter.config, None);
                for problem in made.machine().problems.iter().cloned().chain(made.carbon().problem()) {
                    say(&format!("energy: {problem}"));
                }
                made
            }
        };
        made.resume();
        state.meter = Some(made);
    }

    /// Stops counting until `resume()`.
    ///
    /// ```rhai
    /// meter.pause();
    /// let seconds = meter.reading().seconds;
    /// sleep(0.01);
    /// assert(meter.reading().seconds == seconds);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn pause(ctx: NativeCallContext, meter: &mut MeterHandle) -> ScriptResult<()> {
        with(&ctx, meter, "pause", |meter| {
            meter.pause();
            meter.mark();
        })
    }

    /// Counts again after `pause()`.
    ///
    /// ```rhai
    /// meter.pause();
    /// meter.resume();
    /// assert(meter.reading().seconds >= 0.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn resume(ctx: NativeCallContext, meter: &mut MeterHandle) -> ScriptResult<()> {
        with(&ctx, meter, "resume", |meter| {
            meter.mark();
            meter.resume();
        })
    }

    /// Ends the meter and returns its last reading.
    ///
    /// ```rhai
    /// assert(meter.stop().components.contains("cpu"));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn stop(ctx: NativeCallContext, meter: &mut MeterHandle) -> ScriptResult<Figures> {
        let last = with(&ctx, meter, "stop", Meter::stop)?;
        let map = reading_map(&last);
        meter.state.borrow_mut().last = Some(last);
        Ok(map)
    }

    /// What it has come to: `energy_kwh` and `co2_kg` (data center overhead included), `seconds`, `pue`, `intensity_g_per_kwh`,
    /// `measured_share` (0 to 1), and `components`: of `cpu`, `gpu` and `ram` those that are known, each with `kwh` (overhead
    /// included), `joules` (without), `sources` (an array of `#{ source, measured, joules }`), and, where something went wrong,
    /// `gap_s`, `missed_reads`, `resets`, `problem`. What is not known is not there.
    ///
    /// ```rhai
    /// let so_far = meter.reading();
    /// assert(so_far.pue == 1.0 && so_far.measured_share == 0.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn reading(ctx: NativeCallContext, meter: &mut MeterHandle) -> ScriptResult<Figures> {
        if let Some(last) = &meter.state.borrow().last {
            return Ok(reading_map(last));
        }
        with(&ctx, meter, "reading", |meter| reading_map(&meter.reading()))
    }
}

/// Does something with a meter that runs.
fn with<T>(
    ctx: &NativeCallContext,
    handle: &MeterHandle,
    what: &str,
    work: impl FnOnce(&Meter) -> T,
) -> ScriptResult<T> {
    let state = handle.state.borrow();
    match (&state.meter, &state.last) {
        (Some(meter), None) => Ok(work(meter)),
        (_, Some(_)) => Err(script_error(ctx, format!("{what}: this meter has been stopped; start() begins anew"))),
        (None, None) => Err(script_error(ctx, format!("{what}: this meter has not been started; call start() first"))),
    }
}
