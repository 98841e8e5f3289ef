"""Reference values for optimizers: the authors' or PyTorch's own code on a few small layers.

Runs torch.optim.SGD, torch.optim.Muon (with torch.optim.AdamW for what is no hidden matrix) and schedulefree's
AdamWScheduleFree for 25 steps with changing rates, in float64 and in float32, and writes the weights of some steps.

Letters: w a parameter, s a step from 0, k the curvature.

    loss = sum over parameters of (k/2 w^2 + noise.<s>.w * w)     so that the gradient, k w + noise, is known anywhere
    rate(s) = lr (s + 1) / 8 while s < 8, then lr (1 - (s - 8) / 25)

Weights decay, biases do not. `layer_decay` scales the rates of the only block; the head has the full rate.

Muon's reference rounds to bfloat16 before Newton-Schulz. `after` is computed with that cast removed, `rounded` with it.
Where `split_qkv` is set, the fused q, k, v are three parameters of the reference.

Schedule-free: `after` is y, the weights that gradients are taken at; `average` is x, those of its `eval` mode.

Run: python optimizers.py    (torch 2.11, schedulefree 1.4.1, numpy, safetensors; writes beside itself)
"""

import contextlib
import sys

import torch
from schedulefree import AdamWScheduleFree

sys.dont_write_bytecode = True  # No __pycache__ beside the fixtures.
from mae import exact_float32, save

STEPS = 25
KEPT = [1, 10, 25]
CURVATURE = 0.3
# [outputs, inputs]: square, tall and wide, and q, k, v in one.
LAYERS = {
    "blocks.0.attn.qkv": (18, 6),
    "blocks.0.attn.proj": (6, 6),
    "blocks.0.mlp.fc1": (15, 6),
    "blocks.0.mlp.fc2": (6, 15),
    "head": (4, 6),
}
SGD = dict(optimizer="sgd", lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.01, layer_decay=1.0)
MUON = dict(
    optimizer="muon", lr=0.05, momentum=0.95, nesterov=True, weight_decay=0.1, ns_steps=5, layer_decay=1.0,
    adjust_lr="match_rms_adamw", split_qkv=True, adamw=dict(lr=0.01, beta1=0.9, beta2=0.95, weight_decay=0.05),
)
FREE = dict(
    optimizer="schedule_free", lr=0.05, beta1=0.9, beta2=0.99, weight_decay=0.05, warmup_steps=0, r=0.0,
    weight_lr_power=2.0, layer_decay=1.0,
)
CASES = {
    "sgd": SGD,
    "sgd_plain": dict(SGD, momentum=0.0, weight_decay=0.1),
    "sgd_nesterov": dict(SGD, nesterov=True, layer_decay=0.7),
    "muon": MUON,
    "muon_original": dict(MUON, adjust_lr="original", split_qkv=False, nesterov=False, lr=0.02, layer_decay=0.7),
    "free": FREE,
    "free_warmup": dict(FREE, warmup_steps=6, r=1.0, weight_lr_power=1.0, layer_decay=0.7),
}


def rate(cfg, step):
    return cfg["lr"] * ((step + 1) / 8 if step < 8 else 1 - (step - 8) / 25)


def inputs():
    generator = torch.Generator().manual_seed(5)
    draw = lambda shape: torch.randn(shape, generator=generator)
    shapes = {f"{layer}.weight": shape for layer, shape in LAYERS.items()}
    shapes |= {f"{layer}.bias": shape[:1] for layer, shape in LAYERS.items()}
    init = {name: draw(shape) for name, shape in shapes.items()}
    noise = [{name: draw(shape) for name, shape in shapes.items()} for _ in range(STEPS)]
    return init, noise


@contextlib.contextmanager
def without_cast():
    """Newton-Schulz in the matrix's own kind."""
    cast = torch.Tensor.bfloat16
    torch.Tensor.bfloat16 = lambda tensor: tensor.clone()
    try:
        yield
    finally:
        torch.Tensor.bfloat16 = cast


def is_hidden(name):
    return name.startswith("blocks.") and name.endswith(".weight")


