"""What must be equal is equal, on this device and in every precision.

Each oracle compares two ways to compute the same thing and returns the largest difference, as a
share of the largest number compared. Half precisions run as the library runs them: fp32 weights
under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from timescope_lite.bench_gpu.models import (
    WIDTH,
    S,
    features_of,
    prompts_of,
    segments_of,
    small_model,
)
from timescope_lite.bench_gpu.record import Bench, CheckFailed
from timescope_lite.bench_gpu.timing import PRECISIONS, precisions_of
from timescope_lite.memory import DVRStore, LayerKV
from timescope_lite.model.decoder import Decoder, DecoderConfig
from timescope_lite.model.timescope import TimeScope, View, memory_mask
from timescope_lite.model.tokenizer import ANSWER, PAD

# Differences of rounding: a hundred units in the last place of fp32 after four layers; of the half
# precisions, what four layers were seen to lose, with room. What copies only is exact.
TOLERANCE = {"fp32": 1e-5, "bf16": 6e-2, "fp16": 8e-3}
EXACT = 0.0


@dataclass(frozen=True)
class Lab:
    """Where an oracle is asked."""

    device: torch.device
    precision: str

    def model(self, tokens_per_frame: int = 1, kv_heads: int = 2) -> TimeScope:
        """A small model there."""
        return small_model(self.device, tokens_per_frame, kv_heads)

    def features(self, frames: int, tokens_per_frame: int = 1) -> Tensor:
        """Random features there, (F, K, width)."""
        return features_of(frames, WIDTH, tokens_per_frame).to(self.device)

    def clock(self, second: int) -> Tensor:
        """When a video begins, (1,)."""
        return torch.tensor([second], device=self.device)


def streaming_is_parallel(lab: Lab) -> float:
    """Segment by segment with caches, and all at once; r, K and shared heads vary."""
    worst = 0.0
    for r, K, kv_heads in ((1, 1, 2), (2, 2, 2), (4, 1, 1), (8, 2, 2), (16, 1, 2)):
        model, features = lab.model(K, kv_heads), lab.features(4 * S, K)
        parallel = model.encode(features[None], lab.clock(9), r)
        memory = model.stream(segments_of(features), r, clock=9)
        worst = max(worst, _gap(memory.dvr.reload(0, 3), parallel.dense))
        worst = max(worst, _gap(memory.hvr, parallel.pooled))
    return worst


def r1_is_plain_causal_attention(lab: Lab) -> float:
    """r = 1, and softmax(q k) v written out."""
    model, features = lab.model(), lab.features(3 * S)
    encoded = model.encode(features[None], lab.clock(0), 1)
    x = model.frame_tokens(features[None], lab.clock(0))
    positions = torch.arange(3 * S, device=lab.device)
    future = ~torch.ones(3 * S, 3 * S, dtype=torch.bool, device=lab.device).tril()
    worst = 0.0
    for block, layer in zip(model.decoder.layers, encoded.dense, strict=True):
        q, k, v = block.project(x)
        q, k = block.rotate(q, positions), block.rotate(k, positions)
        worst = max(worst, _gap([LayerKV(k, v)], [layer]))
        scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)
        x = block.finish(x, scores.softmax(-1).to(v.dtype) @ v)
    return worst


def what_is_reloaded_is_what_was_offloaded(lab: Lab) -> float:
    """DVR on the host and in pinned memory, every window, beside the DVR that never left."""
    kept = lab.model().stream(segments_of(lab.features(4 * S)), 8, tier="device").dvr
    windows = [(first, last) for last in range(4) for first in range(last + 1)]
    worst = 0.0
    for tier in ("host", "pinned") if lab.device.type == "cuda" else ("host",):
        away = DVRStore(tier, lab.device)
        for i in range(4):
            away.put(kept.reload(i, i))
        worst = max(worst, *(_gap(away.reload(*w), kept.reload(*w)) for w in windows))
    return worst


def a_window_over_the_whole_video_is_all_of_its_dvr(lab: Lab) -> float:
    """The mixed memory with everything reloaded, and one fine pass over the dense memory."""
    model = lab.model()
    memory = model.stream(segments_of(lab.features(4 * S)), 8)
    mixed, dense = memory.mixed(0, 3), memory.dvr.reload(0, 3)
    prompt = prompts_of(model)[0]
    same = model.fine(mixed, memory, prompt, []) == model.fine(dense, memory, prompt, [])
    return _gap(mixed, dense) if same else 1.0


def cached_is_uncached_decoding(lab: Lab) -> float:
    """Token by token with a cache, and the whole text at once."""
    model = lab.model()
    memory = model.stream(segments_of(lab.features(3 * S)), 4)
    tokens = torch.tensor([[[*prompts_of(model)[0], ANSWER, 5, 6]]], device=lab.device)
    whole, _ = model.read(tokens, memory.hvr, memory.num_frames)
    cache, parts = None, []
    for column in tokens.split(1, dim=2):
        hidden, cache = model.read(column, memory.hvr, memory.num_frames, cache=cache)
        parts.append(hidden)
    return _gap([[torch.cat(parts, dim=2)]], [[whole]])


def padding_changes_nothing(lab: Lab) -> float:
    """A short question beside a long one, and alone."""
    model = lab.model()
    memory = model.stream(segments_of(lab.features(2 * S)), 4)
    prompts = sorted(prompts_of(model), key=len)
    short, long = prompts[0], prompts[-1]
    padded = short + [PAD] * (len(long) - len(short))
    together = torch.tensor([[padded, long]], device=lab.device)
    both, _ = model.read(together, memory.hvr, memory.num_frames)
    one = torch.tensor([[short]], device=lab.device)
    alone, _ = model.read(one, memory.hvr, memory.num_frames)
    return _gap([[both[0, 0, : len(short)]]], [[alone[0, 0]]])


def a_mask_in_training_is_a_reload_in_use(lab: Lab) -> float:
    """[HVR ; DVR] through the mask of training, and the mixed memory of use."""
    model, features = lab.model(), lab.features(4 * S)
    memory = model.stream(segments_of(features), 8)
    tokens = torch.tensor([[prompts_of(model)[0]]], device=lab.device)
    encoded = model.encode(features[None], lab.clock(0), 8)
    fine = torch.ones(1, 1, dtype=torch.bool, device=lab.device)
    window = torch.tensor([[[1, 2]]], device=lab.device)
    layers, mask = memory_mask(encoded, View("reload", fine, window), model.config)
    masked, _ = model.read(tokens, layers, 4 * S, mask)
    reloaded, _ = model.read(tokens, memory.mixed(1, 2), 4 * S)
    return _gap([[masked]], [[reloaded]])


def later_frames_change_nothing_earlier(lab: Lab) -> float:
    """Two videos that begin alike have the same memory of their beginning."""
    model, features = lab.model(), lab.features(4 * S)
    changed = torch.cat([features[: 2 * S], features[2 * S :].flip(0)])
    one = model.stream(segments_of(features), 8)
    two = model.stream(segments_of(changed), 8)
    if _gap(one.dvr.reload(2, 3), two.dvr.reload(2, 3)) < 1e-3:
        return 1.0  # the oracle must be able to see a change
    return _gap(one.dvr.reload(0, 1), two.dvr.reload(0, 1))


def the_plain_decoder_is_qwen3(lab: Lab) -> float:
    """Our decoder with copied weights and transformers' Qwen3. ImportError without transformers."""
    import transformers

    config = DecoderConfig(
        width=64, layers=3, heads=4, kv_heads=2, head_width=16, mlp_width=96, rope_base=10000.0
    ).plain()
    torch.manual_seed(1)
    theirs = transformers.Qwen3Model(
        transformers.Qwen3Config(
            vocab_size=50,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=96,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    ours = Decoder(config).eval()
    for mine, layer in zip(ours.layers, theirs.layers, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        qkv = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        mine.qkv.weight.copy_(torch.cat(qkv))
        mine.gate_up.weight.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        pairs = (
            (mine.out, attention.o_proj),
            (mine.down, mlp.down_proj),
            (mine.norm1, layer.input_layernorm),
            (mine.norm2, layer.post_attention_layernorm),
            (mine.q_norm, attention.q_norm),
            (mine.k_norm, attention.k_norm),
        )
        for own, other in pairs:
            if other.weight.dim() == 1:  # gains of the norms: all ones would hide a missing one
                other.weight.normal_(1.0, 0.2)
            own.weight.copy_(other.weight)
    x = torch.randn(2, 11, 64).to(lab.device)
    expected = theirs.to(lab.device)(inputs_embeds=x).last_hidden_state
    return _gap([[ours.to(lab.device)(x)]], [[expected]])


# Each with whether it only copies, and so must be exact.
ORACLES: dict[str, tuple[Callable[[Lab], float], bool]] = {
    "streaming_is_parallel": (streaming_is_parallel, False),
    "r1_is_plain_causal_attention": (r1_is_plain_causal_attention, False),
    "what_is_reloaded_is_what_was_offloaded": (what_is_reloaded_is_what_was_offloaded, True),
    "a_window_over_the_whole_video_is_all_of_its_dvr": (
        a_window_over_the_whole_video_is_all_of_its_dvr,
        True,
    ),
    "cached_is_uncached_decoding": (cached_is_uncached_decoding, False),
    "padding_changes_nothing": (padding_changes_nothing, False),
    "a_mask_in_training_is_a_reload_in_use": (a_mask_in_training_is_a_reload_in_use, False),
    "later_frames_change_nothing_earlier": (later_frames_change_nothing_earlier, True),
    "the_plain_decoder_is_qwen3": (the_plain_decoder_is_qwen3, False),
}


@torch.no_grad()
def error_of(name: str, device: torch.device, precision: str) -> tuple[float, float]:
    """The largest difference of an oracle, and what it must not exceed."""
    oracle, exact = ORACLES[name]
    dtype = PRECISIONS[precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        error = oracle(Lab(device, precision))
    return error, EXACT if exact else TOLERANCE[precision]


def oracles(bench: Bench) -> None:
    """All of them in every precision; CheckFailed at the end names those beyond their tolerance."""
    missed = []
    for name in ORACLES:
        for precision in PRECISIONS:
            if precision not in precisions_of(bench.device):
                bench.not_measured(f"{name} in {precision}", "this card only imitates it")
                continue
            try:
                error, tolerance = error_of(name, bench.device, precision)
            except ImportError as absent:
                bench.not_measured(f"{name} in {precision}", f"needs {absent.name}")
                continue
            bench.number(f"{name},{precision}", "largest_error", error)
            bench.number(f"{name},{precision}", "tolerance", tolerance)
            if not error <= tolerance:  # NaN is beyond any
                missed.append(f"{name} in {precision}: {error:.2g} > {tolerance:g}")
    if missed:
        raise CheckFailed("; ".join(missed))


def _gap(found: Iterable[Sequence[Tensor]], wanted: Iterable[Sequence[Tensor]]) -> float:
    """The largest difference as a share of the largest number."""
    difference = scale = 0.0
    for one, two in zip(found, wanted, strict=True):
        for x, y in zip(one, two, strict=True):
            difference = max(difference, float((x.float() - y.float()).abs().max()))
            scale = max(scale, float(y.float().abs().max()))
    return difference / scale
