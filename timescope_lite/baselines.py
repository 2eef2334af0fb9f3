"""What a user would try instead, all behind one signature: (video, prompts, questions, budget) ->
answers.

`OWN_TRAINING` names the systems that have weights of their own, trained for their way of reading
with the two-stage model's budget; the others read with the two-stage model's. Peak attended KV is
counted for each, the reload included, and every system must keep to the same budget
(docs/architecture.md, 'Equal memory').
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from timescope_lite.common import UserError
from timescope_lite.corpus import Symbols
from timescope_lite.grounding import Answer, locate, plan_window, refine
from timescope_lite.metrics import centre_window, whole_video
from timescope_lite.model.decoder import LayerKV
from timescope_lite.model.frame_encoder import FrameEncoder
from timescope_lite.model.memory import Memory
from timescope_lite.model.timescope import Coarse, TimeScope
from timescope_lite.text import DIRECT
from timescope_lite.world.domain import load_domains
from timescope_lite.world.tasks import Question


@dataclass
class Video:
    """One video as frame features (F, K, Cf), F padded to whole segments, with its memories built
    on demand and kept.
    """

    model: TimeScope
    features: Tensor
    num_valid: int
    r: int = 16
    encoder: FrameEncoder | None = None
    _memories: dict[tuple[int, int, str, bool], Memory] = field(default_factory=dict)

    def memory(self, r: int, stride: int = 1, order: str = "true", history: bool = True) -> Memory:
        """The video streamed at compression r; every `stride`-th frame only; frames in `true`
        order, `shuffled`, or `blank`; segments that read the HVR of those before them, or (no
        `history`) themselves only.
        """
        key = (r, stride, order, history)
        if key not in self._memories:
            self._memories[key] = self.model.stream(
                self._segments(stride, order), r, history=history
            )
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


WIDEN_BELOW = 0.95  # confidence of a coarse window
FINE_TUNED_R = (4, 8, 16)  # compressions that the two-stage recipes train with
System = Callable[[Video, list[list[int]], Sequence[Question], float], list[Answer]]


def two_stage(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """TimeScope: coarse over HVR, reload, fine over HVR and the reloaded DVR."""
    return locate(video.model, video.memory(video.r), prompts, budget)


def two_stage_direct(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Two stages, told to answer without reasoning."""
    return two_stage(video, [[*prompt[:-1], DIRECT] for prompt in prompts], questions, budget)


def two_stage_with(fit: bool = False, history: bool = True, **options: Any) -> System:
    """`two_stage` with one thing changed: the memory that it reads, or an option of `locate`.

    `fit`: at the least compression of FINE_TUNED_R whose HVR leaves half of the budget to the
    reload (the largest if none does); without `history` every segment was read alone.
    """

    def system(
        video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
    ) -> list[Answer]:
        r = (
            next(
                (r for r in FINE_TUNED_R if len(video.features) / r <= budget / 2), FINE_TUNED_R[-1]
            )
            if fit
            else video.r
        )
        return locate(video.model, video.memory(r, history=history), prompts, budget, **options)

    return system


