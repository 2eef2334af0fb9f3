"""The strict runner on small notebooks that pass, raise, hang, die, misspell a parameter or forget
their result.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from timescope_lite.classroom import runner
from timescope_lite.common import UserError
from timescope_lite.results import read_result

LIBRARY_HASH = runner.library_hash
PARAMETERS = 'profile = "smoke"\nout = ""\nseed = 0\nshare = 0.5\nlabel = "plain"'
RESULT = """
from timescope_lite.results import Estimate, write_result
METRIC = Estimate(share, 0.25, 0.75, 8)
METRICS = {"two_stage@64/all/r1@0.5": METRIC}
_ = write_result(out, name="tiny", seed=seed, config={"profile": profile}, metrics=METRICS)
"""


def make(path: Path, *cells: str, kernel: str = "python3") -> Path:
    """A notebook of one parameters cell and the given code cells."""
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
    )
    book.cells = [
        nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in (PARAMETERS, *cells)
    ]
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, path)
    return path


@pytest.fixture(autouse=True, scope="module")
def frozen_library() -> Iterator[None]:
    """The hash of the library as one value: an editor that saves a file during the tests must not
    change their outcome.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "library_hash", lambda: "0.1.0+tests")
        yield


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, runner.RunResult], Path]:
    """Every kind of notebook in one call of the runner, two at a time."""
    folder = tmp_path_factory.mktemp("batch")
    books = [
        make(
            folder / "fine.ipynb",
            "import os\nprint(os.environ['TIMESCOPE_PROFILE'], os.environ['OMP_NUM_THREADS'], "
            "os.getcwd())",
            RESULT,
        ),
        make(
            folder / "raising.ipynb",
            "kept = 'this ran'\nkept",
            "wanted = {}\nwanted['window']",
            "print('never')",
        ),
        make(folder / "hanging.ipynb", "import time\n'slow'\ntime.sleep(600)", RESULT),
        make(folder / "dying.ipynb", RESULT, "import os\nos._exit(7)", "print('never')"),
        make(folder / "silent.ipynb", "print('no result')"),
        make(folder / "foreign.ipynb", RESULT, kernel="conda-env-mine"),
        make(folder / "modest.ipynb", RESULT.replace("seed=seed", 'seed=seed, status="failed"')),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        results = runner.run_notebooks(
            books, parameters={"seed": 3}, jobs=2, out=folder / "runs", cell_timeout_s=12
        )
    assert [result.name for result in results] == [book.stem for book in books]
    return {result.name: result for result in results}, folder


def test_a_good_notebook_leaves_its_result_and_measures(batch) -> None:
    results, _ = batch
    fine = results["fine"]
    result = read_result(fine.folder / "result.json")
    assert (fine.status, fine.ok, fine.error) == ("ok", True, "")
    assert (result.seed, result.config) == (3, {"profile": "smoke"})
    assert fine.headline == "two_stage@64/all/r1@0.5 0.500 [0.250, 0.750]"
    assert 20 * 2**20 < fine.peak_rss_bytes < 2**30 and 0 < result.wall_s <= fine.wall_s
    assert not (fine.folder / "worker.json").exists()


def test_the_kernel_gets_profile_threads_and_a_folder_of_its_own(batch) -> None:
    fine = batch[0]["fine"]
    book = nbformat.read(fine.folder / "fine.ipynb", as_version=4)
    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])
    )
    assert printed.split() == ["smoke", "1", str(fine.folder)]
    assert "without encryption" not in (fine.folder / "run.log").read_text()


def test_a_raising_cell_is_named_and_the_rest_is_kept(batch) -> None:
    raising = batch[0]["raising"]
    assert (raising.status, raising.error) == ("failed", "KeyError: 'window'")
    assert raising.cell == "wanted = {}\nwanted['window']"
    assert "this ran" in (raising.folder / "raising.ipynb").read_text()


