//! Energy of GPUs, against a library that says what a test tells it to (`tests/fake_nvml/nvml.c`): the binding, the choice
//! of GPUs and what becomes of failures are the real ones. Time is an argument; nothing waits.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::f64::consts::TAU;
use std::fs;
use std::time::Duration;

use dbp_host::energy::nvml::{self, Gpu, GpuChoice, GpuSensor, Gpus, NO_DRIVER};
use dbp_host::energy::sensor::{Kind, Polled, Sensor};

#[path = "common/machine.rs"]
mod machine;
use machine::Nvml as Fake;

const SECOND: Duration = Duration::from_secs(1);

// NVML's return codes.
const NOT_SUPPORTED: u32 = 3;
const NO_PERMISSION: u32 = 4;
const DRIVER_NOT_LOADED: u32 = 9;
const GPU_IS_LOST: u32 = 15;
const UNKNOWN: u32 = 999;

/// The machine with NVIDIA GPUs that a test sets up.
trait Opened {
    fn open(&self, choice: &GpuChoice) -> Gpus;
    /// The only GPU.
    fn only(&self) -> Gpu;
}

impl Opened for Fake {
    fn open(&self, choice: &GpuChoice) -> Gpus {
        nvml::open(Some(&self.library()), choice, SECOND)
    }

