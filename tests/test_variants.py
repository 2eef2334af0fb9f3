"""The study of training sets: what a variant leaves out is never drawn, nothing else differs, and a result holds what its rows say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from timescope_lite.common import UserError
from timescope_lite.corpus import (
    LEFT_OUT_COMPOSITION,
    LEFT_OUT_DOMAIN,
    LEFT_OUT_TYPES,
    SPLITS,
    PixelSource,
    Symbols,
    _check_balance,
    draw_question,
    plan,
)
from timescope_lite.model.checkpoint import Checkpoint
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.results import read_result
from timescope_lite.text import Vocabulary
from timescope_lite.train import TOWN_TASKS
from timescope_lite.variants import CLIPS, SETS, TRAINED_DOMAINS, VARIANTS, Effort, Variant, phase_of, stories, study, summarise
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import StoryConfig, tell
from timescope_lite.world.tasks import PHRASINGS, ask

ALL = load_domains("all")


@pytest.fixture(scope="module")
def start():
    """A model and a frame encoder that have learned nothing."""
    encoder = FrameEncoder(FrameEncoderConfig(fields=Symbols(list(ALL.values())).sizes)).eval().requires_grad_(False)
    model = TimeScope(
        ModelConfig(DecoderConfig(32, 2, 2, 2, 64), encoder.config.feature_width, can_say_absent=True), Vocabulary.of(ALL.values())
    )
    return Checkpoint(model, encoder, {})


def test_a_variant_differs_in_what_it_says_and_in_nothing_else():
    base = phase_of(VARIANTS["base"], Effort(steps=30))
    for name, variant in VARIANTS.items():
        phase = phase_of(variant, Effort(steps=30))
        same = [f for f in ("steps", "lengths", "coarse", "muon_lr", "adam_lr", "sees", "r") if getattr(phase, f) != getattr(base, f)]
        assert not same and phase.hallucinated == variant.hallucinated and phase.think == variant.think, name


@pytest.mark.parametrize(("name", "left_out"), [("no_types", LEFT_OUT_TYPES), ("no_composition", LEFT_OUT_COMPOSITION)])
def test_what_is_left_out_is_never_drawn_in_training(name, left_out):
    kinds, rng = VARIANTS[name].kinds(), np.random.default_rng(0)
    story = tell(ALL[TRAINED_DOMAINS[0]], 256, 1, StoryConfig(oddities=True))
    drawn = {draw_question(story, kinds, rng, phrasing="trained").kind for _ in range(400)}
    assert not drawn & set(left_out) and set(left_out) <= set(TOWN_TASKS) and len(drawn) > 15


def test_descriptions_and_tasks_share_no_question():
    assert not set(VARIANTS["explicit_only"].kinds()) & set(VARIANTS["tasks_only"].kinds())
    with pytest.raises(UserError, match="leaves no question"):
        Variant("nothing", only=("nonsense",)).kinds()


def test_the_left_out_domain_is_another_one_and_phrasings_share_no_paraphrase():
    assert LEFT_OUT_DOMAIN in ALL and LEFT_OUT_DOMAIN not in TRAINED_DOMAINS
    assert len({ALL[name].family for name in TRAINED_DOMAINS}) == 6
    held_out, trained = (set(range(6)[PHRASINGS[name]]) for name in ("held_out", "trained"))
    assert not held_out & trained


def test_clips_have_the_lengths_of_charades_sta():
    """Videos of 30.6 s and moments of 8.1 s on average (Gao et al. 2017); ours within a second."""
    lengths = []
    for i in range(300):
        story = tell(ALL[TRAINED_DOMAINS[i % 6]], SETS["clips"].seconds, (5, i), CLIPS)
        question = ask(story, "activity", np.random.default_rng(i), "trained")
        lengths += [question.end_s - question.start_s] if question else []
    assert len(lengths) > 120 and abs(np.mean(lengths) - 8.1) < 1


def test_a_study_writes_what_its_rows_say(start, tmp_path, monkeypatch):
    monkeypatch.setattr("timescope_lite.variants.POOL_FRAMES", 512)
    effort = Effort(steps=2, videos=2, seconds=64)
    result = read_result(study("captions", tmp_path, start, effort))
    rows = [json.loads(line) for line in (tmp_path / "captions" / "rows.jsonl").read_text().splitlines()]
    assert {row["set"] for row in rows} == set(SETS) and {row["way"] for row in rows} == {"reasons", "direct"}
    told = [row for row in rows if row["set"] == "seen" and row["way"] == "reasons"]
    assert result.metrics["reasons/seen:all/r1@0.5"].value == pytest.approx(np.mean([row["tiou"] >= 0.5 for row in told]))
    assert "captions/seen:all/f1" in result.metrics and summarise(rows).items() <= result.metrics.items()
    before = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
    study("no_words", tmp_path, start, effort)
    assert all((tensor == before[name]).all() for name, tensor in start.model.state_dict().items()), "the start stays as it was"
    with pytest.raises(UserError, match="has no frame encoder"):
        study("base", tmp_path, Checkpoint(start.model, None, {}))
    with pytest.raises(UserError, match="unknown variant 'nothing'"):
        study("nothing", tmp_path, start)


def test_the_unseen_set_is_of_the_left_out_domain(start):
    told = stories(PixelSource(start.encoder, list(ALL.values())), "domain", Effort(videos=2, seconds=64))
    assert {story.domain.name for story, _ in told} == {LEFT_OUT_DOMAIN}


@pytest.mark.parametrize("name", ["left-out-types", "left-out-composition", "left-out-domain"])
@pytest.mark.parametrize("seed", [None, 101, 102])
def test_splits_of_what_is_left_out_ask_for_nothing_else(name, seed):
    videos = plan(name, seed)
    items = [item for _, asked in videos for item in asked]
    assert {item.question.kind for item in items} <= set(SPLITS[name].kinds)
    assert SPLITS[name].domain is None or {item.domain for item in items} == {SPLITS[name].domain}
    assert len(items) >= 60
    _check_balance(items, SPLITS[name])
