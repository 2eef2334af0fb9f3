"""The contract of a run: one `result.json`, written last and atomically, that says what was
measured, on what, and how sure it is.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timescope_lite.common import (
    UserError,
    from_mapping,
    git_commit,
    pick_device,
    read_json,
    write_json,
)
from timescope_lite.version import __version__

STARTED = time.monotonic()
SCHEMA = 1
FRACTIONS = {"miou", "coverage", "reload_share", "fine_miou_given_coverage", "unparsable"}


@dataclass(frozen=True)
class Estimate:
    """One measured number; `low` and `high` bound its 95 % interval (None where there is none, as
    for a single video), `n` counts what it is taken over.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and zero lies outside of it."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval} (n={self.n})"


@dataclass(frozen=True)
class Result:
    """What one run found: the content of its result.json. Metrics are named
    "system/bucket/metric"; the first one is the headline.
    """

    schema: int
    name: str
    status: str
    config: dict[str, Any]
    seed: int | None
    commit: str
    versions: dict[str, str]
    device: str
    wall_s: float
    peak_rss_bytes: int
    metrics: dict[str, Estimate] = field(default_factory=dict)

    def validate(self) -> Result:
        """This result if every part of the contract holds; UserError names the first part that does
        not.
        """
        if self.schema != SCHEMA:
            raise UserError(
                f"result {self.name!r}: schema is {self.schema!r}, this version reads {SCHEMA!r}; "
                "run it again"
            )
        if self.status not in {"finished", "failed"}:
            raise UserError(
                f"result {self.name!r}: status is {self.status!r}, expected 'finished' or 'failed'"
            )
        if not (_is_number(self.wall_s) and _is_number(self.peak_rss_bytes)):
            raise UserError(
                f"result {self.name!r}: wall_s and peak_rss_bytes must be finite numbers"
            )
        for key, metric in self.metrics.items():
            _validate_metric(f"result {self.name!r}: metric {key!r}", key, metric)
        return self


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _validate_metric(where: str, key: str, metric: Estimate) -> None:
    parts = key.split("/")
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{where} is not named system/bucket/metric")
    bounds = [bound for bound in (metric.low, metric.high) if bound is not None]
    if len(bounds) == 1 or not all(_is_number(number) for number in (metric.value, *bounds)):
        raise UserError(
            f"{where}: value, low and high must be finite numbers (low and high may both be null)"
        )
    if bounds and not bounds[0] - 1e-9 <= metric.value <= bounds[1] + 1e-9:
        raise UserError(
            f"{where}: {metric.value} lies outside its own interval [{bounds[0]}, {bounds[1]}]"
        )
    if isinstance(metric.n, bool) or not isinstance(metric.n, int) or metric.n < 0:
        raise UserError(f"{where}: n must be a whole number, not {metric.n!r}")
    if (parts[2] in FRACTIONS or parts[2].startswith("r1@")) and not 0 <= metric.value <= 1:
        raise UserError(f"{where}: {metric.value} is not a fraction between 0 and 1")


def read_result(path: Path) -> Result:
    """The validated result in the JSON file `path`; UserError if it is absent, not JSON or breaks
    the contract.
    """
    raw = read_json(path, "result file")
    if not isinstance(raw, dict) or not isinstance(raw.get("metrics"), dict):
        raise UserError(f"result file {path}: expected an object with a 'metrics' object")
    metrics = {}
    for key, value in raw["metrics"].items():
        if not isinstance(value, dict):
            raise UserError(
                f"result file {path}: metric {key!r} must be an object with value, low, high and n"
            )
        metrics[key] = from_mapping(Estimate, value, f"result file {path}, metric {key!r}")
    return from_mapping(Result, {**raw, "metrics": metrics}, f"result file {path}").validate()


def write_result(  # noqa: PLR0913
    out: Path | str,
    *,
    name: str,
    metrics: dict[str, Estimate],
    config: dict[str, Any] | None = None,
    seed: int | None = None,
    status: str = "finished",
    wall_s: float | None = None,
) -> Path:
    """Write `out`/result.json, the last act of a run, atomically; returns its path.

    `wall_s` counts from the import of this file (the bootstrap cell) unless given; peak memory is
    this process's own. Raises UserError if the contract is broken.
    """
    age_s = time.monotonic() - STARTED
    device = str(pick_device()) if "torch" in sys.modules else "cpu"
    result = Result(
        SCHEMA,
        name,
        status,
        config or {},
        seed,
        git_commit(),
        versions(),
        device,
        age_s if wall_s is None else wall_s,
        peak_rss_bytes(),
        metrics,
    ).validate()
    return write_json(Path(out) / "result.json", dataclasses.asdict(result))


def format_value(metric: str, value: float | None) -> str:
    """A number as people read it: bytes in the unit that fits, seconds with one decimal, everything
    else with three.
    """
    if value is None:
        return "-"
    if metric.endswith("bytes"):
        return format_bytes(value)
    if metric.endswith(("seconds", "_s")):
        return f"{value:.1f} s"
    return f"{value:.3f}"


def format_bytes(value: float) -> str:
    """Bytes as people read them, in two figures or more: 96 B, 4.0 KiB, 14 MiB, 2.3 GiB."""
    units = ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    decimals = 1 if value < 10 and units[0] != "B" else 0
    return f"{value:.{decimals}f} {units[0]}"


def versions() -> dict[str, str]:
    """Versions of what can change a number: python, this package and the installed ones among its
    main dependencies.
    """
    found = {"python": platform.python_version(), "timescope-lite": __version__}
    for package in ("torch", "numpy", "transformers", "decord2", "decord", "av"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_rss_bytes(children: bool = False) -> int:
    """Peak resident memory in bytes of this process, or of the largest child that has ended (0
    where the system does not tell).
    """
    try:
        import resource
    except ImportError:  # Windows has no resource module, but knows the peak of the process itself.
        import psutil

        return 0 if children else int(psutil.Process().memory_info().peak_wset)
    peak = resource.getrusage(
        resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    ).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
