"""Questions with four choices: answered from chosen frames, from what the question alone tells, and
by the model that grounds (notebook 13).

The answerer of frames is the same everywhere, the frozen frame encoder's own classifiers, so that
only the frames differ. The model that grounds answers in the same text in which it wrote its
interval: the next token after the interval, among the four choices.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timescope_lite.baselines import Video
from timescope_lite.common import UserError, atomic_path
from timescope_lite.corpus import (
    CachedSource,
    Example,
    Mix,
    Pile,
    PixelSource,
    Symbols,
    augmented_window,
    draw_question,
)
from timescope_lite.datasets.prompts import CHAIN_LOSS, NO_LOSS, TIME_LOSS, Writer, plain_words
from timescope_lite.grounding import shipped_model
from timescope_lite.intervals import tiou
from timescope_lite.memory import LayerKV
from timescope_lite.metrics import bootstrap, bootstrap_difference, vstar_am, vstar_lgm
from timescope_lite.model.checkpoint import load, save
from timescope_lite.model.frame_encoder import FrameEncoder
from timescope_lite.model.timescope import TimeScope
from timescope_lite.model.tokenizer import ANSWER, DIRECT, SO, THINK, Vocabulary
from timescope_lite.model.two_stage import Answer, locate
from timescope_lite.results import Estimate, write_result
from timescope_lite.train import TASKS, Phase, Trainer
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import DIRECT_NUMBERS, Story, StoryConfig
from timescope_lite.world.tasks import CORE_TASK_TYPES, Question, ask, in_words, quiz

Span = tuple[float, float]
WEIGHTS = "answering.safetensors"
HELD_OUT = 1313  # stories of the test; training draws its stories from seeds of another length
KINDS = tuple(CORE_TASK_TYPES)  # all that the core town asks, but the skills
NUM_FRAMES = (4, 8, 16, 32, 64)
WITH_RULES = ("whole", "similar", "grounded")
ZERO_SHOT = (
    "joint",
    "joint_true_interval",
    "at_once",
)  # what is asked of weights that never learned to answer
# Kinds whose answer follows from what is asked about by a rule or a plan of the town: whoever knows
# it need not look.
BY_RULE = ("why", "why2", "why3", "purpose")
# Log-probabilities of one choice on F frames (F,) -> one score; each stands for a belief about when
# a choice is shown.
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda log_p: log_p.exp().mean(0),
    "max": lambda log_p: log_p.max(0).values,
    "top-2": lambda log_p: log_p.exp().topk(min(2, len(log_p)), dim=0).values.mean(0),
    "all": lambda log_p: log_p.mean(0),
}


@dataclass(frozen=True)
class Asked:
    """A question with its short answer and four choices; `choices` as token ids too, `right` is the
    index of the answer.
    """

    question: Question
    text: str
    choices: tuple[str, ...]
    tokens: tuple[int, ...]
    right: int

    @classmethod
    def of(
        cls, story: Story, question: Question, vocabulary: Vocabulary, rng: np.random.Generator
    ) -> Asked:
        """The quiz of a drawn question. UserError if a choice is not one token of this
        vocabulary.
        """
        answer, choices = quiz(story, question, rng)
        tokens = [vocabulary.encode(choice) for choice in choices]
        if any(len(ids) != 1 for ids in tokens):
            raise UserError(
                f"the choices {', '.join(choices)} are not one token each in this vocabulary; take "
                "the model of this town"
            )
        return cls(
            question,
            in_words(story, question),
            choices,
            tuple(ids[0] for ids in tokens),
            choices.index(answer),
        )


def asked_of(
    story: Story, vocabulary: Vocabulary, seed: tuple[int, ...], kinds: Sequence[str] = KINDS
) -> list[Asked]:
    """One question of every kind that the story offers, with its choices; the same seed asks the
    same.
    """
    rng = np.random.default_rng((*seed, 5))
    drawn = [ask(story, kind, rng) for kind in kinds]
    return [Asked.of(story, q, vocabulary, rng) for q in drawn if q is not None]


# --- answers from frames --------------------------------------------------------------------------


def frames_of(span: Span, n: int) -> list[int]:
    """At most n frame indices, evenly spread over [start_s, end_s) at 1 frame per second, each
    once. UserError for n < 1 or a reversed span.
    """
    start_s, end_s = span
    if n < 1 or end_s < start_s:
        raise UserError(
            f"{n} frames of [{start_s:g}, {end_s:g}) s: expected at least one frame and an end "
            "that is not before the start"
        )
    last = max(int(np.ceil(end_s)) - 1, int(start_s))
    at = start_s + (np.arange(n) + 0.5) * (end_s - start_s) / n
    return sorted({min(int(t), last) for t in at})


class FrameAnswerer:
    """Reads choices off frames with the classifiers of a frozen frame encoder; it knows the
    question only by what kind of thing is asked for.
    """

    def __init__(self, encoder: FrameEncoder, symbols: Symbols, vocabulary: Vocabulary) -> None:
        self.encoder, self.vocabulary, self.named = encoder, vocabulary, symbols.named()

    @torch.no_grad()
    def beliefs(self, features: Tensor) -> list[Tensor]:
        """Log-probabilities per field of every frame, features (F, K, Cf) -> [(F, classes),
        ...].
        """
        return [scores.float().log_softmax(-1) for scores in self.encoder.classify(features)]

    def seen(self, beliefs: Sequence[Tensor], token: int, on_sign: bool = False) -> Tensor:
        """Log-probability that each frame shows what a token names, (F,). A place is looked for
        where the scene lies, or `on_sign`.
        """
        parts = self.vocabulary.names([token])
        if not parts or any(part not in self.named for part in parts[0]):
            raise UserError(
                f"token {token} ({self.vocabulary.decode([token])}) names nothing that the frame "
                "encoder can tell"
            )
        fields = [self.named[part] for part in parts[0]]
        return torch.stack(
            [beliefs[field + 2 * (on_sign and field < 2)][:, cls] for field, cls in fields]
        ).sum(0)

    def choices(self, beliefs: Sequence[Tensor], asked: Asked) -> Tensor:
        """Log-probability that each frame shows each choice, (F, 4). `explicit` asks where a sign
        leads, so its choices hang on signs.
        """
        return torch.stack(
            [
                self.seen(beliefs, token, asked.question.kind == "explicit")
                for token in asked.tokens
            ],
            dim=1,
        )

    def similar(self, beliefs: Sequence[Tensor], prompt: Sequence[int], n: int) -> list[int]:
        """The n frames that show most of what the words of the question name: what one does without
        grounding. In order of time.
        """
        words = [
            token
            for token in prompt
            if all(part in self.named for part in (self.vocabulary.names([token]) or [["?"]])[0])
        ]
        shown = (
            torch.stack([self.seen(beliefs, token).exp() for token in words]).sum(0)
            if words
            else torch.zeros(len(beliefs[0]))
        )
        return sorted(shown.argsort(descending=True, stable=True)[:n].tolist())


def picked(log_p: Tensor, frames: Sequence[int], pooling: str) -> int:
    """Which choice wins on these frames: log_p (F, choices). UserError for an unknown pooling or no
    frames.
    """
    if pooling not in POOLINGS:
        raise UserError(f"unknown pooling {pooling!r}: expected one of {', '.join(POOLINGS)}")
    if not len(frames):
        raise UserError("no frames to answer from: take at least one")
    return int(POOLINGS[pooling](log_p[list(frames)]).argmax())


# --- answers without a video ----------------------------------------------------------------------


def allowed(story: Story, asked: Asked) -> list[bool]:
    """Which choices are left to somebody who knows the rules of the town and reads the question,
    but sees no frame.

    A cause or a purpose follows from what is asked about; what is named in the question is not what
    it asks for. Always holds the answer.
    """
    q, domain = asked.question, story.domain
    if q.kind in BY_RULE:
        behind = (q.effect,) if q.kind in {"why", "purpose"} else DIRECT_NUMBERS
        causes = {domain.activity(domain.cause_word(number)) for number in behind}
        left = [" ".join(plain_words(choice)) in causes for choice in asked.choices]
    else:
        named = " ".join(plain_words(asked.text))
        left = [" ".join(plain_words(choice)) not in named for choice in asked.choices]
    return left if left[asked.right] else [True] * len(left)


def guess(left: Sequence[bool], right: int) -> float:
    """The chance that a guess among what is left is right."""
    return float(left[right]) / max(sum(left), 1)


# --- answers by the model that grounds ------------------------------------------------------------


@torch.no_grad()
def say(
    model: TimeScope,
    layers: Sequence[LayerKV],
    num_frames: int,
    text: Sequence[int],
    choices: Sequence[int],
) -> int:
    """The choice whose token is likeliest after `text` over a memory `layers`: an index into
    `choices` (phrase token ids).
    """
    hidden, _ = model.read(
        torch.tensor([[list(text)]], device=model.words.device), layers, num_frames
    )
    return int(model.word_logits(hidden[0, 0, -1].float())[list(choices)].argmax())


def after_interval(
    model: TimeScope, prompt: Sequence[int], chain: Sequence[int], span: Span, clock: int = 0
) -> list[int]:
    """The text of the fine stage up to its interval: question, reasoning, <answer>, first and last
    second. What comes next is the answer.
    """
    first = model.vocabulary.first_second + clock
    return [
        *prompt,
        *chain,
        ANSWER,
        first + int(span[0]),
        first + max(int(np.ceil(span[1])) - 1, int(span[0])),
    ]


def segments_of(span: Span, S: int) -> tuple[int, int]:
    """First and last segment of S frames under [start_s, end_s)."""
    return int(span[0]) // S, max(int(np.ceil(span[1])) - 1, int(span[0])) // S


class AnswerPile(Pile):
    """Training examples that end in an answer. Two thirds are quizzed: fine ones answer after their
    interval, the others at once, after <so>, from the HVR alone (or from all frames at r = 1); the
    rest are the plain examples of grounding, so that it is not unlearned.
    """

    quizzed = 2 / 3

    def _row(
        self, story: Story, clock: int, mix: Mix, rng: np.random.Generator, stride: int = 1
    ) -> Example:
        if rng.random() >= self.quizzed:
            return super()._row(story, clock, mix, rng, stride)
        question = draw_question(
            story, {kind: weight for kind, weight in mix.kinds.items() if kind in KINDS}, rng
        )
        asked = Asked.of(story, question, self.writer.vocabulary, rng)
        fine, think = bool(rng.random() >= mix.coarse), bool(rng.random() < mix.think)
        tokens, loss = quiz_example(self.writer, story, asked, clock, fine, think)
        window = augmented_window(question, story.num_seconds, self.frames_per_segment, mix, rng)
        return Example(tokens, loss, fine, window, question.kind)


def quiz_example(
    writer: Writer, story: Story, asked: Asked, clock: int, fine: bool, think: bool
) -> tuple[list[int], list[int]]:
    """Token ids of an example that ends in the answer, and per position what it must predict next
    (as in `corpus.write_example`).

    Layout: question, <think> reasoning or <direct>, then <answer> start end word (fine), or <so>
    word (at once; with reasoning its own <so>).
    """
    q, word = asked.question, asked.tokens[asked.right]
    prompt = [*writer.question(story, q), THINK if think else DIRECT]
    chain = writer.chain(story, q) if think else []
    tail = [ANSWER, *writer.interval(q.start_s, q.end_s, clock)] if fine else [] if think else [SO]
    loss = [NO_LOSS] * (len(prompt) - 1) + [CHAIN_LOSS] * len(chain)
    loss += [NO_LOSS, TIME_LOSS, TIME_LOSS] if fine else [NO_LOSS] * len(tail)
    return [*prompt, *chain, *tail, word], [*loss, CHAIN_LOSS, NO_LOSS]


# --- the recorded study ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Effort:
    """Fine-tuning steps (0: nobody learns to answer); frames of training stories of each length;
    test stories of each length; stories to choose poolings on.
    """

    steps: int = 600
    pool_frames: int = 20_000
    train_lengths: tuple[int, ...] = (64, 128, 256)
    lengths: tuple[int, ...] = (128, 256, 512)
    videos: int = 14
    tuning: int = 6


def fine_tune(
    start: TimeScope, effort: Effort, seed: int = 0, log: Path | None = None
) -> TimeScope:
    """A copy of the two-stage model that has learned to answer as well, in a short training (core
    town, pixels). Its frame encoder stays frozen.
    """
    domains = list(load_domains().values())
    if start.frame_encoder is None:
        raise UserError("this checkpoint has no frame encoder; take one that was trained on pixels")
    model = TimeScope(start.config, start.vocabulary)
    model.load_state_dict(start.own_state())
    pixels = PixelSource(start.frame_encoder, domains)
    source = CachedSource(pixels, seed + 77, effort.pool_frames)
    phase = Phase(
        "answer",
        effort.steps,
        ((1.0, effort.train_lengths),),
        TASKS,
        (1, 16, 16),
        "reload",
        0.6,
        0.5,
        misplaced=0.04,
        absent=0.04,
        muon_lr=0.005,
        adam_lr=1e-3,
        decay=0.7,
    )
    Trainer(
        model, AnswerPile(domains, source, Writer(model.vocabulary, domains), seed + 77), phase, log
    ).run(report_every=50)
    return model.eval()


def held_out(
    pixels: PixelSource, lengths: Sequence[int], videos: int, first: int = 0
) -> Iterator[tuple[str, Story, Tensor]]:
    """Stories that no training draws, as (name, story, features), `videos` of each length in
    seconds from number `first` on, domains in turn.
    """
    domains = pixels.symbols.domains
    for seconds in lengths:
        for i in range(first, first + videos):
            story, features = pixels.draw(
                [domains[i % len(domains)]], seconds, (HELD_OUT, seconds, i, 0), StoryConfig()
            )
            yield f"{seconds}s_{i:02d}", story, features


def places_to_look(
    answer: Answer, asked: Asked, num_seconds: int, rng: np.random.Generator
) -> dict[str, Span]:
    """Where frames may come from: everywhere, the grounded interval or its window, the truth or its
    chapter, as many seconds as the interval anywhere.
    """
    q, grounded = asked.question, (answer.start_s, max(answer.end_s, answer.start_s + 1))
    length = int(min(grounded[1] - grounded[0], num_seconds))
    start = float(rng.integers(0, num_seconds - length + 1))
    return {
        "whole": (0.0, float(num_seconds)),
        "grounded": grounded,
        "window": answer.window or grounded,
        "true": (float(q.start_s), float(q.end_s)),
        "chapter": (float(q.window_start_s), float(q.window_end_s)),
        "random": (start, start + length),
    }


def looked(
    answerer: FrameAnswerer,
    beliefs: Sequence[Tensor],
    asked: Asked,
    spans: Mapping[str, Span],
    prompt: Sequence[int],
    left: Sequence[bool],
) -> dict[str, list[str]]:
    """The poolings that answer right, for every way to choose n frames ("whole@8"), and for all
    frames ("whole@every").

    "whole+rules@8" and the like choose among what the rules leave (`allowed`) only: somebody who
    knows the town and looks.
    """
    log_p = answerer.choices(beliefs, asked)
    chosen = {f"{name}@{n}": frames_of(span, n) for name, span in spans.items() for n in NUM_FRAMES}
    chosen |= {f"similar@{n}": answerer.similar(beliefs, prompt, n) for n in NUM_FRAMES}
    chosen |= {"whole@every": list(range(len(log_p)))}
    ruled = log_p.masked_fill(~torch.tensor(list(left)), -torch.inf)
    found = {}
    for name, frames in chosen.items():
        place, n = name.split("@")
        found[name] = _right_poolings(log_p, frames, asked.right)
        if place in WITH_RULES:
            found[f"{place}+rules@{n}"] = _right_poolings(ruled, frames, asked.right)
    return found


def _right_poolings(log_p: Tensor, frames: Sequence[int], right: int) -> list[str]:
    """The poolings by which the choice `right` comes out best on these frames."""
    return [how for how in POOLINGS if picked(log_p, frames, how) == right]


@dataclass(frozen=True)
class Way:
    """One way in which the model answers: with reasoning or without; the layers that it reads; the
    interval that it names first, if any.
    """

    think: bool
    layers: Callable[[], Sequence[LayerKV]]
    span: Span | None = None


def ways_of(
    model: TimeScope, video: Video, asked: Asked, own: Answer, direct: Answer, other: Span
) -> dict[str, Way]:
    """All ways: after the model's own interval, the true and another one; at once, from the HVR,
    from every frame at r = 1, or from blank frames.
    """
    memory, q, S = video.memory(video.r), asked.question, model.config.frames_per_segment

    def grounded(think: bool, span: Span, around: Span) -> Way:
        return Way(think, lambda: memory.mixed(*segments_of(around, S)), span)

    mine, plain = (own.start_s, own.end_s), (direct.start_s, direct.end_s)
    return {
        "joint": grounded(True, mine, own.window or mine),
        "joint_direct": grounded(False, plain, direct.window or plain),
        "joint_true_interval": grounded(
            True, (q.start_s, q.end_s), (q.window_start_s, q.window_end_s)
        ),
        "joint_random_interval": grounded(True, other, other),
        "at_once": Way(True, lambda: memory.hvr),
        "at_once_direct": Way(False, lambda: memory.hvr),
        "at_once_every_frame": Way(True, lambda: video.memory(1).hvr),
        "at_once_every_frame_direct": Way(False, lambda: video.memory(1).hvr),
        "blind": Way(False, lambda: video.memory(video.r, order="blank").hvr),
    }


def answered(
    model: TimeScope,
    way: Way,
    asked: Asked,
    question: Sequence[int],
    chain: Sequence[int],
    num_frames: int,
) -> int:
    """Which choice the model names in one of its ways: an index. `question` are the token ids
    without a mode, `chain` its reasoning.
    """
    prompt = [*question, THINK if way.think else DIRECT]
    reasoning = list(chain) if way.think else []
    text = (
        [*prompt, *(reasoning or [SO])]
        if way.span is None
        else after_interval(model, prompt, reasoning, way.span)
    )
    return say(model, way.layers(), num_frames, text, asked.tokens)


def read_off(chain: Sequence[int], asked: Asked, left: Sequence[bool]) -> float:
    """Right if the last choice that the reasoning names is the answer; where it names none, a guess
    among what the rules leave.
    """
    named = [token for token in chain if token in asked.tokens]
    return float(named[-1] == asked.tokens[asked.right]) if named else guess(left, asked.right)


class Examiner:
    """Asks questions about held-out stories and notes who answered right, from where. `models`:
    `zero_shot` grounds, `tuned` has learned to answer.
    """

    def __init__(self, answerer: FrameAnswerer, models: Mapping[str, TimeScope]) -> None:
        self.answerer, self.models = answerer, dict(models)

    def rows(
        self,
        name: str,
        story: Story,
        features: Tensor,
        kinds: Sequence[str] = KINDS,
        in_words: bool = True,
    ) -> list[dict[str, Any]]:
        """One row per question; features (F, K, Cf). Unless `in_words`, answers come from frames
        alone.
        """
        vocabulary = self.answerer.vocabulary
        key = (HELD_OUT, story.num_seconds, int(story.digest()[:8], 16))
        writer = Writer(vocabulary, [story.domain])
        questions = asked_of(story, vocabulary, key, kinds)
        texts = [writer.question(story, asked.question) for asked in questions]
        beliefs, rng = self.answerer.beliefs(features), np.random.default_rng((*key, 6))
        videos = {
            who: Video(model, features, story.num_seconds) for who, model in self.models.items()
        }
        found = {
            (who, mode): locate(
                self.models[who], video.memory(video.r), [[*text, mode] for text in texts]
            )
            for who, video in videos.items()
            for mode in (THINK, DIRECT)
            if mode == THINK or (who == "tuned" and in_words)
        }
        rows = []
        for i, (asked, text) in enumerate(zip(questions, texts, strict=True)):
            answer = found["zero_shot", THINK][i]
            spans = places_to_look(answer, asked, story.num_seconds, rng)
            left = allowed(story, asked)
            row = self._about(name, story, asked, answer, spans, left)
            row["frames"] = looked(self.answerer, beliefs, asked, spans, text, left)
            row["says"], row["intervals"] = {}, {}
            for who in self.models if in_words else ():
                own = found[who, THINK][i]
                direct = found.get((who, DIRECT), found[who, THINK])[i]
                row["says"] |= self._says(
                    who, videos[who], asked, text, own, direct, spans["random"]
                )
                row["intervals"] |= {who: [own.start_s, own.end_s]}
                row["tiou"] |= {who: _tiou(own, asked), f"{who}_direct": _tiou(direct, asked)}
            rows.append(row)
        return rows

    @staticmethod
    def _about(
        name: str,
        story: Story,
        asked: Asked,
        answer: Answer,
        spans: Mapping[str, Span],
        left: Sequence[bool],
    ) -> dict[str, Any]:
        q = asked.question
        row: dict[str, Any] = {
            "video": name,
            "seconds": story.num_seconds,
            "domain": story.domain.name,
            "kind": q.kind,
            "task": q.task_type,
        }
        row |= {
            "text": asked.text,
            "choices": list(asked.choices),
            "right": asked.right,
            "truth": [q.start_s, q.end_s],
        }
        row |= {
            "guess": guess(left, asked.right),
            "read_off": read_off(answer.chain, asked, left),
            "tiou": {"zero_shot": _tiou(answer, asked)},
        }
        return row | {
            "spans": {where: list(spans[where]) for where in ("grounded", "window", "random")}
        }

    def _says(  # noqa: PLR0913
        self,
        who: str,
        video: Video,
        asked: Asked,
        text: Sequence[int],
        own: Answer,
        direct: Answer,
        other: Span,
    ) -> dict[str, int]:
        model, F = self.models[who], video.memory(video.r).num_frames
        ways = ways_of(model, video, asked, own, direct, other)
        ways = {name: way for name, way in ways.items() if who == "tuned" or name in ZERO_SHOT}
        chosen = {
            name: answered(model, way, asked, text, own.chain, F) for name, way in ways.items()
        }
        return {
            name if who == "tuned" else f"{who}_{name}": int(choice == asked.right)
            for name, choice in chosen.items()
        }


def _tiou(answer: Answer, asked: Asked) -> float:
    truth = float(asked.question.start_s), float(asked.question.end_s)
    return 0.0 if answer.absent else round(tiou((answer.start_s, answer.end_s), truth), 4)


# --- what the rows say ----------------------------------------------------------------------------


def best_poolings(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Place to look -> the pooling that is right most often over all numbers of frames; the first
    of equals. For rows that are not scored themselves.
    """
    found = {}
    for place in dict.fromkeys(way.split("@")[0] for way in rows[0]["frames"]):
        right = Counter(dict.fromkeys(POOLINGS, 0))
        for row in rows:
            for way, hits in row["frames"].items():
                if way.split("@")[0] == place:
                    right.update(hits)
        found[place] = max(POOLINGS, key=right.__getitem__)  # the first of equals
    return found


