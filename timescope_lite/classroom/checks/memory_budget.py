"""The exercises of lesson 00: the chance that sampled frames miss an event, segments under a window, frames that attention reads."""

from __future__ import annotations

import math

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, WrongAnswer, register, same

# ---- miss_chance ----

PHASES = 20_000


def miss_by_counting(num_frames: int, event_s: float, video_s: float) -> float:
    """Share of many starts of an evenly spaced grid of frames for which no frame falls into an event."""
    gap_s = video_s / num_frames
    phase = (np.arange(PHASES) + 0.5) / PHASES * gap_s
    # Frames at phase + k * gap for every whole k: how many lie in [0, event_s)?
    inside = np.ceil((event_s - phase) / gap_s) - np.ceil(-phase / gap_s)
    return float(np.mean(inside == 0))


def _miss_cases() -> list[Case]:
    rng = np.random.default_rng(7)
    plain = [(64, 2.0, 3600.0), (1, 2.0, 3600.0), (225, 5.0, 3600.0), (10, 30.0, 60.0), (1800, 2.0, 3600.0)]
    drawn = [(int(rng.integers(1, 400)), round(float(rng.uniform(1, 30)), 1), float(rng.integers(100, 4000))) for _ in range(10)]
    return [Case(f"{n} frames, an event of {event:g} s in {video:g} s", (n, event, video)) for n, event, video in plain + drawn]


register(
    Exercise(
        name="miss_chance",
        lesson="00",
        reference=miss_by_counting,
        cases=_miss_cases,
        covers="15 cases against counting over 20000 starts of the grid",
        compare=lambda expected, got: same(expected, got, tolerance=2e-3),
        wrong=(
            WrongAnswer(
                "no floor",
                lambda n, event, video: 1 - n * event / video,
                "A chance below 0. Once the gap between two frames is shorter than the event, no start of the grid can miss it.",
            ),
            WrongAnswer(
                "chance to hit",
                lambda n, event, video: min(1.0, n * event / video),
                "That is the chance to see the event. Asked is the chance to miss it.",
            ),
            WrongAnswer(
                "independent frames",
                lambda n, event, video: (1 - event / video) ** n,
                "That is right for frames drawn independently, which may fall close together. Evenly spaced, each gap of video_s / n has exactly one.",
            ),
            WrongAnswer(
                "an event without length",
                lambda n, event, video: max(0.0, 1 - n / video),
                "The length of the event is not in your answer: an event of 10 s is ten times as hard to miss as one of 1 s.",
            ),
        ),
    )
)

# ---- segments_under ----


def segments_by_looking(start_s: float, end_s: float, segment_s: int, num_segments: int) -> tuple[int, int]:
    """First and last segment that share more than a border with [start_s, end_s], found by asking each."""
    under = [i for i in range(num_segments) if min(end_s, (i + 1) * segment_s) - max(start_s, i * segment_s) > 0]
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
    drawn = [(*sorted(rng.choice(480, 2, replace=False) / 4), int(rng.choice([8, 12, 16])), 15) for _ in range(12)]
    return [Case(f"[{a:g}, {b:g}] s in segments of {S} s", (float(a), float(b), S, n)) for a, b, S, n in [*plain, *drawn]]


register(
    Exercise(
        name="segments_under",
        lesson="00",
        reference=segments_by_looking,
        cases=_segment_cases,
        covers="18 windows against asking every segment",
        wrong=(
            WrongAnswer(
                "border",
                lambda start, end, S, n: (int(start // S), min(int(end // S), n - 1)),
                "A window that ends exactly on a border does not need the segment that begins there: [16, 32] s lies in segment 1 alone.",
            ),
            WrongAnswer(
                "one past the end",
                lambda start, end, S, n: (int(start // S), math.ceil(end / S)),
                "Your last segment is one too many: both ends count here, as in first..last, not as in a slice.",
            ),
            WrongAnswer(
                "rounded",
                lambda start, end, S, n: (round(start / S), max(round(start / S), round(end / S) - 1)),
                "Rounding drops a segment that is needed for less than its half. Second 20 lies in segment 1 (16 to 32 s), and so does second 30.",
            ),
            WrongAnswer(
                "only whole segments",
                lambda start, end, S, n: (math.ceil(start / S), int(end // S) - 1),
                "You kept only segments that lie wholly inside. A segment that overlaps by one second may hold the evidence.",
            ),
        ),
    )
)

# ---- attended_frames ----


def frames_by_listing(num_segments: int, reloaded: int, S: int, r: int) -> float:
    """What attention reads after a reload, in frames' worth, by listing every slot of every segment (the place of the window does not matter)."""
    slots = [frame for i in range(num_segments) for frame in (range(S) if i < reloaded else range(0, S, r))]
    return float(len(slots))


def _frame_cases() -> list[Case]:
    plain = [(225, 0, 16, 16), (225, 3, 16, 16), (32, 2, 16, 4), (8, 8, 16, 8), (225, 3, 16, 1)]
    rng = np.random.default_rng(9)
    drawn = [(int(n), int(rng.integers(0, n + 1)), 16, int(rng.choice([1, 2, 4, 8, 16]))) for n in rng.integers(4, 300, size=8)]
    return [Case(f"{m} of {n} segments reloaded, S={S}, r={r}", (n, m, S, r)) for n, m, S, r in plain + drawn]


register(
    Exercise(
        name="attended_frames",
        lesson="00",
        reference=frames_by_listing,
        cases=_frame_cases,
        covers="13 memories against listing every slot",
        wrong=(
            WrongAnswer(
                "the window twice",
                lambda n, m, S, r: n * S / r + m * S,
                "The window is in there twice: once reloaded and once still compressed. A reloaded segment replaces its HVR.",
            ),
            WrongAnswer(
                "only the reload",
                lambda n, m, S, r: float(m * S),
                "You counted the reload alone. The fine stage still reads the HVR of all other segments.",
            ),
            WrongAnswer(
                "slots, not frames",
                lambda n, m, S, r: (n - m) / r + m,
                "You counted segments. A segment is S frames, and S / r slots where it stays compressed.",
            ),
            WrongAnswer(
                "r the wrong way round",
                lambda n, m, S, r: float((n - m) * r + m * S),
                "r frames become one slot, so a compressed segment has S / r slots, not r.",
            ),
        ),
    )
)
