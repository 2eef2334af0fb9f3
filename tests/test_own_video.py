"""A student's own events file: what it must hold, what is said when it does not, and how it is
scored.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from timescope_lite.classroom import own_video as module
from timescope_lite.classroom.own_video import Event, read_events, score_events, write_events
from timescope_lite.common import UserError
from timescope_lite.datasets.prompts import vocabulary_of
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import load_domains

DOMAIN = next(iter(load_domains().values()))
VOCABULARY = vocabulary_of([DOMAIN])
TASK = f"When does the {DOMAIN.activity(3)} at the {DOMAIN.place(7)}?"
GOOD = {"task": TASK, "start_s": 2, "end_s": 5.5}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An events file beside its video of twelve seconds."""
    video = write_mp4(
        tmp_path / "mine.mp4", [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(24)], 2.0
    )
    return write_events(
        tmp_path / "events.json",
        video,
        [Event(TASK, 2.0, 5.5), Event("Why is there a flood?", 0.0, 12.0)],
    )


def test_what_was_written_is_read_again(file: Path, tmp_path: Path) -> None:
    assert json.loads(file.read_text())["video"] == "mine.mp4", (
        "a folder that is moved keeps working"
    )
    video, events = read_events(file, VOCABULARY)
    assert video == tmp_path / "mine.mp4" and events == [
        Event(TASK, 2.0, 5.5),
        Event("Why is there a flood?", 0.0, 12.0),
    ]
    elsewhere = write_events(tmp_path / "other" / "events.json", video, events)
    assert read_events(elsewhere, VOCABULARY) == (video.resolve(), events)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            '{"video": "mine.mp4", "events": [}',
            r"events\.json is not valid JSON \(Expecting value: line 1 column 34",
        ),
        ("[1, 2]", r'expected \{"video": "NAME\.mp4", "events": \[\.\.\.\]\}'),
        ('{"video": "mine.mp4", "events": []}', "with at least one event"),
        ({"video": "none.mp4"}, r"none\.mp4 does not exist; expected a video file such as an mp4"),
        (
            {"events": [GOOD, "12 to 15"]},
            r"events\.json, event 2: expected \{.task.: .*got '12 to 15'",
        ),
        (
            {"events": [GOOD | {"label": "x"}]},
            "event 1: unknown key 'label'; expected one of task, start_s, end_s",
        ),
        ({"events": [{"task": TASK, "start_s": 2}]}, "event 1: key 'end_s' is missing"),
        (
            {"events": [GOOD | {"end_s": "1:05"}]},
            "two numbers of seconds, such as 65 for 1:05, got",
        ),
        ({"events": [GOOD | {"end_s": True}]}, "two numbers of seconds"),
        ({"events": [GOOD | {"task": None}]}, "a task in quotes"),
        (
            {"events": [GOOD, GOOD | {"end_s": 12.5}]},
            r"event 2: the interval \[2, 12\.5\] s is not inside mine\.mp4 \(0 to 12 s",
        ),
        ({"events": [GOOD | {"start_s": -1}]}, "event 1: the interval .* is not inside mine.mp4"),
        ({"events": [GOOD | {"start_s": 6}]}, "start before end"),
        ({"events": [GOOD | {"end_s": float("nan")}]}, "is not inside mine.mp4"),
        (
            {"events": [GOOD, GOOD | {"task": "When does my dog bark?"}]},
            "event 2: unknown word 'my': the nearest known words are .*try: When does",
        ),
        (
            {"events": [GOOD | {"task": "it is of the"}]},
            "event 1: the task .it is of the. has no words that say what to look for",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_number_of_the_event(
    content: object, says: str, file: Path
) -> None:
    whole = {"video": "mine.mp4", "events": [GOOD]}
    file.write_text(content if isinstance(content, str) else json.dumps(whole | content))  # type: ignore[operator]
    with pytest.raises(UserError, match=says):
        read_events(file, VOCABULARY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.mp4 does not exist"):
        write_events(tmp_path / "events.json", tmp_path / "none.mp4", [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        UserError,
        match=r"events file .*none\.json does not exist; `write_events` makes one to fill in",
    ):
        read_events(tmp_path / "none.json", VOCABULARY)


def test_a_video_longer_than_the_clock_is_refused_before_it_is_decoded(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timescope_lite.model.frames.NUM_SECONDS", 10)
    with pytest.raises(
        UserError,
        match=r"mine\.mp4 lasts 12 s; the model's clock has codes for 10 s: cut it into parts",
    ):
        read_events(file, VOCABULARY)


def test_events_are_scored_in_their_order(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = (
        FrameEncoder(FrameEncoderConfig(feature_width=16, stem=4, middle=4, patch=4))
        .eval()
        .requires_grad_(False)
    )
    checkpoint = TimeScope(ModelConfig(feature_width=16), VOCABULARY, encoder).eval()
    scored = score_events(checkpoint, file)
    assert [row.event.start_s for row in scored] == [2.0, 0.0]
    for row in scored:
        assert row.found.duration_s == 12 and 0 <= row.tiou <= 1
        if row.found.interval:
            assert row.tiou == module.tiou(row.found.interval, (row.event.start_s, row.event.end_s))
    answered = TimeScope.ground

    def nothing_found(*arguments):
        return [dataclasses.replace(f, interval=None) for f in answered(*arguments)]

    monkeypatch.setattr(TimeScope, "ground", nothing_found)
    assert [row.tiou for row in score_events(checkpoint, file)] == [0.0, 0.0]
