"""Video files: frames at given times, segments of a stream, writing an mp4.

decord decodes; where decord is known to be wrong PyAV does, and says so. Every time is in seconds
after the first frame.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition

from timescope_lite.common import UserError, atomic_path

try:
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # else it prints the content of a bad file
except (
    ImportError,
    AttributeError,
):  # no wheel for this platform, or half removed: PyAV reads everything, announced for every file
    decord = None

# A time this close before a frame means that frame: Matroska rounds its timestamps to milliseconds.
EPSILON_S = 6e-4
TICKS_PER_S = 90_000
BACKENDS = ("auto", "decord", "pyav")


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """One video stream: `times_s` (num_frames,) are the frames' own timestamps; `note` says why
    `backend` is the fallback, else "".
    """

    path: Path
    duration_s: float
    num_frames: int
    width: int
    height: int
    times_s: np.ndarray
    backend: str
    note: str


@dataclass(frozen=True, eq=False)
class Segment:
    """S sampled frames: `times_s` (S,), `pixels` (S, size, size, 3) uint8 RGB. Entries from
    `num_valid` on repeat the last real one.
    """

    segment_idx: int
    times_s: np.ndarray
    pixels: np.ndarray
    num_valid: int


class _Packet(NamedTuple):
    pts: int
    is_key: bool
    is_discard: bool
    is_corrupt: bool
    duration: int


@dataclass(frozen=True, eq=False)
class _Index:
    """What the container lists, in ticks of `time_base`: when frames and keyframes are shown
    (ascending), when the last one ends.
    """

    path: Path
    pts: np.ndarray
    key_pts: np.ndarray
    end_pts: int
    time_base: Fraction
    trouble: str  # why decord would return wrong frames, as far as the packets tell

    def seconds(self, pts: Any) -> Any:
        return (pts - self.pts[0]) * float(self.time_base)


def probe(path: str | Path, *, backend: str = "auto") -> VideoInfo:
    """What a video holds and which decoder reads it. Lists all packets and decodes one frame;
    remembered until the file changes.

    Raises UserError if the file is missing, empty, cut off, damaged or holds no video, and for
    backend "decord" where decord is wrong.
    """
    return _inspect(Path(path), backend)[0]


def read_frames(
    path: str | Path,
    times_s: Sequence[float] | np.ndarray,
    *,
    size: int | None = None,
    backend: str = "auto",
) -> np.ndarray:
    """The frame on screen at each time in seconds, in the order asked: uint8 (F, H, W, 3) RGB, or
    (F, size, size, 3) by area mean.

    A time before the first frame gets the first. Raises UserError for a time more than one frame
    after the end, and as `probe` does.
    """
    info, index = _inspect(Path(path), backend)
    frame_idxs = _shown_at(info, np.asarray(times_s, dtype=np.float64).reshape(-1))
    height, width = (info.height, info.width) if size is None else (size, size)
    pixels = np.empty((len(frame_idxs), height, width, 3), dtype=np.uint8)
    with _Reader(index, info.backend) as reader:
        for frame_idx in np.unique(frame_idxs):
            pixels[frame_idxs == frame_idx] = _area_resize(reader.read(frame_idx), height, width)
    return pixels


def stream_segments(
    path: str | Path,
    *,
    fps: float = 1.0,
    frames_per_segment: int = 16,
    size: int = 64,
    backend: str = "auto",
) -> Iterator[Segment]:
    """Segments of the frames on screen at 0, 1/fps, 2/fps ... seconds, decoded front to back;
    memory does not grow with the video.

    The last segment is filled up with its last frame and time. Raises UserError at once as `probe`
    does, later where damage is met.
    """
    if not (0 < fps < math.inf and frames_per_segment >= 1 and size >= 1):
        raise UserError(
            f"fps={fps}, frames_per_segment={frames_per_segment}, size={size}: expected positive "
            "numbers"
        )
    info, index = _inspect(Path(path), backend)
    times_s = np.arange(max(math.ceil((info.duration_s - EPSILON_S) * fps), 1)) / fps
    return _segments(
        index, info.backend, times_s, _shown_at(info, times_s), frames_per_segment, size
    )


def _segments(
    index: _Index, backend: str, times_s: np.ndarray, frame_idxs: np.ndarray, S: int, size: int
) -> Iterator[Segment]:
    with _Reader(index, backend) as reader:
        for segment_idx, first in enumerate(range(0, len(times_s), S)):
            wanted = frame_idxs[first : first + S]
            rows = np.minimum(np.arange(S), len(wanted) - 1)
            pixels = np.stack(
                [_area_resize(reader.read(frame_idx), size, size) for frame_idx in wanted]
            )
            yield Segment(segment_idx, times_s[first + rows], pixels[rows], len(wanted))


def _shown_at(info: VideoInfo, times_s: np.ndarray) -> np.ndarray:
    """Index of the last frame that begins at or before each time."""
    frame_s = info.duration_s - info.times_s[-1]
    outside = times_s[
        ~(times_s <= info.duration_s + frame_s + EPSILON_S)
    ]  # so written, NaN is outside too
    if len(outside):
        raise UserError(
            f"{info.path}: time {outside[0]:.2f} s lies outside the video, which lasts "
            f"{info.duration_s:.2f} s"
        )
    return np.maximum(np.searchsorted(info.times_s, times_s + EPSILON_S, side="right") - 1, 0)


def _inspect(path: Path, backend: str) -> tuple[VideoInfo, _Index]:
    if backend not in BACKENDS:
        raise UserError(f"unknown video backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    try:
        stat = path.stat()
    except OSError as error:
        reason = (
            "does not exist"
            if isinstance(error, FileNotFoundError)
            else f"cannot be read ({error.strerror})"
        )
        raise UserError(f"video {path} {reason}; expected a video file such as an mp4") from None
    if not path.is_file() or not stat.st_size:
        raise UserError(
            f"video {path} {'is empty' if path.is_file() else 'is not a file'}; expected a video "
            "file such as an mp4"
        )
    info, index = _inspect_once(path, (stat.st_ino, stat.st_mtime_ns, stat.st_size), backend)
    if info.note:
        _announce(path, info.note)
    return info, index


@functools.lru_cache(maxsize=32)
def _inspect_once(
    path: Path, file_version: tuple[int, int, int], backend: str
) -> tuple[VideoInfo, _Index]:
    index = _list_frames(path)
    with _Reader(index, "pyav") as reader:
        shape = reader.read(0).shape
    times_s = index.seconds(index.pts)
    times_s.setflags(write=False)
    note = "" if backend == "pyav" else index.trouble or _decord_disagrees(path, times_s, shape)
    if note and backend == "decord":
        raise UserError(
            f"{path}: decord would return wrong frames, because {note}; use the backend 'auto' or "
            "'pyav'"
        )
    used = "pyav" if note or backend == "pyav" else "decord"
    return VideoInfo(
        path,
        float(index.seconds(index.end_pts)),
        len(times_s),
        shape[1],
        shape[0],
        times_s,
        used,
        note,
    ), index


@functools.cache  # once per file and reason
def _announce(path: Path, reason: str) -> None:
    warnings.warn(f"{path}: read with PyAV instead of decord, because {reason}", stacklevel=4)


def _open(path: Path) -> tuple[Any, Any]:
    """The container and its best video stream, one decoding thread; the caller closes the
    container.
    """
    try:
        # An absolute path, as libavformat takes "12:30.mp4" for an address.
        container: Any = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        cut_off = isinstance(error, av.InvalidDataError) and _is_cut_off(path)
        reason = "it is truncated" if cut_off else getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read as a video: {reason}; expected a whole video file such as an "
            "mp4"
        ) from None
    stream, kind = container.streams.best("video"), container.format.name
    if (
        stream is None
        or stream.disposition & Disposition.attached_pic
        or kind in ("tty", "image2")
        or kind.endswith("_pipe")
    ):
        problem = f"holds no video stream (format {kind}); expected a video such as an mp4"
    elif stream.codec_context is None:
        problem = "has a video codec that PyAV cannot decode; convert it to H.264"
    else:
        stream.codec_context.thread_count = 1
        return container, stream
    container.close()
    raise UserError(f"{path} {problem}")


def _list_frames(path: Path) -> _Index:
    """The index of a video, from its packets, none decoded. Raises UserError if the file is cut off
    or shows no frame.
    """
    container, stream = _open(path)
    with container:
        packets = _demux(path, container, stream)
        time_base = stream.time_base
        kind = container.format.name
        usual_ticks = round(1 / (stream.average_rate or 25) / time_base)
        num_sync = sum(entry.is_keyframe for entry in stream.index_entries)
    keys = np.unique([p.pts for p in packets if p.is_key]).astype(np.int64)
    # Nothing before the first keyframe can be decoded; what an edit list discards is not shown.
    shown = sorted(p for p in packets if len(keys) and p.pts >= keys[0] and not p.is_discard)
    if not shown:
        raise UserError(
            f"{path} has a video stream without a frame; copy or download the file again"
        )
    pts = np.unique([p.pts for p in shown]).astype(np.int64)
    last_ticks = shown[-1].duration or (int(pts[-1] - pts[-2]) if len(pts) > 1 else usual_ticks)
    index = _Index(
        path,
        pts,
        keys,
        int(pts[-1]) + last_ticks,
        time_base,
        _known_trouble(kind, packets, num_sync),
    )
    if _is_cut_off(path) or any(p.is_corrupt for p in shown):
        last_s = index.seconds(pts[-1])
        raise UserError(
            f"{path} is truncated or damaged: its frames break off at {last_s:.2f} s; copy or "
            "download the file again"
        )
    return index


def _demux(path: Path, container: Any, stream: Any) -> list[_Packet]:
    """The packets of `stream` in decoding order."""
    try:
        packets = [
            _Packet(p.pts, p.is_keyframe, p.is_discard, p.is_corrupt, p.duration or 0)
            for p in container.demux(stream)
            if p.size
        ]
    except av.FFmpegError as error:
        raise UserError(
            f"{path} is truncated or damaged: its frames cannot be listed ({error.strerror}); copy "
            "it again"
        ) from None
    if any(p.pts is None for p in packets):
        raise UserError(
            f"{path}: its frames carry no timestamps (format {container.format.name}); convert it "
            "to mp4"
        )
    return packets


def _is_cut_off(path: Path) -> bool:
    """Whether a file ends before the mp4 box (ISO 14496-12), Matroska segment (RFC 9559) or
    transport packet that it began.
    """
    size, start = path.stat().st_size, 0
    with path.open("rb") as file:
        head = file.read(4096)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            at = head.find(b"\x18\x53\x80\x67") + 4
            if at < 4 or len(head) < at + 8:
                return True
            width = 9 - head[at].bit_length()
            length = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
            return (
                length + 1 < 1 << 7 * width and at + width + length > size
            )  # all ones: of unknown length
        if head[:1] == b"\x47" or head[4:5] == b"\x47":
            return all(size % packet for packet in (188, 192, 204))
        while size - start >= 8:
            file.seek(start)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            length = int.from_bytes(header[8:], "big") if length == 1 else length
            if length < 8 or (
                start == 0 and name not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
            ):
                return False  # a last box of open length, or no mp4
            start += length
    return start > size and name in (b"moov", b"moof", b"mdat")


def _known_trouble(kind: str, packets: Sequence[_Packet], num_sync: int) -> str:
    """Why decord is known to be wrong about such a file, or "" (measured on files whose pixels
    carry the frame number).
    """
    if decord is None:
        return "decord is not installed, or damaged"
    if kind == "mpegts":
        return "it is an MPEG transport stream"
    if any(p.is_discard for p in packets):
        return "an edit list hides some of its frames"
    if min(p.pts for p in packets) < 0:
        return "its first timestamp is negative"
    if num_sync != sum(p.is_key for p in packets):
        # decord counts from the packet that it asked to seek to; a seek lands on what the
        # container's index lists.
        return "its index does not list the keyframes that its packets show"
    key_pts = packets[0].pts
    for packet in packets:
        key_pts = packet.pts if packet.is_key else key_pts
        if packet.pts < key_pts:
            return "its groups of pictures are open (frames refer back across a keyframe)"
    return ""


def _decord_disagrees(path: Path, times_s: np.ndarray, shape: tuple[int, ...]) -> str:
    """How decord's view of a file differs from the container's, or ""."""
    try:
        reader = decord.VideoReader(str(path.absolute()), num_threads=1)
        if len(reader) != len(times_s):
            return f"decord lists {len(reader)} frames and the container {len(times_s)}"
        # decord keeps seconds as float32.
        if not np.allclose(
            reader.get_frame_timestamp(range(len(reader)))[:, 0], times_s, rtol=1e-6, atol=EPSILON_S
        ):
            return "decord's timestamps differ from the container's"
        return "" if reader[0].shape == shape else "decord's picture size differs"
    except Exception as error:  # decord raises its own classes and bare RuntimeError
        return f"decord fails on it ({type(error).__name__})"


class _Reader:
    """Frames of one video by index, cheapest in ascending order.

    PyAV decodes every frame asked for, and decord again where it is trusted: decord paints over
    damaged data without a word, PyAV tells.
    """

    def __init__(self, index: _Index, backend: str) -> None:
        self._index = index
        self._decord = (
            decord.VideoReader(str(index.path.absolute()), num_threads=1)
            if backend == "decord"
            else None
        )
        self._container: Any = None
        self._frame: Any = None
        self._frames = self._decoded(None)
        self._first_pts: Any = None
        self._keys_are_clean = True
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._decord = None
        if self._container is not None:
            self._container.close()  # an open container is never freed

    def read(self, frame_idx: int) -> np.ndarray:
        """Frame `frame_idx`, (H, W, 3) uint8 RGB, upright. Raises UserError, with the second, where
        the file is damaged.
        """
        if frame_idx != self._last[0]:
            self._last = (frame_idx, self._pixels(int(frame_idx)))
        return self._last[1]

    def _pixels(self, frame_idx: int) -> np.ndarray:
        frame = self._decode(frame_idx)
        if self._decord is not None:
            try:
                return self._decord[frame_idx].asnumpy()
            except Exception as error:
                self._leave_decord(f"decord fails on it ({type(error).__name__})")
        return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)

    def _leave_decord(self, reason: str) -> None:
        if self._decord is not None:
            _announce(self._index.path, reason)
            self._decord = None

    def _decode(self, frame_idx: int) -> Any:
        pts, keys = int(self._index.pts[frame_idx]), self._index.key_pts
        own_idx = int(np.searchsorted(keys, pts, side="right")) - 1
        at_pts = self._index.pts[0] if self._frame is None else self._frame.pts
        if (
            at_pts <= pts
            and (keys[own_idx] <= at_pts or not self._keys_are_clean)
            and self._walk_to(pts)
        ):
            return self._frame
        # A seek does not always land where it was sent: after the frame's own keyframe try an
        # earlier one, then the beginning.
        for key_idx in (own_idx, max(own_idx - 4, 0), None):
            self._frame, self._frames, self._first_pts = None, self._decoded(key_idx), None
            found = self._walk_to(pts)
            if self._first_pts is not None and self._first_pts not in keys:
                # Rolling intra refresh: what comes first is a later, half refreshed picture. From
                # now on read without seeking.
                self._keys_are_clean = False
            if found and (key_idx is None or self._keys_are_clean):
                if self._first_pts != keys[own_idx]:
                    # decord counts frames from the keyframe on, whether or not that is what a seek
                    # brings first.
                    self._leave_decord("its keyframes cannot be reached or decoded alone")
                return self._frame
        self._frame, self._frames = None, iter(())
        second = self._index.seconds(pts)
        raise UserError(
            f"{self._index.path} is truncated or damaged: its frame at {second:.2f} s cannot be "
            "decoded; copy the file again"
        )

    def _decoded(self, key_idx: int | None) -> Iterator[Any]:
        """Frames from a keyframe on, or from the beginning, in order of display."""
        if key_idx is None or self._container is None:
            if self._container is not None:
                self._container.close()
            self._container, self._stream = _open(self._index.path)
        if key_idx is not None:
            self._container.seek(int(self._index.key_pts[key_idx]), stream=self._stream)
        first_pts = None
        for packet in self._container.demux(self._stream):
            if first_pts is None and packet.is_keyframe:
                first_pts = packet.pts
            if first_pts is not None:
                # Frames shown before the keyframe lean on pictures that were not read.
                yield from (
                    frame
                    for frame in packet.decode()
                    if frame.pts is not None and frame.pts >= first_pts
                )

    def _walk_to(self, pts: int) -> bool:
        """Decode on to the frame of exactly this timestamp; False if it does not come or if a frame
        on the way is damaged.
        """
        try:
            while self._frame is None or self._frame.pts < pts:
                self._frame = next(self._frames, None)
                if self._frame is None or self._frame.is_corrupt:
                    return False
                self._first_pts = self._frame.pts if self._first_pts is None else self._first_pts
        except (av.FFmpegError, UserError):
            return False
        return bool(self._frame.pts == pts)


@functools.lru_cache(maxsize=8)
def _overlaps(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) lengths shared by output and input pixels, in 1/n_out of an input pixel: whole
    numbers, each row adds up to n_in.
    """
    outer, inner = np.arange(n_out + 1) * n_in, np.arange(n_in + 1) * n_out
    shared = np.minimum.outer(outer[1:], inner[1:]) - np.maximum.outer(outer[:-1], inner[:-1])
    return np.maximum(shared, 0).astype(np.float32)


