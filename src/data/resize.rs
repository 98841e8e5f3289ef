//! Pillow's bicubic resizing: a = −0.5, the kernel widened when shrinking, first along rows, then along columns, 8-bit in
//! between (fast_image_resize, left to itself, takes the columns first and clips other values).

use std::cell::RefCell;

use fast_image_resize::images::{CroppedImage, Image as Target, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer};

use super::image::{Image, Region};

/// Pixels to resize, which may lie within more of them.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    /// The column and row of `pixels` where the view begins.
    pub origin: (usize, usize),
    /// Pixels to a row of `pixels`.
    pub stride: usize,
    pub pixels: &'a [u8],
}

impl<'a> View<'a> {
    /// All of an image.
    pub fn of(image: &'a Image) -> Self {
        let Image { width, height, channels, ref pixels } = *image;
        Self { width, height, channels, origin: (0, 0), stride: width, pixels }
    }
}

/// Cuts `region` out and resizes it to height and width; what lies outside has no influence, as when the crop is made first.
pub fn resize_region(view: &View, region: Region, (height, width): (usize, usize)) -> Image {
    let origin = (view.origin.0 + region.left, view.origin.1 + region.top);
    let cut = View { width: region.width, height: region.height, origin, ..*view };
    let rows = convolve(&cut, (region.height, width), &bicubic());
    convolve(&View::of(&rows), (height, width), &bicubic())
}

/// The part `window` of the image resized to `full` (height, width), without computing the rest.
pub fn resize_window(view: &View, full: (usize, usize), window: Region) -> Image {
    let Region { left, top, width, height } = window;
    // Offset and length, in the original, of the `kept` pixels of `full` from `start` on.
    let span = |full: usize, start: usize, kept: usize, original: usize| {
        let scale = original as f64 / full as f64;
        let offset = start as f64 * scale;
        (offset, (kept as f64 * scale).min(original as f64 - offset))
    };
    let (left, crop_width) = span(full.1, left, width, view.width);
    let (top, crop_height) = span(full.0, top, height, view.height);
    let rows = convolve(view, (view.height, width), &bicubic().crop(left, 0.0, crop_width, view.height as f64));
    convolve(&View::of(&rows), (height, width), &bicubic().crop(0.0, top, width as f64, crop_height))
}

fn bicubic() -> ResizeOptions {
    // Two or four channels are channels here, not color and alpha.
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom)).use_alpha(false)
}

thread_local! {
    /// Holds buffers between calls.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// To the given height and width; more than 4 channels go one by one.
fn convolve(view: &View, (height, width): (usize, usize), options: &ResizeOptions) -> Image {
    let convolved = |pixels: &[u8], pixel_type: PixelType| {
        let run = |resizer: &mut Resizer, target: &mut Target| -> Result<(), ResizeError> {
            let rows = pixels.len() / (view.stride * pixel_type.size());
            let source = ImageRef::new(view.stride as u32, rows as u32, pixels, pixel_type)
                .expect("a view has its stride's pixels in every row");
            let (left, top) = (view.origin.0 as u32, view.origin.1 as u32);
            let cut = CroppedImage::new(&source, left, top, view.width as u32, view.height as u32)
                .expect("a view lies within its pixels");
            resizer.resize(&cut, target, options)
        };
        let mut target = Target::new(width as u32, height as u32, pixel_type);
        RESIZER
            .with_borrow_mut(|resizer| run(resizer, &mut target))
            .expect("crops lie within the view, and both pixel types are the same");
        target.into_vec()
    };
    let channels = view.channels;
    let pixels = match channels {
        1 => convolved(view.pixels, PixelType::U8),
        2 => convolved(view.pixels, PixelType::U8x2),
        3 => convolved(view.pixels, PixelType::U8x3),
        4 => convolved(view.pixels, PixelType::U8x4),
        _ => {
            let mut pixels = vec![0; width * height * channels];
            for channel in 0..channels {
                let plane: Vec<u8> = view.pixels[channel..].iter().step_by(channels).copied().collect();
                let plane = convolved(&plane, PixelType::U8);
                pixels[channel..].iter_mut().step_by(channels).zip(plane).for_each(|(to, from)| *to = from);
            }
            pixels
        }
    };
    Image { width, height, channels, pixels }
}
