//! What NVML answers and what not, for `dbp-host doctor`.

use std::path::Path;

use nvml_wrapper::Device;

use super::problem::Problem;
use super::{bus_id, choice, load, mig, name};
use crate::energy::units::Watts;

#[derive(Clone, Debug)]
pub struct Inspection {
    /// The driver's version; `None` if there is no driver, or it does not say.
    pub driver: Option<String>,
    pub gpus: Vec<InspectedGpu>,
    /// The library, or GPUs that cannot be opened.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug)]
pub struct InspectedGpu {
    pub index: u32,
    pub name: String,
    pub uuid: String,
    pub bus_id: String,
    pub mig: bool,
    /// Bytes that are free, and all.
    pub memory: Option<(u64, u64)>,
    /// Whether the energy counter answers.
    pub counter: Result<(), Problem>,
    /// Now.
    pub power: Result<Watts, Problem>,
    pub power_limit: Option<Watts>,
}

/// Asks every GPU once. `library` as in [`super::open`].
pub fn inspect(library: Option<&Path>) -> Inspection {
    let nvml = match load(library) {
        Ok(nvml) => nvml,
        Err(problem) => return Inspection { driver: None, gpus: Vec::new(), problems: vec![problem] },
    };
    let (found, problems) = choice::choose(nvml, &choice::GpuChoice::All);
    Inspection {
        driver: nvml.sys_driver_version().ok(),
        gpus: found.iter().map(|(index, device)| InspectedGpu::new(*index, device)).collect(),
        problems,
    }
}

impl InspectedGpu {
    fn new(index: u32, device: &Device) -> Self {
        let counter = device.total_energy_consumption().map(drop);
        let limit = device.enforced_power_limit().or_else(|_| device.power_management_limit());
        Self {
            index,
            name: name(device),
            uuid: device.uuid().unwrap_or_default(),
            bus_id: bus_id(device),
            mig: mig(device),
            memory: device.memory_info().ok().map(|memory| (memory.free, memory.total)),
            counter: counter.map_err(|err| Problem::new("energy counter", &err)),
            power: device.power_usage().map(Watts::from_milliwatts).map_err(|err| Problem::new("power", &err)),
            power_limit: limit.ok().map(Watts::from_milliwatts),
        }
    }
}
