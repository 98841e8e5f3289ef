use super::*;
use crate::data::decode::decode;
use crate::data::image::Image;
use crate::data::normalization::Normalization;
use crate::data::planes::colors_into;
use crate::data::resample::Axis;
use crate::data::testing::{gradient, jpeg_bytes, with_exif_orientation};
use crate::random::{Key, Stream};

/// Files of `tests/reference/jpeg`, by name.
fn files() -> Vec<(String, Vec<u8>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/jpeg");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 11);
    files
}

fn whole(jpeg: &Baseline, scale: usize) -> Option<Planes> {
    let (width, height) = jpeg.size(scale);
    jpeg.decode(scale, Region::whole(width, height), jpeg.channels(), true, Vec::new())
}

/// A part at its own size, as red, green and blue, or gray.
fn colors(planes: &Planes, region: Region) -> Vec<f32> {
    let axis =
        |start: usize, count: usize| Axis { start: start as f64, scale: 1.0, bounds: (start, start + count), count };
    let images = planes.resized(axis(region.left, region.width), axis(region.top, region.height));
    match images.as_slice() {
        [y, cb, cr] => {
            let mut out = vec![0.0; 3 * y.pixels.len()];
            let bytes = Normalization { mean: vec![0.0; 3], std: vec![1.0 / 255.0; 3] };
            colors_into([y, cb, cr], &bytes, &mut out);
            out
        }
        gray => gray[0].pixels.iter().map(|&value| f32::from(value)).collect(),
    }
}

/// Mean and largest absolute difference from an interleaved image.
fn differences(ours: &[f32], image: &Image) -> (f32, f32) {
    let area = image.width * image.height;
    assert_eq!(ours.len(), image.pixels.len());
    let difference =
        |(i, &value): (usize, &f32)| (value - f32::from(image.pixels[i % area * image.channels + i / area])).abs();
    let all = ours.iter().enumerate().map(difference);
    (all.clone().sum::<f32>() / ours.len() as f32, all.fold(0.0, f32::max))
}

#[test]
fn every_kind_is_as_the_other_decoder_shows_it() {
    for (name, bytes) in files() {
        let jpeg = Baseline::new(&bytes).unwrap_or_else(|| panic!("{name} is not taken"));
        let planes = whole(&jpeg, 1).unwrap_or_else(|| panic!("{name} is not decoded"));
        let theirs = decode(&bytes).unwrap();
        assert_eq!(planes.planes[0].full, (theirs.width, theirs.height), "{name}");
        let (mean, largest) = differences(&colors(&planes, Region::whole(theirs.width, theirs.height)), &theirs);
        // Colors and transforms are rounded in other places; coarse chroma also in other ways.
        assert!(mean < 0.8 && largest < 8.0, "{name}: mean {mean}, largest {largest}");
    }
}

#[test]
fn a_window_is_a_cut_of_the_whole() {
    for (name, bytes) in files() {
        let jpeg = Baseline::new(&bytes).unwrap();
        for scale in [1, 2, 4, 8] {
            let planes = whole(&jpeg, scale).unwrap();
            assert!(planes.is_whole());
            for index in 0..15 {
                let mut rng = Key::new(3, Stream::Augment).index(index).rng();
                let mut span = |full: usize| {
                    let length = 1 + rng.below(full as u64) as usize;
                    (rng.below((full - length + 1) as u64) as usize, length)
                };
                let ((left, width), (top, height)) = (span(planes.planes[0].full.0), span(planes.planes[0].full.1));
                let region = Region { left, top, width, height };
                let window =
                    jpeg.decode(scale, region, jpeg.channels(), index % 2 == 0, vec![vec![7; 999]; 3]).unwrap();
                assert_eq!(colors(&window, region), colors(&planes, region), "{name} 1/{scale} {region:?}");
            }
        }
    }
}

