//! The inverse transform of 8×8 coefficients: libjpeg's accurate integer method (`jidctint.c`, after Loeffler, Ligtenberg and
//! Moschytz 1989) with 13 bits of fraction, in the form of its SSE2 version: 16 bits between the passes, sums of products of pairs.
//! As in libjpeg, columns come before rows; what is left then are columns of samples, and so they stay.

use super::block::Block;

/// Eight columns of eight samples.
pub type Samples = [[u8; 8]; 8];

/// Bits of fraction of the constants, and between the passes.
const FRACTION: i32 = 13;
const BETWEEN: i32 = 2;

/// What is added before the last shift: one half, and 128, the middle of the samples.
const CENTER: i32 = (1 << (FRACTION + BETWEEN + 2)) + (128 << (FRACTION + BETWEEN + 3));

// Factors of pairs of inputs, scaled by 2^13; sums of libjpeg's constants, so that no rounding differs.
const EVEN: [[i16; 2]; 4] = [[8192, 8192], [8192, -8192], [10703, 4433], [4433, -10704]];
/// Factors of (in1, in3) and of (in5, in7), for outputs 0/7, 1/6, 2/5 and 3/4.
const ODD: [[[i16; 2]; 2]; 4] = [
    [[11363, 9633], [6437, 2260]],
    [[9633, -2259], [-11362, -6436]],
    [[6437, -11362], [2261, 9633]],
    [[2260, -6436], [9633, -11363]],
];

/// The samples of a block whose coefficients are zero but for those up to `last` in zigzag order. Zeros that are known give the
/// same result in less time.
#[inline(always)]
pub fn samples(block: &Block, last: usize) -> Samples {
    match last {
        0 => [[flat(block[0]); 8]; 8],
        1..10 => transform::<true>(block),
        _ => transform::<false>(block),
    }
}

/// The value of all samples if there is nothing but a DC coefficient.
#[inline(always)]
pub fn flat(dc: i16) -> u8 {
    (((i32::from(dc) + 4) >> 3) + 128).clamp(0, 255) as u8
}

/// `QUARTER`: only coefficients of frequencies below 4 along both axes are other than zero.
#[inline(never)]
fn transform<const QUARTER: bool>(block: &Block) -> Samples {
    let mut between = [0; 64];
    pass::<QUARTER, { FRACTION - BETWEEN }>(block, 1 << (FRACTION - BETWEEN - 1), &mut between);
    let between = transposed(&between);
    let mut rows = [0; 64];
    pass::<QUARTER, { FRACTION + BETWEEN + 3 }>(&between, CENTER, &mut rows);
    let mut samples = [[0; 8]; 8];
    for (to, from) in samples.as_flattened_mut().iter_mut().zip(rows) {
        *to = from.clamp(0, 255) as u8;
    }
    samples
}

/// Eight one-dimensional transforms side by side: `input[8 · frequency + lane]` → `output[8 · position + lane]`. A loop over lanes whose
/// products are of 16 bits each is one that compilers make vectors of.
#[inline(always)]
fn pass<const QUARTER: bool, const SHIFT: i32>(input: &[i16; 64], rounding: i32, output: &mut [i16; 64]) {
    for lane in 0..8 {
        let at = |frequency: usize| if QUARTER && frequency >= 4 { 0 } else { i32::from(input[8 * frequency + lane]) };
        let dot = |a: usize, b: usize, factors: [i16; 2]| at(a) * i32::from(factors[0]) + at(b) * i32::from(factors[1]);
        let (sum, difference) = (dot(0, 4, EVEN[0]) + rounding, dot(0, 4, EVEN[1]) + rounding);
        let (low, high) = (dot(2, 6, EVEN[2]), dot(2, 6, EVEN[3]));
        let odd = |i: usize| dot(1, 3, ODD[i][0]) + dot(5, 7, ODD[i][1]);
        let pairs =
            [(sum + low, odd(0)), (difference + high, odd(1)), (difference - high, odd(2)), (sum - low, odd(3))];
        for (i, (even, odd)) in pairs.into_iter().enumerate() {
            output[8 * i + lane] = saturated((even + odd) >> SHIFT);
            output[8 * (7 - i) + lane] = saturated((even - odd) >> SHIFT);
        }
    }
}

#[inline(always)]
fn saturated(value: i32) -> i16 {
    value.clamp(-32768, 32767) as i16
}

/// Rows for columns, by three perfect shuffles, which are vector instructions.
#[inline(always)]
fn transposed(block: &[i16; 64]) -> [i16; 64] {
    shuffled(&shuffled(&shuffled(block)))
}

#[inline(always)]
fn shuffled(block: &[i16; 64]) -> [i16; 64] {
    let mut result = [0; 64];
    for i in 0..32 {
        result[2 * i] = block[i];
        result[2 * i + 1] = block[32 + i];
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Stream};

    /// The transform by its definition (ITU-T T.81, A.3.3).
    fn exact(block: &Block) -> [[f64; 8]; 8] {
        let basis = |position: usize, frequency: usize| {
            let scale = if frequency == 0 { 0.5_f64.sqrt() } else { 1.0 };
            scale / 2.0 * ((2 * position + 1) as f64 * frequency as f64 * std::f64::consts::PI / 16.0).cos()
        };
        let sample = |x: usize, y: usize| -> f64 {
            (0..64).map(|i| f64::from(block[i]) * basis(x, i % 8) * basis(y, i / 8)).sum::<f64>() + 128.0
        };
        std::array::from_fn(|x| std::array::from_fn(|y| sample(x, y).clamp(0.0, 255.0)))
    }

    #[test]
    fn samples_are_the_transform_rounded() {
        for index in 0..400 {
            let mut rng = Key::new(7, Stream::Augment).index(index).rng();
            let side = if index % 2 == 0 { 4 } else { 8 };
            let mut block = [0; 64];
            for _ in 0..1 + index % 20 {
                let place = rng.below(side) * 8 + rng.below(side);
                block[place as usize] = rng.below(1200) as i16 - 600;
            }
            let full = transform::<false>(&block);
            for (ours, expected) in full.as_flattened().iter().zip(exact(&block).as_flattened()) {
                assert!((f64::from(*ours) - expected).abs() < 0.6, "{ours} {expected}");
            }
            if side == 4 {
                assert_eq!(transform::<true>(&block), full);
            }
            let flat_block: Block = std::array::from_fn(|i| if i == 0 { block[0] } else { 0 });
            assert_eq!(samples(&flat_block, 0), transform::<false>(&flat_block));
        }
    }
}
