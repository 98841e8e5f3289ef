//! Parameters with their gradients, in groups that share a rate: weights decay, biases, norms and tokens do not; for
//! fine-tuning, each block learns at a fraction of the rate of the one after it (Bao et al. 2022, arXiv:2106.08254).

use tch::Tensor;

use crate::nn::Registry;
use crate::train::TrainResult;

/// A parameter that a gradient has reached.
pub(super) struct Part {
    pub name: String,
    /// Detached: it shares its values with the parameter.
    pub tensor: Tensor,
    pub gradient: Tensor,
}

/// Parameters that share a rate.
pub(super) struct Group {
    /// Of the learning rate.
    pub scale: f64,
    /// Whether weight decay applies.
    pub decay: bool,
    pub parts: Vec<Part>,
}

/// Layer-wise decay of the learning rate: the embedding is slowest, heads have the full rate. 1 is none.
pub(super) struct LayerDecay {
    decay: f64,
    /// Blocks of the encoder.
    depth: i32,
}

impl LayerDecay {
    pub fn new(model: &Registry, decay: f64) -> TrainResult<Self> {
        let mut depth = 0;
        model.each_parameter(|parameter| -> TrainResult<()> {
            depth = depth.max(block_of(&parameter.name).map_or(0, |block| block + 1));
            Ok(())
        })?;
        Ok(Self { decay, depth })
    }

    /// All parameters that have a gradient, the share of decorrelated layers folded in.
    pub fn groups(&self, model: &Registry) -> TrainResult<Vec<Group>> {
        let mut groups: Vec<Group> = Vec::new();
        model.each_parameter(|parameter| -> TrainResult<()> {
            let Some(gradient) = parameter.gradient()? else { return Ok(()) };
            let (scale, decay) = (self.scale(&parameter.name), parameter.decay);
            let part = Part { name: parameter.name.clone(), tensor: parameter.tensor.f_detach()?, gradient };
            match groups.iter_mut().find(|group| group.scale == scale && group.decay == decay) {
                Some(group) => group.parts.push(part),
                None => groups.push(Group { scale, decay, parts: vec![part] }),
            }
            Ok(())
        })?;
        Ok(groups)
    }

    fn scale(&self, name: &str) -> f64 {
        let below_the_top = match (block_of(name), is_embedding(name)) {
            (Some(block), _) => self.depth - block,
            (None, true) => self.depth + 1,
            (None, false) => 0,
        };
        self.decay.powi(below_the_top)
    }
}

/// The encoder block that a parameter belongs to.
fn block_of(name: &str) -> Option<i32> {
    name.strip_prefix("encoder.").unwrap_or(name).strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

/// Whether a parameter comes before the first block.
fn is_embedding(name: &str) -> bool {
    let name = name.strip_prefix("encoder.").unwrap_or(name);
    name.starts_with("patch_embed.") || name == "cls_token"
}
