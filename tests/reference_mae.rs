//! The model and the rule against an independent PyTorch implementation (`tests/reference/mae.py`): losses, gradients,
//! predictions, and all weights and every R after some steps, on the fused and on the two-step path.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use std::collections::HashMap;

use dbp_host::nn::{DecorOptions, Mae, MaeConfig, Pass, Path, Place, RowSampler, Sample, VitConfig};
use dbp_host::train::{AdamWConfig, Optimizer};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

struct Case {
    config: Value,
    tensors: HashMap<String, Tensor>,
}

fn load(name: &str) -> Case {
    let (config, tensors) = common::reference(name);
    Case { config, tensors }
}

impl Case {
    fn int(&self, key: &str) -> i64 {
        self.config[key].as_i64().unwrap()
    }

    fn float(&self, key: &str) -> f64 {
        self.config[key].as_f64().unwrap()
    }

    fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the reference has no {name}"))
    }

    fn named<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        self.tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    fn config(&self) -> MaeConfig {
        let size = |i: usize| self.config["image_size"][i].as_i64().unwrap();
        MaeConfig {
            encoder: VitConfig {
                image_size: (size(0), size(1)),
                patch_size: self.int("patch_size"),
                channels: self.int("in_chans"),
                embed_dim: self.int("embed_dim"),
                depth: self.int("depth"),
                num_heads: self.int("num_heads"),
                mlp_ratio: self.float("mlp_ratio"),
                drop_path: 0.0,
            },
            decoder_embed_dim: self.int("decoder_embed_dim"),
            decoder_depth: self.int("decoder_depth"),
            decoder_num_heads: self.int("decoder_num_heads"),
            mask_ratio: self.float("mask_ratio"),
            norm_pix: self.config["norm_pix"].as_bool().unwrap(),
        }
    }

    /// The model with the reference's initial weights, R = I.
    fn model(&self, kind: Kind) -> Mae {
        let model = Mae::new(&self.config(), 0, kind, Device::Cpu).unwrap();
        let state: Vec<_> = self.named("init.").map(|(name, t)| (name.to_owned(), t.to_kind(kind))).collect();
        model.registry().load_state(&state).unwrap();
        if self.config["decorrelate"].as_bool().unwrap() {
            let options = DecorOptions {
                lr: self.float("decor_lr"),
                kappa: self.float("kappa"),
                sample: Sample::Fraction(self.float("sample_fraction")),
                max_norm: 0.0,
                project: false,
                ..Default::default()
            };
            model.registry().decorrelate(&["encoder.**".to_owned()], &options).unwrap();
        }
        model
    }

    fn optimizer(&self, model: &Mae) -> Optimizer {
        let config = AdamWConfig {
            lr: self.float("lr"),
            beta1: self.config["betas"][0].as_f64().unwrap(),
            beta2: self.config["betas"][1].as_f64().unwrap(),
            weight_decay: self.float("weight_decay"),
            eps: self.float("eps"),
            layer_decay: 1.0,
        };
        Optimizer::new(model.registry().clone(), config).unwrap()
    }

    /// Forward and backward of one step; the micro-batches' losses.
    fn forward(&self, model: &Mae, step: i64, kind: Kind, path: Path) -> Vec<f64> {
        let micro_batches = self.int("micro_batches");
        let losses = (0..micro_batches).map(|micro| {
            let place = Place {
                seed: 0,
                step: step as u64,
                epoch: 0,
                micro: micro as u64,
                micro_batches: micro_batches as u64,
            };
            let mut sampler = RowSampler::new(&place, Device::Cpu);
            for (count, rows) in self.named(&format!("rows.{step}.{micro}.")) {
                sampler = sampler.with_fixed(count.parse().unwrap(), rows.shallow_clone());
            }
            let pass = Pass { path, ..Pass::train(&place, &sampler) };
            let get = |what: &str| self.get(&format!("{what}.{step}.{micro}")).to_kind(kind);
            let loss = model.loss_with(&get("images"), &get("noise"), pass).unwrap();
            (&loss / micro_batches as f64).backward();
            loss.double_value(&[])
        });
        losses.collect()
    }
}

fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{name}");
    let difference = (got - want).abs().max().double_value(&[]);
    let scale = want.abs().max().double_value(&[]).max(1.0);
    assert!(difference <= tolerance * scale, "{name} differs by {difference:e}");
}

