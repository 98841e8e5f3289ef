//! What brightness alone can tell: a lookup from gray level to class, learned on training files and applied to validation files.
//!
//! A model that does not beat it has learned nothing of shape. Of two lookups the one with the better mean IoU on the training
//! files is taken: each level's most frequent class, or the same with every class weighted by one over its frequency.

use rayon::prelude::*;

use super::classes::IGNORE;
use super::dataset::Dataset;
use super::error::DataError;
use crate::confusion::Confusion;

/// At most so many files of either part, evenly spaced.
pub const FILES: usize = 200;
const LEVELS: usize = 256;

/// Pixels of each class at each level.
type Counts = Vec<[u64; LEVELS]>;

/// Learns on `train`, predicts `val`.
///
/// Errors: a dataset without masks, other classes, or nothing readable.
pub fn baseline(train: &Dataset, val: &Dataset) -> Result<Confusion, DataError> {
    if !train.has_masks() || !val.has_masks() {
        return Err(DataError::NoMasks);
    }
    if train.classes() != val.classes() {
        return Err(DataError::range("intensity_baseline", "the same classes in both parts", "others"));
    }
    let (train, val) = (count(train)?, count(val)?);
    let totals: Vec<f64> = train.iter().map(|levels| levels.iter().sum::<u64>().max(1) as f64).collect();
    let most_frequent = lookup(&train, &vec![1.0; train.len()]);
    let balanced = lookup(&train, &totals.iter().map(|total| 1.0 / total).collect::<Vec<_>>());
    let miou = |lookup| confusion(&train, lookup).miou().unwrap_or(0.0);
    let better = if miou(&balanced) > miou(&most_frequent) { balanced } else { most_frequent };
    Ok(confusion(&val, &better))
}

fn count(dataset: &Dataset) -> Result<Counts, DataError> {
    let classes = dataset.classes().map_or(0, |table| table.len());
    let files = dataset.len().min(FILES);
    let zero = || (vec![[0; LEVELS]; classes], 0_usize);
    let one = |(mut counts, read): (Counts, usize), i: usize| {
        let Ok((image, mask)) = dataset.load_pair(i * dataset.len() / files) else { return (counts, read) };
        for (pixel, &label) in image.pixels.chunks_exact(image.channels).zip(&mask.labels) {
            if label != IGNORE {
                let sum: usize = pixel.iter().map(|&x| usize::from(x)).sum();
                counts[usize::from(label)][(sum + pixel.len() / 2) / pixel.len()] += 1;
            }
        }
        (counts, read + 1)
    };
    let add = |(mut a, read): (Counts, usize), (b, more): (Counts, usize)| {
        a.iter_mut().flatten().zip(b.iter().flatten()).for_each(|(a, b)| *a += b);
        (a, read + more)
    };
    let (counts, read) = (0..files).into_par_iter().fold(zero, one).reduce(zero, add);
    if read == 0 {
        let reason = dataset.load_pair(0).err().unwrap_or_default();
        return Err(DataError::NoReadable { attempts: files, name: dataset.name(0), reason });
    }
    Ok(counts)
}

/// The class of each level; of levels that never occur, that of the nearest one that does.
fn lookup(counts: &Counts, weights: &[f64]) -> [usize; LEVELS] {
    let best = |level: usize| {
        let score = |class: usize| counts[class][level] as f64 * weights[class];
        // Of equals the first.
        let best = (0..counts.len()).rev().max_by(|&a, &b| score(a).total_cmp(&score(b)))?;
        (score(best) > 0.0).then_some(best)
    };
    let known: Vec<Option<usize>> = (0..LEVELS).map(best).collect();
    let nearest = |level: usize| {
        let near = (0..LEVELS).filter(|&other| known[other].is_some()).min_by_key(|&other| other.abs_diff(level));
        near.and_then(|other| known[other]).unwrap_or(0)
    };
    std::array::from_fn(nearest)
}

fn confusion(counts: &Counts, lookup: &[usize; LEVELS]) -> Confusion {
    let classes = counts.len();
    let mut pairs = vec![0; classes * classes];
    for (class, levels) in counts.iter().enumerate() {
        for (level, pixels) in levels.iter().enumerate() {
            pairs[class * classes + lookup[level]] += pixels;
        }
    }
    let mut confusion = Confusion::new(classes);
    confusion.add(pairs.into_iter());
    confusion
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::spec::Spec;

    #[test]
    fn lookups_take_the_most_frequent_or_the_balanced() {
        // Class 0 has 100 pixels at level 10; class 1 has 50 there and 1 at level 200.
        let mut counts = vec![[0; LEVELS]; 2];
        (counts[0][10], counts[1][10], counts[1][200]) = (100, 50, 1);
        let most = lookup(&counts, &[1.0, 1.0]);
        assert_eq!((most[10], most[0], most[104], most[106], most[255]), (0, 0, 0, 1, 1));
        let confusion = confusion(&counts, &most);
        assert_eq!([(0, 0), (0, 1), (1, 0), (1, 1)].map(|(a, b)| confusion.count(a, b)), [100, 0, 50, 1]);
        assert!((confusion.miou().unwrap() - (100.0 / 150.0 + 1.0 / 51.0) / 2.0).abs() < 1e-12);
        assert_eq!(lookup(&counts, &[0.01, 1.0])[10], 1);
    }

    #[test]
    fn brightness_tells_little_of_the_generated_set() {
        let all = Dataset::open(&Spec::Wirebond { size: 48, count: 40, seed: 1 }).unwrap();
        let (train, val) = all.split(0.25, 0).unwrap();
        let confusion = baseline(&train, &val).unwrap();
        assert_eq!(confusion.total(), 10 * 48 * 48);
        assert!((0.1..0.6).contains(&confusion.miou().unwrap()), "{:?}", confusion.miou());
    }
}
