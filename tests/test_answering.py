"""Answers from frames, without frames and in words: on frames that are known exactly, and with
random weights where only the path is proven.
"""

import json

import numpy as np
import pytest
import torch

from timescope_lite import answering
from timescope_lite.answering import (
    KINDS,
    POOLINGS,
    AnswerPile,
    Asked,
    Effort,
    FrameAnswerer,
    asked_of,
    frames_of,
    guess,
    picked,
)
from timescope_lite.common import UserError
from timescope_lite.corpus import Mix, SymbolicSource, Symbols
from timescope_lite.datasets.prompts import CHAIN_LOSS, TIME_LOSS, Writer, vocabulary_of
from timescope_lite.metrics import vstar_am, vstar_lgm
from timescope_lite.model.checkpoint import load, save
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import ANSWER, DIRECT, SO, THINK
from timescope_lite.model.two_stage import Answer
from timescope_lite.results import read_result
from timescope_lite.train import TASKS
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import tell

DOMAINS = list(load_domains().values())
VOCABULARY = vocabulary_of(DOMAINS)
SYMBOLS = Symbols(DOMAINS)


class Sees:
    """A frame encoder that is never wrong: its features are the classes themselves."""

    def classify(self, features: torch.Tensor) -> list[torch.Tensor]:
        classes = features.flatten(1).long()
        return [
            20 * torch.nn.functional.one_hot(classes[:, i], n).float()
            for i, n in enumerate(SYMBOLS.sizes)
        ]


def told(number: int = 0, seconds: int = 192):
    """A story, its exact features, the answerer that reads them, and one question of each kind."""
    story = tell(DOMAINS[number % len(DOMAINS)], seconds, (41, number))
    features = torch.from_numpy(SYMBOLS.classes(story.domain, story.states))[:, None]
    answerer = FrameAnswerer(Sees(), SYMBOLS, VOCABULARY)
    return story, features, answerer, asked_of(story, VOCABULARY, (41, number))


@pytest.fixture(scope="module")
def small() -> TimeScope:
    torch.manual_seed(0)
    return TimeScope(ModelConfig(feature_width=32), VOCABULARY).eval()


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "n", "expected"),
    [
        ((0, 8), 4, [1, 3, 5, 7]),
        ((10, 13), 3, [10, 11, 12]),
        ((10, 13), 50, [10, 11, 12]),
        ((5, 6), 1, [5]),
        ((7, 7), 3, [7]),
        ((0, 100), 1, [50]),
    ],
)
def test_frames_lie_evenly_in_their_span_and_are_taken_once(span, n, expected) -> None:
    assert frames_of(span, n) == expected


def test_no_frames_or_a_reversed_span_are_refused() -> None:
    for span, n in (((0, 8), 0), ((8, 0), 4)):
        with pytest.raises(UserError, match="at least one frame"):
            frames_of(span, n)


def test_poolings_differ_in_when_they_believe_an_answer_is_shown() -> None:
    """Choice 0 is seen once and surely, choice 1 in two frames, choice 2 half of the time and never
    surely, choice 3 faintly but always.
    """
    p = torch.tensor(
        [
            [0.99, 0.01, 0.5, 0.4],
            [1e-6, 0.9, 0.5, 0.4],
            [1e-6, 0.9, 1e-6, 0.4],
            [1e-6, 1e-6, 0.6, 0.4],
            [1e-6, 1e-6, 0.6, 0.4],
        ]
    )
    frames = range(len(p))
    assert {how: picked(p.log(), frames, how) for how in POOLINGS} == {
        "mean": 2,
        "max": 0,
        "top-2": 1,
        "all": 3,
    }
    assert picked(p.log(), [0], "top-2") == 0  # a single frame is enough
    with pytest.raises(UserError, match="unknown pooling 'sum'"):
        picked(p.log(), frames, "sum")
    with pytest.raises(UserError, match="no frames"):
        picked(p.log(), [], "mean")


@pytest.mark.parametrize("number", range(8))
def test_every_kind_of_question_is_answered_by_the_frames_of_its_interval(number: int) -> None:
    _, features, answerer, questions = told(number)
    beliefs = answerer.beliefs(features)
    for asked in questions:
        frames = frames_of((asked.question.start_s, asked.question.end_s), 8)
        for how in POOLINGS:
            assert picked(answerer.choices(beliefs, asked), frames, how) == asked.right, (
                asked.question.kind,
                asked.text,
                how,
            )


