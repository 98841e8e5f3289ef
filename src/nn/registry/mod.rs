//! What a model consists of: its parameters, its fixed tensors and its decorrelatable layers, by dotted name.
//!
//! Layers register themselves through a [`Scope`] while they are built, so a field and its checkpoint key are named once.
//! Initial values are drawn by name from the run's seed: adding a layer, or decorrelating one, changes no other layer's.

mod decorrelation;
mod initial;

pub use initial::Init;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::architecture::{Architecture, TrainedOn};
use super::auto::{AutoConfig, Progress};
use super::compute::Compute;
use super::layer::Layer;
use super::{NnError, NnResult};
use crate::random::{Key, Rng, Stream, hash_name};

/// A trained tensor.
pub struct Parameter {
    pub name: String,
    pub tensor: Tensor,
    /// Whether weight decay applies: not to biases, norms and tokens.
    pub decay: bool,
    /// The layer whose weight this is, if it can be decorrelated: its gradient may come through `A = W R`.
    layer: Option<Rc<Layer>>,
}

impl Parameter {
    /// The gradient since it was last cleared, the fused path's share folded in; `None` if nothing reached it.
    pub fn gradient(&self) -> NnResult<Option<Tensor>> {
        let direct = Some(self.tensor.f_grad()?).filter(Tensor::defined);
        let folded = match &self.layer {
            Some(layer) => layer.folded_gradient()?,
            None => None,
        };
        Ok(match (direct, folded) {
            (Some(direct), Some(folded)) => Some(direct.f_add(&folded)?),
            (direct, folded) => direct.or(folded),
        })
    }
}

/// A model's parts. Built through [`Registry::root`].
pub struct Registry {
    seed: u64,
    device: Device,
    kind: Kind,
    compute: Rc<Compute>,
    parameters: RefCell<Vec<Parameter>>,
    /// Saved but never trained: position embeddings.
    fixed: RefCell<Vec<(String, Tensor)>>,
    layers: RefCell<Vec<Rc<Layer>>>,
    /// Multiply-adds of the last training pass's products that no layer has: attention's own.
    products: RefCell<Vec<Rc<Cell<i64>>>>,
    auto: RefCell<Option<(AutoConfig, Progress)>>,
    /// The weight learning rate over its peak, for schedules that follow it.
    lr_fraction: Cell<f64>,
    /// What model this is, for its files; `None` for a layer on its own.
    architecture: RefCell<Option<Architecture>>,
    trained_on: RefCell<Option<TrainedOn>>,
    standing: Cell<initial::Standing>,
    /// How often weights were loaded or fused.
    replaced: Cell<u64>,
}

