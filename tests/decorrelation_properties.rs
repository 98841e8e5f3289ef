//! Whatever a decorrelated layer's options and shape: it stays finite or is refused, all ways to apply R agree, and its
//! state loads wherever it fits. Random cases, drawn by number.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::rc::Rc;

use dbp_host::nn::{
    BlockWidth, Conv2d, Conv2dConfig, DecorOptions, DecorSchedule, LayerNorm, Linear, MaxRows, NnError, NnResult, Pass,
    Path, Place, Registry, RowSampler, Sample, StopAt,
};
use dbp_host::random::Rng;
use dbp_host::schedule::{Ramp, Schedule};
use dbp_host::train::{AdamWConfig, Optimizer};
use tch::{Device, Kind, Tensor};

mod layers;
use layers::{is_finite, max_abs, normal, place, rng};

/// From `low` to `high`, both included.
fn int(rng: &mut Rng, low: i64, high: i64) -> i64 {
    low + rng.below((high - low + 1) as u64) as i64
}

fn coin(rng: &mut Rng) -> bool {
    rng.below(2) == 1
}

/// Any options that pass their check.
fn options(rng: &mut Rng) -> DecorOptions {
    let rate = |rng: &mut Rng| if rng.below(10) == 0 { 0.0 } else { 10f64.powf(rng.range(-5.0, -2.0)) };
    let low_rank = rng.below(4) == 0;
    DecorOptions {
        lr: rate(rng),
        sample: if coin(rng) { Sample::Fraction(1.0 - rng.uniform_f64()) } else { Sample::Rows(int(rng, 1, 300)) },
        max_rows: match rng.below(4) {
            0 => MaxRows::Rows(int(rng, 1, 100)),
            1 => MaxRows::Widths(rng.range(0.01, 6.0)),
            _ => MaxRows::None,
        },
        kappa: [0.0, 0.5, 1.0, rng.uniform_f64()][rng.below(4) as usize],
        every: int(rng, 1, 3) as u64,
        schedule: match rng.below(4) {
            0 => DecorSchedule::Follow,
            1 => {
                let ramp = Ramp { peak: rate(rng), end: 0.0, warmup: rng.below(3), total: rng.below(5) };
                DecorSchedule::Own(Schedule::Cosine(ramp))
            }
            _ => DecorSchedule::Constant,
        },
        stop_at: [None, None, Some(StopAt::Step(rng.below(4))), Some(StopAt::Epoch(rng.below(2)))]
            [rng.below(4) as usize],
        patience: rng.below(3),
        rank: if low_rank { int(rng, 1, 50) } else { 0 },
        block: match rng.below(4) {
            _ if low_rank => BlockWidth::Whole,
            0 => BlockWidth::Width(int(rng, 1, 12)),
            1 => BlockWidth::Wide,
            _ => BlockWidth::Whole,
        },
        max_norm: [0.0, 1.0, 4.0, rng.range(1.0, 10.0)][rng.below(4) as usize],
        project: coin(rng),
    }
}

type Forward = Box<dyn Fn(&Tensor, Pass) -> NnResult<Tensor>>;

/// A model of the one layer `layer`, maybe behind a norm.
struct Model {
    registry: Rc<Registry>,
    forward: Forward,
    /// Of a training batch; its first dimension may be any.
    shape: Vec<i64>,
}

impl Model {
    fn linear(seed: u64, inputs: i64, outputs: i64, rows: i64) -> Self {
        let registry = Registry::new(seed, Device::Cpu, Kind::Float);
        let layer = Linear::new(&registry.root().sub("layer"), inputs, outputs).unwrap();
        let forward = Box::new(move |x: &Tensor, pass: Pass| layer.forward(x, pass));
        Self { registry, forward, shape: vec![rows, inputs] }
    }

    /// γ of either sign, and now and then 0.
    fn behind_norm(rng: &mut Rng, inputs: i64, outputs: i64, rows: i64) -> Self {
        let registry = Registry::new(0, Device::Cpu, Kind::Float);
        let norm = LayerNorm::new(&registry.root().sub("norm"), inputs).unwrap();
        let gamma: Vec<f64> = (0..inputs).map(|_| if rng.below(8) == 0 { 0.0 } else { rng.normal() }).collect();
        tch::no_grad(|| norm.weight().shallow_clone().copy_(&Tensor::from_slice(&gamma)));
        let layer = Linear::new(&registry.root().sub("layer"), inputs, outputs).unwrap();
        layer.behind(&norm);
        let forward = Box::new(move |x: &Tensor, pass: Pass| layer.forward(&norm.forward(x)?, pass));
        Self { registry, forward, shape: vec![rows, inputs] }
    }

