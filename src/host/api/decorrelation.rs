//! Decorrelation of a model's layers: options, selection, figures. Methods of every model; what it costs is in `plan`.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, Map, NativeCallContext};
use tch::Kind;

use super::custom::refuse_part;
use super::models::ModelHandle;
use super::schedule::ScheduleHandle;
use super::tensor::size;
use crate::host::convert::Patterns;
use crate::host::errors::{ScriptResult, in_words, script_error};
use crate::host::options::{FromOption, OptionMap};
use crate::host::say::say;
use crate::nn::{
    AutoConfig, BlockWidth, DecorOptions, DecorSchedule, Layer, LayerMetrics, MaxRows, NnError, Sample, StopAt,
};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

impl FromOption for Sample {
    const EXPECTED: &'static str = "a fraction (0.1) or a number of rows (512)";
    fn from_option(value: Dynamic) -> Option<Self> {
        value.as_int().map(Self::Rows).or_else(|_| value.as_float().map(Self::Fraction)).ok()
    }
}

impl FromOption for MaxRows {
    const EXPECTED: &'static str = "a number of rows (0 for no bound), or a multiple of the layer's width (\"4d\")";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Ok(rows) = value.as_int() {
            return Some(if rows == 0 { Self::None } else { Self::Rows(rows) });
        }
        let text = value.into_string().ok()?;
        text.strip_suffix('d')?.parse().ok().map(Self::Widths)
    }
}

impl FromOption for BlockWidth {
    const EXPECTED: &'static str = "a width (0 for one matrix), or \"wide\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Ok(width) = value.as_int() {
            return Some(if width == 0 { Self::Whole } else { Self::Width(width) });
        }
        (value.into_string().ok()? == "wide").then_some(Self::Wide)
    }
}

impl FromOption for DecorSchedule {
    const EXPECTED: &'static str = "\"constant\", \"follow\", or a schedule";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Some(schedule) = value.read_lock::<ScheduleHandle>() {
            return Some(Self::Own(schedule.0.clone()));
        }
        match value.into_string().ok()?.as_str() {
            "constant" => Some(Self::Constant),
            "follow" => Some(Self::Follow),
            _ => None,
        }
    }
}

/// The options that a decorrelated layer has, out of a map that may hold others.
fn decor_options(options: &mut OptionMap) -> ScriptResult<DecorOptions> {
    let preset = match options.get::<String>("preset")? {
        None => DecorOptions::default(),
        Some(name) => DecorOptions::preset(&name)
            .ok_or_else(|| options.error(format!("preset: expected \"paper\" or \"lean\", got \"{name}\"")))?,
    };
    let stop_at = match options.get::<Dynamic>("stop_at")? {
        None => preset.stop_at,
        Some(value) => Some(stop_at(options, value)?),
    };
    Ok(DecorOptions {
        lr: options.or("lr", preset.lr)?,
        sample: options.or("sample", preset.sample)?,
        max_rows: options.or("max_rows", preset.max_rows)?,
        kappa: options.or("kappa", preset.kappa)?,
        every: options.count("every")?.unwrap_or(preset.every),
        schedule: options.or("schedule", preset.schedule)?,
        stop_at,
        patience: options.count("patience")?.unwrap_or(preset.patience),
        rank: options.or("rank", preset.rank)?,
        block: options.or("block", preset.block)?,
        max_norm: options.or("max_norm", preset.max_norm)?,
        project: options.or("project", preset.project)?,
    })
}

/// A step as a whole number, or `#{ epoch: n }`.
fn stop_at(options: &OptionMap, value: Dynamic) -> ScriptResult<StopAt> {
    let expected = "stop_at: expected a step, #{ step: n } or #{ epoch: n }";
    if let Ok(step) = value.as_int() {
        return u64::try_from(step).map(StopAt::Step).map_err(|_| options.error(expected));
    }
    let map = value.try_cast::<Map>().ok_or_else(|| options.error(expected))?;
    let mut inner = OptionMap::new(options.context(), "stop_at", map);
    let (step, epoch) = (inner.count("step")?, inner.count("epoch")?);
    inner.finish()?;
    match (step, epoch) {
        (Some(step), None) => Ok(StopAt::Step(step)),
        (None, Some(epoch)) => Ok(StopAt::Epoch(epoch)),
        _ => Err(options.error(expected)),
    }
}

