"""Every notebook keeps the contract, runs through the strict runner, and prints again what is
stored in it.

Each notebook is executed once. `pytest --nbval-lax` would compare the cells marked `#
NBVAL_CHECK_OUTPUT` by running every notebook a second time; here the outputs of the strict runner's
own execution are compared with the stored ones instead, by the same rule (marked cells only, text
only, sanitized). It also catches what nbval lets pass: a marked cell without a stored output.
"""

import copy
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from timescope_lite import __version__
from timescope_lite.classroom import checks, runner
from timescope_lite.classroom.checks.core import exercise_cells, prove
from timescope_lite.classroom.publishing import first_cell
from timescope_lite.classroom.report import RESERVED, STAMP, WIDGET
from timescope_lite.classroom.runner import content_hash, declared_parameters
from timescope_lite.common import UserError

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STRICT = "# NBVAL_CHECK_OUTPUT"
SANITIZE = [(r"0x[0-9a-f]{6,}", "ADDRESS"), (r"\x1b\[[0-9;]*m", ""), (r"[ \t]+$", "")]
PERSONAL = [
    re.escape(str(ROOT)),
    re.escape(str(Path.home())) + r"/",
    re.escape(tempfile.gettempdir()) + r"/\w",
    r"/home/\w",
    r"/Users/\w",
    r"[A-Z]:\\Users",
]
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# --- the contract ---------------------------------------------------------------------------------


def contract_problems(path: Path) -> list[str]:
    """What a notebook breaks of the contract of a lesson (00-08), an experiment (09-13) or a
    further one, in words.
    """
    book = nbformat.read(path, as_version=4)
    if not re.fullmatch(r"\d\d_\w+\.ipynb", path.name):
        return ["the file is not called NN_name.ipynb"]
    number = int(path.name[:2])
    problems = [*_form(path, book), *_outputs(book), *_figures(book)]
    return problems + (
        _lesson(path, book) if number <= 8 else _experiment(book) if number <= 13 else []
    )


