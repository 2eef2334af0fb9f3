"""Pile and Bench, both drawn from Tiny Town. The Pile is an endless stream of training batches; the
Bench is mp4 files with questions.

A batch is a function of (seed, step): training that is resumed after a kill sees exactly what it
would have seen.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from timescope_lite.common import (
    UserError,
    atomic_path,
    data_root,
    from_mapping,
    progress_bar,
    write_json,
)
from timescope_lite.datasets.prompts import CHAIN_LOSS, NO_LOSS, TIME_LOSS, Writer
from timescope_lite.metrics import best_constant, mean_iou, tiou_many
from timescope_lite.model.frame_encoder import FrameEncoder
from timescope_lite.model.tokenizer import (
    ABSENT,
    ANSWER,
    DIRECT,
    NUM_SECONDS,
    PAD,
    SO,
    THINK,
    WINDOW,
)
from timescope_lite.version import __version__
from timescope_lite.world.camera import Camera
from timescope_lite.world.domain import (
    COLOURS,
    EFFECT,
    LASTING,
    NUM_ACTIVITIES,
    NUM_NOUNS,
    NUM_TRACKS,
    PLACE,
    SHOWN,
    SIGN,
    TRACK0,
    Domain,
    all_core,
    load_domains,
)
from timescope_lite.world.render import render_frames, to_model_size
from timescope_lite.world.story import Story, StoryConfig, tell
from timescope_lite.world.tasks import (
    TASK_TYPES,
    Question,
    ask,
    ask_absent,
    difficulty,
    in_words,
    person_phrase,
    quiz,
    solve,
)

MAX_CODEC_ERROR = (
    12.0  # mean absolute difference per channel, of 255, between a drawn and a decoded picture
)


class FeatureSource(Protocol):
    """Draws stories with their frame features (F, K, width) float32: symbols, or pixels through the
    frame encoder.
    """

    width: int
    tokens_per_frame: int

    def draw(
        self,
        domains: Sequence[Domain],
        num_seconds: int,
        seed: tuple[int, ...],
        config: StoryConfig,
    ) -> tuple[Story, Tensor]: ...

    def directions(self) -> dict[str, Tensor]: ...


class Symbols:
    """What there is to name in a picture, as classes over all domains: colour and noun of place and
    sign, effect, and what each track does.

    In the core town, whose stories have no oddities, these are no classes.
    """

    def __init__(self, domains: Sequence[Domain]) -> None:
        self.domains = list(domains)
        nouns = list(dict.fromkeys(noun for d in domains for noun in d.places))
        self._noun = {d.name: np.array([nouns.index(n) for n in d.places]) for d in domains}
        self.shown = LASTING if all_core(domains) else SHOWN
        self.sizes = (6, len(nouns), 6, len(nouns), 1 + len(self.shown)) + (
            1 + NUM_ACTIVITIES * len(domains),
        ) * NUM_TRACKS

    def named(self) -> dict[str, tuple[int, int]]:
        """Part of a phrase -> the field and class that it names (places by colour and noun,
        effects, activities).
        """
        named: dict[str, tuple[int, int]] = {colour: (0, i) for i, colour in enumerate(COLOURS)}
        named |= {effect: (4, i + 1) for i, effect in enumerate(self.shown)}
        for number, domain in enumerate(self.domains):
            named |= {
                noun: (1, int(i))
                for noun, i in zip(domain.places, self._noun[domain.name], strict=True)
            }
            for word in range(NUM_TRACKS * NUM_ACTIVITIES):
                track, activity = divmod(word, NUM_ACTIVITIES)
                named[domain.activity(word)] = (5 + track, 1 + activity + NUM_ACTIVITIES * number)
        return named

    def people(self) -> dict[str, tuple[int, list[int]]]:
        """A person by colour and thing (`tasks.person_phrase`) -> the field and the four classes,
        one per verb, that show it; nobody in the core town.
        """
        found: dict[str, tuple[int, list[int]]] = {}
        for number, domain in enumerate(self.domains if self.shown == SHOWN else []):
            for word in range(NUM_TRACKS * NUM_ACTIVITIES):
                track, activity = divmod(word, NUM_ACTIVITIES)
                found.setdefault(person_phrase(domain, word), (5 + track, []))[1].append(
                    1 + activity + NUM_ACTIVITIES * number
                )
        return found

    def classes(self, domain: Domain, states: np.ndarray) -> np.ndarray:
        """State rows (F, 7) -> classes (F, 9); activity classes are numbered domain by domain, 0 is
        idle.
        """
        rows, noun = states.astype(np.int64), self._noun[domain.name]
        shift = NUM_ACTIVITIES * [d.name for d in self.domains].index(domain.name)
        place, sign, tracks = rows[:, PLACE], rows[:, SIGN], rows[:, TRACK0:]
        fixed = [
            place // NUM_NOUNS,
            noun[place % NUM_NOUNS],
            sign // NUM_NOUNS,
            noun[sign % NUM_NOUNS],
            rows[:, EFFECT],
        ]
        return np.column_stack([*fixed, np.where(tracks > 0, tracks + shift, 0)])


class SymbolicSource:
    """One-hot symbols plus Gaussian noise: what a perfect frame encoder would say. For studies of
    the world, not for the course's numbers.

    With a `width` smaller than the number of symbols these are mixed by fixed random directions, as
    a frame encoder's features are: nearly orthogonal.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        noise: float = 0.1,
        tokens_per_frame: int = 1,
        width: int | None = None,
    ) -> None:
        self.symbols, self.noise, self.tokens_per_frame = Symbols(domains), noise, tokens_per_frame
        self._first = np.concatenate([[0], np.cumsum(self.symbols.sizes)])
        num = int(self._first[-1])
        self.width, self._mixed = width or num, None
        if width:
            mixed = np.random.default_rng(num).standard_normal((num, width), dtype=np.float32)
            self._mixed = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
        # With K tokens per frame each shows what lasts, and every K-th track.
        self._shown = np.ones((tokens_per_frame, num), dtype=np.float32)
        for track in range(NUM_TRACKS):
            field = len(self.symbols.sizes) - NUM_TRACKS + track
            elsewhere = [k for k in range(tokens_per_frame) if track % tokens_per_frame != k]
            self._shown[elsewhere, self._first[field] : self._first[field + 1]] = 0

    def features(self, story: Story, rng: np.random.Generator) -> Tensor:
        """(F, K, width)."""
        columns = self._first[:-1] + self.symbols.classes(story.domain, story.states)
        out = (
            rng.standard_normal((len(columns), self._shown.shape[1]), dtype=np.float32) * self.noise
        )
        out[np.arange(len(columns))[:, None], columns] += 1
        shown = out[:, None] * self._shown
        return torch.from_numpy(shown if self._mixed is None else shown @ self._mixed)

    def draw(
        self,
        domains: Sequence[Domain],
        num_seconds: int,
        seed: tuple[int, ...],
        config: StoryConfig,
    ) -> tuple[Story, Tensor]:
        """A story and its features (F, K, width)."""
        story, rng = tell_one(domains, num_seconds, seed, config)
        return story, self.features(story, rng)

    def directions(self) -> dict[str, Tensor]:
        """Where each part of a phrase lies in feature space (for TimeScope.align)."""
        eye = torch.eye(self.width) if self._mixed is None else torch.from_numpy(self._mixed)
        people = {
            part: eye[[int(self._first[field]) + c for c in classes]].mean(0)
            for part, (field, classes) in self.symbols.people().items()
        }
        return people | {
            part: eye[int(self._first[field]) + cls]
            for part, (field, cls) in self.symbols.named().items()
        }


