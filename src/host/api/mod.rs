//! What scripts can call, one file per namespace.
//!
//! Each file has a `register(engine)`; adding a namespace is one line here. Functions are documented items of an
//! `#[export_module]`, from which help, reference and suggestions are made.

#![allow(clippy::unwrap_used)] // Rhai's macro makes them for `&mut` parameters, after it has checked the types.

use rhai::Engine;

mod by_hand;
mod classification;
mod compute;
pub(in crate::host) mod custom;
pub(in crate::host) mod data;
mod decorrelation;
mod energy;
mod files;
mod functional;
mod globals;
pub(in crate::host) mod models;
mod nn;
mod optim;
mod plan;
mod run;
mod schedule;
mod segmentation;
pub(in crate::host) mod tensor;
mod weights;

/// Gives `engine` everything scripts can call.
pub fn register(engine: &mut Engine) {
    globals::register(engine);
    by_hand::register(engine);
    data::register(engine);
    energy::register(engine);
    files::register(engine);
    models::register(engine);
    nn::register(engine);
    optim::register(engine);
    run::register(engine);
    schedule::register(engine);
    compute::register(engine);
    decorrelation::register(engine);
    plan::register(engine);
    tensor::register(engine);
    weights::register(engine);
}
