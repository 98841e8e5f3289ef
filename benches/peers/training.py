"""A training step of the peer: forward, backward, fused AdamW, the update of R. Options are those of the host's recipes."""

import contextlib

import torch
from torch.optim import AdamW

from mae import CHANNELS, Mae

# Constants of the host's recipes, and of its preset `paper`.
SAMPLE = 0.10
DECOR_LR = 5e-4
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.05


def optimizer_of(model, lr):
    """Weights decay; biases, norms and tokens do not."""
    decays = {True: [], False: []}
    for name, parameter in model.named_parameters():
        decays[parameter.dim() > 1 and not name.endswith("token")].append(parameter)
    groups = [dict(params=decays[True], weight_decay=WEIGHT_DECAY), dict(params=decays[False], weight_decay=0.0)]
    return AdamW(groups, lr=lr, betas=BETAS, eps=1e-8, fused=True)


class Trainer:
    """`batch` images a step in `micro_batches` equal pieces; `decorrelate` is the usual two-step DBP."""

    def __init__(self, size, batch, micro_batches=1, decorrelate=False, bf16=False, compiled=False, device="cpu", lr=1e-3):
        torch.manual_seed(0)
        self.device, self.bf16, self.micro_batches = torch.device(device), bf16, micro_batches
        self.model = Mae(size, decorrelate).to(self.device)
        self.layers = self.model.decorrelated()
        self.loss_of = torch.compile(self.model) if compiled else self.model
        self.optimizer = optimizer_of(self.model, lr)
        self.decor_lr = DECOR_LR
        self.micro_batch = batch // micro_batches
        side = self.model.image_size
        self.images = None
        self.shape = (self.micro_batch, CHANNELS, side, side)

    def step(self, images=None):
        """One step on `images`, micro-batch by micro-batch; without, on a batch of noise that stays on the device."""
        if images is None:
            if self.images is None:
                self.images = [torch.randn(self.shape, device=self.device) for _ in range(self.micro_batches)]
            images = self.images
        for batch in images:
            loss = self.backward(batch, *self.draw())
        self.finish()
        return loss

    def draw(self):
        """Noise for the mask, and the rows that the update of R will see."""
        n, kept = self.micro_batch, self.model.kept
        noise = torch.rand(n, self.model.tokens, device=self.device)
        if not self.layers:
            return noise, None, None
        sample = lambda total: torch.randperm(total, device=self.device)[: max(1, int(SAMPLE * total))]
        return noise, sample(n * kept), sample(n * (kept + 1))

    def backward(self, images, noise, patch_rows, token_rows):
        with torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            loss = self.loss_of(images, noise, patch_rows, token_rows)
        (loss / self.micro_batches if self.micro_batches > 1 else loss).backward()
        for layer in self.layers:
            layer.keep()
        return loss.detach()

    def finish(self):
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for layer in self.layers:
            layer.update(self.decor_lr)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
