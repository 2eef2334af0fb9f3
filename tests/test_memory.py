"""The memory by itself, with numbers that no model made: growth, budgets, what is saved."""

import json
import shutil
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file

from timescope_lite.common import BudgetError, UserError
from timescope_lite.memory import (
    DVRStore,
    HVRStore,
    LayerKV,
    Memory,
    MemoryConfig,
    downsample,
    least_r,
    max_reload_segments,
    peak_frames,
)
from timescope_lite.memory.budget import check_compression, compressions, fit_window

S, HEADS, WIDTH, LAYERS = 8, 2, 4, 3


@dataclass
class Someone:
    """Whose memory it is: all that a saved memory asks of a model."""

    name: str = "someone"

    @property
    def device(self):
        return torch.device("cpu")

    def fingerprint(self):
        return self.name


def layers_of(tokens, seed=0):
    made = torch.Generator().manual_seed(seed)
    shape = (1, HEADS, tokens, WIDTH)
    pairs = [
        (torch.randn(shape, generator=made), torch.randn(shape, generator=made))
        for _ in range(LAYERS)
    ]
    return [LayerKV(k, v) for k, v in pairs]


def pooled_of(layers, r, tokens_per_frame=1):
    return [
        LayerKV(downsample(kv.k, r, tokens_per_frame), downsample(kv.v, r, tokens_per_frame))
        for kv in layers
    ]


def memory_of(segments=5, r=4, last=S, **config):
    memory = Memory(MemoryConfig(S, r, **config), model_id="someone", clock=3)
    for i in range(segments):
        dense = layers_of(S, seed=i)
        memory.append(dense, pooled_of(dense, r), last if i == segments - 1 else None)
    return memory


def equal(one, two):
    return all(
        torch.equal(a.k, b.k) and torch.equal(a.v, b.v) for a, b in zip(one, two, strict=True)
    )


# --- growing --------------------------------------------------------------------------------------


def test_the_hvr_is_what_concatenation_would_give_and_copies_each_slot_about_twice(monkeypatch):
    store, parts = HVRStore(), []
    copied = 0

    def counted(old, new, num_slots):
        nonlocal copied
        copied += num_slots
        new.k[:, :, :num_slots] = old.k[:, :, :num_slots]
        new.v[:, :, :num_slots] = old.v[:, :, :num_slots]
        return new

    monkeypatch.setattr("timescope_lite.memory.hvr._copied", counted)
    for i in range(100):
        parts.append(layers_of(2, seed=i))
        store.put(parts[-1])
    for number, layer in enumerate(store.layers):
        assert torch.equal(layer.k, torch.cat([part[number].k for part in parts], dim=2))
        assert torch.equal(layer.v, torch.cat([part[number].v for part in parts], dim=2))
    assert store.num_slots == 200 and copied <= 2 * LAYERS * store.num_slots
    assert store.num_bytes == 2 * LAYERS * HEADS * WIDTH * 200 * 4


def test_an_empty_memory_says_so():
    memory = Memory(MemoryConfig(S, 2))
    assert memory.hvr == [] and memory.num_segments == memory.num_frames == 0
    assert memory.attended_frames() == 0
    with pytest.raises(UserError, match="empty memory cannot be saved"):
        memory.save("nowhere")
    with pytest.raises(UserError, match="not inside the video's 0..-1"):
        memory.mixed(0, 0)


def test_a_segment_of_another_length_is_refused_and_nothing_is_added():
    memory = memory_of(2)
    dense = layers_of(S + 1)
    with pytest.raises(UserError, match=r"9 dense and 2 pooled tokens: this memory takes 8 and 2"):
        memory.append(dense, layers_of(2))
    with pytest.raises(UserError, match="8 dense and 4 pooled"):
        memory.append(layers_of(S), layers_of(4))
    assert memory.num_segments == 2 and memory.holistic.num_slots == 4 and memory.num_valid == 16


def test_mixed_and_narrowed_memories_are_made_of_the_right_segments():
    memory = memory_of(5, r=4)
    dense = [layers_of(S, seed=i) for i in range(5)]
    pooled = [pooled_of(layers, 4) for layers in dense]
    order = [pooled[0], pooled[3], pooled[4], dense[1], dense[2]]
    expected = [torch.cat([part[1].k for part in order], dim=2)]
    assert torch.equal(memory.mixed(1, 2)[1].k, expected[0])
    alone = memory.mixed(1, 2, keep_hvr=False)
    assert torch.equal(alone[2].v, torch.cat([dense[1][2].v, dense[2][2].v], dim=2))
    assert torch.equal(memory.narrowed(1, 2)[0].k, memory.hvr[0].k[:, :, 2:6])


