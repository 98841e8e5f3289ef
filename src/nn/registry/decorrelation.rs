//! Decorrelation of a whole model: which layers, their updates, figures and cost, and what a checkpoint keeps of it.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::Registry;
use crate::nn::NnResult;
use crate::nn::auto::{self, AutoConfig, Candidate, Progress};
use crate::nn::cost::Plan;
use crate::nn::guard::Look;
use crate::nn::layer::Layer;
use crate::nn::metrics::LayerMetrics;
use crate::nn::options::DecorOptions;
use crate::nn::pattern::select;
use crate::nn::state::DecorState;

impl Registry {
    /// The layers that are decorrelated.
    pub fn decorrelated(&self) -> Vec<Rc<Layer>> {
        self.layers.borrow().iter().filter(|layer| layer.is_decorrelated()).cloned().collect()
    }

    /// Whether any layer is decorrelated, or will be once `"auto"` has chosen.
    pub fn is_decorrelated(&self) -> bool {
        let pending = self.auto.borrow().as_ref().is_some_and(|(_, progress)| progress.choice.is_none());
        pending || self.layers.borrow().iter().any(|layer| layer.is_decorrelated())
    }

    /// The layers that `patterns` choose.
    ///
    /// Errors: a pattern that matches nothing.
    pub fn select(&self, patterns: &[String]) -> NnResult<Vec<Rc<Layer>>> {
        let layers = self.layers.borrow();
        let names: Vec<&str> = layers.iter().map(|layer| layer.name()).collect();
        let chosen = select(&names, patterns)?;
        Ok(layers.iter().filter(|layer| chosen.contains(&layer.name())).cloned().collect())
    }

    /// Gives every layer that `patterns` choose an R = I, and takes it from every other one. Returns the chosen names.
    ///
    /// Errors: options outside their range, or that a chosen layer cannot have; a pattern that matches nothing. Then nothing
    /// has changed.
    pub fn decorrelate(&self, patterns: &[String], options: &DecorOptions) -> NnResult<Vec<String>> {
        options.check()?; // Also for [], so that a typo does not wait for the run that uses it.
        let chosen = self.select(patterns)?;
        self.put(&chosen, options)?;
        self.auto.borrow_mut().take();
        Ok(chosen.iter().map(|layer| layer.name().to_owned()).collect())
    }

    /// Lets the first steps decide which layers are decorrelated: see [`auto`].
    ///
    /// Errors: options outside their range, or that a layer cannot have.
    pub fn decorrelate_auto(&self, config: AutoConfig) -> NnResult<()> {
        config.check()?;
        self.refuse_pending_gradients("decorrelate")?;
        for layer in self.layers.borrow().iter() {
            layer.prepare(&config.options, self.kind, self.device)?;
        }
        for layer in self.layers.borrow().iter() {
            layer.set_decorrelation(None);
            layer.set_measured(Some(config.options.clone()));
        }
        *self.auto.borrow_mut() = Some((config, Progress::default()));
        Ok(())
    }

    fn put(&self, chosen: &[Rc<Layer>], options: &DecorOptions) -> NnResult<()> {
        let prepared: Vec<_> =
            chosen.iter().map(|layer| layer.prepare(options, self.kind, self.device)).collect::<NnResult<_>>()?;
        self.refuse_pending_gradients("decorrelate")?;
        for layer in self.layers.borrow().iter() {
            layer.set_decorrelation(None);
            layer.set_measured(None);
        }
        for (layer, decorrelation) in chosen.iter().zip(prepared) {
            layer.set_decorrelation(Some(decorrelation));
        }
        Ok(())
    }

    /// A gradient that waits in some `A = W R` would be lost with it.
    ///
    /// Errors: [`crate::nn::NnError::Config`] if there is one; `what` is what would lose it.
    pub fn refuse_pending_gradients(&self, what: &str) -> NnResult<()> {
        self.layers.borrow().iter().try_for_each(|layer| layer.refuse_pending_gradient(what))
    }

    /// Measures the inputs of the layers that `patterns` choose, decorrelated or not, with the formula of decorrelated ones;
    /// `condition` asks for condition numbers too. `[]` measures none.
    ///
    /// Errors: options outside their range; a pattern that matches nothing.
    pub fn probe(&self, patterns: &[String], options: &DecorOptions, condition: bool) -> NnResult<Vec<String>> {
        options.check()?;
        let chosen = self.select(patterns)?;
        for layer in self.layers.borrow().iter() {
            let wanted = chosen.iter().any(|other| other.name() == layer.name());
            layer.set_probe(wanted.then(|| (options.clone(), condition)));
        }
        Ok(chosen.iter().map(|layer| layer.name().to_owned()).collect())
    }

