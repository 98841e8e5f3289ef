//! `dbp-host doctor`: what this machine has for training and metering, what is missing, and what would mend it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use serde::Serialize;
use tch::Cuda;

use super::EnergyOptions;
use crate::energy::carbon::Carbon;
use crate::energy::config::{Config, Places};
use crate::energy::machine::Machine;
use crate::energy::nvml::{self, GpuChoice, InspectedGpu, Problem};
use crate::energy::ram::Constant;
use crate::energy::rapl::{Found, POWERCAP};
use crate::energy::sensor::Sensor;
use crate::host::preflight::size;
use crate::host::say::print_line;
use crate::host::{Outcome, report};
use crate::libtorch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It is there.
    Ok,
    /// It is not there, and a model or another device takes its place.
    Absent,
    /// It is there and does not work.
    Broken,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    text: String,
    /// What would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn new(what: &'static str, state: State, text: impl Into<String>) -> Self {
        Self { what, state, text: text.into(), fix: None }
    }

    fn with_fix(self, fix: Option<impl Into<String>>) -> Self {
        Self { fix: fix.map(Into::into), ..self }
    }
}

/// Runs `dbp-host doctor`. Returns the exit code: 0 whatever was found, since nothing of it is asked for yet.
pub fn doctor(runs: &Path, energy: EnergyOptions, json: bool) -> i32 {
    let config = energy.or_env().and_then(|energy| energy.config(super::Asked::default(), GpuChoice::All));
    let config = match config {
        Ok(config) => config,
        Err(err) => return report(&Outcome::from(err.into_usage())),
    };
    let findings = examine(runs, &config);
    if json {
        // Text and names alone: this cannot fail.
        print_line(&serde_json::to_string_pretty(&findings).unwrap_or_default());
        return 0;
    }
    for Finding { what, state, text, fix } in &findings {
        let mark = match state {
            State::Ok => "ok",
            State::Absent => "--",
            State::Broken => "!!",
        };
        print_line(&format!("{mark}  {what:<9} {text}"));
        if let Some(fix) = fix {
            for line in fix.lines() {
                print_line(&format!("              {line}"));
            }
        }
    }
    0
}

fn examine(runs: &Path, config: &Config) -> Vec<Finding> {
    let mut findings = vec![libtorch(), cuda()];
    findings.extend(gpus(&config.places));
    let (machine, _) = Machine::look(&Config { gpus: GpuChoice::None, ..config.clone() });
    findings.push(rapl_finding(&machine.rapl, config, &Surroundings::look(&config.places)));
    findings.push(processors(&machine, config));
    findings.push(memory(&machine));
    findings.push(carbon(config));
    findings.extend(disks(runs));
    findings
}

fn libtorch() -> Finding {
    let threads = tch::get_num_threads();
    let text = format!("{} on {threads} processor thread{}", env!("DBP_LIBTORCH_VERSION"), plural(threads as usize));
    Finding::new("libtorch", State::Ok, text)
}

fn cuda() -> Finding {
    if let Err(err) = libtorch::load_cuda() {
        let text = format!("libtorch has no CUDA part: {err}");
        return Finding::new("CUDA", State::Absent, text).with_fix(Some("with an NVIDIA GPU: CUDA=1 make setup"));
    }
    match Cuda::device_count() {
        0 => Finding::new("CUDA", State::Absent, "no device or no driver"),
        count => {
            let bus = (0..count as usize).map(|index| libtorch::cuda_bus_id(index).unwrap_or("bus unknown".into()));
            let text = format!("{count} device{}: {}", plural(count as usize), bus.collect::<Vec<_>>().join(", "));
            Finding::new("CUDA", State::Ok, text)
        }
    }
}

fn gpus(places: &Places) -> Vec<Finding> {
    let seen = nvml::inspect(places.nvml.as_deref());
    let mut findings = Vec::new();
    if let Some(driver) = &seen.driver {
        findings.push(Finding::new(
            "NVML",
            State::Ok,
            format!("driver {driver}, {} GPU{}", seen.gpus.len(), plural(seen.gpus.len())),
        ));
    }
    for problem in &seen.problems {
        let nothing = problem.what.starts_with(nvml::NO_DRIVER) && problem.fix.is_none();
        let state = if nothing { State::Absent } else { State::Broken };
        findings.push(Finding::new("NVML", state, &*problem.what).with_fix(problem.fix));
    }
    findings.extend(seen.gpus.iter().map(gpu));
    findings
}

