//! What loaders take from a script.

use rhai::{Array, Dynamic, Map, NativeCallContext};

use crate::data::{self, Crop, Dataset, Jitter, LoaderConfig};
use crate::host::errors::{ScriptResult, check_arg};
use crate::host::options::{FromOption, ImageSize, OptionMap, number};
use crate::host::session::Session;
use crate::host::smoke;

impl FromOption for Crop {
    const EXPECTED: &'static str = "\"random\", \"center\" or \"none\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        match value.into_string().ok()?.as_str() {
            "random" => Some(Self::Random),
            "center" => Some(Self::Center),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// The options that all loaders take.
pub fn config(options: &mut OptionMap, what: &'static str, crop: Crop) -> ScriptResult<LoaderConfig> {
    let ImageSize(height, width) = options.need("image_size")?;
    let mut config = LoaderConfig {
        batch: options.count("batch")?.ok_or_else(|| options.error(format!("{what}: the option batch is missing")))?
            as usize,
        micro_batches: options.count("micro_batches")?.unwrap_or(1) as usize,
        image_size: (height.max(0) as usize, width.max(0) as usize),
        crop,
        flip: options.or("flip", true)?,
        seed: Session::of(options.context()).seed(),
        workers: options.count("workers")?.map_or_else(data::default_workers, |n| n.max(1) as usize),
    };
    smoke::shrink(&Session::of(options.context()), &mut config);
    Ok(config)
}

/// The changes of color that `jitter` asks for: the paper's, none, or those of a map, in which what is not named stays out.
pub fn jitter(ctx: &NativeCallContext, options: &mut OptionMap) -> ScriptResult<Option<Jitter>> {
    let Some(given) = options.get::<Dynamic>("jitter")? else { return Ok(Some(Jitter::paper())) };
    if let Ok(on) = given.as_bool() {
        return Ok(on.then(Jitter::paper));
    }
    let Some(map) = given.try_cast::<Map>() else {
        return Err(options.error("jitter: expected true, false or a map of ranges"));
    };
    let mut ranges = OptionMap::new(ctx, "jitter", map);
    let mut range = |key: &'static str, most: f64| -> ScriptResult<f64> {
        let value = ranges.or(key, 0.0)?;
        match (0.0..=most).contains(&value) {
            true => Ok(value),
            false => Err(ranges.error(format!("{key}: expected 0 to {most}, got {value}"))),
        }
    };
    let jitter = Jitter {
        brightness: range("brightness", 1.0)?,
        contrast: range("contrast", 1.0)?,
        hue: range("hue", 180.0)?,
        saturation: range("saturation", 1.0)?,
        value: range("value", 1.0)?,
    };
    ranges.finish()?;
    Ok(Some(jitter))
}

/// A length, or the shortest and the longest.
pub struct Edges(pub i64, pub i64);

impl FromOption for Edges {
    const EXPECTED: &'static str = "a length in pixels, or [shortest, longest]";
    fn from_option(value: Dynamic) -> Option<Self> {
        ImageSize::from_option(value).map(|ImageSize(shortest, longest)| Self(shortest, longest))
    }
}

/// What a model says of the pixels it was trained on: `#{ mean, std }`, a number per channel.
pub fn normalization(ctx: &NativeCallContext, given: Map) -> ScriptResult<data::Normalization> {
    let mut options = OptionMap::new(ctx, "normalization", given);
    let mut numbers = |key: &'static str| -> ScriptResult<Vec<f32>> {
        let given = options.need::<Array>(key)?;
        let numbers: Option<Vec<f32>> = given.iter().map(|value| number(value).map(|value| value as f32)).collect();
        numbers.ok_or_else(|| options.error(format!("{key}: expected a number per channel")))
    };
    let (mean, std) = (numbers("mean")?, numbers("std")?);
    options.finish()?;
    Ok(data::Normalization { mean, std })
}

/// The dataset under a given normalization, or under its own.
pub fn normalized(
    ctx: &NativeCallContext,
    dataset: Dataset,
    known: Option<data::Normalization>,
) -> ScriptResult<Dataset> {
    let Some(known) = known else { return Ok(dataset) };
    let (channels, given) = (dataset.channels(), known.mean.len());
    check_arg(ctx, channels == given && known.std.len() == given, || {
        format!("normalization: the images have {channels} channels, the model was trained on {given}")
    })?;
    Ok(dataset.with_normalization(known))
}
