"""Pile and Bench: batches that follow from (seed, step), splits that follow from a seed, files that
are what their stories say.
"""

import json

import numpy as np
import pytest
import torch

from timescope_lite.common import UserError
from timescope_lite.corpus import (
    BENCH_KINDS,
    SPLITS,
    CachedSource,
    Item,
    Mix,
    Pile,
    PixelSource,
    Split,
    SymbolicSource,
    Symbols,
    _check_file,
    build,
    build_some,
    check,
    get_split,
    plan,
    read_questions,
    split_folder,
    story_of,
    take_of,
    write_example,
)
from timescope_lite.datasets.prompts import CHAIN_LOSS, NO_LOSS, TIME_LOSS, Writer, vocabulary_of
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.tokenizer import (
    ABSENT,
    ANSWER,
    DIRECT,
    PAD,
    SO,
    THINK,
    WINDOW,
)
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import StoryConfig, tell
from timescope_lite.world.tasks import CORE_TASK_TYPES, ask, ask_absent, solve

DOMAINS = list(load_domains().values())
TASKS = dict.fromkeys(CORE_TASK_TYPES, 1.0)


@pytest.fixture(scope="module")
def writer():
    return Writer(vocabulary_of(DOMAINS), DOMAINS)


@pytest.fixture
def tiny_split(monkeypatch):
    monkeypatch.setitem(SPLITS, "mini", Split(videos=2, seconds=(64, 80), questions=3, seed=9))
    return "mini"


def batch_of(writer, step, seed=0):
    return Pile(DOMAINS, SymbolicSource(DOMAINS), writer, seed).batch(step, 64, 3, 5, Mix(TASKS))


def test_a_batch_follows_from_seed_and_step(writer):
    one = batch_of(writer, 4)
    again = batch_of(writer, 4)
    later = batch_of(writer, 5)
    other = batch_of(writer, 4, seed=1)
    assert (
        torch.equal(one.features, again.features)
        and torch.equal(one.tokens, again.tokens)
        and torch.equal(one.window, again.window)
    )
    assert not torch.equal(one.features, later.features) and not torch.equal(
        one.features, other.features
    )


def test_the_loss_mask_worked_by_hand(writer):
    story, rng = tell(DOMAINS[0], 512, 3), np.random.default_rng(0)
    question = ask(story, "sign1", rng)
    tokens, loss = write_example(writer, story, question, clock=2, fine=True, think=True)
    prompt = [*writer.question(story, question), THINK]
    chain = writer.chain(story, question)
    times = writer.interval(question.start_s, question.end_s, 2)
    assert tokens == [*prompt, *chain, ANSWER, *times]
    # The token before each reasoning word must predict it; <so> predicts nothing, since the tag is
    # given; the tag predicts the first time code.
    assert len(chain) == 4 and chain[-1] == SO
    assert loss == [NO_LOSS] * (len(prompt) - 1) + [CHAIN_LOSS] * 4 + [NO_LOSS] + [
        TIME_LOSS
    ] * 2 + [NO_LOSS]
    assert tokens[loss.index(CHAIN_LOSS)] == THINK and tokens[loss.index(TIME_LOSS)] == ANSWER


def test_without_reasoning_only_times_are_learned(writer):
    story, rng = tell(DOMAINS[0], 512, 3), np.random.default_rng(0)
    question = ask(story, "explicit", rng)
    tokens, loss = write_example(writer, story, question, clock=0, fine=False, think=False)
    assert DIRECT in tokens and tokens[-3] == WINDOW
    assert [kind for kind in loss if kind != NO_LOSS] == [TIME_LOSS] * 2


def test_where_the_evidence_is_absent_only_that_is_learned(writer):
    story, rng = tell(DOMAINS[0], 512, 3), np.random.default_rng(0)
    question = ask_absent(story, "sign1", rng)
    tokens, loss = write_example(writer, story, question, clock=9, fine=False, think=True)
    assert tokens == [*writer.question(story, question), THINK, SO, WINDOW, ABSENT]
    assert loss[-4:] == [CHAIN_LOSS, NO_LOSS, TIME_LOSS, NO_LOSS] and not any(loss[:-4])


