"""The references behind the exercises of notebook 11: right by hand, equal to the library, and kind
to a right answer whatever it draws.
"""

import numpy as np
import pytest
import torch

from timescope_lite import corpus
from timescope_lite.classroom.checks import chains
from timescope_lite.classroom.checks.core import EXERCISES, CheckFailed, run_case
from timescope_lite.datasets.prompts import Writer, vocabulary_of
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import SO, THINK
from timescope_lite.world.domain import load_domains
from timescope_lite.world.story import tell
from timescope_lite.world.tasks import ask


def test_outcomes_after_a_right_beginning_worked_by_hand():
    told = [[True, True, False], [False, True, True], [True], [True, False, True]]
    videos = ["a", "a", "b", "b"]
    assert chains.outcomes_one_by_one(told, videos, 0) == (
        [1.0, 0.0, 1.0, 1.0],
        ["a", "a", "b", "b"],
    )
    assert chains.outcomes_one_by_one(told, videos, 1) == ([1.0, 0.0], ["a", "b"])
    assert chains.outcomes_one_by_one(told, videos, 2) == ([0.0], ["a"])
    assert chains.outcomes_one_by_one(told, videos, 3) == ([], [])


def test_conditional_shares_multiply_to_the_share_of_right_chains():
    rng = np.random.default_rng(0)
    told = (rng.random((200, 4)) < 0.8).tolist()
    shares = [np.mean(chains.outcomes_one_by_one(told, ["v"] * 200, n)[0]) for n in range(4)]
    assert np.prod(shares) == pytest.approx(np.mean([all(chain) for chain in told]))


@pytest.fixture(scope="module")
def reader():
    """A model that has learned nothing, its memory of 64 random frames, and what it is asked."""
    domains = list(load_domains().values())[:1]
    vocabulary = vocabulary_of(domains)
    torch.manual_seed(0)
    model = TimeScope(ModelConfig(feature_width=8), vocabulary).eval()
    S = model.config.frames_per_segment
    memory = model.stream([(torch.randn(S, 1, 8), S) for _ in range(4)], r=16)
    story = tell(domains[0], 64, 0)
    question = next(
        q
        for q in (ask(story, kind, np.random.default_rng(0)) for kind in ("sign1", "explicit"))
        if q is not None
    )
    return model, memory, Writer(vocabulary, domains).question(story, question)


def test_a_forced_chain_of_the_model_itself_changes_nothing(reader):
    model, memory, question = reader
    prompt = [*question, THINK]
    own = model.coarse(memory, [prompt])[0]
    expected = model.fine(memory.mixed(*own.window), memory, prompt, own.chain)

    def coarse(tokens):
        return model.coarse(memory, [tokens])[0].window

    def fine(tokens, window):
        return model.fine(memory.mixed(*window), memory, tokens[:-1], tokens[-1:])

    if own.chain[-1] == SO:  # one that was cut at its longest has no end to force
        assert chains.read_as_written(coarse, fine, question, own.chain[:-1]) == expected
    forced = [*prompt, *own.chain]
    assert coarse(forced) == own.window and fine(forced, own.window) == expected


def test_the_librarys_teacher_passes_the_check(monkeypatch, capsys):
    """`corpus.hallucinate` with a writer whose only chain is the one of the case."""

    class OneChain:
        def __init__(self, chain, alike):
            empty = np.array([0])
            groups = [np.array(group) for group in alike] + [empty] * 3
            fields = {
                "place": groups[0],
                "activity": groups[1],
                "person": groups[2],
                "effect": np.concatenate([[0], empty]),
            }
            self.tokens = {"here": type("Tokens", (), fields)()}
            self.ordinals = [0]
            self._chain = chain

        def chain(self, story, question):
            return list(self._chain)

    story = type("Story", (), {"domain": type("Domain", (), {"name": "here"})()})()
    EXERCISES["hallucinate_chain"](
        lambda chain, share, alike, rng: corpus.hallucinate(
            OneChain(chain, alike), story, None, share, rng
        )  # type: ignore[arg-type]
    )
    assert "all agree" in capsys.readouterr().out


def test_the_check_of_the_teacher_is_kind_to_a_right_one_whatever_it_draws():
    for case in chains._teacher_cases():
        expected = run_case(chains.wrong_hop_by_hop, case).value
        for seed in range(20):
            got = chains.wrong_hop_by_hop(*case.args[:3], np.random.default_rng(seed))
            assert chains.same_teacher(expected, got), (case.label, seed)


def test_errors_that_are_too_regular_are_refused():
    def every_other(chain, share, alike, rng):
        """Right share, right groups, but wrong in blocks."""
        told = chains.wrong_hop_by_hop(chain, 1.0, alike, rng)
        cut = round(share * (len(chain) - 1))
        return [*told[:cut], *chain[cut:]]

    with pytest.raises(CheckFailed, match="hallucinate_chain"):
        EXERCISES["hallucinate_chain"](every_other)


@pytest.mark.parametrize("name", ["hop_outcomes", "intervene", "hallucinate_chain"])
def test_a_forgotten_return_is_named(name):
    with pytest.raises(CheckFailed, match="returned None"):
        EXERCISES[name](lambda *given: None)