    fn conv(seed: u64, config: &Conv2dConfig, images: i64, (height, width): (i64, i64)) -> Self {
        let registry = Registry::new(seed, Device::Cpu, Kind::Float);
        let conv = Conv2d::new(&registry.root().sub("layer"), config).unwrap();
        let forward = Box::new(move |x: &Tensor, pass: Pass| conv.forward(x, pass));
        Self { registry, forward, shape: vec![images, config.in_channels, height, width] }
    }

    /// A linear map, one behind a norm, or a convolution; of 1 to 40 inputs and outputs and up to 200 rows, or near it.
    fn any(rng: &mut Rng) -> Self {
        tch::set_num_threads(1); // See `layers::Single`.
        let (inputs, outputs, rows) = (int(rng, 1, 40), int(rng, 1, 40), int(rng, 1, 200));
        match rng.below(3) {
            0 => Self::linear(0, inputs, outputs, rows),
            1 => Self::behind_norm(rng, inputs, outputs, rows),
            _ => {
                let groups = int(rng, 1, 4);
                let pair = |rng: &mut Rng, low, high| (int(rng, low, high), int(rng, low, high));
                let config = Conv2dConfig {
                    in_channels: groups * int(rng, 1, 3),
                    out_channels: groups * int(rng, 1, 4),
                    kernel: pair(rng, 1, 3),
                    stride: pair(rng, 1, 3),
                    padding: pair(rng, 0, 2),
                    dilation: pair(rng, 1, 2),
                    groups,
                    bias: coin(rng),
                };
                let mut side = |kernel: i64, padding: i64, dilation: i64| {
                    (dilation * (kernel - 1) + 1 - 2 * padding).max(1) + int(rng, 0, 6)
                };
                let Conv2dConfig { kernel, padding, dilation, .. } = config;
                let size = (side(kernel.0, padding.0, dilation.0), side(kernel.1, padding.1, dilation.1));
                Self::conv(0, &config, int(rng, 1, 6), size)
            }
        }
    }

    fn decorrelate(&self, options: &DecorOptions) -> NnResult<Vec<String>> {
        self.registry.decorrelate(&["layer".to_owned()], options)
    }

    /// Normal inputs; some are 0 throughout, and some are copies.
    fn inputs(&self, rng: &mut Rng, first: i64) -> Tensor {
        let mut shape = self.shape.clone();
        shape[0] = first;
        let x = normal(rng, &shape).to_kind(Kind::Float);
        if rng.below(4) == 0 {
            x.select(1, 0).copy_(&x.select(1, int(rng, 0, shape[1] - 1)));
            let _ = x.select(1, int(rng, 0, shape[1] - 1)).zero_();
        }
        x
    }

    /// `steps` of AdamW on the mean square of the outputs, each in two micro-batches; everything finite all the way.
    fn train(&self, rng: &mut Rng, steps: u64, what: &str) {
        let optimizer = Optimizer::new(self.registry.clone(), AdamWConfig { lr: 0.02, ..Default::default() }).unwrap();
        for step in 0..steps {
            let path = [Path::Cheaper, Path::Fused, Path::TwoStep][rng.below(3) as usize];
            for micro in 0..2 {
                let place = Place { micro, micro_batches: 2, epoch: step / 2, ..place(step) };
                let sampler = RowSampler::new(&place, Device::Cpu);
                let x = self.inputs(rng, self.shape[0]);
                let y = (self.forward)(&x, Pass { path, ..Pass::train(&place, &sampler) }).unwrap();
                let loss = (y - 1.0).square().mean(Kind::Float) / 2.0;
                loss.backward();
                assert!(is_finite(&loss), "{what}, step {step}: the loss is not finite");
            }
            let visit = |parameter: &dbp_host::nn::Parameter| -> Result<(), ()> {
                let gradient = parameter.gradient().unwrap().unwrap();
                assert_eq!(gradient.size(), parameter.tensor.size(), "{what}: {}", parameter.name);
                assert!(is_finite(&gradient), "{what}, step {step}: gradient of {}", parameter.name);
                Ok(())
            };
            self.registry.each_parameter(visit).unwrap();
            optimizer.step(0.02 / (step + 1) as f64).unwrap();
            self.registry.update_decorrelation().unwrap();
            for (name, tensor) in self.registry.state() {
                assert!(is_finite(&tensor), "{what}, step {step}: {name}");
            }
            for (_, metrics) in self.registry.layer_metrics().unwrap() {
                assert!(metrics.is_finite(), "{what}, step {step}: {metrics:?}");
            }
        }
    }

