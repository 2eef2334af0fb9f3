"""What a training set teaches: one tiny model on symbolic frames, trained on piles that differ in
one thing, and asked the same questions.

The reasoning (true, none, a teacher who is wrong about a share of its hops), what is left out (task
types, compositions, a domain, paraphrases), what is asked at all, and what comes before. One domain
of the whole town, all of its twelve task types, everything read uncompressed in one pass: memory is
not the question here. One seed a variant. Lessons 11 and 12.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from timescope_lite.baselines import Video, dense
from timescope_lite.common import UserError, atomic_path, write_tensors
from timescope_lite.corpus import (
    LEFT_OUT_COMPOSITION,
    LEFT_OUT_DOMAIN,
    LEFT_OUT_TYPES,
    CachedSource,
    Pile,
    SymbolicSource,
    events_of,
)
from timescope_lite.datasets.prompts import Writer, vocabulary_of
from timescope_lite.intervals import Interval, tiou
from timescope_lite.metrics import bootstrap, events_told
from timescope_lite.model import reading
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import DIRECT, THINK
from timescope_lite.model.two_stage import Answer
from timescope_lite.results import Estimate, write_result
from timescope_lite.train import TOWN_TASKS, WORDS, Phase, Trainer
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import Story, StoryConfig
from timescope_lite.world.tasks import TASK_TYPES, Question, ask

TRAINED_DOMAIN = "hospital"
WIDTH = 160  # of the symbolic features, which mix 251 symbols
POOL_FRAMES = 60_000  # of stories of each length


@dataclass(frozen=True)
class Variant:
    """One training set: `about` says in a few words what is different. `think`: share of examples
    with reasoning; `hallucinated`: share of hops that the teacher gets wrong; `without` and `only`:
    kinds of question; `both_domains`: the left-out one is trained on, too; `words`: whether plain
    localisation comes first; `captions`: share of dense captions.
    """

    about: str
    think: float = 0.6
    hallucinated: float = 0.0
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    both_domains: bool = False
    words: bool = True
    captions: float = 0.0

    def kinds(self) -> dict[str, float]:
        """What is asked in training, with weights. UserError where nothing is left."""
        kinds = {
            kind: weight
            for kind, weight in TOWN_TASKS.items()
            if kind != "captions" and kind not in self.without
        }
        kinds = {
            kind: weight for kind, weight in kinds.items() if not self.only or kind in self.only
        }
        if not kinds:
            raise UserError(f"the variant {self.about!r} leaves no question to train on")
        return kinds | ({"captions": self.captions * sum(kinds.values())} if self.captions else {})


EXPLICIT = ("activity", "explicit", "place", "effect")
VARIANTS = {
    "base": Variant("true reasoning in 60 % of the examples"),
    "no_reasoning": Variant("no reasoning", think=0.0),
    "teacher_10": Variant("a teacher who is wrong about 10 % of the hops", hallucinated=0.1),
    "teacher_30": Variant("a teacher who is wrong about 30 % of the hops", hallucinated=0.3),
    "teacher_50": Variant("a teacher who is wrong about half of the hops", hallucinated=0.5),
    "no_types": Variant("without what-for and n-th time", without=LEFT_OUT_TYPES),
    "no_composition": Variant(
        "without a rule behind signs: each alone, not both", without=LEFT_OUT_COMPOSITION
    ),
    "explicit_only": Variant("descriptions only", only=EXPLICIT),
    "tasks_only": Variant("tasks only, no description", without=EXPLICIT),
    "both_domains": Variant("the second domain, too", both_domains=True),
    "no_words": Variant("no plain localisation before", words=False),
    "captions": Variant("a tenth of dense captions", captions=0.1),
}


@dataclass(frozen=True)
class Effort:
    """Training steps of the two phases; then on how many videos of which length (seconds) each set
    of questions is scored.
    """

    words: int = 300
    dense: int = 900
    videos: int = 16
    seconds: int = 192


@dataclass(frozen=True)
class Questions:
    """A set of questions to score on: `phrasing` of `tasks.PHRASINGS`, trained domains or the
    left-out one, how long its videos are, which kinds, and how many times the videos of an
    `Effort`.
    """

    about: str
    phrasing: str = "trained"
    left_out_domain: bool = False
    seconds: int | None = None
    kinds: tuple[str, ...] = tuple(TASK_TYPES)
    times: int = 1


# `clips` has the lengths of Charades-STA: videos of 30.6 s and moments of 8.1 s on average, one
# described activity each (Gao et al. 2017).
SETS = {
    "seen": Questions("stories that training does not draw, everything else as trained"),
    "paraphrase": Questions("two phrasings of each kind that training never shows", "held_out"),
    "domain": Questions("a domain that training never shows", left_out_domain=True),
    "clips": Questions(
        "half a minute, one described activity", seconds=31, kinds=("activity", "explicit"), times=4
    ),
}
CLIPS = StoryConfig(activity_s=(7, 16), gap_s=(0, 12))


def phases(variant: Variant, effort: Effort) -> list[Phase]:
    """Plain localisation, then everything that the variant asks. Without the first the second takes
    its steps as well: equal steps.
    """
    kinds = variant.kinds()
    found: list[Phase] = []
    steps = effort.dense
    if variant.words:
        first = {kind: weight for kind, weight in WORDS.items() if kind in kinds} or {"place": 1.0}
        clips = ((1.0, (32,)),)
        found.append(Phase("words", effort.words, clips, first, think=0.0, coarse=0.2, decay=0.01))
    else:
        steps += effort.words
    how: dict[str, Any] = {
        "think": variant.think,
        "coarse": 0.2,
        "hallucinated": variant.hallucinated,
        "muon_lr": 0.013,
        "adam_lr": 2e-3,
    }
    longer = ((0.2, (32, 64)), (0.5, (32, 64, 128)), (1.0, (32, 64, 128, 256)))
    return [*found, Phase("dense", steps, longer, kinds, **how)]


def study(name: str, out: Path, effort: Effort | None = None, seed: int = 0) -> Path:
    """Train and score one variant into the folder `out`/`name`; returns its result.json. UserError
    for an unknown variant.

    The files: the training's `log.jsonl`, `rows.jsonl` (one row per question), `result.json` last.
    The weights after a first phase that several variants share are kept in `out`.
    """
    if name not in VARIANTS:
        raise UserError(f"unknown variant {name!r}: expected one of {', '.join(VARIANTS)}")
    started = time.time()
    variant = VARIANTS[name]
    effort = effort or Effort()
    folder = Path(out) / name
    known = load_domains("all")
    both = [known[TRAINED_DOMAIN], known[LEFT_OUT_DOMAIN]]
    source, vocabulary = SymbolicSource(both, width=WIDTH), vocabulary_of(both)
    torch.manual_seed(seed)
    model = TimeScope(ModelConfig(feature_width=WIDTH), vocabulary)
    model.align(source.directions())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").unlink(missing_ok=True)  # of a training that was killed
    trained = both if variant.both_domains else both[:1]
    pool = CachedSource(source, seed, POOL_FRAMES)
    for number, phase in enumerate(phases(variant, effort)):
        pile = Pile(trained, pool, Writer(vocabulary, both), seed + 1000 * number)
        pile.phrasing = "trained"
        shared = (
            Path(out) / f"words-{_key(phase, len(trained), seed)}.safetensors"
        )  # what variants have in common is trained once
        if phase.name == "words" and shared.is_file():
            model.load_state_dict(load_file(shared))
            continue
        Trainer(model, pile, phase, folder / "log.jsonl").run()
        if phase.name == "words":
            write_tensors(shared, model.state_dict())
    ways = {"reasons": THINK, "direct": DIRECT} if variant.think else {"direct": DIRECT}
    rows = [
        row
        for where in SETS
        for row in score(model.eval(), where, stories(source, where, effort), ways)
    ]
    metrics = summarise(rows)
    if variant.captions:
        metrics |= captions(model, stories(source, "seen", effort))
    with atomic_path(folder / "rows.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "variant": name,
        **dataclasses.asdict(variant),
        "effort": dataclasses.asdict(effort),
        "domain": TRAINED_DOMAIN,
    }
    wall = round(time.time() - started, 1)
    return write_result(
        folder, name=f"variant {name}", metrics=metrics, config=config, seed=seed, wall_s=wall
    )


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def stories(source: SymbolicSource, where: str, effort: Effort) -> list[tuple[Story, torch.Tensor]]:
    """The stories of a set with the features of their frames (F, 1, WIDTH); training draws none of
    them.
    """
    asked = SETS[where]
    domain = load_domains("all")[LEFT_OUT_DOMAIN if asked.left_out_domain else TRAINED_DOMAIN]
    config = CLIPS if asked.seconds else StoryConfig(oddities=True)
    return [
        source.draw([domain], asked.seconds or effort.seconds, (888, i), config)
        for i in range(effort.videos * asked.times)
    ]


@torch.no_grad()
def score(
    model: TimeScope,
    where: str,
    told: Sequence[tuple[Story, torch.Tensor]],
    ways: Mapping[str, int],
) -> list[dict[str, Any]]:
    """One row per question of a set; on what is as trained (`seen`) one for each of the `ways` to
    ask (name -> tag after the question), else for the first.
    """
    writer, rows = Writer(model.vocabulary, [story.domain for story, _ in told]), []
    for i, (story, features) in enumerate(told):
        rng = np.random.default_rng((888, i, 5))
        drawn = [ask(story, kind, rng, SETS[where].phrasing) for kind in SETS[where].kinds]
        asked = [q for q in drawn if q is not None]
        video = Video(model, features, story.num_seconds)
        for way, tag in list(ways.items())[: None if where == "seen" else 1] if asked else ():
            answers = dense(video, [[*writer.question(story, q), tag] for q in asked], asked, 0.0)
            rows += [
                _row(where, way, f"{i:03d}", story, q, a, writer)
                for q, a in zip(asked, answers, strict=True)
            ]
    return rows


def _row(  # noqa: PLR0913
    where: str, way: str, video: str, story: Story, q: Question, answer: Answer, writer: Writer
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "set": where,
        "way": way,
        "video": video,
        "kind": q.kind,
        "hops": q.hops,
        "truth": [q.start_s, q.end_s],
    }
    row["answer"] = [answer.start_s, answer.end_s]
    row["tiou"] = round(
        tiou(Interval(answer.start_s, answer.end_s), Interval(q.start_s, q.end_s)), 4
    )
    if way == "reasons":
        true = writer.chain(story, q)[:-1]
        row["right"] = [answer.chain[n : n + 1] == (token,) for n, token in enumerate(true)]
    return row


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """The flat map "way/set:kind/metric" (or set:all, set:hops=n) -> value and interval over
    videos: r1@0.5, and chain_right where it reasons.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        for part in ("all", row["kind"], f"hops={row['hops']}"):
            groups.setdefault(f"{row['way']}/{row['set']}:{part}", []).append(row)
    metrics = {}
    for name, chosen in groups.items():
        videos = [row["video"] for row in chosen]
        if len(set(videos)) < 2:
            continue
        found = {"r1@0.5": [float(row["tiou"] >= 0.5) for row in chosen]}
        if "right" in chosen[0]:
            found["chain_right"] = [float(all(row["right"])) for row in chosen]
        for metric, values in found.items():
            e = bootstrap(values, videos)
            metrics[f"{name}/{metric}"] = e
    return metrics


