//! What a meter is told: where it stands, which sources it may use, and how often it polls.

use std::path::PathBuf;
use std::time::Duration;

use super::nvml::GpuChoice;
use super::rapl::POWERCAP;
use super::units::{GramsPerKwh, Watts};

/// Which sources figures may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sources {
    /// Sensors where they can be read, models where not.
    #[default]
    Auto,
    /// Sensors only: what has none is absent.
    Measured,
    /// Models only, for figures that do not depend on what a machine lets one read. There is none of a GPU.
    Estimated,
}

impl std::str::FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "measured" => Ok(Self::Measured),
            "estimated" => Ok(Self::Estimated),
            other => Err(format!("expected auto, measured or estimated, got {other}")),
        }
    }
}

/// Where sensors are looked for: the machine's own places, or a container's mounts and a test's stand-ins.
#[derive(Clone, Debug)]
pub struct Places {
    pub powercap: PathBuf,
    pub proc: PathBuf,
    /// NVML's library; `None` is the driver's.
    pub nvml: Option<PathBuf>,
}

impl Default for Places {
    fn default() -> Self {
        Self { powercap: POWERCAP.into(), proc: "/proc".into(), nvml: None }
    }
}

impl Places {
    /// With `DBP_HOST_POWERCAP` and `DBP_HOST_NVML` in the place of the machine's own.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let usual = Self::default();
        Self { powercap: set("DBP_HOST_POWERCAP").unwrap_or(usual.powercap), nvml: set("DBP_HOST_NVML"), ..usual }
    }
}

#[derive(Clone, Debug)]
pub struct Config {
    /// A fixed intensity, over all else.
    pub given: Option<GramsPerKwh>,
    /// The grid that supplies the machine; without one, the world's average is taken.
    pub place: Option<super::intensity::Place>,
    /// Asked of Electricity Maps, while it answers.
    pub live: Option<super::carbon::Live>,
    /// Power usage effectiveness, 1 or more.
    pub pue: f64,
    /// Time between two polls.
    pub interval: Duration,
    pub sources: Sources,
    pub gpus: GpuChoice,
    /// Design power of all sockets together, over the table's.
    pub cpu_watts: Option<Watts>,
    /// Power of the memory, over the model's.
    pub ram_watts: Option<Watts>,
    pub places: Places,
}

impl Config {
    /// Polls each second, as codecarbon 3 samples power.
    pub const INTERVAL: Duration = Duration::from_secs(1);

    /// For a machine without GPUs in use, somewhere in the world.
    pub fn new(places: Places) -> Self {
        Self {
            given: None,
            place: None,
            live: None,
            pue: 1.0,
            interval: Self::INTERVAL,
            sources: Sources::Auto,
            gpus: GpuChoice::None,
            cpu_watts: None,
            ram_watts: None,
            places,
        }
    }
}
