//! `dbp-host export`: a model's weights as others read them, R folded in, with the line of Python that loads them.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::errors::Failure;
use super::say::{print_line, say};
use super::weights::open;
use super::{Outcome, on_script_thread, quiet_panics, report};
use crate::nn::{Architecture, Exported, Format, Hints, Pool, VitConfig, layouts};
use crate::train::checkpoint::{replace_file, write_described};
use crate::train::error::At;
use crate::train::weights;

/// A format as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormatChoice(Format);

impl FromStr for FormatChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "timm" => Ok(Self(Format::Timm)),
            "mae" => Ok(Self(Format::Mae)),
            "hf" => Ok(Self(Format::Hf)),
            _ => Err("expected timm, mae or hf".into()),
        }
    }
}

impl FormatChoice {
    fn name(self) -> &'static str {
        match self.0 {
            Format::Timm => "timm",
            Format::Mae => "mae",
            Format::Hf => "hf",
        }
    }
}

/// The command line of `dbp-host export`.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// A run directory, a checkpoint's folder, or a safetensors file.
    pub run: PathBuf,
    pub format: FormatChoice,
    /// A file, or a folder for `model.safetensors`.
    pub out: Option<PathBuf>,
    /// `best` or `last`.
    pub checkpoint: Option<String>,
}

/// Runs `dbp-host export`. Returns the exit code.
pub fn export(options: ExportOptions) -> i32 {
    quiet_panics();
    report(&on_script_thread(move || match write(&options) {
        Ok(()) => Outcome::Done,
        Err(err) => err.into(),
    }))
}

fn write(options: &ExportOptions) -> Result<(), Failure> {
    if !options.run.exists() {
        return Err(Failure::usage(format!("{}: no such run, folder or file", options.run.display())));
    }
    let out = out_file(options)?;
    let mut opened = open(&options.run, options.checkpoint.as_deref(), Hints::default())?;
    let complete = opened.imported.complete();
    opened.of_file(complete)?;
    opened.fold()?;
    for note in &opened.imported.notes {
        say(&format!("{}: {note}", opened.what()));
    }
    let exported = layouts::export(options.format.0, &opened.imported.architecture, &opened.imported.state);
    let exported = opened.of_file(exported)?;

    let folder = out.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).at(folder)?;
    let aside = out.with_extension("tmp");
    write_described(
        &aside,
        &exported.state,
        Some(weights::metadata_of_export(&exported.architecture, opened.trained_on.as_ref())),
    )?;
    fs::rename(&aside, &out).at(&out)?;
    if let Some(config) = &exported.config {
        let text = serde_json::to_vec_pretty(config).map_err(|err| Failure::machine(err.to_string()))?;
        replace_file(&folder.join("config.json"), &text)?;
    }
    tell(opened.what(), &out, &exported);
    Ok(())
}

/// Where the export goes: `--out`, else into the run.
fn out_file(options: &ExportOptions) -> Result<PathBuf, Failure> {
    const MODEL: &str = "model.safetensors";
    let Some(out) = &options.out else {
        let mut folder = match options.run.is_file() {
            true => options.run.parent().unwrap_or(Path::new("")),
            false => &options.run,
        };
        // A checkpoint is replaced as a whole when the next one is saved.
        if let Some(checkpoints) = folder.parent().filter(|parent| parent.ends_with("checkpoints")) {
            folder = checkpoints.parent().unwrap_or(folder);
        }
        return Ok(folder.join("export").join(options.format.name()).join(MODEL));
    };
    let is_file = out.extension().is_some_and(|extension| extension == "safetensors");
    if is_file && options.format.0 == Format::Hf && !out.ends_with(MODEL) {
        return Err(Failure::usage(format!(
            "--out: hf needs a folder, or a file named {MODEL}; got {}",
            out.display()
        )));
    }
    Ok(if is_file { out.clone() } else { out.join(MODEL) })
}

fn tell(from: &str, out: &Path, exported: &Exported) {
    print_line(&format!("from      {from}"));
    print_line(&format!("model     {}", describe(&exported.architecture)));
    print_line(&format!("wrote     {}, {} tensors", out.display(), exported.state.len()));
    if exported.config.is_some() {
        print_line(&format!("          {}", out.with_file_name("config.json").display()));
    }
    print_line(&format!("Python    {}", python(out, exported)));
}

