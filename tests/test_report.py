"""The schema of a result, the report page, and the generated lines of README and notebooks."""

import base64
import json
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import nbformat
import pytest

from timescope_lite import __version__
from timescope_lite.classroom import report
from timescope_lite.classroom.publishing import first_cell
from timescope_lite.common import UserError, write_json
from timescope_lite.results import Estimate, read_result, write_result

METRICS = {
    "two_stage@64/all/r1@0.5": Estimate(0.41, 0.35, 0.47, 120),
    "two_stage@64/gt10min/device_kv_bytes": Estimate(3 * 2**20),
}


def run_in(
    folder: Path, name: str, status: str = "ok", wall_s: float = 24.0, profile: str = "smoke"
) -> Path:
    """A folder as the runner leaves it."""
    out = folder / name
    out.mkdir(parents=True)
    if status == "ok":
        write_result(out, name=name, metrics=METRICS, seed=1)
    record = {
        "name": name,
        "status": status,
        "wall_s": wall_s,
        "peak_rss_bytes": 400 * 2**20,
        "profile": profile,
    }
    write_json(
        out / "run.json",
        record
        | ({} if status == "ok" else {"error": "KeyError: 'window' <b>", "cell": "x['window']"}),
    )
    return out


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    result = read_result(
        write_result(tmp_path, name="bench", metrics=METRICS, config={"r": 16}, seed=3, wall_s=2.5)
    )
    assert (result.name, result.status, result.seed, result.wall_s, result.config) == (
        "bench",
        "finished",
        3,
        2.5,
        {"r": 16},
    )
    assert result.metrics == METRICS and list(result.metrics) == list(METRICS)
    assert (
        result.peak_rss_bytes > 10 * 2**20 and result.versions["timescope-lite"] and result.commit
    )
    raw = json.loads((tmp_path / "result.json").read_text())
    assert set(raw) == {
        *(
            "schema",
            "name",
            "status",
            "config",
            "seed",
            "commit",
            "versions",
            "device",
            "wall_s",
            "peak_rss_bytes",
            "metrics",
        )
    }
    assert set(raw["metrics"]["two_stage@64/all/r1@0.5"]) == {"value", "low", "high", "n"}


