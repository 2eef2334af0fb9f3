"""The whole town: how it is filmed, what a teacher may get wrong, what the fine stage writes on its
way, and the bench drawn from it.
"""

import copy
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from timescope_lite import corpus
from timescope_lite.common import UserError
from timescope_lite.corpus import (
    SPLITS,
    Mix,
    Pile,
    Split,
    SymbolicSource,
    Take,
    check,
    draw_question,
    hallucinate,
    plan,
    read_questions,
    split_folder,
    take_of,
    write_captions,
    write_example,
)
from timescope_lite.datasets.prompts import CHAIN_LOSS, NO_LOSS, TIME_LOSS, Writer, vocabulary_of
from timescope_lite.model import reading
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.reading import MAX_CLUES
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import ANSWER, SO, THINK
from timescope_lite.train import TOWN_TASKS, recipe
from timescope_lite.video import probe
from timescope_lite.world.camera import CROSSING_S, PASSER_TOP, PERIOD_S, Camera
from timescope_lite.world.domain import load_domains
from timescope_lite.world.render import render_frames
from timescope_lite.world.story import StoryConfig, tell
from timescope_lite.world.tasks import TASK_TYPES, TEMPLATES, ask

DOMAINS = list(load_domains("all").values())
ODD = StoryConfig(oddities=True)


@pytest.fixture(scope="module")
def writer():
    return Writer(vocabulary_of(DOMAINS), DOMAINS)


# --- cameras and takes


def filmed(camera, seconds=40, fps=4):
    story, times_s = tell(DOMAINS[4], seconds, 3), np.arange(seconds * fps) / fps
    frames = render_frames(story.domain, story.states[times_s.astype(int)], times_s)
    return frames, camera.film(frames, times_s)


def test_a_steady_camera_changes_nothing_and_any_camera_films_the_same_twice():
    plain, seen = filmed(Camera(5))
    assert np.array_equal(plain, seen)
    busy = Camera(5, shake=2, drift=20, passers=True)
    assert np.array_equal(filmed(busy)[1], filmed(busy)[1]) and not np.array_equal(
        filmed(busy)[1], filmed(replace(busy, seed=6))[1]
    )


def test_light_drifts_by_no_more_than_it_says_and_never_turns_over():
    plain, seen = filmed(Camera(5, drift=20))
    share = seen.astype(float).mean((1, 2, 3)) / plain.astype(float).mean((1, 2, 3))
    assert 0.79 <= share.min() < 0.9 < 1.05 < share.max() <= 1.2
    assert np.corrcoef(plain.ravel(), seen.ravel())[0, 1] > 0.95, "no colour overflows"


def test_a_shaking_camera_moves_the_picture_by_pixels():
    plain, seen = filmed(Camera(5, shake=2))
    inner = slice(2, -2)
    for before, after in zip(plain[::16], seen[::16], strict=True):
        moved = [
            np.roll(before, (y, x), (0, 1))[inner, inner]
            for y in range(-2, 3)
            for x in range(-2, 3)
        ]
        assert any(np.array_equal(after[inner, inner], candidate) for candidate in moved)


def test_somebody_walks_past_once_in_a_while_below_the_sign():
    plain, seen = filmed(Camera(5, passers=True), seconds=PERIOD_S * 3)
    hidden = (plain != seen).any(-1)
    assert 3 * CROSSING_S * 2 <= hidden.any((1, 2)).sum() <= 3 * CROSSING_S * 5
    assert not hidden[:, : PASSER_TOP - 10].any() and hidden.mean((1, 2)).max() < 0.2


def test_cameras_that_are_drawn_differ():
    rng = np.random.default_rng(0)
    cameras = [Camera.draw(rng) for _ in range(60)]
    assert {camera.shake for camera in cameras} == {0, 1, 2} and {
        camera.passers for camera in cameras
    } == {True, False}
    assert 0.3 < np.mean([camera.drift > 0 for camera in cameras]) < 0.7


def test_the_core_town_is_filmed_plainly_and_long_videos_of_the_whole_one_at_one_frame_per_second():
    story = tell(DOMAINS[0], 128, 1)
    assert take_of(SPLITS["dev"], story) == Take(Camera(0), 2.0)
    long = tell(DOMAINS[20], 700, 1, ODD)
    assert (
        take_of(SPLITS["test"], long).fps == 1.0
        and take_of(SPLITS["test"], replace(long, states=long.states[:600])).fps == 2.0
    )
    takes = [take_of(SPLITS["robust"], tell(DOMAINS[i], 48, i)) for i in range(35)]
    assert {take.crf for take in takes} == {20, 26, 32} and {take.uneven for take in takes} == {
        True,
        False,
    }
    assert len({take.fps for take in takes}) == 6 and any(take.start_s for take in takes)


