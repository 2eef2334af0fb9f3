"""What every room of the house shares: errors, strict configurations, profiles, seeds, devices,
paths, atomic files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import secrets
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class UserError(ValueError):
    """Bad input, in one sentence: the thing, what was expected, what to do. The command line prints
    it and exits 2.
    """


class BudgetError(UserError):
    """A memory budget that has no room for what was asked of it."""


@dataclass(frozen=True)
class Profile:
    """How much work a run may do. `smoke` proves that it runs, `lab` teaches, `full` measures
    (docs/architecture.md).
    """

    name: str
    cell_timeout_s: int
    notebook_budget_s: int


PROFILES = {
    "smoke": Profile("smoke", cell_timeout_s=120, notebook_budget_s=45),
    "lab": Profile("lab", cell_timeout_s=1800, notebook_budget_s=900),
    "full": Profile("full", cell_timeout_s=3600, notebook_budget_s=3600),
}


def get_profile(name: str) -> Profile:
    """The profile called `name`; raises UserError with the known names otherwise."""
    if name not in PROFILES:
        raise UserError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def from_mapping(cls: type[T], values: dict[str, Any], where: str = "configuration") -> T:
    """A frozen dataclass from a mapping; unknown or missing keys raise UserError that names them
    and `where`.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise UserError(f"{where}: unknown key {unknown[0]!r}; expected one of {', '.join(fields)}")
    required = [
        n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in required if name not in values]
    if missing:
        raise UserError(f"{where}: key {missing[0]!r} is missing; add it")
    return cls(**values)


def seed_everything(seed: int) -> torch.Generator:
    """Seed python, numpy and torch; returns a CPU generator for whatever a lesson prints (the same
    on every device).
    """
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def pick_device() -> torch.device:
    """`cuda`, else `mps`, else `cpu`; the environment variable TIMESCOPE_DEVICE overrides."""
    import torch

    wanted = os.environ.get("TIMESCOPE_DEVICE")
    if wanted:
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(device: torch.device) -> torch.dtype:
    """bf16 only where the hardware computes in it (compute capability 8.0, avx512_bf16 or AMX),
    else fp32.
    """
    import torch

    if device.type == "cuda":
        # is_bf16_supported() also says yes on a T4, where bf16 is emulated; the capability does not
        # lie.
        return (
            torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
        )
    if device.type == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def project_root() -> Path | None:
    """The checkout that this package lies in, or None when only the wheel is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def data_root() -> Path:
    """Where built videos and caches go: $TIMESCOPE_DATA, else `data/` of the checkout, else the
    user's cache folder; the first that may be written to. A $TIMESCOPE_DATA that may not be is
    announced by a warning.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "timescope_lite"
    given, root = os.environ.get("TIMESCOPE_DATA"), project_root()
    if given and _may_write(Path(given)):
        return Path(given)
    if given:
        warnings.warn(
            f"the data folder {given} (TIMESCOPE_DATA) is read-only: what is built goes into "
            f"{cache}",
            stacklevel=2,
        )
        return cache
    return root / "data" if root is not None and _may_write(root / "data") else cache


def runs_root() -> Path:
    """Where runs go unless told otherwise: `runs/` of the checkout, or of `data_root()` where only
    the wheel is installed or the checkout is read-only.
    """
    root = project_root()
    return (root if root is not None and _may_write(root / "runs") else data_root()) / "runs"


def _may_write(folder: Path) -> bool:
    """Whether this folder may be written to; of one that is not there, whether it may be made."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    return there.is_dir() and os.access(there, os.W_OK)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it only if the block succeeds: no half-written
    file is ever seen. Its rights follow the umask, as those of any file do.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(6)}{path.suffix}")
    # Not mkstemp, whose files are private: nobody else in a shared folder could read a result.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, default: Callable[[Any], Any] | None = None) -> Path:
    """Write `value` as indented JSON, atomically. NaN is refused: a result file holds numbers."""
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(
            json.dumps(value, indent=1, allow_nan=False, default=default) + "\n", encoding="utf-8"
        )
    return Path(path)


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file; UserError names `what` it should have been if it is absent or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{what} {path} does not exist") from None
    except IsADirectoryError:
        raise UserError(f"{what} {path} is a folder; expected a file") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{what} {path} is not valid JSON ({error})") from None


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str] | None = None
) -> Path:
    """Write a safetensors file atomically. UserError where the disk refuses: what stood there
    before is kept.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with atomic_path(Path(path)) as temporary:
            plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(plain, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write {path} ({error}); what stood there is kept: make room, or choose "
            "another folder"
        ) from None
    return Path(path)


def sha256_of(path: Path) -> str:
    """Hash of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def process_rss() -> int:
    """Resident memory of this process in bytes; without psutil its peak, without that 0."""
    try:
        import psutil
    except ImportError:
        return _peak_rss()
    return int(psutil.Process().memory_info().rss)


def _peak_rss() -> int:
    """The most that this process ever had resident, in bytes; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


class SilentBar:
    """What stands in for tqdm's bar where tqdm is not installed: it counts nothing and shows
    nothing.
    """

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)

    def update(self, steps: int = 1) -> None:
        """One or more steps are done."""

    def close(self) -> None:
        """Nothing follows."""


def progress_bar(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """tqdm's bar over `items` with tqdm's `options`; silent where tqdm is not installed, since
    nothing that is computed needs it.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return SilentBar(items or ())
    return tqdm(items, **options)


def git_commit() -> str:
    """Short hash of the checkout (with `+` if files changed), or the package version where there is
    no git.
    """
    from timescope_lite.version import __version__

    root = project_root()
    if root is None:
        return f"v{__version__}"
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return f"v{__version__}"
