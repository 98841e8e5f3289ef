//! What outlives a script when its next version starts in the same process: decoded images, and the runs to go on from.

use std::cell::RefCell;
use std::path::PathBuf;

use crate::data::{DataError, Dataset, Spec};

#[derive(Default)]
pub struct Warm {
    /// What was opened, where a next version is expected.
    datasets: Option<RefCell<Vec<Opened>>>,
    /// Places in the order of a script's runs, and the directories of those that were stopped there.
    carried: RefCell<Vec<(usize, PathBuf)>>,
}

/// A run that has a checkpoint.
pub struct Trained {
    /// In the order of the script's runs.
    pub place: usize,
    pub dir: PathBuf,
    /// Steps done by itself, beyond what it was handed over.
    pub steps: u64,
    /// Whether an edit or an error has stopped it on its way.
    pub stopped: bool,
}

struct Opened {
    spec: Spec,
    stamp: u64,
    dataset: Dataset,
    /// Whether the script that runs has opened it, or the one before.
    used: bool,
}

impl Warm {
    /// One that keeps datasets.
    pub fn keeping() -> Self {
        Self { datasets: Some(RefCell::default()), ..Self::default() }
    }

    /// A new session begins: what the one before did not open is let go of.
    pub fn begin(&self) {
        let Some(datasets) = &self.datasets else { return };
        let mut datasets = datasets.borrow_mut();
        // One that came to nothing, by a slip, says nothing about what is needed.
        if datasets.iter().any(|opened| opened.used) {
            datasets.retain(|opened| opened.used);
        }
        datasets.iter_mut().for_each(|opened| opened.used = false);
    }

    /// Opens a dataset; where its files are those of one that was open before, with the images that one has in memory.
    pub fn open(&self, spec: &Spec) -> Result<Dataset, DataError> {
        let dataset = Dataset::open(spec)?;
        let Some(datasets) = &self.datasets else { return Ok(dataset) };
        let mut datasets = datasets.borrow_mut();
        let stamp = dataset.stamp();
        let known = datasets.iter().position(|known| known.spec == *spec);
        let dataset = match known.map(|place| datasets.remove(place)) {
            Some(known) if known.stamp == stamp => dataset.warmed_by(&known.dataset),
            _ => dataset,
        };
        datasets.push(Opened { spec: spec.clone(), stamp, dataset: dataset.clone(), used: true });
        Ok(dataset)
    }

    /// A session has ended, and this is what came of its runs, by their place: the next one's may go on from those that were
    /// stopped on their way. Where the session came to no training, what was there before still stands.
    pub fn carry(&self, trained: Vec<Trained>, done: bool) {
        let mut carried = self.carried.borrow_mut();
        carried.retain(|(place, _)| match trained.iter().find(|run| run.place == *place) {
            Some(run) => run.steps == 0,
            None => !done,
        });
        carried.extend(trained.into_iter().filter(|run| run.stopped && run.steps > 0).map(|run| (run.place, run.dir)));
    }

    /// The run that the one at `place` may go on from.
    pub fn carried(&self, place: usize) -> Option<PathBuf> {
        self.carried.borrow().iter().find(|(known, _)| *known == place).map(|(_, dir)| dir.clone())
    }
}
