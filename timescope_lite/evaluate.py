"""Systems x split -> one row per question -> one result file. Videos are read from their mp4 files,
through the decoder and the frame encoder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from timescope_lite.baselines import NO_BUDGET, OWN_TRAINING, SHOWN_THE_TRUTH, SYSTEMS, Video
from timescope_lite.common import BudgetError, UserError, atomic_path, pick_device
from timescope_lite.corpus import (
    Item,
    build_some,
    get_split,
)
from timescope_lite.datasets.prompts import Writer
from timescope_lite.grounding import model_of
from timescope_lite.intervals import Interval, covers, tiou
from timescope_lite.memory.budget import DEFAULT_R
from timescope_lite.metrics import bootstrap, calibration_error
from timescope_lite.model import TimeScope
from timescope_lite.model.checkpoint import from_manifest, manifest_of, same_encoder
from timescope_lite.model.frames import feature_stream
from timescope_lite.model.tokenizer import THINK
from timescope_lite.model.two_stage import Answer
from timescope_lite.results import Estimate, write_result
from timescope_lite.scoring import file_hash, given_from
from timescope_lite.world.domain import load_domains

BUDGETS = (64, 128, 256)


class Weights:
    """Which checkpoint each system reads with: one for all, or those of a folder with a manifest
    (`baselines.OWN_TRAINING`).
    """

    def __init__(self, path: Path | None = None) -> None:
        """`path`: a checkpoint, a folder with a manifest, or None for the shipped one."""
        self.folder = Path(path) if path is not None and Path(path).is_dir() else None
        if self.folder is not None:
            self.main = from_manifest(self.folder, "two_stage", pick_device())
        else:
            self.main = model_of(path)
        self._owned: dict[str, TimeScope] = {"two_stage": self.main}

    def owner(self, system: str) -> str:
        """The trained system whose weights `system` reads with: its own where they are at hand,
        else the two-stage model's.
        """
        own = OWN_TRAINING.get(system, "two_stage")
        return own if self.folder and own in manifest_of(self.folder) else "two_stage"

    def has(self, system: str) -> bool:
        """Whether the weights that `system` is meant to read with are at hand."""
        return self.owner(system) == OWN_TRAINING.get(system, "two_stage")

    def of(self, system: str) -> TimeScope:
        """The model for `system`, read when first asked for. UserError if its frame encoder is
        another one: features are computed once.
        """
        owner = self.owner(system)
        if owner not in self._owned:
            # Whose weights are not the two-stage model's comes from a folder (`owner`).
            assert self.folder is not None
            model = from_manifest(self.folder, owner, pick_device())
            if not same_encoder(model, self.main):
                raise UserError(
                    f"the checkpoint of {owner!r} in {self.folder} has another frame encoder than "
                    "that of 'two_stage'; train both from one"
                )
            self._owned[owner] = model
        return self._owned[owner]

    def about(self) -> dict[str, Any]:
        """Seed, steps and commit of every checkpoint that was used."""
        return {owner: model.about for owner, model in self._owned.items()}


class Videos:
    """One video file for all systems: its features are computed once, its memories once per
    checkpoint.
    """

    def __init__(self, weights: Weights, path: Path, r: int = DEFAULT_R) -> None:
        self.weights, self.r = weights, r
        parts = list(feature_stream(weights.main, path))
        self.features = torch.cat([features for features, _ in parts])
        self.num_valid = sum(valid for _, valid in parts)
        self._videos: dict[str, Video] = {}

    def of(self, system: str) -> Video:
        """The video as `system` reads it."""
        owner = self.weights.owner(system)
        if owner not in self._videos:
            model = self.weights.of(system)
            self._videos[owner] = Video(model, self.features, self.num_valid, self.r)
        return self._videos[owner]


def row_of(item: Item, system: str, answer: Answer | None, seconds: float) -> dict[str, Any]:
    """One result row: what was asked, what came back, and how far off it is. `answer` None:
    unparsable, scores 0 and stays in.

    An answer "not in this video" scores 0 where the evidence is there; where it is absent, `right`
    says whether the system said so.
    """
    q = item.question
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
        "truth": None if q.absent else [q.start_s, q.end_s],
        "seconds": round(seconds, 4),
        "unparsable": answer is None,
        "tiou": 0.0,
    }
    if answer is None:
        return row
    row |= {
        "said_absent": answer.absent,
        "confidence": answer.confidence,
        "attended_frames": answer.attended_frames,
        "note": answer.note,
    }
    if q.absent:
        return row
    row["position"] = ("early", "middle", "late")[
        min(int(1.5 * (q.start_s + q.end_s) / item.duration_s), 2)
    ]
    truth = Interval(q.start_s, q.end_s)
    row["answer"] = [answer.start_s, answer.end_s]
    row["tiou"] = 0.0 if answer.absent else tiou(Interval(answer.start_s, answer.end_s), truth)
    if answer.window is not None:
        row["window"] = list(answer.window)
        row["covered"] = covers(Interval(*answer.window), truth)
        row["reload_share"] = (answer.window[1] - answer.window[0]) / item.duration_s
    return row


def hops_of(item: Item, answer: Answer, writer: Writer) -> list[bool]:
    """Hop by hop, whether the reasoning that the system wrote is that of the story (one value per
    token of the true chain, <so> left out).
    """
    true = writer.reasoning(item.domain, item.question)[:-1]
    return [n < len(answer.chain) and answer.chain[n] == token for n, token in enumerate(true)]


def bucket_of(duration_s: float) -> str:
    """The duration buckets of ToTG-Bench."""
    return "lt3min" if duration_s < 180 else "3to10min" if duration_s <= 600 else "gt10min"


def run_systems(
    video_of: Callable[[str], Video],
    items: Sequence[Item],
    writer: Writer,
    systems: Iterable[str],
    budgets: Iterable[float],
) -> list[dict[str, Any]]:
    """Every system at every budget on the questions of one video, `video_of(system)`. Rows are
    named `system@budget`.
    """
    prompts = [[*writer.vocabulary.encode(item.text), THINK] for item in items]
    questions = [item.question for item in items]
    rows = []
    for name in systems:
        own_budgets: Sequence[float] = (0.0,) if name in NO_BUDGET else tuple(budgets)
        for budget in own_budgets:
            video, started = video_of(name), time.perf_counter()
            try:
                answers = SYSTEMS[name](video, prompts, questions, float(budget))
            except BudgetError:
                continue  # this video does not fit into this budget: the cell says so by its n
            each = (time.perf_counter() - started) / len(items)
            for item, answer in zip(items, answers, strict=True):
                row = row_of(item, label_of(name, budget), answer, each)
                if answer.chain and not item.question.absent:
                    row["hops"] = hops_of(item, answer, writer)
                rows.append(row)
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """The flat map "system/bucket/metric" -> value, low, high, n, with bootstrap intervals over
    videos.
    """
    metrics: dict[str, Estimate] = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        mine = [row for row in rows if row["system"] == system]
        for bucket, chosen in _buckets(mine).items():
            for metric, (values, groups) in _metrics(chosen).items():
                estimate = bootstrap(values, groups)
                metrics[f"{system}/{bucket}/{metric}"] = estimate
        sure = [row for row in mine if "covered" in row]
        if sure:
            error = calibration_error(
                [min(row["confidence"], 1.0) for row in sure],
                [float(row["covered"]) for row in sure],
            )
            metrics[f"{system}/all/calibration_error"] = Estimate(error, n=len(sure))
    return metrics


# The differences that the course reports: (a, b) is a minus b, paired question by question, at
# every budget at which both were run.
DIFFERENCES = (
    ("two_stage", "single_stage_trained"),
    ("two_stage", "single_stage_long"),
    ("two_stage", "uniform"),
    ("two_stage", "two_stage_no_cot"),
    ("two_stage", "no_history"),
    ("two_stage", "widened"),
    ("two_stage", "retrieve_then_fine"),
    ("two_stage", "focus_trained"),
    ("two_stage", "dense"),
    ("two_stage", "focus"),
    ("two_stage", "single_stage"),
    ("window_alone", "two_stage"),
    ("two_stage_fit", "two_stage"),
    ("two_stage_fit", "single_stage_trained"),
    ("two_stage_fit_alone", "two_stage"),
    ("two_stage_fit_alone", "single_stage_trained"),
    ("two_stage_fit_alone", "uniform"),
    ("focus_trained", "single_stage_trained"),
    ("focus", "single_stage"),
)


def label_of(system: str, budget: float | str) -> str:
    """What rows and metrics call a system at a budget: `two_stage@128`, or the bare name of one
    that has none.
    """
    return system if system in NO_BUDGET else f"{system}@{float(budget):g}"


def differences(rows: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """R1@0.5, and where both reload a window its coverage, of one system minus another's, as "a -
    b/bucket/difference_of_r1@0.5", intervals over videos; pairs of which a system is missing are
    left out.
    """
    by_system: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        by_system.setdefault(row["system"], {})[row["video"], row["text"]] = row
    budgets = sorted({name.partition("@")[2] for name in by_system if "@" in name}, key=float)
    metrics: dict[str, Estimate] = {}
    for budget in budgets:
        for one, other in DIFFERENCES:
            a, b = label_of(one, budget), label_of(other, budget)
            found = _paired(by_system.get(a, {}), by_system.get(b, {}))
            metrics |= {f"{a} - {b}/{name}": estimate for name, estimate in found.items()}
    return metrics


Answered = dict[tuple[str, str], dict[str, Any]]  # (video, question) -> row


def _paired(ours: Answered, theirs: Answered) -> dict[str, Estimate]:
    """ "bucket/difference_of_metric" -> ours minus theirs, on the questions that both answered."""
    shared = [row for key, row in ours.items() if key in theirs and row["truth"] is not None]
    found: dict[str, Estimate] = {}
    for bucket, chosen in _buckets(shared).items():
        pairs = [(row, theirs[row["video"], row["text"]]) for row in chosen]
        videos = [row["video"] for row in chosen]
        hits = [float(x["tiou"] >= 0.5) - float(y["tiou"] >= 0.5) for x, y in pairs]
        found[f"{bucket}/difference_of_r1@0.5"] = bootstrap(hits, videos)
        if all("covered" in x and "covered" in y for x, y in pairs):
            covered = [float(x["covered"]) - float(y["covered"]) for x, y in pairs]
            found[f"{bucket}/difference_of_coverage"] = bootstrap(covered, videos)
    return found


def _buckets(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    named: dict[str, list[dict[str, Any]]] = {"all": list(rows)}
    for row in rows:
        for name in (
            row["bucket"],
            f"task={row['task']}",
            f"kind={row['kind']}",
            f"domain={row['domain']}",
            f"cue={row['cue']}",
            f"position={row.get('position', '')}",
        ):
            named.setdefault(name, []).append(row)
        if row["duration_s"] >= 256:
            named.setdefault("ge256s", []).append(row)
    return {
        name: chosen for name, chosen in named.items() if len({row["video"] for row in chosen}) > 1
    }


def _metrics(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[list[float], list[str]]]:
    """Per metric the values and the video of each. On questions whose evidence is absent the only
    metric is whether that was said.
    """
    videos = [row["video"] for row in rows]
    said = [float(row.get("said_absent", False)) for row in rows]
    if all(row["truth"] is None for row in rows):
        return {"said_absent": (said, videos)}
    found: dict[str, tuple[list[float], list[str]]] = {
        f"r1@{m}": ([float(row["tiou"] >= m) for row in rows], videos) for m in (0.3, 0.5, 0.7)
    }
    found |= {
        "miou": ([row["tiou"] for row in rows], videos),
        "unparsable": ([float(row["unparsable"]) for row in rows], videos),
    }
    found |= {"seconds": ([row["seconds"] for row in rows], videos), "said_absent": (said, videos)}
    told = [row for row in rows if row.get("hops")]
    for hop in range(max((len(row["hops"]) for row in told), default=0)):
        heard = [row for row in told if len(row["hops"]) > hop]
        if len({row["video"] for row in heard}) > 1:
            found[f"hop{hop + 1}_right"] = (
                [float(row["hops"][hop]) for row in heard],
                [row["video"] for row in heard],
            )
    if len({row["video"] for row in told}) > 1:
        found["chain_right"] = (
            [float(all(row["hops"])) for row in told],
            [row["video"] for row in told],
        )
    reloaded = [row for row in rows if "covered" in row]
    if reloaded:
        groups = [row["video"] for row in reloaded]
        found["coverage"] = ([float(row["covered"]) for row in reloaded], groups)
        found["late_minus_early"] = ([_side(row) for row in reloaded], groups)
        found["reload_share"] = ([row["reload_share"] for row in reloaded], groups)
        hit = [row for row in reloaded if row["covered"]]
        if len({row["video"] for row in hit}) > 1:
            found["fine_miou_given_coverage"] = (
                [row["tiou"] for row in hit],
                [row["video"] for row in hit],
            )
    attended = [row for row in rows if row.get("attended_frames")]
    if attended:
        found["attended_frames"] = (
            [row["attended_frames"] for row in attended],
            [row["video"] for row in attended],
        )
    return found


def _side(row: dict[str, Any]) -> float:
    """Where a window that misses its evidence lies: +1 later, -1 earlier, 0 for one that holds
    it.
    """
    return 0.0 if row["covered"] else float(np.sign(sum(row["window"]) - sum(row["truth"])))


def evaluate(  # noqa: PLR0913
    split: str,
    out: Path,
    *,
    seed: int | None = None,
    checkpoints: Path | None = None,
    predictions: Path | None = None,
    systems: Sequence[str] = tuple(SYSTEMS),
    budgets: Sequence[float] = BUDGETS,
    root: Path | None = None,
    videos: int | None = None,
) -> Path:
    """Score systems, or a file of predictions, on a split; writes rows.jsonl and then result.json
    into `out`, and returns the latter's path.

    `videos` takes only so many of the split's videos, spread evenly over it, and renders no others.

    A control whose own weights are not at hand is left out, and the result says so: with another's
    weights it would lose by starvation. So is a system that is shown the true window where there is
    none.
    """
    started = time.time()
    # Everything that can be refused is refused before a video is rendered.
    get_split(split)
    for system in systems:
        if system not in SYSTEMS:
            raise UserError(f"unknown system {system!r}: expected one of {', '.join(SYSTEMS)}")
    for budget in budgets:
        if budget <= 0:
            raise UserError(f"budget {budget:g}: expected more than 0 frames' worth, such as 128")
    weights = None if predictions is not None else Weights(checkpoints)
    given = None if predictions is None else read_predictions(predictions)
    answers_hash = None if predictions is None else file_hash(predictions)
    blind = SHOWN_THE_TRUTH if get_split(split).absent else frozenset()
    if blind and set(systems) <= blind:
        raise UserError(
            f"{', '.join(systems)}: shown the true window, and questions of split {split!r} have "
            "none; name another system"
        )
    left_out = [
        system for system in systems if weights and (system in blind or not weights.has(system))
    ]
    systems = [system for system in systems if system not in left_out]
    if weights and not systems:
        raise UserError(
            f"no weights for {', '.join(left_out)} are at hand: name a folder with a manifest that "
            "has them (--checkpoints data/checkpoints)"
        )
    folder, items = build_some(split, seed, root, videos)
    rows = score_predictions(items, given) if given is not None else []
    rows += _evaluate_weights(weights, folder, items, systems, budgets) if weights else []
    if not rows:
        raise BudgetError(
            f"no video of split {split!r} fits into {', '.join(f'{b:g}' for b in budgets)} frames' "
            "worth, so there is nothing to report; raise --budget"
        )
    with atomic_path(Path(out) / "rows.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    owners = {system: weights.owner(system) for system in systems} if weights else {}
    about = (
        {"weights": owners, "left_out": left_out, "checkpoints": weights.about()}
        if weights
        else {"predictions": {"file": Path(str(predictions)).name, "sha256": answers_hash}}
    )
    return write_result(
        out,
        name=f"evaluate-{folder.name}",
        metrics=summarise(rows) | differences(rows),
        config={
            "split": split,
            "videos": len({item.video for item in items}),
            "systems": list(systems) if weights else [],
            "budgets": list(budgets) if weights else [],
        }
        | about,
        seed=get_split(split).seed if seed is None else seed,
        wall_s=round(time.time() - started, 1),
    )


def _evaluate_weights(
    weights: Weights,
    folder: Path,
    items: Sequence[Item],
    systems: Sequence[str],
    budgets: Sequence[float],
) -> list[dict[str, Any]]:
    writer = Writer(weights.main.vocabulary, load_domains("all").values())
    by_video: dict[str, list[Item]] = {}
    for item in items:
        by_video.setdefault(item.video, []).append(item)
    rows: list[dict[str, Any]] = []
    for name, asked in tqdm(by_video.items(), desc="evaluating"):
        rows += run_systems(Videos(weights, folder / name).of, asked, writer, systems, budgets)
    return rows


Predictions = dict[tuple[str, str], Any]


def read_predictions(path: Path) -> Predictions:
    """Answers that another system wrote: JSON lines {"video", "text", "answer": text or [start_s,
    end_s]}.
    """
    if not Path(path).is_file():
        raise UserError(
            f"predictions {path} does not exist; expected JSON lines with video, text and answer"
        )
    given: Predictions = {}
    text = Path(path).read_text(encoding="utf-8-sig")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{Path(path).name}, line {number}"
        try:
            row = json.loads(line)
            key, answer = (row["video"], row["text"]), row["answer"]
            repeated = key in given
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{where}: expected a JSON object with video, text and answer"
            ) from None
        if repeated:
            raise UserError(f"{where}: a second answer to {key[1]!r} about {key[0]}; keep one")
        given_from(answer, where)  # a shape that cannot be read is refused before any work
        given[key] = answer
    return given


def score_predictions(items: Sequence[Item], given: Predictions) -> list[dict[str, Any]]:
    """Score answers of another system, one per question, none missing."""
    missing = [item for item in items if (item.video, item.text) not in given]
    if missing:
        first = f"first {missing[0].video}: {missing[0].text!r}"
        raise UserError(
            f"the predictions have no answer for {len(missing)} of {len(items)} questions, "
            f"{first}; answer all"
        )
    return [
        row_of(item, "predictions", _parsed(given[item.video, item.text], item), 0.0)
        for item in items
    ]


def _parsed(answer: Any, item: Item) -> Answer | None:
    """An answer of any shape (`scoring.given_from`), clipped to the video; None if no interval can
    be read.
    """
    given = given_from(answer, f"the answer to {item.text!r}", float(item.duration_s))
    if given.absent:
        return Answer(0.0, 0.0, None, 0.0, (), 0.0, 0, absent=True)
    if not given.spans:
        return None
    span = given.spans[0].clipped_to(float(item.duration_s))
    return Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0)
