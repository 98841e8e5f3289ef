//! Bytes of an annotation file → the numbers or colors that stand in it, before anything is made of them.
//!
//! A palette PNG is read as its indices (1, 2, 4 or 8 bits) or as its colors, whichever the dataset goes by; gray PNGs of fewer
//! than 8 bits give their own numbers as indices (`image` would scale them). JPEG is refused for indices and colors: it does not keep values.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::bmp::BmpDecoder;
use image::{ColorType, ImageDecoder};
use png::{BitDepth, Transformations};

use super::{DecodeError, Format, MAX_PIXELS, luma};

/// What stands in an annotation file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMask {
    pub width: usize,
    pub height: usize,
    pub samples: Samples,
}

/// One number or one color per pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Samples {
    Values(Vec<u16>),
    Colors(Vec<[u8; 3]>),
}

impl Samples {
    /// Values as they are (cut at 255), colors as luma.
    pub fn gray(&self) -> Vec<u8> {
        match self {
            Self::Values(values) => values.iter().map(|&value| value.min(255) as u8).collect(),
            Self::Colors(colors) => colors.iter().map(luma).collect(),
        }
    }

    /// Colors; a value is a gray.
    pub fn colors(&self) -> impl Iterator<Item = [u8; 3]> + '_ {
        let (values, colors): (&[u16], &[[u8; 3]]) = match self {
            Self::Values(values) => (values, &[]),
            Self::Colors(colors) => (&[], colors),
        };
        values.iter().map(|&value| [value.min(255) as u8; 3]).chain(colors.iter().copied())
    }
}

/// Reads an annotation. With `as_colors`, values are brought to 8 bits and palettes to their colors. Never panics.
///
/// An RGB picture whose channels are all equal counts as gray.
pub fn decode_mask(bytes: &[u8], as_colors: bool) -> Result<RawMask, DecodeError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| match Format::of(bytes)? {
        Format::Png if !as_colors => png_values(bytes),
        Format::Bmp if !as_colors => bmp_values(bytes),
        Format::Tiff if !as_colors => super::tiff::read(bytes)?.into_mask(),
        Format::Npy if !as_colors => super::npy::read(bytes)?.into_mask(),
        Format::Jpeg if !as_colors => {
            let advice = "JPEG does not keep labels: save masks as PNG, or take a gray level with `binary_threshold`";
            Err(DecodeError::Corrupt(advice.into()))
        }
        _ => super::decode(bytes).and_then(from_image),
    }));
    decoded.unwrap_or_else(|_| Err(DecodeError::Corrupt("the decoder panicked on it".into())))
}

fn from_image(image: super::Image) -> Result<RawMask, DecodeError> {
    let samples = match image.channels {
        1 => Samples::Values(image.pixels.into_iter().map(u16::from).collect()),
        3 => of_colors(image.pixels.as_chunks().0),
        other => return Err(DecodeError::Corrupt(format!("a mask of {other} channels"))),
    };
    Ok(RawMask { width: image.width, height: image.height, samples })
}

pub(super) fn of_colors(colors: &[[u8; 3]]) -> Samples {
    match colors.iter().all(|&[r, g, b]| r == g && g == b) {
        true => Samples::Values(colors.iter().map(|color| color[0].into()).collect()),
        false => Samples::Colors(colors.to_vec()),
    }
}

fn png_values(bytes: &[u8]) -> Result<RawMask, DecodeError> {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(png_reason)?;
    let (width, height) = reader.info().size();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let size = reader.output_buffer_size().ok_or(DecodeError::TooLarge { width, height })?;
    let mut raw = vec![0; size];
    let frame = reader.next_frame(&mut raw).map_err(png_reason)?;
    let channels = frame.color_type.samples();
    let bits = frame.bit_depth as usize;
    let row_samples = width as usize * channels;
    let mut values = Vec::with_capacity(row_samples * height as usize);
    for row in raw.chunks_exact(frame.line_size).take(height as usize) {
        match frame.bit_depth {
            BitDepth::Eight => values.extend(row[..row_samples].iter().map(|&value| u16::from(value))),
            BitDepth::Sixteen => values.extend(row.as_chunks().0[..row_samples].iter().map(|&v| u16::from_be_bytes(v))),
            _ => {
                let sample = |i: usize| row[i * bits / 8] >> (8 - bits - i * bits % 8) & ((1 << bits) - 1);
                values.extend((0..row_samples).map(|i| u16::from(sample(i))));
            }
        }
    }
    let scale = |value: u16| if bits == 16 { (value >> 8) as u8 } else { value as u8 };
    let samples = match channels {
        1 => Samples::Values(values),
        2 => Samples::Values(values.into_iter().step_by(2).collect()), // Gray and alpha.
        _ => of_colors(
            &values.chunks_exact(channels).map(|pixel| [0, 1, 2].map(|c| scale(pixel[c]))).collect::<Vec<_>>(),
        ),
    };
    Ok(RawMask { width: width as usize, height: height as usize, samples })
}

