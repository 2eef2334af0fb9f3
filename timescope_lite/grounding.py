"""From a video file and a task in words to an interval, in one call."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from timescope_lite.memory import Memory
from timescope_lite.model import Grounding, TimeScope


@cache
def shipped_model() -> TimeScope:
    """The tiny model that comes with the package, on the best device there is, read once."""
    return TimeScope.from_pretrained("tiny")


def model_of(checkpoint: str | Path | None) -> TimeScope:
    """The model of a checkpoint (`TimeScope.from_pretrained`), the shipped one for None."""
    return shipped_model() if checkpoint is None else TimeScope.from_pretrained(checkpoint)


def ground(
    video: str | Path,
    task: str,
    *,
    checkpoint: str | Path | None = None,
    r: int | None = None,
    budget: float | None = None,
    memory: str | Path | None = None,
) -> Grounding:
    """The interval of `video` that holds the evidence for `task` (TimeScope: coarse over HVR,
    reload, fine over DVR).

    `budget` bounds the attended KV at its peak, in frames' worth. `memory`: a folder of
    `Memory.save` to answer from instead of reading the video again. Raises UserError for a file
    that is no video, a memory of something else, an empty task or unknown words, before anything
    is decoded if it can.
    """
    model = model_of(checkpoint)
    model.prompt(task)  # a task that cannot be read is refused before a long video is
    if memory is not None:
        kept = Memory.load(memory, model, r=r, video=video)
    else:
        kept = model.encode_video(video, model.memory_config(r), progress=False)
    return model.ground(kept, [task], budget)[0]


def encode(
    video: str | Path,
    out: str | Path,
    *,
    checkpoint: str | Path | None = None,
    r: int | None = None,
) -> Path:
    """Stream a video and keep its memory in a folder (`Memory.save`); returns the manifest's path.

    `ground(..., memory=out)` answers from it.
    """
    model = model_of(checkpoint)
    memory = model.encode_video(video, model.memory_config(r))
    return memory.save(out)
