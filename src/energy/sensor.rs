//! What every sensor has in common: it is polled, and says what was used since it last answered.

use std::time::Duration;

use super::units::{Joules, Watts};

/// Where a figure comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub kind: Kind,
    /// For people: `RAPL package-0`, `8 W TDP × load`.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Read from a sensor of the hardware.
    Measured,
    /// Computed from a model of the hardware.
    Estimated,
}

/// A sensor's answer to one poll.
#[derive(Clone, Debug, PartialEq)]
pub enum Polled {
    /// Nothing yet: from here on it counts.
    Begins,
    /// The energy used since the last poll that was answered.
    Used(Joules),
    /// The read failed, for this reason. The sensor keeps its last good value: the next answer covers this span too.
    Missed(String),
    /// The counter began anew or makes no sense: what was used since the last good poll is unknown, for this reason. From
    /// here on it counts again.
    Reset(String),
    /// Nothing is known of the time since the last good poll, for this reason. From here on it counts again.
    Unknown(String),
}

/// Something that energy can be read from. It lives on the sampler's thread and may block it, never the training.
pub trait Sensor: Send {
    fn source(&self) -> Source;

    /// `now` is the time since the meter was made; it only grows.
    fn poll(&mut self, now: Duration) -> Polled;

    /// How busy the device is, 0 to 100 %, where that is known; of the time since the last call.
    fn utilization(&mut self) -> Option<f64> {
        None
    }
}

/// Counters tick every 1 to 100 ms.
const STANDS_STILL_S: f64 = 0.9;

/// Turns readings of a counter into energy used: knows how it wraps, and when it cannot be right.
#[derive(Clone, Debug)]
pub struct Counter {
    /// Joules per count.
    unit: f64,
    /// The count at which it starts again at 0.
    wraps_at: Option<u64>,
    /// More than the device draws, in watts: a counter that ran faster has been reset.
    most_watts: f64,
    last: Option<(Duration, u64)>,
}

impl Counter {
    pub fn new(joules_per_count: f64, wraps_at: Option<u64>, most: Watts) -> Self {
        Self { unit: joules_per_count, wraps_at, most_watts: most.0, last: None }
    }

    /// A counter's value at `now`, or why it could not be read.
    pub fn read(&mut self, now: Duration, value: Result<u64, String>) -> Polled {
        let value = match value {
            Ok(value) => value,
            Err(why) => return Polled::Missed(why),
        };
        let Some((then, before)) = self.last else {
            self.last = Some((now, value));
            return Polled::Begins;
        };
        let seconds = now.saturating_sub(then).as_secs_f64();
        if value == before {
            // No device draws nothing. The count stays, and covers this time too once it moves again.
            return if seconds < STANDS_STILL_S {
                Polled::Used(Joules::ZERO)
            } else {
                Polled::Missed(format!("the counter stands still since {seconds:.0} s"))
            };
        }
        self.last = Some((now, value));
        if let Some(range) = self.wraps_at
            && self.most_watts * seconds > range as f64 * self.unit
        {
            return Polled::Unknown(format!(
                "{seconds:.0} s without a reading: nobody knows how often the counter wrapped"
            ));
        }
        let used = match self.wraps_at {
            _ if value >= before => value - before,
            Some(range) if range >= before => range - before + value,
            _ => return Polled::Reset(format!("the counter fell from {before} to {value}")),
        };
        // A second more, for counters that move in strides.
        match used as f64 * self.unit {
            joules if joules <= self.most_watts * (seconds + 1.0) => Polled::Used(Joules(joules)),
            joules => Polled::Reset(format!("the counter moved by {joules:.0} J in {seconds:.1} s: it began anew")),
        }
    }
}

/// Turns samples of power into energy: the trapezoid between two of them.
#[derive(Clone, Debug, Default)]
pub struct Trapezoid {
    last: Option<(Duration, f64)>,
    /// Why the last read failed.
    broken: Option<String>,
}

