//! Energy, power, carbon intensity and emissions, each in its unit. Joules and watts inside, kWh and kg in reports.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Energy in joules.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Joules(pub f64);

impl Joules {
    pub const ZERO: Self = Self(0.0);

    pub fn kwh(self) -> f64 {
        self.0 / 3.6e6
    }
}

impl Add for Joules {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Joules {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Mul<f64> for Joules {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}

impl Sum for Joules {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::ZERO, Add::add)
    }
}

/// Power in watts.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watts(pub f64);

impl Watts {
    /// As NVML states it.
    pub fn from_milliwatts(count: u32) -> Self {
        Self(f64::from(count) / 1e3)
    }

    /// The energy that this power comes to in `time`.
    pub fn over(self, time: Duration) -> Joules {
        Joules(self.0 * time.as_secs_f64())
    }
}

impl Mul<f64> for Watts {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self(self.0 * factor)
    }
}

/// Emissions per energy, in grams of CO₂ equivalent per kWh.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GramsPerKwh(pub f64);

impl GramsPerKwh {
    /// The emissions of `energy`, in kg of CO₂ equivalent.
    pub fn kg_of(self, energy: Joules) -> f64 {
        self.0 * 1e-3 * energy.kwh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_convert() {
        assert_eq!(Joules(3.6e6).kwh(), 1.0);
        assert_eq!(Watts::from_milliwatts(250_000).over(Duration::from_secs(2)).0, 500.0);
        assert!((GramsPerKwh(475.0).kg_of(Joules(7.2e6)) - 0.95).abs() < 1e-12);
    }
}
