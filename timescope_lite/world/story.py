"""Stories of Tiny Town: chapters with lasting cues, four tracks of short activities, effects that
follow from their causes and preparations for what will come.

One story is one row of symbols per second (`Story.states`) plus the exact intervals behind them:
exact truth about *why* something happened exists for no video that one can download. Vectorised,
because training draws a new story for every step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import (
    DIRECT,
    EFFECT,
    LASTING,
    NUM_ACTIVITIES,
    NUM_FIELDS,
    NUM_PLACES,
    NUM_TRACKS,
    ODDITIES,
    PLACE,
    PREPARATIONS,
    SHOWN,
    SIGN,
    TRACK0,
    Domain,
)

ALARM, CROWD = LASTING.index("alarm") + 1, LASTING.index("crowd") + 1
DIRECT_NUMBERS = tuple(LASTING.index(name) + 1 for name in DIRECT)
PREPARATION_NUMBERS = tuple(LASTING.index(name) + 1 for name in PREPARATIONS)
ODDITY_NUMBERS = tuple(SHOWN.index(name) + 1 for name in ODDITIES)


@dataclass(frozen=True)
class StoryConfig:
    """The dials of the world, in seconds; ranges are inclusive. They come from a study before this
    project; `bench dials` turns them one by one.

    `stretch` multiplies the chapter lengths (a video twice as long with chapters stretched alike
    keeps their number); `delay_s` passes between a cause and its effect; with `oddities` something
    that belongs nowhere is seen once, for `oddity_s`, in a chapter in which nothing lasts.
    """

    activity_s: tuple[int, int] = (2, 5)
    gap_s: tuple[int, int] = (0, 2)
    chapter_s: tuple[int, int] = (20, 40)
    stretch: float = 1.0
    tracks: int = NUM_TRACKS
    delay_s: tuple[int, int] = (0, 3)
    oddities: bool = False
    oddity_s: tuple[int, int] = (3, 6)

    def chapter_range(self, num_seconds: int) -> tuple[int, int]:
        """Shortest and longest chapter for a video of this length: short clips get short chapters,
        so that they hold rivals too.
        """
        low, high = self.chapter_s
        for limit, divisor in ((32, 3.3), (64, 2.5), (128, 1.67)):
            if num_seconds <= limit:
                return max(6, round(low / divisor)), round(high / divisor)
        return round(low * self.stretch), round(high * self.stretch)


@dataclass(frozen=True)
class Oddity:
    """What belongs in no domain: its number in SHOWN, the chapter and the seconds [start_s, end_s)
    in which it is seen.
    """

    number: int
    chapter: int
    start_s: int
    end_s: int


@dataclass(frozen=True)
class Story:
    """One video as symbols. Chapters and events are parallel arrays; intervals are [start, end) in
    whole seconds.

    states (T, 7) int16: place, sign, effect, track0..3 (see docs/architecture.md). `sign_to[c]` is
    the chapter that the sign of chapter c names. `effect[c]` is what lasts there (0 nothing, else a
    number of LASTING) from `effect_start[c]` to the chapter's end; `cause_event[c]` is the event
    behind it, -1 for an alarm or a crowd, whose reason is the effect at the place on the sign.
    `event_unique[i]`: the activity happens once in its chapter and lies fully inside it.
    """

    domain: Domain
    seed: int
    states: np.ndarray
    chapter_start: np.ndarray
    chapter_end: np.ndarray
    place: np.ndarray
    sign_to: np.ndarray
    effect: np.ndarray
    effect_start: np.ndarray
    cause_event: np.ndarray
    event_start: np.ndarray
    event_end: np.ndarray
    event_word: np.ndarray
    event_chapter: np.ndarray
    event_unique: np.ndarray
    oddity: Oddity | None = None

    @property
    def num_seconds(self) -> int:
        return len(self.states)

    @property
    def num_chapters(self) -> int:
        return len(self.place)

    def digest(self) -> str:
        """A hash of everything that happens: the same on every machine for the same domain, seed
        and configuration.
        """
        parts = (
            self.states,
            self.event_start,
            self.event_end,
            self.event_word,
            self.sign_to,
            self.effect,
        )
        return hashlib.sha256(
            b"".join(np.ascontiguousarray(part, dtype="<i4").tobytes() for part in parts)
        ).hexdigest()


def tell(
    domain: Domain, num_seconds: int, seed: int | tuple[int, ...], config: StoryConfig | None = None
) -> Story:
    """Draw the story of a video of `num_seconds` in `domain`. Raises UserError if it is too short
    for three chapters.
    """
    config = config or StoryConfig()
    if num_seconds < 3 * config.chapter_range(num_seconds)[0]:
        raise UserError(
            f"a story needs at least three chapters: {num_seconds} s is too short; take 32 s or "
            "more"
        )
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
    cues = _place_cues(domain, events, _Chapters(start, end, chapter_of), sign_to, config, rng)
    states = _paint(place, sign_to, chapter_of, cues, events, end)
    oddity = _place_oddity(cues, start, end, config, seed) if config.oddities else None
    if oddity:
        states[oddity.start_s : oddity.end_s, EFFECT] = oddity.number
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
        effect=cues.effect,
        effect_start=cues.start,
        cause_event=np.where(cues.event >= 0, remap[cues.event], -1),
        event_start=events.start[whole],
        event_end=events.end[whole],
        event_word=events.word[whole],
        event_chapter=chapter_of[events.start[whole]],
        event_unique=unique[whole],
        oddity=oddity,
    )


@dataclass
class _Events:
    """All activities of all tracks while the story is being told; `end` may pass the end of the
    video.
    """

    start: np.ndarray
    end: np.ndarray
    word: np.ndarray


def _chapters(
    num_seconds: int, length: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of chapters that tile the video; the last takes what is left, or joins its
    neighbour if that is too little.
    """
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


