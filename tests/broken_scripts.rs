//! Broken scripts and all that the program says of them: `tests/scripts/errors/NAME.rhai` with `NAME.txt` beside it, which is
//! stderr and the exit code. `UPDATE_EXPECT=1` writes the texts anew; read them as the person who made the slip would.
//!
//! A script whose first line is `// flags: …` gets these on the command line. It runs in a folder with `lib/`, an `empty/`
//! folder, a text as `notes.txt` and as `broken.safetensors`, and `lib/link.rhai`, which leads outside.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dbp_host::host::check::{self, Severity};
use tempfile::TempDir;

mod common;
use common::{Ended, copy_folder};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/errors")
}

/// The names of the scripts, in order.
fn names() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let scripts = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rhai"));
    let mut names: Vec<String> = scripts.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn script(name: &str) -> String {
    fs::read_to_string(folder().join(format!("{name}.rhai"))).unwrap()
}

/// A folder of its own for a script, with what scripts stumble over.
fn workplace(name: &str) -> TempDir {
    let outer = tempfile::tempdir().unwrap();
    let place = outer.path().join("project");
    fs::create_dir_all(place.join("empty")).unwrap();
    copy_folder(&folder().join("lib"), &place.join("lib"));
    fs::write(outer.path().join("secret.rhai"), "fn key() { 1 }").unwrap();
    fs::write(place.join("notes.txt"), "Not weights.\n").unwrap();
    fs::write(place.join("broken.safetensors"), "Not weights either.\n").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("../../secret.rhai", place.join("lib/link.rhai")).unwrap();
    fs::write(place.join(format!("{name}.rhai")), script(name)).unwrap();
    outer
}

/// What is said, and the exit code; the folder is `.`.
fn said(name: &str) -> String {
    let outer = workplace(name);
    let place = outer.path().join("project");
    let text = script(name);
    let flags = text.lines().next().and_then(|line| line.strip_prefix("// flags: ")).unwrap_or_default();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(&place).arg(format!("{name}.rhai")).args(["--threads", "1"]).args(flags.split_whitespace());
    if !flags.contains("--device") {
        command.args(["--device", "cpu"]);
    }
    let ended = Ended::of(command.output().unwrap());
    let mut stderr = ended.stderr;
    for (folder, shown) in [(place.as_path(), "."), (outer.path(), "..")] {
        let real = folder.canonicalize().unwrap();
        stderr = stderr.replace(&real.display().to_string(), shown).replace(&folder.display().to_string(), shown);
    }
    // Before it stands what a run says of itself: the time, the machine.
    let lines = stderr.lines().skip_while(|line| !line.starts_with("error: "));
    let stderr: String = lines.map(|line| format!("{line}\n")).collect();
    format!("{stderr}exit code {}\n", ended.code.expect("it ended by itself"))
}

#[test]
fn every_slip_is_explained() {
    let names = names();
    assert!(names.len() >= 70, "{} scripts", names.len());
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (got, path) = (said(name), folder().join(format!("{name}.txt")));
            if update {
                fs::write(path, got).unwrap();
                continue;
            }
            let want = fs::read_to_string(&path).unwrap_or_default();
            if got != want {
                wrong.lock().unwrap().push(format!("{name}: expected\n{want}\ngot\n{got}"));
            }
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), names.len(), wrong.join("\n"));
}

/// What `check` calls an error is what the run would end with, in the same words.
#[test]
fn check_speaks_as_a_run_does() {
    let mut found = 0;
    let mut wrong = Vec::new();
    for name in names() {
        let Ok(text) = fs::read_to_string(folder().join(format!("{name}.txt"))) else { continue };
        let outer = workplace(&name);
        let report = check::report(&outer.path().join(format!("project/{name}.rhai"))).unwrap();
        let errors: Vec<String> = report
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.diagnosis.message.clone())
            .collect();
        if errors.is_empty() {
            continue;
        }
        found += 1;
        let first = text.lines().next().unwrap_or_default();
        let real = outer.path().join("project").canonicalize().unwrap().display().to_string();
        let shown = outer.path().join("project").display().to_string();
        let plain = |message: &String| message.replace(&real, ".").replace(&shown, ".").replace("./", "");
        let same = errors.iter().any(|message| first.replace("./", "") == format!("error: {}", plain(message)));
        if !same {
            wrong.push(format!("{name}: a run says\n    {first}\ncheck says\n    {}", errors.join("\n    ")));
        }
    }
    assert!(found >= 50, "check found something in {found} scripts");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
