"""Small models in the layouts of others, with random weights and what they compute: what `models::load` has to reproduce.

timm's VisionTransformer, the MAE release (by the model of mae.py under its names), Hugging Face's ViTMAEForPreTraining and
UperNetForSemanticSegmentation on a BEiT backbone. Weights are float32 and stand under `weights.`; outputs were computed in
float64. Beside them `weights_shapes.json`: names and shapes of the published sizes, block numbers written as N.

Sources: timm (Apache-2.0) and transformers (Apache-2.0), called, not copied. Last run: timm 1.0.31, transformers 5.23.0.

Run: python weights.py    (torch 2.11, timm, transformers, safetensors; writes beside itself)
"""

import json
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.vision_transformer import VisionTransformer
from torch import nn

sys.dont_write_bytecode = True  # No __pycache__ beside the fixtures.
import mae

HERE = Path(__file__).resolve().parent


def scramble(model, seed):
    """Values that no initialization would leave, so that nothing swapped or left out goes unseen."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda like: torch.randn(like.shape, generator=generator)
    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + draw(tensor).square())
        elif tensor.dim() == 1 and name.endswith("weight"):
            tensor.copy_(1 + 0.3 * draw(tensor))
        else:
            tensor.copy_(draw(tensor) * (0.3 if tensor.dim() == 1 else 0.15 if tensor.dim() > 1 else 1))
    return model.eval()


def images(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def saved(model):
    """The names that `save_pretrained` writes; a decoder's as the hub and version 4 have them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        state = load_file(f"{folder}/model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text())
    return {k.replace("decoder.decoder_encoder.layer.", "decoder.decoder_layers."): v for k, v in state.items()}, config


def write(name, config, weights, **values):
    tensors = {f"weights.{k}": v.contiguous() for k, v in weights.items()}
    tensors |= {k: v.detach().contiguous() for k, v in values.items()}
    save_file(tensors, HERE / f"{name}.safetensors", metadata={"config": json.dumps(config, sort_keys=True)})
    print(f"{name}: {len(weights)} tensors, {(HERE / f'{name}.safetensors').stat().st_size // 1024} kB")


