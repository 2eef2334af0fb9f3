"""How an exercise is checked: seeded inputs, an independent reference, and a message for each
mistake people really make.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import math
import numbers
import pkgutil
import re
import textwrap
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timescope_lite.common import UserError, read_json

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
NOT_WRITTEN = "not written yet"
EXERCISES: dict[str, Exercise] = {}


class CheckFailed(AssertionError):
    """An answer that is not right yet; its text is what the student reads, without a traceback
    around it.
    """

    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()


@dataclass(frozen=True)
class Case:
    """One call of the function: its positional arguments, and a label that tells a reader what is
    special about it.
    """

    label: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class WrongAnswer:
    """A plausible mistake: how it computes, and what to say to someone who made it (by `diagnose`
    where `message` is empty).

    `must_say` is what CI looks for in the reply; the whole message unless given.
    """

    name: str
    implementation: Callable[..., Any]
    message: str = ""
    must_say: str = ""


IN_PLACE = "changed its input"


def wrong_answers(says: Sequence[tuple[str, Callable[..., Any], str]]) -> tuple[WrongAnswer, ...]:
    """Wrong answers from rows of (name, implementation, message).

    One that edits its input is found by every check by itself; its row holds what the reply must
    say then: "changed its input `x`".
    """
    return tuple(
        WrongAnswer(name, f, must_say=m) if m.startswith(IN_PLACE) else WrongAnswer(name, f, m)
        for name, f, m in says
    )


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a value, or the error it raised."""

    value: Any = None
    error: Exception | None = None


def same(expected: Any, got: Any, tolerance: float = 1e-5) -> bool:
    """Whether two values agree: numbers and arrays within `tolerance` (relative and absolute, NaN
    equals NaN), the rest part by part.
    """
    if hasattr(expected, "shape") and expected.shape != ():
        return _same_arrays(expected, got, tolerance)
    if dataclasses.is_dataclass(expected) and not isinstance(expected, type):
        names = [f.name for f in dataclasses.fields(expected)]
        return type(got) is type(expected) and all(
            same(getattr(expected, n), getattr(got, n), tolerance) for n in names
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and expected.keys() == got.keys()
            and all(same(expected[k], got[k], tolerance) for k in expected)
        )
    if isinstance(expected, (list, tuple)):
        is_list = isinstance(got, (list, tuple)) and len(got) == len(expected)
        return is_list and all(same(a, b, tolerance) for a, b in zip(expected, got, strict=True))
    if _is_scalar(expected) and _is_scalar(got):
        a, b = float(expected), float(got)
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (
            math.isnan(a) and math.isnan(b)
        )
    if (
        inspect.getattr_static(type(expected), "__eq__") is object.__eq__
    ):  # a model, a generator: equal to itself alone, so look inside where one can
        return type(got) is type(expected) and same(
            getattr(expected, "__dict__", {}), getattr(got, "__dict__", {}), tolerance
        )
    return type(expected) is type(got) and bool(expected == got)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (
        getattr(value, "shape", None) == () and hasattr(value, "__float__")
    )


def _same_arrays(expected: Any, got: Any, tolerance: float) -> bool:
    import numpy as np

    if getattr(got, "shape", None) != expected.shape:
        return False
    a, b = np.asarray(_numpy(expected)), np.asarray(_numpy(got))
    if a.dtype.kind not in "biufc" or b.dtype.kind not in "biufc":
        return bool(np.array_equal(a, b))
    return bool(np.allclose(b, a, rtol=tolerance, atol=tolerance, equal_nan=True))


def _numpy(x: Any) -> Any:
    x = x.detach().cpu() if hasattr(x, "detach") else x
    return (
        x.float().numpy()
        if str(getattr(x, "dtype", "")) == "torch.bfloat16"
        else x.numpy()
        if hasattr(x, "numpy")
        else x
    )


