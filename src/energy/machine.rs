//! What there is to meter in a machine, and what keeps some of it from being read.

use super::config::{Config, Sources};
use super::cpu::{DesignPower, Processors};
use super::nvml::{self, GpuChoice};
use super::ram::Memory;
use super::rapl::{self, Found};
use super::sensor::Sensor;
use super::tdp;

/// A device's sensors, in the order of preference.
pub type Sensors = Vec<Box<dyn Sensor>>;

pub struct Machine {
    pub processors: Processors,
    pub memory: Option<Memory>,
    pub rapl: Found,
    /// Names of the GPUs that are metered, one for each.
    pub gpus: Vec<String>,
    /// What could be read and is not, a sentence each.
    pub problems: Vec<String>,
}

impl Machine {
    /// Looks around, and opens the GPUs' sensors: the second value, a list for each GPU.
    pub fn look(config: &Config) -> (Self, Vec<Sensors>) {
        let sensors_wanted = config.sources != Sources::Estimated;
        let rapl = if sensors_wanted { rapl::find(&config.places.powercap) } else { Found::default() };
        let choice = if sensors_wanted { &config.gpus } else { &GpuChoice::None };
        let found = nvml::open(config.places.nvml.as_deref(), choice, config.interval);
        let mut problems: Vec<String> = rapl.refused.iter().map(|(_, why)| format!("RAPL: {why}")).collect();
        // Where all GPUs are meant, none is an answer too.
        let expected = |problem: &&String| config.gpus == GpuChoice::All && problem.starts_with(nvml::NO_DRIVER);
        problems.extend(found.problems.iter().filter(|problem| !expected(problem)).cloned());
        let machine = Self {
            processors: Processors::read(&config.places.proc),
            memory: Memory::read(&config.places.proc),
            rapl,
            gpus: found.gpus.iter().map(|gpu| gpu.name.clone()).collect(),
            problems,
        };
        let boxed = |sensor| Box::new(sensor) as Box<dyn Sensor>;
        let sensors = found.gpus.into_iter().map(|gpu| gpu.sensors.into_iter().map(boxed).collect()).collect();
        (machine, sensors)
    }

    /// What the model of the processors starts from.
    pub fn design_power(&self, config: &Config) -> DesignPower {
        let known = self.processors.model.as_deref().and_then(tdp::watts);
        DesignPower::of(&self.processors, config.cpu_watts, known)
    }
}
