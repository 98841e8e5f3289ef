//! Starting a model from the weights of another: the encoder must fit, every other part is taken if it fits as a whole.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, Tensor};

use super::{ENCODER, Imported, State, full, weight_of_r};
use crate::nn::architecture::Architecture;
use crate::nn::registry::Registry;
use crate::nn::{NnError, NnResult};

/// What a model took from a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Parts that came from the file: `encoder`, `decoder`, `neck`, ….
    pub taken: Vec<String>,
    /// Parts, or tensors of the encoder, that stayed as they were.
    pub kept: Vec<String>,
    /// Tensors that came from the file.
    pub tensors: usize,
}

/// The tensors with every R folded into its weight.
///
/// Errors: an R among incomplete tensors; those of [`Registry::load_state`].
pub fn plain(architecture: &Architecture, state: &State) -> NnResult<State> {
    if !state.iter().any(|(name, _)| weight_of_r(name).is_some()) {
        return Ok(state.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect());
    }
    let (_model, registry) = architecture.build(0, Kind::Float, Device::Cpu)?;
    registry.load_state(state)?;
    Ok(registry.state())
}

/// Starts a model from weights of the same size for the same images; see [`super::resize`] for others. A decorrelated layer
/// that takes a weight begins with R = I.
///
/// Errors: a tensor of the encoder that has another shape, or that only one of the two has (a final norm may be missing); then
/// nothing has changed.
pub fn init(registry: &Registry, imported: &Imported) -> NnResult<Taken> {
    let Some(own) = registry.architecture() else {
        return Err(NnError::Config("init: only a whole model can start from a file; a layer takes load(path)".into()));
    };
    let from = &imported.architecture;
    let theirs: HashMap<String, &Tensor> =
        imported.state.iter().map(|(name, tensor)| (full(from, name), tensor)).collect();
    let names: Vec<(String, Vec<i64>)> =
        own.tensors().into_iter().map(|(name, shape)| (full(&own, &name), shape)).collect();

    for (name, tensor) in theirs.iter().filter(|(name, _)| name.starts_with(ENCODER)) {
        match names.iter().find(|(other, _)| other == name) {
            None if name.starts_with("encoder.norm.") => {}
            None => return Err(NnError::Unexpected { name: name.clone() }),
            Some((_, shape)) if tensor.size() != *shape => {
                return Err(NnError::Shape { name: name.clone(), expected: shape.clone(), found: tensor.size() });
            }
            Some(_) => {}
        }
    }
    // Part → whether the file has all of it.
    let mut parts: BTreeMap<String, bool> = BTreeMap::new();
    for (name, shape) in names.iter().filter(|(name, _)| !name.starts_with(ENCODER)) {
        let fits = theirs.get(name).is_some_and(|tensor| tensor.size() == *shape);
        *parts.entry(part(name)).or_insert(true) &= fits;
    }
    // A decoder with more blocks than this one is another decoder.
    for name in theirs.keys().filter(|name| !name.starts_with(ENCODER)) {
        if !names.iter().any(|(other, _)| other == name) {
            parts.entry(part(name)).and_modify(|whole| *whole = false);
        }
    }

    let mut report = Taken::default();
    let mut state: State = Vec::new();
    let before: HashMap<String, Tensor> = registry.state().into_iter().collect();
    let mut taken = Vec::new();
    for (name, shape) in &names {
        let short = if own.prefix().is_empty() { name.strip_prefix(ENCODER).unwrap_or(name) } else { name };
        let is_encoder = name.starts_with(ENCODER);
        let found = theirs.get(name).filter(|_| is_encoder || parts.get(&part(name)) == Some(&true));
        match found {
            Some(tensor) => {
                debug_assert_eq!(tensor.size(), *shape);
                state.push((short.to_owned(), tensor.shallow_clone()));
                taken.push(short.to_owned());
            }
            None if is_encoder && !name.starts_with("encoder.norm.") => {
                return Err(NnError::Missing { name: name.clone() });
            }
            None => {
                if is_encoder {
                    report.kept.push(name.clone());
                }
                let own = before.get(short).ok_or_else(|| NnError::Missing { name: short.to_owned() })?;
                state.push((short.to_owned(), own.shallow_clone()));
            }
        }
    }
    for (name, tensor) in &before {
        if weight_of_r(name).is_some_and(|weight| !taken.contains(&weight)) {
            state.push((name.clone(), tensor.shallow_clone()));
        }
    }
    registry.load_state(&state)?;
    report.tensors = taken.len();
    report.taken.push("encoder".to_owned());
    for (part, whole) in parts {
        if whole { &mut report.taken } else { &mut report.kept }.push(part);
    }
    Ok(report)
}