def test_a_cell_over_its_time_is_named(batch) -> None:
    hanging = batch[0]["hanging"]
    assert hanging.status == "failed" and "longer than the 12 s" in hanging.error
    assert "time.sleep(600)" in hanging.cell


def test_a_dead_kernel_fails_even_after_its_result_was_written(batch) -> None:
    dying = batch[0]["dying"]
    assert (dying.folder / "result.json").exists()
    assert dying.status == "failed" and "kernel died" in dying.error and "os._exit(7)" in dying.cell


def test_without_a_result_file_a_run_has_failed(batch) -> None:
    assert (
        batch[0]["silent"].status == "failed"
        and "result.json does not exist" in batch[0]["silent"].error
    )
    assert batch[0]["modest"].status == "failed" and "says 'failed'" in batch[0]["modest"].error


def test_a_personal_kernel_name_does_not_matter(batch) -> None:
    assert batch[0]["foreign"].status == "ok"


def test_run_record_and_table_say_the_same(batch) -> None:
    results, _ = batch
    record = json.loads((results["raising"].folder / "run.json").read_text())
    assert (record["status"], record["error"], record["profile"]) == (
        "failed",
        "KeyError: 'window'",
        "smoke",
    )
    lines = runner.summary_table(list(results.values())).splitlines()
    assert len(lines) == len(results) + 1 and lines[0].split() == [
        "notebook",
        "status",
        "time",
        "peak",
        "memory",
        "headline",
    ]
    assert "r1@0.5 0.500" in lines[1] and "KeyError: 'window'" in lines[2]


