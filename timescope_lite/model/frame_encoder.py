"""The frame encoder: what is in this picture? A small convolutional patch encoder, trained on
single frames and then frozen.

The paper starts from a trained SigLIP; ours is pre-trained on Tiny Town's frames (train.py) and
gives K tokens per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from timescope_lite.common import UserError


@dataclass(frozen=True)
class FrameEncoderConfig:
    """Sizes. `fields` is the number of classes of every question that pre-training asks about a
    picture (empty: no heads).
    """

    image_size: int = 64
    stem: int = 32
    middle: int = 64
    patch: int = 96
    feature_width: int = 192
    tokens_per_frame: int = 1
    fields: tuple[int, ...] = ()


class FrameEncoder(nn.Module):
    """Pictures (N, 3, 64, 64) in 0..1 -> features (N, K, feature_width), each dimension
    standardised over the training pictures.
    """

    def __init__(self, config: FrameEncoderConfig) -> None:
        super().__init__()
        self.config = config
        side = config.image_size // 16
        if config.image_size % 16:
            raise UserError(
                f"image_size={config.image_size} must be a multiple of 16, the stride of the "
                "patches"
            )
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.stem, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(config.stem, config.middle, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(config.middle, config.patch, 4, stride=4),
            nn.GELU(),
        )
        self.project = nn.Linear(
            config.patch * side * side, config.tokens_per_frame * config.feature_width
        )
        self.heads = nn.ModuleList(
            [nn.Linear(config.tokens_per_frame * config.feature_width, n) for n in config.fields]
        )
        self.register_buffer("mean", torch.zeros(config.tokens_per_frame * config.feature_width))
        self.register_buffer("std", torch.ones(config.tokens_per_frame * config.feature_width))
        self.mean: Tensor
        self.std: Tensor

    def hidden(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) -> (N, K * feature_width), before standardising: what the heads of
        pre-training read.
        """
        if images.shape[1:] != (3, self.config.image_size, self.config.image_size):
            raise UserError(
                f"pictures have shape {tuple(images.shape[1:])}; expected (3, "
                f"{self.config.image_size}, {self.config.image_size})"
            )
        return self.project(self.stem(images - 0.5).flatten(1))

    def answers(self, images: Tensor) -> list[Tensor]:
        """Pre-training: scores per field, each (N, classes)."""
        hidden = self.hidden(images)
        return [head(hidden) for head in self.heads]

    def classify(self, features: Tensor) -> list[Tensor]:
        """What the heads say of standardised features (N, K, feature_width): scores per field, each
        (N, classes).
        """
        hidden = features.flatten(1) * self.std + self.mean
        return [head(hidden) for head in self.heads]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) in 0..1 -> standardised features (N, K, feature_width)."""
        flat = (self.hidden(images) - self.mean) / self.std
        return flat.unflatten(1, (self.config.tokens_per_frame, self.config.feature_width))

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Set mean and spread of the features from many pictures; done once, at the end of
        pre-training.
        """
        hidden = self.hidden(images)
        self.mean.copy_(hidden.mean(0))
        self.std.copy_(hidden.std(0) + 1e-3)

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (F, size, size, 3), as the decoder gives them -> features (F, K,
        feature_width).
        """
        images = pixels.to(self.mean.device).permute(0, 3, 1, 2).float() / 255
        return self(images)
