"""The exercises of lesson 04: what a token may read, one segment of attention over a cache, what
must be held while streaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import (
    Case,
    Exercise,
    WrongAnswer,
    register,
    wrong_answers,
)

# ---- segment_mask ----


def mask_by_asking(num_segments: int, n: int, slots: int) -> Tensor:
    """The mask (N, P + N) by asking every token about every slot and every token."""
    tokens, pooled = range(num_segments * n), range(num_segments * slots)
    rows = [
        [p // slots < i // n for p in pooled] + [j // n == i // n and j <= i for j in tokens]
        for i in tokens
    ]
    return torch.tensor(rows)


def _mask_with(
    past: Callable[..., Tensor], own: Callable[..., Tensor]
) -> Callable[[int, int, int], Tensor]:
    """A mask from two rules: past(segment of the slot, segment of the token), own(key, token,
    segment of the key, segment of the token).
    """

    def compute(num_segments: int, n: int, slots: int) -> Tensor:
        token, slot = torch.arange(num_segments * n), torch.arange(num_segments * slots)
        i, p = token[:, None], slot[None] // slots
        return torch.cat([past(p, i // n), own(token[None], i, token[None] // n, i // n)], dim=1)

    return compute


def _earlier(p: Tensor, s: Tensor) -> Tensor:
    return p < s


def _causal(j: Tensor, i: Tensor, of_j: Tensor, of_i: Tensor) -> Tensor:
    return (j <= i) & (of_j == of_i)


register(
    Exercise(
        name="segment_mask",
        lesson="04",
        reference=mask_by_asking,
        cases=lambda: [
            Case(f"{m} segments of {n} tokens, {s} slots each", (m, n, s))
            for m, n, s in ((4, 4, 2), (3, 6, 2), (1, 4, 1), (5, 4, 4))
        ],
        covers="4 shapes against asking every pair",
        wrong=(
            WrongAnswer(
                "own HVR",
                _mask_with(lambda p, s: p <= s, _causal),
                "A token reads the HVR of its own segment. Those slots are means over frames that "
                "come after it: the future leaks in.",
            ),
            WrongAnswer(
                "not causal",
                _mask_with(_earlier, lambda j, i, of_j, of_i: of_j == of_i),
                "Inside its own segment a token reads frames that come after it. There the mask "
                "has to be causal.",
            ),
            WrongAnswer(
                "all HVR",
                _mask_with(lambda p, s: (p == p) & (s == s), _causal),
                "Every token reads every HVR slot, those of later segments too. While streaming "
                "they do not exist yet.",
            ),
            WrongAnswer(
                "dense past",
                _mask_with(_earlier, lambda j, i, of_j, of_i: j <= i),
                "Tokens of earlier segments are read as they were, and once more as HVR. While "
                "streaming they have been put away.",
            ),
            WrongAnswer(
                "hidden",
                lambda m, n, slots: ~mask_by_asking(m, n, slots),
                "The other way round: True where something is hidden, as `masked_fill` wants it. "
                "Here True means: may be read.",
            ),
            WrongAnswer(
                "tokens first",
                lambda m, n, slots: mask_by_asking(m, n, slots).roll(m * n, 1),
                "Right shape, wrong order: your columns are [tokens ; HVR]. The HVR slots come "
                "first, as everywhere in this lesson.",
            ),
            WrongAnswer(
                "upside down",
                _mask_with(_earlier, lambda j, i, of_j, of_i: (j >= i) & (of_j == of_i)),
                "The triangle stands on its head: a token reads what comes after it. A row is the "
                "token that reads, a column what is read.",
            ),
            WrongAnswer(
                "not itself",
                _mask_with(_earlier, lambda j, i, of_j, of_i: (j < i) & (of_j == of_i)),
                "A token does not read itself. The first token of the first segment would then "
                "have nothing to read at all.",
            ),
        ),
    )
)

# ---- stream_step ----


def step_by_rows(q: Tensor, own_k: Tensor, own_v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
    """Each token alone, in float64: a softmax over exactly the keys that it may read, so no mask is
    needed.
    """
    out = torch.zeros(q.shape, dtype=torch.float64)
    for i in range(q.shape[2]):
        k, v = (
            torch.cat([past, own[:, :, : i + 1]], dim=2).double()
            for past, own in ((past_k, own_k), (past_v, own_v))
        )
        scores = (q[:, :, i, None].double() * k).sum(-1) / math.sqrt(q.shape[-1])
        out[:, :, i] = (scores.softmax(-1)[..., None] * v).sum(2)
    return out.float()


def _step_with(rule: str) -> Callable[..., Tensor]:
    """`stream_step` with one mistake."""

    def compute(q: Tensor, own_k: Tensor, own_v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
        n, P = q.shape[2], past_k.shape[2]
        if rule == "two softmaxes":
            apart = step_by_rows(q, own_k, own_v, past_k[:, :, :0], past_v[:, :, :0])
            return apart + (q @ past_k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ past_v
        diagonal = {"corner": 0, "not causal": P + n, "one short": P - 1, "one ahead": P + 1}.get(
            rule, P
        )
        allowed = torch.ones(n, P + n, dtype=torch.bool).tril(diagonal)
        allowed[:, :P] &= rule != "no past"
        order = (
            (lambda past, own: [own, past])
            if rule == "own first"
            else lambda past, own: [past, own]
        )
        scores = (
            q
            @ torch.cat(order(past_k, own_k), dim=2).mT
            / (1.0 if rule == "no scale" else math.sqrt(q.shape[-1]))
        )
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(
            -2 if rule == "over tokens" else -1
        )
        return weights @ torch.cat(order(past_v, own_v), dim=2)

    return compute


def _step_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(4)
    shapes = [(1, 2, 4, 0, 8), (1, 2, 4, 6, 8), (2, 3, 8, 4, 4), (1, 1, 1, 5, 16)]
    return [
        Case(
            f"B={B}, H={H}, {n} tokens after {P} slots, D={D}",
            tuple(torch.randn(B, H, m, D, generator=drawn) for m in (n, n, n, P, P)),
        )
        for B, H, n, P, D in shapes
    ]


_STEP_SAYS = {
    "corner": "Right without a past, wrong with one: your triangle starts in the corner of "
    "[past ; own], so early tokens miss most of the past. "
    "(`is_causal=True` does the same on such a mask.) The diagonal has to move right by the number "
    "of past slots.",
    "not causal": "Tokens read later tokens of their own segment: the own part of the mask has to "
    "be causal.",
    "one short": (
        "A token does not read itself: your diagonal lies one too low. (Without a past the first "
        "token then reads nothing, and 0/0 is NaN.)"
    ),
    "one ahead": "Every token reads the one after it: your diagonal lies one too far to the right.",
    "own first": (
        "Your keys stand as [own ; past] and your mask as [past ; own]: what is hidden is now the "
        "wrong part. One order for all three."
    ),
    "over tokens": (
        "The softmax runs over the tokens that ask. It belongs over what is read: for each token "
        "the weights of its keys sum to 1."
    ),
    "no past": "The past is never read. Its keys and values belong before those of the segment.",
    "two softmaxes": (
        "Past and own segment each got a softmax of their own, so every token pays 1 to both. One "
        "softmax over [past ; own] lets it choose."
    ),
    "no scale": "The scores are not divided by the square root of the head width D.",
}
register(
    Exercise(
        name="stream_step",
        lesson="04",
        reference=step_by_rows,
        cases=_step_cases,
        covers="4 shapes, one without a past, against each token alone",
        wrong=wrong_answers(
            [(rule, _step_with(rule), message) for rule, message in _STEP_SAYS.items()]
        ),
    )
)

# ---- working_memory ----


def memory_by_streaming(num_frames: int, S: int, r: int) -> float:
    """The most that attention reads at once, in frames' worth, by walking through the video."""
    held, peak, frame = 0.0, 0.0, 0
    while frame < num_frames:
        peak, held, frame = max(peak, held + S), held + S / r, frame + S
    return peak


