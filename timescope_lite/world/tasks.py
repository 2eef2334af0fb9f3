"""Questions about a story: what is asked, what it takes to answer, and the one interval that answers it.

A *task* never describes its target: it is reached by a cue that lasts (a sign that names another place, an effect that follows from a cause, a preparation for
what will come) or by the order of what happens. Every hop of a task is also a question of its own (a *skill*), because a chain helps only where each
hop is reliable (docs/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import EFFECT, LASTING, NUM_ACTIVITIES, NUM_PLACES, NUM_TRACKS, PLACE, SIGN, TRACK0
from timescope_lite.world.story import ALARM, CROWD, DIRECT_NUMBERS, PREPARATION_NUMBERS, Story

_WHY = ("Why is there {E}?", "Find what caused {E}.")
# Kind -> paraphrases. {A} an activity, {D} the same as in `he does it`, {B} another activity like {D}, {P} a place, {E} what lasts there.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "explicit": (
        "When does the {A} at the {P}?",
        "Find the moment at the {P} when the {D}.",
    ),
    "sign1": (
        "One sign on from the {P}, when does the {A}?",
        "Follow one sign from the {P}: find the moment when the {D}.",
    ),
    "sign2": (
        "Two signs on from the {P}, when does the {A}?",
        "Follow two signs from the {P}: find the moment when the {D}.",
    ),
    "why": _WHY,
    "why2": _WHY,
    "why3": _WHY,
    "purpose": (
        "For what purpose did they bring {E}?",
        "Find the purpose of {E}.",
    ),
    "order": (
        "One sign on from the {P}, what does the same person do right after the {D}?",
        "Follow one sign from the {P}: after the {D}, find what the same person does next.",
    ),
    "last_before": (
        "One sign on from the {P}, when is the last time the {D} before the {B}?",
        "Follow one sign from the {P}: find the last time the {D} before the {B}.",
    ),
    "order_at": ("At the {P}, what does the same person do right after the {D}?",),
    "last_at": ("At the {P}, when is the last time the {D} before the {B}?",),
    "activity": ("When does the {A}?",),
    "place": ("When are we at the {P}?",),
    "next_place": ("Where does the sign at the {P} lead?",),
    "effect": ("When is there {E}?",),
}
TASK_TYPES = {
    "explicit": "explicit",
    "sign1": "on_screen_text",
    "sign2": "on_screen_text",
    "why": "why",
    "why2": "why",
    "why3": "why",
    "purpose": "what_for",
    "order": "order",
    "last_before": "last_before",
}
SKILLS = tuple(kind for kind in TEMPLATES if kind not in TASK_TYPES)
# Signs that one follows from the place or the effect that a question names.
SIGNS = {"sign1": 1, "sign2": 2, "order": 1, "last_before": 1, "next_place": 1, "why2": 1, "why3": 2}
# What a question of a kind about something that lasts may ask about.
ASKED_ABOUT = {
    "why": DIRECT_NUMBERS,
    "why2": (ALARM,),
    "why3": (CROWD,),
    "purpose": PREPARATION_NUMBERS,
    "effect": tuple(range(1, 1 + len(LASTING))),
}
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
}


@dataclass(frozen=True)
class Question:
    """One question, its one answer, and the way there. Indices point into the story; seconds are whole.

    `path` holds the place indices that one visits, the target's last; `word` is the activity to look for (for `order` the one before the target; -1 for a
    skill about a chapter), `other` the activity before which one looks (`last_before`). An `absent` question has no answer in its video: its cue is not there.
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

    @property
    def task_type(self) -> str:
        return TASK_TYPES.get(self.kind, "skill")

    @property
    def cue_named(self) -> bool:
        """Whether the question names the place in which its target lies."""
        return self.kind in {"explicit", "place", "order_at", "last_at"}

    @property
    def hops(self) -> int:
        """Steps from what the question names to the target's chapter and activity: signs followed, and rules from an effect or a preparation."""
        return SIGNS.get(self.kind, 0) + (self.kind in {"why", "why2", "why3", "purpose"})


