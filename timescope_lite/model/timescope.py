"""TimeScope: the model of the course. Frames and text in, windows and intervals out.

    features (B, F, K, Cf)  ->  encode, append, stream  ->  HVR and DVR per layer (B, H_kv, N, D)
    tokens (B, Q, T) over such a memory  ->  read  ->  hidden states (B, Q, T, C)  ->  logits

Two forms of the same encoder: `encode` handles whole videos at once (training), `append` goes
segment by segment with caches only (use). They agree to rounding, which is the first oracle of the
test suite. (TimeScope section 3; where the paper is silent the choice is ours and
docs/architecture.md says so.)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timescope_lite.common import UserError, progress_bar
from timescope_lite.memory import LayerKV, Memory, MemoryConfig
from timescope_lite.memory.budget import DEFAULT_R, check_compression
from timescope_lite.memory.saved import describe_video
from timescope_lite.model import reading, two_stage
from timescope_lite.model.backbone import SegmentTokens, TextCache
from timescope_lite.model.decoder import Decoder, DecoderConfig, Encoded
from timescope_lite.model.frame_encoder import FrameEncoder
from timescope_lite.model.reading import Coarse
from timescope_lite.model.tokenizer import ABSENT, DIRECT, NUM_SECONDS, PAD, THINK, Vocabulary
from timescope_lite.model.two_stage import Grounding


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
        """Plain data for JSON."""
        return asdict(self)


class TimeCodes(nn.Module):
    """Vectors of the seconds of a clock: fixed Fourier features with learned maps in (a frame's
    time) and out (a written time).

    Every code is trained, because each video starts its clock at a random second; so no code is new
    in a longer video.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Periods from two seconds to one and a half clocks: neighbours differ, and no two seconds
        # of the clock look alike.
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


@dataclass(frozen=True)
class View:
    """What the questions of a batch read, Q to a video.

    `sees`: `all` (everything that r leaves), `reload` (a fine question: HVR outside its window, DVR
    inside) or `focus` (a fine question: the HVR of its window only). fine (B, Q) bool; window
    (B, Q, 2): its first and last segment. Questions that are not fine read all of the HVR.
    """

    sees: str
    fine: Tensor
    window: Tensor


