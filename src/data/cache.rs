//! Decoded images and masks kept in memory, once that is worth it, until a byte limit is reached. Nothing is ever thrown out: an
//! epoch visits every image once, so any image that stays is worth as much as any other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::image::Image;
use super::mask::Mask;

/// Something loaded, or why there is none.
pub type Loaded<T = Image> = Result<Arc<T>, Arc<str>>;

/// What a cache can hold.
pub trait Weight {
    /// Bytes on the heap.
    fn bytes(&self) -> u64;
}

impl Weight for Image {
    fn bytes(&self) -> u64 {
        self.pixels.len() as u64
    }
}

impl Weight for Mask {
    fn bytes(&self) -> u64 {
        self.labels.len() as u64
    }
}

/// One slot per image; reading a filled slot takes no lock.
pub struct Cache<T> {
    slots: Vec<OnceLock<Loaded<T>>>,
    budget: Arc<Budget>,
}

struct Budget {
    used_bytes: AtomicU64,
    limit_bytes: AtomicU64,
    /// Whether anything is kept yet.
    open: AtomicBool,
}

impl<T: Weight> Cache<T> {
    pub fn new(slots: usize, limit_bytes: u64) -> Self {
        Self::within(
            slots,
            Arc::new(Budget {
                used_bytes: AtomicU64::new(0),
                limit_bytes: AtomicU64::new(limit_bytes),
                open: AtomicBool::new(true),
            }),
        )
    }

    /// A cache that shares the byte limit of another.
    pub fn beside<U>(slots: usize, other: &Cache<U>) -> Self {
        Self::within(slots, other.budget.clone())
    }

    fn within(slots: usize, budget: Arc<Budget>) -> Self {
        let slots = if budget.limit_bytes.load(Ordering::Relaxed) == 0 { 0 } else { slots };
        Self { slots: (0..slots).map(|_| OnceLock::new()).collect(), budget }
    }

    /// Changes the limit; what is in memory stays.
    pub fn set_limit_bytes(&self, limit_bytes: u64) {
        self.budget.limit_bytes.store(limit_bytes, Ordering::Relaxed);
    }

    /// Keeps nothing until it is opened, or from now on; what is in memory stays.
    pub fn set_open(&self, open: bool) {
        self.budget.open.store(open, Ordering::Relaxed);
    }

    /// What may be in memory by now.
    fn limit_bytes(&self) -> u64 {
        match self.budget.open.load(Ordering::Relaxed) {
            true => self.budget.limit_bytes.load(Ordering::Relaxed),
            false => 0,
        }
    }

    /// What is in a slot.
    pub fn get(&self, index: usize) -> Option<Loaded<T>> {
        self.slots.get(index).and_then(OnceLock::get).cloned()
    }

    /// Whether something of so many bytes would be kept.
    pub fn has_room_for(&self, index: usize, bytes: u64) -> bool {
        let used = self.budget.used_bytes.load(Ordering::Relaxed);
        used + bytes <= self.limit_bytes() && self.slots.get(index).is_some_and(|slot| slot.get().is_none())
    }

    /// Keeps what was loaded if it still fits and the slot is free.
    pub fn keep(&self, index: usize, loaded: Result<T, String>) -> Loaded<T> {
        let loaded = loaded.map(Arc::new).map_err(Arc::from);
        let Some(slot) = self.slots.get(index) else { return loaded };
        let bytes = loaded.as_ref().map_or(0, |value| value.bytes());
        let before = self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Two threads may load the same image; the second gives its share back.
        if before + bytes > self.limit_bytes() || slot.set(loaded.clone()).is_err() {
            self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_until_full() {
        let cache = Cache::new(4, 250);
        let mut loads = 0;
        for round in 0..3 {
            for i in 0..4 {
                let image = cache.get(i).unwrap_or_else(|| {
                    assert_eq!(cache.has_room_for(i, 100), loads < 2);
                    loads += 1;
                    cache.keep(i, Ok(Image::filled(10, 10, 1, i as u8)))
                });
                assert_eq!(image.unwrap().pixels[0], i as u8, "round {round}");
            }
        }
        assert_eq!(loads, 2 + 3 * 2); // Two fit, two are loaded each time.
    }

    #[test]
    fn a_closed_cache_keeps_nothing_but_failures() {
        let cache = Cache::<Image>::new(3, 1000);
        cache.set_open(false);
        let _ = cache.keep(0, Ok(Image::filled(10, 10, 1, 0)));
        let _ = cache.keep(1, Err("no".into()));
        assert!(cache.get(0).is_none() && cache.get(1).is_some_and(|kept| kept.is_err()) && !cache.has_room_for(0, 1));
        cache.set_open(true);
        let _ = cache.keep(0, Ok(Image::filled(10, 10, 1, 0)));
        assert!(cache.get(0).is_some() && cache.has_room_for(2, 900) && !cache.has_room_for(2, 901));
    }

    #[test]
    fn failures_are_kept_and_no_limit_is_no_cache() {
        let cache = Cache::<Image>::new(1, 10);
        assert!(cache.keep(0, Err("no".into())).is_err());
        assert!(cache.get(0).is_some_and(|kept| kept.is_err()) && !cache.has_room_for(0, 1));
        let none = Cache::<Image>::new(1, 0);
        assert!(none.keep(0, Err("no".into())).is_err() && none.get(0).is_none() && !none.has_room_for(0, 0));
        assert!(none.keep(0, Ok(Image::filled(1, 1, 1, 0))).is_ok());
    }
}
