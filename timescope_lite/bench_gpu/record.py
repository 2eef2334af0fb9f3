"""What a stage reports and where it goes: measured numbers, facts, and what was not measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from timescope_lite.model.tokenizer import NUM_SECONDS

NOT_YET = "not measured yet"
NO_CARD = "needs a CUDA device"


class CheckFailed(Exception):
    """Something was measured and is not what it must be."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is. `full` is for a card; `tiny` shows in a minute that it all runs.

    `depths`: of the decoder; `frames`: lengths of the long videos; `copied_bytes`: of one copy;
    `matrix`: side of the square matrices; `window`: segments of a reload; `tokens_per_segment`:
    of the store that stands for a real backbone; `repeats`: of everything that is timed.
    """

    name: str
    depths: tuple[int, ...] = (4, 8)
    frames: tuple[int, ...] = (3600, NUM_SECONDS)
    copied_bytes: int = 1 << 28
    matrix: int = 8192
    window: int = 128
    tokens_per_segment: int = 608
    repeats: int = 20


FULL = Sizes("full")
TINY = Sizes(
    "tiny",
    depths=(1, 2),
    frames=(64, 128),
    copied_bytes=1 << 16,
    matrix=512,
    window=2,
    tokens_per_segment=16,
    repeats=2,
)
SIZES = {sizes.name: sizes for sizes in (FULL, TINY)}


@dataclass
class Report:
    """What one stage found. Numbers are named (bucket, metric) and are fractions, bytes, seconds or
    counts; `missing` says what was not measured, and why.
    """

    numbers: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def take(self, kind: str, name: Any, value: Any) -> None:
        """Add one line, as `Bench` sends it."""
        getattr(self, kind)[name] = value


@dataclass(frozen=True)
class Bench:
    """What a stage is given: where to compute, how large, a folder, and how to report."""

    device: torch.device
    sizes: Sizes
    out: Path
    send: Callable[[str, Any, Any], None]

    @property
    def on_card(self) -> bool:
        """Whether there is a CUDA device to measure."""
        return self.device.type == "cuda"

    def number(self, bucket: str, metric: str, value: float, n: int = 1) -> None:
        """Report a measured number over n measurements."""
        self.send("numbers", (bucket, metric), (float(value), n))

    def fact(self, name: str, value: Any) -> None:
        """Report something that is no number: plain data for JSON."""
        self.send("facts", name, value)

    def not_measured(self, what: str, why: str) -> None:
        """Say that something was not measured, and why."""
        self.send("missing", what, why)
