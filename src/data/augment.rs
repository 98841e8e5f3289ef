//! Crops, flips and resizing for masked autoencoders (He et al. 2022, arXiv:2111.06377, appendix A.1; `main_pretrain.py`).
//!
//! - [`Crop::Random`]: torchvision's `RandomResizedCrop(size, scale=(0.2, 1), interpolation=BICUBIC)`, ratio 3/4 to 4/3.
//! - [`Crop::Center`]: `Resize(size, BICUBIC)` of the short side, then `CenterCrop(size)`.
//! - [`Crop::None`]: the whole image resized to the target, its shape given up; untouched if it has that size already.
//!
//! Resizing is Pillow's ([`resize`](super::resize)). Targets need not be square.

use serde::{Deserialize, Serialize};

use super::image::{Image, Region};
use super::normalization::Normalization;
use super::resample::Axis;
use super::resize::{View, resize_region, resize_window};
use crate::random::Rng;

/// Share of the image's area that a random crop covers.
const SCALE: (f64, f64) = (0.2, 1.0);
/// Width over height of a random crop.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

/// So many pixels of a reduced image, along each side, make one of the target. Averaging before the bicubic kernel blurs a little: over
/// 119 photographs the mean difference from Pillow is at most 1.4 of 255 and the 99th percentile 5; at 2 it would be 2.1 and 8.
const MARGIN: f64 = 2.5;

/// Which part of an image is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Crop {
    Random,
    Center,
    None,
}

impl std::str::FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "center" => Ok(Self::Center),
            "none" => Ok(Self::None),
            _ => Err(format!("crop: expected \"random\", \"center\" or \"none\", got \"{text}\"")),
        }
    }
}

/// From an image of any size to one of a given size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Height and width of the result.
    pub size: (usize, usize),
    pub crop: Crop,
    /// Mirrors half of the images left to right.
    pub flip: bool,
}

impl Transform {
    /// Crops, resizes and perhaps mirrors.
    pub fn train(&self, image: &Image, rng: &mut Rng) -> Image {
        let Choice { region, flipped } = self.choose(image.width, image.height, rng);
        let mut result = self.part(&View::of(image), region);
        if flipped {
            flip_horizontal(&mut result);
        }
        result
    }

    /// Without randomness: the whole image for [`Crop::None`], else the short side resized and the center kept.
    pub fn eval(&self, image: &Image) -> Image {
        self.part(&View::of(image), None)
    }

    /// Draws what is to become of an image. The flip is drawn first and always, so flips do not depend on the crop, nor crops on
    /// whether there are flips.
    pub(super) fn choose(&self, width: usize, height: usize, rng: &mut Rng) -> Choice {
        let flipped = rng.next_u32() >> 31 == 1 && self.flip;
        let region = (self.crop == Crop::Random).then(|| random_region(width, height, rng));
        Choice { region, flipped }
    }

    /// How many pixels of a file, along both sides, become one when it is decoded: 1, 2, 4 or 8, so that the smallest part that may be
    /// seen of it still has [`MARGIN`] times the target's pixels. By the size of the file, not by the crop: what a cache holds must
    /// not change a pixel.
    pub(super) fn scale(&self, width: usize, height: usize) -> usize {
        let (width, height) = (width as f64, height as f64);
        let least = match self.crop {
            Crop::Random => (SCALE.0 * width * height * RATIO.0).sqrt(),
            Crop::Center | Crop::None => f64::INFINITY,
        };
        let spare = (width.min(least) / self.size.1 as f64).min(height.min(least) / self.size.0 as f64) / MARGIN;
        [8, 4, 2].into_iter().find(|&scale| spare >= scale as f64).unwrap_or(1)
    }

    /// A region of the image, or what evaluation sees of it, at the target's size.
    pub(super) fn part(&self, image: &View, region: Option<Region>) -> Image {
        let (height, width) = self.size;
        match (region, self.crop) {
            (Some(region), _) => resize_region(image, region, self.size),
            (None, Crop::None) => resize_region(image, Region::whole(image.width, image.height), self.size),
            (None, Crop::Random | Crop::Center) => {
                let (full, window) = center((image.width, image.height), (height, width));
                resize_window(image, full, window)
            }
        }
    }

