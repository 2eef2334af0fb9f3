"""Text in and out: a phrase tokenizer, and how questions, reasoning and times are written as
tokens.

A token is a *phrase* (`sailor lift rope`, `red mill`, `when`). A place's vector is the sum of its
words' vectors; an activity has a vector of its own (the sum of role, verb and object would make
near-misses alike). Times are tokens too: one code per second, tied to fixed Fourier features; each
video starts its clock anywhere in 0..8191 during training, so no code is new in a longer video.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timescope_lite.common import UserError
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

SPECIALS = ("<pad>", "<think>", "<direct>", "<so>", "<window>", "<answer>", "<absent>")
PAD, THINK, DIRECT, SO, WINDOW, ANSWER, ABSENT = range(len(SPECIALS))
STOP_WORDS = frozenset(
    "a an the does do did is are there of in at to from on we it they what find follow moment me "
    "show for bring same person right next time string "
    "with that was be who or here four seconds can".split()
)
# Surface forms that mean a known word.
SYNONYMS = {
    "darkness": "dark",
    "signs": "sign",
    "fires": "fire",
    "alarms": "alarm",
    "floods": "flood",
    "point": "points",
    "changes": "change",
}
NUM_SECONDS = 8192  # codes of the clock: more than two hours at 1 frame per second
# What a position asks of the model when it is supervised: nothing, a word of the reasoning, a time
# code.
NO_LOSS, CHAIN_LOSS, TIME_LOSS = 0, 1, 2
CLUE = "clue"  # the phrase before an interval that the fine stage finds on its way to the answer


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation, stop words and inflection: `The sailor lifts the rope!`
    -> sailor lift rope.
    """
    return [
        word
        for word in (_stem(w) for w in re.findall(r"[a-z0-9]+", text.lower()))
        if word not in STOP_WORDS
    ]


def _stem(word: str) -> str:
    if word in SYNONYMS:
        return SYNONYMS[word]
    stem = {"es": word[:-2], "s": word[:-1]}
    return next(
        (base for ending, base in stem.items() if word.endswith(ending) and base in VERBS), word
    )


def _parts(phrase: str) -> list[str]:
    """What a phrase's vector is the sum of: its words, but an activity (`sailor lift rope`) is one
    thing of its own.
    """
    words = phrase.split()
    return [phrase] if len(words) == 3 else words


