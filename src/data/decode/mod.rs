//! Bytes of a JPEG or PNG file → [`Image`], as Pillow's `exif_transpose(Image.open(f)).convert("RGB")` would show it.
//!
//! Gray stays one channel, alpha is dropped (not composited: what `convert("RGB")` does), palettes become RGB, 16 bits become 8
//! by their high byte, CMYK and YCCK become RGB under Adobe's inverted convention, EXIF orientation is applied and broken EXIF
//! ignored. The format is read off the first bytes, never off the name: ImageNet has a PNG called `.JPEG`.
//!
//! Departures from Pillow: 16-bit gray is scaled (Pillow clips at 255); an orientation that only XMP states is ignored; and
//! a JPEG that ends early is an error by other means. The decoder (zune-jpeg, through `image`) fills what is missing with gray
//! 128 and says nothing, so two questions are put to it, both only where there is reason:
//! - no end marker: does what would come *after* the file change the picture? Then the file was cut; if not, all of the
//!   picture is there and the file is good. With several scans (progressive) or restart markers, which hide the answer, a
//!   missing end marker is an error as such.
//! - the last row is all 128: does the *end* of the compressed data change the picture? If not, the decoder gave up before it.

use std::error::Error as _;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{bmp::BmpDecoder, jpeg::JpegDecoder, png::PngDecoder};
use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, Limits};

use super::image::Image;

mod mask;

pub use mask::{RawMask, Samples, decode_mask};

/// Pictures with more pixels are refused before memory is taken for them: Pillow's limit against decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Why bytes are not a picture; the text goes into `skipped.csv`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the file is empty")]
    Empty,
    #[error("neither JPEG nor PNG: {0}")]
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

/// Decodes a JPEG or PNG: 1 channel if it is gray, else 3. Never panics.
pub fn decode(bytes: &[u8]) -> Result<Image, DecodeError> {
    let decoded = catch_unwind(AssertUnwindSafe(|| match Format::of(bytes)? {
        Format::Jpeg => decode_jpeg(bytes),
        Format::Png => decode_png(bytes),
        Format::Bmp => BmpDecoder::new(Cursor::new(bytes)).map_err(reason).and_then(read),
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
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [] => Err(DecodeError::Empty),
            [0xff, 0xd8, 0xff, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(Self::Png),
            [b'G', b'I', b'F', b'8', ..] => Err(DecodeError::Format("a GIF")),
            [b'B', b'M', ..] => Ok(Self::Bmp),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Err(DecodeError::Format("a TIFF")),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Err(DecodeError::Format("a WebP")),
            [b'<', ..] => Err(DecodeError::Format("text, perhaps a web page saved in its place")),
            _ => Err(DecodeError::Format("unknown first bytes")),
        }
    }
}

fn decode_png(bytes: &[u8]) -> Result<Image, DecodeError> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(8 * MAX_PIXELS); // RGBA of 16 bits.
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(reason)?;
    read(decoder)
}

fn decode_jpeg(bytes: &[u8]) -> Result<Image, DecodeError> {
    let decode = |bytes: &[u8]| JpegDecoder::new(Cursor::new(bytes)).map_err(reason).and_then(read);
    let Scans { last, has_end, plain } = Scans::of(bytes).ok_or(DecodeError::Truncated)?;
    if has_end {
        let image = decode(bytes)?;
        let last_row = &image.pixels[image.pixels.len() - image.width * image.channels..];
        if last_row.iter().all(|&value| value == 128) && decode(&with_other_end(bytes, last)).as_ref() == Ok(&image) {
            return Err(DecodeError::Corrupt("the compressed data is damaged, decoding stopped early".into()));
        }
        return Ok(image);
    }
    let body = &bytes[..last.end];
    if !plain || body.len() >= last.start + ZEROS && body[body.len() - ZEROS..].iter().all(|&byte| byte == 0) {
        return Err(DecodeError::Truncated); // Space a crash left reserved but unwritten.
    }
    let image = decode(&[body, &END_MARKER].concat())?;
    let continued = decode(&[body, &[0x35, 0x9c, 0x6b, 0xd2].repeat(64), &END_MARKER].concat());
    if continued.as_ref() == Ok(&image) { Ok(image) } else { Err(DecodeError::Truncated) }
}

const END_MARKER: [u8; 2] = [0xff, 0xd9];
/// So many zero bytes at the end of a scan are no Huffman code that an encoder writes.
const ZEROS: usize = 64;

/// Where the compressed data of a JPEG lies.
struct Scans {
    /// The entropy-coded bytes of the last scan.
    last: std::ops::Range<usize>,
    /// Whether the end marker follows it.
    has_end: bool,
    /// A sequential frame with all components in one scan, without restart markers.
    plain: bool,
}

impl Scans {
    /// Walks the markers (ITU-T T.81, annex B); `None` if the file ends before the first scan's data.
    fn of(bytes: &[u8]) -> Option<Self> {
        let (mut scans, mut sequential_components, mut restarts) = (None, None, false);
        let mut at = 2; // Behind the start marker.
        while let Some(marker_at) = find_marker(bytes, at) {
            let marker = bytes[marker_at];
            at = marker_at + 1;
            match marker {
                0xd9 => return scans.map(|scans| Self { has_end: true, ..scans }),
                0x01 | 0xd0..=0xd8 => continue, // No length follows.
                _ => {}
            }
            let Some(length) = bytes.get(at..at + 2) else { break };
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let segment = bytes.get(at + 2..at + length).unwrap_or_default();
            at += length;
            match marker {
                0xc0 | 0xc1 => sequential_components = segment.get(5),
                0xdd => restarts = segment != [0, 0],
                0xda if at < bytes.len() => {
                    let last = at..scan_end(bytes, at);
                    at = last.end;
                    let plain = !restarts && segment.first() == sequential_components;
                    scans = Some(Self { last, has_end: false, plain });
                }
                _ => {}
            }
        }
        scans
    }
}

/// The position of the next marker's second byte: a byte that is neither 0x00 nor 0xff, after a 0xff.
fn find_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)).map(|position| from + position + 1)
}

/// Where the entropy-coded data that starts at `from` ends: at a marker that is no restart, or with the file.
fn scan_end(bytes: &[u8], from: usize) -> usize {
    let is_end = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff);
    let without_last_ff = bytes.len() - usize::from(bytes.ends_with(&[0xff])); // Half of the end marker, or of a stuffed byte.
    bytes[from..].windows(2).position(is_end).map_or(without_last_ff.max(from), |position| from + position)
}

/// The file with other bits in the second half of the last scan; markers and stuffed bytes stay.
fn with_other_end(bytes: &[u8], last: std::ops::Range<usize>) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for i in last.start.midpoint(last.end).max(last.start + 1)..last.end {
        if bytes[i] != 0xff && bytes[i - 1] != 0xff && bytes[i] ^ 0x2a != 0xff {
            changed[i] ^= 0x2a;
        }
    }
    changed
}

fn read(mut decoder: impl ImageDecoder) -> Result<Image, DecodeError> {
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
    use Orientation::*;
    if orientation == NoTransforms {
        return image;
    }
    let (w, h, c) = (image.width, image.height, image.channels);
    let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    let (width, height) = if turned { (h, w) } else { (w, h) };
    let mut pixels = Vec::with_capacity(image.pixels.len());
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
            pixels.extend_from_slice(&image.pixels[from..from + c]);
        }
    }
    Image { width, height, channels: c, pixels }
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