/// The part of a model that a tensor outside the encoder belongs to.
fn part(name: &str) -> String {
    let first = name.split('.').next().unwrap_or(name);
    if first.starts_with("decoder_") || first == "mask_token" { "decoder".to_owned() } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{DecorOptions, Hints, Layout, layouts};

    fn architecture(text: &str) -> Architecture {
        serde_json::from_str(text).unwrap()
    }

    const VIT: &str =
        r#""image_size": [16, 16], "patch_size": 8, "channels": 2, "embed_dim": 16, "depth": 2, "num_heads": 2"#;

    fn mae(decoder_depth: i64) -> Architecture {
        architecture(&format!(
            r#"{{"model": "mae", "encoder": {{{VIT}}}, "decoder_embed_dim": 8, "decoder_depth": {decoder_depth},
            "decoder_num_heads": 2, "mask_ratio": 0.5, "norm_pix": false}}"#
        ))
    }

    fn imported(architecture: &Architecture, layout: Layout) -> (Imported, Vec<(String, Tensor)>) {
        let (_, registry) = architecture.build(7, Kind::Float, Device::Cpu).unwrap();
        let hints = Hints { architecture: Some(architecture.clone()), ..Hints::default() };
        (layouts::import(layout, &registry.state(), &hints).unwrap(), registry.state())
    }

    #[test]
    fn an_autoencoder_takes_an_encoder_and_keeps_its_decoder() {
        let (weights, _) = imported(&architecture(&format!(r#"{{"model": "vit", {VIT}}}"#)), Layout::Timm);
        let (_, registry) = mae(1).build(0, Kind::Float, Device::Cpu).unwrap();
        registry.decorrelate(&["encoder.**".to_owned()], &DecorOptions::default()).unwrap();
        let before: HashMap<String, Tensor> = registry.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let report = init(&registry, &weights).unwrap();
        assert_eq!((report.taken, report.kept), (vec!["encoder".to_owned()], vec!["decoder".to_owned()]));
        let find = |name: &str| weights.state.iter().find(|(other, _)| other == name).map(|(_, t)| t).unwrap();
        for (name, tensor) in registry.state() {
            if name.ends_with(".decorrelation") {
                assert_eq!(tensor, before[&name], "{name} is I");
            } else if let Some(short) = name.strip_prefix("encoder.") {
                assert_eq!(&tensor, find(short), "{name}");
            } else {
                assert_eq!(tensor, before[&name], "{name}");
            }
        }
    }

    #[test]
    fn a_decoder_is_taken_whole_or_not_at_all() {
        let (weights, _) = imported(&mae(2), Layout::Own);
        for (depth, want) in [(1, false), (2, true), (3, false)] {
            let (_, registry) = mae(depth).build(0, Kind::Float, Device::Cpu).unwrap();
            let report = init(&registry, &weights).unwrap();
            assert_eq!(report.taken.contains(&"decoder".to_owned()), want, "{depth}");
            assert_eq!(report.kept.contains(&"decoder".to_owned()), !want, "{depth}");
        }
    }

    #[test]
    fn an_encoder_of_another_size_is_refused_and_nothing_changes() {
        let vit = VIT.replace("\"depth\": 2", "\"depth\": 3");
        let (weights, _) = imported(&architecture(&format!(r#"{{"model": "vit", {vit}}}"#)), Layout::Timm);
        let (_, registry) = mae(1).build(0, Kind::Float, Device::Cpu).unwrap();
        let before: Vec<_> = registry.state().into_iter().map(|(n, t)| (n, t.copy())).collect();
        let message = init(&registry, &weights).unwrap_err().to_string();
        assert!(message.contains("encoder.blocks.2.") && message.contains("not in the model"), "{message}");
        assert_eq!(registry.state(), before);
    }
}
