//! How labels of pixels compare with their annotation: a confusion matrix and what the field reads off it.
//!
//! Intersection over union of a class is `hit / (annotated + predicted − hit)` over all pixels of all images (Everingham et al.
//! 2010; Long et al. 2015, arXiv:1411.4038). A class that is neither annotated nor predicted has none, and means leave it out,
//! as mmsegmentation does; one that is predicted but not annotated scores 0.

/// Counts of pixels by (annotation, prediction).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[classes, classes]`, a row per annotation.
    counts: Vec<u64>,
}

impl Confusion {
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels annotated as `annotation` and predicted to be `prediction`.
    pub fn count(&self, annotation: usize, prediction: usize) -> u64 {
        self.counts[annotation * self.classes + prediction]
    }

    /// Adds counts laid out as this matrix's; the answer is whether there were so many.
    pub fn add(&mut self, counts: impl ExactSizeIterator<Item = u64>) -> bool {
        let fits = counts.len() == self.counts.len();
        if fits {
            self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        fits
    }

    /// Labeled pixels.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Intersection over union; `None` for a class that is neither annotated nor predicted.
    pub fn iou(&self, class: usize) -> Option<f64> {
        let hit = self.count(class, class);
        ratio(hit, self.annotated(class) + self.predicted(class) - hit)
    }

    /// Share of a class's annotated pixels that are found; `None` for a class that is not annotated.
    pub fn accuracy(&self, class: usize) -> Option<f64> {
        ratio(self.count(class, class), self.annotated(class))
    }

    /// Mean intersection over union; `None` without any pixel.
    pub fn miou(&self) -> Option<f64> {
        mean((0..self.classes).filter_map(|class| self.iou(class)))
    }

    /// Mean over classes of [`Confusion::accuracy`].
    pub fn mean_accuracy(&self) -> Option<f64> {
        mean((0..self.classes).filter_map(|class| self.accuracy(class)))
    }

    /// Share of all labeled pixels that are right.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio((0..self.classes).map(|class| self.count(class, class)).sum(), self.total())
    }

    pub fn annotated(&self, class: usize) -> u64 {
        (0..self.classes).map(|prediction| self.count(class, prediction)).sum()
    }

    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|annotation| self.count(annotation, class)).sum()
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(classes: usize, counts: &[u64]) -> Confusion {
        let mut confusion = Confusion::new(classes);
        assert!(confusion.add(counts.iter().copied()));
        confusion
    }

    #[test]
    fn figures_by_hand() {
        let confusion = of(3, &[6, 2, 0, 1, 3, 0, 0, 0, 0]);
        assert_eq!(confusion.iou(0), Some(6.0 / 9.0));
        assert_eq!(confusion.iou(1), Some(3.0 / 6.0));
        assert_eq!(confusion.iou(2), None);
        assert_eq!(confusion.miou(), Some((6.0 / 9.0 + 0.5) / 2.0));
        assert_eq!(confusion.pixel_accuracy(), Some(9.0 / 12.0));
        assert_eq!(confusion.mean_accuracy(), Some((6.0 / 8.0 + 3.0 / 4.0) / 2.0));
    }

    #[test]
    fn a_class_that_is_only_predicted_scores_nothing() {
        let confusion = of(2, &[3, 1, 0, 0]);
        assert_eq!((confusion.iou(1), confusion.accuracy(1)), (Some(0.0), None));
        assert_eq!(confusion.miou(), Some(3.0 / 8.0));
    }

    #[test]
    fn the_annotation_itself_scores_one_and_nothing_scores_nothing() {
        let confusion = of(4, &[5, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            (confusion.miou(), confusion.pixel_accuracy(), confusion.mean_accuracy()),
            (Some(1.0), Some(1.0), Some(1.0))
        );
        let empty = Confusion::new(4);
        assert_eq!((empty.miou(), empty.pixel_accuracy(), empty.mean_accuracy()), (None, None, None));
        assert!(!Confusion::new(2).add([1].into_iter()));
    }
}
