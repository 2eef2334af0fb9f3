"""The exercises of lesson 03: the frame on screen at a time, events that sampled frames miss,
rotary positions, one step with a KV cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, register, same, wrong_answers

Make = Callable[[str], Callable[..., Any]]  # the exercise's function with the mistake of that name


def _register(
    name: str,
    reference: Callable[..., Any],
    cases: Callable[[], list[Case]],
    covers: str,
    make: Make,
    says: dict[str, str],
) -> None:
    wrong = wrong_answers([(rule, make(rule), message) for rule, message in says.items()])
    register(
        Exercise(
            name,
            "03",
            reference,
            cases,
            covers,
            wrong,
            compare=lambda expected, got: same(expected, got, tolerance=1e-4),
        )
    )


# ---- frame_on_screen ----


def frame_by_asking(times_s: np.ndarray, stamps_s: np.ndarray) -> np.ndarray:
    """Every time asks every frame whether it has begun; the last that has is on screen."""
    began = [
        [i for i, stamp in enumerate(stamps_s) if stamp - stamps_s[0] <= time_s]
        for time_s in times_s
    ]
    return np.array([frames[-1] for frames in began])


def _frame_cases() -> list[Case]:
    rng = np.random.default_rng(3)
    steady = np.arange(40) / 4
    slowing = np.concatenate([np.arange(32) / 8, 4 + np.arange(12) / 2])
    drawn = np.concatenate([[0.0], np.cumsum(rng.integers(1, 40, 30) / 64)])
    asked = [np.arange(0, stamps[-1], 0.5) for stamps in (steady, slowing, drawn)]
    between = np.sort(rng.integers(0, 600, 40)) / 64
    return [
        Case("4 frames per second, asked on the border of frames", (asked[0], steady)),
        Case("8 frames per second, then 2", (asked[1], slowing)),
        Case("the same, its first stamp at 5 s", (asked[1], slowing + 5)),
        Case("frames at random times", (asked[2], drawn)),
        Case("4 frames per second, asked between frames", (between, steady)),
    ]


def _frame_with(rule: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """`frame_on_screen` with one mistake."""

    def compute(times_s: np.ndarray, stamps_s: np.ndarray) -> np.ndarray:
        own = stamps_s if rule == "offset" else stamps_s - stamps_s[0]
        if rule == "in place":
            stamps_s -= stamps_s[0]
        if rule == "nearest":
            return np.abs(own[None] - times_s[:, None]).argmin(1)
        if rule == "time * fps":
            found = np.floor(times_s * (len(own) - 1) / own[-1] + 1e-9).astype(int)
        else:
            found = np.searchsorted(own, times_s, side="left" if rule == "border" else "right") - (
                rule != "next frame"
            )
        return np.clip(found, 0, len(own) - 1)

    return compute


_FRAME_SAYS = {
    "time * fps": (
        "That is frame number = time * fps, with the mean rate. It holds where all gaps are equal. "
        "Search the stamps instead."
    ),
    "in place": "changed its input `stamps_s` in place",
    "offset": (
        "Right where the first stamp is 0. Times count from the first frame, so its stamp has to "
        "be taken off all stamps."
    ),
    "nearest": (
        "That is the nearest frame, and half of the time it has not begun yet. A screen shows a "
        "frame until the next one begins."
    ),
    "next frame": (
        "One too far: you return the first frame that begins after the time. The one before it is "
        "still on screen."
    ),
    "border": (
        "Right between frames, wrong on their borders: a frame that begins exactly at the time is "
        "on screen already (side='right')."
    ),
}
_register(
    "frame_on_screen",
    frame_by_asking,
    _frame_cases,
    "5 lists of stamps against asking every frame",
    _frame_with,
    _FRAME_SAYS,
)

# ---- share_missed ----


def missed_by_asking(starts_s: np.ndarray, event_s: float, frames_s: np.ndarray) -> float:
    """Every event asks every frame whether it lies in [start, start + event_s)."""
    return float(
        np.mean(
            [not any(start <= frame < start + event_s for frame in frames_s) for start in starts_s]
        )
    )


def _missed_cases() -> list[Case]:
    rng = np.random.default_rng(4)
    shapes = [(6, 2.0, 60), (6, 5.0, 60), (15, 2.0, 60), (3, 4.0, 40), (30, 3.0, 60)]
    starts = [rng.integers(0, video - int(event), 60).astype(float) for _, event, video in shapes]
    frames = [np.arange(n) * float(video // n) for n, _, video in shapes]
    labels = [f"{n} frames of {video} s, events of {event:g} s" for n, event, video in shapes]
    return [
        Case(label, (s, shape[1], f))
        for label, s, shape, f in zip(labels, starts, shapes, frames, strict=True)
    ]


def _missed_with(rule: str) -> Callable[[np.ndarray, float, np.ndarray], float]:
    """`share_missed` with one mistake."""

    def compute(starts_s: np.ndarray, event_s: float, frames_s: np.ndarray) -> float:
        after = frames_s[None] - starts_s[:, None]  # (events, frames)
        earliest = -event_s + 1e-9 if rule == "near enough" else 0
        begun = after > 0 if rule == "open start" else after >= earliest
        hit = begun & (after <= event_s if rule == "closed end" else after < event_s)
        seen = hit if rule == "share of pairs" else hit.any(0 if rule == "share of frames" else 1)
        missed = float(np.mean(seen) if rule == "share seen" else 1 - np.mean(seen))
        return missed * len(starts_s) if rule == "count" else missed

    return compute


_MISSED_SAYS = {
    "share seen": "That is the share of events that some frame sees. Asked is the share that "
    "none does.",
    "share of frames": (
        "You counted frames that see no event. Count events that no frame sees: one answer per "
        "event, over all frames."
    ),
    "share of pairs": (
        "You averaged over all pairs of event and frame. One frame is enough to see an event: "
        "`any` over the frames, then the mean."
    ),
    "closed end": (
        "A frame at exactly start + event_s counts as a hit. An event is [start, end): at its end "
        "it is over."
    ),
    "open start": (
        "A frame at exactly the start counts as a miss. An event is [start, end): in its first "
        "moment it is on."
    ),
    "count": "That is how many events are missed. Asked is their share, 0 to 1.",
    "near enough": (
        "A frame shortly before the start counts as a hit. It shows the moment before: only start "
        "<= frame sees the event."
    ),
}
_register(
    "share_missed",
    missed_by_asking,
    _missed_cases,
    "5 videos against every event asking every frame",
    _missed_with,
    _MISSED_SAYS,
)

# ---- rotary ----


def rotary_by_planes(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Each pair (i, i + D / 2) as a complex number, multiplied by exp(1j * angle), in float64."""
    half = x.shape[-1] // 2
    angle = positions[:, None].double() * base ** (-torch.arange(half).double() / half)
    turned = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(
        torch.ones_like(angle), angle
    )
    return torch.cat([turned.real, turned.imag], dim=-1).float()


