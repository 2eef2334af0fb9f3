"""Scores for answers that other programs wrote: predictions of every shape, ground truths of the
public benchmarks, one table. Nothing is rendered and no model is loaded.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.intervals import Interval, overlap_s, read_answer, tiou
from timescope_lite.metrics import (
    bootstrap,
    centre_window,
    mean_average_precision,
    vstar_am,
    vstar_lgm,
    whole_video,
)

FORMATS = ("qvhighlights", "charades", "activitynet", "vstar", "nextgqa", "rextime", "jsonl")
THRESHOLDS = (0.3, 0.5, 0.7)
SHORTEST_NUMBER_OF_VIDEOS = 2  # for an interval over videos
RIGHT_RATING = 2.0  # V-STaR's judge gives 0 to 3; from here on an answer is right


@dataclass(frozen=True)
class Query:
    """One question of a benchmark: `windows` are its true intervals, none if the evidence is
    absent; `names` are what a prediction may call it; `duration_s` None: not told.
    """

    video: str
    text: str
    windows: tuple[Interval, ...]
    names: tuple[str, ...]
    duration_s: float | None = None


@dataclass(frozen=True)
class Given:
    """An answer of another program: its intervals as listed, a score for each or none, whether it
    says "not there", and what else its row tells (`rating`, `viou`).
    """

    spans: tuple[Interval, ...] = ()
    scores: tuple[float, ...] = ()
    absent: bool = False
    extra: dict[str, float] = field(default_factory=dict)


# ---- files ----


def _text_of(path: Path, what: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{what} {path} does not exist; expected a file")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{what} {path} is no text in UTF-8; expected JSON or JSON lines") from None


def file_hash(path: Path) -> str:
    """SHA-256 of a file: what a result names the predictions by."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _rows(path: Path, what: str) -> list[tuple[str, Any]]:
    """The values of a file and where each stands: JSON lines, a JSON list, or the items of a JSON
    object as (key, value) pairs.
    """
    text = _text_of(path, what)
    name = Path(path).name
    lines = [(n, line) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{what} {name} is empty; expected JSON or JSON lines")
    if text.lstrip()[0] == "[" or (text.lstrip()[0] == "{" and not _is_json(lines[0][1])):
        return list(_whole(text, what, name))
    if len(lines) == 1 and not _looks_like_a_row(lines[0][1]):
        return list(_whole(text, what, name))
    found = []
    for number, line in lines:
        try:
            found.append((f"{name}, line {number}", json.loads(line)))
        except (ValueError, RecursionError):
            raise UserError(f"{name}, line {number}: expected a JSON object") from None
    return found


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _looks_like_a_row(line: str) -> bool:
    if not _is_json(line):
        return True
    value = json.loads(line)
    return isinstance(value, dict) and bool(set(value) & _ROW_KEYS)


def _whole(text: str, what: str, name: str) -> Iterator[tuple[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} {name} is not valid JSON ({error})") from None
    if isinstance(value, dict):
        for key in ("predictions", "results", "data", "ground_truth", "annotations"):
            if isinstance(value.get(key), list):
                value = value[key]
                break
    if isinstance(value, list):
        for number, row in enumerate(value, start=1):
            yield f"{name}, entry {number}", row
    elif isinstance(value, dict):
        for key, row in value.items():
            yield f"{name}, {key!r}", (key, row)
    else:
        raise UserError(f"{what} {name}: expected a list or an object of rows")


# ---- ground truths ----

Keys = tuple[str, ...]
_VIDEO: Keys = tuple("vid video video_id image_id video_name video_uid video_path".split())
_TEXT: Keys = tuple("query text sentence caption question temporal_question description".split())
_ID: Keys = tuple("qid id question_id query_id key annotation_id idx".split())
_TRUE: Keys = tuple(
    "relevant_windows windows timestamps timestamp truth gt location clue_intervals span "
    "answer".split()
)
_SAID: Keys = tuple(
    "pred_relevant_windows pred_windows predicted_windows pred_timestamps pred prediction "
    "predictions windows timestamps timestamp intervals interval location temporal "
    "answer_temporal filtered_resps resps response output model_output generated_text answer "
    "text_output".split()
)
_ROW_KEYS = {*_VIDEO, *_ID, *_SAID, "doc_id", "doc"}


def _first(row: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if key in row), None)


def _plain(name: Any) -> str:
    """A name without what differs between mirrors: folders, file endings, case of blanks."""
    text = str(name).replace("\\", "/").rsplit("/", 1)[-1]
    return re.sub(r"\.(mp4|mkv|webm|avi|mov|3gp)$", "", text.strip(), flags=re.I)


def _phrase(text: Any) -> str:
    return " ".join(str(text).split()).rstrip(" .").lower()


def _names(index: int, video: Any, text: Any, row_id: Any = None) -> tuple[str, ...]:
    """What a prediction may call query `index` of a file."""
    names = [f"id {row_id}"] if row_id is not None else []
    if video is not None and row_id is not None:
        names.append(f"video {_plain(video)} id {row_id}")
    if video is not None and text:
        names.append(f"video {_plain(video)} text {_phrase(text)}")
    return (*names, f"index {index}")


def _true_windows(value: Any, where: str) -> tuple[Interval, ...]:
    if value is None or value == []:
        return ()
    pairs = value if isinstance(value, list | tuple) and _nested(value) else [value]
    try:
        return tuple(Interval(float(start), float(end)) for start, end in pairs)
    except (TypeError, ValueError, UserError):
        raise UserError(
            f"{where}: true windows {json.dumps(value)[:80]}; expected [start_s, end_s] or a list "
            "of such pairs"
        ) from None


def _nested(value: Any) -> bool:
    return bool(value) and all(isinstance(x, list | tuple) for x in value)


def _duration(row: dict[str, Any]) -> float | None:
    value = _first(row, ("duration", "duration_s", "video_duration", "length"))
    if value is None and row.get("fps") and _first(row, ("frame_count", "num_frames")):
        value = _first(row, ("frame_count", "num_frames")) / row["fps"]
    try:
        return float(value) if value is not None and 0 < float(value) < math.inf else None
    except (TypeError, ValueError):
        return None


def read_truth(path: Path, kind: str) -> list[Query]:
    """The queries of a ground-truth file of one of FORMATS. Charades-STA may be the text file, the
    dict of ActivityNet or JSON lines. UserError, with the line, for what is none.
    """
    if kind not in FORMATS:
        raise UserError(f"unknown format {kind!r}: expected one of {', '.join(FORMATS)}")
    path = Path(path)
    if kind == "charades" and "##" in _text_of(path, "ground truth")[:4000]:
        return _charades(path)
    queries: list[Query] = []
    for where, row in _rows(path, "ground truth"):
        if isinstance(row, tuple):
            video, entry = row
            queries += _of_one_video(where, video, entry, len(queries))
        else:
            queries.append(_of_row(where, row, len(queries)))
    if not queries:
        raise UserError(f"ground truth {path.name} holds no query")
    return queries


def _charades(path: Path) -> list[Query]:
    queries: list[Query] = []
    for number, line in enumerate(_text_of(path, "ground truth").split("\n"), start=1):
        if not line.strip():
            continue
        head, mark, text = line.partition("##")
        fields = head.split()
        where = f"{path.name}, line {number}"
        if not mark or len(fields) != 3:
            raise UserError(f"{where}: expected VIDEO START END##sentence")
        windows = _true_windows(fields[1:], where)
        names = _names(len(queries), fields[0], text)
        queries.append(Query(fields[0], text.strip(), windows, names))
    return queries


def _of_row(where: str, row: Any, index: int) -> Query:
    value = _first(row, _TRUE) if isinstance(row, dict) else None
    if not isinstance(row, dict) or not any(key in row for key in _TRUE):
        raise UserError(
            f"{where}: expected an object with a video, a query and its windows ({_TRUE[0]})"
        )
    video, text, row_id = (_first(row, keys) for keys in (_VIDEO, _TEXT, _ID))
    names = _names(index, video, text, row_id)
    if row_id is None and video is not None:
        names += (f"id {_plain(video)}",)
    return Query(
        _plain(video or index), str(text or ""), _true_windows(value, where), names, _duration(row)
    )


def _of_one_video(where: str, video: str, row: Any, first: int) -> list[Query]:
    """The queries of a dict entry: ActivityNet's timestamps and sentences (TACoS's in frames), or
    NExT-GQA's location by question.
    """
    if not isinstance(row, dict) or not ({"timestamps", "location"} & set(row)):
        raise UserError(f"{where}: expected an object with timestamps and sentences, or location")
    duration_s = _duration(row)
    if "location" in row:
        return [
            Query(
                video,
                "",
                _true_windows(windows, where),
                _names(first + n, video, "", qid),
                duration_s,
            )
            for n, (qid, windows) in enumerate(row["location"].items())
        ]
    pairs, texts = row["timestamps"], row.get("sentences", [])
    if len(texts) != len(pairs):
        raise UserError(f"{where}: {len(pairs)} timestamps for {len(texts)} sentences")
    in_frames = "num_frames" in row and "duration" not in row
    scale = 1 / row["fps"] if in_frames and row.get("fps") else 1.0
    return [
        Query(
            video,
            text.strip(),
            tuple(Interval(w.start_s * scale, w.end_s * scale) for w in _true_windows(pair, where)),
            _names(first + n, video, text, n),
            duration_s,
        )
        for n, (pair, text) in enumerate(zip(pairs, texts, strict=True))
    ]


def read_durations(path: Path) -> dict[str, float]:
    """Seconds by video, from a JSON object or a CSV with the columns id (or video) and length (or
    duration), for a ground truth that does not tell them.
    """
    text = _text_of(path, "durations")
    try:
        if text.lstrip().startswith("{"):
            return {_plain(video): float(value) for video, value in json.loads(text).items()}
        rows = list(csv.DictReader(io.StringIO(text)))
        videos = [_first(row, ("id", *_VIDEO)) for row in rows]
        return {
            _plain(video): float(_first(row, ("length", "duration", "duration_s")))
            for video, row in zip(videos, rows, strict=True)
        }
    except (TypeError, ValueError):
        raise UserError(
            f"durations {Path(path).name}: expected a JSON object of seconds by video, or a CSV "
            "with id and length"
        ) from None


# ---- predictions ----


def given_from(value: Any, where: str, duration_s: float | None = None) -> Given:
    """An answer of any shape: a text, [start, end], [start, end, score], several of either, pairs
    of clock texts, dicts with a start and an end, "not there". None, [] and a text without an
    interval are unparsable, not refused. UserError with `where` for any other shape.
    """
    if value is None or value == []:
        return Given()
    if isinstance(value, str):
        return _from_text(value, duration_s)
    if isinstance(value, dict):
        return _from_text(json.dumps(value), duration_s)
    if not isinstance(value, list):
        raise _no_answer(value, where)
    if len(value) == 1 and isinstance(value[0], str | list) and not _is_triple(value[0]):
        return given_from(value[0], where, duration_s)  # lmms-eval: [["the text"]]
    if _is_triple(value):
        return _from_rows([value], where)
    if all(map(_is_triple, value)):
        return _from_rows(value, where)
    if len(value) == 2 and all(isinstance(time, str) for time in value):
        pair = _from_text(f"{value[0]} to {value[1]}", duration_s)
        return pair if pair.spans else _from_text("; ".join(value), duration_s)
    parts = [given_from(part, where, duration_s) for part in value if isinstance(part, str | dict)]
    if len(parts) != len(value) or not all(part.spans for part in parts):
        raise _no_answer(value, where)
    return Given(tuple(span for part in parts for span in part.spans))


def _no_answer(value: Any, where: str) -> UserError:
    return UserError(
        f"{where}: answer {json.dumps(value)[:80]}; expected a text, [start_s, end_s], [start_s, "
        "end_s, score], a list of these, or an object with start and end"
    )


def _from_text(text: str, duration_s: float | None) -> Given:
    reading = read_answer(text, duration_s=duration_s)
    return Given(reading.intervals, absent=reading.absent)


def _is_triple(value: Any) -> bool:
    """[start, end] or [start, end, score]"""
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)
    )


