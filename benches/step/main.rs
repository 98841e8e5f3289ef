//! What decorrelation costs, measured: ratios of times within one process, with the multiply-adds of `nn::cost` beside them.
//!
//! A step is that of `stdlib/mae.rhai`: masking, forward, backward, fused AdamW, `update_decorrelation`, on one
//! batch in one pass. `benches/README.md` says what each line means.
//!
//! Departures from a run: the images are one batch of noise held in memory, so no loader is timed; the learning rate is
//! constant; the guard's look at every R, due at each 50th step, falls on the warm-up.

#![allow(clippy::print_stdout)] // Stdout is for results, and these are they.

mod pairs;
mod trainer;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};
use dbp_host::nn::factor::{Factor, Rule};
use dbp_host::nn::{BlockWidth, DecorOptions, Mae, MaxRows, Path, Plan};
use tch::{Device, Kind, Tensor};

use pairs::{Pairs, verdict};
use trainer::{BASE, SIZES, Size, Trainer, decorrelate};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const MIB: f64 = (1 << 20) as f64;

/// What the paper's settings may cost over the counted share: 1.1 times it.
const PAPER_SLACK: f64 = 1.1;
/// What `lean` may cost in all, at `tiny` and `small`.
const LEAN_BOUND: f64 = 1.08;
/// What four rows per column of R may cost in ViT-Base, by count.
const BASE_4D_BOUND: f64 = 1.06;

/// Images of a step.
const BATCH: i64 = 256;
const QUICK_BATCH: i64 = 32;
const QUICK_PAIRS: usize = 3;
/// The paper's step of ViT-Base.
const BASE_BATCH: i64 = 4096;
const BASE_MICRO_BATCHES: u64 = 16;

/// Rows of one update on its own, as many as 10 % of 256 images of 50 tokens.
const UPDATE_ROWS: i64 = 1280;
const UPDATE_RANK: i64 = 32;
const UPDATE_PAIRS: usize = 31;

/// Times decorrelation against its peers and prints a line per claim
///
///     cargo bench --bench step -- --threads 2 tiny update
#[derive(Parser)]
#[command(name = "step", bin_name = "cargo bench --bench step --", verbatim_doc_comment)]
struct Cli {
    /// Claims to measure, by any part of `KIND NAME` as it is printed; all if none is named
    names: Vec<String>,

    /// Try it out: nano and the narrowest update only, 32 images, 3 pairs
    #[arg(long)]
    quick: bool,

