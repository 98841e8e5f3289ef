//! What the script costs: the training loop of `std/mae` run by the host, over the same steps written in Rust.
//!
//!     cargo bench --bench script_loop [-- --threads 2 --quick]
//!
//! Both train the nano model with its encoder decorrelated, on one batch held in memory, so that no loader is timed. The host's
//! side is a Rhai script on the engine that every script gets, with a run directory, metrics, progress and metering; the other
//! reads its loss and writes a line at the same steps, and has none of these. Steps alternate within one process: the script
//! calls `tick()` at the beginning of each of its own, where the other loop takes one.

#![allow(clippy::print_stdout)] // Stdout is for results, and these are they.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use clap::Parser;
use dbp_host::data::{Crop, Dataset, Loader, LoaderConfig, Spec};
use dbp_host::host::{Options, Session, engine};
use dbp_host::nn::{DecorOptions, DecorSchedule, Mae, MaeConfig, Place, VitConfig};
use dbp_host::schedule::{Ramp, Schedule};
use dbp_host::train::{AdamWConfig, Optimizer};
use serde_json::json;
use tch::{Device, Kind, Tensor};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A pair is this many steps of each side, one of them with a line of metrics.
const LOG_EVERY: usize = 10;
/// Pairs that are not timed.
const WARM_UP: usize = 2;

/// Batch size, pairs, and how much of a step the script may cost.
const CLAIMS: [(i64, usize, f64); 2] = [(256, 9, 1.01), (8, 41, 1.05)];
const QUICK_PAIRS: usize = 3;

