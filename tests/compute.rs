//! Mixed precision, activation checkpointing and gradient clipping: the same training by other means.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use dbp_host::nn::{DecorOptions, Mae, MaeConfig, Pass, Place, Precision, RowSampler, VitConfig, masking};
use dbp_host::train::{AdamWConfig, Optimizer};
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 4;
const IMAGES: i64 = 6;

fn config() -> MaeConfig {
    let encoder = VitConfig {
        image_size: (16, 24),
        patch_size: 4,
        channels: 2,
        embed_dim: 16,
        depth: 2,
        num_heads: 2,
        mlp_ratio: 4.0,
        drop_path: 0.2,
    };
    MaeConfig {
        encoder,
        decoder_embed_dim: 8,
        decoder_depth: 1,
        decoder_num_heads: 2,
        mask_ratio: 0.75,
        norm_pix: false,
    }
}

struct Setting {
    kind: Kind,
    decorrelated: bool,
    micro_batches: u64,
    precision: Precision,
    checkpointing: bool,
    clip_norm: Option<f64>,
}

const PLAIN: Setting = Setting {
    kind: Kind::Float,
    decorrelated: true,
    micro_batches: 2,
    precision: Precision::Float32,
    checkpointing: false,
    clip_norm: None,
};

/// Losses of the steps, then the model's state and the last norm of all gradients.
fn train(setting: &Setting) -> (Vec<f64>, Vec<(String, Tensor)>, Option<f64>) {
    let model = Mae::new(&config(), 3, setting.kind, Device::Cpu).unwrap();
    if setting.decorrelated {
        model
            .registry()
            .decorrelate(&["encoder.**".to_owned()], &DecorOptions { lr: 0.05, ..DecorOptions::paper() })
            .unwrap();
    }
    model.registry().compute().set_precision(setting.precision);
    model.registry().compute().set_checkpointing(setting.checkpointing);
    let optimizer = Optimizer::new(model.registry().clone(), AdamWConfig { lr: 3e-3, ..AdamWConfig::default() });
    let optimizer = optimizer.unwrap().with_clip_norm(setting.clip_norm).unwrap();
    let waves = Tensor::arange(IMAGES * 2 * 16 * 24, (Kind::Double, Device::Cpu)) * 0.7;
    let images = (waves.sin() + (&waves * &waves).cos()).view([IMAGES, 2, 16, 24]).to_kind(setting.kind);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let mut total = 0.0;
        for micro in 0..setting.micro_batches {
            let share = IMAGES / setting.micro_batches as i64;
            let place = Place { seed: 5, step, epoch: 0, micro, micro_batches: setting.micro_batches };
            let part = images.narrow(0, micro as i64 * share, share);
            let sampler = RowSampler::new(&place, Device::Cpu);
            let noise = masking::noise(&place, share, 24, Device::Cpu).unwrap();
            let loss = model.loss_with(&part, &noise, Pass::train(&place, &sampler)).unwrap();
            let loss = loss / setting.micro_batches as f64;
            total += loss.double_value(&[]);
            loss.backward();
        }
        optimizer.step(3e-3).unwrap();
        model.registry().update_decorrelation().unwrap();
        losses.push(total);
    }
    let norm = optimizer.grad_norm().map(|norm| norm.double_value(&[]));
    (losses, model.registry().state(), norm)
}

fn same(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((name, x), (other, y))| name == other && x.equal(y))
}

#[test]
fn checkpointing_changes_no_bit() {
    for decorrelated in [false, true] {
        for precision in [Precision::Float32, Precision::Bf16] {
            let plain = Setting { decorrelated, precision, ..PLAIN };
            let (losses, state, _) = train(&plain);
            let (again, again_state, _) = train(&Setting { checkpointing: true, ..plain });
            assert_eq!(losses, again);
            assert!(same(&state, &again_state), "decorrelated {decorrelated}, {precision:?}");
        }
    }
}

#[test]
fn bf16_follows_float32_with_weights_and_r_in_float32() {
    for decorrelated in [false, true] {
        let (losses, state, _) = train(&Setting { decorrelated, ..PLAIN });
        let (rounded, rounded_state, _) = train(&Setting { decorrelated, precision: Precision::Bf16, ..PLAIN });
        assert_ne!(losses, rounded);
        for (a, b) in losses.iter().zip(&rounded) {
            assert!((a - b).abs() < 0.01 * a, "{losses:?} {rounded:?}");
        }
        assert!(losses[STEPS as usize - 1] < losses[0]);
        for ((name, a), (_, b)) in state.iter().zip(&rounded_state) {
            assert_eq!(b.kind(), Kind::Float, "{name}");
            assert!((a - b).abs().max().double_value(&[]) < 0.05, "{name}");
        }
    }
}

/// What float32 rows go through on the CPU is another kernel than float64's.
#[test]
fn float32_is_float64_rounded() {
    let (losses, ..) = train(&PLAIN);
    let (exact, ..) = train(&Setting { kind: Kind::Double, ..PLAIN });
    for (a, b) in losses.iter().zip(&exact) {
        assert!((a - b).abs() < 1e-5 * b, "{losses:?} {exact:?}");
    }
}

#[test]
fn gradients_are_clipped_together() {
    // Far above every norm it changes nothing, and says how long they are.
    let (losses, state, none) = train(&PLAIN);
    let (same_losses, same_state, norm) = train(&Setting { clip_norm: Some(1e6), ..PLAIN });
    assert!(none.is_none() && norm.is_some_and(|norm| norm > 0.0));
    assert_eq!(losses, same_losses);
    assert!(same(&state, &same_state));
    let clipped = train(&Setting { clip_norm: Some(1e-12), ..PLAIN }); // Below AdamW's eps nothing moves but by decay.
    assert!(clipped.0[STEPS as usize - 1] > losses[STEPS as usize - 1]);
}

#[test]
fn a_clip_norm_of_nothing_is_refused() {
    let model = Mae::new(&config(), 3, Kind::Float, Device::Cpu).unwrap();
    for wrong in [0.0, -1.0, f64::NAN] {
        let optimizer = Optimizer::new(model.registry().clone(), AdamWConfig::default()).unwrap();
        let message = optimizer.with_clip_norm(Some(wrong)).err().unwrap().to_string();
        assert!(message.starts_with("clip_norm: expected more than 0, got "), "{message}");
    }
}
