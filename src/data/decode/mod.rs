//! Bytes of a JPEG, PNG, BMP, TIFF or NPY file → [`Image`], as Pillow's `exif_transpose(Image.open(f)).convert("RGB")` would show it.
//!
//! Gray stays one channel, alpha is dropped (not composited: what `convert("RGB")` does), palettes become RGB, 16 bits become 8
//! by their high byte, CMYK and YCCK become RGB under Adobe's inverted convention, EXIF orientation is applied and broken EXIF
//! ignored. Two channels are two channels: those of a TIFF or NPY, and gray with alpha for who asks for two. The format is read off the first bytes, never off the name: ImageNet has a PNG called `.JPEG`.
//!
//! Departures from Pillow: 16-bit gray is scaled (Pillow clips at 255); an orientation that only XMP states is ignored; a JPEG
//! that ends early is an error by other means (see `jpeg`).

use std::error::Error as _;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{bmp::BmpDecoder, png::PngDecoder};
use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, Limits};

use super::image::Image;

mod baseline;
mod jpeg;
mod mask;
mod npy;
mod raster;
mod tiff;

pub(super) use baseline::Baseline;
pub use mask::{RawMask, Samples, decode_mask};

/// Pictures with more pixels are refused before memory is taken for them: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Why bytes are not a picture; the text goes into `skipped.csv`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the file is empty")]
    Empty,
    #[error("neither JPEG, PNG, BMP, TIFF nor NPY: {0}")]
    Format(&'static str),
    #[error("{width}×{height} pixels exceed the limit of {MAX_PIXELS}")]
    TooLarge { width: u32, height: u32 },
    #[error("truncated: the compressed data ends before the picture does")]
    Truncated,
    #[error("corrupt: {0}")]
    Corrupt(String),
    #[error("{from} channels cannot become {to}: only 1 and 3 convert into each other")]
    Channels { from: usize, to: usize },
}

/// Decodes a picture: 1 channel if it is gray, 2 if it has two, else 3. Never panics.
pub fn decode(bytes: &[u8]) -> Result<Image, DecodeError> {
    decode_any(bytes, false)
}

/// Decodes a picture of so many channels. For 2, gray with alpha counts as two channels. Never panics.
pub fn decode_as(bytes: &[u8], channels: usize) -> Result<Image, DecodeError> {
    decode_any(bytes, channels == 2).and_then(|image| with_channels(image, channels))
}

fn decode_any(bytes: &[u8], keep_alpha: bool) -> Result<Image, DecodeError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode_jpeg(bytes),
        Format::Png => decode_png(bytes, keep_alpha),
        Format::Bmp => BmpDecoder::new(Cursor::new(bytes)).map_err(reason).and_then(|decoder| read(decoder, false)),
        Format::Tiff => tiff::read(bytes)?.into_image(keep_alpha),
        Format::Npy => npy::read(bytes)?.into_image(keep_alpha),
    }));
    decoded.unwrap_or_else(|_| Err(DecodeError::Corrupt("the decoder panicked on it".into())))
}

/// Converts between 1 and 3 channels: gray is repeated; RGB becomes ITU-R 601 luma, rounded as Pillow's `convert("L")`.
pub fn with_channels(image: Image, channels: usize) -> Result<Image, DecodeError> {
    let pixels = match (image.channels, channels) {
        (from, to) if from == to => return Ok(image),
        (1, 3) => image.pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
        (3, 1) => image.pixels.as_chunks().0.iter().map(luma).collect(),
        (from, to) => return Err(DecodeError::Channels { from, to }),
    };
    Ok(Image { channels, pixels, ..image })
}

pub(super) fn luma(&[r, g, b]: &[u8; 3]) -> u8 {
    ((u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000) >> 16) as u8
}

#[derive(Clone, Copy)]
enum Format {
    Jpeg,
    Png,
    Bmp,
    Tiff,
    Npy,
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', ..] => Err(DecodeError::Format("a GIF")),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Ok(Self::Tiff),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Self::Npy),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Err(DecodeError::Format("a WebP")),
            [b'<', ..] => Err(DecodeError::Format("text, perhaps a web page saved in its place")),
            _ => Err(DecodeError::Format("unknown first bytes")),
        }
    }
}

fn decode_png(bytes: &[u8], keep_alpha: bool) -> Result<Image, DecodeError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MAX_PIXELS); // RGBA of 16 bits.
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(reason)?;
    read(decoder, keep_alpha)
}

