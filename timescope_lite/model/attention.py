"""Who may read what: the three attentions of the course, each one softmax over what is visible.

attend            plain, with an additive mask
attend_segments   every segment over [HVR of earlier segments ; itself, causally]
attend_text       every question over [memory ; its own text, causally]
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from timescope_lite.memory.hvr import LayerKV

MASKED = -1e4  # finite, so that a row without any visible key stays finite in bf16


def visible(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask, 0 where `allowed`, else a large negative number (bool masks are added as
    0/1 by some kernels).
    """
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, MASKED)


def attend(q: Tensor, kv: LayerKV, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention, (B, H, N, D) over (B, H, M, D). `mask` is additive and
    broadcasts to (B, H, N, M).
    """
    return F.scaled_dot_product_attention(q, kv.k, kv.v, attn_mask=mask, is_causal=causal)


def attend_past(q: Tensor, own: LayerKV, past: LayerKV | None) -> Tensor:
    """One segment over [HVR so far ; itself, causally]: q and `own` (B, H, n, D)."""
    n = own.k.shape[2]
    allowed = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    if past is None:
        return attend(q, own, visible(allowed, q.dtype))
    # All of the past is visible to every token of this segment.
    earlier = allowed.new_ones(n, past.k.shape[2])
    mask = visible(torch.cat([earlier, allowed], dim=1), q.dtype)
    keys = LayerKV(torch.cat([past.k, own.k], dim=2), torch.cat([past.v, own.v], dim=2))
    return attend(q, keys, mask)


def attend_segments(
    q: Tensor, dense: LayerKV, pooled: LayerKV, segments: int, history: bool = True
) -> Tensor:
    """All segments at once, each over [HVR of earlier segments ; itself, causally].

    q, dense (B, H, N, D), pooled (B, H, P, D); without `history` each reads itself only.
    """
    B, H, N, D = q.shape
    n, P = N // segments, pooled.k.shape[2]
    # Every token scores every pooled slot, those of its own future too, which the mask then hides:
    # twice the scores that are needed, in one matrix product.
    scores_past = (q @ pooled.k.transpose(-1, -2)).view(B, H, segments, n, P)
    # Cut into segments, a token meets the dense keys of its own segment only: F*S scores, not F*F.
    own_k = dense.k.view(B, H, segments, n, D)
    own_v = dense.v.view(B, H, segments, n, D)
    scores_own = q.view(B, H, segments, n, D) @ own_k.transpose(-1, -2)
    past, causal = segment_masks(segments, n, P, history, q.device)
    scores = torch.cat([scores_past + past.to(q.dtype), scores_own + causal.to(q.dtype)], dim=-1)
    # One softmax over past and present: they compete for the same attention. Two of them, added,
    # would give the past half of it however little it has to say.
    weights = (scores / math.sqrt(D)).softmax(dim=-1).to(dense.v.dtype)
    from_past = weights[..., :P].reshape(B, H, N, P) @ pooled.v
    from_own = weights[..., P:] @ own_v
    return from_past + from_own.view(B, H, N, D)


def segment_masks(
    segments: int, n: int, num_pooled: int, history: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Additive masks: (segments, 1, num_pooled) over the HVR of earlier segments, (n, n) causal
    within a segment.
    """
    # Slots lie in the order of their segments, as many of them in each.
    slot_segment = torch.arange(num_pooled, device=device) // (num_pooled // segments)
    earlier = slot_segment[None] < torch.arange(segments, device=device)[:, None]
    causal = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    past = visible(earlier & history, torch.float32)
    return past[:, None], visible(causal, torch.float32)


def text_mask(valid: Tensor, T: int) -> Tensor:
    """Additive mask (B, 1, Q, T, T_all) for the last T of T_all tokens, `valid` (B, Q, T_all): each
    sees itself and what is before it, without padding.
    """
    total = valid.shape[-1]
    # The last T of all tokens are new: token 0 of them already sees the total - T before it.
    causal = torch.ones(T, total, dtype=torch.bool, device=valid.device).tril(total - T)
    return visible(causal & valid[:, :, None], torch.float32)[:, None]


class TextMasks(NamedTuple):
    """What text may see. `memory` (B, 1, Q*T, N) additive or None (all of it); `text` as
    `text_mask` gives it.
    """

    memory: Tensor | None
    text: Tensor


def attend_text(
    q: Tensor, memory: LayerKV, own: LayerKV, masks: TextMasks, text_bias: Tensor
) -> Tensor:
    """Text over [memory ; its own question's text] in one softmax: q (B, H, Q*T, D) -> the same.

    memory (B, H, N, D) is shared by the Q questions, own (B, H, Q, T_all, D) is each question's.
    `text_bias` (H,) is added to the scores of text: it sets how much a head listens to either.
    """
    B, H, _, D = q.shape
    Q, T = masks.text.shape[2], masks.text.shape[3]
    N = memory.k.shape[2]
    # The memory is shared, so all questions score it in one product; their own texts are not, so
    # those scores have an axis for the question.
    to_memory = q @ memory.k.transpose(-1, -2) / math.sqrt(D)
    if masks.memory is not None:
        to_memory = to_memory + masks.memory.to(q.dtype)
    to_text = q.view(B, H, Q, T, D) @ own.k.transpose(-1, -2) / math.sqrt(D)
    to_text = to_text + text_bias.to(q.dtype)[:, None, None, None] + masks.text.to(q.dtype)
    # One softmax again: a token weighs what it saw against what it was asked.
    scores = torch.cat([to_memory.view(B, H, Q, T, N), to_text], dim=-1)
    weights = scores.softmax(dim=-1).to(own.v.dtype)
    from_memory = weights[..., :N].reshape(B, H, Q * T, N) @ memory.v
    from_text = weights[..., N:] @ own.v
    return from_memory + from_text.view(B, H, Q * T, D)
