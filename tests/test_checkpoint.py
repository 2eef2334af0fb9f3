"""Models by name, folder and file; what is saved is what is read; nothing strange is built."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from timescope_lite.common import UserError
from timescope_lite.datasets.prompts import vocabulary_of
from timescope_lite.memory import MemoryConfig
from timescope_lite.model import TimeScope, Vocabulary
from timescope_lite.model.checkpoint import PACKAGED, from_manifest, load, save, write_manifest
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig
from timescope_lite.world.domain import load_domains

DOMAINS = list(load_domains().values())[:1]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = FrameEncoderConfig(feature_width=16, stem=4, middle=4, patch=4, fields=(3, 4))
    config = ModelConfig(DecoderConfig(width=32, layers=2, mlp_width=48), feature_width=16)
    vocabulary = vocabulary_of(DOMAINS)
    return TimeScope(config, vocabulary, FrameEncoder(sizes), {"seed": 7}).eval()


def same(one, two):
    mine, other = one.state_dict(), two.state_dict()
    return list(mine) == list(other) and all(torch.equal(mine[n], other[n]) for n in mine)


def answers_of(model, vocabulary):
    torch.manual_seed(1)
    memory = model.stream([(torch.randn(16, 1, 16), 16) for _ in range(4)], r=4)
    prompts = [model.prompt(task) for task in vocabulary.samples()]
    return model.coarse(memory, prompts)


def test_a_folder_holds_all_that_a_model_is(model, tmp_path):
    back = TimeScope.from_pretrained(model.save_pretrained(tmp_path / "mine"))
    assert same(model, back) and back.config == model.config
    assert back.vocabulary == model.vocabulary and back.about["seed"] == 7
    assert back.fingerprint() == model.fingerprint()
    assert answers_of(back, back.vocabulary) == answers_of(model, model.vocabulary)
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and model.vocabulary.samples()[0] in card
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_a_model_without_a_frame_encoder_is_saved_too(model, tmp_path):
    bare = TimeScope(model.config, model.vocabulary)
    back = TimeScope.from_pretrained(bare.save_pretrained(tmp_path))
    assert back.frame_encoder is None and same(bare, back)


def test_the_packaged_model_and_its_file_are_one(tmp_path):
    tiny, file = TimeScope.from_pretrained("tiny"), load(PACKAGED["tiny"])
    assert tiny.fingerprint() == file.cpu().fingerprint() and tiny.frame_encoder is not None
    assert not tiny.training and tiny.vocabulary.samples()[2] == "Why is there a flood?"


def test_a_file_of_the_first_format_reads_as_it_did(model, tmp_path):
    """Format 1 had the phrases alone; how words are inflected comes from the package."""
    path = save(tmp_path / "new.safetensors", model)
    tensors, phrases = load_file(path), list(model.vocabulary.phrases)
    header = {
        "format": "timescope-lite/1",
        "model": json.dumps(model.config.as_dict()),
        "phrases": json.dumps(phrases),
        "about": json.dumps({"seed": 7}),
    }
    save_file(tensors, tmp_path / "old.safetensors", metadata=header)
    old, new = load(tmp_path / "old.safetensors"), load(path)
    assert old.vocabulary.phrases == new.vocabulary.phrases and old.frame_encoder is None
    for task in new.vocabulary.samples():
        assert old.vocabulary.encode(task) == new.vocabulary.encode(task)
    assert same(old, TimeScope.from_pretrained(tmp_path / "old.safetensors"))


def test_a_folder_with_a_manifest_gives_its_two_stage_model(model, tmp_path):
    save(tmp_path / "a.safetensors", model)
    write_manifest(tmp_path, {"two_stage": {"file": "a.safetensors", "result": ""}})
    assert TimeScope.from_pretrained(tmp_path).about["seed"] == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("huge", r"there is no model 'huge': expected a packaged name \(tiny\)"),
        ("./nowhere/at/all", "there is no model"),
        ("none.safetensors", "checkpoint none.safetensors does not exist"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name, says):
    with pytest.raises(UserError, match=says) as caught:
        TimeScope.from_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no model: config.json"):
        TimeScope.from_pretrained(tmp_path)


def test_a_name_of_the_hub_without_a_network_is_one_line(monkeypatch):
    pytest.importorskip("huggingface_hub", reason="the Hub needs huggingface_hub")

    def offline(name, **_):
        raise OSError(f"We could not connect\nto fetch {name}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        UserError, match="'somebody/model' .* could not be had from the Hub"
    ) as said:
        TimeScope.from_pretrained("somebody/model")
    assert "\n" not in str(said.value) and "We could not connect" in str(said.value)


def test_a_name_of_the_hub_gives_the_folder_that_was_fetched(model, monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub", reason="the Hub needs huggingface_hub")
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(tmp_path))
    assert same(TimeScope.from_pretrained("somebody/model"), model)


def test_without_huggingface_hub_the_way_to_get_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        TimeScope.from_pretrained("somebody/model")


# --- files from strangers -------------------------------------------------------------------------


def write(model, path, change_model=None, **tensors):
    """A checkpoint whose header or tensors were changed."""
    save(path, model)
    configuration = model.config.as_dict()
    configuration["decoder"] = configuration["decoder"] | (change_model or {})
    header = {
        "format": "timescope-lite/2",
        "model": json.dumps(configuration),
        "vocabulary": json.dumps(model.vocabulary.as_dict()),
        "about": "{}",
    }
    kept = {name: t for name, t in load_file(path).items() if name not in tensors}
    save_file(kept | {n: t for n, t in tensors.items() if t is not None}, path, metadata=header)
    return path


@pytest.mark.parametrize(
    ("change_model", "tensors", "says"),
    [
        ({"layers": 100_000}, {}, "claims 100000 layers and holds 2"),
        ({"width": 64}, {}, r"model.words is \(\d+, 32\), its configuration says \(\d+, 64\)"),
        ({"mlp_width": 10**9}, {}, "model.decoder.blocks.0.gate_up.weight is"),
        ({"colour": 1}, {}, "unknown key 'colour'"),
        ({}, {"model.words": None}, "model.words is missing"),
        ({}, {"model.logit_scale": torch.tensor(float("nan"))}, "model.logit_scale holds numbers"),
        ({}, {"model.times.inward.weight": torch.full((32, 128), torch.inf)}, "are not finite"),
        ({}, {"model.times.inward.weight": torch.zeros(2)}, "does not fit its own configuration"),
    ],
)
def test_a_header_is_held_against_the_tensors_before_anything_is_built(
    model, tmp_path, change_model, tensors, says
):
    path = write(model, tmp_path / "strange.safetensors", change_model, **tensors)
    with pytest.raises(UserError, match=says) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"format": "timescope-lite/2", "model": "{"}, "model of its header is no JSON"),
        ({"format": "timescope-lite/2"}, "does not say what model it is of"),
        ({"format": "timescope-lite/3"}, "not a checkpoint of this library"),
    ],
)
def test_a_header_that_says_too_little_is_refused(tmp_path, header, says):
    save_file({"model.words": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=header)
    with pytest.raises(UserError, match=says):
        load(tmp_path / "a.safetensors")


def test_an_incomplete_vocabulary_is_refused():
    with pytest.raises(UserError, match="here: the vocabulary is incomplete"):
        Vocabulary.from_dict({"phrases": []}, "here")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"file": "../outside/x.safetensors", "sha256": ""}, "must lie in that folder itself"),
        ({"file": "/etc/x.safetensors", "sha256": ""}, "must lie in that folder itself"),
        ({"file": "a.safetensors"}, "needs the keys file and sha256"),
        ("a.safetensors", "needs the keys file and sha256"),
    ],
)
def test_a_manifest_stays_inside_its_folder(tmp_path, entry, says):
    (tmp_path / "manifest.json").write_text(json.dumps({"two_stage": entry}))
    with pytest.raises(UserError, match=says):
        from_manifest(tmp_path, "two_stage")


# --- what the model says to a memory --------------------------------------------------------------


def test_a_task_that_is_a_text_alone_is_refused_and_no_task_gives_no_answer(model):
    memory = model.stream([(torch.randn(16, 1, 16), 16)], r=4)
    with pytest.raises(UserError, match=r"expected a list of tasks, \[task\]"):
        model.ground(memory, "Why is there a flood?")
    assert model.ground(memory, []) == []


def test_a_memory_of_other_segments_is_refused(model):
    with pytest.raises(UserError, match="frames_per_segment=8: this model reads segments of 16"):
        model.empty_memory(MemoryConfig(8, 8))


def test_seconds_follow_the_frame_rate(model):
    torch.manual_seed(1)
    features = [(torch.randn(16, 1, 16), 16) for _ in range(3)]
    found = []
    for fps in (1.0, 2.0):
        memory = model.empty_memory(MemoryConfig(16, 8, fps=fps))
        for segment, num_valid in features:
            model.append(memory, segment, num_valid)
        found.append(model.ground(memory, model.vocabulary.samples())[0])
    one, two = found
    assert two.duration_s == one.duration_s / 2 == 24
    assert two.interval.start_s == one.interval.start_s / 2
    assert two.window.end_s == one.window.end_s / 2
