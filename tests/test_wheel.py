"""The wheel without the repository: lesson 00 offline, and the first cell in an environment that
brings its own torch and numpy, as Colab does.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
OTHER_NUMPY = "2.1.3"  # has wheels for Python 3.11 to 3.13, and is not the one in constraints.txt
OTHER_TORCH = "2.6.1+elsewhere"  # no index has it: whoever replaces it is found out
NO_NETWORK = """
import socket
connect = socket.socket.connect
def local_only(self, address):
    local = self.family == getattr(socket, "AF_UNIX", None) or address[0] in {"127.0.0.1", "::1"}
    assert local, f"the lesson tried to reach {address}"
    return connect(self, address)
socket.socket.connect = local_only
"""


def said(command: list[str | Path], **options: object) -> str:
    """What a command printed; skips the test, with the reason, if pip could not reach the package
    index.
    """
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, **options
    )  # type: ignore[call-overload]
    if done.returncode and (
        "No matching distribution" in done.stderr or "Connection" in done.stderr
    ):
        pytest.skip(f"the package index does not answer: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves traces in the folder it is built in."""
    folder = tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "timescope_lite", folder / "source" / "timescope_lite", ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-CONTENT"):
        shutil.copy(ROOT / name, folder / "source")
    here = (
        importlib.util.find_spec("setuptools")
        and int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    )
    isolation = ["--no-build-isolation"] if here else []
    said(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            *isolation,
            "-w",
            folder / "dist",
            folder / "source",
        ]
    )
    (made,) = (folder / "dist").glob("timescope_lite-*.whl")
    return made


def run_lesson(
    number: str, python: Path | str, folder: Path, environment: dict[str, str], check: str
) -> list[str]:
    """Execute a lesson in the kernel of `python`, in a folder without the repository, then `check`
    in the same kernel; returns what its cells print.

    A failing cell fails the test.
    """
    from nbclient import NotebookClient

    (source,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    spec = folder / "share" / "kernels" / "elsewhere" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    home = {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TIMESCOPE_DATA": "",
        "TIMESCOPE_OUT": "",
        "TIMESCOPE_PROFILE": "",
    }
    spec.write_text(
        json.dumps(
            {
                "argv": argv,
                "display_name": "elsewhere",
                "language": "python",
                "env": home | environment,
            }
        )
    )
    book = nbformat.read(source, as_version=4)
    book.cells.append(nbformat.v4.new_code_cell(check))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder / "share"))
        NotebookClient(
            book,
            timeout=300,
            kernel_name="elsewhere",
            resources={"metadata": {"path": str(folder)}},
        ).execute()
    outputs = [cell.get("outputs", []) for cell in book.cells if cell.cell_type == "code"]
    return [
        "".join(part.get("text", "") for part in parts if part.get("name") == "stdout")
        for parts in outputs
    ]


def test_the_wheel_alone_runs_lesson_00_offline(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    said(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--target",
            site,
            wheel,
        ]
    )
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    check = f"""
import socket, timescope_lite
from timescope_lite.common import project_root
assert timescope_lite.__file__.startswith({str(site)!r}) and project_root() is None
assert socket.socket.connect.__name__ == "local_only"
"""
    printed = run_lesson("00", sys.executable, tmp_path, {"PYTHONPATH": str(site)}, check)
    assert printed[0].startswith("TimeScope-lite ") and "installed:" not in printed[0]
    assert list((tmp_path / "cache" / "timescope_lite").rglob("result.json")), (
        "the run went into the user's cache"
    )


@functools.cache
def site_of(python: Path) -> Path:
    return Path(
        said([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    )


def bring_torch(python: Path) -> None:
    """This environment's torch, linked into another one under another version: gigabytes need not
    be fetched to see whether pip leaves it alone.
    """
    import torch

    target = site_of(python)
    needs = [text for text in importlib.metadata.requires("torch") or [] if ";" not in text]
    said([python, "-m", "pip", "install", "-q", *needs])
    for name in ("torch", "torchgen", "functorch"):
        if (Path(torch.__file__).parents[1] / name).exists():
            (target / name).symlink_to(Path(torch.__file__).parents[1] / name)
    about = target / f"torch-{OTHER_TORCH}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {OTHER_TORCH}\n")
    (about / "INSTALLER").write_text("somebody else\n")


def versions_in(python: Path) -> dict[str, str]:
    return {
        row["name"]: row["version"]
        for row in json.loads(said([python, "-m", "pip", "list", "--format", "json"]))
    }


def imitate_colab(python: Path) -> None:
    (site_of(python) / "google" / "colab").mkdir(parents=True, exist_ok=True)
    (site_of(python) / "google" / "colab" / "__init__.py").write_text("")


def run_both_lessons(python: Path, wheel: Path, folder: Path) -> None:
    """Lessons 00 and 05 where the package is absent and the wheel lies in a folder; torch and numpy
    stay what they were, and twice is harmless.
    """
    before = versions_in(python)
    assert "timescope-lite" not in before
    links = f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    environment = {"PIP_FIND_LINKS": links, "PYTHONPATH": "", "TIMESCOPE_DEVICE": "cpu"}
    check = """
from timescope_lite.common import project_root
assert project_root() is None
importlib.import_module("timescope_lite.classroom.bootstrap").bootstrap()
"""
    first = run_lesson("00", python, folder, environment, check)
    assert (
        "installed: " in first[0] and "decord2" in first[0] and "\nTimeScope-lite " in first[0]
    ), first[0]
    assert first[-1].startswith("TimeScope-lite ") and first[-1].count("\n") == 1, (
        "the second call installs nothing"
    )
    second = run_lesson("05", python, folder, environment, check)
    assert second[0].startswith("TimeScope-lite "), second[0]
    after = versions_in(python)
    assert {name: after[name] for name in before} == before, "what was there is there as it was"
    assert "timescope-lite" in after


def test_lessons_00_and_05_where_torch_and_numpy_are_others(wheel: Path, tmp_path: Path) -> None:
    said([sys.executable, "-m", "venv", tmp_path / "elsewhere"])
    python = tmp_path / "elsewhere" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    said([python, "-m", "pip", "install", "-q", f"numpy=={OTHER_NUMPY}", "ipykernel", "ipywidgets"])
    bring_torch(python)
    imitate_colab(python)
    run_both_lessons(python, wheel, tmp_path)
    assert (
        versions_in(python)["torch"] == OTHER_TORCH and versions_in(python)["numpy"] == OTHER_NUMPY
    )
