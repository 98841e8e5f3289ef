//! `run::output`: a run directory for results without training, such as predictions.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rhai::plugin::*;
use rhai::{Dynamic, Engine, ImmutableString, Map, Module, NativeCallContext};
use serde_json::json;
use tch::{Device, Kind};

use crate::host::api::data::{BatchHandle, DatasetHandle};
use crate::host::api::models::PictureHandle;
use crate::host::api::tensor::TensorHandle;
use crate::host::args::to_json;
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};
use crate::host::options::OptionMap;
use crate::host::runs::{self, Output, SharedOutput};
use crate::host::sandbox::write_below;
use crate::host::say::say;
use crate::host::session::Session;
use crate::train::experiment::write_sources;
use crate::train::{TrainError, record};

/// A directory of results as scripts hold it: copies are the same.
#[derive(Clone)]
pub struct OutputHandle {
    output: SharedOutput,
    /// Files written so far, because two images may differ in their extension only.
    written: Rc<RefCell<HashSet<PathBuf>>>,
}

pub fn register(engine: &mut Engine, run: &mut Module) {
    engine.register_global_module(exported_module!(types).into());
    run.combine_flatten(exported_module!(functions));
    engine.register_global_module(exported_module!(methods).into());
}

impl OutputHandle {
    /// Writes the result for the image `name`: its path under `folder`, as PNG. Never outside of the directory.
    fn write(&self, folder: &str, name: &str, png: &[u8]) -> Result<PathBuf, Failure> {
        let inside: PathBuf =
            Path::new(name).components().filter(|part| matches!(part, Component::Normal(_))).collect();
        let root = self.output.borrow().dir().to_owned();
        let folder = root.join(folder);
        let mut path = folder.join(inside.with_extension("png"));
        if !self.written.borrow_mut().insert(path.clone()) {
            let mut whole = inside.into_os_string();
            whole.push(".png");
            path = folder.join(whole);
        }
        write_below(&root, &path, png)?;
        Ok(path)
    }
}

#[allow(dead_code)] // Names and comments are what the macro reads.
#[export_module]
mod types {
    /// A directory of results: copies are the same.
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 2 });
    /// let output = run::output(#{ data: images });
    /// ```
    pub type Output = OutputHandle;
}

#[export_module]
mod functions {
    /// Makes a run directory for results without training, with the script and `run.json` in it.
    ///
    /// Options:
    /// - `name` (string, the script's): in `run.json`, and of the directory where a script makes several
    /// - `data` (Dataset): whose unreadable files are listed in `skipped.csv`
    ///
    /// ```rhai
    /// let output = run::output(#{ name: "predictions" });
    /// output.note("accuracy", 0.9);
    /// print(output.dir);
    /// ```
    #[rhai_fn(return_raw)]
    pub fn output(ctx: NativeCallContext, options: Map) -> ScriptResult<OutputHandle> {
        let session = Session::of(&ctx);
        let mut options = OptionMap::new(&ctx, "run::output", options);
        let name = options.or("name", runs::script_name(&session))?;
        let data = match options.get::<Dynamic>("data")? {
            Some(data) => {
                let data = data.try_cast::<DatasetHandle>();
                vec![data.ok_or_else(|| options.error("data: expected a dataset"))?.0]
            }
            None => Vec::new(),
        };
        options.finish()?;
        let dir = session.runs.next_directory(&session, &name).map_err(|err| script_error(&ctx, err))?;
        let mut record = serde_json::Map::new();
        record.insert("name".to_owned(), json!(name));
        record.extend(runs::about(&session));
        let started = || -> Result<SharedOutput, TrainError> {
            write_sources(&dir, &session.running_sources())?;
            Output::start(dir.clone(), record, data, session.runs.locks())
        };
        let output = started().map_err(|err| script_error(&ctx, err))?;
        session.runs.add_output(Rc::clone(&output));
        say(&dir.display().to_string());
        Ok(OutputHandle { output, written: Rc::default() })
    }
}

