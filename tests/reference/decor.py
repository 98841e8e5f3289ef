"""Reference values for single decorrelated layers: every form that R can take, over ten steps of training.

Computes, in plain PyTorch and float64, short training runs of one linear map or one convolution, and writes them as
safetensors. The layer inside a whole model is the matter of mae.py.

Sources: Decorrelation: Ahmad et al. 2022; Dalm et al. 2024, arXiv:2405.02385, and arXiv:2510.14657. Low rank: one
step of subspace iteration on the changed R - I. Weight updates: AdamW, Loshchilov and Hutter 2019, arXiv:1711.05101.
Departures: C is taken from the decorrelated z, not from raw x; the variance term scales the rows of R.

Letters: N rows of a micro-batch, d inputs, o outputs, n sampled rows of a step, k blocks of width b = d / k (k = 1:
whole), r rank, eta the decorrelation rate.

    z = x R^T,  y = z W^T + bias              R starts as I and is a constant for autograd; loss = mean (y - target)^2
    E = Z^T Z / n                             over the n rows of all micro-batches together, with the R of the forward
    S = (1 - kappa) C + kappa diag(v - 1)     v = diag(E), C = E - diag(v)
    D = S R                                   project: D <- D (I - u u^T), u = (1/gamma) / |1/gamma|
    R <- R - eta D                            max_norm: rows of R - eta D that are longer than it keep their old value

One step: forward and backward of every micro-batch (losses divided by their number), AdamW, then R, with gamma as AdamW
left it. `gamma` is the weight of the LayerNorm in front of the layer.

Blocks: R is block-diagonal, [k, b, b]; E, S, D and row lengths are taken within blocks.
Low rank: R = I + U V^T, from U = 0 and an orthonormal V [d, r]: M = U V^T - eta D, Q = orth(M V), U <- Q, V <- M^T Q.
Convolution: x is replaced by patches, flattened as (channel, kernel row, kernel column); rows are positions ordered as
(image, output row, output column). Each group of channels has an R of its own on its inputs: [groups, d, d].

Metrics, before R's update: `decor_loss` = sum of C_ij^2 / (k b^2); `corr` = mean over i != j within blocks of
|E_ij| / sqrt(E_ii E_jj), which is not centered.

Quantities with closed forms (each asserted by `self_checks`, or by `relations` where it needs two runs):
  * outputs, from patches gathered and multiplied in loops; every update of R, in loops; metrics, from cosines;
  * with A = W R the fused layer, as F.linear or F.conv2d, has the same outputs, and dW = dA R^T;
  * AdamW's first update is p (1 - lr wd) - lr g / (|g| + eps);
  * four micro-batches end where their rows in one batch do; rank d and one block are the full matrix;
  * R at rank r is I + P M, P the orthogonal projector on the range of M V (here by a pseudo-inverse);
  * a projected update leaves R u as it was; `max_norm` stops some rows and lets others move.

Run: python decor.py    (torch 2.11, numpy, safetensors; writes beside itself)
"""

import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

sys.dont_write_bytecode = True  # No __pycache__ beside the fixtures.
from mae import HERE, exact_float32, gap, save

NORM_EPS = 1e-6

