"""A training step: how long it takes, and what share of the device's matrix rate that is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from timescope_lite.bench_gpu.machine import name_of
from timescope_lite.bench_gpu.record import Bench
from timescope_lite.bench_gpu.timing import matrix_rate, seconds_of
from timescope_lite.common import pick_dtype
from timescope_lite.corpus import Batch, Mix, Pile, SymbolicSource
from timescope_lite.datasets.prompts import Writer, vocabulary_of
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.train import (
    FEATURE_GAIN,
    FRAMES_PER_STEP,
    MAX_QUESTIONS,
    Phase,
    Trainer,
    decoder_of,
    loss_of,
    recipe,
)
from timescope_lite.world.domain import load_domains

SECONDS = 512  # of the videos of the measured step
R = 16


class OneBatch(Pile):
    """The same batch at every step: what is timed is the step, not the drawing of its batch."""

    def keep(self, batch: Batch) -> None:
        """What every step gets."""
        self.kept = batch

    def batch(
        self, step: int, num_seconds: int, videos: int, questions: int, mix: Mix, stride: int = 1
    ) -> Batch:
        """What is kept, whatever is asked for."""
        return self.kept


def steps(bench: Bench) -> None:
    """For every depth: seconds of a step of the last coarse-to-fine phase, its floating-point
    operations, its share of the matrix rate in the same precision.
    """
    dtype = pick_dtype(bench.device)
    bench.fact("step_precision", name_of(dtype))
    rate = matrix_rate(bench.device, dtype, bench.sizes.matrix, bench.sizes.repeats)
    for depth in bench.sizes.depths:
        if bench.on_card:
            torch.cuda.reset_peak_memory_stats(bench.device)
        trainer = _trainer(bench, depth)
        operations = _operations(trainer)
        seconds = seconds_of(trainer.one_step, bench.device, bench.sizes.repeats)
        bucket = f"depth={depth}"
        bench.number(bucket, "step_seconds", seconds, bench.sizes.repeats)
        bench.number(bucket, "step_flop", operations)
        bench.number(bucket, "matrix_rate_share", operations / seconds / rate)
        bench.number(bucket, "parameters", sum(p.numel() for p in trainer.model.parameters()))
        if bench.on_card:
            peak = torch.cuda.max_memory_allocated(bench.device)
            bench.number(bucket, "step_peak_bytes", peak)


def _trainer(bench: Bench, depth: int) -> Trainer:
    """A trainer of the whole town's `sft3` at this depth on one batch of symbolic frames."""
    torch.manual_seed(0)
    tiny = bench.sizes.name == "tiny"
    seconds = SECONDS // 8 if tiny else SECONDS
    domains = list(load_domains("core" if tiny else "all").values())
    vocabulary, source = vocabulary_of(domains), SymbolicSource(domains, width=192)
    config = ModelConfig(decoder_of(depth), source.width, feature_gain=FEATURE_GAIN)
    model = TimeScope(config, vocabulary).to(bench.device)
    pile = OneBatch(domains, source, Writer(vocabulary, domains), seed=0)
    phase = _phase("smoke" if tiny else "full", seconds)
    videos, questions = FRAMES_PER_STEP // seconds, min(MAX_QUESTIONS, seconds // 4)
    mix = Mix(phase.kinds, phase.think, phase.coarse)
    pile.keep(Pile.batch(pile, 0, seconds, 1 if tiny else videos, questions, mix))
    return Trainer(model, pile, phase)


def _phase(profile: str, seconds: int) -> Phase:
    """`sft3` of a profile's recipe, at one length and one r."""
    phase = next(phase for phase in recipe(profile).phases if phase.name == "sft3")
    return replace(phase, steps=10_000, lengths=((1.0, (seconds,)),), r=(R,))


def _operations(trainer: Trainer) -> float:
    """Floating-point operations of loss and gradient, counted as they happen: the matrix products
    and the attention, without the optimisers' own.
    """
    batch = trainer.pile.batch(0, 0, 0, 0, Mix({})).to(trainer.device)
    with FlopCounterMode(display=False) as counter:
        with torch.autocast(
            trainer.device.type,
            dtype=torch.bfloat16,
            enabled=trainer.dtype == torch.bfloat16,
        ):
            loss, _ = loss_of(trainer.model, batch, R, trainer.phase.sees)
        loss.backward()
    return float(counter.get_total_flops())
