//! Which archives a path names, and reading from them: handles that all workers share, without a common position.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::data::error::DataError;
use crate::data::folder::{ends_in, files_of};

/// So many archives are held open at once; systems allow a process 1024 files and more.
const OPEN: usize = 256;

/// The part of a dataset that an archive is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Train,
    Val,
    Whole,
}

/// The archives that a path names: itself, or those in it at any depth, in bytewise order; none if there is no such thing.
///
/// Errors: archives that are compressed; a folder that cannot be read.
pub fn find(path: &Path) -> Result<Vec<(PathBuf, Part)>, DataError> {
    if path.is_file() {
        refuse_compressed(path)?;
        // The folder that it lies in may say the part: train/000.tar.
        let parent = path.parent().and_then(Path::file_name).map(PathBuf::from).unwrap_or_default();
        let part = part(&parent.join(path.file_name().unwrap_or_default()));
        return Ok(if ends_in(path, "tar") { vec![(path.into(), part)] } else { Vec::new() });
    }
    if !path.is_dir() {
        return Ok(Vec::new());
    }
    let found = files_of(path, &["tar", "gz", "tgz", "zst", "bz2", "xz"])?;
    let (archives, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|file| ends_in(file, "tar"));
    if archives.is_empty() {
        others.iter().try_for_each(|file| refuse_compressed(&path.join(file)))?;
    }
    Ok(archives.into_iter().map(|file| (path.join(&file), part(&file))).collect())
}

/// By a folder's name, or by a word of the file's: `train/000.tar`, `imagenet-train-000.tar`.
fn part(file: &Path) -> Part {
    let stem = file.with_extension("");
    let words = stem.components().flat_map(|name| {
        let name = name.as_os_str().to_string_lossy().into_owned();
        name.split(|c: char| !c.is_alphanumeric()).map(str::to_ascii_lowercase).collect::<Vec<_>>()
    });
    for word in words {
        match word.as_str() {
            "train" | "training" => return Part::Train,
            "val" | "validation" => return Part::Val,
            _ => {}
        }
    }
    Part::Whole
}

/// What undoes the compression that a file's name tells of.
fn compression(file: &Path) -> Option<&'static str> {
    let name = file.file_name()?.to_str()?.to_ascii_lowercase();
    let tools =
        [("tar.gz", "gunzip"), ("tgz", "gunzip"), ("tar.zst", "unzstd"), ("tar.bz2", "bunzip2"), ("tar.xz", "unxz")];
    tools
        .iter()
        .find(|(ending, _)| name.strip_suffix(ending).is_some_and(|rest| rest.ends_with('.')))
        .map(|(_, tool)| *tool)
}

fn refuse_compressed(file: &Path) -> Result<(), DataError> {
    match compression(file) {
        None => Ok(()),
        Some(tool) => Err(DataError::Compressed { path: file.into(), tool }),
    }
}

/// What a file's first bytes say of compression, whatever its name is.
pub fn compressed_by(first: &[u8]) -> Option<&'static str> {
    match first {
        [0x1f, 0x8b, ..] => Some("gunzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("unzstd"),
        [b'B', b'Z', b'h', ..] => Some("bunzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("unxz"),
        _ => None,
    }
}

/// An archive as it was when its files were listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    pub path: PathBuf,
    pub length: u64,
    modified: Option<SystemTime>,
}

impl Archive {
    /// Opens it for the first time.
    pub fn open(path: &Path) -> io::Result<(Self, File)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok((Self { path: path.into(), length: metadata.len(), modified: metadata.modified().ok() }, file))
    }
}

/// Archives that are read from anywhere at once. At most [`OPEN`] are held open: two that share a slot take turns.
#[derive(Debug)]
pub struct Handles {
    archives: Vec<Archive>,
    /// Archive `i` is held in slot `i % OPEN`.
    slots: Vec<Mutex<Option<Open>>>,
}

#[derive(Debug)]
struct Open {
    index: usize,
    file: Arc<File>,
}

impl Handles {
    pub fn new(archives: Vec<Archive>) -> Self {
        let slots = (0..archives.len().min(OPEN)).map(|_| Mutex::new(None)).collect();
        Self { archives, slots }
    }

    pub fn archives(&self) -> &[Archive] {
        &self.archives
    }

    /// Reads `size` bytes of an archive; the error is the reason for `skipped.csv`.
    pub fn read(&self, archive: usize, offset: u64, size: u64) -> Result<Vec<u8>, String> {
        let file = self.handle(archive)?;
        let size = usize::try_from(size).map_err(|_| format!("{size} bytes do not fit into memory"))?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| format!("{size} bytes do not fit into memory"))?;
        bytes.resize(size, 0);
        file.read_exact_at(&mut bytes, offset).map_err(cannot_read)?;
        Ok(bytes)
    }

    /// The lock is held while a handle is looked up or opened, not while it is read from.
    fn handle(&self, index: usize) -> Result<Arc<File>, String> {
        let mut slot = self.slots[index % OPEN].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = slot.as_ref().filter(|open| open.index == index) {
            return Ok(Arc::clone(&open.file));
        }
        let known = &self.archives[index];
        let (archive, file) = Archive::open(&known.path).map_err(cannot_read)?;
        // Its files would lie elsewhere.
        if archive != *known {
            return Err("the archive has changed since it was opened".into());
        }
        let file = Arc::new(file);
        *slot = Some(Open { index, file: Arc::clone(&file) });
        Ok(file)
    }
}

fn cannot_read(error: io::Error) -> String {
    format!("cannot read: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_words_of_names() {
        for (name, expected) in [
            ("train/000.tar", Part::Train),
            ("imagenet1k-validation-07.tar", Part::Val),
            ("Train_3.tar", Part::Train),
            ("constrained.tar", Part::Whole),
            ("test/000.tar", Part::Whole),
        ] {
            assert_eq!(part(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn more_archives_than_handles_are_read_in_turn() {
        let dir = tempfile::tempdir().unwrap();
        let open = |i: usize| {
            let path = dir.path().join(format!("{i}.tar"));
            std::fs::write(&path, format!("{i:04}")).unwrap();
            Archive::open(&path).unwrap().0
        };
        let handles = Handles::new((0..OPEN + 3).map(open).collect());
        for i in [0, OPEN, 0, OPEN + 2, 2, 2] {
            assert_eq!(handles.read(i, 1, 3).unwrap(), format!("{i:04}").as_bytes()[1..]);
        }
        assert!(handles.read(0, 2, 3).unwrap_err().starts_with("cannot read"));
        std::fs::write(dir.path().join("1.tar"), "longer").unwrap();
        assert_eq!(handles.read(1, 0, 1).unwrap_err(), "the archive has changed since it was opened");
    }
}