@dataclass(frozen=True)
class Exercise:
    """A function for the student to write, called `name`; calling the exercise with the student's
    function checks it.

    `reference` computes the answer another way than the lesson's solution; `cases` makes the seeded
    inputs anew at each call; `lesson` is the number of its notebook ("05"); `covers` is what
    success prints ("6 shapes, 3 values of r"); `diagnose(case, expected, got)` may say more.
    """

    name: str
    lesson: str
    reference: Callable[..., Any]
    cases: Callable[[], Sequence[Case]]
    covers: str
    wrong: Sequence[WrongAnswer]
    compare: Callable[[Any, Any], bool] = same
    diagnose: Callable[[Case, Any, Any], str | None] | None = None

    def __call__(self, student: Callable[..., Any]) -> None:
        """Print one line if `student` agrees with the reference everywhere; else raise CheckFailed
        with what to think about.
        """
        if not callable(student):
            raise CheckFailed(
                f"{self.name}: expected your function, got {student!r}; pass its name without "
                "brackets."
            )
        cases = self.cases()
        expected = [run_case(self.reference, case) for case in cases]
        got = [self._run_student(student, case) for case in cases]
        failing = [i for i in range(len(cases)) if not self._agrees(expected[i], got[i])]
        if failing:
            i = failing[0]
            raise CheckFailed(
                f"{self.name}: "
                f"{self._known_mistake(cases, got) or self._remark(cases[i], expected[i], got[i])}"
            )
        print(f"{self.name}: {self.covers}: all agree.")

    def _agrees(self, expected: Outcome, got: Outcome) -> bool:
        if expected.error or got.error:
            return expected.error is not None and isinstance(got.error, type(expected.error))
        return bool(self.compare(expected.value, got.value))

    def _run_student(self, student: Callable[..., Any], case: Case) -> Outcome:
        given = copy.deepcopy(case.args)
        outcome = run_case(student, Case(case.label, given), fresh=False)
        if isinstance(outcome.error, NotImplementedError):
            text = str(outcome.error) or NOT_WRITTEN
            raise CheckFailed(
                f"{self.name}: {text}. Write the function above, run its cell, then this one."
            )
        names = list(inspect.signature(self.reference).parameters)
        for i, (before, after) in enumerate(zip(case.args, given, strict=True)):
            if not outcome.error and not same(before, after, 0.0):
                name = names[i] if i < len(names) else f"argument {i + 1}"
                where = f"your function {IN_PLACE} `{name}` in place ({case.label})"
                raise CheckFailed(
                    f"{self.name}: {where}. Whoever called it still needs what was there: work on "
                    "a new value."
                )
        return outcome

    def _known_mistake(self, cases: Sequence[Case], got: list[Outcome]) -> str:
        """The message of the wrong answer that gives what the student's function gave, on every
        case; empty if none does.
        """
        for wrong in self.wrong:
            if wrong.message and all(
                self._agrees(run_case(wrong.implementation, case), g)
                for case, g in zip(cases, got, strict=True)
            ):
                return wrong.message
        return ""

    def _remark(self, case: Case, expected: Outcome, got: Outcome) -> str:
        where = f"in the case '{case.label}'"
        if got.error:
            return (
                f"{where} it stopped with {type(got.error).__name__}: "
                f"{got.error}{_line_of(got.error)}"
            )
        if expected.error:
            return (
                f"{where} it should raise {type(expected.error).__name__} ({expected.error}); it "
                f"returned {show(got.value)}."
            )
        if got.value is None:
            return f"{where} it returned None. Is the `return` missing?"
        found = self.diagnose(case, expected.value, got.value) if self.diagnose else None
        differs = first_difference(expected.value, got.value)
        differs = differs or f"expected {show(expected.value)}, got {show(got.value)}"
        return found or f"{where} {differs}."


def run_case(function: Callable[..., Any], case: Case, fresh: bool = True) -> Outcome:
    """Call `function` on a copy of the case's arguments (on themselves if not `fresh`); errors
    become part of the outcome.
    """
    try:
        return Outcome(function(*(copy.deepcopy(case.args) if fresh else case.args)))
    except Exception as error:
        return Outcome(error=error)


def first_difference(expected: Any, got: Any) -> str:
    """How two arrays of one shape differ, in words; empty for anything else. Their first numbers
    alone would often be the same.
    """
    import numpy as np

    if getattr(expected, "shape", ()) == () or getattr(got, "shape", None) != expected.shape:
        return ""
    a, b = np.asarray(_numpy(expected)), np.asarray(_numpy(got))
    if a.dtype.kind not in "biuf" or b.dtype.kind not in "biuf":
        return ""
    apart = np.argwhere(
        ~np.isclose(b.astype(float), a.astype(float), rtol=1e-5, atol=1e-5, equal_nan=True)
    )
    at = tuple(apart[0].tolist()) if len(apart) else ()
    return (
        f"the shape is right; {len(apart)} of {a.size} numbers differ, first at {list(at)}: "
        f"expected {a[at]:.4g}, got {b[at]:.4g}"
        if at
        else ""
    )


def show(value: Any) -> str:
    """A value in one short line: arrays by shape and first numbers, the rest by repr, cut at 120
    characters.
    """
    if hasattr(value, "shape") and value.shape != ():
        first = ", ".join(f"{float(x):.4g}" for x in _numpy(value).reshape(-1)[:4])
        return f"shape {tuple(value.shape)} beginning {first}"
    return textwrap.shorten(
        f"{value:.6g}" if isinstance(value, float) else repr(value), 120, placeholder=" ..."
    )