/// One pattern, or an array of them.
fn patterns(ctx: &NativeCallContext, patterns: Dynamic) -> ScriptResult<Vec<String>> {
    patterns_of(ctx, "patterns", patterns)
}

/// The same for patterns that are the option `name`.
pub(super) fn patterns_of(ctx: &NativeCallContext, name: &str, patterns: Dynamic) -> ScriptResult<Vec<String>> {
    let one = |pattern: Dynamic| {
        let shown = in_words(ctx.engine(), &pattern);
        pattern.into_string().map_err(|_| script_error(ctx, format!("{name}: expected texts, got {shown}")))
    };
    match patterns.read_lock::<Array>() {
        Some(all) => all.iter().cloned().map(one).collect(),
        None => one(patterns.clone()).map(|pattern| vec![pattern]),
    }
}

fn texts(names: impl IntoIterator<Item = String>) -> Array {
    names.into_iter().map(Dynamic::from).collect()
}

/// Decorrelates a layer on its own by the options of a map, for `nn::decor_linear` and `nn::decor_conv2d`.
pub fn decorrelate_all(ctx: &NativeCallContext, model: &mut ModelHandle, mut options: OptionMap) -> ScriptResult<()> {
    let wanted = decor_options(&mut options)?;
    let (budget, measure) = (options.get::<Dynamic>("budget")?, options.get::<Dynamic>("measure")?);
    if budget.or(measure).is_some() {
        return Err(
            options.error("budget and measure are options of \"auto\"; a layer on its own has nothing to choose")
        );
    }
    options.finish()?;
    apply(ctx, model, &["**".to_owned()], &wanted).map(|_| ())
}

fn apply(
    ctx: &NativeCallContext,
    model: &mut ModelHandle,
    patterns: &[String],
    options: &DecorOptions,
) -> ScriptResult<Array> {
    let place = |err: NnError| script_error(ctx, err);
    options.check().map_err(place)?;
    check_sizes(ctx, &model.registry().select(patterns).map_err(place)?, options)?;
    Ok(texts(model.registry().decorrelate(patterns, options).map_err(place)?))
}

/// Refuses an R beyond `--max-tensor-bytes`, before it is made.
fn check_sizes(ctx: &NativeCallContext, layers: &[Rc<Layer>], options: &DecorOptions) -> ScriptResult<()> {
    for layer in layers {
        let width = options.block_width(layer.name(), layer.inputs(), layer.outputs() / layer.groups());
        let width = width.map_err(|err| script_error(ctx, err))?;
        let columns = if options.rank > 0 { options.rank.min(layer.inputs()) } else { width };
        size::check(ctx, &[layer.inputs() * layer.groups(), columns], Kind::Float)?;
    }
    Ok(())
}

