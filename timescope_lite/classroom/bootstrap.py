"""The first cell of every notebook: the package is there, the device is named, the profile is set. Local and on Colab."""

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

from timescope_lite import __version__
from timescope_lite.classroom import report  # noqa: F401  (a run's wall time counts from this import)
from timescope_lite.common import Profile, UserError, data_root, get_profile, pick_device, pick_dtype, project_root

if TYPE_CHECKING:
    import torch

# The one place that says where a machine without the package gets it: a name on the package index, or a "git+https" address
# with a release tag. `timescope-lite report --record` writes the first cell of every notebook from it.
INSTALL_FROM = "timescope-lite"
PROTECTED = ("torch", "torchvision", "numpy")  # Colab brings its own, matched to its driver


@dataclass(frozen=True)
class Setup:
    """What a notebook knows about where it runs; `out` is the folder for its result and figures (it exists)."""

    profile: Profile
    device: torch.device
    dtype: torch.dtype
    out: Path


def first_cell() -> str:
    """The lines every notebook begins with (they work where the package is not installed yet)."""
    return (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("timescope_lite") is None:\n'
        f'    get_ipython().run_line_magic("pip", "install -q --no-deps {INSTALL_FROM}")\n'
        'setup = importlib.import_module("timescope_lite.classroom.bootstrap").bootstrap()'
    )


def bootstrap(profile: str | None = None) -> Setup:
    """Set the profile (argument, else $TIMESCOPE_PROFILE, else smoke), print device and profile in one line, return the Setup.

    On Colab it first installs the light packages that are missing and leaves torch and numpy alone. Safe to call again.
    Raises UserError for an unknown profile, or if an install changed a protected package.
    """
    chosen = get_profile(profile or os.environ.get("TIMESCOPE_PROFILE") or "smoke")
    os.environ["TIMESCOPE_PROFILE"] = chosen.name
    if on_colab():
        install_missing()
    device = pick_device()
    out = Path(os.environ.get("TIMESCOPE_OUT") or (project_root() or data_root()) / "runs" / "by_hand")
    out.mkdir(parents=True, exist_ok=True)
    setup = Setup(chosen, device, pick_dtype(device), out)
    print(describe(setup))
    return setup


def describe(setup: Setup) -> str:
    """One line: version, profile, device with its capability, number format, memory."""
    import torch

    dtype = str(setup.dtype).removeprefix("torch.")
    if setup.device.type == "cuda":
        card = torch.cuda.get_device_properties(setup.device)
        place = f"{card.name}, capability {card.major}.{card.minor}, {dtype}, {card.total_memory / 2**30:.1f} GiB"
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
    """This package's main requirements that are not installed here, protected ones excepted (they are never installed)."""
    try:
        wanted = importlib.metadata.requires("timescope-lite") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    light = [text for text in wanted if ";" not in text and re.match(r"[\w.-]+", text)[0] not in PROTECTED]  # type: ignore[index]
    return [text for text in light if _version(re.match(r"[\w.-]+", text)[0]) is None]  # type: ignore[index]


def install_missing() -> None:
    """pip-install what is missing with torch, torchvision and numpy pinned to what is there; UserError if one changed all the same."""
    missing = missing_packages()
    if not missing:
        return
    before = {name: _version(name) for name in PROTECTED}
    loaded = {name for name in sys.modules if "." not in name}
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "constraints.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in before.items() if version))
        command = [sys.executable, "-m", "pip", "install", "-q", "-c", str(pins), *missing]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"could not install {', '.join(missing)}: {done.stderr.strip().splitlines()[-1:]}; install them by hand")
    changed = [name for name, version in before.items() if _version(name) != version]
    if changed:
        again = " Restart the runtime, then run from the top." if loaded & set(changed) else ""
        raise UserError(f"installing changed {changed[0]} from {before[changed[0]]} to {_version(changed[0])}: put it back.{again}")
    importlib.invalidate_caches()
    print(f"installed: {', '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
