//! What a model is: its kind and its sizes, as checkpoints carry them, and the tensors that follow from it. Numbers of heads,
//! mask ratio and the like cannot be seen in tensors, so a file that is to stand alone has to say them.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::NnResult;
use super::classifier::{Classifier, ClassifierConfig, Pool};
use super::mae::{Mae, MaeConfig};
use super::registry::Registry;
use super::upernet::{Upernet, UpernetConfig};
use super::vit::{Vit, VitConfig};

/// A model's kind and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "lowercase")]
pub enum Architecture {
    Vit(VitConfig),
    Mae(MaeConfig),
    Upernet(UpernetConfig),
    Classifier(ClassifierConfig),
}

/// What a model was trained on, as far as its use depends on it: a file that says it needs nothing beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn {
    /// Of the pixels in [0, 1], by channel: what images are normalized with.
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
    /// Names of the classes, in the order of their labels; empty where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// What they are drawn in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub colors: Vec<[u8; 3]>,
}

/// A model that was built from its architecture.
pub enum Built {
    Vit(Box<Vit>),
    Mae(Box<Mae>),
    Upernet(Box<Upernet>),
    Classifier(Box<Classifier>),
}

impl Architecture {
    /// What messages call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vit(_) => "vision transformer",
            Self::Mae(_) => "masked autoencoder",
            Self::Upernet(_) => "UperNet",
            Self::Classifier(_) => "classifier",
        }
    }

    pub fn encoder(&self) -> &VitConfig {
        match self {
            Self::Vit(config) => config,
            Self::Mae(config) => &config.encoder,
            Self::Upernet(config) => &config.encoder,
            Self::Classifier(config) => &config.encoder,
        }
    }

    pub fn encoder_mut(&mut self) -> &mut VitConfig {
        match self {
            Self::Vit(config) => config,
            Self::Mae(config) => &mut config.encoder,
            Self::Upernet(config) => &mut config.encoder,
            Self::Classifier(config) => &mut config.encoder,
        }
    }

    /// What the encoder's tensors begin with.
    pub fn prefix(&self) -> &'static str {
        if matches!(self, Self::Vit(_)) { "" } else { "encoder." }
    }

    /// A freshly initialized model of this architecture.
    ///
    /// Errors: sizes that cannot work.
    pub fn build(&self, seed: u64, kind: Kind, device: Device) -> NnResult<(Built, Rc<Registry>)> {
        match self {
            Self::Vit(config) => {
                let registry = Registry::new(seed, device, kind);
                let vit = Vit::new(&registry.root(), config)?;
                registry.set_architecture(self.clone());
                Ok((Built::Vit(Box::new(vit)), registry))
            }
            Self::Mae(config) => {
                let mae = Mae::new(config, seed, kind, device)?;
                let registry = Rc::clone(mae.registry());
                Ok((Built::Mae(Box::new(mae)), registry))
            }
            Self::Upernet(config) => {
                let upernet = Upernet::new(config, seed, kind, device)?;
                let registry = Rc::clone(upernet.registry());
                Ok((Built::Upernet(Box::new(upernet)), registry))
            }
            Self::Classifier(config) => {
                let classifier = Classifier::new(config, seed, kind, device)?;
                let registry = Rc::clone(classifier.registry());
                Ok((Built::Classifier(Box::new(classifier)), registry))
            }
        }
    }

    /// Names and shapes of all tensors of a model with nothing decorrelated.
    pub fn tensors(&self) -> Vec<(String, Vec<i64>)> {
        let mut list = List::default();
        let encoder = self.encoder();
        let with_norm = match self {
            Self::Vit(_) | Self::Mae(_) => true,
            Self::Upernet(_) => false,
            Self::Classifier(config) => config.pool == Pool::Class,
        };
        list.encoder(self.prefix(), encoder, with_norm);
        match self {
            Self::Vit(_) => {}
            Self::Mae(config) => list.decoder(config),
            Self::Upernet(config) => list.segmentation(config),
            Self::Classifier(config) => {
                if config.pool == Pool::Mean {
                    list.norm("fc_norm", encoder.embed_dim);
                }
                list.linear("head", encoder.embed_dim, config.classes);
            }
        }
        list.0
    }
}

#[derive(Default)]
struct List(Vec<(String, Vec<i64>)>);

impl List {
    fn add(&mut self, name: String, shape: &[i64]) {
        self.0.push((name, shape.to_vec()));
    }

    /// A layer's weight, and its bias.
    fn layer(&mut self, name: &str, weight: &[i64], outputs: i64) {
        self.add(format!("{name}.weight"), weight);
        self.add(format!("{name}.bias"), &[outputs]);
    }

    fn linear(&mut self, name: &str, inputs: i64, outputs: i64) {
        self.layer(name, &[outputs, inputs], outputs);
    }

    fn norm(&mut self, name: &str, width: i64) {
        self.layer(name, &[width], width);
    }

    fn batch_norm(&mut self, name: &str, width: i64) {
        self.norm(name, width);
        self.add(format!("{name}.running_mean"), &[width]);
        self.add(format!("{name}.running_var"), &[width]);
    }

