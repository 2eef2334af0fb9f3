"""The explorer: one video, its questions, and every setting of the two stages to turn by hand; two
settings side by side.

`state` computes all that is shown, `picture` and `rows` show it, `static_twin` puts the same into a
cell's output without a widget, and `explore` wires the controls. A change of question, margin or
budget asks again; a change of r reads the video once more, since the memory itself is another one.
"""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from torch import Tensor

from timescope_lite import plots
from timescope_lite.common import UserError
from timescope_lite.corpus import PixelSource
from timescope_lite.datasets.prompts import in_plain_words
from timescope_lite.intervals import covers, tiou
from timescope_lite.memory import LayerKV, Memory
from timescope_lite.memory.budget import DEFAULT_R, compressions
from timescope_lite.model.reading import Coarse
from timescope_lite.model.timescope import TimeScope
from timescope_lite.model.tokenizer import ABSENT, ANSWER, SO, WINDOW
from timescope_lite.model.two_stage import Answer, plan_window, refine
from timescope_lite.world.render import render_frames
from timescope_lite.world.story import Story
from timescope_lite.world.tasks import Question, in_words

Progress = Callable[[int, int], None]  # segments read so far, segments in all
BUDGETS = (
    64.0,
    96.0,
    128.0,
    192.0,
    256.0,
    384.0,
    512.0,
)  # frames' worth that a panel offers, beside no limit
MOST_MARGIN = 4  # segments a side
NOT_YET = "not written yet"
LABEL_WIDTH = "6.5em"


@dataclass
class Episode:
    """A video as the explorer needs it: the story behind it, its questions (task in words ->
    Question) and its frame features by segment.

    Memories are kept by r, so an r that was encoded before costs nothing.
    """

    model: TimeScope = field(repr=False)
    story: Story = field(repr=False)
    questions: Mapping[str, Question]
    segments: Sequence[tuple[Tensor, int]] = field(
        repr=False
    )  # (features (S, K, Cf), number of real frames)
    memories: dict[int, Memory] = field(default_factory=dict, repr=False)

    @property
    def seconds(self) -> int:
        return sum(valid for _, valid in self.segments)

    @property
    def ratios(self) -> list[int]:
        """Every r that divides the frames of a segment."""
        return compressions(self.model.config.frames_per_segment)

    def memory(self, r: int, progress: Progress | None = None) -> Memory:
        """The video's memory at r, encoded when first asked for. UserError if r does not divide the
        frames of a segment.
        """
        if r not in self.ratios:
            raise UserError(
                f"r={r} does not divide the frames of a segment; choose r from {self.ratios}"
            )
        if r not in self.memories:
            self.memories[r] = self.model.stream(_counted(self.segments, progress), r)
        return self.memories[r]

    def frame(self, second: int) -> np.ndarray:
        """The picture (128, 128, 3) uint8 at a second of the video. UserError for one outside of
        it.
        """
        if not 0 <= second < self.seconds:
            raise UserError(
                f"second {second} is outside of this video of {self.seconds} s; choose one from 0 "
                f"to {self.seconds - 1}"
            )
        return self.frames(second, second + 1)[0]

    def frames(self, start: int, end: int) -> np.ndarray:
        """The pictures (F, 128, 128, 3) of the seconds start..end-1."""
        at = np.arange(start, min(end, self.seconds))
        return render_frames(self.story.domain, self.story.states[at], at.astype(float))


def _counted(
    segments: Sequence[tuple[Tensor, int]], progress: Progress | None
) -> Iterator[tuple[Tensor, int]]:
    for number, segment in enumerate(segments, start=1):
        yield segment
        if progress:
            progress(number, len(segments))


