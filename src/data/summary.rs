//! What is in a dataset: sizes, classes and how frequent they are, and weights that make up for it.

use rayon::prelude::*;

use super::classes::{BACKGROUND, IGNORE};
use super::dataset::Dataset;
use super::error::DataError;

/// So many files, evenly spaced, are looked at; of most sets that is all.
pub const LOOKED_AT: usize = 5000;
/// Bounds of [`Summary::class_weights`]: a class of three pixels must not outweigh all others.
pub const WEIGHT_BOUNDS: (f64, f64) = (0.1, 10.0);

/// Counts over the files that were looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub files: usize,
    pub looked_at: usize,
    /// Files that could not be read, with the reason, by name.
    pub unreadable: Vec<(String, String)>,
    /// Smallest, median, largest; 0 where nothing could be read.
    pub width: [usize; 3],
    pub height: [usize; 3],
    pub classes: Vec<ClassCount>,
    /// Pixels that belong to no class.
    pub ignored: u64,
    /// Files whose mask has labels, but none of a class beyond the first.
    pub empty: usize,
    /// Files whose mask has no label at all.
    pub all_ignored: usize,
}

/// How often a class occurs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassCount {
    /// Pixels; for labels of whole images, images.
    pub pixels: u64,
    /// In how many images.
    pub images: usize,
    /// Labeled pixels of the images in which it occurs.
    pub pixels_around: u64,
}

/// What one file adds.
enum Look {
    Seen { width: usize, height: usize, counts: Option<Box<[u64; 256]>>, label: Option<u32> },
    Unreadable(String),
}

impl Summary {
    /// Reads the files, in parallel.
    pub fn of(dataset: &Dataset) -> Self {
        let looked_at = dataset.len().min(LOOKED_AT);
        let file = |i: usize| i * dataset.len() / looked_at;
        let looks: Vec<Look> = (0..looked_at).into_par_iter().map(|i| look(dataset, file(i))).collect();
        let mut summary = Self { files: dataset.len(), looked_at, ..Self::default() };
        summary.classes = vec![ClassCount::default(); dataset.classes().map_or(0, |table| table.len())];
        let (mut widths, mut heights) = (Vec::new(), Vec::new());
        for (i, look) in looks.into_iter().enumerate() {
            match look {
                Look::Unreadable(reason) => summary.unreadable.push((dataset.name(file(i)), reason)),
                Look::Seen { width, height, counts, label } => {
                    widths.push(width);
                    heights.push(height);
                    if let Some(counts) = counts {
                        summary.add(&counts);
                    }
                    if let Some(class) = label.and_then(|label| summary.classes.get_mut(label as usize)) {
                        class.pixels += 1;
                        class.images += 1;
                    }
                }
            }
        }
        (summary.width, summary.height) = (spread(widths), spread(heights));
        summary
    }

    fn add(&mut self, counts: &[u64; 256]) {
        let labeled: u64 = counts[..usize::from(IGNORE)].iter().sum();
        self.ignored += counts[usize::from(IGNORE)];
        self.all_ignored += usize::from(labeled == 0);
        self.empty += usize::from(labeled > 0 && labeled == counts[0]);
        for (class, &pixels) in self.classes.iter_mut().zip(counts).filter(|(_, pixels)| **pixels > 0) {
            class.pixels += pixels;
            class.images += 1;
            class.pixels_around += labeled;
        }
    }

    /// Share of each class in the labeled pixels, or in the labeled images.
    pub fn class_frequencies(&self) -> Vec<f64> {
        let total: u64 = self.classes.iter().map(|class| class.pixels).sum();
        self.classes.iter().map(|class| class.pixels as f64 / total.max(1) as f64).collect()
    }

    /// Median frequency balancing (Eigen and Fergus 2015, arXiv:1411.4734): the median frequency over a class's own, where its
    /// frequency is its share of the pixels of the images in which it occurs. Within [`WEIGHT_BOUNDS`]; 1 for a class that never
    /// occurs. For labels of whole images the frequency is the share of the images.
    pub fn class_weights(&self) -> Vec<f64> {
        let total: u64 = self.classes.iter().map(|class| class.pixels).sum();
        let frequency = |class: &ClassCount| {
            let of = if class.pixels_around > 0 { class.pixels_around } else { total };
            (class.pixels > 0).then(|| class.pixels as f64 / of as f64)
        };
        let frequencies: Vec<Option<f64>> = self.classes.iter().map(frequency).collect();
        let mut present: Vec<f64> = frequencies.iter().copied().flatten().collect();
        present.sort_by(f64::total_cmp);
        let n = present.len();
        let median = if n == 0 { 1.0 } else { 0.5 * (present[(n - 1) / 2] + present[n / 2]) };
        let weight = |frequency: f64| (median / frequency).clamp(WEIGHT_BOUNDS.0, WEIGHT_BOUNDS.1);
        frequencies.into_iter().map(|frequency| frequency.map_or(1.0, weight)).collect()
    }