def timm_vit(size, **changes):
    settings = dict(
        img_size=size, patch_size=8, in_chans=3, num_classes=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.5,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    return VisionTransformer(**(settings | changes))


def write_timm():
    model = scramble(timm_vit(32), 1)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    x = images(2, 2, 3, 32, 32)
    pooled = timm_vit(32, global_pool="avg").eval()
    pooled.load_state_dict({k.replace("norm.", "fc_norm.") if k.startswith("norm.") else k: v for k, v in weights.items()})
    values = {
        "images": x, "features": model.double().forward_features(x.double()), "logits.class": model(x.double()),
        "logits.mean": pooled.double()(x.double()),
    }
    for rows, columns in [(5, 5), (2, 5), (3, 2)]:
        other = timm_vit((8 * rows, 8 * columns))
        state = dict(weights, pos_embed=resample_abs_pos_embed(weights["pos_embed"], [rows, columns]))
        other.load_state_dict(state)
        x = images(rows, 1, 3, 8 * rows, 8 * columns)
        key = f"{rows}x{columns}"
        values[f"pos_embed.{key}"] = state["pos_embed"]
        values |= {f"images.{key}": x, f"features.{key}": other.eval().double().forward_features(x.double())}
    for channels in (1, 2, 5):
        values[f"proj.{channels}"] = adapt_input_conv(channels, weights["patch_embed.proj.weight"])
    write("weights_timm", dict(num_heads=2), weights, **values)


MAE = dict(
    image_size=[32, 32], patch_size=8, in_chans=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=4, decoder_embed_dim=8,
    decoder_depth=1, decoder_num_heads=2, mask_ratio=0.75, norm_eps=1e-6,
)


def write_mae():
    cfg = dict(MAE, norm_pix=True)
    generator = torch.Generator().manual_seed(3)
    params = {k: torch.randn(s, generator=generator) * 0.15 for k, s in mae.parameter_shapes(cfg).items()}
    params = {k: v + 1 if re.search(r"norm\d?\.weight$", k) else v for k, v in params.items()}
    pos = {
        "encoder.pos_embed": mae.sincos_positions(16, 4, 4).float(),
        "decoder_pos_embed": mae.sincos_positions(8, 4, 4).float(),
    }
    x, noise = images(4, 3, 3, 32, 32), torch.rand(3, 16, generator=generator)
    double = lambda tensors: {k: v.double() for k, v in tensors.items()}
    model = mae.Mae(cfg, double(params), double(pos), {})
    weights = {k.removeprefix("encoder."): v for k, v in (params | pos).items()}
    write(
        "weights_mae", cfg, weights, images=x, noise=noise, features=model.encode(x.double()),
        loss=model.forward(x.double(), noise.double())[0],
    )


def write_hf_mae():
    config = transformers.ViTMAEConfig(
        image_size=32, patch_size=8, num_channels=3, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=48, decoder_hidden_size=8, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=24, mask_ratio=0.7, norm_pix_loss=True, layer_norm_eps=1e-6,
    )
    model = scramble(transformers.ViTMAEForPreTraining(config), 5)
    weights, config = saved(model)
    inside = list(model.state_dict())
    x, noise = images(6, 3, 3, 32, 32), torch.rand(3, 16, generator=torch.Generator().manual_seed(7))
    model = model.double()
    loss = model(x.double(), noise=noise.double()).loss
    config["inside"] = inside
    # All patches in their order: what the encoder alone gives.
    model.config.mask_ratio = 0.0
    features = model.vit(x.double(), noise=torch.arange(16).double().expand(3, 16)).last_hidden_state
    write("weights_hf_mae", config, weights, images=x, noise=noise, loss=loss, features=features)


def beit(**changes):
    settings = dict(
        image_size=32, patch_size=8, num_channels=3, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=40, add_fpn=True, use_absolute_position_embeddings=True, use_relative_position_bias=False,
        layer_scale_init_value=0.0, layer_norm_eps=1e-6, use_mask_token=False, drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.BeitConfig(**(settings | changes))


def upernet(backbone, **changes):
    settings = dict(
        hidden_size=8, pool_scales=[1, 2, 3], auxiliary_channels=6, auxiliary_in_channels=backbone.hidden_size, num_labels=3,
    )
    return transformers.UperNetConfig(backbone_config=backbone, **(settings | changes))


def write_hf_upernet():
    model = scramble(transformers.UperNetForSemanticSegmentation(upernet(beit())), 8)
    weights, config = saved(model)
    config["inside"] = list(model.state_dict())
    x = images(9, 2, 3, 32, 32)
    model = model.double()
    maps = model.backbone(x.double()).feature_maps
    write(
        "weights_hf_upernet", config, weights, images=x, logits=model(x.double()).logits,
        head=model.decode_head(maps), auxiliary=model.auxiliary_head(maps),
    )


def shapes(state):
    """Names and shapes with block numbers as N; all blocks of a list are alike."""
    found = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        name = re.sub(r"(blocks|layers?|decoder_layers)\.\d+\.", r"\1.N.", name)
        assert found.setdefault(name, list(tensor.shape)) == list(tensor.shape), name
    return dict(sorted(found.items()))


def write_shapes():
    out = {}
    for name in ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224",
                 "vit_huge_patch14_224"):
        with torch.device("meta"):
            out[name] = shapes(timm.create_model(name, num_classes=0).state_dict())
    # Of Hugging Face's the widths of base, with few blocks: these are saved for their names.
    config = transformers.ViTMAEConfig(num_hidden_layers=1, decoder_num_hidden_layers=1)
    out["vit_mae_base"] = shapes(saved(transformers.ViTMAEForPreTraining(config))[0])
    model = transformers.UperNetForSemanticSegmentation(upernet(
        beit(image_size=512, patch_size=16, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
        hidden_size=512, pool_scales=[1, 2, 3, 6], auxiliary_channels=256, num_labels=150,
    ))
    out["upernet_base"] = shapes(saved(model)[0])
    lines = []
    for model, tensors in out.items():
        rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(shape)}" for name, shape in tensors.items())
        lines.append(f"  {json.dumps(model)}: {{\n{rows}\n  }}")
    (HERE / "weights_shapes.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print({model: len(tensors) for model, tensors in out.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        write_timm()
        write_mae()
        write_hf_mae()
        write_hf_upernet()
        write_shapes()
