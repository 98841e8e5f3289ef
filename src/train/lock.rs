//! One process at a time in a run's directory: a lock on its file `.lock`, which the system lets go of when the process ends,
//! however it does.
//!
//! The same lock tells a run that is going on from one that was killed: both say `running` in `run.json`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

/// Name of the file; it stays when the run has ended.
pub const FILE: &str = ".lock";

/// Whoever looks at a lock holds it for a moment: so often is it tried, and so long apart.
const TRIES: u32 = 5;
const APART: Duration = Duration::from_millis(20);

/// A directory that is this process's for as long as this lives.
#[derive(Debug)]
pub struct RunLock {
    /// `None` where the file system has no locks.
    _held: Option<Flock<File>>,
}

/// What became of asking for a directory.
#[derive(Debug)]
pub enum Taken {
    Held(RunLock),
    /// Another process has it, by this number where that is known.
    Busy(Option<u32>),
}

impl RunLock {
    /// Takes the directory `run`, which exists.
    ///
    /// Errors: the disk's; and a lock that is a link, which would have a file elsewhere written. A file system without locks is
    /// none: then nothing keeps two processes apart.
    pub fn take(run: &Path) -> std::io::Result<Taken> {
        let mut how = OpenOptions::new();
        let mut file = open(how.read(true).write(true).create(true).truncate(false), run)?;
        for _ in 0..TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut held) => {
                    // For people and messages only: what counts is the lock.
                    let _ = held.set_len(0).and_then(|()| write!(held, "{}", std::process::id()));
                    return Ok(Taken::Held(Self { _held: Some(held) }));
                }
                Err((back, Errno::EWOULDBLOCK)) => {
                    file = back;
                    std::thread::sleep(APART);
                }
                Err(_) => return Ok(Taken::Held(Self { _held: None })),
            }
        }
        let mut text = String::new();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        Ok(Taken::Busy(text.trim().parse().ok()))
    }
}

/// Opens the lock itself, and nothing that it leads to.
fn open(how: &mut OpenOptions, run: &Path) -> std::io::Result<File> {
    let opened = how.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(run.join(FILE));
    opened.map_err(|err| match err.raw_os_error() {
        Some(code) if code == Errno::ELOOP as i32 => {
            std::io::Error::other(format!("its {FILE} is a link, which no run makes"))
        }
        _ => err,
    })
}

/// Whether a process holds the directory `run`. `None` where that cannot be told, as on a file system without locks.
pub fn is_held(run: &Path) -> Option<bool> {
    let file = match open(OpenOptions::new().read(true), run) {
        Ok(file) => file,
        // A run of a version without locks, or a copy.
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Some(false),
        Err((_, Errno::EWOULDBLOCK)) => Some(true),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_holders_until_it_lets_go() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(is_held(run.path()), Some(false), "nobody asked yet");
        let Taken::Held(held) = RunLock::take(run.path()).unwrap() else { panic!("it was free") };
        assert_eq!(is_held(run.path()), Some(true));
        let Taken::Busy(who) = RunLock::take(run.path()).unwrap() else { panic!("it was taken twice") };
        assert_eq!(who, Some(std::process::id()));
        drop(held);
        assert_eq!(is_held(run.path()), Some(false));
        assert!(matches!(RunLock::take(run.path()).unwrap(), Taken::Held(_)));
    }

    #[test]
    fn a_link_is_no_lock() {
        let place = tempfile::tempdir().unwrap();
        let (run, precious) = (place.path().join("run"), place.path().join("precious.txt"));
        std::fs::create_dir(&run).unwrap();
        std::fs::write(&precious, "keep").unwrap();
        for target in [&precious, &place.path().join("new.txt")] {
            std::os::unix::fs::symlink(target, run.join(FILE)).unwrap();
            assert!(RunLock::take(&run).unwrap_err().to_string().contains("is a link"));
            assert_eq!(is_held(&run), None);
            std::fs::remove_file(run.join(FILE)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "keep");
        assert!(!place.path().join("new.txt").exists());
    }
}
