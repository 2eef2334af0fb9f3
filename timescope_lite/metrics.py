"""R1@m, mIoU, mAP, coverage, V-STaR's AM and LGM, bootstrap over videos, failure signatures,
trivial baselines.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timescope_lite.common import UserError
from timescope_lite.intervals import Interval, Span, as_interval, check_duration, tiou, tiou_many
from timescope_lite.results import Estimate

Floats = NDArray[np.float64]
Answer = (
    Span | Sequence[Span] | None
)  # what one query may bring: one interval, several, or none (unparsable)
Groups = Sequence[Hashable] | NDArray[Any]

THRESHOLDS = (0.3, 0.5, 0.7)
MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
# QVHighlights stops at 150 s, so a longer window belongs to no range there. For long video the last
# range is open.
LENGTH_RANGES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, math.inf)}
RULES = ("best", "first", "set")
FEW_VIDEOS = 5  # with fewer, a bootstrap over videos decides nothing
WHOLE = 1 - 1e-6  # a share this near to 1 is all of it: sums of segment lengths are not exact


def spans_of(answer: Answer) -> list[Interval]:
    """The intervals of one query as a list, from an Interval, a (start_s, end_s) pair, a sequence
    of either, or None (unparsable).
    """
    if answer is None or isinstance(answer, Interval):
        return [] if answer is None else [answer]
    if len(answer) == 2 and not any(isinstance(end, Interval) or np.ndim(end) for end in answer):
        return [as_interval(answer)]  # type: ignore[arg-type]
    return [as_interval(span) for span in answer]  # type: ignore[arg-type]


def merged(spans: Sequence[Interval]) -> list[Interval]:
    """Disjoint intervals, in order, that cover the same seconds."""
    joined: list[Interval] = []
    for span in sorted(spans, key=lambda s: s.start_s):
        if joined and span.start_s <= joined[-1].end_s:
            joined[-1] = Interval(joined[-1].start_s, max(joined[-1].end_s, span.end_s))
        else:
            joined.append(span)
    return joined


def _seconds(spans: Sequence[Interval]) -> float:
    return math.fsum(span.duration_s for span in merged(spans))


def _shared_seconds(a: Sequence[Interval], b: Sequence[Interval]) -> float:
    return math.fsum(
        max(0.0, min(p.end_s, q.end_s) - max(p.start_s, q.start_s))
        for p in merged(a)
        for q in merged(b)
    )


def _finite(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        # NaN >= 0.5 and NaN < 0.5 are both false: which of the two a script asks decides between a
        # score of 0 and of 100.
        raise UserError(
            f"{what}: expected at least one number and no NaN, got {array.size} of which "
            f"{np.isfinite(array).sum()} finite"
        )
    return array


def _same_length(**lists: Sized) -> None:
    sizes = {name: len(items) for name, items in lists.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        counts = ", ".join(f"{size} {name}" for name, size in sizes.items())
        raise UserError(
            f"expected one entry per query in each list, and at least one query; got {counts}"
        )


# ---- recall and mIoU ----


def recall_at(ious: ArrayLike, threshold: float, strict: bool = False) -> float:
    """Share of queries (0..1) with tIoU >= threshold, or > threshold if `strict` (Ego4D). UserError
    on no queries or NaN.
    """
    array = _finite(ious, "tIoU")
    return float((array > threshold if strict else array >= threshold).mean())


def mean_iou(ious: ArrayLike) -> float:
    """Mean tIoU over queries, 0..1. UserError on no queries or NaN."""
    return float(_finite(ious, "tIoU").mean())


def query_iou(prediction: Answer, truth: Answer, rule: str | None = None) -> float:
    """tIoU of one answer, 0 if it is empty. UserError without a true window, or with several and no
    `rule`.

    Rules: the first predicted interval against the "best" or against the "first" true window; or,
    as a "set", all predicted against all true seconds (CG-Bench).
    """
    predicted, true = spans_of(prediction), spans_of(truth)
    if not true or (rule is None and len(true) > 1) or rule not in (None, *RULES):
        raise UserError(
            f"{len(true)} true windows, rule={rule!r}: expected at least one, and for several a "
            f"rule: {', '.join(RULES)}"
        )
    if not predicted:
        return 0.0
    if rule == "set":
        shared = _shared_seconds(predicted, true)
        union = _seconds(predicted) + _seconds(true) - shared
        return shared / union if union > 0 else 0.0
    return max(tiou(predicted[0], window) for window in (true if rule == "best" else true[:1]))


@dataclass(frozen=True)
class Scores:
    """Scores of one system on `n` queries, as fractions; `reversed`, `clipped`, `empty` count
    answers so repaired; `ious` (n,) per query.
    """

    n: int
    r1: dict[float, float]
    miou: float
    unparsable: float
    reversed: int
    clipped: int
    empty: int
    ious: Floats = field(repr=False, compare=False)
    parsed_only: Scores | None = None  # the second column, never the headline

    def as_metrics(self) -> dict[str, float]:
        """Under the names of the result file: r1@0.5 ..., miou, unparsable."""
        return {
            **{f"r1@{m:g}": value for m, value in self.r1.items()},
            "miou": self.miou,
            "unparsable": self.unparsable,
        }


def score_answers(  # noqa: PLR0913
    predictions: Sequence[Answer],
    truths: Sequence[Answer],
    *,
    rule: str | None = None,
    durations_s: Sequence[float] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    strict: bool = False,
    parsed_only: bool = False,
) -> Scores:
    """Scores over all queries. An empty answer is unparsable: tIoU 0, and it stays in the
    denominator.

    With `durations_s` predictions are clipped to their video first. `rule`: see `query_iou`.
    `parsed_only` adds the scores over parsed answers alone as a second column (None if none is):
    the rule by which one published R1@0.3 more than doubles. UserError on unequal lengths.
    """
    _same_length(predictions=predictions, truths=truths)
    answers = [spans_of(prediction) for prediction in predictions]
    if durations_s is not None:
        _same_length(predictions=answers, durations=durations_s)
        answers = [
            [span.clipped_to(duration) for span in spans]
            for spans, duration in zip(answers, durations_s, strict=True)
        ]
    ious = np.array(
        [query_iou(spans, truth, rule) for spans, truth in zip(answers, truths, strict=True)]
    )
    parsed, second = [i for i, spans in enumerate(answers) if spans], None
    if parsed_only and parsed:
        second = score_answers(
            [answers[i] for i in parsed],
            [truths[i] for i in parsed],
            rule=rule,
            thresholds=thresholds,
            strict=strict,
        )
    repaired = {
        flag: sum(any(flag in span.flags for span in spans) for spans in answers)
        for flag in ("reversed", "clipped", "empty")
    }
    recalls = {m: recall_at(ious, m, strict) for m in thresholds}
    return Scores(
        len(ious),
        recalls,
        mean_iou(ious),
        (len(ious) - len(parsed)) / len(ious),
        ious=ious,
        parsed_only=second,
        **repaired,
    )


# ---- mAP ----


def average_precision(
    prediction: Answer, truth: Answer, scores: Sequence[float] | None = None, max_windows: int = 10
) -> Floats:
    """Interpolated average precision of one query at each of MAP_THRESHOLDS, (10,), after
    QVHighlights. UserError without a true window.

    Windows are sorted by score (stable; without scores: as listed), then cut to `max_windows`; each
    takes the best true window still free at that threshold, else it is a false positive. No
    windows: 0. Windows of zero length: tIoU 0, never NaN.
    """
    predicted, true = spans_of(prediction), spans_of(truth)
    if not true:
        raise UserError("a query has no true window: leave it out of mAP, or score it as absent")
    if not predicted:
        return np.zeros(len(MAP_THRESHOLDS))
    if scores is not None:
        _same_length(windows=predicted, scores=scores)
        predicted = [
            predicted[i] for i in np.argsort(-_finite(scores, "window scores"), kind="stable")
        ]
    found, wanted = (
        np.array([(span.start_s, span.end_s) for span in spans])
        for spans in (predicted[:max_windows], true)
    )
    overlap = tiou_many(found[:, None], wanted[None])
    return np.array(
        [_interpolated_area(_true_positives(overlap, m), len(true)) for m in MAP_THRESHOLDS]
    )


def _true_positives(overlap: Floats, threshold: float) -> NDArray[np.bool_]:
    """Which windows find a true window that no earlier one took: overlap (P, T) -> (P,)."""
    free, hits = np.ones(overlap.shape[1], bool), np.zeros(len(overlap), bool)
    for i, row in enumerate(overlap):
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= threshold:
            free[best], hits[i] = False, True
    return hits


def _interpolated_area(hits: NDArray[np.bool_], num_true: int) -> float:
    """Area under the precision-recall curve with precision made monotone (VOC 2010)."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / num_true)


