"""TimeScope: stream a video into HVR and DVR, read a question over the HVR (coarse), reload, read
it again (fine).

Two forms of the same encoder: `encode` handles whole videos at once (training), `stream` goes
segment by segment with caches only (use). They agree to rounding, which is the first oracle of the
test suite. (TimeScope section 3; where the paper is silent the choice is ours and
docs/architecture.md says so.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from timescope_lite.common import UserError
from timescope_lite.model.decoder import Block, Decoder, DecoderConfig, LayerKV, attend, visible
from timescope_lite.model.memory import DVRStore, Memory, downsample, group_positions
from timescope_lite.text import (
    ABSENT,
    ANSWER,
    CLUE,
    NUM_SECONDS,
    PAD,
    SO,
    THINK,
    WINDOW,
    Vocabulary,
)

MAX_CHAIN = 6
MAX_CLUES = 2


@dataclass(frozen=True)
class ModelConfig:
    """Everything that a checkpoint must agree on. `feature_width` is what the frame encoder gives
    per token.

    `can_say_absent`: the model was trained to answer that the evidence is not in the video; else
    such an answer is never given.
    """

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    feature_width: int = 128
    frames_per_segment: int = 16
    tokens_per_frame: int = 1
    feature_gain: float = 0.4
    can_say_absent: bool = False

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


class TimeCodes(nn.Module):
    """Vectors of the seconds of a clock: fixed Fourier features with learned maps in (a frame's
    time) and out (a written time).

    Every code is trained, because each video starts its clock at a random second; so no code is new
    in a longer video.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half = 64
        frequency = torch.exp(
            torch.linspace(
                math.log(2 * math.pi / (1.5 * NUM_SECONDS)), math.log(0.9 * math.pi), half
            )
        )
        angle = torch.arange(NUM_SECONDS)[:, None] * frequency
        self.register_buffer("phi", torch.cat([angle.sin(), angle.cos()], dim=1), persistent=False)
        self.inward = nn.Linear(2 * half, width, bias=False)
        self.outward = nn.Linear(width, 2 * half, bias=False)
        nn.init.normal_(self.inward.weight, std=0.12)
        with torch.no_grad():
            self.outward.weight.copy_(
                0.5 * self.inward.weight.T
            )  # a time that was copied can be written at once
        self.phi: Tensor

    def forward(self, seconds: Tensor) -> Tensor:
        """Seconds of the clock (...) -> vectors (..., C)."""
        return self.inward(self.phi[seconds])

    def logits(self, hidden: Tensor, first: int = 0, num: int = NUM_SECONDS) -> Tensor:
        """Hidden states (..., C) -> scores of `num` seconds of the clock from `first` on (...,
        num).
        """
        return self.outward(hidden) @ self.phi[first : first + num].to(hidden.dtype).T


@dataclass
class Encoded:
    """A batch of whole videos: per layer the dense and the pooled keys and values, (B, H_kv, F*K,
    D) and (B, H_kv, F*K/r, D).
    """

    dense: list[LayerKV]
    pooled: list[LayerKV]
    r: int
    num_frames: int

    def both(self) -> list[LayerKV]:
        """[pooled ; dense] per layer; a mask then chooses per question what it may see."""
        return [
            LayerKV(torch.cat([p.k, d.k], dim=2), torch.cat([p.v, d.v], dim=2))
            for p, d in zip(self.pooled, self.dense, strict=True)
        ]


@dataclass
class TextCache:
    """Keys and values of text already read, per layer (B, H_kv, Q, T, D), and which of it is not
    padding (B, Q, T).
    """

    layers: list[LayerKV]
    valid: Tensor


@dataclass(frozen=True)
class Coarse:
    """What the coarse stage says: the reasoning (token ids), first and last segment of the window,
    and the probability it gives them.
    """

    chain: list[int]
    window: tuple[int, int]
    confidence: float
    absent: bool = False


