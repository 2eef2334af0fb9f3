"""Checks under exercises: `checks.downsample(downsample)`. One file per mechanism registers its
exercises; core.py is how they work.
"""

from __future__ import annotations

import importlib
import pkgutil

from timescope_lite.classroom.checks.core import EXERCISES, Exercise


def load_all() -> dict[str, Exercise]:
    """Every registered exercise by name, after importing each file of this folder."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return EXERCISES


def __getattr__(name: str) -> Exercise:
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in load_all():
        raise AttributeError(
            f"there is no check called {name!r}; expected one of: "
            f"{', '.join(sorted(EXERCISES)) or '(none yet)'}"
        )
    return EXERCISES[name]


def __dir__() -> list[str]:
    return sorted([*globals(), *load_all()])
