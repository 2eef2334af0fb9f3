"""Training of the base model for the time that is left: the library's own trainer and state files.

A process that is ended loses half a minute at most; the next call with the same folder goes on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from timescope_lite.bench_gpu.record import Bench, Report, Sizes
from timescope_lite.train import STORIES_PER_FILE, FramePhase, Recipe, recipe, train

FOLDER = "training"
SEED = 0
SAVE_MINUTES = 0.5


def training(bench: Bench) -> None:
    """Train until the recipe is done or this process is ended."""
    folder = bench.out / FOLDER
    plan = plan_of(bench.sizes)
    resume = (folder / "plan.json").is_file()
    path = train(plan, folder, SEED, resume, SAVE_MINUTES, folder / "shared")
    bench.fact("checkpoint", path.name)


def plan_of(sizes: Sizes) -> Recipe:
    """The recipe: `full`, the base model of depth 8; or first and last phase, two steps each."""
    if sizes.name == "full":
        return recipe("full")
    plan = recipe("smoke", depth=sizes.depths[-1])
    ends = plan.phases[0], plan.phases[-1]
    phases = tuple(replace(phase, steps=2, lengths=((1.0, (32,)),)) for phase in ends)
    frames = FramePhase(stories=3, frames_per_story=16, steps=3, batch=16)
    return replace(plan, phases=phases, frames=frames, pool_frames=256)


def progress(out: Path, sizes: Sizes, report: Report) -> None:
    """Add to the report how far the training in this folder has come, from its files alone: it may
    have been ended at any moment.
    """
    folder, plan = out / FOLDER, plan_of(sizes)
    total = sum(phase.steps for phase in plan.phases)
    done, phase = _steps_done(folder, plan)
    report.numbers["training", "steps_done"] = (done, 1)
    report.numbers["training", "steps_planned"] = (total, 1)
    report.numbers["training", "done_share"] = (done / total, 1)
    report.facts["training_phase"] = phase
    rows = [row for row in _log(folder / "log.jsonl") if "s_per_step" in row]
    if rows:
        report.numbers["training", "step_seconds"] = (rows[-1]["s_per_step"], 1)
        losses = {k: v for k, v in rows[-1].items() if "/" in k}
        report.facts["training_losses"] = losses
    if done < total:
        report.missing["a finished base model"] = (
            f"{done} of {total} steps are done: the same command with the same folder goes on"
        )


def _steps_done(folder: Path, plan: Recipe) -> tuple[int, str]:
    """Steps in durable files, and where training stands."""
    shared = folder / "shared"
    finished = 0
    for number in range(len(plan.phases)):
        if (shared / f"{plan.key(number, SEED)}.safetensors").is_file():
            finished = number + 1
    done = sum(phase.steps for phase in plan.phases[:finished])
    if finished == len(plan.phases):
        return done, "finished"
    if not (shared / f"frames-{plan.key(-1, SEED)}.safetensors").is_file():
        files = list((shared / f"pictures-{plan.key(-1, SEED)}").glob("*.safetensors"))
        drawn = min(len(files) * STORIES_PER_FILE, plan.frames.stories)
        return 0, f"frame encoder ({drawn} of {plan.frames.stories} stories drawn)"
    return done + _saved_step(folder, finished), plan.phases[finished].name


def _saved_step(folder: Path, phase_number: int) -> int:
    try:
        with safe_open(folder / "state.safetensors", framework="pt") as file:
            header = file.metadata()
    except (OSError, SafetensorError):
        return 0
    return int(header["step"]) if int(header["phase"]) == phase_number else 0


def _log(path: Path) -> Sequence[dict[str, Any]]:
    """Rows of the training's log; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
