//! What model a file holds: what the file or its `config.json` says, what shapes show, and what is left to guess.
//!
//! Numbers of heads are in no shape. Where nobody says them, they are those of the published models: 64 wide in an encoder
//! (16 heads for the widths of ViT-Huge and beyond), 32 wide in the MAE release's decoder.

use std::collections::HashMap;

use serde_json::Value;

use super::Layout;
use crate::nn::architecture::Architecture;
use crate::nn::classifier::{ClassifierConfig, Pool};
use crate::nn::mae::MaeConfig;
use crate::nn::upernet::UpernetConfig;
use crate::nn::vit::VitConfig;
use crate::nn::{NnError, NnResult};

/// Widths of published models with 16 heads that are not 64 wide: ViT-Huge, ViT-giant, ViT-gigantic.
const SIXTEEN_HEADS: [i64; 3] = [1280, 1408, 1664];

/// What is known of a file's model beside its tensors.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// The file's own word.
    pub architecture: Option<Architecture>,
    /// Hugging Face's `config.json`.
    pub config: Option<Value>,
    pub num_heads: Option<i64>,
    pub decoder_num_heads: Option<i64>,
    pub mask_ratio: Option<f64>,
    pub norm_pix: Option<bool>,
    /// Size that the file's positions are for, where they are not square.
    pub image_size: Option<(i64, i64)>,
    /// Whether a classifier's head is wanted too; else it is left out.
    pub head: bool,
}

/// Reads shapes and `config.json`; names are ours with `encoder.`.
struct Reader<'a> {
    layout: Layout,
    shapes: &'a HashMap<&'a str, Vec<i64>>,
    hints: &'a Hints,
    notes: Vec<String>,
}

/// The architecture, and what was guessed of it.
pub(super) fn architecture(
    layout: Layout,
    shapes: &HashMap<&str, Vec<i64>>,
    hints: &Hints,
) -> NnResult<(Architecture, Vec<String>)> {
    let has = |start: &str| shapes.keys().any(|name| name.starts_with(start));
    let mut reader = Reader { layout, shapes, hints, notes: Vec::new() };
    let is_upernet = has("decode_head.");
    let is_mae = has("decoder_embed.");
    let is_classifier = has("head.");
    let said = hints.architecture.as_ref().filter(|said| match said {
        Architecture::Upernet(_) => is_upernet,
        Architecture::Mae(_) => is_mae,
        Architecture::Classifier(_) => is_classifier,
        Architecture::Vit(_) => !is_mae && !is_upernet && !is_classifier,
    });
    let mut architecture = match said {
        Some(said) => said.clone(),
        None => {
            let encoder = reader.encoder()?;
            match (is_upernet, is_mae, is_classifier) {
                (true, ..) => Architecture::Upernet(reader.upernet(encoder)?),
                (_, true, _) => Architecture::Mae(reader.mae(encoder)?),
                (.., true) => Architecture::Classifier(ClassifierConfig {
                    encoder,
                    classes: reader.shape("head.weight", 2)?[0],
                    pool: if has("fc_norm.") { Pool::Mean } else { Pool::Class },
                }),
                _ => Architecture::Vit(encoder),
            }
        }
    };
    if let Some(heads) = hints.num_heads {
        architecture.encoder_mut().num_heads = heads;
    }
    if let Architecture::Mae(config) = &mut architecture {
        config.decoder_num_heads = hints.decoder_num_heads.unwrap_or(config.decoder_num_heads);
        config.mask_ratio = hints.mask_ratio.unwrap_or(config.mask_ratio);
        config.norm_pix = hints.norm_pix.unwrap_or(config.norm_pix);
    }
    architecture.encoder().check()?;
    check_rest(&architecture)?;
    Ok((architecture, reader.notes))
}

