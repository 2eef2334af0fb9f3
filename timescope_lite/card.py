"""The data card of a split: what is in it, how evenly, what a blind guess reaches there, and what
it looks like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from timescope_lite import metrics, plots
from timescope_lite.common import atomic_path
from timescope_lite.corpus import Item, build, positions, read_questions
from timescope_lite.evaluate import bucket_of
from timescope_lite.version import __version__
from timescope_lite.video import read_frames


def write_card(name: str, seed: int | None = None, root: Path | None = None, jobs: int = 1) -> Path:
    """Build what is missing of a split and write card.md and contact_sheet.png beside its videos;
    returns card.md.
    """
    folder = build(name, seed, root, jobs=jobs)
    items = read_questions(folder)
    plots.save(contact_sheet(folder, items), folder / "contact_sheet.png")
    with atomic_path(folder / "card.md") as temporary:
        temporary.write_text(card(folder, items), encoding="utf-8")
    return folder / "card.md"


def card(folder: Path, items: Sequence[Item]) -> str:
    """The card as Markdown: counts, shares, lengths, positions, and scores without looking. Needs
    the questions only, not the pixels.
    """
    videos = {item.video: item.duration_s for item in items}
    targets = [item for item in items if not item.question.absent]
    lines = [
        f"# Data card: {folder.name}",
        "",
        f"Tiny Town, timescope-lite {__version__}. {len(videos)} videos, "
        f"{sum(videos.values()) / 3600:.1f} h ({min(videos.values())} to "
        f"{max(videos.values())} s each), {len(items)} questions, {len(items) - len(targets)} of "
        "them without evidence in their video. Simulated: no",
        "person, no camera and no licence of others. `timescope-lite data check` holds every "
        "answer against a solver that reads the story alone.",
        "",
        "![One question of every domain at the moment of its answer](contact_sheet.png)",
        "",
        *_counts("task type", items, lambda item: item.question.task_type),
        *_counts("steps of reasoning", items, lambda item: str(item.question.hops)),
        *_counts("domain", items, lambda item: item.domain),
        *_counts("length of the video", items, lambda item: bucket_of(item.duration_s)),
        *_counts("cue", items, lambda item: "named" if item.question.cue_named else "hidden"),
        *(_targets(targets) if targets else []),
    ]
    return "\n".join(lines) + "\n"


def _counts(what: str, items: Sequence[Item], key: Callable[[Item], str]) -> list[str]:
    found = Counter(key(item) for item in items)
    rows = [f"| {name} | {n} | {n / len(items):.0%} |" for name, n in sorted(found.items())]
    return [f"| {what} | questions | share |", "|---|---|---|", *rows, ""]


def _targets(items: Sequence[Item]) -> list[str]:
    """Length and position of the targets, and what constant answers score."""
    spans = np.array([(item.question.start_s, item.question.end_s) for item in items], dtype=float)
    duration = np.array([[item.duration_s] for item in items], dtype=float)
    low, middle, high = np.quantile(spans[:, 1] - spans[:, 0], (0.05, 0.5, 0.95))
    guesses = {
        "the best constant interval": np.array(metrics.best_constant(spans / duration)) * duration,
        "the middle third": np.array(
            [(w.start_s, w.end_s) for w in map(metrics.centre_window, duration[:, 0])]
        ),
        "the whole video": np.array((0.0, 1.0)) * duration,
    }
    tenths = ", ".join(map(str, positions(items)))
    rows = []
    for name, answer in guesses.items():
        ious = metrics.tiou_many(answer, spans)
        rows.append(
            f"| {name} | {metrics.mean_iou(ious):.3f} | {metrics.recall_at(ious, 0.5):.3f} |"
        )
    return [
        f"A target lasts {middle:.0f} s (median; 5 % to 95 %: {low:.0f} to {high:.0f} s). Targets "
        f"per tenth of the video: {tenths}.",
        "",
        "| answer without looking | mIoU | R1@0.5 |",
        "|---|---|---|",
        *rows,
    ]


def contact_sheet(folder: Path, items: Sequence[Item]) -> plots.Picture:
    """One frame per domain, in the middle of the first target asked about there (or of the video,
    where nothing is to be found), with the question.
    """
    first = {item.domain: item for item in reversed(items)}
    shown = sorted(first.values(), key=lambda item: item.video)
    frames, said = [], []
    for item in shown:
        q = item.question
        second = item.duration_s / 2 if q.absent else (q.start_s + q.end_s) / 2
        frames.append((second, read_frames(folder / item.video, [second])[0]))
        said.append(f"{item.domain}: {item.text}")
    return plots.contact_sheet(
        frames,
        said,
        title=f"{folder.name}: one question of each of {len(first)} domains, at its answer",
    )