    /// A table for people.
    pub fn text(&self, dataset: &Dataset) -> String {
        let mut lines = Vec::new();
        let mut line = |name: &str, text: String| lines.push(format!("{name:<12}{text}"));
        let looked = match self.looked_at == self.files {
            true => String::new(),
            false => format!(" ({} of them looked at, evenly spaced)", self.looked_at),
        };
        line("images", format!("{}{looked}", self.files));
        match dataset.archives().len() {
            0 => {}
            archives => line("archives", archives.to_string()),
        }
        line("channels", dataset.channels().to_string());
        let spread = |[min, median, max]: [usize; 3]| {
            if min == max { min.to_string() } else { format!("{min} to {max}, median {median}") }
        };
        line("width", spread(self.width));
        line("height", spread(self.height));
        if let Some((name, reason)) = self.unreadable.first() {
            line("skipped", format!("{}; the first: {name}: {reason}", self.unreadable.len()));
        }
        let Some(table) = dataset.classes() else { return lines.join("\n") };
        let labeled: u64 = self.classes.iter().map(|class| class.pixels).sum();
        if dataset.has_masks() {
            let share = self.ignored as f64 / (labeled + self.ignored).max(1) as f64;
            line("ignored", format!("{:.2} % of the pixels", 100.0 * share));
            if self.empty > 0 || table.names[0] == BACKGROUND {
                line("empty masks", format!("{}: no pixel beyond the class {}", self.empty, table.names[0]));
            }
            if self.all_ignored > 0 {
                line("all ignored", format!("{}: left out of training", self.all_ignored));
            }
        }
        let width = table.names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
        let what = if dataset.has_masks() { "pixels" } else { "share" };
        lines.push(format!("{:>5}  {:<width$}  {:<7}  {what:>8}  {:>7}", "label", "class", "color", "images"));
        for (label, (class, share)) in self.classes.iter().zip(self.class_frequencies()).enumerate() {
            let [r, g, b] = table.colors[label];
            lines.push(format!(
                "{label:>5}  {:<width$}  #{r:02x}{g:02x}{b:02x}  {:>6.2} %  {:>7}",
                table.names[label],
                100.0 * share,
                class.images
            ));
        }
        lines.join("\n")
    }
}

impl Dataset {
    /// What is in these files.
    ///
    /// Errors: [`DataError::NoReadable`] if none can be read.
    pub fn summary(&self) -> Result<Summary, DataError> {
        let summary = Summary::of(self);
        match summary.unreadable.first() {
            Some((name, reason)) if summary.unreadable.len() == summary.looked_at => {
                Err(DataError::NoReadable { attempts: summary.looked_at, name: name.clone(), reason: reason.clone() })
            }
            _ => Ok(summary),
        }
    }
}

fn look(dataset: &Dataset, file: usize) -> Look {
    let label = dataset.label(file);
    if dataset.has_masks() {
        return match dataset.load_pair(file) {
            Err(reason) => Look::Unreadable(reason),
            Ok((image, mask)) => {
                let mut counts = Box::new([0; 256]);
                mask.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
                Look::Seen { width: image.width, height: image.height, counts: Some(counts), label }
            }
        };
    }
    match dataset.load(file) {
        Err(reason) => Look::Unreadable(reason),
        Ok(image) => Look::Seen { width: image.width, height: image.height, counts: None, label },
    }
}

fn spread(mut sizes: Vec<usize>) -> [usize; 3] {
    sizes.sort_unstable();
    match sizes[..] {
        [] => [0; 3],
        [first, ..] => [first, sizes[sizes.len() / 2], sizes[sizes.len() - 1]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::spec::Spec;

    #[test]
    fn weights_are_median_over_frequency() {
        let class = |pixels, pixels_around| ClassCount { pixels, images: 1, pixels_around };
        // Frequencies 0.8, 0.1, 0.05 and 0.0001; the class that is nowhere does not count.
        let classes = vec![class(800, 1000), class(100, 1000), class(50, 1000), class(1, 10_000), class(0, 0)];
        let weights = Summary { classes, ..Summary::default() }.class_weights();
        for (weight, expected) in weights.into_iter().zip([0.1, 0.75, 1.5, 10.0, 1.0]) {
            assert!((weight - expected).abs() < 1e-9, "{weight} {expected}");
        }
    }

    #[test]
    fn the_generated_set_is_summed_up() {
        let dataset = Dataset::open(&Spec::Wirebond { size: 32, count: 12, seed: 3 }).unwrap();
        let summary = dataset.summary().unwrap();
        assert_eq!((summary.files, summary.width, summary.height, summary.ignored), (12, [32; 3], [32; 3], 0));
        assert_eq!(summary.classes.iter().map(|class| class.pixels).sum::<u64>(), 12 * 32 * 32);
        assert!((summary.class_frequencies().iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let text = summary.text(&dataset);
        assert!(text.contains("background") && text.contains("12"), "{text}");
    }
}
