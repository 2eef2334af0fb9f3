"""What a user would try instead, all behind one signature: (video, prompts, questions, budget) -> answers.

Systems marked 'same weights' share the two-stage model's; controls with their own training take another checkpoint. Peak attended KV is counted for each, the
reload included, and every system must keep to the same budget (docs/architecture.md, 'Equal memory').
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from timescope_lite.common import UserError
from timescope_lite.grounding import Answer, locate, plan_window, refine
from timescope_lite.metrics import centre_window, whole_video
from timescope_lite.model.decoder import LayerKV
from timescope_lite.model.memory import Memory
from timescope_lite.model.timescope import TimeScope
from timescope_lite.text import DIRECT
from timescope_lite.world.tasks import Question


@dataclass
class Video:
    """One video as frame features (F, K, Cf), F padded to whole segments, with its memories built on demand and kept."""

    model: TimeScope
    features: Tensor
    num_valid: int
    r: int = 16
    _memories: dict[tuple[int, int, str], Memory] = field(default_factory=dict)

    def memory(self, r: int, stride: int = 1, order: str = "true") -> Memory:
        """The video streamed at compression r; every `stride`-th frame only; frames in `true` order, `shuffled`, or `blank`."""
        key = (r, stride, order)
        if key not in self._memories:
            self._memories[key] = self.model.stream(self._segments(stride, order), r)
        return self._memories[key]

    def _segments(self, stride: int, order: str) -> list[tuple[Tensor, int]]:
        S = self.model.config.frames_per_segment
        frames = self.features[: self.num_valid : stride]
        if order == "shuffled":
            frames = frames[torch.randperm(len(frames), generator=torch.Generator().manual_seed(0))]
        if order == "blank":
            frames = torch.zeros_like(frames)
        padding = -len(frames) % S
        padded = torch.cat([frames, frames[-1:].expand(padding, -1, -1)]) if padding else frames
        return [(part, min(S, len(frames) - i * S)) for i, part in enumerate(padded.split(S))]


System = Callable[[Video, list[list[int]], Sequence[Question], float], list[Answer]]


def two_stage(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """TimeScope: coarse over HVR, reload, fine over HVR and the reloaded DVR."""
    return locate(video.model, video.memory(video.r), prompts, budget)


def two_stage_no_cot(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """The same weights, told to answer without reasoning."""
    return two_stage(video, [[*prompt[:-1], DIRECT] for prompt in prompts], questions, budget)


def oracle_window(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """The fine stage on the true window: the ceiling of everything that could be gained by a better coarse stage."""
    memory, S = video.memory(video.r), video.model.config.frames_per_segment
    answers = []
    for prompt, coarse, q in zip(prompts, video.model.coarse(memory, prompts), questions, strict=True):
        true = replace(coarse, window=(q.window_start_s // S, (q.window_end_s - 1) // S), confidence=1.0)
        answers.append(refine(video.model, memory, prompt, true, *plan_window(true, memory, budget)))
    return answers


def focus(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Two readings and no reload: the second reads only the HVR of the window. What narrowing alone brings."""
    memory = video.memory(compression_for(video, budget))
    answers = []
    for prompt, coarse in zip(prompts, video.model.coarse(memory, prompts), strict=True):
        first, last = coarse.window[0] * memory.slots, (coarse.window[1] + 1) * memory.slots
        narrowed = [LayerKV(layer.k[:, :, first:last], layer.v[:, :, first:last]) for layer in memory.hvr]
        start, end = video.model.fine(narrowed, memory, prompt, coarse.chain)
        answers.append(Answer(start, end, None, coarse.confidence, tuple(coarse.chain), memory.attended_frames(), 0))
    return answers


def single_stage(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """One reading of the least compressed HVR that the budget allows."""
    return _one_reading(video, video.memory(compression_for(video, budget)), prompts)


def dense(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """One reading of everything, uncompressed: a reference, not an upper bound (one pass over a long video suffers from dilution)."""
    return _one_reading(video, video.memory(1), prompts)


def uniform(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Every n-th frame, uncompressed, as if the video were that much shorter; the answer is scaled back."""
    stride = max(1, -(-video.num_valid // int(budget)))
    answers = _one_reading(video, video.memory(1, stride), prompts)
    return [replace(a, start_s=a.start_s * stride, end_s=min(a.end_s * stride, video.num_valid)) for a in answers]


def text_only(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Negative control: the frames are blank."""
    return locate(video.model, video.memory(video.r, order="blank"), prompts, budget)


def shuffled(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Negative control: the frames come in random order."""
    return locate(video.model, video.memory(video.r, order="shuffled"), prompts, budget)


def whole(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Trivial: the whole video."""
    span = whole_video(float(video.num_valid))
    return [Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0) for _ in prompts]


def centre(video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float) -> list[Answer]:
    """Trivial: the middle third of the video."""
    span = centre_window(float(video.num_valid))
    return [Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0) for _ in prompts]


def _one_reading(video: Video, memory: Memory, prompts: list[list[int]]) -> list[Answer]:
    answers = []
    for prompt, coarse in zip(prompts, video.model.coarse(memory, prompts), strict=True):
        start, end = video.model.fine(memory.hvr, memory, prompt, coarse.chain)
        answers.append(Answer(start, end, None, coarse.confidence, tuple(coarse.chain), memory.attended_frames(), 0))
    return answers


def compression_for(video: Video, budget: float) -> int:
    """The smallest r that keeps the whole video within `budget` frames' worth. UserError if even r = S does not."""
    S = video.model.config.frames_per_segment
    for r in (r for r in range(1, S + 1) if S % r == 0):
        if -(-video.num_valid // S) * S / r <= budget:
            return r
    raise UserError(f"a video of {video.num_valid} frames does not fit into {budget:g} frames' worth even at r={S}; raise the budget")


# `whole_video` and `centre` need no model; `dense` has no budget.
SYSTEMS: dict[str, System] = {
    "two_stage": two_stage,
    "two_stage_no_cot": two_stage_no_cot,
    "oracle_window": oracle_window,
    "focus": focus,
    "single_stage": single_stage,
    "dense": dense,
    "uniform": uniform,
    "text_only": text_only,
    "shuffled": shuffled,
    "whole_video": whole,
    "centre": centre,
}
NO_BUDGET = frozenset({"dense", "whole_video", "centre"})
