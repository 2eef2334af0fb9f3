"""The first cell of every notebook, locally and on an imitation of Colab."""

import ast
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from timescope_lite import common
from timescope_lite.classroom import bootstrap as module
from timescope_lite.classroom import publishing
from timescope_lite.classroom.bootstrap import Setup, bootstrap
from timescope_lite.classroom.publishing import first_cell
from timescope_lite.common import UserError


@pytest.fixture(autouse=True)
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESCOPE_PROFILE", "")
    monkeypatch.setenv("TIMESCOPE_DEVICE", "cpu")
    monkeypatch.setenv("TIMESCOPE_OUT", str(tmp_path / "out"))


def test_it_names_profile_and_device_in_one_line_and_may_be_called_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = bootstrap()
    printed = capsys.readouterr().out
    assert (first.profile.name, first.device.type, first.out) == ("smoke", "cpu", tmp_path / "out")
    assert first.out.is_dir() and os.environ["TIMESCOPE_PROFILE"] == "smoke"
    assert (
        printed.count("\n") == 1
        and "profile smoke" in printed
        and "cpu" in printed
        and str(tmp_path) not in printed
    )
    assert bootstrap() == first and capsys.readouterr().out == printed
    with pytest.raises(AttributeError):
        first.out = Path()  # type: ignore[misc]


def test_argument_then_environment_then_smoke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESCOPE_PROFILE", "lab")
    assert bootstrap().profile.name == "lab"
    assert bootstrap("full").profile.name == "full" and os.environ["TIMESCOPE_PROFILE"] == "full"
    monkeypatch.setenv("TIMESCOPE_PROFILE", "huge")
    with pytest.raises(UserError, match="unknown profile 'huge'"):
        bootstrap()


def test_the_first_cell_is_three_statements_and_runs(tmp_path: Path) -> None:
    source = first_cell()
    assert len(ast.parse(source).body) == 3
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    code = source + "\nassert setup.profile.name == 'smoke'"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("TimeScope-lite ")


def without_the_package() -> str:
    """The first cell up to its last line, on a machine that lacks the package."""
    lines = first_cell().replace('"timescope_lite"', '"timescope_lite_is_not_here"').splitlines()
    return "\n".join(lines[:-1])


def test_an_unpublished_course_is_never_asked_of_a_package_index() -> None:
    """Nobody owns the bare name there, so anybody could put something else under it."""
    assert publishing.install_from() == "" and "pip" not in first_cell()
    with pytest.raises(ModuleNotFoundError, match="run `make install` in it"):
        exec(without_the_package(), {})


def test_the_first_cell_installs_a_published_course_where_it_is_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(publishing, "REPOSITORY", "someone/course")
    asked: list[tuple[str, str]] = []
    shell = types.SimpleNamespace(run_line_magic=lambda *words: asked.append(words))
    exec(without_the_package(), {"get_ipython": lambda: shell})
    assert asked == [("pip", f"install -q --no-deps {publishing.install_from()}")]
    assert "someone/course" in publishing.install_from()


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Colab as far as bootstrap can see it: its module is there, av is missing, pip writes into a
    dictionary.
    """
    installed = {"torch": "2.6.0+cu124", "numpy": "2.0.2"}
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: name == "google.colab" or None
    )
    wanted = ["torch>=2.6", "numpy>=1.26", "av>=14", 'papermill>=2.6; extra == "lab"']
    monkeypatch.setattr(module.importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(module, "_version", installed.get)
    return installed


def pip(installed: dict[str, str], calls: list[str], code: int = 0, **changes: str):
    """A pip that installs av and whatever else `changes` says."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        pins = Path(command[command.index("-c") + 1]).read_text()
        calls.append(f"{pins}|{' '.join(command[command.index('-c') + 2 :])}")
        installed.update({"av": "14.0", **changes} if code == 0 else {})
        return subprocess.CompletedProcess(command, code, "", "ERROR: first\nERROR: no network\n")

    return run


