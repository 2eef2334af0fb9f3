"""The phrase tokenizer: tokens of questions, reasoning and times, from a vocabulary that is data.

A token is a *phrase* (`sailor lift rope`, `red mill`, `when`), a special, or a second of the clock.
A phrase of one or two words is the sum of its words' vectors; one of three words (an activity) has
a vector of its own, since the sum of who, does and what would make near-misses alike. Each video
starts its clock anywhere in 0..8191 during training, so no code is new in a longer video.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from timescope_lite.common import UserError

SPECIALS = ("<pad>", "<think>", "<direct>", "<so>", "<window>", "<answer>", "<absent>")
PAD, THINK, DIRECT, SO, WINDOW, ANSWER, ABSENT = range(len(SPECIALS))
CLUE = "clue"  # the phrase before an interval that the fine stage finds on its way to the answer
NUM_SECONDS = 8192  # codes of the clock: more than two hours at 1 frame per second
LONGEST_PHRASE = 3  # words


def split_words(text: str, inflections: Mapping[str, str], stop_words: frozenset[str]) -> list[str]:
    """Lower-case words without punctuation, stop words and inflection: `The sailor lifts the
    rope!` -> sailor lift rope.
    """
    words = [inflections.get(word, word) for word in re.findall(r"[a-z0-9]+", text.lower())]
    return [word for word in words if word not in stop_words]


def parts_of(phrase: str) -> list[str]:
    """What a phrase's vector is the sum of: its words, but an activity is one thing of its own."""
    words = phrase.split()
    return [phrase] if len(words) == LONGEST_PHRASE else words


@dataclass(frozen=True)
class Vocabulary:
    """All phrases a model knows, how words are reduced to them, and the numbering of its tokens:
    specials, phrases, one code per second.

    `inflections`: a surface form -> the word that is meant (lifts -> lift); `stop_words` carry
    nothing; `samples`: tasks to show in help and error messages. Saved with a checkpoint, so that
    it keeps its numbering when more words are added later.
    """

    phrases: tuple[str, ...]
    inflections: Mapping[str, str] = field(default_factory=dict)
    stop_words: frozenset[str] = frozenset()
    sample_tasks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back."""
        fields = asdict(self)
        return fields | {"stop_words": sorted(self.stop_words)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "vocabulary") -> Vocabulary:
        """A vocabulary from `as_dict`; UserError, naming `where`, for anything else."""
        try:
            return cls(
                tuple(str(phrase) for phrase in data["phrases"]),
                {str(form): str(word) for form, word in data["inflections"].items()},
                frozenset(str(word) for word in data["stop_words"]),
                tuple(str(task) for task in data["sample_tasks"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where}: the vocabulary is incomplete ({error!r})") from None

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Phrase -> token id."""
        return {phrase: len(SPECIALS) + i for i, phrase in enumerate(self.phrases)}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Specials, then every part of every phrase: the rows of the embedding table."""
        parts = [part for phrase in self.phrases for part in parts_of(phrase)]
        return SPECIALS + tuple(dict.fromkeys(parts))

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
        specials = np.arange(len(SPECIALS))
        matrix[specials, specials] = 1
        for row, phrase in enumerate(self.phrases, start=len(SPECIALS)):
            for part in parts_of(phrase):
                matrix[row, column[part]] = 1
        return matrix

    def encode(self, text: str) -> list[int]:
        """Token ids of a question; the longest known phrase wins. Raises UserError with the nearest
        known words for an unknown one.
        """
        words = split_words(text, self.inflections, self.stop_words)
        # Nothing left is no task: answering it would mean inventing one.
        if not words:
            raise UserError(
                f"the task {text!r} has no words that say what to look for; try: "
                f"{'; '.join(self.samples())}"
            )
        ids: list[int] = []
        i = 0
        while i < len(words):
            length = self._known_length(words[i : i + LONGEST_PHRASE])
            if length == 0:
                raise UserError(self._unknown(words, i))
            ids.append(self.id_of[" ".join(words[i : i + length])])
            i += length
        return ids

    def _known_length(self, words: list[str]) -> int:
        """How many of the first words are one phrase, as many as possible; 0 if not even one is."""
        # The longest first: "red mill" is a place, "red" alone a colour.
        for length in range(len(words), 0, -1):
            if " ".join(words[:length]) in self.id_of:
                return length
        return 0

    def names(self, tokens: Sequence[int]) -> list[list[str]]:
        """The parts of every phrase among `tokens`, in order: `red mill` -> [red, mill], an
        activity is one part.
        """
        first = len(SPECIALS)
        return [
            parts_of(self.phrases[token - first])
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
            f"{' '.join(words[i : i + 3])!r} is nothing this model knows: {word!r} occurs in, for "
            f"example, {', '.join(partners[:3])}"
        )

    def samples(self) -> list[str]:
        """Tasks in this vocabulary, for error messages and help."""
        return list(self.sample_tasks)

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as readable text; times as seconds of the clock."""
        return " ".join(self._token_text(int(i)) for i in ids if i != PAD)

    def said(self, ids: Sequence[int]) -> tuple[str, ...]:
        """The phrases among some token ids, in order: reasoning without its tags."""
        first = len(SPECIALS)
        return tuple(self.phrases[i - first] for i in ids if first <= i < self.num_phrases)

    def _token_text(self, token: int) -> str:
        if token < len(SPECIALS):
            return SPECIALS[token]
        if token < self.first_second:
            return self.phrases[token - len(SPECIALS)]
        return f"{token - self.first_second}s"
