//! What every layer has that can be decorrelated: a weight by name, maybe an R in front of it, maybe a probe that measures
//! its inputs. [`super::Linear`] and [`super::Conv2d`] are built around one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::compute::Compute;
use super::cost::LayerCost;
use super::decorrelated::Decorrelation;
use super::factor::Factor;
use super::guard::Look;
use super::metrics::{LastFigures, LayerMetrics, excess_correlation};
use super::norm::LayerNorm;
use super::options::DecorOptions;
use super::registry::Scope;
use super::rows::{Kept, Pass, Path};
use super::state::LayerState;
use super::{NnError, NnResult};

pub struct Layer {
    name: String,
    weight: Tensor, // [o, …] with the flattened inputs of one group
    /// Of one group: a linear map has one, a convolution may have several.
    inputs: i64,
    outputs: i64,
    groups: i64,
    compute: Rc<Compute>,
    /// γ of the LayerNorm in front, if there is one. Shapes: `[d]`.
    gamma: RefCell<Option<Tensor>>,
    decorrelation: RefCell<Option<Decorrelation>>,
    probe: RefCell<Option<Probe>>,
    /// What `"auto"` measures before it chooses: apart from what a person probes.
    measured: RefCell<Option<(DecorOptions, Kept)>>,
    /// Input rows of the last training pass, and the micro-batches of its step.
    seen: Cell<Option<(i64, u64)>>,
}

/// Measures the inputs of a layer that is not decorrelated (or whose R is frozen).
struct Probe {
    options: DecorOptions,
    condition: bool,
    kept: Kept,
    /// What a checkpoint held; a new sample replaces it.
    figures: Option<LayerMetrics>,
}

/// How one pass applies the weight.
pub struct Applied {
    /// `W`, or `A = W R`, in the kind of the product. Shapes: `[o, d]`.
    pub weight: Tensor,
    /// Whether the inputs are to be multiplied by R first.
    pub two_step: bool,
}

