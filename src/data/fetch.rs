//! The way of one image into a batch: from memory, or from as much of its file as is needed.
//!
//! A JPEG that [`Baseline`] takes becomes planes at a scale that the file's size and the transform decide, so that what is in memory
//! changes no pixel. While there is room for all of it in the cache it is decoded whole and kept; otherwise only the window of the
//! crop is. The first time, a file is read to its end in any case: which decoder it belongs to, or that it is damaged, must
//! not depend on the crop.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::augment::{Choice, Crop, Transform};
use super::cache::Cache;
use super::dataset::Dataset;
use super::decode::{Baseline, decode_as};
use super::image::{Image, Region};
use super::normalization::Normalization;
use super::picture::{Part, Picture};
use super::planes::Planes;
use super::source::Source;
use crate::random::Rng;

thread_local! {
    /// Planes that are no longer needed, for the next image's.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What an image is made from.
pub(super) struct Stores<'a> {
    pub source: &'a dyn Source,
    pub cache: &'a Cache<Picture>,
    pub sound: &'a [AtomicBool],
}

impl Dataset {
    /// Keeps at most so many bytes of decoded images in memory, from now on; those that are there stay. No result depends on it.
    pub fn limit_cache(&self, limit_bytes: u64) {
        self.stores().cache.set_limit_bytes(limit_bytes);
        self.keep_images();
    }

    /// An image as pixels, through the cache where it holds pixels.
    pub(super) fn load_file(&self, file: u32) -> Result<Arc<Image>, Arc<str>> {
        let index = file as usize;
        let Stores { source, cache, .. } = self.stores();
        if let Some(kept) = cache.get(index)
            && let Picture::Pixels(image) = &*kept?
        {
            return Ok(image.clone());
        }
        let bytes = source.bytes(index).transpose();
        // The cache holds such a file as planes, for batches, or not at all.
        let as_planes = matches!(&bytes, Ok(Some(bytes)) if Baseline::new(bytes).is_some());
        let image = bytes.and_then(|bytes| match bytes {
            Some(bytes) => decode_as(&bytes, source.channels()).map_err(|error| error.to_string()),
            None => source.load(index),
        });
        let image = image.map(Arc::new);
        if !as_planes || image.is_err() {
            let _ = cache.keep(index, image.clone().map(Picture::Pixels));
        }
        image.map_err(Into::into)
    }

    /// The `region` of the `index`-th image (in pixels at the scale that it has for random crops of that size) at height and width `size`,
    /// or its center if there is none, as batches have it before they are normalized: `[C, H, W]`, 0 to 255.
    pub fn part(&self, index: usize, region: Option<Region>, size: (usize, usize)) -> Result<Vec<f32>, String> {
        let crop = if region.is_some() { Crop::Random } else { Crop::Center };
        let transform = Transform { size, crop, flip: false };
        let part = self.fetch(index, &transform, false, |_, _| Choice { region, flipped: false })?;
        let channels = self.channels();
        let bytes = Normalization { mean: vec![0.0; channels], std: vec![1.0 / 255.0; channels] };
        let mut out = vec![0.0; channels * size.0 * size.1];
        part.write(&bytes, &mut out);
        Ok(out)
    }

    /// The `index`-th image of this view for training: its draws are those of `rng`, from where it stands.
    pub(super) fn train_part(&self, index: usize, transform: &Transform, rng: &Rng) -> Result<Part, String> {
        self.fetch(index, transform, true, |width, height| transform.choose(width, height, &mut rng.clone()))
    }

    /// The same for evaluation; `keep` says whether the cache is to keep the image.
    pub(super) fn eval_part(&self, index: usize, transform: &Transform, keep: bool) -> Result<Part, String> {
        self.fetch(index, transform, keep, |_, _| Choice { region: None, flipped: false })
    }

    fn fetch(
        &self,
        index: usize,
        transform: &Transform,
        keep: bool,
        choose: impl Fn(usize, usize) -> Choice,
    ) -> Result<Part, String> {
        let file = self.file(index);
        let stores = self.stores();
        let finish = |picture: &Picture, choice: Choice| {
            let mut part = picture.part(transform, choice.region);
            if choice.flipped {
                part.flip();
            }
            part
        };
        match stores.cache.get(file) {
            Some(Err(reason)) => return Err(reason.to_string()),
            Some(Ok(picture)) if picture.is_for(transform) => {
                let (width, height) = picture.size();
                return Ok(finish(&picture, choose(width, height)));
            }
            _ => {}
        }
        let bytes = stores.source.bytes(file).transpose();
        if let Ok(Some(bytes)) = &bytes
            && let Some((planes, choice)) = self.planes(file, bytes, transform, keep, &choose)
        {
            let picture = Picture::Planes(planes);
            let part = finish(&picture, choice);
            if let Picture::Planes(planes) = picture {
                if keep && planes.is_whole() {
                    let _ = stores.cache.keep(file, Ok(Picture::Planes(planes)));
                } else {
                    BUFFERS.set(planes.planes.into_iter().map(|plane| plane.samples).collect());
                }
            }
            return Ok(part);
        }
        let image = bytes.and_then(|bytes| match bytes {
            Some(bytes) => decode_as(&bytes, self.channels()).map_err(|error| error.to_string()),
            None => stores.source.load(file),
        });
        let picture = image.map(|image| Picture::Pixels(image.into()));
        let picture = if keep { stores.cache.keep(file, picture) } else { picture.map(Into::into).map_err(Into::into) };
        let picture = picture.map_err(|reason| reason.to_string())?;
        let (width, height) = picture.size();
        Ok(finish(&picture, choose(width, height)))
    }

