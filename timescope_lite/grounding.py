"""From a video file and a task in words to an interval: stream, coarse, reload, fine.

`ground` is what most users need. Teachers and experiments use its parts: `open_video` -> Memory,
`locate` -> Answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from timescope_lite.common import UserError, pick_device, write_json
from timescope_lite.intervals import Interval
from timescope_lite.model.checkpoint import Checkpoint, from_manifest, load, write_tensors
from timescope_lite.model.memory import Memory
from timescope_lite.model.timescope import Coarse, TimeScope
from timescope_lite.text import DIRECT, NUM_SECONDS, THINK
from timescope_lite.video import probe, stream_segments
from timescope_lite.world.tasks import ORDINALS

TINY = Path(__file__).parent / "assets" / "tiny.safetensors"


@dataclass(frozen=True)
class Answer:
    """What a system answers, in frames (= seconds at 1 frame per second). `window` is what was
    reloaded, None if nothing was.

    `attended_frames`: attended KV at its peak in frames' worth, the reload counted. `note` says
    when the window was narrowed or widened.
    """

    start_s: float
    end_s: float
    window: tuple[float, float] | None
    confidence: float
    chain: tuple[int, ...]
    attended_frames: float
    reload_frames: int
    absent: bool = False
    note: str = ""


@dataclass(frozen=True)
class Grounding:
    """The answer of `ground`, ready to print: seconds, reasoning in words, and the three memory
    counters in bytes.
    """

    interval: Interval | None
    window: Interval | None
    confidence: float
    reasoning: str
    duration_s: float
    reload_share: float
    attended_frames: float
    counters: dict[str, float]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan_window(
    coarse: Coarse,
    memory: Memory,
    budget: float | None = None,
    margin: int = 0,
    threshold: float = 0.0,
) -> tuple[tuple[int, int], str]:
    """Segments to reload for a coarse answer, and a note on what was changed.

    Widened by `margin` segments a side, and by one more where the confidence is under `threshold`;
    never beyond `budget` frames' worth of attended KV: a window too wide for it is narrowed around
    its middle. UserError if the budget has no room for a single segment.
    """
    first, last = coarse.window
    note = ""
    if coarse.confidence < threshold:
        margin, note = margin + 1, "widened: low confidence"
    wanted = max(first - margin, 0), min(last + margin, memory.num_segments - 1)
    room = room_for(memory, budget)
    if wanted[1] - wanted[0] + 1 <= room:
        return wanted, note
    note = f"narrowed to the budget of {budget:g} frames" if last - first + 1 > room else note
    middle = (first + last) // 2
    start = min(max(middle - (room - 1) // 2, 0), memory.num_segments - room)
    return (start, start + room - 1), note


def room_for(memory: Memory, budget: float | None) -> int:
    """How many segments may be reloaded within `budget` frames' worth of attended KV (None: all).
    UserError if not even one.
    """
    if budget is None:
        return memory.num_segments
    S = memory.frames_per_segment
    per_segment = S - S / memory.r
    spare = budget - memory.attended_frames()
    room = (
        int(spare // per_segment) if per_segment else memory.num_segments * (spare >= 0)
    )  # at r = 1 a reload adds nothing
    if room < 1:
        needed = memory.attended_frames((0, 0))
        raise UserError(
            f"a budget of {budget:g} frames has no room to reload one segment of this video: "
            f"{needed:g} are needed at r={memory.r}; raise budget or r"
        )
    return min(room, memory.num_segments)


def locate(  # noqa: PLR0913
    model: TimeScope,
    memory: Memory,
    prompts: list[list[int]],
    budget: float | None = None,
    margin: int = 0,
    threshold: float = 0.0,
    keep_hvr: bool = True,
) -> list[Answer]:
    """Both stages for several questions about one memory: coarse over the HVR, reload, fine over
    HVR and the reloaded DVR.
    """
    return [
        refine(
            model,
            memory,
            prompt,
            coarse,
            *plan_window(coarse, memory, budget, margin, threshold),
            keep_hvr=keep_hvr,
        )
        for prompt, coarse in zip(prompts, model.coarse(memory, prompts), strict=True)
    ]


def refine(  # noqa: PLR0913
    model: TimeScope,
    memory: Memory,
    prompt: list[int],
    coarse: Coarse,
    window: tuple[int, int],
    note: str = "",
    keep_hvr: bool = True,
) -> Answer:
    """The fine stage on a given window of segments."""
    start, end = model.fine(memory.mixed(*window, keep_hvr=keep_hvr), memory, prompt, coarse.chain)
    S = memory.frames_per_segment
    frames = (window[1] - window[0] + 1) * S
    span = float(window[0] * S), float(min((window[1] + 1) * S, memory.num_valid))
    attended = memory.attended_frames(window, keep_hvr)
    return Answer(
        start,
        end,
        span,
        coarse.confidence,
        tuple(coarse.chain),
        attended,
        frames,
        coarse.absent,
        note,
    )


def prompt_of(checkpoint: Checkpoint, task: str, think: bool = True) -> list[int]:
    """Token ids of a task in words, ready for the coarse stage. UserError for an empty task or
    words the model does not know.
    """
    return [*checkpoint.model.vocabulary.encode(task), THINK if think else DIRECT]


def check_length(video: Path, fps: float = 1.0) -> float:
    """The length of a video in seconds, from its list of frames. UserError, before anything is
    decoded, if the model's clock has no codes for it.
    """
    duration_s = probe(video).duration_s
    if duration_s * fps > NUM_SECONDS:
        raise UserError(
            f"{video} lasts {duration_s:.0f} s; the model's clock has codes for "
            f"{NUM_SECONDS / fps:.0f} s: cut it into parts, each asked by itself"
        )
    return duration_s


def feature_stream(
    checkpoint: Checkpoint, video: Path, fps: float = 1.0
) -> Iterator[tuple[Tensor, int]]:
    """Segments of a video file as frame features (S, K, Cf) with the number of real frames; reads
    the file once, in bounded memory.
    """
    if checkpoint.encoder is None:
        raise UserError(
            "this checkpoint reads symbolic frames and has no frame encoder; use one that was "
            "trained on pixels"
        )
    check_length(video, fps)
    size = checkpoint.encoder.config.image_size
    for segment in stream_segments(
        video, fps=fps, frames_per_segment=checkpoint.model.config.frames_per_segment, size=size
    ):
        yield checkpoint.encoder.encode_pixels(torch.from_numpy(segment.pixels)), segment.num_valid


def open_video(checkpoint: Checkpoint, video: Path, r: int = 16, tier: str = "host") -> Memory:
    """Stream a video file at 1 frame per second into its two memories."""
    return checkpoint.model.stream(feature_stream(checkpoint, video), r, tier=tier)


@cache
def shipped_checkpoint() -> Checkpoint:
    """The tiny model that comes with the package, on the best device there is."""
    return from_manifest(TINY.parent, "two_stage", pick_device())


def ground(
    video: str | Path,
    task: str,
    *,
    checkpoint: Path | None = None,
    r: int = 16,
    budget: float | None = None,
    think: bool = True,
) -> Grounding:
    """The interval of `video` that holds the evidence for `task` (TimeScope: coarse over HVR,
    reload, fine over DVR).

    `budget` bounds the attended KV at its peak, in frames' worth. Raises UserError for a file that
    is no video, an empty task or unknown words, before anything is decoded if it can.
    """
    ready = shipped_checkpoint() if checkpoint is None else load(checkpoint, pick_device())
    prompt = prompt_of(ready, task, think)
    memory = open_video(ready, Path(video), r)
    return describe(ready, memory, locate(ready.model, memory, [prompt], budget)[0])


def describe(checkpoint: Checkpoint, memory: Memory, answer: Answer) -> Grounding:
    """An Answer as intervals, words and counters."""
    S = memory.frames_per_segment
    window = (
        None
        if answer.window is None
        else (int(answer.window[0]) // S, (int(answer.window[1]) - 1) // S)
    )
    return Grounding(
        interval=None if answer.absent else Interval(answer.start_s, answer.end_s),
        window=None if answer.window is None else Interval(*answer.window),
        confidence=answer.confidence,
        reasoning=in_plain_words(checkpoint, answer.chain),
        duration_s=float(memory.num_valid),
        reload_share=answer.reload_frames / memory.num_frames,
        attended_frames=answer.attended_frames,
        counters=memory.counters(window),
        note="the evidence is not in this video" if answer.absent else answer.note,
    )


def in_plain_words(checkpoint: Checkpoint, chain: tuple[int, ...]) -> str:
    """Reasoning tokens as sentences: the places on the way, then what to look for there (of two
    activities, the first before the second).
    """
    phrases = [
        text
        for text in (checkpoint.model.vocabulary.decode([token]) for token in chain)
        if not text.startswith("<")
    ]
    if not phrases:
        return "(no reasoning)"
    places = [phrase for phrase in phrases if len(phrase.split()) == 2]
    way = ", and from there the sign leads to ".join(f"the {phrase}" for phrase in places)
    time = next((f"the {phrase} time " for phrase in phrases if phrase in ORDINALS), "")
    what = [phrase for phrase in phrases if phrase not in places and phrase not in ORDINALS]
    look_for = (
        f"the last time {' before '.join(what)}"
        if len(what) > 1
        else time + what[0]
        if what
        else ""
    )
    return " ".join(
        filter(None, [f"Go to {way}." if way else "", f"Look for: {look_for}." if look_for else ""])
    )


def encode(
    video: str | Path, out: str | Path, *, checkpoint: Path | None = None, r: int = 16
) -> Path:
    """Stream a video and write its HVR and DVR to a folder (safetensors) with a manifest of sizes;
    returns the manifest's path.
    """
    ready = shipped_checkpoint() if checkpoint is None else load(checkpoint, pick_device())
    memory = open_video(ready, Path(video), r)
    kinds = {"hvr": memory.hvr, "dvr": memory.dvr.reload(0, memory.num_segments - 1)}
    for name, layers in kinds.items():
        tensors = {
            f"layer{i}.{part}": tensor
            for i, layer in enumerate(layers)
            for part, tensor in layer._asdict().items()
        }
        write_tensors(Path(out) / f"{name}.safetensors", tensors)
    sizes = {
        "video": Path(video).name,
        "frames": memory.num_valid,
        "segments": memory.num_segments,
        "r": r,
    } | memory.counters()
    return write_json(Path(out) / "manifest.json", sizes)
