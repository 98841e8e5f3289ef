//! Checkpoints: a folder of `model.safetensors`, `optimizer.safetensors` and `state.json`, replaced as a whole.
//!
//! A checkpoint is written beside its place, every file and the folder synced, and only then renamed, so that at any
//! moment of a kill either the old or the new one is whole: `last.new` counts once its `state.json`, written after the
//! others, is there; `last.old` exists only while the two change places.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};

use super::error::At;
use super::{TrainError, TrainResult};

pub type State = Vec<(String, Tensor)>;

/// Texts by key in the header of a safetensors file.
pub type Metadata = HashMap<String, String>;

/// Writes `state` as safetensors and syncs it.
///
/// Errors: [`TrainError::Diverged`], naming the tensor, if a value is not finite: such a state is never saved.
pub fn write_tensors(path: &Path, state: &[(String, Tensor)]) -> TrainResult<()> {
    write_described(path, state, None)
}

/// The same with metadata: texts by key, in the file's header.
pub fn write_described(path: &Path, state: &[(String, Tensor)], metadata: Option<Metadata>) -> TrainResult<()> {
    let mut bytes = Vec::with_capacity(state.len());
    for (name, tensor) in state {
        let cpu = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        if !cpu.f_isfinite()?.f_all()?.f_int64_value(&[])?.eq(&1) {
            return Err(TrainError::Diverged(format!("{name} is no longer finite")));
        }
        let dtype = dtype(cpu.kind()).ok_or_else(|| TrainError::broken(path, format!("{name}: {:?}", cpu.kind())))?;
        let mut data = vec![0u8; cpu.numel() * cpu.kind().elt_size_in_bytes()];
        cpu.f_copy_data_u8(&mut data, cpu.numel())?;
        let shape: Vec<usize> = cpu.size().into_iter().map(|n| n as usize).collect();
        bytes.push((name.clone(), dtype, shape, data));
    }
    let mut views = Vec::with_capacity(bytes.len());
    for (name, dtype, shape, data) in &bytes {
        let view = TensorView::new(*dtype, shape.clone(), data).map_err(|err| TrainError::broken(path, err))?;
        views.push((name.clone(), view));
    }
    let serialized = safetensors::serialize(views, metadata).map_err(|err| TrainError::broken(path, err))?;
    write_synced(path, &serialized)
}

/// Reads every tensor of a safetensors file.
///
/// Errors: [`TrainError::Broken`] for a file that is cut short or otherwise not safetensors.
pub fn read_tensors(path: &Path) -> TrainResult<State> {
    Ok(read_described(path)?.0)
}

/// The same, and the metadata of the file's header.
pub fn read_described(path: &Path) -> TrainResult<(State, Metadata)> {
    let bytes = fs::read(path).at(path)?;
    let broken = |err| {
        // The header, JSON, stands behind its length in 8 bytes.
        let problem = match bytes.get(8) {
            Some(b'{') | None => format!("not a whole safetensors file ({err}); was it cut short while being copied?"),
            Some(_) => "not a safetensors file".to_owned(),
        };
        TrainError::broken(path, problem)
    };
    let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
    let mut state = Vec::new();
    for (name, view) in file.tensors() {
        let kind = kind(view.dtype())
            .ok_or_else(|| TrainError::broken(path, format!("{name}: cannot read {:?} values", view.dtype())))?;
        let shape: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        state.push((name, Tensor::f_from_data_size(view.data(), &shape, kind)?));
    }
    Ok((state, header.metadata().clone().unwrap_or_default()))
}

fn dtype(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        _ => return None,
    })
}

fn kind(dtype: Dtype) -> Option<Kind> {
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Uint8]
        .into_iter()
        .find(|kind| self::dtype(*kind) == Some(dtype))
}

/// Writes and syncs one file.
pub fn write_synced(path: &Path, bytes: &[u8]) -> TrainResult<()> {
    let mut file = File::create(path).at(path)?;
    file.write_all(bytes).at(path)?;
    file.sync_all().at(path)
}

/// Replaces one file as a whole: written beside, synced, renamed.
pub fn replace_file(path: &Path, bytes: &[u8]) -> TrainResult<()> {
    let aside = path.with_extension("tmp");
    write_synced(&aside, bytes)?;
    fs::rename(&aside, path).at(path)
}

/// A named checkpoint (`last`, `best`) of a run.
pub struct Slot {
    place: PathBuf,
    /// Metadata of the model's file.
    metadata: Option<Metadata>,
}

impl Slot {
    pub fn new(checkpoints: &Path, name: &str) -> Self {
        Self { place: checkpoints.join(name), metadata: None }
    }

    /// The same, with this metadata in the model's file whenever it is saved.
    pub fn describing(self, metadata: Option<Metadata>) -> Self {
        Self { metadata, ..self }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.place.with_extension(extension)
    }

