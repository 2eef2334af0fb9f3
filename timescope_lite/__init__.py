"""TimeScope-lite: task-oriented temporal grounding in long videos, small enough to read (after
arXiv 2509.26360).

    import timescope_lite
    timescope_lite.ground("video.mp4", "When does the cook drop the pan at the red hall?")

    from timescope_lite.memory import Memory        # many questions, one encode
    from timescope_lite.model import TimeScope
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from timescope_lite.version import __version__

if TYPE_CHECKING:
    from timescope_lite.model import Grounding

__all__ = ["__version__", "ground"]


def ground(
    video: str | Path,
    task: str,
    *,
    checkpoint: str | Path | None = None,
    r: int | None = None,
    budget: float | None = None,
    memory: str | Path | None = None,
) -> Grounding:
    """The interval of `video` that holds the evidence for `task`: all of it in one call
    (`grounding.ground`).
    """
    # torch takes seconds to import; whoever only asks for help or a version need not wait for it.
    from timescope_lite import grounding

    return grounding.ground(video, task, checkpoint=checkpoint, r=r, budget=budget, memory=memory)
