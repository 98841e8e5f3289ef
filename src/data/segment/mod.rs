//! Augmentation of images with masks, as in the fine-tuning of Carrigg et al. 2025 (arXiv:2510.14657): the long edge resized to a
//! random length, aspect kept; a random crop; a horizontal flip; changes of color.
//!
//! Images are resized bicubically, masks by nearest neighbor, both as Pillow does. What a crop covers beyond its image is 0 after
//! normalization, that is the mean color, and [`IGNORE`] in the mask; where in such a crop the image lies is random too, as a
//! crop's place in a larger image is. A crop without a single labeled pixel is drawn again, up to [`TRIES`] times.
//! Colors change after cropping, so that contrast is that of what is seen.

mod jitter;

use serde::{Deserialize, Serialize};

use super::augment::{flip_horizontal, normalize_into};
use super::classes::IGNORE;
use super::image::{Image, Region};
use super::mask::Mask;
use super::normalization::Normalization;
use super::resize::{View, resize_window};
use crate::random::Rng;

pub use jitter::Jitter;

/// Places tried for a crop with a label in it.
const TRIES: usize = 10;

/// How pairs are augmented and evaluated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segmentation {
    /// Bounds, both included, of the long edge's length in pixels before cropping.
    pub long_edge: (usize, usize),
    /// `None` leaves colors as they are.
    pub jitter: Option<Jitter>,
    /// The long edge for evaluation; 0 leaves images at their own size.
    pub eval_edge: usize,
}

impl Segmentation {
    /// Fills one place of a batch: `pixels` `[C, H, W]`, normalized, and `labels` `[H, W]`, with `size` = (H, W).
    ///
    /// Every choice is drawn whether it is used or not, so that switching one off leaves the others as they were.
    pub(super) fn train_into(
        &self,
        (image, mask): (&Image, &Mask),
        (size, flip): ((usize, usize), bool),
        rng: &mut Rng,
        normalization: &Normalization,
        (pixels, labels): (&mut [f32], &mut [u8]),
    ) {
        let flipped = rng.next_u32() >> 31 == 1 && flip;
        let (shortest, longest) = self.long_edge;
        let long_edge = shortest + (rng.uniform_f64() * (longest - shortest + 1) as f64) as usize;
        let change = jitter::Change::draw(&self.jitter.unwrap_or_default(), rng);
        let full = resized(image.height, image.width, long_edge);
        let (mut place, mut cut) = (Place::default(), Vec::new());
        for _ in 0..TRIES {
            place = Place::draw(full, size, rng);
            cut = nearest(mask, full, place.window);
            if cut.iter().any(|&label| label != IGNORE) {
                break;
            }
        }
        let mut image = resize_window(&View::of(image), full, place.window);
        if self.jitter.is_some() {
            change.apply(&mut image);
        }
        let mut mask = Image { width: place.window.width, height: place.window.height, channels: 1, pixels: cut };
        if flipped {
            flip_horizontal(&mut image);
            flip_horizontal(&mut mask);
        }
        place.write(&image, &mask, size, normalization, (pixels, labels));
    }

    /// The image as it is evaluated: whole, its aspect kept.
    pub(super) fn eval(&self, image: &Image) -> Image {
        let (height, width) = match self.eval_edge {
            0 => (image.height, image.width),
            edge => resized(image.height, image.width, edge),
        };
        if (height, width) == (image.height, image.width) {
            return image.clone();
        }
        resize_window(&View::of(image), (height, width), Region { left: 0, top: 0, width, height })
    }
}

/// Height and width with a long edge of the given length.
fn resized(height: usize, width: usize, long_edge: usize) -> (usize, usize) {
    let scale = long_edge as f64 / height.max(width).max(1) as f64;
    let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    (side(height), side(width))
}

/// Which part of the resized image is seen, and where in the crop it lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    window: Region,
    top: usize,
    left: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { window: Region { left: 0, top: 0, width: 0, height: 0 }, top: 0, left: 0 }
    }
}

