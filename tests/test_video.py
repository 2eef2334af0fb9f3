"""The reader returns the frame on screen or an error, never another frame; the writer writes the
same bytes or nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import clips
import fuzz
import numpy as np
import pytest
import video_matrix

from timescope_lite import video
from timescope_lite.common import UserError
from timescope_lite.video import probe, read_frames, stream_segments, write_mp4

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "videos"
ANNOUNCED = pytest.mark.filterwarnings("ignore:.*read with PyAV instead of decord")
NAMES = (
    *(
        "plain",
        "b_frames",
        "open_gop",
        "open_gop_mkv",
        "variable_rate",
        "variable_b_frames",
        "variable_rate_mkv",
        "offset_mp4",
        "offset_mkv",
    ),
    *(
        "offset_ts",
        "odd_size",
        "odd_shape",
        "ntsc",
        "slow",
        "hidden_keyframes",
        "intra_refresh",
        "edit_list",
    ),
)
Clips = dict[str, tuple[Path, np.ndarray, int, bool]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    made = clips.decodable(tmp_path_factory.mktemp("clips"))
    assert set(made) == set(NAMES)
    return made


def noisy_clip(path: Path, num_frames: int = 60) -> Path:
    """A clip of several hundred kilobytes, so that no decoder holds all of it in a buffer."""
    images = np.random.default_rng(0).integers(0, 256, (num_frames, 128, 128, 3), dtype=np.uint8)
    return write_mp4(path, images, 10, gop=10)


def all_frames(path: Path) -> np.ndarray:
    return read_frames(path, probe(path).times_s)


# ---- the right frame -----------------------------------------------------------------------------


@ANNOUNCED
@pytest.mark.parametrize("backend", ["auto", "pyav"])
@pytest.mark.parametrize("name", NAMES)
def test_no_wrong_frame_in_order_or_at_random(good: Clips, name: str, backend: str) -> None:
    path, times_s, first, decord_is_wrong = good[name]
    info = probe(path, backend=backend)
    numbers = first + np.arange(len(times_s))
    np.testing.assert_allclose(info.times_s, times_s, atol=1.1e-3)
    assert info.backend == ("pyav" if decord_is_wrong or backend == "pyav" else "decord")
    assert clips.read_barcodes(read_frames(path, times_s, backend=backend)) == numbers.tolist()
    order = np.random.default_rng(1).permutation(len(times_s))
    assert (
        clips.read_barcodes(read_frames(path, times_s[order], backend=backend))
        == numbers[order].tolist()
    )
    for idx in order[:25]:  # a new reader each: the access that breaks on open groups of pictures
        assert clips.read_barcodes(read_frames(path, [times_s[idx]], backend=backend)) == [
            numbers[idx]
        ]


@ANNOUNCED
@pytest.mark.parametrize("fps", [1.0, 7.0])
@pytest.mark.parametrize("name", NAMES)
def test_streaming_shows_the_frame_on_screen(good: Clips, name: str, fps: float) -> None:
    path, times_s, first, _ = good[name]
    segments = list(stream_segments(path, fps=fps, frames_per_segment=16, size=32))
    sampled_s = np.concatenate([segment.times_s[: segment.num_valid] for segment in segments])
    pixels = np.concatenate([segment.pixels[: segment.num_valid] for segment in segments])
    np.testing.assert_allclose(sampled_s, np.arange(len(sampled_s)) / fps)
    duration_s = probe(path).duration_s
    assert sampled_s[-1] < duration_s <= sampled_s[-1] + 1 / fps + 2e-3
    shown = first + np.searchsorted(times_s, sampled_s + video.EPSILON_S, side="right") - 1
    assert clips.read_barcodes(pixels) == shown.tolist()


def test_between_frames_the_earlier_one_is_on_screen(good: Clips) -> None:
    path, times_s, _, _ = good["variable_rate"]
    gap = int(np.argmax(np.diff(times_s)))
    middle_s = (times_s[gap] + times_s[gap + 1]) / 2
    assert clips.read_barcodes(
        read_frames(path, [middle_s, times_s[gap + 1] - 0.01, times_s[gap + 1]])
    ) == [gap, gap, gap + 1]


def test_times_outside_the_video(good: Clips) -> None:
    path, times_s, _, _ = good["plain"]
    assert clips.read_barcodes(read_frames(path, [-3.0, 0.0, 6.0, 6.03])) == [0, 0, 149, 149]
    with pytest.raises(UserError, match=r"6\.10 s.*lasts 6\.00 s"):
        read_frames(path, [1.0, 6.1])
    with pytest.raises(UserError, match="nan s"):
        read_frames(path, [float("nan")])
    assert read_frames(path, []).shape == (0, 128, 128, 3)


def test_duration_counts_the_last_frame(good: Clips) -> None:
    assert probe(good["plain"][0]).duration_s == pytest.approx(6.0)
    assert probe(good["slow"][0]).duration_s == pytest.approx(75.0)
    assert probe(good["ntsc"][0]).duration_s == pytest.approx(150 * 1001 / 30_000, abs=1e-4)
    assert probe(good["variable_rate"][0]).duration_s == pytest.approx(
        clips.variable_times()[-1] + 0.04, abs=1e-4
    )
    assert probe(good["odd_size"][0]).width == 65 and probe(good["odd_size"][0]).height == 47


def test_last_segment_repeats_its_last_frame(good: Clips) -> None:
    *_, last = stream_segments(good["plain"][0], fps=3, frames_per_segment=16, size=64)
    assert (last.segment_idx, last.num_valid, last.pixels.shape) == (1, 2, (16, 64, 64, 3))
    np.testing.assert_array_equal(last.times_s[1:], np.full(15, 17 / 3))
    assert all(np.array_equal(image, last.pixels[1]) for image in last.pixels[2:])


@ANNOUNCED
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_video_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = write_mp4(tmp_path / f"one{suffix}", clips.barcodes(range(77, 78)), 4)
    assert (probe(path).num_frames, probe(path).duration_s) == (1, pytest.approx(0.25))
    assert clips.read_barcodes(read_frames(path, [0.0, 0.2])) == [77, 77]
    (segment,) = stream_segments(path)
    assert segment.num_valid == 1 and set(clips.read_barcodes(segment.pixels)) == {77}


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_both_decoders_turn_a_phone_video_upright(tmp_path: Path, turns: int) -> None:
    path = clips.rotate_header(
        write_mp4(tmp_path / "phone.mp4", clips.barcodes(range(9), 64, 128), 5), turns
    )
    upright = read_frames(path, [0.0, 1.0], backend="decord")
    np.testing.assert_array_equal(upright, read_frames(path, [0.0, 1.0], backend="pyav"))
    assert upright.shape == ((2, 128, 64, 3) if turns % 2 else (2, 64, 128, 3))


# ---- which decoder, and saying so ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("open_gop", "groups of pictures are open"),
        ("offset_ts", "transport stream"),
        ("edit_list", "edit list"),
        ("hidden_keyframes", "does not list"),
    ],
)
def test_fallback_is_announced_once_with_its_reason(good: Clips, name: str, reason: str) -> None:
    path = good[name][0]
    video._announce.cache_clear()
    with pytest.warns(UserWarning, match=reason) as caught:
        read_frames(path, [0.0])
        read_frames(path, [1.0])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert reason in probe(path).note
    with pytest.raises(UserError, match=reason):
        read_frames(path, [0.0], backend="decord")
    with pytest.raises(UserError, match="unknown video backend 'opencv'"):
        read_frames(path, [0.0], backend="opencv")


@pytest.mark.parametrize("width", [48, 96])
def test_widths_at_which_decord_returns_four_channels(tmp_path: Path, width: int) -> None:
    path = write_mp4(tmp_path / "narrow.mp4", clips.barcodes(range(20), 32, width), 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a later decord may be right
        images = all_frames(path)
    assert images.shape == (20, 32, width, 3) and clips.read_barcodes(images) == list(range(20))


def test_no_announcement_where_decord_is_right(good: Clips) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("plain", "b_frames", "variable_rate", "offset_mp4", "offset_mkv", "odd_size"):
            assert probe(good[name][0]).note == ""
        assert probe(good["edit_list"][0], backend="pyav").note == ""


def test_without_decord_pyav_reads_and_says_so(
    good: Clips, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, times_s, _, _ = good["plain"]
    monkeypatch.setattr(video, "decord", None)
    video._inspect_once.cache_clear()
    with pytest.warns(UserWarning, match="decord is not installed"):
        assert clips.read_barcodes(read_frames(path, times_s[40:43])) == [40, 41, 42]
    video._inspect_once.cache_clear()


def test_a_half_removed_decord_is_no_decord(tmp_path: Path) -> None:
    """What is left after one of the packages decord and decord2, which share a folder, was
    uninstalled.
    """
    (tmp_path / "decord").mkdir()
    (tmp_path / "decord" / "__init__.py").write_text("")
    code = "from timescope_lite import video; assert video.decord is None"
    path = os.pathsep.join([str(tmp_path), str(Path(video.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr


class _BadDecord:
    """A decord that lists a file rightly or wrongly and raises when frame 3 is read."""

    def __init__(self, times_s: np.ndarray, path: Path) -> None:
        self._real, self._times_s = video.decord.VideoReader(str(path), num_threads=1), times_s

    def __len__(self) -> int:
        return len(self._times_s)

    def get_frame_timestamp(self, _: range) -> np.ndarray:
        return np.stack([self._times_s, self._times_s], axis=1)

    def __getitem__(self, frame_idx: int) -> Any:
        if frame_idx == 3:
            raise RuntimeError("broken")
        return self._real[frame_idx]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t, "decord fails on it"),
        (lambda t: t[:-1], "decord lists 149 frames"),
        (lambda t: t * 1.01, "timestamps differ"),
    ],
)
def test_decord_that_fails_or_disagrees_is_left(
    good: Clips, monkeypatch: pytest.MonkeyPatch, change: Any, reason: str
) -> None:
    path, times_s, _, _ = good["b_frames"]
    fake = _BadDecord(change(times_s), path)
    monkeypatch.setattr(video.decord, "VideoReader", lambda *_, **__: fake)
    video._inspect_once.cache_clear()
    video._announce.cache_clear()
    with pytest.warns(UserWarning, match=reason):
        assert clips.read_barcodes(read_frames(path, times_s[:6])) == list(range(6))
    video._inspect_once.cache_clear()


# ---- bad files -----------------------------------------------------------------------------------


def assert_one_line_error(path: Path, match: str) -> None:
    for attempt in (
        lambda: probe(path),
        lambda: read_frames(path, [0.0]),
        lambda: list(stream_segments(path)),
    ):
        with pytest.raises(UserError, match=match) as caught:
            attempt()
        assert path.name in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_video(tmp_path: Path) -> None:
    assert_one_line_error(tmp_path / "none.mp4", "does not exist")
    (tmp_path / "folder.mp4").mkdir()
    assert_one_line_error(tmp_path / "folder.mp4", "is not a file")
    (tmp_path / "empty.mp4").touch()
    assert_one_line_error(tmp_path / "empty.mp4", "is empty")
    (tmp_path / "text.mp4").write_text("frame one, frame two\n" * 200)
    assert_one_line_error(tmp_path / "text.mp4", "cannot be read as a video|no video stream")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    assert_one_line_error(tmp_path / "noise.mp4", "cannot be read as a video|no video stream")
    for name in ("sound.mp4", "sound.mkv"):
        assert_one_line_error(clips.audio_only(tmp_path / name), "no video stream")


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("picture.png", "picture.mp4"):
        image.fromarray(clips.barcode(5)).save(tmp_path / name, format="PNG")
        assert_one_line_error(tmp_path / name, "no video stream")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything"
)
def test_unreadable_file(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "locked.mp4", clips.barcodes(range(3)), 5)
    path.chmod(0)
    assert_one_line_error(path, "(?i)permission denied")


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["moov first", "moov last", "mkv"])
def test_truncated_file(good: Clips, tmp_path: Path, kind: str, share: float) -> None:
    whole = good["plain"][0]
    if kind != "moov last":
        target = tmp_path / f"whole.{ {'moov first': 'mp4'}.get(kind, kind) }"
        whole = clips.remux(whole, target, movflags="faststart" if kind == "moov first" else "")
    data = whole.read_bytes()
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(data[: int(len(data) * share) | 1])
    assert_one_line_error(path, "truncated")
    if kind == "moov first" and share > 0.3:
        with pytest.raises(UserError) as caught:
            probe(path)
        second = float(re.findall(r"break off at (\d\.\d\d) s", str(caught.value))[0])
        assert 0.4 * share < second / 6 <= share + 0.1


@ANNOUNCED
@pytest.mark.filterwarnings("ignore:.*its last packet is incomplete")
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_a_recording_that_breaks_off_is_read_up_to_its_last_whole_frame(
    good: Clips, tmp_path: Path, share: float
) -> None:
    """A stopped recorder leaves part of a packet: that the rest may be missing is a note."""
    whole = clips.remux(good["plain"][0], tmp_path / "whole.ts")
    path = tmp_path / "cut.ts"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share) | 1])
    info = probe(path)
    assert "last packet is incomplete" in info.note
    assert 0.6 * share * 150 < info.num_frames < 150
    assert clips.read_barcodes(all_frames(path)) == list(range(info.num_frames))


@pytest.mark.parametrize("share", [0.0005, 0.02])
def test_a_recording_without_a_whole_frame_is_truncated(
    good: Clips, tmp_path: Path, share: float
) -> None:
    whole = clips.remux(good["plain"][0], tmp_path / "whole.ts")
    path = tmp_path / "cut.ts"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share) | 1])
    assert_one_line_error(path, "truncated")


# ---- containers, codecs, traits ------------------------------------------------------------------

MATRIX = list(video_matrix.cases())
SHOWN = [case for case in MATRIX if case.trait not in ("plain", "cut at 60 %")]
QUICK = [case for case in SHOWN if case.codec not in ("libx265", "libsvtav1", "libvpx-vp9")]


def _named(case: video_matrix.Case) -> str:
    return "-".join(case[:3]).replace(" ", "_")


def check_case(case: video_matrix.Case, folder: Path) -> None:
    verdict = video_matrix.judge(case, folder)
    refused = verdict.outcome == "refused" and case.may_refuse
    assert refused or verdict.outcome == "exact" or verdict.outcome.startswith("the whole"), verdict


@pytest.mark.parametrize("case", QUICK, ids=_named)
def test_every_trait_of_a_container(case: video_matrix.Case, tmp_path: Path) -> None:
    check_case(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in MATRIX if case not in QUICK], ids=_named)
def test_the_rest_of_the_matrix(case: video_matrix.Case, tmp_path: Path) -> None:
    check_case(case, tmp_path)


def test_the_page_on_files_lists_every_row() -> None:
    rows = video_matrix.DOCS.read_text(encoding="utf-8").count("\n| ") - 1
    assert rows == len(MATRIX), "run python tests/video_matrix.py --record"


@pytest.mark.slow
def test_mutated_videos_end_in_frames_or_in_one_line() -> None:
    counts = fuzz.videos(500, seed=5)
    assert set(counts) == {"read", "refused"}, counts


def test_a_late_picture_gets_a_note(tmp_path: Path) -> None:
    path = video_matrix.encode(tmp_path / "late.mp4", "libx264", sound_s=2.0)
    video._announce.cache_clear()
    with pytest.warns(UserWarning, match=r"picture starts 2\.00 s after its sound"):
        assert probe(path).times_s[0] == 0.0
    assert "2.00 s after its sound" in probe(path, backend="pyav").note


def test_pictures_of_every_container_are_refused_alike(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = image.fromarray(clips.barcode(5))
    for name in ("a.gif", "a.png", "a.jpg", "a.webp", "a.bmp", "a.tiff", "a.avif", "a.ico"):
        try:
            picture.save(tmp_path / name)
        except (KeyError, OSError, ValueError):
            continue  # this build of Pillow does not write it
        assert_one_line_error(tmp_path / name, "is a picture: it holds no video stream")


def test_an_animation_is_a_video(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    first, *rest = [image.fromarray(picture) for picture in clips.barcodes(range(12))]
    for name in ("a.gif", "a.png"):
        first.save(tmp_path / name, save_all=True, append_images=rest, duration=100, format=None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert clips.read_barcodes(all_frames(tmp_path / name)) == list(range(12))


CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample cases are not here")
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize(
    ("name", "num_frames", "duration_s", "note"),
    [
        ("video/anim.gif", 40, 4.0, "gif"),
        ("video/concat_reset_cc.ts", 120, 12.0, "clock restarts"),
        ("video/h264_b.avi", 60, 2.4, "AVI holds no timestamps"),
        ("video/ts_tail.ts", 60, 6.0, "last packet is incomplete"),
        ("video/delayed.mp4", 60, 6.0, "3.00 s after its sound"),
        ("orientation/zero_matrix_pyav.mp4", 30, 3.0, ""),
    ],
)
def test_sample_cases(name: str, num_frames: int, duration_s: float, note: str) -> None:
    info = probe(CASES / name)
    assert (info.num_frames, info.duration_s) == (num_frames, pytest.approx(duration_s))
    assert note in info.note and len(all_frames(CASES / name)) == num_frames


@pytest.mark.skipif(not CASES.is_dir(), reason="the sample cases are not here")
def test_sample_pictures_and_orientations() -> None:
    assert_one_line_error(CASES / "video" / "photo.avif", "is a picture")
    folder = CASES / "orientation"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero, white = (
            read_frames(folder / n, [0.0]) for n in ("zero_matrix_pyav.mp4", "white_on_top.mp4")
        )
        turned = read_frames(folder / "-89_97.mp4", [0.0])
    np.testing.assert_array_equal(zero, white)
    assert turned.shape == (1, 192, 160, 3)


@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_truncated_while_streaming_names_the_second(tmp_path: Path, movflags: str) -> None:
    path = clips.remux(
        noisy_clip(tmp_path / "noisy.mp4"), tmp_path / "shrinking.mp4", movflags=movflags
    )
    segments = stream_segments(path, fps=10, frames_per_segment=5)
    assert next(segments).num_valid == 5
    os.truncate(path, int(path.stat().st_size * 0.6))
    with pytest.raises(UserError, match=r"frame at 3\.\d\d s cannot be decoded") as caught:
        list(segments)
    assert path.name in str(caught.value)


@ANNOUNCED
def test_damaged_frames_are_refused_where_decord_paints_over(good: Clips, tmp_path: Path) -> None:
    whole, times_s, _, _ = good["plain"]
    clean = all_frames(whole).astype(int)
    refused = painted_over = 0
    for seed in range(12):
        path = clips.damage(whole, tmp_path / f"damaged{seed}.mp4", seed)
        bad = clips.spoilt(path)
        for idx in np.flatnonzero(bad)[::5]:
            with pytest.raises(UserError, match=rf"damaged: its frame at {times_s[idx]:.2f} s"):
                read_frames(path, [times_s[idx]])
            refused += 1
        untouched = np.random.default_rng(seed).permutation(np.flatnonzero(~bad))[:10]
        again = read_frames(path, times_s[untouched])
        np.testing.assert_array_equal(again, read_frames(path, times_s[untouched], backend="pyav"))
        painted_over += _frames_decord_gets_wrong(path, clean, np.flatnonzero(bad))
    assert refused > 10 and painted_over > 10


def _frames_decord_gets_wrong(path: Path, clean: np.ndarray, frame_idxs: np.ndarray) -> int:
    wrong = 0
    for idx in frame_idxs:
        try:
            wrong += (
                np.abs(
                    video.decord.VideoReader(str(path), num_threads=1)[int(idx)].asnumpy()
                    - clean[idx]
                ).mean()
                > 3
            )
        except Exception:  # an error is an honest answer
            continue
    return wrong


@ANNOUNCED
def test_streaming_stops_at_damage_and_names_the_second(good: Clips, tmp_path: Path) -> None:
    path = next(
        p
        for seed in range(12)
        if clips.spoilt(p := clips.damage(good["plain"][0], tmp_path / "damaged.mp4", seed)).any()
    )
    first_s = np.flatnonzero(clips.spoilt(path))[0] / 25
    seen_s: list[float] = []
    with pytest.raises(UserError, match=rf"damaged: its frame at {first_s:.2f} s"):
        for segment in stream_segments(path, fps=25, frames_per_segment=1):
            seen_s += segment.times_s.tolist()
    assert len(seen_s) > 0 and seen_s[-1] == pytest.approx(first_s - 0.04)


def test_streaming_options_are_checked_at_once(good: Clips) -> None:
    for options in ({"fps": 0}, {"fps": float("inf")}, {"frames_per_segment": 0}, {"size": 0}):
        with pytest.raises(UserError, match="positive"):
            stream_segments(good["plain"][0], **options)  # type: ignore[arg-type]


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "out"), [(32, 32, 16), (24, 48, 8), (6, 10, 4), (5, 3, 7), (47, 65, 16)]
)
def test_area_mean_is_exact(height: int, width: int, out: int) -> None:
    image = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    # Independent: blow every pixel up to out x out, then plain block means in whole numbers.
    blocks = (
        np.kron(image.astype(np.int64), np.ones((out, out, 1), dtype=np.int64))
        .reshape(out, height, out, width, 3)
        .sum((1, 3))
    )
    expected = (2 * blocks + height * width) // (2 * height * width)
    np.testing.assert_array_equal(video._area_resize(image, out, out), expected)


def test_size_is_the_mean_of_the_full_frames(good: Clips) -> None:
    path, times_s, _, _ = good["plain"]
    full = read_frames(path, times_s[:5]).astype(np.int64).reshape(5, 64, 2, 64, 2, 3).sum((2, 4))
    np.testing.assert_array_equal(read_frames(path, times_s[:5], size=64), (full + 2) // 4)


# ---- writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_same_bytes_each_time(tmp_path: Path, suffix: str) -> None:
    one, two = (
        write_mp4(tmp_path / f"{n}{suffix}", clips.barcodes(range(40)), 4, b_frames=2) for n in "ab"
    )
    assert one.read_bytes() == two.read_bytes()


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def breaks() -> Any:
        yield clips.barcode(0)
        raise RuntimeError("renderer failed")

    with pytest.raises(RuntimeError, match="renderer failed"):
        write_mp4(tmp_path / "a.mp4", breaks(), 4)
    images = list(clips.barcodes(range(3)))
    with pytest.raises(UserError, match="no frames"):
        write_mp4(tmp_path / "a.mp4", [], 4)
    with pytest.raises(UserError, match="128x128 and 64x64"):
        write_mp4(tmp_path / "a.mp4", [images[0], clips.barcode(1, 64, 64)], 4)
    with pytest.raises(UserError, match="float64"):
        write_mp4(tmp_path / "a.mp4", [images[0] / 255], 4)
    for times_s in ([0, 1], [0, 1, 2, 3], []):
        with pytest.raises(UserError, match="one time per frame"):
            write_mp4(tmp_path / "a.mp4", images, 4, times_s=times_s)
    for times_s in ([0, 2, 1], [0, 1, 1], [-1, 0, 1]):
        with pytest.raises(UserError, match="rise"):
            write_mp4(tmp_path / "a.mp4", images, 4, times_s=times_s)
    with pytest.raises(UserError, match=r"expected \.mp4"):
        write_mp4(tmp_path / "a.avi", images, 4)
    assert list(tmp_path.iterdir()) == []


# ---- real clips ----------------------------------------------------------------------------------

REAL = sorted(path.name for path in REFERENCE.glob("*.[mw][pe]*")) if REFERENCE.is_dir() else []


@pytest.mark.skipif(not REAL, reason="the reference clips are not here")
def test_burned_in_time_code_is_the_time_asked_for() -> None:
    times_s = np.random.default_rng(2).uniform(0, 16, 40)
    images = read_frames(REFERENCE / "testcard_timecode_16s.mp4", times_s).mean(axis=3) > 160
    ys, xs = np.mgrid[:480, :640]
    disc = np.hypot(ys - 240, xs - 80) < 50
    for time_s, image in zip(times_s, images, strict=True):
        second = (
            sum(image[385:412, x - 8 : x + 8].mean() > 0.5 for x in range(48, 600, 36)) - 1
        )  # a row of 16 cells, one more white each second
        white = image[
            disc
        ].mean()  # a clock hand sweeps the disc white in even seconds, black in odd ones
        frame = round(25 * (white if second % 2 == 0 else 1 - white))
        assert 25 * second + frame == np.floor((time_s + video.EPSILON_S) * 25), time_s


@pytest.mark.skipif(not REAL, reason="the reference clips are not here")
@pytest.mark.parametrize("name", REAL)
def test_real_clip_reads_the_same_with_both_decoders(name: str) -> None:
    path = REFERENCE / name
    info = probe(path)
    assert info.backend == "decord" and info.num_frames == len(info.times_s) > 100
    times_s = np.random.default_rng(4).uniform(0, info.duration_s, 4)
    np.testing.assert_array_equal(
        read_frames(path, times_s, size=64), read_frames(path, times_s, size=64, backend="pyav")
    )
    segment = next(stream_segments(path, size=64, frames_per_segment=3))
    np.testing.assert_array_equal(segment.pixels, read_frames(path, [0.0, 1.0, 2.0], size=64))