def ask(story: Story, kind: str, rng: np.random.Generator) -> Question | None:
    """Draw a question of `kind` about `story`, or None where the story offers none. Raises UserError for an unknown kind."""
    if kind not in TEMPLATES:
        raise UserError(f"unknown kind of question {kind!r}: expected one of {', '.join(TEMPLATES)}")
    template = int(rng.integers(len(TEMPLATES[kind])))
    if kind == "activity":
        return _ask_activity(story, template, rng)
    if kind in ASKED_ABOUT:
        return _ask_lasting(story, kind, template, rng)
    path = _path(story, int(rng.integers(story.num_chapters)), SIGNS.get(kind, 0))
    if path is None:
        return None
    if kind in {"place", "next_place"}:
        return _about_chapter(story, kind, template, path)
    if kind in {"order", "order_at"}:
        return _ask_order(story, kind, template, path, rng)
    if kind in {"last_before", "last_at"}:
        return _ask_last(story, kind, template, path, rng)
    return _about_event(story, kind, template, path, rng)


def ask_absent(story: Story, kind: str, rng: np.random.Generator) -> Question | None:
    """Draw a question of `kind` whose cue (a place, or something that lasts) is nowhere in `story`; None if everything of that kind is there."""
    template, nowhere = int(rng.integers(len(TEMPLATES[kind]))), (0, 0, 0, 0)
    if kind in ASKED_ABOUT:
        missing = [number for number in ASKED_ABOUT[kind] if number not in story.effect]
        if not missing:
            return None
        return Question(kind, template, *nowhere, word=-1, path=(), effect=missing[int(rng.integers(len(missing)))], absent=True)
    elsewhere = np.setdiff1d(np.arange(NUM_PLACES), story.place)
    if len(elsewhere) == 0 or kind == "activity":
        return None
    word, other = rng.choice(NUM_TRACKS * NUM_ACTIVITIES, size=2, replace=False)
    return Question(
        kind,
        template,
        *nowhere,
        word=-1 if kind in {"place", "next_place"} else int(word),
        path=(int(rng.choice(elsewhere)),),
        other=int(other) if kind in {"last_before", "last_at"} else -1,
        absent=True,
    )


def _path(story: Story, anchor: int, hops: int) -> list[int] | None:
    """Chapters visited from `anchor` by following `hops` signs; None if that comes back to where it began."""
    chapters = [anchor]
    for _ in range(hops):
        chapters.append(int(story.sign_to[chapters[-1]]))
    return chapters if len(set(chapters)) == hops + 1 else None


def _about_event(story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator) -> Question | None:
    candidates = np.flatnonzero((story.event_chapter == path[-1]) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, kind, template, path, event)


def _ask_order(story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator) -> Question | None:
    """The target is what the same person does next, if that lies in the chapter too; events are sorted by track, then by time."""
    candidates = np.flatnonzero((story.event_chapter == path[-1]) & story.event_unique)
    candidates = candidates[candidates + 1 < len(story.event_word)]
    after, end = candidates + 1, story.chapter_end[path[-1]]
    same_person = story.event_word[after] // NUM_ACTIVITIES == story.event_word[candidates] // NUM_ACTIVITIES
    candidates = candidates[same_person & (story.event_chapter[after] == path[-1]) & (story.event_end[after] <= end)]
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, kind, template, path, event + 1, word=int(story.event_word[event]))


def _ask_last(story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator) -> Question | None:
    """The last time of an activity that happens more than once in the chapter, before another one that happens once."""
    inside = np.flatnonzero((story.event_chapter == path[-1]) & (story.event_end <= story.chapter_end[path[-1]]))
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
    return _question(story, kind, template, path, event, other=int(story.event_word[landmark]))


def _about_chapter(story: Story, kind: str, template: int, path: list[int]) -> Question:
    """The target is the last chapter of the path itself."""
    span = int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])
    return Question(kind, template, *span, *span, word=-1, path=tuple(int(story.place[c]) for c in path))


def _ask_activity(story: Story, template: int, rng: np.random.Generator) -> Question | None:
    counts = np.bincount(story.event_word, minlength=NUM_TRACKS * NUM_ACTIVITIES)
    # An activity that the end of the video cuts off is seen, though it is no event.
    last = story.states[-1, TRACK0:]
    counts[[NUM_ACTIVITIES * track + int(number) - 1 for track, number in enumerate(last) if number]] += 1
    whole_last = story.event_end == story.num_seconds
    np.subtract.at(counts, story.event_word[whole_last], 1)
    candidates = np.flatnonzero((counts[story.event_word] == 1) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, "activity", template, [int(story.event_chapter[event])], event)