def test_over_the_whole_video_the_wrong_choices_are_seen_as_well() -> None:
    right = []
    for number in range(8):
        _, features, answerer, questions = told(number)
        beliefs = answerer.beliefs(features)
        right += [
            picked(answerer.choices(beliefs, a), range(len(features)), "mean") == a.right
            for a in questions
        ]
    assert np.mean(right) < 0.6


def test_where_a_sign_leads_is_read_off_the_sign_not_off_the_scene() -> None:
    story, features, answerer, questions = told(1)
    asked = next(a for a in questions if a.question.kind == "explicit")
    frames = frames_of((asked.question.start_s, asked.question.end_s), 8)
    beliefs, token = answerer.beliefs(features), asked.tokens[asked.right]
    assert answerer.seen(beliefs, token, on_sign=True)[frames].min() > -0.1
    assert answerer.seen(beliefs, token, on_sign=False)[frames].max() < -5


def test_frames_like_the_question_show_what_it_names() -> None:
    story, features, answerer, questions = told(2)
    asked = next(a for a in questions if a.question.kind == "explicit")
    prompt = Writer(VOCABULARY, [story.domain]).question(story, asked.question)
    chosen = answerer.similar(answerer.beliefs(features), prompt, 2)
    assert chosen == sorted(chosen) and set(chosen) <= set(
        range(asked.question.start_s, asked.question.end_s)
    )
    assert answerer.similar(answerer.beliefs(features), [THINK], 3) == [
        0,
        1,
        2,
    ]  # nothing is named: the first of equals


def test_a_token_that_names_nothing_to_see_is_refused() -> None:
    _, features, answerer, _ = told()
    with pytest.raises(UserError, match="names nothing"):
        answerer.seen(answerer.beliefs(features), THINK)


# --- without frames -------------------------------------------------------------------------------


def test_rules_leave_the_answer_and_decide_what_follows_from_a_rule() -> None:
    by_rule, by_sight = [], []
    for number in range(12):
        story, _, _, questions = told(number)
        for asked in questions:
            left = answering.allowed(story, asked)
            assert len(left) == 4 and left[asked.right]
            (by_rule if asked.question.kind in answering.BY_RULE else by_sight).append(
                guess(left, asked.right)
            )
    assert np.mean(by_rule) > 0.9 and 0.25 <= np.mean(by_sight) < 0.4


def test_what_a_question_names_is_not_its_answer() -> None:
    for number in range(12):
        story, _, _, questions = told(number)
        for asked in questions:
            place = story.domain.place(asked.question.path[0])
            if asked.question.kind in {"sign1", "sign2", "last_before"} and place in asked.choices:
                assert not answering.allowed(story, asked)[asked.choices.index(place)]


def test_a_guess_is_among_what_is_left() -> None:
    assert guess([True, True, False, False], 1) == 0.5
    assert guess([True] * 4, 0) == 0.25
    assert guess([True, False, True, True], 1) == 0.0


# --- in words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine", [True, False])
@pytest.mark.parametrize("think", [True, False])
def test_an_example_ends_in_its_answer_and_teaches_what_is_written(fine: bool, think: bool) -> None:
    story, _, _, questions = told(3)
    writer = Writer(VOCABULARY, [story.domain])
    for asked in questions:
        tokens, loss = answering.quiz_example(writer, story, asked, 100, fine, think)
        q, chain = asked.question, writer.chain(story, asked.question) if think else []
        assert len(tokens) == len(loss) and tokens[-1] == asked.tokens[asked.right]
        times = writer.interval(q.start_s, q.end_s, 100)
        learned = [(t, mark) for t, mark in zip(tokens[1:], loss[:-1], strict=True) if mark]
        expected = (
            [(t, CHAIN_LOSS) for t in chain]
            + [(t, TIME_LOSS) for t in times] * fine
            + [(tokens[-1], CHAIN_LOSS)]
        )
        assert learned == expected
        assert tokens[len(writer.question(story, q))] == (THINK if think else DIRECT)
        assert (tokens[-4] == ANSWER) if fine else (tokens[-2] == SO)


