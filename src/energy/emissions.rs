//! `emissions.csv`: a run in the columns of codecarbon 3, in its order and units, so that notebooks and dashboards made for
//! it read ours. A figure that is not known leaves its field empty, which pandas reads as NaN.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::config::Config;
use super::machine::Machine;
use super::reading::Reading;
use super::units::Joules;

/// The columns of codecarbon 3.3.
pub const COLUMNS: [&str; 38] = [
    "timestamp",
    "project_name",
    "run_id",
    "experiment_id",
    "duration",
    "emissions",
    "emissions_rate",
    "cpu_power",
    "gpu_power",
    "ram_power",
    "cpu_energy",
    "gpu_energy",
    "ram_energy",
    "energy_consumed",
    "water_consumed",
    "country_name",
    "country_iso_code",
    "region",
    "cloud_provider",
    "cloud_region",
    "os",
    "python_version",
    "codecarbon_version",
    "cpu_count",
    "cpu_model",
    "gpu_count",
    "gpu_model",
    "longitude",
    "latitude",
    "ram_total_size",
    "tracking_mode",
    "cpu_utilization_percent",
    "gpu_utilization_percent",
    "ram_utilization_percent",
    "ram_used_gb",
    "on_cloud",
    "pue",
    "wue",
];

/// What a row says beside the figures.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Local time without a zone, as codecarbon writes it: `2026-01-31T14:05:09`.
    pub timestamp: String,
    /// What was metered: a script's or a command's name.
    pub project: String,
    /// One per run; the row of a run that is carried on replaces the one before.
    pub run_id: String,
    /// What several runs have in common.
    pub experiment_id: String,
    pub country_name: String,
    pub country_iso3: String,
    pub region: String,
}

impl About {
    /// What the time and the configuration say; the rest is empty.
    pub fn now(config: &Config) -> Self {
        let timestamp = chrono::Local::now().format("%Y-%m-%dT%H:%M:%S").to_string();
        let Some(place) = &config.place else { return Self { timestamp, ..Self::default() } };
        let region = place.region.map_or_else(String::new, |region| region.name.to_lowercase());
        let (country_name, country_iso3) = (place.country.name.to_owned(), place.country.iso3.to_owned());
        Self { timestamp, country_name, country_iso3, region, ..Self::default() }
    }
}

/// A random id in the form of a UUID, version 4.
pub fn run_id() -> String {
    // The standard library seeds its hash maps with the system's randomness.
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random() & !0xf000 | 0x4000, random() & !(0xc << 60) | (0x8 << 60));
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & ((1 << 48) - 1)
    )
}

/// A row of figures, field by field.
pub fn row(about: &About, reading: &Reading, machine: &Machine) -> [String; 38] {
    let seconds = reading.totals.active_s;
    // `{:?}` writes 8.0, and readers take the column for one of floats.
    let number = |value: Option<f64>| {
        value.filter(|value| value.is_finite()).map_or(String::new(), |value| format!("{value:?}"))
    };
    let per_second = |value: Option<f64>| number(value.filter(|_| seconds > 0.0).map(|value| value / seconds));
    let [cpu, gpu, ram] = reading.components().map(|(_, account)| account.with_overhead());
    // No GPU in use draws nothing; one that could not be read is not known.
    let no_gpu = machine.gpus.is_empty() && machine.unread_gpus.is_none();
    let gpu = gpu.or(no_gpu.then_some(Joules::ZERO));
    let kwh = |joules: Option<Joules>| number(joules.map(Joules::kwh));
    let watts = |joules: Option<Joules>| per_second(joules.map(|joules| joules.0));
    let ram_gib = machine.memory.map(|memory| memory.total_gib);
    let used_gib = reading.totals.memory_gib.get();
    let utilization = match (used_gib, ram_gib) {
        (Some(used), Some(total)) if total > 0.0 => Some(used / total * 100.0),
        _ => None,
    };
    let version = env!("CARGO_PKG_VERSION");
    [
        about.timestamp.clone(),
        about.project.clone(),
        about.run_id.clone(),
        about.experiment_id.clone(),
        number(Some(seconds)),
        number(reading.co2_kg()),
        per_second(reading.co2_kg()),
        watts(cpu),
        watts(gpu),
        watts(ram),
        kwh(cpu),
        kwh(gpu),
        kwh(ram),
        kwh(reading.energy()),
        number(Some(0.0)),
        about.country_name.clone(),
        about.country_iso3.clone(),
        about.region.clone(),
        String::new(),
        String::new(),
        std::env::consts::OS.to_owned(),
        "none".to_owned(), // Python's version: a column of text stays one.
        format!("dbp-host {version}"),
        machine.processors.threads.to_string(),
        machine.processors.model.clone().unwrap_or_default(),
        machine.gpus.len().to_string(),
        gpu_models(&machine.gpus),
        String::new(),
        String::new(),
        number(ram_gib),
        "machine".to_owned(),
        number(reading.totals.cpu.utilization.get()),
        number(reading.totals.gpu.utilization.get().or(no_gpu.then_some(0.0))),
        number(utilization),
        number(used_gib),
        "N".to_owned(),
        number(Some(reading.mean_pue())),
        number(Some(0.0)),
    ]
}

