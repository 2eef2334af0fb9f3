"""Text in and out: a phrase tokenizer, and how questions, reasoning and times are written as tokens.

A token is a *phrase* (`sailor lift rope`, `red mill`, `when`). A place's vector is the sum of its words' vectors; an activity has a vector of its own (summing
role, verb and object made near-misses too alike for retrieval to start, docs/LOG.md). Times are tokens too: a segment number and an offset in the segment, so no code is new in a longer video.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import COLOURS, EFFECTS, NUM_ACTIVITIES, NUM_PLACES, NUM_TRACKS, VERBS, Domain
from timescope_lite.world.story import Story
from timescope_lite.world.tasks import TEMPLATES, Question, in_words

SPECIALS = ("<pad>", "<think>", "<direct>", "<so>", "<window>", "<answer>", "<absent>")
PAD, THINK, DIRECT, SO, WINDOW, ANSWER, ABSENT = range(len(SPECIALS))
STOP_WORDS = frozenset("a an the does do is are there of in at to from on we it what find follow moment me show".split())
# Surface forms that mean a known word.
SYNONYMS = {"darkness": "dark", "signs": "sign", "why": "why", "fires": "fire", "alarms": "alarm", "floods": "flood"}
NUM_SEGMENT_CODES = 512
# What a position asks of the model when it is supervised: nothing, a word of the reasoning, a time code.
NO_LOSS, CHAIN_LOSS, TIME_LOSS = 0, 1, 2


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation, stop words and inflection: `The sailor lifts the rope!` -> sailor lift rope."""
    return [word for word in (_stem(w) for w in re.findall(r"[a-z0-9]+", text.lower())) if word not in STOP_WORDS]


def _stem(word: str) -> str:
    if word in SYNONYMS:
        return SYNONYMS[word]
    stem = {"es": word[:-2], "s": word[:-1]}
    return next((base for ending, base in stem.items() if word.endswith(ending) and base in VERBS), word)


def _parts(phrase: str) -> list[str]:
    """What a phrase's vector is the sum of: its words, but an activity (`sailor lift rope`) is one thing of its own."""
    words = phrase.split()
    return [phrase] if len(words) == 3 else words


@dataclass(frozen=True)
class Vocabulary:
    """All phrases a model knows, and the numbering of its tokens: specials, phrases, segment codes, offset codes.

    Built from domains and saved with a checkpoint, so that a checkpoint keeps its numbering when domains are added later.
    """

    phrases: tuple[str, ...]
    frames_per_segment: int = 16

    @classmethod
    def of(cls, domains: Iterable[Domain], frames_per_segment: int = 16) -> Vocabulary:
        """The phrases that questions and reasoning about these domains need."""
        domains = list(domains)
        found = dict.fromkeys(word for texts in TEMPLATES.values() for text in texts for word in plain_words(re.sub(r"\{.\}", " ", text)))
        found |= dict.fromkeys(EFFECTS)
        for domain in domains:
            found |= dict.fromkeys(domain.place(i) for i in range(NUM_PLACES))
            found |= dict.fromkeys(domain.activity(w) for w in range(NUM_TRACKS * NUM_ACTIVITIES))
        return cls(tuple(found), frames_per_segment)

    @cached_property
    def id_of(self) -> dict[str, int]:
        return {phrase: len(SPECIALS) + i for i, phrase in enumerate(self.phrases)}

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Specials, then every part of every phrase: the rows of the embedding table."""
        return SPECIALS + tuple(dict.fromkeys(part for phrase in self.phrases for part in _parts(phrase)))

    @property
    def num_phrases(self) -> int:
        """Specials included."""
        return len(SPECIALS) + len(self.phrases)

    @property
    def first_segment(self) -> int:
        return self.num_phrases

    @property
    def first_offset(self) -> int:
        return self.num_phrases + NUM_SEGMENT_CODES

    @property
    def size(self) -> int:
        # Offsets 0..S: an interval may end where its segment ends.
        return self.first_offset + self.frames_per_segment + 1

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
        """Token ids of a question; the longest known phrase wins. Raises UserError with the nearest known words for an unknown one."""
        words, ids, i = plain_words(text), [], 0
        if not words:
            raise UserError(f"the task {text!r} has no words that say what to look for; try: {'; '.join(self.samples())}")
        while i < len(words):
            for length in (3, 2, 1):
                token = self.id_of.get(" ".join(words[i : i + length])) if i + length <= len(words) else None
                if token is not None:
                    break
            if token is None:
                raise UserError(self._unknown(words, i))
            ids.append(token)
            i += length
        return ids

    def _unknown(self, words: list[str], i: int) -> str:
        word = words[i]
        known = list(dict.fromkeys(part for phrase in self.phrases for part in phrase.split()))
        if word not in known:
            near = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or known[:3]
            return f"unknown word {word!r}: the nearest known words are {', '.join(near)}; try: {'; '.join(self.samples())}"
        partners = [p for p in self.phrases if word in p.split() and len(p.split()) > 1]
        return f"{' '.join(words[i : i + 3])!r} is nothing this town knows: {word!r} occurs in, for example, {', '.join(partners[:3])}"

    def samples(self) -> list[str]:
        """Three tasks in this vocabulary, for error messages and help."""
        activity = next((p for p in self.phrases if len(p.split()) == 3), "")
        place = next((p for p in self.phrases if len(p.split()) == 2 and p.split()[0] in COLOURS), "")
        role, verb, thing = activity.split() if activity else ("", "", "")
        return [
            f"When does the {role} {verb} the {thing} at the {place}?",
            f"One sign on from the {place}, when does the {role} {verb} the {thing}?",
            "Why is there a flood?",
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids as readable text; times as segment:offset."""
        return " ".join(self._token_text(int(i)) for i in ids if i != PAD)

    def _token_text(self, token: int) -> str:
        if token < len(SPECIALS):
            return SPECIALS[token]
        if token < self.first_segment:
            return self.phrases[token - len(SPECIALS)]
        if token < self.first_offset:
            return f"s{token - self.first_segment}"
        return f"+{token - self.first_offset}"