def episode_of(
    model: TimeScope,
    story: Story,
    questions: Sequence[Question],
    segments: Sequence[tuple[Tensor, int]] | None = None,
) -> Episode:
    """An Episode from a story and questions about it. `segments` are the features of its file
    (`grounding.feature_stream`); without them it is drawn.

    UserError if there is no question, or one without an answer, or if the features are not those of
    this story's seconds.
    """
    if not questions or any(question.absent for question in questions):
        raise UserError(
            "an episode needs at least one question, and each an answer in its video; draw one "
            "with world.tasks.ask"
        )
    if segments is None:
        if model.frame_encoder is None:
            raise UserError(
                "this checkpoint reads symbolic frames and has no frame encoder; use one that was "
                "trained on pixels"
            )
        S = model.config.frames_per_segment
        if story.num_seconds % S:
            raise UserError(
                f"a story that is drawn must be a whole number of segments of {S} s; this one has "
                f"{story.num_seconds} s"
            )
        features = PixelSource(model.frame_encoder, [story.domain]).features(
            story, np.random.default_rng(0)
        )
        segments = [(part, S) for part in features.split(S)]
    episode = Episode(
        model,
        story,
        {in_words(story, question): question for question in questions},
        list(segments),
    )
    if episode.seconds != story.num_seconds:
        raise UserError(
            f"the features are those of {episode.seconds} s, the story has {story.num_seconds} s; "
            "give the features of this story"
        )
    return episode


@dataclass(frozen=True)
class Setting:
    """What a panel's controls say: the task in words, frames per HVR slot, segments added a side,
    and the budget in frames' worth (None: no limit).
    """

    task: str
    r: int = DEFAULT_R
    margin: int = 0
    budget: float | None = None


@dataclass(frozen=True)
class Word:
    """One step of what the model writes: in which stage, what, its probability, and the runner-up
    with its own.
    """

    stage: str
    text: str
    probability: float
    second_text: str
    second_probability: float

    def __str__(self) -> str:
        return (
            f"{self.text} {self.probability:.2f} (or {self.second_text} "
            f"{self.second_probability:.2f})"
        )


@dataclass(frozen=True)
class State:
    """All that a panel shows of one question under one setting. `reloaded` is in segments (ends
    included), `counters` in bytes.

    `over_hvr`: the probability of each segment to hold the window's first and last second;
    `in_window`: the same of each second, in the fine stage.
    """

    setting: Setting
    coarse: Coarse
    reloaded: tuple[int, int]
    answer: Answer
    words: tuple[Word, ...]
    over_hvr: Mapping[str, np.ndarray]
    in_window: Mapping[str, np.ndarray]
    counters: Mapping[str, float]
    frames_per_segment: int
    scene: plots.Scene


def state(
    episode: Episode,
    task: str,
    r: int = DEFAULT_R,
    margin: int = 0,
    budget: float | None = None,
    progress: Progress | None = None,
) -> State:
    """Ask `task` with these settings and keep all that is worth seeing. `progress(segments so far,
    in all)` is called while the video is encoded at a new r.

    UserError for a task that is not one of the episode's, an r that does not divide a segment, a
    negative margin, or a budget without room.
    """
    if task not in episode.questions:
        raise UserError(
            f"{task!r} is no question of this episode; expected one of: "
            f"{'; '.join(list(episode.questions)[:3])} ..."
        )
    if margin < 0 or margin != int(margin):
        raise UserError(f"margin={margin}: expected a whole number of segments a side, 0 or more")
    model = episode.model
    memory, prompt = episode.memory(r, progress), model.prompt(task)
    coarse = model.coarse(memory, [prompt])[0]
    reloaded, note = plan_window(coarse, memory, budget, int(margin))
    answer = replace(refine(model, memory, prompt, coarse, reloaded), note=note)
    words, over_hvr = _written(model, memory, memory.hvr, prompt, coarse.chain, WINDOW)
    _, in_window = _written(model, memory, memory.mixed(*reloaded), prompt, coarse.chain, ANSWER)
    S = memory.frames_per_segment
    over_hvr = {name: np.add.reduceat(p, np.arange(0, len(p), S)) for name, p in over_hvr.items()}
    words += [
        _time("coarse", f"{name} segment", p, at, str)
        for (name, p), at in zip(over_hvr.items(), coarse.window, strict=True)
    ]
    seconds = int(answer.start_s), int(answer.end_s) - 1
    words += [
        _time("fine", f"{name} second", p, at, plots.mm_ss)
        for (name, p), at in zip(in_window.items(), seconds, strict=True)
    ]
    counters, setting = memory.counters(reloaded), Setting(task, r, int(margin), budget)
    scene = _scene(episode, memory, setting, answer, counters)
    return State(
        setting, coarse, reloaded, answer, tuple(words), over_hvr, in_window, counters, S, scene
    )


