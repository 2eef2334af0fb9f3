"""A video file as the model sees it: frames at an even rate, through the frame encoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from timescope_lite.common import UserError
from timescope_lite.model.tokenizer import NUM_SECONDS
from timescope_lite.video import probe, stream_segments

if TYPE_CHECKING:
    from timescope_lite.model.timescope import TimeScope


def check_length(video: Path, fps: float = 1.0) -> float:
    """The length of a video in seconds, from its list of frames. UserError, before anything is
    decoded, if the model's clock has no codes for it.
    """
    duration_s = probe(video).duration_s
    if duration_s * fps > NUM_SECONDS:
        raise UserError(
            f"{video} lasts {duration_s:.0f} s; the model's clock has codes for "
            f"{NUM_SECONDS / fps:.0f} s: cut it into parts, each asked by itself"
        )
    return duration_s


def feature_stream(model: TimeScope, video: Path, fps: float = 1.0) -> Iterator[tuple[Tensor, int]]:
    """Segments of a video file as frame features (S, K, Cf) with the number of real frames; reads
    the file once, in bounded memory.
    """
    if model.frame_encoder is None:
        raise UserError(
            "this checkpoint reads symbolic frames and has no frame encoder; use one that was "
            "trained on pixels"
        )
    check_length(video, fps)
    S = model.config.frames_per_segment
    size = model.frame_encoder.config.image_size
    for segment in stream_segments(video, fps=fps, frames_per_segment=S, size=size):
        pixels = torch.from_numpy(segment.pixels)
        yield model.frame_encoder.encode_pixels(pixels), segment.num_valid
