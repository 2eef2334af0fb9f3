"""From result files to pages: the schema of a result, the HTML report, and the generated lines of README and notebooks."""

from __future__ import annotations

import base64
import dataclasses
import html
import importlib.metadata
import math
import platform
import re
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timescope_lite import __version__
from timescope_lite.common import UserError, atomic_path, from_mapping, git_commit, pick_device, read_json, write_json

STARTED = time.monotonic()
SCHEMA = 1
WIDGET = "application/vnd.jupyter.widget-view+json"
FRACTIONS = {"miou", "coverage", "reload_share", "fine_miou_given_coverage", "unparsable"}
SHELVES = {"Learn": range(0, 9), "Measure": range(9, 14), "Go further": range(14, 16)}
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--soft:#f3f5f7;--bad:#a40e26}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--line:#3a4149;--soft:#1e2328;--bad:#ff9492}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:.8rem 0}th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left}
th{background:var(--soft)}td.n{text-align:right;font-variant-numeric:tabular-nums}.scroll,pre{overflow-x:auto}
pre{background:var(--soft);padding:.8rem}.failed{color:var(--bad);font-weight:600}
figure{margin:1.2rem 0}img{max-width:100%;height:auto;background:#fff}
"""


@dataclass(frozen=True)
class Metric:
    """One measured number; `low` and `high` bound its 95 % interval (None where there is none), `n` counts what it is taken over."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1


@dataclass(frozen=True)
class Result:
    """What one run found: the content of its result.json. Metric names are "system/bucket/metric"; the first one is the headline."""

    schema: int
    name: str
    status: str
    config: dict[str, Any]
    seed: int | None
    commit: str
    versions: dict[str, str]
    device: str
    wall_s: float
    peak_rss_bytes: int
    metrics: dict[str, Metric] = field(default_factory=dict)

    def validate(self) -> Result:
        """This result if every part of the contract holds; UserError names the first part that does not."""
        if self.schema != SCHEMA:
            raise UserError(f"result {self.name!r}: schema is {self.schema!r}, this version reads {SCHEMA!r}; run it again")
        if self.status not in {"finished", "failed"}:
            raise UserError(f"result {self.name!r}: status is {self.status!r}, expected 'finished' or 'failed'")
        if not (_is_number(self.wall_s) and _is_number(self.peak_rss_bytes)):
            raise UserError(f"result {self.name!r}: wall_s and peak_rss_bytes must be finite numbers")
        for key, metric in self.metrics.items():
            _validate_metric(f"result {self.name!r}: metric {key!r}", key, metric)
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _validate_metric(where: str, key: str, metric: Metric) -> None:
    parts = key.split("/")
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{where} is not named system/bucket/metric")
    bounds = [bound for bound in (metric.low, metric.high) if bound is not None]
    if len(bounds) == 1 or not all(_is_number(number) for number in (metric.value, *bounds)):
        raise UserError(f"{where}: value, low and high must be finite numbers (low and high may both be null)")
    if bounds and not bounds[0] - 1e-9 <= metric.value <= bounds[1] + 1e-9:
        raise UserError(f"{where}: {metric.value} lies outside its own interval [{bounds[0]}, {bounds[1]}]")
    if isinstance(metric.n, bool) or not isinstance(metric.n, int) or metric.n < 0:
        raise UserError(f"{where}: n must be a whole number, not {metric.n!r}")
    if (parts[2] in FRACTIONS or parts[2].startswith("r1@")) and not 0 <= metric.value <= 1:
        raise UserError(f"{where}: {metric.value} is not a fraction between 0 and 1")


def read_result(path: Path) -> Result:
    """The validated result in the JSON file `path`; UserError if it is absent, not JSON or breaks the contract."""
    raw = read_json(path, "result file")
    if not isinstance(raw, dict) or not isinstance(raw.get("metrics"), dict):
        raise UserError(f"result file {path}: expected an object with a 'metrics' object")
    metrics = {}
    for key, value in raw["metrics"].items():
        if not isinstance(value, dict):
            raise UserError(f"result file {path}: metric {key!r} must be an object with value, low, high and n")
        metrics[key] = from_mapping(Metric, value, f"result file {path}, metric {key!r}")
    return from_mapping(Result, {**raw, "metrics": metrics}, f"result file {path}").validate()


def write_result(
    out: Path | str,
    *,
    name: str,
    metrics: dict[str, Metric],
    config: dict[str, Any] | None = None,
    seed: int | None = None,
    status: str = "finished",
    wall_s: float | None = None,
) -> Path:
    """Write `out`/result.json, the last act of a run, atomically; returns its path.

    `wall_s` counts from the import of this file (the bootstrap cell) unless given; peak memory is this process's own. Raises
    UserError if the contract is broken.
    """
    age_s = time.monotonic() - STARTED
    device = str(pick_device()) if "torch" in sys.modules else "cpu"
    result = Result(
        SCHEMA,
        name,
        status,
        config or {},
        seed,
        git_commit(),
        versions(),
        device,
        age_s if wall_s is None else wall_s,
        peak_rss_bytes(),
        metrics,
    ).validate()
    return write_json(Path(out) / "result.json", dataclasses.asdict(result))


def versions() -> dict[str, str]:
    """Versions of what can change a number: python, this package and the installed ones among its main dependencies."""
    found = {"python": platform.python_version(), "timescope-lite": __version__}
    for package in ("torch", "numpy", "transformers", "decord2", "decord", "av"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_rss_bytes(children: bool = False) -> int:
    """Peak resident memory in bytes of this process, or of the largest child that has ended (0 where the system does not tell)."""
    try:
        import resource
    except ImportError:  # Windows has no resource module, but knows the peak of the process itself.
        import psutil

        return 0 if children else int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def keep_figure(figure: Any, out: Path | str, name: str, alt: str) -> Any:
    """Save a matplotlib figure as `out`/`name`.png with its alt text beside it; returns an image that a notebook shows with that text."""
    import matplotlib.pyplot as plt
    from IPython.display import Image

    if not alt.strip():
        raise UserError(f"figure {name!r} has no alt text: say in one sentence what it shows")
    path = Path(out) / f"{name}.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, bbox_inches="tight", metadata={"Software": None})
    path.with_suffix(".alt.txt").write_text(alt.strip() + "\n", encoding="utf-8")
    plt.close(figure)  # else the inline backend would show it a second time, without its text
    return Image(data=path.read_bytes(), alt=alt.strip())


def format_value(metric: str, value: float | None) -> str:
    """A number as people read it: bytes in MiB or GiB, seconds with one decimal, everything else with three."""
    if value is None:
        return "-"
    if metric.endswith("bytes"):
        return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
    return f"{value:.1f} s" if metric.endswith(("seconds", "_s")) else f"{value:.3f}"


def headline(result: Result) -> str:
    """The first metric of a result in one line, with its interval; empty without metrics."""
    key, metric = next(iter(result.metrics.items()), ("", Metric(0)))
    unit = key.rsplit("/", 1)[-1]
    interval = "" if metric.low is None else f" [{format_value(unit, metric.low)}, {format_value(unit, metric.high)}]"
    return f"{key} {format_value(unit, metric.value)}{interval}" if key else ""


def write_report(results_dir: Path, out: Path) -> Path:
    """One self-contained HTML page from every run under `results_dir` (result.json, run.json, PNG figures); returns `out`.

    Raises UserError if nothing was run there or a result file breaks its contract: a report never leaves a run out in silence.
    """
    folders = sorted({path.parent for name in ("result.json", "run.json") for path in Path(results_dir).rglob(name)})
    if not folders:
        raise UserError(f"no run found under {results_dir}: expected result.json files; run `timescope-lite run` first")
    runs = [_load_run(folder, Path(results_dir)) for folder in folders]
    sections = "".join(_section(folder, run, result) for folder, (run, result) in zip(folders, runs, strict=True))
    body = f"<h1>TimeScope-lite: what was run</h1><p>{html.escape(_environment(runs))}</p>{_course_table(runs)}{sections}"
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>TimeScope-lite report</title>"
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(
            f"<!doctype html><html lang='en'><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n", encoding="utf-8"
        )
    return Path(out)


Run = tuple[dict[str, Any], Result | None]


def _load_run(folder: Path, results_dir: Path) -> Run:
    """The runner's record of a folder (or one made from the result alone, for runs by hand) and its result, if there is one.

    A run is called by its folder, which tells the cells of a grid and the profiles of a course apart.
    """
    result = read_result(folder / "result.json") if (folder / "result.json").exists() else None
    run = read_json(folder / "run.json", "run record") if (folder / "run.json").exists() else {}
    if result and not run:
        status = "ok" if result.status == "finished" else "failed"
        run = {"name": result.name, "status": status, "wall_s": result.wall_s, "peak_rss_bytes": result.peak_rss_bytes}
    label = folder.relative_to(results_dir).as_posix()
    return run | {"name": run["name"] if label == "." else label}, result


def _environment(runs: list[Run]) -> str:
    results = [result for _, result in runs if result]
    parts = {f"commit {r.commit}, {r.device}, " + ", ".join(f"{k} {v}" for k, v in r.versions.items()) for r in results}
    return "; ".join(sorted(parts)) or "No run finished."


def _table(header: list[str], rows: list[list[str]], numeric: int) -> str:
    """An HTML table; the last `numeric` columns are aligned as numbers. Cells are HTML already."""
    cells = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in header)
    lines = ["".join(f"<td{' class=n' if i >= len(row) - numeric else ''}>{cell}</td>" for i, cell in enumerate(row)) for row in rows]
    return f"<div class='scroll'><table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _course_table(runs: list[Run]) -> str:
    rows = []
    for run, result in runs:
        name, status = html.escape(run["name"]), html.escape(run["status"])
        figure = html.escape(headline(result) if result else str(run.get("error", "")))
        mark = status if status == "ok" else f"<span class='failed'>{status}</span>"
        memory = format_value("bytes", run["peak_rss_bytes"])
        rows.append([f"<a href='#{name}'>{name}</a>", mark, figure, format_value("seconds", run["wall_s"]), memory])
    return _table(["notebook", "status", "headline", "time", "peak memory"], rows, numeric=2)


def _section(folder: Path, run: dict[str, Any], result: Result | None) -> str:
    parts = [f"<h2 id='{html.escape(run['name'])}'>{html.escape(run['name'])}</h2>"]
    if run["status"] != "ok":
        parts.append(f"<p class='failed'>{html.escape(str(run.get('error')))}</p><pre>{html.escape(run.get('cell', ''))}</pre>")
    if result and result.metrics:
        rows = [_metric_row(key, metric) for key, metric in result.metrics.items()]
        parts.append(_table(["system", "bucket", "metric", "value", "95 % interval", "n"], rows, numeric=3))
    return "".join(parts) + "".join(_figure(path) for path in sorted(folder.glob("*.png")))


def _metric_row(key: str, metric: Metric) -> list[str]:
    unit = key.rsplit("/", 1)[1]
    interval = "" if metric.low is None else f"{format_value(unit, metric.low)} to {format_value(unit, metric.high)}"
    return [*map(html.escape, key.split("/")), format_value(unit, metric.value), interval, str(metric.n)]


def _figure(path: Path) -> str:
    sidecar = path.with_suffix(".alt.txt")
    if not sidecar.exists():
        warnings.warn(f"figure {path.name} has no alt text: write it into {sidecar.name} beside it", stacklevel=2)
    alt = html.escape(sidecar.read_text(encoding="utf-8").strip() if sidecar.exists() else path.stem.replace("_", " "), quote=True)
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<figure><img alt=\"{alt}\" src='data:image/png;base64,{data}'><figcaption>{alt}</figcaption></figure>"


def record_times(results_dir: Path, times: Path) -> Path:
    """Merge time and memory of the successful notebook runs under `results_dir` into the file `times`, profile by profile."""
    recorded: dict[str, Any] = read_json(times, "recorded times") if Path(times).exists() else {}
    for path in sorted(Path(results_dir).rglob("run.json")):
        run = read_json(path, "run record")
        if run["status"] == "ok":
            device = read_result(path.parent / "result.json").device
            row = {"wall_s": round(run["wall_s"], 1), "peak_rss_bytes": run["peak_rss_bytes"], "device": device}
            recorded.setdefault(run["profile"], {})[run["name"]] = row
    return write_json(times, dict(sorted(recorded.items())))


def replace_block(text: str, name: str, content: str, where: str) -> str:
    """`text` with what stands between <!-- name:begin --> and <!-- name:end --> replaced; UserError unless the pair occurs once."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"{where}: expected one pair of markers {begin} ... {end}; add it where the generated text belongs")
    return text[: text.index(begin) + len(begin)] + f"\n{content}\n" + text[text.index(end) :]


def title_of(notebook: Path) -> str:
    """The first heading of a notebook without its hashes; its file name if there is none."""
    for cell in read_json(notebook, "notebook")["cells"]:
        match = re.search(r"^#+\s+(.+?)\s*$", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "markdown" and match:
            return match.group(1)
    return notebook.stem


def write_shelves(readme: Path, notebooks_dir: Path, times: Path) -> None:
    """Rewrite the README's block of shelves: every notebook with its title and measured minutes per recorded profile."""
    recorded = read_json(times, "recorded times") if times.exists() else {}
    parts = []
    for shelf, numbers in SHELVES.items():
        rows = []
        for path in sorted(notebooks_dir.glob("[0-9][0-9]_*.ipynb")):
            if int(path.name[:2]) in numbers:
                minutes = [recorded[p][path.stem]["wall_s"] / 60 if path.stem in recorded[p] else None for p in recorded]
                cells = [f"{m:.1f}" if m is not None else "-" for m in minutes]
                rows.append(" | ".join([f"| [{title_of(path)}]({notebooks_dir.name}/{path.name})", *cells]) + " |")
        header = " | ".join([f"| {shelf}", *(f"minutes, {p}" for p in recorded)]) + " |\n|---|" + "--:|" * len(recorded)
        parts.append("\n".join([header, *(rows or ["| in preparation |" + " |" * len(recorded)])]))
    _write_if_changed(readme, replace_block(readme.read_text(encoding="utf-8"), "shelves", "\n\n".join(parts), readme.name))


def write_measured(notebook: Path, times: Path) -> None:
    """Rewrite the 'measured time and memory' line in a notebook's markdown, between its markers; UserError without markers."""
    import nbformat

    recorded = read_json(times, "recorded times") if times.exists() else {}
    rows = [(profile, recorded[profile][notebook.stem]) for profile in recorded if notebook.stem in recorded[profile]]
    said = [
        f"{profile} {format_value('seconds', row['wall_s'])}, {format_value('bytes', row['peak_rss_bytes'])} ({row['device']})"
        for profile, row in rows
    ]
    line = f"Measured time and peak memory: {'; '.join(said) or 'not recorded yet'}."
    book = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "markdown" and "<!-- measured:begin -->" in cell.source]
    if len(cells) != 1:
        raise UserError(f"notebook {notebook.name}: expected one markdown cell with <!-- measured:begin -->, found {len(cells)}")
    cells[0].source = replace_block(cells[0].source, "measured", line, f"notebook {notebook.name}")
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def write_first_cell(notebook: Path) -> None:
    """Rewrite the cell tagged `bootstrap` as bootstrap.first_cell() says; UserError unless there is exactly one."""
    import nbformat

    from timescope_lite.classroom.bootstrap import first_cell

    book = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in book.cells if "bootstrap" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"notebook {notebook.name}: expected one cell tagged bootstrap, found {len(cells)}")
    cells[0].source = first_cell()
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def store_outputs(executed: Path, notebook: Path) -> None:
    """Copy outputs and counts of an executed notebook into the one it was run from, cell id by cell id, without widget views.

    Raises UserError if a cell of `notebook` is not in the run as it stands: outputs of other code are never stored.
    """
    import nbformat

    book, ran = nbformat.read(notebook, as_version=4), {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        if cell.id not in ran or ran[cell.id].source != cell.source:
            raise UserError(f"notebook {notebook.name} was edited since this run: run it again before recording its outputs")
        outputs = [output for output in ran[cell.id].outputs if WIDGET not in output.get("data", {})]
        cell.outputs, cell.execution_count = [output for output in outputs if output.get("name") != "stderr"], ran[cell.id].execution_count
    book.metadata.pop("widgets", None)
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def _write_if_changed(path: Path, text: str) -> None:
    if path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