/// `2 x NVIDIA A100`, as codecarbon has it; several kinds with commas, which it leaves out.
fn gpu_models(names: &[String]) -> String {
    let mut kinds: Vec<(&String, usize)> = Vec::new();
    for name in names {
        match kinds.iter_mut().find(|(kind, _)| *kind == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    let shown: Vec<String> = kinds.iter().map(|(name, count)| format!("{count} x {name}")).collect();
    shown.join(", ")
}

/// Writes a run's file, over what was there: a run is one row. Written aside and renamed, so that a reader and a kill see a whole
/// file.
///
/// Errors: the disk's.
pub fn write(path: &Path, row: &[String; 38]) -> io::Result<()> {
    let aside = path.with_extension("csv.new");
    fs::write(&aside, format!("{}\n{}\n", COLUMNS.join(","), record(row)))?;
    fs::rename(&aside, path)
}

/// A file that rows of several runs are added to, perhaps by several processes.
pub struct Rows(File);

impl Rows {
    /// Opens the file, or makes it.
    ///
    /// Errors: the disk's; a file with other columns.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut first = Vec::new();
        BufReader::new((&mut file).take(1 << 16)).read_until(b'\n', &mut first)?;
        let first = String::from_utf8_lossy(&first);
        if !first.is_empty() && first.trim_end() != COLUMNS.join(",") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has not the columns of codecarbon 3.3"));
        }
        Ok(Self(file))
    }

    /// Adds a row; behind the header, if the file is empty.
    ///
    /// Errors: the disk's.
    pub fn append(self, row: &[String; 38]) -> io::Result<()> {
        let mut file = Flock::lock(self.0, FlockArg::LockExclusive).map_err(|(_, err)| io::Error::from(err))?;
        let mut text = if file.metadata()?.len() == 0 { COLUMNS.join(",") + "\n" } else { String::new() };
        text.push_str(&record(row));
        text.push('\n');
        file.write_all(text.as_bytes())
    }
}

fn record(row: &[String; 38]) -> String {
    row.iter().map(|value| field(value)).collect::<Vec<_>>().join(",")
}

/// A field of a CSV file, quoted if it must be.
pub fn field(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_row(run_id: &str, project: &str) -> [String; 38] {
        let mut row: [String; 38] = std::array::from_fn(|i| i.to_string());
        row[1] = project.into();
        row[2] = run_id.into();
        row
    }

    #[test]
    fn a_run_is_one_row_whatever_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("emissions.csv");
        fs::write(&path, b"\xef\xbb\xbfsaved;by;a spreadsheet\n").unwrap();
        write(&path, &some_row("a", "one, \"two\"\nthree")).unwrap();
        write(&path, &some_row("a", "again")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0].split(',').count()), (2, 38), "{text}");
        assert!(lines[1].starts_with("0,again,a,"), "{text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn rows_of_many_are_added_and_other_files_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.csv");
        std::thread::scope(|scope| {
            for i in 0..8 {
                let path = &path;
                scope.spawn(move || Rows::open(path).unwrap().append(&some_row(&i.to_string(), "a, \"b\"")).unwrap());
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("timestamp,")).count(), 1, "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("0,\"a, \"\"b\"\"\",")).count(), 8, "{text}");
        fs::write(&path, "timestamp,something\n").unwrap();
        assert!(Rows::open(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "timestamp,something\n");
    }

    #[test]
    fn gpus_are_counted_by_kind() {
        let names = ["A100", "A100", "T4"].map(str::to_owned);
        assert_eq!(gpu_models(&names), "2 x A100, 1 x T4");
        assert_eq!(gpu_models(&[]), "");
    }
}
