//! Where a script's runs go: one run is a directory of its own; several share a parent with an `index.json`.
//!
//! A script does not say beforehand how many runs it makes, so the first one's directory becomes a child when the second
//! one starts. Resuming runs the script again from its top: each `run::start` finds its directory by its place in the order.
//! The cells of a grid are found by their address instead, whatever the order in which they are run.

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::replace_file;
use super::error::At;
use super::lock::{RunLock, Taken};
use super::{TrainError, TrainResult};

/// Entry of `index.json`: what the grids in it were made from.
pub const ADDRESS: &str = "grid_address";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    dir: String,
    /// The address of a grid's cell; runs that are none go by their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cell: Option<String>,
}

/// What `index.json` of a parent holds, beside what is needed to run the script again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Index {
    runs: Vec<Entry>,
    #[serde(flatten)]
    about: Map<String, Value>,
}

/// A script's text and its modules', by key.
pub type Sources = Vec<(String, String)>;

/// The locks of directories made here: they are held until the last clone is gone.
pub type Locks = Rc<RefCell<Vec<RunLock>>>;

pub struct Experiment {
    /// The single run's directory, or the parent of several.
    root: PathBuf,
    /// Facts for `index.json`: script, arguments, seed.
    about: Map<String, Value>,
    sources: Sources,
    index: Index,
    /// How many runs this process has started.
    started: usize,
    /// Of the directories made here; whoever resumes takes the lock of what is resumed beforehand.
    locks: Locks,
    resumed: bool,
}

impl Experiment {
    /// A new experiment `runs/<stamp>-<stem>`, or with a number behind it where another has that name; its directory is made,
    /// and nothing written into it yet.
    ///
    /// Errors: the disk's.
    pub fn new(runs: &Path, stamp: &str, stem: &str, about: Map<String, Value>, sources: Sources) -> TrainResult<Self> {
        fs::create_dir_all(runs).at(runs)?;
        let mut root = runs.join(format!("{stamp}-{stem}"));
        for n in 2.. {
            // Making it is what takes the name: another process may be about to.
            match fs::create_dir(&root) {
                Err(err) if err.kind() == ErrorKind::AlreadyExists => root = runs.join(format!("{stamp}-{stem}-{n}")),
                made => {
                    made.at(&root)?;
                    break;
                }
            }
        }
        Ok(Self { root, about, sources, index: Index::default(), started: 0, locks: Locks::default(), resumed: false })
    }