@pytest.mark.parametrize(
    "take",
    [
        Take(Camera(2), 10.0, 26),
        Take(Camera(1, 1, 10, True), 24000 / 1001, 32, start_s=3.2, uneven=True),
    ],
)
def test_an_odd_take_is_a_file_whose_frames_are_found_at_their_times(tmp_path, take):
    story = tell(DOMAINS[9], 48, 2, ODD)
    path = take.write(tmp_path / "odd.mp4", story)
    assert probe(path).duration_s == pytest.approx(48, abs=0.2)
    corpus._check_file(path, story, take)
    with pytest.raises(UserError, match="odd.mp4: decoded frames differ from the story"):
        corpus._check_file(path, tell(DOMAINS[9], 48, 3, ODD), take)


# --- what a model of the whole town is taught


def some_questions(kinds, number=40):
    rng = np.random.default_rng(1)
    for i in range(number):
        story = tell(DOMAINS[i % 35], 300, (4, i), ODD)
        yield story, draw_question(story, dict.fromkeys(kinds, 1.0), rng, phrasing="trained")


def test_every_kind_is_trained_on():
    assert set(TOWN_TASKS) == set(TEMPLATES) and sum(TOWN_TASKS.values()) == pytest.approx(
        1.33, abs=0.35
    )
    assert all(
        "captions" not in phase.kinds for phase in recipe("town", "two_stage_no_cot").phases
    ), "it writes no words"
    assert recipe("town").town == "all" and recipe("lab").town == "core"


def test_clues_are_written_before_the_answer_and_the_next_tag_is_learned(writer):
    lengths = Counter()
    for story, q in some_questions(["order", "last_before", "nth", "explicit"]):
        tokens, loss = write_example(writer, story, q, 0, fine=True, think=True)
        so = tokens.index(SO)
        tail, asked = tokens[so + 1 :], loss[so:]
        found = [tail[i : i + 3] for i in range(0, len(tail), 3)]
        assert [triple[0] for triple in found] == [writer.clue] * len(q.clues) + [ANSWER]
        assert [tuple(triple[1:]) for triple in found] == [
            tuple(writer.interval(*span, 0)) for span in (*q.clues, (q.start_s, q.end_s))
        ]
        assert asked == [CHAIN_LOSS, TIME_LOSS, TIME_LOSS] * len(found) + [NO_LOSS]
        assert all(q.window_start_s <= start < end <= q.window_end_s for start, end in q.clues)
        lengths[q.kind, len(q.clues)] += 1
    assert {n for kind, n in lengths if kind == "nth"} >= {0, 1} and {
        n for kind, n in lengths if kind == "order"
    } == {1}


def test_a_model_of_the_core_town_writes_no_clue():
    core = list(load_domains().values())
    writer = Writer(vocabulary_of(core), DOMAINS)
    assert writer.clue is None and set(writer.tokens) == {domain.name for domain in core}
    story = tell(core[0], 300, 1)
    question = draw_question(story, {"order": 1.0}, np.random.default_rng(0))
    tokens, _ = write_example(writer, story, question, 0, fine=True, think=True)
    assert tokens[tokens.index(SO) + 1] == ANSWER and question.clues
    with pytest.raises(
        UserError, match="vocabulary lacks a word of .*; take the model of the whole town"
    ):
        writer.question(story, ask(tell(core[0], 300, 1), "change", np.random.default_rng(0)))


