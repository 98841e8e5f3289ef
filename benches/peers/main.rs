//! The host against a PyTorch script on the same work: ratios of times in one run, the two in turn.
//!
//!     cargo bench --bench peers -- --python .peers/bin/python [--threads 2 --quick] nano/bp epoch
//!
//! The peer is a strong one (`mae.py`, `decor.py`, `training.py` beside this file), and it is checked to compute the same before it
//! is timed. `benches/README.md` says what each line means.

#![allow(clippy::print_stdout)] // Stdout is for results, and these are they.

mod check;
mod child;
#[path = "../step/pairs.rs"]
#[allow(dead_code)] // `step` needs all of these two.
mod pairs;
mod programs;
mod steps;
#[path = "../step/trainer.rs"]
#[allow(dead_code)] // As above.
mod trainer;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use tch::{Device, Kind};

use programs::Program;
use steps::Steps;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Times the host against PyTorch and prints a line per claim
///
///     cargo bench --bench peers -- --threads 2 nano/bp epoch
#[derive(Parser)]
#[command(name = "peers", bin_name = "cargo bench --bench peers --", verbatim_doc_comment)]
struct Cli {
    /// Claims to measure, by any part of `ratio NAME` as it is printed; all if none is named
    names: Vec<String>,

    /// A Python that has PyTorch, torchvision and safetensors; `make bench-peers` sets one up
    #[arg(long, value_name = "PATH", default_value = ".peers/bin/python")]
    python: PathBuf,

    /// Where the folders tiny_imagenet and imagenet_sample lie; claims without their images are left out
    #[arg(long, value_name = "DIR", default_value = "../shared/data")]
    data: PathBuf,

    /// Try it out: nano only, 32 images, 3 pairs of steps, one of programs
    #[arg(long)]
    quick: bool,

    /// Processor threads of both sides; all cores if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What all claims need to know.
pub struct Setting {
    python: PathBuf,
    data: PathBuf,
    quick: bool,
    threads: usize,
}

/// One measurement, and the lines that it prints.
enum Claim {
    Steps(Steps),
    Program(Program),
}

impl Claim {
    /// `ratio NAME` of each of its lines.
    fn titles(&self) -> Vec<String> {
        match self {
            Self::Steps(steps) => vec![format!("ratio {}", steps.name())],
            Self::Program(program) => program.names().iter().map(|name| format!("ratio {name}")).collect(),
        }
    }

    fn contains(&self, part: &str) -> bool {
        self.titles().iter().any(|title| title.contains(part))
    }

    fn is_quick(&self) -> bool {
        match self {
            Self::Steps(steps) => steps.size.name == "nano",
            Self::Program(program) => program.is_quick(),
        }
    }

    fn measure(&self, setting: &Setting) -> Result<()> {
        match self {
            Self::Steps(steps) => steps.measure(setting),
            Self::Program(program) => program.measure(setting),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let programs = programs::claims().into_iter().map(Claim::Program);
    let all = programs.chain(steps::claims().into_iter().map(Claim::Steps));
    let mut chosen: Vec<_> = all.filter(|claim| claim.is_quick() || !cli.quick).collect();
    for name in &cli.names {
        if !chosen.iter().any(|claim| claim.contains(name)) {
            let titles: Vec<_> = chosen.iter().flat_map(Claim::titles).map(|title| format!("  {title}")).collect();
            let message = format!("no claim contains `{name}`; there are\n{}", titles.join("\n"));
            Cli::command().error(ErrorKind::InvalidValue, message).exit();
        }
    }
    chosen.retain(|claim| cli.names.is_empty() || cli.names.iter().any(|name| claim.contains(name)));
    if !cli.python.exists() {
        let message = format!("--python: there is no {}; `make bench-peers` sets one up", cli.python.display());
        Cli::command().error(ErrorKind::ValueValidation, message).exit();
    }
    dbp_host::libtorch::keep_freed_memory(); // As the program does.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cli.threads.map_or(cores, usize::from);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    tch::manual_seed(0);
    let setting = Setting { python: cli.python, data: cli.data, quick: cli.quick, threads };
    println!(
        "# dbp-host {}, libtorch {}, {}, CPU, {threads} of {cores} cores on both sides",
        env!("CARGO_PKG_VERSION"),
        env!("DBP_LIBTORCH_VERSION"),
        child::versions(&setting.python).unwrap_or_else(|err| err.to_string()),
    );
    let mut code = ExitCode::SUCCESS;
    for claim in &chosen {
        if let Err(err) = claim.measure(&setting) {
            eprintln!("{}: {err}", claim.titles().join(", "));
            code = ExitCode::FAILURE; // The other lines stand on their own.
        }
    }
    code
}
