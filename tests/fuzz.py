"""Fuzzing by one command, from the root of the project:

    python tests/fuzz.py readings --count 5000 --seed 7   # share misread and unread
    python tests/fuzz.py texts --count 10000 --seed 7     # mutated answers: crashes and hangs
    python tests/fuzz.py videos --count 10000 --seed 7    # mutated small videos: the same

Prints one line of counts; exit status 1 if there was a traceback, a hang or a misreading.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import answer_kinds
import video_matrix

from timescope_lite.common import UserError
from timescope_lite.intervals import parse_intervals, read_answer
from timescope_lite.video import probe, read_frames, stream_segments

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


BASES = [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("ts", "libx264")]
BASES += [("avi", "mpeg4"), ("avi", "libx264"), ("gif", "gif"), ("flv", "flv"), ("3gp", "mpeg4")]
BASES += [("mov", "mjpeg"), ("mpg", "mpeg2video"), ("ts", "mpeg2video")]


def _mutated_video(rng: random.Random, data: bytes) -> bytes:
    """Bytes overwritten, cut out, doubled, or the end cut off; more often near the head."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        reach = len(changed) if rng.random() < 0.6 else min(len(changed), 400)
        at = rng.randrange(max(reach, 1))
        length = rng.choice([1, 1, 2, 4, 16, 188, 1000])
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + length] = rng.randbytes(length)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = changed[at : at + length]
        elif kind == 3:
            changed[at : at + length] = bytes(min(length, len(changed) - at))
        elif rng.random() < 0.3:
            del changed[max(at, 8) :]
    return bytes(changed)


def videos(count: int, seed: int) -> Counts:
    """How many mutated small videos raise anything but one clear line, or take long."""
    rng, counts = random.Random(seed), Counts()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = range(12)
        bases = [
            video_matrix.encode(Path(folder) / f"base{n}.{kind}", codec, small, size=(32, 32))
            for n, (kind, codec) in enumerate(BASES)
        ]
        whole = {base: base.read_bytes() for base in bases}
        for number in range(count):
            base = rng.choice(bases)
            path = Path(folder) / f"{number}{base.suffix}"
            path.write_bytes(_mutated_video(rng, whole[base]))
            counts[_watched(path)] += 1
            path.unlink()
    return counts


def _watched(path: Path) -> str:
    started = time.perf_counter()
    try:
        info = probe(path)
        read_frames(path, info.times_s[-1:])
        for number, _ in enumerate(stream_segments(path, size=16, frames_per_segment=4)):
            if number > 20:
                break
        verdict = "read"
    except UserError as error:
        verdict = "refused" if "\n" not in str(error) else "several lines"
    except Exception as error:
        print(f"{path.name}: {type(error).__name__} {error}")
        verdict = "traceback"
    seconds = time.perf_counter() - started
    if seconds > HANG_S:
        print(f"{path.name}: {seconds:.1f} s")
        return "hang"
    return verdict


KINDS = {"readings": readings, "texts": texts, "videos": videos}


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
    return int(any(counts[bad] for bad in ("traceback", "hang", "misread", "several lines")))


if __name__ == "__main__":
    sys.exit(main())