    /// Processor threads for libtorch; all cores if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// The options under a name that lines are printed with.
fn options(name: &str) -> Result<DecorOptions> {
    match name {
        "4d" => Ok(DecorOptions { max_rows: MaxRows::Widths(4.0), ..DecorOptions::paper() }),
        _ => Ok(DecorOptions::preset(name).ok_or_else(|| format!("no preset is named {name}"))?),
    }
}

/// One line of the output.
enum Claim {
    Memory { size: &'static Size, preset: &'static str },
    Step { size: &'static Size, preset: &'static str },
    Fused { size: &'static Size },
    LowRank { inputs: i64 },
    Blocks { inputs: i64 },
    Base { decor: &'static str },
}

fn claims() -> Vec<Claim> {
    let each = || SIZES.iter().flat_map(|size| ["paper", "lean"].map(|preset| (size, preset)));
    let widths = || [512, 768, 1536].into_iter();
    let mut claims: Vec<_> = each().map(|(size, preset)| Claim::Memory { size, preset }).collect(); // In a fresh process.
    claims.extend(["4d", "paper", "lean"].map(|decor| Claim::Base { decor }));
    claims.extend(widths().map(|inputs| Claim::LowRank { inputs }));
    claims.extend(widths().map(|inputs| Claim::Blocks { inputs }));
    claims.extend(SIZES.iter().take(2).map(|size| Claim::Fused { size }));
    claims.extend(each().map(|(size, preset)| Claim::Step { size, preset }));
    claims
}

impl Claim {
    /// `KIND NAME`, as the line starts.
    fn title(&self) -> String {
        match self {
            Self::Memory { size, preset } => format!("memory {}/{preset}", size.name),
            Self::Step { size, preset } => format!("ratio step_dbp_over_bp/{}/{preset}", size.name),
            Self::Fused { size } => format!("ratio step_fused_over_twostep/{}", size.name),
            Self::LowRank { inputs } => format!("ratio update_low_rank_over_full/{inputs}"),
            Self::Blocks { inputs } => format!("ratio update_blocks_over_full/{inputs}"),
            Self::Base { decor } => format!("count step_dbp_over_bp/base/{decor}"),
        }
    }

    fn is_quick(&self) -> bool {
        match self {
            Self::Memory { size, .. } | Self::Step { size, .. } | Self::Fused { size } => size.name == "nano",
            Self::LowRank { inputs } | Self::Blocks { inputs } => *inputs == 512,
            Self::Base { .. } => false,
        }
    }

    /// Prints the line; `held` are models whose memory must not be given to the next.
    fn measure(&self, quick: bool, held: &mut Vec<Mae>) -> Result<()> {
        let title = self.title();
        let name = title.split_once(' ').map_or(title.as_str(), |(_, name)| name);
        let batch = if quick { QUICK_BATCH } else { BATCH };
        let pairs = |usual| if quick { QUICK_PAIRS } else { usual };
        if !matches!(self, Self::Memory { .. }) {
            held.clear();
        }
        match self {
            Self::Memory { size, preset } => held.push(memory(name, size, &options(preset)?, batch)?),
            Self::Step { size, preset } => step(name, size, preset, batch, pairs(size.pairs))?,
            Self::Fused { size } => fused(name, size, batch, pairs(size.pairs))?,
            Self::LowRank { inputs } => {
                let low_rank = DecorOptions { rank: UPDATE_RANK, ..DecorOptions::paper() };
                update(name, *inputs, &low_rank, pairs(UPDATE_PAIRS))?;
            }
            Self::Blocks { inputs } => {
                let blocks = DecorOptions { block: BlockWidth::Width(inputs / 4), ..DecorOptions::paper() };
                update(name, *inputs, &blocks, pairs(UPDATE_PAIRS))?;
            }
            Self::Base { decor } => base(name, decor)?,
        }
        Ok(())
    }
}

/// A step with decorrelation over one without.
fn step(name: &str, size: &Size, preset: &str, batch: i64, pairs: usize) -> Result<()> {
    let images = size.images(batch)?;
    let mut plain = Trainer::new(size, &images, None, Path::Cheaper)?;
    let mut decorrelated = Trainer::new(size, &images, Some(&options(preset)?), Path::Cheaper)?;
    let pairs = Pairs::time(pairs, || plain.step(), || decorrelated.step())?;
    let plan = decorrelated.plan()?;
    let bound = match preset {
        "paper" => Some(1.0 + PAPER_SLACK * plan.share()),
        _ => (size.name != "nano").then_some(LEAN_BOUND),
    };
    pairs.print(name, 1.0 + plan.share(), bound, &memory_of(&plan));
    Ok(())
}

/// A step that applies R as `x (W R)ᵀ` over one that applies it as `(x Rᵀ) Wᵀ`.
fn fused(name: &str, size: &Size, batch: i64, pairs: usize) -> Result<()> {
    let (images, paper) = (size.images(batch)?, DecorOptions::paper());
    let mut two_step = Trainer::new(size, &images, Some(&paper), Path::TwoStep)?;
    let mut fused = Trainer::new(size, &images, Some(&paper), Path::Fused)?;
    let pairs = Pairs::time(pairs, || two_step.step(), || fused.step())?;
    // The plan counts each layer on its cheaper path: 2·o·d² fused, 2·N·d² in two steps, for a whole R.
    let plan = fused.plan()?;
    let (mut fused_count, mut two_step_count) = (plan.plain, plan.plain);
    for layer in &plan.layers {
        let applied = |rows: i64| 2.0 * rows as f64 * (layer.inputs * layer.inputs) as f64;
        let update = layer.extra - applied(if layer.fused { layer.outputs } else { layer.rows });
        fused_count += update + applied(layer.outputs);
        two_step_count += update + applied(layer.rows);
    }
    pairs.print(name, fused_count / two_step_count, None, &memory_of(&plan));
    Ok(())
}

/// One update of an R in another form over one of a whole R, from the same rows.
fn update(name: &str, inputs: i64, options: &DecorOptions, pairs: usize) -> Result<()> {
    let new = |options| Factor::identity("bench", (inputs, inputs, 1), options, Kind::Float, Device::Cpu);
    let (mut whole, mut other) = (new(&DecorOptions::paper())?, new(options)?);
    let rows = Tensor::f_randn([UPDATE_ROWS, inputs], FLOAT)?;
    let rule = Rule { rate: options.lr, kappa: options.kappa, max_norm: options.max_norm, unseen: None };
    let once = |factor: &mut Factor| -> Result<()> {
        tch::no_grad(|| factor.update(&rows, rule))?;
        Ok(())
    };
    let pairs = Pairs::time(pairs, || once(&mut whole), || once(&mut other))?;
    let counted = other.update_cost(UPDATE_ROWS) as f64 / whole.update_cost(UPDATE_ROWS) as f64;
    let mib = |factor: &Factor| 4.0 * factor.numel() as f64 / MIB;
    pairs.print(name, counted, None, &format!("memory {:.1} and {:.1} MiB counted", mib(&other), mib(&whole)));
    Ok(())
}

/// ViT-Base at the paper's batch, by count only.
fn base(name: &str, decor: &str) -> Result<()> {
    let model = BASE.model()?;
    decorrelate(&model, &options(decor)?)?;
    let plan = model.registry().plan_for(BASE_BATCH, BASE_MICRO_BATCHES, || model.measure())?;
    let value = 1.0 + plan.share();
    println!(
        "count {name} {value:.3}{}   batch {BASE_BATCH} in {BASE_MICRO_BATCHES} micro-batches, {}",
        verdict(value, (decor == "4d").then_some(BASE_4D_BOUND)),
        memory_of(&plan),
    );
    Ok(())
}

/// What the plan counts, and by how much the process grew when the R's were made: before a step there is nothing else.
fn memory(name: &str, size: &Size, options: &DecorOptions, batch: i64) -> Result<Mae> {
    let model = size.model()?;
    let before = resident_mib();
    decorrelate(&model, options)?;
    let grown = before.zip(resident_mib()).map(|(before, after)| format!("{:.1} MiB", after - before));
    let plan = model.registry().plan_for(batch, 1, || model.measure())?;
    let tensors = model.registry().layers().into_iter().flat_map(|layer| layer.r_tensors());
    let r: f64 = tensors.map(|(_, r)| 4.0 * r.numel() as f64).sum();
    println!(
        "memory {name} counted {:.1} MiB measured {}   measured are the R's alone, {:.1} MiB of the count",
        plan.memory() as f64 / MIB,
        grown.as_deref().unwrap_or("nothing"),
        r / MIB,
    );
    Ok(model)
}

fn memory_of(plan: &Plan) -> String {
    format!("memory +{:.1} MiB counted", plan.memory() as f64 / MIB)
}

/// The process's resident size; `None` where the system does not tell.
fn resident_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<f64>().ok()? / 1024.0)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut chosen: Vec<_> = claims().into_iter().filter(|claim| claim.is_quick() || !cli.quick).collect();
    for name in &cli.names {
        if !chosen.iter().any(|claim| claim.title().contains(name)) {
            let titles: Vec<_> = chosen.iter().map(|claim| format!("  {}", claim.title())).collect();
            let message = format!("no claim contains `{name}`; there are\n{}", titles.join("\n"));
            Cli::command().error(ErrorKind::InvalidValue, message).exit();
        }
    }
    chosen.retain(|claim| cli.names.is_empty() || cli.names.iter().any(|name| claim.title().contains(name)));
    dbp_host::libtorch::keep_freed_memory(); // As the program does.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cli.threads.map_or(cores, usize::from);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    tch::manual_seed(0);
    println!(
        "# dbp-host {}, libtorch {}, CPU, {threads} of {cores} cores",
        env!("CARGO_PKG_VERSION"),
        env!("DBP_LIBTORCH_VERSION")
    );
    let mut held = Vec::new();
    for claim in &chosen {
        if let Err(err) = claim.measure(cli.quick, &mut held) {
            eprintln!("{}: {err}", claim.title());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
