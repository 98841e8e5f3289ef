//! A layer's decorrelation matrix R: `z = x Rᵀ`, learned beside back-propagation by a local rule.
//!
//! Update: `R ← R − η [(1−κ) C + κ V] R` with `C = ZᵀZ/n − diag(·)` over n sampled rows of the *decorrelated* z and
//! `V = diag(mean(z²) − 1)`. Sources: Ahmad et al. 2022; Dalm et al. 2024, arXiv:2405.02385; in a ViT encoder
//! arXiv:2510.14657, eq. 4 and 5.
//! Departures: eq. 5 is printed with raw x; with it C never changes, is traceless, and R grows exponentially, so C is taken
//! from z, as the authors' published code does. κ scales the rows of R. Rows are drawn without replacement.
//!
//! The matrix is applied through `A = W R`, a leaf of its own during a step: autograd yields dA, and dW = dA Rᵀ is folded
//! once per optimizer step, however many micro-batches it had. Where few rows meet a wide layer the two-step product
//! `(x Rᵀ) Wᵀ` needs fewer multiply-adds and is taken instead.

use tch::{Device, Kind, Tensor};

use super::metrics::{LastFigures, LayerMetrics, decor_loss, second_moment};
use super::options::{DecorOptions, DecorSchedule, StopAt};
use super::rows::Place;
use super::{NnError, NnResult};

pub struct Decorrelation {
    r: Tensor, // [d, d]
    options: DecorOptions,
    frozen: bool,
    /// `A = W R` while W and R stand still, and the gradient that collects in it.
    effective: Option<Tensor>,
    /// Sampled rows of this step's forward passes, one entry per micro-batch: `[n, d]` each.
    observed: Vec<Tensor>,
    /// The z of the last update, for metrics: `[n, d]` each.
    last_z: Vec<Tensor>,
    /// What a checkpoint kept of the last update; a new update replaces it.
    kept: Option<LastFigures>,
}

impl Decorrelation {
    /// R = I for a layer of `width` inputs.
    pub fn new(width: i64, options: DecorOptions, kind: Kind, device: Device) -> NnResult<Self> {
        options.check()?;
        let r = Tensor::f_eye(width, (kind, device))?;
        Ok(Self { r, options, frozen: false, effective: None, observed: Vec::new(), last_z: Vec::new(), kept: None })
    }

    /// R. Shapes: `[d, d]`.
    pub fn matrix(&self) -> &Tensor {
        &self.r
    }

