"""A masked autoencoder in plain PyTorch, written for speed: what the host is measured against.

Sources: He et al. 2022, arXiv:2111.06377, on a ViT (Dosovitskiy et al. 2021, arXiv:2010.11929); names and shapes are those of
`src/nn`, so that weights travel, but for the patch embedding, a linear map of flattened patches here.

What the MAE release and timm do not do: only visible patches are embedded, the decoder's norm and head see removed patches
only, patches are cut out once for input and target. Attention is `scaled_dot_product_attention`, LayerNorm has eps 1e-6,
GELU is exact.

Letters: N images, L patches of each, K kept ones, D width, P = p²·C pixels of a patch.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from decor import DecorLinear

# Width, depth, heads; the same of the decoder. `stdlib/mae.rhai` has the recipes.
SIZES = {
    "nano": dict(image_size=64, patch_size=8, embed_dim=128, depth=4, num_heads=4,
                 decoder_embed_dim=64, decoder_num_heads=4),
    "tiny": dict(image_size=64, patch_size=8, embed_dim=192, depth=12, num_heads=3,
                 decoder_embed_dim=96, decoder_num_heads=3),
    "small": dict(image_size=224, patch_size=16, embed_dim=384, depth=12, num_heads=6,
                  decoder_embed_dim=256, decoder_num_heads=8),
    "base": dict(image_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12,
                 decoder_embed_dim=512, decoder_num_heads=16),
}
DECODER_DEPTH = 2
MLP_RATIO = 4
MASK_RATIO = 0.75
CHANNELS = 3


class Linear(nn.Linear):
    """A plain layer in the place of a decorrelated one: it samples nothing."""

    def forward(self, x, rows):
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    def __init__(self, width, heads, linear):
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width)
        self.proj = linear(width, width)

    def forward(self, x, rows):
        n, tokens, width = x.shape
        qkv = self.qkv(x, rows).view(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # Each [N, heads, tokens, head_dim].
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(n, tokens, width), rows)


class Mlp(nn.Module):
    def __init__(self, width, linear):
        super().__init__()
        self.fc1 = linear(width, MLP_RATIO * width)
        self.fc2 = linear(MLP_RATIO * width, width)

    def forward(self, x, rows):
        return self.fc2(F.gelu(self.fc1(x, rows)), rows)


class Block(nn.Module):
    def __init__(self, width, heads, linear):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, linear)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, linear)

    def forward(self, x, rows):
        x = x + self.attn(self.norm1(x), rows)
        return x + self.mlp(self.norm2(x), rows)


class PatchEmbed(nn.Module):
    def __init__(self, pixels, width, linear):
        super().__init__()
        self.proj = linear(pixels, width)


class Encoder(nn.Module):
    def __init__(self, tokens_across, pixels, width, depth, heads, linear):
        super().__init__()
        self.patch_embed = PatchEmbed(pixels, width, linear)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer("pos_embed", sin_cos(width, tokens_across))
        self.blocks = nn.ModuleList(Block(width, heads, linear) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, patches, ids_keep, patch_rows, token_rows):
        """`patches [N, K, P]` → `[N, 1 + K, D]`"""
        n = len(patches)
        positions = self.pos_embed[0, 1:][ids_keep]
        x = self.patch_embed.proj(patches, patch_rows) + positions
        x = torch.cat([self.cls_token.expand(n, -1, -1), x], dim=1)  # The class token's position is zero.
        for block in self.blocks:
            x = block(x, token_rows)
        return self.norm(x)


class Mae(nn.Module):
    """The loss of a batch. With `decorrelate` every linear map of the encoder has an R."""

    def __init__(self, size, decorrelate=False):
        super().__init__()
        shape = SIZES[size]
        across, d = shape["image_size"] // shape["patch_size"], shape["decoder_embed_dim"]
        self.image_size, self.patch_size = shape["image_size"], shape["patch_size"]
        self.tokens, self.kept = across**2, int(across**2 * (1 - MASK_RATIO))
        pixels = CHANNELS * self.patch_size**2
        encoder_linear = DecorLinear if decorrelate else Linear
        self.encoder = Encoder(across, pixels, shape["embed_dim"], shape["depth"], shape["num_heads"], encoder_linear)
        self.decoder_embed = nn.Linear(shape["embed_dim"], d)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, d))
        self.register_buffer("decoder_pos_embed", sin_cos(d, across))
        blocks = (Block(d, shape["decoder_num_heads"], Linear) for _ in range(DECODER_DEPTH))
        self.decoder_blocks = nn.ModuleList(blocks)
        self.decoder_norm = nn.LayerNorm(d, eps=1e-6)
        self.decoder_pred = nn.Linear(d, pixels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, images, noise, patch_rows=None, token_rows=None):
        """`images [N, C, H, W]`, `noise [N, L]`; the sampled rows of `N·K` patches and of `N·(1 + K)` tokens"""
        order = noise.argsort(dim=1)
        ids_keep, ids_removed = order[:, : self.kept], order[:, self.kept :]
        patches = self.patchify(images)
        latent = self.encoder(take(patches, ids_keep), ids_keep, patch_rows, token_rows)
        x = self.decode(self.decoder_embed(latent), order)
        predicted = self.decoder_pred(self.decoder_norm(x[:, 1 + self.kept :]))
        return F.mse_loss(predicted.float(), take(patches, ids_removed))

    def decode(self, x, order):
        """`[N, 1 + K, D']` → `[N, 1 + L, D']`, patches in the order (kept, removed): only positions are gathered"""
        removed = self.mask_token.to(x.dtype).expand(len(x), self.tokens - self.kept, -1)
        positions = self.decoder_pos_embed[0, 1:].index_select(0, order.flatten()).view(len(x), self.tokens, -1)
        positions = torch.cat([self.decoder_pos_embed[:, :1].expand(len(x), -1, -1), positions], dim=1)
        x = torch.cat([x, removed], dim=1) + positions
        for block in self.decoder_blocks:
            x = block(x, None)
        return x

    def patchify(self, images):
        """`[N, C, H, W]` → `[N, L, P]`, pixels as (row, column, channel)"""
        n, p = len(images), self.patch_size
        across = self.image_size // p
        cut = images.view(n, CHANNELS, across, p, across, p).permute(0, 2, 4, 3, 5, 1)
        return cut.reshape(n, self.tokens, p * p * CHANNELS)

    def decorrelated(self):
        return [module for module in self.modules() if isinstance(module, DecorLinear)]


def take(tokens, ids):
    """`tokens [N, T, D]`, `ids [N, S]` → `[N, S, D]`"""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def sin_cos(width, across):
    """Fixed positions of a square grid, `[1, 1 + L, width]`: columns, then rows, each sines and cosines; the class token has 0."""
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    place = torch.arange(across, dtype=torch.float64)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    angles = [at.flatten()[:, None] * frequency for at in (columns, rows)]
    patches = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, width), patches.float()])[None]