impl Place {
    fn draw(full: (usize, usize), size: (usize, usize), rng: &mut Rng) -> Self {
        // Start within the image, start within the crop, and length.
        let mut axis = |full: usize, size: usize| {
            let offset = (rng.uniform_f64() * (full.abs_diff(size) + 1) as f64) as usize;
            if full >= size { (offset, 0, size) } else { (0, offset, full) }
        };
        let (image_top, top, height) = axis(full.0, size.0);
        let (image_left, left, width) = axis(full.1, size.1);
        Self { window: Region { left: image_left, top: image_top, width, height }, top, left }
    }

    /// Writes the visible part to its place and fills the rest.
    fn write(
        &self,
        image: &Image,
        mask: &Image,
        (height, width): (usize, usize),
        normalization: &Normalization,
        (pixels, labels): (&mut [f32], &mut [u8]),
    ) {
        let Region { width: seen_width, height: seen_height, .. } = self.window;
        if (seen_height, seen_width) == (height, width) {
            normalize_into(image, normalization, pixels);
            labels.copy_from_slice(&mask.pixels);
            return;
        }
        let mut seen = vec![0.0; image.pixels.len()];
        normalize_into(image, normalization, &mut seen);
        pixels.fill(0.0);
        labels.fill(IGNORE);
        let start = self.top * width + self.left;
        for (plane, seen) in pixels.chunks_exact_mut(height * width).zip(seen.chunks_exact(seen_height * seen_width)) {
            for (row, seen) in plane[start..].chunks_mut(width).zip(seen.chunks_exact(seen_width)) {
                row[..seen_width].copy_from_slice(seen);
            }
        }
        for (row, seen) in labels[start..].chunks_mut(width).zip(mask.pixels.chunks_exact(seen_width)) {
            row[..seen_width].copy_from_slice(seen);
        }
    }
}

