"""Questions about a story: what is asked, what it takes to answer, and the one interval that answers it.

A *task* never describes its target if the target can be reached by a cue that lasts: a sign that names another place, an effect that follows from a cause.
Every hop of a task is also a question of its own (a *skill*), because a chain helps only where each hop is reliable (docs/LOG.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timescope_lite.common import UserError
from timescope_lite.world.domain import EFFECTS, PLACE
from timescope_lite.world.story import Story

# Kind -> paraphrases. {A} an activity, {P} a place, {E} an effect. The first three kinds are the task types of the bench, the rest are skills.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "explicit": (
        "When does the {A} at the {P}?",
        "Find the moment at the {P} when the {A}.",
    ),
    "sign1": (
        "One sign on from the {P}, when does the {A}?",
        "Follow one sign from the {P}: find the moment when the {A}.",
    ),
    "sign2": (
        "Two signs on from the {P}, when does the {A}?",
        "Follow two signs from the {P}: find the moment when the {A}.",
    ),
    "why": (
        "Why is there {E}?",
        "Find what caused {E}.",
    ),
    "activity": ("When does the {A}?",),
    "place": ("When are we at the {P}?",),
    "next_place": ("Where does the sign at the {P} lead?",),
    "effect": ("When is there {E}?",),
}
TASK_TYPES = {"explicit": "explicit", "sign1": "on_screen_text", "sign2": "on_screen_text", "why": "why"}
SKILLS = ("activity", "place", "next_place", "effect")
EFFECT_SURFACE = {"flood": "a flood", "alarm": "an alarm", "smoke": "smoke", "dark": "darkness", "crowd": "a crowd", "fire": "a fire"}


@dataclass(frozen=True)
class Question:
    """One question, its one answer, and the way there. Indices point into the story; seconds are whole.

    `path` holds the place indices that one visits, the target's last; `word` is the activity to look for (-1 for a skill about a chapter).
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

    @property
    def task_type(self) -> str:
        return TASK_TYPES.get(self.kind, "skill")

    @property
    def cue_named(self) -> bool:
        """Whether the question names the place in which its target lies."""
        return self.kind in {"explicit", "place"}

    @property
    def hops(self) -> int:
        """Steps from what the question names to the target's chapter and activity."""
        return {"sign1": 1, "sign2": 2, "why": 1, "next_place": 1}.get(self.kind, 0)


def ask(story: Story, kind: str, rng: np.random.Generator) -> Question | None:
    """Draw a question of `kind` about `story`, or None where the story offers none. Raises UserError for an unknown kind."""
    if kind not in TEMPLATES:
        raise UserError(f"unknown kind of question {kind!r}: expected one of {', '.join(TEMPLATES)}")
    template = int(rng.integers(len(TEMPLATES[kind])))
    if kind == "activity":
        return _ask_activity(story, template, rng)
    if kind in {"why", "effect"}:
        return _ask_effect(story, kind, template, rng)
    anchor = int(rng.integers(story.num_chapters))
    path = _path(story, anchor, {"sign1": 1, "sign2": 2, "next_place": 1}.get(kind, 0))
    if path is None:
        return None
    if kind in {"place", "next_place"}:
        return _about_chapter(story, kind, template, path)
    return _about_event(story, kind, template, path, rng)


def _path(story: Story, anchor: int, hops: int) -> list[int] | None:
    """Chapters visited from `anchor` by following `hops` signs; None if that comes back to where it began."""
    chapters = [anchor]
    for _ in range(hops):
        chapters.append(int(story.sign_to[chapters[-1]]))
    return chapters if len(set(chapters)) == hops + 1 else None


def _about_event(story: Story, kind: str, template: int, path: list[int], rng: np.random.Generator) -> Question | None:
    chapter = path[-1]
    candidates = np.flatnonzero((story.event_chapter == chapter) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, kind, template, chapter, event, tuple(int(story.place[c]) for c in path))


