"""The two memories of a video, for any decoder that has keys and values.

In: per segment and layer the keys and values of its tokens, (B, H_kv, S*K, D), from a model.
Kept: the HVR, the same averaged over r frames, always at hand, and the DVR, as it came, on the
device or on the host. Out: what a stage attends to, per layer (B, H_kv, N, D): the HVR of all
segments (coarse), or with the segments of a window as DVR (fine). Nothing in here knows what made
the keys and values, nor what happens in the video.

    hvr      downsampling in time, and the memory that grows by it
    dvr      the store of dense segments and its tiers
    memory   both together, built segment by segment
    budget   what fits: the least compression, the widest window, the peak
    config   segments, compression, tier, budget, frame rate
    saved    a memory on disk
"""

from timescope_lite.memory.budget import least_r, max_reload_segments, peak_frames
from timescope_lite.memory.config import MemoryConfig
from timescope_lite.memory.dvr import DVRStore
from timescope_lite.memory.hvr import HVRStore, LayerKV, downsample, group_positions
from timescope_lite.memory.memory import Memory

__all__ = [
    "DVRStore",
    "HVRStore",
    "LayerKV",
    "Memory",
    "MemoryConfig",
    "downsample",
    "group_positions",
    "least_r",
    "max_reload_segments",
    "peak_frames",
]
