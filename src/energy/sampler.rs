//! All of a machine's channels, polled together: what the meter's thread does each time.

use std::path::PathBuf;

use super::account::{Channel, Moment};
use super::carbon::Carbon;
use super::config::{Config, Sources};
use super::cpu::{LoadMeter, LoadModel};
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
    /// Why GPUs that are meant are not among them.
    unread_gpus: Option<String>,
    proc: PathBuf,
    carbon: Carbon,
    pue: f64,
    totals: Totals,
    last: Moment,
}

impl Sampler {
    /// `before` is what a run that is carried on has come to.
    pub fn new(config: &Config, machine: &Machine, gpus: Vec<Sensors>, carbon: Carbon, before: Totals) -> Self {
        // A counter that comes back in this time makes up for all of it; what stands in for it does not.
        let patience = config.interval * 10;
        let channel = |sensors: Sensors| (!sensors.is_empty()).then(|| Channel::new(sensors, patience));
        Self {
            cpu: channel(processor_sensors(config, machine)).into_iter().collect(),
            ram: channel(memory_sensors(config, machine)).into_iter().collect(),
            gpu: gpus.into_iter().filter_map(channel).collect(),
            unread_gpus: machine.unread_gpus.clone(),
            proc: config.places.proc.clone(),
            carbon,
            pue: config.pue,
            totals: before,
            last: Moment::default(),
        }
    }

    pub fn poll(&mut self, moment: Moment) {
        let active = moment.active.saturating_sub(self.last.active).as_secs_f64();
        let Totals { cpu, gpu, ram, .. } = &mut self.totals;
        let mut used = Joules::ZERO;
        for (channels, account) in [(&mut self.cpu, cpu), (&mut self.gpu, &mut *gpu), (&mut self.ram, ram)] {
            for channel in channels {
                let joules = channel.poll(moment, account);
                account.overhead += joules * (self.pue - 1.0);
                used += joules;
            }
        }
        if let Some(why) = &self.unread_gpus {
            gpu.gap_s += active;
            gpu.problem = Some(why.clone());
        }
        self.note_grid();
        self.totals.co2_kg += self.carbon.now().kg_of(used * self.pue);
        self.totals.active_s += active;
        if let Some(memory) = Memory::read(&self.proc) {
            self.totals.memory_gib.add(memory.used_gib(), active);
        }
        self.last = moment;
    }

    /// Remembers where the intensity comes from, once for each place: live figures of one zone differ in their time alone.
    fn note_grid(&mut self) {
        let grid = self.carbon.describe();
        let place = |text: &str| text.split(", ").take(2).collect::<Vec<_>>().join(", ");
        match self.totals.grids.last_mut() {
            Some(last) if *last == grid => {}
            Some(last) if place(last) == place(&grid) && grid.starts_with("Electricity Maps") => *last = grid,
            _ => self.totals.grids.push(grid),
        }
    }

    pub fn reading(&self) -> Reading {
        let open = |channels: &[Channel]| channels.iter().map(|channel| channel.open_gap(self.last)).sum::<f64>();
        let mut totals = self.totals.clone();
        for (account, channels) in
            [(&mut totals.cpu, &self.cpu), (&mut totals.gpu, &self.gpu), (&mut totals.ram, &self.ram)]
        {
            account.gap_s += open(channels);
        }
        let channels = [&self.cpu, &self.gpu, &self.ram].into_iter().flatten();
        let waiting = channels.into_iter().any(|channel| channel.is_waiting(self.last.now));
        Reading { totals, pue: self.pue, waiting, problem: None }
    }
}

fn processor_sensors(config: &Config, machine: &Machine) -> Sensors {
    let mut sensors: Sensors = Vec::new();
    if config.sources != Sources::Estimated
        && let Some(rapl) = Rapl::new(&machine.rapl)
    {
        sensors.push(Box::new(rapl.with_load(LoadMeter::new(&config.places.proc))));
    }
    if config.sources != Sources::Measured {
        let design = machine.design_power(config);
        match LoadModel::new(design.clone(), &config.places.proc) {
            Some(model) => sensors.push(Box::new(model)),
            None => {
                let watts = design.watts.0 / 2.0;
                let text =
                    format!("{watts} W: half of {} W ({}), since the load cannot be read", design.watts.0, design.text);
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
