//! A contact sheet: images beside their masks, laid over them in the colors of the classes, and a row of these colors below.

use image::{ImageFormat, RgbImage};

use super::classes::{BACKGROUND, IGNORE};
use super::dataset::Dataset;
use super::error::DataError;
use super::image::{Image, Region};
use super::resize::{View, resize_window};

/// Images on a sheet, and in a row of it.
const IMAGES: usize = 16;
const PER_ROW: usize = 4;
/// The long edge of an image on the sheet, pixels between images, and the side of a color in the legend.
const TILE: usize = 192;
const GAP: usize = 6;
const SWATCH: usize = 20;
/// How much of an overlay is the class's color, of 256.
const OPACITY: u32 = 140;
const PAPER: [u8; 3] = [255; 3];

impl Dataset {
    /// A PNG with up to 16 images, evenly spaced in file order. A mask is shown beside its image: no color on the class
    /// "background", white stripes where nothing is labeled. The legend has the classes' colors in the order of their labels.
    ///
    /// Images of two channels show both side by side in gray, the overlay on the first.
    ///
    /// Errors: no file can be read.
    pub fn preview(&self) -> Result<Vec<u8>, DataError> {
        let count = self.len().min(IMAGES);
        let (mut tiles, mut first_reason) = (Vec::new(), None);
        for i in 0..count {
            let file = i * self.len() / count;
            match self.tiles(file) {
                Ok(made) => tiles.push(made),
                Err(reason) => first_reason = first_reason.or(Some((file, reason))),
            }
        }
        if let (true, Some((file, reason))) = (tiles.is_empty(), first_reason) {
            return Err(DataError::NoReadable { attempts: count, name: self.name(file), reason });
        }
        let colors = self.classes().filter(|_| self.has_masks()).map_or(&[][..], |table| table.colors.as_slice());
        let sheet = sheet(&tiles, colors);
        let mut bytes = std::io::Cursor::new(Vec::new());
        let written = sheet.write_to(&mut bytes, ImageFormat::Png);
        written.map_err(|error| DataError::Worker(format!("the preview cannot be encoded: {error}")))?;
        Ok(bytes.into_inner())
    }

    /// The image, and the image under its mask, small and in RGB.
    fn tiles(&self, file: usize) -> Result<Vec<Image>, String> {
        if !self.has_masks() {
            return Ok(views(&small(&*self.load(file)?)));
        }
        let (image, mask) = self.load_pair(file)?;
        let image = small(&image);
        let mut tiles = views(&image);
        let table = self.classes().map_or(&[][..], |table| table.colors.as_slice());
        let clear = self.classes().and_then(|table| table.names.iter().position(|name| name == BACKGROUND));
        let mut overlay = tiles[0].clone();
        for (i, pixel) in overlay.pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x, y) = (i % image.width, i / image.width);
            let label = mask.labels[y * mask.height / image.height * mask.width + x * mask.width / image.width];
            let color = match table.get(usize::from(label)) {
                _ if label == IGNORE => ((x + y) / 3 % 2 == 0).then_some(PAPER),
                _ if Some(usize::from(label)) == clear => None,
                color => color.copied(),
            };
            if let Some(color) = color {
                let mixed = |c: usize| (u32::from(pixel[c]) * (256 - OPACITY) + u32::from(color[c]) * OPACITY) >> 8;
                *pixel = [0, 1, 2].map(|c| mixed(c) as u8);
            }
        }
        tiles.push(overlay);
        Ok(tiles)
    }
}

/// With a long edge of [`TILE`].
fn small(image: &Image) -> Image {
    let scale = TILE as f64 / image.width.max(image.height).max(1) as f64;
    let side = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    let (width, height) = (side(image.width), side(image.height));
    resize_window(&View::of(image), (height, width), Region { left: 0, top: 0, width, height })
}

/// In RGB; of an image that is neither gray nor RGB, each channel in gray.
fn views(image: &Image) -> Vec<Image> {
    let gray = |channel: usize| {
        let values = image.pixels[channel..].iter().step_by(image.channels);
        Image { channels: 3, pixels: values.flat_map(|&value| [value; 3]).collect(), ..*image }
    };
    if image.channels == 3 { vec![image.clone()] } else { (0..image.channels).map(gray).collect() }
}

fn sheet(rows: &[Vec<Image>], colors: &[[u8; 3]]) -> RgbImage {
    let columns = PER_ROW.min(rows.len()).max(1);
    let cell = |tiles: &Vec<Image>| tiles.iter().map(|tile| tile.width + 2).sum::<usize>();
    let cell_width = rows.iter().map(cell).max().unwrap_or(TILE) + GAP;
    let heights: Vec<usize> =
        rows.chunks(columns).map(|row| row.iter().flatten().map(|tile| tile.height).max().unwrap_or(0) + GAP).collect();
    let width = GAP + columns * cell_width;
    let per_line = ((width - GAP) / (SWATCH + 2)).max(1);
    let height = GAP + heights.iter().sum::<usize>() + colors.len().div_ceil(per_line) * (SWATCH + 2) + GAP;
    let mut sheet = RgbImage::from_pixel(width as u32, height as u32, image::Rgb(PAPER));
    let mut top = GAP;
    for (row, height) in rows.chunks(columns).zip(heights) {
        for (column, tiles) in row.iter().enumerate() {
            let mut left = GAP + column * cell_width;
            for tile in tiles {
                paste(&mut sheet, tile, left, top);
                left += tile.width + 2;
            }
        }
        top += height;
    }
    for (i, &color) in colors.iter().enumerate() {
        let swatch = Image { pixels: color.repeat(SWATCH * SWATCH), ..Image::filled(SWATCH, SWATCH, 3, 0) };
        paste(&mut sheet, &swatch, GAP + i % per_line * (SWATCH + 2), top + i / per_line * (SWATCH + 2));
    }
    sheet
}

fn paste(sheet: &mut RgbImage, tile: &Image, left: usize, top: usize) {
    for (i, &pixel) in tile.pixels.as_chunks::<3>().0.iter().enumerate() {
        let (x, y) = (left + i % tile.width, top + i / tile.width);
        if x < sheet.width() as usize && y < sheet.height() as usize {
            sheet.put_pixel(x as u32, y as u32, image::Rgb(pixel));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::decode::decode;
    use crate::data::spec::Spec;

    #[test]
    fn a_sheet_is_a_readable_png() {
        let dataset = Dataset::open(&Spec::Wirebond { size: 48, count: 7, seed: 0 }).unwrap();
        let sheet = decode(&dataset.preview().unwrap()).unwrap();
        assert_eq!(sheet.width, GAP + 4 * (3 * (TILE + 2) + GAP));
        assert!(sheet.height > 2 * TILE && sheet.channels == 3);
    }
}
