//! Generated photographs of wire bonds, with exact label maps: a stand-in for a private set of semiconductor images.
//!
//! A scene (die, pads, leads, wires, epoxy) is drawn at random, painted under two light settings, and photographed with
//! the faults of a microscope. Everything is a pure function of (seed, index, size); the scene depends on seed and
//! index alone, so a larger size shows the same package with more pixels. Machines whose `cos`, `ln` or `exp` differ in
//! the last bit may disagree about single pixels.

mod layout;
mod light;
mod render;
mod scene;
mod sensor;
mod setting;
mod texture;

use super::image::Image;
use crate::random::{Key, Stream};

/// Names of the labels 0 to 4.
pub const CLASSES: [&str; 5] = ["background", "wire", "ball", "wedge", "epoxy"];

/// One generated photograph and its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `[size, size, 2]`: bright field, dark field.
    pub image: Image,
    /// `[size, size]`: an index into [`CLASSES`] per pixel, of what lies on top at the pixel's center.
    pub mask: Vec<u8>,
}

/// Draws image `index` of the set that belongs to `seed`, `size × size` pixels.
///
/// `size` is at least 1; it scales the scene, which was made to be looked at from 64 to 2048.
pub fn generate(seed: u64, index: u64, size: usize) -> Sample {
    let key = Key::new(seed, Stream::Generate).index(index);
    let scene = layout::draw(&mut key.micro(0).rng());
    let noise = texture::Noise::new(&mut key.micro(1).rng());
    let rendered = render::render(&scene, &noise, size);
    let image = sensor::expose(&scene.camera, rendered.radiance, rendered.height, size, &mut key.micro(2).rng());
    Sample { image, mask: rendered.mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 128;

    fn samples(count: u64) -> Vec<Sample> {
        (0..count).map(|index| generate(5, index, SIZE)).collect()
    }

    /// How often each of 256 levels has each label: the whole of what brightness alone can tell.
    fn histogram(samples: &[Sample], channel: usize) -> [[u64; 5]; 256] {
        let mut counts = [[0; 5]; 256];
        for sample in samples {
            for (pixel, &label) in sample.image.pixels.chunks_exact(2).zip(&sample.mask) {
                counts[usize::from(pixel[channel])][usize::from(label)] += 1;
            }
        }
        counts
    }

    /// The best mean over two classes (chosen against the rest) of IoU that an interval of brightness, or what lies
    /// outside one, can reach.
    fn best_interval(counts: &[[u64; 5]; 256], chosen: impl Fn(usize) -> bool) -> f64 {
        // Running totals below each level: [chosen, rest].
        let mut below = vec![[0u64; 2]];
        for level in counts {
            let mut sum = *below.last().unwrap();
            level.iter().enumerate().for_each(|(label, count)| sum[usize::from(!chosen(label))] += count);
            below.push(sum);
        }
        let total = below[256];
        let mean = |hit: u64, wrong: u64| {
            let one = hit as f64 / (total[0] + wrong) as f64;
            let other = (total[1] - wrong) as f64 / (total[1] + total[0] - hit) as f64;
            0.5 * (one + other)
        };
        let mut best: f64 = 0.0;
        for low in 0..=256 {
            for high in low..=256 {
                let (hit, wrong) = (below[high][0] - below[low][0], below[high][1] - below[low][1]);
                best = best.max(mean(hit, wrong)).max(mean(total[0] - hit, total[1] - wrong));
            }
        }
        best
    }

    /// Mean IoU over the classes if each level takes its most frequent label; `weight` counters the classes' rarity.
    fn lookup(counts: &[[u64; 5]; 256], weight: [f64; 5]) -> f64 {
        let (mut hit, mut said, mut truth) = ([0u64; 5], [0u64; 5], [0u64; 5]);
        for level in counts {
            let score = |label: usize| level[label] as f64 * weight[label];
            let choice = (0..5).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            hit[choice] += level[choice];
            said[choice] += level.iter().sum::<u64>();
            (0..5).for_each(|label| truth[label] += level[label]);
        }
        (0..5).map(|k| hit[k] as f64 / (said[k] + truth[k] - hit[k]) as f64).sum::<f64>() / 5.0
    }

    #[test]
    fn brightness_does_not_tell_the_classes() {
        let samples = samples(24);
        for channel in 0..2 {
            let counts = histogram(&samples, channel);
            let foreground = best_interval(&counts, |label| label > 0);
            assert!(foreground < 0.6, "channel {channel}: {foreground}");
            for (class, name) in CLASSES.iter().enumerate() {
                let one = best_interval(&counts, |label| label == class);
                assert!(one < 0.6, "channel {channel}, {name}: {one}");
            }
            let mut totals = [0u64; 5];
            counts.iter().for_each(|level| (0..5).for_each(|label| totals[label] += level[label]));
            let majority = lookup(&counts, [1.0; 5]);
            let balanced = lookup(&counts, totals.map(|total| 1.0 / total as f64));
            assert!(majority < 0.6 && balanced < 0.6, "channel {channel}: {majority}, {balanced}");
        }
        // Thresholds chosen anew for each image do not help either.
        let alone =
            samples.chunks(1).map(|one| best_interval(&histogram(one, 0), |label| label > 0)).sum::<f64>() / 24.0;
        assert!(alone < 0.65, "{alone}");
    }

    #[test]
    fn the_same_index_gives_the_same_image() {
        for size in [64, 96] {
            assert_eq!(generate(1, 2, size), generate(1, 2, size));
        }
        assert_ne!(generate(1, 2, 64), generate(1, 3, 64));
        assert_ne!(generate(1, 2, 64), generate(2, 2, 64));
    }

    /// A coarse fingerprint, so that a change of the set is noticed: exact bytes would depend on the math library.
    #[test]
    fn the_set_stays_what_it_is() {
        let sample = generate(0, 0, SIZE);
        let expected = [0.899, 0.067, 0.010, 0.009, 0.015];
        for (share, expected) in shares(&sample).into_iter().zip(expected) {
            assert!((share - expected).abs() < 0.003, "{:.4?}", shares(&sample));
        }
        let mean = |channel: usize| {
            sample.image.pixels.iter().skip(channel).step_by(2).map(|&x| f64::from(x)).sum::<f64>()
                / (SIZE * SIZE) as f64
        };
        assert!((mean(0) - 108.6).abs() < 0.5 && (mean(1) - 104.9).abs() < 0.5, "{:.1} {:.1}", mean(0), mean(1));
    }

    fn shares(sample: &Sample) -> [f64; 5] {
        let mut shares = [0.0; 5];
        sample.mask.iter().for_each(|&label| shares[usize::from(label)] += 1.0 / sample.mask.len() as f64);
        shares
    }

    #[test]
    fn a_larger_size_shows_the_same_scene() {
        for index in 0..6 {
            let (small, large) = (generate(9, index, 96), generate(9, index, 288));
            let agree = (0..96 * 96).filter(|i| {
                let (x, y) = (i % 96, i / 96);
                small.mask[*i] == large.mask[(3 * y + 1) * 288 + 3 * x + 1]
            });
            // The middle of three pixels has the same center, and labels are taken at centers.
            assert!(agree.count() as f64 > 0.999 * 96.0 * 96.0, "index {index}");
        }
    }

    #[test]
    fn all_classes_are_there_in_sensible_shares() {
        let samples = samples(48);
        let mut mean = [0.0; 5];
        let mut present = [0; 5];
        for sample in &samples {
            let shares = shares(sample);
            for class in 0..5 {
                mean[class] += shares[class] / samples.len() as f64;
                present[class] += usize::from(shares[class] > 0.0005);
            }
        }
        assert!(present.iter().all(|&count| count >= 46), "{present:?}");
        let expected = [(0.7, 0.9), (0.04, 0.14), (0.008, 0.05), (0.008, 0.05), (0.03, 0.14)];
        for (class, (low, high)) in expected.into_iter().enumerate() {
            assert!(low < mean[class] && mean[class] < high, "{}: {}", CLASSES[class], mean[class]);
        }
    }

    #[test]
    fn the_channels_are_related_but_not_copies() {
        let mut all = Vec::new();
        for sample in samples(48) {
            let count = sample.mask.len() as f64;
            let mut sums = [0.0; 5];
            for pixel in sample.image.pixels.chunks_exact(2) {
                let (x, y) = (f64::from(pixel[0]), f64::from(pixel[1]));
                sums.iter_mut().zip([x, y, x * x, y * y, x * y]).for_each(|(sum, value)| *sum += value / count);
            }
            let [x, y, xx, yy, xy] = sums;
            all.push((xy - x * y) / ((xx - x * x) * (yy - y * y)).sqrt());
        }
        all.sort_by(f64::total_cmp);
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        assert!((0.2..0.97).contains(&mean), "{mean}");
        // The outer twentieths may be out of the range.
        assert!(all[2] > 0.2 && all[45] < 0.97, "{all:.2?}");
    }

    #[test]
    fn any_size_works() {
        for size in [1, 2, 17, 300] {
            let sample = generate(3, 1, size);
            assert_eq!((sample.image.width, sample.image.height, sample.image.channels), (size, size, 2));
            assert_eq!(sample.image.pixels.len(), 2 * size * size);
            assert_eq!(sample.mask.len(), size * size);
            assert!(sample.mask.iter().all(|&label| usize::from(label) < CLASSES.len()));
        }
    }
}