impl Registry {
    pub fn new(seed: u64, device: Device, kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            seed,
            device,
            kind,
            compute: Rc::default(),
            parameters: RefCell::default(),
            fixed: RefCell::default(),
            layers: RefCell::default(),
            products: RefCell::default(),
            auto: RefCell::default(),
            lr_fraction: Cell::new(1.0),
            architecture: RefCell::default(),
            trained_on: RefCell::default(),
            standing: Cell::default(),
            replaced: Cell::default(),
        })
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How this model computes.
    pub fn compute(&self) -> &Rc<Compute> {
        &self.compute
    }

    /// The scope with no prefix.
    pub fn root(self: &Rc<Self>) -> Scope {
        Scope { registry: Rc::clone(self), prefix: String::new() }
    }

    /// Calls `visit` on every parameter, in the order of their making.
    pub fn each_parameter<E>(&self, mut visit: impl FnMut(&Parameter) -> Result<(), E>) -> Result<(), E> {
        self.parameters.borrow().iter().try_for_each(&mut visit)
    }

    /// Number of trained values.
    pub fn parameter_count(&self) -> i64 {
        self.parameters.borrow().iter().map(|parameter| parameter.tensor.numel() as i64).sum()
    }

    /// Clears gradients and what was cached of the weights: call after an optimizer step.
    pub fn after_step(&self) -> NnResult<()> {
        let tensors: Vec<Tensor> = self.parameters.borrow().iter().map(|p| p.tensor.shallow_clone()).collect();
        crate::libtorch::clear_grads(&tensors)?;
        self.forget_products();
        Ok(())
    }

    /// Drops what was computed of the weights and kept: call after they have changed.
    pub fn forget_products(&self) {
        self.layers.borrow().iter().for_each(|layer| layer.invalidate());
    }

    /// How often all weights were replaced, by loading or fusing: one that remembers them has to begin anew.
    pub fn replaced(&self) -> u64 {
        self.replaced.get()
    }

    /// Tells the model where its weight learning rate stands relative to its peak.
    pub fn set_lr_fraction(&self, fraction: f64) {
        self.lr_fraction.set(fraction);
    }

    pub fn lr_fraction(&self) -> f64 {
        self.lr_fraction.get()
    }

    /// Says what model this is.
    pub fn set_architecture(&self, architecture: Architecture) {
        *self.architecture.borrow_mut() = Some(architecture);
    }

    pub fn architecture(&self) -> Option<Architecture> {
        self.architecture.borrow().clone()
    }

    /// What its images are normalized with, and its classes: a file of the model says it.
    pub fn set_trained_on(&self, trained_on: Option<TrainedOn>) {
        *self.trained_on.borrow_mut() = trained_on;
    }

    pub fn trained_on(&self) -> Option<TrainedOn> {
        self.trained_on.borrow().clone()
    }

    /// Every layer that can be decorrelated.
    pub fn layers(&self) -> Vec<Rc<Layer>> {
        self.layers.borrow().clone()
    }

    /// Everything a checkpoint holds: parameters, fixed tensors, and each R as `<layer>.decorrelation`, or
    /// `….decorrelation_u` and `…_v` for one of low rank.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = self.weights();
        state.extend(self.layers.borrow().iter().flat_map(|layer| layer.r_tensors()));
        state
    }

    /// Parameters and fixed tensors, without any R.
    fn weights(&self) -> Vec<(String, Tensor)> {
        let parameters = self.parameters.borrow();
        let mut weights: Vec<_> = parameters.iter().map(|p| (p.name.clone(), p.tensor.detach())).collect();
        weights.extend(self.fixed.borrow().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
        weights
    }

    /// The same with every R folded into its weight, `W R`; the model itself stays as it is.
    pub fn fused_state(&self) -> NnResult<Vec<(String, Tensor)>> {
        let layers = self.layers.borrow();
        let own = self.state();
        let find = |name: &str| own.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor);
        let mut state = self.weights();
        for layer in layers.iter() {
            let fused = layer.weight_with_r(find)?;
            let name = format!("{}.weight", layer.name());
            if let (Some((_, fused)), Some(place)) = (fused, state.iter_mut().find(|(other, _)| *other == name)) {
                place.1 = fused;
            }
        }
        Ok(state)
    }

    /// Takes over the tensors whose names begin with `prefix`, and leaves the others as they are.
    ///
    /// Errors: the first such name that `state` does not have, or has in another shape. Then nothing has changed.
    pub fn load_part(&self, prefix: &str, state: &[(String, Tensor)]) -> NnResult<()> {
        let mut whole = self.state();
        for (name, tensor) in whole.iter_mut().filter(|(name, _)| name.starts_with(prefix)) {
            let found = state.iter().find(|(other, _)| other == name);
            let (_, found) = found.ok_or_else(|| NnError::Missing { name: name.clone() })?;
            *tensor = found.shallow_clone();
        }
        self.load_state(&whole)
    }

    /// Takes over a checkpoint of the very same layers, for going on with its run.
    ///
    /// Errors: those of [`Self::load_state`], and an R that only the checkpoint or only the model has.
    pub fn resume_state(&self, state: &[(String, Tensor)]) -> NnResult<()> {
        let own = self.state();
        if let Some((name, _)) = own.iter().find(|(name, _)| !state.iter().any(|(other, _)| other == name)) {
            return Err(NnError::Missing { name: name.clone() });
        }
        if let Some((name, _)) = state.iter().find(|(name, _)| !own.iter().any(|(other, _)| other == name)) {
            return Err(NnError::Unexpected { name: name.clone() });
        }
        self.load_state(state)
    }

    /// Takes over a checkpoint, fused or not. A layer that is decorrelated here takes its R, or R = I if the checkpoint has
    /// none; a layer that is not takes `W R` for its weight.
    ///
    /// Errors: the first name that is missing, unexpected, or of another shape. Then nothing has changed.
    pub fn load_state(&self, state: &[(String, Tensor)]) -> NnResult<()> {
        self.refuse_pending_gradients("load")?;
        let find = |name: &str| state.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor);
        let layers = self.layers.borrow();
        let mut sources = Vec::new(); // (own tensor, what it takes)
        for (name, own) in self.weights() {
            let found = find(&name).ok_or_else(|| NnError::Missing { name: name.clone() })?;
            if found.size() != own.size() {
                return Err(NnError::Shape { name, expected: own.size(), found: found.size() });
            }
            sources.push((own, found.shallow_clone()));
        }
        let mut known: Vec<String> = self.weights().into_iter().map(|(name, _)| name).collect();
        for layer in layers.iter() {
            known.extend(
                ["decorrelation", "decorrelation_u", "decorrelation_v"].map(|r| format!("{}.{r}", layer.name())),
            );
        }
        if let Some((name, _)) = state.iter().find(|(name, _)| !known.contains(name)) {
            return Err(NnError::Unexpected { name: name.clone() });
        }
        for layer in layers.iter() {
            if layer.is_decorrelated() {
                sources.extend(layer.r_sources(find)?);
            } else if let Some(weight) = layer.weight_with_r(find)? {
                sources.push(weight);
            }
        }
        tch::no_grad(|| sources.into_iter().try_for_each(|(own, found)| own.shallow_clone().f_copy_(&found)))?;
        layers.iter().for_each(|layer| layer.invalidate());
        self.replaced.set(self.replaced.get() + 1);
        Ok(())
    }
}

