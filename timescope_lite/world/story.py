"""Stories of Tiny Town: chapters with lasting cues, four tracks of short activities, and effects that follow from their causes.

One story is one row of symbols per second (`Story.states`) plus the exact intervals behind them: exact truth about *why* something happened exists
for no video that one can download. Vectorised, because training draws a new story for every step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import (
    EFFECT,
    EFFECTS,
    NUM_ACTIVITIES,
    NUM_FIELDS,
    NUM_PLACES,
    NUM_TRACKS,
    PLACE,
    SIGN,
    TRACK0,
    Domain,
)


@dataclass(frozen=True)
class StoryConfig:
    """The dials of the world, in seconds; ranges are inclusive. docs/LOG.md says how each was chosen.

    `stretch` multiplies the chapter lengths (a video twice as long with chapters stretched alike keeps their number).
    """

    activity_s: tuple[int, int] = (2, 5)
    gap_s: tuple[int, int] = (0, 2)
    chapter_s: tuple[int, int] = (20, 40)
    stretch: float = 1.0
    tracks: int = NUM_TRACKS

    def chapter_range(self, num_seconds: int) -> tuple[int, int]:
        """Shortest and longest chapter for a video of this length: short clips get short chapters, so that they hold rivals too."""
        low, high = self.chapter_s
        for limit, divisor in ((32, 3.3), (64, 2.5), (128, 1.67)):
            if num_seconds <= limit:
                return max(6, round(low / divisor)), round(high / divisor)
        return round(low * self.stretch), round(high * self.stretch)


@dataclass(frozen=True)
class Story:
    """One video as symbols. Chapters and events are parallel arrays; intervals are [start, end) in whole seconds.

    states (T, 7) int16: place, sign, effect, track0..3 (see docs/architecture.md). `sign_to[c]` is the chapter that the sign of chapter c names.
    `event_unique[i]`: the activity happens once in its chapter and lies fully inside it, so a question about it has one answer.
    """

    domain: Domain
    seed: int
    states: np.ndarray
    chapter_start: np.ndarray
    chapter_end: np.ndarray
    place: np.ndarray
    sign_to: np.ndarray
    effect: np.ndarray
    cause_event: np.ndarray
    event_start: np.ndarray
    event_end: np.ndarray
    event_word: np.ndarray
    event_chapter: np.ndarray
    event_unique: np.ndarray

    @property
    def num_seconds(self) -> int:
        return len(self.states)

    @property
    def num_chapters(self) -> int:
        return len(self.place)

    def digest(self) -> str:
        """A hash of everything that happens: the same on every machine for the same domain, seed and configuration."""
        parts = (self.states, self.event_start, self.event_end, self.event_word, self.sign_to, self.effect)
        return hashlib.sha256(b"".join(np.ascontiguousarray(part, dtype="<i4").tobytes() for part in parts)).hexdigest()


def tell(domain: Domain, num_seconds: int, seed: int | tuple[int, ...], config: StoryConfig | None = None) -> Story:
    """Draw the story of a video of `num_seconds` in `domain`. Raises UserError if it is too short for three chapters."""
    config = config or StoryConfig()
    if num_seconds < 3 * config.chapter_range(num_seconds)[0]:
        raise UserError(f"a story needs at least three chapters: {num_seconds} s is too short; take 32 s or more")
    rng = np.random.default_rng(seed)
    start, end = _chapters(num_seconds, config.chapter_range(num_seconds), rng)
    chapter_of = np.repeat(np.arange(len(start)), end - start)
    place = rng.permutation(NUM_PLACES)[: len(start)]
    sign_to = _one_cycle(len(start), rng)
    tracks = [_track(num_seconds, config, rng) for _ in range(config.tracks)]
    events = _Events(
        np.concatenate([t[0] for t in tracks]),
        np.concatenate([t[1] for t in tracks]),
        np.concatenate([t[2] + NUM_ACTIVITIES * k for k, t in enumerate(tracks)]),
    )
    effect, cause = _place_effects(domain, events, start, end, chapter_of, rng)
    states = _paint(num_seconds, place, sign_to, chapter_of, effect, cause, events, end)
    unique = _unique_in_chapter(events, chapter_of, len(start), num_seconds)
    whole = events.end <= num_seconds
    remap = np.cumsum(whole) - 1
    return Story(
        domain=domain,
        seed=seed if isinstance(seed, int) else int(seed[-1]),
        states=states,
        chapter_start=start,
        chapter_end=end,
        place=place,
        sign_to=sign_to,
        effect=effect,
        cause_event=np.where(cause >= 0, remap[cause], -1),
        event_start=events.start[whole],
        event_end=events.end[whole],
        event_word=events.word[whole],
        event_chapter=chapter_of[events.start[whole]],
        event_unique=unique[whole],
    )


@dataclass
class _Events:
    """All activities of all tracks while the story is being told; `end` may pass the end of the video."""

    start: np.ndarray
    end: np.ndarray
    word: np.ndarray


def _chapters(num_seconds: int, length: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of chapters that tile the video; the last takes what is left, or joins its neighbour if that is too little."""
    low, high = length
    end = np.cumsum(rng.integers(low, high + 1, size=num_seconds // low + 2))
    end = end[: int(np.searchsorted(end, num_seconds)) + 1]
    end[-1] = num_seconds
    if len(end) > 1 and end[-1] - end[-2] < low // 2:
        end = np.append(end[:-2], num_seconds)
    end = end[:NUM_PLACES]
    end[-1] = num_seconds
    return np.append(0, end[:-1]), end


def _one_cycle(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random single cycle through 0..n-1: following the signs visits every chapter."""
    order = rng.permutation(n)
    successor = np.empty(n, dtype=np.int64)
    successor[order] = np.roll(order, -1)
    return successor


def _track(num_seconds: int, config: StoryConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end, activity (0..15) of one person's doings; two neighbours are never the same activity."""
    n = num_seconds // config.activity_s[0] + 2
    length = rng.integers(config.activity_s[0], config.activity_s[1] + 1, size=n)
    gap = rng.integers(config.gap_s[0], config.gap_s[1] + 1, size=n)
    # A random walk by 1..15 modulo 16 is uniform and never stands still.
    step = rng.integers(1, NUM_ACTIVITIES, size=n)
    activity = (np.cumsum(step) + rng.integers(NUM_ACTIVITIES)) % NUM_ACTIVITIES
    end = np.cumsum(length + gap)
    start = end - length
    began = start < num_seconds
    return start[began], end[began], activity[began]


def _place_effects(
    domain: Domain, events: _Events, start: np.ndarray, end: np.ndarray, chapter_of: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Give up to half of the chapters (at least three) an effect, and turn an early activity there into its cause.

    Returns per chapter the effect (0 none, 1..6) and the index of the causing event (-1 none). Edits `events.word` in place.
    """
    n, num_seconds = len(start), len(chapter_of)
    effect, cause = np.zeros(n, dtype=np.int64), np.full(n, -1)
    inside = events.end <= num_seconds
    chapter = chapter_of[events.start]
    inside &= chapter_of[np.minimum(events.end, num_seconds) - 1] == chapter
    early = inside & (events.end <= start[chapter] + 0.7 * (end[chapter] - start[chapter]))
    for number in rng.permutation(len(EFFECTS))[: max(3, n // 2)] + 1:
        word = domain.cause_word(int(number))
        on_track = events.word // NUM_ACTIVITIES == word // NUM_ACTIVITIES
        fits = np.flatnonzero(on_track & early & (effect[chapter] == 0))
        if len(fits) == 0:
            continue
        event = int(fits[rng.integers(len(fits))])
        where = chapter[event]
        _make_only(events, event, word, on_track & (events.start < end[where]) & (events.end > start[where]), rng)
        effect[where], cause[where] = number, event
    return effect, cause


def _make_only(events: _Events, event: int, word: int, in_chapter: np.ndarray, rng: np.random.Generator) -> None:
    """Set the word of `event`, and give every other event of its track in the chapter, and its neighbours, another one."""
    track = word // NUM_ACTIVITIES * NUM_ACTIVITIES
    others = np.flatnonzero(in_chapter & (events.word == word))
    events.word[event] = word
    neighbours = [i for i in (event - 1, event + 1) if 0 <= i < len(events.word) and events.word[i] == word]
    for other in {*others.tolist(), *neighbours} - {event}:
        around = {int(events.word[i]) for i in (other - 1, other, other + 1) if 0 <= i < len(events.word)} | {word}
        free = [w for w in range(track, track + NUM_ACTIVITIES) if w not in around]
        events.word[other] = free[rng.integers(len(free))]


def _paint(
    num_seconds: int,
    place: np.ndarray,
    sign_to: np.ndarray,
    chapter_of: np.ndarray,
    effect: np.ndarray,
    cause: np.ndarray,
    events: _Events,
    chapter_end: np.ndarray,
) -> np.ndarray:
    """The state rows (T, 7): what one sees in every second."""
    states = np.zeros((num_seconds, NUM_FIELDS), dtype=np.int16)
    states[:, PLACE] = place[chapter_of]
    states[:, SIGN] = place[sign_to[chapter_of]]
    for chapter in np.flatnonzero(effect):
        states[events.end[cause[chapter]] : chapter_end[chapter], EFFECT] = effect[chapter]
    for track in range(NUM_TRACKS):
        mine = np.flatnonzero(events.word // NUM_ACTIVITIES == track)
        lengths = events.end[mine] - events.start[mine]
        seconds = np.repeat(events.start[mine], lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        seen = seconds < num_seconds
        states[seconds[seen], TRACK0 + track] = np.repeat(events.word[mine] % NUM_ACTIVITIES + 1, lengths)[seen]
    return states


def _unique_in_chapter(events: _Events, chapter_of: np.ndarray, num_chapters: int, num_seconds: int) -> np.ndarray:
    """Whether each event lies inside one chapter and is the only one of its word that touches that chapter."""
    first = chapter_of[events.start]
    last = chapter_of[np.minimum(events.end, num_seconds) - 1]
    count = np.zeros((num_chapters, NUM_TRACKS * NUM_ACTIVITIES), dtype=np.int64)
    np.add.at(count, (first, events.word), 1)
    crosses = last != first
    np.add.at(count, (last[crosses], events.word[crosses]), 1)
    return (~crosses) & (events.end <= num_seconds) & (count[first, events.word] == 1)
