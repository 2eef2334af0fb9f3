"""The exercises of lesson 12: splits that share no group and no composition, and a score for
captions of events that overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, register, wrong_answers
from timescope_lite.intervals import tiou_many

Caption = tuple[str, float, float]  # a word, start_s, end_s

# ---- hold_out ----


def held_out_by_counting(groups: Sequence[str], share: float) -> list[bool]:
    """Which questions go to the test side: those of the fewest smallest groups that hold `share` of
    all questions together.
    """
    size = Counter(groups)
    ranked = sorted(size, key=lambda group: (size[group], group))
    held = np.cumsum([size[group] for group in ranked])
    chosen = set(ranked[: int(np.searchsorted(held, share * len(groups))) + 1])
    return [group in chosen for group in groups]


def _group_cases() -> list[Case]:
    rng = np.random.default_rng(12)
    drawn = [
        (rng.choice(list("abcdefgh"), n, p=np.arange(1, 9)[::-1] / 36).tolist(), s)
        for n, s in ((40, 0.26), (61, 0.41), (90, 0.13))
    ]
    plain = [(list("aabbbcccc"), 0.2), (list("bbaacc"), 0.3), (list("zzyxzzzz"), 0.1)]
    return [
        Case(
            f"{len(groups)} questions of {len(set(groups))} groups, share {share:g}",
            (groups, share),
        )
        for groups, share in plain + drawn
    ]


def _of_groups(
    choose: Callable[[list[str], Counter[str], float], Sequence[str]],
) -> Callable[..., list[bool]]:
    def split(groups: Sequence[str], share: float) -> list[bool]:
        size = Counter(groups)
        chosen = set(choose(sorted(size, key=lambda group: (size[group], group)), size, share))
        return [group in chosen for group in groups]

    return split


def _first_that_fill(ranked: Sequence[str], size: Counter[str], wanted: float) -> list[str]:
    held = np.cumsum([size[group] for group in ranked]).tolist()
    return list(ranked[: next(n for n, total in enumerate(held, start=1) if total >= wanted)])


def _judge_split(case: Case, expected: list[bool], got: Any) -> str | None:
    groups, share = case.args
    if (
        not isinstance(got, (list, np.ndarray))
        or len(got) != len(groups)
        or not all(isinstance(x, (bool, np.bool_)) for x in got)
    ):
        return (
            f"in the case '{case.label}' return one True or False per question, in their order; "
            "True is the test side."
        )
    torn = [
        group
        for group in dict.fromkeys(groups)
        if len({bool(x) for x, g in zip(got, groups, strict=True) if g == group}) > 1
    ]
    if torn:
        return (
            f"in the case '{case.label}' group {torn[0]!r} lies on both sides. That is a random "
            "split, whatever the draw: what training has "
            "seen of a group helps in the test. Whole groups must move."
        )
    return (
        (
            f"in the case '{case.label}' the test side holds {sum(got)} of {len(groups)} "
            "questions, at "
            f"least {share:g} of them were asked for."
        )
        if (sum(got) < share * len(groups))
        else None
    )


register(
    Exercise(
        name="hold_out",
        lesson="12",
        reference=held_out_by_counting,
        cases=_group_cases,
        covers="6 lists of questions, no group on both sides",
        diagnose=_judge_split,
        wrong=wrong_answers(
            (
                (
                    "largest first",
                    _of_groups(
                        lambda r, size, share: _first_that_fill(r[::-1], size, share * size.total())
                    ),
                    "You took the largest groups first. One big group is one thing that is new; "
                    "many "
                    "small ones are many, and that is what an "
                    "interval over groups needs. Begin with the rarest.",
                ),
                (
                    "a share of the groups",
                    _of_groups(lambda r, size, share: r[: int(np.ceil(share * len(r)))]),
                    "You took a share of the *groups*. Small groups hold few questions, so the "
                    "test "
                    "side is too small: count questions.",
                ),
                (
                    "every group that fits",
                    _of_groups(
                        lambda r, size, share: _first_that_fill(r, size, share * size.total())[:-1]
                    ),
                    "You stopped one group early: the test side holds *at least* the share, so the "
                    "group that crosses it goes along.",
                ),
                (
                    "train side",
                    lambda groups, share: [not x for x in held_out_by_counting(groups, share)],
                    "True is what is held out, for the test. You marked the questions that stay in "
                    "training.",
                ),
                (
                    "names",
                    lambda groups, share: sorted(
                        {
                            g
                            for g, x in zip(
                                groups, held_out_by_counting(groups, share), strict=True
                            )
                            if x
                        }
                    ),
                    "Those are the names of the groups that are held out. Asked is one True or "
                    "False "
                    "per question.",
                ),
            )
        ),
    )
)

# ---- leave_out ----


def left_out_by_pairs(
    chains: Sequence[tuple[str, ...]], first: str, second: str
) -> tuple[list[int], list[int]]:
    """Positions (train, test) where the test has all chains in which `second` follows `first`;
    ValueError if a hop is no longer trained.
    """
    pairs = [set(zip(chain, chain[1:], strict=False)) for chain in chains]
    test = [i for i, found in enumerate(pairs) if (first, second) in found]
    train = sorted(set(range(len(chains))) - set(test))
    for hop in (first, second):
        if hop not in {hop for i in train for hop in chains[i]}:
            raise ValueError(f"{hop!r} is in no training chain")
    return train, test


def _chain_cases() -> list[Case]:
    known = [
        ("sign",),
        ("sign", "sign"),
        ("rule",),
        ("rule", "sign"),
        ("rule", "sign", "sign"),
        ("sign", "order"),
        ("sign", "rule"),
    ]
    far = [*known, ("rule", "order", "sign"), ("order", "sign", "rule")]
    return [
        Case("rule, then sign", (known, "rule", "sign")),
        Case("parts apart, and in the other order", (far, "rule", "sign")),
        Case("sign after sign", (known, "sign", "sign")),
        Case("no rule alone", ([("sign",), ("rule", "sign"), ("sign", "sign")], "rule", "sign")),
        Case("it never occurs", (known, "order", "sign")),
    ]


def _without(
    is_left_out: Callable[[tuple[str, ...], str, str], bool], check: bool = True
) -> Callable[..., tuple[list[int], list[int]]]:
    def split(
        chains: Sequence[tuple[str, ...]], first: str, second: str
    ) -> tuple[list[int], list[int]]:
        test = [i for i, chain in enumerate(chains) if is_left_out(chain, first, second)]
        train = [i for i in range(len(chains)) if i not in test]
        if check and not {first, second} <= {hop for i in train for hop in chains[i]}:
            raise ValueError("a part is not trained")
        return train, test

    return split


register(
    Exercise(
        name="leave_out",
        lesson="12",
        reference=left_out_by_pairs,
        cases=_chain_cases,
        covers="5 lists of chains: the composition is new, its parts are not",
        wrong=wrong_answers(
            (
                (
                    "exact",
                    _without(lambda chain, a, b: chain == (a, b)),
                    "A longer chain is left in training that holds the composition: rule, sign, "
                    "sign "
                    "shows how rule and sign go together. Look "
                    "at every pair of neighbours.",
                ),
                (
                    "begins with it",
                    _without(lambda chain, a, b: chain[:2] == (a, b)),
                    "You look at the first two hops alone. The composition may stand anywhere in a "
                    "chain; look at every pair of neighbours.",
                ),
                (
                    "either part",
                    _without(lambda chain, a, b: a in chain or b in chain, check=False),
                    "Every chain with a part of it is gone: then the parts are new, too, and a "
                    "failure says nothing of putting them together.",
                ),
                (
                    "both, anywhere",
                    _without(lambda chain, a, b: Counter((a, b)) <= Counter(chain)),
                    "You left out chains that hold both hops, in whatever order or with others "
                    "between them. A composition is one hop right "
                    "after the other; the rest may stay.",
                ),
                (
                    "no look at the parts",
                    _without(
                        lambda chain, a, b: (a, b) in zip(chain, chain[1:], strict=False),
                        check=False,
                    ),
                    "Where no training chain shows a part any more, the split should refuse "
                    "(ValueError): a model that never saw the part cannot "
                    "be tested on the composition.",
                ),
                (
                    "chains",
                    lambda chains, a, b: tuple(
                        [chains[i] for i in part] for part in left_out_by_pairs(chains, a, b)
                    ),
                    "Those are the chains. Asked are their positions, so that questions, videos "
                    "and "
                    "answers can be picked by them.",
                ),
            )
        ),
    )
)

# ---- caption_f1 ----


def f1_by_table(written: Sequence[Caption], true: Sequence[Caption], m: float) -> float:
    """F1 of the pairs that a table of tIoU allows: per written caption in turn the best event of
    its word that is still free.
    """
    if not written or not true:
        return float(not written and not true)
    spans = [np.array([caption[1:] for caption in side]) for side in (written, true)]
    same = np.array([[w[0] == t[0] for t in true] for w in written])
    table, found = np.where(same, tiou_many(spans[0][:, None], spans[1][None]), -1.0), 0
    for row in table:
        if row.max() >= m:
            table[:, row.argmax()] = -1.0  # taken; `row` is a view of the table
            found += 1
    return 2 * found / (len(written) + len(true))


def _caption_cases() -> list[Case]:
    true = [("lift", 10.0, 20.0), ("push", 14.0, 26.0), ("hold", 30.0, 34.0)]
    return [
        Case(
            "two of three, one with another word",
            ([("lift", 10.0, 20.0), ("pull", 14.0, 26.0), ("hold", 31.0, 34.0)], true, 0.5),
        ),
        Case(
            "one span over both events that overlap",
            ([("lift", 4.0, 32.0), ("hold", 30.0, 34.0)], true, 0.5),
        ),
        Case("the same event three times", ([("lift", 10.0, 20.0)] * 3, true, 0.5)),
        Case(
            "exactly half",
            ([("lift", 10.0, 15.0), ("push", 14.0, 26.0), ("push", 14.0, 27.0)], true, 0.5),
        ),
        Case("a strict threshold", ([("lift", 10.0, 19.0), ("push", 15.0, 23.0)], true, 0.7)),
        Case("nothing written", ([], true, 0.5)),
        Case("nothing there, nothing written", ([], [], 0.5)),
    ]


def _hits(
    written: Sequence[Caption],
    true: Sequence[Caption],
    m: float,
    word: bool = True,
    strict: bool = False,
) -> np.ndarray:
    """(written, true) bool: which pairs agree."""
    return np.array(
        [
            [
                (w[0] == t[0] or not word) and (tiou > m or (tiou == m and not strict))
                for t in true
                for tiou in [float(tiou_many(w[1:], t[1:]))]
            ]
            for w in written
        ]
    ).reshape(len(written), len(true))


def _f1_of(score: Callable[..., float]) -> Callable[..., float]:
    return lambda w, t, m: float(score(w, t, m)) if w and t else float(not w and not t)


def _matched(w: Sequence[Caption], t: Sequence[Caption], m: float) -> float:
    return f1_by_table(w, t, m) * (len(w) + len(t)) / 2


def _union(w: Sequence[Caption], t: Sequence[Caption], m: float) -> float:
    seconds = [
        {s for caption in side for s in range(int(caption[1]), int(caption[2]))} for side in (w, t)
    ]
    return len(seconds[0] & seconds[1]) / len(seconds[0] | seconds[1])


def _of_sums(hits: np.ndarray) -> float:
    precision, recall = hits.any(1).mean(), hits.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


register(
    Exercise(
        name="caption_f1",
        lesson="12",
        reference=f1_by_table,
        cases=_caption_cases,
        covers="7 lists of captions, among them repeats and events that overlap",
        wrong=wrong_answers(
            (
                (
                    "union",
                    _f1_of(_union),
                    "You compared the seconds of all captions together with those of all events. "
                    "One "
                    "long caption over everything scores "
                    "there, and no event was told. Match caption by caption.",
                ),
                (
                    "every repeat counts",
                    _f1_of(lambda w, t, m: _of_sums(_hits(w, t, m))),
                    "A caption that repeats an event counts as right each time. An event is found "
                    "once; whoever repeats it loses precision.",
                ),
                (
                    "any word",
                    _f1_of(lambda w, t, m: _of_sums(_hits(w, t, m, word=False))),
                    "The words are not compared. Where events overlap, time alone cannot say which "
                    "of "
                    "them was told.",
                ),
                (
                    "recall",
                    _f1_of(lambda w, t, m: _matched(w, t, m) / len(t)),
                    "That is recall, the share of the events that were told. Whoever writes a "
                    "thousand captions has it for nothing.",
                ),
                (
                    "precision",
                    _f1_of(lambda w, t, m: _matched(w, t, m) / len(w)),
                    "That is precision, the share of the captions that are right. Whoever writes "
                    "one "
                    "safe caption has it for nothing.",
                ),
                (
                    "mean of both",
                    _f1_of(lambda w, t, m: _matched(w, t, m) * (1 / len(w) + 1 / len(t)) / 2),
                    "That is the plain mean of precision and recall. F1 is their harmonic mean: "
                    "one "
                    "of them alone cannot carry it.",
                ),
                (
                    "strict",
                    _f1_of(lambda w, t, m: _of_sums(_hits(w, t, m, strict=True))),
                    "A tIoU of exactly m is enough, as in R1@m, and an event may be taken only "
                    "once.",
                ),
                (
                    "zero for silence",
                    lambda w, t, m: f1_by_table(w, t, m) if w and t else 0.0,
                    "Where nothing happens and nothing is written, all is told: that is 1. Silence "
                    "is "
                    "wrong only where there was an event.",
                ),
            )
        ),
    )
)
