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

import torch
from torch import Tensor

from timescope_lite.common import BudgetError, UserError
from timescope_lite.corpus import Symbols
from timescope_lite.datasets.prompts import knows
from timescope_lite.memory import LayerKV, Memory, least_r
from timescope_lite.memory.budget import DEFAULT_R, compressions
from timescope_lite.metrics import centre_window, whole_video
from timescope_lite.model.reading import Coarse
from timescope_lite.model.timescope import TimeScope
from timescope_lite.model.tokenizer import DIRECT
from timescope_lite.model.two_stage import Answer, locate, plan_window, refine
from timescope_lite.world.domain import load_domains
from timescope_lite.world.tasks import Question


@dataclass
class Video:
    """One video as frame features (F, K, Cf), F padded to whole segments, with its memories built
    on demand and kept. `r`: the compression that two stages read it at.
    """

    model: TimeScope
    features: Tensor
    num_valid: int
    r: int = DEFAULT_R
    _memories: dict[tuple[int, int, str, bool], Memory] = field(default_factory=dict)

    def memory(
        self, r: int | None = None, stride: int = 1, order: str = "true", history: bool = True
    ) -> Memory:
        """The video streamed at compression r (None: the video's own); every `stride`-th frame
        only; frames in `true` order, `shuffled`, or `blank`; segments that read the HVR of those
        before them, or (no `history`) themselves only.
        """
        r = self.r if r is None else r
        key = (r, stride, order, history)
        if key not in self._memories:
            segments = self._segments(stride, order)
            self._memories[key] = self.model.stream(segments, r, history=history)
        return self._memories[key]

    def _segments(self, stride: int, order: str) -> list[tuple[Tensor, int]]:
        S = self.model.config.frames_per_segment
        frames = self.features[: self.num_valid : stride]
        if order == "shuffled":
            shuffle = torch.Generator().manual_seed(0)
            frames = frames[torch.randperm(len(frames), generator=shuffle)]
        if order == "blank":
            frames = torch.zeros_like(frames)
        padding = -len(frames) % S
        padded = frames
        if padding:
            padded = torch.cat([frames, frames[-1:].expand(padding, -1, -1)])
        return [(part, min(S, len(frames) - i * S)) for i, part in enumerate(padded.split(S))]

    def least_r(self, budget: float) -> int:
        """The least compression whose HVR of this video is within a budget. BudgetError if even
        r = S is not.
        """
        S = self.model.config.frames_per_segment
        return least_r(len(self.features), budget, compressions(S))


WIDEN_BELOW = 0.95  # confidence of a coarse window
FINE_TUNED_R = (4, 8, 16)  # compressions that the two-stage recipes train with
Prompts = list[list[int]]
Questions = Sequence[Question]
System = Callable[[Video, Prompts, Questions, float], list[Answer]]