class TimeScope(nn.Module):
    """The model. Weights: a linear map of frame features, word vectors, time codes, the decoder;
    and, frozen, the frame encoder that it looks through (None: it reads features made elsewhere).

    `about` says how it came to be: seed, steps, commit.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: Vocabulary,
        frame_encoder: FrameEncoder | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.vocabulary = config, vocabulary
        self.about = about or {}
        C = config.decoder.width
        self.decoder = Decoder(config.decoder)
        self.features_in = nn.Linear(config.feature_width, C)
        self.slot = nn.Parameter(torch.randn(config.tokens_per_frame, C) * 0.1)
        self.words = nn.Parameter(torch.randn(len(vocabulary.words), C) * 0.5)
        matrix = torch.from_numpy(vocabulary.word_matrix())
        self.register_buffer("phrase_words", matrix, persistent=False)
        self.phrase_words: Tensor
        self._phrases: tuple[Any, Tensor] | None = None
        self.times = TimeCodes(C)
        # Words and times share one scale, so that their scores compare.
        self.logit_scale = nn.Parameter(torch.tensor(1 / math.sqrt(C)))
        nn.init.normal_(self.features_in.weight, std=config.feature_gain)
        nn.init.zeros_(self.features_in.bias)
        self.frame_encoder: FrameEncoder | None = frame_encoder

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.words.device

    def own_state(self) -> dict[str, Tensor]:
        """The weights without those of the frame encoder."""
        state = self.state_dict()
        return {name: t for name, t in state.items() if not name.startswith("frame_encoder.")}

    def fingerprint(self) -> str:
        """A hash of configuration and weights, the frame encoder's too: whose memory is this?"""
        digest = hashlib.sha256(json.dumps(self.config.as_dict(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @classmethod
    def from_pretrained(cls, name: str | Path, device: torch.device | None = None) -> TimeScope:
        """A trained model: the packaged "tiny", a folder that `save_pretrained` wrote, a checkpoint
        file, or "owner/name" on the Hugging Face Hub where huggingface_hub is installed.

        On `device`, or the best there is. UserError, saying which, where it cannot be had.
        """
        from timescope_lite.model import checkpoint

        return checkpoint.from_pretrained(name, device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write weights (all their bits), configuration and a model card into a folder of their
        own; returns the folder.
        """
        from timescope_lite.model import checkpoint

        return checkpoint.save_pretrained(self, Path(folder))

    # --- the public path: a file, then questions --------------------------------------------------

    def encode_video(
        self, video: str | Path, config: MemoryConfig | None = None, progress: bool = True
    ) -> Memory:
        """Read a video file once, segment by segment, into its two memories.

        UserError for a file that is no video, or one longer than the clock, before anything is
        decoded.
        """
        from timescope_lite.model.frames import check_length, feature_stream

        config = config or self.memory_config()
        duration_s = check_length(Path(video), config.fps)
        memory = self.empty_memory(config)
        memory.video = describe_video(Path(video)) | {"duration_s": duration_s}
        segments = math.ceil(duration_s * config.fps / config.frames_per_segment)
        stream = feature_stream(self, Path(video), config.fps)
        for features, num_valid in progress_bar(
            stream,
            total=segments,
            unit="segment",
            desc="encoding",
            disable=None if progress else True,
        ):
            self.append(memory, features, num_valid)
        memory.holistic.trim()
        return memory

    def ground(
        self,
        memory: Memory,
        tasks: Sequence[str],
        budget: float | None = None,
        think: bool = True,
    ) -> list[Grounding]:
        """The interval that holds the evidence for each task, from one memory: coarse over HVR,
        reload, fine (TimeScope section 3). `budget` bounds the attended KV at its peak, in frames'
        worth. UserError for an empty task or words that the model does not know.
        """
        if isinstance(tasks, str):
            raise UserError("tasks is one text: expected a list of tasks, [task]")
        prompts = [self.prompt(task, think) for task in tasks]
        if not prompts:
            return []
        answers = two_stage.locate(self, memory, prompts, budget)
        return [two_stage.describe(self, memory, answer) for answer in answers]

    def prompt(self, task: str, think: bool = True) -> list[int]:
        """Token ids of a task in words, ready for the coarse stage. UserError for an empty task or
        words the model does not know.
        """
        return [*self.vocabulary.encode(task), THINK if think else DIRECT]

    def memory_config(self, r: int | None = None, tier: str = "host") -> MemoryConfig:
        """How this model keeps a video: its own segments, r (None: the default) and a tier."""
        r = DEFAULT_R if r is None else r
        return MemoryConfig(self.config.frames_per_segment, r, tier)

    def empty_memory(self, config: MemoryConfig, clock: int = 0) -> Memory:
        """A memory for a video of this model without a segment yet. UserError for other segments
        than the model's.
        """
        S = self.config.frames_per_segment
        if config.frames_per_segment != S:
            raise UserError(
                f"frames_per_segment={config.frames_per_segment}: this model reads segments of {S}"
            )
        return Memory(
            config, self.config.tokens_per_frame, self.device, clock, model_id=self.fingerprint()
        )

    # --- tokens -----------------------------------------------------------------------------------

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
        # A random turn: which direction of the decoder means "red" is nobody's choice.
        turned = nn.init.orthogonal_(torch.empty(C, C))[:, : len(kept)] @ kept
        self.features_in.weight.copy_(turned * self.config.feature_gain * math.sqrt(width))
        rows = {word: i for i, word in enumerate(self.vocabulary.words)}
        for word, direction in directions.items():
            seen = self.features_in.weight @ direction.to(self.features_in.weight)
            self.words[rows[word]] = seen * scale / seen.std()

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

    # --- the video --------------------------------------------------------------------------------

    def encode(self, features: Tensor, clock: Tensor, r: int, history: bool = True) -> Encoded:
        """Encode whole videos in parallel: features (B, F, K, Cf), F a multiple of S; clock (B,).
        r = 1 is plain causal attention.

        A token attends causally to its own segment and to the HVR of earlier segments
        (`history=False`: to its own segment only).
        """
        S, K = self.config.frames_per_segment, self.config.tokens_per_frame
        F = features.shape[1]
        if F % S:
            raise UserError(
                f"{F} frames are not a whole number of segments of {S}; pad the last one"
            )
        check_compression(r, S)
        x = self.frame_tokens(features, clock)
        positions = torch.arange(F, device=x.device).repeat_interleave(K)
        return self.decoder.encode(SegmentTokens(x, positions, K, r), F // S, history)

    @torch.no_grad()
    def append(
        self,
        memory: Memory,
        features: Tensor,
        num_valid: int | None = None,
        history: bool = True,
    ) -> None:
        """Read the next segment of a video into its memory: features (S, K, Cf), of which the first
        `num_valid` frames are real (None: all). Works on one segment and the HVR.

        UserError if the video is now longer than the clock.
        """
        S, K, i = memory.frames_per_segment, memory.tokens_per_frame, memory.num_segments
        if memory.clock + memory.num_frames + S > NUM_SECONDS:
            raise UserError(
                f"the video is longer than {NUM_SECONDS - memory.clock} frames, all that the clock "
                "has codes for; cut it into parts"
            )
        start = torch.tensor([memory.clock + i * S], device=self.device)
        x = self.frame_tokens(features.to(self.device)[None], start)
        positions = torch.arange(i * S, (i + 1) * S, device=x.device).repeat_interleave(K)
        segment = SegmentTokens(x, positions, K, memory.r)
        # The memory itself is the working state of the stream: nothing else is carried along.
        past = memory.hvr if history else []
        dense, pooled = self.decoder.encode_segment(segment, past)
        memory.append(dense, pooled, num_valid)

    def stream(
        self,
        segments: Iterable[tuple[Tensor, int]],
        r: int | None = None,
        clock: int = 0,
        tier: str = "host",
        history: bool = True,
    ) -> Memory:
        """Read a video once: `segments` yields (features (S, K, Cf), number of real frames).

        Raises UserError if r does not divide S, or if the video is longer than the clock.
        """
        memory = self.empty_memory(self.memory_config(r, tier=tier), clock)
        for features, num_valid in segments:
            self.append(memory, features, num_valid, history)
        memory.holistic.trim()
        return memory

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
        x = self.embed(tokens)
        return self.decoder.read(x, tokens != PAD, memory, num_frames, mask, cache)

    def forward(
        self, features: Tensor, clock: Tensor, tokens: Tensor, r: int, view: View | None = None
    ) -> Tensor:
        """One pass of training: encode whole videos, then read text over what `view` shows of them
        (None: all of the HVR). features (B, F, K, Cf), clock (B,), tokens (B, Q, T) -> hidden
        states (B, Q, T, C).
        """
        encoded = self.encode(features, clock, r)
        layers, mask = encoded.pooled, None
        if view is not None:
            layers, mask = memory_mask(encoded, view, self.config)
        return self.read(tokens, layers, encoded.num_frames, mask)[0]

    # --- coarse and fine (use) --------------------------------------------------------------------

    def coarse(self, memory: Memory, prompts: Sequence[Sequence[int]]) -> list[Coarse]:
        """The coarse stage over the HVR alone (`reading.coarse`)."""
        return reading.coarse(self, memory, prompts)

    def fine(
        self,
        layers: Sequence[LayerKV],
        memory: Memory,
        prompt: Sequence[int],
        chain: Sequence[int],
    ) -> tuple[float, float]:
        """The fine stage over `layers`; the answer (start, end) in frames (`reading.fine`)."""
        return reading.fine(self, layers, memory, prompt, chain)[-1]


def memory_mask(
    encoded: Encoded, view: View, config: ModelConfig
) -> tuple[list[LayerKV], Tensor | None]:
    """Per layer the keys, and per question (B, Q, N) which of them it may attend to (None: all).

    What a mask shows in training is what a reload brings in use (an oracle of the tests). UserError
    for an unknown way to see.
    """
    if view.sees not in {"all", "reload", "focus"}:
        raise UserError(
            f"unknown way to see the memory {view.sees!r}: expected all, reload or focus"
        )
    if view.sees == "all" or encoded.r == 1:
        return encoded.pooled, None
    S, K = config.frames_per_segment, config.tokens_per_frame
    device = view.fine.device
    fine = view.fine[..., None]
    # Which segment each pooled slot, and each dense token, belongs to.
    slots = torch.arange(encoded.pooled[0].k.shape[2], device=device) // (S * K // encoded.r)
    if view.sees == "focus":
        return encoded.pooled, ~fine | _inside(slots, view.window)
    frames = torch.arange(encoded.num_frames * K, device=device) // (S * K)
    # A segment is seen once: as DVR where it is reloaded, else as HVR.
    hvr = ~fine | ~_inside(slots, view.window)
    dvr = fine & _inside(frames, view.window)
    return encoded.both(), torch.cat([hvr, dvr], dim=-1)


def _inside(segment: Tensor, window: Tensor) -> Tensor:
    """Whether tokens of these segments (N,) lie in each question's window (B, Q, 2): (B, Q, N)."""
    return (segment >= window[..., :1]) & (segment <= window[..., 1:])
