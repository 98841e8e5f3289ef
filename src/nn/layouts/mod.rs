//! The layouts in which others keep the same weights: names and tensors are mapped to ours and back. Opens no file.
//!
//! Ours are timm's names for the encoder (under `encoder.` where a model has more), and those of the MAE release for its
//! decoder. Every layout is a file with two functions: `ours` says where one of their tensors goes, `theirs` what one of ours
//! is called there. Only plain tensors go out: R is folded into W before.
//!
//! Departure: LayerNorms here have eps 1e-6, as MAE and timm have; Hugging Face's published `config.json` say 1e-12.

mod adapt;
mod hf;
mod hf_mae;
mod hf_upernet;
mod infer;
mod init;
mod release;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value;
use tch::{Kind, Tensor};

use super::architecture::Architecture;
use super::{NnError, NnResult};
pub use adapt::{adapt_channels, resize};
pub use infer::Hints;
pub use init::{Taken, init, plain};

type State = Vec<(String, Tensor)>;

/// How a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A checkpoint of ours of a model with more than an encoder.
    Own,
    /// timm's `VisionTransformer`; also our own vision transformer.
    Timm,
    /// The official MAE release.
    Mae,
    /// Hugging Face's `ViTMAEForPreTraining` and `ViTMAEModel`.
    HfMae,
    /// Hugging Face's `UperNetForSemanticSegmentation` on a BEiT backbone.
    HfUpernet,
}

/// What a model can be exported as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Timm,
    Mae,
    Hf,
}

/// Where one of their tensors goes: it is one of ours, or a third (q, k, v) of one.
enum Place {
    Whole(String),
    Third(String, usize),
}

/// A file's weights in our names.
pub struct Imported {
    pub architecture: Architecture,
    pub state: State,
    /// Their tensors that were not asked for: heads.
    pub left_out: Vec<String>,
    /// What was guessed, for the person to hear.
    pub notes: Vec<String>,
    /// Their names of what the model has and the file does not.
    missing: Vec<String>,
}

