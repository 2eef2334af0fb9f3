"""The exercises of lesson 05: downsampling in time, the position of a group, and how far averaging
smears what turns.
"""

from __future__ import annotations

import cmath
import math
from typing import Any

import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, register, same, wrong_answers

# ---- downsample ----

# (heads, frames, tokens per frame, head width, r): several slots, one slot, r = 1, the whole
# segment as one group.
SHAPES = (
    (2, 8, 3, 4, 2),
    (4, 16, 1, 8, 8),
    (1, 12, 2, 5, 3),
    (2, 8, 4, 2, 8),
    (3, 6, 3, 4, 1),
    (2, 16, 2, 3, 4),
)


def downsample_by_index(x: Tensor, r: int, K: int) -> Tensor:
    """Mean over groups of r frames, x (H, F*K, D) -> (H, F//r*K, D), each output slot gathered from
    its r tokens by number.
    """
    groups = x.shape[1] // (r * K)
    picked = [
        [(group * r + i) * K + slot for i in range(r)]
        for group in range(groups)
        for slot in range(K)
    ]
    return torch.stack([sum(x[:, token] for token in tokens) / r for tokens in picked], dim=1)  # type: ignore[misc]


def _grouped(x: Tensor, r: int, K: int) -> Tensor:
    """(H, F*K, D) -> (H, F//r, r, K, D)."""
    return x.reshape(x.shape[0], x.shape[1] // (r * K), r, K, x.shape[2])


def _downsample_cases() -> list[Case]:
    generator = torch.Generator().manual_seed(5)
    drawn = [(torch.randn(H, F * K, D, generator=generator), r, K) for H, F, K, D, r in SHAPES]
    return [Case(f"x {tuple(x.shape)}, r={r}, K={K}", (x, r, K)) for x, r, K in drawn]


def _wrong_shape(case: Case, expected: Any, got: Any) -> str | None:
    if getattr(got, "shape", None) in (None, expected.shape):
        return None
    return (
        f"in the case '{case.label}' the shape should be {tuple(expected.shape)}, yours is "
        f"{tuple(got.shape)}: r divides the tokens, nothing else."
    )


_DOWNSAMPLE_SAYS = (
    (
        "tokens in a row",
        lambda x, r, K: x.reshape(x.shape[0], -1, r, x.shape[2]).mean(2),
        "Right shape, wrong neighbours: you averaged r tokens in a row, which are different slots "
        "of "
        "the same few frames. In time, "
        "one slot comes back every K tokens.",
    ),
    (
        "slots mixed",
        lambda x, r, K: _grouped(x, r, K).mean((2, 3)),
        "You averaged all r * K tokens of a group into one. The K slots of a frame are different "
        "things: a group keeps K tokens.",
    ),
    (
        "strided",
        lambda x, r, K: _grouped(x, r, K)[:, :, 0].flatten(1, 2),
        "You kept one frame of every r. That is strided sampling, a rival in section 6; here all r "
        "frames have a share in their slot.",
    ),
    (
        "sum",
        lambda x, r, K: _grouped(x, r, K).sum(2).flatten(1, 2),
        "That is the sum, r times as long as its tokens. A slot must stay as large as a frame's: "
        "it "
        "will stand beside frames in one "
        "softmax.",
    ),
    (
        "over the groups",
        lambda x, r, K: _grouped(x, r, K).mean(1).flatten(1, 2),
        "You averaged over the groups: first frame of each group with first frame. The axis to "
        "lose "
        "is the one of length r.",
    ),
    (
        "over the slots",
        lambda x, r, K: _grouped(x, r, K).mean(3).flatten(1, 2),
        "You averaged over the K slots of each frame and left time as long as it was. The axis to "
        "lose is the one of length r.",
    ),
    (
        "far frames",
        lambda x, r, K: x.reshape(x.shape[0], r, -1, K, x.shape[2]).mean(1).flatten(1, 2),
        "Each of your slots averages frames F/r apart. A group is r frames in a row: in the view, "
        "r "
        "comes after the number of groups.",
    ),
)
register(
    Exercise(
        name="downsample",
        lesson="05",
        reference=downsample_by_index,
        cases=_downsample_cases,
        covers="6 shapes, 5 values of r, against gathering each token by its number",
        compare=lambda expected, got: same(expected, got, tolerance=1e-5),
        diagnose=_wrong_shape,
        wrong=wrong_answers(_DOWNSAMPLE_SAYS),
    )
)

# ---- group_positions ----


def centres_by_ends(positions: Tensor, r: int, K: int) -> Tensor:
    """Position of each slot of each group: halfway between the group's first and last frame, which
    is right for frames in a row.
    """
    tokens = positions.tolist()
    centres = [(tokens[i] + tokens[i + (r - 1) * K]) / 2 for i in range(0, len(tokens), r * K)]
    return torch.tensor([centre for centre in centres for _ in range(K)])


def _position_cases() -> list[Case]:
    settings = ((0, 16, 1, 4), (16, 16, 1, 16), (32, 8, 3, 2), (0, 8, 2, 1), (5, 12, 2, 3))
    frames = [
        (torch.arange(first, first + F).repeat_interleave(K), r, K) for first, F, K, r in settings
    ]
    return [
        Case(f"tokens of frames {int(p[0])} to {int(p[-1])}, r={r}, K={K}", (p, r, K))
        for p, r, K in frames
    ]


_GROUP_POSITIONS_SAYS = (
    (
        "first frame",
        lambda p, r, K: p.view(-1, r, K)[:, 0].flatten(),
        "That is the first frame of each group: every slot would claim to lie half a group earlier "
        "than what is in it.",
    ),
    (
        "last frame",
        lambda p, r, K: p.view(-1, r, K)[:, -1].flatten(),
        "That is the last frame of each group, when the slot is made. Asked is where its content "
        "lies, and that is around the middle.",
    ),
    (
        "half a frame late",
        lambda p, r, K: p.float().view(-1, r, K)[:, 0].flatten() + r / 2,
        "Half a frame too late: of frames 0, 1, 2, 3 the middle is 1.5, not 2. r frames have r - 1 "
        "steps between them.",
    ),
    (
        "once per group",
        lambda p, r, K: p.float().view(-1, r, K).mean((1, 2)),
        "One position for each group. A group keeps K slots, and each of them needs its position.",
    ),
    (
        "rounded",
        lambda p, r, K: p.float().view(-1, r, K).mean(1).flatten().floor().long(),
        "You rounded. For an even r the centre lies between two frames, at x.5, and rotary "
        "positions "
        "need not be whole.",
    ),
    (
        "numbered anew",
        lambda p, r, K: torch.arange(len(p) // (r * K)).repeat_interleave(K),
        "You numbered the groups 0, 1, 2. Then time in the compressed past runs r times as fast as "
        "in "
        "the dense segment beside it.",
    ),
    (
        "tokens in a row",
        lambda p, r, K: p.float().view(-1, r).mean(1),
        "Right for K = 1. With more slots, r tokens in a row are not r frames: the positions must "
        "be "
        "grouped like the tokens.",
    ),
)
register(
    Exercise(
        name="group_positions",
        lesson="05",
        reference=centres_by_ends,
        cases=_position_cases,
        covers="5 segments, r from 1 to 16, K from 1 to 3",
        compare=lambda expected, got: same(
            expected, got.float() if isinstance(got, Tensor) else got
        ),
        diagnose=_wrong_shape,
        wrong=wrong_answers(_GROUP_POSITIONS_SAYS),
    )
)

# ---- smear ----


def smear_by_adding(r: int, frequency: float) -> float:
    """Length of the mean of r unit vectors, each turned by `frequency` (radians) from the one
    before, by adding them up.
    """
    return abs(sum(cmath.exp(1j * frequency * t) for t in range(r)) / r)


def _smear_cases() -> list[Case]:
    settings = [(r, w) for r in (1, 2, 4, 8, 16) for w in (1.0, 0.3, 0.0316, 2.5)] + [
        (4, math.pi / 2),
        (16, 0.0),
        (5, 0.7),
    ]
    return [Case(f"r={r}, frequency={w:.4g}", (r, w)) for r, w in settings]


def _not_a_number(case: Case, expected: Any, got: Any) -> str | None:
    return STANDS_STILL if isinstance(got, float) and math.isnan(got) else None


STANDS_STILL = (
    "At frequency 0 nothing turns and the formula reads 0/0. Its value there is 1: say so before "
    "you divide."
)

_SMEAR_SAYS = (
    (
        "the sum",
        lambda r, w: abs(math.sin(r * w / 2) / math.sin(w / 2)) if w else float(r),
        "That is the length of the sum. Of the mean is asked: with nothing turning it must be 1, "
        "not "
        "r.",
    ),
    (
        "whole angles",
        lambda r, w: abs(math.sin(r * w) / (r * math.sin(w))) if w else 1.0,
        "Half angles: both sines take half of what you gave them. Try r = 2 by hand: two vectors w "
        "apart have a mean of length cos(w / 2).",
    ),
    (
        "with its sign",
        lambda r, w: math.sin(r * w / 2) / (r * math.sin(w / 2)) if w else 1.0,
        "A length below 0. The sign says that the mean points backwards; its length is the "
        "absolute "
        "value.",
    ),
    (
        "one component",
        lambda r, w: sum(math.cos(w * t) for t in range(r)) / r,
        "You averaged cosines, which is one component of the mean. Its length needs the sines too.",
    ),
    (
        "lengths first",
        lambda r, w: 1.0,
        "You took the mean of the lengths, and each is 1. First add the vectors, which may cancel; "
        "then ask how long what is left is.",
    ),
    (
        "squared",
        lambda r, w: smear_by_adding(r, w) ** 2,
        "That is the square of the length: cosines squared plus sines squared, and the root is "
        "missing.",
    ),
    (
        "smooth",
        lambda r, w: abs(math.sin(r * w / 2) / (r * w / 2)) if w else 1.0,
        "That averages over all angles in between. There are only r vectors, in steps: sin(w / 2) "
        "below, not w / 2.",
    ),
    ("standing still", lambda r, w: abs(math.sin(r * w / 2) / (r * math.sin(w / 2))), STANDS_STILL),
)
register(
    Exercise(
        name="smear",
        lesson="05",
        reference=smear_by_adding,
        cases=_smear_cases,
        covers="23 pairs of r and frequency against adding the vectors up",
        compare=lambda expected, got: same(expected, got, tolerance=1e-6),
        diagnose=_not_a_number,
        wrong=wrong_answers(_SMEAR_SAYS),
    )
)