    fn evaluate(&self, x: &Tensor, path: Path) -> Tensor {
        tch::no_grad(|| (self.forward)(x, Pass { path, ..Pass::EVALUATE })).unwrap()
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.registry.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
    }
}

/// To 1e-5 of the largest value wanted.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{what}");
    let (off, scale) = (max_abs(&(got - want)), max_abs(want));
    assert!(off <= 1e-5 * scale, "{what}: off by {off:e} of {scale}");
}

#[test]
fn any_layer_stays_finite_and_applies_r_in_one_way() {
    let mut refused = 0;
    for case in 0..240 {
        let rng = &mut rng(&format!("case {case}"));
        let (model, options) = (Model::any(rng), options(rng));
        let what = format!("case {case}, inputs {:?}, {options:?}", model.shape);
        match model.decorrelate(&options) {
            Ok(chosen) => assert_eq!(chosen, ["layer"]),
            Err(NnError::Config(message)) => {
                assert!(message.starts_with("block: ") || message.starts_with("rank: "), "{what}: {message}");
                assert!(!model.registry.is_decorrelated(), "{what}: refused, and yet decorrelated");
                refused += 1;
                continue;
            }
            Err(err) => panic!("{what}: {err}"),
        }
        model.train(rng, 3, &what);

        let (before, decor_before) = (model.state(), model.registry.decor_state().unwrap());
        let x = model.inputs(rng, 64);
        let fused = model.evaluate(&x, Path::Fused);
        let two_step = model.evaluate(&x, Path::TwoStep);
        assert_eq!(model.state(), before, "{what}: evaluation changed the state");
        assert_eq!(model.registry.decor_state().unwrap(), decor_before, "{what}: evaluation changed the state");
        assert!(is_finite(&fused), "{what}");
        assert_close(&format!("{what}: two steps"), &two_step, &fused);
        model.registry.fuse().unwrap();
        assert!(model.state().iter().all(|(name, _)| !name.contains("decorrelation")), "{what}");
        assert_close(&format!("{what}: fuse()"), &model.evaluate(&x, Path::Cheaper), &fused);
    }
    assert!((20..80).contains(&refused), "{refused} of 240 cases were refused");
}

/// What a pattern means, by a table: `reach[j]`, whether what was read of the pattern matches the first j parts.
fn matches(pattern: &str, name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let mut reach = vec![false; parts.len() + 1];
    reach[0] = true;
    for piece in pattern.split('.') {
        let mut next = vec![false; parts.len() + 1];
        for j in 0..=parts.len() {
            next[j] = match piece {
                "**" => reach[..=j].contains(&true),
                _ => j > 0 && reach[j - 1] && (piece == "*" || piece == parts[j - 1]),
            };
        }
        reach = next;
    }
    reach[parts.len()]
}