fn png_reason(error: png::DecodingError) -> DecodeError {
    super::reason(image::ImageError::Decoding(image::error::DecodingError::new(image::ImageFormat::Png.into(), error)))
}

fn bmp_values(bytes: &[u8]) -> Result<RawMask, DecodeError> {
    let mut decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(super::reason)?;
    if decoder.get_palette().is_none() {
        return super::decode(bytes).and_then(from_image);
    }
    decoder.set_indexed_color(true);
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    if decoder.color_type() != ColorType::L8 {
        return Err(DecodeError::Corrupt("an indexed BMP that is read as something else".into()));
    }
    let mut raw = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(super::reason)?;
    let values = raw.into_iter().map(u16::from).collect();
    Ok(RawMask { width: width as usize, height: height as usize, samples: Samples::Values(values) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{gradient, jpeg_bytes, png_bytes};

    /// Five pixels with the palette entries 0, 1, 2, 3, 0, in 2 bits each.
    fn palette_png() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 5, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(BitDepth::Two);
        encoder.set_palette(vec![0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]);
        encoder.write_header().unwrap().write_image_data(&[0b0001_1011, 0]).unwrap();
        bytes
    }

    #[test]
    fn palettes_are_indices_or_colors() {
        let raw = decode_mask(&palette_png(), false).unwrap();
        assert_eq!((raw.width, raw.height, raw.samples), (5, 1, Samples::Values(vec![0, 1, 2, 3, 0])));
        let colors = decode_mask(&palette_png(), true).unwrap();
        assert_eq!(colors.samples.colors().nth(2), Some([0, 255, 0]));
    }

    #[test]
    fn gray_and_rgb_keep_their_numbers() {
        let image = gradient(6, 5, 1);
        let values: Vec<u16> = image.pixels.iter().map(|&x| x.into()).collect();
        assert_eq!(decode_mask(&png_bytes(&image), false).unwrap().samples, Samples::Values(values));
        assert!(matches!(decode_mask(&png_bytes(&gradient(6, 5, 3)), false).unwrap().samples, Samples::Colors(_)));
        let error = decode_mask(&jpeg_bytes(&image), false).unwrap_err().to_string();
        assert!(error.contains("binary_threshold"), "{error}");
        assert!(decode_mask(&jpeg_bytes(&image), true).is_ok());
        assert!(decode_mask(&png_bytes(&image)[..60], false).is_err() && decode_mask(&[], false).is_err());
    }

    #[test]
    fn a_bmp_is_read_both_ways() {
        let image = gradient(7, 3, 3);
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::bmp::BmpEncoder::new(&mut bytes);
        encoder.encode(&image.pixels, 7, 3, image::ExtendedColorType::Rgb8).unwrap();
        assert_eq!(crate::data::decode::decode(&bytes).unwrap(), image);
        let gray = gradient(7, 3, 1);
        let palette: Vec<[u8; 3]> = (0..=255).map(|i| [255 - i, i, 7]).collect();
        let mut bytes = Vec::new();
        let mut encoder = image::codecs::bmp::BmpEncoder::new(&mut bytes);
        encoder.encode_with_palette(&gray.pixels, 7, 3, image::ExtendedColorType::L8, Some(&palette)).unwrap();
        let values = gray.pixels.iter().map(|&x| x.into()).collect();
        assert_eq!(decode_mask(&bytes, false).unwrap().samples, Samples::Values(values));
    }
}
