//! `run::grid`: settings × seeds, each cell a run.

use rhai::plugin::*;
use rhai::{Array, Dynamic, FnPtr, Map, Module, NativeCallContext};
use serde_json::Value;

use crate::host::args::to_json;
use crate::host::errors::{Failure, ScriptResult};
use crate::host::grid::{self, Plan};
use crate::host::options::OptionMap;
use crate::host::session::Session;
use crate::host::suggest::did_you_mean;

pub fn register(run: &mut Module) {
    run.combine_flatten(exported_module!(functions));
}

#[export_module]
mod functions {
    /// Runs a function for every cell of a grid, settings × seeds, and answers with what came of each. The function gets a map with
    /// the setting's entries, `seed` and `name`, and makes one run. The run's seed is the cell's, its draws begin anew, and it is
    /// called after the cell. Nothing but the cell, the script's arguments and its data may decide how a cell comes out: one that is
    /// done is not run again.
    ///
    /// All cells lie in one parent directory, which later processes with the same script, arguments and data find again: they
    /// go on with what was interrupted, try what failed, and add what is new. With `--jobs N` that many cells run at
    /// once. A cell that fails or diverges stops no other; the exit code tells of failed ones at the end.
    ///
    /// Each result has `name`, `label`, `setting`, `seed`, `address`, `status`, `dir`, `best` and `wall_s` as the run has them, and
    /// `record`, all of `run.json`.
    /// `std/ablate` makes settings out of axes, and reads results.
    ///
    /// Options:
    /// - `settings` (array of maps): what varies; an entry `label` says how a setting is called
    /// - `seeds` (array of int, [0])
    /// - `name` (string, "grid"): where a script has several
    /// - `title` (string, the name): its heading in the report
    /// - `text` (string): what stands below that
    /// - `baseline` (map): the entries of the setting that the report compares the others with
    /// - `over` (array of string): names of arguments that only say which cells there are, so that a change of them leaves those that are
    ///   done; one called `seeds` is always among them
    /// - `after` (array of maps): results of other grids that the cells read, each those of its own seed: where these were made anew, so is it
    ///
    /// ```rhai
    /// let settings = [#{ lr: 0.1 }, #{ lr: 0.2 }];
    /// let results = run::grid(#{ settings: settings, seeds: [0, 1] }, |cell| {
    ///     let model = nn::linear(2, 1);
    ///     let opt = optim::adamw(model, #{ lr: cell.lr });
    ///     let run = run::start(#{ model: model, opt: opt });
    ///     for step in run.steps(1) { run.log(#{ val_loss: cell.lr }); }
    /// });
    /// assert(results.len() == 4 && results[3].best.val_loss == 0.2);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn grid(ctx: NativeCallContext, options: Map, function: FnPtr) -> ScriptResult<Array> {
        let plan = plan(&ctx, options)?;
        grid::run(&ctx, plan, &function)
    }
}

fn plan(ctx: &NativeCallContext, options: Map) -> ScriptResult<Plan> {
    let mut options = OptionMap::new(ctx, "run::grid", options);
    let listed = options.need::<Array>("settings")?;
    let name = options.or("name", grid::ONLY.to_owned())?;
    let title = options.or("title", name.clone())?;
    let text = options.or("text", String::new())?;
    let seeds = options.get::<Array>("seeds")?.unwrap_or_else(|| vec![Dynamic::from(0_i64)]);
    let baseline = options.get::<Map>("baseline")?;
    let over = options.get::<Array>("over")?.unwrap_or_default();
    let mut settings = Vec::with_capacity(listed.len());
    for setting in listed {
        let Some(setting) = setting.try_cast::<Map>() else {
            return Err(options.error("settings: expected a list of maps, such as [#{ lr: 0.1 }, #{ lr: 0.2 }]"));
        };
        settings.push(as_json(&options, setting)?);
    }
    let mut numbers = Vec::with_capacity(seeds.len());
    for seed in seeds {
        match seed.as_int().ok().and_then(|seed| u64::try_from(seed).ok()) {
            Some(seed) => numbers.push(seed),
            None => return Err(options.error(format!("seeds: expected numbers from 0, got {seed}"))),
        }
    }
    for (what, is_empty) in [("settings", settings.is_empty()), ("seeds", numbers.is_empty())] {
        if is_empty {
            return Err(options.error(format!("{what}: expected one or more")));
        }
    }
    let baseline = baseline.map(|baseline| as_json(&options, baseline)).transpose()?;
    if let Some(baseline) = &baseline
        && !settings.iter().any(|setting| baseline.iter().all(|(key, value)| setting.get(key) == Some(value)))
    {
        return Err(options.error("baseline: no setting has these entries"));
    }
    let session = Session::of(ctx);
    let known: Vec<String> = session.parameters.borrow().iter().map(|parameter| parameter.name.clone()).collect();
    let mut names = Vec::with_capacity(over.len());
    for name in over {
        let name = name.to_string();
        if !known.contains(&name) {
            let failure = Failure::script(format!("over: the script has no parameter {name}"));
            let hint = did_you_mean(&name, known.iter().map(String::as_str));
            return Err(options.error(match hint {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            }));
        }
        names.push(name);
    }
    let mut after = Vec::new();
    for result in options.get::<Array>("after")?.unwrap_or_default() {
        let Some(of) = address_of(&result) else {
            return Err(options.error("after: expected results of another grid"));
        };
        after.push(of);
    }
    options.finish()?;
    Ok(Plan { name, title, text, settings, seeds: numbers, baseline, over: names, after })
}

/// Seed and address of a result.
fn address_of(result: &Dynamic) -> Option<(u64, String)> {
    let result = result.read_lock::<Map>()?;
    let seed = u64::try_from(result.get("seed")?.as_int().ok()?).ok()?;
    Some((seed, result.get("address")?.clone().into_string().ok()?))
}

/// A setting as `run.json` has it; its entries are numbers, text, flags, lists and maps.
fn as_json(options: &OptionMap, setting: Map) -> ScriptResult<serde_json::Map<String, Value>> {
    for name in ["seed", "name"] {
        if setting.contains_key(name) {
            return Err(options.error(format!("settings: `{name}` is the cell's own; take another name")));
        }
    }
    let mut entries = serde_json::Map::new();
    for (key, value) in setting {
        if !is_plain(&value) {
            let failure = Failure::script(format!("settings: {key}: expected a number, text, a flag, a list or a map"));
            return Err(options.error(
                failure.with_hint("make models and data in the function, out of what a setting can write down"),
            ));
        }
        entries.insert(key.to_string(), to_json(&value));
    }
    Ok(entries)
}

fn is_plain(value: &Dynamic) -> bool {
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().all(is_plain);
    }
    if let Some(entries) = value.read_lock::<Map>() {
        return entries.values().all(is_plain);
    }
    value.is_unit() || value.is_bool() || value.is_int() || value.is_float() || value.is_string()
}
