//! From radiance to bytes: uneven illumination, depth of field, exposure, shot and read noise.
//!
//! Depth of field gathers: each pixel mixes a sharp and a soft version of the picture by its own distance from the
//! plane of focus. A scattering lens would let a blurred wire spill over a sharp ground; at these blurs one cannot
//! tell.

use super::scene::{Camera, dot};
use crate::data::image::Image;
use crate::random::Rng;

/// Photographs the two radiance planes; `height` is that of the surface seen at each pixel, in image sides.
pub fn expose(camera: &Camera, planes: [Vec<f32>; 2], height: Vec<f32>, size: usize, rng: &mut Rng) -> Image {
    let height = blur(&height, size, 0.5 * camera.soft * size as f32);
    let mut image = Image::filled(size, size, 2, 0);
    for (channel, mut plane) in planes.into_iter().enumerate() {
        illuminate(camera, channel, &mut plane, size);
        let sharp = blur(&plane, size, camera.sharp * size as f32);
        let soft = blur(&plane, size, camera.soft * size as f32);
        let mean = sharp.iter().sum::<f32>() / sharp.len() as f32;
        let gain = camera.exposure[channel] / mean.max(1e-3);
        let (shot, read) = (camera.shot[channel], camera.read[channel]);
        for y in 0..size {
            let row = camera.black[channel] + camera.row[channel] * bell(rng);
            for x in 0..size {
                let i = y * size + x;
                let out = ((height[i] - camera.focus).abs() / camera.depth).min(1.0);
                let signal = gain * (sharp[i] + (soft[i] - sharp[i]) * out);
                let value = row + signal + bell(rng) * (read * read + shot * signal.max(0.0)).sqrt();
                image.pixels[2 * i + channel] = (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
    image
}

fn illuminate(camera: &Camera, channel: usize, plane: &mut [f32], size: usize) {
    let (slope, vignette) = (camera.slope[channel], camera.vignette[channel]);
    for (y, row) in plane.chunks_exact_mut(size).enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            let from = [(x as f32 + 0.5) / size as f32 - 0.5, (y as f32 + 0.5) / size as f32 - 0.5];
            *value *= (1.0 + dot(slope, from)) * (1.0 - vignette * 2.0 * dot(from, from));
        }
    }
}

/// Nearly normal, mean 0, variance 1: the sum of four bytes (Irwin and Hall). Much cheaper than a logarithm.
fn bell(rng: &mut Rng) -> f32 {
    let sum: u32 = rng.next_u32().to_le_bytes().iter().map(|&byte| u32::from(byte)).sum();
    // Four times the variance of a byte, (256² − 1)/12.
    (sum as f32 - 510.0) * (1.0 / 147.799)
}

/// Gaussian blur, `sigma` in pixels; the border is repeated.
fn blur(plane: &[f32], size: usize, sigma: f32) -> Vec<f32> {
    if sigma < 0.15 {
        return plane.to_vec();
    }
    let kernel = kernel(sigma);
    let reach = kernel.len() - 1;
    let mut middle = vec![0.0; plane.len()];
    let mut padded = vec![0.0; size + 2 * reach];
    for (from, to) in plane.chunks_exact(size).zip(middle.chunks_exact_mut(size)) {
        padded[..reach].fill(from[0]);
        padded[reach..reach + size].copy_from_slice(from);
        padded[reach + size..].fill(from[size - 1]);
        for tap in 0..=2 * reach {
            let weight = kernel[tap.abs_diff(reach)];
            to.iter_mut().zip(&padded[tap..]).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    let mut out = vec![0.0; plane.len()];
    for (y, to) in out.chunks_exact_mut(size).enumerate() {
        for tap in 0..=2 * reach {
            let from = (y + tap).saturating_sub(reach).min(size - 1) * size;
            let weight = kernel[tap.abs_diff(reach)];
            to.iter_mut().zip(&middle[from..from + size]).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    out
}

/// The right half of a Gaussian, center first; all 2·len − 1 weights sum to 1.
fn kernel(sigma: f32) -> Vec<f32> {
    let reach = (2.6 * sigma).ceil() as usize;
    let mut half: Vec<f32> = (0..=reach).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let sum = 2.0 * half.iter().sum::<f32>() - half[0];
    half.iter_mut().for_each(|weight| *weight /= sum);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Key, Stream};

    #[test]
    fn blur_keeps_the_sum_and_widens_as_asked() {
        let size = 33;
        let mut plane = vec![0.0; size * size];
        plane[16 * size + 16] = 1.0;
        let blurred = blur(&plane, size, 2.0);
        let sum: f32 = blurred.iter().sum();
        let variance: f32 = (0..size * size).map(|i| blurred[i] * ((i % size) as f32 - 16.0).powi(2)).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        assert!((variance.sqrt() - 2.0).abs() < 0.08, "{}", variance.sqrt());
        assert!(blur(&vec![3.0; size * size], size, 4.0).iter().all(|value| (value - 3.0).abs() < 1e-4));
    }

    #[test]
    fn bell_has_its_moments() {
        let mut rng = Key::new(1, Stream::Generate).rng();
        let draws: Vec<f32> = (0..100_000).map(|_| bell(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        let variance = draws.iter().map(|x| x * x).sum::<f32>() / draws.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
