"""Figures: built from plain data, in one style, with a title that says what was found and a text
for those who do not see it.
"""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from timescope_lite import plots
from timescope_lite.common import UserError
from timescope_lite.metrics import bootstrap, reliability
from timescope_lite.plots import Picture, Scene

RED_DOT = np.full((8, 8, 3), (200, 30, 30), np.uint8)
CHAPTERS = [
    (i * 30.0, (i + 1) * 30.0, f"red mill {i}", "#c43320" if i % 2 else "#f2c230")
    for i in range(20)
]
METRICS = {
    "two_stage@128/all/r1@0.5": {"value": 0.6, "low": 0.5, "high": 0.7, "n": 90},
    "uniform@128/all/r1@0.5": {"value": 0.1, "low": None, "high": None, "n": 90},
    "uniform@128/gt10min/r1@0.5": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 9},
}


def scene(**changes: object) -> Scene:
    """Ten minutes, a window of three segments, a right answer."""
    values = {
        "duration_s": 600.0,
        "chapters": CHAPTERS,
        "frames": [(60.0, RED_DOT), (300.0, RED_DOT), (540.0, RED_DOT)],
        "task": "Why is there a flood?",
        "truth": (325.0, 328.0),
        "answer": (325.0, 328.0),
        "window": (304.0, 352.0),
        "reasoning": "Look for: plumber pull lever.",
        "memory": {"attended KV": 3.0e5, "dense attention": 2.4e6},
    }
    return Scene(**{**values, **changes})  # type: ignore[arg-type]


ESTIMATE = bootstrap([0, 1, 1, 0], [0, 0, 1, 2])
DRAWINGS: dict[str, Callable[[], Picture]] = {
    "timeline": lambda: plots.timeline(scene()),
    "pipeline": lambda: plots.pipeline("reload"),
    "film": lambda: plots.film(
        [(5.0, RED_DOT), (3599.6, RED_DOT)], ["a mill", "a dock"], "Two places"
    ),
    "estimate_rows": lambda: plots.estimate_rows(
        {"an hour": {"two stages": ESTIMATE}, "minutes": {"two stages": ESTIMATE}},
        "Two rows",
        marks={"your guess": 0.4},
        zero=True,
    ),
    "outcome_bars": lambda: plots.outcome_bars(
        {"an hour": {"found": ESTIMATE, "missed": ESTIMATE}},
        {"found": "#1f5fae", "missed": "#c43320"},
        "Two outcomes",
    ),
    "failure_gallery": lambda: plots.failure_gallery(
        {"The window misses the evidence.": scene()}, "One failure"
    ),
    "trade_off": lambda: plots.trade_off(
        {"two stages": [("r=4", 60.0, ESTIMATE), ("r=16", 20.0, ESTIMATE)]},
        "frames' worth",
        "R1@0.5",
        "Less memory",
        front=True,
    ),
    "star": lambda: plots.star(
        {"default": {"R1@0.5": ESTIMATE}, "r = 4": {"R1@0.5": ESTIMATE}},
        "default",
        "One axis at a time",
    ),
    "memory_bars": lambda: plots.memory_bars({"attended KV": 1.0e6, "dense attention": 1.5e7}),
    "system_bars": lambda: plots.system_bars(METRICS),
    "miss_chances": lambda: plots.miss_chances(3600, (2, 5), {2: {64: 0.96}}),
    "interval_bars": lambda: plots.interval_bars(
        [((0, 30), (12, 22)), ((1, 5), (12, 22))], ["too wide", "beside it"]
    ),
    "recall_curve": lambda: plots.recall_curve(
        {"two_stage": [0.2, 0.6, 1.0], "uniform": [0.0, 0.0, 0.4]}
    ),
    "estimate_ladder": lambda: plots.estimate_ladder(
        {
            "over videos": bootstrap([0, 1, 1, 0], [0, 0, 1, 2]),
            "one": METRICS["uniform@128/all/r1@0.5"],
        }
    ),
    "code_map": lambda: plots.code_map(
        {"sines": np.sin(np.outer(np.arange(60), [0.1, 1.0]))},
        60.0,
        "Slow rows change slowly, fast ones fast",
    ),
    "budget_lines": lambda: plots.budget_lines(
        {"r = 16": 60 + 15 * np.arange(17), "r = 8": 120 + 14 * np.arange(17)},
        [128, 256],
        "Stronger compression, more room",
    ),
    "reliability_diagram": lambda: plots.reliability_diagram(
        {
            "exactly": reliability([0.1, 0.5, 0.9], [0, 1, 1], 5),
            "held": reliability([0.1, 0.5, 0.9], [1, 1, 1], 5),
        }
    ),
    "token_strip": lambda: plots.token_strip(
        {"with reasoning": [("when", 0), ("<think>", 0), ("red mill", 1), ("<so>", 1), ("61s", 2)]}
    ),
    "distributions": lambda: plots.distributions(
        {"<direct>": np.full(64, 1 / 64), "<think>": np.eye(64)[40]}, (40.0, 44.0)
    ),
}


