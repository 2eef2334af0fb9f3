"""The exercises of lesson 01: temporal IoU, recall with unparsable answers, bootstrap over videos,
the best constant answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from timescope_lite.classroom.checks.core import (
    Case,
    Exercise,
    WrongAnswer,
    register,
    run_case,
    same,
)
from timescope_lite.intervals import tiou

Pair = Sequence[float]
Function = Callable[..., Any]
Rng = np.random.Generator


def _exercise(  # noqa: PLR0913
    name: str,
    reference: Function,
    cases: Callable[[], list[Case]],
    covers: str,
    *,
    mistakes: Mapping[str, Function],
    says: Mapping[str, str],
    agree: Callable[[Any, Any], bool] = same,
) -> None:
    """Register an exercise; somebody who made two mistakes hears the message of the one that
    explains the first failing case.
    """
    wrong = [
        WrongAnswer(mistake, function, says[mistake]) for mistake, function in mistakes.items()
    ]

    def first_mistake(case: Case, expected: Any, got: Any) -> str | None:
        outcomes = [(mistake, run_case(mistake.implementation, case)) for mistake in wrong]
        return next(
            (
                mistake.message
                for mistake, outcome in outcomes
                if not outcome.error and agree(outcome.value, got)
            ),
            None,
        )

    register(Exercise(name, "01", reference, cases, covers, wrong, agree, first_mistake))


# ---- tiou ----

# (a, b, tIoU worked by hand): the plain ones first, then the ones that published scripts fall over.
GOLDEN: tuple[tuple[str, Pair, Pair, Fraction], ...] = (
    ("they overlap", (0.0, 10.0), (5.0, 25.0), Fraction(5, 25)),
    ("one inside the other", (12.0, 15.0), (10.0, 20.0), Fraction(3, 10)),
    ("the same twice", (3.5, 9.25), (3.5, 9.25), Fraction(1)),
    ("they share a border", (0.0, 5.0), (5.0, 9.0), Fraction(0)),
    ("far apart", (0.0, 4.0), (30.0, 32.0), Fraction(0)),
    ("a is reversed", (20.0, 10.0), (10.0, 20.0), Fraction(1)),
    ("b is reversed", (0.0, 10.0), (25.0, 5.0), Fraction(5, 25)),
    ("a has zero length", (7.0, 7.0), (5.0, 10.0), Fraction(0)),
    ("both have zero length", (7.0, 7.0), (7.0, 7.0), Fraction(0)),
)


def tiou_by_counting(a: Pair, b: Pair) -> float:
    """tIoU of two (start_s, end_s) pairs of whole milliseconds, by counting those in both and those
    in either.
    """
    in_a, in_b = (set(range(*sorted(round(1000 * time_s) for time_s in pair))) for pair in (a, b))
    return len(in_a & in_b) / len(in_a | in_b) if in_a | in_b else 0.0


def _tiou_cases() -> list[Case]:
    drawn = np.random.default_rng(1).integers(0, 40_000, (12, 2, 2)) / 1000
    golden = [Case(label, (a, b)) for label, a, b, _ in GOLDEN]
    return golden + [
        Case(f"random pair {i}", tuple(tuple(pair) for pair in pairs))
        for i, pairs in enumerate(drawn.tolist())
    ]


def _tiou_without(
    part: str = "",
    union: Callable[[float, float, float], float] = lambda a, b, shared: a + b - shared,
) -> Function:
    """tIoU without one of its parts: "floor", "order", "guard" or several; "closed": a second more;
    or with another idea of the union.
    """

    def compute(a: Pair, b: Pair) -> float:
        (s, e), (t, u) = (a, b) if "order" in part else (sorted(a), sorted(b))
        more = 1 if "closed" in part else 0
        shared = min(e, u) - max(s, t) + more
        shared = shared if "floor" in part else max(0.0, shared)
        whole = union(e - s + more, u - t + more, shared)
        return shared / whole if whole > 0 or "guard" in part else 0.0

    return compute


_exercise(
    "tiou",
    tiou_by_counting,
    _tiou_cases,
    f"{len(GOLDEN)} pairs worked by hand, 12 drawn, some reversed",
    mistakes={
        "no floor": _tiou_without("floor"),
        "sum": _tiou_without(union=lambda a, b, shared: a + b),
        "truth": _tiou_without(union=lambda a, b, shared: b),
        "answer": _tiou_without(union=lambda a, b, shared: a),
        "reversed": _tiou_without("order"),
        "zero length": _tiou_without("guard"),
        "neither": _tiou_without("order, guard"),
        "closed": _tiou_without("closed"),
        "not divided": _tiou_without(union=lambda a, b, shared: 1.0),
        "percent": lambda a, b: 100 * _tiou_without()(a, b),
    },
    says={
        "no floor": (
            "Two intervals that do not meet share 0 seconds, not fewer. What does your overlap say "
            "when one ends before the other begins?"
        ),
        "sum": (
            "In the sum of the two lengths, the seconds that lie in both intervals are counted "
            "twice; the union has them once."
        ),
        "truth": (
            "You divided by the length of b alone. That is coverage, and 'the whole video' wins "
            "it. Which seconds should make an answer pay?"
        ),
        "answer": (
            "You divided by the length of a alone: one frame inside the truth would be perfect. A "
            "swap of a and b should change nothing."
        ),
        "reversed": (
            "A pair may be written end first ('20 to 10') and still means the same seconds: put "
            "each pair in order before you measure it."
        ),
        "zero length": (
            "Two pairs of zero length have an empty union, and 0/0 has no value. Decide what an "
            "answer that covers nothing scores."
        ),
        "neither": (
            "Right for tidy pairs. Two untidy kinds are left: a pair written end first, and two "
            "pairs of zero length (an empty union)."
        ),
        "closed": (
            "You counted a second more at each end, as one counts frames. Times are points on a "
            "clock: from 12 to 15 it is 3 s, not 4."
        ),
        "not divided": (
            "Those are the seconds that both share, and whoever answers long shares more. What are "
            "they to be divided by?"
        ),
        "percent": (
            "That is the tIoU in percent. It is a share, 0 to 1, and thresholds such as 0.5 are "
            "meant for that."
        ),
    },
)


# ---- recall ----


def _exact_tiou(answer: Pair | None, truth: Pair) -> Fraction:
    if answer is None:
        return Fraction(0)
    (s, e), (t, u) = (sorted(Fraction(time) for time in pair) for pair in (answer, truth))
    shared = max(Fraction(0), min(e, u) - max(s, t))
    return shared / (e - s + u - t - shared) if e - s + u - t else Fraction(0)


def recall_exactly(answers: Sequence[Pair | None], truths: Sequence[Pair], m: float) -> float:
    """R1@m of answers (None where unparsable) in exact fractions: the share of all questions whose
    tIoU is at least m.
    """
    hits = sum(
        _exact_tiou(answer, truth) >= Fraction(str(m))
        for answer, truth in zip(answers, truths, strict=True)
    )
    return float(Fraction(hits, len(truths)))


def _recall_with(
    drop: bool = False, strict: bool = False, decimals: int = 15, scale: float = 1.0
) -> Function:
    def compute(answers: Sequence[Pair | None], truths: Sequence[Pair], m: float) -> float:
        kept = [
            (answer, truth)
            for answer, truth in zip(answers, truths, strict=True)
            if answer is not None or not drop
        ]
        ious = [round(float(_exact_tiou(answer, truth)), decimals) for answer, truth in kept]
        return scale * sum(iou > m if strict else iou >= m for iou in ious) / len(ious)

    return compute


def _recall_cases() -> list[Case]:
    truths = [(0, 10), (20, 40), (50, 58), (100, 103)]
    near = [(0, 8), (30, 50), (50, 57), (200, 203)]
    return [
        Case("every answer parsed", (near, truths, 0.5)),
        Case("two of four answers are None", ([near[0], None, near[2], None], truths, 0.5)),
        Case(
            "a tIoU of exactly 0.3",
            ([(0, 3), (20, 40), (0, 1)], [(0, 10), (20, 40), (50, 60)], 0.3),
        ),
        Case("a tIoU of exactly 0.5", ([(0, 10), (0, 2), (5, 6)], [(0, 20), (0, 10), (5, 6)], 0.5)),
        Case("a tIoU of 0.4955 and m = 0.5", ([(0, 111), (20, 40)], [(0, 224), (20, 40)], 0.5)),
        Case(
            "one answer parsed, and that one wrong",
            ([None, None, (9, 12)], [(0, 4), (5, 6), (20, 30)], 0.7),
        ),
    ]


_exercise(
    "recall",
    recall_exactly,
    _recall_cases,
    "6 sets of answers, 3 thresholds, answers on the border, answers missing",
    mistakes={
        "drops": _recall_with(drop=True),
        "strict": _recall_with(strict=True),
        "rounds": _recall_with(decimals=2),
        "percent": _recall_with(scale=100.0),
        "count": lambda answers, truths, m: len(truths) * recall_exactly(answers, truths, m),
        "miou": lambda answers, truths, m: float(
            sum(map(_exact_tiou, answers, truths)) / len(truths)
        ),
        "no look at None": lambda answers, truths, m: (
            sum(map(lambda a, t: tiou(a, t) >= m, answers, truths)) / len(truths)
        ),
    },
    says={
        "drops": (
            "A question without an answer left the denominator: a system could raise its score by "
            "staying silent. How many were asked?"
        ),
        "strict": (
            "R1@m asks for a tIoU of at least m. An answer that sits exactly on the threshold was "
            "refused."
        ),
        "rounds": (
            "A tIoU of 0.4955 passed at m = 0.5. Rounding is for the printed table, after the "
            "comparison, never before it."
        ),
        "percent": (
            "That is the share in percent. Scores are fractions from 0 to 1 everywhere in this "
            "course; only a table may multiply."
        ),
        "count": (
            "That is how many questions were hit. A share can be compared with another test set: "
            "divide by the number of questions asked."
        ),
        "miou": (
            "That is the mean tIoU, and m plays no part in it. R1@m asks of each question only "
            "whether its tIoU reaches m."
        ),
        "no look at None": (
            "An answer may be None: nothing could be read, and nothing overlaps with it. Its "
            "question still counts. As how much?"
        ),
    },
)


# ---- bootstrap_mean ----

RESAMPLES = 6000  # enough for widths to agree to 9 % whatever is drawn, and to tell 95 % from 90 %


def bootstrap_in_a_loop(
    values: Sequence[float], videos: Sequence[str], num: int, rng: Rng
) -> tuple[float, float]:
    """95 % interval of the mean of all values, whole videos resampled with replacement `num` times,
    in plain Python.
    """
    rows: dict[str, list[float]] = {}
    for value, video in zip(values, videos, strict=True):
        rows.setdefault(video, []).append(value)
    totals = [(math.fsum(row), len(row)) for row in rows.values()]
    draws = rng.integers(len(totals), size=(num, len(totals))).tolist()
    means = sorted(
        sum(totals[i][0] for i in draw) / sum(totals[i][1] for i in draw) for draw in draws
    )
    return means[int(0.025 * num)], means[int(0.975 * num)]


def resampled_means(
    values: Sequence[float], videos: Sequence[str], num: int, rng: Rng
) -> np.ndarray:
    """Means of all values in `num` resamples of whole videos, (num,): what the mistakes below take
    the wrong ends of.
    """
    index = np.unique(videos, return_inverse=True)[1]
    drawn = rng.multinomial(
        index.max() + 1, np.full(index.max() + 1, 1 / (index.max() + 1)), size=num
    )
    return np.asarray((drawn @ np.bincount(index, values)) / (drawn @ np.bincount(index)))


def _ends(values: Sequence[float], num: int, rng: Rng) -> Any:
    """The interval if each of `values` were one independent draw."""
    return np.quantile(rng.choice(values, size=(num, len(values))).mean(axis=1), (0.025, 0.975))


def _mean_of_means(values: Sequence[float], videos: Sequence[str], num: int, rng: Rng) -> Any:
    index = np.unique(videos, return_inverse=True)[1]
    return _ends((np.bincount(index, values) / np.bincount(index)).tolist(), num, rng)


def _within(values: Sequence[float], videos: Sequence[str], num: int, rng: Rng) -> Any:
    """The interval if all videos are kept, and the questions of each are drawn anew."""
    index = np.unique(videos, return_inverse=True)[1]
    rows = [np.asarray(values)[index == video] for video in range(index.max() + 1)]
    totals = sum(rng.choice(row, size=(num, len(row))).sum(axis=1) for row in rows)
    return np.quantile(totals / len(values), (0.025, 0.975))


def _spread(factor: float) -> Function:
    return lambda values, videos, num, rng: (
        np.mean(values)
        + factor * resampled_means(values, videos, num, rng).std() * np.array([-1, 1])
    )


def _bootstrap_cases() -> list[Case]:
    rng, cases = np.random.default_rng(2), []
    for label, sizes, skill in (
        ("10 questions about each of 25 videos", np.full(25, 10), rng.uniform(0.1, 0.9, 25)),
        ("videos with more questions are harder", np.arange(2, 26), np.linspace(0.9, 0.1, 24)),
        (
            "almost every answer misses",
            rng.integers(4, 12, 30),
            np.where(np.arange(30) < 2, 0.9, 0.0),
        ),
    ):
        values = np.repeat(skill, sizes) * rng.uniform(0.7, 1.0, sizes.sum())
        names = np.repeat([f"video {i}" for i in range(len(sizes))], sizes)
        order = rng.permutation(len(values))
        cases.append(
            Case(
                label,
                (
                    values[order].tolist(),
                    names[order].tolist(),
                    RESAMPLES,
                    np.random.default_rng(3),
                ),
            )
        )
    return cases


def same_interval(expected: Any, got: Any) -> bool:
    """Whether two intervals agree in width and centre to 9 % of the expected width: draws differ,
    the spread must not.
    """
    if (
        not isinstance(got, (tuple, list, np.ndarray))
        or len(got) != 2
        or not all(isinstance(end, Real) for end in got)
    ):
        return False
    width, wanted = got[1] - got[0], expected[1] - expected[0]
    near = 0.09 * wanted + 1e-6
    return bool(abs(width - wanted) < near and abs(np.mean(got) - np.mean(expected)) < near)


_exercise(
    "bootstrap_mean",
    bootstrap_in_a_loop,
    _bootstrap_cases,
    "3 data sets with clustered questions, widths and centres",
    agree=same_interval,
    mistakes={
        "questions": lambda values, videos, num, rng: _ends(values, num, rng),
        "no replacement": lambda values, videos, num, rng: (np.mean(values), np.mean(values)),
        "mean of means": _mean_of_means,
        "one std": _spread(1.0),
        "normal": _spread(1.96),
        "within": _within,
        "std / root": _spread(1.96 / math.sqrt(RESAMPLES)),
        "ninety": lambda values, videos, num, rng: np.quantile(
            resampled_means(values, videos, num, rng), (0.05, 0.95)
        ),
    },
    says={
        "questions": (
            "Too narrow where ten questions share a video: you drew questions, and they stand or "
            "fall together. What should be drawn?"
        ),
        "no replacement": (
            "Every resample has the same mean: without replacement, all the videos are always all "
            "the videos. Let one be drawn twice."
        ),
        "mean of means": (
            "The middle moved: averaging each video first gives one with 2 questions the weight of "
            "one with 25. Average questions."
        ),
        "one std": (
            "Half as wide as it should be: one standard deviation a side holds about 68 % of the "
            "resamples, and 95 % were asked for."
        ),
        "normal": (
            "Where almost every answer misses, 1.96 standard deviations reach below 0, where no "
            "resample is. Read the ends off the resamples."
        ),
        "within": (
            "Every video is in every resample, only its questions change: that asks what other "
            "questions about the *same* videos would give."
        ),
        "std / root": (
            "Almost no width, and less with every resample. The spread of the means *is* the "
            "uncertainty; resampling more adds no videos."
        ),
        "ninety": (
            "A little too narrow everywhere: cutting 5 % off each side leaves 90 %. For 95 %, how "
            "much goes on each side?"
        ),
    },
)


# ---- best_constant ----


def _mean_tiou(answer: Pair, truths: Sequence[Pair]) -> float:
    return math.fsum(_tiou_without()(answer, truth) for truth in truths) / len(truths)


def best_on_a_grid(truths: Sequence[Pair]) -> tuple[float, float]:
    """The (start, end) with the highest mIoU among all pairs of 41 evenly spaced fractions of the
    video.
    """
    grid = [i / 40 for i in range(41)]
    return max(
        ((start, end) for start in grid for end in grid if start < end),
        key=lambda pair: _mean_tiou(pair, truths),
    )


def _constant_cases() -> list[Case]:
    # True ends on multiples of 0.05: the optimum, a true start with a true end, is then on every
    # sensible grid.
    early = [(0.0, 0.3), (0.0, 0.25), (0.1, 0.4), (0.6, 1.0), (0.05, 0.3)]
    two_piles = [(0.0, 0.2), (0.05, 0.25), (0.0, 0.25), (0.75, 1.0), (0.8, 1.0)]
    rng = np.random.default_rng(4)
    drawn = [tuple(sorted((rng.choice(21, 2, replace=False) / 20).tolist())) for _ in range(15)]
    return [
        Case("mostly early", (early,)),
        Case("two piles", (two_piles,)),
        Case("15 drawn windows", (drawn,)),
        Case("one", ([(0.2, 0.45)],)),
    ]


_exercise(
    "best_constant",
    best_on_a_grid,
    _constant_cases,
    "4 sets of true windows, against a grid of 820 answers",
    mistakes={
        "mean": lambda truths: tuple(np.mean(truths, axis=0)),
        "median": lambda truths: tuple(np.median(truths, axis=0)),
        "whole video": lambda truths: (0.0, 1.0),
        "a truth": lambda truths: max(truths, key=lambda pair: _mean_tiou(pair, truths)),
        "its score": lambda truths: _mean_tiou(best_on_a_grid(truths), truths),
        "hull": lambda truths: (min(start for start, _ in truths), max(end for _, end in truths)),
    },
    says={
        "mean": (
            "The mean start with the mean end: where windows lie in two piles, that answers in "
            "between and meets neither. Score candidates."
        ),
        "median": (
            "The median start with the median end is the middle of two lists; nobody asked whether "
            "that pair scores well. Try pairs."
        ),
        "whole video": (
            "The whole video holds every truth and pays for every other second. Which part of it "
            "would you rather not pay for?"
        ),
        "a truth": (
            "You tried only windows that somebody marked. The best start may come from one of them "
            "and the best end from another."
        ),
        "its score": (
            "That is the mIoU of the best pair. Asked is the pair itself: whoever answers blindly "
            "needs its start and its end."
        ),
        "hull": (
            "From the earliest start to the latest end: every truth is covered, and nearly all "
            "that is covered is no truth. tIoU makes that pay."
        ),
    },
)
