//! Decoded images kept in memory, until a byte limit is reached. Nothing is ever thrown out: an epoch visits every image once,
//! so any image that stays is worth as much as any other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::image::Image;

/// A loaded image, or why there is none.
pub type Loaded = Result<Arc<Image>, Arc<str>>;

/// One slot per image; reading a filled slot takes no lock.
pub struct Cache {
    slots: Vec<OnceLock<Loaded>>,
    used_bytes: AtomicU64,
    limit_bytes: u64,
}

impl Cache {
    pub fn new(slots: usize, limit_bytes: u64) -> Self {
        let slots = if limit_bytes == 0 { 0 } else { slots };
        Self { slots: (0..slots).map(|_| OnceLock::new()).collect(), used_bytes: AtomicU64::new(0), limit_bytes }
    }

    /// The image from its slot, or from `load`, kept if it still fits.
    pub fn get_or_load(&self, index: usize, load: impl FnOnce() -> Result<Image, String>) -> Loaded {
        if let Some(loaded) = self.slots.get(index).and_then(OnceLock::get) {
            return loaded.clone();
        }
        let loaded = load().map(Arc::new).map_err(Arc::from);
        let Some(slot) = self.slots.get(index) else { return loaded };
        let bytes = loaded.as_ref().map_or(0, |image| image.pixels.len() as u64);
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Two threads may load the same image; the second gives its share back.
        if before + bytes > self.limit_bytes || slot.set(loaded.clone()).is_err() {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
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
                let image = cache.get_or_load(i, || {
                    loads += 1;
                    Ok(Image::filled(10, 10, 1, i as u8))
                });
                assert_eq!(image.unwrap().pixels[0], i as u8, "round {round}");
            }
        }
        assert_eq!(loads, 2 + 3 * 2); // Two fit, two are loaded each time.
    }

    #[test]
    fn failures_are_kept_and_no_limit_is_no_cache() {
        let cache = Cache::new(1, 10);
        assert!(cache.get_or_load(0, || Err("no".into())).is_err());
        assert!(cache.get_or_load(0, || Ok(Image::filled(1, 1, 1, 0))).is_err());
        let none = Cache::new(1, 0);
        assert!(none.get_or_load(0, || Err("no".into())).is_err());
        assert!(none.get_or_load(0, || Ok(Image::filled(1, 1, 1, 0))).is_ok());
    }
}
