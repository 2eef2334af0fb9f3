"""Bad input through the real command line and the real mechanism: one line that names the thing,
exit status 2, nothing half-written.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import audio_only

from timescope_lite import cli
from timescope_lite.corpus import SPLITS, Split, build
from timescope_lite.datasets.prompts import vocabulary_of
from timescope_lite.model.checkpoint import save
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.video import write_mp4
from timescope_lite.world.domain import load_domains

DOMAIN = next(iter(load_domains().values()))
TASK = f"When does the {DOMAIN.activity(3)} at the {DOMAIN.place(7)}?"


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Files of every bad kind, and a good one."""
    folder = tmp_path_factory.mktemp("things")
    frames = [np.full((64, 64, 3), 10 * i, np.uint8) for i in range(24)]
    good = write_mp4(folder / "good.mp4", frames, 2.0)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    audio_only(folder / "sound.mp4")
    (folder / "folder.mp4").mkdir()
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoderConfig(feature_width=16, stem=4, middle=4, patch=4))
    vocabulary = vocabulary_of(load_domains().values())
    model = TimeScope(ModelConfig(feature_width=16), vocabulary, encoder)
    whole = save(folder / "whole.safetensors", model).read_bytes()
    (folder / "broken.safetensors").write_bytes(whole[:5000])
    (folder / "foreign.safetensors").write_text("{}")
    return folder


def call(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(a) for a in arguments])
    printed = capsys.readouterr()
    return int(stopped.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    ("video", "says"),
    [
        ("absent.mp4", "absent.mp4"),
        ("empty.mp4", "empty.mp4"),
        ("text.mp4", "text.mp4"),
        ("cut.mp4", "cut.mp4"),
        ("sound.mp4", "sound.mp4"),
        ("folder.mp4", "folder.mp4"),
    ],
)
@pytest.mark.parametrize("command", ["ground", "encode"])
def test_a_file_that_is_no_video(command, video, says, things, tmp_path, capsys):
    last = [TASK] if command == "ground" else ["-o", tmp_path / "memory"]
    code, out, err = call(
        [command, things / video, *last, "--checkpoint", things / "whole.safetensors"], capsys
    )
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err and "Traceback" not in err
    assert not (tmp_path / "memory").exists()


@pytest.mark.parametrize(
    ("task", "extra", "says"),
    [
        ("", [], "no words that say what to look for; try: When does"),
        ("when does the wizard sing", [], "unknown word 'wizard': the nearest known words are"),
        ("why is there an alram", [], "unknown word 'alram': the nearest known words are alarm"),
        (
            "one sign on from the purple mill, what does the same person do next",
            [],
            "unknown word 'purple': the nearest known words are",
        ),
        (TASK, ["--r", "5"], "r=5 does not divide S=16; choose r from [1, 2, 4, 8, 16]"),
        (TASK, ["--budget", "1"], "a budget of 1 frames has no room to reload one segment"),
        (
            TASK,
            ["--checkpoint", "absent.safetensors"],
            "checkpoint absent.safetensors does not exist; train one with",
        ),
        (
            TASK,
            ["--checkpoint", "broken.safetensors"],
            "broken.safetensors is damaged or not a safetensors file",
        ),
        (
            TASK,
            ["--checkpoint", "foreign.safetensors"],
            "foreign.safetensors is damaged or not a safetensors file",
        ),
    ],
)
def test_a_task_or_setting_that_cannot_be(task, extra, says, things, capsys, monkeypatch):
    monkeypatch.chdir(things)
    given = extra if "--checkpoint" in extra else [*extra, "--checkpoint", "whole.safetensors"]
    code, out, err = call(["ground", "good.mp4", task, *given], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert says in err


def test_a_video_longer_than_the_clock_is_refused_before_it_is_decoded(things, capsys, monkeypatch):
    monkeypatch.setattr("timescope_lite.model.frames.NUM_SECONDS", 10)
    monkeypatch.setattr("timescope_lite.model.frames.stream_segments", None)
    code, out, err = call(
        ["ground", things / "good.mp4", TASK, "--checkpoint", things / "whole.safetensors"], capsys
    )
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert (
        "good.mp4 lasts 12 s; the model's clock has codes for 10 s: cut it into parts, each asked "
        "by itself" in err
    )


def test_a_good_call_prints_an_interval(things, capsys):
    code, out, err = call(
        [
            "ground",
            things / "good.mp4",
            TASK,
            "--checkpoint",
            things / "whole.safetensors",
            "--json",
        ],
        capsys,
    )
    found = json.loads(out)
    assert (
        code == 0
        and err == ""
        and 0
        <= found["interval"]["start_s"]
        < found["interval"]["end_s"]
        <= found["duration_s"]
        == 12
    )


@pytest.mark.parametrize(
    "task",
    [
        f"One sign on from the {DOMAIN.place(7)}, when is the last time the {DOMAIN.activity(3)} "
        f"before the {DOMAIN.activity(20)}?",
        f"At the {DOMAIN.place(7)}, what does the same person do right after the "
        f"{DOMAIN.activity(3)}?",
        "For what purpose did they bring a string of lights?",
        "Why is there a crowd?",
    ],
)
def test_every_type_of_task_can_be_asked_on_the_command_line(task, things, capsys):
    code, out, err = call(
        [
            "ground",
            things / "good.mp4",
            task,
            "--checkpoint",
            things / "whole.safetensors",
            "--json",
        ],
        capsys,
    )
    assert code == 0 and err == "" and json.loads(out)["duration_s"] == 12


def test_an_annotation_outside_its_video(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SPLITS, "mini", Split(videos=1, seconds=(64, 64), questions=2, seed=9))
    folder = build("mini", root=tmp_path, progress=False)
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    rows[1]["end_s"] = 400
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = call(["data", "check", "--split", "mini", "--out", tmp_path], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert (
        "questions.jsonl, line 2: the interval" in err
        and "is not inside mini_000.mp4 (0 to 64 s); mend the annotation" in err
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["data", "build", "--split", "tset"],
            "unknown split 'tset': expected one of sample, dev, test",
        ),
        (["train", "--profile", "huge", "--out", "OUT"], "unknown profile 'huge'"),
        (["train", "--depth", "0", "--out", "OUT"], "depth 0: expected 1 or more layers"),
        (
            ["evaluate", "--split", "sample", "--out", "OUT", "--budget", "0"],
            "budget 0: expected more than 0 frames' worth",
        ),
        (["bench", "reuse", "--minutes", "0", "--out", "OUT"], "minutes 0: expected a positive"),
        (
            ["evaluate", "--split", "sample", "--out", "OUT", "--predictions", "none.jsonl"],
            "predictions none.jsonl does not exist",
        ),
        (
            ["evaluate", "--split", "sample", "--out", "OUT", "--checkpoints", "none.safetensors"],
            "none.safetensors",
        ),
    ],
)
def test_commands_refuse_before_they_work(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TIMESCOPE_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(SPLITS, "sample", Split(videos=1, seconds=(64, 64), questions=2, seed=9))
    out_folder = tmp_path / "out"
    code, out, err = call([out_folder if a == "OUT" else a for a in arguments], capsys)
    lines = [line for line in err.splitlines() if "building" not in line]
    assert (code, out, len(lines)) == (2, "", 1), err
    assert says in lines[0] and not list(Path(out_folder).rglob("result.json"))


def test_the_shipped_checkpoint_is_the_one_its_manifest_lists():

    assert TimeScope.from_pretrained("tiny").frame_encoder is not None
