//! Vision pre-training experiments as short Rhai scripts on libtorch: decorrelated back-propagation (DBP) inside masked
//! autoencoders, after "Decorrelation Speeds Up Vision Transformers" (arXiv:2510.14657).
//!
//! Modules import one way: `host → train → {nn, data, energy} → libtorch`; [`random`], [`schedule`] and
//! [`confusion`] stand below all of them.
//! `ARCHITECTURE.md` says why, and `tests/architecture.rs` holds it.

pub mod confusion;
pub mod data;
pub mod energy;
pub mod host;
pub mod libtorch;
pub mod nn;
pub mod random;
pub mod report;
pub mod schedule;
pub mod train;
