"""Grids: what is checked before a start, the star of cells, and tables that are the same after a
kill as without one.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_runner import RESULT, make

from timescope_lite import cli
from timescope_lite.classroom import grid, runner
from timescope_lite.common import UserError

TINY = (
    'notebook = "{book}"\nabout = "a test"\nseeds = [0, 1]\n[default]\nshare = 0.4\n[axes]\nshare '
    '= [0.3, 0.4, 0.6]\nlabel = ["plain", "a/b"]\n'
)
CELLS = ["default_seed0", "default_seed1", "share=0.3_seed0", "share=0.6_seed0", "label=a_b_seed0"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grid of five cells over a notebook that only writes its result."""
    monkeypatch.setattr(runner, "library_hash", lambda: "0.1.0+tests")
    monkeypatch.setattr(grid, "library_hash", lambda: "0.1.0+tests")
    book = make(tmp_path / "book.ipynb", RESULT)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(book=book))
    return path


def test_a_star_is_its_default_for_each_seed_and_one_cell_for_each_other_value(tiny: Path) -> None:
    star, jobs = grid.plan(tiny, "smoke", tiny.parent / "out")
    assert [cell.name for cell in star] == [job.name for job in jobs] == CELLS
    assert jobs[1].parameters == {
        "share": 0.4,
        "seed": 1,
        "profile": "smoke",
        "out": jobs[1].folder,
    }
    assert jobs[-1].parameters["label"] == "a/b" and jobs[-1].deadline_s == 3600
    assert len({job.folder for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("about", "abuot"),
            "grid tiny.toml: unknown key 'abuot'; expected one of notebook, about",
        ),
        (('about = "a test"\n', ""), "grid tiny.toml: key 'about' is missing"),
        (
            ("seeds = [0, 1]", "seeds = []"),
            "seeds is \\[\\], expected a list of one or more whole numbers",
        ),
        (("seeds = [0, 1]", 'seeds = [0, "1"]'), "seeds is \\[0, '1'\\]"),
        (("seeds = [0, 1]", "seeds = [0, 0]"), "two cells called 'default_seed0'"),
        (
            ("seeds = [0, 1]", "seeds = [0]\ndeadline_min = 0"),
            "deadline_min is 0, expected minutes above 0",
        ),
        (
            ("seeds = [0, 1]", 'deadline_min = "an hour"'),
            "deadline_min is 'an hour'; see the example",
        ),
        (
            ("seeds = [0, 1]", 'checkpoints = ["data/nowhere.safetensors"]'),
            "checkpoint data/nowhere.safetensors is not there; train it",
        ),
        (
            ("share = [0.3, 0.4, 0.6]", "shore = [0.3]"),
            "notebook book has no parameter 'shore'; expected one of: seed, share, label",
        ),
        (
            ("share = [0.3, 0.4, 0.6]", 'share = ["much"]'),
            "parameter 'share' is 'much', expected float",
        ),
        (
            ("share = [0.3, 0.4, 0.6]", "share = 0.3"),
            "axis 'share' is 0.3, expected a list of values",
        ),
        (("share = [0.3, 0.4, 0.6]", "seed = [3]"), "the seed has a key of its own"),
        (("[axes]", "[axes"), "grid tiny.toml is no TOML"),
    ],
)
def test_a_bad_grid_is_refused_before_anything_starts(
    tiny: Path, change: tuple[str, str], says: str
) -> None:
    assert change[0] in tiny.read_text()
    tiny.write_text(tiny.read_text().replace(*change, 1))
    with pytest.raises(UserError, match=says):
        grid.run_grid(tiny, out=tiny.parent / "out")
    assert not (tiny.parent / "out").exists()


def test_a_grid_that_is_not_there_or_not_alone(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        UserError,
        match=r"nowhere.toml cannot be read .* expected a TOML file such as those in grids/",
    ):
        grid.read_grid(tiny.parent / "nowhere.toml")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(tiny), "04"])
    assert stopped.value.code == 2 and "a grid runs alone" in capsys.readouterr().err


