//! Changes of color: brightness and contrast as Pillow's `ImageEnhance` (and torchvision's `ColorJitter`) define them, then hue,
//! saturation and value in HSV.
//!
//! With `b`, `c`, `s`, `v` drawn from 1 ± range and `h` from 0 ± degrees: `x ← clip(b x)`; `x ← clip(c x + (1 − c) m)`, `m` the
//! mean luma of what is seen; hue turned by `h`, saturation times `s`, value times `v`, the last two clipped. Images that are
//! not RGB have no color: they get the first two alone, `m` being the mean of all channels.

use serde::{Deserialize, Serialize};

use crate::data::decode::luma;
use crate::data::image::Image;
use crate::random::Rng;

/// Ranges to both sides. The default is no change at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// Fractions: 0.25 is ± 25 %.
    pub brightness: f64,
    pub contrast: f64,
    /// Degrees.
    pub hue: f64,
    pub saturation: f64,
    pub value: f64,
}

impl Jitter {
    /// Carrigg et al. 2025: ± 25 %, hue ± 15°.
    pub fn paper() -> Self {
        Self { brightness: 0.25, contrast: 0.25, hue: 15.0, saturation: 0.25, value: 0.25 }
    }
}

/// One draw: factors, and degrees for hue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub brightness: f32,
    pub contrast: f32,
    pub hue: f32,
    pub saturation: f32,
    pub value: f32,
}

impl Change {
    pub fn draw(ranges: &Jitter, rng: &mut Rng) -> Self {
        let mut around = |center: f64, range: f64| (center + range * (2.0 * rng.uniform_f64() - 1.0)) as f32;
        Self {
            brightness: around(1.0, ranges.brightness),
            contrast: around(1.0, ranges.contrast),
            hue: around(0.0, ranges.hue),
            saturation: around(1.0, ranges.saturation),
            value: around(1.0, ranges.value),
        }
    }

    pub fn apply(&self, image: &mut Image) {
        if image.pixels.is_empty() {
            return;
        }
        let bright: [u8; 256] = std::array::from_fn(|x| byte(self.brightness * x as f32));
        image.pixels.iter_mut().for_each(|x| *x = bright[usize::from(*x)]);
        let mean = mean_level(image);
        let contrast: [u8; 256] =
            std::array::from_fn(|x| byte(self.contrast * x as f32 + (1.0 - self.contrast) * mean));
        image.pixels.iter_mut().for_each(|x| *x = contrast[usize::from(*x)]);
        if image.channels == 3 && (self.hue, self.saturation, self.value) != (0.0, 1.0, 1.0) {
            image.pixels.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = self.recolor(*pixel));
        }
    }

    fn recolor(&self, pixel: [u8; 3]) -> [u8; 3] {
        let [hue, saturation, value] = hsv(pixel.map(f32::from));
        let hue = (hue + self.hue).rem_euclid(360.0);
        rgb([hue, (saturation * self.saturation).clamp(0.0, 1.0), (value * self.value).clamp(0.0, 255.0)]).map(byte)
    }
}

fn byte(x: f32) -> u8 {
    x.round() as u8 // Saturates.
}

/// As Pillow's `Contrast`: the mean of luma, rounded.
fn mean_level(image: &Image) -> f32 {
    let (sum, count) = match image.channels {
        3 => {
            (image.pixels.as_chunks().0.iter().map(|pixel| u64::from(luma(pixel))).sum::<u64>(), image.pixels.len() / 3)
        }
        _ => (image.pixels.iter().map(|&x| u64::from(x)).sum::<u64>(), image.pixels.len()),
    };
    (sum as f64 / count as f64 + 0.5).floor() as f32
}

/// Hue in degrees, saturation in [0, 1], value in the unit of the input.
fn hsv([r, g, b]: [f32; 3]) -> [f32; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    if range == 0.0 {
        return [0.0, 0.0, max];
    }
    let sixth = if max == r {
        (g - b) / range
    } else if max == g {
        2.0 + (b - r) / range
    } else {
        4.0 + (r - g) / range
    };
    [(60.0 * sixth).rem_euclid(360.0), range / max, max]
}

fn rgb([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    // Each channel falls off with its distance on the circle from where it is full.
    let channel = |offset: f32| {
        let k = (offset + hue / 60.0).rem_euclid(6.0);
        value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::gradient;

    const NONE: Change = Change { brightness: 1.0, contrast: 1.0, hue: 0.0, saturation: 1.0, value: 1.0 };

    fn pixels() -> Image {
        let pixels = vec![10, 200, 30, 255, 0, 0, 12, 34, 250, 128, 128, 128, 250, 240, 10, 0, 0, 0];
        Image { width: 3, height: 2, channels: 3, pixels }
    }

    fn assert_close(ours: &[u8], theirs: &[u8]) {
        let close = ours.iter().zip(theirs).all(|(a, b)| a.abs_diff(*b) <= 1);
        assert!(close, "{ours:?}");
    }

    #[test] // Pillow 13.0: Contrast(Brightness(image).enhance(1.2)).enhance(0.8).
    fn brightness_and_contrast_are_pillows() {
        let mut image = pixels();
        Change { brightness: 1.2, contrast: 0.8, ..NONE }.apply(&mut image);
        assert_close(&image.pixels, &[31, 214, 50, 226, 22, 22, 33, 54, 226, 144, 144, 144, 226, 226, 31, 22, 22, 22]);
    }

    #[test] // Python's colorsys: hue − 15°, saturation · 1.2 and value · 0.9, both at most 1.
    fn hue_saturation_and_value_are_those_of_colorsys() {
        let mut image = pixels();
        Change { hue: -15.0, saturation: 1.2, value: 0.9, ..NONE }.apply(&mut image);
        assert_close(&image.pixels, &[26, 180, 0, 230, 0, 57, 0, 77, 225, 115, 115, 115, 225, 159, 0, 0, 0, 0]);
    }

    #[test]
    fn there_and_back_is_the_same_color() {
        for pixel in gradient(64, 64, 3).pixels.as_chunks::<3>().0 {
            assert_eq!(NONE.recolor(*pixel), *pixel);
        }
    }

    #[test]
    fn draws_stay_in_range_and_two_channels_have_no_color() {
        let mut draws = Vec::new();
        for index in 0..500 {
            let mut rng = crate::random::Key::new(0, crate::random::Stream::Augment).index(index).rng();
            draws.push(Change::draw(&Jitter::paper(), &mut rng));
        }
        assert!(draws.iter().all(|draw| (draw.brightness - 1.0).abs() <= 0.25 && draw.hue.abs() <= 15.0));
        assert!(draws.iter().any(|draw| draw.hue > 14.0) && draws.iter().any(|draw| draw.value < 0.77));
        let (mut colored, mut plain) = (gradient(9, 7, 2), gradient(9, 7, 2));
        Change { hue: 15.0, value: 0.5, ..NONE }.apply(&mut colored);
        NONE.apply(&mut plain);
        assert_eq!(colored, plain);
    }
}
