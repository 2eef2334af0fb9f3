"""The student version of the course: the same notebooks with the solutions taken out. There is one
source; what is written here is always made anew from it.

A solution stands between `### BEGIN SOLUTION` and `### END SOLUTION` (nbgrader's markers, so a
school that uses nbgrader can take the source as it is); its explanation is a folded block that says
so. Hints stay.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from timescope_lite.classroom.checks.core import BEGIN, NOT_WRITTEN, to_stub
from timescope_lite.classroom.report import STAMP
from timescope_lite.classroom.runner import ipython_dir
from timescope_lite.common import UserError, atomic_path

if TYPE_CHECKING:
    from nbformat import NotebookNode

EXPLAINED = re.compile(
    r"<details>\s*<summary>\s*Solution[^<]*</summary>.*?</details>\s*", re.DOTALL
)
LEFT_OUT = "*The explained solution of this exercise is in the teacher's version.*\n\n"


def make_student_version(notebooks: Sequence[Path], out: Path) -> list[Path]:
    """Write the student version of each notebook into `out`; returns their paths.

    Raises UserError, before anything is written, if one of them is there already (it may hold
    somebody's work) or markers do not pair.
    """
    import nbformat

    out = Path(out)
    made = {out / Path(path).name: strip(nbformat.read(path, as_version=4)) for path in notebooks}
    there = [path.name for path in made if path.exists()]
    if there:
        raise UserError(
            f"{out} holds {there[0]} already, perhaps with somebody's work in it; take another "
            "folder, or move it away"
        )
    for path, book in made.items():
        with atomic_path(path) as temporary:
            nbformat.write(book, temporary)
    return list(made)


def strip(book: NotebookNode) -> NotebookNode:
    """A notebook without solutions, their explanations and all outputs; cells keep their number and
    their tags.
    """
    book.metadata.pop(STAMP, None)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = EXPLAINED.sub(LEFT_OUT, cell.source)
            continue
        cell.outputs, cell.execution_count = [], None
        if BEGIN in cell.source:
            cell.source = to_stub(cell.source, _exercise(cell) or "untagged")
    return book


def prove_student_version(path: Path, timeout_s: float = 120.0) -> str:
    """Run a student notebook up to its first check, which must fail kindly; returns what the
    student reads there.

    Raises UserError if a cell fails before it, if the check passes, or if what is read is a
    traceback. A notebook without exercises is not run.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    first = next((i for i, cell in enumerate(book.cells) if _exercise(cell)), None)
    if first is None:
        return "(no exercise)"
    book.cells = book.cells[: first + 2]
    client = NotebookClient(
        book,
        timeout=timeout_s,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    with ipython_dir() as quiet:
        client.execute(env={**os.environ, "IPYTHONDIR": quiet})
    said = {i: _error(cell) for i, cell in enumerate(book.cells)}
    early = [i for i, error in said.items() if error and i < first + 1]
    if early:
        raise UserError(
            f"{path.name}: cell {early[0]} fails before the first exercise: "
            f"{said[early[0]].splitlines()[-1]}"
        )
    reply = said[first + 1]
    if NOT_WRITTEN not in reply or "Traceback" in reply:
        raise UserError(
            f"{path.name}: the check of the first exercise says {reply or 'nothing'!r}; expected "
            f"one kind line with {NOT_WRITTEN!r}"
        )
    return reply


def _exercise(cell: NotebookNode) -> str:
    """The name of the exercise that a cell holds, or an empty string."""
    return next(
        (
            str(tag).removeprefix("exercise:")
            for tag in cell.metadata.get("tags", [])
            if str(tag).startswith("exercise:")
        ),
        "",
    )


def _error(cell: NotebookNode) -> str:
    """What an error of a cell shows, without colours; empty if there is none."""
    shown = [output for output in cell.get("outputs", []) if output.output_type == "error"]
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(shown[0].traceback)) if shown else ""