BASE = dict(
    kind="linear", micro_batches=1, steps=10, lr=1e-2, betas=[0.9, 0.95], eps=1e-8, weight_decay=0.05,
    block=0, rank=0, norm=False, project=False, max_norm=0.0, copied_inputs=0,
)
CONV = dict(BASE, kind="conv")
# `batch` is N (images for a convolution), `rows` is n; `block` and `rank` 0 are none.
CASES = {
    "linear_many": dict(BASE, seed=1, batch=24, d=7, o=5, rows=17, kappa=0.0, decor_lr=0.05),  # n > 2 d
    "linear_some": dict(BASE, seed=2, batch=16, d=9, o=4, rows=13, kappa=0.5, decor_lr=0.05),  # d < n < 2 d
    "linear_few": dict(BASE, seed=3, batch=12, d=11, o=10, rows=5, kappa=0.5, decor_lr=0.05),  # n < d
    "conv": dict(
        CONV, seed=4, batch=2, in_channels=2, out_channels=5, image_size=[7, 6], kernel=[3, 2], stride=[2, 2],
        padding=[1, 0], dilation=[1, 1], groups=1, rows=15, kappa=0.0, decor_lr=0.05,
    ),
    # Strides, paddings and dilations differ down and across, so that none passes for another.
    "conv_groups": dict(
        CONV, seed=5, batch=2, in_channels=4, out_channels=6, image_size=[8, 7], kernel=[3, 2], stride=[1, 2],
        padding=[0, 1], dilation=[2, 3], groups=2, rows=9, kappa=0.3, decor_lr=0.05,
    ),
    # 3 sampled rows of each micro-batch are fewer than d, the 12 of a step are more.
    "accumulate": dict(BASE, seed=6, batch=6, micro_batches=4, d=8, o=6, rows=12, kappa=0.2, decor_lr=0.05),
    "accumulate_whole": dict(BASE, seed=6, batch=24, joined=4, d=8, o=6, rows=12, kappa=0.2, decor_lr=0.05),
    "rank_full": dict(BASE, seed=7, batch=15, d=7, o=5, rows=11, kappa=0.3, decor_lr=0.05, rank=7),
    "rank_some": dict(BASE, seed=8, batch=18, d=10, o=4, rows=7, kappa=0.0, decor_lr=0.05, rank=3),
    "block_one": dict(BASE, seed=9, batch=14, d=6, o=7, rows=13, kappa=0.1, decor_lr=0.05, block=6),
    "blocks": dict(BASE, seed=10, batch=16, d=12, o=5, rows=7, kappa=0.4, decor_lr=0.05, block=4),  # b < n < d
    "project": dict(
        BASE, seed=11, batch=16, d=9, o=5, rows=7, kappa=0.2, decor_lr=0.05, norm=True, project=True,
    ),
    # The last three inputs are half the first three: as many directions cannot reach unit variance.
    "max_norm": dict(
        BASE, seed=12, batch=20, d=8, o=5, rows=11, kappa=0.5, decor_lr=0.2, max_norm=1.2, copied_inputs=3,
    ),
}


# ---- Shapes and inputs ------------------------------------------------------------------------------------------------


