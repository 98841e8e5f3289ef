//! What is in a dataset: `describe`, `preview`, class frequencies and weights, and what brightness alone tells.

use std::path::{Component, Path, PathBuf};

use rhai::plugin::*;
use rhai::{Array, Dynamic, Engine, FLOAT, ImmutableString, Map, NativeCallContext};

use super::DatasetHandle;
use crate::data::summary::Summary;
use crate::data::{DataError, Dataset, intensity};
use crate::host::api::segmentation::ScoresHandle;
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::sandbox::write_below;
use crate::host::session::Session;

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

/// Where pictures of data go while no run has started.
const PREVIEWS: &str = "previews";

fn classes(ctx: &NativeCallContext, dataset: &Dataset) -> ScriptResult<Summary> {
    if dataset.classes().is_none() {
        return Err(script_error(ctx, DataError::NoClasses));
    }
    dataset.summary().map_err(|err| script_error(ctx, err))
}

fn floats(values: Vec<f64>) -> Array {
    values.into_iter().map(|value| Dynamic::from(value as FLOAT)).collect()
}

/// The file that `path` names in the directory of the last run, or in `previews/` of the current folder; and that directory.
///
/// Errors: a path that leaves it.
fn place(session: &Session, path: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let relative = Path::new(path);
    let stays = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if path.is_empty() || !stays || path.contains(['\\', ':']) {
        return Err(Failure::script(format!(
            "path: expected one inside the run directory, such as \"data.png\", got \"{path}\""
        )));
    }
    let root = session.runs.current_directory().unwrap_or_else(|| PathBuf::from(PREVIEWS));
    let mut file = root.join(relative);
    if file.extension().is_none_or(|extension| extension != "png") {
        file.as_mut_os_string().push(".png");
    }
    Ok((root, file))
}

/// Writes `file`, which lies below `root`; not through a link in the place of `previews/`.
fn write(root: &Path, file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if root == Path::new(PREVIEWS) && root.is_symlink() {
        return Err(Failure::script(format!("{PREVIEWS} is a link: it is not written through")));
    }
    write_below(root, file, bytes)
}

#[export_module]
mod methods {
    /// Prints what is in the dataset: how many images of which sizes, its classes with their share of the pixels and the number of
    /// images they are in, ignored pixels, empty masks, and files that cannot be read. Of more than 5,000 files, 5,000 are looked at.
    ///
    /// ```rhai
    /// images.describe();
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn describe(ctx: NativeCallContext, dataset: &mut DatasetHandle) -> ScriptResult<()> {
        let summary = dataset.0.summary().map_err(|err| script_error(&ctx, err))?;
        Session::of(&ctx).print(&summary.text(&dataset.0));
        Ok(())
    }

    /// Files that were asked for so far and could not be used, with the reason, by name; runs list them in `skipped.csv`.
    ///
    /// ```rhai
    /// assert(images.skipped().is_empty()); // none has been asked for
    /// ```
    #[rhai_fn(pure)]
    pub fn skipped(dataset: &mut DatasetHandle) -> Map {
        let list = dataset.0.skipped();
        list.into_iter().map(|(name, reason)| (name.into(), Dynamic::from(reason))).collect()
    }

    /// Writes a PNG with up to 16 images and their masks to `path`, which lies in the run directory, or in `previews/` while no
    /// run has started. Returns where it is.
    ///
    /// ```rhai
    /// print(images.preview("generated.png"));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn preview(ctx: NativeCallContext, dataset: &mut DatasetHandle, path: ImmutableString) -> ScriptResult<String> {
        let (root, file) = place(&Session::of(&ctx), &path).map_err(|err| script_error(&ctx, err))?;
        let bytes = dataset.0.preview().map_err(|err| script_error(&ctx, err))?;
        write(&root, &file, &bytes).map_err(|err| script_error(&ctx, err))?;
        Ok(file.display().to_string())
    }

    /// The share of each class in the labeled pixels, or in the labeled images.
    ///
    /// ```rhai
    /// assert(images.class_frequencies().len() == images.classes.len());
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn class_frequencies(ctx: NativeCallContext, dataset: &mut DatasetHandle) -> ScriptResult<Array> {
        Ok(floats(classes(&ctx, &dataset.0)?.class_frequencies()))
    }

    /// A weight for each class that makes up for its rarity: the median frequency over its own (Eigen and Fergus 2015), 0.1 to 10.
    ///
    /// ```rhai
    /// assert(images.class_weights().all(|weight| weight >= 0.1 && weight <= 10.0));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn class_weights(ctx: NativeCallContext, dataset: &mut DatasetHandle) -> ScriptResult<Array> {
        Ok(floats(classes(&ctx, &dataset.0)?.class_weights()))
    }

    /// What brightness alone tells: a lookup from gray level to class, learned on these images, applied to those of `val`; at
    /// most 200 of each. Scores as of `models::scores`: what a model must beat to have seen any shape.
    ///
    /// ```rhai
    /// let parts = images.split(0.5);
    /// print(parts.train.intensity_baseline(parts.val));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn intensity_baseline(
        ctx: NativeCallContext,
        dataset: &mut DatasetHandle,
        val: DatasetHandle,
    ) -> ScriptResult<ScoresHandle> {
        let confusion = intensity::baseline(&dataset.0, &val.0).map_err(|err| script_error(&ctx, err))?;
        let names = dataset.0.classes().map_or(Vec::new(), |table| table.names.clone());
        Ok(ScoresHandle::new(names.into_iter().map(Into::into).collect(), confusion))
    }
}
