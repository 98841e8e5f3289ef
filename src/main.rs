//! The command line: what can be asked for, in clap's types, and one short function per subcommand.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use dbp_host::host::device::DeviceChoice;
use dbp_host::host::energy::command::CommandOptions;
use dbp_host::host::energy::{Asked, EnergyOptions};
use dbp_host::host::export::{ExportOptions, FormatChoice};
use dbp_host::host::list::ListOptions;
use dbp_host::host::new::Template;
use dbp_host::host::reference::command as reference;
use dbp_host::host::report_command::{BandChoice, ReportOptions};
use dbp_host::host::{self, Options, TheCell};

/// Runs vision pre-training experiments written as short Rhai scripts.
///
/// Rust and libtorch do the work; the script says what the experiment is. For example:
///
///     dbp-host scripts/pretrain.rhai --set recipe=tiny --set data=photos/ --device auto
///
/// Exit codes: 0 done; 1 the script or its data is wrong; 2 bad command line; 3 training diverged; 4 the machine failed;
/// 130 interrupted.
#[derive(Parser)]
#[command(version, verbatim_doc_comment, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is wrong with a script without running it, and list its parameters
    ///
    /// Exit codes: 0 nothing is wrong, though there may be warnings; 1 something would end the run; 2 there is no such script.
    Check(CheckArgs),
    /// Run a script, and again whenever it is saved: hooks are patched into the run, other edits restart it
    Watch(WatchArgs),
    /// Try tensors, models and data at a prompt, with history, completion and help
    Repl(ReplArgs),
    /// Write a model's weights for timm, the MAE release or Hugging Face, decorrelation folded in
    Export(ExportArgs),
    /// Say what this machine has for training and metering: what was found, what is missing, what to do
    Doctor(DoctorArgs),
    /// Write the script reference as Markdown pages, with definitions for editors
    Api(ApiArgs),
    /// Write a script to start from: a commented experiment that runs at once on built-in data
    New(NewArgs),
    /// List what ran: status, steps, best figure, time, energy and CO₂
    Runs(RunsArgs),
    /// Tables, statistics and figures of runs: a self-contained page, and text on stdout
    ///
    /// Exit codes: 0 done, even if some runs could not be read; 1 none could; 2 bad command line.
    Report(ReportArgs),
    /// Print the completions of a shell
    ///
    /// For bash: dbp-host completions bash > ~/.local/share/bash-completion/completions/dbp-host
    Completions { shell: Shell },
    /// Print the manual page, or write one for every subcommand into a folder
    Man {
        /// Folder for dbp-host.1, dbp-host-runs.1, …; without one, the main page goes to stdout
        dir: Option<PathBuf>,
    },
    /// Run any program and say what it cost in energy and CO₂, by the meter that runs have
    Energy(EnergyArgs),
}

/// Where the machine stands, for the CO₂ of its electricity. It is never looked up over the network. `DBP_HOST_COUNTRY` and its
/// kin say the same for all runs of a machine.
#[derive(clap::Args)]
struct GridArgs {
    /// Country of the grid: ISO code or English name; without one, the world's average intensity [env: DBP_HOST_COUNTRY]
    #[arg(long, value_name = "COUNTRY")]
    country: Option<String>,

    /// State, province or bidding zone of the grid, where the tables have it [env: DBP_HOST_REGION]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,

    /// Power usage effectiveness of the data center [env: DBP_HOST_PUE]
    #[arg(long, value_name = "RATIO", allow_negative_numbers = true)]
    pue: Option<f64>,

    /// Carbon intensity in g CO₂e/kWh, over the tables [env: DBP_HOST_CARBON_INTENSITY]
    #[arg(long, value_name = "GRAMS", allow_negative_numbers = true)]
    carbon_intensity: Option<f64>,

    /// Ask Electricity Maps for the grid's intensity now; needs ELECTRICITY_MAPS_TOKEN and a country
    #[arg(long)]
    carbon_live: bool,
}

