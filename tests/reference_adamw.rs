//! The fused AdamW against PyTorch's plain one over 100 steps (`tests/reference/adamw.py` says with which weights, gradients and
//! rates).

use dbp_host::libtorch::{AdamWStep, fused_adamw};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 100;
const KEPT: [u64; 3] = [10, 50, 100];

fn rate(step: u64) -> f64 {
    let s = step as f64;
    if step < 10 { 0.02 * (1.0 + s) / 10.0 } else { 0.02 * (1.0 + (std::f64::consts::PI * s / 100.0).cos()) / 2.0 }
}

/// Weights after the kept steps.
fn train(size: usize, weight_decay: f64, kind: Kind) -> Vec<Vec<f64>> {
    let row = |f: &dyn Fn(f64) -> f64| {
        Tensor::from_slice(&(0..size).map(|i| f(i as f64)).collect::<Vec<f64>>()).to_kind(kind)
    };
    let weight = row(&|i| (i + 1.0).cos());
    let [m, v] = [(); 2].map(|()| weight.zeros_like());
    let steps = Tensor::zeros([] as [i64; 0], (Kind::Float, Device::Cpu));
    let mut kept = Vec::new();
    for step in 0..STEPS {
        let gradient = 0.3 * &weight + row(&|i| (0.7 * i + 1.3 * step as f64).sin());
        let with = AdamWStep { lr: rate(step), beta1: 0.9, beta2: 0.95, weight_decay, eps: 1e-8 };
        let one = |tensor: &Tensor| [tensor.shallow_clone()];
        fused_adamw(&one(&weight), &[gradient], &one(&m), &one(&v), &one(&steps), with).unwrap();
        if KEPT.contains(&(step + 1)) {
            kept.push(Vec::<f64>::try_from(weight.to_kind(Kind::Double)).unwrap());
        }
    }
    kept
}

fn read(file: &SafeTensors, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::F64 => view.data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => view.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    }
}

#[test]
fn a_hundred_steps_are_pytorchs() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/adamw.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for (kind, tolerance) in [("float64", 1e-12), ("float32", 1e-6)] {
        for (name, size, decay) in [("decayed", 37, 0.05), ("plain", 11, 0.0)] {
            let ours = train(size, decay, if kind == "float64" { Kind::Double } else { Kind::Float });
            for (step, ours) in KEPT.iter().zip(ours) {
                let theirs = read(&file, &format!("{kind}.{name}.{step}"));
                assert_eq!(ours.len(), theirs.len());
                for (a, b) in ours.iter().zip(&theirs) {
                    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{kind} {name} step {step}: {a} {b}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 2 * 3 * (37 + 11));
}
