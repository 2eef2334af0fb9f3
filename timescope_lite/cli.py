"""The command line: `timescope-lite COMMAND`. Bad input is one line on stderr and exit status 2, a
failed run is 1.
"""

from __future__ import annotations

import ast
import importlib
import json
import math
import os
import platform
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from timescope_lite.common import (
    UserError,
    data_root,
    pick_device,
    pick_dtype,
    project_root,
    read_json,
    runs_root,
)

if TYPE_CHECKING:
    from timescope_lite.classroom.runner import RunResult
    from timescope_lite.model import Grounding

NAME = "timescope-lite"
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Temporal grounding in long videos.",
)
data_app = typer.Typer(rich_markup_mode=None, help="The videos and questions of a split.")
app.add_typer(data_app, name="data")
bench_app = typer.Typer(rich_markup_mode=None, help="What it costs: time and memory.")
app.add_typer(bench_app, name="bench")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="A .safetensors file, a folder of save_pretrained, or owner/name on the Hub; the "
        "shipped model without it."
    ),
]
R = Annotated[
    int | None,
    typer.Option("--r", help="Frames per group of the compressed memory; 16 unless given."),
]
Split = Annotated[
    str,
    typer.Option(
        help=(
            "dev, test, sealed, absent, unseen-phrasing, left-out-types, robust, ...; an unknown "
            "name lists them all."
        )
    ),
]
Jobs = Annotated[int, typer.Option(min=1, help="Processes that share the work.")]
Seed = Annotated[
    int | None,
    typer.Option(
        help="The seed is the split: another seed, other videos. The split's own without it."
    ),
]
Profile = Annotated[str, typer.Option(help="smoke, lab or full.")]


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 done, 1 a run failed, 2 bad input. The traceback of an error is
    shown with --debug only.
    """
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # before torch: on tiny tensors a second thread costs more than it brings
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    with warnings.catch_warnings():
        if not debug:
            warnings.showwarning = lambda message, *_, **__: print(
                f"{NAME}: note: {message}", file=sys.stderr
            )
        try:
            code = app(
                _fold_parameters([a for a in arguments if a != "--debug"]),
                prog_name=NAME,
                standalone_mode=False,
            )
        except (Exception, KeyboardInterrupt) as error:
            if debug:
                raise
            code = _say(error)
    if code == 130:  # newer versions of Typer turn Ctrl-C into this status themselves
        print(f"{NAME}: stopped", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)


def _say(error: BaseException) -> int:
    """Print an error in one line and give its exit status."""
    # Typer's usage errors come from click or, in newer versions, from its own copy of it: both know
    # format_message.
    usage = getattr(error, "format_message", None)
    if isinstance(error, UserError) or usage:
        context = getattr(error, "ctx", None)
        text = (
            usage() + (f" See `{context.command_path} --help`." if context else "")
            if usage
            else str(error)
        )
        code = 2
    elif isinstance(error, ModuleNotFoundError):
        text = (
            f"{error}: something that the course needs is not installed; `{NAME} doctor` names it "
            "and says how to get it"
        )
        code = 2
    elif isinstance(error, PermissionError):
        text = (
            f"{error.filename}: {error.strerror}; choose a folder that you may write to (--out, "
            "TIMESCOPE_DATA)"
        )
        code = 2
    elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return 130
    else:
        text = (
            f"unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)"
        )
        code = 1
    print(f"{NAME}: {' '.join(text.split())}", file=sys.stderr)
    return code


def _fold_parameters(arguments: list[str]) -> list[str]:
    """`-p NAME VALUE` as `-p NAME=VALUE`: Typer has no repeated option with two values."""
    folded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        folded.append(argument)
        if argument in {"-p", "--parameter"} and arguments[:1] == ["run"]:
            name = next(rest, "")
            value = None if "=" in name else next(rest, None)
            if not name or ("=" not in name and value is None):
                raise UserError("-p needs a name and a value: -p NAME VALUE")
            folded.append(name if value is None else f"{name}={value}")
    return folded


def _literal(text: str) -> Any:
    """7, 0.5, true, [1, 2] or plain text, as one types them."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _print(value: Any, as_json: bool, text: str) -> None:
    print(json.dumps(value, indent=1, default=str) if as_json else text)


