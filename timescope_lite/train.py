"""Training: dense pre-training, then SFT, in phases that are plain data. Resumable after a kill at any step with the same losses.

Muon moves the matrices of the blocks, AdamW the rest: with AdamW alone retrieval never starts at this size (docs/LOG.md). The loop is the lesson: no framework.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from timescope_lite.common import UserError, pick_dtype
from timescope_lite.corpus import Batch, Mix, Pile, Symbols, like_a_codec
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import Encoded, TimeScope
from timescope_lite.text import CHAIN_LOSS, TIME_LOSS
from timescope_lite.world.domain import Domain
from timescope_lite.world.render import render_frames, to_model_size
from timescope_lite.world.story import tell

FRAMES_PER_STEP = 1024
MAX_QUESTIONS = 64


@dataclass(frozen=True)
class Phase:
    """A stretch of training. `lengths` is a curriculum: (share of the phase until which it holds, video lengths to draw from).

    `sees` is what a fine question reads: `all` (dense or single-stage, over what r leaves), `reload` (HVR with the window reloaded), `focus` (HVR of the window only).
    """

    name: str
    steps: int
    lengths: tuple[tuple[float, tuple[int, ...]], ...]
    kinds: Mapping[str, float]
    r: tuple[int, ...] = (1,)
    sees: str = "all"
    think: float = 0.6
    coarse: float = 0.3
    jitter_s: tuple[int, int] = (-2, 4)
    misplaced: float = 0.0
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    decay: float = 0.3
    warmup_steps: int = 100

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step: linear warm-up, flat, linear decay over the last `decay` of the phase."""
        left = (self.steps - step) / self.steps
        return min(1.0, (step + 1) / self.warmup_steps) * min(1.0, max(0.02, left / max(self.decay, 1e-9)))

    def draw_length(self, step: int, rng: np.random.Generator) -> int:
        done = step / self.steps
        choices = next(lengths for until, lengths in self.lengths if done <= until)
        return int(choices[int(rng.integers(len(choices)))])


TASKS = {"explicit": 0.3, "sign1": 0.2, "sign2": 0.2, "why": 0.15, "place": 0.05, "next_place": 0.05, "effect": 0.05}
WARM_UP = {"explicit": 0.42, "activity": 0.38, "place": 0.14, "effect": 0.06}
CURRICULUM = ((0.2, (64,)), (0.45, (64, 128)), (0.7, (128, 256)), (1.0, (256, 512)))


def loss_of(model: TimeScope, batch: Batch, r: int, sees: str) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of a batch, and for every supervised token its cross-entropy and its kind (CHAIN_LOSS or TIME_LOSS).

    Loss = time codes summed per question, averaged over questions, plus the mean over reasoning tokens.
    """
    encoded = model.encode(batch.features, batch.clock, r)
    layers, mask = what_is_seen(model, encoded, batch, sees)
    hidden, _ = model.read(batch.tokens, layers, encoded.num_frames, mask)
    supervised = batch.loss > 0
    logits = model.logits(hidden[supervised]).float()
    targets = batch.tokens.roll(-1, dims=-1)[supervised]
    cost, kind = F.cross_entropy(logits, targets, reduction="none"), batch.loss[supervised]
    times = cost[kind == TIME_LOSS].sum() / batch.fine.numel()
    chain = cost[kind == CHAIN_LOSS]
    return times + (chain.mean() if len(chain) else 0.0), cost.detach(), kind


def what_is_seen(model: TimeScope, encoded: Encoded, batch: Batch, sees: str) -> tuple[list, Tensor | None]:
    """Per layer the keys, and per question which of them it may attend to (None: all)."""
    if sees == "all" or encoded.r == 1:
        return encoded.pooled, None
    S, K = model.config.frames_per_segment, model.config.tokens_per_frame
    device = batch.tokens.device
    slots = torch.arange(encoded.pooled[0].k.shape[2], device=device) // (S * K // encoded.r)
    frames = torch.arange(encoded.num_frames * K, device=device) // (S * K)
    inside = lambda segment: (segment >= batch.window[..., :1]) & (segment <= batch.window[..., 1:])  # noqa: E731
    fine = batch.fine[..., None]
    if sees == "focus":
        return encoded.pooled, ~fine | inside(slots)
    if sees != "reload":
        raise UserError(f"unknown way to see the memory {sees!r}: expected all, reload or focus")
    return encoded.both(), torch.cat([~fine | ~inside(slots), fine & inside(frames)], dim=-1)


@dataclass
class Meter:
    """Running means of losses since the last report, by kind of token and kind of question."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, batch: Batch, cost: Tensor, kind: Tensor) -> None:
        question = (batch.loss > 0).nonzero()
        for i, (value, what) in enumerate(zip(cost.tolist(), kind.tolist(), strict=True)):
            b, q = int(question[i, 0]), int(question[i, 1])
            part = "chain" if what == CHAIN_LOSS else ("fine" if bool(batch.fine[b, q]) else "coarse")
            name = f"{part}/{batch.kinds[b][q]}"
            self.sums[name] += value
            self.counts[name] += 1

    def flush(self) -> dict[str, float]:
        means = {name: round(self.sums[name] / self.counts[name], 3) for name in sorted(self.sums)}
        self.sums.clear()
        self.counts.clear()
        return means


