//! Where source texts come from: the script's folder, the binary (`std/…`), a saved run, or a prompt.
//!
//! Every text has a key: its path from the script's folder, or `std/NAME.rhai`. Imports are relative to the importing file
//! and stay inside the folder: `..`, absolute paths, backslashes, colons and symbolic links are refused.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::errors::Failure;
use super::stdlib;

/// Extension of scripts and modules; imports leave it out.
const EXTENSION: &str = "rhai";

/// A script or module of more is a mistake: parsing takes some thousand times its bytes.
const MAX_SOURCE_BYTES: u64 = 4 << 20;

/// Where the script and the modules beside it are read from.
#[derive(Clone, Debug)]
pub enum SourceStore {
    /// A script and its folder; `shown` is the folder as the command line named it.
    Disk { folder: PathBuf, shown: PathBuf, script: String },
    /// A run directory with `script.rhai` and `modules/<key>`; `folder` is where the script lay when the run began.
    Saved { run: PathBuf, folder: PathBuf },
    /// What is typed at a prompt in `folder`, as one text; parts of it came out of files.
    Prompt { folder: PathBuf, loaded: RefCell<Vec<Loaded>> },
}

/// Lines of a prompt's text that stand in a file too.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub lines: Range<usize>,
    /// The file as it was named.
    pub file: String,
}

/// Key of what is typed at a prompt.
const PROMPT: &str = "repl";

impl SourceStore {
    /// # Errors
    /// If there is no such script.
    pub fn disk(script: &Path) -> Result<Self, Failure> {
        let refuse = |why: String| Failure::usage(format!("cannot read the script {}: {why}", script.display()));
        if !script.metadata().map_err(|err| refuse(describe_io(&err)))?.is_file() {
            return Err(refuse("not a file".into()));
        }
        let name =
            script.file_name().and_then(|name| name.to_str()).ok_or_else(|| refuse("its name is not text".into()))?;
        let shown = script.parent().unwrap_or(Path::new("")).to_owned();
        let folder = or_current(&shown).canonicalize().map_err(|err| refuse(describe_io(&err)))?;
        Ok(Self::Disk { folder, shown, script: name.to_owned() })
    }

    /// # Errors
    /// If `run` is not a run directory.
    pub fn saved(run: &Path) -> Result<Self, Failure> {
        let refuse = |why: &str| Failure::usage(format!("cannot resume {}: {why}", run.display()));
        let real = run.canonicalize().map_err(|err| refuse(&describe_io(&err)))?;
        if !real.join("script.rhai").is_file() {
            return Err(
                refuse("it holds no script.rhai").with_hint("name a folder that an earlier run made, like runs/2026-…")
            );
        }
        let origin = super::args::read_run_json(&real)?;
        if origin.is_empty() {
            return Err(refuse("it holds no run.json, so its arguments are not known")
                .with_hint("it was stopped before its first step: start it anew"));
        }
        let script = origin.get("script").and_then(|script| script.as_str()).map(Path::new);
        let folder = script.and_then(Path::parent).and_then(|folder| or_current(folder).canonicalize().ok());
        Ok(Self::Saved { folder: folder.unwrap_or_else(|| real.clone()), run: real })
    }

