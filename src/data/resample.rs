//! Pillow's bicubic resizing ([`resize`](super::resize)) for planes of a JPEG that lie column by column.
//!
//! Both passes are sums of whole rows of memory, which compilers make vectors of; between them the picture is turned. Weights have 14
//! bits and sums 6 bits of fraction, so that all is done in 16 bits: results differ from exact ones by 1 at most. Sums of many
//! samples, where the image shrinks to less than a sixth, are in 32-bit floats.
//!
//! Coarser chroma is not made finer first: libjpeg's triangle filter ("fancy upsampling", `jdsample.c`) is linear, and so goes
//! into the weights.

use std::cell::RefCell;

/// How many samples a sum is computed for at once.
const LANES: usize = 32;
/// What is read beyond the last sample, at most: buffers have so much more.
pub const SLACK: usize = LANES;

/// One side of a resizing.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// Where the result begins in the picture, in pixels.
    pub start: f64,
    /// Pixels of the picture to one of the result.
    pub scale: f64,
    /// The pixels that may have influence: from, and one past the last.
    pub bounds: (usize, usize),
    /// Pixels of the result.
    pub count: usize,
}

/// For each pixel of a result: its first sample, and the weights of that and the following ones.
pub struct Filter {
    taps: Vec<(usize, std::ops::Range<usize>)>,
    weights: Weights,
}

enum Weights {
    /// In parts of [`ONE`].
    Short(Vec<i16>),
    Long(Vec<f32>),
}

/// So many products may lose their last bits before it shows.
const SHORT: f64 = 24.0;

const ONE: f64 = (1 << 14) as f64;

impl Filter {
    /// For a plane with one sample to `factor` pixels, 1 or 2, and `samples` of them in all.
    pub fn new(axis: Axis, factor: usize, samples: usize) -> Self {
        let Axis { start, scale, bounds, count } = axis;
        let stretch = scale.max(1.0);
        let support = 2.0 * stretch;
        let short = 2.0 * support / factor as f64 <= SHORT;
        let weights = if short { Weights::Short(Vec::new()) } else { Weights::Long(Vec::new()) };
        let mut filter = Self { taps: Vec::with_capacity(count), weights };
        let (mut exact, mut fine) = (Vec::new(), Vec::new());
        for i in 0..count {
            let center = start + (i as f64 + 0.5) * scale;
            // The last pixel may lie a rounding error beyond the bounds.
            let first = ((center - support + 0.5).max(0.0) as usize).clamp(bounds.0, bounds.1 - 1);
            let end = ((center + support + 0.5) as usize).clamp(first + 1, bounds.1);
            fine.clear();
            fine.extend((first..end).map(|x| bicubic((x as f64 + 0.5 - center) / stretch)));
            let first = if factor == 1 {
                std::mem::swap(&mut exact, &mut fine);
                first
            } else {
                coarser(&fine, first, samples, &mut exact)
            };
            filter.push(first, &exact);
        }
        filter
    }

    /// Adds weights, scaled to a sum of one; short ones are rounded such that the sum stays one.
    fn push(&mut self, first: usize, exact: &[f64]) {
        let sum: f64 = exact.iter().sum();
        let from = self.taps.last().map_or(0, |(_, range)| range.end);
        match &mut self.weights {
            Weights::Long(weights) => weights.extend(exact.iter().map(|weight| (weight / sum) as f32)),
            Weights::Short(weights) => {
                weights.extend(exact.iter().map(|weight| (weight / sum * ONE).round() as i16));
                let own = &mut weights[from..];
                let missing = ONE as i32 - own.iter().map(|&weight| i32::from(weight)).sum::<i32>();
                if let Some(largest) = own.iter_mut().max() {
                    *largest += missing as i16;
                }
            }
        }
        self.taps.push((first, from..from + exact.len()));
    }
}

/// The cubic through its neighbors with a = −0.5.
fn bicubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    } else {
        0.0
    }
}

/// Weights of pixels from `first` on as weights of samples half as dense, and the first of these: three parts of a pixel are
/// the sample that it lies in, one part is the neighbor on its side.
fn coarser(fine: &[f64], first: usize, samples: usize, coarse: &mut Vec<f64>) -> usize {
    let start = (first / 2).saturating_sub(1);
    let end = ((first + fine.len() - 1) / 2 + 1).min(samples - 1);
    coarse.clear();
    coarse.resize(end + 1 - start, 0.0);
    for (x, weight) in (first..).zip(fine) {
        let own = x / 2;
        let neighbor = if x % 2 == 1 { (own + 1).min(samples - 1) } else { own.saturating_sub(1) };
        coarse[own - start] += 0.75 * weight;
        coarse[neighbor - start] += 0.25 * weight;
    }
    start
}

/// Samples that lie column by column, with [`SLACK`] behind the last.
pub struct Columns<'a> {
    pub samples: &'a [u8],
    /// Samples to a column of memory.
    pub stride: usize,
    /// The column and row of the first sample.
    pub origin: (usize, usize),
    /// One past the last row.
    pub end: usize,
}

