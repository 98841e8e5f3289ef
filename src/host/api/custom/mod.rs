//! `models::custom()`: models that a script writes itself. Parts are made by name in the model's own registry, so that
//! everything that takes a model takes these; what happens to a value, and what the loss is, are functions of the script.
//!
//! The functions are called as from the place that asked for them, so that an error inside has its place and its callers;
//! nothing is borrowed meanwhile, whatever they call.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use rhai::plugin::*;
use rhai::{Dynamic, Engine, EvalAltResult, FnPtr, GlobalRuntimeState, ImmutableString, Module, NativeCallContext};
use tch::{Kind, Tensor};

use super::models::{ModelHandle, Network};
use super::tensor::TensorHandle;
use crate::host::convert::SomePart;
use crate::host::errors::{Failure, ScriptResult, script_error};
use crate::host::session::Session;
use crate::host::suggest::did_you_mean;
use crate::nn::{Place, Registry, Scope};

pub mod frame;
mod parts;
pub use parts::{Simple, refuse_part};

/// What a script has built under one name.
pub struct Custom {
    scope: Scope,
    parts: RefCell<Vec<(String, Part)>>,
    forward: RefCell<Option<Function>>,
    loss: RefCell<Option<Function>>,
}

/// A function of the script, with the functions, imports and constants of the source that it was written in: it may be called
/// from another.
#[derive(Clone)]
struct Function {
    work: FnPtr,
    /// Kept by the session.
    home: Weak<GlobalRuntimeState>,
}

/// The homes of all such functions, in the session: a constant may hold the very model whose function sees that constant, and
/// neither would ever be freed if the model owned what it sees.
#[derive(Default)]
pub struct Homes(RefCell<Vec<Rc<GlobalRuntimeState>>>);

impl Homes {
    /// Those of functions that are gone are let go of on the way.
    fn keep(&self, ctx: &NativeCallContext) -> Weak<GlobalRuntimeState> {
        let mut home = ctx.global_runtime_state().clone();
        home.tag = Dynamic::UNIT; // It is the session.
        let home = Rc::new(home);
        let weak = Rc::downgrade(&home);
        let mut homes = self.0.borrow_mut();
        homes.retain(|known| Rc::weak_count(known) > 0);
        homes.push(home);
        weak
    }

    /// Lets go of all, and with them of what constants hold: no function is called any more.
    pub fn clear(&self) {
        // What is dropped may come back here.
        drop(self.0.take());
    }
}

impl Function {
    fn call(&self, ctx: &NativeCallContext, model: &ModelHandle, value: Dynamic) -> ScriptResult<Dynamic> {
        let caller = ctx.global_runtime_state();
        let mut home = self.home.upgrade().map_or_else(|| caller.clone(), |home| (*home).clone());
        home.level = caller.level;
        home.tag = caller.tag.clone();
        let inside = NativeCallContext::new_with_all_fields(
            ctx.engine(),
            ctx.fn_name(),
            home.source(),
            &home,
            ctx.call_position(),
        );
        self.work.call_within_context(&inside, (model.clone(), value))
    }
}

/// What `model.name` answers with.
#[derive(Clone)]
enum Part {
    Tensor(TensorHandle),
    Model(ModelHandle),
}

impl Part {
    /// Whether `value` is this very part.
    fn is(&self, value: &Dynamic) -> bool {
        match self {
            Self::Tensor(own) => value.read_lock::<TensorHandle>().is_some_and(|other| Rc::ptr_eq(&own.0, &other.0)),
            Self::Model(own) => value.read_lock::<ModelHandle>().is_some_and(|other| Rc::ptr_eq(&own.0, &other.0)),
        }
    }
}

impl Custom {
    fn new(scope: Scope) -> Self {
        Self { scope, parts: RefCell::default(), forward: RefCell::default(), loss: RefCell::default() }
    }

    fn part(&self, name: &str) -> Option<Part> {
        self.parts.borrow().iter().find(|(own, _)| own == name).map(|(_, part)| part.clone())
    }
}

pub fn register(engine: &mut Engine, models: &mut Module) {
    combine_with_exported_module!(models, "custom", functions);
    engine.register_global_module(exported_module!(methods).into());
    parts::register(engine);
}

/// Calls the script's forward pass. Outside of a loss it is a pass of its own.
pub fn forward(ctx: &NativeCallContext, model: &ModelHandle, own: &Custom, x: Dynamic) -> ScriptResult<Dynamic> {
    let work = own.forward.borrow().clone().ok_or_else(|| {
        let hint = "write one: model.forward = |m, x| m.encoder.forward(x)";
        script_error(ctx, Failure::script(format!("forward: {} has none yet", named(own))).with_hint(hint))
    })?;
    let _open = model.open_pass();
    work.call(ctx, model, x)
}

