"""Intervals in seconds: normalising, temporal IoU, and reading intervals out of a model's answer
text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

# A time: clock (00:18, 1:02:03,5) | spelled (5 s, 2 min 5 s, 1h02m) | unit first (second 412) | a
# bare number (5, 12.5, 5,5, -3).
_N = r"[-−]?(?:\d+(?:[.,]\d+)?|\.\d+)"
_H = r"(?:hours?|hrs?|h)"
_M = r"(?:minutes?|mins?|m)"
_S = r"(?:seconds?|secs?|s)"
_SECONDS_IN = {"h": 3600.0, "m": 60.0, "s": 1.0}
_GAP, _JOIN, _TAIL = r"(?:\s|-(?=[a-z]))*", r"\s*,?\s*(?:and\s+)?", r"\s*[0-5]?\d"
_CLOCK = rf"\d{{1,3}}:[0-5]\d(?::[0-5]\d)?(?:[.,]\d+)?(?:\s*(?:{_H}|{_M}|{_S}))?"
_MINUTES = rf"{_N}{_GAP}{_M}(?:{_JOIN}{_N}{_GAP}{_S}|{_TAIL})?"
_SPELLED = (
    rf"{_N}{_GAP}{_H}(?:{_JOIN}{_MINUTES}|{_JOIN}{_N}{_GAP}{_S}|{_TAIL})?|{_MINUTES}|{_N}{_GAP}{_S}"
)
# What makes a number no time: behind it the unit of something else; before it, if it is whole and
# has no unit, a noun that is numbered.
_MONTH = (
    r"jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
_UNIT = (
    r"%|°|=|percent|per\s*cent|years?|yrs?|y/?o|days?|weeks?|months?|ms|milliseconds?|frames?|fps|hz|px|pixels?|people|persons?|times|steps?|pages?"
    rf"|points?|degrees?|(?:kilo|centi)?met(?:er|re)s?|km|cm|kg|dollars?|euros?|[ap]\.?m|o'clock|{_MONTH}"
)
_NOUN = (
    r"frames?|steps?|pages?|versions?|v|chapters?|segments?|scenes?|shots?|clips?|parts?|rooms?|numbers?|no\.|items?|lines?|years?|ages?|aged"
    rf"|options?|questions?|levels?|phone|call|tel\.?|dial|march|may|{_MONTH}"
)
_TIME = (
    rf"(?:{_CLOCK}|{_SPELLED}|(?:hour|minute|second)s?\s+{_N}|{_N})"
    rf"(?![\w%]|[.,:/]\d|[\s-]*(?:{_UNIT})(?![a-z]))"
)
_HEAD = r"(?<![\w.#$€£])(?<!\d[,:/])(?<![a-z]-)"
_DASH = r"(?:-{1,2}>?|[–—‒−~→]|\.{2,3})"
_TO = (
    rf"(?:{_DASH}|(?:and\s+)?(?:(?:lasts|continues|runs)\s+)?"
    r"(?:up\s+)?(?:to|until|till|through)(?![a-z]))"
)
_FILLER = r"\s*(?:(?:the|at|about|around|approximately|roughly|time|timestamp)\s+|t\s*=\s*){0,3}"
_AT = (
    r"(?:[a-z_]*[^\d.;]{0,40}?\b(?:at|is|around|about|near)|[a-z_]*(?:\s+time(?:stamp)?)?)"
    r"[\s:=\"']*"
)
_RANGE = re.compile(
    rf"between{_FILLER}({_TIME})\s*and{_FILLER}({_TIME})"
    rf"|(?:start|begin){_AT}{_HEAD}({_TIME})[^\d]{{0,40}}?(?:end|stop|finish){_AT}{_HEAD}({_TIME})"
    rf"|{_HEAD}({_TIME})(?:\s*mark)?\s*{_TO}{_FILLER}({_TIME})"
    rf"|[\[(]\s*({_TIME})\s*[,;]\s*({_TIME})\s*[\])]",
    re.I,
)
_TWO_TIMES = re.compile(rf"\s*({_TIME})(?:,\s|;|\s)\s*({_TIME})[\s.]*", re.I)
_ONE_TIME = re.compile(_TIME, re.I)
_PIECE = re.compile(rf"({_N}){_GAP}({_H}|{_M}|{_S})?(?![a-z])", re.I)
_NO_TIME = re.compile(
    r"(?<![\d.:])\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"  # 1,200: thousands or decimals?
    r"|\d+(?:\.\d+){2,}|\d+(?:/\d+)+"  # versions, addresses, dates, fractions
    # 2024-05-12, 555-123-4567, (555) 123-4567
    r"|(?<![\d.,])\d+(?:[.,]\d+)?(?:-\d+(?:[.,]\d+)?){2,}|\(\d+\)\s*\d+-\d+"
    rf"|(?<![\w.])(?<!time\s)(?:{_NOUN})\s*#?\d++(?>\s*(?:{_DASH}|to|and)\s*\d++)?+(?![\w:]|[.,]\d|\s*(?:{_H}|{_M}|{_S})(?![a-z]))",
    re.I,
)
_NO_KEY = re.compile(
    r"(?<!time)(?<!time_)frame|idx|index|box|percent|ratio|score|confid|resol|size|durat|reason|think|thought|expla|_ms|milli|minute"
)
_NO_LIST = (
    re.compile(r"(?:(?<!time)(?<!time\s)frame|box|percent|index|indice)\w*\W{0,3}$", re.I),
    re.compile(rf"\s*(?:{_UNIT})", re.I),
)
_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.I | re.S)
_THINK, _UNTHINK = re.compile(r"<think(?:ing)?>", re.I), re.compile(r"</think(?:ing)?>", re.I)


def parse_intervals(text: str) -> list[Interval]:
    """Every interval an answer states, in its order, in seconds, without repeats; [] if there is
    none. UserError unless `text` is a string.

    Where it looks: the last closed <answer> block (one outside the reasoning before one inside) and
    then nowhere else; without a block, the text without its <think> part, which ends at </think>
    even if the prompt opened it, and runs to the end if it is never closed. What it reads there,
    the first kind that yields something: (1) JSON: pairs of times, dicts with a start and an end,
    nested; not longer lists of numbers, nor keys about frames, boxes, shares or reasoning. (2)
    Clock ranges: mm:ss, h:mm:ss. (3) Others: 'x to y', dashes, 'between x and y', 'starts at x,
    ends at y', '[x, y]'; a bare number takes its partner's unit, else seconds. (4) Nothing but two
    times. What is no time: percentages, frames, ages, dates, am and pm, versions, phone numbers,
    numbered things ('step 3'), other units; 1,200 (thousands or decimals?) and '1:18 to 23' are
    refused. A moment is no interval. 'From 2019 to 2020' cannot be told from seconds.
    """
    if not isinstance(text, str):
        raise UserError(f"answer of type {type(text).__name__}: expected the text of one answer")
    found, rest = _from_json_in(_scope(text))
    return list(dict.fromkeys(found or _from_text(rest)))


def _scope(text: str) -> str:
    """The part of an answer that may be read."""
    spoken = re.sub(rf"{_THINK.pattern}.*?{_UNTHINK.pattern}", " ", text, flags=re.I | re.S)
    spoken = _UNTHINK.split(spoken)[-1]
    if blocks := _ANSWER.findall(spoken) or _ANSWER.findall(text):
        return str(blocks[-1])
    return re.split("<answer>", _THINK.split(spoken)[0], flags=re.I)[-1]


def _from_json_in(text: str) -> tuple[list[Interval], str]:
    """Intervals of the JSON values that stand anywhere in a text, and the text without those
    values.
    """
    source = text if '"' in text else text.replace("'", '"')  # python's quotes
    found, rest, at = [], text, 0
    while opening := re.compile(r"[\[{]").search(source, at):
        start, at = opening.start(), opening.end()
        try:
            value, at = json.JSONDecoder().raw_decode(source, start)
            rest = rest[:start] + " " * (at - start) + rest[at:]
            if not (
                _NO_LIST[0].search(source[max(0, start - 20) : start])
                or _NO_LIST[1].match(source, at)
            ):
                found += _from_json(value)
        except RecursionError:
            break
        except ValueError:
            continue
    return found, rest


def _from_json(value: Any) -> list[Interval]:
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, dict):
        kept = {
            key.lower(): child for key, child in value.items() if not _NO_KEY.search(key.lower())
        }
        starts, ends = (
            [child for key, child in kept.items() if re.match(words, key)]
            for words in ("start|begin|from$", "end|stop|finish|to$")
        )
        return (
            _pair(starts[0], ends[0])
            if starts and ends
            else [i for child in kept.values() for i in _from_json(child)]
        )
    if not isinstance(value, list):
        return []
    pair = _pair(*value) if len(value) == 2 else []
    return pair or [interval for child in value for interval in _from_json(child)]


def _pair(*times: Any) -> list[Interval]:
    """The interval between two JSON values, if both are times."""
    written = [
        str(time).strip()
        for time in times
        if isinstance(time, int | float | str) and not isinstance(time, bool)
    ]
    if len(written) < 2 or not all(map(_ONE_TIME.fullmatch, written)):
        return []
    return [interval for interval, _ in _range(*written)]


def _from_text(text: str) -> list[Interval]:
    """Intervals of prose: clock ranges if there are any, else all ranges, else the two times that
    are the whole text.
    """
    text = re.sub(r"[*`]|[<|]+(?=\d)|(?<=[\ds])[|>]+", " ", _NO_TIME.sub(" # ", text))
    text = re.sub(
        r"(\.\d+),(?=\d)|,(?=\d+[.:]\d)", r"\1, ", text
    )  # a comma beside a decimal point is no decimal comma
    found = [
        pair for match in _RANGE.finditer(text) for pair in _range(*filter(None, match.groups()))
    ]
    if not found and (two := _TWO_TIMES.fullmatch(text)):
        found = _range(*two.groups())
    return [interval for interval, is_clock in found if is_clock] or [
        interval for interval, _ in found
    ]


def _range(start: str, end: str) -> list[tuple[Interval, bool]]:
    """One interval (and whether it was written as a clock) from two times; [] if they do not make
    one.
    """
    (start_s, unit), (end_s, end_unit) = _read_time(start), _read_time(end)
    shared = unit or end_unit or "s"
    if not (unit and end_unit) and shared not in _SECONDS_IN:
        return []  # 1:18 to 23: minutes or seconds?
    try:
        span = Interval(
            start_s * (1 if unit else _SECONDS_IN[shared]),
            end_s * (1 if end_unit else _SECONDS_IN[shared]),
        )
    except UserError:  # so many digits that the number is infinite
        return []
    return [(span, "clock" in (unit, end_unit))]


def _read_time(token: str) -> tuple[float, str]:
    """Seconds and unit of a time: h, m, s, "clock", "mixed" (2 min 5 s), or "" for a bare
    number.
    """
    token = token.lower().replace(",", ".").replace("−", "-")
    if ":" in token:
        fields = [float(number) for number in re.findall(r"[\d.]+", token)] + [0.0] * (
            token.count(":") == 1 and "h" in token
        )  # 1:05 h
        return sum(number * 60.0**power for power, number in enumerate(reversed(fields))), "clock"
    pieces = [(float(number), word[:1]) for number, word in _PIECE.findall(token)]
    if len(pieces) == 1:
        unit = pieces[0][1] or (token[0] if token[0] in "hms" else "")
        return pieces[0][0] * _SECONDS_IN.get(unit, 1.0), unit
    total, unit = 0.0, ""
    for number, word in pieces:
        unit = word or {"h": "m", "m": "s"}[unit]
        total += number * _SECONDS_IN[unit]
    return total, "mixed"
