"""Every command line of the README is run for real, on small stand-ins: a short video, a small
split, a smoke training, a tiny notebook.
"""

import json
import re
import shlex
from pathlib import Path

import nbformat
import pytest

from timescope_lite import answering, bench, cli, corpus, dials, grounding, train, variants
from timescope_lite.corpus import SPLITS, Split, build, read_questions
from timescope_lite.train import FramePhase

ROOT = Path(__file__).resolve().parent.parent
BLOCK = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .split("## The command line")[1]
    .split("```sh")[1]
    .split("```")[0]
)
COMMANDS = [line.split("#")[0].strip() for line in BLOCK.strip().splitlines()]
NOTEBOOK = """
from timescope_lite.results import Estimate, write_result
_ = write_result(out, name="tiny", metrics={"two_stage@64/all/miou": Estimate(0.5)}, seed=seed)
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Small stand-ins for what the commands of the README name."""
    folder = tmp_path_factory.mktemp("readme")
    mini = Split(videos=2, seconds=(64, 70), questions=2, seed=9)
    patch = pytest.MonkeyPatch()
    for name in SPLITS:
        patch.setitem(SPLITS, name, mini)
    patch.setenv("TIMESCOPE_DATA", str(folder / "data"))
    patch.setattr(bench, "MINUTES", (1,))
    small = train.recipe("smoke")
    quick = train.Recipe(
        "two_stage",
        FramePhase(stories=3, frames_per_story=16, steps=2, batch=16),
        small.phases[-1:],
        pool_frames=256,
    )
    patch.setattr(train, "recipe", lambda profile, system, depth: quick)
    patch.setattr(dials, "POINTS", {})
    patch.setattr(variants, "VARIANTS", {})
    patch.setattr(answering, "study", lambda out, **options: out)
    patch.setattr(dials, "draw", lambda out: out)
    video = build("sample", root=folder, progress=False)
    item = read_questions(video)[0]
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text) for text in ('out = ""\nseed = 1', NOTEBOOK)]
    )
    book.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(book, folder / "04_tiny.ipynb")
    (folder / "grid.toml").write_text(
        f'notebook = "{folder / "04_tiny.ipynb"}"\nabout = "two seeds"\nseeds = [1, 2]\n'
    )
    (folder / "charades.txt").write_text("AO8RW 0.0 6.9##a person puts a book on a shelf.\n")
    answer = {"video": "AO8RW", "text": "a person puts a book on a shelf.", "answer": [0.0, 6.9]}
    (folder / "predictions.jsonl").write_text(json.dumps(answer) + "\n")
    yield {"folder": folder, "video": video / item.video, "task": item.text}
    patch.undo()


def arguments_of(command: str, stage: dict) -> list[str]:
    """The words of a README line with its stand-ins put in."""
    words = shlex.split(command)
    assert words[0] == "timescope-lite"
    out = str(stage["folder"] / re.sub(r"\W+", "_", command))
    swap = {
        "VIDEO": str(stage["video"]),
        "TASK": stage["task"],
        "DIR": out,
        "F": str(stage["folder"] / "predictions.jsonl"),
        "G": str(stage["folder"] / "charades.txt"),
        "notebooks/*.ipynb": str(stage["folder"] / "04_tiny.ipynb"),
    }
    swap |= {"grids/*.toml": str(stage["folder"] / "grid.toml")}
    given = [swap.get(word, "smoke" if word == "lab" else word) for word in words[1:]]
    if given[0] == "run":
        given = [
            str(stage["folder"] / "04_tiny.ipynb") if word == "04" else word for word in given
        ] + [
            "--out",
            str(stage["folder"] / "runs"),
        ]
    if given[0] == "train":
        given += ["--out", out]
    if "--memory" in given:  # what the line above it in README.md has written
        grounding.encode(stage["video"], out)
    if given[0] == "student":
        given += ["04", "--no-prove"]
    if (
        given[0] == "report"
    ):  # --record writes into the project's own files: tests/test_cli.py runs it on a copy
        given = ["report", str(stage["folder"] / "runs")]
    return given


def test_the_readme_shows_commands():
    assert len(COMMANDS) >= 10 and {shlex.split(c)[1] for c in COMMANDS} >= {
        "ground",
        "encode",
        "data",
        "train",
        "evaluate",
        "run",
        "report",
        "doctor",
        "bench",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_runs(command, stage, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments_of(command, stage))
    printed = capsys.readouterr()
    allowed = (
        {0, 1} if "doctor" in command else {0}
    )  # the doctor may find the machine wanting, and says so
    assert int(stopped.value.code or 0) in allowed, printed.err
    assert printed.out.strip(), "a command says what it did"
    assert "Traceback" not in printed.err


def test_the_stand_ins_are_what_the_library_reads(stage):
    assert corpus.get_split("dev").videos == 2