@torch.no_grad()
def _written(
    model: TimeScope,
    memory: Memory,
    layers: Sequence[LayerKV],
    prompt: list[int],
    chain: list[int],
    tag: int,
) -> tuple[list[Word], dict[str, np.ndarray]]:
    """One stage read once more: every word of the reasoning with its probability; how likely each
    second is the first, and the last, after `tag`.
    """
    vocabulary, device = model.vocabulary, layers[0].k.device
    hidden, cache = model.read(
        torch.tensor([[[*prompt, *chain, tag]]], device=device), layers, memory.num_frames
    )
    choices = [SO, *range(ABSENT + 1, vocabulary.num_phrases)]  # what may stand in a reasoning
    scores = model.logits(hidden[0, 0, len(prompt) - 1 : len(prompt) - 1 + len(chain)].float())[
        :, choices
    ]
    words = []
    for token, p in zip(chain, scores.softmax(-1).cpu(), strict=True):
        ranked = [choices[i] for i in p.topk(3).indices.tolist()]
        second = next(other for other in ranked if other != token)
        names = vocabulary.decode([token]), vocabulary.decode([second])
        words.append(
            Word(
                "coarse",
                names[0],
                float(p[choices.index(token)]),
                names[1],
                float(p[choices.index(second)]),
            )
        )
    zero = vocabulary.first_second + memory.clock
    seconds = slice(zero, zero + memory.num_valid)
    first = model.logits(hidden[0, 0, -1].float())[seconds].softmax(-1)
    start = int(first.argmax())
    hidden, _ = model.read(
        torch.tensor([[[zero + start]]], device=device), layers, memory.num_frames, cache=cache
    )
    last = model.logits(hidden[0, 0, -1].float())[seconds].clone()
    last[:start] = -torch.inf  # the last second is not before the first
    return words, {"first": first.cpu().numpy(), "last": last.softmax(-1).cpu().numpy()}


def _time(stage: str, what: str, p: np.ndarray, written: int, name: Callable[[int], str]) -> Word:
    """A written time as a Word: the segment or second that was `written`, and the most likely other
    one of `p`.
    """
    second = next((int(i) for i in np.argsort(-p, kind="stable") if i != written), written)
    return Word(stage, f"{what} {name(written)}", float(p[written]), name(second), float(p[second]))


def _scene(
    episode: Episode,
    memory: Memory,
    setting: Setting,
    answer: Answer,
    counters: Mapping[str, float],
) -> plots.Scene:
    question = episode.questions[setting.task]
    return plots.Scene(
        duration_s=float(memory.num_valid),
        chapters=plots.chapters_of(episode.story),
        frames=(),
        task=setting.task,
        truth=(float(question.start_s), float(question.end_s)),
        answer=None if answer.absent else (answer.start_s, answer.end_s),
        window=answer.window,
        reasoning=in_plain_words(episode.model.vocabulary.said(answer.chain)),
        memory={
            "attended KV": counters["attended_kv_bytes"],
            "device-resident KV": counters["device_kv_bytes"],
            "dense attention": float(memory.num_frames * memory.bytes_per_frame()),
        },
        slot_s=float(setting.r),
    )


# --- what is shown --------------------------------------------------------------------------------


def picture(state: State) -> plots.Picture:
    """The state drawn: confidence over time, segments and slots of the memory, the lens on what was
    reloaded, the answer, the truth, the counters.
    """
    S = state.frames_per_segment
    first, last = state.coarse.window
    coarse = float(first * S), min(float((last + 1) * S), state.scene.duration_s)
    title = state.scene.finding()
    if covers(coarse, state.scene.truth):  # then it is not the coarse stage that lost it
        title = title.replace(
            "the coarse window does not hold the truth",
            "the budget cut the truth out of the coarse window",
        )
    return plots.two_stages(state.scene, coarse, state.over_hvr, state.in_window, float(S), title)