def pixels(figure: Picture) -> np.ndarray:
    return np.asarray(imread(BytesIO(figure.png())))[..., :3]


def words(figure: Picture) -> list[str]:
    """Every text in the figure that is not empty."""
    return [
        text.get_text()
        for text in figure.findobj(mpl.text.Text)
        if text.get_text() and text.get_visible()
    ]


def title(figure: Picture) -> str:
    """The largest text."""
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text()]
    return max(texts, key=lambda t: t.get_fontsize()).get_text()


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_has_alt_text_a_title_and_fits_the_screen(name: str) -> None:
    figure = DRAWINGS[name]()
    image = pixels(figure)
    assert len(figure.alt_text) > 40
    assert len(title(figure).split()) >= 2
    assert image.shape[1] == (1600 if name == "timeline" else 1280) and image.shape[0] <= 720
    assert 0.02 < np.mean(image.min(axis=2) < 0.97) < 0.9, "neither empty nor full"


@pytest.mark.parametrize("name", DRAWINGS)
def test_letters_are_legible_and_none_runs_out_of_the_picture(name: str) -> None:
    figure = DRAWINGS[name]()
    height, width = pixels(figure).shape[:2]
    assert (
        min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()) >= 13
    )
    drawn = figure.get_tightbbox()
    assert (
        drawn.x0 >= -0.02
        and drawn.y0 >= -0.02
        and drawn.x1 <= width / 100 + 0.02
        and drawn.y1 <= height / 100 + 0.02
    )


@pytest.mark.parametrize("name", ["timeline", "pipeline", "recall_curve"])
def test_the_same_data_give_the_same_file_whatever_the_notebook_has_set(name: str) -> None:
    first = DRAWINGS[name]().png()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        assert DRAWINGS[name]().png() == first
        assert mpl.rcParams["font.size"] == 30, "the notebook's own settings are left alone"


def test_the_colours_that_mean_something_stay_apart_without_colour() -> None:
    def grey(colour: str) -> float:
        return float(np.dot(mpl.colors.to_rgb(colour), (0.2126, 0.7152, 0.0722)))

    assert len({plots.TRUTH, plots.ANSWER, plots.HVR, plots.DVR}) == 4
    assert abs(grey(plots.HVR) - grey(plots.DVR)) > 0.2


# --- what the titles say --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "Found in 10 minutes of video: 05:25 to 05:28, 8.0 % of the detail reopened"),
        (
            {"duration_s": 3600.0},
            "Found in an hour of video: 05:25 to 05:28, 1.3 % of the detail reopened",
        ),
        ({"window": None}, "Found in 10 minutes of video: 05:25 to 05:28"),
        ({"answer": None}, "the model says: the evidence is not there"),
        (
            {"answer": (310.0, 312.0)},
            "Missed in 10 minutes of video, though the window holds the truth: tIoU 0.00",
        ),
        (
            {"answer": (80.0, 90.0), "window": (64.0, 112.0)},
            "Missed in 10 minutes of video: the coarse window does not hold the truth",
        ),
        (
            {"answer": (320.0, 327.0), "window": (304.0, 327.0)},
            "the coarse window does not hold the truth",
        ),
        ({"answer": (80.0, 90.0), "window": None}, "Missed in 10 minutes of video: tIoU 0.00"),
    ],
)
def test_a_timeline_says_what_happened(changes: dict[str, object], says: str) -> None:
    assert says in scene(**changes).finding()
    figure = plots.timeline(scene(**changes))
    assert (
        says in title(figure)
        and says in figure.alt_text
        and "Why is there a flood?" in figure.alt_text
    )


def test_an_interval_outside_of_the_lens_is_said_in_words() -> None:
    said = words(plots.timeline(scene(answer=(20.0, 24.0))))
    assert "00:20 to 00:24, outside this lens" in said and "05:25 to 05:28" in said
    assert "none: not in this video" in words(plots.timeline(scene(answer=None)))


@pytest.mark.parametrize("span", [(0.0, 16.0), (584.0, 600.0), (0.0, 600.0)])
def test_the_lens_stays_inside_the_video(span: tuple[float, float]) -> None:
    start, end = scene(window=span).lens
    assert 0 <= start <= span[0] and span[1] <= end <= 600
    assert pixels(plots.timeline(scene(window=span))).shape == (720, 1600, 3)


def test_a_timeline_of_one_frame_and_no_memory_is_drawn() -> None:
    bare = scene(frames=[(10.0, RED_DOT)], memory={}, reasoning="", chapters=CHAPTERS[:1])
    assert "keys and values in memory" not in words(plots.timeline(bare))


def test_the_current_block_is_lit_and_an_unknown_one_refused() -> None:
    assert (pixels(plots.pipeline("reload")) != pixels(plots.pipeline("fine"))).any()
    assert "Where we are: coarse and window" in words(plots.pipeline(["coarse", "window"]))
    with pytest.raises(
        UserError, match="unknown block 'encoder': expected one of video, segments, frame encoder"
    ):
        plots.pipeline("encoder")


