//! Option maps that mostly fit: for each function its keys with values that it takes.

use dbp_host::host::reference::Reference;

use super::dice::{self, Dice};

/// A key and values that do, as script text. Keys before `…` are needed.
type Keys = &'static [(&'static str, &'static [&'static str])];

/// Behind this key all are optional.
const MORE: (&str, &[&str]) = ("…", &[]);

const VIT: Keys = &[
    ("image_size", &["16", "[16, 24]"]),
    ("patch_size", &["8", "4"]),
    ("embed_dim", &["8", "16"]),
    ("depth", &["1", "4"]),
    ("num_heads", &["2", "1"]),
    MORE,
    ("channels", &["3", "1", "2"]),
    ("mlp_ratio", &["2", "1.5"]),
];

const MAE: Keys = &[
    ("image_size", &["16", "[16, 24]"]),
    ("patch_size", &["8", "4"]),
    ("embed_dim", &["8", "16"]),
    ("depth", &["1", "4"]),
    ("num_heads", &["2", "1"]),
    ("decoder_embed_dim", &["8"]),
    ("decoder_depth", &["1", "2"]),
    ("decoder_num_heads", &["2"]),
    MORE,
    ("channels", &["3", "1"]),
    ("mlp_ratio", &["2", "1.5"]),
    ("mask_ratio", &["0.75", "0.5"]),
    ("norm_pix", &["true", "false"]),
];

const DECOR: Keys = &[
    MORE,
    ("preset", &["\"paper\"", "\"lean\""]),
    ("lr", &["1e-3", "0.1"]),
    ("sample", &["0.1", "1.0", "4"]),
    ("max_rows", &["0", "8", "\"4d\""]),
    ("kappa", &["0", "0.5", "1"]),
    ("every", &["1", "3"]),
    ("schedule", &["\"constant\"", "\"follow\"", "cosine"]),
    ("stop_at", &["5", "#{ epoch: 1 }", "#{ step: 2 }"]),
    ("patience", &["0", "5"]),
    ("rank", &["0", "2", "8"]),
    ("block", &["0", "2", "4", "\"wide\""]),
    ("max_norm", &["4", "0", "1.5"]),
    ("project", &["true", "false"]),
    ("budget", &["0.1"]),
    ("measure", &["2"]),
];

const CONV: Keys = &[
    MORE,
    ("stride", &["1", "2", "[1, 2]"]),
    ("padding", &["0", "1", "[2, 0]"]),
    ("dilation", &["1", "2"]),
    ("groups", &["1", "2"]),
    ("bias", &["true", "false"]),
];

const LOADER: Keys = &[
    ("batch", &["2", "4"]),
    ("image_size", &["16", "[16, 8]"]),
    MORE,
    ("micro_batches", &["1", "2"]),
    ("crop", &["\"random\"", "\"center\"", "\"none\""]),
    ("flip", &["true", "false"]),
    ("normalization", &["#{ mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2] }"]),
    ("workers", &["1", "2"]),
];

const PAIR_LOADER: Keys = &[
    ("batch", &["2", "4"]),
    ("image_size", &["16", "[16, 8]"]),
    MORE,
    ("micro_batches", &["1", "2"]),
    ("flip", &["true", "false"]),
    ("workers", &["1", "2"]),
    ("long_edge", &["[16, 32]"]),
    ("jitter", &["true", "false", "#{ hue: 5, value: 0.1 }"]),
    ("eval_edge", &["0", "24"]),
];

