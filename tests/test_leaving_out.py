"""The exercises of lesson 12: what was worked by hand, and that no random split passes, whatever is
drawn.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from timescope_lite.classroom import checks
from timescope_lite.classroom.checks.core import CheckFailed
from timescope_lite.classroom.checks.leaving_out import (
    f1_by_table,
    held_out_by_counting,
    left_out_by_pairs,
)
from timescope_lite.corpus import LEFT_OUT_COMPOSITION
from timescope_lite.world.tasks import RULE_HOPS, SIGNS, TASK_TYPES


def reply(exercise: Any, student: Any) -> str:
    with pytest.raises(CheckFailed) as failed:
        exercise(student)
    return str(failed.value)


def test_whole_groups_go_the_rarest_first_and_by_name() -> None:
    assert held_out_by_counting(list("bbaaac"), 0.1) == [
        False,
        False,
        False,
        False,
        False,
        True,
    ]  # one of six is c
    assert held_out_by_counting(list("bbaaac"), 0.2) == [
        True,
        True,
        False,
        False,
        False,
        True,
    ]  # c alone is less than 0.2
    assert held_out_by_counting(list("bbaa"), 0.5) == [
        False,
        False,
        True,
        True,
    ]  # of one size: by name; half is enough
    assert held_out_by_counting(list("ab"), 0.6) == [True, True]


@pytest.mark.parametrize("seed", range(20))
def test_a_random_split_is_answered_with_the_idea(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def shuffled(groups: list[str], share: float) -> list[bool]:
        test = rng.permutation(len(groups))[: int(np.ceil(share * len(groups)))]
        return [i in test for i in range(len(groups))]

    assert "both sides" in reply(checks.hold_out, shuffled) and "Whole groups must move" in reply(
        checks.hold_out, shuffled
    )


@pytest.mark.parametrize(
    ("student", "says"),
    [
        (lambda groups, share: [i % 5 == 0 for i in range(len(groups))], "both sides"),
        (lambda groups, share: [True] * len(groups), "in the case"),
        (lambda groups, share: [False] * len(groups), "at least 0.2 of them"),
        (lambda groups, share: list(range(len(groups))), "one True or False per question"),
        (lambda groups, share: [True], "one True or False per question"),
    ],
)
def test_other_splits_hear_what_is_missing(student: Any, says: str) -> None:
    assert says in reply(checks.hold_out, student)


def test_an_array_of_true_and_false_is_as_good_as_a_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks.hold_out(held_out_by_counting)
    assert "all agree" in capsys.readouterr().out


def test_a_composition_is_left_out_and_its_parts_are_not() -> None:
    chains = [
        ("sign",),
        ("rule",),
        ("sign", "rule"),
        ("rule", "sign"),
        ("sign", "sign", "rule"),
        (),
    ]
    assert left_out_by_pairs(chains, "sign", "rule") == ([0, 1, 3, 5], [2, 4])
    assert left_out_by_pairs(chains, "rule", "rule") == (list(range(6)), [])
    with pytest.raises(ValueError, match="rule"):
        left_out_by_pairs([("sign",), ("sign", "rule")], "sign", "rule")


def test_the_study_leaves_out_what_the_exercise_does() -> None:
    kinds = list(TASK_TYPES)
    chains = [("sign",) * SIGNS.get(kind, 0) + ("rule",) * (kind in RULE_HOPS) for kind in kinds]
    _, test = left_out_by_pairs(chains, "sign", "rule")
    assert {kinds[i] for i in test} == set(LEFT_OUT_COMPOSITION)


TRUE = [("lift", 0.0, 10.0), ("push", 5.0, 15.0), ("lift", 20.0, 24.0)]


@pytest.mark.parametrize(
    ("written", "f1"),
    [
        (TRUE, 1.0),
        (TRUE[::-1], 1.0),
        (TRUE * 2, 2 / 3),  # three of six captions
        (TRUE[:1], 0.5),
        ([("lift", 0.0, 24.0)], 0.0),  # covers everything and tells nothing
        ([("push", 0.0, 10.0)], 0.0),  # the right word at the wrong time: tIoU 1 / 3
        ([("lift", 0.0, 5.0)], 0.5),  # tIoU of exactly one half
        ([], 0.0),
    ],
)
def test_captions_are_matched_one_to_one(
    written: list[tuple[str, float, float]], f1: float
) -> None:
    assert f1_by_table(written, TRUE, 0.5) == pytest.approx(f1)


def test_silence_is_right_where_nothing_happens() -> None:
    assert f1_by_table([], [], 0.5) == 1.0 and f1_by_table(TRUE, [], 0.5) == 0.0


def test_every_message_of_this_lesson_is_its_own() -> None:
    said = Counter(
        wrong.message
        for name in ("hold_out", "leave_out", "caption_f1")
        for wrong in checks.load_all()[name].wrong
    )
    assert max(said.values()) == 1