def _turn_with(rule: str) -> Callable[[Tensor, Tensor, float], Tensor]:
    """`rotary` with one mistake."""

    def compute(x: Tensor, positions: Tensor, base: float) -> Tensor:
        half = x.shape[-1] // 2
        steps = torch.arange(half) / (2 * half if rule == "exponent" else half)
        angle = (
            positions[:, None]
            * (torch.ones(half) if rule == "one speed" else base**-steps)
            * (-1 if rule == "backwards" else 1)
        )
        cos, sin = angle.cos(), angle.sin()
        a, b = (
            (x[..., ::2], x[..., 1::2]) if rule == "neighbours" else (x[..., :half], x[..., half:])
        )
        if (
            rule == "in place"
        ):  # a and b are views of x, so the second line reads what the first has written
            x[..., :half] = a * cos - b * sin
            x[..., half:] = a * sin + b * cos
            return x
        turned = (
            a * cos - b * sin * (-1 if rule == "both plus" else 1),
            a * sin + b * cos * (-1 if rule == "both minus" else 1),
        )
        return (
            torch.stack(turned, dim=-1).flatten(-2)
            if rule == "neighbours"
            else torch.cat(turned, dim=-1)
        )

    return compute


def _rotary_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(5)
    places = [torch.arange(5.0), torch.arange(6.0) + 20, torch.tensor([7.5, 23.5, 39.5])]
    shapes = [(1, 2, 5, 8), (2, 3, 6, 16), (1, 1, 3, 4)]
    return [
        Case(
            f"x {shape}, positions from {at[0]:g}, base {base:g}",
            (torch.randn(*shape, generator=drawn), at, base),
        )
        for shape, at, base in zip(shapes, places, (10000.0, 1000.0, 100.0), strict=True)
    ]


