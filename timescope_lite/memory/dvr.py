"""DVR, the detailed memory: dense keys and values, kept away from the device until wanted.

(TimeScope section 3: the dense cache is offloaded while streaming, and the segments that overlap
the coarse window are reloaded.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from timescope_lite.common import UserError
from timescope_lite.memory.hvr import LayerKV, join

TIERS = ("device", "host")


class DVRStore:
    """Dense keys and values, segment by segment, on the `device` or offloaded to the `host`.

    What comes back is what went in, bit for bit. UserError for an unknown tier.
    """

    def __init__(self, tier: str, device: torch.device) -> None:
        if tier not in TIERS:
            raise UserError(f"unknown DVR tier {tier!r}: expected one of {', '.join(TIERS)}")
        self.tier = tier
        self.device = device
        self._segments: list[list[LayerKV]] = []

    def put(self, layers: Sequence[LayerKV]) -> None:
        """Store the next segment's layers, each (B, H_kv, S*K, D)."""
        target = self.device if self.tier == "device" else torch.device("cpu")
        # clone: a view would keep the whole activation of the segment alive.
        self._segments.append(
            [
                LayerKV(layer.k.detach().to(target).clone(), layer.v.detach().to(target).clone())
                for layer in layers
            ]
        )

    def reload(self, first_idx: int, last_idx: int) -> list[LayerKV]:
        """Segments first..last (ends included), joined in time, on the device, per layer.

        UserError if the window lies outside the video.
        """
        if not 0 <= first_idx <= last_idx < len(self._segments):
            raise UserError(
                f"window of segments {first_idx}..{last_idx} is not inside the video's "
                f"0..{len(self._segments) - 1}"
            )
        chosen = self._segments[first_idx : last_idx + 1]
        num_layers = len(chosen[0])
        # Stored by segment, as it was streamed; read by layer, as a decoder attends.
        layers = []
        for layer_idx in range(num_layers):
            parts = [self._on_device(segment[layer_idx]) for segment in chosen]
            layers.append(join(parts))
        return layers

    def _on_device(self, layer: LayerKV) -> LayerKV:
        return LayerKV(layer.k.to(self.device), layer.v.to(self.device))

    def __len__(self) -> int:
        """Number of segments."""
        return len(self._segments)

    @property
    def num_bytes(self) -> int:
        """Bytes of everything stored, on whichever tier."""
        return sum(
            tensor.nbytes for segment in self._segments for layer in segment for tensor in layer
        )
