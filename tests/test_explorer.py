"""The explorer without a browser: what each control changes, that the static twin is the live
picture, and that bad input is said in one sentence.
"""

import base64
import dataclasses
import html
import re
import time
from collections.abc import Callable, Iterator

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import pytest
import torch

from timescope_lite import plots
from timescope_lite.classroom import explorer as ex
from timescope_lite.classroom.explorer import (
    Episode,
    Explorer,
    Setting,
    episode_of,
    explore,
    picture,
    rows,
    state,
    static_twin,
    still,
)
from timescope_lite.common import UserError
from timescope_lite.corpus import PixelSource
from timescope_lite.model import TimeScope
from timescope_lite.model.two_stage import locate
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import Story, tell
from timescope_lite.world.tasks import Question, ask, ask_absent

SECONDS = 256


def asked(story: Story) -> list[Question]:
    rng = np.random.default_rng(7)
    return [
        q
        for q in (ask(story, kind, rng) for kind in ("explicit", "sign1", "why", "sign2"))
        if q is not None
    ]


@pytest.fixture(scope="module")
def checkpoint() -> TimeScope:
    return TimeScope.from_pretrained("tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def drawn(checkpoint: TimeScope) -> Episode:
    """Four minutes of harbour with four questions."""
    story = tell(load_domains()["harbour"], SECONDS, 7)
    return episode_of(checkpoint, story, asked(story))


@pytest.fixture
def episode(drawn: Episode) -> Episode:
    """The same, with no memory encoded yet."""
    return dataclasses.replace(drawn, memories={})


@pytest.fixture
def tasks(episode: Episode) -> list[str]:
    return list(episode.questions)


# --- the state ------------------------------------------------------------------------------------


def test_the_state_is_what_the_library_answers(episode: Episode, tasks: list[str]) -> None:
    for task in tasks:
        prompt = episode.model.prompt(task)
        shown = state(episode, task, 16, 0, 96.0)
        assert [shown.answer] == locate(episode.model, episode.memory(16), [prompt], 96.0)


def test_probabilities_and_words_are_those_of_the_answer(
    episode: Episode, tasks: list[str]
) -> None:
    for task in tasks:
        shown = state(episode, task, 8)
        assert all(
            p.sum() == pytest.approx(1, abs=1e-4)
            for p in (*shown.over_hvr.values(), *shown.in_window.values())
        )
        assert {len(p) for p in shown.over_hvr.values()} == {SECONDS // 16} and {
            len(p) for p in shown.in_window.values()
        } == {SECONDS}
        sure = [
            shown.over_hvr[name][at]
            for name, at in zip(("first", "last"), shown.coarse.window, strict=True)
        ]
        assert sure[0] * sure[1] == pytest.approx(shown.coarse.confidence, abs=1e-4)
        best = [int(p.argmax()) for p in shown.in_window.values()]
        assert best == [shown.answer.start_s, shown.answer.end_s - 1], (
            "the fine stage wrote its most likely seconds"
        )
        said = [episode.model.vocabulary.decode([token]) for token in shown.coarse.chain]
        assert [word.text for word in shown.words[:-4]] == said
        assert [word.stage for word in shown.words[-4:]] == ["coarse", "coarse", "fine", "fine"]
        assert all(0 <= w.second_probability <= w.probability for w in shown.words[:-4]) and all(
            w.second_text != w.text for w in shown.words
        )


def test_the_question_changes_the_answer_and_not_the_memory(
    episode: Episode, tasks: list[str]
) -> None:
    first, second = state(episode, tasks[0]), state(episode, tasks[1])
    assert first.coarse.chain != second.coarse.chain and first.scene.truth != second.scene.truth
    assert list(episode.memories) == [16]


def test_the_margin_widens_what_is_reloaded(episode: Episode, tasks: list[str]) -> None:
    narrow, wide = state(episode, tasks[0]), state(episode, tasks[0], margin=1)
    last_idx = SECONDS // 16 - 1
    assert wide.reloaded == (max(narrow.reloaded[0] - 1, 0), min(narrow.reloaded[1] + 1, last_idx))
    more = (wide.reloaded[1] - wide.reloaded[0]) - (narrow.reloaded[1] - narrow.reloaded[0])
    assert more > 0 and wide.answer.attended_frames - narrow.answer.attended_frames == more * (
        16 - 1
    )
    assert wide.coarse == narrow.coarse, "the coarse stage has spoken before"


def test_the_budget_narrows_what_is_reloaded(episode: Episode, tasks: list[str]) -> None:
    free = state(episode, tasks[0], margin=2)
    tight = state(episode, tasks[0], margin=2, budget=64.0)
    assert (
        free.answer.attended_frames > 64 >= tight.answer.attended_frames
        and tight.coarse == free.coarse
    )
    assert tight.counters["attended_kv_bytes"] < free.counters["attended_kv_bytes"]


def test_r_encodes_the_video_again_once(episode: Episode, tasks: list[str]) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        shown = state(
            episode, tasks[0], 4, progress=lambda done, total: calls.append((done, total))
        )
    assert calls == [(n + 1, 16) for n in range(16)], (
        "every segment once; the second time the memory is there"
    )
    assert shown.scene.slot_s == 4 and episode.memories[4].slots == 4
    assert (
        shown.counters["attended_kv_bytes"]
        > state(episode, tasks[0], 16).counters["attended_kv_bytes"]
    )


def test_a_video_that_ends_within_a_segment(checkpoint: TimeScope) -> None:
    story = tell(load_domains()["harbour"], 90, 3)
    features = PixelSource(checkpoint.frame_encoder, [story.domain]).features(
        story, np.random.default_rng(0)
    )
    padded = torch.cat([features, features[-1:].expand(6, -1, -1)])
    short = episode_of(
        checkpoint,
        story,
        asked(story),
        [(part, min(16, 90 - 16 * i)) for i, part in enumerate(padded.split(16))],
    )
    shown = state(short, next(iter(short.questions)), 8)
    assert len(shown.over_hvr["first"]) == 6 and len(shown.in_window["last"]) == 90
    assert (
        picture(shown).png()
        and "01:28 to 01:30"
        in still(short, 89, {"A": dataclasses.replace(shown, reloaded=(0, 0))}).alt_text
    )


# --- what is shown --------------------------------------------------------------------------------


def test_the_rows_tell_only_what_is_written(episode: Episode, tasks: list[str]) -> None:
    shown = state(episode, tasks[1])
    n = len(shown.words)
    nothing, coarse, everything = rows(shown, 0), rows(shown, n - 2), rows(shown)
    assert (
        nothing["coarse window"] == nothing["reloaded"] == nothing["answer"] == ex.NOT_YET
        and nothing["written"] == f"0 of {n} steps."
    )
    assert coarse["coarse window"].startswith("segments ") and coarse["answer"] == ex.NOT_YET
    assert "tIoU" in everything["answer"] and everything["written"].count(";") == n - 1
    assert rows(shown, 1)["written"] == f"1 of {n} steps. {shown.words[0]}"
    assert {"attended KV", "device-resident KV", "process RSS", "truth"} <= set(nothing)


def test_an_answer_that_is_none(episode: Episode, tasks: list[str]) -> None:
    shown = state(episode, tasks[0])
    none = dataclasses.replace(shown, scene=dataclasses.replace(shown.scene, answer=None))
    assert (
        rows(none)["answer"] == "not in this video"
        and "answer none" in picture(none).alt_text
        and picture(none).png()
    )


def test_the_picture_names_what_it_shows(episode: Episode, tasks: list[str]) -> None:
    shown = state(episode, tasks[0], margin=1)
    alt = picture(shown).alt_text
    assert tasks[0] in alt and all(
        word in alt for word in ("Coarse window", "reloaded", "answer", "truth")
    )
    figure = picture(shown)
    first, drawn = figure.png(), figure.get_tightbbox()
    assert (
        min(text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()) >= 13
    )
    assert drawn.x0 >= -0.02 and drawn.y0 >= -0.02 and drawn.x1 <= 9.02 and drawn.y1 <= 9.62, (
        "nothing runs out of the picture"
    )
    with mpl.rc_context({"font.size": 30}):
        assert picture(shown).png() == first, "whatever the notebook has set"
    with pytest.raises(UserError, match="every segment"):
        plots.two_stages(shown.scene, (0, 16), {"first": np.ones(3)}, shown.in_window)


def test_a_miss_by_the_budget_is_not_laid_on_the_coarse_stage(
    episode: Episode, tasks: list[str]
) -> None:
    shown = state(episode, tasks[0])
    cut = dataclasses.replace(
        shown.scene, truth=(40.0, 44.0), answer=(70.0, 72.0), window=(64.0, 96.0)
    )
    lost = dataclasses.replace(
        shown, scene=cut, coarse=dataclasses.replace(shown.coarse, window=(2, 5))
    )
    assert "the budget cut the truth out" in picture(lost).alt_text
    beside = dataclasses.replace(lost, coarse=dataclasses.replace(shown.coarse, window=(4, 5)))
    assert "the coarse window does not hold the truth" in picture(beside).alt_text


def test_a_second_as_the_memory_has_it(episode: Episode, tasks: list[str]) -> None:
    shown = state(episode, tasks[0])
    inside, outside = shown.reloaded[0] * 16 + 3, (shown.reloaded[1] + 1) % 16 * 16 + 5
    for second, says in ((inside, "A: reloaded, every frame"), (outside, "A: one HVR slot for")):
        seen = still(episode, second, {"A": shown})
        assert (
            f"segment {second // 16}, frame {second % 16 + 1} of 16" in seen.alt_text
            and says in seen.alt_text
        )
        (own, held) = (np.asarray(axes.images[0].get_array()) for axes in seen.axes)
        assert np.array_equal(own, held) == (second == inside)


# --- the widgets ----------------------------------------------------------------------------------


def png_in(widget: widgets.HTML) -> bytes:
    return base64.b64decode(re.search(r'base64,([^"]*)"', widget.value)[1])


def cells_in(widget: widgets.HTML) -> dict[str, str]:
    found = re.findall(r"<th[^>]*>(.*?)</th><td>(.*?)</td>", widget.value)
    return {html.unescape(label): html.unescape(text) for label, text in found}


def all_widgets(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from all_widgets(child)


@pytest.fixture
def live(episode: Episode, tasks: list[str]) -> Explorer:
    return explore(episode, Setting(tasks[0], margin=1), Setting(tasks[1], margin=1, budget=96.0))


CHANGES: dict[str, Callable[[ex.Panel], None]] = {
    "as it was set": lambda panel: None,
    "question": lambda panel: setattr(panel.question, "value", list(panel.episode.questions)[2]),
    "r": lambda panel: setattr(panel.r, "value", 8),
    "margin": lambda panel: setattr(panel.margin, "value", 2),
    "budget": lambda panel: setattr(panel.budget, "value", 64.0),
}


@pytest.mark.parametrize("control", CHANGES)
def test_the_static_twin_is_the_live_picture(
    control: str,
    live: Explorer,
    episode: Episode,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {name: png_in(panel.drawn) for name, panel in live.panels.items()}
    CHANGES[control](live.panels["A"])
    live.second.value = 100
    shown: list[bytes] = []
    monkeypatch.setattr(plots, "show", lambda figure: shown.append(figure.png()))
    static_twin(episode, *(panel.setting for panel in live.panels.values()), second=100)
    assert shown == [*(png_in(panel.drawn) for panel in live.panels.values()), png_in(live.still)]
    assert (shown[0] != before["A"]) == (control != "as it was set") and shown[1] == before["B"], (
        "the other panel stays as it is"
    )
    printed = capsys.readouterr().out
    for panel in live.panels.values():
        cells = cells_in(panel.text)
        assert cells and all(
            f"{label:20}{text}" in printed
            for label, text in cells.items()
            if label != "process RSS"
        )
    live.twin()
    assert shown[3:] == shown[:3]


def test_r_says_that_it_reads_again_and_shows_how_far(live: Explorer) -> None:
    panel, said, seen = live.panels["A"], [], []
    panel.status.observe(lambda change: said.append(change.new), "value")
    panel.progress.observe(
        lambda change: seen.append((panel.progress.layout.visibility, change.new)), "value"
    )
    panel.r.value = 4
    assert "reading the video again at r = 4" in said[0] and "was read again at r = 4" in said[-1]
    assert (
        seen == [("visible", n) for n in range(1, 17)]
        and panel.progress.layout.visibility == "hidden"
    )
    panel.r.value, live.panels["B"].r.value = 16, 4
    assert (
        "again at" not in panel.status.value and "again at" not in live.panels["B"].status.value
    ), "both are known by now"


def test_the_text_is_written_step_by_step(live: Explorer) -> None:
    panel = live.panels["A"]
    total, drawn = panel.written.max, panel.drawn.value
    assert panel.written.value == total == len(panel.state.words)
    panel.written.value = 1
    assert (
        cells_in(panel.text) == {**rows(panel.state, 1)}
        and cells_in(panel.text)["answer"] == ex.NOT_YET
    )
    assert panel.drawn.value == drawn
    panel.question.value = list(panel.episode.questions)[1]
    assert panel.written.value == panel.written.max == len(panel.state.words), (
        "another question is shown written out"
    )


def test_a_setting_that_cannot_be_is_said_and_not_drawn(live: Explorer) -> None:
    panel = live.panels["A"]
    panel.r.value = 2
    panel.budget.value = 96.0  # the HVR alone is 128 frames' worth
    assert 'role="alert"' in panel.status.value and "no room to reload" in panel.status.value
    assert (
        panel.drawn.value == panel.text.value == ""
        and list(live.states) == ["B"]
        and "A:" not in live.still.value
    )
    panel.budget.value = 0.0
    assert (
        'role="status"' in panel.status.value
        and panel.drawn.value
        and list(live.states) == ["A", "B"]
    )


def test_every_control_has_a_label_and_every_picture_a_text(live: Explorer) -> None:
    everything = list(all_widgets(live.widget))
    inputs = [w for w in everything if isinstance(w, (widgets.Dropdown, widgets.BoundedIntText))]
    labels = [w.description for w in inputs]
    assert labels == [
        "second",
        *(
            f"{n}: {what}"
            for n in "AB"
            for what in ("question", "r", "margin", "budget", "written")
        ),
    ]
    pictures = [w.value for w in everything if isinstance(w, widgets.HTML) and "<img" in w.value]
    assert len(pictures) == 3 and all(re.search(r'alt="[^"]{40,}"', value) for value in pictures)
    sliders = [w for w in everything if isinstance(w, widgets.IntSlider)]
    assert len(sliders) == 3 and not any(slider.continuous_update for slider in sliders)
    field = inputs[0]
    field.value = 200
    assert live.second.value == 200 and "segment 12" in live.still.value


def test_one_setting_or_none_given(episode: Episode, tasks: list[str]) -> None:
    assert list(explore(episode, Setting(tasks[0])).states) == ["A"]
    default = explore(episode)
    assert [panel.setting for panel in default.panels.values()] == [
        Setting(tasks[0]),
        Setting(tasks[0], margin=1),
    ]
    assert default.second.value == episode.questions[tasks[0]].start_s
    unusual = explore(episode, Setting(tasks[0], margin=6, budget=99.0)).panels["A"]
    assert (unusual.setting.margin, unusual.setting.budget) == (6, 99.0), (
        "a setting that no list offers is offered"
    )


def test_what_a_change_costs(live: Explorer) -> None:
    """Printed, not judged: the machine may be doing other things."""
    panel = live.panels["A"]
    for name in ("question", "margin", "budget", "r"):
        started = time.perf_counter()
        CHANGES[name](panel)
        print(
            f"{name}: {time.perf_counter() - started:.2f} s; "
            f"{html.unescape(re.sub('<[^>]*>', '', panel.status.value))}"
        )
        assert " answered and drawn in " in panel.status.value


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda e: state(e, "Why is there a dragon?"), "no question of this episode"),
        (lambda e: state(e, next(iter(e.questions)), r=5), "r=5 does not divide"),
        (lambda e: state(e, next(iter(e.questions)), margin=-1), "margin=-1"),
        (lambda e: state(e, next(iter(e.questions)), margin=0.5), "margin=0.5"),
        (lambda e: state(e, next(iter(e.questions)), budget=4.0), "no room to reload"),
        (lambda e: explore(e, Setting(next(iter(e.questions)), r=3)), "r=3 does not divide"),
        (lambda e: explore(e, *[Setting(next(iter(e.questions)))] * 3), "3 were given"),
        (lambda e: static_twin(e), "0 were given"),
        (lambda e: still(e, SECONDS, {}), "outside of this video"),
        (lambda e: episode_of(e.model, e.story, []), "at least one question"),
        (
            lambda e: episode_of(
                e.model, e.story, [ask_absent(e.story, "why", np.random.default_rng(0))]
            ),
            "an answer in its video",
        ),
        (
            lambda e: episode_of(e.model, e.story, list(e.questions.values()), e.segments[:3]),
            "features are those of 48 s",
        ),
        (
            lambda e: episode_of(
                TimeScope(e.model.config, e.model.vocabulary),
                e.story,
                list(e.questions.values()),
            ),
            "no frame encoder",
        ),
        (
            lambda e: episode_of(e.model, tell(e.story.domain, 90, 1), list(e.questions.values())),
            "whole number of segments",
        ),
    ],
)
def test_bad_input_is_said_in_one_sentence(
    call: Callable[[Episode], object], says: str, episode: Episode
) -> None:
    with pytest.raises(UserError, match=says) as caught:
        call(episode)
    assert "\n" not in str(caught.value)
