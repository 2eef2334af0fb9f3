"""The first cell of every notebook: the package is there, the device is named, the profile is set.
Local, on Colab, Kaggle or a JupyterHub.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from timescope_lite import (
    __version__,
    results,  # noqa: F401  (a run's wall time counts from this import)
)
from timescope_lite.common import (
    Profile,
    UserError,
    get_profile,
    pick_device,
    pick_dtype,
    project_root,
    runs_root,
)

if TYPE_CHECKING:
    import torch

PROTECTED = (
    "torch",
    "torchvision",
    "numpy",
)  # a hosted machine brings its own, matched to its driver
MODULES = {"decord2": "decord"}  # what a distribution is imported as, where the name differs


@dataclass(frozen=True)
class Setup:
    """What a notebook knows about where it runs; `out` is the folder for its result and figures (it
    exists).
    """

    profile: Profile
    device: torch.device
    dtype: torch.dtype
    out: Path


def bootstrap(profile: str | None = None) -> Setup:
    """Set the profile (argument, else $TIMESCOPE_PROFILE, else smoke), print device and profile in
    one line, return the Setup.

    Where the package did not come with a checkout (Colab, Kaggle, a JupyterHub) it first installs
    the light packages that are missing and leaves torch and numpy alone. Safe to call again. Raises
    UserError for an unknown profile, a torch that is missing or too old, an install that changed a
    protected package or needs a restart, and if there is no folder to write into.
    """
    chosen = get_profile(profile or os.environ.get("TIMESCOPE_PROFILE") or "smoke")
    os.environ["TIMESCOPE_PROFILE"] = chosen.name
    if on_colab() or project_root() is None:
        install_missing()
    device = pick_device()
    out = Path(os.environ.get("TIMESCOPE_OUT") or runs_root() / "by_hand")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {out} ({error.strerror}): set TIMESCOPE_OUT to a folder that "
            "you may write to"
        ) from None
    setup = Setup(chosen, device, pick_dtype(device), out)
    print(describe(setup))
    return setup


def describe(setup: Setup) -> str:
    """One line: version, profile, device with its capability, number format, memory."""
    import torch

    dtype = str(setup.dtype).removeprefix("torch.")
    if setup.device.type == "cuda":
        card = torch.cuda.get_device_properties(setup.device)
        place = (
            f"{card.name}, capability {card.major}.{card.minor}, {dtype}, "
            f"{card.total_memory / 2**30:.1f} GiB"
        )
    else:
        place = f"{setup.device.type}, {torch.get_num_threads()} threads, {dtype}, {_memory()}"
    return f"TimeScope-lite {__version__} | profile {setup.profile.name} | {place}"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):
        return "memory unknown"


def on_colab() -> bool:
    """Whether this runs on Google Colab, told by its own module (packages come and go there)."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:
        return False


def missing_packages() -> list[str]:
    """This package's main requirements that are not installed here, or too old. UserError if one of
    them is protected: those are never touched.
    """
    from packaging.requirements import Requirement  # every Jupyter kernel brings it

    try:
        listed = importlib.metadata.requires("timescope-lite") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = [Requirement(text) for text in listed if ";" not in text]
    missing = [
        r for r in wanted if not r.specifier.contains(_version(r.name) or "0", prereleases=True)
    ]
    for r in missing:
        if r.name in PROTECTED:
            here = f"{r.name} {_version(r.name)} is" if _version(r.name) else f"{r.name} is not"
            raise UserError(
                f"{here} installed here, this course needs {r.name}{r.specifier} and leaves it to "
                f"you: run `pip install '{r.name}{r.specifier}'`, "
                "or choose a newer runtime; then restart and run from the top"
            )
    return [str(r) for r in missing]


def install_missing() -> None:
    """pip-install what is missing with torch, torchvision and numpy pinned to what is there.

    Raises UserError if pip failed, if one of the three changed all the same, or if something that
    is loaded already was replaced (restart).
    """
    missing = missing_packages()
    if not missing:
        return
    names = [re.match(r"[\w.-]+", text)[0] for text in missing]  # type: ignore[index]
    before = {name: _version(name) for name in (*PROTECTED, *names)}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={before[name]}\n" for name in PROTECTED if before[name]))
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pins), *missing]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise UserError(
            f"could not install {', '.join(missing)}: {said}; connect to the network and run this "
            "cell again, or install by hand"
        )
    importlib.invalidate_caches()
    changed = [name for name, version in before.items() if version and _version(name) != version]
    loaded = [name for name in changed if MODULES.get(name, name) in sys.modules]
    again = " Restart the runtime, then run from the top." if loaded else ""
    for name in changed:
        if name in PROTECTED:
            raise UserError(
                f"installing changed {name} from {before[name]} to {_version(name)}: put it "
                f"back.{again}"
            )
    if loaded:
        raise UserError(
            f"{loaded[0]} was loaded as {before[loaded[0]]} and is now "
            f"{_version(loaded[0])}.{again}"
        )
    print(f"installed: {', '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
