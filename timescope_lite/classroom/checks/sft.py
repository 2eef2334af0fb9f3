"""The exercises of lesson 08: what is supervised, what a time competes with, a window put wrong on purpose, how sure a distribution is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, WrongAnswer, register

# ---- supervise ----


def supervised_by_token(prompt: Sequence[int], chain: Sequence[int], tag: int, times: Sequence[int]) -> list[int]:
    """For every position what its successor is: 1 a word of the reasoning, 2 a time, 0 something given, or nothing."""
    roles = [0] * len(prompt) + [1] * len(chain) + [0] + [2] * len(times)
    return [roles[i + 1] if i + 1 < len(roles) else 0 for i in range(len(roles))]


def _mask(given: int = 0, shift: bool = True, tag_role: int = 0, one: bool = False) -> Callable[..., list[int]]:
    """The same, with a mistake: the prompt or the tag is learned, the tokens themselves are marked, words and times get one number."""

    def mask(prompt: Sequence[int], chain: Sequence[int], tag: int, times: Sequence[int]) -> list[int]:
        roles = [given] * len(prompt) + [1] * len(chain) + [tag_role] + [1 if one else 2] * len(times)
        return [*roles[1:], 0] if shift else roles

    return mask


_MASK_SAYS = (
    ("itself", _mask(shift=False), "You marked the words and times themselves. Position t predicts token t + 1: the mark belongs one to the left."),
    ("question", _mask(given=1), "The question is supervised too. It is given: a model that learns to guess questions spends its capacity on them."),
    ("tag", _mask(tag_role=1), "`<so>` is asked to predict the tag after it. Whoever runs the model writes that tag, so there is nothing to learn."),
    ("one kind", _mask(one=True), "Words and times have one number. They need two: a word competes with words, a time with seconds."),
)  # fmt: skip
_EXAMPLES = (((9, 8, 1), (30, 40, 3), 5, (501, 504)), ((9, 2), (), 4, (500, 530)), ((7, 7, 7, 7, 1), (3,), 4, (6,)))
register(
    Exercise(
        name="supervise",
        lesson="08",
        reference=supervised_by_token,
        cases=lambda: [
            Case(f"{len(p)} tokens of prompt, {len(c)} of reasoning, {len(t)} of time", (list(p), list(c), tag, list(t)))
            for p, c, tag, t in _EXAMPLES
        ],
        covers="3 examples, position by position",
        wrong=tuple(WrongAnswer(*says) for says in _MASK_SAYS),
    )
)

# ---- time_cost ----


def cost_by_counting(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
    """-log of the share of the target's exp(score) in the sum over <absent> and the seconds first .. first + num - 1, term by term."""
    rivals = [absent, *range(first, first + num)]
    highest = max(float(logits[i]) for i in rivals)
    return math.log(math.fsum(math.exp(float(logits[i]) - highest) for i in rivals)) + highest - float(logits[target])