@pytest.mark.parametrize("tier", ["device", "host"])
def test_what_is_kept_is_a_copy(tier):
    store, layers = DVRStore(tier, torch.device("cpu")), layers_of(S)
    before = layers[0].k.clone()
    store.put(layers)
    layers[0].k.zero_()
    assert torch.equal(store.reload(0, 0)[0].k, before) and len(store) == 1
    assert store.num_bytes == 2 * LAYERS * HEADS * WIDTH * S * 4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"r": 3}, r"r=3 does not divide S=8; choose r from \[1, 2, 4, 8\]"),
        ({"r": 0}, "r=0 does not divide"),
        ({"tier": "tape"}, "unknown DVR tier 'tape'"),
        ({"frames_per_segment": 0}, "frames_per_segment is 0"),
        ({"budget_frames": 0.0}, "a budget of 0 frames"),
        ({"fps": 0.0}, "fps is 0"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(values, says):
    with pytest.raises(UserError, match=says):
        MemoryConfig(**{"frames_per_segment": 8, "r": 8} | values)


# --- budgets --------------------------------------------------------------------------------------


def test_the_peak_by_hand():
    # 80 frames at r = 8, segments of 16: 10 frames' worth; a reloaded segment adds 16 - 2.
    assert peak_frames(80, 8, 16) == 10
    assert peak_frames(80, 8, 16, 2) == 38
    assert peak_frames(80, 8, 16, 1, keep_hvr=False) == 16
    # An hour at r = 16 is 225 before any reload: two segments alone do not lower that peak.
    assert peak_frames(3600, 16, 16, 2, keep_hvr=False) == 225
    assert peak_frames(3600, 16, 16, 20, keep_hvr=False) == 320


@pytest.mark.parametrize("keep_hvr", [True, False])
@pytest.mark.parametrize("r", [1, 2, 4, 8, 16])
def test_the_widest_window_is_the_widest_whose_peak_fits(r, keep_hvr):
    total = 20
    for budget in range(16, 400, 7):
        fitting = [n for n in range(1, total + 1) if peak_frames(320, r, 16, n, keep_hvr) <= budget]
        if fitting:
            assert max_reload_segments(320, r, 16, budget, keep_hvr) == max(fitting)
        else:
            with pytest.raises(BudgetError, match="has no room to reload one segment"):
                max_reload_segments(320, r, 16, budget, keep_hvr)
    assert max_reload_segments(320, r, 16, None, keep_hvr) == total


def test_the_least_compression_is_chosen_whatever_the_order_of_the_choices():
    assert [least_r(256, budget, (16, 4, 8)) for budget in (64, 63, 32, 16)] == [4, 8, 8, 16]
    with pytest.raises(BudgetError, match="does not fit into 15 frames' worth even at r=16"):
        least_r(256, 15, (4, 8, 16))


def test_a_window_stays_inside_the_video_and_its_room():
    assert fit_window((3, 4), 10, 10) == (3, 4)
    assert fit_window((0, 0), 10, 10, margin=2) == (0, 2)
    assert fit_window((9, 9), 10, 2, margin=3) == (8, 9)
    assert fit_window((2, 8), 10, 3) == (4, 6)
    for first in range(10):
        for last in range(first, 10):
            for room in range(1, 11):
                a, b = fit_window((first, last), 10, room, margin=1)
                assert 0 <= a <= b <= 9 and b - a + 1 <= room


def test_a_budget_of_the_configuration_holds_where_none_is_given():
    memory = memory_of(5, r=4, budget_frames=10 + 2 * 6)
    assert memory.room(None) == 2 and memory.room(40.0) == 5
    assert compressions(12) == [1, 2, 3, 4, 6, 12]
    with pytest.raises(UserError, match="r=5 does not divide S=12"):
        check_compression(5, 12)


@pytest.mark.parametrize("tier", ["device", "host"])
def test_the_counters_count_bytes(tier):
    memory = memory_of(5, r=4, tier=tier)
    frame = 2 * LAYERS * HEADS * WIDTH * 4
    counted = memory.counters((1, 2))
    assert memory.bytes_per_frame() == frame
    assert counted["attended_kv_bytes"] == (10 + 2 * 6) * frame
    dense = 5 * S if tier == "device" else 2 * S
    assert counted["device_kv_bytes"] == (10 + dense) * frame
    assert counted["rss_bytes"] > 1e6
    assert memory.counters((1, 2), keep_hvr=False)["attended_kv_bytes"] == 16 * frame
    assert memory.counters()["device_kv_bytes"] == (10 + (5 * S if tier == "device" else S)) * frame


# --- on disk --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    memory_of(3, r=4, last=5, budget_frames=64.0).save(tmp_path / "memory")
    return tmp_path / "memory"


def test_what_is_read_back_is_what_was_saved(folder):
    before, after = memory_of(3, r=4, last=5, budget_frames=64.0), Memory.load(folder, Someone())
    assert after.config == before.config and after.clock == 3 and after.num_valid == 21
    assert equal(after.hvr, before.hvr) and equal(after.mixed(1, 2), before.mixed(1, 2))
    assert after.model_id == "someone" and after.counters((0, 1)).keys() == before.counters().keys()
    assert after.save(folder).read_text() == (folder / "memory.json").read_text()


def test_a_memory_goes_on_growing_after_it_was_read(folder):
    memory = Memory.load(folder, Someone())
    dense = layers_of(S, seed=9)
    memory.append(dense, pooled_of(dense, 4))
    assert memory.num_segments == 4 and torch.equal(memory.mixed(3, 3, False)[0].k, dense[0].k)


def change(folder, **values):
    manifest = json.loads((folder / "memory.json").read_text())
    (folder / "memory.json").write_text(json.dumps(manifest | values))


def rewrite(folder, name="dvr", **tensors):
    path = folder / f"{name}.safetensors"
    save_file(load_file(path) | tensors, path)


MANIPULATED = {
    "another model": (lambda f: change(f, model="x"), "was written by another model"),
    "no manifest": (lambda f: (f / "memory.json").unlink(), "is half-written"),
    "nothing": (lambda f: shutil.rmtree(f), "holds no saved memory"),
    "no dvr": (lambda f: (f / "dvr.safetensors").unlink(), "dvr.safetensors is missing"),
    "later format": (lambda f: change(f, format=2), "format 2, this version reads 1"),
    "no object": (lambda f: (f / "memory.json").write_text("[]"), "this version reads 1"),
    "no JSON": (lambda f: (f / "memory.json").write_text("{"), "is not valid JSON"),
    "unknown key": (lambda f: change(f, extra=1), "unknown key 'extra'"),
    "text for a size": (lambda f: change(f, segments="3"), "segments is '3'"),
    "negative": (lambda f: change(f, layers=-1), "layers is -1"),
    "clock": (lambda f: change(f, clock=1.5), "clock is 1.5"),
    "frames": (lambda f: change(f, frames=99), "99 frames do not fill 3 segments of 8"),
    "config": (lambda f: change(f, config={"r": 3}), "r=3 does not divide"),
    "config is a list": (lambda f: change(f, config=[4]), "config must be an object"),
    "config of texts": (lambda f: change(f, config={"fps": "1"}), "config does not fit"),
    "video is a text": (lambda f: change(f, video="a.mp4"), "video must be null"),
    "no length": (
        lambda f: change(f, video={"name": "a", "fingerprint": "b", "duration_s": "long"}),
        "video must be null",
    ),
    "hashes": (lambda f: change(f, sha256={"hvr": "0"}), "sha256 must name"),
    "more layers": (lambda f: change(f, layers=10**6), "does not hold 1000000 layers"),
    "wider heads": (lambda f: change(f, head_width=5), "as its manifest says"),
    "another dtype": (lambda f: change(f, dtype="float16"), "the manifest says float16"),
    "a changed tensor": (
        lambda f: rewrite(f, **{"layer0.k": torch.zeros(1, HEADS, 24, WIDTH)}),
        "was changed after it was written",
    ),
    "another tensor": (lambda f: rewrite(f, more=torch.zeros(1)), "does not hold 3 layers"),
    "half a file": (
        lambda f: (f / "hvr.safetensors").write_bytes((f / "hvr.safetensors").read_bytes()[:99]),
        "is damaged",
    ),
}


@pytest.mark.parametrize("case", MANIPULATED, ids=lambda name: name.replace(" ", "_"))
def test_a_memory_that_is_not_what_it_says_is_refused_in_one_line(folder, case):
    spoil, says = MANIPULATED[case]
    spoil(folder)
    with pytest.raises(UserError, match=says) as caught:
        Memory.load(folder, Someone())
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_refused_even_with_the_right_hash(folder):
    from timescope_lite.common import sha256_of

    rewrite(folder, **{"layer1.v": torch.full((1, HEADS, 24, WIDTH), float("nan"))})
    hashes = json.loads((folder / "memory.json").read_text())["sha256"]
    change(folder, sha256=hashes | {"dvr": sha256_of(folder / "dvr.safetensors")})
    with pytest.raises(UserError, match=r"layer1.v holds numbers that are not finite"):
        Memory.load(folder, Someone())


def test_another_r_and_another_video_are_refused_where_they_are_asked_for(folder, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a" * 300_000)
    (tmp_path / "b.mp4").write_bytes(b"a" * 299_999 + b"b")
    from timescope_lite.memory.saved import describe_video

    change(folder, video=describe_video(tmp_path / "a.mp4"))
    assert Memory.load(folder, Someone(), r=4, video=tmp_path / "a.mp4").video["name"] == "a.mp4"
    with pytest.raises(UserError, match="has r=4, not r=8"):
        Memory.load(folder, Someone(), r=8)
    with pytest.raises(UserError, match=r"is of another video \(a.mp4\)"):
        Memory.load(folder, Someone(), video=tmp_path / "b.mp4")
    with pytest.raises(UserError, match="cannot read .*none.mp4"):
        Memory.load(folder, Someone(), video=tmp_path / "none.mp4")


def test_a_write_that_fails_leaves_no_manifest_beside_other_files(folder, monkeypatch):
    def no_room(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", no_room)
    with pytest.raises(UserError, match="No space left on device"):
        memory_of(2).save(folder)
    with pytest.raises(UserError, match="is half-written"):
        Memory.load(folder, Someone())