@pytest.mark.parametrize(
    ("key", "metric", "says"),
    [
        ("r1@0.5", Estimate(0.5), "system/bucket/metric"),
        ("a//miou", Estimate(0.5), "system/bucket/metric"),
        ("a/all/r1@0.5", Estimate(41.0), "not a fraction"),
        ("a/all/miou", Estimate(-0.1), "not a fraction"),
        ("a/all/seconds", Estimate(float("nan")), "finite"),
        ("a/all/seconds", Estimate(True), "finite"),
        ("a/all/seconds", Estimate(1.0, 0.5, float("inf")), "finite"),
        ("a/all/seconds", Estimate(1.0, low=0.5), "both be null"),
        ("a/all/seconds", Estimate(1.0, 2.0, 3.0), "outside its own interval"),
        ("a/all/seconds", Estimate(1.0, n=-1), "whole number"),
        ("a/all/seconds", Estimate(1.0, n=1.5), "whole number"),  # type: ignore[arg-type]
    ],
)
def test_a_broken_metric_is_never_written(
    tmp_path: Path, key: str, metric: Estimate, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        write_result(tmp_path, name="bench", metrics={key: metric})
    assert not list(tmp_path.iterdir())


def test_a_foreign_or_damaged_result_file_is_refused(tmp_path: Path) -> None:
    good = json.loads(write_result(tmp_path, name="bench", metrics=METRICS).read_text())
    lacking = {key: value for key, value in good.items() if key != "seed"}
    broken = [
        [],
        {},
        good | {"metrics": {"a/b/c": 1}},
        good | {"metrics": {"a/b/c": {"mean": 1}}},
        good | {"extra": 1},
        lacking,
    ]
    broken += [good | {"schema": 2}, good | {"status": "fine"}, good | {"wall_s": None}]
    for value in broken:
        write_json(tmp_path / "result.json", value)
        with pytest.raises(UserError, match="result"):
            read_result(tmp_path / "result.json")
    (tmp_path / "result.json").write_text('{"schema": ')
    with pytest.raises(UserError, match="not valid JSON"):
        read_result(tmp_path / "result.json")


class Page(HTMLParser):
    """What a browser would fetch or read aloud."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [
            str(values[key]) for key in ("src", "href", "action", "data") if values.get(key)
        ]
        self.images += [values] if tag == "img" else []

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def test_the_report_is_one_page_with_everything_in_it(tmp_path: Path) -> None:
    out = run_in(tmp_path, "04_streaming")
    run_in(tmp_path, "05_memory", status="failed")
    plt.imsave(out / "recall.png", [[0.0, 1.0]])
    (out / "recall.alt.txt").write_text('Recall "by length": two-stage stays above uniform.')
    path = report.write_report(tmp_path, tmp_path / "pages" / "report.html")
    page = Page(path.read_text())
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert page.images[0]["alt"] == 'Recall "by length": two-stage stays above uniform.'
    assert (
        base64.b64decode(str(page.images[0]["src"]).split(",")[1])
        == (out / "recall.png").read_bytes()
    )
    for said in (
        "04_streaming",
        "0.410",
        "0.350 to 0.470",
        "120",
        "3.0 MiB",
        "400 MiB",
        "24.0 s",
        "KeyError: 'window' <b>",
        "x['window']",
    ):
        assert said in page.text
    assert "http" not in re.sub(r"base64,\S+", "", path.read_text())
    before = path.read_bytes()
    assert report.write_report(tmp_path, path).read_bytes() == before


def test_runs_by_hand_and_cells_of_a_grid_are_told_apart(tmp_path: Path) -> None:
    for cell in ("r=8", "r=16"):
        run_in(tmp_path / cell, "09_compression")
    write_result(tmp_path / "by_hand", name="bench", metrics={})
    text = Page(report.write_report(tmp_path, tmp_path / "report.html").read_text()).text
    assert "r=8/09_compression" in text and "r=16/09_compression" in text and "by_hand" in text


def test_a_report_leaves_nothing_out_in_silence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run found"):
        report.write_report(tmp_path, tmp_path / "report.html")
    out = run_in(tmp_path, "04_streaming")
    plt.imsave(out / "recall_by_length.png", [[0.0, 1.0]])
    with pytest.warns(UserWarning, match="recall_by_length.png has no alt text"):
        page = Page(report.write_report(tmp_path, tmp_path / "report.html").read_text())
    assert page.images[0]["alt"] == "recall by length"
    (out / "result.json").write_text("{}")
    with pytest.raises(UserError, match="result file"):
        report.write_report(tmp_path, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project: README with markers, three notebooks on two shelves, one recorded run each
    of two of them.
    """
    (tmp_path / "README.md").write_text(
        "# Top ●\n<!-- shelves:begin -->\nold\n<!-- shelves:end -->\nrest\n", encoding="utf-8"
    )
    (tmp_path / "notebooks").mkdir()
    for name, title in (
        ("00_start", "The result first"),
        ("01_intervals", "Intervals"),
        ("09_ratio", "How far to compress"),
    ):
        texts = [f"# {title} ●○\n\nmore", "<!-- measured:begin -->\nold\n<!-- measured:end -->"]
        cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
        cells.append(nbformat.v4.new_code_cell("old", metadata={"tags": ["bootstrap"]}))
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / f"{name}.ipynb"
        )
    run_in(tmp_path / "runs", "00_start")
    run_in(tmp_path / "runs", "09_ratio", wall_s=90)
    run_in(tmp_path / "runs", "01_intervals", status="failed")
    report.record_times(tmp_path / "runs", tmp_path / "times.json")
    return tmp_path


def generate(project: Path) -> dict[str, bytes]:
    report.write_shelves(project / "README.md", project / "notebooks", project / "times.json")
    for path in sorted((project / "notebooks").glob("*.ipynb")):
        report.write_measured(path, project / "times.json")
        report.write_first_cell(path)
    return {
        path.name: path.read_bytes()
        for path in [project / "README.md", *(project / "notebooks").glob("*.ipynb")]
    }


def test_generated_lines_come_from_the_record_and_a_second_time_changes_nothing(
    project: Path,
) -> None:
    first = generate(project)
    readme = first["README.md"].decode()
    assert (
        "| [The result first ●○](notebooks/00_start.ipynb) | 0.4 |" in readme
        and "| minutes, smoke |" in readme
    )
    assert "| [Intervals ●○](notebooks/01_intervals.ipynb) | - |" in readme and "old" not in readme
    assert (
        readme.index("00_start")
        < readme.index("| Measure")
        < readme.index("09_ratio")
        < readme.index("| Go further")
    )
    assert readme.startswith("# Top ●\n") and readme.endswith("-->\nrest\n")
    cells = nbformat.reads(first["09_ratio.ipynb"].decode(), as_version=4).cells
    assert "smoke 90.0 s, 400 MiB (cpu)" in cells[1].source and cells[2].source == first_cell()
    assert "not recorded yet" in first["01_intervals.ipynb"].decode()
    assert generate(project) == first


