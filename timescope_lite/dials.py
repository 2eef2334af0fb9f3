"""Why this world: the dials of Tiny Town turned one at a time, on symbolic frames, and what
two-stage, one stage, focus and dense make of each.

Points that only change the story, S or r start from one dense backbone and are fine-tuned alike;
points that change what is trained from the first step (`joint`, K > 1) train from nothing with the
same number of steps. One seed a point: read differences below four points as noise.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timescope_lite import plots
from timescope_lite.baselines import Video
from timescope_lite.common import UserError, atomic_path
from timescope_lite.corpus import CachedSource, FeatureSource, Item, Pile, SymbolicSource
from timescope_lite.datasets.prompts import Writer, vocabulary_of
from timescope_lite.evaluate import differences, run_systems, summarise
from timescope_lite.memory.budget import DEFAULT_R
from timescope_lite.model.checkpoint import load, save
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.results import read_result, write_result
from timescope_lite.train import CURRICULUM, WORDS, Phase, Trainer
from timescope_lite.world.domain import Domain, load_domains
from timescope_lite.world.story import StoryConfig
from timescope_lite.world.tasks import ask, in_words

KINDS = ("explicit", "sign1", "sign2")
MIX = {"explicit": 0.4, "sign1": 0.25, "sign2": 0.25, "place": 0.05, "next_place": 0.05}
SECONDS, BUDGET = 512, 128
GAIN = f"two_stage@{BUDGET} - single_stage@{BUDGET}/all/difference_of_r1@0.5"
POOL_FRAMES = 60_000  # of stories of each length


@dataclass(frozen=True)
class Dial:
    """One point of the sweep: how stories are told, S frames per segment, compression r, K tokens
    per frame, and whether r applies from the first step.
    """

    story: StoryConfig = field(default_factory=StoryConfig)
    S: int = 16
    r: int = DEFAULT_R
    K: int = 1
    joint: bool = False

    @property
    def from_nothing(self) -> bool:
        return self.joint or self.K > 1


POINTS = {
    "base": Dial(),
    "tracks=1": Dial(StoryConfig(tracks=1)),
    "tracks=2": Dial(StoryConfig(tracks=2)),
    "activities=8-16s": Dial(StoryConfig(activity_s=(8, 16), gap_s=(0, 5))),
    "chapters=10-20s": Dial(StoryConfig(chapter_s=(10, 20))),
    "chapters=40-80s": Dial(StoryConfig(chapter_s=(40, 80))),
    "S=8": Dial(S=8, r=8),
    "S=32": Dial(S=32),
    "r=8": Dial(r=8),
    "joint": Dial(joint=True),
    "K=2": Dial(K=2),
}


@dataclass(frozen=True)
class Effort:
    """Training steps of a point: words, dense, and fine-tuning of each system; then what it is
    scored on.
    """

    words: int = 300
    dense: int = 500
    sft: int = 250
    videos: int = 16
    questions: int = 12


def phases_from_nothing(effort: Effort, dial: Dial) -> list[Phase]:
    """Words and dense pre-training; a `joint` point reads through the HVR with its window reloaded
    from the first step.
    """
    how: dict[str, Any] = {"r": (dial.r,), "sees": "reload"} if dial.joint else {}
    return [
        Phase(
            "words", effort.words, ((1.0, (32,)),), WORDS, think=0.0, coarse=0.2, decay=0.01, **how
        ),
        Phase("dense", effort.dense, CURRICULUM, MIX, **how),
    ]


def fine_tuning(effort: Effort, dial: Dial) -> dict[str, Phase]:
    """One fine-tuning per system, equal in steps: two-stage, one stage on what the budget leaves,
    focus, dense.
    """
    plain: dict[str, Any] = {"muon_lr": 0.013, "adam_lr": 2e-3, "decay": 0.6}
    lengths = ((1.0, (256, 512)),)
    return {
        "two_stage": Phase(
            "two_stage",
            effort.sft,
            lengths,
            MIX,
            r=(dial.r,),
            sees="reload",
            misplaced=0.05,
            **plain,
        ),
        "single_stage": Phase(
            "single_stage", effort.sft, lengths, MIX, budget=BUDGET, coarse=0.0, **plain
        ),
        "focus": Phase("focus", effort.sft, lengths, MIX, budget=BUDGET, sees="focus", **plain),
        "dense": Phase("dense", effort.sft, lengths, MIX, coarse=0.0, **plain),
    }


def fresh_model(
    domains: Sequence[Domain], source: SymbolicSource, dial: Dial, seed: int
) -> TimeScope:
    """An untrained model of symbolic frames."""
    torch.manual_seed(seed)
    config = ModelConfig(
        feature_width=source.width, tokens_per_frame=dial.K, frames_per_segment=dial.S
    )
    model = TimeScope(config, vocabulary_of(domains))
    model.align(source.directions())
    return model


def with_segments(path: Path, S: int) -> TimeScope:
    """The backbone with another segment length: S is no weight, only a way of reading."""
    model = load(path)
    model.config = dataclasses.replace(model.config, frames_per_segment=S)
    return model.train()


def turn(name: str, out: Path, effort: Effort | None = None, seed: int = 0) -> Path:
    """Train and score one point of the sweep; returns its result.json. UserError for an unknown
    point. The backbone lies beside the points and is made once.

    Every point trains two-stage and single-stage; `base` also focus and dense.
    """
    if name not in POINTS:
        raise UserError(f"unknown point {name!r}: expected one of {', '.join(POINTS)}")
    started, effort, dial = time.time(), effort or Effort(), POINTS[name]
    domains = list(load_domains().values())[:1]
    source = SymbolicSource(domains, tokens_per_frame=dial.K)
    folder, owner = Path(out) / name.replace("=", ""), Dial() if not dial.from_nothing else dial
    backbone = (
        Path(out) / "backbone.safetensors"
        if not dial.from_nothing
        else folder / "backbone.safetensors"
    )
    if not backbone.is_file():
        model = fresh_model(domains, source, owner, seed)
        pool = CachedSource(source, seed, POOL_FRAMES)
        for number, phase in enumerate(phases_from_nothing(effort, owner)):
            _train(
                model,
                domains,
                pool,
                phase,
                owner,
                seed + 1000 * number,
                backbone.with_suffix(".jsonl"),
            )
        model.about = {"seed": seed, "effort": dataclasses.asdict(effort)}
        save(backbone, model)
    rows, pool = [], CachedSource(source, seed + 1, POOL_FRAMES)
    for number, (system, phase) in enumerate(fine_tuning(effort, dial).items()):
        if system in {"focus", "dense"} and name != "base":
            continue
        model = with_segments(backbone, dial.S)
        _train(model, domains, pool, phase, dial, seed + 1000 * (10 + number), folder / "log.jsonl")
        rows += _score(
            model.eval(),
            domains,
            source,
            dial,
            effort,
            ("two_stage", "oracle_window") if system == "two_stage" else (system,),
        )
    with atomic_path(folder / "rows.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "point": name,
        "dial": dataclasses.asdict(dial),
        "effort": dataclasses.asdict(effort),
        "seconds": SECONDS,
        "budget": BUDGET,
    }
    return write_result(
        folder,
        name=f"dial {name}",
        metrics=summarise(rows) | differences(rows),
        config=config,
        seed=seed,
        wall_s=round(time.time() - started, 1),
    )


def draw(out: Path) -> Path:
    """The sweep as a picture, `dials.png` in `out`: what two stages gain over one at every point
    that has a result there. UserError if none has.
    """
    results = {
        name: read_result(path)
        for name in POINTS
        if (path := Path(out) / name.replace("=", "") / "result.json").is_file()
    }
    if not results:
        raise UserError(
            f"{out} holds no point of the sweep; run `timescope-lite bench dials --out {out}` first"
        )
    gains = {name: result.metrics[GAIN] for name, result in results.items()}
    lowest, highest = (chosen(gains, key=lambda name: gains[name].value) for chosen in (min, max))
    title = (
        f"Two stages gain most at {highest} ({gains[highest].value:+.2f}), least at {lowest} "
        f"({gains[lowest].value:+.2f})"
    )
    picture = plots.estimate_ladder(
        gains,
        title=title,
        xlabel="R1@0.5 of two stages minus one, 95 % interval over videos",
        zero=True,
    )
    return plots.save(picture, Path(out) / "dials.png")


def _train(  # noqa: PLR0913
    model: TimeScope,
    domains: list[Domain],
    source: FeatureSource,
    phase: Phase,
    dial: Dial,
    seed: int,
    log: Path,
) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    pile = Pile(domains, source, Writer(model.vocabulary, domains), seed, dial.S)
    pile.story = dial.story
    Trainer(model, pile, phase, log).run()


def _score(
    model: TimeScope,
    domains: list[Domain],
    source: SymbolicSource,
    dial: Dial,
    effort: Effort,
    systems: Sequence[str],
) -> list[dict[str, object]]:
    """Rows of `systems` on stories that training never drew."""
    writer, rows = Writer(model.vocabulary, domains), []
    for i in range(effort.videos):
        story, features = source.draw(domains, SECONDS, (777, i), dial.story)
        rng = np.random.default_rng((777, i, 5))
        asked = [ask(story, KINDS[n % len(KINDS)], rng) for n in range(effort.questions)]
        items = [
            Item(f"{i:03d}", story.domain.name, i, SECONDS, in_words(story, q), q)
            for q in asked
            if q is not None
        ]
        video = Video(model, features, SECONDS, dial.r)
        rows += run_systems(lambda system, video=video: video, items, writer, systems, (BUDGET,))  # type: ignore[misc]
    return rows
