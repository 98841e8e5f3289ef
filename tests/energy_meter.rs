//! RAPL's counters and the whole meter against a machine made of files: totals agree with what was drawn, and what cannot be
//! read is a gap with its reason. Sensors get their time as an argument; where the meter's thread is at work, a test waits for
//! its answer and never for time to pass.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dbp_host::energy::account::{Account, Channel, Moment};
use dbp_host::energy::config::{Config, Places, Sources};
use dbp_host::energy::cpu::{DesignPower, LoadModel};
use dbp_host::energy::emissions::{About, COLUMNS, row};
use dbp_host::energy::meter::Meter;
use dbp_host::energy::nvml::GpuChoice;
use dbp_host::energy::rapl::{Rapl, find};
use dbp_host::energy::reading::Reading;
use dbp_host::energy::sensor::{Polled, Sensor};
use dbp_host::energy::units::{GramsPerKwh, Watts};

#[path = "common/machine.rs"]
mod machine;
use machine::{Nvml, Powercap, Proc, RANGE_UJ};

const MODEL: &str = "AMD EPYC 7763 64-Core Processor";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn moment(seconds: u64) -> Moment {
    Moment { now: at(seconds), active: at(seconds) }
}

fn two_packages() -> Powercap {
    let powercap = Powercap::new();
    powercap.zone("intel-rapl:0", "package-0", 5_000_000_000).zone("intel-rapl:1", "package-1", 90_000_000_000);
    powercap
}

fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-3 * expected.abs(), "{found} instead of {expected}");
}

#[test]
fn packages_are_found_and_their_parts_and_doubles_are_not() {
    let powercap = two_packages();
    powercap
        .zone("intel-rapl:0:0", "core", 1)
        .zone("intel-rapl:0:1", "dram", 2)
        .zone("intel-rapl:2", "psys", 300_000_000_000)
        .zone("intel-rapl-mmio:0", "package-0", 7_000_000_000)
        .zone("intel-rapl:3", "package-0-die-1", 5_000_400_000);
    let found = find(powercap.path());
    let names: Vec<&str> = found.readable.iter().map(|zone| zone.name.as_str()).collect();
    assert_eq!(names, ["package-0", "package-1"]);
    assert_eq!(found.mirrors.len(), 1);
    assert_eq!((found.mirrors[0].0.name.as_str(), found.mirrors[0].1.as_str()), ("package-0-die-1", "package-0"));
    assert!(found.refused.is_empty());
    // As a container sees it that has the devices' own folder mounted.
    let nested = Powercap::new();
    nested.zone("intel-rapl/intel-rapl:0", "package-0", 1_000_000);
    assert_eq!(find(nested.path()).readable.len(), 1);
    assert!(find(Path::new("/nonexistent")).readable.is_empty());
}

#[test]
fn counters_of_two_packages_add_up_through_a_wrap() {
    let powercap = two_packages();
    let mut rapl = Rapl::new(&find(powercap.path())).unwrap();
    assert_eq!(rapl.source().text, "RAPL package-0, package-1");
    assert_eq!(rapl.poll(at(0)), Polled::Begins);
    // 150 W and 90 W for an hour and a half: the first wraps three times.
    let mut total = 0.0;
    for second in 1..=5400 {
        powercap.set("intel-rapl:0", (5_000_000_000 + second * 150_000_000) % RANGE_UJ);
        powercap.set("intel-rapl:1", (90_000_000_000 + second * 90_000_000) % RANGE_UJ);
        let Polled::Used(joules) = rapl.poll(at(second)) else { panic!("at {second} s") };
        total += joules.0;
    }
    assert_near(total, 240.0 * 5400.0);
}

#[test]
fn a_package_that_cannot_be_read_for_a_moment_loses_nothing() {
    let powercap = two_packages();
    let mut rapl = Rapl::new(&find(powercap.path())).unwrap();
    rapl.poll(at(0));
    powercap.set("intel-rapl:0", 5_010_000_000);
    let counter = powercap.counter("intel-rapl:1");
    fs::remove_file(&counter).unwrap();
    let Polled::Missed(why) = rapl.poll(at(1)) else { panic!() };
    assert!(why.contains("energy_uj is gone"), "{why}");
    fs::write(&counter, "not a number\n").unwrap();
    powercap.set("intel-rapl:0", 5_012_000_000);
    assert!(matches!(rapl.poll(at(2)), Polled::Missed(why) if why.contains("not a number")));
    powercap.set("intel-rapl:1", 90_020_000_000);
    powercap.set("intel-rapl:0", 5_015_000_000);
    let Polled::Used(joules) = rapl.poll(at(3)) else { panic!() };
    assert_near(joules.0, 35_000.0 / 1000.0);
}

