//! Images per second and core of the loader, over those of what people use in its place, and how far its pixels are from Pillow's.
//!
//!     cargo bench --bench loader -- --python .peers/bin/python --data ../shared/data/imagenet_sample
//!
//! Both sides read the same files, crop at random (area 0.2 to 1, bicubic), flip, normalize, and stack batches of 224×224 images in
//! float32: ours with one worker, theirs in one thread; then both with as many workers as there are processors. Passes over the
//! files alternate. One against one, a side's time is that of its processor, so that what else the machine does counts for neither.

#![allow(clippy::print_stdout)] // Stdout is for results, and these are they.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Parser;
use dbp_host::data::image::Region;
use dbp_host::data::{Crop, Dataset, Loader, LoaderConfig, Spec, default_workers};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIZE: usize = 224;
const ROUNDS: usize = 7;
const QUICK_ROUNDS: usize = 2;
/// What the ratio must be at least.
const BOUND: f64 = 3.0;
/// How far an image may be from Pillow's, of 255: in the mean, and 99 of 100 values.
const MEAN_BOUND: f64 = 2.0;
const MOST_BOUND: f64 = 8.0;

/// Times the loader against torchvision, and compares its pixels with Pillow's
#[derive(Parser)]
#[command(name = "loader", bin_name = "cargo bench --bench loader --")]
struct Cli {
    /// A Python with PyTorch, torchvision and Pillow
    #[arg(long, value_name = "PATH", default_value = ".peers/bin/python")]
    python: PathBuf,

    /// A folder of JPEGs
    #[arg(long, value_name = "PATH", default_value = "../shared/data/imagenet_sample")]
    data: PathBuf,

    /// Try it out: 2 rounds, and every eighth image compared
    #[arg(long)]
    quick: bool,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let data = cli.data.canonicalize().map_err(|error| format!("{}: {error}", cli.data.display()))?;
    dbp_host::libtorch::keep_freed_memory(); // As the program does.
    let open = |cache| Dataset::open_with_cache(&Spec::Folder(data.clone()), cache);
    let bare = open(0)?;
    let mut peer = Peer::start(&cli.python)?;
    println!("{}, libtorch; {} images of {}", peer.versions, bare.len(), data.display());
    let files: Vec<PathBuf> = bare.files().iter().map(|name| data.join(name)).collect();
    peer.ask(&json!({ "do": "open", "files": files, "size": SIZE }))?;
    compare(&mut peer, &bare, if cli.quick { 8 } else { 1 })?;

    // Every image is in a pass, if the number of them is even.
    let batch = (bare.len() / 2).max(1);
    let warm = open(u64::MAX)?;
    let rounds = if cli.quick { QUICK_ROUNDS } else { ROUNDS };
    let mut sides = Sides { peer: &mut peer, batch, rounds, pass: 0 };
    let again = || Ok(bare.clone());
    sides.claim("loader_host_over_torchvision", &again, ("pil", 1), Some(BOUND))?;
    sides.claim("loader_host_over_torchvision/first_epoch", &|| Ok(open(0)?), ("pil", 1), None)?;
    sides.claim("loader_host_over_torchvision_tensors", &again, ("tensors", 1), None)?;
    sides.claim("loader_cached_host_over_torchvision", &|| Ok(warm.clone()), ("pil", 1), None)?;
    let workers = default_workers();
    if workers > 1 {
        sides.claim(&format!("loader_host_over_torchvision/{workers}_workers"), &again, ("pil", workers), None)?;
    }
    Ok(())
}

/// Both sides of a comparison.
struct Sides<'a> {
    peer: &'a mut Peer,
    batch: usize,
    rounds: usize,
    /// Counts ours, so that each has an order and crops of its own.
    pass: u64,
}