class PixelSource:
    """Pictures drawn at 1 frame per second, through the frozen frame encoder. Slower than a cache,
    endless in variety.

    With `cameras` every story is filmed by a camera of its own that shakes, drifts or is walked
    past.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        domains: Sequence[Domain],
        batch_frames: int = 256,
        cameras: bool = False,
    ) -> None:
        self.encoder = encoder
        self.symbols = Symbols(domains)
        self.batch_frames = batch_frames
        self.cameras = cameras
        self.width = encoder.config.feature_width
        self.tokens_per_frame = encoder.config.tokens_per_frame

    def pictures(self, story: Story, rng: np.random.Generator) -> Iterator[Tensor]:
        """uint8 (n, 64, 64, 3) in turn, with the noise that a video codec leaves."""
        seconds = np.arange(story.num_seconds, dtype=float)
        camera = Camera.draw(rng) if self.cameras else Camera(0)
        for at in range(0, story.num_seconds, self.batch_frames):
            chosen = slice(at, at + self.batch_frames)
            drawn = camera.film(
                render_frames(story.domain, story.states[chosen], seconds[chosen]), seconds[chosen]
            )
            yield torch.from_numpy(like_a_codec(to_model_size(drawn), rng))

    def features(self, story: Story, rng: np.random.Generator) -> Tensor:
        """(F, K, width), on the CPU wherever the frame encoder is."""
        parts = [self.encoder.encode_pixels(part) for part in self.pictures(story, rng)]
        return torch.cat(parts).cpu()

    def draw(
        self,
        domains: Sequence[Domain],
        num_seconds: int,
        seed: tuple[int, ...],
        config: StoryConfig,
    ) -> tuple[Story, Tensor]:
        """A story and its features (F, K, width)."""
        story, rng = tell_one(domains, num_seconds, seed, config)
        return story, self.features(story, rng)

    def directions(self) -> dict[str, Tensor]:
        """Where each part of a phrase lies in feature space: the frame encoder's own classifiers,
        centred per field.
        """
        heads = cast("list[nn.Linear]", list(self.encoder.heads))
        std = self.encoder.std
        weights = [((head.weight - head.weight.mean(0)) * std).cpu() for head in heads]
        people = {
            part: weights[field][classes].mean(0)
            for part, (field, classes) in self.symbols.people().items()
        }
        return people | {
            part: weights[field][cls] for part, (field, cls) in self.symbols.named().items()
        }


class CachedSource:
    """A pool of stories per video length whose features are computed when first drawn and then kept
    (float16): what they come from is frozen, so once is enough.

    The questions about a story are new each time. `frames` bounds the pool of every length. With a
    `folder` the features lie in files there, which several trainings may share: each writes the
    same numbers.
    """

    def __init__(
        self, source: FeatureSource, seed: int, frames: int = 80_000, folder: Path | None = None
    ) -> None:
        self.source, self.seed, self.frames, self.folder = source, seed, frames, folder
        self.width, self.tokens_per_frame = source.width, source.tokens_per_frame
        self._stories: dict[tuple[int, int], Story] = {}
        self._pools: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def draw(
        self,
        domains: Sequence[Domain],
        num_seconds: int,
        seed: tuple[int, ...],
        config: StoryConfig,
    ) -> tuple[Story, Tensor]:
        """A story of the pool and its features (F, K, width)."""
        features, known = self._pool(num_seconds)
        number = int(np.random.default_rng(seed).integers(len(features)))
        key, own = (num_seconds, number), (self.seed, num_seconds, number)
        if key not in self._stories:
            self._stories[key] = tell_one(domains, num_seconds, own, config)[0]
        if not known[number]:
            features[number] = self.source.draw(domains, num_seconds, own, config)[1].half().numpy()
            known[number] = 1
        return self._stories[key], torch.from_numpy(features[number].astype(np.float32))

    def directions(self) -> dict[str, Tensor]:
        return self.source.directions()

    def _pool(self, num_seconds: int) -> tuple[np.ndarray, np.ndarray]:
        """Features (stories, F, K, width) float16 of one length, and which of them are known
        (stories,) uint8.
        """
        if num_seconds not in self._pools:
            stories = max(1, self.frames // num_seconds)
            shape = stories, num_seconds, self.tokens_per_frame, self.width
            self._pools[num_seconds] = (
                self._array("features", num_seconds, shape, np.float16),
                self._array("known", num_seconds, (stories,), np.uint8),
            )
        return self._pools[num_seconds]

    def _array(
        self, what: str, num_seconds: int, shape: tuple[int, ...], dtype: type
    ) -> np.ndarray:
        if self.folder is None:
            return np.zeros(shape, dtype=dtype)
        path = self.folder / f"{what}-seed{self.seed}-{num_seconds}s-{shape[0]}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not path.is_file() or path.stat().st_size != size:
            with path.open("ab") as file:
                file.truncate(size)  # zeros that take no room on the disk until they are written
        return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def tell_one(
    domains: Sequence[Domain], num_seconds: int, seed: tuple[int, ...], config: StoryConfig
) -> tuple[Story, np.random.Generator]:
    """A story of one of the domains, and the generator for the noise on its pictures; both follow
    from the seed.
    """
    rng = np.random.default_rng((*seed, 1))
    return tell(domains[int(rng.integers(len(domains)))], num_seconds, seed, config), rng


def like_a_codec(pixels: np.ndarray, rng: np.random.Generator, strength: float = 5.0) -> np.ndarray:
    """Pictures uint8 (F, H, W, 3) with smooth noise of about the size that H.264 leaves, so that
    training sees what decoding gives.
    """
    F, H, W, _ = pixels.shape
    noise = rng.standard_normal((F, H, W, 1), dtype=np.float32)
    smooth = (noise + np.roll(noise, 1, axis=2)) * (strength * rng.random() * 0.7)
    return np.clip(pixels + smooth, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Mix:
    """What a training step asks for. `kinds` are weights; `think`, `coarse`, `absent` are the
    shares of questions with reasoning, with a window as answer, and without an answer in their
    video. `hallucinated` is the teacher's dial: the share of hops in a chain that are wrong (0:
    exact).
    """

    kinds: Mapping[str, float]
    think: float = 0.6
    coarse: float = 0.3
    jitter_s: tuple[int, int] = (-2, 4)
    misplaced: float = 0.0
    absent: float = 0.0
    hallucinated: float = 0.0


@dataclass
class Batch:
    """One training step. tokens (B, Q, T) ids; loss (B, Q, T): what position t is to predict of
    token t + 1 (NO_LOSS, CHAIN_LOSS, TIME_LOSS).

    fine (B, Q) bool; window (B, Q, 2): first and last segment to reload for a fine question.
    """

    features: Tensor
    clock: Tensor
    tokens: Tensor
    loss: Tensor
    fine: Tensor
    window: Tensor
    kinds: list[list[str]]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("features", "clock", "tokens", "loss", "fine", "window")
        }
        return Batch(**moved, kinds=self.kinds)


class Pile:
    """Endless training data over some domains; every batch follows from (seed, step). Outside the
    core town stories have oddities, questions more phrasings.
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        source: FeatureSource,
        writer: Writer,
        seed: int,
        frames_per_segment: int = 16,
    ) -> None:
        self.domains, self.source, self.writer, self.seed = list(domains), source, writer, seed
        core = all_core(domains)
        self.story = StoryConfig(oddities=not core)
        self.frames_per_segment = frames_per_segment
        self.phrasing = "core" if core else "trained"

    def batch(
        self, step: int, num_seconds: int, videos: int, questions: int, mix: Mix, stride: int = 1
    ) -> Batch:
        """Draw `videos` stories of `num_seconds` with `questions` questions each; of their frames,
        one a second, keep every `stride`-th.

        With a stride a time code counts sampled frames, as in `baselines.uniform`.
        """
        rng = np.random.default_rng((self.seed, step))
        drawn = [
            self.source.draw(self.domains, num_seconds, (self.seed, step, i), self.story)
            for i in range(videos)
        ]
        stories = [story for story, _ in drawn]
        clock = rng.integers(0, NUM_SECONDS - num_seconds + 1, size=videos)
        rows = [
            [self._row(story, int(c), mix, rng, stride) for _ in range(questions)]
            for story, c in zip(stories, clock, strict=True)
        ]
        tokens, loss = _pad_rows(
            [[r.tokens for r in video] for video in rows],
            [[r.loss for r in video] for video in rows],
        )
        return Batch(
            features=torch.stack([features[::stride] for _, features in drawn]),
            clock=torch.from_numpy(clock),
            tokens=tokens,
            loss=loss,
            fine=torch.tensor([[r.fine for r in video] for video in rows]),
            window=torch.tensor([[r.window for r in video] for video in rows]),
            kinds=[[r.kind for r in video] for video in rows],
        )

    def _row(
        self, story: Story, clock: int, mix: Mix, rng: np.random.Generator, stride: int = 1
    ) -> Example:
        question = draw_question(story, mix.kinds, rng, rng.random() < mix.absent, self.phrasing)
        fine = rng.random() >= mix.coarse and not question.absent
        think = rng.random() < mix.think
        if question.kind == "captions":
            fine, (tokens, loss) = True, write_captions(self.writer, story, question, clock, stride)
        else:
            chain = (
                hallucinate(self.writer, story, question, mix.hallucinated, rng)
                if mix.hallucinated
                else None
            )
            tokens, loss = write_example(
                self.writer, story, question, clock, fine, think, stride, chain
            )
        window = augmented_window(question, story.num_seconds, self.frames_per_segment, mix, rng)
        return Example(tokens, loss, fine, window, question.kind)


