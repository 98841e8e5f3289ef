//! Labels for whole images: in one pass, or in windows that overlap, so that memory is bounded by the window and not by the
//! image; on request averaged with the mirrored image.
//!
//! Windows lie as mmsegmentation's `slide_inference`: every `window − overlap` pixels, the last ones moved back to end with the
//! image; scores are averaged where windows overlap. They are summed up in a strip as high as a window, which leaves as labels
//! once no further window reaches it.

use tch::{Kind, Tensor};

use super::rows::Pass;
use super::upernet::Upernet;
use super::{NnError, NnResult};

/// How labels are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Height and width of a window; `None` is the whole image at once.
    pub window: Option<(i64, i64)>,
    /// Share of a window's side that the next one repeats, 0 or more, below 1.
    pub overlap: f64,
    /// Averages the probabilities of the image and of its mirror image.
    pub flip: bool,
    /// Height and width of the labels; `None` is the image's own. Scores are resized (bilinear), or, with windows, labels
    /// (nearest): whole-image scores need not be kept then.
    pub size: Option<(i64, i64)>,
}

impl Default for Prediction {
    fn default() -> Self {
        Self { window: None, overlap: 1.0 / 3.0, flip: false, size: None }
    }
}

impl Prediction {
    /// Errors: [`NnError::Config`] naming the first value outside its range.
    pub fn check(&self) -> NnResult<()> {
        if let Some((h, w)) = self.window
            && (h < 1 || w < 1)
        {
            return Err(NnError::Config(format!("window: expected sides of 1 or more pixels, got {h} x {w}")));
        }
        if !(0.0..1.0).contains(&self.overlap) {
            return Err(NnError::Config(format!("overlap: expected 0 or more, below 1, got {}", self.overlap)));
        }
        Ok(())
    }
}

impl Upernet {
    /// The likeliest class of every pixel. Shapes: `images [N, C, H, W]` → `[N, H', W']`, int64.
    pub fn predict(&self, images: &Tensor, how: &Prediction) -> NnResult<Tensor> {
        how.check()?;
        let size = images.size();
        let [n, _, height, width] = size[..] else {
            return Err(NnError::Config(format!("images: expected shape [N, C, H, W], got {size:?}")));
        };
        let wanted = how.size.unwrap_or((height, width));
        tch::no_grad(|| match how.window {
            Some(window) if window.0 < height || window.1 < width => {
                let labels = (0..n).map(|i| self.predict_windows(&images.f_narrow(0, i, 1)?, window, how));
                let labels = Tensor::f_cat(&labels.collect::<NnResult<Vec<_>>>()?, 0)?;
                if wanted == (height, width) {
                    return Ok(labels);
                }
                let labels = labels.f_unsqueeze(1)?.f_to_kind(Kind::Float)?;
                Ok(labels
                    .f_internal_upsample_nearest_exact2d([wanted.0, wanted.1], None, None)?
                    .f_squeeze_dim(1)?
                    .f_to_kind(Kind::Int64)?)
            }
            _ => {
                let resized = |images: &Tensor| -> NnResult<Tensor> {
                    let scores = self.logits(images, Pass::EVALUATE)?;
                    Ok(match wanted == (height, width) {
                        true => scores,
                        false => scores.f_upsample_bilinear2d([wanted.0, wanted.1], false, None, None)?,
                    })
                };
                Ok(with_mirror(images, how.flip, resized)?.f_argmax(1, false)?)
            }
        })
    }

    /// Of one image, window by window. Shapes: `[1, C, H, W]` → `[1, H, W]`.
    fn predict_windows(&self, image: &Tensor, window: (i64, i64), how: &Prediction) -> NnResult<Tensor> {
        let (height, width) = (image.size()[2], image.size()[3]);
        let window = (window.0.min(height), window.1.min(width));
        let (tops, lefts) = (starts(height, window.0, how.overlap), starts(width, window.1, how.overlap));
        let options = (self.registry().kind(), image.device());
        let mut strip = Tensor::f_zeros([1, self.config().classes, window.0, width], options)?;
        let mut counts = Tensor::f_zeros([1, 1, window.0, width], options)?;
        let once = Tensor::f_ones([1, 1, window.0, window.1], options)?;
        let mut labels = Vec::new();
        for (i, &top) in tops.iter().enumerate() {
            for &left in &lefts {
                let cut = image.f_narrow(2, top, window.0)?.f_narrow(3, left, window.1)?;
                let scores = with_mirror(&cut, how.flip, |cut| self.logits(cut, Pass::EVALUATE))?;
                let _ = strip.f_narrow(3, left, window.1)?.f_add_(&scores)?;
                let _ = counts.f_narrow(3, left, window.1)?.f_add_(&once)?;
            }
            // Rows above the next window's are done.
            let done = tops.get(i + 1).map_or(window.0, |next| next - top);
            let means = strip.f_narrow(2, 0, done)?.f_div(&counts.f_narrow(2, 0, done)?)?;
            labels.push(means.f_argmax(1, false)?);
            strip = shifted(&strip, done)?;
            counts = shifted(&counts, done)?;
        }
        Ok(Tensor::f_cat(&labels, 1)?)
    }
}

/// Scores of the images, or the mean of their probabilities and of those of their mirror images, mirrored back.
fn with_mirror(images: &Tensor, flip: bool, scores: impl Fn(&Tensor) -> NnResult<Tensor>) -> NnResult<Tensor> {
    let own = scores(images)?;
    if !flip {
        return Ok(own);
    }
    let mirrored = scores(&images.f_flip([3])?)?.f_flip([3])?;
    let kind = own.kind();
    Ok(own.f_softmax(1, kind)?.f_add(&mirrored.f_softmax(1, kind)?)?)
}

/// Where windows begin along a side, the last one ending with it.
fn starts(side: i64, window: i64, overlap: f64) -> Vec<i64> {
    let stride = ((window as f64 * (1.0 - overlap)).round() as i64).max(1);
    let mut starts: Vec<i64> = (0..).map(|i| i * stride).take_while(|start| start + window < side).collect();
    starts.push((side - window).max(0));
    starts
}

/// The strip moved up by `rows`, zeros below.
fn shifted(strip: &Tensor, rows: i64) -> NnResult<Tensor> {
    let left = strip.size()[2] - rows;
    Ok(strip.f_narrow(2, rows, left)?.f_constant_pad_nd([0, 0, 0, rows])?)
}

#[cfg(test)]
mod tests {
    use super::starts;

    #[test]
    fn windows_cover_and_end_with_the_image() {
        assert_eq!(starts(10, 4, 0.5), [0, 2, 4, 6]);
        assert_eq!(starts(11, 4, 0.5), [0, 2, 4, 6, 7]);
        assert_eq!(starts(4, 4, 0.5), [0]);
        assert_eq!(starts(3, 4, 0.0), [0]);
        assert_eq!(starts(5, 4, 0.99), [0, 1]);
    }
}
