//! What a run costs: energy by component, each figure with its source, and the emissions that come of it.

pub mod intensity;
pub mod live;
pub mod sensor;
pub mod tdp;
pub mod units;
