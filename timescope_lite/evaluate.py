"""Systems x split -> one row per question -> one result file. Videos are read from their mp4 files, through the decoder and the frame encoder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from timescope_lite.baselines import NO_BUDGET, SYSTEMS, Video
from timescope_lite.common import UserError, atomic_path, pick_device
from timescope_lite.corpus import Item, build, get_split, read_questions
from timescope_lite.grounding import TINY, Answer, feature_stream
from timescope_lite.intervals import Interval, covers, parse_intervals, tiou
from timescope_lite.metrics import bootstrap
from timescope_lite.model.checkpoint import Checkpoint, from_manifest, load
from timescope_lite.results import Metric, write_result
from timescope_lite.text import DIRECT, THINK, Writer
from timescope_lite.world.domain import load_domains

BUDGETS = (64, 128, 256)


def load_video(checkpoint: Checkpoint, path: Path, r: int = 16) -> Video:
    """A video file as frame features, ready for every system."""
    parts = list(feature_stream(checkpoint, path))
    return Video(checkpoint.model, torch.cat([features for features, _ in parts]), sum(valid for _, valid in parts), r)


def row_of(item: Item, system: str, answer: Answer | None, seconds: float) -> dict[str, Any]:
    """One result row: what was asked, what came back, and how far off it is. `answer` None: unparsable, scores 0 and stays in."""
    q, truth = item.question, Interval(item.question.start_s, item.question.end_s)
    row: dict[str, Any] = {
        "system": system,
        "video": item.video,
        "text": item.text,
        "kind": q.kind,
        "task": q.task_type,
        "domain": item.domain,
        "cue": "named" if q.cue_named else "hidden",
        "bucket": bucket_of(item.duration_s),
        "duration_s": item.duration_s,
        "truth": [q.start_s, q.end_s],
        "seconds": round(seconds, 4),
        "unparsable": answer is None,
        "tiou": 0.0,
    }
    if answer is None:
        return row
    row |= {
        "answer": [answer.start_s, answer.end_s],
        "confidence": answer.confidence,
        "attended_frames": answer.attended_frames,
        "note": answer.note,
    }
    row["tiou"] = tiou(Interval(answer.start_s, answer.end_s), truth)
    if answer.window is not None:
        row["window"] = list(answer.window)
        row["covered"] = covers(Interval(*answer.window), truth)
        row["reload_share"] = (answer.window[1] - answer.window[0]) / item.duration_s
    return row


def bucket_of(duration_s: float) -> str:
    """The duration buckets of ToTG-Bench."""
    return "lt3min" if duration_s < 180 else "3to10min" if duration_s <= 600 else "gt10min"


def run_systems(
    video: Video, items: Sequence[Item], writer: Writer, systems: Iterable[str], budgets: Iterable[float], think: bool = True
) -> list[dict[str, Any]]:
    """Every system at every budget on the questions of one video. Rows are named `system@budget`."""
    prompts = [[*writer.vocabulary.encode(item.text), THINK if think else DIRECT] for item in items]
    questions = [item.question for item in items]
    rows = []
    for name in systems:
        for budget in (None,) if name in NO_BUDGET else tuple(budgets):
            started = time.perf_counter()
            try:
                answers = SYSTEMS[name](video, prompts, questions, float(budget or 0))
            except UserError as error:
                if "budget" not in str(error):
                    raise
                continue  # this video does not fit into this budget: the cell says so by its n
            each = (time.perf_counter() - started) / len(items)
            label = name if budget is None else f"{name}@{budget:g}"
            rows += [row_of(item, label, answer, each) for item, answer in zip(items, answers, strict=True)]
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Metric]:
    """The flat map "system/bucket/metric" -> value, low, high, n, with bootstrap intervals over videos."""
    metrics: dict[str, Metric] = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == system]
        for bucket, chosen in _buckets(mine).items():
            for metric, (values, groups) in _metrics(chosen).items():
                estimate = bootstrap(values, groups)
                metrics[f"{system}/{bucket}/{metric}"] = Metric(estimate.value, estimate.low, estimate.high, estimate.n)
    return metrics


def _buckets(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    named: dict[str, list[dict[str, Any]]] = {"all": list(rows)}
    for row in rows:
        for name in (row["bucket"], f"task={row['task']}", f"domain={row['domain']}", f"cue={row['cue']}"):
            named.setdefault(name, []).append(row)
        if row["duration_s"] >= 256:
            named.setdefault("ge256s", []).append(row)
    return {name: chosen for name, chosen in named.items() if len({row["video"] for row in chosen}) > 1}


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[list[float], list[str]]]:
    """Per metric the values and the video of each."""
    videos = [row["video"] for row in rows]
    found: dict[str, tuple[list[float], list[str]]] = {
        f"r1@{m}": ([float(row["tiou"] >= m) for row in rows], videos) for m in (0.3, 0.5, 0.7)
    }
    found |= {"miou": ([row["tiou"] for row in rows], videos), "unparsable": ([float(row["unparsable"]) for row in rows], videos)}
    found["seconds"] = ([row["seconds"] for row in rows], videos)
    reloaded = [row for row in rows if "covered" in row]
    if reloaded:
        groups = [row["video"] for row in reloaded]
        found["coverage"] = ([float(row["covered"]) for row in reloaded], groups)
        found["reload_share"] = ([row["reload_share"] for row in reloaded], groups)
        hit = [row for row in reloaded if row["covered"]]
        if len({row["video"] for row in hit}) > 1:
            found["fine_miou_given_coverage"] = ([row["tiou"] for row in hit], [row["video"] for row in hit])
    attended = [row for row in rows if row.get("attended_frames")]
    if attended:
        found["attended_frames"] = ([row["attended_frames"] for row in attended], [row["video"] for row in attended])
    return found


def evaluate(
    split: str,
    out: Path,
    *,
    seed: int | None = None,
    checkpoints: Path | None = None,
    predictions: Path | None = None,
    systems: Sequence[str] = tuple(SYSTEMS),
    budgets: Sequence[float] = BUDGETS,
    root: Path | None = None,
) -> Path:
    """Score systems, or a file of predictions, on a split; writes rows.jsonl and then result.json into `out`, and returns the latter's path."""
    started = time.time()
    # Everything that can be refused is refused before a video is rendered.
    get_split(split)
    checkpoint = None if predictions is not None else checkpoint_of(checkpoints)
    given = None if predictions is None else read_predictions(predictions)
    folder = build(split, seed, root)
    items = read_questions(folder)
    rows = score_predictions(items, given) if given is not None else []
    rows += _evaluate_checkpoint(checkpoint, folder, items, systems, budgets) if checkpoint else []
    about = checkpoint.about if checkpoint else {}
    with atomic_path(Path(out) / "rows.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_result(
        out,
        name=f"evaluate-{folder.name}",
        metrics=summarise(rows),
        config={"split": split, "systems": list(systems), "budgets": list(budgets), "checkpoint": about},
        seed=get_split(split).seed if seed is None else seed,
        wall_s=round(time.time() - started, 1),
    )