@dataclass(frozen=True)
class MeanAP:
    """mAP over `n` queries as fractions: at each tIoU threshold, and their mean."""

    average: float
    at: dict[float, float]
    n: int


def mean_average_precision(
    predictions: Sequence[Answer],
    truths: Sequence[Answer],
    scores: Sequence[Sequence[float]] | None = None,
    max_windows: int = 10,
) -> dict[str, MeanAP]:
    """mAP@[.5:.95] for "full" and each of LENGTH_RANGES with a true window of (low, high] seconds;
    predictions are not filtered by length.

    Unlike the published script, a query without predictions stays in the mean as 0, and the cut to
    `max_windows` comes after the sort. UserError if a query has no true window.
    """
    _same_length(
        predictions=predictions, truths=truths, **({} if scores is None else {"scores": scores})
    )
    true, found = [spans_of(truth) for truth in truths], {}
    for name, (low, high) in {"full": (-math.inf, math.inf), **LENGTH_RANGES}.items():
        kept = [
            (i, [s for s in spans if low < s.duration_s <= high]) for i, spans in enumerate(true)
        ]
        kept = [(i, spans) for i, spans in kept if spans or name == "full"]
        if kept:
            rows = [
                average_precision(
                    predictions[i], spans, None if scores is None else scores[i], max_windows
                )
                for i, spans in kept
            ]
            at = np.mean(rows, axis=0)
            found[name] = MeanAP(
                float(at.mean()), dict(zip(MAP_THRESHOLDS, at.tolist(), strict=True)), len(rows)
            )
    return found