def _cost(absent_too: bool = True, clock: bool = False, words: bool = False, short: int = 0, bits: bool = False) -> Callable[..., float]:
    """The same, with a mistake in what the target competes with, or in the unit."""

    def cost(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
        scores = logits if words else torch.cat([logits[absent : absent + 1] if absent_too else logits[:0],
                                                 logits[absent + 1 :] if clock else logits[first : first + num - short]])  # fmt: skip
        found = float(torch.logsumexp(scores.double(), 0) - logits[target].double())
        return found / math.log(2) if bits else found

    return cost


_COST_SAYS = (
    ("no absent", _cost(absent_too=False), "<absent> is missing among the rivals. Then a model could never learn to prefer it, nor not to."),
    ("all", _cost(words=True), "The time competes with every token, words and all. At its place only a time or <absent> may stand."),
    ("one short", _cost(short=1), "The last second of the video is no rival: `first : first + num` has num seconds."),
    ("bits", _cost(bits=True), "These are bits. Cross-entropy is in nats here, as in PyTorch: no division by log 2."),
)  # fmt: skip


def _cost_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(8)
    logits = [torch.randn(40, generator=drawn) * size for size in (1.0, 3.0, 1.0, 200.0)]
    places = ((22, 20, 8, 6), (27, 20, 8, 6), (6, 10, 30, 6), (15, 12, 16, 6))
    return [Case(f"target {t}, seconds {f} to {f + n - 1}", (x, t, f, n, a)) for x, (t, f, n, a) in zip(logits, places, strict=True)]


register(
    Exercise(
        name="time_cost",
        lesson="08",
        reference=cost_by_counting,
        cases=_cost_cases,
        covers="4 times, one of them <absent>, one with scores in the hundreds",
        wrong=tuple(WrongAnswer(*says) for says in _COST_SAYS),
    )
)

# ---- moved_window ----


def window_by_second(start_s: int, end_s: int, before: int, after: int, num_seconds: int, S: int) -> tuple[int, int]:
    """First and last segment of the seconds that are left of the moved window, counted second by second."""
    touched = [t // S for t in range(num_seconds) if start_s - before <= t < end_s + after]
    return touched[0], touched[-1]


def _window(sign: int = -1, inclusive: int = 1, clamp: bool = True) -> Callable[..., tuple[int, int]]:
    """The same by division, with a mistake: the start moved the other way, one second too many, no look at the ends of the video."""

    def window(start_s: int, end_s: int, before: int, after: int, num_seconds: int, S: int) -> tuple[int, int]:
        first, last = start_s + sign * before, end_s + after - inclusive
        if clamp:
            first, last = min(max(first, 0), num_seconds - 1), min(max(last, 0), num_seconds - 1)
        return first // S, last // S

    return window


_WINDOW_SAYS = (
    ("sign", _window(sign=1), "The start went the wrong way: `before` seconds more at the front means an earlier start."),
    ("inclusive", _window(inclusive=0), "A segment too many where the end falls on a border: [start_s, end_s) does not contain second end_s."),
    ("no ends", _window(clamp=False), "Segments outside the video. A chapter at its beginning or end has no room to grow: keep to 0 .. num_seconds - 1."),
)  # fmt: skip
_WINDOWS = (
    (40, 70, 2, 4, 128, 16),
    (40, 70, -2, -2, 128, 16),
    (33, 60, 1, 4, 128, 16),
    (0, 20, 4, 0, 128, 16),
    (100, 128, 0, 4, 128, 16),
    (30, 62, -2, 2, 128, 16),
)
register(
    Exercise(
        name="moved_window",
        lesson="08",
        reference=window_by_second,
        cases=lambda: [Case(f"seconds {a} to {b}, {x:+d} before, {y:+d} after", (a, b, x, y, n, S)) for a, b, x, y, n, S in _WINDOWS],
        covers="6 windows second by second, 2 of them at an end of the video",
        wrong=tuple(WrongAnswer(*says) for says in _WINDOW_SAYS),
    )
)

# ---- entropy_bits ----


def entropy_by_sum(scores: np.ndarray) -> float:
    """-sum of p log2 p of softmax(scores), term by term; a probability of 0 adds nothing."""
    weights = [math.exp(float(s) - float(max(scores))) for s in scores]
    shares = [w / math.fsum(weights) for w in weights]
    return -math.fsum(p * math.log2(p) for p in shares if p > 0)


def _shares(scores: np.ndarray, shift: bool = True) -> np.ndarray:
    x = np.exp(np.asarray(scores, dtype=float) - (np.max(scores) if shift else 0))
    return np.asarray(x / x.sum())


def _without_care(scores: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        p = _shares(scores, shift=False)
        return float(-(p * np.log2(p)).sum())


_ENTROPY_SAYS = (
    ("nats", lambda s: entropy_by_sum(s) * math.log(2), "These are nats. One bit halves the seconds that are left: use log2."),
    ("surprise", lambda s: float(-np.log2(_shares(s).max())),
     "That is the surprise at the best second alone. Entropy is the mean surprise: weight each second by its p."),
    ("sign", lambda s: -entropy_by_sum(s), "The sign is missing: log2 p is negative, entropy is not."),
    ("overflow", _without_care, "Scores in the hundreds, or a p of 0, came out as NaN. Take the largest score away before exp; where p is 0, p log p is 0."),
)  # fmt: skip
register(
    Exercise(
        name="entropy_bits",
        lesson="08",
        reference=entropy_by_sum,
        cases=lambda: [
            Case("4 equal scores", (np.zeros(4),)),
            Case("a sure one among 256", (np.eye(256)[7] * 9.0,)),
            Case("two rivals, scores in the hundreds", (np.array([900.0, 900.0, -900.0]),)),
            Case("64 drawn scores", (np.random.default_rng(8).normal(size=64) * 2,)),
        ],
        covers="4 distributions, one of them with scores in the hundreds",
        wrong=tuple(WrongAnswer(*says) for says in _ENTROPY_SAYS),
    )
)