    /// One update of every R from this step's sampled rows. Returns what the person who watches should hear: an η that was
    /// halved, an R that was frozen, what `"auto"` chose.
    pub fn update_decorrelation(&self) -> NnResult<Vec<String>> {
        let mut notices = self.look()?;
        let fraction = self.lr_fraction.get();
        self.layers.borrow().iter().try_for_each(|layer| layer.update_decorrelation(fraction))?;
        notices.extend(self.measure_for_auto()?);
        Ok(notices)
    }

    /// The guards' look at every R, if it is time: one copy from the device for all layers.
    fn look(&self) -> NnResult<Vec<String>> {
        let layers = self.layers.borrow();
        let mut due = Vec::new();
        for layer in layers.iter() {
            due.extend(layer.look()?.map(|figures| (layer, figures)));
        }
        let (layers, figures): (Vec<_>, Vec<_>) = due.into_iter().unzip();
        let read = read_all(&figures)?;
        let hear = |(layer, figures): (&&Rc<Layer>, &[f64])| {
            let [loss, longest_row, largest_eigenvalue, rounding] = *figures else {
                unreachable!("of {}", Look::FIGURES)
            };
            layer.hear(&Look { loss, longest_row, largest_eigenvalue, rounding })
        };
        Ok(layers.iter().zip(read.chunks(Look::FIGURES)).flat_map(hear).collect())
    }

    /// Adds this step to what `"auto"` knows, and chooses once that is enough.
    fn measure_for_auto(&self) -> NnResult<Option<String>> {
        let mut auto = self.auto.borrow_mut();
        let Some((config, progress)) = auto.as_mut().filter(|(_, progress)| progress.choice.is_none()) else {
            return Ok(None);
        };
        let layers = self.layers.borrow().clone();
        let mut measured = Vec::new();
        for layer in &layers {
            measured.extend(layer.measured_excess()?.map(|excess| (layer, excess)));
        }
        let (seen, excess): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
        for (layer, excess) in seen.iter().zip(read_all(&excess)?) {
            match progress.sums.iter_mut().find(|(name, _)| name == layer.name()) {
                Some((_, sum)) => *sum += excess,
                None => progress.sums.push((layer.name().to_owned(), excess)),
            }
        }
        progress.steps += 1;
        if progress.steps < config.steps {
            return Ok(None);
        }
        let plain = self.plan_of(&layers)?.plain;
        let mut candidates = Vec::new();
        for layer in &seen {
            let own = layer.prepare(&config.options, self.kind, self.device)?;
            let sum = progress.sums.iter().find(|(name, _)| name == layer.name()).map_or(0.0, |(_, sum)| *sum);
            candidates.push(Candidate {
                name: layer.name().to_owned(),
                benefit: sum / progress.steps as f64,
                cost: layer.cost_with(Some(&own))?.extra / plain,
                chosen: false,
            });
        }
        auto::choose(&mut candidates, config.budget);
        self.install(&candidates, &config.options)?;
        let notice = auto::explain(&candidates, config);
        progress.choice = Some(candidates);
        Ok(Some(notice))
    }

    /// Decorrelates what `"auto"` chose, and ends its probes.
    fn install(&self, candidates: &[Candidate], options: &DecorOptions) -> NnResult<()> {
        let is_chosen = |layer: &&Rc<Layer>| candidates.iter().any(|c| c.chosen && c.name == layer.name());
        let chosen: Vec<_> = self.layers.borrow().iter().filter(is_chosen).cloned().collect();
        self.put(&chosen, options)
    }

    /// What `"auto"` measured and chose; `None` if it was not asked for, or has not come to it yet.
    pub fn auto_choice(&self) -> Option<Vec<Candidate>> {
        self.auto.borrow().as_ref().and_then(|(_, progress)| progress.choice.clone())
    }

    /// Stops every R where it is; each stays applied.
    pub fn freeze_decorrelation(&self) {
        self.layers.borrow().iter().for_each(|layer| layer.freeze_decorrelation());
    }

    /// η at this point of its schedule, of the first layer whose R still moves; `None` if there is none.
    pub fn decor_rate(&self) -> Option<f64> {
        self.layers.borrow().iter().find_map(|layer| layer.decor_rate(self.lr_fraction.get()))
    }