# ---- the coarse stage ----


def covered_shares(windows: Sequence[Answer], truths: Sequence[Answer]) -> Floats:
    """Share of the true seconds inside the reloaded window(s), per query (N,); a truth of zero
    length counts 1 if a window holds it.
    """
    _same_length(windows=windows, truths=truths)
    return np.array(
        [
            _covered(merged(spans_of(window)), spans_of(truth))
            for window, truth in zip(windows, truths, strict=True)
        ]
    )


def _covered(windows: list[Interval], true: list[Interval]) -> float:
    seconds = _seconds(true)
    if seconds > 0:
        return min(1.0, _shared_seconds(windows, true) / seconds)
    return float(any(w.start_s <= t.start_s and t.end_s <= w.end_s for w in windows for t in true))


@dataclass(frozen=True)
class Coverage:
    """How often the reloaded window contains the whole truth, and the mean share of the truth that
    it contains; fractions.
    """

    contained: float
    share: float


def coverage(windows: Sequence[Answer], truths: Sequence[Answer]) -> Coverage:
    """Coverage of the truths by the reloaded windows (several count together, none covers nothing).
    Read it beside `reload_share`.
    """
    shares = covered_shares(windows, truths)
    return Coverage(float((shares >= WHOLE).mean()), float(shares.mean()))


def reload_shares(windows: Sequence[Answer], durations_s: Sequence[float]) -> Floats:
    """Share of each video that its window(s) reload, (N,); 0 without a window. UserError on a
    duration that is not positive.
    """
    _same_length(windows=windows, durations=durations_s)
    pairs = zip(windows, durations_s, strict=True)
    return np.array(
        [
            _seconds([span.clipped_to(duration) for span in spans_of(window)]) / duration
            for window, duration in pairs
        ]
    )


def reload_share(windows: Sequence[Answer], durations_s: Sequence[float]) -> float:
    """Mean share of the video that is reloaded: what the coverage was bought with."""
    return float(reload_shares(windows, durations_s).mean())


