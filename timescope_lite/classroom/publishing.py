"""Where the course is published, and what follows from it: how a machine without the package gets
it, and where Colab opens a notebook.
"""

from __future__ import annotations

from pathlib import Path

from timescope_lite.version import __version__

# "owner/name" on GitHub, or nothing while the course is not published. `timescope-lite report
# --record` writes what follows from it into the notebooks.
REPOSITORY = ""
NOT_PUBLISHED = (
    "timescope_lite is not installed here: get the folder of the course and run `make install` in "
    "it, then open this notebook with its .venv"
)


def install_from() -> str:
    """What pip installs on a machine without the package; empty while the course is not published
    (nobody owns the bare name on a package index, so it is never asked for).
    """
    return f"git+https://github.com/{REPOSITORY}@v{__version__}" if REPOSITORY else ""


def colab_address(notebook: Path) -> str:
    """Where Colab opens a notebook of the published course; empty while it is not published."""
    if not REPOSITORY:
        return ""
    colab = "https://colab.research.google.com/github"
    return f"{colab}/{REPOSITORY}/blob/main/notebooks/{Path(notebook).name}"


def first_cell() -> str:
    """The lines every notebook begins with (they work where the package is not installed yet)."""
    source = install_from()
    if source:
        get_it = f'    get_ipython().run_line_magic("pip", "install -q --no-deps {source}")'
    else:
        words = NOT_PUBLISHED.split()
        half = len(words) // 2
        get_it = (
            "    raise ModuleNotFoundError(\n"
            f'        "{" ".join(words[:half])} "\n'
            f'        "{" ".join(words[half:])}"\n'
            "    )"
        )
    return (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("timescope_lite") is None:\n'
        f"{get_it}\n"
        'setup = importlib.import_module("timescope_lite.classroom.bootstrap").bootstrap()'
    )
