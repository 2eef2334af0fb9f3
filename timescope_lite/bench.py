"""What it costs. `scale`: seconds, attended KV, device-resident KV and process RSS as a video
grows, beside what dense attention would hold. `segments`: what a shorter or longer segment costs
while a video is read. `reuse`: what a second question costs when the memory was kept. `joint`: what
training the frame encoder together with the decoder would bring, and what a step then costs.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timescope_lite.common import UserError, process_rss
from timescope_lite.corpus import (
    Batch,
    CachedSource,
    Mix,
    Pile,
    PixelSource,
    draw_question,
    tell_one,
)
from timescope_lite.datasets.prompts import Writer
from timescope_lite.grounding import model_of
from timescope_lite.memory.budget import DEFAULT_R
from timescope_lite.metrics import bootstrap
from timescope_lite.model.frame_encoder import FrameEncoder
from timescope_lite.model.frames import feature_stream
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.two_stage import locate
from timescope_lite.results import Estimate, write_result
from timescope_lite.train import FEATURE_GAIN, Phase, Trainer, free_running, recipe
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import Domain, load_domains
from timescope_lite.world.render import render_video
from timescope_lite.world.story import Story, StoryConfig, tell
from timescope_lite.world.tasks import in_words

MINUTES = (5, 15, 60)
SEGMENTS = (4, 16, 64, 256)


def scale(
    out: Path,
    minutes: Sequence[int] | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
    r: int = DEFAULT_R,
) -> Path:
    """Ground one task in videos of growing length and write result.json into `out`; buckets are
    named by minutes.

    `rss_bytes` is the largest resident memory of this process seen while the video streams;
    `seconds` covers decoding, encoding and both stages.
    """
    minutes = MINUTES if minutes is None else minutes
    if not minutes or min(minutes) <= 0:
        raise UserError(f"minutes {list(minutes)}: expected positive lengths, such as 5 15 60")
    ready = model_of(checkpoint)
    metrics: dict[str, Estimate] = {}
    with tempfile.TemporaryDirectory() as folder:
        for length in sorted(minutes):
            video = Path(folder) / f"{length}min.mp4"
            story = tell(next(iter(load_domains().values())), 60 * length, seed)
            write_mp4(video, render_video(story.domain, story.states, fps=2.0), 2.0)
            metrics |= _measure(ready, video, f"{length}min", r)
    return write_result(
        out,
        name="bench-scale",
        metrics=metrics,
        config={"minutes": list(minutes), "r": r, "checkpoint": ready.about},
        seed=seed,
    )


def _measure(ready: TimeScope, video: Path, bucket: str, r: int) -> dict[str, Estimate]:
    started, seen = time.perf_counter(), [process_rss()]
    memory = ready.stream(_watched(feature_stream(ready, video), seen), r)
    streamed_s = time.perf_counter() - started
    answer = locate(ready, memory, [ready.prompt("Why is there a flood?")])[0]
    S = memory.frames_per_segment
    window = (
        None
        if answer.window is None
        else (int(answer.window[0]) // S, (int(answer.window[1]) - 1) // S)
    )
    counted = memory.counters(window) | {"rss_bytes": float(max(seen))}
    found = {f"two_stage/{bucket}/{name}": Estimate(value) for name, value in counted.items()}
    found[f"two_stage/{bucket}/seconds"] = Estimate(time.perf_counter() - started)
    found[f"two_stage/{bucket}/stream_seconds"] = Estimate(streamed_s)
    found[f"dense/{bucket}/attended_kv_bytes"] = Estimate(
        float(memory.num_frames * memory.bytes_per_frame())
    )
    return found


def _watched(
    segments: Iterator[tuple[Tensor, int]], seen: list[int]
) -> Iterator[tuple[Tensor, int]]:
    for segment in segments:
        seen.append(process_rss())
        yield segment


@torch.no_grad()
def segments(out: Path, repeats: int = 25, frames: int = 1024, r: int = 4, seed: int = 0) -> Path:
    """Read the same frames in segments of each of SEGMENTS frames, in turn, `repeats` times, and
    write result.json into `out`; r is the same for all.

    `seconds` is the reading alone, `relative_seconds` its ratio to segments of 16 in the same turn;
    `segment_bytes` is the dense KV of one segment, held while it is read and the least that a
    reload brings back; `working_bytes` that beside the whole HVR.
    """
    if repeats < 2 or frames % max(SEGMENTS):
        raise UserError(
            f"repeats={repeats}, frames={frames}: expected two or more, and a multiple of "
            f"{max(SEGMENTS)}"
        )
    model = TimeScope.from_pretrained("tiny", torch.device("cpu"))
    features = torch.randn(
        frames,
        model.config.tokens_per_frame,
        model.config.feature_width,
        generator=torch.manual_seed(seed),
    )
    times: dict[int, list[float]] = {S: [] for S in SEGMENTS}
    for _ in range(repeats):
        for S in SEGMENTS:
            model.config = dataclasses.replace(model.config, frames_per_segment=S)
            started = time.perf_counter()
            memory = model.stream([(part, S) for part in features.split(S)], r)
            times[S].append(time.perf_counter() - started)
    frame, metrics = memory.bytes_per_frame(), {}
    for S in SEGMENTS:
        measured = {
            "seconds": times[S],
            "relative_seconds": np.divide(times[S], times[16]).tolist(),
        }
        measured |= {
            "segment_bytes": [float(S * frame)] * repeats,
            "working_bytes": [(frames / r + S) * frame] * repeats,
        }
        for name, values in measured.items():
            e = bootstrap(values, [str(turn) for turn in range(repeats)])
            metrics[f"S={S}/all/{name}"] = e
    return write_result(
        out,
        name="bench-segments",
        metrics=metrics,
        config={"frames": frames, "r": r, "repeats": repeats},
        seed=seed,
    )


class _Pictures(PixelSource):
    """Stories with their pictures, uint8 (F, 64, 64, 3), where other sources give features: for an
    encoder that is still learning.
    """

    def draw(
        self,
        domains: Sequence[Domain],
        num_seconds: int,
        seed: tuple[int, ...],
        config: StoryConfig,
    ) -> tuple[Story, Tensor]:
        story, rng = tell_one(domains, num_seconds, seed, config)
        return story, torch.cat(list(self.pictures(story, rng)))


class _JointPile(Pile):
    """A pile whose features carry the gradient back into the encoder."""

    def batch(
        self, step: int, num_seconds: int, videos: int, questions: int, mix: Mix, stride: int = 1
    ) -> Batch:
        drawn = super().batch(step, num_seconds, videos, questions, mix, stride)
        assert isinstance(self.source, _Pictures)
        images = drawn.features.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        features = self.source.encoder(images).unflatten(0, drawn.features.shape[:2])
        return dataclasses.replace(drawn, features=features)


def joint(
    out: Path, steps: int = 300, checkpoint: Path | None = None, seed: int = 0, videos: int = 24
) -> Path:
    """Train the first phase three times for `steps` steps and write result.json into `out`: with
    the frame encoder of the checkpoint frozen and its features computed once; with the same encoder
    trained further together with the decoder; and with an encoder that starts from random weights.

    R1@0.5 is free-running, on stories that none of them drew; `s_per_step` is the median over the
    steps.
    """
    if steps < 4:
        raise UserError(f"steps={steps}: expected 4 or more")
    ready = model_of(checkpoint)
    domains = list(load_domains().values())
    phase = dataclasses.replace(recipe("lab").phases[0], steps=steps)
    assert ready.frame_encoder is not None
    torch.manual_seed(seed)
    untrained = FrameEncoder(ready.frame_encoder.config)
    pictures = torch.cat(
        [
            _Pictures(untrained, domains).draw(domains, 32, (seed, 5, i), StoryConfig())[1]
            for i in range(64)
        ]
    )
    untrained.standardise(pictures.permute(0, 3, 1, 2).float() / 255)
    metrics: dict[str, Estimate] = {}
    for name, encoder in (
        ("frozen", ready.frame_encoder),
        ("joint", copy.deepcopy(ready.frame_encoder)),
        ("joint_from_random", untrained),
    ):
        metrics |= _learned(name, encoder, domains, phase, ready, seed, videos)
    config = {
        "steps": steps,
        "videos": videos,
        "phase": dataclasses.asdict(phase),
        "checkpoint": ready.about,
    }
    return write_result(out, name="bench-joint", metrics=metrics, config=config, seed=seed)


def _learned(  # noqa: PLR0913
    name: str,
    encoder: FrameEncoder,
    domains: list[Domain],
    phase: Phase,
    ready: TimeScope,
    seed: int,
    videos: int,
) -> dict[str, Estimate]:
    source, writer = PixelSource(encoder, domains), Writer(ready.vocabulary, domains)
    torch.manual_seed(seed)
    model = TimeScope(
        ModelConfig(
            ready.config.decoder, source.width, feature_gain=FEATURE_GAIN, can_say_absent=True
        ),
        ready.vocabulary,
    )
    model.align(source.directions())
    if name == "frozen":
        pool = CachedSource(source, seed)
        for i in range(
            4 * pool.frames // 32
        ):  # the features of almost every story, before the clock runs
            pool.draw(domains, 32, (seed, i), StoryConfig())
        trainer = Trainer(model, Pile(domains, pool, writer, seed), phase)
    else:
        trainer = Trainer(
            model,
            _JointPile(
                domains, _Pictures(encoder.train().requires_grad_(True), domains), writer, seed
            ),
            phase,
        )
        trainer.adam.add_param_group(
            {"params": list(encoder.stem.parameters()) + list(encoder.project.parameters())}
        )
    times = []
    while trainer.step < phase.steps:
        started = time.perf_counter()
        trainer.one_step()
        times.append(time.perf_counter() - started)
    right = free_running(
        model, Pile(domains, PixelSource(encoder.eval(), domains), writer, seed), phase, videos
    )
    found = {
        f"{name}/{kind.replace('r1@0.5', 'all')}/r1@0.5": Estimate(value)
        for kind, value in right.items()
    }
    return found | {f"{name}/all/s_per_step": Estimate(float(np.median(times)))}


# --- a second question ----------------------------------------------------------------------------

ASK = """
import json, sys, time
from timescope_lite import grounding
grounding.shipped_model()  # what both need apart: Python, torch, weights
video, task, memory, keep = json.loads(sys.argv[1])
started = time.perf_counter()
if keep:
    grounding.encode(video, keep)
    memory = keep