def make(cfg, pieces):
    """The optimizers of a case, each with its rate's share of Muon's or of the case's."""
    groups, matrices = [], []
    for name, tensors in pieces.items():
        decays = name.endswith(".weight")
        scale = cfg["layer_decay"] if name.startswith("blocks.") else 1.0
        own = cfg["adamw"] if cfg["optimizer"] == "muon" else cfg
        group = dict(params=tensors, weight_decay=own["weight_decay"] if decays else 0.0, scale=scale)
        if cfg["optimizer"] == "muon" and is_hidden(name):
            matrices.append(dict(group, weight_decay=cfg["weight_decay"]))
        else:
            groups.append(group)
    if cfg["optimizer"] == "sgd":
        return [(torch.optim.SGD(groups, lr=1.0, momentum=cfg["momentum"], nesterov=cfg["nesterov"]), 1.0)]
    if cfg["optimizer"] == "muon":
        muon = torch.optim.Muon(
            matrices, lr=1.0, momentum=cfg["momentum"], nesterov=cfg["nesterov"], ns_steps=cfg["ns_steps"],
            adjust_lr_fn=cfg["adjust_lr"],
        )
        adamw = cfg["adamw"]
        others = torch.optim.AdamW(groups, lr=1.0, betas=(adamw["beta1"], adamw["beta2"]), eps=1e-8)
        return [(muon, 1.0), (others, adamw["lr"] / cfg["lr"])]
    free = AdamWScheduleFree(
        groups, lr=1.0, betas=(cfg["beta1"], cfg["beta2"]), warmup_steps=cfg["warmup_steps"], r=cfg["r"],
        weight_lr_power=cfg["weight_lr_power"],
    )
    free.train()
    return [(free, 1.0)]


def train(cfg, kind, init, noise):
    """Weights after the steps in KEPT, by `<what>.<step>.<parameter>`."""
    pieces = {}
    for name, value in init.items():
        count = 3 if cfg.get("split_qkv") and name.endswith("qkv.weight") else 1
        pieces[name] = [piece.clone().to(kind).requires_grad_() for piece in value.chunk(count)]
    optimizers = make(cfg, pieces)
    kept = {}

    def keep(what, step):
        for name, tensors in pieces.items():
            kept[f"{what}.{step}.{name}"] = torch.cat([tensor.detach() for tensor in tensors])

    for step in range(STEPS):
        loss = 0
        for name, tensors in pieces.items():
            w = torch.cat(list(tensors))
            loss = loss + (CURVATURE / 2 * w * w + noise[step][name].to(kind) * w).sum()
        loss.backward()
        for optimizer, share in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate(cfg, step) * share * group["scale"]
            optimizer.step()
            optimizer.zero_grad()
        if step + 1 in KEPT:
            keep("after", step + 1)
            if cfg["optimizer"] == "schedule_free":
                optimizers[0][0].eval()
                keep("average", step + 1)
                optimizers[0][0].train()
    return kept


def self_checks(init, noise, kept):
    """Closed forms of first steps: SGD, and AdamW's as schedule-free takes it, where x, y and z are one."""
    for case in CASES:
        cfg, wd = CASES[case], CASES[case]["weight_decay"]
        name = "head.weight"
        w = init[name].double()
        g = CURVATURE * w + noise[0][name].double()
        if cfg["optimizer"] == "sgd":
            factor = 1 + cfg["momentum"] if cfg["nesterov"] else 1
            want = w - rate(cfg, 0) * factor * (g + wd * w)
        elif cfg["optimizer"] == "schedule_free":
            lr = rate(cfg, 0) / max(1, cfg["warmup_steps"])
            want = w - lr * (g / (g.abs() + 1e-8) + wd * w)
        else:
            lr = rate(cfg, 0) * cfg["adamw"]["lr"] / cfg["lr"]
            want = w * (1 - lr * cfg["adamw"]["weight_decay"]) - lr * g / (g.abs() + 1e-8)
        gap = (kept[f"{case}.after.1.{name}"] - want).abs().max().item()
        assert gap < 1e-12, (case, gap)


if __name__ == "__main__":
    torch.set_num_threads(1)
    init, noise = inputs()
    tensors, exact = {}, {}
    for case, cfg in CASES.items():
        with without_cast():
            exact |= {f"{case}.{name}": value for name, value in train(cfg, torch.float64, init, noise).items()}
            single = train(cfg, torch.float32, init, noise)
        tensors |= {f"{case}.{name.replace('.', '32.', 1)}": value for name, value in single.items()}
        if cfg["optimizer"] == "muon":
            rounded = train(cfg, torch.float32, init, noise)
            tensors |= {f"{case}.{name.replace('after', 'rounded', 1)}": value for name, value in rounded.items()}
    self_checks(init, noise, exact)
    for step, values in enumerate(noise):
        tensors |= {f"noise.{step}.{name}": exact_float32(value.double()) for name, value in values.items()}
    tensors |= {f"init.{name}": value for name, value in init.items()}
    config = dict(steps=STEPS, kept=KEPT, curvature=CURVATURE, layers=LAYERS, cases=CASES)
    save("optimizers", tensors | exact, config)