def _from_rows(rows: Sequence[Sequence[float]], where: str) -> Given:
    if all(row[0] == row[1] < 0 for row in rows):
        return Given(absent=True)  # [-1, -1]
    try:
        spans = tuple(Interval(row[0], row[1]) for row in rows)
        scores = tuple(float(row[2]) for row in rows) if all(len(r) == 3 for r in rows) else ()
    except (UserError, OverflowError):
        scores, spans = (math.nan,), ()
    if not all(map(math.isfinite, scores)):
        raise _no_answer(list(rows), where)
    return Given(spans, scores)


def read_answers(
    path: Path,
) -> list[tuple[str, tuple[str, ...], Any, dict[str, float]]]:
    """The rows of a predictions file: where each stands, the names of its query (as `Query.names`),
    the answer as written, and the numbers beside it. JSON lines, a JSON list, an object by query or
    by video and question, or lmms-eval's samples.
    """
    found = []
    for where, row in _rows(path, "predictions"):
        if isinstance(row, tuple):
            found += list(_by_key(where, *row))
        elif isinstance(row, dict):
            found.append(_by_row(where, row))
        else:
            raise UserError(f"{where}: expected an object with an id and an answer")
    return found


def _by_key(where: str, key: str, row: Any) -> Iterator[tuple[str, tuple[str, ...], Any, Any]]:
    """An entry of an object: {query: answer}, {video: {question: answer}}, {query: row}"""
    if isinstance(row, dict) and not set(row) & _ROW_KEYS and _by_question(row):
        for qid, answer in row.items():
            said = answer.get("location", answer) if isinstance(answer, dict) else answer
            yield f"{where} {qid!r}", (f"video {_plain(key)} id {qid}",), said, {}
        return
    if isinstance(row, dict) and set(row) & set(_SAID):
        yield _by_row(where, {"id": key, **row})
    else:
        yield where, (f"id {key}", f"id {_plain(key)}"), row, {}


