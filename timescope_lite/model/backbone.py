"""What the memory asks of a decoder, and nothing more: the contract that ours and others keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from timescope_lite.memory.hvr import LayerKV


@dataclass(frozen=True)
class SegmentTokens:
    """Tokens of one segment, ready for a decoder: x (1, S*K, C) at `positions` (S*K,), in frames.

    K tokens a frame, `r` frames a group of the HVR.
    """

    x: Tensor
    positions: Tensor
    tokens_per_frame: int
    r: int


@dataclass
class TextCache:
    """Keys and values of text already read, per layer (B, H_kv, Q, T, D), and which of it is not
    padding (B, Q, T).
    """

    layers: list[LayerKV]
    valid: Tensor


class Backbone(Protocol):
    """A decoder whose keys and values can be kept as HVR and DVR."""

    def encode_segment(
        self, segment: SegmentTokens, past: Sequence[LayerKV]
    ) -> tuple[list[LayerKV], list[LayerKV]]:
        """Read one segment, causally and over `past`, the HVR of earlier segments per layer ([] if
        there are none). Returns its dense and its pooled keys and values, per layer.
        """
        ...

    def read(
        self,
        x: Tensor,
        valid: Tensor,
        memory: Sequence[LayerKV],
        first_position: int,
        mask: Tensor | None = None,
        cache: TextCache | None = None,
    ) -> tuple[Tensor, TextCache]:
        """Read text x (B, Q, T, C), where `valid` (B, Q, T), over a memory; see `Decoder.read`."""
        ...

    def rotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys (B, H_kv, N, D) put at positions (N,)."""
        ...

    def unrotate(self, keys: Tensor, positions: Tensor) -> Tensor:
        """The inverse: what may be pooled again."""
        ...
