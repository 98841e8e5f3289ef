//! The host's side of energy accounting: what the command line and scripts say of it becomes a meter's configuration.

use std::path::PathBuf;
use std::time::Duration;

use super::errors::Failure;
use super::say::say;
use super::session::Session;
use crate::energy::carbon::Live;
use crate::energy::config::{Config, Places, Sources};
use crate::energy::intensity;
use crate::energy::nvml::{self, GpuChoice};
use crate::energy::units::{GramsPerKwh, Watts};
use crate::libtorch;

pub mod command;
pub mod doctor;

/// Where the token of Electricity Maps comes from; it is never saved.
const TOKEN: &str = "ELECTRICITY_MAPS_TOKEN";
/// Another address of the service: a proxy, a test's stand-in.
const SERVICE: &str = "ELECTRICITY_MAPS_URL";

/// What the command line says of every run; it wins over scripts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnergyOptions {
    pub country: Option<String>,
    pub region: Option<String>,
    pub pue: Option<f64>,
    /// g/kWh.
    pub intensity: Option<f64>,
    /// Ask Electricity Maps.
    pub live: bool,
}

/// What a script or a subcommand says of one meter.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub country: Option<String>,
    pub region: Option<String>,
    pub pue: Option<f64>,
    pub intensity: Option<f64>,
    /// Seconds.
    pub interval: Option<f64>,
    pub sources: Option<String>,
    /// Watts of all sockets.
    pub cpu_power: Option<f64>,
    pub ram_power: Option<f64>,
}

impl EnergyOptions {
    /// With what the environment says of the grid, where nothing else has said anything.
    ///
    /// Errors: a number that is none.
    pub fn or_env(mut self) -> Result<Self, Failure> {
        let set = |name: &str| std::env::var(format!("DBP_HOST_{name}")).ok().filter(|value| !value.trim().is_empty());
        let number = |name: &str| match set(name).map(|value| (value.trim().parse(), value)) {
            Some((Err(_), value)) => {
                Err(Failure::usage(format!("DBP_HOST_{name}: expected a number, got \"{value}\"")))
            }
            Some((Ok(value), _)) => Ok(Some(value)),
            None => Ok(None),
        };
        if !self.names_grid() {
            (self.country, self.region) = (set("COUNTRY"), self.region.or(set("REGION")));
            self.intensity = number("CARBON_INTENSITY")?;
        }
        if self.pue.is_none() {
            self.pue = number("PUE")?;
        }
        Ok(self)
    }

    /// Whether it says anything of where the electricity comes from.
    pub fn names_grid(&self) -> bool {
        self.country.is_some() || self.intensity.is_some()
    }

    /// Errors: what [`EnergyOptions::config`] would find wrong with these options alone, as an error of the command line.
    pub fn check(&self) -> Result<(), Failure> {
        self.config(Asked::default(), GpuChoice::None).map(drop).map_err(Failure::into_usage)
    }

    /// The configuration of a meter on `gpus`.
    ///
    /// Errors: a value out of its range, a place that no table knows, `--carbon-live` without what it needs.
    pub fn config(&self, asked: Asked, gpus: GpuChoice) -> Result<Config, Failure> {
        let mut config = Config::new(Places::from_env());
        config.gpus = gpus;
        let limits = |name: &str, value: Option<f64>, least: f64, most: f64| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(Failure::script(format!("{name}: expected {least} to {most}, got {value}")))
            }
            value => Ok(value),
        };
        if let Some(pue) = limits("pue", self.pue.or(asked.pue), 1.0, 10.0)? {
            config.pue = pue;
        }
        // A grid from the command line has the command line's intensity.
        let intensity = if self.names_grid() || self.live { self.intensity } else { asked.intensity };
        config.given = limits("carbon intensity", intensity, 0.0, 5000.0)?.map(GramsPerKwh);
        if let Some(seconds) = limits("interval", asked.interval, 0.1, 60.0)? {
            config.interval = Duration::from_secs_f64(seconds);
        }
        config.cpu_watts = limits("cpu_power", asked.cpu_power, 0.0, 100_000.0)?.map(Watts);
        config.ram_watts = limits("ram_power", asked.ram_power, 0.0, 100_000.0)?.map(Watts);
        if let Some(sources) = asked.sources {
            config.sources = sources.parse::<Sources>().map_err(|why| Failure::script(format!("source: {why}")))?;
        }
        // A country from the command line makes the script's region that of another one.
        let (country, region) = match &self.country {
            Some(country) => (Some(country.clone()), self.region.clone()),
            None => (asked.country, self.region.clone().or(asked.region)),
        };
        config.place = match (country, region) {
            (Some(country), region) => {
                let place = intensity::place(&country, region.as_deref());
                Some(place.map_err(|err| {
                    Failure::script(err.to_string()).with_hint("without a country the world's average counts")
                })?)
            }
            (None, Some(region)) => {
                return Err(Failure::script(format!("region: {region} is in which country?")).with_hint(
                    "give the country too: USA with the region CA, --country USA --region CA on the command line",
                ));
            }
            (None, None) => None,
        };
        if self.live && config.given.is_none() {
            config.live = Some(live(&config)?);
        }
        Ok(config)
    }
}

/// What `--carbon-live` needs: a token, and a place that is never guessed.
fn live(config: &Config) -> Result<Live, Failure> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let token = set(TOKEN).ok_or_else(|| {
        Failure::usage(format!("--carbon-live: {TOKEN} is not set"))
            .with_hint("Electricity Maps gives a token to each account; export it in the shell, never in a script")
    })?;
    let place = config.place.as_ref().ok_or_else(|| {
        Failure::usage("--carbon-live: which grid?")
            .with_hint("give --country, and --region where a country has several grids")
    })?;
    let zone = place.zone.clone().ok_or_else(|| {
        let region = place.region.map_or("this region", |region| region.name);
        Failure::usage(format!("--carbon-live: {region} is no zone of Electricity Maps"))
            .with_hint("give the zone as the region, such as US-CAL-CISO, or leave --region out")
    })?;
    Ok(Live { token, base: set(SERVICE), zone, cache: cache_folder() })
}

/// The user's cache, which the set-up of libtorch uses too.
fn cache_folder() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("dbp-host"))
}

/// The GPU of a run: libtorch's device, as NVML finds it.
pub fn gpus_of(device: tch::Device) -> GpuChoice {
    let tch::Device::Cuda(index) = device else { return GpuChoice::None };
    if let Some(bus) = libtorch::cuda_bus_id(index) {
        return GpuChoice::Bus(vec![bus]);
    }
    match nvml::visible_from_env(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()) {
        GpuChoice::Listed(list) if index < list.len() => GpuChoice::Listed(vec![list[index].clone()]),
        _ => GpuChoice::Listed(vec![index.to_string()]),
    }
}

/// Tells what a run cost.
pub fn tell_cost(session: &Session, lines: &[String]) {
    for line in lines {
        session.tell(line);
    }
}

/// Tells what a command cost.
pub fn say_cost(lines: &[String]) {
    for line in lines {
        say(line);
    }
}