impl Trapezoid {
    /// Watts at `now`, or why they could not be read. A failed read ends the span: the power in it is unknown.
    pub fn read(&mut self, now: Duration, watts: Result<f64, String>) -> Polled {
        let watts = match watts {
            Ok(watts) => watts,
            Err(why) => {
                self.broken = Some(why.clone());
                return Polled::Missed(why);
            }
        };
        let before = self.last.replace((now, watts));
        match (before, self.broken.take()) {
            (None, _) => Polled::Begins,
            (Some(_), Some(why)) => Polled::Unknown(why),
            (Some((then, before)), None) => {
                Polled::Used(Joules((before + watts) / 2.0 * now.saturating_sub(then).as_secs_f64()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_counter_counts_wraps_and_bridges_a_missed_read() {
        let mut counter = Counter::new(1e-6, Some(262_143_328_850), Watts(1000.0));
        assert_eq!(counter.read(s(0), Ok(262_143_000_000)), Polled::Begins);
        assert_eq!(counter.read(s(1), Ok(262_143_300_000)), Polled::Used(Joules(0.3)));
        let Polled::Used(wrapped) = counter.read(s(2), Ok(71_150)) else { panic!() };
        assert!((wrapped.0 - 0.1).abs() < 1e-9, "{wrapped:?}");
        assert_eq!(counter.read(s(3), Err("gone".into())), Polled::Missed("gone".into()));
        assert_eq!(counter.read(s(4), Ok(20_071_150)), Polled::Used(Joules(20.0)));
    }

    #[test]
    fn a_counter_that_starts_anew_is_a_reset_whether_it_could_wrap_or_not() {
        let mut endless = Counter::new(1e-3, None, Watts(2000.0));
        endless.read(s(0), Ok(5_000));
        assert!(matches!(endless.read(s(1), Ok(10)), Polled::Reset(_)));
        assert_eq!(endless.read(s(2), Ok(1_010)), Polled::Used(Joules(1.0)));
        // 262 kJ in a second is no processor's power: not a wrap.
        let mut wrapping = Counter::new(1e-6, Some(262_143_328_850), Watts(1000.0));
        wrapping.read(s(0), Ok(100_000_000_000));
        assert!(matches!(wrapping.read(s(1), Ok(1_000_000)), Polled::Reset(_)));
        assert_eq!(wrapping.read(s(2), Ok(51_000_000)), Polled::Used(Joules(50.0)));
        assert!(matches!(endless.read(s(3), Ok(u64::MAX)), Polled::Reset(_)), "a jump is not energy");
        // Half a minute apart, a counter that starts anew looks like no wrap either.
        wrapping.read(s(10), Ok(100_000_000_000));
        assert!(matches!(wrapping.read(s(40), Ok(1_000_000)), Polled::Reset(_)));
        // In five minutes it may have wrapped unseen.
        assert!(matches!(wrapping.read(s(340), Ok(2_000_000)), Polled::Unknown(_)));
        assert_eq!(wrapping.read(s(341), Ok(3_000_000)), Polled::Used(Joules(1.0)));
    }

    #[test]
    fn a_counter_that_stands_still_has_failed() {
        let mut counter = Counter::new(1e-3, None, Watts(2000.0));
        counter.read(s(0), Ok(5_000));
        assert_eq!(counter.read(Duration::from_millis(20), Ok(5_000)), Polled::Used(Joules::ZERO), "it ticks");
        assert!(matches!(counter.read(s(1), Ok(5_000)), Polled::Missed(_)));
        assert_eq!(counter.read(s(2), Ok(6_000)), Polled::Used(Joules(1.0)), "the whole time");
    }

    #[test]
    fn power_is_integrated_by_trapezoids() {
        let mut power = Trapezoid::default();
        assert_eq!(power.read(s(0), Ok(100.0)), Polled::Begins);
        assert_eq!(power.read(s(2), Ok(300.0)), Polled::Used(Joules(400.0)));
        assert_eq!(power.read(s(3), Err("lost".into())), Polled::Missed("lost".into()));
        assert_eq!(
            power.read(s(4), Ok(100.0)),
            Polled::Unknown("lost".into()),
            "nobody knows what was drawn since 2 s"
        );
        assert_eq!(power.read(s(5), Ok(100.0)), Polled::Used(Joules(100.0)));
    }
}