def test_one_setting_gives_badges_links_and_the_first_cell(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = generate(project)
    assert b"colab" not in b"".join(before.values()), "what is not published has no badge"
    monkeypatch.setattr("timescope_lite.classroom.publishing.REPOSITORY", "someone/course")
    made = generate(project)
    address = (
        "https://colab.research.google.com/github/someone/course/blob/main/notebooks/00_start.ipynb"
    )
    assert (
        "[The result first ●○](notebooks/00_start.ipynb) [![Open in "
        f"Colab]({report.BADGE})]({address}) | 0.4 |" in made["README.md"].decode()
    )
    cells = nbformat.reads(made["00_start.ipynb"].decode(), as_version=4).cells
    assert (
        f"[Open this notebook in Colab]({address})" in cells[1].source
        and "![" not in cells[1].source
    )
    assert f"git+https://github.com/someone/course@v{__version__}" in cells[2].source
    assert generate(project) == made
    monkeypatch.undo()
    assert generate(project) == before


def test_a_second_record_keeps_other_profiles_and_notebooks(project: Path) -> None:
    run_in(project / "lab", "00_start", wall_s=600, profile="lab")
    times = json.loads(report.record_times(project / "lab", project / "times.json").read_text())
    assert times["lab"]["00_start"]["wall_s"] == 600 and set(times["smoke"]) == {
        "00_start",
        "09_ratio",
    }
    assert (
        "| 0.4 | 10.0 |" not in generate(project)["README.md"].decode()
    )  # profiles stand in the order of the record: lab, smoke
    assert "| 10.0 | 0.4 |" in (project / "README.md").read_text(encoding="utf-8")


def test_markers_that_are_missing_are_named(project: Path) -> None:
    (project / "README.md").write_text("no markers\n")
    with pytest.raises(
        UserError, match="README.md: expected one pair of markers <!-- shelves:begin -->"
    ):
        report.write_shelves(project / "README.md", project / "notebooks", project / "times.json")
    book = project / "notebooks" / "00_start.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), book)
    for write in (
        lambda: report.write_measured(book, project / "times.json"),
        lambda: report.write_first_cell(book),
    ):
        with pytest.raises(UserError, match="00_start.ipynb: expected one"):
            write()


def test_no_notebooks_and_no_record_is_a_state_too(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- shelves:begin --><!-- shelves:end -->")
    (tmp_path / "notebooks").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.write_shelves(
            tmp_path / "README.md", tmp_path / "notebooks", tmp_path / "times.json"
        )
    assert (tmp_path / "README.md").read_text().count("| in preparation |") == 3


def test_outputs_of_a_run_are_stored_cell_by_cell(tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A"),
            nbformat.v4.new_code_cell("slider"),
            nbformat.v4.new_code_cell("1"),
        ]
    )
    nbformat.write(book, tmp_path / "a.ipynb")
    widget = nbformat.v4.new_output(
        "display_data", data={report.WIDGET: {"model_id": "x"}, "text/plain": "IntSlider()"}
    )
    book.cells[1].outputs = [widget, nbformat.v4.new_output("stream", name="stderr", text="bar")]
    book.cells[2].outputs = [
        nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=3)
    ]
    book.cells[2].execution_count = 3
    book.cells.insert(
        1, nbformat.v4.new_code_cell("seed = 3", metadata={"tags": ["injected-parameters"]})
    )
    book.metadata["widgets"] = {"state": {}}
    nbformat.write(book, tmp_path / "ran.ipynb")
    report.store_outputs(tmp_path / "ran.ipynb", tmp_path / "a.ipynb", {"profile": "smoke"})
    stored = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert stored.metadata[report.STAMP] == {"profile": "smoke"}
    assert [cell.source for cell in stored.cells] == [
        "# A",
        "slider",
        "1",
    ] and "widgets" not in stored.metadata
    assert stored.cells[1].outputs == [] and stored.cells[2].outputs[0].data["text/plain"] == "1"
    stored.cells[2].source = "2"
    nbformat.write(stored, tmp_path / "a.ipynb")
    with pytest.raises(UserError, match="edited since this run"):
        report.store_outputs(tmp_path / "ran.ipynb", tmp_path / "a.ipynb", {})


def test_the_picture_by_length_shows_what_is_recorded_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    assert report.write_figures(tmp_path) is None
    measured = {
        "two_stage@320/all/r1@0.5": Estimate(0.5, 0.4, 0.6, 48),
        "retrieval/all/r1@0.5": Estimate(0.125, 0.1, 0.2, 48),
    }
    write_result(tmp_path / "data" / "results" / "hour", name="an hour", metrics=measured)
    picture = report.write_figures(tmp_path)
    assert picture is not None and picture.stat().st_size > 10_000
    said = picture.with_suffix(".alt.txt").read_text(encoding="utf-8")
    assert (
        "two stages 0.50 [0.40, 0.60]" in said
        and "frame similarity 0.12 [0.10, 0.20]" in said
        and "under 3 min" not in said
    )
