//! Texture: a tile of random numbers, and what the patterns of flat surfaces make of it.

use super::scene::{Pattern, Plate, Point, lerp, smoothstep};
use crate::random::Rng;

const TILE: usize = 128;

/// Smooth noise in [−1, 1] that repeats every 128 lattice steps (value noise, interpolated by a cubic).
pub struct Noise {
    /// Two independent values per lattice point: most surfaces need a tilt in two directions.
    tile: Vec<[f32; 2]>,
}

impl Noise {
    pub fn new(rng: &mut Rng) -> Self {
        let value = |bits: u32| (bits & 0xffff) as f32 * (2.0 / 65_535.0) - 1.0;
        let tile = (0..TILE * TILE).map(|_| rng.next_u32()).map(|bits| [value(bits), value(bits >> 16)]).collect();
        Self { tile }
    }

    /// The noise at a point given in lattice steps.
    pub fn at(&self, point: Point) -> f32 {
        self.pair(point)[0]
    }

    /// Two independent noises at a point.
    #[inline(always)] // A call costs as much as the work: it is made several times per pixel and item.
    pub fn pair(&self, point: Point) -> [f32; 2] {
        let (x, fx) = cell(point[0]);
        let (y, fy) = cell(point[1]);
        let (right, row, below) = ((x + 1) % TILE, y * TILE, (y + 1) % TILE * TILE);
        let corners = [self.tile[row + x], self.tile[row + right], self.tile[below + x], self.tile[below + right]];
        [0, 1].map(|k| {
            let top = lerp(corners[0][k], corners[1][k], fx);
            lerp(top, lerp(corners[2][k], corners[3][k], fx), fy)
        })
    }

    /// The random number of the lattice cell that holds `point`.
    fn cell_at(&self, point: Point) -> f32 {
        let wrap = |x: f32| floor(x) as usize % TILE;
        self.tile[wrap(point[1]) * TILE + wrap(point[0])][0]
    }
}

/// The lattice index, wrapped, and the smoothed fraction.
fn cell(x: f32) -> (usize, f32) {
    let whole = floor(x);
    let fraction = x - whole as f32;
    (whole as usize % TILE, fraction * fraction * (3.0 - 2.0 * fraction))
}

/// The largest integer not above `x`. `f32::floor` is a call into the math library on plain x86-64.
fn floor(x: f32) -> i32 {
    let cut = x as i32;
    cut - i32::from(x < cut as f32)
}

/// The fine structure of a plate at `local`: the tilt it adds, in the plate's frame, and the factor on what it
/// reflects.
///
/// `pixel` is a pixel's side; line edges are softened over it.
pub fn fine(plate: &Plate, noise: &Noise, local: Point, pixel: f32) -> (Point, f32) {
    // Plates at different places read different parts of the tile.
    let shift = [plate.frame.origin[0] * 517.0, plate.frame.origin[1] * 731.0];
    let pair = |x: f32, y: f32| noise.pair([x + shift[0], y + shift[1]]);
    let sample = |x: f32, y: f32| pair(x, y)[0];
    match plate.pattern {
        Pattern::Plain => ([0.0, 0.0], 1.0),
        Pattern::Grain { period, depth } => {
            let (x, y) = (local[0] / period, local[1] / period);
            let coarse = sample(0.19 * y + 40.0, 0.19 * x);
            let (one, two) = (pair(x, y), pair(2.7 * y, 2.7 * x));
            let tilt = [depth * (0.6 * one[0] + 0.5 * two[0]), depth * (0.6 * one[1] + 0.5 * two[1])];
            (tilt, 1.0 + 0.22 * coarse + 0.3 * depth * tilt[0])
        }
        Pattern::Brushed { period, depth } => {
            let (x, y) = (local[0] / period, local[1] / period);
            let streak = 0.6 * sample(0.04 * x, y) + 0.5 * sample(0.11 * x, 2.3 * y + 31.0);
            let blotch = sample(0.08 * x + 77.0, 0.08 * y);
            ([0.15 * depth * blotch, depth * streak], 1.0 + 0.18 * blotch)
        }
        Pattern::Lines { pitch, duty, contrast } => {
            let lane = floor(local[1] / pitch) as f32;
            let phase = (local[1] / pitch - lane - 0.5).abs();
            let inside = smoothstep(-pixel, pixel, (0.5 * duty - phase) * pitch);
            // A lane breaks off here and there, and no two are equally bright.
            let piece = noise.cell_at([lane + shift[0], local[0] / (9.0 * pitch) + shift[1]]);
            let on = if piece > -0.55 { inside } else { 0.0 };
            let edge = inside * (1.0 - inside) * 4.0;
            let side = if local[1] / pitch - lane > 0.5 { 1.0 } else { -1.0 };
            ([0.0, side * edge * 0.5], 1.0 + on * contrast * (1.0 + 0.3 * piece) + 0.1 * sample(local[0] * 40.0, lane))
        }
        Pattern::Cells { pitch, contrast } => {
            let row = floor(local[1] / pitch) as f32;
            let wide = local[0] / (pitch * (1.5 + noise.cell_at([row, shift[0]])));
            let value = noise.cell_at([wide + shift[0], row + shift[1]]);
            let rail = smoothstep(0.35, 0.5, (local[1] / pitch - row - 0.5).abs());
            ([0.25 * value, 0.3 * rail * value], 1.0 + contrast * (0.7 * value + 0.5 * rail))
        }
    }
}
