//! Pictures, folders and sources for the tests of this module.

use std::path::Path;

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::image::Image;
use super::source::Source;

/// A smooth picture in which every pixel differs from its neighbors.
pub fn gradient(width: usize, height: usize, channels: usize) -> Image {
    let value = |x: usize, y: usize, c: usize| (x * 180 / width + y * 60 / height + c * 7) as u8;
    let pixels = (0..width * height * channels)
        .map(|i| value(i / channels % width, i / channels / width, i % channels))
        .collect();
    Image { width, height, channels, pixels }
}

fn color(image: &Image) -> ExtendedColorType {
    if image.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 }
}

pub fn png_bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    encoder.write_image(&image.pixels, image.width as u32, image.height as u32, color(image)).unwrap();
    bytes
}

pub fn jpeg_bytes(image: &Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.write_image(&image.pixels, image.width as u32, image.height as u32, color(image)).unwrap();
    bytes
}

/// The JPEG with an EXIF segment behind its start marker that states `orientation`.
pub fn with_exif_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut tiff = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (tiff.len() + 2) as u16;
    [&jpeg[..2], &[0xff, 0xe1], &length.to_be_bytes(), &tiff, &jpeg[2..]].concat()
}

/// Writes `count` small PNGs, `000.png` and so on, each of another shade.
pub fn fill_folder(folder: &Path, count: usize) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..count {
        let mut image = gradient(12, 10, 3);
        image.pixels[0] = i as u8;
        std::fs::write(folder.join(format!("{i:03}.png")), png_bytes(&image)).unwrap();
    }
}

/// Images in memory: image `i` is `size × size` of value `i`, unreadable if `bad(i)`.
pub struct Shades<F> {
    pub count: usize,
    pub size: usize,
    pub bad: F,
}

impl<F: Fn(usize) -> bool + Send + Sync> Source for Shades<F> {
    fn len(&self) -> usize {
        self.count
    }

    fn name(&self, index: usize) -> String {
        format!("{index:05}")
    }

    fn channels(&self) -> usize {
        3
    }

    fn load(&self, index: usize) -> Result<Image, String> {
        if (self.bad)(index) {
            return Err("bad on purpose".into());
        }
        Ok(Image::filled(self.size, self.size, 3, index as u8))
    }
}