def rows(state: State, written: int | None = None) -> dict[str, str]:
    """The state in words, label -> text, when the model has written `written` of its steps (None:
    all): what is not written yet is not told.
    """
    scene, setting, S = state.scene, state.setting, state.frames_per_segment
    (first, last), (a, b) = state.coarse.window, state.reloaded
    steps = len(state.words) if written is None else written
    coarse_done = steps >= sum(word.stage == "coarse" for word in state.words)
    all_done = steps >= len(state.words)
    said = [str(word) for word in state.words[:steps]]
    answer = (
        "not in this video"
        if scene.answer is None
        else f"{_span(scene.answer)}, tIoU with the truth {tiou(scene.answer, scene.truth):.2f}"
    )
    limit = "no limit" if setting.budget is None else f"{setting.budget:g} frames' worth"
    note = f"; {state.answer.note}" if state.answer.note else ""
    dense = scene.memory["dense attention"]
    return {
        "question": setting.task,
        "setting": f"r = {setting.r}, margin {setting.margin}, budget {limit}",
        "memory": (
            f"{-(-int(scene.duration_s) // S)} segments of {S} s; a slot of the HVR stands for "
            f"{setting.r} s"
        ),
        "written": f"{steps} of {len(state.words)} steps. {'; '.join(said)}".strip(),
        "coarse window": f"segments {first} to {last}, confidence {state.coarse.confidence:.2f}"
        if coarse_done
        else NOT_YET,
        "reloaded": f"segments {a} to {b}, {_span(scene.window or (0.0, 0.0))}{note}"
        if coarse_done
        else NOT_YET,
        "answer": answer if all_done else NOT_YET,
        "truth": _span(scene.truth),
        "attended KV": (
            f"{state.answer.attended_frames:g} frames' worth, "
            f"{plots.short_bytes(state.counters['attended_kv_bytes'], dense)}"
        ),
        "device-resident KV": plots.short_bytes(state.counters["device_kv_bytes"], dense),
        "dense attention": f"{plots.short_bytes(dense)} (for comparison)",
        "process RSS": plots.short_bytes(state.counters["rss_bytes"]),
    }


def _span(span: plots.Seconds) -> str:
    return f"{plots.mm_ss(span[0])} to {plots.mm_ss(span[1])}"


def still(episode: Episode, second: int, states: Mapping[str, State]) -> plots.Picture:
    """The picture at a second, and beside it what the fine stage of each state has of it: the frame
    itself, or the mean of its HVR slot.

    The mean is one of pictures, to be looked at; the memory averages keys and values. UserError for
    a second outside of the video.
    """
    S = episode.model.config.frames_per_segment
    shown = [(float(second), episode.frame(second))]
    captions = [f"segment {second // S}, frame {second % S + 1} of {S}"]
    for name, each in states.items():
        r, (first, last) = each.setting.r, each.reloaded
        dense = first <= second // S <= last
        start = second if dense else second // r * r
        slot = float(start), float(min(start + r, episode.seconds))
        shown.append(
            (
                float(second),
                episode.frames(start, start + 1 if dense else start + r)
                .mean(axis=0)
                .round()
                .astype(np.uint8),
            )
        )
        captions.append(
            f"{name}: reloaded, every frame" if dense else f"{name}: one HVR slot for {_span(slot)}"
        )
    return plots.film(shown, captions)


def static_twin(
    episode: Episode, *settings: Setting, second: int = 0, written: int | None = None
) -> None:
    """Put what `explore` shows for these settings into the cell's output without widgets: the same
    pictures, and the rows as text.
    """
    _twin(
        episode,
        {name: _ask(episode, each) for name, each in _named(settings).items()},
        second,
        written,
    )


def _twin(
    episode: Episode, states: Mapping[str, State], second: int, written: int | None = None
) -> None:
    for name, each in states.items():
        plots.show(picture(each))
        print(
            f"Setting {name}",
            *(f"  {label:20}{text}" for label, text in rows(each, written).items()),
            sep="\n",
        )
    plots.show(still(episode, second, states))


