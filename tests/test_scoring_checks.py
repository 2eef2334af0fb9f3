"""The references behind lesson 01's exercises: right by hand, equal to the library, and kind to a
right answer whatever it draws.
"""

import numpy as np
import pytest

from timescope_lite import intervals, metrics
from timescope_lite.classroom.checks import scoring
from timescope_lite.classroom.checks.core import EXERCISES, CheckFailed, run_case


@pytest.mark.parametrize(("label", "a", "b", "value"), scoring.GOLDEN)
def test_counting_milliseconds_gives_what_was_worked_by_hand(label, a, b, value):
    assert (
        scoring.tiou_by_counting(a, b)
        == scoring.tiou_by_counting(b, a)
        == pytest.approx(float(value), abs=1e-12)
    ), label


def library_recall(answers, truths, m):
    return metrics.score_answers(answers, truths, thresholds=[m]).r1[m]


def library_bootstrap(values, videos, num, rng):
    estimate = metrics.bootstrap(values, videos, num=num, seed=int(rng.integers(1000)))
    return estimate.low, estimate.high


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("tiou", intervals.tiou),
        ("recall", library_recall),
        ("bootstrap_mean", library_bootstrap),
        ("best_constant", metrics.best_constant),
    ],
)
def test_the_library_passes_the_check(name, function, capsys):
    EXERCISES[name](function)
    assert "all agree" in capsys.readouterr().out


def test_the_bootstrap_check_tells_ninety_from_ninety_five_whatever_is_drawn():
    for case in scoring._bootstrap_cases():
        expected = run_case(scoring.bootstrap_in_a_loop, case).value
        for seed in range(20):
            means = scoring.resampled_means(*case.args[:3], np.random.default_rng(seed))
            assert scoring.same_interval(expected, np.quantile(means, [0.025, 0.975])), (
                case.label,
                seed,
            )
    first = scoring._bootstrap_cases()[0]
    expected = run_case(scoring.bootstrap_in_a_loop, first).value
    for seed in range(20):
        means = scoring.resampled_means(*first.args[:3], np.random.default_rng(seed))
        assert not scoring.same_interval(expected, np.quantile(means, [0.05, 0.95])), seed
    for nonsense in (
        expected[::-1],
        expected[0],
        (None, None),
        ([0.1], [0.2, 0.3]),
        np.eye(2),
        (float("nan"), 0.5),
        "ab",
    ):
        assert not scoring.same_interval(expected, nonsense), nonsense


def test_the_best_constant_of_each_case_is_the_only_one():
    for case in scoring._constant_cases():
        grid = [i / 40 for i in range(41)]
        scores = sorted(
            scoring._mean_tiou((start, end), case.args[0])
            for start in grid
            for end in grid
            if start < end
        )
        assert scores[-1] > scores[-2] + 1e-4, case.label


@pytest.mark.parametrize(
    ("name", "function", "says"),
    [
        (
            "tiou",
            lambda a, b: (min(a[1], b[1]) - max(a[0], b[0])) / ((a[1] - a[0]) + (b[1] - b[0])),
            "the union has them once",
        ),
        (
            "tiou",
            lambda a, b: max(0, min(a[1], b[1]) - max(a[0], b[0])) / (b[1] - b[0]),
            "That is coverage",
        ),
        (
            "recall",
            lambda answers, truths, m: (
                100
                * library_recall([a for a in answers if a], truths[: sum(map(bool, answers))], m)
            ),
            "percent",
        ),
        ("best_constant", lambda truths: [0, 1], "The whole video"),
        (
            "tiou",
            lambda a, b: (
                100 * (min(a[1], b[1]) - max(a[0], b[0])) / (max(a[1], b[1]) - min(a[0], b[0]))
            ),
            "in percent",
        ),
        (
            "recall",
            lambda answers, truths, m: (
                sum(intervals.tiou(a, t) for a, t in zip(answers, truths, strict=True))
                / len(truths)
            ),
            "mean tIoU",
        ),
    ],
)
def test_who_makes_two_mistakes_hears_about_the_first(name, function, says):
    with pytest.raises(CheckFailed, match=says):
        EXERCISES[name](function)
