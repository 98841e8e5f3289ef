//! `--smoke`: any script at two steps and on few images, to see in seconds that it works before it runs for days.
//!
//! The script is not changed and need not know: what it opens is cut to a few images, its batches are small, loops over
//! `run.steps` end after two steps, and a pass over validation images after two batches. Recipes of the standard library take
//! smaller images too (`std/recipe`). The model keeps its size, so that patterns, blocks and the memory that weights take are
//! those of the real run. What came of it says so: `"smoke": true` in `run.json`, and a directory that ends in `-smoke`.

use rhai::Dynamic;

use super::api::data::DatasetHandle;
use super::options::number;
use super::session::Session;
use crate::data::{Dataset, LoaderConfig};

/// What the directories of such runs end in.
pub const ENDING: &str = "-smoke";

const STEPS: u64 = 2;
const VALIDATION_BATCHES: usize = 2;
/// Images of a dataset, and those that a subset of it has at least.
const IMAGES: usize = 48;
const FEWEST: usize = 8;
const BATCH: usize = 4;

/// Steps of a run that is to have `total`.
pub fn steps(session: &Session, total: u64) -> u64 {
    if session.options.smoke { total.min(STEPS) } else { total }
}

/// Batches of a pass over validation images; `None` is all.
pub fn validation_batches(session: &Session) -> Option<usize> {
    session.options.smoke.then_some(VALIDATION_BATCHES)
}

/// A few images of a dataset.
pub fn few(session: &Session, opened: DatasetHandle) -> DatasetHandle {
    if !session.options.smoke || opened.0.len() <= IMAGES {
        return opened;
    }
    // So many there are: this cannot fail.
    opened.0.subset_count(IMAGES, 0).map_or(opened, DatasetHandle)
}

/// What `subset(part)` is to take of a dataset that has fewer images than it really has: the same part, but not next to none.
pub fn part(session: &Session, dataset: &Dataset, part: Dynamic) -> Dynamic {
    if !session.options.smoke {
        return part;
    }
    let (all, asked) = (dataset.len(), part.as_int());
    let count = match (asked, number(&part)) {
        (Ok(count), _) if count > 0 => usize::try_from(count).unwrap_or(usize::MAX),
        (Err(_), Some(fraction)) if fraction > 0.0 && fraction <= 1.0 => (all as f64 * fraction) as usize,
        _ => return part, // Wrong in the real run too.
    };
    Dynamic::from(count.max(FEWEST).min(all) as i64)
}

/// Small batches. A step of several micro-batches stays one; what would be refused in the real run stays that, too.
pub fn shrink(session: &Session, config: &mut LoaderConfig) {
    let LoaderConfig { batch, micro_batches, .. } = *config;
    if !session.options.smoke || micro_batches == 0 || !batch.is_multiple_of(micro_batches) {
        return;
    }
    config.batch = batch.min(BATCH);
    config.micro_batches = match micro_batches {
        1 => 1,
        _ if config.batch.is_multiple_of(2) => 2,
        _ => config.batch.max(1),
    };
}
