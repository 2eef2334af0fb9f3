"""The exercises of lesson 00: the chance that sampled frames miss an event, segments under a
window, frames that attention reads.
"""

from __future__ import annotations

import math

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, register, same, wrong_answers

# ---- miss_chance ----

PHASES = 20_000


def miss_by_counting(num_frames: int, event_s: float, video_s: float) -> float:
    """Share of many starts of an evenly spaced grid of frames for which no frame falls into an
    event.
    """
    gap_s = video_s / num_frames
    phase = (np.arange(PHASES) + 0.5) / PHASES * gap_s
    # Frames at phase + k * gap for every whole k: how many lie in [0, event_s)?
    inside = np.ceil((event_s - phase) / gap_s) - np.ceil(-phase / gap_s)
    return float(np.mean(inside == 0))


def _miss_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    plain = [
        (64, 2.0, 3600.0),
        (1, 2.0, 3600.0),
        (225, 5.0, 3600.0),
        (10, 30.0, 60.0),
        (1800, 2.0, 3600.0),
    ]
    drawn = [
        (
            int(rng.integers(1, 400)),
            round(float(rng.uniform(1, 30)), 1),
            float(rng.integers(100, 4000)),
        )
        for _ in range(10)
    ]
    return [
        Case(f"{n} frames, an event of {event:g} s in {video:g} s", (n, event, video))
        for n, event, video in plain + drawn
    ]


_MISS_CHANCE_SAYS = (
    (
        "no floor",
        lambda n, event, video: 1 - n * event / video,
        "A chance below 0. Once the gap between two frames is shorter than the event, no start of "
        "the "
        "grid can miss it.",
    ),
    (
        "chance to hit",
        lambda n, event, video: min(1.0, n * event / video),
        "That is the chance to see the event. Asked is the chance to miss it.",
    ),
    (
        "independent frames",
        lambda n, event, video: (1 - event / video) ** n,
        "That is right for frames drawn independently, which may fall close together. Evenly "
        "spaced, "
        "each gap of video_s / n has "
        "exactly one.",
    ),
    (
        "hits expected",
        lambda n, event, video: n * event / video,
        "That is how many frames fall into the event on average, which may be more than 1. Asked "
        "is "
        "the chance that none does.",
    ),
    (
        "percent",
        lambda n, event, video: 100 * max(0.0, 1 - n * event / video),
        "That is the chance in percent. A probability is a number from 0 to 1; only what is "
        "printed "
        "may be multiplied.",
    ),
    (
        "a frame short",
        lambda n, event, video: max(0.0, 1 - (n - 1) * event / video),
        "You counted n - 1 gaps, as between n fence posts. Here the grid starts anywhere in its "
        "first "
        "gap: n frames, n gaps of video_s / n.",
    ),
    (
        "an event without length",
        lambda n, event, video: max(0.0, 1 - n / video),
        "The length of the event is not in your answer: an event of 10 s is ten times as hard to "
        "miss "
        "as one of 1 s.",
    ),
)
register(
    Exercise(
        name="miss_chance",
        lesson="00",
        reference=miss_by_counting,
        cases=_miss_cases,
        covers="15 cases against counting over 20000 starts of the grid",
        compare=lambda expected, got: same(expected, got, tolerance=2e-3),
        wrong=wrong_answers(_MISS_CHANCE_SAYS),
    )
)

# ---- segments_under ----


def segments_by_looking(
    start_s: float, end_s: float, segment_s: int, num_segments: int
) -> tuple[int, int]:
    """First and last segment that share more than a border with [start_s, end_s], found by asking
    each.
    """
    under = [
        i
        for i in range(num_segments)
        if min(end_s, (i + 1) * segment_s) - max(start_s, i * segment_s) > 0
    ]
    return under[0], under[-1]


def _segment_cases() -> list[Case]:
    rng = np.random.default_rng(8)
    plain = [
        (20.0, 40.0, 16, 10),
        (3.0, 5.0, 16, 10),
        (16.0, 32.0, 16, 10),
        (0.0, 160.0, 16, 10),
        (31.5, 32.5, 16, 10),
        (150.0, 160.0, 16, 10),
    ]
    drawn = [
        (*sorted(rng.choice(480, 2, replace=False) / 4), int(rng.choice([8, 12, 16])), 15)
        for _ in range(12)
    ]
    return [
        Case(f"[{a:g}, {b:g}] s in segments of {S} s", (float(a), float(b), S, n))
        for a, b, S, n in [*plain, *drawn]
    ]


