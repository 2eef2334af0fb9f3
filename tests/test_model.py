"""The oracles of the mechanism, on random weights: what must be equal is equal."""

from dataclasses import replace

import pytest
import torch

from timescope_lite.bench_gpu.oracles import error_of
from timescope_lite.common import UserError
from timescope_lite.datasets.prompts import vocabulary_of
from timescope_lite.memory import DVRStore, LayerKV, downsample, group_positions
from timescope_lite.model import decoder
from timescope_lite.model.attention import attend_segments
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope, View
from timescope_lite.model.tokenizer import ANSWER, DIRECT, PAD, THINK
from timescope_lite.world.domain import load_domains

S, WIDTH = 16, 20


@pytest.fixture(scope="module")
def vocabulary():
    return vocabulary_of(load_domains().values())


def make_model(vocabulary, tokens_per_frame=1, **decoder):
    torch.manual_seed(0)
    config = ModelConfig(
        DecoderConfig(**decoder), feature_width=WIDTH, tokens_per_frame=tokens_per_frame
    )
    return TimeScope(config, vocabulary).eval()


def segments_of(features):
    return [(part, S) for part in features.split(S)]


def largest_difference(a, b):
    return max(
        float((x - y).abs().max())
        for one, two in zip(a, b, strict=True)
        for x, y in zip(one, two, strict=True)
    )


def prompts_of(vocabulary):
    return [
        [*vocabulary.encode(task), mode]
        for task in vocabulary.samples()
        for mode in (THINK, DIRECT)
    ]


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("tokens_per_frame", [1, 2])
@pytest.mark.parametrize("r", [1, 2, 4, 8, 16])
def test_streaming_equals_parallel(vocabulary, r, tokens_per_frame, history):
    model = make_model(vocabulary, tokens_per_frame)
    features = torch.randn(1, 4 * S, tokens_per_frame, WIDTH)
    with torch.no_grad():
        parallel = model.encode(features, torch.tensor([9]), r, history=history)
    memory = model.stream(segments_of(features[0]), r, clock=9, history=history)
    assert largest_difference(memory.dvr.reload(0, 3), parallel.dense) <= 1e-5
    assert largest_difference(memory.hvr, parallel.pooled) <= 1e-5