def test_several_grids_run_one_after_the_other_and_all_are_checked_first(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, other = tiny.parent / "out", tiny.parent / "other.toml"
    other.write_text(tiny.read_text().replace('label = ["plain", "a/b"]', 'lable = ["plain"]'))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(tiny), str(other), "--out", str(out)])
    assert stopped.value.code == 2 and not out.exists(), "the first was not started"
    other.write_text(
        TINY.format(book=tiny.parent / "book.ipynb").replace("share = [0.3, 0.4, 0.6]\n", "")
    )
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(tiny), str(other), "--out", str(out), "--jobs", "2"])
    assert stopped.value.code == 0, capsys.readouterr().err
    assert [len(list((out / name).glob("*/result.json"))) for name in ("tiny", "other")] == [5, 3]
    assert (out / "report.html").is_file() and capsys.readouterr().out.count("table: ") == 2


def run(path: Path, *options: str) -> subprocess.Popen[str]:
    """The command line in a process of its own, with a library that does not change under it."""
    code = (
        "from timescope_lite.classroom import grid, runner\nrunner.library_hash = "
        "grid.library_hash = lambda: '0.1.0+tests'\n"
    )
    code += "from timescope_lite.cli import main\nmain()"
    environment = {**os.environ, "PYTHONPATH": str(runner.PACKAGE.parent)}
    command = [
        sys.executable,
        "-c",
        code,
        "run",
        str(path),
        "--out",
        str(path.parent / "out"),
        "--jobs",
        "2",
        *options,
    ]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_grid_goes_on_and_gives_the_same_table(tiny: Path) -> None:
    process = run(tiny)
    said, progress = process.communicate(timeout=300)
    assert process.returncode == 0 and f"table: {tiny.parent / 'out' / 'table.csv'}" in said
    assert (
        "5 cells, 0 finished and unchanged; no earlier run tells how long one takes" in progress
        and "to go, about" in progress
    )
    wanted = (tiny.parent / "out" / "table.csv").read_bytes()
    assert (
        wanted.count(b"\n") == 6
        and b"share=0.6_seed0,share,0.6,0,two_stage@64/all/r1@0.5,0.6,0.25,0.75,8" in wanted
    )

    for record in (tiny.parent / "out").glob("*/run.json"):
        record.unlink()
    (tiny.parent / "out" / "table.csv").unlink()
    rng = random.Random(0)
    for _ in range(10):
        process = run(tiny, "--resume")
        time.sleep(rng.uniform(1, 5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = run(tiny, "--resume")
    process.communicate(timeout=300)
    assert process.returncode == 0 and (tiny.parent / "out" / "table.csv").read_bytes() == wanted

    before = {path: path.stat().st_mtime_ns for path in (tiny.parent / "out").rglob("run.json")}
    process = run(tiny, "--resume")
    progress = process.communicate(timeout=300)[1]
    assert "5 cells, 5 finished and unchanged" in progress
    assert before == {
        path: path.stat().st_mtime_ns for path in (tiny.parent / "out").rglob("run.json")
    }, "nothing ran again"


def test_a_cell_without_a_result_is_missing_and_the_grid_has_failed(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tiny.parent / "book.ipynb", "assert share != 0.6", RESULT)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(tiny), "--out", str(tiny.parent / "out"), "--jobs", "2"])
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert "share=0.6_seed0  failed" in printed.out and "AssertionError" in printed.err
    lines = (tiny.parent / "out" / "table.csv").read_text().splitlines()
    assert "share=0.6_seed0,share,0.6,0,missing,,,," in lines and len(lines) == 6


def test_a_run_over_its_deadline_is_ended(tiny: Path) -> None:
    make(tiny.parent / "book.ipynb", "import time\ntime.sleep(600)")
    tiny.write_text(
        f'notebook = "{tiny.parent / "book.ipynb"}"\nabout = "slow"\ndeadline_min = 0.05\n'
    )
    (result,) = grid.run_grid(tiny, out=tiny.parent / "out")
    assert (
        result.status == "failed"
        and result.error == "the run was ended at its deadline of 0.05 min"
    )