    /// Carries on with what `root` holds.
    pub fn resume(root: &Path, about: Map<String, Value>, sources: Sources) -> TrainResult<Self> {
        let path = root.join("index.json");
        let index = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|err| TrainError::broken(&path, err))?,
            Err(_) => Index::default(),
        };
        Ok(Self { root: root.to_owned(), about, sources, index, started: 0, locks: Locks::default(), resumed: true })
    }

    /// What keeps other processes out of this experiment's directories.
    pub fn locks(&self) -> Locks {
        Rc::clone(&self.locks)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The script has been patched: a parent of several runs begins with this text.
    pub fn set_script(&mut self, text: &str) {
        if let Some((_, script)) = self.sources.first_mut() {
            text.clone_into(script);
        }
    }

    /// The directory of the next `run::start`, and whether it exists already.
    ///
    /// Errors: the disk's; or a script that asks for other runs than the one that is being resumed.
    pub fn next(&mut self, name: &str) -> TrainResult<(PathBuf, bool)> {
        let place = self.started;
        self.started += 1;
        if let Some(entry) = self.plain(place) {
            if entry.name != name {
                let problem = format!("run {} was \"{}\", the script now calls it \"{name}\"", place + 1, entry.name);
                return Err(TrainError::broken(&self.root, problem));
            }
            return Ok((self.root.join(&entry.dir), true));
        }
        if place == 0 && !self.is_parent() {
            let exists = self.root.join("run.json").exists();
            fs::create_dir_all(&self.root).at(&self.root)?;
            if !self.resumed {
                self.lock(&self.root)?;
            }
            return Ok((self.root.clone(), exists));
        }
        if place == 1 && !self.is_parent() {
            self.become_parent()?;
        }
        let dir = child(place, name);
        self.index.runs.push(Entry { name: name.to_owned(), dir: dir.clone(), cell: None });
        self.write_index(&self.root)?;
        let path = self.root.join(dir);
        let exists = path.join("run.json").exists();
        fs::create_dir_all(&path).at(&path)?;
        Ok((path, exists))
    }

    /// Where run number `place` (from 0) lies now: the first one moves when the second starts.
    pub fn path_of(&self, place: usize) -> PathBuf {
        self.plain(place).map_or_else(|| self.root.clone(), |entry| self.root.join(&entry.dir))
    }

    /// Makes the experiment a parent, if it is none yet, that goes by `address` and lists `grid` among its grids.
    ///
    /// Errors: the disk's.
    pub fn begin_grid(&mut self, address: &str, name: &str, grid: Value) -> TrainResult<()> {
        if !self.is_parent() {
            match self.started {
                0 => {
                    fs::create_dir_all(&self.root).at(&self.root)?;
                    if !self.resumed {
                        self.lock(&self.root)?;
                    }
                    write_sources(&self.root, &self.sources)?;
                    self.index.about = self.about.clone();
                }
                _ => self.become_parent()?,
            }
        }
        let about = &mut self.index.about;
        // Those that only say which cells there are may have changed since it began, and how it is run.
        for key in ["arguments", "options"] {
            if let Some(value) = self.about.get(key) {
                about.insert(key.to_owned(), value.clone());
            }
        }
        // Several grids of a script go by the first one's.
        about.entry(ADDRESS).or_insert_with(|| address.into());
        let grids = about.entry("grids").or_insert_with(|| Value::Array(Vec::new()));
        if let Some(grids) = grids.as_array_mut() {
            match grids.iter_mut().find(|known| known["name"] == name) {
                Some(known) => *known = grid,
                None => grids.push(grid),
            }
        }
        self.write_index(&self.root)
    }

    /// What the grids in it were made from, if there are any.
    pub fn address(&self) -> Option<&str> {
        self.index.about.get(ADDRESS).and_then(Value::as_str)
    }

    /// The directory of the cell with this address, if it has one.
    pub fn known_cell(&self, address: &str) -> Option<PathBuf> {
        let entry = self.index.runs.iter().find(|entry| entry.cell.as_deref() == Some(address));
        entry.map(|entry| self.root.join(&entry.dir))
    }

    /// A directory for the cell of this name and address; one that it had is left to itself.
    ///
    /// Errors: the disk's.
    pub fn new_cell(&mut self, name: &str, address: &str) -> TrainResult<PathBuf> {
        self.index.runs.retain(|entry| entry.cell.as_deref() != Some(address));
        let stem = safe(name);
        let mut dir = stem.clone();
        for n in 2.. {
            match fs::create_dir(self.root.join(&dir)) {
                Err(err) if err.kind() == ErrorKind::AlreadyExists => dir = format!("{stem}-{n}"),
                made => {
                    made.at(&self.root)?;
                    break;
                }
            }
        }
        self.index.runs.push(Entry { name: name.to_owned(), dir: dir.clone(), cell: Some(address.to_owned()) });
        self.write_index(&self.root)?;
        Ok(self.root.join(dir))
    }

    fn is_parent(&self) -> bool {
        !self.index.runs.is_empty() || self.index.about.contains_key(ADDRESS)
    }

    /// Of the runs that are no cells, the one at this place.
    fn plain(&self, place: usize) -> Option<&Entry> {
        self.index.runs.iter().filter(|entry| entry.cell.is_none()).nth(place)
    }

    fn become_parent(&mut self) -> TrainResult<()> {
        let run: Value = fs::read(self.root.join("run.json"))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let name = run["name"].as_str().unwrap_or("run").to_owned();
        let dir = child(0, &name);
        self.index = Index { runs: vec![Entry { name, dir: dir.clone(), cell: None }], about: self.about.clone() };
        // The parent is made whole beside its place; a kill between the renames is mended by `recover`.
        let aside = beside(&self.root);
        if aside.exists() {
            fs::remove_dir_all(&aside).at(&aside)?;
        }
        fs::create_dir_all(&aside).at(&aside)?;
        self.lock(&aside)?;
        write_sources(&aside, &self.sources)?;
        self.write_index(&aside)?;
        fs::rename(&self.root, aside.join(&dir)).at(&self.root)?;
        fs::rename(&aside, &self.root).at(&aside)
    }

    /// Says to other processes that this one runs here, until it ends.
    fn lock(&self, dir: &Path) -> TrainResult<()> {
        match RunLock::take(dir).at(dir)? {
            Taken::Held(lock) => self.locks.borrow_mut().push(lock),
            Taken::Busy(_) => return Err(TrainError::broken(dir, "another process is running in it")),
        }
        Ok(())
    }

    fn write_index(&self, root: &Path) -> TrainResult<()> {
        let path = root.join("index.json");
        let text = serde_json::to_vec_pretty(&self.index).map_err(|err| TrainError::broken(&path, err))?;
        replace_file(&path, &text)
    }
}

