//! Weights of a file in whatever layout, with everything said of them: behind `models::load`, `model.init` and `export`.

use std::path::Path;

use super::errors::Failure;
use crate::nn::{Architecture, Hints, Imported, Layout, NnError, NnResult, TrainedOn, layouts};
use crate::train::weights;

/// The weights of a file, in our names.
pub struct Opened {
    pub imported: Imported,
    pub trained_on: Option<TrainedOn>,
    /// Heads of the encoder, if the file or its `config.json` says them.
    said_heads: Option<i64>,
    /// The file and its layout, for messages.
    what: String,
}

/// Opens a run directory, checkpoint folder or file. `hints` say what the file does not.
///
/// # Errors
/// If there are no weights, or none of a known layout; names the first tensor that is wrong.
pub fn open(path: &Path, checkpoint: Option<&str>, hints: Hints) -> Result<Opened, Failure> {
    let path = weights::find(path, checkpoint)?;
    let read = weights::read(&path)?;
    let names = || read.state.iter().map(|(name, _)| name.as_str());
    let Some(layout) = Layout::detect(names()) else {
        let first: Vec<&str> = names().take(3).collect();
        let hint = "a vision transformer in timm's names, the MAE release, Hugging Face's ViTMAE or UperNet (BEiT), or a checkpoint \
                    of dbp-host";
        let problem =
            format!("{}: weights of no model that is known here; it begins with {}", path.display(), first.join(", "));
        return Err(Failure::script(problem).with_hint(format!("known are: {hint}")));
    };
    let what = match read.architecture {
        Some(_) => path.display().to_string(),
        None => format!("{} ({})", path.display(), layout.name()),
    };
    let of_config = || read.config.as_ref()?.get("num_attention_heads")?.as_i64();
    let said_heads = read.architecture.as_ref().map(|said| said.encoder().num_heads).or_else(of_config);
    let hints = Hints { architecture: read.architecture, config: read.config, ..hints };
    let imported = layouts::import(layout, &read.state, &hints).map_err(|err| with_file(&what, err))?;
    Ok(Opened { imported, trained_on: read.trained_on, said_heads, what })
}

impl Opened {
    /// Names the file in an error.
    pub fn of_file<T>(&self, result: NnResult<T>) -> Result<T, Failure> {
        result.map_err(|err| with_file(&self.what, err))
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    /// Makes a vision transformer of a masked autoencoder.
    pub fn drop_decoder(&mut self) {
        let Architecture::Mae(config) = &self.imported.architecture else { return };
        let encoder = Architecture::Vit(config.encoder.clone());
        let prefix = self.imported.architecture.prefix();
        let of_encoder = |(name, tensor): (String, tch::Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
        self.imported.state = std::mem::take(&mut self.imported.state).into_iter().filter_map(of_encoder).collect();
        self.imported.architecture = encoder;
    }

    /// Folds every R into its weight.
    pub fn fold(&mut self) -> Result<(), Failure> {
        let state = layouts::plain(&self.imported.architecture, &self.imported.state);
        self.imported.state = self.of_file(state)?;
        Ok(())
    }

    /// Makes the weights fit images of another size, or with other channels. Returns what was done, in words.
    pub fn adapt(&mut self, image_size: Option<(i64, i64)>, channels: Option<i64>) -> Result<Vec<String>, Failure> {
        let mut done = Vec::new();
        let Imported { architecture, state, .. } = &mut self.imported;
        let before = architecture.encoder().clone();
        if let Some(channels) = channels
            && layouts::adapt_channels(architecture, state, channels).map_err(|err| with_file(&self.what, err))?
        {
            done.push(format!("patch embedding adapted from {} channels to {channels}", before.channels));
        }
        if let Some(size) = image_size
            && layouts::resize(architecture, state, size).map_err(|err| with_file(&self.what, err))?
        {
            let (from, to) = (before.grid(), architecture.encoder().grid());
            done.push(format!("positions interpolated from {} x {} patches to {} x {}", from.0, from.1, to.0, to.1));
        }
        Ok(done)
    }

    /// Refuses weights for other channels than a model's, or for other heads, which no shape would show.
    pub fn check_fits(&self, own: &Architecture) -> Result<(), Failure> {
        let (theirs, ours) = (self.imported.architecture.encoder(), own.encoder());
        if let Some(heads) = self.said_heads.filter(|heads| *heads != ours.num_heads) {
            let problem = format!("{}: num_heads: its encoder has {heads}, the model {}", self.what, ours.num_heads);
            return Err(Failure::script(problem));
        }
        if theirs.channels == ours.channels {
            return Ok(());
        }
        let shape = |channels: i64| [ours.embed_dim, channels, theirs.patch_size, theirs.patch_size];
        let name = format!("{}patch_embed.proj.weight", own.prefix());
        let problem =
            NnError::Shape { name, expected: shape(ours.channels).to_vec(), found: shape(theirs.channels).to_vec() };
        let hint = format!(
            "these weights are for images of {} channels; init(path, #{{ channels: {} }}) adapts their patch embedding",
            theirs.channels, ours.channels
        );
        Err(with_file(&self.what, problem).with_hint(hint))
    }
}

fn with_file(what: &str, err: NnError) -> Failure {
    let failure = Failure::from(err);
    Failure { message: format!("{what}: {}", failure.message), ..failure }
}
