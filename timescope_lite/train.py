"""Training: dense pre-training, then SFT, in phases that are plain data. Resumable after a kill at
any step with the same losses.

Muon moves the matrices of the blocks, AdamW the rest. (In the study before this project plain AdamW
had not left the plateau after 600 steps; in this world the two have not been told apart yet: lesson
08.) The loop is the lesson: no framework.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.numpy import load_file as load_numpy
from safetensors.torch import load_file
from torch import Tensor

from timescope_lite.common import (
    BudgetError,
    UserError,
    pick_device,
    pick_dtype,
    progress_bar,
    project_root,
    read_json,
    write_json,
    write_tensors,
)
from timescope_lite.corpus import (
    Batch,
    CachedSource,
    Mix,
    Pile,
    PixelSource,
    Symbols,
    draw_question,
    like_a_codec,
)
from timescope_lite.datasets.prompts import CHAIN_LOSS, TIME_LOSS, Writer, vocabulary_of
from timescope_lite.memory.budget import DEFAULT_R, least_r
from timescope_lite.model.checkpoint import save
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope, View
from timescope_lite.model.tokenizer import DIRECT, NUM_SECONDS, THINK
from timescope_lite.world.camera import Camera
from timescope_lite.world.domain import Domain, all_core, load_domains
from timescope_lite.world.render import render_frames, to_model_size
from timescope_lite.world.story import StoryConfig, tell

FRAMES_PER_STEP = 1024
MAX_QUESTIONS = 64
RIVALS = 1024  # a written time competes with at least so many seconds of the clock
STORIES_PER_FILE = 100
FEATURE_GAIN = 0.09  # standardised features of width 192: tokens of about unit size


@dataclass(frozen=True)
class Phase:
    """A stretch of training. `lengths` is a curriculum: (share of the phase until which it holds,
    video lengths to draw from).

    `sees` is what a fine question reads: `all` (dense or single-stage, over what r leaves),
    `reload` (HVR with the window reloaded), `focus` (HVR of the window only). With a `budget`
    (frames' worth) r is the smallest that brings a video within it, or, if `sampled`, frames are
    left out instead. Videos longer than 512 s are asked for their windows in `coarse_when_long` of
    the questions: finding is what length makes hard, not reading seconds.
    """

    name: str
    steps: int
    lengths: tuple[tuple[float, tuple[int, ...]], ...]
    kinds: Mapping[str, float]
    r: tuple[int, ...] = (1,)
    sees: str = "all"
    think: float = 0.6
    coarse: float = 0.3
    coarse_when_long: float | None = None
    jitter_s: tuple[int, int] = (-2, 4)
    misplaced: float = 0.0
    absent: float = 0.0
    hallucinated: float = 0.0
    budget: int | None = None
    sampled: bool = False
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    decay: float = 0.3
    warmup_steps: int = 30

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step: linear warm-up, flat, linear decay over the last
        `decay` of the phase.
        """
        left = (self.steps - step) / self.steps
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = left / max(self.decay, 1e-9)
        # Never quite 0: the last steps would be wasted.
        return rise * min(1.0, max(0.02, fall))

    def draw_length(self, step: int, rng: np.random.Generator) -> int:
        """A video length in seconds that the curriculum allows at this step."""
        done = step / self.steps
        choices = next(lengths for until, lengths in self.lengths if done <= until)
        return int(choices[int(rng.integers(len(choices)))])

    def draw_compression(self, seconds: int, rng: np.random.Generator) -> tuple[int, int]:
        """Compression r and the stride of frame sampling for a video of this length."""
        r = int(self.r[int(rng.integers(len(self.r)))])
        if self.budget is None:
            return r, 1
        if self.sampled:
            return 1, max(1, -(-seconds // self.budget))
        try:
            return least_r(seconds, self.budget, (1, 2, 4, 8)), 1
        except BudgetError:
            return DEFAULT_R, 1  # a video too long for the budget is read at the largest r


TASKS = {
    "activity": 0.08,
    "explicit": 0.14,
    "sign1": 0.1,
    "sign2": 0.1,
    "why": 0.07,
    "why2": 0.05,
    "why3": 0.06,
    "purpose": 0.09,
    "order": 0.1,
    "last_before": 0.1,
    "order_at": 0.05,
    "last_at": 0.05,
    "place": 0.03,
    "next_place": 0.03,
    "effect": 0.03,
}
# What is asked in the whole town: twelve task types, each hop alone, and dense captions.
TOWN_TASKS = {
    "activity": 0.07,
    "explicit": 0.1,
    "sign1": 0.08,
    "sign2": 0.08,
    "why": 0.05,
    "why2": 0.04,
    "why3": 0.05,
    "purpose": 0.07,
    "order": 0.09,
    "last_before": 0.08,
    "attribute": 0.06,
    "nth": 0.07,
    "where": 0.03,
    "consequence": 0.05,
    "change": 0.05,
    "oddity": 0.03,
    "order_at": 0.04,
    "last_at": 0.03,
    "nth_at": 0.03,
    "attribute_at": 0.03,
    "change_at": 0.02,
    "place": 0.02,
    "next_place": 0.03,
    "effect": 0.03,
    "captions": 0.03,
}
WORDS = {"activity": 0.5, "explicit": 0.3, "place": 0.2}
# What the whole town asks about events beyond naming them: in long videos, between twenty other
# kinds, these are hardly learned (docs/LOG.md).
DETAILS = {
    "attribute_at": 0.36,
    "last_at": 0.16,
    "nth_at": 0.14,
    "order_at": 0.14,
    "oddity": 0.14,
    "explicit": 0.06,
}
CURRICULUM = (
    (0.25, (32, 64)),
    (0.5, (32, 64, 128)),
    (0.75, (32, 64, 128, 256)),
    (1.0, (32, 64, 128, 256, 512)),
)  # short clips to the end: log
MINUTES = (128, 256, 256, 512, 512, 512, 1024)
MINUTES_AND_HOURS = (*MINUTES, 1024, 3600)
SHORT = (128, 128, 256, 512)
EVERY_LENGTH = (64, 64, 128, 256, 512, 1024, 2048, 3600)


def loss_of(model: TimeScope, batch: Batch, r: int, sees: str) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and the cross-entropy of every supervised token, (B, Q, T), zero
    elsewhere.

    Loss = time codes summed per question, averaged over questions, plus the mean over reasoning
    tokens. A time competes with `rivals` and <absent>, a word with words: less arithmetic than with
    8,192 seconds.
    """
    view = View(sees, batch.fine, batch.window)
    hidden = model(batch.features, batch.clock, batch.tokens, r, view)
    targets = batch.tokens.roll(-1, dims=-1)
    words = batch.loss == CHAIN_LOSS
    times = batch.loss == TIME_LOSS
    cost = torch.zeros(batch.tokens.shape, device=hidden.device)
    chain: Tensor | float = 0.0
    if words.any():
        scores = model.word_logits(hidden[words]).float()
        cost[words] = F.cross_entropy(scores, targets[words], reduction="none")
        chain = cost[words].mean()
    per_video = []
    for b, clock in enumerate(batch.clock.tolist()):
        first, num = rivals(clock, batch.features.shape[1])
        scores = model.time_logits(hidden[b][times[b]], first, num).float()
        seconds = targets[b][times[b]] - model.vocabulary.first_second - first
        # <absent> is class 0, so every second counts from 1; its token is below every second.
        classes = (seconds + 1).clamp(min=0)
        per_video.append(F.cross_entropy(scores, classes, reduction="none"))
    cost[times] = torch.cat(per_video)
    return cost[times].sum() / batch.fine.numel() + chain, cost.detach()


def rivals(clock: int, num_frames: int) -> tuple[int, int]:
    """First second of the clock and number of seconds that a time of a video competes with: the
    video's own, in the middle of RIVALS.

    A model that has only ever told the 32 seconds of a short clip apart chooses seconds outside of
    the window in a long video (docs/LOG.md).
    """
    num = max(num_frames, RIVALS)
    return min(max(0, clock - (num - num_frames) // 2), NUM_SECONDS - num), num


@dataclass
class Meter:
    """Running means of losses since the last report, by kind of token and kind of question."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, batch: Batch, cost: Tensor) -> None:
        """Add the supervised tokens of a step, as `loss_of` returns them."""
        supervised = batch.loss > 0
        fine = batch.fine.tolist()
        for (b, q, _), value, what in zip(
            supervised.nonzero().tolist(),
            cost[supervised].tolist(),
            batch.loss[supervised].tolist(),
            strict=True,
        ):
            part = "chain" if what == CHAIN_LOSS else ("fine" if fine[b][q] else "coarse")
            name = f"{part}/{batch.kinds[b][q]}"
            self.sums[name] += value
            self.counts[name] += 1

    def flush(self) -> dict[str, float]:
        """The means so far, as part/kind of question -> nats per token; starts anew."""
        means = {name: round(self.sums[name] / self.counts[name], 3) for name in sorted(self.sums)}
        self.sums.clear()
        self.counts.clear()
        return means


class Trainer:
    """One phase of training on one pile. `run` continues from `step`; `state` and `load_state` are
    all that a resume needs.
    """

    def __init__(self, model: TimeScope, pile: Pile, phase: Phase, log: Path | None = None) -> None:
        self.model, self.pile, self.phase, self.log = model, pile, phase, log
        self.device = model.words.device
        self.dtype = pick_dtype(self.device)
        matrices = [p for p in model.decoder.blocks.parameters() if p.dim() == 2]
        chosen = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        self.muon = torch.optim.Muon(matrices, lr=phase.muon_lr, weight_decay=0.05, momentum=0.95)
        self.adam = torch.optim.AdamW(
            rest, lr=phase.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )
        self.step = 0
        self.meter = Meter()

    def run(
        self,
        until: int | None = None,
        report_every: int = 100,
        save: Callable[[Trainer], None] | None = None,
        every_minutes: float = 10.0,
    ) -> None:
        """Train to step `until` (default: the end of the phase), calling `save` every so often.

        A loss that is not finite stops with the step named, before it touches the weights.
        """
        started, first, saved = time.time(), self.step, time.time()
        until = self.phase.steps if until is None else min(until, self.phase.steps)
        bar = progress_bar(
            initial=self.step, total=until, desc=self.phase.name, disable=None
        )  # time left; silent where nobody watches
        while self.step < until:
            self.one_step()
            bar.update()
            if self.step % report_every == 0 or self.step == until:
                self._report((time.time() - started) / (self.step - first))
            if save and time.time() - saved > 60 * every_minutes:
                save(self)
                saved = time.time()
        bar.close()

    def save_state(self, path: Path, phase_number: int) -> None:
        """Weights and optimiser state in one safetensors file, atomically: everything that a resume
        needs.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            for i, state in optimizer.state_dict()["state"].items():
                tensors |= {
                    f"{name}.{i}.{key}": torch.as_tensor(value) for key, value in state.items()
                }
        header = {
            "phase": str(phase_number),
            "step": str(self.step),
            "steps": str(self.phase.steps),
        }
        write_tensors(path, tensors, header)

    def load_state(self, path: Path) -> None:
        """Continue from `save_state`."""
        with safe_open(path, framework="pt") as file:
            self.step = int(file.metadata()["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        self.model.load_state_dict(
            {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")}
        )
        for name, optimizer in (("muon", self.muon), ("adam", self.adam)):
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in tensors.items():
                if key.startswith(f"{name}."):
                    _, number, what = key.split(".")
                    state.setdefault(int(number), {})[what] = tensor
            optimizer.load_state_dict(
                {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
            )

    def one_step(self) -> None:
        """Draw the batch of this step, compute the loss and move the weights. UserError for a loss
        that is not finite, with the weights as they were.
        """
        phase = self.phase
        rng = np.random.default_rng((self.pile.seed, self.step, 7))
        seconds = phase.draw_length(self.step, rng)
        r, stride = phase.draw_compression(seconds, rng)
        coarse = (
            phase.coarse
            if phase.coarse_when_long is None or seconds <= 512
            else phase.coarse_when_long
        )
        mix = Mix(
            phase.kinds,
            phase.think,
            coarse,
            phase.jitter_s,
            phase.misplaced,
            phase.absent,
            phase.hallucinated,
        )
        videos, questions = max(1, FRAMES_PER_STEP // seconds), min(MAX_QUESTIONS, seconds // 4)
        batch = self.pile.batch(self.step, seconds, videos, questions, mix, stride).to(self.device)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16
        ):
            loss, cost = loss_of(self.model, batch, r, phase.sees)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"the loss is {loss.item()} at step {self.step} of phase {phase.name!r}; the last "
                "good state is kept: lower the learning rate"
            )
        self._update(loss)
        self.meter.add(batch, cost)
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
        row = {
            "phase": self.phase.name,
            "step": self.step,
            "s_per_step": round(seconds_per_step, 3),
            "left_min": round(left / 60, 1),
        } | self.meter.flush()
        _log_row(self.log, row)


# --- recipes, and a run that survives a kill ------------------------------------------------------


@dataclass(frozen=True)
class FramePhase:
    """Pre-training of the frame encoder on single pictures: what is in this picture?"""

    stories: int = 1280
    frames_per_story: int = 48
    steps: int = 1600
    batch: int = 256
    lr: float = 2e-3


@dataclass(frozen=True)
class Recipe:
    """A whole training: single pictures, then the phases in order. `seed` and this are all that a
    run depends on.

    `town`: which domains (`load_domains`); outside the core town cameras are not perfect and
    stories have oddities.
    """

    system: str
    frames: FramePhase
    phases: tuple[Phase, ...]
    encoder: FrameEncoderConfig = field(default_factory=FrameEncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    pool_frames: int = 80_000
    town: str = "core"

    def key(self, phase_number: int, seed: int) -> str:
        """A name for the weights after a phase: recipes that agree up to there share it. Phase -1
        is the frame encoder.
        """
        parts: dict[str, Any] = dataclasses.asdict(self) | {"seed": seed, "system": None}
        parts["phases"] = [
            _without_defaults(dataclasses.asdict(p), hallucinated=0.0)
            for p in self.phases[: phase_number + 1]
        ]
        shared = (
            parts
            if phase_number >= 0
            else {name: parts[name] for name in ("frames", "encoder", "seed", "town")}
        )
        shared = _without_defaults(shared, town="core")
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def _without_defaults(values: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """What was added to recipes later and stands at its default is left out of their keys: weights
    from before are found again.
    """
    return {
        name: value
        for name, value in values.items()
        if name not in defaults or value != defaults[name]
    }


TRAINED_SYSTEMS = (
    "two_stage",
    "two_stage_no_cot",
    "single_stage",
    "single_stage_long",
    "uniform",
    "dense",
    "focus",
)


@dataclass(frozen=True)
class Scale:
    """A profile of training: how many times the steps of lab, how many times those of `sft3`, the
    depth of the decoder, and which town.
    """

    steps: float = 1.0
    last: float = 1.0
    depth: int = 4
    town: str = "core"


SCALES = {
    "smoke": Scale(steps=0.004),
    "lab": Scale(),
    "long": Scale(last=2.0),
    "town": Scale(last=3.0, town="all"),
    "full": Scale(steps=2.0, depth=8, town="all"),
}
FRAMES = {"core": FramePhase(), "all": FramePhase(stories=2800, frames_per_story=32, steps=3600)}


def decoder_of(depth: int) -> DecoderConfig:
    """One dial for the size: width, heads and MLP follow from the depth. 4 is tiny, 8 is base.

    UserError for a depth that is no number of layers.
    """
    if depth < 1:
        raise UserError(f"depth {depth}: expected 1 or more layers, 4 (tiny) or 8 (base)")
    return DecoderConfig(
        width=32 * depth,
        layers=depth,
        heads=max(2, depth // 2),
        kv_heads=max(2, depth // 2),
        mlp_width=84 * depth,
    )


def recipe(profile: str, system: str = "two_stage", depth: int | None = None) -> Recipe:
    """`smoke` proves that it runs, `lab` trains tiny on CPU cores, `long` is lab with a last phase
    of twice the steps (the committed weights), `town` has all 35 domains, twelve task types and
    three times the steps of `sft3`, `full` trains base there, twice the steps at twice the depth.
    UserError for an unknown name.

    Plain questions about short clips come first, then reasoning and longer videos, with short clips
    to the end (docs/LOG.md); in the whole town the details of events follow, on short clips again.
    The controls share all phases before fine-tuning (the one without reasoning, which never sees a
    chain, only `words`) and get as many steps of it.
    """
    if profile not in SCALES:
        raise UserError(f"unknown profile {profile!r}: expected one of {', '.join(SCALES)}")
    if system not in TRAINED_SYSTEMS:
        raise UserError(
            f"no recipe for the system {system!r}: expected one of {', '.join(TRAINED_SYSTEMS)}"
        )
    scale = SCALES[profile]
    think = 0.0 if system == "two_stage_no_cot" else 0.6
    core = scale.town == "core"
    tasks, longer = (
        (TASKS, 1.0) if core else (TOWN_TASKS, 1.4)
    )  # four times the words, twice the kinds
    if not think:  # a caption is written as words, and this control never writes any
        tasks = {kind: weight for kind, weight in tasks.items() if kind != "captions"}
    phases = (
        Phase("words", round(2000 * longer), ((1.0, (32,)),), WORDS, think=0.0, coarse=0.2),
        Phase(
            "dense",
            round(1000 * longer),
            CURRICULUM,
            tasks,
            think=think,
            absent=0.03,
            muon_lr=0.01,
            adam_lr=1.5e-3,
        ),
        Phase(
            "dense2",
            1000,
            ((1.0, (32, 64, 128, 256, 512)),),
            tasks,
            think=think,
            absent=0.03,
            muon_lr=0.01,
            adam_lr=1.5e-3,
        ),
        *(
            ()
            if core
            else (
                Phase(
                    "details",
                    1000,
                    ((1.0, (32,)),),
                    DETAILS,
                    think=0.0,
                    coarse=0.1,
                    muon_lr=0.01,
                    adam_lr=1.5e-3,
                ),
            )
        ),
        *_fine_tuning(system, think, tasks, core),
    )
    frames = (
        FramePhase(stories=8, frames_per_story=64, steps=20, batch=64)
        if profile == "smoke"
        else FRAMES[scale.town]
    )
    times = [scale.steps * (scale.last if phase.name == "sft3" else 1) for phase in phases]
    scaled = tuple(
        dataclasses.replace(phase, steps=max(4, round(phase.steps * by)))
        for phase, by in zip(phases, times, strict=True)
    )
    pool_frames = 80_000 if scale.steps >= 1 else 4_000
    return Recipe(
        system,
        frames,
        scaled,
        decoder=decoder_of(scale.depth if depth is None else depth),
        pool_frames=pool_frames,
        town=scale.town,
    )


def _fine_tuning(
    system: str, think: float, tasks: Mapping[str, float], core: bool
) -> tuple[Phase, ...]:
    """The two stages of SFT, in lab 200 and 1,600 steps for every system: plain localisation, then
    (two-stage) coarse-to-fine with temporal augmentation.

    `sft3` takes shorter videos: a step then holds up to four times as many questions, and a
    reloaded window looks the same in all. An hour now and then keeps the coarse stage in practice.
    The whole town, whose bench has videos from under a minute to an hour, ends in `sft4`: every
    length, at a falling rate.

    `single_stage_long` gets three times as many: a control must not lose by starvation.
    """
    ways: dict[str, dict[str, Any]] = {
        "two_stage": {"r": (4, 8, 16, 16, 16, 16), "sees": "reload"},
        "two_stage_no_cot": {"r": (4, 8, 16, 16, 16, 16), "sees": "reload"},
        "focus": {"budget": 128, "sees": "focus"},
        "single_stage": {"budget": 128, "coarse": 0.0},
        "single_stage_long": {"budget": 128, "coarse": 0.0},
        "uniform": {"budget": 128, "coarse": 0.0, "sampled": True},
        "dense": {"coarse": 0.0},
    }
    how = ways[system]
    coarse_to_fine = how.get("coarse") is None
    sft: dict[str, Any] = {
        "muon_lr": 0.01,
        "adam_lr": 1.5e-3,
        "absent": 0.04 if coarse_to_fine else 0.0,
        "think": think,
    } | how
    first = sft | {"coarse": 0.6 if coarse_to_fine else 0.0, "decay": 0.01}
    second = sft | {
        "coarse": 0.35 if coarse_to_fine else 0.0,
        "decay": 0.7,
        "misplaced": 0.04 if coarse_to_fine else 0.0,
    }
    if coarse_to_fine:
        second["coarse_when_long"] = 0.8
    lengths: tuple[int, ...] = MINUTES
    short: tuple[int, ...] = SHORT
    if system.startswith("two_stage"):
        lengths, short = MINUTES_AND_HOURS, (*SHORT, *SHORT, 3600)
    times = 3 if system == "single_stage_long" else 1
    phases = (
        Phase("sft1", 200 * times, ((1.0, (128, 256, 512)),), tasks, **first),
        Phase("sft2", 600 * times, ((1.0, lengths),), tasks, **second),
        Phase("sft3", 1000 * times, ((1.0, short),), tasks, **second),
    )
    if core:
        return phases
    every: tuple[int, ...] = EVERY_LENGTH
    if how.get("sampled"):
        every = EVERY_LENGTH[:-1]  # of an hour 125 frames would be left: no whole segments
    last = second | {"muon_lr": 4e-3, "adam_lr": 6e-4, "decay": 1.0}
    return (*phases, Phase("sft4", 800 * times, ((1.0, every),), tasks, **last))


def train(
    plan: Recipe,
    out: Path,
    seed: int = 0,
    resume: bool = False,
    every_minutes: float = 10.0,
    shared: Path | None = None,
) -> Path:
    """Run a recipe in the folder `out`; returns the checkpoint. With `resume` it goes on from the
    last durable state, with the same losses.

    Refuses to resume another recipe or seed, naming the key. A state is written after each phase
    and every `every_minutes`. What was trained once lies in `shared` (default: `shared` beside
    `out`) under a key of everything it depends on, and is not trained again for another system.
    """
    out, shared = Path(out), Path(shared or Path(out).parent / "shared")
    _claim(out, json.loads(json.dumps(dataclasses.asdict(plan) | {"seed": seed})), resume)
    torch.manual_seed(seed)
    domains = list(load_domains(plan.town).values())
    vocabulary = vocabulary_of(domains)
    encoder = _frozen_encoder(plan, domains, shared, seed, out / "log.jsonl")
    pixels = PixelSource(encoder, domains, cameras=plan.town != "core")
    source = CachedSource(pixels, seed, plan.pool_frames, shared / f"features-{plan.key(-1, seed)}")
    model = TimeScope(
        ModelConfig(
            plan.decoder,
            encoder.config.feature_width,
            feature_gain=FEATURE_GAIN,
            can_say_absent=True,
        ),
        vocabulary,
    )
    model.align(source.directions())
    model.to(pick_device())
    for number in range(_load_progress(plan, shared, seed, model), len(plan.phases)):
        trainer = Trainer(
            model,
            Pile(domains, source, Writer(vocabulary, domains), seed + 1000 * number),
            plan.phases[number],
            out / "log.jsonl",
        )
        if _state_step(out / "state.safetensors", number):
            trainer.load_state(out / "state.safetensors")
        trainer.run(
            save=partial(Trainer.save_state, path=out / "state.safetensors", phase_number=number),
            every_minutes=every_minutes,
        )
        write_tensors(shared / f"{plan.key(number, seed)}.safetensors", model.state_dict())
        right = free_running(
            model, Pile(domains, pixels, Writer(vocabulary, domains), seed), plan.phases[number]
        )
        _log_row(
            out / "log.jsonl",
            {"phase": plan.phases[number].name, "validation": "free-running", **right},
        )
    about = {
        "system": plan.system,
        "town": plan.town,
        "seed": seed,
        "steps": {phase.name: phase.steps for phase in plan.phases},
        "device": str(pick_device()),
    }
    model.frame_encoder, model.about = encoder, about
    return save(out / f"{plan.system}.safetensors", model)


@torch.no_grad()
def free_running(
    model: TimeScope, pile: Pile, phase: Phase, videos: int = 6, questions: int = 16
) -> dict[str, float]:
    """R1@0.5 by kind of question on stories that training never draws, everything written by the
    model itself: teacher-forced losses of a chain mislead.

    What is read follows the phase: everything that r leaves, or HVR with the window that the model
    chose reloaded.
    """
    model.eval()
    seconds = min(256, max(max(lengths) for _, lengths in phase.lengths))
    hits: dict[str, list[float]] = defaultdict(list)
    for i in range(videos):
        rng = np.random.default_rng((pile.seed, 10**6 + i))
        r, stride = phase.draw_compression(seconds, rng)
        story, features = pile.source.draw(pile.domains, seconds, (pile.seed, 10**6, i), pile.story)
        S = model.config.frames_per_segment
        memory = model.stream([(part, S) for part in features[::stride].split(S)], r)
        kinds = {kind: weight for kind, weight in phase.kinds.items() if kind != "captions"}
        asked = [draw_question(story, kinds, rng, phrasing=pile.phrasing) for _ in range(questions)]
        prompts = [
            [*pile.writer.question(story, q), THINK if phase.think else DIRECT] for q in asked
        ]
        for q, prompt, coarse in zip(asked, prompts, model.coarse(memory, prompts), strict=True):
            layers = memory.mixed(*coarse.window) if phase.sees == "reload" else memory.hvr
            start, end = (t * stride for t in model.fine(layers, memory, prompt, coarse.chain))
            overlap = max(0.0, min(end, q.end_s) - max(start, q.start_s))
            hits[q.kind].append(float(overlap / (max(end, q.end_s) - min(start, q.start_s)) >= 0.5))
    model.train()
    everything = [hit for found in hits.values() for hit in found]
    return {"r1@0.5": round(float(np.mean(everything)), 3)} | {
        kind: round(float(np.mean(found)), 2) for kind, found in sorted(hits.items())
    }


def main(
    profile: str = "smoke",
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    system: str = "two_stage",
    depth: int | None = None,
) -> Path:
    """Train by profile into `out` (default: runs/train/PROFILE-SYSTEM of the checkout or of the
    current folder) and say where the checkpoint is.
    """
    plan = recipe(profile, system, depth)
    path = train(
        plan,
        out or (project_root() or Path.cwd()) / "runs" / "train" / f"{profile}-{system}",
        seed,
        resume,
    )
    print(f"checkpoint: {path}")
    return path


def _claim(out: Path, plan: dict[str, object], resume: bool) -> None:
    """Write the plan of a new run, or compare it with the one that is being resumed."""
    path = out / "plan.json"
    if not path.is_file():
        write_json(path, plan)
        return
    if not resume:
        raise UserError(
            f"{out} holds a training already; add --resume to go on, or take another folder"
        )
    before = read_json(path, "plan of the training")
    for key in sorted(set(before) | set(plan)):
        if before.get(key) != plan.get(key):
            raise UserError(
                f"cannot resume {out}: {key!r} differs from the run that began there; take another "
                "folder, or restore it"
            )


def _frozen_encoder(
    plan: Recipe, domains: Sequence[Domain], shared: Path, seed: int, log: Path
) -> FrameEncoder:
    """The frame encoder of this recipe, where `pick_device` says: trained once, then read back from
    its file.
    """
    path = shared / f"frames-{plan.key(-1, seed)}.safetensors"
    if path.is_file():
        encoder = FrameEncoder(dataclasses.replace(plan.encoder, fields=Symbols(domains).sizes))
        encoder.load_state_dict(load_file(path))
        return encoder.eval().requires_grad_(False).to(pick_device())
    drawn = shared / f"pictures-{plan.key(-1, seed)}"
    encoder = pretrain_frames(domains, plan.encoder, plan.frames, seed, log, drawn)
    write_tensors(path, encoder.state_dict())
    shutil.rmtree(drawn, ignore_errors=True)
    return encoder


def _load_progress(plan: Recipe, shared: Path, seed: int, model: TimeScope) -> int:
    """Fill the model with the furthest weights that an equal beginning of a recipe left; the number
    of the phase that comes next.
    """
    for number in reversed(range(len(plan.phases))):
        path = shared / f"{plan.key(number, seed)}.safetensors"
        if path.is_file():
            model.load_state_dict(load_file(path))
            return number + 1
    return 0


def _state_step(path: Path, phase_number: int) -> int:
    """At which step of this phase a run was stopped (0: not in this phase)."""
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    return int(header["step"]) if int(header["phase"]) == phase_number else 0


# --- the frame encoder ----------------------------------------------------------------------------


def picture_pool(
    domains: Sequence[Domain], phase: FramePhase, seed: int, keep: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 (N, 64, 64, 3) from many stories and the classes of what they show (N, 9).
    Outside the core town every story has its own camera.

    With a folder `keep` every STORIES_PER_FILE stories are written there: drawing takes minutes,
    and whoever is killed goes on where it stopped, with the same pictures.
    """
    rng = np.random.default_rng((seed, 17))
    parts = []
    for first in range(0, phase.stories, STORIES_PER_FILE):
        stories = range(first, min(first + STORIES_PER_FILE, phase.stories))
        path = None if keep is None else keep / f"{first:06}.safetensors"
        if path is not None and path.is_file():
            parts.append(load_numpy(path))
            for _ in stories:  # the same draws as below: what follows must not change
                rng.choice(512, phase.frames_per_story, replace=False)
                rng.random(phase.frames_per_story)
                if not all_core(domains):
                    Camera.draw(rng)
            continue
        pixels, classes = _draw_pictures(domains, phase, seed, stories, rng)
        parts.append({"pixels": pixels, "classes": classes})
        if path is not None:
            write_tensors(path, {name: torch.from_numpy(t) for name, t in parts[-1].items()})
    pixels = np.concatenate([part["pixels"] for part in parts])
    return pixels, np.concatenate([part["classes"] for part in parts])


def _draw_pictures(
    domains: Sequence[Domain],
    phase: FramePhase,
    seed: int,
    stories: range,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and classes of some stories; see `picture_pool`."""
    symbols, whole = Symbols(domains), not all_core(domains)
    pixels, classes = [], []
    for i in stories:
        story = tell(domains[i % len(domains)], 512, (seed, 17, i), StoryConfig(oddities=whole))
        seconds = np.sort(rng.choice(512, phase.frames_per_story, replace=False))
        if (
            whole and story.oddity
        ):  # seconds in ten minutes: else the frame encoder hardly ever saw one
            seconds[: story.oddity.end_s - story.oddity.start_s] = range(
                story.oddity.start_s, story.oddity.end_s
            )
        moments = seconds + rng.random(len(seconds))
        camera = Camera.draw(rng) if whole else Camera(0)
        pixels.append(
            to_model_size(
                camera.film(render_frames(story.domain, story.states[seconds], moments), moments)
            )
        )
        classes.append(symbols.classes(story.domain, story.states[seconds]))
    return np.concatenate(pixels), np.concatenate(classes)


def pretrain_frames(
    domains: Sequence[Domain],
    config: FrameEncoderConfig,
    phase: FramePhase,
    seed: int,
    log: Path | None = None,
    keep: Path | None = None,
) -> FrameEncoder:
    """Train a frame encoder to name everything in a picture, then fix the scale of its features.
    Deterministic for a seed on one device type. `keep`: a folder for the pictures (`picture_pool`).
    """
    torch.manual_seed(seed)
    device = pick_device()
    encoder = FrameEncoder(dataclasses.replace(config, fields=Symbols(domains).sizes)).to(
        device, memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    pixels, classes = picture_pool(domains, phase, seed, keep)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=phase.lr, weight_decay=0.01)
    rng, started = np.random.default_rng((seed, 18)), time.time()
    for step in range(phase.steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                phase.lr
                * min(1, (step + 1) / 50)
                * 0.5
                * (1 + math.cos(math.pi * step / phase.steps))
            )
        chosen = rng.integers(len(pixels), size=phase.batch)
        images = _as_images(like_a_codec(pixels[chosen], rng), device)
        target = torch.from_numpy(classes[chosen]).to(device)
        with torch.autocast(
            device.type, dtype=torch.bfloat16, enabled=pick_dtype(device) == torch.bfloat16
        ):
            answers = encoder.answers(images)
        loss = torch.stack(
            [F.cross_entropy(answer.float(), target[:, i]) for i, answer in enumerate(answers)]
        ).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            right = [
                round(float((a.argmax(-1) == target[:, i]).float().mean()), 3)
                for i, a in enumerate(answers)
            ]
            _log_row(
                log,
                {
                    "phase": "frames",
                    "step": step + 1,
                    "s": round(time.time() - started),
                    "loss": round(float(loss), 4),
                    "right": right,
                },
            )
    encoder.eval().requires_grad_(False)
    encoder.standardise(_as_images(pixels[:: max(1, len(pixels) // 2048)], device))
    return encoder


def _as_images(pixels: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (N, 64, 64, 3) -> float (N, 3, 64, 64) in 0..1 on the device."""
    return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255


def _log_row(log: Path | None, row: dict[str, object]) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    if log:
        with log.open("a") as file:
            file.write(line + "\n")
