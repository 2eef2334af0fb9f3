"""TimeScope-lite: task-oriented temporal grounding in long videos, small enough to read (after
arXiv 2509.26360).
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `ground` on first use, so that `import timescope_lite` stays free of torch."""
    if name in {"ground", "Grounding"}:
        from timescope_lite import grounding

        return getattr(grounding, name)
    raise AttributeError(f"module 'timescope_lite' has no attribute {name!r}")