    /// The mean over layers of the decorrelation loss of the last sample, left on the device; `None` without one.
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

    /// Figures of every decorrelated and every probed layer, of its last sample.
    pub fn layer_metrics(&self) -> NnResult<Vec<(String, LayerMetrics)>> {
        let mut all = Vec::new();
        for layer in self.layers.borrow().iter() {
            if let Some(metrics) = layer.metrics()? {
                all.push((layer.name().to_owned(), metrics));
            }
        }
        Ok(all)
    }

    /// What decorrelation costs per step, for passes of the size of the last training pass.
    ///
    /// Errors: [`NnError::Config`] if there was none yet.
    pub fn plan(&self) -> NnResult<Plan> {
        self.plan_of(&self.layers.borrow())
    }

    /// The same for steps of `images` in `micro_batches`, from the size of a pass over one image that `pass_one` makes.
    pub fn plan_for(&self, images: i64, micro_batches: u64, pass_one: impl FnOnce() -> NnResult<()>) -> NnResult<Plan> {
        let layers = self.layers.borrow().clone();
        let products = self.products.borrow().clone();
        let before: Vec<_> = layers.iter().map(|layer| layer.seen()).collect();
        let products_before: Vec<_> = products.iter().map(|product| product.get()).collect();
        let passed = pass_one();
        let per_pass = images / micro_batches.max(1) as i64;
        for layer in &layers {
            layer.set_seen(layer.seen().map(|(rows, _)| (rows * per_pass, micro_batches)));
        }
        products.iter().for_each(|product| product.set(product.get() * per_pass));
        let plan = passed.and_then(|()| self.plan_of(&layers));
        layers.iter().zip(before).for_each(|(layer, seen)| layer.set_seen(seen));
        products.iter().zip(products_before).for_each(|(product, before)| product.set(before));
        plan
    }

    fn plan_of(&self, layers: &[Rc<Layer>]) -> NnResult<Plan> {
        let costs: Vec<_> = layers.iter().map(|layer| layer.cost()).collect::<NnResult<_>>()?;
        let micro_batches = layers.iter().find_map(|layer| layer.seen()).map_or(1, |(_, micro_batches)| micro_batches);
        let products: i64 = self.products.borrow().iter().map(|product| product.get()).sum();
        let plain = costs.iter().map(|cost| cost.plain).sum::<f64>() + products as f64 * micro_batches as f64;
        let decorrelated = layers.iter().zip(costs).filter(|(layer, _)| layer.is_decorrelated());
        Ok(Plan { layers: decorrelated.map(|(_, cost)| cost).collect(), plain })
    }

    /// What a checkpoint keeps of decorrelation beside the tensors.
    pub fn decor_state(&self) -> NnResult<DecorState> {
        let mut layers = Vec::new();
        for layer in self.layers.borrow().iter() {
            layers.extend(layer.state()?);
        }
        Ok(DecorState { layers, auto: self.auto.borrow().as_ref().map(|(_, progress)| progress.clone()) })
    }

    /// Takes over what [`Self::decor_state`] said; before [`Self::load_state`], because `"auto"` may have chosen already.
    pub fn restore_decor_state(&self, state: &DecorState) -> NnResult<()> {
        if let Some((config, progress)) = self.auto.borrow_mut().as_mut()
            && let Some(saved) = &state.auto
        {
            *progress = saved.clone();
            if let Some(choice) = &saved.choice {
                self.install(choice, &config.options)?;
            }
        }
        for layer in self.layers.borrow().iter() {
            if let Some(saved) = state.layers.iter().find(|saved| saved.name == layer.name()) {
                layer.restore(saved);
            }
        }
        Ok(())
    }

    /// Folds every R into its weight, `W ← W R`, and drops it: outputs stay the same.
    pub fn fuse(&self) -> NnResult<()> {
        self.refuse_pending_gradients("fuse")?;
        self.replaced.set(self.replaced.get() + 1);
        self.layers.borrow().iter().try_for_each(|layer| layer.fuse())
    }
}

/// Figures of several layers, each of the same shape, in one copy from the device.
fn read_all(figures: &[Tensor]) -> NnResult<Vec<f64>> {
    if figures.is_empty() {
        return Ok(Vec::new());
    }
    let flat = Tensor::f_stack(figures, 0)?.f_reshape([-1])?.f_to_kind(Kind::Double)?.f_to_device(Device::Cpu)?;
    Ok(Vec::<f64>::try_from(&flat)?)
}