def output_size(cfg):
    """Positions of a convolution's kernel: (down, across)."""
    sides = zip(*(cfg[key] for key in ("image_size", "kernel", "stride", "padding", "dilation")))
    return tuple((size + 2 * pad - spread * (k - 1) - 1) // stride + 1 for size, k, stride, pad, spread in sides)


def block_shape(cfg):
    """(k, b): how many matrices R consists of, and their width."""
    if cfg["kind"] == "conv":
        return cfg["groups"], cfg["in_channels"] // cfg["groups"] * math.prod(cfg["kernel"])
    width = cfg["block"] or cfg["d"]
    return cfg["d"] // width, width


def parameter_shapes(cfg):
    """Trained parameters in the order in which they are drawn."""
    if cfg["kind"] == "conv":
        weight = (cfg["out_channels"], cfg["in_channels"] // cfg["groups"], *cfg["kernel"])
    else:
        weight = (cfg["o"], cfg["d"])
    shapes = {"layer.weight": weight, "layer.bias": weight[:1]}
    if cfg["norm"]:
        shapes |= {"norm.weight": (cfg["d"],), "norm.bias": (cfg["d"],)}
    return shapes


def draw_parameters(cfg, generator):
    """Every value non-trivial and exact in float32; gamma between 1/2 and 3/2."""
    params = {}
    for name, shape in parameter_shapes(cfg).items():
        if name == "norm.weight":
            value = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 1:
            value = 0.3 * torch.randn(shape, generator=generator)
        else:
            value = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        params[name] = value.double()
    return params


def draw_micro_batch(cfg, generator, mixing, mean):
    """(x, target, sampled rows): inputs correlated and not centered; all exact in float32."""
    batch = cfg["batch"] // cfg.get("joined", 1)
    if cfg["kind"] == "conv":
        (height, width), channels = cfg["image_size"], cfg["in_channels"]
        sides = [(batch, 1, 1, 1), (batch, channels, height, 1), (batch, channels, 1, width)]
        sides.append((batch, channels, height, width))
        x = sum(torch.randn(side, generator=generator) for side in sides) / 2
        down, across = output_size(cfg)
        target = torch.randn(batch, cfg["out_channels"], down, across, generator=generator)
        count = batch * down * across
    else:
        x = torch.randn(batch, cfg["d"], generator=generator) @ mixing + mean
        copied = cfg["copied_inputs"]
        if copied:
            x[:, -copied:] = x[:, :copied] / 2
        target = torch.randn(batch, cfg["o"], generator=generator)
        count = batch
    wanted = cfg["rows"] // cfg["micro_batches"] // cfg.get("joined", 1)
    rows = torch.randperm(count, generator=generator)[:wanted]
    return x.double(), target.double(), rows


def draw_inputs(cfg, generator):
    """{(step, micro): (x, target, rows)}; `joined` micro-batches are drawn one by one and make one batch."""
    width = cfg.get("d", 0)
    mixing = torch.eye(width) + torch.randn(width, width, generator=generator) / math.sqrt(max(width, 1))
    mean = 0.5 * torch.randn(width, generator=generator)
    inputs = {}
    for step in range(cfg["steps"]):
        for micro in range(cfg["micro_batches"]):
            parts = [draw_micro_batch(cfg, generator, mixing, mean) for _ in range(cfg.get("joined", 1))]
            starts = np.cumsum([0] + [len(x) for x, _, _ in parts])
            rows = torch.cat([rows + int(start) for (_, _, rows), start in zip(parts, starts)])
            inputs[step, micro] = torch.cat([x for x, _, _ in parts]), torch.cat([y for _, y, _ in parts]), rows
    return inputs


# ---- Layer ------------------------------------------------------------------------------------------------------------


def layer_rows(cfg, params, x):
    """The layer's inputs, as rows, block by block: [k, N, b]."""
    if cfg["norm"]:
        x = F.layer_norm(x, x.shape[-1:], params["norm.weight"], params["norm.bias"], NORM_EPS)
    if cfg["kind"] == "conv":
        patches = F.unfold(x, cfg["kernel"], cfg["dilation"], cfg["padding"], cfg["stride"])  # [N, C kh kw, positions]
        x = patches.transpose(1, 2).flatten(0, 1)
    k, b = block_shape(cfg)
    return x.reshape(-1, k, b).transpose(0, 1)


def forward(cfg, params, R, x):
    """(y, the layer's input rows [k, N, b])"""
    rows = layer_rows(cfg, params, x)
    z = rows @ R.transpose(1, 2)
    weight, bias = params["layer.weight"].flatten(1), params["layer.bias"]
    if cfg["kind"] == "linear":
        return torch.cat(list(z), dim=1) @ weight.T + bias, rows.detach()
    # A group of outputs sees its own z only.
    outputs = [one @ part.T for one, part in zip(z, weight.chunk(cfg["groups"]))]
    y = torch.cat(outputs, dim=1) + bias
    return y.reshape(len(x), *output_size(cfg), -1).permute(0, 3, 1, 2), rows.detach()


def loss_of(cfg, params, R, x, target):
    return (forward(cfg, params, R, x)[0] - target).square().mean()


# ---- Training ---------------------------------------------------------------------------------------------------------


def moments(R, rows):
    """E of the decorrelated rows [k, n, b]: [k, b, b]."""
    z = rows @ R.transpose(1, 2)
    return z.transpose(1, 2) @ z / rows.shape[1]


def diagonal(E):
    return E.diagonal(dim1=1, dim2=2)


def change(cfg, R, E, gamma):
    """D [k, b, b], what R loses per unit of the rate."""
    v = diagonal(E)
    C = E - torch.diag_embed(v)
    D = ((1 - cfg["kappa"]) * C + cfg["kappa"] * torch.diag_embed(v - 1)) @ R
    if cfg["project"]:
        assert len(R) == 1, "a projection within blocks is not defined here"
        u = (1 / gamma) / (1 / gamma).norm()
        D = D @ (torch.eye(len(u), dtype=u.dtype) - torch.outer(u, u))
    return D


def step_full(cfg, R, D):
    new = R - cfg["decor_lr"] * D
    if cfg["max_norm"] > 0:
        new = torch.where(new.norm(dim=2, keepdim=True) > cfg["max_norm"], R, new)
    return new


def step_low_rank(cfg, U, V, D):
    """U and V [d, r] after a step, M formed densely."""
    M = U @ V.T - cfg["decor_lr"] * D[0]
    Q = torch.linalg.qr(M @ V).Q
    return Q, M.T @ Q


def dense(U, V):
    """[1, d, d]"""
    return (torch.eye(len(U), dtype=U.dtype) + U @ V.T)[None]


def metrics(E):
    """(decor_loss, corr)"""
    k, b = E.shape[:2]
    off = E - torch.diag_embed(diagonal(E))
    length = diagonal(E).sqrt()
    corr = off.abs() / (length[:, :, None] * length[:, None, :])
    return off.square().sum() / (k * b**2), corr.sum() / (k * b * (b - 1))


def stored(R):
    """A single matrix is stored without its block dimension."""
    return R[0] if len(R) == 1 else R


def train(cfg, init, V, inputs):
    """One run; what the fixture holds, and `(params, R, V)` before each step and at the end (V only at low rank)."""
    params = {name: value.clone().requires_grad_() for name, value in init.items()}
    k, b = block_shape(cfg)
    R = torch.eye(b, dtype=torch.float64).repeat(k, 1, 1)
    U = torch.zeros_like(V) if cfg["rank"] else None
    groups = [
        dict(params=[params["layer.weight"]], weight_decay=cfg["weight_decay"]),
        dict(params=[value for name, value in params.items() if name != "layer.weight"], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=cfg["lr"], betas=tuple(cfg["betas"]), eps=cfg["eps"])

    def state():
        return {name: value.detach().clone() for name, value in params.items()}, R.clone(), V

    out, states = {}, [state()]
    for step in range(cfg["steps"]):
        sampled = []
        for micro in range(cfg["micro_batches"]):
            x, target, rows = inputs[step, micro]
            y, seen = forward(cfg, params, R, x)
            loss = (y - target).square().mean()
            (loss / cfg["micro_batches"]).backward()
            out[f"loss.{step}.{micro}"] = loss.detach()
            sampled.append(seen[:, rows])
        if step == 0:
            out |= {f"grad.{name}": value.grad.clone() for name, value in params.items()}
        optimizer.step()
        optimizer.zero_grad()

        E = moments(R, torch.cat(sampled, dim=1))
        out[f"decor_loss.{step}"], out[f"corr.{step}"] = metrics(E)
        D = change(cfg, R, E, params["norm.weight"].detach() if cfg["norm"] else None)
        if cfg["rank"]:
            U, V = step_low_rank(cfg, U, V, D)
            R = dense(U, V)
        else:
            R = step_full(cfg, R, D)
        states.append(state())
        if step in (0, cfg["steps"] - 1):
            out |= {f"after.{step}.{name}": value for name, value in states[-1][0].items()}
            out[f"R.{step}"] = stored(R)
    return out, states


# ---- Checks of the reference against itself ---------------------------------------------------------------------------


def naive_rows(cfg, params, x):
    """`layer_rows` gathered in loops over scalars: a list of rows, each a list of k blocks of b numbers."""
    rows = []
    if cfg["kind"] == "conv":
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (cfg[key] for key in ("kernel", "stride", "padding", "dilation"))
        height, width = cfg["image_size"]
        channels = cfg["in_channels"] // cfg["groups"]
        for image in x.tolist():
            for down in range((height + 2 * ph - dh * (kh - 1) - 1) // sh + 1):
                for across in range((width + 2 * pw - dw * (kw - 1) - 1) // sw + 1):
                    blocks = []
                    for group in range(cfg["groups"]):
                        block = []
                        for channel in range(group * channels, (group + 1) * channels):
                            for i in range(kh):
                                for j in range(kw):
                                    r, c = down * sh - ph + i * dh, across * sw - pw + j * dw
                                    inside = 0 <= r < height and 0 <= c < width
                                    block.append(image[channel][r][c] if inside else 0.0)
                        blocks.append(block)
                    rows.append(blocks)
        return rows
    width = block_shape(cfg)[1]
    for row in x.tolist():
        if cfg["norm"]:
            mean = sum(row) / len(row)
            scale = 1 / math.sqrt(sum((value - mean) ** 2 for value in row) / len(row) + NORM_EPS)
            gamma, beta = params["norm.weight"].tolist(), params["norm.bias"].tolist()
            row = [(value - mean) * scale * g + b for value, g, b in zip(row, gamma, beta)]
        rows.append([row[start : start + width] for start in range(0, len(row), width)])
    return rows


def naive_z(R, rows):
    """Each row's blocks times its matrices, in loops."""
    R = R.tolist()
    return [[[sum(a * b for a, b in zip(line, block)) for line in R[i]] for i, block in enumerate(row)] for row in rows]


def naive_forward(cfg, params, R, x):
    """Outputs as rows: [N, o]."""
    weight, bias = params["layer.weight"].flatten(1).tolist(), params["layer.bias"].tolist()
    per_group = len(weight) // cfg.get("groups", 1)
    outputs = []
    for blocks in naive_z(R, naive_rows(cfg, params, x)):
        whole = sum(blocks, [])
        line = []
        for o, (w, b) in enumerate(zip(weight, bias)):
            seen = blocks[o // per_group] if cfg["kind"] == "conv" else whole
            line.append(sum(p * q for p, q in zip(w, seen)) + b)
        outputs.append(line)
    return torch.tensor(outputs, dtype=torch.float64)


def naive_update(cfg, before, after, inputs, step):
    """(R [k, b, b], decor_loss, corr) after and before one step, in loops; `before`, `after`: states around it."""
    params, R, V = before
    k, b = block_shape(cfg)
    eta, kappa = cfg["decor_lr"], cfg["kappa"]
    z = []
    for micro in range(cfg["micro_batches"]):
        x, _, rows = inputs[step, micro]
        all_z = naive_z(R, naive_rows(cfg, params, x))
        z += [all_z[row] for row in rows.tolist()]
    new, squares, cosines = [], 0.0, []
    for block in range(k):
        columns = list(zip(*(row[block] for row in z)))
        E = [[sum(p * q for p, q in zip(one, other)) / len(z) for other in columns] for one in columns]
        old = R[block].tolist()
        lost = [[0.0] * b for _ in range(b)]
        for i in range(b):
            for m in range(b):
                if i != m:
                    squares += E[i][m] ** 2
                    length = math.sqrt(sum(p * p for p in columns[i])) * math.sqrt(sum(p * p for p in columns[m]))
                    cosines.append(abs(E[i][m] * len(z)) / length)
                S = (1 - kappa) * E[i][m] if i != m else kappa * (E[i][i] - 1)
                for j in range(b):
                    lost[i][j] += S * old[m][j]
        if cfg["project"]:
            inverse = [1 / g for g in after[0]["norm.weight"].tolist()]
            square = sum(value * value for value in inverse)
            for line in lost:
                along = sum(p * q for p, q in zip(line, inverse)) / square
                line[:] = [p - along * q for p, q in zip(line, inverse)]
        if cfg["rank"]:
            M = np.array(old) - np.eye(b) - eta * np.array(lost)
            MV = M @ V.numpy()
            new.append((np.eye(b) + MV @ np.linalg.pinv(MV) @ M).tolist())
            continue
        lines = []
        for i in range(b):
            line = [old[i][j] - eta * lost[i][j] for j in range(b)]
            stops = cfg["max_norm"] > 0 and math.sqrt(sum(value * value for value in line)) > cfg["max_norm"]
            lines.append(old[i] if stops else line)
        new.append(lines)
    figures = new, squares / (k * b * b), sum(cosines) / len(cosines)
    return [torch.tensor(figure, dtype=torch.float64) for figure in figures]


def fused(cfg, params, R, x):
    """The outputs with A = W R in the library's own layer: (y, A)."""
    k, b = block_shape(cfg)
    weight = params["layer.weight"].flatten(1)
    if cfg["kind"] == "conv":
        A = torch.cat([part @ r for part, r in zip(weight.chunk(k), R)]).view_as(params["layer.weight"])
        A = A.detach().requires_grad_()
        shape = [cfg[key] for key in ("stride", "padding", "dilation", "groups")]
        return F.conv2d(x, A, params["layer.bias"], *shape), A
    A = (weight @ torch.block_diag(*R)).detach().requires_grad_()
    if cfg["norm"]:
        x = F.layer_norm(x, x.shape[-1:], params["norm.weight"], params["norm.bias"], NORM_EPS)
    return F.linear(x, A, params["layer.bias"]), A


def gradients(cfg, params, R, x, target):
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    loss_of(cfg, params, R, x, target).backward()
    return {name: value.grad for name, value in params.items()}


def self_checks(cfg, init, V, inputs, out, states):
    """Asserts agreement and answers with the largest differences; `states[s]` is before step s, the last is the end."""
    found = {}

    def check(what, difference, bound):
        found[what] = difference
        assert difference < bound, f"{what}: {difference}"

    # At the state before the last step, where R is far from I.
    params, R, _ = states[-2]
    x, target, _ = inputs[cfg["steps"] - 1, 0]
    y = forward(cfg, params, R, x)[0]
    rows = y if cfg["kind"] == "linear" else y.permute(0, 2, 3, 1).flatten(0, 2)
    check("outputs in loops, abs", gap(naive_forward(cfg, params, R, x), rows), 1e-13)

    grad = gradients(cfg, params, R, x, target)
    fused_y, A = fused(cfg, params, R, x)
    check("fused outputs, abs", gap(fused_y, y), 1e-13)
    (fused_y - target).square().mean().backward()
    if cfg["kind"] == "conv":
        parts = A.grad.flatten(1).chunk(cfg["groups"])
        folded = torch.cat([part @ r.T for part, r in zip(parts, R)])
    else:
        folded = A.grad @ torch.block_diag(*R).T
    check("fused dW, abs", gap(folded, grad["layer.weight"].flatten(1)), 1e-13)

    h, worst = 1e-5, 0.0
    for name, value in params.items():
        for index in {0, value.numel() // 2, value.numel() - 1}:
            side = []
            for sign in (1, -1):
                moved = dict(params, **{name: value.clone()})
                moved[name].view(-1)[index] += sign * h
                side.append(loss_of(cfg, moved, R, x, target).item())
            numeric, exact = (side[0] - side[1]) / (2 * h), grad[name].view(-1)[index].item()
            worst = max(worst, abs(numeric - exact) / grad[name].abs().max().item())
    check("finite differences, rel to max |grad|", worst, 1e-7)

    worst = 0.0
    for name, value in init.items():
        g, decay = out["grad." + name], cfg["weight_decay"] if name == "layer.weight" else 0.0
        first = value * (1 - cfg["lr"] * decay) - cfg["lr"] * g / (g.abs() + cfg["eps"])
        worst = max(worst, gap(first, states[1][0][name]))
        assert g.abs().min() > 1e-7, "a gradient so small that AdamW would magnify its rounding"
    check("first AdamW step, abs", worst, 1e-14)

    worst = worst_metric = 0.0
    for step in range(cfg["steps"]):
        new, decor_loss, corr = naive_update(cfg, states[step], states[step + 1], inputs, step)
        worst = max(worst, gap(new, states[step + 1][1]))
        worst_metric = max(worst_metric, gap(decor_loss, out[f"decor_loss.{step}"]), gap(corr, out[f"corr.{step}"]))
    check("updates of R in loops, abs", worst, 1e-13)
    check("decor_loss and corr in loops, abs", worst_metric, 1e-13)

    moved = [gap(states[step][1], states[step + 1][1]) for step in range(cfg["steps"])]
    found["smallest step of R"] = min(moved)
    found["largest |R - I| at the end"] = gap(states[-1][1], torch.eye(block_shape(cfg)[1]))
    assert min(moved) > 1e-3 and found["largest |R - I| at the end"] > 0.05

    if cfg["project"]:
        worst = 0.0
        for (_, old, _), (params, new, _) in zip(states, states[1:]):
            worst = max(worst, ((new - old)[0] @ (1 / params["norm.weight"])).abs().max().item())
        check("(new R - old R) / gamma, abs", worst, 1e-14)
        free = train(dict(cfg, project=False), init, V, inputs)[1]
        found["what projecting changes in R"] = gap(free[-1][1], states[-1][1])
        assert found["what projecting changes in R"] > 1e-3
        assert gap(states[-1][0]["norm.weight"], init["norm.weight"]) > 1e-2, "gamma is trained along"

    if cfg["max_norm"] > 0:
        lengths = [step_unbound(cfg, states[step], inputs, step).norm(dim=2) for step in range(cfg["steps"])]
        stopped = [int((states[step + 1][1] == states[step][1]).all(dim=2).sum()) for step in range(cfg["steps"])]
        assert stopped == [int((length > cfg["max_norm"]).sum()) for length in lengths]
        found["rows stopped, most in a step"], found["rows stopped, all steps"] = max(stopped), sum(stopped)
        assert 0 < max(stopped) < cfg["d"]
        nearest = min((length - cfg["max_norm"]).abs().min().item() for length in lengths)
        found["nearest that a row's length comes to max_norm"] = nearest
        assert nearest > 1e-5, "a row whose stop hangs on rounding"

    if 0 < cfg["rank"] < cfg["d"]:
        eye, condition = torch.eye(cfg["d"]), 0.0
        for step in range(cfg["steps"]):
            values = torch.linalg.svdvals(states[step + 1][1][0] - eye)
            assert values[cfg["rank"]] < 1e-14 and values[cfg["rank"] - 1] > 1e-3, "R - I has rank r"
            M = step_unbound(cfg, states[step], inputs, step)[0] - eye
            condition = max(condition, torch.linalg.cond(M @ states[step][2]).item())
        found["condition of M V, at most"] = condition
        assert condition < 1e4, "the range of M V hangs on rounding"
    return found


def step_unbound(cfg, state, inputs, step):
    """R - eta D of one step of one micro-batch, without a LayerNorm: [k, b, b]."""
    (params, R, _), (x, _, rows) = state, inputs[step, 0]
    return R - cfg["decor_lr"] * change(cfg, R, moments(R, layer_rows(cfg, params, x)[:, rows]), None)


def difference_of_runs(cfg, other, init, V, inputs):
    """Largest difference between the runs of two configurations on the same data, in all that they store."""
    one, two = train(cfg, init, V, inputs)[0], train(other, init, V, inputs)[0]
    assert one.keys() == two.keys()
    return max(gap(one[key].flatten(), two[key].flatten()) for key in one)


def relations():
    """Cases that must agree with each other, and their largest differences over all ten steps."""
    found = {}
    cfg, init, V, inputs = prepare("rank_full")
    found["rank d against full R"] = difference_of_runs(cfg, dict(cfg, rank=0), init, V, inputs)
    cfg, init, V, inputs = prepare("block_one")
    found["one block against full R"] = difference_of_runs(cfg, dict(cfg, block=0), init, V, inputs)
    cfg, init, _, inputs = prepare("project")
    V = draw_orthonormal(cfg["d"], cfg["d"], torch.Generator().manual_seed(0))
    found["rank d against full R, both projected"] = difference_of_runs(
        dict(cfg, rank=cfg["d"]), dict(cfg, rank=0), init, V, inputs
    )

    cfg, init, _, inputs = prepare("accumulate")
    whole_cfg, whole_init, _, whole_inputs = prepare("accumulate_whole")
    parts, whole = train(cfg, init, None, inputs)[0], train(whole_cfg, whole_init, None, whole_inputs)[0]
    worst = max(gap(init[name], whole_init[name]) for name in init)
    assert worst == 0
    micro_batches = range(cfg["micro_batches"])
    for step in range(cfg["steps"]):
        joined = torch.cat([inputs[step, micro][0] for micro in micro_batches])
        assert torch.equal(joined, whole_inputs[step, 0][0])
        seen = torch.cat([inputs[step, micro][0][inputs[step, micro][2]] for micro in micro_batches])
        assert torch.equal(seen, joined[whole_inputs[step, 0][2]])
        mean = sum(parts[f"loss.{step}.{micro}"] for micro in micro_batches) / len(micro_batches)
        worst = max(worst, gap(mean, whole[f"loss.{step}.0"]))
    rest = [key for key in whole if not key.startswith("loss.")]
    found["four micro-batches against one batch"] = max([worst] + [gap(parts[key], whole[key]) for key in rest])

    assert all(difference < 1e-12 for difference in found.values()), found
    return found


# ---- Files ------------------------------------------------------------------------------------------------------------


def draw_orthonormal(d, rank, generator):
    return torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64)).Q


def prepare(name):
    """(config, initial parameters, initial V or None, inputs) of a case."""
    cfg = CASES[name]
    generator = torch.Generator().manual_seed(cfg["seed"])
    init = draw_parameters(cfg, generator)
    V = draw_orthonormal(cfg["d"], cfg["rank"], generator) if cfg["rank"] else None
    return cfg, init, V, draw_inputs(cfg, generator)


def write_case(name):
    cfg, init, V, inputs = prepare(name)
    out, states = train(cfg, init, V, inputs)
    print(name)
    for what, value in self_checks(cfg, init, V, inputs, out, states).items():
        print(f"  {what}: {value:.2g}")
    print("  losses:", " ".join(f"{out[f'loss.{step}.0'].item():.4f}" for step in range(cfg["steps"])))

    out |= {f"init.{parameter}": exact_float32(value) for parameter, value in init.items()}
    if V is not None:
        out["init.layer.decorrelation_v"] = V
    for (step, micro), (x, target, rows) in inputs.items():
        out[f"x.{step}.{micro}"], out[f"target.{step}.{micro}"] = exact_float32(x), exact_float32(target)
        out[f"rows.{step}.{micro}"] = rows
    assert all(value.isfinite().all() for value in out.values())
    save(f"decor_{name}", out, cfg)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        write_case(case)
    for what, value in relations().items():
        print(f"{what}: {value:.2g}")
    sizes = [path.stat().st_size for path in HERE.glob("decor_*.safetensors")]
    print(f"together {sum(sizes) / 1000:.0f} kB")
    assert max(sizes) <= 60_000 and sum(sizes) <= 400_000
