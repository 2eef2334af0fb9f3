"""Test clips whose pixels carry the frame number: a 4 x 4 grid of black and white blocks over the
whole picture, readable at any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from timescope_lite.video import write_mp4

NUM_FRAMES = 150
NTSC = 30_000 / 1001


def barcode(number: int, height: int = 128, width: int = 128) -> np.ndarray:
    """The picture of frame `number` (16 bits, most significant first): (height, width, 3) uint8
    with a texture that wanders.
    """
    bits = (number >> np.arange(15, -1, -1) & 1).reshape(4, 4)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    texture = np.roll(
        np.random.default_rng(0).integers(-12, 13, (height, width, 3)), number, axis=1
    )
    return (40 + 175 * bits[np.ix_(rows, columns)][..., None] + texture).astype(np.uint8)


def barcodes(numbers: range, height: int = 128, width: int = 128) -> Iterator[np.ndarray]:
    return (barcode(number, height, width) for number in numbers)


def read_barcode(image: np.ndarray) -> int:
    """The number of a picture of any size, from the middle of each block."""
    height, width, _ = image.shape
    ys, xs = ((np.arange(4) * 2 + 1) * height) // 8, ((np.arange(4) * 2 + 1) * width) // 8
    bits = [
        int(image[max(y - 2, 0) : y + 2, max(x - 2, 0) : x + 2].mean() > 127)
        for y in ys
        for x in xs
    ]
    return int("".join(map(str, bits)), 2)


def read_barcodes(images: np.ndarray) -> list[int]:
    return [read_barcode(image) for image in images]


def remux(source: Path, target: Path, *, from_s: float = 0.0, movflags: str = "") -> Path:
    """Copy the packets without decoding, from `from_s` on: a cut between keyframes gives an mp4
    with an edit list.
    """
    with (
        av.open(str(source)) as old,
        av.open(str(target), "w", options={"movflags": movflags} if movflags else {}) as new,
    ):
        stream: Any = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        old.seek(round(from_s * av.time_base))
        ticks = round(from_s / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, copy
                new.mux(packet)
    return target


def hidden_keyframes(path: Path, **options: str) -> Path:
    """Scene cuts with one reference frame: pictures that decode alone and that libavformat calls
    keyframes, but the file's index does not.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", **options})
        stream.width = stream.height = 128
        context = stream.codec_context
        context.thread_count, context.gop_size, context.max_b_frames = 1, 30, 0
        for number, image in enumerate(barcodes(range(NUM_FRAMES))):
            noise = np.random.default_rng(number).integers(
                -20, 21, image.shape
            )  # new in each picture, or nothing looks like a cut
            frame = av.VideoFrame.from_ndarray(
                (image + noise).clip(0, 255).astype(np.uint8), format="rgb24"
            )
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def variable_times(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Rising times (num_frames,) in seconds with gaps from 20 ms to 0.6 s, whole milliseconds."""
    gaps = np.random.default_rng(5).choice([0.02, 0.033, 0.1, 0.6], num_frames - 1)
    return np.concatenate([[0.0], np.cumsum(gaps)])


def decodable(folder: Path) -> dict[str, tuple[Path, np.ndarray, int, bool]]:
    """Every clip that a reader must get right: name -> (path, true times from 0 in seconds, number
    of its first frame, is decord wrong).
    """
    numbers, steady = range(NUM_FRAMES), np.arange(NUM_FRAMES) / 25

    def clip(
        name: str, fps: float = 25, height: int = 128, width: int = 128, **options: object
    ) -> Path:
        return write_mp4(
            folder / name, barcodes(numbers, height, width), fps, **{"gop": 30, **options}
        )  # type: ignore[arg-type]

    b_frames = clip("b_frames.mp4", b_frames=3)
    return {
        "plain": (clip("plain.mp4"), steady, 0, False),
        "b_frames": (b_frames, steady, 0, False),
        "open_gop": (clip("open_gop.mp4", b_frames=4, open_gop=True), steady, 0, True),
        "open_gop_mkv": (clip("open_gop.mkv", b_frames=4, open_gop=True), steady, 0, True),
        "variable_rate": (
            clip("variable_rate.mp4", times_s=variable_times()),
            variable_times(),
            0,
            False,
        ),
        "variable_b_frames": (
            clip("variable_b_frames.mp4", b_frames=2, times_s=variable_times()),
            variable_times(),
            0,
            False,
        ),
        "variable_rate_mkv": (
            clip("variable_rate.mkv", times_s=variable_times()),
            variable_times(),
            0,
            False,
        ),
        "offset_mp4": (clip("offset.mp4", b_frames=2, start_s=5.0), steady, 0, False),
        "offset_mkv": (clip("offset.mkv", b_frames=2, start_s=5.0), steady, 0, False),
        "offset_ts": (clip("offset.ts", b_frames=2, start_s=5.0), steady, 0, True),
        "odd_size": (clip("odd_size.mp4", height=47, width=65, b_frames=2), steady, 0, False),
        "odd_shape": (clip("odd_shape.mp4", height=66, width=50), steady, 0, False),
        "ntsc": (clip("ntsc.mp4", NTSC, b_frames=2), np.arange(NUM_FRAMES) / NTSC, 0, False),
        "slow": (clip("slow.mp4", 2), np.arange(NUM_FRAMES) / 2, 0, False),
        "hidden_keyframes": (hidden_keyframes(folder / "hidden_keyframes.mp4"), steady, 0, True),
        # No picture is a keyframe as a whole: a column of intra blocks wanders over it.
        "intra_refresh": (
            hidden_keyframes(
                folder / "intra_refresh.mp4", **{"x264-params": "intra-refresh=1:scenecut=0"}
            ),
            steady,
            0,
            False,
        ),
        # Shown from 2.12 s on, which is frame 53; the packets from the keyframe 30 on come along,
        # hidden.
        "edit_list": (
            remux(b_frames, folder / "edit_list.mp4", from_s=2.12),
            steady[:-53],
            53,
            True,
        ),
    }


def damage(source: Path, target: Path, seed: int) -> Path:
    """A copy with 400 random bytes somewhere in the middle."""
    rng = np.random.default_rng(seed)
    data = bytearray(source.read_bytes())
    start = int(rng.integers(len(data) // 10, len(data) * 9 // 10))
    data[start : start + 400] = rng.bytes(400)
    target.write_bytes(data)
    return target


def spoilt(path: Path, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Which frames of a 25 fps clip (num_frames,) bool a strict front-to-back decode calls damaged:
    from the fault to the next keyframe.
    """
    bad, faulty = np.zeros(num_frames, dtype=bool), False
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            faulty = (faulty and not packet.is_keyframe) or packet.is_corrupt
            try:
                faulty = any(frame.is_corrupt for frame in packet.decode()) or faulty
            except av.FFmpegError:
                faulty = True
            if packet.pts is not None:
                bad[round(packet.pts * packet.time_base * 25)] = faulty
    return bad


def audio_only(path: Path) -> Path:
    """Half a second of silence, no video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 8000), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def rotate_header(path: Path, quarter_turns: int) -> Path:
    """Overwrite the display matrix in an mp4's track header, as a phone held upright does."""
    fixed = {0: (1, 0, 0, 1), 1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}

    def matrix(turns: int) -> bytes:
        a, b, c, d = (value << 16 for value in fixed[turns])
        return b"".join(
            value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30)
        )

    data = path.read_bytes()
    header = data.index(b"tkhd")
    path.write_bytes(data[:header] + data[header:].replace(matrix(0), matrix(quarter_turns), 1))
    return path
