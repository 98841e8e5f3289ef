//! Blocks at a half, a quarter or an eighth of their size: each sample the mean of those that it stands for. All of the block is
//! transformed (an eighth takes the first coefficient alone): memory and resizing are what is saved, reading the bits is most of the time.

use super::block::Block;
use super::idct::{self, Samples};

/// `SIDE × SIDE` samples of a block, in the upper left of what is answered; `SIDE` is 8, 4, 2 or 1.
#[inline(always)]
pub fn samples<const SIDE: usize>(block: &Block, last: usize) -> Samples {
    if SIDE == 8 || last == 0 {
        return idct::samples(block, last);
    }
    if SIDE == 1 {
        return [[idct::flat(block[0]); 8]; 8];
    }
    let full = idct::samples(block, last);
    let side = 8 / SIDE;
    let mut result = [[0; 8]; 8];
    for (y, row) in result.iter_mut().take(SIDE).enumerate() {
        for (x, value) in row.iter_mut().take(SIDE).enumerate() {
            let rows = &full[y * side..][..side];
            let sum: u32 = rows.iter().flat_map(|row| &row[x * side..][..side]).map(|&sample| u32::from(sample)).sum();
            *value = ((sum + (side * side / 2) as u32) / (side * side) as u32) as u8;
        }
    }
    result
}
