//! Which files a script may read: its own folder, `datasets/`, what `--set` names, and `--allow-read`; and where it may
//! write: into its run directory, and below `--allow-write`.
//!
//! A path that came in through `--set` is relative to the current folder, as anything on a command line; a path written in
//! a script is relative to the script's folder, and `datasets/…` is also looked for in the current folder. Links are
//! followed first, and the real path decides. A path to be written is one from the current folder if that lies where the script
//! may write, so that `run.dir + "/notes.txt"` is what it seems to be; else it starts from the run directory. There, what the run
//! itself writes is not a script's: `run.json` says what a resumed script may read.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use super::args::Given;
use super::errors::Failure;
use super::session::Options;
use super::sources::SourceStore;
use crate::data::shards::braces;

const DATASETS: &str = "datasets";

pub struct Sandbox {
    current: PathBuf,
    script_folder: PathBuf,
    /// Real paths below which everything may be read.
    roots: Vec<PathBuf>,
    /// Real paths below which the script may write, beside its run directory.
    write_roots: Vec<PathBuf>,
    /// Texts of `--set`, as given.
    given: Vec<String>,
    /// Bytes that the script has written by itself.
    written: Cell<u64>,
}

/// All that a script may write by itself, run pictures aside: 1 GiB.
const MAX_WRITTEN: u64 = 1 << 30;

/// What a run writes into its directory, and no script by itself.
const RUN_FILES: [&str; 13] = [
    "run.json",
    "index.json",
    "script.rhai",
    "modules",
    "revisions",
    "checkpoints",
    "metrics.jsonl",
    "layers.jsonl",
    "emissions.csv",
    "files.txt",
    "skipped.csv",
    "tensorboard",
    crate::train::lock::FILE,
];

impl Sandbox {
    /// # Errors
    /// If a folder of `--allow-read` or `--allow-write` does not exist.
    pub fn new(options: &Options, store: &SourceStore, given: &Given) -> Result<Self, Failure> {
        let current = std::env::current_dir()
            .and_then(|folder| folder.canonicalize())
            .map_err(|err| Failure::machine(format!("cannot tell the current folder: {err}")))?;
        let script_folder = store.folder().to_owned();
        let real = |flag: &str, folder: &PathBuf| {
            let real = current.join(folder).canonicalize();
            real.map_err(|err| Failure::usage(format!("{flag} {}: {err}", folder.display())))
        };
        let mut roots = vec![script_folder.clone()];
        for folder in &options.allow_read {
            roots.push(real("--allow-read", folder)?);
        }
        let write_roots =
            options.allow_write.iter().map(|folder| real("--allow-write", folder)).collect::<Result<Vec<_>, _>>()?;
        // What was written can be read again.
        roots.extend(write_roots.iter().cloned());
        let given: Vec<String> = given.texts().into_iter().filter(|text| !text.is_empty()).collect();
        let named = given.iter().map(|text| current.join(text));
        let datasets = [current.join(DATASETS), script_folder.join(DATASETS)];
        roots.extend(named.chain(datasets).filter_map(|path| path.canonicalize().ok()));
        Ok(Self { current, script_folder, roots, write_roots, given, written: Cell::new(0) })
    }

    pub fn script_folder(&self) -> &Path {
        &self.script_folder
    }

    /// The real path behind `path`, if the script may read it; what lies in the directories `runs`, its own, it may.
    pub fn readable(&self, path: &str, runs: &[PathBuf]) -> Result<PathBuf, Failure> {
        if path.is_empty() {
            return Err(Failure::script("expected a path, got empty text"));
        }
        let mut places = Vec::new();
        if self.given.iter().any(|text| text == path) {
            places.push(self.current.join(path));
        } else {
            places.push(self.script_folder.join(path));
            if Path::new(path).starts_with(DATASETS) {
                places.push(self.current.join(path));
            }
        }
        let found = places.iter().find_map(|place| place.canonicalize().ok());
        let allowed = |real: &PathBuf| self.roots.iter().any(|root| real.starts_with(root));
        if let Some(real) = found.clone().filter(allowed) {
            return Ok(real);
        }
        // What the script itself and its runs have written, by its whole path or from the run directory.
        for run in runs.iter().filter_map(|run| self.current.join(run).canonicalize().ok()) {
            let own = [self.current.join(path), run.join(path)];
            let mut own = own.iter().filter_map(|place| place.canonicalize().ok());
            if let Some(real) = own.find(|real| real.starts_with(&run)) {
                return Ok(real);
            }
        }
        let Some(real) = found else { return Err(missing(path, &places)) };
        let folder = if real.is_dir() { &real } else { real.parent().unwrap_or(&real) };
        Err(Failure::script(format!("the script may not read {}", real.display())).with_hint(format!(
            "allow it with --allow-read {}, or hand the path over as a parameter with --set",
            folder.display()
        )))
    }

