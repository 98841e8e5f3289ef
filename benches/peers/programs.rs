//! Whole programs, from exec to exit: some epochs on a folder of real images, by the host (`epoch.rhai`) and by PyTorch
//! (`epoch.py`), with the peak of their memory and the time to their first step.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::child::FOLDER;
use crate::pairs::Pairs;
use crate::{Result, Setting};

/// What the host may take of the peer's wall time, and of the peak of its memory.
const EPOCH_BOUND: f64 = 0.85;
const MEMORY_BOUND: f64 = 0.8;

const PAIRS: usize = 3;
/// How often a process is asked for the peak of its memory: the system keeps the peak itself, only the last rise can be missed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const MIB: f64 = (1 << 20) as f64;

pub struct Program {
    /// The folder below `--data`.
    data: &'static str,
    size: &'static str,
    decorrelate: bool,
    image_size: u32,
    patch_size: u32,
    batch: u32,
    epochs: u32,
    /// How many of the folder's; 0 is all.
    images: u32,
}

/// Where photographs are small the step takes the time; where they are large, decoding.
pub fn claims() -> Vec<Program> {
    let tiny = |decorrelate| Program {
        data: "tiny_imagenet",
        size: "nano",
        decorrelate,
        image_size: 64,
        patch_size: 8,
        batch: 256,
        epochs: 1,
        images: 0,
    };
    let sample =
        Program { data: "imagenet_sample", image_size: 224, patch_size: 16, batch: 64, epochs: 3, ..tiny(false) };
    vec![tiny(false), tiny(true), sample]
}

/// What one run of a program came to.
struct Ran {
    secs: f64,
    first_step_secs: f64,
    peak_mib: f64,
    steps: u64,
}

impl Program {
    fn name(&self) -> String {
        format!("{}/{}/{}", self.data, self.size, if self.decorrelate { "dbp" } else { "bp" })
    }

    pub fn names(&self) -> Vec<String> {
        let kinds = ["epoch_host_over_pytorch", "peak_memory_host_over_pytorch", "start_to_first_step"];
        kinds.map(|kind| format!("{kind}/{}", self.name())).to_vec()
    }

    pub fn is_quick(&self) -> bool {
        self.data == "tiny_imagenet" && !self.decorrelate
    }

    pub fn measure(&self, setting: &Setting) -> Result<()> {
        match setting.quick {
            true => Self { batch: 32, images: 320, ..*self }.pairs(1, setting),
            false => self.pairs(PAIRS, setting),
        }
    }

    fn pairs(&self, count: usize, setting: &Setting) -> Result<()> {
        let data = setting.data.join(self.data);
        if !data.is_dir() {
            println!("# {} is left out: there is no folder {}; --data says where it is", self.name(), data.display());
            return Ok(());
        }
        let workers = self.best_workers(&data, setting)?;
        let (mut host, mut peer) = (Vec::new(), Vec::new());
        for _ in 0..count {
            peer.push(self.peer(&data, workers, setting)?);
            host.push(self.host(&data, setting)?);
        }
        if let Some((a, b)) = host.iter().zip(&peer).find(|(a, b)| a.steps != b.steps) {
            return Err(format!("the host took {} steps, PyTorch {}", a.steps, b.steps).into());
        }
        let pairs = |figure: fn(&Ran) -> f64| {
            Pairs::of(&peer.iter().map(figure).collect::<Vec<_>>(), &host.iter().map(figure).collect::<Vec<_>>())
        };
        let names = self.names();
        let steps = host.first().map_or(0, |ran| ran.steps);
        let beside = format!("whole programs of {steps} steps of {}, PyTorch with {workers} workers", self.batch);
        pairs(|ran| ran.secs).print(&names[0], None, Some(EPOCH_BOUND), &beside);
        let memory = pairs(|ran| ran.peak_mib);
        let beside = format!("memory of the main processes alone, PyTorch's {workers} workers not counted");
        memory.line(&names[1], None, Some(MEMORY_BOUND), |mib| format!("{mib:.0} MiB"), &beside);
        pairs(|ran| ran.first_step_secs).print(&names[2], None, None, "from exec to the end of the first step");
        Ok(())
    }

