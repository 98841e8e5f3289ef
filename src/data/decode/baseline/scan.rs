//! From the bits of a scan to planes: of the blocks that a window needs, the samples; of all others, no more than their length.

use super::bits::Clean;
use super::block::{self, Block};
use super::header::Header;
use super::reduced;
use crate::data::planes::Plane;

/// Which blocks of a component are wanted, and what for.
pub struct Wanted {
    /// Blocks per MCU along x and y.
    pub per_mcu: (usize, usize),
    pub columns: std::ops::Range<usize>,
    pub rows: std::ops::Range<usize>,
    /// Samples on a side of what a block becomes: 8, 4, 2 or 1.
    pub side: usize,
}

/// Reads the scan's blocks in order and fills `planes`, each with its component's wanted blocks. Ends behind the last row of them
/// unless `whole`; then the scan must be sound to its end. `None` for bits that are no picture.
pub fn read(header: &Header, clean: &Clean, wanted: &[Wanted], whole: bool, planes: &mut [Plane]) -> Option<()> {
    let largest = |of: fn(&Wanted) -> usize| wanted.iter().map(of).max();
    let (columns, rows) = (largest(|wanted| wanted.per_mcu.0)?, largest(|wanted| wanted.per_mcu.1)?);
    let (columns, rows) = (header.width.div_ceil(8 * columns), header.height.div_ceil(8 * rows));
    let last_row = largest(|wanted| wanted.rows.end.div_ceil(wanted.per_mcu.1))?;
    let per_interval = if header.restart_interval == 0 { columns * rows } else { header.restart_interval };
    if clean.ends.len() != (columns * rows).div_ceil(per_interval) {
        return None;
    }
    let mut bits = clean.interval(0)?;
    let (mut dc, mut block): (_, Block) = ([0; 3], [0; 64]);
    let (mut interval, mut left) = (0, per_interval);
    for row in 0..if whole { rows } else { last_row.min(rows) } {
        for column in 0..columns {
            if left == 0 {
                if !bits.at_end() {
                    return None;
                }
                interval += 1;
                (bits, dc, left) = (clean.interval(interval)?, [0; 3], per_interval);
            }
            left -= 1;
            let components = header.components.iter().zip(wanted).zip(&mut *planes).zip(&mut dc);
            for (((component, wanted), plane), dc) in components {
                for y in row * wanted.per_mcu.1..(row + 1) * wanted.per_mcu.1 {
                    for x in column * wanted.per_mcu.0..(column + 1) * wanted.per_mcu.0 {
                        if wanted.columns.contains(&x) && wanted.rows.contains(&y) {
                            let last = block::read(&mut bits, component, dc, &mut block)?;
                            let (x, y) = (x - wanted.columns.start, y - wanted.rows.start);
                            let to = plane.samples.get_mut((x * plane.stride + y) * wanted.side..)?;
                            match wanted.side {
                                8 => write::<8>(&mut block, last, to, plane.stride),
                                4 => write::<4>(&mut block, last, to, plane.stride),
                                2 => write::<2>(&mut block, last, to, plane.stride),
                                _ => write::<1>(&mut block, last, to, plane.stride),
                            }
                        } else {
                            block::skip(&mut bits, component, dc)?;
                        }
                    }
                }
            }
        }
        if bits.overrun() {
            return None;
        }
    }
    (!whole || bits.at_end()).then_some(())
}

/// Writes a block's columns and makes it zero again.
#[inline(always)]
fn write<const SIDE: usize>(block: &mut Block, last: usize, to: &mut [u8], stride: usize) {
    let samples = reduced::samples::<SIDE>(block, last);
    *block = [0; 64];
    for (column, from) in samples[..SIDE].iter().enumerate() {
        if let Some(to) = to.get_mut(column * stride..column * stride + SIDE) {
            to.copy_from_slice(&from[..SIDE]);
        }
    }
}
