"""Tiny Town as symbols: stories, questions, the tokenizer, and the files of its domains."""

import itertools
import re
import tomllib
from functools import cache

import numpy as np
import pytest

from timescope_lite.common import UserError
from timescope_lite.datasets.prompts import STOP_WORDS, Writer, plain_words, vocabulary_of
from timescope_lite.model.tokenizer import SO
from timescope_lite.world import domain as world
from timescope_lite.world.domain import (
    EFFECT,
    PLACE,
    SIGN,
    TRACK0,
    load_domains,
    parse_domain,
    read_family,
)
from timescope_lite.world.story import (
    ALARM,
    CROWD,
    DIRECT_NUMBERS,
    PREPARATION_NUMBERS,
    Story,
    StoryConfig,
    tell,
)
from timescope_lite.world.tasks import (
    ASKED_ABOUT,
    ORDINALS,
    QUIZ,
    RULE_HOPS,
    SIGNS,
    SKILLS,
    TASK_TYPES,
    TEMPLATES,
    ask,
    ask_absent,
    difficulty,
    in_words,
    quiz,
    solve,
)

DOMAINS = list(load_domains("all").values())
CORE = list(load_domains().values())
WITH_ODDITIES = StoryConfig(oddities=True)
LENGTHS = (32, 64, 128, 300, 512)


@pytest.fixture(scope="module")
def writer():
    return Writer(vocabulary_of(DOMAINS), DOMAINS)


@cache
def stories(rounds=1):
    """Stories of every domain in every length, `rounds` of each."""
    told = enumerate(itertools.product(range(rounds), DOMAINS[::3], LENGTHS))
    return [tell(domain, seconds, (2, i), WITH_ODDITIES) for i, (_, domain, seconds) in told]


def shown(story, number):
    """The seconds in which effect or preparation `number` is seen."""
    return np.flatnonzero(story.states[:, EFFECT] == number)


def answers_of(story, q):
    return solve(story, q.kind, q.path[0] if q.path else None, q.word, q.effect, q.other, q.ordinal)


def test_chapters_tile_the_video_and_every_place_comes_once():
    for story in stories():
        assert story.chapter_start[0] == 0 and story.chapter_end[-1] == story.num_seconds
        assert (story.chapter_start[1:] == story.chapter_end[:-1]).all()
        assert len(set(story.place.tolist())) == story.num_chapters
        for start, end, place in zip(
            story.chapter_start, story.chapter_end, story.place, strict=True
        ):
            assert (story.states[start:end, PLACE] == place).all()


def test_signs_form_one_cycle_through_all_chapters():
    for story in stories():
        chapter, seen = 0, set()
        while chapter not in seen:
            seen.add(chapter)
            assert (
                story.states[story.chapter_start[chapter] : story.chapter_end[chapter], SIGN]
                == story.place[story.sign_to[chapter]]
            ).all()
            chapter = int(story.sign_to[chapter])
        assert len(seen) == story.num_chapters


def test_an_effect_comes_up_to_three_seconds_after_its_cause_and_lasts_until_the_chapter_ends():
    delays = []
    for story in stories(3):
        for chapter in np.flatnonzero(np.isin(story.effect, DIRECT_NUMBERS)):
            event, seconds = story.cause_event[chapter], shown(story, story.effect[chapter])
            assert (
                story.event_word[event] == story.domain.cause_word(story.effect[chapter])
                and story.event_unique[event]
            )
            assert (
                story.chapter_start[chapter] <= story.event_start[event]
                and seconds[0] == story.effect_start[chapter]
            )
            assert (seconds == np.arange(seconds[0], story.chapter_end[chapter])).all() and len(
                seconds
            ) >= 2
            delays.append(int(seconds[0] - story.event_end[event]))
    assert len(delays) > 200 and set(delays) == {0, 1, 2, 3}, "never before the cause is over"


def test_an_effect_never_comes_before_its_cause_is_over_in_the_shortest_chapter():
    story = tell(DOMAINS[30923 % 8], 32, 30923)
    caused = np.flatnonzero(np.isin(story.effect, DIRECT_NUMBERS))
    assert (story.effect_start[caused] >= story.event_end[story.cause_event[caused]]).all()