def two_stage(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """TimeScope: coarse over HVR, reload, fine over HVR and the reloaded DVR."""
    return locate(video.model, video.memory(), prompts, budget)


def two_stage_direct(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """Two stages, told to answer without reasoning."""
    direct = [[*prompt[:-1], DIRECT] for prompt in prompts]
    return locate(video.model, video.memory(), direct, budget)


def no_history(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Two stages over segments that were read alone, without the HVR of those before them."""
    return locate(video.model, video.memory(history=False), prompts, budget)


def widened(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Two stages that widen a window by a segment a side where they are not sure of it."""
    return locate(video.model, video.memory(), prompts, budget, threshold=WIDEN_BELOW)


def window_alone(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """Two stages whose fine stage reads the reloaded DVR and nothing beside it."""
    return locate(video.model, video.memory(), prompts, budget, keep_hvr=False)


def two_stage_fit(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """Two stages at the least compression that fits the budget, mixed memory."""
    return locate(video.model, video.memory(fitting_r(video, budget)), prompts, budget)


def two_stage_fit_alone(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """Two stages at the least compression that fits, the fine stage over the window's DVR alone."""
    memory = video.memory(fitting_r(video, budget))
    return locate(video.model, memory, prompts, budget, keep_hvr=False)


def fitting_r(video: Video, budget: float) -> int:
    """The least compression that the two-stage model was trained with whose HVR leaves half of the
    budget to the reload; the largest if none does.
    """
    try:
        return least_r(len(video.features), budget / 2, FINE_TUNED_R)
    except BudgetError:
        return max(FINE_TUNED_R)


def oracle_window(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """The fine stage on the true window, with the reasoning as the coarse stage wrote it: what a
    better window alone could gain.
    """
    memory = video.memory()
    windows = _true_windows(video, questions)
    found = video.model.coarse(memory, prompts)
    sure = [replace(c, window=w, confidence=1.0) for c, w in zip(found, windows, strict=True)]
    return _reloaded(video, memory, prompts, sure, budget)


def focus(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Two readings and no reload: the second reads only the HVR of the window. What narrowing alone
    brings.
    """
    memory = video.memory(video.least_r(budget))
    return _narrowed(video, memory, prompts, video.model.coarse(memory, prompts))


def single_stage(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """One reading of the least compressed HVR that the budget allows."""
    return _one_reading(video, video.memory(video.least_r(budget)), prompts)


def dense(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """One reading of everything, uncompressed: a reference, not an upper bound (one pass over a
    long video suffers from dilution).
    """
    return _one_reading(video, video.memory(1), prompts)


def dense_cropped(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """The dense model with all keys outside the true chapter's segments left out: how much of its
    misses is dilution.
    """
    memory = video.memory(1)
    windows = _true_windows(video, questions)
    found = video.model.coarse(memory, prompts)
    true = [replace(c, window=w) for c, w in zip(found, windows, strict=True)]
    return _narrowed(video, memory, prompts, true)


def uniform(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Every n-th frame, uncompressed, as if the video were that much shorter; the answer is scaled
    back.
    """
    stride = max(1, -(-video.num_valid // int(budget)))
    answers = _one_reading(video, video.memory(1, stride), prompts)
    return [
        replace(a, start_s=a.start_s * stride, end_s=min(a.end_s * stride, video.num_valid))
        for a in answers
    ]


def retrieval(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
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
        answers.append(Answer(float(start), float(end)))
    return answers


def retrieve_then_fine(
    video: Video, prompts: Prompts, questions: Questions, budget: float
) -> list[Answer]:
    """The window comes from frame similarity (the best segment and its neighbours), then the fine
    stage reads it.
    """
    memory, S = video.memory(), video.model.config.frames_per_segment
    found = video.model.coarse(memory, prompts)
    windows = []
    for coarse, similarity in zip(found, _similarities(video, prompts), strict=True):
        best = int(similarity.argmax()) // S
        window = max(best - 1, 0), min(best + 1, memory.num_segments - 1)
        windows.append(replace(coarse, window=window, confidence=1.0, absent=False))
    return _reloaded(video, memory, prompts, windows, budget)


def _similarities(video: Video, prompts: Prompts) -> list[Tensor]:
    """Per question the log-probability of every frame (num_valid,) to show all that the question
    names, after the frame encoder's own classifiers.
    """
    model = video.model
    encoder = model.frame_encoder
    if encoder is None or len(encoder.heads) == 0:
        raise UserError(
            "retrieval needs the frame encoder's classifiers; use a checkpoint that was trained on "
            "pixels"
        )
    known = [d for d in load_domains("all").values() if knows(model.vocabulary, d)]
    symbols = Symbols(known)
    classes_of = symbols.people()
    classes_of |= {part: (field, [cls]) for part, (field, cls) in symbols.named().items()}
    scores = [head.log_softmax(-1) for head in encoder.classify(video.features[: video.num_valid])]
    found = []
    for prompt in prompts:
        similarity = torch.zeros(video.num_valid)
        for phrase in model.vocabulary.names(prompt):
            for part in phrase:
                if part in classes_of:
                    field, classes = classes_of[part]
                    similarity = similarity + scores[field][:, classes].logsumexp(-1).cpu()
        found.append(similarity)
    return found


def text_only(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Negative control: the frames are blank."""
    return locate(video.model, video.memory(order="blank"), prompts, budget)


def shuffled(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Negative control: the frames come in random order."""
    return locate(video.model, video.memory(order="shuffled"), prompts, budget)


def whole(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Trivial: the whole video."""
    span = whole_video(float(video.num_valid))
    return [Answer(span.start_s, span.end_s) for _ in prompts]


def centre(video: Video, prompts: Prompts, questions: Questions, budget: float) -> list[Answer]:
    """Trivial: the middle third of the video."""
    span = centre_window(float(video.num_valid))
    return [Answer(span.start_s, span.end_s) for _ in prompts]


def _one_reading(video: Video, memory: Memory, prompts: Prompts) -> list[Answer]:
    """Reasoning and answer from one reading of the whole HVR."""
    answers = []
    for prompt, coarse in zip(prompts, video.model.coarse(memory, prompts), strict=True):
        answers.append(_answer(video, memory, memory.hvr, prompt, coarse))
    return answers


def _narrowed(
    video: Video, memory: Memory, prompts: Prompts, windows: Sequence[Coarse]
) -> list[Answer]:
    """A second reading of the HVR of each window only."""
    answers = []
    for prompt, coarse in zip(prompts, windows, strict=True):
        layers = memory.narrowed(*coarse.window)
        answers.append(_answer(video, memory, layers, prompt, coarse))
    return answers


def _answer(
    video: Video, memory: Memory, layers: list[LayerKV], prompt: list[int], coarse: Coarse
) -> Answer:
    """The fine stage over some of the HVR: nothing is reloaded."""
    start, end = video.model.fine(layers, memory, prompt, coarse.chain)
    return Answer(
        start,
        end,
        confidence=coarse.confidence,
        chain=tuple(coarse.chain),
        attended_frames=memory.attended_frames(),
    )


def _reloaded(
    video: Video, memory: Memory, prompts: Prompts, windows: Sequence[Coarse], budget: float
) -> list[Answer]:
    """The fine stage over the mixed memory, on windows that somebody else chose."""
    answers = []
    for prompt, coarse in zip(prompts, windows, strict=True):
        window, note = plan_window(coarse, memory, budget)
        answer = refine(video.model, memory, prompt, coarse, window)
        answers.append(replace(answer, note=note))
    return answers


def _true_windows(video: Video, questions: Questions) -> list[tuple[int, int]]:
    """First and last segment of every question's chapter."""
    S = video.model.config.frames_per_segment
    return [(q.window_start_s // S, (q.window_end_s - 1) // S) for q in questions]


SYSTEMS: dict[str, System] = {
    "two_stage": two_stage,
    "two_stage_direct": two_stage_direct,
    "two_stage_no_cot": two_stage_direct,
    "no_history": no_history,
    "widened": widened,
    "window_alone": window_alone,
    "two_stage_fit": two_stage_fit,
    "two_stage_fit_alone": two_stage_fit_alone,
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