#[test]
fn any_pattern_selects_or_matches_nothing() {
    let registry = Registry::new(0, Device::Cpu, Kind::Float);
    let mut names = vec!["encoder.patch_embed.proj".to_owned(), "decoder_embed".to_owned()];
    for block in ["encoder.blocks.0", "encoder.blocks.1", "decoder_blocks.0"] {
        names.extend(["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"].map(|layer| format!("{block}.{layer}")));
    }
    for name in &names {
        Linear::new(&registry.root().sub(name), 2, 2).unwrap();
    }
    let rng = &mut rng("patterns");
    let pieces: Vec<&str> = names.iter().flat_map(|name| name.split('.')).chain(["*", "**", "", "!", "***"]).collect();
    let mut selections = 0;
    for _ in 0..2000 {
        let pattern = |rng: &mut Rng| {
            // Half of them are a name with some parts replaced, so that enough of them match.
            let start = names[rng.below(names.len() as u64) as usize].split('.').map(str::to_owned);
            let mut parts: Vec<String> = if coin(rng) { start.collect() } else { Vec::new() };
            for part in &mut parts {
                if rng.below(3) == 0 {
                    *part = ["*", "**", "fc1", "!"][rng.below(4) as usize].to_owned();
                }
            }
            for _ in 0..[0, 1, int(rng, 0, 5)][rng.below(3) as usize] {
                let at = rng.below(parts.len() as u64 + 1) as usize;
                let piece = if coin(rng) { "**" } else { pieces[rng.below(pieces.len() as u64) as usize] };
                parts.insert(at, piece.to_owned());
            }
            format!("{}{}", if rng.below(3) == 0 { "!" } else { "" }, parts.join("."))
        };
        let patterns: Vec<String> = (0..rng.below(4)).map(|_| pattern(rng)).collect();
        let bare = |pattern: &str| pattern.strip_prefix('!').unwrap_or(pattern).to_owned();
        let known = |pattern: &str| names.iter().any(|name| matches(&bare(pattern), name));
        match registry.select(&patterns) {
            Ok(chosen) => {
                selections += 1;
                assert!(patterns.iter().all(|pattern| known(pattern)), "{patterns:?}");
                let (minus, plus): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
                let wanted = |name: &&String| {
                    let all = plus.is_empty() && !minus.is_empty();
                    (all || plus.iter().any(|p| matches(p, name))) && !minus.iter().any(|p| matches(&p[1..], name))
                };
                let chosen: Vec<&str> = chosen.iter().map(|layer| layer.name()).collect();
                assert_eq!(chosen, names.iter().filter(wanted).collect::<Vec<_>>(), "{patterns:?}");
            }
            Err(NnError::NoMatch { pattern, nearest }) => {
                assert!(patterns.contains(&pattern) && !known(&pattern), "{patterns:?}: {pattern}");
                assert!(nearest.starts_with("the nearest are "), "{nearest}");
            }
            Err(err) => panic!("{patterns:?}: {err}"),
        }
    }
    assert!((400..1800).contains(&selections), "{selections} of 2000 selected");
}

/// R in every form: its name, its options, and the model it is for, by seed.
struct Form {
    name: &'static str,
    options: DecorOptions,
    model: fn(u64) -> Model,
}

fn forms() -> Vec<Form> {
    fn linear(seed: u64) -> Model {
        Model::linear(seed, 12, 10, 60)
    }
    fn grouped(seed: u64) -> Model {
        let config = Conv2dConfig { groups: 2, padding: (1, 1), ..Conv2dConfig::new(6, 4, 2) };
        Model::conv(seed, &config, 3, (5, 4))
    }
    let form = |name, block, rank, model| {
        let options = DecorOptions { lr: 0.2, block, rank, sample: Sample::Fraction(1.0), ..Default::default() };
        Form { name, options, model }
    };
    vec![
        form("full", BlockWidth::Whole, 0, linear as fn(u64) -> Model),
        form("blocks", BlockWidth::Width(4), 0, linear),
        form("low rank", BlockWidth::Whole, 3, linear),
        form("grouped convolution", BlockWidth::Whole, 0, grouped),
        form("grouped convolution in blocks", BlockWidth::Width(6), 0, grouped),
    ]
}

impl Form {
    /// Trained, so that neither W nor R is what it was.
    fn trained(&self, seed: u64) -> Model {
        let model = (self.model)(seed);
        model.decorrelate(&self.options).unwrap();
        model.train(&mut rng(&format!("{} {seed}", self.name)), 5, self.name);
        model
    }

    fn probe(&self, model: &Model) -> Tensor {
        normal(&mut rng("probe"), &model.shape).to_kind(Kind::Float)
    }
}