def _named(settings: Sequence[Setting]) -> dict[str, Setting]:
    if not 1 <= len(settings) <= 2:
        raise UserError(
            f"the explorer shows one setting or two side by side; {len(settings)} were given"
        )
    return dict(zip("AB", settings, strict=False))


def _ask(episode: Episode, setting: Setting, progress: Progress | None = None) -> State:
    return state(episode, setting.task, setting.r, setting.margin, setting.budget, progress)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- the widgets ----------------------------------------------------------------------------------


def _image(figure: plots.Picture) -> str:
    """A picture as an HTML image with its alt text (a widget of type Image has none)."""
    data = base64.b64encode(figure.png()).decode()
    return (
        f'<img style="width:100%" alt="{html.escape(figure.alt_text)}" '
        f'src="data:image/png;base64,{data}">'
    )


def _says(text: str, role: str = "status") -> str:
    # room for two lines, so that panels beside each other stay level
    style = "margin:0;line-height:1.3;min-height:2.6em"
    if role == "alert":
        style += ";font-weight:bold"
    return f'<p role="{role}" style="{style}">{html.escape(text)}</p>'


def _table(cells: Mapping[str, str], caption: str) -> str:
    style = "text-align:left;vertical-align:top;padding-right:1em;white-space:nowrap"
    lines = [
        f'<tr><th scope="row" style="{style}">{html.escape(a)}</th><td>{html.escape(b)}</td></tr>'
        for a, b in cells.items()
    ]
    return (
        '<table style="line-height:1.4"><caption '
        f'style="text-align:left">{html.escape(caption)}</caption>{"".join(lines)}</table>'
    )


def _stepper(name: str, last: int) -> tuple[widgets.IntSlider, widgets.HBox]:
    """A slider 0..last beside a number field of the same value: a slider's handle has no label that
    a screen reader could read, the field has.
    """
    slider = widgets.IntSlider(
        0, 0, last, continuous_update=False, readout=False, layout=widgets.Layout(flex="1 1 auto")
    )
    field_ = widgets.BoundedIntText(
        0,
        0,
        last,
        description=name,
        layout=widgets.Layout(width="12.5em"),
        style={"description_width": LABEL_WIDTH},
    )
    widgets.link((slider, "max"), (field_, "max"))
    widgets.link((slider, "value"), (field_, "value"))
    return slider, widgets.HBox([field_, slider], layout=widgets.Layout(width="98%"))