thread_local! {
    /// Holds buffers between calls.
    static BETWEEN: RefCell<[Vec<u8>; 2]> = RefCell::default();
}

/// Resizes to `y.len() × x.len()` samples, row by row.
pub fn resample(plane: &Columns, x: &Filter, y: &Filter) -> Vec<u8> {
    let (width, height) = (x.taps.len(), y.taps.len());
    let rows = plane.end - plane.origin.1;
    let mut result = vec![0; width * height];
    BETWEEN.with_borrow_mut(|[narrow, turned]| {
        let stride = rows.next_multiple_of(LANES);
        let columns = width.next_multiple_of(8);
        narrow.resize(columns * stride, 0);
        sums(plane.samples, plane.stride, plane.origin.0, x, narrow, (rows, stride));
        turned.resize(stride * columns + SLACK, 0);
        turn(narrow, stride, turned, columns);
        sums(turned, columns, plane.origin.1, y, &mut result, (width, width));
    });
    result
}

/// Weighted sums of whole lines: `stride` samples to a line of `from`, whose first has the number `origin`. What is computed has
/// `length` samples to a line, that lie `to_stride` apart.
fn sums(
    from: &[u8],
    stride: usize,
    origin: usize,
    filter: &Filter,
    to: &mut [u8],
    (length, to_stride): (usize, usize),
) {
    for ((first, range), line) in filter.taps.iter().zip(to.chunks_exact_mut(to_stride)) {
        let first = (first - origin) * stride;
        for (chunk, out) in (0..length).step_by(LANES).zip(line.chunks_mut(LANES)) {
            let from = &from[first + chunk..];
            let sums = match &filter.weights {
                Weights::Short(weights) => sum(from, stride, &weights[range.clone()]),
                Weights::Long(weights) => long_sum(from, stride, &weights[range.clone()]),
            };
            match out.first_chunk_mut() {
                Some(out) => *out = sums,
                None => out.copy_from_slice(&sums[..out.len()]),
            }
        }
    }
}

/// One chunk of a line. Samples count from their middle, so that 16 bits are used to the full.
#[inline(always)]
fn sum(from: &[u8], stride: usize, weights: &[i16]) -> [u8; LANES] {
    // A product loses half a bit in the mean.
    let half = 32 + (weights.len() / 2) as i16;
    let mut sums = [half; LANES];
    for (line, &weight) in weights.iter().enumerate() {
        let Some(samples) = from.get(line * stride..).and_then(|from| from.first_chunk::<LANES>()) else { break };
        for (sum, &sample) in sums.iter_mut().zip(samples) {
            let centered = (u16::from(sample ^ 0x80) << 8) as i16;
            *sum = sum.wrapping_add(((i32::from(centered) * i32::from(weight)) >> 16) as i16);
        }
    }
    let mut samples = [0; LANES];
    for (sample, sum) in samples.iter_mut().zip(sums) {
        *sample = ((sum >> 6) + 128).clamp(0, 255) as u8;
    }
    samples
}

/// The same of many samples.
fn long_sum(from: &[u8], stride: usize, weights: &[f32]) -> [u8; LANES] {
    let mut sums = [0.5_f32; LANES];
    for (line, &weight) in weights.iter().enumerate() {
        let Some(samples) = from.get(line * stride..).and_then(|from| from.first_chunk::<LANES>()) else { break };
        for (sum, &sample) in sums.iter_mut().zip(samples) {
            *sum += f32::from(sample) * weight;
        }
    }
    sums.map(|sum| sum as u8) // It saturates.
}

/// Columns for rows, in blocks of 8×8: `from_stride` and `to_stride` are multiples of 8, and each the other's number of lines.
fn turn(from: &[u8], from_stride: usize, to: &mut [u8], to_stride: usize) {
    for (band, lines) in from.chunks_exact(8 * from_stride).enumerate() {
        for at in (0..from_stride).step_by(8) {
            let mut block = [0; 8];
            for (line, row) in block.iter_mut().enumerate() {
                let bytes = lines[line * from_stride + at..].first_chunk();
                *row = bytes.map_or(0, |&bytes| u64::from_le_bytes(bytes));
            }
            turn_block(&mut block);
            for (line, row) in block.iter().enumerate() {
                if let Some(out) = to[(at + line) * to_stride + 8 * band..].first_chunk_mut() {
                    *out = row.to_le_bytes();
                }
            }
        }
    }
}