def _code(book: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def _prose(book: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")


def _tagged(book: NotebookNode, tag: str) -> list[int]:
    return [i for i, cell in enumerate(_code(book)) if tag in cell.metadata.get("tags", [])]


def _form(path: Path, book: NotebookNode) -> list[str]:
    """Kernel, metadata, opening, parameters, cell length, personal paths."""
    code, found = _code(book), []
    if book.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    if "widgets" in book.metadata:
        found.append("widget metadata is stored")
    if not book.cells or not re.match(r"# \S", book.cells[0].source):
        found.append("the first cell is no title")
    if (
        _prose(book).count("<!-- measured:begin -->") != 1
        or _prose(book).count("<!-- measured:end -->") != 1
    ):
        found.append("the markers of the measured line are not there once")
    start, parameters = _tagged(book, "bootstrap"), _tagged(book, "parameters")
    if len(start) != 1 or code[start[0]].source != first_cell():
        found.append("the cell tagged bootstrap is not publishing.first_cell()")
    if len(parameters) != 1 or parameters != [i + 1 for i in start]:
        found.append("the cell after the bootstrap cell is not the only one tagged parameters")
    try:
        declared_parameters(path)
    except UserError as error:
        found.append(str(error))
    if (
        code and statistics.median(len(cell.source.splitlines()) for cell in code) > 13
    ):  # of 100 columns
        found.append("the median code cell has more than 13 lines")
    if _tagged(book, "raises-exception"):
        found.append("an expected error is tagged raises-exception; catch it with try/except")
    texts = [cell.source for cell in book.cells] + [_text(cell) for cell in code]
    return found + [
        f"a personal path: {match[0]}"
        for text in texts
        for match in [re.search("|".join(PERSONAL), text)]
        if match
    ]


def _outputs(book: NotebookNode) -> list[str]:
    """Outputs are stored, in order, without errors or widget views; marked cells hold text to
    compare with.
    """
    code, found = _code(book), []
    counts = [cell.execution_count for cell in code if cell.source.strip()]
    if None in counts or not any(cell.outputs for cell in code):
        found.append("outputs are not stored: record a run")
    elif counts != sorted(set(counts)):
        found.append("outputs are not of one run from top to bottom")
    outputs = [output for cell in code for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        found.append("an error is stored")
    if any(WIDGET in output.get("data", {}) for output in outputs):
        found.append("a widget view is stored: it shows nothing to a reader without the kernel")
    return found + [
        f"marked strict, but no text is stored: {cell.source[:60]!r}"
        for cell in code
        if STRICT in cell.source and not _text(cell)
    ]


def pins() -> dict[str, str]:
    """The recorded environment: package -> version of constraints.txt, and of this package."""
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    return {"timescope-lite": __version__} | dict(line.split("==") for line in lines)


def recorded_problems(path: Path) -> list[str]:
    """The stored outputs are those of this code, with these parameters, this version and the
    environment of constraints.txt.
    """
    again = "record them again (make report)"
    book = nbformat.read(path, as_version=4)
    stamp = book.metadata.get(STAMP)
    if not stamp:
        return [f"it is not said what the outputs were recorded with: {again}"]
    found = [
        f"the outputs were recorded with {name} {version}, the tree has {pins()[name]}: {again}"
        for name, version in stamp["versions"].items()
        if name in pins() and version.split("+")[0] != pins()[name]
    ]
    printed = {
        version
        for cell in _code(book)
        for version in re.findall(r"TimeScope-lite (\d\S*) \|", _text(cell))
    }
    found += [
        f"the bootstrap cell prints version {version}, the tree has {__version__}: {again}"
        for version in printed - {__version__}
    ]
    try:
        declared = {
            name: value for name, value in declared_parameters(path).items() if name not in RESERVED
        }
    except UserError:
        return found  # _form says it
    if stamp["parameters"] != declared:
        found.append(
            f"the outputs were recorded with {dict(stamp['parameters'])}, the parameters are now "
            f"{declared}: {again}"
        )
    return found + [f"the code was edited after its outputs were recorded: {again}"] * (
        stamp["code"] != content_hash(path)
    )


def _figures(book: NotebookNode) -> list[str]:
    """Alt text on every figure, drawn, written as HTML or linked; nothing fetched from
    elsewhere.
    """
    outputs = [output for cell in _code(book) for output in cell.outputs]
    drawn = [
        (output, kind)
        for output in outputs
        for kind in output.get("data", {})
        if kind.startswith("image/")
    ]
    tags = [
        tag
        for output in outputs
        for tag in re.findall(r"<img[^>]*>", output.get("data", {}).get("text/html", ""))
    ]
    bare = any(not output.metadata.get(kind, {}).get("alt", "").strip() for output, kind in drawn)
    found = ["a figure has no alt text"] * (
        bare or any(not re.search(r"""alt=(["'])\s*[^"'\s]""", tag) for tag in tags)
    )
    prose = _prose(book)
    if re.search(r"!\[\s*\]\(", prose) or any(
        "alt=" not in tag for tag in re.findall(r"<img[^>]*>", prose)
    ):
        found.append("an image in the text has no alt text")
    if re.search(r"!\[[^\]]*\]\(\s*http|<img[^>]*src=.http", prose):
        found.append("an image is fetched from the network")
    return found


def _lesson(path: Path, book: NotebookNode) -> list[str]:
    """Objectives, size, figure, strict cells, two to four exercises with hints and a check
    underneath.
    """
    code, found = _code(book), []
    if not re.search(r"(?im)^#+ .*objective", _prose(book)):
        found.append("there is no heading with the objectives")
    if not 30 <= len(code) <= 55:
        found.append(f"a lesson has 30 to 55 code cells, this one {len(code)}")
    if not any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs):
        found.append("there is no figure")
    if not any(STRICT in cell.source for cell in code):
        found.append(f"no cell is marked {STRICT}")
    names = [cell.name for cell in exercise_cells(path)]
    if not 2 <= len(names) <= 4 or len(set(names)) != len(names):
        found.append(f"a lesson has two to four exercises, this one {names}")
    if _prose(book).count("<details>") < len(names):
        found.append("an exercise has no folded hint")
    sources = [cell.source for cell in code]
    for name in names:
        at = _tagged(book, f"exercise:{name}")[0]
        if not any(f"checks.{name}({name})" in source for source in sources[at : at + 3]):
            found.append(f"there is no checks.{name}({name}) underneath its exercise")
    return found


def _experiment(book: NotebookNode) -> list[str]:
    """A prediction first, and a result file."""
    found = (
        []
        if re.search(r"(?im)^#+ .*predict", _prose(book))
        else ["there is no heading with a prediction"]
    )
    if not any(tag in cell.source for cell in _code(book) for tag in ("write_result", "evaluate(")):
        found.append("no result file is written")
    return found


@each_notebook
def test_the_notebook_keeps_the_contract(path: Path) -> None:
    assert contract_problems(path) == []


@pytest.mark.slow
@each_notebook
def test_stored_outputs_are_those_of_this_code(path: Path) -> None:
    """For a release only: else every change would ask for all notebooks to be recorded again. What
    the code prints now is looked at in the one execution below.
    """
    assert recorded_problems(path) == []


# --- one execution, and what it printed -----------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runner.RunResult]:
    """Every notebook, once, in smoke, two at a time."""
    results = runner.run_notebooks(
        NOTEBOOKS, profile="smoke", jobs=2, out=tmp_path_factory.mktemp("course")
    )
    return {result.name: result for result in results}


@each_notebook
def test_the_notebook_runs(path: Path, executed: dict[str, runner.RunResult]) -> None:
    result = executed[path.stem]
    assert result.ok, f"{result.error}\n{result.cell}"
    fresh = nbformat.read(result.folder / path.name, as_version=4)
    assert _figures(fresh) == []


def _text(cell: NotebookNode) -> str:
    """What a cell printed and returned as text, sanitized; figures and stderr are left out (nbval's
    rule).
    """
    parts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif "text/plain" in output.get("data", {}) and "image/png" not in output.data:
            parts.append(output.data["text/plain"] + "\n")
    text = "".join(parts)
    for pattern, replacement in SANITIZE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.strip()


def strict_differences(stored: NotebookNode, fresh: NotebookNode) -> list[str]:
    """Marked cells whose fresh text differs from the stored one, with both."""
    ran = {cell.id: cell for cell in fresh.cells}
    pairs = [
        (cell, ran.get(cell.id, NotebookNode())) for cell in _code(stored) if STRICT in cell.source
    ]
    return [
        f"{a.source}\nstored: {_text(a)}\nfresh:  {_text(b)}"
        for a, b in pairs
        if _text(a) != _text(b) or not _text(a)
    ]


@each_notebook
def test_marked_cells_print_what_is_stored(
    path: Path, executed: dict[str, runner.RunResult]
) -> None:
    if not executed[path.stem].ok:
        pytest.fail(f"{path.stem} did not run to its end")
    fresh = nbformat.read(executed[path.stem].folder / path.name, as_version=4)
    assert strict_differences(nbformat.read(path, as_version=4), fresh) == []


# --- exercises ------------------------------------------------------------------------------------


@each_notebook
def test_every_exercise_is_proven(path: Path) -> None:
    found = {cell.name: cell for cell in exercise_cells(path)}
    for cell in found.values():
        prove(getattr(checks, cell.name), cell.solution, cell.stub, cell.setup)
    # An exercise without a cell would never be proven.
    assert {
        name for name, exercise in checks.load_all().items() if exercise.lesson == path.name[:2]
    } <= set(found)


# --- the tests above, tested on a small lesson ----------------------------------------------------

SOLUTION = "def {0}(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"


def lesson() -> NotebookNode:
    """The smallest notebook that keeps the contract of a lesson."""
    text = [
        "# Title",
        "## Objectives\n<!-- measured:begin --><!-- measured:end -->",
        "<details>hint</details><details>hint</details>",
    ]
    sources = [first_cell(), 'profile = "smoke"', "1 + 1  " + STRICT, "plot()"]
    for name in ("double", "twice"):
        sources += [SOLUTION.format(name), f"checks.{name}({name})"]
    sources += ["pass"] * (30 - len(sources))
    code = [
        nbformat.v4.new_code_cell(source, execution_count=i + 1) for i, source in enumerate(sources)
    ]
    code[0].metadata["tags"], code[1].metadata["tags"] = ["bootstrap"], ["parameters"]
    code[4].metadata["tags"], code[6].metadata["tags"] = ["exercise:double"], ["exercise:twice"]
    code[2].outputs = [
        nbformat.v4.new_output("execute_result", data={"text/plain": "2"}, execution_count=3)
    ]
    code[3].outputs = [
        nbformat.v4.new_output(
            "display_data", data={"image/png": "aGk="}, metadata={"image/png": {"alt": "A line."}}
        )
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    book = nbformat.v4.new_notebook(
        cells=[*map(nbformat.v4.new_markdown_cell, text), *code], metadata=kernel
    )
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(book, Path(folder) / "book.ipynb")
        hashed = content_hash(Path(folder) / "book.ipynb")
    versions = {name: pins()[name] for name in ("timescope-lite", "torch")} | {"python": "3.11.7"}
    book.metadata[STAMP] = {
        "profile": "smoke",
        "parameters": {},
        "code": hashed,
        "versions": versions,
    }
    return book


def problems_of(book: NotebookNode, folder: Path, name: str = "04_lesson.ipynb") -> list[str]:
    nbformat.write(book, folder / name)
    return [*contract_problems(folder / name), *recorded_problems(folder / name)]


def test_a_good_lesson_has_no_problems(tmp_path: Path) -> None:
    assert problems_of(lesson(), tmp_path) == []


def edit(cell: int, **values: Any) -> Callable[[NotebookNode], None]:
    return lambda book: book.cells[cell].update(values)


def output(cell: int, **values: Any) -> Callable[[NotebookNode], None]:
    return lambda book: book.cells[cell].outputs[0].update(values)


def printing(cell: int, text: str) -> Callable[[NotebookNode], None]:
    return edit(cell, outputs=[nbformat.v4.new_output("stream", text=text)])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda book: book.metadata.kernelspec.update(name="conda-env"), "kernel is not python3"),
        (lambda book: book.metadata.update(widgets={"state": {}}), "widget metadata"),
        (edit(0, source="Title"), "no title"),
        (edit(1, source="## Objectives"), "measured line"),
        (edit(1, source="<!-- measured:begin --><!-- measured:end -->"), "objectives"),
        (edit(3, source="%pip install timescope-lite"), "not publishing.first_cell()"),
        (edit(4, source="seed = 1 + other"), "name = literal"),
        (
            lambda book: book.cells[5].metadata.update(tags=["parameters"]),
            "only one tagged parameters",
        ),
        (
            lambda book: book.cells.insert(4, nbformat.v4.new_code_cell("1", execution_count=1)),
            "after the bootstrap cell",
        ),
        (
            lambda book: [cell.update(source="x = 1\n" * 14) for cell in book.cells[12:]],
            "more than 13 lines",
        ),
        (
            lambda book: book.cells[-1].metadata.update(tags=["raises-exception"]),
            "raises-exception",
        ),
        (
            edit(12, source="open('/home/' 'ada/notes')".replace("' '", "")),
            "personal path: /home/a",
        ),
        (output(5, data={"text/plain": f"{ROOT}"}), "personal path"),
        (
            lambda book: [cell.update(outputs=[], execution_count=None) for cell in book.cells[3:]],
            "outputs are not stored",
        ),
        (edit(12, execution_count=1), "one run from top to bottom"),
        (
            edit(12, outputs=[nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]),
            "an error is stored",
        ),
        (
            edit(12, outputs=[nbformat.v4.new_output("display_data", data={WIDGET: {}})]),
            "widget view",
        ),
        (edit(5, outputs=[]), "no text is stored"),
        (edit(5, source="1 + 1"), "no cell is marked"),
        (
            edit(5, source="1 + 1  " + STRICT + " "),
            "the code was edited after its outputs were recorded",
        ),
        (
            lambda book: book.metadata.pop(STAMP),
            "it is not said what the outputs were recorded with",
        ),
        (
            lambda book: book.metadata[STAMP]["versions"].update(torch="2.6.0+cu124"),
            "recorded with torch 2.6.0+cu124, the tree has",
        ),
        (
            lambda book: book.metadata[STAMP]["versions"].update({"timescope-lite": "0.0.9"}),
            "recorded with timescope-lite 0.0.9",
        ),
        (
            printing(3, "TimeScope-lite 0.0.9 | profile smoke | cpu"),
            "the bootstrap cell prints version 0.0.9, the tree has",
        ),
        (
            edit(4, source='profile = "smoke"\nseed = 8'),
            "recorded with {}, the parameters are now {'seed': 8}",
        ),
        (
            lambda book: book.metadata[STAMP].update(parameters={"seed": 7}),
            "recorded with {'seed': 7}, the parameters are now {}",
        ),
        (output(6, metadata={}), "figure has no alt text"),
        (output(6, metadata={"image/png": {"alt": " "}}), "figure has no alt text"),
        (output(6, data={"image/svg+xml": "<svg/>"}), "figure has no alt text"),
        (
            edit(
                12,
                outputs=[
                    nbformat.v4.new_output("display_data", data={"text/html": "<img src='data:x'>"})
                ],
            ),
            "figure has no alt text",
        ),
        (
            edit(
                12,
                outputs=[
                    nbformat.v4.new_output("display_data", data={"text/html": "<img alt=''>"})
                ],
            ),
            "figure has no alt text",
        ),
        (edit(6, outputs=[]), "no figure"),
        (edit(2, source="![](a.png)<details><details>"), "image in the text has no alt text"),
        (
            edit(2, source="<img src='a.png'><details><details>"),
            "image in the text has no alt text",
        ),
        (
            edit(2, source="![a](http://example.org/a.png)<details><details>"),
            "fetched from the network",
        ),
        (edit(2, source="no hints"), "folded hint"),
        (lambda book: book.cells.pop(), "30 to 55 code cells, this one 29"),
        (edit(9, metadata={}), "two to four exercises, this one ['double']"),
        (edit(8, source="checks.twice(twice)"), "no checks.double(double) underneath"),
    ],
)
def test_each_breach_of_the_contract_is_named(
    change: Callable[[NotebookNode], Any], says: str, tmp_path: Path
) -> None:
    book = lesson()
    change(book)
    assert any(says in problem for problem in problems_of(book, tmp_path)), problems_of(
        book, tmp_path
    )


