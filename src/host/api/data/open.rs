//! What `data::open` makes of its argument.

use std::collections::HashMap;
use std::path::PathBuf;

use rhai::{Array, Dynamic, Map, NativeCallContext};

use super::{DatasetHandle, shards};
use crate::data::{ClassTable, Coding, FolderSpec, Folders, IGNORE, Labels, PairsSpec, Spec};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::options::{FromOption, OptionMap};
use crate::host::session::Session;

/// A built-in name or a folder.
pub fn named(ctx: &NativeCallContext, text: &str) -> ScriptResult<DatasetHandle> {
    let session = Session::of(ctx);
    let plain = FolderSpec::new(PathBuf::new());
    if let Some(spec) = shards::in_braces(&session, text, plain).map_err(|err| script_error(ctx, err))? {
        return session.open(&spec).map(DatasetHandle).map_err(|err| script_error(ctx, err));
    }
    let spec = match Spec::parse(text) {
        Ok(Spec::Folder(_)) => session.readable(text).map(Spec::Folder),
        // A relative path of the script's own folder is no folder from here; the sandbox knows both.
        Err(err) => {
            let found = session.readable(text).map(Spec::Folder);
            found.map_err(|denied| if text.contains('/') { denied } else { err.into() })
        }
        Ok(spec) => Ok(spec),
    };
    let dataset = spec.and_then(|spec| session.open(&spec).map_err(Failure::from));
    dataset.map(DatasetHandle).map_err(|err| script_error(ctx, err))
}

/// By options: the keys tell which kind of dataset it is.
pub fn by_options(ctx: &NativeCallContext, spec: Map) -> ScriptResult<DatasetHandle> {
    let has = |key: &str| spec.contains_key(key);
    let is_pairs = has("images") || has("masks");
    if has("shards") && (is_pairs || has("classes")) {
        let problem = "data::open: masks are read from folders, not from shards: unpack the archives";
        return Err(script_error(ctx, problem));
    }
    let mut options = OptionMap::new(ctx, "data::open", spec);
    let cache = options.get::<Bytes>("cache")?;
    let dataset = if is_pairs { pairs(ctx, options)? } else { images(ctx, options)? };
    if let Some(Bytes(limit)) = cache {
        dataset.0.limit_cache(limit);
    }
    Ok(dataset)
}

fn images(ctx: &NativeCallContext, mut options: OptionMap) -> ScriptResult<DatasetHandle> {
    let (folder, name) = (options.get::<String>("folder")?, options.get::<String>("name")?);
    let archives = options.get::<shards::Paths>("shards")?;
    let Spec::Wirebond { size, count, seed } = Spec::wirebond() else { unreachable!("wirebond() is a Wirebond") };
    let (size_given, count_given, seed_given) =
        (options.count("size")?, options.count("count")?, options.count("seed")?);
    let for_wirebond = size_given.or(count_given).or(seed_given).is_some();
    if for_wirebond && name.as_deref() != Some("wirebond") {
        return Err(options.error("data::open: size, count and seed belong to name: \"wirebond\""));
    }
    let channels = channels(&mut options)?;
    let labels = options.get::<Labels>("labels")?;
    let pair = options.get::<Endings>("pair")?.map(|Endings(endings)| endings);
    let extension = options.get::<String>("image_extension")?;
    options.finish()?;
    let as_asked = channels.is_some() || labels.is_some() || pair.is_some() || extension.is_some();
    if as_asked && folder.is_none() && archives.is_none() {
        let problem = "data::open: channels, labels, pair and image_extension belong to folder or shards";
        return Err(script_error(ctx, problem));
    }
    if pair.is_some() && channels.is_some_and(|channels| channels != 2) {
        return Err(script_error(ctx, "data::open: two files to an image make 2 channels"));
    }
    let session = Session::of(ctx);
    let channels = channels.unwrap_or(if pair.is_some() { 2 } else { 3 });
    let asked = FolderSpec { path: PathBuf::new(), channels, labels, pair, extension };
    let opened = |spec: Result<Spec, Failure>| -> ScriptResult<DatasetHandle> {
        let dataset = spec.and_then(|spec| session.open(&spec).map_err(Failure::from));
        dataset.map(DatasetHandle).map_err(|err| script_error(ctx, err))
    };
    match (folder, archives, name.as_deref()) {
        (None, Some(archives), None) => opened(shards::listed(&session, &archives, asked)),
        (Some(folder), None, None) if as_asked => {
            opened(shards::in_braces(&session, &folder, asked.clone()).and_then(|spec| match spec {
                Some(spec) => Ok(spec),
                None => session.readable(&folder).map(|path| Spec::Images(FolderSpec { path, ..asked })),
            }))
        }
        (Some(folder), None, None) => named(ctx, &folder),
        (None, None, Some("wirebond")) => {
            let spec = Spec::Wirebond {
                size: size_given.map_or(size, |n| n as usize),
                count: count_given.map_or(count, |n| n as usize),
                seed: seed_given.unwrap_or(seed),
            };
            opened(Ok(spec))
        }
        (None, None, Some(name)) => named(ctx, name),
        _ => Err(script_error(ctx, "data::open: expected one of folder, shards and name, or images with masks")),
    }
}

