"""HVR, the holistic memory: keys and values of the whole video, downsampled in time by r.

(TimeScope section 3; average pooling as in its backbone, Video-XL-2.) Keys are averaged before
they are rotated and then get the rotary position of their group's centre, so a group keeps its
time: an average of rotated keys would smear it (notebook 05).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from timescope_lite.common import UserError


class LayerKV(NamedTuple):
    """Keys and values of one layer, each (B, H_kv, N, D)."""

    k: Tensor
    v: Tensor

    def span(self, first: int, last: int) -> LayerKV:
        """Tokens `first` up to, not including, `last`; a view."""
        return LayerKV(self.k[:, :, first:last], self.v[:, :, first:last])


def join(parts: Sequence[LayerKV]) -> LayerKV:
    """Several stretches of one layer, one after the other in time."""
    keys = torch.cat([part.k for part in parts], dim=2)
    values = torch.cat([part.v for part in parts], dim=2)
    return LayerKV(keys, values)


def downsample(x: Tensor, r: int, tokens_per_frame: int) -> Tensor:
    """Mean over groups of r frames, token slot by token slot: (B, H, F*K, D) -> (B, H, F//r*K, D).

    UserError unless r divides F.
    """
    B, H, N, D = x.shape
    K = tokens_per_frame
    F = N // K
    if F % r:
        divisors = [d for d in range(1, F + 1) if F % d == 0]
        raise UserError(f"r={r} does not divide the {F} frames of this segment; use {divisors}")
    if r == 1:
        return x
    # Time has an axis of its own before the mean, so slot j of a group is the mean of slot j.
    return x.view(B, H, F // r, r, K, D).mean(dim=3).reshape(B, H, F // r * K, D)


def group_positions(positions: Tensor, r: int, tokens_per_frame: int) -> Tensor:
    """The centre of each group of r frames: positions (N,) -> (N // r,), float, in frames."""
    return positions.float().view(-1, r, tokens_per_frame).mean(dim=1).flatten()


class HVRStore:
    """Pooled keys and values of a video that is still growing, per layer, on one device.

    Each layer lies in a buffer that doubles when it is full: appending N segments one by one then
    copies every slot about twice, where concatenating would copy the whole memory N times.
    """

    def __init__(self) -> None:
        self._buffers: list[LayerKV] = []
        self.num_slots = 0

    def put(self, layers: Sequence[LayerKV]) -> None:
        """Add the next segment's pooled layers, each (1, H_kv, slots, D)."""
        fresh = layers[0].k.shape[2]
        if not self._buffers:
            self._buffers = [_room_like(layer, fresh) for layer in layers]
        needed = self.num_slots + fresh
        if needed > self._buffers[0].k.shape[2]:
            self._buffers = [
                _copied(old, _room_like(old, 2 * needed), self.num_slots) for old in self._buffers
            ]
        for buffer, layer in zip(self._buffers, layers, strict=True):
            buffer.k[:, :, self.num_slots : needed] = layer.k.detach()
            buffer.v[:, :, self.num_slots : needed] = layer.v.detach()
        self.num_slots = needed

    def trim(self) -> None:
        """Give the spare room of the buffers back: the video has been read to its end. More may
        still be put.
        """
        if self._buffers and self._buffers[0].k.shape[2] > self.num_slots:
            self._buffers = [
                _copied(old, _room_like(old, self.num_slots), self.num_slots)
                for old in self._buffers
            ]

    @property
    def layers(self) -> list[LayerKV]:
        """What is held so far, per layer (1, H_kv, num_slots, D): views of the buffers."""
        return [buffer.span(0, self.num_slots) for buffer in self._buffers]

    @property
    def num_bytes(self) -> int:
        """Bytes of the slots that are filled."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)


def _room_like(layer: LayerKV, slots: int) -> LayerKV:
    """Empty room for `slots` tokens with the heads, width, dtype and device of `layer`."""
    B, H, _, D = layer.k.shape
    return LayerKV(layer.k.new_empty(B, H, slots, D), layer.v.new_empty(B, H, slots, D))


def _copied(old: LayerKV, new: LayerKV, num_slots: int) -> LayerKV:
    """The first `num_slots` tokens of `old` at the beginning of `new`."""
    new.k[:, :, :num_slots] = old.k[:, :, :num_slots]
    new.v[:, :, :num_slots] = old.v[:, :, :num_slots]
    return new
