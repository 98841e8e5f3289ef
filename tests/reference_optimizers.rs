//! Optimizers against the code of their authors or of PyTorch (`tests/reference/optimizers.py`): SGD, Muon and schedule-free
//! AdamW over 25 steps with changing rates, on square, tall and wide matrices, one of them q, k and v in one.
//!
//! In float64 to 1e-11 of the largest weight, in float32 to 2e-6. Muon is compared with the reference without its cast
//! to bfloat16; with it, updates agree to some 2 %, which is what the cast costs.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::collections::HashMap;
use std::rc::Rc;

use dbp_host::nn::{Linear, NnError, Registry};
use dbp_host::train::{AdamWConfig, AdjustLr, MuonConfig, Optimizer, OptimizerConfig, ScheduleFreeConfig, SgdConfig};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

struct Reference {
    config: Value,
    tensors: HashMap<String, Tensor>,
}

impl Reference {
    fn load() -> Self {
        let (config, tensors) = common::reference("optimizers");
        Self { config, tensors }
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    /// The layers at their first weights.
    fn model(&self, kind: Kind) -> (Rc<Registry>, Vec<Rc<Linear>>) {
        let registry = Registry::new(0, Device::Cpu, kind);
        let mut layers = Vec::new();
        for (name, shape) in self.config["layers"].as_object().unwrap() {
            let scope = name.split('.').fold(registry.root(), |scope, part| scope.sub(part));
            layers.push(Linear::new(&scope, shape[1].as_i64().unwrap(), shape[0].as_i64().unwrap()).unwrap());
        }
        let mut state = registry.state();
        for (name, tensor) in &mut state {
            *tensor = self.get(&format!("init.{name}")).shallow_clone();
        }
        registry.load_state(&state).unwrap();
        (registry, layers)
    }

    fn cases(&self) -> Vec<&str> {
        self.config["cases"].as_object().unwrap().keys().map(String::as_str).collect()
    }
}

fn float(config: &Value, key: &str) -> f64 {
    config[key].as_f64().unwrap_or_else(|| panic!("config: {key}"))
}

fn flag(config: &Value, key: &str) -> bool {
    config[key].as_bool().unwrap_or_else(|| panic!("config: {key}"))
}

fn configured(config: &Value) -> OptimizerConfig {
    let of = |key: &str| float(config, key);
    match config["optimizer"].as_str().unwrap() {
        "sgd" => OptimizerConfig::Sgd(SgdConfig {
            lr: of("lr"),
            momentum: of("momentum"),
            nesterov: flag(config, "nesterov"),
            weight_decay: of("weight_decay"),
            layer_decay: of("layer_decay"),
        }),
        "muon" => {
            let own = &config["adamw"];
            OptimizerConfig::Muon(MuonConfig {
                lr: of("lr"),
                momentum: of("momentum"),
                nesterov: flag(config, "nesterov"),
                weight_decay: of("weight_decay"),
                ns_steps: config["ns_steps"].as_u64().unwrap() as u32,
                adjust_lr: match config["adjust_lr"].as_str().unwrap() {
                    "original" => AdjustLr::Original,
                    _ => AdjustLr::MatchRmsAdamW,
                },
                split_qkv: flag(config, "split_qkv"),
                hidden: Vec::new(),
                layer_decay: of("layer_decay"),
                adamw: AdamWConfig {
                    lr: float(own, "lr"),
                    beta1: float(own, "beta1"),
                    beta2: float(own, "beta2"),
                    weight_decay: float(own, "weight_decay"),
                    ..AdamWConfig::default()
                },
            })
        }
        _ => OptimizerConfig::ScheduleFree(ScheduleFreeConfig {
            lr: of("lr"),
            beta1: of("beta1"),
            beta2: of("beta2"),
            weight_decay: of("weight_decay"),
            warmup_steps: config["warmup_steps"].as_u64().unwrap(),
            r: of("r"),
            weight_lr_power: of("weight_lr_power"),
            layer_decay: of("layer_decay"),
            ..ScheduleFreeConfig::default()
        }),
    }
}

/// The rate of a step, as the reference has it.
fn rate(config: &Value, step: i64) -> f64 {
    let step = step as f64;
    float(config, "lr") * if step < 8.0 { (step + 1.0) / 8.0 } else { 1.0 - (step - 8.0) / 25.0 }
}

/// Leaves the gradient of `k/2 w² + noise · w` in every parameter.
fn backward(reference: &Reference, model: &Registry, step: i64) {
    let curvature = float(&reference.config, "curvature");
    model
        .each_parameter(|parameter| -> Result<(), NnError> {
            let w = &parameter.tensor;
            let noise = reference.get(&format!("noise.{step}.{}", parameter.name)).to_kind(w.kind());
            (w * w * (curvature / 2.0) + noise * w).sum(w.kind()).backward();
            Ok(())
        })
        .unwrap();
}

/// The largest difference over all parameters, relative to the largest weight.
fn gap(reference: &Reference, model: &Registry, prefix: &str) -> f64 {
    let mut worst: f64 = 0.0;
    for (name, got) in model.state() {
        let want = reference.get(&format!("{prefix}.{name}")).to_kind(Kind::Double);
        let off = (got.to_kind(Kind::Double) - &want).abs().max() / want.abs().max();
        worst = worst.max(off.double_value(&[]));
    }
    worst
}

/// Trains a case and compares where the reference was kept; `after` names what it was kept as.
fn compare(reference: &Reference, case: &str, kind: Kind, digits: &str, tolerance: f64) {
    let config = &reference.config["cases"][case];
    let (model, _layers) = reference.model(kind);
    let optimizer = Optimizer::new(Rc::clone(&model), configured(config)).unwrap();
    let kept: Vec<i64> = reference.config["kept"].as_array().unwrap().iter().map(|s| s.as_i64().unwrap()).collect();
    let mut compared = 0;
    for step in 0..reference.config["steps"].as_i64().unwrap() {
        backward(reference, &model, step);
        optimizer.step(rate(config, step)).unwrap();
        if !kept.contains(&(step + 1)) {
            continue;
        }
        let off = gap(reference, &model, &format!("{case}.after{digits}.{}", step + 1));
        assert!(off < tolerance, "{case}, {kind:?}, step {}: {off:.1e}", step + 1);
        compared += 1;
        if config["optimizer"] == "schedule_free" {
            optimizer.set_averaged(true).unwrap();
            let off = gap(reference, &model, &format!("{case}.average{digits}.{}", step + 1));
            assert!(off < tolerance, "{case}, {kind:?}, the average of step {}: {off:.1e}", step + 1);
            optimizer.set_averaged(false).unwrap();
        }
    }
    assert_eq!(compared, kept.len());
}

#[test]
fn every_optimizer_agrees_with_its_reference_in_float64() {
    let reference = Reference::load();
    assert_eq!(reference.cases().len(), 7);
    for case in reference.cases() {
        compare(&reference, case, Kind::Double, "", 1e-11);
    }
}

#[test]
fn every_optimizer_agrees_with_its_reference_in_float32() {
    let reference = Reference::load();
    for case in reference.cases() {
        compare(&reference, case, Kind::Float, "32", 2e-6);
    }
}

/// How far the first update of each hidden matrix is from the reference's that rounds to bfloat16, relative to its size.
#[test]
fn muon_differs_from_the_rounding_reference_by_the_rounding() {
    let reference = Reference::load();
    for case in ["muon", "muon_original"] {
        let config = &reference.config["cases"][case];
        let (model, _layers) = reference.model(Kind::Float);
        let optimizer = Optimizer::new(Rc::clone(&model), configured(config)).unwrap();
        backward(&reference, &model, 0);
        optimizer.step(rate(config, 0)).unwrap();
        let mut matrices = 0;
        for (name, got) in model.state() {
            let first = reference.get(&format!("init.{name}"));
            let (ours, theirs) = (got - first, reference.get(&format!("{case}.rounded.1.{name}")) - first);
            let off = ((&ours - &theirs).norm() / theirs.norm()).double_value(&[]);
            let is_hidden = name.starts_with("blocks.") && name.ends_with(".weight");
            assert!(off < if is_hidden { 3e-2 } else { 1e-4 }, "{case}, {name}: {off:.1e}");
            matrices += i64::from(is_hidden && off > 1e-4); // The cast is in there.
        }
        assert!(matrices > 0, "{case}");
    }
}

/// On `w²/2` without noise, SGD with momentum is a linear recurrence; its closed form is a matrix power.
#[test]
fn sgd_on_a_quadratic_is_a_matrix_power() {
    let registry = Registry::new(0, Device::Cpu, Kind::Double);
    let w = registry.root().parameter("w", &[1], dbp_host::nn::Init::Constant(1.0), true).unwrap();
    let (lr, momentum) = (0.1, 0.8);
    let config = SgdConfig { lr, momentum, ..SgdConfig::default() };
    let optimizer = Optimizer::new(Rc::clone(&registry), config).unwrap();
    for _ in 0..30 {
        (&w * &w / 2.0).sum(Kind::Double).backward();
        optimizer.step(lr).unwrap();
    }
    // [w, b] → [w − lr (μ b + w), μ b + w], from [1, 0].
    let one = Tensor::from_slice(&[1.0 - lr, -lr * momentum, 1.0, momentum]).reshape([2, 2]);
    let want = one.matrix_power(30).double_value(&[0, 0]);
    assert!((w.double_value(&[0]) - want).abs() < 1e-14 && want.abs() < 0.2, "{want}");
}

/// At a constant rate and without warm-up, the average is the plain mean of all z, which plain steps from one another.
#[test]
fn the_average_of_a_constant_rate_is_a_plain_mean() {
    let registry = Registry::new(0, Device::Cpu, Kind::Double);
    let w = registry.root().parameter("w", &[3], dbp_host::nn::Init::Constant(1.0), true).unwrap();
    let config = ScheduleFreeConfig { lr: 0.05, weight_decay: 0.0, ..ScheduleFreeConfig::default() };
    let optimizer = Optimizer::new(Rc::clone(&registry), config).unwrap();
    let target = Tensor::from_slice(&[2.0, 0.0, -1.0]);
    let mut zs = Vec::new();
    for _ in 0..20 {
        (&w - &target).square().sum(Kind::Double).backward();
        optimizer.step(0.05).unwrap();
        let state = optimizer.state();
        zs.push(state.iter().find(|(name, _)| name == "z.w").unwrap().1.copy());
    }
    optimizer.set_averaged(true).unwrap();
    let mean = Tensor::stack(&zs, 0).mean_dim(0, false, Kind::Double);
    let off = (w.detach() - mean).abs().max().double_value(&[]);
    assert!(off < 1e-12, "{off}");
}
