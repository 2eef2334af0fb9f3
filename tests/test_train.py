"""Training: the losses, the curriculum, and a run that survives being killed."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from timescope_lite import bench
from timescope_lite.common import UserError
from timescope_lite.corpus import CachedSource, Mix, Pile, PixelSource, SymbolicSource
from timescope_lite.datasets.prompts import TIME_LOSS, Writer, vocabulary_of
from timescope_lite.model.checkpoint import from_manifest, load, same_encoder, save, write_manifest
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope, View, memory_mask
from timescope_lite.model.tokenizer import ABSENT, NUM_SECONDS
from timescope_lite.results import read_result
from timescope_lite.train import (
    CURRICULUM,
    RIVALS,
    TASKS,
    TRAINED_SYSTEMS,
    FramePhase,
    Phase,
    Trainer,
    decoder_of,
    loss_of,
    recipe,
    rivals,
    train,
)
from timescope_lite.world.domain import load_domains

DOMAINS = list(load_domains().values())[:1]
PHASE = Phase("test", 8, ((1.0, (64,)),), TASKS, r=(8,), sees="reload", warmup_steps=2)


def make(seed=0, phase=PHASE):
    torch.manual_seed(seed)
    vocabulary, source = vocabulary_of(DOMAINS), SymbolicSource(DOMAINS)
    model = TimeScope(ModelConfig(feature_width=source.width), vocabulary)
    return Trainer(model, Pile(DOMAINS, source, Writer(vocabulary, DOMAINS), 0), phase)


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def test_a_resumed_run_has_the_same_losses(tmp_path):
    whole, first = make(), make()
    whole.run(6)
    first.run(3)
    first.save_state(tmp_path / "state.safetensors", 0)
    second = make(seed=5)
    second.load_state(tmp_path / "state.safetensors")
    second.run(6)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_a_loss_that_is_not_finite_stops_and_keeps_the_weights(monkeypatch):
    trainer = make()
    trainer.run(2)
    before = weights(trainer)
    monkeypatch.setattr(
        "timescope_lite.train.loss_of", lambda *a: (torch.tensor(float("nan")), torch.zeros(0))
    )
    with pytest.raises(UserError, match="the loss is nan at step 2 of phase 'test'"):
        trainer.run(4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())


def test_the_loss_falls():
    trainer = make(
        phase=dataclasses.replace(
            PHASE, steps=30, lengths=((1.0, (32,)),), kinds={"place": 1.0}, think=0.0
        )
    )
    batch = trainer.pile.batch(999, 32, 8, 8, Mix({"place": 1.0}, think=0.0))
    before = float(loss_of(trainer.model, batch, 8, "reload")[0].detach())
    trainer.run(30)
    assert float(loss_of(trainer.model, batch, 8, "reload")[0].detach()) < 0.75 * before


def test_a_coarse_question_sees_only_hvr_and_a_fine_one_its_window():
    trainer = make()
    batch = trainer.pile.batch(0, 128, 2, 6, Mix(TASKS))
    encoded = trainer.model.encode(batch.features, batch.clock, 8)
    layers, mask = memory_mask(
        encoded, View("reload", batch.fine, batch.window), trainer.model.config
    )
    slots = 128 // 8
    assert layers[0].k.shape[2] == mask.shape[-1] == slots + 128
    for b in range(2):
        for q in range(6):
            first, last = batch.window[b, q].tolist()
            if not batch.fine[b, q]:
                assert mask[b, q, :slots].all() and not mask[b, q, slots:].any()
            else:
                reloaded = torch.arange(128) // 16
                assert torch.equal(mask[b, q, slots:], (reloaded >= first) & (reloaded <= last))
                assert mask[b, q, :slots].sum() == slots - 2 * (last - first + 1)


def test_the_curriculum_grows():
    phase = Phase("x", 100, CURRICULUM, TASKS)
    rng = np.random.default_rng(0)
    drawn = [phase.draw_length(step, rng) for step in range(100)]
    assert (
        set(drawn[:20]) == {32, 64}
        and set(drawn[76:]) <= {32, 64, 128, 256, 512}
        and max(drawn[76:]) > 128
    )
    assert phase.rate(0) < phase.rate(10) < 1.0 == phase.rate(40)
    assert phase.rate(99) < 0.1


def test_a_recipe_runs_is_killed_and_goes_on(tmp_path, monkeypatch):
    plan = recipe("smoke")
    short = tuple(
        dataclasses.replace(p, steps=4, lengths=((1.0, (64,)),)) for p in plan.phases[-3:]
    )
    frames = FramePhase(stories=3, frames_per_story=16, steps=3, batch=16)
    plan = dataclasses.replace(plan, phases=short, frames=frames, pool_frames=256)
    real = Trainer.one_step
    count = iter(range(1000))

    def dies(self):
        if next(count) == 6:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Trainer, "one_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(plan, tmp_path / "run", every_minutes=0)
    monkeypatch.setattr(Trainer, "one_step", real)
    with pytest.raises(UserError, match="holds a training already; add --resume"):
        train(plan, tmp_path / "run")
    with pytest.raises(UserError, match="cannot resume .*: 'seed' differs"):
        train(plan, tmp_path / "run", seed=3, resume=True)
    path = train(plan, tmp_path / "run", resume=True)
    whole = train(plan, tmp_path / "elsewhere" / "whole")
    one, two = load(path).state_dict(), load(whole).state_dict()
    assert list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)
    rows = [
        json.loads(line)
        for line in (tmp_path / "elsewhere" / "whole" / "log.jsonl").read_text().splitlines()
    ]
    assert [row["phase"] for row in rows if "left_min" in row] == [
        phase.name for phase in plan.phases
    ]


def test_what_two_systems_have_in_common_is_trained_once(tmp_path, monkeypatch):
    def short(system):
        plan = recipe("smoke", system)
        phases = tuple(
            dataclasses.replace(p, steps=2, lengths=((1.0, (64,)),)) for p in plan.phases
        )
        return dataclasses.replace(
            plan,
            phases=phases,
            frames=FramePhase(stories=3, frames_per_story=16, steps=3, batch=16),
            pool_frames=256,
        )

    taken = []
    real = Trainer.one_step
    monkeypatch.setattr(
        Trainer, "one_step", lambda self: (taken.append(self.phase.name), real(self))[1]
    )
    first = load(train(short("two_stage"), tmp_path / "two_stage"))
    assert taken == [p.name for p in short("two_stage").phases for _ in range(2)]
    taken.clear()
    second = load(train(short("single_stage"), tmp_path / "single_stage"))
    assert taken == ["sft1", "sft1", "sft2", "sft2", "sft3", "sft3"], (
        "all phases up to dense are shared"
    )
    assert same_encoder(first, second) and second.about["system"] == "single_stage"
    assert not torch.equal(first.words, second.words)
    taken.clear()
    assert (
        load(train(short("single_stage"), tmp_path / "single_stage", resume=True)).about
        == second.about
        and not taken
    )


@pytest.mark.parametrize("system", TRAINED_SYSTEMS)
def test_every_system_gets_the_same_number_of_steps_after_the_backbone(system):
    plan, ours = recipe("lab", system), recipe("lab")
    times = 3 if system == "single_stage_long" else 1
    after = lambda plan: sum(p.steps for p in plan.phases if p.name.startswith("sft"))  # noqa: E731
    assert after(plan) == times * after(ours)
    shared = sum(plan.key(n, 0) == ours.key(n, 0) for n in range(len(plan.phases)))
    assert shared == {"two_stage": 6, "two_stage_no_cot": 1}.get(system, 3)
    assert plan.key(-1, 0) == ours.key(-1, 0) != plan.key(-1, 1)
    if system == "two_stage_no_cot":
        assert all(p.think == 0 for p in plan.phases)
    assert ours.phases[0].think == 0, "what it shares has not seen a chain either"


def test_how_a_phase_compresses():
    rng = np.random.default_rng(0)
    at = lambda phase: [phase.draw_compression(s, rng) for s in (64, 128, 256, 512, 1024, 3600)]  # noqa: E731
    assert at(dataclasses.replace(PHASE, budget=128)) == [
        (1, 1),
        (1, 1),
        (2, 1),
        (4, 1),
        (8, 1),
        (16, 1),
    ]
    assert at(dataclasses.replace(PHASE, budget=128, sampled=True)) == [
        (1, 1),
        (1, 1),
        (1, 2),
        (1, 4),
        (1, 8),
        (1, 29),
    ]
    assert at(PHASE) == [(8, 1)] * 6


def test_a_time_competes_with_its_rivals_and_absent():
    trainer = make()
    batch = trainer.pile.batch(0, 64, 2, 6, Mix(TASKS, absent=0.3))
    cost = loss_of(trainer.model, batch, 8, "reload")[1]
    assert ((cost > 0) == (batch.loss > 0)).all(), (
        "every supervised token has a cost, and nothing else"
    )
    assert (batch.tokens == ABSENT).any()
    with torch.no_grad():
        trainer.model.times.outward.weight.mul_(0)  # all seconds alike, <absent> too
        trainer.model.words[ABSENT] = 0
    flat = loss_of(trainer.model, batch, 8, "reload")[1]
    assert torch.allclose(flat[batch.loss == TIME_LOSS], torch.tensor(math.log(1.0 + RIVALS)))


def test_rivals_lie_around_the_video_and_on_the_clock():
    assert rivals(4000, 64) == (4000 - (RIVALS - 64) // 2, RIVALS)
    assert rivals(5, 64) == (0, RIVALS) and rivals(NUM_SECONDS - 64, 64) == (
        NUM_SECONDS - RIVALS,
        RIVALS,
    )
    assert rivals(100, 3600) == (100, 3600), "a long video has rivals enough of its own"


def test_unknown_names_are_refused():
    with pytest.raises(
        UserError, match="unknown profile 'huge': expected one of smoke, lab, long, town, full"
    ):
        recipe("huge")
    with pytest.raises(
        UserError, match="no recipe for the system 'magic': expected one of two_stage, "
    ):
        recipe("lab", "magic")


def test_one_dial_for_the_size():
    tiny, base = decoder_of(4), decoder_of(8)
    assert (
        tiny == DecoderConfig()
        and base.width == 2 * tiny.width
        and base.layers == 2 * base.heads == 8
    )
    assert recipe("full").decoder == base and recipe("lab", depth=6).decoder == decoder_of(6)


def test_long_is_lab_with_a_longer_end():
    lab, long = recipe("lab"), recipe("long")
    assert [long.key(n, 0) == lab.key(n, 0) for n in range(len(lab.phases))] == [True] * 5 + [
        False
    ], "what they share is trained once"
    assert [p.steps for p in long.phases] == [p.steps for p in lab.phases[:-1]] + [
        2 * lab.phases[-1].steps
    ]


@pytest.mark.parametrize("system", TRAINED_SYSTEMS)
def test_the_whole_town_practises_details_before_fine_tuning_and_every_length_at_its_end(system):
    town, core = recipe("town", system), recipe("lab", system)
    at = [p.name for p in town.phases].index("details")
    assert [p.name for p in town.phases if p.name != "details"] == [
        *[p.name for p in core.phases],
        "sft4",
    ]
    assert town.phases[at + 1].name == "sft1"
    for phase in town.phases:
        for seconds in {seconds for _, lengths in phase.lengths for seconds in lengths}:
            stride = phase.draw_compression(seconds, np.random.default_rng(0))[1]
            assert -(-seconds // stride) % 16 == 0, (
                f"{phase.name}: {seconds} s are read in whole segments"
            )
    assert set(town.phases[at].kinds) <= set(town.phases[at - 1].kinds), (
        "nothing is asked there that is not asked elsewhere"
    )
    if system != "two_stage_no_cot":
        assert town.key(at, 0) == recipe("town").key(at, 0), "it is trained once for all"


# --- checkpoints ---


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoderConfig(fields=(3, 4)))
    config = ModelConfig(feature_width=encoder.config.feature_width)
    model = TimeScope(config, vocabulary_of(DOMAINS), encoder, {"seed": 0})
    return save(tmp_path / "tiny.safetensors", model), model


def test_a_checkpoint_comes_back_whole(saved):
    path, model = saved
    back = load(path)
    assert back.config == model.config and back.vocabulary == model.vocabulary
    assert back.about["seed"] == 0
    written, read = model.state_dict(), back.state_dict()
    assert list(written) == list(read)
    assert all(torch.equal(written[name].half().float(), read[name]) for name in written)


def test_bad_checkpoints_are_named(saved, tmp_path):
    path, *_ = saved
    whole = path.read_bytes()
    cases = {
        "missing": None,
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"not a checkpoint at all",
    }
    for name, content in cases.items():
        bad = tmp_path / f"{name}.safetensors"
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(
            UserError,
            match=(
                f"checkpoint .*{name}.safetensors (does not exist|is damaged or not a safetensors "
                "file)"
            ),
        ):
            load(bad)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not a checkpoint of this library"):
        load(tmp_path / "other.safetensors")


def test_a_changed_file_does_not_pass_its_manifest(saved):
    path, *_ = saved
    write_manifest(path.parent, {"two_stage": {"file": path.name, "result": ""}})
    assert from_manifest(path.parent, "two_stage").about["seed"] == 0
    with pytest.raises(UserError, match="has no checkpoint of 'dense'; it has two_stage"):
        from_manifest(path.parent, "dense")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is not the one its manifest lists"):
        from_manifest(path.parent, "two_stage")


def test_a_full_disk_leaves_the_previous_checkpoint(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def no_room(tensors, name, metadata):
        name.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", no_room)
    with pytest.raises(
        UserError,
        match=(
            r"cannot write .*tiny.safetensors \(No space left on device\); what stood there is "
            r"kept"
        ),
    ):
        save(path, model)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_an_encoder_can_be_trained_together_with_the_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr("timescope_lite.train.FRAMES_PER_STEP", 64)
    monkeypatch.setattr(
        bench, "CachedSource", lambda source, seed: CachedSource(source, seed, frames=256)
    )
    result = read_result(bench.joint(tmp_path, steps=4, videos=1))
    assert {key.split("/")[0] for key in result.metrics} == {"frozen", "joint", "joint_from_random"}
    assert all(result.metrics[f"{name}/all/s_per_step"].value > 0 for name in ("frozen", "joint"))
    with pytest.raises(UserError, match="steps=3: expected 4 or more"):
        bench.joint(tmp_path, steps=3)


def test_the_loss_reaches_the_encoder_through_a_joint_pile():
    ready = TimeScope.from_pretrained("tiny", torch.device("cpu"))
    domains = list(load_domains().values())
    encoder = ready.frame_encoder.requires_grad_(True)
    pile = bench._JointPile(
        domains, bench._Pictures(encoder, domains), Writer(ready.vocabulary, domains), 0
    )
    batch = pile.batch(0, 32, 2, 4, Mix({"place": 1.0}))
    plain = Pile(
        domains, PixelSource(encoder, domains), Writer(ready.vocabulary, domains), 0
    ).batch(0, 32, 2, 4, Mix({"place": 1.0}))
    assert torch.allclose(batch.features, plain.features, atol=1e-4) and torch.equal(
        batch.tokens, plain.tokens
    )
    loss_of(ready, batch, 1, "all")[0].backward()
    assert encoder.stem[0].weight.grad.abs().sum() > 0
