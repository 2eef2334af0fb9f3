"""Reading and writing over a memory: coarse window, fine interval, clues, captions.

Everything is written greedily, token by token, several questions in step; at each place the model
chooses only among what may stand there (a word, a second of the video, a tag).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from timescope_lite.memory import LayerKV, Memory
from timescope_lite.model.tokenizer import ABSENT, ANSWER, CLUE, PAD, SO, THINK, WINDOW

if TYPE_CHECKING:
    from timescope_lite.model.timescope import TimeScope

MAX_CHAIN = 6
MAX_CLUES = 2


@dataclass(frozen=True)
class Coarse:
    """What the coarse stage says: the reasoning (token ids), first and last segment of the window,
    and the probability it gives them.
    """

    chain: list[int]
    window: tuple[int, int]
    confidence: float
    absent: bool = False


@dataclass(frozen=True)
class _Seconds:
    """One chosen second per question: its token, the probability of its segment, whether <absent>
    scores higher.
    """

    tokens: list[int]
    probability: list[float]
    absent: list[bool]


class Reader:
    """Greedy writing with a KV cache over one memory, several questions in step.

    `logits` (Q, vocabulary.size) are the scores of the token that comes next.
    """

    def __init__(
        self,
        model: TimeScope,
        layers: Sequence[LayerKV],
        memory: Memory,
        prompts: Sequence[Sequence[int]],
    ) -> None:
        self.model, self.layers, self.memory = model, layers, memory
        self.device = model.device
        longest = max(len(prompt) for prompt in prompts)
        padded = [[*prompt, *[PAD] * (longest - len(prompt))] for prompt in prompts]
        tokens = torch.tensor(padded, device=self.device)[None]
        hidden, self.cache = model.read(tokens, layers, memory.num_frames)
        # Shorter prompts end before the padding: each question goes on from its own last token.
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        rows = torch.arange(len(prompts), device=self.device)
        self.logits = model.logits(hidden[0, rows, last].float())

    def feed(self, tokens: Sequence[int]) -> None:
        """Read one more token per question; a question that is fed PAD keeps its last scores."""
        column = torch.tensor(tokens, device=self.device)
        hidden, self.cache = self.model.read(
            column[None, :, None], self.layers, self.memory.num_frames, cache=self.cache
        )
        # fp32 scores: in bf16 neighbouring seconds of a long clock are ties.
        fresh = self.model.logits(hidden[0, :, 0].float())
        self.logits = torch.where((column != PAD)[:, None], fresh, self.logits)

    def choose_word(self) -> list[int]:
        """The best of <so> and all phrases."""
        words = self.logits[:, : self.model.vocabulary.num_phrases].clone()
        tags = [token for token in range(ABSENT + 1) if token != SO]
        words[:, tags] = -torch.inf
        return [int(token) for token in words.argmax(-1)]

    def choose_second(self, lowest: Sequence[int] | None = None) -> _Seconds:
        """The best second of the video per question, not before its token `lowest` (None: any)."""
        first = self.model.vocabulary.first_second + self.memory.clock
        last = first + self.memory.num_valid - 1
        if lowest is None:
            lowest = [first] * len(self.logits)
        codes = torch.arange(self.logits.shape[1], device=self.device)[None]
        allowed = (codes >= torch.tensor(lowest, device=self.device)[:, None]) & (codes <= last)
        scores = self.logits.masked_fill(~allowed, -torch.inf)
        best = scores.argmax(-1)
        S = self.memory.frames_per_segment
        # What is reloaded is a segment, so that is what the probability is of, not of the second.
        same_segment = (codes - first) // S == (best[:, None] - first) // S
        probability = (scores.softmax(-1) * same_segment).sum(-1)
        absent = self.logits[:, ABSENT] > scores.max(-1).values
        # A model that never learned to say so gives that tag an arbitrary score.
        absent = absent & self.model.config.can_say_absent
        return _Seconds(best.tolist(), probability.tolist(), absent.tolist())

    def prefers(self, token: int, other: int) -> bool:
        """Whether the first question's next token is rather `token` than `other`."""
        return bool(self.logits[0, token] > self.logits[0, other])


