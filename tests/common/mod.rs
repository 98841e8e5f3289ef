//! What tests of the whole program share: starting it, folders of pictures, reading what a run left.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(dead_code)] // Every test program compiles this file and uses its own part of it.

use std::collections::HashMap;
use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dbp_host::train::checkpoint::read_tensors;
use serde_json::Value;
use tch::Tensor;

/// The program, working in `folder`, on one processor thread: sums are then added in one order.
pub fn dbp_host(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
    command.current_dir(folder).args(["--device", "cpu", "--threads", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The script that comes with the program.
pub fn pretrain() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/pretrain.rhai")
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Whatever happened, nobody is shown the inside of the program.
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let ended = Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        for inside in ["panicked", "backtrace", "internal error", "C++ CapturedTraceback", "terminate called"] {
            assert!(!ended.stderr.contains(inside) && !ended.stdout.contains(inside), "{inside}: {ended:#?}");
        }
        ended
    }

    /// Panics unless it ended with `code`.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

pub fn end(mut command: Command) -> Ended {
    Ended::of(command.output().unwrap())
}

/// A process that does not outlive its test, however that ends.
pub struct Guarded(Option<Child>);

impl Guarded {
    pub fn new(command: &mut Command) -> Self {
        Self(Some(command.spawn().unwrap()))
    }

    /// Waits until it ends by itself.
    pub fn output(mut self) -> Output {
        self.0.take().expect("it is there until here").wait_with_output().unwrap()
    }
}

impl Deref for Guarded {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().expect("only `output` takes it")
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().expect("only `output` takes it")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `--set` for every pair.
pub fn set<'a>(command: &'a mut Command, pairs: &[(&str, &str)]) -> &'a mut Command {
    for (name, value) in pairs {
        command.arg("--set").arg(format!("{name}={value}"));
    }
    command
}

/// A PNG of 40×36 pixels; each number gives another picture.
pub fn png(number: u32) -> Vec<u8> {
    encoded(number, image::ImageFormat::Png)
}

/// The same as JPEG.
pub fn jpeg(number: u32) -> Vec<u8> {
    encoded(number, image::ImageFormat::Jpeg)
}

fn encoded(number: u32, format: image::ImageFormat) -> Vec<u8> {
    let wave = |x: u32, period: u32| (255 * (x % period) / period) as u8;
    let picture = image::RgbImage::from_fn(40, 36, |x, y| {
        image::Rgb([
            wave(x + number, 7 + number % 19),
            wave(y * 2 + number, 11 + number % 23),
            (number * 37 % 251) as u8,
        ])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Fills `folder` with `good` pictures and `bad` files that only look like some: cut short, or a web page.
pub fn fill_with_pictures(folder: &Path, good: u32, bad: u32) {
    fs::create_dir_all(folder.join("deeper")).unwrap();
    for number in 0..good {
        let place = if number % 3 == 0 { folder.join("deeper") } else { folder.to_owned() };
        fs::write(place.join(format!("{number:03}.png")), png(number)).unwrap();
    }
    for number in 0..bad {
        let (name, bytes) = match number % 2 {
            0 => (format!("cut-{number:03}.png"), png(number)[..200].to_vec()),
            _ => (format!("page-{number:03}.jpg"), b"<html>not found</html>".to_vec()),
        };
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The only run in a folder of runs.
pub fn only_run(runs: &Path) -> PathBuf {
    let mut all: Vec<PathBuf> = fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))).unwrap()
}

/// The lines of a file of JSON lines.
pub fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The validation losses of a run, in order.
pub fn val_losses(run: &Path) -> Vec<f64> {
    json_lines(&run.join("metrics.jsonl")).iter().filter_map(|line| line["val_loss"].as_f64()).collect()
}

/// Copies a folder and everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file below `folder` by its relative path, in order, with its bytes.
pub fn files_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    fn visit(folder: &Path, relative: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let (path, relative) = (entry.path(), relative.join(entry.file_name()));
            if path.is_dir() { visit(&path, &relative, files) } else { files.push((relative, fs::read(path).unwrap())) }
        }
    }
    let mut files = Vec::new();
    visit(folder, Path::new(""), &mut files);
    files.sort();
    files
}

/// A file of `tests/reference/`: its configuration, and its tensors by name.
pub fn reference(name: &str) -> (Value, HashMap<String, Tensor>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/reference/{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let config = &metadata.metadata().as_ref().unwrap()["config"];
    (serde_json::from_str(config).unwrap(), read_tensors(&path).unwrap().into_iter().collect())
}