def test_two_thirds_of_the_pile_are_quizzes_and_the_rest_are_as_before() -> None:
    source = SymbolicSource(DOMAINS)
    pile = AnswerPile(DOMAINS, source, Writer(VOCABULARY, DOMAINS), 0)
    batch = pile.batch(0, 128, 4, 60, Mix(TASKS))
    lengths = (batch.tokens != 0).sum(-1)
    last = batch.tokens.gather(2, (lengths - 1)[..., None])[..., 0]
    quizzed = (last < VOCABULARY.first_second).float().mean().item()
    assert 0.55 < quizzed < 0.78
    torch.testing.assert_close(batch.tokens, pile.batch(0, 128, 4, 60, Mix(TASKS)).tokens)


def test_the_text_before_an_answer_is_that_of_the_training(small: TimeScope) -> None:
    story, _, _, questions = told(4)
    writer = Writer(VOCABULARY, [story.domain])
    for asked in questions:
        q = asked.question
        tokens, _ = answering.quiz_example(writer, story, asked, 30, True, True)
        prompt, chain = [*writer.question(story, q), THINK], writer.chain(story, q)
        assert (
            answering.after_interval(small, prompt, chain, (q.start_s, q.end_s), 30) == tokens[:-1]
        )


def test_a_word_is_chosen_as_by_the_scores_of_all_words(small: TimeScope) -> None:
    encoded = small.encode(
        torch.randn(1, 32, 1, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0]), 1
    )
    for text, choices in (
        ([20, 30, THINK, SO], [40, 50, 60, 70]),
        ([25, DIRECT, SO], [300, 200, 100, 90]),
    ):
        with torch.no_grad():
            hidden, _ = small.read(torch.tensor([[text]]), encoded.dense, 32)
            scores = small.word_logits(hidden[0, 0, -1])[choices]
        assert answering.say(small, encoded.dense, 32, text, choices) == int(scores.argmax())


def test_the_last_choice_that_the_reasoning_names_counts() -> None:
    asked = Asked(None, "", ("a", "b", "c", "d"), (10, 11, 12, 13), 2)  # type: ignore[arg-type]
    left = [True, True, True, False]
    assert answering.read_off([11, 5, 12, SO], asked, left) == 1.0
    assert answering.read_off([12, 11, SO], asked, left) == 0.0
    assert answering.read_off([5, SO], asked, left) == pytest.approx(1 / 3)


def test_segments_under_an_interval_end_before_its_end() -> None:
    assert answering.segments_of((16.0, 32.0), 16) == (1, 1)
    assert answering.segments_of((15.0, 33.0), 16) == (0, 2)
    assert answering.segments_of((20.0, 20.0), 16) == (1, 1)


def test_places_to_look_keep_to_the_video_and_random_is_as_long_as_the_interval() -> None:
    story, _, _, questions = told(5)
    answer = Answer(180.0, 188.0, (176.0, 192.0), 1.0, (), 0.0, 16)
    for seed in range(20):
        spans = answering.places_to_look(
            answer, questions[0], story.num_seconds, np.random.default_rng(seed)
        )
        start, end = spans["random"]
        assert end - start == 8 and 0 <= start and end <= story.num_seconds
        assert spans["grounded"] == (180.0, 188.0) and spans["window"] == (176.0, 192.0)


# --- what the rows say ----------------------------------------------------------------------------


def test_the_four_cases_are_all_cases() -> None:
    right, ious, videos = [1, 1, 0, 0, 1], [0.9, 0.1, 0.6, 0.2, 0.5], list("aabbc")
    cells = answering.crossed(right, ious, videos)
    assert {name: round(e.value, 3) for name, e in cells.items()} == {
        "answer_and_place": 0.4,
        "place_only": 0.2,
        "answer_only": 0.2,
        "neither": 0.2,
    }