found = grounding.ground(video, task, memory=memory)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "answer": found.as_dict()["interval"]}))
"""


def reuse(out: Path, minutes: int | None = None, seed: int = 0) -> Path:
    """Ask two questions about one video, each in a process of its own: the first reads the file and
    keeps its memory, the second answers from what was kept. Writes result.json into `out`.

    `seconds` is from the call to the answer, the weights already loaded; `process_seconds` that of
    the whole process; `equal_answers` whether the second question has the same interval from the
    kept memory as from the file. UserError for a length that is not positive.
    """
    minutes = max(MINUTES) if minutes is None else minutes
    if minutes <= 0:
        raise UserError(f"minutes {minutes}: expected a positive length, such as 60")
    with tempfile.TemporaryDirectory() as folder:
        video, kept = Path(folder) / "video.mp4", str(Path(folder) / "memory")
        story = tell(next(iter(load_domains().values())), 60 * minutes, seed)
        write_mp4(video, render_video(story.domain, story.states, fps=2.0), 2.0)
        rng = np.random.default_rng(seed)
        tasks = [in_words(story, draw_question(story, {"explicit": 1.0}, rng)) for _ in range(2)]
        first = _ask(str(video), tasks[0], None, kept)
        again = _ask(str(video), tasks[1], kept, None)
        afresh = _ask(str(video), tasks[1], None, None)
    bucket = f"{minutes}min"
    metrics = {
        f"again/{bucket}/share_of_first": Estimate(again["seconds"] / first["seconds"]),
        f"again/{bucket}/equal_answers": Estimate(float(again["answer"] == afresh["answer"])),
    }
    for name, asked in (("first", first), ("again", again)):
        metrics[f"{name}/{bucket}/seconds"] = Estimate(asked["seconds"])
        metrics[f"{name}/{bucket}/process_seconds"] = Estimate(asked["process_seconds"])
    return write_result(
        out, name="bench-reuse", metrics=metrics, config={"minutes": minutes}, seed=seed
    )


def _ask(video: str, task: str, memory: str | None, keep: str | None) -> dict[str, Any]:
    """One question in a fresh process; what it printed, and how long all of it took."""
    started = time.perf_counter()
    arguments = json.dumps([video, task, memory, keep])
    done = subprocess.run(
        [sys.executable, "-c", ASK, arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"asking {task!r} of {video} failed: {done.stderr.strip()[-300:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said | {"process_seconds": time.perf_counter() - started}