def _by_question(row: dict[str, Any]) -> bool:
    """Whether an object holds answers by question, and is not an answer itself."""
    words = re.compile(r"start|end|begin|stop|from|to|finish", re.I)
    return not any(words.search(str(key)) for key in row)


def _by_row(where: str, row: dict[str, Any]) -> tuple[str, tuple[str, ...], Any, dict[str, float]]:
    doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
    merged = {**doc, **row}
    said = next((key for key in _SAID if key in row), None)
    video, text, row_id = (_first(merged, keys) for keys in (_VIDEO, _TEXT, _ID))
    names: list[str] = []
    if video is not None and row_id is not None:
        names.append(f"video {_plain(video)} id {row_id}")
    if row_id is not None:
        names.append(f"id {row_id}")
    if video is not None and text:
        names.append(f"video {_plain(video)} text {_phrase(text)}")
    if "doc_id" in row:
        names.append(f"index {row['doc_id']}")
    if video is not None and row_id is None and not text:
        names.append(f"id {_plain(video)}")
    if said is None or not names:
        raise UserError(
            f"{where}: expected an id ({_ID[0]}, or {_VIDEO[0]} and {_TEXT[0]}) and an answer "
            f"({_SAID[0]}, answer, response ...)"
        )
    extra = {
        name: float(row[name])
        for name in ("rating", "viou")
        if isinstance(row.get(name), int | float)
    }
    return where, tuple(names), row[said], extra


