//! Single decorrelated layers against an independent PyTorch implementation (`tests/reference/decor.py`): full, blocked
//! and low-rank R, convolutions, accumulation, projection and bounded rows. Losses and metrics of ten steps, the first
//! gradients, and weights and R after the first step and the last, in float64 to 1e-9, however R is applied.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::collections::HashMap;
use std::rc::Rc;

use dbp_host::nn::{
    BlockWidth, Conv2d, Conv2dConfig, DecorOptions, LayerNorm, Linear, Pass, Path, Place, Registry, RowSampler, Sample,
};
use dbp_host::train::{AdamWConfig, Optimizer};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

const TOLERANCE: f64 = 1e-9;

struct Case {
    config: Value,
    tensors: HashMap<String, Tensor>,
}

/// The case's layer, with the norm in front of it if it has one.
type Forward = Box<dyn Fn(&Tensor, Pass) -> Tensor>;

fn load(name: &str) -> Case {
    let (config, tensors) = common::reference(&format!("decor_{name}"));
    Case { config, tensors }
}

impl Case {
    fn int(&self, key: &str) -> i64 {
        self.config[key].as_i64().unwrap_or_else(|| panic!("config: {key}"))
    }

    fn float(&self, key: &str) -> f64 {
        self.config[key].as_f64().unwrap_or_else(|| panic!("config: {key}"))
    }

    fn flag(&self, key: &str) -> bool {
        self.config[key].as_bool().unwrap_or_else(|| panic!("config: {key}"))
    }

    /// Down and across.
    fn sides(&self, key: &str) -> (i64, i64) {
        (self.config[key][0].as_i64().unwrap(), self.config[key][1].as_i64().unwrap())
    }

    fn get(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the reference has no {name}")).shallow_clone()
    }

    fn scalar(&self, name: &str) -> f64 {
        self.get(name).double_value(&[])
    }

    /// The layer `layer`, behind the norm `norm` where the case has one.
    fn build(&self, registry: &Rc<Registry>) -> Forward {
        let scope = registry.root().sub("layer");
        if self.config["kind"] == "conv" {
            let config = Conv2dConfig {
                in_channels: self.int("in_channels"),
                out_channels: self.int("out_channels"),
                kernel: self.sides("kernel"),
                stride: self.sides("stride"),
                padding: self.sides("padding"),
                dilation: self.sides("dilation"),
                groups: self.int("groups"),
                bias: true,
            };
            let conv = Conv2d::new(&scope, &config).unwrap();
            return Box::new(move |x: &Tensor, pass: Pass| conv.forward(x, pass).unwrap());
        }
        let (inputs, outputs) = (self.int("d"), self.int("o"));
        if self.flag("norm") {
            let norm = LayerNorm::new(&registry.root().sub("norm"), inputs).unwrap();
            let layer = Linear::new(&scope, inputs, outputs).unwrap();
            layer.behind(&norm);
            return Box::new(move |x: &Tensor, pass: Pass| layer.forward(&norm.forward(x).unwrap(), pass).unwrap());
        }
        let layer = Linear::new(&scope, inputs, outputs).unwrap();
        Box::new(move |x: &Tensor, pass: Pass| layer.forward(x, pass).unwrap())
    }

    fn decorrelate(&self, registry: &Registry) {
        let options = DecorOptions {
            lr: self.float("decor_lr"),
            kappa: self.float("kappa"),
            sample: Sample::Rows(self.int("rows")),
            project: self.flag("project"),
            max_norm: self.float("max_norm"),
            rank: self.int("rank"),
            block: match self.int("block") {
                0 => BlockWidth::Whole,
                width => BlockWidth::Width(width),
            },
            ..DecorOptions::default()
        };
        assert_eq!(registry.decorrelate(&["layer".to_owned()], &options).unwrap(), ["layer"]);
    }

    /// The reference's initial parameters, and V at low rank; R stays I.
    fn load_initial(&self, registry: &Registry) {
        let mut left = self.tensors.keys().filter(|name| name.starts_with("init.")).count();
        let mut state = Vec::new();
        for (name, tensor) in registry.state() {
            let Some(initial) = self.tensors.get(&format!("init.{name}")) else {
                assert!(name.starts_with("layer.decorrelation"), "the reference has no {name}");
                state.push((name, tensor.copy()));
                continue;
            };
            left -= 1;
            state.push((name, initial.to_kind(Kind::Double)));
        }
        assert_eq!(left, 0, "the layer lacks a parameter of the reference");
        registry.load_state(&state).unwrap();
    }

    fn optimizer(&self, registry: &Rc<Registry>) -> Optimizer {
        let config = AdamWConfig {
            lr: self.float("lr"),
            beta1: self.config["betas"][0].as_f64().unwrap(),
            beta2: self.config["betas"][1].as_f64().unwrap(),
            weight_decay: self.float("weight_decay"),
            eps: self.float("eps"),
            layer_decay: 1.0,
        };
        Optimizer::new(Rc::clone(registry), config).unwrap()
    }

