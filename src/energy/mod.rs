//! What a run costs: energy by component, each figure with its source, and the emissions that come of it.

pub mod nvml;
pub mod sensor;
pub mod units;
