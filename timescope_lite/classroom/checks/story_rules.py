"""The exercises of lesson 02: intervals out of seconds, every answer of a question, questions
spread evenly over the video.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, WrongAnswer, register
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import tell

Span = tuple[int, int]
Function = Callable[..., Any]

# ---- runs ----


def runs_by_walking(flags: Sequence[bool]) -> list[Span]:
    """The intervals [start, end) of seconds with a flag, by looking at one second after the
    other.
    """
    found: list[Span] = []
    for second in np.flatnonzero(np.asarray(flags)).tolist():
        if found and found[-1][1] == second:
            found[-1] = (found[-1][0], second + 1)
        else:
            found.append((second, second + 1))
    return found


def _runs_cases() -> list[Case]:
    rng = np.random.default_rng(1)
    drawn = [("".join(rng.choice(["0", "1"], 30, p=[0.4, 0.6]))) for _ in range(6)]
    by_hand = ["0011100", "1100000", "0000111", "1111", "0000", "", "0101101", "1"]
    return [
        Case(
            f"seconds {text or 'of an empty video'}",
            (np.array([c == "1" for c in text], dtype=bool),),
        )
        for text in by_hand + drawn
    ]


def _closed(flags: Sequence[bool]) -> list[Span]:
    return [(a, b - 1) for a, b in runs_by_walking(flags)]


def _unpadded(flags: Sequence[bool]) -> list[Span]:
    """Steps up paired with steps down, without a second before the first and after the last."""
    steps = np.diff(np.asarray(flags, dtype=int))
    return list(
        zip(
            (np.flatnonzero(steps == 1) + 1).tolist(),
            (np.flatnonzero(steps == -1) + 1).tolist(),
            strict=False,
        )
    )


def _early(flags: Sequence[bool]) -> list[Span]:
    return [(max(a - 1, 0), b - 1) if a else (a, b - 1) for a, b in runs_by_walking(flags)]


register(
    Exercise(
        "runs",
        "02",
        runs_by_walking,
        _runs_cases,
        "8 rows of seconds worked by hand, 6 drawn",
        (
            WrongAnswer(
                "closed",
                _closed,
                "Each end is one second early: [2, 5) holds the seconds 2, 3 and 4, so its end is "
                "the first second without a flag.",
            ),
            WrongAnswer(
                "open at the end",
                lambda flags: [(a, b) for a, b in runs_by_walking(flags) if b < len(flags)],
                "A run that lasts until the video ends is missing: no second without a flag comes "
                "to close it. Put one there.",
            ),
            WrongAnswer(
                "late at the start",
                lambda flags: [(a, b) for a, b in runs_by_walking(flags) if a > 0],
                "A run that begins in second 0 is missing: nothing changes there. What stands "
                "before the first second?",
            ),
            WrongAnswer(
                "one early",
                _early,
                "Both ends are one second early: a difference at position i is the step from "
                "second i to second i + 1.",
            ),
            WrongAnswer(
                "no padding",
                _unpadded,
                "Right inside the video; at its borders a run has only one of its two steps, and "
                "from there on starts pair up with ends of others. "
                "What stands before the first second, and after the last?",
            ),
            WrongAnswer(
                "one run",
                lambda flags: (
                    [(int(np.flatnonzero(flags)[0]), int(np.flatnonzero(flags)[-1]) + 1)]
                    if any(flags)
                    else []
                ),
                "From the first flag to the last, as if nothing lay between. A second without a "
                "flag ends a run, and the next flag begins another.",
            ),
            WrongAnswer(
                "length",
                lambda flags: [(a, b - a) for a, b in runs_by_walking(flags)],
                "That is (start, length). An interval is written as start and end, both on the "
                "clock of the video.",
            ),
        ),
    )
)

# ---- answers ----


def answers_by_walking(states: np.ndarray, place: int, word: int, hops: int) -> list[Span]:
    """Every [start, end) with activity `word` (0..63) at the place that lies `hops` signs on from
    `place`; states (T, 7).
    """
    rows = states.tolist()
    for _ in range(hops):
        signs = [row[1] for row in rows if row[0] == place]
        if not signs:
            return []
        place = signs[0]
    return runs_by_walking(
        [row[0] == place and row[3 + word // 16] == word % 16 + 1 for row in rows]
    )


def _answers_cases() -> list[Case]:
    rng, cases = np.random.default_rng(2), []
    for i, domain in enumerate(load_domains().values()):
        story = tell(domain, 240, (5, i))
        for hops in (0, 1, 2, 0, 1, 2):
            event = int(rng.integers(len(story.event_word)))
            chapter = int(story.event_chapter[event])
            for _ in range(hops):
                chapter = int(np.flatnonzero(story.sign_to == chapter)[0])
            args = (story.states, int(story.place[chapter]), int(story.event_word[event]), hops)
            cases.append(
                Case(f"{domain.name}, {hops} signs on from the {domain.place(args[1])}", args)
            )
        absent = int(np.setdiff1d(np.arange(144), story.place)[0])
        cases.append(
            Case(f"{domain.name}, a place that is not in the video", (story.states, absent, 3, 1))
        )
    twice = np.zeros((20, 7), dtype=np.int16)
    twice[:, :2], twice[10:, :2], twice[[2, 3, 7, 8, 12], 3] = (1, 2), (2, 1), 5
    return [
        Case("the sailor does it twice there", (twice, 1, 4, 0)),
        Case("one sign on, it is done once", (twice, 1, 4, 1)),
        *cases,
    ]


def _signs_followed_blindly(states: np.ndarray, place: int, word: int, hops: int) -> list[Span]:
    for _ in range(hops):
        place = states[states[:, 0] == place][0, 1]
    return answers_by_walking(states, place, word, 0)


def _hull(states: np.ndarray, place: int, word: int, hops: int) -> list[Span]:
    found = answers_by_walking(states, place, word, hops)
    return [(found[0][0], found[-1][1])] if found else []


def _one_too_low(states: np.ndarray, place: int, word: int, hops: int) -> list[Span]:
    """Looks for word modulo 16 in the column, where 0 is idle."""
    shifted = states.copy()
    shifted[:, 3:] += 1
    return answers_by_walking(shifted, place, word, hops)


register(
    Exercise(
        "answers",
        "02",
        answers_by_walking,
        _answers_cases,
        "58 questions on 9 videos of eight domains, 0 to 2 signs on, answers that come twice or "
        "never",
        (
            WrongAnswer(
                "anywhere",
                lambda states, place, word, hops: runs_by_walking(
                    states[:, 3 + word // 16] == word % 16 + 1
                ),
                "You found the activity everywhere. The question names a place, and the same thing "
                "is done at other places too.",
            ),
            WrongAnswer(
                "no hops",
                lambda states, place, word, hops: answers_by_walking(states, place, word, 0),
                "You looked at the place that the question names. With hops = 1 the answer is "
                "where the sign of that place leads.",
            ),
            WrongAnswer(
                "one hop",
                lambda states, place, word, hops: answers_by_walking(
                    states, place, word, min(hops, 1)
                ),
                "With hops = 2 you stopped after the first sign. Read the sign, go there, and read "
                "again.",
            ),
            WrongAnswer(
                "only the first",
                lambda states, place, word, hops: answers_by_walking(states, place, word, hops)[:1],
                "Only the first interval came back. A solver that stops there can never find out "
                "that a question has two answers.",
            ),
            WrongAnswer(
                "hull",
                _hull,
                "Two answers became one interval from the first start to the last end. In between "
                "nobody does it; keep them apart.",
            ),
            WrongAnswer(
                "no such place",
                _signs_followed_blindly,
                "You read a sign at a place that is not in the video. Then there is no row to "
                "read, and no answer: an empty list, not an error.",
            ),
            WrongAnswer(
                "wrong column",
                lambda states, place, word, hops: answers_by_walking(
                    np.hstack([states[:, :3], states[:, :4]]), place, word, hops
                ),
                "You compare an activity with a place, a sign or an effect: columns 0 to 2 of a "
                "row. The four people begin at column 3.",
            ),
            WrongAnswer(
                "idle is 0",
                _one_too_low,
                "One activity too low: in a row 0 means idle, so the activity with word 4 is "
                "written as 5 (word modulo 16, plus 1).",
            ),
        ),
    )
)

# ---- pick_least_filled ----


def pick_by_walking(candidates: Sequence[float], filled: Sequence[int]) -> int:
    """Index of the candidate (a centre as fraction 0..1 of its video) whose bin holds the fewest
    questions; the first of equals.
    """
    best, fewest = 0, float("inf")
    for i, centre in enumerate(candidates):
        here = filled[_bin_of(centre, len(filled))]
        if here < fewest:
            best, fewest = i, here
    return best


def _bin_of(centre: float, n: int) -> int:
    return min(int(centre * n), n - 1)


def _counts(candidates: Sequence[float], filled: Sequence[int]) -> list[int]:
    return [filled[_bin_of(centre, len(filled))] for centre in candidates]


def _pick_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    drawn = [
        (rng.uniform(0, 1, 6).round(3).tolist(), rng.integers(0, 9, 10).tolist()) for _ in range(10)
    ]
    return [
        Case(
            "the second is in the emptier bin", ([0.12, 0.55, 0.91], [4, 4, 4, 4, 4, 1, 4, 4, 4, 3])
        ),
        Case("two bins are equally empty", ([0.85, 0.05, 0.15], [2, 2, 5, 5, 5, 5, 5, 5, 5, 5])),
        Case("four bins", ([0.3, 0.49, 0.76], [0, 7, 5, 2])),
        *[Case(f"drawn {i}", pair) for i, pair in enumerate(drawn)],
        Case(
            "a target that ends the video, centre 1.0",
            ([0.31, 1.0], [9, 9, 9, 3, 9, 9, 9, 9, 9, 1]),
        ),
    ]


def _counted_in(candidates: Sequence[float], filled: list[int]) -> int:
    best = pick_by_walking(candidates, filled)
    filled[_bin_of(candidates[best], len(filled))] += 1
    return best


register(
    Exercise(
        "pick_least_filled",
        "02",
        pick_by_walking,
        _pick_cases,
        "14 draws, 4 and 10 bins, ties, a centre of exactly 1.0",
        (
            WrongAnswer(
                "the first",
                lambda candidates, filled: 0,
                "You took the first candidate, whatever is filled. Look up the bin of each.",
            ),
            WrongAnswer(
                "the bin",
                lambda candidates, filled: int(np.argmin(filled)),
                "That is the emptiest bin of all. Asked is a candidate, and perhaps none of them "
                "lies there.",
            ),
            WrongAnswer(
                "the bin of the best",
                lambda candidates, filled: _bin_of(
                    candidates[pick_by_walking(candidates, filled)], len(filled)
                ),
                "You found the right candidate and returned its bin. Return its index in the list.",
            ),
            WrongAnswer(
                "the centre",
                lambda candidates, filled: candidates[pick_by_walking(candidates, filled)],
                "That is the right candidate itself. Asked is where it stands in the list: its "
                "index.",
            ),
            WrongAnswer(
                "rounded",
                lambda candidates, filled: int(
                    np.argmin(
                        [filled[min(round(c * len(filled)), len(filled) - 1)] for c in candidates]
                    )
                ),
                "You rounded to the nearest bin. Bin b holds [b / n, (b + 1) / n): a centre of "
                "0.49 lies in the second of four bins, not in the third.",
            ),
            WrongAnswer(
                "counts it in", _counted_in, must_say="changed its input `filled` in place"
            ),
            WrongAnswer(
                "fullest",
                lambda candidates, filled: int(np.argmax(_counts(candidates, filled))),
                "You chose the fullest bin: the questions would pile up where the first ones fell.",
            ),
            WrongAnswer(
                "last of equals",
                lambda candidates, filled: (
                    len(candidates) - 1 - int(np.argmin(_counts(candidates, filled)[::-1]))
                ),
                "Of two that are equally good the later one came back. Take the first, so that a "
                "seed means the same to everybody.",
            ),
            WrongAnswer(
                "no clip",
                lambda candidates, filled: int(
                    np.argmin([filled[int(c * len(filled))] for c in candidates])
                ),
                "A centre of exactly 1.0 falls out of the last bin. Which bin should hold it?",
            ),
        ),
    )
)
