//! What optimizers keep and what evaluation sees: states are another optimizer's or fit; schedule-free AdamW trains at one
//! point, and validation, hooks, checkpoints and what is loaded of them are at another.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use dbp_host::nn::{DecorOptions, Linear, Pass, Place, Registry, RowSampler};
use dbp_host::train::checkpoint::read_tensors;
use dbp_host::train::{AdamWConfig, MuonConfig, Optimizer, OptimizerConfig, ScheduleFreeConfig, SgdConfig, TrainError};
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

mod common;
use common::{dbp_host, end, files_of, fill_with_pictures, json, json_lines, only_run, set};

/// A layer of a block, so that Muon takes it, and a head; both decorrelated.
struct Model {
    registry: Rc<Registry>,
    hidden: Rc<Linear>,
    head: Rc<Linear>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let registry = Registry::new(seed, Device::Cpu, Kind::Float);
        let hidden = Linear::new(&registry.root().sub("blocks").sub(0).sub("mlp").sub("fc1"), 6, 8).unwrap();
        let head = Linear::new(&registry.root().sub("head"), 8, 3).unwrap();
        registry.decorrelate(&["**".to_owned()], &DecorOptions::default()).unwrap();
        Self { registry, hidden, head }
    }

    /// A loss of rows that depend on the step alone.
    fn loss(&self, step: u64, pass: Pass) -> Tensor {
        let x = (Tensor::arange(40 * 6, (Kind::Float, Device::Cpu)) * (step + 3) as f64).sin().reshape([40, 6]);
        let y = self.head.forward(&self.hidden.forward(&x, pass).unwrap().relu(), pass).unwrap();
        (y - x.narrow(1, 0, 3)).square().mean(Kind::Float)
    }

    fn train(&self, optimizer: &Optimizer, steps: std::ops::Range<u64>) {
        for step in steps {
            let place = Place { step, ..Place::default() };
            let sampler = RowSampler::new(&place, Device::Cpu);
            self.loss(step, Pass::train(&place, &sampler)).backward();
            optimizer.step(0.01).unwrap();
            self.registry.update_decorrelation().unwrap();
        }
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        self.registry.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
    }
}

