"""How questions, reasoning and times of Tiny Town are written as tokens.

In: stories and questions. Out: lists of token ids of one vocabulary, (T,), and for training what
each position must predict next. The tokenizer itself (model/tokenizer.py) knows no town: its
vocabulary is made here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.model.tokenizer import CLUE, PAD, SO, Vocabulary, split_words
from timescope_lite.world.domain import (
    COLOURS,
    LASTING,
    NUM_ACTIVITIES,
    NUM_PLACES,
    NUM_TRACKS,
    SHOWN,
    VERBS,
    Domain,
    all_core,
)
from timescope_lite.world.story import Story
from timescope_lite.world.tasks import (
    CORE_KINDS,
    ORDINALS,
    PHRASINGS,
    TEMPLATES,
    Question,
    person_phrase,
)

STOP_WORDS = frozenset(
    "a an the does do did is are there of in at to from on we it they what find follow moment me "
    "show for bring same person right next time string with that was be who or here four seconds "
    "can".split()
)
# Surface forms that mean a known word, beside the third person of every verb.
SYNONYMS = {
    "darkness": "dark",
    "signs": "sign",
    "fires": "fire",
    "alarms": "alarm",
    "floods": "flood",
    "point": "points",
    "changes": "change",
}
INFLECTIONS = {f"{verb}{ending}": verb for ending in ("s", "es") for verb in VERBS} | SYNONYMS
# What a position asks of the model when it is supervised: nothing, a word of the reasoning, a time.
NO_LOSS, CHAIN_LOSS, TIME_LOSS = 0, 1, 2


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation, stop words and inflection: `The sailor lifts the
    rope!` -> sailor lift rope.
    """
    return split_words(text, INFLECTIONS, STOP_WORDS)


def vocabulary_of(domains: Iterable[Domain]) -> Vocabulary:
    """The phrases that questions and reasoning about these domains need: those of the core town, or
    those of the whole one.
    """
    domains = list(domains)
    core = all_core(domains)
    phrases: dict[str, None] = {}  # in the order in which they are met
    for kind, texts in TEMPLATES.items():
        if core and kind not in CORE_KINDS:
            continue
        for text in texts[PHRASINGS["core"]] if core else texts:
            phrases |= dict.fromkeys(plain_words(re.sub(r"\{.\}", " ", text)))
    phrases |= dict.fromkeys(LASTING if core else (*SHOWN, *ORDINALS, CLUE))
    words = range(NUM_TRACKS * NUM_ACTIVITIES)
    for domain in domains:
        phrases |= dict.fromkeys(domain.place(i) for i in range(NUM_PLACES))
        phrases |= dict.fromkeys(domain.activity(word) for word in words)
        if not core:
            phrases |= dict.fromkeys(person_phrase(domain, word) for word in words)
    return Vocabulary(tuple(phrases), INFLECTIONS, STOP_WORDS, sample_tasks(tuple(phrases)))


def sample_tasks(phrases: Sequence[str]) -> tuple[str, ...]:
    """Three tasks in some phrases of the town, for error messages and help."""
    activities = [p for p in phrases if len(p.split()) == 3 and not p.startswith("somebody ")]
    places = [p for p in phrases if len(p.split()) == 2 and p.split()[0] in COLOURS]
    if not activities or not places:
        return ()
    (role, verb, thing), place = activities[0].split(), places[0]
    return (
        f"When does the {role} {verb} the {thing} at the {place}?",
        f"One sign on from the {place}, when does the {role} {verb} the {thing}?",
        "Why is there a flood?",
    )


def knows(vocabulary: Vocabulary, domain: Domain) -> bool:
    """Whether these phrases were made for this domain, among others."""
    return domain.activity(0) in vocabulary.id_of


def in_plain_words(reasoning: Sequence[str]) -> str:
    """Phrases of a chain as sentences: the places on the way, then what to look for there (of two
    activities, the first before the second).
    """
    if not reasoning:
        return "(no reasoning)"
    places = [phrase for phrase in reasoning if len(phrase.split()) == 2]
    ordinals = [phrase for phrase in reasoning if phrase in ORDINALS]
    what = [phrase for phrase in reasoning if phrase not in places and phrase not in ORDINALS]
    said = []
    if places:
        way = ", and from there the sign leads to ".join(f"the {place}" for place in places)
        said.append(f"Go to {way}.")
    if len(what) > 1:
        said.append(f"Look for: the last time {' before '.join(what)}.")
    elif what:
        time = f"the {ordinals[0]} time " if ordinals else ""
        said.append(f"Look for: {time}{what[0]}.")
    return " ".join(said)


