"""Intervals in seconds: normalising, temporal IoU, and reading intervals out of a model's answer
text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timescope_lite import answer_text
from timescope_lite.common import UserError


@dataclass(frozen=True)
class Interval:
    """A span [start_s, end_s] of a video in seconds, always 0 <= start_s <= end_s.

    The constructor repairs and flags: a reversed pair is swapped ("reversed"), negative times
    become 0 ("clipped"), zero length is kept ("empty"). NaN, infinity and what is no number raise
    UserError. Equality looks at the seconds only, not at the flags.
    """

    start_s: float
    end_s: float
    flags: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        try:
            finite = math.isfinite(self.start_s) and math.isfinite(self.end_s)
        except (TypeError, OverflowError):
            finite = False
        if not finite:
            raise UserError(
                f"interval [{self.start_s!r}, {self.end_s!r}]: expected two finite numbers of "
                "seconds"
            )
        ends = float(self.start_s), float(self.end_s)
        start_s, end_s = (max(0.0, t) for t in sorted(ends))
        found = {"reversed": ends[0] > ends[1], "clipped": min(ends) < 0, "empty": start_s == end_s}
        flags = dict.fromkeys([*self.flags, *(name for name, present in found.items() if present)])
        for name, value in (("start_s", start_s), ("end_s", end_s), ("flags", tuple(flags))):
            object.__setattr__(self, name, value)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s

    @property
    def centre_s(self) -> float:
        """The middle, in seconds."""
        return (self.start_s + self.end_s) / 2

    def clipped_to(self, duration_s: float) -> Interval:
        """Cut to a video of `duration_s` seconds; flag "clipped" if that changed anything. Raises
        UserError unless 0 < duration_s < inf.
        """
        check_duration(duration_s)
        if self.end_s <= duration_s:
            return self
        return Interval(min(self.start_s, duration_s), duration_s, (*self.flags, "clipped"))

    def widened(self, margin_s: float, duration_s: float) -> Interval:
        """`margin_s` seconds more on either side, kept inside the video; flags stay as they are.
        Raises UserError on a negative margin.
        """
        check_duration(duration_s)
        if not 0 <= margin_s < math.inf:
            raise UserError(f"margin of {margin_s} s: expected 0 or more seconds")
        return replace(
            self,
            start_s=min(max(0.0, self.start_s - margin_s), duration_s),
            end_s=min(self.end_s + margin_s, duration_s),
        )

    def overlaps(self, other: Interval) -> bool:
        """Whether they share more than a border ([0, 5] and [5, 9] do not); a zero-length interval
        overlaps what it lies inside.
        """
        return self.start_s < other.end_s and other.start_s < self.end_s

    def clock_text(self) -> str:
        """'00:18.0 to 01:23.4' (mm:ss, or h:mm:ss from one hour on, in tenths of a second): what
        `parse_intervals` reads back.
        """
        return f"{clock(self.start_s)} to {clock(self.end_s)}"


Span = Interval | Sequence[float]


def check_duration(duration_s: float) -> None:
    """UserError unless a video may last `duration_s` seconds."""
    if not 0 < duration_s < math.inf:
        raise UserError(f"video duration {duration_s} s: expected a positive number of seconds")


def clock(time_s: float) -> str:
    """A time as mm:ss.t, or h:mm:ss.t from one hour on (rounded to tenths first, so that 59.96 s is
    01:00.0).
    """
    minutes, tenths = divmod(round(time_s * 10), 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{seconds}" if hours else seconds


def as_interval(span: Span) -> Interval:
    """An Interval as it is, or one made of a (start_s, end_s) pair; anything else raises
    UserError.
    """
    if isinstance(span, Interval):
        return span
    try:
        start_s, end_s = span
    except (TypeError, ValueError):
        raise UserError(
            f"{span!r} is no interval: expected an Interval or a (start_s, end_s) pair"
        ) from None
    return Interval(start_s, end_s)


def overlap_s(a: Span, b: Span) -> float:
    """Seconds that two intervals share."""
    a, b = as_interval(a), as_interval(b)
    return max(0.0, min(a.end_s, b.end_s) - max(a.start_s, b.start_s))


def tiou(a: Span, b: Span) -> float:
    """Temporal IoU of two intervals, 0..1: seconds shared over seconds covered by either; 0 where
    that union is empty.
    """
    a, b = as_interval(a), as_interval(b)
    inter = overlap_s(a, b)
    union = a.duration_s + b.duration_s - inter
    return inter / union if union > 0 else 0.0


def tiou_many(pred: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """`tiou` of arrays of (start_s, end_s): (..., 2) and (..., 2) broadcast to (...). Normalises as
    Interval does; UserError on NaN.
    """
    p, t = (_normalised(spans) for spans in (pred, truth))
    inter = np.maximum(0.0, np.minimum(p[..., 1], t[..., 1]) - np.maximum(p[..., 0], t[..., 0]))
    union = (p[..., 1] - p[..., 0]) + (t[..., 1] - t[..., 0]) - inter
    return np.divide(inter, union, out=np.zeros_like(union), where=union > 0)


def _normalised(spans: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(spans, dtype=np.float64)
    if array.shape[-1:] != (2,) or not np.isfinite(array).all():
        raise UserError(
            f"intervals of shape {array.shape}: expected finite (start_s, end_s) pairs in the last "
            "axis"
        )
    return np.sort(np.maximum(array, 0.0), axis=-1)


def covers(window: Span, truth: Span) -> bool:
    """Whether the window contains the whole truth, to a microsecond (sums of segment lengths are
    not exact in floating point).
    """
    window, truth = as_interval(window), as_interval(truth)
    return window.start_s <= truth.start_s + 1e-6 and truth.end_s <= window.end_s + 1e-6


# ---- reading an answer ----


@dataclass(frozen=True)
class Reading:
    """What an answer says: its intervals in order, without repeats; and, only if there are none,
    whether it says that the video does not show it (`absent`). Neither: it could not be read.
    """

    intervals: tuple[Interval, ...]
    absent: bool = False


def read_answer(text: str, *, duration_s: float | None = None, fps: float | None = None) -> Reading:
    """The intervals that an answer states, in seconds, or that it says "not there" (in words, as an
    empty list, as `[-1, -1]`). UserError unless `text` is a string.

    Where it looks: the last closed <answer> block (one outside the reasoning before one inside) and
    then nowhere else; without a block, the text without its <think> part, which ends at </think>
    even if the prompt opened it, and runs to the end if it is never closed; in there first what is
    boxed or called the final answer. What it reads there, the first kind that yields something: (1)
    JSON: pairs of times, dicts with a start and an end, nested. (2) Clock ranges: mm:ss, h:mm:ss,
    with decimals. (3) Others: 'x to y', dashes, 'between x and y', 'starts at x, ends at y',
    '[x, y]', rows of a table; a bare number takes its partner's unit, else seconds. (4) Nothing but
    two times. Frames count with `fps`, percentages with `duration_s`, where no seconds are stated.
    What is no time: ages, dates, am and pm, versions, phone numbers, numbered things ('step 3'),
    counted things, other units; 1,200 (thousands or decimals?) and '1:18 to 23' are refused. A
    moment is no interval. 'From 2019 to 2020' cannot be told from seconds.
    """
    if not isinstance(text, str):
        raise UserError(f"answer of type {type(text).__name__}: expected the text of one answer")
    if duration_s is not None:
        check_duration(duration_s)
    if fps is not None and not 0 < fps < math.inf:
        raise UserError(f"{fps} frames per second: expected a positive number")
    pairs, absent = answer_text.read_answer(text, duration_s, fps)
    return Reading(tuple(dict.fromkeys(Interval(*pair) for pair in pairs)), absent)


def parse_intervals(
    text: str, *, duration_s: float | None = None, fps: float | None = None
) -> list[Interval]:
    """Every interval an answer states, in its order, in seconds, without repeats; [] if there is
    none: `read_answer` says whether that is the answer. UserError unless `text` is a string.
    """
    return list(read_answer(text, duration_s=duration_s, fps=fps).intervals)
