//! Which checkpoint of a run is the best: the figure that decides, and its best value so far.

use serde_json::{Value, json};

/// The figure that decides which checkpoint is the best, as lines of `metrics.jsonl` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    pub figure: String,
    /// Whether more is better: accuracies, unlike losses.
    pub higher: bool,
}

impl Default for Goal {
    fn default() -> Self {
        Self { figure: "val_loss".to_owned(), higher: false }
    }
}

/// The best value of the goal's figure so far. As JSON: `{"val_loss": 0.5, "step": 400}`, with the figure's own name.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    pub figure: String,
    pub value: f64,
    pub step: u64,
}

impl Best {
    pub(super) fn to_json(&self) -> Value {
        json!({ self.figure.as_str(): self.value, "step": self.step })
    }

    pub(super) fn from_json(value: &Value) -> Option<Self> {
        let (figure, number) = value.as_object()?.iter().find(|(name, _)| *name != "step")?;
        Some(Self { figure: figure.clone(), value: number.as_f64()?, step: value.get("step")?.as_u64()? })
    }
}
