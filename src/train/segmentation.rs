//! Scores of label maps: from tensors to a [`Confusion`].

use tch::{Device, Kind, Tensor};

use super::{TrainError, TrainResult};
use crate::confusion::Confusion;
use crate::nn::upernet::IGNORE;

/// Adds the pixels of a batch. Shapes: `annotation`, `prediction` `[N, H, W]`, int64; annotations of 255 do not count.
///
/// Errors: [`TrainError::Config`] for shapes that differ, or labels beyond the classes.
pub fn add(confusion: &mut Confusion, annotation: &Tensor, prediction: &Tensor) -> TrainResult<()> {
    if annotation.size() != prediction.size() {
        let (expected, got) = (annotation.size(), prediction.size());
        return Err(TrainError::Config(format!("prediction: expected shape {expected:?} as annotated, got {got:?}")));
    }
    let classes = confusion.classes() as i64;
    let counted = annotation.f_ne(IGNORE)?;
    let (annotation, prediction) = (annotation.f_masked_select(&counted)?, prediction.f_masked_select(&counted)?);
    for (what, labels) in [("annotation", &annotation), ("prediction", &prediction)] {
        let beyond = labels.f_ge(classes)?.f_logical_or(&labels.f_lt(0)?)?;
        if beyond.f_any()?.f_int64_value(&[])? != 0 {
            return Err(TrainError::Config(format!("{what}: a label is beyond the {classes} classes")));
        }
    }
    let pairs = annotation.f_mul(&Tensor::from(classes))?.f_add(&prediction)?;
    let counts =
        pairs.f_bincount(None::<&Tensor>, classes * classes)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Int64)?;
    let counts = Vec::<i64>::try_from(&counts)?;
    confusion.add(counts.into_iter().map(|count| count as u64));
    Ok(())
}
