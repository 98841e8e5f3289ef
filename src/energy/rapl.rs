//! Processors by RAPL: the energy counters of whole packages that Linux shows under `/sys/class/powercap`, for Intel since
//! Sandy Bridge and for AMD since Zen. Cores, uncore, DRAM and the platform are parts or supersets of a package and left out.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cpu::LoadMeter;
use super::sensor::{Counter, Kind, Polled, Sensor, Source};
use super::units::{Joules, Watts};

/// Where Linux shows the counters.
pub const POWERCAP: &str = "/sys/class/powercap";

/// Two counters this close to each other, in microjoules, are one counter shown twice: dies of one package do that. 1 J is
/// drawn between the two reads; counters of different packages meet by chance once in 100,000 starts.
const SAME_COUNTER_UJ: u64 = 1_000_000;
/// Below this, in microjoules, counters are all much the same: the machine has just started.
const YOUNG_UJ: u64 = 100_000_000;

/// No package draws more; the largest have design powers of 500 W.
const MOST: Watts = Watts(1000.0);

/// A package's counter.
#[derive(Clone, Debug)]
pub struct Zone {
    /// `package-0`.
    pub name: String,
    pub folder: PathBuf,
}

impl Zone {
    /// The counter now, in microjoules.
    ///
    /// Errors: a sentence that names the file.
    pub fn read(&self) -> Result<u64, String> {
        read_number(&self.folder.join("energy_uj"))
    }

    /// The count at which it starts again at 0.
    fn range(&self) -> Option<u64> {
        read_number(&self.folder.join("max_energy_range_uj")).ok()
    }
}

/// What a machine's powercap folder holds.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub readable: Vec<Zone>,
    /// Zones that cannot be read, with the reason.
    pub refused: Vec<(Zone, String)>,
    /// Zones that show another zone's counter, which is named.
    pub mirrors: Vec<(Zone, String)>,
}

/// Looks for package zones below `powercap`, or below the control types in it (`intel-rapl/intel-rapl:0`).
pub fn find(powercap: &Path) -> Found {
    let mut folders = subfolders(powercap);
    let types: Vec<PathBuf> = folders.iter().filter(|folder| !is_zone(folder)).cloned().collect();
    folders
        .extend(types.iter().filter(|folder| file_name(folder).contains("rapl")).flat_map(|folder| subfolders(folder)));
    // The MMIO interface shows the packages of the register interface once more; the latter sorts first.
    folders.sort_by_key(|folder| (file_name(folder).contains("mmio"), file_name(folder)));

    let mut found = Found::default();
    let mut counts: Vec<(String, u64)> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for folder in folders.into_iter().filter(|folder| is_zone(folder)) {
        let Ok(name) = fs::read_to_string(folder.join("name")) else { continue };
        let zone = Zone { name: name.trim().to_owned(), folder };
        if !zone.name.starts_with("package") || names.contains(&zone.name) {
            continue;
        }
        names.push(zone.name.clone());
        match zone.read() {
            Err(why) => found.refused.push((zone, why)),
            Ok(count) => {
                let same = |(_, other): &&(String, u64)| count > YOUNG_UJ && count.abs_diff(*other) <= SAME_COUNTER_UJ;
                match counts.iter().find(same) {
                    Some((other, _)) => found.mirrors.push((zone, other.clone())),
                    None => {
                        counts.push((zone.name.clone(), count));
                        found.readable.push(zone);
                    }
                }
            }
        }
    }
    found
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `intel-rapl:0`; `intel-rapl:0:1` is a part of it.
fn is_zone(folder: &Path) -> bool {
    file_name(folder).matches(':').count() == 1
}

fn read_number(path: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|err| match err.kind() {
        ErrorKind::PermissionDenied => format!("{}: permission denied", path.display()),
        ErrorKind::NotFound => format!("{} is gone", path.display()),
        _ => format!("{}: {err}", path.display()),
    })?;
    text.trim().parse().map_err(|_| format!("{}: not a number: {:?}", path.display(), text.trim()))
}

/// All readable packages of a machine as one sensor.
pub struct Rapl {
    zones: Vec<(Zone, Counter)>,
    /// What some packages have used since the poll before the one that another package failed at.
    kept: Joules,
    /// For how busy they were.
    load: Option<LoadMeter>,
}

impl Rapl {
    /// `None` where there is no package, or one that cannot be read: a part of the processors is not their energy.
    pub fn new(found: &Found) -> Option<Self> {
        if found.readable.is_empty() || !found.refused.is_empty() {
            return None;
        }
        let zones = found.readable.iter().map(|zone| (zone.clone(), Counter::new(1e-6, zone.range(), MOST))).collect();
        Some(Self { zones, kept: Joules::ZERO, load: None })
    }

    /// Says how busy the processors were, too.
    pub fn with_load(self, load: LoadMeter) -> Self {
        Self { load: Some(load), ..self }
    }
}

impl Sensor for Rapl {
    fn source(&self) -> Source {
        let names: Vec<&str> = self.zones.iter().map(|(zone, _)| zone.name.as_str()).collect();
        Source { kind: Kind::Measured, text: format!("RAPL {}", names.join(", ")) }
    }

    fn poll(&mut self, now: Duration) -> Polled {
        let (mut missed, mut lost, mut begins) = (None, None, false);
        for (zone, counter) in &mut self.zones {
            match counter.read(now, zone.read()) {
                Polled::Used(joules) => self.kept += joules,
                Polled::Begins => begins = true,
                Polled::Missed(why) => missed = missed.or(Some(why)),
                Polled::Reset(why) => lost = lost.or(Some(Polled::Reset(format!("{}: {why}", zone.name)))),
                Polled::Unknown(why) => lost = lost.or(Some(Polled::Unknown(format!("{}: {why}", zone.name)))),
            }
        }
        if let Some(lost) = lost {
            // The others' energy of this span is known, the sum is not.
            self.kept = Joules::ZERO;
            return lost;
        }
        match missed {
            Some(why) => Polled::Missed(why),
            None if begins => {
                self.kept = Joules::ZERO;
                Polled::Begins
            }
            None => Polled::Used(std::mem::take(&mut self.kept)),
        }
    }

    fn utilization(&mut self) -> Option<f64> {
        self.load.as_mut()?.read().ok().flatten().map(|load| load * 100.0)
    }
}
