//! What custom models are built of: methods that make a part under a name.

use std::rc::Rc;

use rhai::plugin::*;
use rhai::{Dynamic, Engine, INT, ImmutableString, Map, NativeCallContext};
use tch::{Kind, Tensor};

use super::{Custom, Part, custom, named};
use crate::host::api::models::{ModelHandle, Network};
use crate::host::api::nn::conv_config;
use crate::host::api::tensor::{TensorHandle, size};
use crate::host::convert::{self, Initial, Number, Pair, Shape};
use crate::host::errors::{Failure, ScriptResult, check_arg, script_error};
use crate::host::options::{OptionMap, number};
use crate::nn::{
    BatchNorm, Conv2d, Conv2dConfig, Dropout, Init, LayerNorm, Linear, NnError, NnResult, Pass, Scope, Vit,
};

/// Properties that every model has, which no part may be called.
pub const PROPERTIES: &[&str] = &[
    "parameters",
    "normalization",
    "classes",
    "image_size",
    "channels",
    "is_decorrelated",
    "training",
    "forward",
    "loss",
];

/// A part that is not decorrelated.
pub enum Simple {
    LayerNorm(LayerNorm),
    BatchNorm(BatchNorm),
    Dropout(Dropout),
    /// Shapes: `[count, width]`.
    Embedding(Tensor),
}

impl Simple {
    pub fn forward(&self, x: &Tensor, pass: Pass) -> NnResult<Tensor> {
        match self {
            Self::LayerNorm(norm) => norm.forward(x),
            Self::BatchNorm(norm) => norm.forward(x, pass),
            Self::Dropout(dropout) => dropout.values(x, pass),
            Self::Embedding(rows) => {
                let count = rows.size()[0];
                if x.kind() != Kind::Int64 {
                    return Err(NnError::Config("x: an embedding takes whole numbers, see to_int()".to_owned()));
                }
                // Checked here, because a GPU would not recover from it.
                let outside = x.f_lt(0)?.f_logical_or(&x.f_ge(count)?)?.f_any()?.f_int64_value(&[])? != 0;
                if outside {
                    return Err(NnError::Config(format!("x: expected numbers from 0 to {}", count - 1)));
                }
                Ok(Tensor::f_embedding(rows, x, -1, false, false)?)
            }
        }
    }
}

pub fn register(engine: &mut Engine) {
    engine.register_global_module(exported_module!(methods).into());
}

/// The model that takes a part, and the scope of that part.
fn place<'a>(
    ctx: &NativeCallContext,
    what: &str,
    model: &'a ModelHandle,
    name: &str,
) -> ScriptResult<(&'a Custom, Scope)> {
    let own = custom(ctx, what, model)?;
    check_arg(ctx, !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_'), || {
        format!("name: expected letters, digits and _, got \"{name}\"")
    })?;
    check_arg(ctx, !PROPERTIES.contains(&name), || {
        format!("name: every model has a property `{name}`; choose another name")
    })?;
    check_arg(ctx, own.part(name).is_none(), || format!("name: {} has a part `{name}` already", named(own)))?;
    Ok((own, own.scope.sub(name)))
}

fn whole(ctx: &NativeCallContext, sizes: &[(&str, INT)]) -> ScriptResult<()> {
    sizes
        .iter()
        .try_for_each(|(name, value)| check_arg(ctx, *value > 0, || format!("{name}: expected 1 or more, got {value}")))
}

/// Keeps what was made, and answers with it.
fn put(
    ctx: &NativeCallContext,
    model: &ModelHandle,
    own: &Custom,
    name: &str,
    made: NnResult<Network>,
) -> ScriptResult<ModelHandle> {
    let network = made.map_err(|err| script_error(ctx, err))?;
    let part = model.part(own.scope.sub(name).name(), network);
    own.parts.borrow_mut().push((name.to_owned(), Part::Model(part.clone())));
    Ok(part)
}

/// The initial values of a parameter: a name, a number, or a map; and whether it decays.
fn initial(ctx: &NativeCallContext, init: Dynamic, dims: usize) -> ScriptResult<(Init, bool)> {
    let usual = dims > 1;
    let Some(map) = init.read_lock::<Map>().map(|map| map.clone()) else {
        return Ok((one_init(ctx, &init, None)?, usual));
    };
    let mut options = OptionMap::new(ctx, "parameter", map);
    let (init, std) = (options.or("init", Dynamic::from("zeros"))?, options.get::<f64>("std")?);
    let decay = options.or("decay", usual)?;
    options.finish()?;
    Ok((one_init(ctx, &init, std)?, decay))
}