def test_on_colab_only_light_packages_are_installed_with_the_rest_pinned(
    colab, monkeypatch, capsys
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(module.subprocess, "run", pip(colab, calls))
    assert isinstance(bootstrap(), Setup)
    assert calls == ["torch==2.6.0+cu124\nnumpy==2.0.2\n|av>=14"]
    assert "installed: av>=14" in capsys.readouterr().out
    bootstrap()
    assert len(calls) == 1


def test_a_changed_torch_is_an_error_that_asks_for_a_restart(colab, monkeypatch) -> None:
    monkeypatch.setattr(module.subprocess, "run", pip(colab, [], torch="2.13.0"))
    with pytest.raises(
        UserError, match=r"changed torch from 2.6.0\+cu124 to 2.13.0.*Restart the runtime"
    ):
        bootstrap()


@pytest.mark.parametrize(
    ("installed", "says"),
    [
        (
            {"torch": "2.4.1+cu121", "numpy": "2.0.2"},
            r"torch 2.4.1\+cu121 is installed here, this course needs torch>=2.6 and leaves it to "
            r"you",
        ),
        (
            {"numpy": "2.0.2"},
            r"torch is not installed here, this course needs torch>=2.6 .*run `pip install "
            r"'torch>=2.6'`",
        ),
        ({"torch": "2.6.0", "numpy": "1.24.0"}, r"numpy 1.24.0 is installed here, .*then restart"),
    ],
)
def test_what_is_too_old_and_protected_is_named_and_not_touched(
    installed, says, colab, monkeypatch
) -> None:
    colab.clear()
    colab.update(installed)
    monkeypatch.setattr(module.subprocess, "run", pip(colab, calls := []))
    with pytest.raises(UserError, match=says):
        bootstrap()
    assert calls == []


def test_a_light_package_that_is_too_old_is_replaced_and_asks_for_a_restart_if_it_was_loaded(
    colab, monkeypatch, capsys
) -> None:
    colab["av"] = "12.0"
    monkeypatch.setattr(module.subprocess, "run", pip(colab, []))
    monkeypatch.delitem(sys.modules, "av", raising=False)
    bootstrap()
    assert "installed: av>=14" in capsys.readouterr().out
    colab["av"] = "12.0"
    monkeypatch.setitem(sys.modules, "av", types.ModuleType("av"))
    with pytest.raises(
        UserError,
        match=r"av was loaded as 12.0 and is now 14.0. Restart the runtime, then run from the top",
    ):
        bootstrap()


def test_kaggle_and_a_jupyterhub_are_like_colab(colab, monkeypatch, capsys, tmp_path) -> None:
    """They have no module to know them by; what they share is that the package came without a
    checkout.
    """
    calls: list[str] = []
    monkeypatch.setattr(module, "on_colab", lambda: False)
    monkeypatch.setattr(module.subprocess, "run", pip(colab, calls))
    bootstrap()
    assert calls == []  # a checkout: `make` installs there
    monkeypatch.setattr(module, "project_root", lambda: None)
    bootstrap()
    assert len(calls) == 1 and "installed: av>=14" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_to(monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TIMESCOPE_OUT", str(tmp_path / "file" / "out"))
    with pytest.raises(
        UserError,
        match=r"cannot make the folder .*out \(Not a directory\): set TIMESCOPE_OUT to a folder",
    ):
        bootstrap()
    monkeypatch.setenv("TIMESCOPE_OUT", "")
    monkeypatch.setenv("TIMESCOPE_DATA", str(tmp_path / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(common, "project_root", lambda: None)
    with pytest.warns(
        UserWarning,
        match=(
            r"the data folder .*file \(TIMESCOPE_DATA\) is read-only: what is built goes into "
            r".*cache"
        ),
    ):
        assert bootstrap().out == tmp_path / "cache" / "timescope_lite" / "runs" / "by_hand"


def test_a_read_only_checkout_and_data_folder_are_left_alone(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TIMESCOPE_DATA", raising=False)
    monkeypatch.setattr(common, "project_root", lambda: tmp_path / "course")
    (tmp_path / "course").mkdir()
    assert (
        common.data_root() == tmp_path / "course" / "data"
        and common.runs_root() == tmp_path / "course" / "runs"
    )
    may_write = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: "course" not in Path(path).parts and may_write(path, mode)
    )
    assert (
        common.data_root() == tmp_path / "cache" / "timescope_lite"
        and common.runs_root() == common.data_root() / "runs"
    )


def test_a_failed_install_says_what_and_why(colab, monkeypatch) -> None:
    monkeypatch.setattr(module.subprocess, "run", pip(colab, [], code=1))
    with pytest.raises(UserError, match="could not install av>=14.*no network"):
        bootstrap()


def test_here_is_not_colab() -> None:
    assert module.on_colab() is False