def test_an_experiment_has_a_contract_of_its_own(tmp_path: Path) -> None:
    problems = problems_of(lesson(), tmp_path, "09_experiment.ipynb")
    assert problems == ["there is no heading with a prediction", "no result file is written"]
    assert problems_of(lesson(), tmp_path, "14_further.ipynb") == []
    assert problems_of(lesson(), tmp_path, "draft.ipynb") == [
        "the file is not called NN_name.ipynb"
    ]


def test_strict_cells_are_compared_by_text_and_by_nothing_else() -> None:
    stored = lesson()
    assert strict_differences(stored, copy.deepcopy(stored)) == []
    fresh = copy.deepcopy(stored)
    fresh.cells[6].outputs = []  # an unmarked cell, and a figure
    fresh.cells[5].outputs[0].execution_count = 9
    fresh.cells.insert(
        5, nbformat.v4.new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]})
    )
    assert strict_differences(stored, fresh) == []
    fresh.cells[6].outputs[0].data["text/plain"] = "3"
    assert "stored: 2\nfresh:  3" in strict_differences(stored, fresh)[0]
    for book in (stored, fresh):
        book.cells[-1 if book is stored else 6].outputs = []
    stored.cells[5].outputs = []
    assert len(strict_differences(stored, fresh)) == 1  # nothing stored proves nothing
    assert len(strict_differences(lesson(), NotebookNode(cells=[]))) == 1


def test_addresses_and_colours_do_not_count() -> None:
    def printed(text: str) -> NotebookNode:
        return nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text=text)])

    assert (
        _text(printed("<f at 0x7f00aabbcc>  \n"))
        == _text(printed("\x1b[31m<f at 0x55001122\x1b[0m>\n"))
        != ""
    )
    assert _text(printed("0.41")) != _text(printed("0.42"))


def test_no_notebooks_is_a_course_of_nothing(tmp_path: Path) -> None:
    assert runner.run_notebooks([], out=tmp_path) == []
