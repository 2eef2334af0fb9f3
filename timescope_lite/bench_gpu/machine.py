"""Which device this is, and in which numbers it computes."""

from __future__ import annotations

import os
import platform

import torch

from timescope_lite.bench_gpu.record import NO_CARD, Bench
from timescope_lite.bench_gpu.timing import PRECISIONS, precisions_of
from timescope_lite.common import pick_dtype


def machine(bench: Bench) -> None:
    """Name, capability and memory of the card; versions; the precision of a training step."""
    device = bench.device
    bench.fact("torch", torch.__version__)
    bench.fact("cuda", torch.version.cuda or "none")
    bench.fact("python", platform.python_version())
    bench.fact("cpu_cores", os.cpu_count() or 0)
    bench.fact("precision", name_of(pick_dtype(device)))
    if not bench.on_card:
        bench.fact("card", "none")
        bench.not_measured("card", NO_CARD)
        return
    card = torch.cuda.get_device_properties(device)
    bench.fact("card", card.name)
    bench.fact("capability", f"{card.major}.{card.minor}")
    bench.number("card", "memory_bytes", card.total_memory)
    if "bf16" not in precisions_of(device):
        bench.not_measured("bf16", "not in this hardware: steps are fp32, fp16 is measured beside")


def name_of(dtype: torch.dtype) -> str:
    """fp32, bf16 or fp16."""
    return next(name for name, known in PRECISIONS.items() if known == dtype)