# ---- calibration ----


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers whose confidence lies in one bin: their mean confidence, the share that came true,
    and how many they are.
    """

    confidence: float
    came_true: float
    n: int


def reliability(confidences: ArrayLike, hits: ArrayLike, bins: int = 10) -> list[ConfidenceBin]:
    """Confidence against what came true, in equal bins of 0..1, empty ones left out. UserError for
    confidences outside 0..1 or lists of unequal length.
    """
    said, true = _finite(confidences, "confidences"), _finite(hits, "hits")
    _same_length(confidences=said, hits=true)
    if (said < 0).any() or (said > 1 + 1e-6).any():
        raise UserError("confidences must lie between 0 and 1; they are probabilities")
    which = np.minimum((said * bins).astype(int), bins - 1)
    chosen = [which == b for b in range(bins) if (which == b).any()]
    return [
        ConfidenceBin(float(said[mask].mean()), float(true[mask].mean()), int(mask.sum()))
        for mask in chosen
    ]


def calibration_error(confidences: ArrayLike, hits: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the mean distance of confidence from what came true, weighted by
    bin; 0 is perfect.
    """
    found = reliability(confidences, hits, bins)
    return float(
        sum(b.n * abs(b.confidence - b.came_true) for b in found) / sum(b.n for b in found)
    )


# ---- dense captions ----


def events_told(
    written: Sequence[tuple[Any, float, float]],
    true: Sequence[tuple[Any, float, float]],
    threshold: float = 0.5,
) -> list[bool]:
    """Which events (word, start_s, end_s) dense captions tell: in turn each caption takes the free
    event of its word with the highest tIoU, if that reaches `threshold`. Events may overlap; none
    is taken twice. F1 is 2 * told / (captions + events).
    """
    told = [False] * len(true)
    for word, *span in written:
        fits = [
            (tiou(span, event[1:]), -i)
            for i, event in enumerate(true)
            if event[0] == word and not told[i]
        ]
        best, at = max(fits, default=(-1.0, 0))
        if best >= threshold:
            told[-at] = True
    return told


# ---- V-STaR ----


def vstar_am(accuracy: float, mean_tiou: float, mean_viou: float) -> float:
    """V-STaR's arithmetic mean of what, when and where, each 0..1. Without a judge and boxes report
    mean tIoU alone, not this.
    """
    return float(_fractions(accuracy, mean_tiou, mean_viou).mean())


def vstar_lgm(accuracy: float, mean_tiou: float, mean_viou: float) -> float:
    """V-STaR's LGM, -mean(ln(1 - x)), x in 0..1. The published script fails at x = 1; here x stops
    at 1 - 1e-6, whose term is 13.8.
    """
    return float(
        -np.log1p(-np.minimum(_fractions(accuracy, mean_tiou, mean_viou), 1 - 1e-6)).mean()
    )


def _fractions(*values: float) -> Floats:
    array = _finite(values, "V-STaR scores")
    if (array < 0).any() or (array > 1).any():
        raise UserError(
            f"V-STaR scores {array.tolist()}: expected fractions between 0 and 1, not percent"
        )
    return array


# ---- bootstrap over videos ----