/// Calls the script's loss for a batch that stands at `place`; not divided by the number of micro-batches.
pub fn loss(
    ctx: &NativeCallContext,
    model: &ModelHandle,
    own: &Custom,
    batch: Dynamic,
    place: Place,
) -> ScriptResult<Tensor> {
    let work = own.loss.borrow().clone().ok_or_else(|| {
        let hint = "write one: model.loss = |m, batch| nn::mse_loss(m.forward(batch.images), batch.images)";
        script_error(ctx, Failure::script(format!("loss: {} has none yet", named(own))).with_hint(hint))
    })?;
    let _open = model.open_pass_at(place);
    let value = work.call(ctx, model, batch)?;
    let got = ctx.engine().map_type_name(value.type_name()).to_owned();
    let loss = value.try_cast::<TensorHandle>().ok_or_else(|| {
        script_error(ctx, format!("loss: the function must end with a tensor of one value, got {}", shown(&got)))
    })?;
    if loss.numel() != 1 {
        let message = format!("loss: the function must end with a tensor of one value, got shape {:?}", loss.size());
        return Err(script_error(ctx, Failure::script(message).with_hint("end with .mean() or .sum()")));
    }
    Ok(loss.shallow_clone())
}

fn shown(kind: &str) -> &str {
    if kind == "()" { "nothing" } else { kind }
}

/// How messages name it.
fn named(own: &Custom) -> String {
    match own.scope.name() {
        "" => "this model".to_owned(),
        name => name.to_owned(),
    }
}

/// The custom model behind a handle.
fn custom<'a>(ctx: &NativeCallContext, what: &str, model: &'a ModelHandle) -> ScriptResult<&'a Custom> {
    match model.network() {
        Network::Custom(own) => Ok(own),
        _ => {
            let failure = Failure::script(format!("{what}: only a model of models::custom() takes it"));
            Err(script_error(ctx, failure.with_hint("let net = models::custom(); net.add(\"encoder\", model);")))
        }
    }
}