def _ask_lasting(story: Story, kind: str, template: int, rng: np.random.Generator) -> Question | None:
    """About an effect or a preparation: when it shows, why it came about, or what it is for."""
    chapters = np.flatnonzero(np.isin(story.effect, ASKED_ABOUT[kind]))
    if len(chapters) == 0:
        return None
    chapter = int(chapters[rng.integers(len(chapters))])
    path, effect = [chapter], int(story.effect[chapter])
    if kind == "effect":
        start, end = int(story.effect_start[chapter]), int(story.chapter_end[chapter])
        window = int(story.chapter_start[chapter]), end
        return Question(kind, template, start, end, *window, word=-1, path=(int(story.place[chapter]),), effect=effect)
    for _ in range(SIGNS.get(kind, 0)):
        path.append(int(story.sign_to[path[-1]]))
    return _question(story, kind, template, path, int(story.cause_event[path[-1]]), effect=effect)


def _question(
    story: Story, kind: str, template: int, path: list[int], event: int, *, word: int | None = None, effect: int = 0, other: int = -1
) -> Question:
    """The question whose target is `event`, reached over the chapters of `path`."""
    span = int(story.event_start[event]), int(story.event_end[event])
    window = int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])
    what = int(story.event_word[event]) if word is None else word
    return Question(kind, template, *span, *window, word=what, path=tuple(int(story.place[c]) for c in path), effect=effect, other=other)


def in_words(story: Story, question: Question) -> str:
    """The question as a sentence, as `ground` would be given it."""
    activity = story.domain.activity
    return TEMPLATES[question.kind][question.template_idx].format(
        A=activity_surface(activity(question.word)) if question.word >= 0 else "",
        D=activity_surface(activity(question.word), third_person=True) if question.word >= 0 else "",
        B=activity_surface(activity(question.other), third_person=True) if question.other >= 0 else "",
        P=story.domain.place(question.path[0]) if question.path else "",
        E=EFFECT_SURFACE[LASTING[question.effect - 1]] if question.effect else "",
    )


def activity_surface(words: str, third_person: bool = False) -> str:
    """`sailor lift rope` -> `sailor lift the rope`, or in the third person `sailor lifts the rope`."""
    role, verb, thing = words.split()
    ending = "" if not third_person else "es" if verb.endswith("sh") else "s"
    return f"{role} {verb}{ending} the {thing}"


def solve(
    story: Story, kind: str, place: int | None = None, word: int | None = None, effect: int | None = None, other: int | None = None
) -> list[tuple[int, int]]:
    """Every interval that answers a question, found from the story's rows alone (independent of how questions are drawn).

    Used to check that each question of the bench has exactly one valid answer. Seconds, [start, end).
    """
    rows, signs = story.states, SIGNS.get(kind, 0)
    if kind in {"activity", "effect"}:
        return _word_runs(rows, None, int(word or 0)) if kind == "activity" else runs(rows[:, EFFECT] == effect)
    if kind in ASKED_ABOUT:
        targets = _follow_signs(rows, set(rows[rows[:, EFFECT] == effect, PLACE].tolist()), signs)
        behind = {
            (p, int(n))
            for p in targets
            for n in set(rows[rows[:, PLACE] == p, EFFECT].tolist())
            if n in DIRECT_NUMBERS + PREPARATION_NUMBERS
        }
        return [run for p, number in sorted(behind) for run in _word_runs(rows, p, story.domain.cause_word(number))]
    targets = _follow_signs(rows, {place}, signs)
    if len(targets) != 1:
        return []
    target = int(targets.pop())
    if kind in {"place", "next_place"}:
        return runs(rows[:, PLACE] == target)
    found = _word_runs(rows, target, int(word if word is not None else -1))
    if kind in {"order", "order_at"}:
        return [run for first in found for run in _next_run(rows, target, int(word or 0), first[1])]
    if kind in {"last_before", "last_at"}:
        landmarks = _word_runs(rows, target, int(other if other is not None else -1))
        earlier = [[run for run in found if run[1] <= landmark[0]] for landmark in landmarks]
        return [max(runs) for runs in earlier if runs]
    return found


def _follow_signs(rows: np.ndarray, places: set, signs: int) -> set:
    """The places that one comes to from `places` by following `signs` signs; empty where a place has no sign or more than one."""
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
