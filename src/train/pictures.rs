//! Pictures a person looks at: originals, what the encoder saw, and what the model made of it, side by side.

use std::path::Path;

use image::{ImageFormat, RgbImage};
use tch::{Device, Kind, Tensor};

use super::error::At;
use super::{TrainError, TrainResult};

/// Pixels between the tiles, and their gray.
const GAP: u32 = 4;
const GAP_GRAY: u8 = 255;
/// Tiles smaller than this are enlarged by a whole factor, so that patches can be told apart.
const MIN_TILE: u32 = 128;

/// Of a class's color over the image.
const OPACITY: f32 = 0.55;

/// Triples of tiles side by side.
const TRIPLES: usize = 2;

/// A grid of images, all of one size; rows of tiles from top to bottom.
pub struct Picture {
    /// `[C, H, W]` each, values 0 to 255.
    rows: Vec<Vec<Tensor>>,
}

impl Picture {
    /// Original, visible patches on gray, reconstruction of each image; two images, or both channels of one, to a row.
    /// Shapes: `images`, `pasted` `[N, C, H, W]` normalized; `mask [N, L]`, 1 = removed; `mean`, `std` of each channel.
    pub fn reconstruction(
        images: &Tensor,
        pasted: &Tensor,
        mask: &Tensor,
        patch_size: i64,
        (mean, std): (&[f32], &[f32]),
    ) -> TrainResult<Self> {
        let (n, c, h, w) = images.size4()?;
        let grid =
            mask.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_view([n, 1, h / patch_size, w / patch_size])?;
        let removed = grid.f_upsample_nearest2d([h, w], None, None)?;
        let (images, pasted) = (pixels(images, (mean, std))?, pixels(pasted, (mean, std))?);
        let gray = images.f_full_like(128.0)?;
        let seen = images.f_add(&gray.f_sub(&images)?.f_mul(&removed)?)?;
        let mut triples: Vec<Vec<Tensor>> = Vec::new();
        for i in 0..n {
            let tiles = [&images, &seen, &pasted].map(|t| t.get(i));
            if c == 2 {
                triples.extend((0..c).map(|channel| tiles.iter().map(|t| t.narrow(0, channel, 1)).collect()));
            } else {
                triples.push(tiles.into());
            }
        }
        let rows =
            triples.chunks(TRIPLES).map(|row| row.iter().flatten().map(Tensor::shallow_clone).collect()).collect();
        Ok(Self { rows })
    }

    /// Each image with what is annotated (if it is) and what is predicted laid over it, in the classes' colors; black leaves
    /// the image as it is, and what is not labeled is black. Shapes: `images [N, C, H, W]` normalized, label maps
    /// `[N, H', W']`.
    pub fn segmentation(
        images: &Tensor,
        maps: &[&Tensor],
        colors: &[[u8; 3]],
        (mean, std): (&[f32], &[f32]),
    ) -> TrainResult<Self> {
        let (n, c, h, w) = images.size4()?;
        let images = pixels(images, (mean, std))?;
        let rgb = if c == 3 { images } else { images.f_narrow(1, 0, 1)?.f_expand([n, 3, h, w], false)? };
        // Row 255 of the table is what is not labeled; rows of no class are never looked up.
        let mut table = vec![[0.0f32; 4]; 256];
        for (row, color) in table.iter_mut().zip(colors) {
            let opacity = if *color == [0, 0, 0] { 0.0 } else { OPACITY };
            *row = [f32::from(color[0]), f32::from(color[1]), f32::from(color[2]), opacity];
        }
        table[255] = [0.0, 0.0, 0.0, 1.0];
        let table = Tensor::f_from_slice(&table.concat())?.f_view([256, 4])?;
        let mut columns = vec![rgb.shallow_clone()];
        for map in maps {
            let map = map.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
            let map = map.f_internal_upsample_nearest_exact2d([h, w], None, None)?.f_to_kind(Kind::Int64)?;
            let colored =
                table.f_index_select(0, &map.f_reshape([-1])?)?.f_view([n, h, w, 4])?.f_permute([0, 3, 1, 2])?;
            let (color, opacity) = (colored.f_narrow(1, 0, 3)?, colored.f_narrow(1, 3, 1)?);
            columns.push(rgb.f_add(&color.f_sub(&rgb)?.f_mul(&opacity)?)?);
        }
        let rows: Vec<Vec<Tensor>> = (0..n).map(|i| columns.iter().map(|images| images.get(i)).collect()).collect();
        let rows = rows.chunks(2).map(|pair| pair.iter().flatten().map(Tensor::shallow_clone).collect()).collect();
        Ok(Self { rows })
    }

    fn render(&self) -> TrainResult<RgbImage> {
        let (mut tiles, mut size) = (Vec::new(), (0, 0));
        for row in &self.rows {
            for tile in row {
                let (c, h, w) = tile.size3()?;
                let rgb =
                    if c == 3 { tile.shallow_clone() } else { tile.f_narrow(0, 0, 1)?.f_expand([3, h, w], false)? };
                let bytes = rgb.f_round()?.f_to_kind(Kind::Uint8)?.f_permute([1, 2, 0])?.f_contiguous()?;
                let bytes = Vec::<u8>::try_from(bytes.f_view([-1])?)?;
                size = (w as u32, h as u32);
                tiles.extend(RgbImage::from_raw(size.0, size.1, bytes));
            }
        }
        let zoom = MIN_TILE.div_ceil(size.0.max(1)).max(1);
        let (tile_w, tile_h) = (size.0 * zoom, size.1 * zoom);
        let columns = self.rows.first().map_or(0, Vec::len) as u32;
        let mut canvas = RgbImage::from_pixel(
            columns * (tile_w + GAP) + GAP,
            self.rows.len() as u32 * (tile_h + GAP) + GAP,
            image::Rgb([GAP_GRAY; 3]),
        );
        for (i, tile) in tiles.iter().enumerate() {
            let (x, y) = (i as u32 % columns * (tile_w + GAP) + GAP, i as u32 / columns * (tile_h + GAP) + GAP);
            let large = image::imageops::resize(tile, tile_w, tile_h, image::imageops::FilterType::Nearest);
            image::imageops::replace(&mut canvas, &large, i64::from(x), i64::from(y));
        }
        Ok(canvas)
    }

    /// The picture as PNG, with its width and height in pixels.
    pub fn png(&self) -> TrainResult<(Vec<u8>, u32, u32)> {
        let canvas = self.render()?;
        let mut bytes = std::io::Cursor::new(Vec::new());
        canvas
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(|err| TrainError::Config(format!("could not encode a picture: {err}")))?;
        Ok((bytes.into_inner(), canvas.width(), canvas.height()))
    }
}

/// Undoes the normalization: values from 0 to 255, on the CPU.
fn pixels(images: &Tensor, (mean, std): (&[f32], &[f32])) -> TrainResult<Tensor> {
    let per_channel = |values: &[f32]| Tensor::f_from_slice(values)?.f_view([1, -1, 1, 1]);
    let images = images.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let images = images.f_mul(&per_channel(std)?)?.f_add(&per_channel(mean)?)?;
    Ok(images.f_mul_scalar(255.0)?.f_clamp(0.0, 255.0)?)
}

/// Writes a picture's PNG.
pub fn write(path: &Path, png: &[u8]) -> TrainResult<()> {
    std::fs::write(path, png).at(path)
}
