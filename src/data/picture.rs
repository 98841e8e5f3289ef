//! What a dataset holds of an image on its way into a batch: pixels, or the planes of a JPEG.

use std::sync::Arc;

use super::augment::{Transform, flip_horizontal, normalize_into};
use super::cache::Weight;
use super::image::{Image, Region};
use super::normalization::Normalization;
use super::planes::{Planes, colors_into};
use super::resize::View;

/// A decoded image.
#[derive(Clone, Debug)]
pub enum Picture {
    Pixels(Arc<Image>),
    Planes(Planes),
}

impl Weight for Picture {
    fn bytes(&self) -> u64 {
        match self {
            Self::Pixels(image) => image.bytes(),
            Self::Planes(planes) => planes.bytes(),
        }
    }
}

impl Picture {
    /// Width and height that crops are drawn in: of planes, their whole pixels at their scale.
    pub fn size(&self) -> (usize, usize) {
        match self {
            Self::Pixels(image) => (image.width, image.height),
            Self::Planes(planes) => {
                let whole = |length: usize| (length / planes.scale).max(1);
                (whole(planes.stored.0), whole(planes.stored.1))
            }
        }
    }

    /// Whether it has the scale that images of this transform have.
    pub fn is_for(&self, transform: &Transform) -> bool {
        match self {
            Self::Pixels(_) => true,
            Self::Planes(planes) => planes.scale == transform.scale(planes.stored.0, planes.stored.1),
        }
    }

    /// A region, or what evaluation sees, at the target's size.
    pub fn part(&self, transform: &Transform, region: Option<Region>) -> Part {
        match self {
            Self::Pixels(image) => Part::Pixels(transform.part(&View::of(image), region)),
            Self::Planes(planes) => {
                let (x, y) = transform.axes(planes.stored, planes.scale, region);
                Part::Planes(planes.resized(x, y))
            }
        }
    }
}

/// A part of a picture at its final size.
pub enum Part {
    Pixels(Image),
    /// Images of one channel: Y alone, or Y, Cb and Cr.
    Planes(Vec<Image>),
}

impl Part {
    pub fn flip(&mut self) {
        match self {
            Self::Pixels(image) => flip_horizontal(image),
            Self::Planes(planes) => {
                for plane in planes {
                    plane.pixels.chunks_exact_mut(plane.width).for_each(<[u8]>::reverse);
                }
            }
        }
    }

    /// Normalized, `[C, H, W]`, into `out`, which has that length.
    pub fn write(&self, normalization: &Normalization, out: &mut [f32]) {
        match self {
            Self::Pixels(image) => normalize_into(image, normalization, out),
            Self::Planes(planes) => match planes.as_slice() {
                [y, cb, cr] => colors_into([y, cb, cr], normalization, out),
                planes => gray_into(&planes[0], normalization, out),
            },
        }
    }
}

/// One plane as all channels.
fn gray_into(gray: &Image, normalization: &Normalization, out: &mut [f32]) {
    let statistics = normalization.mean.iter().zip(&normalization.std);
    for (out, (&mean, &std)) in out.chunks_exact_mut(gray.pixels.len()).zip(statistics) {
        normalize_into(gray, &Normalization { mean: vec![mean], std: vec![std] }, out);
    }
}
