"""What fits: the one home of the arithmetic of memory.

The unit is one frame's worth of keys and values (K tokens in every layer). A video of N frames in
segments of S costs at its peak, with n segments reloaded,

    coarse stage                              N / r
    fine stage over HVR and window (mixed)    N / r + n (S - S / r)
    fine stage over the window alone          n S, but the coarse stage went before: max(N / r, n S)

A budget bounds that peak, the reload counted (docs/architecture.md, 'Equal memory').
"""

from __future__ import annotations

from collections.abc import Iterable

from timescope_lite.common import BudgetError, UserError

DEFAULT_R = 16  # frames per group of the HVR where neither caller, budget nor recipe says more


def compressions(frames_per_segment: int) -> list[int]:
    """Every r that divides a segment: 1, 2, 4, 8, 16 for 16 frames."""
    S = frames_per_segment
    return [r for r in range(1, S + 1) if S % r == 0]


def check_compression(r: int, frames_per_segment: int) -> None:
    """UserError unless r divides S."""
    if r < 1 or frames_per_segment % r:
        choices = compressions(frames_per_segment)
        raise UserError(f"r={r} does not divide S={frames_per_segment}; choose r from {choices}")


def peak_frames(
    num_frames: int,
    r: int,
    frames_per_segment: int,
    reloaded_segments: int = 0,
    keep_hvr: bool = True,
) -> float:
    """Attended KV at its peak, in frames' worth. `num_frames` counts the padding of the last
    segment; `keep_hvr`: the fine stage reads the HVR outside the window too.
    """
    coarse = num_frames / r
    dense = reloaded_segments * frames_per_segment
    if keep_hvr:
        # The reloaded segments stand in for their own HVR.
        return coarse + dense - dense / r
    return max(coarse, float(dense))


def least_r(num_frames: int, budget_frames: float, choices: Iterable[int]) -> int:
    """The least compression among `choices` whose HVR of the whole video is within the budget.

    BudgetError if the largest does not bring it within.
    """
    ordered = sorted(choices)
    for r in ordered:
        if num_frames / r <= budget_frames:
            return r
    raise BudgetError(
        f"a video of {num_frames} frames does not fit into {budget_frames:g} frames' worth even "
        f"at r={ordered[-1]}; raise the budget"
    )


def max_reload_segments(
    num_frames: int,
    r: int,
    frames_per_segment: int,
    budget_frames: float | None,
    keep_hvr: bool = True,
) -> int:
    """How many segments may be reloaded within the budget (None: all of the video).

    BudgetError if there is no room for one.
    """
    S = frames_per_segment
    total = num_frames // S  # whole segments: the last one is padded
    if budget_frames is None:
        return total
    needed = peak_frames(num_frames, r, S, 1, keep_hvr)
    if needed > budget_frames:
        raise BudgetError(
            f"a budget of {budget_frames:g} frames has no room to reload one segment of this "
            f"video: {needed:g} are needed at r={r}; raise budget or r"
        )
    if not keep_hvr:
        return min(int(budget_frames // S), total)
    per_segment = S - S / r
    if per_segment == 0:  # at r = 1 the HVR is dense already: a reload adds nothing
        return total
    # Whole segments only: what is left over of the budget stays unused.
    spare = budget_frames - num_frames / r
    return min(int(spare // per_segment), total)


def fit_window(
    window: tuple[int, int], num_segments: int, max_segments: int, margin: int = 0
) -> tuple[int, int]:
    """First and last segment of a window widened by `margin` segments a side, inside the video; a
    window wider than `max_segments` is narrowed around the middle of what was asked for.
    """
    first, last = window
    wide_first = max(first - margin, 0)
    wide_last = min(last + margin, num_segments - 1)
    if wide_last - wide_first + 1 <= max_segments:
        return wide_first, wide_last
    middle = (first + last) // 2
    start = middle - (max_segments - 1) // 2
    start = min(max(start, 0), num_segments - max_segments)
    return start, start + max_segments - 1
