//! Weights from files: `models::load`, `model.load` and `model.init`. Which layouts there are, and what is adapted, is in
//! `docs/weights.md`.

use std::path::PathBuf;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use tch::Kind;

use super::models::{ModelHandle, Network, check_size};
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::options::{ImageSize, OptionMap};
use crate::host::say::say;
use crate::host::session::Session;
use crate::host::weights::{Opened, open};
use crate::nn::{Architecture, Built, Hints, layouts};
use crate::train::{checkpoint, weights};

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

/// What the caller says of a file's model.
fn hints(options: &mut OptionMap) -> ScriptResult<Hints> {
    Ok(Hints {
        num_heads: options.get("num_heads")?,
        decoder_num_heads: options.get("decoder_num_heads")?,
        mask_ratio: options.get("mask_ratio")?,
        norm_pix: options.get("norm_pix")?,
        head: options.or("head", false)?,
        ..Hints::default()
    })
}

fn open_readable(ctx: &NativeCallContext, path: &str, hints: Hints) -> ScriptResult<Opened> {
    let fail = |err: Failure| script_error(ctx, err);
    open(&find_readable(ctx, path)?, None, hints).map_err(fail)
}

/// The file with the weights; a link in the folder may not lead out of what the script may read.
fn find_readable(ctx: &NativeCallContext, path: &str) -> ScriptResult<PathBuf> {
    let session = Session::of(ctx);
    let fail = |err: Failure| script_error(ctx, err);
    let path = session.readable(path).map_err(fail)?;
    let file = weights::find(&path, None).map_err(|err| fail(err.into()))?;
    session.readable(&file.to_string_lossy()).map_err(fail)
}

fn load_model(ctx: &NativeCallContext, path: &str, options: Map) -> ScriptResult<ModelHandle> {
    let mut options = OptionMap::new(ctx, "models::load", options);
    let hints = hints(&mut options)?;
    let image_size = options.get("image_size")?.map(|ImageSize(height, width)| (height, width));
    let channels: Option<i64> = options.get("channels")?;
    let encoder_alone = options.or("encoder", false)?;
    options.finish()?;
    let mut opened = open_readable(ctx, path, Hints { image_size, ..hints })?;
    let fail = |err: Failure| script_error(ctx, err);
    let complete = opened.imported.complete();
    opened.of_file(complete).map_err(fail)?;
    if encoder_alone {
        opened.drop_decoder();
    }
    let encoder = opened.imported.architecture.encoder();
    if channels.is_some_and(|channels| channels != encoder.channels) {
        if matches!(opened.imported.architecture, Architecture::Mae(_)) {
            let problem = format!("{}: its decoder predicts pixels of {} channels", opened.what(), encoder.channels);
            let hint = "only an encoder can be adapted: models::load(path, #{ encoder: true, channels: … }), or model.init(path, #{ channels: … })";
            return Err(fail(Failure::script(problem).with_hint(hint)));
        }
        opened.fold().map_err(fail)?; // The patch embedding's R belongs to the old channels.
    }
    let done = opened.adapt(image_size, channels).map_err(fail)?;
    let architecture = &opened.imported.architecture;
    let widest = match architecture {
        Architecture::Mae(config) => config.decoder_embed_dim,
        _ => architecture.encoder().embed_dim,
    };
    check_size(ctx, architecture.encoder(), widest)?;
    let session = Session::of(ctx);
    let built = architecture.build(session.seed(), Kind::Float, session.options.device);
    let (built, registry) = opened.of_file(built).map_err(fail)?;
    opened.of_file(registry.load_state(&opened.imported.state)).map_err(fail)?;
    registry.set_trained_on(opened.trained_on.clone());
    tell(&opened, &done);
    let network = match built {
        Built::Vit(vit) => Network::Vit(vit),
        Built::Mae(mae) => Network::Mae(mae),
        Built::Upernet(upernet) => Network::Upernet(upernet, None),
        Built::Classifier(classifier) => Network::Classifier(classifier, 0.0),
    };
    Ok(ModelHandle::new(network, registry))
}