@dataclass(frozen=True)
class Matched:
    """One answer per query (None: none was given), and how the two files fitted."""

    answers: tuple[Given | None, ...]
    missing: int
    extra: int
    duplicates: int


def match(queries: Sequence[Query], path: Path) -> Matched:
    """The answers of a predictions file by query. Of several for one query the first counts; equal
    videos and sentences are answered in turn. What has no answer stays in, what belongs to no
    query is counted.
    """
    by_name: dict[str, list[int]] = {}
    for n, query in enumerate(queries):
        for name in query.names:
            by_name.setdefault(name, []).append(n)
    answers: list[Given | None] = [None] * len(queries)
    extra = duplicates = 0
    for where, names, value, numbers in read_answers(path):
        wanted = _known(names, by_name)
        if not wanted:
            given_from(value, where)  # a bad shape is refused, whatever it belongs to
            extra += 1
            continue
        free = [n for n in wanted if answers[n] is None]
        given = given_from(value, where, queries[wanted[0]].duration_s)
        if not free:
            duplicates += 1
            continue
        answers[free[0]] = replace(given, extra=numbers)
    return Matched(tuple(answers), answers.count(None), extra, duplicates)


def _known(names: Sequence[str], by_name: dict[str, list[int]]) -> list[int]:
    """The queries that the first unambiguous name means, else all that share the first known."""
    known = [by_name[name] for name in names if name in by_name]
    return next((one for one in known if len(one) == 1), known[0] if known else [])


