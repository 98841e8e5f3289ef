//! Crops, flips and resizing for masked autoencoders (He et al. 2022, arXiv:2111.06377, appendix A.1; `main_pretrain.py`).
//!
//! - [`Crop::Random`]: torchvision's `RandomResizedCrop(size, scale=(0.2, 1), interpolation=BICUBIC)`, ratio 3/4 to 4/3.
//! - [`Crop::Center`]: `Resize(size, BICUBIC)` of the short side, then `CenterCrop(size)`.
//! - [`Crop::None`]: the whole image resized to the target, its shape given up; untouched if it has that size already.
//!
//! Resizing is Pillow's: bicubic (a = −0.5), the kernel widened when shrinking, first along rows, then along columns, 8-bit in
//! between (fast_image_resize, left to itself, takes the columns first and clips other values). Targets need not be square.

use std::cell::RefCell;

use fast_image_resize::images::{CroppedImage, Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::image::Image;
use super::normalization::Normalization;
use crate::random::Rng;

/// Share of the image's area that a random crop covers.
const SCALE: (f64, f64) = (0.2, 1.0);
/// Width over height of a random crop.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

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
    /// Crops, resizes and perhaps mirrors. The flip is drawn first and always, so flips do not depend on the crop, nor crops
    /// on whether there are flips.
    pub fn train(&self, image: &Image, rng: &mut Rng) -> Image {
        let flipped = rng.next_u32() >> 31 == 1 && self.flip;
        let mut result = match self.crop {
            Crop::Random => resize_region(image, random_region(image.width, image.height, rng), self.size),
            Crop::Center | Crop::None => self.eval(image),
        };
        if flipped {
            flip_horizontal(&mut result);
        }
        result
    }

    /// Without randomness: the whole image for [`Crop::None`], else the short side resized and the center kept.
    pub fn eval(&self, image: &Image) -> Image {
        let whole = Region { left: 0, top: 0, width: image.width, height: image.height };
        match self.crop {
            Crop::None => resize_region(image, whole, self.size),
            Crop::Random | Crop::Center => resize_center(image, self.size),
        }
    }
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

/// A rectangle of whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
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

/// Cuts `region` out and resizes it; what lies outside has no influence, as when the crop is made first.
fn resize_region(image: &Image, region: Region, (height, width): (usize, usize)) -> Image {
    let Region { left, top, width: region_width, height: region_height } = region;
    let rows = convolve(image, (region_height, width), |source, target, resizer| {
        let cut = CroppedImage::new(source, left as u32, top as u32, region_width as u32, region_height as u32)
            .expect("the region lies within the image");
        resizer.resize(&cut, target, &bicubic())
    });
    convolve(&rows, (height, width), |source, target, resizer| resizer.resize(source, target, &bicubic()))
}

/// torchvision's `Resize` and `CenterCrop`, without resizing what the crop would throw away: the resized image's center is a
/// rectangle with fractional borders in the original, and the kernel may look beyond it.
fn resize_center(image: &Image, (height, width): (usize, usize)) -> Image {
    let (image_width, image_height) = (image.width as f64, image.height as f64);
    // The side that fits exactly, and the other, truncated as torchvision does.
    let (full_width, full_height) = if width as f64 * image_height >= height as f64 * image_width {
        (width, ((width as f64 * image_height / image_width) as usize).max(height))
    } else {
        (((height as f64 * image_width / image_height) as usize).max(width), height)
    };
    let center = |full: usize, kept: usize| ((full - kept) as f64 / 2.0).round_ties_even() as usize;
    let (left, top) = (center(full_width, width), center(full_height, height));
    resize_window(image, (full_height, full_width), Region { left, top, width, height })
}

/// The part `window` of the image resized to `full` (height, width), without computing the rest.
pub(super) fn resize_window(image: &Image, full: (usize, usize), window: Region) -> Image {
    let Region { left, top, width, height } = window;
    // Offset and length, in the original, of the `kept` pixels of `full` from `start` on.
    let span = |full: usize, start: usize, kept: usize, original: usize| {
        let scale = original as f64 / full as f64;
        let offset = start as f64 * scale;
        (offset, (kept as f64 * scale).min(original as f64 - offset))
    };
    let (left, crop_width) = span(full.1, left, width, image.width);
    let (top, crop_height) = span(full.0, top, height, image.height);
    let rows = convolve(image, (image.height, width), |source, target, resizer| {
        resizer.resize(source, target, &bicubic().crop(left, 0.0, crop_width, image.height as f64))
    });
    convolve(&rows, (height, width), |source, target, resizer| {
        resizer.resize(source, target, &bicubic().crop(0.0, top, width as f64, crop_height))
    })
}

fn bicubic() -> ResizeOptions {
    // Two or four channels are channels here, not color and alpha.
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false)
}

thread_local! {
    /// Holds buffers between calls.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Runs `run` on views of the image and of a new one of the given size; more than 4 channels go one by one.
fn convolve<F>(image: &Image, (height, width): (usize, usize), run: F) -> Image
where
    F: Fn(&ImageRef, &mut Target, &mut Resizer) -> Result<(), ResizeError>,
{
    let convolved = |pixels: &[u8], pixel_type: PixelType| {
        let source = ImageRef::new(image.width as u32, image.height as u32, pixels, pixel_type)
            .expect("an image has height · width · channels bytes");
        let mut target = Target::new(width as u32, height as u32, pixel_type);
        RESIZER
            .with_borrow_mut(|resizer| run(&source, &mut target, resizer))
            .expect("crops lie within the image, and both pixel types are the same");
        target.into_vec()
    };
    let channels = image.channels;
    let pixels = match channels {
        1 => convolved(&image.pixels, PixelType::U8),
        2 => convolved(&image.pixels, PixelType::U8x2),
        3 => convolved(&image.pixels, PixelType::U8x3),
        4 => convolved(&image.pixels, PixelType::U8x4),
        _ => {
            let mut pixels = vec![0; width * height * channels];
            for channel in 0..channels {
                let plane: Vec<u8> = image.pixels[channel..].iter().step_by(channels).copied().collect();
                let plane = convolved(&plane, PixelType::U8);
                pixels[channel..].iter_mut().step_by(channels).zip(plane).for_each(|(to, from)| *to = from);
            }
            pixels
        }
    };
    Image { width, height, channels, pixels }
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
