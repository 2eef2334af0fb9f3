"""Containers x codecs x traits: files whose pixels carry the frame number, read by the library and
compared with what was put in. By one command, from the root of the project:

    python tests/video_matrix.py            # print the table
    python tests/video_matrix.py --record   # write it into docs/files.md
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import clips
import numpy as np

from timescope_lite.common import UserError
from timescope_lite.video import probe, read_frames

FPS, COUNT = 10, 40
DOCS = Path(__file__).resolve().parents[1] / "docs" / "files.md"
MARKS = ("<!-- matrix -->", "<!-- /matrix -->")


class Case(NamedTuple):
    """One file: how it is made, what it should show."""

    container: str
    codec: str
    trait: str
    make: Callable[[Path], Path]
    numbers: list[int]
    times_s: np.ndarray
    turn: Callable[[np.ndarray], np.ndarray] | None = None
    may_refuse: bool = False


def encode(  # noqa: PLR0913
    path: Path,
    codec: str,
    numbers: range = range(COUNT),
    *,
    b_frames: int = 0,
    sound_s: float = 0.0,
    times_s: np.ndarray | None = None,
    size: tuple[int, int] = (96, 96),
    format: str | None = None,
) -> Path:
    """Barcodes as `codec`; with `sound_s` the picture starts so long after the sound."""
    with av.open(str(path), "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=FPS)
        stream.width, stream.height = size[1], size[0]
        wanted = {"gif": "bgr8", "ffv1": "yuv420p", "mjpeg": "yuvj420p", "png": "rgb24"}
        stream.pix_fmt = wanted.get(codec, "yuv422p10le" if "prores" in codec else "yuv420p")
        context = stream.codec_context
        context.thread_count, context.gop_size = 1, 10
        if b_frames:
            context.max_b_frames = b_frames
        if codec not in ("gif", "ffv1", "png", "huffyuv"):
            stream.bit_rate = 3_000_000
        if times_s is not None:
            context.time_base = Fraction(1, 1000)
        sound = container.add_stream("aac", rate=16_000, layout="mono") if sound_s else None
        if sound is not None:
            _silence(container, sound, sound_s)
        for i, image in enumerate(clips.barcodes(numbers, *size)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_s is None:
                frame.pts, frame.time_base = i + round(sound_s * FPS), Fraction(1, FPS)
            else:
                frame.pts, frame.time_base = round(times_s[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    return path


def _silence(container: Any, sound: Any, seconds: float) -> None:
    for i in range(int((seconds + 2) * 16_000 / 1024)):
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 16_000, i * 1024, Fraction(1, 16_000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def restarted(path: Path, codec: str, overlap: bool = False) -> Path:
    """Two transport streams one after the other, each with its own clock; `overlap`: the second
    begins before the first has ended, but after it began.
    """
    half = COUNT // 2
    parts = []
    for n, numbers in enumerate((range(half), range(half, COUNT))):
        part = path.with_name(f"part{n}.ts")
        late = np.arange(half) / FPS + (1.0 if overlap and n else 0.0)
        encode(part, codec, numbers, times_s=late if overlap else None)
        parts.append(part.read_bytes())
        part.unlink()
    path.write_bytes(_continuous(b"".join(parts)))
    return path


def _continuous(data: bytes) -> bytes:
    """The packets of a transport stream with continuity counters that go on over the joint."""
    packets, counters = bytearray(data), dict[int, int]()
    for at in range(0, len(packets), 188):
        pid = struct.unpack(">H", packets[at + 1 : at + 3])[0] & 0x1FFF
        if packets[at + 3] & 0x10:  # it has a payload
            counters[pid] = (counters.get(pid, -1) + 1) % 16
        packets[at + 3] = packets[at + 3] & 0xF0 | max(counters.get(pid, 0), 0)
    return bytes(packets)


def with_tail(path: Path, codec: str) -> Path:
    path = encode(path, codec)
    path.write_bytes(path.read_bytes() + b"\x47" + bytes(99))
    return path


def cut(path: Path, codec: str, share: float = 0.6) -> Path:
    path = encode(path, codec)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) | 1])
    return path


def packed_avi(path: Path) -> Path:
    """MPEG-4 in AVI as DivX wrote it: a P and its B in one packet, then a place-holder."""
    source = encode(path.with_suffix(".mp4"), "mpeg4", b_frames=1)
    packets = []
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        header = bytes(stream.codec_context.extradata or b"")
        packets = [(bytes(p), p.is_keyframe) for p in container.demux(stream) if p.size]
    source.unlink()
    mark = header + b"\x00\x00\x01\xb2DivX503b1393p"
    joined: list[tuple[bytes, bool]] = []
    for data, is_key in packets:
        is_b = (data[data.index(b"\x00\x00\x01\xb6") + 4] >> 6) == 2
        if is_b and joined:
            last, was_key = joined.pop()
            joined += [(last + data, was_key), (b"\x00\x00\x01\xb6\x50\x00\x7f", False)]
        else:
            joined.append((mark + data if is_key else data, is_key))
    with av.open(str(path), "w") as target:
        copy: Any = target.add_stream("mpeg4", rate=FPS)
        copy.width = copy.height = 96
        copy.pix_fmt = "yuv420p"
        for i, (data, is_key) in enumerate(joined):
            packet = av.Packet(data)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, FPS), copy, is_key
            target.mux(packet)
    return path


def with_matrix(path: Path, matrix: tuple[float, ...]) -> Path:
    """An mp4 or mov whose track header holds this (a, b, c, d)."""
    path = encode(path, "libx264", size=(64, 96))
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * 65536) for value in matrix)
    path.write_bytes(
        data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]
    )
    return path


TURNS: dict[str, tuple[tuple[float, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down and mirrored": ((1, 0, 0, -1), lambda x: x[::-1]),
    "quarter turn": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half turn": ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    "three quarter turns": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "transposed": ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    "transposed, other diagonal": ((0, -1, -1, 0), lambda x: x.swapaxes(0, 1)[::-1, ::-1]),
    "89.97 degrees": ((0.0005, 1, -1, 0.0005), lambda x: np.rot90(x, -1)),
    "179.95 degrees": ((-1, 0.0009, -0.0009, -1), lambda x: x[::-1, ::-1]),
    "all zeros": ((0, 0, 0, 0), lambda x: x),
}

CODECS: dict[str, list[str]] = {
    "mp4": ["libx264", "libx265", "mpeg4", "libsvtav1", "mjpeg"],
    "mov": ["libx264", "prores", "mjpeg", "png"],
    "mkv": ["libx264", "libx265", "libvpx-vp9", "ffv1", "mpeg4"],
    "webm": ["libvpx", "libvpx-vp9", "libsvtav1"],
    "ts": ["libx264", "libx265", "mpeg2video"],
    "avi": ["libx264", "mpeg4", "mjpeg", "ffv1"],
    "flv": ["libx264", "flv"],
    "3gp": ["libx264", "mpeg4"],
    "gif": ["gif"],
    "mpg": ["mpeg2video"],
    "ogv": ["libtheora"],
    "asf": ["wmv2"],
}
WITH_B = {"libx264", "mpeg4", "mpeg2video"}
STEADY = np.arange(COUNT) / FPS


def cases() -> Iterator[Case]:
    """Every row of the matrix."""
    everything = list(range(COUNT))
    for container, codecs in CODECS.items():
        for codec in codecs:
            if codec not in av.codecs_available:
                continue

            def plain(path: Path, codec: str = codec, **options: Any) -> Path:
                return encode(path, codec, **options)

            yield Case(container, codec, "plain", plain, everything, STEADY)
            if codec in WITH_B and container != "mpg":
                yield Case(
                    container, codec, "B-frames",
                    lambda path, make=plain: make(path, b_frames=2), everything, STEADY,
                )  # fmt: skip
            yield Case(
                container, codec, "cut at 60 %",
                lambda path, codec=codec: cut(path, codec), [], STEADY, may_refuse=True,
            )  # fmt: skip
            one = container == "gif" or codec in ("png", "mjpeg")
            # libavcodec itself cannot decode a single MPEG-2 picture out of a transport stream.
            one_fails = (container, codec) == ("ts", "mpeg2video")
            if codec == "libx265" and container == "mkv":
                continue  # one picture of x265 lacks the timestamp that the muxer wants
            yield Case(
                container, codec, "one frame",
                lambda path, make=plain: make(path, numbers=range(7, 8)),
                [] if one else [7], STEADY[:1], may_refuse=one or one_fails,
            )  # fmt: skip
    yield from _special(everything)


def _special(everything: list[int]) -> Iterator[Case]:
    for codec in ("libx264", "mpeg2video"):
        for trait, overlap in (("clock restarts", False), ("clock overlaps", True)):
            if overlap and codec == "mpeg2video":  # it knows fixed rates only
                continue
            yield Case(
                "ts", codec, trait,
                lambda path, codec=codec, overlap=overlap: restarted(path, codec, overlap),
                everything, STEADY,
            )  # fmt: skip
        yield Case(
            "ts", codec, "partial last packet",
            lambda path, codec=codec: with_tail(path, codec), everything, STEADY,
        )  # fmt: skip
    yield Case("avi", "mpeg4", "packed B-frames", packed_avi, everything, STEADY)
    for container in ("mp4", "mov", "mkv", "ts", "flv"):
        yield Case(
            container, "libx264", "picture 2 s after sound",
            lambda path: encode(path, "libx264", sound_s=2.0), everything, STEADY,
        )  # fmt: skip
    uneven = clips.variable_times(COUNT)
    for container in ("mp4", "mov", "mkv", "ts", "flv"):
        yield Case(
            container, "libx264", "variable rate",
            lambda path: encode(path, "libx264", times_s=uneven), everything, uneven,
        )  # fmt: skip
    for container in ("mp4", "mov"):
        for trait, (matrix, turn) in TURNS.items():
            yield Case(
                container, "libx264", trait,
                lambda path, matrix=matrix: with_matrix(path, matrix), everything, STEADY, turn,
            )  # fmt: skip


class Verdict(NamedTuple):
    """`outcome`: exact, refused, prefix (of a stream that was cut) or WRONG; `words`: the refusal
    or the note.
    """

    outcome: str
    words: str


def judge(case: Case, folder: Path) -> Verdict:
    """Make the file of a case, read it in order, at random and with both decoders."""
    path = case.make(folder / f"clip.{case.container}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            info = probe(path)
            order = np.random.default_rng(0).permutation(info.num_frames)
            images = read_frames(path, info.times_s)
            shuffled = read_frames(path, info.times_s[order])
            alike = np.array_equal(images, read_frames(path, info.times_s, backend="pyav"))
        except UserError as error:
            return Verdict("refused", str(error).replace(str(path), path.name))
    in_order = np.array_equal(images[order], shuffled) and alike
    turn = case.turn
    if turn is not None:
        images = _turned_back(images, turn)
    numbers = clips.read_barcodes(images) if images is not None else []
    good_times = np.allclose(info.times_s, case.times_s[: len(numbers)], atol=2e-3)
    if in_order and good_times and numbers == case.numbers:
        return Verdict("exact", info.note)
    whole = list(range(len(numbers)))
    if in_order and good_times and numbers == whole and case.trait.startswith("cut") and info.note:
        return Verdict(f"the whole frames ({len(numbers)})", info.note)
    return Verdict("WRONG", f"{len(numbers)} frames, {numbers[:12]}; {info.note}")


def _turned_back(images: np.ndarray, turn: Callable[[np.ndarray], np.ndarray]) -> Any:
    """The frames as they were coded, if `turn` is what was done to them."""
    marked = np.arange(64 * 96 * 3).reshape(64, 96, 3)
    back = np.argsort(turn(marked).ravel())
    if images[0].shape != turn(marked).shape:
        return None
    return np.stack([image.ravel()[back].reshape(64, 96, 3) for image in images])


def table() -> tuple[str, list[str]]:
    """The matrix as a Markdown table, and the rows that are wrong."""
    lines = ["| container | codec | trait | result | note or refusal |", "|---|---|---|---|---|"]
    wrong = []
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            try:
                verdict = judge(case, Path(folder))
            except (av.FFmpegError, ValueError) as error:
                wrong.append(f"{case[:3]} cannot be made: {type(error).__name__} {error}")
                continue
        codec = case.codec.removeprefix("lib")
        words = " ".join(verdict.words.replace("|", "/").split())
        lines.append(f"| {case.container} | {codec} | {case.trait} | {verdict.outcome} | {words} |")
        if verdict.outcome == "WRONG" or (verdict.outcome == "refused" and not case.may_refuse):
            wrong.append(lines[-1])
    return "\n".join(lines), wrong


def main() -> int:
    """Print or record the table; exit status 1 if a row is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    rows, wrong = table()
    if given.record:
        before, _, rest = DOCS.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        DOCS.write_text(f"{before}{MARKS[0]}\n{rows}\n{MARKS[1]}{after}", encoding="utf-8")
    else:
        print(rows)
    print(f"{rows.count(chr(10)) - 1} files, {len(wrong)} to look at", *wrong, sep="\n")
    return int(any("WRONG" in row for row in wrong))


if __name__ == "__main__":
    sys.exit(main())