def bootstrap(
    values: ArrayLike,
    groups: Groups,
    *,
    statistic: Callable[[Any], Any] = np.mean,
    seed: int = 0,
    num: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Percentile interval of a statistic of values (N,) or (N, k), resampling whole videos:
    questions about one video are not independent.

    `groups` (N,) names the video of each query; `statistic` maps rows to one number (for the mean
    all resamples are one matrix product). The same seed gives the same interval. UserError on NaN,
    unequal lengths or a level outside (0, 1); a single video warns: no interval.
    """
    rows = _finite(values, "values")
    _same_length(values=rows, groups=groups)
    if not 0 < level < 1 or num < 1:
        raise UserError(
            f"level={level}, num={num}: expected a level between 0 and 1 and at least one resample"
        )
    video, num_videos = _number(groups)
    value = float(statistic(rows))
    if num_videos == 1:
        warnings.warn("all values come from one video: no interval over videos", stacklevel=2)
        return Estimate(value, None, None, len(rows))
    drawn = np.random.default_rng(seed).multinomial(
        num_videos, np.full(num_videos, 1 / num_videos), size=num
    )
    if statistic is np.mean and rows.ndim == 1:
        resampled = (drawn @ np.bincount(video, rows)) / (drawn @ np.bincount(video))
    else:
        resampled = _finite(
            [statistic(np.repeat(rows, times[video], axis=0)) for times in drawn],
            "statistic of the resamples",
        )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    # Rounding, or a skewed statistic, must not leave the value outside of its own interval.
    return Estimate(value, min(float(low), value), max(float(high), value), len(rows))


def _number(groups: Groups) -> tuple[NDArray[np.intp], int]:
    """Videos as 0.. in the order of their names, so that the order of the rows does not matter, and
    how many there are.
    """
    names = [
        f"{type(name).__name__} {name}"
        for name in (groups.tolist() if isinstance(groups, np.ndarray) else groups)
    ]
    unique, index = np.unique(names, return_inverse=True)
    return index, len(unique)


def bootstrap_difference(  # noqa: PLR0913
    a: ArrayLike,
    b: ArrayLike,
    groups: Groups,
    *,
    statistic: Callable[[Any], Any] = np.mean,
    seed: int = 0,
    num: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Paired interval of statistic(a) - statistic(b), both (N,), in the same queries of the same
    resampled videos. See `bootstrap`.
    """
    first, second = _finite(a, "a"), _finite(b, "b")
    _same_length(a=first, b=second)
    if statistic is np.mean:
        return bootstrap(first - second, groups, seed=seed, num=num, level=level)
    both = np.stack([first, second], axis=1)
    return bootstrap(
        both,
        groups,
        statistic=lambda r: statistic(r[:, 0]) - statistic(r[:, 1]),
        seed=seed,
        num=num,
        level=level,
    )


# ---- failure signatures (the three of the paper's summary) ----


@dataclass(frozen=True)
class Finding:
    """One failure signature: `verdict` is "present", "absent" or "undecided"; the number behind it,
    the evidence in words, what to do.
    """

    name: str
    verdict: str
    estimate: Estimate | None
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict}. {self.evidence}" + (
            "" if self.verdict == "absent" else f" {self.advice}"
        )


@dataclass(frozen=True)
class Diagnosis:
    """The three failure signatures of a two-stage system."""

    bias: Finding
    budget: Finding
    sharpening: Finding

    def __str__(self) -> str:
        return "\n".join(map(str, (self.bias, self.budget, self.sharpening)))


def diagnose(  # noqa: PLR0913
    windows: Sequence[Answer],
    answers: Sequence[Answer],
    truths: Sequence[Span],
    durations_s: Sequence[float],
    *,
    groups: Groups,
    reload_frames: Sequence[float],
    budget_frames: float,
    seed: int = 0,
) -> Diagnosis:
    """The three failure signatures in the coarse windows and final answers of N queries (the first
    interval of each, one true window each).

    `groups` names the videos; `reload_frames` is what each query would attend at its peak, in
    frames' worth of KV, before anything is cut to fit; `budget_frames` is what it may. UserError on
    unequal lengths or a duration that is not positive.
    """
    _same_length(
        windows=windows,
        answers=answers,
        truths=truths,
        durations=durations_s,
        groups=groups,
        reload_frames=reload_frames,
    )
    for duration in durations_s:
        check_duration(duration)
    true = [as_interval(truth) for truth in truths]
    coarse = [spans_of(window)[:1] for window in windows]
    videos, _ = _number(groups)
    errors = [
        (w[0].centre_s - t.centre_s) / d if w else math.nan
        for w, t, d in zip(coarse, true, durations_s, strict=True)
    ]
    coarse_iou, fine_iou = (
        np.array([query_iou(a, t) for a, t in zip(found, true, strict=True)])
        for found in (coarse, answers)
    )
    return Diagnosis(
        _bias(np.array(errors), videos, seed),
        _budget(_finite(reload_frames, "reload frames"), budget_frames, videos, seed),
        _sharpening(fine_iou, coarse_iou, covered_shares(coarse, true) >= WHOLE, videos, seed),
    )


def _estimate(values: Floats, videos: NDArray[np.intp], seed: int) -> Estimate | None:
    return bootstrap(values, videos, seed=seed) if len(np.unique(videos)) >= FEW_VIDEOS else None