class Panel:
    """The controls of one setting and what they show. A setting that cannot be is said in the
    status line, and nothing is drawn for it.
    """

    def __init__(
        self, episode: Episode, name: str, setting: Setting, changed: Callable[[], None]
    ) -> None:
        self.episode, self.name, self.changed = episode, name, changed
        self.state: State | None = _ask(
            episode, setting
        )  # first: a setting that cannot be has no controls
        self._make_controls(setting)
        self.progress = widgets.IntProgress(
            max=len(episode.segments), layout=widgets.Layout(width="98%", visibility="hidden")
        )
        self.status = widgets.HTML(_says(f"{name}: as it was set"))
        self.drawn = widgets.HTML()
        self.text = widgets.HTML()
        self.written, stepper = _stepper(f"{name}: written", len(self.state.words))
        self._show(self.state)
        for control in (self.question, self.r, self.margin, self.budget):
            control.observe(self._ask_again, "value")
        self.written.observe(self._write, "value")
        shown = [
            self.question,
            self.r,
            self.margin,
            self.budget,
            self.progress,
            self.status,
            self.drawn,
            stepper,
            self.text,
        ]
        self.widget = widgets.VBox(
            shown, layout=widgets.Layout(width="48%", min_width="380px", margin="0 1% 1em 0")
        )

    def _make_controls(self, setting: Setting) -> None:
        wide: dict[str, Any] = {
            "layout": widgets.Layout(width="98%"),
            "style": {"description_width": LABEL_WIDTH},
        }
        budgets = sorted({*BUDGETS, *([setting.budget] if setting.budget else [])})
        tasks = [
            (f"{question.kind}: {task}", task) for task, question in self.episode.questions.items()
        ]
        ratios = [
            (f"{_count(r, 'frame')} per slot of the HVR", r) for r in reversed(self.episode.ratios)
        ]
        margins = [
            (f"{_count(n, 'segment')} more a side", n)
            for n in range(max(MOST_MARGIN, setting.margin) + 1)
        ]
        limits = [*((f"{b:g} frames' worth", b) for b in budgets), ("no limit", 0.0)]
        self.question = widgets.Dropdown(
            options=tasks, value=setting.task, description=f"{self.name}: question", **wide
        )
        self.r = widgets.Dropdown(
            options=ratios, value=setting.r, description=f"{self.name}: r", **wide
        )
        self.margin = widgets.Dropdown(
            options=margins, value=setting.margin, description=f"{self.name}: margin", **wide
        )
        self.budget = widgets.Dropdown(
            options=limits, value=setting.budget or 0.0, description=f"{self.name}: budget", **wide
        )

    @property
    def setting(self) -> Setting:
        """What the controls say."""
        return Setting(
            self.question.value, self.r.value, self.margin.value, self.budget.value or None
        )

    def _progressed(self, done: int, total: int) -> None:
        self.progress.layout.visibility = "visible"
        self.progress.value = done

    def _ask_again(self, _: Any = None) -> None:
        """Run grounding for what the controls say now; how long it took is part of the status."""
        wanted, started = self.setting, time.perf_counter()
        is_new = wanted.r not in self.episode.memories
        doing = (
            f"r changes the memory: reading the video again at r = {wanted.r}"
            if is_new
            else "asking"
        )
        self.status.value = _says(f"{self.name}: {doing} ...")
        try:
            self._show(_ask(self.episode, wanted, self._progressed))
        except UserError as error:
            self.state, self.drawn.value, self.text.value = None, "", ""
            self.status.value = _says(f"{self.name}: {error}", "alert")
        else:
            read = (
                f"r changes the memory: the video was read again at r = {wanted.r}; "
                if is_new
                else ""
            )
            self.status.value = _says(
                f"{self.name}: {read}answered and drawn in {time.perf_counter() - started:.2f} s"
            )
        self.progress.layout.visibility = "hidden"
        self.changed()

    def _show(self, state: State) -> None:
        self.state = state
        self.drawn.value = _image(picture(state))
        self.written.max = len(state.words)
        self.written.value = len(state.words)
        self._write()

    def _write(self, _: Any = None) -> None:
        if self.state is not None:
            self.text.value = _table(
                rows(self.state, self.written.value), f"Setting {self.name} in words"
            )


class Explorer:
    """An episode's widgets: a panel per setting under one slider of seconds. Show it as the last
    value of a cell; `twin` shows the same without a kernel.
    """

    def __init__(self, episode: Episode, settings: Sequence[Setting]) -> None:
        self.episode = episode
        self.panels = {
            name: Panel(episode, name, setting, self._scrub)
            for name, setting in _named(settings).items()
        }
        self.second, stepper = _stepper("second", episode.seconds - 1)
        self.second.value = episode.questions[settings[0].task].start_s
        self.still = widgets.HTML()
        self.second.observe(self._scrub, "value")
        self._scrub()
        side_by_side = widgets.HBox(
            [panel.widget for panel in self.panels.values()],
            layout=widgets.Layout(flex_flow="row wrap"),
        )
        self.widget = widgets.VBox([stepper, self.still, side_by_side])

    @property
    def states(self) -> dict[str, State]:
        """The state of every panel whose setting can be."""
        return {name: panel.state for name, panel in self.panels.items() if panel.state is not None}

    def _scrub(self, _: Any = None) -> None:
        self.still.value = _image(still(self.episode, self.second.value, self.states))

    def twin(self) -> None:
        """What is shown now, as plain pictures and text."""
        _twin(self.episode, self.states, self.second.value)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)  # type: ignore[no-untyped-call]


def explore(episode: Episode, *settings: Setting) -> Explorer:
    """The explorer with these settings side by side, one or two (none: the first question at r =
    16, and again with a segment more a side).

    UserError for a setting that cannot be, such as a budget without room.
    """
    task = next(iter(episode.questions))
    return Explorer(episode, settings or (Setting(task), Setting(task, margin=1)))
