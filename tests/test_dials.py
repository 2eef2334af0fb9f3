"""The sweep over the world's dials: what each point changes, and that a point trains, scores and
leaves one result.
"""

import dataclasses

import numpy as np
import pytest
import torch

from timescope_lite.common import UserError
from timescope_lite.corpus import SymbolicSource
from timescope_lite.dials import (
    GAIN,
    POINTS,
    Dial,
    Effort,
    draw,
    fine_tuning,
    phases_from_nothing,
    turn,
)
from timescope_lite.results import read_result
from timescope_lite.world.domain import NUM_TRACKS, load_domains
from timescope_lite.world.story import tell

QUICK = Effort(words=2, dense=2, sft=2, videos=2, questions=3)
DOMAIN = list(load_domains().values())[0]


def test_a_point_differs_from_the_base_in_one_dial():
    base = dataclasses.asdict(Dial())
    for name, dial in POINTS.items():
        own = dataclasses.asdict(dial)
        story = {key for key in own["story"] if own["story"][key] != base["story"][key]}
        rest = {key for key in own if key != "story" and own[key] != base[key]}
        # Events that last longer have longer gaps too, and r cannot exceed S.
        assert (story | rest) in ({"activity_s", "gap_s"}, {"S", "r"}) or len(story | rest) == (
            name != "base"
        ), name
        assert dial.S % dial.r == 0


def test_systems_of_a_point_get_equal_steps():
    phases = fine_tuning(Effort(), Dial())
    assert {phase.steps for phase in phases.values()} == {Effort().sft}
    assert phases["single_stage"].draw_compression(512, np.random.default_rng(0)) == (4, 1)
    assert phases["two_stage"].r == (16,) and phases["dense"].r == (1,)
    assert all(
        phase.r == (16,) and phase.sees == "reload"
        for phase in phases_from_nothing(Effort(), POINTS["joint"])
    )


def test_two_tokens_a_frame_share_what_lasts_and_split_the_tracks():
    one = SymbolicSource([DOMAIN], noise=0.0)
    two = SymbolicSource([DOMAIN], noise=0.0, tokens_per_frame=2)
    story = tell(DOMAIN, 64, 0)
    whole, split = (source.features(story, np.random.default_rng(0)) for source in (one, two))
    assert whole.shape[1] == 1 and split.shape[1] == 2
    lasting = sum(one.symbols.sizes[:-NUM_TRACKS])
    assert torch.equal(split[:, 0, :lasting], whole[:, 0, :lasting]) and torch.equal(
        split[:, 1, :lasting], whole[:, 0, :lasting]
    )
    assert torch.equal(split[:, :, lasting:].sum(1), whole[:, 0, lasting:])
    assert (split[:, :, lasting:].sum(-1) == 2).all(), "each token shows two of the four tracks"


def test_a_point_trains_scores_and_leaves_one_result(tmp_path):
    result = read_result(turn("S=8", tmp_path, QUICK))
    assert result.config["dial"]["S"] == 8 and result.config["effort"]["sft"] == 2
    assert {
        "two_stage@128/all/r1@0.5",
        "oracle_window@128/all/r1@0.5",
        "single_stage@128/all/r1@0.5",
    } <= set(result.metrics)
    assert result.metrics["two_stage@128/all/coverage"].n == 6 and not any(
        key.startswith("dense") for key in result.metrics
    )
    assert result.metrics[GAIN].n == 6 and draw(tmp_path).is_file()
    made = (tmp_path / "backbone.safetensors").stat().st_mtime_ns
    again = read_result(turn("S=8", tmp_path, QUICK))
    assert (tmp_path / "backbone.safetensors").stat().st_mtime_ns == made, (
        "the backbone is made once"
    )
    drop = ("seconds",)
    same = {key: metric for key, metric in result.metrics.items() if not key.endswith(drop)}
    assert same == {key: metric for key, metric in again.metrics.items() if not key.endswith(drop)}


def test_what_cannot_be_turned_or_drawn_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="holds no point of the sweep; run `timescope-lite bench dials"
    ):
        draw(tmp_path)
    with pytest.raises(UserError, match="unknown point 'moon': expected one of base, "):
        turn("moon", tmp_path)