impl From<GridArgs> for EnergyOptions {
    fn from(args: GridArgs) -> Self {
        let GridArgs { country, region, pue, carbon_intensity: intensity, carbon_live: live } = args;
        Self { country, region, pue, intensity, live }
    }
}

#[derive(clap::Args)]
struct CheckArgs {
    /// Script to look at
    script: PathBuf,

    /// One JSON object on stdout; docs/check.md describes it
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct DoctorArgs {
    /// Folder that run directories are to be made in
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,

    /// Findings as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    grid: GridArgs,
}

#[derive(clap::Args)]
struct ApiArgs {
    /// Folder of the pages
    #[arg(value_name = "DIR", default_value = reference::USUAL_FOLDER)]
    folder: PathBuf,

    /// Write nothing; exit with 1 and name the pages that are stale
    #[arg(long)]
    check: bool,
}

#[derive(clap::Args)]
struct EnergyArgs {
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// Seconds between two polls of the sensors
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,

    /// Which sources figures may come from: sensors and else models, sensors only, models only
    #[arg(long, value_name = "auto|measured|estimated", default_value = "auto")]
    source: String,

    /// GPUs to meter: none, all, or indices and UUIDs with commas; by default those of CUDA_VISIBLE_DEVICES
    #[arg(long, value_name = "GPUS")]
    gpus: Option<String>,

    /// Add a row to this file, in the columns of codecarbon
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Figures on stdout as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    grid: GridArgs,
}

#[derive(clap::Args)]
struct NewArgs {
    /// Name of the experiment, its file, or a folder to write it into
    name: PathBuf,

    /// What it is to be: pretrain, ablation, finetune or blank
    #[arg(long, value_name = "TEMPLATE", default_value = "pretrain")]
    template: Template,
}

#[derive(clap::Args)]
struct RunsArgs {
    /// Folder of run directories, or one of them
    #[arg(default_value = "runs")]
    dir: PathBuf,

    /// Remove the checkpoints of runs that are done, but for those of the N newest
    #[arg(long, value_name = "N")]
    keep: Option<usize>,

    /// With --keep: only say what would be removed
    #[arg(long, requires = "keep")]
    dry_run: bool,

    /// Those of --smoke too
    #[arg(long)]
    all: bool,

    /// The list as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ReportArgs {
    /// Run directories, parents of several runs, or folders of both
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// File of the page; by default report.html in the one RUN, or here if there are several
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write the tables as CSV files into this folder too
    #[arg(long, value_name = "DIR")]
    csv: Option<PathBuf>,

    /// Put runs together by these keys (arguments, recipe.…, name, axes of a grid) instead of all that differ
    #[arg(long, value_name = "KEY,…", value_delimiter = ',')]
    by: Vec<String>,

    /// Which arm the others are compared with, by its label; by default the grid's, or the one without decorrelated layers
    #[arg(long, value_name = "LABEL")]
    baseline: Option<String>,

    /// The figure of interest, as metrics.jsonl names it; by default what decides which checkpoint is best
    #[arg(long, value_name = "NAME")]
    figure: Option<String>,

    /// What stands behind ± and around curves: standard deviation over seeds, or 95 % confidence interval of the mean
    #[arg(long, value_name = "sd|ci", default_value = "sd", hide_possible_values = true, hide_default_value = true)]
    band: BandChoice,

    /// Title of the report
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// Write no page
    #[arg(long, conflicts_with = "out")]
    no_html: bool,
}

#[derive(clap::Args)]
struct ExportArgs {
    /// Run directory, checkpoint folder or safetensors file
    run: PathBuf,

    /// Whose names: timm (the encoder), mae (the MAE release) or hf (Hugging Face)
    #[arg(long, value_name = "timm|mae|hf")]
    format: FormatChoice,