impl Layer {
    /// A weight of `shape`, `[o, …]`, Xavier-uniform over one group's flattened inputs; registered by its name.
    pub fn new(scope: &Scope, shape: &[i64], groups: i64) -> NnResult<Rc<Self>> {
        let (outputs, inputs) = (shape[0], shape[1..].iter().product());
        let weight = scope.xavier("weight", shape, inputs, outputs)?;
        let layer = Rc::new(Self {
            name: scope.name().to_owned(),
            weight: weight.shallow_clone(),
            inputs,
            outputs,
            groups,
            compute: Rc::clone(scope.registry().compute()),
            gamma: RefCell::default(),
            decorrelation: RefCell::default(),
            probe: RefCell::default(),
            measured: RefCell::default(),
            seen: Cell::default(),
        });
        scope.decorrelatable(&layer, &weight);
        Ok(layer)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inputs of one group.
    pub fn inputs(&self) -> i64 {
        self.inputs
    }

    pub fn outputs(&self) -> i64 {
        self.outputs
    }

    pub fn groups(&self) -> i64 {
        self.groups
    }

    /// The kind of a product with these inputs.
    pub fn kind(&self, x: &Tensor) -> Kind {
        match self.decorrelation.borrow().as_ref().is_some_and(|own| own.guard().exact) {
            true => self.weight.kind(),
            false => self.compute.kind(x.kind()),
        }
    }

    /// Tells that the inputs come straight from this norm, which leaves out one direction.
    pub fn behind(&self, norm: &LayerNorm) {
        *self.gamma.borrow_mut() = Some(norm.weight().shallow_clone());
    }

    /// The weight as a matrix. Shapes: `[o, d]`.
    pub fn matrix(&self) -> NnResult<Tensor> {
        Ok(self.weight.f_view([self.outputs, self.inputs])?)
    }

    /// One forward pass over `rows` rows: keeps those that the update or a probe wants (`take` picks rows by number, raw and
    /// flattened: `[n, groups · d]`), and says how to apply the weight in a product of `kind`.
    pub fn pass(
        &self,
        pass: Pass,
        rows: i64,
        kind: Kind,
        take: impl Fn(&Tensor) -> NnResult<Tensor>,
    ) -> NnResult<Applied> {
        let mut decorrelation = self.decorrelation.borrow_mut();
        let micro_batches = pass.observe.map_or(1, |(place, _)| place.micro_batches);
        if pass.tally {
            self.seen.set(Some((rows, micro_batches)));
        }
        if let Some((place, sampler)) = pass.observe.filter(|_| !pass.again) {
            let pick = |wanted| {
                NnResult::Ok({
                    let ids = sampler.rows(rows, wanted)?;
                    tch::no_grad(|| take(&ids))?.f_to_kind(self.weight.kind())?
                })
            };
            if let Some((options, kept)) = self.measured.borrow_mut().as_mut() {
                kept.add(place, pick(options.rows(rows, micro_batches, self.inputs))?);
            }
            let updates = decorrelation.as_mut().is_some_and(|own| own.wants_rows(place));
            if let Some(own) = decorrelation.as_mut().filter(|_| updates) {
                own.observe(place, pick(own.sampled(rows, micro_batches))?);
            } else if decorrelation.as_ref().is_none_or(Decorrelation::frozen)
                && let Some(probe) = self.probe.borrow_mut().as_mut()
            {
                probe.kept.add(place, pick(probe.options.rows(rows, micro_batches, self.inputs))?);
                probe.figures = None;
            }
        }
        let weight = self.matrix()?;
        let Some(own) = decorrelation.as_mut() else {
            return Ok(Applied { weight: weight.f_to_kind(kind)?, two_step: false });
        };
        let fused = match pass.path {
            Path::Cheaper => self.fused_is_cheaper(rows, micro_batches),
            Path::Fused => true,
            Path::TwoStep => false,
        };
        let weight = if fused { own.effective(&weight, kind)? } else { weight.f_to_kind(kind)? };
        Ok(Applied { weight, two_step: !fused })
    }

    /// `x Rᵀ` for the two-step path. Shapes: `[n, groups · d]` → the same.
    pub fn rotate(&self, rows: &Tensor) -> NnResult<Tensor> {
        match self.decorrelation.borrow().as_ref() {
            Some(own) => own.factor().apply(rows),
            None => Ok(rows.shallow_clone()),
        }
    }

    /// Each group's R as one matrix, `[groups, d, d]`; `None` if not decorrelated.
    pub fn dense_r(&self) -> NnResult<Option<Tensor>> {
        self.decorrelation.borrow().as_ref().map(|own| own.factor().dense(self.groups)).transpose()
    }

    /// Whether `x (W R)ᵀ` costs fewer multiply-adds than `(x Rᵀ) Wᵀ`: `W R` and `dA Rᵀ` once per step against two
    /// products with R for every row. Both pay the same for the update.
    pub(super) fn fused_is_cheaper(&self, rows: i64, micro_batches: u64) -> bool {
        self.outputs < self.groups * rows * micro_batches.max(1) as i64
    }

    pub fn is_decorrelated(&self) -> bool {
        self.decorrelation.borrow().is_some()
    }

    /// Whether R is applied but no longer updated.
    pub fn is_frozen(&self) -> bool {
        self.decorrelation.borrow().as_ref().is_some_and(Decorrelation::frozen)
    }

    /// A new R = I with these options, not yet in place: all layers are checked before one is changed.
    pub(super) fn prepare(&self, options: &DecorOptions, kind: Kind, device: Device) -> NnResult<Decorrelation> {
        Decorrelation::new(&self.name, (self.inputs, self.outputs, self.groups), options.clone(), kind, device)
    }

    pub(super) fn set_decorrelation(&self, decorrelation: Option<Decorrelation>) {
        *self.decorrelation.borrow_mut() = decorrelation;
    }

    pub(super) fn set_probe(&self, probe: Option<(DecorOptions, bool)>) {
        *self.probe.borrow_mut() =
            probe.map(|(options, condition)| Probe { options, condition, kept: Kept::default(), figures: None });
    }

    pub(super) fn set_measured(&self, options: Option<DecorOptions>) {
        *self.measured.borrow_mut() = options.map(|options| (options, Kept::default()));
    }

    /// How much correlation the inputs hold that an R of the measuring options can reach, left on the device; `None` without a
    /// sample.
    pub(super) fn measured_excess(&self) -> NnResult<Option<Tensor>> {
        let measured = self.measured.borrow();
        let Some((options, kept)) = measured.as_ref() else { return Ok(None) };
        let Some(rows) = kept.rows()? else { return Ok(None) };
        let width = options.block_width(&self.name, self.inputs, self.outputs / self.groups)?;
        let blocks = rows.f_view([rows.size()[0], -1, width])?.f_transpose(0, 1)?; // [k, n, b]
        excess_correlation(&blocks).map(Some)
    }

    /// Errors: [`NnError::Config`] if the gradient in `A = W R` still waits for the optimizer.
    pub(super) fn refuse_pending_gradient(&self, what: &str) -> NnResult<()> {
        self.decorrelation.borrow().as_ref().map_or(Ok(()), |own| own.refuse_pending(what))
    }

    pub(super) fn look(&self) -> NnResult<Option<Tensor>> {
        let decorrelation = self.decorrelation.borrow();
        let Some(own) = decorrelation.as_ref() else { return Ok(None) };
        let (weight, kind) = (self.matrix()?, self.kind(&self.weight));
        let fused = self.seen.get().is_some_and(|(rows, micro_batches)| self.fused_is_cheaper(rows, micro_batches));
        own.look((fused && kind != weight.kind()).then_some((&weight, kind)))
    }

    pub(super) fn hear(&self, look: &Look) -> Vec<String> {
        self.decorrelation.borrow_mut().as_mut().map_or_else(Vec::new, |own| own.hear(&self.name, look))
    }

    pub(super) fn update_decorrelation(&self, lr_fraction: f64) -> NnResult<()> {
        let mut decorrelation = self.decorrelation.borrow_mut();
        let Some(own) = decorrelation.as_mut() else { return Ok(()) };
        let unseen = if own.options().project { self.unseen()? } else { None };
        own.update(lr_fraction, unseen.as_ref())
    }

    /// Behind a LayerNorm `x = γ ⊙ x̂ + β` with Σ x̂ᵢ = 0, so that x has no component along `u ∝ 1/γ` but the constant β·u:
    /// nothing would hold R there. Shapes: `[d]`, unit length.
    fn unseen(&self) -> NnResult<Option<Tensor>> {
        let gamma = self.gamma.borrow();
        let Some(gamma) = gamma.as_ref() else { return Ok(None) };
        tch::no_grad(|| {
            // A γ of 0 leaves its own input constant, and is that direction all by itself.
            let tiny = f64::from(f32::MIN_POSITIVE).sqrt();
            let size = gamma.f_abs()?.f_clamp_min(tiny)?;
            let u = gamma
                .f_sign()?
                .f_add(&gamma.f_eq(0.0)?.f_to_kind(gamma.kind())?)?
                .f_mul(&size.f_min()?)?
                .f_div(&size)?;
            let length = u.f_square()?.f_sum(u.kind())?.f_sqrt()?;
            Ok(Some(u.f_div(&length)?))
        })
    }

    pub(super) fn freeze_decorrelation(&self) {
        if let Some(own) = self.decorrelation.borrow_mut().as_mut() {
            own.set_frozen(true);
        }
    }

    pub(super) fn decor_rate(&self, lr_fraction: f64) -> Option<f64> {
        self.decorrelation.borrow().as_ref().filter(|own| !own.frozen()).map(|own| own.rate(lr_fraction))
    }

    pub(super) fn invalidate(&self) {
        if let Some(own) = self.decorrelation.borrow_mut().as_mut() {
            own.invalidate();
        }
    }

    /// The gradient that came through `A = W R`, in the weight's shape.
    pub(super) fn folded_gradient(&self) -> NnResult<Option<Tensor>> {
        let decorrelation = self.decorrelation.borrow();
        let folded = decorrelation.as_ref().map_or(Ok(None), Decorrelation::folded_gradient)?;
        Ok(folded.map(|gradient| gradient.f_view_as(&self.weight)).transpose()?)
    }

    /// R by its checkpoint names: `<layer>.decorrelation`, or `….decorrelation_u` and `…_v`.
    pub fn r_tensors(&self) -> Vec<(String, Tensor)> {
        let decorrelation = self.decorrelation.borrow();
        let tensors = decorrelation.iter().flat_map(|own| own.factor().tensors());
        tensors.map(|(ending, tensor)| (format!("{}.{ending}", self.name), tensor.shallow_clone())).collect()
    }

    /// This layer's own R, tensor by tensor, and what each takes from a checkpoint: R = I if that has none.
    ///
    /// Errors: [`NnError::Missing`] or [`NnError::Shape`] naming the first that does not fit.
    pub(super) fn r_sources<'a>(&self, find: impl Fn(&str) -> Option<&'a Tensor>) -> NnResult<Vec<(Tensor, Tensor)>> {
        let named = |ending: &str| format!("{}.{ending}", self.name);
        let none = ["decorrelation", "decorrelation_u", "decorrelation_v"].iter().all(|r| find(&named(r)).is_none());
        let mut sources = Vec::new();
        for (name, own) in self.r_tensors() {
            let found = match find(&name) {
                Some(found) if found.size() != own.size() => {
                    return Err(NnError::Shape { name, expected: own.size(), found: found.size() });
                }
                Some(found) => found.shallow_clone(),
                None if none => self.identity_like(&name, &own)?,
                None => return Err(NnError::Missing { name }),
            };
            sources.push((own, found));
        }
        Ok(sources)
    }

