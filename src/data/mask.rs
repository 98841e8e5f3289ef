//! Label maps: what an annotation file says about every pixel, in labels `0..classes` and [`IGNORE`].

use std::collections::HashMap;

use super::classes::IGNORE;
use super::decode::{RawMask, Samples};

/// A label per pixel, row by row (`[H, W]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    pub width: usize,
    pub height: usize,
    /// `height · width` labels: `0..classes`, or [`IGNORE`].
    pub labels: Vec<u8>,
}

impl Mask {
    /// Whether no pixel has a class.
    pub fn is_all_ignored(&self) -> bool {
        self.labels.iter().all(|&label| label == IGNORE)
    }
}

/// How an annotation writes its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Each value is the label, palette entries by their index; the values of `ignore` are no label.
    Index { ignore: Vec<u32> },
    /// 0 is no label, and `k` stands for label `k − 1`: ADE20K.
    IndexFromOne,
    /// At least this gray is label 1, all else label 0: anti-aliased masks.
    Threshold(u8),
    /// A label per color; `None` is no label. Alpha does not count.
    Colors(HashMap<[u8; 3], Option<u8>>),
}

impl Coding {
    /// Whether palette entries count as the colors they stand for rather than as numbers.
    pub fn wants_colors(&self) -> bool {
        matches!(self, Self::Threshold(_) | Self::Colors(_))
    }

    /// The label map, checked against the number of classes; the error names the first pixel that is wrong.
    pub fn labels(&self, raw: RawMask, classes: usize) -> Result<Mask, String> {
        let RawMask { width, height, samples } = raw;
        let place = |i: usize| format!("at x {}, y {}", i % width, i / width);
        let beyond = |i: usize, value: u32| {
            format!(
                "the mask has the label {value} {}, but there are {classes} classes (0 to {})",
                place(i),
                classes - 1
            )
        };
        let index = |value: u32, ignore: &[u32]| match value {
            _ if ignore.contains(&value) => Some(IGNORE),
            _ => u8::try_from(value).ok().filter(|&label| usize::from(label) < classes),
        };
        let labels: Result<Vec<u8>, String> = match (self, samples) {
            (Self::Index { ignore }, Samples::Values(values)) => {
                values.iter().enumerate().map(|(i, &v)| index(v.into(), ignore).ok_or_else(|| beyond(i, v.into()))).collect()
            }
            (Self::IndexFromOne, Samples::Values(values)) => {
                let label = |v: u16| if v == 0 { Some(IGNORE) } else { index(u32::from(v) - 1, &[]) };
                let error = |i, v| format!("the mask has the value {v} {}, but there are {classes} classes (1 to {classes})", place(i));
                values.iter().enumerate().map(|(i, &v)| label(v).ok_or_else(|| error(i, v))).collect()
            }
            (Self::Index { .. } | Self::IndexFromOne, Samples::Colors(_)) => Err(
                "the mask has colors, not labels: name them with `colors`, or take a gray level with `binary_threshold`".into(),
            ),
            // 8-bit gray levels; decoding has scaled others.
            (Self::Threshold(level), samples) => {
                Ok(samples.gray().into_iter().map(|gray| u8::from(gray >= *level)).collect())
            }
            (Self::Colors(table), samples) => {
                let mut last = ([0; 3], table.get(&[0; 3]));
                samples
                    .colors()
                    .enumerate()
                    .map(|(i, color)| {
                        if color != last.0 {
                            last = (color, table.get(&color));
                        }
                        let unknown = || format!("the mask has the color {color:?} {}, which is not in `colors`", place(i));
                        last.1.map(|label| label.unwrap_or(IGNORE)).ok_or_else(unknown)
                    })
                    .collect()
            }
        };
        Ok(Mask { width, height, labels: labels? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[u16]) -> RawMask {
        RawMask { width: 2, height: values.len() / 2, samples: Samples::Values(values.to_vec()) }
    }

    fn colors(colors: &[[u8; 3]]) -> RawMask {
        RawMask { width: 2, height: colors.len() / 2, samples: Samples::Colors(colors.to_vec()) }
    }

    #[test]
    fn indices_are_labels_and_others_are_named() {
        let coding = Coding::Index { ignore: vec![255, 11] };
        assert_eq!(coding.labels(values(&[0, 2, 11, 255]), 3).unwrap().labels, [0, 2, IGNORE, IGNORE]);
        let error = coding.labels(values(&[0, 0, 2, 3]), 3).unwrap_err();
        assert_eq!(error, "the mask has the label 3 at x 1, y 1, but there are 3 classes (0 to 2)");
        assert!(coding.labels(values(&[0, 300]), 3).unwrap_err().contains("300"));
        assert!(coding.labels(colors(&[[1; 3]; 2]), 3).unwrap_err().contains("`colors`"));
        assert_eq!(Coding::IndexFromOne.labels(values(&[0, 1, 3, 2]), 3).unwrap().labels, [IGNORE, 0, 2, 1]);
        let error = Coding::IndexFromOne.labels(values(&[0, 4]), 3).unwrap_err();
        assert!(error.contains("value 4 at x 1, y 0") && error.contains("(1 to 3)"), "{error}");
    }

    #[test]
    fn thresholds_take_gray() {
        let coding = Coding::Threshold(128);
        assert_eq!(coding.labels(values(&[127, 128]), 2).unwrap().labels, [0, 1]);
        assert_eq!(coding.labels(colors(&[[255, 255, 255], [255, 0, 0]]), 2).unwrap().labels, [1, 0]);
    }

    #[test]
    fn colors_are_looked_up() {
        let coding = Coding::Colors(HashMap::from([([0; 3], Some(0)), ([255, 0, 0], Some(1)), ([9; 3], None)]));
        assert_eq!(coding.labels(colors(&[[255, 0, 0], [9; 3]]), 2).unwrap().labels, [1, IGNORE]);
        let error = coding.labels(colors(&[[0; 3], [1, 2, 3]]), 2).unwrap_err();
        assert_eq!(error, "the mask has the color [1, 2, 3] at x 1, y 0, which is not in `colors`");
    }
}
