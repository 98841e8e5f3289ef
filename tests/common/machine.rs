//! A machine made of files: powercap counters, `/proc`, and a library that plays NVML (`tests/fake_nvml/nvml.c`). Its sensors
//! say what a test tells them to; all that reads them is the real thing.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(dead_code)] // Every test program compiles this file and uses its own part of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the file in one stroke, for whoever reads it at the same time.
fn write(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

/// A folder like `/sys/class/powercap`.
pub struct Powercap {
    folder: tempfile::TempDir,
}

/// A usual `max_energy_range_uj`.
pub const RANGE_UJ: u64 = 262_143_328_850;

impl Powercap {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the zone `folder` (`intel-rapl:0`, or below a control type), named `name`, with this counter.
    pub fn zone(&self, folder: &str, name: &str, count_uj: u64) -> &Self {
        let zone = self.path().join(folder);
        fs::create_dir_all(&zone).unwrap();
        fs::write(zone.join("name"), format!("{name}\n")).unwrap();
        fs::write(zone.join("max_energy_range_uj"), format!("{RANGE_UJ}\n")).unwrap();
        self.set(folder, count_uj);
        self
    }

    pub fn counter(&self, folder: &str) -> PathBuf {
        self.path().join(folder).join("energy_uj")
    }

    pub fn set(&self, folder: &str, count_uj: u64) {
        write(&self.counter(folder), &format!("{count_uj}\n"));
    }

    /// The zone vanishes, as when its driver is unloaded.
    pub fn remove(&self, folder: &str) {
        fs::remove_dir_all(self.path().join(folder)).unwrap();
    }
}

/// A folder like `/proc` of a machine with four threads on two sockets and 125 GiB.
pub struct Proc {
    folder: tempfile::TempDir,
}

impl Proc {
    pub fn new(model: &str) -> Self {
        let proc = Self { folder: tempfile::tempdir().unwrap() };
        let thread = |i: u32| format!("processor\t: {i}\nmodel name\t: {model}\nphysical id\t: {}\n\n", i / 2);
        fs::write(proc.path().join("cpuinfo"), (0..4).map(thread).collect::<String>()).unwrap();
        fs::write(proc.path().join("meminfo"), "MemTotal: 131072000 kB\nMemFree: 5 kB\nMemAvailable: 98304000 kB\n")
            .unwrap();
        proc.jiffies(0, 0);
        proc
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Jiffies of all processors since the start.
    pub fn jiffies(&self, busy: u64, idle: u64) {
        write(&self.path().join("stat"), &format!("cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n"));
    }
}

/// A machine with NVIDIA GPUs.
pub struct Nvml {
    folder: tempfile::TempDir,
    lines: BTreeMap<String, String>,
}

impl Nvml {
    /// One A100 whose counter and power answer.
    pub fn new() -> Self {
        Self::compiled(&[])
    }

    pub fn compiled(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml/nvml.c");
        let mut cc = Command::new("cc"); // What Rust itself links with.
        cc.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("nvml.so")).args(flags).arg(source).arg("-ldl");
        let output = cc.output().expect("cc starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut fake = Self { folder, lines: BTreeMap::new() };
        fake.set("driver", "550.54.15");
        fake.gpu(0, "NVIDIA A100-SXM4-40GB", "GPU-8a6e1f00-1111", "00000000:65:00.0");
        fake
    }

    pub fn gpu(&mut self, index: u32, name: &str, uuid: &str, bus: &str) {
        self.set("gpus", index + 1);
        let parts = [("name", name), ("uuid", uuid), ("bus", bus), ("energy_mj", "5000000"), ("power_mw", "60000")];
        for (key, value) in parts {
            self.set(&format!("{index}.{key}"), value);
        }
    }

    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.lines.insert(key.to_owned(), value.to_string());
        let lines: String = self.lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect();
        write(&self.folder.path().join("nvml.txt"), &lines);
    }

    pub fn library(&self) -> PathBuf {
        self.folder.path().join("nvml.so")
    }
}