    /// The same for all paths that a text with braces stands for; given by `--set`, it gives all of them.
    pub fn readable_all(&self, pattern: &str, runs: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
        let paths = braces::expand(pattern)?;
        if !self.given.iter().any(|text| text == pattern) {
            return paths.iter().map(|path| self.readable(path, runs)).collect();
        }
        let real = |path: &String| {
            let place = self.current.join(path);
            place.canonicalize().map_err(|_| missing(path, &[place]))
        };
        paths.iter().map(real).collect()
    }

    /// Where `path` is to be written, if the script may; `run` is the directory of its last run. Nothing is made yet.
    pub fn writable(&self, path: &str, run: Option<&Path>) -> Result<PathBuf, Failure> {
        if path.is_empty() || path.contains('\0') {
            return Err(Failure::script("expected a path, got empty text"));
        }
        let run = run.and_then(|run| self.current.join(run).canonicalize().ok());
        let may = |real: &Path| run.iter().chain(&self.write_roots).any(|root| real.starts_with(root) && real != root);
        let places = std::iter::once(&self.current).chain(&run).map(|folder| folder.join(path));
        let Some(real) = places.filter_map(|place| real_place(&place)).find(|real| may(real)) else {
            if run.is_none() && self.write_roots.is_empty() {
                return Err(Failure::script(format!("{path}: no run has been started to write into")).with_hint(
                    "a script writes into its run directory, after run::start or run::output, and below --allow-write DIR",
                ));
            }
            return Err(Failure::script(format!("the script may not write {path}")).with_hint(
                "it writes into its run directory; --allow-write DIR lets it write into another folder too",
            ));
        };
        if let Some(file) = file_of_a_run(&real, run.as_deref()) {
            return Err(Failure::script(format!("the script may not write {path}: {file} is the run's own"))
                .with_hint("take another name"));
        }
        match std::fs::metadata(&real) {
            Ok(there) if !there.is_file() => Err(Failure::script(format!("cannot write {path}: it is not a file"))),
            _ => Ok(real),
        }
    }

    /// Counts `bytes` that are about to be written.
    ///
    /// # Errors
    /// Once they are more than [`MAX_WRITTEN`] in all.
    pub fn count_written(&self, bytes: usize) -> Result<(), Failure> {
        let all = self.written.get().saturating_add(bytes as u64);
        if all > MAX_WRITTEN {
            return Err(Failure::script(format!(
                "the script has written {} MiB, which is all it may",
                MAX_WRITTEN >> 20
            )));
        }
        self.written.set(all);
        Ok(())
    }
}

fn missing(path: &str, places: &[PathBuf]) -> Failure {
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let hint = format!("looked for {}; paths given by --set start from the current folder", looked.join(" and "));
    Failure::script(format!("no such file or folder: {path}")).with_hint(hint)
}

/// Writes a file at a real path as a whole: beside its place first, so that a reader finds the old one or the new one.
///
/// # Errors
/// The disk's; and a folder on the way that has become a link since the path was looked at.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |err: &dyn std::fmt::Display| Failure::machine(format!("cannot write {}: {err}", path.display()));
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Err(failed(&"it has no name")) };
    std::fs::create_dir_all(folder).map_err(|err| failed(&err))?;
    if !folder.canonicalize().is_ok_and(|real| real == folder) {
        return Err(failed(&"a folder on the way became a link"));
    }
    let aside = folder.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    // A new file: nothing that is there already, a link included, is written through.
    let written =
        OpenOptions::new().write(true).create_new(true).open(&aside).and_then(|mut file| file.write_all(bytes));
    let written = written.and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written.map_err(|err| failed(&err))
}

/// The same for a file that lies below the folder `root` by name, which is made where it is missing: it must do so in truth, too.
///
/// # Errors
/// As [`write_whole`]; and a link that leads out of `root`.
pub fn write_below(root: &Path, file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |err: std::io::Error| Failure::machine(format!("cannot write {}: {err}", file.display()));
    std::fs::create_dir_all(root).map_err(failed)?;
    let root = root.canonicalize().map_err(failed)?;
    let file = std::path::absolute(file).map_err(failed)?;
    match real_place(&file).filter(|real| real.starts_with(&root)) {
        Some(real) => write_whole(&real, bytes),
        None => Err(Failure::script(format!("{}: a link that leads elsewhere is not written through", file.display()))),
    }
}

/// The path that writing to `place` would reach: links in what exists of it are followed, and what does not exist is taken by
/// name. `None` for a link that leads nowhere, and for `..` in what does not exist.
fn real_place(place: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut at = place;
    loop {
        if let Ok(real) = at.canonicalize() {
            return Some(missing.into_iter().rev().fold(real, |path: PathBuf, name| path.join(name)));
        }
        if at.is_symlink() {
            return None;
        }
        missing.push(at.file_name()?);
        at = at.parent()?;
    }
}

