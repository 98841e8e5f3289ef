//! Parameters that no layer of ours has, with the initial values a person names; and where training stands, for their passes.

use tch::{Device, Kind, Tensor};

use super::{Registry, Scope};
use crate::nn::rows::Place;
use crate::nn::{NnError, NnResult};

/// What a parameter starts with. Random values are keyed by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f64),
    Normal {
        std: f64,
    },
    /// Uniform in ±√(6/(fan_in + fan_out)) (Glorot and Bengio 2010).
    Xavier,
    /// Uniform in ±√(6/fan_in), for what a ReLU follows (He et al. 2015, arXiv:1502.01852).
    Kaiming,
}

impl Scope {
    /// A trained tensor of any shape.
    ///
    /// Errors: [`NnError::Config`] for Xavier or Kaiming without two dimensions: `[outputs, inputs, …]`.
    pub fn parameter(&self, name: &str, shape: &[i64], init: Init, decay: bool) -> NnResult<Tensor> {
        let mut rng = self.rng(name);
        let count = shape.iter().product::<i64>();
        let mut uniform = |bound: f64| (0..count).map(|_| (2.0 * rng.uniform() - 1.0) * bound as f32).collect();
        let values: Vec<f32> = match init {
            Init::Constant(value) => {
                return self.add(name, &Tensor::f_full(shape, value, (Kind::Float, Device::Cpu))?, decay);
            }
            Init::Normal { std } => (0..count).map(|_| (rng.normal() * std) as f32).collect(),
            Init::Xavier => {
                let (fan_in, fan_out) = fans(shape)?;
                uniform((6.0 / (fan_in + fan_out)).sqrt())
            }
            Init::Kaiming => uniform((6.0 / fans(shape)?.0).sqrt()),
        };
        self.add(name, &Tensor::f_from_slice(&values)?.f_reshape(shape)?, decay)
    }
}

/// Inputs and outputs of one value, a kernel's size counted in both.
fn fans(shape: &[i64]) -> NnResult<(f64, f64)> {
    let [outputs, inputs, kernel @ ..] = shape else {
        let message = format!("init: expected a shape of two or more dimensions for xavier and kaiming, got {shape:?}");
        return Err(NnError::Config(message));
    };
    let kernel = kernel.iter().product::<i64>() as f64;
    Ok((*inputs as f64 * kernel, *outputs as f64 * kernel))
}

/// Where the passes of a model stand that are made without a batch.
#[derive(Clone, Copy, Default)]
pub(super) struct Standing {
    step: u64,
    epoch: u64,
    pass: u64,
    in_run: bool,
}

impl Registry {
    /// A run begins this step: what is random in passes until the next one is keyed by it.
    pub fn begin_step(&self, step: u64, epoch: u64) {
        self.standing.set(Standing { step, epoch, pass: 0, in_run: true });
    }

    /// The place of the next pass that no batch gives one. The passes of a run's step are its micro-batches; without a run
    /// every pass is a step.
    pub fn next_place(&self) -> Place {
        let Standing { step, epoch, pass, in_run } = self.standing.get();
        let next = if in_run { (step, pass + 1) } else { (step + 1, 0) };
        self.standing.set(Standing { step: next.0, epoch, pass: next.1, in_run });
        Place { seed: self.seed, step, epoch, micro: pass, micro_batches: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_drawn_by_name_within_their_bounds() {
        let draw = |name: &str, init| {
            let registry = Registry::new(3, Device::Cpu, Kind::Float);
            let _ = registry.root().parameter("other", &[5], Init::Normal { std: 1.0 }, true).unwrap();
            registry.root().parameter(name, &[30, 20], init, true).unwrap()
        };
        let alone = Registry::new(3, Device::Cpu, Kind::Float);
        let alone = alone.root().parameter("w", &[30, 20], Init::Xavier, true).unwrap();
        assert_eq!(alone, draw("w", Init::Xavier));
        assert_ne!(alone, draw("v", Init::Xavier));
        for (init, bound) in [(Init::Xavier, (6.0_f64 / 50.0).sqrt()), (Init::Kaiming, (6.0_f64 / 20.0).sqrt())] {
            let most = draw("w", init).abs().max().double_value(&[]);
            assert!(most <= bound && most > 0.95 * bound, "{init:?}: {most}");
        }
        let std = draw("w", Init::Normal { std: 0.5 }).std(true).double_value(&[]);
        assert!((std - 0.5).abs() < 0.05, "{std}");
        assert!(fans(&[3]).is_err());
        assert_eq!(fans(&[8, 4, 3, 3]).unwrap(), (36.0, 72.0));
    }

    #[test]
    fn passes_of_a_runs_step_are_its_micro_batches() {
        let registry = Registry::new(0, Device::Cpu, Kind::Float);
        let at = |registry: &Registry| {
            let place = registry.next_place();
            (place.step, place.micro)
        };
        assert_eq!([at(&registry), at(&registry)], [(0, 0), (1, 0)]);
        registry.begin_step(7, 0);
        assert_eq!([at(&registry), at(&registry)], [(7, 0), (7, 1)]);
        registry.begin_step(8, 1);
        assert_eq!(at(&registry), (8, 0));
    }
}
