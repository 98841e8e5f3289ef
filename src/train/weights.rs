//! Weights of a model wherever they lie: in a run directory, a checkpoint, an export, or a safetensors file of somebody
//! else's. Only reads what is there: the run may still be going on.
//!
//! Our own files say what model they hold: JSON of an [`Architecture`] under `dbp_host` in the safetensors metadata, with a
//! [`TrainedOn`] as its `trained_on`. Hugging Face says it in a `config.json` beside the file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::{Metadata, State, read_described};
use super::error::At;
use super::{TrainError, TrainResult};
use crate::nn::{Architecture, TrainedOn};

const KEY: &str = "dbp_host";
const TRAINED_ON: &str = "trained_on";
const MODEL: &str = "model.safetensors";

/// Tensors with what is known of their model.
pub struct Weights {
    pub path: PathBuf,
    pub state: State,
    pub architecture: Option<Architecture>,
    pub trained_on: Option<TrainedOn>,
    /// Hugging Face's `config.json` beside the file.
    pub config: Option<Value>,
}

/// Metadata that says what model a file holds. One key alone: the order of several would differ from file to file.
pub fn metadata(architecture: &Architecture, trained_on: Option<&TrainedOn>) -> Metadata {
    let mut said = serde_json::to_value(architecture).unwrap_or_default();
    if let (Some(trained_on), Some(said)) = (trained_on, said.as_object_mut()) {
        said.insert(TRAINED_ON.to_owned(), serde_json::to_value(trained_on).unwrap_or_default());
    }
    Metadata::from([(KEY.to_owned(), said.to_string())])
}

/// The same for a file that others are to read: Hugging Face's loader insists on a `format`.
pub fn metadata_of_export(architecture: &Architecture, trained_on: Option<&TrainedOn>) -> Metadata {
    let mut metadata = metadata(architecture, trained_on);
    metadata.insert("format".to_owned(), "pt".to_owned());
    metadata
}

/// Which file holds the weights: of a run directory its checkpoint `best`, else `last` (or the one that is named), of any
/// other folder its `model.safetensors`.
///
/// Errors: [`TrainError::Broken`] for a folder without weights, or with several runs.
pub fn find(path: &Path, checkpoint: Option<&str>) -> TrainResult<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return Err(TrainError::broken(path, "no such file or folder"));
    }
    let checkpoints = path.join("checkpoints");
    if checkpoints.is_dir() {
        let names = checkpoint.map_or(vec!["best", "last"], |name| vec![name]);
        // `….old` is the one before, for the moment in which a run that goes on puts a new one in its place.
        let places = names.iter().flat_map(|name| [name.to_string(), format!("{name}.old")]);
        let found = places.map(|name| checkpoints.join(name).join(MODEL)).find(|file| file.is_file());
        return found
            .ok_or_else(|| TrainError::broken(path, format!("the run has no checkpoint {}", names.join(" and no "))));
    }
    if path.join("index.json").is_file() {
        let runs: Value = fs::read(path.join("index.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let names: Vec<_> =
            runs["runs"].as_array().into_iter().flatten().filter_map(|run| run["dir"].as_str()).collect();
        return Err(TrainError::broken(path, format!("holds several runs; name one of {}", names.join(", "))));
    }
    let file = path.join(MODEL);
    if file.is_file() {
        return Ok(file);
    }
    Err(TrainError::broken(path, format!("neither a run directory nor a folder with {MODEL}")))
}

/// Reads a file that [`find`] found.
///
/// Errors: [`TrainError::Broken`] for what is not whole, or what PyTorch pickled.
pub fn read(path: &Path) -> TrainResult<Weights> {
    if is_pickle(path)? {
        let advice = "python -c \"import sys, torch; from safetensors.torch import save_file; s = torch.load(sys.argv[1], \
                      weights_only=True); save_file({k: v.contiguous() for k, v in s.get('model', s).items()}, sys.argv[2])\"";
        let name = path.with_extension("safetensors");
        let (from, to) = (path.display(), name.display());
        return Err(TrainError::broken(
            path,
            format!("a file of torch.save; only safetensors are read. Convert it: {advice} {from} {to}"),
        ));
    }
    let (state, metadata) = read_described(path)?;
    let (architecture, trained_on) = match metadata.get(KEY) {
        None => (None, None),
        Some(text) => said(text).map_err(|err| {
            TrainError::broken(path, format!("what it says of its model is not understood ({err}): {text}"))
        })?,
    };
    let beside = path.with_file_name("config.json");
    let config = match fs::read(&beside) {
        // A stranger's config.json may be anything: only Hugging Face's names a `model_type`.
        Ok(text) => serde_json::from_slice::<Value>(&text).ok().filter(|config| config["model_type"].is_string()),
        Err(_) => None,
    };
    Ok(Weights { path: path.to_owned(), state, architecture, trained_on, config })
}

fn said(text: &str) -> serde_json::Result<(Option<Architecture>, Option<TrainedOn>)> {
    let mut said: Value = serde_json::from_str(text)?;
    let trained_on = said.as_object_mut().and_then(|said| said.remove(TRAINED_ON));
    Ok((Some(serde_json::from_value(said)?), trained_on.map(serde_json::from_value).transpose()?))
}

/// Whether a file is a zip or a pickle, the forms of `torch.save`.
fn is_pickle(path: &Path) -> TrainResult<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(path).at(path)?.take(4).read_to_end(&mut head).at(path)?;
    Ok(head.starts_with(b"PK\x03\x04") || head.starts_with(b"\x80\x02"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::checkpoint::write_described;

    #[test]
    fn a_run_directory_means_its_best_checkpoint_else_its_last() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let place = folder.path().join("checkpoints").join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(MODEL), b"").unwrap();
        };
        let found = |name| find(folder.path(), name).map(|path| path.parent().unwrap().file_name().unwrap().to_owned());
        assert!(found(None).is_err());
        make("last.old");
        assert_eq!(found(None).unwrap(), "last.old");
        make("last");
        assert_eq!(found(None).unwrap(), "last");
        make("best");
        assert_eq!(found(None).unwrap(), "best");
        assert_eq!(found(Some("last")).unwrap(), "last");
        assert!(found(Some("other")).unwrap_err().to_string().contains("no checkpoint other"));
    }

    #[test]
    fn a_file_says_what_model_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MODEL);
        let text = r#"{"model": "vit", "image_size": [16, 24], "patch_size": 8, "channels": 2, "embed_dim": 16,
            "depth": 2, "num_heads": 2}"#;
        let architecture: Architecture = serde_json::from_str(text).unwrap();
        let state = vec![("w".to_owned(), tch::Tensor::from_slice(&[1.0f32]))];
        let trained_on =
            TrainedOn { mean: vec![0.5], std: vec![0.25], classes: vec!["wire".to_owned()], colors: vec![[1, 2, 3]] };
        for trained_on in [None, Some(trained_on)] {
            write_described(&path, &state, Some(metadata(&architecture, trained_on.as_ref()))).unwrap();
            let read = read(&path).unwrap();
            assert_eq!((read.architecture.as_ref(), &read.trained_on), (Some(&architecture), &trained_on));
        }
        assert!(read(&path).unwrap().config.is_none());
        fs::write(path.with_file_name("config.json"), r#"{"model_type": "vit_mae"}"#).unwrap();
        assert_eq!(read(&path).unwrap().config.unwrap()["model_type"], "vit_mae");
        fs::write(&path, b"PK\x03\x04....").unwrap();
        assert!(read(&path).err().unwrap().to_string().contains("torch.save"));
    }
}