fn gpu(gpu: &InspectedGpu) -> Finding {
    let InspectedGpu { index, name, uuid, bus_id, mig, memory, counter, power, power_limit } = gpu;
    let watts = |watts: f64| format!("{watts:.0} W");
    let now = match (power, power_limit) {
        (Ok(now), Some(limit)) => format!(", {} of {}", watts(now.0), watts(limit.0)),
        (Ok(now), None) => format!(", {}", watts(now.0)),
        (Err(_), _) => String::new(),
    };
    let memory = memory.map_or(String::new(), |(free, total)| format!(", {} of {} free", size(free), size(total)));
    let mig = if *mig { ", MIG on: the energy is that of the whole GPU" } else { "" };
    let (state, how, problem): (_, String, Option<&Problem>) = match (counter, power) {
        (Ok(()), _) => (State::Ok, "measured by its energy counter".into(), None),
        (Err(why), Ok(_)) => (State::Ok, format!("measured by samples of its power ({})", why.what), Some(why)),
        (Err(why), Err(also)) => (State::Broken, format!("not measured ({}; {})", why.what, also.what), Some(why)),
    };
    Finding::new("GPU", state, format!("{index}: {name}, {uuid} at {bus_id}{memory}{now}, {how}{mig}"))
        .with_fix(problem.and_then(|p| p.fix))
}

/// Where the program runs, as far as it explains missing sensors.
struct Surroundings {
    container: bool,
    virtual_machine: bool,
}

impl Surroundings {
    fn look(places: &Places) -> Self {
        let there = |path: &str| Path::new(path).exists();
        let container = there("/.dockerenv") || there("/run/.containerenv") || std::env::var_os("container").is_some();
        let cpuinfo = fs::read_to_string(places.proc.join("cpuinfo")).unwrap_or_default();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
        Self { container, virtual_machine: flags.split_whitespace().any(|flag| flag == "hypervisor") }
    }
}

fn rapl_finding(found: &Found, config: &Config, around: &Surroundings) -> Finding {
    let root = config.places.powercap.display();
    let docker = "in a container: docker run --security-opt systempaths=unconfined …, or podman run --security-opt unmask=/sys/devices/virtual/powercap …";
    if let Some((_, why)) = found.refused.first() {
        let fix = why.contains("permission denied").then(|| {
            let command = format!(
                "sudo chmod a+r {root}/intel-rapl:*/energy_uj   (until the next start; docs/energy.md makes it last)"
            );
            if around.container { format!("{command}\n{docker}") } else { command }
        });
        return Finding::new("RAPL", State::Broken, why).with_fix(fix);
    }
    if found.readable.is_empty() {
        let (text, fix) = match around {
            _ if !config.places.powercap.exists() && config.places.powercap != Path::new(POWERCAP) => {
                (format!("{root} does not exist"), Some("DBP_HOST_POWERCAP names it: is it mounted?"))
            }
            _ if around.virtual_machine => {
                (format!("no counters under {root}: virtual machines do not show the processors' energy"), None)
            }
            _ if around.container => (format!("no counters under {root}"), Some(docker)),
            _ => {
                (format!("no counters under {root}"), Some("sudo modprobe intel_rapl_msr   (Intel, and AMD since Zen)"))
            }
        };
        return Finding::new("RAPL", State::Absent, text).with_fix(fix);
    }
    let names: Vec<&str> = found.readable.iter().map(|zone| zone.name.as_str()).collect();
    let mut text = format!("the processors are measured: {}", names.join(", "));
    for (zone, other) in &found.mirrors {
        text.push_str(&format!("; {} shows the counter of {other} and is left out", zone.name));
    }
    Finding::new("RAPL", State::Ok, text)
}