/// With `keep_alpha`, gray with alpha is two channels.
fn read(mut decoder: impl ImageDecoder, keep_alpha: bool) -> Result<Image, DecodeError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(DecodeError::Corrupt("it has no pixels".into()));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let color = decoder.color_type();
    let mut raw = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut raw).map_err(reason)?;
    let (channels, pixels) = match color {
        ColorType::L8 => (1, raw),
        ColorType::Rgb8 => (3, raw),
        ColorType::La8 if keep_alpha => (2, raw),
        ColorType::La16 if keep_alpha => (2, high_bytes(&raw)),
        ColorType::La8 => (1, kept::<2, 1>(&raw)),
        ColorType::Rgba8 => (3, kept::<4, 3>(&raw)),
        ColorType::L16 => (1, high_bytes(&raw)),
        ColorType::Rgb16 => (3, high_bytes(&raw)),
        ColorType::La16 => (1, kept::<2, 1>(&high_bytes(&raw))),
        ColorType::Rgba16 => (3, kept::<4, 3>(&high_bytes(&raw))),
        other => return Err(DecodeError::Corrupt(format!("color type {other:?} is not supported"))),
    };
    let image = Image { width: width as usize, height: height as usize, channels, pixels };
    Ok(oriented(image, orientation))
}

/// The first `K` of every `C` interleaved channels.
fn kept<const C: usize, const K: usize>(raw: &[u8]) -> Vec<u8> {
    raw.as_chunks::<C>().0.iter().flat_map(|pixel| pixel[..K].iter().copied()).collect()
}

fn high_bytes(raw: &[u8]) -> Vec<u8> {
    raw.as_chunks().0.iter().map(|&sample| (u16::from_ne_bytes(sample) >> 8) as u8).collect()
}

/// Turns and mirrors as EXIF says.
fn oriented(image: Image, orientation: Orientation) -> Image {
    let (width, height, pixels) =
        oriented_samples((image.width, image.height, image.channels), image.pixels, orientation);
    Image { width, height, channels: image.channels, pixels }
}

/// The same for samples of any kind: width, height and channels before; width, height and samples after.
fn oriented_samples<T: Copy>(
    (w, h, c): (usize, usize, usize),
    samples: Vec<T>,
    orientation: Orientation,
) -> (usize, usize, Vec<T>) {
    use Orientation::*;
    if orientation == NoTransforms {
        return (w, h, samples);
    }
    let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    let (width, height) = if turned { (h, w) } else { (w, h) };
    let mut result = Vec::with_capacity(samples.len());
    for y in 0..height {
        for x in 0..width {
            let (from_x, from_y) = match orientation {
                NoTransforms => (x, y),
                FlipHorizontal => (w - 1 - x, y),
                Rotate180 => (w - 1 - x, h - 1 - y),
                FlipVertical => (x, h - 1 - y),
                Rotate90FlipH => (y, x),
                Rotate90 => (y, h - 1 - x),
                Rotate270FlipH => (w - 1 - y, h - 1 - x),
                Rotate270 => (w - 1 - y, x),
            };
            let from = (from_y * w + from_x) * c;
            result.extend_from_slice(&samples[from..from + c]);
        }
    }
    (width, height, result)
}

