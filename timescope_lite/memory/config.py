"""How a video is kept: the few numbers that a memory must agree on."""

from __future__ import annotations

from dataclasses import dataclass

from timescope_lite.common import UserError
from timescope_lite.memory.budget import DEFAULT_R, check_compression
from timescope_lite.memory.dvr import TIERS


@dataclass(frozen=True)
class MemoryConfig:
    """How a video is kept. `frames_per_segment`: S; `r`: frames per group of the HVR, divides S.

    `tier`: where the DVR waits (`dvr.TIERS`); `budget_frames`: bound on the attended KV at
    its peak, in frames' worth (None: none); `fps`: frames sampled per second. UserError for values
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