register(
    Exercise(
        name="working_memory",
        lesson="04",
        reference=memory_by_streaming,
        cases=lambda: [
            Case(f"{frames} frames, S={S}, r={r}", (frames, S, r))
            for frames, S, r in (
                (3600, 16, 16),
                (3600, 16, 4),
                (64, 16, 1),
                (1000, 16, 8),
                (16, 16, 8),
                (900, 12, 3),
                (5, 16, 16),
            )
        ],
        covers="7 videos against walking through them",
        wrong=(
            WrongAnswer(
                "own HVR",
                lambda frames, S, r: math.ceil(frames / S) * S / r + S,
                "The segment that is being read is in there twice, dense and as HVR. Its HVR is "
                "read by later segments only.",
            ),
            WrongAnswer(
                "only the past",
                lambda frames, S, r: (math.ceil(frames / S) - 1) * S / r,
                "You counted the past alone. The segment that is being read lies there with all "
                "its frames.",
            ),
            WrongAnswer(
                "all over r",
                lambda frames, S, r: frames / r + S,
                "The whole video is in there as HVR, and its last segment once more as frames. "
                "While that one is read, only the ones before it are pooled.",
            ),
            WrongAnswer(
                "constant",
                lambda frames, S, r: float(S),
                "One segment, whatever the length of the video. What was read before stays in "
                "sight as HVR, and it grows: by S / r a segment.",
            ),
            WrongAnswer(
                "rounded down",
                lambda frames, S, r: (frames // S - 1) * S / r + S,
                "A last segment that is not full was left out. It is padded and read like the "
                "others: round the number of segments up.",
            ),
            WrongAnswer(
                "dense",
                lambda frames, S, r: float(frames),
                "That is dense attention: nothing is compressed.",
            ),
            WrongAnswer(
                "part of a segment",
                lambda frames, S, r: max(frames / S - 1, 0) * S / r + S,
                "Right where S divides the video. A part of a segment is no number of segments: "
                "the last one is padded to S frames.",
            ),
            WrongAnswer(
                "a slot per segment",
                lambda frames, S, r: float(math.ceil(frames / S) - 1 + S),
                "One slot per segment is right at r = S alone. A past segment keeps S / r slots.",
            ),
        ),
    )
)