const SCRIPT: &str = r#"
let images = data::open(#{ name: "wirebond", size: 64, count: BATCH });
let model = models::mae(#{
    image_size: 64, patch_size: 8, channels: 2, embed_dim: 128, depth: 4, num_heads: 4,
    decoder_embed_dim: 64, decoder_depth: 2, decoder_num_heads: 4,
});
model.decorrelate(["encoder.**"], #{ lr: 5e-4, schedule: "follow" });
let loader = data::loader(images, #{ batch: BATCH, image_size: 64 });
let held = [];
for batch in loader.micro(0) { held.push(batch); }
let rate = schedule::cosine(#{ lr: 0.006, warmup: 40, total: 400 });
let opt = optim::adamw(model, #{ lr: 0.006 });
let run = run::start(#{ model: model, opt: opt, loader: loader, save_every: 1000000 });
for step in run.steps(STEPS) {
    tick();
    for batch in held {
        model.loss(batch).backward();
    }
    opt.step(rate.at(step));
    model.update_decorrelation();
    run.log(#{ train_loss: model.last_loss() });
    if run.validation_due(step) {
        run.untimed(|r| r.log_layers());
    }
}
"#;

/// Times the loop of a script against the same steps in Rust, and prints a line per batch size
#[derive(Parser)]
#[command(name = "script_loop", bin_name = "cargo bench --bench script_loop --")]
struct Cli {
    /// Try it out: 3 pairs
    #[arg(long)]
    quick: bool,

    /// Processor threads for libtorch; all cores if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// The same loop without a script.
struct Native {
    model: Mae,
    optimizer: Optimizer,
    rate: Schedule,
    images: Tensor,
    place: Place,
    metrics: File,
    step: u64,
}

impl Native {
    fn new(batch: i64, metrics: File) -> Result<Self> {
        let encoder = VitConfig {
            image_size: (64, 64),
            patch_size: 8,
            channels: 2,
            embed_dim: 128,
            depth: 4,
            num_heads: 4,
            mlp_ratio: 4.0,
            drop_path: 0.0,
        };
        let config = MaeConfig {
            encoder,
            decoder_embed_dim: 64,
            decoder_depth: 2,
            decoder_num_heads: 4,
            mask_ratio: 0.75,
            norm_pix: false,
        };
        let model = Mae::new(&config, 0, Kind::Float, Device::Cpu)?;
        let decor = DecorOptions { schedule: DecorSchedule::Follow, ..DecorOptions::paper() };
        model.registry().decorrelate(&["encoder.**".to_owned()], &decor)?;
        let optimizer =
            Optimizer::new(Rc::clone(model.registry()), AdamWConfig { lr: 0.006, ..AdamWConfig::default() })?;
        let dataset = Dataset::open(&Spec::Wirebond { seed: 0, size: 64, count: batch as usize })?;
        let loader = Loader::new(
            dataset,
            LoaderConfig {
                batch: batch as usize,
                micro_batches: 1,
                image_size: (64, 64),
                crop: Crop::Random,
                flip: true,
                seed: 0,
                workers: 1,
            },
        )?;
        let made = loader.micro(0, 0)?;
        let images = Tensor::f_from_slice(&made.pixels)?.f_view(made.shape.map(|n| n as i64))?;
        let place = Place { seed: 0, step: 0, epoch: 0, micro: 0, micro_batches: 1 };
        let rate = Schedule::Cosine(Ramp { peak: 0.006, end: 0.0, warmup: 40, total: 400 });
        Ok(Self { model, optimizer, rate, images, place, metrics, step: 0 })
    }

    fn step(&mut self) -> Result<()> {
        let loss = self.model.loss(&self.images, &self.place)?;
        loss.f_backward()?;
        let lr = self.rate.at(self.step);
        self.optimizer.step(lr)?;
        self.model.registry().update_decorrelation()?;
        self.step += 1;
        if self.step == 1 || self.step.is_multiple_of(LOG_EVERY as u64) {
            let decor_loss = self.model.registry().decor_loss()?.map(|loss| loss.f_double_value(&[])).transpose()?;
            let line = json!({
                "step": self.step, "train_loss": loss.f_double_value(&[])?, "lr": lr, "decor_loss": decor_loss,
                "decor_lr": self.model.registry().decor_rate(),
            });
            writeln!(self.metrics, "{line}")?;
        }
        Ok(())
    }
}

/// Both sides, and how long their steps took.
struct Race {
    native: Native,
    native_secs: Vec<f64>,
    script_secs: Vec<f64>,
    /// When the script's step began.
    began: Option<Instant>,
}

impl Race {
    /// The script is at the beginning of a step: one of the other loop comes first.
    fn tick(&mut self) -> Result<()> {
        if let Some(began) = self.began {
            self.script_secs.push(began.elapsed().as_secs_f64());
        }
        let began = Instant::now();
        self.native.step()?;
        self.native_secs.push(began.elapsed().as_secs_f64());
        self.began = Some(Instant::now());
        Ok(())
    }

    /// Script over native for every pair, after the warm-up; and the median steps of both.
    fn ratios(&self) -> (Vec<f64>, f64, f64) {
        let sums = |secs: &[f64]| -> Vec<f64> {
            secs.chunks_exact(LOG_EVERY).skip(WARM_UP).map(|steps| steps.iter().sum()).collect()
        };
        let (script, native) = (sums(&self.script_secs), sums(&self.native_secs));
        let each = |sums: &[f64]| quantile(sums, 0.5) / LOG_EVERY as f64;
        let ratios = script.iter().zip(&native).map(|(script, native)| script / native).collect();
        (ratios, each(&script), each(&native))
    }
}

fn race(batch: i64, pairs: usize, bound: f64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let steps = (pairs + WARM_UP) * LOG_EVERY + 1;
    let text = SCRIPT.replace("BATCH", &batch.to_string()).replace("STEPS", &steps.to_string());
    let path = folder.path().join("loop.rhai");
    std::fs::write(&path, &text)?;
    let mut options = Options::new(&path);
    options.runs = folder.path().join("runs");
    let session = Session::new(options).map_err(|err| err.to_string())?;
    let race = Rc::new(RefCell::new(Race {
        native: Native::new(batch, File::create(folder.path().join("metrics.jsonl"))?)?,
        native_secs: Vec::new(),
        script_secs: Vec::new(),
        began: None,
    }));
    let at_tick = Rc::clone(&race);
    let engine = engine::build_with(&session, |engine| {
        let tick = move || at_tick.borrow_mut().tick().map_err(|err| err.to_string().into());
        engine.register_fn("tick", move || -> std::result::Result<(), Box<rhai::EvalAltResult>> { tick() });
    });
    engine.run(&text).map_err(|err| err.to_string())?;
    let (ratios, script, native) = race.borrow().ratios();
    let [low, median, high] = [0.25, 0.5, 0.75].map(|at| quantile(&ratios, at));
    let verdict = if median <= bound { "within" } else { "ABOVE" };
    println!(
        "ratio loop_script_over_native/nano/{batch} {median:.4}   bound {bound:.3} {verdict}   quartiles {low:.4} {high:.4}   \
         median of {} pairs of {LOG_EVERY} steps, {:.2} ms and {:.2} ms a step",
        ratios.len(),
        1e3 * script,
        1e3 * native,
    );
    Ok(())
}

/// Linear between the two values next to it.
fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = at * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + place.fract() * (high - low)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cli.threads.map_or(cores, usize::from);
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    println!(
        "# dbp-host {}, libtorch {}, CPU, {threads} of {cores} cores",
        env!("CARGO_PKG_VERSION"),
        env!("DBP_LIBTORCH_VERSION")
    );
    for (batch, pairs, bound) in CLAIMS {
        if let Err(err) = race(batch, if cli.quick { QUICK_PAIRS } else { pairs }, bound) {
            eprintln!("loop_script_over_native/nano/{batch}: {err}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
