"""The mechanism of exercises, on one small sample exercise (the lessons' own are proven in
test_notebooks.py).
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from timescope_lite.classroom import checks
from timescope_lite.classroom.checks import core
from timescope_lite.classroom.checks.core import (
    Case,
    CheckFailed,
    Exercise,
    WrongAnswer,
    prove,
    register,
    same,
    to_stub,
)
from timescope_lite.common import UserError

SOLUTION = '''
def pool_groups(x, r):
    """Mean over groups of r frames."""
    ### BEGIN SOLUTION
    F, D = x.shape
    return x.view(F // r, r, D).mean(dim=1)
    ### END SOLUTION
'''


def cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 2), (8, 2, 4), (6, 5, 1)]
    return [
        Case(f"F={F}, D={D}, r={r}", (torch.randn(F, D, generator=generator), r))
        for F, D, r in shapes
    ]


def reference(x: torch.Tensor, r: int) -> torch.Tensor:
    return torch.stack([sum(x[i + j] for j in range(r)) / r for i in range(0, len(x), r)])


def diagnose(case: Case, expected: torch.Tensor, got: object) -> str | None:
    return "Summed, not averaged." if same(expected * case.args[1], got) else None


SAMPLE = Exercise(
    name="pool_groups",
    lesson="05",
    reference=reference,
    cases=cases,
    covers="3 shapes, 3 values of r",
    wrong=[
        WrongAnswer(
            "strided",
            lambda x, r: x[::r],
            "You kept one frame of each group and dropped the others.",
        ),
        WrongAnswer(
            "interleaved",
            lambda x, r: x.view(r, len(x) // r, -1).mean(0),
            "You averaged frames that are F/r apart.",
        ),
        WrongAnswer("sum", lambda x, r: x.view(len(x) // r, r, -1).sum(1), must_say="not averaged"),
    ],
    diagnose=diagnose,
)


def reply(function: object, exercise: Exercise = SAMPLE) -> str:
    with pytest.raises(CheckFailed) as failed:
        exercise(function)
    return str(failed.value)


def test_a_right_answer_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    SAMPLE(lambda x, r: x.unfold(0, r, r).mean(-1))
    assert capsys.readouterr().out == "pool_groups: 3 shapes, 3 values of r: all agree.\n"


def test_the_sample_is_proven() -> None:
    prove(SAMPLE, SOLUTION, to_stub(SOLUTION, "pool_groups"), "import torch\n")


@pytest.mark.parametrize("wrong", SAMPLE.wrong, ids=lambda wrong: wrong.name)
def test_each_known_mistake_gets_its_own_message(wrong: WrongAnswer) -> None:
    assert (wrong.must_say or wrong.message) in reply(wrong.implementation)


def test_a_mistake_is_known_by_what_it_gives_not_by_how_it_is_written() -> None:
    assert "dropped the others" in reply(
        lambda x, r: torch.stack([row for i, row in enumerate(x) if i % r == 0])
    )


def test_an_unknown_mistake_hears_case_expected_and_got() -> None:
    said = reply(lambda x, r: x.mean())
    assert "'F=4, D=3, r=2'" in said and "shape (2, 3)" in said and "tensor(" in said
    assert "expected shape (2, 3)" in reply(lambda x, r: x[:1]) and "got shape (1, 3)" in reply(
        lambda x, r: x[:1]
    )


def test_of_two_arrays_of_one_shape_the_first_difference_is_shown() -> None:
    def student(x: torch.Tensor, r: int) -> torch.Tensor:
        answer = reference(x, r)
        answer[1, 2] += 1
        return answer

    said = reply(student)
    assert "the shape is right; 1 of 6 numbers differ, first at [1, 2]: expected" in said
    assert core.first_difference(np.array([True, False]), np.array([True, True])).endswith(
        "first at [1]: expected 0, got 1"
    )
    assert (
        core.first_difference(np.ones(2), np.ones(3))
        == core.first_difference(1.0, 2.0)
        == core.first_difference(np.ones(2), np.ones(2))
        == ""
    )
    assert core.first_difference(np.array(["a"]), np.array(["b"])) == ""


def test_wrong_in_a_later_case_only_is_found() -> None:
    assert "'F=8, D=2, r=4'" in reply(lambda x, r: reference(x, r) if r == 2 else x)


def test_in_place_edits_are_named_even_when_the_answer_is_right() -> None:
    def student(x: torch.Tensor, r: int) -> torch.Tensor:
        answer = reference(x, r)
        x.zero_()
        return answer

    assert "changed its input `x` in place (F=4, D=3, r=2)" in reply(student)


def test_an_exception_names_its_line() -> None:
    def student(x: torch.Tensor, r: int) -> torch.Tensor:
        return x.view(r, 7, -1)

    said = reply(student)
    assert "it stopped with RuntimeError" in said and "`return x.view(r, 7, -1)`" in said


def test_stub_none_and_no_function_at_all() -> None:
    def stub(x: torch.Tensor, r: int) -> torch.Tensor:
        raise NotImplementedError("not written yet")

    assert (
        reply(stub)
        == "pool_groups: not written yet. Write the function above, run its cell, then this one."
    )
    assert "Is the `return` missing?" in reply(lambda x, r: None)
    assert "pass its name without brackets" in reply(torch.zeros(2))


def test_a_reference_that_raises_wants_the_same_error() -> None:
    def strict(x: float) -> float:
        if x < 0:
            raise ValueError("negative length")
        return x**0.5

    root = Exercise(
        "root",
        "01",
        strict,
        lambda: [Case("four", (4.0,)), Case("minus one", (-1.0,))],
        "2 cases",
        [],
    )
    root(strict)
    assert "should raise ValueError (negative length); it returned 1" in reply(
        lambda x: abs(x) ** 0.5, root
    )
    assert "stopped with KeyError" in reply(lambda x: x**0.5 if x > 0 else {}["x"], root)


def test_inputs_are_fresh_and_the_same_each_time() -> None:
    seen: list[torch.Tensor] = []
    for _ in range(2):
        SAMPLE(lambda x, r: (seen.append(x.clone()), reference(x, r))[1])
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def scribble(x: object) -> bool:
    """Overwrite a mutable value where it lies, as a careless student would; False if there is
    nothing to overwrite.
    """
    if isinstance(x, (torch.Tensor, np.ndarray)) and np.prod(x.shape):
        x[...] = 1 - x if x.dtype not in (bool, torch.bool) else ~x
    elif isinstance(x, list) and x:
        x.append(x[0])
    else:
        return False
    return True


@pytest.mark.parametrize("name", sorted(checks.load_all()))
def test_an_input_that_was_edited_is_named_in_every_exercise(name: str) -> None:
    exercise = checks.load_all()[name]
    first = exercise.cases()[-1].args
    for at in [i for i, x in enumerate(copy.deepcopy(first)) if scribble(x)]:

        def student(*given: object, at: int = at) -> object:
            answer = copy.deepcopy(core.run_case(exercise.reference, Case("", given)))
            scribble(given[at])
            if answer.error:
                raise answer.error
            return answer.value

        assert "in place" in reply(student, exercise) and "still needs" in reply(student, exercise)


@pytest.mark.parametrize("name", sorted(checks.load_all()))
def test_no_exercise_is_passed_by_an_answer_that_ignores_the_question(name: str) -> None:
    exercise = checks.load_all()[name]
    for case in exercise.cases():
        constant = core.run_case(exercise.reference, case)
        if not constant.error:
            assert reply(lambda *given, value=constant.value: value, exercise)


@pytest.mark.parametrize("name", sorted(checks.load_all()))
def test_messages_point_at_the_idea_and_there_are_enough_of_them(name: str) -> None:
    known = checks.load_all()[name].wrong
    assert len(known) >= 5, f"a class makes more mistakes than {len(known)}"
    for wrong in known:
        words = wrong.message or wrong.must_say
        assert not re.search(r"\bline \d|[Ee]rror in your code|[Ww]rong answer|!$", words), (
            f"{wrong.name}: {words}"
        )
        assert not wrong.message or 40 <= len(words) <= 280 and words[-1] in ".?)", (
            f"{wrong.name}: {words}"
        )


@dataclass(frozen=True)
class Span:
    start_s: float
    end_s: float


class Plain:
    def __init__(self, x: float) -> None:
        self.x = torch.tensor([x])


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        (0.5, np.float32(0.5), True),
        (0.5, torch.tensor(0.5), True),
        (0.5, torch.tensor([0.5]), False),
        (0.5, "0.5", False),
        (float("nan"), float("nan"), True),
        (float("nan"), 0.0, False),
        (True, np.bool_(True), True),
        (None, 0, False),
        ("a", "a", True),
        ([1, (2.0, None)], [1, [2.0, None]], True),
        ([1, 2], [1], False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        (Span(0.0, 1.0), Span(0.0, 1.0 + 1e-7), True),
        (Span(0.0, 1.0), (0.0, 1.0), False),
        (np.ones(2), torch.ones(2), True),
        (np.ones(2), [1.0, 1.0], False),
        (np.ones((2, 1)), np.ones(2), False),
        (np.array(["a", "b"]), np.array(["a", "b"]), True),
        (np.array(["a", "b"]), np.array(["a", "c"]), False),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2, requires_grad=True), True),
        (Plain(1.0), Plain(1.0), True),
        (Plain(1.0), Plain(2.0), False),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 3), False),
    ],
)
def test_same(expected: object, got: object, equal: bool) -> None:
    assert same(expected, got) is equal


def test_proof_refuses_weak_exercises() -> None:
    stub = to_stub(SOLUTION, "pool_groups")
    weak = [
        (replace(SAMPLE, wrong=SAMPLE.wrong[:1]), SOLUTION, stub, "two or more wrong answers"),
        (
            replace(
                SAMPLE,
                wrong=[SAMPLE.wrong[0], replace(SAMPLE.wrong[1], message="", must_say="apart")],
            ),
            SOLUTION,
            stub,
            "interleaved",
        ),
        (replace(SAMPLE, wrong=[SAMPLE.wrong[0], SAMPLE.wrong[0]]), SOLUTION, stub, "same message"),
        (
            replace(SAMPLE, wrong=[WrongAnswer("right", reference, "m"), SAMPLE.wrong[0]]),
            SOLUTION,
            stub,
            "passes and should not",
        ),
        (replace(SAMPLE, compare=lambda a, b: True), SOLUTION, stub, "passes and should not"),
        (SAMPLE, SOLUTION, SOLUTION, "passes and should not"),
        (SAMPLE, SOLUTION, "def pool_groups(x, r):\n    return 1 / 0", "the stub is answered with"),
        (
            SAMPLE,
            SOLUTION.replace("pool_groups", "other"),
            stub,
            "defines no function of that name",
        ),
        (SAMPLE, SOLUTION.replace("mean", "sum"), stub, "not averaged"),
    ]
    for exercise, solution, stub_source, says in weak:
        with pytest.raises(AssertionError, match=says):
            prove(exercise, solution, stub_source, "import torch\n")


def test_stubs_keep_indentation_and_want_paired_markers() -> None:
    assert (
        to_stub(SOLUTION, "p").splitlines()[-1]
        == '    raise NotImplementedError("not written yet")'
    )
    twice = (
        "def f(x):\n    ### BEGIN SOLUTION\n    a = 1\n    ### END SOLUTION\n    ### BEGIN "
        "SOLUTION\n    return a\n    ### END SOLUTION"
    )
    assert to_stub(twice, "f").count("raise NotImplementedError") == 2
    for broken in (
        "def f(): pass",
        twice.replace("### END SOLUTION", "", 1),
        twice + "\n    ### BEGIN SOLUTION",
        "### END SOLUTION",
    ):
        with pytest.raises(UserError, match="expected pairs"):
            to_stub(broken, "f")


def test_exercises_are_read_from_a_notebook_with_what_they_lean_on(tmp_path: Path) -> None:
    sources = [
        "%matplotlib inline\nimport torch\nSHARE = 0.5\nmodel = torch.load('nowhere')",
        "def half(x, share=SHARE):\n    return x * share",
    ]
    sources += [
        SOLUTION.replace("mean(dim=1)", "mean(dim=1) + 0 * half(1)"),
        "raise SystemExit",
        SOLUTION,
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    book.cells[2].metadata["tags"] = ["exercise:pool_groups"]
    nbformat.write(book, tmp_path / "lesson.ipynb")
    (cell,) = core.exercise_cells(tmp_path / "lesson.ipynb")
    assert (
        cell.name == "pool_groups"
        and "model" not in cell.setup
        and "raise NotImplementedError" in cell.stub
    )
    prove(SAMPLE, cell.solution, cell.stub, cell.setup)


@pytest.fixture
def registry() -> Iterator[None]:
    checks.load_all()
    before = dict(core.EXERCISES)
    yield
    core.EXERCISES.clear()
    core.EXERCISES.update(before)


def test_registered_exercises_are_attributes_of_checks(registry: None) -> None:
    register(SAMPLE)
    assert checks.pool_groups is SAMPLE and "pool_groups" in dir(checks)
    for taken in (SAMPLE, replace(SAMPLE, name="core")):
        with pytest.raises(ValueError, match="taken"):
            register(taken)
    with pytest.raises(
        AttributeError, match="no check called 'pool_group'; expected one of: .*pool_groups"
    ):
        checks.pool_group  # noqa: B018


def test_a_notebook_shows_the_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.user_ns.update(check=SAMPLE, torch=torch)
    shell.run_cell("check(lambda x, r: x[::r])")
    printed = capsys.readouterr()
    assert (
        printed.out.strip()
        == "pool_groups: You kept one frame of each group and dropped the others."
    )
    assert "Traceback" not in printed.out + printed.err