    /// File to write, or a folder for its model.safetensors; by default RUN/export/FORMAT
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Which checkpoint of a run; by default best, else last
    #[arg(long, value_name = "best|last", value_parser = ["best", "last"])]
    checkpoint: Option<String>,
}

/// Reads from a terminal, or else all of standard input, statement by statement, until the first error.
#[derive(clap::Args)]
struct ReplArgs {
    /// Where tensors live: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// Seed of all randomness, over the inputs' own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Processor threads for libtorch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Folder that run directories are made in
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,

    /// Let inputs read this folder too; they read the current folder
    #[arg(long, value_name = "DIR")]
    allow_read: Vec<PathBuf>,

    /// Script operations allowed in one input, or from one training step to the next
    #[arg(long, value_name = "N", default_value_t = Options::MAX_OPERATIONS)]
    max_operations: u64,

    /// Largest tensor an input may make, in bytes
    #[arg(long, value_name = "N", default_value_t = Options::MAX_TENSOR_BYTES)]
    max_tensor_bytes: u64,

    #[command(flatten, next_help_heading = "Energy and CO₂")]
    grid: GridArgs,
}

#[derive(clap::Args)]
#[command(mut_arg("resume", |resume| resume.hide(true)), mut_arg("script", |script| script.required_unless_present("resume")))]
struct WatchArgs {
    /// Go on with weights and step of the run that an edit stopped, where the model still fits
    #[arg(long = "continue")]
    carry_on: bool,

    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Args)]
struct RunArgs {
    /// Script to run; not needed with --resume
    script: Option<PathBuf>,

    /// Give a script parameter its value; text, or JSON where the default is not text
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,

    /// Folder that run directories are made in
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,

    /// Where tensors live: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,

    /// Seed of all randomness, over the script's own
    ///
    /// Two runs with the same seed, script and data on the CPU end in the same numbers, bit for bit.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Carry on with a run, from its saved script and last checkpoint
    #[arg(long, value_name = "RUN")]
    resume: Option<PathBuf>,

    /// Processor threads for libtorch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// On CUDA, let products of float32 round their inputs to TF32: faster, and a thousand times less exact
    #[arg(long)]
    tf32: bool,

    /// Cells of a grid to run at once, each in a process of its own with its share of the threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,

    /// The one cell of a grid that this process is to run: for workers of --jobs
    #[arg(long, value_name = "ADDRESS", hide = true, requires = "root")]
    cell: Option<String>,

    /// The directory of that grid
    #[arg(long = "grid", value_name = "DIR", hide = true, requires = "cell")]
    root: Option<PathBuf>,

    /// Let the script read this folder too; it reads its own folder, datasets/ and what --set names
    #[arg(long, value_name = "DIR")]
    allow_read: Vec<PathBuf>,

    /// Let the script write below this folder too; it writes into its run directory
    #[arg(long, value_name = "DIR")]
    allow_write: Vec<PathBuf>,

    /// Try the script out: two steps, few images, small batches
    #[arg(long, conflicts_with = "resume")]
    smoke: bool,

    /// Script operations allowed from one training step to the next
    #[arg(long, value_name = "N", default_value_t = Options::MAX_OPERATIONS)]
    max_operations: u64,

    /// Largest tensor a script may make, in bytes
    #[arg(long, value_name = "N", default_value_t = Options::MAX_TENSOR_BYTES)]
    max_tensor_bytes: u64,

