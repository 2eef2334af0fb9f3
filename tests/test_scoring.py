"""Scoring what other programs wrote: every shape of predictions, every format of ground truths, and
the published numbers where a reference is at hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timescope_lite import cli
from timescope_lite.common import UserError
from timescope_lite.intervals import Interval
from timescope_lite.scoring import Given, given_from, read_truth, score, table

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "metrics"
needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason="reference files are not here")

QVH = [
    {
        "qid": 1,
        "query": "a",
        "vid": "v1",
        "duration": 150,
        "relevant_windows": [[10, 20], [40, 60]],
    },
    {"qid": 2, "query": "b", "vid": "v1", "duration": 150, "relevant_windows": [[0, 30]]},
    {"qid": 3, "query": "c", "vid": "v2", "duration": 400, "relevant_windows": [[100, 120]]},
    {"qid": 4, "query": "d", "vid": "v3", "duration": 900, "relevant_windows": [[500, 550]]},
]
RIGHT: list[Any] = [[10, 20], [0, 30], [100, 120], [500, 550]]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(folder: Path, rows: list[Any], truth: list[Any] | None = None, **options: Any) -> Any:
    truths = lines(folder / "truth.jsonl", truth or QVH)
    return score(lines(folder / "pred.jsonl", rows), truths, "jsonl", **options)


# ---- shapes of an answer ----


@pytest.mark.parametrize(
    "value",
    [
        "12.5 to 18.2",
        "<think>3 to 4</think><answer>12.5 - 18.2 s</answer>",
        [12.5, 18.2],
        [[12.5, 18.2]],
        [12.5, 18.2, 0.9],
        [[12.5, 18.2, 0.9]],
        ["12.5", "18.2"],
        ["00:12.5", "00:18.2"],
        [["00:12.5", "00:18.2"]],
        {"start": 12.5, "end": 18.2},
        [{"start": "00:12.5", "end": "00:18.2"}],
        ["12.5 to 18.2"],
        [["from 12.5 to 18.2"]],
        "12.5\u201118.2 s",
        [18.2, 12.5],
    ],
)
def test_one_interval_in_every_shape(value: Any) -> None:
    assert given_from(value, "here").spans == (Interval(12.5, 18.2),)


def test_several_intervals_keep_their_order_and_their_scores() -> None:
    found = given_from([[20, 25, 0.4], [12, 18, 0.9]], "here")
    assert found == Given((Interval(20, 25), Interval(12, 18)), (0.4, 0.9))
    several = given_from(["20 to 25", "12 to 18"], "here")
    assert several.spans == (Interval(20, 25), Interval(12, 18))


@pytest.mark.parametrize("value", ["not in the video", [-1, -1], [[-1, -1]], "[-1, -1]", "None"])
def test_not_there_in_every_shape(value: Any) -> None:
    assert given_from(value, "here") == Given(absent=True)


@pytest.mark.parametrize("value", [None, [], "no idea"])
def test_what_says_nothing_is_unparsable(value: Any) -> None:
    assert given_from(value, "here") == Given()


@pytest.mark.parametrize(
    "value", [5, True, [1, 2, 3, 4], [1], [[1, 2], 3], [float("nan"), 5], [None, 5]]
)
def test_other_shapes_are_refused_by_line(value: Any, tmp_path: Path) -> None:
    rows = [{"qid": 1, "prediction": [10, 20]}, {"qid": 2, "prediction": value}]
    with pytest.raises(UserError, match=r"pred\.jsonl, line 2: answer .*expected a text"):
        scored(tmp_path, rows)


# ---- shapes of a file ----


def test_every_way_to_name_a_query(tmp_path: Path) -> None:
    by_id = [
        {"qid": q["qid"], "pred_relevant_windows": [[*w, 0.5]]}
        for q, w in zip(QVH, RIGHT, strict=True)
    ]
    by_text = [
        {
            "video": f"some/folder/{q['vid']}.mp4",
            "query": q["query"].upper() + " .",
            "response": str(w),
        }
        for q, w in zip(QVH, RIGHT, strict=True)
    ]
    samples = [
        {
            "doc_id": n,
            "doc": {"note": 1},
            "target": "x",
            "resps": [["?"]],
            "filtered_resps": [f"{w[0]} - {w[1]}"],
        }
        for n, w in enumerate(RIGHT)
    ]
    for rows in (by_id, by_text, samples):
        report = scored(tmp_path, rows)
        assert report.metrics["all/r1@0.7"]["value"] == 1, rows[0]
    truths = lines(tmp_path / "truth.jsonl", QVH)
    whole = tmp_path / "whole.json"
    for value in (
        by_id,
        {"results": by_id},
        {str(q["qid"]): w for q, w in zip(QVH, RIGHT, strict=True)},
        {str(q["qid"]): {"pred": w} for q, w in zip(QVH, RIGHT, strict=True)},
        {"v1": {"1": RIGHT[0], "2": RIGHT[1]}, "v2": {"3": RIGHT[2]}, "v3": {"4": RIGHT[3]}},
    ):
        for indent in (None, 1):
            whole.write_text(json.dumps(value, indent=indent))
            assert score(whole, truths, "qvhighlights").metrics["all/miou"]["value"] == 1, value


def test_what_fails_is_counted_and_stays_in_the_denominator(tmp_path: Path) -> None:
    rows = [
        {"qid": 1, "pred": [10, 20]},
        {"qid": 1, "pred": [0, 1]},
        {"qid": 2, "pred": "no idea"},
        {"qid": 3, "pred": "not in the video"},
        {"qid": 99, "pred": [1, 2]},
    ]
    report = scored(tmp_path, rows)
    assert report.metrics["all/r1@0.5"] == {**report.metrics["all/r1@0.5"], "value": 0.25, "n": 4}
    assert {k: v for k, v in report.counts.items() if v} == {
        "unparsable": 1,
        "missing": 1,
        "duplicates": 1,
        "extra": 1,
        "said_absent": 1,
    }
    text = table(report)
    assert "of 4 queries: 1 unparsable, 1 missing, 1 duplicates, 1 extra, 1 said absent" in text
    assert "middle third" in text and "whole video" in text


def test_strict_repairs_nothing(tmp_path: Path) -> None:
    rows = [
        {"qid": 1, "pred": [20, 10]},
        {"qid": 2, "pred": [-2, 30]},
        {"qid": 3, "pred": [100, 120]},
        {"qid": 4, "pred": [500, 950]},
    ]
    report = scored(tmp_path, rows)
    assert report.metrics["all/r1@0.5"]["value"] == 0.75
    assert (report.counts["reversed"], report.counts["clipped"]) == (1, 2)
    strict = scored(tmp_path, rows, strict=True)
    assert strict.metrics["all/r1@0.5"]["value"] == 0.25
    assert strict.counts == report.counts and "--strict" in table(strict)


def test_lengths_several_windows_and_absent_evidence(tmp_path: Path) -> None:
    absent = [{"qid": 5, "vid": "v9", "query": "e", "duration": 60, "relevant_windows": []}]
    rows = [{"qid": q["qid"], "pred": [[70, 80], w]} for q, w in zip(QVH, RIGHT, strict=True)]
    report = scored(tmp_path, [*rows, {"qid": 5, "pred": "It does not occur."}], QVH + absent)
    metrics = report.metrics
    assert (metrics["all/r1@0.3"]["value"], metrics["all/r5@0.7"]["value"]) == (0, 1)
    assert metrics["lt3min/r5@0.5"]["n"] == 2 and metrics["gt10min/r5@0.5"]["n"] == 1
    assert metrics["absent/said_absent"]["value"] == 1 and metrics["all/miou"]["n"] == 4
    assert 0 < metrics["all/map"]["value"] < 1


def test_formats(tmp_path: Path) -> None:
    charades = tmp_path / "c.txt"
    charades.write_text("AB1 5.0 9.0##a person sits.\nAB1 5.0 9.0##a person sits.\n\n")
    first, second = read_truth(charades, "charades")
    assert first.windows == (Interval(5, 9),) and first.text == second.text
    rows = [{"video": "AB1.mp4", "caption": "A person sits", "answer": "5 to 9"}] * 2
    pred = lines(tmp_path / "p.jsonl", rows)
    (tmp_path / "d.csv").write_text("id,length\nAB1,12.0\n")
    report = score(pred, charades, "charades", durations=tmp_path / "d.csv")
    assert report.metrics["all/r1@0.7"]["value"] == 1 and report.baselines["whole video"]["n"] == 2
    captions = tmp_path / "a.json"
    entry = {"duration": 60.0, "timestamps": [[1, 5], [9, 30]], "sentences": [" one.", " two."]}
    captions.write_text(json.dumps({"v_x": entry, "v_y": entry}))
    assert [q.duration_s for q in read_truth(captions, "activitynet")] == [60.0] * 4
    rows = [
        {"vid": v, "sentence": s, "pred": w}
        for v in ("v_x", "v_y")
        for s, w in (("one", [1, 5]), ("two.", [9, 30]))
    ]
    assert score(lines(pred, rows), captions, "activitynet").metrics["all/miou"]["value"] == 1
    gsub = tmp_path / "n.json"
    gsub.write_text(
        json.dumps({"77": {"duration": 50, "location": {"0": [[5, 9], [20, 30]]}, "fps": 30}})
    )
    (tmp_path / "np.json").write_text(json.dumps({"77": {"0": [22, 24]}}))
    report = score(tmp_path / "np.json", gsub, "nextgqa")
    assert (report.metrics["all/miop"]["value"], report.metrics["all/miou"]["value"]) == (1, 0.2)
    vstar = [
        {
            "vid": f"s{n}",
            "fps": 25.0,
            "frame_count": 1500,
            "question": "q",
            "timestamps": [14, 18],
            "answer": "a",
        }
        for n in range(2)
    ]
    rows = [
        {"vid": f"s{n}", "answer_temporal": "[14, 18]", "rating": 3 - 2 * n, "viou": 0.5}
        for n in range(2)
    ]
    truths = tmp_path / "v.json"
    truths.write_text(json.dumps(vstar))
    report = score(lines(pred, rows), truths, "vstar")
    assert report.metrics["all/am"]["value"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert "lgm" in table(report)
    del rows[0]["rating"]
    assert "all/am" not in score(lines(pred, rows), truths, "vstar").metrics


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ('{"a": 1}\n{"b": 2}\n', "expected an object with a video"),
        ("[1, 2]", "entry 1: expected"),
        (
            '[{"qid": 1, "vid": "a", "query": "x", "relevant_windows": "x"}]',
            "entry 1: true windows",
        ),
        ('{"vid": "a", "query": "x", "relevant_windows": [1]}\nnot json\n', "line"),
    ],
)
def test_bad_truths_are_one_line(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(UserError, match=match) as caught:
        read_truth(tmp_path / "t.json", "jsonl")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="unknown format"):
        read_truth(tmp_path / "t.json", "tvr")


def test_predictions_for_another_benchmark_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of its 1 rows belongs to a query"):
        scored(tmp_path, [{"qid": 99, "pred": [1, 2]}])
    with pytest.raises(UserError, match="line 1: expected an id"):
        scored(tmp_path, [{"pred": [1, 2]}])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truths = lines(tmp_path / "t.jsonl", QVH)
    rows = [{"qid": q["qid"], "pred": w} for q, w in zip(QVH, RIGHT, strict=True)]
    pred = lines(tmp_path / "p.jsonl", rows)
    arguments = [
        "score",
        "--predictions",
        str(pred),
        "--truth",
        str(truths),
        "--format",
        "qvhighlights",
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0 and report["metrics"]["all/r1@0.5"]["value"] == 1
    assert len(report["predictions"]["sha256"]) == 64
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert "r1@0.5" in capsys.readouterr().out and stopped.value.code == 0
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments[:-1], "tvr"])
    assert stopped.value.code == 2 and "unknown format 'tvr'" in capsys.readouterr().err


# ---- published numbers ----


@needs_reference
@pytest.mark.parametrize("kind", ["qvhighlights", "jsonl"])
def test_qvhighlights_to_a_hundredth(kind: str, tmp_path: Path) -> None:
    data = json.loads((REFERENCE / "metrics" / "qvhighlights_moment_detr_150.json").read_text())
    pred = lines(tmp_path / "p.jsonl", data["predictions"])
    metrics = score(pred, lines(tmp_path / "t.jsonl", data["ground_truth"]), kind).metrics
    brief = data["expected"]["brief"]
    for name, expected in {
        "r1@0.5": brief["MR-full-R1@0.5"],
        "r1@0.7": brief["MR-full-R1@0.7"],
        "map": brief["MR-full-mAP"],
        "map_long": brief["MR-long-mAP"],
        "map_middle": brief["MR-middle-mAP"],
        "map_short": brief["MR-short-mAP"],
    }.items():
        assert 100 * metrics[f"all/{name}"]["value"] == pytest.approx(expected, abs=0.01), name


@needs_reference
def test_timechat_to_a_hundredth(tmp_path: Path) -> None:
    data = json.loads((REFERENCE / "metrics" / "charades_timechat_tvg_120.json").read_text())
    pred = lines(tmp_path / "p.jsonl", data["predictions"])
    report = score(pred, lines(tmp_path / "t.jsonl", data["ground_truth"]), "charades")
    assert report.counts["unparsable"] == data["counts"]["unparsable"]
    for m in (0.3, 0.5, 0.7):
        expected = data["expected"][f"IOU {m}"]
        assert 100 * report.metrics[f"all/r1@{m}"]["value"] == pytest.approx(expected, abs=0.01)


@needs_reference
@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("charades_sta_test_rows_0001-0200.txt", "charades", 200),
        ("charades_sta_train_reversed_rows.txt", "charades", 2),
        ("charades_sta_dict_format_50_videos.json", "charades", None),
        ("charades_sta_qvh_jsonl_format_60.jsonl", "charades", 60),
        ("activitynet_captions_val_1_62_videos.json", "activitynet", None),
        ("qvhighlights_val_rows_0001-0100.jsonl", "qvhighlights", 100),
        ("rextime_val_rows_0001-0100.jsonl", "rextime", 100),
        ("nextgqa_gsub_val_subset.json", "nextgqa", None),
        ("vstar_format_example_SYNTHETIC.json", "vstar", 1),
        ("tacos_val_frames_format_3_videos.json", "activitynet", 120),
        ("cgbench_mini_70.json", "jsonl", 70),
    ],
)
def test_the_truth_itself_scores_one(
    name: str, kind: str, count: int | None, tmp_path: Path
) -> None:
    path = REFERENCE / "annotations" / name
    queries = read_truth(path, kind)
    assert count is None or len(queries) == count
    rows = [
        {
            "vid": q.video,
            "id": q.names[0].removeprefix("id "),
            "query": q.text,
            "pred": [[w.start_s, w.end_s] for w in q.windows],
        }
        if q.names[0].startswith("id ")
        else {"doc_id": n, "pred": [[w.start_s, w.end_s] for w in q.windows]}
        for n, q in enumerate(queries)
    ]
    report = score(lines(tmp_path / "p.jsonl", rows), path, kind)
    assert report.counts["missing"] == report.counts["extra"] == 0
    assert report.metrics["all/r1@0.7"]["value"] == 1


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample cases are not here")
@pytest.mark.parametrize("name", ["pred_nested", "pred_qvh", "pred_nbhyphen", "pred_pair"])
def test_sample_predictions_of_every_shape_score_alike(name: str, tmp_path: Path) -> None:
    pairs = [json.loads(line) for line in (CASES / "pred_pair.jsonl").read_text().splitlines()]
    truth = [{"video": r["video"], "text": r["text"], "windows": [r["answer"]]} for r in pairs]
    report = score(CASES / f"{name}.jsonl", lines(tmp_path / "t.jsonl", truth), "jsonl")
    assert report.metrics["all/r1@0.7"]["value"] == 1 and report.counts["missing"] == 0


# ---- evaluate --predictions ----------------------------------------------------------------------


def _written(folder: Path, items: list[Any], answers: list[Any]) -> Path:
    rows = [
        {"video": item.video, "text": item.text, "answer": answer}
        for item, answer in zip(items, answers, strict=True)
    ]
    return lines(folder / "p.jsonl", rows)


def test_evaluate_reads_the_same_shapes_and_refuses_by_line(tmp_path: Path) -> None:
    from timescope_lite.corpus import plan
    from timescope_lite.evaluate import read_predictions, score_predictions

    items = next(asked for _, asked in plan("dev"))
    true = [[i.question.start_s, i.question.end_s] for i in items]
    start, end = true[0]
    for shape in ([[start, end, 0.9]], [f"{start} s", f"{end} s"], [{"start": start, "end": end}]):
        given = read_predictions(_written(tmp_path, items[:1], [shape]))
        (row,) = score_predictions(items[:1], given)
        assert row["tiou"] == 1, shape
    (row,) = score_predictions(
        items[:1], read_predictions(_written(tmp_path, items[:1], [[-1, -1]]))
    )
    assert (row["tiou"], row["said_absent"], row["unparsable"]) == (0, True, False)
    with pytest.raises(UserError, match="line 2: answer"):
        read_predictions(_written(tmp_path, items[:2], [true[0], [1, 2, 3, 4]]))
    with pytest.raises(UserError, match="line 2: a second answer"):
        read_predictions(_written(tmp_path, [items[0]] * 2, true[:1] * 2))
    absent = next(asked for _, asked in plan("absent"))
    for answer in ("It is not in the video.", [-1, -1], {"start": -1, "end": -1}):
        rows = score_predictions(
            absent, read_predictions(_written(tmp_path, absent, [answer] * len(absent)))
        )
        assert all(row["said_absent"] and not row["unparsable"] for row in rows)