fn describe(architecture: &Architecture) -> String {
    let encoder = architecture.encoder();
    let (height, width) = encoder.image_size;
    let rest = match architecture {
        Architecture::Vit(_) => String::new(),
        Architecture::Mae(config) => {
            let (width, depth, heads) = (config.decoder_embed_dim, config.decoder_depth, config.decoder_num_heads);
            format!("; decoder {width} wide, {depth} blocks, {heads} heads")
        }
        Architecture::Upernet(config) => format!("; {} classes", config.classes),
        Architecture::Classifier(config) => format!("; {} classes", config.classes),
    };
    format!(
        "{}, {} wide, {} blocks, {} heads; images of {height} x {width} pixels, {} channels, patches of {}{rest}",
        architecture.kind(),
        encoder.embed_dim,
        encoder.depth,
        encoder.num_heads,
        encoder.channels,
        encoder.patch_size,
    )
}

/// The line that loads what was written, complete but for its imports.
fn python(out: &Path, exported: &Exported) -> String {
    let file = quoted(out);
    let folder = quoted(out.parent().unwrap_or(Path::new(".")));
    match (&exported.architecture, &exported.config) {
        (Architecture::Upernet(_), _) => {
            format!("transformers.UperNetForSemanticSegmentation.from_pretrained({folder})")
        }
        (Architecture::Mae(_), Some(_)) => format!("transformers.ViTMAEForPreTraining.from_pretrained({folder})"),
        (Architecture::Mae(config), None) => {
            let encoder = &config.encoder;
            format!(
                "models_mae.MaskedAutoencoderViT(img_size={}, patch_size={}, in_chans={}, embed_dim={}, depth={}, \
                 num_heads={}, decoder_embed_dim={}, decoder_depth={}, decoder_num_heads={}, mlp_ratio={}, \
                 norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6), norm_pix_loss={})\
                 .load_state_dict(safetensors.torch.load_file({file}))",
                side(encoder),
                encoder.patch_size,
                encoder.channels,
                encoder.embed_dim,
                encoder.depth,
                encoder.num_heads,
                config.decoder_embed_dim,
                config.decoder_depth,
                config.decoder_num_heads,
                encoder.mlp_ratio,
                if config.norm_pix { "True" } else { "False" },
            )
        }
        (Architecture::Classifier(config), _) => {
            let pool = if config.pool == Pool::Mean { ", global_pool=\"avg\"" } else { "" };
            timm(&config.encoder, config.classes, pool, &file)
        }
        (Architecture::Vit(config), _) => {
            let with_norm = exported.state.iter().any(|(name, _)| name == "norm.weight");
            timm(config, 0, if with_norm { "" } else { ", final_norm=False" }, &file)
        }
    }
}

/// timm's model of the nearest size, with what differs.
fn timm(config: &VitConfig, classes: i64, more: &str, file: &str) -> String {
    let (name, usual) = match config.embed_dim {
        192 => ("vit_tiny_patch16_224", (192, 12, 3, 16)),
        384 => ("vit_small_patch16_224", (384, 12, 6, 16)),
        1024 => ("vit_large_patch16_224", (1024, 24, 16, 16)),
        1280 => ("vit_huge_patch14_224", (1280, 32, 16, 14)),
        _ => ("vit_base_patch16_224", (768, 12, 12, 16)),
    };
    let mut line = format!("timm.create_model(\"{name}\", checkpoint_path={file}, num_classes={classes}");
    for (key, value, usual) in [
        ("embed_dim", config.embed_dim, usual.0),
        ("depth", config.depth, usual.1),
        ("num_heads", config.num_heads, usual.2),
        ("patch_size", config.patch_size, usual.3),
        ("in_chans", config.channels, 3),
    ] {
        if value != usual {
            line.push_str(&format!(", {key}={value}"));
        }
    }
    if config.image_size != (224, 224) {
        line.push_str(&format!(", img_size={}", side(config)));
    }
    if config.mlp_ratio != 4.0 {
        line.push_str(&format!(", mlp_ratio={}", config.mlp_ratio));
    }
    line + more + ")"
}

fn side(config: &VitConfig) -> String {
    match config.image_size {
        (height, width) if height == width => height.to_string(),
        (height, width) => format!("({height}, {width})"),
    }
}

/// A path as Python text.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
