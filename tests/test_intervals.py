"""Intervals: normalising, tIoU against an independent reference, and the answer parser on good, bad
and misleading texts.
"""

import dataclasses
import json
import math
import time
from pathlib import Path

import answer_kinds
import fuzz
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timescope_lite.common import UserError
from timescope_lite.intervals import (
    Interval,
    Reading,
    as_interval,
    clock,
    covers,
    overlap_s,
    parse_intervals,
    read_answer,
    tiou,
    tiou_many,
)

FIXTURE = (
    Path(__file__).resolve().parents[2]
    / "shared"
    / "reference"
    / "metrics"
    / "text_parsers_10.json"
)


# ---- Interval ----


@pytest.mark.parametrize(
    ("pair", "expected", "flags"),
    [
        ((5, 9), (5, 9), ()),
        ((9, 5), (5, 9), ("reversed",)),
        ((-5, 3), (0, 3), ("clipped",)),
        ((3, -5), (0, 3), ("reversed", "clipped")),
        ((-5, -3), (0, 0), ("clipped", "empty")),
        ((7, 7), (7, 7), ("empty",)),
        ((np.float32(1.5), np.int64(2)), (1.5, 2), ()),
    ],
)
def test_the_constructor_repairs_and_flags(pair, expected, flags):
    interval = Interval(*pair)
    assert (interval.start_s, interval.end_s) == expected
    assert set(interval.flags) == set(flags)
    assert type(interval.start_s) is float and type(interval.end_s) is float
    assert math.copysign(1, Interval(-0.0, 1).start_s) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "5", "x", 10**400, [1]])
def test_what_is_no_finite_number_is_refused(bad):
    for pair in ((bad, 5), (5, bad)):
        with pytest.raises(UserError, match="finite numbers of seconds"):
            Interval(*pair)


def test_equality_is_about_seconds_and_the_object_is_frozen():
    assert Interval(9, 5) == Interval(5, 9) and hash(Interval(9, 5)) == hash(Interval(5, 9))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Interval(5, 9).start_s = 3


def test_clipping_to_the_video_is_flagged_only_when_it_changes_something():
    assert Interval(5, 9).clipped_to(9).flags == ()
    cut = Interval(5, 9).clipped_to(8)
    assert (cut.start_s, cut.end_s, cut.flags) == (5, 8, ("clipped",))
    outside = Interval(20, 30).clipped_to(8)
    assert (outside.start_s, outside.end_s) == (8, 8) and set(outside.flags) == {"clipped", "empty"}
    assert set(Interval(9, 5).clipped_to(8).flags) == {"reversed", "clipped"}


def test_widening_stays_inside_the_video_and_adds_no_flag():
    wide = Interval(5, 9).widened(2, 10)
    assert (wide.start_s, wide.end_s, wide.flags) == (3, 10, ())
    assert Interval(1, 2).widened(5, 30) == Interval(0, 7)
    with pytest.raises(UserError, match="margin"):
        Interval(1, 2).widened(-1, 30)
    for duration in (0, -1, math.nan, math.inf):
        with pytest.raises(UserError, match="duration"):
            Interval(1, 2).clipped_to(duration)
        with pytest.raises(UserError, match="duration"):
            Interval(1, 2).widened(1, duration)


def test_overlap_needs_more_than_a_border():
    assert Interval(0, 5).overlaps(Interval(4, 9)) and not Interval(0, 5).overlaps(Interval(5, 9))
    assert Interval(0, 5).overlaps(Interval(3, 3)) and not Interval(0, 5).overlaps(Interval(5, 5))
    assert overlap_s((0, 5), (4, 9)) == 1 and overlap_s((0, 5), (6, 9)) == 0


def test_clock_text_rounds_to_tenths_and_is_read_back():
    assert [clock(t) for t in (0, 59.94, 59.96, 65.04, 3599.96, 36000)] == [
        "00:00.0",
        "00:59.9",
        "01:00.0",
        "01:05.0",
        "1:00:00.0",
        "10:00:00.0",
    ]
    rng = np.random.default_rng(0)
    for start_s, length_s in zip(
        rng.uniform(0, 8000, 200), rng.uniform(0.2, 900, 200), strict=True
    ):
        (read,) = parse_intervals(Interval(start_s, start_s + length_s).clock_text())
        assert abs(read.start_s - start_s) < 0.051 and abs(read.end_s - start_s - length_s) < 0.051


# ---- tIoU ----

