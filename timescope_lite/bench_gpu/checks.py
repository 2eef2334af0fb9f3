"""What only a device can get wrong: copies that have not arrived, numbers in the wrong precision,
a state that was saved elsewhere. Plain functions; the tests marked `gpu` call the same ones.

Each raises AssertionError, saying what it found.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from timescope_lite.bench_gpu.models import features_of, prompts_of, segments_of, small_model
from timescope_lite.bench_gpu.record import Bench, CheckFailed
from timescope_lite.bench_gpu.timing import precisions_of
from timescope_lite.corpus import Batch, Mix, Pile, PixelSource, SymbolicSource
from timescope_lite.datasets.prompts import Writer, vocabulary_of
from timescope_lite.memory import DVRStore, LayerKV
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.train import (
    WORDS,
    FramePhase,
    Phase,
    Trainer,
    decoder_of,
    loss_of,
    pretrain_frames,
)
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import StoryConfig

T = TypeVar("T")
SEGMENTS, LAYERS = 6, 4
CPU = torch.device("cpu")


def the_pinned_store_gives_back_every_bit(device: torch.device) -> None:
    """Every window, NaN and negative zero among it, in three precisions."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        segments = _segments(dtype)
        store = _pinned_store(device)
        for segment in segments:
            moved = [LayerKV(k.to(device, copy=True), v.to(device, copy=True)) for k, v in segment]
            store.put(moved)
            for layer in moved:  # a store that kept a view, or copies too late, is found out
                layer.k.zero_()
                layer.v.zero_()
        for first in range(SEGMENTS):
            for last in range(first, SEGMENTS):
                _expect_window(store, segments, (first, last))


def a_prefetched_window_is_the_window(device: torch.device) -> None:
    """Prefetched while the device computes, and again after another window was prefetched in vain;
    what is allocated meanwhile must not land in its room.
    """
    segments = _segments(torch.float32)
    store = _pinned_store(device)
    for segment in segments:
        store.put([LayerKV(k.to(device), v.to(device)) for k, v in segment])
    busy = torch.ones(512, 512, device=device)
    for turn in range(20):
        window = turn % 3, 3 + turn % 3
        store.prefetch(0, SEGMENTS - 1)
        store.prefetch(*window)
        for _ in range(10):
            busy = (busy @ busy).clamp(max=1.0)
        _expect_window(store, segments, window)
        torch.full((turn + 1, 1 << 16), 7.0, device=device)  # would overwrite a room given back
    store.prefetch(0, 1)
    _expect_window(store, segments, (2, 4))


def a_stream_is_the_processors_stream(device: torch.device) -> None:
    """HVR and answers of a small model, on the device and on the CPU, on every tier."""
    features = features_of(64)
    there = small_model(CPU).stream(segments_of(features), 8)
    model = small_model(device)
    for tier in ("host", "device", "pinned"):
        here = _quietly(partial(model.stream, segments_of(features), 8, tier=tier))
        for one, two in zip(there.hvr, here.hvr, strict=True):
            _expect(two.k.device.type == device.type, f"the HVR lies on {two.k.device}")
            _expect_close(two.k, one.k, 1e-3, f"keys of the HVR, tier {tier}")
        for one, two in zip(there.dvr.reload(1, 2), here.dvr.reload(1, 2), strict=True):
            _expect(two.v.device.type == device.type, f"the DVR came back on {two.v.device}")
            _expect_close(two.v, one.v, 1e-3, f"values of the DVR, tier {tier}")
        window = model.coarse(here, prompts_of(model)[:1])[0].window
        _expect(0 <= window[0] <= window[1] < 4, f"window {window} of 4 segments")


def the_frame_encoder_sees_the_same(device: torch.device) -> None:
    """Features of the same pictures; convolutions may use TF32 on a card."""
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoderConfig()).eval()
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (8, 64, 64, 3), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        there = encoder.encode_pixels(pixels)
        here = encoder.to(device).encode_pixels(pixels)
    _expect_close(here, there, 1e-2, "features")


def frames_are_pretrained_on_the_device(device: torch.device) -> None:
    """A few steps of frame pre-training; its features come to the CPU, where batches are made."""
    domains = list(load_domains().values())[:2]
    with _seen_as(device):
        encoder = pretrain_frames(
            domains, FrameEncoderConfig(), FramePhase(2, 16, steps=3, batch=16), seed=0
        )
    _expect(encoder.mean.device.type == device.type, f"the encoder lies on {encoder.mean.device}")
    source = PixelSource(encoder, domains)
    _, features = source.draw(domains, 32, (1, 2), StoryConfig())
    _expect(features.device == CPU, f"features lie on {features.device}")
    _expect(bool(features.isfinite().all()), "a feature is not finite")
    _expect(
        all(direction.device == CPU for direction in source.directions().values()),
        "directions do not lie on the CPU",
    )


def autocast_learns_what_fp32_learns(device: torch.device) -> None:
    """The loss of one batch and its gradient, in bf16 (where the hardware has it) and fp16 beside
    fp32.
    """
    wanted = None
    for dtype in precisions_of(device).values():
        model, pile, phase = _training(device)
        batch = _batch(pile, phase).to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss, _ = loss_of(model, batch, r=4, sees="reload")
        loss.backward()
        slope = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        _expect(bool(slope.isfinite().all()), f"the gradient in {dtype} is not finite")
        if wanted is None:
            wanted = loss.item(), slope
        gap = abs(loss.item() - wanted[0]) / wanted[0]
        _expect(gap < 0.02, f"the loss in {dtype} differs by {gap:.1%}")
        alike = float(torch.cosine_similarity(slope, wanted[1], dim=0))
        _expect(alike > 0.95, f"the gradient in {dtype} points elsewhere (cosine {alike:.3f})")


