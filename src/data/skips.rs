//! Which files could not be read, and when that is too many.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One file of a view that could not be read.
#[derive(Clone, Debug)]
pub struct Skip {
    /// Index in the view.
    pub index: usize,
    pub reason: String,
}

/// So many unreadable files are always tolerated.
const FREE: usize = 20;

/// The unreadable files of an opened dataset, by index, with the reason; all views share it.
#[derive(Debug, Default)]
pub struct SkipLog {
    entries: Mutex<BTreeMap<u32, String>>,
}

impl SkipLog {
    pub fn add(&self, skips: impl IntoIterator<Item = (u32, String)>) {
        let mut entries = self.lock();
        for (index, reason) in skips {
            entries.entry(index).or_insert(reason);
        }
    }

    pub fn entries(&self) -> Vec<(u32, String)> {
        self.lock().iter().map(|(index, reason)| (*index, reason.clone())).collect()
    }

    /// How many of `files` (sorted) are listed, with the first of them, if that is more than 1 % and more than 20.
    pub fn too_many(&self, files: &[u32]) -> Option<(usize, u32, String)> {
        let entries = self.lock();
        let mut listed = entries.iter().filter(|(index, _)| files.binary_search(index).is_ok());
        let (first, reason) = listed.next()?;
        let count = 1 + listed.count();
        (count > FREE && count * 100 > files.len()).then(|| (count, *first, reason.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_one_percent_and_twenty() {
        let all = |n: u32| (0..n).collect::<Vec<_>>();
        let log = SkipLog::default();
        log.add((0..20).map(|i| (i, "bad".to_owned())));
        assert!(log.too_many(&all(100)).is_none());
        log.add([(20, "worse".to_owned()), (0, "said twice".to_owned())]);
        assert_eq!(log.too_many(&all(2099)), Some((21, 0, "bad".to_owned())));
        assert!(log.too_many(&all(2100)).is_none());
        assert!(log.too_many(&[0, 1, 2, 50]).is_none()); // Only a view's own files count.
    }
}
