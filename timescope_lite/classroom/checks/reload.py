"""The exercises of lesson 06: put a segment away, bring a window back, what lies on the device, how
wide a window a budget allows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, register, same, wrong_answers
from timescope_lite.memory import LayerKV

Layers = Sequence[Sequence[Tensor]]

# ---- offload ----


def stored_by_numbers(layers: Layers) -> list[LayerKV]:
    """Each tensor written number by number into new memory of its own size, on the CPU."""
    return [
        LayerKV(*(torch.empty(t.shape, dtype=t.dtype).copy_(t) for t in layer)) for layer in layers
    ]


def _alive(layers: Layers) -> int:
    """Bytes that these tensors keep from being freed: of each the whole storage behind it, a
    storage once.
    """
    return sum(
        {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for layer in layers
            for t in layer
        }.values()
    )


def _same_and_as_small(expected: Layers, got: Any) -> bool:
    try:
        kinds = [
            [[(t.dtype, t.device.type) for t in layer] for layer in layers]
            for layers in (expected, got)
        ]
        wanted, given = ([list(layer) for layer in layers] for layers in (expected, got))
    except (AttributeError, TypeError):
        return False
    return kinds[0] == kinds[1] and same(wanted, given, 0.0) and _alive(got) == _alive(expected)


def _segment_cases() -> list[Case]:
    drawn, cases = torch.Generator().manual_seed(6), []
    for L, H, n, D, dtype in (
        (2, 4, 16, 8, torch.float32),
        (3, 1, 8, 4, torch.bfloat16),
        (1, 2, 5, 16, torch.float32),
    ):
        # q, k and v in one activation, heads after tokens as a decoder makes them, or (one head)
        # before
        order = (n, 3 * H) if H > 1 else (3 * H, n)
        whole = [torch.randn(1, *order, D, generator=drawn).to(dtype) for _ in range(L)]
        heads = [qkv.transpose(1, 2) if H > 1 else qkv for qkv in whole]
        layers = [LayerKV(h[:, H : 2 * H], h[:, 2 * H :]) for h in heads]
        cases.append(
            Case(
                f"{L} layers, H={H}, {n} tokens, D={D}, {str(dtype).removeprefix('torch.')}",
                (layers,),
            )
        )
    return cases


def _put_away(change: Callable[[Tensor], Tensor]) -> Callable[[Layers], list[LayerKV]]:
    return lambda layers: [LayerKV(*map(change, layer)) for layer in layers]


_OFFLOAD_SAYS = (
    (
        "views",
        _put_away(lambda t: t.detach().cpu()),
        "The numbers are right, but nothing was put away: these are still views, and a view keeps "
        "the "
        "whole activation behind it alive. "
        "(`.cpu()` and `.to('cpu')` copy nothing that is there already; a deep copy takes all that "
        "lies behind the view along.)",
    ),
    (
        "contiguous",
        _put_away(lambda t: t.detach().cpu().contiguous()),
        "`contiguous` copies only what is not contiguous yet. A slice may be, and then it stays a "
        "view of the whole activation. Ask for a copy.",
    ),
    (
        "one of two",
        lambda layers: [LayerKV(k, v.detach().clone()) for k, v in layers],
        "One of the two was copied, the other is still a view: that one keeps all of it alive. "
        "Which "
        "of them stand alone differs from model to model.",
    ),
    (
        "wider",
        _put_away(lambda t: t.detach().to(torch.float32, copy=True).contiguous().clone()),
        "Another dtype: a segment in bf16 came back in fp32, equal in value and twice as large. "
        "What "
        "is put away keeps its kind, bit for bit.",
    ),
    (
        "half",
        _put_away(lambda t: t.to(torch.bfloat16, copy=True)),
        "You rounded on the way: half the bytes, but no longer what was put in, bit for bit. Keep "
        "the "
        "dtype.",
    ),
)
register(
    Exercise(
        name="offload",
        lesson="06",
        reference=stored_by_numbers,
        cases=_segment_cases,
        covers=(
            "3 segments, each a part of a larger activation, bit for bit and in no more bytes than "
            "their own"
        ),
        compare=_same_and_as_small,
        wrong=wrong_answers(_OFFLOAD_SAYS),
    )
)

# ---- reload_window ----


def window_by_token(segments: Sequence[Layers], first_idx: int, last_idx: int) -> list[LayerKV]:
    """The window written token by token into tensors of the right size; IndexError if it is not
    inside the video.
    """
    if not 0 <= first_idx <= last_idx < len(segments):
        raise IndexError("the window is not inside the video")
    by_layer = zip(*segments[first_idx : last_idx + 1], strict=True)
    return [
        LayerKV(
            *(
                torch.stack(
                    [t[:, :, j] for kv in parts for t in [kv[x]] for j in range(t.shape[2])], 2
                )
                for x in (0, 1)
            )
        )
        for parts in by_layer
    ]


def _window_cases() -> list[Case]:
    drawn = torch.Generator().manual_seed(7)
    segments = [
        [LayerKV(*torch.randn(2, 1, 3, 4, 5, generator=drawn)) for _ in range(2)] for _ in range(6)
    ]
    return [
        Case(f"segments {a} to {b} of 0 to 5", (segments, a, b))
        for a, b in ((1, 3), (0, 5), (4, 4), (4, 6), (-2, 3))
    ]


def _joined(
    stop: int = 1,
    dim: int = 2,
    check: str = "both",
    by_layer: bool = True,
    join: Callable[..., Tensor] = torch.cat,
) -> Callable[..., Any]:
    """The window joined, with a mistake: an end left out, another axis, no look at one border or
    both, segments outside and layers inside.
    """

    def reload(segments: Sequence[Layers], first_idx: int, last_idx: int) -> Any:
        if (
            check
            and last_idx >= len(segments)
            or check == "both"
            and not 0 <= first_idx <= last_idx
        ):
            raise IndexError("outside")
        chosen = segments[first_idx : last_idx + stop]
        rows = zip(*chosen, strict=True) if by_layer else chosen
        return [
            LayerKV(*(join(parts, dim=dim) for parts in zip(*row, strict=True))) for row in rows
        ]

    return reload


_RELOAD_SAYS = (
    (
        "open end",
        _joined(stop=0),
        (
            "The last segment is missing: first_idx..last_idx counts both ends, a Python slice "
            "stops "
            "before its second."
        ),
    ),
    (
        "no look",
        _joined(check=""),
        "A window outside the video came back cut short or empty, without a word. "
        "A slice never complains: raise IndexError unless 0 <= first_idx <= last_idx < "
        "len(segments).",
    ),
    (
        "upper end only",
        _joined(check="upper"),
        "You looked at one end only. `segments[-2:4]` is no error in Python: -2 counts from the "
        "back, "
        "and the window is another one.",
    ),
    (
        "batch",
        _joined(dim=0),
        (
            "You joined along the batch, where `cat` joins unless told otherwise. The window then "
            "looks like several videos of one segment."
        ),
    ),
    (
        "width",
        _joined(dim=3),
        (
            "You joined the head width: each key got longer. There should be more keys: tokens are "
            "the "
            "third axis of (B, H, tokens, D)."
        ),
    ),
    (
        "stacked",
        _joined(dim=0, join=torch.stack),
        "`stack` makes a new axis of segments. Attention knows none: one stretch of tokens is "
        "wanted, "
        "joined along time.",
    ),
    (
        "heads",
        _joined(dim=1),
        (
            "You joined the heads. Segments follow each other in time: tokens are the third axis "
            "of "
            "(B, H, tokens, D)."
        ),
    ),
    (
        "layers",
        _joined(by_layer=False),
        (
            "You joined the layers of each segment. Wanted: per layer, keys and values over all "
            "segments of the window."
        ),
    ),
)
register(
    Exercise(
        name="reload_window",
        lesson="06",
        reference=window_by_token,
        cases=_window_cases,
        covers="3 windows token by token, 2 outside the video",
        compare=lambda expected, got: (
            isinstance(got, (list, tuple))
            and same(list(map(list, expected)), list(map(list, got)), 0.0)
        ),
        wrong=wrong_answers(_RELOAD_SAYS),
    )
)

# ---- device_kv ----


def device_by_moments(N: int, n: int, S: int, r: int, tier: str) -> float:
    """The most that lies on the device, by walking through its two moments: the last segment is
    read; the window is back.
    """
    held = N * len(range(0, S, r))
    return float(
        held + (N * S if tier == "device" else max(S, n * S))
    )  # while streaming, while answering


def _device_cases() -> list[Case]:
    sizes = [(225, 3, 16, 16), (225, 0, 16, 16), (32, 32, 16, 4), (8, 1, 16, 8), (5, 2, 12, 3)]
    return [
        Case(f"N={N}, n={n}, S={S}, r={r}, DVR on {tier}", (N, n, S, r, tier))
        for tier in ("host", "device")
        for N, n, S, r in sizes
    ]


_DEVICE_SAYS = (
    (
        "attended",
        lambda N, n, S, r, tier: (N - n) * S / r + (N * S if tier == "device" else max(S, n * S)),
        "You took the HVR of the reloaded segments out. That is attended KV: it is not *read* in "
        "the "
        "fine stage, but it stays where it is.",
    ),
    (
        "twice",
        lambda N, n, S, r, tier: N * S / r + (N * S + n * S if tier == "device" else max(S, n * S)),
        "With the DVR on the device the window is there already; you counted it twice.",
    ),
    (
        "no segment",
        lambda N, n, S, r, tier: N * S / r + (N * S if tier == "device" else n * S),
        "With nothing reloaded you count the HVR alone. While the video streams, one segment lies "
        "there dense: the largest moment counts.",
    ),
    (
        "both moments",
        lambda N, n, S, r, tier: N * S / r + (N * S if tier == "device" else S + n * S),
        "You added two moments. When the window comes back, the segment that was being read is "
        "long "
        "put away: the larger of the two counts.",
    ),
    (
        "HVR in segments",
        lambda N, n, S, r, tier: N / r + (N * S if tier == "device" else max(S, n * S)),
        "Two units in one sum: N / r are segments' worth, the rest are frames. A segment keeps S / "
        "r "
        "slots in the HVR.",
    ),
    (
        "no HVR",
        lambda N, n, S, r, tier: float(N * S if tier == "device" else max(S, n * S)),
        "The HVR is missing. It is on the device at every moment.",
    ),
    (
        "one tier",
        lambda N, n, S, r, tier: N * S / r + max(S, n * S),
        "`tier` makes no difference here: on the device all N segments lie dense.",
    ),
)
register(
    Exercise(
        name="device_kv",
        lesson="06",
        reference=device_by_moments,
        cases=_device_cases,
        covers="5 memories on 2 tiers, moment by moment",
        wrong=wrong_answers(_DEVICE_SAYS),
    )
)

# ---- widest_window ----


def widest_by_trying(budget: float, N: int, S: int, r: int) -> int:
    """The largest number of reloaded segments that keeps to the budget, by trying them all; 0 if
    not even one fits.
    """
    return max((n for n in range(1, N + 1) if (N - n) * S / r + n * S <= budget), default=0)


def _by_division(
    up: bool = False,
    rest: bool = True,
    whole: bool = False,
    cap: bool = True,
    guard: bool = True,
    floor: int = 0,
) -> Callable[..., int]:
    """The same by one division, with a mistake: rounded up, the rest or the slots of the window
    forgotten, no upper or lower end, r = 1 not looked at.
    """

    def widest(budget: float, N: int, S: int, r: int) -> int:
        if r == 1 and guard:
            return N if budget >= N * S else 0
        n = (budget - (N * S / r if rest else 0)) / (S if whole else S - S / r)
        return max(floor, min(math.ceil(n) if up else math.floor(n), N if cap else 10**9))

    return widest


_WIDEST_SAYS = (
    (
        "no rest",
        _by_division(rest=False, whole=True),
        "You spent the whole budget on the reload. The HVR of all other segments is read beside "
        "it, "
        "and is paid first.",
    ),
    (
        "window twice",
        _by_division(whole=True),
        "Close, and too careful: a reloaded segment replaces its HVR, so it costs S - S / r more, "
        "not "
        "S more.",
    ),
    (
        "up",
        _by_division(up=True),
        "You rounded up: the last segment does not fit any more. A budget is an upper end.",
    ),
    (
        "no end",
        _by_division(cap=False),
        "More segments than the video has. A large budget reloads all of them and no more.",
    ),
    (
        "below zero",
        _by_division(floor=-(10**9)),
        (
            "Fewer than no segments: here the HVR alone is over the budget. Then not even one "
            "fits, "
            "and that is 0."
        ),
    ),
    (
        "by zero",
        _by_division(guard=False),
        (
            "At r = 1 you divide by zero: nothing is compressed, and reloading costs nothing. What "
            "is "
            "the answer then?"
        ),
    ),
)
_BUDGETS = (
    (256.0, 60, 16, 16),
    (128.0, 60, 16, 16),
    (62.0, 60, 16, 16),
    (256.0, 60, 16, 8),
    (512.0, 225, 16, 16),
    (256.0, 225, 16, 8),
    (1000.0, 20, 16, 4),
    (75.0, 60, 16, 16),
    (74.0, 60, 16, 16),
    (320.0, 20, 16, 1),
    (319.0, 20, 16, 1),
)
register(
    Exercise(
        name="widest_window",
        lesson="06",
        reference=widest_by_trying,
        cases=lambda: [
            Case(f"budget {budget:g}, N={N}, S={S}, r={r}", (budget, N, S, r))
            for budget, N, S, r in _BUDGETS
        ],
        covers="11 budgets against trying every width",
        wrong=wrong_answers(_WIDEST_SAYS),
    )
)