fn pairs(ctx: &NativeCallContext, mut options: OptionMap) -> ScriptResult<DatasetHandle> {
    let session = Session::of(ctx);
    let folder =
        |text: String| -> ScriptResult<PathBuf> { session.readable(&text).map_err(|err| script_error(ctx, err)) };
    let train = Folders { images: folder(options.need("images")?)?, masks: folder(options.need("masks")?)? };
    let val = match (options.get::<String>("val_images")?, options.get::<String>("val_masks")?) {
        (None, None) => None,
        (Some(images), Some(masks)) => Some(Folders { images: folder(images)?, masks: folder(masks)? }),
        _ => return Err(options.error("data::open: val_images and val_masks belong together")),
    };
    let (classes, coding) = classes(&mut options)?;
    let channels = channels(&mut options)?.unwrap_or(3);
    let (image_extension, mask_extension) = (options.get("image_extension")?, options.get("mask_extension")?);
    options.finish()?;
    let spec = PairsSpec { train, val, classes, coding, channels, image_extension, mask_extension };
    session.open(&Spec::Pairs(spec)).map(DatasetHandle).map_err(|err| script_error(ctx, err))
}

fn channels(options: &mut OptionMap) -> ScriptResult<Option<usize>> {
    match options.count("channels")? {
        Some(n) if !(1..=3).contains(&n) => Err(options.error(format!("channels: expected 1, 2 or 3, got {n}"))),
        n => Ok(n.map(|n| n as usize)),
    }
}

/// An amount of memory.
struct Bytes(u64);

impl FromOption for Bytes {
    const EXPECTED: &'static str = "bytes, or an amount such as \"500 MiB\" or \"2 GiB\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Ok(bytes) = value.as_int() {
            return u64::try_from(bytes).ok().map(Self);
        }
        let text = value.into_string().ok()?;
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let unit = match unit.trim() {
            "MiB" => 1_u64 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        let bytes = number.parse::<f64>().ok()? * unit as f64;
        Some(Self(bytes as u64))
    }
}

impl FromOption for Labels {
    const EXPECTED: &'static str = "\"folders\", \"prefix\" or \"cls\"";
    fn from_option(value: Dynamic) -> Option<Self> {
        match value.into_string().ok()?.as_str() {
            "folders" => Some(Self::Folders),
            "prefix" => Some(Self::Prefix),
            "cls" => Some(Self::Cls),
            _ => None,
        }
    }
}

/// What the names of an image's two files end in.
struct Endings([String; 2]);

impl FromOption for Endings {
    const EXPECTED: &'static str = "two endings of file names that differ, such as [\"_a\", \"_b\"]";
    fn from_option(value: Dynamic) -> Option<Self> {
        let endings = value.try_cast::<Array>()?.into_iter().map(|ending| ending.into_string().ok());
        let endings: [String; 2] = endings.collect::<Option<Vec<_>>>()?.try_into().ok()?;
        (endings[0] != endings[1]).then_some(Self(endings))
    }
}

/// The class table and how masks write it, from `classes`, `ignore`, `binary_threshold` and `colors`.
fn classes(options: &mut OptionMap) -> ScriptResult<(ClassTable, Coding)> {
    let names = options.get::<Classes>("classes")?;
    let colors = options.get::<Colors>("colors")?;
    let threshold = options.count("binary_threshold")?;
    let ignore = options.get::<Ignore>("ignore")?;
    let failed = |options: &OptionMap, err: crate::data::DataError| options.error(err);

    if let Some(threshold) = threshold {
        let level = u8::try_from(threshold).ok().filter(|&level| level > 0);
        let level =
            level.ok_or_else(|| options.error(format!("binary_threshold: expected 1 to 255, got {threshold}")))?;
        if colors.is_some() || ignore.is_some() {
            return Err(options.error("data::open: binary_threshold takes the place of colors and ignore"));
        }
        let names = names.unwrap_or_else(|| Classes::Names(vec!["background".into(), "foreground".into()]));
        let table = names.table().map_err(|err| failed(options, err))?;
        if table.len() != 2 {
            return Err(options.error(format!("classes: expected 2 with binary_threshold, got {}", table.len())));
        }
        return Ok((table, Coding::Threshold(level)));
    }
    if let Some(colors) = colors {
        let ignored = match ignore {
            None => Vec::new(),
            Some(Ignore::Colors(colors)) => colors,
            Some(Ignore::Values(_)) => return Err(options.error("ignore: expected a color [r, g, b] beside colors")),
        };
        let (names, colors) = colors.named(names).map_err(|err| options.error(err))?;
        let mut table: HashMap<[u8; 3], Option<u8>> = ignored.into_iter().map(|color| (color, None)).collect();
        for (label, color) in colors.iter().enumerate() {
            if table.insert(*color, Some(label as u8)).is_some() {
                return Err(options.error(format!("colors: {color:?} stands for two things")));
            }
        }
        let classes = ClassTable::with_colors(names, colors).map_err(|err| failed(options, err))?;
        return Ok((classes, Coding::Colors(table)));
    }
    let Some(names) = names else {
        return Err(
            options.error("data::open: the option classes is missing: names in the order of their labels, or how many")
        );
    };
    let table = names.table().map_err(|err| failed(options, err))?;
    let ignore = match ignore {
        None => return Ok((table, Coding::Index { ignore: vec![IGNORE.into()] })),
        Some(Ignore::Values(values)) => values,
        Some(Ignore::Colors(_)) => return Err(options.error("ignore: expected a label, since there are no colors")),
    };
    if let Some(value) = ignore.iter().find(|&&value| (value as usize) < table.len()) {
        return Err(options.error(format!("ignore: {value} is the label of \"{}\"", table.names[*value as usize])));
    }
    Ok((table, Coding::Index { ignore }))
}