def a_state_of_the_processor_goes_on_here(device: torch.device) -> None:
    """Two steps on the CPU, a state file, two more on both: the same losses to rounding, and every
    number of the optimisers where its weight is.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        there = _trainer(CPU)
        there.run(until=2)
        there.save_state(path, 0)
        here = _trainer(device)
        here.load_state(path)
        _expect(here.step == 2, f"goes on at step {here.step}")
        there.run(until=4)
        here.run(until=4)
    for optimizer in (here.muon, here.adam):
        for weight, state in optimizer.state.items():
            lost = [name for name, t in state.items() if t.device != weight.device]
            _expect(not lost, f"{lost} of an optimiser lie elsewhere than their weight")
    for name, tensor in there.model.state_dict().items():
        # bf16 on a card: weights move by a rate, whatever the precision of the gradient.
        _expect_close(here.model.state_dict()[name], tensor, 0.1, f"weights {name}")


CHECKS: dict[str, Callable[[torch.device], None]] = {
    check.__name__: check
    for check in (
        the_pinned_store_gives_back_every_bit,
        a_prefetched_window_is_the_window,
        a_stream_is_the_processors_stream,
        the_frame_encoder_sees_the_same,
        frames_are_pretrained_on_the_device,
        autocast_learns_what_fp32_learns,
        a_state_of_the_processor_goes_on_here,
    )
}


def checks(bench: Bench) -> None:
    """Run them all; CheckFailed at the end names those that do not hold."""
    found = {}
    for name, check in CHECKS.items():
        try:
            check(bench.device)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
            bench.fact(name, found[name])
        bench.number(name, "holds", float(name not in found))
    if found:
        raise CheckFailed("; ".join(f"{name}: {error}" for name, error in found.items()))


# --- what they are made of ------------------------------------------------------------------------


def _segments(dtype: torch.dtype) -> list[list[LayerKV]]:
    """Segments of four layers, each (1, 2, 16, 8), with the numbers that rounding would lose."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randn(SEGMENTS, LAYERS, 2, 1, 2, 16, 8, generator=generator).to(dtype)
    numbers[2, 0, 0, 0, 0, 0, :4] = torch.tensor([torch.nan, -0.0, torch.inf, 6e-8])
    return [[LayerKV(layer[0], layer[1]) for layer in segment] for segment in numbers]


def _pinned_store(device: torch.device) -> DVRStore:
    return _quietly(lambda: DVRStore("pinned", device))


def _quietly(action: Callable[[], T]) -> T:
    """Without the warning that there is nothing to pin for on a CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


@contextmanager
def _seen_as(device: torch.device) -> Iterator[None]:
    """`pick_device` says this device for a while."""
    before = os.environ.get("TIMESCOPE_DEVICE")
    os.environ["TIMESCOPE_DEVICE"] = str(device)
    try:
        yield
    finally:
        os.environ.pop("TIMESCOPE_DEVICE")
        if before is not None:
            os.environ["TIMESCOPE_DEVICE"] = before


def _expect_window(store: DVRStore, segments: list[list[LayerKV]], window: tuple[int, int]) -> None:
    chosen = segments[window[0] : window[1] + 1]
    for layer_idx, layer in enumerate(store.reload(*window)):
        for part in (0, 1):
            wanted = torch.cat([segment[layer_idx][part] for segment in chosen], dim=2)
            same = np.array_equal(_bits(layer[part]), _bits(wanted))
            _expect(same, f"window {window}, layer {layer_idx} is not what was stored")


def _bits(numbers: Tensor) -> np.ndarray:
    """The bytes: NaN equals NaN, and zero does not equal negative zero."""
    return numbers.cpu().contiguous().view(torch.uint8).numpy()


def _expect(holds: bool, complaint: str) -> None:
    """An assertion that also holds under `python -O`."""
    if not holds:
        raise AssertionError(complaint)


def _expect_close(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    gap = float((found.cpu() - wanted.cpu()).abs().max())
    _expect(gap <= tolerance, f"{what} differ by {gap:.2g}, more than {tolerance:g}")


def _training(device: torch.device) -> tuple[TimeScope, Pile, Phase]:
    """A model of depth 2, symbolic frames of two domains, and a phase of short clips."""
    torch.manual_seed(0)
    domains = list(load_domains().values())[:2]
    vocabulary, source = vocabulary_of(domains), SymbolicSource(domains)
    model = TimeScope(ModelConfig(decoder_of(2), source.width), vocabulary).to(device)
    pile = Pile(domains, source, Writer(vocabulary, domains), seed=0)
    return model, pile, Phase("check", 8, ((1.0, (32,)),), WORDS, r=(4,), sees="reload")


def _batch(pile: Pile, phase: Phase) -> Batch:
    return pile.batch(0, 64, 2, 8, Mix(phase.kinds))


def _trainer(device: torch.device) -> Trainer:
    return Trainer(*_training(device))
