"""The command line: one line on stderr and exit status 2 for bad input, 1 for a failed run, JSON
where it is asked for.
"""

import json
import os
import sys
import types
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import pytest

from timescope_lite import cli
from timescope_lite.common import UserError

RESULT = """
from timescope_lite.results import Estimate, write_result
assert share < 1, "share is too large"
metrics = {"two_stage@64/all/miou": Estimate(share)}
_ = write_result(out, name="tiny", config={"label": label}, metrics=metrics)
"""


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "00_tiny.ipynb"
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(s) for s in ('out = ""\nshare = 0.5\nlabel = "a"', RESULT)]
    )
    made.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(made, path)
    return path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], "No such command 'nope'"),
        (["run", "--bad"], "No such option: --bad"),
        (["data"], "Missing command"),
        (["ground", "video.mp4"], "Missing argument 'task'"),
        (["data", "build", "--seed", "many"], "Invalid value for '--seed'"),
        (["run", "-p", "seed"], "-p needs a name and a value"),
        (["run", "no_such_notebook"], "'no_such_notebook' does not exist"),
        (["run", "BOOK", "--profile", "huge"], "unknown profile 'huge'"),
        (["run", "BOOK", "--jobs", "0"], "jobs is 0"),
        (
            ["run", "BOOK", "-p", "shaer", "0.7"],
            "has no parameter 'shaer'; expected one of: share, label",
        ),
        (["run", "BOOK", "-p", "share", "much"], "'share' is 'much', expected float"),
        (["report", "no_such_folder"], "no run found under no_such_folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], says: str, book: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*[book if a == "BOOK" else a for a in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1 and says in printed.err


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call() == 0 and call("--help") == 0
    assert capsys.readouterr().out.count("Usage: timescope-lite") == 2


def test_run_tells_the_truth_in_table_report_json_and_status(
    book: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    # A file saved in an editor between the two runs would rightly undo the resume.
    monkeypatch.setattr("timescope_lite.classroom.runner.library_hash", lambda: "0.1.0+tests")
    assert (
        call(
            "run", book, "-p", "share", 0.25, "-p", "label", "two words", "--out", tmp_path / "runs"
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "00_tiny   ok" in said
        and "two_stage@64/all/miou 0.250" in said
        and f"report: {tmp_path / 'runs' / 'report.html'}" in said
    )
    result = json.loads((tmp_path / "runs" / "00_tiny" / "result.json").read_text())
    assert result["config"] == {"label": "two words"}
    assert (
        call(
            "run",
            book,
            "-p",
            "share=0.25",
            "-p",
            "label",
            "two words",
            "--out",
            tmp_path / "runs",
            "--resume",
            "--json",
        )
        == 0
    )
    assert [row["status"] for row in json.loads(capsys.readouterr().out)] == ["skipped"]
    assert call("run", book, "-p", "share", 2, "--out", tmp_path / "runs") == 1
    printed = capsys.readouterr()
    assert (
        "AssertionError: share is too large" in printed.out
        and 'assert share < 1, "share is too large"' in printed.err
    )
    assert "share is too large" in (tmp_path / "runs" / "report.html").read_text()


def test_report_prints_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from timescope_lite.results import write_result

    write_result(tmp_path / "one", name="one", metrics={})
    assert call("report", tmp_path, "--out", tmp_path / "page.html", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "report": str(tmp_path / "page.html"),
        "times": None,
    }


def test_record_writes_the_last_good_run_and_nothing_of_a_failed_one(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    from timescope_lite.results import write_result

    cells = [
        nbformat.v4.new_markdown_cell("# One\n<!-- measured:begin --><!-- measured:end -->"),
        nbformat.v4.new_code_cell("old", metadata={"tags": ["bootstrap"]}),
    ]
    for folder in ("notebooks", "runs/smoke/00_one", "runs/lab/00_one", "runs/grid/seed=2/00_one"):
        (tmp_path / folder).mkdir(parents=True)
        cells[1].outputs = [nbformat.v4.new_output("stream", text=f"{folder}\n")]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / folder / ("00_one.ipynb"))
    for folder, status, parameters in (
        ("smoke", "ok", {}),
        ("lab", "failed", {}),
        ("grid/seed=2", "ok", {"seed": 2}),
    ):
        record = {
            "name": "00_one",
            "profile": folder[:5],
            "status": status,
            "wall_s": 30.0,
            "peak_rss_bytes": 2**20,
        }
        (tmp_path / f"runs/{folder}/00_one/run.json").write_text(
            json.dumps(record | {"parameters": parameters, "content": "abc"})
        )
        write_result(tmp_path / f"runs/{folder}/00_one", name="one", metrics={})
    (tmp_path / "README.md").write_text("<!-- shelves:begin --><!-- shelves:end -->")
    monkeypatch.setattr(cli, "project_root", lambda: tmp_path)
    monkeypatch.setattr(cli, "runs_root", lambda: tmp_path / "runs")
    assert call("report", "--record") == 0
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / "runs/report.html"),
        str(tmp_path / "figures/course_times.json"),
    ]
    made = (tmp_path / "notebooks/00_one.ipynb").read_text()
    assert (
        "smoke 30.0 s, 1.0 MiB" in made
        and "runs/smoke/00_one" in made
        and "runs/lab" not in made
        and "runs/grid" not in made
    )
    assert nbformat.reads(made, as_version=4).metadata["timescope_lite"]["code"] == "abc"
    assert "| [One](notebooks/00_one.ipynb) | 0.5 |" in (tmp_path / "README.md").read_text()
    monkeypatch.setattr(cli, "project_root", lambda: None)
    assert (
        call("report", tmp_path / "runs", "--record") == 2
        and "from a checkout" in capsys.readouterr().err
    )


def test_debug_shows_the_traceback_anywhere_on_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["--debug", "report", "no_such_folder"],
        ["report", "no_such_folder", "--debug"],
    ):
        with pytest.raises(UserError, match="no run found"):
            cli.main(arguments)