impl Imported {
    /// Errors: [`NnError::Missing`] unless the file has the whole model.
    pub fn complete(&self) -> NnResult<()> {
        let norm_after_pooling = self.left_out.iter().any(|name| name.starts_with("fc_norm."));
        match self.missing.first() {
            Some(name) if norm_after_pooling && name == "norm.weight" => Err(NnError::Config(format!(
                "{name}: not in the checkpoint, which norms after pooling (fc_norm); head: true loads it as a classifier, and \
                 `init` takes the rest of it"
            ))),
            Some(name) => Err(NnError::Missing { name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// A model in somebody's names.
pub struct Exported {
    pub state: State,
    /// Of what is in `state`.
    pub architecture: Architecture,
    /// Hugging Face's `config.json`.
    pub config: Option<Value>,
}

impl Layout {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "dbp-host",
            Self::Timm => "timm's VisionTransformer",
            Self::Mae => "the MAE release",
            Self::HfMae => "Hugging Face's ViTMAE",
            Self::HfUpernet => "Hugging Face's UperNet",
        }
    }

    /// The layout of a file with these names; `None` if it is none of them.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: Vec<&str> = names.into_iter().collect();
        let any = |prefixes: &[&str]| prefixes.iter().any(|prefix| names.iter().any(|name| name.starts_with(prefix)));
        if any(&["encoder.patch_embed."]) {
            return Some(Self::Own);
        }
        if any(&["backbone."]) && any(&["decode_head."]) {
            return Some(Self::HfUpernet);
        }
        if any(&["vit.embeddings.", "embeddings.patch_embeddings."]) {
            return Some(Self::HfMae);
        }
        match any(&["patch_embed.proj."]) && any(&["blocks.0."]) {
            true if any(&["decoder_embed.", "decoder_blocks."]) => Some(Self::Mae),
            true => Some(Self::Timm),
            false => None,
        }
    }

    /// Where their tensor goes, in names with `encoder.`; `None` for one that we have no place for.
    fn ours(self, theirs: &str) -> Option<Place> {
        match self {
            Self::Own => Some(Place::Whole(theirs.to_owned())),
            Self::Timm | Self::Mae => release::ours(theirs),
            Self::HfMae => hf_mae::ours(theirs),
            Self::HfUpernet => hf_upernet::ours(theirs),
        }
    }

    /// What our tensor, in names with `encoder.`, is called there: one name, or three for q, k, v.
    fn theirs(self, ours: &str) -> Option<Vec<String>> {
        match self {
            Self::Own => Some(vec![ours.to_owned()]),
            Self::Timm => release::theirs(ours).filter(|_| ours.starts_with(ENCODER) || release::is_head(ours)),
            Self::Mae => release::theirs(ours),
            Self::HfMae => hf_mae::theirs(ours),
            Self::HfUpernet => hf_upernet::theirs(ours),
        }
    }
}

const ENCODER: &str = "encoder.";

/// Our name with `encoder.`, which a vision transformer alone goes without.
fn full(architecture: &Architecture, name: &str) -> String {
    if architecture.prefix().is_empty() { format!("{ENCODER}{name}") } else { name.to_owned() }
}

/// R in one of its forms, which only checkpoints of ours have.
fn weight_of_r(name: &str) -> Option<String> {
    let (layer, last) = name.rsplit_once('.')?;
    ["decorrelation", "decorrelation_u", "decorrelation_v"].contains(&last).then(|| format!("{layer}.weight"))
}

/// A file's tensors as ours, in float32, with the architecture that they, the file's own word, and `hints` say.
///
/// Errors: the first tensor that is of another shape than the rest makes it, or that no model of ours has; both name it as
/// the file does. What is missing is an error of [`Imported::complete`] only.
pub fn import(layout: Layout, state: &[(String, Tensor)], hints: &Hints) -> NnResult<Imported> {
    let said_classifier = matches!(hints.architecture, Some(Architecture::Classifier(_)));
    let with_head = layout == Layout::Own || hints.head || said_classifier;
    let (mut places, mut left_out) = (Vec::new(), Vec::new());
    for (theirs, tensor) in state {
        match layout.ours(theirs) {
            _ if theirs.ends_with(".num_batches_tracked") => {}
            _ if !with_head && release::is_head(theirs) => left_out.push(theirs.clone()),
            Some(place) => places.push((theirs, place, tensor)),
            None => return Err(NnError::Unexpected { name: theirs.clone() }),
        }
    }
    let whole: HashMap<&str, Vec<i64>> = places
        .iter()
        .filter_map(|(_, place, tensor)| match place {
            Place::Whole(name) => Some((name.as_str(), tensor.size())),
            Place::Third(..) => None,
        })
        .collect();
    let (architecture, notes) = infer::architecture(layout, &whole, hints)?;
    let expected: Vec<(String, Vec<i64>)> =
        architecture.tensors().into_iter().map(|(name, shape)| (full(&architecture, &name), shape)).collect();
    let shapes: HashMap<&str, &Vec<i64>> = expected.iter().map(|(name, shape)| (name.as_str(), shape)).collect();

    let mut thirds: HashMap<String, [Option<Tensor>; 3]> = HashMap::new();
    let mut found: HashMap<String, Tensor> = HashMap::new();
    for (theirs, place, tensor) in places {
        let (name, parts) = match &place {
            Place::Whole(name) => (name, 1),
            Place::Third(name, _) => (name, 3),
        };
        let Some(shape) = shapes.get(name.as_str()) else {
            if weight_of_r(name).is_some_and(|weight| shapes.contains_key(weight.as_str())) {
                found.insert(name.clone(), tensor.f_to_kind(Kind::Float)?);
                continue;
            }
            return Err(NnError::Unexpected { name: theirs.clone() });
        };
        let mut shape = shape.to_vec();
        shape[0] /= parts;
        if tensor.size() != shape {
            return Err(NnError::Shape { name: theirs.clone(), expected: shape, found: tensor.size() });
        }
        let tensor = tensor.f_to_kind(Kind::Float)?;
        match place {
            Place::Whole(name) => drop(found.insert(name, tensor)),
            Place::Third(name, which) => thirds.entry(name).or_default()[which] = Some(tensor),
        }
    }
    for (name, shape) in &expected {
        if let Some(tensor) = joined(name, shape, &mut thirds)? {
            found.insert(name.clone(), tensor);
        }
    }
    let mut missing = Vec::new();
    for (name, _) in expected.iter().filter(|(name, _)| !found.contains_key(name)) {
        missing.extend(layout.theirs(name).map(|names| names.join(", ")));
    }
    // Names come back in the model's order, R behind them.
    let strip = |name: &str| match architecture.prefix() {
        "" => name.strip_prefix(ENCODER).unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    };
    let mut state: State = expected.iter().filter_map(|(name, _)| Some((strip(name), found.remove(name)?))).collect();
    let mut rest: Vec<_> = found.into_iter().map(|(name, tensor)| (strip(&name), tensor)).collect();
    rest.sort_by(|a, b| a.0.cmp(&b.0));
    state.extend(rest);
    Ok(Imported { architecture, state, left_out, notes, missing })
}

/// q, k, v as one; a bias that is not there is zero: BEiT has none for keys, whose scores it would shift all alike. `None`
/// where parts are missing.
fn joined(name: &str, shape: &[i64], thirds: &mut HashMap<String, [Option<Tensor>; 3]>) -> NnResult<Option<Tensor>> {
    let weight = name.strip_suffix(".bias").map(|layer| format!("{layer}.weight"));
    let parts: Vec<Option<Tensor>> = match (thirds.get(name), weight) {
        (Some(parts), _) => parts.iter().map(|part| part.as_ref().map(Tensor::shallow_clone)).collect(),
        (None, Some(weight)) if thirds.contains_key(&weight) => vec![None, None, None],
        _ => return Ok(None),
    };
    let is_bias = name.ends_with(".bias");
    let without_key = parts[1].is_none() && parts[0].is_some() == parts[2].is_some();
    let whole = parts.iter().all(Option::is_some);
    if !whole && (!is_bias || !without_key) {
        return Ok(None);
    }
    let mut size = shape.to_vec();
    size[0] /= 3;
    let zeros = Tensor::f_zeros(size.as_slice(), (Kind::Float, tch::Device::Cpu))?;
    let parts: Vec<Tensor> = parts.into_iter().map(|part| part.unwrap_or_else(|| zeros.shallow_clone())).collect();
    Ok(Some(Tensor::f_cat(&parts, 0)?))
}

/// A model's plain tensors in the names of `format`.
///
/// Errors: [`NnError::Config`] for a format that does not know such a model, naming those that do; an R that was not folded;
/// a tensor that is missing.
pub fn export(format: Format, architecture: &Architecture, state: &[(String, Tensor)]) -> NnResult<Exported> {
    let refuse = |why: &str| Err(NnError::Config(format!("a {}: {why}", architecture.kind())));
    let layout = match (format, architecture) {
        (Format::Timm, _) => Layout::Timm,
        (Format::Mae, Architecture::Mae(_)) => Layout::Mae,
        (Format::Hf, Architecture::Mae(_)) => Layout::HfMae,
        (Format::Hf, Architecture::Upernet(_)) => Layout::HfUpernet,
        (Format::Mae | Format::Hf, Architecture::Vit(_)) => return refuse("can be exported as timm only"),
        (Format::Mae, Architecture::Upernet(_)) => return refuse("can be exported as hf, and its encoder as timm"),
        (Format::Mae | Format::Hf, Architecture::Classifier(_)) => return refuse("can be exported as timm only"),
    };
    let (height, width) = architecture.encoder().image_size;
    if format == Format::Hf && height != width {
        return refuse(&format!(
            "hf takes square images only, this one takes {height} x {width}; timm takes its encoder"
        ));
    }
    if let Some((name, _)) = state.iter().find(|(name, _)| weight_of_r(name).is_some()) {
        return Err(NnError::Config(format!("{name}: fold R into its weight before the export (fuse)")));
    }
    let find = |ours: &str| state.iter().find(|(name, _)| name == ours).map(|(_, tensor)| tensor);
    let mut out = Vec::new();
    for (ours, shape) in architecture.tensors() {
        let Some(names) = layout.theirs(&full(architecture, &ours)) else { continue };
        let tensor = find(&ours).ok_or_else(|| NnError::Missing { name: ours.clone() })?;
        if tensor.size() != shape {
            return Err(NnError::Shape { name: ours, expected: shape, found: tensor.size() });
        }
        let tensor = tensor.f_detach()?.f_to_kind(Kind::Float)?;
        match &names[..] {
            [name] => out.push((name.clone(), tensor)),
            names => {
                let parts = tensor.f_chunk(names.len() as i64, 0)?;
                out.extend(names.iter().cloned().zip(parts).filter(|(name, _)| !name.is_empty()));
            }
        }
    }
    let (exported, config) = match (layout, architecture) {
        (Layout::HfMae, Architecture::Mae(config)) => (architecture.clone(), Some(hf_mae::config(config))),
        (Layout::HfUpernet, Architecture::Upernet(config)) => {
            hf_upernet::add_counters(&mut out)?;
            (architecture.clone(), Some(hf_upernet::config(config)))
        }
        (Layout::Timm, Architecture::Classifier(_)) => (architecture.clone(), None),
        (Layout::Timm, _) => (Architecture::Vit(architecture.encoder().clone()), None),
        _ => (architecture.clone(), None),
    };
    Ok(Exported { state: out, architecture: exported, config })
}