#[test]
fn a_counter_that_starts_anew_is_a_gap() {
    let powercap = two_packages();
    let (mut account, rapl) = (Account::default(), Rapl::new(&find(powercap.path())).unwrap());
    let mut channel = Channel::new(vec![Box::new(rapl)], at(2));
    for second in 0..=10 {
        // The machine slept between 4 s and 5 s: both begin at 0.
        let since = |start: u64| if second < 5 { start + second * 100_000_000 } else { (second - 5) * 100_000_000 };
        powercap.set("intel-rapl:0", since(5_000_000_000));
        powercap.set("intel-rapl:1", since(90_000_000_000));
        channel.poll(moment(second), &mut account);
    }
    assert_near(account.joules().unwrap().0, 200.0 * 9.0);
    assert_eq!((account.gap_s, account.resets), (1.0, 1));
    assert!(account.problem.unwrap().contains("the counter"));
}

#[test]
fn where_a_zone_vanishes_the_model_takes_over() {
    let (powercap, proc) = (two_packages(), Proc::new(MODEL));
    let rapl = Rapl::new(&find(powercap.path())).unwrap();
    let design = DesignPower { watts: Watts(500.0), text: "given".into() };
    let model = LoadModel::new(design, proc.path()).unwrap();
    let mut account = Account::default();
    let mut channel = Channel::new(vec![Box::new(rapl), Box::new(model)], at(2));
    for second in 0..=20 {
        if second == 8 {
            powercap.remove("intel-rapl:1");
        }
        powercap.set("intel-rapl:0", 5_000_000_000 + second * 60_000_000);
        if second < 8 {
            powercap.set("intel-rapl:1", 90_000_000_000 + second * 40_000_000);
        }
        proc.jiffies(second * 200, second * 200); // Load one half.
        channel.poll(moment(second), &mut account);
    }
    let parts: Vec<(bool, f64)> = account.parts.iter().map(|part| (part.measured, part.joules.0)).collect();
    // Seven seconds measured; lost from 7 s to 10 s, when it was given up; ten seconds of 500 W × (0.1 + 0.9/8).
    assert_near(parts[0].1, 700.0);
    assert_near(parts[1].1, 10.0 * 500.0 * 0.2125);
    assert_eq!((parts[0].0, parts[1].0, account.gap_s, account.missed_reads), (true, false, 3.0, 3));
    assert!(account.problem.unwrap().contains("is gone"));
}

/// A meter that polls when it is asked, on this machine.
struct Bench {
    powercap: Powercap,
    proc: Proc,
    nvml: Nvml,
}

impl Bench {
    fn new() -> Self {
        let mut nvml = Nvml::new();
        nvml.gpu(1, "NVIDIA A100-SXM4-40GB", "GPU-8a6e1f00-2222", "00000000:CA:00.0");
        Self { powercap: two_packages(), proc: Proc::new(MODEL), nvml }
    }

    fn config(&self) -> Config {
        let mut config = Config::new(Places {
            powercap: self.powercap.path().into(),
            proc: self.proc.path().into(),
            nvml: Some(self.nvml.library()),
        });
        config.gpus = GpuChoice::All;
        config.given = Some(GramsPerKwh(500.0));
        config.interval = Duration::from_secs(60); // Its own polls stay away.
        config
    }

    fn sensors_only(&self) -> Config {
        Config { sources: Sources::Measured, ..self.config() }
    }

    /// Draws so much since the machine started: processors, first and second GPU, in joules.
    fn draw(&mut self, cpu: u64, gpus: [u64; 2]) {
        self.powercap.set("intel-rapl:0", 5_000_000_000 + (cpu - cpu / 2) * 1_000_000);
        self.powercap.set("intel-rapl:1", 90_000_000_000 + cpu / 2 * 1_000_000);
        for (index, joules) in gpus.into_iter().enumerate() {
            self.nvml.set(&format!("{index}.energy_mj"), 5_000_000 + joules * 1000);
        }
    }
}

fn joules(reading: &Reading) -> [Option<f64>; 3] {
    reading.components().map(|(_, account)| account.joules().map(|joules| joules.0))
}