@dataclass(frozen=True)
class DomainTokens:
    """Lookup from a domain's numbers to token ids, so that training never parses strings."""

    place: np.ndarray
    activity: np.ndarray
    effect: np.ndarray

    @classmethod
    def of(cls, domain: Domain, vocabulary: Vocabulary) -> DomainTokens:
        ids = vocabulary.id_of
        return cls(
            place=np.array([ids[domain.place(i)] for i in range(NUM_PLACES)]),
            activity=np.array([ids[domain.activity(w)] for w in range(NUM_TRACKS * NUM_ACTIVITIES)]),
            effect=np.array([PAD] + [ids[effect] for effect in EFFECTS]),
        )


class Writer:
    """Writes questions, reasoning and times as token ids for one vocabulary (used by training, evaluation and `ground` alike)."""

    def __init__(self, vocabulary: Vocabulary, domains: Iterable[Domain]) -> None:
        self.vocabulary = vocabulary
        self.tokens = {domain.name: DomainTokens.of(domain, vocabulary) for domain in domains}
        self.templates = {kind: [self._parse(text) for text in texts] for kind, texts in TEMPLATES.items()}

    def _parse(self, text: str) -> list[int | str]:
        pieces = re.split(r"(\{.\})", text)
        return [
            token
            for piece in pieces
            for token in ([piece] if piece.startswith("{") else [self.vocabulary.id_of[word] for word in plain_words(piece)])
        ]

    def question(self, story: Story, question: Question) -> list[int]:
        """Token ids of a drawn question: the same as `vocabulary.encode(in_words(story, question))`, without the string."""
        tokens = self.tokens[story.domain.name]
        fill = {"{A}": tokens.activity[question.word], "{P}": tokens.place[question.path[0]], "{E}": tokens.effect[question.effect]}
        return [int(fill[t]) if isinstance(t, str) else t for t in self.templates[question.kind][question.template_idx]]

    def chain(self, story: Story, question: Question) -> list[int]:
        """The reasoning: what to look for, then the places one visits on the way, then <so>."""
        tokens = self.tokens[story.domain.name]
        what = [int(tokens.activity[question.word])] if question.word >= 0 else []
        return [*what, *(int(tokens.place[p]) for p in question.path), SO]

    def window(self, start_s: float, end_s: float, clock: int) -> list[int]:
        """A coarse window as two segment codes: the first and the last segment that overlap [start_s, end_s) at 1 frame per second."""
        S, first = self.vocabulary.frames_per_segment, self.vocabulary.first_segment
        return [first + clock + int(start_s) // S, first + clock + (int(np.ceil(end_s)) - 1) // S]

    def interval(self, start_s: float, end_s: float, clock: int) -> list[int]:
        """An exact interval as segment, offset, segment, offset; the end is written in the segment of its last second (offset 1..S)."""
        S, v = self.vocabulary.frames_per_segment, self.vocabulary
        last_segment = (round(end_s) - 1) // S
        return [
            v.first_segment + clock + int(start_s) // S,
            v.first_offset + int(start_s) % S,
            v.first_segment + clock + last_segment,
            v.first_offset + round(end_s) - last_segment * S,
        ]

    def read_interval(self, codes: Sequence[int], clock: int) -> tuple[float, float]:
        """Seconds of four time codes (the inverse of `interval`)."""
        S, v = self.vocabulary.frames_per_segment, self.vocabulary
        segment = [int(codes[i]) - v.first_segment - clock for i in (0, 2)]
        offset = [int(codes[i]) - v.first_offset for i in (1, 3)]
        return float(segment[0] * S + offset[0]), float(segment[1] * S + offset[1])


def check_round_trip(writer: Writer, story: Story, question: Question) -> None:
    """Raise UserError unless the fast path and the sentence give the same tokens (a template whose slots do not survive tokenizing)."""
    fast, slow = writer.question(story, question), writer.vocabulary.encode(in_words(story, question))
    if fast != slow:
        raise UserError(f"template {question.kind!r} does not tokenize to itself: {writer.vocabulary.decode(slow)}")