fn reason(error: ImageError) -> DecodeError {
    let text = error.to_string();
    let ends_early = matches!(&error, ImageError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof);
    if ends_early || text.contains("unexpected end of file") || text.contains("UnexpectedEof") {
        return DecodeError::Truncated;
    }
    let decoder_says = match &error {
        ImageError::Decoding(error) => error.source().map_or(text, ToString::to_string),
        _ => text,
    };
    DecodeError::Corrupt(decoder_says.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{gradient, jpeg_bytes, png_bytes, with_exif_orientation};

    #[test]
    fn png_is_exact_and_keeps_gray() {
        for channels in [1, 3] {
            let image = gradient(13, 7, channels);
            assert_eq!(decode(&png_bytes(&image)).unwrap(), image);
        }
        assert_eq!(decode(&jpeg_bytes(&gradient(20, 30, 1))).unwrap().channels, 1);
    }

    #[test]
    fn alpha_is_dropped_and_16_bits_become_8() {
        let image = gradient(5, 4, 3);
        let rgba: Vec<u8> = image.pixels.as_chunks::<3>().0.iter().flat_map(|&[r, g, b]| [r, g, b, 3]).collect();
        let mut bytes = Vec::new();
        let encoder = ::image::codecs::png::PngEncoder::new(&mut bytes);
        ::image::ImageEncoder::write_image(encoder, &rgba, 5, 4, ::image::ExtendedColorType::Rgba8).unwrap();
        assert_eq!(decode(&bytes).unwrap(), image);

        let wide: Vec<u8> = [0x12ff_u16, 0xff00].iter().flat_map(|value| value.to_ne_bytes()).collect();
        let mut bytes = Vec::new();
        let encoder = ::image::codecs::png::PngEncoder::new(&mut bytes);
        ::image::ImageEncoder::write_image(encoder, &wide, 2, 1, ::image::ExtendedColorType::L16).unwrap();
        assert_eq!(decode(&bytes).unwrap().pixels, [0x12, 0xff]);
    }

    #[test]
    fn channels_convert_as_in_pillow() {
        // Image.new("RGB", (1, 1), (10, 200, 30)).convert("L").getpixel((0, 0)) == 124
        let rgb = Image { width: 1, height: 1, channels: 3, pixels: vec![10, 200, 30] };
        let gray = with_channels(rgb.clone(), 1).unwrap();
        assert_eq!(gray.pixels, [124]);
        assert_eq!(with_channels(gray, 3).unwrap().pixels, [124; 3]);
        assert_eq!(with_channels(rgb, 2), Err(DecodeError::Channels { from: 3, to: 2 }));
    }

    #[test]
    fn exif_orientation_is_applied() {
        let upright = gradient(48, 32, 3);
        let inverse = |orientation: u8| match orientation {
            6 => Orientation::Rotate270,
            8 => Orientation::Rotate90,
            other => Orientation::from_exif(other).unwrap(),
        };
        for orientation in 1..=8 {
            let stored = oriented(upright.clone(), inverse(orientation));
            let shown = decode(&with_exif_orientation(&jpeg_bytes(&stored), orientation)).unwrap();
            assert_eq!((shown.width, shown.height), (48, 32), "orientation {orientation}");
            let difference = shown.pixels.iter().zip(&upright.pixels).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(difference < Some(24), "orientation {orientation}: {difference:?}");
        }
        let nonsense = with_exif_orientation(&jpeg_bytes(&upright), 77);
        assert_eq!(decode(&nonsense).unwrap().width, 48);
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        for bytes in [jpeg_bytes(&gradient(64, 64, 3)), png_bytes(&gradient(64, 64, 3))] {
            let jpeg = bytes[0] == 0xff;
            // A JPEG whose last bits are missing may still be whole: the final byte can be padding.
            for length in (0..bytes.len() - if jpeg { 6 } else { 20 }).step_by(7) {
                assert!(decode(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
            }
        }
    }

    #[test]
    fn a_missing_end_marker_and_trailing_bytes_are_no_error() {
        let bytes = jpeg_bytes(&gradient(64, 40, 3));
        let image = decode(&bytes).unwrap();
        assert_eq!(decode(&bytes[..bytes.len() - 1]).as_ref(), Ok(&image));
        assert_eq!(decode(&bytes[..bytes.len() - 2]).as_ref(), Ok(&image));
        assert_eq!(decode(&[&bytes[..], &[7; 100]].concat()).as_ref(), Ok(&image));
        // With a restart interval (every 5 units) the question cannot be answered.
        let restarts = [&bytes[..2], &[0xff, 0xdd, 0, 4, 0, 5], &bytes[2..bytes.len() - 2]].concat();
        assert_eq!(decode(&restarts), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_gray_bottom_is_no_damage() {
        let mut image = gradient(64, 64, 3);
        image.pixels[64 * 32 * 3..].fill(128);
        let decoded = decode(&jpeg_bytes(&image)).unwrap();
        assert!(decoded.pixels[64 * 63 * 3..].iter().all(|&value| value == 128));
    }

    #[test]
    fn other_formats_and_bombs_are_refused() {
        assert_eq!(decode(&[]), Err(DecodeError::Empty));
        assert_eq!(decode(b"GIF89a..."), Err(DecodeError::Format("a GIF")));
        let mut bomb = jpeg_bytes(&gradient(16, 16, 3));
        let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bomb[frame + 5..frame + 9].fill(0xff);
        assert_eq!(decode(&bomb), Err(DecodeError::TooLarge { width: 65535, height: 65535 }));
    }
}