_SEGMENTS_UNDER_SAYS = (
    (
        "end // S",
        lambda start, end, S, n: (int(start // S), int(end // S)),
        "A window that ends on a border does not touch what begins there, and where it ends with "
        "the "
        "video you name a segment that "
        "does not exist. Which segment holds the last moment *before* the end?",
    ),
    (
        "border",
        lambda start, end, S, n: (int(start // S), min(int(end // S), n - 1)),
        "A window that ends exactly on a border does not need the segment that begins there: [16, "
        "32] "
        "s lies in segment 1 alone.",
    ),
    (
        "one past the end",
        lambda start, end, S, n: (int(start // S), math.ceil(end / S)),
        "Your last segment is one too many: both ends count here, as in first..last, not as in a "
        "slice.",
    ),
    (
        "rounded",
        lambda start, end, S, n: (round(start / S), max(round(start / S), round(end / S) - 1)),
        "Rounding drops a segment that is needed for less than its half. Second 20 lies in segment "
        "1 "
        "(16 to 32 s), and so does second 30.",
    ),
    (
        "end // S + 1",
        lambda start, end, S, n: (int(start // S), int(end // S) + 1),
        "Your last segment is one too many, and two where the window ends on a border: it is the "
        "end "
        "of a slice. Here both ends are "
        "included.",
    ),
    (
        "seconds",
        lambda start, end, S, n: (int(start // S) * S, (math.ceil(end / S) - 1) * S),
        "Those are seconds, the ones in which the two segments begin. Asked are the numbers of the "
        "segments: 0, 1, 2, ...",
    ),
    (
        "how many",
        lambda start, end, S, n: (int(start // S), math.ceil(end / S) - int(start // S)),
        "Your second number says how many segments there are. Asked are the first and the last.",
    ),
    (
        "only whole segments",
        lambda start, end, S, n: (math.ceil(start / S), int(end // S) - 1),
        "You kept only segments that lie wholly inside. A segment that overlaps by one second may "
        "hold the evidence.",
    ),
)
register(
    Exercise(
        name="segments_under",
        lesson="00",
        reference=segments_by_looking,
        cases=_segment_cases,
        covers="18 windows against asking every segment",
        wrong=wrong_answers(_SEGMENTS_UNDER_SAYS),
    )
)

# ---- attended_frames ----


def frames_by_listing(num_segments: int, reloaded: int, S: int, r: int) -> float:
    """What attention reads after a reload, in frames' worth, by listing every slot of every segment
    (the place of the window does not matter).
    """
    slots = [
        frame
        for i in range(num_segments)
        for frame in (range(S) if i < reloaded else range(0, S, r))
    ]
    return float(len(slots))


def _frame_cases() -> list[Case]:
    plain = [(225, 0, 16, 16), (225, 3, 16, 16), (32, 2, 16, 4), (8, 8, 16, 8), (225, 3, 16, 1)]
    rng = np.random.default_rng(9)
    drawn = [
        (int(n), int(rng.integers(0, n + 1)), 16, int(rng.choice([1, 2, 4, 8, 16])))
        for n in rng.integers(4, 300, size=8)
    ]
    return [
        Case(f"{m} of {n} segments reloaded, S={S}, r={r}", (n, m, S, r))
        for n, m, S, r in plain + drawn
    ]


_ATTENDED_FRAMES_SAYS = (
    (
        "the window twice",
        lambda n, m, S, r: n * S / r + m * S,
        "The window is in there twice: once reloaded and once still compressed. A reloaded segment "
        "replaces its HVR.",
    ),
    (
        "only the reload",
        lambda n, m, S, r: float(m * S),
        "You counted the reload alone. The fine stage still reads the HVR of all other segments.",
    ),
    (
        "slots, not frames",
        lambda n, m, S, r: (n - m) / r + m,
        "You counted segments. A segment is S frames, and S / r slots where it stays compressed.",
    ),
    (
        "no reload",
        lambda n, m, S, r: n * S / r,
        "`reloaded` changes nothing in your answer: that is the coarse stage. In the fine stage "
        "those "
        "segments are read frame by frame.",
    ),
    (
        "window in segments",
        lambda n, m, S, r: (n - m) * S / r + m,
        "Two units in one sum: the compressed part is in frames' worth, the window in segments. A "
        "reloaded segment is S frames.",
    ),
    (
        "r the wrong way round",
        lambda n, m, S, r: float((n - m) * r + m * S),
        "r frames become one slot, so a compressed segment has S / r slots, not r.",
    ),
)
register(
    Exercise(
        name="attended_frames",
        lesson="00",
        reference=frames_by_listing,
        cases=_frame_cases,
        covers="13 memories against listing every slot",
        wrong=wrong_answers(_ATTENDED_FRAMES_SAYS),
    )
)
