"""Strict papermill: notebooks are checked before they start, limited while they run, and believed
only by their result file.
"""

from __future__ import annotations

import ast
import codecs
import difflib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timescope_lite.classroom.report import RESERVED, headline
from timescope_lite.common import (
    UserError,
    get_profile,
    project_root,
    read_json,
    runs_root,
    write_json,
)
from timescope_lite.results import Result, format_value, peak_rss_bytes, read_result, versions
from timescope_lite.version import __version__

PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """One notebook to run: a name, its file, the folder of its run, and what makes this run itself
    (the key of `resume`).

    A run that takes longer than `deadline_s` in all is ended and has failed (None: cells alone are
    limited).
    """

    name: str
    notebook: str
    folder: str
    profile: str
    parameters: dict[str, Any]
    cell_timeout_s: float
    content: str
    library: str
    deadline_s: float | None = None


@dataclass(frozen=True)
class RunResult:
    """How one notebook went: status ok, failed or skipped (resumed); wall seconds, peak bytes of
    the kernel, the failing cell.
    """

    name: str
    status: str
    wall_s: float
    peak_rss_bytes: int
    folder: Path
    headline: str = ""
    error: str = ""
    cell: str = ""

    @property
    def ok(self) -> bool:
        return self.status != "failed"


def find_notebook(name: str | Path) -> Path:
    """The notebook meant by a path, a file name or a prefix such as `04`; UserError names what
    exists instead.
    """
    root = project_root()
    places = [Path(name)] + (
        [root / name, root / "notebooks" / name, root / "notebooks" / f"{name}.ipynb"]
        if root
        else []
    )
    for place in places:
        if place.is_file():
            if place.suffix != ".ipynb":
                raise UserError(f"{name} is not a notebook: expected a file that ends in .ipynb")
            return place.resolve()
    known = sorted((root / "notebooks").glob("*.ipynb")) if root else []
    starts = [path for path in known if path.name.startswith(f"{name}_")]
    if len(starts) == 1:
        return starts[0]
    near = difflib.get_close_matches(str(name), [p.stem for p in known], n=3, cutoff=0.4) or [
        p.stem for p in known
    ]
    raise UserError(
        f"notebook {str(name)!r} does not exist; expected a path or one of: "
        f"{', '.join(near) or '(there are none yet)'}"
    )


def read_notebook(notebook: Path) -> dict[str, Any]:
    """A notebook's JSON with what editors and exporters leave out filled in: null metadata, cells
    without a source or outputs; a byte-order mark is no content. UserError if it is no notebook of
    format 4, or a cell cannot be read.
    """
    notebook = Path(notebook)
    book = read_json(notebook, "notebook")
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        raise UserError(
            f"notebook {notebook.name}: expected an object with a list of cells (nbformat 4)"
        )
    cells = [_sound_cell(cell, n, notebook.name) for n, cell in enumerate(book["cells"], start=1)]
    versions = {
        key: book.get(key) or value for key, value in (("nbformat", 4), ("nbformat_minor", 5))
    }
    metadata = book.get("metadata") or {}
    if not isinstance(metadata, dict) or versions["nbformat"] != 4:
        raise UserError(
            f"notebook {notebook.name}: expected metadata as an object and nbformat 4; open it in "
            "JupyterLab and save it"
        )
    return book | versions | {"cells": cells, "metadata": metadata}


