"""Decorrelated back-propagation the usual way: two products in every layer, R moved beside the optimizer.

    z = x Rᵀ for every token,  y = z Wᵀ + b              R starts as I; autograd passes through z, R has no gradient
    C = ZᵀZ/n − diag(·)                                  over n sampled rows of z, without replacement
    R ← R − η C R                                        after the optimizer's step

Sources: Ahmad et al. 2022; Dalm et al. 2024, arXiv:2405.02385; in a ViT encoder arXiv:2510.14657, eq. 4 and 5 with κ = 0.
What slows the published code down is left out: rows are drawn on the device, once for all layers of equal length, and no
number is read back in a step.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class DecorLinear(nn.Linear):
    """A linear map behind its own R. `rows [n]` says which rows of the input the update will see."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.register_buffer("R", torch.eye(in_features))
        self.z = None  # [n, d], of the last forward pass.
        self.sampled = []  # The same for each micro-batch of a step.

    def forward(self, x, rows):
        z = F.linear(x, self.R)
        if rows is not None:
            self.z = z.detach().flatten(0, -2).index_select(0, rows)
        return F.linear(z, self.weight, self.bias)

    def keep(self):
        """Puts the sample of a micro-batch aside; not in `forward`, where a compiler would have to follow the list."""
        self.sampled.append(self.z)
        self.z = None

    @torch.no_grad()
    def update(self, lr):
        z = (torch.cat(self.sampled) if len(self.sampled) > 1 else self.sampled[0]).float()
        self.sampled.clear()
        C = z.T @ z
        C.fill_diagonal_(0)
        self.R = torch.addmm(self.R, C, self.R, alpha=-lr / len(z))