#[test]
fn a_reduced_picture_is_the_mean_of_the_whole() {
    for (name, bytes) in files() {
        let jpeg = Baseline::new(&bytes).unwrap();
        let full = whole(&jpeg, 1).unwrap();
        for scale in [2, 4, 8] {
            let small = whole(&jpeg, scale).unwrap();
            let (full, small) = (&full.planes[0], &small.planes[0]);
            for x in 0..full.full.0 / scale {
                for y in 0..full.full.1 / scale {
                    let of = |i: usize| (x * scale + i / scale) * full.stride + y * scale + i % scale;
                    let sum: u32 = (0..scale * scale).map(|i| u32::from(full.samples[of(i)])).sum();
                    let mean = (sum as f32) / (scale * scale) as f32;
                    let ours = f32::from(small.samples[x * small.stride + y]);
                    // Samples that were cut off at 0 and 255 count as they were before.
                    assert!((mean - ours).abs() <= 6.0, "{name} 1/{scale} at {x}, {y}: {ours}, mean {mean}");
                }
            }
        }
    }
}

#[test]
fn other_kinds_are_not_taken() {
    let bytes = jpeg_bytes(&gradient(24, 16, 3));
    assert!(Baseline::new(&bytes).is_some());
    assert!(Baseline::new(&with_exif_orientation(&bytes, 1)).is_some());
    assert!(Baseline::new(&with_exif_orientation(&bytes, 6)).is_none());
    for (marker, other) in [(0xc0, 0xc2), (0xc0, 0xc9), (0xdb, 0xdc)] {
        let mut bytes = bytes.clone();
        let at = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
        bytes[at + 1] = other;
        assert!(Baseline::new(&bytes).is_none(), "{other:x}");
    }
    // Adobe's marker says that there are no differences of colors.
    let adobe = [b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0".as_slice()].concat();
    let rgb = [&bytes[..2], &adobe, &bytes[2..]].concat();
    assert!(Baseline::new(&rgb).is_none());
}

#[test]
fn what_ends_early_is_not_decoded() {
    for (name, bytes) in files() {
        for length in (0..bytes.len() - 1).step_by(3) {
            let cut = &bytes[..length];
            assert!(Baseline::new(cut).is_none_or(|jpeg| whole(&jpeg, 1).is_none()), "{name} cut to {length}");
        }
        // An end marker where data should be.
        let jpeg = Baseline::new(&bytes).unwrap();
        for at in (jpeg.header.data..bytes.len() - 3).step_by(5) {
            let ended = [&bytes[..at], &[0xff, 0xd9]].concat();
            let Some(jpeg) = Baseline::new(&ended) else { continue };
            assert!(whole(&jpeg, 1).is_none(), "{name} ended at {at} of {}", bytes.len());
        }
    }
}

#[test]
fn damage_is_refused_or_decoded_but_never_a_panic() {
    let (mut refused, mut decoded) = (0, 0);
    for (file, (_, bytes)) in files().into_iter().enumerate() {
        for case in 0..300 {
            let mut rng = Key::new(5, Stream::Augment).step(file as u64).index(case).rng();
            let mut bytes = bytes.clone();
            // Half of the cases hit the compressed data alone.
            let from = if case % 2 == 0 { 2 } else { Baseline::new(&bytes).unwrap().header.data };
            for _ in 0..1 + case % 4 {
                let at = from + rng.below((bytes.len() - from) as u64) as usize;
                bytes[at] = if case % 3 == 0 { bytes[at] ^ 1 << rng.below(8) } else { rng.next_u32() as u8 };
            }
            let Some(jpeg) = Baseline::new(&bytes) else {
                refused += 1;
                continue;
            };
            let (width, height) = jpeg.size(1);
            if width * height > 1 << 20 {
                continue;
            }
            let region = Region { left: width / 3, top: height / 3, width: 1 + width / 3, height: 1 + height / 3 };
            let window = jpeg.decode(1, region, jpeg.channels(), false, Vec::new());
            match whole(&jpeg, 1) {
                // What is sound as a whole is sound in its parts, and they are the same.
                Some(planes) => {
                    assert_eq!(colors(&window.unwrap(), region), colors(&planes, region));
                    decoded += 1;
                }
                None => refused += 1,
            }
        }
    }
    assert!(refused > 800 && decoded > 100, "{refused} {decoded}");
}