_TURN_SAYS = {
    "neighbours": (
        "You pair neighbours, 0 with 1 and 2 with 3 (as GPT-J does). Here, as in Qwen3 and Llama, "
        "number i goes with number i + D / 2."
    ),
    "exponent": (
        "The frequencies fall too slowly: over the D / 2 pairs the exponent runs from 0 to almost "
        "1, so divide i by D / 2 and not by D."
    ),
    "one speed": (
        "All pairs turn at the same speed. Pair i turns base ** (-i / (D / 2)) radians per "
        "position."
    ),
    "both plus": (
        "Your pairs change their length, and a turn never does. One of the four products must be "
        "taken off: b sin, from a cos."
    ),
    "both minus": (
        "Your pairs are mirrored, not turned: both lines take something off. In the second one b "
        "cos is added."
    ),
    "in place": "changed its input `x` in place",
    "backwards": "The pairs turn the wrong way: first = a cos - b sin, second = a sin + b cos.",
}
_register(
    "rotary",
    rotary_by_planes,
    _rotary_cases,
    "3 shapes and bases against turning complex numbers",
    _turn_with,
    _TURN_SAYS,
)

# ---- cached_step ----


def _step_with(rule: str = "") -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """`cached_step` in float64, with one mistake if a rule is named."""

    def compute(
        q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor, base: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        P = past_k.shape[2]
        at = torch.tensor(
            [{"position 0": 0.0, "one before": P - 1.0, "one behind": P + 1.0}.get(rule, float(P))]
        )
        turned_q = q if rule == "plain query" else rotary_by_planes(q, at, base)
        turned_k = rotary_by_planes(k, at, base)
        if rule == "turned twice":
            keys = rotary_by_planes(torch.cat([past_k, k], dim=2), torch.arange(P + 1.0), base)
        else:
            keys = torch.cat([past_k, turned_k], dim=2)
        values = torch.cat(
            [past_v, rotary_by_planes(v, at, base) if rule == "turned values" else v], dim=2
        )
        seen = P if rule == "past only" else P + 1
        scores = (
            turned_q.double()
            @ keys[:, :, :seen].double().mT
            / (1 if rule == "no scale" else math.sqrt(q.shape[-1]))
        )
        out = (
            scores.softmax(-2 if rule == "over queries" else -1) @ values[:, :, :seen].double()
        ).float()
        kept = (
            torch.cat([past_k, k], dim=2)
            if rule == "kept unturned"
            else past_k
            if rule == "not kept"
            else keys
        )
        return out, kept, past_v if rule == "not kept" else values

    return compute


def _step_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(6)
    shapes = [(1, 2, 0, 8), (1, 2, 5, 8), (2, 4, 11, 16)]
    return [
        Case(
            f"B={B}, H={H}, {P} tokens in the cache, D={D}",
            (*(torch.randn(B, H, n, D, generator=drawn) for n in (1, 1, 1, P, P)), 1000.0),
        )
        for B, H, P, D in shapes
    ]


_STEP_SAYS = {
    "position 0": (
        "The new token is turned to position 0. It stands behind P others, so its position is P; "
        "only an empty cache hides this."
    ),
    "one before": (
        "The new token is turned to the position of the last one in the cache. Positions count "
        "from 0, so behind P tokens stands number P."
    ),
    "one behind": (
        "The new token is turned one too far: you counted the tokens after it had been put into "
        "the cache."
    ),
    "turned values": (
        "The values are turned too. Only queries and keys are: their product tells the distance. A "
        "value is what is brought home, as it is."
    ),
    "over queries": (
        "The softmax runs over the queries, and there is one, so every weight is 1. The weights of "
        "the keys must sum to 1."
    ),
    "turned twice": (
        "The keys in the cache are turned a second time. They were turned to their positions when "
        "they came in; turn the new one alone."
    ),
    "kept unturned": (
        "The output is right, the cache is not: the key that you keep is not turned, and the next "
        "token would read it as it is."
    ),
    "past only": (
        "The new token does not read itself. Put its key and value into the cache first, then "
        "attend."
    ),
    "plain query": (
        "The query is not turned. Only if both are turned does their product know how far apart "
        "they stand."
    ),
    "not kept": (
        "The cache that you return has not grown. The next token would not know that this one was "
        "there."
    ),
    "no scale": "The scores are not divided by the square root of the head width D.",
}
_register(
    "cached_step",
    _step_with(),
    _step_cases,
    "3 caches, one of them empty, in float64",
    _step_with,
    _STEP_SAYS,
)