/// Bounds beyond the encoder's, so that a list of the model's tensors can be made.
fn check_rest(architecture: &Architecture) -> NnResult<()> {
    let numbers: &[(&str, i64)] = match architecture {
        Architecture::Vit(_) => &[],
        Architecture::Mae(config) => {
            &[("decoder_depth", config.decoder_depth), ("decoder_embed_dim", config.decoder_embed_dim)]
        }
        Architecture::Upernet(config) => {
            config.check()?;
            &[]
        }
        Architecture::Classifier(config) => &[("classes", config.classes)],
    };
    match numbers.iter().find(|(_, number)| !(1..=1_000_000).contains(number)) {
        Some((name, number)) => Err(NnError::Config(format!("{name}: expected 1 to 1000000, got {number}"))),
        None => Ok(()),
    }
}

impl Reader<'_> {
    /// The shape of one of our tensors, which must have so many dimensions.
    fn shape(&self, ours: &str, dimensions: usize) -> NnResult<&[i64]> {
        let theirs = || self.layout.theirs(ours).map_or_else(|| ours.to_owned(), |names| names.join(", "));
        let shape = self.shapes.get(ours).ok_or_else(|| NnError::Missing { name: theirs() })?;
        if shape.len() != dimensions {
            let message = format!("{}: expected {dimensions} dimensions, the checkpoint has shape {shape:?}", theirs());
            return Err(NnError::Config(message));
        }
        Ok(shape)
    }

    /// An entry of the `config.json` that describes the encoder.
    fn config(&self, key: &str) -> Option<&Value> {
        let config = self.hints.config.as_ref()?;
        config.get("backbone_config").unwrap_or(config).get(key)
    }

    fn encoder(&mut self) -> NnResult<VitConfig> {
        let kernel = self.shape("encoder.patch_embed.proj.weight", 4)?;
        let &[width, channels, p, columns_of_p] = kernel else { unreachable!("it has four dimensions") };
        if p != columns_of_p {
            return Err(NnError::Config(format!(
                "patches of {p} x {columns_of_p} pixels; only square ones are known here"
            )));
        }
        let positions = self.shape("encoder.pos_embed", 3)?[1] - 1;
        let activation = self.config("hidden_act").and_then(Value::as_str).unwrap_or("gelu");
        if activation != "gelu" {
            return Err(NnError::Config(format!("config.json: hidden_act: only gelu is known here, got {activation}")));
        }
        let depth = self.depth("encoder.blocks.");
        let hidden = self.shape("encoder.blocks.0.mlp.fc1.weight", 2)?[0];
        Ok(VitConfig {
            image_size: self.image_size(positions, p)?,
            patch_size: p,
            channels,
            embed_dim: width,
            depth,
            num_heads: self.heads("num_heads", "num_attention_heads", self.hints.num_heads, width, 64)?,
            mlp_ratio: ratio(hidden, width),
            drop_path: 0.0,
        })
    }

    fn depth(&self, blocks: &str) -> i64 {
        let number = |name: &&str| name.strip_prefix(blocks)?.split('.').next()?.parse::<i64>().ok();
        self.shapes.keys().filter_map(number).max().map_or(0, |last| last.saturating_add(1))
    }

    /// The size that so many positions are for: that of `config.json`, else a square, else the size that was asked for.
    fn image_size(&self, positions: i64, p: i64) -> NnResult<(i64, i64)> {
        let said = match self.config("image_size") {
            Some(Value::Array(sides)) => {
                sides.first().and_then(Value::as_i64).zip(sides.get(1).and_then(Value::as_i64))
            }
            Some(side) => side.as_i64().map(|side| (side, side)),
            None => None,
        };
        let side = (positions.max(0) as f64).sqrt().round() as i64;
        let square = (side * side == positions).then_some((side * p, side * p));
        let fits = |(height, width): &(i64, i64)| {
            p > 0 && (1..=positions.saturating_mul(p)).contains(height) && (height / p) * (width / p) == positions
        };
        let found = said.filter(fits).or(square).or(self.hints.image_size.filter(fits));
        found.filter(|_| positions > 0).ok_or_else(|| {
            NnError::Config(format!(
                "{positions} positions are no square of patches; image_size: [height, width] of a multiple of {p} says which grid"
            ))
        })
    }

    fn heads(&mut self, name: &str, key: &str, given: Option<i64>, width: i64, usual: i64) -> NnResult<i64> {
        if let Some(heads) = given.or_else(|| self.config(key).and_then(Value::as_i64)) {
            return Ok(heads);
        }
        let (heads, why) = match width {
            _ if SIXTEEN_HEADS.contains(&width) => (16, "as published models of that width have".to_owned()),
            _ if width > 0 && width % usual == 0 => (width / usual, format!("{usual} wide each")),
            _ => {
                let message =
                    format!("{name}: not in the file, and {width} does not divide into heads of {usual}; give {name}");
                return Err(NnError::Config(message));
            }
        };
        self.notes.push(format!("{name}: {heads}, {why}; the file does not say, the option {name} does"));
        Ok(heads)
    }

    fn mae(&mut self, encoder: VitConfig) -> NnResult<MaeConfig> {
        let width = self.shape("decoder_embed.weight", 2)?[0];
        let heads =
            self.heads("decoder_num_heads", "decoder_num_attention_heads", self.hints.decoder_num_heads, width, 32)?;
        Ok(MaeConfig {
            encoder,
            decoder_embed_dim: width,
            decoder_depth: self.depth("decoder_blocks."),
            decoder_num_heads: heads,
            mask_ratio: self.config("mask_ratio").and_then(Value::as_f64).unwrap_or(0.75),
            norm_pix: self.config("norm_pix_loss").and_then(Value::as_bool).unwrap_or(false),
        })
    }

    fn upernet(&mut self, encoder: VitConfig) -> NnResult<UpernetConfig> {
        let (classes, channels) = {
            let classifier = self.shape("decode_head.classifier.weight", 4)?;
            (classifier[0], classifier[1])
        };
        let scales =
            (0..).take_while(|i| self.shapes.contains_key(&*format!("decode_head.psp_modules.{i}.1.conv.weight")));
        let scales = scales.count();
        let config = self.hints.config.as_ref();
        let pool_scales = config.and_then(|config| integers(&config["pool_scales"])).unwrap_or(vec![1, 2, 3, 6]);
        if pool_scales.len() != scales {
            let message = format!("pool_scales: the file has {scales} of them, expected those of {pool_scales:?}");
            return Err(NnError::Config(message));
        }
        let auxiliary = self.shapes.get("auxiliary_head.classifier.weight").and_then(|shape| shape.get(1)).copied();
        let weight = config.and_then(|config| config["auxiliary_loss_weight"].as_f64());
        let usual = UpernetConfig::new(encoder, classes);
        Ok(UpernetConfig {
            taps: self.taps(&usual.taps),
            channels,
            aux_channels: auxiliary.unwrap_or(usual.aux_channels),
            aux_weight: if auxiliary.is_some() { weight.unwrap_or(usual.aux_weight) } else { 0.0 },
            pool_scales,
            ..usual
        })
    }

    /// Blocks that the head sees: their stage k is what our block k - 1 puts out.
    fn taps(&mut self, usual: &[i64]) -> Vec<i64> {
        let named = |value: &Value| -> Option<Vec<i64>> {
            let stage = |name: &Value| name.as_str()?.strip_prefix("stage")?.parse::<i64>().ok();
            value.as_array()?.iter().map(stage).collect()
        };
        let stages = self.config("out_features").and_then(named).or(self.config("out_indices").and_then(integers));
        if let Some(stages) = stages {
            return stages.into_iter().map(|stage| stage - 1).collect();
        }
        self.notes.push(format!("taps: {usual:?}; the file does not say, a config.json beside it would"));
        usual.to_vec()
    }
}

fn integers(value: &Value) -> Option<Vec<i64>> {
    value.as_array()?.iter().map(Value::as_i64).collect()
}

/// The ratio that makes `hidden` out of `width`, rounding down.
fn ratio(hidden: i64, width: i64) -> f64 {
    let ratio = hidden as f64 / width.max(1) as f64;
    if (width as f64 * ratio) as i64 == hidden { ratio } else { (hidden as f64 + 0.5) / width.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hidden_width_comes_back_from_its_ratio() {
        for width in (4..2048).step_by(4) {
            for hidden in [width, 4 * width, width * 8 / 3, 4304, 3072, 1] {
                assert_eq!((width as f64 * ratio(hidden, width)) as i64, hidden, "{width} {hidden}");
            }
        }
    }
}
