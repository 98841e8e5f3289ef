//! From what is named on the command line to runs: a run directory, a parent of several, or a folder of both.
//!
//! Nothing here is fatal: what is no run, or is broken, is named in [`Found::problems`] and left out. The order of what is named and
//! of directory entries does not matter.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::read::{RunRecord, read_object, read_run};

/// A grid of settings and seeds that a script went through, as `index.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    pub name: String,
    /// Of the file, without its ending: two scripts may call their grids alike.
    pub script: String,
    pub title: String,
    pub text: String,
    /// Part of a setting: which arm the others are compared with.
    pub baseline: Option<Map<String, Value>>,
    pub settings: Vec<Map<String, Value>>,
    pub seeds: Vec<u64>,
}

/// A run with the place that its grid has among its parent's.
#[derive(Clone, Debug)]
pub struct Found {
    /// By when they were started, the oldest first.
    pub runs: Vec<RunRecord>,
    /// In the order of their scripts, the oldest parent first.
    pub grids: Vec<Grid>,
    /// What was left out, and why.
    pub problems: Vec<String>,
}

/// Finds the runs of `paths`, smoke tests inside folders aside.
pub fn find(paths: &[PathBuf]) -> Found {
    let mut search = Search::default();
    for path in paths {
        search.named(path);
    }
    let Search { mut runs, mut parents, mut problems, .. } = search;
    // Paths may be given in several ways; their last parts are the same.
    runs.sort_by(|a, b| (a.started(), a.dir.file_name(), &a.dir).cmp(&(b.started(), b.dir.file_name(), &b.dir)));
    parents.sort_by(|a, b| (&a.started, &a.dir).cmp(&(&b.started, &b.dir)));
    let mut grids: Vec<Grid> = Vec::new();
    for grid in parents.into_iter().flat_map(|parent| parent.grids) {
        // The same grid, run again for more seeds, is one.
        match grids.iter_mut().find(|known| known.is(&grid.name, &grid.script) && known.title == grid.title) {
            Some(known) => known.join(grid),
            None => grids.push(grid),
        }
    }
    for run in &runs {
        problems.extend(run.problems.iter().map(|problem| format!("{}/{problem}", run.dir.display())));
    }
    problems.sort();
    problems.dedup();
    Found { runs, grids, problems }
}

impl Grid {
    /// A grid that is known from its runs alone.
    pub fn bare(name: &str, script: &str) -> Self {
        Self {
            name: name.to_owned(),
            script: script.to_owned(),
            title: name.to_owned(),
            text: String::new(),
            baseline: None,
            settings: Vec::new(),
            seeds: Vec::new(),
        }
    }

    /// Whether this is the grid of that name of that script; where a script is not known, the name decides.
    pub fn is(&self, name: &str, script: &str) -> bool {
        self.name == name && (self.script.is_empty() || script.is_empty() || self.script == script)
    }

    fn join(&mut self, other: Self) {
        for setting in other.settings {
            if !self.settings.contains(&setting) {
                self.settings.push(setting);
            }
        }
        for seed in other.seeds {
            if !self.seeds.contains(&seed) {
                self.seeds.push(seed);
            }
        }
    }
}

#[derive(Default)]
struct Search {
    runs: Vec<RunRecord>,
    parents: Vec<Parent>,
    problems: Vec<String>,
    /// Real paths of what was looked at: nothing counts twice.
    seen: HashSet<PathBuf>,
}

struct Parent {
    started: String,
    dir: PathBuf,
    grids: Vec<Grid>,
}

impl Search {
    fn named(&mut self, path: &Path) {
        if !path.exists() {
            return self.leave_out(path, "there is no such directory");
        }
        if path.join("index.json").exists() {
            return self.parent(path, true);
        }
        if path.join("run.json").exists() {
            if let Some(above) = path.canonicalize().ok().and_then(|real| real.parent().map(Path::to_path_buf)) {
                self.index_above(&above);
            }
            return self.run(path, true);
        }
        match subfolders(path) {
            Err(why) => self.leave_out(path, &why),
            Ok(folders) if folders.is_empty() => self.leave_out(path, "it holds no runs"),
            Ok(folders) => {
                for folder in folders {
                    if folder.join("index.json").exists() {
                        self.parent(&folder, false)
                    } else {
                        self.run(&folder, false)
                    }
                }
            }
        }
    }

