"""The exercises of notebook 11: reliability hop by hop, an answer under a chain that somebody else
wrote, a teacher who is wrong on purpose.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from timescope_lite.classroom.checks.core import Case, Exercise, register, wrong_answers
from timescope_lite.model.tokenizer import DIRECT, SO, THINK

Chains = Sequence[Sequence[bool]]
Outcomes = tuple[list[float], list[str]]
Reader = Callable[..., Any]
Rng = np.random.Generator

# ---- hop_outcomes ----


def outcomes_one_by_one(chains: Chains, videos: Sequence[str], n: int) -> Outcomes:
    """Whether hop n (0 is the first) is right, with its video, for the questions that have a hop n
    and are right until then.
    """
    values, names = [], []
    for i, chain in enumerate(chains):
        if n < len(chain) and sum(map(bool, chain[:n])) == n:
            values.append(1.0 if chain[n] else 0.0)
            names.append(videos[i])
    return values, names


def _outcomes(
    counts: Callable[[Sequence[bool], int], bool], missing: bool = False
) -> Callable[..., Outcomes]:
    """The same with another idea of which questions count; `missing`: a hop that a chain does not
    have is wrong.
    """

    def compute(chains: Chains, videos: Sequence[str], n: int) -> Outcomes:
        kept = [
            i for i, chain in enumerate(chains) if (n < len(chain) or missing) and counts(chain, n)
        ]
        return [float(n < len(chains[i]) and chains[i][n]) for i in kept], [videos[i] for i in kept]

    return compute


def _by_video(chains: Chains, videos: Sequence[str], n: int) -> Outcomes:
    values, names = outcomes_one_by_one(chains, videos, n)
    each: dict[str, list[float]] = {}
    for value, name in zip(values, names, strict=True):
        each.setdefault(name, []).append(value)
    return [float(np.mean(row)) for row in each.values()], list(each)


def _right_up_to(chains: Chains, videos: Sequence[str], n: int) -> Outcomes:
    kept = [i for i, chain in enumerate(chains) if n < len(chain)]
    return [float(all(chains[i][: n + 1])) for i in kept], [videos[i] for i in kept]


_HOP_SAYS = (
    (
        "all",
        _outcomes(lambda chain, n: True),
        "You counted chains that had gone wrong before. After a wrong place the next hop answers "
        "another question: which chains are still on the way?",
    ),
    (
        "previous",
        _outcomes(lambda chain, n: n == 0 or bool(chain[n - 1])),
        "You looked at the hop just before. A chain can stumble earlier and still have that one "
        "right: all hops before must be.",
    ),
    (
        "until n",
        _outcomes(lambda chain, n: all(chain[: n + 1])),
        "Always right: you kept the questions whose hop n is right, and then asked how often it "
        "is. "
        "Only the hops *before* n decide who counts.",
    ),
    (
        "short chains",
        _outcomes(lambda chain, n: all(chain[:n]), missing=True),
        "A chain that has no hop n was counted as wrong there. It was never asked to take that "
        "step: "
        "leave it out.",
    ),
    (
        "product",
        _right_up_to,
        "You kept every question and called it wrong as soon as anything was. That is the share of "
        "chains right up to n, not the reliability of one step.",
    ),
    (
        "all videos",
        lambda chains, videos, n: (outcomes_one_by_one(chains, videos, n)[0], list(videos)),
        "Outcomes and videos are not of one length: a question that does not count takes its video "
        "with it, or the bootstrap draws the wrong ones.",
    ),
    (
        "by video",
        _by_video,
        "One mean per video. A video with one question then weighs as much as one with ten; give "
        "every outcome, and its video beside it.",
    ),
    (
        "share",
        lambda chains, videos, n: float(np.mean(outcomes_one_by_one(chains, videos, n)[0])),
        "That is the share alone. An interval needs the single outcomes, and beside each the video "
        "that it comes from.",
    ),
)


def _hop_cases() -> list[Case]:
    rng = np.random.default_rng(11)
    drawn = [(rng.random(int(rng.integers(1, 5))) < 0.7).tolist() for _ in range(60)]
    names = [f"video {i}" for i in rng.integers(6, size=60)]
    by_hand = [
        [True, True, False],
        [False, True, True],
        [True],
        [True, False, True, True],
        [True, True, True, True],
    ]
    cases = [Case(f"60 chains, hop {n}", (drawn, names, n)) for n in range(4)]
    return [Case("5 chains, hop 2", (by_hand, list("aabbc"), 2)), *cases]


register(
    Exercise(
        name="hop_outcomes",
        lesson="11",
        reference=outcomes_one_by_one,
        cases=_hop_cases,
        covers="65 chains of one to four hops, outcomes and videos",
        wrong=wrong_answers(_HOP_SAYS),
    )
)

# ---- intervene ----


def stages(salt: int) -> tuple[Reader, Reader]:
    """Stand-ins for both stages: `coarse(tokens)` gives a window, `fine(tokens, window)` an answer;
    each depends on all that it is given.
    """

    def number(*given: Hashable) -> int:
        return int.from_bytes(hashlib.sha256(repr((salt, *given)).encode()).digest()[:2], "big")

    def coarse(tokens: Sequence[int]) -> tuple[int, int]:
        first = number("coarse", tuple(tokens)) % 16
        return first, first + 1

    def fine(tokens: Sequence[int], window: tuple[int, int]) -> tuple[int, int]:
        start = number("fine", tuple(tokens), tuple(window)) % 997
        return start, start + 3

    return coarse, fine


def read_as_written(
    coarse: Reader, fine: Reader, question: Sequence[int], chain: Sequence[int]
) -> Any:
    """The answer of both stages to a question after which somebody has written this chain (its
    hops, without <so>).
    """
    tokens = list(question) + [THINK] + list(chain) + [SO]
    window = coarse(tokens)
    return fine(tokens, window)


def _read(
    first: Callable[..., list[int]], second: Callable[..., list[int]] | None = None
) -> Callable[..., Any]:
    """Both stages on tokens made of question and chain in another way, the second perhaps otherwise
    than the first.
    """

    def run(coarse: Reader, fine: Reader, question: Sequence[int], chain: Sequence[int]) -> Any:
        return fine((second or first)(question, chain), coarse(first(question, chain)))

    return run


def _whole(q: Sequence[int], c: Sequence[int]) -> list[int]:
    return [*q, THINK, *c, SO]


def _grown(coarse: Reader, fine: Reader, question: list[int], chain: Sequence[int]) -> Any:
    question += [THINK, *chain, SO]
    return fine(question, coarse(question))


_READ_SAYS = (
    (
        "coarse only",
        _read(_whole, lambda q, c: [*q, THINK]),
        "The fine stage has not read the chain: it answers as if nobody had reasoned. Both stages "
        "must read the same words, or you change half of the model.",
    ),
    (
        "fine only",
        _read(lambda q, c: [*q, THINK], _whole),
        "The coarse stage chose its window before the chain was there. What you force must stand "
        "in "
        "front of it, too.",
    ),
    (
        "no <so>",
        _read(lambda q, c: [*q, THINK, *c]),
        "The chain never ends: without `<so>` the model has not been told that the reasoning is "
        "over, "
        "and a window comes where a word should.",
    ),
    (
        "no <think>",
        _read(lambda q, c: [*q, *c, SO]),
        "`<think>` is missing. Without it the chain reads like a longer question; the weights have "
        "never seen reasoning begin that way.",
    ),
    (
        "direct",
        _read(lambda q, c: [*q, DIRECT, *c, SO]),
        "After `<direct>` no training example has a chain. Then you measure how the model bears a "
        "strange text, not what a chain does.",
    ),
    (
        "chain first",
        _read(lambda q, c: [THINK, *c, SO, *q]),
        "The chain stands before the question. The model reads from left to right: question, "
        "`<think>`, chain, `<so>`.",
    ),
    (
        "unread",
        _read(lambda q, c: [*q, THINK, SO]),
        "The same answer whatever the chain says: it is not among the tokens. Where do its hops "
        "go?",
    ),
    ("in place", _grown, "changed its input `question` in place"),
)
_READ = ((3, [41, 42], [7, 9]), (4, [50], [13, 12, 11, 10]), (5, [61, 62, 63], [8]))
register(
    Exercise(
        name="intervene",
        lesson="11",
        reference=read_as_written,
        cases=lambda: [
            Case(
                f"a question of {len(q)} tokens, a chain of {len(c)}",
                (*stages(s), list(q), list(c)),
            )
            for s, q, c in _READ
        ],
        covers="3 questions with their chains, read by both stages",
        wrong=wrong_answers(_READ_SAYS),
    )
)

# ---- hallucinate_chain ----

GROUPS = (
    tuple(range(100, 104)),
    tuple(range(200, 208)),
    (300,),
)  # what is alike; the last has no other
HOPS = 6000  # enough for a share to agree to 0.03


def wrong_hop_by_hop(
    chain: Sequence[int], share: float, alike: Sequence[Sequence[int]], rng: Rng
) -> list[int]:
    """A copy of a chain whose hops are each, alone, with probability `share` another one of their
    group; the last token, <so>, stays.
    """
    flips = rng.random(len(chain))
    told = []
    for i, token in enumerate(chain):
        others = [other for group in alike if token in group for other in group if other != token]
        told.append(
            others[int(rng.integers(len(others)))]
            if others and flips[i] < share and i < len(chain) - 1
            else token
        )
    return told


def _hallucinated(
    pick: Callable[[list[int], int, Rng], int] | None = None,
    itself: bool = False,
    everything: bool = False,
    one_coin: bool = False,
    inverted: bool = False,
    so: bool = False,
) -> Callable[..., list[int]]:
    """The same with a mistake: which other, whether the true one may be drawn, from which tokens,
    how many coins, and what a coin means.
    """

    def hallucinate(
        chain: Sequence[int], share: float, alike: Sequence[Sequence[int]], rng: Rng
    ) -> list[int]:
        coin = rng.random()
        told = list(chain)
        everybody = [token for group in alike for token in group]
        for i, token in enumerate(chain if so else chain[:-1]):
            wrong = (coin if one_coin else rng.random()) < share
            group = (
                everybody if everything else next((list(g) for g in alike if token in g), everybody)
            )
            others = [other for other in group if itself or other != token]
            if wrong != inverted and others:
                told[i] = pick(others, token, rng) if pick else int(rng.choice(others))
        return told

    return hallucinate


def same_teacher(expected: list[int], got: Any) -> bool:
    """Whether two long chains are told by the same kind of teacher. In the cases every true hop is
    the first of its group, so errors show.
    """
    if not isinstance(got, list) or len(got) != len(expected) or got[-1] != expected[-1]:
        return False
    a, b = np.array(expected[:-1]), np.array(got[:-1])
    if len(a) < HOPS or not np.array_equal(a // 100, b // 100):
        return len(a) < HOPS and expected == got
    wrongs = [x % 100 > 0 for x in (a, b)]
    near = abs(wrongs[0].mean() - wrongs[1].mean()) < 0.03
    pairs = [float((w[1:] & w[:-1]).mean()) for w in wrongs]
    spread = [np.bincount(x % 100, minlength=8)[:8] / len(x) for x in (a, b)]
    return bool(
        near and abs(pairs[0] - pairs[1]) < 0.03 and np.abs(spread[0] - spread[1]).max() < 0.03
    )


def _write_over(chain: list[int], told: Sequence[int]) -> list[int]:
    chain[:] = told
    return chain


_TEACHER_SAYS = (
    (
        "one coin",
        _hallucinated(one_coin=True),
        "One coin for the whole chain: all hops are wrong together, or none. A teacher who errs "
        "hop "
        "by hop needs a draw for each.",
    ),
    (
        "itself",
        _hallucinated(itself=True),
        "Too few errors: a hop that is to be wrong may be replaced by itself. Take the true one "
        "out "
        "before you draw.",
    ),
    (
        "anything",
        _hallucinated(everything=True),
        "A place became an activity, or the other way round. A pupil sees through that at once; an "
        "error that teaches is as plausible as the truth.",
    ),
    (
        "always one",
        _hallucinated(lambda others, token, rng: others[0]),
        "Always the same lie for the same hop. That is a systematic error, another experiment: a "
        "pupil can learn it by heart. Draw among all others.",
    ),
    (
        "inverted",
        _hallucinated(inverted=True),
        "`share` is how many hops are wrong; here it is how many are right.",
    ),
    (
        "<so>",
        _hallucinated(so=True),
        (
            "`<so>` was replaced too, and the chain no longer ends. It is no hop: nothing is "
            "claimed "
            "by it."
        ),
    ),
    (
        "dropped",
        lambda chain, share, alike, rng: (
            [t for t in chain[:-1] if rng.random() >= share] + [chain[-1]]
        ),
        "Wrong hops are missing. A teacher who leaves a step out makes another error, and every "
        "later "
        "hop stands at another position.",
    ),
    (
        "never",
        lambda chain, share, alike, rng: list(chain),
        "Nothing is ever wrong: at a share of 1 every hop that has another like it must be.",
    ),
    (
        "in place",
        lambda chain, share, alike, rng: _write_over(
            chain, wrong_hop_by_hop(chain, share, alike, rng)
        ),
        "changed its input `chain` in place",
    ),
)


def _teacher_cases() -> list[Case]:
    rng = np.random.default_rng(12)
    long = [*(int(group) for group in rng.choice([100, 200], HOPS)), 997]
    drawn = [
        Case(
            f"{HOPS} hops, {share:.0%} of them wrong",
            (long, share, GROUPS, np.random.default_rng(13)),
        )
        for share in (0.1, 0.5, 1.0)
    ]
    short = [200, 300, 100, 997]
    return [
        Case("a share of 0", (short, 0.0, GROUPS, np.random.default_rng(14))),
        *drawn,
        Case(
            "a hop with no other like it", ([300, 300, 997], 1.0, GROUPS, np.random.default_rng(15))
        ),
    ]


register(
    Exercise(
        name="hallucinate_chain",
        lesson="11",
        reference=wrong_hop_by_hop,
        cases=_teacher_cases,
        covers=f"{HOPS} hops, three teachers, hops with no other like them",
        wrong=wrong_answers(_TEACHER_SAYS),
        compare=same_teacher,
    )
)
