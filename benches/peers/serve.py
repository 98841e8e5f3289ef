"""The peer as a process that a bench drives: a command per line on stdin, an answer per line on stdout.

    steps K        takes K training steps; answers with seconds
    check FILE     repeats the steps that FILE holds and compares; answers with JSON (benches/peers/check.rs)
    count          answers with the multiply-adds of a step, as PyTorch counts them
    memory         answers with the peak of allocated bytes of the GPU

It says `ready` once its model is made. What fails is answered with `error: …`.
"""

import argparse
import json
import sys
import time

import torch

from mae import SIZES
from training import Trainer


def steps(trainer, count):
    trainer.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        loss = trainer.step()
    loss.item()
    trainer.synchronize()
    return time.perf_counter() - start


def check(trainer, path):
    """The host's weights, images, masks and rows: losses of every step, and how far all ends up from where the host did."""
    from safetensors.torch import load_file

    held = load_file(path)
    model = trainer.model
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in state.items():
            parameter.copy_(ours(name, held["init." + name]))
    trainer.decor_lr = float(held["decor_lr"])
    losses = []
    for step in range(int(held["steps"])):
        inputs = [held.get(f"{what}.{step}") for what in ("noise", "patch_rows", "token_rows")]
        losses.append(float(trainer.backward(held["images"], *inputs)))
        trainer.finish()
    moved = lambda now, then, host: float((now - host).norm() / (host - then).norm().clamp_min(1e-12))
    weights = max(moved(p.detach(), *(ours(n, held[f"{when}.{n}"]) for when in ("init", "after"))) for n, p in state.items())
    answer = dict(losses=losses, weights=weights)
    names = {module: name for name, module in model.named_modules()}
    layers = [(ours(names[layer] + ".R", held[f"R.{names[layer]}"]), layer.R) for layer in trainer.layers]
    answer["R"] = max((moved(now, torch.eye(len(now)), host) for host, now in layers), default=0.0)
    return json.dumps(answer)


def ours(name, tensor):
    """The host's patch embedding takes pixels as (channel, row, column), this one as (row, column, channel)."""
    if name == "encoder.patch_embed.proj.weight":
        return tensor.permute(0, 2, 3, 1).flatten(1)
    if name == "encoder.patch_embed.proj.R":
        channels = 3
        side = round((len(tensor) / channels) ** 0.5)
        order = torch.arange(len(tensor)).view(channels, side, side).permute(1, 2, 0).flatten()
        return tensor[order][:, order]
    return tensor


def count(trainer):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trainer.step()
    return counter.get_total_flops() // 2


def answer(trainer, line):
    command, *rest = line.strip().split(maxsplit=1)
    if command == "steps":
        return steps(trainer, int(rest[0]))
    if command == "check":
        return check(trainer, rest[0])
    if command == "count":
        return count(trainer)
    if command == "memory":
        return torch.cuda.max_memory_allocated()
    raise ValueError(f"no command is named {command}")


def main():
    parser = argparse.ArgumentParser(description="A training step of PyTorch, on command")
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--decorrelate", action="store_true")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32 in what stays float32, as the host is asked for.
    trainer = Trainer(args.size, args.batch, args.micro_batches, args.decorrelate, args.bf16, args.compile, args.device)
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            print(answer(trainer, line), flush=True)
        except Exception as error:  # The bench prints it, and goes on with its other lines.
            print("error:", str(error).strip().replace("\n", " ")[:300], flush=True)


if __name__ == "__main__":
    main()
