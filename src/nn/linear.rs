//! A linear map `y = x Wᵀ + b` that can be decorrelated: then `y = (x Rᵀ) Wᵀ + b`.
//!
//! A patch embedding is the same map on flattened patches; its weight keeps the convolution's shape, so that checkpoints
//! agree with timm's.

use std::cell::RefCell;
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::decorrelated::Decorrelation;
use super::metrics::{LastFigures, LayerMetrics};
use super::options::DecorOptions;
use super::registry::Scope;
use super::rows::{Pass, Path};
use super::{NnError, NnResult};

pub struct Linear {
    name: String,
    weight: Tensor, // [o, d], or [o, C, p, p] with C·p·p = d
    bias: Tensor,   // [o]
    in_features: i64,
    out_features: i64,
    decorrelation: RefCell<Option<Decorrelation>>,
}

impl Linear {
    /// `d → o` features, Xavier-uniform, bias 0.
    pub fn new(scope: &Scope, in_features: i64, out_features: i64) -> NnResult<Rc<Self>> {
        Self::shaped(scope, &[out_features, in_features])
    }

    /// The same with a weight of shape `[o, …]`, whose other dimensions are the flattened input.
    pub fn shaped(scope: &Scope, shape: &[i64]) -> NnResult<Rc<Self>> {
        let (out_features, in_features) = (shape[0], shape[1..].iter().product());
        let weight = scope.xavier("weight", shape, in_features, out_features)?;
        let layer = Rc::new(Self {
            name: scope.name().to_owned(),
            weight: weight.shallow_clone(),
            bias: scope.constant("bias", out_features, 0.0)?,
            in_features,
            out_features,
            decorrelation: RefCell::new(None),
        });
        scope.decorrelatable(&layer, &weight);
        Ok(layer)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn in_features(&self) -> i64 {
        self.in_features
    }

    pub fn out_features(&self) -> i64 {
        self.out_features
    }

    /// Shapes: `[…, d]` → `[…, o]`.
    ///
    /// Errors: [`NnError::Config`] for another last dimension.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        if x.size().last() != Some(&self.in_features) {
            let message = format!("x: a layer of {} inputs was given shape {:?}", self.in_features, x.size());
            return Err(NnError::Config(message));
        }
        let weight = self.weight.f_view([self.out_features, self.in_features])?;
        let mut decorrelation = self.decorrelation.borrow_mut();
        let Some(decorrelation) = decorrelation.as_mut() else {
            return Ok(x.f_linear(&weight, Some(&self.bias))?);
        };
        let rows = x.numel() as i64 / self.in_features;
        let sampled = decorrelation.options().rows(rows);
        if let Some((place, sampler)) = pass.observe
            && decorrelation.wants_rows(place)
        {
            let flat = x.f_detach()?.f_reshape([rows, self.in_features])?;
            decorrelation.observe(place, flat.f_index_select(0, &sampler.rows(rows, sampled)?)?);
        }
        let fused = match pass.path {
            Path::Cheaper => Decorrelation::fused_is_cheaper(rows, sampled, self.out_features),
            Path::Fused => true,
            Path::TwoStep => false,
        };
        if fused {
            return Ok(x.f_linear(&decorrelation.effective(&weight)?, Some(&self.bias))?);
        }
        Ok(x.f_linear(decorrelation.matrix(), None::<&Tensor>)?.f_linear(&weight, Some(&self.bias))?)
    }

    pub fn is_decorrelated(&self) -> bool {
        self.decorrelation.borrow().is_some()
    }

    pub(super) fn decorrelate(&self, options: DecorOptions, kind: Kind, device: Device) -> NnResult<()> {
        *self.decorrelation.borrow_mut() = Some(Decorrelation::new(self.in_features, options, kind, device)?);
        Ok(())
    }

    pub(super) fn drop_decorrelation(&self) {
        *self.decorrelation.borrow_mut() = None;
    }

    pub(super) fn update_decorrelation(&self, lr_fraction: f64) -> NnResult<()> {
        match self.decorrelation.borrow_mut().as_mut() {
            Some(decorrelation) => decorrelation.update(lr_fraction),
            None => Ok(()),
        }
    }

    pub(super) fn freeze_decorrelation(&self) {
        if let Some(decorrelation) = self.decorrelation.borrow_mut().as_mut() {
            decorrelation.set_frozen(true);
        }
    }

    pub(super) fn decor_rate(&self, lr_fraction: f64) -> Option<f64> {
        self.decorrelation.borrow().as_ref().filter(|d| !d.frozen()).map(|d| d.rate(lr_fraction))
    }

    /// Whether R is applied but no longer updated.
    pub fn is_frozen(&self) -> bool {
        self.decorrelation.borrow().as_ref().is_some_and(Decorrelation::frozen)
    }

    pub(super) fn invalidate(&self) {
        if let Some(decorrelation) = self.decorrelation.borrow_mut().as_mut() {
            decorrelation.invalidate();
        }
    }

    /// The gradient that came through `A = W R`, in the weight's shape.
    pub(super) fn folded_gradient(&self) -> NnResult<Option<Tensor>> {
        let decorrelation = self.decorrelation.borrow();
        let folded = match decorrelation.as_ref() {
            Some(decorrelation) => decorrelation.folded_gradient()?,
            None => None,
        };
        Ok(folded.map(|gradient| gradient.f_view_as(&self.weight)).transpose()?)
    }

    /// R and its checkpoint name, if decorrelated.
    pub fn matrix(&self) -> Option<(String, Tensor)> {
        let decorrelation = self.decorrelation.borrow();
        decorrelation.as_ref().map(|d| (format!("{}.decorrelation", self.name), d.matrix().shallow_clone()))
    }

    pub(super) fn decor_loss(&self) -> NnResult<Option<Tensor>> {
        self.decorrelation.borrow().as_ref().map_or(Ok(None), Decorrelation::loss)
    }

    /// Figures of the inputs at the last update; `None` if not decorrelated or not updated yet.
    pub fn metrics(&self) -> NnResult<Option<LayerMetrics>> {
        self.decorrelation.borrow().as_ref().map_or(Ok(None), Decorrelation::metrics)
    }

    pub(super) fn last_figures(&self) -> NnResult<Option<LastFigures>> {
        self.decorrelation.borrow().as_ref().map_or(Ok(None), Decorrelation::last_figures)
    }

    pub(super) fn set_last_figures(&self, figures: LastFigures) {
        if let Some(decorrelation) = self.decorrelation.borrow_mut().as_mut() {
            decorrelation.set_last_figures(figures);
        }
    }

    /// `W ← W R`, and no R any more.
    pub(super) fn fuse(&self) -> NnResult<()> {
        if let Some(decorrelation) = self.decorrelation.borrow_mut().take() {
            let weight = self.weight.f_view([self.out_features, self.in_features])?;
            tch::no_grad(|| {
                let fused = weight.f_matmul(decorrelation.matrix())?.f_view_as(&self.weight)?;
                self.weight.shallow_clone().f_copy_(&fused)
            })?;
        }
        Ok(())
    }
}
