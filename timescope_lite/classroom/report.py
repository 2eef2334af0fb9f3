"""From result files to pages: the schema of a result, the HTML report, and the generated lines of
README and notebooks.
"""

from __future__ import annotations

import base64
import html
import re
import warnings
from pathlib import Path
from typing import Any

from timescope_lite.classroom.ledger import write_ledger
from timescope_lite.classroom.publishing import colab_address, first_cell
from timescope_lite.common import UserError, atomic_path, read_json, write_json
from timescope_lite.results import Estimate, Result, format_value, read_result

WIDGET = "application/vnd.jupyter.widget-view+json"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
RESERVED = (
    "profile",
    "out",
)  # parameters that the runner sets itself, in notebooks that declare them
STAMP = "timescope_lite"  # key of a notebook's metadata: what its stored outputs were recorded with
CLAIM = {
    "two-stage": "two_stage@128",
    "one stage": "single_stage_trained@128",
    "uniform frames": "uniform@128",
    "no reasoning": "two_stage_no_cot@128",
    "frame similarity": "retrieval",
    "text only": "text_only@128",
}
# The main picture, `figures/by_length.png`: row -> folder of data/results, bucket, frames' worth.
BY_LENGTH = {
    "core town, under 3 min": ("sealed-short", "lt3min", 128),
    "core town, 3 to 10 min": ("sealed-short", "3to10min", 128),
    "core town, an hour": ("hour", "all", 320),
    "whole town, under 3 min": ("town-sealed", "lt3min", 256),
    "whole town, 3 to 10 min": ("town-sealed", "3to10min", 256),
    "whole town, 10 min to an hour": ("town-sealed", "gt10min", 256),
}
SHELVES = {"Learn": range(0, 9), "Measure": range(9, 14), "Go further": range(14, 16)}
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de}
:root{--soft:#f3f5f7;--bad:#a40e26}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171a;--line:#3a4149;--soft:#1e2328;--bad:#ff9492}}
body{font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
body{max-width:62rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%;margin:.8rem 0}
th,td{border-bottom:1px solid var(--line);padding:.3rem .6rem;text-align:left}
th{background:var(--soft)}td.n{text-align:right;font-variant-numeric:tabular-nums}.scroll,pre{overflow-x:auto}
pre{background:var(--soft);padding:.8rem}.failed{color:var(--bad);font-weight:600}
figure{margin:1.2rem 0}img{max-width:100%;height:auto;background:#fff}
"""


def headline(result: Result) -> str:
    """The first metric of a result in one line, with its interval; empty without metrics."""
    key, metric = next(iter(result.metrics.items()), ("", Estimate(0)))
    unit = key.rsplit("/", 1)[-1]
    interval = (
        ""
        if metric.low is None
        else f" [{format_value(unit, metric.low)}, {format_value(unit, metric.high)}]"
    )
    return f"{key} {format_value(unit, metric.value)}{interval}" if key else ""


def write_report(results_dir: Path, out: Path) -> Path:
    """One self-contained HTML page from every run under `results_dir` (result.json, run.json, PNG
    figures); returns `out`.

    Raises UserError if nothing was run there or a result file breaks its contract: a report never
    leaves a run out in silence.
    """
    folders = sorted(
        {
            path.parent
            for name in ("result.json", "run.json")
            for path in Path(results_dir).rglob(name)
        }
    )
    if not folders:
        raise UserError(
            f"no run found under {results_dir}: expected result.json files; run `timescope-lite "
            "run` first"
        )
    runs = [_load_run(folder, Path(results_dir)) for folder in folders]
    sections = "".join(
        _section(folder, run, result) for folder, (run, result) in zip(folders, runs, strict=True)
    )
    body = (
        "<h1>TimeScope-lite: what was "
        f"run</h1><p>{html.escape(_environment(runs))}</p>{_course_table(runs)}{sections}"
    )
    head = (
        "<meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width'><title>TimeScope-lite report</title>"
    )
    with atomic_path(Path(out)) as temporary:
        temporary.write_text(
            "<!doctype html><html "
            f"lang='en'><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n",
            encoding="utf-8",
        )
    return Path(out)


Run = tuple[dict[str, Any], Result | None]


def _load_run(folder: Path, results_dir: Path) -> Run:
    """The runner's record of a folder (or one made from the result alone, for runs by hand) and its
    result, if there is one.

    A run is called by its folder, which tells the cells of a grid and the profiles of a course
    apart.
    """
    result = read_result(folder / "result.json") if (folder / "result.json").exists() else None
    run = read_json(folder / "run.json", "run record") if (folder / "run.json").exists() else {}
    if result and not run:
        status = "ok" if result.status == "finished" else "failed"
        run = {
            "name": result.name,
            "status": status,
            "wall_s": result.wall_s,
            "peak_rss_bytes": result.peak_rss_bytes,
        }
    label = folder.relative_to(results_dir).as_posix()
    return run | {"name": run["name"] if label == "." else label}, result


def _environment(runs: list[Run]) -> str:
    results = [result for _, result in runs if result]
    parts = {
        f"commit {r.commit}, {r.device}, " + ", ".join(f"{k} {v}" for k, v in r.versions.items())
        for r in results
    }
    return "; ".join(sorted(parts)) or "No run finished."


def _table(header: list[str], rows: list[list[str]], numeric: int) -> str:
    """An HTML table; the last `numeric` columns are aligned as numbers. Cells are HTML already."""
    cells = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in header)
    lines = [
        "".join(
            f"<td{' class=n' if i >= len(row) - numeric else ''}>{cell}</td>"
            for i, cell in enumerate(row)
        )
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class='scroll'><table><tr>{cells}</tr>{body}</table></div>"


def _course_table(runs: list[Run]) -> str:
    rows = []
    for run, result in runs:
        name, status = html.escape(run["name"]), html.escape(run["status"])
        figure = html.escape(headline(result) if result else str(run.get("error", "")))
        mark = status if status == "ok" else f"<span class='failed'>{status}</span>"
        memory = format_value("bytes", run["peak_rss_bytes"])
        rows.append(
            [
                f"<a href='#{name}'>{name}</a>",
                mark,
                figure,
                format_value("seconds", run["wall_s"]),
                memory,
            ]
        )
    return _table(["notebook", "status", "headline", "time", "peak memory"], rows, numeric=2)


def _section(folder: Path, run: dict[str, Any], result: Result | None) -> str:
    parts = [f"<h2 id='{html.escape(run['name'])}'>{html.escape(run['name'])}</h2>"]
    if run["status"] != "ok":
        parts.append(f"<p class='failed'>{html.escape(str(run.get('error')))}</p>")
        parts.append(f"<pre>{html.escape(run.get('cell', ''))}</pre>")
    if result and result.metrics:
        rows = [_metric_row(key, metric) for key, metric in result.metrics.items()]
        parts.append(
            _table(["system", "bucket", "metric", "value", "95 % interval", "n"], rows, numeric=3)
        )
    return "".join(parts) + "".join(_figure(path) for path in sorted(folder.glob("*.png")))


def _metric_row(key: str, metric: Estimate) -> list[str]:
    unit = key.rsplit("/", 1)[1]
    interval = (
        ""
        if metric.low is None
        else f"{format_value(unit, metric.low)} to {format_value(unit, metric.high)}"
    )
    return [
        *map(html.escape, key.split("/")),
        format_value(unit, metric.value),
        interval,
        str(metric.n),
    ]


def _figure(path: Path) -> str:
    sidecar = path.with_suffix(".alt.txt")
    if not sidecar.exists():
        warnings.warn(
            f"figure {path.name} has no alt text: write it into {sidecar.name} beside it",
            stacklevel=2,
        )
    alt = html.escape(
        sidecar.read_text(encoding="utf-8").strip()
        if sidecar.exists()
        else path.stem.replace("_", " "),
        quote=True,
    )
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<figure><img alt="{alt}" '
        f"src='data:image/png;base64,{data}'><figcaption>{alt}</figcaption></figure>"
    )


def record_times(results_dir: Path, times: Path) -> Path:
    """Merge time and memory of the successful notebook runs under `results_dir` into the file
    `times`, profile by profile.

    A run with other parameters than the notebook's own is left out.
    """
    recorded: dict[str, Any] = read_json(times, "recorded times") if Path(times).exists() else {}
    for path in sorted(Path(results_dir).rglob("run.json")):
        run = read_json(path, "run record")
        if run["status"] == "ok" and set(run.get("parameters", {})) <= set(RESERVED):
            device = read_result(path.parent / "result.json").device
            row = {
                "wall_s": round(run["wall_s"], 1),
                "peak_rss_bytes": run["peak_rss_bytes"],
                "device": device,
            }
            recorded.setdefault(run["profile"], {})[run["name"]] = row
    return write_json(times, dict(sorted(recorded.items())))


def replace_block(text: str, name: str, content: str, where: str) -> str:
    """`text` with what stands between <!-- name:begin --> and <!-- name:end --> replaced; UserError
    unless the pair occurs once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(
            f"{where}: expected one pair of markers {begin} ... {end}; add it where the generated "
            "text belongs"
        )
    return text[: text.index(begin) + len(begin)] + f"\n{content}\n" + text[text.index(end) :]


def title_of(notebook: Path) -> str:
    """The first heading of a notebook without its hashes; its file name if there is none."""
    from timescope_lite.classroom.runner import read_notebook  # which imports this module

    for cell in read_notebook(notebook)["cells"]:
        match = re.search(r"^#+\s+(.+?)\s*$", cell["source"], re.MULTILINE)
        if cell["cell_type"] == "markdown" and match:
            return match.group(1)
    return notebook.stem


def write_shelves(readme: Path, notebooks_dir: Path, times: Path) -> None:
    """Rewrite the README's block of shelves: every notebook with its title, a Colab badge once the
    course is published, and measured minutes per recorded profile.
    """

    recorded = read_json(times, "recorded times") if times.exists() else {}
    parts = []
    for shelf, numbers in SHELVES.items():
        rows = []
        for path in sorted(notebooks_dir.glob("[0-9][0-9]_*.ipynb")):
            if int(path.name[:2]) in numbers:
                minutes = [
                    recorded[p][path.stem]["wall_s"] / 60 if path.stem in recorded[p] else None
                    for p in recorded
                ]
                cells = [f"{m:.1f}" if m is not None else "-" for m in minutes]
                badge = (
                    f" [![Open in Colab]({BADGE})]({colab_address(path)})"
                    if colab_address(path)
                    else ""
                )
                rows.append(
                    " | ".join(
                        [f"| [{title_of(path)}]({notebooks_dir.name}/{path.name}){badge}", *cells]
                    )
                    + " |"
                )
        header = (
            " | ".join([f"| {shelf}", *(f"minutes, {p}" for p in recorded)])
            + " |\n|---|"
            + "--:|" * len(recorded)
        )
        parts.append("\n".join([header, *(rows or ["| in preparation |" + " |" * len(recorded)])]))
    _write_if_changed(
        readme,
        replace_block(
            readme.read_text(encoding="utf-8"), "shelves", "\n\n".join(parts), readme.name
        ),
    )


def write_claim(readme: Path, result_file: Path) -> None:
    """Rewrite the README's one measured claim from a recorded evaluation: two-stage beside the
    controls of the same run, with their intervals.

    Where the project keeps `figures/claims.toml`, the ledger of all claims is written beside it
    (`ledger.write_ledger`).
    """

    result = read_result(result_file)
    said = {name: result.metrics.get(f"{system}/all/r1@0.5") for name, system in CLAIM.items()}
    parts = [
        f"{name} {metric.value:.2f} [{metric.low:.2f}, {metric.high:.2f}]"
        for name, metric in said.items()
        if metric and metric.low is not None
    ]
    n = next((metric.n for metric in said.values() if metric), 0)
    source = (
        f"[result]({result_file.relative_to(readme.parent).as_posix()}), commit {result.commit}"
    )
    line = (
        f"Measured: R1@0.5 on {n} questions of `{result.config['split']}` (seed {result.seed}), "
        "videos of 2 to 9 minutes read from mp4, at 128 frames' "
        "worth of attended KV; one stage, uniform frames and no reasoning each trained for their "
        "own way of reading, frame similarity and text only with "
        f"our weights; one seed, 95 % intervals over videos: {'; '.join(parts)}. ({source})"
    )
    _write_if_changed(
        readme, replace_block(readme.read_text(encoding="utf-8"), "claim", line, readme.name)
    )
    claims = readme.parent / "figures" / "claims.toml"
    if claims.is_file():
        write_ledger(claims, claims.with_name("claims_ledger.md"), readme.parent)


def write_figures(root: Path) -> Path | None:
    """Draw `figures/by_length.png` from the recorded results: two stages beside the controls, by
    length of video; None where none is recorded.
    """
    from timescope_lite import plots
    from timescope_lite.evaluate import label_of

    names = {
        "two stages": "two_stage",
        "one stage": "single_stage_trained",
        "uniform frames": "uniform",
        "frame similarity": "retrieval",
    }
    rows: dict[str, dict[str, Any]] = {}
    for label, (folder, bucket, budget) in BY_LENGTH.items():
        path = root / "data" / "results" / folder / "result.json"
        metrics = read_result(path).metrics if path.is_file() else {}
        keys = {
            name: f"{label_of(system, budget)}/{bucket}/r1@0.5" for name, system in names.items()
        }
        found = {name: metrics[key] for name, key in keys.items() if key in metrics}
        rows |= {f"{label}\n{budget} frames' worth": found} if found else {}
    if not rows:
        return None
    title = "R1@0.5 by length of the video; equal attended KV, frame similarity has no budget"
    xlabel = "R1@0.5, 95 % intervals over videos; one training seed"
    return plots.save(
        plots.estimate_rows(rows, title=title, xlabel=xlabel), root / "figures" / "by_length.png"
    )


def write_measured(notebook: Path, times: Path) -> None:
    """Rewrite the 'measured time and memory' line in a notebook's markdown, between its markers,
    and the link to Colab of a published course under it (no badge: a notebook fetches no picture).
    UserError without markers.
    """
    import nbformat

    recorded = read_json(times, "recorded times") if times.exists() else {}
    rows = [
        (profile, recorded[profile][notebook.stem])
        for profile in recorded
        if notebook.stem in recorded[profile]
    ]
    said = [
        f"{profile} {format_value('seconds', row['wall_s'])}, "
        f"{format_value('bytes', row['peak_rss_bytes'])} ({row['device']})"
        for profile, row in rows
    ]
    line = f"Measured time and peak memory: {'; '.join(said) or 'not recorded yet'}."
    line += (
        f"\n\n[Open this notebook in Colab]({colab_address(notebook)})"
        if colab_address(notebook)
        else ""
    )
    book = nbformat.read(notebook, as_version=4)
    cells = [
        cell
        for cell in book.cells
        if cell.cell_type == "markdown" and "<!-- measured:begin -->" in cell.source
    ]
    if len(cells) != 1:
        raise UserError(
            f"notebook {notebook.name}: expected one markdown cell with <!-- measured:begin -->, "
            f"found {len(cells)}"
        )
    cells[0].source = replace_block(cells[0].source, "measured", line, f"notebook {notebook.name}")
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def write_first_cell(notebook: Path) -> None:
    """Rewrite the cell tagged `bootstrap` as publishing.first_cell() says; UserError unless there
    is exactly one.
    """
    import nbformat

    book = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in book.cells if "bootstrap" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(
            f"notebook {notebook.name}: expected one cell tagged bootstrap, found {len(cells)}"
        )
    cells[0].source = first_cell()
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def store_outputs(executed: Path, notebook: Path, stamp: dict[str, Any]) -> None:
    """Copy outputs and counts of an executed notebook into the one it was run from, cell id by cell
    id, without widget views.

    `stamp` (`runner.stamp_of`) goes into the notebook's metadata, so that a test can tell when the
    outputs have become those of another tree. Raises UserError if a cell of `notebook` is not in
    the run as it stands: outputs of other code are never stored.
    """
    import nbformat

    book = nbformat.read(notebook, as_version=4)
    ran = {cell.id: cell for cell in nbformat.read(executed, as_version=4).cells}
    for cell in (cell for cell in book.cells if cell.cell_type == "code"):
        if cell.id not in ran or ran[cell.id].source != cell.source:
            raise UserError(
                f"notebook {notebook.name} was edited since this run: run it again before "
                "recording its outputs"
            )
        outputs = [
            output for output in ran[cell.id].outputs if WIDGET not in output.get("data", {})
        ]
        cell.outputs = [output for output in outputs if output.get("name") != "stderr"]
        cell.execution_count = ran[cell.id].execution_count
    book.metadata.pop("widgets", None)
    book.metadata[STAMP] = stamp
    _write_if_changed(notebook, nbformat.writes(book) + "\n")


def _write_if_changed(path: Path, text: str) -> None:
    if path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