#[test]
fn a_state_loads_with_r_and_without() {
    for form in forms() {
        let saved = form.trained(1);
        let x = form.probe(&saved);
        let want = saved.evaluate(&x, Path::Fused);
        let bare = (form.model)(1);
        bare.registry
            .load_state(&saved.state().into_iter().filter(|(n, _)| !n.contains("decor")).collect::<Vec<_>>())
            .unwrap();
        let without = max_abs(&(bare.evaluate(&x, Path::Fused) - &want)) / max_abs(&want);
        assert!(without > 0.01, "{}: R changes outputs by {without} only", form.name);

        let same = form.trained(2);
        let stale = same.evaluate(&x, Path::Fused);
        same.registry.load_state(&saved.state()).unwrap();
        assert_eq!(same.state(), saved.state(), "{}", form.name);
        assert_eq!(same.evaluate(&x, Path::Fused), want, "{}", form.name);
        assert_ne!(stale, want);

        let plain = (form.model)(3);
        plain.registry.load_state(&saved.state()).unwrap();
        assert!(!plain.registry.is_decorrelated());
        assert_close(&format!("{}, plain", form.name), &plain.evaluate(&x, Path::Fused), &want);

        saved.registry.fuse().unwrap();
        let fused = form.trained(4);
        fused.registry.load_state(&saved.state()).unwrap();
        assert!(fused.registry.is_decorrelated());
        for path in [Path::Fused, Path::TwoStep] {
            assert_close(&format!("{}, fused, {path:?}", form.name), &fused.evaluate(&x, path), &want);
        }
        for r in fused.registry.layers()[0].dense_r().unwrap().unwrap().unbind(0) {
            assert_eq!(r, Tensor::eye(r.size()[0], (Kind::Float, Device::Cpu)), "{}: R = I", form.name);
        }
    }
}

#[test]
fn an_r_of_another_shape_is_refused_by_name() {
    const SHAPES: [&[i64]; 15] = [
        &[],
        &[0],
        &[12],
        &[24],
        &[0, 0],
        &[13, 13],
        &[13, 12],
        &[24, 24],
        &[11, 3],
        &[3, 12],
        &[2, 12, 11],
        &[1, 12, 13],
        &[3, 8, 8],
        &[5, 4, 4],
        &[1, 2, 12, 12],
    ];
    for form in forms() {
        let (saved, models) = (form.trained(1), [form.trained(2), (form.model)(3)]);
        for (at, (name, good)) in saved.state().iter().enumerate().filter(|(_, (name, _))| name.contains("decor")) {
            for shape in SHAPES.iter().filter(|shape| **shape != good.size()) {
                let mut state = saved.state();
                state[at].1 = Tensor::ones(*shape, (Kind::Float, Device::Cpu));
                for into in &models {
                    let what =
                        format!("{}, {name} of {shape:?}, R here: {}", form.name, into.registry.is_decorrelated());
                    let before = into.state();
                    match into.registry.load_state(&state) {
                        Err(NnError::Shape { name: told, found, .. }) => {
                            assert_eq!((&told, found.as_slice()), (name, *shape), "{what}");
                        }
                        other => panic!("{what}: {other:?}"),
                    }
                    assert_eq!(into.state(), before, "{what}: refused, and yet changed");
                }
            }
        }
    }
}

#[test]
fn an_r_of_another_form_is_refused_by_name() {
    let of = |name| forms().into_iter().find(|form| form.name == name).unwrap();
    let name_of = |err: NnError| match err {
        NnError::Shape { name, .. } | NnError::Missing { name } | NnError::Unexpected { name } => name,
        err => panic!("{err}"),
    };
    for (from, into, name) in [
        ("full", "blocks", "layer.decorrelation"),
        ("full", "low rank", "layer.decorrelation_u"),
        ("blocks", "full", "layer.decorrelation"),
        ("low rank", "blocks", "layer.decorrelation"),
        ("grouped convolution", "grouped convolution in blocks", "layer.decorrelation"),
    ] {
        let (saved, other) = (of(from).trained(1), of(into).trained(2));
        let before = other.state();
        assert_eq!(name_of(other.registry.load_state(&saved.state()).unwrap_err()), name, "{from} into {into}");
        assert_eq!(other.state(), before, "{from} into {into}: refused, and yet changed");
    }
    // Half of a low rank.
    let form = of("low rank");
    for missing in ["layer.decorrelation_u", "layer.decorrelation_v"] {
        let mut state = form.trained(1).state();
        state.retain(|(name, _)| name != missing);
        for into in [form.trained(2), (form.model)(3)] {
            let told = into.registry.load_state(&state).map_err(name_of);
            assert_eq!(told, Err(missing.to_owned()), "R here: {}", into.registry.is_decorrelated());
        }
    }
    // U and V for a convolution with groups, which has an R for each.
    let grouped = (of("grouped convolution").model)(1);
    let mut state = grouped.state();
    for ending in ["u", "v"] {
        state.push((format!("layer.decorrelation_{ending}"), Tensor::ones([12, 3], (Kind::Float, Device::Cpu))));
    }
    assert_eq!(grouped.registry.load_state(&state).map_err(name_of), Err("layer.decorrelation_u".to_owned()));
}
