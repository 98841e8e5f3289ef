//! Processors by a model, where no counter can be read: thermal design power × (0.1 + 0.9 load³), as codecarbon 3 has it.
//! Also what `/proc` says of them: model, sockets, threads, load.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sensor::{Kind, Polled, Sensor, Source};
use super::units::Watts;

/// Power per thread of processors that no table knows, as codecarbon 3 takes it.
pub const WATTS_PER_THREAD: f64 = 4.0;
/// Power of a machine whose processors are not even named: half of it is taken where the load is unknown too.
pub const UNKNOWN_WATTS: f64 = 85.0;

/// The processors of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processors {
    /// As the kernel names them.
    pub model: Option<String>,
    pub sockets: u32,
    pub threads: u32,
    pub arm: bool,
}

impl Processors {
    /// From `cpuinfo` below `proc`.
    pub fn read(proc: &Path) -> Self {
        let text = fs::read_to_string(proc.join("cpuinfo")).unwrap_or_default();
        Self::parse(&text, cfg!(target_arch = "aarch64"))
    }

    fn parse(cpuinfo: &str, arm: bool) -> Self {
        let values = |key: &'static str| {
            cpuinfo.lines().filter_map(move |line| {
                let (name, value) = line.split_once(':')?;
                (name.trim() == key).then(|| value.trim().to_owned())
            })
        };
        let mut packages: Vec<String> = values("physical id").collect();
        packages.sort();
        packages.dedup();
        Self {
            model: values("model name").next(),
            sockets: packages.len().max(1) as u32,
            threads: values("processor").count() as u32,
            arm,
        }
    }
}

/// Jiffies of all processors since the machine started: busy, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Jiffies {
    busy: u64,
    total: u64,
}

impl Jiffies {
    /// The first line of `stat`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user and nice already.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let counts: Vec<u64> = line.split_whitespace().map_while(|count| count.parse().ok()).take(8).collect();
        let [_, _, _, idle, iowait, ..] = counts[..] else { return None };
        let total: u64 = counts.iter().sum();
        Some(Self { busy: total - idle - iowait, total })
    }
}

/// The load of the whole machine between two readings.
pub struct LoadMeter {
    stat: PathBuf,
    last: Option<Jiffies>,
}

impl LoadMeter {
    pub fn new(proc: &Path) -> Self {
        Self { stat: proc.join("stat"), last: None }
    }

    /// Load since the reading before, 0 to 1; `None` the first time, and when too little time has passed for the kernel to
    /// have counted any.
    ///
    /// Errors: a sentence.
    pub fn read(&mut self) -> Result<Option<f64>, String> {
        let text = fs::read_to_string(&self.stat).map_err(|err| format!("{}: {err}", self.stat.display()))?;
        let now = Jiffies::parse(&text).ok_or_else(|| format!("{}: no line of all processors", self.stat.display()))?;
        let Some(before) = self.last else {
            self.last = Some(now);
            return Ok(None);
        };
        let total = now.total.saturating_sub(before.total);
        if total == 0 {
            return Ok(None);
        }
        self.last = Some(now);
        Ok(Some((now.busy.saturating_sub(before.busy) as f64 / total as f64).min(1.0)))
    }
}

/// What the model takes a processor's power from.
#[derive(Clone, Debug, PartialEq)]
pub struct DesignPower {
    pub watts: Watts,
    pub text: String,
}

impl DesignPower {
    /// `given` watts of all sockets together; else `known`, a table's entry per socket; else what the threads come to.
    pub fn of(processors: &Processors, given: Option<Watts>, known: Option<(&str, f64)>) -> Self {
        let sockets = processors.sockets;
        let (watts, why) = match (given, known) {
            (Some(Watts(watts)), _) => (watts, "given".to_owned()),
            (None, Some((name, each))) if sockets == 1 => (each, name.to_owned()),
            (None, Some((name, each))) => (each * f64::from(sockets), format!("{sockets} × {name}")),
            (None, None) if processors.threads > 0 => {
                let (model, threads) =
                    (processors.model.as_deref().unwrap_or("a processor without a name"), processors.threads);
                let watts = WATTS_PER_THREAD * f64::from(threads);
                (watts, format!("{WATTS_PER_THREAD} W for each of {threads} threads, since no table knows {model}"))
            }
            (None, None) => (UNKNOWN_WATTS, "an unknown machine".to_owned()),
        };
        Self { watts: Watts(watts), text: why }
    }
}