#[test]
fn a_meter_adds_up_components_and_leaves_out_what_is_not_training() {
    let mut bench = Bench::new();
    let mut config = bench.sensors_only();
    config.pue = 1.5;
    let meter = Meter::start(&config, None);
    assert_eq!(joules(&meter.reading()), [Some(0.0), Some(0.0), None], "nothing measures memory");
    meter.reading();
    meter.resume();
    bench.draw(600, [1800, 0]);
    meter.pause();
    let first = meter.reading();
    // What passed between the poll and `resume` is a share of microseconds in milliseconds, not of the test's patience.
    let [Some(cpu), Some(gpu), None] = joules(&first) else { panic!("{first:?}") };
    assert!(cpu > 0.0 && cpu <= 600.0 && (gpu / cpu - 3.0).abs() < 1e-9, "{cpu} {gpu}");
    // Validation: it draws, and does not count.
    bench.draw(1400, [3600, 900]);
    let validated = meter.reading();
    assert_eq!(joules(&validated), joules(&first));
    // And training again, with the second GPU.
    meter.resume();
    bench.draw(1900, [3600, 1000]);
    let again = meter.stop();
    let [Some(cpu_again), Some(gpu_again), None] = joules(&again) else { panic!() };
    assert!(cpu_again > cpu && cpu_again <= cpu + 500.0 && gpu_again > gpu && gpu_again <= gpu + 100.0);
    assert_eq!(again.measured_share(), Some(1.0));
    assert_near(again.energy().unwrap().0, (cpu_again + gpu_again) * 1.5);
    assert_near(again.co2_kg().unwrap(), (cpu_again + gpu_again) * 1.5 / 3.6e6 * 0.5);
    assert_eq!(meter.machine().gpus.len(), 2);
}

#[test]
fn a_meter_that_trains_all_the_time_counts_all_energy() {
    let mut bench = Bench::new();
    let config = bench.sensors_only();
    let meter = Meter::start(&config, None);
    meter.resume();
    let before = meter.reading();
    bench.draw(900, [40, 60]);
    let after = meter.reading();
    let difference = |i: usize| joules(&after)[i].unwrap() - joules(&before)[i].unwrap();
    assert_near(difference(0), 900.0);
    assert_near(difference(1), 100.0);
}

#[test]
fn a_run_that_is_carried_on_adds_to_what_it_had_come_to() {
    let mut bench = Bench::new();
    let config = bench.sensors_only();
    let meter = Meter::start(&config, None);
    meter.resume();
    meter.reading();
    bench.draw(1000, [0, 0]);
    let first = meter.stop();
    drop(meter);
    bench.draw(9000, [0, 0]); // Drawn while nothing ran.
    // As a checkpoint keeps it.
    let kept: Reading = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    assert_eq!(kept, first);
    let meter = Meter::start(&config, Some(kept));
    assert_eq!(joules(&meter.reading()), joules(&first));
    meter.resume();
    let before = meter.reading();
    bench.draw(9500, [0, 0]);
    let second = meter.reading();
    assert_near(joules(&second)[0].unwrap() - joules(&before)[0].unwrap(), 500.0);
    assert!(second.co2_kg() > first.co2_kg() && second.totals.active_s > first.totals.active_s);
}

#[test]
fn models_stand_in_for_sensors_and_say_so() {
    let bench = Bench::new();
    let mut config = bench.config();
    config.sources = Sources::Estimated;
    let meter = Meter::start(&config, None);
    meter.resume();
    let reading = meter.stop();
    let sources: Vec<&str> =
        reading.components().iter().flat_map(|(_, account)| account.parts.iter().map(|p| p.source.as_str())).collect();
    assert_eq!(sources, ["560 W × (0.1 + 0.9 load³): 2 × AMD EPYC 7763", "38 W: 8 modules, guessed from 125 GiB"]);
    assert!(joules(&reading)[1].is_none() && meter.machine().gpus.is_empty(), "there is no model of GPUs");
}

