"""Questions about a story: what is asked, what it takes to answer, and the one interval that
answers it.

A *task* never describes its target: it is reached by a cue that lasts (a sign that names another
place, an effect that follows from a cause, a preparation for what will come) or by the order of
what happens. Every hop of a task is also a question of its own (a *skill*), because a chain helps
only where each hop is reliable (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import (
    EFFECT,
    LASTING,
    NUM_ACTIVITIES,
    NUM_PLACES,
    NUM_TRACKS,
    PLACE,
    SHOWN,
    SIGN,
    TRACK0,
    Domain,
)
from timescope_lite.world.story import (
    ALARM,
    CROWD,
    DIRECT_NUMBERS,
    ODDITY_NUMBERS,
    PREPARATION_NUMBERS,
    Story,
)

# Kind -> paraphrases. {A} an activity, {D} the same as in `he does it`, {B} another activity like
# {D}, {P} a place, {E} what lasts there, {X} a person by colour of clothes and thing in hand, {N}
# which time. Of six the first two make up the core town's questions, four are trained on in the
# whole town, and the last two are held out: new sentences of known words.
_WHY = (
    "Why is there {E}?",
    "Find what caused {E}.",
    "What is the reason for {E}?",
    "Who or what is to blame for {E}?",
    "Tell why there is {E}.",
    "Locate what caused {E}.",
)
TEMPLATES: dict[str, tuple[str, ...]] = {
    "explicit": (
        "When does the {A} at the {P}?",
        "Find the moment at the {P} when the {D}.",
        "At the {P}, tell when the {D}.",
        "Locate the scene at the {P} where the {D}.",
        "Tell when the {D} at the {P}.",
        "At the {P}, locate the scene where the {D}.",
    ),
    "sign1": (
        "One sign on from the {P}, when does the {A}?",
        "Follow one sign from the {P}: find the moment when the {D}.",
        "The sign at the {P} names a place: when does the {A} there?",
        "Where the sign of the {P} points, locate the scene where the {D}.",
        "Locate the place that the sign at the {P} names: when does the {A}?",
        "Tell when the {D} where the sign of the {P} points.",
    ),
    "sign2": (
        "Two signs on from the {P}, when does the {A}?",
        "Follow two signs from the {P}: find the moment when the {D}.",
        "The sign at the {P} names a place whose sign names another: when does the {A} there?",
        "Where two signs from the {P} point, locate the scene where the {D}.",
        "Tell when the {D} two signs on from the {P}.",
        "Locate the place two signs from the {P}: when does the {A}?",
    ),
    "why": _WHY,
    "why2": _WHY,
    "why3": _WHY,
    "purpose": (
        "For what purpose did they bring {E}?",
        "Find the purpose of {E}.",
        "Of what use is {E}?",
        "What are they preparing with {E}?",
        "Tell the purpose of {E}.",
        "Locate what they are preparing with {E}.",
    ),
    "order": (
        "One sign on from the {P}, what does the same person do right after the {D}?",
        "Follow one sign from the {P}: after the {D}, find what the same person does next.",
        "The sign at the {P} names a place: when the {D} there, what comes then?",
        "Where the sign of the {P} points, what comes right after the {D}?",
        "Tell what comes after the {D} one sign on from the {P}.",
        "The sign at the {P} names a place: after the {D} there, what comes then?",
    ),
    "last_before": (
        "One sign on from the {P}, when is the last time the {D} before the {B}?",
        "Follow one sign from the {P}: find the last time the {D} before the {B}.",
        "The sign at the {P} names a place: before the {B} there, when was the last time the {D}?",
        "Where the sign of the {P} points, locate the last time the {D} before the {B}.",
        "Tell when the {D} the last time before the {B}, one sign on from the {P}.",
        "The sign at the {P} names a place: tell the last time the {D} before the {B}.",
    ),
    "attribute": (
        "One sign on from the {P}, when is there {X}?",
        "Follow one sign from the {P}: find {X}.",
        "The sign at the {P} names a place: when is there {X}?",
        "Where the sign of the {P} points, locate {X}.",
        "Tell when there is {X} one sign on from the {P}.",
        "Locate {X} where the sign of the {P} points.",
    ),
    "nth": (
        "One sign on from the {P}, when does the {A} for the {N} time?",
        "Follow one sign from the {P}: find the {N} time the {D}.",
        "The sign at the {P} names a place: when does the {A} there for the {N} time?",
        "Where the sign of the {P} points, locate the {N} time the {D}.",
        "Tell the {N} time the {D} one sign on from the {P}.",
        "Locate the {N} time the {D} where the sign of the {P} points.",
    ),
    "where": (
        "Two signs on from the {P}, which place is that?",
        "Follow two signs from the {P}: find the place.",
        "The sign at the {P} names a place whose sign names another: when are we there?",
        "Where do two signs from the {P} point?",
        "Tell where two signs from the {P} point.",
        "Locate the place two signs on from the {P}.",
    ),
    "consequence": (
        "What happened because the {D}?",
        "The {D}: find the consequence.",
        "What comes of it when the {D}?",
        "The {D}: locate what it caused.",
        "Tell what happened because the {D}.",
        "Locate the consequence when the {D}.",
    ),
    "change": (
        "One sign on from the {P}, when does the scene change? Show four seconds.",
        "Follow one sign from the {P}: find four seconds of change.",
        "The sign at the {P} names a place: when does the scene change there? Show four seconds.",
        "Where the sign of the {P} points, locate four seconds of change.",
        "Tell four seconds in which the scene changes one sign on from the {P}.",
        "Locate four seconds of change where the sign of the {P} points.",
    ),
    "oddity": (
        "What does not belong here?",
        "Find what is out of place.",
        "Something is odd: find it.",
        "Locate what nobody can explain.",
        "Tell what does not belong.",
        "Locate what is odd.",
    ),
    "order_at": ("At the {P}, what does the same person do right after the {D}?",),
    "last_at": ("At the {P}, when is the last time the {D} before the {B}?",),
    "attribute_at": ("At the {P}, when is there {X}?",),
    "nth_at": ("At the {P}, when does the {A} for the {N} time?",),
    "change_at": ("At the {P}, when does the scene change? Show four seconds.",),
    "activity": ("When does the {A}?",),
    "place": ("When are we at the {P}?",),
    "next_place": ("Where does the sign at the {P} lead?",),
    "effect": ("When is there {E}?",),
    "captions": ("Tell all that happens at the {P}.",),
}
# What one asks in the core town, and what there is to ask in the whole one.
CORE_KINDS = tuple(
    (
        "explicit sign1 sign2 why why2 why3 purpose order last_before order_at last_at activity "
        "place "
        "next_place effect"
    ).split()
)
# Which paraphrases one draws from: those of the core town, all that are trained on, those that are
# not.
PHRASINGS = {"core": slice(0, 2), "trained": slice(0, 4), "held_out": slice(4, 6)}
TASK_TYPES = {
    "explicit": "explicit",
    "attribute": "attribute",
    "sign1": "on_screen_text",
    "sign2": "on_screen_text",
    "where": "place",
    "nth": "nth_time",
    "order": "order",
    "last_before": "last_before",
    "why": "why",
    "why2": "why",
    "why3": "why",
    "purpose": "what_for",
    "consequence": "consequence",
    "change": "state_change",
    "oddity": "anomaly",
}
CORE_TASK_TYPES = {kind: TASK_TYPES[kind] for kind in CORE_KINDS if kind in TASK_TYPES}
SKILLS = tuple(kind for kind in TEMPLATES if kind not in TASK_TYPES)
# Signs that one follows from the place or the effect that a question names.
SIGNS = {
    "sign1": 1,
    "sign2": 2,
    "where": 2,
    "order": 1,
    "last_before": 1,
    "attribute": 1,
    "nth": 1,
    "change": 1,
    "next_place": 1,
    "why2": 1,
    "why3": 2,
}
# What a question of a kind about something that lasts may ask about.
ASKED_ABOUT = {
    "why": DIRECT_NUMBERS,
    "why2": (ALARM,),
    "why3": (CROWD,),
    "purpose": PREPARATION_NUMBERS,
    "effect": tuple(range(1, 1 + len(LASTING))),
}
RULE_HOPS = frozenset(
    {"why", "why2", "why3", "purpose", "consequence", "oddity"}
)  # one more step than signs: knowing what goes with what
CHANGE_S = 4  # a change of state is its first four seconds
ORDINALS = ("first", "second", "third")
EFFECT_SURFACE = {
    "flood": "a flood",
    "alarm": "an alarm",
    "smoke": "smoke",
    "dark": "darkness",
    "crowd": "a crowd",
    "fire": "a fire",
    "bunting": "bunting",
    "lights": "a string of lights",
    "carpet": "a carpet",
    "fence": "a fence",
    "ghost": "a ghost",
    "comet": "a comet",
    "dragon": "a dragon",
    "saucer": "a saucer",
}


@dataclass(frozen=True)
class Question:
    """One question, its one answer, and the way there. Indices point into the story; seconds are
    whole.

    `path` holds the place indices that one visits, the target's last; `word` is the activity to
    look for (for `order` the one before the target, for `consequence` the cause; -1 where it is
    none), `other` the activity before which one looks (`last_before`), `ordinal` which time (`nth`,
    from 1). `clues` are the intervals that one finds on the way to the target in its chapter: the
    event before it, or after it, or the times before the n-th. An `absent` question has no answer
    in its video: its cue is not there.
    """

    kind: str
    template_idx: int
    start_s: int
    end_s: int
    window_start_s: int
    window_end_s: int
    word: int
    path: tuple[int, ...]
    effect: int = 0
    other: int = -1
    absent: bool = False
    ordinal: int = 0
    clues: tuple[tuple[int, int], ...] = ()

    @property
    def task_type(self) -> str:
        return TASK_TYPES.get(self.kind, "skill")

    @property
    def cue_named(self) -> bool:
        """Whether the question names the place in which its target lies."""
        return self.kind in {
            "explicit",
            "place",
            "order_at",
            "last_at",
            "attribute_at",
            "nth_at",
            "change_at",
        }

    @property
    def hops(self) -> int:
        """Steps from what the question names to the target's chapter and activity: signs followed,
        and rules from an effect or a preparation.
        """
        return SIGNS.get(self.kind, 0) + (self.kind in RULE_HOPS)


def ask(
    story: Story, kind: str, rng: np.random.Generator, phrasing: str = "core"
) -> Question | None:
    """Draw a question of `kind` about `story` in one of the paraphrases of `phrasing`, or None
    where the story offers none. UserError for an unknown kind.
    """
    template = _draw_template(kind, rng, phrasing)
    if kind == "activity":
        return _ask_activity(story, template, rng)
    if kind in ASKED_ABOUT:
        return _ask_lasting(story, kind, template, rng)
    if kind == "oddity":
        return _ask_oddity(story, template)
    if kind == "consequence":
        return _ask_consequence(story, template, rng)
    anchor = int(rng.integers(story.num_chapters))
    path = _path(
        story,
        _before_a_change(story, anchor, kind) if kind in {"change", "change_at"} else anchor,
        SIGNS.get(kind, 0),
    )
    if path is None:
        return None
    if kind in {"place", "next_place", "where", "captions"}:
        return _about_chapter(story, kind, template, path)
    ways = {
        "order": _ask_order,
        "last_before": _ask_last,
        "last_at": _ask_last,
        "order_at": _ask_order,
        "nth": _ask_nth,
        "nth_at": _ask_nth,
        "attribute": _ask_attribute,
        "attribute_at": _ask_attribute,
        "change": _ask_change,
        "change_at": _ask_change,
    }
    return ways.get(kind, _about_event)(story, kind, template, path, rng)


def _draw_template(kind: str, rng: np.random.Generator, phrasing: str) -> int:
    if kind not in TEMPLATES:
        raise UserError(
            f"unknown kind of question {kind!r}: expected one of {', '.join(TEMPLATES)}"
        )
    if phrasing not in PHRASINGS:
        raise UserError(f"unknown phrasing {phrasing!r}: expected one of {', '.join(PHRASINGS)}")
    among = range(len(TEMPLATES[kind]))[PHRASINGS[phrasing]] or range(
        len(TEMPLATES[kind])
    )  # a skill has one paraphrase
    return int(among[int(rng.integers(len(among)))])


def ask_absent(
    story: Story, kind: str, rng: np.random.Generator, phrasing: str = "core"
) -> Question | None:
    """Draw a question of `kind` whose cue (a place, or something that lasts) is nowhere in `story`;
    None if everything of that kind is there.
    """
    template, nowhere = _draw_template(kind, rng, phrasing), (0, 0, 0, 0)
    if kind in ASKED_ABOUT:
        missing = [number for number in ASKED_ABOUT[kind] if number not in story.effect]
        if not missing:
            return None
        return Question(
            kind,
            template,
            *nowhere,
            word=-1,
            path=(),
            effect=missing[int(rng.integers(len(missing)))],
            absent=True,
        )
    if kind == "oddity":
        return (
            None
            if story.oddity
            else Question(kind, template, *nowhere, word=-1, path=(), absent=True)
        )
    elsewhere = np.setdiff1d(np.arange(NUM_PLACES), story.place)
    if len(elsewhere) == 0 or kind in {"activity", "consequence"}:
        return None
    word, other = rng.choice(NUM_TRACKS * NUM_ACTIVITIES, size=2, replace=False)
    return Question(
        kind,
        template,
        *nowhere,
        word=-1 if kind in {"place", "next_place", "where", "change", "change_at"} else int(word),
        path=(int(rng.choice(elsewhere)),),
        other=int(other) if kind in {"last_before", "last_at"} else -1,
        absent=True,
        ordinal=1 if kind in {"nth", "nth_at"} else 0,
    )


def _path(story: Story, anchor: int, hops: int) -> list[int] | None:
    """Chapters visited from `anchor` by following `hops` signs; None if that comes back to where it
    began.
    """
    chapters = [anchor]
    for _ in range(hops):
        chapters.append(int(story.sign_to[chapters[-1]]))
    return chapters if len(set(chapters)) == hops + 1 else None


def _about_event(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    candidates = np.flatnonzero((story.event_chapter == path[-1]) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, kind, template, path, event)


def _ask_order(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    """The target is what the same person does next, if that lies in the chapter too; events are
    sorted by track, then by time.
    """
    candidates = np.flatnonzero((story.event_chapter == path[-1]) & story.event_unique)
    candidates = candidates[candidates + 1 < len(story.event_word)]
    after, end = candidates + 1, story.chapter_end[path[-1]]
    same_person = (
        story.event_word[after] // NUM_ACTIVITIES == story.event_word[candidates] // NUM_ACTIVITIES
    )
    candidates = candidates[
        same_person & (story.event_chapter[after] == path[-1]) & (story.event_end[after] <= end)
    ]
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(
        story, kind, template, path, event + 1, word=int(story.event_word[event]), clues=[event]
    )


def _ask_last(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    """The last time of an activity that happens more than once in the chapter, before another one
    that happens once.
    """
    inside = np.flatnonzero(
        (story.event_chapter == path[-1]) & (story.event_end <= story.chapter_end[path[-1]])
    )
    words, count = np.unique(story.event_word[inside], return_counts=True)
    repeated, landmarks = words[count > 1], inside[story.event_unique[inside]]
    if len(repeated) == 0 or len(landmarks) == 0:
        return None
    word = int(repeated[rng.integers(len(repeated))])
    times = inside[story.event_word[inside] == word]
    landmarks = landmarks[story.event_start[landmarks] >= story.event_end[times].min()]
    if len(landmarks) == 0:
        return None
    landmark = int(landmarks[rng.integers(len(landmarks))])
    before = times[story.event_end[times] <= story.event_start[landmark]]
    event = int(before[np.argmax(story.event_end[before])])
    return _question(
        story, kind, template, path, event, other=int(story.event_word[landmark]), clues=[landmark]
    )


def _ask_nth(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    """The n-th time of an activity that happens more than once in the chapter; n is 1, 2 or 3. The
    times before it are clues.
    """
    first, last = story.chapter_start[path[-1]], story.chapter_end[path[-1]]
    touching = np.flatnonzero((story.event_start < last) & (story.event_end > first))
    words, count = np.unique(story.event_word[touching], return_counts=True)
    repeated = [
        int(word)
        for word in words[count > 1]
        if all(
            first <= story.event_start[i] and story.event_end[i] <= last
            for i in touching[story.event_word[touching] == word]
        )
    ]
    # What the end of the video cuts off is seen there, though it is no event.
    cut = (
        story.states[-1, TRACK0:] if last == story.num_seconds else np.zeros(NUM_TRACKS, dtype=int)
    )
    repeated = [
        word
        for word in repeated
        if cut[word // NUM_ACTIVITIES] != word % NUM_ACTIVITIES + 1 or _ends_whole(story, word)
    ]
    if not repeated:
        return None
    word = repeated[int(rng.integers(len(repeated)))]
    times = touching[story.event_word[touching] == word]
    ordinal = int(rng.integers(min(len(times), len(ORDINALS))))
    question = _question(
        story, kind, template, path, int(times[ordinal]), clues=[int(i) for i in times[:ordinal]]
    )
    return replace(question, ordinal=ordinal + 1)


def _ends_whole(story: Story, word: int) -> bool:
    """Whether an event of `word` ends with the video rather than being cut off by it."""
    return bool(np.any((story.event_word == word) & (story.event_end == story.num_seconds)))


def _ask_attribute(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    """A person by colour and thing: of the activities in the chapter only the target is that person
    with that thing.
    """
    first, last = int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])
    candidates = np.flatnonzero((story.event_chapter == path[-1]) & story.event_unique)
    fits = [
        int(i)
        for i in candidates
        if len(_thing_runs(story.states[first:last], int(story.event_word[i]))) == 1
    ]
    if not fits:
        return None
    return _question(story, kind, template, path, fits[int(rng.integers(len(fits)))])


def _thing_runs(rows: np.ndarray, word: int) -> list[tuple[int, int]]:
    """Every run of rows in which the person of `word` has the thing of `word`, verb by verb."""
    track, thing = word // NUM_ACTIVITIES, word % 4
    return [
        run for verb in range(4) for run in runs(rows[:, TRACK0 + track] == verb * 4 + thing + 1)
    ]


def _before_a_change(story: Story, number: int, kind: str) -> int:
    """A chapter from which the question's signs lead to a direct effect (`number` chooses); chapter
    0 if there is none.
    """
    changing = np.flatnonzero(np.isin(story.effect, DIRECT_NUMBERS))
    if len(changing) == 0:
        return 0
    chapter = int(changing[number % len(changing)])
    return chapter if kind == "change_at" else int(np.flatnonzero(story.sign_to == chapter)[0])


def _ask_change(
    story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator
) -> Question | None:
    """The first seconds of a direct effect: before it the same place looked otherwise."""
    chapter = path[-1]
    start, end = int(story.effect_start[chapter]), int(story.chapter_end[chapter])
    if story.effect[chapter] not in DIRECT_NUMBERS or start + CHANGE_S > end:
        return None
    return _question_about(
        story, kind, template, path, (start, start + CHANGE_S), effect=int(story.effect[chapter])
    )


def _ask_oddity(story: Story, template: int) -> Question | None:
    """What belongs nowhere, if this story has it."""
    if (odd := story.oddity) is None:
        return None
    return _question_about(
        story, "oddity", template, [odd.chapter], (odd.start_s, odd.end_s), effect=odd.number
    )


def _ask_consequence(story: Story, template: int, rng: np.random.Generator) -> Question | None:
    """The direct effect that an activity brought about, from its first second to the last."""
    chapters = np.flatnonzero(np.isin(story.effect, DIRECT_NUMBERS))
    if len(chapters) == 0:
        return None
    chapter = int(chapters[rng.integers(len(chapters))])
    effect = int(story.effect[chapter])
    span = (int(story.effect_start[chapter]), int(story.chapter_end[chapter]))
    question = _question_about(story, "consequence", template, [chapter], span, effect=effect)
    return replace(question, word=story.domain.cause_word(effect))


def _about_chapter(story: Story, kind: str, template: int, path: list[int]) -> Question:
    """The target is the last chapter of the path itself."""
    return _question_about(
        story,
        kind,
        template,
        path,
        (int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])),
    )


def _ask_activity(story: Story, template: int, rng: np.random.Generator) -> Question | None:
    counts = np.bincount(story.event_word, minlength=NUM_TRACKS * NUM_ACTIVITIES)
    # An activity that the end of the video cuts off is seen, though it is no event.
    last = story.states[-1, TRACK0:]
    counts[
        [NUM_ACTIVITIES * track + int(number) - 1 for track, number in enumerate(last) if number]
    ] += 1
    whole_last = story.event_end == story.num_seconds
    np.subtract.at(counts, story.event_word[whole_last], 1)
    candidates = np.flatnonzero((counts[story.event_word] == 1) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, "activity", template, [int(story.event_chapter[event])], event)


def _ask_lasting(
    story: Story, kind: str, template: int, rng: np.random.Generator
) -> Question | None:
    """About an effect or a preparation: when it shows, why it came about, or what it is for."""
    chapters = np.flatnonzero(np.isin(story.effect, ASKED_ABOUT[kind]))
    if len(chapters) == 0:
        return None
    chapter = int(chapters[rng.integers(len(chapters))])
    path, effect = [chapter], int(story.effect[chapter])
    if kind == "effect":
        span = int(story.effect_start[chapter]), int(story.chapter_end[chapter])
        return _question_about(story, kind, template, path, span, effect=effect)
    for _ in range(SIGNS.get(kind, 0)):
        path.append(int(story.sign_to[path[-1]]))
    return _question(story, kind, template, path, int(story.cause_event[path[-1]]), effect=effect)


def _question(  # noqa: PLR0913
    story: Story,
    kind: str,
    template: int,
    path: list[int],
    event: int,
    *,
    word: int | None = None,
    effect: int = 0,
    other: int = -1,
    clues: Iterable[int] = (),
) -> Question:
    """The question whose target is `event`, reached over the chapters of `path`; `clues` are
    events, too.
    """
    span = int(story.event_start[event]), int(story.event_end[event])
    what = int(story.event_word[event]) if word is None else word
    on_the_way = tuple((int(story.event_start[i]), int(story.event_end[i])) for i in clues)
    return replace(
        _question_about(story, kind, template, path, span, effect=effect),
        word=what,
        other=other,
        clues=on_the_way,
    )


def _question_about(
    story: Story, kind: str, template: int, path: list[int], span: tuple[int, int], effect: int = 0
) -> Question:
    """The question whose target is the interval `span` in the last chapter of `path`."""
    window = int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])
    return Question(
        kind,
        template,
        *span,
        *window,
        word=-1,
        path=tuple(int(story.place[c]) for c in path),
        effect=effect,
    )


def in_words(story: Story, question: Question) -> str:
    """The question as a sentence, as `ground` would be given it."""
    domain, word, other = story.domain, question.word, question.other
    return TEMPLATES[question.kind][question.template_idx].format(
        A=activity_surface(domain.activity(word)) if word >= 0 else "",
        D=activity_surface(domain.activity(word), third_person=True) if word >= 0 else "",
        B=activity_surface(domain.activity(other), third_person=True) if other >= 0 else "",
        P=domain.place(question.path[0]) if question.path else "",
        E=EFFECT_SURFACE[SHOWN[question.effect - 1]] if question.effect else "",
        X=person_surface(domain, word) if word >= 0 else "",
        N=ORDINALS[question.ordinal - 1] if question.ordinal else "",
    )


def person_phrase(domain: Domain, word: int) -> str:
    """A person by colour and thing, as one phrase of the vocabulary: `somebody blue rope` for
    `sailor lift rope`.
    """
    role = domain.cast[word // NUM_ACTIVITIES]
    return f"somebody {role.colour} {role.objects[word % 4]}"


def person_surface(domain: Domain, word: int) -> str:
    """`somebody in blue with the rope`."""
    _, colour, thing = person_phrase(domain, word).split()
    return f"somebody in {colour} with the {thing}"


def activity_surface(words: str, third_person: bool = False) -> str:
    """`sailor lift rope` -> `sailor lift the rope`, or in the third person `sailor lifts the
    rope`.
    """
    role, verb, thing = words.split()
    ending = "" if not third_person else "es" if verb.endswith("sh") else "s"
    return f"{role} {verb}{ending} the {thing}"


# What one is asked beside the interval, by type of task: the same evidence as a short answer, with
# three others that are as plausible.
QUIZ = {
    "explicit": "Which place does the sign name there?",
    "attribute": "What does the person do?",
    "on_screen_text": "At which place does it happen?",
    "place": "Which place is it?",
    "nth_time": "At which place does it happen?",
    "order": "What is it?",
    "last_before": "At which place does it happen?",
    "why": "What happened?",
    "what_for": "What is it for?",
    "consequence": "What came of it?",
    "state_change": "What changed?",
    "anomaly": "What is it?",
}


def quiz(story: Story, q: Question, rng: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """The short answer to a question (see QUIZ) and four choices in random order, the answer among
    them.
    """
    domain, place = story.domain, story.domain.place
    if q.task_type in {"consequence", "state_change", "anomaly"}:
        right, kin = q.effect, (ODDITY_NUMBERS if q.kind == "oddity" else DIRECT_NUMBERS)
        answer = _shown_surface(right)
        others = [_shown_surface(number) for number in kin if number != right]
    elif q.task_type in {"order", "why", "what_for", "attribute"}:
        word = _word_at(story, q)
        track = word // NUM_ACTIVITIES * NUM_ACTIVITIES
        alike = (
            range(track + word % 4, track + NUM_ACTIVITIES, 4)
            if q.kind == "attribute"
            else range(track, track + NUM_ACTIVITIES)
        )
        answer = _activity_surface_of(domain, word)
        others = [_activity_surface_of(domain, other) for other in alike if other != word]
    else:
        chapter = int(np.flatnonzero(story.place == q.path[-1])[0])
        right = int(story.place[story.sign_to[chapter]]) if q.kind == "explicit" else q.path[-1]
        answer = place(right)
        others = [place(int(other)) for other in story.place if other != right]
    wrong = [others[int(i)] for i in rng.permutation(len(others))[:3]]
    while len(wrong) < 3:  # a video of three places
        stranger = place(int(rng.integers(NUM_PLACES)))
        wrong += [stranger] if stranger not in (answer, *others, *wrong) else []
    choices = [answer, *wrong]
    return answer, tuple(choices[int(i)] for i in rng.permutation(4))


def _word_at(story: Story, q: Question) -> int:
    """The activity of the event that is the target."""
    at = np.flatnonzero(
        (story.event_start == q.start_s)
        & (story.event_end == q.end_s)
        & np.isin(story.event_word, _possible_words(story, q))
    )
    return int(story.event_word[at[0]])


def _possible_words(story: Story, q: Question) -> np.ndarray:
    """The words that the target of a question can have: its own, or for `order` all of the same
    person.
    """
    if q.kind in {"order", "order_at"}:
        first = q.word // NUM_ACTIVITIES * NUM_ACTIVITIES
        return np.arange(first, first + NUM_ACTIVITIES)
    return np.array([q.word])


def _activity_surface_of(domain: Domain, word: int) -> str:
    return activity_surface(domain.activity(word), third_person=True)


def _shown_surface(number: int) -> str:
    return EFFECT_SURFACE[SHOWN[number - 1]]


def difficulty(story: Story, q: Question) -> dict[str, int]:
    """What makes a question hard: hops; how often the same is seen elsewhere in the video
    (`lookalikes`); seconds from the cue that it names to the target.
    """
    elsewhere = 0
    if q.word >= 0:
        target = _word_at(story, q) if q.kind != "consequence" else q.word
        elsewhere = int(np.count_nonzero(story.event_word == target)) - 1
    named = (
        np.flatnonzero(story.effect == q.effect)
        if q.kind in ASKED_ABOUT
        else np.flatnonzero(story.place == q.path[0])
    )
    chapter = int(named[0])
    cue = (int(story.chapter_start[chapter]) + int(story.chapter_end[chapter])) / 2
    return {
        "hops": q.hops,
        "lookalikes": max(elsewhere, 0),
        "distance_s": round(abs((q.start_s + q.end_s) / 2 - cue)),
    }


def solve(  # noqa: PLR0913
    story: Story,
    kind: str,
    place: int | None = None,
    word: int | None = None,
    effect: int | None = None,
    other: int | None = None,
    ordinal: int = 0,
) -> list[tuple[int, int]]:
    """Every interval that answers a question, found from the story's rows and what the question
    names alone (independent of how questions are drawn).

    Used to check that each question of the bench has exactly one valid answer. Seconds, [start,
    end).
    """
    rows, signs, word = story.states, SIGNS.get(kind, 0), -1 if word is None else word
    if kind == "activity":
        return _word_runs(rows, None, word)
    if kind == "effect":
        return runs(rows[:, EFFECT] == effect)
    if kind == "oddity":
        return runs(rows[:, EFFECT] > len(LASTING))
    if kind == "consequence":
        brought = [number for number in DIRECT_NUMBERS if story.domain.cause_word(number) == word]
        return [run for number in brought for run in runs(rows[:, EFFECT] == number)]
    if kind in ASKED_ABOUT:
        return _solve_lasting(story, int(effect or 0), signs)
    targets = _follow_signs(rows, {place}, signs)
    return (
        _solve_at(rows, int(targets.pop()), kind, word, -1 if other is None else other, ordinal)
        if len(targets) == 1
        else []
    )


def _solve_lasting(story: Story, effect: int, signs: int) -> list[tuple[int, int]]:
    """What is behind something that lasts: from where it is seen along the signs, there by the
    domain's rules and plans.
    """
    rows = story.states
    targets = _follow_signs(rows, set(rows[rows[:, EFFECT] == effect, PLACE].tolist()), signs)
    local = set(DIRECT_NUMBERS + PREPARATION_NUMBERS)
    behind = {
        (p, int(n))
        for p in targets
        for n in local & set(rows[rows[:, PLACE] == p, EFFECT].tolist())
    }
    return [
        run
        for p, number in sorted(behind)
        for run in _word_runs(rows, p, story.domain.cause_word(number))
    ]


def _solve_at(
    rows: np.ndarray, place: int, kind: str, word: int, other: int, ordinal: int
) -> list[tuple[int, int]]:
    """What answers a question in the place that it leads to."""
    kind, there = kind.removesuffix("_at"), rows[:, PLACE] == place
    if kind in {"place", "next_place", "where", "captions"}:
        return runs(there)
    if kind == "change":
        return [
            (start, start + CHANGE_S)
            for start, _ in runs(there & np.isin(rows[:, EFFECT], DIRECT_NUMBERS))
        ]
    if kind == "attribute":
        first = int(np.argmax(there))
        return [(start + first, end + first) for start, end in _thing_runs(rows[there], word)]
    found = _word_runs(rows, place, word)
    if kind == "nth":
        return found[ordinal - 1 : ordinal]
    if kind == "order":
        return [run for first_run in found for run in _next_run(rows, place, word, first_run[1])]
    if kind in {"last_before", "last"}:
        landmarks = _word_runs(rows, place, other)
        earlier = [[run for run in found if run[1] <= landmark[0]] for landmark in landmarks]
        return [max(runs) for runs in earlier if runs]
    return found


def _follow_signs(rows: np.ndarray, places: set, signs: int) -> set:
    """The places that one comes to from `places` by following `signs` signs; empty where a place
    has no sign or more than one.
    """
    for _ in range(signs):
        named = [set(rows[rows[:, PLACE] == p, SIGN].tolist()) for p in places]
        places = set().union(*named) if all(len(names) == 1 for names in named) else set()
    return places


def _next_run(rows: np.ndarray, place: int, word: int, second: int) -> list[tuple[int, int]]:
    """What the person of `word` does next from `second` on, if it lies in the place as a whole."""
    doing = rows[:, TRACK0 + word // NUM_ACTIVITIES]
    later = np.flatnonzero(doing[second:] > 0)
    if len(later) == 0:
        return []
    start = second + int(later[0])
    end = next(run[1] for run in runs(doing == doing[start]) if run[0] <= start < run[1])
    return [(start, end)] if (rows[start:end, PLACE] == place).all() else []


def _word_runs(rows: np.ndarray, place: int | None, word: int) -> list[tuple[int, int]]:
    track, number = divmod(word, NUM_ACTIVITIES)
    doing = rows[:, TRACK0 + track] == number + 1
    return runs(doing if place is None else doing & (rows[:, PLACE] == place))


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Intervals [start, end) in which `flags` (one per second) are set."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
