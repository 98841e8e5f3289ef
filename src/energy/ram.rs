//! Memory by a model, as codecarbon 3 has it: no sensor shows what modules draw. The number of modules is guessed from the
//! size; each draws 5 W (ARM 1.5 W), those beyond the fourth, eighth and sixteenth 0.9, 0.8 and 0.7 of that; together at
//! least 10 W (ARM 3 W).

use std::path::Path;
use std::time::Duration;

use super::sensor::{Kind, Polled, Sensor, Source};
use super::units::Watts;

const GIB: f64 = (1u64 << 30) as f64;

/// What `/proc/meminfo` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    pub total_gib: f64,
    pub available_gib: f64,
}

impl Memory {
    /// `None` where there is no such file.
    pub fn read(proc: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(proc.join("meminfo")).ok()?;
        let gib = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
            Some(kib * 1024.0 / GIB)
        };
        Some(Self { total_gib: gib("MemTotal:")?, available_gib: gib("MemAvailable:")? })
    }

    pub fn used_gib(&self) -> f64 {
        self.total_gib - self.available_gib
    }
}

/// How many modules a machine of this size is likely to have.
pub fn modules(total_gib: f64) -> u32 {
    match total_gib {
        t if t <= 2.0 => 1,
        t if t <= 16.0 => 2,
        t if t <= 64.0 => 4,
        t if t <= 128.0 => 8,
        t => {
            // The largest usual size of which the machine needs eight or more.
            let size = [128.0, 64.0, 32.0, 16.0].into_iter().find(|size| *size <= t / 8.0).unwrap_or(16.0);
            (t / size).ceil().min(32.0) as u32
        }
    }
}

/// The power of so many modules.
pub fn watts(modules: u32, arm: bool) -> Watts {
    let (each, least) = if arm { (1.5, 3.0) } else { (5.0, 10.0) };
    let share = |module: u32| match module {
        0..4 => 1.0,
        4..8 => 0.9,
        8..16 => 0.8,
        _ => 0.7,
    };
    let sum: f64 = (0..modules).map(share).sum();
    // Sums of tenths end in digits nobody means.
    Watts(((sum * each * 1e6).round() / 1e6).max(least))
}

/// A constant power: of memory modules, or given by the user.
pub struct Constant {
    watts: Watts,
    text: String,
    last: Option<Duration>,
}

impl Constant {
    pub fn new(watts: Watts, text: String) -> Self {
        Self { watts, text, last: None }
    }

    /// The model's power for this machine's memory.
    pub fn of_memory(memory: Memory, arm: bool) -> Self {
        let count = modules(memory.total_gib);
        let watts = watts(count, arm);
        let plural = if count == 1 { "" } else { "s" };
        Self::new(watts, format!("{} W: {count} module{plural}, guessed from {:.0} GiB", watts.0, memory.total_gib))
    }
}

impl Sensor for Constant {
    fn source(&self) -> Source {
        Source { kind: Kind::Estimated, text: self.text.clone() }
    }

    fn poll(&mut self, now: Duration) -> Polled {
        match self.last.replace(now) {
            None => Polled::Begins,
            Some(then) => Polled::Used(self.watts.over(now.saturating_sub(then))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_their_power_are_codecarbons() {
        // (GiB, modules, watts on x86, watts on ARM), computed with codecarbon 3.3.2's RAM._calculate_ram_power.
        let cases = [
            (1.0, 1, 10.0, 3.0),
            (8.0, 2, 10.0, 3.0),
            (23.54, 4, 20.0, 6.0),
            (64.0, 4, 20.0, 6.0),
            (125.0, 8, 38.0, 11.4),
            (251.5, 16, 70.0, 21.0),
            (503.0, 16, 70.0, 21.0),
            (1007.0, 16, 70.0, 21.0),
            (2015.0, 16, 70.0, 21.0),
            (6000.0, 32, 126.0, 37.8),
        ];
        for (gib, count, x86, arm) in cases {
            assert_eq!(modules(gib), count, "{gib} GiB");
            assert!((watts(count, false).0 - x86).abs() < 1e-9, "{gib} GiB: {:?}", watts(count, false));
            assert!((watts(count, true).0 - arm).abs() < 1e-9, "{gib} GiB: {:?}", watts(count, true));
        }
    }
}
