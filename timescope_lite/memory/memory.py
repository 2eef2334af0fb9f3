"""The memory of one video: HVR and DVR side by side, built segment by segment, read by stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from timescope_lite.common import UserError, process_rss
from timescope_lite.memory import saved
from timescope_lite.memory.budget import (
    DEFAULT_R,
    check_compression,
    max_reload_segments,
    peak_frames,
)
from timescope_lite.memory.dvr import TIERS, DVRStore
from timescope_lite.memory.hvr import HVRStore, LayerKV, join


@dataclass(frozen=True)
class MemoryConfig:
    """How a video is kept. `frames_per_segment`: S; `r`: frames per group of the HVR, divides S.

    `tier`: where the DVR waits (`dvr.TIERS`); `budget_frames`: bound on the attended KV at its
    peak, in frames' worth (None: none); `fps`: frames sampled per second. UserError for values
    that cannot be.
    """

    frames_per_segment: int = 16
    r: int = DEFAULT_R
    tier: str = "host"
    budget_frames: float | None = None
    fps: float = 1.0

    def __post_init__(self) -> None:
        if self.frames_per_segment < 1:
            raise UserError(f"frames_per_segment is {self.frames_per_segment}: expected 1 or more")
        check_compression(self.r, self.frames_per_segment)
        if self.tier not in TIERS:
            raise UserError(f"unknown DVR tier {self.tier!r}: expected one of {', '.join(TIERS)}")
        if self.budget_frames is not None and self.budget_frames <= 0:
            raise UserError(f"a budget of {self.budget_frames:g} frames: expected more than 0")
        if self.fps <= 0:
            raise UserError(f"fps is {self.fps:g}: expected more than 0 frames per second")


@dataclass
class Memory:
    """All that is kept of one video. Made empty by a model, filled by `append`, read by stages.

    `clock`: the time code of the first frame; `num_valid` counts real frames (the last segment may
    be padded); `model_id` says whose keys and values these are, `video` which file was read, where
    that is known. The DVR waits on `config.tier`, the HVR lies on `device`.
    """

    config: MemoryConfig
    tokens_per_frame: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    clock: int = 0
    num_valid: int = 0
    model_id: str = ""
    video: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.holistic = HVRStore()
        self.dvr = DVRStore(self.config.tier, self.device)

    @property
    def r(self) -> int:
        """Frames per group of the HVR."""
        return self.config.r

    @property
    def frames_per_segment(self) -> int:
        """S, frames in a segment."""
        return self.config.frames_per_segment

    @property
    def hvr(self) -> list[LayerKV]:
        """The HVR so far, per layer (1, H_kv, segments * slots, D); [] before the first segment."""
        return self.holistic.layers

    @property
    def num_segments(self) -> int:
        """Segments read so far."""
        return len(self.dvr)

    @property
    def num_frames(self) -> int:
        """Frames in memory, padding included."""
        return self.num_segments * self.frames_per_segment

    @property
    def slots(self) -> int:
        """HVR tokens per segment."""
        return self.frames_per_segment // self.r * self.tokens_per_frame

    def append(
        self, dense: Sequence[LayerKV], pooled: Sequence[LayerKV], num_valid: int | None = None
    ) -> None:
        """Add one segment: its DVR, per layer (1, H_kv, S*K, D), goes to the store, its HVR, per
        layer (1, H_kv, S//r*K, D), to the end of the holistic memory.

        `num_valid`: its real frames (None: all S). UserError for other lengths, with nothing added.
        """
        S, K = self.frames_per_segment, self.tokens_per_frame
        if dense[0].k.shape[2] != S * K or pooled[0].k.shape[2] != self.slots:
            raise UserError(
                f"a segment of {dense[0].k.shape[2]} dense and {pooled[0].k.shape[2]} pooled "
                f"tokens: this memory takes {S * K} and {self.slots} (S={S}, K={K}, r={self.r})"
            )
        self.dvr.put(dense)
        self.holistic.put(pooled)
        self.num_valid += S if num_valid is None else num_valid

    def mixed(self, first_idx: int, last_idx: int, keep_hvr: bool = True) -> list[LayerKV]:
        """What a fine stage reads: the HVR of the other segments, then the DVR of first..last.

        Without `keep_hvr` the DVR alone.
        """
        dense = self.dvr.reload(first_idx, last_idx)
        if not keep_hvr:
            return dense
        before = first_idx * self.slots
        after = (last_idx + 1) * self.slots
        end = self.holistic.num_slots
        return [
            join([held.span(0, before), held.span(after, end), fresh])
            for held, fresh in zip(self.hvr, dense, strict=True)
        ]

    def narrowed(self, first_idx: int, last_idx: int) -> list[LayerKV]:
        """The HVR of segments first..last alone, per layer."""
        first = first_idx * self.slots
        last = (last_idx + 1) * self.slots
        return [held.span(first, last) for held in self.hvr]

    def attended_frames(
        self, window: tuple[int, int] | None = None, keep_hvr: bool = True
    ) -> float:
        """Attended KV at its peak over both stages, in frames' worth (`budget.peak_frames`), with
        the segments of `window` reloaded (None: nothing is).
        """
        reloaded = 0 if window is None else window[1] - window[0] + 1
        return peak_frames(self.num_frames, self.r, self.frames_per_segment, reloaded, keep_hvr)

    def room(self, budget_frames: float | None, keep_hvr: bool = True) -> int:
        """How many segments may be reloaded within a budget (None: that of the configuration).

        BudgetError if not even one.
        """
        budget = self.config.budget_frames if budget_frames is None else budget_frames
        S = self.frames_per_segment
        return max_reload_segments(self.num_frames, self.r, S, budget, keep_hvr)

    def bytes_per_frame(self) -> int:
        """Bytes of keys and values of one frame over all layers."""
        per_token = sum(t.shape[1] * t.shape[3] * t.element_size() for kv in self.hvr for t in kv)
        return per_token * self.tokens_per_frame

    def counters(
        self, window: tuple[int, int] | None = None, keep_hvr: bool = True
    ) -> dict[str, float]:
        """The three counters, in bytes, always named: attended KV, device-resident KV, process
        RSS. `window`: the segments that are reloaded (None: nothing is).
        """
        per_frame = self.bytes_per_frame()
        reloaded = 0 if window is None else window[1] - window[0] + 1
        # One segment is dense while it is read, the window while it is answered from: never both.
        on_device = max(1, reloaded) * self.frames_per_segment * per_frame
        if self.dvr.tier == "device":
            on_device = max(self.dvr.num_bytes, reloaded * self.frames_per_segment * per_frame)
        return {
            "attended_kv_bytes": self.attended_frames(window, keep_hvr) * per_frame,
            "device_kv_bytes": float(self.holistic.num_bytes + on_device),
            "rss_bytes": float(process_rss()),
        }

    def save(self, folder: str | Path) -> Path:
        """Write this memory into `folder`, the manifest last; returns the manifest's path.

        UserError where the disk refuses or nothing was read yet.
        """
        return saved.save(self, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: saved.Owner,
        *,
        r: int | None = None,
        video: str | Path | None = None,
    ) -> Memory:
        """Read a memory that `model` wrote, onto the model's device.

        UserError if it is not there, half-written, changed since, another model's, of another `r`
        or another `video` file (each looked at where given).
        """
        return saved.load(cls, Path(folder), model, r, None if video is None else Path(video))
