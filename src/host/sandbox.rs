//! Which files a script may read: its own folder, `datasets/`, what `--set` names, and `--allow-read`.
//!
//! A path that came in through `--set` is relative to the current folder, as anything on a command line; a path written in
//! a script is relative to the script's folder, and `datasets/…` is also looked for in the current folder. Links are
//! followed first, and the real path decides. Writing goes through the run directory alone and needs no list.

use std::path::{Path, PathBuf};

use super::args::Given;
use super::errors::Failure;
use super::resolver::SourceStore;
use super::session::Options;

const DATASETS: &str = "datasets";

pub struct Sandbox {
    current: PathBuf,
    script_folder: PathBuf,
    /// Real paths below which everything may be read.
    roots: Vec<PathBuf>,
    /// Texts of `--set`, as given.
    given: Vec<String>,
}

impl Sandbox {
    /// # Errors
    /// If a folder of `--allow-read` does not exist.
    pub fn new(options: &Options, store: &SourceStore, given: &Given) -> Result<Self, Failure> {
        let current = std::env::current_dir()
            .and_then(|folder| folder.canonicalize())
            .map_err(|err| Failure::machine(format!("cannot tell the current folder: {err}")))?;
        let script_folder = store.folder().to_owned();
        let mut roots = vec![script_folder.clone()];
        for folder in &options.allow_read {
            let real = current.join(folder).canonicalize();
            roots.push(real.map_err(|err| Failure::usage(format!("--allow-read {}: {err}", folder.display())))?);
        }
        let given: Vec<String> = given.texts().into_iter().filter(|text| !text.is_empty()).collect();
        let named = given.iter().map(|text| current.join(text));
        let datasets = [current.join(DATASETS), script_folder.join(DATASETS)];
        roots.extend(named.chain(datasets).filter_map(|path| path.canonicalize().ok()));
        Ok(Self { current, script_folder, roots, given })
    }

    pub fn script_folder(&self) -> &Path {
        &self.script_folder
    }

    /// The real path behind `path`, if the script may read it.
    pub fn readable(&self, path: &str) -> Result<PathBuf, Failure> {
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
        let Some(real) = places.iter().find_map(|place| place.canonicalize().ok()) else {
            let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            let hint =
                format!("looked for {}; paths given by --set start from the current folder", looked.join(" and "));
            return Err(Failure::script(format!("no such file or folder: {path}")).with_hint(hint));
        };
        if self.roots.iter().any(|root| real.starts_with(root)) {
            return Ok(real);
        }
        let folder = if real.is_dir() { &real } else { real.parent().unwrap_or(&real) };
        Err(Failure::script(format!("the script may not read {}", real.display())).with_hint(format!(
            "allow it with --allow-read {}, or hand the path over as a parameter with --set",
            folder.display()
        )))
    }
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
        assert_eq!(sandbox.readable("datasets/photos").unwrap(), folders.script.join("datasets/photos"));
        assert_eq!(sandbox.readable("./a.rhai").unwrap(), folders.script.join("a.rhai"));
        let secret = folders.elsewhere.join("secret");
        for path in ["../elsewhere/secret", secret.to_str().unwrap(), "datasets/../../elsewhere/secret", "/etc/passwd"]
        {
            let err = sandbox.readable(path).unwrap_err();
            assert!(err.hint.unwrap().contains("--allow-read"), "{path}");
        }
        assert!(sandbox.readable("missing").unwrap_err().message.contains("no such file or folder"));
        assert!(sandbox.readable("").is_err());
    }

    #[test]
    fn the_command_line_allows_more() {
        let folders = folders();
        let photos = folders.elsewhere.join("photos");
        let by_flag = sandbox(&folders, None, vec![folders.elsewhere.clone()]);
        assert!(by_flag.readable("../elsewhere/secret").is_ok());
        let text = photos.to_str().unwrap();
        for set in [text.to_owned(), format!("[\"{text}\"]"), format!("{{\"images\": \"{text}\"}}")] {
            let by_set = sandbox(&folders, Some(set), Vec::new());
            assert_eq!(by_set.readable(text).unwrap(), photos);
            assert!(by_set.readable("../elsewhere/secret").is_err(), "beside what was named");
        }
        assert!(
            sandbox(&folders, Some(String::new()), Vec::new()).readable("../elsewhere/secret").is_err(),
            "empty text"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_counts_as_what_it_points_to() {
        let folders = folders();
        std::os::unix::fs::symlink(folders.elsewhere.join("secret"), folders.script.join("link")).unwrap();
        assert!(sandbox(&folders, None, Vec::new()).readable("link").is_err());
    }
}
