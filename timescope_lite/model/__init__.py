"""The model: it knows the memory and no world (a vocabulary is data that it is handed).

In: a video file or frame features (S, K, Cf) a segment, and tasks in words. Out: a `Memory`, and
for each task a `Grounding` in seconds.

    backbone       what the memory asks of a decoder
    attention      the three attentions: a segment, all segments, text over a memory
    decoder        our decoder, after Qwen3
    frame_encoder  what is in this picture?
    frames         a video file as frame features
    tokenizer      phrases, tags and seconds as tokens
    timescope      encode, append, read, forward; from_pretrained, encode_video, ground
    reading        the coarse and the fine stage, clues, captions: greedy writing over a memory
    two_stage      coarse, reload, fine
    checkpoint     files
"""

from timescope_lite.model.timescope import ModelConfig, TimeScope
from timescope_lite.model.tokenizer import Vocabulary
from timescope_lite.model.two_stage import Answer, Grounding

__all__ = ["Answer", "Grounding", "ModelConfig", "TimeScope", "Vocabulary"]
