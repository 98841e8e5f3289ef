"""Loads what `dbp-host export` wrote with the loaders of timm and Hugging Face, and compares with what dbp-host itself computes.

Takes folders as `tests/weights.rs` leaves them under EXPORTS, each with `timm/`, `mae/` or `hf/` holding `model.safetensors`
(and `config.json`) and `expected.safetensors`: `images`, and of `features`, `noise` with `loss`, and `logits` what the model
has. The loaders must find no tensor missing and none too many; prints the largest absolute differences and fails above 1e-4.
A MAE release's file is loaded by the model of mae.py under its names.
Sources: timm (Apache-2.0) and transformers (Apache-2.0), called, not copied. Last run: timm 1.0.31, transformers 5.23.0
and 4.57.1.

    EXPORTS=/tmp/exports cargo test --release --test weights
    python tests/reference/check_exports.py /tmp/exports/*
"""

import json
import sys
from pathlib import Path

import timm
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

sys.dont_write_bytecode = True  # No __pycache__ beside the fixtures.
import mae

WORST = 1e-4


def said(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["dbp_host"])


def report(what, got, want):
    assert got.shape == want.shape, (what, got.shape, want.shape)
    difference = (got - want).abs().max().item()
    print(f"    {what}: {difference:.1e}")
    assert difference < WORST, what


def check_timm(file, expected):
    """As the line that `export` prints: `timm.create_model` with what differs from the size it names."""
    model = said(file)
    encoder = model.get("encoder", model)
    names = set(load_file(file))
    is_classifier = model["model"] == "classifier"
    net = timm.create_model(
        "vit_base_patch16_224", checkpoint_path=str(file), num_classes=model.get("classes", 0), in_chans=encoder["channels"],
        img_size=tuple(encoder["image_size"]), patch_size=encoder["patch_size"], embed_dim=encoder["embed_dim"],
        depth=encoder["depth"], num_heads=encoder["num_heads"], mlp_ratio=encoder["mlp_ratio"],
        final_norm=is_classifier or "norm.weight" in names, global_pool="avg" if "fc_norm.weight" in names else "token",
    ).eval()
    assert set(net.state_dict()) == names, set(net.state_dict()) ^ names
    if is_classifier:
        report("logits", net(expected["images"]), expected["logits"])
    elif "features" in expected:
        report("features", net.forward_features(expected["images"]), expected["features"])
    return net


def check_mae(file, expected):
    cfg = said(file)
    cfg |= cfg.pop("encoder")
    cfg |= dict(norm_eps=1e-6, in_chans=cfg["channels"])
    state = load_file(file)
    ours = {k if k.startswith(("decoder_", "mask_token")) else f"encoder.{k}": v for k, v in state.items()}
    pos = {k: v for k, v in ours.items() if k.endswith("pos_embed")}
    params = {k: v for k, v in ours.items() if k not in pos}
    assert set(params) == set(mae.parameter_shapes(cfg))
    net = mae.Mae(cfg, params, pos, {})
    report("loss", net.forward(expected["images"], expected["noise"])[0], expected["loss"])
    report("features", net.encode(expected["images"]), expected["features"])


def check_hf(folder, expected):
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    net, info = getattr(transformers, architecture).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    net.eval()
    if "logits" in expected:
        report("logits", net(expected["images"]).logits, expected["logits"])
    else:
        report("loss", net(expected["images"], noise=expected["noise"]).loss, expected["loss"])


@torch.no_grad()
def main(folders):
    print(f"timm {timm.__version__}, transformers {transformers.__version__}")
    checked = 0
    for folder in map(Path, folders):
        expected = load_file(folder / "expected.safetensors")
        for name, check in [("timm", check_timm), ("mae", check_mae), ("hf", check_hf)]:
            file = folder / name / "model.safetensors"
            if file.exists():
                print(f"  {folder.name}, {name}: {said(file)['model']}, {len(load_file(file))} tensors")
                check(file if name != "hf" else file.parent, expected)
                checked += 1
    assert checked, "nothing to check"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