@torch.no_grad()
def coarse(model: TimeScope, memory: Memory, prompts: Sequence[Sequence[int]]) -> list[Coarse]:
    """The coarse stage for several questions at once: reasoning, window, confidence, all from the
    HVR alone. A prompt is the question's tokens followed by <think> or <direct>.
    """
    reader = Reader(model, memory.hvr, memory, prompts)
    chains = _write_chains(reader, [prompt[-1] for prompt in prompts])
    reader.feed([WINDOW] * len(prompts))
    # The start is read again before the end is chosen: an end belongs to its start.
    start = reader.choose_second()
    reader.feed(start.tokens)
    end = reader.choose_second(start.tokens)
    first = model.vocabulary.first_second + memory.clock
    S = memory.frames_per_segment
    answers = []
    for i, chain in enumerate(chains):
        window = (start.tokens[i] - first) // S, (end.tokens[i] - first) // S
        # As if independent; the end was chosen given the start, so it is a chain rule, not a guess.
        confidence = start.probability[i] * end.probability[i]
        answers.append(Coarse(chain, window, confidence, start.absent[i]))
    return answers


def _write_chains(reader: Reader, modes: Sequence[int]) -> list[list[int]]:
    """Greedy reasoning until <so>; a question in <direct> mode writes none."""
    chains: list[list[int]] = [[] for _ in modes]
    writing = [mode == THINK for mode in modes]
    for _ in range(MAX_CHAIN):
        if not any(writing):
            break
        words = reader.choose_word()
        step = [PAD] * len(modes)
        for i, word in enumerate(words):
            if writing[i]:
                step[i] = word
                chains[i].append(word)
                writing[i] = word != SO
        reader.feed(step)
    return chains


@torch.no_grad()
def fine(
    model: TimeScope,
    layers: Sequence[LayerKV],
    memory: Memory,
    prompt: Sequence[int],
    chain: Sequence[int],
) -> list[tuple[float, float]]:
    """The fine stage: the same question and reasoning over `layers` (what the window is read as).

    Intervals (start, end) in frames: first those of its clues, where the model's vocabulary has the
    word and it writes any, then the answer, which is the last.
    """
    # Clues belong to reasoning: told to answer at once (no chain), the model writes none.
    clue = model.vocabulary.id_of.get(CLUE) if chain else None
    reader = Reader(model, layers, memory, [[*prompt, *chain]])
    found: list[tuple[float, float]] = []
    while clue is not None and len(found) < MAX_CLUES and reader.prefers(clue, ANSWER):
        found.append(_write_interval(reader, clue))
    return [*found, _write_interval(reader, ANSWER)]


def _write_interval(reader: Reader, tag: int) -> tuple[float, float]:
    """A tag, then the best start and the best end after it; all are read again by what follows."""
    first = reader.model.vocabulary.first_second + reader.memory.clock
    reader.feed([tag])
    start = reader.choose_second()
    reader.feed(start.tokens)
    end = reader.choose_second(start.tokens)
    reader.feed(end.tokens)
    # Codes name whole seconds, the first and the last; an interval ends where its last second does.
    return float(start.tokens[0] - first), float(end.tokens[0] - first + 1)


@torch.no_grad()
def captions(
    model: TimeScope,
    layers: Sequence[LayerKV],
    memory: Memory,
    prompt: Sequence[int],
    most: int = 6,
) -> list[tuple[int, float, float]]:
    """Dense captions: what happens at a place, as (phrase token, start, end) in frames, in the
    order of starts, overlapping; at most `most`, until <so>.
    """
    clue = model.vocabulary.id_of[CLUE]
    reader = Reader(model, layers, memory, [prompt])
    found: list[tuple[int, float, float]] = []
    while len(found) < most and reader.prefers(clue, SO):
        start, end = _write_interval(reader, clue)
        word = reader.choose_word()[0]
        found.append((word, start, end))
        reader.feed([word])
    return found