/// Swaps ever larger corners: single bytes within pairs of lines, then two, then four.
#[inline(always)]
fn turn_block(block: &mut [u64; 8]) {
    for (step, mask) in [(1, 0x00ff_00ff_00ff_00ff_u64), (2, 0x0000_ffff_0000_ffff), (4, 0x0000_0000_ffff_ffff)] {
        for i in (0..8).filter(|i| i & step == 0) {
            let swapped = ((block[i] >> (8 * step)) ^ block[i + step]) & mask;
            block[i + step] ^= swapped;
            block[i] ^= swapped << (8 * step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::image::{Image, Region};
    use crate::data::resize::{View, resize_region, resize_window};
    use crate::random::{Key, Stream};

    /// Noise, as an image and column by column.
    fn noise(width: usize, height: usize) -> (Image, Vec<u8>) {
        let mut rng = Key::new(1, Stream::Augment).index(width as u64).rng();
        let pixels: Vec<u8> = (0..width * height).map(|_| rng.next_u32() as u8).collect();
        let mut columns: Vec<u8> = (0..width * height).map(|i| pixels[i % height * width + i / height]).collect();
        columns.resize(width * height + SLACK, 0);
        (Image { width, height, channels: 1, pixels }, columns)
    }

    fn largest_difference(ours: &[u8], theirs: &[u8]) -> u8 {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
    }

    #[test]
    fn it_is_the_resizing_of_pixels() {
        for (width, height, out) in
            [(90, 70, (33, 40)), (40, 50, (64, 57)), (300, 33, (32, 32)), (3, 2, (9, 7)), (1, 1, (4, 4))]
        {
            let (image, columns) = noise(width, height);
            let plane = Columns { samples: &columns, stride: height, origin: (0, 0), end: height };
            let region =
                Region { left: width / 4, top: height / 3, width: width.div_ceil(2), height: height.div_ceil(2) };
            let along = |start: usize, length: usize, count: usize| Axis {
                start: start as f64,
                scale: length as f64 / count as f64,
                bounds: (start, start + length),
                count,
            };
            let x = Filter::new(along(region.left, region.width, out.1), 1, width);
            let y = Filter::new(along(region.top, region.height, out.0), 1, height);
            let pillow = resize_region(&View::of(&image), region, out);
            assert!(largest_difference(&resample(&plane, &x, &y), &pillow.pixels) <= 2);

            // A part of the resized whole, whose kernels see beyond it.
            let part = Region { left: 1, top: 2, width: out.1 - 2, height: out.0 - 3 };
            let along = |start: usize, count: usize, full: usize, length: usize| {
                let scale = length as f64 / full as f64;
                Axis { start: start as f64 * scale, scale, bounds: (0, length), count }
            };
            let x = Filter::new(along(part.left, part.width, out.1, width), 1, width);
            let y = Filter::new(along(part.top, part.height, out.0, height), 1, height);
            let pillow = resize_window(&View::of(&image), out, part);
            assert!(largest_difference(&resample(&plane, &x, &y), &pillow.pixels) <= 2);
        }
    }

    #[test]
    fn a_flat_plane_stays_flat() {
        for value in [0, 1, 127, 128, 200, 255] {
            for factor in [1, 2] {
                let columns = vec![value; 200 * 100 + SLACK];
                let plane = Columns { samples: &columns, stride: 100, origin: (0, 0), end: 100 };
                let axis = |length: usize, count| Axis {
                    start: 0.0,
                    scale: length as f64 / count as f64,
                    bounds: (0, length),
                    count,
                };
                let (x, y) = (
                    Filter::new(axis(200 * factor, 37), factor, 200),
                    Filter::new(axis(100 * factor, 140), factor, 100),
                );
                assert!(resample(&plane, &x, &y).iter().all(|&result| result == value), "{value}");
            }
        }
    }

    #[test]
    fn much_smaller_is_still_the_mean() {
        for value in [0, 1, 127, 128, 129, 255] {
            for (length, count) in [(200, 31), (200, 30), (3000, 16), (30_000, 3)] {
                let columns = vec![value; length * 8 + SLACK];
                let plane = Columns { samples: &columns, stride: 8, origin: (0, 0), end: 8 };
                let x = Axis { start: 0.0, scale: length as f64 / count as f64, bounds: (0, length), count };
                let y = Axis { start: 0.0, scale: 1.0, bounds: (0, 8), count: 8 };
                let result = resample(&plane, &Filter::new(x, 1, length), &Filter::new(y, 1, 8));
                assert!(result.iter().all(|&result| result == value), "{value} {length} {count}");
            }
        }
    }

    #[test]
    fn coarse_samples_are_made_finer_by_a_triangle() {
        let (_, columns) = noise(5, 4);
        let plane = Columns { samples: &columns, stride: 4, origin: (0, 0), end: 4 };
        let whole = |count| Axis { start: 0.0, scale: 1.0, bounds: (0, count), count };
        let ours = resample(&plane, &Filter::new(whole(10), 2, 5), &Filter::new(whole(4), 1, 4));
        for y in 0..4 {
            for x in 0..10_usize {
                let at = |x: usize| f32::from(columns[x.min(4) * 4 + y]);
                let neighbor = if x % 2 == 1 { x / 2 + 1 } else { (x / 2).saturating_sub(1) };
                let expected = 0.75 * at(x / 2) + 0.25 * at(neighbor);
                assert!((f32::from(ours[y * 10 + x]) - expected).abs() <= 1.0);
            }
        }
    }
}
