//! What a model consists of: its parameters, its fixed tensors and its decorrelatable layers, by dotted name.
//!
//! Layers register themselves through a [`Scope`] while they are built, so a field and its checkpoint key are named once.
//! Initial values are drawn by name from the run's seed: adding a layer, or decorrelating one, changes no other layer's.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::linear::Linear;
use super::metrics::{LastFigures, LayerMetrics};
use super::options::DecorOptions;
use super::pattern::select;
use super::{NnError, NnResult};
use crate::random::{Key, Rng, Stream, hash_name};

/// A trained tensor.
pub struct Parameter {
    pub name: String,
    pub tensor: Tensor,
    /// Whether weight decay applies: not to biases, norms and tokens.
    pub decay: bool,
    /// The layer whose weight this is, if it can be decorrelated: its gradient may come through `A = W R`.
    layer: Option<Rc<Linear>>,
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
    parameters: RefCell<Vec<Parameter>>,
    /// Saved but never trained: position embeddings.
    fixed: RefCell<Vec<(String, Tensor)>>,
    layers: RefCell<Vec<Rc<Linear>>>,
    /// The weight learning rate over its peak, for schedules that follow it.
    lr_fraction: Cell<f64>,
}

impl Registry {
    pub fn new(seed: u64, device: Device, kind: Kind) -> Rc<Self> {
        Rc::new(Self {
            seed,
            device,
            kind,
            parameters: RefCell::default(),
            fixed: RefCell::default(),
            layers: RefCell::default(),
            lr_fraction: Cell::new(1.0),
        })
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn kind(&self) -> Kind {
        self.kind
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
        self.layers.borrow().iter().for_each(|layer| layer.invalidate());
        Ok(())
    }

    /// Tells the model where its weight learning rate stands relative to its peak.
    pub fn set_lr_fraction(&self, fraction: f64) {
        self.lr_fraction.set(fraction);
    }

    pub fn lr_fraction(&self) -> f64 {
        self.lr_fraction.get()
    }

    /// Every layer that can be decorrelated.
    pub fn layers(&self) -> Vec<Rc<Linear>> {
        self.layers.borrow().clone()
    }

    /// The layers that are decorrelated.
    pub fn decorrelated(&self) -> Vec<Rc<Linear>> {
        self.layers.borrow().iter().filter(|layer| layer.is_decorrelated()).cloned().collect()
    }

    /// The names of the layers that `patterns` choose.
    ///
    /// Errors: options outside their range, or a pattern that matches nothing.
    pub fn select(&self, patterns: &[String], options: &DecorOptions) -> NnResult<Vec<String>> {
        options.check()?; // Also for [], so that a typo does not wait for the run that uses it.
        let layers = self.layers.borrow();
        let names: Vec<&str> = layers.iter().map(|layer| layer.name()).collect();
        Ok(select(&names, patterns)?.into_iter().map(str::to_owned).collect())
    }

    /// Gives every layer that `patterns` choose an R = I, and takes it from every other one. Returns the chosen names.
    ///
    /// Errors: options outside their range, or a pattern that matches nothing.
    pub fn decorrelate(&self, patterns: &[String], options: &DecorOptions) -> NnResult<Vec<String>> {
        let chosen = self.select(patterns, options)?;
        for layer in self.layers.borrow().iter() {
            if chosen.iter().any(|name| name == layer.name()) {
                layer.decorrelate(options.clone(), self.kind, self.device)?;
            } else {
                layer.drop_decorrelation();
            }
        }
        Ok(chosen)
    }

    /// One update of every R from this step's sampled rows.
    pub fn update_decorrelation(&self) -> NnResult<()> {
        let fraction = self.lr_fraction.get();
        self.layers.borrow().iter().try_for_each(|layer| layer.update_decorrelation(fraction))
    }

    /// Stops every R where it is; each stays applied.
    pub fn freeze_decorrelation(&self) {
        self.layers.borrow().iter().for_each(|layer| layer.freeze_decorrelation());
    }

    /// Restores which layers are frozen, by name.
    pub fn set_frozen(&self, names: &[String]) {
        for layer in self.layers.borrow().iter().filter(|layer| names.iter().any(|name| name == layer.name())) {
            layer.freeze_decorrelation();
        }
    }

    /// η at this point of its schedule, of the first decorrelated layer; `None` for plain back-propagation.
    pub fn decor_rate(&self) -> Option<f64> {
        self.layers.borrow().iter().find_map(|layer| layer.decor_rate(self.lr_fraction.get()))
    }

    /// The mean over layers of the decorrelation loss at the last update, left on the device; `None` without one.
    pub fn decor_loss(&self) -> NnResult<Option<Tensor>> {
        let mut losses = Vec::new();
        for layer in self.layers.borrow().iter() {
            losses.extend(layer.decor_loss()?);
        }
        if losses.is_empty() {
            return Ok(None);
        }
        Ok(Some(Tensor::f_stack(&losses, 0)?.f_mean(self.kind)?))
    }

    /// Figures of every decorrelated layer at its last update.
    pub fn layer_metrics(&self) -> NnResult<Vec<(String, LayerMetrics)>> {
        let mut all = Vec::new();
        for layer in self.layers.borrow().iter() {
            if let Some(metrics) = layer.metrics()? {
                all.push((layer.name().to_owned(), metrics));
            }
        }
        Ok(all)
    }

    /// What a checkpoint keeps of every layer's last update; figures that are not finite are left out.
    pub fn last_figures(&self) -> NnResult<Vec<(String, LastFigures)>> {
        let mut all = Vec::new();
        for layer in self.layers.borrow().iter() {
            let finite = |figures: &LastFigures| {
                let LastFigures { quick_loss, metrics } = figures;
                [*quick_loss, metrics.decor_loss, metrics.mean_abs_corr].iter().all(|figure| figure.is_finite())
            };
            all.extend(layer.last_figures()?.filter(finite).map(|figures| (layer.name().to_owned(), figures)));
        }
        Ok(all)
    }

    /// Puts back what [`Self::last_figures`] said.
    pub fn set_last_figures(&self, all: &[(String, LastFigures)]) {
        for layer in self.layers.borrow().iter() {
            if let Some((_, figures)) = all.iter().find(|(name, _)| name == layer.name()) {
                layer.set_last_figures(*figures);
            }
        }
    }

    /// Folds every R into its weight, `W ← W R`, and drops it: outputs stay the same.
    pub fn fuse(&self) -> NnResult<()> {
        self.layers.borrow().iter().try_for_each(|layer| layer.fuse())
    }

    /// Everything a checkpoint holds: parameters, fixed tensors, and each R as `<layer>.decorrelation`.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state: Vec<(String, Tensor)> =
            self.parameters.borrow().iter().map(|p| (p.name.clone(), p.tensor.detach())).collect();
        state.extend(self.fixed.borrow().iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
        state.extend(self.layers.borrow().iter().filter_map(|layer| layer.matrix()));
        state
    }

    /// Takes over a state of the same names and shapes.
    ///
    /// Errors: the first name that is missing, unexpected, or of another shape. Nothing is changed by an incomplete state.
    pub fn load_state(&self, state: &[(String, Tensor)]) -> NnResult<()> {
        let own = self.state();
        for (name, tensor) in &own {
            let (_, found) =
                state.iter().find(|(other, _)| other == name).ok_or_else(|| NnError::Missing { name: name.clone() })?;
            if found.size() != tensor.size() {
                return Err(NnError::Shape { name: name.clone(), expected: tensor.size(), found: found.size() });
            }
        }
        if let Some((name, _)) = state.iter().find(|(name, _)| !own.iter().any(|(own, _)| own == name)) {
            return Err(NnError::Unexpected { name: name.clone() });
        }
        tch::no_grad(|| -> NnResult<()> {
            for (name, mut tensor) in own {
                if let Some((_, found)) = state.iter().find(|(other, _)| *other == name) {
                    tensor.f_copy_(found)?;
                }
            }
            Ok(())
        })?;
        self.layers.borrow().iter().for_each(|layer| layer.invalidate());
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

    /// Registers a layer that can be decorrelated and whose weight is `weight`.
    pub fn decorrelatable(&self, layer: &Rc<Linear>, weight: &Tensor) {
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
