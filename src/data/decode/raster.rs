//! Samples as a TIFF or NPY file has them, on their way to an image or a mask.

use super::mask::{RawMask, Samples, of_colors};
use super::{DecodeError, Image, MAX_PIXELS};

/// Interleaved samples (`[H, W, C]`).
pub struct Raster {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub samples: Vec<u16>,
    /// Whether 65535, not 255, is white.
    pub wide: bool,
    /// Whether the last channel is opacity.
    pub alpha: bool,
}

impl Raster {
    /// Errors: no pixels, or too many.
    pub fn check_size(width: u64, height: u64) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            return Err(DecodeError::Corrupt("it has no pixels".into()));
        }
        if width.saturating_mul(height) > MAX_PIXELS {
            let side = |side: u64| side.min(u64::from(u32::MAX)) as u32;
            return Err(DecodeError::TooLarge { width: side(width), height: side(height) });
        }
        Ok(())
    }

    /// 8 bits, by the high byte of 16. Opacity is dropped, unless it is the second of two channels that are wanted.
    pub fn into_image(self, keep_alpha: bool) -> Result<Image, DecodeError> {
        let dropped = self.alpha && !(keep_alpha && self.channels == 2) || self.channels == 4;
        let kept = self.channels - usize::from(dropped);
        if !(1..=3).contains(&kept) {
            return Err(DecodeError::Corrupt(format!("it has {} channels; 1 to 3 are read", self.channels)));
        }
        let shift = if self.wide { 8 } else { 0 };
        let byte = |&sample: &u16| (sample >> shift) as u8;
        let pixels =
            self.samples.chunks_exact(self.channels).flat_map(|pixel| pixel[..kept].iter().map(byte)).collect();
        Ok(Image { width: self.width, height: self.height, channels: kept, pixels })
    }

    /// The numbers of one channel as they are; of three, colors.
    pub fn into_mask(self) -> Result<RawMask, DecodeError> {
        let (width, height) = (self.width, self.height);
        let samples = match self.channels {
            1 => Samples::Values(self.samples),
            _ => {
                let image = self.into_image(false)?;
                match image.channels {
                    1 => Samples::Values(image.pixels.into_iter().map(u16::from).collect()),
                    3 => of_colors(image.pixels.as_chunks().0),
                    other => return Err(DecodeError::Corrupt(format!("a mask of {other} channels"))),
                }
            }
        };
        Ok(RawMask { width, height, samples })
    }
}