/// Keeps a function, unless it holds the model that would hold it: neither could ever be freed.
fn keep(
    ctx: &NativeCallContext,
    what: &str,
    model: &ModelHandle,
    place: impl FnOnce(&Custom) -> &RefCell<Option<Function>>,
    work: FnPtr,
) -> ScriptResult<()> {
    let own = custom(ctx, what, model)?;
    let holds = |held: &ModelHandle| {
        let Network::Custom(other) = held.network() else { return false };
        let inside = |outer: &str, inner: &str| {
            outer.is_empty() || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        Rc::ptr_eq(held.registry(), model.registry()) && inside(other.scope.name(), own.scope.name())
    };
    if work.iter_curry().any(|value| value.read_lock::<ModelHandle>().is_some_and(|held| holds(&held))) {
        let failure = Failure::script(format!("{what}: the function holds the model that is to hold it"));
        return Err(script_error(ctx, failure.with_hint("it is given the model: use its first argument, |m, x| …")));
    }
    let home = Session::of(ctx).homes.keep(ctx);
    *place(own).borrow_mut() = Some(Function { work, home });
    Ok(())
}

#[export_module]
mod functions {
    /// An empty model to build by hand: parts by name, then functions for its forward pass and its loss. It is a model like any
    /// other: `optim`, `decorrelate`, `run::start`, checkpoints and `evaluate` take it.
    ///
    /// Parts: `linear`, `conv2d`, `layer_norm`, `batch_norm`, `dropout`, `embedding`, `parameter`, `buffer`, `child` (a model
    /// inside this one) and `add` (a copy of another model). In the functions they are `m.name`. A part's initial values are
    /// drawn by its name, so that adding one changes no other.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.linear("encoder", 8, 2);
    /// net.linear("decoder", 2, 8);
    /// net.forward = |m, x| m.decoder.forward(m.encoder.forward(x).tanh());
    /// net.loss = |m, x| nn::mse_loss(m.forward(x), x);
    /// assert(net.evaluate(tensor::ones([4, 8])) > 0.0 && net.layers() == ["encoder", "decoder"]);
    /// ```
    #[rhai_fn(name = "custom")]
    pub fn custom_model(ctx: NativeCallContext) -> ModelHandle {
        let session = Session::of(&ctx);
        let registry = Registry::new(session.seed(), session.options.device, Kind::Float);
        ModelHandle::new(Network::Custom(Box::new(Custom::new(registry.root()))), registry)
    }
}

#[export_module]
mod methods {
    /// What the model does with a value: a function of the model and the value, `|m, x| …`. `m.forward(x)` calls it.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.parameter("scale", [3], "ones");
    /// net.forward = |m, x| x * m.scale;
    /// assert(net.forward(tensor::ones([2, 3])).shape == [2, 3]);
    /// ```
    #[rhai_fn(set = "forward", return_raw, pure)]
    pub fn set_forward(ctx: NativeCallContext, model: &mut ModelHandle, work: FnPtr) -> ScriptResult<()> {
        keep(&ctx, "forward", model, |own| &own.forward, work)
    }

    /// The model's loss: a function of the model and a batch, `|m, batch| …`, that ends with a tensor of one value. A batch is
    /// one of a loader, or whatever `loss` is called with. `model.loss(batch)` calls it and divides by the number of
    /// micro-batches; `model.evaluate(batch)` calls it without gradients.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.parameter("w", [1]);
    /// net.loss = |m, pair| (m.w * pair.x - pair.y).abs().mean();
    /// assert(net.evaluate(#{ x: tensor::ones(4), y: tensor::ones(4) }) == 1.0);
    /// ```
    #[rhai_fn(set = "loss", return_raw, pure)]
    pub fn set_loss(ctx: NativeCallContext, model: &mut ModelHandle, work: FnPtr) -> ScriptResult<()> {
        keep(&ctx, "loss", model, |own| &own.loss, work)
    }

    /// A part of a custom model by its name, as in `m.encoder`: a parameter or buffer is a tensor, all others are models.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// for i in 0..3 { net.linear(`layer${i}`, 4, 4); }
    /// net.forward = |m, x| {
    ///     for i in 0..3 { x = m[`layer${i}`].forward(x).relu(); }
    ///     x
    /// };
    /// assert(net.forward(tensor::ones([2, 4])).shape == [2, 4]);
    /// ```
    #[rhai_fn(index_get, return_raw, pure)]
    pub fn part(ctx: NativeCallContext, model: &mut ModelHandle, name: ImmutableString) -> ScriptResult<SomePart> {
        let Network::Custom(own) = model.network() else {
            // Rhai then says what it would say of any type's unknown property.
            return Err(EvalAltResult::ErrorIndexingType("Model".to_owned(), ctx.call_position()).into());
        };
        match own.part(&name) {
            Some(Part::Tensor(tensor)) => Ok(Dynamic::from(tensor)),
            Some(Part::Model(model)) => Ok(Dynamic::from(model)),
            None => {
                let parts = own.parts.borrow();
                let names: Vec<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
                let known = names.iter().copied().chain(parts::PROPERTIES.iter().copied());
                let hint = did_you_mean(&name, known).unwrap_or_else(|| match &names[..] {
                    [] => "it has no parts yet".to_owned(),
                    names => format!("its parts are {}", names.join(", ")),
                });
                let failure = Failure::script(format!("{} has no part `{name}`", named(own)));
                Err(script_error(&ctx, failure.with_hint(hint)))
            }
        }
    }

    /// Refuses to replace a part.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.parameter("scale", [2], "ones");
    /// no_grad(|| net.scale.assign(3));
    /// assert(net.tensor("scale").sum().item() == 6.0);
    /// ```
    #[rhai_fn(index_set, return_raw, pure)]
    pub fn set_part(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        value: Dynamic,
    ) -> ScriptResult<()> {
        // After `m.part.method(…)` Rhai hands the part back, in case the method has changed it.
        let handed_back = match model.network() {
            Network::Custom(own) => own.part(&name).is_some_and(|part| part.is(&value)),
            _ => false,
        };
        if handed_back {
            return Ok(());
        }
        let got = ctx.engine().map_type_name(value.type_name());
        let failure = match (model.network(), name.as_str()) {
            (Network::Custom(_), "forward" | "loss") => {
                Failure::script(format!("{name}: expected a function like |m, x| …, got {}", shown(got)))
            }
            (Network::Custom(own), _) => match own.part(&name) {
                Some(Part::Tensor(_)) => Failure::script(format!("`{name}` is a part of the model and stays one"))
                    .with_hint("write to its values: no_grad(|| m.name.assign(…))"),
                Some(Part::Model(_)) => Failure::script(format!("`{name}` is a part of the model and stays one")),
                None => Failure::script(format!("{} has no part `{name}`", named(own)))
                    .with_hint("parts are made before: parameter, buffer, linear, child …"),
            },
            _ => return Err(EvalAltResult::ErrorIndexingType("Model".to_owned(), ctx.call_position()).into()),
        };
        Err(script_error(&ctx, failure))
    }

    /// Whether passes train right now: not under `evaluate` and `no_grad`. For what differs between the two.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.forward = |m, x| if m.training { x + 0.1 * tensor::randn_like(x) } else { x };
    /// assert(net.training && no_grad(|| net.forward(tensor::ones(2)).allclose(tensor::ones(2))));
    /// ```
    #[rhai_fn(get = "training", pure)]
    pub fn training(model: &mut ModelHandle) -> bool {
        let _ = model;
        crate::libtorch::grad_enabled()
    }
}