/// Says what was guessed, left out and changed.
fn tell(opened: &Opened, done: &[String]) {
    let mut lines = opened.imported.notes.clone();
    if !opened.imported.left_out.is_empty() {
        lines.push(format!("left out: {}", opened.imported.left_out.join(", ")));
    }
    lines.extend(done.iter().cloned());
    lines.iter().for_each(|line| say(&format!("{}: {line}", opened.what())));
}

fn init_model(ctx: &NativeCallContext, model: &ModelHandle, path: &str, options: Map) -> ScriptResult<Map> {
    let mut options = OptionMap::new(ctx, "init", options);
    let channels: Option<i64> = options.get("channels")?;
    options.finish()?;
    let fail = |err: Failure| script_error(ctx, err);
    let registry = model.registry();
    let Some(own) = registry.architecture() else {
        return Err(fail("init: only a whole model can start from a file; a layer takes load(path)".into()));
    };
    if let Some(channels) = channels.filter(|channels| *channels != own.encoder().channels) {
        let problem = format!("channels: expected the model's own, {}, got {channels}", own.encoder().channels);
        return Err(fail(problem.into()));
    }
    let encoder = own.encoder();
    let hints = Hints { image_size: Some(encoder.image_size), num_heads: Some(encoder.num_heads), ..Hints::default() };
    let mut opened = open_readable(ctx, path, hints)?;
    opened.fold().map_err(fail)?;
    let done = opened.adapt(None, channels).map_err(fail)?;
    opened.check_fits(&own).map_err(fail)?;
    let done = [done, resized(&mut opened, &own).map_err(fail)?].concat();
    let taken = opened.of_file(layouts::init(registry, &opened.imported)).map_err(fail)?;
    let texts = |texts: &[String]| Dynamic::from_array(texts.iter().map(|text| text.clone().into()).collect());
    let mut line = format!("{} tensors: {}", taken.tensors, taken.taken.join(", "));
    if !taken.kept.is_empty() {
        line.push_str(&format!("; kept: {}", taken.kept.join(", ")));
    }
    for text in &done {
        line.push_str(&format!("; {text}"));
    }
    say(&format!("{}: {line}", opened.what()));
    Ok(Map::from([
        ("tensors".into(), Dynamic::from(taken.tensors as INT)),
        ("taken".into(), texts(&taken.taken)),
        ("kept".into(), texts(&taken.kept)),
        ("left_out".into(), texts(&opened.imported.left_out)),
        ("adapted".into(), texts(&done)),
    ]))
}

/// Interpolates positions, unless patches have another size: then a shape says so.
fn resized(opened: &mut Opened, own: &Architecture) -> Result<Vec<String>, Failure> {
    let (theirs, ours) = (opened.imported.architecture.encoder(), own.encoder());
    if theirs.patch_size != ours.patch_size || theirs.embed_dim != ours.embed_dim {
        return Ok(Vec::new());
    }
    opened.adapt(Some(ours.image_size), None)
}

#[export_module]
pub mod functions {
    /// A model out of a file: a run directory (its checkpoint `best`, else `last`), a checkpoint's folder, or safetensors of a
    /// checkpoint, of timm's vision transformers, of the MAE release, or of Hugging Face's ViTMAE and UperNet. An R is folded into
    /// its weight.
    ///
    /// Errors: a tensor that is missing, unexpected, or of another shape; both shapes are named.
    #[rhai_fn(return_raw)]
    pub fn load(ctx: NativeCallContext, path: ImmutableString) -> ScriptResult<ModelHandle> {
        load_model(&ctx, &path, Map::new())
    }

    /// The same.
    ///
    /// Options:
    /// - `num_heads`, `decoder_num_heads` (int): where the file does not say them
    /// - `mask_ratio` (number, 0.75): where the file does not say it
    /// - `norm_pix` (bool, false): where the file does not say it
    /// - `image_size` (int or [int, int]): positions are interpolated
    /// - `channels` (int): the patch embedding is adapted
    /// - `head` (bool, false): a classifier with its head, not the vision transformer alone
    /// - `encoder` (bool, false): of a masked autoencoder the encoder alone
    ///
    /// ```rhai
    /// let images = data::open(#{ name: "wirebond", size: 32, count: 8 });
    /// let loader = data::loader(images, #{ batch: 4, image_size: 32 });
    /// let small = #{ image_size: 32, patch_size: 8, channels: 2, embed_dim: 16, depth: 1, num_heads: 2 };
    /// let trained = models::mae(small + #{ decoder_embed_dim: 16, decoder_depth: 1, decoder_num_heads: 2 });
    /// let run = run::start(#{ model: trained, opt: optim::adamw(trained, #{}), loader: loader });
    /// for step in run.steps(1) { run.log(#{ note: "nothing learned" }); }
    /// let model = models::load(run.dir, #{ encoder: true, image_size: 64 });
    /// assert(model.image_size == 64 && !model.layers().contains("decoder_embed"));
    /// ```
    #[rhai_fn(name = "load", return_raw)]
    pub fn load_with(ctx: NativeCallContext, path: ImmutableString, options: Map) -> ScriptResult<ModelHandle> {
        load_model(&ctx, &path, options)
    }
}