def test_an_estimate_comes_from_earlier_runs_and_refuses_what_does_not_fit(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    star, jobs = grid.plan(tiny, "smoke", tiny.parent / "out")
    for job in jobs[:2]:
        Path(job.folder).mkdir(parents=True)
        runner.write_json(
            Path(job.folder) / "run.json",
            {"status": "ok", "wall_s": 120.0, "peak_rss_bytes": 2**30},
        )
    assert grid.estimate(jobs, 2, False) == (
        "5 cells, 0 finished and unchanged; about 5 min for the rest, 1.0 GiB a run (from 2 "
        "earlier runs)"
    )
    monkeypatch.setattr(
        grid.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 3 * 2**30})
    )
    with pytest.raises(
        UserError,
        match=r"4 jobs of 1.0 GiB each need more than the 3.0 GiB that are free; take fewer --jobs",
    ):
        grid.estimate(jobs, 4, False)


@pytest.mark.parametrize(
    "path", sorted((runner.PACKAGE.parent / "grids").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_grids_of_the_project_are_sound_and_listed(path: Path) -> None:
    assert len(grid.plan(path, "smoke")[0]) > 1
    assert f"`{path.name}`" in (path.parent / "README.md").read_text()


@pytest.fixture
def cluster(tmp_path: Path):
    """A Dask scheduler and two workers, each a process of its own: (address, the workers)."""
    distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    environment = {**os.environ, "PYTHONPATH": str(runner.PACKAGE.parent)}
    start = lambda *words: subprocess.Popen(  # noqa: E731
        [sys.executable, "-m", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    info, processes = tmp_path / "scheduler.json", []
    processes.append(
        start(
            "distributed.cli.dask_scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(info),
        )
    )
    deadline = time.monotonic() + 60
    while not info.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    address = json.loads(info.read_text())["address"]
    worker = (
        "distributed.cli.dask_worker",
        address,
        "--nthreads",
        "1",
        "--no-nanny",
        "--no-dashboard",
        "--local-directory",
        str(tmp_path),
    )
    processes += [start(*worker), start(*worker)]
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


def test_a_cluster_loses_a_worker_and_runs_nothing_twice(
    cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address, workers = cluster
    diary = tmp_path / "diary"
    note = "_ = open({file!r}, 'a').write(out.rpartition('/')[2] + ' {word}\\n')"
    began, ended = (note.format(file=str(diary), word=word) for word in ("began", "ended"))
    make(tmp_path / "book.ipynb", began, "import time\ntime.sleep(3)", RESULT, ended)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.format(book=tmp_path / "book.ipynb"))
    stopper = threading.Timer(0, lambda: _kill_when(diary, workers[0], began=2))
    stopper.start()
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", str(path), "--out", str(tmp_path / "out"), "--scheduler", address])
    printed = capsys.readouterr()
    assert stopped.value.code == 0, printed.err
    assert workers[0].poll() is not None, "one worker was killed midway"
    said = diary.read_text().split("\n")
    assert [said.count(f"{name} ended") for name in CELLS] == [1] * 5, "every cell ended once"
    assert sum(line.endswith("began") for line in said) == 6, (
        "only the run in flight was begun again"
    )
    assert (tmp_path / "out" / "table.csv").read_text().count("\n") == 6


def _kill_when(diary: Path, worker: subprocess.Popen, began: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (
        not diary.exists() or diary.read_text().count("began") < began
    ):
        time.sleep(0.1)
    worker.kill()


def test_a_cluster_that_is_not_there_or_not_the_same(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
    with pytest.raises(UserError, match="no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        grid.run_grid(tiny, out=tiny.parent / "out", scheduler="tcp://127.0.0.1:1")
    job = grid.plan(tiny, "smoke", tiny.parent / "out")[1][0]
    monkeypatch.setattr(grid, "library_hash", lambda: "0.0.9+other")
    assert "this worker has another version" in grid._on_a_worker(job).error
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="Dask is not installed"):
        grid.run_on_cluster([job], "tcp://127.0.0.1:1")
