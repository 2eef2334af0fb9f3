"""How the cost grows with the length of a video: seconds, attended KV, device-resident KV, process RSS, beside what dense attention would hold."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from timescope_lite.common import UserError, pick_device
from timescope_lite.grounding import TINY, feature_stream, locate, prompt_of
from timescope_lite.model.checkpoint import Checkpoint, load
from timescope_lite.model.memory import process_rss
from timescope_lite.results import Metric, write_result
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import load_domains
from timescope_lite.world.render import render_video
from timescope_lite.world.story import tell

MINUTES = (5, 15, 60)


def scale(out: Path, minutes: Sequence[int] | None = None, checkpoint: Path | None = None, seed: int = 0, r: int = 16) -> Path:
    """Ground one task in videos of growing length and write result.json into `out`; buckets are named by minutes.

    `rss_bytes` is the largest resident memory of this process seen while the video streams; `seconds` covers decoding, encoding and both stages.
    """
    minutes = MINUTES if minutes is None else minutes
    if not minutes or min(minutes) <= 0:
        raise UserError(f"minutes {list(minutes)}: expected positive lengths, such as 5 15 60")
    ready = load(checkpoint or TINY, pick_device())
    metrics: dict[str, Metric] = {}
    with tempfile.TemporaryDirectory() as folder:
        for length in sorted(minutes):
            video = Path(folder) / f"{length}min.mp4"
            story = tell(next(iter(load_domains().values())), 60 * length, seed)
            write_mp4(video, render_video(story.domain, story.states, fps=2.0), 2.0)
            metrics |= _measure(ready, video, f"{length}min", r)
    return write_result(
        out, name="bench-scale", metrics=metrics, config={"minutes": list(minutes), "r": r, "checkpoint": ready.about}, seed=seed
    )


def _measure(ready: Checkpoint, video: Path, bucket: str, r: int) -> dict[str, Metric]:
    started, seen = time.perf_counter(), [process_rss()]
    memory = ready.model.stream(_watched(feature_stream(ready, video), seen), r)
    streamed_s = time.perf_counter() - started
    answer = locate(ready.model, memory, [prompt_of(ready, "Why is there a flood?")])[0]
    S = memory.frames_per_segment
    window = None if answer.window is None else (int(answer.window[0]) // S, (int(answer.window[1]) - 1) // S)
    counted = memory.counters(window) | {"rss_bytes": float(max(seen))}
    found = {f"two_stage/{bucket}/{name}": Metric(value) for name, value in counted.items()}
    found[f"two_stage/{bucket}/seconds"] = Metric(time.perf_counter() - started)
    found[f"two_stage/{bucket}/stream_seconds"] = Metric(streamed_s)
    found[f"dense/{bucket}/attended_kv_bytes"] = Metric(float(memory.num_frames * memory.bytes_per_frame()))
    return found


def _watched(segments: Iterator[tuple[Tensor, int]], seen: list[int]) -> Iterator[tuple[Tensor, int]]:
    for segment in segments:
        seen.append(process_rss())
        yield segment