def _track(
    num_seconds: int, config: StoryConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, end, activity (0..15) of one person's doings; two neighbours are never the same
    activity.
    """
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


@dataclass
class _Chapters:
    """Where the chapters lie while the story is being told: starts and ends (n,), and the chapter
    of every second (T,).
    """

    start: np.ndarray
    end: np.ndarray
    of: np.ndarray


@dataclass
class _Cues:
    """What lasts in each chapter: its number in LASTING (0 nothing), the event behind it (-1 none),
    the second from which it shows.
    """

    effect: np.ndarray
    event: np.ndarray
    start: np.ndarray


def _place_cues(
    domain: Domain,
    events: _Events,
    chapters: _Chapters,
    sign_to: np.ndarray,
    config: StoryConfig,
    rng: np.random.Generator,
) -> _Cues:
    """Give about two thirds of the chapters (at least three) something that lasts. Edits
    `events.word`: a cause or a purpose happens once in its chapter.

    First a relay, where the signs offer one: an effect at A, later the alarm where the sign names
    A, later the crowd where the sign names the alarm.
    """
    n = len(chapters.start)
    cues = _Cues(np.zeros(n, dtype=np.int64), np.full(n, -1), chapters.start.copy())
    local = rng.permutation(DIRECT_NUMBERS + PREPARATION_NUMBERS).tolist()
    relay = _relay(sign_to, rng)
    if relay:
        first = next(number for number in local if number in DIRECT_NUMBERS)
        if _place_cue(domain, first, events, chapters, cues, config, rng, only=relay[-1]):
            local.remove(first)
            cues.effect[list(relay[:-1])] = (CROWD, ALARM)[-len(relay) + 1 :]
    for number in local:
        if np.count_nonzero(cues.effect) >= max(3, 2 * n // 3):
            break
        _place_cue(domain, number, events, chapters, cues, config, rng)
    return cues


def _relay(sign_to: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """Chapters (Y, X, A), or (X, A), or none: the sign of each names the next one, and each comes
    later in the video than the next one.
    """
    later = np.flatnonzero(np.arange(len(sign_to)) > sign_to)
    longest = later[sign_to[later] > sign_to[sign_to[later]]]
    chosen = longest if len(longest) else later
    if len(chosen) == 0:
        return ()
    top = int(chosen[rng.integers(len(chosen))])
    below = int(sign_to[top])
    return (top, below, int(sign_to[below])) if len(longest) else (top, below)


def _place_cue(  # noqa: PLR0913
    domain: Domain,
    number: int,
    events: _Events,
    chapters: _Chapters,
    cues: _Cues,
    config: StoryConfig,
    rng: np.random.Generator,
    only: int | None = None,
) -> bool:
    """Turn an activity of a free chapter (or of chapter `only`) into the cause of an effect, or the
    purpose of a preparation; False if none fits.
    """
    word, prepared = domain.cause_word(number), number in PREPARATION_NUMBERS
    chapter, inside = chapters.of[events.start], events.end <= len(chapters.of)
    inside &= chapters.of[np.minimum(events.end, len(chapters.of)) - 1] == chapter
    length = chapters.end[chapter] - chapters.start[chapter]
    in_time = (
        events.start >= chapters.start[chapter] + 0.3 * length
        if prepared
        else events.end <= chapters.start[chapter] + 0.7 * length
    )
    on_track = events.word // NUM_ACTIVITIES == word // NUM_ACTIVITIES
    fits = np.flatnonzero(
        on_track
        & inside
        & in_time
        & (cues.effect[chapter] == 0)
        & ((only is None) | (chapter == only))
    )
    if len(fits) == 0:
        return False
    event = int(fits[rng.integers(len(fits))])
    where = chapter[event]
    in_chapter = (
        on_track & (events.start < chapters.end[where]) & (events.end > chapters.start[where])
    )
    standing = {(int(c), int(events.word[cues.event[c]])) for c in np.flatnonzero(cues.event >= 0)}
    _make_only(events, event, word, in_chapter, chapters, standing, rng)
    cues.effect[where], cues.event[where] = number, event
    if not prepared:
        low, high = config.delay_s
        cues.start[where] = max(
            events.end[event],
            min(events.end[event] + rng.integers(low, high + 1), chapters.end[where] - 2),
        )
    return True


def _make_only(  # noqa: PLR0913
    events: _Events,
    event: int,
    word: int,
    in_chapter: np.ndarray,
    chapters: _Chapters,
    standing: set[tuple[int, int]],
    rng: np.random.Generator,
) -> None:
    """Set the word of `event`, and give every other event of its track in the chapter, and its
    neighbours, another one.

    `standing`: (chapter, word) of the causes and purposes that stand already; none of them may come
    twice.
    """
    track = word // NUM_ACTIVITIES * NUM_ACTIVITIES
    others = np.flatnonzero(in_chapter & (events.word == word))
    events.word[event] = word
    neighbours = [
        i for i in (event - 1, event + 1) if 0 <= i < len(events.word) and events.word[i] == word
    ]
    for other in {*others.tolist(), *neighbours} - {event}:
        around = {
            int(events.word[i]) for i in (other - 1, other, other + 1) if 0 <= i < len(events.word)
        } | {word}
        free = [w for w in range(track, track + NUM_ACTIVITIES) if w not in around]
        last = min(int(events.end[other]), len(chapters.of)) - 1
        touches = {int(chapters.of[events.start[other]]), int(chapters.of[last])}
        chosen = free[rng.integers(len(free))]
        while any((chapter, chosen) in standing for chapter in touches):
            chosen = free[rng.integers(len(free))]
        events.word[other] = chosen


def _place_oddity(
    cues: _Cues,
    start: np.ndarray,
    end: np.ndarray,
    config: StoryConfig,
    seed: int | tuple[int, ...],
) -> Oddity | None:
    """Something odd in one of the chapters without anything that lasts; None if all have something.
    Its own generator: the rest of a story stays as it is.
    """
    free = np.flatnonzero((cues.effect == 0) & (end - start > config.oddity_s[1]))
    if len(free) == 0:
        return None
    rng = np.random.default_rng((*(seed if isinstance(seed, tuple) else (seed,)), 5))
    chapter = int(rng.choice(free))
    length = int(rng.integers(config.oddity_s[0], config.oddity_s[1] + 1))
    first = int(rng.integers(start[chapter], end[chapter] - length + 1))
    return Oddity(int(rng.choice(ODDITY_NUMBERS)), chapter, first, first + length)


def _paint(
    place: np.ndarray,
    sign_to: np.ndarray,
    chapter_of: np.ndarray,
    cues: _Cues,
    events: _Events,
    chapter_end: np.ndarray,
) -> np.ndarray:
    """The state rows (T, 7): what one sees in every second."""
    num_seconds = len(chapter_of)
    states = np.zeros((num_seconds, NUM_FIELDS), dtype=np.int16)
    states[:, PLACE] = place[chapter_of]
    states[:, SIGN] = place[sign_to[chapter_of]]
    for chapter in np.flatnonzero(cues.effect):
        states[cues.start[chapter] : chapter_end[chapter], EFFECT] = cues.effect[chapter]
    for track in range(NUM_TRACKS):
        mine = np.flatnonzero(events.word // NUM_ACTIVITIES == track)
        lengths = events.end[mine] - events.start[mine]
        seconds = (
            np.repeat(events.start[mine], lengths)
            + np.arange(lengths.sum())
            - np.repeat(np.cumsum(lengths) - lengths, lengths)
        )
        seen = seconds < num_seconds
        states[seconds[seen], TRACK0 + track] = np.repeat(
            events.word[mine] % NUM_ACTIVITIES + 1, lengths
        )[seen]
    return states


def _unique_in_chapter(
    events: _Events, chapter_of: np.ndarray, num_chapters: int, num_seconds: int
) -> np.ndarray:
    """Whether each event lies inside one chapter and is the only one of its word that touches that
    chapter.
    """
    first = chapter_of[events.start]
    last = chapter_of[np.minimum(events.end, num_seconds) - 1]
    count = np.zeros((num_chapters, NUM_TRACKS * NUM_ACTIVITIES), dtype=np.int64)
    np.add.at(count, (first, events.word), 1)
    crosses = last != first
    np.add.at(count, (last[crosses], events.word[crosses]), 1)
    return (~crosses) & (events.end <= num_seconds) & (count[first, events.word] == 1)