@torch.no_grad()
def captions(model: TimeScope, told: Sequence[tuple[Story, torch.Tensor]]) -> dict[str, Estimate]:
    """Dense captions of one chapter a video: F1 over the events (`metrics.events_told`), and of the
    events that overlap another one the share that is told.
    """
    writer = Writer(model.vocabulary, [story.domain for story, _ in told])
    scores = []
    overlapping = []
    names = []
    for i, (story, features) in enumerate(told):
        question = ask(story, "captions", np.random.default_rng((888, i, 6)))
        if question is None:
            continue
        memory = Video(model, features, story.num_seconds).memory(1)
        prompt = [*writer.question(story, question), THINK]
        written = reading.captions(model, memory.hvr, memory, prompt)
        words = writer.tokens[story.domain.name].activity
        chosen = events_of(story, question)[:6]
        true = [
            (
                int(words[story.event_word[e]]),
                float(story.event_start[e]),
                float(story.event_end[e]),
            )
            for e in chosen
        ]
        hits, spans = events_told(written, true), [Interval(*event[1:]) for event in true]
        scores.append(2 * sum(hits) / (len(true) + len(written)) if true else float(not written))
        beside = [
            any(span is not other and span.overlaps(other) for other in spans) for span in spans
        ]
        overlapping += [float(f) for f, b in zip(hits, beside, strict=True) if b]
        names += [str(i)] * sum(beside)
    found = {
        "f1": (scores, [str(i) for i in range(len(scores))]),
        "overlapping_found": (overlapping, names),
    }
    measured = {
        name: bootstrap(values, groups)
        for name, (values, groups) in found.items()
        if len(set(groups)) > 1
    }
    return {f"captions/seen:all/{name}": e for name, e in measured.items()}
