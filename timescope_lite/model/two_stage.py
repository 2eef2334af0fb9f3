"""Coarse to fine: a window from the HVR, its segments reloaded, the interval from their DVR.

(TimeScope section 3. How a window is widened, narrowed or doubted is ours: docs/architecture.md.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from timescope_lite.intervals import Interval
from timescope_lite.memory import Memory
from timescope_lite.memory.budget import fit_window
from timescope_lite.model.reading import Coarse

if TYPE_CHECKING:
    from timescope_lite.model.timescope import TimeScope


@dataclass(frozen=True)
class Answer:
    """What a system answers, in frames (= seconds at 1 frame per second). `window` is what was
    reloaded, None if nothing was.

    `attended_frames`: attended KV at its peak in frames' worth, the reload counted. `note` says
    when the window was narrowed or widened.
    """

    start_s: float
    end_s: float
    window: tuple[float, float] | None = None
    confidence: float = 0.0
    chain: tuple[int, ...] = ()
    attended_frames: float = 0.0
    reload_frames: int = 0
    absent: bool = False
    note: str = ""


@dataclass(frozen=True)
class Grounding:
    """An answer ready to use: intervals in seconds, the phrases of the reasoning in order, and the
    three memory counters in bytes. `interval` is None where the evidence is said to be absent.
    """

    interval: Interval | None
    window: Interval | None
    confidence: float
    reasoning: tuple[str, ...]
    duration_s: float
    reload_share: float
    attended_frames: float
    counters: dict[str, float]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def plan_window(
    coarse: Coarse,
    memory: Memory,
    budget: float | None = None,
    margin: int = 0,
    threshold: float = 0.0,
    keep_hvr: bool = True,
) -> tuple[tuple[int, int], str]:
    """Segments to reload for a coarse answer, and a note on what was changed.

    Widened by `margin` segments a side, and by one more where the confidence is under `threshold`;
    never beyond `budget` frames' worth of attended KV: a window too wide for it is narrowed around
    its middle. BudgetError if the budget has no room for a single segment.
    """
    first, last = coarse.window
    note = ""
    if coarse.confidence < threshold:
        margin += 1
        note = "widened: low confidence"
    room = memory.room(budget, keep_hvr)
    if last - first + 1 > room:
        budget = memory.config.budget_frames if budget is None else budget
        note = f"narrowed to the budget of {budget:g} frames"
    # Even a sure window may not fit: the middle of it is then the best bet.
    return fit_window(coarse.window, memory.num_segments, room, margin), note


def locate(
    model: TimeScope,
    memory: Memory,
    prompts: Sequence[Sequence[int]],
    budget: float | None = None,
    threshold: float = 0.0,
    keep_hvr: bool = True,
) -> list[Answer]:
    """Both stages for several questions about one memory: coarse over the HVR, reload, fine over
    HVR and reloaded DVR (or, not `keep_hvr`, over the DVR alone).
    """
    answers = []
    for prompt, coarse in zip(prompts, model.coarse(memory, prompts), strict=True):
        window, note = plan_window(coarse, memory, budget, 0, threshold, keep_hvr)
        answer = refine(model, memory, prompt, coarse, window, keep_hvr)
        answers.append(replace(answer, note=note))
    return answers


def refine(
    model: TimeScope,
    memory: Memory,
    prompt: Sequence[int],
    coarse: Coarse,
    window: tuple[int, int],
    keep_hvr: bool = True,
) -> Answer:
    """The fine stage on a given window of segments (first, last)."""
    layers = memory.mixed(*window, keep_hvr=keep_hvr)
    start, end = model.fine(layers, memory, prompt, coarse.chain)
    S = memory.frames_per_segment
    # The last segment may be padded: what was reloaded ends where the video does.
    span = float(window[0] * S), float(min((window[1] + 1) * S, memory.num_valid))
    return Answer(
        start_s=start,
        end_s=end,
        window=span,
        confidence=coarse.confidence,
        chain=tuple(coarse.chain),
        attended_frames=memory.attended_frames(window, keep_hvr),
        reload_frames=(window[1] - window[0] + 1) * S,
        absent=coarse.absent,
    )


def describe(model: TimeScope, memory: Memory, answer: Answer) -> Grounding:
    """An Answer in frames as seconds, phrases and counters; no time lies beyond the real end."""
    S, fps = memory.frames_per_segment, memory.config.fps
    window = segments = None
    if answer.window is not None:
        window = Interval(answer.window[0] / fps, min(answer.window[1] / fps, memory.duration_s))
        segments = int(answer.window[0]) // S, math.ceil(answer.window[1] / S) - 1
    # A frame stands for a second of which the end of a file may have a part: no answer goes beyond.
    interval = Interval(answer.start_s / fps, min(answer.end_s / fps, memory.duration_s))
    return Grounding(
        interval=None if answer.absent else interval,
        window=window,
        confidence=answer.confidence,
        reasoning=model.vocabulary.said(answer.chain),
        duration_s=memory.duration_s,
        reload_share=answer.reload_frames / memory.num_frames,
        attended_frames=answer.attended_frames,
        counters=memory.counters(segments),
        note="the evidence is not in this video" if answer.absent else answer.note,
    )