def _sound_cell(cell: Any, number: int, where: str) -> dict[str, Any]:
    kinds = ("code", "markdown", "raw")
    if not isinstance(cell, dict) or cell.get("cell_type") not in kinds:
        raise UserError(
            f"notebook {where}, cell {number}: expected an object whose cell_type is one of "
            f"{', '.join(kinds)}"
        )
    source, metadata = cell.get("source") or "", cell.get("metadata") or {}
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    tags = metadata.get("tags") if isinstance(metadata, dict) else 0
    if not isinstance(source, str) or not isinstance(tags, list | None):
        raise UserError(
            f"notebook {where}, cell {number}: expected text as its source, an object as its "
            "metadata and a list of tags"
        )
    sound = cell | {
        "source": source,
        "metadata": {k: v for k, v in metadata.items() if v is not None},
    }
    if cell["cell_type"] == "code":
        sound |= {
            "outputs": cell.get("outputs") or [],
            "execution_count": cell.get("execution_count"),
        }
    return sound


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """Names and literal values of the first cell tagged `parameters`; UserError if the file or that
    cell cannot be read.
    """
    for cell in read_notebook(notebook)["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            return _literals(cell["source"], notebook.name)
    return {}


def _literals(source: str, where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        for node in ast.parse(source).body:
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign)
                else []
            )
            if len(targets) != 1 or not isinstance(targets[0], ast.Name) or node.value is None:  # type: ignore[attr-defined]
                raise ValueError(ast.unparse(node))
            found[targets[0].id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"notebook {where}: the cell tagged parameters must hold only `name = literal` lines "
            f"({error})"
        ) from None
    return found