fn all() -> [(&'static str, OptimizerConfig); 5] {
    [
        ("adamw", AdamWConfig::default().into()),
        ("sgd", SgdConfig::default().into()),
        ("plain sgd", SgdConfig { momentum: 0.0, ..SgdConfig::default() }.into()),
        ("muon", MuonConfig::default().into()),
        ("schedule-free", ScheduleFreeConfig::default().into()),
    ]
}

#[test]
fn a_state_fits_its_own_kind_of_optimizer_and_no_other() {
    for (name, config) in all() {
        let model = Model::new(1);
        let optimizer = Optimizer::new(Rc::clone(&model.registry), config.clone()).unwrap();
        model.train(&optimizer, 0..4);
        let (weights, state) = (optimizer.average(model.weights()).unwrap(), optimizer.state());
        let copied: Vec<_> = state.iter().map(|(name, tensor)| (name.clone(), tensor.copy())).collect();
        let bytes: usize = state.iter().map(|(_, tensor)| tensor.numel() * 4).sum();
        assert!(bytes as u64 <= optimizer.state_bytes().unwrap() + 48, "{name}: {bytes} bytes");
        for (other, config) in all() {
            let fresh = Model::new(2);
            fresh.registry.resume_state(&weights).unwrap();
            let next = Optimizer::new(Rc::clone(&fresh.registry), config).unwrap();
            let loaded = next.load_state(&copied);
            if other == name {
                loaded.unwrap();
                assert_eq!(next.state(), copied, "{name}");
            } else if name != "plain sgd" {
                // Without momentum nothing is kept, and nothing can be wrong.
                assert!(matches!(loaded, Err(TrainError::Config(_))), "{name} in {other}");
                assert!(next.state().is_empty(), "{name} in {other}");
            }
        }
    }
}

#[test]
fn going_on_from_a_state_is_exact() {
    for (name, config) in all() {
        let whole = Model::new(1);
        let optimizer = Optimizer::new(Rc::clone(&whole.registry), config.clone()).unwrap();
        whole.train(&optimizer, 0..9);

        let first = Model::new(1);
        let before = Optimizer::new(Rc::clone(&first.registry), config.clone()).unwrap();
        first.train(&before, 0..5);
        let second = Model::new(2);
        second.registry.restore_decor_state(&first.registry.decor_state().unwrap()).unwrap();
        second.registry.resume_state(&before.average(first.weights()).unwrap()).unwrap();
        let after = Optimizer::new(Rc::clone(&second.registry), config).unwrap();
        after.load_state(&before.state()).unwrap();
        after.set_averaged(false).unwrap();
        second.train(&after, 5..9);
        assert_eq!(second.weights(), whole.weights(), "{name}");
        assert_eq!(after.state(), optimizer.state(), "{name}");
    }
}

#[test]
fn looking_at_the_average_changes_nothing() {
    let config = ScheduleFreeConfig::default();
    let models = [Model::new(1), Model::new(1)];
    let optimizers = models.each_ref().map(|model| Optimizer::new(Rc::clone(&model.registry), config.clone()).unwrap());
    for step in 0..6 {
        models[0].train(&optimizers[0], step..step + 1);
        models[1].train(&optimizers[1], step..step + 1);
        let at_y = models[1].loss(99, Pass::EVALUATE).double_value(&[]);
        let saved = optimizers[1].average(models[1].weights()).unwrap();
        optimizers[1].set_averaged(true).unwrap();
        optimizers[1].set_averaged(true).unwrap(); // Twice is once.
        assert_eq!(models[1].weights(), saved, "what is saved is what is evaluated");
        let at_x = models[1].loss(99, Pass::EVALUATE).double_value(&[]);
        assert_eq!(at_x != at_y, step > 0, "step {step}: at the first step x, y and z are one");
        optimizers[1].set_averaged(false).unwrap();
        assert_eq!(
            models[1].loss(99, Pass::EVALUATE).double_value(&[]),
            at_y,
            "nothing of x is left in what was cached"
        );
    }
    assert_eq!(models[0].weights(), models[1].weights());
    assert_eq!(optimizers[0].state(), optimizers[1].state());
}

#[test]
fn weights_that_were_loaded_or_fused_are_not_undone() {
    for fused in [false, true] {
        let model = Model::new(1);
        let optimizer = Optimizer::new(Rc::clone(&model.registry), ScheduleFreeConfig::default()).unwrap();
        model.train(&optimizer, 0..4);
        optimizer.set_averaged(true).unwrap();
        if fused {
            model.registry.fuse().unwrap();
        } else {
            model.registry.load_state(&Model::new(5).weights()).unwrap();
        }
        let put = model.weights();
        optimizer.set_averaged(false).unwrap();
        assert_eq!(model.weights(), put);
        assert!(optimizer.state().is_empty());
        model.train(&optimizer, 4..5);
        assert_ne!(model.weights(), put, "and it is trained from there");
    }
}

#[test]
fn a_model_that_outlives_its_optimizer_has_the_average() {
    let model = Model::new(1);
    let optimizer = Optimizer::new(Rc::clone(&model.registry), ScheduleFreeConfig::default()).unwrap();
    model.train(&optimizer, 0..4);
    let average = optimizer.average(model.weights()).unwrap();
    assert_ne!(model.weights(), average);
    drop(optimizer);
    assert_eq!(model.weights(), average);
}

#[test]
fn between_backward_and_step_the_average_is_refused() {
    let model = Model::new(1);
    let optimizer = Optimizer::new(Rc::clone(&model.registry), ScheduleFreeConfig::default()).unwrap();
    model.train(&optimizer, 0..2);
    let place = Place { step: 2, ..Place::default() };
    let sampler = RowSampler::new(&place, Device::Cpu);
    model.loss(2, Pass { path: dbp_host::nn::Path::Fused, ..Pass::train(&place, &sampler) }).backward();
    let message = optimizer.set_averaged(true).unwrap_err().to_string();
    assert!(message.contains("call it after the optimizer's step"), "{message}");
    optimizer.step(0.01).unwrap();
    optimizer.set_averaged(true).unwrap();
}

/// Validates at x inside of `untimed` and at y beside it, and looks at the model in a hook and after the loop.
const LOOKING: &str = r#"
import "std/mae" as mae;
run::seed(3);
let recipe = mae::recipe("nano", #{ image_size: 32, batch: 8 });
let images = data::open("pictures");
let model = mae::build(recipe, images);
model.decorrelate(["encoder.**"], recipe.dbp);
let loader = data::loader(images, #{ batch: 8, image_size: 32 });
let val = loader.validation(images);
let opt = optim::schedule_free_adamw(model, #{ lr: 0.01, warmup_steps: 2 });
let run = run::start(#{ model: model, opt: opt, loader: loader, validate_every: arg("every", 2), log_every: 1 });
fn loss(model, val) { mae::mean_over(val, |batch| model.evaluate(batch)) }
for step in run.steps(6) {
    for batch in loader.micro(step) { model.loss(batch).backward(); }
    opt.step();
    model.update_decorrelation();
    run.log(#{ train_loss: model.last_loss() });
    if run.validation_due(step) {
        run.log(#{ loss_at_y: loss(model, val), val_loss: run.untimed(|r| loss(model, val)) });
        run.log(#{ averaged: opt.averaged(|| loss(model, val)) });
    }
}
run.note("left", loss(model, val));
print(model.tensor("mask_token").sum().item());
"#;

const LOADING: &str = r#"
import "std/mae" as mae;
let model = models::load(arg("from", ""));
let images = data::open("pictures");
let val = data::loader(images, #{ batch: 8, image_size: 32 }).validation(images);
print(mae::mean_over(val, |batch| model.evaluate(batch)));
"#;

fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill_with_pictures(&folder.path().join("pictures"), 16, 0);
    fs::write(folder.path().join("looking.rhai"), LOOKING).unwrap();
    fs::write(folder.path().join("loading.rhai"), LOADING).unwrap();
    folder
}

fn run(place: &Path, runs: &str, every: &str) -> PathBuf {
    let mut command = dbp_host(place);
    command.args(["looking.rhai", "--runs", runs]);
    set(&mut command, &[("every", every)]);
    end(command).expect(0);
    only_run(&place.join(runs))
}

fn float(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn validation_and_checkpoints_are_at_the_average() {
    let place = workplace();
    let run = run(place.path(), "runs", "2");
    let lines = json_lines(&run.join("metrics.jsonl"));
    let validated: Vec<&Value> = lines.iter().filter(|line| !line["val_loss"].is_null()).collect();
    assert_eq!(validated.len(), 3);
    for line in &validated {
        assert_ne!(line["val_loss"], line["loss_at_y"]);
        assert_eq!(line["val_loss"], line["averaged"]);
    }
    assert_eq!(json(&run.join("run.json"))["left"], validated[2]["val_loss"], "the loop leaves x in the model");
    let rates: Vec<f64> = lines.iter().map(|line| float(&line["lr"])).collect();
    assert_eq!(rates, [0.005, 0.01, 0.01, 0.01, 0.01, 0.01]);

    let read = |file: &str| -> HashMap<String, Tensor> {
        read_tensors(&run.join("checkpoints/last").join(file)).unwrap().into_iter().collect()
    };
    let (model, optimizer) = (read("model.safetensors"), read("optimizer.safetensors"));
    let mut moved = 0;
    for (name, x) in model.iter().filter(|(name, _)| optimizer.contains_key(&format!("z.{name}"))) {
        let (y, z) = (&optimizer[&format!("y.{name}")], &optimizer[&format!("z.{name}")]);
        assert!((x * 0.9 + z * 0.1).allclose(y, 1e-5, 1e-7, false), "{name}: y = β₁ x + (1 − β₁) z");
        moved += usize::from(x != y);
    }
    assert!(moved > 20, "{moved}");

    let mut command = dbp_host(place.path());
    command.args(["loading.rhai", "--runs", "others"]);
    set(&mut command, &[("from", run.to_str().unwrap())]);
    let printed: f64 = end(command).expect(0).stdout.trim().parse().unwrap();
    let wanted = float(&validated[2]["val_loss"]);
    assert!((printed - wanted).abs() < 1e-6 * wanted, "{printed} {wanted}");
}

#[test]
fn how_often_it_is_looked_at_does_not_change_training() {
    let place = workplace();
    let [often, seldom] = [("often", "1"), ("seldom", "6")].map(|(runs, every)| run(place.path(), runs, every));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let bytes = |run: &Path| fs::read(run.join("checkpoints/last").join(file)).unwrap();
        assert!(bytes(&often) == bytes(&seldom), "{file}");
    }
    assert!(!files_of(&often).is_empty());
}