    fn only(&self) -> Gpu {
        let Gpus { mut gpus, problems } = self.open(&GpuChoice::All);
        assert!(gpus.len() == 1 && problems.is_empty(), "{gpus:?} {problems:?}");
        gpus.pop().unwrap()
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn used(polled: Polled) -> f64 {
    let Polled::Used(joules) = polled else { panic!("expected energy, got {polled:?}") };
    joules.0
}

fn text(sensor: &GpuSensor) -> String {
    let source = sensor.source();
    assert_eq!(source.kind, Kind::Measured);
    source.text
}

fn indices(gpus: &Gpus) -> Vec<u32> {
    gpus.gpus.iter().map(|gpu| gpu.index).collect()
}

fn bus(ids: &[&str]) -> GpuChoice {
    GpuChoice::Bus(ids.iter().map(|id| (*id).to_owned()).collect())
}

/// A load that goes up and down every 20 s, in watts.
fn power(t: f64) -> f64 {
    200.0 + 100.0 * (TAU * t / 20.0).sin()
}

/// Its integral from 0, in joules.
fn energy(t: f64) -> f64 {
    200.0 * t + 100.0 * 20.0 / TAU * (1.0 - (TAU * t / 20.0).cos())
}

fn assert_close(total: f64, expected: f64) {
    assert!((total / expected - 1.0).abs() < 1e-3, "{total} J, expected {expected} J");
}

#[test]
fn the_counter_counts_what_a_load_draws() {
    let mut fake = Fake::new();
    fake.set("0.busy_percent", 87);
    let mut gpu = fake.only();
    assert_eq!((gpu.name.as_str(), gpu.uuid.as_str(), gpu.mig), ("NVIDIA A100-SXM4-40GB", "GPU-8a6e1f00-1111", false));
    assert_eq!(gpu.bus_id, "00000000:65:00.0");
    let sensor = &mut gpu.sensors[0];
    assert_eq!(text(sensor), "NVML energy counter, NVIDIA A100-SXM4-40GB");
    let mut count = |t: u64| fake.set("0.energy_mj", 5_000_000 + (energy(t as f64) * 1e3).round() as u64);
    count(3);
    assert_eq!(sensor.poll(at(3)), Polled::Begins);
    let mut total = 0.0;
    for t in (18..=138).step_by(15) {
        count(t);
        total += used(sensor.poll(at(t)));
    }
    assert_close(total, energy(138.0) - energy(3.0));
    assert_eq!(sensor.utilization(), Some(87.0));
}

#[test]
fn without_a_counter_power_is_integrated() {
    let mut fake = Fake::new();
    fake.set("0.energy", NOT_SUPPORTED);
    let mut gpu = fake.only();
    assert_eq!(gpu.sensors.len(), 1);
    let sensor = &mut gpu.sensors[0];
    assert_eq!(text(sensor), "NVML power every 1 s, NVIDIA A100-SXM4-40GB");
    assert_eq!(sensor.utilization(), None, "not supported either");
    // A ramp from 100 W by 10 W each second, looked at in uneven steps: exact.
    let mut total = 0.0;
    for t in [0, 1, 2, 5, 6, 10] {
        fake.set("0.power_mw", 100_000 + 10_000 * t);
        match sensor.poll(at(t)) {
            Polled::Begins => assert_eq!(t, 0),
            polled => total += used(polled),
        }
    }
    assert!((total - (100.0 * 10.0 + 10.0 * 100.0 / 2.0)).abs() < 1e-9, "{total}");
}

#[test]
fn power_that_swings_is_integrated_to_a_thousandth() {
    let mut fake = Fake::new();
    fake.set("0.energy", NO_PERMISSION); // The counter alone is forbidden.
    let mut gpu = fake.only();
    let mut total = 0.0;
    for t in 0..=47 {
        fake.set("0.power_mw", (power(t as f64) * 1e3).round() as u64);
        match gpu.sensors[0].poll(at(t)) {
            Polled::Begins => assert_eq!(t, 0),
            polled => total += used(polled),
        }
    }
    assert_close(total, energy(47.0));
}

#[test]
fn an_old_driver_that_lacks_calls_is_asked_for_power() {
    let fake = Fake::compiled(&["-DOLD"]);
    let mut gpu = fake.only();
    assert_eq!((gpu.sensors.len(), gpu.mig), (1, false));
    assert_eq!(text(&gpu.sensors[0]), "NVML power every 1 s, NVIDIA A100-SXM4-40GB");
    assert_eq!(gpu.sensors[0].poll(at(0)), Polled::Begins);
    assert_eq!(gpu.sensors[0].utilization(), None);
    let inspected = nvml::inspect(Some(&fake.library()));
    let problem = inspected.gpus[0].counter.clone().unwrap_err();
    assert_eq!(problem.to_string(), "energy counter: the driver is too old to offer it; update the NVIDIA driver");
    let gone = fake.open(&GpuChoice::Listed(vec!["MIG-5".into(), "0".into()]));
    assert_eq!(indices(&gone), [0], "the only GPU");
}

#[test]
fn a_counter_that_starts_anew_loses_that_span_alone() {
    let mut fake = Fake::new();
    let mut gpu = fake.only();
    let sensor = &mut gpu.sensors[0];
    assert_eq!(sensor.poll(at(0)), Polled::Begins);
    fake.set("0.energy_mj", 5_003_000);
    assert_eq!(used(sensor.poll(at(15))), 3.0);
    fake.set("0.energy_mj", 40); // The driver was loaded again.
    assert!(matches!(sensor.poll(at(30)), Polled::Reset(_)));
    fake.set("0.energy_mj", 7_040);
    assert_eq!(used(sensor.poll(at(45))), 7.0);
}

#[test]
fn a_counter_that_fails_once_covers_the_span_later() {
    let mut fake = Fake::new();
    let mut gpu = fake.only();
    let sensor = &mut gpu.sensors[0];
    assert_eq!(sensor.poll(at(0)), Polled::Begins);
    // Once it has answered, even "not supported" is a miss: whoever polls decides when to take the next sensor.
    for code in [UNKNOWN, NOT_SUPPORTED] {
        fake.set("0.energy", code);
        assert!(matches!(sensor.poll(at(15)), Polled::Missed(_)));
    }
    fake.set("0.energy", 0);
    fake.set("0.energy_mj", 5_009_000);
    assert_eq!(used(sensor.poll(at(30))), 9.0);
    // One that happens to fail when it is opened is not given up for power.
    fake.set("0.energy", UNKNOWN);
    let mut gpu = fake.only();
    assert!(matches!(gpu.sensors[0].poll(at(0)), Polled::Missed(_)));
    fake.set("0.energy", 0);
    assert_eq!(gpu.sensors[0].poll(at(15)), Polled::Begins);
}

#[test]
fn power_that_fails_once_ends_its_span() {
    let mut fake = Fake::new();
    let mut gpu = fake.only();
    let sensor = &mut gpu.sensors[1];
    assert_eq!(sensor.poll(at(0)), Polled::Begins);
    fake.set("0.power", UNKNOWN);
    let why = "the driver failed and does not say why".to_owned();
    assert_eq!(sensor.poll(at(1)), Polled::Missed(why.clone()));
    fake.set("0.power", 0);
    assert_eq!(sensor.poll(at(2)), Polled::Unknown(why));
    assert_eq!(used(sensor.poll(at(3))), 60.0);
}

#[test]
fn a_lost_gpu_says_so_and_the_other_goes_on() {
    let mut fake = Fake::new();
    fake.gpu(1, "NVIDIA A100-SXM4-40GB", "GPU-9b", "00000000:CA:00.0");
    let mut gpus = fake.open(&GpuChoice::All).gpus;
    let [first, second] = gpus.as_mut_slice() else { panic!("{gpus:?}") };
    for sensor in first.sensors.iter_mut().chain(&mut second.sensors) {
        assert_eq!(sensor.poll(at(0)), Polled::Begins);
    }
    for what in ["energy", "power", "busy"] {
        fake.set(&format!("0.{what}"), GPU_IS_LOST);
    }
    fake.set("1.energy_mj", 5_100_000);
    for sensor in &mut first.sensors {
        let Polled::Missed(why) = sensor.poll(at(1)) else { panic!() };
        assert_eq!(why, "the GPU is lost: it fell off the bus or its driver gave it up");
        assert_eq!(sensor.utilization(), None);
    }
    assert_eq!(used(second.sensors[0].poll(at(1))), 100.0);
    // A meter made now learns of it at once.
    fake.set("0.open", GPU_IS_LOST);
    let later = fake.open(&GpuChoice::All);
    assert_eq!(indices(&later), [1]);
    let [problem] = later.problems.as_slice() else { panic!("{later:?}") };
    assert!(problem.starts_with("GPU 0 cannot be opened: the GPU is lost"), "{problem}");
}

#[test]
fn one_of_two_gpus_is_chosen() {
    let mut fake = Fake::new();
    fake.gpu(1, "NVIDIA H100 PCIe", "GPU-8a6e2f00-2222", "00000001:CA:00.0");
    let listed = |text: &str| nvml::visible_from_env(Some(text));
    let cases = [
        (GpuChoice::All, vec![0, 1]),
        (GpuChoice::None, vec![]),
        (bus(&["0001:ca:00.0"]), vec![1]),
        (bus(&["0000:65:00.0"]), vec![0]),
        (bus(&["0001:CA:00.0", "0000:65:00.0"]), vec![1, 0]),
        (listed("1"), vec![1]),
        (listed("1,0"), vec![1, 0]),
        (listed("GPU-8a6e2"), vec![1]),
        (listed("GPU-8a6e1f00-1111"), vec![0]),
        (listed(""), vec![]),
    ];
    for (choice, expected) in cases {
        let gpus = fake.open(&choice);
        assert_eq!((indices(&gpus), gpus.problems.len()), (expected, 0), "{choice:?} {gpus:?}");
    }
    // What fits nothing is said, and ends a list; two that fit are none.
    let cases = [
        (bus(&["0000:CA:00.0"]), vec![], "NVML finds no GPU at 0000:CA:00.0 on the bus: there are 2 GPUs"),
        (listed("1,7,0"), vec![1], "NVML finds no GPU named 7, by --gpus or CUDA_VISIBLE_DEVICES: there are 2 GPUs"),
        (
            listed("GPU-8a6e"),
            vec![],
            "NVML finds no GPU named GPU-8a6e, by --gpus or CUDA_VISIBLE_DEVICES: there are 2 GPUs",
        ),
        (listed("MIG-5"), vec![], "NVML finds no GPU named MIG-5, by --gpus or CUDA_VISIBLE_DEVICES: there are 2 GPUs"),
    ];
    for (choice, expected, problem) in cases {
        let gpus = fake.open(&choice);
        assert_eq!(indices(&gpus), expected);
        assert_eq!(gpus.problems, [problem]);
    }
    // Another's GPU that cannot be opened is no problem of ours.
    fake.set("0.open", NO_PERMISSION);
    assert!(fake.open(&listed("GPU-8a6e2")).problems.is_empty());
    assert_eq!(fake.open(&GpuChoice::All).problems.len(), 1);
    // Two instances of the library's user, as of two meters, stand side by side.
    let (mut one, mut two) = (fake.open(&listed("1")), fake.open(&listed("1")));
    drop((one.gpus[0].sensors[0].poll(at(0)), two.gpus[0].sensors[0].poll(at(0))));
    drop(one);
    fake.set("1.energy_mj", 5_001_000);
    assert_eq!(used(two.gpus[0].sensors[0].poll(at(1))), 1.0);
}

#[test]
fn an_instance_is_measured_as_its_whole_gpu() {
    for flags in [&[] as &[&str], &["-DNO_MIG_UUID"]] {
        let mut fake = Fake::compiled(flags);
        fake.gpu(1, "NVIDIA A100-SXM4-40GB", "GPU-9b", "00000000:CA:00.0");
        fake.set("1.mig", 1);
        fake.set("1.mig.0", "MIG-c0ffee00-0000");
        fake.set("1.mig.2", "MIG-c0ffee02-2222");
        for entries in ["MIG-c0ffee02-2222", "MIG-c0ffee02", "MIG-c0ffee02-2222,MIG-c0ffee00", "MIG-GPU-9b/2/0"] {
            let mut gpus = fake.open(&nvml::visible_from_env(Some(entries)));
            assert_eq!((indices(&gpus), gpus.problems.len()), (vec![1], 0), "{entries} {gpus:?}");
            assert!(gpus.gpus[0].mig);
            let texts: Vec<String> = gpus.gpus[0].sensors.iter().map(text).collect();
            assert_eq!(texts[0], "NVML energy counter, NVIDIA A100-SXM4-40GB (whole GPU, MIG on)");
            assert_eq!(texts[1], "NVML power every 1 s, NVIDIA A100-SXM4-40GB (whole GPU, MIG on)");
            assert_eq!(gpus.gpus[0].sensors[0].poll(at(0)), Polled::Begins);
        }
    }
}

#[test]
fn what_is_forbidden_is_a_problem_with_its_fix() {
    let mut fake = Fake::new();
    fake.set("0.energy", NO_PERMISSION);
    fake.set("0.power", NO_PERMISSION);
    let gpus = fake.open(&GpuChoice::All);
    assert!(gpus.gpus.is_empty());
    assert_eq!(
        gpus.problems,
        [
            "GPU 0, NVIDIA A100-SXM4-40GB: neither its energy counter (permission denied) nor its power (permission denied) \
          can be read; in a container, NVIDIA_DRIVER_CAPABILITIES must include utility"
        ]
    );
    fake.set("0.open", NO_PERMISSION);
    let expected =
        "GPU 0 cannot be opened: permission denied; in a container, NVIDIA_DRIVER_CAPABILITIES must include utility";
    assert_eq!(fake.open(&GpuChoice::All).problems, [expected]);
    let found = fake.open(&bus(&["0000:65:00.0"])).problems;
    assert!(found[0].contains("GPU 0 cannot be opened: permission denied; in a container"), "{found:?}");
    fake.set("count", UNKNOWN);
    assert_eq!(fake.open(&GpuChoice::All).problems, ["GPUs cannot be counted: the driver failed and does not say why"]);
}

#[test]
fn a_library_that_does_not_start_is_a_problem_until_it_does() {
    let mut fake = Fake::new();
    for (code, part) in [
        (DRIVER_NOT_LOADED, "NVML does not start: the NVIDIA driver is not loaded; "),
        (NO_PERMISSION, "NVML does not start: permission denied; in a container"),
        (18, "are of different versions; restart the machine"),
        (1234, "the driver failed with code 1234"),
    ] {
        fake.set("init", code);
        let gpus = fake.open(&GpuChoice::All);
        assert!(gpus.gpus.is_empty() && gpus.problems.len() == 1, "{gpus:?}");
        assert!(gpus.problems[0].contains(part), "{gpus:?}");
        assert!(fake.open(&GpuChoice::None).problems.is_empty(), "nobody asked");
    }
    fake.set("init", 0);
    assert_eq!(fake.only().index, 0);
}

#[test]
fn no_library_and_a_broken_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvidia-ml.so.1");
    let open = || nvml::open(Some(&path), &GpuChoice::All, SECOND);
    assert_eq!(open().problems, [format!("{NO_DRIVER}: {} does not exist", path.display())]);
    fs::write(&path, "not a library").unwrap();
    let problems = open().problems;
    assert!(problems[0].starts_with("NVML cannot be loaded: "), "{problems:?}");
    assert_eq!(nvml::inspect(Some(&path)).problems.len(), 1);
    // This machine's own, whatever it has.
    let here = nvml::open(None, &GpuChoice::All, SECOND);
    assert!(!here.gpus.is_empty() || !here.problems.is_empty());
}

#[test]
fn an_inspection_says_what_answers() {
    let mut fake = Fake::new();
    fake.set("0.limit_mw", 400_000);
    fake.gpu(1, "NVIDIA GeForce GTX 1080", "GPU-9b", "00000000:CA:00.0");
    fake.set("1.energy", NOT_SUPPORTED);
    fake.set("1.power", NO_PERMISSION);
    fake.gpu(2, "NVIDIA A100-SXM4-40GB", "GPU-cc", "00000000:CB:00.0");
    fake.set("2.open", GPU_IS_LOST);
    let found = nvml::inspect(Some(&fake.library()));
    assert_eq!(found.driver.as_deref(), Some("550.54.15"));
    let [first, second] = found.gpus.as_slice() else { panic!("{found:?}") };
    assert_eq!((first.counter.clone(), first.power_limit.unwrap().0), (Ok(()), 400.0));
    assert_eq!((first.power.clone().unwrap().0, first.bus_id.as_str()), (60.0, "00000000:65:00.0"));
    assert_eq!(second.counter.clone().unwrap_err().to_string(), "energy counter: the GPU does not offer it");
    assert!(second.power.clone().unwrap_err().fix.unwrap().contains("utility"));
    assert_eq!(second.power_limit, None);
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].to_string().starts_with("GPU 2 cannot be opened: the GPU is lost"));
}