    pub fn options(&self) -> &DecorOptions {
        &self.options
    }

    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Stops (or resumes) the update; R stays applied.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
        self.observed.clear();
        // Figures of an update long past would pass for today's.
        self.last_z.clear();
        self.kept = None;
    }

    /// Takes over a matrix from a checkpoint.
    ///
    /// Errors: [`NnError::Shape`] if it is not `[d, d]`.
    pub fn load(&mut self, name: &str, r: &Tensor) -> NnResult<()> {
        if r.size() != self.r.size() {
            return Err(NnError::Shape { name: name.to_owned(), expected: self.r.size(), found: r.size() });
        }
        tch::no_grad(|| self.r.f_copy_(r))?;
        self.invalidate();
        Ok(())
    }

    /// Whether the update of the step at `place` will want rows. Freezes R once `stop_at` is reached.
    pub fn wants_rows(&mut self, place: &Place) -> bool {
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
        if place.micro == 0 {
            self.observed.clear();
        }
        self.observed.push(rows);
    }

    /// Whether `x (W R)ᵀ` costs fewer multiply-adds than `(x Rᵀ) Wᵀ`: `rows` of input, `sampled` of them, `outputs` of W.
    pub fn fused_is_cheaper(rows: i64, sampled: i64, outputs: i64) -> bool {
        outputs + sampled / 2 < rows
    }

    /// `A = W R` for `weight [o, d]`, computed once while neither changes. Collects the gradient if gradients are on.
    pub fn effective(&mut self, weight: &Tensor) -> NnResult<Tensor> {
        if let Some(a) = &self.effective {
            return Ok(a.shallow_clone());
        }
        let a = tch::no_grad(|| weight.f_matmul(&self.r))?.f_set_requires_grad(true)?;
        self.effective = Some(a.shallow_clone());
        Ok(a)
    }

    /// The part of dW that came through `A`: `dA Rᵀ [o, d]`; `None` if no pass was fused since the last step.
    pub fn folded_gradient(&self) -> NnResult<Option<Tensor>> {
        let Some(a) = &self.effective else { return Ok(None) };
        let gradient = a.f_grad()?;
        if !gradient.defined() {
            return Ok(None);
        }
        Ok(Some(tch::no_grad(|| gradient.f_matmul(&self.r.f_tr()?))?))
    }

    /// Forgets `A`: W or R has changed, or its gradient was used.
    pub fn invalidate(&mut self) {
        self.effective = None;
    }

    /// η at this point of the schedule; `lr_fraction` is the weight learning rate over its peak.
    pub fn rate(&self, lr_fraction: f64) -> f64 {
        match self.options.schedule {
            DecorSchedule::Constant => self.options.lr,
            DecorSchedule::Follow => self.options.lr * lr_fraction,
        }
    }

    /// One update of R from the rows of this step, C averaged over its micro-batches (eq. 4).
    pub fn update(&mut self, lr_fraction: f64) -> NnResult<()> {
        if self.observed.is_empty() {
            return Ok(());
        }
        if let Some(a) = &self.effective
            && a.f_grad()?.defined()
        {
            let message = "update_decorrelation: call it after the optimizer's step, which still needs R as it was";
            return Err(NnError::Config(message.to_owned()));
        }
        let rate = self.rate(lr_fraction);
        let observed = std::mem::take(&mut self.observed);
        tch::no_grad(|| self.apply(&observed, rate))?;
        self.invalidate();
        Ok(())
    }

    fn apply(&mut self, observed: &[Tensor], rate: f64) -> NnResult<()> {
        let (kappa, share) = (self.options.kappa, 1.0 / observed.len() as f64);
        let rt = self.r.f_tr()?;
        let z = observed.iter().map(|x| x.f_matmul(&rt)).collect::<Result<Vec<_>, _>>()?; // [n, d]
        let rows: i64 = z.iter().map(|z| z.size()[0]).sum();
        if rows < self.r.size()[0] {
            // C R as Zᵀ(Z R)/n − diag · R: cheaper than C itself while there are fewer rows than columns.
            let mut variance = Tensor::new();
            let mut products = Vec::with_capacity(z.len()); // Z R before R moves
            for z in &z {
                let v = mean_square(z)?.f_mul_scalar(share)?;
                variance = if variance.defined() { variance.f_add(&v)? } else { v };
                products.push(z.f_matmul(&self.r)?);
            }
            // R ← R + η [(1−κ) diag(v) − κ diag(v − 1)] R − η (1−κ) Zᵀ(Z R)/n
            let scale =
                variance.f_mul_scalar(rate * (1.0 - 2.0 * kappa))?.f_add_scalar(1.0 + rate * kappa)?.f_unsqueeze(1)?;
            let _ = self.r.f_mul_(&scale)?;
            for (z, product) in z.iter().zip(&products) {
                let alpha = -rate * (1.0 - kappa) * share / z.size()[0] as f64;
                let _ = self.r.f_addmm_(&z.f_tr()?, &product.f_mul_scalar(alpha)?)?;
            }
        } else {
            let second = second_moment(&z)?;
            let variance = second.f_diagonal(0, 0, 1)?;
            // (1−κ)(E − diag v) + κ (diag v − I), as (1−κ) E + diag((2κ−1) v − κ).
            let diagonal = variance.f_mul_scalar(2.0 * kappa - 1.0)?.f_sub_scalar(kappa)?;
            let step = second.f_mul_scalar(1.0 - kappa)?.f_add(&diagonal.f_diag(0)?)?;
            let change = step.f_matmul(&self.r)?.f_mul_scalar(rate)?;
            let _ = self.r.f_sub_(&change)?;
        }
        self.last_z = z;
        Ok(())
    }

    /// The decorrelation loss of the last update's z, left on the device; `None` before the first update.
    pub fn loss(&self) -> NnResult<Option<Tensor>> {
        match (&self.kept, self.last_z.is_empty()) {
            (_, false) => decor_loss(&self.last_z).map(Some),
            (Some(kept), true) => {
                Ok(Some(Tensor::from(kept.quick_loss).f_to_kind(self.r.kind())?.f_to_device(self.r.device())?))
            }
            (None, true) => Ok(None),
        }
    }

    /// Figures of the last update's z, before that update; `None` before the first.
    pub fn metrics(&self) -> NnResult<Option<LayerMetrics>> {
        if self.last_z.is_empty() {
            return Ok(self.kept.map(|kept| kept.metrics));
        }
        LayerMetrics::of(&self.last_z).map(Some)
    }

    /// What a checkpoint needs of the last update; `None` before the first.
    pub fn last_figures(&self) -> NnResult<Option<LastFigures>> {
        let (Some(loss), Some(metrics)) = (self.loss()?, self.metrics()?) else { return Ok(None) };
        Ok(Some(LastFigures { quick_loss: loss.f_double_value(&[])?, metrics }))
    }

    /// Puts back what [`Self::last_figures`] said.
    pub fn set_last_figures(&mut self, figures: LastFigures) {
        self.kept = Some(figures);
        self.last_z.clear();
    }
}

/// Mean over rows of the squares. Shapes: `[n, d]` → `[d]`.
fn mean_square(z: &Tensor) -> NnResult<Tensor> {
    Ok(z.f_square()?.f_mean_dim(0i64, false, z.kind())?)
}
