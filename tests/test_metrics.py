"""Metrics: cases worked by hand, independent references on seeded inputs, third-party numbers where
the fixtures are present.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from timescope_lite.common import UserError
from timescope_lite.intervals import Interval, parse_intervals, tiou
from timescope_lite.metrics import (
    MAP_THRESHOLDS,
    average_precision,
    best_constant,
    bootstrap,
    bootstrap_difference,
    calibration_error,
    centre_window,
    coverage,
    covered_shares,
    diagnose,
    events_told,
    mean_average_precision,
    mean_iou,
    merged,
    query_iou,
    recall_at,
    reliability,
    reload_share,
    reload_shares,
    score_answers,
    spans_of,
    vstar_am,
    vstar_lgm,
    whole_video,
)

FIXTURES = Path(__file__).resolve().parents[2] / "shared" / "reference" / "metrics"


def fixture(name):
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"third-party fixture {name} is not in this checkout")
    return json.loads(path.read_text())


# ---- recall, mIoU, scores ----


def test_recall_and_miou_by_hand():
    ious = [0.0, 0.3, 0.5, 0.5, 0.9]
    assert recall_at(ious, 0.5) == pytest.approx(3 / 5) and recall_at(
        ious, 0.5, strict=True
    ) == pytest.approx(1 / 5)
    assert recall_at(ious, 0.3) == pytest.approx(4 / 5) and mean_iou(ious) == pytest.approx(0.44)


@pytest.mark.parametrize("function", [mean_iou, lambda ious: recall_at(ious, 0.5)])
@pytest.mark.parametrize("ious", [[], [0.5, math.nan], [math.inf]])
def test_no_queries_and_nan_are_refused(function, ious):
    with pytest.raises(UserError, match="tIoU"):
        function(ious)


def test_scores_by_hand():
    truths = [Interval(0, 10)] * 5
    answers = [
        [Interval(0, 10)],
        [Interval(5, 0)],
        [],
        [Interval(-5, 4), Interval(0, 10)],
        [Interval(7, 7)],
    ]
    scores = score_answers(answers, truths, parsed_only=True)
    np.testing.assert_allclose(scores.ious, [1, 0.5, 0, 0.4, 0])
    assert (
        scores.n == 5
        and scores.unparsable == pytest.approx(0.2)
        and scores.miou == pytest.approx(0.38)
    )
    assert scores.r1 == {0.3: pytest.approx(0.6), 0.5: pytest.approx(0.4), 0.7: pytest.approx(0.2)}
    assert (scores.reversed, scores.clipped, scores.empty) == (1, 1, 1)
    assert (
        scores.parsed_only.n == 4
        and scores.parsed_only.miou == pytest.approx(0.475)
        and scores.parsed_only.unparsable == 0
    )
    assert scores.as_metrics() == {
        "r1@0.3": 0.6,
        "r1@0.5": 0.4,
        "r1@0.7": 0.2,
        "miou": scores.miou,
        "unparsable": 0.2,
    }


def test_predictions_are_clipped_to_their_video_on_request():
    answers, truths = [[Interval(10, 40)], [(5, 9)]], [(10, 20), (5, 9)]
    assert score_answers(answers, truths).miou == pytest.approx((1 / 3 + 1) / 2)
    clipped = score_answers(answers, truths, durations_s=[20, 20])
    assert clipped.miou == 1 and clipped.clipped == 1


def test_unparsable_answers_decide_a_ranking():
    """180 rows, 83 parsed, 16 of them good at 0.3: the published rule counts all rows (8.89),
    another one only the parsed rows (19.28).
    """
    answers = [[(0, 10)]] * 16 + [[(50, 60)]] * 67 + [None] * 97
    scores = score_answers(answers, [(0, 10)] * 180, parsed_only=True)
    assert (
        round(100 * scores.r1[0.3], 2) == 8.89
        and round(100 * scores.parsed_only.r1[0.3], 2) == 19.28
    )
    assert scores.unparsable == pytest.approx(97 / 180)
    nothing = score_answers([None, []], [(0, 1), (0, 1)], parsed_only=True)
    assert nothing.miou == 0 and nothing.unparsable == 1 and nothing.parsed_only is None


def test_several_true_windows_want_a_rule():
    predicted, true = [Interval(20, 30), Interval(0, 10)], [Interval(0, 10), Interval(20, 40)]
    assert query_iou(predicted, true, "first") == 0
    assert query_iou(predicted, true, "best") == 0.5
    assert query_iou(predicted, true, "set") == pytest.approx(20 / 30)
    assert query_iou([(0, 10), (5, 15)], [(0, 15)], "set") == 1, (
        "overlapping predictions are counted once"
    )
    for rule in (None, "mean"):
        with pytest.raises(UserError, match="2 true windows"):
            query_iou(predicted, true, rule)
    with pytest.raises(UserError, match="0 true windows"):
        query_iou(predicted, [], "best")


@pytest.mark.parametrize(
    "call",
    [
        lambda: score_answers([[]], []),
        lambda: score_answers([], []),
        lambda: coverage([None], []),
        lambda: score_answers([[]], [(0, 1)], durations_s=[1, 2]),
    ],
)
def test_unequal_lengths_are_refused(call):
    with pytest.raises(UserError, match="one entry per query"):
        call()


def test_what_an_answer_may_be():
    one = Interval(5, 9)
    for answer in (one, (5, 9), [5, 9], [one], [(5, 9)], np.array([5, 9]), np.array([[5, 9]])):
        assert spans_of(answer) == [one]
    assert spans_of(None) == spans_of([]) == [] and spans_of([(5, 9), one]) == [one, one]
    for bad in ("5 to 9", "59", [5], (1, 2, 3)):
        with pytest.raises(UserError):
            spans_of(bad)
    assert merged([Interval(5, 9), Interval(0, 2), Interval(1, 3), Interval(9, 10)]) == [
        Interval(0, 3),
        Interval(5, 10),
    ]


# ---- mAP ----


def test_ap_by_hand():
    true = [(0, 10), (20, 30)]
    np.testing.assert_allclose(average_precision([(0, 10), (20, 30)], true), 1)
    np.testing.assert_allclose(
        average_precision([(0, 10), (50, 60), (20, 30)], true), (1 + 2 / 3) / 2
    )
    np.testing.assert_allclose(average_precision([(50, 60), (0, 10)], true, scores=[0.1, 0.9]), 0.5)
    np.testing.assert_allclose(
        average_precision([(0, 10), (0, 10)], true), 0.5
    )  # a true window is found once
    half = average_precision([(0, 6)], [(0, 10)])
    assert [m for m, ap in zip(MAP_THRESHOLDS, half, strict=True) if ap] == [0.5, 0.55, 0.6]


def test_the_best_window_at_position_eleven_is_not_lost():
    windows = [(50 + i, 51 + i) for i in range(10)] + [(0, 10)]
    np.testing.assert_allclose(average_precision(windows, [(0, 10)], scores=[0.1] * 10 + [0.9]), 1)
    np.testing.assert_allclose(average_precision(windows, [(0, 10)], scores=[0.9] * 10 + [0.1]), 0)


@pytest.mark.parametrize(
    ("predicted", "true", "score"),
    [((20, 10), (10, 20), 1), ((7, 7), (7, 7), 0), ((20, 10), (30, 40), 0)],
)
def test_nan_does_not_count_as_a_hundred(predicted, true, score):
    """Reversed against right: NaN there, so mAP 100 and R1 0. Here both see the repaired interval
    and agree; zero length on zero length is 0.
    """
    ap = mean_average_precision([[predicted]], [[true]])["full"]
    assert ap.average == score == score_answers([[predicted]], [[true]]).r1[0.5]
    assert all(math.isfinite(value) for value in ap.at.values())


def test_queries_without_predictions_stay_in_the_mean():
    found = mean_average_precision([[(0, 10)], []], [[(0, 10)], [(0, 10)]])
    assert found["full"].average == 0.5 and found["full"].n == 2
    with pytest.raises(UserError, match="no true window"):
        mean_average_precision([[(0, 10)]], [[]])
    with pytest.raises(UserError, match="finite"):
        average_precision([(0, 10)], [(0, 10)], scores=[math.nan])


def test_length_ranges_are_open_ended_and_filter_true_windows_only():
    true = [[(0, 10), (100, 110.5)], [(0, 30)], [(0, 4000)]]
    found = mean_average_precision(true, true)
    assert {name: ap.n for name, ap in found.items()} == {
        "full": 3,
        "short": 1,
        "middle": 2,
        "long": 1,
    }
    assert found["long"].average == found["full"].average == 1
    assert found["middle"].average == pytest.approx((0.5 + 1) / 2), (
        "the short window became a false positive"
    )
    assert "long" not in mean_average_precision([[(0, 1)]], [[(0, 1)]])


def test_ap_agrees_with_a_plain_reference():
    rng = np.random.default_rng(4)
    for _ in range(100):
        true, windows = (
            [tuple(sorted(pair)) for pair in rng.uniform(0, 30, (n, 2))]
            for n in (rng.integers(1, 4), rng.integers(1, 9))
        )
        scores = rng.permutation(len(windows)).astype(float)
        for threshold, ap in zip(
            MAP_THRESHOLDS, average_precision(windows, true, scores), strict=True
        ):
            assert ap == pytest.approx(_reference_ap(windows, true, scores, threshold))


def _reference_ap(windows, true, scores, threshold):
    free, hits = list(true), []
    for _, window in sorted(zip(-scores, windows, strict=True)):
        best = max(free, key=lambda t: tiou(window, t), default=None)
        hits.append(best is not None and tiou(window, best) >= threshold)
        if hits[-1]:
            free.remove(best)
    points = [
        (sum(hits[: i + 1]) / len(true), sum(hits[: i + 1]) / (i + 1)) for i in range(len(hits))
    ]
    area, last = 0.0, 0.0
    for recall, _ in points:
        area += (recall - last) * max(p for r, p in points if r >= recall)
        last = recall
    return area


# ---- coverage and reload ----


def test_coverage_and_reload_by_hand():
    windows = [Interval(0, 60), [(0, 10), (5, 30), (40, 50)], None, (50, 90)]
    truths = [(10, 20), (25, 45), (3, 4), (7, 7)]
    np.testing.assert_allclose(covered_shares(windows, truths), [1, 0.5, 0, 0])
    assert coverage(windows, truths).contained == 0.25 and coverage(
        windows, truths
    ).share == pytest.approx(0.375)
    np.testing.assert_allclose(reload_shares(windows, [60, 80, 50, 60]), [1, 0.5, 0, 1 / 6])
    assert reload_share(windows, [60, 80, 50, 60]) == pytest.approx((1 + 0.5 + 1 / 6) / 4)
    assert coverage([(0, 10)], [(7, 7)]).contained == 1, "a zero-length truth inside the window"
    assert coverage([[(0, 5), (5, 10)]], [(2, 8)]).contained == 1, (
        "neighbouring segments hold it together"
    )
    with pytest.raises(UserError, match="duration"):
        reload_share([(0, 1)], [0])


def test_the_whole_video_covers_everything_and_reloads_everything():
    rng = np.random.default_rng(5)
    durations = rng.uniform(10, 4000, 50)
    truths = [Interval(*(duration * rng.random(2))) for duration in durations]
    windows = [whole_video(duration) for duration in durations]
    assert coverage(windows, truths).contained == 1 and reload_share(windows, durations) == 1


# ---- V-STaR ----


def test_vstar_am_and_lgm():
    assert vstar_am(0.6, 0.3, 0.0) == pytest.approx(0.3)
    assert vstar_lgm(0.5, 0.5, 0.5) == pytest.approx(math.log(2))
    assert vstar_lgm(0, 0, 0) == 0 and vstar_lgm(0.6, 0.3, 0.1) == pytest.approx(
        -(math.log(0.4) + math.log(0.7) + math.log(0.9)) / 3
    )
    assert vstar_lgm(1.0, 0, 0) == pytest.approx(-math.log(1e-6) / 3), (
        "clamped where the published script fails"
    )
    assert vstar_lgm(0.9, 0.9, 0.9) > vstar_am(0.9, 0.9, 0.9)
    for bad in (-0.1, 30.0, math.nan):
        with pytest.raises(UserError, match="V-STaR"):
            vstar_lgm(0.5, bad, 0.5)


# ---- bootstrap ----


def test_bootstrap_agrees_with_a_loop_over_videos():
    """Same draws, resampled the slow way: concatenating the rows of every drawn video."""
    rng = np.random.default_rng(6)
    values, groups = rng.random(60), [f"v{i}" for i in rng.integers(0, 12, 60)]
    names = sorted(set(groups))
    rows = {name: [v for v, g in zip(values, groups, strict=True) if g == name] for name in names}
    draws = np.random.default_rng(9).multinomial(
        len(names), [1 / len(names)] * len(names), size=300
    )
    means = [
        np.mean([v for name, times in zip(names, draw, strict=True) for v in rows[name] * times])
        for draw in draws
    ]
    estimate = bootstrap(values, groups, seed=9, num=300)
    assert (estimate.value, estimate.n) == (pytest.approx(values.mean()), 60)
    assert [estimate.low, estimate.high] == pytest.approx(
        np.quantile(means, [0.025, 0.975]).tolist()
    )
    slow = bootstrap(values, groups, seed=9, num=300, statistic=lambda v: v.mean())
    assert [slow.low, slow.high] == pytest.approx([estimate.low, estimate.high])


def test_bootstrap_is_deterministic_and_ignores_the_order_of_rows():
    rng = np.random.default_rng(7)
    values, groups, order = rng.random(40), rng.integers(0, 15, 40), rng.permutation(40)
    first, again, other = (bootstrap(values, groups, seed=s, num=200) for s in (1, 1, 2))
    assert first == again != other
    shuffled = bootstrap(values[order], groups[order], seed=1, num=200)
    assert [shuffled.low, shuffled.high] == pytest.approx([first.low, first.high])
    wide, narrow = (bootstrap(values, groups, seed=1, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < first.value < narrow.high < wide.high


def test_resampling_videos_is_wider_than_resampling_questions():
    rng = np.random.default_rng(8)
    values, videos = np.repeat(rng.integers(0, 2, 20), 10), np.repeat(np.arange(20), 10)
    by_video, by_question = bootstrap(values, videos), bootstrap(values, np.arange(200))
    assert by_video.high - by_video.low > 2 * (by_question.high - by_question.low)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(10), 0
    for _ in range(200):
        values = np.repeat(rng.normal(0, 1, 40), 3) + rng.normal(0, 0.5, 120)
        videos = np.repeat(np.arange(40), 3)
        estimate = bootstrap(values, videos, num=300)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_edges():
    constant = bootstrap([0.1] * 30, list(range(30)))
    assert constant.low <= constant.value <= constant.high and constant.high - constant.low < 1e-12
    with pytest.warns(UserWarning, match="one video"):
        single = bootstrap([0.2, 0.4], ["a", "a"])
    assert (single.low, single.high, single.n, single.excludes_zero) == (None, None, 2, False)
    assert bootstrap([True, False], [("a", 1), ("b", 2)]).value == 0.5
    distinct = bootstrap(
        np.arange(9.0), np.arange(9), statistic=lambda v: len(np.unique(v)), num=50
    )
    assert distinct.low < distinct.high == distinct.value == 9, (
        "no resample reaches the value, yet it lies in its interval"
    )
    assert (
        bootstrap(np.arange(9.0), np.arange(9), statistic=lambda v: -len(np.unique(v)), num=50).low
        == -9
    )
    for call in (
        lambda: bootstrap([], []),
        lambda: bootstrap([math.nan, 1], [0, 1]),
        lambda: bootstrap([1, 2], [0]),
        lambda: bootstrap([1, 2], [0, 1], level=95),
    ):
        with pytest.raises(UserError):
            call()


def test_a_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(11)
    easy = np.repeat(rng.random(50), 4)
    a = easy + 0.05 + rng.normal(0, 0.05, 200)
    b = easy + rng.normal(0, 0.05, 200)
    videos = np.repeat(np.arange(50), 4)
    difference = bootstrap_difference(a, b, videos)
    assert (
        difference.excludes_zero
        and difference.low > 0
        and difference.value == pytest.approx(np.mean(a - b))
    )
    assert bootstrap(a, videos).low < bootstrap(b, videos).high, "the two intervals alone overlap"
    swapped = bootstrap_difference(b, a, videos)
    assert [swapped.low, swapped.high] == pytest.approx([-difference.high, -difference.low])
    median = bootstrap_difference(a, b, videos, statistic=np.median, num=300)
    assert (
        median.value == pytest.approx(np.median(a) - np.median(b))
        and median.low <= median.value <= median.high
    )


# ---- diagnose ----


def _case(shift_s=0.0, margin_s=20.0, sharpen=True, n=60):
    """A two-stage system on seeded truths: window = truth widened and shifted, answer = truth
    jittered (or the window again).
    """
    rng = np.random.default_rng(12)
    durations = rng.uniform(400, 900, n)
    starts = rng.uniform(60, 300, n)
    truths = [Interval(s, s + 5) for s in starts]
    jitter = rng.normal(0, 4, n)
    windows = [
        Interval(t.start_s - margin_s + shift_s + j, t.end_s + margin_s + shift_s + j)
        for t, j in zip(truths, jitter, strict=True)
    ]
    answers = [
        [Interval(t.start_s + 1, t.end_s + 1)] if sharpen else [w]
        for t, w in zip(truths, windows, strict=True)
    ]
    return {
        "windows": windows,
        "answers": answers,
        "truths": truths,
        "durations_s": durations,
        "groups": np.arange(n) // 3,
        "reload_frames": [w.duration_s for w in windows],
    }


def test_a_healthy_system_has_no_failure_signature():
    diagnosis = diagnose(**_case(), budget_frames=128)
    assert [f.verdict for f in (diagnosis.bias, diagnosis.budget, diagnosis.sharpening)] == [
        "absent"
    ] * 3
    assert diagnosis.sharpening.estimate.low > 0.3 and "absent" in str(diagnosis)
    assert (
        diagnose(**_case(), budget_frames=128)
        == diagnosis
        != diagnose(**_case(), budget_frames=128, seed=1)
    )


@pytest.mark.parametrize(("shift_s", "sign"), [(12.0, 1), (-12.0, -1)])
def test_bias_is_found_and_signed(shift_s, sign):
    finding = diagnose(**_case(shift_s=shift_s), budget_frames=128).bias
    assert (
        finding.verdict == "present"
        and np.sign(finding.estimate.value) == sign
        and "order of time" in str(finding)
    )


def test_a_window_too_wide_for_the_budget_is_found():
    diagnosis = diagnose(**_case(margin_s=70.0), budget_frames=128)
    assert (
        diagnosis.budget.verdict == "present"
        and diagnosis.budget.estimate.value == 1
        and "128 frames" in diagnosis.budget.evidence
    )
    one = _case()
    one["reload_frames"] = [*one["reload_frames"][:-1], 500]
    assert diagnose(**one, budget_frames=128).budget.estimate.value == pytest.approx(1 / 60)


def test_a_fine_stage_that_does_not_sharpen_is_found():
    diagnosis = diagnose(**_case(sharpen=False), budget_frames=128)
    assert diagnosis.sharpening.verdict == "present" and diagnosis.sharpening.estimate.value == 0
    assert diagnosis.bias.verdict == diagnosis.budget.verdict == "absent"
    unparsable = {**_case(), "answers": [None] * 60}
    assert diagnose(**unparsable, budget_frames=128).sharpening.estimate.value < 0


def test_too_little_evidence_is_undecided_not_absent():
    few = {name: values[:6] for name, values in _case().items()}  # two videos
    diagnosis = diagnose(**few, budget_frames=128)
    assert [diagnosis.bias.verdict, diagnosis.sharpening.verdict] == [
        "undecided"
    ] * 2 and diagnosis.budget.verdict == "absent"
    blind = {**_case(), "windows": [None] * 60}
    diagnosis = diagnose(**blind, budget_frames=128)
    assert [diagnosis.bias.verdict, diagnosis.sharpening.verdict] == ["undecided"] * 2
    missed = diagnose(**_case(shift_s=100.0), budget_frames=128)
    assert (
        missed.sharpening.verdict == "undecided"
        and "(0% of the queries)" in missed.sharpening.evidence
    )
    with pytest.raises(UserError, match="one entry per query"):
        diagnose(**{**_case(), "answers": []}, budget_frames=128)


# ---- trivial baselines ----


def test_trivial_baselines():
    third = centre_window(90)
    assert (third.start_s, third.end_s) == pytest.approx((30, 60))
    assert (
        whole_video(90) == Interval(0, 90)
        and centre_window(90, 0.5) == Interval(22.5, 67.5)
        and centre_window(90, 1) == whole_video(90)
    )
    for call in (
        lambda: whole_video(0),
        lambda: centre_window(90, 0),
        lambda: centre_window(90, 1.1),
        lambda: centre_window(math.nan),
    ):
        with pytest.raises(UserError):
            call()


def test_best_constant_is_the_best_on_a_fine_grid():
    rng = np.random.default_rng(13)
    truths = np.sort(rng.beta(2, 4, (40, 2)), axis=1)
    start, end = best_constant(truths)
    best = np.mean([tiou((start, end), truth) for truth in truths])
    grid = np.linspace(0, 1, 41)
    others = [
        np.mean([tiou((s, e), truth) for truth in truths]) for s in grid for e in grid if e > s
    ]
    assert best >= max(others) and best > others[grid.size - 2], "better than the whole video too"
    near = np.clip([start, end] + rng.normal(0, 0.02, (200, 2)), 0, 1)
    assert best >= max(np.mean([tiou(pair, truth) for truth in truths]) for pair in near)


def test_best_constant_edges():
    assert best_constant([[0.2, 0.4]]) == (0.2, 0.4) == best_constant([[0.4, 0.2]])
    many = np.sort(np.random.default_rng(14).random((3000, 2)), axis=1)
    start, end = best_constant(many, max_candidates=30)
    assert 0 <= start < end <= 1
    for bad in ([], [[0.1, 1.5]], [0.1, 0.2], [[math.nan, 1]]):
        with pytest.raises(UserError):
            best_constant(bad)


# ---- third-party numbers ----


@pytest.fixture(scope="module")
def qvhighlights():
    data = fixture("qvhighlights_moment_detr_150.json")
    true = {row["qid"]: row["relevant_windows"] for row in data["ground_truth"]}
    rows = [row["pred_relevant_windows"] for row in data["predictions"]]
    truths = [true[row["qid"]] for row in data["predictions"]]
    return (
        data,
        [[w[:2] for w in row] for row in rows],
        [[w[2] for w in row] for row in rows],
        truths,
    )


def test_qvhighlights_recall_matches_to_a_hundredth_of_a_point(qvhighlights):
    data, windows, _, truths = qvhighlights
    for name, (low, high) in {
        "full": (-1, math.inf),
        "short": (0, 10),
        "middle": (10, 30),
        "long": (30, math.inf),
    }.items():
        kept = [
            (w, [t for t in true if low < t[1] - t[0] <= high])
            for w, true in zip(windows, truths, strict=True)
        ]
        kept = [(w, true) for w, true in kept if true]
        scores = score_answers(
            [w for w, _ in kept], [true for _, true in kept], rule="best", thresholds=MAP_THRESHOLDS
        )
        for threshold, expected in data["expected"][name]["MR-R1"].items():
            assert 100 * scores.r1[float(threshold)] == pytest.approx(expected, abs=0.01), (
                name,
                threshold,
            )


def test_qvhighlights_map_matches_to_a_hundredth_of_a_point(qvhighlights):
    data, windows, scores, truths = qvhighlights
    found = mean_average_precision(windows, truths, scores)
    for name in ("full", "short", "middle", "long"):
        for threshold, expected in data["expected"][name]["MR-mAP"].items():
            ours = (
                found[name].average if threshold == "average" else found[name].at[float(threshold)]
            )
            assert 100 * ours == pytest.approx(expected, abs=0.01), (name, threshold)


def test_qvhighlights_per_query_values_match(qvhighlights):
    data, windows, scores, truths = qvhighlights
    for row, window, score, true in zip(
        data["expected_per_query_unrounded"], windows, scores, truths, strict=True
    ):
        assert query_iou(window, true, "best") == pytest.approx(row["top1_iou"], abs=1e-5)
        assert average_precision(window, true, score).tolist() == pytest.approx(
            row["ap_by_tiou"], abs=1e-5
        )


def test_timechat_rule_and_the_other_rule_on_the_same_answers():
    data = fixture("charades_timechat_tvg_120.json")
    true = {row["id"]: row["timestamp"] for row in data["ground_truth"]}
    scores = score_answers(
        [p["timestamp"] for p in data["predictions"]],
        [true[p["id"]] for p in data["predictions"]],
        parsed_only=True,
    )
    assert (
        scores.n == data["counts"]["queries"]
        and round(scores.unparsable * scores.n) == data["counts"]["unparsable"]
    )
    for threshold in (0.3, 0.5, 0.7):
        assert 100 * scores.r1[threshold] == pytest.approx(
            data["expected"][f"IOU {threshold}"], abs=0.01
        )
    factor = scores.n / (scores.n - data["counts"]["unparsable"])
    assert scores.parsed_only.r1[0.3] == pytest.approx(factor * scores.r1[0.3]) and factor == 2


def test_vtimellm_rounding_and_parsing_quirks_are_known_and_not_copied():
    rows = fixture("vtimellm_percent_text_10.json")["rows"]
    ours = []
    for row in rows:
        spans = [
            Interval(*(row["duration"] * bin_ / 100 for bin_ in (s.start_s, s.end_s)))
            for s in parse_intervals(row["answer"].replace("and", "to"))
        ]
        ours.append(query_iou(spans, row["gt"]))
    differing = {
        row["answer"] for row, iou in zip(rows, ours, strict=True) if abs(iou - row["iou"]) > 0.0051
    }
    assert differing == {"from 10 to 100", "from 60 to 40"}, (
        "they read 10-10 and keep reversed pairs; everything else agrees within their rounding"
    )
    rounded_up = [
        iou for row, iou in zip(rows, ours, strict=True) if row["iou"] == 0.5 and iou < 0.5
    ]
    assert len(rounded_up) == 2 and recall_at(rounded_up, 0.5) == 0


# ---- calibration ----


def test_calibration_by_hand():
    """Two bins: 0.95 said and 3 of 4 true, 0.15 said and none of 1."""
    said, hits = [0.95, 0.95, 0.95, 0.95, 0.15], [1, 1, 0, 1, 0]
    found = reliability(said, hits)
    assert [(b.confidence, b.came_true, b.n) for b in found] == [
        (pytest.approx(0.15), 0.0, 1),
        (pytest.approx(0.95), 0.75, 4),
    ]
    assert calibration_error(said, hits) == pytest.approx((0.15 + 4 * 0.2) / 5)
    assert calibration_error([1.0, 1.0], [1, 1]) == 0
    rng = np.random.default_rng(0)
    honest = rng.random(20_000)
    assert calibration_error(honest, rng.random(20_000) < honest) < 0.02
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        reliability([1.2], [1])


def test_events_that_overlap_are_told_one_by_one():
    true = [("a", 0.0, 10.0), ("a", 6.0, 12.0), ("b", 0.0, 10.0)]
    assert events_told(true, true) == [True] * 3
    assert events_told([("a", 0, 10), ("a", 0, 10)], true) == [True, False, False], (
        "a repeat takes no second event that it does not fit"
    )
    assert events_told([("a", 6, 12)], true) == [False, True, False], (
        "the best of its word, not the first"
    )
    assert events_told([("b", 0, 12), ("c", 0, 10)], true) == [False, False, True]
    assert events_told([], true) == [False] * 3 and events_told(true, []) == []
