//! What metering costs: the sampler's share of a core at one poll a second, on the sensors that this machine has, and what a
//! step pays for starting and pausing its meter.
//!
//!     cargo bench --bench sampler [-- --seconds 60]

#![allow(clippy::print_stdout)] // What a bench is for.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use dbp_host::energy::config::{Config, Places};
use dbp_host::energy::meter::Meter;
use dbp_host::energy::nvml::GpuChoice;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let given = args.iter().position(|arg| arg == "--seconds").and_then(|at| args.get(at + 1)?.parse().ok());
    let quick = args.iter().any(|arg| arg == "--quick");
    let seconds: u64 = given.unwrap_or(if quick { 5 } else { 60 });

    let mut config = Config::new(Places::from_env());
    config.gpus = GpuChoice::All;
    let meter = Meter::start(&config, None);
    meter.resume();
    thread::sleep(Duration::from_secs(2)); // Past the first polls, which find files and libraries.
    let (before, began) = (sampler_time(), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (after, wall) = (sampler_time(), began.elapsed());
    let sources: Vec<String> = meter
        .reading()
        .components()
        .iter()
        .flat_map(|(_, account)| account.parts.iter().map(|part| part.source.clone()))
        .collect();
    match (before, after) {
        (Some(before), Some(after)) => {
            let share = (after - before).as_secs_f64() / wall.as_secs_f64();
            let polls = wall.as_secs_f64() / config.interval.as_secs_f64();
            let each = (after - before).as_secs_f64() / polls * 1e6;
            println!(
                "ratio sampler_over_core {share:.6} bound 0.001 {}   {each:.0} µs a poll, {seconds} s, {}",
                if share <= 0.001 { "within" } else { "ABOVE" },
                sources.join("; ")
            );
        }
        _ => println!("skipped sampler_over_core: this system does not tell a thread's processor time"),
    }

    let mut waits: Vec<f64> = (0..200)
        .map(|_| {
            let began = Instant::now();
            meter.reading();
            began.elapsed().as_secs_f64()
        })
        .collect();
    waits.sort_by(f64::total_cmp);
    println!("count reading {:.0} µs   median of 200; a logged line waits so long, off the clock", waits[100] * 1e6);

    const PAIRS: u32 = 100_000;
    let began = Instant::now();
    for _ in 0..PAIRS {
        meter.pause();
        meter.resume();
    }
    let each = began.elapsed().as_secs_f64() / f64::from(PAIRS);
    println!("count pause_and_resume {:.0} ns   a step of 100 ms pays {:.7} of itself", each * 1e9, each / 0.1);
}

/// Processor time of the thread named `energy`, in all.
fn sampler_time() -> Option<Duration> {
    let tasks = fs::read_dir("/proc/self/task").ok()?;
    let is_sampler =
        |folder: &std::path::Path| fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.trim() == "energy");
    let folder = tasks.flatten().map(|task| task.path()).find(|folder| is_sampler(folder))?;
    let text = fs::read_to_string(folder.join("schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