#[export_module]
mod methods {
    /// Decorrelates the layers that the patterns choose, and no others; `[]` is plain back-propagation. `*` matches one part
    /// of a name, `**` any parts, `!` subtracts. Returns the names of the chosen layers.
    ///
    /// `"auto"` in the place of patterns chooses by itself: it measures the inputs of every layer for the first `measure`
    /// steps, then takes the set that holds the most correlation for at most `budget`, and says why.
    ///
    /// Options:
    /// - `preset` (string, `"paper"`): where the other defaults come from; `"lean"` is `max_rows: "4d"`, `block: "wide"`
    /// - `lr` (number, 5e-4): η; stable below 2/λmax of the inputs' correlation, and halved with a warning above it
    /// - `sample` (float or int, 0.1): rows of a step that the update sees, a fraction or a number; its cost grows in proportion
    /// - `max_rows` (int or string, 0): the most it sees: a number, or a multiple of R's width (`"4d"`); for large batches
    /// - `kappa` (number, 0): 0 decorrelates, up to 1 also drives variances to 1; costs nothing
    /// - `every` (int, 1): steps between updates; divides the cost of the update, not of applying R
    /// - `schedule` (string or Schedule, `"constant"`): `"follow"` the weight schedule (calmer late in training), or a schedule of η
    ///   itself
    /// - `stop_at` (int or map, never): a step, `#{ step: n }` or `#{ epoch: n }`: R is frozen there, and still applied
    /// - `patience` (int, 0): freezes R once its loss has not fallen by 1 % for so many steps; looked at every 50 updates
    /// - `rank` (int, 0): R = I + UVᵀ of this rank: for wide layers, where rank ≪ width / 3
    /// - `block` (int or string, 0): R in blocks of this width, which divides the inputs: `block/width` of the cost; `"wide"`: as wide
    ///   as the outputs, in layers with twice as many inputs
    /// - `max_norm` (number, 4): rows of R that would get longer than this stay (low rank: no longer move once there); 0 is no bound.
    ///   κ > 0 cannot lift deviations below 1/max_norm to 1
    /// - `project` (bool, true): behind a LayerNorm, R keeps still in the one direction its outputs do not have; two passes over R
    /// - `budget` (number, 0.05): of `"auto"`, the fraction of a step's multiply-adds that decorrelation may add
    /// - `measure` (int, 10): of `"auto"`, the steps that it measures
    ///
    /// Errors: a pattern that matches nothing, an unknown option, a value outside its range.
    ///
    /// ```rhai
    /// let chosen = model.decorrelate(["encoder.**", "!encoder.patch_embed.proj"], #{ lr: 1e-3, stop_at: #{ epoch: 9 } });
    /// assert(chosen.contains("encoder.blocks.0.mlp.fc1") && model.decorrelated() == chosen);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn decorrelate(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        patterns: Patterns,
        options: Map,
    ) -> ScriptResult<Array> {
        refuse_part(&ctx, "decorrelate", model)?;
        let mut options = OptionMap::new(&ctx, "decorrelate", options);
        let wanted = decor_options(&mut options)?;
        let chosen = super::patterns(&ctx, patterns)?;
        let auto = chosen.iter().any(|pattern| pattern == "auto");
        let (budget, steps) = (options.get::<f64>("budget")?, options.count("measure")?);
        options.finish()?;
        if !auto {
            if budget.is_some() || steps.is_some() {
                return Err(script_error(&ctx, "decorrelate: budget and measure are options of \"auto\""));
            }
            return apply(&ctx, model, &chosen, &wanted);
        }
        let config = AutoConfig { options: wanted, budget: budget.unwrap_or(0.05), steps: steps.unwrap_or(10) };
        config.check().map_err(|err| script_error(&ctx, err))?;
        if chosen.len() > 1 {
            return Err(script_error(&ctx, "decorrelate: \"auto\" chooses by itself; give it alone"));
        }
        check_sizes(&ctx, &model.registry().layers(), &config.options)?;
        model.registry().decorrelate_auto(config).map_err(|err| script_error(&ctx, err))?;
        Ok(Array::new())
    }

    /// The same with the default options.
    #[rhai_fn(name = "decorrelate", return_raw, pure)]
    pub fn decorrelate_by_default(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        patterns: Patterns,
    ) -> ScriptResult<Array> {
        decorrelate(ctx, model, patterns, Map::new())
    }

    /// One update of every R from this step's sampled rows. Call it after `opt.step`.
    ///
    /// ```rhai
    /// let opt = optim::adamw(model, #{});
    /// model.decorrelate("encoder.**", #{ sample: 1.0 });
    /// model.loss(batch).backward();
    /// opt.step();
    /// model.update_decorrelation();
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn update_decorrelation(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<()> {
        let notices = model.registry().update_decorrelation().map_err(|err| script_error(&ctx, err))?;
        notices.iter().for_each(|notice| say(notice));
        Ok(())
    }

    /// Freezes every R; each stays applied.
    ///
    /// ```rhai
    /// model.decorrelate("encoder.**");
    /// model.freeze_decorrelation();
    /// assert(model.is_decorrelated);
    /// ```
    #[rhai_fn(pure)]
    pub fn freeze_decorrelation(model: &mut ModelHandle) {
        model.registry().freeze_decorrelation();
    }

    /// Folds every R into its weight and drops it; outputs stay the same.
    ///
    /// ```rhai
    /// model.decorrelate("encoder.**");
    /// model.fuse();
    /// assert(!model.is_decorrelated);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn fuse(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<()> {
        model.registry().fuse().map_err(|err| script_error(&ctx, err))
    }

    /// The names of all layers that can be decorrelated.
    ///
    /// ```rhai
    /// assert(model.layers().contains("encoder.patch_embed.proj"));
    /// ```
    #[rhai_fn(pure)]
    pub fn layers(model: &mut ModelHandle) -> Array {
        texts(model.registry().layers().iter().map(|layer| layer.name().to_owned()))
    }

    /// The names of the decorrelated layers.
    ///
    /// ```rhai
    /// model.decorrelate("encoder.blocks.*.mlp.*");
    /// assert(model.decorrelated() == ["encoder.blocks.0.mlp.fc1", "encoder.blocks.0.mlp.fc2"]);
    /// ```
    #[rhai_fn(pure)]
    pub fn decorrelated(model: &mut ModelHandle) -> Array {
        texts(model.registry().decorrelated().iter().map(|layer| layer.name().to_owned()))
    }

    /// Whether any layer is decorrelated, or will be once `"auto"` has chosen.
    ///
    /// ```rhai
    /// assert(!model.is_decorrelated);
    /// ```
    #[rhai_fn(get = "is_decorrelated", pure)]
    pub fn is_decorrelated(model: &mut ModelHandle) -> bool {
        model.registry().is_decorrelated()
    }

    /// Measures the inputs of layers, decorrelated or not, with the formula of decorrelated ones (over all pairs, where a layer
    /// has no R): from the next step on they are part of `decorrelation_metrics` and of `layers.jsonl`. Returns their names; `[]`
    /// ends it. Costs a copy of the sampled rows per step.
    ///
    /// Options:
    /// - `sample` (float or int, 0.1): rows of a step that are seen, a fraction or a number
    /// - `max_rows` (int or string, 0): the most that are: a number, or a multiple of the width (`"4d"`)
    /// - `condition` (bool, false): also the condition number of `E[z zᵀ]`, from its eigenvalues, whenever figures are read
    ///
    /// ```rhai
    /// model.probe_correlation("encoder.blocks.**", #{ sample: 1.0, condition: true });
    /// model.loss(batch);
    /// assert(model.decorrelation_metrics()["encoder.blocks.0.attn.qkv"].condition >= 1.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn probe_correlation(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        patterns: Patterns,
        options: Map,
    ) -> ScriptResult<Array> {
        let mut options = OptionMap::new(&ctx, "probe_correlation", options);
        let usual = DecorOptions::default();
        let sampling = DecorOptions {
            sample: options.or("sample", usual.sample)?,
            max_rows: options.or("max_rows", usual.max_rows)?,
            ..usual
        };
        let condition = options.or("condition", false)?;
        options.finish()?;
        let chosen = super::patterns(&ctx, patterns)?;
        let names = model.registry().probe(&chosen, &sampling, condition);
        Ok(texts(names.map_err(|err| script_error(&ctx, err))?))
    }

    /// The same with the default options.
    #[rhai_fn(name = "probe_correlation", return_raw, pure)]
    pub fn probe_by_default(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        patterns: Patterns,
    ) -> ScriptResult<Array> {
        probe_correlation(ctx, model, patterns, Map::new())
    }

    /// Figures of every decorrelated or probed layer at its last sample: `#{ layer: #{ decor_loss, mean_abs_corr, r_norm,
    /// condition } }`. `r_norm` is ‖R‖₂, absent without R; `condition` only where `probe_correlation` asked for it.
    ///
    /// ```rhai
    /// model.decorrelate("encoder.blocks.0.mlp.fc1", #{ sample: 1.0 });
    /// model.loss(batch).backward();
    /// model.update_decorrelation();
    /// assert(model.decorrelation_metrics()["encoder.blocks.0.mlp.fc1"].r_norm > 0.9);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn decorrelation_metrics(ctx: NativeCallContext, model: &mut ModelHandle) -> ScriptResult<Map> {
        let all = model.registry().layer_metrics().map_err(|err| script_error(&ctx, err))?;
        Ok(all.into_iter().map(|(name, metrics)| (name.into(), Dynamic::from(figures(metrics)))).collect())
    }
}

fn figures(metrics: LayerMetrics) -> Map {
    let LayerMetrics { decor_loss, mean_abs_corr, r_norm, condition } = metrics;
    let all = [
        ("decor_loss", Some(decor_loss)),
        ("mean_abs_corr", Some(mean_abs_corr)),
        ("r_norm", r_norm),
        ("condition", condition),
    ];
    all.into_iter().filter_map(|(name, figure)| Some((name.into(), Dynamic::from(figure?)))).collect()
}
