"""The diffusion transformer (Peebles & Xie 2023) and the patch of DMP (arXiv 2405.17825), in PyTorch.

Letters in shapes: B images, T tokens (as many as prompts), D width, H heads, L blocks.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

TIMESTEP_FEATURES = 256
MAX_PERIOD = 10_000.0


def frequencies() -> torch.Tensor:
    """Angular frequencies of the timestep features, [128]: 10000^(-i / 128)."""
    half = TIMESTEP_FEATURES // 2
    return torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float32) / half)


class Conditioning(nn.Module):
    """c = MLP(features of t) + embedding of the label, [B, D]."""

    def __init__(self, width: int, label_rows: int):
        super().__init__()
        self.register_buffer("frequencies", frequencies(), persistent=False)
        self.first, self.second = nn.Linear(TIMESTEP_FEATURES, width), nn.Linear(width, width)
        self.labels = nn.Embedding(label_rows, width)

    def forward(self, t, labels):
        angles = t.float()[:, None] * self.frequencies
        features = torch.cat([angles.cos(), angles.sin()], dim=1)
        return self.second(F.silu(self.first(features))) + self.labels(labels)


class Attention(nn.Module):
    """Multi-head self-attention, [B, T, D] -> [B, T, D]; with `sdpa` by PyTorch's fused operator."""

    def __init__(self, width: int, heads: int, sdpa: bool):
        super().__init__()
        self.heads, self.sdpa = heads, sdpa
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.sdpa:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = ((q @ k.transpose(2, 3)) * (d // self.heads) ** -0.5).softmax(3) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, t, d))


def modulate(x, shift, scale):
    return x * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by c (adaLN-Zero)."""

    def __init__(self, width: int, heads: int, sdpa: bool):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, heads, sdpa)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x, c):
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(F.silu(c)).chunk(6, dim=1)
        x = x + gate_1[:, None] * self.attention(modulate(self.norm_1(x), shift_1, scale_1))
        hidden = F.gelu(self.widen(modulate(self.norm_2(x), shift_2, scale_2)), approximate="tanh")
        return x + gate_2[:, None] * self.narrow(hidden)


class Patch(nn.Module):
    """Prompts [L, T, D] and the linear gate that all blocks share, with the noise that the released code trains with.

    Block i receives softmax(W [c; i] + b + noise) * prompt_i, one weight per token; the noise's deviation is
    softplus(c W_noise) + 0.01.
    """

    def __init__(self, depth: int, tokens: int, width: int):
        super().__init__()
        self.prompts = nn.Parameter(torch.zeros(depth, tokens, width))
        self.gate = nn.Linear(width + 1, tokens)
        self.noise = nn.Parameter(torch.zeros(width, tokens))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def weights(self, c, block: int):
        """The gate of one block, [B, T], computed on its own as the released code does."""
        index = torch.full_like(c[:, :1], block)
        logits = self.gate(torch.cat([c, index], dim=1))
        if self.training:
            deviation = F.softplus(c @ self.noise) + 1e-2
            logits = logits + torch.randn_like(logits) * deviation
        return logits.softmax(dim=1)

    def all_weights(self, c):
        """The gates of all blocks in one product, [L, B, T]: blocks differ by a multiple of one column only."""
        shared = F.linear(c, self.gate.weight[:, :-1], self.gate.bias)
        index = torch.arange(len(self.prompts), device=c.device, dtype=c.dtype)
        logits = shared[None] + index[:, None, None] * self.gate.weight[:, -1]
        if self.training:
            deviation = F.softplus(c @ self.noise) + 1e-2
            logits = logits + torch.randn_like(logits) * deviation
        return logits.softmax(dim=2)


class Dit(nn.Module):
    """Images [B, C, S, S] to noise and variance [B, 2 C, S, S]; `patch` may be None.

    `fused_gate` computes the gates of all blocks at once.
    """

    def __init__(self, shape, patched: bool, fused_gate: bool, sdpa: bool):
        super().__init__()
        d, p, c = shape.hidden, shape.patch, shape.channels
        self.shape, self.fused_gate = shape, fused_gate
        self.embed = nn.Conv2d(c, d, kernel_size=p, stride=p)
        self.register_buffer("positions", torch.randn(1, shape.tokens, d) * 0.5)
        self.condition = Conditioning(d, shape.label_rows)
        self.blocks = nn.ModuleList(Block(d, shape.heads, sdpa) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(d, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(d, 2 * d)
        self.last = nn.Linear(d, p * p * 2 * c)
        self.patch = Patch(shape.depth, shape.tokens, d) if patched else None

    def forward(self, x, t, labels):
        """The prediction and the gates [L, B, T] (None without a patch)."""
        c = self.condition(t, labels)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        gates = None
        if self.patch is not None:
            gates = self.patch.all_weights(c) if self.fused_gate else []
        for i, block in enumerate(self.blocks):
            if self.patch is not None:
                if not self.fused_gate:
                    gates.append(self.patch.weights(c, i))
                x = x + gates[i][:, :, None] * self.patch.prompts[i]
            x = block(x, c)
        shift, scale = self.modulation(F.silu(c)).chunk(2, dim=1)
        out = self.unpatchify(self.last(modulate(self.norm(x), shift, scale)))
        return out, torch.stack(gates) if isinstance(gates, list) else gates

    def unpatchify(self, x):
        s = self.shape
        side = s.image_size // s.patch
        x = x.view(len(x), side, side, s.patch, s.patch, 2 * s.channels).permute(0, 5, 1, 3, 2, 4)
        return x.reshape(len(x), 2 * s.channels, s.image_size, s.image_size)