    /// The number of DataLoader workers that suits the peer best on this machine: 0, 1 or as many as threads.
    fn best_workers(&self, data: &Path, setting: &Setting) -> Result<usize> {
        let mut tried = vec![0, 1, setting.threads];
        tried.dedup();
        let mut best = (f64::INFINITY, 0);
        for workers in tried {
            let secs = self.peer(data, workers, setting)?.secs;
            if secs < best.0 {
                best = (secs, workers);
            }
        }
        Ok(best.1)
    }

    fn peer(&self, data: &Path, workers: usize, setting: &Setting) -> Result<Ran> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(&setting.python);
        command.arg(format!("{FOLDER}/epoch.py")).arg("--data").arg(data);
        command.arg("--checkpoint").arg(folder.path().join("checkpoint.pt"));
        for (name, value) in [
            ("--image-size", self.image_size.to_string()),
            ("--patch-size", self.patch_size.to_string()),
            ("--batch", self.batch.to_string()),
            ("--epochs", self.epochs.to_string()),
            ("--images", self.images.to_string()),
            ("--size", self.size.to_owned()),
            ("--threads", setting.threads.to_string()),
            ("--workers", workers.to_string()),
        ] {
            command.args([name.to_owned(), value]);
        }
        command.args(self.decorrelate.then_some("--decorrelate"));
        time(command)
    }

    fn host(&self, data: &Path, setting: &Setting) -> Result<Ran> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_dbp-host"));
        command.arg(format!("{FOLDER}/epoch.rhai")).arg("--runs").arg(folder.path());
        command.args(["--device", "cpu", "--threads", &setting.threads.to_string()]);
        for (name, value) in [
            ("data", data.display().to_string()),
            ("image_size", self.image_size.to_string()),
            ("patch_size", self.patch_size.to_string()),
            ("batch", self.batch.to_string()),
            ("epochs", self.epochs.to_string()),
            ("images", self.images.to_string()),
            ("recipe", self.size.to_owned()),
            ("decorrelate", self.decorrelate.to_string()),
        ] {
            command.args(["--set".to_owned(), format!("{name}={value}")]);
        }
        time(command)
    }
}

/// Runs a program that prints `first step` and, at its end, `steps N`.
fn time(mut command: Command) -> Result<Ran> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let (output, errors) = (child.stdout.take(), child.stderr.take());
    let (done, peak_kib) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut first_step_secs, mut steps) = (None, None);
    let (outcome, errors) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak_kib.fetch_max(peak_of(&status).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(LOOK_EVERY);
            }
        });
        let errors = scope.spawn(|| errors.map(std::io::read_to_string));
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(|line| line.ok()) {
            if line.contains("first step") {
                first_step_secs.get_or_insert(start.elapsed().as_secs_f64());
            }
            steps = line.trim().strip_prefix("steps ").and_then(|steps| steps.parse().ok()).or(steps);
        }
        let outcome = child.wait().map(|status| (status, start.elapsed().as_secs_f64()));
        done.store(true, Ordering::Relaxed);
        (outcome, errors.join().ok().flatten().and_then(|text| text.ok()).unwrap_or_default())
    });
    let (status, secs) = outcome?;
    if !status.success() {
        let last: Vec<_> = errors.lines().rev().take(5).collect();
        return Err(format!("{command:?}: {status}: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n")).into());
    }
    Ok(Ran {
        secs,
        first_step_secs: first_step_secs.ok_or("the program did not print `first step`")?,
        peak_mib: peak_kib.into_inner() as f64 * 1024.0 / MIB,
        steps: steps.ok_or("the program did not print `steps N`")?,
    })
}

/// The largest resident size that a process had, in KiB; `None` once it has ended.
fn peak_of(status: &str) -> Option<u64> {
    let text = std::fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