def _about_chapter(story: Story, kind: str, template: int, path: list[int]) -> Question:
    span = int(story.chapter_start[path[-1]]), int(story.chapter_end[path[-1]])
    return Question(kind, template, *span, *span, word=-1, path=tuple(int(story.place[c]) for c in path))


def _ask_activity(story: Story, template: int, rng: np.random.Generator) -> Question | None:
    counts = np.bincount(story.event_word, minlength=64)
    # An activity that the end of the video cuts off is seen, though it is no event.
    last = story.states[-1, 3:]
    counts[[16 * track + int(number) - 1 for track, number in enumerate(last) if number]] += 1
    whole_last = story.event_end == story.num_seconds
    np.subtract.at(counts, story.event_word[whole_last], 1)
    candidates = np.flatnonzero((counts[story.event_word] == 1) & story.event_unique)
    if len(candidates) == 0:
        return None
    event = int(candidates[rng.integers(len(candidates))])
    return _question(story, "activity", template, int(story.event_chapter[event]), event, (int(story.place[story.event_chapter[event]]),))


def _ask_effect(story: Story, kind: str, template: int, rng: np.random.Generator) -> Question | None:
    chapters = np.flatnonzero(story.effect)
    if len(chapters) == 0:
        return None
    chapter = int(chapters[rng.integers(len(chapters))])
    event = int(story.cause_event[chapter])
    effect, path = int(story.effect[chapter]), (int(story.place[chapter]),)
    if kind == "why":
        return _question(story, kind, template, chapter, event, path, effect)
    start, end = int(story.event_end[event]), int(story.chapter_end[chapter])
    window = int(story.chapter_start[chapter]), end
    return Question(kind, template, start, end, *window, word=-1, path=path, effect=effect)


def _question(story: Story, kind: str, template: int, chapter: int, event: int, path: tuple[int, ...], effect: int = 0) -> Question:
    span = int(story.event_start[event]), int(story.event_end[event])
    window = int(story.chapter_start[chapter]), int(story.chapter_end[chapter])
    return Question(kind, template, *span, *window, word=int(story.event_word[event]), path=path, effect=effect)


def in_words(story: Story, question: Question) -> str:
    """The question as a sentence, as `ground` would be given it."""
    template = TEMPLATES[question.kind][question.template_idx]
    named_place = question.path[0]
    return template.format(
        A=activity_surface(story.domain.activity(question.word)) if question.word >= 0 else "",
        P=story.domain.place(named_place),
        E=EFFECT_SURFACE[EFFECTS[question.effect - 1]] if question.effect else "",
    )


def activity_surface(words: str) -> str:
    """`sailor lift rope` -> `sailor lift the rope`."""
    role, verb, thing = words.split()
    return f"{role} {verb} the {thing}"


def solve(story: Story, kind: str, place: int | None = None, word: int | None = None, effect: int | None = None) -> list[tuple[int, int]]:
    """Every interval that answers a question, found from the story's rows alone (independent of how questions are drawn).

    Used to check that each question of the bench has exactly one valid answer. Seconds, [start, end).
    """
    rows = story.states
    if kind in {"why", "effect"}:
        shown = rows[:, 2] == effect
        if kind == "effect":
            return _runs(shown)
        places = set(rows[shown, PLACE].tolist())
        word = story.domain.cause_word(int(effect or 0))
        return [run for p in places for run in _word_runs(rows, p, word)]
    target = place
    for _ in range({"sign1": 1, "next_place": 1, "sign2": 2}.get(kind, 0)):
        signs = set(rows[rows[:, PLACE] == target, 1].tolist())
        if len(signs) != 1:
            return []
        target = signs.pop()
    if kind in {"place", "next_place"}:
        return _runs(rows[:, PLACE] == target)
    return _word_runs(rows, None if kind == "activity" else target, int(word if word is not None else -1))


def _word_runs(rows: np.ndarray, place: int | None, word: int) -> list[tuple[int, int]]:
    track, number = divmod(word, 16)
    doing = rows[:, 3 + track] == number + 1
    return _runs(doing if place is None else doing & (rows[:, PLACE] == place))


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
