"""Ablation grids: one default configuration and each axis varied around it (a star, not a cube), as
unattended runs of one notebook.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from timescope_lite.classroom.runner import (
    Job,
    RunResult,
    announce,
    check_jobs,
    checked,
    content_hash,
    declared_parameters,
    find_notebook,
    finished,
    finished_or_run,
    ipython_dir,
    library_hash,
    run_jobs,
)
from timescope_lite.common import (
    UserError,
    atomic_path,
    from_mapping,
    get_profile,
    project_root,
    read_json,
    runs_root,
)
from timescope_lite.results import format_value, read_result

COSTS = (
    "seconds",
    "_s",
    "bytes",
    "time_ratio",
)  # metrics that differ from run to run: not in the table


@dataclass(frozen=True)
class Grid:
    """A grid as its TOML file has it.

    `default` are parameters of the notebook, `axes` the values that replace one of them at a time.
    The default configuration runs once per seed, every other cell with the first seed alone.
    `deadline_min` ends a run that takes longer; `checkpoints` are files that must lie there before
    anything starts.
    """

    notebook: str
    about: str
    default: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    deadline_min: float = 60.0
    checkpoints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """One run of a grid: which axis is turned ("" for the default configuration), to what, with
    which seed, and all parameters given to the notebook.
    """

    name: str
    axis: str
    value: Any
    seed: int
    parameters: dict[str, Any]


def read_grid(path: Path) -> Grid:
    """The grid in a TOML file. UserError names the file and what is wrong in it."""
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"grid {path} cannot be read ({error.strerror}); expected a TOML file such as those in "
            "grids/"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"grid {path.name} is no TOML: {error}") from None
    grid = from_mapping(Grid, raw, f"grid {path.name}")
    kinds: dict[str, Any] = {
        "notebook": str,
        "about": str,
        "default": dict,
        "axes": dict,
        "seeds": list,
        "deadline_min": (int, float),
        "checkpoints": list,
    }
    for key, kind in kinds.items():
        if not isinstance(getattr(grid, key), kind) or isinstance(getattr(grid, key), bool):
            raise UserError(
                f"grid {path.name}: {key} is {getattr(grid, key)!r}; see the example in "
                "grids/README.md"
            )
    if not grid.seeds or not all(type(seed) is int for seed in grid.seeds):
        raise UserError(
            f"grid {path.name}: seeds is {grid.seeds!r}, expected a list of one or more whole "
            "numbers"
        )
    if not grid.deadline_min > 0:
        raise UserError(
            f"grid {path.name}: deadline_min is {grid.deadline_min!r}, expected minutes above 0"
        )
    if "seed" in grid.default or "seed" in grid.axes:
        raise UserError(f"grid {path.name}: the seed has a key of its own; write seeds = [0, 1]")
    for axis, values in grid.axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"grid {path.name}: axis {axis!r} is {values!r}, expected a list of values"
            )
    return grid


def cells(grid: Grid, declared: dict[str, Any]) -> list[Cell]:
    """The cells of the star. `declared` are the notebook's own parameters: an axis value that is
    the default already gets no second cell.
    """
    star = [
        Cell(f"default_seed{seed}", "", None, seed, grid.default | {"seed": seed})
        for seed in grid.seeds
    ]
    standard, seed = declared | grid.default, grid.seeds[0]
    for axis, values in grid.axes.items():
        for value in values:
            if (
                axis not in standard
                or type(value) is not type(standard[axis])
                or value != standard[axis]
            ):
                name = re.sub(r"[^\w.=+-]+", "_", f"{axis}={value}_seed{seed}")
                star.append(
                    Cell(name, axis, value, seed, grid.default | {axis: value, "seed": seed})
                )
    names = [cell.name for cell in star]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"the grid has two cells called {twice[0]!r}: name each seed and each value of an axis "
            "once"
        )
    return star


def plan(path: Path, profile: str, out: Path | None = None) -> tuple[list[Cell], list[Job]]:
    """Every run of the grid, checked: notebook, names and types of parameters, checkpoints. Nothing
    is started.
    """
    grid, limit_s = read_grid(path), get_profile(profile).cell_timeout_s
    notebook = find_notebook(grid.notebook)
    places = [place for place in (Path.cwd(), project_root()) if place]
    for checkpoint in grid.checkpoints:
        if not any((place / checkpoint).is_file() for place in places):
            raise UserError(
                f"grid {Path(path).name}: checkpoint {checkpoint} is not there; train it "
                "(`timescope-lite train --help`) or fetch it"
            )
    declared = declared_parameters(notebook)
    if "seed" not in declared:
        raise UserError(
            f"grid {Path(path).name}: notebook {notebook.stem} has no parameter 'seed', which "
            "every grid sets"
        )
    star, library, content = cells(grid, declared), library_hash(), content_hash(notebook)
    folder = folder_of(path, profile, out)
    jobs = []
    for cell in star:
        own = str(folder / cell.name)
        values = checked(notebook, cell.parameters, {"profile": profile, "out": own})
        jobs.append(
            Job(
                cell.name,
                str(notebook),
                own,
                profile,
                values,
                limit_s,
                content,
                library,
                60 * grid.deadline_min,
            )
        )
    return star, jobs


def folder_of(path: Path, profile: str, out: Path | None = None) -> Path:
    """Where the runs of a grid lie: `out`, or runs/grids/PROFILE-NAME."""
    return Path(out or runs_root() / "grids" / f"{profile}-{Path(path).stem}").resolve()


def run_grid(
    path: Path,
    profile: str = "smoke",
    jobs: int = 1,
    resume: bool = False,
    out: Path | None = None,
    scheduler: str | None = None,
) -> list[RunResult]:
    """Run a grid and write table.csv beside the runs; results in the order of the cells. `jobs`
    cells run at a time, or as many as the workers of a Dask `scheduler` take.

    Says before it starts what is finished already and what the rest will take, from earlier runs in
    the same folder. UserError where the machine has not the memory for that many at a time.
    """
    check_jobs(jobs)
    star, planned = plan(path, profile, out)
    folder = folder_of(path, profile, out)
    print(estimate(planned, 1 if scheduler else jobs, resume), file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    results = (
        run_on_cluster(planned, scheduler, resume) if scheduler else run_jobs(planned, jobs, resume)
    )
    with atomic_path(folder / "table.csv") as temporary:
        temporary.write_text(table(star, results), encoding="utf-8")
    return results


def estimate(planned: list[Job], jobs: int, resume: bool) -> str:
    """What lies ahead, in one line. UserError where `jobs` runs of the size of earlier ones do not
    fit into memory.
    """
    done = [job for job in planned if resume and finished(job)]
    left, records = len(planned) - len(done), [Path(job.folder) / "run.json" for job in planned]
    before = [
        record
        for record in (read_json(path, "run record") for path in records if path.exists())
        if record["status"] == "ok"
    ]
    said = f"{len(planned)} cells, {len(done)} finished and unchanged"
    if not left or not before:
        return said + ("" if not left else "; no earlier run tells how long one takes")
    peak = max(record["peak_rss_bytes"] for record in before)
    have = psutil.virtual_memory().available
    if peak * min(jobs, left) > have:
        raise UserError(
            f"{jobs} jobs of {format_value('bytes', peak)} each need more than the "
            f"{format_value('bytes', have)} that are free; take fewer --jobs"
        )
    minutes = sum(record["wall_s"] for record in before) / len(before) * left / min(jobs, left) / 60
    return (
        f"{said}; about {minutes:.0f} min for the rest, {format_value('bytes', peak)} a run (from "
        f"{len(before)} earlier runs)"
    )


def run_on_cluster(planned: list[Job], address: str, resume: bool = False) -> list[RunResult]:
    """The same runs on the workers of a Dask scheduler (extra `cluster`); results in order.
    UserError if none answers there.

    Workers must see the folder of the runs under the same path and have the same library installed.
    A run whose worker dies is given to another one; what has finished is read from its result file
    and never run twice.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise UserError(
            "Dask is not installed: `pip install 'timescope-lite[cluster]'` on this machine and on "
            "every worker"
        ) from None
    if not resume:
        for job in planned:
            (Path(job.folder) / "run.json").unlink(missing_ok=True)
    try:
        client = Client(address, timeout=20, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UserError(
            f"no Dask scheduler answers at {address!r} ({type(error).__name__}); start one with "
            "`dask scheduler`"
        ) from None
    with client:
        futures = [client.submit(_on_a_worker, job, pure=False) for job in planned]
        try:
            results = []
            for job, future in zip(planned, futures, strict=True):
                try:
                    results.append(future.result())
                except KilledWorker:
                    lost = (
                        "the workers that were given this run died, one after the other; see "
                        f"{Path(job.folder) / 'run.log'}"
                    )
                    results.append(
                        RunResult(job.name, "failed", 0.0, 0, Path(job.folder), error=lost)
                    )
                announce(
                    results[-1],
                    f"{len(planned) - len(results)} to go" if len(results) < len(planned) else "",
                )
        except BaseException:
            client.cancel(futures)  # runs in flight end by themselves and stay as result files
            raise
    return results


def _on_a_worker(job: Job) -> RunResult:
    if library_hash() != job.library:
        said = (
            "this worker has another version of timescope-lite, or of what it computes with, than "
            "the machine that planned the grid"
        )
        return RunResult(job.name, "failed", 0.0, 0, Path(job.folder), error=said)
    with ipython_dir() as quiet:
        return finished_or_run(job, quiet, True, {})


def table(star: list[Cell], results: list[RunResult]) -> str:
    """The grid as CSV: one line per cell and metric, costs left out, and one line for a cell that
    has no result. The same runs give the same bytes.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", "axis", "setting", "seed", "metric", "value", "low", "high", "n"])
    for cell, result in zip(star, results, strict=True):
        head = [
            cell.name,
            cell.axis or "default",
            "" if cell.value is None else cell.value,
            cell.seed,
        ]
        if not result.ok:
            writer.writerow([*head, "missing", *[""] * 4])
            continue
        for key, m in read_result(result.folder / "result.json").metrics.items():
            if not key.endswith(COSTS):
                writer.writerow(
                    [
                        *head,
                        key,
                        m.value,
                        "" if m.low is None else m.low,
                        "" if m.high is None else m.high,
                        m.n,
                    ]
                )
    return text.getvalue()