    /// A prompt in the current folder.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn prompt() -> Result<Self, Failure> {
        let refuse = |err: std::io::Error| Failure::machine(format!("cannot tell the current folder: {err}"));
        let folder = Path::new(".").canonicalize().map_err(refuse)?;
        Ok(Self::Prompt { folder, loaded: RefCell::default() })
    }

    /// Where the script lay when its first run began, if this is a saved one; else `script`.
    pub fn origin(&self, script: &Path) -> PathBuf {
        match self {
            Self::Disk { .. } | Self::Prompt { .. } => {
                std::path::absolute(script).unwrap_or_else(|_| script.to_owned())
            }
            Self::Saved { run, .. } => {
                let saved = super::args::read_run_json(run).ok();
                let origin = saved.and_then(|json| json.get("script")?.as_str().map(PathBuf::from));
                origin.unwrap_or_else(|| script.to_owned())
            }
        }
    }

    /// The key of the script itself.
    pub fn script_key(&self) -> &str {
        match self {
            Self::Disk { script, .. } => script,
            Self::Saved { .. } => "script.rhai",
            Self::Prompt { .. } => PROMPT,
        }
    }

    /// The folder of the script; of a saved one, where it lay when its run began.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Disk { folder, .. } | Self::Saved { folder, .. } | Self::Prompt { folder, .. } => folder,
        }
    }

    /// The file of a source; `None` for those in the binary.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        match self {
            Self::Disk { .. } | Self::Prompt { .. } if is_std(key) => None,
            Self::Disk { folder, .. } | Self::Prompt { folder, .. } => Some(folder.join(key)),
            Self::Saved { run, .. } if key == self.script_key() => Some(run.join(key)),
            Self::Saved { run, .. } => Some(run.join("modules").join(key)),
        }
    }

    /// How messages name a source.
    pub fn shown(&self, key: &str) -> String {
        if let Self::Prompt { .. } = self {
            return key.to_owned();
        }
        // A patched version is `script.rhai@2`.
        let script = key.strip_prefix(self.script_key()).is_some_and(|rest| rest.starts_with('@'));
        let key = if script { self.script_key() } else { key };
        match self {
            _ if is_std(key) => key.to_owned(),
            Self::Disk { shown, .. } => shown.join(key).display().to_string(),
            Self::Saved { run, .. } if key == self.script_key() => run.join(key).display().to_string(),
            Self::Saved { run, .. } => run.join("modules").join(key).display().to_string(),
            Self::Prompt { .. } => key.to_owned(),
        }
    }

    /// How messages name a line of a source: its file, and the line there.
    pub fn shown_line(&self, key: &str, line: usize) -> (String, usize) {
        match self.loaded(key, line) {
            Some(Loaded { lines, file }) => (file, line + 1 - lines.start),
            None => (self.shown(key), line),
        }
    }

    /// What a line was loaded from, if it stands at a prompt and was.
    fn loaded(&self, key: &str, line: usize) -> Option<Loaded> {
        let Self::Prompt { loaded, .. } = self else { return None };
        loaded.borrow().iter().find(|part| key == PROMPT && part.lines.contains(&line)).cloned()
    }

    /// `None` if there is no such source.
    pub(super) fn read(&self, key: &str) -> Result<Option<String>, Failure> {
        let (folder, key) = match self {
            Self::Saved { run, .. } if key == self.script_key() => (run.clone(), key),
            Self::Saved { run, .. } => (run.join("modules"), key),
            Self::Disk { folder, .. } | Self::Prompt { folder, .. } => (folder.clone(), key),
        };
        if let (true, Self::Disk { .. } | Self::Prompt { .. }) = (is_std(key), self) {
            return Ok(stdlib::text(module_name(key)).map(str::to_owned));
        }
        let mut path = folder;
        for part in key.split('/') {
            path.push(part);
            // The script itself may be a link: it was named on the command line.
            if key != self.script_key() && path.is_symlink() {
                return Err(Failure::script(format!("imports do not follow symbolic links: {}", path.display())));
            }
        }
        // A pipe may never end.
        if path.metadata().is_ok_and(|found| !found.is_file() || found.len() > MAX_SOURCE_BYTES) {
            let most = format!("a script is a file of at most {} MiB", MAX_SOURCE_BYTES >> 20);
            return Err(Failure::script(format!("cannot read {}: {most}", path.display())));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(err) => Err(Failure::script(format!("cannot read {}: {}", path.display(), describe_io(&err)))),
        }
    }

    /// Names that an import from the folder of `key` could have meant.
    pub(super) fn siblings(&self, key: &str) -> Vec<String> {
        if is_std(key) {
            return stdlib::MODULES.iter().map(|(name, _)| format!("std/{name}")).collect();
        }
        let (Self::Disk { folder, .. } | Self::Prompt { folder, .. }) = self else { return Vec::new() };
        let (folder, prefix) = match key.rsplit_once('/') {
            Some((parent, _)) => (folder.join(parent), format!("{parent}/")),
            None => (folder.clone(), String::new()),
        };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rhai")?.to_owned()))
            .map(|name| format!("{prefix}{name}"))
            .collect()
    }
}

fn or_current(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

/// Whether a source comes with the program.
pub fn is_std(key: &str) -> bool {
    key.starts_with("std/")
}

fn module_name(key: &str) -> &str {
    key.trim_start_matches("std/").trim_end_matches(".rhai")
}

fn describe_io(err: &std::io::Error) -> String {
    match err.kind() {
        ErrorKind::NotFound => "no such file or folder".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        ErrorKind::InvalidData => "not UTF-8 text".into(),
        _ => err.to_string(),
    }
}

/// The key that `import "path"` means in the source `importer`.
///
/// # Errors
/// If the path could lead out of the script's folder.
pub fn key_of_import(path: &str, importer: &str) -> Result<String, Failure> {
    let refuse = |why: &str| {
        Err(Failure::script(format!("import \"{path}\": {why}"))
            .with_hint("an import names a file below the script's folder, like \"lib/augment\", or \"std/…\""))
    };
    let mut parts: Vec<&str> = Vec::new();
    if path.starts_with('/') {
        return refuse("absolute paths are not allowed");
    }
    if path.contains(['\\', ':', '\0']) {
        return refuse("backslashes and colons are not allowed");
    }
    for part in path.split('/') {
        match part {
            ".." => return refuse("`..` is not allowed"),
            "" => return refuse("an empty name is not allowed"),
            "." => {}
            part => parts.push(part),
        }
    }
    let Some(last) = parts.last_mut() else { return refuse("it names no file") };
    *last = last.strip_suffix(".rhai").unwrap_or(last);
    let path = parts.join("/");
    let folder = importer.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(match folder {
        "" => format!("{path}.{EXTENSION}"),
        _ if is_std(&path) => format!("{path}.{EXTENSION}"),
        _ => format!("{folder}/{path}.{EXTENSION}"),
    })
}

#[cfg(test)]
mod tests {
    use super::key_of_import;

    #[test]
    fn imports_are_relative_and_stay_inside() {
        assert_eq!(key_of_import("lib/a", "main.rhai").unwrap(), "lib/a.rhai");
        assert_eq!(key_of_import("./b.rhai", "lib/a.rhai").unwrap(), "lib/b.rhai");
        assert_eq!(key_of_import("std/mae", "lib/a.rhai").unwrap(), "std/mae.rhai");
        assert_eq!(key_of_import("dbp", "std/mae.rhai").unwrap(), "std/dbp.rhai");
        for refused in ["../a", "a/../b", "/etc/passwd", "a\\b", "C:a", "", "a//b", "."] {
            assert!(key_of_import(refused, "main.rhai").is_err(), "{refused}");
        }
    }
}
