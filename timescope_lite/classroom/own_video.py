"""Your own video, your own moments: an `events.json` that a student fills in, and how the model
does on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timescope_lite.common import UserError, from_mapping, read_json, write_json
from timescope_lite.grounding import Grounding
from timescope_lite.intervals import tiou
from timescope_lite.model import TimeScope
from timescope_lite.model.frames import check_length
from timescope_lite.model.tokenizer import Vocabulary
from timescope_lite.video import probe


@dataclass(frozen=True)
class Event:
    """One moment that somebody marked: a task in words, and the seconds of the video that hold its
    evidence.
    """

    task: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Scored:
    """What the model found for an Event; `tiou` is 0 where it said that the evidence is absent."""

    event: Event
    found: Grounding
    tiou: float


def write_events(path: Path, video: Path, events: Sequence[Event]) -> Path:
    """Write an events file to fill in or to score; returns `path`. The video is named without its
    folder if it lies in the same one.

    Raises UserError, and writes nothing, if the video cannot be read.
    """
    video, path = Path(video), Path(path)
    probe(video)
    name = video.name if video.resolve().parent == path.resolve().parent else str(video.resolve())
    return write_json(path, {"video": name, "events": [asdict(event) for event in events]})


def read_events(path: Path, vocabulary: Vocabulary) -> tuple[Path, list[Event]]:
    """The video that an events file names (relative to the file) and its events.

    Raises UserError, with the number of the event, for what is no events file, a video that cannot
    be read or is longer than the model's clock, an interval (seconds) that is not inside it, or a
    word that the model does not know. The video is listed, not decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"events file {path} does not exist; `write_events` makes one to fill in, or mend the "
            "name"
        )
    raw = read_json(path, "events file")
    if (
        not isinstance(raw, dict)
        or not isinstance(raw.get("video"), str)
        or not isinstance(raw.get("events"), list)
        or not raw["events"]
    ):
        raise UserError(
            f'events file {path}: expected {{"video": "NAME.mp4", "events": [...]}} with at least '
            "one event"
        )
    video = path.parent / raw["video"]
    duration_s = check_length(video)
    return video, [
        _event(row, f"{path.name}, event {n}", video, duration_s, vocabulary)
        for n, row in enumerate(raw["events"], start=1)
    ]


def _event(row: Any, where: str, video: Path, duration_s: float, vocabulary: Vocabulary) -> Event:
    if not isinstance(row, dict):
        raise UserError(
            f'{where}: expected {{"task": ..., "start_s": ..., "end_s": ...}}, got {row!r}'
        )
    event = from_mapping(Event, row, where)
    times = event.start_s, event.end_s
    if not isinstance(event.task, str) or any(
        isinstance(t, bool) or not isinstance(t, (int, float)) for t in times
    ):
        raise UserError(
            f"{where}: expected a task in quotes and two numbers of seconds, such as 65 for 1:05, "
            f"got {row!r}"
        )
    if not 0 <= event.start_s < event.end_s <= duration_s:
        span = f"[{event.start_s:g}, {event.end_s:g}] s"
        raise UserError(
            f"{where}: the interval {span} is not inside {video.name} (0 to {duration_s:g} s, "
            "start before end); mend the times"
        )
    try:
        vocabulary.encode(event.task)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return event


def score_events(
    model: TimeScope, path: Path, r: int | None = None, budget: float | None = None
) -> list[Scored]:
    """Ask the model for every event of an events file; `budget` is the attended KV at its peak in
    frames' worth. UserError as `read_events`.
    """
    video, events = read_events(path, model.vocabulary)
    memory = model.encode_video(video, model.memory_config(r), progress=False)
    found = model.ground(memory, [event.task for event in events], budget)
    return [
        Scored(e, f, tiou(f.interval, (e.start_s, e.end_s)) if f.interval else 0.0)
        for e, f in zip(events, found, strict=True)
    ]