def test_alarm_and_crowd_follow_the_signs_back_to_a_direct_effect_and_come_in_this_order():
    """Read from the rows alone: the sign where the crowd is names the alarm's place, the sign there
    names a direct effect's place.
    """
    relays = {1: 0, 2: 0}
    for story in stories(3):
        rows = story.states
        for number, of in ((ALARM, DIRECT_NUMBERS), (CROWD, (ALARM,))):
            seconds = shown(story, number)
            if len(seconds) == 0:
                continue
            (place,) = set(rows[seconds, PLACE].tolist())
            (named,) = set(rows[seconds, SIGN].tolist())
            assert len(seconds) == (rows[:, PLACE] == place).sum(), (
                "it sounds, or gathers, from the first second of the chapter"
            )
            there = rows[rows[:, PLACE] == named, EFFECT]
            (source,) = set(there.tolist()) - {0}
            assert source in of and shown(story, source)[-1] < seconds[0], (
                "what it follows from came earlier in the video"
            )
            assert story.cause_event[story.effect == number].tolist() == [-1]
            relays[1 if number == ALARM else 2] += 1
    assert relays[1] > 100 and relays[2] > 50


def test_a_preparation_stands_for_its_whole_chapter_and_its_purpose_is_still_to_come_there():
    seen = 0
    for story in stories(3):
        for chapter in np.flatnonzero(np.isin(story.effect, PREPARATION_NUMBERS)):
            event = story.cause_event[chapter]
            start = story.chapter_start[chapter]
            end = story.chapter_end[chapter]
            assert (shown(story, story.effect[chapter]) == np.arange(start, end)).all()
            assert story.event_word[event] == story.domain.cause_word(story.effect[chapter])
            assert start < story.event_start[event] and story.event_end[event] <= end
            seen += 1
    assert seen > 200