# ---- scores ----


@dataclass(frozen=True)
class Report:
    """What `score` found: `metrics` "bucket/name" -> value, low, high, n; `baselines` the same for
    answers that look at nothing; `counts` of what failed or was repaired; `notes` in words.
    """

    format: str
    queries: int
    strict: bool
    predictions: dict[str, str]
    metrics: dict[str, dict[str, Any]]
    baselines: dict[str, dict[str, float]]
    counts: dict[str, int]
    notes: tuple[str, ...]


def score(
    predictions: Path,
    truth: Path,
    kind: str,
    *,
    strict: bool = False,
    durations: Path | None = None,
) -> Report:
    """Score a predictions file against a ground truth of one of FORMATS. With `strict` answers that
    need a repair (reversed, negative, past the end) score 0. UserError as the readers raise.
    """
    queries = _with_durations(read_truth(truth, kind), durations)
    matched = match(queries, predictions)
    counts: Counter[str] = Counter(
        missing=matched.missing, extra=matched.extra, duplicates=matched.duplicates
    )
    answers = [
        _prepared(given, query, strict, counts)
        for given, query in zip(matched.answers, queries, strict=True)
    ]
    counts["unparsable"] = sum(
        given is not None and not given.spans and not given.absent for given in matched.answers
    )
    counts["said_absent"] = sum(given is not None and given.absent for given in matched.answers)
    if len(queries) == matched.missing:
        raise UserError(
            f"predictions {Path(predictions).name}: none of its {matched.extra} rows belongs to a "
            f"query of {Path(truth).name}; expected ids such as {queries[0].names[0]!r}"
        )
    notes = _notes(queries, matched, kind)
    return Report(
        kind,
        len(queries),
        strict,
        {"file": Path(predictions).name, "sha256": file_hash(predictions)},
        _metrics(queries, answers, kind),
        _baselines(queries),
        {name: counts[name] for name in COUNTS},
        notes,
    )


COUNTS = tuple("unparsable missing duplicates extra said_absent reversed clipped empty".split())


def _with_durations(queries: list[Query], path: Path | None) -> list[Query]:
    if path is None:
        return queries
    seconds = read_durations(path)
    return [
        replace(query, duration_s=seconds.get(query.video, query.duration_s)) for query in queries
    ]


