//! What a run costs: energy by component, each figure with its source, and the emissions that come of it.
//!
//! The method is codecarbon 3's, so that figures can be compared (docs/energy.md has the differences). Sensors ([`nvml`],
//! [`rapl`]) and models ([`cpu`], [`ram`]) are polled by a [`meter`]'s thread; an [`account`] keeps what each has come to and
//! what is missing. What is not known is absent, never zero.

pub mod account;
pub mod carbon;
pub mod config;
pub mod cpu;
pub mod emissions;
pub mod intensity;
pub mod live;
pub mod machine;
pub mod meter;
pub mod nvml;
pub mod ram;
pub mod rapl;
pub mod reading;
mod sampler;
pub mod sensor;
pub mod summary;
pub mod tdp;
pub mod units;
