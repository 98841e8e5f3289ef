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