def _prepared(given: Given | None, query: Query, strict: bool, counts: Counter[str]) -> Given:
    """An answer inside its video; what had to be repaired is counted, and with `strict` taken out.

    Annotations may pass the end of the video by a little; an answer may, so far.
    """
    if given is None:
        return Given()
    spans = list(given.spans)
    if query.duration_s is not None:
        end_s = max([query.duration_s, *(window.end_s for window in query.windows)])
        spans = [s.clipped_to(end_s) if s.end_s > end_s + 1e-3 else s for s in spans]
    for flag in ("reversed", "clipped", "empty"):
        counts[flag] += any(flag in span.flags for span in spans)
    kept = [not strict or not {"reversed", "clipped"} & set(span.flags) for span in spans]
    scores = given.scores
    return replace(
        given,
        spans=tuple(span for span, keep in zip(spans, kept, strict=True) if keep),
        scores=tuple(x for x, keep in zip(scores, kept, strict=True) if keep) if scores else (),
    )


def _notes(queries: Sequence[Query], matched: Matched, kind: str) -> tuple[str, ...]:
    notes = ["recall: the first listed interval against the best true window; unparsable, missing"]
    notes[0] += " and absent answers score 0 and stay in the denominator"
    if any(query.duration_s is None for query in queries):
        notes.append("durations are not all known: no clipping to the end, no baselines there")
    rated = [given for given in matched.answers if given and {"rating", "viou"} <= set(given.extra)]
    if kind == "vstar" and not rated:
        notes.append(
            "V-STaR's AM and LGM need a judge's rating (0 to 3) and a visual IoU in each row "
            "(rating, viou): left out"
        )
    return tuple(notes)


def _bucket(duration_s: float | None) -> str:
    if duration_s is None:
        return "unknown length"
    return "lt3min" if duration_s < 180 else "3to10min" if duration_s <= 600 else "gt10min"