def test_the_share_of_absent_questions_is_as_asked_and_they_are_never_fine(writer):
    pile = Pile(DOMAINS, SymbolicSource(DOMAINS), writer, 0)
    batch = pile.batch(0, 64, 8, 32, Mix(TASKS, absent=0.25))
    absent = (batch.tokens == ABSENT).any(-1)
    assert (
        0.15 < absent.float().mean() < 0.35
        and not batch.fine[absent].any()
        and batch.fine[~absent].any()
    )
    assert not (pile.batch(0, 64, 8, 32, Mix(TASKS)).tokens == ABSENT).any()


def test_a_stride_halves_frames_and_times_and_nothing_else(writer):
    pile = Pile(DOMAINS, SymbolicSource(DOMAINS), writer, 0)
    one, two = (
        pile.batch(2, 128, 4, 16, Mix(TASKS, absent=0.1), stride=stride) for stride in (1, 2)
    )
    whole = torch.stack(
        [pile.source.draw(DOMAINS, 128, (0, 2, i), pile.story)[1] for i in range(4)]
    )
    assert torch.equal(one.features, whole) and torch.equal(two.features, whole[:, ::2])
    assert torch.equal(one.clock, two.clock) and torch.equal(one.loss, two.loss)
    time = one.tokens >= writer.vocabulary.first_second
    assert torch.equal(one.tokens[~time], two.tokens[~time]) and torch.equal(
        time, two.tokens >= writer.vocabulary.first_second
    )
    zero = (writer.vocabulary.first_second + one.clock)[:, None, None].expand_as(one.tokens)
    assert (
        torch.equal((two.tokens - zero)[time], ((one.tokens - zero)[time]) // 2)
        and time.sum() > 100
    )


def test_windows_are_jittered_around_the_truth_and_seldom_misplaced(writer):
    batch = Pile(DOMAINS, SymbolicSource(DOMAINS), writer, 0).batch(
        0, 512, 4, 32, Mix(TASKS, jitter_s=(-2, 4))
    )
    width = (batch.window[..., 1] - batch.window[..., 0] + 1).float()
    assert 1 <= width.min() and width.max() <= 5 and 2 < width.mean() < 4
    assert (batch.window >= 0).all() and (batch.window < 32).all()


def test_a_training_batch_has_every_kind_in_every_domain(writer):
    kinds: set[str] = set()
    for step in range(6):
        batch = Pile(DOMAINS, SymbolicSource(DOMAINS), writer, 0).batch(
            step, 300, 4, 24, Mix(TASKS)
        )
        kinds |= {kind for video in batch.kinds for kind in video}
        assert (batch.tokens != PAD).any(-1).all() and (batch.loss == TIME_LOSS).sum(-1).eq(2).all()
    assert kinds == set(TASKS)


@pytest.fixture(scope="module")
def random_encoder():
    torch.manual_seed(0)
    return FrameEncoder(
        FrameEncoderConfig(feature_width=8, stem=4, middle=4, patch=4, tokens_per_frame=2)
    )


def test_a_pool_in_a_folder_gives_a_second_training_the_same_bits(
    tmp_path, random_encoder, monkeypatch
):
    pixels, config = PixelSource(random_encoder, DOMAINS), StoryConfig()
    in_memory, first, second = (
        CachedSource(pixels, 3, frames=96, folder=folder)
        for folder in (None, tmp_path / "pool", tmp_path / "pool")
    )
    draws = [(3, step) for step in range(6)]
    drawn = [first.draw(DOMAINS, 32, seed, config) for seed in draws]
    assert [story.digest() for story, _ in drawn] == [
        in_memory.draw(DOMAINS, 32, seed, config)[0].digest() for seed in draws
    ]
    assert len({story.digest() for story, _ in drawn}) > 1, (
        "more than one story of the pool was drawn"
    )

    def never(*_):
        raise AssertionError("these features are on disk: the encoder need not see them again")

    plain = [in_memory.draw(DOMAINS, 32, seed, config)[1] for seed in draws]
    monkeypatch.setattr(pixels, "features", never)
    for seed, (story, features), expected in zip(draws, drawn, plain, strict=True):
        again_story, again = second.draw(DOMAINS, 32, seed, config)
        assert (
            again_story.digest() == story.digest()
            and features.shape == (32, 2, 8)
            and features.abs().sum() > 0
        )
        assert torch.equal(again, features) and torch.equal(expected, features)
    with pytest.raises(AssertionError, match="on disk"):
        CachedSource(pixels, 4, frames=96, folder=tmp_path / "pool").draw(
            DOMAINS, 32, (3, 0), config
        )


def test_tokens_of_a_frame_share_its_tracks():
    story, rng = tell(DOMAINS[2], 64, 5), np.random.default_rng(0)
    source = SymbolicSource(DOMAINS, noise=0.0, tokens_per_frame=2)
    features = source.features(story, rng)
    whole = SymbolicSource(DOMAINS, noise=0.0).features(story, rng)
    assert features.shape == (64, 2, source.width) and whole.shape == (64, 1, source.width)
    assert torch.equal(features.amax(1), whole[:, 0]), "together they show all of it"
    assert (whole.sum(-1) == 9).all() and (features.sum(-1) == 7).all(), (
        "5 things that last, and 2 of 4 tracks"
    )


def test_symbols_name_everything_in_a_row():
    symbols, story = Symbols(DOMAINS), tell(DOMAINS[1], 64, 0)
    classes = symbols.classes(story.domain, story.states)
    assert (
        classes.shape == (64, 9)
        and (classes >= 0).all()
        and (classes.max(0) < np.array(symbols.sizes)).all()
    )
    named = symbols.named()
    row = int(np.flatnonzero(story.states[:, 3])[0])
    activity = story.domain.activity(story.states[row, 3] - 1)
    assert named[activity] == (5, classes[row, 5])


def test_a_split_is_its_seed():
    one, again, other = (
        [item.as_row() for _, items in plan("sealed-short", seed) for item in items]
        for seed in (11, 11, 12)
    )
    assert one == again != other


def test_sealed_short_is_what_its_card_says():
    videos = plan("sealed-short", 123)
    items = [item for _, items in videos for item in items]
    assert (
        460 <= len(items) <= 480
        and min(i.duration_s for i in items) == 128
        and max(i.duration_s for i in items) == 512
    )
    assert 0 < np.mean([i.question.cue_named for i in items]) <= 1 / 3
    centre = [(i.question.start_s + i.question.end_s) / 2 / i.duration_s for i in items]
    counts = np.histogram(centre, bins=10, range=(0, 1))[0]
    assert counts.min() >= 0.6 * counts.mean() and counts.max() <= 1.4 * counts.mean()
    types = [i.question.task_type for i in items]
    assert set(types) == set(CORE_TASK_TYPES.values()) and len(set(types)) == 6
    assert {t: types.count(t) / len(types) for t in set(types)} == pytest.approx(
        dict.fromkeys(set(types), 1 / 6), abs=0.03
    )
    assert {i.question.hops for i in items} == {0, 1, 2, 3} and {i.domain for i in items} == {
        d.name for d in DOMAINS
    }


@pytest.mark.parametrize("name", SPLITS)
def test_every_split_keeps_the_rules_of_the_bench(name):
    """Exactly one answer by the rows alone (none in `absent`), at most a third names its cue, and
    nothing is asked twice.
    """
    videos, split = plan(name), get_split(name)
    assert len(videos) == split.videos
    for story, items in videos:
        assert len(items) >= 0.6 * split.questions
        assert story.digest() == story_of(items[0]).digest(), (
            "the story can be told again from any of its rows"
        )
        for item in items:
            q = item.question
            found = solve(
                story, q.kind, q.path[0] if q.path else None, q.word, q.effect, q.other, q.ordinal
            )
            assert (
                found == ([] if split.absent else [(q.start_s, q.end_s)])
                and q.absent == split.absent
            ), item.text
        assert len({item.question for item in items}) == len(items)
    assert np.mean([item.question.cue_named for _, items in videos for item in items]) <= 1 / 3


def test_a_video_of_two_hours_has_as_many_chapters_as_one_of_one_hour():
    hour, two = ([story.num_chapters for story, _ in plan(name)] for name in ("hour", "two-hours"))
    assert np.mean(two) == pytest.approx(np.mean(hour), rel=0.05) and min(hour) > 100


def test_the_kinds_of_the_bench_are_its_six_types_in_equal_parts():
    types = [CORE_TASK_TYPES[choice[0]] for choice in BENCH_KINDS]
    assert {t: types.count(t) for t in types} == dict.fromkeys(CORE_TASK_TYPES.values(), 2)


def test_build_and_check_on_files(tmp_path, tiny_split):
    report = check(tiny_split, root=tmp_path)
    questions = sum(len(items) for _, items in plan(tiny_split))
    assert (
        report["videos"] == 2 and report["questions"] == questions >= 5 and report["bytes"] > 10_000
    )
    folder = split_folder(tiny_split, root=tmp_path)
    assert {path.name for path in folder.iterdir()} == {
        "mini_000.mp4",
        "mini_001.mp4",
        "questions.jsonl",
        "split.json",
    }
    before = (folder / "mini_000.mp4").stat().st_mtime_ns
    build(tiny_split, root=tmp_path)
    assert (folder / "mini_000.mp4").stat().st_mtime_ns == before
    item = read_questions(folder)[0]
    assert story_of(item).num_seconds == item.duration_s


def test_a_killed_build_goes_on_where_it_stopped(tmp_path, tiny_split, monkeypatch):
    from timescope_lite import video

    real, calls = video.write_mp4, []

    def dies_at_the_second(path, *args, **options):
        calls.append(path.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(path, *args, **options)

    monkeypatch.setattr(video, "write_mp4", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build(tiny_split, root=tmp_path)
    folder = split_folder(tiny_split, root=tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mini_000.mp4"]
    monkeypatch.setattr(
        video,
        "write_mp4",
        lambda path, *args, **options: (calls.append(path.name), real(path, *args, **options))[1],
    )
    build(tiny_split, root=tmp_path)
    assert calls == ["mini_000.mp4", "mini_001.mp4", "mini_001.mp4"]


def test_check_finds_a_video_that_is_not_its_story(tmp_path, tiny_split):
    folder = build(tiny_split, root=tmp_path)
    (folder / "mini_000.mp4").write_bytes((folder / "mini_001.mp4").read_bytes())
    with pytest.raises(UserError, match=r"mini_000.mp4.*(differ from the story|ends at)"):
        check(tiny_split, root=tmp_path)


def test_check_finds_a_wrong_answer(tmp_path, tiny_split):
    folder = build(tiny_split, root=tmp_path)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    rows[0]["end_s"] += 1
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="has the answers"):
        check(tiny_split, root=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"end_s": 9999}, r"line 1: the interval \[\d+, 9999\] s is not inside mini_000.mp4"),
        ({"mood": "good"}, "unknown key 'mood'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, tiny_split, change, message):
    item = plan(tiny_split)[0][1][0]
    (tmp_path / "questions.jsonl").write_text(json.dumps(item.as_row() | change) + "\n")
    with pytest.raises(UserError, match=message):
        read_questions(tmp_path)


def test_rows_survive_being_written(tiny_split):
    for _, items in plan(tiny_split):
        for item in items:
            assert Item.from_row(json.loads(json.dumps(item.as_row())), "x") == item


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="unknown split 'tset': expected one of sample, dev, test"):
        get_split("tset")


@pytest.mark.parametrize("name", SPLITS)
def test_some_videos_of_a_split_are_made_as_all_of_them_are(name, tmp_path, monkeypatch):
    """A few videos of a split are the files that `build` would write: the same camera, rate and
    compression. (Once they were drawn plainly, and `data check` refused them.)
    """
    filmed = []
    monkeypatch.setattr("timescope_lite.corpus._film", filmed.append)
    folder, items = build_some(name, root=tmp_path, videos=2)
    planned = [(story, asked) for story, asked in plan(name) if asked]
    ends = [planned[0], planned[-1]]
    assert [path for path, _, _ in filmed] == [folder / asked[0].video for _, asked in ends]
    assert [story.digest() for _, story, _ in filmed] == [story.digest() for story, _ in ends]
    assert {id(split) for _, _, split in filmed} == {id(SPLITS[name])}
    assert items == [item for _, asked in ends for item in asked]


@pytest.mark.parametrize("name", ["sample", "robust"])
def test_the_files_of_some_videos_pass_the_check(name, tmp_path):
    folder, items = build_some(name, root=tmp_path, videos=2)
    for video in dict.fromkeys(item.video for item in items):
        story = story_of(next(item for item in items if item.video == video))
        _check_file(folder / video, story, take_of(SPLITS[name], story))


def test_more_videos_than_a_split_has_are_refused(tmp_path):
    with pytest.raises(UserError, match="videos is 4: expected 1 to 3, so many has split 'sample'"):
        build_some("sample", root=tmp_path, videos=4)