    fn parent(&mut self, dir: &Path, named: bool) {
        if !self.is_new(dir) {
            return;
        }
        let index = match read_object(&dir.join("index.json")) {
            Ok(index) => index,
            Err(why) => return self.leave_out(dir, &why),
        };
        let Some(list) = index.get("runs").and_then(Value::as_array) else {
            return self.leave_out(dir, "index.json: it lists no runs");
        };
        if !named && index.get("smoke") == Some(&Value::Bool(true)) {
            return self.leave_out(dir, "a smoke test; it counts if it is named itself");
        }
        let before = self.runs.len();
        for child in list.iter().filter_map(|entry| entry.get("dir")?.as_str()) {
            self.run(&dir.join(child), true);
        }
        self.drop_superseded(before, &index);
        self.take_grids(dir, &index);
    }

    /// Leaves out the cells, among the runs from `first` on, whose grid has made them anew from something else: of another setting that is called
    /// the same, or of the same setting and seed after other results. Seeds and settings that the script was not asked for the last
    /// time stay.
    fn drop_superseded(&mut self, first: usize, index: &Map<String, Value>) {
        let grids = index.get("grids").and_then(Value::as_array).into_iter().flatten();
        let current: HashSet<&str> =
            grids.filter_map(|grid| grid.get("cells")?.as_array()).flatten().filter_map(Value::as_str).collect();
        let is_current = |run: &RunRecord| {
            run.cell.as_ref().is_some_and(|cell| cell.address.as_deref().is_some_and(|own| current.contains(own)))
        };
        let replaces = |new: &RunRecord, old: &RunRecord| match (&new.cell, &old.cell) {
            (Some(new_cell), Some(cell)) if new_cell.grid == cell.grid && new_cell.label == cell.label => {
                new_cell.setting != cell.setting || new.seed == old.seed
            }
            _ => false,
        };
        let own: Vec<RunRecord> = self.runs.drain(first..).collect();
        for run in &own {
            if !is_current(run) && own.iter().any(|new| is_current(new) && replaces(new, run)) {
                self.leave_out(&run.dir, "its grid has made this cell anew, from other settings or other results");
            } else {
                self.runs.push(run.clone());
            }
        }
    }

    /// A run that is named alone belongs to its parent's grids all the same.
    fn index_above(&mut self, dir: &Path) {
        if dir.join("index.json").exists()
            && let Ok(index) = read_object(&dir.join("index.json"))
        {
            self.take_grids(dir, &index);
        }
    }

    fn take_grids(&mut self, dir: &Path, index: &Map<String, Value>) {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        if self.parents.iter().any(|parent| parent.dir == dir) {
            return;
        }
        let mut grids = Vec::new();
        for value in index.get("grids").and_then(Value::as_array).into_iter().flatten() {
            match grid(value, index) {
                Some(grid) => grids.push(grid),
                None => self.leave_out(&dir, "index.json: a grid without a name"),
            }
        }
        let started = index.get("started").and_then(Value::as_str).unwrap_or_default().to_owned();
        self.parents.push(Parent { started, dir, grids });
    }

    fn run(&mut self, dir: &Path, named: bool) {
        if !self.is_new(dir) {
            return;
        }
        match read_run(dir) {
            Ok(Some(run)) if run.is_smoke() && !named => {
                self.leave_out(dir, "a smoke test; it counts if it is named itself");
            }
            Ok(Some(run)) => self.runs.push(run),
            Ok(None) => self.leave_out(dir, "it holds results, and no training"),
            Err(why) => self.leave_out(dir, &why),
        }
    }

    fn is_new(&mut self, dir: &Path) -> bool {
        self.seen.insert(dir.canonicalize().unwrap_or_else(|_| dir.to_owned()))
    }

    fn leave_out(&mut self, dir: &Path, why: &str) {
        self.problems.push(format!("{}: {why}", dir.display()));
    }
}

fn grid(value: &Value, index: &Map<String, Value>) -> Option<Grid> {
    let script = index.get("script").and_then(Value::as_str).map(Path::new).and_then(Path::file_stem);
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let list = |key: &str| value.get(key).and_then(Value::as_array).into_iter().flatten();
    let name = text("name")?;
    Some(Grid {
        title: text("title").unwrap_or_else(|| name.clone()),
        text: text("text").unwrap_or_default(),
        baseline: value.get("baseline").and_then(Value::as_object).filter(|map| !map.is_empty()).cloned(),
        settings: list("settings").filter_map(|setting| setting.as_object().cloned()).collect(),
        seeds: list("seeds").filter_map(Value::as_u64).collect(),
        script: script.unwrap_or_default().to_string_lossy().into_owned(),
        name,
    })
}

/// Folders directly inside, hidden ones aside.
fn subfolders(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(dir).map_err(|err| err.to_string())? {
        let path = entry.map_err(|err| err.to_string())?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')) {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}
