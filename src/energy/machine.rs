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
    /// Why GPUs that are meant are not metered: their energy is missing.
    pub unread_gpus: Option<String>,
    /// What could be read and is not, a sentence each.
    pub problems: Vec<String>,
}

impl Machine {
    /// Looks around, and opens the GPUs' sensors: the second value, a list for each GPU.
    pub fn look(config: &Config) -> (Self, Vec<Sensors>) {
        let models_only = config.sources == Sources::Estimated;
        let rapl = if models_only { Found::default() } else { rapl::find(&config.places.powercap) };
        let nvml::Gpus { mut gpus, problems } =
            nvml::open(config.places.nvml.as_deref(), &config.gpus, config.interval);
        // Where all GPUs are meant, none is an answer too.
        let none_here = |problem: &String| config.gpus == GpuChoice::All && problem.starts_with(nvml::NO_DRIVER);
        let mut of_gpus: Vec<String> = problems.into_iter().filter(|problem| !none_here(problem)).collect();
        if models_only && !gpus.is_empty() {
            gpus.clear();
            of_gpus = vec!["there is no model of a GPU's energy".to_owned()];
        }
        let mut problems: Vec<String> = rapl.refused.iter().map(|(_, why)| format!("RAPL: {why}")).collect();
        problems.extend(of_gpus.iter().cloned());
        let machine = Self {
            processors: Processors::read(&config.places.proc),
            memory: Memory::read(&config.places.proc),
            rapl,
            gpus: gpus.iter().map(|gpu| gpu.name.clone()).collect(),
            unread_gpus: (!of_gpus.is_empty()).then(|| of_gpus.join("; ")),
            problems,
        };
        let boxed = |sensor| Box::new(sensor) as Box<dyn Sensor>;
        let sensors = gpus.into_iter().map(|gpu| gpu.sensors.into_iter().map(boxed).collect()).collect();
        (machine, sensors)
    }

    /// One that has not answered yet.
    pub fn silent() -> Self {
        let why = "the sensors do not answer; is a driver hanging?";
        Self {
            processors: Processors::default(),
            memory: None,
            rapl: Found::default(),
            gpus: Vec::new(),
            unread_gpus: Some(why.to_owned()),
            problems: vec![why.to_owned()],
        }
    }

    /// What the model of the processors starts from.
    pub fn design_power(&self, config: &Config) -> DesignPower {
        let known = self.processors.model.as_deref().and_then(tdp::watts);
        DesignPower::of(&self.processors, config.cpu_watts, known)
    }
}