#[export_module]
mod methods {
    /// Takes over the weights of a run directory, a checkpoint or a safetensors file of the same model, in any layout of
    /// `models::load`; positions for images of another size are interpolated. A layer that is decorrelated here takes its
    /// R, or R = I if the file has none; another takes `W R` for its weight.
    ///
    /// Errors: a file that is not whole, or a tensor that is missing, unexpected, or of another shape.
    ///
    /// ```rhai
    /// let run = run::start(#{ model: model, opt: optim::adamw(model, #{}), loader: loader });
    /// for step in run.steps(1) { run.log(#{ note: "nothing learned" }); }
    /// model.load(run.dir);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn load(ctx: NativeCallContext, model: &mut ModelHandle, path: ImmutableString) -> ScriptResult<()> {
        let fail = |err: Failure| script_error(&ctx, err);
        let registry = model.registry();
        let Some(own) = registry.architecture() else {
            // A layer on its own: its names are nobody else's.
            let path = find_readable(&ctx, &path)?;
            let state = checkpoint::read_tensors(&path).map_err(|err| fail(err.into()))?;
            let loaded = registry.load_state(&state);
            return loaded.map_err(|err| fail(format!("{}: {err}", path.display()).into()));
        };
        let encoder = own.encoder();
        let hints =
            Hints { image_size: Some(encoder.image_size), num_heads: Some(encoder.num_heads), ..Hints::default() };
        let mut opened = open_readable(&ctx, &path, hints)?;
        opened.check_fits(&own).map_err(fail)?;
        resized(&mut opened, &own).map_err(fail)?;
        let theirs = &opened.imported.architecture;
        let loaded = registry.load_state(&opened.imported.state);
        if loaded.is_err() && theirs.kind() != own.kind() {
            let problem = format!("{}: weights of a {}, the model is a {}", opened.what(), theirs.kind(), own.kind());
            return Err(fail(Failure::script(problem).with_hint("init(path) takes what fits and keeps the rest")));
        }
        opened.of_file(loaded).map_err(fail)
    }

    /// Starts from the weights of another model, in any layout of `models::load`: takes the encoder, which must fit, and every
    /// other part that fits as a whole, and keeps the rest. Positions for images of another size are interpolated;
    /// decorrelated layers begin with R = I. Answers with `taken`, `kept`, `left_out`, `adapted`, and the number of `tensors`.
    #[rhai_fn(return_raw, pure)]
    pub fn init(ctx: NativeCallContext, model: &mut ModelHandle, path: ImmutableString) -> ScriptResult<Map> {
        init_model(&ctx, model, &path, Map::new())
    }

    /// The same.
    ///
    /// Options:
    /// - `channels` (int): the model's own number of them; allows weights for another number, whose patch embedding is adapted
    ///
    /// ```rhai
    /// let run = run::start(#{ model: model, opt: optim::adamw(model, #{}), loader: loader });
    /// for step in run.steps(1) { run.log(#{ note: "nothing learned" }); }
    /// let gray = models::vit(#{ image_size: 64, patch_size: 8, channels: 1, embed_dim: 16, depth: 1, num_heads: 2 });
    /// let done = gray.init(run.dir, #{ channels: 1 });
    /// assert(done.adapted.len() == 2 && done.tensors > 0);
    /// ```
    #[rhai_fn(name = "init", return_raw, pure)]
    pub fn init_with(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        path: ImmutableString,
        options: Map,
    ) -> ScriptResult<Map> {
        init_model(&ctx, model, &path, options)
    }
}