fn one_init(ctx: &NativeCallContext, init: &Dynamic, std: Option<f64>) -> ScriptResult<Init> {
    let found = match number(init) {
        Some(value) => Some(Init::Constant(value)),
        None => match init.clone().into_string().unwrap_or_default().as_str() {
            "zeros" => Some(Init::Constant(0.0)),
            "ones" => Some(Init::Constant(1.0)),
            "normal" => Some(Init::Normal { std: std.unwrap_or(0.02) }),
            "xavier" => Some(Init::Xavier),
            "kaiming" => Some(Init::Kaiming),
            _ => None,
        },
    };
    let found = found.ok_or_else(|| {
        let expected = "\"zeros\", \"ones\", \"normal\", \"xavier\", \"kaiming\" or a number";
        script_error(ctx, format!("init: expected {expected}, got {init}"))
    })?;
    let fits = std.is_none_or(|std| matches!(found, Init::Normal { .. }) && std.is_finite() && std >= 0.0);
    check_arg(ctx, fits, || "std: expected 0 or more, for init \"normal\" alone".to_owned())?;
    Ok(found)
}

fn new_linear(
    ctx: &NativeCallContext,
    model: &ModelHandle,
    name: &str,
    (in_features, out_features): (INT, INT),
    options: Map,
) -> ScriptResult<ModelHandle> {
    let mut options = OptionMap::new(ctx, "linear", options);
    let behind = options.get::<String>("behind")?;
    options.finish()?;
    whole(ctx, &[("in_features", in_features), ("out_features", out_features)])?;
    size::check(ctx, &[in_features, out_features], Kind::Float)?;
    let (own, scope) = place(ctx, "linear", model, name)?;
    let norm = match behind {
        None => None,
        Some(behind) => match own.part(&behind) {
            Some(Part::Model(part)) if matches!(part.network(), Network::Simple(Simple::LayerNorm(_))) => Some(part),
            _ => return Err(script_error(ctx, format!("behind: {} has no layer_norm `{behind}`", named(own)))),
        },
    };
    let made = Linear::new(&scope, in_features, out_features);
    if let (Ok(layer), Some(Network::Simple(Simple::LayerNorm(norm)))) =
        (&made, norm.as_ref().map(ModelHandle::network))
    {
        layer.behind(norm);
    }
    put(ctx, model, own, name, made.map(Network::Linear))
}

/// A copy of a model in a scope of its own: its shape, and its weights with every R folded in.
fn copied(scope: &Scope, other: &ModelHandle) -> NnResult<Network> {
    let (network, prefix) = match other.network() {
        Network::Linear(layer) => {
            let layer = layer.layer();
            (Network::Linear(Linear::new(scope, layer.inputs(), layer.outputs())?), layer.name().to_owned() + ".")
        }
        Network::Conv2d(conv) => {
            (Network::Conv2d(Conv2d::new(scope, conv.config())?), conv.layer().name().to_owned() + ".")
        }
        Network::Vit(vit) => (Network::Vit(Box::new(Vit::new(scope, vit.config())?)), other.prefix()),
        Network::Mae(mae) => {
            (Network::Vit(Box::new(Vit::new(scope, &mae.config().encoder)?)), other.prefix() + "encoder.")
        }
        _ => {
            let message = "add: expected a vision transformer, a masked autoencoder, or a layer; a custom model is built in \
                           its place, with child(name)";
            return Err(NnError::Config(message.to_owned()));
        }
    };
    let place = scope.name().to_owned() + ".";
    let moved = other.registry().fused_state()?.into_iter();
    let state: Vec<_> =
        moved.filter_map(|(name, tensor)| Some((place.clone() + name.strip_prefix(&prefix)?, tensor))).collect();
    scope.registry().load_part(&place, &state)?;
    Ok(network)
}

