"""How fast bytes travel: bare copies, reloads of a window by tier, and whether a reload hides
behind computing.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from timescope_lite.bench_gpu.record import NO_CARD, Bench
from timescope_lite.bench_gpu.timing import matrix_rate, precisions_of, seconds_of
from timescope_lite.memory import DVRStore, LayerKV

WINDOW = (0, 2)  # three segments of the store that stands for a real backbone
BACKBONE_LAYERS, BACKBONE_KV_HEADS, BACKBONE_HEAD_WIDTH = 28, 4, 128  # Qwen2.5-VL-7B's sizes


def rates(bench: Bench) -> None:
    """Matrix rates in every precision, copies, reloads, overlap."""
    for precision, dtype in precisions_of(bench.device).items():
        rate = matrix_rate(bench.device, dtype, bench.sizes.matrix, bench.sizes.repeats)
        bench.number(f"matrix,{precision}", "flop_per_second", rate, bench.sizes.repeats)
    _copies(bench)
    _reloads(bench)
    _overlap(bench)


def _copies(bench: Bench) -> None:
    """Bytes per second of one large copy_ into memory that is already there."""
    size = bench.sizes.copied_bytes
    pageable = torch.ones(size, dtype=torch.uint8)
    there = torch.ones(size, dtype=torch.uint8, device=bench.device)
    copies = {f"{bench.device.type}_to_itself": (there, there.clone())}
    if bench.on_card:
        pinned = pageable.pin_memory()
        copies |= {
            "pageable_to_device": (pageable, there),
            "pinned_to_device": (pinned, there),
            "device_to_pageable": (there, pageable),
            "device_to_pinned": (there, pinned),
        }
    else:
        bench.not_measured("copies between host and device, pageable and pinned", NO_CARD)
    for name, (source, target) in copies.items():
        bench.number(
            f"copy,{name}", "bytes_per_second", size / _copy_seconds(bench, source, target)
        )


def _copy_seconds(bench: Bench, source: Tensor, target: Tensor) -> float:
    # non_blocking is a wish: a pageable copy waits for the driver all the same.
    copy = lambda: target.copy_(source, non_blocking=True)  # noqa: E731
    return seconds_of(copy, bench.device, bench.sizes.repeats)


def _reloads(bench: Bench) -> None:
    """Seconds and rate of `DVRStore.reload`, by tier."""
    for tier in ("host", "pinned", "device"):
        if tier == "pinned" and not bench.on_card:
            bench.not_measured("reload from pinned memory", NO_CARD)
            continue
        store = _store(bench, tier)
        moved = store.num_bytes
        seconds = seconds_of(partial(store.reload, *WINDOW), bench.device, bench.sizes.repeats)
        bench.number(f"reload,{tier}", "seconds", seconds, bench.sizes.repeats)
        bench.number(f"reload,{tier}", "bytes_per_second", moved / seconds, bench.sizes.repeats)
        bench.number("reload,window", "moved_bytes", moved)


def _overlap(bench: Bench) -> None:
    """Reload alone, computing alone, and both at once, between events on the computing stream."""
    if not bench.on_card:
        bench.not_measured("overlap of a pinned reload with computing", NO_CARD)
        return
    store, repeats = _store(bench, "pinned"), bench.sizes.repeats
    a = torch.randn(2048, 2048, device=bench.device)
    out = torch.empty_like(a)

    def reload() -> None:
        store.prefetch(*WINDOW)
        store.reload(*WINDOW)

    reload_s = seconds_of(reload, bench.device, repeats)
    one_s = seconds_of(lambda: torch.mm(a, a, out=out), bench.device, repeats)
    products = math.ceil(reload_s / one_s)  # computing that lasts about as long as the reload

    def compute() -> None:
        for _ in range(products):
            torch.mm(a, a, out=out)

    def both() -> None:
        store.prefetch(*WINDOW)  # first: the copy is on its way when computing begins
        compute()
        store.reload(*WINDOW)

    compute_s = seconds_of(compute, bench.device, repeats)
    both_s = seconds_of(both, bench.device, repeats)
    hidden = (reload_s + compute_s - both_s) / min(reload_s, compute_s)
    for name, seconds in (("reload", reload_s), ("compute", compute_s), ("both", both_s)):
        bench.number(f"overlap,{name}", "seconds", seconds, repeats)
    # 1: the shorter of the two costs nothing; 0: one after the other.
    bench.number("overlap", "hidden_share", min(max(hidden, 0.0), 1.0), repeats)


def _store(bench: Bench, tier: str) -> DVRStore:
    """A store with the three segments of WINDOW, of a real backbone's size, in two bytes a number
    (bf16's, as plain integers: nothing computes with them).
    """
    shape = (1, BACKBONE_KV_HEADS, bench.sizes.tokens_per_segment, BACKBONE_HEAD_WIDTH)
    store = DVRStore(tier, bench.device)
    for number in range(WINDOW[1] + 1):
        kv = torch.full(shape, number, dtype=torch.int16, device=bench.device)
        store.put([LayerKV(kv, kv)] * BACKBONE_LAYERS)
    return store
