//! Which files are watched, and whether any of them may have changed.
//!
//! Folders are watched, not files: editors write a new file and rename it into place, and what was deleted may come back.
//! An event only says "look"; what was read decides. A file that was written a moment ago may be half written, so it counts
//! once it has been left alone for [`SETTLED`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use notify_debouncer_full::notify::{self, PollWatcher, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer, new_debouncer_opt};

use crate::host::errors::Failure;
use crate::host::say::say;

/// How long events are collected before they count.
const DEBOUNCE: Duration = Duration::from_millis(30);
/// How long a file has to be left alone before it is read.
pub const SETTLED: Duration = Duration::from_millis(25);
/// How often folders are looked through where the system does not tell of changes.
const POLL: Duration = Duration::from_millis(500);

/// The texts of files by key; `None` where there is no such file.
pub type Texts = BTreeMap<String, Option<String>>;

enum Watcher {
    Told(Debouncer<RecommendedWatcher, RecommendedCache>),
    Polling(Debouncer<PollWatcher, RecommendedCache>),
}

pub struct Files {
    watcher: Watcher,
    folders: BTreeSet<PathBuf>,
    changed: Arc<AtomicBool>,
}

impl Files {
    /// # Errors
    /// If the system lets nothing be watched.
    pub fn new() -> Result<Self, Failure> {
        let changed = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&changed);
        let told = new_debouncer(DEBOUNCE, None, move |events: DebounceEventResult| hear(&events, &heard));
        let watcher = match told {
            Ok(told) => Watcher::Told(told),
            Err(err) => {
                say(&format!("watch: the system does not tell of changes ({err}); looking every half second instead"));
                Watcher::Polling(polling(&changed)?)
            }
        };
        Ok(Self { watcher, folders: BTreeSet::new(), changed })
    }

    /// Watches exactly the folders that these files lie in.
    pub fn watch<'a>(&mut self, files: impl Iterator<Item = &'a Path>) -> Result<(), Failure> {
        let wanted: BTreeSet<PathBuf> = files.filter_map(|file| existing(file.parent()?)).collect();
        for folder in self.folders.difference(&wanted).cloned().collect::<Vec<_>>() {
            // Gone already, maybe; then there is nothing to end.
            let _ = self.unwatch(&folder);
        }
        for folder in &wanted {
            // Also those that are watched: a folder that was deleted and made anew is another one.
            if self.folders.contains(folder) && self.still_there(folder) {
                continue;
            }
            if let Err(err) = self.begin(folder) {
                if matches!(self.watcher, Watcher::Polling(_)) {
                    return Err(Failure::machine(format!("cannot watch {}: {err}", folder.display())));
                }
                say(&format!("watch: {}: {err}; looking every half second instead", folder.display()));
                self.watcher = Watcher::Polling(polling(&self.changed)?);
                self.folders.clear();
                return self.watch_all(wanted);
            }
        }
        self.folders = wanted;
        Ok(())
    }

    fn watch_all(&mut self, folders: BTreeSet<PathBuf>) -> Result<(), Failure> {
        for folder in &folders {
            let begun = self.begin(folder);
            begun.map_err(|err| Failure::machine(format!("cannot watch {}: {err}", folder.display())))?;
        }
        self.folders = folders;
        Ok(())
    }

    fn begin(&mut self, folder: &Path) -> notify::Result<()> {
        match &mut self.watcher {
            Watcher::Told(watcher) => watcher.watch(folder, RecursiveMode::NonRecursive),
            Watcher::Polling(watcher) => watcher.watch(folder, RecursiveMode::NonRecursive),
        }
    }

    fn unwatch(&mut self, folder: &Path) -> notify::Result<()> {
        match &mut self.watcher {
            Watcher::Told(watcher) => watcher.unwatch(folder),
            Watcher::Polling(watcher) => watcher.unwatch(folder),
        }
    }

    /// Watching a folder again is how to learn that it was replaced; the system counts it once.
    fn still_there(&mut self, folder: &Path) -> bool {
        self.begin(folder).is_ok()
    }

    /// Whether anything was heard since this was last asked.
    pub fn take_changed(&self) -> bool {
        // Asked at every operation of a script: a look without a write is what it costs when nothing happened.
        self.changed.load(Ordering::Acquire) && self.changed.swap(false, Ordering::AcqRel)
    }

    /// Asks to look again.
    pub fn set_changed(&self) {
        self.changed.store(true, Ordering::Release);
    }
}

fn polling(changed: &Arc<AtomicBool>) -> Result<Debouncer<PollWatcher, RecommendedCache>, Failure> {
    let heard = Arc::clone(changed);
    let config = notify::Config::default().with_poll_interval(POLL);
    let handler = move |events: DebounceEventResult| hear(&events, &heard);
    new_debouncer_opt(DEBOUNCE, None, handler, RecommendedCache::new(), config)
        .map_err(|err| Failure::machine(format!("cannot watch files: {err}")))
}

/// Takes note of what may be a source: not of files that were only read, nor of what a run writes.
fn hear(events: &DebounceEventResult, changed: &AtomicBool) {
    let source = |path: &PathBuf| path.extension().is_none_or(|extension| extension == "rhai");
    let counts = events
        .as_ref()
        .map_or(true, |events| events.iter().any(|event| !event.kind.is_access() && event.paths.iter().any(source)));
    if counts {
        changed.store(true, Ordering::Release);
    }
}

/// `folder`, or the nearest one above it that exists: a folder that is not there yet may come.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_path_buf)
}

/// When files were written; `None` for one that is not there.
pub fn written(files: &[(String, PathBuf)]) -> Vec<Option<SystemTime>> {
    files.iter().map(|(_, path)| std::fs::metadata(path).and_then(|data| data.modified()).ok()).collect()
}

/// Reads files by key; `None` if one of them was written to a moment ago.
pub fn read<'a>(files: impl Iterator<Item = (&'a str, PathBuf)>) -> Option<Texts> {
    let mut texts = Texts::new();
    for (key, path) in files {
        let text = match std::fs::metadata(&path) {
            Err(_) => None,
            Ok(data) => {
                let modified = data.modified().ok();
                let age = modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
                if age.is_some_and(|age| age < SETTLED) {
                    return None;
                }
                let text = std::fs::read_to_string(&path).ok();
                if std::fs::metadata(&path).and_then(|data| data.modified()).ok() != modified {
                    return None;
                }
                text
            }
        };
        texts.insert(key.to_owned(), text);
    }
    Some(texts)
}