#[export_module]
mod methods {
    /// Adds a linear layer, `y = x Wᵀ + b`, Xavier-uniform, bias 0, which can be decorrelated by its name. Shapes: `[…, in]` →
    /// `[…, out]`.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.linear("head", 8, 3);
    /// assert(net.head.forward(tensor::ones([5, 8])).shape == [5, 3]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn linear(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        in_features: INT,
        out_features: INT,
    ) -> ScriptResult<ModelHandle> {
        new_linear(&ctx, model, &name, (in_features, out_features), Map::new())
    }

    /// The same.
    ///
    /// Options:
    /// - `behind` (string, none): the name of the `layer_norm` that its inputs come straight from: decorrelation then leaves out
    ///   the one direction that these never have
    #[rhai_fn(name = "linear", return_raw, pure)]
    pub fn linear_with(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        in_features: INT,
        out_features: INT,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        new_linear(&ctx, model, &name, (in_features, out_features), options)
    }

    /// Adds a convolution that can be decorrelated, as `nn::conv2d` makes one. Shapes: `[N, C, H, W]` → `[N, out, H', W']`.
    ///
    /// Options: those of `nn::conv2d`.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.conv2d("stem", 3, 8, 3, #{ stride: 2, padding: 1 });
    /// assert(net.stem.forward(tensor::ones([1, 3, 8, 8])).shape == [1, 8, 4, 4]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn conv2d(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        in_channels: INT,
        out_channels: INT,
        kernel: Pair,
        options: Map,
    ) -> ScriptResult<ModelHandle> {
        let mut options = OptionMap::new(&ctx, "conv2d", options);
        let config: Conv2dConfig = conv_config(&ctx, (in_channels, out_channels), kernel, &mut options)?;
        options.finish()?;
        let (own, scope) = place(&ctx, "conv2d", model, &name)?;
        put(&ctx, model, own, &name, Conv2d::new(&scope, &config).map(Network::Conv2d))
    }

    /// Adds a normalization of the last dimension, eps 1e-6, with weight and bias. Shapes: `[…, width]` → the same.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.layer_norm("norm", 2);
    /// assert(net.norm.forward(tensor::from([[1.0, 3.0]])).allclose(tensor::from([[-1.0, 1.0]])));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn layer_norm(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        width: INT,
    ) -> ScriptResult<ModelHandle> {
        whole(&ctx, &[("width", width)])?;
        size::check(&ctx, &[width], Kind::Float)?;
        let (own, scope) = place(&ctx, "layer_norm", model, &name)?;
        let made = LayerNorm::new(&scope, width).map(|norm| Network::Simple(Simple::LayerNorm(norm)));
        put(&ctx, model, own, &name, made)
    }

    /// Adds a batch normalization of images; running statistics are saved with the weights. Shapes: `[N, C, H, W]` → the same.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.batch_norm("norm", 3);
    /// assert(net.norm.forward(tensor::randn([8, 3, 4, 4])).mean().abs().item() < 1e-5);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn batch_norm(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        channels: INT,
    ) -> ScriptResult<ModelHandle> {
        whole(&ctx, &[("channels", channels)])?;
        size::check(&ctx, &[channels], Kind::Float)?;
        let (own, scope) = place(&ctx, "batch_norm", model, &name)?;
        let made = BatchNorm::new(&scope, channels).map(|norm| Network::Simple(Simple::BatchNorm(norm)));
        put(&ctx, model, own, &name, made)
    }

    /// Adds a dropout: while training, each value is 0 with probability `rate`, and the others are scaled up. What is dropped is
    /// keyed by seed, step and name: a resumed run drops the same. Two places need two of them.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.dropout("drop", 0.5);
    /// let x = tensor::ones([100]);
    /// assert(net.drop.forward(x).max().item() == 2.0 && no_grad(|| net.drop.forward(x).allclose(x)));
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn dropout(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        rate: Number,
    ) -> ScriptResult<ModelHandle> {
        let rate = convert::float(&ctx, "rate", &rate)?;
        check_arg(&ctx, (0.0..1.0).contains(&rate), || format!("rate: expected 0 or more, below 1, got {rate}"))?;
        let (own, scope) = place(&ctx, "dropout", model, &name)?;
        put(&ctx, model, own, &name, Ok(Network::Simple(Simple::Dropout(Dropout::new(&scope, rate)))))
    }

    /// Adds a table of `count` rows, normal with standard deviation 0.02, looked up by whole numbers. Shapes: `[…]` → `[…, width]`.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.embedding("word", 100, 16);
    /// assert(net.word.forward(tensor::from([[3, 1, 4]])).shape == [1, 3, 16]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn embedding(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        count: INT,
        width: INT,
    ) -> ScriptResult<ModelHandle> {
        whole(&ctx, &[("count", count), ("width", width)])?;
        size::check(&ctx, &[count, width], Kind::Float)?;
        let (own, scope) = place(&ctx, "embedding", model, &name)?;
        let made = scope.parameter("weight", &[count, width], Init::Normal { std: 0.02 }, true);
        put(&ctx, model, own, &name, made.map(|rows| Network::Simple(Simple::Embedding(rows))))
    }

    /// Adds a trained tensor, `m.name`, that starts with zeros. Returns it.
    #[rhai_fn(name = "parameter", return_raw, pure)]
    pub fn parameter_of_zeros(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        shape: Shape,
    ) -> ScriptResult<TensorHandle> {
        parameter(ctx, model, name, shape, Dynamic::from("zeros"))
    }

    /// Adds a trained tensor, `m.name`. `init` is `"zeros"`, `"ones"`, a number, `"normal"` (standard deviation 0.02), `"xavier"` or
    /// `"kaiming"` (uniform, for shapes `[outputs, inputs, …]`), or a map of options. Returns it.
    ///
    /// Options:
    /// - `init` (string or number, "zeros"): the initial values, as above
    /// - `std` (float, 0.02): the standard deviation of `"normal"`
    /// - `decay` (bool, true with two or more dimensions): whether weight decay applies
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.parameter("token", [1, 8], #{ init: "normal", std: 0.5, decay: false });
    /// assert(net.token.requires_grad && net.parameters == 8);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn parameter(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        shape: Shape,
        init: Initial,
    ) -> ScriptResult<TensorHandle> {
        let shape = convert::shape(&ctx, "shape", &shape)?;
        let (init, decay) = initial(&ctx, init, shape.len())?;
        size::check(&ctx, &shape, Kind::Float)?;
        let (own, _) = place(&ctx, "parameter", model, &name)?;
        let made = own.scope.parameter(&name, &shape, init, decay).map_err(|err| script_error(&ctx, err))?;
        let tensor = TensorHandle::from(made);
        own.parts.borrow_mut().push((name.to_string(), Part::Tensor(tensor.clone())));
        Ok(tensor)
    }

    /// Adds a copy of a tensor that is saved with the weights but not trained: positions, statistics, an optimizer's memory.
    /// `m.name.assign(…)` changes it. Returns it.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.buffer("mean", tensor::zeros([3]));
    /// net.mean.assign(tensor::ones([3]));
    /// assert(net.parameters == 0 && net.tensor("mean").sum().item() == 3.0);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn buffer(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        values: TensorHandle,
    ) -> ScriptResult<TensorHandle> {
        let (own, _) = place(&ctx, "buffer", model, &name)?;
        let copy = values.f_detach_copy().map_err(|err| script_error(&ctx, err))?;
        let made = own.scope.fixed(&name, &copy).map_err(|err| script_error(&ctx, err))?;
        let tensor = TensorHandle::from(made);
        own.parts.borrow_mut().push((name.to_string(), Part::Tensor(tensor.clone())));
        Ok(tensor)
    }

    /// Adds an empty model inside this one, to build in the same way: `m.name.forward(x)` calls its function. The names of its
    /// parts begin with its own. Returns it.
    ///
    /// ```rhai
    /// fn mlp(net, name, width) {
    ///     let part = net.child(name);
    ///     part.linear("fc1", width, 4 * width);
    ///     part.linear("fc2", 4 * width, width);
    ///     part.forward = |m, x| x + m.fc2.forward(m.fc1.forward(x).gelu());
    /// }
    /// let net = models::custom();
    /// for i in 0..2 { mlp(net, `block${i}`, 8); }
    /// assert(net.layers() == ["block0.fc1", "block0.fc2", "block1.fc1", "block1.fc2"]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn child(ctx: NativeCallContext, model: &mut ModelHandle, name: ImmutableString) -> ScriptResult<ModelHandle> {
        let (own, scope) = place(&ctx, "child", model, &name)?;
        put(&ctx, model, own, &name, Ok(Network::Custom(Box::new(Custom::new(scope)))))
    }

    /// Adds a copy of another model, with its weights: a vision transformer, the encoder of a masked autoencoder, or a layer. Every
    /// R is folded into its weight, and the other model stays as it is. Returns it.
    ///
    /// ```rhai
    /// let net = models::custom();
    /// net.add("encoder", models::vit(#{ image_size: 16, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2 }));
    /// net.linear("head", 16, 3);
    /// net.forward = |m, x| m.head.forward(m.encoder.forward(x).mean(1));
    /// assert(net.forward(tensor::ones([2, 3, 16, 16])).shape == [2, 3]);
    /// ```
    #[rhai_fn(return_raw, pure)]
    pub fn add(
        ctx: NativeCallContext,
        model: &mut ModelHandle,
        name: ImmutableString,
        other: ModelHandle,
    ) -> ScriptResult<ModelHandle> {
        let (own, scope) = place(&ctx, "add", model, &name)?;
        check_arg(&ctx, !Rc::ptr_eq(model.registry(), other.registry()), || {
            "add: this part is in the model already; call it where it is needed".to_owned()
        })?;
        put(&ctx, model, own, &name, copied(&scope, &other))
    }
}

/// A part has no life of its own.
pub fn refuse_part(ctx: &NativeCallContext, what: &str, model: &ModelHandle) -> ScriptResult<()> {
    match model.part_name() {
        None => Ok(()),
        Some(name) => {
            let failure = Failure::script(format!("{what}: `{name}` is a part of a model; give the whole model"));
            Err(script_error(ctx, failure))
        }
    }
}
