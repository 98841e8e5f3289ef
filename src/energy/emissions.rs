//! `emissions.csv`: a run in the columns of codecarbon 3, in its order and units, so that notebooks and dashboards made for
//! it read ours. A figure that is not known leaves its field empty, which pandas reads as NaN.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;

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
    let [cpu, gpu, ram] = reading.components().map(|(_, account)| account.joules().map(|joules| joules * reading.pue));
    // No GPU in use draws nothing; one that could not be read is not known.
    let gpu = gpu.or((machine.gpus.is_empty() && reading.totals.gpu.problem.is_none()).then_some(Joules::ZERO));
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
        number(reading.totals.load.get()),
        number(reading.totals.gpu.mean_utilization().or(machine.gpus.is_empty().then_some(0.0))),
        number(utilization),
        number(used_gib),
        "N".to_owned(),
        number(Some(reading.pue)),
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

/// Writes the row to the file: over the row of the same run, behind those of others. Written aside and renamed, so that a
/// reader and a kill see a whole file.
///
/// Errors: the disk's; a file with other columns.
pub fn write(path: &Path, row: &[String; 38]) -> io::Result<()> {
    let header = COLUMNS.join(",");
    let mut lines = vec![header.clone()];
    match fs::read_to_string(path) {
        Ok(text) => {
            let mut records = records(&text).into_iter();
            if records.next().is_some_and(|first| first.trim_end() != header) {
                let problem = format!("{}: not the columns of codecarbon 3", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            let run = format!(",{},", field(&row[2]));
            lines.extend(records.filter(|record| !record.contains(&run)).map(str::to_owned));
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(err) => return Err(err),
    }
    lines.push(row.iter().map(|value| field(value)).collect::<Vec<_>>().join(","));
    let aside = path.with_extension("csv.new");
    fs::write(&aside, lines.join("\n") + "\n")?;
    fs::rename(&aside, path)
}

/// The records of a CSV text: lines, but for line ends within quotes.
fn records(text: &str) -> Vec<&str> {
    let (mut records, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '\n' if !quoted => {
                records.push(text[start..at].trim_end_matches('\r'));
                start = at + 1;
            }
            _ => {}
        }
    }
    records.push(&text[start..]);
    records.retain(|record| !record.is_empty());
    records
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
    fn a_runs_row_is_replaced_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("emissions.csv");
        write(&path, &some_row("a", "one, \"two\"\nthree")).unwrap();
        write(&path, &some_row("b", "other")).unwrap();
        write(&path, &some_row("a", "again")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0].split(',').count(), 38);
        assert!(lines[1].starts_with("0,other,b,") && lines[2].starts_with("0,again,a,"), "{text}");
        fs::write(&path, "timestamp,something\n").unwrap();
        assert!(write(&path, &some_row("a", "x")).is_err());
    }

    #[test]
    fn gpus_are_counted_by_kind() {
        let names = ["A100", "A100", "T4"].map(str::to_owned);
        assert_eq!(gpu_models(&names), "2 x A100, 1 x T4");
        assert_eq!(gpu_models(&[]), "");
    }
}
