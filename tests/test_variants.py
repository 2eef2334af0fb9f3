"""The study of training sets: what a variant leaves out is never drawn, nothing else differs, and a
result holds what its rows say.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from timescope_lite.common import UserError
from timescope_lite.corpus import (
    LEFT_OUT_COMPOSITION,
    LEFT_OUT_DOMAIN,
    LEFT_OUT_TYPES,
    SPLITS,
    SymbolicSource,
    _check_balance,
    draw_question,
    plan,
)
from timescope_lite.results import read_result
from timescope_lite.train import TOWN_TASKS
from timescope_lite.variants import (
    CLIPS,
    SETS,
    TRAINED_DOMAIN,
    VARIANTS,
    WIDTH,
    Effort,
    Variant,
    phases,
    stories,
    study,
    summarise,
)
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import StoryConfig, tell
from timescope_lite.world.tasks import PHRASINGS, ask

ALL = load_domains("all")


def test_a_variant_differs_in_what_it_says_and_in_nothing_else():
    base = phases(VARIANTS["base"], Effort(words=10, dense=30))[-1]
    for name, variant in VARIANTS.items():
        trained = phases(variant, Effort(words=10, dense=30))
        assert sum(phase.steps for phase in trained) == 40, name
        same = [
            f
            for f in ("lengths", "coarse", "muon_lr", "adam_lr", "sees", "r")
            if getattr(trained[-1], f) != getattr(base, f)
        ]
        assert (
            not same
            and trained[-1].hallucinated == variant.hallucinated
            and trained[-1].think == variant.think
        ), name


@pytest.mark.parametrize(
    ("name", "left_out"), [("no_types", LEFT_OUT_TYPES), ("no_composition", LEFT_OUT_COMPOSITION)]
)
def test_what_is_left_out_is_never_drawn_in_training(name, left_out):
    kinds, rng = VARIANTS[name].kinds(), np.random.default_rng(0)
    story = tell(ALL[TRAINED_DOMAIN], 256, 1, StoryConfig(oddities=True))
    drawn = {draw_question(story, kinds, rng, phrasing="trained").kind for _ in range(400)}
    assert not drawn & set(left_out) and set(left_out) <= set(TOWN_TASKS) and len(drawn) > 15


def test_descriptions_and_tasks_share_no_question():
    assert not set(VARIANTS["explicit_only"].kinds()) & set(VARIANTS["tasks_only"].kinds())
    with pytest.raises(UserError, match="leaves no question"):
        Variant("nothing", only=("nonsense",)).kinds()


def test_the_left_out_domain_is_another_one_and_phrasings_share_no_paraphrase():
    assert {LEFT_OUT_DOMAIN, TRAINED_DOMAIN} < set(ALL) and LEFT_OUT_DOMAIN != TRAINED_DOMAIN
    held_out, trained = (set(range(6)[PHRASINGS[name]]) for name in ("held_out", "trained"))
    assert not held_out & trained


def test_clips_have_the_lengths_of_charades_sta():
    """Videos of 30.6 s and moments of 8.1 s on average (Gao et al. 2017); ours within a second."""
    lengths = []
    for i in range(300):
        story = tell(ALL[TRAINED_DOMAIN], SETS["clips"].seconds, (5, i), CLIPS)
        question = ask(story, "activity", np.random.default_rng(i), "trained")
        lengths += [question.end_s - question.start_s] if question else []
    assert len(lengths) > 120 and abs(np.mean(lengths) - 8.1) < 1


def test_a_study_writes_what_its_rows_say(tmp_path, monkeypatch):
    monkeypatch.setattr("timescope_lite.variants.POOL_FRAMES", 512)
    effort = Effort(words=1, dense=2, videos=2, seconds=64)
    result = read_result(study("captions", tmp_path, effort))
    rows = [
        json.loads(line) for line in (tmp_path / "captions" / "rows.jsonl").read_text().splitlines()
    ]
    assert {row["set"] for row in rows} == set(SETS) and {
        row["way"] for row in rows if row["set"] == "seen"
    } == {"reasons", "direct"}
    told = [row for row in rows if row["set"] == "seen" and row["way"] == "reasons"]
    assert result.metrics["reasons/seen:all/r1@0.5"].value == pytest.approx(
        np.mean([row["tiou"] >= 0.5 for row in told])
    )
    assert (
        "captions/seen:all/f1" in result.metrics
        and summarise(rows).items() <= result.metrics.items()
    )
    with pytest.raises(UserError, match="unknown variant 'nothing'"):
        study("nothing", tmp_path)


def test_the_unseen_set_is_of_the_left_out_domain_and_its_frames_show_its_story():
    source = SymbolicSource([ALL[TRAINED_DOMAIN], ALL[LEFT_OUT_DOMAIN]], width=WIDTH)
    (story, features), *_ = stories(source, "domain", Effort(videos=1, seconds=64))
    assert story.domain.name == LEFT_OUT_DOMAIN and features.shape == (64, 1, WIDTH)
    directions = source.directions()
    activities = [story.domain.activity(w) for w in range(64)]
    shown = features[:, 0] @ torch.stack([directions[name] for name in activities]).T
    for e in range(
        len(story.event_word)
    ):  # an event's own word is among the best few at its seconds: nearly orthogonal, four tracks
        at = shown[int(story.event_start[e]) : int(story.event_end[e])].mean(0)
        assert int((at > at[int(story.event_word[e])]).sum()) < 8


@pytest.mark.parametrize("name", ["left-out-types", "left-out-composition", "left-out-domain"])
@pytest.mark.parametrize("seed", [None, 101, 102])
def test_splits_of_what_is_left_out_ask_for_nothing_else(name, seed):
    videos = plan(name, seed)
    items = [item for _, asked in videos for item in asked]
    assert {item.question.kind for item in items} <= set(SPLITS[name].kinds)
    assert SPLITS[name].domain is None or {item.domain for item in items} == {SPLITS[name].domain}
    assert len(items) >= 60
    _check_balance(items, SPLITS[name])
