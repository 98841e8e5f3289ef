"""Compares the fixtures of mae.py with timm's VisionTransformer and Hugging Face's ViTMAEForPreTraining.

Computes features and losses of the fixtures' initial weights with those libraries in float64 and prints the largest
absolute differences; fails above 1e-10.
Sources: timm (Apache-2.0) and transformers (Apache-2.0), called, not copied. Last run: timm 1.0.31, transformers 5.23.0.

Optional: nothing else needs these packages. Without pins pip replaces torch by a newer one. Run:
    pip install torch==2.11.0 torchvision==0.26.0 timm transformers; python check_against_timm.py
"""

import json
import sys
from functools import partial

import timm
import torch
import transformers
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

sys.dont_write_bytecode = True  # No __pycache__ beside the fixtures.
import mae


def load(name):
    with safe_open(mae.HERE / f"{name}.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["config"]), {key: file.get_tensor(key) for key in file.keys()}


def initial(tensors):
    return {k.removeprefix("init."): v.double() for k, v in tensors.items() if k.startswith("init.")}


def report(what, a, b):
    difference = mae.gap(a, b)
    print(f"  {what}: {difference:.2g}")
    assert a.shape == b.shape and difference < 1e-10, what


def timm_model(cfg, init):
    model = VisionTransformer(
        img_size=tuple(cfg["image_size"]), patch_size=cfg["patch_size"], in_chans=cfg["in_chans"], num_classes=0,
        global_pool="", embed_dim=cfg["embed_dim"], depth=cfg["depth"], num_heads=cfg["num_heads"],
        mlp_ratio=cfg["mlp_ratio"], norm_layer=partial(nn.LayerNorm, eps=cfg["norm_eps"]),
    ).double()
    state = {k.removeprefix("encoder."): v for k, v in init.items() if k.startswith("encoder.")}
    model.load_state_dict(state, strict=True)  # Strict: our names and shapes are timm's.
    return model.eval()


def hugging_face_model(cfg, init):
    """Square images only: `ViTMAEForPreTraining` refuses others."""
    config = transformers.ViTMAEConfig(
        image_size=cfg["image_size"][0], patch_size=cfg["patch_size"], num_channels=cfg["in_chans"],
        hidden_size=cfg["embed_dim"], num_hidden_layers=cfg["depth"], num_attention_heads=cfg["num_heads"],
        intermediate_size=cfg["embed_dim"] * cfg["mlp_ratio"], decoder_hidden_size=cfg["decoder_embed_dim"],
        decoder_num_hidden_layers=cfg["decoder_depth"], decoder_num_attention_heads=cfg["decoder_num_heads"],
        decoder_intermediate_size=cfg["decoder_embed_dim"] * cfg["mlp_ratio"], mask_ratio=cfg["mask_ratio"],
        norm_pix_loss=cfg["norm_pix"], layer_norm_eps=cfg["norm_eps"], hidden_act="gelu", qkv_bias=True,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    config._attn_implementation = "sdpa"  # The eager one computes its softmax in float32.
    model = transformers.ViTMAEForPreTraining(config).double().eval()

    state = {
        "vit.embeddings.cls_token": init["encoder.cls_token"],
        "vit.embeddings.position_embeddings": init["encoder.pos_embed"],
        "decoder.mask_token": init["mask_token"],
        "decoder.decoder_pos_embed": init["decoder_pos_embed"],
    }
    for part in ("weight", "bias"):
        state[f"vit.embeddings.patch_embeddings.projection.{part}"] = init[f"encoder.patch_embed.proj.{part}"]
        state[f"vit.layernorm.{part}"] = init[f"encoder.norm.{part}"]
        for name in ("decoder_embed", "decoder_norm", "decoder_pred"):
            state[f"decoder.{name}.{part}"] = init[f"{name}.{part}"]
        blocks = [(f"encoder.blocks.{i}", f"vit.layers.{i}") for i in range(cfg["depth"])]
        blocks += [(f"decoder_blocks.{i}", f"decoder.decoder_layers.{i}") for i in range(cfg["decoder_depth"])]
        for ours, theirs in blocks:
            for letter, value in zip("qkv", init[f"{ours}.attn.qkv.{part}"].chunk(3)):
                state[f"{theirs}.attention.{letter}_proj.{part}"] = value
            state[f"{theirs}.attention.o_proj.{part}"] = init[f"{ours}.attn.proj.{part}"]
            state[f"{theirs}.layernorm_before.{part}"] = init[f"{ours}.norm1.{part}"]
            state[f"{theirs}.layernorm_after.{part}"] = init[f"{ours}.norm2.{part}"]
            for name in ("fc1", "fc2"):
                state[f"{theirs}.mlp.{name}.{part}"] = init[f"{ours}.mlp.{name}.{part}"]
    model.load_state_dict(state, strict=True)
    return model


def hugging_face_positions(dim, rows, columns):
    """Theirs is [sin y, cos y, sin x, cos x]; for MAE they swap the halves, to fit the released weights."""
    rows_first = build_2d_sinusoidal_position_embedding(rows, columns, dim, cls_token=True, dtype=torch.float64)
    return torch.cat(rows_first.chunk(2, dim=1)[::-1], dim=1)[None]


@torch.no_grad()
def main():
    print(f"timm {timm.__version__}")
    for name in mae.CASES:
        cfg, tensors = load(name)
        init, images = initial(tensors), tensors["images.0.0"].double()
        pos = {k: v for k, v in init.items() if k.endswith("pos_embed")}
        features = timm_model(cfg, init).forward_features(images)
        report(f"{name}, features of our encoder", features, mae.Mae(cfg, init, pos, {}).encode(images))
        if name == "mae_dbp":
            report("encoder_full.safetensors", features, load("encoder_full")[1]["features"])

    print(f"transformers {transformers.__version__}")
    for name in mae.CASES:
        cfg, tensors = load(name)
        for key in ("encoder.pos_embed", "decoder_pos_embed"):
            ours = tensors[f"init.{key}"]
            report(f"{name}, {key}", hugging_face_positions(ours.shape[2], *mae.grid_size(cfg)), ours)
    cfg, tensors = load("mae_dbp")
    init, images, noise = initial(tensors), tensors["images.0.0"].double(), tensors["noise.0.0"]
    model = hugging_face_model(cfg, init)
    out = model(images, noise=noise)
    report("mae_dbp, loss", out.loss, tensors["loss.0.0"])
    report("mae_dbp, pred", out.logits, tensors["pred.0"])
    report("mae_dbp, mask", out.mask.double(), tensors["mask.0"])
    report("mae_dbp, latent", model.vit(images, noise=noise).last_hidden_state, tensors["latent.0"])
    cfg["norm_pix"] = True
    pos = {k: v for k, v in init.items() if k.endswith("pos_embed")}
    loss = mae.Mae(cfg, init, pos, {}).forward(images, noise)[0]
    report("mae_dbp with norm_pix, loss", hugging_face_model(cfg, init)(images, noise=noise).loss, loss)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
