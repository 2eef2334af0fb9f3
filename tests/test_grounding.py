"""From a file to an answer, and from systems to a result file, with random weights: what is proven here is the path, not the skill."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from timescope_lite import bench, grounding
from timescope_lite.baselines import NO_BUDGET, SYSTEMS, Video, compression_for
from timescope_lite.common import UserError
from timescope_lite.corpus import SPLITS, Split, build, plan, read_questions
from timescope_lite.evaluate import evaluate, load_video, run_systems
from timescope_lite.grounding import Answer, ground, locate, open_video, plan_window, prompt_of
from timescope_lite.model.checkpoint import load, save
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import Coarse, ModelConfig, TimeScope
from timescope_lite.results import read_result
from timescope_lite.text import Vocabulary, Writer
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import load_domains

DOMAINS = list(load_domains().values())


@pytest.fixture(scope="module")
def checkpoint_file(tmp_path_factory):
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoderConfig(feature_width=32, stem=8, middle=8, patch=8))
    model = TimeScope(ModelConfig(feature_width=32), Vocabulary.of(DOMAINS))
    return save(tmp_path_factory.mktemp("weights") / "random.safetensors", model, encoder, {"seed": 0})


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
    assert found.window.start_s % 16 == 0 and 0 < found.reload_share <= 1 and 0 <= found.confidence <= 1
    assert json.dumps(found.as_dict(), default=str)
    again = ground(video, TASK, checkpoint=checkpoint_file)
    assert dataclasses.replace(again, counters={}) == dataclasses.replace(found, counters={}), "the same question has the same answer"


def test_a_video_of_one_frame(checkpoint_file, tmp_path):
    path = write_mp4(tmp_path / "one.mp4", [np.full((128, 128, 3), 90, np.uint8)], 1.0)
    found = ground(path, TASK, checkpoint=checkpoint_file)
    assert (found.interval.start_s, found.interval.end_s) == (0, 1)


def test_the_file_is_read_as_frames_would_be(checkpoint_file, mini):
    """Streaming an mp4 gives the features of its frames, whatever the length of the last segment."""
    ready = load(checkpoint_file)
    video = load_video(ready, mini[0] / "mini_001.mp4")
    assert video.num_valid == 90 and video.features.shape[0] == 96
    memory, again = open_video(ready, mini[0] / "mini_001.mp4"), video.memory(16)
    assert memory.num_valid == again.num_valid == 90
    assert all(
        torch.allclose(a, b, atol=1e-5) for one, two in zip(memory.hvr, again.hvr, strict=True) for a, b in zip(one, two, strict=True)
    )


def memory_of(segments=8, r=8):
    torch.manual_seed(0)
    model = TimeScope(ModelConfig(feature_width=8), Vocabulary.of(DOMAINS[:1]))
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
    with pytest.raises(UserError, match="a budget of 20 frames has no room to reload one segment of this video: 30 are needed at r=8"):
        plan_window(Coarse([], (0, 0), 1.0), memory, budget=20)


def test_answers_never_attend_beyond_their_budget(checkpoint_file, mini):
    ready, (folder, _) = load(checkpoint_file), mini
    items = [item for item in read_questions(folder) if item.video == "mini_001.mp4"]
    video = load_video(ready, folder / "mini_001.mp4")
    writer = Writer(ready.model.vocabulary, DOMAINS)
    rows = run_systems(video, items, writer, SYSTEMS, (32, 48))
    seen = {row["system"] for row in rows}
    assert seen == {name if name in NO_BUDGET else f"{name}@{budget}" for name in SYSTEMS for budget in (32, 48)}
    for row in rows:
        if "@" in row["system"]:
            assert row["attended_frames"] <= float(row["system"].split("@")[1]) + 1e-9, row["system"]
        assert 0 <= row["answer"][0] < row["answer"][1] <= 90


def test_the_least_compression_that_fits_is_chosen():
    model, _ = memory_of()
    video = Video(model, torch.randn(256, 1, 8), 256)
    assert [compression_for(video, budget) for budget in (256, 255, 128, 64, 16)] == [1, 2, 2, 4, 16]
    with pytest.raises(UserError, match="does not fit into 15 frames' worth even at r=16; raise the budget"):
        compression_for(video, 15)


def test_shuffled_and_blank_frames_are_what_they_say():
    model, _ = memory_of()
    video = Video(model, torch.randn(32, 1, 8), 30)
    shuffled = torch.cat([part for part, _ in video._segments(1, "shuffled")])[:30]
    assert not torch.equal(shuffled, video.features[:30])
    assert set(map(tuple, shuffled[:, 0].tolist())) == set(map(tuple, video.features[:30, 0].tolist()))
    assert not torch.cat([part for part, _ in video._segments(1, "blank")]).any()
    strided = video._segments(4, "true")
    assert strided[0][1] == 8 and torch.equal(strided[0][0][:8], video.features[:30:4])


def test_dense_is_two_stage_with_everything_reloaded(checkpoint_file, mini):
    """Same encode (r = 1), window = whole video: both read all DVR."""
    ready = load(checkpoint_file)
    video = load_video(ready, mini[0] / "mini_000.mp4", r=1)
    items = [item for item in read_questions(mini[0]) if item.video == "mini_000.mp4"]
    writer = Writer(ready.model.vocabulary, DOMAINS)
    prompts = [[*writer.vocabulary.encode(item.text), 1] for item in items]
    dense = SYSTEMS["dense"](video, prompts, [i.question for i in items], 0)
    memory = video.memory(1)
    for prompt, coarse, answer in zip(prompts, ready.model.coarse(memory, prompts), dense, strict=True):
        whole = ready.model.fine(memory.mixed(0, memory.num_segments - 1), memory, prompt, coarse.chain)
        assert whole == (answer.start_s, answer.end_s)


def test_evaluate_writes_a_valid_result(checkpoint_file, mini, tmp_path):
    path = evaluate("mini", tmp_path, checkpoints=checkpoint_file, systems=("two_stage", "whole_video"), budgets=(64,), root=mini[1])
    result = read_result(path)
    assert result.status == "finished" and result.config["split"] == "mini" and result.seed == 9
    assert {key.split("/")[0] for key in result.metrics} == {"two_stage@64", "whole_video"}
    assert result.metrics["whole_video/all/miou"].n == 6
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    mean = np.mean([row["tiou"] for row in rows if row["system"] == "two_stage@64"])
    assert result.metrics["two_stage@64/all/miou"].value == pytest.approx(mean)
    assert {"coverage", "reload_share"} <= {key.split("/")[2] for key in result.metrics if key.startswith("two_stage@64/all")}


def test_predictions_of_others_are_scored(mini, tmp_path):
    items = [item for _, items in plan("mini") for item in items]
    answers = [f"<think>maybe 1 to 2</think><answer>{i.question.start_s} to {i.question.end_s}</answer>" for i in items]
    answers[0], answers[1] = "no idea", [items[1].question.start_s, items[1].question.end_s]
    lines = [json.dumps({"video": i.video, "text": i.text, "answer": a}) for i, a in zip(items, answers, strict=True)]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    result = read_result(evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1]))
    assert result.metrics["predictions/all/r1@0.5"].value == pytest.approx(5 / 6)
    assert result.metrics["predictions/all/unparsable"].value == pytest.approx(1 / 6)
    (tmp_path / "mine.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match="have no answer for 1 of 6 questions, first mini_000.mp4"):
        evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1])
    (tmp_path / "mine.jsonl").write_text('{"video": 1}\n')
    with pytest.raises(UserError, match="line 1: expected a JSON object with video, text and answer"):
        evaluate("mini", tmp_path / "out", predictions=tmp_path / "mine.jsonl", root=mini[1])


def test_bad_words_are_refused_before_anything_is_decoded(checkpoint_file, tmp_path):
    with pytest.raises(UserError, match="unknown word 'xyzzy'"):
        ground(tmp_path / "absent.mp4", "when xyzzy", checkpoint=checkpoint_file)
    with pytest.raises(UserError, match="no words that say what to look for"):
        ground(tmp_path / "absent.mp4", "  ", checkpoint=checkpoint_file)
    with pytest.raises(UserError, match="absent.mp4"):
        ground(tmp_path / "absent.mp4", TASK, checkpoint=checkpoint_file)


def test_a_symbolic_checkpoint_cannot_read_files(tmp_path, mini):
    path = save(tmp_path / "symbols.safetensors", TimeScope(ModelConfig(feature_width=8), Vocabulary.of(DOMAINS)), None, {})
    with pytest.raises(UserError, match="reads symbolic frames and has no frame encoder"):
        ground(mini[0] / "mini_000.mp4", TASK, checkpoint=path)


def test_encode_keeps_both_memories(checkpoint_file, mini, tmp_path):
    from safetensors.torch import load_file

    manifest = json.loads(grounding.encode(mini[0] / "mini_000.mp4", tmp_path / "memory", checkpoint=checkpoint_file, r=8).read_text())
    hvr, dvr = load_file(tmp_path / "memory" / "hvr.safetensors"), load_file(tmp_path / "memory" / "dvr.safetensors")
    assert manifest["segments"] == 4 and manifest["frames"] == 64
    assert dvr["layer0.k"].shape == (1, 4, 64, 32) and hvr["layer0.k"].shape == (1, 4, 8, 32)


def test_reasoning_is_told_in_plain_words(checkpoint_file):
    ready = load(checkpoint_file)
    v = ready.model.vocabulary
    activity, place, other = DOMAINS[0].activity(3), DOMAINS[0].place(7), DOMAINS[0].place(9)
    chain = [*v.encode(f"{activity} {place} {other}"), 3]
    assert (
        grounding.in_plain_words(ready, tuple(chain))
        == f"Look for: {activity}. Go to the {place}, and from there the sign leads to the {other}."
    )
    assert grounding.in_plain_words(ready, ()) == "(no reasoning)"


def test_locate_reports_what_it_attended(checkpoint_file, mini):
    ready = load(checkpoint_file)
    memory = open_video(ready, mini[0] / "mini_000.mp4", r=8)
    (answer,) = locate(ready.model, memory, [prompt_of(ready, TASK)], budget=40)
    assert isinstance(answer, Answer) and answer.attended_frames <= 40
    segments = (answer.window[1] - answer.window[0]) / 16
    assert answer.attended_frames == 8 + segments * 14


def test_the_scale_bench_counts_what_grows(checkpoint_file, tmp_path):
    result = read_result(bench.scale(tmp_path, minutes=(2, 1), checkpoint=checkpoint_file))
    value = {key: metric.value for key, metric in result.metrics.items()}
    frame = 2 * 4 * 4 * 32 * 4
    assert value["dense/1min/attended_kv_bytes"] == 64 * frame and value["dense/2min/attended_kv_bytes"] == 128 * frame
    assert value["two_stage/2min/attended_kv_bytes"] < value["dense/2min/attended_kv_bytes"]
    assert value["two_stage/1min/rss_bytes"] > 50e6
    with pytest.raises(UserError, match="expected positive lengths"):
        bench.scale(tmp_path, minutes=(0,))