@dataclass(frozen=True)
class DomainTokens:
    """Lookup from a domain's numbers to token ids, so that training never parses strings."""

    place: np.ndarray
    activity: np.ndarray
    person: np.ndarray
    effect: np.ndarray

    @classmethod
    def of(cls, domain: Domain, vocabulary: Vocabulary) -> DomainTokens:
        """The token ids of this domain's places (144,), activities (64,), persons by colour and
        thing (64,) and of what is shown (15,; the first is none).

        What a vocabulary of the core town has no word for is PAD.
        """
        ids, words = vocabulary.id_of, range(NUM_TRACKS * NUM_ACTIVITIES)
        return cls(
            place=np.array([ids[domain.place(i)] for i in range(NUM_PLACES)]),
            activity=np.array([ids[domain.activity(w)] for w in words]),
            person=np.array([ids.get(person_phrase(domain, w), PAD) for w in words]),
            effect=np.array([PAD] + [ids.get(effect, PAD) for effect in SHOWN]),
        )


class Writer:
    """Writes questions, reasoning and times as token ids for one vocabulary (used by training,
    evaluation and `ground` alike).

    Of `domains` it takes those that the vocabulary was made for, of the paraphrases those whose
    words it has.
    """

    def __init__(self, vocabulary: Vocabulary, domains: Iterable[Domain]) -> None:
        self.vocabulary = vocabulary
        self.tokens = {
            domain.name: DomainTokens.of(domain, vocabulary)
            for domain in domains
            if knows(vocabulary, domain)
        }
        self.templates = {
            kind: [self._parse(text) for text in texts] for kind, texts in TEMPLATES.items()
        }
        self.clue = vocabulary.id_of.get(CLUE)
        self.ordinals = [vocabulary.id_of.get(word, PAD) for word in ORDINALS]

    def _parse(self, text: str) -> list[int | str] | None:
        tokens: list[int | str] = []
        for piece in re.split(r"(\{.\})", text):
            words = [piece] if piece.startswith("{") else plain_words(piece)
            if any(
                not word.startswith("{") and word not in self.vocabulary.id_of for word in words
            ):
                return None
            tokens += [
                word if word.startswith("{") else self.vocabulary.id_of[word] for word in words
            ]
        return tokens

    def question(self, story: Story, question: Question) -> list[int]:
        """Token ids of a drawn question: the same as `vocabulary.encode(in_words(story,
        question))`, without the string.

        UserError if the vocabulary lacks a word of it.
        """
        template = self.templates[question.kind][question.template_idx]
        if template is None:
            raise UserError(
                "this model's vocabulary lacks a word of "
                f"{TEMPLATES[question.kind][question.template_idx]!r}; take the model of the whole "
                "town"
            )
        tokens = self.tokens[story.domain.name]
        fill = {"{E}": tokens.effect[question.effect], "{N}": self.ordinals[question.ordinal - 1]}
        if question.word >= 0:
            fill |= {
                "{A}": tokens.activity[question.word],
                "{D}": tokens.activity[question.word],
                "{X}": tokens.person[question.word],
            }
        if question.other >= 0:
            fill["{B}"] = tokens.activity[question.other]
        if question.path:
            fill["{P}"] = tokens.place[question.path[0]]
        return [int(fill[t]) if isinstance(t, str) else t for t in template]

    def chain(self, story: Story, question: Question) -> list[int]:
        """The reasoning: the places that one visits on the way, what to look for there, then <so>.
        Where the evidence is absent, <so> alone.

        A consequence and an oddity have no way that the question names: first what it is, then
        where.
        """
        return self.reasoning(story.domain.name, question)

    def reasoning(self, domain: str, question: Question) -> list[int]:
        """`chain` where only the domain's name is at hand."""
        if question.absent:
            return [SO]
        tokens, kind = self.tokens[domain], question.kind.removesuffix("_at")
        way = [int(tokens.place[p]) for p in question.path]
        shown = [int(tokens.effect[question.effect])]
        what = [int(tokens.activity[word]) for word in (question.word, question.other) if word >= 0]
        if kind in {"consequence", "oddity"}:
            return [*shown, *way, SO]
        if kind == "change":
            what = shown
        if kind == "attribute":
            what = [int(tokens.person[question.word])]
        if kind == "nth":
            what = [self.ordinals[question.ordinal - 1], *what]
        return [*way, *what, SO]

    def interval(self, start_s: float, end_s: float, clock: int) -> list[int]:
        """An interval [start_s, end_s) as two time codes: its first and its last second on a clock
        that shows `clock` when the video starts.
        """
        first = self.vocabulary.first_second + clock
        return [first + int(start_s), first + int(np.ceil(end_s)) - 1]

    def read_interval(self, codes: Sequence[int], clock: int) -> tuple[float, float]:
        """Seconds [start_s, end_s) of two time codes (the inverse of `interval`)."""
        first = self.vocabulary.first_second + clock
        return float(codes[0] - first), float(codes[1] - first + 1)