def right_of(row: Mapping[str, Any], system: str, poolings: Mapping[str, str]) -> float:
    """Whether a system answered right: `guess`, `read_off`, a way to look ("grounded@8") with its
    pooling, or a way to say. UserError for an unknown one.
    """
    if system in ("guess", "read_off"):
        return float(row[system])
    if system in row["frames"]:
        place = system.split("@")[0]
        return float(poolings[place] in row["frames"][system])
    if system not in row["says"]:
        raise UserError(
            f"no system {system!r} in this row: expected guess, read_off, "
            f"{', '.join([*row['says'], *row['frames']])}"
        )
    return float(row["says"][system])


def placed(row: Mapping[str, Any], system: str) -> float:
    """The tIoU of the interval that a system's answer stands on; 0 for a system that names none."""
    if system.startswith("grounded@"):
        return float(row["tiou"]["zero_shot"])
    who = ""
    if system.startswith("zero_shot_joint"):
        who = "zero_shot"
    elif system in ("joint", "joint_direct"):
        who = "tuned"
    if not who:
        return 0.0
    return float(row["tiou"][f"{who}_direct" if system.endswith("_direct") else who])


def joint_scores(
    right: Sequence[float], ious: Sequence[float], videos: Sequence[str]
) -> dict[str, Estimate]:
    """What and when together, with intervals over videos: shares right in both at tIoU 0.3 and 0.5;
    mean and LGM of accuracy and mean tIoU.

    V-STaR's third term, where (visual IoU), does not exist here. `am` and `lgm` are over two terms
    and not its numbers; `vstar_am` and `vstar_lgm` are V-STaR's own with 0 for the third, what it
    gives a system that draws no boxes.
    """
    both = np.column_stack([right, ious])

    def of(score: Callable[[float, float, float], float], scale: float) -> Callable[[Any], float]:
        return lambda rows: scale * score(float(rows[:, 0].mean()), float(rows[:, 1].mean()), 0.0)

    found = {f"joint@{m}": bootstrap(both[:, 0] * (both[:, 1] >= m), videos) for m in (0.3, 0.5)}
    for name, score in (("am", vstar_am), ("lgm", vstar_lgm)):
        found |= {
            name: bootstrap(both, videos, statistic=of(score, 1.5)),
            f"vstar_{name}": bootstrap(both, videos, statistic=of(score, 1.0)),
        }
    return found