GOLDEN = [  # worked by hand
    ((0, 10), (0, 10), 1.0),
    ((0, 10), (5, 15), 1 / 3),
    ((0, 10), (0, 5), 0.5),
    ((0, 10), (2, 5), 0.3),
    ((0, 5), (5, 10), 0.0),
    ((0, 5), (7, 10), 0.0),
    ((20, 10), (10, 20), 1.0),  # the published mAP code: union 0, IoU NaN, score 100
    ((7, 7), (7, 7), 0.0),  # the same defect with zero lengths
    ((7, 7), (5, 9), 0.0),
    ((-5, 5), (0, 5), 1.0),
]


@pytest.mark.parametrize(("a", "b", "expected"), GOLDEN)
def test_tiou_golden(a, b, expected):
    assert tiou(Interval(*a), Interval(*b)) == pytest.approx(expected, abs=1e-12)
    assert tiou(a, b) == tiou(b, a) == tiou_many([a], [b])[0]


def _grid_tiou(a, b):
    """Independent: count thousandths of a second."""
    first, second = (set(range(*sorted(int(t) for t in pair))) for pair in (a, b))
    return len(first & second) / len(first | second) if first | second else 0.0


def test_tiou_agrees_with_counting_and_is_symmetric_bounded_and_invariant():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 400, (2, 300, 2))
    expected = [_grid_tiou(p, q) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(tiou_many(a, b), expected, atol=1e-12)
    np.testing.assert_array_equal(tiou_many(a, b), tiou_many(b, a))
    np.testing.assert_array_equal(tiou_many(a, b), [tiou(p, q) for p, q in zip(a, b, strict=True)])
    np.testing.assert_allclose(tiou_many(a + 12.5, b + 12.5), expected, atol=1e-12)
    np.testing.assert_allclose(tiou_many(a * 0.37, b * 0.37), expected, atol=1e-12)
    x, y = rng.uniform(-5, 50, (2, 5000, 2))
    assert 0 <= tiou_many(x, y).min() and tiou_many(x, y).max() <= 1
    assert (
        tiou_many(x, np.maximum(np.sort(x), 0))[
            np.maximum(x, 0).max(axis=1) > np.maximum(x, 0).min(axis=1)
        ]
        == 1
    ).all()


def test_tiou_many_broadcasts_to_a_matrix_and_refuses_nan():
    assert (
        tiou_many(np.zeros((3, 1, 2)) + [0, 5], np.zeros((1, 4, 2)) + [0, 10]).tolist()
        == [[0.5] * 4] * 3
    )
    for bad in ([[0, math.nan]], [[0, math.inf]], [[0, 1, 2]], 5.0):
        with pytest.raises(UserError):
            tiou_many(bad, [[0, 1]])


def test_covers_and_as_interval():
    assert covers((5, 9), (6, 9)) and not covers((5, 9), (6, 9.1)) and not covers((5, 9), (4.9, 8))
    assert covers((0.1 + 0.2, 1), (0.3, 1)), "segment sums are not exact"
    assert as_interval(np.array([5.0, 9.0])) == Interval(5, 9)
    for bad in ("59", "5 to 9", 5, None, (1, 2, 3), ()):
        with pytest.raises(UserError):
            as_interval(bad)


# ---- the parser ----

READS = {
    # ranges
    "5s-9s": [(5, 9)],
    "5.0 seconds to 7.5 seconds": [(5, 7.5)],
    "5,5 s to 7,25 s": [(5.5, 7.25)],
    "5,5–7,25 s": [(5.5, 7.25)],
    "5 — 9": [(5, 9)],
    "5−9 s": [(5, 9)],
    "5 s ~ 9 s": [(5, 9)],
    "5..9": [(5, 9)],
    "5 -> 9": [(5, 9)],
    "5.0 -9.0": [(5, 9)],
    ".5 to .9": [(0.5, 0.9)],
    "from 5 to 9": [(5, 9)],
    "From about 5 to roughly 9 seconds.": [(5, 9)],
    "between 5 seconds and 7 seconds": [(5, 7)],
    "Between 5 and 9 the man falls": [(5, 9)],
    "5 to 9 and 12 to 15": [(5, 9), (12, 15)],
    "5-9, 12-15": [(5, 9), (12, 15)],
    "5.0-9.0,12.0-15.0": [(5, 9), (12, 15)],
    "It is 5 to 9. So the answer is 5 to 9.": [(5, 9)],
    "**5.0** to **9.0**": [(5, 9)],
    "`5.0 - 9.0`": [(5, 9)],
    "<5.0s> to <9.0s>": [(5, 9)],
    "t = 5 s to t = 9 s": [(5, 9)],
    "the 5-second mark to the 9-second mark": [(5, 9)],
    "second 412 to second 415": [(412, 415)],
    "starts at 5 s and lasts until 9 s": [(5, 9)],
    "Start: 5.0, End: 9.0": [(5, 9)],
    "start_s=5;end_s=9": [(5, 9)],
    "Start time: 00:18\nEnd time: 00:23": [(18, 23)],
    "It starts when the door opens at 5 s and ends at 9 s": [(5, 9)],
    "The event starts at second 5 and ends at second 9": [(5, 9)],
    "from 5 to 9 may be too long": [(5, 9)],
    "from 1999 to 2005 s": [(1999, 2005)],
    # units
    "2 min 5 s to 2 min 9 s": [(125, 129)],
    "2 minutes and 5 seconds to 2 minutes and 9.5 seconds": [(125, 129.5)],
    "1h02m03s - 1h02m10s": [(3723, 3730)],
    "5 to 9 minutes": [(300, 540)],
    "minutes 5 to 9": [(300, 540)],
    "2 min to 5": [(120, 300)],
    "1.5 hours to 1.6 hours": [(5400, 5760)],
    "between 1 minute and 90 seconds": [(60, 90)],
    "1 min 30 to 2 min": [(90, 120)],
    "1 h 2 min 30 to 1 h 3 min": [(3750, 3780)],
    "1 h 05 to 1 h 10": [(3900, 4200)],
    # clocks
    "0:05-0:09": [(5, 9)],
    "from 1:02:03.5 to 1:02:10": [(3723.5, 3730)],
    "90:15 to 91:00": [(5415, 5460)],
    "00:00:18,500 --> 00:00:23,250": [(18.5, 23.25)],
    "[00:18, 00:23]": [(18, 23)],
    "[00:18,00:23]": [(18, 23)],
    "1:18 to 80 s": [(78, 80)],
    "5 to 9 s and 00:18 to 00:23": [(18, 23)],
    "The score is 3-2 at 1:05 - 1:09": [(65, 69)],
    "chapter 3, 00:10:00 - 00:12:30": [(600, 750)],
    # milliseconds, once refused as another unit, are a unit of time like minutes
    '{"start_ms": 5000, "end_ms": 9000}': [(5, 9)],
    "5000 ms to 9000 ms": [(5, 9)],
    # lists, JSON
    "(5.0, 9.0)": [(5, 9)],
    "[5.0s, 12.5s]": [(5, 12.5)],
    "5.0 9.0": [(5, 9)],
    "[[5, 9], [12, 15]]": [(5, 9), (12, 15)],
    "[(5, 9), (12, 15)]": [(5, 9), (12, 15)],
    "{'start': 5, 'end': 9}": [(5, 9)],
    '{"start": "00:18", "end": "00:23"}': [(18, 23)],
    '["00:18", "00:23"]': [(18, 23)],
    '["5 to 9", "12 to 15"]': [(5, 9), (12, 15)],
    '{"answer": "5s - 9s"}': [(5, 9)],
    '{"a": {"b": [{"start_time": 5, "end_time": 9}]}}': [(5, 9)],
    '```json\n{"spans": [{"start_s": 5, "end_s": 9}, {"start_s": 12, "end_s": 15}]}\n```': [
        (5, 9),
        (12, 15),
    ],
    '{"reasoning": "3 to 4", "answer": [5, 9]}': [(5, 9)],
    '{"timeframe": [5, 9]}': [(5, 9)],
    "At 3 to 4 it is dark: [5, 9]": [(5, 9)],
    "[1] The event is 5 to 9 s": [(5, 9)],
    # beside numbers that are no times
    "frames 120-360, i.e. 4.0 s to 12.0 s": [(4, 12)],
    "segments 3 to 5 (24 s to 40 s)": [(24, 40)],
    "Segment: 5.0 to 9.0": [(5, 9)],
    "the segment 24.3 - 30.4 seconds": [(24.3, 30.4)],
    "clip 12 to 15 s": [(12, 15)],
    "scene 2 from 5 to 9": [(5, 9)],
    "step 1: 5 to 9": [(5, 9)],
    "1. 5.0 to 9.0": [(5, 9)],
    "I counted 3-5 people between 12 s and 15 s": [(12, 15)],
    "a man (aged 30-40) falls from 12 to 15 s": [(12, 15)],
    "at 30 fps from 5 to 9": [(5, 9)],
    "the 5-year-old falls from 12 to 15": [(12, 15)],
    # repaired
    "30.4 - 24.3 seconds": [(24.3, 30.4)],
    "-5 to 3 s": [(0, 3)],
    "-5 - 10": [(0, 10)],
    "-8 to -3": [(0, 0)],
    "7 to 7 s": [(7, 7)],
    # where to look
    "<think>5 to 9</think><answer>12 to 15</answer>": [(12, 15)],
    "<answer>1 to 2</answer> no, <answer>3 to 4</answer>": [(3, 4)],
    "<ANSWER>\n5 to 9\n</ANSWER>": [(5, 9)],
    "5 to 9, hmm</think> 12 to 15": [(12, 15)],
    "12 to 15 <think>5 to 9</think>": [(12, 15)],
    "<think>5 to 9 <answer>1 to 2</answer>": [(1, 2)],
    "<think>3 to 4</think><answer>5 to 9": [(5, 9)],
    "<answer>1 to 2</answer><think><answer>3 to 4</answer></think>": [(1, 2)],
    "<think><answer>1 to 2</answer></think>": [(1, 2)],
}

NOTHING = [
    "",
    "I cannot find this event in the video.",
    "at 5 s",
    "5 s to the end",
    "5,9",
    "50% to 80%",
    "from 50 to 80 %",
    "50 percent to 80 percent",
    "[50, 80]%",
    "frames 120 to 360",
    "frame 120 to frame 360",
    "120 to 360 frames",
    "frames [120, 360]",
    '{"start_frame": 120, "end_frame": 360}',
    "a 5-year-old boy",
    "children 5 to 9 years old",
    "aged 5 to 9",
    "2024-05-12",
    "12.05.2024 to 13.05.2024",
    "05/12/2024 - 05/13/2024",
    "2024-05-12T10:00:05",
    "May 5 to 9",
    "5 to 9 June",
    "Oct. 5 - 9 Oct",
    "7:30 pm to 8:15 pm",
    "10 a.m. to 11 a.m.",
    "version 1.2.3 to 1.2.4",
    "v1.2-v1.3",
    "version 3 to 4",
    "192.168.0.1-192.168.0.9",
    "call 555-1234",
    "555-123-4567",
    "+1 (555) 123-4567",
    "1920x1080",
    "16:9 to 4:3",
    "COVID-19 to 20",
    "9 - 5 = 4",
    "$5 to $9",
    "5th to 9th",
    "5 to 9 people",
    "3 to 5 times",
    "10 to 20 meters",
    "24/7 to 25/7",
    "steps 1-3",
    "room 12-14",
    "1,200 to 1,250 seconds",
    "00:75 to 00:90",
    "1:18 to 23",
    "1e3 to 2e3",
    "9" * 400 + " to 5",
    "[1, 2, 3, 4]",
    "[NaN, 5]",
    "[true, 5]",
    '{"bbox": [10, 20, 30, 40]}',
    '{"start": null, "end": 5}',
    '{"start": 5}',
    "<think>5 to 9",
    "<think>5 to 9</think>",
    "<think>5 to 9</think><answer></answer>",
    "<think>5 to 9</think><answer>it does not happen</answer> 12 to 15",
]


# Kinds that people report, each of which some parser in use gets wrong.
REPORTED = {
    "The person opens the box: [12.5, 18.2]": [(12.5, 18.2)],
    "\\boxed{[12.5, 18.2]}": [(12.5, 18.2)],
    "Thus $\\boxed{12.5 \\text{ to } 18.2}$": [(12.5, 18.2)],
    "$12.5$ to $18.2$ seconds": [(12.5, 18.2)],
    "\\[ [12.5, 18.2] \\]": [(12.5, 18.2)],
    "\\(12.5\\,\\text{s}\\) to \\(18.2\\,\\text{s}\\)": [(12.5, 18.2)],
    "<answer>12.5 and 20</answer>": [(12.5, 20)],
    "Steps 1-3: cut the bread. 12.0 - 18.0 s": [(12, 18)],
    "Step 3 - 12.5 s to 18.2 s": [(12.5, 18.2)],
    "1 - 12 to 18": [(12, 18)],
    "12.5 s (frame 125) to 18.2 s (frame 182)": [(12.5, 18.2)],
    "frame 125 (12.5 s) to frame 182 (18.2 s)": [(12.5, 18.2)],
    '{"t_start": 12.5, "t_end": 18.2}': [(12.5, 18.2)],
    '{"startTime": 12.5, "endTime": 18.2}': [(12.5, 18.2)],
    '{"start_sec": "12.5", "end_sec": "18.2s"}': [(12.5, 18.2)],
    '{"segment_start": 12.5, "segment_end": 18.2, "confidence": 0.9, "frame": 3}': [(12.5, 18.2)],
    '{"start_ms": 12500, "end_ms": 18200}': [(12.5, 18.2)],
    '{"query": "3 to 5 people", "answer": "12.5 - 18.2"}': [(12.5, 18.2)],
    '{"description": "3 to 5 people", "interval": [12.5, 18.2]}': [(12.5, 18.2)],
    '{"timestamps": [[12.5, 18.2, 0.9], [20, 25, 0.4]]}': [(12.5, 18.2), (20, 25)],
    '{"start": [12.5, 20], "end": [18.2, 25]}': [(12.5, 18.2), (20, 25)],
    '{"start_minute": 1, "start_second": 5, "end_minute": 1, "end_second": 9}': [(65, 69)],
    "12.5‐18.2": [(12.5, 18.2)],
    "12.5‑18.2 s": [(12.5, 18.2)],
    "12.5―18.2": [(12.5, 18.2)],
    "12.5－18.2": [(12.5, 18.2)],
    "12.5〜18.2": [(12.5, 18.2)],
    "12～18 s": [(12, 18)],
    "12.5 s → 18.2 s": [(12.5, 18.2)],
    "12.5 => 18.2": [(12.5, 18.2)],
    "12.5秒到18.2秒": [(12.5, 18.2)],
    "从12.5秒至18.2秒": [(12.5, 18.2)],
    "第12秒到第18秒": [(12, 18)],
    "００:１２ - ００:１８": [(12, 18)],
    "00:12.50 - 00:18.20": [(12.5, 18.2)],
    "00:00:12,500 --> 00:00:18,200": [(12.5, 18.2)],
    "0:00:12.500 to 0:00:18.200": [(12.5, 18.2)],
    "12500 ms - 18200 ms": [(12.5, 18.2)],
    "12500-18200ms": [(12.5, 18.2)],
    "12s500ms to 18s200ms": [(12.5, 18.2)],
    "PT12.5S to PT18.2S": [(12.5, 18.2)],
    '12.5" - 18.2"': [(12.5, 18.2)],
    "1'05\" - 1'09\"": [(65, 69)],
    "<start>12.5</start><end>18.2</end>": [(12.5, 18.2)],
    "<time>12.5 to 18.2</time>": [(12.5, 18.2)],
    "<segment start='12.5' end='18.2'/>": [(12.5, 18.2)],
    "<|begin_of_box|>12.5 - 18.2<|end_of_box|>": [(12.5, 18.2)],
    "<answer>B</answer><time>12.5 to 18.2</time>": [(12.5, 18.2)],
    "<think>3 to 4</think><answer>(B) <glue>[(12.5, 18.2)]</glue></answer>": [(12.5, 18.2)],
    "| start | end |\n|---|---|\n| 12.5 | 18.2 |\n| 20 | 25 |": [(12.5, 18.2), (20, 25)],
    "start,end\n12.5,18.2": [(12.5, 18.2)],
    "| # | Start (s) | End (s) |\n|---|---|---|\n| 1 | 12.5 | 18.2 |": [(12.5, 18.2)],
    "Start/End: 12.5 / 18.2": [(12.5, 18.2)],
    "Start time: 12.5 s\nEnd time: 18.2 s": [(12.5, 18.2)],
    "ends at 18.2 s, starts at 12.5 s": [(12.5, 18.2)],
    "It starts at 12.5 s. It ends at 18.2 s.": [(12.5, 18.2)],
    "start_ms: 12500, end_ms: 18200": [(12.5, 18.2)],
    "starts at 12.5 s and lasts 5.7 s": [(12.5, 18.2)],
    "from 12.5s until 18.2s": [(12.5, 18.2)],
    "12.5 sec. to 18.2 sec.": [(12.5, 18.2)],
    "Between 12.5 seconds and 18.2 seconds.": [(12.5, 18.2)],
    "12.5 seconds into the video to 18.2 seconds": [(12.5, 18.2)],
    "[12.5] to [18.2]": [(12.5, 18.2)],
    "(12.5) - (18.2)": [(12.5, 18.2)],
    "`12.5` - `18.2`": [(12.5, 18.2)],
    "**12.5s** – **18.2s**": [(12.5, 18.2)],
    "“12.5 – 18.2”": [(12.5, 18.2)],
    "'12.5', '18.2'": [(12.5, 18.2)],
    "12.5, 18.2": [(12.5, 18.2)],
    "12.5,18.2": [(12.5, 18.2)],
    "12.5;18.2": [(12.5, 18.2)],
    "12.5|18.2": [(12.5, 18.2)],
    "12.5 18.2": [(12.5, 18.2)],
    "12.5\n18.2": [(12.5, 18.2)],
    "12.5 18.2\n20 25": [(12.5, 18.2), (20, 25)],
    "Answer: 12.5, 18.2": [(12.5, 18.2)],
    "It might be 5 to 9. Final answer: 12.5 to 18.2": [(12.5, 18.2)],
    "There are 3-5 people. 12 - 18": [(12, 18)],
    "There are 2-3 cats on the mat; 12 - 18": [(12, 18)],
    "between 3 and 5 people appear from 12 to 18": [(12, 18)],
    "chapter 2, step 3, frame 12: 3 people open the box from 12.5 to 18.2": [(12.5, 18.2)],
    "person holds a picture frame: [12, 18]": [(12, 18)],
    "person holds a picture frame: 12 - 18": [(12, 18)],
    "The person points: [12, 18]": [(12, 18)],
    "The man starts the engine at the end: 12.5 - 18.2 s": [(12.5, 18.2)],
    "the first step: [12, 18]": [(12, 18)],
    "person turns to page 5 of the book: 12 to 18": [(12, 18)],
    "1-2, 4-5 min": [(60, 120), (240, 300)],
    "12.5-18.2, 20-25 s": [(12.5, 18.2), (20, 25)],
    "12.5 s - 18.2 s (00:12 - 00:18)": [(12.5, 18.2)],
    "The event occurs at 12.5s-18.2s of the video (150 s)": [(12.5, 18.2)],
    "(12.5s, 18.2s)": [(12.5, 18.2)],
    "[00:12.5 - 00:18.2]": [(12.5, 18.2)],
    "00:12.5~00:18.2": [(12.5, 18.2)],
    "1,012.5 to 1,018.2 s": [(1012.5, 1018.2)],
    "t=12.5s to t=18.2s": [(12.5, 18.2)],
    "12.5 s <= t <= 18.2 s": [(12.5, 18.2)],
    "start: 12.5 seconds; stop: 18.2 seconds": [(12.5, 18.2)],
    "12.5-to-18.2 s": [(12.5, 18.2)],
    "Time: 12.5s—18.2s": [(12.5, 18.2)],
    "The clip shows it (12.5 – 18.2 s).": [(12.5, 18.2)],
    "12.5 bis 18.2 Sekunden": [(12.5, 18.2)],
    "[[12.5, 18.2], [20, 2": [(12.5, 18.2)],
    '{"start": 12.5, "end": 18.2': [(12.5, 18.2)],
    "{start: 12.5, end: 18.2}": [(12.5, 18.2)],
    "relevant windows: [[12.5, 18.2]]": [(12.5, 18.2)],
    "frames [120, 360], i.e. 4.0 s to 12.0 s": [(4, 12)],
    "[1, 2] minutes": [(60, 120)],
    "The video is 150 s long. The event is from 12.5 to 18.2 s.": [(12.5, 18.2)],
    "The video ends at 150 s. The event starts at 12.5 s and lasts until 18.2 s.": [(12.5, 18.2)],
    "starts at 12.5 s. The video ends at 150 s.": [],
    "the man takes 2 steps to the 3 boxes: 12.5 - 18.2": [(12.5, 18.2)],
    "12.5 s..18.2 s": [(12.5, 18.2)],
    "2 min 5.5 s – 2 min 9 s": [(125.5, 129)],
    "1:02.5 min to 1:08 min": [(62.5, 68)],
    "Event 1: 12.5 - 18.2\nEvent 2: 20 - 25": [(12.5, 18.2), (20, 25)],
    "1) 12.5 - 18.2\n2) 20.0 - 25.0": [(12.5, 18.2), (20, 25)],
    "- 12.5 - 18.2\n- 20.0 - 25.0": [(12.5, 18.2), (20, 25)],
    "◁think▷3 to 4◁/think▷12.5 to 18.2": [(12.5, 18.2)],
    "12.5 through to 18.2": [(12.5, 18.2)],
    "at 12.5 seconds and ending at 18.2 seconds": [(12.5, 18.2)],
    "begin=12.5 finish=18.2": [(12.5, 18.2)],
    "12.5s\xa0–\xa018.2s": [(12.5, 18.2)],
    "12.5\u200bs to 18.2s": [(12.5, 18.2)],
    "about 12.5 to about 18.2 seconds": [(12.5, 18.2)],
    "approximately 12.5-18.2s": [(12.5, 18.2)],
    "The answer is 12.5s to 18.2s because at 3 to 4 people...": [(12.5, 18.2)],
    "00:12 to 00:18 (5 to 9 frames)": [(12, 18)],
    "seconds 12.5 - 18.2": [(12.5, 18.2)],
    "[12.5s - 18.2s]": [(12.5, 18.2)],
    "<12.5, 18.2>": [(12.5, 18.2)],
    "12 and 18": [(12, 18)],
    "12 s and 18 s": [(12, 18)],
    "Start: 00:12 | End: 00:18": [(12, 18)],
    "from the 12th second to the 18th second": [(12, 18)],
    "12th to 18th second": [(12, 18)],
    "interval=(12.5,18.2)": [(12.5, 18.2)],
    "Interval(start_s=12.5, end_s=18.2)": [(12.5, 18.2)],
    "(start=12.5, end=18.2)": [(12.5, 18.2)],
    "start 12.5 end 18.2": [(12.5, 18.2)],
    "12.5 s (start) to 18.2 s (end)": [(12.5, 18.2)],
    "12.5s (start) - 18.2s (end)": [(12.5, 18.2)],
}

REPORTED |= {
    "The person walks through the room. 506 - 532 s": [(506, 532)],
    "Chapter 3.\n12 to 18": [(12, 18)],
    "3 people enter the room.\n[12, 18]": [(12, 18)],
    "It lasts 5.7 s (12.5 s to 18.2 s)": [(12.5, 18.2)],
    "Time range: 12.5 – 18.2 seconds; total length: 150 seconds": [(12.5, 18.2)],
    "video of 2 min 30 s: 12.5 to 18.2": [(12.5, 18.2)],
    "de 12,5 s à 18,2 s": [(12.5, 18.2)],
    "The answer is 12.5-18.2. Note the score 3-2.": [(12.5, 18.2)],
}

IN_OTHER_UNITS = [
    ("frames 125 to 182", {"fps": 10}),
    ("frame 125 - frame 182", {"fps": 10}),
    ("125-182 frames", {"fps": 10}),
    ("between frames 125 and 182", {"fps": 10}),
    ("frames [125, 182]", {"fps": 10}),
    ("starts at frame 125 and ends at frame 182", {"fps": 10}),
    ('{"start_frame": 125, "end_frame": 182}', {"fps": 10}),
    ("12.5% to 18.2%", {"duration_s": 100}),
    ("[12.5, 18.2]%", {"duration_s": 100}),
    ("12.5 to 18.2 percent of the video", {"duration_s": 100}),
]

NOT_THERE = [
    "[-1, -1]",
    "(-1,-1)",
    "-1, -1",
    "[[-1.0, -1.0]]",
    '{"start": -1, "end": -1}',
    "start: -1, end: -1",
    "-1 to -1",
    "The event does not occur in the video.",
    "It isn't shown in the video.",
    "The person is never seen.",
    "I could not find it.",
    "Not present",
    "None",
    "N/A",
    "No such event",
    "There is no matching moment.",
    "absent",
    "[]",
    '{"intervals": []}',
    '{"start": null, "end": null}',
    "<think>5 to 9</think><answer>not in the video</answer>",
]

NEITHER = ["at 5 s", "", "5,9", "Sure! Here is the answer.", "steps 1-3", "[10, 20, 30, 40]"]


def spans(text):
    return [(i.start_s, i.end_s) for i in parse_intervals(text)]


@pytest.mark.parametrize("text", READS)
def test_reads(text):
    assert spans(text) == [pytest.approx(pair) for pair in READS[text]]


@pytest.mark.parametrize("text", NOTHING)
def test_finds_nothing_where_no_interval_is_stated(text):
    assert spans(text) == []


@pytest.mark.parametrize("text", REPORTED)
def test_reads_what_people_report(text):
    assert spans(text) == [pytest.approx(pair) for pair in REPORTED[text]]


@pytest.mark.parametrize(("text", "options"), IN_OTHER_UNITS)
def test_frames_and_percentages_count_where_their_scale_is_known(text, options):
    (read,) = parse_intervals(text, **options)
    assert (read.start_s, read.end_s) == (pytest.approx(12.5), pytest.approx(18.2))
    assert spans(text) == []
    with pytest.raises(UserError, match="expected a positive number"):
        parse_intervals(text, **dict.fromkeys(options, 0))


@pytest.mark.parametrize("text", NOT_THERE)
def test_not_there_is_an_answer_of_its_own(text):
    assert read_answer(text) == Reading((), absent=True)


@pytest.mark.parametrize("text", NEITHER)
def test_what_says_nothing_is_not_absent(text):
    assert read_answer(text) == Reading(())


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=300)
def test_formats_separators_and_surroundings_do_not_change_what_is_read(rng):
    made = answer_kinds.make(rng)
    found = [(i.start_s, i.end_s) for i in parse_intervals(made.text, **made.options)]
    assert found == [pytest.approx(pair, abs=2e-3) for pair in made.expected], made.text


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=100)
def test_the_words_of_a_query_do_not_change_what_is_read(rng):
    made = rng.choice(answer_kinds.FORMATS)(rng)
    alone = parse_intervals(made.text, **made.options)
    for query in answer_kinds.QUERIES:
        assert parse_intervals(f"{query}: {made.text}", **made.options) == alone


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_ends_in_a_reading(text):
    for interval in parse_intervals(text, duration_s=10, fps=25):
        assert 0 <= interval.start_s <= interval.end_s < math.inf