/// Where a run's parent is made, before the two change places.
fn beside(root: &Path) -> PathBuf {
    let mut name = root.file_name().unwrap_or_default().to_owned();
    name.push(".moving");
    root.with_file_name(name)
}

/// Puts a parent in its place that a kill left beside it: call this before looking into `root`.
pub fn recover(root: &Path) -> TrainResult<()> {
    let aside = beside(root);
    if !root.exists() && aside.join("index.json").exists() {
        fs::rename(&aside, root).at(&aside)?;
    }
    Ok(())
}

fn child(place: usize, name: &str) -> String {
    format!("{}-{}", place + 1, safe(name))
}

/// A name as a folder may have it.
fn safe(name: &str) -> String {
    const LONGEST: usize = 80;
    let safe = name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' });
    let safe: String = safe.take(LONGEST).collect();
    safe.trim_matches(['-', '.']).to_owned()
}

/// Writes `script.rhai` (the first source) and `modules/` into a run directory, where they are not there already.
pub fn write_sources(root: &Path, sources: &Sources) -> TrainResult<()> {
    for (i, (key, text)) in sources.iter().enumerate() {
        let path =
            if i == 0 { root.join("script.rhai") } else { root.join("modules").join(key).with_extension("rhai") };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).at(parent)?;
        }
        // A resumed run reads what stands here: it is not to be found half written.
        if !fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            replace_file(&path, text.as_bytes())?;
        }
    }
    Ok(())
}

/// Replaces `script.rhai`; the text that it had is kept as `revisions/1.rhai` and so on.
pub fn patch_script(root: &Path, text: &str) -> TrainResult<()> {
    let path = root.join("script.rhai");
    let before = fs::read(&path).at(&path)?;
    if before == text.as_bytes() {
        return Ok(());
    }
    let folder = root.join("revisions");
    fs::create_dir_all(&folder).at(&folder)?;
    let number = (1..).find(|number| !folder.join(format!("{number}.rhai")).exists()).unwrap_or(1);
    replace_file(&folder.join(format!("{number}.rhai")), &before)?;
    replace_file(&path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_run_makes_a_parent_and_resuming_finds_both() {
        let runs = tempfile::tempdir().unwrap();
        let sources = vec![("a.rhai".to_owned(), "let x = 1;".to_owned())];
        let mut experiment = Experiment::new(runs.path(), "now", "try", Map::new(), sources.clone()).unwrap();
        let (first, exists) = experiment.next("plain").unwrap();
        assert!(!exists && first == experiment.root());
        fs::write(first.join("run.json"), r#"{"name":"plain"}"#).unwrap();
        let (second, exists) = experiment.next("all of it").unwrap();
        assert!(!exists && second.ends_with("2-all-of-it"));
        assert!(experiment.path_of(0).join("run.json").exists());
        assert!(experiment.root().join("script.rhai").exists());

        let mut again = Experiment::resume(experiment.root(), Map::new(), sources).unwrap();
        assert_eq!(again.next("plain").unwrap(), (experiment.path_of(0), true));
        assert!(again.next("another name").is_err());
        let other = Experiment::new(runs.path(), "now", "try", Map::new(), Vec::new()).unwrap();
        assert!(other.root().ends_with("now-try-2"));
    }

    /// Two scripts that are started in the same second, as by a shell's `&`.
    #[test]
    fn experiments_of_the_same_second_have_directories_of_their_own() {
        let place = tempfile::tempdir().unwrap();
        let runs = place.path().join("runs");
        let begin = std::sync::Barrier::new(8);
        let new = || {
            begin.wait();
            let of_one = || Experiment::new(&runs, "now", "try", Map::new(), Vec::new()).unwrap().root().to_owned();
            (0..10).map(|_| of_one()).collect::<Vec<_>>()
        };
        let mut roots: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(new)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), 80, "each is one experiment's");
        assert!(roots.iter().all(|root| root.is_dir()));
    }
}