/// A prefix within a registry: `scope.sub("attn").sub("qkv")` names what is made there `….attn.qkv`.
#[derive(Clone)]
pub struct Scope {
    registry: Rc<Registry>,
    prefix: String,
}

impl Scope {
    pub fn sub(&self, part: impl std::fmt::Display) -> Self {
        let prefix = if self.prefix.is_empty() { part.to_string() } else { format!("{}.{part}", self.prefix) };
        Self { registry: Rc::clone(&self.registry), prefix }
    }

    pub fn name(&self) -> &str {
        &self.prefix
    }

    pub fn registry(&self) -> &Rc<Registry> {
        &self.registry
    }

    fn full(&self, name: &str) -> String {
        self.sub(name).prefix
    }

    fn rng(&self, name: &str) -> Rng {
        Key::new(self.registry.seed, Stream::Init).index(hash_name(&self.full(name))).rng()
    }

    fn add(&self, name: &str, values: &Tensor, decay: bool) -> NnResult<Tensor> {
        let tensor =
            values.f_to_kind(self.registry.kind)?.f_to_device(self.registry.device)?.f_set_requires_grad(true)?;
        let parameter = Parameter { name: self.full(name), tensor: tensor.shallow_clone(), decay, layer: None };
        self.registry.parameters.borrow_mut().push(parameter);
        Ok(tensor)
    }

    /// A weight, uniform in ±√(6/(fan_in + fan_out)) (Glorot and Bengio 2010), as MAE initializes every linear map.
    pub fn xavier(&self, name: &str, shape: &[i64], fan_in: i64, fan_out: i64) -> NnResult<Tensor> {
        let bound = (6.0 / (fan_in + fan_out) as f64).sqrt() as f32;
        let mut rng = self.rng(name);
        let values: Vec<f32> =
            (0..shape.iter().product::<i64>()).map(|_| (2.0 * rng.uniform() - 1.0) * bound).collect();
        self.add(name, &Tensor::f_from_slice(&values)?.f_reshape(shape)?, true)
    }

    /// A token, normal with standard deviation 0.02. Never decayed.
    pub fn token(&self, name: &str, width: i64) -> NnResult<Tensor> {
        let mut rng = self.rng(name);
        let values: Vec<f32> = (0..width).map(|_| (rng.normal() * 0.02) as f32).collect();
        self.add(name, &Tensor::f_from_slice(&values)?.f_reshape([1, 1, width])?, false)
    }

    /// A bias or a norm's weight: one value everywhere. Never decayed.
    pub fn constant(&self, name: &str, width: i64, value: f64) -> NnResult<Tensor> {
        self.add(name, &Tensor::f_full([width], value, (Kind::Float, Device::Cpu))?, false)
    }

    /// A tensor that is saved but not trained.
    pub fn fixed(&self, name: &str, values: &Tensor) -> NnResult<Tensor> {
        let tensor = values.f_to_kind(self.registry.kind)?.f_to_device(self.registry.device)?;
        self.registry.fixed.borrow_mut().push((self.full(name), tensor.shallow_clone()));
        Ok(tensor)
    }

    /// A counter of multiply-adds that no layer has, for the cost of a step.
    pub fn products(&self) -> Rc<Cell<i64>> {
        let counter = Rc::new(Cell::new(0));
        self.registry.products.borrow_mut().push(Rc::clone(&counter));
        counter
    }

    /// Registers a layer that can be decorrelated and whose weight is `weight`.
    pub fn decorrelatable(&self, layer: &Rc<Layer>, weight: &Tensor) {
        self.registry.layers.borrow_mut().push(Rc::clone(layer));
        let name = self.full("weight");
        for parameter in self.registry.parameters.borrow_mut().iter_mut() {
            if parameter.name == name {
                debug_assert_eq!(parameter.tensor.size(), weight.size());
                parameter.layer = Some(Rc::clone(layer));
            }
        }
    }
}
