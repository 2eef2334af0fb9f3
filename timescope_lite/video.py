"""Video files: frames at given times, segments of a stream, writing an mp4.

decord decodes; where decord is known to be wrong PyAV does, and says so. Every time is in seconds
after the first frame.
"""

from __future__ import annotations

import functools
import math
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
# Where decord was measured against frames that carry their numbers.
DECORD_READS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# Codecs of pictures: one frame of such is a photograph, whatever the container.
PICTURES = frozenset(
    "apng bmp gif jpeg2000 jpegls jpegxl mjpeg pam pbm pgm png ppm qoi targa tiff webp".split()
)
STILLS = ("gif", "apng", "webp", "ico", "avif", "jpegxl_anim")  # demuxers of pictures
PICTURE_BRANDS = ("avif", "avis", "mif1", "msf1", "heic", "heix", "heim", "heis", "jpeg")
LONGEST_S = 14 * 86_400.0
LATE_S = 0.1  # a picture that starts this long after the sound gets a note
FFMPEG = "ffmpeg -i {name} {stem}.mp4"


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """One video stream: `times_s` (num_frames,) are the frames' own timestamps; `note` says why
    `backend` is the fallback and what else is unusual about the file, else "".
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
    pts: int | None
    dts: int | None
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
    remarks: tuple[str, ...] = ()
    # Timestamps do not find a frame here (they restart, or there are none): frame i is the i-th
    # that a decoder shows.
    is_counted: bool = False

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
            f"{math.floor(info.duration_s * 100 + 1e-6) / 100:.2f} s"
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
    for remark in index.remarks:
        _announce(path, remark)
    reason = info.note.removesuffix("; ".join(index.remarks)).removesuffix("; ")
    if reason:
        _announce(path, f"read with PyAV instead of decord, because {reason}")
    return info, index


@functools.lru_cache(maxsize=32)
def _inspect_once(
    path: Path, file_version: tuple[int, int, int], backend: str
) -> tuple[VideoInfo, _Index]:
    index = _list_frames(path)
    with _Reader(index, "pyav") as reader:
        shape = reader.read(0).shape
        turned = reader.trouble_with_orientation
    times_s = index.seconds(index.pts)
    times_s.setflags(write=False)
    note = "" if backend == "pyav" else index.trouble or turned
    if not note and backend != "pyav":
        note = _decord_disagrees(path, times_s, shape)
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
        "; ".join(filter(None, [note, *index.remarks])),
    ), index


@functools.cache  # once per file and reason
def _announce(path: Path, remark: str) -> None:
    warnings.warn(f"{path}: {remark}", stacklevel=4)


def _open(path: Path) -> tuple[Any, Any]:
    """The container and its best video stream, one decoding thread; the caller closes the
    container.
    """
    try:
        # An absolute path, as libavformat takes "12:30.mp4" for an address.
        container: Any = av.open(str(path.absolute()), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        cut_off = isinstance(error, av.InvalidDataError | EOFError) and (
            _is_cut_off(path) or _ends_in_a_packet(path)
        )
        reason = "it is truncated" if cut_off else getattr(error, "strerror", None) or error
        raise UserError(
            f"{path} cannot be read as a video: {reason}; expected a whole video file such as an "
            "mp4"
        ) from None
    stream, kind = container.streams.best("video"), container.format.name
    if kind == "image2" or kind.endswith("_pipe"):
        problem = f"is a picture: it holds no video stream (format {kind}); expected a video"
    elif stream is None or stream.disposition & Disposition.attached_pic or kind in ("tty", "lrc"):
        problem = f"holds no video stream (format {kind}); expected a video such as an mp4"
    elif stream.codec_context is None:
        problem = "has a video codec that PyAV cannot decode; convert it to H.264"
    else:
        stream.codec_context.thread_count = 1
        return container, stream
    container.close()
    raise UserError(f"{path} {problem}")


def _list_frames(path: Path) -> _Index:
    """The index of a video, from its packets, none decoded unless their timestamps do not tell.
    Raises UserError if the file is cut off, shows no frame or is a still picture.
    """
    container, stream = _open(path)
    with container:
        packets, time_base, kind = (
            _demux(path, container, stream),
            stream.time_base,
            container.format.name,
        )
        rate = stream.average_rate or stream.guessed_rate or 25
        usual_ticks = max(round(1 / rate / time_base), 1)
        num_sync = sum(entry.is_keyframe for entry in stream.index_entries)
        claimed = stream.frames
        _refuse_a_picture(path, container, stream, packets)
        remarks = _late_start(container, stream)
        must_count = _why_count(kind, stream, packets)
    if kind == "mpegts" and _ends_in_a_packet(path):
        remarks += ("its last packet is incomplete: what is whole is read, the end may be missing",)
    if must_count:
        remarks += ("its frames were counted by decoding it once",)
        index = _counted(path, packets, usual_ticks, remarks)
        return _plausible(replace(index, trouble=must_count))
    index = _listed(path, packets, time_base, usual_ticks)
    trouble = _known_trouble(kind, packets, num_sync)
    if claimed > 2 * len(packets) + 100:  # decord believes it, and asks for the memory
        trouble = f"its header claims {claimed} frames"
    index = replace(index, trouble=trouble, remarks=remarks)
    last_pts = index.pts[-1] if kind == "mpegts" else index.end_pts
    spoilt = any(p.is_corrupt and index.pts[0] <= (p.pts or 0) < last_pts for p in packets)
    if _is_cut_off(path) or spoilt:
        last_s = index.seconds(index.pts[-1])
        raise UserError(
            f"{path} is truncated or damaged: its frames break off at {last_s:.2f} s; copy or "
            "download the file again"
        )
    index = _plausible(index)
    return _without_a_broken_end(index) if kind == "mpegts" else index


def _plausible(index: _Index) -> _Index:
    """The index, or UserError if it lasts for weeks: damage to one timestamp, not a video."""
    lasts_s = index.seconds(index.end_pts)
    if not 0 < lasts_s <= LONGEST_S:
        raise UserError(
            f"{index.path} is damaged: its timestamps say that {len(index.pts)} frames last "
            f"{lasts_s / 86_400:.0f} days; copy or download the file again"
        )
    return index


def _listed(
    path: Path, packets: Sequence[_Packet], time_base: Fraction, usual_ticks: int
) -> _Index:
    """The index that the timestamps of the packets give."""
    keys = np.unique([p.pts for p in packets if p.is_key]).astype(np.int64)
    # Nothing before the first keyframe can be decoded; what an edit list discards is not shown.
    shown = [p for p in packets if len(keys) and (p.pts or 0) >= keys[0] and not p.is_discard]
    if not shown:
        raise UserError(
            f"{path} has a video stream without a frame: it is truncated; copy or download the "
            "file again"
        )
    last = max(shown, key=lambda p: p.pts or 0)
    pts = np.unique([p.pts for p in shown]).astype(np.int64)
    last_ticks = last.duration or (int(pts[-1] - pts[-2]) if len(pts) > 1 else usual_ticks)
    return _Index(path, pts, keys, int(pts[-1]) + last_ticks, time_base, "")


def _refuse_a_picture(path: Path, container: Any, stream: Any, packets: Sequence[_Packet]) -> None:
    """UserError for a still picture in whatever container: one frame of a codec or a brand that is
    made for pictures.
    """
    brand = container.metadata.get("major_brand", "")
    of_pictures = (
        container.format.name in STILLS
        or stream.codec_context.codec.name in PICTURES
        or brand in PICTURE_BRANDS
        or bool(stream.disposition & Disposition.still_image)
    )
    if of_pictures and len(packets) <= 1:
        kind = brand or container.format.name
        raise UserError(
            f"{path} is a picture: it holds no video stream, only one frame (format {kind}); "
            "expected a video"
        )


def _late_start(container: Any, stream: Any) -> tuple[str, ...]:
    """A remark if the picture starts after the sound: a player counts from the earlier one."""
    starts = [
        float(other.start_time * other.time_base)
        for other in container.streams
        if other.start_time is not None and other.type in ("audio", "video")
    ]
    if stream.start_time is None or not starts:
        return ()
    late_s = float(stream.start_time * stream.time_base) - min(starts)
    if late_s < LATE_S:
        return ()
    return (
        f"its picture starts {late_s:.2f} s after its sound: times count from the first picture, "
        f"so that a player shows each {late_s:.2f} s later",
    )


def _why_count(kind: str, stream: Any, packets: Sequence[_Packet]) -> str:
    """Why timestamps do not find the frames of a file, or ""."""
    if kind == "avi":
        reordered = stream.codec_context.has_b_frames or len({p.pts for p in packets}) < len(
            packets
        )
        return "AVI holds no timestamps for reordered frames" if reordered else ""
    if kind in DECORD_READS:
        return ""
    order = [p.dts for p in packets if p.dts is not None]
    shown = [p.pts for p in packets if p.pts is not None]
    if len(shown) < len(packets):
        return "some of its frames carry no timestamps"
    if any(later < earlier for earlier, later in zip(order, order[1:], strict=False)):
        return "its clock restarts"
    return "its clock shows a time twice" if len(set(shown)) < len(shown) else ""


def _counted(
    path: Path, packets: Sequence[_Packet], usual_ticks: int, remarks: tuple[str, ...]
) -> _Index:
    """The index of a video whose frames are told by their number: decodes it once."""
    found: list[int | None] = []
    container, stream = _open(path)
    with container:
        time_base, kind = stream.time_base, container.format.name
        try:
            found += [frame.pts for frame in container.decode(stream)]
        except av.FFmpegError as error:
            raise UserError(
                f"{path} is truncated or damaged: its frame {len(found)} cannot be decoded "
                f"({error.strerror}); copy the file again"
            ) from None
    if not found or (_is_cut_off(path) and kind != "mpegts"):
        raise UserError(
            f"{path} is truncated or damaged: {len(found)} frames are whole; copy or download the "
            "file again"
        )
    pts = (
        _avi_times(path, packets, len(found), usual_ticks)
        if kind == "avi"
        else _unwrapped(found, usual_ticks)
    )
    step = int(np.median(np.diff(pts))) if len(pts) > 1 else usual_ticks
    return _Index(
        path,
        pts,
        pts[:1],
        int(pts[-1]) + step,
        time_base,
        "",
        remarks,
        is_counted=True,
    )


def _avi_times(
    path: Path, packets: Sequence[_Packet], num_frames: int, usual_ticks: int
) -> np.ndarray:
    """AVI counts frames at a fixed rate; a frame that was dropped is a packet without data. The
    i-th frame shown comes at the time of the i-th packet.
    """
    ticks = sorted(p.dts for p in packets if p.dts is not None)
    if len(ticks) == num_frames:
        return np.array(ticks, dtype=np.int64)
    if len(ticks) and ticks[-1] - ticks[0] == (len(ticks) - 1) * usual_ticks:
        if 0 < num_frames <= len(ticks) + 2 and num_frames >= len(ticks) - 2:
            return np.arange(num_frames, dtype=np.int64) * usual_ticks
    command = FFMPEG.format(name=path.name, stem=path.stem)
    raise UserError(
        f"{path}: {num_frames} frames are decoded from {len(ticks)} packets, and AVI holds no "
        f"timestamps to tell which; convert it to mp4 ({command})"
    )


def _unwrapped(found: Sequence[int | None], usual_ticks: int) -> np.ndarray:
    """Rising times from those of the frames in order of display: where they go backwards the clock
    was set anew, and goes on one frame later.
    """
    known = [t for t in found if t is not None]
    gaps = np.diff(known)
    step = int(np.median(gaps[gaps > 0])) if (gaps > 0).any() else usual_ticks
    times: list[int] = []
    offset = 0
    for time in found:
        at = (times[-1] + step if times else 0) if time is None else time + offset
        if times and at <= times[-1]:
            offset += times[-1] + step - at
            at = times[-1] + step
        times.append(at)
    return np.array(times, dtype=np.int64)


def _without_a_broken_end(index: _Index) -> _Index:
    """A transport stream without the last frame, if that is not whole: a recording has no end that
    could be missed.
    """
    for _ in range(3):
        with _Reader(index, "pyav") as reader:
            try:
                reader.read(len(index.pts) - 1)
                return index
            except UserError:
                if len(index.pts) < 2:
                    raise
        index = replace(index, pts=index.pts[:-1], end_pts=int(index.pts[-1]))
    return index


def _demux(path: Path, container: Any, stream: Any) -> list[_Packet]:
    """The packets of `stream` in decoding order."""
    try:
        packets = [
            _Packet(p.pts, p.dts, p.is_keyframe, p.is_discard, p.is_corrupt, p.duration or 0)
            for p in container.demux(stream)
            if p.size
        ]
    except av.FFmpegError as error:
        raise UserError(
            f"{path} is truncated or damaged: its frames cannot be listed ({error.strerror}); copy "
            "it again"
        ) from None
    pictures = container.format.name in STILLS and len(packets) == 1
    may_lack = container.format.name in ("mpegts", "avi") or pictures
    if any(p.pts is None for p in packets) and not may_lack:
        command = FFMPEG.format(name=path.name, stem=path.stem)
        raise UserError(
            f"{path}: its frames carry no timestamps (format {container.format.name}); convert it "
            f"to mp4 ({command})"
        )
    return packets


def _ends_in_a_packet(path: Path) -> bool:
    """Whether a transport stream breaks off inside a packet."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(5)
    is_ts = head[:1] == b"\x47" and head[:4] != b"GIF8" or head[4:5] == b"\x47"
    return is_ts and all(size % packet for packet in (188, 192, 204))