/// The model as a sensor.
pub struct LoadModel {
    design: DesignPower,
    load: LoadMeter,
    last: Option<Duration>,
    /// The load that was read last, for spans too short to have one.
    before: f64,
}

impl LoadModel {
    /// `None` where the machine's load cannot be read.
    pub fn new(design: DesignPower, proc: &Path) -> Option<Self> {
        let mut load = LoadMeter::new(proc);
        load.read().ok()?;
        Some(Self { design, load, last: None, before: 0.0 })
    }

    /// Power at a load of 0 to 1.
    pub fn power(design: Watts, load: f64) -> Watts {
        design * (0.1 + 0.9 * load.powi(3))
    }
}

impl Sensor for LoadModel {
    fn source(&self) -> Source {
        let DesignPower { watts, text } = &self.design;
        Source { kind: Kind::Estimated, text: format!("{} W × (0.1 + 0.9 load³): {text}", watts.0) }
    }

    fn poll(&mut self, now: Duration) -> Polled {
        let load = match self.load.read() {
            Ok(load) => load.unwrap_or(self.before),
            Err(why) => return Polled::Missed(why),
        };
        self.before = load;
        match self.last.replace(now) {
            None => Polled::Begins,
            Some(then) => Polled::Used(Self::power(self.design.watts, load).over(now.saturating_sub(then))),
        }
    }

    fn utilization(&mut self) -> Option<f64> {
        Some(self.before * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_are_told_from_four_threads() {
        let cpuinfo: String = (0..4)
            .map(|i| {
                format!("processor\t: {i}\nmodel name\t: AMD EPYC 7763 64-Core Processor\nphysical id\t: {}\n\n", i / 2)
            })
            .collect();
        let found = Processors::parse(&cpuinfo, false);
        assert_eq!((found.sockets, found.threads), (2, 4));
        let design = DesignPower::of(&found, None, Some(("AMD EPYC 7763", 280.0)));
        assert_eq!((design.watts.0, design.text.as_str()), (560.0, "2 × AMD EPYC 7763"));
        assert_eq!(DesignPower::of(&found, Some(Watts(400.0)), Some(("AMD EPYC 7763", 280.0))).watts.0, 400.0);
        assert_eq!(DesignPower::of(&found, None, None).watts.0, 16.0);
        let nothing = Processors::parse("", false);
        assert_eq!((nothing.sockets, DesignPower::of(&nothing, None, None).watts.0), (1, 85.0));
    }

    #[test]
    fn the_load_is_of_the_time_between_two_readings() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("stat"), text).unwrap();
        let mut load = LoadMeter::new(folder.path());
        write("cpu  100 50 50 700 100 0 0 0 30 20\ncpu0 1 2 3\n");
        assert_eq!(load.read(), Ok(None));
        assert_eq!(load.read(), Ok(None), "no jiffy has passed");
        // 30 + 10 + 10 busy of 200; guests are not counted twice, waiting is not work, stolen time is.
        write("cpu  130 60 50 830 120 0 0 10 60 40\n");
        assert_eq!(load.read(), Ok(Some(0.25)));
        write("cpu  nonsense\n");
        assert!(load.read().is_err());
    }

    #[test]
    fn the_model_is_a_tenth_at_rest_and_all_under_load() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("stat"), text).unwrap();
        write("cpu  0 0 0 0 0 0 0 0\n");
        let design = DesignPower { watts: Watts(200.0), text: "given".into() };
        let mut model = LoadModel::new(design, folder.path()).unwrap();
        assert_eq!(model.poll(Duration::ZERO), Polled::Begins);
        for (second, line, joules) in [
            (1, "cpu  0 0 0 200 0 0 0 0", 20.0),
            (2, "cpu  200 0 0 200 0 0 0 0", 200.0),
            (3, "cpu  300 0 0 300 0 0 0 0", 42.5),
        ] {
            write(line);
            let Polled::Used(used) = model.poll(Duration::from_secs(second)) else { panic!("{second}") };
            assert!((used.0 - joules).abs() < 1e-9, "{second}: {used:?}");
        }
        fs::remove_file(folder.path().join("stat")).unwrap();
        assert!(matches!(model.poll(Duration::from_secs(4)), Polled::Missed(_)));
    }
}