const KNOWN: &[(&str, Keys)] = &[
    ("models::vit", VIT),
    ("models::mae", MAE),
    (
        "models::upernet",
        &[
            ("taps", &["[0, 1, 2, 3]", "[3, 3, 3, 3]"]),
            ("channels", &["4"]),
            ("aux_channels", &["4"]),
            MORE,
            ("image_size", &["16", "[24, 16]"]),
            ("pool_scales", &["[1, 2]", "[1]"]),
            ("aux_weight", &["0", "0.4"]),
            ("dropout", &["0", "0.5"]),
            ("drop_path", &["0", "0.1"]),
            ("class_weights", &["[1, 2]", "[0.5, 0.5, 1.0]"]),
        ],
    ),
    (
        "models::classifier",
        &[
            MORE,
            ("image_size", &["16", "24"]),
            ("pool", &["\"mean\"", "\"class\""]),
            ("drop_path", &["0", "0.1"]),
            ("label_smoothing", &["0", "0.1"]),
        ],
    ),
    (
        "models::load",
        &[
            MORE,
            ("num_heads", &["2"]),
            ("decoder_num_heads", &["2"]),
            ("mask_ratio", &["0.5"]),
            ("norm_pix", &["true"]),
            ("image_size", &["24"]),
            ("channels", &["3", "2"]),
            ("head", &["false"]),
            ("encoder", &["true"]),
        ],
    ),
    ("init", &[MORE, ("channels", &["3"])]),
    ("nn::conv2d", CONV),
    ("nn::decor_conv2d", CONV),
    ("nn::decor_linear", DECOR),
    ("decorrelate", DECOR),
    (
        "probe_correlation",
        &[MORE, ("sample", &["0.5", "3"]), ("max_rows", &["0", "4"]), ("condition", &["true", "false"])],
    ),
    (
        "optim::adamw",
        &[
            MORE,
            ("lr", &["1e-3", "0"]),
            ("beta1", &["0.9", "0"]),
            ("beta2", &["0.95"]),
            ("weight_decay", &["0.05", "0"]),
            ("eps", &["1e-8"]),
            ("layer_decay", &["0.75", "1"]),
        ],
    ),
    (
        "optim::sgd",
        &[
            MORE,
            ("lr", &["1e-3", "0"]),
            ("momentum", &["0.9", "0"]),
            ("nesterov", &["true", "false"]),
            ("weight_decay", &["1e-4", "0"]),
            ("layer_decay", &["0.75", "1"]),
        ],
    ),
    (
        "optim::muon",
        &[
            MORE,
            ("lr", &["1e-3", "0"]),
            ("momentum", &["0.95", "0"]),
            ("nesterov", &["true", "false"]),
            ("weight_decay", &["0.05", "0"]),
            ("ns_steps", &["5", "1"]),
            ("adjust_lr", &["\"original\"", "\"match_rms_adamw\""]),
            ("split_qkv", &["true", "false"]),
            ("hidden", &["\"linear\"", "[\"**.mlp.*\"]"]),
            ("layer_decay", &["0.75", "1"]),
            ("adamw", &["#{ lr: 1e-3 }", "#{}"]),
        ],
    ),
    (
        "optim::schedule_free_adamw",
        &[
            MORE,
            ("lr", &["1e-3", "0"]),
            ("beta1", &["0.9", "0.5"]),
            ("beta2", &["0.95"]),
            ("weight_decay", &["0.05", "0"]),
            ("eps", &["1e-8"]),
            ("warmup_steps", &["2", "0"]),
            ("r", &["0", "1"]),
            ("weight_lr_power", &["2", "0"]),
            ("layer_decay", &["0.75", "1"]),
        ],
    ),
    (
        "schedule::cosine",
        &[("lr", &["1e-3", "1"]), ("total", &["10", "3"]), MORE, ("warmup", &["2"]), ("min_lr", &["1e-6"])],
    ),
    (
        "schedule::polynomial",
        &[
            ("lr", &["1e-3"]),
            ("total", &["10"]),
            MORE,
            ("warmup", &["2"]),
            ("min_lr", &["0"]),
            ("power", &["0.9", "2"]),
        ],
    ),
    (
        "data::open",
        &[
            MORE,
            ("name", &["\"wirebond\""]),
            ("size", &["32", "16"]),
            ("count", &["4", "9"]),
            ("seed", &["1"]),
            ("folder", &["\"photos\"", "\"labeled\""]),
            ("channels", &["3", "1", "2"]),
            ("labels", &["\"folders\"", "\"prefix\""]),
            ("pair", &["[\"0\", \"1\"]"]),
            ("image_extension", &["\"png\""]),
            ("images", &["\"pairs/images\""]),
            ("masks", &["\"pairs/masks\""]),
            ("classes", &["[\"one\", \"two\"]"]),
            ("ignore", &["255", "[1]"]),
            ("binary_threshold", &["1"]),
            ("colors", &["[[0, 0, 0], [255, 0, 0]]"]),
            ("mask_extension", &["\"png\""]),
            ("val_images", &["\"pairs/images\""]),
            ("val_masks", &["\"pairs/masks\""]),
        ],
    ),
    ("data::loader", LOADER),
    ("data::pair_loader", PAIR_LOADER),
    (
        "data::batches",
        &[
            MORE,
            ("batch", &["1", "3"]),
            ("eval_edge", &["0", "24"]),
            ("normalization", &["mae.normalization", "#{ mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2] }"]),
            ("workers", &["1"]),
        ],
    ),
    (
        "predict",
        &[
            MORE,
            ("window", &["16", "[8, 16]"]),
            ("overlap", &["0.5", "0"]),
            ("flip", &["true"]),
            ("size", &["[16, 20]", "24"]),
        ],
    ),
    (
        "energy::meter",
        &[
            MORE,
            ("country", &["\"DEU\"", "\"Norway\""]),
            ("region", &["\"Bavaria\""]),
            ("pue", &["1.2"]),
            ("intensity", &["100"]),
            ("interval", &["1.0", "0.1"]),
            ("source", &["\"auto\"", "\"estimated\"", "\"measured\""]),
            ("cpu_power", &["65"]),
            ("ram_power", &["10"]),
        ],
    ),
    (
        "run::start",
        &[
            ("model", &["spare", "linear", "upernet"]),
            ("opt", &["spare_opt", "opt", "layer_opt"]),
            ("loader", &["loader", "pair_loader"]),
            MORE,
            ("val", &["val", "whole_images"]),
            ("recipe", &["#{ a: 1 }"]),
            ("name", &["\"again\""]),
            ("validate_every", &["1"]),
            ("log_every", &["1"]),
            ("save_every", &["1"]),
            ("best", &["\"miou\"", "\"val_loss\""]),
            ("energy", &["false", "true", "meter", "#{ interval: 0.5 }"]),
        ],
    ),
    ("run::output", &[MORE, ("name", &["\"results\""]), ("data", &["photos"])]),
];

/// A map of options for `function`.
pub fn map(dice: &mut Dice, reference: &Reference, function: &str) -> String {
    let mut entries = Vec::new();
    let known = KNOWN.iter().find(|(name, _)| *name == function).map_or(&[][..], |(_, keys)| keys);
    let mut needed = known.iter().any(|(key, _)| *key == MORE.0);
    for (key, fitting) in known {
        if *key == MORE.0 {
            needed = false;
        } else if dice.percent(if needed { 97 } else { 18 }) {
            let value = if dice.percent(85) { dice.pick(fitting).to_owned() } else { dice::literal(dice, 1) };
            entries.push(format!("{key}: {value}"));
        }
    }
    // Keys that the reference names, so that none is forgotten here.
    let documented = reference.option_keys(function).unwrap_or_default();
    for key in &documented {
        let is_new = !known.iter().any(|(own, _)| own == key);
        if is_new && dice.percent(40) {
            entries.push(format!("{key}: {}", dice::literal(dice, 1)));
        }
    }
    if dice.percent(4) {
        entries.push(format!("nonsense: {}", dice::literal(dice, 1)));
    }
    format!("#{{ {} }}", entries.join(", "))
}