    fn blocks(&mut self, prefix: &str, depth: i64, width: i64, mlp_ratio: f64) {
        let hidden = (width as f64 * mlp_ratio) as i64;
        for i in 0..depth {
            let name = |part: &str| format!("{prefix}.{i}.{part}");
            self.norm(&name("norm1"), width);
            self.linear(&name("attn.qkv"), width, 3 * width);
            self.linear(&name("attn.proj"), width, width);
            self.norm(&name("norm2"), width);
            self.linear(&name("mlp.fc1"), width, hidden);
            self.linear(&name("mlp.fc2"), hidden, width);
        }
    }

    fn encoder(&mut self, prefix: &str, config: &VitConfig, with_norm: bool) {
        let (d, p) = (config.embed_dim, config.patch_size);
        self.layer(&format!("{prefix}patch_embed.proj"), &[d, config.channels, p, p], d);
        self.add(format!("{prefix}cls_token"), &[1, 1, d]);
        self.add(format!("{prefix}pos_embed"), &[1, 1 + config.patches(), d]);
        self.blocks(&format!("{prefix}blocks"), config.depth, d, config.mlp_ratio);
        if with_norm {
            self.norm(&format!("{prefix}norm"), d);
        }
    }

    fn decoder(&mut self, config: &MaeConfig) {
        let (d, encoder) = (config.decoder_embed_dim, &config.encoder);
        self.linear("decoder_embed", encoder.embed_dim, d);
        self.add("mask_token".to_owned(), &[1, 1, d]);
        self.add("decoder_pos_embed".to_owned(), &[1, 1 + encoder.patches(), d]);
        self.blocks("decoder_blocks", config.decoder_depth, d, encoder.mlp_ratio);
        self.norm("decoder_norm", d);
        self.linear("decoder_pred", d, encoder.patch_size.pow(2) * encoder.channels);
    }

    /// A convolution without bias and its batch norm.
    fn conv_module(&mut self, name: &str, inputs: i64, outputs: i64, kernel: i64) {
        self.add(format!("{name}.conv.weight"), &[outputs, inputs, kernel, kernel]);
        self.batch_norm(&format!("{name}.batch_norm"), outputs);
    }

    fn segmentation(&mut self, config: &UpernetConfig) {
        let (d, width) = (config.encoder.embed_dim, config.channels);
        self.layer("neck.fpn1.conv_transpose1", &[d, d, 2, 2], d);
        self.batch_norm("neck.fpn1.normalization", d);
        self.layer("neck.fpn1.conv_transpose2", &[d, d, 2, 2], d);
        self.layer("neck.fpn2", &[d, d, 2, 2], d);
        let scales = config.pool_scales.len();
        for i in 0..scales {
            self.conv_module(&format!("decode_head.psp_modules.{i}.1"), d, width, 1);
        }
        self.conv_module("decode_head.bottleneck", d + scales as i64 * width, width, 3);
        let levels = config.taps.len();
        for i in 0..levels.saturating_sub(1) {
            self.conv_module(&format!("decode_head.lateral_convs.{i}"), d, width, 1);
            self.conv_module(&format!("decode_head.fpn_convs.{i}"), width, width, 3);
        }
        self.conv_module("decode_head.fpn_bottleneck", levels as i64 * width, width, 3);
        self.layer("decode_head.classifier", &[config.classes, width, 1, 1], config.classes);
        if config.aux_weight > 0.0 {
            self.conv_module("auxiliary_head.convs.0", d, config.aux_channels, 3);
            self.layer("auxiliary_head.classifier", &[config.classes, config.aux_channels, 1, 1], config.classes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder() -> VitConfig {
        let text =
            r#"{"image_size": [16, 24], "patch_size": 8, "channels": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_list_of_tensors_is_that_of_the_model() {
        let mae = MaeConfig {
            encoder: encoder(),
            decoder_embed_dim: 8,
            decoder_depth: 1,
            decoder_num_heads: 2,
            mask_ratio: 0.5,
            norm_pix: true,
        };
        let deeper = VitConfig { depth: 4, ..encoder() };
        let upernet = UpernetConfig { channels: 8, aux_channels: 4, ..UpernetConfig::new(deeper, 3) };
        let classifier = |pool| Architecture::Classifier(ClassifierConfig { encoder: encoder(), classes: 5, pool });
        for architecture in [
            Architecture::Vit(encoder()),
            Architecture::Mae(mae),
            Architecture::Upernet(UpernetConfig { aux_weight: 0.0, ..upernet.clone() }),
            Architecture::Upernet(upernet),
            classifier(Pool::Mean),
            classifier(Pool::Class),
        ] {
            let (_, registry) = architecture.build(0, Kind::Float, Device::Cpu).unwrap();
            assert_eq!(registry.architecture().as_ref(), Some(&architecture));
            let mut built: Vec<_> = registry.state().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
            let mut listed = architecture.tensors();
            built.sort();
            listed.sort();
            assert_eq!(listed, built);
            let text = serde_json::to_string(&architecture).unwrap();
            assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), architecture, "{text}");
        }
    }
}