@dataclass(frozen=True)
class Span:
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Found:
    interval: Span | None
    window: Span | None = None
    confidence: float = 0.9
    reasoning: tuple[str, ...] = ("red mill",)
    duration_s: float = 3600.0
    attended_frames: float = 127.6
    note: str = ""

    def as_dict(self) -> dict:
        return asdict(self)


def offer(monkeypatch: pytest.MonkeyPatch, module: str, **functions: object) -> None:
    """Stand in for a room of the house: this file tests the command line alone."""
    monkeypatch.setitem(sys.modules, f"timescope_lite.{module}", types.SimpleNamespace(**functions))


def test_ground_prints_clock_times_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(
        monkeypatch,
        "grounding",
        ground=lambda *_, **__: Found(Span(412.0, 415.96), Span(400.0, 432.0)),
    )
    assert call("ground", "a.mp4", "why") == 0
    assert capsys.readouterr().out.splitlines() == [
        "6:52.0 - 6:56.0  (confidence 0.90)",
        "Go to the red mill.",
        "reloaded 6:40.0 - 7:12.0 of 60:00.0; attended KV 128 frames' worth",
    ]
    assert call("ground", "a.mp4", "why", "--json") == 0
    assert json.loads(capsys.readouterr().out)["interval"] == {"start_s": 412.0, "end_s": 415.96}
    offer(monkeypatch, "grounding", ground=lambda *_, **__: Found(None))
    assert call("ground", "a.mp4", "why") == 0 and capsys.readouterr().out.startswith(
        "the evidence is not in this video\n"
    )


def test_every_kind_of_trouble_has_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(error: BaseException):
        def ground(*_: object, **__: object) -> None:
            warnings.warn("reads by PyAV", stacklevel=1)
            raise error

        return ground

    for error, status, says in (
        (UserError("a.mp4 holds no\nvideo"), 2, "timescope-lite: a.mp4 holds no video"),
        (KeyboardInterrupt(), 130, "timescope-lite: stopped"),
        (
            PermissionError(13, "Permission denied", "/course/runs"),
            2,
            "timescope-lite: /course/runs: Permission denied; choose a folder that you may write "
            "to (--out, TIMESCOPE_DATA)",
        ),
        (
            ModuleNotFoundError("No module named 'av'"),
            2,
            "timescope-lite: No module named 'av': something that the course needs is not "
            "installed; "
            "`timescope-lite doctor` names it and says how to get it",
        ),
        (
            ZeroDivisionError("by zero"),
            1,
            "timescope-lite: unexpected ZeroDivisionError: by zero (run again with --debug for the "
            "traceback)",
        ),
    ):
        offer(monkeypatch, "grounding", ground=raising(error))
        assert call("ground", "a.mp4", "why") == status
        assert capsys.readouterr().err.splitlines() == ["timescope-lite: note: reads by PyAV", says]


def test_doctor_names_what_it_saw(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMESCOPE_DATA", str(tmp_path / "data"))
    status = call("doctor", "--json")
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {"python", "device", "decord", "av", "kernel python3", "data folder", "chromium"} <= set(
        found
    )
    assert all(
        found[name]["ok"]
        for name in (
            "python",
            "packages",
            "device",
            "decord",
            "av",
            "kernel python3",
            "data folder",
        )
    )
    assert status == (0 if all(row["ok"] or row["optional"] for row in found.values()) else 1)


def test_doctor_finds_what_is_missing_and_says_how_to_get_it(
    monkeypatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr(
        cli,
        "_metadata",
        lambda: (">=3.99", ["torch>=99", "no-such-package-here>=1", "numpy>=1.26"]),
    )
    monkeypatch.setitem(sys.modules, "decord", None)
    monkeypatch.setattr(cli, "data_root", lambda: Path(os.devnull) / "data")
    monkeypatch.setattr(cli, "runs_root", lambda: Path(os.devnull) / "runs")
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "tiny.safetensors").write_bytes(b"other")
    manifest = {"two_stage": {"file": "tiny.safetensors", "sha256": "0" * 64}}
    (tmp_path / "assets" / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    assert call("doctor") == 1
    said = capsys.readouterr().out
    for part in (
        "NO  python: ",
        "Install Python >=3.99",
        "wanted >=99; no-such-package-here missing, wanted >=1. Run: ",
        "-m pip install -c ",
        '/constraints.txt "torch>=99" "no-such-package-here>=1"',
        "-m pip install --force-reinstall --no-deps decord2 (it imports as decord",
        "Set TIMESCOPE_DATA to a folder that you may write to.",
        "NO  runs: ",
        "to a folder that you may write to, or name one: --out DIR",
        "NO  kernel: ModuleNotFoundError: import of ipykernel halted; None in sys.modules. Run: ",
        "-m pip install ipykernel && ",
        "-m ipykernel install --sys-prefix",
        "tiny.safetensors: not the file that the manifest lists",
    ):
        assert part in said
    assert "numpy" not in said


def test_values_are_read_as_one_types_them() -> None:
    texts = ["7", "-0.5", "true", "True", "none", "[1, 2]", "two words", '"7"', "04_streaming"]
    assert [cli._literal(text) for text in texts] == [
        7,
        -0.5,
        True,
        True,
        "none",
        [1, 2],
        "two words",
        "7",
        "04_streaming",
    ]