def _line_of(error: Exception) -> str:
    """Where in the student's cell an error arose: the outermost frame below the check itself."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__
    ]
    return f" (line {frames[0].lineno}: `{frames[0].line}`)" if frames and frames[0].line else ""


def register(exercise: Exercise) -> Exercise:
    """Make an exercise known as checks.<name>; ValueError if the name is taken or is the name of a
    file of this folder.
    """
    files = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    if exercise.name in files | EXERCISES.keys():
        raise ValueError(
            f"exercise {exercise.name!r}: the name is taken by another exercise or a file in "
            "checks/; choose another"
        )
    EXERCISES[exercise.name] = exercise
    return exercise


@dataclass(frozen=True)
class ExerciseCell:
    """An exercise as it stands in a notebook: solution and stub, and the imports and definitions of
    the cells before it.
    """

    name: str
    solution: str
    stub: str
    setup: str


def to_stub(source: str, name: str) -> str:
    """`source` with each region between the solution markers replaced by a NotImplementedError;
    UserError if markers do not pair.
    """
    marks = re.findall(f"{BEGIN}|{END}", source)
    if not marks or marks != [BEGIN, END] * (len(marks) // 2):
        raise UserError(
            f"exercise {name!r}: expected pairs of {BEGIN} and {END}, each on a line of its own"
        )
    pattern = re.compile(rf"^([ \t]*){BEGIN}.*?^[ \t]*{END}[^\n]*$", re.MULTILINE | re.DOTALL)
    return pattern.sub(
        lambda match: f'{match[1]}raise NotImplementedError("{NOT_WRITTEN}")', source
    )


def exercise_cells(notebook: Path) -> list[ExerciseCell]:
    """The exercises of a notebook, in order: code cells with the tag `exercise:<name>`. UserError
    if their markers do not pair.
    """
    found, setup = [], ""
    for cell in read_json(notebook, "notebook")["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        tags = [
            tag.removeprefix("exercise:")
            for tag in cell["metadata"].get("tags", [])
            if tag.startswith("exercise:")
        ]
        found += [ExerciseCell(name, source, to_stub(source, name), setup) for name in tags]
        setup += _definitions(source)
    return found


def _definitions(source: str) -> str:
    """Imports, functions, classes and literal constants of a cell: what a later exercise may lean
    on, without running the lesson.
    """
    plain = "\n".join(
        "pass" if line.startswith(("%", "!")) else line for line in source.splitlines()
    )
    return "".join(
        ast.unparse(node) + "\n" for node in ast.parse(plain).body if _is_definition(node)
    )


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        # `mask[:, 0] = True` defines nothing: it needs a mask that the proof does not have.
        return (
            all(isinstance(target, ast.Name) for target in targets)
            and node.value is not None
            and _is_literal(node.value)
        )
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def prove(exercise: Exercise, solution: str, stub: str, setup: str = "") -> None:
    """Raise AssertionError unless the solution passes, the stub fails kindly, and two or more wrong
    answers each get their own message.
    """
    exercise(_define(exercise.name, setup + solution))
    said = _reply(exercise, _define(exercise.name, setup + stub))
    assert NOT_WRITTEN in said, f"{exercise.name}: the stub is answered with {said!r}"
    assert len(exercise.wrong) >= 2, (
        f"{exercise.name}: needs two or more wrong answers, has {len(exercise.wrong)}"
    )
    replies = [_reply(exercise, wrong.implementation) for wrong in exercise.wrong]
    for wrong, reply in zip(exercise.wrong, replies, strict=True):
        wanted = wrong.must_say or wrong.message
        assert wanted and wanted in reply, (
            f"{exercise.name}: the wrong answer {wrong.name!r} is answered with {reply!r}"
        )
    assert len(set(replies)) == len(replies), (
        f"{exercise.name}: two wrong answers get the same message"
    )


def _define(name: str, source: str) -> Callable[..., Any]:
    space: dict[str, Any] = {"__name__": "lesson"}
    exec(compile(source, f"<exercise {name}>", "exec"), space)
    assert name in space, f"exercise {name}: its cell defines no function of that name"
    return space[name]  # type: ignore[no-any-return]


def _reply(exercise: Exercise, function: Callable[..., Any]) -> str:
    try:
        exercise(function)
    except CheckFailed as failed:
        return str(failed)
    raise AssertionError(
        f"{exercise.name}: {getattr(function, '__name__', function)} passes and should not"
    )