/// The part `window` of the mask resized to `full`: each pixel takes the label at its center, as Pillow's `NEAREST`.
fn nearest(mask: &Mask, full: (usize, usize), window: Region) -> Vec<u8> {
    let source =
        |i: usize, full: usize, own: usize| (((i as f64 + 0.5) * (own as f64 / full as f64)) as usize).min(own - 1);
    let columns: Vec<usize> =
        (window.left..window.left + window.width).map(|x| source(x, full.1, mask.width)).collect();
    let mut labels = Vec::with_capacity(window.width * window.height);
    for y in window.top..window.top + window.height {
        let row = &mask.labels[source(y, full.0, mask.height) * mask.width..];
        labels.extend(columns.iter().map(|&x| row[x]));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::gradient;
    use crate::random::{Key, Stream};

    fn rng(index: u64) -> Rng {
        Key::new(1, Stream::Augment).index(index).rng()
    }

    fn plain() -> Normalization {
        Normalization { mean: vec![0.0], std: vec![1.0 / 255.0] }
    }

    /// Blocks of 16 pixels, each of its own label, and the image that shows them.
    fn blocks(width: usize, height: usize) -> (Image, Mask) {
        let label = |i: usize| ((i % width / 16 * 5 + i / width / 16 * 3) % 12 * 20) as u8;
        let labels: Vec<u8> = (0..width * height).map(label).collect();
        (Image { width, height, channels: 1, pixels: labels.clone() }, Mask { width, height, labels })
    }

    fn train(config: &Segmentation, size: (usize, usize), index: u64) -> (Vec<f32>, Vec<u8>) {
        let (image, mask) = blocks(96, 64);
        let (mut pixels, mut labels) = (vec![9.0; size.0 * size.1], vec![9; size.0 * size.1]);
        let out = (pixels.as_mut_slice(), labels.as_mut_slice());
        config.train_into((&image, &mask), (size, true), &mut rng(index), &plain(), out);
        (pixels, labels)
    }

    #[test]
    fn image_and_mask_stay_aligned() {
        let config = Segmentation { long_edge: (48, 240), jitter: None, eval_edge: 0 };
        let (mut padded, mut full, mut checked) = (0, 0, 0);
        for index in 0..200 {
            let size = (64, 80);
            let (pixels, labels) = train(&config, size, index);
            if labels.contains(&IGNORE) {
                padded += 1
            } else {
                full += 1
            }
            for i in 0..labels.len() {
                let (x, y) = (i % size.1, i / size.1);
                if labels[i] == IGNORE {
                    assert_eq!(pixels[i], 0.0);
                    continue;
                }
                // Away from the borders of labels and of the crop, where bicubic resizing mixes.
                const NEAR: usize = 6;
                if x < NEAR || y < NEAR || x + NEAR >= size.1 || y + NEAR >= size.0 {
                    continue;
                }
                let row = |yy: usize| (x - NEAR..=x + NEAR).map(move |xx| yy * size.1 + xx);
                if (y - NEAR..=y + NEAR).flat_map(row).all(|j| labels[j] == labels[i]) {
                    checked += 1;
                    assert!((pixels[i] - f32::from(labels[i])).abs() < 0.5, "index {index}, x {x}, y {y}");
                }
            }
        }
        assert!(padded > 20 && full > 20 && checked > 10_000, "{padded} {full} {checked}");
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        let image = gradient(90, 70, 3);
        let full = (133, 171);
        let whole = resize_window(&View::of(&image), full, Region { left: 0, top: 0, width: 171, height: 133 });
        let window = Region { left: 31, top: 60, width: 64, height: 48 };
        let part = resize_window(&View::of(&image), full, window);
        for (y, row) in part.pixels.chunks_exact(64 * 3).enumerate() {
            let start = ((y + 60) * 171 + 31) * 3;
            for (a, b) in row.iter().zip(&whole.pixels[start..]) {
                assert!(a.abs_diff(*b) <= 1);
            }
        }
    }

    #[test] // Pillow 13.0: Image.fromarray(x).resize((5, 4), Image.NEAREST), x[i] = (i * 37) % 251 as 6 rows of 8.
    fn masks_are_resized_as_pillows_nearest() {
        let labels = (0..48).map(|i| (i * 37 % 251) as u8).collect();
        let mask = Mask { width: 8, height: 6, labels };
        let ours = nearest(&mask, (4, 5), Region { left: 0, top: 0, width: 5, height: 4 });
        assert_eq!(ours, PILLOW);
    }

    const PILLOW: [u8; 20] = [0, 74, 148, 185, 8, 90, 164, 238, 24, 98, 135, 209, 32, 69, 143, 225, 48, 122, 159, 233];

    #[test]
    fn padding_and_choices_are_drawn_apart() {
        let config = Segmentation { long_edge: (32, 32), jitter: None, eval_edge: 0 };
        let (_, labels) = train(&config, (64, 64), 3);
        assert_eq!(labels.iter().filter(|&&label| label != IGNORE).count(), 32 * 21);
        let fixed = Segmentation { long_edge: (128, 128), ..config };
        let jittered = Segmentation { jitter: Some(Jitter::paper()), ..fixed.clone() };
        assert_eq!(train(&fixed, (48, 48), 5).1, train(&jittered, (48, 48), 5).1);
        assert_ne!(train(&fixed, (48, 48), 5).0, train(&jittered, (48, 48), 5).0);
    }

    #[test]
    fn a_crop_with_labels_is_preferred() {
        let (image, mut mask) = blocks(96, 64);
        mask.labels.iter_mut().enumerate().for_each(|(i, label)| *label = if i % 96 < 90 { IGNORE } else { 1 });
        let config = Segmentation { long_edge: (96, 96), jitter: None, eval_edge: 0 };
        let with_labels = (0..100).filter(|&index| {
            let (mut pixels, mut labels) = ([0.0; 32 * 32], [0; 32 * 32]);
            let out = (pixels.as_mut_slice(), labels.as_mut_slice());
            config.train_into((&image, &mask), ((32, 32), true), &mut rng(index), &plain(), out);
            labels.iter().any(|&label| label != IGNORE)
        });
        let count = with_labels.count();
        assert!((45..80).contains(&count), "{count}"); // 1 − (59/65)^10 = 0.62; one try would give 9.
    }

    #[test]
    fn evaluation_keeps_the_aspect() {
        let config = |eval_edge| Segmentation { long_edge: (1, 1), jitter: None, eval_edge };
        let image = gradient(90, 40, 3);
        assert_eq!(config(0).eval(&image), image);
        let small = config(45).eval(&image);
        assert_eq!((small.width, small.height), (45, 20));
        assert_eq!(resized(1, 1000, 100), (1, 100));
    }
}
