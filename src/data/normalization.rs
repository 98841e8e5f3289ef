//! Mean and standard deviation per channel: ImageNet's for RGB, measured for everything else.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::image::Image;

/// So many images, evenly spaced over the training files, are measured.
pub const SAMPLE: usize = 1000;

/// Pixels in [0, 1] become `(x − mean) / std`, one value per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Normalization {
    /// The statistics that torchvision, timm and MAE use for RGB.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// The pixel-wise mean and standard deviation over `images`; `None` if there are none. A channel that never varies
    /// gets a standard deviation of 1.
    ///
    /// The sums are of integers, so the order in which threads add them does not matter.
    pub(super) fn measure(
        images: impl IndexedParallelIterator<Item = Option<std::sync::Arc<Image>>>,
        channels: usize,
    ) -> Option<Self> {
        let zero = || vec![(0_u64, 0_u128, 0_u128); channels]; // Count, sum, sum of squares.
        let sums = images
            .fold(zero, |mut sums, image| {
                for pixel in image.iter().flat_map(|image| image.pixels.chunks_exact(channels)) {
                    for ((count, sum, squares), &value) in sums.iter_mut().zip(pixel) {
                        *count += 1;
                        *sum += u128::from(value);
                        *squares += u128::from(value) * u128::from(value);
                    }
                }
                sums
            })
            .reduce(zero, |a, b| a.iter().zip(b).map(|(a, b)| (a.0 + b.0, a.1 + b.1, a.2 + b.2)).collect());
        let moments = |&(count, sum, squares): &(u64, u128, u128)| {
            let mean = sum as f64 / count as f64;
            let variance = squares as f64 / count as f64 - mean * mean;
            let std = variance.max(0.0).sqrt() / 255.0;
            ((mean / 255.0) as f32, if std < 1e-4 { 1.0 } else { std as f32 })
        };
        if sums.iter().any(|sum| sum.0 == 0) {
            return None;
        }
        let (mean, std) = sums.iter().map(moments).unzip();
        Some(Self { mean, std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn measures_mean_and_deviation() {
        let image = |pixels: Vec<u8>| Some(Arc::new(Image { width: 2, height: 1, channels: 2, pixels }));
        let images = vec![image(vec![0, 51, 255, 51]), None, image(vec![255, 51, 0, 51])];
        let measured = Normalization::measure(images.into_par_iter(), 2).unwrap();
        assert_eq!(measured.mean, [0.5, 0.2]);
        assert_eq!(measured.std, [0.5, 1.0]);
        assert!(Normalization::measure(vec![None].into_par_iter(), 2).is_none());
    }
}
