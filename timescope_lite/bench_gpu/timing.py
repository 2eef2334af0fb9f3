"""How long something takes on a device, and how fast its matrices are."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precisions_of(device: torch.device) -> dict[str, torch.dtype]:
    """The precisions that a device computes in, by name; a card before capability 8.0, such as a
    T4, only imitates bf16.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0):
        return PRECISIONS
    return {name: dtype for name, dtype in PRECISIONS.items() if name != "bf16"}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if device.type == "mps":
        torch.mps.synchronize()


def seconds_of(action: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median seconds of one call, over `repeats` calls after one that pays for waking up. On a card
    by its own events, else by the clock.
    """
    action()
    synchronise(device)
    taken = []
    for _ in range(repeats):
        taken.append(_by_events(action) if device.type == "cuda" else _by_clock(action, device))
    return statistics.median(taken)


def _by_events(action: Callable[[], object]) -> float:
    begin = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    begin.record()
    action()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def _by_clock(action: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    action()
    synchronise(device)
    return time.perf_counter() - started


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int) -> float:
    """Floating-point operations per second of a square matrix product: what the device does at
    best, and what a training step is held against. fp32 is without TF32, torch's own default.
    """
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(side, side, generator=generator).to(device, dtype)
    b = torch.randn(side, side, generator=generator).to(device, dtype)
    return 2 * side**3 / seconds_of(lambda: a @ b, device, repeats)