def _is_cut_off(path: Path) -> bool:
    """Whether a file ends before the mp4 box (ISO 14496-12), Matroska segment (RFC 9559), RIFF
    chunk or FLV tag that it began, or without the end mark of a GIF.
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
        if head[:4] == b"GIF8":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0\r\n").endswith(b"\x3b")
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size
        if head[:3] == b"FLV":
            return _flv_breaks_off(file, size)
        if head[:1] == b"\x47" or head[4:5] == b"\x47":
            return False  # a transport stream ends where it ends
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


def _flv_breaks_off(file: Any, size: int) -> bool:
    """Whether the last tag of an FLV is not whole (each is followed by its size)."""
    file.seek(5)
    start = int.from_bytes(file.read(4), "big") + 4
    while start + 11 <= size:
        file.seek(start)
        start += 11 + int.from_bytes(file.read(4)[1:4], "big") + 4
    return start != size


def _known_trouble(kind: str, packets: Sequence[_Packet], num_sync: int) -> str:
    """Why decord is known to be wrong about such a file, or "" (measured on files whose pixels
    carry the frame number).
    """
    if decord is None:
        return "decord is not installed, or damaged"
    if kind == "mpegts":
        return "it is an MPEG transport stream"
    if kind not in DECORD_READS:
        return f"decord was not measured on its format ({kind})"
    if any(p.is_discard for p in packets):
        return "an edit list hides some of its frames"
    if min(p.pts or 0 for p in packets) < 0:
        return "its first timestamp is negative"
    if num_sync != sum(p.is_key for p in packets):
        # decord counts from the packet that it asked to seek to; a seek lands on what the
        # container's index lists.
        return "its index does not list the keyframes that its packets show"
    key_pts = packets[0].pts or 0
    for packet in packets:
        pts = packet.pts or 0
        key_pts = pts if packet.is_key else key_pts
        if pts < key_pts:
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
        self._number = -1  # of the frame that was decoded last, where frames are counted
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
        return _upright(frame.to_ndarray(format="rgb24"), _display_matrix(frame))

    @property
    def trouble_with_orientation(self) -> str:
        """Why decord would show the frame that was read last the wrong way round, or ""."""
        matrix = None if self._frame is None else _display_matrix(self._frame)
        if matrix is None or tuple(np.sign(matrix)) == (1, 0, 0, 1):
            return ""
        a, b, c, d = matrix
        exact = (a == d and b == -c) and 0 in (a, b) and (a, b) != (0, 0)
        return "" if exact else "its display matrix mirrors, or turns by no exact quarter"

    def _leave_decord(self, reason: str) -> None:
        if self._decord is not None:
            remark = f"read with PyAV instead of decord, because {reason}"
            _announce(self._index.path, remark)
            self._decord = None

    def _decode(self, frame_idx: int) -> Any:
        if self._index.is_counted:
            return self._decode_counted(frame_idx)
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

    def _decode_counted(self, frame_idx: int) -> Any:
        """The frame of this number, front to back."""
        if self._container is None or frame_idx < self._number:
            if self._container is not None:
                self._container.close()
            self._container, self._stream = _open(self._index.path)
            self._frames, self._number = self._container.decode(self._stream), -1
        try:
            while self._number < frame_idx:
                self._frame = next(self._frames)
                self._number += 1
        except (av.FFmpegError, StopIteration):
            self._frame = None
        if self._frame is None or self._frame.is_corrupt:
            second = self._index.seconds(self._index.pts[frame_idx])
            raise UserError(
                f"{self._index.path} is truncated or damaged: its frame at {second:.2f} s cannot "
                "be decoded; copy the file again"
            )
        return self._frame

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


def _display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """The upper left (a, b, c, d) of a frame's display matrix, or None: a point (x, y) is shown at
    (a x + c y, b x + d y). All zeros is no matrix.
    """
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            matrix = struct.unpack("<9i", bytes(data)[:36])
            a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
            return (a, b, c, d) if a or b or c or d else None
    return None


def _upright(image: np.ndarray, matrix: tuple[int, int, int, int] | None) -> np.ndarray:
    """An image (H, W, 3) as a display matrix shows it, mirrored or to the nearest quarter turn."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        flip_x, flip_y = a < 0, d < 0
    else:
        image = image.swapaxes(0, 1)
        flip_x, flip_y = c < 0, b < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


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
        first_tick, end_tick = (
            round((start_s + start) * TICKS_PER_S),
            round((start_s + end) * TICKS_PER_S),
        )
        if not 0 <= first_tick < end_tick:
            raise UserError(
                f"frame {n} is shown from {start} s to {end} s; expected times that rise from 0 s "
                "on"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.duration, frame.time_base = (
            first_tick,
            end_tick - first_tick,
            Fraction(1, TICKS_PER_S),
        )
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
    context.time_base, context.thread_count, context.gop_size, context.max_b_frames = (
        Fraction(1, TICKS_PER_S),
        1,
        gop,
        b_frames,
    )
    return stream