    #[command(flatten, next_help_heading = "Energy and CO₂")]
    grid: GridArgs,
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|err| {
        // With more behind it, clap takes a misspelled subcommand for a script.
        let meant = std::env::args_os()
            .nth(1)
            .and_then(|word| host::shell::subcommand_meant(&Cli::command(), Path::new(&word)));
        match meant {
            Some(failure) => std::process::exit(host::report(&failure.into())),
            None => err.exit(),
        }
    });
    let code = match cli.command {
        Some(Command::Check(args)) => host::check::check(&args.script, args.json),
        Some(Command::Watch(args)) => watch(args),
        Some(Command::Repl(args)) => repl(args),
        Some(Command::Export(args)) => export(args),
        Some(Command::Doctor(args)) => host::energy::doctor::doctor(&args.runs, args.grid.into(), args.json),
        Some(Command::Api(args)) => reference::api(&args.folder, args.check),
        Some(Command::Energy(args)) => energy(args),
        Some(Command::New(args)) => host::new::new(&args.name, args.template),
        Some(Command::Runs(args)) => runs(args),
        Some(Command::Report(args)) => report(args),
        Some(Command::Completions { shell }) => host::shell::completions(Cli::command(), shell),
        Some(Command::Man { dir }) => host::shell::man(Cli::command(), dir.as_deref()),
        None => match cli.run.script.as_deref().and_then(|word| host::shell::subcommand_meant(&Cli::command(), word)) {
            Some(failure) => host::report(&failure.into()),
            None => run(cli.run, host::run),
        },
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn run(args: RunArgs, then: impl FnOnce(Options) -> i32) -> i32 {
    let script = match (args.script, &args.resume) {
        (Some(_), Some(_)) => {
            usage(ErrorKind::ArgumentConflict, "--resume runs the script saved in the run: leave SCRIPT out")
        }
        (None, None) => usage(ErrorKind::MissingRequiredArgument, "name the script to run, or a run to --resume"),
        (Some(script), None) => script,
        (None, Some(run)) => run.join("script.rhai"),
    };
    let device = match args.device.resolve() {
        Ok(device) => device,
        Err(err) => return host::report(&err.into()),
    };
    then(Options {
        script,
        set: args.set,
        runs: args.runs,
        device,
        seed: args.seed,
        resume: args.resume,
        threads: args.threads.map(usize::from),
        tf32: args.tf32,
        jobs: usize::from(args.jobs),
        cell: args.cell.zip(args.root).map(|(address, root)| TheCell { address, root }),
        allow_read: args.allow_read,
        allow_write: args.allow_write,
        smoke: args.smoke,
        max_operations: args.max_operations,
        max_tensor_bytes: args.max_tensor_bytes,
        energy: args.grid.into(),
    })
}

fn watch(args: WatchArgs) -> i32 {
    if args.run.resume.is_some() {
        usage(ErrorKind::ArgumentConflict, "watch runs a script from its beginning: leave --resume out");
    }
    run(args.run, |options| host::watch(options, args.carry_on))
}

fn repl(args: ReplArgs) -> i32 {
    let options = Options {
        runs: args.runs,
        seed: args.seed,
        threads: args.threads.map(usize::from),
        allow_read: args.allow_read,
        max_operations: args.max_operations,
        max_tensor_bytes: args.max_tensor_bytes,
        energy: args.grid.into(),
        ..Options::new("repl.rhai")
    };
    host::repl::repl(options, args.device)
}

fn export(args: ExportArgs) -> i32 {
    let ExportArgs { run, format, out, checkpoint } = args;
    host::export::export(ExportOptions { run, format, out, checkpoint })
}

fn energy(args: EnergyArgs) -> i32 {
    let asked = Asked { interval: Some(args.interval), sources: Some(args.source), ..Asked::default() };
    let EnergyArgs { command, gpus, out, json, grid, .. } = args;
    host::energy::command::energy(CommandOptions { command, energy: grid.into(), asked, gpus, out, json })
}

fn runs(args: RunsArgs) -> i32 {
    let RunsArgs { dir, keep, dry_run, all, json } = args;
    host::list::runs(&ListOptions { dir, keep, dry_run, all, json })
}

fn report(args: ReportArgs) -> i32 {
    let ReportArgs { runs, out, csv, by, baseline, figure, band, title, no_html } = args;
    let contents = host::report_command::Contents { by, baseline, figure, band: band.into(), title };
    host::report_command::write(&ReportOptions { runs, out, csv, no_html, contents })
}

fn usage(kind: ErrorKind, message: &str) -> ! {
    Cli::command().error(kind, message).exit()
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    match name.trim() {
        "" => Err("expected a name before `=`".into()),
        name => Ok((name.to_owned(), value.to_owned())),
    }
}
