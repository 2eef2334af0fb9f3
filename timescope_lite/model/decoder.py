"""A small decoder in the manner of Qwen3: RMSNorm, normalised queries and keys, rotary positions,
SwiGLU. It implements `backbone.Backbone`.

In: tokens of frames or of text, (B, N, C). Out: keys and values per layer, or hidden states.

Two additions, off in `DecoderConfig.plain`: only a fraction of each head is rotated (content can
then be matched at any distance), and a learned bias per head on text-to-text attention. Half of the
heads begin as text heads (without a bias hundreds of video keys drown ten text keys), half as
memory heads, which see the video only. And a block starts as a lookup: what resembles a token is
found and copied (`Block.start_as_lookup`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timescope_lite.memory.hvr import LayerKV, downsample, group_positions, join
from timescope_lite.model.attention import (
    TextMasks,
    attend,
    attend_past,
    attend_segments,
    attend_text,
    text_mask,
    visible,
)
from timescope_lite.model.backbone import SegmentTokens, TextCache


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
    # A rotated pair needs two numbers: `half` pairs, and the rest of the head stays as it is.
    half = int(x.shape[-1] * fraction) // 2
    if half == 0:
        return x
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    # Angles in fp32 whatever x is: at second 8,000 bf16 would be off by whole turns.
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
        # The first half of the heads are text heads, the others begin deaf to text (module head).
        half = config.heads // 2
        self.text_bias = nn.Parameter(
            torch.tensor([config.text_bias] * half + [config.memory_bias] * (config.heads - half))
        )
        # A normalised query of gain 1 spreads over hundreds of keys; with 3 one can stand out.
        nn.init.constant_(self.q_norm.weight, config.query_gain)
        # The MLP starts nearly silent, so that what attention copies arrives unchanged.
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
        sizes = [c.heads * c.head_width, rows, rows]
        # Views of the one matrix, head by head: (heads, D, C).
        q, k, v = (part.view(-1, c.head_width, c.width) for part in self.qkv.weight.split(sizes))
        memory_heads = list(range(c.heads // 2, c.heads))
        their_keys = [head // group for head in memory_heads]
        k[their_keys] = _orthogonal(rows, c.width).view_as(k)[their_keys]
        q[memory_heads] = k[their_keys]
        v.copy_(_orthogonal(rows, c.width).view_as(v))
        self.out.weight.copy_(v.repeat_interleave(group, dim=0).flatten(0, 1).T / group)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, C) -> q (B, H, N, D), k and v (B, H_kv, N, D), normalised, not yet rotated."""
        c = self.config
        B, N, _ = x.shape
        heads = self.qkv(self.norm1(x)).view(B, N, -1, c.head_width).transpose(1, 2)
        q, k, v = heads.split([c.heads, c.kv_heads, c.kv_heads], dim=1)
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Queries or keys (B, H, N, D) at positions (..., N)."""
        return rotate(x, positions, self.config.rope_base, self.config.rope_fraction)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add what attention brought, attended (B, H, N, D), then the MLP. Returns x (B, N, C)."""
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """The block on its own, as a plain causal layer: x (B, N, C) at positions (N,)."""
        q, k, v = self.project(x)
        keys = self.share_heads(LayerKV(self.rotate(k, positions), v))
        return self.finish(x, attend(self.rotate(q, positions), keys, causal=True))

    def share_heads(self, kv: LayerKV) -> LayerKV:
        """Repeat each key/value head for the query heads that share it."""
        group = self.config.heads // self.config.kv_heads
        if group == 1:
            return kv
        return LayerKV(kv.k.repeat_interleave(group, dim=1), kv.v.repeat_interleave(group, dim=1))


def _orthogonal(rows: int, columns: int) -> Tensor:
    """A random map whose rows, or columns where there are fewer of them, are orthonormal."""
    return nn.init.orthogonal_(torch.empty(rows, columns))


