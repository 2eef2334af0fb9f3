"""Every figure of the course: functions of plain data that return a `Picture`. No number is made
here, only drawn.

One style for all: Okabe-Ito colours, a title that says what was found, text that is legible on a
projector of 1280 x 720, alt text on each figure.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Polygon
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from numpy.typing import ArrayLike

from timescope_lite.common import UserError, atomic_path
from timescope_lite.intervals import clock, overlap_s, tiou
from timescope_lite.metrics import recall_at

if TYPE_CHECKING:
    from timescope_lite.world.story import Story

Seconds = tuple[float, float]
Chapter = tuple[float, float, str, str]  # start_s, end_s, name of the place, colour
Estimate = (
    Any  # value, low, high (None: no interval), as attributes or as the keys of a JSON object
)
P = ParamSpec("P")

# Okabe and Ito's palette: told apart by people with any of the common colour vision deficiencies.
BLACK, ORANGE, SKY, GREEN = "#1b1f24", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, RED, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY, PALE = "#6b737c", "#e9edf1"
TRUTH, ANSWER, HVR, DVR = GREEN, RED, BLUE, ORANGE  # one meaning per colour, everywhere
CYCLE = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, BLACK)
STYLE: dict[Any, Any] = {
    "font.size": 14,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "text.color": BLACK,
    "xtick.color": GREY,
    "ytick.color": BLACK,
    "lines.linewidth": 2.6,
    "legend.frameon": False,
    "hatch.color": GREY,
    "figure.dpi": 100,
}
# The blocks of the course: name -> centre on a grid of 8 x 3, in the order of the data.
BLOCKS = {
    "video": (0, 1),
    "segments": (1, 1),
    "frame encoder": (2, 1),
    "streaming decoder": (3, 1),
    "HVR": (4, 2),
    "DVR": (4, 0),
    "coarse": (5, 2),
    "window": (6, 2),
    "reload": (6, 0),
    "fine": (7, 1),
    "interval": (8, 1),
}
ARROWS = (
    "video>segments segments>frame_encoder frame_encoder>streaming_decoder streaming_decoder>HVR "
    "streaming_decoder>DVR "
    "HVR>coarse coarse>window window>reload DVR>reload HVR>fine reload>fine fine>interval"
)


class Picture(Figure):
    """A matplotlib figure with its alt text; a notebook shows it with that text."""

    alt_text: str = ""

    def _ipython_display_(self) -> None:
        show(self)

    def png(self) -> bytes:
        """The figure as a PNG file, the same bytes each time."""
        buffer = io.BytesIO()
        with _style():  # ticks are made while drawing
            FigureCanvasAgg(self).print_png(buffer, metadata={"Software": None})
        return buffer.getvalue()


def show(figure: Picture, path: Path | str | None = None) -> None:
    """Put a figure with its alt text into a cell's output; with `path` also save it there, the text
    beside it in .alt.txt.
    """
    from IPython.display import display

    if path is not None:
        save(figure, path)
    data = {"image/png": figure.png(), "text/plain": figure.alt_text}
    display(data, raw=True, metadata={"image/png": {"alt": _checked_alt(figure)}})  # type: ignore[no-untyped-call]


def save(figure: Picture, path: Path | str) -> Path:
    """Save a figure as PNG, atomically, and its alt text beside it in .alt.txt, where the report
    looks for it. Returns the path of the PNG.
    """
    path = Path(path).with_suffix(".png")
    with atomic_path(path.with_suffix(".alt.txt")) as temporary:
        temporary.write_text(_checked_alt(figure) + "\n", encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_bytes(figure.png())
    return path


def _checked_alt(figure: Picture) -> str:
    if not getattr(figure, "alt_text", "").strip():
        raise UserError(
            "this figure has no alt text: set figure.alt_text to one sentence that says what it "
            "shows"
        )
    return figure.alt_text.strip()


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def styled(draw: Callable[P, Picture]) -> Callable[P, Picture]:
    """Draw in the style of the course, whatever the notebook has set."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Picture:
        with _style():
            return draw(*args, **kwargs)

    return drawn


def _picture(title: str, alt: str, height: float = 4.5) -> tuple[Picture, Axes]:
    """A figure 12.8 inches wide with one axes under a title."""
    figure = Picture(figsize=(12.8, height), layout="constrained")
    figure.alt_text = alt
    axes = figure.subplots()
    figure.suptitle(textwrap.fill(title, 100), x=0.012, ha="left", fontsize=17, fontweight="bold")
    return figure, axes


