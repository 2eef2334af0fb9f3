"""The models that are measured: random weights, sizes by depth, the whole town's words."""

from __future__ import annotations

from functools import lru_cache

import torch

from timescope_lite.datasets.prompts import vocabulary_of
from timescope_lite.model.decoder import DecoderConfig
from timescope_lite.model.frame_encoder import FrameEncoder, FrameEncoderConfig
from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import DIRECT, THINK, Vocabulary
from timescope_lite.train import FEATURE_GAIN, decoder_of
from timescope_lite.world.domain import load_domains

S = 16  # frames per segment of every model here
WIDTH = 20  # of the features of the small model


@lru_cache
def core_vocabulary() -> Vocabulary:
    """The words of the core town."""
    return vocabulary_of(load_domains().values())


def small_model(device: torch.device, tokens_per_frame: int = 1, kv_heads: int = 2) -> TimeScope:
    """What the oracles are shown on: depth 4, random weights that are the same on every device."""
    torch.manual_seed(0)
    config = ModelConfig(
        DecoderConfig(kv_heads=kv_heads), feature_width=WIDTH, tokens_per_frame=tokens_per_frame
    )
    return TimeScope(config, core_vocabulary()).eval().to(device)


def sized_model(depth: int, device: torch.device) -> TimeScope:
    """A model of the recipe's sizes at this depth, with a frame encoder; random weights."""
    torch.manual_seed(0)
    encoder = FrameEncoder(FrameEncoderConfig()).eval().requires_grad_(False)
    vocabulary = vocabulary_of(load_domains("all").values())
    width = encoder.config.feature_width
    config = ModelConfig(decoder_of(depth), width, feature_gain=FEATURE_GAIN, can_say_absent=True)
    return TimeScope(config, vocabulary, encoder).to(device)


def features_of(frames: int, width: int = WIDTH, tokens_per_frame: int = 1) -> torch.Tensor:
    """Random features (F, K, width), the same on every device: drawn on the CPU."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(frames, tokens_per_frame, width, generator=generator)


def segments_of(features: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Features as a stream of whole segments."""
    return [(part, S) for part in features.split(S)]


def prompts_of(model: TimeScope) -> list[list[int]]:
    """The sample tasks of the vocabulary, with reasoning and without."""
    encode = model.vocabulary.encode
    tasks = model.vocabulary.samples()
    return [[*encode(task), mode] for task in tasks for mode in (THINK, DIRECT)]