/// The whole case in float64 on one path, to 1e-9.
fn check(name: &str, path: Path) {
    let case = load(name);
    let model = case.model(Kind::Double);
    let optimizer = case.optimizer(&model);
    for step in 0..case.int("steps") {
        for (micro, loss) in case.forward(&model, step, Kind::Double, path).into_iter().enumerate() {
            let want = case.get(&format!("loss.{step}.{micro}")).double_value(&[]);
            assert!((loss - want).abs() <= 1e-9, "{name} {path:?} step {step}: loss {loss}, reference {want}");
        }
        if step == 0 {
            model
                .registry()
                .each_parameter(|parameter| -> Result<(), ()> {
                    let got = parameter.gradient().unwrap().unwrap();
                    assert_close(&parameter.name, &got, case.get(&format!("grad.{}", parameter.name)), 1e-9);
                    Ok(())
                })
                .unwrap();
        }
        optimizer.step(case.float("lr")).unwrap();
        for (layer, metrics) in model.registry().layer_metrics().unwrap() {
            let want = |what: &str| case.get(&format!("{what}.{step}.{layer}")).double_value(&[]);
            assert!((metrics.decor_loss - want("decor_loss")).abs() <= 1e-9, "{layer} step {step}");
            assert!((metrics.mean_abs_corr - want("corr")).abs() <= 1e-9, "{layer} step {step}");
        }
        model.registry().update_decorrelation().unwrap();
    }
    let last = case.int("steps") - 1;
    let state: HashMap<String, Tensor> = model.registry().state().into_iter().collect();
    for (parameter, want) in case.named(&format!("after.{last}.")) {
        assert_close(parameter, &state[parameter], want, 1e-9);
    }
    for (layer, want) in case.named(&format!("R.{last}.")) {
        assert_close(layer, &state[&format!("{layer}.decorrelation")], want, 1e-9);
    }
}

#[test]
fn decorrelated_updates_agree_on_every_path() {
    for path in [Path::TwoStep, Path::Fused, Path::Cheaper] {
        check("mae_dbp", path);
    }
}

#[test]
fn kappa_and_accumulation_agree_on_every_path() {
    for path in [Path::TwoStep, Path::Fused, Path::Cheaper] {
        check("mae_dbp_kappa", path);
    }
}

#[test]
fn plain_backpropagation_agrees() {
    check("mae_bp", Path::Cheaper);
}

#[test]
fn float32_losses_agree() {
    for name in ["mae_dbp", "mae_dbp_kappa", "mae_bp"] {
        let case = load(name);
        let model = case.model(Kind::Float);
        let optimizer = case.optimizer(&model);
        for step in 0..case.int("steps") {
            for (micro, loss) in case.forward(&model, step, Kind::Float, Path::Cheaper).into_iter().enumerate() {
                let want = case.get(&format!("loss32.{step}.{micro}")).double_value(&[]);
                assert!((loss - want).abs() <= 1e-5 * want, "{name} step {step}: {loss}, reference {want}");
            }
            optimizer.step(case.float("lr")).unwrap();
            model.registry().update_decorrelation().unwrap();
        }
    }
}

#[test]
fn features_of_whole_images_agree() {
    let case = load("mae_dbp");
    let model = case.model(Kind::Double);
    let images = case.get("images.0.0").to_kind(Kind::Double);
    let features = model.encoder().forward(&images, None, Pass::EVALUATE).unwrap();
    assert_close("features", &features, load("encoder_full").get("features"), 1e-9);
}

#[test]
fn fusing_keeps_the_outputs() {
    let case = load("mae_dbp");
    let model = case.model(Kind::Double);
    let optimizer = case.optimizer(&model);
    case.forward(&model, 0, Kind::Double, Path::Cheaper);
    optimizer.step(0.01).unwrap();
    model.registry().update_decorrelation().unwrap();
    let images = case.get("images.0.0").to_kind(Kind::Double);
    let before = model.encoder().forward(&images, None, Pass::EVALUATE).unwrap();
    model.registry().fuse().unwrap();
    assert!(model.registry().decorrelated().is_empty());
    let after = model.encoder().forward(&images, None, Pass::EVALUATE).unwrap();
    assert_close("fused features", &after, &before, 1e-12);
}
