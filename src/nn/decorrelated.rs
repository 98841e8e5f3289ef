//! A layer's decorrelation matrix R: `z = x Rᵀ`, learned beside back-propagation by a local rule.
//!
//! Update: `R ← R − η [(1−κ) C + κ V] R` with `C = ZᵀZ/n − diag(·)` over n sampled rows of the *decorrelated* z and
//! `V = diag(mean(z²) − 1)`. Sources: Ahmad et al. 2022; Dalm et al. 2024, arXiv:2405.02385; in a ViT encoder
//! arXiv:2510.14657, eq. 4 and 5.
//! Departures: eq. 5 is printed with raw x; with it C never changes, is traceless, and R grows exponentially, so C is taken
//! from z, as the authors' published code does. κ scales the rows of R. Rows are drawn without replacement. Rows of R are
//! bounded, and behind a LayerNorm R stands still in the one direction that its outputs do not have.
//!
//! The matrix is applied through `A = W R`, a leaf of its own during a step: autograd yields dA, and dW = dA Rᵀ is folded
//! once per optimizer step, however many micro-batches it had. Where few rows meet many outputs the two-step product
//! `(x Rᵀ) Wᵀ` needs fewer multiply-adds and is taken instead.

use tch::{Device, Kind, Tensor};

use super::factor::{Factor, Rule};
use super::guard::{self, Guard, Look};
use super::metrics::{LastFigures, LayerMetrics, decor_loss};
use super::options::{DecorOptions, DecorSchedule, StopAt};
use super::rows::{Kept, Place};
use super::{NnError, NnResult};
use crate::libtorch::grad_enabled;

pub struct Decorrelation {
    factor: Factor,
    groups: i64,
    options: DecorOptions,
    frozen: bool,
    guard: Guard,
    /// Of the last training pass.
    step: u64,
    /// `A = W R` while W and R stand still, and the gradient that collects in it.
    effective: Option<Tensor>,
    /// The same, rounded for products of another kind: without a way for its gradient to `A`, and with one.
    rounded: [Option<Tensor>; 2],
    /// Sampled raw rows of the last step that had any: kept after the update, for figures.
    kept: Kept,
    /// Whether they have been used for an update.
    spent: bool,
    /// What a checkpoint held of the last sample; a new sample replaces it.
    figures: Option<LastFigures>,
}

impl Decorrelation {
    /// R = I for a layer of `(inputs, outputs, groups)`, inputs of one group.
    ///
    /// Errors: [`NnError::Config`] for options outside their range, or that this layer cannot have.
    pub fn new(
        name: &str,
        sizes: (i64, i64, i64),
        options: DecorOptions,
        kind: Kind,
        device: Device,
    ) -> NnResult<Self> {
        options.check()?;
        Ok(Self {
            factor: Factor::identity(name, sizes, &options, kind, device)?,
            groups: sizes.2,
            options,
            frozen: false,
            guard: Guard::default(),
            step: 0,
            effective: None,
            rounded: Default::default(),
            kept: Kept::default(),
            spent: false,
            figures: None,
        })
    }

    pub fn factor(&self) -> &Factor {
        &self.factor
    }

    pub fn options(&self) -> &DecorOptions {
        &self.options
    }

    pub fn frozen(&self) -> bool {
        self.frozen
    }

    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Takes over what a checkpoint kept beside R.
    pub fn restore(&mut self, frozen: bool, guard: Guard, figures: Option<LastFigures>) {
        self.set_frozen(frozen);
        (self.guard, self.figures) = (guard, figures);
    }