class Trainer:
    """One phase of training on one pile. `run` continues from `step`; `state` and `load_state` are all that a resume needs."""

    def __init__(self, model: TimeScope, pile: Pile, phase: Phase, log: Path | None = None) -> None:
        self.model, self.pile, self.phase, self.log = model, pile, phase, log
        self.device = model.words.device
        self.dtype = pick_dtype(self.device)
        matrices = [p for p in model.decoder.blocks.parameters() if p.dim() == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        self.muon = torch.optim.Muon(matrices, lr=phase.muon_lr, weight_decay=0.05, momentum=0.95)
        self.adam = torch.optim.AdamW(rest, lr=phase.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.step = 0
        self.meter = Meter()

    def run(self, until: int | None = None, report_every: int = 100) -> None:
        """Train to step `until` (default: the end of the phase). A loss that is not finite stops with the step named; the model keeps its last good state."""
        started, first = time.time(), self.step
        until = self.phase.steps if until is None else min(until, self.phase.steps)
        while self.step < until:
            self._one_step()
            if self.step % report_every == 0 or self.step == until:
                self._report((time.time() - started) / (self.step - first))

    def _one_step(self) -> None:
        phase = self.phase
        rng = np.random.default_rng((self.pile.seed, self.step, 7))
        seconds = phase.draw_length(self.step, rng)
        r = int(phase.r[int(rng.integers(len(phase.r)))])
        mix = Mix(phase.kinds, phase.think, phase.coarse, phase.jitter_s, phase.misplaced)
        batch = self.pile.batch(self.step, seconds, max(1, FRAMES_PER_STEP // seconds), min(MAX_QUESTIONS, seconds // 4), mix).to(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            loss, cost, kind = loss_of(self.model, batch, r, phase.sees)
        if not math.isfinite(loss.item()):
            raise UserError(f"the loss is {loss.item()} at step {self.step} of phase {phase.name!r}; the last good state is kept: lower the learning rate")
        self._update(loss)
        self.meter.add(batch, cost, kind)
        self.step += 1

    def _update(self, loss: Tensor) -> None:
        share = self.phase.rate(self.step)
        for optimizer, rate in ((self.muon, self.phase.muon_lr), (self.adam, self.phase.adam_lr)):
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rate * share
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adam.step()

    def _report(self, seconds_per_step: float) -> None:
        left = (self.phase.steps - self.step) * seconds_per_step
        row = {"phase": self.phase.name, "step": self.step, "s_per_step": round(seconds_per_step, 3), "left_min": round(left / 60, 1)} | self.meter.flush()
        _log_row(self.log, row)


# --- the frame encoder --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FramePhase:
    """Pre-training of the frame encoder on single pictures: what is in this picture?"""

    stories: int = 150
    frames_per_story: int = 160
    steps: int = 2000
    batch: int = 256
    lr: float = 2e-3


def picture_pool(domains: Sequence[Domain], phase: FramePhase, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (N, 64, 64, 3) from many stories and the classes of what they show (N, 9)."""
    symbols, rng = Symbols(domains), np.random.default_rng((seed, 17))
    pixels, classes = [], []
    for i in range(phase.stories):
        story = tell(domains[i % len(domains)], 512, (seed, 17, i))
        seconds = np.sort(rng.choice(512, phase.frames_per_story, replace=False))
        moments = seconds + rng.random(len(seconds))
        pixels.append(to_model_size(render_frames(story.domain, story.states[seconds], moments)))
        classes.append(symbols.classes(story.domain, story.states[seconds]))
    return np.concatenate(pixels), np.concatenate(classes)


def pretrain_frames(domains: Sequence[Domain], config: FrameEncoderConfig, phase: FramePhase, seed: int, log: Path | None = None) -> FrameEncoder:
    """Train a frame encoder to name everything in a picture, then fix the scale of its features. Deterministic for a seed on one device type."""
    torch.manual_seed(seed)
    encoder = FrameEncoder(dataclasses.replace(config, fields=Symbols(domains).sizes)).to(memory_format=torch.channels_last)
    pixels, classes = picture_pool(domains, phase, seed)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=phase.lr, weight_decay=0.01)
    rng, started = np.random.default_rng((seed, 18)), time.time()
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = phase.lr * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
        chosen = rng.integers(len(pixels), size=phase.batch)
        images = torch.from_numpy(like_a_codec(pixels[chosen], rng)).permute(0, 3, 1, 2).float() / 255
        target = torch.from_numpy(classes[chosen])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=pick_dtype(torch.device("cpu")) == torch.bfloat16):
            answers = encoder.answers(images)
        loss = sum(F.cross_entropy(answer.float(), target[:, i]) for i, answer in enumerate(answers))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            right = [round(float((a.argmax(-1) == target[:, i]).float().mean()), 3) for i, a in enumerate(answers)]
            _log_row(log, {"phase": "frames", "step": step + 1, "s": round(time.time() - started), "loss": round(float(loss), 4), "right": right})
    encoder.eval().requires_grad_(False)
    encoder.standardise(torch.from_numpy(pixels[:: max(1, len(pixels) // 2048)]).permute(0, 3, 1, 2).float() / 255)
    return encoder


def _log_row(log: Path | None, row: dict[str, object]) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    if log:
        with log.open("a") as file:
            file.write(line + "\n")