    /// As much of a JPEG as is needed; `None` if it is not of the usual kind.
    fn planes(
        &self,
        file: usize,
        bytes: &[u8],
        transform: &Transform,
        keep: bool,
        choose: impl Fn(usize, usize) -> Choice,
    ) -> Option<(Planes, Choice)> {
        let channels = self.channels();
        let jpeg = Baseline::new(bytes).filter(|_| channels != 2)?;
        let (width, height) = jpeg.size(1);
        let scale = transform.scale(width, height);
        let choice = choose((width / scale).max(1), (height / scale).max(1)); // Crops have whole pixels.
        let (width, height) = jpeg.size(scale);
        let whole = Region::whole(width, height);
        let stores = self.stores();
        let channels = channels.min(jpeg.channels());
        let keeps = keep && stores.cache.has_room_for(file, (width * height * channels) as u64);
        let window = if keeps { whole } else { choice.region.unwrap_or(whole) };
        let sound = &stores.sound[file];
        let buffers = if keeps { Vec::new() } else { BUFFERS.take() };
        let planes = jpeg.decode(scale, window, channels, !sound.load(Ordering::Relaxed), buffers)?;
        sound.store(true, Ordering::Relaxed);
        Some((planes, choice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::normalize_into;
    use crate::data::testing::{gradient, jpeg_bytes, png_bytes, with_exif_orientation};
    use crate::data::{Loader, LoaderConfig, Spec};

    #[test]
    fn a_reduced_image_lies_where_the_whole_one_does() {
        // Slopes: what is shifted or stretched by a pixel of the file is off by a level; sides that no scale divides.
        let mut scales = Vec::new();
        for (width, height) in [(333, 501), (255, 333), (333, 255)] {
            let slope = |at: usize, length: usize| (at * 255 / (length - 1)) as u8;
            let pixel = |i: usize| [slope(i % width, width), slope(i / width, height), 128];
            let pixels: Vec<u8> = (0..width * height).flat_map(pixel).collect();
            let image = Image { width, height, channels: 3, pixels };
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("x.jpg"), jpeg_bytes(&image)).unwrap();
            let dataset = Dataset::open(&Spec::Folder(dir.path().into())).unwrap();
            for side in [10, 14, 32, 128] {
                for crop in [Crop::Center, Crop::None] {
                    let transform = Transform { size: (side, side), crop, flip: false };
                    scales.push(transform.scale(width, height));
                    let normalization = Normalization { mean: vec![0.0; 3], std: vec![1.0 / 255.0; 3] };
                    let [mut ours, mut whole] = [(); 2].map(|()| vec![0.0; 3 * side * side]);
                    dataset.eval_part(0, &transform, false).unwrap().write(&normalization, &mut ours);
                    normalize_into(&transform.eval(&image), &normalization, &mut whole);
                    let off = ours.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(off < 3.0, "{width} x {height} to {side}, {crop:?}: off by {off}");
                }
            }
        }
        assert!([1, 2, 4, 8].iter().all(|scale| scales.contains(scale)), "{scales:?}");
    }

    #[test]
    fn what_is_in_memory_changes_no_bit() {
        // JPEGs of all kinds, a damaged one, an oriented one, and a PNG.
        let dir = tempfile::tempdir().unwrap();
        let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/jpeg");
        for entry in std::fs::read_dir(samples).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        let image = gradient(50, 40, 3);
        let jpeg = jpeg_bytes(&image);
        std::fs::write(dir.path().join("cut.jpg"), &jpeg[..jpeg.len() * 3 / 4]).unwrap();
        std::fs::write(dir.path().join("turned.jpg"), with_exif_orientation(&jpeg, 6)).unwrap();
        std::fs::write(dir.path().join("x.png"), png_bytes(&image)).unwrap();
        let spec = Spec::Folder(dir.path().into());
        for crop in [Crop::Random, Crop::Center, Crop::None] {
            let loader = |cache, workers| {
                let dataset = Dataset::open_with_cache(&spec, cache).unwrap();
                assert_eq!(dataset.len(), 14);
                let (image_size, seed) = ((6, 8), 9);
                let config = LoaderConfig { batch: 14, micro_batches: 1, image_size, crop, flip: true, seed, workers };
                Loader::new(dataset, config).unwrap()
            };
            let (none, some, all) = (loader(0, 1), loader(12_000, 3), loader(1 << 30, 2));
            // From the second epoch on, images come from memory, and files are known to be sound.
            for step in 0..4 {
                let expected = none.micro(step, 0).unwrap();
                assert!(expected.pixels.iter().all(|value| value.is_finite()));
                assert_eq!(some.micro(step, 0).unwrap(), expected, "{crop:?} {step}");
                assert_eq!(all.micro(step, 0).unwrap(), expected, "{crop:?} {step}");
                // One that knows nothing yet.
                assert_eq!(loader(0, 1).micro(step, 0).unwrap(), expected, "{crop:?} {step}");
            }
            assert_eq!(none.dataset().skipped().len(), 1);
            let partly = some.dataset().clone();
            partly.limit_cache(0);
            assert_eq!(some.micro(9, 0).unwrap(), none.micro(9, 0).unwrap());
        }
    }
}
