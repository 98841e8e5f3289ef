"""AdamW over 100 steps by PyTorch's plain (neither fused nor foreach) implementation, in float64 and in float32.

    python tests/reference/adamw.py     # regenerates adamw.safetensors; torch 2.11, safetensors

Value i of a tensor of n starts at cos(i + 1) and has, in step s from 0, the gradient 0.3·w + sin(0.7·i + 1.3·s); the rate is
0.02·(1 + s)/10 in the first ten steps, then 0.02·(1 + cos(π·s/100))/2. `decayed` has a weight decay of 0.05, `plain` none.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

STEPS, KEPT, LR, BETAS, DECAY, EPS = 100, [10, 50, 100], 0.02, (0.9, 0.95), 0.05, 1e-8
SIZES = {"decayed": 37, "plain": 11}


def rate(step):
    return LR * (1 + step) / 10 if step < 10 else LR * (1 + math.cos(math.pi * step / STEPS)) / 2


def train(kind):
    weights = {
        name: torch.nn.Parameter(torch.tensor([math.cos(i + 1) for i in range(size)], dtype=torch.float64).to(kind))
        for name, size in SIZES.items()
    }
    groups = [dict(params=[weights["decayed"]], weight_decay=DECAY), dict(params=[weights["plain"]], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS, foreach=False, fused=False)
    for step in range(STEPS):
        for weight in weights.values():
            waves = [math.sin(0.7 * i + 1.3 * step) for i in range(weight.numel())]
            weight.grad = 0.3 * weight.detach() + torch.tensor(waves, dtype=torch.float64).to(kind)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        if step + 1 in KEPT:
            for name, weight in weights.items():
                yield f"{name}.{step + 1}", weight.detach().clone()


def main():
    tensors = {f"float64.{name}": tensor for name, tensor in train(torch.float64)}
    tensors |= {f"float32.{name}": tensor for name, tensor in train(torch.float32)}
    config = dict(steps=STEPS, kept=KEPT, lr=LR, beta1=BETAS[0], beta2=BETAS[1], weight_decay=DECAY, eps=EPS)
    path = Path(__file__).with_suffix(".safetensors")
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    print(path, len(tensors), file=sys.stderr)


main()