def test_what_lasts_comes_once_and_in_two_thirds_of_the_chapters_of_a_long_story():
    for story in stories():
        there = story.effect[story.effect > 0]
        assert (
            len(set(there.tolist())) == len(there) <= max(3, 2 * story.num_chapters // 3)
            and len(there) >= 2
        )


def test_rival_effects_are_there_from_64_seconds_on():
    counts = {
        seconds: [int((tell(DOMAINS[0], seconds, seed).effect > 0).sum()) for seed in range(30)]
        for seconds in (32, 64, 128, 512)
    }
    assert min(counts[64]) >= 2 and np.mean(counts[64]) >= 2.9
    assert min(counts[128]) >= 3 and min(counts[512]) >= 5


def test_activities_last_two_to_five_seconds_and_never_repeat_at_once():
    for story in stories():
        length = story.event_end - story.event_start
        assert length.min() >= 2 and length.max() <= 5
        for track in range(4):
            mine = np.flatnonzero(story.event_word // 16 == track)
            assert (np.diff(story.event_word[mine]) != 0).all()
            assert (story.event_start[mine][1:] >= story.event_end[mine][:-1]).all()
            busy = np.flatnonzero(story.states[:, TRACK0 + track])
            covered = np.concatenate(
                [
                    np.arange(a, b)
                    for a, b in zip(story.event_start[mine], story.event_end[mine], strict=True)
                ]
            )
            assert set(covered) <= set(busy)


def test_activities_are_about_equally_frequent():
    """A random walk by 1..15 modulo 16 must not favour an activity: else the text alone would tell
    something.
    """
    words = np.concatenate([tell(DOMAINS[0], 512, seed).event_word for seed in range(40)])
    counts = np.bincount(words, minlength=64)
    behind = {DOMAINS[0].cause_word(number) for number in DIRECT_NUMBERS + PREPARATION_NUMBERS}
    ordinary = np.delete(counts, sorted(behind))
    assert ordinary.min() > 0.75 * ordinary.mean() and ordinary.max() < 1.25 * ordinary.mean()


def test_a_story_is_its_seed():
    one, two, other = (tell(DOMAINS[1], 300, seed) for seed in (5, 5, 6))
    assert one.digest() == two.digest() != other.digest()
    assert tell(DOMAINS[1], 300, 5, StoryConfig(gap_s=(0, 5))).digest() != one.digest()


def test_known_story_digest():
    """A split is a seed: this value may change only together with the version of the package."""
    assert tell(DOMAINS[0], 128, 1).digest()[:16] == KNOWN_DIGEST


def test_stretched_chapters_keep_their_number():
    plain = np.mean([tell(DOMAINS[0], 512, seed).num_chapters for seed in range(10)])
    stretched = np.mean(
        [tell(DOMAINS[0], 1024, seed, StoryConfig(stretch=2.0)).num_chapters for seed in range(10)]
    )
    assert abs(plain - stretched) < 1


def test_too_short_a_story_is_refused():
    with pytest.raises(UserError, match="too short"):
        tell(DOMAINS[0], 10, 0)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_every_question_has_exactly_the_answer_that_the_rows_give(kind, writer):
    rng, asked = np.random.default_rng(0), []
    for story in stories(2):
        for question in filter(
            None,
            (
                ask(story, kind, rng, phrasing)
                for phrasing in ("trained", "held_out")
                for _ in range(3)
            ),
        ):
            asked.append((story.domain.name, story.num_seconds, question.template_idx))
            assert answers_of(story, question) == [(question.start_s, question.end_s)]
            assert (
                question.window_start_s
                <= question.start_s
                < question.end_s
                <= question.window_end_s
            )
            assert len(question.path) == SIGNS.get(kind, 0) + 1 and not question.absent
            assert writer.question(story, question) == writer.vocabulary.encode(
                in_words(story, question)
            ), "the fast path is the sentence"
    domains, lengths, paraphrases = (set(part) for part in zip(*asked, strict=True))
    assert (
        len(asked) > 100
        and len(domains) == len(DOMAINS[::3])
        and paraphrases == set(range(len(TEMPLATES[kind])))
    )
    # An activity that comes twice in a chapter, with another one after it, needs a long chapter.
    assert lengths >= (
        {128, 300, 512}
        if kind in {"last_before", "last_at", "nth", "nth_at", "oddity"}
        else set(LENGTHS)
    )


def test_no_cause_or_purpose_comes_twice_in_its_chapter():
    story = tell(CORE[1228 % 8], 256, (77, 1228))
    assert story.event_unique[story.cause_event[story.cause_event >= 0]].all()


@pytest.mark.parametrize(
    "kind", [kind for kind in TEMPLATES if kind not in {"activity", "consequence"}]
)
def test_an_absent_question_has_no_answer_and_reads_like_any_other(kind, writer):
    rng, asked = np.random.default_rng(0), 0
    for story in stories(2):
        question = ask_absent(story, kind, rng)
        if question is None:
            there = (
                kind == "oddity"
                and story.oddity
                or kind in ASKED_ABOUT
                and set(ASKED_ABOUT[kind]) <= set(story.effect.tolist())
            )
            assert there, "all of it is there"
            continue
        asked += 1
        assert (
            question.absent
            and answers_of(story, question) == []
            and writer.chain(story, question) == [SO]
        )
        assert writer.question(story, question) == writer.vocabulary.encode(
            in_words(story, question)
        )
        if kind != "oddity":
            cue = (
                shown(story, question.effect)
                if question.effect
                else np.flatnonzero(story.states[:, PLACE] == question.path[0])
            )
            assert len(cue) == 0
    # Nearly every story has an alarm and something odd, so these are seldom asked in vain.
    assert asked >= {"why2": 1, "why3": 20, "oddity": 5}.get(kind, 40)


def story_by_hand(chapters, events):
    """A Story from chapters (start, end, place, sign to chapter) and events (start, end, word),
    sorted by track and time.
    """
    states = np.zeros((chapters[-1][1], 7), dtype=np.int16)
    chapter_start, chapter_end, place, sign_to = (
        np.array(column) for column in zip(*chapters, strict=True)
    )
    for start, end, here, to in chapters:
        states[start:end, PLACE], states[start:end, SIGN] = here, place[to]
    start, end, word = (np.array(column) for column in zip(*events, strict=True))
    for a, b, w in events:
        states[a:b, TRACK0 + w // 16] = w % 16 + 1
    of = np.searchsorted(chapter_end, start, side="right")
    whole = end <= chapter_end[of]
    unique = np.array(
        [
            whole[i] and sum((word == w) & (of == c)) == 1
            for i, (w, c) in enumerate(zip(word, of, strict=True))
        ]
    )
    nothing = np.zeros(len(chapters), dtype=np.int64)
    return Story(
        DOMAINS[0],
        0,
        states,
        chapter_start,
        chapter_end,
        place,
        sign_to,
        nothing,
        chapter_start,
        nothing - 1,
        start,
        end,
        word,
        of,
        unique,
    )


# Place 7 for 12 s, whose sign names place 9, which is there for the next 12 s. At place 9 the first
# person does 0, 1, 0, 2, the second does 20.
BY_HAND = story_by_hand(
    [(0, 12, 7, 1), (12, 24, 9, 0)],
    [
        (1, 4, 0),
        (5, 8, 3),
        (12, 14, 0),
        (14, 16, 1),
        (17, 19, 0),
        (19, 21, 2),
        (22, 24, 0),
        (20, 23, 20),
    ],
)


def drawn(kind, draws=60):
    """Every question of a kind that comes up about the story by hand, as (place asked about, word,
    other) -> (start, end).
    """
    rng = np.random.default_rng(0)
    questions = filter(None, (ask(BY_HAND, kind, rng) for _ in range(draws)))
    return {(q.path[0], q.word, q.other): (q.start_s, q.end_s) for q in questions}


def test_order_by_hand():
    """At place 9: after 1 and after 2 comes 0; 0 comes three times; nobody does anything after 20.
    At place 7: after 0 comes 3, after 3 nothing there.
    """
    there = {1: (17, 19), 2: (22, 24)}
    assert drawn("order_at") == {(9, word, -1): span for word, span in there.items()} | {
        (7, 0, -1): (5, 8)
    }
    assert drawn("order") == {(7, word, -1): span for word, span in there.items()} | {
        (9, 0, -1): (5, 8)
    }
    assert solve(BY_HAND, "order", 7, 1) == [(17, 19)] and solve(BY_HAND, "order_at", 9, 2) == [
        (22, 24)
    ]
    assert solve(BY_HAND, "order", 7, 0) == [(14, 16), (19, 21)], (
        "an activity that comes again has more than one successor"
    )
    assert solve(BY_HAND, "order_at", 7, 3) == [], (
        "what the person does next lies in another chapter"
    )


def test_last_before_by_hand():
    """At place 9 only 0 comes again: at 12, 17 and 22. Before 1 (14) the last time is 12-14; before
    2 (19) and before 20 (20), it is 17-19.
    """
    there = {1: (12, 14), 2: (17, 19), 20: (17, 19)}
    assert drawn("last_at") == {(9, 0, other): span for other, span in there.items()}
    assert drawn("last_before") == {(7, 0, other): span for other, span in there.items()}
    assert solve(BY_HAND, "last_before", 7, 0, other=20) == [(17, 19)] and solve(
        BY_HAND, "last_at", 9, 0, other=1
    ) == [(12, 14)]


def test_questions_name_their_cue_only_where_they_say_so():
    """Every kind but explicit and three skills hides the place in which its target lies."""
    rng, seen = np.random.default_rng(3), {}
    for story in stories():
        for kind in TEMPLATES:
            question = ask(story, kind, rng)
            if question is not None:
                seen.setdefault(kind, set()).add(
                    story.domain.place(question.path[-1]) in in_words(story, question)
                )
                assert (
                    question.cue_named
                    == (story.domain.place(question.path[-1]) in in_words(story, question))
                    or kind == "captions"
                ), kind
                assert question.hops == {"why3": 3, "why2": 2}.get(
                    kind, 1 if kind in RULE_HOPS else len(question.path) - 1
                )
    assert seen.keys() == set(TEMPLATES)


def test_the_solver_can_say_no():
    """The independent solver is no echo: about another place, or a story in which the cause stands
    elsewhere, it answers differently.
    """
    story, rng = tell(DOMAINS[0], 512, 3), np.random.default_rng(1)
    question = ask(story, "explicit", rng)
    truth = [(question.start_s, question.end_s)]
    others = [
        solve(story, "explicit", int(place), question.word)
        for place in story.place
        if place != question.path[0]
    ]
    assert all(found != truth for found in others)
    assert any(found for found in others), "the same activity returns in other chapters"


def test_kinds_are_task_types_or_skills():
    assert set(TEMPLATES) == set(TASK_TYPES) | set(SKILLS)
    with pytest.raises(UserError, match="unknown kind of question 'how'"):
        ask(tell(DOMAINS[0], 64, 0), "how", np.random.default_rng(0))


@pytest.mark.parametrize(
    ("kind", "places", "activities"),
    [
        ("explicit", 1, 1),
        ("sign2", 3, 1),
        ("why", 1, 1),
        ("why3", 3, 1),
        ("purpose", 1, 1),
        ("order", 2, 1),
        ("last_before", 2, 2),
        ("effect", 1, 0),
    ],
)
def test_reasoning_names_the_way_and_then_what_to_look_for(kind, places, activities, writer):
    story = tell(DOMAINS[0], 512, 3)
    question = ask(story, kind, np.random.default_rng(2))
    chain = writer.chain(story, question)
    way = [story.domain.place(place) for place in question.path]
    look_for = [
        story.domain.activity(word) for word in (question.word, question.other) if word >= 0
    ]
    assert chain[-1] == SO and (len(way), len(look_for)) == (places, activities)
    assert [writer.vocabulary.decode([token]) for token in chain[:-1]] == way + look_for


@pytest.mark.parametrize(
    ("start", "end"), [(0, 2), (14, 16), (14, 18), (16, 32), (30, 64), (511, 512)]
)
def test_times_survive_being_written(writer, start, end):
    for clock in (0, 7, 480):
        assert writer.read_interval(writer.interval(start, end, clock), clock) == (start, end)


def test_words_are_read_as_people_write_them(writer):
    v, (activity, place) = writer.vocabulary, (DOMAINS[0].activity(5), DOMAINS[0].place(30))
    role, verb, thing = activity.split()
    plain = v.encode(f"when {activity} {place}")
    assert v.encode(f"When does the {role.upper()} {verb} the {thing} at the {place}?!") == plain
    assert v.encode(f"when does a {role} {verb}s the {thing}, in the {place}") == plain
    assert plain_words("Find the moment!") == []


@pytest.mark.parametrize("task", ["", "   ", "?!", "the of a"])
def test_an_empty_task_is_refused_with_samples(writer, task):
    with pytest.raises(UserError, match="no words that say what to look for; try: When does"):
        writer.vocabulary.encode(task)


def test_unknown_words_are_named_with_their_neighbours(writer):
    with pytest.raises(UserError, match="unknown word 'flod': the nearest known words are flood"):
        writer.vocabulary.encode("why is there a flod")
    role, other = DOMAINS[0].cast[0].role, DOMAINS[0].cast[1].objects[0]
    with pytest.raises(UserError, match="is nothing this model knows"):
        writer.vocabulary.encode(f"when does the {role} {DOMAINS[0].cast[0].verbs[0]} the {other}")


def table_of(name):
    """The table of a shipped domain, with the places of its family."""
    for path in (world.Path(world.__file__).parent / "domains").glob("*.toml"):
        family = tomllib.loads(path.read_text())
        shared = {key: family[key] for key in ("places", "skyline")}
        found = [shared | table for table in family["domain"] if table["name"] == name]
        if found:
            return found[0]
    raise KeyError(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(colour="red"), "unknown key 'colour'"),
        (lambda t: t.pop("sky"), "key 'sky' is missing"),
        (lambda t: t["cast"].pop(), "needs 4 roles in its cast, has 3"),
        (
            lambda t: t["cast"][0].update(verbs=["lift", "kick", "hold", "eat"]),
            "has the verb 'eat'",
        ),
        (lambda t: t["cast"][0].update(objects=t["cast"][1]["objects"]), "names an object twice"),
        (
            lambda t: t["cast"][0].update(objects=t["cast"][0]["objects"][:3]),
            "needs 4 verbs and 4 objects",
        ),
        (lambda t: t["places"].pop(), "needs 24 different places, has 23"),
        (lambda t: t["places"].__setitem__(0, "cathedral"), "longer than 4 letters"),
        (
            lambda t: t["rule"].pop(),
            r"needs one rule for each direct effect .*, has flood, smoke, dark$",
        ),
        (
            lambda t: t["rule"][0].update(effect="alarm"),
            r"needs one rule for each direct effect .*, has alarm, smoke",
        ),
        (lambda t: t["rule"][0].pop("cause"), "house, rule: key 'cause' is missing"),
        (
            lambda t: t["rule"][0].update(cause="nobody lift nothing"),
            "the cause 'nobody lift nothing' of 'flood' is no activity of this cast",
        ),
        (lambda t: t.pop("plan"), r"needs one plan for each preparation .*, has none"),
        (
            lambda t: t["plan"].pop(),
            r"needs one plan for each preparation .*, has bunting, lights, carpet$",
        ),
        (lambda t: t["plan"][0].update(reason="so"), "house, plan: unknown key 'reason'"),
        (
            lambda t: t["plan"][0].update(purpose="cook lift rope"),
            "the purpose 'cook lift rope' of 'bunting' is no activity of this cast",
        ),
        (
            lambda t: t["rule"][1].update(cause=t["rule"][0]["cause"]),
            "'painter push ladder' stands behind 'flood' and 'smoke'",
        ),
        (
            lambda t: t["plan"][2].update(purpose=t["rule"][0]["cause"]),
            "'painter push ladder' stands behind 'flood' and 'carpet'",
        ),
    ],
)
def test_a_bad_domain_is_named(change, message):
    table = table_of("house")
    change(table)
    with pytest.raises(UserError, match=message) as error:
        parse_domain(table, "home", "home.toml, house")
    assert str(error.value).startswith("home.toml, house")


def test_broken_toml_names_file_and_line(tmp_path):
    (tmp_path / "mine.toml").write_text('family = "mine"\n[[domain]\nname = 1\n')
    with pytest.raises(UserError, match=r"mine.toml: not valid TOML: .*line 2"):
        read_family(tmp_path / "mine.toml")


def test_places_of_a_family_serve_its_domains(tmp_path):
    source = (world.Path(world.__file__).parent / "domains" / "home.toml").read_text()
    own = list("abcdefghijklmnopqrstuvwx")
    (tmp_path / "mine.toml").write_text(
        source.replace('name = "school"', f'name = "school"\nplaces = {own}')
    )
    house, school, museum, *_ = read_family(tmp_path / "mine.toml")
    assert house.places == museum.places == DOMAINS[0].places and school.places == tuple(own)
    (tmp_path / "mine.toml").write_text(source.replace("places =", "streets ="))
    with pytest.raises(
        UserError,
        match=(
            r"mine.toml, line 7: unknown key 'streets' at the top of the file; expected one of "
            r"family, places, skyline"
        ),
    ):
        read_family(tmp_path / "mine.toml")


def test_a_bad_domain_of_a_file_is_named_with_its_line(tmp_path):
    source = (world.Path(world.__file__).parent / "domains" / "home.toml").read_text()
    (tmp_path / "mine.toml").write_text(
        source.replace('cause = "janitor pull wrench"', 'cause = "janitor pull moon"')
    )
    line = source[: source.index('cause = "janitor pull wrench"')].count("\n") + 1
    with pytest.raises(
        UserError,
        match=(
            rf"mine.toml, line {line}, school: the cause 'janitor pull moon' of 'flood' is no "
            r"activity"
        ),
    ):
        read_family(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_text(
        source.replace(
            'colour = "pink"\nverbs = ["hold", "pull"', 'colour = "pink"\nverbs = ["hold", "sing"'
        )
    )
    with pytest.raises(
        UserError, match=r"mine.toml, line \d+, house: role 'granny' has the verb 'sing'"
    ):
        read_family(tmp_path / "mine.toml")


def test_35_domains_in_six_families_eight_of_them_core():
    assert [d.name for d in CORE] == [
        "house",
        "school",
        "museum",
        "meadow",
        "farm",
        "harbour",
        "market",
        "station",
    ]
    families = [d.family for d in DOMAINS]
    assert {f: families.count(f) for f in families} == {
        "home": 6,
        "leisure": 6,
        "nature": 6,
        "town": 6,
        "travel": 5,
        "work": 6,
    }
    for d in DOMAINS:
        assert {rule.effect for rule in d.rules} == set(world.DIRECT) and len(d.rules) == 4
        assert {plan.preparation for plan in d.plans} == set(world.PREPARATIONS) and len(
            d.plans
        ) == 4
        assert all(told.because and not told.because.endswith(".") for told in (*d.rules, *d.plans))
    with pytest.raises(UserError, match="unknown town 'half': expected core or all"):
        load_domains("half")


def test_an_activity_looks_like_no_other_anywhere():
    """Of all domains: no role twice, and a person of the same place in the cast and the same colour
    has a thing in one domain only.
    """
    roles = [role.role for d in DOMAINS for role in d.cast]
    held = [
        (track, role.colour, name)
        for d in DOMAINS
        for track, role in enumerate(d.cast)
        for name in role.objects
    ]
    assert len(set(roles)) == len(roles) == 140 and len(set(held)) == len(held) == 560
    assert {name for _, _, name in held} == set(world.ICONS), "every icon is somebody's"


def test_no_word_of_a_domain_is_a_word_of_the_questions():
    asked = {
        word
        for texts in TEMPLATES.values()
        for text in texts
        for word in plain_words(re.sub(r"\{.\}", " ", text))
    } | set(ORDINALS)
    named = {
        word
        for d in DOMAINS
        for word in (*d.places, *(w for r in d.cast for w in (r.role, *r.objects)))
    }
    assert not named & (asked | STOP_WORDS)


@pytest.mark.parametrize("kind", list(TASK_TYPES))
def test_six_ways_to_ask_of_which_two_are_held_out_in_known_words(kind):
    words = [tuple(plain_words(re.sub(r"\{(.)\}", r" slot\1 ", text))) for text in TEMPLATES[kind]]
    trained = {
        word
        for texts in TEMPLATES.values()
        for text in texts[:4]
        for word in plain_words(re.sub(r"\{(.)\}", r" slot\1 ", text))
    }
    assert len(words) == 6 and not set(words[4:]) & set(words[:4]), (
        "held out ones are other sentences for the model, too"
    )
    assert {word for text in words[4:] for word in text} <= trained


def test_an_oddity_is_seen_once_and_changes_nothing_else():
    for seed in range(20):
        plain, odd = (
            tell(DOMAINS[seed], 256, seed, config) for config in (StoryConfig(), WITH_ODDITIES)
        )
        differ = (plain.states != odd.states).any(1)
        assert (
            plain.oddity is None
            and odd.oddity
            and differ.sum() == odd.oddity.end_s - odd.oddity.start_s
        )
        assert (odd.states[differ, EFFECT] == odd.oddity.number).all() and (
            plain.states[differ, EFFECT] == 0
        ).all()


def test_the_short_answer_is_one_of_four_choices_and_difficulty_counts():
    rng = np.random.default_rng(5)
    for story in stories():
        for kind in TASK_TYPES:
            question = ask(story, kind, rng, "trained")
            if question is not None:
                answer, choices = quiz(story, question, rng)
                assert len(set(choices)) == 4 and answer in choices
                hard = difficulty(story, question)
                assert (
                    hard["hops"] == question.hops
                    and hard["lookalikes"] >= 0
                    and 0 <= hard["distance_s"] <= story.num_seconds
                )
    assert set(QUIZ) == set(TASK_TYPES.values())


def test_effects_and_preparations_have_one_activity_behind_them():
    for d in DOMAINS:
        told = {rule.effect: rule.cause for rule in d.rules} | {
            plan.preparation: plan.purpose for plan in d.plans
        }
        found = {
            name: d.activity(d.cause_word(number))
            for number, name in enumerate(world.LASTING, 1)
            if name in told
        }
        assert found == told and len(set(told.values())) == 8


def test_every_effect_is_explained_in_one_to_three_hops():
    hops = dict.fromkeys(world.DIRECT, 1)
    for signal in world.SIGNALS:
        hops[signal.effect] = 1 + max(hops[effect] for effect in signal.of)
    assert hops == {"flood": 1, "smoke": 1, "dark": 1, "fire": 1, "alarm": 2, "crowd": 3} and set(
        hops
    ) == set(world.EFFECTS)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            2,
            "no activity brings the alarm about: it follows from flood or smoke or dark or fire at "
            "the place on the sign",
        ),
        (5, "no activity brings the crowd about: it follows from alarm at the place on the sign"),
        (0, "0 is the number of no effect or preparation; expected 1..10"),
        (11, "11 is the number of no effect or preparation; expected 1..10"),
    ],
)
def test_what_no_activity_explains_is_said(number, message):
    with pytest.raises(UserError, match=message):
        DOMAINS[0].cause_word(number)


def test_words_mean_one_thing():
    """A noun, an object or a role that meant two things would make a question ambiguous."""
    by_use = {
        "place": {noun for d in DOMAINS for noun in d.places},
        "object": {name for d in DOMAINS for role in d.cast for name in role.objects},
        "role": {role.role for d in DOMAINS for role in d.cast},
        "other": set(world.COLOURS) | set(world.VERBS) | set(world.LASTING),
        "grammar": STOP_WORDS
        | {
            word
            for texts in TEMPLATES.values()
            for text in texts
            for word in plain_words(re.sub(r"{.}", " ", text))
        },
    }
    for one, two in itertools.combinations(by_use, 2):
        assert not by_use[one] & by_use[two], f"{one} and {two} share a word"


KNOWN_DIGEST = "abe2bf4e5666dc35"
