"""The exercises of lesson 08: what is supervised, what a time competes with, a window put wrong on
purpose, how sure a distribution is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, register, wrong_answers

# ---- supervise ----


def supervised_by_token(
    prompt: Sequence[int], chain: Sequence[int], tag: int, times: Sequence[int]
) -> list[int]:
    """For every position what its successor is: 1 a word of the reasoning, 2 a time, 0 something
    given, or nothing.
    """
    roles = [0] * len(prompt) + [1] * len(chain) + [0] + [2] * len(times)
    return [roles[i + 1] if i + 1 < len(roles) else 0 for i in range(len(roles))]


def _mask(
    given: int = 0,
    shift: int = 1,
    tag_role: int = 0,
    one: bool = False,
    so: int = 1,
    end: bool = True,
) -> Callable[..., list[int]]:
    """The same, with a mistake: the prompt or the tag is learned, the tokens themselves are marked
    or those behind them, words and times get one number, <so> none, the list ends early.
    """

    def mask(
        prompt: Sequence[int], chain: Sequence[int], tag: int, times: Sequence[int]
    ) -> list[int]:
        reasoning = [1] * len(chain[:-1]) + [so] * len(chain[-1:])
        roles = [given] * len(prompt) + reasoning + [tag_role] + [1 if one else 2] * len(times)
        shifted = {1: [*roles[1:], *[0] * end], 0: roles, -1: [0, *roles[:-1]]}
        return shifted[shift]

    return mask


def _think_forgotten(
    prompt: Sequence[int], chain: Sequence[int], tag: int, times: Sequence[int]
) -> list[int]:
    marks = supervised_by_token(prompt, chain, tag, times)
    return [0] * len(prompt) + marks[len(prompt) :]


def _joined_in_place(
    prompt: list[int], chain: Sequence[int], tag: int, times: Sequence[int]
) -> list[int]:
    marks = supervised_by_token(prompt, chain, tag, times)
    prompt += [*chain, tag, *times]
    return marks


_MASK_SAYS = (
    (
        "other way",
        _mask(shift=-1),
        (
            "Shifted to the right: a mark stands behind the token that is learned. Who predicts "
            "it? "
            "The one before it."
        ),
    ),
    (
        "too short",
        _mask(end=False),
        "One mark is missing. Each token needs one, the last too: it predicts nothing, so 0.",
    ),
    (
        "no <so>",
        _mask(so=0),
        (
            "Nobody is asked to predict `<so>`, the last word of the reasoning. A model that never "
            "learns to stop goes on writing."
        ),
    ),
    (
        "no <think>",
        _think_forgotten,
        "The last token of the prompt has no mark. It is given, and still it predicts: what comes "
        "after `<think>` is the first place, which is learned.",
    ),
    ("in place", _joined_in_place, "changed its input `prompt` in place"),
    (
        "itself",
        _mask(shift=0),
        (
            "You marked the words and times themselves. Position t predicts token t + 1: the mark "
            "belongs one to the left."
        ),
    ),
    (
        "question",
        _mask(given=1),
        (
            "The question is supervised too. It is given: a model that learns to guess questions "
            "spends its capacity on them."
        ),
    ),
    (
        "tag",
        _mask(tag_role=1),
        (
            "`<so>` is asked to predict the tag after it. Whoever runs the model writes that tag, "
            "so "
            "there is nothing to learn."
        ),
    ),
    (
        "one kind",
        _mask(one=True),
        (
            "Words and times have one number. They need two: a word competes with words, a time "
            "with "
            "seconds."
        ),
    ),
)
_EXAMPLES = (
    ((9, 8, 1), (30, 40, 3), 5, (501, 504)),
    ((9, 2), (), 4, (500, 530)),
    ((7, 7, 7, 7, 1), (3,), 4, (6,)),
)
register(
    Exercise(
        name="supervise",
        lesson="08",
        reference=supervised_by_token,
        cases=lambda: [
            Case(
                f"{len(p)} tokens of prompt, {len(c)} of reasoning, {len(t)} of time",
                (list(p), list(c), tag, list(t)),
            )
            for p, c, tag, t in _EXAMPLES
        ],
        covers="3 examples, position by position",
        wrong=wrong_answers(_MASK_SAYS),
    )
)

# ---- time_cost ----


def cost_by_counting(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
    """-log of the share of the target's exp(score) in the sum over <absent> and the seconds first
    .. first + num - 1, term by term.
    """
    rivals = [absent, *range(first, first + num)]
    highest = max(float(logits[i]) for i in rivals)
    return (
        math.log(math.fsum(math.exp(float(logits[i]) - highest) for i in rivals))
        + highest
        - float(logits[target])
    )


def _cost(
    absent_too: bool = True,
    clock: bool = False,
    words: bool = False,
    short: int = 0,
    bits: bool = False,
) -> Callable[..., float]:
    """The same, with a mistake in what the target competes with, or in the unit."""

    def cost(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
        scores = (
            logits
            if words
            else torch.cat(
                [
                    logits[absent : absent + 1] if absent_too else logits[:0],
                    logits[first:] if clock else logits[first : first + num - short],
                ]
            )
        )
        found = float(torch.logsumexp(scores.double(), 0) - logits[target].double())
        return found / math.log(2) if bits else found

    return cost


def _hidden_in_place(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
    allowed = torch.zeros(len(logits), dtype=torch.bool)
    allowed[[absent, *range(first, first + num)]] = True
    logits[~allowed] = -torch.inf
    return cost_by_counting(logits, target, first, num, absent)


def _one_off(logits: Tensor, target: int, first: int, num: int, absent: int) -> float:
    rivals = torch.cat([logits[absent : absent + 1], logits[first : first + num]]).double()
    return float(torch.logsumexp(rivals, 0) - rivals[target - first])


_COST_SAYS = (
    (
        "sign",
        lambda *given: -cost_by_counting(*given),
        (
            "The sign is missing: that is log p, below 0. A cost is -log p, and small where the "
            "model "
            "is right."
        ),
    ),
    (
        "clock",
        _cost(clock=True),
        "The time competes with seconds after the last one asked for: stop at `first + num`.",
    ),
    (
        "overflow",
        lambda x, target, first, num, absent: float(
            x[[absent, *range(first, first + num)]].exp().sum().log() - x[target]
        ),
        "Right for small scores, infinite for large ones: e^200 does not fit into a float. "
        "`logsumexp` takes the largest out first.",
    ),
    (
        "one off",
        _one_off,
        (
            "Right rivals, wrong place: with <absent> in front, second `first` is number 1 of your "
            "list, not number 0."
        ),
    ),
    ("in place", _hidden_in_place, "changed its input `logits` in place"),
    (
        "no absent",
        _cost(absent_too=False),
        (
            "<absent> is missing among the rivals. Then a model could never learn to prefer it, "
            "nor "
            "not to."
        ),
    ),
    (
        "all",
        _cost(words=True),
        (
            "The time competes with every token, words and all. At its place only a time or "
            "<absent> "
            "may stand."
        ),
    ),
    (
        "one short",
        _cost(short=1),
        "The last second is no rival: `first : first + num` has num seconds.",
    ),
    (
        "bits",
        _cost(bits=True),
        "These are bits. Cross-entropy is in nats here, as in PyTorch: no division by log 2.",
    ),
)


def _cost_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(8)
    logits = [torch.randn(40, generator=drawn) * size for size in (1.0, 3.0, 1.0, 200.0)]
    places = ((22, 20, 8, 6), (27, 20, 8, 6), (6, 10, 30, 6), (15, 12, 16, 6))
    return [
        Case(f"target {t}, seconds {f} to {f + n - 1}", (x, t, f, n, a))
        for x, (t, f, n, a) in zip(logits, places, strict=True)
    ]


register(
    Exercise(
        name="time_cost",
        lesson="08",
        reference=cost_by_counting,
        cases=_cost_cases,
        covers="4 times, one of them <absent>, one with scores in the hundreds",
        wrong=wrong_answers(_COST_SAYS),
    )
)

# ---- moved_window ----


def window_by_second(
    start_s: int, end_s: int, before: int, after: int, num_seconds: int, S: int
) -> tuple[int, int]:
    """First and last segment of the seconds that are left of the moved window, counted second by
    second.
    """
    touched = [t // S for t in range(num_seconds) if start_s - before <= t < end_s + after]
    return touched[0], touched[-1]


def _window(
    sign: int = -1,
    inclusive: int = 1,
    clamp: bool = True,
    end: int = 1,
    past: int = 0,
    seconds: bool = False,
) -> Callable[..., tuple[int, int]]:
    """The same by division, with a mistake: start or end moved the other way, one second too many,
    no look at the ends of the video, a segment past the last one, seconds left as they are.
    """

    def window(
        start_s: int, end_s: int, before: int, after: int, num_seconds: int, S: int
    ) -> tuple[int, int]:
        first, last = start_s + sign * before, end_s + end * after - inclusive
        if clamp:
            first, last = min(max(first, 0), num_seconds - 1), min(max(last, 0), num_seconds - 1)
        return (first, last) if seconds else (first // S, last // S + past)

    return window


_WINDOW_SAYS = (
    (
        "end",
        _window(end=-1),
        "The end went the wrong way: `after` seconds more at the end means a later end.",
    ),
    (
        "past",
        _window(past=1),
        (
            "Your last segment is one too many, as the end of a slice would be. Both ends are "
            "included "
            "here."
        ),
    ),
    (
        "seconds",
        _window(seconds=True),
        "Those are seconds. Segments are asked for: second t lies in segment t // S.",
    ),
    (
        "sign",
        _window(sign=1),
        "The start went the wrong way: `before` seconds more at the front means an earlier start.",
    ),
    (
        "inclusive",
        _window(inclusive=0),
        (
            "A segment too many where the end falls on a border: [start_s, end_s) does not contain "
            "second end_s."
        ),
    ),
    (
        "no ends",
        _window(clamp=False),
        (
            "Segments outside the video. A chapter at its beginning or end has no room to grow: "
            "keep "
            "to 0 .. num_seconds - 1."
        ),
    ),
)
_WINDOWS = (
    (40, 78, 2, 4, 128, 16),
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
        cases=lambda: [
            Case(f"seconds {a} to {b}, {x:+d} before, {y:+d} after", (a, b, x, y, n, S))
            for a, b, x, y, n, S in _WINDOWS
        ],
        covers="6 windows second by second, 2 of them at an end of the video",
        wrong=wrong_answers(_WINDOW_SAYS),
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


def _shifted_in_place(scores: np.ndarray) -> float:
    scores -= scores.max()
    return entropy_by_sum(scores)


def _unweighted(scores: np.ndarray) -> float:
    p = _shares(scores)
    return float(-np.log2(p[p > 0]).mean())


def _scores_as_shares(scores: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(-(scores * np.log2(scores)).sum())


_ENTROPY_SAYS = (
    (
        "unweighted",
        _unweighted,
        (
            "Every second counts alike in your mean, the impossible ones too. Weight each surprise "
            "by "
            "its p: what is likely counts more."
        ),
    ),
    (
        "per second",
        lambda s: entropy_by_sum(s) / len(s),
        (
            "You divided by the number of seconds. The p are the weights of this mean, and sum to "
            "1 "
            "already."
        ),
    ),
    (
        "share of flat",
        lambda s: entropy_by_sum(s) / math.log2(len(s)),
        "That is the share of the entropy of a flat distribution, 0 to 1. Asked are bits: how many "
        "halvings are left.",
    ),
    (
        "no softmax",
        _scores_as_shares,
        (
            "You took the scores for probabilities. Scores may be negative or 900: softmax makes "
            "shares of them that sum to 1."
        ),
    ),
    ("in place", _shifted_in_place, "changed its input `scores` in place"),
    (
        "nats",
        lambda s: entropy_by_sum(s) * math.log(2),
        "These are nats. One bit halves the seconds that are left: use log2.",
    ),
    (
        "surprise",
        lambda s: float(-np.log2(_shares(s).max())),
        "That is the surprise at the best second alone. Entropy is the mean surprise: weight each "
        "second by its p.",
    ),
    (
        "sign",
        lambda s: -entropy_by_sum(s),
        "The sign is missing: log2 p is negative, entropy is not.",
    ),
    (
        "overflow",
        _without_care,
        (
            "Scores in the hundreds, or a p of 0, came out as NaN. Take the largest score away "
            "before "
            "exp; where p is 0, p log p is 0."
        ),
    ),
)
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
        wrong=wrong_answers(_ENTROPY_SAYS),
    )
)