fn processors(machine: &Machine, config: &Config) -> Finding {
    let found = &machine.processors;
    let model = found.model.as_deref().unwrap_or("of unknown model");
    let design = machine.design_power(config);
    let rapl = &machine.rapl;
    let measured = !rapl.readable.is_empty() && rapl.refused.is_empty();
    let model =
        format!("{model}, {} socket{}, {} threads", found.sockets, plural(found.sockets as usize), found.threads);
    let text = match measured {
        true => format!("{model}; without RAPL it would be estimated from {} W ({})", design.watts.0, design.text),
        false => format!("{model}; estimated from {} W ({}) and the load", design.watts.0, design.text),
    };
    Finding::new("CPU", if measured { State::Ok } else { State::Absent }, text)
}

fn memory(machine: &Machine) -> Finding {
    match machine.memory {
        Some(memory) => {
            let text = Constant::of_memory(memory, machine.processors.arm).source().text;
            Finding::new("RAM", State::Absent, format!("no machine measures it; estimated {text}"))
        }
        None => Finding::new("RAM", State::Absent, "its size is unknown: not metered"),
    }
}

fn carbon(config: &Config) -> Finding {
    let carbon = Carbon::start(config);
    let overhead = if config.pue > 1.0 { format!(", PUE {}", config.pue) } else { String::new() };
    let text = format!("{} g/kWh: {}{overhead}", carbon.now().0, carbon.describe());
    if let Some(problem) = carbon.problem() {
        return Finding::new("carbon", State::Broken, format!("{text}; {problem}"));
    }
    let unknown = config.place.is_none() && config.given.is_none();
    let fix = unknown.then_some("name the grid: --country, or DBP_HOST_COUNTRY in the environment");
    Finding::new("carbon", if unknown { State::Absent } else { State::Ok }, text).with_fix(fix)
}

fn disks(runs: &Path) -> Vec<Finding> {
    let mut findings = vec![disk("runs", runs)];
    if let Some(cache) = super::cache_folder() {
        findings.push(disk("cache", &cache));
    }
    findings
}

/// Room in `folder`, or in the nearest one above it that exists.
fn disk(role: &str, folder: &Path) -> Finding {
    const LITTLE: u64 = 2 << 30;
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let there: PathBuf = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned();
    let shown = absolute.display();
    match (statvfs(&there), nix::unistd::access(&there, nix::unistd::AccessFlags::W_OK)) {
        (Err(err), _) => Finding::new("disk", State::Broken, format!("{role} in {shown}: {err}")),
        (Ok(_), Err(err)) => {
            Finding::new("disk", State::Broken, format!("{role} in {shown}: cannot be written ({err})"))
                .with_fix((role == "runs").then_some("give another folder with --runs, or change its owner"))
        }
        (Ok(room), Ok(())) => {
            let free = room.blocks_available() * room.fragment_size();
            let text = format!("{role} in {shown}: {:.0} GiB free", free as f64 / (1u64 << 30) as f64);
            if free < LITTLE {
                let fix = "a checkpoint of ViT-B with decorrelation takes 2.1 GB, and two are kept";
                return Finding::new("disk", State::Broken, text).with_fix(Some(fix));
            }
            Finding::new("disk", State::Ok, text)
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::rapl::Zone;

    #[test]
    fn forbidden_counters_come_with_the_command_that_frees_them() {
        let zone = Zone { name: "package-0".into(), folder: "/sys/class/powercap/intel-rapl:0".into() };
        let why = "/sys/class/powercap/intel-rapl:0/energy_uj: permission denied".to_owned();
        let found = Found { refused: vec![(zone, why)], ..Found::default() };
        let config = Config::new(Places::default());
        let bare = rapl_finding(&found, &config, &Surroundings { container: false, virtual_machine: false });
        assert_eq!(bare.state, State::Broken);
        assert!(bare.fix.unwrap().starts_with("sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"));
        let inside = rapl_finding(&found, &config, &Surroundings { container: true, virtual_machine: false });
        assert!(inside.fix.unwrap().contains("docker run --security-opt systempaths=unconfined"));
        let nothing =
            rapl_finding(&Found::default(), &config, &Surroundings { container: false, virtual_machine: true });
        assert_eq!((nothing.state, nothing.fix), (State::Absent, None));
    }
}
