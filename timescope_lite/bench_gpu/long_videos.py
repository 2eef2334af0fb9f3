"""Long videos: an hour, and as long as the clock has codes for. Read once, then asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from timescope_lite.bench_gpu.models import S, sized_model
from timescope_lite.bench_gpu.record import Bench, CheckFailed
from timescope_lite.bench_gpu.timing import synchronise
from timescope_lite.corpus import PixelSource, tell_one
from timescope_lite.memory import Memory
from timescope_lite.model.timescope import TimeScope
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import StoryConfig

DRAWN_S = 512  # seconds that are drawn; a longer video repeats them, which costs the model the same
NUM_TASKS = 3


def long_videos(bench: Bench) -> None:
    """For the shipped model and one of the largest depth, random weights: seconds to read every
    length, pictures to memory, and to ground a task; attended and device-resident KV.
    """
    shipped = TimeScope.from_pretrained("tiny", bench.device)
    pixels = _pictures(bench, shipped)
    models = {"shipped": shipped, f"depth={bench.sizes.depths[-1]}": None}
    for name, model in models.items():
        model = model or sized_model(bench.sizes.depths[-1], bench.device)
        _read(model, pixels, 2 * S, "host")  # pays for waking up
        for frames in bench.sizes.frames:
            _one_length(bench, name, model, pixels, frames)


def _one_length(bench: Bench, name: str, model: TimeScope, pixels: Tensor, frames: int) -> None:
    """Read a video of so many frames, then ask."""
    bucket = f"{name},frames={frames}"
    tier = "pinned" if bench.on_card else "host"
    if bench.on_card:
        torch.cuda.reset_peak_memory_stats(bench.device)
    started = time.perf_counter()
    memory = _read(model, pixels, frames, tier)
    synchronise(bench.device)
    bench.number(bucket, "encode_seconds", time.perf_counter() - started)
    tasks = model.vocabulary.samples()[:NUM_TASKS]
    started = time.perf_counter()
    answers = model.ground(memory, tasks)
    synchronise(bench.device)
    seconds = (time.perf_counter() - started) / len(tasks)
    bench.number(bucket, "ground_seconds", seconds, len(tasks))
    for counter in ("attended_kv_bytes", "device_kv_bytes"):
        bench.number(bucket, counter, max(answer.counters[counter] for answer in answers))
    if bench.on_card:
        peak = torch.cuda.max_memory_allocated(bench.device)
        bench.number(bucket, "peak_allocated_bytes", peak)
    for answer in answers:
        interval = answer.interval
        if interval is not None and not 0 <= interval.start_s < interval.end_s <= frames:
            raise CheckFailed(f"{bucket}: {interval} does not lie inside the video")


def _read(model: TimeScope, pixels: Tensor, frames: int, tier: str) -> Memory:
    return model.stream(_feature_stream(model, pixels, frames), tier=tier)


def _feature_stream(model: TimeScope, pixels: Tensor, frames: int) -> Iterator[tuple[Tensor, int]]:
    """Segments of features; the drawn pictures over and over."""
    if model.frame_encoder is None:
        raise CheckFailed("this model has no frame encoder")
    for at in range(0, frames, S):
        first = at % len(pixels)
        yield model.frame_encoder.encode_pixels(pixels[first : first + S]), S


def _pictures(bench: Bench, model: TimeScope) -> Tensor:
    """uint8 (F, 64, 64, 3) of one story, drawn straight to a tensor: no file, no video library."""
    if model.frame_encoder is None:
        raise CheckFailed("the shipped model has no frame encoder")
    domains = list(load_domains().values())
    source = PixelSource(model.frame_encoder, domains)
    seconds = min(DRAWN_S, bench.sizes.frames[0])
    story, _ = tell_one(domains, seconds, (0, 18), StoryConfig())
    started = time.perf_counter()
    pixels = torch.cat(list(source.pictures(story, np.random.default_rng(0))))
    bench.number("drawing", "pictures_per_second", seconds / (time.perf_counter() - started))
    return pixels