    /// The same as two axes of an image of `stored` width and height that was decoded at 1 to `scale`; the region is in pixels
    /// there. The last of these may lie half beyond the image, so that it is less than `stored.div_ceil(scale)` of them long.
    pub(super) fn axes(&self, stored: (usize, usize), scale: usize, region: Option<Region>) -> (Axis, Axis) {
        let (samples, extent) = (|length: usize| length.div_ceil(scale), |length: usize| length as f64 / scale as f64);
        let along = |start: usize, length: usize, count: usize| Axis {
            start: start as f64,
            scale: length as f64 / count as f64,
            bounds: (start, start + length),
            count,
        };
        let Region { left, top, width: seen_width, height: seen_height } = match (region, self.crop) {
            (Some(region), _) => region,
            (None, Crop::None) => {
                let along = |length: usize, count: usize| Axis {
                    start: 0.0,
                    scale: extent(length) / count as f64,
                    bounds: (0, samples(length)),
                    count,
                };
                return (along(stored.0, self.size.1), along(stored.1, self.size.0));
            }
            (None, Crop::Random | Crop::Center) => {
                let (full, window) = center(stored, self.size);
                let along = |start: usize, count: usize, full: usize, length: usize| {
                    let scale = extent(length) / full as f64;
                    Axis { start: start as f64 * scale, scale, bounds: (0, samples(length)), count }
                };
                let x = along(window.left, window.width, full.1, stored.0);
                return (x, along(window.top, window.height, full.0, stored.1));
            }
        };
        (along(left, seen_width, self.size.1), along(top, seen_height, self.size.0))
    }
}

/// What is drawn for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The part to crop; `None` is what evaluation sees.
    pub region: Option<Region>,
    pub flipped: bool,
}

/// torchvision's `Resize` and `CenterCrop`, without resizing what the crop would throw away: the size (height, width) of the whole
/// image after resizing, and the part of it that is kept. In the original its borders are fractional, and the kernel may look
/// beyond them.
fn center((image_width, image_height): (usize, usize), (height, width): (usize, usize)) -> ((usize, usize), Region) {
    let (image_width, image_height) = (image_width as f64, image_height as f64);
    // The side that fits exactly, and the other, truncated as torchvision does.
    let (full_width, full_height) = if width as f64 * image_height >= height as f64 * image_width {
        (width, ((width as f64 * image_height / image_width) as usize).max(height))
    } else {
        (((height as f64 * image_width / image_height) as usize).max(width), height)
    };
    let center = |full: usize, kept: usize| ((full - kept) as f64 / 2.0).round_ties_even() as usize;
    let (left, top) = (center(full_width, width), center(full_height, height));
    ((full_height, full_width), Region { left, top, width, height })
}

/// Writes `(x / 255 − mean) / std` channel by channel: `[H, W, C]` bytes → `[C, H, W]` in `out`, which must have that length.
/// Computed in float32, as `ToTensor` and `Normalize` do.
pub fn normalize_into(image: &Image, normalization: &Normalization, out: &mut [f32]) {
    assert_eq!(out.len(), image.pixels.len(), "the output holds one number per byte");
    assert_eq!(normalization.mean.len(), image.channels, "the normalization has a value per channel");
    let plane = image.width * image.height;
    for (channel, out) in out.chunks_exact_mut(plane.max(1)).enumerate() {
        let (mean, std) = (normalization.mean[channel], normalization.std[channel]);
        let table: [f32; 256] = std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        for (out, &value) in out.iter_mut().zip(image.pixels[channel..].iter().step_by(image.channels)) {
            *out = table[usize::from(value)];
        }
    }
}

/// torchvision's `RandomResizedCrop.get_params`: ten tries, then the largest central crop of an allowed ratio.
fn random_region(image_width: usize, image_height: usize, rng: &mut Rng) -> Region {
    let area = image_width as f64 * image_height as f64;
    for _ in 0..10 {
        let target = area * rng.range(SCALE.0, SCALE.1);
        let ratio = rng.range(RATIO.0.ln(), RATIO.1.ln()).exp();
        let width = (target * ratio).sqrt().round_ties_even() as usize;
        let height = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=image_width).contains(&width) && (1..=image_height).contains(&height) {
            let top = rng.below((image_height - height + 1) as u64) as usize;
            let left = rng.below((image_width - width + 1) as u64) as usize;
            return Region { left, top, width, height };
        }
    }
    let ratio = image_width as f64 / image_height as f64;
    let (width, height) = if ratio < RATIO.0 {
        (image_width, (image_width as f64 / RATIO.0).round_ties_even() as usize)
    } else if ratio > RATIO.1 {
        ((image_height as f64 * RATIO.1).round_ties_even() as usize, image_height)
    } else {
        (image_width, image_height)
    };
    Region { left: (image_width - width) / 2, top: (image_height - height) / 2, width, height }
}