def test_arrows_join_blocks_that_exist() -> None:
    ends = {end.replace("_", " ") for pair in plots.ARROWS.split() for end in pair.split(">")}
    assert ends == set(plots.BLOCKS)


def test_systems_are_ranked_and_their_intervals_said() -> None:
    figure = plots.system_bars(METRICS)
    assert title(figure) == "two_stage@128 comes first: R1@0.5 0.60 [0.50, 0.70]"
    assert "two_stage@128 0.60 [0.50, 0.70]; uniform@128 0.10" in figure.alt_text
    assert "uniform@128 comes first" in title(plots.system_bars(METRICS, bucket="gt10min"))
    with pytest.raises(
        UserError, match="no system has all/miou; the results have all/r1@0.5, gt10min/r1@0.5"
    ):
        plots.system_bars(METRICS, "miou")
    with pytest.raises(UserError, match="the results have nothing"):
        plots.system_bars({})


def test_a_missing_chance_is_computed_not_typed() -> None:
    assert (
        title(plots.miss_chances(3600))
        == "64 frames spread over 60 minutes miss a 2 s event 96 times in 100"
    )
    assert title(plots.miss_chances(60, (2,))).endswith("0 times in 100")


def test_overlap_and_recall_are_those_of_the_metrics() -> None:
    assert {"tIoU 0.33", "tIoU 0.00"} <= set(words(DRAWINGS["interval_bars"]()))
    figure = plots.recall_curve({"a": [0.2, 0.6, 1.0]})
    assert title(figure) == "a: R1@0.5 = 0.67"
    x, y = figure.axes[0].lines[0].get_data()
    assert [y[np.searchsorted(x, m)] for m in (0.1, 0.3, 0.7)] == pytest.approx([1, 2 / 3, 1 / 3])


@pytest.mark.parametrize("bad", [{}, {"dense": 1.0}, {"attended": -1.0, "dense": 5.0}])
def test_memory_needs_a_counter_and_a_reference(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="needs a counter and, last, a reference"):
        plots.memory_bars(bad)


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (0, None, "0 B"),
        (1023, None, "1023 B"),
        (4096, None, "4.0 KiB"),
        (1044480, 2**24, "1.0 MiB"),
        (2**34, None, "16.0 GiB"),
        (2**44, None, "16384.0 GiB"),
    ],
)
def test_bytes_as_people_read_them(value: float, like: float | None, text: str) -> None:
    assert plots.short_bytes(value, like) == text


def test_times_are_rounded_to_whole_seconds() -> None:
    assert [plots.mm_ss(t) for t in (0.4, 59.6, 3599.5, 3723.2)] == [
        "00:00",
        "01:00",
        "1:00:00",
        "1:02:03",
    ]


def test_chapters_of_a_story_carry_its_places_and_their_colours() -> None:
    from timescope_lite.world.domain import load_domains
    from timescope_lite.world.story import tell

    story = tell(load_domains()["harbour"], 128, seed=1)
    chapters = plots.chapters_of(story)
    assert chapters[0][0] == 0 and chapters[-1][1] == 128 and len(chapters) == story.num_chapters
    assert all(a[1] == b[0] for a, b in zip(chapters, chapters[1:], strict=False))
    assert chapters[0][2] == story.domain.place(story.place[0])
    assert {mpl.colors.to_rgb(colour) for *_, colour in chapters} and all(
        colour.startswith("#") for *_, colour in chapters
    )


# --- showing and saving ---------------------------------------------------------------------------


def test_a_figure_is_saved_with_its_text_beside_it(tmp_path: Path) -> None:
    figure = DRAWINGS["memory_bars"]()
    path = plots.save(figure, tmp_path / "deep" / "memory")
    assert path.read_bytes() == figure.png() and path.name == "memory.png"
    assert (tmp_path / "deep" / "memory.alt.txt").read_text().strip() == figure.alt_text


def test_a_figure_without_alt_text_is_neither_shown_nor_saved(tmp_path: Path) -> None:
    figure = DRAWINGS["memory_bars"]()
    figure.alt_text = " "
    for attempt in (lambda: plots.save(figure, tmp_path / "memory"), lambda: plots.show(figure)):
        with pytest.raises(UserError, match="has no alt text"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_a_cell_shows_image_and_text_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown: list[tuple[dict[str, object], dict[str, object]]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, raw, metadata: shown.append((data, metadata))
    )
    figure = DRAWINGS["pipeline"]()
    plots.show(figure, tmp_path / "pipeline")
    figure._ipython_display_()  # a figure at the end of a cell
    assert len(shown) == 2 and shown[0] == shown[1]
    data, metadata = shown[0]
    assert (
        data["image/png"] == (tmp_path / "pipeline.png").read_bytes()
        and data["text/plain"] == figure.alt_text
    )
    assert json.dumps(metadata) == json.dumps({"image/png": {"alt": figure.alt_text}})
