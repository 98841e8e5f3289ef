"""Reference values for a masked autoencoder trained with and without decorrelated back-propagation (DBP).

Computes, in plain PyTorch and float64, short training runs of a tiny MAE on a ViT, and writes them as safetensors.

Sources: MAE: He et al. 2022, arXiv:2111.06377. ViT: Dosovitskiy et al. 2021, arXiv:2010.11929. Decorrelation: Dalm et al.
2024, arXiv:2405.02385, and arXiv:2510.14657. Parameter names and layouts are those of timm and of the MAE release.
Departures: C is taken from the decorrelated z, not from raw x; the variance term scales the rows of R.

Letters: N images of a micro-batch, L patches, K kept patches, D width, d inputs of a layer, n sampled rows.

    z = x R^T,  y = z W^T + b                 R starts as I and is a constant for autograd
    C = offdiag(Z^T Z / n)                    over the n sampled rows of z, with the R of the forward
    V = diag(mean(z^2) - 1)                   over the same rows
    R <- R - decor_lr [(1 - kappa) C + kappa V] R

Quantities with closed forms (each asserted by `self_checks` unless it says "given"):
  * positions: sin and cos of coordinate / 10000^(i / (D/4)), i = 0 .. D/4 - 1; the class token's row is zero;
  * K = floor(L (1 - mask_ratio)), mask and order of the kept patches: given by the noise alone;
  * step 0 of DBP has R = I, so its loss and gradients are those of plain back-propagation;
  * R after step 0 is I - decor_lr [(1 - kappa) C + kappa V] with C and V of the raw inputs x;
  * with A = W R, the fused layer x A^T has the same outputs, and dW = dA R^T;
  * AdamW's first update is p (1 - lr wd) - lr g / (|g| + eps);
  * the gradient of the key part of `attn.qkv.bias` is zero (softmax does not see it): what is stored there is rounding.

Run: python mae.py    (torch 2.11, numpy, safetensors; writes beside itself)
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent

BASE = dict(
    image_size=[16, 16], patch_size=4, in_chans=3, embed_dim=16, depth=2, num_heads=2, mlp_ratio=4,
    decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2, mask_ratio=0.75, norm_pix=False, norm_eps=1e-6,
    batch=4, micro_batches=1, steps=3, lr=1e-2, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.05,
    decorrelate=True, decor_lr=1e-2, kappa=0.0, sample_fraction=0.5,
)
CASES = {
    "mae_dbp": dict(BASE, seed=1, sample_fraction=0.9),  # n > d for qkv, n < d for fc2 and the patches.
    "mae_dbp_kappa": dict(
        BASE, seed=2, image_size=[16, 24], in_chans=2, embed_dim=8, depth=1, batch=2, micro_batches=2, steps=2,
        norm_pix=True, kappa=0.3, sample_fraction=0.6,
    ),
    # L (1 - mask_ratio) = 4.5 here, so that the floor is tested. Without R, decor_loss and corr are those of raw inputs.
    "mae_bp": dict(
        BASE, seed=3, image_size=[12, 20], in_chans=1, embed_dim=8, depth=1, decoder_embed_dim=4, decoder_depth=2,
        mask_ratio=0.7, batch=3, decorrelate=False,
    ),
}


# ---- Shapes and inputs ------------------------------------------------------------------------------------------------


def grid_size(cfg):
    """Patches down and across: (rows, columns)."""
    return cfg["image_size"][0] // cfg["patch_size"], cfg["image_size"][1] // cfg["patch_size"]


def kept_patches(cfg):
    rows, columns = grid_size(cfg)
    return math.floor(rows * columns * (1 - cfg["mask_ratio"]))


def sincos_positions(dim, rows, columns):
    """[1, rows * columns + 1, dim]; the first half of the width encodes the column (x), the second the row (y)."""
    quarter = dim // 4
    frequency = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    parts = []
    for coordinate in (x.reshape(-1), y.reshape(-1)):
        angle = coordinate[:, None] * frequency[None, :]  # [L, dim / 4]
        parts += [angle.sin(), angle.cos()]
    patches = torch.cat(parts, dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), patches])[None]


def parameter_shapes(cfg):
    """Trained parameters in the order in which they are drawn."""
    dim, dec, chans, p = cfg["embed_dim"], cfg["decoder_embed_dim"], cfg["in_chans"], cfg["patch_size"]
    shapes = {"encoder.cls_token": (1, 1, dim), "mask_token": (1, 1, dec)}

    def pair(name, *weight):
        shapes[name + ".weight"], shapes[name + ".bias"] = weight, (weight[0],)

    def block(name, width):
        hidden = width * cfg["mlp_ratio"]
        pair(name + ".norm1", width)
        pair(name + ".attn.qkv", 3 * width, width)
        pair(name + ".attn.proj", width, width)
        pair(name + ".norm2", width)
        pair(name + ".mlp.fc1", hidden, width)
        pair(name + ".mlp.fc2", width, hidden)

    pair("encoder.patch_embed.proj", dim, chans, p, p)
    for i in range(cfg["depth"]):
        block(f"encoder.blocks.{i}", dim)
    pair("encoder.norm", dim)
    pair("decoder_embed", dec, dim)
    for i in range(cfg["decoder_depth"]):
        block(f"decoder_blocks.{i}", dec)
    pair("decoder_norm", dec)
    pair("decoder_pred", p * p * chans, dec)
    return shapes


def draw_parameters(cfg, generator):
    """Every parameter non-trivial, every value exact in float32 so that both precisions start alike."""
    params = {}
    for name, shape in parameter_shapes(cfg).items():
        value = torch.randn(shape, generator=generator)
        if name.endswith("token"):
            value = 0.5 * value
        elif name.endswith(".bias"):
            value = 0.1 * value
        elif len(shape) == 1:  # The weight of a norm.
            value = 1 + 0.2 * value
        else:
            value = value / math.sqrt(math.prod(shape[1:]))
        params[name] = value.double()
    return params


def draw_images(cfg, generator):
    """[N, C, H, W] with correlated pixels; exact in float32."""
    (height, width), batch, chans = cfg["image_size"], cfg["batch"], cfg["in_chans"]
    sides = [(batch, 1, 1, 1), (batch, chans, height, 1), (batch, chans, 1, width), (batch, chans, height, width)]
    return (sum(torch.randn(side, generator=generator) for side in sides) / 2).double()


def draw_inputs(cfg, generator):
    """{(step, micro): (images, noise, {row count: sampled rows})}"""
    rows, columns = grid_size(cfg)
    inputs = {}
    for step in range(cfg["steps"]):
        for micro in range(cfg["micro_batches"]):
            images = draw_images(cfg, generator)
            noise = torch.rand(cfg["batch"], rows * columns, generator=generator).double()
            assert all(len(set(line.tolist())) == len(line) for line in noise), "noise has ties"
            sampled = {}
            for count in (cfg["batch"] * kept_patches(cfg), cfg["batch"] * (kept_patches(cfg) + 1)):
                n = max(1, math.floor(cfg["sample_fraction"] * count))
                sampled[count] = torch.randperm(count, generator=generator)[:n]
            inputs[step, micro] = images, noise, sampled
    return inputs


def decorrelated_layers(cfg):
    """{layer: number of inputs d}"""
    dim = cfg["embed_dim"]
    layers = {"encoder.patch_embed.proj": cfg["in_chans"] * cfg["patch_size"] ** 2}
    for i in range(cfg["depth"]):
        for name, d in (("attn.qkv", dim), ("attn.proj", dim), ("mlp.fc1", dim), ("mlp.fc2", dim * cfg["mlp_ratio"])):
            layers[f"encoder.blocks.{i}.{name}"] = d
    return layers


# ---- Model ------------------------------------------------------------------------------------------------------------


class Mae:
    """A masked autoencoder as a function of `params`, positions `pos` and, where decorrelated, `R` by layer name."""

    def __init__(self, cfg, params, pos, R):
        self.cfg, self.params, self.pos, self.R = cfg, params, pos, R
        self.rows = {}  # Layer -> z [rows, d] of the last forward (x where the layer has no R).

    def linear(self, name, x):
        weight = self.params[name + ".weight"].flatten(1)
        z = x @ self.R[name].T if name in self.R else x
        self.rows[name] = z.detach().reshape(-1, z.shape[-1])
        return z @ weight.T + self.params[name + ".bias"]

    def norm(self, name, x):
        weight, bias = self.params[name + ".weight"], self.params[name + ".bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.cfg["norm_eps"])

    def attention(self, name, x, heads):
        batch, tokens, width = x.shape
        qkv = self.linear(name + ".qkv", x).reshape(batch, tokens, 3, heads, width // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # Each [N, heads, tokens, head_dim].
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // heads)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        return self.linear(name + ".proj", mixed)

    def block(self, name, x, heads):
        x = x + self.attention(name + ".attn", self.norm(name + ".norm1", x), heads)
        hidden = F.gelu(self.linear(name + ".mlp.fc1", self.norm(name + ".norm2", x)))
        return x + self.linear(name + ".mlp.fc2", hidden)

    def encode(self, images, ids_keep=None):
        """Features after the final norm, class token first: [N, K + 1, D], or [N, L + 1, D] without `ids_keep`."""
        cfg, p = self.cfg, self.cfg["patch_size"]
        patches = F.unfold(images, p, stride=p).transpose(1, 2)  # [N, L, C p p], pixels as (channel, row, column).
        pos = self.pos["encoder.pos_embed"]
        pos_patches = pos[:, 1:].expand(len(images), -1, -1)
        if ids_keep is not None:
            patches, pos_patches = take(patches, ids_keep), take(pos_patches, ids_keep)
        x = self.linear("encoder.patch_embed.proj", patches) + pos_patches
        cls = (self.params["encoder.cls_token"] + pos[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([cls, x], dim=1)
        for i in range(cfg["depth"]):
            x = self.block(f"encoder.blocks.{i}", x, cfg["num_heads"])
        return self.norm("encoder.norm", x)

    def decode(self, latent, ids_restore):
        """Predicted pixels of every patch: [N, L, p p C]."""
        cfg = self.cfg
        x = self.linear("decoder_embed", latent)
        batch, length = ids_restore.shape
        missing = self.params["mask_token"].expand(batch, length + 1 - x.shape[1], -1)
        patches = take(torch.cat([x[:, 1:], missing], dim=1), ids_restore)
        x = torch.cat([x[:, :1], patches], dim=1) + self.pos["decoder_pos_embed"]
        for i in range(cfg["decoder_depth"]):
            x = self.block(f"decoder_blocks.{i}", x, cfg["decoder_num_heads"])
        return self.linear("decoder_pred", self.norm("decoder_norm", x))[:, 1:]

    def forward(self, images, noise):
        """(loss, pred [N, L, p p C], mask [N, L] with 1 = removed, latent [N, K + 1, D])"""
        shuffle = noise.argsort(dim=1)
        kept = kept_patches(self.cfg)
        rank = shuffle.argsort(dim=1)  # rank[l]: where patch l went; this is ids_restore.
        mask = (rank >= kept).to(images.dtype)
        latent = self.encode(images, shuffle[:, :kept])
        pred = self.decode(latent, rank)
        error = (pred - self.target(images)).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum(), pred, mask, latent

    def target(self, images):
        """[N, L, p p C], pixels as (row, column, channel)."""
        p = self.cfg["patch_size"]
        patches = images.unfold(2, p, p).unfold(3, p, p)  # [N, C, rows, columns, p, p]
        patches = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
        if self.cfg["norm_pix"]:
            mean = patches.mean(dim=-1, keepdim=True)
            variance = patches.var(dim=-1, keepdim=True, unbiased=True)
            patches = (patches - mean) / (variance + 1e-6).sqrt()
        return patches


def take(tokens, ids):
    """tokens [N, T, D], ids [N, S] -> [N, S, D]"""
    return torch.stack([tokens[i, ids[i]] for i in range(len(ids))])


# ---- Training ---------------------------------------------------------------------------------------------------------


def moments(z):
    """Second moments of sampled rows z [n, d]: off-diagonal C [d, d] and diagonal [d]."""
    full = z.T @ z / len(z)
    return full - torch.diag(full.diagonal()), full.diagonal().clone()


def update_r(R, C, square, cfg):
    change = (1 - cfg["kappa"]) * C + cfg["kappa"] * torch.diag(square - 1)
    return R - cfg["decor_lr"] * change @ R


def correlation_metrics(C, square):
    """(decorrelation loss, mean absolute correlation) of C [d, d] with zero diagonal."""
    d = len(square)
    correlation = C.abs() / torch.sqrt(square[:, None] * square[None, :])
    return C.square().sum() / d**2, correlation.sum() / (d * (d - 1))


def has_weight_decay(name, value):
    """Biases, norms and tokens are exempt."""
    return value.dim() > 1 and not name.endswith("token")


def train(cfg, dtype, init, pos, inputs):
    """One run; answers with what the fixture holds and the states `(params, R)` before each step."""
    params = {k: v.to(dtype).clone().requires_grad_() for k, v in init.items()}
    pos = {k: v.to(dtype) for k, v in pos.items()}
    layers = decorrelated_layers(cfg)
    R = {name: torch.eye(d, dtype=dtype) for name, d in layers.items()} if cfg["decorrelate"] else {}
    decay = [v for k, v in params.items() if has_weight_decay(k, v)]
    plain = [v for k, v in params.items() if not has_weight_decay(k, v)]
    groups = [dict(params=decay, weight_decay=cfg["weight_decay"]), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=cfg["lr"], betas=tuple(cfg["betas"]), eps=cfg["eps"])
    out, states = {}, []
    for step in range(cfg["steps"]):
        states.append(({k: v.detach().clone() for k, v in params.items()}, dict(R)))
        total = {name: [0.0, 0.0] for name in layers}
        for micro in range(cfg["micro_batches"]):
            images, noise, sampled = inputs[step, micro]
            model = Mae(cfg, params, pos, R)
            loss, pred, mask, latent = model.forward(images.to(dtype), noise)
            (loss / cfg["micro_batches"]).backward()
            out[f"loss.{step}.{micro}"] = loss.detach()
            if (step, micro) == (0, 0):
                out |= {"pred.0": pred.detach(), "mask.0": mask, "latent.0": latent.detach()}
            for name in layers:
                z = model.rows[name]
                C, square = moments(z[sampled[len(z)]])
                total[name][0] += C / cfg["micro_batches"]
                total[name][1] += square / cfg["micro_batches"]
        if step == 0:
            out |= {f"grad.{k}": v.grad.clone() for k, v in params.items()}
        optimizer.step()
        optimizer.zero_grad()
        for name, (C, square) in total.items():
            out[f"decor_loss.{step}.{name}"], out[f"corr.{step}.{name}"] = correlation_metrics(C, square)
            if name in R:
                R[name] = update_r(R[name], C, square, cfg)
    last = cfg["steps"] - 1
    states.append(({k: v.detach().clone() for k, v in params.items()}, dict(R)))
    out |= {f"after.{last}.{k}": v for k, v in states[-1][0].items()}
    out |= {f"R.{last}.{k}": v for k, v in R.items()}
    return out, states


# ---- Checks of the reference against itself ---------------------------------------------------------------------------


def numpy_forward(cfg, params, pos, images, noise):
    """The plain (no R) MAE again, written with numpy and loops only: (loss, pred, latent)."""
    P = {k: v.numpy() for k, v in params.items()}
    images, noise, p = images.numpy(), noise.numpy(), cfg["patch_size"]
    rows, columns = grid_size(cfg)
    erf = np.vectorize(math.erf)

    def norm(name, x):
        centered = x - x.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt((centered**2).mean(axis=1, keepdims=True) + cfg["norm_eps"])
        return centered * scale * P[name + ".weight"] + P[name + ".bias"]

    def linear(name, x):
        return x @ P[name + ".weight"].T + P[name + ".bias"]

    def block(name, x, heads):
        width = x.shape[1]
        size = width // heads
        qkv = linear(name + ".attn.qkv", norm(name + ".norm1", x))
        mixed = np.zeros_like(x)
        for head in range(heads):
            q, k, v = (qkv[:, part * width + head * size : part * width + (head + 1) * size] for part in range(3))
            for token in range(len(x)):
                score = np.array([np.dot(q[token], key) for key in k]) / math.sqrt(size)
                weight = np.exp(score - score.max())
                mixed[token, head * size : (head + 1) * size] = weight @ v / weight.sum()
        x = x + linear(name + ".attn.proj", mixed)
        hidden = linear(name + ".mlp.fc1", norm(name + ".norm2", x))
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        return x + linear(name + ".mlp.fc2", hidden)

    def position(dim, row, column):
        quarter = dim // 4
        value = np.zeros(dim)
        for i in range(quarter):
            rate = 10000.0 ** (-i / quarter)
            value[i], value[quarter + i] = math.sin(column * rate), math.cos(column * rate)
            value[2 * quarter + i], value[3 * quarter + i] = math.sin(row * rate), math.cos(row * rate)
        return value

    length, kept = rows * columns, kept_patches(cfg)
    width, narrow = cfg["embed_dim"], cfg["decoder_embed_dim"]
    preds, latents, errors = [], [], []
    for image, line in zip(images, noise):
        order = sorted(range(length), key=lambda patch: line[patch])
        tokens = [P["encoder.cls_token"][0, 0]]
        for patch in order[:kept]:
            r, c = divmod(patch, columns)
            square = image[:, r * p : (r + 1) * p, c * p : (c + 1) * p]
            convolved = np.einsum("ochw,chw->o", P["encoder.patch_embed.proj.weight"], square)
            tokens.append(convolved + P["encoder.patch_embed.proj.bias"] + position(width, r, c))
        x = np.stack(tokens)
        for i in range(cfg["depth"]):
            x = block(f"encoder.blocks.{i}", x, cfg["num_heads"])
        x = norm("encoder.norm", x)
        latents.append(x)

        embedded = linear("decoder_embed", x)
        full = np.tile(P["mask_token"][0], (length + 1, 1))
        full[0] = embedded[0]
        for place, patch in enumerate(order[:kept]):
            full[patch + 1] = embedded[place + 1]
        for patch in range(length):
            full[patch + 1] += position(narrow, *divmod(patch, columns))
        for i in range(cfg["decoder_depth"]):
            full = block(f"decoder_blocks.{i}", full, cfg["decoder_num_heads"])
        pred = linear("decoder_pred", norm("decoder_norm", full))[1:]
        preds.append(pred)
        for patch in order[kept:]:
            r, c = divmod(patch, columns)
            pixels = [image[ch, r * p + i, c * p + j] for i in range(p) for j in range(p) for ch in range(len(image))]
            pixels = np.array(pixels)
            if cfg["norm_pix"]:
                pixels = (pixels - pixels.mean()) / math.sqrt(pixels.var(ddof=1) + 1e-6)
            errors.append(((pred[patch] - pixels) ** 2).mean())
    return np.mean(errors), np.stack(preds), np.stack(latents)


def naive_r_update(R, zs, cfg):
    """R after one step from sampled rows `zs`, one [n, d] per micro-batch, with loops over scalars."""
    d = len(R)
    change = [[0.0] * d for _ in range(d)]
    for z in zs:
        lines = z.tolist()
        for i in range(d):
            for j in range(d):
                moment = sum(line[i] * line[j] for line in lines) / len(lines) / len(zs)
                change[i][j] += (1 - cfg["kappa"]) * moment if i != j else cfg["kappa"] * (moment - 1 / len(zs))
    old, new = R.tolist(), [[0.0] * d for _ in range(d)]
    for i in range(d):
        for j in range(d):
            new[i][j] = old[i][j] - cfg["decor_lr"] * sum(change[i][k] * old[k][j] for k in range(d))
    return torch.tensor(new, dtype=R.dtype)


def gap(a, b):
    return (torch.as_tensor(a) - torch.as_tensor(b)).abs().max().item()


def gradients(cfg, params, pos, R, images, noise):
    params = {k: v.clone().requires_grad_() for k, v in params.items()}
    loss = Mae(cfg, params, pos, R).forward(images, noise)[0]
    loss.backward()
    return loss.item(), {k: v.grad for k, v in params.items()}


def self_checks(cfg, init, pos, inputs, out, states):
    """Asserts agreement and answers with the largest differences; `states[s]` is before step s, the last one the end."""
    found = {}
    images, noise, _ = inputs[0, 0]

    loss, pred, latent = numpy_forward(cfg, init, pos, images, noise)
    parts = [(loss, out["loss.0.0"]), (pred, out["pred.0"]), (latent, out["latent.0"])]
    found["numpy forward, abs"] = max(gap(a, b) for a, b in parts)
    assert found["numpy forward, abs"] < 1e-10

    # Flattened patches against the convolution that they replace.
    p, proj = cfg["patch_size"], "encoder.patch_embed.proj"
    conv = F.conv2d(images, init[proj + ".weight"], init[proj + ".bias"], stride=p).flatten(2).transpose(1, 2)
    flat = Mae(cfg, init, pos, {}).linear(proj, F.unfold(images, p, stride=p).transpose(1, 2))
    found["convolution, abs"] = gap(conv, flat)
    assert found["convolution, abs"] < 1e-12

    # Finite differences, at a state with a non-trivial R.
    params, R = states[-2]
    images, noise, _ = inputs[cfg["steps"] - 1, 0]
    loss, grad = gradients(cfg, params, pos, R, images, noise)
    h, worst = 1e-5, 0.0
    for name in (proj, "encoder.blocks.0.mlp.fc1", f"encoder.blocks.{cfg['depth'] - 1}.attn.qkv"):
        key = name + ".weight"
        for index in (0, params[key].numel() // 2, params[key].numel() - 1):
            side = []
            for sign in (1, -1):
                moved = dict(params, **{key: params[key].clone()})
                moved[key].view(-1)[index] += sign * h
                side.append(Mae(cfg, moved, pos, R).forward(images, noise)[0].item())
            numeric, exact = (side[0] - side[1]) / (2 * h), grad[key].view(-1)[index].item()
            worst = max(worst, abs(numeric - exact) / grad[key].abs().max().item())
    found["finite differences, rel to max |grad|"] = worst
    assert worst < 1e-7

    # AdamW's first step from the stored gradient.
    worst = 0.0
    for key, value in init.items():
        g, wd = out["grad." + key], cfg["weight_decay"] if has_weight_decay(key, value) else 0.0
        worst = max(worst, gap(value * (1 - cfg["lr"] * wd) - cfg["lr"] * g / (g.abs() + cfg["eps"]), states[1][0][key]))
    found["first AdamW step, abs"] = worst
    assert worst < 1e-12

    dim = cfg["embed_dim"]
    keys = [out[f"grad.encoder.blocks.{i}.attn.qkv.bias"][dim : 2 * dim] for i in range(cfg["depth"])]
    found["key bias gradient, abs"] = max(k.abs().max().item() for k in keys)
    assert found["key bias gradient, abs"] < 1e-15

    if not cfg["decorrelate"]:
        return found

    # R = I at step 0: the plain gradients.
    total = {k: 0.0 for k in init}
    for micro in range(cfg["micro_batches"]):
        for k, g in gradients(cfg, init, pos, {}, *inputs[0, micro][:2])[1].items():
            total[k] = total[k] + g / cfg["micro_batches"]
    found["step 0 against plain BP, abs"] = max(gap(g, out["grad." + k]) for k, g in total.items())
    assert found["step 0 against plain BP, abs"] < 1e-14

    # The fused path: A = W R, dW = dA R^T.
    fused = dict(params)
    for name, r in R.items():
        weight = params[name + ".weight"]
        fused[name + ".weight"] = (weight.flatten(1) @ r).view_as(weight)
    loss_fused, grad_fused = gradients(cfg, fused, pos, {}, images, noise)
    worst = abs(loss - loss_fused)
    for name, r in R.items():
        worst = max(worst, gap(grad_fused[name + ".weight"].flatten(1) @ r.T, grad[name + ".weight"].flatten(1)))
    found["fused path, abs"] = worst
    assert worst < 1e-13

    # Every step's update of R in loops over scalars, for a patch embedding and two other layers.
    # Its metrics from cosines of the columns of all micro-batches' rows together (n is the same for each).
    worst = worst_metric = 0.0
    for step in range(cfg["steps"]):
        zs = {name: [] for name in R}
        for micro in range(cfg["micro_batches"]):
            images, noise, sampled = inputs[step, micro]
            model = Mae(cfg, states[step][0], pos, states[step][1])
            model.forward(images, noise)
            for name in R:
                zs[name].append(model.rows[name][sampled[len(model.rows[name])]])
        for name in (proj, "encoder.blocks.0.attn.proj", f"encoder.blocks.{cfg['depth'] - 1}.mlp.fc1"):
            worst = max(worst, gap(naive_r_update(states[step][1][name], zs[name], cfg), states[step + 1][1][name]))
            z = np.concatenate(zs[name])
            lengths = np.linalg.norm(z, axis=0)
            pairs = [(i, j, z[:, i] @ z[:, j]) for i in range(len(z.T)) for j in range(len(z.T)) if i != j]
            decor_loss = sum((dot / len(z)) ** 2 for _, _, dot in pairs) / len(z.T) ** 2
            corr = np.mean([abs(dot) / (lengths[i] * lengths[j]) for i, j, dot in pairs])
            metrics = (decor_loss, out[f"decor_loss.{step}.{name}"]), (corr, out[f"corr.{step}.{name}"])
            worst_metric = max(worst_metric, *(gap(a, b) for a, b in metrics))
    found["decor_loss and corr from cosines, abs"] = worst_metric
    assert worst_metric < 1e-14
    found["R update in loops, abs"] = worst
    assert worst < 1e-14
    found["largest |R - I| at the end"] = max(gap(r, torch.eye(len(r))) for r in states[-1][1].values())
    assert found["largest |R - I| at the end"] > 1e-3
    return found


# ---- Files ------------------------------------------------------------------------------------------------------------


def exact_float32(value):
    assert torch.equal(value.float().double(), value)
    return value.float()


def prepare(name):
    """(config, initial parameters, positions, inputs) of a case."""
    cfg = CASES[name]
    generator = torch.Generator().manual_seed(cfg["seed"])
    init = draw_parameters(cfg, generator)
    pos = {
        "encoder.pos_embed": sincos_positions(cfg["embed_dim"], *grid_size(cfg)),
        "decoder_pos_embed": sincos_positions(cfg["decoder_embed_dim"], *grid_size(cfg)),
    }
    return cfg, init, pos, draw_inputs(cfg, generator)


def write_case(name):
    cfg, init, pos, inputs = prepare(name)
    out, states = train(cfg, torch.float64, init, pos, inputs)
    print(name)
    for what, value in self_checks(cfg, init, pos, inputs, out, states).items():
        print(f"  {what}: {value:.2g}")

    out |= {f"init.{k}": exact_float32(v) for k, v in init.items()}
    out |= {f"init.{k}": v for k, v in pos.items()}
    for (step, micro), (images, noise, sampled) in inputs.items():
        out[f"images.{step}.{micro}"], out[f"noise.{step}.{micro}"] = exact_float32(images), noise
        out |= {f"rows.{step}.{micro}.{count}": rows for count, rows in sampled.items()}
    low, _ = train(cfg, torch.float32, init, pos, inputs)
    losses = [key for key in low if key.startswith("loss.")]
    out |= {key.replace("loss.", "loss32."): low[key] for key in losses}
    rounding = max(abs(low[key].item() / out[key].item() - 1) for key in losses)
    print("  losses:", " ".join(f"{out[key].item():.6f}" for key in losses), f"  float32 differs by {rounding:.2g} relative")
    assert rounding < 1e-4
    assert all(value.isfinite().all() for value in out.values())
    described = dict(cfg, layers=list(decorrelated_layers(cfg)))
    save(name, out, described)
    if name == "mae_dbp":
        features = Mae(cfg, init, pos, {}).encode(inputs[0, 0][0])
        save("encoder_full", {"features": features}, described)


def save(name, tensors, config):
    path = HERE / f"{name}.safetensors"
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, path, metadata={"config": json.dumps(config)})
    path.chmod(0o644)
    print(f"  {path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        write_case(case)
    total_size = sum(path.stat().st_size for path in HERE.glob("*.safetensors") if not path.name.startswith("decor_"))
    print(f"together {total_size / 1000:.0f} kB")
    assert total_size < 600_000