    /// Forward and backward of one micro-batch; its loss.
    fn backward(&self, forward: &Forward, step: i64, micro: i64, path: Path) -> f64 {
        let micro_batches = self.int("micro_batches");
        let place =
            Place { seed: 0, step: step as u64, epoch: 0, micro: micro as u64, micro_batches: micro_batches as u64 };
        let get = |what: &str| self.get(&format!("{what}.{step}.{micro}"));
        let (x, target) = (get("x").to_kind(Kind::Double), get("target").to_kind(Kind::Double));
        let total = target.numel() as i64 / target.size()[1]; // Rows, or positions of all images: all but the outputs.
        let sampler = RowSampler::new(&place, Device::Cpu).with_fixed(total, get("rows"));
        let y = forward(&x, Pass { path, ..Pass::train(&place, &sampler) });
        assert_eq!(y.size(), target.size());
        let loss = (y - target).square().mean(Kind::Double);
        (&loss / micro_batches as f64).backward();
        loss.double_value(&[])
    }
}

/// R, whichever way it is kept: `[d, d]`, or `[k, b, b]` in k blocks.
fn dense(state: &HashMap<String, Tensor>) -> Tensor {
    if let Some(r) = state.get("layer.decorrelation") {
        return r.shallow_clone();
    }
    let (u, v) = (&state["layer.decorrelation_u"], &state["layer.decorrelation_v"]); // [d, r]
    Tensor::eye(u.size()[0], (u.kind(), u.device())) + u.matmul(&v.tr())
}

fn assert_close(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{name}");
    let difference = (got - want).abs().max().double_value(&[]);
    let scale = want.abs().max().double_value(&[]).max(1.0);
    assert!(difference <= TOLERANCE * scale, "{name} differs by {difference:e}");
}

/// The whole case on one path.
fn replay(name: &str, path: Path) {
    let case = load(name);
    let registry = Registry::new(0, Device::Cpu, Kind::Double);
    let forward = case.build(&registry);
    case.decorrelate(&registry);
    case.load_initial(&registry);
    let optimizer = case.optimizer(&registry);
    for step in 0..case.int("steps") {
        let at = format!("{name} {path:?} step {step}");
        let check = |what: &str, got: f64, want: f64| {
            assert!((got - want).abs() <= TOLERANCE, "{at}: {what} {got}, reference {want}");
        };
        for micro in 0..case.int("micro_batches") {
            let loss = case.backward(&forward, step, micro, path);
            check("loss", loss, case.scalar(&format!("loss.{step}.{micro}")));
        }
        if step == 0 {
            registry
                .each_parameter(|parameter| -> Result<(), ()> {
                    let got = parameter.gradient().unwrap().unwrap();
                    let want = case.get(&format!("grad.{}", parameter.name));
                    assert_close(&format!("{at}: gradient of {}", parameter.name), &got, &want);
                    Ok(())
                })
                .unwrap();
        }
        optimizer.step(case.float("lr")).unwrap();
        let figures = registry.layer_metrics().unwrap();
        let [(layer, metrics)] = figures.as_slice() else { panic!("{at}: figures of {} layers", figures.len()) };
        assert_eq!(layer, "layer");
        check("decor_loss", metrics.decor_loss, case.scalar(&format!("decor_loss.{step}")));
        check("corr", metrics.mean_abs_corr, case.scalar(&format!("corr.{step}")));
        registry.update_decorrelation().unwrap();

        let after = format!("after.{step}.");
        let Some(want) = case.tensors.get(&format!("R.{step}")) else { continue };
        let state: HashMap<String, Tensor> = registry.state().into_iter().collect();
        for (parameter, want) in case.tensors.iter().filter_map(|(key, t)| Some((key.strip_prefix(&after)?, t))) {
            assert_close(&format!("{at}: {parameter}"), &state[parameter], want);
        }
        let r = dense(&state);
        // One block as wide as the layer may be kept either way.
        let r = if case.int("block") == case.config["d"] { r.squeeze_dim(0) } else { r };
        assert_close(&format!("{at}: R"), &r, want);
    }
}

fn agrees_on_every_path(name: &str) {
    for path in [Path::TwoStep, Path::Fused, Path::Cheaper] {
        replay(name, path);
    }
}

#[test]
fn many_rows_agree() {
    agrees_on_every_path("linear_many");
}

#[test]
fn rows_between_one_and_two_widths_agree() {
    agrees_on_every_path("linear_some");
}

#[test]
fn fewer_rows_than_inputs_agree() {
    agrees_on_every_path("linear_few");
}

#[test]
fn convolutions_agree() {
    agrees_on_every_path("conv");
}

#[test]
fn grouped_and_dilated_convolutions_agree() {
    agrees_on_every_path("conv_groups");
}

#[test]
fn accumulated_micro_batches_agree() {
    agrees_on_every_path("accumulate");
}

#[test]
fn the_same_rows_in_one_batch_agree() {
    agrees_on_every_path("accumulate_whole");
}

#[test]
fn full_rank_agrees() {
    agrees_on_every_path("rank_full");
}

#[test]
fn low_rank_agrees() {
    agrees_on_every_path("rank_some");
}

#[test]
fn a_single_block_agrees() {
    agrees_on_every_path("block_one");
}

#[test]
fn blocks_agree() {
    agrees_on_every_path("blocks");
}

#[test]
fn projection_behind_a_norm_agrees() {
    agrees_on_every_path("project");
}

#[test]
fn rows_that_stop_agree() {
    agrees_on_every_path("max_norm");
}