#[export_module]
mod methods {
    /// Writes each label map of a prediction as `masks/NAME.png`: 8-bit gray, the class as its value.
    ///
    /// ```rhai
    /// for batch in data::batches(images, #{}).batches() {
    ///     output.masks(batch, batch.masks);
    /// }
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn masks(
        ctx: NativeCallContext,
        output: &mut OutputHandle,
        batch: BatchHandle,
        labels: TensorHandle,
    ) -> ScriptResult<()> {
        let labels = labels.tensor();
        let [n, height, width] = labels.size()[..] else {
            return Err(script_error(&ctx, format!("labels: expected shape [N, H, W], got {:?}", labels.size())));
        };
        check_arg(&ctx, n as usize == batch.names.len(), || {
            format!("labels: {n} maps for {} images", batch.names.len())
        })?;
        let labels_fit = || -> Result<bool, tch::TchError> {
            Ok(labels.f_lt(0)?.f_logical_or(&labels.f_gt(255)?)?.f_any()?.f_int64_value(&[])? == 0)
        };
        let fit = n == 0 || labels_fit().map_err(|err| script_error(&ctx, err))?;
        check_arg(&ctx, fit, || "labels: expected 0 to 255, as an 8-bit mask holds them".to_owned())?;
        let write = |i: i64, name: &str| -> Result<(), Failure> {
            let map = labels.f_select(0, i)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
            let bytes = Vec::<u8>::try_from(&map.f_view([-1])?)?;
            let mut png = Vec::new();
            let encoded =
                PngEncoder::new(&mut png).write_image(&bytes, width as u32, height as u32, ExtendedColorType::L8);
            encoded.map_err(|err| Failure::script(format!("{name}: could not encode the mask: {err}")))?;
            output.write("masks", name, &png).map(|_| ())
        };
        (0..n).zip(batch.names.iter()).try_for_each(|(i, name)| write(i, name)).map_err(|err| script_error(&ctx, err))
    }

    /// Writes a picture as `pictures/NAME.png`; returns its path.
    ///
    /// ```rhai
    /// let encoder = models::vit(#{ image_size: 32, patch_size: 8, channels: 2, embed_dim: 16, depth: 4, num_heads: 2 });
    /// let model = models::upernet(encoder, images.classes, #{ channels: 8, aux_channels: 8 });
    /// for batch in data::batches(images, #{}).batches() {
    ///     output.picture(batch.names[0], model.overlay(batch, model.predict(batch)));
    /// }
    /// ```
    #[rhai_fn(name = "picture", return_raw, pure)]
    pub fn output_picture(
        ctx: NativeCallContext,
        output: &mut OutputHandle,
        name: ImmutableString,
        picture: PictureHandle,
    ) -> ScriptResult<ImmutableString> {
        check_arg(&ctx, !name.trim().is_empty(), || "name: expected one, got empty text".to_owned())?;
        let write = || -> Result<PathBuf, Failure> {
            let (png, ..) = picture.0.png()?;
            output.write("pictures", &name, &png)
        };
        Ok(write().map_err(|err| script_error(&ctx, err))?.display().to_string().into())
    }

    /// Adds a fact to `run.json`: a number, text, an array or a map.
    ///
    /// ```rhai
    /// output.note("accuracy", 0.9);
    /// ```
    #[rhai_fn(name = "note", return_raw, pure)]
    pub fn output_note(
        ctx: NativeCallContext,
        output: &mut OutputHandle,
        name: ImmutableString,
        value: Dynamic,
    ) -> ScriptResult<()> {
        if record::is_reserved(&name) {
            return Err(script_error(&ctx, format!("note: {name} is the run's own; take another name")));
        }
        output.output.borrow_mut().note(&name, to_json(&value)).map_err(|err| script_error(&ctx, err))
    }

    /// The directory.
    ///
    /// ```rhai
    /// print(`everything is in ${output.dir}`);
    /// ```
    #[rhai_fn(get = "dir", pure)]
    pub fn output_dir(output: &mut OutputHandle) -> ImmutableString {
        output.output.borrow().dir().display().to_string().into()
    }
}
