//! JPEG files, and whether all of a picture is there.
//!
//! A JPEG that ends early is an error. The decoder (zune-jpeg, through `image`) fills what is missing with gray 128 and says
//! nothing, so two questions are put to it, both only where there is reason:
//! - no end marker: does what would come *after* the file change the picture? Then the file was cut; if not, all of the
//!   picture is there and the file is good. With several scans (progressive) or restart markers, which hide the answer, a
//!   missing end marker is an error as such.
//! - the last row is all 128: does the *end* of the compressed data change the picture? If not, the decoder gave up before it.

use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;

use super::{DecodeError, Image, read, reason};

pub(super) fn decode_jpeg(bytes: &[u8]) -> Result<Image, DecodeError> {
    let decode =
        |bytes: &[u8]| JpegDecoder::new(Cursor::new(bytes)).map_err(reason).and_then(|decoder| read(decoder, false));
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
