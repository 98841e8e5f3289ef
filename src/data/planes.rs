//! A decoded JPEG as its coder sees it: one plane per color, those of chroma perhaps coarser; whole, or a window of it.
//!
//! Planes become colors only after resizing. That gives what libjpeg and Pillow give (who convert first), but for values beyond 0
//! to 255, which they cut off earlier.

use super::cache::Weight;
use super::image::Image;
use super::normalization::Normalization;
use super::resample::{Axis, Columns, Filter, SLACK, resample};

/// Y alone, or Y, Cb and Cr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    /// Width and height in the file.
    pub stored: (usize, usize),
    /// Pixels of the file to a pixel here, along both sides.
    pub scale: usize,
    /// Pixels to a sample of chroma, along x and y: 1 or 2.
    pub sampling: (usize, usize),
    pub planes: Vec<Plane>,
}

/// Samples of one color.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Width and height of the whole picture in this color.
    pub full: (usize, usize),
    /// The column and row of the first sample that is here.
    pub origin: (usize, usize),
    /// Samples to a column; those beyond `full` mean nothing.
    pub stride: usize,
    /// Column by column, with [`SLACK`] behind the last.
    pub samples: Vec<u8>,
}

impl Weight for Planes {
    fn bytes(&self) -> u64 {
        self.planes.iter().map(|plane| plane.samples.len() as u64).sum()
    }
}

impl Planes {
    /// Whether it is all of the picture.
    pub fn is_whole(&self) -> bool {
        let covers =
            |plane: &Plane| plane.origin == (0, 0) && plane.stride >= plane.full.1 && plane.columns() >= plane.full.0;
        self.planes.iter().all(covers)
    }

    /// Every color of a part, at its final size. `x` and `y` say which part; all that they may see must be here.
    pub fn resized(&self, x: Axis, y: Axis) -> Vec<Image> {
        let filters = |plane: &Plane, (along_x, along_y): (usize, usize)| {
            (Filter::new(x, along_x, plane.full.0), Filter::new(y, along_y, plane.full.1))
        };
        let Some(first) = self.planes.first() else { return Vec::new() };
        let luma = filters(first, (1, 1));
        let chroma = self.planes.get(1).filter(|_| self.sampling != (1, 1)).map(|plane| filters(plane, self.sampling));
        let resized = |(index, plane): (usize, &Plane)| {
            let (along_x, along_y) = if index > 0
                && let Some(chroma) = &chroma
            {
                chroma
            } else {
                &luma
            };
            let end = plane.full.1.min(plane.origin.1 + plane.stride);
            let columns = Columns { samples: &plane.samples, stride: plane.stride, origin: plane.origin, end };
            Image { width: x.count, height: y.count, channels: 1, pixels: resample(&columns, along_x, along_y) }
        };
        self.planes.iter().enumerate().map(resized).collect()
    }
}

impl Plane {
    fn columns(&self) -> usize {
        (self.samples.len() - SLACK) / self.stride.max(1)
    }
}

/// Writes Y, Cb and Cr as normalized red, green and blue (ITU-R 601, as JFIF says), channel by channel.
pub fn colors_into(planes: [&Image; 3], normalization: &Normalization, out: &mut [f32]) {
    let [y, cb, cr] = planes.map(|plane| plane.pixels.as_slice());
    let factors: [(f32, f32); 3] = std::array::from_fn(|c| {
        let (mean, std) = (normalization.mean[c], normalization.std[c]);
        (1.0 / (255.0 * std), -mean / std)
    });
    let (red, rest) = out.split_at_mut(y.len());
    let (green, blue) = rest.split_at_mut(y.len());
    let write = |out: &mut f32, value: f32, (factor, offset): (f32, f32)| {
        // Not `clamp`, which minds NaN.
        let value = if value > 0.0 { value } else { 0.0 };
        let value = if value < 255.0 { value } else { 255.0 };
        *out = value * factor + offset;
    };
    for (((((red, green), blue), &y), &cb), &cr) in red.iter_mut().zip(green).zip(blue).zip(y).zip(cb).zip(cr) {
        let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
        write(red, y + 1.402 * cr, factors[0]);
        write(green, y - 0.344_136_3 * cb - 0.714_136_3 * cr, factors[1]);
        write(blue, y + 1.772 * cb, factors[2]);
    }
}