/// Names, or how many there are.
enum Classes {
    Names(Vec<String>),
    Count(usize),
}

impl Classes {
    fn table(self) -> Result<ClassTable, crate::data::DataError> {
        match self {
            Self::Names(names) => ClassTable::new(names),
            Self::Count(count) => ClassTable::numbered(count),
        }
    }
}

impl FromOption for Classes {
    const EXPECTED: &'static str = "an array of names, or how many there are";
    fn from_option(value: Dynamic) -> Option<Self> {
        if let Ok(count) = value.as_int() {
            return Some(Self::Count(usize::try_from(count).unwrap_or(0)));
        }
        let names = value.try_cast::<Array>()?.into_iter().map(|name| name.into_string().ok());
        names.collect::<Option<_>>().map(Self::Names)
    }
}

/// Colors by name, or in the order of the classes.
enum Colors {
    ByName(Vec<(String, [u8; 3])>),
    InOrder(Vec<[u8; 3]>),
}

impl Colors {
    /// Names and colors in the order of the labels: that of `classes`, else that of the colors (a map's is alphabetical).
    fn named(self, classes: Option<Classes>) -> Result<(Vec<String>, Vec<[u8; 3]>), String> {
        match (self, classes) {
            (Self::ByName(colors), None) => Ok(colors.into_iter().unzip()),
            (Self::ByName(colors), Some(Classes::Names(names))) => {
                if let Some((name, _)) = colors.iter().find(|(name, _)| !names.contains(name)) {
                    return Err(format!("colors: \"{name}\" is not among the classes"));
                }
                let of = |name: &String| {
                    let found = colors.iter().find(|(known, _)| known == name).map(|(_, color)| *color);
                    found.ok_or_else(|| format!("colors: none for the class \"{name}\""))
                };
                let colors = names.iter().map(of).collect::<Result<_, _>>()?;
                Ok((names, colors))
            }
            (Self::ByName(_), Some(Classes::Count(_))) => {
                Err("classes: expected names beside colors that have names".into())
            }
            (Self::InOrder(colors), Some(Classes::Names(names))) => Ok((names, colors)),
            (Self::InOrder(colors), _) => Ok(((0..colors.len()).map(|i| format!("class {i}")).collect(), colors)),
        }
    }
}

impl FromOption for Colors {
    const EXPECTED: &'static str =
        "a map of names to colors [r, g, b], or an array of colors in the order of the classes";
    fn from_option(value: Dynamic) -> Option<Self> {
        if value.is_map() {
            let map: Map = value.try_cast()?;
            let colors = map.into_iter().map(|(name, value)| Some((name.to_string(), color(value)?)));
            return colors.collect::<Option<_>>().map(Self::ByName);
        }
        value.try_cast::<Array>()?.into_iter().map(color).collect::<Option<_>>().map(Self::InOrder)
    }
}

/// Values or colors that are no class.
enum Ignore {
    Values(Vec<u32>),
    Colors(Vec<[u8; 3]>),
}

impl FromOption for Ignore {
    const EXPECTED: &'static str =
        "a label, an array of labels, or, beside colors, a color [r, g, b] or an array of these";
    fn from_option(value: Dynamic) -> Option<Self> {
        let number = |value: &Dynamic| u32::try_from(value.as_int().ok()?).ok();
        if let Some(value) = number(&value) {
            return Some(Self::Values(vec![value]));
        }
        let items = value.try_cast::<Array>()?;
        match items.first() {
            Some(first) if first.is_array() => items.into_iter().map(color).collect::<Option<_>>().map(Self::Colors),
            _ => items.iter().map(number).collect::<Option<_>>().map(Self::Values),
        }
    }
}

fn color(value: Dynamic) -> Option<[u8; 3]> {
    let parts = value.try_cast::<Array>()?;
    let parts: Vec<u8> = parts.iter().map(|part| u8::try_from(part.as_int().ok()?).ok()).collect::<Option<_>>()?;
    parts.try_into().ok()
}