    /// The R that a layer starts with, for one of its tensors.
    fn identity_like(&self, name: &str, own: &Tensor) -> NnResult<Tensor> {
        let size = own.size();
        if name.ends_with("_u") {
            return Ok(own.f_zeros_like()?); // Whatever V is, R = I + 0 Vᵀ.
        }
        if name.ends_with("_v") {
            return Ok(own.shallow_clone());
        }
        Ok(Tensor::f_eye(size[size.len() - 1], (own.kind(), own.device()))?.f_expand_as(own)?)
    }

    /// This plain layer's weight, and `W R` of a checkpoint that has an R for it.
    ///
    /// Errors: [`NnError::Missing`], [`NnError::Shape`] or [`NnError::Unexpected`] if that R does not fit the weight.
    pub(super) fn weight_with_r<'a>(
        &self,
        find: impl Fn(&str) -> Option<&'a Tensor>,
    ) -> NnResult<Option<(Tensor, Tensor)>> {
        let named = |ending: &str| format!("{}.{ending}", self.name);
        let Some(weight) = find(&named("weight")) else { return Ok(None) };
        let need = |ending: &str| find(&named(ending)).ok_or_else(|| NnError::Missing { name: named(ending) });
        let kinds = (self.weight.kind(), self.weight.device());
        let like = |tensor: &Tensor| tensor.f_to_kind(kinds.0)?.f_to_device(kinds.1);
        let saved = if let Some(r) = find(&named("decorrelation")) {
            Factor::from_matrix(&named("decorrelation"), like(r)?, self.inputs, self.groups)?
        } else if find(&named("decorrelation_u")).or_else(|| find(&named("decorrelation_v"))).is_some() {
            let (u, v) = (like(need("decorrelation_u")?)?, like(need("decorrelation_v")?)?);
            if self.groups > 1 {
                return Err(NnError::Unexpected { name: named("decorrelation_u") }); // Low rank is for one group.
            }
            Factor::from_low_rank(&named("decorrelation"), u, v, self.inputs)?
        } else {
            return Ok(None);
        };
        let weight = like(weight)?.f_view([self.outputs, self.inputs])?;
        let product = tch::no_grad(|| saved.compose(&weight, self.groups))?.f_view_as(&self.weight)?;
        Ok(Some((self.weight.detach(), product)))
    }

    pub(super) fn decor_loss(&self) -> NnResult<Option<Tensor>> {
        self.decorrelation.borrow().as_ref().map_or(Ok(None), Decorrelation::loss)
    }

    /// Figures of the inputs at the last sample; `None` if neither decorrelated nor probed, or not sampled yet.
    pub fn metrics(&self) -> NnResult<Option<LayerMetrics>> {
        let (mut decorrelation, probe) = (self.decorrelation.borrow_mut(), self.probe.borrow());
        let condition = probe.as_ref().is_some_and(|probe| probe.condition);
        if let Some(own) = decorrelation.as_mut().filter(|own| !own.frozen()) {
            return match own.last_figures(condition)? {
                Some(figures) => Ok(Some(figures.metrics)),
                None => own.metrics(condition), // Sampled, but not updated yet.
            };
        }
        let Some(probe) = probe.as_ref() else { return Ok(None) };
        let Some(rows) = probe.kept.rows()? else { return Ok(probe.figures) };
        match decorrelation.as_ref() {
            Some(frozen) => frozen.metrics_of(&rows, condition).map(Some),
            None => LayerMetrics::of(&rows, condition).map(Some),
        }
    }

    /// What a checkpoint keeps beside W and R; figures that are not finite are left out.
    pub(super) fn state(&self) -> NnResult<Option<LayerState>> {
        let by_probe = self.decorrelation.borrow().as_ref().is_none_or(Decorrelation::frozen);
        let probed = if by_probe { self.metrics()?.filter(LayerMetrics::is_finite) } else { None };
        let (mut decorrelation, probe) = (self.decorrelation.borrow_mut(), self.probe.borrow());
        if decorrelation.is_none() && probe.is_none() {
            return Ok(None);
        }
        let condition = probe.as_ref().is_some_and(|probe| probe.condition);
        let mut state = LayerState { name: self.name.clone(), probed, ..LayerState::default() };
        state.probe = probe.as_ref().map(|probe| (probe.options.clone(), probe.condition));
        if let Some(own) = decorrelation.as_mut() {
            state.frozen = own.frozen();
            state.guard = own.guard().clone();
            let finite = |figures: &LastFigures| figures.quick_loss.is_finite() && figures.metrics.is_finite();
            state.figures = own.last_figures(condition)?.filter(finite);
        }
        Ok(Some(state))
    }

    pub(super) fn restore(&self, state: &LayerState) {
        if let Some(own) = self.decorrelation.borrow_mut().as_mut() {
            own.restore(state.frozen, state.guard.clone(), state.figures);
        }
        self.set_probe(state.probe.clone()); // A hook may have asked for it, or ended it.
        if let Some(probe) = self.probe.borrow_mut().as_mut() {
            probe.figures = state.probed;
        }
    }

    /// `W ← W R`, and no R any more.
    pub(super) fn fuse(&self) -> NnResult<()> {
        if let Some(own) = self.decorrelation.borrow_mut().take() {
            let weight = self.matrix()?;
            tch::no_grad(|| {
                let fused = own.factor().compose(&weight, self.groups)?.f_view_as(&self.weight)?;
                NnResult::Ok(self.weight.shallow_clone().f_copy_(&fused)?)
            })?;
        }
        Ok(())
    }

    /// What the layer costs per step, and its R on top.
    ///
    /// Errors: [`NnError::Config`] before the first training pass: it depends on the rows.
    pub(super) fn cost(&self) -> NnResult<LayerCost> {
        self.cost_with(self.decorrelation.borrow().as_ref())
    }

    /// The same with an R that is not in place.
    pub(super) fn cost_with(&self, own: Option<&Decorrelation>) -> NnResult<LayerCost> {
        let (rows, micro_batches) = self.seen.get().ok_or_else(|| {
            let message = "decorrelation_plan: it depends on the images of a step; name them, or call it after one";
            NnError::Config(message.to_owned())
        })?;
        let fused = self.fused_is_cheaper(rows, micro_batches);
        Ok(LayerCost::of(self, own, rows, micro_batches, fused))
    }

    /// Input rows of the last training pass, and the micro-batches of its step.
    pub fn seen(&self) -> Option<(i64, u64)> {
        self.seen.get()
    }

    pub(super) fn set_seen(&self, seen: Option<(i64, u64)>) {
        self.seen.set(seen);
    }
}