class TimeScope(nn.Module):
    """The model. Weights: a linear map of frame features, word vectors, time codes, the decoder."""

    def __init__(self, config: ModelConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        C = config.decoder.width
        self.decoder = Decoder(config.decoder)
        self.features_in = nn.Linear(config.feature_width, C)
        self.slot = nn.Parameter(torch.randn(config.tokens_per_frame, C) * 0.1)
        self.words = nn.Parameter(torch.randn(len(vocabulary.words), C) * 0.5)
        self.register_buffer(
            "phrase_words", torch.from_numpy(vocabulary.word_matrix()), persistent=False
        )
        self.phrase_words: Tensor
        self._phrases: tuple[Any, Tensor] | None = None
        self.times = TimeCodes(C)
        self.logit_scale = nn.Parameter(torch.tensor(1 / math.sqrt(C)))
        nn.init.normal_(self.features_in.weight, std=config.feature_gain)
        nn.init.zeros_(self.features_in.bias)

    @torch.no_grad()
    def align(self, directions: dict[str, Tensor], scale: float = 0.5) -> None:
        """Start words where the frame encoder already puts what they name: part of a phrase -> its
        direction in feature space (feature_width,).

        The map of features keeps the directions in which these differ most. The paper starts from a
        SigLIP and a language model that were aligned before; this is our stand-in, and only an
        initial value.
        """
        C, width = self.config.decoder.width, self.config.feature_width
        named = torch.stack(list(directions.values())).float()
        kept = torch.linalg.svd(named / named.norm(dim=1, keepdim=True), full_matrices=False).Vh[:C]
        turned = nn.init.orthogonal_(torch.empty(C, C))[:, : len(kept)] @ kept
        self.features_in.weight.copy_(turned * self.config.feature_gain * math.sqrt(width))
        rows = {word: i for i, word in enumerate(self.vocabulary.words)}
        for word, direction in directions.items():
            seen = self.features_in.weight @ direction.to(self.features_in.weight)
            self.words[rows[word]] = seen * scale / seen.std()

    # --- tokens -----------------------------------------------------------------------------------

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids (...) -> vectors (..., C): a phrase is the sum of its parts, a time comes from
        its code.
        """
        first = self.vocabulary.first_second
        phrases = self.phrases()[tokens.clamp(max=first - 1)]
        return torch.where(
            (tokens < first)[..., None],
            phrases,
            self.times((tokens - first).clamp(min=0)).to(phrases.dtype),
        )

    def phrases(self) -> Tensor:
        """Vectors of the specials and phrases (num_phrases, C), sums of their words: made anew
        where gradients are wanted, else kept while the words stay.
        """
        if torch.is_grad_enabled():
            return self.phrase_words @ self.words
        of = (
            self.words.data_ptr(),
            self.words._version,
            torch.is_autocast_enabled(self.words.device.type),
        )
        if self._phrases is None or self._phrases[0] != of:
            self._phrases = of, self.phrase_words @ self.words
        return self._phrases[1]

    def word_logits(self, hidden: Tensor) -> Tensor:
        """Scores of the specials and phrases: hidden (..., C) -> (..., vocabulary.num_phrases)."""
        return hidden @ self.phrases().to(hidden.dtype).T * self.logit_scale

    def time_logits(self, hidden: Tensor, clock: int, num_frames: int) -> Tensor:
        """Scores of <absent> and of every second of one video: hidden (..., C) -> (..., 1 +
        num_frames). A time outside the video is no answer.
        """
        absent = hidden @ self.words[ABSENT].to(hidden.dtype)
        return (
            torch.cat([absent[..., None], self.times.logits(hidden, clock, num_frames)], dim=-1)
            * self.logit_scale
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the whole vocabulary: hidden (..., C) -> (..., vocabulary.size)."""
        return torch.cat(
            [self.word_logits(hidden), self.times.logits(hidden) * self.logit_scale], dim=-1
        )

    def frame_tokens(self, features: Tensor, clock: Tensor) -> Tensor:
        """features (B, F, K, feature_width), second of the clock at the first frame (B,) -> tokens
        (B, F*K, C), each with its time.
        """
        times = self.times(clock[:, None] + torch.arange(features.shape[1], device=features.device))
        return (self.features_in(features) + times[:, :, None] + self.slot).flatten(1, 2)

    # --- the video, all segments at once (training) -----------------------------------------------

    def encode(self, features: Tensor, clock: Tensor, r: int, history: bool = True) -> Encoded:
        """Encode whole videos in parallel: features (B, F, K, Cf), F a multiple of S; clock (B,). r
        = 1 is plain causal attention.

        A token attends causally to its own segment and to the HVR of earlier segments
        (`history=False`: to its own segment only).
        """
        S, K = self.config.frames_per_segment, self.config.tokens_per_frame
        F = features.shape[1]
        if F % S:
            raise UserError(
                f"{F} frames are not a whole number of segments of {S}; pad the last one"
            )
        if r < 1 or S % r:
            raise UserError(
                f"r={r} does not divide S={S}; choose r from "
                f"{[d for d in range(1, S + 1) if S % d == 0]}"
            )
        x = self.frame_tokens(features, clock)
        positions = torch.arange(F, device=x.device).repeat_interleave(K)
        groups = group_positions(positions, r, K)
        dense, pooled = [], []
        for block in self.decoder.layers:
            q, k, v = block.project(x)
            dense.append(LayerKV(block.rotate(k, positions), v))
            pooled.append(LayerKV(block.rotate(downsample(k, r, K), groups), downsample(v, r, K)))
            if block is self.decoder.layers[-1]:
                # the video itself writes nothing: the last layer's keys and values are all that
                # text needs
                break
            attended = self._attend_segments(
                block.rotate(q, positions),
                block.share_heads(dense[-1]),
                block.share_heads(pooled[-1]),
                r,
                history,
            )
            x = block.finish(x, attended)
        return Encoded(dense, pooled, r, F)

    def _attend_segments(
        self, q: Tensor, dense: LayerKV, pooled: LayerKV, r: int, history: bool
    ) -> Tensor:
        """Every segment over [HVR of earlier segments ; itself, causally], all (B, H, N, D)."""
        B, H, N, D = q.shape
        n = self.config.frames_per_segment * self.config.tokens_per_frame
        segments, P = N // n, pooled.k.shape[2]
        if segments == 1 or (r == 1 and history):
            return attend(q, dense, causal=True)
        scores_past = (q @ pooled.k.transpose(-1, -2)).view(B, H, segments, n, P)
        own = LayerKV(*(t.view(B, H, segments, n, D) for t in dense))
        scores_own = q.view(B, H, segments, n, D) @ own.k.transpose(-1, -2)
        past, causal = _segment_masks(segments, n, P, history, q.device)
        scores = torch.cat(
            [scores_past + past.to(q.dtype), scores_own + causal.to(q.dtype)], dim=-1
        ) / math.sqrt(D)
        weights = scores.softmax(dim=-1).to(dense.v.dtype)
        from_past = weights[..., :P].reshape(B, H, N, P) @ pooled.v
        return from_past + (weights[..., P:] @ own.v).view(B, H, N, D)

    # --- the video, segment by segment (use) ------------------------------------------------------

    @torch.no_grad()
    def stream(
        self,
        segments: Iterable[tuple[Tensor, int]],
        r: int,
        clock: int = 0,
        tier: str = "host",
        history: bool = True,
    ) -> Memory:
        """Read a video once: `segments` yields (features (S, K, Cf), number of real frames).
        Working memory: one segment and the HVR.

        Raises UserError if r does not divide S, or if the video is longer than the clock.
        """
        S, K = self.config.frames_per_segment, self.config.tokens_per_frame
        if r < 1 or S % r:
            raise UserError(
                f"r={r} does not divide S={S}; choose r from "
                f"{[d for d in range(1, S + 1) if S % d == 0]}"
            )
        device = self.words.device
        memory = Memory(r, S, K, DVRStore(tier, device), clock)
        for features, num_valid in segments:
            if clock + memory.num_frames + S > NUM_SECONDS:
                raise UserError(
                    f"the video is longer than {NUM_SECONDS - clock} frames, all that the clock "
                    "has codes for; cut it into parts"
                )
            memory.add(*self._stream_one(features.to(device)[None], memory, history))
            memory.num_valid += num_valid
        return memory

    def _stream_one(
        self, features: Tensor, memory: Memory, history: bool
    ) -> tuple[list[LayerKV], list[LayerKV]]:
        """Dense and pooled keys and values of the next segment, features (1, S, K, Cf)."""
        S, K, i = memory.frames_per_segment, memory.tokens_per_frame, memory.num_segments
        x = self.frame_tokens(
            features, torch.tensor([memory.clock + i * S], device=features.device)
        )
        positions = torch.arange(i * S, (i + 1) * S, device=x.device).repeat_interleave(K)
        groups = group_positions(positions, memory.r, K)
        dense, pooled = [], []
        for layer_idx, block in enumerate(self.decoder.layers):
            q, k, v = block.project(x)
            own = LayerKV(block.rotate(k, positions), v)
            dense.append(own)
            pooled.append(
                LayerKV(
                    block.rotate(downsample(k, memory.r, K), groups), downsample(v, memory.r, K)
                )
            )
            if layer_idx == len(self.decoder.layers) - 1:
                break
            x = block.finish(
                x,
                self._attend_one(
                    block.rotate(q, positions),
                    own,
                    memory.hvr[layer_idx] if memory.hvr and history else None,
                    block,
                ),
            )
        return dense, pooled

    @staticmethod
    def _attend_one(q: Tensor, own: LayerKV, past: LayerKV | None, block: Block) -> Tensor:
        """One segment over [HVR so far ; itself, causally]."""
        n = own.k.shape[2]
        allowed = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
        keys = own
        if past is not None:
            keys = LayerKV(torch.cat([past.k, own.k], dim=2), torch.cat([past.v, own.v], dim=2))
            allowed = torch.cat([allowed.new_ones(n, past.k.shape[2]), allowed], dim=1)
        return attend(q, block.share_heads(keys), visible(allowed, q.dtype))

    # --- text over a memory -----------------------------------------------------------------------

    def read(
        self,
        tokens: Tensor,
        memory: Sequence[LayerKV],
        num_frames: int,
        mask: Tensor | None = None,
        cache: TextCache | None = None,
    ) -> tuple[Tensor, TextCache]:
        """Read text tokens (B, Q, T) over a memory shared by the Q questions of a video; PAD tokens
        are skipped.

        `mask` (B, Q, N) bool says which keys of the memory each question may see (None: all).
        Positions go on after the video's last frame. With `cache` the tokens continue what was read
        before. Returns hidden states (B, Q, T, C) and the grown cache.
        """
        B, Q, T = tokens.shape
        valid = tokens != PAD
        before = cache.valid.sum(-1, keepdim=True) if cache else 0
        positions = (num_frames + before + valid.cumsum(-1) - 1).flatten(1)[:, None]
        all_valid = torch.cat([cache.valid, valid], dim=-1) if cache else valid
        x = self.embed(tokens.flatten(1))
        text_mask = _text_mask(all_valid, T)
        memory_mask = (
            None if mask is None else visible(mask, x.dtype).repeat_interleave(T, dim=1)[:, None]
        )
        layers = []
        for layer_idx, block in enumerate(self.decoder.layers):
            q, k, v = block.project(x)
            own = LayerKV(*(t.unflatten(2, (Q, T)) for t in (block.rotate(k, positions), v)))
            if cache:
                own = LayerKV(
                    *(
                        torch.cat(pair, dim=3)
                        for pair in zip(cache.layers[layer_idx], own, strict=True)
                    )
                )
            layers.append(own)
            attended = _attend_text(
                block.rotate(q, positions),
                block.share_heads(memory[layer_idx]),
                block.share_heads(own),
                memory_mask,
                text_mask,
                block.text_bias,
            )
            x = block.finish(x, attended)
        return self.decoder.norm(x).unflatten(1, (Q, T)), TextCache(layers, all_valid)

    # --- coarse and fine (use) --------------------------------------------------------------------

    @torch.no_grad()
    def coarse(self, memory: Memory, prompts: list[list[int]]) -> list[Coarse]:
        """The coarse stage for several questions at once: reasoning, window, confidence, all from
        the HVR alone.

        A prompt is the question's tokens followed by <think> or <direct>.
        """
        reader = _Reader(self, memory.hvr, memory.num_frames, prompts)
        chains = self._write_chain(reader, [p[-1] for p in prompts])
        reader.feed([WINDOW] * len(prompts))
        first, S = self.vocabulary.first_second + memory.clock, memory.frames_per_segment
        last = first + memory.num_valid - 1
        start, p_start, absent = reader.choose_second([first] * len(prompts), last, S, first)
        reader.feed(start)
        end, p_end, _ = reader.choose_second(start, last, S, first)
        return [
            Coarse(chain, ((s - first) // S, (e - first) // S), ps * pe, a)
            for chain, s, e, ps, pe, a in zip(
                chains, start, end, p_start, p_end, absent, strict=True
            )
        ]

    def _write_chain(self, reader: _Reader, modes: list[int]) -> list[list[int]]:
        """Greedy reasoning until <so>; a question in <direct> mode writes none."""
        chains: list[list[int]] = [[] for _ in modes]
        open_ = [mode == THINK for mode in modes]
        for _ in range(MAX_CHAIN):
            if not any(open_):
                break
            words = reader.choose_word()
            step = [word if still else PAD for word, still in zip(words, open_, strict=True)]
            for chain, word, still in zip(chains, step, open_, strict=True):
                if still:
                    chain.append(word)
            open_ = [still and word != SO for word, still in zip(step, open_, strict=True)]
            reader.feed(step)
        return chains

    @torch.no_grad()
    def fine(
        self, layers: Sequence[LayerKV], memory: Memory, prompt: list[int], chain: list[int]
    ) -> tuple[float, float]:
        """The fine stage: the same question and reasoning over `layers` (HVR with the window
        reloaded); returns start_s, end_s in frames.
        """
        return self.find(layers, memory, prompt, chain)[-1]

    @torch.no_grad()
    def find(
        self, layers: Sequence[LayerKV], memory: Memory, prompt: list[int], chain: list[int]
    ) -> list[tuple[float, float]]:
        """The fine stage with what it writes on its way: the intervals (start_s, end_s) of its
        clues, if it knows the word, and of the answer, the last.
        """
        clue = self.vocabulary.id_of.get(CLUE) if chain else None
        reader = _Reader(self, layers, memory.num_frames, [[*prompt, *chain]])
        found: list[tuple[float, float]] = []
        while clue and len(found) < MAX_CLUES and reader.logits[0, clue] > reader.logits[0, ANSWER]:
            found.append(self._write_interval(reader, clue, memory))
        return [*found, self._write_interval(reader, ANSWER, memory)]

    def _write_interval(self, reader: _Reader, tag: int, memory: Memory) -> tuple[float, float]:
        """A tag, then the best start and the best end after it; all are read again by what
        follows.
        """
        first, S = self.vocabulary.first_second + memory.clock, memory.frames_per_segment
        last = first + memory.num_valid - 1
        reader.feed([tag])
        start, _, _ = reader.choose_second([first], last, S, first)
        reader.feed(start)
        end, _, _ = reader.choose_second(start, last, S, first)
        reader.feed(end)
        return float(start[0] - first), float(end[0] - first + 1)

    @torch.no_grad()
    def captions(
        self, layers: Sequence[LayerKV], memory: Memory, prompt: list[int], most: int = 6
    ) -> list[tuple[int, float, float]]:
        """Dense captions: what happens at a place, as (phrase token, start_s, end_s) in the order
        of starts, overlapping; at most `most`, until <so>.
        """
        clue = self.vocabulary.id_of[CLUE]
        reader = _Reader(self, layers, memory.num_frames, [prompt])
        found: list[tuple[int, float, float]] = []
        while len(found) < most and reader.logits[0, clue] > reader.logits[0, SO]:
            span = self._write_interval(reader, clue, memory)
            found.append((reader.choose_word()[0], *span))
            reader.feed([found[-1][0]])
        return found


class _Reader:
    """Greedy writing with a KV cache, several questions in step; each `choose_*` keeps to what may
    stand at that place.
    """

    def __init__(
        self, model: TimeScope, layers: Sequence[LayerKV], num_frames: int, prompts: list[list[int]]
    ) -> None:
        self.model, self.layers, self.num_frames = model, layers, num_frames
        self.device = model.words.device
        longest = max(len(p) for p in prompts)
        tokens = torch.tensor(
            [p + [PAD] * (longest - len(p)) for p in prompts], device=self.device
        )[None]
        hidden, self.cache = model.read(tokens, layers, num_frames)
        last = torch.tensor([len(p) - 1 for p in prompts], device=self.device)
        self.logits = model.logits(
            hidden[0, torch.arange(len(prompts), device=self.device), last].float()
        )

    def feed(self, tokens: list[int]) -> None:
        """Read one more token per question; a question that is fed PAD keeps its last scores."""
        column = torch.tensor(tokens, device=self.device)
        hidden, self.cache = self.model.read(
            column[None, :, None], self.layers, self.num_frames, cache=self.cache
        )
        fresh = self.model.logits(hidden[0, :, 0].float())
        self.logits = torch.where((column != PAD)[:, None], fresh, self.logits)

    def choose_word(self) -> list[int]:
        """The best of <so> and all phrases."""
        words = self.logits[:, : self.model.vocabulary.num_phrases].clone()
        words[:, [t for t in range(ABSENT + 1) if t != SO]] = -torch.inf
        return [int(t) for t in words.argmax(-1)]

    def choose_second(
        self, lowest: list[int], highest: int, S: int, first: int
    ) -> tuple[list[int], list[float], list[bool]]:
        """The best time code in lowest..highest per question; the probability that the time lies in
        its segment; whether <absent> beats it.
        """
        codes = torch.arange(self.logits.shape[1], device=self.device)
        allowed = (codes[None] >= torch.tensor(lowest, device=self.device)[:, None]) & (
            codes[None] <= highest
        )
        scores = self.logits.masked_fill(~allowed, -torch.inf)
        best = scores.argmax(-1)
        same_segment = (codes[None] - first) // S == (best[:, None] - first) // S
        probability = (scores.softmax(-1) * same_segment).sum(-1)
        absent = (self.logits[:, ABSENT] > scores.max(-1).values) & self.model.config.can_say_absent
        return [int(b) for b in best], [float(p) for p in probability], [bool(a) for a in absent]


def _segment_masks(
    segments: int, n: int, num_pooled: int, history: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Additive masks: (segments, 1, num_pooled) over the HVR of earlier segments, (n, n) causal
    within a segment.
    """
    slot_segment = torch.arange(num_pooled, device=device) // (num_pooled // segments)
    earlier = slot_segment[None] < torch.arange(segments, device=device)[:, None]
    causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    return visible(earlier & history, torch.float32)[:, None], visible(causal, torch.float32)


def _text_mask(valid: Tensor, T: int) -> Tensor:
    """Additive mask (B, 1, Q, T, T_all): the last T of T_all tokens see themselves and what is
    before, without padding.
    """
    total = valid.shape[-1]
    causal = torch.ones(T, total, dtype=torch.bool, device=valid.device).tril(total - T)
    return visible(causal & valid[:, :, None], torch.float32)[:, None]


def _attend_text(
    q: Tensor,
    memory: LayerKV,
    own: LayerKV,
    memory_mask: Tensor | None,
    text_mask: Tensor,
    text_bias: Tensor,
) -> Tensor:
    """Text over [memory ; its own question's text] in one softmax. q (B, H, Q*T, D), memory (B, H,
    N, D), own (B, H, Q, T_all, D).
    """
    B, H, _, D = q.shape
    Q, T = text_mask.shape[2], text_mask.shape[3]
    N = memory.k.shape[2]
    to_memory = q @ memory.k.transpose(-1, -2) / math.sqrt(D)
    if memory_mask is not None:
        to_memory = to_memory + memory_mask.to(q.dtype)
    to_text = q.view(B, H, Q, T, D) @ own.k.transpose(-1, -2) / math.sqrt(D)
    to_text = to_text + text_bias.to(q.dtype)[:, None, None, None] + text_mask.to(q.dtype)
    weights = (
        torch.cat([to_memory.view(B, H, Q, T, N), to_text], dim=-1).softmax(dim=-1).to(own.v.dtype)
    )
    from_memory = weights[..., :N].reshape(B, H, Q * T, N) @ memory.v
    return from_memory + (weights[..., N:] @ own.v).view(B, H, Q * T, D)