pub(super) fn flip_horizontal(image: &mut Image) {
    let (width, channels) = (image.width, image.channels);
    for row in image.pixels.chunks_exact_mut(width * channels) {
        for x in 0..width / 2 {
            for c in 0..channels {
                row.swap(x * channels + c, (width - 1 - x) * channels + c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::gradient;
    use crate::random::{Key, Stream};

    fn rng(index: u64) -> Rng {
        Key::new(1, Stream::Augment).index(index).rng()
    }

    #[test] // Pillow 13.0: Image.fromarray(x).resize((4, 3), Image.BICUBIC), x[i] = (i * 37) % 251 as 6 rows of 8.
    fn resizing_is_pillows() {
        let pixels = (0..48).map(|i| (i * 37 % 251) as u8).collect();
        let image = Image { width: 8, height: 6, channels: 1, pixels };
        let resized = Transform { size: (3, 4), crop: Crop::None, flip: false }.eval(&image);
        let pillow = [45, 122, 184, 82, 136, 185, 105, 91, 150, 61, 110, 188];
        for (ours, theirs) in resized.pixels.iter().zip(pillow) {
            assert_eq!(*ours, theirs, "{:?}", resized.pixels);
        }
    }

    #[test]
    fn large_photographs_are_decoded_smaller() {
        let scale = |crop, width, height| Transform { size: (224, 224), crop, flip: false }.scale(width, height);
        assert_eq!(
            [(500, 375), (2880, 2160), (4032, 3024), (8000, 6000)].map(|(w, h)| scale(Crop::Random, w, h)),
            [1, 1, 2, 4]
        );
        assert_eq!(
            [(1200, 1119), (1120, 1120), (9000, 2240), (4480, 4480)].map(|(w, h)| scale(Crop::Center, w, h)),
            [1, 2, 4, 8]
        );
        assert_eq!(scale(Crop::None, 1120, 100), 1);
        // Every crop that may be drawn has enough pixels left.
        let transform = Transform { size: (96, 112), crop: Crop::Random, flip: false };
        let (width, height) = (4000, 3000);
        let scale = transform.scale(width, height);
        assert_eq!(scale, 4);
        for i in 0..2000 {
            let region = random_region(width / scale, height / scale, &mut rng(i));
            let least = (region.width as f64 / 112.0).min(region.height as f64 / 96.0);
            assert!(least > 0.98 * MARGIN, "{region:?}");
        }
    }

    #[test]
    fn random_regions_keep_scale_and_ratio() {
        let (mut areas, n) = (0.0, 4000);
        for i in 0..n {
            let region = random_region(200, 160, &mut rng(i));
            let Region { left, top, width, height } = region;
            assert!(left + width <= 200 && top + height <= 160);
            let (share, ratio) = ((width * height) as f64 / 32_000.0, width as f64 / height as f64);
            assert!((0.19..=1.0).contains(&share) && (0.73..=1.36).contains(&ratio), "{region:?}");
            areas += share;
        }
        assert!((0.5..0.62).contains(&(areas / n as f64))); // A little below 0.6: large crops fail to fit.
        let thin = random_region(1000, 3, &mut rng(0));
        assert_eq!(thin, Region { left: 498, top: 0, width: 4, height: 3 });
    }

    #[test]
    fn every_shape_and_channel_count_works() {
        for (width, height) in [(1, 1), (1, 300), (300, 1), (65, 33), (7, 64)] {
            for channels in [1, 2, 3, 4, 5] {
                let image = gradient(width, height, channels);
                for crop in [Crop::Random, Crop::Center, Crop::None] {
                    let transform = Transform { size: (24, 32), crop, flip: true };
                    for result in [transform.train(&image, &mut rng(3)), transform.eval(&image)] {
                        assert_eq!((result.height, result.width, result.channels), (24, 32, channels));
                        assert_eq!(result.pixels.len(), 24 * 32 * channels);
                    }
                }
            }
        }
    }

    #[test]
    fn two_channels_are_resized_apart() {
        let mut image = gradient(40, 40, 2);
        let plane = |image: &Image, c: usize| -> Vec<u8> { image.pixels[c..].iter().step_by(2).copied().collect() };
        let transform = Transform { size: (16, 16), crop: Crop::Center, flip: false };
        let first = plane(&transform.eval(&image), 0);
        image.pixels.iter_mut().skip(1).step_by(2).for_each(|value| *value = 0);
        assert_eq!(plane(&transform.eval(&image), 0), first);
    }

    #[test]
    fn nothing_changes_at_the_target_size() {
        let image = gradient(24, 16, 3);
        for crop in [Crop::Center, Crop::None] {
            assert_eq!(Transform { size: (16, 24), crop, flip: false }.eval(&image), image);
        }
    }

    #[test]
    fn half_are_flipped_whatever_the_crop() {
        let image = gradient(9, 8, 3);
        let mut mirrored = image.clone();
        flip_horizontal(&mut mirrored);
        assert_eq!(mirrored.pixels[..3], image.pixels[8 * 3..9 * 3]);
        let transform = Transform { size: (8, 9), crop: Crop::None, flip: true };
        let flips = (0..1000).filter(|&i| transform.train(&image, &mut rng(i)) == mirrored).count();
        assert!((440..560).contains(&flips), "{flips}");
    }

    #[test]
    fn normalization_is_planar() {
        let image = Image { width: 2, height: 1, channels: 3, pixels: vec![0, 51, 255, 255, 102, 0] };
        let normalization = Normalization { mean: vec![0.5, 0.2, 0.0], std: vec![0.5, 0.1, 2.0] };
        let mut out = [0.0; 6];
        normalize_into(&image, &normalization, &mut out);
        for (ours, expected) in out.iter().zip([-1.0, 1.0, 0.0, 2.0, 0.5, 0.0]) {
            assert!((ours - expected).abs() < 1e-6, "{out:?}");
        }
    }
}
