//! What tests of single layers share: tensors drawn by name, a decorrelated linear map to train, and R seen from outside.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.
#![allow(dead_code)] // Every test program compiles this file and uses its own part of it.

use std::rc::Rc;

use dbp_host::nn::{DecorOptions, Linear, Parameter, Pass, Place, Registry, RowSampler};
use dbp_host::random::{Key, Rng, Stream, hash_name};
use tch::{Device, Kind, Tensor};

pub const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// The random numbers that go by this name.
pub fn rng(what: &str) -> Rng {
    Key::new(0, Stream::Script).index(hash_name(what)).rng()
}

/// Standard normal, float64.
pub fn normal(rng: &mut Rng, shape: &[i64]) -> Tensor {
    let drawn: Vec<f64> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
    Tensor::from_slice(&drawn).reshape(shape)
}

pub fn place(step: u64) -> Place {
    Place { seed: 7, step, epoch: 0, micro: 0, micro_batches: 1 }
}

/// R, all blocks in their places. Shapes: `[d, d]`, float64.
pub fn dense_r(registry: &Registry) -> Tensor {
    let layers = registry.decorrelated();
    let [layer] = layers.as_slice() else { panic!("{} decorrelated layers", layers.len()) };
    layer.dense_r().unwrap().unwrap().squeeze_dim(0).to_kind(Kind::Double)
}

/// `E[z zᵀ]`. Shapes: `[n, d]` → `[d, d]`.
pub fn second_moment(z: &Tensor) -> Tensor {
    z.tr().matmul(z) / z.size()[0] as f64
}

/// `C`: the second moment without its diagonal.
pub fn off_diagonal(second: &Tensor) -> Tensor {
    second - second.diagonal(0, 0, 1).diag(0)
}

/// The largest |correlation| between two columns, uncentered.
pub fn max_correlation(z: &Tensor) -> f64 {
    let second = second_moment(z);
    let deviation = second.diagonal(0, 0, 1).sqrt();
    max_abs(&off_diagonal(&(&second / deviation.outer(&deviation))))
}

pub fn max_abs(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

pub fn is_finite(x: &Tensor) -> bool {
    x.isfinite().all().int64_value(&[]) == 1
}

/// The length of the longest row.
pub fn longest_row(r: &Tensor) -> f64 {
    r.square().sum_dim_intlist(1, false, r.kind()).sqrt().max().double_value(&[])
}

/// A parameter's gradient, all of it.
pub fn gradient(registry: &Registry, name: &str) -> Tensor {
    let mut found = None;
    let visit = |parameter: &Parameter| -> Result<(), ()> {
        if parameter.name == name {
            found = parameter.gradient().unwrap();
        }
        Ok(())
    };
    registry.each_parameter(visit).unwrap();
    found.unwrap()
}

/// One decorrelated linear map, `layer`.
pub struct Single {
    pub registry: Rc<Registry>,
    pub layer: Rc<Linear>,
}

impl Single {
    pub fn new(kind: Kind, (inputs, outputs): (i64, i64), options: &DecorOptions) -> Self {
        tch::set_num_threads(1); // Of this test's thread: beside others on busy cores, threads that wait take ten times as long.
        let registry = Registry::new(0, Device::Cpu, kind);
        let layer = Linear::new(&registry.root().sub("layer"), inputs, outputs).unwrap();
        assert_eq!(registry.decorrelate(&["layer".to_owned()], options).unwrap(), ["layer"]);
        Self { registry, layer }
    }

    /// A pass and an update of R, W left alone; what the person who watches should hear.
    pub fn step(&self, x: &Tensor, step: u64) -> Vec<String> {
        self.pass(x, place(step));
        self.registry.update_decorrelation().unwrap()
    }

    /// A training pass without gradients.
    pub fn pass(&self, x: &Tensor, place: Place) {
        let sampler = RowSampler::new(&place, Device::Cpu);
        let _ = tch::no_grad(|| self.layer.forward(x, Pass::train(&place, &sampler))).unwrap();
    }

    /// Shapes: `[d, d]`, float64.
    pub fn r(&self) -> Tensor {
        dense_r(&self.registry)
    }

    /// Outputs without a trace.
    pub fn evaluate(&self, x: &Tensor) -> Tensor {
        tch::no_grad(|| self.layer.forward(x, Pass::EVALUATE)).unwrap()
    }

    /// A tensor of the state, by the name behind `layer.`.
    pub fn tensor(&self, name: &str) -> Tensor {
        let name = format!("layer.{name}");
        self.registry.state().into_iter().find(|(other, _)| *other == name).unwrap().1
    }
}