@dataclass(frozen=True)
class Vocabulary:
    """All phrases a model knows, and the numbering of its tokens: specials, phrases, one code per
    second.

    Built from domains and saved with a checkpoint, so that a checkpoint keeps its numbering when
    domains are added later.
    """

    phrases: tuple[str, ...]

    @classmethod
    def of(cls, domains: Iterable[Domain]) -> Vocabulary:
        """The phrases that questions and reasoning about these domains need: those of the core
        town, or those of the whole one.
        """
        domains = list(domains)
        core = all_core(domains)
        texts = [
            text
            for kind in TEMPLATES
            if kind in CORE_KINDS or not core
            for text in TEMPLATES[kind][PHRASINGS["core"] if core else slice(None)]
        ]
        found = dict.fromkeys(
            word for text in texts for word in plain_words(re.sub(r"\{.\}", " ", text))
        )
        found |= dict.fromkeys(LASTING if core else (*SHOWN, *ORDINALS, CLUE))
        for domain in domains:
            words = range(NUM_TRACKS * NUM_ACTIVITIES)
            found |= dict.fromkeys(domain.place(i) for i in range(NUM_PLACES))
            found |= dict.fromkeys(domain.activity(w) for w in words)
            found |= {} if core else dict.fromkeys(person_phrase(domain, w) for w in words)
        return cls(tuple(found))

    def knows(self, domain: Domain) -> bool:
        """Whether these phrases were made for this domain, among others."""
        return domain.activity(0) in self.id_of

    @cached_property
    def id_of(self) -> dict[str, int]:
        return {phrase: len(SPECIALS) + i for i, phrase in enumerate(self.phrases)}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Specials, then every part of every phrase: the rows of the embedding table."""
        return SPECIALS + tuple(
            dict.fromkeys(part for phrase in self.phrases for part in _parts(phrase))
        )

    @property
    def num_phrases(self) -> int:
        """Specials included."""
        return len(SPECIALS) + len(self.phrases)

    @property
    def first_second(self) -> int:
        """Token id of second 0 of the clock."""
        return self.num_phrases

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.first_second + NUM_SECONDS

    def word_matrix(self) -> np.ndarray:
        """(num_phrases, num_words) of zeros and ones: which words a phrase is made of."""
        column = {word: i for i, word in enumerate(self.words)}
        matrix = np.zeros((self.num_phrases, len(self.words)), dtype=np.float32)
        matrix[np.arange(len(SPECIALS)), np.arange(len(SPECIALS))] = 1
        for row, phrase in enumerate(self.phrases):
            for part in _parts(phrase):
                matrix[len(SPECIALS) + row, column[part]] = 1
        return matrix

    def encode(self, text: str) -> list[int]:
        """Token ids of a question; the longest known phrase wins. Raises UserError with the nearest
        known words for an unknown one.
        """
        words, ids, i = plain_words(text), [], 0
        if not words:
            raise UserError(
                f"the task {text!r} has no words that say what to look for; try: "
                f"{'; '.join(self.samples())}"
            )
        while i < len(words):
            for length in (3, 2, 1):
                token = (
                    self.id_of.get(" ".join(words[i : i + length]))
                    if i + length <= len(words)
                    else None
                )
                if token is not None:
                    break
            if token is None:
                raise UserError(self._unknown(words, i))
            ids.append(token)
            i += length
        return ids

    def names(self, tokens: Sequence[int]) -> list[list[str]]:
        """The parts of every phrase among `tokens`, in order: `red mill` -> [red, mill], an
        activity is one part.
        """
        first = len(SPECIALS)
        return [
            _parts(self.phrases[token - first])
            for token in tokens
            if first <= token < self.num_phrases
        ]

    def _unknown(self, words: list[str], i: int) -> str:
        word = words[i]
        known = list(dict.fromkeys(part for phrase in self.phrases for part in phrase.split()))
        if word not in known:
            near = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known[:3]
            return (
                f"unknown word {word!r}: the nearest known words are {', '.join(near)}; try: "
                f"{'; '.join(self.samples())}"
            )
        partners = [p for p in self.phrases if word in p.split() and len(p.split()) > 1]
        return (
            f"{' '.join(words[i : i + 3])!r} is nothing this town knows: {word!r} occurs in, for "
            f"example, {', '.join(partners[:3])}"
        )

    def samples(self) -> list[str]:
        """Three tasks in this vocabulary, for error messages and help."""
        activity = next(
            (p for p in self.phrases if len(p.split()) == 3 and not p.startswith("somebody ")), ""
        )
        place = next(
            (p for p in self.phrases if len(p.split()) == 2 and p.split()[0] in COLOURS), ""
        )
        role, verb, thing = activity.split() if activity else ("", "", "")
        return [
            f"When does the {role} {verb} the {thing} at the {place}?",
            f"One sign on from the {place}, when does the {role} {verb} the {thing}?",
            "Why is there a flood?",
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as readable text; times as seconds of the clock."""
        return " ".join(self._token_text(int(i)) for i in ids if i != PAD)

    def _token_text(self, token: int) -> str:
        if token < len(SPECIALS):
            return SPECIALS[token]
        if token < self.first_second:
            return self.phrases[token - len(SPECIALS)]
        return f"{token - self.first_second}s"


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
            if vocabulary.knows(domain)
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
        way, shown = (
            [int(tokens.place[p]) for p in question.path],
            [int(tokens.effect[question.effect])],
        )
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
