//! All of a machine's channels, polled together: what the meter's thread does each time.

use super::account::{Channel, Moment};
use super::carbon::Carbon;
use super::config::{Config, Sources};
use super::cpu::{DesignPower, LoadMeter, LoadModel, UNKNOWN_WATTS};
use super::machine::{Machine, Sensors};
use super::ram::{Constant, Memory};
use super::rapl::Rapl;
use super::reading::{Reading, Totals};
use super::sensor::Sensor;
use super::units::{Joules, Watts};

pub struct Sampler {
    cpu: Vec<Channel>,
    gpu: Vec<Channel>,
    ram: Vec<Channel>,
    load: LoadMeter,
    proc: std::path::PathBuf,
    carbon: Carbon,
    pue: f64,
    /// What this meter has counted, and what the run had come to before.
    totals: Totals,
    last: Moment,
    active_before: f64,
}

impl Sampler {
    pub fn new(config: &Config, machine: &Machine, gpus: Vec<Sensors>, carbon: Carbon) -> Self {
        let begins = Moment::default();
        let channel = |sensors: Sensors| (!sensors.is_empty()).then(|| Channel::new(sensors, begins));
        Self {
            cpu: channel(processor_sensors(config, machine)).into_iter().collect(),
            ram: channel(memory_sensors(config, machine)).into_iter().collect(),
            gpu: gpus.into_iter().filter_map(channel).collect(),
            load: LoadMeter::new(&config.places.proc),
            proc: config.places.proc.clone(),
            carbon,
            pue: config.pue,
            totals: Totals::default(),
            last: begins,
            active_before: 0.0,
        }
    }

    /// Goes on from what a run had come to.
    pub fn restore(&mut self, before: Option<Reading>) {
        if let Some(before) = before {
            self.active_before = before.totals.active_s;
            self.totals = before.totals;
        }
    }

    pub fn poll(&mut self, moment: Moment) {
        let Totals { cpu, gpu, ram, .. } = &mut self.totals;
        let mut used = Joules::ZERO;
        for (channels, account) in [(&mut self.cpu, cpu), (&mut self.gpu, gpu), (&mut self.ram, ram)] {
            for channel in channels {
                used += channel.poll(moment, account);
            }
        }
        self.totals.co2_kg += self.carbon.now().kg_of(used * self.pue);
        self.totals.active_s = self.active_before + moment.active.as_secs_f64();
        let active = moment.active.saturating_sub(self.last.active).as_secs_f64();
        if let Ok(Some(load)) = self.load.read() {
            self.totals.load.add(load * 100.0, active);
        }
        if let Some(memory) = Memory::read(&self.proc) {
            self.totals.memory_gib.add(memory.used_gib(), active);
        }
        self.last = moment;
    }

    pub fn reading(&self) -> Reading {
        let open = |channels: &[Channel]| channels.iter().map(|channel| channel.open_gap(self.last)).sum::<f64>();
        let mut totals = self.totals.clone();
        for (account, channels) in
            [(&mut totals.cpu, &self.cpu), (&mut totals.gpu, &self.gpu), (&mut totals.ram, &self.ram)]
        {
            account.gap_s += open(channels);
        }
        let waiting = [&self.cpu, &self.gpu, &self.ram].into_iter().flatten().any(Channel::is_waiting);
        Reading { totals, pue: self.pue, waiting, problem: None }
    }
}

fn processor_sensors(config: &Config, machine: &Machine) -> Sensors {
    let mut sensors: Sensors = Vec::new();
    if config.sources != Sources::Estimated
        && let Some(rapl) = Rapl::new(&machine.rapl)
    {
        sensors.push(Box::new(rapl));
    }
    if config.sources != Sources::Measured {
        let design: DesignPower = machine.design_power(config);
        match LoadModel::new(design.clone(), &config.places.proc) {
            Some(model) => sensors.push(Box::new(model)),
            None => {
                let watts = if machine.processors.threads == 0 { UNKNOWN_WATTS } else { design.watts.0 } / 2.0;
                let text = format!("{watts} W: half of {}, since the load cannot be read", design.text);
                sensors.push(Box::new(Constant::new(Watts(watts), text)));
            }
        }
    }
    sensors
}

fn memory_sensors(config: &Config, machine: &Machine) -> Sensors {
    let sensor = match (config.sources, config.ram_watts, machine.memory) {
        (Sources::Measured, ..) => None,
        (_, Some(watts), _) => Some(Constant::new(watts, format!("{} W: given", watts.0))),
        (_, None, Some(memory)) => Some(Constant::of_memory(memory, machine.processors.arm)),
        (_, None, None) => None,
    };
    sensor.into_iter().map(|sensor| Box::new(sensor) as Box<dyn Sensor>).collect()
}
