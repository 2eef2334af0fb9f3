"""Domains of Tiny Town: what a TOML file of `domains/` says, checked, and the numbering that every
other part relies on.

A domain is data: a backdrop, places, four roles (one per track) with 4 verbs x 4 objects each, a
rule from a cause to each direct effect, and a plan that says what each preparation is for. What
follows from an effect elsewhere (`SIGNALS`) and what belongs nowhere (`ODDITIES`) is the same in
every domain. Eight domains are the *core* town, small enough to train in on a laptop; the whole
town has 35.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from timescope_lite.common import UserError, from_mapping
from timescope_lite.world.art import ICONS, STENCILS

COLOURS = ("red", "blue", "gold", "green", "pink", "grey")
VERBS = ("lift", "kick", "hold", "drop", "throw", "push", "pull", "shake")
EFFECTS = ("flood", "alarm", "smoke", "dark", "crowd", "fire")
DIRECT = (
    "flood",
    "smoke",
    "dark",
    "fire",
)  # effects that an activity in the same chapter brings about
PREPARATIONS = (
    "bunting",
    "lights",
    "carpet",
    "fence",
)  # what stands in a chapter for an activity that is still to come there
LASTING = (
    EFFECTS + PREPARATIONS
)  # column EFFECT of a state row: 0 for nothing, else 1 + the index in here
ODDITIES = (
    "ghost",
    "comet",
    "dragon",
    "saucer",
)  # seen for a few seconds where nothing lasts; they belong in no domain
SHOWN = LASTING + ODDITIES  # all that column EFFECT can show
NUM_TRACKS = 4
NUM_NOUNS = 24
NUM_PLACES = len(COLOURS) * NUM_NOUNS
NUM_ACTIVITIES = 16  # per role: 4 verbs x 4 objects
# Columns of a state row, one row per second of video.
PLACE, SIGN, EFFECT, TRACK0 = 0, 1, 2, 3
NUM_FIELDS = TRACK0 + NUM_TRACKS
# How many values each column can take: what the frame encoder learns to name.
FIELD_SIZES = (NUM_PLACES, NUM_PLACES, 1 + len(SHOWN)) + (1 + NUM_ACTIVITIES,) * NUM_TRACKS


@dataclass(frozen=True)
class Role:
    """One person of the cast: always the same track, the same clothes, the same 16 activities."""

    role: str
    colour: str
    verbs: tuple[str, ...]
    objects: tuple[str, ...]

    def activity(self, number: int) -> str:
        """Activity 1..16 in words, e.g. `sailor lift rope`: number = 1 + verb_idx * 4 +
        object_idx.
        """
        verb_idx, object_idx = divmod(number - 1, len(self.objects))
        return f"{self.role} {self.verbs[verb_idx]} {self.objects[object_idx]}"


@dataclass(frozen=True)
class Rule:
    """A direct effect and the activity that brings it about; `because` says it in plain words."""

    effect: str
    cause: str
    because: str


@dataclass(frozen=True)
class Plan:
    """A preparation and the activity that it stands there for; `because` says it in plain words."""

    preparation: str
    purpose: str
    because: str


@dataclass(frozen=True)
class Signal:
    """An effect that follows from one of the effects `of` at another place: the one that the sign
    hanging here names.
    """

    effect: str
    of: tuple[str, ...]
    because: str


# A direct effect is explained in one hop, an alarm in two, a crowd in three.
SIGNALS = (
    Signal(
        "alarm",
        of=DIRECT,
        because="the wire of the siren runs to the place on the sign, where something is wrong",
    ),
    Signal(
        "crowd",
        of=("alarm",),
        because="people gather and hurry to where the sign points, because an alarm sounds there",
    ),
)


@dataclass(frozen=True)
class Domain:
    """A domain of Tiny Town. Place index = colour_idx * 24 + noun_idx. `skyline`: the four stencils
    of its backdrop, on a wall if `indoors`.
    """

    name: str
    family: str
    sky: str
    ground: str
    skyline: tuple[str, ...]
    places: tuple[str, ...]
    cast: tuple[Role, ...]
    rules: tuple[Rule, ...]
    plans: tuple[Plan, ...]
    indoors: bool = False
    core: bool = False

    def place(self, place_idx: int) -> str:
        """`red mill` for a place index in 0..143."""
        colour_idx, noun_idx = divmod(int(place_idx), NUM_NOUNS)
        return f"{COLOURS[colour_idx]} {self.places[noun_idx]}"

    def activity(self, word: int) -> str:
        """Activity word 0..63 (track * 16 + number - 1) in words."""
        track, number = divmod(int(word), NUM_ACTIVITIES)
        return self.cast[track].activity(number + 1)

    def cause_word(self, lasting_number: int) -> int:
        """The activity word 0..63 behind lasting number 1..10: what brought a direct effect about,
        or what a preparation is for.

        Raises UserError for an alarm or a crowd, which follow from another effect, and for a number
        out of range.
        """
        word = self._words_behind[lasting_number - 1] if 1 <= lasting_number <= len(LASTING) else -1
        if word < 0:
            raise UserError(_no_activity_behind(lasting_number))
        return word

    @cached_property
    def _words_behind(self) -> tuple[int, ...]:
        """Activity word of each of LASTING, -1 for what follows from another effect."""
        words = {self.activity(word): word for word in range(NUM_TRACKS * NUM_ACTIVITIES)}
        behind = {rule.effect: words[rule.cause] for rule in self.rules}
        behind |= {plan.preparation: words[plan.purpose] for plan in self.plans}
        return tuple(behind.get(lasting, -1) for lasting in LASTING)


def _no_activity_behind(lasting_number: int) -> str:
    if not 1 <= lasting_number <= len(LASTING):
        return (
            f"{lasting_number} is the number of no effect or preparation; expected "
            f"1..{len(LASTING)}: {', '.join(LASTING)}"
        )
    signal = next(signal for signal in SIGNALS if signal.effect == LASTING[lasting_number - 1])
    return (
        f"no activity brings the {signal.effect} about: it follows from {' or '.join(signal.of)} "
        "at the place on the sign"
    )


Where = Callable[[str], str]  # something quoted in a complaint -> `town.toml, line 12, harbour`


def parse_domain(table: dict[str, Any], family: str, where: str | Where) -> Domain:
    """A checked Domain from a parsed TOML table. Raises UserError naming `where` (the file, and the
    line if it is known), the key, what was expected.
    """
    at = where if callable(where) else lambda _: str(where)
    cast = tuple(_parse_role(entry, at) for entry in table.get("cast", []))
    rules = tuple(
        from_mapping(Rule, entry, f"{at(_first_value(entry))}, rule")
        for entry in table.get("rule", [])
    )
    plans = tuple(
        from_mapping(Plan, entry, f"{at(_first_value(entry))}, plan")
        for entry in table.get("plan", [])
    )
    rest = {key: value for key, value in table.items() if key not in {"cast", "rule", "plan"}}
    rest |= {key: tuple(rest.get(key, ())) for key in ("places", "skyline")}
    unknown = next((key for key in rest if key not in Domain.__dataclass_fields__), "")
    domain = from_mapping(
        Domain, rest | {"family": family, "cast": cast, "rules": rules, "plans": plans}, at(unknown)
    )
    _check(domain, at)
    return domain


def _first_value(entry: dict[str, Any]) -> str:
    return next((value for value in entry.values() if isinstance(value, str)), "")


def _parse_role(entry: dict[str, Any], at: Where) -> Role:
    lists = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    role = from_mapping(Role, lists, f"{at(str(entry.get('role', '')))}, cast")
    for verb in role.verbs:
        if verb not in VERBS:
            raise UserError(
                f"{at(verb)}: role {role.role!r} has the verb {verb!r}; expected four of "
                f"{', '.join(VERBS)}"
            )
    return role


def _check(domain: Domain, at: Where) -> None:
    objects = [name for role in domain.cast for name in role.objects]
    expected = (
        (
            len(domain.cast) == NUM_TRACKS,
            f"needs {NUM_TRACKS} roles in its cast, has {len(domain.cast)}",
        ),
        (
            all(len(role.verbs) == len(role.objects) == 4 for role in domain.cast),
            "needs 4 verbs and 4 objects per role",
        ),
        (len(set(objects)) == len(objects), f"names an object twice: {_first_repeated(objects)!r}"),
        (
            len(set(domain.places)) == NUM_NOUNS,
            f"needs {NUM_NOUNS} different places, has {len(set(domain.places))}",
        ),
        (
            all(role.colour in COLOURS for role in domain.cast),
            f"has a role whose colour is none of {', '.join(COLOURS)}",
        ),
        (
            all(re.fullmatch("#[0-9a-fA-F]{6}", c) for c in (domain.sky, domain.ground)),
            "needs sky and ground as #rrggbb",
        ),
        (
            all(name in ICONS for name in objects),
            "names an object that nobody has drawn: "
            f"{next((n for n in objects if n not in ICONS), None)!r}",
        ),
        (
            len(domain.skyline) == 4 and all(name in STENCILS for name in domain.skyline),
            f"needs a skyline of four of the stencils {', '.join(STENCILS)}, has "
            f"{_listed(domain.skyline)}",
        ),
        (
            all(noun.isalpha() and len(noun) <= 4 for noun in domain.places),
            "has a place longer than 4 letters: a sign has room for 10",
        ),
        (
            sorted(rule.effect for rule in domain.rules) == sorted(DIRECT),
            f"needs one rule for each direct effect ({', '.join(DIRECT)}), has "
            f"{_listed(rule.effect for rule in domain.rules)}",
        ),
        (
            sorted(plan.preparation for plan in domain.plans) == sorted(PREPARATIONS),
            f"needs one plan for each preparation ({', '.join(PREPARATIONS)}), has "
            f"{_listed(plan.preparation for plan in domain.plans)}",
        ),
    )
    for holds, complaint in expected:
        if not holds:
            raise UserError(
                f"{at(_quoted(complaint) or domain.name)}: domain {domain.name!r} {complaint}"
            )
    _check_activities(domain, at)


def _quoted(text: str) -> str:
    found = re.search(r"'([^']+)'", text)
    return found[1] if found else ""


def _check_activities(domain: Domain, at: Where) -> None:
    """What rules and plans name must be activities of this cast, each named once: else a question
    had two answers.
    """
    known = {domain.activity(word) for word in range(NUM_TRACKS * NUM_ACTIVITIES)}
    named = [("cause", rule.cause, rule.effect) for rule in domain.rules]
    named += [("purpose", plan.purpose, plan.preparation) for plan in domain.plans]
    users: dict[str, str] = {}
    for kind, activity, lasting in named:
        if activity not in known:
            raise UserError(
                f"{at(activity)}: the {kind} {activity!r} of {lasting!r} is no activity of this "
                "cast; write 'role verb object'"
            )
        if activity in users:
            raise UserError(
                f"{at(activity)}: {activity!r} stands behind {users[activity]!r} and {lasting!r}; "
                "give each an activity of its own"
            )
        users[activity] = lasting


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _first_repeated(names: list[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None)


def read_family(path: Path) -> list[Domain]:
    """All domains of one TOML file; its `places`, `skyline` and `indoors` serve every domain that
    has none of its own.

    Raises UserError naming the file and the line, the domain and key, and what was expected.
    """
    path = Path(path)
    text = path.read_text(encoding="utf-8")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name}: not valid TOML: {error}") from None
    known = ("family", "places", "skyline", "indoors", "domain")
    unknown = sorted(set(table) - set(known))
    if unknown:
        line = _line_of(text.splitlines(), 0, unknown[0])
        raise UserError(
            f"{path.name}, line {line}: unknown key {unknown[0]!r} at the top of the file; "
            f"expected one of {', '.join(known)}"
        )
    shared = {key: table[key] for key in ("places", "skyline", "indoors") if key in table}
    return [
        parse_domain(
            shared | entry,
            table.get("family", path.stem),
            _places_of_errors(path.name, text, number, entry.get("name", "?")),
        )
        for number, entry in enumerate(table.get("domain", []))
    ]


def _places_of_errors(file: str, text: str, number: int, name: str) -> Where:
    """Says where in `file` something of its `number`-th domain stands: the first line from the
    domain's own on that has it, else the domain's own.
    """
    lines = text.splitlines()
    first = [i for i, line in enumerate(lines) if line.strip() == "[[domain]]"][number]
    return lambda what: f"{file}, line {_line_of(lines, first, what)}, {name}"


def _line_of(lines: list[str], first: int, what: str) -> int:
    """Number (from 1) of the first line from index `first` on in which `what` stands as a word;
    that of `first` if none has it.
    """
    found = (
        i
        for i in range(first, len(lines))
        if what and re.search(rf"(?<![\w-]){re.escape(what)}(?![\w-])", lines[i])
    )
    return next(found, first) + 1


def all_core(domains: Iterable[Domain]) -> bool:
    """Whether these domains are of the core town only: no oddities, plain cameras, six task types
    in two phrasings.
    """
    return all(domain.core for domain in domains)


@cache
def load_domains(town: str = "core") -> dict[str, Domain]:
    """The shipped domains by name, in the order of their files: the eight of the `core` town, or
    `all`. The order is part of what a seed means.

    Raises UserError for another name, or if two domains share a name or a role: an activity would
    mean two things.
    """
    if town not in {"core", "all"}:
        raise UserError(f"unknown town {town!r}: expected core or all")
    folder = Path(__file__).parent / "domains"
    domains = [domain for path in sorted(folder.glob("*.toml")) for domain in read_family(path)]
    names = [domain.name for domain in domains] + [
        role.role for domain in domains for role in domain.cast
    ]
    if (twice := _first_repeated(names)) is not None:
        raise UserError(
            f"{twice!r} is the name of two domains or roles of Tiny Town; give one of them another"
        )
    return {domain.name: domain for domain in domains if domain.core or town == "all"}