def _call(module: str, function: str) -> Any:
    """A function of the mechanism, imported on use: `--help` must not wait for torch."""
    return getattr(importlib.import_module(f"timescope_lite.{module}"), function)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def ground(
    video: Path,
    task: str,
    checkpoint: Checkpoint = None,
    r: R = None,
    budget: Annotated[
        float | None, typer.Option(help="Attended KV at its peak, in frames' worth.")
    ] = None,
    memory: Annotated[
        Path | None, typer.Option(help="Answer from a folder that `encode` wrote for this VIDEO.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the interval of VIDEO that holds the evidence for TASK."""
    find = _call("grounding", "ground")
    found = find(video, task, checkpoint=checkpoint, r=r, budget=budget, memory=memory)
    _print(found.as_dict(), as_json, _said(found))


def _said(found: Grounding) -> str:
    """A Grounding in three or four lines; no time beyond the end of the video."""
    lasts_s = math.floor(found.duration_s * 10 + 1e-6) / 10  # never more than there is
    answer = "the evidence is not in this video"
    if found.interval is not None:
        end_s = min(found.interval.end_s, lasts_s)
        span = f"{_clock(found.interval.start_s)} - {_clock(end_s)}"
        answer = f"{span}  (confidence {found.confidence:.2f})"
    window = "nothing reloaded"
    if found.window is not None:
        end_s = min(found.window.end_s, lasts_s)
        window = f"reloaded {_clock(found.window.start_s)} - {_clock(end_s)}"
    reasoning = _call("datasets.prompts", "in_plain_words")(found.reasoning)
    cost = f"attended KV {found.attended_frames:.0f} frames' worth"
    lines = [answer, reasoning, f"{window} of {_clock(lasts_s)}; {cost}"]
    if found.note and found.interval is not None:
        lines.append(found.note)
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


@app.command()
def encode(
    video: Path,
    out: Annotated[Path, typer.Option("-o", "--out")],
    checkpoint: Checkpoint = None,
    r: R = None,
    as_json: AsJson = False,
) -> None:
    """Stream VIDEO once and keep its HVR and DVR in a folder, for `ground --memory`."""
    manifest = _call("grounding", "encode")(video, out, checkpoint=checkpoint, r=r)
    _print(read_json(manifest, "manifest"), as_json, str(manifest))


@data_app.command("build")
def data_build(
    split: Split = "dev",
    seed: Seed = None,
    out: Path | None = None,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Render the videos, write the questions of a split and its data card."""
    card = _call("card", "write_card")(split, seed, out, jobs)
    _print(card.parent, as_json, str(card))


@data_app.command("check")
def data_check(
    split: Split = "dev",
    seed: Seed = None,
    out: Path | None = None,
    jobs: Jobs = 1,
    as_json: AsJson = False,
) -> None:
    """Verify a split against its seed; what is missing is built."""
    checked = _call("corpus", "check")(split, seed, out, jobs)
    _print(checked, as_json, str(checked))


@app.command()
def train(
    profile: Annotated[
        str,
        typer.Option(
            help="smoke, lab, long (lab with a longer end), town (all 35 domains) or full."
        ),
    ] = "smoke",
    system: Annotated[
        str,
        typer.Option(
            help=(
                "two_stage, or a control: two_stage_no_cot, single_stage, single_stage_long, "
                "uniform, dense, focus."
            )
        ),
    ] = "two_stage",
    seed: int = 0,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Layers; width, heads and MLP follow. The profile's without it: 4, full 8."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run; runs/train/PROFILE-SYSTEM of the checkout without it."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last durable state.")
    ] = False,
) -> None:
    """Train a model: frames, dense pre-training, two stages of fine-tuning. What systems have in
    common is trained once.
    """
    _call("train", "main")(
        profile=profile, seed=seed, out=out, resume=resume, system=system, depth=depth
    )


@app.command()
def evaluate(
    split: Annotated[str, typer.Option()],
    out: Annotated[Path, typer.Option()],
    seed: Seed = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="A checkpoint, or a folder with a manifest; the shipped one without it."),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Score these answers instead: JSON lines with video, text and answer: a text, "
                "[start, end], [start, end, score], several of them, a dict, or 'not there'."
            )
        ),
    ] = None,
    system: Annotated[list[str] | None, typer.Option(help="Which systems; all without it.")] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option(help="Attended KV at its peak, in frames' worth; 64, 128 and 256 without it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Systems x split into one result.json; --predictions scores intervals that another program
    wrote.
    """
    chosen = ({"systems": tuple(system)} if system else {}) | (
        {"budgets": tuple(budget)} if budget else {}
    )
    path = _call("evaluate", "evaluate")(
        split, out, seed=seed, checkpoints=checkpoints, predictions=predictions, **chosen
    )
    _print(read_json(path, "result file") if as_json else None, as_json, str(path))


@app.command()
def score(
    predictions: Annotated[
        Path,
        typer.Option(
            help=(
                "JSON lines, a JSON list or object, or lmms-eval's samples: an id (qid, or vid and "
                "query) and an answer: text, [start, end], [start, end, score], several, or absent."
            )
        ),
    ],
    truth: Annotated[Path, typer.Option(help="The benchmark's own annotation file.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format",
            help="qvhighlights, charades, activitynet, vstar, nextgqa, rextime or jsonl.",
        ),
    ],
    strict: Annotated[
        bool, typer.Option("--strict", help="No repairs: reversed or clipped answers score 0.")
    ] = False,
    durations: Annotated[
        Path | None,
        typer.Option(help="Seconds by video (CSV or JSON), where the truth does not tell them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score answers that another program wrote against a public benchmark; renders nothing."""
    report = _call("scoring", "score")(predictions, truth, kind, strict=strict, durations=durations)
    _print(asdict(report), as_json, _call("scoring", "table")(report))


@bench_app.command("scale")
def bench_scale(
    out: Annotated[Path, typer.Option()],
    checkpoint: Checkpoint = None,
    minutes: Annotated[list[int] | None, typer.Option()] = None,
    as_json: AsJson = False,
) -> None:
    """How time and memory grow with the length of a video: 5, 15 and 60 minutes without
    --minutes.
    """
    path = _call("bench", "scale")(
        out, checkpoint=checkpoint, **({"minutes": minutes} if minutes else {})
    )
    _print(read_json(path, "result file") if as_json else None, as_json, str(path))


@bench_app.command("segments")
def bench_segments(out: Annotated[Path, typer.Option()], repeats: int = 25, seed: int = 0) -> None:
    """What a shorter or longer segment costs while a video is read. About a minute."""
    print(_call("bench", "segments")(out, repeats, seed=seed))


@bench_app.command("reuse")
def bench_reuse(
    out: Annotated[Path, typer.Option()], minutes: int | None = None, seed: int = 0
) -> None:
    """What a second question costs when the memory was kept: an hour without --minutes."""
    print(_call("bench", "reuse")(out, minutes, seed))


@bench_app.command("joint")
def bench_joint(
    out: Annotated[Path, typer.Option()],
    steps: int = 300,
    checkpoint: Checkpoint = None,
    seed: int = 0,
) -> None:
    """A frozen frame encoder beside one that is trained together with the decoder: what a step
    costs and what is learned. About 15 minutes of one core.
    """
    print(_call("bench", "joint")(out, steps, checkpoint, seed))


@bench_app.command("dials")
def bench_dials(
    out: Annotated[Path, typer.Option()],
    point: Annotated[
        list[str] | None, typer.Option(help="Points of the sweep; all without it.")
    ] = None,
    seed: int = 0,
) -> None:
    """Why this world: one dial of the simulated town turned at a time, on symbolic frames. About
    five minutes of one core a point.
    """
    dials = importlib.import_module("timescope_lite.dials")
    names = point or list(dials.POINTS)
    for name in names:
        print(dials.turn(name, out, seed=seed))
    print(f"{len(names)} points: {dials.draw(out)}")


@bench_app.command("variants")
def bench_variants(
    out: Annotated[Path, typer.Option()],
    variant: Annotated[
        list[str] | None, typer.Option(help="Training sets to compare; all without it.")
    ] = None,
    seed: int = 0,
) -> None:
    """What a training set teaches: reasoning, a teacher's errors, what is left out (lessons 11 and
    12). What has finished in DIR is kept.
    """
    variants = importlib.import_module("timescope_lite.variants")
    names = variant or list(variants.VARIANTS)
    left = [name for name in names if not (out / name / "result.json").is_file()]
    print(
        f"{len(names)} training sets, {len(names) - len(left)} finished; about ten minutes of one "
        "core for each of the rest"
    )
    for name in left:
        print(variants.study(name, out, seed=seed))


@bench_app.command("answering")
def bench_answering(out: Annotated[Path, typer.Option()], seed: int = 0) -> None:
    """Questions with four choices, answered from the whole video, from what was grounded, and by
    the model that grounds (lesson 13). About ten minutes.
    """
    print(_call("answering", "study")(out, seed=seed))


@app.command()
def run(
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "Paths, names or numbers; every notebook without any. Or grids, files that end in "
                ".toml."
            )
        ),
    ] = None,
    profile: Profile = "smoke",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", help="NAME VALUE, as in the notebook's parameters cell."),
    ] = None,
    jobs: Annotated[int, typer.Option(help="Notebooks at a time.")] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Run a grid on the workers of the Dask scheduler at this address."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip runs that are finished and unchanged.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the runs; runs/PROFILE of the checkout without it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run notebooks headlessly, print one table and write a report; exit status 1 if any failed."""
    from timescope_lite.classroom import grid, runner

    named = notebooks or []
    if any(name.endswith(".toml") for name in named):
        if parameter or not all(name.endswith(".toml") for name in named):
            raise UserError(
                "a grid runs alone, with the parameters in its file: name .toml files and neither "
                "notebooks nor -p"
            )
        places = {
            Path(name): out / Path(name).stem if out and len(named) > 1 else out for name in named
        }
        for path, place in places.items():
            grid.plan(path, profile, place)  # all are checked before any starts
        cells = [
            cell
            for path, place in places.items()
            for cell in grid.run_grid(path, profile, jobs, resume, place, scheduler)
        ]
        folders = [grid.folder_of(path, profile, place) for path, place in places.items()]
        tables = "".join(f"table: {folder / 'table.csv'}\n" for folder in folders)
        _finish_run(cells, folders[0] if len(folders) == 1 else folders[0].parent, as_json, tables)
    if scheduler:
        raise UserError("--scheduler is for grids: name one file that ends in .toml")
    paths = named or [str(path) for path in _all_notebooks()]
    given = {
        name: _literal(value)
        for name, _, value in (text.partition("=") for text in parameter or [])
    }
    folder = out or runner.default_out(profile)
    _finish_run(
        runner.run_notebooks(
            paths, profile=profile, parameters=given, jobs=jobs, out=folder, resume=resume
        ),
        folder,
        as_json,
    )


def _finish_run(results: list[RunResult], folder: Path, as_json: bool, more: str = "") -> NoReturn:
    """Table and page of finished runs; exit status 1 if any failed."""
    from timescope_lite.classroom import report, runner

    page = report.write_report(folder, folder / "report.html")
    _print(
        [asdict(r) for r in results],
        as_json,
        f"{runner.summary_table(results)}\n{more}report: {page}",
    )
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


def _all_notebooks() -> list[Path]:
    root = project_root()
    found = sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb")) if root else []
    if not found:
        raise UserError(
            "there is no notebook to run: name one, or run from a checkout of the project"
        )
    return found


@app.command()
def report(
    runs: Annotated[
        Path | None, typer.Argument(help="A folder of runs; runs/ of the checkout without it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The HTML page; report.html in the folder without it.")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Also write times and outputs of these runs into README and notebooks."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """One self-contained HTML page from result files."""
    from timescope_lite.classroom.report import write_report

    runs = runs or runs_root()
    page = write_report(runs, out or runs / "report.html")
    recorded = _record(runs) if record else None
    _print(
        {"report": page, "times": recorded},
        as_json,
        "\n".join(str(path) for path in (page, recorded) if path),
    )


def _record(runs: Path) -> Path:
    from timescope_lite.classroom import report as pages
    from timescope_lite.classroom import runner

    root = project_root()
    if root is None:
        raise UserError("--record writes into the project's own files: run it from a checkout")
    times = pages.record_times(runs, root / "figures" / "course_times.json")
    for notebook in _all_notebooks():
        stamps = {
            path: runner.stamp_of(path.parent, notebook) for path in runs.rglob(notebook.name)
        }
        finished = [path for path, stamp in stamps.items() if stamp]
        if finished:
            newest = max(finished, key=lambda path: path.stat().st_mtime)
            pages.store_outputs(newest, notebook, stamps[newest] or {})
        pages.write_first_cell(notebook)
        pages.write_measured(notebook, times)
    pages.write_shelves(root / "README.md", root / "notebooks", times)
    for picture in sorted(runs.rglob("00_start_here/timeline.png"))[-1:]:
        shutil.copyfile(picture, root / "figures" / "hero.png")
    claim = root / "data" / "results" / "sealed-short" / "result.json"
    if claim.is_file():
        pages.write_claim(root / "README.md", claim)
    pages.write_figures(root)
    return times


@dataclass(frozen=True)
class Finding:
    """One thing `doctor` looked at: what it saw, and how to get it if it is missing. An optional
    thing may be missing.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    optional: bool = False


@app.command()
def student(
    out: Path,
    notebooks: Annotated[
        list[str] | None,
        typer.Argument(help="Paths, names or numbers; every notebook without any."),
    ] = None,
    prove: Annotated[
        bool, typer.Option(help="Run each up to its first exercise: it must stop there, kindly.")
    ] = True,
) -> None:
    """Write the student version of the notebooks into OUT: solutions and outputs taken out, stubs
    and hints kept.
    """
    from timescope_lite.classroom import runner
    from timescope_lite.classroom import student as version

    chosen = [runner.find_notebook(name) for name in notebooks] if notebooks else _all_notebooks()
    for path in version.make_student_version(chosen, out):
        print(f"{path}: {version.prove_student_version(path) if prove else 'not run'}")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look whether everything that the course needs is here; exit status 1 if something is
    missing.
    """
    machine = (_look_python, _look_packages, _look_device, _look_decord, _look_av, _look_kernel)
    found = [
        _look(look) for look in (*machine, _look_data, _look_runs, _look_checkpoint, _look_chromium)
    ]
    lines = [
        f"{'ok' if f.ok else '--' if f.optional else 'NO':3} {f.name}: "
        f"{f.detail}{'' if f.ok else f'. {f.fix}'}"
        for f in found
    ]
    _print([asdict(finding) for finding in found], as_json, "\n".join(lines))
    raise typer.Exit(0 if all(finding.ok or finding.optional for finding in found) else 1)


def _look(look: Any) -> Finding:
    """A look that breaks is itself a finding: the doctor must not fall ill."""
    try:
        return look()  # type: ignore[no-any-return]
    except Exception as error:
        name = look.__name__.removeprefix("_look_")
        fix = (look.__doc__ or "").strip().replace("python -m", f"{sys.executable} -m")
        return Finding(name, False, f"{type(error).__name__}: {error}", fix)


def _metadata() -> tuple[str, list[str]]:
    """(requires-python, requirements) from the checkout's pyproject.toml or the installed
    package.
    """
    import importlib.metadata
    import tomllib

    root = project_root()
    if root is None:
        about = importlib.metadata.metadata("timescope-lite")
        return str(about["Requires-Python"]), [
            str(text) for text in about.get_all("Requires-Dist") or []
        ]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lab = project.get("optional-dependencies", {}).get("lab", [])
    return project["requires-python"], project["dependencies"] + lab


def _look_python() -> Finding:
    from packaging.specifiers import SpecifierSet

    wanted = _metadata()[0]
    return Finding(
        "python",
        platform.python_version() in SpecifierSet(wanted),
        platform.python_version(),
        f"Install Python {wanted}.",
    )


def _look_packages() -> Finding:
    """Run: make install"""
    import importlib.metadata

    from packaging.requirements import Requirement

    wrong: dict[str, str] = {}
    wanted = [
        r
        for r in map(Requirement, _metadata()[1])
        if r.marker is None or r.marker.evaluate({"extra": "lab"})
    ]
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            wrong[f'"{requirement.name}{requirement.specifier}"'] = (
                f"{requirement.name} {version or 'missing'}, wanted {requirement.specifier}"
            )
    detail = "; ".join(wrong.values()) or f"{len(wanted)} in their ranges"
    pinned = f" -c {root / 'constraints.txt'}" if (root := project_root()) else ""
    return Finding(
        "packages",
        not wrong,
        detail,
        f"Run: {sys.executable} -m pip install{pinned} {' '.join(wrong)}",
    )


def _look_device() -> Finding:
    """Run: python -m pip install torch"""
    import torch

    device = pick_device()
    torch.ones(2, device=device).sum().item()
    dtype = str(pick_dtype(device)).removeprefix("torch.")
    return Finding(
        "device",
        True,
        f"{device}, {dtype}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    )


def _clip(folder: str) -> str:
    """A clip of eight grey frames."""
    import av
    import numpy as np

    path = str(Path(folder) / "clip.mp4")
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("libx264", rate=4)
        stream.width = stream.height = 64  # decord reads no frame of 32 pixels' width
        stream.pix_fmt = "yuv420p"
        for i in range(8):
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(
                        np.full((64, 64, 3), 30 * i, np.uint8), format="rgb24"
                    )
                )
            )
        container.mux(stream.encode())
    return path


def _look_decord() -> Finding:
    """Run: python -m pip install --force-reinstall --no-deps decord2 (it imports as decord; never
    install decord beside it)
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        import decord

        frames = decord.VideoReader(_clip(folder), num_threads=1).get_batch([0, 7]).asnumpy()
    ok = bool(frames[1].mean() - frames[0].mean() > 150)
    return Finding(
        "decord",
        ok,
        "decodes a clip" if ok else "decodes a clip wrongly",
        (_look_decord.__doc__ or "").strip(),
    )


def _look_av() -> Finding:
    """Run: python -m pip install av"""
    import av

    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        av.open(_clip(folder)) as container,
    ):
        count = sum(1 for _ in container.decode(video=0))
    return Finding(
        "av",
        count == 8,
        f"writes and reads a clip ({count} of 8 frames)",
        "Run: pip install --force-reinstall av",
    )


def _look_kernel() -> Finding:
    """Run: python -m pip install ipykernel && python -m ipykernel install --sys-prefix"""
    importlib.import_module("ipykernel")
    from jupyter_client.kernelspec import KernelSpecManager

    program = KernelSpecManager().get_kernel_spec("python3").argv[0]
    mine = shutil.which(program) is None or os.path.samefile(
        Path(shutil.which(program) or program), sys.executable
    )
    ok = program in {"python", "python3"} or mine
    return Finding(
        "kernel python3", ok, f"starts {program}", "Run: python -m ipykernel install --sys-prefix"
    )


def _look_data() -> Finding:
    """Set TIMESCOPE_DATA to a folder that you may write to."""
    return _writable("data folder", data_root())


def _look_runs() -> Finding:
    """Set TIMESCOPE_DATA to a folder that you may write to, or name one: --out DIR."""
    return _writable("folder of runs", runs_root())


def _writable(name: str, folder: Path) -> Finding:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return Finding(
            name,
            True,
            f"{folder} is writable, {shutil.disk_usage(folder).free / 2**30:.0f} GiB free",
        )


def _look_checkpoint() -> Finding:
    """Take timescope_lite/assets/ from the repository again, or reinstall the package."""
    import hashlib

    folder = Path(__file__).resolve().parent / "assets"
    manifest = read_json(folder / "manifest.json", "manifest of checkpoints")
    changed = [
        e["file"]
        for e in manifest.values()
        if hashlib.sha256((folder / e["file"]).read_bytes()).hexdigest() != e["sha256"]
    ]
    detail = (
        f"{', '.join(changed)}: not the file that the manifest lists"
        if changed
        else f"{len(manifest)} in place, hashes agree"
    )
    return Finding(
        "checkpoint",
        not changed,
        detail,
        "Take timescope_lite/assets/ from the repository again, or reinstall the package.",
    )


def _look_chromium() -> Finding:
    path = next(
        filter(
            None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
        ),
        None,
    )
    fix = "Needed for the browser test alone: install Chromium with your package manager."
    return Finding("chromium", path is not None, path or "not found", fix, optional=True)


if __name__ == "__main__":
    main()