def test_captions_are_the_first_events_of_a_place_with_their_times(writer):
    for story, q in some_questions(["captions"], 10):
        tokens, loss = write_captions(writer, story, q, 0)
        start = tokens.index(THINK) + 1
        body = tokens[start:-1]
        activities, spans = body[3::4], list(zip(body[1::4], body[2::4], strict=True))
        assert (
            tokens[-1] == SO
            and body[::4] == [writer.clue] * 6
            and [a for a, _ in spans] == sorted(a for a, _ in spans)
        )
        assert loss[start - 1 : -1] == [CHAIN_LOSS, TIME_LOSS, TIME_LOSS, CHAIN_LOSS] * 6 + [
            CHAIN_LOSS
        ]
        first = writer.vocabulary.first_second
        for token, (a, b) in zip(activities, spans, strict=True):
            word = list(writer.tokens[story.domain.name].activity).index(token)
            seen = story.states[a - first : b - first + 1, 3 + word // 16]
            assert (
                (seen == word % 16 + 1).all()
                and q.window_start_s <= a - first
                and b - first < q.window_end_s
            )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_teacher_is_wrong_about_as_many_hops_as_the_dial_says(writer, share):
    rng, wrong, hops = np.random.default_rng(0), 0, 0
    kinds = [kind for kind in TASK_TYPES if kind in TOWN_TASKS]
    for story, q in some_questions(kinds, 120):
        true, told = writer.chain(story, q), hallucinate(writer, story, q, share, rng)
        assert len(told) == len(true) and told[-1] == SO
        wrong = wrong + sum(a != b for a, b in zip(true, told, strict=True))
        hops = hops + len(true) - 1
    assert abs(wrong / hops - share) < 0.08


def test_a_batch_of_the_whole_town_follows_from_its_seed_and_has_every_kind(writer):
    pile = Pile(DOMAINS, SymbolicSource(DOMAINS), writer, 0)
    one, again = (
        pile.batch(3, 256, 4, 64, Mix(TOWN_TASKS, absent=0.05, hallucinated=0.3)) for _ in range(2)
    )
    assert (
        torch.equal(one.tokens, again.tokens)
        and len({kind for video in one.kinds for kind in video}) > 18
    )


def test_a_model_may_write_clues_on_its_way(writer):
    torch.manual_seed(0)
    model = TimeScope(
        ModelConfig(DecoderConfig(32, 2, 2, 2, 64), 16, can_say_absent=True), writer.vocabulary
    ).eval()
    memory = model.stream([(torch.randn(16, 1, 16), 16) for _ in range(3)], 8)
    found = reading.fine(model, memory.hvr, memory, [writer.clue, THINK], [SO])
    assert 1 <= len(found) <= 1 + MAX_CLUES and all(0 <= start < end <= 48 for start, end in found)
    assert model.fine(memory.hvr, memory, [writer.clue, THINK], [SO]) == found[-1]
    assert len(reading.fine(model, memory.hvr, memory, [writer.clue, THINK], [])) == 1, (
        "without reasoning no clue"
    )
    captions = reading.captions(model, memory.hvr, memory, [writer.clue, THINK], most=3)
    assert len(captions) <= 3 and all(0 <= start < end <= 48 for _, start, end in captions)


# --- the bench


@pytest.mark.parametrize("seed", [3, 4, 1001, 1002, 1003, 1004, 1005])
def test_the_bench_is_balanced_for_any_seed(seed):
    videos = plan("test", seed)
    items = [item for _, chosen in videos for item in chosen]
    lengths = np.array([story.num_seconds for story, _ in videos])
    assert (
        len(videos) == 337 and len(items) >= 1000 and lengths.min() < 60 and lengths.max() == 3600
    )
    assert (
        np.ptp(
            [
                np.sum(lengths < 180),
                np.sum((lengths >= 180) & (lengths <= 600)),
                np.sum(lengths > 600),
            ]
        )
        <= 1
    )
    corpus._check_balance(items, SPLITS["test"])
    for story, chosen in videos[seed % 7 :: 7]:
        for item in chosen:
            corpus._check_item(item, story)


def test_a_small_bench_is_built_by_two_processes_and_checked_on_files(tmp_path, monkeypatch):
    monkeypatch.setitem(
        SPLITS, "mini", Split(4, (48, 60), 3, seed=9, town="all", phrasing="trained")
    )
    monkeypatch.setattr(corpus, "_check_balance", lambda items, split: None)
    report = check("mini", root=tmp_path, jobs=2)
    assert report["videos"] == 4 and report["questions"] == 12
    item = read_questions(split_folder("mini", root=tmp_path))[0]
    assert item.answer in item.choices and item.oddities


def test_what_is_uneven_is_named():
    items = [item for _, chosen in plan("town-dev") for item in chosen]
    with pytest.raises(UserError, match="task types are uneven"):
        corpus._check_balance(
            [item for item in items if item.question.kind != "oddity"], SPLITS["town-dev"]
        )
    early = [item for item in items if item.question.start_s < item.duration_s / 3]
    with pytest.raises(UserError, match="uneven|positions are not even"):
        corpus._check_balance(early, SPLITS["town-dev"])


def test_phrase_vectors_are_kept_only_while_the_words_stay(writer):
    torch.manual_seed(0)
    model = TimeScope(ModelConfig(DecoderConfig(32, 2, 2, 2, 64), 16), writer.vocabulary)
    assert model.phrases().requires_grad, "training makes them anew"
    with torch.no_grad():
        kept = model.phrases()
        assert model.phrases() is kept and torch.equal(kept, model.phrase_words @ model.words)
        model.words.mul_(2)
        assert torch.equal(model.phrases(), 2 * kept)
        other = copy.deepcopy(model)
        other.words.add_(1)
        assert torch.equal(other.phrases(), other.phrase_words @ other.words)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.phrases(), other.phrases())