def test_grouped_query_attention_streams_too(vocabulary):
    model = make_model(vocabulary, heads=4, kv_heads=2)
    features = torch.randn(1, 3 * S, 1, WIDTH)
    with torch.no_grad():
        parallel = model.encode(features, torch.tensor([0]), 4)
    memory = model.stream(segments_of(features[0]), 4)
    assert memory.hvr[0].k.shape == (1, 2, 3 * S // 4, 64)
    assert largest_difference(memory.dvr.reload(0, 2), parallel.dense) <= 1e-5


def test_r1_is_plain_causal_attention(vocabulary):
    model = make_model(vocabulary)
    features = torch.randn(1, 3 * S, 1, WIDTH)
    with torch.no_grad():
        encoded = model.encode(features, torch.tensor([0]), 1)
        x, positions = model.frame_tokens(features, torch.tensor([0])), torch.arange(3 * S)
        for block, layer in zip(model.decoder.blocks, encoded.dense, strict=True):
            q, k, v = block.project(x)
            q, k = block.rotate(q, positions), block.rotate(k, positions)
            assert torch.allclose(k, layer.k, atol=1e-5)
            scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(
                ~torch.ones(3 * S, 3 * S).tril().bool(), -torch.inf
            )
            x = block.finish(x, scores.softmax(-1) @ v)


def test_r1_also_by_the_general_path(vocabulary, monkeypatch):
    """The short cut for r = 1 gives what the mask over [HVR of the past ; own segment] gives."""
    model = make_model(vocabulary)
    features = torch.randn(1, 3 * S, 1, WIDTH)
    with torch.no_grad():
        short = model.encode(features, torch.tensor([0]), 1)
        monkeypatch.setattr(
            decoder, "attend", lambda q, kv, causal: attend_segments(q, kv, kv, segments=3)
        )
        general = model.encode(features, torch.tensor([0]), 1)
    assert largest_difference(short.dense, general.dense) <= 1e-5


def test_the_decoder_is_qwen3_in_plain_causal_mode():
    pytest.importorskip("transformers", reason="the parity oracle needs transformers")
    error, tolerance = error_of("the_plain_decoder_is_qwen3", torch.device("cpu"), "fp32")
    assert error <= tolerance


@pytest.mark.parametrize("tier", ["device", "host"])
def test_what_is_reloaded_is_what_was_offloaded(vocabulary, tier, monkeypatch):
    model = make_model(vocabulary)
    seen = []
    put = DVRStore.put
    monkeypatch.setattr(
        DVRStore,
        "put",
        lambda self, layers: (
            seen.append([LayerKV(k.clone(), v.clone()) for k, v in layers]),
            put(self, layers),
        )[1],
    )
    memory = model.stream(segments_of(torch.randn(4 * S, 1, WIDTH)), 8, tier=tier)
    for first, last in ((0, 0), (1, 2), (0, 3)):
        for layer_idx, layer in enumerate(memory.dvr.reload(first, last)):
            for part in (0, 1):
                assert torch.equal(
                    layer[part],
                    torch.cat(
                        [segment[layer_idx][part] for segment in seen[first : last + 1]], dim=2
                    ),
                )


def test_a_window_over_the_whole_video_is_one_fine_pass_over_all_dvr(vocabulary):
    model = make_model(vocabulary)
    memory = model.stream(segments_of(torch.randn(4 * S, 1, WIDTH)), 8)
    mixed, dense = memory.mixed(0, 3), memory.dvr.reload(0, 3)
    assert all(
        torch.equal(a, b)
        for one, two in zip(mixed, dense, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    prompt = prompts_of(vocabulary)[0]
    assert model.fine(mixed, memory, prompt, []) == model.fine(dense, memory, prompt, [])


def test_the_mixed_memory_holds_hvr_outside_and_dvr_inside_the_window(vocabulary):
    model = make_model(vocabulary)
    memory = model.stream(segments_of(torch.randn(5 * S, 1, WIDTH)), 8)
    mixed, slots = memory.mixed(1, 2), memory.slots
    for layer, held, fresh in zip(mixed, memory.hvr, memory.dvr.reload(1, 2), strict=True):
        assert torch.equal(
            layer.k, torch.cat([held.k[:, :, :slots], held.k[:, :, 3 * slots :], fresh.k], dim=2)
        )
    assert mixed[0].k.shape[2] == memory.attended_frames((1, 2)) == 3 * S / 8 + 2 * S
    assert (
        memory.mixed(1, 2, keep_hvr=False)[0].k.shape[2]
        == memory.attended_frames((1, 2), keep_hvr=False)
        == 2 * S
    )


def test_cached_decoding_equals_uncached(vocabulary):
    model = make_model(vocabulary)
    memory = model.stream(segments_of(torch.randn(3 * S, 1, WIDTH)), 4)
    tokens = torch.tensor([[*prompts_of(vocabulary)[0], ANSWER, 5, 6]])[None]
    with torch.no_grad():
        whole, _ = model.read(tokens, memory.hvr, memory.num_frames)
        cache, parts = None, []
        for column in tokens.split(1, dim=2):
            hidden, cache = model.read(column, memory.hvr, memory.num_frames, cache=cache)
            parts.append(hidden)
    assert torch.allclose(whole, torch.cat(parts, dim=2), atol=1e-5)


def test_padding_changes_nothing(vocabulary):
    model = make_model(vocabulary)
    memory = model.stream(segments_of(torch.randn(2 * S, 1, WIDTH)), 4)
    short, long = prompts_of(vocabulary)[-1], prompts_of(vocabulary)[0]
    together = torch.tensor([[short + [PAD] * (len(long) - len(short)), long]])
    with torch.no_grad():
        both, _ = model.read(together, memory.hvr, memory.num_frames)
        alone, _ = model.read(torch.tensor([[short]]), memory.hvr, memory.num_frames)
    assert torch.allclose(both[0, 0, : len(short)], alone[0, 0], atol=1e-5)


def test_asking_together_is_asking_one_by_one(vocabulary):
    model = make_model(vocabulary)
    memory = model.stream(segments_of(torch.randn(4 * S, 1, WIDTH)), 8, clock=3)
    prompts = prompts_of(vocabulary)
    together = model.coarse(memory, prompts)
    for prompt, coarse in zip(prompts, together, strict=True):
        (alone,) = model.coarse(memory, [prompt])
        assert (alone.chain, alone.window) == (coarse.chain, coarse.window)
        assert alone.confidence == pytest.approx(coarse.confidence, abs=1e-5)
        assert 0 <= coarse.window[0] <= coarse.window[1] < 4


def test_a_mask_in_training_is_a_reload_in_use(vocabulary):
    """Reading [HVR ; DVR] through a mask gives what reading the mixed memory gives."""
    model = make_model(vocabulary)
    features = torch.randn(1, 4 * S, 1, WIDTH)
    memory = model.stream(segments_of(features[0]), 8)
    tokens = torch.tensor([[prompts_of(vocabulary)[0]]])
    with torch.no_grad():
        encoded = model.encode(features, torch.tensor([0]), 8)
        slots, frames = torch.arange(4 * 2) // 2, torch.arange(4 * S) // S
        mask = torch.cat([(slots < 1) | (slots > 2), (frames >= 1) & (frames <= 2)])[None, None]
        masked, _ = model.read(tokens, encoded.both(), 4 * S, mask)
        reloaded, _ = model.read(tokens, memory.mixed(1, 2), 4 * S)
    assert torch.allclose(masked, reloaded, atol=1e-5)


def test_later_frames_do_not_change_earlier_memory(vocabulary):
    model = make_model(vocabulary)
    features = torch.randn(4 * S, 1, WIDTH)
    changed = torch.cat([features[: 2 * S], torch.randn(2 * S, 1, WIDTH)])
    one, two = (model.stream(segments_of(f), 8) for f in (features, changed))
    assert largest_difference(one.dvr.reload(0, 1), two.dvr.reload(0, 1)) == 0
    assert largest_difference(one.dvr.reload(2, 3), two.dvr.reload(2, 3)) > 0.1


def test_downsample_is_a_mean_over_time_slot_by_slot():
    x = torch.arange(8.0).view(1, 1, 8, 1)  # 4 frames of 2 tokens: (0, 1), (2, 3), (4, 5), (6, 7)
    assert downsample(x, 2, tokens_per_frame=2).flatten().tolist() == [1.0, 2.0, 5.0, 6.0]
    assert group_positions(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), 2, 2).tolist() == [
        0.5,
        0.5,
        2.5,
        2.5,
    ]


@pytest.mark.parametrize("r", [0, 3, 5, 32])
def test_r_must_divide_the_segment(vocabulary, r):
    model = make_model(vocabulary)
    with pytest.raises(UserError, match=f"r={r} does not divide"):
        model.encode(torch.randn(1, S, 1, WIDTH), torch.tensor([0]), r)
    with pytest.raises(UserError, match=f"r={r} does not divide"):
        model.stream(segments_of(torch.randn(S, 1, WIDTH)), r)


def test_a_window_outside_the_video_is_refused(vocabulary):
    memory = make_model(vocabulary).stream(segments_of(torch.randn(2 * S, 1, WIDTH)), 8)
    for window in ((0, 2), (-1, 0), (1, 0)):
        with pytest.raises(UserError, match="is not inside the video's 0..1"):
            memory.mixed(*window)


def test_half_segments_are_refused(vocabulary):
    with pytest.raises(UserError, match="not a whole number of segments"):
        make_model(vocabulary).encode(torch.randn(1, S + 1, 1, WIDTH), torch.tensor([0]), 8)


def test_counters_are_named_and_add_up(vocabulary):
    memory = make_model(vocabulary).stream(segments_of(torch.randn(4 * S, 1, WIDTH)), 8)
    per_frame = 2 * 4 * 4 * 32 * 4  # keys and values, layers, heads, head width, fp32
    assert memory.bytes_per_frame() == per_frame
    counters = memory.counters((1, 2))
    assert counters["attended_kv_bytes"] == (2 * S / 8 + 2 * S) * per_frame
    assert counters["device_kv_bytes"] == (4 * S / 8 + 2 * S) * per_frame
    assert memory.dvr.num_bytes == 4 * S * per_frame
    assert counters["rss_bytes"] > 50e6


def test_plain_configuration_has_no_additions():
    config = DecoderConfig().plain()
    assert (config.rope_fraction, config.text_bias, config.memory_bias, config.query_gain) == (
        1.0,
        0.0,
        0.0,
        1.0,
    )
    assert (
        replace(config, rope_fraction=0.25, text_bias=4.0, memory_bias=-30.0, query_gain=3.0)
        == DecoderConfig()
    )


def test_unrotating_is_the_inverse_of_rotating(vocabulary):
    decoder_ = make_model(vocabulary).decoder
    keys, positions = torch.randn(1, 2, 50, 64), torch.arange(50) * 3.5
    there = decoder_.rotate(keys, positions)
    assert not torch.allclose(there, keys, atol=1e-2)
    assert torch.allclose(decoder_.unrotate(there, positions), keys, atol=1e-5)


def test_a_pass_of_training_is_encode_and_read(vocabulary):
    """`forward` with a view is what a mask over both memories gives; without one, over the HVR."""
    model = make_model(vocabulary)
    features, clock = torch.randn(2, 4 * S, 1, WIDTH), torch.tensor([3, 900])
    tokens = torch.tensor([[prompts_of(vocabulary)[0]], [prompts_of(vocabulary)[0]]])
    fine, window = torch.tensor([[True], [False]]), torch.tensor([[[1, 2]], [[0, 0]]])
    with torch.no_grad():
        encoded = model.encode(features, clock, 4)
        plain = model.read(tokens, encoded.pooled, 4 * S)[0]
        assert torch.equal(model(features, clock, tokens, 4), plain)
        seen = model(features, clock, tokens, 4, View("reload", fine, window))
        assert torch.allclose(seen[1], plain[1], atol=1e-5)  # a coarse question sees all HVR
        assert not torch.allclose(seen[0], plain[0], atol=1e-3)
        focused = model(features, clock, tokens, 4, View("focus", fine, window))
        alone = [LayerKV(kv.k[:, :, 4:12], kv.v[:, :, 4:12]) for kv in encoded.pooled]
        assert torch.allclose(focused[0], model.read(tokens, alone, 4 * S)[0][0], atol=1e-5)
        with pytest.raises(UserError, match="unknown way to see the memory 'half'"):
            model(features, clock, tokens, 4, View("half", fine, window))


def test_words_start_where_the_features_put_what_they_name(vocabulary):
    model = make_model(vocabulary)
    names = list(vocabulary.words[7:27])
    directions = dict(zip(names, torch.eye(WIDTH), strict=True))
    model.align(directions)
    seen = torch.stack([model.features_in.weight @ directions[name] for name in names])
    rows = [vocabulary.words.index(name) for name in names]
    alike = torch.nn.functional.cosine_similarity(seen[:, None], model.words[rows][None], dim=-1)
    assert (alike.argmax(1) == torch.arange(len(names))).all() and alike.diag().min() > 0.999