def crossed(
    right: Sequence[float], ious: Sequence[float], videos: Sequence[str]
) -> dict[str, Estimate]:
    """The four shares of right answer and right place (tIoU >= 0.5), with intervals over videos;
    they sum to 1.
    """
    hit, near = np.array(right) > 0.5, np.array(ious) >= 0.5
    cells = {
        "answer_and_place": hit & near,
        "place_only": ~hit & near,
        "answer_only": hit & ~near,
        "neither": ~hit & ~near,
    }
    return {name: bootstrap(cell.astype(float), videos) for name, cell in cells.items()}


JOINT = ("grounded@8", "zero_shot_joint", "joint", "joint_direct")
DIFFERENCES = (
    *(
        (f"grounded@{n}", f"{rival}@{n}")
        for n in NUM_FRAMES
        for rival in ("whole", "random", "similar", "window", "true")
    ),
    ("grounded@8", "whole@every"),
    ("grounded@8", "guess"),
    ("grounded+rules@8", "whole+rules@8"),
    ("grounded+rules@8", "whole+rules@64"),
    ("grounded+rules@8", "whole+rules@every"),
    ("grounded+rules@8", "similar+rules@8"),
    ("grounded+rules@8", "similar+rules@64"),
    ("grounded+rules@8", "guess"),
    ("joint", "at_once"),
    ("joint_direct", "at_once_direct"),
    ("joint", "at_once_every_frame"),
    ("joint_direct", "at_once_every_frame_direct"),
    ("joint", "zero_shot_joint"),
    ("joint", "grounded@8"),
    ("joint", "read_off"),
    ("joint", "guess"),
    ("joint_true_interval", "joint"),
    ("joint_true_interval", "joint_random_interval"),
    ("blind", "guess"),
)


