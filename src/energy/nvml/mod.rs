//! The energy of NVIDIA GPUs, by NVML, the library of the driver, which is opened at run time.
//!
//! A GPU since Volta counts the energy it used, in mJ. Where that counter is missing or forbidden, samples of its power are
//! integrated. The counter comes first, because A100 and H100 look at their power a quarter of the time only
//! (arXiv:2312.02741). Departure from codecarbon 3, which knows the counter alone and shows 0 without it.
//!
//! Both are of the whole board. A MIG instance has neither, so its GPU is measured, and the source says so.

mod choice;
mod inspect;
mod problem;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::sensor::{Counter, Kind, Polled, Sensor, Source, Trapezoid};
use super::units::Watts;

pub use choice::{GpuChoice, visible_from_env};
pub use inspect::{InspectedGpu, Inspection, inspect};
pub use problem::{NO_DRIVER, Problem};

/// No GPU draws more; the largest have limits of 1,200 W.
const MOST: Watts = Watts(2500.0);

/// What was found.
#[derive(Debug)]
pub struct Gpus {
    pub gpus: Vec<Gpu>,
    /// A sentence for each GPU, or library, that cannot be read, and why. Begins with [`NO_DRIVER`] where there is none.
    pub problems: Vec<String>,
}

/// A GPU that can be measured.
#[derive(Debug)]
pub struct Gpu {
    /// As NVML counts, in the order of the bus; CUDA's order may be another.
    pub index: u32,
    pub name: String,
    /// `GPU-…`; empty if the driver keeps it to itself, as is `bus_id`.
    pub uuid: String,
    /// With a domain of eight digits: `00000000:65:00.0`.
    pub bus_id: String,
    /// Whether it is split into instances; the sensors are of the whole GPU all the same.
    pub mig: bool,
    /// At least one, the best first: the energy counter, then power. Each is for itself: what the second says may not be
    /// added to what the first says.
    pub sensors: Vec<GpuSensor>,
}

/// The GPUs of `choice`. `library` is NVML's file, where it is not the driver's own; `power_every` is how often a sensor of
/// power is going to be polled.
pub fn open(library: Option<&Path>, choice: &GpuChoice, power_every: Duration) -> Gpus {
    if *choice == GpuChoice::None {
        return Gpus { gpus: Vec::new(), problems: Vec::new() };
    }
    let (found, mut problems) = match load(library) {
        Ok(nvml) => choice::choose(nvml, choice),
        Err(problem) => (Vec::new(), vec![problem]),
    };
    let mut gpus = Vec::new();
    for (index, device) in found {
        match Gpu::new(index, device, power_every) {
            Ok(gpu) => gpus.push(gpu),
            Err(problem) => problems.push(problem),
        }
    }
    Gpus { gpus, problems: problems.iter().map(Problem::to_string).collect() }
}

impl Gpu {
    fn new(index: u32, device: Device<'static>, power_every: Duration) -> Result<Self, Problem> {
        let name = name(&device);
        let mig = mig(&device);
        let device = Arc::new(device);
        let suffix = if mig { " (whole GPU, MIG on)" } else { "" };
        let sensor = |reading, what: &str| GpuSensor {
            device: Arc::clone(&device),
            text: format!("NVML {what}, {name}{suffix}"),
            reading,
        };
        let counter = device.total_energy_consumption().err().filter(is_final);
        let power = device.power_usage().err().filter(is_final);
        let mut sensors = Vec::new();
        if counter.is_none() {
            sensors.push(sensor(Reading::Counter(Counter::new(1e-3, None, MOST)), "energy counter"));
        }
        if power.is_none() {
            let what = format!("power every {} s", power_every.as_secs_f64());
            sensors.push(sensor(Reading::Power(Trapezoid::default()), &what));
        }
        if let (Some(counter), Some(power)) = (&counter, &power) {
            let (no_counter, no_power) = (problem::reason(counter), problem::reason(power));
            return Err(Problem {
                what: format!(
                    "GPU {index}, {name}: neither its energy counter ({no_counter}) nor its power ({no_power}) can be read"
                ),
                fix: problem::fix(counter).or(problem::fix(power)),
            });
        }
        Ok(Self { index, name, uuid: device.uuid().unwrap_or_default(), bus_id: bus_id(&device), mig, sensors })
    }
}

/// Whether the answer is going to be the same next time, too.
fn is_final(err: &NvmlError) -> bool {
    matches!(
        err,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
    )
}

/// One way to measure one GPU.
#[derive(Debug)]
pub struct GpuSensor {
    device: Arc<Device<'static>>,
    text: String,
    reading: Reading,
}

#[derive(Debug)]
enum Reading {
    Counter(Counter),
    Power(Trapezoid),
}

impl Sensor for GpuSensor {
    fn source(&self) -> Source {
        Source { kind: Kind::Measured, text: self.text.clone() }
    }

    fn poll(&mut self, now: Duration) -> Polled {
        let why = |err| problem::reason(&err);
        match &mut self.reading {
            Reading::Counter(counter) => counter.read(now, self.device.total_energy_consumption().map_err(why)),
            Reading::Power(power) => {
                power.read(now, self.device.power_usage().map(|mw| Watts::from_milliwatts(mw).0).map_err(why))
            }
        }
    }

    /// Of the driver's own last span, a second at most.
    fn utilization(&mut self) -> Option<f64> {
        self.device.utilization_rates().ok().map(|busy| f64::from(busy.gpu))
    }
}

/// NVML, initialized. Each file is opened once and never closed: devices point into it, and meters come and go.
fn load(library: Option<&Path>) -> Result<&'static Nvml, Problem> {
    static OPEN: Mutex<Vec<(Option<PathBuf>, &'static Nvml)>> = Mutex::new(Vec::new());
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, nvml)) = open.iter().find(|(path, _)| path.as_deref() == library) {
        return Ok(nvml);
    }
    let mut builder = Nvml::builder();
    if let Some(path) = library {
        builder.lib_path(path.as_os_str());
    }
    let nvml: &'static Nvml = Box::leak(Box::new(builder.init().map_err(|err| Problem::of_library(library, &err))?));
    open.push((library.map(Path::to_owned), nvml));
    Ok(nvml)
}

fn name(device: &Device) -> String {
    device.name().unwrap_or_else(|_| "NVIDIA GPU of unknown name".into())
}

/// Bytes of memory that the GPU at `bus_id` has free; `None` where the driver does not say.
pub fn free_memory(bus_id: &str) -> Option<u64> {
    Some(load(None).ok()?.device_by_pci_bus_id(bus_id).ok()?.memory_info().ok()?.free)
}

fn bus_id(device: &Device) -> String {
    device.pci_info().map(|pci| pci.bus_id).unwrap_or_default()
}

fn mig(device: &Device) -> bool {
    device.mig_mode().is_ok_and(|mode| mode.current == 1)
}