def checked(notebook: Path, given: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The parameters this notebook gets: `given` after a check of name and type, and of `own` those
    that it declares.
    """
    declared = declared_parameters(notebook)
    free = [name for name in declared if name not in RESERVED]
    for name, value in given.items():
        if name in RESERVED:
            raise UserError(f"parameter {name!r} is set by the runner: use --{name} instead")
        if name not in declared:
            raise UserError(
                f"notebook {notebook.stem} has no parameter {name!r}; expected one of: "
                f"{', '.join(free) or '(none)'}"
            )
        default = declared[name]
        same = type(value) is type(default) or (type(value) is int and type(default) is float)
        if default is not None and value is not None and not same:
            expected = type(default).__name__
            raise UserError(
                f"notebook {notebook.stem}: parameter {name!r} is {value!r}, expected {expected} "
                f"such as {default!r}"
            )
    return given | {name: value for name, value in own.items() if name in declared}


def content_hash(notebook: Path) -> str:
    """SHA-256 of the code cells alone: new prose, stored outputs or a new measured line do not make
    a run stale.
    """
    cells = [
        [cell["source"]] for cell in read_notebook(notebook)["cells"] if cell["cell_type"] == "code"
    ]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def library_hash() -> str:
    """Version and hash of what a result can depend on: the package without the classroom and the
    command line, and the versions installed.
    """
    digest = hashlib.sha256(json.dumps(versions()).encode())
    for path in sorted(
        path for suffix in ("py", "toml", "json") for path in PACKAGE.rglob(f"*.{suffix}")
    ):
        if path.name != "cli.py" and "classroom" not in path.relative_to(PACKAGE).parts:
            digest.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"


def stamp_of(folder: Path, notebook: Path) -> dict[str, Any] | None:
    """What a finished run in `folder` was recorded with: profile, parameters, hash of the code,
    versions. None if it failed or ran with other parameters than the notebook's own: its outputs
    are not those that a reader gets.
    """
    record = Path(folder) / "run.json"
    run = read_json(record, "run record") if record.exists() else {}
    declared = {
        name: value for name, value in declared_parameters(notebook).items() if name not in RESERVED
    }
    given = {
        name: value for name, value in run.get("parameters", {}).items() if name not in RESERVED
    }
    if run.get("status") != "ok" or declared | given != declared:
        return None
    installed = read_result(Path(folder) / "result.json").versions
    return {
        "profile": run["profile"],
        "parameters": declared,
        "code": run["content"],
        "versions": installed,
    }


def default_out(profile: str) -> Path:
    """Where runs of a profile go unless told otherwise: <profile> in `runs_root()`, never below the
    current folder.
    """
    return runs_root() / get_profile(profile).name


def run_notebooks(  # noqa: PLR0913
    paths: list[str] | list[Path],
    *,
    profile: str = "smoke",
    parameters: dict[str, Any] | None = None,
    jobs: int = 1,
    out: Path | None = None,
    resume: bool = False,
    cell_timeout_s: float | None = None,
) -> list[RunResult]:
    """Run each notebook in a process of its own, `jobs` at a time, into `out`/<name>/ (default
    runs/<profile>/); results in order.

    Everything is checked before anything starts: unknown notebooks, profiles and parameters raise
    UserError. With `resume`, a run whose code, parameters, library and profile are unchanged and
    whose result stands is skipped. Progress goes to stderr.
    """
    limit_s = cell_timeout_s or get_profile(profile).cell_timeout_s
    check_jobs(jobs)
    out = Path(out or default_out(profile)).resolve()
    planned = _plan(
        [find_notebook(path) for path in paths], profile, parameters or {}, out, limit_s
    )
    return run_jobs(planned, jobs, resume)


def check_jobs(jobs: int) -> None:
    """UserError unless at least one run at a time is asked for."""
    if jobs < 1:
        raise UserError(f"jobs is {jobs}, expected 1 or more")


def run_jobs(planned: list[Job], jobs: int = 1, resume: bool = False) -> list[RunResult]:
    """Run what was planned and checked, `jobs` at a time; results in order. Each end is announced
    on stderr, with the time left if several are to come.

    An interruption ends the runs in flight, and only those are lost.
    """
    started = time.monotonic()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with ipython_dir() as quiet, ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(finished_or_run, job, quiet, resume, running) for job in planned]
        try:
            waiting = set(futures)
            while waiting:  # in slices: a plain wait() would not let Ctrl-C through on Windows
                done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                left_s = (
                    (time.monotonic() - started)
                    / max(1, len(planned) - len(waiting))
                    * len(waiting)
                )
                for future in done:
                    announce(
                        future.result(),
                        f"{len(waiting)} to go, about {left_s / 60:.0f} min" if waiting else "",
                    )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(
                future.done() for future in futures
            ):  # a worker may have been about to start
                _stop(list(running.values()))
            raise
    return [future.result() for future in futures]


def _plan(
    notebooks: list[Path], profile: str, parameters: dict[str, Any], out: Path, limit_s: float
) -> list[Job]:
    names = [path.stem for path in notebooks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"notebook {twice[0]!r} is named twice: one folder holds one run; name it once"
        )
    library, planned = library_hash(), []
    for path in notebooks:
        folder = str(out / path.stem)
        values = checked(path, parameters, {"profile": profile, "out": folder})
        planned.append(
            Job(path.stem, str(path), folder, profile, values, limit_s, content_hash(path), library)
        )
    return planned


@contextmanager
def ipython_dir() -> Iterator[str]:
    """A fresh IPYTHONDIR: no personal start-up files, no shared history, no warning about TCP at
    each kernel start.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = Path(folder) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text(
            "c.IPKernelApp.log_level = 40\nc.HistoryManager.enabled = False\n"
        )
        yield folder


def _environment(profile: str, quiet_dir: str) -> dict[str, str]:
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    extra = {
        "TIMESCOPE_PROFILE": profile,
        "IPYTHONDIR": quiet_dir,
        "PYTHONPATH": os.pathsep.join(paths),
    }
    # The models are tiny: a second thread costs them more than it brings, and several kernels would
    # fight for the cores.
    extra["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or "1"
    return {**os.environ, **extra}


def finished_or_run(job: Job, quiet_dir: str, resume: bool, running: dict[str, Any]) -> RunResult:
    """The kept run where `resume` allows it, a new one otherwise. `running` holds the processes at
    work, by the folder of their run.
    """
    return (finished(job) if resume else None) or _run(
        job, _environment(job.profile, quiet_dir), running
    )


def finished(job: Job) -> RunResult | None:
    """The run that stands in the job's folder, if it ended well and nothing it depends on has
    changed since.
    """
    record = Path(job.folder) / "run.json"
    if not record.exists():
        return None
    kept = read_json(record, "run record")
    same = all(
        kept.get(key) == getattr(job, key)
        for key in ("profile", "parameters", "content", "library")
    )
    result, problem = _sound_result(job)
    if not (same and kept["status"] == "ok" and result and not problem):
        return None
    return RunResult(
        job.name,
        "skipped",
        kept["wall_s"],
        kept["peak_rss_bytes"],
        Path(job.folder),
        headline(result),
    )


def _sound_result(job: Job) -> tuple[Result | None, str]:
    """The job's result file, if it keeps its contract, and what is wrong otherwise ("" if nothing
    is).
    """
    try:
        result = read_result(Path(job.folder) / "result.json")
    except UserError as error:
        return None, str(error)
    return (
        result,
        ""
        if result.status == "finished"
        else f"{job.name}: its result file says {result.status!r}",
    )


def _run(job: Job, environment: dict[str, str], running: dict[str, Any]) -> RunResult:
    """Run one job in its worker process and write run.json: success is exit status 0 and a sound
    result file, nothing else.
    """
    folder = Path(job.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("result.json", "run.json", "worker.json"):
        (folder / stale).unlink(missing_ok=True)
    started = time.monotonic()
    code, late = _worker(job, environment, running)
    wall_s = time.monotonic() - started
    said = (
        read_json(folder / "worker.json", "worker record")
        if (folder / "worker.json").exists()
        else {}
    )
    (folder / "worker.json").unlink(missing_ok=True)
    result, problem = _sound_result(job)
    error = (
        (
            late
            or said.get("error")
            or f"the worker process ended with status {code}; see {folder / 'run.log'}"
        )
        if code
        else problem
    )
    # Windows cannot tell the peak of a child that has ended; the notebook's own figure stands in
    # there.
    peak = said.get("peak_rss_bytes") or (result.peak_rss_bytes if result else 0)
    status, figure = "failed" if error else "ok", headline(result) if result else ""
    mine = {
        "status": status,
        "wall_s": wall_s,
        "peak_rss_bytes": peak,
        "error": error,
        "cell": said.get("cell", ""),
    }
    key = {
        "profile": job.profile,
        "parameters": job.parameters,
        "content": job.content,
        "library": job.library,
    }
    write_json(folder / "run.json", {"name": job.name, **mine, **key})
    return RunResult(name=job.name, folder=folder, headline=figure, **mine)


def _worker(job: Job, environment: dict[str, str], running: dict[str, Any]) -> tuple[int, str]:
    """Exit status of the worker process, which writes its output into run.log, and what is wrong if
    it had to be ended at its deadline.
    """
    command = [sys.executable, "-m", "timescope_lite.classroom.runner", json.dumps(asdict(job))]
    environment = {**environment, "TIMESCOPE_OUT": job.folder}
    with (Path(job.folder) / "run.log").open("wb") as log:
        # A process group of its own: Ctrl-C reaches this process alone, which then stops the worker
        # in order.
        worker = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        running[job.folder] = worker
        try:
            return worker.wait(job.deadline_s), ""
        except subprocess.TimeoutExpired:
            _stop([worker])
            return 1, f"the run was ended at its deadline of {(job.deadline_s or 0) / 60:g} min"
        finally:
            del running[job.folder]


def announce(result: RunResult, left: str = "") -> None:
    """One line on stderr about a run that has ended, more if it failed."""
    print(
        f"{result.name}: {result.status} ({result.wall_s:.1f} s)" + (f"; {left}" if left else ""),
        file=sys.stderr,
    )
    if not result.ok:
        cell = "".join(f"    | {line}\n" for line in result.cell.splitlines())
        print(
            f"  {result.error}\n{cell}  kept: {result.folder / (result.name + '.ipynb')}",
            file=sys.stderr,
        )


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    """End the workers and everything below them: first politely (papermill then shuts its kernel
    down), after 5 s for good.
    """
    import psutil

    family = []
    for worker in workers:
        try:
            family += [
                psutil.Process(worker.pid),
                *psutil.Process(worker.pid).children(recursive=True),
            ]
            worker.terminate()
        except psutil.NoSuchProcess:
            continue
    for process in psutil.wait_procs(family, timeout=5)[1]:
        process.kill()
    time.sleep(0.1)


def summary_table(results: list[RunResult]) -> str:
    """Results as one text table: notebook, status, time, peak memory, headline figure (or the
    error).
    """
    rows = [("notebook", "status", "time", "peak memory", "headline")]
    for r in results:
        said = r.headline if r.ok else r.error.splitlines()[0]
        rows.append(
            (r.name, r.status, f"{r.wall_s:.1f} s", format_value("bytes", r.peak_rss_bytes), said)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([*(row[i].ljust(widths[i]) for i in range(4)), row[4]]).rstrip() for row in rows
    )


def work(job: Job) -> dict[str, Any]:
    """In the worker process: execute the notebook, keep what ran, and say what went wrong. Returns
    error, cell and peak bytes.
    """
    output = Path(job.folder) / f"{job.name}.ipynb"
    said: dict[str, Any] = {"error": "", "cell": ""}
    for attempt in (1, 2):
        try:
            _execute(job, output)
        except Exception as error:
            if attempt == 1 and _died_at_start(error):
                print("the kernel died at its start: trying once more", file=sys.stderr)
                continue
            said["error"], said["cell"] = _explain(error, output, job)
        break
    return said | {"peak_rss_bytes": peak_rss_bytes(children=True)}


def _execute(job: Job, output: Path) -> None:
    import papermill

    options = {
        "kernel_name": "python3",
        "language": "python",
        "progress_bar": False,
        "cwd": job.folder,
        "execution_timeout": job.cell_timeout_s,
    }
    asked = Path(job.notebook)
    if needs_mending(asked):
        asked = write_json(output.with_suffix(".mended.ipynb"), read_notebook(asked))
    try:
        papermill.execute_notebook(str(asked), str(output), job.parameters, **options)
    finally:
        if asked != Path(job.notebook):
            asked.unlink(missing_ok=True)


def needs_mending(notebook: Path) -> bool:
    """Whether nbformat would stumble over a file that `read_notebook` reads."""
    if notebook.read_bytes()[:3] == codecs.BOM_UTF8:
        return True
    book = read_json(notebook, "notebook")
    for cell in book["cells"]:
        if isinstance(cell.get("source"), list):
            cell["source"] = "".join(cell["source"])  # the two ways to write it are both sound
    return bool(book != read_notebook(notebook))


def _died_at_start(error: Exception) -> bool:
    # jupyter_client raises a bare RuntimeError for this; a kernel that dies later raises
    # DeadKernelError, a subclass.
    return type(error) is RuntimeError and "ernel" in str(error)


def _explain(error: Exception, output: Path, job: Job) -> tuple[str, str]:
    """(short error, source of the failing cell), for a raising cell, a cell over its time, a dead
    kernel and the rest.
    """
    kind = type(error).__name__
    if kind == "PapermillExecutionError":
        last = str(error.evalue).strip() or "no message"  # type: ignore[attr-defined]
        return f"{error.ename}: {last}", error.source  # type: ignore[attr-defined]
    if _died_at_start(error) or kind == "NoSuchKernel":
        return (
            f"no kernel started ({error}); `timescope-lite doctor` says what is missing, the log "
            "beside this run what it said",
            "",
        )
    cell = _last_started(output)
    if kind == "CellTimeoutError":
        return (
            f"a cell ran longer than the {job.cell_timeout_s:g} s of profile {job.profile!r}",
            cell,
        )
    if kind == "DeadKernelError":
        return "the kernel died in this cell (out of memory, or the process was ended)", cell
    return f"{kind}: {error}", cell


def _last_started(output: Path) -> str:
    # After a time-out or a dead kernel papermill marks every cell completed; only cells that began
    # have a start time.
    cells = read_json(output, "executed notebook")["cells"] if output.exists() else []
    began = [
        cell
        for cell in cells
        if cell["cell_type"] == "code" and cell["metadata"].get("papermill", {}).get("start_time")
    ]
    return "".join(began[-1]["source"]) if began else ""


def _end_with_the_parent() -> None:
    """A worker whose runner was killed must not go on beside the run that takes its place."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    job = Job(**json.loads(sys.argv[1]))
    said = work(job)
    write_json(Path(job.folder) / "worker.json", said)
    return 1 if said["error"] else 0


if __name__ == "__main__":
    sys.exit(_main())