def _bias(errors: Floats, videos: NDArray[np.intp], seed: int) -> Finding:
    name, have = "early or late bias of the coarse stage", np.isfinite(errors)
    estimate = _estimate(errors[have], videos[have], seed)
    if estimate is None:
        return Finding(
            name,
            "undecided",
            None,
            f"There are windows in fewer than {FEW_VIDEOS} videos.",
            "Diagnose more videos.",
        )
    evidence = (
        f"Centre of the window minus centre of the truth, in durations: {estimate}; "
        f"{np.mean(errors[have] > 0):.0%} are late."
    )
    advice = (
        "Check that downsampling keeps the order of time and that each group is stamped with the "
        "time of its own frames."
    )
    return Finding(
        name, "present" if estimate.excludes_zero else "absent", estimate, evidence, advice
    )


def _budget(frames: Floats, budget: float, videos: NDArray[np.intp], seed: int) -> Finding:
    over = (frames > budget).astype(
        np.float64
    )  # one query over the budget is a fact, with or without an interval over videos
    estimate = _estimate(over, videos, seed) or Estimate(float(over.mean()), None, None, len(over))
    evidence = (
        f"{over.mean():.0%} of the queries need more than {budget:g} frames (median "
        f"{np.median(frames):g}, most {frames.max():g})."
    )
    advice = (
        "Narrow the window, widen it only at low confidence, or raise r, which leaves more of the "
        "budget to the reload."
    )
    return Finding(
        "out of budget in the fine stage",
        "present" if over.any() else "absent",
        estimate,
        evidence,
        advice,
    )


def _sharpening(
    fine: Floats, coarse: Floats, held: NDArray[np.bool_], videos: NDArray[np.intp], seed: int
) -> Finding:
    name = "high recall, low precision: the fine stage does not sharpen"
    given = f"where the window holds the truth ({held.mean():.0%} of the queries)"
    estimate = _estimate((fine - coarse)[held], videos[held], seed)
    if estimate is None:
        return Finding(
            name,
            "undecided",
            None,
            f"There are fewer than {FEW_VIDEOS} videos {given}.",
            "Diagnose more, or widen the window.",
        )
    sharper = "absent" if estimate.excludes_zero else "undecided"
    evidence = (
        f"Fine tIoU {fine[held].mean():.3f}, coarse {coarse[held].mean():.3f} {given}; difference "
        f"{estimate}."
    )
    advice = (
        "Check that the reloaded DVR holds more than the HVR of the same seconds, and that the "
        "fine question attends to it."
    )
    return Finding(name, sharper if estimate.value > 0 else "present", estimate, evidence, advice)


# ---- trivial baselines ----


def whole_video(duration_s: float) -> Interval:
    """The answer whose coverage is always right: everything."""
    check_duration(duration_s)
    return Interval(0.0, duration_s)


def centre_window(duration_s: float, fraction: float = 1 / 3) -> Interval:
    """The middle `fraction` (0..1] of the video."""
    check_duration(duration_s)
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {fraction}: expected more than 0 and at most 1")
    return Interval(duration_s * (1 - fraction) / 2, duration_s * (1 + fraction) / 2)


def best_constant(truth_fractions: ArrayLike, max_candidates: int = 100) -> tuple[float, float]:
    """The one interval with the highest mIoU on truths (N, 2), all in fractions of the duration:
    fit it on dev, multiply by the duration.

    Between true ends mIoU is convex in the answer's end (and so for starts): the best start is a
    true start, the best end a true end. The search over those is exact up to `max_candidates`
    different values each; beyond, it takes quantiles. UserError outside 0..1.
    """
    truths = _finite(truth_fractions, "true windows")
    if truths.ndim != 2 or truths.shape[1] != 2 or (truths < 0).any() or (truths > 1).any():
        raise UserError(
            f"true windows of shape {truths.shape}: expected (N, 2) fractions of the duration "
            "between 0 and 1"
        )
    starts, ends = (_candidates(column, max_candidates) for column in np.sort(truths, axis=1).T)
    best = (-1.0, 0.0, 1.0)
    for start in starts:
        later = ends[ends >= start]
        means = tiou_many(
            np.stack([np.full_like(later, start), later], axis=1)[:, None], truths[None]
        ).mean(axis=1)
        best = max(
            best, *zip(means.tolist(), [float(start)] * len(later), later.tolist(), strict=True)
        )
    return best[1], best[2]


def _candidates(values: Floats, limit: int) -> Floats:
    unique = np.unique(values)
    return (
        unique
        if len(unique) <= limit
        else np.quantile(unique, np.linspace(0, 1, limit), method="nearest")
    )
