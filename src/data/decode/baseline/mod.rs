//! A decoder for the JPEGs that photographs are kept in: sequential, 8 bits, Huffman-coded, gray or YCbCr, all in one scan,
//! upright (ITU-T T.81). It makes planes of a window at a scale instead of colors of the whole picture. Whatever is of another
//! kind, damaged or unusual is answered with `None`: it is the other decoder's, whose errors say what is wrong.
//!
//! | file | idea |
//! | --- | --- |
//! | `header` | markers up to the scan |
//! | `bits`, `huffman`, `block` | bits without stuffing; symbols; coefficients of a block, or past them |
//! | `idct`, `reduced` | coefficients → samples, at full size or less |
//! | `scan` | all blocks in order |

mod bits;
mod block;
mod header;
mod huffman;
mod idct;
mod reduced;
mod scan;
#[cfg(test)]
mod tests;

use std::cell::RefCell;

use header::Header;
use scan::Wanted;

use crate::data::image::Region;
use crate::data::planes::{Plane, Planes};
use crate::data::resample::SLACK;

/// A file whose header was read.
pub struct Baseline<'a> {
    bytes: &'a [u8],
    header: Header,
}

thread_local! {
    /// Holds its buffer between calls.
    static CLEAN: RefCell<bits::Clean> = RefCell::default();
}

impl<'a> Baseline<'a> {
    /// `None` for files of other kinds.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.starts_with(&[0xff, 0xd8, 0xff])).then_some(())?;
        Some(Self { bytes, header: Header::read(bytes)? })
    }

    /// Width and height at a scale: 1, 2, 4 or 8 pixels of the file to one.
    pub fn size(&self, scale: usize) -> (usize, usize) {
        (self.header.width.div_ceil(scale), self.header.height.div_ceil(scale))
    }

    /// 1 for gray, else 3.
    pub fn channels(&self) -> usize {
        self.header.components.len()
    }

    /// The window `region`, in pixels at `scale`, with what upsampling sees around it; of `channels` planes. With `whole`, the file is
    /// read to its end, and `None` is answered if any of it is damaged; without, what follows the window is not looked at.
    pub fn decode(
        &self,
        scale: usize,
        region: Region,
        channels: usize,
        whole: bool,
        mut buffers: Vec<Vec<u8>>,
    ) -> Option<Planes> {
        let header = &self.header;
        let (width, height) = self.size(scale);
        let (mut wanted, mut planes) = (Vec::with_capacity(3), Vec::with_capacity(3));
        let mut sampling = (1, 1);
        for index in 0..header.components.len() {
            let is_chroma = index > 0;
            let factor = if is_chroma { header.sampling } else { (1, 1) };
            // Where both sides of chroma are coarser, it is made finer by shrinking its blocks less.
            let finer = if factor == (2, 2) && scale > 1 { 2 } else { 1 };
            let (side, factor) = (8 / scale * finer, (factor.0 / finer, factor.1 / finer));
            let per_mcu = if is_chroma { (1, 1) } else { header.sampling };
            let full = (width.div_ceil(factor.0), height.div_ceil(factor.1));
            let blocks = (full.0.div_ceil(side), full.1.div_ceil(side));
            let columns = span(region.left, region.width, factor.0, side, blocks.0);
            let rows = span(region.top, region.height, factor.1, side, blocks.1);
            let stride = rows.len() * side;
            let mut samples = buffers.pop().unwrap_or_default();
            let is_seen = index < channels;
            samples.resize(if is_seen { stride * columns.len() * side + SLACK } else { 0 }, 0);
            if is_seen {
                sampling = factor;
                planes.push(Plane { full, origin: (columns.start * side, rows.start * side), stride, samples });
                wanted.push(Wanted { per_mcu, columns, rows, side });
            } else {
                planes.push(Plane { full, origin: (0, 0), stride: 1, samples });
                wanted.push(Wanted { per_mcu, columns: 0..0, rows: 0..0, side });
            }
        }
        let end = CLEAN.with_borrow_mut(|clean| {
            let marker = clean.fill(self.bytes.get(header.data..)?)?;
            scan::read(header, clean, &wanted, whole, &mut planes)?;
            Some(marker)
        })?;
        // Another scan, or anything else before the end, is more than this decoder knows.
        if self.bytes.get(header.data + end) != Some(&0xd9) {
            return None;
        }
        planes.truncate(channels);
        let stored = (header.width, header.height);
        Some(Planes { stored, scale, sampling, planes })
    }
}

/// The blocks of a component that cover pixels `start..start + length`, with a sample more on both sides if it is coarser.
fn span(start: usize, length: usize, factor: usize, side: usize, blocks: usize) -> std::ops::Range<usize> {
    let margin = factor - 1;
    let (first, last) = ((start / factor).saturating_sub(margin), (start + length - 1) / factor + margin);
    first / side..(last / side + 1).min(blocks)
}
