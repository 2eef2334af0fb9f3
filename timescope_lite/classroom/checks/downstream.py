"""The exercises of notebook 13: frames of an interval, right and in the right place, V-STaR's LGM
over two terms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, register, wrong_answers

# ---- frames_in ----


def frames_by_parts(start_s: int, end_s: int, n: int) -> list[int]:
    """The second in the middle of each of n equal parts of [start_s, end_s), each once, counted in
    whole halves.
    """
    found: list[int] = []
    for part in range(n):
        second = start_s + (2 * part + 1) * (end_s - start_s) // (2 * n)
        if second not in found:
            found.append(second)
    return found


def _frames_cases() -> list[Case]:
    spans = [(0, 8, 4), (10, 13, 3), (10, 13, 50), (5, 6, 1), (0, 100, 1), (40, 72, 5), (7, 12, 8)]
    return [Case(f"{n} frames of [{a}, {b}) s", (a, b, n)) for a, b, n in spans]


_FRAMES_SAYS = (
    (
        "ends included",
        lambda a, b, n: sorted({int(t) for t in np.linspace(a, b, n)}),
        "Your last frame lies at end_s, which is the first second *after* the interval. Take the "
        "middle of each of n equal parts.",
    ),
    (
        "starts of parts",
        lambda a, b, n: sorted({int(a + k * (b - a) / n) for k in range(n)}),
        "You take where each part begins, so the end of the interval is seen least. Take the "
        "middle "
        "of each part.",
    ),
    (
        "twice the same",
        lambda a, b, n: [int(a + (k + 0.5) * (b - a) / n) for k in range(n)],
        "A frame is in your list more than once. A short interval has no more frames to give, and "
        "a "
        "frame seen twice tells nothing new.",
    ),
    (
        "the first n",
        lambda a, b, n: list(range(a, min(b, a + n))),
        "Those are the first n seconds of the interval. Spread them over all of it.",
    ),
    (
        "counted from the interval",
        lambda a, b, n: [t - a for t in frames_by_parts(a, b, n)],
        "You count from the start of the interval. A frame is named by its second in the video: "
        "add "
        "start_s.",
    ),
)
register(
    Exercise(
        name="frames_in",
        lesson="13",
        reference=frames_by_parts,
        cases=_frames_cases,
        covers="7 intervals, two of them shorter than the budget",
        wrong=wrong_answers(_FRAMES_SAYS),
    )
)

# ---- joint_rate ----


def rate_by_counting(right: Sequence[bool], ious: Sequence[float], m: float) -> float:
    """Share of questions that are answered right and whose interval reaches tIoU m, question by
    question.
    """
    return sum(1 for hit, iou in zip(right, ious, strict=True) if hit and not iou < m) / len(right)


def _rate_cases() -> list[Case]:
    rng = np.random.default_rng(13)
    drawn = [
        ([bool(b) for b in rng.random(40) < 0.7], [round(float(x), 2) for x in rng.random(40)], m)
        for m in (0.3, 0.5)
    ]
    edge = ([True, True, False, True], [0.5, 0.4, 0.9, 0.7], 0.5)
    return [Case(f"{len(r)} questions at {m}", (r, i, m)) for r, i, m in [*drawn, edge]]


_RATE_SAYS = (
    (
        "product of shares",
        lambda r, i, m: float(np.mean(r) * np.mean(np.array(i) >= m)),
        "That multiplies two shares, which is right only if answer and place have nothing to do "
        "with "
        "each other. Ask both of each question.",
    ),
    (
        "mean of shares",
        lambda r, i, m: float((np.mean(r) + np.mean(np.array(i) >= m)) / 2),
        "That is the mean of two shares: a question counts half if only one of the two is right. "
        "It "
        "must have both.",
    ),
    (
        "strict",
        lambda r, i, m: float(np.mean(np.array(r) & (np.array(i) > m))),
        "A tIoU of exactly m counts too, as it does in R1@m.",
    ),
    (
        "among the right",
        lambda r, i, m: float(np.mean([x >= m for x, hit in zip(i, r, strict=True) if hit])),
        "You divide by the questions that were answered right. The joint rate is a share of all "
        "questions.",
    ),
    (
        "either",
        lambda r, i, m: float(np.mean(np.array(r) | (np.array(i) >= m))),
        "You count a question of which either is right. It must have both: a right answer *and* a "
        "right place.",
    ),
)
register(
    Exercise(
        name="joint_rate",
        lesson="13",
        reference=rate_by_counting,
        cases=_rate_cases,
        covers="84 questions, one of them exactly at its threshold",
        wrong=wrong_answers(_RATE_SAYS),
    )
)

# ---- two_term_lgm ----


def lgm_by_terms(accuracy: float, tiou: float) -> float:
    """-(ln(1 - A) + ln(1 - T)) / 2, each term stopped at 1 - 1e-6, as the logarithm of one
    product.
    """
    return math.log(1 / math.sqrt(max(1 - accuracy, 1e-6) * max(1 - tiou, 1e-6)))


def _lgm_cases() -> list[Case]:
    pairs = [(0.8, 0.7), (0.99, 0.1), (0.0, 0.0), (0.25, 0.5), (1.0, 0.7)]
    return [Case(f"accuracy {a}, mean tIoU {t}", (a, t)) for a, t in pairs]


def _capped(x: float) -> float:
    return min(x, 1 - 1e-6)


_LGM_SAYS = (
    (
        "three terms",
        lambda a, t: -(math.log(1 - _capped(a)) + math.log(1 - _capped(t))) / 3,
        "You divide by three. There are two terms here; a third that is 0 would be V-STaR's own "
        "score "
        "for a system without boxes.",
    ),
    (
        "of the score",
        lambda a, t: -(math.log(max(a, 1e-6)) + math.log(max(t, 1e-6))) / 2,
        "You take the logarithm of the score. LGM takes that of what is *missing*, 1 - A and 1 - "
        "T, "
        "so better scores give a higher value.",
    ),
    (
        "sign",
        lambda a, t: (math.log(1 - _capped(a)) + math.log(1 - _capped(t))) / 2,
        "Your value falls as the scores rise: the minus sign is missing.",
    ),
    (
        "base 10",
        lambda a, t: -(math.log10(1 - _capped(a)) + math.log10(1 - _capped(t))) / 2,
        "That is the logarithm to base 10. LGM uses the natural one.",
    ),
    (
        "sum",
        lambda a, t: -(math.log(1 - _capped(a)) + math.log(1 - _capped(t))),
        "That is the sum of the two terms; LGM is their mean.",
    ),
)
register(
    Exercise(
        name="two_term_lgm",
        lesson="13",
        reference=lgm_by_terms,
        cases=_lgm_cases,
        covers="5 pairs, one of them with a perfect accuracy",
        wrong=wrong_answers(_LGM_SAYS),
    )
)