def _metrics(
    queries: Sequence[Query], answers: Sequence[Given], kind: str
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    present = [n for n, query in enumerate(queries) if query.windows]
    buckets = {"all": present}
    for n in present:
        buckets.setdefault(_bucket(queries[n].duration_s), []).append(n)
    for bucket, chosen in buckets.items():
        if chosen:
            pairs = [(queries[n], answers[n]) for n in chosen]
            found |= {f"{bucket}/{name}": value for name, value in _scores(pairs, kind).items()}
    absent = [n for n, query in enumerate(queries) if not query.windows]
    if absent:
        right = [float(answers[n].absent) for n in absent]
        found["absent/said_absent"] = _estimate(right, [queries[n].video for n in absent])
    return found


def _scores(pairs: Sequence[tuple[Query, Given]], kind: str) -> dict[str, dict[str, Any]]:
    """The metrics of some queries, "name" -> value, low, high, n."""
    videos = [query.video for query, _ in pairs]
    first = [_best(given.spans[:1], query.windows) for query, given in pairs]
    five = [_best(given.spans[:5], query.windows) for query, given in pairs]
    values: dict[str, list[float]] = {}
    for m in THRESHOLDS:
        values[f"r1@{m}"] = [float(iou >= m) for iou in first]
    for m in THRESHOLDS:
        values[f"r5@{m}"] = [float(iou >= m) for iou in five]
    values["miou"] = first
    if kind == "nextgqa":
        iop = [_iop(given.spans[:1], query.windows) for query, given in pairs]
        values["miop"] = iop
        values |= {f"iop@{m}": [float(x >= m) for x in iop] for m in (0.3, 0.5)}
    found = {name: _estimate(column, videos) for name, column in values.items()}
    scored = all(given.scores or not given.spans for _, given in pairs)
    means = mean_average_precision(
        [list(given.spans) for _, given in pairs],
        [list(query.windows) for query, _ in pairs],
        [list(given.scores) for _, given in pairs] if scored else None,
    )
    for name, mean in means.items():
        label = "map" if name == "full" else f"map_{name}"
        found[label] = {"value": mean.average, "low": None, "high": None, "n": mean.n}
    rated = [given for _, given in pairs if {"rating", "viou"} <= set(given.extra)]
    if kind == "vstar" and len(rated) == len(pairs):
        parts = (
            float(np.mean([given.extra["rating"] >= RIGHT_RATING for given in rated])),
            float(np.mean(first)),
            float(np.mean([given.extra["viou"] for given in rated])),
        )
        for name, value in (("am", vstar_am(*parts)), ("lgm", vstar_lgm(*parts))):
            found[name] = {"value": value, "low": None, "high": None, "n": len(pairs)}
    return found


def _best(spans: Sequence[Interval], windows: Sequence[Interval]) -> float:
    return max((tiou(span, window) for span in spans for window in windows), default=0.0)


def _iop(spans: Sequence[Interval], windows: Sequence[Interval]) -> float:
    """Share of the answer that lies in the best true window; an answer of no length has none."""
    return max(
        (
            overlap_s(span, window) / span.duration_s
            for span in spans
            for window in windows
            if span.duration_s > 0
        ),
        default=0.0,
    )


def _estimate(values: Sequence[float], videos: Sequence[str]) -> dict[str, Any]:
    if len(set(videos)) < SHORTEST_NUMBER_OF_VIDEOS:
        return {"value": float(np.mean(values)), "low": None, "high": None, "n": len(values)}
    found = bootstrap(values, list(videos))
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _baselines(queries: Sequence[Query]) -> dict[str, dict[str, float]]:
    """R1 and mIoU of the whole video and of its middle third, on queries of known duration."""
    known = [q for q in queries if q.duration_s is not None and q.windows]
    found: dict[str, dict[str, float]] = {}
    for name, guess in (("whole video", whole_video), ("middle third", centre_window)):
        if known:
            ious = np.array([_best([guess(q.duration_s or 0.0)], q.windows) for q in known])
            found[name] = {f"r1@{m}": float((ious >= m).mean()) for m in THRESHOLDS}
            found[name] |= {"miou": float(ious.mean()), "n": len(known)}
    return found


# ---- the table ----


def table(report: Report) -> str:
    """The report as text: percent, a row a bucket, baselines beneath, then counts and notes."""
    buckets = list(dict.fromkeys(key.partition("/")[0] for key in report.metrics))
    told = dict.fromkeys(key.partition("/")[2] for key in report.metrics)
    names = [name for name in told if name != "said_absent"]
    head = ["", "n", *names]
    rows = [head]
    for bucket in buckets:
        if f"{bucket}/miou" in report.metrics:
            cells = [report.metrics.get(f"{bucket}/{name}") for name in names]
            count = str(report.metrics[f"{bucket}/miou"]["n"])
            rows.append(
                [bucket, count, *(_shown(name, c) for name, c in zip(names, cells, strict=True))]
            )
    for baseline, values in report.baselines.items():
        cells = [{"value": values[name]} if name in values else None for name in names]
        rows.append(
            [baseline, str(values["n"]), *(_shown(n, c) for n, c in zip(names, cells, strict=True))]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    if said := report.metrics.get("absent/said_absent"):
        lines.append(f"evidence absent: {100 * said['value']:.2f} % of {said['n']} told so")
    counted = ", ".join(f"{report.counts[name]} {name.replace('_', ' ')}" for name in COUNTS[:5])
    repaired = ", ".join(f"{report.counts[name]} {name}" for name in COUNTS[5:])
    rule = "score 0 (--strict)" if report.strict else "repaired (--strict scores them 0)"
    lines += [f"of {report.queries} queries: {counted}", f"{repaired}; reversed and clipped {rule}"]
    return "\n".join([*lines, *report.notes])


def _shown(name: str, cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return f"{cell['value']:.4f}" if name in ("am", "lgm") else f"{100 * cell['value']:.2f}"
