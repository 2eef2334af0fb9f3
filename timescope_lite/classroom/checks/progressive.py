"""The exercises of lesson 07: reasoning written greedily, a time with its probability, the window
to reload.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from timescope_lite.classroom.checks.core import Case, Exercise, register, wrong_answers

Scores = Callable[[list[int]], Tensor]

# ---- write_reasoning ----


def written_word_by_word(
    scores: Scores, words: Sequence[int], stop: int, longest: int
) -> list[int]:
    """The greedy text by recursion: the best word, then the rest after it; `stop` ends it and
    belongs to it.
    """

    def rest(written: list[int]) -> list[int]:
        if len(written) == longest or written[-1:] == [stop]:
            return written
        said = scores(list(written)).tolist()
        return rest([*written, sorted(words, key=lambda word: -said[word])[0]])

    return rest([])


def _teller(script: Sequence[int], tempting: int) -> Scores:
    """Scores of 12 tokens that lead along `script` as long as it is followed from its beginning;
    `tempting` is no word and always the best.
    """

    def scores(written: list[int]) -> Tensor:
        assert len(written) < 40, "40 words and no end"
        history = sum(13**i * (token + 1) for i, token in enumerate(written))
        said = torch.randn(12, generator=torch.Generator().manual_seed(history % 2**31))
        followed = list(script[: len(written)]) == list(written)
        said[
            script[len(written)]
            if followed and len(written) < len(script)
            else 5
            if len(written) < 12
            else 3
        ] += 6
        said[tempting] += 12
        return said

    return scores


def _reasoning_cases() -> list[Case]:
    scripts = {
        "three words": [4, 7, 6, 3],
        "none": [3],
        "one twice": [5, 8, 5, 3],
        "no end": [4, 4, 8, 6, 7, 5, 8, 4],
    }
    return [
        Case(name, (_teller(script, tempting=10), [3, 4, 5, 6, 7, 8], 3, 6))
        for name, script in scripts.items()
    ]


def _greedy(  # noqa: PLR0913
    all_tokens: bool = False,
    keep_stop: bool = True,
    look: bool = True,
    last_only: bool = False,
    limit: bool = True,
    more: int = 0,
    place: bool = False,
) -> Callable[..., Any]:
    """Greedy writing with a mistake: any token, no stop in the text, no look at the stop, only the
    last word read, no limit or one more, a place in `words`.
    """

    def write(scores: Scores, words: Sequence[int], stop: int, longest: int) -> list[int]:
        written: list[int] = []
        while len(written) < longest + more or not limit:
            said = scores(written[-1:] if last_only else written)
            word = int(said.argmax()) if all_tokens else max(words, key=lambda w: float(said[w]))
            word = list(words).index(word) if place else word
            if word == stop and look:
                return [*written, word] if keep_stop else written
            written.append(word)
        return written

    return write


_REASONING_SAYS = (
    (
        "any token",
        _greedy(all_tokens=True),
        "You took the best of all tokens. Reasoning is made of `words` only: elsewhere stand "
        "seconds "
        "and tags, and one of them may score highest.",
    ),
    (
        "no stop",
        _greedy(keep_stop=False),
        "<so> is missing at the end. It is part of the text: the window is asked for after it, and "
        "the fine stage reads it too.",
    ),
    ("no end", _greedy(look=False), "You went on after <so>. It means: nothing more to say."),
    (
        "last word",
        _greedy(last_only=True),
        (
            "You gave `scores` the last word only. The next word depends on all that was written "
            "so "
            "far."
        ),
    ),
    (
        "place in the list",
        _greedy(place=True),
        "You wrote where the best word stands in `words`, not the word: `argmax` over a selection "
        "counts from 0 in that selection. Translate it back.",
    ),
    (
        "one more",
        _greedy(more=1),
        (
            "One token more than `longest`. Is there still room? has to be asked before a token is "
            "written, not after."
        ),
    ),
    (
        "too long",
        _greedy(limit=False),
        (
            "A text without <so> came out longer than `longest`. A model that does not stop must "
            "be "
            "stopped."
        ),
    ),
)
register(
    Exercise(
        name="write_reasoning",
        lesson="07",
        reference=written_word_by_word,
        cases=_reasoning_cases,
        covers="4 texts, one of them empty and one without an end",
        wrong=wrong_answers(_REASONING_SAYS),
    )
)

# ---- read_time ----


def time_by_counting(scores: Tensor, earliest: int, S: int) -> tuple[int, float]:
    """The best second from `earliest` on, and its segment's share of all weights e^score from there
    on, summed one by one.
    """
    weight = {
        second: math.exp(score)
        for second, score in enumerate(scores.tolist())
        if second >= earliest
    }
    best = max(weight, key=lambda second: weight[second])
    segment = range(best // S * S, best // S * S + S)
    return best, sum(w for second, w in weight.items() if second in segment) / sum(weight.values())


def _time_cases() -> list[Case]:
    drawn, cases = torch.Generator().manual_seed(7), []
    for num, earliest, S, peaks in (
        (64, 0, 16, (37, 41)),
        (64, 22, 16, (5, 23, 30)),
        (50, 35, 8, (34, 47, 49)),
        (40, 39, 16, (12,)),
    ):
        scores = torch.randn(num, generator=drawn)
        scores[list(peaks)] += 4.0
        cases.append(Case(f"{num} seconds, from {earliest} on, S={S}", (scores, earliest, S)))
    return cases


def _timed(
    mask: bool = True,
    mask_share: bool = True,
    share: str = "segment",
    late: int = 0,
    hidden: float = -math.inf,
) -> Callable[..., Any]:
    """A time with a mistake: seconds before `earliest` allowed, or weighed, or `earliest` excluded,
    or scored 0; other seconds than its segment's.
    """

    def read(scores: Tensor, earliest: int, S: int) -> tuple[int, float]:
        second = torch.arange(len(scores))
        later = scores.masked_fill(second < earliest + late, hidden)
        best = int((later if mask else scores).argmax())
        p = (later if mask and mask_share else scores).softmax(0)
        groups = {
            "segment": second // S == best // S,
            "second": second == best,
            "around": (second - best).abs() <= S // 2,
        }
        return best, 1.0 if share == "all" else float(
            p[groups[share] & (second >= earliest if mask_share else True)].sum()
        )

    return read


def _masked_after(scores: Tensor, earliest: int, S: int) -> tuple[int, float]:
    second = torch.arange(len(scores))
    p = scores.softmax(0) * (second >= earliest)
    best = int(p.argmax())
    return best, float(p[second // S == best // S].sum())


def _masked_in_place(scores: Tensor, earliest: int, S: int) -> tuple[int, float]:
    scores[:earliest] = -torch.inf
    return time_by_counting(scores, earliest, S)


_TIME_SAYS = (
    (
        "second",
        _timed(share="second"),
        "You gave the probability of that one second. The window is reloaded in whole segments: "
        "any "
        "second of the same segment would reload the same.",
    ),
    (
        "no mask",
        _timed(mask=False, mask_share=False),
        "`earliest` changes nothing in your function. An end before its start is no interval: "
        "seconds "
        "before `earliest` may not be chosen.",
    ),
    (
        "unmasked share",
        _timed(mask_share=False),
        "Right second, wrong share: you weighed the seconds before `earliest` too. Exclude them "
        "before the softmax, so that what may be chosen sums to 1.",
    ),
    (
        "mask late",
        _masked_after,
        "You masked after the softmax. What may be chosen then sums to less than 1: the rest went "
        "to "
        "seconds that cannot be chosen. Mask the scores.",
    ),
    (
        "zero",
        _timed(hidden=0.0),
        "You gave forbidden seconds the score 0, and e^0 is 1: they take part like any other. Only "
        "minus infinity has a weight of 0.",
    ),
    (
        "one late",
        _timed(late=1),
        (
            "`earliest` itself may be chosen: an interval of one second starts and ends in the "
            "same "
            "one. You excluded it."
        ),
    ),
    (
        "around",
        _timed(share="around"),
        "You summed S seconds around the best one. Segments lie on a fixed grid: second 17 and "
        "second "
        "31 reload the same one, 15 and 17 do not.",
    ),
    ("in place", _masked_in_place, "changed its input `scores` in place"),
    (
        "certain",
        _timed(share="all"),
        (
            "Your probability is always 1: you divided by the segment's own sum. Divide by that of "
            "all "
            "seconds that may be chosen."
        ),
    ),
)
register(
    Exercise(
        name="read_time",
        lesson="07",
        reference=time_by_counting,
        cases=_time_cases,
        covers="4 rows of scores, weight by weight",
        wrong=wrong_answers(_TIME_SAYS),
    )
)

# ---- window_to_reload ----


def window_by_trying(
    first: int, last: int, confidence: float, threshold: float, room: int, num_segments: int
) -> tuple[int, int]:
    """The widened window if there is room; else, of all windows of `room` segments, the one whose
    middle is nearest to the coarse one's.
    """
    more = 1 if confidence < threshold else 0
    wanted = [i for i in range(num_segments) if first - more <= i <= last + more]
    if len(wanted) <= room:
        return wanted[0], wanted[-1]
    ends = [(start, start + room - 1) for start in range(num_segments - room + 1)]
    return min(ends, key=lambda pair: abs((pair[0] + (room - 1) // 2) - (first + last) // 2))


def _planned(  # noqa: PLR0913
    clip: bool = True,
    turn: bool = False,
    widen: bool = True,
    narrow: str = "middle",
    border: bool = False,
    slack: int = 0,
    width: int = 0,
) -> Callable[..., Any]:
    """A plan with a mistake: no look at the ends of the video, the sure ones widened, nobody, those
    at the threshold too; narrowed from the start, around another middle, never, before the
    widening; a segment too many let through, or kept.
    """

    def plan(
        first: int, last: int, confidence: float, threshold: float, room: int, num_segments: int
    ) -> tuple[int, int]:
        more = (
            int(
                (confidence >= threshold)
                if turn
                else (confidence < threshold or border and confidence == threshold)
            )
            if widen
            else 0
        )
        wide = (
            (max(first - more, 0), min(last + more, num_segments - 1))
            if clip
            else (first - more, last + more)
        )
        measured = (first, last) if narrow == "before" else wide
        if measured[1] - measured[0] + 1 <= room + slack or narrow == "never":
            return wide
        middle = sum(wide if narrow == "wide" else (first, last)) // 2
        start = (
            min(max(middle - (room - 1) // 2, 0), num_segments - room)
            if narrow != "start"
            else wide[0]
        )
        return start, start + room - 1 + width

    return plan


_PLAN_SAYS = (
    (
        "no clip",
        _planned(clip=False),
        "A window reaches beyond the video. Cut it at segment 0 and at the last one.",
    ),
    (
        "turned",
        _planned(turn=True),
        "You widen where the model is sure. A low confidence is what asks for more.",
    ),
    (
        "nobody",
        _planned(widen=False),
        (
            "The confidence changes nothing in your function: below the threshold, add a segment "
            "on "
            "either side."
        ),
    ),
    (
        "from the start",
        _planned(narrow="start"),
        "Too wide, and you kept its beginning. Nothing says that the evidence comes early: narrow "
        "around the middle of the coarse window.",
    ),
    (
        "other middle",
        _planned(narrow="wide"),
        "Narrowed around the middle of the widened window. Cut at the end of the video, that one "
        "is "
        "lopsided: take the middle of what the model said.",
    ),
    (
        "at the threshold",
        _planned(border=True),
        "A confidence exactly at the threshold was widened. Only what lies below it is.",
    ),
    (
        "one let through",
        _planned(slack=1),
        (
            "A window of room + 1 segments was let through: first..last are last - first + 1 "
            "segments, "
            "both ends counted."
        ),
    ),
    (
        "one kept",
        _planned(width=1),
        (
            "Narrowed to room + 1 segments: both ends belong to the window, so the last one is "
            "start + "
            "room - 1."
        ),
    ),
    (
        "never",
        _planned(narrow="never"),
        "`room` changes nothing in your function: a window may never be wider than it.",
    ),
    (
        "before",
        _planned(narrow="before"),
        "You looked at the room before you widened. It is the widened window that must fit.",
    ),
)
_PLANS = (
    (5, 6, 0.5, 0.5, 6, 32),
    (5, 6, 0.2, 0.5, 6, 32),
    (0, 1, 0.2, 0.5, 6, 32),
    (30, 31, 0.2, 0.5, 6, 32),
    (8, 15, 0.9, 0.5, 7, 32),
    (0, 31, 0.9, 0.5, 6, 32),
    (8, 10, 0.2, 0.5, 3, 32),
    (27, 31, 0.2, 0.5, 3, 32),
    (0, 3, 0.1, 0.0, 4, 4),
)
register(
    Exercise(
        name="window_to_reload",
        lesson="07",
        reference=window_by_trying,
        cases=lambda: [
            Case(
                f"segments {p[0]} to {p[1]} of {p[5]}, confidence {p[2]:g}, threshold {p[3]:g}, "
                f"room {p[4]}",
                p,
            )
            for p in _PLANS
        ],
        covers="9 windows against trying every place",
        wrong=wrong_answers(_PLAN_SAYS),
    )
)