def _area_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean over the area that each output pixel covers, halves rounded up: (H, W, 3) ->
    (height, width, 3) uint8.
    """
    H, W, _ = image.shape
    if (H, W) == (height, width):
        return image
    if H % height == 0 and W % width == 0:  # the usual case, ten times faster
        area = H * W // (height * width)
        whole = image.reshape(height, H // height, width, W // width, 3).sum(
            axis=(1, 3), dtype=np.uint32
        )
        return ((2 * whole + area) // (2 * area)).astype(np.uint8)
    # Sums of whole numbers, small enough for float32 and then float64 to be exact: the same pixels
    # on every machine.
    rows = _overlaps(H, height) @ image.reshape(H, W * 3).astype(np.float32)
    sums = _overlaps(W, width).astype(np.float64) @ rows.reshape(height, W, 3).astype(np.float64)
    return np.floor(sums / (H * W) + 0.5).astype(np.uint8)


def write_mp4(  # noqa: PLR0913
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    times_s: Sequence[float] | np.ndarray | None = None,
    start_s: float = 0.0,
    crf: int = 20,
    gop: int = 48,
    b_frames: int = 0,
    open_gop: bool = False,
) -> Path:
    """Encode uint8 RGB frames (H, W, 3) as H.264 into .mp4, .mkv or .ts; the same bytes each time;
    nothing is left if it fails.

    Frame i begins at `start_s` + i / fps, or + `times_s[i]`; the last one lasts 1 / fps. A keyframe
    comes at least every `gop` frames. Raises UserError for no frames, frames of differing shape, or
    times that do not rise or are not one per frame.
    """
    path = Path(path)
    if path.suffix not in (".mp4", ".mkv", ".ts") or not 0 < fps < math.inf:
        raise UserError(
            f"cannot write {path} at {fps} frames per second: expected .mp4, .mkv or .ts and a "
            "positive rate"
        )
    with (
        atomic_path(path) as temporary,
        av.open(str(temporary.absolute()), "w", options={"fflags": "+bitexact"}) as container,
    ):
        stream: Any = None
        for frame in _timed_frames(frames, fps, times_s, start_s):
            stream = stream or _add_h264(container, frame, fps, crf, gop, b_frames, open_gop)
            if (frame.width, frame.height) != (stream.width, stream.height):
                raise UserError(
                    f"{path}: frames of {stream.width}x{stream.height} and "
                    f"{frame.width}x{frame.height} cannot share a video"
                )
            container.mux(stream.encode(frame))
        if stream is None:
            raise UserError(f"{path}: no frames to write; expected at least one")
        container.mux(stream.encode(None))
    return path


def _timed_frames(
    images: Iterable[np.ndarray],
    fps: float,
    times_s: Sequence[float] | np.ndarray | None,
    start_s: float,
) -> Iterator[Any]:
    """PyAV frames with timestamps and durations. Without a duration the last frame would last as
    long as the one before.
    """
    times = None if times_s is None else [float(t) for t in times_s]
    ends = times and [*times[1:], times[-1] + 1 / fps]
    n = -1
    for n, image in enumerate(images):
        if times is not None and n >= len(times):
            raise UserError(
                f"{len(times)} times for more frames than that; give one time per frame"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(f"frame {n} is {image.dtype} {image.shape}; expected uint8 (H, W, 3)")
        start, end = (times[n], ends[n]) if times and ends else (n / fps, (n + 1) / fps)
        first_tick = round((start_s + start) * TICKS_PER_S)
        end_tick = round((start_s + end) * TICKS_PER_S)
        if not 0 <= first_tick < end_tick:
            raise UserError(
                f"frame {n} is shown from {start} s to {end} s; expected times that rise from 0 s "
                "on"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = first_tick
        frame.duration = end_tick - first_tick
        frame.time_base = Fraction(1, TICKS_PER_S)
        yield frame
    if times is not None and n + 1 != len(times):
        raise UserError(f"{len(times)} times for {n + 1} frames; give one time per frame")


def _add_h264(  # noqa: PLR0913
    container: Any, first: Any, fps: float, crf: int, gop: int, b_frames: int, open_gop: bool
) -> Any:
    """An H.264 stream for frames like `first`; one thread, as the bytes depend on how many there
    are; no scene cuts, as decord miscounts them.
    """
    options = {
        "crf": str(crf),
        "preset": "veryfast",
        "x264-params": f"scenecut=0:open-gop={int(open_gop)}",
    }
    stream = container.add_stream(
        "libx264", rate=Fraction(fps).limit_denominator(1001), options=options
    )
    stream.width, stream.height = first.width, first.height
    # 4:2:0 halves both sides of the colour planes, so that odd sizes need 4:4:4.
    stream.pix_fmt = "yuv444p" if first.width % 2 or first.height % 2 else "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, TICKS_PER_S)
    context.thread_count = 1
    context.gop_size = gop
    context.max_b_frames = b_frames
    return stream
