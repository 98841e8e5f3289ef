//! TIFF files of 8 or 16 bits: gray, RGB, or two channels, interleaved or in planes.

use std::io::Cursor;

use image::metadata::Orientation;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use super::raster::Raster;
use super::{DecodeError, MAX_PIXELS, oriented_samples};

/// The first image of the file, turned as its orientation says.
pub fn read(bytes: &[u8]) -> Result<Raster, DecodeError> {
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 8 * MAX_PIXELS as usize;
    limits.intermediate_buffer_size = 8 * MAX_PIXELS as usize;
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(reason)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(reason)?;
    Raster::check_size(width.into(), height.into())?;
    let color = decoder.colortype().map_err(reason)?;
    let supported = match color {
        ColorType::Gray(8 | 16) | ColorType::GrayA(8 | 16) | ColorType::RGB(8 | 16) | ColorType::RGBA(8 | 16) => true,
        ColorType::Multiband { bit_depth: 8 | 16, num_samples } => (1..=4).contains(&num_samples),
        _ => false,
    };
    if !supported {
        let what = "is not read: gray, RGB or two channels of 8 or 16 bits are";
        return Err(DecodeError::Corrupt(format!("a TIFF of the kind {color:?} {what}")));
    }
    let channels = usize::from(color.num_samples());
    // 0 is a channel of no stated meaning, 1 and 2 are opacity (TIFF 6.0, `ExtraSamples`).
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(reason)?.unwrap_or_default();
    let alpha = matches!(color, ColorType::GrayA(_) | ColorType::RGBA(_)) || extra.iter().any(|&kind| kind != 0);
    let planar = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration).map_err(reason)? == Some(2);
    let orientation = decoder.find_tag_unsigned::<u16>(Tag::Orientation).map_err(reason)?.unwrap_or(1);
    let mut read = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut read).map_err(reason)?;
    let (samples, wide) = match read {
        DecodingResult::U8(samples) => (samples.into_iter().map(u16::from).collect(), false),
        DecodingResult::U16(samples) => (samples, true),
        _ => return Err(DecodeError::Corrupt("a TIFF of signed or floating-point samples is not read".into())),
    };
    let (width, height) = (width as usize, height as usize);
    let plane = width * height;
    if samples.len() != plane * channels {
        return Err(DecodeError::Truncated);
    }
    let samples = match planar && channels > 1 {
        true => (0..plane * channels).map(|i| samples[i % channels * plane + i / channels]).collect(),
        false => samples,
    };
    let orientation =
        u8::try_from(orientation).ok().and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);
    let (width, height, samples) = oriented_samples((width, height, channels), samples, orientation);
    Ok(Raster { width, height, channels, samples, wide, alpha })
}

fn reason(error: TiffError) -> DecodeError {
    match error {
        TiffError::IoError(io) if io.kind() == std::io::ErrorKind::UnexpectedEof => DecodeError::Truncated,
        other => DecodeError::Corrupt(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tiff::encoder::{TiffEncoder, colortype};

    #[test]
    fn gray_and_color_in_8_and_16_bits() {
        let mut bytes = Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes).unwrap().write_image::<colortype::Gray16>(2, 1, &[0x1234, 0xffff]).unwrap();
        let raster = read(bytes.get_ref()).unwrap();
        assert_eq!((raster.channels, raster.samples.as_slice()), (1, &[0x1234, 0xffff][..]));
        assert_eq!(raster.into_image(false).unwrap().pixels, [0x12, 0xff]);
        let mut bytes = Cursor::new(Vec::new());
        TiffEncoder::new(&mut bytes).unwrap().write_image::<colortype::RGBA8>(1, 1, &[1, 2, 3, 4]).unwrap();
        assert_eq!(read(bytes.get_ref()).unwrap().into_image(false).unwrap().pixels, [1, 2, 3]);
        let mut cut = bytes.into_inner();
        cut.truncate(40);
        assert!(read(&cut).is_err());
    }

    /// A little-endian TIFF, one row of two pixels with two channels; `planar` stores plane after plane.
    fn two_channels(planar: bool) -> Vec<u8> {
        let entries: [(u16, u16, u32, u32); 10] = [
            (256, 3, 1, 2),
            (257, 3, 1, 1),
            (258, 3, 2, 8 | 8 << 16),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, if planar { 2 } else { 1 }, if planar { 146 } else { 138 }),
            (277, 3, 1, 2),
            (279, 4, if planar { 2 } else { 1 }, if planar { 154 } else { 4 }),
            (284, 3, 1, if planar { 2 } else { 1 }),
            (338, 3, 1, 0),
        ];
        let mut bytes = vec![b'I', b'I', 42, 0, 8, 0, 0, 0, 10, 0];
        for (tag, kind, count, value) in entries {
            bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            bytes.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
        }
        bytes.extend([0; 4]);
        bytes.resize(138, 0);
        bytes.extend(if planar { [10, 20, 11, 21] } else { [10, 11, 20, 21] });
        bytes.resize(146, 0);
        for number in [138_u32, 140, 2, 2] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn two_channels_are_two_whatever_their_order() {
        for planar in [false, true] {
            let image = read(&two_channels(planar)).unwrap().into_image(false).unwrap();
            assert_eq!((image.channels, image.pixels.as_slice()), (2, &[10, 11, 20, 21][..]), "planar: {planar}");
        }
    }
}
