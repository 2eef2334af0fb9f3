"""Fuzzing by one command, from the root of the project:

    python tests/fuzz.py readings --count 5000 --seed 7   # share misread and unread
    python tests/fuzz.py texts --count 10000 --seed 7     # mutated answers: crashes and hangs

Prints one line of counts; exit status 1 if there was a traceback, a hang or a misreading.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time

import answer_kinds

from timescope_lite.intervals import parse_intervals, read_answer

HANG_S = 5.0
Counts = collections.Counter[str]


def _alike(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    return len(found) == len(expected) and all(
        abs(a - c) < 2e-3 and abs(b - d) < 2e-3
        for (a, b), (c, d) in zip(found, expected, strict=True)
    )


def readings(count: int, seed: int, show: int = 0) -> Counts:
    """How many answers of known meaning are read right, misread and unread."""
    rng, counts = random.Random(seed), Counts()
    for _ in range(count):
        made = answer_kinds.make(rng)
        intervals = parse_intervals(made.text, **made.options)
        found = [(i.start_s, i.end_s) for i in intervals]
        verdict = "right" if _alike(found, made.expected) else "misread" if found else "unread"
        counts[verdict] += 1
        if verdict != "right" and show:
            show -= 1
            print(verdict, repr(made.text), found, made.expected)
    return counts


def texts(count: int, seed: int) -> Counts:
    """How many mutated answers raise something or take long."""
    rng, counts = random.Random(seed), Counts()
    for _ in range(count):
        text = answer_kinds.mutated(rng)
        started = time.perf_counter()
        try:
            read_answer(text, duration_s=100.0, fps=25.0)
        except Exception as error:
            counts["traceback"] += 1
            print(type(error).__name__, error, repr(text[:200]))
        counts["hang"] += time.perf_counter() - started > HANG_S
        counts["read"] += 1
    return counts


KINDS = {"readings": readings, "texts": texts}


def main() -> int:
    """One kind of fuzzing; the counts on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=0)
    given = parser.parse_args()
    options = {"show": given.show} if given.kind == "readings" else {}
    counts = KINDS[given.kind](given.count, given.seed, **options)
    print(f"{given.kind}, seed {given.seed}, {given.count}: {dict(counts)}")
    return int(bool(counts["traceback"] or counts["hang"] or counts["misread"]))


if __name__ == "__main__":
    sys.exit(main())