@dataclass(frozen=True)
class Example:
    """A question as it is trained on: token ids, which of them count in the loss, which stage it is
    for, and the window of segments (first, last) it reads.
    """

    tokens: list[int]
    loss: list[int]
    fine: bool
    window: tuple[int, int]
    kind: str


def draw_question(
    story: Story,
    kinds: Mapping[str, float],
    rng: np.random.Generator,
    absent: bool = False,
    phrasing: str = "core",
) -> Question:
    """A question whose kind is drawn by weight; a kind that the story does not offer is drawn
    again. UserError if it seems to offer none of them.
    """
    names, weights = list(kinds), np.array(list(kinds.values()), dtype=float)
    for _ in range(1000):
        question = (ask_absent if absent else ask)(
            story, names[int(rng.choice(len(names), p=weights / weights.sum()))], rng, phrasing
        )
        if question is not None:
            return question
    what = "absent question" if absent else "question"
    raise UserError(
        f"a story of {story.num_seconds} s offers no {what} of the kinds {', '.join(names)}; take "
        "others, or longer videos"
    )


def write_example(  # noqa: PLR0913
    writer: Writer,
    story: Story,
    question: Question,
    clock: int,
    fine: bool,
    think: bool,
    stride: int = 1,
    chain: list[int] | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of one training example and, per position, what it must predict next. `chain`: what
    a teacher says instead of the true reasoning.

    Layout: question, <think> or <direct>, [reasoning, <so>], <window> start end (of the chapter),
    or <answer> start end (of the event); where the evidence is absent, <window> <absent>. The
    question and the tags are given, so nothing is to be learned there. A vocabulary with the word
    `clue` has the fine stage write `clue start end` for each of the question's clues before its
    answer; then it must choose between `clue` and <answer>, too.
    """
    prompt = [*writer.question(story, question), THINK if think else DIRECT]
    reasoning = [] if not think else writer.chain(story, question) if chain is None else chain
    span = (
        (question.start_s, question.end_s)
        if fine
        else (question.window_start_s, question.window_end_s)
    )
    interval = lambda start_s, end_s: writer.interval(start_s / stride, end_s / stride, clock)  # noqa: E731
    times = [ABSENT] if question.absent else interval(*span)
    clues = (
        [(writer.clue, *interval(*clue)) for clue in question.clues]
        if think and fine and writer.clue
        else []
    )
    choice = CHAIN_LOSS if think and fine and writer.clue else NO_LOSS  # of the tag that comes next
    tokens = [
        *prompt,
        *reasoning,
        *(token for clue in clues for token in clue),
        ANSWER if fine else WINDOW,
        *times,
    ]
    loss = [NO_LOSS] * (len(prompt) - 1) + [CHAIN_LOSS] * len(reasoning) + [choice]
    loss += [TIME_LOSS, TIME_LOSS, choice] * len(clues) + [TIME_LOSS] * len(times) + [NO_LOSS]
    return tokens, loss


def write_captions(
    writer: Writer, story: Story, question: Question, clock: int, stride: int = 1, most: int = 6
) -> tuple[list[int], list[int]]:
    """An example of dense captioning: the first events that lie in a chapter, by their starts,
    overlapping: `clue start end activity` each, then <so>.

    Times come before words, as in Vid2Seq (arXiv 2302.14115): a word is then looked up at a known
    time. UserError for the vocabulary of the core town.
    """
    if not writer.clue:
        raise UserError(
            "this model's vocabulary has no dense captions; take the model of the whole town"
        )
    prompt = [*writer.question(story, question), THINK]
    tokens, loss = list(prompt), [NO_LOSS] * (len(prompt) - 1)
    for event in events_of(story, question)[:most]:
        span = float(story.event_start[event]) / stride, float(story.event_end[event]) / stride
        activity = int(writer.tokens[story.domain.name].activity[story.event_word[event]])
        tokens += [writer.clue, *writer.interval(*span, clock), activity]
        loss += [CHAIN_LOSS, TIME_LOSS, TIME_LOSS, CHAIN_LOSS]
    return [*tokens, SO], [*loss, CHAIN_LOSS, NO_LOSS]


def events_of(story: Story, question: Question) -> list[int]:
    """The events that lie in the chapter of a question, by start, then by track."""
    inside = np.flatnonzero(
        (story.event_start >= question.window_start_s) & (story.event_end <= question.window_end_s)
    )
    return [
        int(i) for i in inside[np.lexsort((story.event_word[inside], story.event_start[inside]))]
    ]


def hallucinate(
    writer: Writer, story: Story, question: Question, share: float, rng: np.random.Generator
) -> list[int]:
    """The reasoning of a teacher who is wrong about `share` of the hops, each alone: another place,
    activity, person or thing that lasts, as plausible.
    """
    tokens, chain = writer.tokens[story.domain.name], writer.chain(story, question)
    alike = [
        tokens.place,
        tokens.activity,
        tokens.person,
        tokens.effect[1:],
        np.array(writer.ordinals),
    ]
    wrong = rng.random(len(chain) - 1) < share
    for i in np.flatnonzero(wrong):
        others = next(
            (group[(group != chain[i]) & (group != PAD)] for group in alike if chain[i] in group),
            np.array([]),
        )
        chain[int(i)] = int(rng.choice(others)) if len(others) else chain[int(i)]
    return chain


def augmented_window(
    question: Question, num_seconds: int, S: int, mix: Mix, rng: np.random.Generator
) -> tuple[int, int]:
    """Temporal augmentation: segments of the true window with each edge moved by jitter_s (or,
    seldom, a window that misses; ours, the paper names none).
    """
    low, high = mix.jitter_s
    start = question.window_start_s - int(rng.integers(low, high + 1))
    end = question.window_end_s + int(rng.integers(low, high + 1))
    last = num_seconds - 1
    first_idx, last_idx = min(max(start, 0), last) // S, min(max(end - 1, start, 0), last) // S
    if rng.random() < mix.misplaced:
        width = last_idx - first_idx
        first_idx = int(rng.integers(0, max(1, last // S - width + 1)))
        last_idx = first_idx + width
    return first_idx, last_idx


def _pad_rows(tokens: list[list[list[int]]], loss: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for video in tokens for row in video)
    return _padded(tokens, PAD, longest), _padded(loss, NO_LOSS, longest)


def _padded(videos: list[list[list[int]]], value: int, longest: int) -> Tensor:
    """Rows of several videos (B, Q, longest), filled up with `value`."""
    rows = [[*row, *[value] * (longest - len(row))] for video in videos for row in video]
    return torch.tensor(rows).view(len(videos), -1, longest)


# --- Bench ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """What a split is: how many videos, of which lengths (seconds), with how many questions each. A
    split is a seed; any seed works.

    `stretch` multiplies the lengths of chapters; `absent`: no question has its answer in its video.
    Of the whole `town` a split has all domains and task types in turn, lengths in three buckets,
    questions in a `phrasing`, cameras that are not perfect; `rates`: odd frame rates and start
    times as well; `kinds` and `domain`: of these kinds and this domain only (a few kinds alone
    promise no even positions: a chain of causes begins early).
    """

    videos: int
    seconds: tuple[int, int]
    questions: int
    seed: int
    fps: float = 2.0
    stretch: float = 1.0
    absent: bool = False
    town: str = "core"
    phrasing: str = "core"
    rates: bool = False
    kinds: tuple[str, ...] = tuple(TASK_TYPES)
    domain: str | None = None


SPLITS = {
    "sample": Split(videos=3, seconds=(96, 128), questions=4, seed=1),
    "dev": Split(videos=24, seconds=(128, 512), questions=12, seed=2),
    "test": Split(
        videos=337, seconds=(48, 3600), questions=3, seed=3, town="all", phrasing="trained"
    ),
    "sealed": Split(
        videos=337, seconds=(48, 3600), questions=3, seed=4, town="all", phrasing="trained"
    ),
    "sealed-short": Split(videos=40, seconds=(128, 512), questions=12, seed=5),
    "hour": Split(videos=4, seconds=(3600, 3600), questions=12, seed=6),
    "two-hours": Split(videos=4, seconds=(7200, 7200), questions=12, seed=7, stretch=2.0),
    "absent": Split(videos=24, seconds=(128, 512), questions=6, seed=8, absent=True),
    "town-dev": Split(
        videos=35, seconds=(48, 1200), questions=6, seed=9, town="all", phrasing="trained"
    ),
    "unseen-phrasing": Split(
        videos=70, seconds=(48, 600), questions=6, seed=10, town="all", phrasing="held_out"
    ),
    "robust": Split(
        videos=35,
        seconds=(48, 120),
        questions=3,
        seed=11,
        town="all",
        phrasing="trained",
        rates=True,
    ),
}
# What a training may leave out (`variants`), and the splits that ask for nothing else.
LEFT_OUT_TYPES = ("purpose", "nth", "nth_at")
LEFT_OUT_COMPOSITION = ("why2", "why3")  # a rule and then signs: each alone is trained
LEFT_OUT_DOMAIN = "beach"
SPLITS |= {
    "left-out-types": Split(
        videos=105,
        seconds=(128, 600),
        questions=1,
        seed=12,
        town="all",
        phrasing="trained",
        kinds=LEFT_OUT_TYPES[:2],
    ),
    "left-out-composition": Split(
        videos=70,
        seconds=(128, 600),
        questions=1,
        seed=13,
        town="all",
        phrasing="trained",
        kinds=LEFT_OUT_COMPOSITION,
    ),
    "left-out-domain": Split(
        videos=20,
        seconds=(128, 600),
        questions=9,
        seed=14,
        town="all",
        phrasing="trained",
        domain=LEFT_OUT_DOMAIN,
    ),
}
BUCKETS_S = (180, 600)  # under 3 min, 3 to 10 min, over 10 min: the duration buckets of ToTG-Bench
# One question of each in turn; where a story has no relay of three effects it is asked about two,
# or one.
BENCH_KINDS: tuple[tuple[str, ...], ...] = (
    ("explicit",),
    ("sign1",),
    ("why",),
    ("purpose",),
    ("order",),
    ("last_before",),
    ("explicit",),
    ("sign2",),
    ("why3", "why2", "why"),
    ("purpose",),
    ("order",),
    ("last_before",),
)
POSITION_BINS = 10
CHI2_LIMIT = (
    21.7  # of nine degrees of freedom: one seed in a hundred exceeds it where positions are even
)


@dataclass(frozen=True)
class Item:
    """One question of the bench with its truth, and what is needed to tell its story again.

    `answer` and `choices`: the same as a short answer and four choices (`tasks.quiz`);
    `lookalikes`, `distance_s`: `tasks.difficulty`.
    """

    video: str
    domain: str
    story_seed: int
    duration_s: int
    text: str
    question: Question
    stretch: float = 1.0
    oddities: bool = False
    answer: str = ""
    choices: tuple[str, ...] = ()
    lookalikes: int = 0
    distance_s: int = 0

    def as_row(self) -> dict[str, Any]:
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "question"
        } | dataclasses.asdict(self.question)

    @classmethod
    def from_row(cls, row: dict[str, Any], where: str) -> Item:
        """An Item from a JSON row; UserError names the file and what is wrong (an unknown key, an
        interval outside its video).
        """
        names = {f.name for f in dataclasses.fields(Question)}
        fixed = {key: _as_tuple(value) for key, value in row.items()}
        question = from_mapping(
            Question, {key: value for key, value in fixed.items() if key in names}, where
        )
        item = from_mapping(
            cls,
            {key: value for key, value in fixed.items() if key not in names}
            | {"question": question},
            where,
        )
        q = item.question
        if not q.absent and not 0 <= q.start_s < q.end_s <= item.duration_s:
            raise UserError(
                f"{where}: the interval [{q.start_s}, {q.end_s}] s is not inside {item.video} (0 "
                f"to {item.duration_s} s); mend the annotation"
            )
        return item


def _as_tuple(value: Any) -> Any:
    """JSON knows lists only."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def get_split(name: str) -> Split:
    """The split called `name`; UserError with the known names otherwise."""
    if name not in SPLITS:
        raise UserError(f"unknown split {name!r}: expected one of {', '.join(SPLITS)}")
    return SPLITS[name]


def split_folder(name: str, seed: int | None = None, root: Path | None = None) -> Path:
    """Where the files of a split lie: one folder per split, seed and length of the questions
    list.
    """
    split = get_split(name)
    return (root or data_root() / "videos") / f"{name}-{split.seed if seed is None else seed}"


def story_of(item: Item) -> Story:
    """The story behind a question, told again from its seed."""
    domains = load_domains("all")
    if item.domain not in domains:
        raise UserError(
            f"{item.video}: unknown domain {item.domain!r}; this version knows {', '.join(domains)}"
        )
    return tell(
        domains[item.domain],
        item.duration_s,
        item.story_seed,
        StoryConfig(stretch=item.stretch, oddities=item.oddities),
    )


@dataclass(frozen=True)
class Take:
    """How a story becomes a file: the camera, frames per second, compression (H.264 crf), the time
    of the first frame, and whether frames come unevenly.
    """

    camera: Camera
    fps: float
    crf: int = 20
    start_s: float = 0.0
    uneven: bool = False

    def times_s(self, num_seconds: int) -> np.ndarray:
        """When the frames are taken, in seconds from the first one."""
        even = np.arange(round(num_seconds * self.fps)) / self.fps
        sway = np.sin(np.arange(len(even)) / 7.0) * 0.4 / self.fps if self.uneven else 0.0
        return even + sway * (np.arange(len(even)) > 0)

    def write(self, path: Path, story: Story) -> Path:
        """Film a story into an mp4, atomically."""
        from timescope_lite.video import write_mp4  # here: a pile needs no video files, nor PyAV

        times_s = self.times_s(story.num_seconds)
        chunks = (times_s[at : at + 64] for at in range(0, len(times_s), 64))
        frames = (frame for chunk in chunks for frame in self.frames(story, chunk))
        return write_mp4(
            path,
            frames,
            self.fps,
            times_s=times_s if self.uneven else None,
            start_s=self.start_s,
            crf=self.crf,
        )

    def frames(self, story: Story, times_s: np.ndarray) -> np.ndarray:
        """The pictures at these seconds of the story."""
        rows = story.states[np.clip(times_s.astype(np.int64), 0, story.num_seconds - 1)]
        return self.camera.film(render_frames(story.domain, rows, times_s), times_s)


def take_of(split: Split, story: Story) -> Take:
    """How a split films a story: plainly in the core town; else a camera and one of three
    compressions drawn from the story's seed, one frame per second beyond ten minutes (400 MB are
    room for 54 hours of that), and in a split of odd rates 10 to 30 frames per second, some uneven,
    some with a late start.
    """
    if split.town == "core":
        return Take(Camera(0), split.fps)
    rng = np.random.default_rng((story.seed, 21))
    camera, crf = Camera.draw(rng), int(rng.choice((20, 26, 32)))
    if not split.rates:
        return Take(camera, split.fps if story.num_seconds <= BUCKETS_S[1] else 1.0, crf)
    rate = float(rng.choice((10.0, 12.5, 24000 / 1001, 25.0, 30000 / 1001, 30.0)))
    return Take(
        camera,
        rate,
        crf,
        start_s=float(rng.choice((0.0, 0.0, 0.7, 3.2))),
        uneven=bool(rng.integers(2)),
    )


def plan(name: str, seed: int | None = None) -> list[tuple[Story, list[Item]]]:
    """The stories and questions of a split, without pixels. Types take turns; targets are spread
    evenly over positions in the video.
    """
    split = get_split(name)
    seed = split.seed if seed is None else seed
    rng = np.random.default_rng((seed, 99))
    domains, whole = list(load_domains(split.town).values()), split.town != "core"
    domains = [domain for domain in domains if split.domain in (None, domain.name)]
    filled = np.zeros(POSITION_BINS, dtype=int)
    asked = Counter({TASK_TYPES[kind]: 0 for kind in split.kinds})
    videos = []
    for i, seconds in enumerate(lengths_of(split)):
        story_seed = int(rng.integers(2**31))
        story = tell(
            domains[i % len(domains)],
            seconds,
            story_seed,
            StoryConfig(stretch=split.stretch, oddities=whole),
        )
        if whole:
            questions = _balanced_questions(story, split, asked, filled, rng)
        else:
            kinds = [BENCH_KINDS[(i + n) % len(BENCH_KINDS)] for n in range(split.questions)]
            questions = (
                _choose_questions(story, kinds, filled, rng)
                if not split.absent
                else _absent_questions(story, kinds, rng)
            )
        about = f"{name}_{i:03d}.mp4", story.domain.name, story_seed, seconds
        videos.append((story, [_item(story, about, q, split, rng) for q in questions]))
    return videos


def lengths_of(split: Split) -> list[int]:
    """The length of every video in seconds. In the whole town a third of them lies in each bucket
    that the split reaches, shorter ones more often.
    """
    low, high = split.seconds
    if split.town == "core":
        return [int(n) for n in np.linspace(low, high, split.videos).round()]
    edges = [low, *(edge for edge in BUCKETS_S if edge < high), high]
    found: list[int] = []
    for number, (first, last) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        share = np.linspace(0, 1, split.videos * (number + 1) // (len(edges) - 1) - len(found))
        shortest, longest = first, last
        if number == 0 and len(edges) > 2:
            longest -= 1  # the first bucket is open above, as in ToTG-Bench
        if number == 2:
            shortest += 1  # and so the last one below
        # Equal steps in the logarithm, bent towards short videos the further up the bucket lies.
        lengths = shortest * (longest / shortest) ** (share ** (1 + 0.6 * number))
        found += [int(n) for n in lengths.round()]
    return found


def _item(
    story: Story,
    about: tuple[str, str, int, int],
    q: Question,
    split: Split,
    rng: np.random.Generator,
) -> Item:
    text = in_words(story, q)
    if split.town == "core":
        return Item(*about, text, q, split.stretch)
    answer, choices = quiz(story, q, rng)
    hard = difficulty(story, q)
    return Item(
        *about,
        text,
        q,
        split.stretch,
        True,
        answer,
        choices,
        hard["lookalikes"],
        hard["distance_s"],
    )


def _balanced_questions(
    story: Story, split: Split, asked: Counter[str], filled: np.ndarray, rng: np.random.Generator
) -> list[Question]:
    """Questions of the task types that have been asked least so far and that this story offers.
    Updates `asked` and `filled`.
    """
    chosen: list[Question] = []
    order = sorted(asked, key=lambda task: (asked[task], rng.random()))
    for task in order:
        if len(chosen) == split.questions:
            break
        kinds = [kind for kind in split.kinds if TASK_TYPES[kind] == task]
        question = _best_draw(
            story,
            [kinds[int(n)] for n in rng.permutation(len(kinds))],
            chosen,
            filled,
            rng,
            split.phrasing,
        )
        if question:
            chosen.append(question)
            asked[task] += 1
    return chosen


def _absent_questions(
    story: Story, kinds: Sequence[tuple[str, ...]], rng: np.random.Generator
) -> list[Question]:
    """Questions without an answer in this story."""
    drawn = [ask_absent(story, choice[0], rng) for choice in kinds]
    return [q for q in drawn if q is not None]


def _choose_questions(
    story: Story, kinds: Sequence[tuple[str, ...]], filled: np.ndarray, rng: np.random.Generator
) -> list[Question]:
    """One question for each entry of `kinds`, which lists kinds in order of preference, where the
    story offers one. Updates `filled`.
    """
    chosen: list[Question] = []
    for choice in kinds:
        question = _best_draw(story, choice, chosen, filled, rng)
        chosen += [question] if question else []
    return chosen


def _best_draw(
    story: Story,
    kinds: Sequence[str],
    chosen: Sequence[Question],
    filled: np.ndarray,
    rng: np.random.Generator,
    phrasing: str = "core",
) -> Question | None:
    """A question of the first kind that the story offers and that is not among `chosen`: of twelve
    draws the one whose position is rarest. Updates `filled`.
    """
    draws = (
        [
            q
            for q in (ask(story, kind, rng, phrasing) for _ in range(12))
            if q is not None and q not in chosen
        ]
        for kind in kinds
    )
    drawn = next((found for found in draws if found), [])
    fresh = [
        q for q in drawn if all((q.start_s, q.end_s) != (c.start_s, c.end_s) for c in chosen)
    ] or drawn
    if not fresh:
        return None
    bin_of = [
        min(int((q.start_s + q.end_s) / 2 / story.num_seconds * POSITION_BINS), POSITION_BINS - 1)
        for q in fresh
    ]
    best = int(np.argmin(filled[bin_of]))
    filled[bin_of[best]] += 1
    return fresh[best]


def build(
    name: str,
    seed: int | None = None,
    root: Path | None = None,
    progress: bool = True,
    jobs: int = 1,
) -> Path:
    """Render a split to mp4 files and `questions.jsonl`; returns its folder. What is there already
    is kept; `split.json` is written last.

    Each file is written atomically, so a build that was killed goes on where it stopped; `jobs`
    processes share the videos.
    """
    folder = split_folder(name, seed, root)
    if (folder / "split.json").is_file():
        return folder
    videos = plan(name, seed)
    missing = [
        (folder / items[0].video, story, get_split(name))
        for story, items in videos
        if items and not (folder / items[0].video).is_file()
    ]
    bar = partial(
        progress_bar, total=len(missing), desc=f"building {folder.name}", disable=not progress
    )
    if jobs > 1 and len(missing) > 1:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            list(bar(pool.map(_film, missing[::-1])))  # the longest first
    else:
        list(bar(map(_film, missing)))
    rows = [item.as_row() for _, items in videos for item in items]
    with atomic_path(folder / "questions.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    card = {
        "split": name,
        "version": __version__,
        "videos": len(videos),
        "questions": len(rows),
        "stories": [s.digest() for s, _ in videos],
    }
    write_json(folder / "split.json", card)
    return folder


def build_some(
    name: str, seed: int | None = None, root: Path | None = None, videos: int | None = None
) -> tuple[Path, list[Item]]:
    """The folder of a split and its questions, or those about `videos` of its videos, spread evenly
    over it, of which only these are rendered. Files are the same as `build` writes.
    """
    folder = split_folder(name, seed, root)
    if videos is None:
        return folder, read_questions(build(name, seed, root))
    planned = [(story, items) for story, items in plan(name, seed) if items]
    if not 1 <= videos <= len(planned):
        raise UserError(
            f"videos is {videos}: expected 1 to {len(planned)}, so many has split {name!r}"
        )
    chosen = np.linspace(0, len(planned) - 1, videos).round().astype(int)
    found: list[Item] = []
    for story, items in (planned[i] for i in chosen):
        path = folder / items[0].video
        if not path.is_file():
            _film((path, story, get_split(name)))
        found += items
    return folder, found


def _film(what: tuple[Path, Story, Split]) -> None:
    path, story, split = what
    take_of(split, story).write(path, story)


def read_questions(folder: Path) -> list[Item]:
    """The questions of a built split, checked row by row."""
    path = Path(folder) / "questions.jsonl"
    if not path.is_file():
        raise UserError(
            f"{folder} has no questions.jsonl; build it with `timescope-lite data build`"
        )
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            rows.append(Item.from_row(json.loads(line), f"{path.name}, line {number}"))
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path.name}, line {number} is not valid JSON ({error}); build the split again"
            ) from None
    return rows


