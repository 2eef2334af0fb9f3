"""A small decoder in the manner of Qwen3: RMSNorm, normalised queries and keys, rotary positions,
SwiGLU.

Two additions, off in `DecoderConfig.plain`: only a fraction of each head is rotated (content can
then be matched at any distance), and a learned bias per head on text-to-text attention. Half of the
heads begin as text heads (without a bias hundreds of video keys drown ten text keys), half as
memory heads, which see the video only. And a block starts as a lookup: what resembles a token is
found and copied (`Block.start_as_lookup`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MASKED = -1e4  # finite, so that a row without any visible key stays finite in bf16


class LayerKV(NamedTuple):
    """Keys (rotated) and values of one layer, each (B, H_kv, N, D)."""

    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the decoder. `heads` query heads share `kv_heads` key/value heads (grouped-query
    attention).
    """

    width: int = 128
    layers: int = 4
    heads: int = 2
    kv_heads: int = 2
    head_width: int = 64
    mlp_width: int = 336
    rope_base: float = 1000.0
    rope_fraction: float = 0.25
    query_gain: float = 3.0
    text_bias: float = 4.0
    memory_bias: float = -30.0
    norm_eps: float = 1e-6

    def plain(self) -> DecoderConfig:
        """The same sizes as a plain causal Qwen3: full rotary, no text bias."""
        return replace(self, rope_fraction=1.0, query_gain=1.0, text_bias=0.0, memory_bias=0.0)


def rotate(x: Tensor, positions: Tensor, base: float, fraction: float) -> Tensor:
    """Rotary positions on the first `fraction` of the head. x (..., N, D), positions (..., N)
    broadcast over heads by the caller.
    """
    half = int(x.shape[-1] * fraction) // 2
    if half == 0:
        return x
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = positions[..., None].float() * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


class RMSNorm(nn.RMSNorm):
    """Root-mean-square norm whose gain follows the dtype of its input, so that mixed precision
    keeps the fused kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> the same shape and dtype."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class Block(nn.Module):
    """One layer: attention is done by the caller, who knows what may be seen; the block owns the
    weights.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        C, D = config.width, config.head_width
        self.config = config
        self.norm1 = RMSNorm(C, eps=config.norm_eps)
        self.norm2 = RMSNorm(C, eps=config.norm_eps)
        self.qkv = nn.Linear(C, (config.heads + 2 * config.kv_heads) * D, bias=False)
        self.q_norm = RMSNorm(D, eps=config.norm_eps)
        self.k_norm = RMSNorm(D, eps=config.norm_eps)
        self.out = nn.Linear(config.heads * D, C, bias=False)
        self.gate_up = nn.Linear(C, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, C, bias=False)
        half = config.heads // 2
        self.text_bias = nn.Parameter(
            torch.tensor([config.text_bias] * half + [config.memory_bias] * (config.heads - half))
        )
        nn.init.constant_(self.q_norm.weight, config.query_gain)
        nn.init.normal_(self.down.weight, std=0.003)
        self.start_as_lookup()

    @torch.no_grad()
    def start_as_lookup(self) -> None:
        """Memory heads start with equal maps for queries and keys, so a token looks up what
        resembles it; all heads copy what they attend to unchanged.

        Looking up and copying is what grounding is made of, and a random start takes thousands of
        steps to find it (docs/LOG.md). After the mimetic initialisation of Trockman and Kolter
        (arXiv 2305.09828), whose copies have the other sign.
        """
        c = self.config
        group, rows = c.heads // c.kv_heads, c.kv_heads * c.head_width
        q, k, v = (
            w.view(-1, c.head_width, c.width)
            for w in self.qkv.weight.split([c.heads * c.head_width, rows, rows])
        )
        memory = range(c.heads // 2, c.heads)
        k[[h // group for h in memory]] = _orthogonal(rows, c.width).view_as(k)[
            [h // group for h in memory]
        ]
        q[list(memory)] = k[[h // group for h in memory]]
        v.copy_(_orthogonal(rows, c.width).view_as(v))
        self.out.weight.copy_(v.repeat_interleave(group, dim=0).flatten(0, 1).T / group)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, C) -> q (B, H, N, D), k and v (B, H_kv, N, D), normalised, not yet rotated."""
        c = self.config
        B, N, _ = x.shape
        q, k, v = (
            self.qkv(self.norm1(x))
            .view(B, N, -1, c.head_width)
            .transpose(1, 2)
            .split([c.heads, c.kv_heads, c.kv_heads], dim=1)
        )
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return rotate(x, positions, self.config.rope_base, self.config.rope_fraction)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what attention brought, attended (B, H, N, D), then the MLP. Returns x (B, N, C)."""
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def share_heads(self, kv: LayerKV) -> LayerKV:
        """Repeat each key/value head for the query heads that share it."""
        groups = self.config.heads // self.config.kv_heads
        return (
            kv
            if groups == 1
            else LayerKV(
                kv.k.repeat_interleave(groups, dim=1), kv.v.repeat_interleave(groups, dim=1)
            )
        )


def _orthogonal(rows: int, columns: int) -> Tensor:
    """A random map whose rows, or columns where there are fewer of them, are orthonormal."""
    return nn.init.orthogonal_(torch.empty(rows, columns))


def attend(q: Tensor, kv: LayerKV, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention, (B, H, N, D) over (B, H, M, D). `mask` is additive and
    broadcasts to (B, H, N, M).
    """
    return F.scaled_dot_product_attention(q, kv.k, kv.v, attn_mask=mask, is_causal=causal)


def visible(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask, 0 where `allowed`, else a large negative number (bool masks are added as
    0/1 by some kernels).
    """
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, MASKED
    )


class Decoder(nn.Module):
    """The stack of blocks and the last norm. `forward` is the plain causal mode, which equals
    transformers' Qwen3.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.norm = RMSNorm(config.width, eps=config.norm_eps)

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Plain causal attention over x (B, N, C), positions 0..N-1. Returns normalised hidden
        states (B, N, C).
        """
        positions = torch.arange(x.shape[1], device=x.device)
        for block in self.layers:
            q, k, v = block.project(x)
            kv = block.share_heads(LayerKV(block.rotate(k, positions), v))
            x = block.finish(x, attend(block.rotate(q, positions), kv, causal=True))
        return self.norm(x)