/// The name of the run's own file or folder that `real` is or lies in, of this run or of any other.
fn file_of_a_run<'a>(real: &'a Path, run: Option<&Path>) -> Option<&'a str> {
    for folder in real.ancestors().skip(1) {
        let Some(Component::Normal(name)) = real.strip_prefix(folder).ok()?.components().next() else { continue };
        let name = name.to_str()?;
        let of_a_run = Some(folder) == run || folder.join("run.json").exists() || folder.join("index.json").exists();
        if RUN_FILES.contains(&name) && (of_a_run || ["run.json", "index.json"].contains(&name)) {
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folders {
        _root: tempfile::TempDir,
        script: PathBuf,
        elsewhere: PathBuf,
    }

    fn folders() -> Folders {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().canonicalize().unwrap();
        let (script, elsewhere) = (real.join("project"), real.join("elsewhere"));
        for folder in [script.join("datasets/photos"), elsewhere.join("photos")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(script.join("a.rhai"), "").unwrap();
        std::fs::write(elsewhere.join("secret"), "").unwrap();
        Folders { _root: root, script, elsewhere }
    }

    fn sandbox(folders: &Folders, set: Option<String>, allow_read: Vec<PathBuf>) -> Sandbox {
        let mut options = Options { allow_read, ..Options::new(folders.script.join("a.rhai")) };
        options.set.extend(set.map(|text| ("data".to_owned(), text)));
        let given = Given::new(&options.set, None).unwrap();
        Sandbox::new(&options, &SourceStore::disk(&options.script).unwrap(), &given).unwrap()
    }

    #[test]
    fn a_script_reads_its_own_folder_and_nothing_beside_it() {
        let folders = folders();
        let sandbox = sandbox(&folders, None, Vec::new());
        assert_eq!(sandbox.readable("datasets/photos", &[]).unwrap(), folders.script.join("datasets/photos"));
        assert_eq!(sandbox.readable("./a.rhai", &[]).unwrap(), folders.script.join("a.rhai"));
        let secret = folders.elsewhere.join("secret");
        for path in ["../elsewhere/secret", secret.to_str().unwrap(), "datasets/../../elsewhere/secret", "/etc/passwd"]
        {
            let err = sandbox.readable(path, &[]).unwrap_err();
            assert!(err.hint.unwrap().contains("--allow-read"), "{path}");
        }
        assert!(sandbox.readable("missing", &[]).unwrap_err().message.contains("no such file or folder"));
        assert!(sandbox.readable("", &[]).is_err());
    }

    #[test]
    fn the_command_line_allows_more() {
        let folders = folders();
        let photos = folders.elsewhere.join("photos");
        let by_flag = sandbox(&folders, None, vec![folders.elsewhere.clone()]);
        assert!(by_flag.readable("../elsewhere/secret", &[]).is_ok());
        let text = photos.to_str().unwrap();
        for set in [text.to_owned(), format!("[\"{text}\"]"), format!("{{\"images\": \"{text}\"}}")] {
            let by_set = sandbox(&folders, Some(set), Vec::new());
            assert_eq!(by_set.readable(text, &[]).unwrap(), photos);
            assert!(by_set.readable("../elsewhere/secret", &[]).is_err(), "beside what was named");
        }
        assert!(
            sandbox(&folders, Some(String::new()), Vec::new()).readable("../elsewhere/secret", &[]).is_err(),
            "empty text"
        );
    }

    #[test]
    fn braces_are_read_path_by_path() {
        let folders = folders();
        for name in ["secret", "photos/0.tar", "photos/1.tar"] {
            std::fs::write(folders.elsewhere.join(name), "").unwrap();
        }
        let pattern = format!("{}/photos/{{0..1}}.tar", folders.elsewhere.display());
        let closed = sandbox(&folders, None, Vec::new());
        assert!(closed.readable_all(&pattern, &[]).unwrap_err().message.contains("may not read"));
        let given = sandbox(&folders, Some(pattern.clone()), Vec::new());
        let expected = [0, 1].map(|i| folders.elsewhere.join(format!("photos/{i}.tar")));
        assert_eq!(given.readable_all(&pattern, &[]).unwrap(), expected);
        assert!(given.readable("../elsewhere/photos/0.tar", &[]).is_err(), "by another name");
        let more = sandbox(&folders, Some("x-{0..1}.tar".into()), Vec::new());
        assert!(
            more.readable_all("x-{0..1}.tar", &[]).unwrap_err().message.contains("no such file or folder: x-0.tar")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_counts_as_what_it_points_to() {
        let folders = folders();
        std::os::unix::fs::symlink(folders.elsewhere.join("secret"), folders.script.join("link")).unwrap();
        assert!(sandbox(&folders, None, Vec::new()).readable("link", &[]).is_err());
    }
}