def short_bytes(value: float, like: float | None = None) -> str:
    """Bytes as people read them, 4.0 KiB, 14.1 MiB; in the unit that fits `like` if given, so that
    bars side by side share theirs.
    """
    power = min(int(np.log2(max(like or value, 1)) // 10), 3)
    return f"{value / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def mm_ss(time_s: float) -> str:
    """A time without its tenths: 08:05, 1:02:03."""
    return clock(float(int(time_s + 0.5))).removesuffix(".0")


# --- the block diagram ----------------------------------------------------------------------------


@styled
def pipeline(current: str | Sequence[str] = (), title: str = "") -> Picture:
    """The course's block diagram with the `current` block or blocks lit. Raises UserError for a
    block that does not exist.
    """
    lit = [current] if isinstance(current, str) else list(current)
    unknown = [name for name in lit if name not in BLOCKS]
    if unknown:
        raise UserError(f"unknown block {unknown[0]!r}: expected one of {', '.join(BLOCKS)}")
    here = f"Where we are: {' and '.join(lit)}" if lit else "From a video and a task to an interval"
    figure, axes = _picture(
        title or here,
        f"Block diagram: {', '.join(BLOCKS)}. Lit: {', '.join(lit) or 'none'}.",
        height=3.7,
    )
    axes.set(xlim=(-0.55, 8.55), ylim=(-0.5, 2.95))
    axes.axis("off")
    for name in BLOCKS:
        _block(axes, name, name in lit)
    for pair in ARROWS.split():
        _connect(axes, *pair.replace("_", " ").split(">"))
    axes.text(
        5, 2.82, "task in words", ha="center", va="center", color=BLUE, fontsize=13, style="italic"
    )
    _arrow(
        axes, (5, 2.7), (5, 2.3), color=BLUE
    )  # the task is read twice: over the compressed memory, and over the mixed one
    _arrow(
        axes, (5.55, 2.82), (7, 1.3), color=BLUE, connectionstyle="angle,angleA=0,angleB=90,rad=12"
    )
    return figure


def _block(axes: Axes, name: str, lit: bool) -> None:
    (x, y), rounded = BLOCKS[name], "round,pad=0,rounding_size=0.1"
    colours: dict[str, Any] = (
        {"fc": ORANGE, "ec": BLACK, "lw": 2} if lit else {"fc": "white", "ec": GREY, "lw": 1.3}
    )
    axes.add_patch(FancyBboxPatch((x - 0.41, y - 0.3), 0.82, 0.6, boxstyle=rounded, **colours))
    weight = "bold" if lit else "normal"
    axes.text(
        x, y, name.replace(" ", "\n"), ha="center", va="center", fontweight=weight, linespacing=1.05
    )


def _connect(axes: Axes, source: str, target: str) -> None:
    (x0, y0), (x1, y1) = BLOCKS[source], BLOCKS[target]
    if (source, target) == (
        "HVR",
        "fine",
    ):  # the rest of the memory stays in view: its line runs under coarse and window
        _arrow(
            axes,
            (x0 + 0.3, y0 - 0.3),
            (x1 - 0.41, y1 + 0.05),
            connectionstyle="angle,angleA=-90,angleB=0,rad=12",
        )
    elif x0 == x1:
        _arrow(axes, (x0, y0 - 0.3), (x1, y1 + 0.3))
    else:
        _arrow(axes, (x0 + 0.41, y0), (x1 - 0.41, y1))


def _arrow(axes: Axes, start: Seconds, end: Seconds, color: str = GREY, **style: str) -> None:
    look = {"arrowstyle": "-|>", "color": color, "lw": 1.6, "shrinkA": 1, "shrinkB": 1} | style
    axes.annotate("", end, start, arrowprops=look)


# --- a whole video on one picture -----------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """What `timeline` draws; all times in seconds. `frames` are (time, pixels) in order; `memory`
    maps names to bytes, dense attention last.

    `answer` None: the model says that the evidence is not there; `window` None: nothing was
    reloaded. `slot_s` is the time that one HVR slot stands for.
    """

    duration_s: float
    chapters: Sequence[Chapter]
    frames: Sequence[tuple[float, np.ndarray]]
    task: str
    truth: Seconds
    answer: Seconds | None
    window: Seconds | None = None
    reasoning: str = ""
    memory: Mapping[str, float] = field(default_factory=dict)
    slot_s: float = 16.0

    @property
    def lens(self) -> Seconds:
        """What the lens shows: the window (else the answer, the truth) with some margin, kept
        inside the video.
        """
        start, end = self.window or self.answer or self.truth
        margin = max(2 * self.slot_s, (end - start) * 0.3)
        return max(0.0, start - margin), min(self.duration_s, end + margin)

    def finding(self) -> str:
        """What happened, in one sentence: found, or missed and at which stage."""
        length = "an hour" if self.duration_s == 3600 else f"{self.duration_s / 60:.0f} minutes"
        if self.answer is None:
            return f"In {length} of video the model says: the evidence is not there"
        score, truth = tiou(self.answer, self.truth), self.truth
        if score >= 0.5:
            share = (
                f", {(self.window[1] - self.window[0]) / self.duration_s:.1%} of the detail "
                "reopened"
                if self.window
                else ""
            )
            return (
                f"Found in {length} of video: {mm_ss(self.answer[0])} to "
                f"{mm_ss(self.answer[1])}{share}"
            ).replace("%", " %")
        if self.window and overlap_s(self.window, truth) < truth[1] - truth[0]:
            return f"Missed in {length} of video: the coarse window does not hold the truth"
        return (
            f"Missed in {length} of "
            f"video{', though the window holds the truth' if self.window else ''}: tIoU "
            f"{score:.2f}"
        )


def chapters_of(story: Story) -> list[Chapter]:
    """Chapters of a story as plain data for a Scene: start_s, end_s, name and colour of the
    place.
    """
    from timescope_lite.world.art import COLOUR_RGB

    names = [story.domain.place(place) for place in story.place]
    colours = ["#{:02x}{:02x}{:02x}".format(*COLOUR_RGB[name.split()[0]]) for name in names]
    return [
        (float(a), float(b), n, c)
        for a, b, n, c in zip(story.chapter_start, story.chapter_end, names, colours, strict=True)
    ]


@styled
def timeline(scene: Scene, title: str = "") -> Picture:
    """A whole video and one task on one picture, 1600 x 720: chapters and a few frames, the HVR as
    a comb, a lens on the window, the memory.
    """
    figure, found = Picture(figsize=(16, 7.2)), title or scene.finding()
    drawn = (
        f"A strip of {len(scene.chapters)} chapters, the compressed memory under it, and a lens on "
        f"{mm_ss(scene.lens[0])} to {mm_ss(scene.lens[1])}"
    )
    figure.alt_text = (
        f"{found}. Task: {scene.task} {drawn}; the truth is {mm_ss(scene.truth[0])} to "
        f"{mm_ss(scene.truth[1])}. {scene.reasoning}"
    )
    figure.text(0.03, 0.945, found, fontsize=24, fontweight="bold", va="center")
    figure.text(0.03, 0.89, f"Task: “{scene.task}”", fontsize=18, va="center", color=BLUE)
    if scene.reasoning:
        said = textwrap.shorten(f"Reasoning: {scene.reasoning}", 135, placeholder=" ...")
        figure.text(0.03, 0.022, said, fontsize=16, style="italic", va="center", color=GREY)
    strip = figure.add_axes((0.03, 0.505, 0.94, 0.125))
    zoom = figure.add_axes((0.09, 0.105, 0.555, 0.275))
    _strip(strip, scene)
    _thumbnails(figure, strip, scene)
    _zoom(zoom, scene)
    _beam(figure, strip, zoom, scene)
    if scene.memory:
        bars = figure.add_axes((0.785, 0.115, 0.185, 0.205))
        _byte_bars(bars, scene.memory, fontsize=15)
        bars.set_title("keys and values in memory", fontsize=16, pad=8, x=-0.64)
    return figure


def _strip(axes: Axes, scene: Scene) -> None:
    """Chapters above, the memory as a comb below: a tooth per HVR slot, solid where the detail came
    back.
    """
    axes.set(xlim=(0, scene.duration_s), ylim=(0, 1), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    for start, end, _, colour in scene.chapters:
        axes.axvspan(start, end, 0.46, 1, color=colour, lw=0)
        axes.axvline(start, 0.46, 1, color="white", lw=0.8)
    axes.vlines(
        np.arange(scene.slot_s / 2, scene.duration_s, scene.slot_s),
        0.05,
        0.37,
        color=HVR,
        lw=1.4,
        zorder=1,
    )
    if scene.window:
        axes.axvspan(*scene.window, 0.02, 0.4, color=DVR, lw=0, zorder=2)
        axes.axvspan(*scene.window, 0, 1, fill=False, ec=BLACK, lw=2.2, clip_on=False, zorder=4)
    for span, colour, y, marker in (
        (scene.truth, TRUTH, 1.12, "v"),
        (scene.answer, ANSWER, -0.11, "^"),
    ):
        if span:
            axes.plot(
                [sum(span) / 2],
                [y],
                marker,
                color=colour,
                ms=13,
                mec="white",
                clip_on=False,
                zorder=5,
            )
    axes.xaxis.set_major_locator(MultipleLocator(max(60, round(scene.duration_s / 360) * 60)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t / 60:.0f} min"))
    axes.tick_params(axis="x", length=0, pad=19, labelsize=13)


def _thumbnails(figure: Picture, strip: Axes, scene: Scene) -> None:
    """A row of frames above the strip, each with a line to its second."""
    box, height, n = strip.get_position(), 0.185, len(scene.frames)
    width = height * 7.2 / 16
    left = np.linspace(box.x0, box.x1 - width, n) if n > 1 else [0.5 - width / 2]
    for x, (time_s, pixels) in zip(left, scene.frames, strict=True):
        axes = figure.add_axes((x, 0.668, width, height), xticks=[], yticks=[])
        axes.imshow(pixels, interpolation="nearest")
        axes.spines[:].set(visible=True, color=GREY, lw=1)
        ends = [x + width / 2, box.x0 + box.width * time_s / scene.duration_s], [0.668, box.y1]
        figure.add_artist(Line2D(*ends, transform=figure.transFigure, color=GREY, lw=1.1))


def _beam(figure: Picture, strip: Axes, zoom: Axes, scene: Scene) -> None:
    """The light between the strip and the lens."""
    top, bottom = strip.get_position(), zoom.get_position()
    a, b = (top.x0 + top.width * t / scene.duration_s for t in scene.lens)
    corners = [(a, top.y0), (b, top.y0), (bottom.x1, bottom.y1), (bottom.x0, bottom.y1)]
    figure.add_artist(
        Polygon(corners, closed=True, transform=figure.transFigure, fc=PALE, ec="none", zorder=-2)
    )


def _zoom(axes: Axes, scene: Scene) -> None:
    """The lens: places by name, memory slot by slot (frame by frame where reloaded), answer and
    truth as bars.
    """
    lens = scene.lens
    axes.set(
        xlim=lens,
        ylim=(0, 4),
        yticks=[3.55, 2.5, 1.5, 0.55],
        yticklabels=["place", "memory", "answer", "truth"],
        facecolor=PALE,
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0, labelsize=16)
    for label, colour in zip(axes.get_yticklabels(), (BLACK, BLACK, ANSWER, TRUTH), strict=True):
        label.set_color(colour)
    for start, end, name, colour in scene.chapters:
        if start < lens[1] and end > lens[0]:
            _place(axes, (max(start, lens[0]), min(end, lens[1])), name, colour, lens)
    _memory_row(axes, scene)
    _span_bar(axes, scene.answer, ANSWER, 1.5, lens)
    _span_bar(axes, scene.truth, TRUTH, 0.55, lens)
    axes.xaxis.set_major_locator(MultipleLocator(16 * max(1, round((lens[1] - lens[0]) / 96))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: mm_ss(t)))
    axes.tick_params(axis="x", color=GREY, labelsize=13)


def _place(axes: Axes, span: Seconds, name: str, colour: str, lens: Seconds) -> None:
    axes.axvspan(*span, 3.1 / 4, 1, color=colour, lw=0)
    axes.axvline(span[0], 3.1 / 4, 1, color="white", lw=1.5)
    if (span[1] - span[0]) / (lens[1] - lens[0]) > 0.011 * len(name):
        light = np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) > 0.55
        axes.text(
            sum(span) / 2,
            3.55,
            name,
            ha="center",
            va="center",
            fontsize=15,
            color=BLACK if light else "white",
        )


def _memory_row(axes: Axes, scene: Scene) -> None:
    """A block per HVR slot; in the window a tooth per frame."""
    slot, (start, end) = scene.slot_s, scene.lens
    axes.barh(
        2.5,
        slot * 0.84,
        left=np.arange(start // slot * slot, end, slot) + slot * 0.08,
        height=0.7,
        color=HVR,
    )
    if scene.window is None:
        return
    first, last = scene.window
    axes.barh(2.5, last - first, left=first, height=0.8, color=PALE)
    axes.barh(2.5, 0.6, left=np.arange(first, last) + 0.2, height=0.7, color=DVR, snap=False)
    axes.axvspan(first, last, fill=False, ec=BLACK, lw=2.2, zorder=4, clip_on=False)
    box = {"fc": "white", "ec": "none", "pad": 3}
    axes.text(
        (first + last) / 2, 2.5, "DVR, every frame", ha="center", va="center", bbox=box, zorder=6
    )
    if slot > 0.05 * (end - start):
        axes.text(
            first - slot / 2 if first - start >= slot else last + slot / 2,
            2.5,
            "HVR",
            ha="center",
            va="center",
            color="white",
        )


def _span_bar(axes: Axes, span: Seconds | None, colour: str, y: float, lens: Seconds) -> None:
    """An interval as a bar with its times; one outside of the lens, or none at all, is said in
    words.
    """
    if span is None or overlap_s(span, lens) == 0:
        said = (
            "none: not in this video"
            if span is None
            else f"{mm_ss(span[0])} to {mm_ss(span[1])}, outside this lens"
        )
        axes.text(
            sum(lens) / 2, y, said, ha="center", va="center", fontsize=15, color=colour, zorder=6
        )
        return
    left, right = max(span[0], lens[0]), min(span[1], lens[1])
    axes.barh(y, right - left, left=left, height=0.62, color=colour, zorder=5)
    after = lens[1] - right > left - lens[0]
    place: dict[str, Any] = {
        "xy": (right if after else left, y),
        "xytext": (8 if after else -8, 0),
        "ha": "left" if after else "right",
    }
    axes.annotate(
        f"{mm_ss(span[0])} to {mm_ss(span[1])}",
        textcoords="offset points",
        va="center",
        fontsize=16,
        zorder=6,
        **place,
    )


@styled
def two_stages(
    scene: Scene,
    coarse: Seconds,
    over_hvr: Mapping[str, ArrayLike],
    in_window: Mapping[str, ArrayLike],
    segment_s: float = 16.0,
    title: str = "",
) -> Picture:
    """One question through both stages on one clock, 900 x 960 for two side by side: how sure the
    coarse stage is, the memory, the lens, the fine stage.

    `coarse` is the window in seconds as the coarse stage wrote it; `over_hvr` the probability per
    segment of `segment_s` of its first and last second, `in_window` the same per second of the fine
    stage. Raises UserError if the lengths do not fit the video.
    """
    lengths = [
        len(np.asarray(p)) * width
        for named, width in ((over_hvr, segment_s), (in_window, 1.0))
        for p in named.values()
    ]
    if any(not 0 <= length - scene.duration_s < segment_s for length in lengths):
        raise UserError(
            f"two_stages needs a probability for every segment of {segment_s:g} s and every second "
            f"of {scene.duration_s:g}"
        )
    figure, found = Picture(figsize=(9, 9.6)), title or scene.finding()
    figure.alt_text = (
        f"{found}. Task: {scene.task} Coarse window {mm_ss(coarse[0])} to {mm_ss(coarse[1])}, "
        "reloaded "
        f"{' to '.join(map(mm_ss, scene.window)) if scene.window else 'nothing'}, answer "
        f"{' to '.join(map(mm_ss, scene.answer)) if scene.answer else 'none'}, truth "
        f"{mm_ss(scene.truth[0])} to {mm_ss(scene.truth[1])}. {scene.reasoning}"
    )
    figure.text(0.02, 0.985, textwrap.fill(found, 64), fontsize=17, fontweight="bold", va="top")
    figure.text(
        0.02, 0.922, textwrap.fill(f"Task: “{scene.task}”", 78), fontsize=14, va="top", color=BLUE
    )
    boxes = ((0.755, 0.085), (0.6, 0.09), (0.415, 0.08), (0.205, 0.2))
    sure, strip, sharp, zoom = (
        figure.add_axes((0.13, bottom, 0.82, height)) for bottom, height in boxes
    )
    sure.axvspan(*coarse, color=HVR, alpha=0.25, lw=0)
    _sureness(sure, over_hvr, segment_s, (0, scene.duration_s), "coarse")
    sure.legend(loc="lower right", ncols=2, fontsize=13, borderaxespad=0.1, bbox_to_anchor=(1, 1))
    sure.set_title(
        "probability of a segment (below: of a second) to be",
        fontsize=13,
        fontweight="normal",
        color=GREY,
    )
    numbers = np.arange(0, lengths[0] // segment_s, max(1, lengths[0] // segment_s // 8))
    sure.set_xticks(
        (numbers + 0.5) * segment_s,
        [f"segment {n:.0f}" if n == 0 else f"{n:.0f}" for n in numbers],
        fontsize=13,
    )
    _strip(strip, scene)
    sharp.set_facecolor(PALE)
    _sureness(sharp, in_window, 1.0, scene.lens, "fine")
    _zoom(zoom, scene)
    _beam(figure, strip, sharp, scene)
    if scene.memory:
        _byte_bars(figure.add_axes((0.34, 0.02, 0.56, 0.11)), scene.memory, fontsize=14)
    return figure


def _sureness(
    axes: Axes, by_name: Mapping[str, ArrayLike], width_s: float, span: Seconds, label: str
) -> None:
    """Probabilities as filled steps of `width_s` seconds, one colour per name, over the seconds of
    `span`.
    """
    for (name, p), colour in zip(by_name.items(), (BLUE, PURPLE), strict=False):
        axes.stairs(
            np.asarray(p, dtype=float),
            np.arange(len(np.asarray(p)) + 1) * width_s,
            fill=True,
            color=colour,
            alpha=0.75,
            label=name,
        )
    axes.set(xlim=span, ylim=(0, 1.02), xticks=[], yticks=[0, 1])
    axes.set_ylabel(label, fontsize=14, rotation=0, ha="right", va="center", labelpad=12)
    axes.tick_params(axis="y", labelsize=13)


@styled
def film(
    frames: Sequence[tuple[float, np.ndarray]], captions: Sequence[str] = (), title: str = ""
) -> Picture:
    """A few frames (time_s, pixels) side by side, each with its time and a caption."""
    said = [
        f"{mm_ss(time_s)}  {caption}".strip()
        for (time_s, _), caption in zip(frames, captions or [""] * len(frames), strict=True)
    ]
    figure = Picture(figsize=(12.8, 4.1 if title else 3.7), layout="constrained")
    figure.alt_text = f"{title or 'Frames of the video'}: {'; '.join(said)}."
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=17, fontweight="bold")
    for axes, (_, pixels), text in zip(
        figure.subplots(1, len(frames), squeeze=False)[0], frames, said, strict=True
    ):
        axes.imshow(pixels, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(textwrap.fill(text, 108 // len(frames)), fontsize=14)
        axes.spines[:].set(visible=True, color=GREY)
    return figure


@styled
def contact_sheet(
    frames: Sequence[tuple[float, np.ndarray]],
    captions: Sequence[str],
    columns: int = 4,
    title: str = "",
) -> Picture:
    """Frames (time_s, pixels) in rows, each with its time and a caption. UserError where there is
    no frame.
    """
    if not frames:
        raise UserError("a contact sheet needs at least one frame")
    rows = -(-len(frames) // columns)
    figure = Picture(figsize=(12.8, 0.6 + 3.6 * rows), layout="constrained")
    said = [
        f"{mm_ss(time_s)}  {caption}" for (time_s, _), caption in zip(frames, captions, strict=True)
    ]
    figure.alt_text = f"{title or 'Contact sheet'}. {'; '.join(said)}."
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=17, fontweight="bold")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid[len(frames) :]:
        axes.set_axis_off()
    for axes, (_, pixels), text in zip(grid, frames, said, strict=False):
        axes.imshow(pixels, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(textwrap.fill(text, 100 // columns), fontsize=12)
        axes.spines[:].set(visible=True, color=GREY)
    return figure


# --- memory and systems ---------------------------------------------------------------------------


def _byte_bars(axes: Axes, values: Mapping[str, float], fontsize: float) -> None:
    """Horizontal bars of bytes, the last one (what dense attention would hold) hatched as a
    reference.
    """
    names, sizes = list(values), list(values.values())
    bars = axes.barh(
        range(len(names)),
        sizes,
        color=[*(DVR, HVR, SKY, PURPLE)[: len(names) - 1], PALE],
        height=0.66,
    )
    bars[-1].set(hatch="//", edgecolor=GREY)
    axes.set(yticks=range(len(names)), xticks=[], xlim=(0, max(sizes) * 1.32))
    axes.set_yticklabels(names, fontsize=fontsize)
    axes.invert_yaxis()
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.bar_label(
        bars, [short_bytes(size, like=max(sizes)) for size in sizes], padding=6, fontsize=fontsize
    )


@styled
def memory_bars(values: Mapping[str, float], title: str = "") -> Picture:
    """Bytes per named counter as bars; the last one is the reference (what dense attention would
    hold). Raises UserError with fewer than two.
    """
    if len(values) < 2 or min(values.values()) < 0:
        raise UserError(
            "memory_bars needs a counter and, last, a reference, all in bytes and none negative; "
            f"got {dict(values)}"
        )
    first, *_, dense = values.values()
    said = title or (
        f"Attention reads {short_bytes(first, dense)} at its peak where dense attention would "
        f"read {short_bytes(dense)}"
    )
    listed = "; ".join(f"{name} {short_bytes(size)}" for name, size in values.items())
    figure, axes = _picture(said, f"Bars of memory: {listed}.", height=1.5 + 0.62 * len(values))
    _byte_bars(axes, values, fontsize=15)
    return figure


def _estimate(entry: Estimate) -> tuple[float, float | None, float | None]:
    part = entry if isinstance(entry, Mapping) else vars(entry)
    return float(part["value"]), part["low"], part["high"]


def _said(entry: Estimate) -> str:
    value, low, high = _estimate(entry)
    return f"{value:.2f}" if low is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


@styled
def system_bars(
    metrics: Mapping[str, Estimate],
    metric: str = "r1@0.5",
    bucket: str = "all",
    ours: str = "two_stage",
    title: str = "",
) -> Picture:
    """One bar per system with its 95 % interval, from the `metrics` map of a result file
    ("system/bucket/metric" -> value, low, high, n).

    The system called `ours` is lit, at every budget. Raises UserError if no system has that metric
    in that bucket.
    """
    chosen = {
        key.split("/")[0]: entry
        for key, entry in metrics.items()
        if key.split("/")[1:] == [bucket, metric]
    }
    if not chosen:
        there = sorted({"/".join(key.split("/")[1:]) for key in metrics})
        raise UserError(
            f"no system has {bucket}/{metric}; the results have {', '.join(there[:6]) or 'nothing'}"
        )
    ranked = sorted(chosen, key=lambda name: -_estimate(chosen[name])[0])
    label = metric.upper() if metric.startswith("r1@") else metric
    said = title or f"{ranked[0]} comes first: {label} {_said(chosen[ranked[0]])}"
    listed = "; ".join(f"{name} {_said(chosen[name])}" for name in ranked)
    figure, axes = _picture(
        said,
        f"Bars of {label} in bucket {bucket}, best first: {listed}.",
        height=1.9 + 0.5 * len(ranked),
    )
    for y, name in enumerate(ranked):
        value, low, high = _estimate(chosen[name])
        axes.barh(
            y, value, color=ORANGE if name.split("@")[0] == ours else SKY, height=0.62, zorder=2
        )
        axes.plot(
            [low, high], [y, y], color=BLACK, lw=2.4, solid_capstyle="butt", zorder=3
        ) if low is not None and high is not None else None
        axes.annotate(
            _said(chosen[name]),
            (high or value, y),
            (8, 0),
            textcoords="offset points",
            va="center",
            fontsize=13,
        )
    axes.set(
        yticks=range(len(ranked)),
        yticklabels=ranked,
        xlim=(0, 1.0),
        xlabel=f"{label}; line: 95 % interval over videos",
    )
    axes.invert_yaxis()
    axes.grid(axis="x", color=PALE, zorder=0)
    return figure


# --- sampling, intervals, recall ------------------------------------------------------------------


@styled
def miss_chances(
    duration_s: float,
    events_s: Sequence[float] = (2, 10, 30),
    measured: Mapping[float, Mapping[int, float]] | None = None,
    title: str = "",
) -> Picture:
    """The chance that n evenly spaced frames of a video all miss an event, against n, one line per
    event length in seconds.

    The line is 1 - n * event / duration, not below 0; `measured` maps an event length to {n:
    measured chance}, drawn as dots.
    """
    missed = max(0.0, 1 - 64 * min(events_s) / duration_s)
    said = title or (
        f"64 frames spread over {duration_s / 60:.0f} minutes miss a {min(events_s):g} s event "
        f"{100 * missed:.0f} times in 100"
    )
    lengths = ", ".join(f"{event_s:g} s" for event_s in events_s)
    figure, axes = _picture(
        said,
        f"{said}. Curves of the chance to miss, falling with the number of frames, for events of "
        f"{lengths}.",
    )
    n = np.unique(np.geomspace(4, 4096, 200).round())
    for event_s, colour in zip(events_s, CYCLE, strict=False):
        axes.plot(
            n,
            np.maximum(0, 1 - n * event_s / duration_s),
            color=colour,
            label=f"event of {event_s:g} s",
        )
        for frames, chance in (measured or {}).get(event_s, {}).items():
            axes.plot(frames, chance, "o", color=colour, ms=10, mec="white")
    axes.set(
        xscale="log", ylim=(-0.03, 1.05), xlabel="frames sampled evenly", ylabel="chance to miss"
    )
    axes.set_xticks([2**k for k in range(2, 13)], [str(2**k) for k in range(2, 13)])
    axes.minorticks_off()
    axes.grid(color=PALE)
    axes.legend(loc="lower left")
    return figure


@styled
def interval_bars(
    pairs: Sequence[tuple[Seconds, Seconds]], labels: Sequence[str], title: str = ""
) -> Picture:
    """Pairs (answer, truth) of intervals in seconds as bars under each other, their overlap shaded,
    their tIoU beside them.
    """
    scores = [tiou(answer, truth) for answer, truth in pairs]
    said = (
        title
        or f"tIoU from {min(scores):.2f} to {max(scores):.2f}: shared seconds over covered seconds"
    )
    rows = zip(labels, pairs, scores, strict=True)
    listed = "; ".join(
        f"{label}: answer {a[0]:g} to {a[1]:g} s, truth {t[0]:g} to {t[1]:g} s, tIoU {s:.2f}"
        for label, (a, t), s in rows
    )
    figure, axes = _picture(said, f"Bars of intervals. {listed}.", height=1.9 + 0.85 * len(pairs))
    for y, ((answer, truth), score) in enumerate(zip(pairs, scores, strict=True)):
        shared = max(answer[0], truth[0]), min(answer[1], truth[1])
        if shared[0] < shared[1]:
            axes.barh(
                y, shared[1] - shared[0], left=shared[0], height=0.76, color=YELLOW, alpha=0.55
            )
        for span, colour, name, dy in (
            (truth, TRUTH, "truth", -0.17),
            (answer, ANSWER, "answer", 0.17),
        ):
            axes.barh(
                y + dy,
                span[1] - span[0],
                left=span[0],
                height=0.28,
                color=colour,
                label=name if y == 0 else None,
            )
        axes.text(
            1.01,
            y,
            f"tIoU {score:.2f}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=15,
            fontweight="bold",
        )
    axes.set(yticks=range(len(pairs)), yticklabels=labels, xlabel="seconds")
    axes.invert_yaxis()
    figure.legend(loc="outside lower right", ncols=2)
    return figure


@styled
def recall_curve(ious_by_name: Mapping[str, ArrayLike], title: str = "") -> Picture:
    """R1@m against the threshold m as steps, one line per system, from the tIoU of each question
    (0..1).
    """
    said = "; ".join(
        f"{name}: R1@0.5 = {recall_at(ious, 0.5):.2f}" for name, ious in ious_by_name.items()
    )
    figure, axes = _picture(title or said, f"Steps of R1@m falling with the threshold m. {said}.")
    thresholds = np.linspace(0, 1, 501)
    for (name, ious), colour in zip(ious_by_name.items(), CYCLE, strict=False):
        axes.step(
            thresholds,
            [recall_at(ious, float(m)) for m in thresholds],
            where="post",
            color=colour,
            label=name,
        )
        axes.plot(0.5, recall_at(ious, 0.5), "o", color=colour, ms=10, mec="white", zorder=4)
    for m in (0.3, 0.5, 0.7):
        axes.axvline(m, color=GREY, ls=":", lw=1.5, zorder=0)
    axes.set(xlim=(0, 1), ylim=(0, 1.03), xlabel="threshold m on tIoU", ylabel="R1@m")
    axes.legend(loc="upper right")
    return figure


@styled
def estimate_ladder(
    estimates_by_name: Mapping[str, Estimate],
    title: str = "",
    xlabel: str = "value with 95 % interval",
    zero: bool = False,
) -> Picture:
    """Estimates under each other: a dot with its interval (objects or JSON with value, low, high;
    no interval where low is None).
    """
    names = list(estimates_by_name)
    listed = "; ".join(f"{name} {_said(entry)}" for name, entry in estimates_by_name.items())
    figure, axes = _picture(
        title or listed, f"Dots with intervals. {listed}.", height=1.7 + 0.6 * len(names)
    )
    for y, entry in enumerate(estimates_by_name.values()):
        value, low, high = _estimate(entry)
        colour = CYCLE[y % len(CYCLE)]
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=colour, lw=5, solid_capstyle="round", alpha=0.55)
        axes.plot(value, y, "o", color=colour, ms=12, mec="white", zorder=4)
        axes.annotate(
            _said(entry), (value, y), (0, 13), textcoords="offset points", ha="center", fontsize=13
        )
    axes.set(
        yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.7), xlabel=xlabel
    )
    axes.margins(x=0.12)
    axes.grid(axis="x", color=PALE)
    if zero:
        axes.axvline(0, color=BLACK, lw=1.5, ls=":")
    return figure


@styled
def reliability_diagram(bins_by_name: Mapping[str, Sequence[Any]], title: str = "") -> Picture:
    """Confidence against what came true, a line per name; on the dotted diagonal a model keeps its
    word. Each dot says how many answers it stands for.

    `bins_by_name` maps a name to bins with confidence, came_true (both 0..1) and n, as
    `metrics.reliability` gives them.
    """
    listed = "; ".join(
        f"{name}: "
        + ", ".join(f"said {b.confidence:.2f}, came true {b.came_true:.2f} of {b.n}" for b in bins)
        for name, bins in bins_by_name.items()
    )
    said = title or f"Confidence against what came true: {', '.join(bins_by_name)}"
    figure, axes = _picture(
        said,
        f"{said}. Dots of the share that came true over confidence, beside a diagonal. {listed}.",
        height=5.6,
    )
    axes.plot([0, 1], [0, 1], color=GREY, ls=":", lw=2)
    axes.annotate("as often as said", (0.1, 0.1), (12, -14), textcoords="offset points", color=GREY)
    for number, ((name, bins), colour) in enumerate(zip(bins_by_name.items(), CYCLE, strict=False)):
        axes.plot(
            [b.confidence for b in bins],
            [b.came_true for b in bins],
            "o-",
            color=colour,
            ms=11,
            mec="white",
            label=name,
        )
        for b in bins:
            below = number % 2 == 1
            axes.annotate(
                f"{b.n}",
                (b.confidence, b.came_true),
                (0, -20 if below else 11),
                textcoords="offset points",
                ha="center",
                color=colour,
            )
    axes.set(
        xlim=(-0.02, 1.04),
        ylim=(-0.1, 1.12),
        xlabel="confidence (numbers: how many answers)",
        ylabel="came true",
    )
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(color=PALE)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


# --- who reads whom -------------------------------------------------------------------------------


@styled
def attention_maps(
    maps: Mapping[str, ArrayLike], slots: int, n: int, row: int | None = None, title: str = ""
) -> Picture:
    """What every token reads, one panel per name: masks or weights (N, P + N) over [HVR slots ;
    tokens], with `slots` and `n` of each per segment.

    The stronger the colour the larger the weight (its square root); `row` lights one token's row.
    Raises UserError for a shape that does not fit.
    """
    columns = min(2, len(maps))
    size = (12.8, 1.2 + 3.0 * -(-len(maps) // columns)) if len(maps) > 1 else (12.8, 5.6)
    figure = Picture(figsize=size, layout="constrained")
    panels = f"Panels: {'; '.join(maps)}. " if len(maps) > 1 else ""
    figure.alt_text = (
        f"{title or 'What every token reads'}. {panels}Rows are tokens; columns are HVR slots, "
        "then tokens."
    )
    figure.suptitle(
        textwrap.fill(title or "What every token reads", 100),
        x=0.012,
        ha="left",
        fontsize=17,
        fontweight="bold",
    )
    grid = figure.subplots(-(-len(maps) // columns), columns, squeeze=False).flatten()
    for axes in grid[len(maps) :]:
        axes.axis("off")
    for axes, (name, weights) in zip(grid, maps.items(), strict=False):
        _attention_map(
            axes, name if len(maps) > 1 else "", np.asarray(weights, dtype=float), slots, n, row
        )
    return figure


def _attention_map(
    axes: Axes, name: str, weights: np.ndarray, slots: int, n: int, row: int | None
) -> None:
    N, P, segments = len(weights), slots * (len(weights) // n), len(weights) // n
    if weights.shape != (segments * n, P + N):
        raise UserError(
            f"an attention map of shape {weights.shape} does not fit {n} tokens and {slots} HVR "
            "slots per segment"
        )
    colour = np.array([to_rgb(HVR)] * P + [to_rgb(DVR)] * N)
    strength = np.sqrt(weights / max(weights.max(), 1e-12))[..., None]
    if row is not None:
        strength[np.arange(N) != row] *= 0.3
    axes.imshow(1 - strength * (1 - colour), interpolation="nearest", aspect="auto")
    borders = [slots * i for i in range(1, segments)] + [P + n * i for i in range(1, segments)]
    axes.vlines(np.array(borders) - 0.5, -0.5, N - 0.5, color=GREY, lw=0.8)
    axes.hlines(np.arange(1, segments) * n - 0.5, -0.5, P + N - 0.5, color=GREY, lw=0.8)
    axes.axvline(P - 0.5, color=BLACK, lw=2.5)
    if row is not None:  # the other rows fade; a frame around a row three pixels high would hide it
        axes.plot(
            [-0.5, P + N - 0.5],
            [row, row],
            ls="",
            marker="D",
            ms=8,
            color=BLACK,
            clip_on=False,
            zorder=5,
        )
    centres = [slots * (i + 0.5) - 0.5 for i in range(segments)] + [
        P + n * (i + 0.5) - 0.5 for i in range(segments)
    ]
    axes.set(
        title=name,
        yticks=[n * (i + 0.5) - 0.5 for i in range(segments)],
        yticklabels=range(segments),
        ylabel="token of segment",
    )
    axes.set_xticks(centres, [*range(segments), *range(segments)])
    axes.set_xlabel("HVR of segment", x=P / (P + N) / 2, color=HVR)
    axes.annotate(
        "token of segment",
        (P + N / 2 - 0.5, 0),
        (0, -25),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="top",
        color=RED,
    )
    axes.tick_params(length=0)
    axes.spines[:].set(visible=True, color=GREY)


@styled
def growth(
    x: ArrayLike, curves: Mapping[str, ArrayLike], xlabel: str, ylabel: str, title: str
) -> Picture:
    """Curves over the same x, each named at its end; the vertical axis begins at 0, or below where
    a curve does.
    """
    figure, axes = _picture(title, f"{title}. Curves of {ylabel} over {xlabel}: ", height=4.8)
    at = np.asarray(x, dtype=float)
    drawn = {name: np.asarray(values, dtype=float) for name, values in curves.items()}
    figure.alt_text += (
        "; ".join(f"{name} from {y[0]:.4g} to {y[-1]:.4g}" for name, y in drawn.items()) + "."
    )
    top = max(float(y.max()) for y in drawn.values()) or 1.0
    level = float("inf")
    for (name, y), colour in sorted(
        zip(drawn.items(), CYCLE, strict=False), key=lambda entry: -entry[0][1][-1]
    ):
        axes.plot(at, y, color=colour, marker="o" if len(at) <= 24 else "", ms=6)
        level = min(float(y[-1]), level - 0.075 * top)  # names do not lie on each other
        axes.annotate(
            name,
            (at[-1], level),
            (10, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold",
        )
    lowest = min(0.0, level, *(float(y.min()) for y in drawn.values()))
    axes.set(
        xlabel=xlabel,
        ylabel=ylabel,
        ylim=(lowest - 0.04 * top, 1.08 * top),
        xlim=(at[0], at[-1] + 0.22 * (at[-1] - at[0])),
    )
    axes.set_xticks(
        [
            tick
            for tick in MaxNLocator(integer=True).tick_values(at[0], at[-1])
            if at[0] <= tick <= at[-1]
        ]
    )
    axes.grid(color=PALE)
    return figure


@styled
def budget_lines(
    read: Mapping[str, ArrayLike], budgets: Sequence[float], title: str = ""
) -> Picture:
    """Frames' worth that attention reads against the number of reloaded segments, a line per name;
    a dot where each meets a budget (dotted).

    `read` maps a name to the frames for 0, 1, 2, ... reloaded segments.
    """
    lines = {name: np.asarray(frames, dtype=float) for name, frames in read.items()}
    fits = {
        (name, b): int(np.flatnonzero(y <= b)[-1])
        for name, y in lines.items()
        for b in budgets
        if y[0] <= b
    }
    said = "; ".join(f"{name}: {n} segments within {b:g} frames" for (name, b), n in fits.items())
    longest = max(map(len, lines.values()))
    figure, axes = _picture(
        title or said,
        f"{title or said}. Lines that rise with every reloaded segment. {said}.",
        height=4.8,
    )
    for b in budgets:
        axes.plot([0, longest], [b, b], color=GREY, ls=":", lw=2)
        axes.annotate(
            f"budget {b:g}",
            (longest, b),
            (8, 0),
            textcoords="offset points",
            va="center",
            color=GREY,
        )
    for (name, y), colour in zip(lines.items(), CYCLE, strict=False):
        axes.plot(y, color=colour, label=name)
        for b in budgets:
            if (name, b) in fits:
                axes.plot(
                    fits[name, b], y[fits[name, b]], "o", color=colour, ms=11, mec="white", zorder=4
                )
                axes.annotate(
                    f"{fits[name, b]}",
                    (fits[name, b], y[fits[name, b]]),
                    (0, 9),
                    textcoords="offset points",
                    ha="center",
                )
    axes.set(
        xlabel="segments reloaded",
        ylabel="frames' worth read",
        xlim=(-0.4, longest * 1.12),
        ylim=(0, None),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=PALE)
    axes.legend(loc="upper left", ncols=len(lines))
    return figure


# --- what pooling keeps ---------------------------------------------------------------------------


@styled
def retrieval_heatmap(
    found: Mapping[str, Mapping[int, Estimate]],
    chance: Mapping[str, Mapping[int, float]],
    title: str = "",
) -> Picture:
    """How often a cue is found, cue by r, as a heatmap: in each cell the share with its 95 %
    interval, and that of a slot drawn blindly.

    `found` and `chance` map a cue to {r: share}; every cue has the same r. Raises UserError if they
    do not.
    """
    cues, ratios = list(found), list(next(iter(found.values()), {}))
    if not ratios or any(
        list(row) != ratios for row in (*found.values(), *(chance.get(cue, {}) for cue in cues))
    ):
        raise UserError(
            "retrieval_heatmap: every cue needs a share and a chance for the same r; give found "
            "and chance alike"
        )
    shares = np.array([[_estimate(found[cue][r])[0] for r in ratios] for cue in cues])
    listed = "; ".join(
        f"{cue}: "
        + ", ".join(f"r = {r} {_said(found[cue][r])}, blindly {chance[cue][r]:.2f}" for r in ratios)
        for cue in cues
    )
    said = title or f"From {shares.min():.2f} to {shares.max():.2f} of the cues are found"
    figure, axes = _picture(
        said,
        f"Heatmap of the share of cues found, cue by r. {listed}.",
        height=2.0 + 1.0 * len(cues),
    )
    shades = LinearSegmentedColormap.from_list("share", [PALE, HVR])
    lowest = max(
        0.0, float(shares.min()) - 0.2
    )  # from there, so that rows which differ look different
    axes.imshow(shares, cmap=shades, vmin=lowest, vmax=1, aspect="auto")
    for (y, x), share in np.ndenumerate(shares):
        value, low, high = _estimate(found[cues[y]][ratios[x]])
        interval = "" if low is None or high is None else f"\n[{low:.2f}, {high:.2f}]"
        text = f"{value:.2f}{interval}\nblindly {chance[cues[y]][ratios[x]]:.2f}"
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=13,
            color="white" if share > 1 - 0.2 * (1 - lowest) else BLACK,
        )
    axes.set(
        xticks=range(len(ratios)),
        xticklabels=[f"r = {r}" for r in ratios],
        yticks=range(len(cues)),
        yticklabels=cues,
    )
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def kept_lengths(
    curves: Mapping[int, tuple[ArrayLike, ArrayLike]],
    dots: Mapping[int, tuple[ArrayLike, ArrayLike]],
    title: str = "",
) -> Picture:
    """The length that averaging r turning vectors keeps, against their frequency in radians per
    frame: a line per r, dots where it was measured.

    `curves` and `dots` map r to (frequencies, lengths 0..1).
    """
    at_dots = "; ".join(
        f"r = {r}: "
        + ", ".join(
            f"{w:.3g} keeps {kept:.2f}" for w, kept in zip(*map(np.asarray, xy), strict=True)
        )
        for r, xy in dots.items()
    )
    said = title or (
        "The larger r, the slower a vector must turn to survive its average: r = "
        f"{', '.join(map(str, curves))}"
    )
    figure, axes = _picture(
        said,
        f"{said}. Lines that fall with the frequency, in radians per frame. Measured: "
        f"{at_dots or 'nothing'}.",
    )
    for (r, (frequency, kept)), colour in zip(curves.items(), CYCLE, strict=False):
        axes.plot(frequency, kept, color=colour, label=f"r = {r}")
        if r in dots:
            axes.plot(*dots[r], "o", color=colour, ms=9, mec="white", zorder=4)
    axes.set(
        xscale="log",
        ylim=(-0.03, 1.05),
        xlabel="frequency, radians per frame (dots: measured)",
        ylabel="length kept",
    )
    axes.grid(color=PALE)
    axes.legend(loc="lower left")
    return figure


# --- stories --------------------------------------------------------------------------------------


@styled
def lanes(
    rows: Mapping[str, Sequence[Chapter]], title: str = "", marked: Sequence[Seconds] = ()
) -> Picture:
    """Lanes of labelled bars (start_s, end_s, text, colour) under each other on one clock; `marked`
    spans of seconds are framed in all lanes.
    """
    ends = [bar[1] for bars in rows.values() for bar in bars]
    if not ends:
        raise UserError("lanes needs at least one bar (start_s, end_s, text, colour)")
    listed = "; ".join(f"{name}: {len(bars)} bars" for name, bars in rows.items())
    figure, axes = _picture(
        title or f"What happens in {mm_ss(max(ends))}",
        f"{title or mm_ss(max(ends))}: lanes over time. {listed}.",
        1.6 + 0.62 * len(rows),
    )
    for y, bars in enumerate(rows.values()):
        for start, end, text, colour in bars:
            axes.barh(y, end - start, left=start, height=0.74, color=colour, ec="white", lw=1)
            if (end - start) / max(ends) > 0.0088 * len(text):
                light = np.dot(to_rgb(colour), (0.3, 0.59, 0.11)) > 0.55
                axes.text(
                    (start + end) / 2,
                    y,
                    text,
                    ha="center",
                    va="center",
                    fontsize=12,
                    color=BLACK if light else "white",
                )
    for span in marked:
        axes.axvspan(*span, fill=False, ec=BLACK, lw=2.2, zorder=4)
    axes.set(
        yticks=range(len(rows)),
        yticklabels=list(rows),
        xlim=(0, max(ends)),
        xlabel="minutes and seconds",
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: mm_ss(t)))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    return figure


@styled
def estimate_curves(
    curves: Mapping[str, Mapping[int, Estimate]], xlabel: str, ylabel: str, title: str = ""
) -> Picture:
    """One line per name through estimates at whole x (powers of two), with its interval as a band
    and its name at the end.
    """
    said = "; ".join(
        f"{name}: " + ", ".join(f"{x}: {_estimate(e)[0]:.2f}" for x, e in points.items())
        for name, points in curves.items()
    )
    figure, axes = _picture(
        title or said, f"{title or said}: lines of {ylabel} against {xlabel}. {said}."
    )
    for (name, points), colour in zip(curves.items(), CYCLE, strict=False):
        x = list(points)
        value, low, high = zip(*(_estimate(entry) for entry in points.values()), strict=True)
        axes.plot(x, value, "o-", color=colour, ms=9, mec="white")
        if None not in low and None not in high:
            axes.fill_between(
                x, np.array(low, float), np.array(high, float), color=colour, alpha=0.25, lw=0
            )
        axes.annotate(
            name,
            (x[-1], value[-1]),
            (12, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=15,
        )
    axes.set(xscale="log", ylim=(0, 1.05), xlabel=xlabel, ylabel=ylabel)
    ticks = sorted({x for points in curves.values() for x in points})
    axes.set_xticks(ticks, [str(x) for x in ticks])
    axes.set_xlim(ticks[0] * 0.9, ticks[-1] * 1.9)
    axes.minorticks_off()
    axes.grid(color=PALE)
    return figure


# --- tokens ---------------------------------------------------------------------------------------


@styled
def code_map(codes: Mapping[str, ArrayLike], duration_s: float, title: str) -> Picture:
    """Codes as stripes, one panel per name: (codes, dimensions) of numbers in -1..1 over
    `duration_s` seconds, the first dimension below.
    """
    figure = Picture(figsize=(12.8, 1.2 + 2.6 * len(codes)), layout="constrained")
    sizes = "; ".join(
        f"{name}: {len(np.asarray(code))} codes, mean size {np.abs(code).mean():.2f}"
        for name, code in codes.items()
    )
    figure.alt_text = f"{title}. Stripes over time, slow ones below. {sizes}."
    figure.suptitle(textwrap.fill(title, 100), x=0.012, ha="left", fontsize=17, fontweight="bold")
    look: dict[str, Any] = {
        "aspect": "auto",
        "origin": "lower",
        "interpolation": "nearest",
        "extent": (0, duration_s, 0, 1),
    }
    shades = LinearSegmentedColormap.from_list("signed", [BLUE, "white", RED])
    grid = figure.subplots(len(codes), 1, squeeze=False)[:, 0]
    for axes, (name, code) in zip(grid, codes.items(), strict=True):
        shown = axes.imshow(np.asarray(code, dtype=float).T, cmap=shades, vmin=-1, vmax=1, **look)
        axes.set(
            title=name,
            ylabel="slow to fast",
            yticks=[],
            xlabel="seconds" if axes is grid[-1] else "",
        )
        axes.spines[:].set(visible=True, color=GREY)
    figure.colorbar(shown, ax=list(grid), ticks=[-1, 0, 1], pad=0.01)
    return figure


# --- training -------------------------------------------------------------------------------------


@styled
def token_strip(examples: Mapping[str, Sequence[tuple[str, int]]], title: str = "") -> Picture:
    """Training examples as rows of tokens (text, role): 0 given, 1 a word that is learned, 2 a time
    that is learned.
    """
    learned = {name: sum(role > 0 for _, role in tokens) for name, tokens in examples.items()}
    told = []
    for name, row in examples.items():
        words = [f"{text} (learned)" if role > 0 else text for text, role in row]
        told.append(f"{name}: {', '.join(words)}")
    listed = "; ".join(told)
    said = title or "; ".join(
        f"{name}: {learned[name]} of {len(tokens)} tokens are learned"
        for name, tokens in examples.items()
    )
    figure, axes = _picture(
        said, f"{said}. Rows of tokens. {listed}.", height=1.7 + 1.1 * len(examples)
    )
    widths = [
        [max(map(len, text.split())) + 1.8 for text, _ in tokens] for tokens in examples.values()
    ]
    longest = max(60.0, *map(sum, widths))
    for y, (tokens, row_widths) in enumerate(zip(examples.values(), widths, strict=True)):
        left = 0.0
        for (text, role), width in zip(tokens, row_widths, strict=True):
            axes.barh(
                y, width - 0.4, left=left, height=0.8, color=("white", SKY, ORANGE)[role], ec=GREY
            )
            axes.text(
                left + width / 2 - 0.2,
                y,
                text.replace(" ", "\n"),
                ha="center",
                va="center",
                fontsize=13,
            )
            left += width
    axes.set(
        yticks=range(len(examples)),
        yticklabels=list(examples),
        xticks=[],
        xlim=(-0.5, longest + 0.5),
        ylim=(len(examples) - 0.4, -0.6),
    )
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    handles = [
        Line2D([], [], marker="s", ls="", ms=14, mfc=c, mec=GREY) for c in ("white", SKY, ORANGE)
    ]
    axes.legend(
        handles,
        ["given", "learned: a word", "learned: a time"],
        loc="upper center",
        bbox_to_anchor=(0.45, 0.02),
        ncols=3,
    )
    return figure


@styled
def distributions(
    rows: Mapping[str, ArrayLike],
    truth: Seconds,
    title: str = "",
    xlabel: str = "second of the video",
    marked: str = "truth",
) -> Picture:
    """Probabilities per second, one panel per name on the same axes, with the true span shaded."""
    drawn = {name: np.asarray(p, dtype=float) for name, p in rows.items()}
    said = "; ".join(
        f"{name}: highest {p.max():.2f} at second {int(p.argmax())}" for name, p in drawn.items()
    )
    figure = Picture(figsize=(12.8, 1.3 + 1.9 * len(drawn)), layout="constrained")
    figure.alt_text = (
        f"{title or said}. Bars of probability per second, {marked} {truth[0]:g} to {truth[1]:g} "
        f"s. {said}."
    )
    figure.suptitle(
        textwrap.fill(title or said, 100), x=0.012, ha="left", fontsize=17, fontweight="bold"
    )
    panels = figure.subplots(len(drawn), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, p), colour in zip(panels, drawn.items(), (BLUE, RED, PURPLE), strict=False):
        axes.axvspan(*truth, color=TRUTH, alpha=0.3, lw=0)
        axes.bar(np.arange(len(p)) + 0.5, p, width=1.0, color=colour)
        axes.set(xlim=(0, len(p)), ylim=(0, max(0.05, 1.15 * p.max())), ylabel="probability")
        axes.text(
            0.99,
            0.82,
            name,
            transform=axes.transAxes,
            ha="right",
            fontsize=15,
            color=colour,
            fontweight="bold",
        )
    panels[-1].set_xlabel(f"{xlabel}; shaded: {marked}")
    return figure


# --- systems against each other -------------------------------------------------------------------


@styled
def estimate_rows(
    rows: Mapping[str, Mapping[str, Estimate]],
    title: str = "",
    xlabel: str = "value with 95 % interval",
    marks: Mapping[str, float] | None = None,
    zero: bool = False,
) -> Picture:
    """Rows under each other, in each a dot with its interval per series, one colour a series;
    `marks` are named lines, such as a prediction.

    `rows` maps a row to {series: estimate}; a series may be missing from a row. Raises UserError
    without a single estimate.
    """
    series = list(dict.fromkeys(name for row in rows.values() for name in row))
    if not series:
        raise UserError("estimate_rows needs at least one row with one estimate")
    listed = "; ".join(
        f"{row}: " + ", ".join(f"{name} {_said(entry)}" for name, entry in given.items())
        for row, given in rows.items()
    )
    listed += "".join(f"; marked: {name} {x:.2f}" for name, x in (marks or {}).items())
    step = 0.8 / len(series)
    figure, axes = _picture(
        title or listed,
        f"{title}. Dots with intervals. {listed}.",
        2.1 + len(rows) * (0.3 + 0.3 * len(series)),
    )
    for y, given in enumerate(rows.values()):
        for name, entry in given.items():
            i = series.index(name)
            _dot(axes, entry, y + (i - (len(series) - 1) / 2) * step, CYCLE[i % len(CYCLE)])
    for name, x in (marks or {}).items():
        axes.axvline(x, color=BLACK, lw=2, ls="--")
        axes.annotate(
            name,
            (x, 1),
            (6, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=13,
        )
    axes.set(
        yticks=range(len(rows)),
        yticklabels=list(rows),
        ylim=(len(rows) - 0.45, -0.55),
        xlabel=xlabel,
    )
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.2 * (high - low))  # room for the numbers
    axes.grid(axis="x", color=PALE)
    axes.tick_params(axis="y", length=0)
    if zero:
        axes.axvline(0, color=BLACK, lw=1.5, ls=":")
    if len(series) > 1:
        handles = [
            Line2D([], [], marker="o", ls="", ms=12, color=CYCLE[i % len(CYCLE)])
            for i in range(len(series))
        ]
        figure.legend(handles, series, loc="outside lower center", ncols=min(len(series), 4))
    return figure


def _dot(axes: Axes, entry: Estimate, y: float, colour: str) -> None:
    """A dot with its interval at height y, the numbers to its right."""
    value, low, high = _estimate(entry)
    if low is not None and high is not None:
        axes.plot([low, high], [y, y], color=colour, lw=5, solid_capstyle="round", alpha=0.55)
    axes.plot(value, y, "o", color=colour, ms=11, mec="white", zorder=4)
    right = max(value, high if high is not None else value)
    axes.annotate(
        _said(entry),
        (right, y),
        (10, 0),
        textcoords="offset points",
        va="center",
        fontsize=13,
        color=colour,
    )


@styled
def outcome_bars(
    rows: Mapping[str, Mapping[str, Estimate]], colours: Mapping[str, str], title: str = ""
) -> Picture:
    """What became of the questions, a bar per row, cut into outcomes whose shares sum to 1; in each
    part its share and 95 % interval.

    `rows` maps a row to {outcome: share}, `colours` an outcome to its colour. Raises UserError if
    the shares of a row do not sum to 1.
    """
    for name, row in rows.items():
        if abs(sum(_estimate(entry)[0] for entry in row.values()) - 1) > 1e-6:
            raise UserError(f"outcome_bars: the shares of {name!r} do not sum to 1")
    listed = "; ".join(
        f"{name}: " + ", ".join(f"{what} {_said(entry)}" for what, entry in row.items())
        for name, row in rows.items()
    )
    figure, axes = _picture(
        title or listed,
        f"{title}. Bars cut into outcomes. {listed}.",
        height=1.9 + 0.85 * len(rows),
    )
    for y, row in enumerate(rows.values()):
        left = 0.0
        for what, entry in row.items():
            value = _estimate(entry)[0]
            axes.barh(y, value, left=left, height=0.7, color=colours[what], ec="white", lw=1.5)
            light = np.dot(to_rgb(colours[what]), (0.3, 0.59, 0.11)) > 0.55
            said = _said(entry).replace(" ", "\n", 1) if value > 0.08 else f"{value:.2f}"
            if value > 0.045:
                axes.text(
                    left + value / 2,
                    y,
                    said,
                    ha="center",
                    va="center",
                    fontsize=13,
                    color=BLACK if light else "white",
                )
            left += value
    axes.set(
        yticks=range(len(rows)),
        yticklabels=list(rows),
        xlim=(0, 1),
        xlabel="share of the questions",
    )
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    handles = [
        Line2D([], [], marker="s", ls="", ms=13, color=colour) for colour in colours.values()
    ]
    figure.legend(handles, list(colours), loc="outside lower center", ncols=2)
    return figure


@styled
def failure_gallery(cases: Mapping[str, Scene], title: str = "") -> Picture:
    """Answers under each other: what happened in one sentence, the video as a strip with window,
    answer and truth, and frames of both.

    `cases` maps a sentence to its Scene; frames of the truth and of the answer have their colours,
    frames of both are black. UserError without a case.
    """
    if not cases:
        raise UserError("failure_gallery needs at least one case")
    figure = Picture(figsize=(12.8, 0.6 + 3.6 * len(cases)), layout="constrained")
    spans = [
        f"{said} Task: {s.task} Truth {mm_ss(s.truth[0])} to {mm_ss(s.truth[1])}, "
        f"answer {' to '.join(map(mm_ss, s.answer)) if s.answer else 'none'}"
        for said, s in cases.items()
    ]
    figure.alt_text = f"{title}. Strips of whole videos with frames. {'; '.join(spans)}."
    figure.suptitle(textwrap.fill(title, 100), x=0.012, ha="left", fontsize=17, fontweight="bold")
    parts = figure.subfigures(len(cases), 1, squeeze=False)[:, 0]
    for part, (said, scene) in zip(parts, cases.items(), strict=True):
        part.suptitle(
            f"{textwrap.fill(said, 138)}\n“{scene.task}”", x=0.012, ha="left", fontsize=13
        )
        grid = part.add_gridspec(2, len(scene.frames), height_ratios=(0.3, 1))
        _marked_strip(part.add_subplot(grid[0, :]), scene)
        for i, (time_s, pixels) in enumerate(scene.frames):
            axes = part.add_subplot(grid[1, i], xticks=[], yticks=[])
            axes.imshow(pixels, interpolation="nearest")
            named = [
                n
                for n, span in (("truth", scene.truth), ("answer", scene.answer))
                if span and span[0] <= time_s < span[1]
            ]
            axes.spines[:].set(
                visible=True,
                color={"truth": TRUTH, "answer": ANSWER}.get("".join(named), BLACK),
                lw=4,
            )
            axes.set_xlabel(f"{' and '.join(named)} {mm_ss(int(time_s))}", fontsize=13)
    return figure


def _marked_strip(axes: Axes, scene: Scene) -> None:
    """A whole video as its chapters, the window framed, marks over the truth and under the
    answer.
    """
    axes.set(xlim=(0, scene.duration_s), ylim=(0, 1), yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    for start, end, _, colour in scene.chapters:
        axes.axvspan(start, end, color=colour, lw=0)
        axes.axvline(start, color="white", lw=0.8)
    if scene.window:
        axes.axvspan(*scene.window, fill=False, ec=BLACK, lw=3, clip_on=False, zorder=4)
    for span, colour, y, marker in (
        (scene.truth, TRUTH, 1.25, "v"),
        (scene.answer, ANSWER, -0.25, "^"),
    ):
        if span:
            axes.plot(
                [sum(span) / 2],
                [y],
                marker,
                color=colour,
                ms=12,
                mec="white",
                clip_on=False,
                zorder=5,
            )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: mm_ss(t)))
    axes.tick_params(axis="x", length=0, pad=9, labelsize=13)


# --- what a setting costs and what it brings ------------------------------------------------------


@styled
def trade_off(  # noqa: PLR0913
    curves: Mapping[str, Sequence[tuple[str, float, Estimate]]],
    xlabel: str,
    ylabel: str,
    title: str = "",
    *,
    front: bool = False,
    log: bool = False,
    guesses: Mapping[str, Seconds] | None = None,
) -> Picture:
    """Curves through named points (text, x, estimate of y) with their intervals; `front` joins what
    no other point beats in both (less x, more y).

    `guesses` are named crosses (x, y), such as a prediction. Raises UserError without a point.
    """
    points = [(x, _estimate(entry)[0]) for curve in curves.values() for _, x, entry in curve]
    if not points:
        raise UserError("trade_off needs at least one point (text, x, estimate)")
    listed = "; ".join(
        f"{name}: " + ", ".join(f"{text} at {x:.3g}: {_said(e)}" for text, x, e in curve)
        for name, curve in curves.items()
    )
    listed += "".join(f"; {name}: {y:.2f} at {x:.3g}" for name, (x, y) in (guesses or {}).items())
    figure, axes = _picture(
        title or f"{ylabel} against {xlabel}",
        f"{title}. {ylabel} against {xlabel}. {listed}.",
        height=5.4,
    )
    for i, ((name, curve), colour) in enumerate(zip(curves.items(), CYCLE, strict=False)):
        apart = (
            1.03 ** (i - (len(curves) - 1) / 2) if log and not front else 1.0
        )  # intervals at one x stand beside each other
        axes.plot(
            [x * apart for _, x, _ in curve],
            [_estimate(e)[0] for *_, e in curve],
            "o-",
            color=colour,
            ms=10,
            mec="white",
            label=name,
        )
        for text, x, entry in curve:
            value, low, high = _estimate(entry)
            if low is not None and high is not None:
                axes.plot(
                    [x * apart, x * apart],
                    [low, high],
                    color=colour,
                    lw=5,
                    alpha=0.4,
                    solid_capstyle="round",
                )
            axes.annotate(
                text,
                (x * apart, value),
                (9, -19 if i % 2 else 9),
                textcoords="offset points",
                color=colour,
            )
    if front:
        best = [
            (x, y)
            for x, y in sorted(points)
            if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)
        ]
        edge = [*best, (max(x for x, _ in points), best[-1][1])]
        axes.step(
            *zip(*edge, strict=True),
            where="post",
            color=GREY,
            ls="--",
            lw=1.8,
            label="Pareto front",
        )
    for name, (x, y) in (guesses or {}).items():
        axes.plot(x, y, "X", color=BLACK, ms=13, mec="white", zorder=5)
        axes.annotate(name, (x, y), (11, -15), textcoords="offset points")
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
    if log:
        ticks = sorted({x for x, _ in points})
        axes.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
        axes.minorticks_off()
    axes.margins(x=0.12, y=0.1)
    axes.grid(color=PALE)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


@styled
def star(rows: Mapping[str, Mapping[str, Estimate]], default: str, title: str = "") -> Picture:
    """Settings under each other and a panel per measure, in each a dot with its interval; what the
    row `default` has is shaded through all rows.

    `rows` maps a setting to {measure: estimate}. Raises UserError if `default` is none of them.
    """
    if default not in rows:
        raise UserError(f"star: there is no row {default!r}; expected one of {', '.join(rows)}")
    measures = list(rows[default])
    listed = "; ".join(
        f"{name}: " + ", ".join(f"{m} {_said(e)}" for m, e in row.items())
        for name, row in rows.items()
    )
    figure = Picture(figsize=(12.8, min(7.2, 1.8 + 0.27 * len(rows))), layout="constrained")
    figure.alt_text = (
        f"{title or 'Settings around one default'}. A dot with its interval per setting and "
        f"measure. {listed}."
    )
    figure.suptitle(
        textwrap.fill(title or "Settings around one default", 100),
        x=0.012,
        ha="left",
        fontsize=17,
        fontweight="bold",
    )
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure, colour in zip(panels, measures, CYCLE, strict=False):
        value, low, high = _estimate(rows[default][measure])
        axes.axvspan(
            value if low is None else low, value if high is None else high, color=PALE, zorder=0
        )
        for y, (name, row) in enumerate(rows.items()):
            value, low, high = _estimate(row[measure])
            if low is not None and high is not None:
                axes.plot(
                    [low, high], [y, y], color=colour, lw=4, alpha=0.5, solid_capstyle="round"
                )
            axes.plot(
                value, y, "D" if name == default else "o", color=colour, ms=8, mec="white", zorder=4
            )
        axes.set(
            xlabel=measure,
            ylim=(len(rows) - 0.4, -0.6),
            yticks=range(len(rows)),
            yticklabels=list(rows),
        )
        axes.grid(color=PALE)
        axes.tick_params(length=0, labelsize=13)
    return figure
