"""The two memories of a video: HVR, compressed and always at hand; DVR, dense and fetched when
wanted (TimeScope section 3; pooling as in Video-XL-2).

DVR: per-layer keys and values of every token of a segment. HVR: the same, downsampled in time by r.
Keys are pooled before they are rotated and get the rotary position of their group's centre, so a
group keeps its time (pooling rotated keys smears it: notebook 05).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import torch
from torch import Tensor

from timescope_lite.common import UserError
from timescope_lite.model.decoder import LayerKV

TIERS = ("device", "host")


def downsample(x: Tensor, r: int, tokens_per_frame: int) -> Tensor:
    """Mean over groups of r frames, token slot by token slot: x (B, H, F*K, D) -> (B, H, F//r*K,
    D). UserError unless r divides F.
    """
    B, H, N, D = x.shape
    K, F = tokens_per_frame, N // tokens_per_frame
    if F % r:
        raise UserError(
            f"r={r} does not divide the {F} frames of this segment; choose r from "
            f"{[d for d in range(1, F + 1) if F % d == 0]}"
        )
    return x if r == 1 else x.view(B, H, F // r, r, K, D).mean(dim=3).reshape(B, H, F // r * K, D)


def group_positions(positions: Tensor, r: int, tokens_per_frame: int) -> Tensor:
    """The centre of each group of r frames: positions (N,) -> (N // r,), float, in frames."""
    K = tokens_per_frame
    return positions.float().view(-1, r, K).mean(dim=1).flatten()


class DVRStore:
    """Dense keys and values, segment by segment, on the `device` or offloaded to the `host`. What
    comes back is what went in, bit for bit.
    """

    def __init__(self, tier: str, device: torch.device) -> None:
        if tier not in TIERS:
            raise UserError(f"unknown DVR tier {tier!r}: expected one of {', '.join(TIERS)}")
        self.tier, self.device = tier, device
        self._segments: list[list[LayerKV]] = []

    def put(self, layers: Sequence[LayerKV]) -> None:
        """Store the next segment's layers, each (B, H_kv, S*K, D)."""
        target = self.device if self.tier == "device" else torch.device("cpu")
        # clone: a view would keep the whole activation alive.
        self._segments.append(
            [LayerKV(*(t.detach().to(target).clone() for t in layer)) for layer in layers]
        )

    def reload(self, first_idx: int, last_idx: int) -> list[LayerKV]:
        """Segments first..last (ends included), concatenated in time, on the device. UserError if
        the window lies outside the video.
        """
        if not 0 <= first_idx <= last_idx < len(self._segments):
            raise UserError(
                f"window of segments {first_idx}..{last_idx} is not inside the video's "
                f"0..{len(self._segments) - 1}"
            )
        chosen = self._segments[first_idx : last_idx + 1]
        return [
            LayerKV(
                *(
                    torch.cat([t.to(self.device) for t in parts], dim=2)
                    for parts in zip(*layer, strict=True)
                )
            )
            for layer in zip(*chosen, strict=True)
        ]

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def num_bytes(self) -> int:
        return sum(t.nbytes for segment in self._segments for layer in segment for t in layer)


@dataclass
class Memory:
    """All that is kept of one video: `hvr` per layer (1, H_kv, segments * slots, D) and the DVR
    store. Built by `TimeScope.stream`.

    `clock` is the time code of the first frame; `num_valid` counts real frames (the last segment
    may be padded).
    """

    r: int
    frames_per_segment: int
    tokens_per_frame: int
    dvr: DVRStore
    clock: int = 0
    num_valid: int = 0
    hvr: list[LayerKV] = field(default_factory=list)

    @property
    def num_segments(self) -> int:
        return len(self.dvr)

    @property
    def num_frames(self) -> int:
        """Frames in memory, padding included."""
        return self.num_segments * self.frames_per_segment

    @property
    def slots(self) -> int:
        """HVR tokens per segment."""
        return self.frames_per_segment // self.r * self.tokens_per_frame

    def add(self, dense: Sequence[LayerKV], pooled: Sequence[LayerKV]) -> None:
        """Append a segment: its DVR goes to the store, its HVR to the end of the holistic
        memory.
        """
        self.dvr.put(dense)
        pooled = [LayerKV(*(t.detach() for t in layer)) for layer in pooled]
        if self.hvr:
            pooled = [
                LayerKV(*(torch.cat(pair, dim=2) for pair in zip(old, new, strict=True)))
                for old, new in zip(self.hvr, pooled, strict=True)
            ]
        self.hvr = pooled

    def mixed(self, first_idx: int, last_idx: int, keep_hvr: bool = True) -> list[LayerKV]:
        """What the fine stage reads: HVR of the other segments (none if not `keep_hvr`), then the
        reloaded DVR of first..last.
        """
        dense = self.dvr.reload(first_idx, last_idx)
        if not keep_hvr:
            return dense
        before, after = first_idx * self.slots, (last_idx + 1) * self.slots
        return [
            LayerKV(
                *(
                    torch.cat([held[:, :, :before], held[:, :, after:], fresh], dim=2)
                    for held, fresh in zip(old, new, strict=True)
                )
            )
            for old, new in zip(self.hvr, dense, strict=True)
        ]

    def attended_frames(
        self, window: tuple[int, int] | None = None, keep_hvr: bool = True
    ) -> float:
        """Attended KV at its peak in frames' worth: the HVR, with the segments of `window` dense
        (the reload is counted).
        """
        S, total = self.frames_per_segment, self.num_segments
        dense = 0 if window is None else window[1] - window[0] + 1
        rest = (total - dense) if keep_hvr or window is None else 0
        return rest * S / self.r + dense * S

    def bytes_per_frame(self) -> int:
        """Bytes of keys and values of one frame over all layers."""
        return (
            sum(t.shape[1] * t.shape[3] * t.element_size() for layer in self.hvr for t in layer)
            * self.tokens_per_frame
        )

    def counters(self, window: tuple[int, int] | None = None) -> dict[str, float]:
        """The three counters, in bytes, always named: attended KV, device-resident KV, process
        RSS.
        """
        attended = self.attended_frames(window) * self.bytes_per_frame()
        on_device = (
            self.dvr.num_bytes
            if self.dvr.tier == "device"
            else self.frames_per_segment * self.bytes_per_frame()
        )
        held = sum(t.nbytes for layer in self.hvr for t in layer)
        reloaded = (
            0
            if window is None
            else (window[1] - window[0] + 1) * self.frames_per_segment * self.bytes_per_frame()
        )
        return {
            "attended_kv_bytes": attended,
            "device_kv_bytes": float(held + max(on_device, reloaded)),
            "rss_bytes": float(process_rss()),
        }


def process_rss() -> int:
    """Resident memory of this process in bytes."""
    return int(psutil.Process().memory_info().rss)