#[test]
fn a_lost_gpu_leaves_a_gap_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    let mut config = bench.sensors_only();
    config.interval = Duration::from_millis(100); // After ten of these without an answer it is given up.
    let meter = Meter::start(&config, None);
    meter.resume();
    bench.draw(100, [10, 10]);
    let whole = meter.reading();
    for answer in ["1.energy", "1.power"] {
        bench.nvml.set(answer, 15); // NVML_ERROR_GPU_IS_LOST
    }
    bench.draw(200, [20, 20]);
    let first = meter.reading();
    assert!(first.waiting && first.totals.gpu.gap_s > 0.0, "it may come back");
    // The others go on drawing: a counter that stands still has failed too.
    let mut more = 0;
    let last = loop {
        more += 1;
        bench.draw(300 + more, [40 + more, 40]);
        let reading = meter.reading();
        if !reading.waiting {
            break reading;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_near(joules(&last)[0].unwrap() - joules(&whole)[0].unwrap(), (200 + more) as f64);
    assert_near(joules(&last)[1].unwrap() - joules(&whole)[1].unwrap(), (30 + more) as f64);
    assert!(last.totals.gpu.gap_s > 0.0 && last.totals.gpu.missed_reads >= 3);
    assert!(last.totals.gpu.problem.unwrap().contains("lost"));
    assert_eq!(last.totals.cpu.gap_s, 0.0);
}

#[test]
fn a_gpu_that_cannot_be_opened_is_a_gap_and_no_zero() {
    let bench = Bench::new();
    let mut config = bench.sensors_only();
    config.gpus = GpuChoice::Bus(vec!["0000:99:00.0".into()]);
    let meter = Meter::start(&config, None);
    meter.resume();
    meter.reading();
    let reading = meter.stop();
    assert!(reading.totals.gpu.gap_s > 0.0 && reading.totals.gpu.gap_s <= reading.totals.active_s, "{reading:?}");
    assert!(reading.totals.gpu.problem.as_ref().unwrap().contains("99:00.0"), "{reading:?}");
    assert!(joules(&reading)[1].is_none() && meter.machine().problems.len() == 1);
    let row = row(&About::default(), &reading, &meter.machine());
    for column in ["gpu_energy", "gpu_power", "gpu_utilization_percent"] {
        assert_eq!(row[COLUMNS.iter().position(|name| *name == column).unwrap()], "", "{column}");
    }
    // Models only: a GPU has none.
    config.sources = Sources::Estimated;
    config.gpus = GpuChoice::All;
    let meter = Meter::start(&config, None);
    assert!(meter.machine().unread_gpus.as_ref().unwrap().contains("no model of a GPU"));
}

#[test]
fn sensors_that_hang_hold_up_no_reading_and_leave_a_gap() {
    let mut bench = Bench::new();
    let config = bench.sensors_only();
    let meter = Meter::start(&config, None);
    meter.resume();
    let before = meter.reading();
    assert!(!before.waiting);
    bench.nvml.set("sleep_ms", 30_000);
    let during = meter.reading();
    assert!(during.waiting, "the figures are old: a line has none");
    assert!(during.totals.active_s > before.totals.active_s && during.totals.cpu.gap_s > 0.0);
    assert!((during.totals.cpu.gap_s - (during.totals.active_s - before.totals.active_s)).abs() < 1e-9);
    assert_eq!(during.totals.cpu.problem.as_deref(), Some("the sensors do not answer"));
    assert_eq!(joules(&during), joules(&before));
}

#[test]
fn a_driver_that_hangs_from_the_start_is_said() {
    let mut bench = Bench::new();
    bench.nvml.set("sleep_ms", 30_000);
    let meter = Meter::start(&bench.config(), None);
    assert!(meter.machine().problems[0].contains("the sensors do not answer"));
    let reading = meter.reading();
    assert!(reading.waiting && reading.energy().is_none());
}

#[test]
fn another_overhead_or_grid_does_not_change_what_was_counted_before() {
    let mut bench = Bench::new();
    let mut config = bench.sensors_only();
    let meter = Meter::start(&config, None);
    meter.resume();
    meter.reading();
    bench.draw(1000, [0, 0]);
    let first = meter.reading();
    drop(meter);
    (config.pue, config.given) = (2.0, Some(GramsPerKwh(100.0)));
    let meter = Meter::start(&config, Some(first.clone()));
    assert_eq!(meter.reading().energy(), first.energy());
    meter.resume();
    let before = meter.reading();
    bench.draw(1500, [0, 0]);
    let second = meter.reading();
    assert_near(second.energy().unwrap().0 - before.energy().unwrap().0, 1000.0);
    assert_near(second.co2_kg().unwrap() - before.co2_kg().unwrap(), 1000.0 / 3.6e6 * 0.1);
    assert_near(joules(&second)[0].unwrap() - joules(&before)[0].unwrap(), 500.0);
}