def oracle_window(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """The fine stage on the true window, with the reasoning as the coarse stage wrote it: what a
    better window alone could gain.
    """
    memory, S = video.memory(video.r), video.model.config.frames_per_segment
    answers = []
    for prompt, coarse, q in zip(
        prompts, video.model.coarse(memory, prompts), questions, strict=True
    ):
        true = replace(
            coarse, window=(q.window_start_s // S, (q.window_end_s - 1) // S), confidence=1.0
        )
        answers.append(
            refine(video.model, memory, prompt, true, *plan_window(true, memory, budget))
        )
    return answers


def focus(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Two readings and no reload: the second reads only the HVR of the window. What narrowing alone
    brings.
    """
    memory = video.memory(compression_for(video, budget))
    windows = [(coarse, coarse.window) for coarse in video.model.coarse(memory, prompts)]
    return _narrowed(video, memory, prompts, windows)


def single_stage(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """One reading of the least compressed HVR that the budget allows."""
    return _one_reading(video, video.memory(compression_for(video, budget)), prompts)


def dense(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """One reading of everything, uncompressed: a reference, not an upper bound (one pass over a
    long video suffers from dilution).
    """
    return _one_reading(video, video.memory(1), prompts)


def dense_cropped(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """The dense model with all keys outside the true chapter's segments left out: how much of its
    misses is dilution.
    """
    memory, S = video.memory(1), video.model.config.frames_per_segment
    true = [(q.window_start_s // S, (q.window_end_s - 1) // S) for q in questions]
    return _narrowed(
        video, memory, prompts, list(zip(video.model.coarse(memory, prompts), true, strict=True))
    )


def uniform(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Every n-th frame, uncompressed, as if the video were that much shorter; the answer is scaled
    back.
    """
    stride = max(1, -(-video.num_valid // int(budget)))
    answers = _one_reading(video, video.memory(1, stride), prompts)
    return [
        replace(a, start_s=a.start_s * stride, end_s=min(a.end_s * stride, video.num_valid))
        for a in answers
    ]


def retrieval(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Frame similarity alone: the run of frames around the best one in which what the question
    names is seen. Misses what a question does not name.
    """
    answers = []
    for similarity in _similarities(video, prompts):
        best, threshold = int(similarity.argmax()), float(similarity.max()) - math.log(10)
        start, end = best, best + 1
        while start > 0 and similarity[start - 1] > threshold:
            start -= 1
        while end < video.num_valid and similarity[end] > threshold:
            end += 1
        answers.append(Answer(float(start), float(end), None, 0.0, (), 0.0, 0))
    return answers


def retrieve_then_fine(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """The window comes from frame similarity (the best segment and its neighbours), then the fine
    stage reads it.
    """
    memory, S = video.memory(video.r), video.model.config.frames_per_segment
    answers = []
    for prompt, coarse, similarity in zip(
        prompts, video.model.coarse(memory, prompts), _similarities(video, prompts), strict=True
    ):
        best = int(similarity.argmax()) // S
        found = replace(
            coarse,
            window=(max(best - 1, 0), min(best + 1, memory.num_segments - 1)),
            confidence=1.0,
            absent=False,
        )
        answers.append(
            refine(video.model, memory, prompt, found, *plan_window(found, memory, budget))
        )
    return answers


def _similarities(video: Video, prompts: list[list[int]]) -> list[Tensor]:
    """Per question the log-probability of every frame (num_valid,) to show all that the question
    names, after the frame encoder's own classifiers.
    """
    if video.encoder is None or len(video.encoder.heads) == 0:
        raise UserError(
            "retrieval needs the frame encoder's classifiers; use a checkpoint that was trained on "
            "pixels"
        )
    symbols = Symbols(
        [domain for domain in load_domains("all").values() if video.model.vocabulary.knows(domain)]
    )
    named = symbols.people() | {
        part: (field, [cls]) for part, (field, cls) in symbols.named().items()
    }
    scores = [
        head.log_softmax(-1) for head in video.encoder.classify(video.features[: video.num_valid])
    ]
    found = []
    for prompt in prompts:
        parts = [
            part
            for phrase in video.model.vocabulary.names(prompt)
            for part in phrase
            if part in named
        ]
        columns = [
            scores[field][:, classes].logsumexp(-1)
            for field, classes in (named[part] for part in parts)
        ]
        found.append(torch.stack(columns).sum(0) if columns else torch.zeros(video.num_valid))
    return found


def text_only(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Negative control: the frames are blank."""
    return locate(video.model, video.memory(video.r, order="blank"), prompts, budget)


def shuffled(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Negative control: the frames come in random order."""
    return locate(video.model, video.memory(video.r, order="shuffled"), prompts, budget)


def whole(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Trivial: the whole video."""
    span = whole_video(float(video.num_valid))
    return [Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0) for _ in prompts]


def centre(
    video: Video, prompts: list[list[int]], questions: Sequence[Question], budget: float
) -> list[Answer]:
    """Trivial: the middle third of the video."""
    span = centre_window(float(video.num_valid))
    return [Answer(span.start_s, span.end_s, None, 0.0, (), 0.0, 0) for _ in prompts]


def _one_reading(video: Video, memory: Memory, prompts: list[list[int]]) -> list[Answer]:
    answers = []
    for prompt, coarse in zip(prompts, video.model.coarse(memory, prompts), strict=True):
        start, end = video.model.fine(memory.hvr, memory, prompt, coarse.chain)
        answers.append(
            Answer(
                start,
                end,
                None,
                coarse.confidence,
                tuple(coarse.chain),
                memory.attended_frames(),
                0,
            )
        )
    return answers


def _narrowed(
    video: Video,
    memory: Memory,
    prompts: list[list[int]],
    windows: Sequence[tuple[Coarse, tuple[int, int]]],
) -> list[Answer]:
    """A second reading of the HVR of a window only."""
    answers = []
    for prompt, (coarse, window) in zip(prompts, windows, strict=True):
        first, last = window[0] * memory.slots, (window[1] + 1) * memory.slots
        narrowed = [
            LayerKV(layer.k[:, :, first:last], layer.v[:, :, first:last]) for layer in memory.hvr
        ]
        start, end = video.model.fine(narrowed, memory, prompt, coarse.chain)
        answers.append(
            Answer(
                start,
                end,
                None,
                coarse.confidence,
                tuple(coarse.chain),
                memory.attended_frames(),
                0,
            )
        )
    return answers


def compression_for(video: Video, budget: float) -> int:
    """The smallest r that keeps the whole video within `budget` frames' worth. UserError if even r
    = S does not.
    """
    S = video.model.config.frames_per_segment
    for r in (r for r in range(1, S + 1) if S % r == 0):
        if len(video.features) / r <= budget:
            return r
    raise UserError(
        f"a video of {video.num_valid} frames does not fit into {budget:g} frames' worth even at "
        f"r={S}; raise the budget"
    )


SYSTEMS: dict[str, System] = {
    "two_stage": two_stage,
    "two_stage_direct": two_stage_direct,
    "two_stage_no_cot": two_stage_direct,
    "no_history": two_stage_with(history=False),
    "widened": two_stage_with(threshold=WIDEN_BELOW),
    "window_alone": two_stage_with(keep_hvr=False),
    "two_stage_fit": two_stage_with(fit=True),
    "two_stage_fit_alone": two_stage_with(fit=True, keep_hvr=False),
    "oracle_window": oracle_window,
    "focus": focus,
    "focus_trained": focus,
    "single_stage": single_stage,
    "single_stage_trained": single_stage,
    "single_stage_long": single_stage,
    "dense": dense,
    "dense_cropped": dense_cropped,
    "uniform": uniform,
    "retrieve_then_fine": retrieve_then_fine,
    "retrieval": retrieval,
    "text_only": text_only,
    "shuffled": shuffled,
    "whole_video": whole,
    "centre": centre,
}
# System -> whose weights it reads with, where they are not the two-stage model's.
# `single_stage_long`: three times the budget of training.
OWN_TRAINING = {
    "two_stage_no_cot": "two_stage_no_cot",
    "focus_trained": "focus",
    "single_stage_trained": "single_stage",
    "single_stage_long": "single_stage_long",
    "dense": "dense",
    "dense_cropped": "dense",
    "uniform": "uniform",
}
SHOWN_THE_TRUTH = frozenset(
    {"oracle_window", "dense_cropped"}
)  # nothing to show where the evidence is absent
NO_BUDGET = frozenset({"dense", "dense_cropped", "retrieval", "whole_video", "centre"})
