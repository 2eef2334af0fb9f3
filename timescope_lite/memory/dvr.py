"""DVR, the detailed memory: dense keys and values, kept away from the device until wanted.

(TimeScope section 3: the dense cache is offloaded while streaming, and the segments that overlap
the coarse window are reloaded.)

A segment is stored as one tensor (L, 2, B, H_kv, S*K, D), so that one copy moves it whole: the keys
of one layer are a few kilobytes, and a copy that small is all overhead. Where it may wait:

    device   on the card: nothing to copy, and it fills the card
    host     in ordinary memory: the driver stages every copy, and the program waits for it
    pinned   in page-locked memory: the card copies by itself, beside its computing (`prefetch`)
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from timescope_lite.common import UserError
from timescope_lite.memory.hvr import LayerKV

TIERS = ("device", "host", "pinned")


@dataclass(frozen=True)
class _Ahead:
    """A window on its way to the device; it is there when `arrived` is."""

    window: tuple[int, int]
    layers: Tensor
    arrived: torch.cuda.Event


class DVRStore:
    """Dense keys and values, segment by segment, on the `device`, or offloaded to the `host` or to
    `pinned` host memory, which without a CUDA device is ordinary memory, announced by a warning.

    What comes back is what went in, bit for bit. UserError for an unknown tier.
    """

    def __init__(self, tier: str, device: torch.device) -> None:
        if tier not in TIERS:
            raise UserError(f"unknown DVR tier {tier!r}: expected one of {', '.join(TIERS)}")
        if tier == "pinned" and device.type != "cuda":
            warnings.warn(
                f"pinned memory speeds up copies to a CUDA device only; on {device.type} the DVR "
                "waits in ordinary memory",
                stacklevel=2,
            )
            tier = "host"
        self.tier = tier
        self.device = device
        self._segments: list[Tensor] = []
        self._stored: torch.cuda.Event | None = None  # the last offload of the pinned tier
        self._side: torch.cuda.Stream | None = None
        self._ahead: _Ahead | None = None

    def put(self, layers: Sequence[LayerKV]) -> None:
        """Store the next segment's layers, each (B, H_kv, S*K, D).

        On the pinned tier this does not wait for the copy; a reload does.
        """
        # stack copies: a view would keep the whole activation of the segment alive.
        segment = torch.stack([torch.stack((layer.k, layer.v)) for layer in layers]).detach()
        if self.tier == "pinned":
            locked = torch.empty(segment.shape, dtype=segment.dtype, pin_memory=True)
            self._segments.append(locked.copy_(segment, non_blocking=True))
            self._stored = torch.cuda.current_stream(self.device).record_event()
            return
        target = self.device if self.tier == "device" else torch.device("cpu")
        self._segments.append(segment.to(target))

    def prefetch(self, first_idx: int, last_idx: int) -> None:
        """Begin to reload a window while the device computes; `reload` of the same window then
        waits for the rest only. Does nothing unless the tier is pinned.

        The window takes its room on the device from now on. UserError as for `reload`.
        """
        self._check(first_idx, last_idx)
        if self.tier != "pinned":
            return
        if self._side is None:
            self._side = torch.cuda.Stream(self.device)
        if self._stored is not None:  # not before it has been offloaded; nothing else to wait for
            self._side.wait_event(self._stored)
        with torch.cuda.stream(self._side):
            layers = self._joined(first_idx, last_idx)
            arrived = self._side.record_event()
        self._ahead = _Ahead((first_idx, last_idx), layers, arrived)

    def reload(self, first_idx: int, last_idx: int) -> list[LayerKV]:
        """Segments first..last (ends included), joined in time, on the device, per layer.

        UserError if the window lies outside the video.
        """
        self._check(first_idx, last_idx)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.window == (first_idx, last_idx):
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(ahead.arrived)
            # Its room came from the side stream, which must not hand it out again while it is read.
            ahead.layers.record_stream(stream)
            layers = ahead.layers
        else:
            layers = self._joined(first_idx, last_idx)
        return [LayerKV(layer[0], layer[1]) for layer in layers]

    def _check(self, first_idx: int, last_idx: int) -> None:
        if not 0 <= first_idx <= last_idx < len(self._segments):
            raise UserError(
                f"window of segments {first_idx}..{last_idx} is not inside the video's "
                f"0..{len(self._segments) - 1}"
            )

    def _joined(self, first_idx: int, last_idx: int) -> Tensor:
        """The window on the device, (L, 2, B, H_kv, n*S*K, D): every segment goes straight to its
        place, so that the window is there once and not twice.
        """
        chosen = self._segments[first_idx : last_idx + 1]
        *outer, tokens, width = chosen[0].shape
        shape = (*outer, len(chosen) * tokens, width)
        window = torch.empty(shape, dtype=chosen[0].dtype, device=self.device)
        for place, segment in zip(window.split(tokens, dim=-2), chosen, strict=True):
            place.copy_(segment, non_blocking=self.tier == "pinned")
        return window

    def __len__(self) -> int:
        """Number of segments."""
        return len(self._segments)

    @property
    def num_bytes(self) -> int:
        """Bytes of everything stored, on whichever tier."""
        return sum(segment.nbytes for segment in self._segments)