def test_joint_scores_are_of_two_terms_or_have_nothing_for_the_third() -> None:
    right, ious, videos = [1, 1, 0, 1], [0.9, 0.4, 0.6, 0.2], list("aabb")
    scores = answering.joint_scores(right, ious, videos)
    accuracy, mean = 0.75, 0.525
    assert scores["joint@0.3"].value == 0.5 and scores["joint@0.5"].value == 0.25
    assert scores["am"].value == pytest.approx((accuracy + mean) / 2)
    assert (
        scores["vstar_am"].value
        == pytest.approx(vstar_am(accuracy, mean, 0.0))
        == pytest.approx((accuracy + mean) / 3)
    )
    assert scores["lgm"].value == pytest.approx(-(np.log(1 - accuracy) + np.log(1 - mean)) / 2)
    assert scores["vstar_lgm"].value == pytest.approx(vstar_lgm(accuracy, mean, 0.0))
    assert all(e.low <= e.value <= e.high for e in scores.values())


def test_each_way_to_look_gets_the_pooling_that_was_right_most_often() -> None:
    rows = [
        {"frames": {"whole@4": ["mean"], "whole@8": ["max"], "true@4": ["top-2", "all"]}},
        {"frames": {"whole@4": ["max"], "whole@8": ["max"], "true@4": ["mean", "top-2", "all"]}},
    ]
    assert answering.best_poolings(rows) == {"whole": "max", "true": "top-2"}


def test_a_system_that_is_not_in_the_rows_is_named() -> None:
    row = {
        "frames": {"whole@4": ["mean"]},
        "says": {"joint": 1},
        "guess": 0.25,
        "read_off": 1.0,
        "tiou": {"zero_shot": 0.5, "tuned": 0.7},
    }
    assert answering.right_of(row, "whole@4", {"whole": "mean"}) == 1.0
    assert (
        answering.right_of(row, "joint", {}) == 1.0 and answering.right_of(row, "guess", {}) == 0.25
    )
    assert [answering.placed(row, name) for name in ("grounded@8", "joint", "whole@4")] == [
        0.5,
        0.7,
        0.0,
    ]
    with pytest.raises(UserError, match="no system 'jont'"):
        answering.right_of(row, "jont", {})


def test_the_study_trains_once_and_writes_rows_and_a_result(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(
        FrameEncoderConfig(feature_width=32, stem=8, middle=8, patch=8, fields=SYMBOLS.sizes)
    )
    start = load(
        save(
            tmp_path / "start.safetensors",
            TimeScope(ModelConfig(feature_width=32), VOCABULARY, encoder),
        ),
        torch.device("cpu"),
    )
    effort = Effort(steps=1, pool_frames=64, train_lengths=(64,), lengths=(96,), videos=2, tuning=2)
    result = read_result(answering.study(tmp_path / "out", effort, start=start))
    before = (tmp_path / "out" / answering.WEIGHTS).stat().st_mtime_ns
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert {row["part"] for row in rows} == {"tuning", "test"} and {
        row["kind"] for row in rows
    } <= set(KINDS)
    assert all((row["says"] == {}) == (row["part"] == "tuning") for row in rows)
    assert result.metrics["grounded@8 - whole@8/all/difference_of_accuracy"].n == sum(
        row["part"] == "test" for row in rows
    )
    assert {
        "joint/all/accuracy",
        "at_once/all/accuracy",
        "joint/all/joint@0.5",
        "tuned - zero_shot/all/difference_of_r1@0.5",
    } <= set(result.metrics)
    again = read_result(answering.study(tmp_path / "out", effort, start=start))
    assert (
        again.metrics == result.metrics
        and (tmp_path / "out" / answering.WEIGHTS).stat().st_mtime_ns == before
    )


def test_without_training_nobody_answers_as_tuned(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = FrameEncoder(
        FrameEncoderConfig(feature_width=32, stem=8, middle=8, patch=8, fields=SYMBOLS.sizes)
    )
    start = load(
        save(
            tmp_path / "start.safetensors",
            TimeScope(ModelConfig(feature_width=32), VOCABULARY, encoder),
        ),
        torch.device("cpu"),
    )
    result = read_result(
        answering.study(
            tmp_path / "out", Effort(steps=0, lengths=(96,), videos=2, tuning=2), start=start
        )
    )
    assert not (tmp_path / "out" / answering.WEIGHTS).exists()
    assert (
        "zero_shot_joint/all/accuracy" in result.metrics
        and "joint/all/accuracy" not in result.metrics
    )