@dataclass
class Encoded:
    """A batch of whole videos: per layer the dense and the pooled keys and values,
    (B, H_kv, F*K, D) and (B, H_kv, F*K/r, D).
    """

    dense: list[LayerKV]
    pooled: list[LayerKV]
    r: int
    num_frames: int

    def both(self) -> list[LayerKV]:
        """[pooled ; dense] per layer; a mask then chooses per question what it may see."""
        return [join([p, d]) for p, d in zip(self.pooled, self.dense, strict=True)]


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
            x = block(x, positions)
        return self.norm(x)

    def rotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys (B, H_kv, N, D) put at positions (N,), in frames."""
        return rotate(keys, positions, self.config.rope_base, self.config.rope_fraction)

    def unrotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys taken back from positions (N,): the inverse of `rotate`, to fp32 rounding. What is
        unrotated may be pooled again.
        """
        return self.rotate(keys, -positions)

    # --- the video --------------------------------------------------------------------------------

    def encode_segment(
        self, segment: SegmentTokens, past: Sequence[LayerKV]
    ) -> tuple[list[LayerKV], list[LayerKV]]:
        """Read one segment of a stream, causally and over `past`, the HVR of earlier segments
        ([]: none). Returns its dense and pooled keys and values, per layer (1, H_kv, N, D).
        """
        x, positions = segment.x, segment.positions
        dense, pooled = [], []
        # Every layer has a past of its own: the HVR of layer i is read by layer i.
        for layer_idx, block in enumerate(self.layers):
            q, k, v = block.project(x)
            own = LayerKV(block.rotate(k, positions), v)
            dense.append(own)
            pooled.append(self._pool(block, k, v, segment))
            if layer_idx == len(self.layers) - 1:
                break  # the video itself writes nothing: text needs these keys and values only
            earlier = block.share_heads(past[layer_idx]) if past else None
            attended = attend_past(block.rotate(q, positions), block.share_heads(own), earlier)
            x = block.finish(x, attended)
        return dense, pooled

    def encode(self, video: SegmentTokens, segments: int, history: bool = True) -> Encoded:
        """Read whole videos at once, x (B, F*K, C) in so many segments: what a stream of
        `encode_segment` gives, to rounding. r = 1 is plain causal attention.

        Without `history` every segment reads itself only.
        """
        x, positions = video.x, video.positions
        dense, pooled = [], []
        # At r = 1 the past is not compressed, and all of it is plain causal attention.
        plain = segments == 1 or (video.r == 1 and history)
        for layer_idx, block in enumerate(self.layers):
            q, k, v = block.project(x)
            own = LayerKV(block.rotate(k, positions), v)
            dense.append(own)
            pooled.append(self._pool(block, k, v, video))
            if layer_idx == len(self.layers) - 1:
                break
            q, own = block.rotate(q, positions), block.share_heads(own)
            if plain:
                attended = attend(q, own, causal=True)
            else:
                earlier = block.share_heads(pooled[-1])
                attended = attend_segments(q, own, earlier, segments, history)
            x = block.finish(x, attended)
        num_frames = len(positions) // video.tokens_per_frame
        return Encoded(dense, pooled, video.r, num_frames)

    @staticmethod
    def _pool(block: Block, k: Tensor, v: Tensor, tokens: SegmentTokens) -> LayerKV:
        """HVR of some tokens: averaged before they are rotated, then put at their centres."""
        r, K = tokens.r, tokens.tokens_per_frame
        centres = group_positions(tokens.positions, r, K)
        return LayerKV(block.rotate(downsample(k, r, K), centres), downsample(v, r, K))

    # --- text over a memory -----------------------------------------------------------------------

    def read(
        self,
        x: Tensor,
        valid: Tensor,
        memory: Sequence[LayerKV],
        first_position: int,
        mask: Tensor | None = None,
        cache: TextCache | None = None,
    ) -> tuple[Tensor, TextCache]:
        """Read text x (B, Q, T, C) over a memory that the Q questions share; tokens that are not
        `valid` (B, Q, T) are skipped.

        Positions go on from `first_position`, the frames of the video. `mask` (B, Q, N) bool says
        which keys of the memory each question may see (None: all). With `cache` the tokens
        continue what was read before. Returns hidden states (B, Q, T, C) and the grown cache.
        """
        B, Q, T, _ = x.shape
        before: Tensor | int = 0
        all_valid = valid
        if cache is not None:
            before = cache.valid.sum(-1, keepdim=True)
            all_valid = torch.cat([cache.valid, valid], dim=-1)
        # Padding stands where the token before it stands: it is never seen.
        positions = (first_position + before + valid.cumsum(-1) - 1).flatten(1)[:, None]
        masks = TextMasks(_memory_mask(mask, T, x.dtype), text_mask(all_valid, T))
        x = x.flatten(1, 2)
        layers = []
        for layer_idx, block in enumerate(self.layers):
            q, k, v = block.project(x)
            k = block.rotate(k, positions).unflatten(2, (Q, T))
            own = LayerKV(k, v.unflatten(2, (Q, T)))
            if cache is not None:
                old = cache.layers[layer_idx]
                own = LayerKV(torch.cat([old.k, own.k], dim=3), torch.cat([old.v, own.v], dim=3))
            layers.append(own)
            # Keys of the memory are rotated already; only the text is new here.
            attended = attend_text(
                block.rotate(q, positions),
                block.share_heads(memory[layer_idx]),
                block.share_heads(own),
                masks,
                block.text_bias,
            )
            x = block.finish(x, attended)
        return self.norm(x).unflatten(1, (Q, T)), TextCache(layers, all_valid)


def _memory_mask(mask: Tensor | None, T: int, dtype: torch.dtype) -> Tensor | None:
    """A mask per question (B, Q, N) as an additive one per token (B, 1, Q*T, N)."""
    if mask is None:
        return None
    return visible(mask, dtype).repeat_interleave(T, dim=1)[:, None]