def check(
    name: str, seed: int | None = None, root: Path | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Build what is missing, then check every rule of the benchmark on the files. Returns counts;
    UserError names the first rule that fails.
    """
    folder, split = build(name, seed, root, jobs=jobs), get_split(name)
    items = read_questions(folder)
    stories = {item.video: story_of(item) for item in items}
    for item in items:
        _check_item(item, stories[item.video])
    for video, story in stories.items():
        _check_file(folder / video, story, take_of(split, story))
    if split.town != "core":
        _check_balance(items, split)
    named = float(np.mean([item.question.cue_named for item in items]))
    return {
        "split": folder.name,
        "videos": len(stories),
        "questions": len(items),
        "task_types": dict(sorted(Counter(item.question.task_type for item in items).items())),
        "cue_named": round(named, 3),
        "position_histogram": positions(items).tolist(),
        "seconds": int(sum(story.num_seconds for story in stories.values())),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.mp4")),
    }


def positions(items: Sequence[Item]) -> np.ndarray:
    """How many targets lie in each tenth of their videos."""
    centre = [(item.question.start_s + item.question.end_s) / 2 / item.duration_s for item in items]
    return np.histogram(centre, bins=POSITION_BINS, range=(0, 1))[0]


def _check_item(item: Item, story: Story) -> None:
    """A question has exactly one answer for a solver that sees the story alone, in its window, and
    one right choice of four.
    """
    q = item.question
    found = solve(
        story, q.kind, q.path[0] if q.path else None, q.word, q.effect, q.other, q.ordinal
    )
    if found != ([] if q.absent else [(q.start_s, q.end_s)]):
        raise UserError(
            f"{item.video}: {item.text!r} has the answers {found}, expected only [{q.start_s}, "
            f"{q.end_s}]; build the split again"
        )
    if not q.absent and not q.window_start_s <= q.start_s < q.end_s <= q.window_end_s:
        raise UserError(f"{item.video}: the target of {item.text!r} does not lie in its window")
    if item.choices and (len(set(item.choices)) != 4 or item.answer not in item.choices):
        raise UserError(
            f"{item.video}: the choices of {item.text!r} are {item.choices}; expected four, one of "
            f"them {item.answer!r}"
        )


def _check_balance(items: Sequence[Item], split: Split) -> None:
    """What the benchmark promises of a whole split: types, domains, positions even, cues hidden, no
    constant answer that scores.
    """
    types, domains = Counter(i.question.task_type for i in items), Counter(i.domain for i in items)
    num_types = len({TASK_TYPES[kind] for kind in split.kinds})
    num_domains = len(load_domains(split.town)) if split.domain is None else 1
    tenths, even = positions(items), len(items) / POSITION_BINS
    long = [item for item in items if item.duration_s >= BUCKETS_S[0]]
    spans = np.array([(item.question.start_s, item.question.end_s) for item in long], dtype=float)
    duration = np.array([[item.duration_s] for item in long], dtype=float)
    blind = (
        float(mean_iou(tiou_many(np.array(best_constant(spans / duration)) * duration, spans)))
        if long
        else 0.0
    )
    rules = (
        (
            len(types) == num_types and min(types.values()) >= 0.8 * len(items) / num_types,
            f"task types are uneven: {dict(types)}",
        ),
        (
            len(domains) == num_domains and max(domains.values()) <= 2 * len(items) / num_domains,
            f"domains are uneven: {dict(domains)}",
        ),
        (
            num_types < 12 or float(((tenths - even) ** 2 / even).sum()) < CHI2_LIMIT,
            f"positions are not even: {tenths.tolist()}",
        ),
        (
            np.mean([item.question.cue_named for item in items]) <= 1 / 3,
            "more than a third of the questions names its cue",
        ),
        (
            split.seconds[1] <= BUCKETS_S[1] or blind <= 0.05,
            f"one constant interval reaches mIoU {blind:.3f} beyond 3 min, more than 0.05",
        ),
    )
    for holds, complaint in rules:
        if not holds:
            raise UserError(f"{complaint}; take another seed, or mend corpus.plan")


def _check_file(path: Path, story: Story, take: Take) -> None:
    """The decoded pixels of an mp4 are those of its story, up to codec error, at some of its
    frames.
    """
    from timescope_lite.video import read_frames

    times_s = take.times_s(story.num_seconds)
    chosen = times_s[np.linspace(0, len(times_s) - 1, 5).astype(int)]
    seen = to_model_size(read_frames(path, chosen + 0.25 / take.fps))
    error = float(np.abs(seen.astype(float) - to_model_size(take.frames(story, chosen))).mean())
    if error > MAX_CODEC_ERROR:
        raise UserError(
            f"{path.name}: decoded frames differ from the story by {error:.1f} of 255 on average; "
            "delete the file and build again"
        )
