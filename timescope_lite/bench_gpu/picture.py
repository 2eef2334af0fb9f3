"""The result as one picture: errors of the oracles beside what they must meet, and rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timescope_lite.results import Result


def picture(result: Result, path: Path) -> bool:
    """Draw a result into a file; False where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 6), layout="constrained")
    _errors(left, result)
    _rates(right, result)
    figure.suptitle(f"{result.config['card']} ({result.device}), torch {result.versions['torch']}")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return True


def _errors(axes: Any, result: Result) -> None:
    """Largest error of every oracle in every precision, on a log axis; exact ones at its left."""
    errors = _named(result, "largest_error")
    tolerances = _named(result, "tolerance")
    rows = range(len(errors))
    axes.scatter([max(tolerances[name], 1e-9) for name in errors], rows, marker="|", s=120)
    axes.scatter([max(error, 1e-9) for error in errors.values()], rows, s=18)
    axes.set_yticks(list(rows), [name.replace("_", " ") for name in errors], fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("largest error as a share of the largest number (bar: what it must meet)")
    axes.set_title("What must be equal (1e-9: exactly equal)")


def _rates(axes: Any, result: Result) -> None:
    """Copies and reloads."""
    rates = _named(result, "bytes_per_second")
    axes.barh(list(rates), [rate / 2**30 for rate in rates.values()])
    axes.set_xlabel("GiB per second")
    axes.set_title("Copies, and reloads of a window")


def _named(result: Result, metric: str) -> dict[str, float]:
    """The values of one metric, by bucket."""
    found = {}
    for key, estimate in result.metrics.items():
        _, bucket, name = key.split("/")
        if name == metric:
            found[bucket] = estimate.value
    return found