def summarise(
    rows: Sequence[Mapping[str, Any]], poolings: Mapping[str, str]
) -> dict[str, Estimate]:
    """The flat map "system/bucket/metric" -> value and interval over videos: accuracies, paired
    differences, joint scores, shares, and what answering costs.
    """
    found: dict[str, Estimate] = {}
    systems = ["guess", "read_off", *rows[0]["frames"], *rows[0]["says"]]
    for bucket, part in _buckets(rows).items():
        videos = [row["video"] for row in part]
        right = {system: [right_of(row, system, poolings) for row in part] for system in systems}
        found |= {
            f"{system}/{bucket}/accuracy": bootstrap(values, videos)
            for system, values in right.items()
        }
        pairs = [(a, b) for a, b in DIFFERENCES if a in right and b in right]
        found |= {
            f"{a} - {b}/{bucket}/difference_of_accuracy": bootstrap_difference(
                right[a], right[b], videos
            )
            for a, b in pairs
        }
        near = {
            who: [float(row["tiou"][who] >= 0.5) for row in part]
            for who in ("zero_shot", "tuned")
            if who in rows[0]["tiou"]
        }
        found |= {
            f"{who}/{bucket}/r1@0.5": bootstrap(values, videos) for who, values in near.items()
        }
        found |= {
            f"{who}/{bucket}/miou": bootstrap([row["tiou"][who] for row in part], videos)
            for who in near
        }
        if "tuned" in near:
            found[f"tuned - zero_shot/{bucket}/difference_of_r1@0.5"] = bootstrap_difference(
                near["tuned"], near["zero_shot"], videos
            )
        for system in (name for name in JOINT if name in right and bucket == "all"):
            ious = [placed(row, system) for row in part]
            both = joint_scores(right[system], ious, videos) | crossed(right[system], ious, videos)
            found |= {f"{system}/all/{name}": e for name, e in both.items()}
    return found


