"""Keys and values on the card: what the allocator says beside our own counter.

The counter counts every key once: the HVR, and the window that is back. On a card it must agree
with `max_memory_allocated`; elsewhere with the storages that are alive. What it does not count is
named: a mixed memory is a joined copy of the HVR and the window (lesson 06).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from timescope_lite.bench_gpu.models import features_of, segments_of, sized_model
from timescope_lite.bench_gpu.record import NO_CARD, Bench, CheckFailed
from timescope_lite.memory import LayerKV, Memory
from timescope_lite.model.timescope import TimeScope

AGREEMENT = 0.05


def residency(bench: Bench) -> None:
    """Three moments: the video has been read, with the DVR on the host or on the card; a window is
    back. CheckFailed where the two counts differ by more than 5 %.
    """
    model = sized_model(bench.sizes.depths[-1], bench.device)
    features = features_of(bench.sizes.frames[0], model.config.feature_width)
    stream = segments_of(features)
    model.stream(stream[:2])  # libraries take their workspaces at first use
    segments = len(stream)
    window = 0, min(segments * 3 // 4, 4 * bench.sizes.window) - 1
    gaps = {}
    if bench.on_card:
        _, gaps["after_reading,device"] = _after_reading(bench, model, stream, "device")
    else:
        bench.not_measured("keys and values on a card by max_memory_allocated", NO_CARD)
    memory, gaps["after_reading,host"] = _after_reading(bench, model, stream, "host")
    gaps["window_back"] = _window_back(bench, memory, window)
    most, held = _bytes_of(bench, lambda: memory.mixed(*window))
    bench.number("mixed_memory", "peak_bytes", memory.holistic.num_bytes + most)
    bench.number("mixed_memory", "held_bytes", memory.holistic.num_bytes + held)
    counted = memory.counters(window)["device_kv_bytes"]
    bench.number("mixed_memory", "counted_bytes", counted)
    apart = {name: gap for name, gap in gaps.items() if gap > AGREEMENT}
    if apart:
        said = ", ".join(f"{name} by {gap:.1%}" for name, gap in apart.items())
        raise CheckFailed(f"counter and allocator differ: {said}")


def _after_reading(
    bench: Bench, model: TimeScope, stream: Sequence[tuple[torch.Tensor, int]], tier: str
) -> tuple[Memory, float]:
    """The HVR alone, or with the whole DVR, when the last segment has been put away. Returns the
    memory, and by how much the counts differ.
    """
    read: list[Memory] = []

    def work() -> list[LayerKV]:
        read.append(model.stream(stream, tier=tier))
        return read[0].hvr

    _, found = _bytes_of(bench, work)
    memory = read[0]
    counted = memory.holistic.num_bytes
    if tier == "device":
        counted += memory.dvr.num_bytes
    return memory, _compare(bench, f"after_reading,{tier}", found, counted)


def _window_back(bench: Bench, memory: Memory, window: tuple[int, int]) -> float:
    """HVR and window at the reload's peak: nothing may lie there twice, not even for a moment."""
    most, _ = _bytes_of(bench, lambda: memory.dvr.reload(*window))
    found = memory.holistic.num_bytes + most
    counted = memory.counters(window, keep_hvr=False)["device_kv_bytes"]
    return _compare(bench, "window_back", found, counted)


def _compare(bench: Bench, moment: str, found: float, counted: float) -> float:
    bench.number(moment, "allocated_bytes", found)
    bench.number(moment, "counted_bytes", counted)
    gap = abs(found - counted) / counted
    bench.number(moment, "difference_share", gap)
    return gap


def _bytes_of(bench: Bench, work: Callable[[], list[LayerKV]]) -> tuple[int, int]:
    """Bytes that some work takes on the device at its peak, and that its layers hold afterwards.
    Elsewhere than on a card both are the storages that the layers keep alive.
    """
    if not bench.on_card:
        layers = work()
        alive = alive_bytes(layers)
        return alive, alive
    torch.cuda.synchronize(bench.device)
    torch.cuda.empty_cache()  # else a block that is a little too large may be handed out whole
    before = torch.cuda.memory_allocated(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    layers = work()
    torch.cuda.synchronize(bench.device)
    peak = torch.cuda.max_memory_allocated(bench.device) - before
    held = torch.cuda.memory_allocated(bench.device) - before
    del layers
    return peak, held


def alive_bytes(layers: Sequence[LayerKV]) -> int:
    """Bytes of the storages behind some layers, each once, spare room included."""
    storages = [tensor.untyped_storage() for layer in layers for tensor in layer]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