    /// Stops (or resumes) the update; R stays applied.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
        // Figures of an update long past would pass for today's.
        self.kept.clear();
        self.figures = None;
    }

    /// How many of a pass's rows the update sees.
    pub fn sampled(&self, rows: i64, micro_batches: u64) -> i64 {
        self.options.rows(rows, micro_batches, self.factor.width())
    }

    /// Whether the update of the step at `place` will want rows. Freezes R once `stop_at` is reached.
    pub fn wants_rows(&mut self, place: &Place) -> bool {
        self.step = place.step;
        let stop = match self.options.stop_at {
            Some(StopAt::Step(step)) => place.step >= step,
            Some(StopAt::Epoch(epoch)) => place.epoch >= epoch,
            None => false,
        };
        if stop && !self.frozen {
            self.set_frozen(true);
        }
        !self.frozen && place.step.is_multiple_of(self.options.every)
    }

    /// Keeps the sampled rows of one forward pass; a step's first micro-batch drops what was kept before. Shapes: `[n, d]`.
    pub fn observe(&mut self, place: &Place, rows: Tensor) {
        self.kept.add(place, rows);
        self.spent = false;
        self.figures = None;
    }

    /// `A = W R` for `weight [o, d]` in `kind`, computed and rounded once while neither changes. Collects the gradient, in the
    /// weight's own kind, if gradients are on.
    pub fn effective(&mut self, weight: &Tensor, kind: Kind) -> NnResult<Tensor> {
        let a = match &self.effective {
            Some(a) => a.shallow_clone(),
            None => tch::no_grad(|| self.factor.compose(weight, self.groups))?.f_set_requires_grad(true)?,
        };
        self.effective = Some(a.shallow_clone());
        if kind == a.kind() {
            return Ok(a);
        }
        let place = &mut self.rounded[usize::from(grad_enabled())];
        if let Some(rounded) = place.as_ref().filter(|rounded| rounded.kind() == kind) {
            return Ok(rounded.shallow_clone());
        }
        // The rounding keeps nothing for its gradient, so that the graphs of several micro-batches can end in it.
        let rounded = a.f_to_kind(kind)?;
        *place = Some(rounded.shallow_clone());
        Ok(rounded)
    }

    /// The part of dW that came through `A`: `dA Rᵀ [o, d]`; `None` if no pass was fused since the last step.
    pub fn folded_gradient(&self) -> NnResult<Option<Tensor>> {
        let Some(a) = &self.effective else { return Ok(None) };
        let gradient = a.f_grad()?;
        if !gradient.defined() {
            return Ok(None);
        }
        tch::no_grad(|| self.factor.fold(&gradient, self.groups)).map(Some)
    }

    /// Errors: [`NnError::Config`] if the gradient in `A` still waits for the optimizer, which needs R as it was.
    pub fn refuse_pending(&self, what: &str) -> NnResult<()> {
        match &self.effective {
            Some(a) if a.f_grad()?.defined() => {
                let message = format!("{what}: call it after the optimizer's step, which still needs R as it was");
                Err(NnError::Config(message))
            }
            _ => Ok(()),
        }
    }

    /// Forgets `A`: W or R has changed, or its gradient was used.
    pub fn invalidate(&mut self) {
        (self.effective, self.rounded) = (None, [None, None]);
    }

    /// η at this point of the schedule; `lr_fraction` is the weight learning rate over its peak.
    pub fn rate(&self, lr_fraction: f64) -> f64 {
        self.scheduled(lr_fraction) * self.guard.scale
    }

    /// The same before the guard's say.
    fn scheduled(&self, lr_fraction: f64) -> f64 {
        match &self.options.schedule {
            DecorSchedule::Constant => self.options.lr,
            DecorSchedule::Follow => self.options.lr * lr_fraction,
            DecorSchedule::Own(schedule) => schedule.at(self.step),
        }
    }

    /// What the guard wants to know, left on the device; `None` unless it is time for a look. `rounded` is the weight where
    /// `A = W R` is rounded, and what to. Shapes: `[o, d]` → `[4]`.
    pub fn look(&self, rounded: Option<(&Tensor, Kind)>) -> NnResult<Option<Tensor>> {
        if self.spent || !(self.step / self.options.every).is_multiple_of(guard::EVERY) {
            return Ok(None);
        }
        let Some(rows) = self.kept.rows()? else { return Ok(None) };
        tch::no_grad(|| {
            let Some((weight, kind)) = rounded else {
                return Look::take(&self.factor, &rows, self.options.kappa, None);
            };
            let inputs = weight.size()[1];
            let a = self.factor.compose(weight, self.groups)?.f_view([self.groups, -1, inputs])?;
            Look::take(&self.factor, &rows, self.options.kappa, Some((&a, kind)))
        })
        .map(Some)
    }

    /// Hears what the look found; notices are for the person who watches the run.
    pub fn hear(&mut self, name: &str, look: &Look) -> Vec<String> {
        let (peak, step) = (self.scheduled(1.0), self.step); // The peak, because a warm-up only comes to it.
        let mut verdict = self.guard.judge(look, name, peak, self.options.patience, step);
        if verdict.freeze {
            self.set_frozen(true);
            let patience = self.options.patience;
            verdict.notices.push(format!(
                "decorrelation of {name}: R is frozen at step {step}, its loss has not fallen for {patience} steps"
            ));
        }
        verdict.notices
    }

    /// One update of R from the rows of this step, C averaged over all of them (eq. 4). `unseen` is the direction that
    /// the inputs do not have. Shapes: `[d]`.
    pub fn update(&mut self, lr_fraction: f64, unseen: Option<&Tensor>) -> NnResult<()> {
        if self.spent {
            return Ok(());
        }
        let Some(rows) = self.kept.rows()? else { return Ok(()) };
        self.refuse_pending("update_decorrelation")?;
        let DecorOptions { kappa, max_norm, .. } = self.options;
        let rule = Rule { rate: self.rate(lr_fraction), kappa, max_norm, unseen };
        tch::no_grad(|| self.factor.update(&rows, rule))?;
        self.spent = true;
        self.figures = None;
        self.invalidate();
        Ok(())
    }

    /// The decorrelation loss of the last sample under today's R, left on the device; `None` before the first.
    pub fn loss(&self) -> NnResult<Option<Tensor>> {
        if let Some(figures) = &self.figures {
            let like = self.factor.tensors()[0].1;
            return Ok(Some(Tensor::from(figures.quick_loss).f_to_kind(like.kind())?.f_to_device(like.device())?));
        }
        let Some(rows) = self.kept.rows()? else { return Ok(None) };
        tch::no_grad(|| decor_loss(&self.factor.rows_by_block(&rows)?)).map(Some)
    }

    /// Figures of the last sample under today's R; `None` before the first.
    pub fn metrics(&self, condition: bool) -> NnResult<Option<LayerMetrics>> {
        if let Some(figures) = &self.figures {
            return Ok(Some(figures.metrics));
        }
        let Some(rows) = self.kept.rows()? else { return Ok(None) };
        self.metrics_of(&rows, condition).map(Some)
    }

    /// Figures of given raw rows under today's R. Shapes: `[n, d]`.
    pub fn metrics_of(&self, rows: &Tensor, condition: bool) -> NnResult<LayerMetrics> {
        tch::no_grad(|| {
            let metrics = LayerMetrics::of(&self.factor.rows_by_block(rows)?, condition)?;
            Ok(LayerMetrics { r_norm: Some(self.factor.spectral_norm()?.f_double_value(&[])?), ..metrics })
        })
    }

    /// What a checkpoint needs of the last sample, computed once; `None` before the first.
    pub fn last_figures(&mut self, condition: bool) -> NnResult<Option<LastFigures>> {
        let known = self.figures.is_some_and(|figures| !condition || figures.metrics.condition.is_some());
        if self.spent
            && !known
            && let Some(rows) = self.kept.rows()?
        {
            let quick_loss = tch::no_grad(|| decor_loss(&self.factor.rows_by_block(&rows)?))?.f_double_value(&[])?;
            self.figures = Some(LastFigures { quick_loss, metrics: self.metrics_of(&rows, condition)? });
        }
        if let Some(figures) = self.figures.as_mut().filter(|_| !condition) {
            figures.metrics.condition = None;
        }
        Ok(self.figures)
    }
}