def _buckets(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """All rows, and by what it takes to answer (a rule of the town, or frames), length and task
    type; a bucket of one video has no interval: left out.
    """
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        needs = "rule" if row["kind"] in BY_RULE else "frames"
        for name in ("all", f"needs={needs}", f"seconds={row['seconds']}", f"task={row['task']}"):
            parts.setdefault(name, []).append(row)
    return {name: part for name, part in parts.items() if len({row["video"] for row in part}) > 1}


def study(
    out: Path, effort: Effort | None = None, seed: int = 0, start: TimeScope | None = None
) -> Path:
    """The whole of it into the folder `out`: weights that answer (trained where there are none
    yet), poolings, rows, `result.json` last; returns its path.

    `start`: the two-stage checkpoint to begin with, the shipped one unless given. Files:
    answering.safetensors, log.jsonl, rows.jsonl (`part` is `tuning` where poolings are chosen, else
    `test`), result.json.
    """
    began, effort, out = time.monotonic(), effort or Effort(), Path(out)
    weights = out / WEIGHTS
    ready = start or shipped_model()
    if ready.frame_encoder is None:
        raise UserError("this checkpoint has no frame encoder; take one that was trained on pixels")
    out.mkdir(parents=True, exist_ok=True)
    if effort.steps and not weights.is_file():
        tuned = fine_tune(ready, effort, seed, out / "log.jsonl")
        tuned.frame_encoder = ready.frame_encoder
        tuned.about = ready.about | {"answering_steps": effort.steps, "seed": seed}
        save(weights, tuned)
    pixels = PixelSource(ready.frame_encoder, list(load_domains().values()))
    answerer = FrameAnswerer(ready.frame_encoder, pixels.symbols, ready.vocabulary)
    grounds = {"zero_shot": ready}
    models = dict(grounds)
    if effort.steps:
        models["tuned"] = load(weights)
    examiner = Examiner(answerer, models)
    rows: list[dict[str, Any]] = []
    for name, story, features in held_out(pixels, effort.lengths[:2], effort.tuning, first=500):
        rows += [
            row | {"part": "tuning"}
            for row in Examiner(answerer, grounds).rows(name, story, features, in_words=False)
        ]
    for name, story, features in held_out(pixels, effort.lengths, effort.videos):
        rows += [row | {"part": "test"} for row in examiner.rows(name, story, features)]
    with atomic_path(out / "rows.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    poolings = best_poolings([row for row in rows if row["part"] == "tuning"])
    metrics = summarise([row for row in rows if row["part"] == "test"], poolings)
    config = {
        "effort": dataclasses.asdict(effort),
        "poolings": poolings,
        "start": dict(ready.about),
    }
    return write_result(
        out,
        name="downstream",
        metrics=metrics,
        config=config,
        seed=seed,
        wall_s=round(time.monotonic() - began, 1),
    )
