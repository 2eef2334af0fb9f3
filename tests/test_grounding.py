"""From a file to an answer, and from systems to a result file, with random weights: what is proven
here is the path, not the skill.
"""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
import torch

from timescope_lite import bench, grounding
from timescope_lite.baselines import NO_BUDGET, SYSTEMS, Video, two_stage_fit
from timescope_lite.common import UserError
from timescope_lite.corpus import SPLITS, Split, Symbols, build, plan, read_questions, story_of
from timescope_lite.datasets.prompts import Writer, in_plain_words, vocabulary_of
from timescope_lite.evaluate import (
    Videos,
    Weights,
    differences,
    evaluate,
    hops_of,
    row_of,
    run_systems,
    summarise,
)
from timescope_lite.grounding import ground
from timescope_lite.memory import Memory
from timescope_lite.model.checkpoint import load, save, write_manifest
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.reading import Coarse
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import SO
from timescope_lite.model.two_stage import Answer, describe, locate, plan_window
from timescope_lite.results import read_result
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import tell
from timescope_lite.world.tasks import ask

DOMAINS = list(load_domains().values())


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory):
    torch.manual_seed(0)
    encoder = FrameEncoder(
        FrameEncoderConfig(
            feature_width=32, stem=8, middle=8, patch=8, fields=Symbols(DOMAINS).sizes
        )
    )
    model = TimeScope(ModelConfig(feature_width=32), vocabulary_of(DOMAINS), encoder, {"seed": 0})
    return save(tmp_path_factory.mktemp("weights") / "random.safetensors", model)


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A built split of two short videos: (folder, root)."""
    SPLITS["mini"] = Split(videos=2, seconds=(64, 90), questions=3, seed=9)
    root = tmp_path_factory.mktemp("videos")
    yield build("mini", root=root), root
    del SPLITS["mini"]


TASK = f"When does the {DOMAINS[0].activity(3)} at the {DOMAINS[0].place(7)}?"


def test_ground_answers_inside_the_video(checkpoint_file, mini):
    video = mini[0] / "mini_001.mp4"
    found = ground(video, TASK, checkpoint=checkpoint_file)
    assert found.duration_s == 90
    assert 0 <= found.interval.start_s < found.interval.end_s <= 90
    assert (
        found.window.start_s % 16 == 0
        and 0 < found.reload_share <= 1
        and 0 <= found.confidence <= 1
    )
    assert json.dumps(found.as_dict(), default=str)
    again = ground(video, TASK, checkpoint=checkpoint_file)
    assert dataclasses.replace(again, counters={}) == dataclasses.replace(found, counters={}), (
        "the same question has the same answer"
    )


def test_no_answer_ends_after_the_video_does(checkpoint_file, tmp_path):
    """70 frames at 4 a second last 17.5 s; the eighteenth frame of one a second has half of one."""
    frames = [np.full((64, 64, 3), i, np.uint8) for i in range(70)]
    model = load(checkpoint_file)
    memory = model.encode_video(write_mp4(tmp_path / "short.mp4", frames, 4.0), progress=False)
    assert memory.num_valid == 18 and memory.duration_s == pytest.approx(17.5)
    last = Answer(17.0, 18.0, (16.0, 18.0))
    found = describe(model, memory, last)
    assert found.interval.end_s == found.window.end_s == found.duration_s == memory.duration_s
    memory.save(tmp_path / "kept")
    assert Memory.load(tmp_path / "kept", model).duration_s == memory.duration_s


def test_a_video_of_one_frame(checkpoint_file, tmp_path):
    path = write_mp4(tmp_path / "one.mp4", [np.full((128, 128, 3), 90, np.uint8)], 1.0)
    found = ground(path, TASK, checkpoint=checkpoint_file)
    assert (found.interval.start_s, found.interval.end_s) == (0, 1)


def test_the_file_is_read_as_frames_would_be(checkpoint_file, mini):
    """Streaming an mp4 gives the features of its frames, whatever the length of the last
    segment.
    """
    ready = load(checkpoint_file)
    video = Videos(Weights(checkpoint_file), mini[0] / "mini_001.mp4").of("two_stage")
    assert video.num_valid == 90 and video.features.shape[0] == 96
    memory, again = ready.encode_video(mini[0] / "mini_001.mp4"), video.memory(16)
    assert memory.num_valid == again.num_valid == 90
    assert all(
        torch.allclose(a, b, atol=1e-5)
        for one, two in zip(memory.hvr, again.hvr, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def memory_of(segments=8, r=8):
    torch.manual_seed(0)
    model = TimeScope(ModelConfig(feature_width=8), vocabulary_of(DOMAINS[:1]))
    return model, model.stream([(torch.randn(16, 1, 8), 16) for _ in range(segments)], r)


@pytest.mark.parametrize(
    ("window", "confidence", "options", "expected", "note"),
    [
        ((2, 3), 0.9, {}, (2, 3), ""),
        ((0, 0), 0.9, {"margin": 1}, (0, 1), ""),
        ((2, 3), 0.2, {"threshold": 0.5}, (1, 4), "widened: low confidence"),
        ((1, 6), 0.9, {"budget": 16 + 3 * 14}, (2, 4), "narrowed to the budget of 58 frames"),
        ((7, 7), 0.9, {"margin": 2, "budget": 16 + 14}, (7, 7), ""),
    ],
)
def test_the_window_is_planned_within_the_budget(window, confidence, options, expected, note):
    _, memory = memory_of()
    chosen, said = plan_window(Coarse([], window, confidence), memory, **options)
    assert (chosen, said) == (expected, note)
    if "budget" in options:
        assert memory.attended_frames(chosen) <= options["budget"]


def test_a_budget_without_room_for_a_segment_is_refused():
    _, memory = memory_of()
    with pytest.raises(
        UserError,
        match=(
            "a budget of 20 frames has no room to reload one segment of this video: 30 are needed "
            "at r=8"
        ),
    ):
        plan_window(Coarse([], (0, 0), 1.0), memory, budget=20)


def test_at_r1_a_reload_adds_nothing_but_the_video_itself_must_fit():
    _, memory = memory_of(r=1)
    assert plan_window(Coarse([], (2, 3), 1.0), memory, budget=128)[0] == (2, 3)
    with pytest.raises(
        UserError, match="a budget of 127 frames has no room .* 128 are needed at r=1"
    ):
        plan_window(Coarse([], (2, 3), 1.0), memory, budget=127)


def test_answers_never_attend_beyond_their_budget(checkpoint_file, mini):
    ready, (folder, _) = load(checkpoint_file), mini
    items = [item for item in read_questions(folder) if item.video == "mini_001.mp4"]
    videos = Videos(Weights(checkpoint_file), folder / "mini_001.mp4")
    writer = Writer(ready.vocabulary, DOMAINS)
    rows = run_systems(videos.of, items, writer, SYSTEMS, (32, 48))
    seen = {row["system"] for row in rows}
    assert seen == {
        name if name in NO_BUDGET else f"{name}@{budget}" for name in SYSTEMS for budget in (32, 48)
    }
    for row in rows:
        if "@" in row["system"]:
            assert row["attended_frames"] <= float(row["system"].split("@")[1]) + 1e-9, row[
                "system"
            ]
        assert 0 <= row["answer"][0] < row["answer"][1] <= 90


def test_the_least_compression_that_fits_is_chosen():
    model, _ = memory_of()
    video = Video(model, torch.randn(256, 1, 8), 256)
    assert [video.least_r(budget) for budget in (256, 255, 128, 64, 16)] == [1, 2, 2, 4, 16]
    with pytest.raises(
        UserError, match="does not fit into 15 frames' worth even at r=16; raise the budget"
    ):
        video.least_r(15)


def test_the_least_compression_that_was_fine_tuned_is_chosen(monkeypatch):
    video, seen = Video(memory_of()[0], torch.randn(256, 1, 8), 250), []
    monkeypatch.setattr(
        "timescope_lite.baselines.locate", lambda model, memory, *_: seen.append(memory.r)
    )
    for budget in (600, 128, 127, 64, 63, 1):
        two_stage_fit(video, [], [], budget)
    assert seen == [4, 4, 8, 8, 16, 16]


def test_the_window_alone_is_read_without_the_rest(checkpoint_file, mini):
    video = Videos(Weights(checkpoint_file), mini[0] / "mini_001.mp4").of("two_stage")
    prompts = [load(checkpoint_file).prompt(TASK)]
    with_rest, alone = (
        SYSTEMS[name](video, prompts, [], 64)[0] for name in ("two_stage", "window_alone")
    )
    assert with_rest.window == alone.window and with_rest.chain == alone.chain
    assert alone.attended_frames == alone.reload_frames < with_rest.attended_frames


def test_shuffled_and_blank_frames_are_what_they_say():
    model, _ = memory_of()
    video = Video(model, torch.randn(32, 1, 8), 30)
    shuffled = torch.cat([part for part, _ in video._segments(1, "shuffled")])[:30]
    assert not torch.equal(shuffled, video.features[:30])
    assert set(map(tuple, shuffled[:, 0].tolist())) == set(
        map(tuple, video.features[:30, 0].tolist())
    )
    assert not torch.cat([part for part, _ in video._segments(1, "blank")]).any()
    strided = video._segments(4, "true")
    assert strided[0][1] == 8 and torch.equal(strided[0][0][:8], video.features[:30:4])


def test_dense_is_two_stage_with_everything_reloaded(checkpoint_file, mini):
    """Same encode (r = 1), window = whole video: both read all DVR."""
    ready = load(checkpoint_file)
    video = Videos(Weights(checkpoint_file), mini[0] / "mini_000.mp4", r=1).of("two_stage")
    items = [item for item in read_questions(mini[0]) if item.video == "mini_000.mp4"]
    writer = Writer(ready.vocabulary, DOMAINS)
    prompts = [[*writer.vocabulary.encode(item.text), 1] for item in items]
    dense = SYSTEMS["dense"](video, prompts, [i.question for i in items], 0)
    memory = video.memory(1)
    for prompt, coarse, answer in zip(prompts, ready.coarse(memory, prompts), dense, strict=True):
        whole = ready.fine(memory.mixed(0, memory.num_segments - 1), memory, prompt, coarse.chain)
        assert whole == (answer.start_s, answer.end_s)


def test_evaluate_writes_a_valid_result(checkpoint_file, mini, tmp_path):
    path = evaluate(
        "mini",
        tmp_path,
        checkpoints=checkpoint_file,
        systems=("two_stage", "whole_video"),
        budgets=(64,),
        root=mini[1],
    )
    result = read_result(path)
    assert result.status == "finished" and result.config["split"] == "mini" and result.seed == 9
    assert {key.split("/")[0] for key in result.metrics} == {"two_stage@64", "whole_video"}
    assert result.metrics["whole_video/all/miou"].n == 6
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    mean = np.mean([row["tiou"] for row in rows if row["system"] == "two_stage@64"])
    assert result.metrics["two_stage@64/all/miou"].value == pytest.approx(mean)
    assert {"coverage", "reload_share"} <= {
        key.split("/")[2] for key in result.metrics if key.startswith("two_stage@64/all")
    }


def test_predictions_of_others_are_scored(mini, tmp_path):
    items = [item for _, items in plan("mini") for item in items]
    answers = [
        f"<think>maybe 1 to 2</think><answer>{i.question.start_s} to {i.question.end_s}</answer>"
        for i in items
    ]
    answers[0], answers[1] = "no idea", [items[1].question.start_s, items[1].question.end_s]
    lines = [
        json.dumps({"video": i.video, "text": i.text, "answer": a})
        for i, a in zip(items, answers, strict=True)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    result = read_result(
        evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1])
    )
    assert result.metrics["predictions/all/r1@0.5"].value == pytest.approx(5 / 6)
    assert result.metrics["predictions/all/unparsable"].value == pytest.approx(1 / 6)
    (tmp_path / "mine.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="have no answer for 1 of 6 questions, first mini_000.mp4"):
        evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1])
    (tmp_path / "mine.jsonl").write_text('{"video": 1}\n')
    with pytest.raises(
        UserError, match="line 1: expected a JSON object with video, text and answer"
    ):
        evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1])


def test_bad_words_are_refused_before_anything_is_decoded(checkpoint_file, tmp_path):
    with pytest.raises(UserError, match="unknown word 'xyzzy'"):
        ground(tmp_path / "absent.mp4", "when xyzzy", checkpoint=checkpoint_file)
    with pytest.raises(UserError, match="no words that say what to look for"):
        ground(tmp_path / "absent.mp4", "  ", checkpoint=checkpoint_file)
    with pytest.raises(UserError, match="absent.mp4"):
        ground(tmp_path / "absent.mp4", TASK, checkpoint=checkpoint_file)


def test_a_symbolic_checkpoint_cannot_read_files(tmp_path, mini):
    path = save(
        tmp_path / "symbols.safetensors",
        TimeScope(ModelConfig(feature_width=8), vocabulary_of(DOMAINS)),
    )
    with pytest.raises(UserError, match="reads symbolic frames and has no frame encoder"):
        ground(mini[0] / "mini_000.mp4", TASK, checkpoint=path)


def test_encode_keeps_both_memories(checkpoint_file, mini, tmp_path):
    from safetensors.torch import load_file

    manifest = json.loads(
        grounding.encode(
            mini[0] / "mini_000.mp4", tmp_path / "memory", checkpoint=checkpoint_file, r=8
        ).read_text()
    )
    hvr = load_file(tmp_path / "memory" / "hvr.safetensors")
    dvr = load_file(tmp_path / "memory" / "dvr.safetensors")
    assert manifest["segments"] == 4 and manifest["frames"] == 64
    assert dvr["layer0.k"].shape == (1, 2, 64, 64) and hvr["layer0.k"].shape == (1, 2, 8, 64)


def test_reasoning_is_told_in_plain_words(checkpoint_file):
    ready = load(checkpoint_file)
    v, so = ready.vocabulary, SO
    one = DOMAINS[0].activity(3)
    two = DOMAINS[0].activity(20)
    place = DOMAINS[0].place(7)
    other = DOMAINS[0].place(9)

    def told(*phrases):
        return in_plain_words(v.said((*v.encode(" ".join(phrases)), so)))

    way = f"Go to the {place}, and from there the sign leads to the {other}."
    assert told(place, other, one) == f"{way} Look for: {one}."
    assert told(place, other, one, two) == f"{way} Look for: the last time {one} before {two}."
    assert told(place, one) == f"Go to the {place}. Look for: {one}."
    assert told(place, other) == way and told(one) == f"Look for: {one}."
    assert in_plain_words(v.said([])) == in_plain_words(v.said([so])) == "(no reasoning)"


@pytest.mark.parametrize("kind", ["explicit", "sign2", "why3", "purpose", "order", "last_before"])
def test_true_reasoning_reads_back_what_the_question_takes(kind, checkpoint_file):
    ready, story = load(checkpoint_file), tell(DOMAINS[5], 512, 3)
    question = ask(story, kind, np.random.default_rng(0))
    chain = Writer(ready.vocabulary, DOMAINS).chain(story, question)
    text = in_plain_words(ready.vocabulary.said(chain))
    named = [story.domain.place(p) for p in question.path] + [
        story.domain.activity(w) for w in (question.word, question.other) if w >= 0
    ]
    at = [text.index(phrase) for phrase in named]
    assert (
        at == sorted(at)
        and text.startswith("Go to the")
        and text.count("the sign leads to") == len(question.path) - 1
    )


def test_locate_reports_what_it_attended(checkpoint_file, mini):
    ready = load(checkpoint_file)
    memory = ready.encode_video(mini[0] / "mini_000.mp4", ready.memory_config(8))
    (answer,) = locate(ready, memory, [ready.prompt(TASK)], budget=40)
    assert isinstance(answer, Answer) and answer.attended_frames <= 40
    segments = (answer.window[1] - answer.window[0]) / 16
    assert answer.attended_frames == 8 + segments * 14


def test_the_scale_bench_counts_what_grows(checkpoint_file, tmp_path, monkeypatch):
    # Random weights may ask for the whole video; a budget of 48 frames' worth keeps the window to
    # two segments.
    monkeypatch.setattr(bench, "locate", partial(locate, budget=48))
    result = read_result(bench.scale(tmp_path, minutes=(2, 1), checkpoint=checkpoint_file))
    value = {key: metric.value for key, metric in result.metrics.items()}
    frame = 2 * 4 * 4 * 32 * 4
    assert (
        value["dense/1min/attended_kv_bytes"] == 64 * frame
        and value["dense/2min/attended_kv_bytes"] == 128 * frame
    )
    assert (
        value["two_stage/2min/attended_kv_bytes"]
        <= 48 * frame
        < value["dense/2min/attended_kv_bytes"]
    )
    assert value["two_stage/1min/rss_bytes"] > 50e6
    with pytest.raises(UserError, match="expected positive lengths"):
        bench.scale(tmp_path, minutes=(0,))


def test_a_shorter_segment_holds_less_and_every_length_is_timed_in_turn(tmp_path):
    metrics = read_result(bench.segments(tmp_path, repeats=2, frames=256)).metrics
    frame = metrics["S=4/all/segment_bytes"].value / 4
    for S in bench.SEGMENTS:
        assert metrics[f"S={S}/all/segment_bytes"].value == S * frame
        assert metrics[f"S={S}/all/working_bytes"].value == (256 / 4 + S) * frame
        assert metrics[f"S={S}/all/seconds"].value > 0 and metrics[f"S={S}/all/seconds"].n == 2
    assert metrics["S=16/all/relative_seconds"].value == 1
    with pytest.raises(UserError, match="expected two or more, and a multiple of 256"):
        bench.segments(tmp_path, repeats=1)


def test_without_history_a_segment_reads_as_if_it_stood_alone():
    model, _ = memory_of()
    video = Video(model, torch.randn(48, 1, 8), 48)
    with_it, alone = video.memory(16), video.memory(16, history=False)
    first = lambda memory, at: memory.dvr.reload(at, at)[-1].k  # noqa: E731
    assert torch.equal(first(with_it, 0), first(alone, 0)) and not torch.allclose(
        first(with_it, 2), first(alone, 2)
    )
    assert video.memory(16, history=False) is alone and video.memory(16) is with_it


def test_a_doubtful_window_is_widened_and_a_sure_one_stays(checkpoint_file, mini, monkeypatch):
    video = Videos(Weights(checkpoint_file), mini[0] / "mini_000.mp4").of("two_stage")
    prompts = [load(checkpoint_file).prompt(TASK)]
    sure = Coarse([], (1, 1), 0.96)
    for confidence, window in ((0.96, (16.0, 32.0)), (0.94, (0.0, 48.0))):
        monkeypatch.setattr(
            TimeScope,
            "coarse",
            lambda *_, confidence=confidence: [dataclasses.replace(sure, confidence=confidence)],
        )
        assert SYSTEMS["widened"](video, prompts, [], 64)[0].window == window
        assert SYSTEMS["two_stage"](video, prompts, [], 64)[0].window == (16.0, 32.0)


def test_each_system_reads_with_its_own_weights_where_it_has_some(checkpoint_file, mini, tmp_path):
    ready = load(checkpoint_file)
    ready.words.data += 1
    ready.about = {"seed": 1}
    save(tmp_path / "own.safetensors", ready)
    (tmp_path / "main.safetensors").write_bytes(checkpoint_file.read_bytes())
    write_manifest(
        tmp_path,
        {
            "two_stage": {"file": "main.safetensors", "result": ""},
            "single_stage": {"file": "own.safetensors", "result": ""},
        },
    )
    weights = Weights(tmp_path)
    assert [
        weights.owner(s) for s in ("two_stage", "single_stage_trained", "single_stage", "dense")
    ] == [
        "two_stage",
        "single_stage",
        "two_stage",
        "two_stage",
    ]
    videos = Videos(weights, mini[0] / "mini_000.mp4")
    assert not torch.equal(
        videos.of("single_stage_trained").model.words, videos.of("single_stage").model.words
    )
    assert (
        videos.of("dense") is videos.of("two_stage")
        and videos.of("single_stage_trained").features is videos.of("two_stage").features
    )
    assert weights.about()["single_stage"]["seed"] == 1
    assert weights.has("single_stage_trained") and weights.has("focus") and not weights.has("dense")
    asked = ("two_stage", "single_stage_trained", "dense")
    out = evaluate(
        "mini", tmp_path / "out", checkpoints=tmp_path, systems=asked, budgets=(128,), root=mini[1]
    )
    result = read_result(out)
    assert result.config["weights"] == {
        "two_stage": "two_stage",
        "single_stage_trained": "single_stage",
    }
    assert result.config["left_out"] == ["dense"] and not any(
        key.startswith("dense") for key in result.metrics
    )
    with pytest.raises(
        UserError, match="no weights for dense are at hand: name a folder with a manifest"
    ):
        evaluate("mini", tmp_path / "out", checkpoints=tmp_path, systems=("dense",), root=mini[1])
    assert (
        result.metrics["two_stage@128 - single_stage_trained@128/all/difference_of_r1@0.5"].n == 6
    )


def test_weights_that_see_otherwise_are_refused(checkpoint_file, tmp_path):
    ready = load(checkpoint_file)
    ready.frame_encoder.mean += 1
    save(tmp_path / "own.safetensors", ready)
    (tmp_path / "main.safetensors").write_bytes(checkpoint_file.read_bytes())
    write_manifest(
        tmp_path,
        {
            "two_stage": {"file": "main.safetensors", "result": ""},
            "dense": {"file": "own.safetensors", "result": ""},
        },
    )
    with pytest.raises(
        UserError,
        match="'dense' in .* has another frame encoder than that of 'two_stage'",
    ):
        Weights(tmp_path).of("dense")


def _row(system, video, text, hit, truth=(1, 2)):
    row = {
        "system": system,
        "video": video,
        "text": text,
        "tiou": float(hit),
        "truth": truth and list(truth),
    }
    return row | {
        "bucket": "lt3min",
        "task": "why",
        "kind": "why",
        "domain": "farm",
        "cue": "hidden",
        "duration_s": 300,
    }


def test_differences_are_paired_question_by_question():
    hits = {"two_stage@128": (1, 1, 0, 1), "uniform@128": (1, 0, 0, 0)}
    rows = [
        _row(system, f"v{i % 2}", f"q{i}", hit)
        for system, found in hits.items()
        for i, hit in enumerate(found)
    ]
    rows += [
        _row("two_stage@128", "v0", "only here", 1),
        _row("uniform@128", "v1", "gone", 0, truth=None),
    ]
    found = differences(rows)
    assert {key.split("/")[0] for key in found} == {"two_stage@128 - uniform@128"}
    everywhere = found["two_stage@128 - uniform@128/all/difference_of_r1@0.5"]
    assert (
        everywhere.value == 0.5 and everywhere.n == 4 and everywhere.low <= 0.5 <= everywhere.high
    )
    assert found["two_stage@128 - uniform@128/ge256s/difference_of_r1@0.5"].value == 0.5


def test_where_both_reload_a_window_their_coverage_is_paired_too_and_misses_have_a_side():
    windows = {"two_stage@128": [(0, 16), (16, 32)], "no_history@128": [(16, 32), (32, 48)]}
    rows = [
        _row(system, f"v{i}", f"q{i}", 1, truth=(4, 6))
        | {
            "window": list(window),
            "covered": window[0] == 0,
            "reload_share": 0.1,
            "said_absent": False,
        }
        | {"unparsable": False, "seconds": 0.0, "confidence": 0.5}
        for system, found in windows.items()
        for i, window in enumerate(found)
    ]
    found = differences(rows)
    assert found["two_stage@128 - no_history@128/all/difference_of_coverage"].value == 0.5
    assert found["two_stage@128 - no_history@128/all/difference_of_r1@0.5"].value == 0
    metrics = summarise(rows)
    assert (
        metrics["two_stage@128/all/late_minus_early"].value == 0.5
        and metrics["no_history@128/all/late_minus_early"].value == 1
    )
    early = [row | {"truth": [60, 62]} for row in rows]
    assert summarise(early)["no_history@128/all/late_minus_early"].value == -1


def test_an_answer_that_the_evidence_is_absent_is_scored_as_such(mini):
    item = next(item for _, items in plan("mini") for item in items)
    q = item.question
    right = Answer(q.start_s, q.end_s, (0.0, 64.0), 0.9, (), 20.0, 64)
    row = row_of(item, "two_stage@64", right, 0.0)
    assert row["tiou"] == 1 and row["covered"] and not row["said_absent"]
    assert row_of(item, "two_stage@64", dataclasses.replace(right, absent=True), 0.0)["tiou"] == 0
    nowhere = dataclasses.replace(
        item, question=dataclasses.replace(q, absent=True, start_s=0, end_s=0)
    )
    row = row_of(nowhere, "two_stage@64", dataclasses.replace(right, absent=True), 0.0)
    assert row["said_absent"] and row["truth"] is None and "covered" not in row
    metrics = summarise([row, row | {"video": "another", "said_absent": False}])
    assert (
        metrics["two_stage@64/all/said_absent"].value == 0.5
        and "two_stage@64/all/r1@0.5" not in metrics
    )


def test_reasoning_is_scored_hop_by_hop(checkpoint_file, mini):
    writer = Writer(load(checkpoint_file).vocabulary, DOMAINS)
    item = next(item for _, items in plan("mini") for item in items if item.question.path)
    true = writer.chain(story_of(item), item.question)
    answer = Answer(0.0, 1.0, None, 0.0, tuple(true), 0.0, 0)
    assert (
        all(hops_of(item, answer, writer)) and len(hops_of(item, answer, writer)) == len(true) - 1
    )
    wrong = dataclasses.replace(answer, chain=(true[-2], *true[1:-2]))
    assert (
        hops_of(item, wrong, writer)[0] is (true[-2] == true[0])
        and not hops_of(item, wrong, writer)[-1]
    )


def test_where_the_evidence_is_absent_nothing_is_shown_to_anybody(
    checkpoint_file, tmp_path, monkeypatch
):
    monkeypatch.setitem(
        SPLITS, "absent", Split(videos=2, seconds=(64, 70), questions=4, seed=9, absent=True)
    )
    asked = ("two_stage", "oracle_window", "whole_video")
    result = read_result(
        evaluate(
            "absent",
            tmp_path / "out",
            checkpoints=checkpoint_file,
            systems=asked,
            budgets=(128,),
            root=tmp_path,
        )
    )
    assert result.config["systems"] == ["two_stage", "whole_video"] and result.config[
        "left_out"
    ] == ["oracle_window"]
    assert {key.split("/")[2] for key in result.metrics} == {"said_absent"}
    with pytest.raises(
        UserError,
        match="oracle_window: shown the true window, and questions of split 'absent' have none",
    ):
        evaluate(
            "absent",
            tmp_path / "out",
            checkpoints=checkpoint_file,
            systems=("oracle_window",),
            root=tmp_path,
        )