def test_the_time_it_takes_grows_with_the_text_and_no_faster():
    pieces = ["9", "[1,", "5 to ", "<think>", '{"a":', "not ", "1:", "1 - ", "(", "\\boxed{", "\n"]
    for piece in [*pieces, " ", "|start|end|\n", "{", '"', "[[5, 9], ", "1'", "—", "'a"]:
        started = time.perf_counter()
        read_answer(piece * (16_000 // len(piece)))
        assert time.perf_counter() - started < 1.5, piece


@pytest.mark.slow
def test_fuzzing_finds_no_misreading_and_no_traceback():
    counts = fuzz.readings(1000, seed=3)
    assert counts["misread"] == 0 and counts["unread"] <= 10
    assert fuzz.texts(2000, seed=3) == {"read": 2000, "hang": 0}


def test_flags_of_what_was_read():
    assert [
        set(parse_intervals(t)[0].flags) for t in ("9 to 5", "-5 to 3", "7 to 7", "5 to 9")
    ] == [
        {"reversed"},
        {"clipped"},
        {"empty"},
        set(),
    ]


def test_numbers_of_the_reasoning_never_leak_into_an_answer_block():
    rng = np.random.default_rng(2)
    templates = [
        "{} to {}",
        "from {} s to {} s",
        "[{}, {}]",
        "between {} and {}",
        "{}s-{}s",
        '{{"start": {}, "end": {}}}',
    ]
    for _ in range(200):
        noise, (a, b) = rng.integers(1, 900, 4), sorted(rng.uniform(1000, 2000, 2).round(2))
        thought = " ".join(rng.choice(templates).format(*pair) for pair in (noise[:2], noise[2:]))
        text = f"<think>{thought}</think><answer>{rng.choice(templates).format(a, b)}</answer>"
        assert spans(text) == [(a, b)], text


def test_hostile_texts_end_in_a_list():
    for text in (
        "[" * 5000,
        "{'a':" * 3000,
        "[" * 900 + "5,9" + "]" * 900,
        "<think>" * 500,
        "<answer>" * 500,
        "5 to " * 1000,
        "start at " * 500,
    ):
        assert isinstance(parse_intervals(text), list)
    rng, alphabet = np.random.default_rng(3), list("0123456789:.,-–[]{}()\"'<>%s mh to and answer/")
    for _ in range(500):
        for interval in parse_intervals("".join(rng.choice(alphabet, 40))):
            assert 0 <= interval.start_s <= interval.end_s < math.inf
    for bad in (None, 5, b"5 to 9", ["5 to 9"]):
        with pytest.raises(UserError, match="answer of type"):
            parse_intervals(bad)


@pytest.mark.skipif(
    not FIXTURE.exists(), reason="third-party parser fixture is not in this checkout"
)
def test_matches_the_sensible_reading_of_every_fixture_text():
    cases = [
        case for case in json.loads(FIXTURE.read_text())["cases"] if case["sensible"] is not None
    ]
    assert len(cases) == 10
    for case in cases:
        assert spans(case["text"]) == [tuple(pair) for pair in case["sensible"]], case["text"]