impl Sides<'_> {
    /// Prints one line: the median of the rounds' ratios. `dataset` is asked before each of our passes.
    fn claim(
        &mut self,
        name: &str,
        dataset: &dyn Fn() -> Result<Dataset>,
        (kind, workers): (&str, usize),
        bound: Option<f64>,
    ) -> Result<()> {
        let images = (dataset()?.len() / self.batch * self.batch) as f64;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=self.rounds {
            let own = images / self.ours(&dataset()?, workers)?[usize::from(workers == 1)];
            let command = json!({
                "do": "epoch", "kind": kind, "batch": self.batch, "workers": if workers > 1 { workers } else { 0 },
            });
            let answer = self.peer.ask(&command)?;
            let times = answer.split(' ').map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
            let other = images / times.get(usize::from(workers == 1)).ok_or("the peer has told no times")?;
            // The first round fills caches: the file system's, and ours where there is one.
            if round > 0 {
                ours.push(own);
                theirs.push(other);
                ratios.push(own / other);
            }
        }
        let verdict = bound.map_or(String::new(), |bound| {
            format!(" bound {bound:.1} {}", if median(&ratios) >= bound { "within" } else { "BELOW" })
        });
        ratios.sort_by(f64::total_cmp);
        println!(
            "ratio {name} {:.2}{verdict}   of {} rounds {:.2} to {:.2}, {:.0} and {:.0} images/s{}, higher is better",
            median(&ratios),
            ratios.len(),
            ratios[0],
            ratios[ratios.len() - 1],
            median(&ours),
            median(&theirs),
            if workers == 1 { " of a processor" } else { "" },
        );
        Ok(())
    }

    /// Seconds of one pass, from an idle loader to the last batch as a tensor: on the clock, and of this process's threads.
    fn ours(&mut self, dataset: &Dataset, workers: usize) -> Result<[f64; 2]> {
        let config = LoaderConfig {
            batch: self.batch,
            micro_batches: 1,
            image_size: (SIZE, SIZE),
            crop: Crop::Random,
            flip: true,
            seed: 1,
            workers,
        };
        let loader = Loader::new(dataset.clone(), config)?;
        let steps = loader.steps_per_epoch();
        let (start, before) = (Instant::now(), processor_secs()?);
        for step in self.pass * steps..(self.pass + 1) * steps {
            let batch = loader.micro(step, 0)?;
            let images = batch.pixels.into_tensor()?.f_view(batch.shape.map(|n| n as i64))?;
            std::hint::black_box(images.size());
        }
        self.pass += 1;
        Ok([start.elapsed().as_secs_f64(), processor_secs()? - before]) // What the loader prepares beyond ends with it, before the peer's turn.
    }
}

/// Every image: regions that are the same on both sides, and what evaluation sees.
fn compare(peer: &mut Peer, dataset: &Dataset, every: usize) -> Result<()> {
    let (mut means, mut mosts) = (Vec::new(), Vec::new());
    for index in (0..dataset.len()).step_by(every) {
        let image = dataset.load(index)?;
        let (width, height) = (image.width, image.height);
        let part = |shares: [usize; 4]| {
            let [left, top, right, bottom] = shares;
            let (left, top) = (width * left / 16, height * top / 16);
            Region { left, top, width: (width * right / 16 - left).max(1), height: (height * bottom / 16 - top).max(1) }
        };
        let regions = [[0, 0, 16, 16], [0, 3, 9, 12], [7, 5, 16, 15]].map(part);
        for region in regions.into_iter().map(Some).chain([None]) {
            let Region { left, top, width, height } = region.unwrap_or(Region { left: 0, top: 0, width: 0, height: 0 });
            let command = json!({
                "do": "pixels", "index": index, "left": left, "top": top, "width": width, "height": height,
            });
            let pillow = peer.bytes(&command, SIZE * SIZE * 3)?;
            let ours = dataset.part(index, region, (SIZE, SIZE))?;
            let plane = SIZE * SIZE;
            let difference = |i: usize| f64::from((ours[i % 3 * plane + i / 3] - f32::from(pillow[i])).abs());
            let mut differences: Vec<f64> = (0..pillow.len()).map(difference).collect();
            differences.sort_by(f64::total_cmp);
            means.push((differences.iter().sum::<f64>() / differences.len() as f64, dataset.name(index)));
            mosts.push((differences[differences.len() * 99 / 100], dataset.name(index)));
        }
    }
    for (what, list, bound) in [("mean", &mut means, MEAN_BOUND), ("99th_percentile", &mut mosts, MOST_BOUND)] {
        list.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (middle, (worst, name)) = (list[list.len() / 2].0, &list[list.len() - 1]);
        let verdict = if *worst <= bound { "within" } else { "ABOVE" };
        println!(
            "pixels {what} {worst:.2} bound {bound:.0} {verdict}   of 255, the worst of {} pictures, {name}; the median {middle:.2}",
            list.len(),
        );
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// What all threads that this process has have used, to the nanosecond.
fn processor_secs() -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// The other side's process.
struct Peer {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    versions: String,
}

impl Peer {
    fn start(python: &Path) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/loader/peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("--python {}: {error}", python.display()))?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("its stdout is not piped")?);
        let mut peer = Self { child, commands, answers, versions: String::new() };
        peer.versions = peer.line()?;
        Ok(peer)
    }

    fn ask(&mut self, command: &serde_json::Value) -> Result<String> {
        self.send(command)?;
        self.line()
    }

    fn bytes(&mut self, command: &serde_json::Value, count: usize) -> Result<Vec<u8>> {
        self.send(command)?;
        let mut bytes = vec![0; count];
        self.answers.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn send(&mut self, command: &serde_json::Value) -> Result<()> {
        let commands = self.commands.as_mut().ok_or("its stdin is closed")?;
        writeln!(commands, "{command}")?;
        Ok(commands.flush()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("the peer has ended: {}", self.child.wait()?).into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.commands = None; // It reads the end of its input, and ends.
        let _ = self.child.wait();
    }
}