def _evaluate_checkpoint(
    checkpoint: Checkpoint, folder: Path, items: Sequence[Item], systems: Sequence[str], budgets: Sequence[float]
) -> list[dict[str, Any]]:
    writer = Writer(checkpoint.model.vocabulary, load_domains().values())
    by_video: dict[str, list[Item]] = {}
    for item in items:
        by_video.setdefault(item.video, []).append(item)
    rows: list[dict[str, Any]] = []
    for name, asked in tqdm(by_video.items(), desc="evaluating"):
        rows += run_systems(load_video(checkpoint, folder / name), asked, writer, systems, budgets)
    return rows


def checkpoint_of(path: Path | None) -> Checkpoint:
    """The checkpoint to evaluate: the shipped one (None), a file, or `two_stage` of a folder with a manifest."""
    if path is not None and Path(path).is_dir():
        return from_manifest(Path(path), "two_stage", pick_device())
    return load(TINY if path is None else Path(path), pick_device())


Predictions = dict[tuple[str, str], Any]


def read_predictions(path: Path) -> Predictions:
    """Answers that another system wrote: JSON lines {"video", "text", "answer": text or [start_s, end_s]}."""
    if not Path(path).is_file():
        raise UserError(f"predictions {path} does not exist; expected JSON lines with video, text and answer")
    given: Predictions = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            given[row["video"], row["text"]] = row["answer"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f"{Path(path).name}, line {number}: expected a JSON object with video, text and answer") from None
    return given


def score_predictions(items: Sequence[Item], given: Predictions) -> list[dict[str, Any]]:
    """Score answers of another system, one per question, none missing."""
    missing = [item for item in items if (item.video, item.text) not in given]
    if missing:
        first = f"first {missing[0].video}: {missing[0].text!r}"
        raise UserError(f"the predictions have no answer for {len(missing)} of {len(items)} questions, {first}; answer all")
    return [row_of(item, "predictions", _parsed(given[item.video, item.text], item), 0.0) for item in items]


def _parsed(answer: Any, item: Item) -> Answer | None:
    """An answer text, or a pair of seconds, clipped to the video; None if no interval can be read."""
    if isinstance(answer, str):
        spans = parse_intervals(answer)
    else:
        spans = [Interval(float(answer[0]), float(answer[1]))] if isinstance(answer, list) and len(answer) == 2 else []
    if not spans:
        return None
    span = spans[0].clipped_to(float(item.duration_s))
    return Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0)