    /// Saves a checkpoint in this slot's place; the one before is kept until the new one is whole.
    ///
    /// Errors: [`TrainError::Diverged`] for values that are not finite (the old checkpoint stays), [`TrainError::Io`].
    pub fn save(
        &self,
        model: &[(String, Tensor)],
        optimizer: &[(String, Tensor)],
        state: &impl Serialize,
    ) -> TrainResult<()> {
        self.recover()?;
        let aside = self.beside("new");
        remove(&aside)?;
        fs::create_dir_all(&aside).at(&aside)?;
        let json = serde_json::to_vec_pretty(state).map_err(|err| TrainError::broken(&aside, err))?;
        let written = write_aside(&aside, (model, self.metadata.clone()), optimizer, &json);
        if written.is_err() {
            // On a full disk this makes room for the word of what happened.
            let _ = remove(&aside);
        }
        written?;
        self.put_in_place()
    }

    fn put_in_place(&self) -> TrainResult<()> {
        let (new, old) = (self.beside("new"), self.beside("old"));
        if self.place.exists() {
            remove(&old)?;
            fs::rename(&self.place, &old).at(&self.place)?;
        }
        fs::rename(&new, &self.place).at(&self.place)?;
        if let Some(parent) = self.place.parent() {
            sync_folder(parent)?;
        }
        remove(&old)
    }

    /// Finishes or drops what a kill interrupted.
    fn recover(&self) -> TrainResult<()> {
        let (new, old) = (self.beside("new"), self.beside("old"));
        if !self.place.exists() {
            if new.join("state.json").exists() {
                fs::rename(&new, &self.place).at(&self.place)?;
            } else if old.exists() {
                fs::rename(&old, &self.place).at(&self.place)?;
            }
        }
        if self.place.exists() {
            remove(&new)?;
            remove(&old)?;
        }
        Ok(())
    }

    /// The checkpoint's folder, if there is one.
    pub fn find(&self) -> TrainResult<Option<PathBuf>> {
        self.recover()?;
        Ok(self.place.exists().then(|| self.place.clone()))
    }

    /// Loads the checkpoint: model, optimizer, and state; `None` if there is none yet.
    pub fn load<S: DeserializeOwned>(&self) -> TrainResult<Option<(State, State, S)>> {
        let Some(place) = self.find()? else { return Ok(None) };
        for file in ["state.json", "model.safetensors", "optimizer.safetensors"].map(|name| place.join(name)) {
            if !file.exists() {
                return Err(TrainError::broken(&file, "missing from the checkpoint"));
            }
        }
        let path = place.join("state.json");
        let text = fs::read(&path).at(&path)?;
        let state = serde_json::from_slice(&text).map_err(|err| TrainError::broken(&path, err))?;
        let model = read_tensors(&place.join("model.safetensors"))?;
        let optimizer = read_tensors(&place.join("optimizer.safetensors"))?;
        Ok(Some((model, optimizer, state)))
    }
}

fn write_aside(
    aside: &Path,
    (model, metadata): (&[(String, Tensor)], Option<Metadata>),
    optimizer: &[(String, Tensor)],
    json: &[u8],
) -> TrainResult<()> {
    write_described(&aside.join("model.safetensors"), model, metadata)?;
    write_tensors(&aside.join("optimizer.safetensors"), optimizer)?;
    replace_file(&aside.join("state.json"), json)?;
    sync_folder(aside)
}

fn remove(folder: &Path) -> TrainResult<()> {
    match fs::remove_dir_all(folder) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => Err(err).at(folder),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> TrainResult<()> {
    File::open(folder).and_then(|file| file.sync_all()).at(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f32) -> State {
        vec![("w".to_owned(), Tensor::from_slice(&[value, 2.0]).view([1, 2]))]
    }

    fn saved(slot: &Slot) -> f64 {
        let (model, _, step): (_, _, u64) = slot.load().unwrap().unwrap();
        assert_eq!(model[0].1.double_value(&[0, 0]), step as f64);
        step as f64
    }

    #[test]
    fn a_kill_between_any_two_steps_of_a_save_leaves_a_whole_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let slot = Slot::new(folder.path(), "last");
        slot.save(&one(1.0), &one(1.0), &1u64).unwrap();
        // Killed while writing aside: the old one counts.
        fs::create_dir(slot.beside("new")).unwrap();
        fs::write(slot.beside("new").join("model.safetensors"), b"half").unwrap();
        assert_eq!(saved(&slot), 1.0);
        // Killed between the two renames: the new one, being whole, counts.
        let other = Slot::new(folder.path(), "other");
        other.save(&one(2.0), &one(2.0), &2u64).unwrap();
        fs::rename(folder.path().join("other"), slot.beside("new")).unwrap();
        fs::rename(&slot.place, slot.beside("old")).unwrap();
        assert_eq!(saved(&slot), 2.0);
        assert!(!slot.beside("old").exists() && !slot.beside("new").exists());
    }

    #[test]
    fn a_state_that_is_not_finite_is_refused_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let slot = Slot::new(folder.path(), "last");
        slot.save(&one(1.0), &[], &1u64).unwrap();
        assert!(matches!(slot.save(&one(f32::NAN), &[], &2u64), Err(TrainError::Diverged(_))));
        assert_eq!(saved(&slot), 1.0);
    }

    #[test]
    fn a_file_cut_in_half_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_tensors(&path, &one(1.0)).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let message = read_tensors(&path).unwrap_err().to_string();
        assert!(message.contains("model.safetensors") && message.contains("cut short"), "{message}");
    }
}