def test_resume_skips_exactly_what_is_unchanged(batch, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = batch
    started: list[str] = []
    monkeypatch.setattr(
        runner,
        "_run",
        lambda job, *_: (
            started.append(job.name) or runner.RunResult(job.name, "ok", 0.0, 0, Path(job.folder))
        ),
    )

    def again(name: str = "fine", **options) -> str:
        options = {"parameters": {"seed": 3}, "out": folder / "runs", "resume": True} | options
        return runner.run_notebooks([folder / f"{name}.ipynb"], **options)[0].status

    assert again() == "skipped" and not started
    assert [
        again(parameters={"seed": 4}),
        again(resume=False),
        again(profile="lab"),
        again("raising"),
        again("dying"),
    ] == ["ok"] * 5
    assert started == ["fine", "fine", "fine", "raising", "dying"]
    monkeypatch.setattr(runner, "library_hash", lambda: "another")
    assert again() == "ok"


def test_the_content_hash_sees_code_and_nothing_else(tmp_path: Path) -> None:
    path = make(tmp_path / "a.ipynb", "x = 1")
    before = runner.content_hash(path)
    book = nbformat.read(path, as_version=4)
    book.cells.append(nbformat.v4.new_markdown_cell("prose"))
    book.cells[1].outputs = [nbformat.v4.new_output("stream", text="1\n")]
    nbformat.write(book, path)
    assert runner.content_hash(path) == before
    assert runner.content_hash(make(tmp_path / "b.ipynb", "x = 2")) != before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"parameters": {"sede": 3}}, "no parameter 'sede'; expected one of: seed, share, label"),
        ({"parameters": {"seed": "many"}}, "'seed' is 'many', expected int such as 0"),
        ({"parameters": {"seed": True}}, "'seed' is True, expected int"),
        ({"parameters": {"profile": "lab"}}, "use --profile"),
        ({"profile": "huge"}, "unknown profile 'huge'"),
        ({"jobs": 0}, "jobs is 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_starts(
    tmp_path: Path, options: dict, says: str
) -> None:
    book = make(tmp_path / "fine.ipynb", RESULT)
    with pytest.raises(UserError, match=says):
        runner.run_notebooks([book], out=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_bad_notebooks_are_refused_before_anything_starts(tmp_path: Path) -> None:
    good, text = make(tmp_path / "good.ipynb", RESULT), tmp_path / "notes.txt"
    text.write_text("prose")
    (tmp_path / "broken.ipynb").write_text("{")
    (tmp_path / "list.ipynb").write_text("[]")
    derived = make(tmp_path / "derived.ipynb")
    derived.write_text(derived.read_text().replace("share = 0.5", "share = seed / 2"))
    cases = [
        ("none.ipynb", "does not exist"),
        (text, "not a notebook"),
        ("broken.ipynb", "not valid JSON"),
        ("list.ipynb", "list of cells"),
    ]
    for bad, says in [*cases, (derived, "name = literal"), (good, "named twice")]:
        with pytest.raises(UserError, match=says):
            runner.run_notebooks([good, tmp_path / bad], out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_library_hash_leaves_out_what_no_result_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PACKAGE", tmp_path)
    (tmp_path / "classroom").mkdir()
    hashes = []
    for name in ("cli.py", "classroom/report.py", "metrics.py", "domain.toml", "notes.md"):
        (tmp_path / name).write_text("x = 1\n")
        hashes.append(LIBRARY_HASH())
    assert hashes[0] == hashes[1] != hashes[2] != hashes[3] == hashes[4]
    monkeypatch.setattr(runner, "versions", lambda: {"torch": "another"})
    assert LIBRARY_HASH() != hashes[4], "in another environment everything runs again"


def test_a_run_with_other_parameters_is_not_what_a_reader_gets(tmp_path: Path) -> None:
    from timescope_lite.results import versions, write_result

    book = make(tmp_path / "tiny.ipynb")
    own = {
        name: value
        for name, value in runner.declared_parameters(book).items()
        if name not in runner.RESERVED
    }
    write_result(tmp_path / "run", name="tiny", metrics={})
    assert runner.stamp_of(tmp_path / "run", book) is None, "it has no run record"
    for parameters, status, good in (
        ({"out": "x"}, "ok", True),
        (own, "ok", True),
        ({next(iter(own)): 99}, "ok", False),
        ({}, "failed", False),
    ):
        record = {"status": status, "profile": "smoke", "parameters": parameters, "content": "abc"}
        (tmp_path / "run" / "run.json").write_text(json.dumps(record))
        expected = {"profile": "smoke", "parameters": own, "code": "abc", "versions": versions()}
        assert runner.stamp_of(tmp_path / "run", book) == (expected if good else None)


def test_an_int_is_a_fine_float_and_none_takes_anything(tmp_path: Path) -> None:
    book = make(tmp_path / "a.ipynb")
    book.write_text(book.read_text().replace('label = \\"plain\\"', "label = None"))
    assert runner.checked(
        book, {"share": 1, "label": [2]}, {"profile": "lab", "out": "x", "more": 1}
    ) == {
        "share": 1,
        "label": [2],
        "profile": "lab",
        "out": "x",
    }


def test_a_kernel_that_dies_at_its_start_gets_one_more_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    script = f"import sys, pathlib, runpy\nflag = pathlib.Path({str(tmp_path / 'tries')!r})\n"
    script += (
        "tries = int(flag.read_text()) if flag.exists() else 0\nflag.write_text(str(tries + 1))\n"
    )
    script += (
        "sys.exit(1) if tries < int(sys.argv.pop(1)) else runpy.run_module('ipykernel_launcher', "
        "run_name='__main__')\n"
    )
    (spec / "flaky.py").write_text(script)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for deaths, status in ((1, "ok"), (9, "failed")):
        argv = [sys.executable, str(spec / "flaky.py"), str(deaths), "-f", "{connection_file}"]
        (spec / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": "flaky", "language": "python"})
        )
        (tmp_path / "tries").unlink(missing_ok=True)
        result = runner.run_notebooks(
            [make(tmp_path / "fine.ipynb", RESULT)], out=tmp_path / "runs"
        )[0]
        assert (result.status, (tmp_path / "tries").read_text()) == (status, "2")
    assert (
        "no kernel started (Kernel died before replying to kernel_info); `timescope-lite doctor` "
        "says what is missing" in result.error
    )


def test_a_worker_that_is_killed_is_a_failed_run(tmp_path: Path) -> None:
    book = make(
        tmp_path / "killed.ipynb",
        "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)\nimport time\ntime.sleep(60)",
        RESULT,
    )
    result = runner.run_notebooks([book], out=tmp_path / "runs")[0]
    assert result.status == "failed" and result.error


def test_ctrl_c_ends_the_workers_and_their_kernels(tmp_path: Path) -> None:
    make(
        tmp_path / "long.ipynb",
        "import os, time, pathlib\n_ = "
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(600)",
    )
    call = "from timescope_lite.classroom.runner import run_notebooks"
    call += f"; run_notebooks([{str(tmp_path / 'long.ipynb')!r}], out={str(tmp_path)!r} + '/runs')"
    environment = {**os.environ, "PYTHONPATH": str(runner.PACKAGE.parent)}
    # A shell starts its background jobs with SIGINT ignored, and children inherit that: the test
    # must work there too.
    listen = (
        {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
        if os.name == "posix"
        else {}
    )
    process = subprocess.Popen(
        [sys.executable, "-c", call], env=environment, stderr=subprocess.DEVNULL, **listen
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    kernel = int((tmp_path / "pid").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    assert kernel in family and not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in family
    )
    assert json.loads((tmp_path / "runs" / "long" / "run.json").read_text())["status"] == "failed"


# ---- notebooks that other programs wrote ---------------------------------------------------------


def spoilt(path: Path, change: str) -> Path:
    """A sound notebook with one thing that exporters and editors do to it."""
    book = json.loads(make(path, RESULT).read_text())
    if change == "null metadata":
        book["metadata"] = None
        book["cells"][1]["metadata"] = None
    if change == "no source":
        book["cells"].insert(1, {"cell_type": "markdown", "metadata": {}})
        book["cells"].insert(1, {"cell_type": "code", "metadata": {"tags": None}})
    if change == "no format":
        del book["nbformat"], book["nbformat_minor"]
    text = json.dumps(book)
    path.write_text(text, encoding="utf-8-sig" if change == "byte-order mark" else "utf-8")
    return path


@pytest.mark.parametrize(
    "change", ["byte-order mark", "null metadata", "no source", "no format", "nothing"]
)
def test_what_other_programs_leave_out_is_filled_in(change: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path / "tiny.ipynb", change)
    before = path.read_bytes()
    assert runner.needs_mending(path) == (change != "nothing")
    job = runner.Job(
        "tiny", str(path), str(tmp_path / "run"), "smoke", {"out": str(tmp_path)}, 60, "", ""
    )
    Path(job.folder).mkdir()
    said = runner.work(job)
    assert said["error"] == "", said
    assert read_result(tmp_path / "result.json").name == "tiny" and path.read_bytes() == before
    assert [p.name for p in Path(job.folder).iterdir()] == ["tiny.ipynb"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "expected an object with a list of cells"),
        ('{"cells": [null]}', "cell 1: expected an object whose cell_type"),
        ('{"cells": [{"source": "1"}]}', "cell 1: expected an object whose cell_type"),
        ('{"cells": [{"cell_type": "code", "source": 1}]}', "cell 1: expected text as its source"),
        ('{"cells": [{"cell_type": "code", "metadata": [1]}]}', "cell 1: expected text"),
        ('{"cells": [], "metadata": 5}', "expected metadata as an object"),
        ('{"cells": [], "nbformat": 3}', "nbformat 4"),
    ],
)
def test_what_is_no_notebook_is_one_line(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.ipynb"
    path.write_text(content)
    for read in (runner.read_notebook, runner.declared_parameters, runner.content_hash):
        with pytest.raises(UserError, match=match) as caught:
            read(path)
        assert "\n" not in str(caught.value)


CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "notebooks"


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample notebooks are not here")
def test_sample_notebooks() -> None:
    assert runner.declared_parameters(CASES / "bom.ipynb") == {"seed": 0, "name": "a"}
    assert runner.declared_parameters(CASES / "metanull.ipynb") == {}
