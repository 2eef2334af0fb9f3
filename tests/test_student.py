"""The student version: nothing of a solution is left, hints and everything else are, and it stops
kindly at the first exercise.
"""

import json
import re
from pathlib import Path

import nbformat
import pytest

from timescope_lite import cli
from timescope_lite.classroom.checks.core import BEGIN, END, exercise_cells
from timescope_lite.classroom.student import make_student_version, prove_student_version
from timescope_lite.common import UserError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
SAMPLED = [path for path in NOTEBOOKS if path.name[:2] in {"01", "04", "06"}]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    return {path.name: path for path in make_student_version(NOTEBOOKS, out)}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_solutions_and_outputs_are_gone_and_nothing_else(source, made):
    before, after = nbformat.read(source, 4), nbformat.read(made[source.name], 4)
    nbformat.validate(after)
    text = made[source.name].read_text()
    assert BEGIN not in text and END not in text and "Solution, explained" not in text
    assert len(exercise_cells(source)) >= 2 or source.name[:2] > "08", "a lesson has exercises"
    assert "timescope_lite" not in after.metadata, "it has no outputs whose origin could be said"
    for exercise in exercise_cells(source):
        lines = exercise.solution.split(BEGIN)[1].split(END)[0].splitlines()
        solved = [line.strip() for line in lines if len(line.strip()) > 25]
        in_exercise = next(
            c.source
            for c in after.cells
            if f"exercise:{exercise.name}" in c.metadata.get("tags", [])
        )
        assert (
            not [line for line in solved if line in in_exercise]
            and "NotImplementedError" in in_exercise
        )
    assert len(before.cells) == len(after.cells)
    for old, new in zip(before.cells, after.cells, strict=True):
        assert old.metadata == new.metadata and old.cell_type == new.cell_type
        if new.cell_type == "code":
            assert not new.outputs and new.execution_count is None
            assert new.source == old.source or BEGIN in old.source
        else:
            hints = re.findall(r"<summary>(Hint.*?)</summary>", old.source)
            assert hints == re.findall(r"<summary>(Hint.*?)</summary>", new.source), "hints stay"


@pytest.mark.parametrize("source", SAMPLED, ids=lambda path: path.stem)
def test_it_runs_up_to_its_first_exercise_and_stops_there_kindly(source, made):
    said = prove_student_version(made[source.name])
    assert (
        said.endswith("not written yet. Write the function above, run its cell, then this one.")
        and len(said.splitlines()) == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [path for path in NOTEBOOKS if path not in SAMPLED], ids=lambda path: path.stem
)
def test_the_others_stop_kindly_too(source, made):
    assert (
        "not written yet" if exercise_cells(source) else "(no exercise)"
    ) in prove_student_version(made[source.name])


def test_somebodys_work_is_never_overwritten(made, tmp_path, capsys):
    mine = tmp_path / SAMPLED[0].name
    mine.write_text("my answers")
    with pytest.raises(
        UserError, match=f"holds {mine.name} already, perhaps with somebody's work in it"
    ):
        make_student_version(NOTEBOOKS, tmp_path)
    assert mine.read_text() == "my answers" and list(tmp_path.iterdir()) == [mine]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["student", str(tmp_path)])
    assert stopped.value.code == 2 and "take another folder" in capsys.readouterr().err


def _book(tmp_path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[-2].metadata["tags"] = ["exercise:double"]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "source.ipynb")
    return tmp_path / "source.ipynb"


def test_markers_that_do_not_pair_are_refused_before_anything_is_written(tmp_path):
    source = _book(tmp_path, f"def double(x):\n    {BEGIN}\n    return 2 * x", "double(1)")
    with pytest.raises(UserError, match="exercise 'double': expected pairs of"):
        make_student_version([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("first", "check", "expected"),
    [
        (
            "1 / 0",
            "raise AssertionError('not written yet')",
            "cell 0 fails before the first exercise: ZeroDivisionError",
        ),
        ("1", "1", "the check of the first exercise says 'nothing'; expected one kind line"),
        ("1", "double(1)", "the check of the first exercise says .*Traceback"),
    ],
)
def test_a_version_that_does_not_stop_kindly_is_refused(tmp_path, first, check, expected):
    source = _book(
        tmp_path, first, f"def double(x):\n    {BEGIN}\n    return 2 * x\n    {END}", check
    )
    (path,) = make_student_version([source], tmp_path / "out")
    assert json.loads(path.read_text())["cells"][1]["source"]
    with pytest.raises(UserError, match=f"(?s){expected}"):
        prove_student_version(path)
